//! Vias: a program that every message passes, once for every reader.

use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::engine::EngineError;
use crate::engine::programs::{self, InNetwork};
use crate::host::linux::program::Stream;

use super::element::Invocation;
use super::name::PipeName;
use super::pipe::{MAX_MESSAGE, Message};

/// How long a via may take for one message.
pub const VIA_LIMIT: Duration = Duration::from_secs(10);

/// How many of one pipe's vias run at a time.
const AT_ONCE: usize = 16;

/// The program that the messages of a pipe pass.
pub(super) struct Via {
    program: Invocation,
    network: InNetwork,
    running: Semaphore,
    /// A failure was logged at full volume.
    told: AtomicBool,
}

impl Via {
    pub(super) fn new(program: Invocation, network: InNetwork) -> Arc<Self> {
        Arc::new(Self { program, network, running: Semaphore::new(AT_ONCE), told: AtomicBool::new(false) })
    }

    pub(super) fn text(&self) -> &str {
        &self.program.text
    }

    /// The argument vector.
    pub(super) fn words(&self) -> &[String] {
        &self.program.words
    }

    /// What the program makes of a message: the lines of its standard output. Where it fails, its lines all the same, and
    /// the log says so, once as a warning. One that takes longer than [`VIA_LIMIT`] is ended, and so is one that writes more
    /// than [`MAX_MESSAGE`]; they make nothing.
    pub(super) async fn pass(&self, pipe: &PipeName, message: &Message) -> Vec<Message> {
        let _turn = self.running.acquire().await;
        let problem = match tokio::time::timeout(VIA_LIMIT, self.run(message)).await {
            Err(_) => format!("took more than {} s", VIA_LIMIT.as_secs()),
            Ok(Err(error)) => error.chain(),
            Ok(Ok((output, _))) if output.len() > MAX_MESSAGE => format!("wrote more than {MAX_MESSAGE} bytes"),
            Ok(Ok((output, status))) => {
                let text = programs::exit_text(status);
                if !text.is_empty() {
                    self.tell(pipe, &text);
                }
                let text = output.strip_suffix(b"\n").unwrap_or(&output);
                return match output.is_empty() {
                    true => Vec::new(),
                    false => text.split(|byte| *byte == b'\n').map(Message::from).collect(),
                };
            }
        };
        self.tell(pipe, &problem);
        Vec::new()
    }

    fn tell(&self, pipe: &PipeName, problem: &str) {
        let via = self.text();
        if self.told.swap(true, Ordering::Relaxed) {
            tracing::debug!(%pipe, %via, "{problem}");
        } else {
            tracing::warn!(%pipe, %via, "{problem}; further failures of this via are logged at level debug");
        }
    }

    async fn run(&self, message: &Message) -> Result<(Vec<u8>, Option<ExitStatus>), EngineError> {
        let Invocation { path, words, .. } = &self.program;
        let mut program = programs::start(path, words, Stream::Piped, Stream::Piped, &self.network).await?;
        let (input, output, errors) = (program.input.take(), program.output.take(), program.errors.take());
        let feed = async {
            if let Some(mut input) = input {
                // A program need not read what it gets.
                let _ = input.write_all(message).await;
                let _ = input.write_all(b"\n").await;
            }
        };
        let read = async {
            let mut text = Vec::new();
            if let Some(output) = output {
                // One byte more than is allowed tells that it is too much; the program then meets a closed pipe.
                let _ = output.take(MAX_MESSAGE as u64 + 1).read_to_end(&mut text).await;
            }
            text
        };
        let log = async {
            if let Some(errors) = errors {
                programs::log_errors(errors, self.text()).await;
            }
        };
        // Its outputs may be held open by what it left running; its own end is what counts.
        let end = async {
            program.ended().await;
            program.signal(nix::sys::signal::Signal::SIGKILL);
        };
        let ((), text, (), ()) = tokio::join!(feed, read, log, end);
        Ok((text, program.finish()))
    }
}
