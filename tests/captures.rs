//! Captures over the socket, with real frames, read back by tshark.
#![allow(missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{Lab, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64", "tshark", "ping"];

/// Two paused VMs on two VLANs, and the engine on the first of them.
fn lab() -> Lab {
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    for (vm, vlan) in [("a", "LAN"), ("b", "DMZ")] {
        lab.e(&format!("vm config networks {vlan}")).ok();
        lab.e(&format!("vm launch kvm {vm}")).ok();
    }
    lab.e("tap create LAN ip 10.0.0.1/24 mgmt").ok();
    lab
}

/// Send pings that nobody answers to everybody on the first VLAN: `count` of them, `interval` seconds apart.
fn shout(lab: &Lab, count: u32, interval: &str) -> Child {
    lab.program()
        .args(["exec-net", "ping", "-b", "-W1", "-i", interval, "-c", &count.to_string(), "10.0.0.255"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.base.join("files").join(name)
}

/// VLAN and number of the pings in a file. Whatever tshark complains about is an error.
fn pings(file: &Path) -> Vec<(String, u32)> {
    let output = Command::new("tshark")
        .args([
            "-n",
            "-Y",
            "icmp.type == 8",
            "-T",
            "fields",
            "-E",
            "separator=,",
            "-e",
            "vlan.id",
            "-e",
            "icmp.seq",
            "-r",
        ])
        .arg(file)
        .output()
        .expect("tshark starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("cut short"), "{errors}");
    let read = |line: &str| {
        let (vlan, number) = line.split_once(',').expect("two fields");
        (vlan.to_owned(), number.parse().expect("a number"))
    };
    String::from_utf8_lossy(&output.stdout).lines().map(read).collect()
}

fn captures(lab: &Lab) -> Vec<String> {
    lab.rows(".sort false capture").iter().map(|row| row.join(",").replace(&*lab.base.to_string_lossy(), "")).collect()
}

#[test]
fn what_crosses_a_nic_and_a_bridge_is_in_their_files() {
    if !have(NEEDS) {
        return;
    }
    let lab = lab();
    lab.e("capture pcap vm a 0 a.pcap").ok();
    lab.e("capture pcap vm b 0 b.pcap").ok();
    lab.e("capture pcap bridge mega_bridge all.pcap").ok();
    lab.e("capture pcap bridge other other.pcap").ok();
    lab.e("capture pcap snaplen 60").ok();
    lab.e("capture pcap filter \"arp\"").ok();
    lab.e("capture pcap bridge mega_bridge arp.pcap").ok();
    assert_eq!(lab.e(".annotate false capture pcap snaplen").ok().out.trim(), "60");
    assert_eq!(lab.e(".annotate false capture pcap filter").ok().out.trim(), "arp");
    let numbers = |name: &str| pings(&file(&lab, name)).iter().map(|(_, number)| *number).collect::<Vec<_>>();
    shout(&lab, 3, "0.01").wait().expect("our child");
    // The files are complete at any moment, while the captures run.
    wait_for("the pings", || numbers("a.pcap") == [1, 2, 3] && numbers("all.pcap") == [1, 2, 3]);
    let on = |name: &str| pings(&file(&lab, name)).into_iter().map(|(vlan, _)| vlan).collect::<Vec<_>>();
    assert_eq!(on("a.pcap"), ["", "", ""]);
    let lan = lab.rows(".columns vlan .filter alias=LAN vlans")[0][0].clone();
    assert_eq!(on("all.pcap"), [&*lan, &*lan, &*lan], "the VLAN is in the frame");
    for name in ["b.pcap", "other.pcap", "arp.pcap"] {
        assert!(numbers(name).is_empty(), "{name}");
    }
    // The NIC moves, and what is started anew is heard again.
    lab.e("vm net connect b 0 LAN").ok();
    lab.e("vm kill a").ok();
    lab.e("vm start a").ok();
    shout(&lab, 2, "0.01").wait().expect("our child");
    wait_for("the pings", || numbers("a.pcap") == [1, 2, 3, 1, 2] && numbers("b.pcap") == [1, 2]);

    assert_eq!(
        captures(&lab),
        [
            "mega_bridge,pcap,a:0,,,/files/a.pcap",
            "mega_bridge,pcap,b:0,,,/files/b.pcap",
            "mega_bridge,pcap,,,,/files/all.pcap",
            "other,pcap,,,,/files/other.pcap",
            "mega_bridge,pcap,,,,/files/arp.pcap",
        ]
    );
    lab.e("capture pcap delete vm a").ok();
    lab.e("capture pcap delete vm a").fails("no pcap capture of vm a");
    lab.e("capture pcap delete bridge mega_bridge").ok();
    lab.e("capture pcap delete bridge nosuch").fails("no pcap capture of bridge nosuch");
    assert_eq!(captures(&lab), ["mega_bridge,pcap,b:0,,,/files/b.pcap", "other,pcap,,,,/files/other.pcap"]);
    // A capture of a VM goes with it; killed is not gone.
    lab.e("vm kill b").ok();
    assert_eq!(captures(&lab).len(), 2);
    lab.e("vm flush").ok();
    assert_eq!(captures(&lab), ["other,pcap,,,,/files/other.pcap"]);
    lab.e("capture pcap delete bridge all").ok();
    lab.e("capture pcap delete vm all").ok();
    assert!(captures(&lab).is_empty());
    assert_eq!(numbers("all.pcap").len(), 5);
}

#[test]
fn what_cannot_be_captured_is_told() {
    if !have(NEEDS) {
        return;
    }
    let lab = lab();
    lab.e("capture pcap vm c 0 x.pcap").fails("vm not found: c");
    lab.e("capture pcap vm a 1 x.pcap").fails("no network 1, VM only has 1 networks");
    lab.e("capture pcap vm a 0 /nosuch/x.pcap").fails("cannot create /nosuch/x.pcap: No such file or directory");
    lab.e("capture pcap vm a 0 ../x.pcap").fails("leads out of the files folder");
    lab.e("capture pcap vm a 0 /dev/null").fails("not a regular file");
    lab.e("capture pcap vm a 0 x.pcap").ok();
    lab.e("capture pcap bridge mega_bridge x.pcap").fails("another capture is writing it");
    lab.e("capture pcap filter \"tcp prot 80\"").fails("invalid filter `tcp prot 80`: ");
    assert_eq!(lab.e(".annotate false capture pcap filter").ok().out.trim(), "", "the one before is still set");
    for size in ["0", "many", "-1", "262145"] {
        lab.e(&format!("capture pcap snaplen {size}")).fails(&format!("invalid snaplen `{size}`"));
    }
    assert_eq!(captures(&lab).len(), 1);
    std::fs::remove_file(file(&lab, "x.pcap")).expect("it is there");
    assert!(captures(&lab)[0].contains(",stopped: the file was deleted,"), "{:?}", captures(&lab));
    assert!(!file(&lab, "x.pcap").exists());
}

#[test]
fn captures_outlive_the_daemon() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = lab();
    lab.e("capture pcap vm a 0 a.pcap").ok();
    lab.e("capture pcap bridge mega_bridge all.pcap").ok();
    // It is killed in the middle of its work.
    let mut child = shout(&lab, 2000, "0.002");
    let a = file(&lab, "a.pcap");
    let size = || std::fs::metadata(&a).expect("the capture").len();
    wait_for("some frames", || size() > 20_000);
    lab.kill_daemon();
    let before = pings(&a).len();
    assert!(before > 100, "{before}");
    // As if the last record had not been whole.
    let whole = size();
    std::fs::OpenOptions::new().write(true).open(&a).and_then(|file| file.set_len(whole - 7)).expect("ours");
    lab.start_daemon();
    wait_for("more frames", || size() > whole + 10_000);
    assert_eq!(captures(&lab), ["mega_bridge,pcap,a:0,,,/files/a.pcap", "mega_bridge,pcap,,,,/files/all.pcap"]);
    child.kill().expect("our child");
    child.wait().expect("our child");
    lab.e("capture pcap delete vm all").ok();
    let numbers: Vec<u32> = pings(&a).into_iter().map(|(_, number)| number).collect();
    // Each once. Frames whose sender moves to another CPU in between may overtake one another, on the way and so in the file.
    let once: std::collections::BTreeSet<u32> = numbers.iter().copied().collect();
    assert!(once.len() == numbers.len() && numbers.len() > before, "{numbers:?}");

    // What is left of it while there is no daemon is told.
    lab.kill_daemon();
    std::fs::write(file(&lab, "all.pcap"), "something else").expect("ours");
    lab.start_daemon();
    assert!(captures(&lab)[0].contains("it is no file of such a capture"), "{:?}", captures(&lab));
    assert_eq!(std::fs::read(file(&lab, "all.pcap")).expect("ours"), b"something else");
    lab.e("clear capture pcap").ok();
    assert!(captures(&lab).is_empty());
}

#[test]
fn a_full_disk_stops_a_capture_and_nothing_else() {
    if !have(NEEDS) {
        return;
    }
    struct Disk(PathBuf);
    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    let lab = lab();
    let disk = Disk(lab.folder.path().join("disk"));
    std::fs::create_dir(&disk.0).expect("ours");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &disk.0, Some("tmpfs"), flags, Some("size=16k")).expect("a small disk");
    let small = disk.0.join("a.pcap");
    lab.e(&format!("capture pcap vm a 0 {}", small.display())).ok();
    lab.e("capture pcap bridge mega_bridge all.pcap").ok();
    let mut child = shout(&lab, 400, "0.002");
    wait_for("the disk to be full", || captures(&lab)[0].contains(",stopped: No space left on device"));
    child.wait().expect("our child");
    wait_for("the other capture", || pings(&file(&lab, "all.pcap")).len() == 400);
    assert!(pings(&small).len() > 80);
    lab.e("capture pcap delete vm a").ok();

    // Whoever clears everything leaves no capture, no thread for it and no namespace.
    lab.e("capture pcap vm a 0 again.pcap").ok();
    lab.e("clear namespace minimega").ok();
    assert!(captures(&lab).is_empty() && !lab.mounted());
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", lab.started_pid())).expect("procfs").flatten();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.map(name).filter(|name| name.starts_with("capture")).count()
    };
    assert_eq!(threads(), 0);
    lab.e("capture pcap bridge mega_bridge all.pcap").ok();
    assert!(threads() > 0);
    lab.e("clear all").ok();
    assert!(captures(&lab).is_empty());
    assert_eq!(threads(), 0);
}

