//! What guests write on serial ports: kept, bounded, shown, looked through, and waited for by an apply.
#![allow(missing_docs)]

mod support;

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use support::{Lab, guest, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];
const BOOT_NEEDS: &[&str] = &["root", "qemu-system-x86_64", "guest"];
const MIB: u64 = 1 << 20;

/// A disk whose boot sector writes a text to the first serial port of a PC, once or again and again.
fn disk(lab: &Lab, name: &str, text: &[u8], again: bool) -> PathBuf {
    const LOADED_AT: usize = 0x7c00;
    // cli; xor ax, ax; mov ds, ax; mov si, TEXT; mov dx, 0x3f8
    let mut code = vec![0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0, 0, 0xba, 0xf8, 0x03];
    // lodsb; test al, al; jz +3; out dx, al; jmp -8
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8]);
    // jmp to `mov si`, or: hlt; jmp -3
    code.extend_from_slice(if again { &[0xeb, 0xf0] } else { &[0xf4, 0xeb, 0xfd] });
    let at = u16::try_from(LOADED_AT + code.len()).expect("below 64 KiB");
    code[6..8].copy_from_slice(&at.to_le_bytes());
    code.extend_from_slice(text);
    assert!(code.len() < 510, "the text fits into the sector");
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(64 << 10, 0);
    let path = lab.folder.path().join(name);
    std::fs::write(&path, code).expect("the temporary folder is writable");
    path
}

/// Launch a VM with that disk and serial ports, without starting it.
fn launch(lab: &Lab, name: &str, disk: &Path, ports: usize) {
    lab.e("clear vm config").ok();
    lab.e("vm config memory 16").ok();
    lab.e(&format!("vm config serial-ports {ports}")).ok();
    lab.e(&format!("vm config disks {}", disk.display())).ok();
    lab.e(&format!("vm launch kvm {name}")).ok();
}

/// Write as QEMU does.
fn append(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::options().append(true).open(path).expect("QEMU made it");
    file.write_all(bytes).expect("the file is ours");
}

fn taken(path: &Path) -> u64 {
    std::fs::metadata(path).expect("QEMU made it").blocks() * 512
}

