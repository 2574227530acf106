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
fn nics_are_added_to_a_guest_that_runs_unless_something_hidden_differs() {
    let lab =
        |web: &str| file(&format!("experiment: lab\nvlans: {{ lan: }}\nvms: {{ web: {{ memory: 64, {web} }} }}\n"));
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab("disks: [\"disk.qcow2,virtio\"], networks: [lan]"), &mut known);
    let two = lab("disks: [\"disk.qcow2,virtio\"], networks: [lan, lan]");
    assert_eq!(changes(&mm, &two, &mut known), ["vm net add web lan", "vm tag web megaform.digest WHOLE"]);
    // Cut off before the tag was set.
    let three = lab("disks: [\"disk.qcow2,virtio\"], networks: [lan, lan, { vlan: lan, connected: false }]");
    mm.by_hand("namespace lab vm net add web lan");
    assert_eq!(changes(&mm, &three, &mut known), ["vm net disconnect web 2", "vm tag web megaform.digest WHOLE"]);
    // No target shows which interface the file gave.
    let other = lab("disks: [disk.qcow2], networks: [lan, lan, { vlan: lan, connected: false }, lan]");
    let plan = learned(&mm, &other, &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ vm.web"]);
    let said = text(&plan);
    assert!(said.contains("the target does not show") && said.contains("networks[3]"), "{said}");
    apply(&mm, &other, &mut known);
}

#[test]
fn with_anything_else_that_only_a_launch_sets_the_vm_is_replaced() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab(", cdrom: a.iso"), &mut known);
    for edit in [", cdrom: b.iso, vcpus: 2", ", cdrom: c.iso, vcpus: 4, networks: [lan]", ", cdrom: d.iso, vcpus: 3"] {
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

fn with_usb(disks: &str) -> File {
    file(&format!(
        "experiment: lab\nvms:\n  \"web[0-1]\": {{ memory: 64, usb_disks: [{disks}] }}\n  db: {{ memory: 64 }}\n"
    ))
}

fn usb(mm: &Minimega) -> Vec<String> {
    let state = mm.0.lock().unwrap();
    let disks = state.network.usb.iter().flat_map(|((_, vm), disks)| {
        disks.iter().map(move |(id, disk)| format!("{vm} {id} {}", disk.join(" ").trim_end()))
    });
    disks.collect()
}

fn plugged(mm: &Minimega, file: &File, known: &mut Advice) -> Vec<String> {
    let tags = |command: &String| !command.contains("vm config") && !command.contains(" megaform.usb");
    apply(mm, file, known).into_iter().filter(tags).collect()
}

#[test]
fn usb_disks_are_there_before_the_guest_starts_and_followed_from_then_on() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    let two = with_usb("a.img, { path: /usb/b.img, version: 1.1, serial: S1 }");
    assert_eq!(
        plugged(&mm, &two, &mut known),
        [
            "vm launch kvm db",
            "vm start db",
            "vm launch kvm web[0-1]",
            "vm hotplug add web[0-1] a.img",
            "vm hotplug add web[0-1] /usb/b.img serial S1 1.1",
            "vm start web[0-1]",
        ]
    );
    // By hand it is drift, and what the file does not have goes.
    mm.by_hand("namespace lab vm hotplug remove web1 0");
    mm.by_hand("namespace lab vm hotplug add db /theirs.img");
    let plan = learned(&mm, &two, &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ vm.db", "≠ vm.web1"]);
    assert!(
        text(&plan).contains("usb_disks[0]: nothing -> a.img") && text(&plan).contains("/theirs.img"),
        "{}",
        text(&plan)
    );
    let commands = plugged(&mm, &two, &mut known);
    assert_eq!(commands, ["vm hotplug remove db 0", "vm hotplug add web1 a.img"]);
    // An edit is none; another serial number is another disk.
    let other = with_usb("{ path: /usb/b.img, version: 1.1, serial: S2 }");
    let plan = learned(&mm, &other, &known, false).unwrap();
    assert_eq!(actions(&plan), ["~ vm.web0", "~ vm.web1"]);
    assert!(text(&plan).contains("usb_disks[0].serial: another -> S2"), "{}", text(&plan));
    plugged(&mm, &other, &mut known);
    assert_eq!(usb(&mm), ["web0 0 /usb/b.img 1.1 S2", "web1 0 /usb/b.img 1.1 S2"]);
    // Another version too.
    plugged(&mm, &with_usb("{ path: /usb/b.img, version: 2.0 }"), &mut known);
    assert_eq!(usb(&mm), ["web0 0 /usb/b.img 2.0", "web1 0 /usb/b.img 2.0"]);
    let commands = plugged(&mm, &with_usb(""), &mut known);
    assert_eq!(commands, ["vm hotplug remove web[0-1] 0"]);
    assert!(!mm.0.lock().unwrap().namespaces["lab"].vms["web0"].tags.contains_key("megaform.usb"));
}

#[test]
fn usb_disks_need_a_target_that_has_them() {
    let (mm, known) = (Minimega::default(), Advice::default());
    mm.0.lock().unwrap().network.fixed_media = true;
    let Err(PlanError::Blocked { problems }) = learned(&mm, &with_usb("a.img"), &known, false) else {
        panic!("it was planned")
    };
    let said: Vec<_> = problems.iter().map(|problem| (problem.code, problem.message.clone())).collect();
    assert_eq!(said, [("target-lacks", "vm.web0 takes `vm hotplug`, which the target does not have".to_owned())]);
    // Without disks nothing is missing.
    assert!(learned(&mm, &with_usb(""), &known, false).is_ok());
}

#[test]
fn what_is_ignored_of_usb_disks_stays() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    let ignored =
        file("experiment: lab\nvms: { web0: { usb_disks: [a.img], lifecycle: { ignore_changes: [usb_disks] } } }\n");
    apply(&mm, &ignored, &mut known);
    mm.by_hand("namespace lab vm hotplug remove web0 all");
    mm.by_hand("namespace lab vm hotplug add web0 /theirs.img");
    assert!(learned(&mm, &ignored, &known, false).unwrap().is_empty());
}

