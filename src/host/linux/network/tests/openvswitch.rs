//! The tests of the Linux switch on Open vSwitch, which the engine starts in the lab's namespace, and what only this one
//! does.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::shaping::{qdiscs, reshape};
use super::*;
use crate::host::linux::process;
use crate::host::{BondMode, Collecting, Lacp, ProcessId, Shaping};

/// Whether Open vSwitch has made an interface. They come and go a moment after what they are for.
pub(super) fn is_made_by_it(name: &str) -> bool {
    SWITCH.with_borrow(|switch| *switch != SwitchChoice::Linux)
        && ["ovs-netdev", "ovs-system", "mega_bridge", "lab", "lab2", "other", "underlay"].contains(&name)
}

impl LinuxNetwork {
    pub(super) fn end_switch(&self) {
        let _ = self.inside(false, |ports| ports.switch().end());
    }
}

/// Is it installed? A test without it is skipped, but not in CI.
fn installed() -> bool {
    let there = std::path::Path::new("/usr/sbin/ovs-vswitchd").exists();
    if !there {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs openvswitch-switch");
        eprintln!("skipped: this test needs openvswitch-switch");
    }
    there && root()
}

fn on_openvswitch(test: fn()) {
    if installed() {
        SWITCH.set(SwitchChoice::OpenVswitch { socket: None });
        test();
    }
}

macro_rules! the_same_on_openvswitch {
    ($($(#[$meta:meta])* $test:ident in $module:path;)*) => {
        $(
            $(#[$meta])*
            #[test]
            fn $test() {
                use $module as tests;
                on_openvswitch(tests::$test);
            }
        )*
    };
}

the_same_on_openvswitch! {
    frames_stay_on_their_segment in super::super::tests;
    a_host_tap_puts_the_engine_on_its_segment_only in super::super::tests;
    a_restarted_daemon_finds_everything in super::super::tests;
    release_leaves_no_trace in super::super::tests;
    a_failure_leaves_nothing in super::super::tests;
    two_hundred_taps in super::super::tests;
    vlans_cross_a_trunk_each_for_itself in super::super::tests::uplinks;
    two_trunks_are_connected_as_by_one_switch in super::super::tests::uplinks;
    vlans_cross_a_vxlan_tunnel in super::super::tests::uplinks;
    tcp_with_offloads_crosses_trunks_and_tunnels in super::super::tests::uplinks;
    a_mirror_copies_both_directions_and_only_of_its_source in super::super::tests::uplinks;
    a_rate_is_that_of_the_frames_that_arrive in super::super::tests::shaping;
    a_shape_stays_on_its_tap_and_goes_with_it in super::super::tests::shaping;
}

/// Files of the lab's own Open vSwitch.
fn folder(lab: &Lab) -> std::path::PathBuf {
    lab.folder.path().join("openvswitch")
}

fn process_of(lab: &Lab, program: &str) -> ProcessId {
    // One that has just been started writes its file a moment later.
    for _ in 0..3000 {
        let text = std::fs::read_to_string(folder(lab).join(format!("{program}.pid"))).unwrap_or_default();
        if let Some(id) = text.trim().parse().ok().and_then(|pid| ProcessId::of(pid).ok()) {
            return id;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{program} does not run");
}

fn kill(lab: &Lab, program: &str) {
    process::signal(process_of(lab, program), Signal::SIGKILL).unwrap();
}

/// What somebody does by hand.
fn by_hand(lab: &Lab, args: &[&str]) -> String {
    let socket = format!("--db=unix:{}", folder(lab).join("db.sock").display());
    let output = Command::new("ovs-vsctl").arg(socket).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Guest {
    /// Whether an experiment's frame comes within some milliseconds.
    fn hears_within(&self, milliseconds: u16) -> bool {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(milliseconds)).unwrap() == 0 {
                return false;
            }
            let length = (&self.device).read(&mut buffer).unwrap();
            if buffer[VIRTIO.len()..length][12..14] == EXPERIMENT {
                return true;
            }
        }
    }
}

#[test]
fn its_programs_outlive_the_daemon_and_go_with_the_namespace() {
    on_openvswitch(|| {
        let mut lab = Lab::new(Form::Auto);
        assert_eq!(lab.network.list().unwrap(), []);
        assert!(!folder(&lab).exists(), "started without need");
        lab.network.create(&vm("a", Some(1))).unwrap();
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(folder(&lab)).unwrap().permissions().mode() & 0o777, 0o700);
        let before = ["ovsdb-server", "ovs-vswitchd"].map(|program| process_of(&lab, program));
        lab.restart();
        lab.network.create(&vm("b", Some(1))).unwrap();
        assert_eq!(["ovsdb-server", "ovs-vswitchd"].map(|program| process_of(&lab, program)), before);
        lab.network.delete_all(&["a", "b"].map(name)).unwrap();
        lab.network.release(true).unwrap();
        assert!(process::is_alive(before[0]), "ended while in use");
        lab.network.release(false).unwrap();
        assert!(!before.into_iter().any(process::is_alive));
        assert!(!folder(&lab).exists() && !lab.pin().exists());
    });
}

#[test]
fn a_bridge_with_the_name_of_another_interface_is_refused() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        lab.network.create(&vm("a", Some(1))).unwrap();
        let before = (lab.network.list().unwrap(), lab.network.bridges().unwrap());
        for taken in ["a", "lo"] {
            let bridge = BridgeName::new(taken).unwrap();
            let tap = NewTap { segment: Some(Segment { bridge: bridge.clone(), ..segment(1) }), ..vm("b", Some(1)) };
            let refused =
                [lab.network.create(&tap).unwrap_err(), lab.network.configure(&bridge, "stp_enable=true").unwrap_err()];
            for error in refused {
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(source.starts_with(&format!("bridge {taken} would need an interface")), "{source}");
            }
            assert_eq!((lab.network.list().unwrap(), lab.network.bridges().unwrap()), before);
        }
    });
}

