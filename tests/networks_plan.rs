//! Networks of an experiment against a scripted minimega 3.1.0 on a real socket: applied, drifted, rolled back, destroyed.
#![allow(missing_docs)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

#[path = "support/minimega.rs"]
mod peer;

use peer::{Minimega, changes};

const LAB: &str = r#"
experiment: lab
vlans: { lan: {}, dmz: {} }
vms:
  web[0-1]: { networks: [{ vlan: lan, qos: { rate: 10 mbit } }, dmz] }
  ids: { networks: [dmz] }
links:
  slow: { ends: [web0.1, ids.0], delay: 20 ms, loss: 0.1 }
bridges: { br1: { trunks: [eth1], tunnels: [{ type: vxlan, remote: 10.9.0.2, key: 7 }] } }
taps: { gw: { vlan: lan, ip: 10.0.0.1/24 } }
dnsmasq:
  lan: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99], leases: [{ vm: web0, ip: 10.0.0.10 }], dns: [10.0.0.10 web.lab] }
mirrors: { watch: { from: web1.0, to: web1.1 } }
captures:
  wire: { vm: web0, file: wire.pcap, snaplen: 96 }
  flows: { type: netflow, bridge: mega_bridge, to: "udp://10.0.0.5:9995" }
pipes: { alerts: { mode: random, log: true, via: "sed -u s/a/b/" } }
plumbing: { found: { pipeline: [alerts, "grep down", urgent] } }
"#;

fn run(folder: &Path, socket: &Path, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_megaform"));
    command.arg("--socket").arg(socket).args(words).current_dir(folder).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("the program was built");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().expect("it ended by itself"), text)
}

#[track_caller]
fn ends(answer: (i32, String), code: i32) -> String {
    assert_eq!(answer.0, code, "{}", answer.1);
    answer.1
}

#[test]
fn every_kind_is_applied_restored_and_destroyed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let minimega = Minimega::start(folder.path());
    // The ids of servers are of the daemon, so the first of this experiment is not the first.
    minimega.by_hand("namespace other dnsmasq start 10.5.0.1 10.5.0.2 10.5.0.3");
    minimega.by_hand("namespace other dnsmasq kill 0");
    std::fs::write(folder.path().join("lab.yaml"), LAB).expect("a file");
    let go = |words: &[&str]| run(folder.path(), &minimega.socket, words);
    ends(go(&["validate", "lab.yaml"]), 0);
    ends(go(&["apply", "--yes", "lab.yaml"]), 0);
    let sent = changes(minimega.take_log(), "lab");
    let at = |text: &str| sent.iter().position(|c| c == text).unwrap_or_else(|| panic!("{text}: {sent:#?}"));
    let start = sent.iter().position(|c| c.starts_with("vm start") && c.contains("web0")).expect("it is started");
    assert!(at("capture pcap vm web0 0 wire.pcap") < start && at("qos add web0 1 delay 20ms") < start, "{sent:#?}");
    assert!(sent.iter().any(|c| c.starts_with("dnsmasq configure 1 ip ")), "{sent:#?}");
    let plan = ends(go(&["plan", "--detailed-exitcode", "lab.yaml"]), 0);
    assert!(plan.contains("No changes"), "{plan}");
    let shown = ends(go(&["show", "lab.yaml"]), 0);
    for text in ["web0.1", "delay 20ms loss 0.1", "10.0.0.1", "udp://10.0.0.5:9995", "eth1"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    for by_hand in [
        "clear qos web1 0",
        "bridge notrunk br1 eth1",
        "dnsmasq kill 1",
        "capture netflow delete bridge mega_bridge",
        "clear pipe alerts",
    ] {
        minimega.by_hand(&format!("namespace lab {by_hand}"));
    }
    let plan = ends(go(&["plan", "--detailed-exitcode", "lab.yaml"]), 2);
    for address in ["vm.web1", "bridge.br1", "dnsmasq.lan", "capture.flows", "pipe.alerts", "plumbing.found"] {
        assert!(plan.contains(address), "{address}: {plan}");
    }
    ends(go(&["apply", "--yes", "lab.yaml"]), 0);
    ends(go(&["plan", "--detailed-exitcode", "lab.yaml"]), 0);
    ends(go(&["destroy", "--yes", "lab.yaml"]), 0);
    let state = minimega.state();
    assert!(!state.namespaces.contains_key("lab"));
    let network = &state.network;
    assert!(network.pipes.is_empty() && network.plumbing.values().all(Vec::is_empty), "{:?}", network.pipes);
    assert!(network.dnsmasq.is_empty() && network.captures.is_empty() && network.mirrors.is_empty());
    assert!(network.bridges.values().all(|bridge| bridge.trunks.is_empty() && bridge.tunnels.is_empty()));
}

