//! Where VMs go: the hosts of the namespace and the figure by which one is chosen. They are the namespace's and always there, so
//! that nothing is made: what the file says is set, and what leaves the file is set back to what it was, as far as the journal
//! knows that.
//!
//! minimega observes a namespace on its hosts only. What runs on a host that is taken out goes on unseen, so that one is taken
//! out only when nothing of the namespace is left on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::draft::{Draft, Extra};
use super::super::{Action, Cost, Goal, Made, Mark, Reason, StepId, Undo};
use super::{Lower, Newer, Scene, not_in_the_file};
use crate::diagnostic::Span;
use crate::language::range;
use crate::live::{Facts, HOSTS, HostSize, LOCALHOST, USUAL_LOAD};
use crate::name::{Address, Kind, Namespace};
use crate::spec::model::{RunState, Vm};
use crate::spec::suggest::Suggester;

/// The objects.
const HOSTS_OF: &str = "hosts";
const LOAD: &str = "load";
const QUEUEING: &str = "queueing";
/// What an object was before it was set, in what is remembered of it.
const BEFORE: &str = "before";

mod queue;

pub(super) use queue::{
    after, check as check_queue, launch as launch_queue, leave as leave_queue, queues, queues_by_itself, switch,
    switch_back,
};

/// Taking all hosts out.
const DEL_ALL: Newer =
    Newer { help: "ns", marker: "<del-hosts,> <hostname or range or all>", form: "ns del-hosts all" };
/// VMs beside others.
pub(super) const COLOCATE: Newer =
    Newer { help: "vm config colocate", marker: "vm config colocate", form: "vm config colocate" };

/// A setting that changes.
struct Work {
    change: usize,
    /// What it is; None where that is not known.
    old: Option<Vec<String>>,
    new: Vec<String>,
    mark: Mark,
}

#[derive(Default)]
pub(super) struct Placements {
    hosts: Option<Work>,
    load: Option<Work>,
    /// What a plan that was cut off left behind is to go: the change.
    left: Option<usize>,
}

/// The hosts that VMs are to go to: those of the file, or those that the namespace has. None where nobody knows.
pub(super) fn hosts(scene: &Scene<'_>) -> Option<Vec<String>> {
    wanted(scene, HOSTS_OF).map(|(hosts, _)| hosts).or_else(|| scene.live.placement.hosts.clone())
}

/// Whether the plan is about a setting, by itself or because VMs that it launches depend on it.
fn concerns(scene: &Scene<'_>, name: &str) -> bool {
    let scope = &scene.scope;
    let launches = || scene.experiment.vms.keys().any(|vm| scope.chosen(Kind::Vm, vm.as_str()));
    scope.has(Kind::Placement, name) || (!scope.excludes(Kind::Placement, name) && launches())
}

/// What the file says of a setting, as the target shows it, if the plan is about it.
fn wanted(scene: &Scene<'_>, name: &str) -> Option<(Vec<String>, Span)> {
    let (_, object) = scene.experiment.of(Kind::Placement).find(|(of, _)| *of == name)?;
    if !concerns(scene, name) {
        return None;
    }
    let own = |value: &str| scene.live.placement.named(value).to_owned();
    let mut values: Vec<String> = match name {
        HOSTS_OF => object.all(name).iter().map(|host| own(host)).collect(),
        _ => object.all(name).iter().map(|value| value.value.clone()).collect(),
    };
    values.sort_by(|a, b| range::natural_cmp(a, b));
    values.dedup();
    Some((values, object.place(name)))
}

fn values(facts: &Facts, key: &str) -> Option<Vec<String>> {
    facts.get(key).filter(|values| !values.is_empty()).cloned()
}

/// What a plan of this experiment set before.
fn made<'s>(scene: &'s Scene<'_>, name: &str) -> Option<&'s Made> {
    scene.options.advice.objects.get(&(Kind::Placement, name.to_owned()))
}

fn goal(name: &str, values: &[String]) -> Arc<Goal> {
    Arc::new(match name {
        HOSTS_OF => Goal::Hosts(values.to_vec()),
        _ => Goal::Load(values.concat()),
    })
}

fn minus(all: &[String], without: &[String]) -> Vec<String> {
    all.iter().filter(|host| !without.contains(host)).cloned().collect()
}

