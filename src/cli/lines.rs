//! The raw commands of an experiment, held against the commands that megaform's own engine has.

use std::sync::Arc;

use foldhash::{HashSet, HashSetExt as _};

use crate::commands;
use crate::diagnostic::{Diagnostic, Spanned};
use crate::language::CompileError;
use crate::language::grammar::Grammar;
use crate::spec::model::Experiment;
use crate::spec::{refused_command, why_refused};

/// Warnings for lines that are no commands here: another minimega may have more. Errors for commands that are refused,
/// however they are spelled and whatever stands before them.
pub fn check(experiment: &Experiment) -> Vec<Diagnostic> {
    // VMs of one entry share their body.
    let mut seen = HashSet::new();
    let bodies = experiment.vms.values().map(|vm| &vm.body).filter(|body| seen.insert(Arc::as_ptr(body)));
    let waits: Vec<_> = bodies.filter_map(|body| body.wait_for.as_ref()?.command.as_ref()).collect();
    if experiment.commands.is_empty() && waits.is_empty() {
        return Vec::new();
    }
    let grammar = commands::grammar(&commands::all());
    let mut found: Vec<Diagnostic> =
        waits.into_iter().filter_map(|line| of_line(&grammar, line, "`command` of a `wait_for`")).collect();
    for (name, entry) in &experiment.commands {
        let create = entry.create.iter().map(|line| ("create", line));
        let destroy = entry.destroy.iter().map(|line| ("destroy", line));
        for (key, line) in create.chain(destroy).chain(entry.check.iter().map(|line| ("check", line))) {
            let at = format!("`{key}` of command `{name}`");
            found.extend(of_line(&grammar, line, &at));
        }
    }
    found
}

fn of_line(grammar: &Grammar, line: &Spanned<String>, at: &str) -> Option<Diagnostic> {
    let compiled = match grammar.compile(line) {
        Ok(compiled) => compiled?,
        Err(error) => {
            let hint = match &error {
                CompileError::Invalid(invalid) => invalid.advice(),
                other => other.to_string(),
            };
            let message = format!("{at} has the line `{}`, which is no command of megaform's engine", line.value);
            return Some(Diagnostic::warning("unknown-command", line.span, message).hint(hint));
        }
    };
    let mut at_command = Some(&compiled);
    while let Some(command) = at_command {
        let declaration = &grammar.declarations()[command.command];
        let mut words: Vec<&str> = declaration.name.split(' ').collect();
        words.extend(command.args.str("name"));
        if let Some(why) = why_refused(&words) {
            return Some(refused_command(line.span, at, line, why));
        }
        at_command = command.nested.as_deref();
    }
    None
}
