//! A plan as a picture: what serves the same objects in one box, and what waits for what.

use std::collections::BTreeSet;

use super::Plan;
use super::display::heading;
use crate::graph::Flow;

/// Commands that a box shows; a longer list ends in how many there are besides.
const SHOWN: usize = 6;

/// The boxes and arrows of a plan.
pub fn flow(plan: &Plan) -> Flow {
    let mut flow = Flow { title: format!("plan of {}", plan.experiment), ..Flow::default() };
    // The box of each step.
    let mut boxes: Vec<usize> = Vec::with_capacity(plan.steps.len());
    let prefix = format!("namespace {} ", plan.experiment);
    for block in plan.steps.chunk_by(|a, b| a.serves == b.serves) {
        let mut lines = vec![heading(plan, &block[0].serves)];
        let commands = block.iter().map(|s| s.command.strip_prefix(&prefix).unwrap_or(&s.command).to_owned());
        lines.extend(commands.take(SHOWN));
        if block.len() > SHOWN {
            lines.push(format!("and {} more", block.len() - SHOWN));
        }
        boxes.extend(block.iter().map(|_| flow.boxes.len()));
        flow.boxes.push(lines);
    }
    let mut arrows: BTreeSet<(usize, usize, bool)> = BTreeSet::new();
    for step in &plan.steps {
        let to = boxes[step.id - 1];
        for (ids, succeeded) in [(&step.needs, true), (&step.after, false)] {
            arrows.extend(ids.iter().map(|id| (boxes[id - 1], to, succeeded)).filter(|(from, to, _)| from != to));
        }
    }
    // What must have succeeded has ended.
    let strong: BTreeSet<(usize, usize)> = arrows.iter().filter(|a| a.2).map(|a| (a.0, a.1)).collect();
    flow.arrows = arrows.into_iter().filter(|a| a.2 || !strong.contains(&(a.0, a.1))).collect();
    flow
}
