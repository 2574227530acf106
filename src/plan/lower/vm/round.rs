//! Bringing VMs up: launches and starts, dependencies first. What launches together through the queue is a round, launched as a
//! whole or not at all.

use std::borrow::Cow;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::super::super::draft::{Draft, Extra, targets};
use super::super::super::{Expect, StepId, Undo, Verb};
use super::super::{Scene, placement};
use super::class::Class;
use super::{Launch, Members, Ready, Vms, compare, guard, order, qos, usb};
use crate::live::VmState;
use crate::name::{self, Address};
use crate::spec::model::RunState;

/// The states that a launch brings about.
const LAUNCHED: &[VmState] = &[VmState::Building, VmState::Paused, VmState::Running];

/// VMs that one command launched, or queued.
struct Launched<'a> {
    target: String,
    serves: Arc<[usize]>,
    of: Vec<&'a str>,
    /// The step after which they are there.
    step: StepId,
}

/// VMs of equal configuration and what they wait for.
pub(super) struct Group<'g, 'a> {
    /// How deep below it the graph goes: what is on one level does not depend on each other.
    pub level: usize,
    /// The first of the names.
    pub first: &'a str,
    /// To be launched; the others are there.
    pub launched: bool,
    /// They ended.
    pub ended: bool,
    pub of: &'g Launch<'a>,
    /// What was launched of it.
    parts: Vec<Launched<'a>>,
}

/// What VMs wait for before they start.
#[derive(Default)]
struct Before {
    /// Steps that must have succeeded.
    needs: Vec<StepId>,
    /// Steps that must have ended, so that traffic is shaped and captured from the first frame on.
    after: Vec<StepId>,
}

impl<'a> Vms<'a> {
    /// Add the steps of one launch group: its configuration and its launches, which only queue where that is to be. The last
    /// of them, and what was launched.
    fn launch_steps(
        &self,
        draft: &mut Draft,
        launch: &Launch<'a>,
        (mut needs, after): (Vec<StepId>, Option<StepId>),
        queued: bool,
    ) -> (StepId, Vec<Launched<'a>>) {
        let class: &Class<'a> = self.classes.get(launch.class);
        let parts = targets(launch.members.clone());
        let everyone = launch.members.iter().map(|m| m.1).collect();
        needs.extend(draft.vlans_ready.iter().chain(&draft.placement_ready));
        needs.sort_unstable();
        needs.dedup();
        let undo = Undo::Nothing;
        let extra = Extra { needs, after: after.into_iter().collect(), undo, ..Extra::default() };
        let mut last = draft.step(&everyone, &["clear", "vm", "config"], extra);
        for words in &class.config {
            let extra = Extra { needs: vec![last], undo: Undo::Nothing, ..Extra::default() };
            last = draft.step(&everyone, words, extra);
        }
        let configured = last;
        let mut launched = Vec::new();
        for part in parts {
            let words = ["vm", "launch", class.kind, &part.text];
            let states = Cow::Borrowed(LAUNCHED);
            let names = part.names.clone();
            let (undo, expect) = match queued {
                true => (Undo::Unqueue(names.clone()), Expect::Queued { names }),
                false => (Undo::Remove(names.clone()), Expect::Vms { names, states }),
            };
            let extra = Extra {
                needs: vec![configured],
                // One launch at a time: they share the configuration, and names of a target launch concurrently.
                after: if last == configured { Vec::new() } else { vec![last] },
                undo,
                expect: Some(expect),
                ..Extra::default()
            };
            last = draft.step(&part.serves, &words, extra);
            launched.push(Launched { target: part.text, serves: part.serves, of: part.of, step: last });
        }
        (last, launched)
    }

