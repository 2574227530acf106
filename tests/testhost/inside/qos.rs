//! What qos does to frames, measured.

use std::process::Command;

use megaform::host::linux::LinuxNetwork;
use megaform::host::{Network, NetworkPlace, NewTap, Reshape, Segment, Shaping, TapKind};
use megaform::name::{BridgeName, Shape, TapName, VlanTag};
use serde_json::Value;

use crate::support::{Lab, have, testhost, wait_for};

/// Two taps of VMs on one segment.
struct Link {
    network: LinuxNetwork,
    folder: tempfile::TempDir,
    shapes: [Shape; 2],
}

/// What arrived of the frames of one direction.
struct Heard {
    sent: usize,
    heard: usize,
    /// In milliseconds, sorted.
    delays: Vec<f64>,
    /// Bits per second.
    rate: f64,
}

impl Heard {
    fn of(value: &Value) -> Self {
        let number = |key: &str| usize::try_from(value[key].as_u64().expect("a number")).expect("a small one");
        let delays = value["delays"].as_array().expect("a list").iter().filter_map(Value::as_f64);
        let mut delays: Vec<f64> = delays.map(|delay| delay * 1e3).collect();
        delays.sort_by(f64::total_cmp);
        Self { sent: number("sent"), heard: number("heard"), delays, rate: value["rate"].as_f64().expect("a number") }
    }

    /// The delay that this share of the frames does not exceed.
    fn quantile(&self, share: f64) -> f64 {
        self.delays[((self.delays.len() - 1) as f64 * share) as usize]
    }

    #[track_caller]
    fn lost_none(&self) {
        assert_eq!(self.heard, self.sent, "frames are missing");
    }

    /// The loss is that of a link which loses each frame with this probability, within five standard deviations.
    #[track_caller]
    fn lost(&self, probability: f64) {
        let (sent, lost) = (self.sent as f64, (self.sent - self.heard) as f64);
        let bound = 5.0 * (sent * probability * (1.0 - probability)).sqrt();
        let expected = sent * probability;
        println!("lost {lost} of {sent}, expected {expected:.0} within {bound:.0}");
        assert!((lost - expected).abs() <= bound, "lost {lost} of {sent}");
    }
}

