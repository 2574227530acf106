//! Bonds of NICs.

use super::networks::{apply, learned, megaform};
use super::*;

fn lab(networks: &str, bonds: &str) -> File {
    file(&format!(
        "experiment: lab\nvlans: {{ lan: {{}}, dmz: {{}} }}\nvms:\n  web: {{ networks: [{networks}]{bonds} }}\n  db: {{ networks: [lan] }}\n"
    ))
}

const LANS: &str = "lan, lan, dmz";
const UPLINK: &str = ", bonds: [{ nics: [1, 0], mode: active-backup, name: uplink }]";

fn without_config(commands: Vec<String>) -> Vec<String> {
    commands.into_iter().filter(|c| !c.contains("vm config") && !c.contains("vm tag")).collect()
}

#[test]
fn nics_are_bonded_before_their_guest_starts_and_followed_from_then_on() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    let commands = without_config(apply(&mm, &lab(LANS, UPLINK), &mut known));
    let at =
        |text: &str| commands.iter().position(|c| c.contains(text)).unwrap_or_else(|| panic!("{text}: {commands:?}"));
    assert!(at("vm launch kvm web") < at("vm net bond web 0,1 active-backup off name uplink"));
    assert!(at("vm net bond") < at("vm start web"), "{commands:?}");
    // What the switch lost is made again, and it is called drift.
    mm.by_hand("namespace lab clear vm net bond web uplink");
    let plan = learned(&mm, &lab(LANS, UPLINK), &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ bond.uplink"]);
    let again = apply(&mm, &lab(LANS, UPLINK), &mut known);
    assert_eq!(again, ["vm net bond web 0,1 active-backup off name uplink"]);
    // Another mode, and another name, cut the link; the VM stays as it is.
    let lacp =
        ", bonds: [{ nics: [0, 1], mode: balance-tcp, lacp: passive, fallback: false, qinq: true, name: uplink }]";
    let plan = learned(&mm, &lab(LANS, lacp), &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ bond.uplink"]);
    assert!(text(&plan).contains("mode"), "{}", text(&plan));
    assert_eq!(
        apply(&mm, &lab(LANS, lacp), &mut known),
        ["clear vm net bond web uplink", "vm net bond web 0,1 balance-tcp passive no-lacp-fallback name uplink qinq"]
    );
    let other = lacp.replace("name: uplink", "name: other");
    let commands = apply(&mm, &lab(LANS, &other), &mut known);
    assert_eq!(commands[0], "clear vm net bond web uplink");
    assert!(commands[1].ends_with("name other qinq"), "{commands:?}");
    assert_eq!(apply(&mm, &lab(LANS, ""), &mut known), ["clear vm net bond web other"]);
    assert!(mm.0.lock().unwrap().network.bonds.is_empty());
}

#[test]
fn a_bond_goes_with_its_nics_and_its_vm() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab(LANS, UPLINK), &mut known);
    let bond = "vm net bond web 0,1 active-backup off name uplink";
    // Its NICs move: it is dissolved while they do.
    let commands = apply(&mm, &lab("dmz, dmz, dmz", UPLINK), &mut known);
    assert_eq!(
        commands,
        ["clear vm net bond web uplink", "vm net connect web 0 dmz", "vm net connect web 1 dmz", bond]
    );
    // Another NIC of the VM moves alone.
    assert_eq!(apply(&mm, &lab("dmz, dmz, lan", UPLINK), &mut known), ["vm net connect web 2 lan"]);
    // The VM ends and is started again.
    mm.by_hand("namespace lab vm kill web");
    let commands = apply(&mm, &lab("dmz, dmz, lan", UPLINK), &mut known);
    assert_eq!(commands, ["vm start web", bond]);
    // The VM is launched anew.
    let bigger = UPLINK.to_owned() + ", memory: 64";
    let commands = without_config(apply(&mm, &lab("dmz, dmz, lan", &bigger), &mut known));
    assert_eq!(commands[..3], ["clear vm net bond web uplink", "vm kill web", "vm flush web"]);
    let at = |text: &str| commands.iter().position(|c| c == text).unwrap_or_else(|| panic!("{text}: {commands:?}"));
    assert!(at("vm launch kvm web") < at(bond) && at(bond) < at("vm start web"), "{commands:?}");
    let plan = learned(&mm, &lab("dmz, dmz, lan", &bigger), &known, true).unwrap();
    carry_out(&mm, &plan);
    assert!(mm.0.lock().unwrap().network.bonds.is_empty());
}

