//! Named pipes. Their settings change while they stay. What is left of a pipe that nobody asks for any more is set back, and the
//! pipe goes once no one uses it: `clear pipe` would end pipelines of others and hang up clients.
//!
//! So go pipes that pipelines of the experiment made without an entry: one without settings and users is as good as none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::advice::{Made, Mark};
use super::super::draft::{Draft, Extra};
use super::super::{Action, Cost, Goal, Reason, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, all, diff, one, words};
use super::plumbing::{PIPELINE, elements};
use super::{Lower, PIPE, Scene};
use crate::language::program;
use crate::live::{Facts, LiveObject, OTHERS, is_unset_pipe, same_program};
use crate::name::{Address, Kind, Namespace, pipeline_key, pipeline_pipes};
use crate::spec::model::Object;

/// What stands for a setting that neither the target tells nor the journal.
const UNKNOWN: &str = "not known";

/// What a pipe has by itself.
fn usual(key: &str) -> Option<&'static str> {
    match key {
        "mode" => Some("all"),
        "log" => Some("false"),
        _ => None,
    }
}

#[derive(Default)]
pub(super) struct Pipes {
    work: Vec<Work>,
}

/// The name by which a namespace's own commands call the pipe that an element of a pipeline is, if it is one.
fn short<'e>(namespace: &Namespace, element: &'e str) -> &'e str {
    let own = element.split_once("//").filter(|(of, _)| *of == namespace.as_str());
    own.map_or(element, |(_, name)| name)
}

/// The entry of a pipe.
fn object<'a>(scene: &Scene<'a>, name: &str) -> Option<&'a Object> {
    scene.experiment.objects.get(&Kind::Pipe)?.get(name)
}

/// The names of the pipes of the namespace in a line of `plumb`.
fn of_line(scene: &Scene<'_>, line: &str) -> Vec<String> {
    let own = |name: String| name.strip_prefix(&format!("{}//", scene.name())).map(str::to_owned);
    pipeline_pipes(line).into_iter().filter_map(|pipe| own(pipe.name)).collect()
}

/// What the pipelines of the file name, of which some are programs.
fn named<'a>(scene: &Scene<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let namespace = scene.name();
    scene.experiment.of(Kind::Plumbing).flat_map(move |(name, object)| {
        object.all(PIPELINE).iter().map(move |element| (name, short(namespace, &element.value)))
    })
}

/// Who uses a pipe besides the pipelines of its namespace.
pub(super) fn others(pipe: &LiveObject) -> Option<String> {
    pipe.facts.get(OTHERS).map(|others| others.join(", "))
}

/// The command that sets one setting, and None where a pipe has it by itself.
fn set(name: &str, key: &str, values: &[String]) -> Option<Vec<String>> {
    let value = values.first()?;
    let mut command = words(&["pipe", name, key]);
    match key {
        "via" => {
            let split = program::split(value).unwrap_or_default();
            // A single word with blanks is split once more.
            command.extend(if split.len() == 1 { vec![value.clone()] } else { split });
        }
        _ => command.push(value.clone()),
    }
    Some(command)
}

/// The command that makes a setting what it is to be.
fn change(name: &str, key: &str, values: &[String]) -> Vec<String> {
    let known = values.first().is_some_and(|value| value != UNKNOWN);
    set(name, key, values).filter(|_| known).unwrap_or_else(|| words(&["clear", "pipe", name, key]))
}

