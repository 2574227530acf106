//! Create, list and delete 500 host taps through the daemon's socket, on either switch.
//!
//! The clients are [`CLIENTS`] connections that each wait for one answer before the next command, as tools do. Beside
//! them, for Linux bridges, one thread makes the same interfaces with the same netlink calls, one after the other, in a
//! namespace of its own; for Open vSwitch, `ovs-vsctl` is run once for each port, on an Open vSwitch of its own whose
//! interfaces are there already. It takes longer the more ports there are, so that all of them take minutes: every
//! [`EACH`]th is measured and counted for the others, which one call adds or deletes together.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::{Connection, Daemon, PATIENCE, median};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, unshare};

const TAPS: usize = 500;
const CLIENTS: usize = 25;
const ROUNDS: usize = 3;
/// One port of so many is measured with ovs-vsctl.
const EACH: usize = 10;

fn main() -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("taps needs root, for network namespaces"));
    }
    println!("taps: {TAPS}, {CLIENTS} clients; medians of {ROUNDS} rounds");
    if Path::new("/usr/sbin/ovs-vswitchd").exists() {
        let engine = engine("openvswitch")?;
        let steps = aside(vsctl)?;
        print("openvswitch", &engine);
        print(&format!("ovs-vsctl, measured for one port of {EACH}"), &steps);
        let times = total(&steps).as_secs_f64() / total(&engine).as_secs_f64();
        let verdict = if times < 10.0 { "BELOW" } else { "within" };
        println!("openvswitch: {times:.1} times as fast as ovs-vsctl ({verdict} the limit of 10)");
    } else {
        println!("openvswitch: not measured, openvswitch-switch is not installed");
    }
    let mut engines = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..ROUNDS {
        engines.push(engine("linux")?);
        calls.push(aside(netlink)?);
    }
    let (engine, bare) = (medians(&engines), medians(&calls));
    print("linux", &engine);
    print("netlink calls", &bare);
    let ratio = total(&engine).as_secs_f64() / total(&bare).as_secs_f64();
    let verdict = if ratio > 2.0 { "OVER" } else { "within" };
    println!("linux: {verdict} the limit of 2");
    println!("ratio: {ratio:.2}");
    Ok(())
}

/// The time of creating, listing and deleting.
type Steps = [Duration; 3];

fn total(steps: &Steps) -> Duration {
    steps.iter().sum()
}

fn medians(rounds: &[Steps]) -> Steps {
    [0, 1, 2].map(|step| median(rounds.iter().map(|round| round[step]).collect()))
}

fn print(what: &str, steps: &Steps) {
    let [create, list, delete] = steps.map(|time| time.as_secs_f64());
    println!("{what}: {:.2} s (create {create:.2}, list {list:.3}, delete {delete:.2})", total(steps).as_secs_f64());
}

/// Run something on a thread in a network namespace of its own.
fn aside(f: fn() -> io::Result<Steps>) -> io::Result<Steps> {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        f()
    });
    thread.join().map_err(|_| io::Error::other("the baseline failed"))?
}

/// Megaform's times.
fn engine(switch: &str) -> io::Result<Steps> {
    let daemon = Daemon::start_with(&["--switch", switch])?;
    let socket = daemon.socket();
    let mut connection = Connection::open(&socket)?;
    // The first one starts what is needed.
    connection.command("tap create 1 name first")?;
    let create = each(&socket, |number| format!("tap create {} name t{number}", 1 + number % 10))?;
    let start = Instant::now();
    let answer = connection.command("tap")?;
    let list = start.elapsed();
    let rows = answer["Tabular"].as_array().map_or(0, Vec::len);
    if rows != TAPS + 1 {
        return Err(io::Error::other(format!("`tap` lists {rows} taps, {} are there", TAPS + 1)));
    }
    let delete = each(&socket, |number| format!("tap delete t{number}"))?;
    connection.command("tap delete first")?;
    Ok([create, list, delete])
}

/// A command for each tap, by all clients together.
fn each(socket: &Path, command: fn(usize) -> String) -> io::Result<Duration> {
    let connections = (0..CLIENTS).map(|_| Connection::open(socket)).collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    let clients = connections.into_iter().enumerate().map(|(client, mut connection)| {
        std::thread::spawn(move || {
            (client..TAPS).step_by(CLIENTS).try_for_each(|number| connection.command(&command(number)).map(drop))
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().map_err(|_| io::Error::other("a client failed"))??;
    }
    Ok(start.elapsed())
}

/// A netlink socket that waits for each acknowledgement.
struct Netlink {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, buffer: vec![0; 64 << 10] })
    }

    /// Send a request and take its answers; the last new link among them.
    fn call(&mut self, message: Message, flags: u16) -> io::Result<Vec<LinkMessage>> {
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut links = Vec::new();
        loop {
            let length = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Message>::deserialize(rest).map_err(io::Error::other)?;
                rest = &rest[(answer.header.length as usize).next_multiple_of(4).min(rest.len())..];
                match answer.payload {
                    NetlinkPayload::InnerMessage(Message::NewLink(link)) => links.push(link),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(links),
                    _ => {}
                }
            }
        }
    }

    fn set(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = vec![attribute];
        self.call(Message::SetLink(link), 0).map(drop)
    }

    fn up(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        (link.header.flags, link.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
        self.call(Message::SetLink(link), 0).map(drop)
    }

    fn create(&mut self, name: &str, info: Vec<LinkInfo>) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::LinkInfo(info)];
        self.call(Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)?;
        self.index(name)
    }

    fn index(&mut self, name: &str) -> io::Result<u32> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let found = self.call(Message::GetLink(link), 0)?;
        found.first().map(|link| link.header.index).ok_or_else(|| io::Error::other(format!("no {name}")))
    }

    /// A pair of interfaces; both indexes.
    fn pair(&mut self, name: &str, peer: &str) -> io::Result<[u32; 2]> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        let data = InfoData::Veth(InfoVeth::Peer(far));
        let near = self.create(name, vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)])?;
        Ok([near, self.index(peer)?])
    }
}