impl Placements {
    fn diff_setting(scene: &Scene<'_>, draft: &mut Draft, name: &str, old: Option<Vec<String>>) -> Option<Work> {
        let address = Address::new(Kind::Placement, name);
        let remembered = made(scene, name);
        let before = remembered.and_then(|made| values(&made.facts, BEFORE));
        let mark = |new: &[String], before: Option<Vec<String>>| {
            let mut facts = Facts::from([(name.to_owned(), new.to_vec())]);
            facts.extend(before.map(|before| (BEFORE.to_owned(), before)));
            Mark::Make {
                kind: Kind::Placement,
                name: name.to_owned(),
                made: Made { key: name.to_owned(), facts },
                new: remembered.is_none(),
                was: remembered.cloned(),
                others: BTreeMap::new(),
            }
        };
        let text = |values: &[String]| range::compress(values);
        if let Some((new, span)) = wanted(scene, name) {
            if old.as_ref() == Some(&new) {
                draft.unchanged.push(address);
                return None;
            }
            let applied = scene.options.advice.there.contains(&(Kind::Placement, name.to_owned()));
            let drift = applied && remembered.and_then(|made| values(&made.facts, name)).as_ref() == Some(&new);
            let drift = drift && scene.live.present;
            let place = scene.place(span);
            let reason = Reason {
                field: name.to_owned(),
                old: old.as_deref().map(text),
                new: Some(text(&new)),
                place: place.clone(),
                drift,
            };
            let action = match (drift, &old) {
                (true, _) => Action::Restore,
                (false, None) => Action::Create,
                (false, Some(_)) => Action::Update,
            };
            let change = draft.change(address, action, place, vec![reason], Vec::new());
            draft.changes[change].goal = goal(name, &new);
            // What a new namespace would have had is known of the load alone.
            let found = old.clone().or_else(|| (name == LOAD).then(|| vec![USUAL_LOAD.to_owned()]));
            let known = remembered.is_some() && scene.live.present;
            let mark = mark(&new, if known { before } else { found });
            return Some(Work { change, old, new, mark });
        }
        let declared = scene.experiment.declares(Kind::Placement, name);
        if declared || !scene.has(Kind::Placement, name) {
            return None;
        }
        // It left the file: set back what was set, unless somebody has set something else since.
        let (old, remembered) = (old?, remembered?);
        if values(&remembered.facts, name).as_ref() != Some(&old) {
            return None;
        }
        let Some(before) = before.filter(|before| *before != old) else {
            // The only host of a target without a mesh is what a namespace has anyway.
            if old != [scene.live.placement.own.as_str()] {
                draft.notes.push(format!("{address} stays {}: what it was before is not known", text(&old)));
            }
            return None;
        };
        let mut reasons = not_in_the_file("placement");
        reasons[0].old = Some(text(&old));
        reasons[0].new = Some(text(&before));
        let change = draft.change(address, Action::Update, None, reasons, Vec::new());
        draft.changes[change].goal = goal(name, &before);
        let mark = unmade(name, remembered);
        Some(Work { change, old: Some(old), new: before, mark })
    }

    /// Refuse to take out hosts on which something of the namespace stays.
    fn check_left(&self, scene: &Scene<'_>, draft: &mut Draft) {
        let Some(Work { old: Some(old), new, .. }) = &self.hosts else { return };
        let gone = minus(old, new);
        if gone.is_empty() {
            return;
        }
        let flushed: BTreeSet<String> = flushed(draft).into_keys().map(str::to_owned).collect();
        let span = wanted(scene, HOSTS_OF).map(|(_, span)| span);
        for host in &gone {
            let stay = |name: &&String| !flushed.contains(*name);
            let vms: Vec<&String> =
                scene.live.vms.values().filter(|vm| vm.host == *host).map(|vm| &vm.name).filter(stay).collect();
            let taps = scene.live.taps.iter().filter(|(_, tap)| tap.host == *host && *host != scene.live.placement.own);
            let taps: Vec<&String> = taps.map(|(name, _)| name).collect();
            let mut left = Vec::new();
            left.extend((!vms.is_empty()).then(|| format!("vm.{}", range::compress(&vms))));
            left.extend((!taps.is_empty()).then(|| format!("tap.{}", range::compress(&taps))));
            if left.is_empty() {
                continue;
            }
            let message = format!(
                "`{host}` is to leave the hosts of namespace {}, and {} is on it",
                scene.name(),
                left.join(", ")
            );
            let hint = if vms.is_empty() {
                "remove that first, or keep the host: what is on a host that is none of the namespace runs on, and \
                 nothing shows it any more"
                    .to_owned()
            } else {
                format!(
                    "`--replace vm.{}` launches it on another host, and its guests reboot; or keep the host: what is on \
                     a host that is none of the namespace runs on, and nothing shows it any more",
                    range::compress(&vms)
                )
            };
            draft.problems.push(scene.problem("host-in-use", span, message, hint));
        }
    }

