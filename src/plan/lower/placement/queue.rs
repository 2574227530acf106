//! Launches through the queue of the namespace: it is filled, looked at, launched as a whole and left as it was.
//!
//! The queue is the namespace's, and `vm launch` and `ns flush` take all of it. So nothing is queued where others' launches
//! wait, and what is queued is looked at right before it is launched or dropped. A plan that was cut off is found again by the
//! tags of what it queued, and the setting that it changed by the journal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::super::draft::{Draft, Extra};
use super::super::super::ownership::waiting;
use super::super::super::{Action, Expect, Goal, Holds, Made, Mark, Reason, StepId, Undo};
use super::super::Scene;
use super::{BEFORE, QUEUEING, made, unmade, values, wanted};
use crate::language::range;
use crate::live::{Facts, VmState};
use crate::name::{Address, Kind};

/// How long the queue may take to show what was queued, in seconds.
const PATIENCE: u32 = 5;

/// Whether the plan launches through the queue.
pub(in super::super) fn queues(scene: &Scene<'_>) -> bool {
    wanted(scene, QUEUEING).is_some_and(|(value, _)| value == ["true"])
}

/// What the setting is when no plan is carried out: what is seen, unless a plan that was cut off changed it.
fn at_rest(scene: &Scene<'_>) -> bool {
    let changed = made(scene, QUEUEING).filter(|_| scene.live.present);
    let before = changed.and_then(|made| {
        let still = values(&made.facts, QUEUEING)? == [scene.live.queueing.to_string()];
        still.then(|| values(&made.facts, BEFORE)).flatten()
    });
    before.map_or(scene.live.queueing, |before| before == ["true"])
}

/// Whether somebody else has turned queueing on, so that launches that are not to be queued would be.
pub(in super::super) fn queues_by_itself(scene: &Scene<'_>) -> bool {
    at_rest(scene) && !queues(scene)
}

/// Refuse to launch where others' launches wait, and say what is done to a setting that others made.
pub(in super::super) fn check(scene: &Scene<'_>, draft: &mut Draft) {
    let name = scene.name();
    let (ours, others) = waiting(name, &scene.live.placement.queue);
    if !others.is_empty() {
        let mut message = format!(
            "launches that are not this experiment's wait in the queue of namespace {name}: vm.{}",
            range::compress(&others)
        );
        if !ours.is_empty() {
            message.push_str(&format!(" (and vm.{} of this experiment)", range::compress(&ours)));
        }
        let hint = format!(
            "`namespace {name} vm launch` launches the whole queue, `namespace {name} ns flush` drops it, `namespace {name} \
             ns queue` shows it; a plan would launch or drop all of it with its own"
        );
        let span = wanted(scene, QUEUEING).map(|(_, span)| span);
        draft.problems.push(scene.problem("queueing", span, message, hint));
    } else if queues_by_itself(scene) {
        draft.notes.push(format!(
            "namespace {name} queues launches (`ns queueing`): that is turned off while this plan launches, and on again after it"
        ));
    }
}

/// A step that comes after another one.
pub(in super::super) fn after(step: Option<StepId>) -> Extra {
    Extra { after: step.into_iter().collect(), ..Extra::default() }
}

fn set(draft: &mut Draft, serves: &Arc<[usize]>, on: bool, extra: Extra) -> StepId {
    draft.step(serves, &["ns", "queueing", &on.to_string()], Extra { undo: Undo::Nothing, ..extra })
}

/// Turn queueing on or off for launches; None where it is so.
pub(in super::super) fn switch(
    scene: &Scene<'_>,
    draft: &mut Draft,
    serves: &Arc<[usize]>,
    on: bool,
    extra: Extra,
) -> Option<StepId> {
    let before = at_rest(scene);
    if before == on {
        return None;
    }
    let value = |on: bool| vec![on.to_string()];
    let facts = Facts::from([(QUEUEING.to_owned(), value(on)), (BEFORE.to_owned(), value(before))]);
    let mark = Mark::Make {
        kind: Kind::Placement,
        name: QUEUEING.to_owned(),
        made: Made { key: QUEUEING.to_owned(), facts },
        new: true,
        was: None,
        others: BTreeMap::new(),
    };
    Some(set(draft, serves, on, Extra { mark: Some(mark), ..extra }))
}

