//! What the engine offers to guests, with real traffic: DHCP and DNS servers, addresses by DHCP, ways to the outside, and
//! the addresses that guests are seen to use.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use support::{Answer, Lab, guest, have, wait_for};

const NEEDS: &[&str] = &["root", "ip", "unshare", "nsenter", "busybox", "dnsmasq", "setpriv"];

/// Where machines serve, and what they say.
const PORT: u16 = 8080;
const HELLO: &str = "hello from outside";

/// What a DHCP client is told goes to the interface and, all of it, to a file.
const SCRIPT: &str = r#"#!/bin/sh
case $1 in
bound | renew)
    env >"$0.env"
    ip address replace "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route replace default via "$router"
    ;;
esac
"#;

/// A network namespace that a process keeps; it goes with it.
struct Space(Child);

impl Space {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        // It ends with the test, however that ends.
        command.args(["--net", "setpriv", "--pdeathsig", "KILL", "sh", "-c", "echo; exec sleep 600"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("unshare starts");
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().expect("piped")), &mut line)
            .expect("it writes a line once it is there");
        let space = Self(child);
        space.run(&["ip", "link", "set", "lo", "up"]).ok();
        space
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--net", "--"]).args(words).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Answer {
        self.command(words).output().expect("nsenter starts").into()
    }

    /// Does this machine answer?
    fn pings(&self, address: &str) -> bool {
        self.run(&["ping", "-c", "1", "-W", "1", address]).code == 0
    }

    /// Run a function in it.
    fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid())).expect("it is there");
        let enter = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            f()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).expect("the function does not panic")
    }

    /// Answer everybody on a TCP port with a text, until the test ends.
    fn serves(&self, address: &'static str) {
        let listener = self.inside(|| TcpListener::bind((address, PORT)).expect("the address is there"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = (&stream).write_all(HELLO.as_bytes());
            }
        });
    }

    /// What a machine says on that port; None if it does not answer.
    fn asks(&self, address: &str) -> Option<String> {
        let address = SocketAddr::new(address.parse().expect("an address"), PORT);
        self.inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine on a VLAN: a host tap whose end is moved to a network namespace of its own.
struct Machine {
    space: Space,
    script: PathBuf,
}

impl Machine {
    fn new(lab: &Lab, name: &str, vlan: &str, mac: &str) -> Self {
        lab.e(&format!("tap create {vlan} name {name}")).ok();
        let space = Space::new();
        lab.run(&["exec-net", "--", "ip", "link", "set", "dev", name, "netns", &space.pid(), "name", "eth0"]).ok();
        space.run(&["ip", "link", "set", "eth0", "address", mac, "up"]).ok();
        Self { space, script: lab.script(&format!("dhcp-{name}"), SCRIPT) }
    }

    /// Get an address by DHCP, and give it and all that came with it.
    fn dhcp(&self) -> (String, String) {
        let environment = self.script.with_extension("env");
        let _ = std::fs::remove_file(&environment);
        let script = self.script.display().to_string();
        self.space
            .run(&["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "6", "-T", "2", "-s", &script])
            .ok();
        let told = std::fs::read_to_string(&environment).expect("the script has run");
        let address = told.lines().find_map(|line| line.strip_prefix("ip=")).expect("an address");
        (address.to_owned(), told)
    }

    fn resolves(&self, name: &str, server: &str) -> String {
        self.space.run(&["busybox", "nslookup", name, server]).out
    }
}

/// Is nothing of the engine's left but its own files?
fn assert_nothing_is_left(lab: &Lab) {
    assert_eq!(lab.e("dnsmasq").ok().out, "");
    assert!(!lab.files().iter().any(|name| name.starts_with("dnsmasq_") || name.starts_with("nat_")));
    assert!(!lab.mounted(), "the network namespace is gone");
    assert_eq!(processes_of(&lab.base), Vec::<String>::new());
}

/// The command lines of processes that name a path in a folder, daemons left out.
fn processes_of(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("procfs").flatten();
    let lines = processes.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(&format!("{}/", folder.display())) && !line.contains("daemon")).collect()
}

#[test]
fn a_server_gives_addresses_and_names_and_outlives_the_daemon() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let start = "dnsmasq start 10.77.0.1 10.77.0.100 10.77.0.150";
    lab.e(start).fails("no tap of this namespace has the address 10.77.0.1");
    lab.e("tap create dmz ip 10.77.0.1/24").ok();
    lab.e("dnsmasq start 10.77.0.1 10.77.1.100 10.77.1.150")
        .fails("10.77.1.100 is not a host's address in 10.77.0.0/24");
    lab.e("dnsmasq start 10.77.0.1 10.77.0.150 10.77.0.100").fails("the low address comes first");
    lab.e("dnsmasq start 10.77.0.1 x 10.77.0.100").fails("invalid low address `x`");
    lab.file("wrong.conf", "no-such-option\n");
    let wrong = format!("dnsmasq start {}", lab.folder.path().join("wrong.conf").display());
    lab.e(&wrong).fails("dnsmasq did not start");
    lab.e("namespace other dnsmasq start 10.77.0.1 10.77.0.100 10.77.0.150").fails("no tap of this namespace");
    assert!(!lab.files().iter().any(|name| name.starts_with("dnsmasq_")), "{:?}", lab.files());

    lab.e(start).ok();
    lab.e(start).fails("Address already in use");
    let rows = lab.rows("dnsmasq");
    assert_eq!(rows[0][..4], ["0", "10.77.0.1", "10.77.0.100", "10.77.0.150"], "{rows:?}");
    assert_eq!(rows.len(), 1);
    let pid = rows[0][5].clone();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&rows[0][4]).expect("its folder"));
    assert_eq!(mode & 0o777, 0o700);

    lab.e("dnsmasq configure 0 ip 52:54:00:77:00:01 10.77.0.7").ok();
    lab.e("dnsmasq configure 0 ip 52:54:00:77:00:02 10.77.0.7").fails("already the address of 52:54:00:77:00:01");
    lab.e("dnsmasq configure 0 ip 52:54:00:77:00 10.77.0.8").fails("is not a MAC address");
    lab.e("dnsmasq configure 0 ip 52:54:00:77:00:02 10.78.0.7").fails("not a host's address in 10.77.0.0/24");
    lab.e("dnsmasq configure 0 dns 10.77.0.7 web.lab").ok();
    lab.e("dnsmasq configure 0 dns 10.77.0.7 -x-").fails("invalid host name");
    lab.e("dnsmasq configure 0 options option:domain-name,lab.example").ok();
    lab.e("dnsmasq configure 0 options option:nosuch,1").fails("dnsmasq does not take the option `option:nosuch,1`");
    lab.e("dnsmasq configure 1 dns").fails("invalid id");
    lab.e("namespace other dnsmasq configure 0 dns").fails("invalid id");
    assert_eq!(lab.rows("dnsmasq configure 0 ip"), [["0", "52:54:00:77:00:01", "10.77.0.7"]]);
    assert_eq!(lab.rows("dnsmasq configure 0 dns"), [["0", "10.77.0.7", "web.lab"]]);

    let fixed = Machine::new(&lab, "fixed", "dmz", "52:54:00:77:00:01");
    let (address, told) = fixed.dhcp();
    assert_eq!(address, "10.77.0.7");
    assert!(told.contains("domain=lab.example") && told.contains("router=10.77.0.1"), "{told}");
    assert!(fixed.resolves("web.lab", "10.77.0.1").contains("Address: 10.77.0.7"));
    // Nothing of the host is served.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("procfs");
    let resolved = fixed.resolves(host.trim(), "10.77.0.1");
    assert!(!resolved.contains("127.0.") && !resolved.contains("Address: 1"), "{resolved}");

    let other = Machine::new(&lab, "other", "dmz", "52:54:00:77:00:09");
    let (dynamic, _) = other.dhcp();
    let last: u8 = dynamic.strip_prefix("10.77.0.").expect("of the network").parse().expect("a number");
    assert!((100..=150).contains(&last), "{dynamic}");
    assert!(other.space.pings("10.77.0.7"), "they are on one VLAN");

    // An address for a tap of the engine's own.
    lab.e("tap create dmz dhcp mgmt").ok();
    let shown = lab.run(&["exec-net", "--", "ip", "-o", "-4", "address", "show", "dev", "mgmt"]).ok().out;
    assert!(
        shown.contains("inet 10.77.0.1") && shown.contains("/24") && !shown.contains("valid_lft forever"),
        "{shown}"
    );
    let routes = lab.run(&["exec-net", "--", "ip", "route"]).ok().out;
    assert!(!routes.contains("default"), "{routes}");

    // The daemon goes and comes; the server, its lists and its leases stay.
    lab.kill_daemon();
    assert!(other.resolves("web.lab", "10.77.0.1").contains("Address: 10.77.0.7"));
    lab.start_daemon();
    assert_eq!(lab.rows("dnsmasq")[0][5], pid);
    lab.e("dnsmasq configure 0 dns 10.77.0.8 late.lab").ok();
    wait_for("the new name", || fixed.resolves("late.lab", "10.77.0.1").contains("Address: 10.77.0.8"));
    assert!(lab.e("dnsmasq configure 0 options").ok().out.contains("option:domain-name,lab.example"));
    assert_eq!(other.dhcp().0, dynamic);
    let shown = lab.run(&["exec-net", "--", "ip", "-4", "address", "show", "dev", "mgmt"]).ok().out;
    assert_eq!(shown.matches("inet ").count(), 1, "{shown}");

    // One that died is shown so, and can only be removed.
    let number: i32 = pid.parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGKILL).expect("it is there");
    wait_for("its end to be seen", || lab.rows("dnsmasq")[0][5].starts_with("ended"));
    lab.e("dnsmasq configure 0 dns 10.77.0.9 dead.lab").fails("dnsmasq 0 has ended");
    lab.e("dnsmasq kill 0").ok();
    lab.e("dnsmasq kill 0").fails("invalid id");

    // Right after the start.
    lab.e(start).ok();
    lab.e("dnsmasq kill all").ok();
    assert!(lab.rows("dnsmasq").is_empty());

    // One with a configuration of its own, and one that dnsmasq does not take.
    let config = lab.file("extra.conf", "dhcp-option=option:ntp-server,10.77.0.33\n");
    let broken = lab.file("broken.conf", "no-such-thing=1\n");
    lab.e(&format!("{start} extra.conf")).fails("its full path is needed");
    lab.e(&format!("{start} {}", broken.display())).fails("bad option at line 1");
    lab.e(&format!("{start} {}", config.display())).ok();
    let (_, told) = fixed.dhcp();
    assert!(told.contains("ntpsrv=10.77.0.33"), "{told}");
    drop((fixed, other));
    lab.e("clear namespace minimega").ok();
    wait_for("the machines' taps to go", || {
        lab.e("clear namespace minimega").ok();
        !lab.mounted()
    });
    assert_nothing_is_left(&lab);
}

