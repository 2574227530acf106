//! `megaform destroy`.

use std::path::PathBuf;

use clap::Args;

use super::apply::{Work, carry_out};
use super::carry::HowArgs;
use super::experiment::{CommandError, VarArgs, file_or_name};
use super::select::SelectArgs;
use super::target::Target;
use crate::diagnostic::Exit;
use crate::name::Namespace;

/// Remove everything that belongs to an experiment.
///
/// VMs and taps that the experiment does not own stay, and so does its namespace then.
#[derive(Debug, Args)]
pub struct DestroyArgs {
    /// The experiment file (.yaml, .yml, .toml).
    #[arg(value_name = "FILE", required_unless_present = "experiment", conflicts_with = "experiment")]
    file: Option<PathBuf>,
    /// The name of the experiment, where its file is not at hand.
    #[arg(long, value_name = "NAME")]
    experiment: Option<Namespace>,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    vars: VarArgs,
    #[command(flatten)]
    how: HowArgs,
}

/// Run it.
pub fn run(args: &DestroyArgs, target: &Target) -> Result<Exit, CommandError> {
    let loaded = file_or_name(args.file.as_deref(), args.experiment.as_ref(), &args.vars)?;
    let name = &loaded.experiment.name.value;
    if target.own && !target.base.exists() {
        let report = args.how.report(&loaded.secrets);
        let base = target.base.display();
        report.text(&format!("No changes. Nothing of {name} is there: no engine has been at {base}.\n"))?;
        return report.nothing(Exit::Success);
    }
    // Without its daemon an engine's VMs may still run: it is started to adopt and end them.
    let work = Work::new(&loaded, target, true, args.select.selection(None));
    carry_out(&work, &args.how, &format!("megaform destroy ({name})"))
}
