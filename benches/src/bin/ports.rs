//! Two thousand host taps on one engine: made and deleted through its socket by many clients, listed, and gone after
//! `clear all`.
//!
//! Linux bridges have at most 1023 of them each, so they are on two bridges there, and on one bridge on Open vSwitch. The
//! baseline is one program that does everything at once in a network namespace of its own, as nobody can who gets one
//! command after the other: `ip -batch` for the interfaces, and for Open vSwitch besides one `ovs-vsctl` for all ports, on
//! the engine's own Open vSwitch once its taps are gone. `linux` or `openvswitch` as an argument measures that one alone.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::{Connection, Daemon};

const PORTS: usize = 2000;
const CLIENTS: usize = 100;
const VLANS: usize = 10;

fn main() -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("ports needs root, for network namespaces"));
    }
    let only = std::env::args().nth(1);
    let asked = |switch: &str| only.as_deref().is_none_or(|only| only == switch);
    println!("ports: {PORTS}, {CLIENTS} clients");
    let mut ratio: f64 = 0.0;
    if asked("linux") {
        ratio = measure("linux", Lab::bridged)?;
    }
    if !Path::new("/usr/sbin/ovs-vswitchd").exists() {
        println!("openvswitch: not measured, openvswitch-switch is not installed");
    } else if asked("openvswitch") {
        ratio = ratio.max(measure("openvswitch", Lab::ports)?);
    }
    println!("ratio: {ratio:.2}");
    Ok(())
}

/// Creating and deleting.
#[derive(Clone, Copy)]
struct Times {
    create: Duration,
    delete: Duration,
}

impl Times {
    fn total(self) -> f64 {
        (self.create + self.delete).as_secs_f64()
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Times { create, delete } = self;
        write!(f, "{:.2} s (create {:.2}, delete {:.2})", self.total(), create.as_secs_f64(), delete.as_secs_f64())
    }
}

/// Megaform's time divided by the baseline's.
fn measure(switch: &str, baseline: fn(&Lab) -> io::Result<Times>) -> io::Result<f64> {
    let daemon = Daemon::start_with(&["--switch", switch])?;
    let lab = Lab { socket: daemon.socket(), daemon };
    let mut connection = Connection::open(&lab.socket)?;
    // The first one starts what is needed, and stays for the baseline.
    connection.command("tap create 1 bridge keep name first")?;
    let bridge = |number: usize| if switch == "linux" { ["one", "two"][number % 2] } else { "one" };
    let create =
        lab.each(&|number| format!("tap create {} bridge {} name t{number}", 1 + number / 2 % VLANS, bridge(number)))?;
    let start = Instant::now();
    let rows = connection.command("tap")?["Tabular"].as_array().map_or(0, Vec::len);
    let list = start.elapsed();
    if rows != PORTS + 1 {
        return Err(io::Error::other(format!("`tap` lists {rows} taps, {} are there", PORTS + 1)));
    }
    let memory = lab.memory()?;
    let delete = lab.each(&|number| format!("tap delete t{number}"))?;
    let engine = Times { create, delete };
    println!("{switch}: {engine}; list {:.3}; {memory}", list.as_secs_f64());
    // As the engine does for its ports: otherwise each of them would say to all others that it is there.
    let quiet = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
    if !lab.inside(&["sh", "-c", quiet]).status()?.success() {
        return Err(io::Error::other("IPv6 cannot be turned off"));
    }
    let bare = baseline(&lab)?;
    println!("{switch}, all at once: {bare}");
    let start = Instant::now();
    connection.command("clear all")?;
    for name in ["netns", "openvswitch"] {
        if lab.daemon.folder().join("base").join(name).exists() {
            return Err(io::Error::other(format!("`clear all` has left {name}")));
        }
    }
    println!("{switch}: clear all, with nothing left: {:.2} s", start.elapsed().as_secs_f64());
    Ok(engine.total() / bare.total())
}

struct Lab {
    daemon: Daemon,
    socket: std::path::PathBuf,
}