#[test]
fn without_a_server_no_tap_is_made() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("tap create dmz dhcp").fails("no DHCP server has given mega_tap0 an address within 15 s");
    assert!(lab.rows("tap").is_empty());
    assert!(!lab.mounted());
}

/// All that the kernel says of the network that a process is in, but what changes by itself.
fn network_of(space: &Space) -> BTreeSet<String> {
    let ask = |words: &[&str]| space.run(words).ok().out;
    let mut text = ask(&["ip", "-d", "link"]);
    text += &ask(&["ip", "-o", "address"]);
    text += &ask(&["ip", "route", "show", "table", "all"]);
    text += &ask(&["ip", "-6", "route", "show", "table", "all"]);
    text += &ask(&["ip", "rule"]);
    text += &ask(&["nft", "list", "ruleset"]);
    text += &ask(&["sh", "-c", "find /proc/sys/net -type f | sort | xargs grep -H . 2>/dev/null || true"]);
    let changes = |line: &&str| {
        !["nf_conntrack_count", "stat_refresh", "netdev_rss_key", "rt_cache", "/tcp_fastopen_key", "/tcp_mem"]
            .iter()
            .any(|name| line.contains(name))
    };
    text.lines().filter(changes).map(str::to_owned).collect()
}

/// What is there before and not after, or the other way round.
fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    before.symmetric_difference(after).cloned().collect()
}

