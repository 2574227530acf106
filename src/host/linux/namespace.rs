//! Network namespaces that are pinned in the file system, so that they outlive the process that made them.
//!
//! A pin is a file on which the namespace's nsfs file is mounted (network_namespaces(7), mount(2)). A plain file at that
//! place is what a crash between the two steps has left; it stands for no namespace.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::host::NetworkError;

/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespace that is pinned at `pin`; None if there is no pin or nothing is mounted on it.
pub(super) fn open(pin: &Path) -> Result<Option<OwnedFd>, NetworkError> {
    let refused =
        |source| NetworkError::Kernel { what: format!("open the network namespace at {}", pin.display()), source };
    // O_NONBLOCK: whatever somebody has put there, opening it does not hang.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(pin) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    let system = fstatfs(&file).map_err(|errno| refused(errno.into()))?;
    Ok((system.filesystem_type() == NSFS_MAGIC).then(|| file.into()))
}

/// Enter a namespace, for the calling thread only.
pub(super) fn enter(namespace: impl AsFd) -> Result<(), NetworkError> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        Errno::EPERM => lacks_privilege("enter a network namespace"),
        errno => NetworkError::Kernel { what: "enter the network namespace".to_owned(), source: errno.into() },
    })
}

/// Make a namespace, pin it and leave the calling thread in it. On failure no pin is left.
pub(super) fn create(pin: &Path) -> Result<OwnedFd, NetworkError> {
    let refused =
        |what: &str, source: io::Error| NetworkError::Kernel { what: format!("{what} {}", pin.display()), source };
    // A plain file that a crash has left goes first, so that nobody's open descriptor of it matters.
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused("remove the stale pin", error)),
        _ => {}
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
        Errno::EPERM => lacks_privilege("create a network namespace"),
        Errno::EINVAL => NetworkError::Unsupported {
            what: "create a network namespace".to_owned(),
            missing: "the kernel option CONFIG_NET_NS".to_owned(),
        },
        errno => NetworkError::Kernel { what: "create a network namespace".to_owned(), source: errno.into() },
    })?;
    let namespace = current()?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(pin)
        .map_err(|error| refused("create the pin", error))?;
    if let Err(errno) = mount(Some(OWN), pin, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
        // Best effort: the first error is what the caller needs to know.
        let _ = std::fs::remove_file(pin);
        return Err(refused("mount the network namespace on", errno.into()));
    }
    Ok(namespace)
}

/// The network namespace of the calling thread.
pub(super) fn current() -> Result<OwnedFd, NetworkError> {
    let file = File::open(OWN)
        .map_err(|source| NetworkError::Kernel { what: "open the thread's network namespace".to_owned(), source })?;
    Ok(file.into())
}

/// Take a pin away. No pin is fine.
pub(super) fn remove(pin: &Path) -> Result<(), NetworkError> {
    let refused =
        |what: &str, source: io::Error| NetworkError::Kernel { what: format!("{what} {}", pin.display()), source };
    // MNT_DETACH also takes it from every mount namespace that the mount has propagated to. Mounts can be stacked.
    loop {
        match umount2(pin, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point, or no file.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(refused("unmount the network namespace from", errno.into())),
        }
    }
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused("remove the pin", error)),
        _ => Ok(()),
    }
}

/// Run a function in the network namespace that is pinned at `pin`, on a thread of its own; the calling thread stays
/// where it is. An error if nothing is pinned there.
pub fn run_in<R: Send>(pin: &Path, f: impl FnOnce() -> R + Send) -> Result<R, NetworkError> {
    let namespace = pinned(pin)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter(&namespace)?;
            Ok(f())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Replace this process by a program in the network namespace that is pinned at `pin`. Returns only on failure; the
/// calling thread may then be in that namespace.
pub fn exec_in(pin: &Path, program: &str, args: &[String]) -> Result<Infallible, NetworkError> {
    let namespace = pinned(pin)?;
    enter(&namespace)?;
    let source = Command::new(program).args(args).exec();
    Err(NetworkError::Kernel { what: format!("run {program}"), source })
}

fn pinned(pin: &Path) -> Result<OwnedFd, NetworkError> {
    open(pin)?.ok_or_else(|| NetworkError::Kernel {
        what: format!("enter the network namespace at {}", pin.display()),
        source: io::Error::new(io::ErrorKind::NotFound, "there is none: nothing is running in it"),
    })
}

/// Write a kernel setting of the calling thread's network namespace (`/proc/sys/net/…`), if it is not so already.
/// A setting that this kernel does not have is fine.
pub(super) fn sysctl(path: &str, value: &str) -> Result<(), NetworkError> {
    let file = format!("/proc/sys/net/{path}");
    match std::fs::read_to_string(&file) {
        Ok(now) if now.trim() == value => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => std::fs::write(&file, value)
            .map_err(|source| NetworkError::Kernel { what: format!("set {file} to {value}"), source }),
    }
}

pub(super) fn lacks_privilege(what: &str) -> NetworkError {
    NetworkError::Unsupported {
        what: what.to_owned(),
        missing: "the privilege (run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN)".to_owned(),
    }
}
