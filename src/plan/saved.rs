//! Plans as files: the text form of a plan, which is a minimega script, with structured comments that hold the rest of it.
//!
//! The first line names the version of the form and a checksum of all that follows. Comments that begin with `#@` are
//! records of a word and JSON; `#@+` goes on with the record before it, so that no line is long.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::advice::CommandAdvice;
use super::display::{Style, render_with};
use super::goal::{Goal, unmet};
use super::select::list;
use super::{Action, Advice, Change, Expect, Holds, Mark, Plan, Step, StepId, Undo, Verb};
use crate::language::range;
use crate::live::{Live, LiveObject, OTHERS, VmState, is_unset_pipe};
use crate::name::{Address, Kind, Namespace};

/// What the first line of a saved plan begins with.
pub const MAGIC: &str = "# megaform saved plan ";
/// The version of the form.
const FORMAT: &str = "1";
/// The longest line of a record, in bytes.
const LINE: usize = 4000;

/// Why a file cannot be used as a saved plan.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is of another version.
    #[error(
        "the plan is of form {found}, and this megaform reads form {FORMAT}; make it again with `megaform plan --out`"
    )]
    Version {
        /// The version that it names.
        found: String,
    },
    /// It was edited.
    #[error(
        "the plan was changed after it was made: its checksum does not match; make it again with `megaform plan --out`"
    )]
    Edited,
    /// It has a right checksum and makes no sense all the same.
    #[error("line {line} of the plan: {problem}")]
    Record {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// A plan from a file.
#[derive(Debug)]
pub struct Saved {
    /// The plan; its changes have neither reasons nor costs.
    pub plan: Plan,
    /// The socket that it was made against.
    pub target: PathBuf,
    /// The text without the records.
    pub text: String,
    /// The sensitive values in it.
    pub hidden: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    experiment: String,
    target: PathBuf,
    destroy: bool,
    partial: bool,
}

/// Changes of one kind and one goal.
#[derive(Serialize, Deserialize)]
struct Changes<'a> {
    action: Cow<'a, str>,
    addresses: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    renamed_from: Option<String>,
    goal: Cow<'a, Goal>,
}

