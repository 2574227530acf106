//! From any experiment to any other and back: each plan converges, and the next one is empty.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

/// One VM of a random experiment, as YAML flow.
fn vm() -> impl Strategy<Value = String> {
    let nic = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("{ vlan: c, driver: virtio-net-pci }".to_owned()),
        Just("{ vlan: a, bridge: br1 }".to_owned()),
        Just("{ vlan: a, qos: { rate: 10 mbit } }".to_owned()),
        Just("{ vlan: b, qos: { delay: 20 ms, loss: 0.1 } }".to_owned()),
        Just("{ vlan: b, qos: { delay: 20 ms } }".to_owned()),
        Just("{ vlan: 77 }".to_owned()),
        Just("{ vlan: a, bridge: br1, connected: false }".to_owned()),
        Just("{ vlan: c, connected: false, qos: { rate: 10 mbit } }".to_owned()),
    ];
    (
        prop_oneof![Just(64), Just(128)],
        proptest::collection::vec(nic, 0..3),
        any::<bool>(),
        prop_oneof![Just(""), Just(", tags: { role: x }"), Just(", tags: { role: y, tier: z }")],
        prop_oneof![
            Just(""),
            Just(", disks: [disk.qcow2]"),
            Just(", disks: [\"disk.qcow2,virtio\"]"),
            Just(", snapshot: false"),
            Just(", cdrom: /iso/a.iso"),
            Just(", cdrom: \"/iso/b c.iso\""),
            Just(", cdrom: a.iso, disks: [disk.qcow2]"),
            Just(", cdrom: b.iso, disks: [disk.qcow2]"),
            Just(", cdrom: b.iso, disks: [other.qcow2]"),
            Just(", usb_disks: [a.img]"),
            Just(", usb_disks: [\"/usb/b c.img\", { path: a.img, version: \"1.1\" }], cdrom: a.iso"),
            Just(", usb_disks: [{ path: a.img, version: \"2.0\", serial: S1 }, \"/usb/c.img\"]"),
            Just(", usb_disks: [{ path: a.img, version: \"2.0\", serial: S2 }]"),
            Just(", qemu_override: [{ match: a, replacement: b }, { match: b, replacement: \"\" }]")
        ],
    )
        .prop_map(|(memory, nics, paused, tags, disks)| {
            let state = if paused { "paused" } else { "running" };
            format!("{{ memory: {memory}, networks: [{}], state: {state}{tags}{disks} }}", nics.join(", "))
        })
}

pub fn experiment() -> impl Strategy<Value = String> {
    let vms = proptest::collection::btree_map("(a|b|c|web|\"web\\[1-3\\]\"|\"n\\[0-4\\]\")", vm(), 0..4);
    let tag = || prop_oneof![Just("{}"), Just("{ tag: 200 }")];
    let other = || prop_oneof![Just("{}"), Just("{ tag: 201 }"), Just("{ tag: 202 }")];
    let tap = prop_oneof![
        Just(""),
        Just("taps: { t0: { vlan: a } }\n"),
        Just("taps: { t0: { vlan: b, ip: 10.0.0.1/24 } }\n"),
        Just("taps: { t0: { vlan: 9, bridge: br2 } }\n"),
    ];
    (vms, tag(), other(), other(), tap, any::<bool>()).prop_map(|(vms, a, b, c, tap, range)| {
        // Two aliases cannot have one tag.
        let c = if b == c { "{}" } else { c };
        let mut text = format!("experiment: random\nvlans: {{ a: {a}, b: {b}, c: {c} }}\n{tap}");
        if range {
            text.push_str("vlan_range: [300, 400]\nvlan_blacklist: [350, 360-362]\n");
        }
        text.push_str("vms:");
        if vms.is_empty() {
            text.push_str(" {}");
        }
        text.push('\n');
        for (name, body) in vms {
            writeln!(text, "  {name}: {body}").unwrap();
        }
        text
    })
}

