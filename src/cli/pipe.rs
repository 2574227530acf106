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
    /// The pipe. A name with a namespace in it, such as `lab//alerts`, is used as it is.
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

/// Send the lines of standard input; `finished` is set at its end, before the engine is told.
fn send(mut sender: PipeSender, finished: &AtomicBool) -> Result<(), PipeError> {
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    let sent = loop {
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break Ok(()),
            Ok(_) => sender.send(&String::from_utf8_lossy(&line))?,
            Err(error) => break Err(PipeError::Input(error)),
        }
        line.clear();
    };
    finished.store(true, Ordering::SeqCst);
    sender.finish()?;
    sent
}

/// The whole name of a pipe, as raw commands of a namespace understand it.
fn whole(name: &str, namespace: &str) -> Result<String, NameError> {
    Ok(match name.split_once("//") {
        Some((of, _)) if Namespace::new(of).is_ok() => name.to_owned(),
        _ => format!("{}//{name}", Namespace::new(namespace)?),
    })
}

/// Join a pipe until the end of standard input.
pub fn run(args: &PipeArgs, socket: &Path) -> Result<(), PipeError> {
    let name = whole(&args.name, &args.namespace)?;
    let (sender, mut receiver) = Client::connect(socket, None)?.pipe(&name)?;
    let finished = Arc::new(AtomicBool::new(false));
    let failed = Arc::new(std::sync::Mutex::new(None));
    // Never joined: it may wait for a terminal for ever.
    let _sender = if args.no_input {
        Some(sender)
    } else {
        let (finished, failed) = (Arc::clone(&finished), Arc::clone(&failed));
        std::thread::spawn(move || {
            if let Err(error) = send(sender, &finished) {
                *failed.lock().expect("nothing panics with it") = Some(error);
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_raw_command() {
        let name = |text| whole(text, "lab").unwrap();
        assert_eq!(["a", "other//a", "http://x"].map(name), ["lab//a", "other//a", "lab//http://x"]);
        assert!(whole("a", "not a namespace").is_err());
    }
}
