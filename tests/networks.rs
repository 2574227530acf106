//! Bridges, trunks, tunnels, mirrors and added NICs, over the socket, with QEMUs that never start a guest. That frames cross
//! as they should is tested where the switch is.
#![allow(missing_docs)]

mod support;

use std::process::Command;

use support::{Lab, have};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64", "ip"];

/// Stand for the host: the calling thread, and the daemons that it starts, are in a network of their own with one cable.
fn leave_the_host() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    for args in ["link add eth1 type veth peer name wire", "link set eth1 alias lab", "link set wire up"] {
        assert!(ip(args).0, "ip {args}");
    }
}

fn ip(args: &str) -> (bool, String) {
    let output = Command::new("ip").args(args.split(' ')).output().expect("ip is there");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mirrors(lab: &Lab) -> String {
    let text = lab.e(".json true tap").ok().out;
    let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let of = |mirror: &serde_json::Value| format!("{} to {}", mirror["Source"], mirror["Destination"]).replace('"', "");
    answer[0]["Data"]["Mirrors"].as_array().into_iter().flatten().map(of).collect::<Vec<_>>().join(", ")
}

/// One cell of a table with one row.
fn cell(lab: &Lab, line: &str) -> String {
    lab.e(&format!(".annotate false .headers false {line}")).ok().out.trim().to_owned()
}

#[test]
fn a_trunk_is_lent_by_the_host_and_comes_back() {
    if !have(NEEDS) {
        return;
    }
    leave_the_host();
    let mut lab = Lab::with_daemon();
    lab.e("bridge trunk nosuch nosuch").fails("no interface nosuch, neither in the engine's network nor in the host's");
    assert!(lab.rows("bridge").is_empty());
    assert!(!lab.mounted(), "a trunk that is none has left a network");
    assert!(ip("address add 198.51.100.1/24 dev eth1").0);
    lab.e("bridge trunk mega_bridge eth1").fails("it has the address 198.51.100.1/24");
    assert!(ip("address flush dev eth1").0 && ip("link set eth1 up").0 && ip("route add default dev eth1").0);
    lab.e("bridge trunk mega_bridge eth1").fails("a default route leads through it");
    assert!(ip("route del default").0);
    lab.e("bridge trunk mega_bridge eth1").ok();
    assert!(!ip("link show eth1").0, "it is still the host's");
    lab.e("bridge trunk mega_bridge eth1").fails("it is a trunk of bridge mega_bridge already");
    lab.e("tap create LAN name t").ok();
    let row = ["mega_bridge", "false", "[LAN (101)]", "[eth1]", "[]", "[]", "{}"];
    assert_eq!(lab.rows("bridge"), [row]);
    lab.e("bridge destroy mega_bridge").fails("bridge mega_bridge has taps (t), disconnect or delete them first");
    lab.e("bridge config mega_bridge protocols=OpenFlow13").fails("--switch openvswitch");
    lab.e("bridge trunk mega_bridge an-interface-of-many-letters")
        .fails("invalid interface name, it has 28 characters");
    lab.e("tap mirror t nosuch").fails("no tap nosuch, neither one of this namespace");
    lab.e("tap mirror x t").fails("no tap x, neither");
    lab.e("vlans add 5 352").fails("invalid vlan name, `5` is an integer");

    // It stays a trunk without a tap and across a daemon's death.
    lab.e("tap delete t").ok();
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(lab.rows(".columns bridge,trunks bridge"), [["mega_bridge", "[eth1]"]]);
    lab.e("bridge notrunk mega_bridge wire").fails("bridge mega_bridge has no trunk wire");
    lab.e("bridge notrunk mega_bridge eth1").ok();
    let (there, shown) = ip("-d link show eth1");
    assert!(there && shown.contains("alias lab") && shown.contains("promiscuity 0"), "{shown}");
    assert!(!lab.mounted(), "nothing is left, but its network is");

    // Whatever is on a bridge goes with it, or with everything.
    lab.e("bridge trunk one eth1").ok();
    lab.e("bridge destroy one").ok();
    assert!(ip("link show eth1").0);
    lab.e("bridge trunk one eth1").ok();
    lab.e("clear all").ok();
    assert!(ip("link show eth1").0);
    assert!(!lab.mounted());
}

#[test]
fn tunnels_have_keys() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    for (line, error) in [
        ("bridge tunnel vxlan lab example.org 5", "invalid remote address `example.org`"),
        ("bridge tunnel vxlan lab 192.0.2.1 16777216", "expected a number from 0 to 16777215"),
        ("bridge tunnel gre lab 192.0.2.1 many", "expected a number from 0 to 4294967295"),
        ("bridge notunnel lab mega_vxlan0", "no bridge lab"),
    ] {
        lab.e(line).fails(error);
    }
    assert!(!lab.mounted());
    assert_eq!(lab.e(".annotate false bridge tunnel vxlan lab 192.0.2.1 5").ok().out.trim(), "mega_vxlan0");
    lab.e("bridge tunnel vxlan lab 192.0.2.2 5").fails("same key 5");
    lab.e("bridge tunnel vxlan lab fd00::1 6").ok();
    assert_eq!(cell(&lab, ".columns tunnels bridge"), "[mega_vxlan0, mega_vxlan1]");
    let shown = lab.e(".annotate false shell ip -d link show mega_vxlan0").ok().out;
    assert!(shown.contains("vxlan id 5 remote 192.0.2.1") && shown.contains("dstport 4789"), "{shown}");
    lab.e("bridge notunnel lab mega_vxlan0").ok();
    lab.e("bridge notunnel lab mega_vxlan1").ok();
    assert!(lab.rows("bridge").is_empty() && !lab.mounted());
}

