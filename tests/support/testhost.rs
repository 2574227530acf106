//! The full test host of `scripts/testhost`: a Debian machine in QEMU whose kernel has what that of the machine around it may
//! lack (netem, Open vSwitch's datapath, VLAN filtering, GRE, nbd, KVM for guests inside).
//!
//! A test that needs it is written like any other, in a test program that also has one test which boots the machine:
//!
//! ```ignore
//! #[test]
//! fn in_the_test_host() {
//!     testhost::run_tests("inside::", &["sch_netem"]);
//! }
//!
//! mod inside {
//!     #[test]
//!     #[ignore = "runs in the test host"]
//!     fn netem_delays() {
//!         if !testhost::inside() { return; }
//!         …
//!     }
//! }
//! ```
//!
//! A boot takes about 20 s, so put tests together: those of one program are run by one boot. Inside, the repository and the
//! built programs are at the paths that they have outside, read only; tests are root, run one at a time, under CI=true
//! (what would skip itself fails); `/tmp` is writable. Programs there: iproute2, ping, iperf3, tcpdump, ethtool, nft,
//! dnsmasq, Open vSwitch (nothing is started), Python, QEMU. Programs run 3 to 5 times slower than outside.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::have;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Is this test running inside? Says so if not.
pub fn inside() -> bool {
    let inside = std::env::var_os("MEGAFORM_TESTHOST").is_some();
    if !inside {
        println!("skipped: this test runs in the test host only");
    }
    inside
}

/// Whether the test host can be booted; prints a skip locally and fails under CI=true if not.
pub fn available() -> bool {
    have(&["testhost", "qemu-system-x86_64", "setpriv", "bash"])
}

/// Boot the test host, load the modules, and run the ignored tests of this test program whose names contain `filter`. Fails with
/// the output of the tests if one of them fails or there is none.
#[track_caller]
pub fn run_tests(filter: &str, modules: &[&str]) {
    if !available() {
        return;
    }
    let program = std::env::current_exe().expect("the running test program");
    let command = format!(
        "{}'{}' --ignored --nocapture --test-threads=1 '{filter}'\nexit $((100 + $?))",
        load(modules),
        program.to_str().expect("a path in UTF-8")
    );
    let (code, out) = boot(&command);
    println!("{out}");
    // Not 0, which could as well be the code of a machine that has run nothing.
    assert_eq!(code, 100, "in the test host:\n{out}");
    let passed = out.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(passed.is_some_and(|passed: u32| passed > 0), "no test named {filter} has run:\n{out}");
}

/// Boot the test host and run a shell command as root inside. Its exit code, and what it printed. Check [`available`] first.
#[track_caller]
pub fn boot(command: &str) -> (i32, String) {
    let mut shares: Vec<PathBuf> = vec![PathBuf::from(ROOT)];
    let program = std::env::current_exe().expect("the running test program");
    // A target folder elsewhere (CARGO_TARGET_DIR): TARGET/debug/deps/PROGRAM.
    shares.extend(program.ancestors().nth(3).filter(|target| !target.starts_with(ROOT)).map(Path::to_owned));
    let mut run = Command::new("setpriv");
    run.args(["--pdeathsig", "TERM"]).arg(Path::new(ROOT).join("scripts/testhost")).args(["run", "--limit", "900"]);
    for share in &shares {
        run.arg("--share").arg(share);
    }
    run.arg(format!("export MEGAFORM_TESTHOST=1 CI=true\n{command}"));
    let output = run.stdin(Stdio::null()).output().expect("setpriv starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text.into_owned())
}

fn load(modules: &[&str]) -> String {
    if modules.is_empty() { String::new() } else { format!("modprobe -a {} || exit\n", modules.join(" ")) }
}