#[test]
fn bonds_of_others_are_left_alone() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab(LANS, ""), &mut known);
    mm.by_hand("namespace lab vm net bond web 0,1 active-backup off name theirs");
    let plan = learned(&mm, &lab(LANS, ""), &known, false).unwrap();
    assert!(plan.changes.is_empty(), "{}", text(&plan));
    assert!(text(&plan).contains("unmanaged bonds are left alone: theirs"), "{}", text(&plan));
    let seen = live(&mm, &lab(LANS, ""));
    let found = crate::import::live(&"lab".parse().unwrap(), &seen, &Advice::default());
    assert!(found.notes.iter().any(|note| note.contains("the bond theirs of the VM web")), "{:?}", found.notes);
}

/// What a target tells of a bond is compared setting by setting.
#[test]
fn a_bond_that_was_changed_by_hand_is_restored_with_what_differs() {
    let (mm, mut known) = (megaform(), Advice::default());
    let lab = |bond: &str| lab("lan, lan, lan, dmz", &format!(", bonds: [{{ {bond}, name: uplink }}]"));
    let wanted = lab("nics: [0, 1], mode: balance-slb, lacp: active");
    apply(&mm, &wanted, &mut known);
    let back = ["clear vm net bond web uplink", "vm net bond web 0,1 balance-slb active name uplink"];
    for (by_hand, reasons) in [
        ("0,2 balance-slb active name uplink", vec!["nics 0, 2 -> 0, 1"]),
        ("0,1,2 balance-slb active name uplink", vec!["nics 0, 1, 2 -> 0, 1"]),
        ("0,1 balance-tcp active name uplink", vec!["mode balance-tcp -> balance-slb"]),
        ("0,1 balance-slb passive name uplink", vec!["lacp passive -> active"]),
        ("0,1 balance-slb off name uplink", vec!["lacp  -> active"]),
        ("0,1 balance-slb active no-lacp-fallback name uplink", vec!["fallback false -> "]),
        ("0,1 balance-slb active name uplink qinq", vec!["qinq true -> "]),
        ("1,2 active-backup active name uplink", vec!["mode active-backup -> balance-slb", "nics 1, 2 -> 0, 1"]),
    ] {
        mm.by_hand("namespace lab clear vm net bond web uplink");
        mm.by_hand(&format!("namespace lab vm net bond web {by_hand}"));
        let plan = learned(&mm, &wanted, &known, false).unwrap();
        assert_eq!(actions(&plan), ["≠ bond.uplink"], "{by_hand}");
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let said: Vec<_> = plan.changes[0]
            .reasons
            .iter()
            .map(|r| format!("{} {} -> {}", r.field, text(&r.old), text(&r.new)))
            .collect();
        assert_eq!(said, reasons, "{by_hand}");
        assert!(plan.changes[0].reasons.iter().all(|reason| reason.place.is_some()));
        // The same without a journal is an edit.
        let plan = learned(&mm, &wanted, &Advice::default(), false).unwrap();
        assert_eq!(actions(&plan), ["-/+ bond.uplink"], "{by_hand}");
        assert_eq!(apply(&mm, &wanted, &mut known), back, "{by_hand}");
    }
    // An edit while the bond is as it was made is no drift.
    let plan = learned(&mm, &lab("nics: [0, 1], mode: balance-slb"), &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ bond.uplink"]);
    // A bond of another namespace is none of this one.
    mm.by_hand("namespace other vm config networks lan lan");
    mm.by_hand("namespace other vm launch kvm web");
    mm.by_hand("namespace other vm net bond web 0,1 active-backup off name theirs");
    assert_eq!(live(&mm, &wanted).objects[&crate::name::Kind::Bond].keys().collect::<Vec<_>>(), ["uplink"]);
}

#[test]
fn an_import_of_bonds_plans_to_no_changes() {
    let mm = megaform();
    let group = file(
        "experiment: lab\nvlans: { lan: {} }\nvms:\n  web[0-2]: { networks: [lan, lan, lan, lan], bonds: [{ nics: [0, 1], mode: balance-slb }, { nics: [2, 3], mode: balance-tcp, lacp: passive, fallback: false, qinq: true }] }\n  db: { networks: [lan, lan, lan], bonds: [{ nics: [2, 0], mode: active-backup, name: up }] }\n",
    );
    apply(&mm, &group, &mut Advice::default());
    let imported = |mm: &Minimega| {
        let seen = live(mm, &group);
        let found = crate::import::live(&"lab".parse().unwrap(), &seen, &Advice::default());
        assert_eq!(found.notes, [] as [&str; 0]);
        let written = crate::import::write(&found, "");
        let again = file(&written);
        let plan = plan(&again.experiment, &again.graph, &seen, &options(&again, &Advice::default())).unwrap();
        let bonds: Vec<_> = plan.changes.iter().filter(|c| c.address.kind == crate::name::Kind::Bond).collect();
        assert!(bonds.is_empty(), "{bonds:#?}\n{written}");
        written
    };
    let written = imported(&mm);
    // Equal VMs stay one entry.
    assert!(written.contains("  \"web[0-2]\":\n"), "{written}");
    assert!(
        written.contains("{ nics: [0, 1], mode: balance-slb }, { nics: [2, 3], mode: balance-tcp, lacp: passive, fallback: false, qinq: true }"),
        "{written}"
    );
    assert!(written.contains("{ nics: [0, 2], mode: active-backup, name: up }"), "{written}");
    // By hand they have other names, and are in another order.
    for (nics, name) in [("0,1", "zz"), ("2,3", "aa")] {
        let old = mm.0.lock().unwrap().network.bonds.iter().find(|(_, b)| b.1 == "web1").unwrap().0.clone();
        mm.by_hand(&format!("namespace lab clear vm net bond web1 {old}"));
        if nics == "2,3" {
            mm.by_hand(&format!("namespace lab vm net bond web1 2,3 active-backup off name {name}"));
        }
    }
    mm.by_hand("namespace lab vm net bond web1 0,1 active-backup off name zz");
    let written = imported(&mm);
    assert!(written.contains("  web1:\n") && written.contains("name: aa") && written.contains("name: zz"), "{written}");
}

#[test]
fn what_a_file_cannot_say_of_a_bond_is_a_note() {
    let mm = megaform();
    let lab = lab("lan, lan, lan", "");
    apply(&mm, &lab, &mut Advice::default());
    for (nics, how, why) in [
        (vec![0], "active-backup off", "it has fewer than two NICs"),
        (vec![0, 1], "balance-tcp off", "its mode is balance-tcp, without LACP"),
    ] {
        let bond = ("lab".to_owned(), "web".to_owned(), nics, how.to_owned());
        mm.0.lock().unwrap().network.bonds.insert("odd".to_owned(), bond);
        let found = crate::import::live(&"lab".parse().unwrap(), &live(&mm, &lab), &Advice::default());
        assert_eq!(found.notes, [format!("the bond odd of the VM web is left out: {why}")]);
    }
}

#[test]
fn a_target_without_bonds_is_refused_at_its_place() {
    let mm = Minimega::default();
    mm.0.lock().unwrap().network.old = true;
    let Err(PlanError::Blocked { problems }) = learned(&mm, &lab(LANS, UPLINK), &Advice::default(), false) else {
        panic!("it was planned")
    };
    assert_eq!(problems.iter().map(|p| p.code).collect::<Vec<_>>(), ["target-lacks"]);
    assert_eq!(problems[0].message, "bond.uplink takes `vm net bond`, which the target does not have");
    assert!(problems[0].span.is_some());
}

#[test]
fn bonds_without_a_name_have_one_of_their_own_for_each_vm() {
    let group = |experiment: &str| {
        file(&format!(
            "experiment: {experiment}\nvlans: {{ lan: {{}} }}\nvms:\n  web[0-1]: {{ networks: [lan, lan], bonds: [{{ nics: [0, 1], mode: balance-slb }}] }}\n"
        ))
    };
    let names = |file: &File| {
        let bonds = file.experiment.of(crate::name::Kind::Bond);
        bonds.map(|(name, bond)| (name.to_owned(), bond.one("vm").unwrap().to_owned())).collect::<Vec<_>>()
    };
    let (one, other) = (names(&group("one")), names(&group("other")));
    assert_eq!(one, names(&group("one")));
    assert_eq!(one.len(), 2);
    assert!(one.iter().all(|(name, _)| crate::name::TapName::new(name).is_ok() && !other.iter().any(|o| o.0 == *name)));
    let mm = Minimega::default();
    let commands = apply(&mm, &group("one"), &mut Advice::default());
    assert_eq!(commands.iter().filter(|c| c.starts_with("vm net bond web")).count(), 2, "{commands:?}");
}

#[test]
fn a_nic_does_not_move_while_its_bond_is_left_out() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab(LANS, UPLINK), &mut known);
    let moved = lab("dmz, dmz, dmz", UPLINK);
    let seen = live(&mm, &moved);
    let only = |addresses: &[&str]| {
        let selection = Selection { targets: super::selection::selectors(addresses), ..Selection::default() };
        plan(&moved.experiment, &moved.graph, &seen, &Options { selection, ..options(&moved, &known) })
    };
    let Err(PlanError::Blocked { problems }) = only(&["vm.web"]) else { panic!("it was planned") };
    assert_eq!(problems.iter().map(|p| p.code).collect::<Vec<_>>(), ["bond-left-out"]);
    assert!(problems[0].message.contains("NIC 0 of vm.web"), "{problems:?}");
    carry_out(&mm, &only(&["vm.web", "bond.uplink"]).unwrap());
    assert!(mm.0.lock().unwrap().network.is_bonded("lab", "web", 1));
}

