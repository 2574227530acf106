//! Processes: started detached from the daemon, and watched and signalled by pidfd (pidfd_open(2)), so that a reused pid
//! is never mistaken for the process that had it before.
//!
//! Must not know what the programs are. A process that has ended but was not waited for (a zombie) counts as dead.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::host::{ProcessId, Spawn};

/// Why a process could not be started, found or reached.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be executed.
    #[error("cannot run {program}")]
    Program {
        /// The program as it was asked for.
        program: String,
        /// The kernel's error; "not found" where PATH has no such program.
        #[source]
        source: io::Error,
    },
    /// The working folder or the output file cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The folder or file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// There is no such process.
    #[error("no process {pid}")]
    Absent {
        /// Its pid.
        pid: i32,
    },
    /// The kernel refused.
    #[error("cannot {what} process {pid}")]
    Kernel {
        /// What was tried, such as `signal`.
        what: &'static str,
        /// The process.
        pid: i32,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl ProcessId {
    /// The process that has this pid now; a zombie is one too.
    pub fn of(pid: i32) -> Result<Self, ProcessError> {
        let (_, started) = read_stat(pid)?;
        Ok(Self { pid, started })
    }
}

/// Start a program in a session of its own, with no descriptor of the daemon but its output file, default signal
/// handlers and no blocked signal. It outlives the daemon. Use [`wait_exit`] to learn its end and to release its pid.
///
/// A program that cannot be executed is an error here, not an exit status.
pub fn spawn(spawn: &Spawn) -> Result<ProcessId, ProcessError> {
    // Looked at first, because the kernel's error for a missing folder is the one for a missing program.
    match std::fs::metadata(&spawn.folder) {
        Ok(folder) if folder.is_dir() => {}
        Ok(_) => {
            return Err(unusable(&spawn.folder, io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        Err(error) => return Err(unusable(&spawn.folder, error)),
    }
    let output = open_output(&spawn.output).map_err(|error| unusable(&spawn.output, error))?;
    let errors = output.try_clone().map_err(|error| unusable(&spawn.output, error))?;
    let network = spawn.network.as_ref().map(AsRawFd::as_raw_fd);
    let mut command = Command::new(&spawn.program);
    command
        .args(&spawn.args)
        .envs(spawn.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(&spawn.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors));
    // SAFETY: the closure runs between fork and exec. It makes system calls only: no allocation, no lock, no panic. The
    // descriptor in it belongs to `spawn`, which is borrowed until after the child has executed its program.
    unsafe { command.pre_exec(move || detach(network)) };
    let child = command.spawn().map_err(|source| ProcessError::Program { program: spawn.program.clone(), source })?;
    // The pid is the child's until it is waited for, so this finds the child even when it has ended already.
    let pid = child.id().cast_signed();
    ProcessId::of(pid)
}

fn open_output(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // The file may have been there with another mode.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

fn unusable(path: &Path, source: io::Error) -> ProcessError {
    ProcessError::File { path: path.to_owned(), source }
}

/// What the child does before it becomes the program.
pub(super) fn detach(network: Option<RawFd>) -> io::Result<()> {
    nix::unistd::setsid()?;
    if let Some(network) = network {
        // SAFETY: the parent has this descriptor open while it starts the child, and the child has inherited it.
        let network = unsafe { BorrowedFd::borrow_raw(network) };
        setns(network, CloneFlags::CLONE_NEWNET)?;
    }
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: setting a disposition to the default needs no handler. The kernel refuses SIGKILL, SIGSTOP and the two
        // signals that the C library keeps, which is fine: they cannot be ignored.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    SigSet::empty().thread_set_mask()?;
    // Descriptors that the daemon itself has inherited may lack the mark that closes them on exec.
    // SAFETY: a system call on numbers; marking descriptors that are not open is no error.
    let marked = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    match Errno::result(marked) {
        // A kernel before 5.11: Rust marks all descriptors that it opens.
        Ok(_) | Err(Errno::ENOSYS | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a process still runs.
pub fn is_alive(id: ProcessId) -> bool {
    matches!(read_stat(id.pid), Ok((state, started)) if started == id.started && !matches!(state, 'Z' | 'X'))
}

/// Send a signal. A process that has ended already is fine: it needs none.
pub fn signal(id: ProcessId, signal: Signal) -> Result<(), ProcessError> {
    let Some(pidfd) = open(id)? else { return Ok(()) };
    // SAFETY: a system call with an open descriptor, a signal number, no siginfo and no flags.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as libc::c_int,
            std::ptr::null::<libc::siginfo_t>(),
            0 as libc::c_uint,
        )
    };
    match Errno::result(sent) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(ProcessError::Kernel { what: "signal", pid: id.pid, source: errno.into() }),
    }
}

/// Wait until a process has ended, a child or not. A child is waited for (its pid becomes free) and its status is
/// returned, once; of others, and of those that are gone already, the status is not known.
///
/// Dropping the future stops the waiting and does nothing to the process. Needs a tokio runtime with I/O.
pub async fn wait_exit(id: ProcessId) -> Result<Option<ExitStatus>, ProcessError> {
    let Some(pidfd) = open(id)? else { return Ok(None) };
    let refused = |source| ProcessError::Kernel { what: "wait for", pid: id.pid, source };
    // SAFETY: an OwnedFd always gives the same open descriptor, until it is dropped with the registration.
    let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    let pidfd = pidfd.map_err(|error| refused(error.into()))?;
    // A pidfd becomes readable when its process ends, and stays so.
    drop(pidfd.readable().await.map_err(refused)?);
    match waitid(Id::PIDFd(pidfd.get_ref().as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(_, code)) => Ok(Some(ExitStatus::from_raw((code & 0xff) << 8))),
        Ok(WaitStatus::Signaled(_, signal, core)) => {
            Ok(Some(ExitStatus::from_raw(signal as i32 | if core { 0x80 } else { 0 })))
        }
        // No child of ours, or somebody else has waited for it.
        Ok(_) | Err(Errno::ECHILD) => Ok(None),
        Err(errno) => Err(refused(errno.into())),
    }
}

/// Wait for a child that has ended, so that its pid becomes free. Anything else is left as it is.
pub(super) fn reap(id: ProcessId) {
    if let Ok(Some(pidfd)) = open(id) {
        // Not ended, or no child of ours: nothing to wait for.
        let _ = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG);
    }
}

/// End a process: SIGTERM, SIGKILL after `grace`; returns when it has ended, and blocks until then. One that is gone
/// already is fine.
pub(super) fn end(id: ProcessId, grace: Duration) -> Result<(), ProcessError> {
    let Some(pidfd) = open(id)? else { return Ok(()) };
    let refused = |errno: Errno| ProcessError::Kernel { what: "wait for", pid: id.pid, source: errno.into() };
    let ended = |limit: PollTimeout| loop {
        // A pidfd becomes readable when its process ends.
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], limit) {
            Err(Errno::EINTR) => {}
            result => break result.map(|ready| ready > 0).map_err(refused),
        }
    };
    signal(id, Signal::SIGTERM)?;
    if !ended(PollTimeout::try_from(grace).unwrap_or(PollTimeout::MAX))? {
        signal(id, Signal::SIGKILL)?;
        ended(PollTimeout::NONE)?;
    }
    reap(id);
    Ok(())
}

/// Every process whose working folder is `folder` or below it: its id, that folder (also when it was deleted) and its
/// command line. Those that cannot be read, this process and zombies are left out.
pub fn processes_under(folder: &Path) -> Vec<(ProcessId, PathBuf, Vec<String>)> {
    let folder = resolve(folder);
    let own = std::process::id().cast_signed();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != own)
        .filter_map(|pid| {
            let before = ProcessId::of(pid).ok()?;
            let cwd = without_deleted(std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?);
            if !cwd.starts_with(&folder) {
                return None;
            }
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            // Still the same process after all was read.
            is_alive(before).then(|| (before, cwd, split_command_line(&line)))
        })
        .collect();
    found.sort_by_key(|(id, ..)| (id.started, id.pid));
    found
}

/// The path without symbolic links, as far as it exists: the kernel shows working folders in this form.
fn resolve(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if rest.as_os_str().is_empty() => real,
                Ok(rest) => real.join(rest),
                Err(_) => path,
            };
        }
    }
    path
}

