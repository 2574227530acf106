//! Whether ordinary guests run under this host's KVM.
//!
//! That /dev/kvm can be opened says little: where this host is itself a paravirtual guest, its KVM may be able to run
//! only guests that were made for it, and interpret or hang all others. So a small guest is booted.
//!
//! Must not know VMs or settings.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;

use super::process;
use crate::host::ProcessId;

/// How long the small guest may take under KVM. It needs about half a second, most of it for the BIOS.
const PATIENCE: Duration = Duration::from_secs(10);
/// What QEMU ends with when the guest has come to its end: `boot.s` writes 0x2a to isa-debug-exit.
const DONE: i32 = (0x2a << 1) | 1;
/// What KVM prints through QEMU when it cannot go on. QEMU then stays, with the guest stopped.
const INTERNAL_ERROR: &str = "KVM internal error";

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The CPU itself.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        })
    }
}

/// The accelerator to use on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// KVM only if a guest ran under it.
    pub accelerator: Accelerator,
    /// Why this one, in words.
    pub reason: String,
}

/// Find out whether guests run under KVM, by booting one with `qemu` (a path or a name in PATH) and the CPU model that
/// guests get by default under KVM, `host`. Blocks for up to 10 seconds; most hosts answer within one.
pub fn probe(qemu: &str) -> Probe {
    match try_kvm(qemu) {
        Ok(()) => Probe { accelerator: Accelerator::Kvm, reason: "a test guest ran under KVM".to_owned() },
        Err(reason) => Probe { accelerator: Accelerator::Tcg, reason },
    }
}

fn try_kvm(qemu: &str) -> Result<(), String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("KVM on this host's CPU does not run x86-64 guests".to_owned());
    }
    OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "/dev/kvm is absent".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied on /dev/kvm (is the user in its group?)".to_owned(),
        _ => format!("cannot open /dev/kvm: {error}"),
    })?;
    boot(qemu, &["-accel", "kvm", "-cpu", "host"], PATIENCE).map_err(|reason| format!("guest did not run: {reason}"))
}

/// Boot the test guest; Ok if it came to its end.
fn boot(qemu: &str, options: &[&str], patience: Duration) -> Result<(), String> {
    let disk = disk().map_err(|error| format!("cannot make its disk: {error}"))?;
    let mut command = Command::new(qemu);
    command
        .args(options)
        .args(["-machine", "pc", "-m", "16", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-debugcon", "stdio"])
        // The disk is standard input: a file in memory, without a name that could be left behind.
        .args(["-drive", "if=ide,format=raw,file=/proc/self/fd/0"])
        .stdin(Stdio::from(disk))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: the closure runs between fork and exec and makes two system calls.
    unsafe { command.pre_exec(bind_to_parent) };
    let mut child = command.spawn().map_err(|error| format!("cannot run {qemu}: {error}"))?;
    let watched = watch(&mut child, patience);
    // Dead or not, it is still our child, so the pid is its own.
    let killed = child.kill();
    let status = child.wait();
    match (watched, killed.and(status)) {
        (Ok(run), Ok(status)) => run.verdict(status, patience),
        (Err(error), _) | (_, Err(error)) => Err(format!("cannot watch {qemu}: {error}")),
    }
}

/// What the child does before it becomes QEMU: die with the thread that waits for it, and leave no core file, since some
/// versions of QEMU abort where KVM lacks something.
fn bind_to_parent() -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid limit and lives for the whole call.
    nix::errno::Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) })?;
    Ok(())
}

/// What QEMU and its guest did.
struct Run {
    /// The stages that the guest has begun.
    stages: String,
    /// What QEMU said.
    said: String,
    /// It ended by itself.
    ended: bool,
}

/// Take in what QEMU says until it ends, says that KVM has failed, or time is up.
fn watch(child: &mut Child, patience: Duration) -> io::Result<Run> {
    let pidfd = pidfd(child)?;
    let missing = || io::Error::other("no pipe");
    let mut stages = child.stdout.take().ok_or_else(missing)?;
    let mut said = child.stderr.take().ok_or_else(missing)?;
    let (mut heard_stages, mut heard_said) = (Vec::new(), Vec::new());
    let (mut stages_open, mut said_open) = (true, true);
    let deadline = Instant::now() + patience;
    let ended = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || String::from_utf8_lossy(&heard_said).contains(INTERNAL_ERROR) {
            break false;
        }
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        // A pipe that has ended would always be ready.
        fds.extend(stages_open.then(|| PollFd::new(stages.as_fd(), PollFlags::POLLIN)));
        fds.extend(said_open.then(|| PollFd::new(said.as_fd(), PollFlags::POLLIN)));
        // Rounded up, so that the last wait is not a busy one.
        let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, wait) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let gone = ready.next().unwrap_or(false);
        let stages_ready = stages_open && ready.next().unwrap_or(false);
        let said_ready = said_open && ready.next().unwrap_or(false);
        if gone {
            // What is in the pipes is all there will be.
            stages.read_to_end(&mut heard_stages)?;
            said.read_to_end(&mut heard_said)?;
            break true;
        }
        if stages_ready {
            stages_open = read_some(&mut stages, &mut heard_stages)?;
        }
        if said_ready {
            said_open = read_some(&mut said, &mut heard_said)?;
        }
    };
    Ok(Run {
        stages: String::from_utf8_lossy(&heard_stages).into_owned(),
        said: String::from_utf8_lossy(&heard_said).into_owned(),
        ended,
    })
}

