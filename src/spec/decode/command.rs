//! `commands`: lines of the command language as they are.

use std::collections::BTreeMap;

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::language::token;
use crate::name::CommandName;
use crate::spec::model::CommandEntry;
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, refused_command, shown};

/// The longest line, in bytes: with the namespace before it, a command stays below 4 KiB.
const LONGEST: usize = 4000;

/// Words that name a command which is refused, each with the shortest form that means no other command.
const SHORT: &[(&str, usize)] = &[("namespace", 2), ("quit", 2), ("read", 2), ("clear", 2), ("mesh", 2)];

impl Decoder<'_> {
    pub(super) fn commands(&mut self, node: &Node) -> BTreeMap<CommandName, CommandEntry> {
        let mut commands = BTreeMap::new();
        for (key, value) in self.named(node, "`commands`") {
            let owner = format!("command `{}`", shown(&key.text));
            let name = CommandName::new(&key.text).map_err(|error| self.bad_name(key.span, &error)).ok();
            let Some(entries) = self.section(value, &owner, &keys::names(keys::COMMAND)) else { continue };
            self.require(&entries, keys::COMMAND, key.span, &owner);
            let mut entry = CommandEntry {
                span: key.span,
                create: Vec::new(),
                destroy: Vec::new(),
                check: None,
                depends_on: Vec::new(),
            };
            for (key, _, node) in entries {
                let at = At { key, owner: &owner };
                match key {
                    "create" => {
                        if matches!(&node.value, Value::List(list) if list.is_empty()) {
                            let message = format!("{at} has no lines");
                            let hint = "give the commands that make it, or remove the entry";
                            self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
                        }
                        entry.create = self.lines(node, at);
                    }
                    "destroy" => entry.destroy = self.lines(node, at),
                    "check" => entry.check = self.line(node, at),
                    "depends_on" => entry.depends_on = self.vm_names(node, at).unwrap_or_default(),
                    other => unreachable!("`{other}` is not in the table of command keys"),
                }
            }
            if let Some(name) = name {
                commands.insert(name, entry);
            }
        }
        commands
    }

    /// Lines in order; one alone may stand without the list. Those that are refused are left out.
    fn lines(&mut self, node: &Node, at: At<'_>) -> Vec<Spanned<String>> {
        match &node.value {
            Value::List(list) => list.iter().filter_map(|item| self.line(item, at)).collect(),
            _ => self.line(node, at).into_iter().collect(),
        }
    }

    pub(super) fn line(&mut self, node: &Node, at: At<'_>) -> Option<Spanned<String>> {
        let Value::String(text) = &node.value else {
            self.wrong_type(node, at, "a command, such as \"vm tag fw role edge\"", true);
            return None;
        };
        let line = text.trim();
        if line.len() > LONGEST {
            let message = format!("{at} has a line of {} bytes, expected at most {LONGEST}", line.len());
            let hint = "split it into several commands";
            self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
            return None;
        }
        // What is fetched stands at the beginning of a word.
        if !self.carried(line, node.span, at) {
            return None;
        }
        let words = match token::tokenize(line) {
            Ok(words) => words,
            Err(error) => {
                let message = format!("{at} has the line `{}`: {error}", shown(line));
                let hint = "close quotes, and write `\\\\` for a backslash that is meant as itself";
                self.push(Diagnostic::error("invalid-command", node.span, message).hint(hint));
                return None;
            }
        };
        if words.is_empty() {
            let what = if line.is_empty() { "an empty line" } else { "a line that is only a comment" };
            let hint = "write a command, or remove the line";
            self.push(Diagnostic::error("empty-command", node.span, format!("{at} has {what}")).hint(hint));
            return None;
        }
        if !words.iter().all(|word| self.carried(&word.text, node.span, at)) {
            return None;
        }
        let words: Vec<&str> = words.iter().map(|word| full(&word.text)).collect();
        if let Some(why) = hidden(&words) {
            self.push(refused_command(node.span, &at.to_string(), line, why));
            return None;
        }
        Some(Spanned::new(line.to_owned(), node.span))
    }
}

