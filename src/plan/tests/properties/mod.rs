//! From any experiment to any other and back: each plan converges, and the next one is empty.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

mod composed;
mod composition;
pub mod experiments;
mod ignored;
mod keys;

pub use experiments::{experiment, with_objects, with_raw_commands};
use experiments::{megaform_only, placement};
pub use keys::tree;

/// So many cases, or as many as the environment asks for.
fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().map(|cases| cases.parse().expect("PROPTEST_CASES is a number"));
    ProptestConfig { cases: asked.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
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
pub fn go(mm: &Minimega, file: &File, advice: &mut Advice, selection: Selection) -> Option<Plan> {
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

/// USB disks of a VM. What the file leaves open of one is whatever the target chose, or was there.
fn usb(disks: &BTreeMap<u32, [String; 3]>, file: &File, vm: &str) -> Vec<String> {
    let wanted = || file.experiment.vms.get(vm).into_iter().flat_map(|vm| &vm.body.usb_disks);
    let seen = disks.values().map(|[path, version, serial]| {
        let of = wanted().find(|disk| path.ends_with(disk.path.trim_start_matches('/')));
        let given = |value: &String, given: Option<&String>| given.map(|_| value.clone());
        let version = given(version, of.and_then(|disk| disk.version.as_ref()));
        let serial = given(serial, of.and_then(|disk| disk.serial.as_ref()));
        format!("{path} {version:?} {serial:?}")
    });
    let mut seen: Vec<String> = seen.collect();
    seen.sort();
    seen
}

/// What can be observed of an experiment: its VMs, taps and objects, but what is given out (tags of VLANs, addresses, ids),
/// and of bridges and VLANs, which outlast files, what the file has.
pub fn observable(mm: &Minimega, file: &File) -> Vec<String> {
    let state = mm.0.lock().unwrap();
    let mut seen = Vec::new();
    for ns in state.namespaces.values() {
        for (name, vm) in &ns.vms {
            let fixed = |nic: &super::minimega::Nic| nic.alias.is_empty().then_some(nic.vlan);
            // What the file leaves open is whatever was given out, or was there.
            let body = file.experiment.vms.get(name.as_str()).map(|vm| &vm.body);
            let mac = |index: usize| body.and_then(|body| body.networks.get(index)?.mac.as_ref());
            let nics = vm.nics.iter().enumerate();
            let nics: Vec<_> =
                nics.map(|(i, n)| (&n.alias, fixed(n), &n.bridge, &n.driver, mac(i).map(|_| &n.mac))).collect();
            let open = |field: &str| field == "uuid" && body.is_none_or(|body| !body.config.is_set("uuid"));
            let config = vm.config.iter().filter(|(field, _)| *field != "networks" && !open(field));
            let config: Vec<_> = config.collect();
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
    for ((space, vm), disks) in &network.usb {
        seen.extend(usb(disks, file, vm).into_iter().map(|disk| format!("usb {space} {vm} {disk}")));
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
        // Flow records are not cut.
        let snaplen = if c.kind == "netflow" { 0 } else { c.snaplen };
        format!("capture {path} {:?} {} {} {} {} {}", c.nic, c.bridge, c.kind, c.gzip, snaplen, c.filter)
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
    #![proptest_config(cases(40))]

    /// By way of another experiment, or straight: the same is there.
    #[test]
    fn the_way_leaves_no_trace(
        a in with_objects(), b in with_objects(), places in (placement(), placement()), megaform in any::<bool>()
    ) {
        let placed = |text: &str, placement| text.replacen("vms:", &format!("{placement}vms:"), 1);
        let (a, b) = (placed(&a, places.0), placed(&b, places.1));
        let megaform = megaform || megaform_only(&a) || megaform_only(&b);
        let straight = |way: &[&File]| {
            let (mm, mut advice) = (Minimega::default(), Advice::default());
            mm.0.lock().unwrap().shows_addresses = true;
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
    #![proptest_config(cases(40))]

    #[test]
    fn every_plan_converges(a in with_raw_commands(), b in with_raw_commands(), shows in any::<bool>(), seed in 0usize..6) {
        let mm = Minimega::default();
        mm.0.lock().unwrap().shows_addresses = shows;
        let megaform = seed % 2 == 0 || megaform_only(&a) || megaform_only(&b);
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
        let imported = crate::import::live(&a.experiment.name.value, &seen, &advice);
        let from_nothing = super::super::plan(&a.experiment, &a.graph, &Live::absent(), &options(&a, &Advice::default())).unwrap();
        let grammar = crate::commands::grammar(&crate::commands::all());
        let script = crate::import::script("plan.mm", &text(&from_nothing), &grammar, None, &mut |_| None);
        for line in text(&from_nothing).lines() {
            prop_assert!(grammar.compile(line).is_ok(), "{line}");
        }
        // A file that makes nothing is no script.
        for (found, lives) in [(Some(imported), true), (script.ok(), false)] {
            let Some(found) = found else { continue };
            let written = crate::import::write(&found, "");
            let again = file(&written);
            let plan = super::super::plan(&again.experiment, &again.graph, &seen, &options(&again, &advice)).unwrap();
            // The digest is of the words of the file, and adopting sets it.
            // Serial numbers are shown by no target.
            // Addresses that an earlier file fixed stay where a later one leaves them open, unlike those of a script.
            let mac = |change: &Change| change.reasons.iter().any(|reason| reason.field.ends_with(".mac"));
            if !lives && plan.changes.iter().any(mac) {
                continue;
            }
            let known = |field: &str| field.starts_with("tags.megaform.") || field.ends_with(".serial");
            let differs = |change: &&Change| change.reasons.iter().any(|r| !known(&r.field));
            let differing: Vec<_> = plan.changes.iter().filter(differs).collect();
            // Without its address, the tap of the target is not the file's; and raw commands are seen nowhere.
            let unseen = |change: &&Change| match change.address.kind {
                crate::name::Kind::Dnsmasq => !shows,
                // That it asked for its address is in the journal alone.
                crate::name::Kind::Tap => !shows || change.reasons.iter().all(|reason| reason.field == "dhcp"),
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
        let protect = |line: &str| match line.contains("lifecycle: {") {
            true => line.replace("lifecycle: {", "lifecycle: { prevent_destroy: true,"),
            false => line.replace("{ memory:", "{ lifecycle: { prevent_destroy: true }, memory:"),
        };
        let protected = b.lines().fold(String::new(), |text, line| text + &protect(line) + "\n");
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