fn kill_daemon(lab: &Lab) {
    let pid = nix::unistd::Pid::from_raw(lab.daemon_pid().expect("a daemon runs"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
    wait_for("the daemon to end", || lab.run(&["-e", "version"]).code != 0);
}

#[test]
fn what_guests_wrote_is_shown_and_looked_through() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let talks = disk(&lab, "talks.img", b"booted\r\n[\x1b[0;32m  OK  \x1b[0m] up\r\ndb $ login: \xff", false);
    launch(&lab, "web[0-1]", &talks, 2);
    launch(&lab, "none", &talks, 0);
    let asked = |target: &str, text: &str| lab.e(&format!("vm serial {target} 0 contains {text}"));
    asked("web[0-1]", "login:")
        .fails("web[0-1] have not written \"login:\" on serial port 0: web0 has written nothing");
    lab.e("vm start all").ok();
    wait_for("the guests to write", || asked("web[0-1]", "login:").code == 0);
    let shown = lab.e(".annotate false vm serial web0").ok().out;
    assert_eq!(shown.trim_end(), "booted\n[  OK  ] up\ndb $ login: \u{fffd}");
    assert_eq!(lab.e(".annotate false vm serial web0 0 1").ok().out.trim_end(), "db $ login: \u{fffd}");
    assert_eq!(lab.e("vm serial web0 1").ok().out, "", "nothing was written on the other port");
    // Colours are no part of the text, and `all` leaves out what has no such port.
    assert_eq!(
        lab.rows(".columns name,state,port,line vm serial all 0 contains \"[  OK  ] up\""),
        [["web0", "RUNNING", "0", "[  OK  ] up"], ["web1", "RUNNING", "0", "[  OK  ] up"]]
    );
    lab.e("vm serial web[0-1] 0 matches \"(?i)^DB . LOGIN\"").ok();
    lab.e("vm serial web[0-1] 0 matches \"^login\"").fails("web0 last wrote \"db $ login: \u{fffd}\"");
    let rows = lab.rows(".columns name,written,line vm serial all");
    assert_eq!((rows.len(), rows[0][0].as_str(), rows[0][2].as_str()), (2, "web0", "db $ login: \u{fffd}"));
    assert!(rows[0][1].parse::<u64>().is_ok_and(|written| written > 30), "{rows:?}");
    // What cannot be answered says why.
    for (line, why) in [
        ("vm serial web0 2", "web0 has no serial port 2: it was launched with `vm config serial-ports 2`"),
        ("vm serial web0 256", "invalid serial port `256`, expected a number from 0 to 255"),
        ("vm serial web0 0 0", "invalid number of lines `0`"),
        ("vm serial web0 0 contains", "invalid number of lines `contains`"),
        ("vm serial none", "none has no serial port 0"),
        ("vm serial nobody", "vm not found: nobody"),
        ("vm serial web[0-2] 0 contains login", "vm not found: web2"),
        ("vm serial all 7 contains x", "no VM of the namespace has a serial port 7"),
        ("vm serial web0 0 contains \"\"", "it is empty"),
        ("vm serial web0 0 matches \"a(\"", "invalid text `a(`: unclosed group"),
        ("vm serial web0 0 matches a*", "matches the empty text"),
    ] {
        lab.e(line).fails(why);
    }
    // After the end it can be read, and the next run begins without it.
    lab.e("vm kill web0").ok();
    assert_eq!(lab.rows(".columns name,state vm serial web0 0 contains login:"), [["web0", "QUIT"]]);
    asked("web0", "never").fails("web0 last wrote \"db $ login: \u{fffd}\" and is QUIT");
    std::fs::write(&talks, [0; 64 << 10]).expect("the file is ours");
    lab.e("vm start web0").ok();
    asked("web0", "login:").fails("web0 has written nothing");
    asked("web1", "login:").ok();
}

#[test]
fn what_an_older_release_launched_is_not_taken_for_silent() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let disk = disk(&lab, "talks.img", b"booted", false);
    lab.e("vm config qemu-override \",logfile=serial0.log,logappend=on\" \"\"").ok();
    lab.e("vm config memory 16").ok();
    lab.e("vm config serial-ports 1").ok();
    lab.e(&format!("vm config disks {}", disk.display())).ok();
    lab.e("vm launch kvm old").ok();
    lab.kill_daemon();
    lab.start_daemon();
    launch(&lab, "new", &disk, 1);
    for line in ["vm serial old", "vm serial all 0 contains booted", "vm serial old 0 contains booted"] {
        lab.e(line).fails("what old writes on serial port 0 is not kept");
    }
    assert_eq!(lab.e("vm serial new").ok().out, "");
    // It hides nothing of the others.
    let rows = lab.rows(".columns name,written,line vm serial all");
    assert_eq!(rows[0], ["new", "0", ""]);
    assert!(
        rows[1][..2] == ["old", ""] && rows[1][2].contains("what old writes on serial port 0 is not kept"),
        "{rows:?}"
    );
}

#[test]
fn a_vm_whose_record_is_lost_goes_with_what_it_wrote() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let disk = disk(&lab, "talks.img", b"booted", false);
    launch(&lab, "a", &disk, 2);
    lab.kill_daemon();
    let folder = lab.base.join("0");
    assert!(folder.join("serial1.log").exists());
    std::fs::write(folder.join("vm.json"), "{").expect("the file is ours");
    lab.start_daemon();
    assert!(!folder.exists() && lab.qemus().is_empty());
}

/// How much the only VM wrote.
fn written(lab: &Lab) -> u64 {
    lab.rows(".columns written vm serial all")[0][0].parse().expect("a number of bytes")
}