/// The same with bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines.
fn with_objects() -> impl Strategy<Value = String> {
    let bridge = prop_oneof![
        Just(""),
        Just("bridges: { br1: { trunks: [e0] } }\n"),
        Just("bridges: { br1: { trunks: [e0, e1], config: { mode: fast } } }\n"),
        Just("bridges: { br1: { tunnels: [vxlan 10.9.0.2 7] }, br7: {} }\n"),
        Just("bridges: { br1: { tunnels: [vxlan 10.9.0.2 7, gre 10.9.0.3] } }\n"),
    ];
    let server = prop_oneof![
        Just(""),
        Just("{ s: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.20] } }"),
        Just(
            "{ s: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.20], leases: [x.0 10.7.0.30], dns: [10.7.0.30 x.lab] } }"
        ),
        Just("{ s: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.21], options: [\"option:router,10.7.0.1\"] } }"),
        Just("{ t: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.20], leases: [x.0 10.7.0.30, y.0 10.7.0.31] } }"),
    ];
    let mirror = prop_oneof![
        Just(""),
        Just("mirrors: { m: { from: x.0, to: y.0 } }\n"),
        Just("mirrors: { m: { from: y.0, to: x.0 }, n: { from: x.0, to: y.0 } }\n"),
    ];
    let capture = prop_oneof![
        Just(""),
        Just("captures: { c: { vm: x, file: /c.pcap } }\n"),
        Just(
            "captures: { c: { vm: x, file: c.pcap, snaplen: 96 }, d: { vm: x, file: d.pcap, snaplen: 96, filter: icmp } }\n"
        ),
        Just(
            "captures: { d: { vm: x, file: d.pcap }, e: { bridge: mega_bridge, file: e.pcap }, f: { type: netflow, bridge: mega_bridge, to: \"udp://h:99\", format: raw } }\n"
        ),
        Just(
            "captures: { f: { type: netflow, bridge: mega_bridge, file: f.flow, gzip: true, timeout: 5 }, x: { vm: y, file: /y.pcap } }\n"
        ),
    ];
    let nat = prop_oneof![
        Just(""),
        Just("nat: { out: { vlan: a, ip: 10.7.0.254/24 } }\n"),
        Just("nat: { out: { vlan: a, ip: 10.7.0.253/24 }, far: { vlan: b, bridge: br1, ip: 10.8.0.254/24 } }\n"),
        Just("nat: { way: { vlan: a, ip: 10.7.0.254/24 }, tag: { vlan: 201, ip: 10.8.0.254/24 } }\n"),
        Just("nat: { out: { vlan: c, ip: 10.7.0.254/24 }, both: { vlan: c, bridge: br1, ip: 10.8.0.254/24 } }\n"),
    ];
    let plumbing = prop_oneof![
        Just(""),
        Just("plumbing: { p: { pipeline: [a, b] } }\n"),
        Just("plumbing: { p: { pipeline: [a, sed -u s/x/y/, b] }, q: { pipeline: [b, c] } }\n"),
        Just("plumbing: { q: { pipeline: [a, b] }, r: { pipeline: [b, grep -v \"it's\", \"cat\", far//x] } }\n"),
    ];
    let pipes = prop_oneof![
        Just(""),
        Just("pipes: { a: { mode: random }, z: {} }\n"),
        Just("pipes: { a: { log: true }, b: { mode: round-robin, via: \"sed -u s/b/c/\" }, c: {} }\n"),
        Just("pipes: { a: { via: \"sh -c 'tr a b'\", log: true }, z: { mode: random } }\n"),
    ];
    let x = prop_oneof![
        Just("x: { networks: [a] }"),
        Just("x: { networks: [a], memory: 96 }"),
        Just("x: { networks: [a], state: paused }"),
        Just("x: { networks: [a, a, b], bonds: [{ nics: [0, 1], mode: active-backup }] }"),
        Just(
            "x: { networks: [a, a, a], memory: 96, bonds: [{ nics: [1, 2], mode: balance-tcp, lacp: active, name: up }] }"
        ),
        Just("x: { networks: [a, b, b], bonds: [{ nics: [1, 2], mode: balance-slb, qinq: true, name: up }] }"),
    ];
    let tap = prop_oneof![Just("10.7.0.1/24, bridge: br1"), Just("10.7.0.1/24")];
    (experiment(), bridge, server, (mirror, nat, pipes, plumbing), capture, x, tap).prop_map(
        |(text, bridge, server, (mirror, nat, pipes, plumbing), capture, x, tap)| {
            let vms = format!("{x}\n  y: {{ networks: [b] }}");
            let text = match text.contains("vms: {}") {
                true => text.replace("vms: {}", &format!("vms:\n  {vms}")),
                false => text.replace("vms:\n", &format!("vms:\n  {vms}\n")),
            };
            let tap = format!("gw: {{ vlan: a, ip: {tap} }}");
            let text = match (server, text.contains("taps: {")) {
                ("", _) => text,
                (_, true) => text.replace("taps: { ", &format!("taps: {{ {tap}, ")),
                (_, false) => text.replace("vms:", &format!("taps: {{ {tap} }}\nvms:")),
            };
            let server = if server.is_empty() { String::new() } else { format!("dnsmasq: {server}\n") };
            text.replacen("vms:", &format!("{bridge}{nat}{server}{mirror}{capture}{pipes}{plumbing}vms:"), 1)
        },
    )
}