impl Lab {
    /// A command for each port, by all clients together.
    fn each(&self, command: &(dyn Fn(usize) -> String + Sync)) -> io::Result<Duration> {
        let connections = (0..CLIENTS).map(|_| Connection::open(&self.socket)).collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        std::thread::scope(|scope| {
            let clients = connections.into_iter().enumerate().map(|(client, mut connection)| {
                scope.spawn(move || {
                    let mut numbers = (client..PORTS).step_by(CLIENTS);
                    numbers.try_for_each(|number| connection.command(&command(number)).map(drop))
                })
            });
            let clients: Vec<_> = clients.collect();
            clients.into_iter().try_for_each(|client| client.join().map_err(|_| io::Error::other("a client failed"))?)
        })?;
        Ok(start.elapsed())
    }

    /// The resident memory of the daemon and of what its switch runs.
    fn memory(&self) -> io::Result<String> {
        let mut found = Vec::new();
        let mut add = |name: &str, pid: &str| -> io::Result<()> {
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
            let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().map_err(io::Error::other)?;
            found.push(format!("{name} {} MB", kilobytes / 1024));
            Ok(())
        };
        add("daemon", &self.daemon.pid().to_string())?;
        for name in ["ovsdb-server", "ovs-vswitchd"] {
            let file = self.daemon.folder().join(format!("base/openvswitch/{name}.pid"));
            if let Ok(pid) = std::fs::read_to_string(file) {
                add(name, &pid)?;
            }
        }
        Ok(found.join(", "))
    }

    /// A program in the engine's network.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("MEGAFORM").unwrap_or_default());
        command.arg("--base").arg(self.daemon.folder().join("base")).args(["exec-net", "--"]).args(words);
        command.stdout(Stdio::null());
        command
    }

    /// Interfaces on two Linux bridges.
    fn bridged(&self) -> io::Result<Times> {
        let bridges: String =
            ["b0", "b1"].map(|bridge| format!("link add {bridge} type bridge\nlink set {bridge} up\n")).concat();
        let create = self.batch(&(bridges + &made(|number| format!(" master b{}", number % 2))))?;
        Ok(Times { create, delete: self.batch(&deleted())? })
    }

    fn batch(&self, lines: &str) -> io::Result<Duration> {
        let start = Instant::now();
        let mut child = self.inside(&["ip", "-batch", "-"]).stdin(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(lines.as_bytes())?;
        }
        if !child.wait()?.success() {
            return Err(io::Error::other("`ip -batch` failed"));
        }
        Ok(start.elapsed())
    }

    /// The same as ports of Open vSwitch, by one `ovs-vsctl`.
    fn ports(&self) -> io::Result<Times> {
        let database = format!("--db=unix:{}", self.daemon.folder().join("base/openvswitch/db.sock").display());
        let vsctl = |words: Vec<String>| -> io::Result<()> {
            let status = self.inside(&["ovs-vsctl", &database]).args(words).stdin(Stdio::null()).status()?;
            if status.success() { Ok(()) } else { Err(io::Error::other("ovs-vsctl failed")) }
        };
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        vsctl(words("add-br b -- set bridge b datapath_type=netdev".to_owned()))?;
        let start = Instant::now();
        self.batch(&made(|_| String::new()))?;
        let all = |line: &dyn Fn(usize) -> String| (0..PORTS).map(line).collect::<Vec<_>>().join(" -- ");
        vsctl(words(all(&|number| format!("add-port b p{number} tag={}", 1 + number % VLANS))))?;
        let create = start.elapsed();
        let start = Instant::now();
        vsctl(words(all(&|number| format!("del-port b p{number}"))))?;
        self.batch(&deleted())?;
        let delete = start.elapsed();
        vsctl(words("del-br b".to_owned()))?;
        Ok(Times { create, delete })
    }
}

/// The lines that make the interfaces.
fn made(place: fn(usize) -> String) -> String {
    let pair = |number| {
        format!("link add u{number} up type veth peer name p{number}\nlink set p{number} up{}\n", place(number))
    };
    (0..PORTS).map(pair).collect()
}

/// The lines that delete them.
fn deleted() -> String {
    (0..PORTS).map(|number| format!("link del u{number}\n")).collect()
}