#[test]
fn what_dies_comes_back() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        lab.network.create_all(&[vm("a", Some(1)), vm("b", Some(1)), vm("c", Some(2))]).unwrap();
        let [a, b] = [("a", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        a.shout(1);
        assert_eq!(b.hear(), 1);
        // The database alone: frames go on, and the next change starts it again.
        kill(&lab, "ovsdb-server");
        a.shout(2);
        assert_eq!(b.hear(), 2);
        lab.network.create(&vm("d", Some(2))).unwrap();
        // The switch: nobody asks for anything, and it comes back all the same, with its bridges.
        let dead = process_of(&lab, "ovs-vswitchd");
        kill(&lab, "ovs-vswitchd");
        let start = std::time::Instant::now();
        let mut number = 3;
        loop {
            a.shout(number);
            if b.hears_within(200) {
                break;
            }
            number += 1;
            assert!(start.elapsed() < Duration::from_secs(60), "ovs-vswitchd was not started again");
        }
        assert_ne!(process_of(&lab, "ovs-vswitchd"), dead);
        // Both, and what is changed next is done by those that come.
        kill(&lab, "ovs-vswitchd");
        kill(&lab, "ovsdb-server");
        lab.network.connect(&name("d"), Some(&segment(1))).unwrap();
        let d = Guest::attach(&lab, "d", 4);
        a.shout(200);
        assert_eq!(d.hear(), 200);
        assert_eq!(lab.network.list().unwrap().len(), 4);
    });
}

