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
        Just("{ vlan: 77 }".to_owned()),
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
            Just(", snapshot: false")
        ],
    )
        .prop_map(|(memory, nics, paused, tags, disks)| {
            let state = if paused { "paused" } else { "running" };
            format!("{{ memory: {memory}, networks: [{}], state: {state}{tags}{disks} }}", nics.join(", "))
        })
}

fn experiment() -> impl Strategy<Value = String> {
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
            text.push_str("vlan_range: [300, 400]\n");
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_converges(a in experiment(), b in experiment(), shows in any::<bool>()) {
        let mm = Minimega::default();
        mm.0.lock().unwrap().shows_addresses = shows;
        let (a, b) = (file(&a), file(&b));
        // The journal knows the tap; where the target does not show its address, it knows that too.
        let mut advice = Advice::default();
        for file in [&a, &b, &a] {
            let plan = plan(&file.experiment, &file.graph, &live(&mm, file), &options(file, &advice)).unwrap();
            carry_out(&mm, &plan);
            advice.taps = file.experiment.taps.iter().map(|(name, tap)| {
                let address = tap.ip.as_ref().map(|ip| format!("{}/{}", ip.value.0, ip.value.1));
                (name.to_string(), TapAdvice { address })
            }).collect();
            let again = super::super::plan(&file.experiment, &file.graph, &live(&mm, file), &options(file, &advice)).unwrap();
            prop_assert!(again.is_empty(), "left to do:\n{}", text(&again));
        }
        // What runs, imported, is the experiment that made it; so are the commands that made it.
        let seen = live(&mm, &a);
        let imported = crate::import::live(&a.experiment.name.value, &seen);
        let from_nothing = super::super::plan(&a.experiment, &a.graph, &Live::absent(), &options(&a, &Advice::default())).unwrap();
        let grammar = crate::commands::grammar(&crate::commands::all());
        let script = crate::import::script("plan.mm", &text(&from_nothing), &grammar, None, &mut |_| None);
        for found in [Some(imported), script.ok()].into_iter().flatten() {
            let written = crate::import::write(&found, "");
            let again = file(&written);
            let plan = super::super::plan(&again.experiment, &again.graph, &seen, &options(&again, &advice)).unwrap();
            // The digest is of the words of the file, and adopting sets it.
            let differs = |change: &&Change| change.reasons.iter().any(|r| r.field != "tags.megaform.digest");
            let differing: Vec<_> = plan.changes.iter().filter(differs).collect();
            // Without its address, the tap of the target is not the file's.
            let unseen = |change: &&Change| !shows && change.address.kind == crate::name::Kind::Tap;
            prop_assert!(differing.iter().all(unseen), "{differing:#?}\nfor\n{written}");
        }
        let destroy = planned_destroy(&mm, &a, advice);
        carry_out(&mm, &destroy);
        prop_assert!(mm.0.lock().unwrap().namespaces.is_empty());
    }
}