#[test]
fn a_guest_that_writes_forever_fills_no_disk() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let disk = disk(&lab, "endless.img", b"again and again\r\n", true);
    launch(&lab, "a", &disk, 1);
    let log = lab.base.join("0/serial0.log");
    lab.e("vm start a").ok();
    wait_for("the guest to write", || written(&lab) > 0);
    // It goes on while somebody reads the socket, and after they are gone.
    let mut reader = std::os::unix::net::UnixStream::connect(lab.base.join("0/serial0")).expect("QEMU listens");
    reader.read_exact(&mut [0; 100]).expect("the guest writes");
    let before = written(&lab);
    wait_for("the guest to write while it is read", || {
        let _ = reader.read(&mut [0; 4096]);
        written(&lab) > before + 1000
    });
    drop(reader);
    let before = written(&lab);
    wait_for("the guest to write on", || written(&lab) > before + 1000);
    // Much more than the guest itself would write in the time of a test, which waits for what is appended to be alone.
    lab.e("vm stop a").ok();
    let megabyte = vec![b'x'; usize::try_from(MIB).expect("it fits")];
    append(&log, b"\nearly mark\n");
    for _ in 0..8 {
        append(&log, &megabyte);
    }
    append(&log, b"\nmiddle mark\n");
    for _ in 0..8 {
        append(&log, &megabyte);
    }
    append(&log, b"\nlate mark\n");
    wait_for("the file to be trimmed", || taken(&log) < 9 * MIB);
    assert!(written(&lab) > 16 * MIB);
    lab.e("vm serial a 0 contains \"early mark\"").ok();
    lab.e("vm serial a 0 contains \"late mark\"").ok();
    lab.e("vm serial a 0 contains \"middle mark\"").fails("bytes that it wrote before are not kept");
    assert!(lab.e("vm serial a 0 100000").ok().out.contains("bytes that are not kept …]"));
    // Without a daemon it grows, and the next one sees to it.
    lab.kill_daemon();
    for _ in 0..16 {
        append(&log, &megabyte);
    }
    append(&log, b"\nwithout a daemon\n");
    assert!(taken(&log) > 16 * MIB);
    lab.start_daemon();
    wait_for("the file to be trimmed", || taken(&log) < 9 * MIB);
    for mark in ["early mark", "without a daemon", "again and again"] {
        lab.e(&format!("vm serial a 0 contains \"{mark}\"")).ok();
    }
    let before = written(&lab);
    lab.e("vm start a").ok();
    wait_for("the guest to write on", || written(&lab) > before + 1000);
}

/// An experiment whose `app` needs what `db` writes.
fn waits(disk: &Path, memory: usize, serial: &str) -> String {
    format!(
        "experiment: lab\nvms:\n  app: {{ memory: 16, state: paused, depends_on: db }}\n  db: {{ memory: {memory}, \
         serial_ports: 1, disks: {}, wait_for: {{ serial: {serial} }} }}\n",
        disk.display()
    )
}

fn names(lab: &Lab) -> Vec<String> {
    let mut names = lab.rows("namespace lab .columns name vm info").concat();
    names.sort();
    names
}

