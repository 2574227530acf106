//! Trunks, tunnels and mirrors, with frames.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::host::{Mirror, Switching, Tunnel, TunnelKind};

fn bridge(name: &str) -> BridgeName {
    BridgeName::new(name).unwrap()
}

/// The device that VLAN 1 of the default bridge is on.
fn device(form: Form) -> &'static str {
    if form == Form::Filtering { "mega_bridge" } else { "mega_bridge.1" }
}

fn on(bridge: &str, tap: NewTap) -> NewTap {
    let segment = tap.segment.map(|segment| Segment { bridge: self::bridge(bridge), ..segment });
    NewTap { segment, ..tap }
}

impl Lab {
    /// A cable from this lab to another; each end has its name.
    fn cable(&self, own: &str, other: &Lab, far: &str) {
        self.network.enter().unwrap();
        let target = other.network.enter().unwrap().unwrap();
        self.inside(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.create_veth(own, far).unwrap();
            let link = netlink.link_by_name(far).unwrap().unwrap();
            netlink.move_to(link.index, &target).unwrap();
        });
    }

    fn trunk(&self, on: &str, interface: &str) {
        self.network.trunk(&bridge(on), &name(interface)).unwrap();
    }

    fn guests<const N: usize>(&self, taps: [&str; N]) -> [Guest; N] {
        // No two have one address: a tap's name tells them apart.
        taps.map(|tap| Guest::attach(self, tap, tap.bytes().fold(0, |id, byte| id * 10 + (byte & 15))))
    }

    /// Wait until an end of a cable and its legs for VLANs have a carrier and, where they are ports, pass frames: the bridge
    /// hears of a carrier a little later.
    fn carrier(&self, interface: &str) {
        self.inside(|| {
            let mut netlink = Netlink::open().unwrap();
            let ready =
                |link: crate::host::linux::netlink::Link| link.carrier && (link.master.is_none() || link.forwarding);
            let names = nix::net::if_::if_nameindex().unwrap().iter().map(interface_name).collect::<Vec<_>>();
            for link in names.iter().filter(|name| *name == interface || name.starts_with("ml")) {
                while !ready(netlink.link_by_name(link).unwrap().unwrap()) {
                    std::thread::yield_now();
                }
            }
        });
    }
}

#[test]
pub(super) fn vlans_cross_a_trunk_each_for_itself() {
    each_form(|form| {
        let (left, right) = (Lab::new(form), Lab::new(form));
        left.cable("up", &right, "down");
        left.network.create_all(&[vm("a0", Some(0)), vm("a1", Some(1)), vm("a2", Some(2))]).unwrap();
        // One side has its taps before the trunk, the other after.
        left.trunk("mega_bridge", "up");
        right.trunk("mega_bridge", "down");
        right
            .network
            .create_all(&[vm("b0", Some(0)), vm("b1", Some(1)), vm("b2", Some(2)), vm("b3", Some(3))])
            .unwrap();
        left.carrier("up");
        right.carrier("down");
        let [a0, a1, a2] = left.guests(["a0", "a1", "a2"]);
        let [b0, b1, b2, b3] = right.guests(["b0", "b1", "b2", "b3"]);

        a1.shout(1);
        assert_eq!(b1.hear(), 1);
        a2.shout(2);
        assert_eq!(b2.hear(), 2);
        a0.shout(3);
        assert_eq!(b0.hear(), 3);
        b2.shout(4);
        assert_eq!(a2.hear(), 4);
        // To one address, which the bridges have learnt.
        a2.send(b2.mac, EXPERIMENT, &[5]);
        assert_eq!(b2.hear(), 5);
        // A VLAN that comes later on the far side; what was said before was not for it.
        left.network.create(&vm("a3", Some(3))).unwrap();
        left.carrier("up");
        let [a3] = left.guests(["a3"]);
        a3.shout(6);
        assert_eq!(b3.hear(), 6);
        b3.shout(7);
        assert_eq!([a3.hear(), a1_heard(&b1, &a1)], [7, 8]);

        let info = &right.network.bridges().unwrap()[0];
        assert_eq!(info.trunks, ["down"]);
        assert_eq!(info.vlans.iter().map(|tag| tag.get()).collect::<Vec<_>>(), [0, 1, 2, 3]);

        // Without the trunk nothing crosses, and the interface is nobody's again.
        right.network.untrunk(&BridgeName::default_bridge(), &name("down")).unwrap();
        a1.shout(9);
        right.trunk("mega_bridge", "down");
        right.carrier("down");
        a1.shout(10);
        assert_eq!(b1.hear(), 10);

        // A VLAN that nobody is on any more takes its leg along.
        drop((b0, b1, b2, b3));
        right.network.delete_all(&["b0", "b1", "b2"].map(name)).unwrap();
        let legs = right.interfaces().into_iter().filter(|name| name.starts_with("ml")).count();
        assert_eq!(legs, usize::from(form == Form::PerVlan), "{:?}", right.interfaces());
        right.network.delete(&name("b3")).unwrap();
        let left_over: &[&str] = if form == Form::Filtering { &["down", "mega_bridge"] } else { &["down"] };
        assert_eq!(right.interfaces(), left_over);
        right.network.release(false).unwrap();
        assert!(right.pin().exists(), "released with a trunk in it");
        right.network.destroy(&BridgeName::default_bridge()).unwrap();
        assert_eq!(right.network.bridges().unwrap(), []);
        assert_eq!(right.interfaces(), ["down"]);
        assert_eq!(right.inside(|| Netlink::open().unwrap().link_by_name("down").unwrap().unwrap().alias), "");
    });
}