    /// Add the steps that make the NICs of launched VMs what they are to be before their guests start.
    fn nic_steps(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        class: &Class<'a>,
        launched: &[Launched<'a>],
        ready: &mut Ready<'a>,
        shaped: &mut Vec<StepId>,
    ) {
        for part in launched {
            ready.extend(part.of.iter().map(|name| (*name, vec![part.step])));
        }
        for (index, _) in class.body.networks.iter().enumerate().filter(|(_, nic)| !nic.connected) {
            for Launched { target, serves, of, step } in launched {
                let extra = Extra { needs: vec![*step], undo: Undo::Nothing, ..Extra::default() };
                let cut = draft.step(serves, &compare::disconnect_words(target, index), extra);
                for name in of {
                    // The guest starts without it.
                    ready.entry(*name).or_default().push(cut);
                }
            }
        }
        for Launched { target, serves, step, .. } in launched {
            shaped.extend(qos::of_new(scene, draft, class.body, (target, serves), *step));
            shaped.extend(usb::of_new(draft, class.body, (target, serves), *step));
        }
    }

    fn start_steps(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        (members, ended): (Members<'a>, bool),
        before: &Before,
        ready: &mut Ready<'a>,
    ) {
        for part in targets(members.clone()) {
            let mut needs = before.needs.clone();
            needs.extend(part.of.iter().filter_map(|name| ready.get(name)).flatten());
            needs.sort_unstable();
            needs.dedup();
            let extra = Extra {
                needs,
                after: before.after.clone(),
                undo: Undo::Act(if ended { Verb::Kill } else { Verb::Stop }, part.names.clone()),
                guard: guard(scene, &part.names),
                expect: Some(Expect::Vms { names: part.names.clone(), states: Cow::Borrowed(&[VmState::Running]) }),
                ..Extra::default()
            };
            let step = draft.step(&part.serves, &["vm", "start", &part.text], extra);
            ready.extend(part.of.iter().map(|name| (*name, vec![step])));
        }
        if let Some(gates) = &self.gates {
            gates.started(scene, draft, &members, ready);
        }
    }

    /// Launches and starts, dependencies first. Returns for each VM the step after which it is ready.
    pub(super) fn bring_up(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        flushed: &HashMap<&str, StepId>,
        media: &HashMap<&'a str, Vec<StepId>>,
    ) -> Ready<'a> {
        let mut ready = Ready::new();
        // A guest starts with the medium that it is to have.
        for (name, _) in self.starts.values().flat_map(|group| &group.members) {
            ready.extend(media.get(name).map(|steps| (*name, steps.clone())));
        }
        let launches = self.launches.values().map(|group| (true, false, group));
        let starts = self.starts.iter().map(|((_, ended), group)| (false, *ended, group));
        let group = |(launched, ended, of): (bool, bool, _)| {
            let of: &Launch<'a> = of;
            let first = of.members.iter().map(|m| m.0).min().unwrap_or_default();
            let address = Address { kind: name::Kind::Vm, name: first.to_owned() };
            let level = scene.graph.level(&address).unwrap_or_default();
            Group { level, first, launched, ended, of, parts: Vec::new() }
        };
        let mut order: Vec<Group<'_, 'a>> = launches.chain(starts).map(group).collect();
        let queued = placement::queues(scene);
        order::arrange(scene, draft, &self.classes, &mut order, queued);
        let mut last = None;
        // What launches together is queued together; without a queue each group stands alone.
        for round in order.chunk_by_mut(|a, b| queued && a.level == b.level) {
            if queued && round.iter().any(|group| group.launched) {
                last = Some(self.queue_round(scene, draft, round, flushed, (last, &mut ready)));
            }
            for group in round {
                let class = self.classes.get(group.of.class);
                let members = group.of.members.clone();
                if group.launched {
                    if !queued {
                        let needs = self.needs_of(scene, draft, group.of, flushed, &mut ready);
                        let (step, parts) = self.launch_steps(draft, group.of, (needs, last), false);
                        (last, group.parts) = (Some(step), parts);
                    }
                    let mut before = Before::default();
                    self.nic_steps(scene, draft, class, &group.parts, &mut ready, &mut before.after);
                    before.after.extend(captures(draft, group.of, &ready));
                    if class.state == RunState::Running {
                        self.start_steps(scene, draft, (members, false), &before, &mut ready);
                    }
                } else {
                    let needs = self.needs_of(scene, draft, group.of, &HashMap::new(), &mut ready);
                    // A VM that ended has no interface to listen on before it starts.
                    let after = if group.ended { Vec::new() } else { captures(draft, group.of, &ready) };
                    let before = Before { needs, after };
                    self.start_steps(scene, draft, (members, group.ended), &before, &mut ready);
                }
            }
        }
        if let Some(last) = last {
            let extra = Extra { after: vec![last], undo: Undo::Nothing, ..Extra::default() };
            draft.step(&Arc::from([]), &["clear", "vm", "config"], extra);
        }
        ready
    }

    /// The steps that must have succeeded before VMs are launched or started: what they depend on, and what they were before.
    fn needs_of(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        group: &Launch<'a>,
        flushed: &HashMap<&str, StepId>,
        ready: &mut Ready<'a>,
    ) -> Vec<StepId> {
        let class = self.classes.get(group.class);
        let serves = group.members.iter().map(|member| member.1).collect();
        if let Some(gates) = &self.gates {
            gates.needed(scene, draft, &class.depends_on, serves, ready);
        }
        let mut needs: Vec<StepId> = class.depends_on.iter().filter_map(|d| ready.get(d)).flatten().copied().collect();
        let old = |name| self.renamed.get(name).copied().unwrap_or(name);
        needs.extend(group.members.iter().filter_map(|(name, _)| flushed.get(old(*name))));
        needs
    }

    /// Queue the launches of a round and launch them together, or none of them. Returns the last step.
    fn queue_round(
        &self,
        scene: &Scene<'a>,
        draft: &mut Draft,
        round: &mut [Group<'_, 'a>],
        flushed: &HashMap<&str, StepId>,
        (mut last, ready): (Option<StepId>, &mut Ready<'a>),
    ) -> StepId {
        let mut launches: Vec<&mut Group<'_, 'a>> = round.iter_mut().filter(|group| group.launched).collect();
        let needs: Vec<Vec<StepId>> =
            launches.iter().map(|group| self.needs_of(scene, draft, group.of, flushed, ready)).collect();
        let members = launches.iter().flat_map(|group| &group.of.members);
        let everyone: Arc<[usize]> = members.clone().map(|member| member.1).collect();
        let mut names: Vec<String> = members.map(|member| member.0.to_owned()).collect();
        names.sort_by(|a, b| crate::language::range::natural_cmp(a, b));
        let mut all: Vec<StepId> = needs.concat();
        all.extend(draft.vlans_ready.iter().chain(&draft.placement_ready));
        all.sort_unstable();
        all.dedup();
        let on = placement::switch(scene, draft, &everyone, true, Extra { needs: all, ..placement::after(last) });
        let mut queued = Vec::new();
        for (group, mut needs) in launches.iter_mut().zip(needs) {
            needs.extend(on);
            let (step, parts) = self.launch_steps(draft, group.of, (needs, last.or(on)), true);
            queued.extend(parts.iter().map(|part| part.step));
            (last, group.parts) = (Some(step), parts);
        }
        let step = placement::launch_queue(draft, &everyone, names, queued, LAUNCHED);
        for group in launches {
            group.parts.iter_mut().for_each(|part| part.step = step);
        }
        placement::leave_queue(scene, draft, step)
    }
}

/// Start the captures of VMs that are there but do not run yet; the steps.
fn captures(draft: &mut Draft, group: &Launch<'_>, ready: &Ready<'_>) -> Vec<StepId> {
    if draft.pending.is_empty() {
        return Vec::new();
    }
    let mut steps = Vec::new();
    for (name, _) in &group.members {
        let needs: Vec<StepId> = ready.get(name).cloned().unwrap_or_default();
        steps.extend(draft.start_pending(Some(&(*name).to_owned()), &needs));
    }
    steps
}