#[test]
fn what_a_bond_of_others_is_in_the_way_of_is_an_error_in_the_plan() {
    let (mm, mut known) = (megaform(), Advice::default());
    apply(&mm, &lab(LANS, ""), &mut known);
    mm.by_hand("namespace lab vm net bond web 0,1 active-backup off name theirs");
    let refused = |file: &File| match learned(&mm, file, &known, false) {
        Err(PlanError::Blocked { problems }) => {
            problems.into_iter().map(|p| format!("{}: {}", p.code, p.message)).collect()
        }
        other => panic!("{other:?}"),
    };
    let said: Vec<String> = refused(&lab("dmz, lan, dmz", ""));
    let left = "which this plan leaves as it is";
    assert_eq!(said, [format!("bond-in-the-way: NIC 0 of vm.web is to move, and is in the bond theirs, {left}")]);
    let said: Vec<String> = refused(&lab(LANS, UPLINK));
    assert_eq!(
        said,
        [format!("bond-in-the-way: bond.uplink is to have a NIC of vm.web that is in the bond theirs, {left}")]
    );
    // One under a name of the file is the file's, and one that ends with its VM is in nobody's way.
    let theirs = UPLINK.replace("uplink", "theirs");
    let plan = learned(&mm, &lab(LANS, &theirs), &known, false).unwrap();
    assert!(plan.is_empty(), "{}", text(&plan));
    let bigger = UPLINK.to_owned() + ", memory: 64";
    apply(&mm, &lab(LANS, &bigger), &mut known);
}

