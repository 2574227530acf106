//! `megaform expand`.

use std::path::PathBuf;

use clap::Args;

use super::experiment::{CommandError, VarArgs, load, print};
use crate::diagnostic::Exit;
use crate::spec::written;

/// Print an experiment with nothing left to compute: expressions, repetition, included files and profiles resolved.
///
/// The text is an experiment file that means the same. Behind each value stands the file and line that it comes from, and
/// those of the values of profiles that it won over.
#[derive(Debug, Args)]
pub struct ExpandArgs {
    /// The experiment file (.yaml, .yml, .toml); `-` reads YAML from standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show sensitive values too.
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &ExpandArgs) -> Result<Exit, CommandError> {
    let loaded = load(&args.file, &args.vars, None).ok_or(CommandError::Reported)?;
    let text = written(&loaded.experiment, &loaded.sources);
    print(&if args.reveal { text } else { loaded.secrets.mask(&text) })?;
    Ok(Exit::Success)
}
