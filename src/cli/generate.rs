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

/// The manual page up to the command language: the program's own part, and the help of every subcommand.
fn page(command: &clap::Command) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut bytes)?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    text.push_str(".SH SUBCOMMANDS IN FULL\n");
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        // There is one page for all of them.
        let (page, words) = (format!("megaform\\-{}(1)", name.replace('-', "\\-")), format!("megaform {name}"));
        text = text.replace(&page, &words);
        let help = subcommand.clone().bin_name(&words).term_width(76).render_long_help().to_string();
        text.push_str(&format!(".SS {words}\n.nf\n"));
        for line in help.lines() {
            text.push_str(&format!("\\&{}\n", line.replace('\\', "\\e").replace('-', "\\-")));
        }
        text.push_str(".fi\n");
    }
    Ok(text)
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
            out.extend_from_slice(page(&command)?.as_bytes());
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