#[test]
fn ignored_bonds_are_left_as_they_are_while_their_vm_runs() {
    let ignoring =
        |networks: &str, bonds: &str| lab(networks, &format!("{bonds}, lifecycle: {{ ignore_changes: [bonds] }}"));
    let wanted = ignoring(LANS, UPLINK);
    let made = "vm net bond web 0,1 active-backup off name uplink";
    for mm in [Minimega::default(), megaform()] {
        let mut known = Advice::default();
        // A new VM is made as the file says.
        assert!(apply(&mm, &wanted, &mut known).contains(&made.to_owned()));
        let unchanged = |file: &File, known: &Advice| {
            let plan = learned(&mm, file, known, false).unwrap();
            assert!(plan.is_empty(), "{}", text(&plan));
        };
        unchanged(&wanted, &known);
        let other = UPLINK.replace("active-backup", "balance-slb");
        for edit in [
            String::new(),
            other.clone(),
            UPLINK.replace("uplink", "other"),
            ", bonds: [{ nics: [0, 1], mode: balance-slb, name: x }]".to_owned(),
        ] {
            unchanged(&ignoring(LANS, &edit), &known);
        }
        mm.by_hand("namespace lab clear vm net bond web uplink");
        unchanged(&wanted, &known);
        mm.by_hand("namespace lab vm net bond web 0,1 balance-slb off name theirs");
        unchanged(&wanted, &known);
        mm.by_hand("namespace lab clear vm net bond web theirs");
        mm.by_hand(&format!("namespace lab {made}"));
        // A NIC that moves takes its bond along, which is made as the file says then.
        let commands = apply(&mm, &ignoring("dmz, dmz, dmz", &other), &mut known);
        assert_eq!(commands[0], "clear vm net bond web uplink");
        assert_eq!(commands[3], "vm net bond web 0,1 balance-slb off name uplink");
        // So is one that ended with its VM.
        mm.by_hand("namespace lab vm kill web");
        let commands = apply(&mm, &ignoring("dmz, dmz, dmz", UPLINK), &mut known);
        assert_eq!(commands, ["vm start web", made]);
        // What was asked for by name is done.
        let file = ignoring("dmz, dmz, dmz", &other);
        let selection = Selection { replaces: vec!["bond.uplink".parse().unwrap()], ..Selection::default() };
        let plan =
            plan(&file.experiment, &file.graph, &live(&mm, &file), &Options { selection, ..options(&file, &known) });
        assert_eq!(actions(&plan.unwrap()), ["-/+ bond.uplink"]);
        let destroy = learned(&mm, &wanted, &known, true).unwrap();
        carry_out(&mm, &destroy);
        assert!(mm.0.lock().unwrap().network.bonds.is_empty());
    }
}

