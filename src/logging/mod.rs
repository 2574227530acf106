//! Where the daemon's log goes: standard error, a file, a ring in memory, a syslog daemon; and which messages go there.
//!
//! Owns the program's tracing subscriber, and lets commands change it while it runs. Must not know who logs, nor what.

mod line;
mod syslog;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

use line::Line;
use syslog::Syslog;
pub use syslog::{LOCAL, Transport};

/// The variable that holds the level at the start, in the syntax of tracing-subscriber's `EnvFilter`.
pub const VARIABLE: &str = "MEGAFORM_LOG";

/// The level at the start where the variable is not set.
const DEFAULT: &str = "info";

/// The target of what is logged at the level `fatal`, which tracing does not have.
const FATAL: &str = "megaform::fatal";

/// The most messages that a ring keeps.
pub const RING_LIMIT: usize = 1_000_000;

/// Why a log cannot go where it was to go. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file.
    #[error("cannot open the log file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An address that is none, or that leads nowhere.
    #[error("cannot reach a syslog daemon at `{address}` ({transport})")]
    Syslog {
        /// As given.
        address: String,
        /// `tcp`, `udp` or `local`.
        transport: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No ring.
    #[error("the log ring is off; `log ring SIZE` turns it on")]
    NoRing,
    /// A size that is none.
    #[error("invalid size `{text}`, expected a number of messages from 0 (off) to {RING_LIMIT}")]
    RingSize {
        /// As given.
        text: String,
    },
}

/// How grave a message must be to be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything: each command with its duration.
    Debug,
    /// What happens: VMs that start and end.
    Info,
    /// What did not go as asked.
    Warn,
    /// What failed by itself.
    Error,
    /// Only what must never happen: a panic of the program.
    Fatal,
}

impl Level {
    /// The level of a word.
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "fatal" => Self::Fatal,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    fn filter(self) -> EnvFilter {
        match self {
            Self::Fatal => EnvFilter::new(format!("off,{FATAL}=error")),
            level => EnvFilter::new(level.word()),
        }
    }
}

struct Ring {
    size: usize,
    lines: VecDeque<String>,
}

struct Sinks {
    stderr: bool,
    colour: bool,
    file: Option<(PathBuf, File)>,
    ring: Option<Ring>,
    syslog: Option<Syslog>,
    filters: Vec<String>,
}

impl Sinks {
    fn take(&mut self, line: &Line) {
        let text = line.text();
        if self.filters.iter().any(|filter| text.contains(filter)) {
            return;
        }
        if self.stderr {
            // There is nobody to tell that standard error cannot be written.
            let _ = writeln!(std::io::stderr().lock(), "{}", if self.colour { line.coloured() } else { text.clone() });
        }
        if let Some((path, file)) = &mut self.file
            && let Err(error) = file.write_all(format!("{text}\n").as_bytes())
        {
            eprintln!("cannot write the log file {}: {error}; it is no longer written", path.display());
            self.file = None;
        }
        if let Some(syslog) = &self.syslog {
            syslog.send(line);
        }
        if let Some(ring) = &mut self.ring {
            while ring.lines.len() >= ring.size {
                ring.lines.pop_front();
            }
            ring.lines.push_back(text);
        }
    }
}

/// Takes what passes the level.
struct Output(Arc<Mutex<Sinks>>);

impl<S: Subscriber> Layer<S> for Output {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = Line::of(event, event.metadata().target() == FATAL);
        lock(&self.0).take(&line);
    }
}

fn lock(sinks: &Mutex<Sinks>) -> MutexGuard<'_, Sinks> {
    // A panic is logged too, so this must not panic again.
    sinks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The program's log.
pub struct Log {
    sinks: Arc<Mutex<Sinks>>,
    level: reload::Handle<EnvFilter, Registry>,
    /// What `level` was set to, in words.
    shown: Mutex<String>,
    initial: String,
}

