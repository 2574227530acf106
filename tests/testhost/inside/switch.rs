//! Open vSwitch with the kernel's datapath: where frames cross, and where they do not.

use std::collections::BTreeMap;

use crate::support::{Lab, have, testhost, wait_for};

/// Who hears the frames of each of these senders.
fn heard(lab: &Lab, senders: &[&str]) -> BTreeMap<String, Vec<String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testhost/frames.py");
    let answer = lab.run(&[&["exec-net", "--", "python3", script], senders].concat()).ok();
    serde_json::from_str(&answer.out).expect("JSON")
}

#[track_caller]
fn crosses(lab: &Lab, expected: &[(&str, &[&str])]) {
    let senders: Vec<&str> = expected.iter().map(|(sender, _)| *sender).collect();
    let found = heard(lab, &senders);
    for (sender, places) in expected {
        assert_eq!(found[*sender], *places, "from {sender}, of {found:?}");
    }
}

fn ovs(lab: &Lab, words: &str) -> String {
    let database = format!("--db=unix:{}", lab.base.join("openvswitch/db.sock").display());
    let output = std::process::Command::new("ovs-vsctl").arg(database).args(words.split(' ')).output();
    String::from_utf8_lossy(&output.expect("ovs-vsctl starts").stdout).trim().to_owned()
}

#[test]
#[ignore = "runs in the test host"]
fn open_vswitch_in_the_kernel_keeps_vlans_apart() {
    if !testhost::inside() || !have(&["root", "python3", "ovs-vswitchd", "ovs-vsctl", "ip"]) {
        return;
    }
    let mut lab = Lab::new();
    let mut command = lab.program();
    command.args(["daemon", "--switch", "openvswitch"]);
    lab.start_daemon_by(command);
    for tap in ["5 name a1", "5 name a2", "6 name b1", "6 name b2", "7 name mon"] {
        lab.e(&format!("tap create {tap}")).ok();
    }
    let ip = |args: &str| lab.run(&[&["exec-net", "--", "ip"], &*args.split(' ').collect::<Vec<_>>()].concat()).ok();
    ip("link add eth1 type veth peer name wire");
    ip("link set wire up");
    lab.e("bridge trunk mega_bridge eth1").ok();
    assert!(lab.e(".json true check").ok().out.contains("Open vSwitch of the engine's own, kernel datapath"));
    assert_eq!(ovs(&lab, "get bridge mega_bridge datapath_type"), "system");
    ip("link show ovs-system");

    // Two VLANs, and a trunk that carries both with their tags.
    let apart: [(&str, &[&str]); 8] = [
        ("a1", &["a2", "wire.5"]),
        ("a2", &["a1", "wire.5"]),
        ("b1", &["b2", "wire.6"]),
        ("b2", &["b1", "wire.6"]),
        ("mon", &["wire.7"]),
        ("wire.5", &["a1", "a2"]),
        ("wire.6", &["b1", "b2"]),
        ("wire", &[]),
    ];
    crosses(&lab, &apart);

    // A mirror, in both directions; the copies are nowhere else. It stays when ovs-vswitchd opens its ports anew.
    lab.e("tap mirror a1 mon").ok();
    let mirrored: [(&str, &[&str]); 8] = [
        ("a1", &["a2", "mon", "wire.5"]),
        ("a2", &["a1", "mon", "wire.5"]),
        ("b1", &["b2", "wire.6"]),
        ("b2", &["b1", "wire.6"]),
        ("mon", &["wire.7"]),
        ("wire.5", &["a1", "a2", "mon"]),
        ("wire.6", &["b1", "b2"]),
        ("wire", &[]),
    ];
    crosses(&lab, &mirrored);
    let pid = std::fs::read_to_string(lab.base.join("openvswitch/ovs-vswitchd.pid")).expect("its pid file");
    let old: i32 = pid.trim().parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    wait_for("another ovs-vswitchd", || {
        let now = std::fs::read_to_string(lab.base.join("openvswitch/ovs-vswitchd.pid")).unwrap_or_default();
        now.trim().parse::<i32>().is_ok_and(|now| now != old)
    });
    // A change is answered when it has been made by the new one.
    lab.e("tap create 8 name late").ok();
    crosses(&lab, &mirrored);
    // Nor does another datapath change anything, which opens them anew too.
    for datapath in ["netdev", "system"] {
        ovs(&lab, &format!("set bridge mega_bridge datapath_type={datapath}"));
        crosses(&lab, &mirrored);
    }
    lab.e("clear tap mirror mon").ok();
    crosses(&lab, &apart);

    lab.e(TUNNEL).ok();
    ovs(&lab, "del-br mega_bridge");
    comes_back(&lab);
    assert!(!lab.mounted() && !lab.base.join("openvswitch").exists());
}

const TUNNEL: &str = "bridge tunnel vxlan mega_bridge 192.0.2.7 5";

/// A bridge that was deleted by hand: everybody is off it, and what made its ports puts them back.
#[track_caller]
fn comes_back(lab: &Lab) {
    assert_eq!(lab.rows(".columns bridge,vlans,trunks,tunnels bridge"), [["mega_bridge", "[]", "[]", "[]"]]);
    crosses(lab, &[("a1", &[]), ("a2", &[]), ("wire.5", &[])]);
    lab.e("tap create 5 name a1").ok();
    lab.e("tap create 5 name a2").ok();
    crosses(lab, &[("a1", &["a2"]), ("a2", &["a1"]), ("wire.5", &[])]);
    lab.e("bridge trunk mega_bridge eth1").ok();
    assert_eq!(lab.rows(".columns bridge,vlans,trunks bridge"), [["mega_bridge", "[5]", "[eth1]"]]);
    crosses(lab, &[("a1", &["a2", "wire.5"]), ("a2", &["a1", "wire.5"]), ("b1", &[]), ("wire.5", &["a1", "a2"])]);
    lab.e("bridge trunk mega_bridge eth1").fails("it is a trunk of bridge mega_bridge already");
    // A tunnel that lost its bridge is the one that is asked for.
    assert!(lab.e(TUNNEL).ok().out.trim().ends_with("mega_vxlan0"));
    assert_eq!(lab.rows(".columns bridge,tunnels bridge"), [["mega_bridge", "[mega_vxlan0]"]]);
    lab.e(TUNNEL).fails("make a second vxlan tunnel with the same key 5");
    lab.e("clear all").ok();
}

#[test]
#[ignore = "runs in the test host"]
fn a_filtering_bridge_comes_back() {
    if !testhost::inside() || !have(&["root", "python3", "ip"]) {
        return;
    }
    let lab = Lab::with_daemon();
    assert!(lab.e(".json true check").ok().out.contains("Linux bridges with VLAN filtering"));
    for tap in ["5 name a1", "5 name a2", "6 name b1"] {
        lab.e(&format!("tap create {tap}")).ok();
    }
    let ip = |args: &str| lab.run(&[&["exec-net", "--", "ip"], &*args.split(' ').collect::<Vec<_>>()].concat()).ok();
    ip("link add eth1 type veth peer name wire");
    ip("link set wire up");
    lab.e("bridge trunk mega_bridge eth1").ok();
    lab.e(TUNNEL).ok();
    ip("link del mega_bridge");
    comes_back(&lab);
    assert!(!lab.mounted());
}
