//! Programs that a user runs on the engine's host, inside the engine's network.

use std::process::{Command, Output, Stdio};

use super::{Engine, EngineError};

impl Engine {
    /// Run a program in the engine's network namespace, as its argument vector, and wait for it.
    pub async fn run_program(&self, words: &[String]) -> Result<Output, EngineError> {
        let network = self.network(|network| network.enter()).await?;
        let (program, args) = words.split_first().expect("the pattern takes at least one word");
        let (program, args) = (program.clone(), args.to_vec());
        let name = program.clone();
        let run = move || -> std::io::Result<Output> {
            if let Some(fd) = &network {
                nix::sched::setns(fd, nix::sched::CloneFlags::CLONE_NEWNET)?;
            }
            Command::new(&program).args(&args).stdin(Stdio::null()).output()
        };
        // A thread of its own: a process starts in the network namespace of the thread that starts it, and a program that
        // runs for long must not hold one of the threads that everything else needs.
        let (sender, output) = tokio::sync::oneshot::channel();
        let output = match std::thread::Builder::new().name("shell".to_owned()).spawn(move || sender.send(run())) {
            Ok(_) => output.await.expect("starting a program does not panic"),
            Err(error) => Err(error),
        };
        self.release_network().await?;
        output.map_err(|error| EngineError::Program {
            program: name,
            message: match error.kind() {
                std::io::ErrorKind::NotFound => "executable file not found in $PATH".to_owned(),
                _ => error.to_string(),
            },
        })
    }
}
