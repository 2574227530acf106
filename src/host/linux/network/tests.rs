//! Real interfaces, all of them in namespaces that the tests make themselves.

mod openvswitch;
mod services;
mod uplinks;

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::host::TapKind;
use crate::host::linux::netlink::Netlink;
use crate::host::linux::testing::root;
use crate::host::linux::vlan_filter;
use crate::host::linux::{run_in, tun};
use crate::name::{BridgeName, VlanTag};

mod shaping;
thread_local! {
    /// The switch that labs of this thread are on: the same tests run on each.
    static SWITCH: RefCell<SwitchChoice> = const { RefCell::new(SwitchChoice::Linux) };
}

fn network(place: NetworkPlace) -> LinuxNetwork {
    LinuxNetwork::with_switch(place, SWITCH.with_borrow(Clone::clone))
}

/// A network in a namespace of its own that is gone after the test, also when it fails.
struct Lab {
    folder: tempfile::TempDir,
    network: LinuxNetwork,
}

impl Lab {
    fn new(form: Form) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = NetworkPlace::Own { pin: folder.path().join("netns") };
        let network = LinuxNetwork { form, ..network(place) };
        Self { folder, network }
    }

    fn pin(&self) -> std::path::PathBuf {
        self.folder.path().join("netns")
    }

    /// As if the daemon had been restarted.
    fn restart(&mut self) {
        let form = self.network.form;
        self.network = LinuxNetwork { form, ..network(NetworkPlace::Own { pin: self.pin() }) };
    }

    fn inside<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        run_in(&self.pin(), f).unwrap()
    }

    /// Names of all interfaces in the namespace but `lo`.
    fn interfaces(&self) -> Vec<String> {
        let names = self.inside(|| nix::net::if_::if_nameindex().unwrap().iter().map(interface_name).collect());
        let mut names: Vec<String> = names;
        names.retain(|name| name != "lo" && !openvswitch::is_made_by_it(name));
        names.sort();
        names
    }
}

/// Run a test with each form of the Linux switch that this kernel has, or with the other switch if that is this thread's.
fn each_form(test: impl Fn(Form)) {
    if !root() {
        return;
    }
    if SWITCH.with_borrow(|switch| *switch != SwitchChoice::Linux) {
        return test(Form::Auto);
    }
    test(Form::PerVlan);
    if vlan_filter::available() {
        test(Form::Filtering);
    } else {
        eprintln!("not with VLAN filtering: this kernel has none (CONFIG_BRIDGE_VLAN_FILTERING)");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Programs of the switch hold the namespace.
        self.network.end_switch();
        self.network = LinuxNetwork::new(NetworkPlace::Host);
        namespace::remove(&self.pin()).unwrap();
    }
}

fn interface_name(interface: &nix::net::if_::Interface) -> String {
    interface.name().to_str().unwrap().to_owned()
}

fn segment(vlan: u64) -> Segment {
    Segment { bridge: BridgeName::default_bridge(), vlan: VlanTag::new(vlan).unwrap() }
}

fn name(text: &str) -> TapName {
    TapName::new(text).unwrap()
}

fn vm(tap: &str, vlan: Option<u64>) -> NewTap {
    let owner = format!("vm {tap}");
    NewTap { tap: name(tap), kind: TapKind::Vm, segment: vlan.map(segment), addresses: vec![], owner }
}

fn host(tap: &str, vlan: Option<u64>, addresses: &[(&str, u8)]) -> NewTap {
    let addresses = addresses.iter().map(|(address, prefix)| (address.parse().unwrap(), *prefix)).collect();
    let owner = format!("host {tap}");
    NewTap { tap: name(tap), kind: TapKind::Host, segment: vlan.map(segment), addresses, owner }
}

fn port(new: &NewTap) -> Port {
    Port {
        shape: crate::name::Shape::default(),
        tap: new.tap.clone(),
        segment: new.segment.clone(),
        addresses: new.addresses.clone(),
        owner: new.owner.clone(),
    }
}

/// The far end of a VM's tap, as QEMU holds it.
struct Guest {
    device: File,
    mac: [u8; 6],
}

/// An empty `struct virtio_net_hdr`, which stands before each frame.
const VIRTIO: [u8; 10] = [0; 10];
/// After this many milliseconds a frame that should have come never will.
const LONGEST_WAIT: u16 = 20_000;
const BROADCAST: [u8; 6] = [0xff; 6];
/// An EtherType for local experiments (IEEE 802): no protocol of the kernel answers to it.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