/// Read what is there; false at the end.
fn read_some(pipe: &mut impl Read, heard: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let length = pipe.read(&mut buffer)?;
    heard.extend_from_slice(&buffer[..length]);
    Ok(length > 0)
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let id = ProcessId::of(child.id().cast_signed()).map_err(io::Error::other)?;
    process::open(id).map_err(io::Error::other)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

impl Run {
    fn verdict(&self, status: ExitStatus, patience: Duration) -> Result<(), String> {
        if self.ended && status.code() == Some(DONE) {
            return Ok(());
        }
        let stage = match self.stages.chars().last() {
            None => "before its boot sector",
            Some('1') => "in real mode",
            Some('2') => "entering long mode",
            Some('3') => "reading CPUID and model-specific registers",
            Some('4') => "waiting for timer interrupts",
            Some('5') => "using SSE2",
            Some(_) => "running 100 million instructions",
        };
        // KVM's internal error is followed by a dump of registers, QEMU's own errors by failed assertions.
        let internal = self.said.lines().find(|line| line.contains(INTERNAL_ERROR));
        let error = self.said.lines().find_map(|line| line.split_once("error: ")).map(|(_, error)| error);
        let last = self.said.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.contains("warning: "));
        let said = internal.or(error).or(last.map(|line| line.split_once(": ").map_or(line, |(_, rest)| rest)));
        let said = said.map(|line| format!(" ({line})")).unwrap_or_default();
        Err(match (self.ended, internal) {
            (true, _) => format!("QEMU ended {stage}, {status}{said}"),
            (false, Some(_)) => format!("KVM failed {stage}{said}"),
            (false, None) => format!("it was still {stage} after {} s{said}", patience.as_secs()),
        })
    }
}

/// The guest's disk: a boot sector, in a file without a name.
fn disk() -> io::Result<File> {
    let mut disk = File::from(memfd_create("megaform-probe", MFdFlags::MFD_CLOEXEC)?);
    disk.write_all(boot_sector())?;
    Ok(disk)
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(include_str!("accelerator/boot.s"), options(att_syntax));

#[cfg(target_arch = "x86_64")]
fn boot_sector() -> &'static [u8] {
    unsafe extern "C" {
        #[link_name = "megaform_boot_start"]
        static START: [u8; 512];
    }
    // SAFETY: boot.s puts 512 bytes there (`.org` fails to assemble if the code is longer), in a read-only section.
    unsafe { &START }
}

#[cfg(not(target_arch = "x86_64"))]
fn boot_sector() -> &'static [u8] {
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: &str = "qemu-system-x86_64";

    /// Whether QEMU is installed. A test without it is skipped, but not in CI.
    fn qemu() -> bool {
        let found = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
        if !found {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs {QEMU}");
            eprintln!("skipped: this test needs {QEMU}");
        }
        found
    }

    #[test]
    fn the_guest_comes_to_its_end() {
        if !qemu() {
            return;
        }
        assert_eq!(boot(QEMU, &["-accel", "tcg"], Duration::from_secs(120)), Ok(()));
    }

    #[test]
    fn a_guest_that_does_not_end_is_ended() {
        if !qemu() {
            return;
        }
        // It never begins.
        let error = boot(QEMU, &["-accel", "tcg", "-S"], Duration::from_millis(500)).unwrap_err();
        assert_eq!(error, "it was still before its boot sector after 0 s");
    }

    /// Whether this CPU, as this host sees it, can run guests.
    fn virtualizes() -> bool {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        info.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
    }

    #[test]
    fn kvm_is_chosen_only_on_a_cpu_that_virtualizes() {
        if !qemu() {
            return;
        }
        let Probe { accelerator, reason } = probe(QEMU);
        eprintln!("{accelerator}: {reason}");
        assert!(!reason.is_empty());
        assert!(accelerator == Accelerator::Tcg || virtualizes(), "{reason}");
    }

    #[test]
    fn the_guest_itself_tells_a_kvm_that_interprets() {
        if !qemu() || !std::path::Path::new("/dev/kvm").exists() {
            eprintln!("skipped: this test needs /dev/kvm");
            return;
        }
        // Without `-cpu host`, which such a KVM may refuse before the guest begins.
        let result = boot(QEMU, &["-accel", "kvm"], PATIENCE);
        eprintln!("{result:?}");
        assert!(result.is_err() || virtualizes());
    }

    #[test]
    fn refusals_are_told_in_words() {
        let error = boot("no-such-qemu", &[], PATIENCE).unwrap_err();
        assert!(error.starts_with("cannot run no-such-qemu: "), "{error}");
        if qemu() {
            let error = boot(QEMU, &["-accel", "no-such"], Duration::from_secs(120)).unwrap_err();
            assert_eq!(
                error,
                "QEMU ended before its boot sector, exit status: 1 (-accel no-such: invalid accelerator no-such)"
            );
        }
    }
}