    /// Refuse hosts that the target does not reach.
    fn check_known(scene: &Scene<'_>, draft: &mut Draft) {
        let Some((hosts, span)) = wanted(scene, HOSTS_OF) else { return };
        let Some(sizes) = &scene.live.sizes else {
            draft.learn.insert(HOSTS);
            return;
        };
        if sizes.is_empty() {
            return;
        }
        let there = |host: &&String| {
            sizes.contains_key(*host)
                || *host == LOCALHOST
                || scene.live.placement.hosts.iter().flatten().any(|other| other == *host)
        };
        let unknown: Vec<&String> = hosts.iter().filter(|host| !there(host)).collect();
        let Some(first) = unknown.first() else { return };
        let known: Vec<&str> = sizes.keys().map(String::as_str).collect();
        let message = format!("the target reaches no host `{}`", range::compress(&unknown));
        let hint = match Suggester::default().nearest(first, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? `mesh list` shows the hosts of the mesh"),
            None => format!("it reaches {}; `mesh list` shows the hosts of the mesh", range::compress(&known)),
        };
        draft.problems.push(scene.problem("unknown-host", Some(span), message, hint));
    }

    /// Say where VMs have more than their hosts.
    fn sizes(scene: &Scene<'_>, draft: &mut Draft) {
        let (Some(hosts), Some(sizes)) = (hosts(scene), &scene.live.sizes) else { return };
        let known: Option<Vec<(&String, &HostSize)>> = hosts.iter().map(|host| sizes.get_key_value(host)).collect();
        let Some(known) = known.filter(|known| !known.is_empty()) else { return };
        let running = |vm: &&Vm| vm.body.state == RunState::Running;
        let memory = |vms: &[&Vm]| vms.iter().fold(0u64, |sum, vm| sum.saturating_add(vm.body.config.uint("memory")));
        let all: Vec<&Vm> = scene.experiment.vms.values().filter(running).collect();
        let text = |hosts: &[&String]| range::compress(hosts);
        if known.len() > 1 {
            for (host, size) in &known {
                let on = |vm: &&&Vm| scene.live.placement.named(&vm.body.config.text("schedule")) == host.as_str();
                let pinned: Vec<&Vm> = all.iter().filter(on).copied().collect();
                let sum = memory(&pinned);
                if sum > size.memory {
                    let vms = match pinned.len() {
                        1 => format!("the running VM that is to be on {host} has {sum} MB"),
                        many => format!("the {many} running VMs that are to be on {host} have {sum} MB together"),
                    };
                    draft.notes.push(format!("too-much-memory: {vms}, and {host} has {} MB", size.memory));
                }
            }
        }
        let total = known.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(size.memory));
        let sum = memory(&all);
        let names: Vec<&String> = known.iter().map(|(host, _)| *host).collect();
        if sum > total {
            let vms = match all.len() {
                1 => format!("the running VM has {sum} MB"),
                many => format!("the {many} running VMs have {sum} MB together"),
            };
            let hosts = text(&names);
            let hosts = match known.len() {
                1 => format!("{hosts} has {total} MB"),
                _ => format!("{hosts} have {total} MB together"),
            };
            draft.notes.push(format!("too-much-memory: {vms}, and {hosts}"));
        }
        let most = |vm: &Vm| {
            let host = vm.body.config.text("schedule");
            let host = scene.live.placement.named(&host);
            let fit = known.iter().filter(|(name, _)| host.is_empty() || name.as_str() == host);
            fit.map(|(_, size)| size.cpus).max()
        };
        let mut large: BTreeMap<(u64, u64), Vec<&str>> = BTreeMap::new();
        for (name, vm) in &scene.experiment.vms {
            let vcpus = vm.body.config.uint("vcpus");
            if let Some(most) = most(vm).filter(|most| vcpus > *most) {
                large.entry((vcpus, most)).or_default().push(name.as_str());
            }
        }
        for ((vcpus, most), vms) in large {
            draft.notes.push(format!(
                "too-many-cpus: {vcpus} vcpus for vm.{}, and no host that it can be on has more than {most} CPUs",
                range::compress(&vms)
            ));
        }
    }
}