impl Guest {
    fn attach(lab: &Lab, tap: &str, id: u8) -> Self {
        let device = lab.inside(|| {
            let device = tun::Tap::open().unwrap();
            tun::set_interface(device.as_raw_fd(), tap, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).unwrap();
            // The bridge hears of the carrier a little later.
            let mut netlink = Netlink::open().unwrap();
            while netlink.link_by_name(tap).unwrap().is_some_and(|link| link.master.is_some() && !link.forwarding) {
                std::thread::yield_now();
            }
            device
        });
        Self { device, mac: [0x52, 0x54, 0, 0, 0, id] }
    }

    fn send(&self, to: [u8; 6], kind: [u8; 2], payload: &[u8]) {
        let mut frame = [&VIRTIO[..], &to, &self.mac, &kind, payload].concat();
        frame.resize(frame.len().max(VIRTIO.len() + 60), 0);
        assert_eq!((&self.device).write(&frame).unwrap(), frame.len());
    }

    /// The next frame of a kind, from destination to payload.
    fn receive(&self, kind: [u8; 2]) -> Vec<u8> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut ready, PollTimeout::from(LONGEST_WAIT)).unwrap(), 1, "no frame has come");
            let length = (&self.device).read(&mut buffer).unwrap();
            let frame = &buffer[VIRTIO.len()..length];
            if frame[12..14] == kind {
                return frame.to_vec();
            }
        }
    }

    /// Send a frame with a number to everybody.
    fn shout(&self, number: u8) {
        self.send(BROADCAST, EXPERIMENT, &[number]);
    }

    /// The number of the next such frame.
    fn hear(&self) -> u8 {
        self.receive(EXPERIMENT)[14]
    }

    fn ask_who_has(&self, target: [u8; 4]) {
        let request = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &self.mac, &[10, 0, 0, self.mac[5]], &[0; 6], &target].concat();
        self.send(BROADCAST, [8, 6], &request);
    }
}