/// Ended after any command, the next plan does the rest, from where it is there and back.
#[test]
fn usb_disks_that_were_cut_off_anywhere_converge() {
    let lists = [
        "a.img",
        "a.img, /b.img",
        "{ path: a.img, serial: S1 }, c.img",
        "{ path: a.img, serial: S2, version: 1.1 }",
        "",
    ];
    for (old, new) in lists.iter().flat_map(|old| lists.map(|new| (*old, new))).filter(|(old, new)| old != new) {
        let (mm, mut known) = (Minimega::default(), Advice::default());
        apply(&mm, &with_usb(old), &mut known);
        let steps = learned(&mm, &with_usb(new), &known, false).unwrap().steps;
        for done in 0..=steps.len() {
            for to in [new, old] {
                let (mm, mut known) = (Minimega::default(), Advice::default());
                apply(&mm, &with_usb(old), &mut known);
                for step in &steps[..done] {
                    mm.clone().call(&step.command).unwrap();
                }
                apply(&mm, &with_usb(to), &mut known);
                let (straight, mut none) = (Minimega::default(), Advice::default());
                apply(&straight, &with_usb(to), &mut none);
                let contents = |mm: &Minimega| {
                    let mut disks: Vec<String> = usb(mm);
                    disks.iter_mut().for_each(|disk| {
                        let mut words: Vec<&str> = disk.split(' ').collect();
                        words.remove(1);
                        *disk = words.join(" ");
                    });
                    disks.sort();
                    disks
                };
                assert_eq!(contents(&mm), contents(&straight), "{old} -> {new}, cut off after {done}, then {to}");
            }
        }
    }
}
