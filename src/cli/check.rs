//! `megaform check`: is a script made of commands?

use std::io::BufRead;
use std::path::PathBuf;

use clap::Args;

use crate::commands;
use crate::diagnostic::Exit;
use crate::language::CompileError;
use crate::language::alias::{self, Aliases};

/// Check scripts without running them.
///
/// Reports every line that is not a command of megaform's engine as FILE:LINE:COLUMN, with what was expected there or
/// what was perhaps meant. Aliases that a script defines count from their line on. Nothing is sent anywhere.
///
/// The exit status is 1 if there is such a line.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The scripts; `-` is standard input.
    #[arg(required = true)]
    scripts: Vec<PathBuf>,
}

/// Why a script was not checked.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct CheckError {
    /// The script.
    path: PathBuf,
    /// Why not.
    #[source]
    source: std::io::Error,
}

/// The column, from 1, where a line stops being a command.
fn column(line: &str, problem: &CompileError) -> usize {
    let at = match problem {
        CompileError::Invalid(invalid) => invalid.span.start,
        CompileError::Token(error) => error.at(),
        CompileError::TooLong { .. } | CompileError::TooDeep => 0,
    };
    line.get(..at).map_or(0, |before| before.chars().count()) + 1
}

/// Check the scripts.
pub fn run(args: &CheckArgs) -> Result<Exit, CheckError> {
    let grammar = commands::grammar(&commands::all());
    let mut bad = 0;
    for path in &args.scripts {
        let error = |source| CheckError { path: path.clone(), source };
        let input: Box<dyn BufRead> = if path.as_os_str() == "-" {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(std::io::BufReader::new(std::fs::File::open(path).map_err(error)?))
        };
        let mut aliases = Aliases::new();
        for (index, line) in input.lines().enumerate() {
            let line = line.map_err(error)?;
            let expanded = alias::expand(&aliases, &line);
            let text = expanded.as_deref().unwrap_or(&line);
            match grammar.compile(text) {
                Ok(None) => {}
                Ok(Some(compiled)) => {
                    if grammar.declarations()[compiled.command].name == ".alias" {
                        // What defines nothing is a command all the same; it fails when it is run.
                        let _ = alias::define(&mut aliases, alias::definition(&compiled));
                    }
                }
                Err(problem) => {
                    bad += 1;
                    let place = format!("{}:{}", path.display(), index + 1);
                    // The place in an expansion is none in the file.
                    let column = if expanded.is_some() { 1 } else { column(&line, &problem) };
                    match &problem {
                        CompileError::Invalid(invalid) => {
                            eprintln!("{place}:{column}: {}\n    {}", invalid.plain(), invalid.advice());
                        }
                        _ => eprintln!("{place}:{column}: {problem}"),
                    }
                }
            }
        }
    }
    match bad {
        0 => Ok(Exit::Success),
        1 => {
            eprintln!("1 line is not a command");
            Ok(Exit::Error)
        }
        bad => {
            eprintln!("{bad} lines are not commands");
            Ok(Exit::Error)
        }
    }
}