#[test]
fn a_shape_stays_whatever_happens_to_its_port() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        lab.network.create_all(&[vm("a", None), vm("b", Some(1)), host("h", Some(1), &[])]).unwrap();
        for tap in ["a", "b", "h"] {
            lab.network.shape(&[reshape(tap, "", "rate=10mbit")]).unwrap();
        }
        let port = |tap: &str| if tap == "h" { "megaport0" } else { tap }.to_owned();
        if qdiscs(&lab, "a").is_none() {
            return;
        }
        let shaped = |when: &str| {
            for tap in ["a", "b", "h"] {
                let found = qdiscs(&lab, &port(tap)).unwrap();
                assert!(
                    found.starts_with("qdisc tbf 6d72: root") && found.contains("rate 10Mbit"),
                    "{tap} {when}: {found}"
                );
            }
        };
        shaped("at first");
        lab.network.connect(&name("a"), Some(&segment(1))).unwrap();
        shaped("when it was connected");
        lab.network.connect(&name("b"), Some(&segment(2))).unwrap();
        lab.network
            .connect(&name("b"), Some(&Segment { bridge: BridgeName::new("lab").unwrap(), ..segment(1) }))
            .unwrap();
        shaped("on another bridge");
        lab.network.connect(&name("b"), Some(&segment(1))).unwrap();
        let taps = ["a", "b"].map(name).to_vec();
        let (mode, lacp) = (BondMode::BalanceSlb, Lacp::Off);
        lab.network.bond(&Bond { name: name("bond"), taps, mode, lacp, fallback: false, qinq: false }).unwrap();
        shaped("in a bond");
        lab.network.unbond(&name("bond")).unwrap();
        shaped("out of it");
        kill(&lab, "ovs-vswitchd");
        // It is done by the switch that is started then.
        lab.network.connect(&name("a"), Some(&segment(3))).unwrap();
        shaped("after a restart");
        assert_eq!(by_hand(&lab, &["--columns=type", "list", "qos"]), "type                : linux-noop");
        lab.network.delete_all(&["a", "b", "h"].map(name)).unwrap();
        lab.network.release(true).unwrap();
        assert_eq!(by_hand(&lab, &["list", "qos"]), "");
    });
}

#[test]
fn the_database_dies_under_load() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        lab.network.create(&vm("stay", Some(1))).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let network = &lab.network;
                scope.spawn(move || {
                    for round in 0..4 {
                        let taps: Vec<NewTap> =
                            (0..5).map(|n| vm(&format!("w{worker}r{round}n{n}"), Some(n + 1))).collect();
                        network.create_all(&taps).unwrap();
                        let names: Vec<TapName> = taps.iter().map(|tap| tap.tap.clone()).collect();
                        network.connect(&names[0], Some(&segment(9))).unwrap();
                        network.delete_all(&names).unwrap();
                    }
                });
            }
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(500));
                kill(&lab, "ovsdb-server");
            }
        });
        assert_eq!(lab.network.list().unwrap(), [port(&vm("stay", Some(1)))]);
        assert_eq!(lab.interfaces(), ["stay"]);
        assert_eq!(by_hand(&lab, &["list-ports", "mega_bridge"]), "stay");
    });
}

#[test]
fn more_ports_than_a_linux_bridge_has() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        let taps: Vec<NewTap> = (0..1100).map(|n| vm(&format!("t{n}"), Some(n % 10 + 1))).collect();
        lab.network.create_all(&taps).unwrap();
        assert_eq!(lab.network.list().unwrap().len(), 1100);
        let [first, last, other] =
            [("t0", 1), ("t1090", 2), ("t1099", 3)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        let crosses = |number| {
            first.shout(number);
            assert_eq!(last.hear(), number);
            assert!(!other.hears_within(20), "a frame has come to another VLAN");
        };
        crosses(1);
        // The one that is started again has all of them to open, and is waited for.
        kill(&lab, "ovs-vswitchd");
        lab.network.connect(&name("t7"), Some(&segment(3))).unwrap();
        crosses(2);
        drop((first, last, other));
        lab.network.delete_all(&taps.iter().map(|tap| tap.tap.clone()).collect::<Vec<_>>()).unwrap();
        assert_eq!(lab.interfaces(), Vec::<String>::new());
        assert_eq!(by_hand(&lab, &["list-br"]), "");
        lab.network.release(false).unwrap();
        assert!(!folder(&lab).exists() && !lab.pin().exists());
    });
}

#[test]
fn a_limit_of_open_files_is_told_before_it_is_reached() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        lab.network.create(&vm("a", Some(1))).unwrap();
        let pid = process_of(&lab, "ovs-vswitchd").pid.to_string();
        let limit = |files: usize| {
            let status = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:20000")]).status();
            assert!(status.unwrap().success());
        };
        limit(100);
        let taps: Vec<NewTap> = (0..100).map(|n| vm(&format!("t{n}"), Some(1))).collect();
        let error = lab.network.create_all(&taps).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("needs an open file for each port") && source.contains("`ulimit -Hn`"), "{source}");
        assert_eq!(lab.network.list().unwrap(), [port(&vm("a", Some(1)))]);
        assert_eq!(lab.interfaces(), ["a"]);
        limit(1000);
        lab.network.create_all(&taps).unwrap();
        assert_eq!(lab.network.list().unwrap().len(), 101);
    });
}