fn a1_heard(from: &Guest, to: &Guest) -> u8 {
    from.shout(8);
    to.hear()
}

#[test]
pub(super) fn two_trunks_are_connected_as_by_one_switch() {
    each_form(|form| {
        let (left, middle, right) = (Lab::new(form), Lab::new(form), Lab::new(form));
        left.cable("up", &middle, "west");
        right.cable("up", &middle, "east");
        for (lab, taps) in
            [(&left, [vm("a1", Some(1)), vm("a2", Some(2))]), (&right, [vm("b1", Some(1)), vm("b2", Some(2))])]
        {
            lab.network.create_all(&taps).unwrap();
            lab.trunk("mega_bridge", "up");
        }
        middle.trunk("mega_bridge", "west");
        middle.trunk("mega_bridge", "east");
        left.carrier("up");
        right.carrier("up");
        middle.carrier("west");
        middle.carrier("east");
        let [a1, a2] = left.guests(["a1", "a2"]);
        let [b1, b2] = right.guests(["b1", "b2"]);
        // Nobody is on these VLANs in the middle.
        a1.shout(1);
        assert_eq!(b1.hear(), 1);
        b2.shout(2);
        assert_eq!(a2.hear(), 2);
        // Now somebody is on one of them.
        middle.network.create(&vm("m1", Some(1))).unwrap();
        let [m1] = middle.guests(["m1"]);
        a1.shout(3);
        assert_eq!([b1.hear(), m1.hear()], [3, 3]);
        m1.shout(4);
        assert_eq!([a1.hear(), b1.hear()], [4, 4]);
        a2.shout(5);
        assert_eq!(b2.hear(), 5);
        // Another bridge of the same engine is another switch.
        middle.network.create(&on("other", vm("o1", Some(1)))).unwrap();
        let [o1] = middle.guests(["o1"]);
        a1.shout(6);
        assert_eq!([b1.hear(), m1.hear()], [6, 6]);
        middle.network.connect(&name("o1"), Some(&segment(1))).unwrap();
        a1.shout(7);
        assert_eq!(o1.hear(), 7);
        // A restarted daemon goes on.
        let mut middle = middle;
        middle.restart();
        middle.network.create(&vm("m2", Some(2))).unwrap();
        let [m2] = middle.guests(["m2"]);
        a2.shout(8);
        assert_eq!([b2.hear(), m2.hear()], [8, 8]);
    });
}

