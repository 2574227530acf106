//! The Python bindings under CPython: their own tests, with pytest, against this build's daemon.
#![allow(missing_docs)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

/// A Python that has pytest: the one in PATH, or Debian's.
fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        Command::new(python)
            .args(["-m", "pytest", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

#[test]
fn the_bindings_pass_their_own_tests() {
    if !support::have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let Some(python) = python() else {
        let text = "skipped: this test needs pytest (Debian package python3-pytest)";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
        println!("{text}");
        return;
    };
    let output = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "python/tests"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env("MEGAFORM_PROGRAM", env!("CARGO_BIN_EXE_megaform"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains(" passed") && !text.contains("skipped"), "{text}");
}