/// The hosts of a mesh of one, how one is chosen, and launches through the queue or not.
fn placement() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("placement: { queueing: true }\n"),
        Just("placement: { load: memcommit, queueing: false }\n"),
        Just("placement: { hosts: localhost, load: netcommit, queueing: true }\n"),
        Just("placement: { hosts: [vm] }\n"),
    ]
}

/// The same with raw commands.
fn with_raw_commands() -> impl Strategy<Value = String> {
    let raw = prop_oneof![
        Just(""),
        Just("commands: { r: { create: [shell mkdir /r], destroy: [shell rmdir /r], check: shell test -d /r } }\n"),
        Just(
            "commands: { r: { create: [shell mkdir /r, shell mkdir /s], destroy: [shell rmdir /s, shell rmdir /r] } }\n"
        ),
        Just("commands: { s: { create: shell mkdir /t, destroy: shell rmdir /t }, t: { create: vlans } }\n"),
    ];
    (with_objects(), raw, placement())
        .prop_map(|(text, raw, placement)| text.replacen("vms:", &format!("{raw}{placement}vms:"), 1))
}

/// Note what a plan that was carried out did to taps, as the journal does.
pub fn remember(advice: &mut Advice, plan: &Plan) {
    for step in &plan.steps {
        advice.tap_sent(&step.command);
        advice.tap_done(&step.command);
        advice.sent(&step.command, step.mark.as_ref());
        if let Some(mark) = &step.mark {
            advice.answered(mark, super::super::advice::Answer::Done);
        }
    }
}

