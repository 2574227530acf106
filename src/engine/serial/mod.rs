//! What guests write on their serial ports: kept in files beside the sockets, of bounded size, shown, and looked through.
//!
//! QEMU itself writes the files, so that nothing is missing while nobody is connected to a socket, or no daemon runs. A file
//! is that of one run of a VM's QEMU: it goes before the next one starts.

mod log;
mod text;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::language::range;
use crate::language::serial::{Finder, Sought, SoughtError};
use crate::name::Namespace;

use super::{Engine, EngineError, Vm, VmState};

use log::Kept;
pub(super) use log::{is_log, name as log_name};

/// How often files are looked at that may have become too large.
const TRIM: Duration = Duration::from_secs(3);

/// How much is read to find the last line, in bytes.
const LAST: u64 = 64 << 10;

/// The longest line that is shown, in characters.
const LONGEST_LINE: usize = 4096;

/// The same in a table and in a message.
const LONGEST_CELL: usize = 160;

/// Of how many VMs a message says more than their names.
const TOLD: usize = 3;

/// How many ports a VM can have.
const PORTS: u64 = 256;

/// Why nothing can be said of what guests wrote, or what they did not write.
#[derive(Debug, thiserror::Error)]
pub enum SerialError {
    /// A port that no VM can have.
    #[error("invalid serial port `{text}`, expected a number from 0 to 255")]
    Port {
        /// As given.
        text: String,
    },
    /// A port that the VM does not have.
    #[error(
        "{name} has no serial port {port}: it was launched with `vm config serial-ports {ports}`, and ports count from 0"
    )]
    NoPort {
        /// The VM.
        name: String,
        /// The port.
        port: u64,
        /// How many it has.
        ports: u64,
    },
    /// No VM of the namespace has the port.
    #[error(
        "no VM of the namespace has a serial port {port}: `vm config serial-ports` says how many the next ones have"
    )]
    Nobody {
        /// The port.
        port: u64,
    },
    /// What it writes is not kept.
    #[error(
        "what {name} writes on serial port {port} is not kept: an older release launched it, or `vm config qemu-override` \
         took `logfile` out of its command line; it is kept once the VM was killed and started again"
    )]
    NotKept {
        /// The VM.
        name: String,
        /// The port.
        port: u64,
    },
    /// How many lines is no number.
    #[error("invalid number of lines `{text}`, expected one from 1 to 100000, or `contains` or `matches` and a text")]
    Lines {
        /// As given.
        text: String,
    },
    /// What is looked for is refused.
    #[error("invalid text `{text}`: {source}", text = text::cut(&text::clean(text.as_bytes()), LONGEST_CELL))]
    Sought {
        /// As given.
        text: String,
        /// Why.
        source: SoughtError,
    },
    /// It was not written.
    #[error("{} {} not written {sought} on serial port {port}: {}", range::compress(names), if names.len() == 1 { "has" } else { "have" }, told.join("; "))]
    Unwritten {
        /// The VMs.
        names: Vec<String>,
        /// What.
        sought: Sought,
        /// The port.
        port: u64,
        /// More about some of them.
        told: Vec<String>,
    },
}

/// What a VM wrote on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialRow {
    /// The VM.
    pub name: String,
    /// Its state.
    pub state: &'static str,
    /// The port.
    pub port: u64,
    /// How much it wrote in this run of its QEMU, or in the last one where it has ended, in bytes; None if that is not kept.
    pub written: Option<u64>,
    /// A line of it, or why there is none.
    pub line: String,
}

/// The number of a port.
fn port_number(text: &str) -> Result<u64, SerialError> {
    let port = text.parse::<u64>().ok().filter(|port| *port < PORTS && text.bytes().all(|b| b.is_ascii_digit()));
    port.ok_or_else(|| SerialError::Port { text: text.to_owned() })
}

/// The file of a VM's port.
fn path(vm: &Vm, port: u64) -> PathBuf {
    vm.folder.join(log_name(port))
}

