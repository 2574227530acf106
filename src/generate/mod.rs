//! Everything that is derived from the declarations: the list of commands and the schema of the experiment file.
//!
//! Must not state anything itself.

pub mod python;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::commands;
use crate::language::declaration::Declaration;
use crate::language::pattern::{Item, Pattern};

/// What an element of a pattern is, in the numbers of `minimega -cli`: a sum of these.
mod kind {
    pub const OPTIONAL: u32 = 1;
    pub const LITERAL: u32 = 2;
    pub const COMMAND: u32 = 4;
    pub const STRING: u32 = 8;
    pub const CHOICE: u32 = 16;
    pub const LIST: u32 = 32;
}

/// An element of a pattern as `minimega -cli` describes it: `type`, then what applies of `key` (by which the handler knows
/// the argument), `text` (what is written between the brackets) and `options` (of a choice).
fn element(item: &Item) -> Value {
    let optional = if item.is_optional() { kind::OPTIONAL } else { 0 };
    let key = |name: &str| name.split(' ').next().unwrap_or(name).trim_end_matches(',').to_owned();
    match item {
        Item::Literal(word) => json!({ "type": kind::LITERAL, "text": **word }),
        Item::Choice { notation, words, .. } => {
            let options: Vec<&str> = words.iter().map(|w| &**w).collect();
            json!({ "type": kind::CHOICE | optional, "text": **notation, "options": options })
        }
        Item::Text { name, .. } => json!({ "type": kind::STRING | optional, "key": key(name), "text": **name }),
        Item::List { name, .. } => json!({ "type": kind::LIST | optional, "key": key(name), "text": **name }),
        Item::Command => json!({ "type": kind::COMMAND, "key": "command", "text": "command" }),
    }
}

/// Every command (`schemas/commands.json`) in the shape of `minimega -cli`: a list of handlers, each with `help_short`,
/// `help_long`, `patterns`, `shared_prefix` (the words that all of its patterns begin with) and `parsed_patterns`. What
/// follows those is megaform's own: `name`, `scope`, `columns` and `completions`.
pub fn commands_json() -> Value {
    let list = declarations().into_iter().map(|declaration| {
        let used = |name: &str| {
            declaration.patterns.iter().any(|p| p.contains(&format!("<{name}>")) || p.contains(&format!("[{name}]")))
        };
        let completions: Vec<_> = declaration.completions.iter().filter(|(name, _)| used(name)).collect();
        let parsed: Vec<Pattern> = declaration
            .patterns
            .iter()
            .map(|p| Pattern::parse(p).expect("a test checks that every pattern parses"))
            .collect();
        let items: Vec<Vec<Value>> = parsed.iter().map(|p| p.items.iter().map(element).collect()).collect();
        json!({
            "help_short": declaration.short,
            "help_long": declaration.long,
            "patterns": declaration.patterns,
            "shared_prefix": shared_prefix(&parsed),
            "parsed_patterns": items,
            "name": declaration.name,
            "scope": declaration.scope,
            "columns": declaration.columns,
            "completions": completions,
        })
    });
    Value::Array(list.collect())
}

/// The literal words that all patterns begin with.
fn shared_prefix(patterns: &[Pattern]) -> String {
    let words = |pattern: &Pattern| -> Vec<String> {
        let literals = pattern.items.iter().map_while(|item| match item {
            Item::Literal(word) => Some(word.to_string()),
            _ => None,
        });
        literals.collect()
    };
    let mut shared = patterns.first().map(words).unwrap_or_default();
    for pattern in patterns {
        let own = words(pattern);
        let same = shared.iter().zip(&own).take_while(|(a, b)| a == b).count();
        shared.truncate(same);
    }
    shared.join(" ")
}

/// The list of commands as it is checked in: one line for each key, so that a change shows as what it is.
pub fn commands_text() -> String {
    let commands = commands_json();
    let blocks = commands.as_array().into_iter().flatten().map(|command| {
        let keys = command.as_object().into_iter().flatten().map(|(key, value)| format!("    \"{key}\": {value}"));
        format!("  {{\n{}\n  }}", keys.collect::<Vec<_>>().join(",\n"))
    });
    format!("[\n{}\n]\n", blocks.collect::<Vec<_>>().join(",\n"))
}

/// The declarations of every command.
pub fn declarations() -> Vec<Declaration> {
    commands::all().into_iter().map(|command| command.declaration).collect()
}

