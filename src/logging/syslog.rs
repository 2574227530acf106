//! Messages to a syslog daemon: RFC 5424 over UDP (RFC 5426) and TCP (RFC 6587, one line each), and what syslog(3)
//! writes to the local daemon's socket.
//!
//! A thread of its own sends, so that a daemon that is slow or gone holds up nobody who logs; messages that it has no
//! room for are counted, and the next that goes out says how many were lost.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::line::Line;

/// The local daemon's socket.
pub const LOCAL: &str = "/dev/log";

/// How many messages may wait.
const WAITING: usize = 4096;

/// How long a connection or a write may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long a lost connection stays alone before it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The facility `daemon` of RFC 5424.
const FACILITY: u8 = 3;

/// How a syslog daemon is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `HOST:PORT`
    Tcp,
    /// `HOST:PORT`
    Udp,
    /// The path of a datagram socket.
    Local,
}

impl Transport {
    /// As the command has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Local => "local",
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Udp(UdpSocket),
    Local(UnixDatagram),
}

fn addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(found)
}

impl Stream {
    fn open(transport: Transport, address: &str) -> io::Result<Self> {
        match transport {
            Transport::Tcp => {
                let mut last = None;
                for address in addresses(address)? {
                    match TcpStream::connect_timeout(&address, DEADLINE) {
                        Ok(stream) => {
                            stream.set_write_timeout(Some(DEADLINE))?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.expect("there is an address"))
            }
            Transport::Udp => {
                let address = addresses(address)?[0];
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            Transport::Local => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(DEADLINE))?;
                Ok(Self::Local(socket))
            }
        }
    }

    fn send(&mut self, message: &str) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(format!("{message}\n").as_bytes()),
            Self::Udp(socket) => match socket.send(message.as_bytes()) {
                // An earlier datagram was refused: nobody listens now, which UDP does not count as a failure.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                sent => sent.map(drop),
            },
            Self::Local(socket) => socket.send(message.as_bytes()).map(drop),
        }
    }
}

/// A syslog daemon.
pub(super) struct Syslog {
    sender: SyncSender<String>,
    lost: Arc<AtomicU64>,
    /// None for the local daemon, which knows it.
    host: Option<String>,
}

impl Syslog {
    /// Connect.
    pub(super) fn open(transport: Transport, address: &str) -> io::Result<Self> {
        let stream = Stream::open(transport, address)?;
        let (sender, messages) = sync_channel::<String>(WAITING);
        let address = address.to_owned();
        // Ends when the sender is dropped.
        std::thread::Builder::new().name("syslog".to_owned()).spawn(move || {
            let mut stream = Some(stream);
            let mut tried = Instant::now();
            for message in messages {
                if stream.is_none() && tried.elapsed() >= AGAIN {
                    tried = Instant::now();
                    stream = Stream::open(transport, &address).ok();
                }
                if let Some(open) = &mut stream
                    && open.send(&message).is_err()
                {
                    // Once more at once: a daemon that was restarted listens again.
                    tried = Instant::now();
                    stream = Stream::open(transport, &address).ok();
                    if let Some(open) = &mut stream {
                        let _lost = open.send(&message);
                    }
                }
            }
        })?;
        let host = (transport != Transport::Local).then(host_name);
        Ok(Self { sender, lost: Arc::default(), host })
    }

    /// Hand a message over; never waits.
    pub(super) fn send(&self, line: &Line) {
        let mut body = line.body();
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            body = format!("({lost} messages before this one are lost) {body}");
        }
        let priority = FACILITY * 8 + line.severity();
        let pid = std::process::id();
        let message = match &self.host {
            // PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG
            Some(host) => format!("<{priority}>1 {} {host} megaform {pid} - - {body}", line.time()),
            // The local daemon adds the time itself (RFC 3164, 4.3.3).
            None => format!("<{priority}>megaform[{pid}]: {body}"),
        };
        if let Err(TrySendError::Full(_)) = self.sender.try_send(message) {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

/// This host's name; `-` is RFC 5424's word for none.
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic())).unwrap_or_else(|| "-".to_owned())
}
