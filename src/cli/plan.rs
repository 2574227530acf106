//! `megaform plan`.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::experiment::{CommandError, VarArgs, advice, colours, load_ahead, plan_json, planned, print, shown_plan};
use super::saved;
use super::select::{ReplaceArgs, SelectArgs};
use super::target::Target;
use crate::diagnostic::Exit;
use crate::plan::Options;
use crate::plan::display::Style;

/// Show what apply would do, without doing it.
///
/// The text is a minimega script: its comments say what changes and why, its commands are those that apply would send.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The experiment file (.yaml, .yml, .toml); `-` reads YAML from standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the plan as JSON (format 2).
    #[arg(long)]
    json: bool,
    /// Save the plan as a minimega script that `megaform apply FILE` carries out as it is, as long as what it touches stays
    /// as it is.
    #[arg(long, value_name = "FILE", conflicts_with = "refresh_only")]
    out: Option<PathBuf>,
    /// Exit with 2 if there are changes, 0 if there are none.
    #[arg(long)]
    detailed_exitcode: bool,
    /// Plan to destroy the experiment.
    #[arg(long, conflicts_with = "replaces")]
    destroy: bool,
    /// Show only what differs from what was applied, such as a NIC that was moved by hand, and no commands. A missing
    /// object counts as new: nothing remembers that it was there.
    #[arg(long, conflicts_with_all = ["destroy", "replaces"])]
    refresh_only: bool,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    replace: ReplaceArgs,
    /// Show what is unchanged too, and say for each command what it needs and how it is taken back.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &PlanArgs, target: &Target) -> Result<Exit, CommandError> {
    let (loaded, ahead) = load_ahead(&args.file, &args.vars, target).ok_or(CommandError::Reported)?;
    let name = &loaded.experiment.name.value;
    let options = Options {
        destroy: args.destroy,
        selection: args.select.selection(Some(&args.replace)),
        drift_only: args.refresh_only,
        ..Options::new(&loaded.sources, advice(target, name)?)
    };
    let (mut plan, note) = planned(target, &loaded, &options, ahead)?;
    plan.notes.splice(0..0, note.map(|note| format!("{note}: planning as if nothing runs")));
    if let Some(path) = &args.out
        && saved::save(path, &plan, target, &loaded.secrets)?
    {
        eprintln!("note: {} holds sensitive values; only you can read it, so keep it to yourself", path.display());
    }
    if args.json {
        let mut text = plan_json(&plan, &loaded.secrets)?;
        text.push('\n');
        print(&text)?;
    } else {
        let target = target.socket.to_string_lossy();
        let style = Style { target: &target, colour: colours(&io::stdout()), verbose: args.verbose };
        print(&shown_plan(&plan, style, &loaded.secrets))?;
        if let Some(path) = &args.out {
            print(&format!("# Saved: `megaform apply {}` carries it out.\n", path.display()))?;
        }
    }
    let exit = if args.detailed_exitcode && !plan.is_empty() { Exit::Changes } else { Exit::Success };
    // The program ends here, and giving their many pieces back one by one takes as long as finding nothing to do.
    std::mem::forget((plan, loaded));
    Ok(exit)
}
