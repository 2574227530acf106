//! From what is wanted and what is running to an ordered list of minimega commands.
//!
//! Pure: no clock, no I/O, no randomness; everything that reaches output is sorted, so the same inputs give the same
//! bytes. Must not know how commands are sent. One kind of object is one file in `lower`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::diagnostic::{Diagnostic, Place, SourceMap};
use crate::graph::Graph;
use crate::language::range;
use crate::live::{Live, VmState};
use crate::name::{Address, Kind, Namespace};
use crate::spec::model::Experiment;

pub mod advice;
pub mod display;
mod draft;
pub mod goal;
mod json;
mod lower;
pub mod ownership;
pub mod picture;
pub mod saved;
pub mod select;

#[cfg(test)]
pub(crate) mod tests;

pub use advice::{Advice, Made, Mark, TapAdvice};
pub use goal::Goal;
pub use select::{Selection, Selector};

/// What is to happen to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is missing.
    Create,
    /// It changes while it runs.
    Update,
    /// It is removed and made again.
    Replace,
    /// It is removed.
    Destroy,
    /// It matches what was applied before, but was changed or ended since, and is brought back.
    Restore,
}

impl Action {
    /// The word as plans print it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Destroy => "destroy",
            Self::Restore => "restore",
        }
    }

    /// The sign before an address.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Create => "+",
            Self::Update => "~",
            Self::Replace => "-/+",
            Self::Destroy => "-",
            Self::Restore => "≠",
        }
    }
}

/// Why an object changes: one field, what it is and what it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The path of the field, such as `networks[0].vlan`.
    pub field: String,
    /// What was observed; None where there is nothing or it is unknown.
    pub old: Option<String>,
    /// What is wanted; None where nothing is.
    pub new: Option<String>,
    /// Where the file says so; None for a default, or for what the file does not say.
    pub place: Option<Place>,
    /// It was applied as the file asks and changed since, so that it is no edit of the file.
    pub drift: bool,
}

/// What a change costs those who use the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cost {
    /// The guest ends and boots again.
    Reboot,
    /// What the guest wrote to its disks since its launch is lost.
    GuestDiskLost,
    /// A link is cut, for a moment or for good.
    LinkCut,
    /// A file that is being captured into begins anew.
    CaptureRestarted,
    /// A server forgets which addresses it gave out.
    LeasesLost,
    /// The programs of a pipeline end, and what they know.
    PipelineEnds,
    /// A mirror ends, for a moment or for good.
    MirrorEnds,
}

impl Cost {
    /// The words as plans print them.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reboot => "the guest reboots",
            Self::GuestDiskLost => "what the guest wrote to its disks is lost",
            Self::LinkCut => "a link is cut",
            Self::CaptureRestarted => "the capture ends and its file begins anew",
            Self::PipelineEnds => "the programs of the pipeline end",
            Self::LeasesLost => "the server forgets the addresses it gave out",
            Self::MirrorEnds => "what passes meanwhile is not mirrored",
        }
    }
}

/// Identifies a step in its plan, from 1; a step needs only steps with smaller numbers.
pub type StepId = usize;

/// One object that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The object.
    pub address: Address,
    /// What happens to it.
    pub action: Action,
    /// Where the file declares it; None where it does not.
    pub place: Option<Place>,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What it costs.
    pub costs: Vec<Cost>,
    /// The steps that carry it out.
    pub steps: Vec<StepId>,
    /// The object that it was before and that goes for it.
    pub renamed_from: Option<Address>,
    /// What is to be observed of it afterwards.
    #[serde(skip)]
    pub goal: Arc<Goal>,
    /// Digest of the object (of the former one of a renamed one) as it was observed; None where it was not there.
    pub guard: Option<String>,
}