/// Turn it back, whatever became of the launches.
pub(in super::super) fn switch_back(scene: &Scene<'_>, draft: &mut Draft, last: Option<StepId>) -> StepId {
    let last = last.unwrap_or(draft.steps.len());
    let mark = Mark::Unmake { kind: Kind::Placement, name: QUEUEING.to_owned(), was: None, others: BTreeMap::new() };
    set(draft, &Arc::from([]), at_rest(scene), Extra { mark: Some(mark), ..after(Some(last)) })
}

fn flush(draft: &mut Draft, serves: &Arc<[usize]>, extra: Extra) -> StepId {
    let extra = Extra { undo: Undo::Nothing, expect: Some(Expect::Drained), ..extra };
    draft.step(serves, &["ns", "flush"], extra)
}

/// Launch what is queued, if that is all that is to be launched and nothing else.
pub(in super::super) fn launch(
    draft: &mut Draft,
    serves: &Arc<[usize]>,
    names: Vec<String>,
    queued: Vec<StepId>,
    states: &'static [VmState],
) -> StepId {
    let holds = Holds::Queued(names.len());
    let expect = Some(Expect::Until { holds, timeout: PATIENCE });
    let looked =
        draft.step(serves, &["ns", "queue"], Extra { needs: queued, undo: Undo::Nothing, expect, ..Extra::default() });
    let expect = Some(Expect::Vms { names: names.into(), states: Cow::Borrowed(states) });
    // What was queued is what takes it back.
    let extra = Extra { needs: vec![looked], undo: Undo::Nothing, expect, ..Extra::default() };
    draft.step(serves, &["vm", "launch"], extra)
}

/// Leave the queue as it was, whatever became of the launch.
pub(in super::super) fn leave(scene: &Scene<'_>, draft: &mut Draft, launched: StepId) -> StepId {
    let flushed = flush(draft, &Arc::from([]), after(Some(launched)));
    if at_rest(scene) { flushed } else { switch_back(scene, draft, Some(flushed)) }
}

/// What a plan that was cut off left behind: the change that takes it away.
pub(super) fn left(scene: &Scene<'_>, draft: &mut Draft) -> Option<usize> {
    let (ours, others) = waiting(scene.name(), &scene.live.placement.queue);
    let before = at_rest(scene);
    let mut reasons = Vec::new();
    let mut reason = |field: &str, old: String, new: &str| {
        let (old, new) = (Some(old), Some(new.to_owned()));
        reasons.push(Reason { field: field.to_owned(), old, new, place: None, drift: true });
    };
    if !ours.is_empty() && others.is_empty() {
        reason("queue", format!("{}, from a plan that was cut off", range::compress(&ours)), "empty");
    } else if !ours.is_empty() {
        draft.notes.push(format!(
            "vm.{} of this experiment and vm.{} of others are queued and stay so: `ns flush` drops all, `vm launch` launches all",
            range::compress(&ours),
            range::compress(&others)
        ));
    }
    if before != scene.live.queueing {
        reason("queueing", format!("{}, from a plan that was cut off", scene.live.queueing), &before.to_string());
    } else if scene.live.present && made(scene, QUEUEING).is_some() {
        // It must not be taken for what such a plan left behind when somebody turns it on later.
        reason("queueing", format!("{before}, set back by a plan that was cut off"), "noted");
    }
    if reasons.is_empty() {
        return None;
    }
    let place = wanted(scene, QUEUEING).and_then(|(_, span)| scene.place(span));
    let address = Address::new(Kind::Placement, QUEUEING);
    let change = draft.change(address, Action::Restore, place, reasons, Vec::new());
    draft.changes[change].goal = Arc::new(Goal::Queueing(before));
    Some(change)
}

/// The steps of that change.
pub(super) fn clean(scene: &Scene<'_>, draft: &mut Draft, change: usize) -> Vec<StepId> {
    let serves: Arc<[usize]> = Arc::from([change]);
    let (ours, others) = waiting(scene.name(), &scene.live.placement.queue);
    let mut steps = Vec::new();
    if !ours.is_empty() && others.is_empty() {
        steps.push(flush(draft, &serves, Extra::default()));
    }
    if let Some(was) = made(scene, QUEUEING) {
        let mark = Some(unmade(QUEUEING, was));
        steps.push(set(draft, &serves, at_rest(scene), Extra { mark, needs: steps.clone(), ..Extra::default() }));
    }
    steps
}