#[test]
fn an_open_vswitch_is_heard_and_its_flow_records_are_written() {
    if !have(&["root", "qemu-system-x86_64", "ping", "ovs-vswitchd", "zcat"]) {
        return;
    }
    let mut lab = Lab::new();
    let start = |lab: &mut Lab| {
        let mut command = lab.program();
        command.args(["daemon", "--switch", "openvswitch"]);
        lab.start_daemon_by(command);
    };
    start(&mut lab);
    let listener = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    listener.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a timeout");
    let setting = |name: &str| lab.e(&format!(".annotate false capture netflow {name}")).ok().out.trim().to_owned();
    assert_eq!(["mode", "gzip", "timeout"].map(setting), ["raw", "false", "10"]);
    lab.e("capture netflow timeout 0").fails("invalid timeout `0`");
    lab.e("capture netflow timeout 1").ok();
    // Before the bridge is there.
    lab.e("capture netflow bridge mega_bridge flows.raw").ok();
    lab.e("capture netflow mode ascii").ok();
    lab.e("capture netflow bridge mega_bridge flows.txt").ok();
    lab.e("capture netflow bridge mega_bridge flows.txt").fails("another capture is writing it");
    lab.e(&format!("capture netflow bridge mega_bridge udp {}", listener.local_addr().expect("bound"))).ok();
    lab.e("capture netflow bridge mega_bridge tcp 127.0.0.1:1").fails("cannot connect to 127.0.0.1:1 (tcp)");
    lab.e("capture netflow gzip true").ok();
    lab.e("capture netflow bridge mega_bridge flows.gz").ok();
    assert_eq!(
        captures(&lab),
        [
            "mega_bridge,netflow,,raw,false,/files/flows.raw".to_owned(),
            "mega_bridge,netflow,,ascii,false,/files/flows.txt".to_owned(),
            format!("mega_bridge,netflow,,ascii,false,udp:{}", listener.local_addr().expect("bound")),
            "mega_bridge,netflow,,ascii,true,/files/flows.gz".to_owned(),
        ]
    );
    lab.e("vm config memory 16").ok();
    lab.e("vm config networks LAN").ok();
    lab.e("vm launch kvm a").ok();
    lab.e("capture pcap vm a 0 a.pcap").ok();
    lab.e("capture pcap bridge mega_bridge all.pcap").ok();
    lab.e("capture pcap bridge later later.pcap").ok();
    lab.e("tap create LAN ip 10.0.0.1/24 mgmt").ok();
    // A bridge that comes after its capture.
    lab.e("tap create DMZ bridge later ip 10.0.1.1/24 other").ok();
    let packets = |text: &str| -> u64 {
        let pings = text.lines().filter(|line| line.contains(" icmp 10.0.0.1:0 10.0.0.255:2048 "));
        pings.map(|line| line.split(' ').nth(5).and_then(|count| count.parse::<u64>().ok()).expect("a number")).sum()
    };
    let lines = || std::fs::read_to_string(file(&lab, "flows.txt")).expect("the capture");
    shout(&lab, 100, "0.01").wait().expect("our child");
    wait_for("all packets in flow records", || packets(&lines()) >= 100);
    assert_eq!(packets(&lines()), 100);
    wait_for("the frames themselves", || pings(&file(&lab, "a.pcap")).len() == 100);
    let tag = |alias: &str| lab.rows(&format!(".columns vlan .filter alias={alias} vlans"))[0][0].clone();
    let counted = |name: &str, alias: &str| {
        let (pings, tag) = (pings(&file(&lab, name)), tag(alias));
        assert!(pings.iter().all(|(vlan, _)| *vlan == tag), "each frame has its VLAN's tag: {pings:?}");
        pings.len()
    };
    wait_for("the frames of the bridge", || counted("all.pcap", "LAN") == 100);
    let mut ping = lab.program();
    ping.args(["exec-net", "ping", "-b", "-W1", "-i", "0.01", "-c", "5", "10.0.1.255"]);
    ping.output().expect("the program starts");
    wait_for("the frames of the later bridge", || counted("later.pcap", "DMZ") == 5);
    lab.e("tap delete other").ok();
    assert!(lab.rows("bridge").iter().all(|row| row[0] != "later"), "a capture does not keep a bridge");
    let mut sent = String::new();
    let mut buffer = [0; 4096];
    while packets(&sent) < 100 {
        let length = listener.recv(&mut buffer).expect("a datagram");
        sent.push_str(std::str::from_utf8(&buffer[..length]).expect("text"));
    }
    lab.e("capture netflow delete bridge nosuch").fails("no netflow capture of bridge nosuch");
    let unpacked = Command::new("zcat").arg(file(&lab, "flows.gz")).output().expect("zcat starts");
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    wait_for("the packed file", || {
        let unpacked = Command::new("zcat").arg(file(&lab, "flows.gz")).output().expect("zcat starts");
        unpacked.status.success() && packets(&String::from_utf8_lossy(&unpacked.stdout)) == 100
    });
    // The datagrams are what other collectors understand: whole ones of version 5.
    let raw = std::fs::read(file(&lab, "flows.raw")).expect("the capture");
    assert!(raw.len() >= 72 && raw[..2] == [0, 5], "{} bytes", raw.len());

    // They outlive the daemon, and end with their namespace.
    lab.kill_daemon();
    start(&mut lab);
    assert_eq!(captures(&lab).len(), 7);
    let lines = || std::fs::read_to_string(file(&lab, "flows.txt")).expect("the capture");
    shout(&lab, 50, "0.01").wait().expect("our child");
    wait_for("what came after the restart", || packets(&lines()) >= 150);
    lab.e("capture netflow delete bridge mega_bridge").ok();
    lab.e("capture pcap delete bridge later").ok();
    assert_eq!(captures(&lab), ["mega_bridge,pcap,a:0,,,/files/a.pcap", "mega_bridge,pcap,,,,/files/all.pcap"]);
    assert_eq!(pings(&file(&lab, "all.pcap")).len(), 150, "each frame is heard once");
    lab.e("clear namespace minimega").ok();
    assert!(captures(&lab).is_empty() && !lab.mounted());
}