#[test]
fn what_is_deleted_by_hand_is_made_again_by_the_next_change() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        let taps = ["a", "b", "c"].map(|tap| vm(tap, Some(1)));
        lab.network.create_all(&taps).unwrap();
        by_hand(&lab, &["del-port", "a"]);
        assert_eq!(
            lab.network.list().unwrap().iter().map(|port| port.segment.is_some()).collect::<Vec<_>>(),
            [false, true, true]
        );
        lab.network.connect(&name("a"), Some(&segment(1))).unwrap();
        assert_eq!(lab.network.list().unwrap(), taps.each_ref().map(port));
        by_hand(&lab, &["del-br", "mega_bridge"]);
        for tap in ["a", "b"] {
            lab.network.connect(&name(tap), Some(&segment(1))).unwrap();
        }
        let [a, b] = [("a", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        a.shout(1);
        assert_eq!(b.hear(), 1);
        drop((a, b));
        // An interface that is gone leaves no row, and one that comes again under its name is another one.
        lab.inside(|| {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link_by_name("a").unwrap().unwrap();
            netlink.delete_link(link.index).unwrap();
        });
        lab.network.create(&vm("a", Some(1))).unwrap();
        let [a, b] = [("a", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        a.shout(2);
        assert_eq!(b.hear(), 2);
        lab.network.delete_all(&["a", "b", "c"].map(name)).unwrap();
        assert_eq!(by_hand(&lab, &["list-br"]), "");
    });
}

#[test]
fn a_bond_fails_over() {
    on_openvswitch(|| {
        let mut lab = Lab::new(Form::Auto);
        lab.network.create_all(&["a0", "a1", "b"].map(|tap| vm(tap, Some(1)))).unwrap();
        let [a0, a1, b] = [("a0", 1), ("a1", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        let bond = Bond {
            name: name("bond"),
            taps: ["a0", "a1"].map(name).to_vec(),
            mode: BondMode::ActiveBackup,
            lacp: Lacp::Off,
            fallback: true,
            qinq: false,
        };
        lab.network.bond(&bond).unwrap();
        let listed = &lab.network.bonds().unwrap()[0];
        assert_eq!((&listed.name, listed.mode, listed.lacp, listed.taps.len()), (&bond.name, bond.mode, bond.lacp, 2));
        assert_eq!(lab.network.bridges().unwrap()[0].bonds, ["bond"]);
        assert_eq!(lab.network.list().unwrap().iter().filter(|port| port.segment == Some(segment(1))).count(), 3);
        let again = lab.network.bond(&Bond { name: name("other"), ..bond.clone() }).unwrap_err();
        assert_eq!(std::error::Error::source(&again).unwrap().to_string(), "a0 is part of bond bond");

        // A frame comes out of one of the two, and of the other one when that has lost its carrier.
        let mut members = vec![a0, a1];
        let until_one_hears = |members: &[Guest]| {
            for number in 0..200 {
                b.shout(number);
                if let Some(at) = members.iter().position(|member| member.hears_within(50)) {
                    return at;
                }
            }
            panic!("no member of the bond hears anything");
        };
        let active = until_one_hears(&members);
        drop(members.remove(active));
        until_one_hears(&members);
        members[0].shout(201);
        while b.hear() != 201 {}

        // A restarted daemon dissolves it, and both are ports as before.
        lab.restart();
        lab.network.unbond(&bond.name).unwrap();
        assert_eq!(lab.network.bonds().unwrap(), []);
        drop(members);
        let [a0, a1] = [("a0", 1), ("a1", 3)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        b.shout(202);
        let last = |guest: &Guest| while guest.hear() != 202 {};
        last(&a0);
        last(&a1);
        // A VM that ends takes its bond along.
        let all = Bond { mode: BondMode::BalanceTcp, lacp: Lacp::Active, fallback: false, qinq: true, ..bond };
        lab.network.bond(&all).unwrap();
        assert_eq!(by_hand(&lab, &["get", "port", "bond", "vlan_mode", "lacp"]), "dot1q-tunnel\nactive");
        drop((a0, a1));
        lab.network.delete_all(&["a0", "a1"].map(name)).unwrap();
        assert_eq!(by_hand(&lab, &["list-ports", "mega_bridge"]), "b");
    });
}

#[test]
fn a_mirror_of_a_bonded_nic_is_of_that_nic_alone() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        let taps = ["a0", "a1", "b", "c", "d"].map(|tap| vm(tap, Some(if tap == "d" { 2 } else { 1 })));
        lab.network.create_all(&taps).unwrap();
        let mirror = |source: &str, destination: &str| Mirror { source: name(source), destination: name(destination) };
        let bond = Bond {
            name: name("bond"),
            taps: ["a0", "a1"].map(name).to_vec(),
            mode: BondMode::BalanceSlb,
            lacp: Lacp::Off,
            fallback: false,
            qinq: false,
        };
        // One from before the bond and one from after it, and one whose copies go to a NIC of it.
        lab.network.mirror(&mirror("a0", "d")).unwrap();
        lab.network.bond(&bond).unwrap();
        lab.network.mirror(&mirror("b", "a1")).unwrap();
        let wanted = [mirror("a0", "d"), mirror("b", "a1")];
        assert_eq!(lab.network.mirrors().unwrap(), wanted);
        let [a0, a1] = [("a0", 1), ("a1", 1)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        let [b, d] = [("b", 2), ("d", 4)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        a1.send(b.mac, EXPERIMENT, &[1]);
        while b.hear() != 1 {}
        a0.send(b.mac, EXPERIMENT, &[2]);
        assert_eq!(d.hear(), 2, "what the other NIC sends is not mirrored");
        b.send([2, 0, 0, 0, 0, 99], EXPERIMENT, &[3]);
        while a1.hear() != 3 {}
        // They stay when the bond is dissolved.
        lab.network.unbond(&bond.name).unwrap();
        assert_eq!(lab.network.mirrors().unwrap(), wanted);
        a0.send(b.mac, EXPERIMENT, &[4]);
        while d.hear() != 4 {}
    });
}

#[test]
fn a_bridge_that_was_deleted_by_hand_exports_netflow_again_when_it_is_back() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        lab.network.create(&vm("a", Some(1))).unwrap();
        let settings = Netflow { targets: vec!["127.0.0.1:9".to_owned()], active_timeout: 1 };
        lab.network.export_flows(&BridgeName::default_bridge(), Some(&settings)).unwrap();
        let exporting = |lab: &Lab| by_hand(lab, &["get", "bridge", "mega_bridge", "netflow"]) != "[]";
        assert!(exporting(&lab));
        by_hand(&lab, &["del-br", "mega_bridge"]);
        lab.network.connect(&name("a"), Some(&segment(1))).unwrap();
        assert!(exporting(&lab));
        lab.network.export_flows(&BridgeName::default_bridge(), None).unwrap();
        assert!(!exporting(&lab));
    });
}