/// Digests of what was there, and the addresses of what was not.
#[derive(Serialize, Deserialize)]
struct Guards {
    there: BTreeMap<String, String>,
    absent: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ExpectRecord {
    Answer,
    Vms { names: String, states: Vec<VmState> },
    Gone { names: String },
    Queued { names: String },
    Drained,
    Named { kind: Kind, key: String, id: String },
    Until { holds: Holds, timeout: u32 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UndoRecord {
    Nothing,
    Impossible,
    Remove(String),
    Unqueue(String),
    Start(String),
    Stop(String),
    Kill(String),
    Command(String),
    Commands(Vec<String>),
    Together { end: String, again: Vec<String> },
    Lines { name: String, commands: Vec<String> },
    Reconnect(String),
    Tunnel(String, String),
    Plumb(String, Vec<String>),
    Unplug(String, String),
    Rebind(String, u16),
}

#[derive(Serialize, Deserialize)]
struct StepRecord {
    id: StepId,
    serves: String,
    needs: String,
    after: String,
    undo: UndoRecord,
    expect: ExpectRecord,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mark: Option<Mark>,
}

fn names(names: &[String]) -> String {
    range::compress(names)
}

fn numbers(ids: &[StepId]) -> String {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    // Numbers alone are a prefix of nothing and their digits.
    if ids.is_empty() { String::new() } else { range::compress(&ids) }
}

impl StepRecord {
    fn of(plan: &Plan, step: &Step) -> Self {
        Self {
            id: step.id,
            serves: list(step.serves.iter().map(|i| &plan.changes[*i].address)),
            needs: numbers(&step.needs),
            after: numbers(&step.after),
            undo: match &step.undo {
                Undo::Nothing => UndoRecord::Nothing,
                Undo::Impossible => UndoRecord::Impossible,
                Undo::Remove(vms) => UndoRecord::Remove(names(vms)),
                Undo::Unqueue(vms) => UndoRecord::Unqueue(names(vms)),
                Undo::Act(Verb::Start, vms) => UndoRecord::Start(names(vms)),
                Undo::Act(Verb::Stop, vms) => UndoRecord::Stop(names(vms)),
                Undo::Act(Verb::Kill | Verb::Flush, vms) => UndoRecord::Kill(names(vms)),
                Undo::Command(command) => UndoRecord::Command(command.clone()),
                Undo::Commands(commands) => UndoRecord::Commands(commands.to_vec()),
                Undo::Together { end, again } => UndoRecord::Together { end: end.clone(), again: again.to_vec() },
                Undo::Lines { name, commands } => UndoRecord::Lines { name: name.clone(), commands: commands.to_vec() },
                Undo::Tunnel { bridge, tunnel } => UndoRecord::Tunnel(bridge.clone(), tunnel.clone()),
                Undo::Plumb { command, pipes } => UndoRecord::Plumb(command.clone(), pipes.to_vec()),
                Undo::Unplug { names: vms, file } => UndoRecord::Unplug(names(vms), file.clone()),
                Undo::Rebind(alias, tag) => UndoRecord::Rebind(alias.clone(), *tag),
                Undo::Reconnect(command) => UndoRecord::Reconnect(command.clone()),
            },
            expect: match &step.expect {
                Expect::Answer => ExpectRecord::Answer,
                Expect::Vms { names: vms, states } => ExpectRecord::Vms { names: names(vms), states: states.to_vec() },
                Expect::Gone { names: vms } => ExpectRecord::Gone { names: names(vms) },
                Expect::Queued { names: vms } => ExpectRecord::Queued { names: names(vms) },
                Expect::Drained => ExpectRecord::Drained,
                Expect::Named { kind, key, id } => {
                    ExpectRecord::Named { kind: *kind, key: key.clone(), id: id.clone() }
                }
                Expect::Until { holds, timeout } => ExpectRecord::Until { holds: holds.clone(), timeout: *timeout },
            },
            mark: step.mark.clone(),
        }
    }
}

/// A record as lines of bounded length.
fn record(out: &mut String, word: &str, value: &impl Serialize) {
    let json = serde_json::to_string(value).expect("records have only keys that are text");
    let mut rest = json.as_str();
    let mut lead = format!("#@ {word} ");
    loop {
        let mut end = rest.len().min(LINE);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        writeln!(out, "{lead}{}", &rest[..end]).expect("a string takes everything");
        rest = &rest[end..];
        if rest.is_empty() {
            return;
        }
        "#@+ ".clone_into(&mut lead);
    }
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::from("sha256:"), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes everything");
        out
    })
}

/// Write a plan that was made against the target of a socket.
/// `hidden` are the sensitive values in it, which are not shown when it is carried out.
pub fn write(plan: &Plan, target: &Path, hidden: &[&str]) -> String {
    let mut body = String::from("# `megaform apply FILE` carries it out; after an edit it is refused.\n");
    let head = Head {
        experiment: plan.experiment.to_string(),
        target: target.to_owned(),
        destroy: plan.destroy,
        partial: plan.partial,
    };
    let mut records = String::new();
    record(&mut records, "plan", &head);
    if !hidden.is_empty() {
        record(&mut records, "hidden", &hidden);
    }
    // Neighbours of one goal go together; renamed objects stand alone, with what they were.
    let alike = |a: &Change, b: &Change| {
        a.action == b.action
            && a.address.kind == b.address.kind
            && a.renamed_from.is_none()
            && b.renamed_from.is_none()
            && (Arc::ptr_eq(&a.goal, &b.goal) || a.goal == b.goal)
    };
    for group in plan.changes.chunk_by(alike) {
        let changes = Changes {
            action: group[0].action.word().into(),
            addresses: list(group.iter().map(|c| &c.address)),
            renamed_from: group[0].renamed_from.as_ref().map(ToString::to_string),
            goal: Cow::Borrowed(&*group[0].goal),
        };
        record(&mut records, "changes", &changes);
    }
    let (there, absent): (Vec<&Change>, Vec<&Change>) = plan.changes.iter().partition(|c| c.guard.is_some());
    let guards = Guards {
        there: there.iter().map(|c| (c.address.to_string(), c.guard.clone().unwrap_or_default())).collect(),
        absent: list(absent.iter().map(|c| &c.address)),
    };
    record(&mut records, "guards", &guards);
    let shown = target.to_string_lossy();
    let style = Style { target: &shown, colour: false, verbose: false };
    let annotate = |step: &Step| {
        let mut text = String::new();
        record(&mut text, "step", &StepRecord::of(plan, step));
        text
    };
    let shown = render_with(plan, style, &annotate);
    if plan.steps.is_empty() {
        // What says that there is nothing to do is no command.
        for line in shown.lines() {
            let sign = if line.starts_with('#') { "" } else { "# " };
            writeln!(body, "{sign}{line}").expect("a string takes everything");
        }
    } else {
        body.push_str(&shown);
    }
    body.push_str(&records);
    format!("{MAGIC}{FORMAT} {}\n{body}", checksum(&body))
}

/// Whether a text begins as a saved plan does.
pub fn is_saved(beginning: &[u8]) -> bool {
    beginning.starts_with(MAGIC.as_bytes())
}

/// Read a saved plan.
pub fn read(text: &str) -> Result<Saved, SavedError> {
    let (first, body) = text.split_once('\n').ok_or(SavedError::Edited)?;
    let rest = first.strip_prefix(MAGIC).ok_or(SavedError::Edited)?;
    let (version, sum) = rest.split_once(' ').ok_or(SavedError::Edited)?;
    if version != FORMAT {
        return Err(SavedError::Version { found: version.to_owned() });
    }
    if sum != checksum(body) {
        return Err(SavedError::Edited);
    }
    let mut reader = Reader::default();
    // The first line is line 1.
    for (index, line) in body.lines().enumerate() {
        reader.line(index + 2, line)?;
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    text: String,
    hidden: Vec<String>,
    /// The record that is being read: its line, its word and its JSON.
    open: Option<(usize, String, String)>,
    head: Option<Head>,
    changes: Vec<Change>,
    by_address: HashMap<Address, usize>,
    /// Step records and commands, in turn.
    steps: Vec<(usize, StepRecord, Option<String>)>,
    guards: Option<Guards>,
}

fn bad(line: usize, problem: impl std::fmt::Display) -> SavedError {
    SavedError::Record { line, problem: problem.to_string() }
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), SavedError> {
        if let Some(more) = line.strip_prefix("#@+ ") {
            let (_, _, json) = self.open.as_mut().ok_or_else(|| bad(number, "nothing to go on with"))?;
            json.push_str(more);
            return Ok(());
        }
        self.close()?;
        if let Some(rest) = line.strip_prefix("#@ ") {
            let (word, json) = rest.split_once(' ').ok_or_else(|| bad(number, "no record"))?;
            self.open = Some((number, word.to_owned(), json.to_owned()));
            return Ok(());
        }
        self.text.push_str(line);
        self.text.push('\n');
        if !line.starts_with('#') && !line.is_empty() {
            let step = self.steps.last_mut().filter(|(_, _, command)| command.is_none());
            step.ok_or_else(|| bad(number, "a command without its record"))?.2 = Some(line.to_owned());
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), SavedError> {
        let Some((line, word, json)) = self.open.take() else { return Ok(()) };
        let error = |error: serde_json::Error| bad(line, error);
        match word.as_str() {
            "hidden" => self.hidden = serde_json::from_str(&json).map_err(error)?,
            "plan" => self.head = Some(serde_json::from_str(&json).map_err(error)?),
            "guards" => self.guards = Some(serde_json::from_str(&json).map_err(error)?),
            "step" => self.steps.push((line, serde_json::from_str(&json).map_err(error)?, None)),
            "changes" => {
                let record: Changes<'_> = serde_json::from_str(&json).map_err(error)?;
                self.changes(line, record)?;
            }
            other => return Err(bad(line, format!("no such record, {other}"))),
        }
        Ok(())
    }

    fn changes(&mut self, line: usize, record: Changes<'_>) -> Result<(), SavedError> {
        let actions = [Action::Create, Action::Update, Action::Replace, Action::Destroy, Action::Restore];
        let action = actions.into_iter().find(|a| a.word() == record.action).ok_or_else(|| bad(line, "no action"))?;
        let former = record.renamed_from.map(|text| addresses(line, &text)).transpose()?;
        let goal = Arc::new(record.goal.into_owned());
        for address in addresses(line, &record.addresses)? {
            self.by_address.insert(address.clone(), self.changes.len());
            self.changes.push(Change {
                address,
                action,
                place: None,
                reasons: Vec::new(),
                costs: Vec::new(),
                steps: Vec::new(),
                renamed_from: former.as_ref().and_then(|former| former.first().cloned()),
                goal: goal.clone(),
                guard: None,
            });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Saved, SavedError> {
        self.close()?;
        let head = self.head.ok_or_else(|| bad(1, "no record of the plan"))?;
        let experiment = Namespace::new(&head.experiment).map_err(|error| bad(1, error))?;
        let guards = self.guards.ok_or_else(|| bad(1, "no record of the guards"))?;
        for (address, guard) in guards.there {
            for address in addresses(1, &address)? {
                let index = self.by_address.get(&address).ok_or_else(|| bad(1, "a guard of what does not change"))?;
                self.changes[*index].guard = Some(guard.clone());
            }
        }
        let mut steps = Vec::with_capacity(self.steps.len());
        for (line, record, command) in self.steps {
            let command = command.ok_or_else(|| bad(line, "no command follows"))?;
            if record.id != steps.len() + 1 {
                return Err(bad(line, "the steps are not in order"));
            }
            let index = |address: &Address| {
                self.by_address.get(address).copied().ok_or_else(|| bad(line, format!("{address} does not change")))
            };
            let serves: Vec<usize> = addresses(line, &record.serves)?.iter().map(index).collect::<Result<_, _>>()?;
            for change in &serves {
                self.changes[*change].steps.push(record.id);
            }
            let vms = |text: &str| expanded(line, text).map(Arc::from);
            let earlier = |text: &str| -> Result<Vec<StepId>, SavedError> {
                let ids = expanded(line, text)?;
                let ids: Option<Vec<StepId>> =
                    ids.iter().map(|id| id.parse().ok().filter(|id| (1..record.id).contains(id))).collect();
                ids.ok_or_else(|| bad(line, "a step that is not before it"))
            };
            steps.push(Step {
                id: record.id,
                command,
                serves: serves.into(),
                needs: earlier(&record.needs)?,
                after: earlier(&record.after)?,
                undo: match &record.undo {
                    UndoRecord::Nothing => Undo::Nothing,
                    UndoRecord::Impossible => Undo::Impossible,
                    UndoRecord::Remove(names) => Undo::Remove(vms(names)?),
                    UndoRecord::Unqueue(names) => Undo::Unqueue(vms(names)?),
                    UndoRecord::Start(names) => Undo::Act(Verb::Start, vms(names)?),
                    UndoRecord::Stop(names) => Undo::Act(Verb::Stop, vms(names)?),
                    UndoRecord::Kill(names) => Undo::Act(Verb::Kill, vms(names)?),
                    UndoRecord::Command(command) => Undo::Command(command.clone()),
                    UndoRecord::Commands(commands) => Undo::Commands(commands.as_slice().into()),
                    UndoRecord::Together { end, again } => {
                        Undo::Together { end: end.clone(), again: again.as_slice().into() }
                    }
                    UndoRecord::Lines { name, commands } => {
                        Undo::Lines { name: name.clone(), commands: commands.as_slice().into() }
                    }
                    UndoRecord::Tunnel(bridge, tunnel) => {
                        Undo::Tunnel { bridge: bridge.clone(), tunnel: tunnel.clone() }
                    }
                    UndoRecord::Plumb(command, pipes) => {
                        Undo::Plumb { command: command.clone(), pipes: pipes.as_slice().into() }
                    }
                    UndoRecord::Unplug(names, file) => Undo::Unplug { names: vms(names)?, file: file.clone() },
                    UndoRecord::Rebind(alias, tag) => Undo::Rebind(alias.clone(), *tag),
                    UndoRecord::Reconnect(command) => Undo::Reconnect(command.clone()),
                },
                guard: None,
                expect: match record.expect {
                    ExpectRecord::Answer => Expect::Answer,
                    ExpectRecord::Vms { names, states } => Expect::Vms { names: vms(&names)?, states: states.into() },
                    ExpectRecord::Gone { names } => Expect::Gone { names: vms(&names)? },
                    ExpectRecord::Queued { names } => Expect::Queued { names: vms(&names)? },
                    ExpectRecord::Drained => Expect::Drained,
                    ExpectRecord::Named { kind, key, id } => Expect::Named { kind, key, id },
                    ExpectRecord::Until { holds, timeout } => Expect::Until { holds, timeout },
                },
                mark: record.mark,
            });
        }
        let plan = Plan {
            experiment,
            destroy: head.destroy,
            partial: head.partial,
            drift_only: false,
            changes: self.changes,
            steps,
            unchanged: Vec::new(),
            unmanaged: Vec::new(),
            learn: BTreeSet::new(),
            notes: Vec::new(),
        };
        Ok(Saved { plan, target: head.target, text: self.text, hidden: self.hidden })
    }
}

fn expanded(line: usize, text: &str) -> Result<Vec<String>, SavedError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    range::expand(text).map_err(|error| bad(line, error))
}

/// The reverse of [`list`].
fn addresses(line: usize, text: &str) -> Result<Vec<Address>, SavedError> {
    let mut all = Vec::new();
    for part in text.split(", ").filter(|part| !part.is_empty()) {
        let (kind, names) = part.split_once('.').ok_or_else(|| bad(line, format!("`{part}` is no address")))?;
        let kind = Kind::from_word(kind).ok_or_else(|| bad(line, "no such kind"))?;
        all.extend(expanded(line, names)?.into_iter().map(|name| Address { kind, name }));
    }
    Ok(all)
}

impl Saved {
    /// What is no longer as it was when the plan was made, of what the plan touches: a sentence each.
    pub fn moved(&self, live: &Live) -> Vec<String> {
        let mut moved = Vec::new();
        for change in &self.plan.changes {
            if change.is_as_before(live) {
                continue;
            }
            let was = change.was();
            let sentence = match (&change.guard, change.observed(live)) {
                (Some(_), None) => format!("{was} was there and is gone"),
                (Some(then), Some(now)) if *then != now => format!("{was} changed"),
                _ => format!("{} was not there and is now", change.address),
            };
            moved.push(sentence);
        }
        // The last step of a destroy takes everything with it.
        if self.clears_namespace() {
            let known: HashSet<(Kind, &String)> =
                self.plan.changes.iter().map(|c| (c.was().kind, &c.was().name)).collect();
            let vms = live.vms.keys().map(|name| (Kind::Vm, name));
            let others = vms.chain(live.taps.keys().map(|name| (Kind::Tap, name)));
            moved.extend(
                others
                    .filter(|other| !known.contains(other))
                    .map(|(kind, name)| format!("{kind}.{name} was not there and would go with the namespace")),
            );
            moved.extend(
                self.objects_since(live).map(|other| format!("{other} was not there and would go with the namespace")),
            );
            let (_, queued) = super::ownership::waiting(&self.plan.experiment, &live.placement.queue);
            let queued = (!queued.is_empty()).then(|| range::compress(&queued));
            moved.extend(queued.map(|names| format!("vm.{names} waits in the queue and would go with the namespace")));
        }
        moved
    }

    /// Ways out, pipelines and pipes of others that keep a namespace and that the plan does not know.
    fn objects_since<'l>(&self, live: &'l Live) -> impl Iterator<Item = Address> + 'l {
        let key = |change: &Change| match &*change.goal {
            Goal::Object { key, .. } => Some((change.address.kind, key.clone())),
            _ => None,
        };
        let known: HashSet<(Kind, String)> = self.plan.changes.iter().filter_map(key).collect();
        let counts = |kind: Kind, object: &LiveObject| match kind {
            Kind::Nat | Kind::Plumbing => true,
            // Pipelines leave pipes behind that are as good as none.
            Kind::Pipe => !is_unset_pipe(&object.facts) || object.facts.contains_key(OTHERS),
            _ => false,
        };
        let all = live.objects.iter().flat_map(|(kind, of)| of.iter().map(|(key, object)| (*kind, key, object)));
        all.filter(move |(kind, key, object)| counts(*kind, object) && !known.contains(&(*kind, (*key).clone())))
            .map(|(kind, key, _)| Address::new(kind, key))
    }

    /// Entries of raw commands of which something else is remembered than when the plan was made: a sentence each.
    pub fn moved_commands(&self, advice: &Advice) -> Vec<String> {
        let commands = self.plan.changes.iter().filter(|change| change.address.kind == Kind::Command);
        let moved = commands.filter(|change| change.guard != super::lower::remembered(&change.address.name, advice));
        moved.map(|change| format!("{} was run or taken back since", change.address)).collect()
    }

    /// Whether its raw commands were run, by what is remembered; nothing can be observed of them.
    pub fn commands_met(&self, advice: &Advice) -> bool {
        let made = |name: &str| {
            self.plan.steps.iter().any(|step| matches!(&step.mark, Some(Mark::Create { name: n, .. }) if n == name))
        };
        self.plan.steps.iter().all(|step| match &step.mark {
            None | Some(Mark::Make { .. } | Mark::Unmake { .. }) => true,
            Some(Mark::Create { name, line, lines }) => advice.commands.get(name).is_some_and(|entry| {
                let same = lines.as_ref().is_none_or(|lines| entry.lines == *lines);
                same && entry.created > *line && entry.destroyed.is_none()
            }),
            Some(Mark::Destroy { name, .. }) => {
                made(name) || advice.commands.get(name).is_none_or(CommandAdvice::is_taken_back)
            }
        })
    }

    /// Whether something is to be made anew that is still as it was when the plan was made, however well it fits its goal.
    pub fn makes_anew(&self, live: &Live) -> bool {
        let mut replaced = self.plan.changes.iter().filter(|change| change.action == Action::Replace);
        replaced.any(|change| change.guard.is_some() && change.is_as_before(live))
    }

    /// Whether it ends the namespace with all that is in it.
    pub fn clears_namespace(&self) -> bool {
        self.plan.steps.iter().any(|step| step.command.starts_with("clear namespace "))
    }

    /// What is not as the plan makes it: a sentence each.
    pub fn unmet(&self, live: &Live) -> Vec<String> {
        let mut said = Vec::new();
        for change in &self.plan.changes {
            let of = unmet(&change.goal, &change.address, live);
            said.extend(of.into_iter().map(|text| format!("{} {text}", change.address)));
            let former = change.renamed_from.iter().flat_map(|old| unmet(&Goal::Gone, old, live));
            said.extend(former.map(|text| format!("{} {text}", change.address)));
        }
        said
    }
}
