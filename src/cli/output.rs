//! `megaform output`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::experiment::{CommandError, VarArgs, load, print};
use crate::diagnostic::Exit;
use crate::spec::Output;
use crate::spec::compose::HIDDEN;

/// Show the outputs of an experiment file.
///
/// They are computed from the file and its variables, so nothing needs to run. Sensitive ones are hidden unless --reveal is
/// given.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// The experiment file (.yaml, .yml, .toml); `-` reads YAML from standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Show this one alone: text as it is, anything else as JSON.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Write JSON: of all outputs a map from names to `value`, `sensitive` and `description`, of one its value.
    #[arg(long)]
    json: bool,
    /// Show sensitive values too.
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &OutputArgs) -> Result<Exit, CommandError> {
    let loaded = load(&args.file, &args.vars, None).ok_or(CommandError::Reported)?;
    let shown = |output: &Output| hidden(output, args.reveal);
    let Some(name) = &args.name else {
        if args.json {
            let all: serde_json::Map<String, Value> =
                loaded.outputs.iter().map(|o| (o.name.clone(), described(o, args.reveal))).collect();
            print(&lines(&Value::Object(all))?)?;
        } else {
            print(&listed(&loaded.outputs, args.reveal))?;
        }
        return Ok(Exit::Success);
    };
    let Some(output) = loaded.outputs.iter().find(|output| output.name == *name) else {
        let known: Vec<&str> = loaded.outputs.iter().map(|output| output.name.as_str()).collect();
        return Err(CommandError::NoOutput {
            name: name.clone(),
            known: if known.is_empty() { "none".to_owned() } else { known.join(", ") },
        });
    };
    match shown(output) {
        Value::String(text) if !args.json => print(&format!("{text}\n"))?,
        value => print(&lines(&value)?)?,
    }
    Ok(Exit::Success)
}

fn hidden(output: &Output, reveal: bool) -> Value {
    if output.sensitive && !reveal { Value::String(HIDDEN.to_owned()) } else { output.value.clone() }
}

fn described(output: &Output, reveal: bool) -> Value {
    let value = if output.sensitive && !reveal { Value::Null } else { output.value.clone() };
    let mut entry = json!({ "value": value, "sensitive": output.sensitive });
    if let Some(description) = &output.description {
        entry["description"] = json!(description);
    }
    entry
}

fn lines(value: &Value) -> Result<String, CommandError> {
    let mut text = serde_json::to_string_pretty(value).map_err(CommandError::Json)?;
    text.push('\n');
    Ok(text)
}

/// The outputs as `name = value` lines, each value as JSON.
fn listed(outputs: &[Output], reveal: bool) -> String {
    let line = |output: &Output| {
        let value = match output.sensitive && !reveal {
            true => HIDDEN.to_owned(),
            false => output.value.to_string(),
        };
        format!("{} = {value}\n", output.name)
    };
    outputs.iter().map(line).collect()
}

/// The outputs as a part of what another subcommand prints; empty if there are none.
pub fn text(outputs: &[Output]) -> String {
    let lines: String = listed(outputs, false).lines().map(|line| format!("  {line}\n")).collect();
    if lines.is_empty() { lines } else { format!("\nOutputs:\n{lines}") }
}