#[test]
fn guests_reach_the_outside_through_their_gateway_and_the_host_does_not_change() {
    if !have(NEEDS) || !have(&["slirp4netns", "nft", "ping", "qemu-system-x86_64"]) {
        return;
    }
    // A namespace that plays the host, with a network of its own.
    let host = Space::new();
    host.run(&["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1"]).ok();
    host.run(&["ip", "link", "set", "up1", "up"]).ok();
    host.run(&["ip", "link", "set", "up0", "up"]).ok();
    host.run(&["ip", "address", "add", "203.0.113.1/24", "dev", "up0"]).ok();
    host.serves("203.0.113.1");
    host.serves("127.0.0.1");
    let mut lab = Lab::new();
    let daemon = |lab: &mut Lab| {
        let program = lab.program();
        let mut command = host.command(&["setpriv", "--pdeathsig", "KILL"]);
        command.arg(program.get_program()).arg("daemon").env_clear();
        command.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(lab.folder.path());
        lab.start_daemon_by(command);
    };
    assert_eq!(host.asks("127.0.0.1").as_deref(), Some(HELLO));
    wait_for("the kernel's own addresses", || !host.run(&["ip", "address"]).ok().out.contains("tentative"));
    let before = network_of(&host);
    daemon(&mut lab);

    let [a, b, c] = [("a", "dmz", 1), ("b", "core", 2), ("c", "lan", 3)].map(|(name, vlan, number)| {
        let machine = Machine::new(&lab, name, vlan, &format!("52:54:00:88:00:0{number}"));
        machine.space.run(&["ip", "address", "add", &format!("10.88.{number}.2/24"), "dev", "eth0"]).ok();
        machine.space.run(&["ip", "route", "add", "default", "via", &format!("10.88.{number}.1")]).ok();
        machine
    });
    let outside = |machine: &Machine| machine.space.asks("203.0.113.1");
    assert_eq!(outside(&a), None, "no way out unless one is made");
    for wrong in ["10.88.1.1", "10.88.1.0/24", "fd00::1/64", "10.88.1.1/31"] {
        lab.e(&format!("nat add dmz {wrong}")).fails("invalid gateway");
    }
    lab.e("nat delete dmz").fails("no gateway on VLAN dmz");
    lab.e("nat add dmz 10.88.1.1/24").ok();
    lab.e("nat add core 10.88.2.1/24").ok();
    lab.e("nat add dmz 10.88.1.9/24").fails("VLAN dmz has the gateway 10.88.1.1/24 already");
    let rows = lab.rows(".sort false .columns bridge,vlan,gateway nat");
    assert_eq!(rows, [["mega_bridge", "dmz (101)", "10.88.1.1/24"], ["mega_bridge", "core (102)", "10.88.2.1/24"]]);
    assert!(a.space.pings("10.88.1.1"));
    assert_eq!(outside(&a).as_deref(), Some(HELLO));
    assert_eq!(outside(&b).as_deref(), Some(HELLO));
    assert_eq!(outside(&c), None, "its VLAN has none");
    // Nothing but that: neither each other, nor the engine, nor what only the host itself may reach.
    assert!(!a.space.pings("10.88.2.2") && !a.space.pings("10.88.2.1"));
    for hidden in ["192.0.2.2", "192.0.2.3"] {
        assert_eq!(a.space.asks(hidden), None, "{hidden}");
    }
    let engine = |path: &str| lab.run(&["exec-net", "--", "cat", path]).ok().out;
    assert_eq!(engine("/proc/sys/net/ipv4/ip_forward").trim(), "0");
    assert_eq!(lab.run(&["exec-net", "--", "ip", "route"]).ok().out, "");

    // And whatever else an engine does.
    lab.e("tap create lan ip 10.88.3.1/24").ok();
    lab.e("dnsmasq start 10.88.3.1 10.88.3.100 10.88.3.110").ok();
    lab.e("tap create lan dhcp").ok();
    lab.e("vm config memory 16").ok();
    lab.e("vm config networks dmz lan").ok();
    lab.e("vm launch kvm quiet").ok();

    // The way out outlives the daemon.
    lab.kill_daemon();
    assert_eq!(outside(&a).as_deref(), Some(HELLO));
    daemon(&mut lab);
    assert_eq!(lab.rows(".columns gateway nat"), [["10.88.1.1/24"], ["10.88.2.1/24"]]);
    assert_eq!(differences(&before, &network_of(&host)), Vec::<String>::new(), "while it runs");

    lab.e("nat delete dmz").ok();
    assert_eq!(outside(&a), None);
    assert_eq!(outside(&b).as_deref(), Some(HELLO));
    lab.e("nat add dmz 10.88.1.1/24").ok();
    assert_eq!(outside(&a).as_deref(), Some(HELLO));

    // A bridge that somebody deletes takes its gateways with it, and the list says so.
    let bridges = lab.run(&["exec-net", "--", "ip", "-o", "link", "show", "type", "bridge"]).ok().out;
    for bridge in bridges.lines().filter_map(|line| line.split([':', '@']).nth(1)) {
        lab.run(&["exec-net", "--", "ip", "link", "del", bridge.trim()]).ok();
    }
    let lost = "disconnected: its bridge was deleted";
    assert_eq!(lab.rows(".columns gateway,pid nat"), [["10.88.1.1/24", lost], ["10.88.2.1/24", lost]]);
    lab.e("nat delete dmz").ok();
    lab.e("nat add dmz 10.88.1.1/24").ok();
    let rows = lab.rows(".columns gateway,pid nat");
    assert!(rows[0][1].parse::<u32>().is_ok() && rows[1][1] == lost, "{rows:?}");
    drop((a, b, c));
    lab.e("clear all").ok();
    wait_for("the machines' taps to go", || {
        lab.e("clear all").ok();
        !lab.mounted()
    });
    assert_nothing_is_left(&lab);
    assert_eq!(differences(&before, &network_of(&host)), Vec::<String>::new(), "afterwards");
}

