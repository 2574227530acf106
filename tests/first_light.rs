//! Experiments from the file to real guests and back: what an operator does, in the order they do it.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

use support::{Answer, Lab, guest, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];
const BOOT_NEEDS: &[&str] = &["root", "qemu-system-x86_64", "ping", "guest"];

/// VMs that are launched but whose guests never run: all of the engine but no boot.
const PAUSED: &str = r#"
experiment: lab
vlans: { dmz: {}, core: { tag: 200 } }
profiles:
  small: { memory: 16, state: paused }
vms:
  "web[0-2]": { profile: small, networks: [dmz] }
  fw: { profile: small, networks: [dmz, { vlan: core, mac: "52:54:00:00:00:01", driver: virtio-net-pci }], tags: { role: firewall } }
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }
"#;

fn apply(lab: &Lab, file: &Path) -> Answer {
    lab.run(&["apply", "--yes", &file.to_string_lossy()])
}

fn plan(lab: &Lab, file: &Path) -> Answer {
    lab.run(&["plan", &file.to_string_lossy()])
}

/// The commands of a plan, without the configuration that precedes a launch.
fn commands(lab: &Lab, file: &Path) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(&lab.run(&["plan", "--json", &file.to_string_lossy()]).ok().out)
        .expect("plan --json is JSON");
    json["steps"]
        .as_array()
        .expect("a plan has steps")
        .iter()
        .map(|step| step["command"].as_str().expect("a step has a command").to_owned())
        .filter(|command| !command.contains(" vm config") && !command.contains("clear vm config"))
        .collect()
}

fn pids(lab: &Lab) -> Vec<(String, String)> {
    let mut rows: Vec<_> = lab
        .rows("namespace lab .columns name,pid vm info")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    rows.sort();
    rows
}

/// Directly after a destroy.
fn nothing_is_left(lab: &Lab) {
    assert!(lab.qemus().is_empty(), "QEMU is left");
    assert!(!lab.mounted(), "a network namespace is left");
    assert!(!lab.base.exists(), "files are left: {:?}", lab.files());
}

