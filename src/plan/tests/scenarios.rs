//! What a user does, and what the plan then is.

use super::*;

const LAB: &str = r#"
experiment: dmz-lab
vlans: { dmz: {}, core: { tag: 200 } }
profiles:
  linux: { type: kvm, memory: 256, kernel: /k/vmlinuz, initrd: /k/tiny.cpio.gz }
vms:
  "web[0-2]": { profile: linux, networks: [dmz], tags: { role: web } }
  fw:
    profile: linux
    networks: [dmz, { vlan: core, mac: "52:54:00:00:00:01", driver: virtio-net-pci }]
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }
"#;

fn edit(text: &str, from: &str, to: &str) -> File {
    assert!(text.contains(from), "{from}");
    file(&text.replace(from, to))
}

/// A lab that is up.
fn up(text: &str) -> (Minimega, File) {
    let (mm, lab) = (Minimega::default(), file(text));
    converge(&mm, &lab);
    mm.take_log();
    (mm, lab)
}

#[test]
fn a_nic_that_is_not_plugged_in() {
    let lab = |nics: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms: {{ \"a[0-1]\": {{ networks: [lan, {nics}] }} }}\n"
        ))
    };
    let mm = Minimega::default();
    let cut = lab("{ vlan: lan, connected: false }");
    let sent = converge(&mm, &cut);
    // Before the guest could see it.
    let order = ["vm launch kvm a[0-1]", "vm net disconnect a[0-1] 1", "vm start a[0-1]"];
    assert_eq!(sent.iter().filter(|c| order.contains(&c.as_str())).collect::<Vec<_>>(), order);
    let sent = converge(&mm, &lab("lan"));
    assert_eq!((sent.len(), &*sent[0]), (2, "vm net connect a[0-1] 1 lan"));
    assert!(sent[1].starts_with("vm tag a[0-1] megaform.digest v1:"), "{sent:#?}");
    let plan = planned(&mm, &cut);
    assert_eq!(plan.changes[0].reasons[0].field, "networks[1].connected");
    assert_eq!((plan.changes[0].action, &plan.changes[0].costs[..]), (Action::Update, &[Cost::LinkCut][..]));
    assert_eq!(converge(&mm, &cut)[0], "vm net disconnect a[0-1] 1");
    // Plugged in by hand it is taken out again; a NIC that is added is plugged in, so this one takes a launch.
    mm.by_hand("namespace lab vm net connect a1 1 lan");
    assert_eq!(planned(&mm, &cut).changes[0].action, Action::Restore);
    assert_eq!(converge(&mm, &cut), ["vm net disconnect a1 1"]);
    mm.by_hand("namespace lab vm net disconnect a1 0");
    assert_eq!(planned(&mm, &cut).changes[0].action, Action::Restore);
    assert_eq!(converge(&mm, &cut), ["vm net connect a1 0 lan"]);
    assert!(planned(&mm, &lab("lan, { vlan: lan, connected: false }")).learn.is_empty());
}

#[test]
fn blacklisted_tags_are_asked_for_and_never_taken_off() {
    let lab = |list: &str| {
        file(&format!("experiment: lab\nvlans: {{ lan: {{}} }}\n{list}vms: {{ a: {{ networks: [lan] }} }}\n"))
    };
    let mm = Minimega::default();
    mm.by_hand("namespace lab vlans blacklist 7");
    let one = lab("vlan_blacklist: [7, 100-101]\n");
    let sent = |file: &File| {
        let made = super::networks::learned(&mm, file, &Advice::default(), false).unwrap();
        carry_out(&mm, &made);
        made.steps.iter().filter(|s| s.command.contains("blacklist")).map(|s| s.command.clone()).collect::<Vec<_>>()
    };
    assert_eq!(sent(&one), ["namespace lab vlans blacklist 100", "namespace lab vlans blacklist 101"]);
    assert!(super::networks::learned(&mm, &one, &Advice::default(), false).unwrap().is_empty());
    // The aliases come after it.
    assert_eq!(sent(&lab("vlan_blacklist: 100-102\n")), ["namespace lab vlans blacklist 102"]);
    assert_eq!(sent(&lab("")), [""; 0]);
    assert_eq!(mm.0.lock().unwrap().network.blacklist.len(), 4);
}

