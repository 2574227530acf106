//! `megaform import` of a running namespace and of scripts, and saved plans with secrets, with the real engine.
#![allow(missing_docs)]

mod support;

use support::{Lab, have};

const SCRIPT: &str = "namespace lab\nvlans add core 200\nvm config memory 64\nvm config networks dmz core,virtio-net-pci\n\
    vm config tags role web\nvm launch kvm web[0-1]\nclear vm config\nvm config memory 48\nvm config vcpus 2\n\
    vm config networks core,52:54:00:00:00:07\nvm launch kvm fw\nvm config networks core\nvm launch kvm db\nvm start web0\n\
    tap create dmz ip 10.0.0.254/24 mgmt\n";

#[test]
fn what_runs_becomes_a_file_that_plans_to_no_changes() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let script = lab.file("lab.mm", SCRIPT);
    lab.run(&["run", script.to_str().expect("UTF-8")]).ok();
    let pids = || lab.rows("namespace lab .columns name,pid,state vm info");
    let before = pids();
    // Looking changes nothing: the VMs are nobody's, and a plan says so.
    lab.run(&["import", "lab", "--out", "a.yaml"]).ok();
    lab.run(&["plan", "a.yaml"]).fails("unmanaged-vm");
    lab.run(&["import", "lab", "--out", "a.yaml"]).fails("a.yaml");
    let adopted = lab.run(&["import", "lab", "--adopt"]).ok();
    lab.file("b.yaml", &adopted.out);
    let plan = lab.run(&["plan", "--detailed-exitcode", "b.yaml"]).ok();
    assert!(plan.out.contains("No changes"), "{}", plan.out);
    assert!(!adopted.err.contains("a plan would change"), "{}", adopted.err);
    for part in ["core: { tag: 200 }", "dmz: {}", "web1:", "mac: \"52:54:00:00:00:07\"", "10.0.0.254/24"] {
        assert!(adopted.out.contains(part), "{part}\n{}", adopted.out);
    }
    // From here on it is an experiment like any other; nothing was restarted on the way.
    assert_eq!(pids(), before);
    let edited = adopted.out.replace("role: web", "role: front");
    lab.file("b.yaml", &edited);
    lab.run(&["apply", "--yes", "b.yaml"]).ok();
    assert_eq!(pids(), before);
    lab.run(&["destroy", "--yes", "b.yaml"]).ok();
    assert!(lab.rows("namespace").iter().all(|row| row[0] != "lab"));
}

#[test]
fn a_script_becomes_a_file_that_makes_the_same() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.file("lab.mm", SCRIPT);
    lab.run(&["import", "lab.mm", "--out", "lab.yaml"]).ok();
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    let shown = |lab: &Lab| {
        let mut rows = lab.rows("namespace lab .columns name,state,memory,vcpus,vlan vm info");
        rows.sort();
        rows
    };
    let applied = shown(&lab);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    let by_hand = Lab::with_daemon();
    by_hand.file("lab.mm", SCRIPT);
    by_hand.run(&["run", "lab.mm"]).ok();
    assert_eq!(shown(&by_hand), applied);
    by_hand.e("clear namespace lab").ok();
}

#[test]
fn refusals_say_why() {
    let lab = Lab::new();
    lab.file("two.mm", "vm launch kvm a\nnamespace b vm launch kvm b\n");
    lab.run(&["import", "two.mm"]).fails("choose with --namespace");
    let b = lab.run(&["import", "two.mm", "--namespace", "b"]).ok();
    assert!(b.out.contains("experiment: b\n"), "{}", b.out);
    lab.run(&["import", "two.mm", "--adopt"]).fails("--adopt");
    lab.run(&["import", "gone.mm"]).fails("gone.mm");
    lab.run(&["import", "lab"]).fails("no daemon at");
    lab.file("version.mm", "version\n");
    lab.run(&["import", "version.mm"]).fails("makes no VM, VLAN or tap");
}

#[test]
fn what_is_sensitive_is_in_a_saved_plan_for_its_owner_alone_and_not_shown() {
    use std::os::unix::fs::PermissionsExt as _;
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::new();
    let text = "experiment: lab\nvariables: { pw: { type: string, sensitive: true } }\n\
        vms: { a: { memory: 32, state: paused, tags: { pw: \"{{ var.pw }}\" } } }\n";
    lab.file("lab.yaml", text);
    let planned = lab.run(&["plan", "lab.yaml", "--out", "lab.plan", "--var", "pw=hunter2-hunter2"]).ok();
    assert!(!planned.out.contains("hunter2"), "{}", planned.out);
    let saved = lab.folder.path().join("lab.plan");
    let mode = std::fs::metadata(&saved).expect("it was saved").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    lab.run(&["apply", "lab.plan", "--yes", "--var", "pw=x"]).fails("--var");
    for how in [&["apply", "--yes", "lab.plan"][..], &["apply", "--yes", "--json", "lab.plan"]] {
        let applied = lab.run(how).ok();
        assert!(!applied.out.contains("hunter2") && !applied.err.contains("hunter2"), "{}{}", applied.out, applied.err);
        assert_eq!(lab.rows("namespace lab .columns name vm info"), [["a"]]);
        assert!(lab.e("namespace lab vm tag a pw").ok().out.contains("hunter2-hunter2"));
        lab.run(&["destroy", "--yes", "--experiment", "lab"]).ok();
    }
}
