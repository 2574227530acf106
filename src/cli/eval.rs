//! `megaform eval`.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::Args;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Context, Editor, Helper, Highlighter, Hinter, Validator};

use super::experiment::{CommandError, VarArgs, print, report};
use crate::diagnostic::{Exit, Severity};
use crate::spec::compose::{Evaluated, HIDDEN};
use crate::spec::{Console, console};

/// Evaluate expressions with the variables, locals and included files of an experiment file.
///
/// Without EXPRESSION it asks for one after the other, with completion; Ctrl-D leaves. Nothing that runs is looked at.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The experiment file (.yaml, .yml, .toml).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The expression, with braces or without: cidrhost('10.0.0.0/24', 5)
    #[arg(value_name = "EXPRESSION", allow_hyphen_values = true)]
    expression: Option<String>,
    /// Show sensitive values too.
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &EvalArgs) -> Result<Exit, CommandError> {
    let (console, diagnostics, sources) = console(&args.file, &args.vars.inputs());
    let Some(mut console) = console else {
        report(&diagnostics, &sources, &Default::default());
        return Ok(Exit::Error);
    };
    report(&diagnostics, console.sources(), console.secrets());
    if diagnostics.iter().any(|d| d.severity == Severity::Error) && args.expression.is_some() {
        return Ok(Exit::Error);
    }
    match &args.expression {
        Some(expression) => evaluate(&mut console, expression, args.reveal),
        None => prompt(&mut console, args.reveal),
    }
}

/// Print the value of an expression, or what is wrong with it.
fn evaluate(console: &mut Console, expression: &str, reveal: bool) -> Result<Exit, CommandError> {
    match console.eval(expression) {
        Ok(Evaluated { sensitive: true, .. }) if !reveal => print(&format!("{HIDDEN}\n"))?,
        Ok(evaluated) => {
            let text = match &evaluated.value {
                serde_json::Value::String(text) => text.clone(),
                value => serde_json::to_string_pretty(value).map_err(CommandError::Json)?,
            };
            print(&format!("{text}\n"))?;
        }
        Err(diagnostics) => {
            report(&diagnostics, console.sources(), console.secrets());
            return Ok(Exit::Error);
        }
    }
    Ok(Exit::Success)
}

/// Completes names.
#[derive(Helper, Hinter, Highlighter, Validator)]
struct Names {
    names: Vec<String>,
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..position).unwrap_or("");
        let start = typed.rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '.').map_or(0, |at| at + 1);
        let word = typed.get(start..).unwrap_or("");
        Ok((start, self.names.iter().filter(|name| name.starts_with(word)).cloned().collect()))
    }
}

fn prompt(console: &mut Console, reveal: bool) -> Result<Exit, CommandError> {
    let failed = |error: ReadlineError| CommandError::Prompt(Box::new(error));
    let config = Config::builder().auto_add_history(true).build();
    let mut editor: Editor<Names, MemHistory> = Editor::with_history(config, MemHistory::new()).map_err(failed)?;
    editor.set_helper(Some(Names { names: console.names() }));
    let prompt = if std::io::stdin().is_terminal() { "> " } else { "" };
    loop {
        match editor.readline(prompt) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                // What is wrong was printed; the next expression may be right.
                let _reported = evaluate(console, line.trim(), reveal)?;
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(Exit::Success),
            Err(error) => return Err(failed(error)),
        }
    }
}
