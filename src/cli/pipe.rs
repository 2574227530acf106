//! `megaform pipe`: the shell's end of a named pipe.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use crate::name::{NameError, Namespace};
use crate::wire::{Client, PipeSender, WireError};

/// Join a named pipe: lines of standard input go in, its messages come out.
///
/// The pipe is that of `pipe NAME` and `plumb` in raw commands, and is made if it is not there. One's own lines come back
/// too, unless its mode gives them to another reader. At the end of standard input, what still waits is printed and the
/// program ends; Ctrl-C ends it at once. If the engine hangs up (the pipe was cleared, the daemon ended), the status is 1.
#[derive(Debug, Args)]
pub struct PipeArgs {
    /// The pipe. A name with `//` in it, such as `lab//alerts`, is used as it is.
    name: String,
    /// The namespace of the pipe.
    #[arg(long, short, default_value = "minimega")]
    namespace: String,
    /// Only print messages, do not read standard input.
    #[arg(long)]
    no_input: bool,
}

/// Why a pipe ended early.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// The namespace.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Standard input.
    #[error("cannot read standard input")]
    Input(#[source] std::io::Error),
    /// Standard output.
    #[error("cannot write a message")]
    Output(#[source] std::io::Error),
    /// The server has hung up.
    #[error("the engine hung up: the pipe {name} was cleared, or the daemon has ended")]
    HungUp {
        /// The whole name.
        name: String,
    },
}

/// Send the lines of standard input.
fn send(mut sender: PipeSender) -> Result<(), PipeError> {
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).map_err(PipeError::Input)? > 0 {
        sender.send(&String::from_utf8_lossy(&line))?;
        line.clear();
    }
    sender.finish()?;
    Ok(())
}

/// Join a pipe until the end of standard input.
pub fn run(args: &PipeArgs, socket: &Path) -> Result<(), PipeError> {
    let name = match args.name.contains("//") {
        true => args.name.clone(),
        false => format!("{}//{}", Namespace::new(&args.namespace)?, args.name),
    };
    let (sender, mut receiver) = Client::connect(socket, None)?.pipe(&name)?;
    let finished = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(std::sync::Mutex::new(None));
    // Never joined: it may wait for a terminal for ever.
    let _sender = if args.no_input {
        Some(sender)
    } else {
        let (finished, failed) = (Arc::clone(&finished), Arc::clone(&failed));
        std::thread::spawn(move || {
            if let Err(error) = send(sender) {
                *failed.lock().expect("nothing panics with it") = Some(error);
            }
            finished.store(true, Ordering::SeqCst);
        });
        None
    };
    let mut out = std::io::stdout().lock();
    while let Some(message) = receiver.receive()? {
        match out.write_all(message.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads them has enough, such as `head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(PipeError::Output)?,
        }
    }
    match failed.lock().expect("nothing panics with it").take() {
        // What failed was the connection: that the other side has hung up says it better.
        Some(error @ PipeError::Input(_)) => Err(error),
        None if finished.load(Ordering::SeqCst) => Ok(()),
        _ => Err(PipeError::HungUp { name }),
    }
}
