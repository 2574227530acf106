//! `megaform check`: is a script made of commands?

use std::io::BufRead;
use std::path::PathBuf;

use clap::Args;

use crate::commands;
use crate::diagnostic::Exit;
use crate::language::CompileError;

/// Check scripts without running them.
///
/// Reports every line that is not a command of megaform's engine, with its number, what was expected there and what
/// was perhaps meant. Nothing is sent anywhere.
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
        for (index, line) in input.lines().enumerate() {
            if let Err(problem) = grammar.compile(&line.map_err(error)?) {
                bad += 1;
                eprintln!("{}:{}: {problem}", path.display(), index + 1);
                if let CompileError::Invalid(invalid) = &problem {
                    eprintln!("    {}", invalid.advice());
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
