//! Shapes on real taps. What the kernel was told is read back by tc(8), which shares no code with this.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::host::{Reshape, Shaping};

pub(super) fn reshape(tap: &str, from: &str, to: &str) -> Reshape {
    Reshape { tap: name(tap), from: from.parse().unwrap(), to: to.parse().unwrap() }
}

/// The engine's qdiscs of an interface, as tc prints them; None without tc.
pub(super) fn qdiscs(lab: &Lab, tap: &str) -> Option<String> {
    let output = lab.inside(|| Command::new("tc").args(["qdisc", "show", "dev", tap]).output());
    let text = match output {
        Ok(output) => String::from_utf8(output.stdout).unwrap(),
        Err(_) => {
            println!("skipped in part: tc (Debian package iproute2) is missing");
            return None;
        }
    };
    let ours = text.lines().filter(|line| line.contains(" 6d6e: ") || line.contains(" 6d72: ")).map(str::trim);
    Some(ours.collect::<Vec<_>>().join("\n"))
}

/// How many bits per second of frames reach `b` while `a` sends as many as it can. `run` tells these frames from others.
fn rate(a: &Guest, b: &Guest, run: u8, lasting: Duration) -> f64 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                a.send(b.mac, EXPERIMENT, &[run; 986]);
            }
        });
        // What an earlier run has left, and what a burst lets pass at once, is over.
        while b.receive(EXPERIMENT)[14] != run {}
        let start = Instant::now();
        let mut bits = 0;
        while start.elapsed() < lasting {
            bits += 8 * b.receive(EXPERIMENT).len();
        }
        let rate = bits as f64 / start.elapsed().as_secs_f64();
        stop.store(true, Ordering::SeqCst);
        rate
    })
}

#[test]
pub(super) fn a_rate_is_that_of_the_frames_that_arrive() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::Auto);
    lab.network.create_all(&[vm("a", Some(1)), vm("b", Some(1))]).unwrap();
    let (a, b) = (Guest::attach(&lab, "a", 1), Guest::attach(&lab, "b", 2));
    lab.network.shape(&[reshape("b", "", "rate=4mbit")]).unwrap();
    // A busy machine can be slower than the rate for a while, but never faster: the best of several tries counts.
    let rates: Vec<f64> = (0..3).map(|run| rate(&a, &b, run, Duration::from_millis(600))).collect();
    let best = rates.iter().copied().fold(0.0, f64::max);
    assert!((2.8e6..5.2e6).contains(&best), "{rates:?}");
    // The other direction is not shaped.
    let back = rate(&b, &a, 3, Duration::from_millis(300));
    assert!(back > 2.0 * best, "{back} of {best}");
    // And none is when the shape is off.
    lab.network.shape(&[reshape("b", "rate=4mbit", "")]).unwrap();
    let free = rate(&a, &b, 4, Duration::from_millis(300));
    assert!(free > 2.0 * best, "{free} of {best}");
}

#[test]
pub(super) fn a_shape_stays_on_its_tap_and_goes_with_it() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::Auto);
    lab.network.create_all(&[vm("a", Some(1)), host("h", Some(1), &[])]).unwrap();
    lab.network.shape(&[reshape("a", "", "rate=10mbit")]).unwrap();
    let Some(before) = qdiscs(&lab, "a") else { return };
    assert!(before.starts_with("qdisc tbf 6d72: root") && before.contains("rate 10Mbit burst 12500b"), "{before}");
    lab.network.connect(&name("a"), None).unwrap();
    lab.network.connect(&name("a"), Some(&segment(2))).unwrap();
    assert_eq!(qdiscs(&lab, "a"), Some(before));

    // Changed in place, to what a 32-bit number of bytes does not hold.
    lab.network.shape(&[reshape("a", "rate=10mbit", "rate=40gbit")]).unwrap();
    assert!(qdiscs(&lab, "a").unwrap().contains("rate 40Gbit"), "{:?}", qdiscs(&lab, "a"));
    lab.network.shape(&[reshape("a", "rate=40gbit", ""), reshape("h", "", "")]).unwrap();
    assert_eq!(qdiscs(&lab, "a").unwrap(), "");
    // What is off already can be taken off again.
    lab.network.shape(&[reshape("a", "", "")]).unwrap();

    lab.network.shape(&[reshape("a", "", "rate=10mbit")]).unwrap();
    lab.network.delete(&name("a")).unwrap();
    lab.network.create(&vm("a", Some(1))).unwrap();
    assert_eq!(qdiscs(&lab, "a").unwrap(), "");
}

#[test]
fn all_taps_are_shaped_or_none() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::Auto);
    let network = &lab.network;
    assert!(matches!(network.shape(&[reshape("a", "", "rate=1mbit")]), Err(NetworkError::NotFound { .. })));
    network.shape(&[]).unwrap();
    network.create_all(&[vm("a", Some(1)), vm("b", Some(1))]).unwrap();
    network.shape(&[reshape("a", "", "rate=1mbit")]).unwrap();
    let changes =
        [reshape("a", "rate=1mbit", "rate=2mbit"), reshape("b", "", "rate=2mbit"), reshape("no", "", "rate=2mbit")];
    let error = network.shape(&changes).unwrap_err();
    assert!(matches!(&error, NetworkError::NotFound { tap } if tap == "no"), "{error}");
    if let Some(a) = qdiscs(&lab, "a") {
        assert!(a.contains("rate 1Mbit"), "{a}");
        assert_eq!(qdiscs(&lab, "b").unwrap(), "");
    }
}

#[test]
fn what_the_kernel_lacks_is_named_and_leaves_the_rest_alone() {
    if !root() {
        return;
    }
    let lab = Lab::new(Form::Auto);
    let network = &lab.network;
    network.create(&vm("a", Some(1))).unwrap();
    network.shape(&[reshape("a", "", "rate=1mbit")]).unwrap();
    let all = "rate=10mbit delay=20ms jitter=5ms loss=0.1";
    match network.shape(&[reshape("a", "rate=1mbit", all)]) {
        Err(error) => {
            assert_eq!(
                error.to_string(),
                "this host cannot delay or drop frames: the kernel option CONFIG_NET_SCH_NETEM (module sch_netem)"
            );
            let kept = qdiscs(&lab, "a").unwrap_or_else(|| "rate 1Mbit".to_owned());
            assert!(kept.contains("rate 1Mbit"), "{kept}");
        }
        // A kernel with netem has it all in one discipline, and changes it in place.
        Ok(()) => {
            let Some(shaped) = qdiscs(&lab, "a") else { return };
            for part in ["qdisc netem 6d6e: root", "delay 20ms  5ms", "loss 0.1%", "rate 10Mbit"] {
                assert!(shaped.contains(part), "{shaped}");
            }
            network.shape(&[reshape("a", all, "loss=25")]).unwrap();
            let changed = qdiscs(&lab, "a").unwrap();
            assert!(
                changed.contains("loss 25%") && !changed.contains("rate") && !changed.contains("delay"),
                "{changed}"
            );
            network.shape(&[reshape("a", "loss=25", "rate=1mbit")]).unwrap();
            assert!(qdiscs(&lab, "a").unwrap().starts_with("qdisc tbf 6d72: root"));
        }
    }
}
