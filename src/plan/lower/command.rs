//! Raw commands: run once for each content, after everything else, and taken back before anything else goes.
//!
//! What they make cannot be observed, unless an entry has a check. What was run is remembered by the journal; without it
//! an entry is not known to have been run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::advice::{CommandAdvice, CommandLines, Mark};
use super::super::draft::{Draft, Extra};
use super::super::ownership::short_hash;
use super::super::{Action, Advice, Reason, StepId, Undo};
use super::{Lower, Scene, asked_for, not_in_the_file};
use crate::diagnostic::{Place, Spanned};
use crate::name::{self, Address, VmName};
use crate::spec::model::CommandEntry;

/// A digest of what is remembered of an entry; None if nothing is.
pub fn remembered(name: &str, advice: &Advice) -> Option<String> {
    advice.commands.get(name).map(|entry| short_hash(&format!("{entry:?}")))
}

/// What is to be done about one entry.
struct Work {
    name: String,
    change: usize,
    /// Lines that take it back, and the first of them that is to be sent.
    destroy: (Vec<String>, usize),
    /// Lines that make it, and the first of them that is to be sent.
    create: Option<(CommandLines, usize)>,
    /// Running `destroy` takes back what running `create` did, and no more.
    fresh: bool,
}

#[derive(Default)]
pub(super) struct Commands {
    work: Vec<Work>,
    /// The steps that take an entry back, by its name.
    removed: BTreeMap<String, Vec<StepId>>,
}

fn texts(lines: &[Spanned<String>]) -> Vec<String> {
    lines.iter().map(|line| line.value.clone()).collect()
}

fn lines(entry: &CommandEntry) -> CommandLines {
    let vm = |name: &Spanned<VmName>| name.value.to_string();
    CommandLines {
        create: texts(&entry.create),
        destroy: texts(&entry.destroy),
        depends_on: entry.depends_on.iter().map(vm).collect(),
    }
}

fn reason(field: impl Into<String>, old: Option<&str>, new: Option<&str>, place: Option<Place>) -> Reason {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Reason { field: field.into(), old: owned(old), new: owned(new), place, drift: false }
}

/// The lines of an entry that will be run.
fn parts(scene: &Scene<'_>, entry: &CommandEntry) -> Vec<Reason> {
    let named = |key: &'static str, lines: &[Spanned<String>]| -> Vec<Reason> {
        let lines = lines.iter().enumerate();
        lines.map(|(i, l)| reason(format!("{key}[{i}]"), None, Some(l.as_str()), scene.place(l.span))).collect()
    };
    let mut parts = named("create", &entry.create);
    parts.extend(named("destroy", &entry.destroy));
    parts
}

/// Which lines differ from those that were run.
fn edits(scene: &Scene<'_>, entry: &CommandEntry, old: &CommandLines) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (key, old, new) in [("create", &old.create, &entry.create), ("destroy", &old.destroy, &entry.destroy)] {
        for index in 0..old.len().max(new.len()) {
            let (was, is) = (old.get(index), new.get(index));
            if was.map(String::as_str) != is.map(|line| line.as_str()) {
                let place = is.and_then(|line| scene.place(line.span));
                let (was, is) = (was.map(String::as_str), is.map(|line| line.as_str()));
                reasons.push(reason(format!("{key}[{index}]"), was, is, place));
            }
        }
    }
    reasons
}

/// Lines of `destroy` that are still to be sent. An entry whose first line failed for certain made nothing.
fn left(entry: &CommandAdvice) -> (Vec<String>, usize) {
    let made = entry.created > 0 || entry.unknown || entry.destroyed.is_some();
    let lines = if made && !entry.is_taken_back() { entry.lines.destroy.clone() } else { Vec::new() };
    (lines, entry.destroyed.unwrap_or_default())
}

