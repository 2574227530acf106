//! Capture frames that are sent as fast as one program can, beside tcpdump on the same interfaces at the same time.
//!
//! A VM that never runs is on a VLAN with a host tap. A program in the engine's network sends UDP to an address behind
//! the VM's NIC, and two captures hear it: one of the NIC, one of the bridge. Two tcpdumps, with as much room in the
//! kernel for frames that wait and the same snaplen, hear the same two interfaces. They share the machine, so that what
//! slows one down slows the others. What is lost is what the kernel says (PACKET_STATISTICS), and frames that are
//! neither in a file nor counted as lost are an error.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use bench::{Connection, Daemon, PATIENCE};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use nix::unistd::Pid;
use serde_json::Value;

/// How many bytes a datagram carries, and how many are sent: short frames and full ones.
const LOADS: [(usize, usize); 2] = [(18, 1_000_000), (1472, 400_000)];
const ROUNDS: usize = 3;
/// How many datagrams one call sends.
const BATCH: usize = 64;
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const FAR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9);
/// What tcpdump is given: megaform's own snaplen and room, in KiB.
const TCPDUMP: &[&str] = &["-n", "-s", "1600", "-B", "32768"];

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [_, size, count] = &*words {
        let number = |text: &String| text.parse().map_err(io::Error::other);
        return send(number(size)?, number(count)?);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("capture-rate needs root, for packet sockets and network namespaces"));
    }
    let lab = Lab::start()?;
    println!("frames in the files of those that were sent, each of {ROUNDS} rounds: NIC and bridge");
    let mut ratios = Vec::new();
    for (size, count) in LOADS {
        let mut shares = Vec::new();
        for _ in 0..ROUNDS {
            let alone = lab.round(size, count, true, false)?;
            let both = lab.round(size, count, true, true)?;
            println!("{} bytes, {:.0} frames/s: {}", size + 42, alone.rate, alone.ours);
            println!("{} bytes, {:.0} frames/s: {}; tcpdump {}", size + 42, both.rate, both.ours, both.tcpdump);
            shares.push(both.tcpdump.both() / both.ours.both());
        }
        shares.sort_by(f64::total_cmp);
        println!("{} bytes: tcpdump's share divided by megaform's, median: {:.3}", size + 42, shares[ROUNDS / 2]);
        ratios.push(shares[ROUNDS / 2]);
    }
    let ratio = ratios.iter().copied().fold(0.0, f64::max);
    println!("the worse of the two: {} the limit of 1", if ratio > 1.0 { "OVER" } else { "within" });
    println!("ratio: {ratio:.2}");
    Ok(())
}

/// Send datagrams, as many as there are calls for.
fn send(size: usize, count: usize) -> io::Result<()> {
    let socket = UdpSocket::bind((NEAR, 0))?;
    let payload = vec![0; size];
    let places = [[io::IoSlice::new(&payload)]; BATCH];
    let to = [Some(SockaddrIn::from(FAR)); BATCH];
    let mut headers = MultiHeaders::preallocate(BATCH, None);
    let mut sent = 0;
    while sent < count {
        let now = BATCH.min(count - sent);
        let results = sendmmsg(socket.as_raw_fd(), &mut headers, &places[..now], &to[..now], [], MsgFlags::empty())?;
        sent += results.count();
    }
    Ok(())
}

/// Which part of what was sent is in the files of the NIC and the bridge.
#[derive(Clone, Copy, Default)]
struct Shares {
    nic: f64,
    bridge: f64,
    dropped: u64,
}

impl Shares {
    fn both(self) -> f64 {
        self.nic + self.bridge
    }
}

impl std::fmt::Display for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1}% and {:.1}% ({} dropped)", 100.0 * self.nic, 100.0 * self.bridge, self.dropped)
    }
}

struct Round {
    /// Frames sent in a second.
    rate: f64,
    ours: Shares,
    tcpdump: Shares,
}

struct Lab {
    daemon: Daemon,
    program: PathBuf,
    tap: String,
}

impl Lab {
    fn start() -> io::Result<Self> {
        let daemon = Daemon::start()?;
        let mut connection = Connection::open(&daemon.socket())?;
        for command in ["vm config memory 16", "vm config networks LAN", "vm launch kvm a"] {
            connection.command(command)?;
        }
        connection.command(&format!("tap create LAN ip {NEAR}/24 near"))?;
        let tap = connection.command(".columns tap vm info")?["Tabular"][0][0].as_str().unwrap_or_default().to_owned();
        let tap = tap.trim_matches(['[', ']', '"']).to_owned();
        let lab = Self { daemon, program: std::env::current_exe()?, tap };
        let neighbor = ["neigh", "replace", &FAR.ip().to_string(), "lladdr", "02:00:00:00:00:02", "dev", "near"]
            .map(str::to_owned);
        if !lab.inside("ip").args(neighbor).status()?.success() {
            return Err(io::Error::other("`ip neigh` failed"));
        }
        Ok(lab)
    }

