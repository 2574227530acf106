//! `megaform -e` and `megaform run`: raw commands to any minimega socket.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;

use super::advice::{Style, advice, beside_errors};
use crate::diagnostic::Exit;
use crate::language::entry::Entry;
use crate::language::token::{self, QuoteError};
use crate::wire::{Client, Response, WireError};

/// Run the commands of a script, one line each, in order.
///
/// Every line is sent as it stands; blank lines and comments are skipped. The script stops at the first command that
/// fails, unless --keep-going is given; the error names the script and the line.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The script; `-` is standard input.
    script: PathBuf,
    /// Go on after a command that fails, as minimega's `read` does.
    #[arg(long)]
    keep_going: bool,
}

/// Why a raw command did not run.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The target.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// An argument that the command language cannot carry.
    #[error("argument {index} cannot be sent")]
    Argument {
        /// Its place, from 1.
        index: usize,
        /// Why not.
        #[source]
        source: QuoteError,
    },
    /// The script.
    #[error("cannot read {}", path.display())]
    Script {
        /// The script.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Standard output.
    #[error("cannot write the answer")]
    Output(#[source] std::io::Error),
}

/// The command line that arguments stand for. One argument alone is a whole line, so that both `-e vm info` and
/// `-e 'vm info'` work; several are one word each, quoted where they need it.
pub fn line(words: &[String]) -> Result<String, RawError> {
    if let [line] = words {
        return Ok(line.clone());
    }
    let quoted: Result<Vec<String>, RawError> = words
        .iter()
        .enumerate()
        .map(|(index, word)| token::quote(word).map_err(|source| RawError::Argument { index: index + 1, source }))
        .collect();
    Ok(quoted?.join(" "))
}

/// The part of a file that an entry of `file stream` carries: its answer is nothing but base64 text in `Data`.
fn content(entry: &Entry) -> Option<Vec<u8>> {
    let bare = entry.response.is_empty() && entry.header.is_none() && entry.error.is_empty();
    bare.then(|| BASE64_STANDARD.decode(entry.data.as_str()?).ok()).flatten()
}

/// Print one response: answers to standard output, errors to standard error with their host. True if there was none.
fn show(line: &str, response: &Response, place: Option<&str>) -> Result<bool, RawError> {
    if response.status {
        eprintln!("{}", response.rendered.trim_end());
        return Ok(true);
    }
    if !response.rendered.is_empty() {
        let mut out = std::io::stdout().lock();
        let text = Style::of(&out).answer(response);
        writeln!(out, "{text}").map_err(RawError::Output)?;
    } else {
        for content in response.resp.iter().flatten().filter_map(content) {
            std::io::stdout().lock().write_all(&content).map_err(RawError::Output)?;
        }
    }
    for text in beside_errors(response) {
        writeln!(std::io::stdout().lock(), "{text}").map_err(RawError::Output)?;
    }
    let Style { red, plain, .. } = Style::of(&std::io::stderr());
    let mut good = true;
    for (host, error) in response.errors() {
        good = false;
        match place {
            Some(place) => eprintln!("{red}{place}{plain}: {host}: {error}"),
            None => eprintln!("{red}error{plain}: {host}: {error}"),
        }
        if let Some(advice) = advice(line, error) {
            eprintln!("    {advice}");
        }
    }
    Ok(good)
}

/// Run a line and show each response as it comes. True if none told of a failure.
fn run(client: &mut Client, line: &str, place: Option<&str>) -> Result<bool, RawError> {
    let mut good = Ok(true);
    client.call_while(line, &mut |response| {
        if let Ok(before) = good {
            good = show(line, &response, place).map(|this| before && this);
        }
        // Nobody reads the rest: the daemon stops sending when the connection goes.
        good.is_ok()
    })?;
    good
}

/// Run one command.
pub fn command(socket: &Path, words: &[String]) -> Result<Exit, RawError> {
    let line = line(words)?;
    let mut client = Client::connect(socket, None)?;
    let good = run(&mut client, &line, None)?;
    Ok(if good { Exit::Success } else { Exit::Error })
}

/// Run a script.
pub fn script(socket: &Path, args: &RunArgs) -> Result<Exit, RawError> {
    let error = |source| RawError::Script { path: args.script.clone(), source };
    let input: Box<dyn BufRead> = if args.script.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::io::BufReader::new(std::fs::File::open(&args.script).map_err(error)?))
    };
    let mut client = Client::connect(socket, None)?;
    let mut exit = Exit::Success;
    for (index, line) in input.lines().enumerate() {
        let line = line.map_err(error)?;
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let place = format!("{}:{}", args.script.display(), index + 1);
        if !run(&mut client, text, Some(&place))? {
            exit = Exit::Error;
            if !args.keep_going {
                break;
            }
        }
    }
    Ok(exit)
}