/// What must be observed after a step before anything that needs it may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The answer without an error is enough.
    Answer,
    /// These VMs exist and are in one of the states.
    Vms {
        /// Their names.
        names: Arc<[String]>,
        /// The states.
        states: Cow<'static, [VmState]>,
    },
    /// These VMs do not exist.
    Gone {
        /// Their names.
        names: Arc<[String]>,
    },
    /// These VMs wait in the queue of the namespace.
    Queued {
        /// Their names.
        names: Arc<[String]>,
    },
    /// Nothing of the experiment waits in the queue of the namespace. The command drops the whole queue, so it is sent only where
    /// something of the experiment waits, and nothing else.
    Drained,
    /// An object is there. Commands that need the step call it by an id, which the target gives out; where that is another
    /// one than was foreseen, they are sent with it ([`Plan::command_of`]).
    Named {
        /// Its kind.
        kind: Kind,
        /// What tells it from others.
        key: String,
        /// The id that it probably gets.
        id: String,
    },
    /// The command only asks. It is sent again until the answer is the wanted one.
    Until {
        /// What the answer must say.
        holds: Holds,
        /// How long to ask, in seconds.
        timeout: u32,
    },
}

/// What the answer of a command that asks must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// There is no error in it.
    Success,
    /// In its table, each of these VMs has `true` under `cc_active`.
    Connected(Vec<String>),
    /// So many VMs are queued, all of them the experiment's.
    Queued(usize),
}

impl Expect {
    /// What is waited for, for a command that only asks.
    pub fn wanted(&self) -> String {
        match self {
            Self::Until { holds: Holds::Connected(names), .. } => {
                format!("cc is connected to {}", range::compress(names))
            }
            Self::Until { holds: Holds::Queued(1), .. } => "one VM is queued, the experiment's".to_owned(),
            Self::Until { holds: Holds::Queued(count), .. } => {
                format!("{count} VMs are queued, all of them the experiment's")
            }
            _ => "there is no error".to_owned(),
        }
    }
}

impl Change {
    /// The object that is there before: what it was renamed from, or itself.
    pub fn was(&self) -> &Address {
        self.renamed_from.as_ref().unwrap_or(&self.address)
    }

    /// A digest of the object as it is; None where it is not there.
    pub fn observed(&self, live: &Live) -> Option<String> {
        match &*self.goal {
            Goal::Object { key, facts } => goal::object(self.address.kind, key, live, facts.is_none()),
            _ => goal::observed(self.was(), &self.goal, live),
        }
    }

    /// Whether the object is, or is again, as it was when the plan was made.
    pub fn is_as_before(&self, live: &Live) -> bool {
        if self.address.kind == Kind::Command {
            // Nothing can be observed of raw commands; what is remembered of them is compared apart.
            return true;
        }
        let same = self.observed(live) == self.guard;
        same && (self.renamed_from.is_none() || goal::observed(&self.address, &self.goal, live).is_none())
    }
}

/// How a step is taken back. What acts on VMs takes those that can be acted on then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Undo {
    /// Nothing remains of it that would have to be.
    Nothing,
    /// It cannot be.
    #[default]
    Impossible,
    /// The VMs that it made are killed and flushed.
    Remove(Arc<[String]>),
    /// What waits of the experiment in the queue is dropped; these VMs are killed and flushed, as far as they were launched.
    Unqueue(Arc<[String]>),
    /// The VMs are started, stopped or killed.
    Act(Verb, Arc<[String]>),
    /// One command.
    Command(String),
    /// Several commands, in order.
    Commands(Arc<[String]>),
    /// It ends together with others, by one command for all steps that have the same, and what ended with them though it was
    /// there before is made again.
    Together {
        /// What ends them.
        end: String,
        /// What makes the others again.
        again: Arc<[String]>,
    },
    /// The lines that take an entry of raw commands back, whatever becomes of each.
    Lines {
        /// The entry.
        name: String,
        /// The commands, as they are sent.
        commands: Arc<[String]>,
    },
    /// A tunnel of a bridge is removed, by the interface that the target shows for it then.
    Tunnel {
        /// The bridge.
        bridge: String,
        /// What the tunnel is, as `vxlan 10.0.0.2 7`.
        tunnel: String,
    },
    /// A pipeline ends by its command, and the pipes of these names go that it made: those without settings that nobody uses.
    Plumb {
        /// The command.
        command: String,
        /// The names, of which some may be programs.
        pipes: Arc<[String]>,
    },
    /// A USB disk that the VMs were given is taken away, by the number that it has in each then.
    Unplug {
        /// The VMs.
        names: Arc<[String]>,
        /// Its image, as it was given.
        file: String,
    },
    /// A VLAN alias is bound to this tag again; a first use may have given it another since.
    Rebind(String, u16),
    /// One command that connects a NIC where it was, after everything else was taken back: it names a VLAN alias, which
    /// has its old tag again then.
    Reconnect(String),
}

