//! The engine when things happen at once, or end in the middle: real QEMUs that never start a guest, and programs that
//! only look like one.
#![allow(missing_docs)]

mod support;

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Answer, Lab, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];

/// A program that starts like a QEMU and never opens a socket.
const MUTE: &str = "#!/bin/sh\nexec sleep 1000\n";

fn states(lab: &Lab) -> Vec<String> {
    let mut rows: Vec<String> = lab.rows(".columns name,state vm info").iter().map(|r| r.join(" ")).collect();
    rows.sort();
    rows
}

fn pid(lab: &Lab, name: &str) -> Pid {
    let pid = lab.rows(&format!(".columns pid .filter name={name} vm info"))[0][0].parse().expect("a pid");
    Pid::from_raw(pid)
}

fn finish(child: Child) -> Answer {
    child.wait_with_output().expect("our own child").into()
}

/// The QEMUs that run are exactly those that the engine knows.
#[track_caller]
fn no_orphan(lab: &Lab, when: &str) {
    let mut known: Vec<i32> = lab
        .rows(".columns pid,state vm info")
        .iter()
        .filter(|row| row[1] != "QUIT" && row[1] != "ERROR")
        .map(|row| row[0].parse().expect("a pid"))
        .collect();
    known.sort_unstable();
    assert_eq!(known, lab.qemus(), "{when}");
}

/// The taps that exist are exactly those of the VMs that run and the host taps that the engine shows.
#[track_caller]
fn no_stray_tap(lab: &Lab, when: &str) {
    let mut known: Vec<String> = lab
        .rows(".columns tap .filter state!=quit .filter state!=error vm info")
        .concat()
        .iter()
        .flat_map(|cell| cell.trim_matches(['[', ']', '"', ' ']).split(", "))
        .map(|tap| tap.trim_matches(['[', ']', '"', ' ']).to_owned())
        .filter(|tap| !tap.is_empty())
        .collect();
    known.extend(lab.rows(".columns tap tap").concat());
    known.sort();
    let shown = lab.e(".annotate false shell ip -o link").ok().out;
    let mut there: Vec<String> = shown
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .map(|name| name.split('@').next().expect("a first part").to_owned())
        .filter(|name| name != "lo" && !name.starts_with("megaport") && !name.contains('.'))
        .collect();
    there.sort();
    assert_eq!(known, there, "{when}");
}

#[test]
fn a_kill_ends_a_launch_under_way() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let mute = lab.script("mute", MUTE);
    lab.e(&format!("vm config qemu {}", mute.display())).ok();
    lab.e("vm config net LAN").ok();
    // More than start at once, so that some of them still wait.
    let launch = lab.background("vm launch kvm a[0-39]");
    wait_for("the first of them", || !lab.qemus().is_empty());
    lab.e("vm kill all").ok();
    finish(launch).fails("a39 was killed while it was starting");
    assert_eq!(states(&lab).len(), 40);
    assert!(states(&lab).iter().all(|vm| vm.ends_with(" QUIT")), "{:?}", states(&lab));
    assert!(lab.qemus().is_empty());
    lab.e("vm flush").ok();
    assert!(!lab.mounted());
}

#[test]
fn a_namespace_goes_although_a_launch_is_in_flight() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let mute = lab.script("mute", MUTE);
    lab.e(&format!("namespace lab vm config qemu {}", mute.display())).ok();
    lab.e("namespace lab vm config net LAN").ok();
    let launch = lab.background("namespace lab vm launch kvm a[0-19]");
    wait_for("the first of them", || !lab.qemus().is_empty());
    lab.e("clear namespace lab").ok();
    finish(launch).fails("was killed while it was starting");
    assert!(lab.qemus().is_empty() && !lab.mounted());
    assert_eq!(lab.rows(".columns namespace namespace"), [["minimega"]]);
    assert_eq!(lab.files(), ["files", "minimega", "minimega.pid", "network.json", "state.json"]);
}

#[test]
fn a_qemu_that_hangs_can_be_killed() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    kill(pid(&lab, "a"), Signal::SIGSTOP).expect("our QEMU");
    let start = lab.background("vm start a");
    let status = lab.background("vm qmp a '{\"execute\": \"query-status\"}'");
    std::thread::sleep(std::time::Duration::from_millis(200));
    lab.e("vm kill a").ok();
    finish(start).fails("vm a was killed while it was starting");
    finish(status).fails("QEMU has closed the QMP connection");
    assert_eq!(states(&lab), ["a QUIT"]);
    assert!(lab.qemus().is_empty());
}

