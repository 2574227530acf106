//! What the test host promises to those who use it.

use std::process::Command;

use crate::support::testhost;

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
