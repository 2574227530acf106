//! Pipelines (`plumb`). One is known by its line, which is all that it is: another line is another pipeline. One whose program
//! ended is listed no more, so it is gone and is made again. What becomes of
//! its pipes is a matter of theirs (`pipe`).

use std::sync::Arc;

use super::super::draft::{Draft, Extra};
use super::super::{Cost, StepId, Undo};
use super::object::{Item, Rules, Seen, Work, all, diff, seen, words};
use super::{Lower, PLUMB, Scene};
use crate::live::{ELEMENTS, Facts};
use crate::name::{Kind, ObjectName, pipeline_key, pipeline_words};
use crate::spec::model::Object;

/// The key with the elements.
pub(super) const PIPELINE: &str = "pipeline";

#[derive(Default)]
pub(super) struct Pipelines {
    work: Vec<Work>,
}

fn plumb(facts: &Facts) -> Vec<String> {
    [words(&["plumb"]), all(facts, PIPELINE).to_vec()].concat()
}

fn clear(elements: &[String]) -> Vec<String> {
    [words(&["clear", "plumb"]), elements.to_vec()].concat()
}

/// The elements of a pipeline of the file. A pipe that is declared has its whole name, even where a program of the host is
/// called so.
pub(super) fn elements(scene: &Scene<'_>, object: &Object) -> Vec<String> {
    let whole = |element: &str| match scene.experiment.pipe(element) {
        Some(pipe) => format!("{}//{pipe}", scene.name()),
        None => element.to_owned(),
    };
    object.all(PIPELINE).iter().map(|element| whole(&element.value)).collect()
}

/// What is live, with its elements: as the file writes them where they are the same ones. Where the target does not tell which
/// words are one program, it is as the journal knows it, or as the file has it.
fn written(scene: &Scene<'_>, items: &[Item<'_>]) -> Seen {
    let mut found = seen(scene, Kind::Plumbing);
    let short = |elements: &[String]| -> Vec<String> {
        elements.iter().map(|element| pipeline_key(scene.name(), element)).collect()
    };
    // In the file a pipe may stand by its whole name, which is never a program, or not.
    let is = |told: &String, item: &String| told == item || pipeline_key(scene.name(), told) == *item;
    for (key, pipeline) in &mut found {
        let mut known = scene.options.advice.objects.iter().filter(|((kind, _), _)| *kind == Kind::Plumbing);
        let known = known.find(|(_, made)| made.key == *key).map(|(_, made)| all(&made.facts, PIPELINE).to_vec());
        let item = items.iter().find(|item| item.key == *key).map(|item| all(&item.facts, PIPELINE));
        let elements = match (pipeline.facts.remove(ELEMENTS), known, item) {
            (Some(told), _, Some(item))
                if told.len() != item.len() || !told.iter().zip(item).all(|(t, i)| is(t, i)) =>
            {
                told
            }
            (None, Some(made), Some(item)) if short(&made) != short(item) => made,
            (_, _, Some(item)) => item.to_vec(),
            (Some(told), _, None) | (None, Some(told), None) => told,
            (None, None, None) => pipeline_words(key),
        };
        pipeline.facts.insert(PIPELINE.to_owned(), elements);
    }
    found
}

/// What takes messages comes before what sends them, so that the first ones are not lost; pipelines that go round come in any
/// order.
fn ordered<'w>(work: &[&'w Work]) -> Vec<(&'w Work, Vec<usize>)> {
    let elements = |work: &'w Work| work.new.as_ref().map(|new| all(&new.facts, PIPELINE)).unwrap_or_default();
    let feeds = |from: &'w Work, to: &'w Work| {
        let (ends, starts) = (elements(from).get(1..), elements(to).split_last());
        let (ends, starts) = (ends.unwrap_or_default(), starts.map(|(_, starts)| starts).unwrap_or_default());
        // The same program twice is two programs, which does no harm here.
        ends.iter().any(|end| starts.contains(end))
    };
    let mut order: Vec<(&Work, Vec<usize>)> = Vec::new();
    let mut left = work.to_vec();
    while !left.is_empty() {
        let free = |one: &&'w Work| !left.iter().any(|other| !std::ptr::eq(*other, *one) && feeds(one, other));
        let next = left.iter().position(free).unwrap_or(0);
        let next = left.remove(next);
        let after = order.iter().enumerate().filter(|(_, (other, _))| feeds(next, other)).map(|(at, _)| at).collect();
        order.push((next, after));
    }
    order
}