/// Which of minimega 3.1.0's patterns the engine has, and which it has besides (`docs/patterns.md`). `known` is the list of
/// those patterns, one a line, commands separated by blank lines; `own` that of the others, with reasons as comments.
pub fn patterns(declarations: &[Declaration], known: &str, own: &str) -> String {
    let ours: BTreeSet<&str> = declarations.iter().flat_map(|d| &d.patterns).map(AsRef::as_ref).collect();
    let known: Vec<&str> =
        known.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let have = known.iter().filter(|pattern| ours.contains(*pattern)).count();
    let mut text = format!(
        "# Patterns of minimega 3.1.0\n\nGenerated; `MEGAFORM_UPDATE=1 cargo test --lib generate::` rewrites it. Of {} \
         patterns, the engine has {have}. A command that it does not have is an invalid command, never a placeholder.\n\n\
         | pattern | works |\n| --- | --- |\n",
        known.len(),
    );
    for pattern in known {
        let works = if ours.contains(pattern) { "yes" } else { "" };
        text.push_str(&format!("| `{}` | {works} |\n", pattern.replace('|', "\\|")));
    }
    text.push_str(
        "\n# Patterns of megaform's own\n\nWhat minimega's language cannot say. Scripts that use them do not run on minimega.\n\n\
         | pattern | why |\n| --- | --- |\n",
    );
    // A comment is the reason for the patterns below it, up to an empty line.
    for block in own.split("\n\n") {
        let lines = || block.lines().map(str::trim).filter(|line| !line.is_empty());
        let why: Vec<&str> = lines().filter_map(|line| line.strip_prefix('#')).map(str::trim).collect();
        for pattern in lines().filter(|line| ours.contains(line)) {
            text.push_str(&format!("| `{}` | {} |\n", pattern.replace('|', "\\|"), why.join(" ")));
        }
    }
    text
}

/// The part of the manual page that describes the command language, in roff.
pub fn manual(declarations: &[Declaration]) -> String {
    let escape = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('-', "\\-");
        // A line that begins with a dot or a quote would be a request.
        if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
    };
    let mut text = String::from(".SH COMMAND LANGUAGE\nWhat \\fBmegaform \\-e\\fR and the console take.\n");
    for declaration in declarations {
        text.push_str(&format!(".SS {}\n", escape(&declaration.name)));
        for pattern in &declaration.patterns {
            text.push_str(&format!(".br\n\\fB{}\\fR\n", escape(pattern).trim_start_matches("\\&")));
        }
        text.push_str(".PP\n");
        for line in declaration.long.lines() {
            match line.strip_prefix("    ") {
                Some(example) => text.push_str(&format!(".RS\n.nf\n{}\n.fi\n.RE\n", escape(example))),
                None if line.is_empty() => text.push_str(".PP\n"),
                None => text.push_str(&format!("{}\n", escape(line))),
            }
        }
    }
    text
}

/// A JSON file as it is checked in: indented, with a final newline.
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value is JSON");
    text.push('\n');
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Compare a generated file with what it should be, or write it.
    pub(in crate::generate) fn up_to_date(path: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("MEGAFORM_UPDATE").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} is stale: MEGAFORM_UPDATE=1 cargo test --lib generate:: rewrites it",
            path.display()
        );
    }

    #[test]
    fn the_list_of_commands_is_up_to_date() {
        up_to_date("schemas/commands.json", &commands_text());
        let read: Value = serde_json::from_str(&commands_text()).unwrap();
        assert_eq!(read, commands_json());
    }

    #[test]
    fn the_table_of_patterns_is_up_to_date() {
        let known = include_str!("../../tests/data/minimega-3.1.0-patterns.txt");
        let own = include_str!("../../tests/data/megaform-patterns.txt");
        up_to_date("docs/patterns.md", &patterns(&declarations(), known, own));
    }

    #[test]
    fn a_command_has_the_shape_of_minimega_cli() {
        let commands = commands_json();
        let found = |name: &str| commands.as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone();
        let launch = found("vm launch");
        assert_eq!(launch["shared_prefix"], "vm launch");
        let at = launch["patterns"]
            .as_array()
            .unwrap()
            .iter()
            .position(|p| p == "vm launch <kvm,> <name or count> [config]");
        assert_eq!(
            launch["parsed_patterns"][at.unwrap()],
            json!([
                { "type": 2, "text": "vm" },
                { "type": 2, "text": "launch" },
                { "type": 16, "text": "kvm,", "options": ["kvm"] },
                { "type": 8, "key": "name", "text": "name or count" },
                { "type": 9, "key": "config", "text": "config" },
            ])
        );
        assert_eq!(found(".csv")["parsed_patterns"][1][2]["type"], 4);
        assert_eq!(found("echo")["parsed_patterns"][0][1]["type"], 33);
    }
}
