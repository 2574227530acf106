//! A plan while it is made: changes, steps and problems are added here by the kinds of objects.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::{Action, Change, Cost, Expect, Goal, Mark, Options, Plan, PlanError, Reason, Step, StepId, Undo};
use crate::diagnostic::{Diagnostic, Place};
use crate::language::grammar::MAX_LINE;
use crate::language::{range, token};
use crate::name::{Address, Kind, Namespace};

/// The longest list of targets in one command, in bytes.
const TARGETS: usize = 3600;

pub(super) struct Draft {
    experiment: Namespace,
    pub changes: Vec<Change>,
    pub steps: Vec<Step>,
    pub unchanged: Vec<Address>,
    pub unmanaged: Vec<Address>,
    pub learn: BTreeSet<&'static str>,
    /// How many VMs, one behind the other, each VM depends on; none for what depends on none.
    pub depths: HashMap<String, usize>,
    pub notes: Vec<String>,
    pub problems: Vec<Diagnostic>,
    /// The goal of what is removed.
    gone: Arc<Goal>,
    /// The steps after which every VLAN alias is as it is to be.
    pub vlans_ready: Vec<StepId>,
    /// The steps after which VMs go to the hosts that they are to go to.
    pub placement_ready: Vec<StepId>,
    /// The VMs that this plan launches.
    pub launched: HashSet<String>,
    /// The steps after which VMs are ready.
    pub vms_ready: HashMap<String, Vec<StepId>>,
    /// The changes of raw commands that need a VM, by VM.
    pub vms_needed: BTreeMap<String, Vec<usize>>,
    /// The taps that this plan deletes and makes again.
    pub remade_taps: HashSet<String>,
    /// Taps that get their address by DHCP, which are made when the servers of this plan serve.
    pub leased_taps: Vec<LeasedTap>,
    /// The steps that make taps.
    pub taps_ready: HashMap<String, StepId>,
    /// The steps that remove objects, or parts of them.
    pub removed: HashMap<(Kind, String), Vec<StepId>>,
    /// Steps that must have ended before the processes of VMs end.
    pub before_end: HashMap<String, Vec<StepId>>,
    /// Steps that must have ended before taps are deleted.
    pub before_tap: HashMap<String, Vec<StepId>>,
    /// The NICs that this plan moves to another VLAN or bridge, by VM and index.
    pub moved: HashSet<(String, usize)>,
    /// Steps that must have succeeded before NICs of a VM are moved.
    pub before_move: HashMap<String, Vec<StepId>>,
    /// The steps that move NICs of a VM, or add some.
    pub nics_ready: HashMap<String, Vec<StepId>>,
    /// Captures that are to start and NICs that are to be bonded, by the VM that they are of.
    pub pending: BTreeMap<Option<String>, Vec<Pending>>,
    /// The last step that starts a capture or sets something for it: they share settings of the namespace.
    capturing: Option<StepId>,
    /// The live pipelines that this plan ends, by key.
    pub ended: BTreeSet<String>,
    /// The last steps that set something of a pipe, by pipe.
    pub pipes_ready: HashMap<String, Vec<StepId>>,
    /// The step after whose end everything but raw commands may begin.
    pub barrier: Option<StepId>,
}

/// Objects that one command can act on, named as a target.
pub(super) struct Targets<'a> {
    /// The target, such as `fw,web[0-9]`.
    pub text: String,
    /// The names, in natural order.
    pub of: Vec<&'a str>,
    /// The same.
    pub names: Arc<[String]>,
    pub serves: Arc<[usize]>,
}

/// Commands as words.
type Commands = Vec<Vec<String>>;

/// A capture that is to start.
pub(super) struct Pending {
    pub serves: Arc<[usize]>,
    pub needs: Vec<StepId>,
    /// What sets the settings of the namespace for it, and what sets them back.
    pub before: Vec<Vec<String>>,
    pub after: Vec<Vec<String>>,
    pub command: Vec<String>,
    pub undo: Undo,
    pub mark: Option<Mark>,
}

/// A tap that gets its address by DHCP.
pub(super) struct LeasedTap {
    pub name: String,
    /// What it is on: VLAN and bridge.
    pub segment: (String, String),
    pub change: usize,
    pub needs: Vec<StepId>,
    pub command: Vec<String>,
    pub undo: Undo,
}

/// VMs and the change that each has.
pub(super) type Members<'a> = Vec<(&'a str, usize)>;

/// Write members as targets of bounded length, in natural order.
pub(super) fn targets<'a>(mut members: Members<'a>) -> Vec<Targets<'a>> {
    fn split<'a>(members: &[(&'a str, usize)], out: &mut Vec<Targets<'a>>) {
        let names: Vec<&'a str> = members.iter().map(|m| m.0).collect();
        let text = range::compress(&names);
        if text.len() > TARGETS && members.len() > 1 {
            let (left, right) = members.split_at(members.len() / 2);
            split(left, out);
            split(right, out);
            return;
        }
        out.push(Targets {
            text,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            of: names,
            serves: members.iter().map(|m| m.1).collect(),
        });
    }
    if members.is_empty() {
        return Vec::new();
    }
    members.sort_by(|a, b| range::natural_cmp(a.0, b.0));
    let mut out = Vec::new();
    split(&members, &mut out);
    out
}