#[test]
fn create_from_nothing() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let plan = planned(&mm, &lab);
    insta::assert_snapshot!(text(&plan));
    carry_out(&mm, &plan);
    assert!(planned(&mm, &lab).is_empty());
    assert_eq!(text(&planned(&mm, &lab)).lines().last(), Some("No changes. dmz-lab matches its file."));
}

#[test]
fn same_inputs_same_bytes_and_order_of_keys_does_not_matter() {
    let mm = Minimega::default();
    let reordered = r#"
taps: { mgmt: { ip: 10.0.0.254/24, vlan: dmz } }
vms:
  fw: { networks: [dmz, { driver: virtio-net-pci, vlan: core, mac: "52:54:00:00:00:01" }], profile: linux }
  "web[0-2]": { tags: { role: web }, networks: [dmz], profile: linux }
profiles: { linux: { initrd: /k/tiny.cpio.gz, kernel: /k/vmlinuz, memory: 256, type: kvm } }
vlans: { core: { tag: 200 }, dmz: {} }
experiment: dmz-lab
"#;
    let lab = file(LAB);
    let first = planned(&mm, &lab);
    assert_eq!(text(&first), text(&planned(&mm, &file(LAB))));
    assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&planned(&mm, &lab)).unwrap());
    let commands = |p: &Plan| p.steps.iter().map(|s| s.command.clone()).collect::<Vec<_>>();
    assert_eq!(commands(&first), commands(&planned(&mm, &file(reordered))));
    converge(&mm, &lab);
    assert!(planned(&mm, &file(reordered)).is_empty());
}

#[test]
fn a_nic_moves_with_one_command_and_the_same_process() {
    let (mm, _) = up(LAB);
    let pid = mm.0.lock().unwrap().namespaces["dmz-lab"].vms["web1"].pid;
    let moved = edit(
        LAB,
        "\"web[0-2]\": { profile: linux, networks: [dmz]",
        "\"web[0-2]\": { profile: linux, networks: [core]",
    );
    let plan = planned(&mm, &moved);
    assert_eq!(actions(&plan), ["~ vm.web0", "~ vm.web1", "~ vm.web2"]);
    assert_eq!(plan.changes[0].costs, [Cost::LinkCut]);
    assert_eq!(converge(&mm, &moved), ["vm net connect web[0-2] 0 core"]);
    assert_eq!(mm.0.lock().unwrap().namespaces["dmz-lab"].vms["web1"].pid, pid);
}

#[test]
fn memory_replaces_just_that_vm() {
    let (mm, _) = up(LAB);
    let edited = edit(LAB, "  fw:\n    profile: linux", "  fw:\n    profile: linux\n    memory: 512");
    let plan = planned(&mm, &edited);
    assert_eq!(actions(&plan), ["-/+ vm.fw"]);
    assert_eq!(plan.changes[0].costs, [Cost::Reboot]);
    insta::assert_snapshot!(text(&plan));
    converge(&mm, &edited);
}

#[test]
fn a_vm_killed_by_hand_comes_back() {
    let (mm, lab) = up(LAB);
    mm.by_hand("namespace dmz-lab vm kill web1");
    let plan = planned(&mm, &lab);
    assert_eq!(actions(&plan), ["≠ vm.web1"]);
    assert_eq!(converge(&mm, &lab), ["vm start web1"]);
    mm.by_hand("namespace dmz-lab vm kill web1");
    mm.by_hand("namespace dmz-lab vm flush web1");
    assert_eq!(actions(&planned(&mm, &lab)), ["+ vm.web1"]);
    converge(&mm, &lab);
}

#[test]
fn a_nic_moved_by_hand_is_drift() {
    let (mm, lab) = up(LAB);
    mm.by_hand("namespace dmz-lab vm net disconnect web0 0");
    mm.by_hand("namespace dmz-lab vm net connect fw 1 77 br7");
    let plan = planned(&mm, &lab);
    assert_eq!(actions(&plan), ["≠ vm.fw", "≠ vm.web0"]);
    assert_eq!(plan.changes[1].costs, [], "a link that is down already is not cut");
    assert!(text(&plan).contains("#\n# drift (no edit of the file):\n#   ≠ vm.fw"), "{}", text(&plan));
    assert!(text(&plan).contains("networks[0].vlan: disconnected -> dmz (101)"), "{}", text(&plan));
    assert_eq!(converge(&mm, &lab), ["vm net connect web0 0 dmz", "vm net connect fw 1 core mega_bridge"]);
}

