//! Background processes: programs that a user starts and looks at later.
//!
//! Must not know how they are shown. They belong to the daemon, not to a namespace, and end with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::host::linux::program::Stream;

use super::programs::{exit_text, require, start};
use super::{Engine, EngineError};

/// How much of each of a process' two outputs is kept, in bytes: the newest.
pub const KEPT: usize = 1 << 20;

/// How many processes that have ended are kept.
const MAX_ENDED: usize = 1000;

/// How much output of processes that have ended is kept, in bytes, all together.
const MAX_ENDED_OUTPUT: usize = 64 << 20;

/// Why there is no answer about a background process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackgroundError {
    /// Not a number.
    #[error("invalid id `{id}`, expected the number of a background process")]
    Id {
        /// As given.
        id: String,
    },
    /// No such process.
    #[error("no background process with id {id}")]
    Unknown {
        /// The number.
        id: u64,
    },
}

/// One row of `background-status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackgroundInfo {
    /// Its number, from 1.
    pub id: u64,
    /// Its pid, also when it has ended.
    pub pid: i32,
    /// The program's file and its arguments.
    pub command: String,
    /// When it was started.
    pub started: SystemTime,
    /// When it ended; None while it runs.
    pub ended: Option<SystemTime>,
    /// How it failed; empty while it runs and after success.
    pub error: String,
}

