//! `megaform console`: the command language by hand, on any minimega socket.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Args;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Context, Editor, Helper, Highlighter, Hinter, Validator};
use unicode_width::UnicodeWidthStr;

use super::advice::{Style, advice, beside_errors, is_header};
use crate::diagnostic::Exit;
use crate::language::token;
use crate::wire::{Client, Response, WireError};

/// Type raw commands, with completion and a history that outlasts the console.
///
/// Tab completes commands, VM names, VLANs, namespaces and files as the daemon suggests them. The prompt shows the active
/// namespace. Ctrl-C leaves a command that runs to the daemon and takes the next one; Ctrl-D, `disconnect` or `exit` ends
/// the console and nothing else. Long answers and wide tables go through $PAGER; NO_COLOR turns colours off. A line that
/// begins with a blank is not kept in the history. Without a terminal, commands are read from standard input, one a line.
///
/// The exit status is 1 if a command failed.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Do not send long answers through a pager.
    #[arg(long)]
    no_pager: bool,
}

/// Why the console ended.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The daemon.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The terminal.
    #[error("cannot read the terminal")]
    Terminal(#[from] ReadlineError),
    /// Standard input.
    #[error("cannot read standard input")]
    Input(#[source] std::io::Error),
    /// Standard output.
    #[error("cannot write the answer")]
    Output(#[source] std::io::Error),
    /// Ctrl-C cannot be caught.
    #[error("cannot listen for signals")]
    Signal(#[source] std::io::Error),
}

/// Asks the daemon for completions.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Suggestions {
    socket: PathBuf,
}

impl Completer for Suggestions {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        // A connection of its own: the other one may be waiting for an answer. No daemon, no suggestions.
        let lines = Client::connect(&self.socket, Some(Duration::from_secs(2)))
            .and_then(|mut client| client.suggest(&line[..position]))
            .unwrap_or_default();
        // Suggestions are whole lines; what is shown is the word that they complete.
        let start = line[..position].rfind(token::is_blank).map_or(0, |at| at + 1);
        let word = |line: &String| line.get(start..).map(str::to_owned);
        let pairs = lines.iter().filter_map(word).map(|replacement| {
            let name = replacement.trim_end();
            let name = name
                .strip_suffix('/')
                .unwrap_or(name)
                .rsplit_once('/')
                .map_or(name, |(folder, _)| &name[folder.len() + 1..]);
            Pair { display: name.to_owned(), replacement }
        });
        Ok((start, pairs.collect()))
    }
}

/// The file that keeps the history: private to the user, in the place that the XDG base directory specification names.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder =
        state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?.join("megaform");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Run the console.
pub fn run(args: &ConsoleArgs, socket: &Path) -> Result<Exit, ConsoleError> {
    let mut console = Console { socket, client: Some(Client::connect(socket, None)?), good: true, pager: false };
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        console.pager = !args.no_pager;
        console.terminal()?;
    } else {
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(ConsoleError::Input)?;
            if !console.line(&line, None)? {
                break;
            }
        }
    }
    Ok(if console.good { Exit::Success } else { Exit::Error })
}

struct Console<'a> {
    socket: &'a Path,
    /// None while a command that was left to the daemon still has the last connection.
    client: Option<Client>,
    good: bool,
    pager: bool,
}

