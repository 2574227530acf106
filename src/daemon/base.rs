//! The base folder: made private, held by one daemon at a time, left without a trace.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::network::{NETWORK, NETWORK_PIN};

/// The name of the socket in the base folder (minimega's).
pub const SOCKET: &str = "minimega";

/// The name of the pid file, which is also the lock (minimega's name).
pub const PID: &str = "minimega.pid";

/// How often a folder that is about to be free is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Why a folder cannot be a daemon's.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// It cannot be made or opened.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else could put files there.
    #[error("{} is {problem}; a base folder must be a folder of yours that only you can write (mode 0700)", path.display())]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another daemon holds it.
    #[error("a daemon (pid {pid}) already runs on {}", path.display())]
    Held {
        /// The path.
        path: PathBuf,
        /// Its pid.
        pid: String,
    },
}

/// The base folder, held.
pub struct Base {
    folder: PathBuf,
    made: bool,
    _lock: Flock<File>,
}

impl Base {
    /// Make the folder if it is not there, check that it is ours alone, and hold it.
    ///
    /// A daemon that was killed holds it until the kernel has closed all that it had open: network sockets and taps take
    /// a moment. So a folder that is held, with nobody at its socket, is waited for as long as `patience` says.
    pub fn open(folder: &Path, patience: Duration) -> Result<Self, BaseError> {
        let start = Instant::now();
        loop {
            match Self::try_open(folder) {
                Err(BaseError::Held { path, .. })
                    if start.elapsed() < patience && UnixStream::connect(path.join(SOCKET)).is_err() =>
                {
                    std::thread::sleep(LOOK);
                }
                done => return done,
            }
        }
    }

    fn try_open(folder: &Path) -> Result<Self, BaseError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| BaseError::Io { action, path, source }
        };
        let mut made = false;
        if !folder.exists() {
            if let Some(parent) = folder.parent() {
                std::fs::create_dir_all(parent).map_err(io("create", parent))?;
            }
            match DirBuilder::new().mode(0o700).create(folder) {
                Ok(()) => made = true,
                // Somebody else has made it at the same moment; it is looked at below.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io("create", folder)(error)),
            }
        }
        let folder = folder.canonicalize().map_err(io("open", folder))?;
        let meta = std::fs::symlink_metadata(&folder).map_err(io("open", &folder))?;
        let unsafe_because = |problem| BaseError::Unsafe { path: folder.clone(), problem };
        if !meta.is_dir() {
            return Err(unsafe_because("not a folder"));
        }
        if meta.uid() != nix::unistd::geteuid().as_raw() {
            return Err(unsafe_because("another user's"));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(unsafe_because("writable by others"));
        }
        let pid_file = folder.join(PID);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&pid_file)
            .map_err(io("open", &pid_file))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, _)) => {
                let mut pid = String::new();
                // The pid is only for the message.
                let _ = file.read_to_string(&mut pid);
                return Err(BaseError::Held { path: folder, pid: pid.trim().to_owned() });
            }
        };
        // A daemon that ended a moment ago may have removed the file after it was opened here: then this lock is on a file
        // that nobody else can find.
        let found = std::fs::symlink_metadata(&pid_file).map(|there| (there.dev(), there.ino())).ok();
        let held = lock.metadata().map(|held| (held.dev(), held.ino())).map_err(io("open", &pid_file))?;
        if found != Some(held) {
            drop(lock);
            return Self::try_open(&folder);
        }
        lock.set_len(0).map_err(io("write", &pid_file))?;
        lock.rewind().map_err(io("write", &pid_file))?;
        writeln!(lock, "{}", std::process::id()).map_err(io("write", &pid_file))?;
        Ok(Self { folder, made, _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Leave a folder that could not be worked in as it was found, but for the log.
    pub fn abandon(self) {
        if self.made {
            for file in [crate::engine::STATE_FILE, NETWORK] {
                let _ = std::fs::remove_file(self.folder.join(file));
            }
            let _ = std::fs::remove_dir(self.folder.join("files"));
        }
        let _ = std::fs::remove_file(self.folder.join(PID));
        if self.made {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }

    /// Remove what is this daemon's alone: socket and pid file; and, if no VM is left, the state and the folder itself
    /// if the daemon made it or was started on demand. What is not ours stays, and then so does the folder.
    pub fn close(self, on_demand: bool) {
        let _ = std::fs::remove_file(self.socket());
        let vms = std::fs::read_dir(&self.folder).map_or(0, |entries| {
            entries.flatten().filter(|e| e.file_name().to_str().is_some_and(|n| n.parse::<u32>().is_ok())).count()
        });
        let network = self.folder.join(NETWORK_PIN).exists();
        if vms == 0 && !network && (self.made || on_demand) {
            for file in [crate::engine::STATE_FILE, "state.new", NETWORK, "network.new", LOG] {
                let _ = std::fs::remove_file(self.folder.join(file));
            }
            let _ = std::fs::remove_dir(self.folder.join("files"));
        }
        let _ = std::fs::remove_file(self.folder.join(PID));
        if self.made || on_demand {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

/// The log of a daemon that was started on demand.
pub const LOG: &str = "daemon.log";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_holds_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("base");
        let base = Base::open(&folder, Duration::ZERO).unwrap();
        let error = Base::open(&folder, Duration::ZERO).err().unwrap();
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        base.close(false);
        assert!(!folder.exists(), "a folder that the daemon made goes with it");
    }

    #[test]
    fn a_folder_whose_holder_is_ending_is_waited_for_and_one_that_is_served_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("base");
        let hour = Duration::from_secs(3600);
        let base = Base::open(&folder, Duration::ZERO).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(base.socket()).unwrap();
        assert!(matches!(Base::open(&folder, hour), Err(BaseError::Held { .. })));
        // As after kill -9: the socket's file stays, and the lock goes with the process.
        drop(listener);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| Base::open(&folder, hour));
            std::thread::sleep(3 * LOOK);
            assert!(!next.is_finished(), "it is held");
            drop(base);
            next.join().unwrap().unwrap().close(false);
        });
    }

    #[test]
    fn a_lock_on_a_file_that_is_gone_is_none() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("base");
        // Daemons that come and go at the same time: whoever holds the folder holds the file that others see.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(base) = Base::open(&folder, Duration::ZERO) else { continue };
                        assert!(matches!(Base::open(&folder, Duration::ZERO), Err(BaseError::Held { .. })));
                        base.close(false);
                    }
                });
            }
        });
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("base");
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Base::open(&folder, Duration::ZERO), Err(BaseError::Unsafe { .. })));
    }
}
