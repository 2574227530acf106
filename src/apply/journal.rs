//! What was sent, as JSON lines beside the socket. Advice, not truth: it tells which taps megaform made and with which
//! address, and which raw commands it ran, because minimega tells neither. Losing it loses nothing that a plan needs to be safe.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{End, file};
use crate::name::{Kind, Namespace};
use crate::plan::advice::{Answer, CommandAdvice, Qos, TapEffect, tap_effect};
use crate::plan::{Advice, Made, Mark, Step, TapAdvice};

/// A journal above this size is reduced to its advice when it is opened.
const COMPACT: u64 = 256 << 10;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Line {
    /// An apply or destroy begins; nothing of an earlier one runs any more.
    Begun,
    /// A step is about to be sent.
    Started {
        step: usize,
        command: String,
        time: u64,
        #[serde(flatten)]
        of: Of,
    },
    /// A step was carried out.
    Done {
        step: usize,
        command: String,
        #[serde(flatten)]
        of: Of,
    },
    /// A step failed.
    Failed {
        step: usize,
        command: String,
        error: String,
        #[serde(flatten)]
        of: Of,
    },
    /// Whether a step was carried out is not known.
    Unknown {
        step: usize,
        command: String,
        error: String,
        #[serde(flatten)]
        of: Of,
    },
    /// A tap of ours, from a journal that was reduced.
    Tap {
        name: String,
        address: Option<String>,
        #[serde(default)]
        dhcp: bool,
        /// It is known to have been there.
        #[serde(default)]
        there: bool,
    },
    /// An object of ours, from a journal that was reduced.
    Object {
        kind: Kind,
        name: String,
        made: Made,
        /// It is known to have been there.
        #[serde(default)]
        there: bool,
        /// It is not known whether it was made.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unsure: bool,
    },
    /// What a NIC was shaped by, from a journal that was reduced.
    Qos { vm: String, nic: usize, settings: String },
    /// Raw commands of ours, from a journal that was reduced.
    Commands { name: String, entry: CommandAdvice },
}

/// What a step belongs to.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Of {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

/// The journal of an experiment on the target of a socket.
pub fn path(socket: &Path, experiment: &Namespace) -> PathBuf {
    socket.with_file_name(format!("megaform-{experiment}.journal"))
}

/// What the journal remembers; nothing if there is none. Lines that cannot be read are passed over.
pub fn advice(socket: &Path, experiment: &Namespace) -> io::Result<Advice> {
    match file::open_existing(&path(socket, experiment))? {
        Some(file) => Ok(read(BufReader::new(file))),
        None => Ok(Advice::default()),
    }
}

/// Whether the last apply or destroy ended, killed or cut off from the target, without knowing of all its commands how
/// they ended: the target may be carrying them out still.
pub fn cut_off(socket: &Path, experiment: &Namespace) -> io::Result<bool> {
    let Some(file) = file::open_existing(&path(socket, experiment))? else { return Ok(false) };
    let mut open = std::collections::HashSet::new();
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        match serde_json::from_slice(&line) {
            Ok(Line::Begun) => open.clear(),
            Ok(Line::Started { step, .. }) => {
                open.insert(step);
            }
            Ok(Line::Done { step, .. } | Line::Failed { step, .. }) => {
                open.remove(&step);
            }
            Ok(
                Line::Unknown { .. }
                | Line::Tap { .. }
                | Line::Object { .. }
                | Line::Qos { .. }
                | Line::Commands { .. },
            )
            | Err(_) => {}
        }
    }
    Ok(!open.is_empty())
}

