//! `--target`, `--exclude`, `--replace`, `--refresh-only`, and what is unchanged.

use super::*;

const LAB: &str = r#"
experiment: lab
vlans: { dmz: {}, core: { tag: 200 }, spare: { tag: 300 } }
vms:
  db: { memory: 64, networks: [core] }
  "web[0-3]": { memory: 64, networks: [dmz], depends_on: db }
  lone: { memory: 64 }
taps:
  mgmt: { vlan: dmz }
"#;

pub fn selectors(texts: &[&str]) -> Vec<Selector> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn chosen(targets: &[&str], excludes: &[&str], replaces: &[&str]) -> Selection {
    Selection { targets: selectors(targets), excludes: selectors(excludes), replaces: selectors(replaces) }
}

fn try_with(mm: &Minimega, file: &File, destroy: bool, selection: Selection) -> Result<Plan, PlanError> {
    let options = Options { destroy, selection, ..Options::new(&file.sources, Advice::default()) };
    plan(&file.experiment, &file.graph, &live(mm, file), &options)
}

fn with(mm: &Minimega, file: &File, destroy: bool, selection: Selection) -> Plan {
    try_with(mm, file, destroy, selection).unwrap()
}

fn problem(result: Result<Plan, PlanError>) -> (String, String) {
    let PlanError::Blocked { problems } = result.unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    (problems[0].message.clone(), problems[0].hint.clone().unwrap_or_default())
}

fn up() -> (Minimega, File) {
    let (mm, lab) = (Minimega::default(), file(LAB));
    converge(&mm, &lab);
    (mm, lab)
}

#[test]
fn what_a_target_needs_comes_along_and_nothing_else() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let plan = with(&mm, &lab, false, chosen(&["vm.web[1-2]"], &[], &[]));
    assert_eq!(actions(&plan), ["+ vlan.core", "+ vm.db", "+ vm.web1", "+ vm.web2"]);
    assert_eq!(
        plan.notes,
        ["only a part is planned and verified: vm.web[1-2]; and what that needs: vlan.core,dmz, vm.db"]
    );
    carry_out(&mm, &plan);
    let again = with(&mm, &lab, false, chosen(&["vm.web[1-2]"], &[], &[]));
    assert!(again.is_empty());
    assert!(text(&again).ends_with("No changes. What is selected of lab matches its file.\n"));
    // The rest comes with the next whole plan.
    assert_eq!(actions(&planned(&mm, &lab)), ["+ vlan.spare", "+ tap.mgmt", "+ vm.lone", "+ vm.web0", "+ vm.web3"]);
    converge(&mm, &lab);
}

#[test]
fn what_needs_an_excluded_object_stays_out() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let plan = with(&mm, &lab, false, chosen(&[], &["vm.db"], &[]));
    assert_eq!(actions(&plan), ["+ vlan.core", "+ vlan.spare", "+ tap.mgmt", "+ vm.lone"]);
    assert_eq!(plan.notes, ["left out of plan and verification: vm.db; and what needs that: vm.web[0-3]"]);
    let plan = with(&mm, &lab, false, chosen(&["vm.web0", "vm.lone"], &["vlan.core"], &[]));
    assert_eq!(actions(&plan), ["+ vm.lone"], "an exclusion wins over a target");
}

#[test]
fn a_destroy_takes_what_needs_a_target_and_spares_what_an_exclusion_needs() {
    let (mm, lab) = up();
    let plan = with(&mm, &lab, true, chosen(&["vm.db"], &[], &[]));
    assert_eq!(plan.changes.len(), 5, "{:?}", actions(&plan));
    assert!(plan.notes[0].ends_with("vm.db; and what needs that: vm.web[0-3]"), "{:?}", plan.notes);
    let plan = with(&mm, &lab, true, chosen(&[], &["vm.web3"], &[]));
    let left: Vec<String> = actions(&plan);
    assert!(!left.contains(&"- vm.db".to_owned()) && left.contains(&"- vm.web0".to_owned()), "{left:?}");
    assert!(!plan.steps.iter().any(|s| s.command.starts_with("clear namespace")), "something stays in it");
    carry_out(&mm, &plan);
    assert_eq!(live(&mm, &lab).vms.keys().collect::<Vec<_>>(), ["db", "web3"]);
}