/// The newest bytes of an output.
#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    lost: u64,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let over = self.bytes.len().saturating_sub(KEPT);
        self.bytes.drain(..over);
        self.lost += over as u64;
    }

    fn forget(&mut self) {
        self.lost += self.bytes.len() as u64;
        self.bytes = VecDeque::new();
    }

    /// As text; where something is missing, its first line says so.
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        match self.lost {
            0 => text.into_owned(),
            lost => format!("[{lost} bytes before this are not kept]\n{text}"),
        }
    }
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackgroundOutput {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

struct Process {
    info: BackgroundInfo,
    outputs: [Tail; 2],
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

#[derive(Default)]
struct Processes {
    last: u64,
    all: BTreeMap<u64, Process>,
}

/// All background processes of a daemon.
#[derive(Default)]
pub(super) struct Background(Mutex<Processes>);

impl Background {
    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.0.lock().expect("no code panics while it holds the background processes")
    }

    pub(super) fn any_runs(&self) -> bool {
        self.lock().all.values().any(|process| process.info.ended.is_none())
    }
}

impl Processes {
    fn process(&self, id: &str) -> Result<&Process, BackgroundError> {
        let id = id.parse().map_err(|_| BackgroundError::Id { id: id.to_owned() })?;
        self.all.get(&id).ok_or(BackgroundError::Unknown { id })
    }

    /// Keep to the limits: the oldest that have ended lose their output first, then their place.
    fn trim(&mut self) {
        let ended: Vec<u64> = self.all.iter().filter(|(_, p)| p.info.ended.is_some()).map(|(id, _)| *id).collect();
        for id in ended.iter().rev().skip(MAX_ENDED) {
            self.all.remove(id);
        }
        let mut kept = 0;
        for id in ended.iter().rev() {
            let Some(process) = self.all.get_mut(id) else { continue };
            kept += process.outputs.iter().map(|tail| tail.bytes.len()).sum::<usize>();
            if kept > MAX_ENDED_OUTPUT {
                process.outputs.iter_mut().for_each(Tail::forget);
            }
        }
    }
}

impl Engine {
    /// Start a program in the engine's network namespace and give its number.
    ///
    /// It runs until it has ended and everything that it started has closed its outputs.
    pub async fn start_background(self: &Arc<Self>, words: &[String]) -> Result<u64, EngineError> {
        let path = require(words.first().expect("the pattern takes at least one word"))?;
        let network = self.in_network().await?;
        let mut program = start(&path, words, Stream::Null, Stream::Piped, &network).await?;
        let (stop, mut stopped) = watch::channel(false);
        let (end, done) = watch::channel(false);
        let mut command = vec![path.display().to_string()];
        command.extend(words[1..].iter().cloned());
        let id = {
            let mut processes = self.background.lock();
            processes.last += 1;
            let id = processes.last;
            let info = BackgroundInfo {
                id,
                pid: program.pid(),
                command: command.join(" "),
                started: SystemTime::now(),
                ended: None,
                error: String::new(),
            };
            processes.all.insert(id, Process { info, outputs: Default::default(), stop, done });
            id
        };
        let engine = Arc::clone(self);
        let (output, errors) = (program.output.take(), program.errors.take());
        tokio::spawn(async move {
            let finished = async {
                tokio::join!(engine.collect(id, 0, output), engine.collect(id, 1, errors), program.ended());
            };
            let told = tokio::select! {
                () = finished => false,
                // The sender stays with the process, which is only forgotten once it has ended.
                _ = stopped.wait_for(|stop| *stop) => true,
            };
            let status = match told {
                true => {
                    program.stop().await;
                    program.finish()
                }
                false => program.release(),
            };
            let error = exit_text(status);
            {
                let mut processes = engine.background.lock();
                if let Some(process) = processes.all.get_mut(&id) {
                    tracing::info!(id, command = %process.info.command, "background process ended: {}",
                        if error.is_empty() { "success" } else { &error });
                    process.info.ended = Some(SystemTime::now());
                    process.info.error = error;
                }
                processes.trim();
            }
            drop(network);
            end.send_replace(true);
        });
        Ok(id)
    }

    /// Keep what comes from an output until its end.
    async fn collect(&self, id: u64, which: usize, output: Option<pipe::Receiver>) {
        let Some(mut output) = output else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = output.read(&mut buffer).await {
            if let Some(process) = self.background.lock().all.get_mut(&id) {
                process.outputs[which].push(&buffer[..count]);
            }
        }
    }

    /// One background process, or all of them by number.
    pub fn background(&self, id: Option<&str>) -> Result<Vec<BackgroundInfo>, EngineError> {
        let processes = self.background.lock();
        Ok(match id {
            Some(id) => vec![processes.process(id)?.info.clone()],
            None => processes.all.values().map(|process| process.info.clone()).collect(),
        })
    }

    /// What a background process has written so far: the newest 1 MiB.
    pub fn background_output(&self, id: &str, which: BackgroundOutput) -> Result<String, EngineError> {
        let processes = self.background.lock();
        let [output, errors] = &processes.process(id)?.outputs;
        Ok(match which {
            BackgroundOutput::Output => output.text(),
            BackgroundOutput::Error => errors.text(),
        })
    }

    /// Forget the background processes that have ended. Numbers are not used again.
    pub fn forget_background(&self) {
        self.background.lock().all.retain(|_, process| process.info.ended.is_none());
    }

    /// End all background processes that run.
    pub(super) async fn end_background(&self) {
        let mut running: Vec<_> = {
            let processes = self.background.lock();
            let running = processes.all.values().filter(|process| process.info.ended.is_none());
            running
                .map(|process| {
                    process.stop.send_replace(true);
                    process.done.clone()
                })
                .collect()
        };
        for done in &mut running {
            // An error: its task has ended.
            let _ = done.wait_for(|done| *done).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_output_is_kept_and_what_is_missing_is_said() {
        let mut tail = Tail::default();
        tail.push(b"first");
        assert_eq!(tail.text(), "first");
        tail.push(&vec![b'x'; KEPT]);
        assert_eq!(tail.bytes.len(), KEPT);
        assert!(tail.text().starts_with("[5 bytes before this are not kept]\nxx"));
    }

    #[test]
    fn the_oldest_that_have_ended_go_first_and_running_ones_stay() {
        let mut processes = Processes::default();
        for id in 1..=MAX_ENDED as u64 + 3 {
            let (stop, done) = watch::channel(false);
            let ended = (id != 1).then(SystemTime::now);
            let info = BackgroundInfo {
                id,
                pid: 1,
                command: String::new(),
                started: SystemTime::now(),
                ended,
                error: String::new(),
            };
            let mut process = Process { info, outputs: Default::default(), stop, done };
            process.outputs[0].push(&vec![0; MAX_ENDED_OUTPUT / 500]);
            processes.all.insert(id, process);
        }
        processes.trim();
        assert!(processes.all.contains_key(&1) && !processes.all.contains_key(&3) && processes.all.contains_key(&4));
        assert!(processes.process("4").unwrap().outputs[0].text().ends_with("are not kept]\n"));
        assert_eq!(processes.process("1000").unwrap().outputs[0].lost, 0);
        assert_eq!(processes.process("3").err(), Some(BackgroundError::Unknown { id: 3 }));
        assert_eq!(processes.process("x").err(), Some(BackgroundError::Id { id: "x".to_owned() }));
    }
}
