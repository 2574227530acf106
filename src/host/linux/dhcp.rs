//! A DHCP client for a host tap (RFC 2131), one thread each. It sends and receives whole IP packets, because the kernel's
//! own sockets need the address that it is about to get.
//!
//! The address is in the kernel with the lease's lifetime, so that it goes by itself if nobody renews it. Servers are
//! always asked by broadcast.

mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::message::{Kind, Message};
use super::netlink::Netlink;
use super::packet::{self, Statement};
use crate::name::TapName;

/// The largest packet that is read.
const LARGEST: usize = 1500;
/// How long an answer is waited for at first and at most; doubled each time.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(32);
/// Between two tries to renew a lease, at least.
const RENEWAL_PAUSE: Duration = Duration::from_secs(2);

const UDP: u32 = 17;
/// Of an IPv4 packet without options: UDP to the port of DHCP clients.
const FILTER: &[Statement] = &[
    Statement::load_byte(0),
    Statement::jump_equal(0x45, 0, 5),
    Statement::load_byte(9),
    Statement::jump_equal(UDP, 0, 3),
    Statement::load_half(22),
    Statement::jump_equal(message::CLIENT as u32, 0, 1),
    Statement::take(LARGEST as u32),
    Statement::take(0),
];

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub address: Ipv4Addr,
    pub prefix: u8,
    /// Infinite is [`u32::MAX`].
    pub seconds: u32,
}

/// A client at work. It ends when this is dropped, or when its tap goes; the address stays for its lifetime.
#[derive(Debug)]
pub(super) struct Client {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Start asking, on an interface of the calling thread's network namespace. Each lease that has another address than
    /// the one before goes to `leases` once it is in the kernel.
    pub(super) fn start(tap: &TapName, leases: mpsc::Sender<Lease>) -> io::Result<Self> {
        let mut netlink = Netlink::open()?;
        let link = netlink.link_by_name(tap.as_str())?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        let socket = packet::open(libc::SOCK_DGRAM, FILTER)?;
        packet::bind(&socket, link.index, libc::ETH_P_IP as u16)?;
        let mac = packet::hardware_address(&socket)?;
        let (stopped, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let state = State { tap: tap.clone(), index: link.index, mac, socket, netlink, stopped, leases, xid: 0 };
        let thread = std::thread::Builder::new().name("dhcp".to_owned()).spawn(move || {
            let (tap, mut state) = (state.tap.clone(), state);
            match state.run() {
                // The end of the client or of its tap.
                Ok(()) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENODEV | libc::ENXIO)) => {}
                Err(error) => tracing::warn!(%tap, %error, "the DHCP client has ended"),
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn runs(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported on standard error.
            let _ = thread.join();
        }
    }
}

struct State {
    tap: TapName,
    index: u32,
    mac: [u8; 6],
    socket: OwnedFd,
    netlink: Netlink,
    stopped: OwnedFd,
    leases: mpsc::Sender<Lease>,
    xid: u32,
}

/// What a wait has ended with.
enum Heard {
    Message(Message),
    Nothing,
    Stop,
}

impl State {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let Some((mut lease, server)) = self.acquire()? else { return Ok(()) };
            let mut taken = Instant::now();
            self.configure(&lease)?;
            tracing::info!(tap = %self.tap, address = %lease.address, seconds = lease.seconds, "DHCP lease");
            // Nobody may wait for it any longer.
            let _ = self.leases.send(lease);
            loop {
                if lease.seconds == u32::MAX {
                    match self.wait(None)? {
                        Heard::Stop => return Ok(()),
                        Heard::Message(_) | Heard::Nothing => continue,
                    }
                }
                match self.renew(&lease, taken, server)? {
                    Renewal::Stop => return Ok(()),
                    Renewal::Renewed(new) => {
                        taken = Instant::now();
                        if new.address != lease.address {
                            self.unconfigure(&lease)?;
                        }
                        lease = new;
                        self.configure(&lease)?;
                    }
                    Renewal::Lost => {
                        tracing::warn!(tap = %self.tap, address = %lease.address, "the DHCP lease is lost");
                        self.unconfigure(&lease)?;
                        break;
                    }
                }
            }
        }
    }

    fn configure(&mut self, lease: &Lease) -> io::Result<()> {
        for old in self.netlink.addresses()? {
            // What an earlier process has got.
            if let (IpAddr::V4(address), true) = (old.address, old.index == self.index)
                && address != lease.address
                && !old.permanent
            {
                self.unconfigure(&Lease { address, prefix: old.prefix, seconds: 0 })?;
            }
        }
        self.netlink.lease_address(self.index, lease.address, lease.prefix, lease.seconds)
    }