#[test]
fn a_nic_whose_bridge_was_deleted_by_hand_is_shown_disconnected() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    for line in ["vm config memory 16", "vm config net LAN DMZ", "vm launch kvm a"] {
        lab.e(line).ok();
    }
    let places = |lab: &Lab| {
        cell(lab, ".columns vlan,bridge vm info").split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(places(&lab), ["[LAN (101), DMZ (102)]", "[mega_bridge, mega_bridge]"]);
    for line in lab.e(".annotate false shell ip -br link show type bridge").ok().out.lines() {
        let device = line.split_whitespace().next().expect("a name");
        lab.e(&format!("shell ip link delete {device}")).ok();
    }
    assert_eq!(places(&lab), ["[disconnected, disconnected]", "[, ]"]);
    let data: serde_json::Value = serde_json::from_str(&lab.e(".json true vm info").ok().out).expect("JSON");
    let nic = &data[0]["Data"][0]["Networks"][0];
    assert_eq!((&nic["VLAN"], &nic["Alias"], &nic["Bridge"]), (&0.into(), &"".into(), &"".into()));
    lab.e("vm net connect a 0 LAN").ok();
    assert_eq!(places(&lab), ["[LAN (101), disconnected]", "[mega_bridge, ]"]);
    // What is not running has its place for the next start.
    lab.e("vm kill a").ok();
    assert_eq!(places(&lab), ["[LAN (101), DMZ (102)]", "[mega_bridge, mega_bridge]"]);
    lab.e("clear namespace all").ok();
    assert!(!lab.mounted());
}

#[test]
fn nics_are_added_while_qemu_runs() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    for line in
        ["vm config memory 16", "vm config net LAN", "vm launch kvm a,b", "vm config net LAN", "clear vm config net"]
    {
        lab.e(line).ok();
    }
    lab.e("vm launch kvm bare").ok();
    lab.e("vm net add a").fails("no NIC to add");
    lab.e("vm net add a LAN,bogus,virtio-net-pci,more").fails("LAN,bogus,virtio-net-pci,more");
    lab.e("vm net add nosuch LAN").fails("vm not found: nosuch");
    lab.e("vm net add a,b mgmt other,virtio-net-pci").ok();
    lab.e("vm net add bare LAN,virtio-net-pci").ok();
    let vlans = |lab: &Lab, vm: &str| cell(lab, &format!(".columns vlan .filter name={vm} vm info"));
    assert_eq!(vlans(&lab, "a"), "[LAN (101), mgmt (102), other (103)]");
    assert_eq!(vlans(&lab, "bare"), "[LAN (101)]");
    // QEMU has each tap open, which is its carrier.
    let taps = |lab: &Lab| cell(lab, ".columns tap vm info").replace(['[', ']', ',', '\n'], " ");
    let attached = |lab: &Lab| {
        for tap in taps(lab).split_whitespace() {
            let shown = lab.e(&format!(".annotate false shell ip -o link show dev {tap}")).ok().out;
            assert!(shown.contains("LOWER_UP") && shown.contains("master"), "{shown}");
        }
    };
    attached(&lab);
    // What QEMU refuses leaves nothing.
    let before = lab.e(".annotate false shell ip -br link").ok().out;
    lab.e("vm net add a LAN,ne2k_isa").fails("QEMU refused");
    assert_eq!(lab.e(".annotate false shell ip -br link").ok().out, before);
    assert_eq!(vlans(&lab, "a"), "[LAN (101), mgmt (102), other (103)]");

    // They are NICs like the others, for a restarted daemon and for the next QEMU too.
    lab.kill_daemon();
    lab.start_daemon();
    lab.e("vm net connect a 2 mgmt").ok();
    assert_eq!(vlans(&lab, "a"), "[LAN (101), mgmt (102), mgmt (102)]");
    lab.e("vm kill a").ok();
    lab.e("vm net add a late").ok();
    lab.e("vm start a").ok();
    assert_eq!(vlans(&lab, "a"), "[LAN (101), mgmt (102), mgmt (102), late (104)]");
    attached(&lab);
    lab.e("clear namespace all").ok();
    assert!(!lab.mounted());
}