#[test]
fn tags_come_change_and_go_and_foreign_ones_stay() {
    let (mm, _) = up(LAB);
    mm.by_hand("namespace dmz-lab vm tag web0 guest said-so");
    let edited = edit(LAB, "tags: { role: web }", "tags: { tier: front }");
    assert_eq!(
        converge(&mm, &edited),
        ["vm tag web[0-2] megaform.tags tier=2d8d6931", "vm tag web[0-2] tier front", "clear vm tag web[0-2] role"]
    );
    let bare = edit(LAB, ", tags: { role: web }", "");
    assert_eq!(converge(&mm, &bare), ["clear vm tag web[0-2] megaform.tags", "clear vm tag web[0-2] tier"]);
    assert_eq!(mm.0.lock().unwrap().namespaces["dmz-lab"].vms["web0"].tags["guest"], "said-so");
}

#[test]
fn a_tag_changed_by_hand_is_drift_and_one_of_the_file_is_not() {
    let (mm, lab) = up(LAB);
    mm.by_hand("namespace dmz-lab vm tag web0 role hand");
    mm.by_hand("namespace dmz-lab clear vm tag web1 role");
    let plan = planned(&mm, &lab);
    assert_eq!(actions(&plan), ["≠ vm.web0", "≠ vm.web1"]);
    let shown = text(&plan);
    assert!(shown.contains("#\n# drift (no edit of the file):\n#   ≠ vm.web0"), "{shown}");
    assert!(shown.contains("tags.role: hand -> web  (lab.yaml:"), "{shown}");
    assert_eq!(converge(&mm, &lab), ["vm tag web1 role web", "vm tag web0 role web"]);
    // What the file changes is an edit, whatever somebody did before; what was changed besides is told apart.
    mm.by_hand("namespace dmz-lab vm tag web0 role hand");
    let edited = edit(LAB, "tags: { role: web }", "tags: { role: front }");
    assert_eq!(actions(&planned(&mm, &edited)), ["~ vm.web0", "~ vm.web1", "~ vm.web2"]);
    assert!(planned(&mm, &edited).changes.iter().flat_map(|c| &c.reasons).all(|reason| !reason.drift));
    let more = edit(LAB, "tags: { role: web }", "tags: { role: web, tier: front }");
    let plan = planned(&mm, &more);
    let drift = |change: &Change| change.reasons.iter().map(|r| (r.field.clone(), r.drift)).collect::<Vec<_>>();
    assert_eq!(drift(&plan.changes[0]), [("tags.role".to_owned(), true), ("tags.tier".to_owned(), false)]);
    assert_eq!((plan.changes[0].action, drift(&plan.changes[1]).len()), (Action::Update, 1));
    // An ignored tag leaves no digest that an edit of it would change.
    let ignored = |value: &str| {
        let tags = format!("tags: {{ role: {value}, tier: t }}, lifecycle: {{ ignore_changes: [tags.role] }}");
        edit(LAB, "tags: { role: web }", &tags)
    };
    converge(&mm, &ignored("web"));
    assert!(planned(&mm, &ignored("other")).is_empty());
}

#[test]
fn a_list_of_keys_without_digests_is_as_good() {
    let (mm, lab) = up(LAB);
    // As the first builds wrote it.
    mm.by_hand("namespace dmz-lab vm tag web[0-2] megaform.tags role");
    assert!(planned(&mm, &lab).is_empty());
    // Nothing tells whether the file or somebody changed it; what sets the tag completes the list.
    mm.by_hand("namespace dmz-lab vm tag web0 role hand");
    let plan = planned(&mm, &lab);
    assert_eq!(actions(&plan), ["~ vm.web0"]);
    assert_eq!(converge(&mm, &lab), ["vm tag web0 megaform.tags role=4b5e57f6", "vm tag web0 role web"]);
    mm.by_hand("namespace dmz-lab vm tag web0 role hand");
    assert_eq!(actions(&planned(&mm, &lab)), ["≠ vm.web0"]);
    // What ends a VM that has such a list finds the keys in it.
    let bare = edit(LAB, ", tags: { role: web }", "");
    converge(&mm, &bare);
    assert!(mm.0.lock().unwrap().namespaces["dmz-lab"].vms.values().all(|vm| !vm.tags.contains_key("role")));
}

