//! Media of VMs that run.

use super::networks::{apply, learned};
use super::*;
use crate::wire::Transport;

fn lab(web: &str) -> File {
    file(&format!(
        "experiment: lab\nvms:\n  \"web[0-2]\": {{ memory: 64, disks: [disk.qcow2]{web} }}\n  db: {{ memory: 64, cdrom: /iso/db.iso }}\n"
    ))
}

fn digest(command: &str) -> String {
    let mut words: Vec<&str> = command.split(' ').collect();
    if let Some(last) = words.last_mut().filter(|last| last.starts_with("v1:")) {
        *last = if last.ends_with("!cdrom") { "WITHOUT" } else { "WHOLE" };
    }
    words.join(" ")
}

fn changes(mm: &Minimega, file: &File, known: &mut Advice) -> Vec<String> {
    apply(mm, file, known).iter().map(|command| digest(command)).collect()
}

const BETWEEN: &str = "vm tag web[0-2] megaform.digest WITHOUT";
const AFTER: &str = "vm tag web[0-2] megaform.digest WHOLE";

#[test]
fn an_image_is_changed_while_the_guest_runs() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab(""), &mut known);
    let pids = || mm.0.lock().unwrap().namespaces["lab"].vms.values().map(|vm| vm.pid).collect::<Vec<_>>();
    let before = pids();
    let one = lab(", cdrom: /iso/one.iso");
    let plan = learned(&mm, &one, &known, false).unwrap();
    assert_eq!(actions(&plan), ["~ vm.web0", "~ vm.web1", "~ vm.web2"]);
    assert_eq!(plan.changes[0].costs, []);
    let said = text(&plan);
    assert!(said.contains("cdrom:") && said.contains("-> /iso/one.iso") && said.contains("lab.yaml:3"), "{said}");
    assert_eq!(changes(&mm, &one, &mut known), [BETWEEN, "vm cdrom change web[0-2] /iso/one.iso", AFTER]);
    // A relative path is shown in full.
    let two = lab(", cdrom: \"two b.iso\"");
    assert_eq!(changes(&mm, &two, &mut known), [BETWEEN, "vm cdrom change web[0-2] \"two b.iso\"", AFTER]);
    let three = lab(", cdrom: three.iso");
    assert_eq!(changes(&mm, &three, &mut known), [BETWEEN, "vm cdrom change web[0-2] three.iso", AFTER]);
    assert_eq!(changes(&mm, &lab(""), &mut known), [BETWEEN, "vm cdrom eject web[0-2]", AFTER]);
    assert_eq!(before, pids());
}

#[test]
fn with_anything_else_that_only_a_launch_sets_the_vm_is_replaced() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab(", cdrom: a.iso"), &mut known);
    for edit in [", cdrom: b.iso, vcpus: 2", ", cdrom: c.iso, vcpus: 2, networks: [lan]", ", cdrom: d.iso, vcpus: 3"] {
        let edited = file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms: {{ web0: {{ memory: 64, disks: [disk.qcow2]{edit} }} }}\n"
        ));
        let plan = learned(&mm, &edited, &known, false).unwrap();
        let web = plan.changes.iter().find(|change| change.address.name == "web0").unwrap();
        assert_eq!(web.action, Action::Replace);
        assert!(web.reasons.iter().any(|reason| reason.field == "cdrom"), "{:?}", web.reasons);
        apply(&mm, &edited, &mut known);
    }
    // A disk that the target shows with more than the file says.
    let edited = file(
        "experiment: lab\nvlans: { lan: {} }\nvms: { web0: { memory: 64, disks: [\"disk.qcow2,virtio\"], cdrom: e.iso, vcpus: 3 } }\n",
    );
    assert_eq!(actions(&learned(&mm, &edited, &known, false).unwrap()), ["-/+ vm.web0"]);
    // A VM that has ended.
    mm.by_hand("namespace lab vm kill web0");
    let ended = file(
        "experiment: lab\nvlans: { lan: {} }\nvms: { web0: { memory: 64, disks: [disk.qcow2], cdrom: f.iso, vcpus: 3 } }\n",
    );
    let plan = learned(&mm, &ended, &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ vm.web0"]);
}