/// The same interfaces by netlink alone.
fn netlink() -> io::Result<Steps> {
    let mut netlink = Netlink::open()?;
    let bridges = (0..10).map(|vlan| {
        let bridge = netlink.create(&format!("b.{vlan}"), vec![LinkInfo::Kind(InfoKind::Bridge)])?;
        netlink.up(bridge)?;
        Ok(bridge)
    });
    let bridges = bridges.collect::<io::Result<Vec<u32>>>()?;
    let start = Instant::now();
    let mut taps = Vec::new();
    for number in 0..TAPS {
        let [tap, port] = netlink.pair(&format!("t{number}"), &format!("p{number}"))?;
        netlink.set(tap, LinkAttribute::IfAlias(format!("bench tap t{number}")))?;
        netlink.set(port, LinkAttribute::IfAlias("bench port".to_owned()))?;
        let quiet = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        netlink.set(port, LinkAttribute::AfSpecUnspec(vec![quiet]))?;
        netlink.set(port, LinkAttribute::Controller(bridges[number % 10]))?;
        netlink.up(port)?;
        netlink.up(tap)?;
        taps.push(tap);
    }
    let create = start.elapsed();
    let start = Instant::now();
    let listed = netlink.call(Message::GetLink(LinkMessage::default()), NLM_F_DUMP)?.len();
    let list = start.elapsed();
    if listed < 2 * TAPS {
        return Err(io::Error::other(format!("{listed} interfaces are listed, {} are there", 2 * TAPS)));
    }
    let start = Instant::now();
    for tap in taps {
        let mut link = LinkMessage::default();
        link.header.index = tap;
        netlink.call(Message::DelLink(link), 0)?;
    }
    Ok([create, list, start.elapsed()])
}

/// An Open vSwitch of the bench's own. Its programs end with it.
struct OpenVswitch {
    folder: tempfile::TempDir,
    programs: Vec<Child>,
}

impl OpenVswitch {
    fn start() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut this = Self { folder, programs: Vec::new() };
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        run(this.program("ovsdb-tool").args(["create", "conf.db", schema]))?;
        for (program, args) in [
            ("ovsdb-server", ["conf.db", "--remote=punix:db.sock", "--unixctl=server.ctl"]),
            ("ovs-vswitchd", ["unix:db.sock", "--unixctl=switch.ctl", "-vconsole:off"]),
        ] {
            let child = this.program(program).args(args).args(["-vsyslog:off", "-vfile:off"]).spawn()?;
            this.programs.push(child);
            let start = Instant::now();
            while !this.path("db.sock").exists() && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        this.vsctl(&["--no-wait", "init"])?;
        this.vsctl(&["add-br", "b", "--", "set", "bridge", "b", "datapath_type=netdev"])?;
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin")).env("OVS_RUNDIR", self.folder.path());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn vsctl<S: AsRef<OsStr>>(&self, args: &[S]) -> io::Result<()> {
        run(self.program("ovs-vsctl").arg("--db=unix:db.sock").args(args))
    }
}

impl Drop for OpenVswitch {
    fn drop(&mut self) {
        for program in self.programs.iter_mut().rev() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?} ended with {status}"))) }
}

/// The same ports by ovs-vsctl.
fn vsctl() -> io::Result<Steps> {
    let mut netlink = Netlink::open()?;
    let switch = OpenVswitch::start()?;
    for number in 0..TAPS {
        for index in netlink.pair(&format!("t{number}"), &format!("p{number}"))? {
            netlink.up(index)?;
        }
    }
    let each = |words: fn(usize) -> Vec<String>| -> io::Result<Duration> {
        let mut time = Duration::ZERO;
        for first in (0..TAPS).step_by(EACH) {
            let others = (first + 1..first + EACH).flat_map(|number| [vec!["--".to_owned()], words(number)].concat());
            switch.vsctl(&others.skip(1).collect::<Vec<_>>())?;
            let start = Instant::now();
            switch.vsctl(&words(first))?;
            time += start.elapsed();
        }
        Ok(time * u32::try_from(EACH).unwrap_or(1))
    };
    let create = each(|number| words(&format!("add-port b p{number} tag={}", 1 + number % 10)))?;
    let start = Instant::now();
    switch.vsctl(&["show"])?;
    let list = start.elapsed();
    let delete = each(|number| words(&format!("del-port b p{number}")))?;
    Ok([create, list, delete])
}