#[test]
fn a_bond_has_a_lifecycle_of_its_own() {
    let (mm, mut known) = (megaform(), Advice::default());
    let lab = |networks: &str, bond: &str, lifecycle: &str| {
        lab(
            networks,
            &format!(", bonds: [{{ nics: [0, 1], name: uplink, mode: {bond}, lifecycle: {{ {lifecycle} }} }}]"),
        )
    };
    let kept = "prevent_destroy: true";
    apply(&mm, &lab(LANS, "active-backup", kept), &mut known);
    let problems = |file: &File, destroy: bool| {
        let Err(PlanError::Blocked { problems }) = learned(&mm, file, &known, destroy) else {
            panic!("it was planned")
        };
        problems.into_iter().map(|p| (p.code, p.span.is_some(), p.message)).collect::<Vec<_>>()
    };
    for (file, destroy, what) in [
        (lab(LANS, "balance-slb", kept), false, "replaced"),
        (lab("dmz, dmz, dmz", "active-backup", kept), false, "replaced"),
        (lab(LANS, "active-backup", kept), true, "destroyed"),
    ] {
        let said = problems(&file, destroy);
        assert_eq!((said.len(), said[0].0, said[0].1), (1, "prevent-destroy", true), "{said:?}");
        assert!(said[0].2.contains(&format!("bond.uplink is to be {what}")), "{said:?}");
    }
    // A field that is ignored changes nothing.
    let plan = learned(&mm, &lab(LANS, "balance-slb", "ignore_changes: mode"), &known, false).unwrap();
    assert!(plan.is_empty(), "{}", text(&plan));
    // The VM's own protects its process and disk, which a bond does not touch.
    let of_vm = ", bonds: [{ nics: [0, 1], name: uplink, mode: balance-slb }], lifecycle: { prevent_destroy: true }";
    let plan = learned(&mm, &super::bonds::lab(LANS, of_vm), &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ bond.uplink"]);
}

#[test]
fn a_mirror_of_a_bonded_nic_follows_its_bond() {
    let mirrored = |nics: &str| {
        let mut text = format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms:\n  web: {{ networks: [lan, lan, lan], bonds: [{{ nics: {nics}, mode: active-backup, name: up }}] }}\n  db: {{ networks: [lan] }}\n"
        );
        text += "mirrors: { m: { from: web.1, to: db.0 } }\n";
        file(&text)
    };
    let needs_the_bond = |file: &File| {
        let plan = learned(&megaform(), file, &Advice::default(), false).unwrap();
        let id = |text: &str| plan.steps.iter().position(|step| step.command.contains(text)).unwrap() + 1;
        plan.steps[id(" tap mirror ") - 1].needs.contains(&id(" vm net bond "))
    };
    assert!(needs_the_bond(&mirrored("[0, 1]")));
    assert!(!needs_the_bond(&mirrored("[0, 2]")));
}

#[test]
fn what_is_of_a_nic_that_is_ignored_and_not_there_is_refused() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    apply(&mm, &lab("lan", ", lifecycle: { ignore_changes: [networks] }"), &mut known);
    let wide = |more: &str, objects: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}}, dmz: {{}} }}\nvms:\n  web: {{ networks: [lan, lan, dmz], lifecycle: {{ ignore_changes: [networks] }}{more} }}\n  db: {{ networks: [lan] }}\n{objects}"
        ))
    };
    for (more, objects, of) in [
        (UPLINK, "", "bond.uplink is of NIC 1 of vm.web"),
        ("", "mirrors: { spy: { from: web.2, to: db.0 } }\n", "mirror.spy is of NIC 2 of vm.web"),
        ("", "captures: { wire: { vm: web, interface: 1, file: /w.pcap } }\n", "capture.wire is of NIC 1 of vm.web"),
    ] {
        let refused = learned(&mm, &wide(more, objects), &known, false).unwrap_err();
        let problems = format!("{refused:?}");
        assert!(problems.contains("missing-nic") && problems.contains(of), "{problems}");
    }
    // The first is there, and what is not ignored comes.
    let first = "captures: { wire: { vm: web, file: /w.pcap } }\n";
    assert_eq!(apply(&mm, &wide("", first), &mut known).len(), 1);
    apply(&mm, &lab(LANS, UPLINK), &mut known);
}