#[test]
fn many_tags_make_no_line_too_long() {
    let key = |i: usize| format!("key-{i}{}", "k".repeat(55));
    let tags: String = (0..260).map(|i| format!("{}: v, ", key(i))).collect();
    let many = edit(LAB, "tags: { role: web }", &format!("tags: {{ {tags} }}"));
    let (mm, _) = up(LAB);
    converge(&mm, &many);
    let seen = mm.0.lock().unwrap().namespaces["dmz-lab"].vms["web0"].tags["megaform.tags"].clone();
    // Digests would add 9 bytes for each.
    assert!(seen.len() < 63 * 260 && seen.contains(&key(7)), "{seen}");
    assert!(planned(&mm, &many).is_empty());
    mm.by_hand(&format!("namespace dmz-lab vm tag web0 {} hand", key(7)));
    assert_eq!(actions(&planned(&mm, &many)), ["~ vm.web0"]);
}

#[test]
fn a_command_that_no_target_takes_is_refused_before_anything_is_done() {
    let long = edit(LAB, "role: web", &format!("role: {}", "x".repeat(65_536)));
    let refused = plan(&long.experiment, &long.graph, &Live::absent(), &options(&long, &Advice::default()));
    let Err(PlanError::Blocked { problems }) = refused else { panic!("there is a plan") };
    let said: Vec<_> = problems.iter().map(|problem| (problem.code, problem.message.as_str())).collect();
    let message = "the command `namespace dmz-lab vm config tags …` of vm.web0 (lab.yaml:7) is 65574 bytes \
                   long, and the limit is 65536";
    assert_eq!(said, [("command-too-long", message)]);
}

#[test]
fn no_reason_is_a_digest() {
    let (mm, lab) = up(LAB);
    mm.by_hand("namespace dmz-lab clear vm tag web0 megaform.digest");
    mm.by_hand("namespace dmz-lab vm tag web1 megaform.digest v1:0123");
    mm.by_hand("namespace dmz-lab clear vm tag web2 megaform.tags");
    mm.by_hand("namespace dmz-lab clear vm tag fw megaform.digest");
    mm.by_hand("namespace dmz-lab vm net connect fw 0 core");
    let plan = planned(&mm, &lab);
    let fields: Vec<_> = plan.changes.iter().flat_map(|c| &c.reasons).map(|r| r.field.as_str()).collect();
    assert_eq!(fields, ["networks[0].vlan", "tags.megaform.digest", "tags.megaform.digest", "tags.megaform.tags"]);
    for reason in plan.changes.iter().flat_map(|c| &c.reasons) {
        let said = format!("{:?} {:?}", reason.old, reason.new);
        assert!(!said.contains("v1:"), "{said}");
    }
    let shown = text(&plan);
    assert!(shown.contains("not recorded what it was launched from -> recorded as the file has it"), "{shown}");
    converge(&mm, &lab);
}

#[test]
fn paused_and_running() {
    let (mm, _) = up(LAB);
    let paused = edit(LAB, "tags: { role: web }", "tags: { role: web }, state: paused");
    assert_eq!(converge(&mm, &paused), ["vm stop web[0-2]"]);
    assert_eq!(converge(&mm, &file(LAB)), ["vm start web[0-2]"]);
    // A paused VM that ended cannot be started without running.
    converge(&mm, &paused);
    mm.by_hand("namespace dmz-lab vm kill web2");
    let plan = planned(&mm, &paused);
    assert_eq!(actions(&plan), ["≠ vm.web2"]);
    assert!(!plan.steps.iter().any(|s| s.command.contains("vm start")));
    converge(&mm, &paused);
}