#[test]
fn the_two_names_of_a_renamed_vm_are_chosen_together() {
    let (mm, _) = up();
    let renamed = LAB.replace("lone: { memory: 64 }", "alone: { memory: 64, lifecycle: { renamed_from: lone } }");
    let lab = file(&renamed);
    for excluded in ["vm.alone", "vm.lone"] {
        let plan = with(&mm, &lab, false, chosen(&[], &[excluded], &[]));
        assert!(plan.is_empty(), "{excluded}: {:?}", actions(&plan));
    }
    for target in ["vm.alone", "vm.lone"] {
        let plan = with(&mm, &lab, false, chosen(&[target], &[], &[]));
        assert_eq!(actions(&plan), ["-/+ vm.alone"], "{target}");
    }
    let plan = with(&mm, &lab, false, chosen(&["vm.db"], &[], &[]));
    assert!(plan.is_empty(), "{:?}", actions(&plan));
    // What is of the old one ends with it, and is not there for the new one.
    let captured = file(
        &format!("{renamed}captures: {{ wire: {{ vm: alone, interface: 0, file: w.pcap }} }}\n")
            .replace("alone: { memory: 64,", "alone: { memory: 64, networks: [dmz],"),
    );
    let plan = with(&mm, &captured, false, chosen(&["vm.alone"], &[], &[]));
    let left = "not selected, so missing from the new vm.alone until planned: capture.wire";
    assert!(plan.notes.iter().any(|note| note == left), "{:?}", plan.notes);
    // Before the rename it is there under its old name, and goes with a destroy of the new one.
    let plan = with(&mm, &lab, true, chosen(&["vm.alone"], &[], &[]));
    assert_eq!(actions(&plan), ["- vm.lone"]);
    let plan = with(&mm, &lab, true, chosen(&[], &["vm.alone"], &[]));
    assert!(!actions(&plan).contains(&"- vm.lone".to_owned()), "{:?}", actions(&plan));
    // Once it is renamed the old name is nobody's.
    converge(&mm, &lab);
    let plan = with(&mm, &lab, false, chosen(&[], &["vm.alone"], &[]));
    assert!(plan.is_empty(), "{:?}", actions(&plan));
}

#[test]
fn replacing_what_could_stay() {
    let (mm, lab) = up();
    let plan = with(&mm, &lab, false, chosen(&[], &[], &["vm.web1", "tap.mgmt"]));
    assert_eq!(actions(&plan), ["-/+ tap.mgmt", "-/+ vm.web1"]);
    assert!(text(&plan).contains("#       --replace: asked for\n#       cost: the guest reboots\n"), "{}", text(&plan));
    let before = live(&mm, &lab).vms["web1"].pid;
    carry_out(&mm, &plan);
    assert_ne!(live(&mm, &lab).vms["web1"].pid, before);
    assert!(planned(&mm, &lab).is_empty());
    // Verifying the same plan does not want to do it again.
    let selection = chosen(&["vm.web1"], &[], &["vm.web1"]);
    let options = Options { verifying: true, selection, ..Options::new(&lab.sources, Advice::default()) };
    assert!(super::super::plan(&lab.experiment, &lab.graph, &live(&mm, &lab), &options).unwrap().is_empty());
    let (message, hint) = problem(try_with(&mm, &lab, false, chosen(&[], &[], &["vlan.core"])));
    assert!(message.contains("cannot be made anew") && hint.contains("tag"), "{message} {hint}");
}

