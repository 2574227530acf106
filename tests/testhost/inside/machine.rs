//! What the test host promises to those who use it.

use std::process::Command;

use crate::support::{Lab, have, testhost, wait_for};

#[track_caller]
fn sh(script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).output().expect("bash starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{text}");
    text.into_owned()
}

#[test]
#[ignore = "runs in the test host"]
fn its_kernel_has_what_others_lack() {
    if !testhost::inside() {
        return;
    }
    sh("ip link add br0 type bridge vlan_filtering 1; ip link del br0");
    sh("ip link add vx0 type vxlan id 1 dstport 4789 remote 127.0.0.1 dev lo; ip link del vx0");
    sh("ip link add gre1 type gretap local 127.0.0.1 remote 127.0.0.2; ip link del gre1");
    sh("tc qdisc add dev lo root netem delay 1ms; tc qdisc del dev lo root");
    sh("test -e /sys/module/openvswitch -a -e /dev/nbd0 -a -e /dev/kvm -a -e /dev/net/tun");
}

#[test]
#[ignore = "runs in the test host"]
fn a_guest_boots_in_it() {
    if !testhost::inside() || !have(&["root", "guest", "qemu-system-x86_64"]) {
        return;
    }
    let (kernel, initrd) = crate::support::guest();
    let lab = Lab::with_daemon();
    lab.e(&format!("vm config kernel {}", kernel.display())).ok();
    lab.e(&format!("vm config initrd {}", initrd.display())).ok();
    lab.e("vm config memory 128").ok();
    lab.e("vm config networks LAN").ok();
    lab.e("vm config append ip.0=10.0.0.2/24").ok();
    lab.e("vm launch kvm a").ok();
    lab.e("tap create LAN ip 10.0.0.1/24 here").ok();
    lab.e("vm start a").ok();
    wait_for("the guest to answer", || {
        lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", "10.0.0.2"]).code == 0
    });
}