#[test]
fn frames_stay_on_their_segment() {
    each_form(|form| {
        let lab = Lab::new(form);
        lab.network.create_all(&[vm("a", Some(1)), vm("b", Some(1)), vm("c", Some(2)), vm("d", Some(2))]).unwrap();
        let [a, b, c, d] = [("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        // A frame is delivered before the call that sends it returns, so a frame that leaked would be heard first.
        a.shout(1);
        c.shout(2);
        assert_eq!(b.hear(), 1);
        assert_eq!(d.hear(), 2);

        // To another VLAN and back, and to none.
        lab.network.connect(&name("b"), Some(&segment(2))).unwrap();
        a.shout(3);
        c.shout(4);
        assert_eq!(b.hear(), 4);
        lab.network.connect(&name("b"), None).unwrap();
        c.shout(5);
        lab.network.connect(&name("b"), Some(&segment(1))).unwrap();
        a.shout(6);
        assert_eq!(b.hear(), 6);
        assert_eq!([d.hear(), d.hear()], [4, 5]);
    });
}

#[test]
fn a_host_tap_puts_the_engine_on_its_segment_only() {
    each_form(|form| {
        let lab = Lab::new(form);
        let taps = [
            vm("a", Some(1)),
            host("mgmt", Some(1), &[("10.0.0.254", 24), ("fd00::fe", 64)]),
            vm("c", Some(2)),
            vm("d", Some(2)),
        ];
        lab.network.create_all(&taps).unwrap();
        let [a, c, d] = [("a", 1), ("c", 3), ("d", 4)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        let arp = [8, 6];

        a.ask_who_has([10, 0, 0, 254]);
        let reply = a.receive(arp);
        assert_eq!(reply[20..22], [0, 2], "no ARP reply: {reply:?}");
        assert_eq!(reply[28..32], [10, 0, 0, 254]);

        // On VLAN 2 nobody has that address; a reply would come before d's frame.
        c.ask_who_has([10, 0, 0, 254]);
        d.send(c.mac, arp, b"fence");
        assert_eq!(c.receive(arp)[14..19], *b"fence");

        // It moves.
        lab.network.connect(&name("mgmt"), Some(&segment(2))).unwrap();
        c.ask_who_has([10, 0, 0, 254]);
        assert_eq!(c.receive(arp)[28..32], [10, 0, 0, 254]);
        let listed = lab.network.list().unwrap();
        assert_eq!(listed[3].tap, name("mgmt"));
        assert_eq!(listed[3].segment, Some(segment(2)));
        assert_eq!(listed[3].addresses, taps[1].addresses);
    });
}

#[test]
fn a_restarted_daemon_finds_everything() {
    each_form(|form| {
        let mut lab = Lab::new(form);
        let taps = [
            vm("a", Some(1)),
            vm("b", None),
            host("h0", None, &[]),
            host("h1", Some(4095), &[("10.0.0.1", 31), ("192.0.2.1", 32), ("fd00::1", 64)]),
        ];
        lab.network.create_all(&taps).unwrap();
        lab.restart();
        assert_eq!(lab.network.list().unwrap(), taps.each_ref().map(port));
        lab.restart();
        // The same bridge, not a second one.
        lab.network.connect(&name("b"), Some(&segment(1))).unwrap();
        let [a, b] = [("a", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
        a.shout(1);
        assert_eq!(b.hear(), 1);
        drop((a, b));
        lab.restart();
        for tap in &taps {
            lab.network.delete(&tap.tap).unwrap();
        }
        assert_eq!(lab.interfaces(), Vec::<String>::new());
    });
}

#[test]
fn release_leaves_no_trace() {
    each_form(|form| {
        let lab = Lab::new(form);
        // Nothing to release, list, delete or connect, and asking makes nothing.
        lab.network.release(false).unwrap();
        assert_eq!(lab.network.list().unwrap(), []);
        assert!(matches!(lab.network.delete(&name("a")), Err(NetworkError::NotFound { .. })));
        assert!(matches!(lab.network.connect(&name("a"), None), Err(NetworkError::NotFound { .. })));
        assert!(!lab.pin().exists());

        lab.network.create(&vm("a", Some(1))).unwrap();
        let id = namespace_id(&lab.pin());
        lab.network.release(false).unwrap();
        assert_eq!(namespace_id(&lab.pin()), id, "released with a tap in it");
        lab.network.delete(&name("a")).unwrap();
        lab.network.release(true).unwrap();
        assert_eq!(namespace_id(&lab.pin()), id, "released while in use");
        lab.network.release(false).unwrap();
        assert!(!lab.pin().exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(lab.pin().to_str().unwrap()));
        assert!(matches!(run_in(&lab.pin(), || ()), Err(NetworkError::Kernel { .. })));

        // And again, over a plain file that a crash has left.
        std::fs::write(lab.pin(), "").unwrap();
        assert_eq!(lab.network.list().unwrap(), []);
        lab.network.create(&vm("a", None)).unwrap();
        assert_eq!(lab.interfaces(), ["a"]);
        lab.network.delete(&name("a")).unwrap();
        lab.network.release(false).unwrap();
        std::fs::write(lab.pin(), "").unwrap();
        lab.network.release(false).unwrap();
        assert!(!lab.pin().exists());
    });
}

fn namespace_id(pin: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(pin).unwrap())
}

#[test]
fn the_calling_thread_stays_where_it_is() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::PerVlan);
    let own = Path::new("/proc/thread-self/ns/net");
    let before = namespace_id(own);
    let inside = lab.network.enter().unwrap().unwrap();
    assert_eq!(namespace_id(own), before);
    assert_eq!(lab.inside(|| namespace_id(own)), namespace_id(&lab.pin()));
    assert_ne!(namespace_id(&lab.pin()), before);
    drop(inside);
}

#[test]
fn a_failure_leaves_nothing() {
    each_form(|form| {
        let lab = Lab::new(form);
        let taps = [vm("a", Some(1)), host("h", Some(2), &[("10.0.0.1", 24)]), vm("a", Some(3))];
        let error = lab.network.create_all(&taps).unwrap_err();
        assert!(matches!(error, NetworkError::Exists { ref tap } if tap == "a"), "{error:?}");
        assert_eq!(lab.interfaces(), Vec::<String>::new());

        // The second address is the first one again: the kernel refuses when the tap is half made.
        let twice = host("h", Some(2), &[("10.0.0.1", 24), ("10.0.0.1", 24)]);
        let error = lab.network.create(&twice).unwrap_err();
        assert_eq!(error.to_string(), "cannot add address 10.0.0.1/24 to h");
        assert_eq!(lab.interfaces(), Vec::<String>::new());

        for wrong in [
            NewTap { addresses: twice.addresses.clone(), ..vm("a", None) },
            NewTap { owner: "x".repeat(201), ..vm("a", None) },
            NewTap { owner: "x\ny".to_owned(), ..vm("a", None) },
            host("h", None, &[("10.0.0.1", 33)]),
        ] {
            assert!(lab.network.create(&wrong).is_err(), "{wrong:?}");
            assert_eq!(lab.interfaces(), Vec::<String>::new());
        }
        lab.network.create(&NewTap { owner: "x".repeat(200), ..vm("a", Some(1)) }).unwrap();
        assert_eq!(lab.network.list().unwrap()[0].owner.len(), 200);
    });
}

#[test]
fn bridges_come_and_go_with_their_ports() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::PerVlan);
    lab.network.create_all(&[vm("a", Some(101)), host("h", Some(101), &[])]).unwrap();
    assert_eq!(lab.interfaces(), ["a", "h", "mega_bridge.101", "megaport0"]);
    lab.network.connect(&name("a"), Some(&segment(102))).unwrap();
    assert_eq!(lab.interfaces(), ["a", "h", "mega_bridge.101", "mega_bridge.102", "megaport0"]);
    lab.network.connect(&name("h"), None).unwrap();
    assert_eq!(lab.interfaces(), ["a", "h", "mega_bridge.102", "megaport0"]);
    lab.network.delete(&name("a")).unwrap();
    lab.network.delete(&name("h")).unwrap();
    assert_eq!(lab.interfaces(), Vec::<String>::new());
}