#[test]
fn vm_info_shows_the_addresses_that_a_guest_uses() {
    if !have(&["root", "guest", "qemu-system-x86_64", "ping"]) {
        return;
    }
    let (kernel, initrd) = guest();
    let mut lab = Lab::with_daemon();
    lab.e("tap create dmz ip 10.99.0.254/24 mgmt").ok();
    for line in [
        "vm config memory 128",
        &format!("vm config kernel {}", kernel.display()),
        &format!("vm config initrd {}", initrd.display()),
        "vm config append console=ttyS0 quiet ip.0=10.99.0.1/24",
        "vm config networks dmz core",
        "vm launch kvm a",
    ] {
        lab.e(line).ok();
    }
    let shown = |lab: &Lab, column: &str| {
        lab.e(&format!(".annotate false .headers false .columns {column} vm info")).ok().out.trim().to_owned()
    };
    assert_eq!(shown(&lab, "ip"), "[, ]");
    lab.e("vm start a").ok();
    wait_for("the guest to answer", || {
        lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", "10.99.0.1"]).code == 0
    });
    wait_for("its address", || shown(&lab, "ip") == "[10.99.0.1, ]");
    let record = lab.e(".annotate false .json true vm info").ok().out;
    assert!(record.contains(r#""IP4":"10.99.0.1""#), "{record}");
    // A restarted daemon still knows it, once its record is written.
    wait_for("the record", || {
        std::fs::read_to_string(lab.base.join("0/vm.json")).is_ok_and(|text| text.contains(r#""ip4":"10.99.0.1""#))
    });
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(shown(&lab, "ip"), "[10.99.0.1, ]");
    // Elsewhere it may have another; it is learned anew.
    lab.e("vm net disconnect a 0").ok();
    assert_eq!(shown(&lab, "ip"), "[, ]");
    lab.e("vm net connect a 0 dmz").ok();
    lab.run(&["exec-net", "--", "ip", "neighbour", "flush", "all"]).ok();
    wait_for("the guest to answer again", || {
        lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", "10.99.0.1"]).code == 0
    });
    wait_for("its address", || shown(&lab, "ip") == "[10.99.0.1, ]");
    lab.e("vm kill a").ok();
    assert_eq!(shown(&lab, "ip"), "[, ]");
}
