//! Real frames on real interfaces, in namespaces that the tests make themselves, read back from the files.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::libc;

use super::super::netlink::Netlink;
use super::super::testing::root;
use super::super::vlan_filter;
use super::super::{run_in, tun};
use super::*;
use crate::host::pcap::{FILE_HEADER, RECORD_HEADER, intact};
use crate::host::{Network, NetworkPlace, NewTap, Segment, TapKind};
use crate::name::{BridgeName, TapName, VlanTag};

/// A network in a namespace of its own that is gone after the test, also when it fails.
struct Lab {
    folder: tempfile::TempDir,
    network: LinuxNetwork,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let network = LinuxNetwork::new(NetworkPlace::Own { pin: folder.path().join("netns") });
        Self { folder, network }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sniff(&self, heard: SniffTarget, name: &str) -> Sniff {
        Sniff { heard, path: self.path(name), resume: false, snaplen: 1600, filter: String::new() }
    }

    fn start(&self, heard: SniffTarget, name: &str) -> Box<dyn Sniffer> {
        self.network.sniff(&self.sniff(heard, name)).unwrap()
    }

    fn tap(&self, tap: &str, vlan: Option<u64>) {
        let new = NewTap {
            tap: TapName::new(tap).unwrap(),
            kind: TapKind::Vm,
            segment: vlan.map(segment),
            addresses: Vec::new(),
            owner: owner(tap),
        };
        self.network.create(&new).unwrap();
    }

    /// The far end of a tap, as QEMU holds it.
    fn attach(&self, tap: &str) -> Guest {
        let device = run_in(&self.folder.path().join("netns"), || {
            let device = tun::Tap::open().unwrap();
            let flags = libc::IFF_TAP | libc::IFF_NO_PI;
            tun::set_interface(device.as_raw_fd(), tap, flags | libc::IFF_VNET_HDR).unwrap();
            let mut netlink = Netlink::open().unwrap();
            while netlink.link_by_name(tap).unwrap().is_some_and(|link| link.master.is_some() && !link.forwarding) {
                std::thread::yield_now();
            }
            device
        })
        .unwrap();
        Guest(device)
    }

    /// The numbers of the frames of this test in a file, each with the VLAN of its tag.
    fn numbers(&self, name: &str) -> Vec<(Option<u16>, u8)> {
        let bytes = std::fs::read(self.path(name)).unwrap();
        let frames = frames(&bytes, 1600);
        frames.iter().filter_map(|frame| read(frame)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let pin = self.folder.path().join("netns");
        self.network = LinuxNetwork::new(NetworkPlace::Host);
        super::super::namespace::remove(&pin).unwrap();
    }
}

struct Guest(File);

impl Guest {
    /// Send a frame with a number to everybody; it has crossed the bridge when this returns.
    fn shout(&self, number: u8) {
        let kind = [0x88, 0xb5];
        let mut frame = [&[0; 10][..], &[0xff; 6], &[0x52, 0x54, 0, 0, 0, 1], &kind, &[number]].concat();
        frame.resize(70, 0);
        assert_eq!((&self.0).write(&frame).unwrap(), frame.len());
    }
}

fn owner(tap: &str) -> String {
    format!("test {tap}")
}

fn ear(tap: &str) -> SniffTarget {
    SniffTarget::Tap { owner: owner(tap) }
}

fn bridge() -> SniffTarget {
    SniffTarget::Bridge(BridgeName::default_bridge())
}

fn segment(vlan: u64) -> Segment {
    Segment { bridge: BridgeName::default_bridge(), vlan: VlanTag::new(vlan).unwrap() }
}

/// The frames of a file; everything about it must be right.
fn frames(bytes: &[u8], snaplen: u32) -> Vec<Vec<u8>> {
    assert_eq!(intact(&mut &*bytes, bytes.len() as u64, snaplen).unwrap(), Ok(bytes.len() as u64));
    let (mut at, mut frames, mut last) = (FILE_HEADER, Vec::new(), (0, 0));
    while at < bytes.len() {
        let word = |offset: usize| u32::from_le_bytes(bytes[at + offset..at + offset + 4].try_into().unwrap());
        assert!(last <= (word(0), word(4)), "records are in the order of time");
        last = (word(0), word(4));
        let kept = word(8) as usize;
        assert_eq!(kept, word(12).min(snaplen) as usize);
        frames.push(bytes[at + RECORD_HEADER..at + RECORD_HEADER + kept].to_vec());
        at += RECORD_HEADER + kept;
    }
    frames
}

/// VLAN and number of a frame of [`Guest::shout`].
fn read(frame: &[u8]) -> Option<(Option<u16>, u8)> {
    let vlan = (frame[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([frame[14], frame[15]]));
    let rest = &frame[if vlan.is_some() { 16 } else { 12 }..];
    (rest[..2] == [0x88, 0xb5]).then(|| (vlan, rest[2]))
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.starts_with("capture")))
        .count()
}