/// Why an entry that is as the file has it is to be run again, and from which line on; None if it is not.
fn again(
    scene: &Scene<'_>,
    draft: &Draft,
    entry: &CommandEntry,
    known: &CommandAdvice,
) -> Option<(Action, Vec<Reason>, usize)> {
    let place = scene.place(entry.span);
    if !scene.live.present {
        let old = "ran in a namespace that is gone";
        return Some((Action::Create, vec![reason("create", Some(old), Some("run again"), place)], 0));
    }
    if known.destroyed.is_some() {
        let (old, new) = match known.is_taken_back() {
            true => ("was run", "created anew"),
            false => ("was begun", "ended, then created anew"),
        };
        return Some((Action::Update, vec![reason("destroy", Some(old), Some(new), place)], 0));
    }
    let launched = entry.depends_on.iter().filter(|vm| {
        let vm = vm.as_str();
        draft.launched.contains(vm) || known.launched.iter().any(|launched| launched == vm)
    });
    let reasons: Vec<Reason> = launched
        .map(|vm| {
            let old = format!("ran before vm.{} is launched", vm.value);
            reason("depends_on", Some(&old), Some("run again"), scene.place(vm.span))
        })
        .collect();
    if !reasons.is_empty() {
        return Some((Action::Update, reasons, 0));
    }
    let check = entry.check.as_ref().and_then(|line| Some((line, scene.live.checks.get(line.as_str())?)));
    // Where there is a check, it knows better than a line that failed or was lost.
    if known.created < entry.create.len() && !matches!(check, Some((_, None))) {
        let old = match &known.error {
            Some(error) => format!("failed: {}", error.lines().next().unwrap_or_default()),
            None if known.unknown => "sent, and how it ended is not known".to_owned(),
            None => "not sent".to_owned(),
        };
        let line = &entry.create[known.created];
        let field = format!("create[{}]", known.created);
        let reasons = vec![reason(field, Some(&old), Some(line.as_str()), scene.place(line.span))];
        return Some((Action::Update, reasons, known.created));
    }
    if let Some((line, Some(error))) = check {
        let mut reason = reason("check", Some(error), Some("no error"), scene.place(line.span));
        reason.drift = true;
        return Some((Action::Restore, vec![reason], 0));
    }
    None
}

/// Note that the lines of an entry are not run, and why.
fn not_run(draft: &mut Draft, name: &str, lines: &[String], why: &str) {
    let lines: Vec<String> = lines.iter().map(|line| format!("`{line}`")).collect();
    draft.notes.push(format!("command.{name} {why}, so what takes it back is not run: {}", lines.join(", ")));
}

impl Commands {
    fn wanted(&mut self, scene: &Scene<'_>, draft: &mut Draft, name: &str, entry: &CommandEntry) {
        let address = Address { kind: name::Kind::Command, name: name.to_owned() };
        let place = scene.place(entry.span);
        let lines = lines(entry);
        let asked = scene.scope.replaces(name::Kind::Command, name);
        let none = (Vec::new(), 0);
        let (action, reasons, destroy, from, fresh) = match scene.options.advice.commands.get(name) {
            Some(known) if (&known.lines.create, &known.lines.destroy) != (&lines.create, &lines.destroy) => {
                (Action::Update, edits(scene, entry, &known.lines), left(known), 0, true)
            }
            Some(known) if asked => (Action::Replace, vec![asked_for()], left(known), 0, true),
            Some(known) => {
                let Some((action, mut reasons, from)) = again(scene, draft, entry, known) else {
                    draft.unchanged.push(address);
                    return;
                };
                if action == Action::Create {
                    reasons = parts(scene, entry);
                }
                let destroy = if known.destroyed.is_some() { left(known) } else { none };
                let fresh = action == Action::Create || known.destroyed.is_some();
                (action, reasons, destroy, from, fresh)
            }
            None => {
                let answer = entry.check.as_ref().and_then(|line| scene.live.checks.get(line.as_str()));
                let launched = entry.depends_on.iter().any(|vm| draft.launched.contains(vm.as_str()));
                if matches!(answer, Some(None)) && !launched && !asked {
                    draft.unchanged.push(address);
                    return;
                }
                let mut reasons = parts(scene, entry);
                match answer {
                    Some(Some(error)) => reasons.insert(0, reason("check", None, Some(error), None)),
                    None if scene.live.present => {
                        reasons.insert(0, reason("journal", None, Some("not known to have run"), None));
                    }
                    _ => {}
                }
                (Action::Create, reasons, none, 0, true)
            }
        };
        let change = draft.change(address, action, place, reasons, Vec::new());
        self.work.push(Work { name: name.to_owned(), change, destroy, create: Some((lines, from)), fresh });
    }

    /// Plan to take back what was run of an entry that is not wanted any more.
    fn unwanted(&mut self, scene: &Scene<'_>, draft: &mut Draft, name: &str, known: &CommandAdvice) {
        let declared = scene.experiment.commands.get(name);
        let destroy = left(known);
        if destroy.0.is_empty() {
            if !scene.destroy() && known.created > 0 && known.destroyed.is_none() {
                let sentence = "left the file and has no lines for `destroy`: what it made stays";
                draft.notes.push(format!("command.{name} {sentence}"));
            }
            return;
        }
        let address = Address { kind: name::Kind::Command, name: name.to_owned() };
        let reasons = if scene.destroy() { Vec::new() } else { not_in_the_file("commands") };
        let place = declared.and_then(|entry| scene.place(entry.span));
        let change = draft.change(address, Action::Destroy, place, reasons, Vec::new());
        self.work.push(Work { name: name.to_owned(), change, destroy, create: None, fresh: false });
    }