#[test]
fn a_vm_in_error_is_launched_again_and_says_why() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    mm.0.lock().unwrap().broken.insert("web1".into(), "qemu: no such file\n".into());
    for step in &planned(&mm, &lab).steps {
        use crate::wire::Transport;
        if !step.command.contains("vm start") {
            mm.clone().call(&step.command).unwrap();
        }
    }
    mm.0.lock().unwrap().broken.clear();
    let plan = planned(&mm, &lab);
    assert!(actions(&plan).contains(&"≠ vm.web1".to_owned()));
    assert!(text(&plan).contains("state: error: qemu: no such file -> running"), "{}", text(&plan));
    assert!(!plan.steps.iter().any(|s| s.command.contains("vm kill")), "a VM in error has nothing to kill");
    converge(&mm, &lab);
}

#[test]
fn a_vm_that_leaves_the_file_is_destroyed() {
    let (mm, _) = up(LAB);
    let fewer = edit(LAB, "web[0-2]", "web[0-0]");
    let plan = planned(&mm, &fewer);
    assert_eq!(actions(&plan), ["- vm.web1", "- vm.web2"]);
    assert!(text(&plan).contains("#   - vm.web[1-2] destroy\n#       vms: not in the file\n"), "{}", text(&plan));
    assert_eq!(converge(&mm, &fewer), ["vm kill web[1-2]", "vm flush web[1-2]"]);
}

#[test]
fn what_others_made_stays() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    mm.by_hand("namespace dmz-lab vm launch kvm other");
    mm.by_hand("namespace dmz-lab tap create 9 name theirs");
    let plan = planned(&mm, &lab);
    assert!(plan.notes.iter().any(|n| n == "unmanaged VMs are left alone: other"), "{:?}", plan.notes);
    assert!(plan.notes.iter().any(|n| n.contains("theirs")));
    carry_out(&mm, &plan);
    let destroy = planned_destroy(&mm, &lab, Advice::default());
    carry_out(&mm, &destroy);
    let state = mm.0.lock().unwrap();
    assert_eq!(state.namespaces["dmz-lab"].vms.keys().collect::<Vec<_>>(), ["other"]);
    assert_eq!(state.namespaces["dmz-lab"].taps.keys().collect::<Vec<_>>(), ["theirs"]);
    assert!(destroy.notes.iter().any(|n| n.contains("stays") && n.contains("vm.other") && n.contains("tap.theirs")));
}

#[test]
fn a_foreign_vm_of_the_same_name_blocks_until_adopted() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    mm.by_hand("namespace dmz-lab vm config kernel /k/vmlinuz");
    mm.by_hand("namespace dmz-lab vm config initrd /k/tiny.cpio.gz");
    mm.by_hand("namespace dmz-lab vm config memory 256");
    mm.by_hand("namespace dmz-lab vm config networks dmz");
    mm.by_hand("namespace dmz-lab vm launch kvm web0");
    let error = plan(&lab.experiment, &lab.graph, &live(&mm, &lab), &options(&lab, &Advice::default())).unwrap_err();
    let PlanError::Blocked { problems } = error;
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.contains("`web0`") && problems[0].span.is_some());
    let adopt = "namespace dmz-lab vm tag web0 megaform.experiment dmz-lab";
    assert!(problems[0].hint.as_ref().unwrap().contains(adopt));
    mm.by_hand(adopt);
    let plan = planned(&mm, &lab);
    assert!(actions(&plan).contains(&"~ vm.web0".to_owned()));
    assert!(!plan.steps.iter().any(|s| s.command.contains("flush")), "an equal VM is adopted as it runs");
    converge(&mm, &lab);
}

#[test]
fn destroy_leaves_nothing() {
    let (mm, lab) = up(LAB);
    let plan = planned_destroy(&mm, &lab, Advice::default());
    insta::assert_snapshot!(text(&plan));
    carry_out(&mm, &plan);
    assert!(mm.0.lock().unwrap().namespaces.is_empty());
    assert!(planned_destroy(&mm, &lab, Advice::default()).is_empty());
    // Looking at it did not create it again.
    assert!(mm.0.lock().unwrap().namespaces.is_empty());
}