fn read(lines: impl BufRead) -> Advice {
    let mut advice = Advice::default();
    // What stood there before a step that then failed.
    let mut before: std::collections::HashMap<String, Option<TapAdvice>> = std::collections::HashMap::new();
    for line in lines.split(b'\n').map_while(Result::ok) {
        match serde_json::from_slice(&line) {
            // A creation that was sent may have been carried out, even if nobody lived to note it.
            Ok(Line::Started { command, of, .. }) => {
                advice.sent(&command, of.mark.as_ref());
                before.extend(advice.tap_sent(&command));
            }
            Ok(Line::Done { of: Of { mark: Some(mark) }, .. }) => advice.answered(&mark, Answer::Done),
            Ok(Line::Failed { of: Of { mark: Some(mark) }, error, .. }) => {
                advice.answered(&mark, Answer::Failed(&error));
            }
            Ok(Line::Unknown { of: Of { mark: Some(mark) }, .. }) => advice.answered(&mark, Answer::Lost),
            Ok(Line::Done { command, .. }) => advice.tap_done(&command),
            Ok(Line::Failed { command, .. }) => {
                if let Some(TapEffect::Made(name, _)) = tap_effect(&command) {
                    match before.remove(&name).flatten() {
                        Some(tap) => advice.taps.insert(name, tap),
                        None => advice.taps.remove(&name),
                    };
                }
            }
            Ok(Line::Begun | Line::Unknown { .. }) | Err(_) => {}
            Ok(Line::Tap { name, address, dhcp, there }) => {
                advice.there.extend(there.then(|| (Kind::Tap, name.clone())));
                advice.taps.insert(name, TapAdvice { address, dhcp });
            }
            Ok(Line::Object { kind, name, made, there, unsure }) => {
                advice.there.extend(there.then(|| (kind, name.clone())));
                advice.unsure.extend(unsure.then(|| (kind, name.clone())));
                advice.objects.insert((kind, name), made);
            }
            Ok(Line::Qos { vm, nic, settings }) => {
                if let Some(qos) = Qos::read(&settings) {
                    advice.qos.insert((vm, nic), qos);
                }
            }
            Ok(Line::Commands { name, entry }) => {
                advice.commands.insert(name, entry);
            }
        }
    }
    advice
}

impl Journal {
    /// Open the journal to write. The caller holds the experiment's lock.
    pub fn open(socket: &Path, experiment: &Namespace) -> io::Result<Self> {
        let path = path(socket, experiment);
        let mut file = file::open(&path)?;
        if file.metadata()?.len() > COMPACT {
            let advice = read(BufReader::new(&file));
            let reduced = path.with_extension("journal.new");
            match fs::remove_file(&reduced) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut new = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&reduced)?;
            let there = |kind: Kind, name: &String| advice.there.contains(&(kind, name.clone()));
            for (name, tap) in advice.taps {
                let there = there(Kind::Tap, &name);
                write(&mut new, &Line::Tap { name, address: tap.address, dhcp: tap.dhcp, there })?;
            }
            for ((kind, name), made) in advice.objects {
                let there = there(kind, &name);
                let unsure = advice.unsure.contains(&(kind, name.clone()));
                write(&mut new, &Line::Object { kind, name, made, there, unsure })?;
            }
            for ((vm, nic), qos) in advice.qos {
                write(&mut new, &Line::Qos { vm, nic, settings: qos.to_string() })?;
            }
            for (name, entry) in advice.commands {
                write(&mut new, &Line::Commands { name, entry })?;
            }
            new.sync_all()?;
            fs::rename(&reduced, &path)?;
            file = new;
        }
        file.seek(SeekFrom::End(0))?;
        write(&mut file, &Line::Begun)?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    /// Note that a step is about to be sent.
    pub fn started(&self, step: &Step) -> io::Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.note(&Line::Started {
            step: step.id,
            command: step.command.clone(),
            time,
            of: Of { mark: step.mark.clone() },
        })
    }

    /// Note how a step ended.
    pub fn ended(&self, step: &Step, end: &End) -> io::Result<()> {
        let (id, command, of) = (step.id, step.command.clone(), Of { mark: step.mark.clone() });
        self.note(&match end {
            End::Done => Line::Done { step: id, command, of },
            End::Failed { error } => Line::Failed { step: id, command, error: error.clone(), of },
            End::Unknown { error } => Line::Unknown { step: id, command, error: error.clone(), of },
            End::Skipped => return Ok(()),
        })
    }

    /// Remove the journal, after a destroy that left nothing.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn note(&self, line: &Line) -> io::Result<()> {
        write(&mut self.file.lock().expect("no writer panics"), line)
    }
}

