//! `megaform validate`.

use std::path::PathBuf;

use clap::Args;

use super::experiment::{CommandError, VarArgs, counted, load, report, tell};
use super::target::Target;
use crate::diagnostic::Exit;
use crate::spec;

/// Check experiment files without looking at what runs.
///
/// Every error of every file is printed with its file, line and column. The exit code is 1 if there is any. Warnings name what
/// works but is likely a mistake, what a minimega would not do, and what this machine lacks, unless --socket names an engine
/// elsewhere.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Experiment files (.yaml, .yml, .toml); `-` reads YAML from standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &ValidateArgs, target: &Target) -> Result<Exit, CommandError> {
    let mut exit = Exit::Success;
    for file in &args.files {
        match load(file, &args.vars, Some(target)) {
            Some(loaded) => {
                let e = &loaded.experiment;
                report(&spec::minimega(e), &loaded.sources, &loaded.secrets);
                let mut parts = vec![
                    counted(e.vms.len(), "VM"),
                    counted(e.vlans.len(), "VLAN alias").replace("aliass", "aliases"),
                    counted(e.taps.len(), "tap"),
                ];
                if !e.commands.is_empty() {
                    parts.push(counted(e.commands.len(), "entry").replace("entrys", "entries") + " of raw commands");
                }
                tell(&format!("{}: experiment {} is valid: {}\n", file.display(), *e.name, parts.join(", ")))?;
            }
            None => exit = Exit::Error,
        }
    }
    Ok(exit)
}