/// The parts of a step that most steps leave empty.
#[derive(Default)]
pub(super) struct Extra {
    pub needs: Vec<StepId>,
    pub after: Vec<StepId>,
    pub undo: Undo,
    pub guard: Option<String>,
    pub expect: Option<Expect>,
    pub mark: Option<Mark>,
}

impl Draft {
    pub fn new(experiment: &Namespace) -> Self {
        Self {
            experiment: experiment.clone(),
            changes: Vec::new(),
            steps: Vec::new(),
            unchanged: Vec::new(),
            unmanaged: Vec::new(),
            learn: BTreeSet::new(),
            depths: HashMap::new(),
            notes: Vec::new(),
            problems: Vec::new(),
            gone: Arc::new(Goal::Gone),
            vlans_ready: Vec::new(),
            placement_ready: Vec::new(),
            launched: HashSet::new(),
            vms_ready: HashMap::new(),
            remade_taps: HashSet::new(),
            leased_taps: Vec::new(),
            taps_ready: HashMap::new(),
            removed: HashMap::new(),
            before_end: HashMap::new(),
            before_tap: HashMap::new(),
            moved: HashSet::new(),
            before_move: HashMap::new(),
            nics_ready: HashMap::new(),
            pending: BTreeMap::new(),
            capturing: None,
            vms_needed: BTreeMap::new(),
            ended: BTreeSet::new(),
            pipes_ready: HashMap::new(),
            barrier: None,
        }
    }

    /// Add a change and return its index.
    pub fn change(
        &mut self,
        address: Address,
        action: Action,
        place: Option<Place>,
        reasons: Vec<Reason>,
        costs: Vec<Cost>,
    ) -> usize {
        self.changes.push(Change {
            address,
            action,
            place,
            reasons,
            costs,
            steps: Vec::new(),
            renamed_from: None,
            goal: self.gone.clone(),
            guard: None,
        });
        self.changes.len() - 1
    }

    /// The command of some words, in the experiment's namespace. A word that the language cannot carry is a problem.
    pub fn command<S: AsRef<str>>(&mut self, words: &[S]) -> String {
        match token::join(words) {
            Ok(text) => format!("namespace {} {text}", self.experiment),
            Err(error) => {
                let word = words.first().map(AsRef::as_ref).unwrap_or_default();
                self.problems.push(Diagnostic {
                    severity: crate::diagnostic::Severity::Error,
                    code: "cannot-quote",
                    message: format!("a value cannot be sent in a `{word} …` command: {error}"),
                    span: None,
                    labels: Vec::new(),
                    hint: Some("write the value without it".to_owned()),
                });
                String::new()
            }
        }
    }

    /// Add a step and return its number.
    pub fn step<S: AsRef<str>>(&mut self, serves: &Arc<[usize]>, words: &[S], extra: Extra) -> StepId {
        let command = self.command(words);
        self.raw_step(serves, command, extra)
    }

    /// Add a step whose command has no namespace prefix.
    pub fn raw_step(&mut self, serves: &Arc<[usize]>, command: String, extra: Extra) -> StepId {
        let id = self.steps.len() + 1;
        for change in serves.iter() {
            self.changes[*change].steps.push(id);
        }
        self.steps.push(Step {
            id,
            command,
            serves: serves.clone(),
            needs: extra.needs,
            after: extra.after,
            undo: extra.undo,
            guard: extra.guard,
            expect: extra.expect.unwrap_or(Expect::Answer),
            mark: extra.mark,
        });
        id
    }

    /// Start the captures of a VM, or those of none, once some steps have succeeded. The steps that start them.
    pub fn start_pending(&mut self, vm: Option<&String>, needs: &[StepId]) -> Vec<StepId> {
        let mut pending = self.pending.remove(&vm.cloned()).unwrap_or_default();
        // Those with equal settings share them.
        pending.sort_by(|a, b| a.before.cmp(&b.before));
        let mut started = Vec::new();
        let mut open: Option<(Commands, Commands, Arc<[usize]>)> = None;
        // A capture that starts with other settings than its own would be taken for one that has them.
        let mut set: Vec<StepId> = Vec::new();
        for Pending { serves, needs: own, before, after, command, undo, mark } in pending {
            if open.as_ref().is_none_or(|(those, ..)| *those != before) {
                if let Some((_, back, of)) = open.take() {
                    self.settings(&of, &back, &[]);
                }
                set = self.settings(&serves, &before, &after);
                open = Some((before, after, serves.clone()));
            }
            let needs = needs.iter().chain(&own).chain(&set).copied().collect::<BTreeSet<_>>().into_iter().collect();
            let after = self.capturing.into_iter().collect();
            let step = self.step(&serves, &command, Extra { needs, after, undo, mark, ..Extra::default() });
            self.capturing = Some(step);
            started.push(step);
        }
        if let Some((_, back, of)) = open {
            self.settings(&of, &back, &[]);
        }
        started
    }

