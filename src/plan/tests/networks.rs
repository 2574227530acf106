//! Shapes, bridges, ways out, mirrors, captures and dnsmasq servers.

use super::*;
use crate::wire::Transport;

/// Plan with what the target's help says and what a journal would remember, carry it out, and check that nothing is left.
pub fn apply(mm: &Minimega, file: &File, advice: &mut Advice) -> Vec<String> {
    let made = learned(mm, file, advice, false).unwrap();
    carry_out(mm, &made);
    super::properties::remember(advice, &made);
    let again = learned(mm, file, advice, false).unwrap();
    assert!(again.is_empty(), "left to do:\n{}", text(&again));
    let prefix = format!("namespace {} ", made.experiment);
    made.steps.iter().map(|s| s.command.strip_prefix(&prefix).unwrap_or(&s.command).to_owned()).collect()
}

/// Plan as `megaform plan` does: with what the target's help tells.
pub fn learned(mm: &Minimega, file: &File, advice: &Advice, destroy: bool) -> Result<Plan, PlanError> {
    let mut seen = live(mm, file);
    let options = Options { destroy, ..options(file, advice) };
    let made = plan(&file.experiment, &file.graph, &seen, &options)?;
    for command in made.learn {
        crate::live::learn(&mut mm.clone(), &mut seen, &file.experiment.name.value, command).unwrap();
    }
    plan(&file.experiment, &file.graph, &seen, &options)
}

fn without_config(commands: Vec<String>) -> Vec<String> {
    commands.into_iter().filter(|c| !c.contains("vm config")).collect()
}

pub fn megaform() -> Minimega {
    let mm = Minimega::default();
    mm.0.lock().unwrap().network.megaform = true;
    mm
}

fn refused(result: Result<Plan, PlanError>) -> Vec<(&'static str, String)> {
    let Err(PlanError::Blocked { problems }) = result else { panic!("it was planned") };
    problems.into_iter().map(|p| (p.code, p.message)).collect()
}

#[test]
fn many_vms_are_shaped_by_one_command_before_they_start() {
    let lab = |qos: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms:\n  web[0-2]: {{ networks: [{{ vlan: lan{qos} }}] }}\n"
        ))
    };
    let mm = megaform();
    let mut known = Advice::default();
    let made = apply(&mm, &lab(", qos: { rate: 10 mbit, delay: 20 ms, jitter: 5 ms, loss: 0.1 }"), &mut known);
    assert_eq!(
        without_config(made),
        [
            "vm launch kvm web[0-2]",
            "qos set web[0-2] 0 rate=10mbit delay=20ms jitter=5ms loss=0.1",
            "vm start web[0-2]",
        ]
    );
    let commands = apply(&mm, &lab(", qos: { rate: 10 mbit }"), &mut known);
    assert_eq!(commands, ["qos set web[0-2] 0 rate=10mbit"]);
    // By hand it is drift, and an edit is none.
    mm.by_hand("namespace lab clear qos web1 0");
    let plan = learned(&mm, &lab(", qos: { rate: 10 mbit }"), &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ vm.web1"]);
    assert_eq!(apply(&mm, &lab(", qos: { rate: 10 mbit }"), &mut known), ["qos set web1 0 rate=10mbit"]);
    let plan = learned(&mm, &lab(""), &known, false).unwrap();
    assert_eq!(actions(&plan), ["~ vm.web0", "~ vm.web1", "~ vm.web2"]);
    assert_eq!(apply(&mm, &lab(""), &mut known), ["clear qos web[0-2] 0"]);
}

#[test]
fn minimega_sets_one_thing_at_a_time_and_is_asked_no_more() {
    let lab = |qos: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms:\n  fw: {{ networks: [{{ vlan: lan, qos: {{ {qos} }} }}] }}\n"
        ))
    };
    let mm = Minimega::default();
    let mut known = Advice::default();
    for (qos, expected) in [
        (
            "delay: 20 ms, loss: 0.25",
            &["vm launch kvm fw", "qos add fw 0 delay 20ms", "qos add fw 0 loss 0.25", "vm start fw"][..],
        ),
        ("delay: 30 ms, loss: 0.25", &["qos add fw 0 delay 30ms"]),
        ("delay: 30 ms", &["clear qos fw 0", "qos add fw 0 delay 30ms"]),
        ("rate: 1.5 mbit", &["qos add fw 0 rate 1500 kbit"]),
        ("loss: 10", &["qos add fw 0 loss 10"]),
    ] {
        assert_eq!(without_config(apply(&mm, &lab(qos), &mut known)), expected, "{qos}");
    }
    for qos in ["rate: 1 mbit, loss: 1", "delay: 20 ms, jitter: 1 ms"] {
        let problems = refused(learned(&mm, &lab(qos), &known, false));
        assert_eq!(problems[0].0, "qos-unsupported", "{problems:?}");
    }
    // A target that launches it anew shapes it anew.
    let plan = {
        let replace = super::selection::selectors(&["vm.fw"]);
        let (file, seen) = (lab("loss: 10"), live(&mm, &lab("loss: 10")));
        let options =
            Options { selection: Selection { replaces: replace, ..Selection::default() }, ..options(&file, &known) };
        plan(&file.experiment, &file.graph, &seen, &options).unwrap()
    };
    carry_out(&mm, &plan);
    assert!(learned(&mm, &lab("loss: 10"), &known, false).unwrap().is_empty());
}

