//! `megaform generate`: what is derived from the declarations.

use std::io::Write;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::generate::{commands_text, declarations, manual, pretty, python};
use crate::spec;

/// Write what is derived from the declarations to standard output.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What to write.
    #[arg(value_enum)]
    what: What,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// The JSON schema of the experiment file, for editors.
    ExperimentSchema,
    /// Every command of the engine with its patterns and help, as JSON in the shape of `minimega -cli`.
    Commands,
    /// The Python bindings, one module.
    Python,
    /// The manual page of megaform, in roff.
    Man,
    /// Completion for bash, to be sourced or put into bash-completion's folder.
    Bash,
    /// Completion for fish.
    Fish,
    /// Completion for zsh.
    Zsh,
}

/// Write it.
pub fn run(args: &GenerateArgs) -> std::io::Result<()> {
    let mut out = Vec::new();
    let mut command = super::Cli::command();
    let shell = match args.what {
        What::Bash => Some(Shell::Bash),
        What::Fish => Some(Shell::Fish),
        What::Zsh => Some(Shell::Zsh),
        What::Man => {
            clap_mangen::Man::new(command.clone()).render(&mut out)?;
            None
        }
        _ => None,
    };
    if let Some(shell) = shell {
        clap_complete::generate(shell, &mut command, "megaform", &mut out);
    }
    let text = match args.what {
        What::ExperimentSchema => pretty(&spec::schema()),
        What::Commands => commands_text(),
        What::Python => python::module(&declarations()),
        What::Man => manual(&declarations()),
        What::Bash | What::Fish | What::Zsh => String::new(),
    };
    out.extend_from_slice(text.as_bytes());
    std::io::stdout().write_all(&out)
}