/// Refuse to launch VMs on a host that is none of the namespace's, which the scheduler would refuse after other VMs are up.
/// The VMs share a body; the first name stands for them.
pub(super) fn check_launch(scene: &Scene<'_>, draft: &mut Draft, name: &str, vm: &Vm) {
    let text = |field: &str| Some(vm.body.config.text(field)).filter(|text| !text.is_empty());
    let place = |field: &str| vm.body.spans.get(field).copied().unwrap_or(vm.span);
    if text("colocate").is_some() {
        scene.needs(draft, &COLOCATE, &Address::new(Kind::Vm, name), place("colocate"));
    }
    let (Some(host), Some(hosts)) = (text("schedule"), hosts(scene)) else { return };
    let own = scene.live.placement.named(&host);
    if hosts.iter().any(|other| other == own || *other == host) {
        return;
    }
    let known = if hosts.is_empty() { "none".to_owned() } else { range::compress(&hosts) };
    let message = format!("vm.{name} is to be on `{host}`, and the hosts of namespace {} are: {known}", scene.name());
    let hint = match Suggester::default().nearest(&host, hosts.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "name one of these, or add it to `hosts` of `placement`".to_owned(),
    };
    draft.problems.push(scene.problem("schedule-host", Some(place("schedule")), message, hint));
}

/// The mark of what sets a setting back.
fn unmade(name: &str, was: &Made) -> Mark {
    Mark::Unmake { kind: Kind::Placement, name: name.to_owned(), was: Some(was.clone()), others: BTreeMap::new() }
}

/// The steps that flush VMs, by VM.
fn flushed(draft: &Draft) -> BTreeMap<&str, StepId> {
    let gone = draft.steps.iter().filter_map(|step| match &step.expect {
        super::super::Expect::Gone { names } => Some(names.iter().map(|name| (name.as_str(), step.id))),
        _ => None,
    });
    gone.flatten().collect()
}

/// The hosts among these with VMs that stay, which nobody would see any more if they were taken out.
fn still_used(scene: &Scene<'_>, draft: &mut Draft, hosts: &[String]) -> Vec<String> {
    let flushed: BTreeSet<String> = flushed(draft).into_keys().map(str::to_owned).collect();
    let stays = |vm: &&crate::live::LiveVm| hosts.contains(&vm.host) && !flushed.contains(&vm.name);
    let used: BTreeSet<String> = scene.live.vms.values().filter(stays).map(|vm| vm.host.clone()).collect();
    let used: Vec<String> = used.into_iter().collect();
    if !used.is_empty() {
        let list = range::compress(&used);
        draft.notes.push(format!("{list} stays a host of namespace {}, because VMs of others are on it", scene.name()));
    }
    used
}

/// The commands from one list of hosts to another.
fn host_steps(scene: &Scene<'_>, draft: &mut Draft, work: &Work) -> Vec<StepId> {
    let serves: Arc<[usize]> = Arc::from([work.change]);
    let Some(old) = &work.old else {
        // Which hosts a new namespace has depends on the mesh.
        let extra = Extra { mark: Some(work.mark.clone()), ..Extra::default() };
        let none = draft.step(&serves, &["ns", "del-hosts", "all"], extra);
        let extra = Extra { needs: vec![none], undo: Undo::Nothing, ..Extra::default() };
        return vec![draft.step(&serves, &["ns", "add-hosts", &range::compress(&work.new)], extra)];
    };
    let mut steps = Vec::new();
    let (come, go) = (minus(&work.new, old), minus(old, &work.new));
    if !come.is_empty() {
        let list = range::compress(&come);
        let undo = Undo::Command(draft.command(&["ns", "del-hosts", &list]));
        let extra = Extra { undo, mark: Some(work.mark.clone()), ..Extra::default() };
        steps.push(draft.step(&serves, &["ns", "add-hosts", &list], extra));
    }
    if !go.is_empty() {
        let list = range::compress(&go);
        let on = scene.live.vms.values().filter(|vm| go.contains(&vm.host));
        let flushed = flushed(draft);
        let mut needs: BTreeSet<StepId> = on.filter_map(|vm| flushed.get(vm.name.as_str())).copied().collect();
        needs.extend(&steps);
        let undo = Undo::Command(draft.command(&["ns", "add-hosts", &list]));
        let mark = steps.is_empty().then(|| work.mark.clone());
        let extra = Extra { needs: needs.into_iter().collect(), undo, mark, ..Extra::default() };
        steps.push(draft.step(&serves, &["ns", "del-hosts", &list], extra));
    }
    steps
}