#[test]
fn netflow_comes_to_its_collector() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        lab.network.create_all(&[vm("a", Some(1)), vm("b", Some(1))]).unwrap();
        let collector = lab.inside(|| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        collector.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let targets = vec![collector.local_addr().unwrap().to_string()];
        let settings = Netflow { targets, active_timeout: 1 };
        let bridge = BridgeName::default_bridge();
        lab.network.netflow(&bridge, Some(&settings)).unwrap();
        let [a, b] = [("a", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        // UDP over IPv4 from 10.0.0.1 to 10.0.0.2; nobody looks at its checksums.
        let packet =
            [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..], &[0, 7, 0, 7, 0, 8, 0, 0]]
                .concat();
        a.send(b.mac, [8, 0], &packet);
        b.receive([8, 0]);
        let mut record = [0; 2048];
        let length = collector.recv(&mut record).unwrap();
        // NetFlow version 5: a header of 24 bytes and records of 48, which begin with source and destination.
        assert_eq!(record[..2], [0, 5]);
        assert!(length >= 72, "{length}");
        let flows: Vec<_> = record[24..length].chunks(48).map(|flow| flow[..8].to_vec()).collect();
        assert!(flows.contains(&vec![10, 0, 0, 1, 10, 0, 0, 2]), "{flows:?}");
        lab.network.netflow(&bridge, None).unwrap();
        assert_eq!(by_hand(&lab, &["get", "bridge", "mega_bridge", "netflow"]), "[]");
    });
}

