//! What breaks under the engine while it works, on both switches: the switch's programs are killed under load, bridges and
//! taps are changed by hand, a disk is full. Afterwards everything works again, and nothing is left.
#![allow(missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Lab, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64", "ip", "ping", "tcpdump"];
const OVS_NEEDS: &[&str] = &["root", "qemu-system-x86_64", "ip", "ping", "tcpdump", "ovsdb-server", "ovs-vsctl"];

fn lab(switch: &str) -> Lab {
    let mut lab = Lab::new();
    let mut daemon = lab.program();
    daemon.args(["daemon", "--switch", switch]);
    lab.start_daemon_by(daemon);
    lab
}

fn inside(lab: &Lab, words: &[&str]) -> Command {
    let mut command = lab.program();
    command.args(["exec-net", "--"]).args(words);
    command
}

#[track_caller]
fn by_hand(lab: &Lab, words: &[&str]) -> String {
    let output = inside(lab, words).output().expect("the program starts");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn vsctl(lab: &Lab, words: &[&str]) -> String {
    let database = format!("--db=unix:{}", lab.base.join("openvswitch/db.sock").display());
    by_hand(lab, &[&["ovs-vsctl", &database], words].concat())
}

/// Rename an interface as an operator does who does not know whose it is.
#[track_caller]
fn rename(lab: &Lab, old: &str, new: &str) {
    by_hand(lab, &["ip", "link", "set", old, "down"]);
    by_hand(lab, &["ip", "link", "set", old, "name", new]);
    by_hand(lab, &["ip", "link", "set", new, "up"]);
}

/// How many frames with the number are in a file that is still written.
fn heard(file: &Path, address: &str) -> usize {
    let output = Command::new("tcpdump").args(["-n", "-r"]).arg(file).output().expect("tcpdump starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("truncated"), "{errors}");
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains(address)).count()
}

/// Broadcast on the VLAN of a host tap.
fn shout(lab: &Lab, address: &str) {
    let _nobody_answers = inside(lab, &["ping", "-b", "-c", "1", "-W", "1", address]).output().expect("ping starts");
}

/// Everything that an engine could leave, after `clear all`, with the daemon still there.
#[track_caller]
fn nothing_is_left(lab: &Lab) {
    assert!(lab.qemus().is_empty(), "processes are left");
    assert!(!lab.mounted(), "the network namespace is left: {:?} {:?}", lab.rows("bridge"), lab.rows("tap"));
    assert_eq!(lab.files(), ["files", "minimega", "minimega.pid", "network.json", "state.json"]);
    assert!(lab.rows(".columns path capture").is_empty());
}

/// Two NICs and two host taps on one VLAN, and captures of one NIC and of the bridge.
fn furnish(lab: &Lab) {
    for line in [
        "vm config memory 16",
        "vm config networks LAN",
        "vm launch kvm a",
        "vm launch kvm b",
        "tap create LAN ip 10.0.0.1/24 near",
        "tap create LAN name far",
        "capture pcap vm a 0 a.pcap",
        "capture pcap bridge mega_bridge all.pcap",
    ] {
        lab.e(line).ok();
    }
}

fn tap_of(lab: &Lab, vm: &str) -> String {
    let cell = lab.rows(&format!(".columns tap .filter name={vm} vm info"))[0][0].clone();
    cell.trim_matches(['[', ']']).to_owned()
}

#[test]
fn taps_renamed_and_bridges_deleted_by_hand_on_linux_bridges() {
    if !have(NEEDS) {
        return;
    }
    changed_by_hand("linux", |lab| {
        for line in by_hand(lab, &["ip", "-br", "link", "show", "type", "bridge"]).lines() {
            by_hand(lab, &["ip", "link", "delete", line.split_whitespace().next().expect("a name")]);
        }
    });
}

#[test]
fn taps_renamed_and_bridges_deleted_by_hand_on_open_vswitch() {
    if !have(OVS_NEEDS) {
        return;
    }
    changed_by_hand("openvswitch", |lab| drop(vsctl(lab, &["del-br", "mega_bridge"])));
}

fn changed_by_hand(switch: &str, delete_bridge: fn(&Lab)) {
    let lab = lab(switch);
    furnish(&lab);
    let a = lab.base.join("files/a.pcap");
    let rounds = std::cell::Cell::new(0);
    // A frame that everybody on the VLAN gets comes to the NIC and into its file.
    let works = || {
        rounds.set(rounds.get() + 1);
        let address = format!("10.0.0.255: ICMP echo request, id {}", rounds.get());
        wait_for("a frame on the NIC", || {
            let mut ping =
                inside(&lab, &["ping", "-b", "-c", "1", "-W", "1", "-e", &rounds.get().to_string(), "10.0.0.255"]);
            ping.output().expect("ping starts");
            heard(&a, &address) > 0
        });
    };
    works();
    // A NIC's tap and a host tap get other names. Both are still listed under theirs, and are found.
    let nic = tap_of(&lab, "a");
    rename(&lab, &nic, "mine");
    rename(&lab, "far", "yours");
    assert_eq!(tap_of(&lab, "a"), nic);
    assert_eq!(lab.rows(".columns tap tap").concat(), ["far", "near"]);
    lab.e("vm net connect a 0 LAN").ok();
    works();
    lab.e("tap delete far").ok();
    let links = by_hand(&lab, &["ip", "-br", "link"]);
    assert!(!links.contains("mine") && !links.contains("yours"), "{links}");

    // Without its bridge everything is disconnected and says so, and comes back one by one.
    delete_bridge(&lab);
    assert_eq!(lab.rows(".columns vlan vm info"), [["[disconnected]"], ["[disconnected]"]]);
    lab.e("vm net connect a 0 LAN").ok();
    lab.e("tap delete near").ok();
    lab.e("tap create LAN ip 10.0.0.1/24 near").ok();
    works();

    // As it is: one NIC on no bridge, and another one renamed.
    rename(&lab, &tap_of(&lab, "b"), "again");
    delete_bridge(&lab);
    lab.e("clear all").ok();
    nothing_is_left(&lab);
}

/// Create and delete taps until told to stop: each of them is there between, and gone afterwards.
struct Load(Vec<Child>);

impl Load {
    fn start(lab: &Lab, clients: usize) -> Self {
        let stop = lab.folder.path().join("stop");
        let client = |client| {
            let lines = format!(
                "n=0; while [ ! -e {stop} ]; do n=$((n + 1)); \"$0\" -e \"tap create $((n % 3 + 1)) name l{client}x$n\" || exit 1; \
                 \"$0\" -e \"tap delete l{client}x$n\" || exit 2; done",
                stop = stop.display()
            );
            let mut command = Command::new("sh");
            command.args(["-c", &lines, env!("CARGO_BIN_EXE_megaform")]).env("MEGAFORM_BASE", &lab.base);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("sh starts")
        };
        Self((0..clients).map(client).collect())
    }

    #[track_caller]
    fn end(self, lab: &Lab) {
        lab.file("stop", "");
        for child in self.0 {
            let output = child.wait_with_output().expect("our child");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn the_programs_of_open_vswitch_are_killed_while_taps_come_and_go() {
    if !have(OVS_NEEDS) {
        return;
    }
    let lab = lab("openvswitch");
    furnish(&lab);
    let load = Load::start(&lab, 4);
    let program = |name: &str| -> Option<i32> {
        let text = std::fs::read_to_string(lab.base.join(format!("openvswitch/{name}.pid"))).ok()?;
        text.trim().parse().ok()
    };
    for name in ["ovsdb-server", "ovs-vswitchd", "ovsdb-server", "ovs-vswitchd"] {
        std::thread::sleep(Duration::from_millis(700));
        let pid = program(name).expect("it runs");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("ours");
        wait_for("another one to be started", || program(name).is_some_and(|now| now != pid));
    }
    load.end(&lab);
    // What was there is there, and nothing else, for the engine, the database and the kernel.
    assert_eq!(lab.rows(".columns tap tap").concat(), ["far", "near"]);
    let nics = ["a", "b"].map(|vm| tap_of(&lab, vm));
    let mut ports: Vec<String> = vsctl(&lab, &["list-ports", "mega_bridge"]).lines().map(str::to_owned).collect();
    ports.retain(|port| !port.starts_with("megaport") && !port.starts_with("mfe"));
    assert_eq!(ports, nics);
    assert_eq!(vsctl(&lab, &["--bare", "--columns=name", "list", "bridge"]).trim(), "mega_bridge");
    let links = by_hand(&lab, &["ip", "-br", "link"]);
    assert_eq!(links.lines().filter(|line| line.starts_with("megaport")).count(), 2, "{links}");
    assert!(!links.contains("l0x") && !links.contains("l3x"), "{links}");
    let all = lab.base.join("files/all.pcap");
    wait_for("frames to cross, and to be heard", || {
        shout(&lab, "10.0.0.255");
        heard(&all, "10.0.0.255: ICMP echo request") > 0
    });
    lab.e("clear all").ok();
    nothing_is_left(&lab);
}

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    fn new(lab: &Lab) -> Self {
        let disk = Self(lab.folder.path().join("disk"));
        std::fs::create_dir(&disk.0).expect("ours");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &disk.0, Some("tmpfs"), flags, Some("size=16k")).expect("a small disk");
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_stops_one_capture_of_flows() {
    if !have(&[OVS_NEEDS, &["bash"]].concat()) {
        return;
    }
    let lab = lab("openvswitch");
    let disk = Disk::new(&lab);
    lab.e("tap create LAN ip 10.0.0.1/24 near").ok();
    lab.e("tap create LAN name far").ok();
    by_hand(&lab, &["ip", "neigh", "replace", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "near"]);
    lab.e("capture netflow timeout 1").ok();
    lab.e("capture netflow mode ascii").ok();
    let small = disk.0.join("flows.txt");
    lab.e(&format!("capture netflow bridge mega_bridge {}", small.display())).ok();
    lab.e("capture netflow bridge mega_bridge flows.txt").ok();
    // Each is a flow of its own, of which 16 KiB take less than 200.
    by_hand(&lab, &["bash", "-c", "for port in {1..400}; do echo > /dev/udp/10.0.0.2/$port; done"]);
    let modes = || lab.rows(".sort false .columns mode capture").concat();
    wait_for("the disk to be full", || modes()[0].starts_with("stopped: No space left on device"));
    let lines = |path: &Path| {
        let text = std::fs::read_to_string(path).expect("the capture");
        assert!(text.is_empty() || text.ends_with('\n'), "a torn line is left");
        text.lines().filter(|line| line.contains(" udp 10.0.0.1:")).count()
    };
    // Open vSwitch itself may have lost a few of them.
    wait_for("the other one to have the rest", || lines(&lab.base.join("files/flows.txt")) > 300);
    assert_eq!(modes()[1], "ascii");
    assert!((10..200).contains(&lines(&small)), "{}", lines(&small));
    lab.e("clear all").ok();
    nothing_is_left(&lab);
    assert!(small.exists(), "what was captured stays");
}