#[test]
fn start_and_flush_at_once_leave_no_orphan() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN").ok();
    for round in 0..8 {
        lab.e("vm launch kvm a").ok();
        lab.e("vm kill a").ok();
        let children: Vec<Child> = ["vm start a", "vm flush", "vm start a", "vm flush a", "vm tag a k v"]
            .iter()
            .cycle()
            .skip(round)
            .take(5)
            .map(|line| lab.background(line))
            .collect();
        // Whoever comes first wins; the others find no VM, or one in another state.
        children.into_iter().for_each(|child| drop(finish(child)));
        no_orphan(&lab, &format!("round {round}"));
        lab.e("vm kill all").ok();
        lab.e("vm flush").ok();
        assert!(lab.qemus().is_empty() && !lab.mounted(), "round {round}");
    }
    assert_eq!(lab.files(), ["files", "minimega", "minimega.pid", "network.json", "state.json"]);
}

#[test]
fn the_same_names_twice_at_once_are_launched_once() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    let children: Vec<Child> = (0..4).map(|_| lab.background("vm launch kvm a[0-3]")).collect();
    let codes: Vec<i32> = children.into_iter().map(|child| finish(child).code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(states(&lab).len(), 4);
    no_orphan(&lab, "after four launches of the same names");
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_leaves_no_orphan() {
    if !have(NEEDS) {
        return;
    }
    for (step, line) in ["vm kill all", "vm flush", "tap create LAN", "vm start all", "vm net connect all 0 other"]
        .into_iter()
        .cycle()
        .enumerate()
        .take(15)
    {
        let when = format!("`{line}`, step {step}");
        let mut lab = Lab::with_daemon();
        lab.e("vm config memory 16").ok();
        lab.e("vm config net LAN").ok();
        lab.e("vm launch kvm a[0-5]").ok();
        if line == "vm flush" {
            lab.e("vm kill a[0-3]").ok();
        }
        let clients: Vec<Child> = (0..3).map(|_| lab.background(line)).collect();
        std::thread::sleep(std::time::Duration::from_millis(7 * (step as u64 + 1)));
        lab.kill_daemon();
        clients.into_iter().for_each(|child| drop(finish(child)));
        lab.start_daemon();
        no_orphan(&lab, &when);
        no_stray_tap(&lab, &when);
        lab.e("clear namespace all").ok();
        assert!(lab.qemus().is_empty() && !lab.mounted(), "{when}");
        assert_eq!(lab.files(), ["files", "minimega", "minimega.pid", "network.json", "state.json"], "{when}");
    }
}

#[test]
fn recovery_touches_nothing_that_is_not_the_engines() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::new();
    std::fs::create_dir(&lab.base).expect("a new folder");
    std::fs::create_dir(lab.base.join("2024")).expect("a new folder");
    std::fs::write(lab.base.join("2024/thesis.tex"), "years of work").expect("our own folder");
    lab.start_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    let folder = lab.rows(".columns id vm info")[0][0].clone();
    // Somebody looks at QEMU's log.
    let mut pager = Command::new("sleep")
        .arg("1000")
        .current_dir(lab.base.join(folder))
        .stdin(Stdio::null())
        .spawn()
        .expect("sleep is everywhere");
    let before = pid(&lab, "a");
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(states(&lab), ["a BUILDING"]);
    assert_eq!(pid(&lab, "a"), before);
    assert!(pager.try_wait().expect("our own child").is_none(), "the pager was ended");
    lab.e("clear namespace all").ok();
    pager.kill().expect("our own child");
    pager.wait().expect("our own child");
    assert!(lab.base.join("2024/thesis.tex").exists());
}

#[test]
fn two_engines_in_one_network_leave_each_others_interfaces_alone() {
    if !have(&[NEEDS, &["unshare", "nsenter", "ip"]].concat()) {
        return;
    }
    let (mut one, mut two) = (Lab::new(), Lab::new());
    let mut command = Command::new("unshare");
    command.args(["-n", env!("CARGO_BIN_EXE_megaform"), "--base"]).arg(&one.base);
    command.args(["daemon", "--network", "host", "--accel", "tcg"]);
    one.start_daemon_by(command);
    let inside = one.started_pid().to_string();
    let ip = |args: &[&str]| {
        let output = Command::new("nsenter").args(["-n", "-t", &inside, "ip"]).args(args).output().expect("nsenter");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let names = || -> Vec<String> {
        let shown = ip(&["-o", "link"]);
        let mut names: Vec<String> = shown
            .lines()
            .filter_map(|line| line.split(": ").nth(1))
            .map(|name| name.split('@').next().expect("a first part").to_owned())
            .filter(|name| name.starts_with("mega_"))
            .collect();
        names.sort();
        names
    };
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &inside, env!("CARGO_BIN_EXE_megaform"), "--base"]).arg(&two.base);
    command.args(["daemon", "--network", "host", "--accel", "tcg"]);
    two.start_daemon_by(command);
    // Interfaces of somebody else's, named like ours.
    ip(&["link", "add", "mega_tap1", "type", "bridge"]);
    ip(&["link", "add", "mega_bridge.101", "type", "bridge"]);
    for lab in [&one, &two] {
        lab.e("vm config memory 16").ok();
        lab.e("vm config net LAN LAN").ok();
        lab.e("vm launch kvm a[0-1]").ok();
        assert_eq!(lab.e(".annotate false tap create LAN").ok().out.trim().get(..8), Some("mega_tap"));
        assert_eq!(lab.rows("tap").len(), 1);
        no_orphan(lab, "after both launched");
    }
    let taps: std::collections::BTreeSet<String> = names().into_iter().filter(|n| n.starts_with("mega_tap")).collect();
    assert_eq!(taps.len(), 1 + 2 * (4 + 1), "{taps:?}");
    two.kill_daemon();
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &inside, env!("CARGO_BIN_EXE_megaform"), "--base"]).arg(&two.base);
    command.args(["daemon", "--network", "host", "--accel", "tcg"]);
    two.start_daemon_by(command);
    assert_eq!(names().iter().filter(|n| n.starts_with("mega_tap")).count(), 11, "a restart took another's taps");
    one.e("vm kill a0").ok();
    one.e("vm start a0").ok();
    two.e("clear namespace all").ok();
    no_orphan(&one, "after the other engine cleared everything");
    assert_eq!(names().iter().filter(|n| n.starts_with("mega_tap")).count(), 6);
    one.e("clear namespace all").ok();
    assert_eq!(names(), ["mega_bridge.101", "mega_tap1"]);
}