#[test]
fn an_address_of_nothing_is_an_error_with_a_suggestion() {
    let (mm, lab) = up();
    mm.by_hand("namespace lab vm launch kvm other");
    for (address, message, hint) in [
        ("vm.wbe1", "there is no `vm.wbe1`, neither in the file nor live", "did you mean `vm.web1`?"),
        ("vm.web[2-5]", "there is no `vm.web[4-5]`, neither in the file nor live", "did you mean `vm.web0`?"),
        ("vm.mgmt", "there is no `vm.mgmt`, neither in the file nor live", "did you mean `tap.mgmt`?"),
        ("vm.other", "`vm.other` is there but does not belong to experiment `lab`", "megaform leaves"),
        ("vlan.*", "there is no `vlan.*`, neither in the file nor live", "lists every address"),
    ] {
        let (said, advice) = problem(try_with(&mm, &lab, false, chosen(&[address], &[], &[])));
        assert_eq!(said, message);
        assert!(advice.contains(hint), "{address}: {advice}");
    }
    for (text, message) in [
        ("web3", "`web3` does not say of what kind it is, expected KIND.web3, where KIND is placement, vlan, "),
        ("vms.a", "plumbing or command; did you mean `vm.a`?"),
        ("vm.a[3-1]", "`vm.a[3-1]` stands for nothing; the low end of a range comes first, as in web[0-9]"),
        ("vm.a[", "`vm.a[` has no names that can be read"),
    ] {
        let said = text.parse::<Selector>().unwrap_err().to_string();
        assert!(said.contains(message), "{said}");
    }
}

#[test]
fn a_tag_is_not_taken_from_what_is_not_selected() {
    let (mm, _) = up();
    let swapped =
        file(&LAB.replace("tag: 200", "tag: X").replace("tag: 300", "tag: 200").replace("tag: X", "tag: 300"));
    let (message, hint) = problem(try_with(&mm, &swapped, false, chosen(&["vlan.core"], &[], &[])));
    assert_eq!(message, "VLAN alias `core` is to have tag 300, which `spare` holds, and that is not selected");
    assert_eq!(hint, "add `--target vlan.spare`, or leave `vlan.core` out");
    let plan = with(&mm, &swapped, false, chosen(&["vlan.core", "vlan.spare"], &[], &[]));
    assert!(plan.notes.iter().any(|n| n == "not selected, so on the old tag of vlan.core until planned: vm.db"));
    carry_out(&mm, &plan);
    assert_eq!(converge(&mm, &swapped), ["vm net connect db 0 core"]);
}

#[test]
fn drift_alone_and_what_is_unchanged() {
    let (mm, lab) = up();
    let drift = |text: &str| {
        let file = file(text);
        let options = Options { drift_only: true, ..Options::new(&file.sources, Advice::default()) };
        super::super::plan(&file.experiment, &file.graph, &live(&mm, &file), &options).unwrap()
    };
    assert!(text(&drift(LAB)).ends_with("No drift. Nothing of lab was changed since it was applied.\n"));
    mm.by_hand("namespace lab vm kill web0");
    mm.by_hand("namespace lab vm net connect web1 0 core");
    // An edit of the same VM, and one of another, are no drift.
    let edited = LAB
        .replace("networks: [dmz], depends", "networks: [dmz], tags: { role: web }, depends")
        .replace("lone: { memory: 64 }", "lone: { memory: 65 }");
    let plan = drift(&edited);
    assert_eq!(plan.changes.iter().map(|c| c.address.to_string()).collect::<Vec<_>>(), ["vm.web0", "vm.web1"]);
    assert!(plan.steps.is_empty() && !plan.is_empty());
    let shown = text(&plan);
    assert!(!shown.lines().any(|l| l.starts_with("namespace")) && !shown.contains("tags"), "{shown}");
    assert!(shown.ends_with("# Drift: 2 objects changed since it was applied\n"), "{shown}");
    let verbose = Style { target: "t", colour: false, verbose: true };
    let shown = render(&planned(&mm, &lab), verbose);
    assert!(shown.contains("#   = vlan.core,dmz,spare unchanged\n#   = tap.mgmt unchanged\n"), "{shown}");
    assert!(shown.contains("#   = vm.db,lone,web[2-3] unchanged\n"), "{shown}");
}