#[test]
fn a_link_shapes_both_of_its_ends() {
    let lab = file(
        "experiment: lab\nvlans: { lan: {} }\nvms:\n  web[0-1]: { networks: [lan] }\n  db: { networks: [lan] }\n\
         links:\n  a: { ends: [web0.0, db.0], delay: 20 ms, up: { rate: 1 mbit }, down: { rate: 10 mbit } }\n",
    );
    let commands = apply(&megaform(), &lab, &mut Advice::default());
    let shapes: Vec<_> = commands.iter().filter(|c| c.starts_with("qos")).collect();
    assert_eq!(shapes, ["qos set db 0 rate=1mbit delay=20ms", "qos set web0 0 rate=10mbit delay=20ms"]);
    assert!(commands.contains(&"vm launch kvm web1".to_owned()), "{commands:?}");
}

#[test]
fn a_shape_is_taken_back() {
    let lab = |qos: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms:\n  fw: {{ networks: [{{ vlan: lan, qos: {{ {qos} }} }}] }}\n"
        ))
    };
    for mm in [megaform(), Minimega::default()] {
        let mut known = Advice::default();
        apply(&mm, &lab("delay: 20 ms, loss: 1"), &mut known);
        let plan = learned(&mm, &lab("rate: 1 mbit"), &known, false).unwrap();
        carry_out(&mm, &plan);
        for step in plan.steps.iter().rev() {
            for command in step.undo.commands(&plan.experiment).unwrap() {
                mm.clone()
                    .call(&command)
                    .unwrap()
                    .iter()
                    .for_each(|r| assert_eq!(r.errors().next(), None, "{command}"));
            }
        }
        assert!(learned(&mm, &lab("delay: 20 ms, loss: 1"), &known, false).unwrap().is_empty());
    }
}

const TWO: &str =
    "experiment: lab\nvlans: { lan: {} }\nvms:\n  web: { networks: [lan, lan] }\n  ids: { networks: [lan] }\n";

fn lab(rest: &str) -> File {
    file(&format!("{TWO}{rest}"))
}