impl<'a> Lower<'a> for Pipelines {
    fn diff(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let item = |(name, object): (&'a str, &'a Object)| {
            let elements = elements(scene, object);
            let mut item = Item::new(name, object, pipeline_key(scene.name(), &elements.join(" ")));
            item.facts.insert(PIPELINE.to_owned(), elements);
            item
        };
        let items: Vec<Item<'a>> = scene.experiment.of(Kind::Plumbing).map(item).collect();
        if !scene.has_command(draft, Kind::Plumbing, &PLUMB) {
            return;
        }
        let rules = Rules {
            kind: Kind::Plumbing,
            section: "plumbing",
            in_place: &|_, _, _| false,
            open: &[],
            forced: &|_| None,
            cost: Cost::PipelineEnds,
        };
        let seen = written(scene, &items);
        self.work = diff(scene, draft, &rules, &items, &seen);
    }

    fn remove(&mut self, _scene: &Scene<'a>, draft: &mut Draft) {
        for work in self.work.iter().filter(|work| work.removes()) {
            let Some(old) = &work.old else { continue };
            // As the target shows it; where it shows none, as it was made.
            let shown = work.id.as_ref().map(|line| pipeline_words(line));
            let elements = all(&old.facts, PIPELINE);
            let undo = match elements {
                [] => Undo::Impossible,
                _ => Undo::Command(draft.command(&plumb(&old.facts))),
            };
            let extra = Extra { undo, mark: work.unmade(Kind::Plumbing), ..Extra::default() };
            let clear = clear(shown.as_deref().unwrap_or(elements));
            let step = draft.step(&Arc::from([work.change]), &clear, extra);
            draft.ended.insert(old.key.clone());
            draft.removed.entry((Kind::Plumbing, work.name.clone())).or_default().push(step);
        }
    }

    fn build(&mut self, scene: &Scene<'a>, draft: &mut Draft) {
        let made: Vec<&Work> = self.work.iter().filter(|work| work.makes()).collect();
        // Another one may have the same line until it is gone.
        let removed = draft.removed.iter().filter(|((kind, _), _)| *kind == Kind::Plumbing);
        let needs: Vec<StepId> = removed.flat_map(|(_, steps)| steps.iter().copied()).collect();
        let mut steps: Vec<StepId> = Vec::new();
        for (work, readers) in ordered(&made) {
            let Some(new) = &work.new else { continue };
            let live = scene.live.objects.get(&Kind::Pipe);
            let is_new = |name: &&String| live.is_none_or(|pipes| !pipes.contains_key(*name));
            let names: Vec<String> = all(&new.facts, PIPELINE)
                .iter()
                .filter(|element| scene.experiment.pipe(element).is_none())
                .map(|element| pipeline_key(scene.name(), element))
                .filter(|name| ObjectName::new(name).is_ok() && is_new(&name))
                .collect();
            let command = draft.command(&clear(all(&new.facts, PIPELINE)));
            let undo = Undo::Plumb { command, pipes: names.into() };
            let after = readers.into_iter().map(|at| steps[at]).collect();
            let mut needs = needs.clone();
            // The first message finds its pipes as they are to be.
            let pipes = all(&new.facts, PIPELINE).iter().filter_map(|element| scene.experiment.pipe(element));
            needs.extend(pipes.filter_map(|pipe| draft.pipes_ready.get(pipe)).flatten());
            needs.sort_unstable();
            needs.dedup();
            let extra = Extra { needs, after, undo, mark: work.made(Kind::Plumbing), ..Extra::default() };
            steps.push(draft.step(&Arc::from([work.change]), &plumb(&new.facts), extra));
        }
    }
}