    fn unconfigure(&mut self, lease: &Lease) -> io::Result<()> {
        match self.netlink.delete_address(self.index, lease.address, lease.prefix) {
            // Its lifetime is over.
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        let packet = message.packet(self.mac);
        match packet::send(&self.socket, self.index, libc::ETH_P_IP as u16, [0xff; 6], &packet) {
            // The tap is disconnected now; it may be connected again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENETDOWN | libc::ENOBUFS)) => self.still_there(),
            result => result,
        }
    }

    /// An error if the interface is gone.
    fn still_there(&mut self) -> io::Result<()> {
        match self.netlink.link_by_index(self.index)? {
            Some(_) => Ok(()),
            None => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        }
    }

    /// Wait for a message to this client, until a moment or for ever.
    fn wait(&mut self, until: Option<Instant>) -> io::Result<Heard> {
        let mut buffer = [0; LARGEST];
        loop {
            let timeout = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => PollTimeout::NONE,
                Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            };
            let mut fds = [
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if fds[1].revents().is_some_and(|events| !events.is_empty()) {
                return Ok(Heard::Stop);
            }
            match packet::receive(self.socket.as_raw_fd(), &mut buffer) {
                Ok(frame) => {
                    let message = buffer.get(..frame.length).and_then(Message::read);
                    if let Some(message) = message.filter(|m| m.xid == self.xid && m.mac == self.mac) {
                        return Ok(Heard::Message(message));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.still_there()?,
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Heard::Nothing);
            }
        }
    }

    fn new_xid(&mut self) {
        let bytes = uuid::Uuid::new_v4().into_bytes();
        self.xid = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }

    /// Ask until there is a lease, and give the server that gave it. None at the end of the client.
    fn acquire(&mut self) -> io::Result<Option<(Lease, Ipv4Addr)>> {
        let mut wait = FIRST_WAIT;
        // One for all tries: a server may take longer than one of them, to see that an address is free.
        self.new_xid();
        loop {
            self.send(&Message::discover(self.xid))?;
            let until = Instant::now() + wait;
            wait = (wait * 2).min(LONGEST_WAIT);
            let offer = match self.await_kind(until, &[Kind::Offer])? {
                Heard::Stop => return Ok(None),
                Heard::Nothing => continue,
                Heard::Message(offer) => offer,
            };
            let Some(server) = offer.server else { continue };
            self.send(&Message::request(self.xid, offer.address, server))?;
            match self.await_kind(Instant::now() + wait, &[Kind::Ack, Kind::Nak])? {
                Heard::Stop => return Ok(None),
                Heard::Message(ack) if ack.kind == Kind::Ack => {
                    if let Some(lease) = ack.lease() {
                        return Ok(Some((lease, ack.server.unwrap_or(server))));
                    }
                }
                Heard::Message(_) | Heard::Nothing => {}
            }
            // Not at once again, whatever the server does.
            if let Heard::Stop = self.await_kind(Instant::now() + FIRST_WAIT, &[])? {
                return Ok(None);
            }
        }
    }

    fn await_kind(&mut self, until: Instant, kinds: &[Kind]) -> io::Result<Heard> {
        loop {
            match self.wait(Some(until))? {
                Heard::Message(message) if kinds.contains(&message.kind) => return Ok(Heard::Message(message)),
                Heard::Message(_) if Instant::now() < until => {}
                Heard::Message(_) | Heard::Nothing => return Ok(Heard::Nothing),
                Heard::Stop => return Ok(Heard::Stop),
            }
        }
    }

    /// From the middle of a lease to its end, ask for more of it.
    fn renew(&mut self, lease: &Lease, taken: Instant, server: Ipv4Addr) -> io::Result<Renewal> {
        let whole = Duration::from_secs(u64::from(lease.seconds));
        let end = taken + whole;
        let mut next = taken + whole / 2;
        loop {
            if let Heard::Stop = self.await_kind(next, &[])? {
                return Ok(Renewal::Stop);
            }
            let now = Instant::now();
            if now >= end {
                return Ok(Renewal::Lost);
            }
            self.new_xid();
            self.send(&Message::again(self.xid, lease.address))?;
            // Half of what is left, RFC 2131 section 4.4.5.
            next = (now + ((end - now) / 2).max(RENEWAL_PAUSE)).min(end);
            match self.await_kind(next, &[Kind::Ack, Kind::Nak])? {
                Heard::Stop => return Ok(Renewal::Stop),
                Heard::Message(message) if message.kind == Kind::Nak => {
                    // Another server on the VLAN has no say in this.
                    if message.server.is_none_or(|from| from == server) {
                        return Ok(Renewal::Lost);
                    }
                }
                Heard::Message(message) => {
                    if let Some(lease) = message.lease() {
                        return Ok(Renewal::Renewed(lease));
                    }
                }
                Heard::Nothing => {}
            }
        }
    }
}

enum Renewal {
    Renewed(Lease),
    Lost,
    Stop,
}
