//! A plan with every kind of the experiment file in it, killed after each of its commands, and imported from what runs: the real
//! engine with VMs whose guests never run.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use megaform::name::Kind;
use support::{Lab, have};

const NEEDS: &[&str] =
    &["root", "qemu-system-x86_64", "ip", "dnsmasq", "slirp4netns", "nft", "ovsdb-server", "ovs-vswitchd"];

const LAB: &str = r#"
experiment: lab
vlans: { lan: { tag: 301 }, dmz: {}, watch: {} }
vlan_range: 300-400
vlan_blacklist: [310]
vms:
  "web[0-1]": { memory: 16, state: paused, networks: [{ vlan: lan, qos: { rate: 10 mbit } }, dmz], tags: { role: web } }
  ids: { memory: 16, state: paused, networks: [dmz, watch, { vlan: lan, connected: false }], depends_on: web0 }
  pair:
    memory: 16
    state: paused
    networks: [lan, lan, dmz]
    bonds: [{ nics: [0, 1], mode: active-backup, name: uplink }]
links: { slow: { ends: [web0.1, ids.0], rate: 1500 kbit } }
bridges:
  br1: { trunks: eth1, tunnels: [vxlan 10.9.0.2 7], config: { stp_enable: "true" } }
taps:
  gw: { vlan: lan, ip: 10.0.0.1/24 }
  mon: { vlan: watch }
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
    ("connected: false", "connected: true"),
    ("ids: { memory: 16", "ids: { memory: 17"),
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

fn edited() -> String {
    EDITS.iter().fold(LAB.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1)
    })
}

/// What a plan does, by address.
fn changes(lab: &Lab) -> Vec<String> {
    let answer = lab.run(&["plan", "--json", "lab.yaml"]).ok();
    let plan: serde_json::Value = serde_json::from_str(&answer.out).expect("JSON");
    let changes = plan["changes"].as_array().expect("a plan has changes");
    changes.iter().map(|change| change["address"].as_str().expect("text").to_owned()).collect()
}