#[test]
fn a_bridge_is_heard_once_with_all_its_vlans() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    // Before there is a namespace, and with it before every interface.
    let all = lab.start(bridge(), "all.pcap");
    assert_eq!((all.status().interfaces, all.status().stopped), (0, None));
    let other = lab.start(SniffTarget::Bridge(BridgeName::new("other").unwrap()), "other.pcap");
    for (tap, vlan) in [("a", 1), ("b", 1), ("c", 2), ("none", 0), ("last", 4094)] {
        lab.tap(tap, Some(vlan));
    }
    let [a, b, c, none, last] = ["a", "b", "c", "none", "last"].map(|tap| lab.attach(tap));
    // One for each VLAN, or one for all that the kernel's filter knows and one for the last one.
    let interfaces = if vlan_filter::available() { 2 } else { 4 };
    assert_eq!(all.status().interfaces, interfaces);
    a.shout(1);
    b.shout(2);
    c.shout(3);
    none.shout(4);
    last.shout(5);
    // A VLAN that comes later, and one that goes.
    lab.network.connect(&TapName::new("c").unwrap(), Some(&segment(3))).unwrap();
    c.shout(6);
    assert_eq!(all.status().interfaces, interfaces);
    let status = all.stop();
    assert_eq!((status.dropped, &status.stopped), (0, &None));
    let heard = [(Some(1), 1), (Some(1), 2), (Some(2), 3), (None, 4), (Some(4094), 5), (Some(3), 6)];
    assert_eq!(lab.numbers("all.pcap"), heard);
    assert_eq!(all.stop().frames, status.frames, "a second time is fine");
    other.stop();
    assert!(lab.numbers("other.pcap").is_empty());
}

#[test]
fn a_tap_is_heard_through_its_changes() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    let tap = TapName::new("a").unwrap();
    let capture = lab.start(ear("a"), "a.pcap");
    lab.tap("a", Some(1));
    lab.tap("b", Some(1));
    let (a, b) = (lab.attach("a"), lab.attach("b"));
    a.shout(1);
    b.shout(2);
    lab.network.connect(&tap, None).unwrap();
    b.shout(3);
    lab.network.connect(&tap, Some(&segment(1))).unwrap();
    a.shout(4);
    // Made anew, as when its VM is started again.
    drop(a);
    lab.network.delete(&tap).unwrap();
    assert_eq!(capture.status().interfaces, 0);
    lab.tap("a", Some(1));
    let a = lab.attach("a");
    a.shout(5);
    capture.stop();
    assert_eq!(lab.numbers("a.pcap"), [(None, 1), (None, 2), (None, 4), (None, 5)]);
}

#[test]
fn snaplen_and_filter_choose() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    lab.tap("a", Some(7));
    let start = |filter: &str, name: &str| {
        let sniff = Sniff { filter: filter.to_owned(), snaplen: 20, ..lab.sniff(bridge(), name) };
        lab.network.sniff(&sniff)
    };
    let captures = [("ether proto 0x88b5", "kind"), ("vlan 7", "vlan"), ("vlan 8", "none"), ("ether[14] == 2", "two")]
        .map(|(filter, name)| start(filter, name).unwrap());
    let error = start("ether porto", "wrong").err().unwrap().to_string();
    assert!(error.contains("`ether porto`") && error.contains("syntax error"), "{error}");
    assert!(!lab.path("wrong").exists());
    let a = lab.attach("a");
    a.shout(1);
    a.shout(2);
    captures.iter().for_each(|capture| drop(capture.stop()));
    let read = |name: &str| {
        let bytes = std::fs::read(lab.path(name)).unwrap();
        frames(&bytes, 20).iter().filter_map(|frame| read(frame)).collect::<Vec<_>>()
    };
    assert_eq!(read("kind"), [(Some(7), 1), (Some(7), 2)]);
    assert_eq!(read("vlan"), [(Some(7), 1), (Some(7), 2)]);
    assert_eq!(read("none"), []);
    assert_eq!(read("two"), [(Some(7), 2)]);
}