/// What is there of the networks, but ids and names that are given out.
fn networks(minimega: &Minimega) -> String {
    let state = minimega.state();
    let network = &state.network;
    let bridges =
        network.bridges.iter().map(|(name, b)| (name, &b.trunks, b.tunnels.iter().map(|t| &t.1).collect::<Vec<_>>()));
    let servers = network.dnsmasq.values().map(|s| (&s.start, &s.leases, &s.names));
    let vms = state.namespaces["lab"].vms.iter().map(|(name, vm)| {
        let nics: Vec<_> = vm.nics.iter().map(|nic| (&nic.alias, &nic.bridge)).collect();
        (name, vm.state, nics, vm.tags.get("role"))
    });
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        bridges.collect::<Vec<_>>(),
        servers.collect::<Vec<_>>(),
        vms.collect::<Vec<_>>(),
        network.mirrors,
        network
            .captures
            .iter()
            .map(|c| (&c.path, c.nic.as_ref().map(|_| c.snaplen)))
            .collect::<std::collections::BTreeSet<_>>(),
        network.qos,
        network.blacklist,
        network.pipes,
        network.plumbing,
    )
}

#[test]
fn a_connection_lost_anywhere_in_a_plan_with_every_kind_is_recovered() {
    let text = LAB.replace(
        "ids: { networks: [dmz] }",
        "ids: { networks: [dmz, { vlan: lan, connected: false }], wait_for: { command: vm info } }",
    ) + "vlan_blacklist: [200]\ncommands: { role: { create: vm tag ids role x, destroy: clear vm tag ids role, depends_on: ids } }\n";
    let lab = || {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minimega = Minimega::start(folder.path());
        std::fs::write(folder.path().join("lab.yaml"), &text).expect("a file");
        (folder, minimega)
    };
    let (folder, reference) = lab();
    ends(run(folder.path(), &reference.socket, &["apply", "--yes", "lab.yaml"]), 0);
    let mut commands = changes(reference.take_log(), "lab");
    commands.sort();
    commands.dedup();
    // What configures a launch is in another test.
    commands.retain(|command| {
        !command.starts_with("vm config ") && command != "clear vm config" && command != "vlans blacklist"
    });
    for kind in [
        "bridge tunnel",
        "bridge trunk",
        "tap create",
        "tap mirror",
        "capture pcap vm",
        "capture netflow",
        "qos add",
        "dnsmasq start",
        "dnsmasq configure",
        "vm net disconnect",
        "vm tag ids role",
        "vlans blacklist",
        "pipe alerts log",
        "pipe alerts via",
        "plumb lab//alerts",
        "vm launch",
        "vm start",
    ] {
        assert!(commands.iter().any(|command| command.starts_with(kind)), "{kind}: {commands:#?}");
    }
    let wanted = networks(&reference);
    for command in &commands {
        for after in [false, true] {
            let (folder, minimega) = lab();
            let go = |words: &[&str]| run(folder.path(), &minimega.socket, words);
            minimega.state().hang_up_at = Some((command.clone(), after));
            let cut = go(&["apply", "--yes", "lab.yaml"]);
            assert!([0, 1, 4].contains(&cut.0), "{command}: {}", cut.1);
            assert!(minimega.state().hang_up_at.is_none(), "{command} was not sent");
            ends(go(&["apply", "--yes", "lab.yaml"]), 0);
            let left = go(&["plan", "--detailed-exitcode", "lab.yaml"]);
            assert_eq!(left.0, 0, "{command} {after}: {}", left.1);
            assert_eq!(networks(&minimega), wanted, "{command} {after}");
        }
    }
}

