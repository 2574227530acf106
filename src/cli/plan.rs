//! `megaform plan`.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::experiment::{CommandError, VarArgs, advice, blocked, colours, load, observe, plan_json, print, shown_plan};
use super::target::Target;
use crate::diagnostic::Exit;
use crate::plan::display::Style;
use crate::plan::{Options, plan};

/// Show what apply would do, without doing it.
///
/// The text is a minimega script: its comments say what changes and why, its commands are those that apply would send.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The experiment file (.yaml, .yml, .toml); `-` reads YAML from standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the plan as JSON (format 1).
    #[arg(long)]
    json: bool,
    /// Exit with 2 if there are changes, 0 if there are none.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Plan to destroy the experiment.
    #[arg(long)]
    destroy: bool,
    /// Say for each command what it needs and how it is taken back.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &PlanArgs, target: &Target) -> Result<Exit, CommandError> {
    let loaded = load(&args.file, &args.vars, Some(target)).ok_or(CommandError::Reported)?;
    let name = &loaded.experiment.name.value;
    let (live, note) = observe(target, name)?;
    let options = Options { destroy: args.destroy, sources: &loaded.sources, advice: advice(target, name)? };
    let mut plan = plan(&loaded.experiment, &loaded.graph, &live, &options).map_err(|error| blocked(error, &loaded))?;
    plan.notes.splice(0..0, note.map(|note| format!("{note}: planning as if nothing runs")));
    if args.json {
        let json = plan_json(&plan, &loaded.secrets)?;
        let mut text = serde_json::to_string_pretty(&json).map_err(CommandError::Json)?;
        text.push('\n');
        print(&text)?;
    } else {
        let target = target.socket.to_string_lossy();
        let style = Style { target: &target, colour: colours(&io::stdout()), verbose: args.verbose };
        print(&shown_plan(&plan, style, &loaded.secrets))?;
    }
    Ok(if args.detailed_exitcode && !plan.is_empty() { Exit::Changes } else { Exit::Success })
}