#[test]
fn mirrors_are_listed_and_end() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    for line in ["vm config memory 16", "vm config net LAN MON", "vm launch kvm a,b", "tap create MON name watch"] {
        lab.e(line).ok();
    }
    lab.e("tap mirror mega_tap0 nosuch").fails("no tap ");
    lab.e("tap mirror mega_tap0 watch other").fails("tap mega_tap0 is not on bridge other");
    lab.e("tap mirror a 2 b 1").fails("no network 2, VM only has 2 networks");
    lab.e("tap mirror a 0 nosuch 1").fails("vm not found: nosuch");
    lab.e("namespace other tap mirror mega_tap0 watch").fails("no tap ");
    assert_eq!(mirrors(&lab), "");
    lab.e("tap mirror mega_tap0 watch mega_bridge").ok();
    lab.e("tap mirror a 0 b 1").ok();
    lab.e("tap mirror b 1 a 0").fails("without end");
    let both = "mega_tap0 to mega_tap3, mega_tap0 to watch";
    assert_eq!(mirrors(&lab), both);
    lab.e("vm net connect a 0 elsewhere").ok();
    assert_eq!(mirrors(&lab), both);
    lab.e("clear tap mirror a 1").fails("no mirror to mega_tap1");
    lab.e("clear tap mirror b all").ok();
    lab.e("clear tap mirror nosuch").fails("no mirror to nosuch");
    lab.e("clear tap mirror watch").ok();
    assert_eq!(mirrors(&lab), "");
    lab.e("tap mirror a 0 b 1").ok();
    lab.e("vm kill b").ok();
    assert_eq!(mirrors(&lab), "");
    lab.e("tap mirror mega_tap0 watch").ok();
    lab.e("clear tap").ok();
    assert_eq!(mirrors(&lab), "");
}

/// Start a daemon with these options, which must refuse to.
fn refused(lab: &Lab, options: &[&str]) -> String {
    let answer = lab.run(&[&["daemon"], options].concat());
    assert_ne!(answer.code, 0, "{}", answer.out);
    answer.err
}

#[test]
fn a_daemon_with_another_switch_or_network_is_refused_while_taps_are_on_one() {
    if !have(&["root", "ip", "ovsdb-server", "ovs-vswitchd"]) {
        return;
    }
    leave_the_host();
    let mut lab = Lab::with_daemon();
    lab.e("tap create 5 ip 10.0.0.1/24 a").ok();
    lab.kill_daemon();
    let state = std::fs::read(lab.base.join("network.json")).expect("the record");
    for (option, value) in [("--switch", "openvswitch"), ("--network", "host")] {
        let said = refused(&lab, &[option, value]);
        let expected = format!(
            "tap a of this engine is on Linux bridges in the engine's own network, where a daemon with `{option} {value}` would \
             not find it; start the daemon with `--network own --switch linux`"
        );
        assert!(said.contains(&expected), "{said}");
    }
    assert_eq!(std::fs::read(lab.base.join("network.json")).expect("the record"), state);
    lab.start_daemon();
    assert_eq!(lab.rows(".columns tap,vlan tap"), [["a", "5"]], "it is as it was");

    // Nothing is left on it: any switch will do.
    lab.e("clear all").ok();
    lab.kill_daemon();
    let mut command = lab.program();
    command.args(["daemon", "--switch", "openvswitch"]);
    lab.start_daemon_by(command);
    lab.e("tap create 5 name a").ok();
    lab.e("tap create 6 name b").ok();
    lab.kill_daemon();
    let said = refused(&lab, &["--switch", "linux"]);
    assert!(said.contains("tap a of this engine and 1 more are on Open vSwitch in the engine's own network"), "{said}");
    assert!(said.contains("`--network own --switch openvswitch`"), "{said}");
    // Without an option, as one that is started on demand has none, it goes on with what is there.
    lab.start_daemon();
    assert_eq!(lab.rows(".columns tap,vlan tap"), [["a", "5"], ["b", "6"]]);
    assert!(lab.e(".json true check").ok().out.contains("Open vSwitch of the engine's own"));
    lab.e("clear all").ok();
    assert!(!lab.mounted() && !lab.base.join("openvswitch").exists());
    lab.kill_daemon();
    lab.start_daemon();
    assert!(lab.e(".json true check").ok().out.contains("Linux bridges"));
}

