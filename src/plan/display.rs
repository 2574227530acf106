//! The text form of a plan: a minimega script whose comments say what changes and why.
//!
//! Equal changes are shown once, with their addresses as a range, so that a plan for many VMs stays readable. Before
//! the commands of each change stands what they do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};

use super::select::list;
use super::{Action, Change, Cost, Expect, Plan, Reason, Step};
use crate::language::range;

/// How to show a plan.
#[derive(Debug, Clone, Copy)]
pub struct Style<'a> {
    /// The target as the user names it.
    pub target: &'a str,
    /// Colour it with ANSI escapes.
    pub colour: bool,
    /// Say for each command what it needs and how it is taken back.
    pub verbose: bool,
}

/// Stands for the former names of renamed objects until a group of them is complete. No value has it: control
/// characters are escaped.
const FORMER: char = '\u{1}';

const RESET: &str = "\x1b[0m";

fn colour_of(action: Action) -> &'static str {
    match action {
        Action::Create => "\x1b[32m",
        Action::Update | Action::Restore => "\x1b[33m",
        Action::Replace => "\x1b[35m",
        Action::Destroy => "\x1b[31m",
    }
}

/// What is shown of a change besides its address; equal texts are shown once.
fn body(change: &Change) -> String {
    let mut text = String::new();
    let _infallible = write_body(&mut text, change);
    text
}

fn write_body(text: &mut String, change: &Change) -> std::fmt::Result {
    write!(text, " {}", change.action.word())?;
    if change.renamed_from.is_some() {
        write!(text, ", renamed from {FORMER}")?;
    }
    if let Some(place) = &change.place {
        write!(text, "  ({}:{})", place.file, place.line)?;
    }
    text.push('\n');
    if change.action == Action::Create {
        // What it will be, on one line; each value's place is in the JSON form.
        for (index, reason) in change.reasons.iter().enumerate() {
            text.push_str(if index == 0 { "#       " } else { "; " });
            text.push_str(&printable(&reason.field));
            text.push_str(": ");
            text.push_str(&printable(reason.new.as_deref().unwrap_or_default()));
        }
        if !change.reasons.is_empty() {
            text.push('\n');
        }
        return Ok(());
    }
    for reason in &change.reasons {
        // What was changed by others is told from an edit of the file, where one object has both.
        let drift = if reason.drift && change.action != Action::Restore { "≠ " } else { "" };
        writeln!(text, "#       {drift}{}", reason_text(reason, change.action))?;
    }
    if !change.costs.is_empty() {
        let words = |cost: &Cost| match (cost, change.action) {
            (Cost::CaptureRestarted, Action::Destroy) => "the capture ends",
            (Cost::MirrorEnds, Action::Destroy) => "the mirror ends",
            (cost, _) => cost.words(),
        };
        let words: Vec<&str> = change.costs.iter().map(words).collect();
        writeln!(text, "#       cost: {}", words.join(", "))?;
    }
    Ok(())
}

/// One reason on one line: the field, what it is, what it is to be, and where the file says so.
pub fn reason_text(reason: &Reason, action: Action) -> String {
    let mut text = format!("{}: ", printable(&reason.field));
    text.push_str(&match (&reason.old, &reason.new) {
        (Some(old), Some(new)) => format!("{} -> {}", printable(old), printable(new)),
        (None, Some(new)) => format!("nothing -> {}", printable(new)),
        (Some(old), None) => format!("{} -> nothing", printable(old)),
        (None, None) if action == Action::Destroy => "not in the file".to_owned(),
        (None, None) => "asked for".to_owned(),
    });
    if let Some(place) = &reason.place {
        text.push_str(&format!("  ({}:{})", place.file, place.line));
    }
    text
}

/// A value on one line of a terminal: control characters are escaped, so that a live object cannot forge a line.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed("(empty)");
    }
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_control() {
            out.extend(c.escape_default())
        } else {
            out.push(c)
        }
        out
    });
    Cow::Owned(escaped)
}

/// What the commands that serve these changes do, such as `destroy vm.web0; replace vm.fw`.
pub(super) fn heading(plan: &Plan, serves: &[usize]) -> String {
    if serves.is_empty() {
        return "at the end".to_owned();
    }
    let mut groups: BTreeMap<Action, Vec<usize>> = BTreeMap::new();
    for index in serves {
        groups.entry(plan.changes[*index].action).or_default().push(*index);
    }
    let groups: Vec<String> = groups
        .into_iter()
        .map(|(action, changes)| format!("{} {}", action.word(), addresses(plan, &changes)))
        .collect();
    groups.join("; ")
}

/// The addresses of changes, given as indices, with names as ranges: `tap.mgmt, vm.web[0-2]`.
pub fn addresses(plan: &Plan, changes: &[usize]) -> String {
    let mut kinds: BTreeMap<crate::name::Kind, Vec<&str>> = BTreeMap::new();
    for index in changes {
        let address = &plan.changes[*index].address;
        kinds.entry(address.kind).or_default().push(&address.name);
    }
    let kinds: Vec<String> =
        kinds.into_iter().map(|(kind, names)| format!("{kind}.{}", range::compress(&names))).collect();
    kinds.iter().map(|text| printable(text)).collect::<Vec<_>>().join(", ")
}

