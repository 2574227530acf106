//! One apply or destroy at a time per target and experiment.
//!
//! The lock is a `flock` on a file beside the socket, so it dies with its holder, however that ends. The file says who
//! holds it, and goes when the lock is released; one that a killed holder leaves behind is taken over.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::file;
use crate::name::Namespace;

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// When it took the lock, in seconds since 1970.
    pub since: u64,
}

impl Holder {
    /// Is there a process of its pid?
    fn is_alive(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("experiment {experiment} is locked by {}; wait for it, or give --lock-timeout SECONDS", described(holder))]
    Held {
        /// The experiment.
        experiment: Namespace,
        /// Who, if the file says so yet.
        holder: Option<Holder>,
    },
    /// The file cannot be used.
    #[error("cannot lock {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Who holds a lock, in words.
pub fn described(holder: &Option<Holder>) -> String {
    match holder {
        Some(holder) => format!("pid {} (`{}`)", holder.pid, holder.command),
        None => "another process".to_owned(),
    }
}

/// How long a holder may take from its lock to its name in the file.
const NAMING: Duration = Duration::from_secs(1);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

/// The lock file of an experiment on the target of a socket.
pub fn path(socket: &Path, experiment: &Namespace) -> PathBuf {
    socket.with_file_name(format!("megaform-{experiment}.lock"))
}

impl Lock {
    /// Take the lock, waiting for it at most `timeout`. `waiting` is called once, with the holder, before any waiting.
    pub fn acquire(
        socket: &Path,
        experiment: &Namespace,
        command: &str,
        timeout: Duration,
        waiting: &mut dyn FnMut(Option<&Holder>),
    ) -> Result<Self, LockError> {
        let path = path(socket, experiment);
        let error = |source| LockError::File { path: path.clone(), source };
        let begin = Instant::now();
        let end = begin + timeout;
        let mut told = false;
        loop {
            let file = file::open(&path).map_err(error)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut locked) => {
                    // The former holder may have removed the file between our open and our lock.
                    let ours = locked.metadata().map_err(error)?;
                    match fs::symlink_metadata(&path) {
                        Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {}
                        _ => continue,
                    }
                    write_holder(&mut locked, command).map_err(error)?;
                    return Ok(Self { path, _file: locked });
                }
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    // Until the holder has written its name, the file is empty or names a dead one that left it behind.
                    let holder = read_holder(&mut file).filter(Holder::is_alive);
                    if holder.is_none() && begin.elapsed() < NAMING {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    }
                    if Instant::now() >= end {
                        return Err(LockError::Held { experiment: experiment.clone(), holder });
                    }
                    if !told {
                        waiting(holder.as_ref());
                        told = true;
                    }
                    std::thread::sleep(Duration::from_millis(50).min(end.saturating_duration_since(Instant::now())));
                }
                Err((_, errno)) => return Err(error(errno.into())),
            }
        }
    }
}

impl Drop for Lock {
    /// Remove the file while the lock is still held, so that nobody's new file is removed.
    fn drop(&mut self) {
        let _left_behind_is_harmless = fs::remove_file(&self.path);
    }
}

fn write_holder(file: &mut File, command: &str) -> io::Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let holder = Holder { pid: std::process::id(), command: command.to_owned(), since };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(serde_json::to_string(&holder)?.as_bytes())
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(64 << 10).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> Namespace {
        Namespace::new("lab").unwrap()
    }

    fn take(folder: &Path, timeout: Duration) -> Result<Lock, LockError> {
        Lock::acquire(&folder.join("minimega"), &lab(), "megaform apply lab.yaml", timeout, &mut |_| {})
    }

    #[test]
    fn the_second_is_refused_and_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path(), Duration::ZERO).unwrap();
        let error = take(folder.path(), Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {} (`megaform apply lab.yaml`)", std::process::id())), "{error}");
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        take(folder.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_holder_that_has_not_written_its_name_yet_is_waited_for() {
        // Empty, and left behind by a process that cannot be: pids end at 2^22 (proc(5), pid_max).
        for left in ["", "{\"pid\":4194305,\"command\":\"dead\",\"since\":0}"] {
            let folder = tempfile::tempdir().unwrap();
            let path = path(&folder.path().join("minimega"), &lab());
            fs::write(&path, left).unwrap();
            let mut held = Flock::lock(file::open(&path).unwrap(), FlockArg::LockExclusive).unwrap();
            let error = std::thread::scope(|scope| {
                let second = scope.spawn(|| take(folder.path(), Duration::ZERO).unwrap_err().to_string());
                std::thread::sleep(Duration::from_millis(50));
                write_holder(&mut held, "megaform apply other.yaml").unwrap();
                second.join().unwrap()
            });
            assert!(error.contains(&format!("pid {} (`megaform apply other.yaml`)", std::process::id())), "{error}");
        }
    }

    #[test]
    fn a_file_that_a_dead_holder_left_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(&folder.path().join("minimega"), &lab()), "{\"pid\":1,\"command\":\"x\",\"since\":0}").unwrap();
        take(folder.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, path(&folder.path().join("minimega"), &lab())).unwrap();
        assert!(matches!(take(folder.path(), Duration::ZERO), Err(LockError::File { .. })));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn many_take_turns_and_never_hold_it_together() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let (inside, turns) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let lock = take(folder.path(), Duration::from_secs(60)).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        turns.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(turns.load(Ordering::SeqCst), 40);
    }
}
