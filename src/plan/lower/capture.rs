//! Captures. minimega stops those of a VM, or of a bridge, all at once, so the others of it are started again where one of
//! them goes. Length and filter are settings of the namespace, set right before a capture starts and set back after it.
//!
//! A capture of a VM that is launched starts before its guest does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::draft::{Draft, Extra, Pending};
use super::super::{Action, Cost, Reason, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, diff, launched, one, seen, words};
use super::{Lower, Scene};
use crate::live::{Facts, find};
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

#[derive(Default)]
pub(super) struct Captures {
    work: Vec<Work>,
    stopped: BTreeMap<Group, StepId>,
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
                    self.work.push(Work {
                        name: item.name.to_owned(),
                        change,
                        old: Some(made(&live.facts)),
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

    /// What starts a capture, with the settings around it.
    fn pending(scene: &Scene<'_>, draft: &mut Draft, work: &Work) -> Option<Pending> {
        let new = work.new.as_ref()?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for setting in SETTINGS {
            let Some(wanted) = one(&new.facts, setting.key) else { continue };
            let known = scene.live.help.get(setting.command).map(|text| text.trim().to_owned());
            if known.is_none() && scene.live.present && setting.back {
                draft.learn.insert(setting.command);
            }
            // It is not documented which one minimega begins with.
            let sure = known.is_some() || setting.key != "format";
            let now = known.unwrap_or_else(|| setting.initial.to_owned());
            if sure && now == wanted {
                continue;
            }
            let command =
                |value: &str| setting.command.split(' ').chain([value]).map(str::to_owned).collect::<Vec<_>>();
            before.push(command(wanted));
            if setting.back {
                after.push(command(&now));
            }
        }
        let group = Group::of(&new.facts)?;
        let stopped = draft.removed.get(&(Kind::Capture, work.name.clone())).cloned().unwrap_or_default();
        // Others of the group would be stopped with it.
        let alone = self_alone(scene, &group);
        let undo =
            if alone && work.old.is_none() { Undo::Command(draft.command(&group.stop())) } else { Undo::Impossible };
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

/// No other capture is in a group, wanted or live.
fn self_alone(scene: &Scene<'_>, group: &Group) -> bool {
    let live = scene.live.objects.get(&Kind::Capture).into_iter().flat_map(|captures| captures.values());
    let there = live.filter(|live| Group::of(&live.facts).as_ref() == Some(group)).count();
    let wanted = scene
        .experiment
        .of(Kind::Capture)
        .filter(|(name, object)| Group::of(&Item::new(name, object, String::new()).facts).as_ref() == Some(group));
    there == 0 && wanted.count() == 1
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
        for item in &mut items {
            // A relative path is one in the engine's files folder, which is not known here.
            if item.facts.contains_key("file")
                && let Some((found, _)) = find(&seen, &item.key)
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
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
        for (at, work) in self.work.iter().enumerate().filter(|(_, work)| work.removes()) {
            if let Some(group) = work.old.as_ref().and_then(|old| Group::of(&old.facts)) {
                groups.entry(group).or_default().push(at);
            }
        }
        for (group, members) in groups {
            // Each is forgotten by a step of its own; where several go, the others are not forgotten before they are gone.
            let serves: Arc<[usize]> = members.iter().map(|at| self.work[*at].change).collect();
            let undo: Vec<String> = members
                .iter()
                .filter_map(|at| self.work[*at].old.as_ref())
                .map(|old| draft.command(&start(&old.facts)))
                .collect();
            let unmade: BTreeSet<usize> = members.iter().copied().filter(|at| self.work[*at].new.is_none()).collect();
            let mark = unmade.first().and_then(|at| self.work[*at].unmade(Kind::Capture));
            let extra = Extra { undo: Undo::Commands(undo.into()), mark, ..Extra::default() };
            let step = draft.step(&serves, &group.stop(), extra);
            for at in &members {
                draft.removed.entry((Kind::Capture, self.work[*at].name.clone())).or_default().push(step);
            }
            if let Group::Vm(vm) = &group {
                draft.before_end.entry(vm.clone()).or_default().push(step);
            }
            self.stopped.insert(group, step);
        }
        for work in self.work.iter().filter(|work| work.makes()) {
            let Some(pending) = Self::pending(scene, draft, work) else { continue };
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