/// One write per line, so that a killed process leaves at most one broken line, the last.
fn write(file: &mut File, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::Expect;

    fn step(id: usize, command: &str) -> Step {
        Step {
            id,
            command: command.to_owned(),
            serves: Arc::new([]),
            needs: Vec::new(),
            after: Vec::new(),
            undo: crate::plan::Undo::Impossible,
            guard: None,
            expect: Expect::Answer,
            mark: None,
        }
    }

    fn address(advice: &Advice, tap: &str) -> Option<Option<String>> {
        advice.taps.get(tap).map(|t| t.address.clone())
    }

    #[test]
    fn it_remembers_taps_through_failures_cut_lines_and_compaction() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("minimega");
        let lab = Namespace::new("lab").unwrap();
        assert_eq!(advice(&socket, &lab).unwrap(), Advice::default());
        let journal = Journal::open(&socket, &lab).unwrap();
        let failed = End::Failed { error: "tap already on bridge".into() };
        for (id, command, end) in [
            (1, "namespace lab tap create dmz ip 10.0.0.1/24 a", Some(&End::Done)),
            (2, "namespace lab tap create dmz bridge br1 name b", Some(&End::Done)),
            (3, "namespace lab tap create dmz name theirs", Some(&failed)),
            (4, "namespace lab tap create 7 ip 10.0.0.2/24 a", Some(&failed)),
            (5, "namespace lab tap delete b", Some(&End::Done)),
            (6, "namespace lab tap create 7 name cut-short", None),
        ] {
            journal.started(&step(id, command)).unwrap();
            if let Some(end) = end {
                journal.ended(&step(id, command), end).unwrap();
            }
        }
        let file = path(&socket, &lab);
        let mut text = fs::read_to_string(&file).unwrap();
        text.push_str("{\"event\":\"star");
        fs::write(&file, &text).unwrap();
        assert!(cut_off(&socket, &lab).unwrap(), "nobody noted how the last command ended");
        let known = advice(&socket, &lab).unwrap();
        assert_eq!(known.taps.keys().collect::<Vec<_>>(), ["a", "cut-short"]);
        assert_eq!(address(&known, "a"), Some(Some("10.0.0.1/24".into())));
        text.push_str(&"x".repeat(usize::try_from(COMPACT).unwrap()));
        fs::write(&file, text).unwrap();
        let journal = Journal::open(&socket, &lab).unwrap();
        assert!(fs::metadata(&file).unwrap().len() < 1000);
        assert_eq!(advice(&socket, &lab).unwrap(), known);
        assert!(!cut_off(&socket, &lab).unwrap());
        let done = step(1, "namespace lab vm start a");
        journal.started(&done).unwrap();
        assert!(cut_off(&socket, &lab).unwrap());
        journal.ended(&done, &End::Unknown { error: "lost".into() }).unwrap();
        assert!(cut_off(&socket, &lab).unwrap());
        journal.ended(&done, &End::Done).unwrap();
        assert!(!cut_off(&socket, &lab).unwrap());
        journal.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_remembers_raw_commands_through_compaction() {
        use crate::plan::advice::CommandLines;
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("minimega");
        let lab = Namespace::new("lab").unwrap();
        let lines = CommandLines {
            create: vec!["one".into(), "two".into()],
            destroy: vec!["undo".into(), "more".into()],
            depends_on: vec!["web1".into()],
            check: Some("look".into()),
        };
        let create = |line| Mark::Create { name: "raw".into(), line, lines: (line == 0).then(|| lines.clone()) };
        let destroy = |line| Mark::Destroy { name: "raw".into(), line, last: line == 1 };
        let mut journal = Journal::open(&socket, &lab).unwrap();
        let mut seen = Vec::new();
        for (mark, end) in [
            (Some(create(0)), Some(End::Done)),
            (Some(create(1)), None),
            (Some(create(1)), Some(End::Unknown { error: "lost".into() })),
            (Some(create(1)), Some(End::Failed { error: "no".into() })),
            (Some(create(1)), Some(End::Done)),
            (None, Some(End::Done)),
            (Some(destroy(0)), Some(End::Failed { error: "no".into() })),
            (Some(destroy(1)), None),
            (Some(destroy(1)), Some(End::Done)),
        ] {
            let launch = "namespace lab vm launch kvm web[0-2]";
            let step = Step { mark, ..step(1, launch) };
            journal.started(&step).unwrap();
            if let Some(end) = end {
                journal.ended(&step, &end).unwrap();
            }
            let known = advice(&socket, &lab).unwrap();
            let entry = known.commands.get("raw").cloned();
            seen.push(entry.map(|e| (e.created, e.unknown, e.error, e.launched.len(), e.destroyed)));
            let file = path(&socket, &lab);
            let text = fs::read_to_string(&file).unwrap() + &"x".repeat(usize::try_from(COMPACT).unwrap()) + "\n";
            fs::write(&file, text).unwrap();
            journal = Journal::open(&socket, &lab).unwrap();
            assert_eq!(advice(&socket, &lab).unwrap(), known, "after {}", seen.len());
        }
        let no = Some("no".to_owned());
        assert_eq!(
            seen,
            [
                Some((1, false, None, 0, None)),
                Some((1, true, None, 0, None)),
                Some((1, true, None, 0, None)),
                Some((1, false, no, 0, None)),
                Some((2, false, None, 0, None)),
                Some((2, false, None, 1, None)),
                Some((2, false, None, 1, Some(1))),
                Some((2, true, None, 1, Some(1))),
                None,
            ]
        );
    }
}