impl Log {
    /// Make this the log of the whole program: to standard error, at the level that the environment names. Panics are
    /// logged at the level `fatal` as well as written to standard error. Once per program.
    pub fn install() -> Arc<Self> {
        let asked = std::env::var(VARIABLE).ok().filter(|text| EnvFilter::try_new(text).is_ok());
        let initial = asked.unwrap_or_else(|| DEFAULT.to_owned());
        let (filter, level) = reload::Layer::new(EnvFilter::new(&initial));
        let sinks = Arc::new(Mutex::new(Sinks {
            stderr: true,
            colour: std::io::stderr().is_terminal(),
            file: None,
            ring: None,
            syslog: None,
            filters: Vec::new(),
        }));
        tracing_subscriber::registry().with(filter).with(Output(Arc::clone(&sinks))).init();
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            usual(panic);
            tracing::error!(target: FATAL, "{panic}");
        }));
        Arc::new(Self { sinks, level, shown: Mutex::new(initial.clone()), initial })
    }

    fn sinks(&self) -> MutexGuard<'_, Sinks> {
        lock(&self.sinks)
    }

    /// The level: a word of [`Level`], or what the environment asked for.
    pub fn level(&self) -> String {
        self.shown.lock().expect("no code panics while it holds the level").clone()
    }

    /// Log from a level on; None for that of the start.
    pub fn set_level(&self, level: Option<Level>) {
        let (filter, shown) = match level {
            Some(level) => (level.filter(), level.word().to_owned()),
            None => (EnvFilter::new(&self.initial), self.initial.clone()),
        };
        let mut held = self.shown.lock().expect("no code panics while it holds the level");
        self.level.reload(filter).expect("the subscriber lives as long as the program");
        *held = shown;
    }

    /// Does it go to standard error?
    pub fn stderr(&self) -> bool {
        self.sinks().stderr
    }

    /// Let it go to standard error, or not.
    pub fn set_stderr(&self, on: bool) {
        self.sinks().stderr = on;
    }

    /// The file that it goes to.
    pub fn file(&self) -> Option<PathBuf> {
        self.sinks().file.as_ref().map(|(path, _)| path.clone())
    }

    /// Append it to a file (made with mode 0600) instead of the one before; None for no file.
    pub fn set_file(&self, path: Option<&Path>) -> Result<(), LogError> {
        let opened = path
            .map(|path| {
                // A named pipe that nobody reads is an error, not a wait.
                let nonblocking = nix::libc::O_NONBLOCK;
                let open =
                    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(nonblocking).open(path);
                open.map(|file| (path.to_owned(), file))
                    .map_err(|source| LogError::File { path: path.to_owned(), source })
            })
            .transpose()?;
        self.sinks().file = opened;
        Ok(())
    }

    /// What the ring holds, oldest first.
    pub fn ring(&self) -> Result<Vec<String>, LogError> {
        let sinks = self.sinks();
        let ring = sinks.ring.as_ref().ok_or(LogError::NoRing)?;
        Ok(ring.lines.iter().cloned().collect())
    }

    /// Keep the last `size` messages from now on, and forget those kept so far; 0 for none.
    pub fn set_ring(&self, size: &str) -> Result<(), LogError> {
        let parsed = size.parse().ok().filter(|size| *size <= RING_LIMIT);
        let size = parsed.ok_or_else(|| LogError::RingSize { text: size.to_owned() })?;
        self.sinks().ring = (size > 0).then(|| Ring { size, lines: VecDeque::new() });
        Ok(())
    }

    /// Texts whose messages are dropped.
    pub fn filters(&self) -> Vec<String> {
        self.sinks().filters.clone()
    }

    /// Drop messages that contain a text, everywhere.
    pub fn add_filter(&self, text: &str) {
        let mut sinks = self.sinks();
        if !sinks.filters.iter().any(|filter| filter == text) {
            sinks.filters.push(text.to_owned());
        }
    }

    /// Drop nothing.
    pub fn clear_filters(&self) {
        self.sinks().filters.clear();
    }

    /// Send it to a syslog daemon instead of the one before. Connects first, for at most five seconds, so it blocks.
    pub fn set_syslog(&self, transport: Transport, address: &str) -> Result<(), LogError> {
        let syslog = Syslog::open(transport, address).map_err(|source| LogError::Syslog {
            address: address.to_owned(),
            transport: transport.word(),
            source,
        })?;
        self.sinks().syslog = Some(syslog);
        Ok(())
    }

    /// Send it to no syslog daemon.
    pub fn clear_syslog(&self) {
        self.sinks().syslog = None;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use super::*;

    fn sinks() -> Arc<Mutex<Sinks>> {
        Arc::new(Mutex::new(Sinks {
            stderr: false,
            colour: false,
            file: None,
            ring: Some(Ring { size: 2, lines: VecDeque::new() }),
            syslog: None,
            filters: Vec::new(),
        }))
    }

    fn logged(sinks: &Arc<Mutex<Sinks>>, log: impl FnOnce()) -> Vec<String> {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Output(Arc::clone(sinks))), log);
        // Without the time.
        let lines = lock(sinks).ring.as_ref().map(|ring| ring.lines.clone()).unwrap_or_default();
        lines.into_iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn a_message_is_one_line() {
        let sinks = sinks();
        let lines = logged(&sinks, || {
            tracing::info!("gone");
            tracing::warn!(command = "vm info", vm = %"a", count = 3, "two\nlines \x1b[31m");
            tracing::error!(target: FATAL, error = "x=\"y\"", "é");
        });
        assert_eq!(
            lines,
            [" WARN two\\nlines \\u{1b}[31m command=\"vm info\" vm=a count=3", r#"FATAL é error="x=\"y\"""#]
        );
    }

    #[test]
    fn filters_drop() {
        let sinks = sinks();
        lock(&sinks).filters = vec!["noise".to_owned(), "vm=b".to_owned()];
        let lines = logged(&sinks, || {
            tracing::info!("some noise");
            tracing::info!(vm = %"b", "state");
            tracing::info!(vm = %"c", "state");
        });
        assert_eq!(lines, [" INFO state vm=c"]);
    }

    #[test]
    fn the_local_syslog_daemon_gets_what_syslog_3_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let sinks = sinks();
        lock(&sinks).syslog = Some(Syslog::open(Transport::Local, path.to_str().unwrap()).unwrap());
        logged(&sinks, || tracing::error!(vm = %"a", "it failed"));
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        let expected = format!("<27>megaform[{}]: it failed vm=a", std::process::id());
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
        drop(socket);
        std::fs::remove_file(&path).unwrap();
        assert!(Syslog::open(Transport::Local, path.to_str().unwrap()).is_err());
    }

    #[test]
    fn every_level_is_a_filter() {
        for word in ["debug", "info", "warn", "error", "fatal"] {
            let level = Level::of(word).unwrap();
            assert_eq!(level.word(), word);
            let shown = level.filter().to_string();
            assert_eq!(shown.contains(FATAL), level == Level::Fatal, "{shown}");
        }
        assert!(Level::of("trace").is_none());
    }
}
