//! Answers that are lost, at every step of plans with every kind: before the command was carried out, and after.

use std::collections::BTreeSet;

use super::*;
use crate::name::Kind;
use crate::plan::tests::properties::observable;

const ALL: &str = r#"
experiment: random
vlans: { lan: { tag: 301 }, dmz: {}, watch: {} }
vlan_range: 300-400
vlan_blacklist: [310]
vms:
  "web[0-1]": { memory: 16, networks: [{ vlan: lan, qos: { rate: 10 mbit } }, dmz], tags: { role: web }, usb_disks: [a.img] }
  ids: { memory: 16, state: paused, networks: [dmz, watch, { vlan: lan, connected: false }], depends_on: web0, cdrom: a.iso }
  pair: { memory: 16, networks: [lan, lan, dmz], bonds: [{ nics: [0, 1], mode: active-backup, name: uplink }] }
links: { slow: { ends: [web0.1, ids.0], rate: 1500 kbit } }
bridges: { br1: { trunks: eth1, tunnels: [vxlan 10.9.0.2 7], config: { stp_enable: "true" } } }
taps: { gw: { vlan: lan, ip: 10.0.0.1/24 }, mon: { vlan: watch } }
dnsmasq:
  lan: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99], leases: [web0.0 10.0.0.10], dns: 10.0.0.10 web.lab }
nat: { out: { vlan: lan, ip: 10.0.0.254/24 } }
mirrors: { taps: { from: gw, to: mon } }
captures:
  wire: { vm: web0, file: wire.pcap, snaplen: 96 }
  flows: { type: netflow, bridge: mega_bridge, to: "udp://127.0.0.1:9995" }
pipes: { urgent: { mode: round-robin, log: true } }
plumbing: { p: { pipeline: [alerts, cat, urgent] } }
placement: { load: memcommit, queueing: true }
commands: { mark: { create: vm tag web0 mark x, destroy: clear vm tag web0 mark, depends_on: web0 } }
"#;

/// Something of every kind is changed, moved, replaced or taken away.
const EDITS: &[(&str, &str)] = &[
    ("tag: 301", "tag: 302"),
    ("[310]", "[310, 312]"),
    ("rate: 10 mbit", "rate: 20 mbit"),
    ("role: web", "role: front"),
    ("usb_disks: [a.img]", "usb_disks: [b.img]"),
    ("cdrom: a.iso", "cdrom: b.iso"),
    ("connected: false", "connected: true"),
    ("mode: active-backup", "mode: balance-slb"),
    ("1500 kbit", "1600 kbit"),
    ("10.9.0.2 7", "10.9.0.2 8"),
    ("\"true\"", "\"false\""),
    ("10.0.0.1/24", "10.0.0.2/24"),
    ("address: 10.0.0.1,", "address: 10.0.0.2,"),
    ("10.0.0.254/24", "10.0.0.253/24"),
    ("from: gw, to: mon", "from: mon, to: gw"),
    ("snaplen: 96", "snaplen: 97"),
    (":9995", ":9996"),
    ("mode: round-robin, log: true", "mode: random"),
    ("[alerts, cat, urgent]", "[alerts, cat, cat, urgent]"),
    ("load: memcommit", "load: netcommit"),
    ("web0 mark x", "web0 mark y"),
];

/// A target with a journal beside it.
struct Bench {
    mm: Minimega,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let mm = Minimega::default();
        mm.0.lock().unwrap().shows_addresses = true;
        mm.0.lock().unwrap().network.megaform = true;
        Self { mm, folder: tempfile::tempdir().unwrap() }
    }

    fn plan(&self, file: &File) -> Plan {
        let advice = journal::advice(&self.folder.path().join("minimega"), &file.experiment.name.value).unwrap();
        let connect = || -> Result<Box<dyn Transport + Send>, WireError> { Ok(Box::new(self.mm.clone())) };
        replan(&file.experiment, &file.graph, &options(file, &advice), &connect).unwrap()
    }

    fn run(&self, file: &File, plan: &Plan) -> Outcome {
        let journal = Journal::open(&self.folder.path().join("minimega"), &file.experiment.name.value).unwrap();
        apply(plan, &|| Ok(Box::new(self.mm.clone())), Some(&journal), &Interrupt::default(), &mut |_| {})
    }

    /// Carry out what there is to do, until nothing is left.
    fn converge(&self, file: &File, what: &str) {
        for _ in 0..3 {
            let plan = self.plan(file);
            if plan.is_empty() {
                return;
            }
            self.run(file, &plan);
        }
        let left = crate::plan::tests::text(&self.plan(file));
        panic!("{what}: left to do:\n{left}");
    }
}

/// Lose the answer of every step of the way from one file to another.
fn lose_every_answer(from: Option<&File>, to: &File) {
    let begin = || {
        let bench = Bench::new();
        if let Some(from) = from {
            bench.converge(from, "at the beginning");
        }
        bench
    };
    let straight = begin();
    let steps = straight.plan(to);
    let kinds: BTreeSet<Kind> = steps.changes.iter().map(|change| change.address.kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
    straight.converge(to, "straight");
    for (index, step) in steps.steps.iter().enumerate() {
        for carried_out in [false, true] {
            let bench = begin();
            let plan = bench.plan(to);
            let command = &plan.steps[index].command;
            let what = format!("`{command}` {}", if carried_out { "was carried out" } else { "did not arrive" });
            bench.mm.0.lock().unwrap().drop_at = Some((command.clone(), carried_out));
            bench.mm.take_log();
            bench.run(to, &plan);
            let sent = bench.mm.take_log().iter().filter(|sent| *sent == command).count();
            let times = plan.steps.iter().filter(|other| other.command == *command).count();
            assert!(sent <= times, "{what}: it was sent {sent} times, {} of {times}", step.id);
            bench.converge(to, &what);
            assert_eq!(observable(&bench.mm, to), observable(&straight.mm, to), "{what}");
        }
    }
}

#[test]
fn every_answer_that_is_lost_while_everything_is_made() {
    lose_every_answer(None, &file(ALL));
}

#[test]
fn every_answer_that_is_lost_while_everything_changes() {
    let edited = EDITS.iter().fold(ALL.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1)
    });
    lose_every_answer(Some(&file(ALL)), &file(&edited));
}