#[test]
fn a_guest_starts_with_the_medium_that_it_is_to_have() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab(", cdrom: a.iso, state: paused"), &mut known);
    let commands = changes(&mm, &lab(", cdrom: b.iso"), &mut known);
    assert_eq!(commands, [BETWEEN, "vm cdrom change web[0-2] b.iso", "vm start web[0-2]", AFTER]);
    let commands = changes(&mm, &lab(", cdrom: a.iso, state: paused"), &mut known);
    assert!(commands.contains(&"vm stop web[0-2]".to_owned()), "{commands:?}");
}

#[test]
fn what_was_changed_by_hand_is_drift() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    let a = lab(", cdrom: a.iso");
    apply(&mm, &a, &mut known);
    mm.by_hand("namespace lab vm cdrom change web1 /iso/theirs.iso");
    mm.by_hand("namespace lab vm cdrom eject web2");
    let plan = learned(&mm, &a, &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ vm.web1", "≠ vm.web2"]);
    assert!(text(&plan).contains("cdrom: /iso/theirs.iso -> a.iso"), "{}", text(&plan));
    assert_eq!(changes(&mm, &a, &mut known), ["vm cdrom change web2 a.iso", "vm cdrom change web1 a.iso"]);
    // What is ignored stays.
    let ignored = lab(", cdrom: a.iso, lifecycle: { ignore_changes: [cdrom] }");
    apply(&mm, &ignored, &mut known);
    mm.by_hand("namespace lab vm cdrom eject web2");
    assert!(learned(&mm, &ignored, &known, false).unwrap().is_empty());
}

#[test]
fn a_target_without_the_command_launches_anew() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    mm.0.lock().unwrap().network.fixed_media = true;
    apply(&mm, &lab(", cdrom: a.iso"), &mut known);
    let plan = learned(&mm, &lab(", cdrom: b.iso"), &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ vm.web0", "-/+ vm.web1", "-/+ vm.web2"]);
    assert!(text(&plan).contains("the guest reboots"), "{}", text(&plan));
    apply(&mm, &lab(", cdrom: b.iso"), &mut known);
}

/// Ended after any command, with its answer known or not, the next plan goes on, and calls nothing drift.
#[test]
fn cut_off_anywhere_the_rest_is_done() {
    let images = ["/iso/a.iso", "a.iso", "sub/a.iso", "b.iso", ""];
    for (old, new) in images.iter().flat_map(|old| images.map(|new| (*old, new))).filter(|(old, new)| old != new) {
        for done in 0..3 {
            let (mm, mut known) = (Minimega::default(), Advice::default());
            let with = |image: &str| if image.is_empty() { String::new() } else { format!(", cdrom: {image}") };
            apply(&mm, &lab(&with(old)), &mut known);
            let to = lab(&with(new));
            let plan = learned(&mm, &to, &known, false).unwrap();
            if plan.steps.len() != 3 {
                // Shown in full, the old image may be the new one: only a launch makes sure.
                assert!(text(&plan).contains("one of") || text(&plan).contains("tags.megaform.digest"), "{old} {new}");
                continue;
            }
            for step in &plan.steps[..done] {
                mm.clone().call(&step.command).unwrap();
            }
            let rest = learned(&mm, &to, &known, false).unwrap();
            assert!(rest.changes.iter().all(|change| change.action == Action::Update), "{old} {new} {}", text(&rest));
            let commands = changes(&mm, &to, &mut known);
            assert_eq!(commands.last().map(String::as_str), Some(AFTER), "{old} {new}");
            assert!(commands.iter().all(|command| !command.contains("kill")), "{commands:?}");
            // Back again, from there.
            let (mm, mut known) = (Minimega::default(), Advice::default());
            apply(&mm, &lab(&with(old)), &mut known);
            for step in &plan.steps[..done] {
                mm.clone().call(&step.command).unwrap();
            }
            let commands = changes(&mm, &lab(&with(old)), &mut known);
            assert!(commands.iter().all(|command| !command.contains("kill")), "{old} {new} {done} {commands:?}");
        }
    }
}
