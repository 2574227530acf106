//! `prevent_destroy`, `ignore_changes`, `renamed_from`.

use super::*;

const LAB: &str = r#"
experiment: lab
vlans: { dmz: {}, core: {} }
vms:
  db:
    memory: 64
    networks: [core]
    disks: [db.qcow2]
    snapshot: false
    lifecycle: { prevent_destroy: true }
  "web[0-2]": { memory: 64, networks: [dmz, core], kernel: vmlinuz, tags: { role: web, tier: front } }
taps:
  mgmt: { vlan: dmz, lifecycle: { prevent_destroy: true } }
"#;

fn edit(text: &str, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn up(text: &str) -> (Minimega, File) {
    let (mm, lab) = (Minimega::default(), file(text));
    converge(&mm, &lab);
    (mm, lab)
}

fn problems(mm: &Minimega, file: &File, destroy: bool) -> String {
    let options = Options { destroy, ..Options::new(&file.sources, Advice::default()) };
    let PlanError::Blocked { problems } =
        plan(&file.experiment, &file.graph, &live(mm, file), &options).expect_err("it is protected");
    crate::diagnostic::render(&problems, &file.sources, false)
}

#[test]
fn what_must_not_go_stops_the_plan_and_names_the_field_that_asks_for_it() {
    let (mm, lab) = up(LAB);
    // Live changes are no harm.
    converge(&mm, &file(&edit(LAB, &[("networks: [core]", "networks: [dmz]")])));
    converge(&mm, &lab);
    let more = file(&edit(LAB, &[("  db:\n    memory: 64", "  db:\n    memory: 128")]));
    let said = problems(&mm, &more, false);
    assert!(said.contains("vm.db is to be replaced, which `prevent_destroy` forbids: memory: 64 -> 128  (lab.yaml:6)"));
    assert!(said.contains("lab.yaml:10:") && said.contains("`--exclude vm.db`"), "{said}");
    let moved = file(&edit(LAB, &[("mgmt: { vlan: dmz", "mgmt: { vlan: core")]));
    let said = problems(&mm, &moved, false);
    assert!(said.contains("tap.mgmt is to be replaced") && said.contains("vlan: dmz (101) -> core (102)"), "{said}");
    let said = problems(&mm, &lab, true);
    assert!(said.contains("vm.db is to be destroyed") && said.contains("tap.mgmt is to be destroyed"), "{said}");
    // A VM that failed has nothing to lose.
    mm.0.lock().unwrap().namespaces.get_mut("lab").unwrap().vms.get_mut("db").unwrap().state = 16;
    assert_eq!(actions(&planned(&mm, &lab)), ["≠ vm.db"]);
}

#[test]
fn ignored_fields_cause_no_change_and_the_others_still_do() {
    let ignoring = |fields: &str| {
        edit(LAB, &[("tier: front } }", &format!("tier: front }}, lifecycle: {{ ignore_changes: {fields} }} }}"))])
    };
    for (field, from, to) in [
        ("memory", "\"web[0-2]\": { memory: 64", "\"web[0-2]\": { memory: 96"),
        ("kernel", "kernel: vmlinuz", "kernel: other"),
        ("networks", "networks: [dmz, core], k", "networks: [dmz], k"),
        ("\"networks[1]\"", "networks: [dmz, core], k", "networks: [dmz, { vlan: dmz, driver: virtio-net-pci }], k"),
        ("tags.tier", "tier: front", "tier: back"),
        ("tags", "role: web, tier: front", "role: x, other: y"),
        ("state", "kernel: vmlinuz", "kernel: vmlinuz, state: paused"),
    ] {
        let ignored = ignoring(field);
        let edited = edit(&ignored, &[(from, to)]);
        // Launched with the field ignored: an edit of it does nothing at all.
        let (mm, _) = up(&ignored);
        assert!(planned(&mm, &file(&edited)).is_empty(), "{field}:\n{}", text(&planned(&mm, &file(&edited))));
        // An edit of another field still replaces.
        let other = edit(&edited, &[("\"web[0-2]\": { ", "\"web[0-2]\": { vcpus: 2, ")]);
        assert_eq!(actions(&planned(&mm, &file(&other))), ["-/+ vm.web0", "-/+ vm.web1", "-/+ vm.web2"], "{field}");
        // Ignored since, in the same edit: nothing restarts, and then nothing is left to do.
        let (mm, _) = up(LAB);
        let commands = converge(&mm, &file(&edited));
        assert!(commands.iter().all(|c| c.starts_with("vm tag")), "{field}: {commands:?}");
        // No longer ignored: what the file says now holds.
        let (mm, _) = up(&ignored);
        let free = edit(LAB, &[(from, to)]);
        assert!(!converge(&mm, &file(&free)).is_empty(), "{field}");
        let (mm, _) = up(&ignored);
        let commands = converge(&mm, &file(LAB));
        assert!(commands.iter().all(|c| c.starts_with("vm tag")), "{field}: {commands:?}");
    }
}

#[test]
fn ignored_drift_stays() {
    let text =
        edit(LAB, &[("tier: front } }", "tier: front }, lifecycle: { ignore_changes: [state, \"networks[0]\"] } }")]);
    let (mm, lab) = up(&text);
    mm.by_hand("namespace lab vm kill web0");
    mm.by_hand("namespace lab vm net disconnect web1 0");
    assert!(planned(&mm, &lab).is_empty());
    mm.by_hand("namespace lab vm net disconnect web2 1");
    assert_eq!(converge(&mm, &lab), ["vm net connect web2 1 core"]);
    // What is missing is made as the file says.
    mm.by_hand("namespace lab vm flush web0");
    assert!(converge(&mm, &lab).contains(&"vm start web0".to_owned()));
}

#[test]
fn a_renamed_vm_is_one_change_with_its_cost() {
    let (mm, _) = up(LAB);
    let renamed = edit(
        LAB,
        &[
            ("\"web[0-2]\"", "\"www[1-3]\""),
            ("tier: front } }", "tier: front }, lifecycle: { renamed_from: \"web[0-2]\" } }"),
            ("kernel: vmlinuz", "kernel: other"),
        ],
    );
    let lab = file(&renamed);
    let plan = planned(&mm, &lab);
    assert_eq!(actions(&plan), ["-/+ vm.www1", "-/+ vm.www2", "-/+ vm.www3"]);
    assert_eq!(plan.changes[0].renamed_from.as_ref().map(ToString::to_string).as_deref(), Some("vm.web0"));
    assert_eq!(plan.changes[0].costs, [Cost::Reboot]);
    let shown = text(&plan);
    assert!(shown.contains("# -/+ vm.www[1-3] replace, renamed from vm.web[0-2]  (lab.yaml:11)\n"), "{shown}");
    assert!(shown.contains("#       kernel: /base/files/vmlinuz -> other"), "{shown}");
    let launch = plan.steps.iter().find(|s| s.command.contains("vm launch")).unwrap();
    let flush = plan.steps.iter().find(|s| s.command.contains("vm flush web[0-2]")).unwrap();
    let config = plan.steps.iter().find(|s| s.command.ends_with("clear vm config")).unwrap();
    assert!(config.needs.contains(&flush.id) && launch.needs[0] > config.id, "{launch:?}");
    let commands = converge(&mm, &lab);
    assert_eq!(commands[..2], ["vm kill web[0-2]", "vm flush web[0-2]"]);
    // The key may stay: the old ones are gone.
    assert!(planned(&mm, &lab).is_empty());
    // Protection holds for what a VM was, too.
    let protected = edit(
        &renamed,
        &[
            ("  db:\n", "  store:\n"),
            ("prevent_destroy: true }\n  \"", "prevent_destroy: true, renamed_from: db }\n  \""),
        ],
    );
    let said = problems(&mm, &file(&protected), false);
    assert!(said.contains("vm.store is to be made anew for vm.db, which `prevent_destroy` forbids"), "{said}");
}