/// Delete every bridge as somebody at a shell would.
fn delete_bridges_by_hand(lab: &Lab, openvswitch: bool) {
    if openvswitch {
        let database = format!("--db=unix:{}", lab.base.join("openvswitch/db.sock").display());
        let list = Command::new("ovs-vsctl").args([&database, "list-br"]).output().expect("it starts");
        for bridge in String::from_utf8_lossy(&list.stdout).lines() {
            assert!(
                Command::new("ovs-vsctl").args([&database, "del-br", bridge]).status().expect("it starts").success()
            );
        }
        return;
    }
    let list = lab.run(&["exec-net", "--", "ip", "-o", "link", "show", "type", "bridge"]).ok().out;
    for bridge in list.lines().filter_map(|line| line.split([':', '@']).nth(1)) {
        lab.run(&["exec-net", "--", "ip", "link", "del", bridge.trim()]).ok();
    }
}

#[test]
fn a_host_tap_whose_bridge_was_deleted_is_put_back_by_the_command_that_made_it() {
    if !have(&["root", "ip", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"]) {
        return;
    }
    leave_the_host();
    for switch in ["linux", "openvswitch"] {
        let mut lab = Lab::new();
        let mut command = lab.program();
        command.args(["daemon", "--switch", switch]);
        lab.start_daemon_by(command);
        let address = || lab.run(&["exec-net", "--", "ip", "-o", "-4", "address", "show", "a"]).ok().out;
        lab.e("tap create 5 ip 10.0.0.1/24 a").ok();
        lab.e("tap create 6 name b").ok();
        let before = address();
        delete_bridges_by_hand(&lab, switch == "openvswitch");
        assert_eq!(lab.rows(".columns tap,vlan tap"), [["a", "disconnected"], ["b", "disconnected"]], "{switch}");
        lab.e("namespace other tap create 5 name a").fails("tap already on bridge");
        lab.e("tap create 5 ip 10.0.0.1/24 a").ok();
        assert_eq!(lab.rows(".columns tap,vlan tap"), [["a", "5"], ["b", "disconnected"]], "{switch}");
        assert_eq!(address(), before, "{switch}: it is the same interface");
        lab.e("tap create 5 ip 10.0.0.1/24 a").fails("tap already on bridge");
        lab.e("tap create 7 bridge other name b").ok();
        assert_eq!(lab.rows(".columns bridge,tap,vlan tap"), [["mega_bridge", "a", "5"], ["other", "b", "7"]]);

        // Uplinks too: a trunk of the host's is not lost with the bridge, nor with the last tap.
        lab.e("bridge trunk mega_bridge eth1").ok();
        let end = lab.e("bridge tunnel vxlan mega_bridge 192.0.2.7 5").ok().out;
        delete_bridges_by_hand(&lab, switch == "openvswitch");
        lab.e("tap delete a").ok();
        lab.e("tap delete b").ok();
        // Where each VLAN has a bridge of its own, they have lost nothing, and this is an error.
        lab.e("bridge trunk mega_bridge eth1");
        lab.e("bridge tunnel vxlan mega_bridge 192.0.2.7 5");
        let row = ["[eth1]", &format!("[{}]", end.trim().trim_start_matches("vm: "))].map(str::to_owned);
        assert_eq!(lab.rows(".columns trunks,tunnels .filter bridge=mega_bridge bridge"), [row], "{switch}");
        delete_bridges_by_hand(&lab, switch == "openvswitch");
        lab.e("bridge destroy mega_bridge").ok();
        assert!(ip("link show eth1").0 && !lab.mounted(), "{switch}: the trunk is the host's again");
        lab.e("tap create 5 ip 10.0.0.1/24 a").ok();

        // With another address it is made anew.
        delete_bridges_by_hand(&lab, switch == "openvswitch");
        lab.e("tap create 5 ip 10.0.0.2/24 a").ok();
        assert!(address().contains("10.0.0.2/24") && !address().contains("10.0.0.1/24"), "{}", address());
        lab.e("clear all").ok();
        assert!(!lab.mounted());
    }
}