/// Run a subcommand and kill it once it reported that so many commands ended. False if it ended before that.
fn killed_after(lab: &Lab, subcommand: &str, ended: usize) -> bool {
    let mut child = lab
        .program()
        .args([subcommand, "--yes", "lab.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let reached = lines.by_ref().filter(|line| line.starts_with('[')).nth(ended).is_some();
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    reached
}

/// Stand for the host: the calling thread, and the daemons that it starts, are in a network of their own with one cable.
fn leave_the_host() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    for args in ["link set lo up", "link add eth1 type veth peer name wire"] {
        let done = Command::new("ip").args(args.split(' ')).stdout(Stdio::null()).status().expect("ip is there");
        assert!(done.success(), "ip {args}");
    }
}

/// A lab with an engine that has everything.
fn lab_for_every_kind() -> Lab {
    leave_the_host();
    let mut lab = Lab::new();
    let mut daemon = lab.program();
    daemon.args(["daemon", "--switch", "openvswitch"]);
    lab.start_daemon_by(daemon);
    lab
}

/// Much of what the experiment has, made by hand: all but raw commands, which nothing but a journal remembers.
const BY_HAND: &str = "\
namespace lab
vlans range 300 400
vlans add lan 301
vlans add dmz 350
ns load memcommit
vm config memory 16
vm config networks lan dmz
vm config tags role web
vm launch kvm web[0-1]
clear vm config
vm config memory 16
vm config networks dmz watch lan
vm launch kvm ids
vm net disconnect ids 2
vm config networks lan,52:54:00:00:00:05 lan dmz
vm launch kvm pair
vm net bond pair 0,1 active-backup off name uplink
qos set web[0-1] 0 rate=10mbit
bridge trunk br1 eth1
bridge tunnel vxlan br1 10.9.0.2 7
bridge config br1 stp_enable=true
tap create lan ip 10.0.0.1/24 gw
tap create watch name mon
dnsmasq start 10.0.0.1 10.0.0.10 10.0.0.99
dnsmasq configure 10.0.0.1 ip 52:54:00:00:00:05 10.0.0.10
nat add lan 10.0.0.254/24
tap mirror gw mon
capture pcap snaplen 96
capture pcap vm web0 0 wire.pcap
capture netflow bridge mega_bridge udp 127.0.0.1:9995
pipe urgent mode round-robin
plumb alerts cat urgent
vm tag web0 mark x
";

/// What a plan of a file that was imported has to do, and the kinds that it looked at.
fn planned(lab: &Lab, file: &str) -> (serde_json::Value, BTreeSet<String>) {
    let answer = lab.run(&["plan", "--json", file]).ok();
    let plan: serde_json::Value = serde_json::from_str(&answer.out).expect("JSON");
    let of = plan["unchanged"].as_array().expect("a plan lists what is unchanged").iter();
    let kinds = of.filter_map(|address| address.as_str()?.split('.').next().map(str::to_owned)).collect();
    (plan["changes"].clone(), kinds)
}

#[test]
fn what_was_made_of_every_kind_is_imported_and_plans_to_no_changes() {
    if !have(NEEDS) {
        return;
    }
    let lab = lab_for_every_kind();
    let all: BTreeSet<String> = Kind::ALL.iter().map(|kind| kind.word().to_owned()).collect();
    let imported = |args: &[&str]| {
        let answer = lab.run(&[&["import", "lab"], args].concat()).ok();
        assert!(!answer.err.contains("a plan would"), "{}", answer.err);
        lab.file("imported.yaml", &answer.out);
        answer
    };
    lab.file("lab.yaml", LAB);
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    let answer = imported(&[]);
    let (changes, kinds) = planned(&lab, "imported.yaml");
    assert_eq!(changes, serde_json::json!([]), "{}", answer.out);
    assert_eq!(kinds, all, "{}", answer.out);
    assert_eq!(answer.err, "", "what megaform made needs no note");
    // What the journal remembers is called as it was, and the file is one to go on with.
    for part in [
        "  mark: { create: \"vm tag web0 mark x\"",
        "  wire: { vm: web0, file: wire.pcap",
        "leases: \"web0.0 10.0.0.10\"",
    ] {
        assert!(answer.out.contains(part), "{part}\n{}", answer.out);
    }
    lab.run(&["destroy", "--yes", "imported.yaml"]).ok();
    assert!(lab.rows("namespace").iter().all(|row| row[0] != "lab") && lab.qemus().is_empty());
    // The file makes the same again.
    lab.run(&["apply", "--yes", "imported.yaml"]).ok();
    assert_eq!(planned(&lab, "imported.yaml"), (serde_json::json!([]), all.clone()));
    lab.run(&["destroy", "--yes", "imported.yaml"]).ok();
    // What was made by hand, of which there is no journal.
    lab.run(&["run", lab.file("hand.mm", BY_HAND).to_str().expect("UTF-8")]).ok();
    let pids = || lab.rows("namespace lab .columns name,pid,state vm info");
    let before = pids();
    imported(&[]);
    lab.run(&["plan", "imported.yaml"]).fails("unmanaged-vm");
    let answer = imported(&["--adopt"]);
    let (changes, kinds) = planned(&lab, "imported.yaml");
    assert_eq!(changes, serde_json::json!([]), "{}", answer.out);
    let raw: BTreeSet<String> = [Kind::Command.word().to_owned()].into();
    assert_eq!(all.difference(&kinds).cloned().collect::<BTreeSet<_>>(), raw, "{}", answer.out);
    assert_eq!(pids(), before);
    lab.run(&["destroy", "--yes", "imported.yaml"]).ok();
    // The bridge stays with its settings: nothing tells that it was not the host's.
    assert_eq!(lab.rows(".columns namespace namespace"), [["minimega"]]);
}

#[test]
fn killed_after_every_single_step_of_a_plan_with_every_kind() {
    if !have(NEEDS) {
        return;
    }
    let lab = lab_for_every_kind();
    let edited = edited();
    let kinds: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
    let of = |changes: &[String]| -> BTreeSet<String> {
        changes.iter().filter_map(|address| address.split('.').next()).map(str::to_owned).collect()
    };
    let converges = |text: &str, what: &str| {
        lab.file("lab.yaml", text);
        let answer = lab.run(&["apply", "--yes", "lab.yaml"]);
        assert_eq!(answer.code, 0, "{what}:\n{}{}", answer.out, answer.err);
        assert_eq!(changes(&lab), [] as [&str; 0], "{what}");
        assert_eq!(lab.rows(".columns name namespace lab vm info").len(), 4, "{what}");
    };
    lab.file("lab.yaml", LAB);
    let missing: Vec<&&str> = kinds.iter().filter(|kind| !of(&changes(&lab)).contains(**kind)).collect();
    assert!(missing.is_empty(), "the experiment has none of {missing:?}: add one, and an edit of it");
    // Everything is made, a few steps more each time.
    for point in [1, 9, 17, 25, 33, 41] {
        lab.file("lab.yaml", LAB);
        assert!(killed_after(&lab, "apply", point), "{point}");
        converges(LAB, &format!("killed after {point} commands of the first apply"));
        // And taken away: a destroy that was cut off is finished by the next, or the experiment made again.
        killed_after(&lab, "destroy", point / 3);
        if point % 2 == 0 {
            converges(LAB, &format!("destroy killed after {} commands", point / 3));
        }
        lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
        assert!(lab.qemus().is_empty(), "{point}");
    }
    converges(LAB, "at the beginning");
    lab.file("lab.yaml", &edited);
    let missing: Vec<&&str> = kinds.iter().filter(|kind| !of(&changes(&lab)).contains(**kind)).collect();
    assert!(missing.is_empty(), "the edit changes none of {missing:?}");
    // From one file to the other and back, one step more each time.
    let mut point = 0;
    for text in [edited.as_str(), LAB].into_iter().cycle() {
        lab.file("lab.yaml", text);
        if !killed_after(&lab, "apply", point) {
            break;
        }
        converges(text, &format!("killed after {point} commands of a change"));
        point += 1;
    }
    assert!(point > 40, "a change has more commands than {point}");
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.qemus().is_empty() && !lab.mounted(), "{:?}", lab.files());
}