fn ports(vm: &Vm) -> u64 {
    vm.config.uint("serial-ports")
}

/// Refuse a port that the VM does not have.
fn check_port(vm: &Vm, port: u64) -> Result<(), SerialError> {
    match ports(vm) {
        ports if port >= ports => Err(SerialError::NoPort { name: vm.name.to_string(), port, ports }),
        _ => Ok(()),
    }
}

/// Refuse a port of which nothing is kept.
fn check_kept(vm: &Vm, port: u64) -> Result<(), SerialError> {
    // QEMU makes the file before it answers on QMP.
    let kept = vm.live().qmp.is_none() || path(vm, port).exists();
    if kept { Ok(()) } else { Err(SerialError::NotKept { name: vm.name.to_string(), port }) }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> EngineError {
    let path = path.to_owned();
    |source| EngineError::File { action: "read", path, source }
}

/// The last line with anything in it.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().map(str::trim_end).find(|line| !line.is_empty());
    text::cut(line.unwrap_or_default(), LONGEST_CELL)
}

/// The line that a place is in.
fn line_at(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].trim_start_matches('\n').lines().next().unwrap_or_default();
    text::cut(line.trim_end(), LONGEST_CELL)
}

impl Kept {
    /// The first line with what is looked for. Nothing is found that would be part in the beginning and part in the end, where
    /// something between is not kept.
    fn line_with(&self, sought: &Finder) -> Option<String> {
        let parts = [Some(&self.head), self.tail.as_ref()].into_iter().flatten();
        parts.into_iter().find_map(|part| {
            let text = text::clean(part);
            sought.find(&text).map(|at| line_at(&text, at))
        })
    }

    /// The last lines, with a line for what is not kept between.
    fn last_lines(&self, count: usize) -> String {
        let mut lines: Vec<String> = Vec::new();
        let tail = text::clean(self.tail.as_deref().unwrap_or_default());
        let head = text::clean(&self.head);
        let cut = |line: &str| text::cut(line, LONGEST_LINE);
        lines.extend(tail.trim_end().lines().rev().take(count).map(cut));
        if self.tail.is_some() && lines.len() < count {
            lines.push(format!("[… {} bytes that are not kept …]", self.dropped()));
        }
        let left = count - lines.len();
        lines.extend(head.trim_end().lines().rev().take(left).map(cut));
        lines.reverse();
        lines.join("\n")
    }

    /// Why what is looked for was not found, as far as can be said.
    fn told(&self, name: &str, state: VmState) -> String {
        let last = last_line(&text::clean(self.tail.as_deref().unwrap_or(&self.head)));
        let mut text = match (self.written, last.as_str()) {
            (0, _) => format!("{name} has written nothing"),
            (bytes, "") => format!("{name} has written {bytes} bytes and no text"),
            (_, last) => format!("{name} last wrote {last:?}"),
        };
        if state != VmState::Running {
            text.push_str(&format!(" and is {}", state.word()));
        }
        if self.dropped() > 0 {
            text.push_str(&format!(" ({} bytes that it wrote before are not kept)", self.dropped()));
        }
        text
    }
}