    /// A program in the engine's network.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new(std::env::var_os("MEGAFORM").unwrap_or_default());
        command.arg("--base").arg(self.daemon.folder().join("base")).args(["exec-net", "--", program]);
        command.stdin(Stdio::null());
        command
    }

    /// The devices that a capture of the bridge hears.
    fn bridge(&self) -> io::Result<String> {
        let listed = self.inside("ip").args(["-o", "link", "show", "type", "bridge"]).output()?;
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        let name = text.split(": ").nth(1).ok_or_else(|| io::Error::other("there is no bridge"))?;
        Ok(name.to_owned())
    }

    fn round(&self, size: usize, count: usize, ours: bool, tcpdump: bool) -> io::Result<Round> {
        let mut connection = Connection::open(&self.daemon.socket())?;
        if ours {
            connection.command("capture pcap vm a 0 nic.pcap")?;
            connection.command("capture pcap bridge mega_bridge bridge.pcap")?;
        }
        let dumps = if tcpdump {
            vec![self.tcpdump(&self.tap, "nic.dump")?, self.tcpdump(&self.bridge()?, "bridge.dump")?]
        } else {
            Vec::new()
        };
        let start = Instant::now();
        let mut sender = self.inside(&self.program.to_string_lossy());
        if !sender.args(["send", &size.to_string(), &count.to_string()]).status()?.success() {
            return Err(io::Error::other("the sender failed"));
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        let share = |captured: u64| captured as f64 / count as f64;
        let mut round = Round { rate, ours: Shares::default(), tcpdump: Shares::default() };
        if ours {
            let captures = settled(&mut connection)?;
            for capture in &captures {
                let number = |key: &str| capture[key].as_u64().unwrap_or_default();
                let (frames, dropped) = (number("frames"), number("dropped"));
                if frames + dropped < count as u64 {
                    let text = format!("{frames} frames are in a file and {dropped} are lost, of {count}");
                    return Err(io::Error::other(text));
                }
                let is_nic = capture["interface"] != "";
                *(if is_nic { &mut round.ours.nic } else { &mut round.ours.bridge }) = share(frames);
                round.ours.dropped += dropped;
            }
            connection.command("capture pcap delete vm a")?;
            connection.command("capture pcap delete bridge mega_bridge")?;
        }
        let mut heard = Vec::new();
        for dump in dumps {
            let (captured, dropped) = dump.end()?;
            heard.push(share(captured));
            round.tcpdump.dropped += dropped;
        }
        if let [nic, bridge] = *heard {
            (round.tcpdump.nic, round.tcpdump.bridge) = (nic, bridge);
        }
        for name in ["nic.dump", "bridge.dump", "base/files/nic.pcap", "base/files/bridge.pcap"] {
            match std::fs::remove_file(self.daemon.folder().join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(round)
    }

    fn tcpdump(&self, interface: &str, file: &str) -> io::Result<Tcpdump> {
        Tcpdump::start(self.inside("tcpdump"), interface, &self.daemon.folder().join(file))
    }
}

/// The records of the captures, once nothing is waiting for them any more.
fn settled(connection: &mut Connection) -> io::Result<Vec<Value>> {
    let start = Instant::now();
    let mut before = Vec::new();
    loop {
        let now = connection.command("capture")?["Data"].as_array().cloned().unwrap_or_default();
        if now == before || start.elapsed() > PATIENCE {
            return Ok(now);
        }
        before = now;
        std::thread::sleep(Duration::from_millis(500));
    }
}

struct Tcpdump {
    child: Child,
    words: BufReader<ChildStderr>,
}

impl Tcpdump {
    /// Returns once it listens.
    fn start(mut command: Command, interface: &str, file: &Path) -> io::Result<Self> {
        command.args(TCPDUMP).args(["-Z", "root", "-i", interface, "-w"]).arg(file);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("tcpdump says nothing"))?;
        let mut words = BufReader::new(stderr);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            if words.read_line(&mut line)? == 0 {
                return Err(io::Error::other(format!("tcpdump on {interface} does not listen")));
            }
        }
        Ok(Self { child, words })
    }

    /// How many frames it has captured and lost.
    fn end(mut self) -> io::Result<(u64, u64)> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let mut text = String::new();
        self.words.read_to_string(&mut text)?;
        self.child.wait()?;
        let number = |what: &str| {
            let line = text.lines().find(|line| line.contains(what));
            line.and_then(|line| line.split(' ').next()?.parse().ok())
                .ok_or_else(|| io::Error::other(format!("tcpdump does not say how many {what}: {text}")))
        };
        Ok((number("captured")?, number("dropped by kernel")?))
    }
}