#[test]
fn taps_change_and_the_journal_tells_which_are_ours() {
    let (mm, lab) = up(LAB);
    let moved = edit(LAB, "mgmt: { vlan: dmz,", "mgmt: { vlan: core,");
    assert_eq!(converge(&mm, &moved), ["tap delete mgmt", "tap create core ip 10.0.0.254/24 mgmt"]);
    let bridged = edit(LAB, "ip: 10.0.0.254/24 }", "bridge: br5 }");
    assert_eq!(converge(&mm, &bridged), ["tap delete mgmt", "tap create dmz bridge br5 name mgmt"]);
    converge(&mm, &lab);
    // The target does not show addresses: only the journal knows that this one changed.
    let other = edit(LAB, "10.0.0.254/24", "10.0.0.1/24");
    assert!(planned(&mm, &other).is_empty());
    let taps = [("mgmt".to_owned(), TapAdvice { address: Some("10.0.0.254/24".into()), dhcp: false })];
    let advice = Advice { taps: taps.into(), ..Advice::default() };
    let planned_other = plan(&other.experiment, &other.graph, &live(&mm, &other), &options(&other, &advice)).unwrap();
    assert_eq!(actions(&planned_other), ["~ tap.mgmt"]);
    // A target that shows them needs no journal; with it, a change by hand is told from one in the file.
    mm.0.lock().unwrap().shows_addresses = true;
    mm.by_hand("namespace dmz-lab tap delete mgmt");
    mm.by_hand("namespace dmz-lab tap create dmz ip 10.9.9.9/24 mgmt");
    let restored = plan(&lab.experiment, &lab.graph, &live(&mm, &lab), &options(&lab, &advice)).unwrap();
    assert_eq!(actions(&restored), ["≠ tap.mgmt"]);
    assert_eq!(converge(&mm, &other), ["tap delete mgmt", "tap create dmz ip 10.0.0.1/24 mgmt"]);
    // Without the tap in the file: unmanaged without the journal, removed with it.
    let gone = edit(LAB, "taps:\n  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }\n", "");
    assert!(planned(&mm, &gone).is_empty());
    let removed = plan(&gone.experiment, &gone.graph, &live(&mm, &gone), &options(&gone, &advice)).unwrap();
    assert_eq!(actions(&removed), ["- tap.mgmt"]);
}

#[test]
fn an_alias_gets_its_tag_and_its_links_follow() {
    let (mm, _) = up(LAB);
    let retagged = edit(LAB, "core: { tag: 200 }", "core: { tag: 201 }");
    assert_eq!(converge(&mm, &retagged), ["clear vlans core", "vlans add core 201", "vm net connect fw 1 core"]);
    // Two aliases that swap tags are both unbound before either is bound.
    let two = LAB.replace("dmz: {}", "dmz: { tag: 300 }");
    converge(&mm, &file(&two));
    let swapped =
        file(&two.replace("tag: 300", "tag: X").replace("tag: 200", "tag: 300").replace("tag: X", "tag: 200"));
    let commands = converge(&mm, &swapped);
    let back = text(&planned(&mm, &file(&two)));
    assert!(back.contains("networks[0].vlan: dmz (200) -> dmz (300)"), "{back}");
    let freed = edit(&two, "dmz: { tag: 300 }, core: { tag: 200 }", "dmz: {}, core: { tag: 200 }");
    let freed = text(&planned(&mm, &freed));
    assert!(freed.contains("networks[0].vlan: dmz (200) -> dmz (a new tag)"), "{freed}");
    assert_eq!(
        commands[..5],
        ["tap delete mgmt", "clear vlans core", "clear vlans dmz", "vlans add core 300", "vlans add dmz 200"]
    );
}

#[test]
fn an_alias_is_not_unbound_at_the_cost_of_others() {
    let (mm, _) = up(LAB);
    mm.by_hand("namespace dmz-lab vlans add core2 900");
    mm.by_hand("namespace dmz-lab vm config networks core");
    mm.by_hand("namespace dmz-lab vm launch kvm other");
    let retagged = edit(LAB, "core: { tag: 200 }", "core: { tag: 201 }");
    let error =
        plan(&retagged.experiment, &retagged.graph, &live(&mm, &retagged), &options(&retagged, &Advice::default()))
            .unwrap_err();
    let PlanError::Blocked { problems } = error;
    let codes: Vec<_> = problems.iter().map(|p| p.code).collect();
    assert_eq!(codes, ["vlan-prefix", "vlan-in-use"]);
    assert!(problems[0].message.contains("core2") && problems[1].message.contains("vm.other"));
}