impl Link {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let network = LinuxNetwork::new(NetworkPlace::Own { pin: folder.path().join("netns") });
        let segment = Segment { bridge: BridgeName::default_bridge(), vlan: VlanTag::new(101).expect("a tag") };
        let tap = |name| NewTap {
            tap: TapName::new(name).expect("a name"),
            kind: TapKind::Vm,
            segment: Some(segment.clone()),
            addresses: Vec::new(),
            owner: name.to_owned(),
        };
        network.create_all(&[tap("end0"), tap("end1")]).expect("taps");
        Self { network, folder, shapes: Default::default() }
    }

    /// Shape what arrives at end 0, and what arrives at end 1.
    fn shape(&mut self, shapes: [&str; 2]) {
        let shapes = shapes.map(|text| text.parse().expect("a shape"));
        let changes: Vec<Reshape> = (0..2)
            .map(|end| Reshape {
                tap: TapName::new(&format!("end{end}")).expect("a name"),
                from: self.shapes[end],
                to: shapes[end],
            })
            .collect();
        self.network.shape(&changes).expect("this kernel has netem");
        self.shapes = shapes;
    }

    /// Send frames both ways: what arrived at end 0, and what arrived at end 1.
    fn measure(&self, frames: u32, bytes: u32, interval: f64) -> [Heard; 2] {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.folder.path().join("netns").display()))
            .args(["python3", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testhost/link.py"), "end0", "end1"])
            .args([frames.to_string(), bytes.to_string(), interval.to_string()])
            .output()
            .expect("nsenter starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let heard = [Heard::of(&value["10"]), Heard::of(&value["01"])];
        for (end, heard) in heard.iter().enumerate() {
            println!(
                "toward end {end} with `{}`: {} of {} frames, delay {:.1} to {:.1} ms, 10 % below {:.1}, half below {:.1}, \
                 90 % below {:.1}, {:.0} bit/s",
                self.shapes[end],
                heard.heard,
                heard.sent,
                heard.quantile(0.0),
                heard.quantile(1.0),
                heard.quantile(0.1),
                heard.quantile(0.5),
                heard.quantile(0.9),
                heard.rate
            );
        }
        heard
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for end in ["end0", "end1"] {
            let _ = self.network.delete(&TapName::new(end).expect("a name"));
        }
        let _ = self.network.release(false);
    }
}

#[test]
#[ignore = "runs in the test host"]
fn each_direction_of_a_link_has_its_delay_and_jitter() {
    if !testhost::inside() || !have(&["root", "nsenter", "python3"]) {
        return;
    }
    let mut link = Link::new();
    let [zero, one] = link.measure(50, 100, 0.01);
    assert!(zero.quantile(0.5) < 20.0 && one.quantile(0.5) < 20.0, "too slow to measure anything");

    link.shape(["delay=50ms", "delay=150ms jitter=40ms"]);
    let [zero, one] = link.measure(200, 100, 0.01);
    zero.lost_none();
    one.lost_none();
    // A frame is never early. How late it is depends on the machine, which is slow.
    assert!(zero.quantile(0.0) > 49.9 && (50.0..80.0).contains(&zero.quantile(0.5)));
    assert!(one.quantile(0.0) > 109.9 && (140.0..180.0).contains(&one.quantile(0.5)));
    // Even from 110 to 190: from 10 % to 90 % are 64 ms.
    let spread = one.quantile(0.9) - one.quantile(0.1);
    assert!((45.0..90.0).contains(&spread), "{spread}");
    assert!(zero.quantile(0.9) - zero.quantile(0.1) < 0.7 * spread);
}

#[test]
#[ignore = "runs in the test host"]
fn frames_are_lost_at_random() {
    if !testhost::inside() || !have(&["root", "nsenter", "python3"]) {
        return;
    }
    let mut link = Link::new();
    link.shape(["", "loss=10"]);
    let [zero, one] = link.measure(2000, 100, 0.001);
    zero.lost_none();
    one.lost(0.1);
    link.shape(["loss=5", ""]);
    let [zero, one] = link.measure(2000, 100, 0.001);
    zero.lost(0.05);
    one.lost_none();
}

#[test]
#[ignore = "runs in the test host"]
fn rate_and_delay_go_together() {
    if !testhost::inside() || !have(&["root", "nsenter", "python3"]) {
        return;
    }
    let mut link = Link::new();
    link.shape(["rate=1mbit", "rate=2mbit delay=50ms"]);
    // 4 Mbit/s for two seconds.
    let [zero, one] = link.measure(1000, 1000, 0.002);
    assert!((0.8e6..1.1e6).contains(&zero.rate), "{}", zero.rate);
    assert!((1.6e6..2.2e6).contains(&one.rate), "{}", one.rate);
    assert!(one.quantile(0.0) > 49.9 && zero.quantile(0.0) < 49.9);
    assert!(zero.heard < zero.sent && one.heard < one.sent, "what is too much is dropped");
    // The queue before the line is bounded: no frame waits for seconds.
    assert!(one.quantile(1.0) < 1000.0 && zero.quantile(1.0) < 1000.0);
}

/// The figures of `ping -q`: how many answers, and the median round trip in milliseconds.
fn ping(lab: &Lab, count: u32, interval: &str) -> (u32, f64) {
    let count_text = count.to_string();
    let answer = lab.run(&["exec-net", "--", "ping", "-n", "-c", &count_text, "-i", interval, "-W", "2", "10.0.0.2"]);
    let mut times: Vec<f64> =
        answer.out.lines().filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    println!("{} of {count} pings answered, half of them within {median} ms", times.len());
    (u32::try_from(times.len()).expect("few"), median)
}

#[test]
#[ignore = "runs in the test host"]
fn a_guest_notices() {
    if !testhost::inside() || !have(&["root", "guest", "qemu-system-x86_64"]) {
        return;
    }
    let (kernel, initrd) = crate::support::guest();
    let mut lab = Lab::with_daemon();
    lab.e(&format!("vm config kernel {}", kernel.display())).ok();
    lab.e(&format!("vm config initrd {}", initrd.display())).ok();
    for line in ["memory 128", "networks LAN", "append quiet ip.0=10.0.0.2/24"] {
        lab.e(&format!("vm config {line}")).ok();
    }
    lab.e("vm launch kvm a").ok();
    // Before it has run.
    lab.e("qos add a 0 delay 200ms").ok();
    lab.e("tap create LAN ip 10.0.0.1/24 here").ok();
    lab.e("vm start a").ok();
    wait_for("the guest to answer", || {
        lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", "10.0.0.2"]).code == 0
    });
    let (answers, delayed) = ping(&lab, 10, "0.1");
    assert!(answers == 10 && (200.0..300.0).contains(&delayed));

    // Loss joins the delay, the NIC moves away and back, the daemon begins anew.
    lab.e("qos add a 0 loss 25").ok();
    lab.e("vm net disconnect a 0").ok();
    lab.e("vm net connect a 0 LAN").ok();
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(lab.rows(".columns name,qos vm info"), [["a", "[0: delay 200ms loss 25]"]]);
    let shaped = |settings: &str, shown: &str| {
        lab.e(&format!("qos set a 0 {settings}")).ok();
        assert_eq!(lab.rows(".columns name,qos vm info"), [["a", shown]]);
    };
    shaped(
        "rate=40gbit delay=20.5ms jitter=5ms loss=0.000001",
        "[0: rate 40gbit delay 20.5ms jitter 5ms loss 0.000001]",
    );
    // What is deleted or changed by hand is seen.
    let tc =
        |args: &str| lab.run(&[&["exec-net", "--", "tc", "qdisc"], &*args.split(' ').collect::<Vec<_>>()].concat());
    tc("change dev mega_tap0 root netem delay 30ms 1ms loss 12.5% rate 1mbit").ok();
    assert_eq!(lab.rows(".columns name,qos vm info"), [["a", "[0: rate 1mbit delay 30ms jitter 1ms loss 12.5]"]]);
    tc("del dev mega_tap0 root").ok();
    assert_eq!(lab.rows(".columns name,qos vm info"), [["a", "[]"]]);
    shaped("delay=200ms loss=25", "[0: delay 200ms loss 25]");
    let (answers, delayed) = ping(&lab, 200, "0.01");
    assert!((200.0..320.0).contains(&delayed));
    // Five standard deviations of 200 tries.
    assert!((119..=181).contains(&answers), "{answers}");

    lab.e("clear qos a").ok();
    let (answers, free) = ping(&lab, 10, "0.1");
    assert!(answers == 10 && free < 100.0);
    // Other things may be missing there, but nothing that this needs.
    let check = lab.e("check").ok().out;
    assert!(!check.contains("qos"), "{check}");
}