/// What can be done to VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `vm start`.
    Start,
    /// `vm stop`.
    Stop,
    /// `vm kill`.
    Kill,
    /// `vm flush`.
    Flush,
}

impl Verb {
    /// The word of the command.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Flush => "flush",
        }
    }

    /// The command for VMs.
    pub fn command(self, namespace: &Namespace, names: &[impl AsRef<str>]) -> String {
        format!("namespace {namespace} vm {} {}", self.word(), range::compress(names))
    }
}

/// The command that takes USB disk `id` away from VMs.
pub fn unplug_command(namespace: &Namespace, names: &[String], id: &str) -> String {
    format!("namespace {namespace} vm hotplug remove {} {id}", range::compress(names))
}

impl Undo {
    /// The commands, if all VMs can be acted on; None where it cannot be taken back.
    pub fn commands(&self, namespace: &Namespace) -> Option<Vec<String>> {
        Some(match self {
            Self::Nothing => Vec::new(),
            Self::Impossible => return None,
            Self::Remove(names) => [Verb::Kill, Verb::Flush].map(|verb| verb.command(namespace, names)).to_vec(),
            Self::Unqueue(names) => {
                let flush = format!("namespace {namespace} ns flush");
                std::iter::once(flush)
                    .chain([Verb::Kill, Verb::Flush].map(|verb| verb.command(namespace, names)))
                    .collect()
            }
            Self::Act(verb, names) => vec![verb.command(namespace, names)],
            Self::Rebind(alias, tag) => vec![
                format!("namespace {namespace} clear vlans {alias}"),
                format!("namespace {namespace} vlans add {alias} {tag}"),
            ],
            Self::Tunnel { bridge, .. } => vec![format!("namespace {namespace} bridge notunnel {bridge} INTERFACE")],
            Self::Unplug { names, .. } => {
                vec![unplug_command(namespace, names, "ID")]
            }
            Self::Command(command) | Self::Reconnect(command) | Self::Plumb { command, .. } => vec![command.clone()],
            Self::Lines { commands, .. } | Self::Commands(commands) => commands.to_vec(),
            Self::Together { end, again } => std::iter::once(end).chain(&**again).cloned().collect(),
        })
    }
}

/// One command, when it may run, and how its effect is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// The whole command, as it is sent.
    pub command: String,
    /// The changes that it serves, as indices of [`Plan::changes`]; empty for what serves the whole.
    pub serves: Arc<[usize]>,
    /// Steps that must have succeeded.
    pub needs: Vec<StepId>,
    /// Steps that must have ended, in whatever way (`vm config` is one for the whole namespace).
    pub after: Vec<StepId>,
    /// How it is taken back.
    pub undo: Undo,
    /// Digest of the live objects that it was planned against.
    pub guard: Option<String>,
    /// What is checked afterwards.
    pub expect: Expect,
    /// The line of an entry of raw commands that it sends.
    pub mark: Option<Mark>,
}

/// Everything that is to be done, in an order that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The experiment.
    pub experiment: Namespace,
    /// Made to destroy the experiment.
    pub destroy: bool,
    /// Not everything of the experiment was looked at.
    pub partial: bool,
    /// Only what differs from what was applied is shown, and there are no commands.
    pub drift_only: bool,
    /// The objects that change, by kind and name; for a destroy in the order in which they go.
    pub changes: Vec<Change>,
    /// The commands.
    pub steps: Vec<Step>,
    /// The objects that are as they are to be, by kind and name.
    pub unchanged: Vec<Address>,
    /// Objects of the namespace that are not the experiment's, by kind and name. A note names them too.
    pub unmanaged: Vec<Address>,
    /// Commands, by their first words, whose help would have told whether there is a way that costs less; for
    /// [`crate::live::learn`], and then to plan again.
    pub learn: BTreeSet<&'static str>,
    /// What a user should know besides, one sentence each.
    pub notes: Vec<String>,
}

