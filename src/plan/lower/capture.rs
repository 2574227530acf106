//! Captures. minimega stops those of a VM, or of a bridge, all at once, so the others of it are started again where one of
//! them goes. Length and filter are settings of the namespace, set right before a capture starts and set back after it. What
//! a target that died in between has kept is known by its value, which is that of a capture of the experiment, and set back.
//!
//! A capture of a VM that is launched starts before its guest does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::draft::{Draft, Extra, Pending};
use super::super::{Action, Cost, Mark, Reason, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, diff, launched, one, seen, words};
use super::{Lower, Scene};
use crate::live::{Facts, find, named};
use crate::name::{Address, Kind};

/// A setting of the namespace: the key of the file, the words of the command, and what minimega begins with.
struct Setting {
    key: &'static str,
    command: &'static str,
    initial: &'static str,
    /// It is set back afterwards.
    back: bool,
}

const SETTINGS: &[Setting] = &[
    Setting { key: "snaplen", command: "capture pcap snaplen", initial: "1600", back: true },
    Setting { key: "filter", command: "capture pcap filter", initial: "", back: true },
    Setting { key: "format", command: "capture netflow mode", initial: "raw", back: true },
    Setting { key: "gzip", command: "capture netflow gzip", initial: "false", back: true },
    // One for all bridges at any time: set back, it would change for those that run.
    Setting { key: "timeout", command: "capture netflow timeout", initial: "", back: false },
];

impl Setting {
    /// What new captures of the namespace get now, as far as the target was asked.
    fn now(&self, scene: &Scene<'_>) -> Option<String> {
        scene.live.help.get(self.command).map(|text| text.trim().to_owned())
    }

    fn set(&self, value: &str) -> Vec<String> {
        self.command.split(' ').chain([value]).map(str::to_owned).collect()
    }

    /// The value that an apply which was cut off has left, with the item that it was for.
    fn left<'i, 'a>(
        &self,
        scene: &Scene<'_>,
        draft: &mut Draft,
        items: &'i [Item<'a>],
    ) -> Option<(&'i Item<'a>, String)> {
        let wants = |item: &&Item<'_>| one(&item.facts, self.key).is_some_and(|wanted| wanted != self.initial);
        // Where the journal knows of no apply, somebody else may want it so.
        let begun = |item: &&Item<'_>| {
            scene.has(Kind::Capture, item.name)
                && scene.options.advice.objects.contains_key(&(Kind::Capture, item.name.to_owned()))
        };
        let mut wanted = items.iter().filter(wants).filter(begun).peekable();
        if !self.back || scene.destroy() || !scene.live.present || wanted.peek().is_none() {
            return None;
        }
        let Some(now) = self.now(scene) else {
            draft.learn.insert(self.command);
            return None;
        };
        let item = wanted.find(|item| one(&item.facts, self.key) == Some(now.as_str()))?;
        Some((item, now))
    }
}

/// What is stopped by one command.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Vm(String),
    Bridge(String),
    Netflow(String),
}

impl Group {
    fn of(facts: &Facts) -> Option<Self> {
        let bridge = || one(facts, "bridge").map(str::to_owned);
        match (one(facts, "vm"), one(facts, "type")) {
            (Some(vm), _) => Some(Self::Vm(vm.to_owned())),
            (None, Some("netflow")) => bridge().map(Self::Netflow),
            (None, _) => bridge().map(Self::Bridge),
        }
    }

    fn stop(&self) -> Vec<String> {
        match self {
            Self::Vm(vm) => words(&["capture", "pcap", "delete", "vm", vm]),
            Self::Bridge(bridge) => words(&["capture", "pcap", "delete", "bridge", bridge]),
            Self::Netflow(bridge) => words(&["capture", "netflow", "delete", "bridge", bridge]),
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(vm) => write!(f, "vm.{vm}"),
            Self::Bridge(bridge) | Self::Netflow(bridge) => write!(f, "bridge {bridge}"),
        }
    }
}

fn start(facts: &Facts) -> Vec<String> {
    let value = |key: &str| one(facts, key).unwrap_or_default().to_owned();
    if let Some(vm) = one(facts, "vm") {
        return words(&["capture", "pcap", "vm", vm, &value("interface"), &value("file")]);
    }
    match (one(facts, "type"), one(facts, "to").and_then(|to| to.split_once("://"))) {
        (Some("netflow"), Some((scheme, host))) => {
            words(&["capture", "netflow", "bridge", &value("bridge"), scheme, host])
        }
        (Some("netflow"), None) => words(&["capture", "netflow", "bridge", &value("bridge"), &value("file")]),
        _ => words(&["capture", "pcap", "bridge", &value("bridge"), &value("file")]),
    }
}