impl Pipes {
    fn items<'a>(scene: &Scene<'a>) -> Vec<Item<'a>> {
        let item = |(name, object): (&'a str, &'a Object)| {
            let mut item = Item::new(name, object, name.to_owned());
            for key in ["mode", "log", "via"] {
                let values = || usual(key).map(str::to_owned).into_iter().collect();
                item.facts.entry(key.to_owned()).or_insert_with(values);
            }
            item
        };
        scene.experiment.of(Kind::Pipe).map(item).collect()
    }

    /// What is live, as far as it concerns the experiment or somebody else set it.
    fn seen(scene: &Scene<'_>) -> Seen {
        let mut found = Seen::new();
        let advice = &scene.options.advice;
        let pipelines = scene.live.objects.get(&Kind::Plumbing).into_iter().flat_map(|all| all.values());
        let mut plumbed: BTreeSet<String> =
            pipelines.filter_map(|pipeline| pipeline.id.as_deref()).flat_map(|line| of_line(scene, line)).collect();
        plumbed.extend(named(scene).map(|(_, name)| name.to_owned()));
        for (name, live) in scene.live.objects.get(&Kind::Pipe).into_iter().flatten() {
            let item = object(scene, name);
            let address = (Kind::Pipe, name.clone());
            let made = advice.objects.get(&address);
            let foreign = !is_unset_pipe(&live.facts) || (others(live).is_some() && !plumbed.contains(name));
            if item.is_none() && made.is_none() && !foreign {
                continue;
            }
            // One that was set back, or never was set: it goes as what pipelines leave behind does.
            let protected = item.is_some_and(|item| item.lifecycle.prevent_destroy.is_some());
            if scene.destroy() && made.is_none() && is_unset_pipe(&live.facts) && !protected {
                continue;
            }
            let mut pipe = live.clone();
            pipe.facts.remove(OTHERS);
            if let (Some(wanted), Some(found)) = (item.and_then(|item| item.one("via")), one(&live.facts, "via"))
                && same_program(wanted, found)
                && !live.facts.contains_key("log")
            {
                pipe.facts.insert("via".to_owned(), vec![wanted.to_owned()]);
            }
            // A target that does not tell what is logged, and nobody else who does: what the file asks for is set.
            if !live.facts.contains_key("log") {
                let unsure = advice.unsure.contains(&address);
                let asked = item.and_then(|item| item.one("log")) == Some("true");
                let log = match made {
                    Some(made) if !unsure => all(&made.facts, "log").to_vec(),
                    _ if unsure || asked => words(&[UNKNOWN]),
                    _ => words(&["false"]),
                };
                pipe.facts.insert("log".to_owned(), log);
            }
            found.insert(name.clone(), pipe);
        }
        found
    }

    /// The pipes that are used after the plan, by pipelines that stay or are made.
    fn used(scene: &Scene<'_>, draft: &Draft) -> BTreeSet<String> {
        let pipelines = scene.live.objects.get(&Kind::Plumbing);
        let stay = pipelines.into_iter().flatten().filter(|(key, _)| !draft.ended.contains(*key));
        let mut used: BTreeSet<String> =
            stay.filter_map(|(_, pipeline)| pipeline.id.as_deref()).flat_map(|line| of_line(scene, line)).collect();
        for (_, object) in scene.experiment.of(Kind::Plumbing).filter(|_| !scene.destroy()) {
            let elements = elements(scene, object);
            let key = pipeline_key(scene.name(), &elements.join(" "));
            // Of one that stays, the target tells which elements are pipes.
            if draft.ended.contains(&key) || !pipelines.is_some_and(|live| live.contains_key(&key)) {
                used.extend(elements.iter().map(|element| short(scene.name(), element).to_owned()));
            }
        }
        used
    }

    /// The live pipes that pipelines of the experiment named which are not there any more, and that have no entry.
    fn left_over(scene: &Scene<'_>, draft: &Draft) -> BTreeSet<String> {
        let live = scene.live.objects.get(&Kind::Plumbing);
        let ended = draft.ended.iter().filter_map(|key| live?.get(key)?.id.as_deref());
        let mut names: BTreeSet<String> = ended.flat_map(|line| of_line(scene, line)).collect();
        // Those that ended by themselves leave their pipes too.
        let known = scene.options.advice.objects.iter();
        let known = known.filter(|((kind, name), _)| *kind == Kind::Plumbing && scene.has(*kind, name));
        for (_, made) in known {
            names.extend(all(&made.facts, PIPELINE).iter().map(|e| short(scene.name(), e).to_owned()));
        }
        if scene.destroy() {
            let ours = named(scene).filter(|(pipeline, _)| scene.has(Kind::Plumbing, pipeline));
            names.extend(ours.map(|(_, name)| name.to_owned()));
            let declared = scene.experiment.of(Kind::Pipe).map(|(name, _)| name);
            names.extend(declared.filter(|name| scene.has(Kind::Pipe, name)).map(str::to_owned));
        }
        names
    }

    /// Set a pipe back that stays, and forget it.
    fn set_back(&self, draft: &mut Draft, work: &Work, old: &Made) {
        let serves: Arc<[usize]> = Arc::from([work.change]);
        let mut needs = Vec::new();
        // The last one is sent in any case: with its answer the pipe is forgotten.
        for key in ["via", "log", "mode"] {
            let values = all(&old.facts, key);
            let is_usual = values.first().map(String::as_str) == usual(key);
            if is_usual && key != "mode" {
                continue;
            }
            let undo = Undo::Command(draft.command(&change(&work.name, key, values)));
            let mark = if key == "mode" { work.unmade(Kind::Pipe) } else { None };
            let extra = Extra { needs, undo, mark, ..Extra::default() };
            needs = vec![draft.step(&serves, &["clear", "pipe", &work.name, key], extra)];
        }
    }

    /// What makes a pipe that is cleared as it was.
    fn again(draft: &mut Draft, name: &str, facts: &Facts) -> Undo {
        let mut commands = vec![draft.command(&change(name, "mode", all(facts, "mode")))];
        for key in ["log", "via"] {
            if let Some(command) = set(name, key, all(facts, key)).filter(|words| words[3] != UNKNOWN) {
                commands.push(draft.command(&command));
            }
        }
        Undo::Commands(commands.into())
    }
}