#[test]
fn what_a_release_of_2018_lacks_is_an_error_of_the_plan() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let minimega = Minimega::start(folder.path());
    minimega.state().network.old = true;
    std::fs::write(folder.path().join("lab.yaml"), LAB.replace("trunks: [eth1]", "config: { mode: x }"))
        .expect("a file");
    let go = |words: &[&str]| run(folder.path(), &minimega.socket, words);
    minimega.take_log();
    let said = ends(go(&["apply", "--yes", "lab.yaml"]), 1);
    for (place, form) in [(9, "bridge config"), (9, "bridge tunnel with a key"), (13, "tap mirror between NICs of VMs")]
    {
        assert!(said.contains(&format!("takes `{form}`, which the target does not have")), "{form}: {said}");
        assert!(said.contains(&format!("lab.yaml:{place}:")), "{said}");
    }
    assert_eq!(said.matches("error[target-lacks]").count(), 3, "{said}");
    assert_eq!(changes(minimega.take_log(), "lab"), [] as [&str; 0], "nothing is half made");
    // What is left is carried out, and everything else of the file is there.
    let less = LAB.replace(", key: 7", "").replace("mirrors: { watch: { from: web1.0, to: web1.1 } }\n", "");
    std::fs::write(folder.path().join("lab.yaml"), less).expect("a file");
    ends(go(&["apply", "--yes", "lab.yaml"]), 0);
    ends(go(&["plan", "--detailed-exitcode", "lab.yaml"]), 0);
    ends(go(&["destroy", "--yes", "lab.yaml"]), 0);
}

#[test]
fn what_minimega_would_drop_silently_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let minimega = Minimega::start(folder.path());
    let lab = "experiment: lab\nvlans: { lan: {} }\nvms: { a: { networks: [{ vlan: lan, qos: { rate: 1 mbit, delay: 5 ms } }] }, b: { networks: [lan] } }\n";
    std::fs::write(folder.path().join("lab.yaml"), lab).expect("a file");
    let said = ends(run(folder.path(), &minimega.socket, &["plan", "lab.yaml"]), 1);
    assert!(said.contains("error[qos-unsupported]"), "{said}");
    minimega.state().network.megaform = true;
    let said = ends(run(folder.path(), &minimega.socket, &["plan", "lab.yaml"]), 0);
    assert!(said.contains("qos set a 0 rate=1mbit delay=5ms"), "{said}");
}

#[test]
fn a_way_out_is_refused_where_the_target_has_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let minimega = Minimega::start(folder.path());
    let lab = "experiment: lab\nvlans: { lan: {} }\nvms: { a: { networks: [lan] } }\nnat:\n  out: { vlan: lan, ip: 10.0.0.254/24 }\n";
    std::fs::write(folder.path().join("lab.yaml"), lab).expect("a file");
    // In a namespace that is not there yet, and in one that is; on 3.1.0, and on a release of 2018.
    for (old, there) in [(false, false), (true, false), (false, true), (true, true)] {
        minimega.state().network.old = old;
        if there {
            minimega.by_hand("namespace lab vlans range 300 400");
        }
        minimega.take_log();
        for command in [&["plan", "lab.yaml"][..], &["apply", "--yes", "lab.yaml"]] {
            let said = ends(run(folder.path(), &minimega.socket, command), 1);
            assert!(said.contains("error[target-lacks]: nat.out takes `nat`"), "{said}");
            assert!(said.contains("--> lab.yaml:5:3"), "{said}");
        }
        assert_eq!(changes(minimega.take_log(), "lab"), [] as [&str; 0]);
    }
    // What was made where it is there can be taken away again.
    minimega.state().network.megaform = true;
    ends(run(folder.path(), &minimega.socket, &["apply", "--yes", "lab.yaml"]), 0);
    assert_eq!(minimega.state().network.nat.len(), 1);
    ends(run(folder.path(), &minimega.socket, &["destroy", "--yes", "lab.yaml"]), 0);
    assert!(minimega.state().network.nat.is_empty());
}