#[test]
fn captures_start_before_their_guest_and_share_settings() {
    let mm = Minimega::default();
    let mut known = Advice::default();
    let both = "captures:\n  a: { vm: web, file: a.pcap, snaplen: 96 }\n  b: { vm: web, interface: 1, file: /b.pcap, snaplen: 96 }\n";
    let commands = without_config(apply(&mm, &lab(both), &mut known));
    let at = |text: &str| commands.iter().position(|c| c == text).unwrap_or_else(|| panic!("{text}: {commands:?}"));
    assert!(at("vm launch kvm web") < at("capture pcap vm web 0 a.pcap"));
    let start = commands.iter().position(|c| c.starts_with("vm start") && c.contains("web")).unwrap();
    assert!(at("capture pcap vm web 1 /b.pcap") < start, "{commands:?}");
    let settings: Vec<_> = commands.iter().filter(|c| c.contains("snaplen")).collect();
    assert_eq!(settings, ["capture pcap snaplen 96", "capture pcap snaplen 1600"]);
    assert_eq!(mm.0.lock().unwrap().network.captures.iter().map(|c| c.snaplen).collect::<Vec<_>>(), [96, 96]);
    // minimega stops all of a VM at once, so what is left out would be stopped too.
    let moved = lab(&both.replace("/b.pcap", "/new.pcap"));
    let selection = Selection { excludes: super::selection::selectors(&["capture.a"]), ..Selection::default() };
    let options_of = Options { selection, ..options(&moved, &known) };
    let problems = refused(super::super::plan(&moved.experiment, &moved.graph, &live(&mm, &moved), &options_of));
    assert_eq!(problems[0].0, "capture-left-out", "{problems:?}");
    // What stays is started again, and the plan says so.
    let one = lab("captures:\n  a: { vm: web, file: a.pcap, snaplen: 96 }\n");
    let plan = learned(&mm, &one, &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ capture.a", "- capture.b"]);
    assert!(text(&plan).contains("cost: the capture ends and its file begins anew"), "{}", text(&plan));
    assert_eq!(
        apply(&mm, &one, &mut known),
        [
            "capture pcap delete vm web",
            "capture pcap snaplen 96",
            "capture pcap vm web 0 /base/files/a.pcap",
            "capture pcap snaplen 1600"
        ]
    );
    // What an apply that was cut off left set is drift, and nothing starts with it; a value that is not the file's is
    // somebody's own.
    mm.by_hand("namespace lab capture pcap snaplen 96");
    let plan = learned(&mm, &one, &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ capture.a"]);
    assert!(text(&plan).contains("left by an apply that was cut off"), "{}", text(&plan));
    assert_eq!(apply(&mm, &one, &mut known), ["capture pcap snaplen 1600"]);
    mm.by_hand("namespace lab capture pcap snaplen 96");
    let two =
        lab("captures:\n  a: { vm: web, file: a.pcap, snaplen: 96 }\n  c: { bridge: mega_bridge, file: /c.pcap }\n");
    let commands = apply(&mm, &two, &mut known);
    assert_eq!(commands, ["capture pcap snaplen 1600", "capture pcap bridge mega_bridge /c.pcap"]);
    mm.by_hand("namespace lab capture pcap snaplen 77");
    assert!(learned(&mm, &two, &known, false).unwrap().is_empty());
    apply(&mm, &one, &mut known);
    assert_eq!(mm.0.lock().unwrap().network.captures.iter().map(|c| c.snaplen).collect::<Vec<_>>(), [96]);
    mm.by_hand("namespace lab capture pcap snaplen 1600");
    // A VM that is launched anew takes its captures with it.
    let bigger = file(
        &format!("{TWO}captures:\n  a: {{ vm: web, file: a.pcap, snaplen: 96 }}\n")
            .replace("web: {", "web: { memory: 64,"),
    );
    let commands = without_config(apply(&mm, &bigger, &mut known));
    assert_eq!(commands[..2], ["capture pcap delete vm web", "vm kill web"]);
    let selected = |file: &File, targets: &[&str], excludes: &[&str]| {
        let texts = [targets, excludes].map(super::selection::selectors);
        let [targets, excludes] = texts;
        let selection = Selection { targets, excludes, replaces: Vec::new() };
        super::super::plan(
            &file.experiment,
            &file.graph,
            &live(&mm, file),
            &Options { selection, ..options(file, &known) },
        )
    };
    // Without its captures a VM goes on without them, which is said.
    let again = file(
        &format!("{TWO}captures:\n  a: {{ vm: web, file: a.pcap, snaplen: 96 }}\n")
            .replace("web: {", "web: { memory: 65,"),
    );
    let part = selected(&again, &["vm.web"], &[]).unwrap();
    assert!(
        part.notes.contains(&"not selected, so missing from the new vm.web until planned: capture.a".to_owned()),
        "{:?}",
        part.notes
    );
    let gone = text(&learned(&mm, &bigger, &known, true).unwrap());
    assert!(gone.contains("cost: the capture ends\n"), "what goes does not begin anew: {gone}");
    // What somebody else captures of it must not go with ours.
    mm.by_hand("namespace lab capture pcap vm web 1 /theirs.pcap");
    let problems = refused(learned(&mm, &lab(""), &known, false));
    assert_eq!(problems[0].0, "capture-shared", "{problems:?}");
}

#[test]
fn drift_by_hand_is_restored() {
    let rest = "bridges: { br1: { trunks: [e0] } }\n\
                taps: { gw: { vlan: lan, ip: 10.0.0.1/24 } }\n\
                dnsmasq: { lan: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99], leases: [web.0 10.0.0.10] } }\n\
                captures: { every: { bridge: mega_bridge, file: /all.pcap } }\n";
    let mm = Minimega::default();
    let mut known = Advice::default();
    apply(&mm, &lab(rest), &mut known);
    for (by_hand, address) in [
        ("bridge notrunk br1 e0", "bridge.br1"),
        ("dnsmasq kill 0", "dnsmasq.lan"),
        ("capture pcap delete bridge mega_bridge", "capture.every"),
    ] {
        mm.by_hand(&format!("namespace lab {by_hand}"));
        let plan = learned(&mm, &lab(rest), &known, false).unwrap();
        assert_eq!(plan.changes.len(), 1, "{by_hand}: {}", text(&plan));
        assert_eq!(actions(&plan), [format!("≠ {address}")]);
        apply(&mm, &lab(rest), &mut known);
    }
}

#[test]
fn what_is_not_declared_is_not_touched() {
    let mm = Minimega::default();
    let mut known = Advice::default();
    let rest = "bridges: { br1: { trunks: [e0], tunnels: [vxlan 10.9.0.2 7] } }\n";
    mm.by_hand("namespace lab bridge trunk br1 theirs");
    mm.by_hand("namespace lab bridge trunk br2 other");
    mm.by_hand("namespace lab dnsmasq start 10.1.0.1 10.1.0.2 10.1.0.3");
    assert_eq!(
        apply(&mm, &lab(rest), &mut known).iter().filter(|c| c.starts_with("bridge")).collect::<Vec<_>>(),
        ["bridge trunk br1 e0", "bridge tunnel vxlan br1 10.9.0.2 7"]
    );
    let commands = apply(&mm, &lab("bridges: { br1: { tunnels: [vxlan 10.9.0.2 8] } }\n"), &mut known);
    assert_eq!(
        commands,
        ["bridge notrunk br1 e0", "bridge notunnel br1 mega_tunnel0", "bridge tunnel vxlan br1 10.9.0.2 8"]
    );
    let plan = learned(&mm, &lab(""), &known, true).unwrap();
    let touched: Vec<_> =
        plan.steps.iter().filter(|s| s.command.contains("bridge")).map(|s| s.command.clone()).collect();
    assert_eq!(touched, ["namespace lab bridge notunnel br1 mega_tunnel1"]);
    assert!(plan.unmanaged.iter().any(|a| a.to_string() == "dnsmasq.10.1.0.1"), "{:?}", plan.unmanaged);
    carry_out(&mm, &plan);
    assert_eq!(mm.0.lock().unwrap().network.bridges["br1"].trunks, ["theirs"]);
}

#[test]
fn a_server_is_told_what_is_new_and_started_again_for_what_goes() {
    let mm = Minimega::default();
    // Another one has been there, so that the id is not the one that is foreseen.
    mm.by_hand("namespace other dnsmasq start 10.1.0.1 10.1.0.2 10.1.0.3");
    mm.by_hand("namespace other dnsmasq kill 0");
    let mut known = Advice::default();
    let with = |leases: &str| {
        lab(&format!(
            "taps: {{ gw: {{ vlan: lan, ip: 10.0.0.1/24 }} }}\ndnsmasq: {{ lan: {{ address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99], leases: [{leases}], dns: [10.0.0.10 web.lab] }} }}\n"
        ))
    };
    apply(&mm, &with("web.0 10.0.0.10"), &mut known);
    let mac = live(&mm, &with("web.0 10.0.0.10")).vms["web"].nics[0].mac.clone();
    assert_eq!(mm.0.lock().unwrap().network.dnsmasq[&1].leases[&mac], "10.0.0.10");
    let more = apply(&mm, &with("web.0 10.0.0.10, \"52:54:00:00:00:09 10.0.0.12\""), &mut known);
    assert_eq!(more, ["dnsmasq configure 1 ip 52:54:00:00:00:09 10.0.0.12"]);
    let plan = learned(&mm, &with("web.0 10.0.0.10"), &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ dnsmasq.lan"]);
    assert!(text(&plan).contains("cost: the server forgets the addresses it gave out"), "{}", text(&plan));
    apply(&mm, &with("web.0 10.0.0.10"), &mut known);
    // The server goes before the tap that it listens on.
    let moved = TWO.replace("{ lan: {} }", "{ lan: {}, b: {} }");
    let moved = file(&format!(
        "{moved}taps: {{ gw: {{ vlan: b, ip: 10.0.0.1/24 }} }}\ndnsmasq: {{ lan: {{ address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99] }} }}\n"
    ));
    let commands = apply(&mm, &moved, &mut known);
    let at = |text: &str| commands.iter().position(|c| c.starts_with(text)).unwrap();
    assert!(at("dnsmasq kill") < at("tap delete") && at("tap create") < at("dnsmasq start"), "{commands:?}");
}

#[test]
fn mirrors_are_remembered_where_they_are_not_listed() {
    let mm = Minimega::default();
    let mut known = Advice::default();
    let mirror = |from: &str| lab(&format!("mirrors: {{ m: {{ from: {from}, to: ids.0 }} }}\n"));
    let commands = without_config(apply(&mm, &mirror("web.0"), &mut known));
    assert_eq!(commands.last().unwrap(), "tap mirror web 0 ids 0");
    let said = |file: &File| text(&learned(&mm, file, &known, false).unwrap());
    assert!(said(&mirror("web.1")).contains("cost: what passes meanwhile is not mirrored\n"));
    assert!(said(&lab("")).contains("cost: the mirror ends\n"));
    assert_eq!(apply(&mm, &mirror("web.1"), &mut known), ["clear tap mirror ids 0", "tap mirror web 1 ids 0"]);
    assert_eq!(apply(&mm, &lab(""), &mut known), ["clear tap mirror ids 0"]);
}

#[test]
fn a_tap_that_asks_for_its_address() {
    let mm = Minimega::default();
    mm.0.lock().unwrap().shows_addresses = true;
    let mut known = Advice::default();
    let tap = |keys: &str| lab(&format!("taps: {{ t: {{ vlan: lan{keys} }} }}\n"));
    let commands = without_config(apply(&mm, &tap(", dhcp: true"), &mut known));
    assert!(commands.contains(&"tap create lan dhcp t".to_owned()), "{commands:?}");
    // Whatever it was given is as it is to be.
    mm.0.lock().unwrap().namespaces.get_mut("lab").unwrap().taps.get_mut("t").unwrap().ip = "10.0.0.77/24".to_owned();
    assert!(learned(&mm, &tap(", dhcp: true"), &known, false).unwrap().is_empty());
    assert_eq!(apply(&mm, &tap(""), &mut known), ["tap delete t", "tap create lan name t"]);
}

const WAY: &str = "nat: { out: { vlan: lan, ip: 10.0.0.254/24 } }\n";

#[test]
fn a_way_out_is_made_changed_restored_and_closed() {
    let mm = megaform();
    let mut known = Advice::default();
    let commands = without_config(apply(&mm, &lab(WAY), &mut known));
    assert!(commands.contains(&"nat add lan 10.0.0.254/24".to_owned()), "{commands:?}");
    for (rest, action, expected) in [
        // Another address, and another bridge.
        (WAY.replace("254", "253"), "-/+ nat.out", &["nat delete lan mega_bridge", "nat add lan 10.0.0.253/24"][..]),
        (
            WAY.replace(" ip", " bridge: br1, ip"),
            "-/+ nat.out",
            &["nat delete lan mega_bridge", "nat add lan 10.0.0.254/24 br1"],
        ),
        (String::new(), "- nat.out", &["nat delete lan br1"]),
    ] {
        let plan = learned(&mm, &lab(&rest), &known, false).unwrap();
        assert_eq!(actions(&plan), [action], "{rest}");
        assert_eq!(apply(&mm, &lab(&rest), &mut known), expected, "{rest}");
    }
    apply(&mm, &lab(WAY), &mut known);
    mm.by_hand("namespace lab nat delete lan");
    let plan = learned(&mm, &lab(WAY), &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ nat.out"]);
    assert!(text(&plan).contains("nat: gone since it was applied -> made again"), "{}", text(&plan));
    assert_eq!(apply(&mm, &lab(WAY), &mut known), ["nat add lan 10.0.0.254/24"]);
    // The address that somebody else gave it.
    mm.by_hand("namespace lab nat delete lan");
    mm.by_hand("namespace lab nat add lan 10.0.0.7/24");
    let plan = learned(&mm, &lab(WAY), &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ nat.out"]);
    assert!(text(&plan).contains("ip: 10.0.0.7/24 -> 10.0.0.254/24"), "{}", text(&plan));
    apply(&mm, &lab(WAY), &mut known);
}

#[test]
fn a_way_out_follows_its_vlan() {
    let mm = megaform();
    let mut known = Advice::default();
    let on = |tag: &str| file(&format!("experiment: lab\nvlans: {{ lan: {tag}, other: {{}} }}\nvms: {{}}\n{WAY}"));
    apply(&mm, &on("{}"), &mut known);
    // The alias gets another tag in the file.
    let commands = apply(&mm, &on("{ tag: 200 }"), &mut known);
    let at = |text: &str| commands.iter().position(|c| c == text).unwrap_or_else(|| panic!("{text}: {commands:?}"));
    assert!(at("nat delete 101 mega_bridge") < at("nat add lan 10.0.0.254/24"), "{commands:?}");
    assert!(at("vlans add lan 200") < at("nat add lan 10.0.0.254/24"), "{commands:?}");
    // And another one by hand.
    mm.by_hand("namespace lab clear vlans lan");
    mm.by_hand("namespace lab vlans add lan 300");
    let commands = apply(&mm, &on("{}"), &mut known);
    assert_eq!(commands, ["nat delete 200 mega_bridge", "nat add lan 10.0.0.254/24"]);
    // A tag is the alias that has it.
    let tag = file(
        "experiment: lab\nvlans: { lan: { tag: 300 } }\nvms: {}\nnat: { out: { vlan: 300, ip: 10.0.0.254/24 } }\n",
    );
    assert!(learned(&mm, &tag, &known, false).unwrap().is_empty());
}

#[test]
fn ways_out_need_a_target_that_has_them() {
    let mm = Minimega::default();
    // In a namespace that is there, and in one that is not.
    for there in [false, true] {
        if there {
            mm.by_hand("namespace lab vlans add x 9");
        }
        let Err(PlanError::Blocked { problems }) = learned(&mm, &lab(WAY), &Advice::default(), false) else {
            panic!("it was planned")
        };
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert_eq!(problem.code, "target-lacks");
        assert_eq!(lab(WAY).sources.place(problem.span.unwrap()).line, 6);
        assert!(
            problem.message.starts_with("nat.out takes `nat`, which the target does not have"),
            "{}",
            problem.message
        );
    }
    assert!(learned(&mm, &lab(""), &Advice::default(), false).is_ok());
    assert!(learned(&mm, &lab(WAY), &Advice::default(), true).is_ok());
}

#[test]
fn the_way_out_of_somebody_else_stays_and_keeps_the_namespace() {
    let mm = megaform();
    let mut known = Advice::default();
    apply(&mm, &lab(WAY), &mut known);
    mm.by_hand("namespace lab nat add 77 10.1.0.254/24");
    let plan = learned(&mm, &lab(WAY), &known, false).unwrap();
    assert!(plan.is_empty() && plan.unmanaged.iter().any(|a| a.to_string() == "nat.77"), "{}", text(&plan));
    let plan = learned(&mm, &lab(WAY), &known, true).unwrap();
    assert!(text(&plan).contains("namespace lab stays, because it holds what this experiment does not own: nat.77"));
    carry_out(&mm, &plan);
    assert_eq!(mm.0.lock().unwrap().network.nat.len(), 1);
}

#[test]
fn what_is_gone_is_drift_only_where_the_journal_knows_that_it_was_there() {
    let rest =
        "taps: { gw: { vlan: lan, ip: 10.0.0.1/24 } }\ncaptures: { every: { bridge: mega_bridge, file: /all.pcap } }\n";
    let mm = Minimega::default();
    let mut known = Advice::default();
    apply(&mm, &lab(rest), &mut known);
    mm.by_hand("namespace lab capture pcap delete bridge mega_bridge");
    mm.by_hand("namespace lab tap delete gw");
    let both = |rest: &str, known: &Advice| actions(&learned(&mm, &lab(rest), known, false).unwrap());
    assert_eq!(both(rest, &known), ["≠ tap.gw", "≠ capture.every"]);
    // An edit is none, nor is what nobody remembers, nor what was sent without an answer.
    assert_eq!(
        both(&rest.replace("all.pcap", "every.pcap").replace("0.1/24", "0.2/24"), &known),
        ["+ tap.gw", "+ capture.every"]
    );
    assert_eq!(both(rest, &Advice::default()), ["+ tap.gw", "+ capture.every"]);
    known.there.clear();
    assert_eq!(both(rest, &known), ["+ tap.gw", "+ capture.every"]);
    // With the namespace all is new.
    apply(&mm, &lab(rest), &mut known);
    mm.by_hand("clear namespace lab");
    assert!(both(rest, &known).iter().all(|action| action.starts_with('+')), "{:?}", both(rest, &known));
}

#[test]
fn a_configured_bridge_that_left_the_file_goes_with_the_experiment() {
    let mm = Minimega::default();
    let mut known = Advice::default();
    let tap = "taps: { t: { vlan: lan, bridge: br1 } }\n";
    apply(&mm, &lab(&format!("bridges: {{ br1: {{ trunks: [e0], config: {{ mode: fast }} }} }}\n{tap}")), &mut known);
    assert_eq!(apply(&mm, &lab(tap), &mut known), ["bridge notrunk br1 e0"]);
    let plan = learned(&mm, &lab(tap), &known, true).unwrap();
    assert!(actions(&plan).contains(&"- bridge.br1".to_owned()), "{}", text(&plan));
    carry_out(&mm, &plan);
    assert!(!mm.0.lock().unwrap().network.bridges.contains_key("br1"));
}

const PIPELINES: &str = "plumbing:\n  found: { pipeline: [alerts, \"grep -v it's\", urgent] }\n  copy: { pipeline: [lab//urgent, kept, far//all] }\n";

#[test]
fn pipelines_are_made_from_the_reader_on_changed_restored_and_ended() {
    let mm = Minimega::default();
    let mut known = Advice::default();
    let commands = without_config(apply(&mm, &lab(PIPELINES), &mut known));
    // What reads `urgent` is there before what writes it.
    assert_eq!(
        commands[commands.len() - 2..],
        ["plumb lab//urgent kept far//all", "plumb alerts \"grep -v it's\" urgent"]
    );
    let other = PIPELINES.replace("grep -v", "grep");
    let plan = learned(&mm, &lab(&other), &known, false).unwrap();
    assert_eq!(actions(&plan), ["-/+ plumbing.found"]);
    assert!(text(&plan).contains("the programs of the pipeline end"), "{}", text(&plan));
    assert_eq!(
        apply(&mm, &lab(&other), &mut known),
        ["clear plumb lab//alerts \"grep -v it's\" lab//urgent", "plumb alerts \"grep it's\" urgent"]
    );
    // The line is the same and the elements are not, which what was applied tells.
    let split = PIPELINES.replace("\"grep -v it's\"", "grep it's, cat").replace("cat", "\"cat\"");
    apply(&mm, &lab(&split), &mut known);
    let joined = PIPELINES.replace("grep -v it's", "grep it's cat");
    assert_eq!(
        apply(&mm, &lab(&joined), &mut known),
        ["clear plumb lab//alerts \"grep it's cat\" lab//urgent", "plumb alerts \"grep it's cat\" urgent"]
    );
    apply(&mm, &lab(PIPELINES), &mut known);
    // Whoever ended it: it is gone, and so it is when its program ended.
    mm.by_hand("namespace lab clear plumb alerts \"grep -v it's\" urgent");
    let plan = learned(&mm, &lab(PIPELINES), &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ plumbing.found"]);
    assert!(text(&plan).contains("plumbing: gone since it was applied -> made again"), "{}", text(&plan));
    assert_eq!(apply(&mm, &lab(PIPELINES), &mut known), ["plumb alerts \"grep -v it's\" urgent"]);
    // Written otherwise it is the same.
    let whole = PIPELINES.replace("[alerts", "[lab//alerts").replace("lab//urgent, kept", "urgent, lab//kept");
    assert!(learned(&mm, &lab(&whole), &Advice::default(), false).unwrap().is_empty());
    assert_eq!(
        apply(&mm, &lab(""), &mut known),
        [
            "clear plumb lab//urgent lab//kept far//all",
            "clear plumb lab//alerts \"grep -v it's\" lab//urgent",
            // What they made goes with them; the pipe of another namespace is not theirs.
            "clear pipe alerts",
            "clear pipe kept",
            "clear pipe urgent"
        ]
    );
}

#[test]
fn the_pipeline_of_somebody_else_stays_and_keeps_the_namespace() {
    let mm = Minimega::default();
    let mut known = Advice::default();
    apply(&mm, &lab(PIPELINES), &mut known);
    mm.by_hand("namespace lab plumb mine \"sed -u s/a/b/\" alerts");
    let plan = learned(&mm, &lab(PIPELINES), &known, false).unwrap();
    assert!(plan.is_empty(), "{}", text(&plan));
    assert!(text(&plan).contains("unmanaged pipelines are left alone: mine sed -u s/a/b/ alerts"), "{}", text(&plan));
    let plan = learned(&mm, &lab(PIPELINES), &known, true).unwrap();
    assert!(
        text(&plan).contains("namespace lab stays, because it holds what this experiment does not own: plumbing.mine")
    );
    carry_out(&mm, &plan);
    assert_eq!(mm.0.lock().unwrap().network.plumbing["lab"].len(), 1);
}

#[test]
fn pipelines_need_a_target_that_has_them() {
    let mm = Minimega::default();
    mm.0.lock().unwrap().network.absent = true;
    mm.by_hand("namespace lab vlans add lan 101");
    let problems = refused(learned(&mm, &lab(PIPELINES), &Advice::default(), false));
    assert_eq!(problems.len(), 2);
    assert!(
        problems.iter().all(|(code, text)| *code == "target-lacks" && text.contains("takes `plumb`, which the target"))
    );
    assert!(learned(&mm, &lab(PIPELINES), &Advice::default(), true).is_ok());
}

#[test]
fn what_may_be_there_stays_in_doubt_until_it_is_made_or_removed() {
    use super::super::advice::{Answer, Made, Mark};
    let (kind, name) = (Kind::Mirror, "m".to_owned());
    let made = Made { key: "b.0".to_owned(), facts: Default::default() };
    let make = Mark::Make { kind, name: name.clone(), made, new: true, was: None, others: Default::default() };
    let unmake = Mark::Unmake { kind, name: name.clone(), was: None, others: Default::default() };
    let mut advice = Advice::default();
    advice.sent("tap mirror a 0 b 0", Some(&make));
    let in_doubt = |advice: &Advice| advice.unsure.contains(&(kind, name.clone()));
    for (mark, answer, stays) in [
        (&make, Answer::Lost, true),
        (&unmake, Answer::Failed("not there"), true),
        (&unmake, Answer::Lost, true),
        (&unmake, Answer::Done, false),
    ] {
        advice.answered(mark, answer);
        assert_eq!(in_doubt(&advice), stays, "{answer:?}");
    }
    advice.sent("tap mirror a 0 b 0", Some(&make));
    advice.answered(&make, Answer::Failed("no such VM"));
    assert!(!in_doubt(&advice));
}

/// Files of one name in different folders are different captures.
#[test]
fn a_capture_of_somebody_else_with_the_same_name_is_left_alone() {
    let (mm, mut known) = (Minimega::default(), Advice::default());
    let own = "captures: { c: { vm: web, file: x.pcap } }\n";
    apply(&mm, &lab(own), &mut known);
    mm.by_hand("namespace lab capture pcap vm ids 0 /tmp/x.pcap");
    mm.by_hand("namespace lab capture pcap bridge mega_bridge /x.pcap");
    let plan = learned(&mm, &lab(own), &known, false).unwrap();
    assert!(plan.is_empty(), "{}", text(&plan));
    assert!(text(&plan).contains("left alone: /tmp/x.pcap, /x.pcap"), "{}", text(&plan));
    // The same by name, and others by folder.
    let plan = learned(&mm, &lab("captures: { c: { vm: web, file: /base/files/x.pcap } }\n"), &known, false).unwrap();
    assert!(plan.is_empty(), "{}", text(&plan));
    let moved = "captures: { c: { vm: web, file: /y/x.pcap } }\n";
    assert_eq!(apply(&mm, &lab(moved), &mut known), ["capture pcap delete vm web", "capture pcap vm web 0 /y/x.pcap"]);
    assert_eq!(apply(&mm, &lab(""), &mut known), ["capture pcap delete vm web"]);
    // Two of one name in one file.
    let two = "captures: { a: { vm: web, file: x.pcap }, b: { vm: web, interface: 1, file: /z/x.pcap } }\n";
    apply(&mm, &lab(two), &mut known);
    let state = mm.0.lock().unwrap();
    let paths: Vec<&str> = state.network.captures.iter().map(|c| c.path.as_str()).collect();
    assert_eq!(paths, ["/tmp/x.pcap", "/x.pcap", "/base/files/x.pcap", "/z/x.pcap"]);
}

/// The file wants what somebody has made by hand by now, beside the mirror from before.
#[test]
fn a_mirror_from_before_does_not_stay_beside_the_one_that_was_made_by_hand() {
    let mm = megaform();
    let mut known = Advice::default();
    apply(&mm, &lab("mirrors: { m: { from: web.0, to: ids.0 } }\n"), &mut known);
    let edited = lab("mirrors: { m: { from: web.1, to: ids.0 } }\n");
    let mut seen = live(&mm, &edited);
    let mirror = |from: &str| {
        let facts = [("from", from), ("to", "ids.0")].map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
        (format!("ids.0 from {from}"), crate::live::LiveObject { facts: facts.into(), ..Default::default() })
    };
    let planned = |seen: &Live| plan(&edited.experiment, &edited.graph, seen, &options(&edited, &known));
    let learn = |seen: &mut Live| {
        for command in planned(seen).unwrap().learn {
            crate::live::learn(&mut mm.clone(), seen, &edited.experiment.name.value, command).unwrap();
        }
    };
    seen.objects.insert(crate::name::Kind::Mirror, [mirror("web.0"), mirror("web.1")].into());
    learn(&mut seen);
    let made = planned(&seen).unwrap();
    assert_eq!(actions(&made), ["-/+ mirror.m"]);
    let commands: Vec<&str> = made.steps.iter().map(|s| s.command.as_str()).collect();
    assert_eq!(commands, ["namespace lab clear tap mirror ids 0", "namespace lab tap mirror web 1 ids 0"]);
    // A third one is somebody else's, and would end too.
    seen.objects.insert(crate::name::Kind::Mirror, [mirror("web.0"), mirror("web.1"), mirror("other")].into());
    assert_eq!(refused(planned(&seen))[0].0, "mirror-shared");
}