#[test]
fn flow_records_are_those_of_nfdump() {
    if !have(&["root", "ip", "ping", "ovs-vswitchd", "nfcapd", "nfdump"]) {
        return;
    }
    let mut lab = Lab::new();
    let mut command = lab.program();
    command.args(["daemon", "--switch", "openvswitch"]);
    lab.start_daemon_by(command);
    let sent = Collector::start(&lab, "sent");
    lab.e("capture netflow timeout 1").ok();
    lab.e(&format!("capture netflow bridge mega_bridge udp 127.0.0.1:{}", sent.port)).ok();
    lab.e("capture netflow bridge mega_bridge flows.raw").ok();
    lab.e("capture netflow gzip true").ok();
    lab.e("capture netflow bridge mega_bridge flows.gz").ok();
    lab.e("tap create LAN ip 10.0.0.1/24 near").ok();
    lab.e("tap create LAN name far").ok();
    shout(&lab, 30, "0.01").wait().expect("our child");
    // Both files can be read at any moment, and each datagram in them is whole.
    let [raw_file, packed_file] = ["flows.raw", "flows.gz"].map(|name| file(&lab, name));
    let packed = || {
        let unpacked = Command::new("zcat").arg(&packed_file).output().expect("zcat starts");
        assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
        unpacked.stdout
    };
    let raw = || std::fs::read(&raw_file).expect("the capture");
    let pings = |datagrams: &[Vec<u8>]| -> u32 {
        let flows = datagrams.iter().flat_map(|datagram| datagram[24..].chunks(48));
        let echo = flows.filter(|flow| flow[..8] == [10, 0, 0, 1, 10, 0, 0, 255] && flow[38] == 1);
        echo.map(|flow| u32::from_be_bytes([flow[16], flow[17], flow[18], flow[19]])).sum()
    };
    wait_for("all pings in flow records", || pings(&datagrams(&raw())) == 30 && pings(&datagrams(&packed())) == 30);
    // Killed, and torn as if it had been writing: the next daemon cuts that off and goes on.
    lab.kill_daemon();
    for path in [&raw_file, &packed_file] {
        let size = std::fs::metadata(path).expect("the capture").len();
        std::fs::OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(size - 3)).expect("ours");
    }
    let mut command = lab.program();
    command.args(["daemon", "--switch", "openvswitch"]);
    lab.start_daemon_by(command);
    let before = [pings(&datagrams(&raw())), pings(&datagrams(&packed()))];
    shout(&lab, 20, "0.01").wait().expect("our child");
    wait_for("what came after the restart", || {
        [pings(&datagrams(&raw())), pings(&datagrams(&packed()))] == before.map(|count| count + 20)
    });
    // A raw file sent to a collector is what was sent there directly.
    let replayed = Collector::start(&lab, "replayed");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let all = datagrams(&raw());
    for datagram in &all {
        socket.send_to(datagram, ("127.0.0.1", replayed.port)).expect("loopback");
        // nfcapd has little room.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(sent.end().packets, 50);
    let flows = all.iter().map(|datagram| (datagram.len() - 24) / 48).sum();
    assert_eq!(replayed.end(), Dumped { flows, packets: pings(&all) });
}