/// Two engines with an underlay between them: host taps with addresses, on a bridge of their own whose trunk is the cable.
fn underlay(form: Form) -> (Lab, Lab) {
    let (left, right) = (Lab::new(form), Lab::new(form));
    left.cable("up", &right, "down");
    for (lab, interface, address) in [(&left, "up", "192.0.2.1"), (&right, "down", "192.0.2.2")] {
        lab.network.create(&on("underlay", host("under", Some(7), &[(address, 24)]))).unwrap();
        lab.trunk("underlay", interface);
    }
    left.carrier("up");
    right.carrier("down");
    (left, right)
}

fn tunnel(kind: TunnelKind, remote: &str, key: Option<u32>) -> Tunnel {
    Tunnel { kind, remote: remote.parse().unwrap(), key }
}

#[test]
pub(super) fn vlans_cross_a_vxlan_tunnel() {
    each_form(|form| {
        let (left, right) = underlay(form);
        let made = left.network.tunnel(&bridge("lab"), &tunnel(TunnelKind::Vxlan, "192.0.2.2", Some(77))).unwrap();
        assert_eq!(made, "mega_vxlan0");
        right.network.tunnel(&bridge("lab"), &tunnel(TunnelKind::Vxlan, "192.0.2.1", Some(77))).unwrap();
        // The same key on another bridge is another tunnel's; with another one it leads nowhere.
        let again =
            left.network.tunnel(&bridge("lab2"), &tunnel(TunnelKind::Vxlan, "192.0.2.2", Some(77))).unwrap_err();
        assert!(again.to_string().contains("key 77"), "{again}");
        left.network.tunnel(&bridge("lab2"), &tunnel(TunnelKind::Vxlan, "192.0.2.2", Some(78))).unwrap();
        for (lab, taps) in [(&left, ["a1", "a2"]), (&right, ["b1", "b2"])] {
            let taps: Vec<NewTap> = taps.iter().zip([1, 2]).map(|(tap, vlan)| on("lab", vm(tap, Some(vlan)))).collect();
            lab.network.create_all(&taps).unwrap();
        }
        left.network.create(&on("lab2", vm("c1", Some(1)))).unwrap();
        let [a1, a2, c1] = left.guests(["a1", "a2", "c1"]);
        let [b1, b2] = right.guests(["b1", "b2"]);
        c1.shout(1);
        a1.shout(2);
        assert_eq!(b1.hear(), 2);
        a2.shout(3);
        assert_eq!(b2.hear(), 3);
        b2.shout(4);
        assert_eq!(a2.hear(), 4);
        b1.shout(5);
        assert_eq!(a1.hear(), 5);

        let bridges = left.network.bridges().unwrap();
        let shown: Vec<_> =
            bridges.iter().map(|info| (info.bridge.as_str(), &info.trunks[..], &info.tunnels[..])).collect();
        let (up, first, second) = (["up".to_owned()], ["mega_vxlan0".to_owned()], ["mega_vxlan1".to_owned()]);
        assert_eq!(shown, [("lab", &[][..], &first[..]), ("lab2", &[], &second), ("underlay", &up, &[])]);
        left.network.untunnel(&bridge("lab"), &name("mega_vxlan0")).unwrap();
        let error = left.network.untunnel(&bridge("lab"), &name("mega_vxlan0")).unwrap_err();
        assert_eq!(error.to_string(), "bridge lab has no tunnel mega_vxlan0");
        assert!(!left.interfaces().contains(&"mega_vxlan0".to_owned()));
    });
}