impl Plan {
    /// There is nothing to do, or nothing to show where only drift is.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && (!self.drift_only || self.changes.is_empty())
    }

    /// Keep what differs from what was applied, and no commands.
    fn into_drift(mut self) -> Self {
        for change in &mut self.changes {
            change.reasons.retain(|reason| reason.drift);
            change.costs.clear();
            change.steps.clear();
        }
        self.changes.retain(|change| !change.reasons.is_empty());
        self.steps.clear();
        self.drift_only = true;
        self
    }

    /// The command of a step, with the ids that steps before it got instead of those that were foreseen.
    pub fn command_of<'s>(&self, step: &'s Step, got: &dyn Fn(StepId) -> Option<String>) -> Cow<'s, str> {
        for before in step.needs.iter().filter_map(|id| self.steps.get(id - 1)) {
            if let Expect::Named { id, .. } = &before.expect
                && let Some(real) = got(before.id).filter(|real| real != id)
            {
                return renamed(&step.command, id, &real).into();
            }
        }
        Cow::Borrowed(&step.command)
    }

    /// How many objects an action happens to.
    pub fn count(&self, action: Action) -> usize {
        self.changes.iter().filter(|c| c.action == action).count()
    }
}

/// A command on a server with the id that it has instead of the one that was foreseen.
pub fn renamed(command: &str, foreseen: &str, real: &str) -> String {
    let words = |id: &str| [format!(" dnsmasq configure {id} "), format!(" dnsmasq kill {id}")];
    let mut text = format!("{command}\n");
    for (old, new) in words(foreseen).iter().zip(words(real)) {
        let end = if old.ends_with(' ') { "" } else { "\n" };
        text = text.replacen(&format!("{old}{end}"), &format!("{new}{end}"), 1);
    }
    text.trim_end_matches('\n').to_owned()
}

/// How to plan.
#[derive(Debug)]
pub struct Options<'a> {
    /// Plan to destroy everything of the experiment.
    pub destroy: bool,
    /// The objects that the plan is about.
    pub selection: Selection,
    /// Show only what differs from what was applied.
    pub drift_only: bool,
    /// Look whether anything is left to do after the commands of a plan with the same options.
    pub verifying: bool,
    /// The texts that spans point into.
    pub sources: &'a SourceMap,
    /// What the journal remembers.
    pub advice: Advice,
}

impl<'a> Options<'a> {
    /// For a plan of everything.
    pub fn new(sources: &'a SourceMap, advice: Advice) -> Self {
        Self { destroy: false, selection: Selection::default(), drift_only: false, verifying: false, sources, advice }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Something is in the way that megaform must not resolve by itself.
    #[error("{} in the way of the plan", count(problems.len()))]
    Blocked {
        /// What, each with its place and what to do.
        problems: Vec<Diagnostic>,
    },
}

fn count(n: usize) -> String {
    if n == 1 { "1 problem is".to_owned() } else { format!("{n} problems are") }
}

/// Compare an experiment with what is live and plan the way from there to it, or to nothing. The graph is that of the
/// experiment.
///
/// The cost is linear in the number of objects, but for sorting.
pub fn plan(experiment: &Experiment, graph: &Graph, live: &Live, options: &Options<'_>) -> Result<Plan, PlanError> {
    let mut draft = draft::Draft::new(&experiment.name.value);
    let mut scene = lower::Scene::new(experiment, graph, live, options);
    draft.notes.append(&mut scene.scope.notes);
    draft.problems.append(&mut scene.scope.problems);
    if draft.problems.is_empty() {
        lower::lower(&scene, &mut draft);
    }
    if options.drift_only {
        // What is in the way of commands is not in the way of looking.
        let problems = std::mem::take(&mut draft.problems);
        draft.notes.extend(problems.into_iter().map(|p| format!("in the way of an apply: {}", p.message)));
        return Ok(draft.finish(options)?.into_drift());
    }
    let mut plan = draft.finish(options)?;
    for change in &mut plan.changes {
        change.guard = match change.address.kind {
            Kind::Command => lower::remembered(&change.address.name, &options.advice),
            _ => change.observed(live),
        };
    }
    Ok(plan)
}

/// The checks of raw commands whose answers a plan looks at, in a namespace that exists.
pub fn checks<'a>(experiment: &'a Experiment, live: &Live, options: &Options<'_>) -> Vec<&'a str> {
    if !live.present {
        return Vec::new();
    }
    let known = |name: &str| options.advice.commands.contains_key(name);
    let asked = experiment.commands.iter().filter(|(name, _)| !options.destroy || !known(name.as_str()));
    asked.filter_map(|(_, entry)| entry.check.as_ref()).map(|line| line.as_str()).collect()
}