#[test]
fn links_left_behind_by_clear_vlans_are_restored() {
    let (mm, lab) = up(LAB);
    mm.by_hand("namespace dmz-lab clear vlans dmz");
    mm.by_hand("namespace dmz-lab vlans add other 101");
    converge(&mm, &lab);
    let state = mm.0.lock().unwrap();
    let ns = &state.namespaces["dmz-lab"];
    assert!(ns.vms.values().all(|vm| vm.nics[0].vlan == ns.vlans["dmz"]));
    assert_eq!(ns.taps["mgmt"].vlan, ns.vlans["dmz"]);
}

#[test]
fn a_range_of_tags_is_set_before_the_first_alias() {
    let (mm, lab) = (Minimega::default(), edit(LAB, "vlans: { dmz: {}", "vlan_range: [300, 310]\nvlans: { dmz: {}"));
    let commands = converge(&mm, &lab);
    assert_eq!(commands[0], "vlans range 300 310");
    assert_eq!(mm.0.lock().unwrap().namespaces["dmz-lab"].vlans["dmz"], 300);
}

#[test]
fn dependencies_come_up_first_in_one_launch_each() {
    let text = r#"
experiment: deps
vms:
  "z[0-1]": { memory: 64 }
  "a[0-2]": { memory: 64, depends_on: ["z[0-1]"] }
  b: { memory: 64, depends_on: [a1] }
"#;
    let (mm, lab) = (Minimega::default(), file(text));
    let plan = planned(&mm, &lab);
    let order: Vec<&str> = plan
        .steps
        .iter()
        .filter(|s| s.command.contains("launch") || s.command.contains("start"))
        .map(|s| s.command.strip_prefix("namespace deps vm ").unwrap())
        .collect();
    assert_eq!(
        order,
        ["launch kvm z[0-1]", "start z[0-1]", "launch kvm a[0-2]", "start a[0-2]", "launch kvm b", "start b"]
    );
    let id = |text: &str| plan.steps.iter().find(|s| s.command.ends_with(text)).unwrap().id;
    let first_of_a = plan.steps.iter().find(|s| s.id > id("start z[0-1]")).unwrap();
    assert!(first_of_a.needs.contains(&id("start z[0-1]")), "{first_of_a:?}");
    carry_out(&mm, &plan);
    // A dependency that stopped and a dependent that is missing: the start comes first.
    mm.by_hand("namespace deps vm kill a1");
    mm.by_hand("namespace deps vm kill b");
    mm.by_hand("namespace deps vm flush b");
    let commands = converge(&mm, &lab);
    assert_eq!(commands[0], "vm start a1");
    assert!(commands.contains(&"vm launch kvm b".to_owned()));
}

#[test]
fn a_thousand_vms_take_tens_of_commands() {
    let mut text = "experiment: big\nvms:\n".to_owned();
    for i in 0..10 {
        text.push_str(&format!("  \"g{i}-[0-99]\": {{ memory: {}, networks: [lan] }}\n", 100 + i));
    }
    text.push_str("vlans: { lan: {} }\n");
    let (mm, lab) = (Minimega::default(), file(&text));
    let plan = planned(&mm, &lab);
    assert_eq!(plan.changes.len(), 1000);
    println!("1,000 VMs of 10 configurations: {} commands", plan.steps.len());
    assert!(plan.steps.len() < 100, "{} commands", plan.steps.len());
    assert!(super::text(&plan).lines().count() < 150);
    converge(&mm, &lab);
}

#[test]
fn long_targets_are_split() {
    let names: Vec<String> = (0..600).map(|i| format!("node-with-a-long-name-{}-x", i * 7)).collect();
    let mut text = "experiment: long\nvms:\n".to_owned();
    for name in &names {
        text.push_str(&format!("  {name}: {{ memory: 64 }}\n"));
    }
    let (mm, lab) = (Minimega::default(), file(&text));
    let plan = planned(&mm, &lab);
    assert!(plan.steps.iter().all(|s| s.command.len() < 4096));
    assert!(plan.steps.iter().filter(|s| s.command.contains("vm launch")).count() > 1);
    converge(&mm, &lab);
}