    /// Set settings of the namespace for captures, or set them back. `back` is what sets them back, which a rollback may have
    /// to do.
    pub fn settings(&mut self, serves: &Arc<[usize]>, commands: &[Vec<String>], back: &[Vec<String>]) -> Vec<StepId> {
        let mut steps = Vec::new();
        for words in commands {
            let after = self.capturing.into_iter().collect();
            let setting = |words: &[String]| words.split_last().map(|(_, setting)| setting.to_vec());
            let back = back.iter().find(|back| setting(back) == setting(words));
            let undo = back.map_or(Undo::Nothing, |back| Undo::Command(self.command(back)));
            let step = self.step(serves, words, Extra { after, undo, ..Extra::default() });
            self.capturing = Some(step);
            steps.push(step);
        }
        steps
    }

    /// A line of the user's own, in the experiment's namespace.
    pub fn whole(&self, line: &str) -> String {
        format!("namespace {} {line}", self.experiment)
    }

    /// Add a step of a line of the user's own.
    pub fn line(&mut self, serves: &Arc<[usize]>, line: &str, extra: Extra) -> StepId {
        let command = self.whole(line);
        self.raw_step(serves, command, extra)
    }

    /// The steps that no other one waits for.
    pub fn last_steps(&self) -> Vec<StepId> {
        let waits = |step: &Step| -> Vec<StepId> { step.needs.iter().chain(&step.after).copied().collect() };
        let waited: HashSet<StepId> = self.steps.iter().flat_map(waits).collect();
        self.steps.iter().map(|step| step.id).filter(|id| !waited.contains(id)).collect()
    }

    /// Refuse commands that no target would take, before any of them is sent.
    fn check_lengths(&mut self) {
        for step in self.steps.iter().filter(|step| step.command.len() > MAX_LINE) {
            let of = step.serves.first().map(|change| &self.changes[*change]);
            let place = of
                .and_then(|change| change.place.as_ref())
                .map(|place| format!(" ({}:{})", place.file, place.line))
                .unwrap_or_default();
            let of = of.map(|change| format!(" of {}{place}", change.address)).unwrap_or_default();
            // Whole words, so that a sensitive one is recognized.
            let words: Vec<&str> = step.command.split(' ').take(5).take_while(|word| word.len() < 64).collect();
            let begin = words.join(" ");
            let message = format!(
                "the command `{begin} …`{of} is {} bytes long, and the limit is {MAX_LINE}",
                step.command.len()
            );
            self.problems.push(Diagnostic {
                severity: crate::diagnostic::Severity::Error,
                code: "command-too-long",
                message,
                span: None,
                labels: Vec::new(),
                hint: Some("shorten the value, or give the guest a file instead".to_owned()),
            });
        }
    }

    pub fn finish(mut self, options: &Options<'_>) -> Result<Plan, PlanError> {
        self.check_lengths();
        if !self.problems.is_empty() {
            return Err(PlanError::Blocked { problems: self.problems });
        }
        // Kinds add their changes in order, but a kind's own may come in several passes.
        let mut order: Vec<usize> = (0..self.changes.len()).collect();
        let address = |i: &usize| &self.changes[*i].address;
        order.sort_by(|a, b| {
            let (a, b) = (address(a), address(b));
            let kinds = a.kind.cmp(&b.kind);
            if !options.destroy {
                return kinds.then_with(|| range::natural_cmp(&a.name, &b.name));
            }
            let depth = |address: &Address| self.depths.get(&address.name).copied().unwrap_or_default();
            let depths = if a.kind == Kind::Vm { depth(b).cmp(&depth(a)) } else { std::cmp::Ordering::Equal };
            kinds.reverse().then(depths).then_with(|| range::natural_cmp(&a.name, &b.name))
        });
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        let mut changes: Vec<Option<Change>> = self.changes.into_iter().map(Some).collect();
        let changes = order.iter().map(|i| changes[*i].take().expect("each index once")).collect();
        // The steps of a sequence share one list; renumber it once.
        let (mut old, mut new): (Arc<[usize]>, Arc<[usize]>) = (Arc::new([]), Arc::new([]));
        for step in &mut self.steps {
            if !Arc::ptr_eq(&old, &step.serves) {
                new = step.serves.iter().map(|i| place[*i]).collect();
                old = step.serves.clone();
            }
            step.serves = new.clone();
        }
        self.unchanged.sort_by(|a, b| a.kind.cmp(&b.kind).then_with(|| range::natural_cmp(&a.name, &b.name)));
        Ok(Plan {
            experiment: self.experiment,
            destroy: options.destroy,
            partial: options.selection.is_partial(),
            drift_only: options.drift_only,
            changes,
            steps: self.steps,
            unchanged: self.unchanged,
            unmanaged: self.unmanaged,
            learn: self.learn,
            notes: self.notes,
        })
    }
}