#[test]
fn a_long_base_path_with_blanks() {
    use std::io::Read;
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::new();
    lab.base = lab.folder.path().join(format!("{} with blanks", "long".repeat(30))).join("base");
    lab.start_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config serial 2").ok();
    lab.e("vm config virtio-ports 1").ok();
    lab.e("vm config net LAN").ok();
    lab.e("vm launch kvm a").ok();
    let port: u16 = lab.rows(".columns vnc_port vm info")[0][0].parse().expect("a port");
    let mut display = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    let mut greeting = [0; 4];
    display.read_exact(&mut greeting).expect("QEMU greets");
    assert_eq!(&greeting, b"RFB ");
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(states(&lab), ["a BUILDING"]);
    lab.e("vm kill a").ok();
}

#[test]
fn aliases_never_get_a_tag_that_a_tap_uses() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("tap create 101").ok();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN").ok();
    lab.e("vm launch kvm a").ok();
    lab.e("clear vlans").ok();
    assert_eq!(lab.rows(".columns vlan vm info"), [["[102]"]]);
    lab.e("tap create OTHER").ok();
    assert_eq!(lab.rows("vlans"), [["OTHER", "103"]]);
    // A configuration or a launch that is refused gives out nothing.
    lab.e("vm config net X Y Z").ok();
    assert_eq!(lab.rows("vlans").len(), 4);
    lab.e("clear vlans").ok();
    lab.e("vlans range 300 302").ok();
    lab.e("vm launch kvm b").fails("no free vlan in 300-302");
    lab.e("vm config net U V W").fails("no free vlan in 300-302");
    assert!(lab.rows("vlans").is_empty());
    assert_eq!(lab.rows(".columns name vm info"), [["a"]]);
}

#[test]
fn programs_that_run_for_long_hold_nothing_up() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let gate = lab.folder.path().join("gate");
    let running = lab.folder.path().join("running");
    std::fs::create_dir(&running).expect("the temporary folder is writable");
    let (here, there) = (running.display(), gate.display());
    let script = lab.script("wait", &format!("#!/bin/sh\n: > {here}/$$\nwhile [ ! -e {there} ]; do sleep 0.1; done\n"));
    // More than the daemon has threads for blocking work.
    let shells: Vec<Child> = (0..20).map(|_| lab.background(&format!("shell {}", script.display()))).collect();
    wait_for("all of them to run", || std::fs::read_dir(&running).expect("our own folder").count() == 20);
    lab.e("tap create LAN").ok();
    std::fs::write(&gate, "").expect("the temporary folder is writable");
    shells.into_iter().for_each(|child| drop(finish(child).ok()));
}

#[test]
fn vms_that_came_and_went_leave_no_descriptor() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let folder = format!("/proc/{}/fd", lab.started_pid());
    let open = || std::fs::read_dir(&folder).expect("the daemon runs").count();
    let before = open();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN LAN").ok();
    for _ in 0..3 {
        lab.e("vm launch kvm a[0-9]").ok();
        assert!(open() > before);
        lab.e("vm kill all").ok();
        lab.e("vm flush").ok();
    }
    // A client's own descriptor goes when the daemon has seen its end.
    wait_for("every descriptor to be closed", || open() <= before);
}

/// `all` means those that there are: one that another client flushes meanwhile is no error.
#[test]
fn all_is_not_disturbed_by_what_others_flush() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config networks lan").ok();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            for _ in 0..12 {
                lab.e("vm launch kvm x[0-3]");
                lab.e("vm kill all");
                lab.e("vm flush").ok();
            }
        });
        while !others.is_finished() {
            for line in ["vm start all", "vm stop all", "vm net connect all 0 other", "vm net disconnect all 0"] {
                let answer = lab.e(line);
                assert!(!answer.err.contains("vm not found"), "{line}: {}", answer.err);
            }
        }
    });
}