#[test]
pub(super) fn vlans_cross_a_gre_tunnel() {
    each_form(|form| {
        let (left, right) = underlay(form);
        match left.network.tunnel(&bridge("lab"), &tunnel(TunnelKind::Gre, "192.0.2.2", Some(77))) {
            Err(NetworkError::Unsupported { missing, .. }) => {
                assert!(missing.contains("CONFIG_NET_IPGRE"), "{missing}");
                // The namespace is the tests' own and the bridge has nothing on it.
                assert!(left.network.bridges().unwrap().iter().all(|info| info.bridge.as_str() != "lab"));
                return eprintln!("skipped: this kernel has no GRE ({missing})");
            }
            made => assert_eq!(made.unwrap(), "mega_gre0"),
        }
        // To the same host with another key is another tunnel.
        left.network.tunnel(&bridge("lab2"), &tunnel(TunnelKind::Gre, "192.0.2.2", None)).unwrap();
        right.network.tunnel(&bridge("lab"), &tunnel(TunnelKind::Gre, "192.0.2.1", Some(77))).unwrap();
        for (lab, taps) in [(&left, ["a1", "a2"]), (&right, ["b1", "b2"])] {
            let taps: Vec<NewTap> = taps.iter().zip([1, 2]).map(|(tap, vlan)| on("lab", vm(tap, Some(vlan)))).collect();
            lab.network.create_all(&taps).unwrap();
        }
        left.network.create(&on("lab2", vm("c1", Some(1)))).unwrap();
        let [a1, a2, c1] = left.guests(["a1", "a2", "c1"]);
        let [b1, b2] = right.guests(["b1", "b2"]);
        c1.shout(1);
        a1.shout(2);
        assert_eq!(b1.hear(), 2);
        a2.shout(3);
        assert_eq!(b2.hear(), 3);
        b2.shout(4);
        assert_eq!(a2.hear(), 4);
    });
}

/// Eight megabytes over TCP between host taps of two labs.
fn transfer(left: &Lab, right: &Lab, address: &str) {
    let data: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let listener = right.inside(|| TcpListener::bind((address, 4000)).unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = listener.accept().unwrap().0;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == data, "{} of {} bytes came, or others", got.len(), data.len());
            stream.write_all(b"all").unwrap();
        });
        let mut stream = left.inside(|| TcpStream::connect((address, 4000)).unwrap());
        let start = std::time::Instant::now();
        stream.write_all(&data).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "all");
        eprintln!("{address}: {:.0} Mbit/s", data.len() as f64 * 8e-6 / start.elapsed().as_secs_f64());
    });
}

#[test]
pub(super) fn tcp_with_offloads_crosses_trunks_and_tunnels() {
    each_form(|form| {
        let (left, right) = underlay(form);
        transfer(&left, &right, "192.0.2.2");
        for (lab, far, own) in [(&left, "192.0.2.2", "10.0.0.1"), (&right, "192.0.2.1", "10.0.0.2")] {
            lab.network.tunnel(&bridge("lab"), &tunnel(TunnelKind::Vxlan, far, None)).unwrap();
            lab.network.create(&on("lab", host("inner", Some(9), &[(own, 24)]))).unwrap();
        }
        transfer(&left, &right, "10.0.0.2");
    });
}

#[test]
pub(super) fn a_mirror_copies_both_directions_and_only_of_its_source() {
    each_form(|form| {
        let mut lab = Lab::new(form);
        let taps = ["a", "b", "c", "d"].map(|tap| vm(tap, Some(if tap == "d" { 2 } else { 1 })));
        lab.network.create_all(&taps).unwrap();
        lab.network.create(&host("mgmt", Some(1), &[("10.0.0.254", 24)])).unwrap();
        let [a, b, c, d] = lab.guests(["a", "b", "c", "d"]);
        let mirror = |source: &str, destination: &str| Mirror { source: name(source), destination: name(destination) };
        lab.network.mirror(&mirror("a", "d")).unwrap();
        lab.network.mirror(&mirror("mgmt", "d")).unwrap();
        assert_eq!(lab.network.mirrors().unwrap(), [mirror("a", "d"), mirror("mgmt", "d")]);
        lab.network.unmirror(&name("d")).unwrap();
        lab.network.mirror(&mirror("a", "d")).unwrap();

        // From a, to a, and what is neither.
        a.send(b.mac, EXPERIMENT, &[1]);
        assert_eq!([b.hear(), d.hear()], [1, 1]);
        b.send(a.mac, EXPERIMENT, &[2]);
        assert_eq!([a.hear(), d.hear()], [2, 2]);
        c.send(b.mac, EXPERIMENT, &[3]);
        assert_eq!(b.hear(), 3);
        b.send(c.mac, EXPERIMENT, &[4]);
        a.shout(5);
        assert_eq!([b.hear(), d.hear()], [5, 5]);
        // It stays when its ends move, and when the daemon is restarted.
        lab.network.connect(&name("a"), Some(&segment(3))).unwrap();
        lab.network.connect(&name("d"), None).unwrap();
        lab.network.connect(&name("d"), Some(&segment(4))).unwrap();
        lab.restart();
        a.shout(6);
        assert_eq!(d.hear(), 6);
        assert_eq!(lab.network.mirrors().unwrap(), [mirror("a", "d")]);
        // A circle would never end.
        let error = lab.network.mirror(&mirror("d", "a")).unwrap_err();
        assert_eq!(error.to_string(), "cannot mirror d to a");
        assert!(lab.network.mirror(&mirror("a", "a")).is_err());
        // A host tap as the source: what the engine sends and gets.
        lab.network.mirror(&mirror("mgmt", "d")).unwrap();
        c.ask_who_has([10, 0, 0, 254]);
        assert_eq!([d.receive([8, 6])[21], d.receive([8, 6])[21]], [1, 2]);
        lab.network.unmirror(&name("d")).unwrap();
        assert_eq!(lab.network.mirrors().unwrap(), []);
        a.shout(7);
        lab.network.mirror(&mirror("a", "d")).unwrap();
        a.shout(8);
        assert_eq!(d.hear(), 8);
        // It ends with its destination.
        drop(d);
        lab.network.delete(&name("d")).unwrap();
        assert_eq!(lab.network.mirrors().unwrap(), []);
        assert_eq!(lab.inside(|| Netlink::open().unwrap().filtered().unwrap()), [] as [u32; 0]);
    });
}