/// The last line: how many objects change in which way, and how many commands that takes.
pub fn summary(plan: &Plan) -> String {
    if plan.drift_only {
        let n = plan.changes.len();
        return format!("Drift: {n} object{} changed since it was applied", if n == 1 { "" } else { "s" });
    }
    let mut text = format!(
        "Plan: {} to create, {} to update, {} to replace, {} to destroy",
        plan.count(Action::Create),
        plan.count(Action::Update),
        plan.count(Action::Replace),
        plan.count(Action::Destroy)
    );
    let restore = plan.count(Action::Restore);
    if restore > 0 {
        text.push_str(&format!(", {restore} to restore"));
    }
    let n = plan.steps.len();
    text.push_str(&format!("; {n} command{}", if n == 1 { "" } else { "s" }));
    text
}

/// A line for each kind of what is as it is to be.
fn unchanged(plan: &Plan) -> Vec<String> {
    let mut kinds: BTreeMap<crate::name::Kind, Vec<&str>> = BTreeMap::new();
    for address in &plan.unchanged {
        kinds.entry(address.kind).or_default().push(&address.name);
    }
    let kinds = kinds.into_iter();
    kinds.map(|(kind, names)| format!("#   = {kind}.{} unchanged", printable(&range::compress(&names)))).collect()
}

/// The whole text, with a final newline.
pub fn render(plan: &Plan, style: Style<'_>) -> String {
    render_with(plan, style, &|_| String::new())
}

/// The same with lines of the caller's own before each command.
pub fn render_with(plan: &Plan, style: Style<'_>, before: &dyn Fn(&Step) -> String) -> String {
    let mut out = String::new();
    let reset = if style.colour { RESET } else { "" };
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    if plan.is_empty() {
        for note in &plan.notes {
            line(&format!("# note: {}", printable(note)));
        }
        for text in style.verbose.then(|| unchanged(plan)).into_iter().flatten() {
            line(&text);
        }
        let name = &plan.experiment;
        line(&match (plan.drift_only, plan.destroy, plan.partial) {
            (true, ..) => format!("No drift. Nothing of {name} was changed since it was applied."),
            (false, true, false) => format!("No changes. Nothing of {name} is there."),
            (false, true, true) => format!("No changes. Nothing of what is selected of {name} is there."),
            (false, false, false) => format!("No changes. {name} matches its file."),
            (false, false, true) => format!("No changes. What is selected of {name} matches its file."),
        });
        return out;
    }
    line(&format!("# megaform plan: experiment {}, target {}", plan.experiment, printable(style.target)));
    let mut groups: Vec<(&Change, &str, Vec<&str>, Vec<&crate::name::Address>)> = Vec::new();
    let mut by_body: HashMap<(crate::name::Kind, &str), usize> = HashMap::new();
    let bodies: Vec<String> = plan.changes.iter().map(body).collect();
    for (change, body) in plan.changes.iter().zip(&bodies) {
        let index = *by_body.entry((change.address.kind, body)).or_insert(groups.len());
        if index == groups.len() {
            groups.push((change, body, Vec::new(), Vec::new()));
        }
        groups[index].2.push(&change.address.name);
        groups[index].3.extend(&change.renamed_from);
    }
    let (drift, edits): (Vec<_>, Vec<_>) =
        groups.iter().partition(|(change, ..)| plan.drift_only || change.action == Action::Restore);
    if !edits.is_empty() {
        line("#");
    }
    let first_of_drift = edits.len();
    for (index, (change, body, names, former)) in edits.into_iter().chain(drift).enumerate() {
        if index == first_of_drift {
            line("#");
            line("# drift (no edit of the file):");
        }
        let colour = if style.colour { colour_of(change.action) } else { "" };
        let sign = change.action.sign();
        let names = range::compress(names);
        let mut text = Cow::Borrowed(body.trim_end());
        if !former.is_empty() {
            text = Cow::Owned(text.replace(FORMER, &printable(&list(former.iter().copied()))));
        }
        line(&format!("#{colour} {sign:>3} {}.{names}{reset}{text}", change.address.kind));
    }
    for text in style.verbose.then(|| unchanged(plan)).into_iter().flatten() {
        line(&text);
    }
    line("#");
    for note in &plan.notes {
        line(&format!("# note: {}", printable(note)));
    }
    let mut serves: Option<&[usize]> = None;
    for step in &plan.steps {
        if serves != Some(&step.serves) {
            let clears = step.command.starts_with("clear namespace ") && !step.serves.is_empty();
            let whole = if clears { "at the end, with the namespace: " } else { "" };
            let more = step.serves.is_empty() && plan.steps[step.id - 1..].iter().any(|later| !later.serves.is_empty());
            let heading = if more { "then".to_owned() } else { heading(plan, &step.serves) };
            line(&format!("# -- {whole}{heading}"));
            serves = Some(&step.serves);
        }
        if style.verbose {
            let list = |ids: &[usize]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let mut about = format!("# step {}", step.id);
            for (word, ids) in [("needs", &step.needs), ("after", &step.after)] {
                if !ids.is_empty() {
                    about.push_str(&format!("; {word} {}", list(ids)));
                }
            }
            match step.undo.commands(&plan.experiment) {
                None => about.push_str("; cannot be taken back"),
                Some(undo) if undo.is_empty() => {}
                Some(undo) => about.push_str(&format!("; undo: {}", undo.join("; "))),
            }
            line(&about);
        }
        if let Expect::Until { timeout, .. } = &step.expect {
            let what = step.expect.wanted();
            line(&format!(
                "# asked until {what}, for at most {}",
                humantime::format_duration(Duration::from_secs(u64::from(*timeout)))
            ));
        }
        if step.expect == Expect::Drained {
            line("# sent only where something of the experiment is left in the queue, and nothing of others");
        }
        let own = before(step);
        if !own.is_empty() {
            line(own.trim_end());
        }
        line(&step.command);
    }
    line(&format!("# {}", summary(plan)));
    out
}
