//! Everything that is derived from the declarations: the list of commands and the schema of the experiment file.
//!
//! Must not state anything itself.

pub mod python;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::commands;
use crate::language::declaration::Declaration;

/// Every command with its patterns, help, scope, columns and completions (`schemas/commands.json`).
pub fn commands_json() -> Value {
    let list = commands::all().into_iter().map(|command| {
        let mut declaration = command.declaration;
        let used = |name: &str| {
            declaration.patterns.iter().any(|p| p.contains(&format!("<{name}>")) || p.contains(&format!("[{name}]")))
        };
        let completions = declaration.completions.iter().filter(|(name, _)| used(name)).cloned().collect();
        declaration.completions = completions;
        json!(declaration)
    });
    Value::Array(list.collect())
}

/// The declarations of every command.
pub fn declarations() -> Vec<Declaration> {
    commands::all().into_iter().map(|command| command.declaration).collect()
}

/// Which of minimega 3.1.0's patterns the engine has (`docs/patterns.md`). `known` is the list of those patterns, one a
/// line, commands separated by blank lines.
pub fn patterns(declarations: &[Declaration], known: &str) -> String {
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
        up_to_date("schemas/commands.json", &pretty(&commands_json()));
    }

    #[test]
    fn the_table_of_patterns_is_up_to_date() {
        let known = include_str!("../../tests/data/minimega-3.1.0-patterns.txt");
        up_to_date("docs/patterns.md", &patterns(&declarations(), known));
    }
}