/// Settings that an apply which was cut off has left set, with the change that sets them back.
type Left = Vec<(&'static Setting, usize)>;

#[derive(Default)]
pub(super) struct Captures {
    work: Vec<Work>,
    stopped: BTreeMap<Group, StepId>,
    left: Left,
    /// How many the file has of each group.
    wanted: BTreeMap<Group, usize>,
    /// What is live of each group, by key.
    there: BTreeMap<Group, Vec<(String, Facts)>>,
    /// What the file says of those that are live, by key.
    declared: BTreeMap<String, Facts>,
    /// What is remembered of those that are live, by key.
    known: BTreeMap<String, Facts>,
}

impl Captures {
    /// What is stopped along with what goes must be started again, unless it goes too; refuse where it is somebody else's.
    fn with_them<'a>(&mut self, scene: &Scene<'a>, draft: &mut Draft, items: &[Item<'a>], seen: &Seen) {
        let goes = |work: &&Work| work.removes();
        let groups: BTreeMap<Group, String> = self
            .work
            .iter()
            .filter(goes)
            .filter_map(|work| Some((Group::of(&work.old.as_ref()?.facts)?, work.name.clone())))
            .collect();
        for (key, live) in seen {
            let Some((group, because)) = Group::of(&live.facts).and_then(|group| groups.get_key_value(&group)) else {
                continue;
            };
            if self.work.iter().any(|work| work.removes() && work.old.as_ref().is_some_and(|old| old.key == *key)) {
                continue;
            }
            let Some(item) = items.iter().find(|item| item.key == *key).filter(|_| !scene.destroy()) else {
                let message = format!(
                    "the capture into {key} is not the experiment's, and would be stopped with capture.{because}: minimega stops all captures of {group} at once"
                );
                let hint = format!("stop it by hand (`{}`), or leave capture.{because} out", group.stop().join(" "));
                draft.problems.push(scene.problem("capture-shared", None, message, hint));
                continue;
            };
            if scene.scope.excludes(Kind::Capture, item.name) {
                let message = format!(
                    "capture.{} is left out, and would be stopped with capture.{because}: minimega stops all captures of {group} at once",
                    item.name
                );
                let hint = format!("leave capture.{because} out too, or take capture.{} in", item.name);
                draft.problems.push(scene.problem("capture-left-out", Some(item.object.span), message, hint));
                continue;
            }
            draft.unchanged.retain(|address| *address != Address::new(Kind::Capture, item.name));
            let reason = Reason {
                field: group.to_string(),
                old: Some(format!("is stopped with capture.{because}")),
                new: Some("started again".to_owned()),
                place: scene.place(item.object.span),
                drift: false,
            };
            let made = |facts: &Facts| super::super::Made { key: key.clone(), facts: facts.clone() };
            match self.work.iter_mut().find(|work| work.name == item.name && !work.former) {
                // It changes anyway.
                Some(work) => work.anew = true,
                None => {
                    let place = scene.place(item.object.span);
                    let address = Address::new(Kind::Capture, item.name);
                    let change =
                        draft.change(address, Action::Replace, place, vec![reason], vec![Cost::CaptureRestarted]);
                    draft.changes[change].goal = super::object::goal(item);
                    let known = scene.options.advice.objects.get(&(Kind::Capture, item.name.to_owned()));
                    let mut facts = known.map(|made| made.facts.clone()).unwrap_or_default();
                    facts.extend(live.facts.clone());
                    self.work.push(Work {
                        name: item.name.to_owned(),
                        change,
                        old: Some(made(&facts)),
                        id: None,
                        new: Some(made(&item.facts)),
                        anew: true,
                        former: false,
                    });
                }
            }
        }
        self.work.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Find the settings that an apply which was cut off has left set.
    fn find_left(&mut self, scene: &Scene<'_>, draft: &mut Draft, items: &[Item<'_>]) {
        for setting in SETTINGS {
            let Some((item, now)) = setting.left(scene, draft, items) else { continue };
            let address = Address::new(Kind::Capture, item.name);
            let reason = Reason {
                field: format!("`{}`", setting.command),
                old: Some(format!("`{now}`, left by an apply that was cut off")),
                new: Some(format!("`{}`", setting.initial)),
                place: scene.place(item.object.place(setting.key)),
                drift: true,
            };
            let change = match draft.changes.iter().position(|change| change.address == address) {
                Some(change) => {
                    draft.changes[change].reasons.push(reason);
                    change
                }
                None => {
                    draft.unchanged.retain(|there| *there != address);
                    let place = scene.place(item.object.span);
                    let change = draft.change(address, Action::Restore, place, vec![reason], Vec::new());
                    draft.changes[change].goal = super::object::goal(item);
                    change
                }
            };
            self.left.push((setting, change));
        }
    }

    /// What starts those of a group again that are there before the plan and are not stopped by it, because what takes the start
    /// of one back stops them all. None where the target does not tell what somebody else's was started with.
    fn again(&self, scene: &Scene<'_>, draft: &mut Draft, group: &Group) -> Option<Vec<String>> {
        let mut lines = Vec::new();
        // Taking back what stops them starts them again.
        let there = self.there.get(group).into_iter().flatten().filter(|_| !self.stopped.contains_key(group));
        for (key, live) in there {
            let (declared, made) = (self.declared.get(key), self.known.get(key));
            let mut facts = declared.cloned().unwrap_or_default();
            facts.extend(made.cloned().unwrap_or_default());
            facts.extend(live.clone());
            let told: &[&str] = match one(&facts, "type") {
                Some("netflow") => &["format"],
                _ => &["snaplen", "filter"],
            };
            if declared.is_none() && made.is_none() && told.iter().any(|key| !facts.contains_key(*key)) {
                return None;
            }
            let (before, after) = settings(scene, draft, &self.left, &facts);
            lines.extend(before.into_iter().chain([start(&facts)]).chain(after).map(|words| draft.command(&words)));
        }
        Some(lines)
    }

    /// What starts a capture, with the settings around it.
    fn pending(&self, scene: &Scene<'_>, draft: &mut Draft, work: &Work) -> Option<Pending> {
        let new = work.new.as_ref()?;
        let (before, after) = settings(scene, draft, &self.left, &new.facts);
        let group = Group::of(&new.facts)?;
        // What stops another of the group would stop it too.
        let stopped = self.stopped.get(&group).copied().into_iter().collect();
        let end = draft.command(&group.stop());
        let undo = match self.again(scene, draft, &group) {
            // The only one, before and after.
            Some(again) if again.is_empty() && self.wanted.get(&group) == Some(&1) => Undo::Command(end),
            Some(again) => Undo::Together { end, again: again.into() },
            None => Undo::Impossible,
        };
        Some(Pending {
            serves: Arc::from([work.change]),
            needs: stopped,
            before,
            command: start(&new.facts),
            after,
            undo,
            mark: work.made(Kind::Capture),
        })
    }
}

/// The settings of the namespace that a capture needs, and what sets them back.
fn settings(scene: &Scene<'_>, draft: &mut Draft, left: &Left, facts: &Facts) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for setting in SETTINGS {
        let Some(wanted) = one(facts, setting.key) else { continue };
        let set_back = left.iter().any(|(left, _)| left.key == setting.key);
        let known = setting.now(scene).map(|now| if set_back { setting.initial.to_owned() } else { now });
        if known.is_none() && scene.live.present && setting.back {
            draft.learn.insert(setting.command);
        }
        // It is not documented which one minimega begins with.
        let sure = known.is_some() || setting.key != "format";
        let now = known.unwrap_or_else(|| setting.initial.to_owned());
        if sure && now == wanted {
            continue;
        }
        before.push(setting.set(wanted));
        if setting.back {
            after.push(setting.set(&now));
        }
    }
    (before, after)
}

