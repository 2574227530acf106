//! `megaform init`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::experiment::{CommandError, tell};
use crate::diagnostic::Exit;
use crate::name::Namespace;

/// Write a first experiment file, with comments that explain it.
///
/// A file that is there already is left as it is, and that is an error.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The file to write.
    #[arg(value_name = "FILE", default_value = "experiment.yaml")]
    file: PathBuf,
    /// The name of the experiment.
    #[arg(long, value_name = "NAME", default_value = "lab")]
    name: Namespace,
}

/// The file that is written; `NAME` stands for the experiment's name.
const FIRST: &str = include_str!("init.yaml");

/// Run it.
pub fn run(args: &InitArgs) -> Result<Exit, CommandError> {
    let file = args.file.display();
    if !matches!(args.file.extension().and_then(|e| e.to_str()), Some("yaml" | "yml")) {
        return Err(CommandError::InitName { file: file.to_string() });
    }
    let failed = |source| CommandError::Write { what: file.to_string(), source };
    let mut output = OpenOptions::new().write(true).create_new(true).open(&args.file).map_err(failed)?;
    output.write_all(FIRST.replace("NAME", args.name.as_str()).as_bytes()).map_err(failed)?;
    tell(&format!("Wrote {file}. Next: megaform validate {file}; megaform plan {file}\n"))?;
    Ok(Exit::Success)
}