#[test]
fn a_capture_that_is_resumed_goes_on_in_its_file() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    lab.tap("a", Some(1));
    let a = lab.attach("a");
    let capture = lab.start(ear("a"), "a.pcap");
    a.shout(1);
    drop(capture);
    a.shout(2);
    // As a process that was killed in the middle of a record leaves it.
    File::options().append(true).open(lab.path("a.pcap")).unwrap().write_all(&[0; 9]).unwrap();
    let resumed = lab.network.sniff(&Sniff { resume: true, ..lab.sniff(ear("a"), "a.pcap") }).unwrap();
    a.shout(3);
    let twice = lab.network.sniff(&lab.sniff(ear("a"), "a.pcap")).err().unwrap();
    assert!(matches!(twice, SniffError::InUse { .. }), "{twice}");
    resumed.stop();
    assert_eq!(lab.numbers("a.pcap"), [(None, 1), (None, 3)]);
}

#[test]
fn what_happens_to_the_file_or_the_interfaces_is_told() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    lab.tap("a", Some(1));
    let a = lab.attach("a");
    let deleted = lab.start(ear("a"), "deleted.pcap");
    let kept = lab.start(bridge(), "kept.pcap");
    a.shout(1);
    std::fs::remove_file(lab.path("deleted.pcap")).unwrap();
    a.shout(2);
    wait_for("the capture to stop", || deleted.status().stopped.as_deref() == Some("the file was deleted"));
    // The bridge is deleted behind the engine's back.
    let pin = lab.folder.path().join("netns");
    run_in(&pin, || {
        let mut netlink = Netlink::open().unwrap();
        let bridge = netlink.link_by_name("mega_bridge.1").unwrap().unwrap();
        netlink.delete_link(bridge.index).unwrap();
    })
    .unwrap();
    wait_for("the socket of the bridge to go", || kept.status().interfaces == 0);
    lab.network.connect(&TapName::new("a").unwrap(), Some(&segment(1))).unwrap();
    a.shout(3);
    drop(deleted);
    kept.stop();
    assert_eq!(lab.numbers("kept.pcap"), [(Some(1), 1), (Some(1), 2), (Some(1), 3)]);
    assert_eq!(kept.status().stopped, None);
}

#[test]
fn a_full_disk_ends_a_capture_with_a_whole_record() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    let disk = lab.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted =
        nix::mount::mount(Some("tmpfs"), &disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=16k"));
    mounted.unwrap();
    lab.tap("a", Some(1));
    let a = lab.attach("a");
    let capture = lab.start(ear("a"), "disk/a.pcap");
    let mut sent = 0_u32;
    while capture.status().stopped.is_none() {
        a.shout(1);
        sent += 1;
        assert!(sent < 100_000, "16 KiB take them all");
    }
    let status = capture.stop();
    let reason = status.stopped.unwrap();
    assert!(reason.starts_with("No space left on device"), "{reason}");
    let bytes = std::fs::read(lab.path("disk/a.pcap")).unwrap();
    let count = frames(&bytes, 1600).len() as u64;
    assert!(count > 100 && count == status.frames, "{count}, {}", status.frames);
    let error = lab.network.sniff(&lab.sniff(ear("a"), "disk/b.pcap")).err();
    // A page may be free still; if not, nothing is left of the attempt.
    assert!(error.is_none() || !lab.path("disk/b.pcap").exists());
    drop(capture);
    nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn with_the_last_capture_the_thread_ends() {
    if !root() {
        return;
    }
    // Other tests have captures too: look in a process of its own.
    let inner = "MEGAFORM_TEST_CAPTURE_THREADS";
    if std::env::var_os(inner).is_none() {
        let name = "host::linux::sniffing::tests::with_the_last_capture_the_thread_ends";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(inner, "1")
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let lab = Lab::new();
    lab.tap("a", Some(1));
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..3 {
        let captures: Vec<_> = (0..20).map(|at| lab.start(ear("a"), &format!("{at}.pcap"))).collect();
        assert!((1..=READERS).contains(&threads()), "what hears nothing has no thread of its own");
        drop(captures);
        assert_eq!((threads(), descriptors()), (0, before));
    }
    // A capture does not keep the namespace.
    let capture = lab.start(bridge(), "bridge.pcap");
    lab.network.delete(&TapName::new("a").unwrap()).unwrap();
    lab.network.release(false).unwrap();
    assert!(!Path::new(&lab.path("netns")).exists());
    lab.tap("a", Some(1));
    lab.attach("a").shout(9);
    capture.stop();
    assert_eq!(lab.numbers("bridge.pcap"), [(Some(1), 9)]);
}