/// The datagrams of a raw file.
#[track_caller]
fn datagrams(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut datagrams = Vec::new();
    while !rest.is_empty() {
        assert_eq!(rest[..2], [0, 5], "a datagram of version 5");
        let (datagram, behind) = rest.split_at(24 + 48 * usize::from(rest[3]));
        datagrams.push(datagram.to_vec());
        rest = behind;
    }
    datagrams
}

/// nfcapd, which listens on the loopback interface.
struct Collector {
    child: Child,
    folder: PathBuf,
    port: u16,
}

#[derive(Debug, PartialEq, Eq)]
struct Dumped {
    flows: usize,
    /// Those of the pings.
    packets: u32,
}

impl Collector {
    fn start(lab: &Lab, name: &str) -> Self {
        let folder = lab.folder.path().join(name);
        std::fs::create_dir(&folder).expect("ours");
        let free = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let mut command = Command::new("nfcapd");
        command.args(["-b", "127.0.0.1", "-p", &free.port().to_string(), "-w"]).arg(&folder);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nfcapd starts");
        wait_for("nfcapd to listen", || {
            let sockets = std::fs::read_to_string("/proc/net/udp").expect("procfs");
            sockets.contains(&format!(":{:04X} ", free.port()))
        });
        Self { child, folder, port: free.port() }
    }