/// The kernel marks the path of a deleted folder so (proc(5)); a folder can also be called like that.
fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(real) if !path.exists() => PathBuf::from(real),
        _ => path,
    }
}

fn split_command_line(line: &[u8]) -> Vec<String> {
    let line = line.strip_suffix(b"\0").unwrap_or(line);
    if line.is_empty() {
        return Vec::new();
    }
    line.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// A descriptor of the process; None if it is gone, also when its pid belongs to another one by now.
pub(super) fn open(id: ProcessId) -> Result<Option<OwnedFd>, ProcessError> {
    // SAFETY: a system call on numbers.
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, id.pid, 0 as libc::c_uint) };
    let pidfd = match Errno::result(opened) {
        // SAFETY: the kernel has just given this descriptor to us alone; it is marked to be closed on exec.
        Ok(pidfd) => unsafe { OwnedFd::from_raw_fd(pidfd as RawFd) },
        Err(Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(ProcessError::Kernel { what: "open", pid: id.pid, source: errno.into() }),
    };
    // Looked at after opening: if the pid still has the right start time, the descriptor is of the right process.
    match read_stat(id.pid) {
        Ok((_, started)) => Ok((started == id.started).then_some(pidfd)),
        Err(ProcessError::Absent { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// State and start time (proc(5), /proc/PID/stat fields 3 and 22).
fn read_stat(pid: i32) -> Result<(char, u64), ProcessError> {
    let unreadable = |source| ProcessError::Kernel { what: "read the state of", pid, source };
    let text = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            return Err(ProcessError::Absent { pid });
        }
        Err(error) => return Err(unreadable(error)),
    };
    parse_stat(&text)
        .ok_or_else(|| unreadable(io::Error::new(io::ErrorKind::InvalidData, "/proc has an unknown format")))
}

fn parse_stat(text: &[u8]) -> Option<(char, u64)> {
    // The second field is the name in parentheses, which may hold anything, parentheses and spaces too.
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(22 - 4)?.parse().ok()?))
}

#[cfg(test)]
mod tests;