impl Engine {
    /// Keep the files bounded from now on, also those that grew while no daemon ran.
    pub(super) fn start_trimming(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut failed: HashSet<PathBuf> = HashSet::new();
            while let Some(engine) = engine.upgrade() {
                let mut files = Vec::new();
                for namespace in engine.state().namespaces.values() {
                    for vm in namespace.vms.values() {
                        files.extend((0..ports(vm)).map(|port| path(vm, port)));
                    }
                }
                drop(engine);
                if !files.is_empty() {
                    let trim = move || {
                        let errors = files.into_iter().filter_map(|path| Some((log::trim(&path).err()?, path)));
                        errors.collect::<Vec<_>>()
                    };
                    let errors = tokio::task::spawn_blocking(trim).await.expect("trimming does not panic");
                    for (error, path) in errors {
                        // Said once, and not every time.
                        if failed.insert(path.clone()) {
                            tracing::warn!(path = %path.display(), %error, "a serial log grows without bound");
                        }
                    }
                }
                tokio::time::sleep(TRIM).await;
            }
        });
    }

    /// Forget what an earlier run of a VM wrote.
    pub(super) fn forget_serial(vm: &Vm) -> Result<(), EngineError> {
        let error = |(path, source)| EngineError::File { action: "remove", path, source };
        log::remove_all(&vm.folder).map_err(error)
    }

    /// The last line that each VM of a target wrote on a port.
    pub async fn serial_last(
        &self,
        namespace: &Namespace,
        target: &str,
        port: &str,
    ) -> Result<Vec<SerialRow>, EngineError> {
        let port = port_number(port)?;
        let targets = self.targets(namespace, target)?;
        let vms = with_port(targets.vms, targets.wildcard, port)?;
        let read = move || {
            let row = |vm: &Arc<Vm>| {
                // One VM hides nothing of the others.
                if let Err(error) = check_kept(vm, port) {
                    return Ok(row(vm, port, None, error.to_string()));
                }
                let path = path(vm, port);
                let (written, bytes) = log::last(&path, LAST).map_err(unreadable(&path))?.unwrap_or_default();
                Ok(row(vm, port, Some(written), last_line(&text::clean(&bytes))))
            };
            vms.iter().map(row).collect()
        };
        tokio::task::spawn_blocking(read).await.expect("reading does not panic")
    }

    /// The last lines that one VM wrote on a port.
    pub async fn serial_lines(
        &self,
        namespace: &Namespace,
        name: &str,
        port: &str,
        lines: Option<&str>,
    ) -> Result<String, EngineError> {
        const DEFAULT: usize = 20;
        let port = port_number(port)?;
        let count = match lines {
            None => DEFAULT,
            Some(text) => {
                let count = text.parse::<usize>().ok().filter(|count| (1..=100_000).contains(count));
                count.ok_or_else(|| SerialError::Lines { text: text.to_owned() })?
            }
        };
        let vm = self.vm(namespace, name)?;
        check_port(&vm, port)?;
        check_kept(&vm, port)?;
        let read = move || {
            let path = path(&vm, port);
            Ok(Kept::read(&path).map_err(unreadable(&path))?.unwrap_or_default().last_lines(count))
        };
        tokio::task::spawn_blocking(read).await.expect("reading does not panic")
    }

    /// The line with a text that each VM of a target wrote on a port; an error that names those that have not written it.
    /// Every VM that is named must be there.
    pub async fn serial_written(
        &self,
        namespace: &Namespace,
        target: &str,
        port: &str,
        (kind, text): (&str, &str),
    ) -> Result<Vec<SerialRow>, EngineError> {
        let port = port_number(port)?;
        let sought =
            Sought::parse(kind, text).map_err(|source| SerialError::Sought { text: text.to_owned(), source })?;
        let targets = self.targets(namespace, target)?;
        if !targets.wildcard {
            // Of several, `targets` leaves out those that are not there, and those have written nothing.
            for name in range::expand(target)? {
                self.vm(namespace, &name)?;
            }
        }
        let vms = with_port(targets.vms, targets.wildcard, port)?;
        vms.iter().try_for_each(|vm| check_kept(vm, port))?;
        let look = move || {
            let finder = sought.finder();
            let (mut rows, mut names, mut told) = (Vec::new(), Vec::new(), Vec::new());
            for vm in &vms {
                let path = path(vm, port);
                let kept = Kept::read(&path).map_err(unreadable(&path))?.unwrap_or_default();
                match kept.line_with(&finder) {
                    Some(line) => rows.push(row(vm, port, Some(kept.written), line)),
                    None => {
                        names.push(vm.name.to_string());
                        if told.len() < TOLD {
                            told.push(kept.told(vm.name.as_str(), vm.live().state));
                        }
                    }
                }
            }
            if names.is_empty() {
                return Ok(rows);
            }
            if names.len() > told.len() {
                told.push(format!("`vm serial {} {port}` tells of the others too", range::compress(&names)));
            }
            Err(SerialError::Unwritten { names, sought, port, told }.into())
        };
        tokio::task::spawn_blocking(look).await.expect("reading does not panic")
    }
}