#[test]
pub(super) fn what_cannot_be_a_trunk_is_left_alone() {
    each_form(|form| {
        let lab = Lab::new(form);
        let default = BridgeName::default_bridge();
        let error = lab.network.trunk(&default, &name("nosuch")).unwrap_err();
        assert_eq!(error.to_string(), "no interface nosuch, neither in the engine's network nor in the host's");
        assert_eq!(lab.network.bridges().unwrap(), []);
        assert_eq!(lab.interfaces(), Vec::<String>::new());
        let error = lab.network.untrunk(&default, &name("nosuch")).unwrap_err();
        assert_eq!(error.to_string(), "no bridge mega_bridge");
        assert_eq!(lab.network.destroy(&default).unwrap_err().to_string(), "no bridge mega_bridge");

        lab.network.create(&vm("a", Some(1))).unwrap();
        lab.inside(|| {
            let mut netlink = Netlink::open().unwrap();
            for (cable, far) in [("used", "far1"), ("free", "far2")] {
                netlink.create_veth(cable, far).unwrap();
            }
            let used = netlink.link_by_name("used").unwrap().unwrap();
            netlink.add_address(used.index, "192.0.2.1".parse().unwrap(), 24).unwrap();
        });
        let why = |interface: &str| {
            let error = lab.network.trunk(&default, &name(interface)).unwrap_err();
            std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
        };
        assert!(why("used").starts_with("it has the address 192.0.2.1/24"), "{}", why("used"));
        assert_eq!(why("a"), "it is an interface of this program");
        assert!(why(device(form)).contains("of this program"));
        lab.trunk("mega_bridge", "free");
        assert_eq!(why("free"), "it is a trunk of bridge mega_bridge already");
        let error = lab.network.untrunk(&default, &name("used")).unwrap_err();
        assert_eq!(error.to_string(), "bridge mega_bridge has no trunk used");
        let error = lab.network.destroy(&default).unwrap_err();
        assert_eq!(error.to_string(), "bridge mega_bridge has taps (a), disconnect or delete them first");
        lab.network.delete(&name("a")).unwrap();
        lab.network.destroy(&default).unwrap();
        assert_eq!(lab.interfaces(), ["far1", "far2", "free", "used"]);
    });
}

