//! Programs that a user runs on the engine's host, inside the engine's network, and waits for.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use super::{Engine, EngineError, programs};

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
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: Output,
    /// Its standard error.
    pub errors: Output,
}

/// Read to the end, so that the writer never waits; keep the beginning.
fn read(mut input: impl Read) -> std::io::Result<Output> {
    let mut output = Output::default();
    input.by_ref().take(SHELL_OUTPUT as u64).read_to_end(&mut output.kept)?;
    output.left_out = std::io::copy(&mut input, &mut std::io::sink())?;
    Ok(output)
}

impl Engine {
    /// Run a program in the engine's network namespace, as its argument vector, and wait until it has ended and its
    /// outputs are closed. What it leaves running is left alone.
    pub async fn run_program(self: &Arc<Self>, words: &[String]) -> Result<Finished, EngineError> {
        let (program, args) = words.split_first().expect("the pattern takes at least one word");
        let path = programs::require(program)?;
        let network = self.in_network().await?;
        let failed =
            |error: std::io::Error| EngineError::Program { program: program.clone(), message: error.to_string() };
        let namespace = network.fd().map_err(failed)?;
        let (name, args) = (program.clone(), args.to_vec());
        let run = move || -> std::io::Result<Finished> {
            if let Some(fd) = &namespace {
                nix::sched::setns(fd, nix::sched::CloneFlags::CLONE_NEWNET)?;
            }
            let mut child = Command::new(&path)
                .arg0(&name)
                .args(&args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let (output, errors) = (child.stdout.take(), child.stderr.take());
            let (output, errors) = std::thread::scope(|scope| {
                let errors = scope.spawn(move || errors.map_or(Ok(Output::default()), read));
                let output = output.map_or(Ok(Output::default()), read);
                (output, errors.join().expect("reading does not panic"))
            });
            Ok(Finished { status: child.wait()?, output: output?, errors: errors? })
        };
        // A thread of its own: a process starts in the network namespace of the thread that starts it, and a program that
        // runs for long must not hold one of the threads that everything else needs.
        let (sender, finished) = tokio::sync::oneshot::channel();
        let finished = match std::thread::Builder::new().name("shell".to_owned()).spawn(move || sender.send(run())) {
            Ok(_) => finished.await.expect("starting a program does not panic"),
            Err(error) => Err(error),
        };
        network.release().await?;
        finished.map_err(failed)
    }
}