impl Console<'_> {
    fn terminal(&mut self) -> Result<(), ConsoleError> {
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .auto_add_history(true)
            .max_history_size(10_000)
            .and_then(|config| config.history_ignore_dups(true))?
            .history_ignore_space(true)
            .build();
        let mut editor: Editor<Suggestions, FileHistory> = Editor::with_config(config)?;
        editor.set_helper(Some(Suggestions { socket: self.socket.to_owned() }));
        let history = history_file();
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))
            .map_err(ConsoleError::Signal)?;
        eprintln!("{}: `help` lists the commands, Ctrl-D leaves", self.socket.display());
        loop {
            match editor.readline(&self.prompt()) {
                Ok(line) => {
                    if let Some(path) = &history {
                        // A history that cannot be kept is no reason to stop.
                        let _ = editor.append_history(path);
                    }
                    interrupted.store(false, Ordering::Relaxed);
                    // What is pasted may be several lines.
                    for line in line.lines() {
                        match self.line(line, Some(&interrupted)) {
                            Ok(true) => {}
                            Ok(false) => return Ok(()),
                            // The daemon ended, or was ended. There may be another one for the next command.
                            Err(ConsoleError::Wire(error)) => self.complain(&error),
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Run one line; false to end the console.
    fn line(&mut self, line: &str, interrupted: Option<&AtomicBool>) -> Result<bool, ConsoleError> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(true);
        }
        if line == "disconnect" || line == "exit" {
            return Ok(false);
        }
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(self.socket, None)?,
        };
        let (sender, responses) = mpsc::channel();
        let command = line.to_owned();
        let worker = std::thread::spawn(move || {
            let result = client.call_with(&command, &mut |response| {
                let progress = response.status;
                drop(sender.send(if progress { Piece::Status(response.rendered) } else { Piece::Response(response) }));
            });
            (client, result, drop(sender))
        });
        loop {
            match responses.recv_timeout(Duration::from_millis(50)) {
                Ok(Piece::Response(response)) => self.show(line, &response)?,
                Ok(Piece::Status(text)) => eprintln!("{}", text.trim_end()),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if interrupted.is_some_and(|flag| flag.swap(false, Ordering::Relaxed)) {
                        eprintln!("the daemon goes on with this command; its answer is not waited for");
                        return Ok(true);
                    }
                    if worker.is_finished() {
                        break;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        let (client, result, ()) = worker.join().expect("the worker does not panic");
        while let Ok(piece) = responses.try_recv() {
            if let Piece::Response(response) = piece {
                self.show(line, &response)?;
            }
        }
        result?;
        self.client = Some(client);
        Ok(true)
    }

    /// The prompt, with the active namespace where the daemon tells it.
    fn prompt(&self) -> String {
        match active_namespace(self.socket) {
            Some(namespace) => format!("megaform[{namespace}]$ "),
            None => "megaform$ ".to_owned(),
        }
    }

    fn show(&mut self, line: &str, response: &Response) -> Result<(), ConsoleError> {
        if !response.rendered.is_empty() {
            self.print(response).map_err(ConsoleError::Output)?;
        }
        for text in beside_errors(response) {
            writeln!(std::io::stdout().lock(), "{text}").map_err(ConsoleError::Output)?;
        }
        let Style { red, plain, .. } = Style::of(&std::io::stderr());
        for (host, error) in response.errors() {
            self.good = false;
            eprintln!("{red}error{plain}: {host}: {error}");
            if let Some(advice) = advice(line, error) {
                eprintln!("    {advice}");
            }
        }
        Ok(())
    }

    fn complain(&mut self, error: &WireError) {
        let Style { red, plain, .. } = Style::of(&std::io::stderr());
        self.good = false;
        eprintln!("{red}error{plain}: {error}");
    }

    /// Print an answer. A text that is longer than the terminal, or a table that is wider, goes through the pager.
    fn print(&self, response: &Response) -> std::io::Result<()> {
        let plain = response.rendered.trim_end_matches('\n');
        let text = Style::of(&std::io::stdout()).answer(response);
        if self.pager
            && let Some((rows, columns)) = terminal_size()
        {
            let table = plain.lines().next().is_some_and(|first| is_header(first, response));
            let wide = table && plain.lines().any(|line| line.width() > columns);
            if (wide || plain.lines().count() >= rows) && page(&text) {
                return Ok(());
            }
        }
        writeln!(std::io::stdout().lock(), "{text}")
    }
}

enum Piece {
    Response(Response),
    Status(String),
}

/// The namespace that commands act in, if the daemon says so at once.
fn active_namespace(socket: &Path) -> Option<String> {
    let mut client = Client::connect(socket, Some(Duration::from_secs(1))).ok()?;
    let responses = client.call(".record false namespace").ok()?;
    let entry = responses.first()?.resp.as_ref()?.first()?;
    let header = entry.header.as_ref()?;
    let column = |name: &str| header.iter().position(|h| h == name);
    let (name, active) = (column("namespace")?, column("active")?);
    let row = entry.tabular.as_ref()?.iter().find(|row| row.get(active).is_some_and(|a| a == "true"))?;
    row.get(name).cloned()
}

/// Rows and columns of the terminal.
fn terminal_size() -> Option<(usize, usize)> {
    let (columns, rows) = terminal_size::terminal_size()?;
    Some((usize::from(rows.0), usize::from(columns.0)))
}

/// Show a text with $PAGER, or with `less` that cuts long lines and can be moved sideways. False if there is no pager.
fn page(text: &str) -> bool {
    let pager = std::env::var("PAGER").ok().filter(|p| !p.trim().is_empty());
    let mut words = pager.as_deref().unwrap_or("less -S -R -X").split_whitespace();
    let Some(program) = words.next() else { return false };
    let Ok(mut child) = Command::new(program).args(words).stdin(Stdio::piped()).spawn() else { return false };
    if let Some(mut input) = child.stdin.take() {
        // A pager that is left early closes its input.
        let _ = input.write_all(text.as_bytes());
        let _ = input.write_all(b"\n");
    }
    child.wait().is_ok()
}