#[test]
fn what_others_made_stays_theirs() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::PerVlan);
    // A namespace that stands for the host's; in it an interface and a bridge of somebody else.
    lab.network.enter().unwrap();
    lab.inside(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink.create_veth("theirs", "far").unwrap();
        netlink.create_bridge("mega_bridge.101", false).unwrap();
    });
    lab.inside(|| {
        let network = LinuxNetwork::new(NetworkPlace::Host);
        for wanted in [vm("theirs", None), host("theirs", None, &[]), vm("far", None)] {
            assert!(matches!(network.create(&wanted), Err(NetworkError::Exists { .. })));
        }
        assert!(matches!(network.delete(&name("theirs")), Err(NetworkError::NotFound { .. })));
        assert!(matches!(network.connect(&name("far"), Some(&segment(1))), Err(NetworkError::NotFound { .. })));
        assert_eq!(network.list().unwrap(), []);
        assert_eq!(network.enter().unwrap().map(|_| "a namespace"), None);
        // Their bridge has the name that ours would have.
        network.create_all(&[vm("a", Some(101)), vm("b", Some(101))]).unwrap();
        assert_eq!(network.list().unwrap(), [port(&vm("a", Some(101))), port(&vm("b", Some(101)))]);
    });
    let [a, b] = [("a", 1), ("b", 2)].map(|(tap, id)| Guest::attach(&lab, tap, id));
    a.shout(1);
    assert_eq!(b.hear(), 1);
    drop((a, b));
    lab.inside(|| {
        let network = LinuxNetwork::new(NetworkPlace::Host);
        network.delete(&name("a")).unwrap();
        network.delete(&name("b")).unwrap();
        network.release(false).unwrap();
    });
    assert_eq!(lab.interfaces(), ["far", "mega_bridge.101", "theirs"]);
}

#[test]
fn two_hundred_taps() {
    each_form(|form| {
        let mut lab = Lab::new(form);
        let taps: Vec<NewTap> = (0..200)
            .map(|n| match n % 10 {
                0 => host(&format!("h{n:03}"), Some(n % 3 + 1), &[(&format!("10.0.{n}.1"), 24)]),
                _ => vm(&format!("t{n:03}"), Some(n % 3 + 1)),
            })
            .collect();
        lab.network.create_all(&taps).unwrap();
        lab.restart();
        let mut expected: Vec<Port> = taps.iter().map(port).collect();
        expected.sort_by(|a, b| a.tap.cmp(&b.tap));
        assert_eq!(lab.network.list().unwrap(), expected);
        for tap in &taps {
            lab.network.delete(&tap.tap).unwrap();
        }
        assert_eq!(lab.interfaces(), Vec::<String>::new());
    });
}

#[test]
fn addresses_that_a_guest_could_have_caused_are_not_listed() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::PerVlan);
    lab.network.create(&host("h", Some(1), &[])).unwrap();
    let settings = lab.inside(|| {
        ["ipv6/conf/h/accept_ra", "ipv4/conf/h/arp_ignore", "ipv4/ip_forward", "ipv6/conf/mega_bridge.1/disable_ipv6"]
            .map(|path| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned())
    });
    assert_eq!(settings, ["0", "1", "0", "1"]);
    // The kernel gives it a link-local address; that one is not the engine's doing.
    assert_eq!(lab.network.list().unwrap()[0].addresses, Vec::<(IpAddr, u8)>::new());
}
