//! Programs that the engine runs for its users: found in $PATH, started in the engine's network namespace, their
//! standard error in the log.
//!
//! Must not know what they are for.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::host::linux::program::{self, Program, Start, Stream};

use super::{Engine, EngineError};

/// How many lines of a program's standard error go to the log; the rest is read and left out.
const ERROR_LINES: usize = 100;

/// The longest line of standard error in the log, in bytes.
const ERROR_LINE: usize = 4 << 10;

/// How many programs are in the engine's network namespace, so that it stays while there is one.
#[derive(Debug, Default)]
pub(super) struct NetworkUsers {
    count: AtomicUsize,
    /// Held while somebody enters or it is looked whether nobody is left.
    pub(super) turn: tokio::sync::Mutex<()>,
}

impl NetworkUsers {
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }
}

/// The engine's network namespace, which stays as long as this does.
pub(super) struct InNetwork {
    engine: Arc<Engine>,
    /// None: the daemon's own.
    fd: Option<OwnedFd>,
    counted: bool,
}

impl InNetwork {
    pub(super) fn fd(&self) -> std::io::Result<Option<OwnedFd>> {
        self.fd.as_ref().map(OwnedFd::try_clone).transpose()
    }

    fn leave(&mut self) -> bool {
        let counted = std::mem::replace(&mut self.counted, false);
        counted && self.engine.network_users.count.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Leave the namespace, and let it go if nothing else is in it.
    pub(super) async fn release(mut self) -> Result<(), EngineError> {
        match self.leave() {
            true => self.engine.release_network().await,
            false => Ok(()),
        }
    }
}

impl Drop for InNetwork {
    fn drop(&mut self) {
        if self.leave()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let engine = Arc::clone(&self.engine);
            runtime.spawn(async move {
                if let Err(error) = engine.release_network().await {
                    tracing::warn!(error = %error.chain(), "the network namespace is left");
                }
            });
        }
    }
}

impl Engine {
    /// Enter the engine's network namespace, which is made if there is none.
    pub(super) async fn in_network(self: &Arc<Self>) -> Result<InNetwork, EngineError> {
        let _turn = self.network_users.turn.lock().await;
        let fd = self.network(|network| network.enter()).await?;
        self.network_users.count.fetch_add(1, Ordering::SeqCst);
        Ok(InNetwork { engine: Arc::clone(self), fd, counted: true })
    }
}

/// Where a program is: as it stands if it has a slash in it, else the first in $PATH that can be executed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let executable = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| executable(path));
    }
    if name.is_empty() {
        return None;
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| executable(path))
}

/// The same, as an error.
pub(super) fn require(name: &str) -> Result<PathBuf, EngineError> {
    find(name).ok_or_else(|| EngineError::Program {
        program: name.to_owned(),
        message: match name.contains('/') {
            true => "no such executable file".to_owned(),
            false => "executable file not found in $PATH".to_owned(),
        },
    })
}

/// Start a program in the engine's network namespace.
pub(super) async fn start(
    path: &Path,
    words: &[String],
    input: Stream,
    output: Stream,
    network: &InNetwork,
) -> Result<Program, EngineError> {
    let failed = |error: std::io::Error| EngineError::Program {
        program: words.first().cloned().unwrap_or_default(),
        message: error.to_string(),
    };
    let network = network.fd().map_err(failed)?;
    let asked = Start { path: path.to_owned(), words: words.to_vec(), input, output, network };
    Ok(program::start(asked).await?)
}

/// How a program ended, in Go's words as minimega has them; empty for success.
pub fn exit_text(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "its exit status is not known".to_owned() };
    match (status.code(), status.signal()) {
        (Some(0), _) => String::new(),
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => {
            let number = signal.unwrap_or(0);
            let name = match Signal::try_from(number) {
                Ok(Signal::SIGKILL) => "killed",
                Ok(Signal::SIGTERM) => "terminated",
                Ok(Signal::SIGINT) => "interrupt",
                Ok(Signal::SIGHUP) => "hangup",
                Ok(Signal::SIGABRT) => "aborted",
                Ok(Signal::SIGSEGV) => "segmentation fault",
                Ok(Signal::SIGPIPE) => "broken pipe",
                Ok(signal) => signal.as_str(),
                Err(_) => return format!("signal {number}"),
            };
            format!("signal: {name}")
        }
    }
}

/// The next line without its newline, at most `limit` bytes of it: what is longer comes as several. None at the end.
pub(super) async fn next_line(
    input: &mut (impl AsyncBufRead + Unpin),
    limit: usize,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        let bytes = input.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(Some(line).filter(|line| !line.is_empty()));
        }
        let room = limit - line.len();
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(bytes.len()).min(room);
        line.extend_from_slice(&bytes[..taken]);
        let whole = end == Some(taken);
        input.consume(taken + usize::from(whole));
        if !whole && line.len() == limit && input.fill_buf().await?.first() == Some(&b'\n') {
            // It just fits: its newline does not begin an empty line.
            input.consume(1);
        }
        if whole || line.len() == limit {
            return Ok(Some(line));
        }
    }
}

/// Write a program's standard error to the log until its end.
pub(super) async fn log_errors(errors: pipe::Receiver, program: &str) {
    let mut errors = BufReader::new(errors);
    let mut lines = 0;
    while let Ok(Some(line)) = next_line(&mut errors, ERROR_LINE).await {
        lines += 1;
        if lines <= ERROR_LINES {
            tracing::warn!(%program, "{}", String::from_utf8_lossy(&line).escape_debug());
        } else if lines == ERROR_LINES + 1 {
            tracing::warn!(%program, "wrote {ERROR_LINES} lines on standard error, no more of them is logged");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find("sh").unwrap().is_absolute());
        assert_eq!(find("/bin/sh"), Some("/bin/sh".into()));
        for name in ["", "/etc/passwd", "/etc", "no-such-program", "etc", "."] {
            assert_eq!(find(name), None, "{name}");
        }
    }

    #[tokio::test]
    async fn lines_come_whole_or_in_pieces() {
        let mut input = BufReader::with_capacity(3, &b"ab\n\nabcdefgh\nfives\nlast"[..]);
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input, 5).await.unwrap() {
            lines.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(lines, ["ab", "", "abcde", "fgh", "fives", "last"]);
    }

    #[test]
    fn an_end_is_told_in_the_words_of_minimega() {
        let text = |raw| exit_text(Some(ExitStatus::from_raw(raw)));
        assert_eq!(
            [text(0), text(3 << 8), text(9), text(15)],
            ["", "exit status 3", "signal: killed", "signal: terminated"]
        );
    }
}