fn row(vm: &Vm, port: u64, written: Option<u64>, line: String) -> SerialRow {
    SerialRow { name: vm.name.to_string(), state: vm.live().state.word(), port, written, line }
}

/// The VMs that have a port; of VMs that were named, all of them must.
fn with_port(mut vms: Vec<Arc<Vm>>, wildcard: bool, port: u64) -> Result<Vec<Arc<Vm>>, EngineError> {
    if wildcard {
        vms.retain(|vm| port < ports(vm));
    }
    if vms.is_empty() {
        return Err(SerialError::Nobody { port }.into());
    }
    vms.iter().try_for_each(|vm| check_port(vm, port))?;
    Ok(vms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(head: &str, tail: Option<(&str, u64)>) -> Kept {
        let dropped = tail.map_or(0, |(tail, dropped)| tail.len() as u64 + dropped);
        Kept {
            written: head.len() as u64 + dropped,
            head: head.as_bytes().to_vec(),
            tail: tail.map(|(tail, _)| tail.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_text_is_found_in_the_beginning_or_the_end_and_not_across_the_gap() {
        let sought = |text: &str| Sought::contains(text).unwrap().finder();
        let all = kept("boot\r\ndb log\x1b[1min:\x1b[0m root\r\n", None);
        assert_eq!(all.line_with(&sought("login:")).unwrap(), "db login: root");
        assert_eq!(all.line_with(&sought("boot\ndb")).unwrap(), "boot");
        assert_eq!(all.line_with(&sought("\ndb")).unwrap(), "boot");
        let some = kept("boot\r\ndb log", Some(("in: root\r\nend\r\n", 100)));
        assert_eq!(some.line_with(&sought("login")), None);
        assert_eq!(some.line_with(&sought("db log")).unwrap(), "db log");
        assert_eq!(some.line_with(&sought("end")).unwrap(), "end");
        assert_eq!(some.last_lines(1), "end");
        assert_eq!(some.last_lines(2), "in: root\nend");
        assert_eq!(some.last_lines(3), "[… 100 bytes that are not kept …]\nin: root\nend");
        assert_eq!(some.last_lines(9), "boot\ndb log\n[… 100 bytes that are not kept …]\nin: root\nend");
        assert_eq!(all.last_lines(9), "boot\ndb login: root");
        assert_eq!(kept("", None).last_lines(9), "");
    }

    #[test]
    fn what_was_not_written_is_said_with_what_was() {
        assert_eq!(kept("", None).told("a", VmState::Building), "a has written nothing and is BUILDING");
        assert_eq!(
            kept("x\r\nKernel panic\r\n\r\n", None).told("a", VmState::Running),
            "a last wrote \"Kernel panic\""
        );
        assert_eq!(kept("\0\0\0", None).told("a", VmState::Quit), "a has written 3 bytes and no text and is QUIT");
        let told = kept("x", Some(("end", 7))).told("a", VmState::Running);
        assert_eq!(told, "a last wrote \"end\" (7 bytes that it wrote before are not kept)");
        let error = SerialError::Unwritten {
            names: vec!["web1".to_owned(), "web2".to_owned()],
            sought: Sought::contains("log\"in").unwrap(),
            port: 1,
            told: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(error.to_string(), "web[1-2] have not written \"log\\\"in\" on serial port 1: a; b");
    }

    #[test]
    fn ports_are_numbers() {
        assert_eq!((port_number("0").unwrap(), port_number("255").unwrap()), (0, 255));
        for text in ["256", "-1", "+1", "x", ""] {
            assert!(matches!(port_number(text), Err(SerialError::Port { .. })), "{text}");
        }
    }
}