impl<'a> Lower<'a> for Captures {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let seen = seen(scene, Kind::Capture);
        let mut items: Vec<Item<'a>> = scene
            .experiment
            .of(Kind::Capture)
            .map(|(name, object)| {
                let key = object.one("to").or(object.one("file")).unwrap_or_default().to_owned();
                Item::new(name, object, key)
            })
            .collect();
        // Others name theirs in full.
        let named: BTreeSet<String> = items.iter().map(|item| item.key.clone()).collect();
        for item in items.iter_mut().filter(|item| item.facts.contains_key("file")) {
            if let Some((found, _)) =
                find(&seen, &item.key, Some(&item.facts)).filter(|(found, _)| !named.contains(*found))
            {
                item.facts.insert("file".to_owned(), vec![found.clone()]);
                item.key.clone_from(found);
            }
        }
        let launches = draft.launched.clone();
        let forced = |item: &Item<'_>| {
            let vm = one(&item.facts, "vm").filter(|vm| launches.contains(*vm))?;
            Some(launched(vm, scene.place(item.object.place("vm"))))
        };
        let rules = Rules {
            kind: Kind::Capture,
            section: "captures",
            in_place: &|_, _, _| false,
            open: &["snaplen", "filter", "format", "gzip", "timeout"],
            forced: &forced,
            cost: Cost::CaptureRestarted,
        };
        self.work = diff(scene, draft, &rules, &items, &seen);
        self.with_them(scene, draft, &items, &seen);
        self.find_left(scene, draft, &items);
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
        for (at, work) in self.work.iter().enumerate().filter(|(_, work)| work.removes()) {
            if let Some(group) = work.old.as_ref().and_then(|old| Group::of(&old.facts)) {
                groups.entry(group).or_default().push(at);
            }
        }
        for (group, members) in groups {
            let serves: Arc<[usize]> = members.iter().map(|at| self.work[*at].change).collect();
            let olds =
                || members.iter().filter_map(|at| Some((self.work[*at].name.clone(), self.work[*at].old.clone()?)));
            let mut undo: Vec<String> = Vec::new();
            for (_, old) in olds() {
                let (before, after) = settings(scene, draft, &self.left, &old.facts);
                let lines = before.into_iter().chain([start(&old.facts)]).chain(after);
                undo.extend(lines.map(|words| draft.command(&words)).collect::<Vec<_>>());
            }
            let undo = Undo::Commands(undo.into());
            let mut marks = members.iter().filter_map(|at| self.work[*at].unmade(Kind::Capture));
            let mark = marks.next().map(|mark| match mark {
                Mark::Unmake { kind, name, was, .. } => {
                    let others = marks.filter_map(|mark| match mark {
                        Mark::Unmake { name, was, .. } => Some((name, was?)),
                        _ => None,
                    });
                    Mark::Unmake { kind, name, was, others: others.collect() }
                }
                mark => mark,
            });
            let extra = Extra { undo, mark, ..Extra::default() };
            let step = draft.step(&serves, &group.stop(), extra);
            for at in &members {
                draft.removed.entry((Kind::Capture, self.work[*at].name.clone())).or_default().push(step);
            }
            if let Group::Vm(vm) = &group {
                draft.before_end.entry(vm.clone()).or_default().push(step);
            }
            self.stopped.insert(group, step);
        }
        for (name, object) in scene.experiment.of(Kind::Capture).filter(|_| self.work.iter().any(Work::makes)) {
            if let Some(group) = Group::of(&Item::new(name, object, String::new()).facts) {
                *self.wanted.entry(group).or_default() += 1;
            }
        }
        for (key, live) in scene.live.objects.get(&Kind::Capture).into_iter().flatten() {
            if let Some(group) = Group::of(&live.facts) {
                self.there.entry(group).or_default().push((key.clone(), live.facts.clone()));
            }
        }
        if let Some(all) = scene.live.objects.get(&Kind::Capture).filter(|_| !self.wanted.is_empty()) {
            let items: Vec<Item<'_>> = scene
                .experiment
                .of(Kind::Capture)
                .filter_map(|(name, object)| {
                    let key = object.one("to").or(object.one("file"))?;
                    Some(Item::new(name, object, key.to_owned()))
                })
                .collect();
            let made = scene.options.advice.objects.iter().filter(|((kind, _), _)| *kind == Kind::Capture);
            let made = made.map(|(_, made)| (made.key.as_str(), &made.facts, &made.facts));
            let own = |found: BTreeMap<&str, &Facts>| {
                found.into_iter().map(|(key, facts)| (key.to_owned(), facts.clone())).collect()
            };
            self.declared = own(named(all, items.iter().map(|item| (item.key.as_str(), &item.facts, &item.facts))));
            self.known = own(named(all, made));
        }
        for (setting, change) in &self.left {
            draft.settings(&Arc::from([*change]), &[setting.set(setting.initial)], &[]);
        }
        for work in self.work.iter().filter(|work| work.makes()) {
            let Some(pending) = self.pending(scene, draft, work) else { continue };
            let vm = work.new.as_ref().and_then(|new| one(&new.facts, "vm"));
            draft.pending.entry(vm.map(str::to_owned)).or_default().push(pending);
        }
    }

    fn build(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        // Those of VMs that are launched or started are under way already.
        let left: Vec<Option<String>> = draft.pending.keys().cloned().collect();
        for vm in left {
            let needs: Vec<StepId> = vm.as_ref().and_then(|vm| draft.vms_ready.get(vm)).cloned().unwrap_or_default();
            draft.start_pending(vm.as_ref(), &needs);
        }
    }
}