impl<'a> Lower<'a> for Pipes {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let items = Self::items(scene);
        if !scene.has_command(draft, Kind::Pipe, &PIPE) {
            return;
        }
        let rules = Rules {
            kind: Kind::Pipe,
            section: "pipes",
            in_place: &|_, _, _| true,
            open: &[],
            forced: &|_| None,
            cost: Cost::PipelineEnds,
        };
        let seen = Self::seen(scene);
        self.work = diff(scene, draft, &rules, &items, &seen);
        for work in &self.work {
            let change = &mut draft.changes[work.change];
            // No pipe goes that anybody uses.
            change.costs.clear();
            if change.action == Action::Create {
                let object = object(scene, &work.name);
                change.reasons.retain(|reason| object.is_some_and(|o| o.settings.contains_key(reason.field.as_str())));
            }
        }
    }

    fn remove(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let used = Self::used(scene, draft);
        let live = scene.live.objects.get(&Kind::Pipe);
        let users = |name: &str| live.and_then(|pipes| others(pipes.get(name)?));
        // After the pipelines, which would end by it.
        let mut after: Vec<StepId> = draft
            .removed
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::Plumbing)
            .flat_map(|(_, s)| s.clone())
            .collect();
        after.sort_unstable();
        for work in self.work.iter().filter(|work| work.new.is_none()) {
            let Some(old) = &work.old else { continue };
            let why = match users(&work.name) {
                Some(users) => Some(format!("others use it ({users})")),
                None if used.contains(&work.name) => Some("pipelines use it".to_owned()),
                None => None,
            };
            if let Some(why) = why {
                self.set_back(draft, work, old);
                draft
                    .notes
                    .push(format!("pipe.{} is set back to what pipes are by themselves, and stays: {why}", work.name));
                draft.changes[work.change].goal =
                    Arc::new(Goal::Object { key: work.name.clone(), facts: Some(Facts::new()) });
                continue;
            }
            let undo = Self::again(draft, &work.name, &old.facts);
            let extra = Extra { after: after.clone(), undo, mark: work.unmade(Kind::Pipe), ..Extra::default() };
            draft.step(&Arc::from([work.change]), &["clear", "pipe", &work.name], extra);
        }
        let declared = |name: &str| !scene.destroy() && scene.experiment.declares(Kind::Pipe, name);
        for name in Self::left_over(scene, draft) {
            let Some(pipe) = live.and_then(|pipes| pipes.get(&name)) else { continue };
            let entry = declared(&name) || self.work.iter().any(|work| work.name == name);
            if entry || used.contains(&name) || others(pipe).is_some() || !is_unset_pipe(&pipe.facts) {
                continue;
            }
            // An entry that the plan leaves out.
            if scene.options.advice.objects.contains_key(&(Kind::Pipe, name.clone())) {
                continue;
            }
            let reason = Reason {
                field: "pipe".to_owned(),
                old: Some("no pipeline has it any more".to_owned()),
                new: Some("cleared".to_owned()),
                place: None,
                drift: false,
            };
            let reasons = if scene.destroy() { Vec::new() } else { vec![reason] };
            let place = object(scene, &name).and_then(|object| scene.place(object.span));
            let change = draft.change(Address::new(Kind::Pipe, &name), Action::Destroy, place, reasons, Vec::new());
            draft.changes[change].goal = Arc::new(Goal::Object { key: name.clone(), facts: None });
            let undo = Undo::Command(draft.command(&["pipe", &name, "mode", "all"]));
            let extra = Extra { after: after.clone(), undo, ..Extra::default() };
            draft.step(&Arc::from([change]), &["clear", "pipe", &name], extra);
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        for work in &self.work {
            let Some(new) = &work.new else { continue };
            let object = object(scene, &work.name);
            let serves: Arc<[usize]> = Arc::from([work.change]);
            let old = work.old.as_ref();
            let mut now = old.cloned().unwrap_or_else(|| Made { key: new.key.clone(), facts: Facts::new() });
            let mut last: Vec<StepId> = Vec::new();
            // The first makes a pipe that is not there.
            for key in ["mode", "via", "log"] {
                if old.is_some() && object.is_some_and(|object| object.lifecycle.ignores(key)) {
                    continue;
                }
                let (before, wanted) = (old.map(|old| all(&old.facts, key)), all(&new.facts, key));
                let asked = work.anew && (key == "mode" || !wanted.is_empty());
                let differs = match before {
                    Some(before) => before != wanted,
                    None => key == "mode" || wanted.first().map(String::as_str) != usual(key),
                };
                if !(asked || differs) {
                    now.facts.insert(key.to_owned(), wanted.to_vec());
                    continue;
                }
                let makes = old.is_none() && key == "mode";
                let undo = match (makes, before) {
                    (true, _) => words(&["clear", "pipe", &work.name]),
                    (false, Some(before)) => change(&work.name, key, before),
                    (false, None) => words(&["clear", "pipe", &work.name, key]),
                };
                let undo = Undo::Command(draft.command(&undo));
                // Each is remembered as it is after its command: what the target does not show is known no sooner.
                let was = (!makes).then(|| now.clone());
                now.facts.insert(key.to_owned(), wanted.to_vec());
                if makes {
                    now.facts.insert("log".to_owned(), words(&["false"]));
                    now.facts.insert("via".to_owned(), Vec::new());
                }
                let (kind, name, made) = (Kind::Pipe, work.name.clone(), now.clone());
                let mark = Mark::Make { kind, name, made, new: makes, was, others: Default::default() };
                let extra = Extra { needs: last, undo, mark: Some(mark), ..Extra::default() };
                last = vec![draft.step(&serves, &change(&work.name, key, wanted), extra)];
            }
            draft.pipes_ready.insert(work.name.clone(), last);
        }
    }
}