fn load_steps(draft: &mut Draft, work: &Work) -> Vec<StepId> {
    let old = work.old.as_ref().map(|old| old.concat()).unwrap_or_else(|| USUAL_LOAD.to_owned());
    let undo = Undo::Command(draft.command(&["ns", "load", &old]));
    let extra = Extra { undo, mark: Some(work.mark.clone()), ..Extra::default() };
    vec![draft.step(&Arc::from([work.change]), &["ns", "load", &work.new.concat()], extra)]
}

impl<'a> Lower<'a> for Placements {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        if scene.destroy() {
            return;
        }
        let live = &scene.live.placement;
        let one = |value: &Option<String>| value.clone().map(|value| vec![value]);
        Self::check_known(scene, draft);
        self.hosts = Self::diff_setting(scene, draft, HOSTS_OF, live.hosts.clone());
        if let (Some(work), Some((_, span))) = (&self.hosts, wanted(scene, HOSTS_OF))
            && work.old.is_none()
        {
            scene.needs(draft, &DEL_ALL, &Address::new(Kind::Placement, HOSTS_OF), span);
        }
        self.load = Self::diff_setting(scene, draft, LOAD, one(&live.load));
        Self::sizes(scene, draft);
        if concerns(scene, QUEUEING) {
            self.left = queue::left(scene, draft);
            if self.left.is_none() && scene.experiment.declares(Kind::Placement, QUEUEING) {
                draft.unchanged.push(Address::new(Kind::Placement, QUEUEING));
            }
        }
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        // Everything else is removed by now.
        if !scene.destroy() {
            return self.check_left(scene, draft);
        }
        let goes = super::left_behind(scene, draft).is_empty() && *scene.name() != Namespace::default_namespace();
        if goes || !scene.live.present || scene.options.selection.is_partial() {
            return;
        }
        // The namespace stays, and gets back what it had.
        if let Some(change) = queue::left(scene, draft) {
            queue::clean(scene, draft, change);
        }
        let live = &scene.live.placement;
        for (name, now) in [(HOSTS_OF, live.hosts.clone()), (LOAD, live.load.clone().map(|load| vec![load]))] {
            let (Some(now), Some(remembered)) = (now, made(scene, name)) else { continue };
            let set = values(&remembered.facts, name).as_ref() == Some(&now);
            let Some(mut before) = values(&remembered.facts, BEFORE).filter(|_| set) else { continue };
            if name == HOSTS_OF {
                before.extend(still_used(scene, draft, &minus(&now, &before)));
                before.sort_by(|a, b| range::natural_cmp(a, b));
            }
            if before == now {
                continue;
            }
            let reason = Reason {
                field: name.to_owned(),
                old: Some(range::compress(&now)),
                new: Some(range::compress(&before)),
                place: None,
                drift: false,
            };
            let address = Address::new(Kind::Placement, name);
            let change = draft.change(address, Action::Update, None, vec![reason], Vec::<Cost>::new());
            draft.changes[change].goal = goal(name, &before);
            let work = Work { change, old: Some(now), new: before, mark: unmade(name, remembered) };
            if name == LOAD {
                load_steps(draft, &work);
            } else {
                host_steps(scene, draft, &work);
            }
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut ready = Vec::new();
        if let Some(change) = self.left {
            ready.extend(queue::clean(scene, draft, change));
        }
        if let Some(work) = &self.hosts {
            ready.extend(host_steps(scene, draft, work));
        }
        if let Some(work) = &self.load {
            ready.extend(load_steps(draft, work));
        }
        draft.placement_ready = ready;
    }
}