#[test]
fn a_second_apply_runs_nothing_and_destroy_leaves_nothing() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let file = lab.file("lab.yaml", PAUSED);
    let text = plan(&lab, &file).ok().out;
    assert!(text.contains("vm launch kvm web[0-2]"), "equal VMs are launched together:\n{text}");
    assert!(!lab.base.exists(), "a plan starts nothing");
    apply(&lab, &file).ok();
    assert_eq!(lab.qemus().len(), 4);
    let before = pids(&lab);
    assert!(commands(&lab, &file).is_empty());
    let again = apply(&lab, &file).ok();
    assert!(again.out.contains("No changes"), "{}", again.out);
    assert_eq!(lab.run(&["plan", "--detailed-exitcode", "lab.yaml"]).code, 0);

    // The same experiment in other words.
    let toml = lab.file(
        "lab.toml",
        r#"
experiment = "lab"
[taps.mgmt]
ip = "10.0.0.254/24"
vlan = "dmz"
[vms.fw]
networks = ["dmz", { driver = "virtio-net-pci", mac = "52:54:00:00:00:01", vlan = "core" }]
tags = { role = "firewall" }
profile = "small"
[vms."web[0-2]"]
networks = ["dmz"]
profile = "small"
[profiles.small]
state = "paused"
memory = 16
[vlans]
core = { tag = 200 }
dmz = {}
"#,
    );
    assert!(commands(&lab, &toml).is_empty());
    assert_eq!(pids(&lab), before);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn edits_cost_what_they_must() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let file = lab.file("lab.yaml", PAUSED);
    apply(&lab, &file).ok();
    let before = pids(&lab);

    // A NIC to another VLAN: one command.
    let file = lab.file(
        "lab.yaml",
        &PAUSED.replace(
            "\"web[0-2]\": { profile: small, networks: [dmz] }",
            "\"web[0-1]\": { profile: small, networks: [dmz] }\n  web2: { profile: small, networks: [core] }",
        ),
    );
    assert_eq!(commands(&lab, &file), ["namespace lab vm net connect web2 0 core"]);
    assert_eq!(lab.run(&["plan", "--detailed-exitcode", "lab.yaml"]).code, 2);
    apply(&lab, &file).ok();
    assert_eq!(pids(&lab), before);
    assert!(commands(&lab, &file).is_empty());

    // Memory: that VM alone is replaced.
    let edited = std::fs::read_to_string(&file)
        .expect("the file")
        .replace("web2: { profile: small, networks", "web2: { profile: small, memory: 17, networks");
    let file = lab.file("lab.yaml", &edited);
    let text = plan(&lab, &file).ok().out;
    assert!(
        text.contains("vm.web2") && text.contains("memory") && text.contains("16") && text.contains("17"),
        "{text}"
    );
    apply(&lab, &file).ok();
    let after = pids(&lab);
    for ((name, old), (_, new)) in before.iter().zip(&after) {
        assert_eq!(old != new, name == "web2", "{name}");
    }
    assert!(commands(&lab, &file).is_empty());

    // Tags, state, a removed VM, a removed tap.
    let edited = edited
        .replace("role: firewall", "role: router")
        .replace("web2: { profile: small,", "web2: { profile: small, state: running,")
        .replace("\"web[0-1]\"", "\"web[0-0]\"")
        .replace("taps:\n  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }", "taps:\n  other: { vlan: core }");
    let file = lab.file("lab.yaml", &edited);
    apply(&lab, &file).ok();
    assert!(commands(&lab, &file).is_empty());
    let rows = lab.rows("namespace lab .columns name,state vm info");
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.contains(&vec!["web2".to_owned(), "RUNNING".to_owned()]));
    assert!(lab.e("namespace lab vm tag fw role").ok().out.contains("router"));
    assert_eq!(lab.rows("namespace lab .columns tap tap"), [["other"]]);
    assert_eq!(pids(&lab).iter().find(|(n, _)| n == "fw"), before.iter().find(|(n, _)| n == "fw"));
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn what_was_changed_by_hand_is_restored_and_what_is_not_ours_is_spared() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let running = PAUSED.replace("state: paused", "state: running");
    let file = lab.file("lab.yaml", &running);
    apply(&lab, &file).ok();
    for line in [
        "clear vm config",
        "vm config memory 16",
        "vm launch kvm stranger",
        "vm kill web0",
        "vm kill web1",
        "vm flush web1",
        "vm net connect web2 0 elsewhere",
        "vm stop fw",
        "clear vm tag fw role",
        "tap create core name handmade",
        "tap delete mgmt",
    ] {
        lab.e(&format!("namespace lab {line}")).ok();
    }
    let text = plan(&lab, &file).ok().out;
    assert!(text.contains("stranger"), "unmanaged VMs are shown:\n{text}");
    apply(&lab, &file).ok();
    assert!(commands(&lab, &file).is_empty());
    let mut rows = lab.rows("namespace lab .columns name,state,vlan vm info");
    rows.sort();
    let text: Vec<String> = rows.iter().map(|r| r.join(" ")).collect();
    assert_eq!(text.len(), 5, "{text:?}");
    assert!(text.iter().any(|t| t.starts_with("stranger BUILDING")), "{text:?}");
    assert_eq!(text.iter().filter(|t| t.contains("RUNNING")).count(), 4, "{text:?}");
    let mut taps: Vec<String> = lab.rows("namespace lab .columns tap tap").concat();
    taps.sort();
    assert_eq!(taps, ["handmade", "mgmt"]);
    let left = lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(left.out.contains("stranger") || left.err.contains("stranger"), "{}\n{}", left.out, left.err);
    let rows = lab.rows("namespace lab .columns name vm info");
    assert_eq!(rows, [["stranger"]]);
    lab.e("namespace lab vm kill stranger").ok();
    lab.e("namespace lab vm flush stranger").ok();
    lab.e("namespace lab tap delete handmade").ok();
    // The namespace stays until it is cleared, and the daemon with it; now nothing unmanaged keeps it.
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn a_plan_after_the_daemon_died_knows_the_vms_that_run() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let file = lab.file("lab.yaml", PAUSED);
    apply(&lab, &file).ok();
    let kill = || {
        let pid = nix::unistd::Pid::from_raw(lab.daemon_pid().expect("a daemon runs"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
        wait_for("the daemon to end", || lab.run(&["-e", "version"]).code != 0);
    };
    kill();
    let answer = plan(&lab, &file).ok();
    assert!(answer.out.contains("No changes"), "{}", answer.out);
    assert!(answer.err.contains("started again"), "{}", answer.err);
    kill();
    assert_eq!(lab.run(&["show", "lab.yaml"]).ok().out.matches("managed").count(), 5);
    kill();
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn a_relative_base_folder_is_one_in_the_working_folder() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    lab.file("lab.yaml", "experiment: lab\nvlans: { lan: {} }\ntaps: { t0: { vlan: lan } }\n");
    lab.run(&["--base", "base", "apply", "--yes", "lab.yaml"]).ok();
    assert!(lab.files().contains(&"minimega".to_owned()), "{:?}", lab.files());
    lab.run(&["--base", "base", "destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn an_interrupted_question_leaves_no_lock() {
    if !have(&["root", "qemu-system-x86_64", "script"]) {
        return;
    }
    let lab = Lab::new();
    lab.file("lab.yaml", PAUSED);
    for (key, code) in [("\x03", 1), ("\x04", 1), ("no\n", 1)] {
        // `script` gives the program a terminal. `exec`, because a shell that waits may die of the Ctrl-C itself.
        let mut command = std::process::Command::new("script");
        let line = format!("exec {} apply lab.yaml", env!("CARGO_BIN_EXE_megaform"));
        let mut child = command
            .args(["-q", "-e", "-f", "-c", &line, "/dev/null"])
            .env("MEGAFORM_BASE", &lab.base)
            .env("MEGAFORM_ACCEL", "tcg")
            .current_dir(lab.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script starts");
        let mut out = child.stdout.take().expect("it is piped");
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("accepted: ") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).expect("a pipe"), 1, "{}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        child.stdin.as_mut().expect("it is piped").write_all(key.as_bytes()).expect("script reads");
        out.read_to_end(&mut text).expect("a pipe");
        let status = child.wait().expect("our own child");
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("Nothing was done."), "{key:?}: {text}");
        assert_eq!(status.code(), Some(code), "{key:?}");
        assert!(!lab.files().iter().any(|f| f.ends_with(".lock")), "{key:?}: {:?}", lab.files());
        wait_for("the daemon to go", || !lab.base.exists());
    }
}

/// Run a subcommand of `lab.yaml` and kill it as soon as it has reported that so many commands ended. False if it ended
/// before that.
fn killed_after(lab: &Lab, subcommand: &str, ended: usize) -> bool {
    killed_after_of(lab, &[subcommand, "--yes", "lab.yaml"], ended)
}

fn killed_after_of(lab: &Lab, args: &[&str], ended: usize) -> bool {
    let mut child = lab.program().args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let reached = ended == 0 || lines.by_ref().filter(|line| line.starts_with('[')).nth(ended - 1).is_some();
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    reached
}

fn kill_daemon(lab: &Lab) {
    if let Some(pid) = lab.daemon_pid() {
        // It may not have been there yet, or not any more.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn killed_between_any_two_steps_the_next_apply_converges() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    // A launch, a start, a dependent launch, a VLAN and a tap.
    let text = r#"
experiment: lab
vlans: { lan: { tag: 200 } }
vms:
  "web[0-1]": { memory: 16, networks: [lan], state: paused }
  db: { memory: 16, networks: [lan], depends_on: "web[0-1]" }
taps:
  mgmt: { vlan: lan, ip: 10.0.0.254/24 }
"#;
    let file = lab.file("lab.yaml", text);
    // Edits that replace a VM, rebind a VLAN, make a tap anew and remove a VM, so that the way from one to the other
    // has every kind of step.
    let edited = text
        .replace("tag: 200", "tag: 201")
        .replace("db: { memory: 16", "db: { memory: 17")
        .replace("web[0-1]", "web[1-2]")
        .replace("254/24", "253/24");
    let converges = |what: &str, point: usize| {
        // It succeeds only if nothing is left to do.
        let answer = apply(&lab, &file);
        assert_eq!(answer.code, 0, "{what} killed after {point} commands:\n{}{}", answer.out, answer.err);
        assert_eq!(lab.qemus().len(), 3, "{what} killed after {point} commands");
    };
    // Every point, and with the daemon killed too every third or second.
    for (subcommand, daemon_too, stride) in
        [("apply", false, 1), ("apply", true, 3), ("destroy", false, 1), ("destroy", true, 2)]
    {
        let mut point = 0;
        loop {
            if subcommand == "apply" {
                // From what the last round left to the other file, so that there is always something to do.
                lab.file("lab.yaml", if point % 2 == 0 { &edited } else { text });
            }
            let reached = killed_after(&lab, subcommand, point);
            if daemon_too {
                kill_daemon(&lab);
            }
            if !reached {
                break;
            }
            converges(subcommand, point);
            point += stride;
        }
        assert!(point > 3, "{subcommand} has more commands than {point}");
        apply(&lab, &file).ok();
        assert!(commands(&lab, &file).is_empty());
    }
    // And the first apply of all, which starts the daemon.
    for point in [0, 1, 4, 8] {
        lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
        nothing_is_left(&lab);
        assert!(killed_after(&lab, "apply", point));
        kill_daemon(&lab);
        converges("the first apply", point);
    }
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn two_experiments_start_one_engine() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let names = ["one", "two", "three", "four"];
    for name in names {
        lab.file(&format!("{name}.yaml"), &format!("experiment: {name}\ntaps: {{ {name}: {{ vlan: 7 }} }}\n"));
    }
    let all = |subcommand: &str| -> Vec<Answer> {
        let start = |name: &&str| {
            lab.program()
                .args([subcommand, "--yes", &format!("{name}.yaml")])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts")
        };
        let children: Vec<_> = names.iter().map(start).collect();
        children.into_iter().map(|child| child.wait_with_output().expect("our own child").into()).collect()
    };
    for _ in 0..3 {
        // None runs, or one is about to end.
        for subcommand in ["apply", "destroy"] {
            for answer in all(subcommand) {
                answer.ok();
            }
        }
    }
    nothing_is_left(&lab);
}

#[test]
fn two_applies_do_not_meet() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let file = lab.file("lab.yaml", PAUSED);
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            lab.program()
                .args(["apply", "--yes", "lab.yaml"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("it starts")
        })
        .collect();
    let answers: Vec<Answer> =
        children.drain(..).map(|child| child.wait_with_output().expect("our own child").into()).collect();
    assert!(answers.iter().any(|a| a.code == 0), "one of them works");
    for answer in answers.iter().filter(|a| a.code != 0) {
        assert!(answer.err.contains("pid"), "who holds the lock:\n{}", answer.err);
    }
    apply(&lab, &file).ok();
    assert!(commands(&lab, &file).is_empty());
    assert_eq!(lab.qemus().len(), 4);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn guests_talk_over_their_vlan_and_only_there() {
    if !have(BOOT_NEEDS) {
        return;
    }
    let (kernel, initrd) = guest();
    let text = format!(
        r#"
experiment: lab
vlans: {{ dmz: {{}}, core: {{}} }}
profiles:
  linux: {{ memory: 128, kernel: {}, initrd: {} }}
vms:
  a: {{ profile: linux, append: "console=ttyS0 quiet ip.0=10.0.0.1/24", networks: [dmz] }}
  b: {{ profile: linux, append: "console=ttyS0 quiet ip.0=10.0.0.2/24", networks: [core] }}
  brief: {{ profile: linux, append: "console=ttyS0 quiet poweroff=1" }}
taps:
  mgmt: {{ vlan: dmz, ip: 10.0.0.254/24 }}
"#,
        kernel.display(),
        initrd.display()
    );
    let lab = Lab::new();
    let file = lab.file("lab.yaml", &text);
    let ping = |address: &str| lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", address]).code == 0;
    apply(&lab, &file).ok();
    wait_for("a to answer", || ping("10.0.0.1"));
    // b has the address on the other VLAN; it has had as long to boot as a had.
    assert!(!ping("10.0.0.2"));
    wait_for("a guest that powers off to be QUIT", || {
        lab.rows("namespace lab .columns state .filter name=brief vm info") == [["QUIT"]]
    });
    let qemus = lab.qemus();
    let moved = text
        .replace("ip.0=10.0.0.2/24\", networks: [core]", "ip.0=10.0.0.2/24\", networks: [dmz]")
        .replace("  brief: {", "  #brief: {");
    let file = lab.file("lab.yaml", &moved);
    apply(&lab, &file).ok();
    wait_for("b to answer on its new VLAN", || ping("10.0.0.2"));
    assert_eq!(lab.qemus(), qemus, "b moved while its QEMU stayed");
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn what_depends_on_a_guest_waits_until_it_answers() {
    if !have(BOOT_NEEDS) {
        return;
    }
    let (kernel, initrd) = guest();
    let text = format!(
        r#"
experiment: lab
vlans: {{ dmz: {{}} }}
vms:
  a:
    {{ memory: 128, kernel: {}, initrd: {}, append: "console=ttyS0 quiet ip.0=10.0.0.1/24", networks: [dmz],
      wait_for: {{ ping: 10.0.0.1, timeout: 3m }} }}
  b: {{ memory: 16, state: paused, depends_on: a }}
taps:
  mgmt: {{ vlan: dmz, ip: 10.0.0.254/24 }}
"#,
        kernel.display(),
        initrd.display()
    );
    let lab = Lab::new();
    let file = lab.file("lab.yaml", &text);
    apply(&lab, &file).ok();
    lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", "10.0.0.1"]).ok();
    assert_eq!(lab.rows("namespace lab .columns name vm info").len(), 2);
    assert!(commands(&lab, &file).is_empty());
    // Nobody has the other address. What waits for it is not begun, and the next apply asks again.
    lab.e("namespace lab vm kill b").ok();
    lab.e("namespace lab vm flush b").ok();
    let file = lab.file("lab.yaml", &text.replace("ping: 10.0.0.1, timeout: 3m", "ping: 10.0.0.9, timeout: 1"));
    let failed = apply(&lab, &file).fails("not so within 1s");
    assert!(failed.err.contains("shell ping -n -c 1 -W 1 10.0.0.9"), "{}", failed.err);
    assert_eq!(lab.rows("namespace lab .columns name vm info"), [["a"]]);
    let file = lab.file("lab.yaml", &text);
    apply(&lab, &file).ok();
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn killed_in_a_saved_plan_the_next_apply_converges() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let text = r#"
experiment: lab
vlans: { lan: { tag: 200 } }
vms:
  "web[0-1]": { memory: 16, networks: [lan], state: paused }
  db: { memory: 16, networks: [lan], depends_on: "web[0-1]" }
taps:
  mgmt: { vlan: lan, ip: 10.0.0.254/24 }
"#;
    let edited = text
        .replace("tag: 200", "tag: 201")
        .replace("db: { memory: 16", "db: { memory: 17")
        .replace("web[0-1]", "web[1-2]");
    let file = lab.file("lab.yaml", text);
    apply(&lab, &file).ok();
    let mut point = 0;
    loop {
        lab.file("lab.yaml", if point % 2 == 0 { &edited } else { text });
        lab.run(&["plan", "--out", "saved", "lab.yaml"]).ok();
        let reached = killed_after_of(&lab, &["apply", "--yes", "--rollback", "saved"], point);
        // Half done it does not fit any more; done, it has nothing to do.
        let again = lab.run(&["apply", "--yes", "saved"]);
        assert!([0, 3].contains(&again.code), "after {point}:\n{}", again.err);
        let answer = apply(&lab, &file);
        assert_eq!(answer.code, 0, "after {point}:\n{}{}", answer.out, answer.err);
        assert_eq!(lab.qemus().len(), 3, "after {point}");
        assert!(commands(&lab, &file).is_empty());
        if !reached {
            break;
        }
        point += 3;
    }
    assert!(point > 6, "the plan has more commands than {point}");
    lab.run(&["plan", "--destroy", "--out", "end", "lab.yaml"]).ok();
    lab.run(&["apply", "--yes", "end"]).ok();
    nothing_is_left(&lab);
}