#[test]
fn what_depends_on_a_text_is_launched_once_it_is_written() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let disk = disk(&lab, "db.img", b"\r\n\x1b[1mdb\x1b[0m login: ", false);
    let apply = |text: &str| {
        lab.file("lab.yaml", text);
        lab.run(&["apply", "--yes", "lab.yaml"])
    };
    // A text that never comes: what needs it is skipped, and the answer says what came instead.
    let failed = apply(&waits(&disk, 16, "never, timeout: 8"));
    assert_eq!(failed.code, 4, "{}{}", failed.out, failed.err);
    for text in ["not so within 8s", "db has not written \"never\" on serial port 0: db last wrote \"db login:\""] {
        assert!(failed.err.contains(text), "no {text:?} in:\n{}", failed.err);
    }
    assert_eq!(names(&lab), ["db"]);
    // The guest has written it before this apply.
    let pid = || lab.rows("namespace lab .columns pid .filter name=db vm info");
    let running = pid();
    apply(&waits(&disk, 16, "[\"login:\", { pattern: \"^db [a-z]+: ?$\" }]")).ok();
    assert_eq!((names(&lab), pid()), (vec!["app".to_owned(), "db".to_owned()], running));
    // The text of an earlier run is none of the present one: started anew, and then launched anew.
    std::fs::write(&disk, [0; 64 << 10]).expect("the file is ours");
    for (how, memory, lines) in [
        ("started anew", 16, &["vm kill db", "vm kill app", "vm flush app"][..]),
        ("launched anew", 17, &["vm start db"][..]),
    ] {
        for line in lines {
            lab.e(&format!("namespace lab {line}")).ok();
        }
        let failed = apply(&waits(&disk, memory, "\"login:\", timeout: 2"));
        assert_eq!(failed.code, 4, "{how}: {}{}", failed.out, failed.err);
        assert!(failed.err.contains("db has written nothing"), "{how}: {}", failed.err);
        assert_eq!(names(&lab), ["db"], "{how}");
    }
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.qemus().is_empty() && !lab.base.exists());
}

#[test]
fn killed_while_it_waits_the_next_apply_asks_again() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let disk = disk(&lab, "db.img", b"booted\r\n", false);
    lab.file("lab.yaml", &waits(&disk, 16, "\"by hand\", timeout: 5m"));
    let apply = || {
        let mut command = lab.program();
        command.args(["apply", "--yes", "lab.yaml"]).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let booted = || lab.e("namespace lab vm serial db 0 contains booted").code == 0;
    for daemon_too in [false, true] {
        let mut child = apply();
        wait_for("the guest to boot", booted);
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        if daemon_too {
            kill_daemon(&lab);
        }
    }
    let child = apply();
    wait_for("the daemon to be there again", booted);
    assert_eq!(names(&lab), ["db"]);
    append(&lab.base.join("0/serial0.log"), b"by hand\r\n");
    let answer: support::Answer = child.wait_with_output().expect("our own child").into();
    answer.ok();
    assert_eq!(names(&lab), ["app", "db"]);
    assert!(lab.run(&["plan", "lab.yaml"]).ok().out.contains("No changes"));
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
}

#[test]
fn an_apply_waits_for_what_linux_writes_on_its_console() {
    if !have(BOOT_NEEDS) {
        return;
    }
    let (kernel, initrd) = guest();
    let text = format!(
        r#"
experiment: lab
profiles:
  linux:
    {{ memory: 128, kernel: {}, initrd: {}, append: console=ttyS0, serial_ports: 1,
      wait_for: {{ serial: ["Linux version", {{ pattern: "megaform-guest: ready$" }}], timeout: 5m }} }}
vms:
  "a[0-1]": {{ profile: linux }}
  b: {{ memory: 16, state: paused, depends_on: "a[0-1]" }}
"#,
        kernel.display(),
        initrd.display()
    );
    let lab = Lab::new();
    lab.file("lab.yaml", &text);
    let plan = lab.run(&["plan", "lab.yaml"]).ok().out;
    assert!(plan.contains("vm serial a[0-1] 0 contains \"Linux version\""), "{plan}");
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    let rows = lab.rows("namespace lab .columns name,line vm serial a[0-1] 0 contains ready");
    assert_eq!(rows, [["a0", "megaform-guest: ready"], ["a1", "megaform-guest: ready"]]);
    assert_eq!(names(&lab), ["a0", "a1", "b"]);
    assert!(lab.run(&["plan", "lab.yaml"]).ok().out.contains("No changes"));
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.qemus().is_empty() && !lab.base.exists());
}