#[test]
pub(super) fn what_is_changed_by_hand_is_found_again() {
    each_form(|form| {
        let lab = Lab::new(form);
        lab.network.create_all(&[vm("a", Some(1)), vm("b", Some(1)), host("h", Some(1), &[("10.0.0.1", 24)])]).unwrap();
        lab.inside(|| {
            let mut netlink = Netlink::open().unwrap();
            for (old, new) in [("a", "mine"), ("h", "yours")] {
                let link = netlink.link_by_name(old).unwrap().unwrap();
                netlink.set_up(link.index, false).unwrap();
                netlink.rename(link.index, new).unwrap();
                netlink.set_up(link.index, true).unwrap();
            }
        });
        let listed: Vec<String> = lab.network.list().unwrap().into_iter().map(|port| port.tap.to_string()).collect();
        assert_eq!(listed, ["a", "b", "h"]);
        // The next operation finds it and gives it its name back.
        lab.network.connect(&name("a"), Some(&segment(2))).unwrap();
        assert!(lab.interfaces().contains(&"a".to_owned()), "{:?}", lab.interfaces());
        lab.network.connect(&name("a"), Some(&segment(1))).unwrap();
        let [a, b] = lab.guests(["a", "b"]);
        a.shout(1);
        assert_eq!(b.hear(), 1);

        // A bridge that is deleted: its taps are on nothing until they are connected again.
        lab.inside(|| {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link_by_name(device(form)).unwrap().unwrap();
            netlink.delete_link(link.index).unwrap();
        });
        assert!(lab.network.list().unwrap().iter().all(|port| port.segment.is_none()));
        assert_eq!(lab.network.bridges().unwrap(), []);
        for tap in ["a", "b"] {
            lab.network.connect(&name(tap), Some(&segment(1))).unwrap();
        }
        a.shout(2);
        assert_eq!(b.hear(), 2);
        drop((a, b));
        lab.network.delete_all(&["a", "b", "h", "gone"].map(name)).unwrap();
        assert_eq!(lab.interfaces(), Vec::<String>::new());
    });
}

#[test]
pub(super) fn an_uplink_that_is_deleted_by_hand_leaves_nothing() {
    each_form(|form| {
        let lab = Lab::new(form);
        lab.network.create_all(&[vm("a", Some(1)), vm("b", Some(1))]).unwrap();
        lab.network.tunnel(&BridgeName::default_bridge(), &tunnel(TunnelKind::Vxlan, "192.0.2.2", None)).unwrap();
        lab.inside(|| {
            let mut netlink = Netlink::open().unwrap();
            let link = netlink.link_by_name("mega_vxlan0").unwrap().unwrap();
            netlink.delete_link(link.index).unwrap();
            // And a bridge below another one.
            let link = netlink.link_by_name(device(form)).unwrap().unwrap();
            netlink.delete_link(link.index).unwrap();
        });
        let [a, b] = lab.guests(["a", "b"]);
        for tap in ["a", "b"] {
            lab.network.connect(&name(tap), Some(&segment(1))).unwrap();
        }
        a.shout(1);
        assert_eq!(b.hear(), 1);
        drop((a, b));
        lab.network.delete_all(&["a", "b"].map(name)).unwrap();
        lab.network.release(true).unwrap();
        assert_eq!(lab.interfaces(), Vec::<String>::new());
    });
}

#[test]
pub(super) fn more_ports_than_a_linux_bridge_has_are_an_error_that_says_so() {
    each_form(|form| {
        let lab = Lab::new(form);
        let taps: Vec<NewTap> = (0..1025).map(|n| vm(&format!("t{n}"), Some(1))).collect();
        let error = lab.network.create_all(&taps).unwrap_err();
        assert!(error.to_string().starts_with("this host cannot connect t1023: "), "{error}");
        assert!(error.to_string().contains("--switch openvswitch"), "{error}");
        assert_eq!(lab.interfaces(), Vec::<String>::new());
        // On two bridges there is room for all of them.
        let taps: Vec<NewTap> = (0..2000).map(|n| on(["one", "two"][n % 2], vm(&format!("t{n}"), Some(1)))).collect();
        lab.network.create_all(&taps).unwrap();
        assert_eq!(lab.network.list().unwrap().len(), 2000);
        lab.network.delete_all(&taps.iter().map(|tap| tap.tap.clone()).collect::<Vec<_>>()).unwrap();
        assert_eq!(lab.interfaces(), Vec::<String>::new());
    });
}