/// A word of the language that is spelled short, in full.
fn full(word: &str) -> &str {
    let meant = SHORT.iter().find(|(full, least)| word.len() >= *least && full.starts_with(word));
    meant.map_or(word, |(full, _)| full)
}

/// Why a line is refused, if it is, through the commands that run another one.
fn hidden(words: &[&str]) -> Option<&'static str> {
    if let Some(why) = why_refused(words) {
        return Some(why);
    }
    match words {
        [first, _, rest @ ..] if first.starts_with('.') => hidden(rest),
        ["mesh", "send", _, rest @ ..] | ["ns", "run", rest @ ..] => hidden(rest),
        _ => None,
    }
}

/// Why a command must not stand in an experiment, given its words spelled in full; None if it may.
pub fn why_refused(words: &[&str]) -> Option<&'static str> {
    match words {
        ["namespace", _, ..] => Some("it would leave the experiment's namespace, in which every line is run"),
        ["clear", what, ..] if what.len() > 1 && "namespace".starts_with(what) => Some("it would end a namespace"),
        ["clear", what, ..] if what.len() > 1 && "all".starts_with(what) => {
            Some("it would remove what is not the experiment's")
        }
        ["quit", ..] => Some("it would end the daemon"),
        ["read", ..] => Some("a plan cannot show the commands that a script runs; write them as lines"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Format, NoFiles, parse};

    #[test]
    fn one_line_is_a_list_of_one_in_yaml_and_toml() {
        let yaml = "experiment: lab\nvms: { fw: {}, web: {} }\ncommands:\n  edge: { create: [' vm tag fw a \"b c\" '], destroy: clear vm tag fw a, check: echo x, depends-on: [web, fw] }\n";
        let toml = "experiment = 'lab'\nvms.fw = {}\nvms.web = {}\n[commands.edge]\ndestroy = ['clear vm tag fw a']\ncreate = 'vm tag fw a \"b c\"'\ncheck = 'echo x'\ndepends_on = ['fw', 'web']\n";
        let outline = |name, text, format| {
            let loaded = parse(name, text, format, &NoFiles);
            loaded.experiment.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics)).outline()
        };
        let outline_of_yaml = outline("lab.yaml", yaml, Format::Yaml);
        assert_eq!(outline_of_yaml, outline("lab.toml", toml, Format::Toml));
        assert!(outline_of_yaml.contains("command.edge.create.0 = vm tag fw a \"b c\"\n"), "{outline_of_yaml}");
    }

    #[test]
    fn entries_are_repeated_like_any_other() {
        let text = "experiment: lab\nvms: { fw: {} }\ncommands:\n  'mark-{{ each.key }}': { for_each: [a, b], create: 'vm tag fw {{ each.key }} yes', depends_on: fw }\n";
        let loaded = parse("lab.yaml", text, Format::Yaml, &NoFiles);
        let experiment = loaded.experiment.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
        let lines: Vec<_> = experiment.commands.iter().map(|(name, e)| format!("{name}: {}", *e.create[0])).collect();
        assert_eq!(lines, ["mark-a: vm tag fw a yes", "mark-b: vm tag fw b yes"]);
    }

    #[test]
    fn short_words_of_other_commands_are_let_through() {
        for line in ["clear vm config", "ns schedules", "mesh status", "vm net connect fw 0 lan", "clear n", "qos list"]
        {
            let words: Vec<&str> = line.split(' ').map(full).collect();
            assert_eq!(hidden(&words), None, "{line}");
        }
        for line in ["na other", "cl namesp x", "clear all", "rea x", "ns run quit", ".csv true .json true cl al"] {
            let words: Vec<&str> = line.split(' ').map(full).collect();
            assert!(hidden(&words).is_some(), "{line}");
        }
    }
}
