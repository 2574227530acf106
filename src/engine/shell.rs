//! Programs that a user runs on the engine's host, inside the engine's network, and waits for.

use std::process::ExitStatus;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{RwLock, watch};

use super::programs::{require, start};
use super::{Engine, EngineError};
use crate::host::linux::program::Stream;

/// How much of each of its two outputs a program's answer holds, in bytes.
pub const SHELL_OUTPUT: usize = 8 << 20;

/// What a program wrote.
#[derive(Debug, Default)]
pub struct Output {
    /// The first [`SHELL_OUTPUT`] bytes.
    pub kept: Vec<u8>,
    /// How many bytes more there were.
    pub left_out: u64,
}

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status, where the kernel gave one.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub output: Output,
    /// Its standard error.
    pub errors: Output,
}

/// The programs of `shell` that run.
#[derive(Debug, Default)]
pub(super) struct Shells {
    /// Held by each that runs.
    running: RwLock<()>,
    /// Are they to end?
    closing: watch::Sender<bool>,
}

impl Shells {
    /// End all of them; returns when they have.
    pub(super) async fn end(&self) {
        self.closing.send_replace(true);
        let _none = self.running.write().await;
    }
}

/// Read to the end, so that the writer never waits; keep the beginning.
async fn read(input: Option<pipe::Receiver>) -> std::io::Result<Output> {
    let mut output = Output::default();
    let Some(mut input) = input else { return Ok(output) };
    (&mut input).take(SHELL_OUTPUT as u64).read_to_end(&mut output.kept).await?;
    output.left_out = tokio::io::copy(&mut input, &mut tokio::io::sink()).await?;
    Ok(output)
}

impl Engine {
    /// Run a program in the engine's network namespace, as its argument vector, and wait until it has ended and its
    /// outputs are closed. What it leaves running is left alone. It ends with the daemon.
    pub async fn run_program(self: &Arc<Self>, words: &[String]) -> Result<Finished, EngineError> {
        let program = words.first().expect("the pattern takes at least one word");
        let failed = |message: String| EngineError::Program { program: program.clone(), message };
        let path = require(program)?;
        let _running = self.shells.running.read().await;
        let mut closing = self.shells.closing.subscribe();
        let network = self.in_network().await?;
        let mut child = start(&path, words, Stream::Null, Stream::Piped, &network).await?;
        let (output, errors) = (child.output.take(), child.errors.take());
        let finished = tokio::select! {
            finished = async { tokio::join!(read(output), read(errors), child.ended()) } => Some(finished),
            _ = closing.wait_for(|closing| *closing) => None,
        };
        let Some((output, errors, ())) = finished else {
            child.stop().await;
            child.finish();
            network.release().await?;
            return Err(failed("it was ended with the daemon".to_owned()));
        };
        let status = child.release();
        network.release().await?;
        let failed = |error: std::io::Error| failed(error.to_string());
        Ok(Finished { status, output: output.map_err(failed)?, errors: errors.map_err(failed)? })
    }
}