#[test]
fn values_are_quoted() {
    let text = r##"
experiment: quoting
vms:
  a: { kernel: "/k/with space", append: 'console=ttyS0 x="a b" #c', tags: { note: "he said \"hi\" # not a comment" } }
"##;
    let (mm, lab) = (Minimega::default(), file(text));
    converge(&mm, &lab);
    let state = mm.0.lock().unwrap();
    let vm = &state.namespaces["quoting"].vms["a"];
    assert_eq!(vm.config["kernel"], ["/k/with space"]);
    assert_eq!(vm.tags["note"], "he said \"hi\" # not a comment");
}

#[test]
fn a_live_object_cannot_forge_a_line_of_the_plan() {
    let (mm, lab) = up(LAB);
    mm.0.lock()
        .unwrap()
        .namespaces
        .get_mut("dmz-lab")
        .unwrap()
        .vms
        .get_mut("web0")
        .unwrap()
        .tags
        .insert("role".into(), "x\nclear namespace all".into());
    let text = text(&planned(&mm, &lab));
    assert!(!text.lines().any(|l| l.starts_with("clear namespace")), "{text}");
}

#[test]
fn json_is_versioned() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let json: serde_json::Value = serde_json::to_value(planned(&mm, &lab)).unwrap();
    assert_eq!(json["format"], 2);
    assert_eq!(json["summary"]["create"], 6);
    let first = &json["steps"][0];
    assert_eq!(first["command"], "namespace dmz-lab vlans add core 200");
    assert_eq!(first["addresses"][0], "vlan.core");
    let step = json["changes"].as_array().unwrap().iter().find(|c| c["address"] == "vm.fw").unwrap();
    assert_eq!(step["action"], "create");
    assert_eq!(step["place"]["line"], 8);
}

#[test]
fn drift_stands_apart_from_edits() {
    let (mm, _) = up(LAB);
    mm.by_hand("namespace dmz-lab vm kill web1");
    mm.by_hand("namespace dmz-lab vm net disconnect web2 0");
    mm.by_hand("namespace dmz-lab vm launch kvm other");
    let plan = planned(&mm, &edit(LAB, "tags: { role: web }", "tags: { role: front }"));
    insta::assert_snapshot!(text(&plan));
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["unmanaged"], serde_json::json!(["vm.other"]));
}

#[test]
fn a_destroy_goes_backwards() {
    let text = r#"
experiment: deps
vlans: { lan: {} }
vms:
  "z[0-1]": { memory: 64, networks: [lan] }
  "a[0-2]": { memory: 64, depends_on: ["z[0-1]"] }
  b: { memory: 64, depends_on: [a1] }
taps: { t: { vlan: lan } }
"#;
    let (mm, lab) = up(text);
    let plan = planned_destroy(&mm, &lab, Advice::default());
    assert_eq!(
        actions(&plan),
        ["- vm.b", "- vm.a0", "- vm.a1", "- vm.a2", "- vm.z0", "- vm.z1", "- tap.t", "- vlan.lan"]
    );
    let commands: Vec<&str> = plan.steps.iter().map(|s| s.command.trim_start_matches("namespace deps ")).collect();
    assert_eq!(
        commands,
        [
            "vm kill b",
            "vm kill a[0-2]",
            "vm kill z[0-1]",
            "vm flush a[0-2],b,z[0-1]",
            "tap delete t",
            "clear namespace deps"
        ]
    );
    assert_eq!(plan.steps[1].after, [1], "what depends goes first");
    carry_out(&mm, &plan);
    assert!(mm.0.lock().unwrap().namespaces.is_empty());
}

#[test]
fn a_plan_as_a_picture() {
    let (mm, _) = up(LAB);
    let edited = edit(LAB, "  fw:\n    profile: linux", "  fw:\n    profile: linux\n    memory: 512");
    let flow = picture::flow(&planned(&mm, &edited));
    insta::assert_snapshot!(format!("{}\n{}", flow.dot(), flow.mermaid()));
}
