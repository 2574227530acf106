//! Whether the target has the commands of a plan, by what its help says of them. The forms that some releases lack are asked
//! for where they are planned; this is for releases that nobody foresaw.
//!
//! Refuses only what is certain: the help shows the forms of a command, and the planned one is none of them; or it tells of
//! other commands, and has no entry for this one. Must not know why a command was planned.

use std::collections::{BTreeMap, BTreeSet};

use super::{Mark, Plan, Step};
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::language::CompileError;
use crate::language::declaration::Declaration;
use crate::language::grammar::Grammar;
use crate::language::pattern::{Item, Pattern};
use crate::name::{Address, Kind};
use crate::spec::model::Experiment;

/// The first words of commands whose help shows all their forms together. Releases describe `vm config`, `capture`, `tap mirror`,
/// its `clear`, `plumb` and `pipe` in several entries, of which help may show one.
const HEADS: &[&str] = &[
    "bridge",
    "clear namespace",
    "clear qos",
    "clear vlans",
    "clear vm net bond",
    "clear vm tag",
    "dnsmasq",
    "dnsmasq configure",
    "nat",
    "ns",
    "qos",
    "tap create",
    "tap delete",
    "vlans",
    "vm cdrom",
    "vm flush",
    "vm hotplug",
    "vm kill",
    "vm launch",
    "vm net",
    "vm net bond",
    "vm serial",
    "vm start",
    "vm stop",
    "vm tag",
];

/// What begins the answer of a target that has no help for a command, where that is no error.
const NO_ENTRY: &str = "no help entry";

/// How much of a command a message shows, in characters.
const SHOWN: usize = 60;

/// A planned command inside of the namespace, and its first words; None for the user's own lines and those of other commands.
fn command<'p>(plan: &Plan, step: &'p Step) -> Option<(&'p str, &'static str)> {
    if step.mark.as_ref().is_some_and(Mark::is_raw) {
        return None;
    }
    let line = &step.command;
    let inside = line.strip_prefix("namespace ").and_then(|rest| rest.strip_prefix(plan.experiment.as_str()));
    let line = inside.and_then(|rest| rest.strip_prefix(' ')).unwrap_or(line);
    let begins = |head: &&&str| line.strip_prefix(**head).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    Some((line, HEADS.iter().filter(begins).max_by_key(|head| head.len())?))
}

/// The words whose help tells whether the target has the commands of a plan; for [`crate::live::learn`].
pub fn heads(plan: &Plan) -> BTreeSet<&'static str> {
    plan.steps.iter().filter_map(|step| Some(command(plan, step)?.1)).collect()
}

/// What a target's help says of a command.
enum Says {
    /// Its forms.
    Forms(Box<Grammar>),
    /// There is none.
    Nothing,
    /// Something else.
    Unclear,
}

fn says(head: &'static str, help: &str) -> Says {
    if help.trim().is_empty() || help.trim_start().starts_with(NO_ENTRY) {
        return Says::Nothing;
    }
    let words: Vec<&str> = head.split(' ').collect();
    let form = |line: &str| {
        // What a list says behind a form stands apart.
        let line = line.trim().split(['\t', '\n']).next()?.split("  ").next()?;
        let pattern = Pattern::parse(line).ok()?;
        let fixed = pattern.items.iter().map_while(|item| match item {
            Item::Literal(word) => Some(&**word),
            Item::Choice { words, optional: false, .. } if words.len() == 1 => Some(&*words[0]),
            _ => None,
        });
        let fits = fixed.take(words.len()).eq(words.iter().copied());
        fits.then(|| line.to_owned())
    };
    let forms: Vec<String> = help.lines().filter_map(form).collect();
    // A sentence may begin with the same words.
    if !forms.iter().any(|form| form.contains(['<', '['])) {
        return Says::Unclear;
    }
    let mut declaration = Declaration::new(head, &[], "a command", "");
    declaration.patterns = forms.into_iter().map(Into::into).collect();
    Grammar::new(&[declaration]).map_or(Says::Unclear, |grammar| Says::Forms(Box::new(grammar)))
}

/// Where an object stands in the file.
fn span(experiment: &Experiment, address: &Address) -> Option<Span> {
    let name = address.name.as_str();
    match address.kind {
        Kind::Vm => experiment.vms.get(name).map(|vm| vm.span),
        Kind::Tap => experiment.taps.get(name).map(|tap| tap.span),
        Kind::Vlan => experiment.vlans.get(name).map(|vlan| vlan.span),
        kind => experiment.of(kind).find(|(of, _)| *of == name).map(|(_, object)| object.span),
    }
}

/// What of a plan the target does not have, by the help for its [`heads`]: a problem for each of those, with its place where
/// there is an experiment file.
pub fn lacking(plan: &Plan, experiment: Option<&Experiment>, help: &BTreeMap<&'static str, String>) -> Vec<Diagnostic> {
    let asked = heads(plan).into_iter().filter_map(|head| Some((head, says(head, help.get(head)?))));
    let asked: BTreeMap<&str, Says> = asked.collect();
    let tells = asked.values().any(|says| matches!(says, Says::Forms(_)));
    let mut problems: BTreeMap<&str, Diagnostic> = BTreeMap::new();
    for step in &plan.steps {
        let Some((line, head)) = command(plan, step) else { continue };
        let lacks = match asked.get(head) {
            Some(Says::Forms(grammar)) => {
                matches!(grammar.compile(line), Err(CompileError::Invalid(invalid)) if !invalid.ambiguous)
            }
            Some(Says::Nothing) => tells,
            Some(Says::Unclear) | None => false,
        };
        if !lacks || problems.contains_key(head) {
            continue;
        }
        // One that stands in the file, if any does.
        let addresses = || step.serves.iter().map(|change| &plan.changes[*change].address);
        let placed = addresses().find_map(|address| Some((address, span(experiment?, address)?)));
        let address = placed.map(|(address, _)| address).or_else(|| addresses().next());
        let of = address.map_or_else(|| "the plan".to_owned(), Address::to_string);
        let mut shown: String = line.chars().take(SHOWN).collect();
        shown.push_str(if shown.len() < line.len() { " …" } else { "" });
        let message = format!("{of} takes `{shown}`, which the target does not have");
        let way = if plan.destroy { "remove it by hand" } else { "take this out of the file" };
        let hint = format!("its `help {head}` lists no such form: {way}, or use a newer release or megaform's engine");
        let problem = Diagnostic {
            severity: Severity::Error,
            code: "target-lacks",
            message,
            span: placed.map(|(_, span)| span),
            labels: Vec::new(),
            hint: Some(hint),
        };
        problems.insert(head, problem);
    }
    problems.into_values().collect()
}
