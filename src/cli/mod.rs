//! The command line: one file per subcommand; errors become text and an exit code here, once.

pub mod advice;
mod ahead;
pub mod apply;
pub mod carry;
pub mod check;
pub mod console;
pub mod daemon;
pub mod destroy;
pub mod eval;
pub mod exec_net;
pub mod expand;
pub mod experiment;
pub mod explain;
pub mod fmt;
pub mod generate;
pub mod import;
pub mod init;
mod lines;
pub mod output;
pub mod pipe;
pub mod plan;
pub mod progress;
pub mod raw;
pub mod saved;
pub mod select;
pub mod show;
pub mod target;
pub mod validate;
pub mod viz;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::diagnostic::Exit;

/// A declarative engine for VM testbeds: an experiment file, a plan, an apply that converges.
#[derive(Debug, Parser)]
#[command(name = "megaform", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    target: TargetArgs,
    /// Run one raw command and print its answer: megaform -e vm info
    #[arg(short = 'e', num_args = 1.., value_name = "COMMAND", allow_hyphen_values = true, trailing_var_arg = true)]
    execute: Option<Vec<String>>,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

/// Where help shows the options that every subcommand has.
const TARGET: &str = "Which engine";

/// Which engine is meant.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// The engine's base folder; its socket is BASE/minimega. Default: /run/megaform, or megaform in the user's runtime
    /// folder.
    #[arg(long, global = true, env = "MEGAFORM_BASE", value_name = "FOLDER", help_heading = TARGET)]
    pub base: Option<PathBuf>,
    /// The socket of a running minimega or megaform to drive instead of an engine of our own.
    #[arg(long, global = true, env = "MEGAFORM_SOCKET", value_name = "PATH", help_heading = TARGET)]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    Init(init::InitArgs),
    Validate(validate::ValidateArgs),
    Fmt(fmt::FmtArgs),
    Expand(expand::ExpandArgs),
    Eval(eval::EvalArgs),
    Explain(explain::ExplainArgs),
    Plan(plan::PlanArgs),
    Apply(apply::ApplyArgs),
    Destroy(destroy::DestroyArgs),
    Show(show::ShowArgs),
    Output(output::OutputArgs),
    #[command(visible_alias = "graph")]
    Viz(viz::VizArgs),
    Import(import::ImportArgs),
    Daemon(daemon::DaemonArgs),
    ExecNet(exec_net::ExecNetArgs),
    Run(raw::RunArgs),
    Pipe(pipe::PipeArgs),
    Check(check::CheckArgs),
    #[command(visible_alias = "attach")]
    Console(console::ConsoleArgs),
    Generate(generate::GenerateArgs),
}

/// What shells report of a program that SIGPIPE has ended.
const READER_GONE: u8 = 128 + 13;

/// Whether standard output could not be written because its reader has gone away, as `head` does when it has enough.
fn nobody_reads(error: &(dyn std::error::Error + 'static)) -> bool {
    let output = match (error.downcast_ref(), error.downcast_ref(), error.downcast_ref()) {
        (Some(raw::RawError::Output(source)), ..) => Some(source),
        (_, Some(console::ConsoleError::Output(source)), _) => Some(source),
        (_, _, Some(experiment::CommandError::Write { source, .. })) => Some(source),
        _ => error.downcast_ref::<std::io::Error>(),
    };
    output.is_some_and(|source| source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Run the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _nowhere_to_report = error.print();
            // clap's own code for a usage error is 2, which means changes here.
            return ExitCode::from(if error.use_stderr() { Exit::Error } else { Exit::Success } as u8);
        }
    };
    let target = target::target(&cli.target);
    let result: Result<Exit, Box<dyn std::error::Error>> = match (cli.execute, cli.command) {
        (Some(words), _) => raw::command(&target.socket, &words).map_err(Into::into),
        (None, Some(Subcommands::Validate(args))) => experiment::settled(validate::run(&args, &target)),
        (None, Some(Subcommands::Init(args))) => experiment::settled(init::run(&args)),
        (None, Some(Subcommands::Fmt(args))) => experiment::settled(fmt::run(&args)),
        (None, Some(Subcommands::Expand(args))) => experiment::settled(expand::run(&args)),
        (None, Some(Subcommands::Eval(args))) => experiment::settled(eval::run(&args)),
        (None, Some(Subcommands::Explain(args))) => experiment::settled(explain::run(&args)),
        (None, Some(Subcommands::Plan(args))) => experiment::settled(plan::run(&args, &target)),
        (None, Some(Subcommands::Apply(args))) => experiment::settled(apply::run(&args, &target)),
        (None, Some(Subcommands::Destroy(args))) => experiment::settled(destroy::run(&args, &target)),
        (None, Some(Subcommands::Show(args))) => experiment::settled(show::run(&args, &target)),
        (None, Some(Subcommands::Output(args))) => experiment::settled(output::run(&args)),
        (None, Some(Subcommands::Viz(args))) => experiment::settled(viz::run(&args, &target)),
        (None, Some(Subcommands::Import(args))) => experiment::settled(import::run(&args, &target)),
        (None, Some(Subcommands::Daemon(args))) => {
            daemon::run(&args, &target.base).map(|()| Exit::Success).map_err(Into::into)
        }
        (None, Some(Subcommands::ExecNet(args))) => {
            exec_net::run(&args, &target.base).map(|never| match never {}).map_err(Into::into)
        }
        (None, Some(Subcommands::Pipe(args))) => {
            pipe::run(&args, &target.socket).map(|()| Exit::Success).map_err(Into::into)
        }
        (None, Some(Subcommands::Run(args))) => raw::script(&target.socket, &args).map_err(Into::into),
        (None, Some(Subcommands::Check(args))) => check::run(&args).map_err(Into::into),
        (None, Some(Subcommands::Console(args))) => console::run(&args, &target.socket).map_err(Into::into),
        (None, Some(Subcommands::Generate(args))) => generate::run(&args).map(|()| Exit::Success).map_err(Into::into),
        (None, None) => unreachable!("clap shows help"),
    };
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) if nobody_reads(&*error) => ExitCode::from(READER_GONE),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text.push_str(&format!(": {error}"));
                source = error.source();
            }
            eprintln!("error: {text}");
            ExitCode::from(Exit::Error as u8)
        }
    }
}
