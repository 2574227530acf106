//! Programs of the engine that outlive the daemon: started in a folder of their own, watched until they end, adopted by
//! the next daemon.
//!
//! Must not know what they are for. [`super::programs`] has those that end with the daemon.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::host::ProcessId;
use crate::host::linux::process;

use super::EngineError;
use super::programs::{exit_text, find};

/// How long a program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// How long the kernel may take to end a program that was sent SIGKILL.
const KERNEL: Duration = Duration::from_secs(30);

/// How often it is looked whether a program is ready.
const LOOK: Duration = Duration::from_millis(10);

/// The output of a program, in its folder.
pub(super) const LOG: &str = "log";

/// How much of the end of a program's output is read for a message, in bytes.
const LOG_TAIL: usize = 64 << 10;

/// How a program ended that was no child of this daemon.
const UNKNOWN: &str = "it is not known how";

/// A program that was started or adopted.
#[derive(Debug)]
pub(super) struct Detached {
    id: ProcessId,
    /// How it ended; None while it runs.
    ended: watch::Receiver<Option<String>>,
}

impl Detached {
    /// Watch a program from now on. Its end goes to the log as that of `what`.
    pub(super) fn watch(id: ProcessId, what: String) -> Self {
        let (sender, ended) = watch::channel(None);
        tokio::spawn(async move {
            let text = loop {
                match process::wait_exit(id).await {
                    // The status of a program that an earlier daemon has started goes to init.
                    Ok(None) => break UNKNOWN.to_owned(),
                    Ok(status) => match exit_text(status) {
                        text if text.is_empty() => break "exit status 0".to_owned(),
                        text => break text,
                    },
                    Err(error) => tracing::warn!(what, error = %EngineError::from(error).chain(), "cannot watch"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            };
            tracing::info!(what, pid = id.pid, "ended: {text}");
            sender.send_replace(Some(text));
        });
        Self { id, ended }
    }

    /// One that ended while no daemon watched it.
    pub(super) fn gone(id: ProcessId) -> Self {
        let (_, ended) = watch::channel(Some(UNKNOWN.to_owned()));
        Self { id, ended }
    }

    pub(super) fn pid(&self) -> i32 {
        self.id.pid
    }

    /// How it ended; None while it runs.
    pub(super) fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    pub(super) fn runs(&self) -> bool {
        self.ended.borrow().is_none()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), EngineError> {
        Ok(process::signal(self.id, signal)?)
    }

    /// Wait until it is ready or has ended; an error says how.
    pub(super) async fn ready(&self, limit: Duration, mut is: impl FnMut() -> bool) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(how) = self.ended() {
                return Err(how);
            }
            if is() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(format!("it was not ready after {} s", limit.as_secs()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// End it and wait for that. One that has ended is fine.
    pub(super) async fn end(&self) -> Result<(), EngineError> {
        let mut ended = self.ended.clone();
        process::signal(self.id, Signal::SIGTERM)?;
        if tokio::time::timeout(GRACE, ended.wait_for(Option::is_some)).await.is_ok() {
            return Ok(());
        }
        process::signal(self.id, Signal::SIGKILL)?;
        match tokio::time::timeout(KERNEL, ended.wait_for(Option::is_some)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EngineError::Program {
                program: format!("process {}", self.id.pid),
                message: format!("it has not ended {} s after SIGKILL", KERNEL.as_secs()),
            }),
        }
    }
}

/// End the processes that have this argument, which nobody has a record of. Says how many there were.
pub(super) async fn end_all_with(argument: &str) -> usize {
    let found = process::processes_with(argument);
    for id in &found {
        if process::signal(*id, Signal::SIGKILL).is_ok() {
            let _ = tokio::time::timeout(KERNEL, process::wait_exit(*id)).await;
        }
    }
    found.len()
}

/// The program, also where the daemon's $PATH lacks the folders for administrators.
pub(super) fn find_admin(name: &str) -> Option<PathBuf> {
    ["", "/usr/sbin/", "/sbin/"].iter().find_map(|folder| find(&format!("{folder}{name}")))
}

/// Make a folder that only this user can enter.
pub(super) fn make_folder(path: &Path) -> Result<(), EngineError> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| EngineError::File { action: "create", path: path.to_owned(), source })
}

/// Remove a folder with all in it; none is fine.
pub(super) fn remove_folder(path: &Path) -> Result<(), EngineError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(EngineError::File { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The folders in the base folder that are called `PREFIX` and a number, by number.
pub(super) fn numbered(base: &Path, prefix: &str) -> Result<Vec<(u32, PathBuf)>, EngineError> {
    let error = |source| EngineError::File { action: "read", path: base.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(base).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.parse::<u32>().ok());
        if let Some(number) = number
            && name.to_str() == Some(&*format!("{prefix}{number}"))
            && entry.file_type().map_err(error)?.is_dir()
        {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The last lines of a program's output that `matter`, at most `count`, joined.
pub(super) fn last_words(folder: &Path, count: usize, matter: impl Fn(&str) -> bool) -> String {
    let bytes = std::fs::read(folder.join(LOG)).unwrap_or_default();
    let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL)..];
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && matter(line)).collect();
    lines[lines.len().saturating_sub(count)..].join("; ")
}