/// Plan a selection, carry it out, and give what is left to do of it; None where it cannot be had by itself.
fn go(mm: &Minimega, file: &File, advice: &mut Advice, selection: Selection) -> Option<Plan> {
    // What only another file has need not be there: the addresses are accepted as they are.
    let with = |advice: &Advice| Options { verifying: true, selection: selection.clone(), ..options(file, advice) };
    let asked = |advice: &Advice| {
        let mut seen = live(mm, file);
        let made = plan(&file.experiment, &file.graph, &seen, &with(advice)).ok()?;
        for command in made.learn {
            crate::live::learn(&mut mm.clone(), &mut seen, &file.experiment.name.value, command).unwrap();
        }
        let made = plan(&file.experiment, &file.graph, &seen, &with(advice)).ok()?;
        Some((made, seen))
    };
    let (made, before) = asked(advice)?;
    // By way of a file it is the same plan, which fits what it was made against and finds its goals reached.
    let text = saved::write(&made, std::path::Path::new("/run/megaform/minimega"), &[]);
    assert!(text.lines().all(|line| line.len() < 5000), "{text}");
    let read = saved::read(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(read.moved(&before), [] as [&str; 0]);
    let parts = |plan: &Plan| -> Vec<_> {
        let changes = plan.changes.iter();
        let addresses = changes.map(|c| (c.address.to_string(), c.action, c.goal.clone(), c.guard.clone()));
        let steps = plan.steps.iter().cloned().map(|step| {
            let mut serves = step.serves.to_vec();
            serves.sort_unstable();
            Step { guard: None, serves: serves.into(), ..step }
        });
        addresses.map(|a| format!("{a:?}")).chain(steps.map(|s| format!("{s:?}"))).collect()
    };
    assert_eq!(parts(&read.plan), parts(&made), "{text}");
    carry_out(mm, &read.plan);
    assert_eq!(read.unmet(&live(mm, file)), [] as [&str; 0]);
    remember(advice, &made);
    Some(asked(advice).unwrap().0)
}

/// What can be observed of an experiment: its VMs, taps and objects, but what is given out (tags of VLANs, addresses, ids),
/// and of bridges and VLANs, which outlast files, what the file has.
fn observable(mm: &Minimega, file: &File) -> Vec<String> {
    let state = mm.0.lock().unwrap();
    let mut seen = Vec::new();
    for ns in state.namespaces.values() {
        for (name, vm) in &ns.vms {
            let fixed = |nic: &super::minimega::Nic| nic.alias.is_empty().then_some(nic.vlan);
            let nics: Vec<_> = vm.nics.iter().map(|n| (&n.alias, fixed(n), &n.bridge, &n.driver)).collect();
            let config: Vec<_> = vm.config.iter().filter(|(field, _)| *field != "networks").collect();
            let runs = vm.state == 2;
            seen.push(format!("vm {name} {runs} {nics:?} {:?} {config:?}", vm.tags));
        }
        let load = ns.load.as_deref().unwrap_or("cpucommit");
        seen.push(format!(
            "placement {:?} {load} {} {:?}",
            ns.hosts.as_deref().unwrap_or(&["vm".to_owned()]),
            ns.queueing,
            ns.queue
        ));
        let fixed = |alias: &str| file.experiment.vlans.get(alias).is_some_and(|vlan| vlan.tag.is_some());
        seen.extend(ns.vlans.iter().filter(|(alias, _)| fixed(alias)).map(|vlan| format!("vlan {vlan:?}")));
        seen.extend(ns.taps.iter().map(|(name, tap)| format!("tap {name} {} {} {}", tap.bridge, tap.alias, tap.ip)));
        seen.extend(file.experiment.vlan_range.iter().map(|_| format!("range {:?}", ns.range)));
    }
    let network = &state.network;
    let shaped = network.qos.iter().filter(|(_, settings)| !settings.is_empty());
    seen.extend(shaped.map(|qos| format!("qos {qos:?}")));
    for (vm, disks) in &network.usb {
        let mut disks: Vec<_> = disks.values().collect();
        disks.sort();
        seen.extend(disks.iter().map(|disk| format!("usb {vm:?} {disk:?}")));
    }
    let mut pipelines: Vec<_> =
        network.plumbing.iter().flat_map(|(ns, all)| all.iter().map(move |p| (ns, p))).collect();
    pipelines.sort();
    seen.extend(pipelines.iter().map(|pipeline| format!("pipeline {pipeline:?}")));
    seen.extend(network.bonds.iter().map(|bond| format!("bond {bond:?}")));
    // A pipe of another namespace is nobody's here.
    let pipes = network.pipes.iter().filter(|(name, _)| !name.starts_with("far//"));
    seen.extend(pipes.map(|pipe| format!("pipe {pipe:?}")));
    seen.extend(network.mirrors.iter().map(|mirror| format!("mirror {mirror:?}")));
    // A tag that the file gives may be that of an alias too, which depends on what was given out.
    let alias = |space: &String, tag: &u64| {
        let text = tag.to_string();
        if file.experiment.of(Kind::Nat).any(|(_, way)| way.one("vlan") == Some(&text)) {
            return text;
        }
        let vlans = state.namespaces.get(space).into_iter().flat_map(|ns| &ns.vlans);
        let mut names = vlans.filter(|(_, bound)| u64::try_from(**bound) == Ok(*tag)).map(|(alias, _)| alias.clone());
        names.next().unwrap_or(text)
    };
    let nat = network.nat.iter();
    seen.extend(nat.map(|((space, bridge, tag), ip)| format!("nat {} {bridge} {ip}", alias(space, tag))));
    // What the format of flow records was before is not known of a namespace that is not there.
    let capture = |c: &super::minimega::network::Capture| {
        let path = &c.path;
        format!("capture {path} {:?} {} {} {} {} {}", c.nic, c.bridge, c.kind, c.gzip, c.snaplen, c.filter)
    };
    seen.extend(network.captures.iter().map(capture));
    for server in network.dnsmasq.values() {
        let (mut names, mut rest) = (server.names.clone(), [server.upstream.clone(), server.options.clone()]);
        names.sort();
        rest.iter_mut().for_each(|list| list.sort());
        // A VM that ran before a lease named it keeps the address that it was given.
        let vms = || state.namespaces.values().flat_map(|ns| &ns.vms);
        let owner =
            |mac: &String| vms().find(|(_, vm)| vm.nics.iter().any(|nic| nic.mac == *mac)).map(|(name, _)| name);
        let leases: Vec<_> = server.leases.iter().map(|(mac, ip)| (ip, owner(mac))).collect();
        let leases: std::collections::BTreeSet<_> = leases.into_iter().collect();
        seen.push(format!("dnsmasq {:?} {leases:?} {names:?} {rest:?}", server.start));
    }
    for (name, bridge) in &network.bridges {
        let (mut trunks, mut tunnels) = (bridge.trunks.clone(), Vec::from_iter(bridge.tunnels.iter().map(|t| &t.1)));
        trunks.sort();
        tunnels.sort();
        if !(trunks.is_empty() && tunnels.is_empty()) {
            seen.push(format!("bridge {name} {trunks:?} {tunnels:?}"));
        }
    }
    let tags = file.experiment.vlan_blacklist.keys().map(|tag| u64::from(tag.get()));
    seen.extend(tags.map(|tag| format!("blacklist {tag} {}", network.blacklist.contains(&tag))));
    seen.sort();
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// By way of another experiment, or straight: the same is there.
    #[test]
    fn the_way_leaves_no_trace(
        a in with_objects(), b in with_objects(), places in (placement(), placement()), megaform in any::<bool>()
    ) {
        let placed = |text: &str, placement| text.replacen("vms:", &format!("{placement}vms:"), 1);
        let (a, b) = (placed(&a, places.0), placed(&b, places.1));
        let megaform = megaform || a.contains("nat:") || b.contains("nat:");
        let straight = |way: &[&File]| {
            let (mm, mut advice) = (Minimega::default(), Advice::default());
            mm.0.lock().unwrap().shows_addresses = true;
            // Ways out are megaform's own.
            mm.0.lock().unwrap().network.megaform = megaform;
            for file in way {
                go(&mm, file, &mut advice, Selection::default()).unwrap();
            }
            observable(&mm, way[way.len() - 1])
        };
        let (a, b) = (file(&a), file(&b));
        prop_assert_eq!(straight(&[&a, &b]), straight(&[&b]));
        prop_assert_eq!(straight(&[&a, &b, &a]), straight(&[&a]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_converges(a in with_raw_commands(), b in with_raw_commands(), shows in any::<bool>(), seed in 0usize..6) {
        let mm = Minimega::default();
        mm.0.lock().unwrap().shows_addresses = shows;
        // Ways out are megaform's own.
        let megaform = seed % 2 == 0 || a.contains("nat:") || b.contains("nat:");
        mm.0.lock().unwrap().network.megaform = megaform;
        let (a, b) = (file(&a), file(&b));
        // The journal knows the tap; where the target does not show its address, it knows that too.
        let mut advice = Advice::default();
        for file in [&a, &b, &a] {
            let left = go(&mm, file, &mut advice, Selection::default()).unwrap();
            prop_assert!(left.is_empty(), "left to do:\n{}", text(&left));
        }
        // A part first and then everything comes to the same as everything at once; so does all but a part.
        let addresses = ["vm.web", "vm.n1", "command.r", "vlan.a", "tap.t0", "vlan.b"];
        let parts = super::selection::selectors(&[addresses[seed], addresses[(seed + 2) % 6]]);
        for (file, selection) in [
            (&b, Selection { targets: parts.clone(), ..Selection::default() }),
            (&b, Selection::default()),
            (&a, Selection { excludes: parts, ..Selection::default() }),
            (&a, Selection::default()),
        ] {
            if let Some(left) = go(&mm, file, &mut advice, selection) {
                prop_assert!(left.is_empty(), "left to do:\n{}", text(&left));
            }
        }
        // What runs, imported, is the experiment that made it; so are the commands that made it.
        let seen = live(&mm, &a);
        let imported = crate::import::live(&a.experiment.name.value, &seen);
        let from_nothing = super::super::plan(&a.experiment, &a.graph, &Live::absent(), &options(&a, &Advice::default())).unwrap();
        let grammar = crate::commands::grammar(&crate::commands::all());
        let script = crate::import::script("plan.mm", &text(&from_nothing), &grammar, None, &mut |_| None);
        for line in text(&from_nothing).lines() {
            prop_assert!(grammar.compile(line).is_ok(), "{line}");
        }
        // A file that makes nothing is no script.
        for found in [Some(imported), script.ok()].into_iter().flatten() {
            let written = crate::import::write(&found, "");
            let again = file(&written);
            let plan = super::super::plan(&again.experiment, &again.graph, &seen, &options(&again, &advice)).unwrap();
            // The digest is of the words of the file, and adopting sets it.
            // Serial numbers are shown by no target.
            let known = |field: &str| field.starts_with("tags.megaform.") || field.ends_with(".serial");
            let differs = |change: &&Change| change.reasons.iter().any(|r| !known(&r.field));
            let differing: Vec<_> = plan.changes.iter().filter(differs).collect();
            // Without its address, the tap of the target is not the file's; and raw commands are seen nowhere.
            let unseen = |change: &&Change| match change.address.kind {
                crate::name::Kind::Tap | crate::name::Kind::Dnsmasq => !shows,
                // minimega tells the names of bonds alone.
                crate::name::Kind::Bond => !megaform,
                // The target lists no mirrors, and of tunnels no more than their interfaces.
                crate::name::Kind::Mirror => true,
                // Which words of a line are one program is not told.
                crate::name::Kind::Plumbing => change.action == Action::Destroy,
                // Nor whether messages of a pipe are logged, and which words of a via are one.
                crate::name::Kind::Pipe => {
                    change.reasons.iter().all(|reason| ["log", "via"].contains(&reason.field.as_str()))
                }
                // It was not asked for the blacklist.
                crate::name::Kind::Vlan => change.reasons.iter().all(|reason| reason.field == "blacklist"),
                crate::name::Kind::Bridge => {
                    change.reasons.iter().all(|reason| ["tunnels", "bridges"].contains(&reason.field.as_str()))
                }
                kind => kind == crate::name::Kind::Command,
            };
            prop_assert!(differing.iter().all(unseen), "{differing:#?}\nfor\n{written}");
        }
        let destroy = planned_destroy(&mm, &a, advice);
        carry_out(&mm, &destroy);
        let state = mm.0.lock().unwrap();
        prop_assert!(state.namespaces.is_empty());
        prop_assert!(state.network.nat.is_empty() && state.network.bonds.is_empty() && state.network.plumbing.values().all(Vec::is_empty));
        prop_assert!(state.network.pipes.keys().all(|name| name.starts_with("far//")), "{:?}", state.network.pipes);
        prop_assert!(state.network.dnsmasq.is_empty() && state.network.mirrors.is_empty() && state.network.captures.is_empty());
        let left = |bridge: &super::minimega::network::Bridge| bridge.trunks.is_empty() && bridge.tunnels.is_empty();
        prop_assert!(state.network.bridges.values().all(left), "{:?}", state.network.bridges);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// No plan removes what is protected, and none is refused that would not.
    #[test]
    fn what_is_protected_stays(a in experiment(), b in experiment()) {
        let protected = b.replace("{ memory:", "{ lifecycle: { prevent_destroy: true }, memory:");
        let mm = Minimega::default();
        go(&mm, &file(&a), &mut Advice::default(), Selection::default()).unwrap();
        let wanted = |text: &str| {
            let file = file(text);
            let made = plan(&file.experiment, &file.graph, &live(&mm, &file), &options(&file, &Advice::default()));
            (made, file)
        };
        let removes = |plan: &Plan, file: &File| {
            let removed = |change: &&Change| matches!(change.action, Action::Destroy | Action::Replace);
            let ours = |change: &Change| file.experiment.vms.keys().any(|vm| Address::vm(vm) == change.address);
            plan.changes.iter().filter(removed).any(ours)
        };
        let (free, file) = wanted(&b);
        // Where nothing can be planned either way there is nothing to tell.
        let Ok(free) = free else { return Ok(()) };
        match wanted(&protected).0 {
            Ok(kept) => prop_assert!(!removes(&kept, &file), "{}", text(&kept)),
            Err(_) => prop_assert!(removes(&free, &file), "refused for nothing:\n{}", text(&free)),
        }
        prop_assert_eq!(wanted(&protected).0.is_err(), removes(&free, &file));
    }
}