#[test]
fn a_running_one_keeps_what_is_its_own() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        // The lab's own one stands for one that runs, its namespace for the host's.
        lab.network.create(&vm("other", Some(5))).unwrap();
        by_hand(&lab, &["add-br", "theirs", "--", "set", "bridge", "theirs", "datapath_type=netdev"]);
        by_hand(&lab, &["add-br", "empty", "--", "set", "bridge", "empty", "datapath_type=netdev"]);
        let before = by_hand(&lab, &["--columns=name,external_ids,ports", "list", "bridge", "theirs"]);
        let socket = Some(folder(&lab).join("db.sock"));
        let on = |tap: &str, bridge: &str, vlan| {
            let segment = Segment { bridge: BridgeName::new(bridge).unwrap(), vlan: VlanTag::new(vlan).unwrap() };
            NewTap { segment: Some(segment), ..vm(tap, None) }
        };
        lab.inside(|| {
            let switch = SwitchChoice::OpenVswitch { socket };
            let network = LinuxNetwork::with_switch(NetworkPlace::Host, switch);
            network.create_all(&[on("a", "theirs", 1), on("b", "ours", 1)]).unwrap();
            let listed: Vec<_> = network.bridges().unwrap();
            let listed: Vec<_> = listed.iter().map(|info| (info.bridge.as_str(), info.preexisting)).collect();
            assert_eq!(listed, [("mega_bridge", false), ("ours", false), ("theirs", true)]);
            network.delete_all(&["a", "b"].map(name)).unwrap();
            let error = network.destroy(&BridgeName::new("theirs").unwrap()).unwrap_err();
            assert!(error.to_string().contains("no bridge theirs"), "{error}");
            network.release(false).unwrap();
        });
        assert_eq!(by_hand(&lab, &["list-br"]), "empty\nmega_bridge\ntheirs");
        assert_eq!(by_hand(&lab, &["--columns=name,external_ids,ports", "list", "bridge", "theirs"]), before);

        lab.inside(|| {
            let switch = SwitchChoice::OpenVswitch { socket: Some("/nonexistent/db.sock".into()) };
            let error = LinuxNetwork::with_switch(NetworkPlace::Host, switch).create(&vm("x", Some(1))).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("/nonexistent/db.sock") && text.contains("openvswitch-switch"), "{text}");
        });
        assert!(!lab.interfaces().contains(&"x".to_owned()), "half made");
    });
}

#[test]
fn settings_of_a_bridge_are_kept_and_shown() {
    on_openvswitch(|| {
        let lab = Lab::new(Form::Auto);
        let bridge = BridgeName::new("lab").unwrap();
        let set = |config: &str| lab.network.configure(&bridge, config);
        for wrong in ["", "stp_enable", "stp_enable=7", "ports=x", "fail_mode=never", "external_ids:megaform=x"] {
            let error = set(wrong).unwrap_err();
            assert_eq!(error.to_string(), "cannot configure bridge lab", "{wrong}");
        }
        assert_eq!(lab.network.bridges().unwrap(), []);
        set("stp-enable=true other_config:mac-aging-time=9").unwrap();
        set("other_config:mac-aging-time=10").unwrap();
        let info = lab.network.bridges().unwrap().remove(0);
        let shown: Vec<_> = info.config.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(shown, [("other_config:mac-aging-time", "10"), ("stp_enable", "true")]);
        assert_eq!(
            by_hand(&lab, &["get", "bridge", "lab", "stp_enable", "other_config"]),
            "true\n{mac-aging-time=\"10\"}"
        );
        lab.network.release(false).unwrap();
        assert!(lab.pin().exists(), "released with a bridge that was configured");
        lab.network.destroy(&bridge).unwrap();
        lab.network.release(false).unwrap();
        assert!(!lab.pin().exists());
    });
}
