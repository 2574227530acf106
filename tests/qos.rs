//! `qos` through a real daemon with VMs that never run: what is checked, kept and put on taps. What it does to frames is
//! measured in src/host/linux/network/tests/shaping.rs and tests/testhost.
#![allow(missing_docs)]

mod support;

use serde_json::Value;
use support::{Lab, have, wait_for};

/// The rate that tc(8) shows for the tap of a NIC.
fn rate(lab: &Lab, vm: &str, nic: usize) -> Option<String> {
    let rows =
        lab.e(&format!(".annotate false .headers false .csv true .columns name,tap .filter name={vm} vm info")).ok();
    let taps = rows.out.split(['[', ']']).nth(1).expect("a list of taps").to_owned();
    let tap = taps.split(", ").nth(nic).expect("a tap").to_owned();
    let shown = lab.run(&["exec-net", "--", "tc", "qdisc", "show", "dev", &tap]).ok().out;
    let line = shown.lines().find(|line| line.contains(" 6d72: "))?.to_owned();
    Some(line.split(" rate ").nth(1)?.split(' ').next()?.to_owned())
}

/// The column qos of a VM.
fn column(lab: &Lab, vm: &str) -> String {
    let answer = lab.e(&format!(".annotate false .headers false .columns name,qos .filter name={vm} vm info")).ok();
    answer.out.split_once('[').map(|(_, rest)| format!("[{}", rest.trim_end())).unwrap_or_default()
}

/// The records of a VM's NICs.
fn records(lab: &Lab, vm: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&lab.e(".json true vm info").ok().out).expect("JSON");
    let vms = answer.pointer("/0/Data").and_then(Value::as_array).expect("a list of VMs");
    let found = vms.iter().find(|record| record["Name"] == vm).expect("the VM");
    found["Networks"].as_array().expect("a list of NICs").clone()
}

fn launched(vms: &str) -> Lab {
    let lab = Lab::with_daemon();
    lab.e("vm config memory 64").ok();
    lab.e("vm config networks A B").ok();
    lab.e(&format!("vm launch kvm {vms}")).ok();
    lab
}

#[test]
fn a_shape_follows_its_nic() {
    if !have(&["root", "qemu-system-x86_64", "tc"]) {
        return;
    }
    let mut lab = launched("a");
    lab.e("qos add a 0 rate 1 mbit").ok();
    assert_eq!((column(&lab, "a").as_str(), rate(&lab, "a", 0).as_deref()), ("[0: rate 1mbit]", Some("1Mbit")));
    assert_eq!(rate(&lab, "a", 1), None);

    // Away, in place of itself, and back.
    lab.e("vm net disconnect a 0").ok();
    lab.e("qos add a 0 rate 2 mbit").ok();
    lab.e("vm net connect a 0 C").ok();
    assert_eq!(rate(&lab, "a", 0).as_deref(), Some("2Mbit"));

    // A daemon that ends without warning, and one whose tap was changed by hand.
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!((column(&lab, "a").as_str(), rate(&lab, "a", 0).as_deref()), ("[0: rate 2mbit]", Some("2Mbit")));
    let tap = records(&lab, "a")[0]["Tap"].as_str().expect("a tap").to_owned();
    lab.kill_daemon();
    lab.run(&["exec-net", "--", "tc", "qdisc", "del", "dev", &tap, "root"]).ok();
    lab.start_daemon();
    assert_eq!(rate(&lab, "a", 0).as_deref(), Some("2Mbit"));

    // By hand while the daemon runs: what is shown is what is there, and setting it again puts it back.
    let by_hand = |args: &[&str]| lab.run(&[&["exec-net", "--", "tc", "qdisc"], args].concat()).ok();
    by_hand(&["del", "dev", &tap, "root"]);
    assert_eq!((column(&lab, "a").as_str(), &records(&lab, "a")[0]["Qos"]), ("[]", &serde_json::json!({})));
    by_hand(&["add", "dev", &tap, "root", "tbf", "rate", "3mbit", "burst", "10kb", "latency", "50ms"]);
    assert_eq!(column(&lab, "a"), "[0: rate 3mbit]");
    lab.e("qos add a 0 rate 2 mbit").ok();
    assert_eq!((column(&lab, "a").as_str(), rate(&lab, "a", 0).as_deref()), ("[0: rate 2mbit]", Some("2Mbit")));
    // 1501 bits are no whole number of bytes.
    lab.e("qos set a 1 rate=1.501kbit").ok();
    assert_eq!(column(&lab, "a"), "[0: rate 2mbit, 1: rate 1.501kbit]");

    // The tap goes with QEMU and is made anew; what is set in between counts.
    lab.e("vm kill a").ok();
    wait_for("the VM to end", || lab.e(".columns state vm info").ok().out.contains("QUIT"));
    lab.e("qos set a 1 rate=512kbit").ok();
    lab.e("vm start a").ok();
    assert_eq!(column(&lab, "a"), "[0: rate 2mbit, 1: rate 512kbit]");
    assert_eq!([rate(&lab, "a", 0), rate(&lab, "a", 1)].map(Option::unwrap), ["2Mbit", "512Kbit"]);
    let shown: Vec<Value> = records(&lab, "a").iter().map(|nic| nic["Qos"].clone()).collect();
    assert_eq!(shown, [serde_json::json!({ "rate": "2mbit" }), serde_json::json!({ "rate": "512kbit" })]);
}