    /// What it has understood.
    fn end(mut self) -> Dumped {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("our child");
        self.child.wait().expect("our child");
        let output = Command::new("nfdump")
            .args(["-q", "-R"])
            .arg(&self.folder)
            .args(["-o", "fmt:%pr %sa %da %pkt"])
            .output()
            .expect("nfdump starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut dumped = Dumped { flows: 0, packets: 0 };
        for line in lines {
            dumped.flows += 1;
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.starts_with(&["ICMP", "10.0.0.1", "10.0.0.255"]) {
                dumped.packets += words[3].parse::<u32>().expect("a number");
            }
        }
        dumped
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The capture of an experiment hears a booting guest from its first frame on: the file has as many frames of the
/// guest's as the kernel has counted on the tap since that was made.
#[test]
fn an_experiment_has_the_first_frame_of_its_guest() {
    if !have(&["root", "guest", "qemu-system-x86_64", "ping", "ip", "tshark"]) {
        return;
    }
    let (kernel, initrd) = support::guest();
    let text = format!(
        r#"
experiment: lab
vlans: {{ lan: {{}} }}
vms:
  a: {{ memory: 128, kernel: {}, initrd: {}, append: "console=ttyS0 quiet ip.0=10.0.0.1/24", networks: [lan] }}
taps:
  mgmt: {{ vlan: lan, ip: 10.0.0.254/24 }}
captures:
  nic: {{ vm: a, file: nic.pcap }}
  whole: {{ bridge: mega_bridge, file: all.pcap }}
"#,
        kernel.display(),
        initrd.display()
    );
    let lab = Lab::new();
    lab.file("lab.yaml", &text);
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    wait_for("the guest to answer", || {
        lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", "10.0.0.1"]).code == 0
    });
    // Nothing more is to come while it is counted.
    lab.e("namespace lab vm stop a").ok();
    let cell = |column: &str| {
        let cell = lab.rows(&format!("namespace lab .columns {column} vm info"))[0][0].clone();
        cell.trim_matches(['[', ']']).to_owned()
    };
    let (tap, mac) = (cell("tap"), cell("mac"));
    let shown = lab.run(&["exec-net", "--", "ip", "-json", "-s", "link", "show", &tap]).ok().out;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let counted =
        shown[0]["stats64"]["rx"]["packets"].as_u64().and_then(|count| usize::try_from(count).ok()).expect("a number");
    let of_guest = |name: &str| {
        let mut tshark = Command::new("tshark");
        tshark.args(["-n", "-Y", &format!("eth.src == {mac}"), "-r"]).arg(file(&lab, name));
        let output = tshark.output().expect("tshark starts");
        String::from_utf8_lossy(&output.stdout).lines().count()
    };
    assert!(counted > 1, "{counted}");
    wait_for("all of them in both files", || [of_guest("nic.pcap"), of_guest("all.pcap")] == [counted, counted]);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert_eq!([of_guest("nic.pcap"), of_guest("all.pcap")], [counted, counted]);
    assert!(lab.qemus().is_empty() && !lab.mounted());
}

#[test]
fn linux_bridges_have_no_flow_records() {
    if !have(NEEDS) {
        return;
    }
    let lab = lab();
    let old = file(&lab, "flows.raw");
    std::fs::write(&old, "something").expect("ours");
    lab.e("capture netflow bridge mega_bridge flows.raw").fails("export netflow");
    lab.e("capture netflow bridge mega_bridge flows.raw").fails("--switch openvswitch");
    lab.e("capture netflow bridge nosuch flows.raw").fails("--switch openvswitch");
    for wrong in ["host", "host:", ":9995", "host:0", "host:65536", "fd00::1", "fd00::1:9995", "host:http"] {
        let expected = format!("invalid hostname:port `{wrong}`, expected a host and a port");
        lab.e(&format!("capture netflow bridge mega_bridge udp {wrong}")).fails(&expected);
        lab.e(&format!("capture netflow bridge mega_bridge tcp {wrong}")).fails(&expected);
    }
    assert_eq!(std::fs::read(&old).expect("ours"), b"something", "the file is as it was");
    assert!(captures(&lab).is_empty());
}