    /// Plan to take back an entry of the file of which nothing is remembered, if its check says that it is there.
    fn unremembered(&mut self, scene: &Scene<'_>, draft: &mut Draft, name: &str, entry: &CommandEntry) {
        if entry.destroy.is_empty() {
            return;
        }
        match entry.check.as_ref().map(|line| scene.live.checks.get(line.as_str())) {
            Some(Some(None)) => {
                let known = CommandAdvice { lines: lines(entry), created: 1, ..CommandAdvice::default() };
                self.unwanted(scene, draft, name, &known);
            }
            Some(_) => {}
            None => {
                not_run(draft, name, &texts(&entry.destroy), "is not known to have run");
            }
        }
    }
}

impl<'a> Lower<'a> for Commands {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let known = &scene.options.advice.commands;
        let has = |name: &str| scene.has(name::Kind::Command, name);
        if !scene.destroy() {
            for (name, entry) in scene.experiment.commands.iter().filter(|(name, _)| has(name.as_str())) {
                self.wanted(scene, draft, name.as_str(), entry);
            }
            for (name, entry) in known.iter().filter(|(name, _)| has(name)) {
                if !scene.experiment.commands.contains_key(name.as_str()) {
                    self.unwanted(scene, draft, name, entry);
                }
            }
        } else if scene.live.present {
            for (name, entry) in known.iter().filter(|(name, _)| has(name)) {
                self.unwanted(scene, draft, name, entry);
            }
            for (name, entry) in scene.experiment.commands.iter().filter(|(name, _)| has(name.as_str())) {
                if !known.contains_key(name.as_str()) {
                    self.unremembered(scene, draft, name.as_str(), entry);
                }
            }
        } else {
            for (name, entry) in known.iter().filter(|(name, entry)| has(name) && !left(entry).0.is_empty()) {
                not_run(draft, name, &entry.lines.destroy, "ran in a namespace that is gone");
            }
        }
        self.work.sort_by(|a, b| a.name.cmp(&b.name));
        for work in &self.work {
            for vm in work.create.iter().flat_map(|(lines, _)| &lines.depends_on) {
                draft.vms_needed.entry(vm.clone()).or_default().push(work.change);
            }
        }
    }

    fn remove(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        let mut before: Option<StepId> = None;
        for work in self.work.iter().rev() {
            let (lines, from) = &work.destroy;
            for (line, text) in lines.iter().enumerate().skip(*from) {
                let mark = Mark::Destroy { name: work.name.clone(), line, last: line + 1 == lines.len() };
                // One that fails does not keep the next from being tried.
                let extra = Extra { after: before.into_iter().collect(), mark: Some(mark), ..Extra::default() };
                let step = draft.line(&Arc::from([work.change]), text, extra);
                self.removed.entry(work.name.clone()).or_default().push(step);
                before = Some(step);
            }
        }
        draft.barrier = before;
    }

    fn build(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        if self.work.is_empty() {
            return;
        }
        // They may use the configuration that VMs are launched from, so nothing else is under way then.
        let mut after: Vec<StepId> = draft.last_steps();
        for work in &self.work {
            let Some((lines, from)) = &work.create else { continue };
            let mut needs: Vec<StepId> = self.removed.get(&work.name).cloned().unwrap_or_default();
            needs.extend(lines.depends_on.iter().filter_map(|vm| draft.vms_ready.get(vm)).flatten());
            needs.sort_unstable();
            needs.dedup();
            let mut undo = match &lines.destroy[..] {
                destroy if work.fresh && !destroy.is_empty() => {
                    let commands = destroy.iter().map(|line| draft.whole(line)).collect();
                    Undo::Lines { name: work.name.clone(), commands }
                }
                _ => Undo::Impossible,
            };
            let mut first = Some(lines.clone());
            for (line, text) in lines.create.iter().enumerate().skip(*from) {
                let mark = Mark::Create { name: work.name.clone(), line, lines: first.take() };
                // The first line's undo is that of all.
                let next = if undo == Undo::Impossible { Undo::Impossible } else { Undo::Nothing };
                let undo = std::mem::replace(&mut undo, next);
                let extra = Extra { needs, after, undo, mark: Some(mark), ..Extra::default() };
                let step = draft.line(&Arc::from([work.change]), text, extra);
                needs = vec![step];
                after = Vec::new();
            }
            after = needs;
        }
    }
}