#[test]
fn a_refusal_changes_nothing() {
    if !have(&["root", "qemu-system-x86_64", "tc"]) {
        return;
    }
    let lab = launched("a,b");
    lab.e("qos add all 0 rate 1 mbit").ok();
    for (command, error) in [
        ("qos add all 2 rate 2 mbit", "no network 2, VM only has 2 networks"),
        ("qos add all x loss 1", "no network x, VM only has 2 networks"),
        ("qos add nosuch 0 loss 1", "vm not found: nosuch"),
        ("qos add a 0 loss 99.91", "invalid loss `99.91`, expected a percentage from 0 to 99.9"),
        ("qos add a 0 delay 100", "invalid delay `100`, expected a duration such as 100ms or 1.5s"),
        ("qos add a 0 rate -1 mbit", "invalid rate `-1mbit`"),
        ("qos add a 0 rate 1 tbit", "invalid command"),
        ("qos set a 0 rate=2mbit jitter=5ms", "jitter 5ms needs a delay"),
        ("qos set a 0 rate=2mbit rate=2mbit", "rate is set twice"),
        ("qos set a 0 rate=2mbit speed=2", "invalid setting `speed=2`"),
        ("clear qos a 2", "no network 2, VM only has 2 networks"),
    ] {
        lab.e(command).fails(error);
        assert_eq!(column(&lab, "a"), "[0: rate 1mbit]", "{command}");
    }
    // The tap of the last VM is gone, so the one before it keeps what it had.
    let mut ids = lab.rows(".columns id,name vm info");
    ids.sort();
    let (first, last) = (ids[0][1].as_str(), ids[1][1].as_str());
    let tap = records(&lab, last)[0]["Tap"].as_str().expect("a tap").to_owned();
    lab.run(&["exec-net", "--", "ip", "link", "del", &tap]).ok();
    lab.e("qos add all 0 rate 2 mbit")
        .fails(&format!("no tap {tap}, which NIC 0 of {last} had: it was deleted by hand; `vm kill {last}`"));
    lab.e(&format!("vm net connect {last} 0 C")).fails(&format!("no tap {tap}, which NIC 0 of {last} had"));
    lab.e(&format!("tap mirror {first} 0 {last} 0")).fails(&format!("no tap {tap}, which NIC 0 of {last} had"));
    assert_eq!([column(&lab, first), column(&lab, last)], ["[0: rate 1mbit]", "[0: rate 1mbit]"]);
    assert_eq!(rate(&lab, first, 0).as_deref(), Some("1Mbit"));

    // Without netem in the kernel what was there before stays.
    let told = lab.e("check").ok().out;
    let delayed = lab.e(&format!("qos add {first} 0 delay 10ms"));
    let found = || (column(&lab, first), rate(&lab, first, 0));
    if told.contains("CONFIG_NET_SCH_NETEM (module sch_netem)") {
        delayed
            .fails("this host cannot delay or drop frames: the kernel option CONFIG_NET_SCH_NETEM (module sch_netem)");
        assert_eq!(found(), ("[0: rate 1mbit]".to_owned(), Some("1Mbit".to_owned())));
    } else {
        delayed.ok();
        assert_eq!(found(), ("[0: delay 10ms]".to_owned(), None));
    }
}

#[test]
fn a_shape_is_taken_off_one_nic_or_all() {
    if !have(&["root", "qemu-system-x86_64", "tc"]) {
        return;
    }
    let lab = launched("a,b");
    let all = || lab.e("qos add all 0 rate 1 mbit").code + lab.e("qos add all 1 rate 2 mbit").code;
    for (command, left) in [
        ("clear qos a 0", ["[1: rate 2mbit]", "[0: rate 1mbit, 1: rate 2mbit]"]),
        ("clear qos a", ["[]", "[0: rate 1mbit, 1: rate 2mbit]"]),
        ("clear qos b all", ["[0: rate 1mbit, 1: rate 2mbit]", "[]"]),
        ("clear qos all 1", ["[0: rate 1mbit]", "[0: rate 1mbit]"]),
        ("clear qos all", ["[]", "[]"]),
        // What is off can be taken off.
        ("clear qos all", ["[]", "[]"]),
    ] {
        assert_eq!(all(), 0);
        lab.e(command).ok();
        assert_eq!([column(&lab, "a"), column(&lab, "b")], left, "{command}");
        for (vm, left) in ["a", "b"].into_iter().zip(left) {
            for nic in 0..2 {
                assert_eq!(rate(&lab, vm, nic).is_some(), left.contains(&format!("{nic}: ")), "{command}: {vm} {nic}");
            }
        }
    }
}
