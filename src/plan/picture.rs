//! A plan as a picture: what serves the same objects in one box, and what waits for what.

use std::collections::BTreeSet;

use super::Plan;
use super::display::heading;
use crate::graph::Flow;

/// Commands that a box shows; a longer list ends in how many there are besides.
const SHOWN: usize = 6;
/// Of more boxes every arrow is drawn.
const MOST: usize = 2000;

/// The boxes and arrows of a plan.
pub fn flow(plan: &Plan) -> Flow {
    let mut flow = Flow { title: format!("plan of {}", plan.experiment), ..Flow::default() };
    // The box of each step.
    let mut boxes: Vec<usize> = Vec::with_capacity(plan.steps.len());
    let prefix = format!("namespace {} ", plan.experiment);
    for block in plan.steps.chunk_by(|a, b| a.serves == b.serves) {
        let mut lines = vec![heading(plan, &block[0].serves)];
        let commands = block.iter().map(|s| s.command.strip_prefix(&prefix).unwrap_or(&s.command));
        let commands = summed_up(commands);
        lines.extend(commands.iter().take(SHOWN).cloned());
        if commands.len() > SHOWN {
            lines.push(format!("and {} more", commands.len() - SHOWN));
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
    flow.arrows = needed(flow.boxes.len(), &arrows);
    flow
}

/// Commands with those that configure a launch in one line: the fields that they set.
fn summed_up<'c>(commands: impl Iterator<Item = &'c str>) -> Vec<String> {
    let (mut lines, mut fields): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for command in commands {
        match command.strip_prefix("vm config ").and_then(|rest| rest.split(' ').next()) {
            Some(field) if !fields.contains(&field) => fields.push(field),
            Some(_) => {}
            // What begins a configuration says nothing.
            None if command == "clear vm config" => {}
            None => {
                let configured = (!fields.is_empty()).then(|| format!("vm config {}", fields.join(", ")));
                lines.extend(configured);
                fields.clear();
                lines.push(command.to_owned());
            }
        }
    }
    lines.extend((!fields.is_empty()).then(|| format!("vm config {}", fields.join(", "))));
    if lines.is_empty() {
        lines.push("clear vm config".to_owned());
    }
    lines
}

/// The arrows that say more than others: one that must have succeeded goes where a way of such arrows leads there too, one that must
/// have ended where any way does. `arrows` lead from lower boxes to higher ones, or are all kept.
fn needed(boxes: usize, arrows: &BTreeSet<(usize, usize, bool)>) -> Vec<(usize, usize, bool)> {
    if boxes > MOST || arrows.iter().any(|(from, to, _)| from >= to) {
        // What must have succeeded has ended.
        let strong = |arrow: &&(usize, usize, bool)| arrow.2 || !arrows.contains(&(arrow.0, arrow.1, true));
        return arrows.iter().filter(strong).copied().collect();
    }
    let mut kept: Vec<(usize, usize, bool)> = Vec::new();
    // What leads to each box, over arrows that must have succeeded and over any.
    let mut before: Vec<[BTreeSet<usize>; 2]> = Vec::with_capacity(boxes);
    for to in 0..boxes {
        let mut leads = [BTreeSet::new(), BTreeSet::new()];
        let mut into: Vec<_> = arrows.iter().filter(|arrow| arrow.1 == to).copied().collect();
        // The nearest first, and of two between the same boxes the stronger.
        into.sort_by_key(|(from, _, succeeded)| (std::cmp::Reverse(*from), !succeeded));
        for (from, _, succeeded) in into {
            if leads[usize::from(!succeeded)].contains(&from) {
                continue;
            }
            kept.push((from, to, succeeded));
            let [strong, any]: &[BTreeSet<usize>; 2] = &before[from];
            leads[1].extend(any.iter().copied().chain([from]));
            if succeeded {
                leads[0].extend(strong.iter().copied().chain([from]));
            }
        }
        before.push(leads);
    }
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_others_imply_is_left_out() {
        let arrows =
            [(0, 1, true), (1, 2, true), (0, 2, true), (2, 3, false), (1, 3, true), (0, 3, false), (0, 3, true)];
        let kept = needed(4, &arrows.into());
        assert_eq!(kept, [(0, 1, true), (1, 2, true), (1, 3, true), (2, 3, false)]);
        // An end that is waited for does not imply success.
        assert_eq!(needed(3, &[(0, 1, false), (1, 2, true), (0, 2, true)].into()).len(), 3);
        let back = [(1, 0, true), (0, 1, false), (0, 1, true)];
        assert_eq!(needed(2, &back.into()), [(0, 1, true), (1, 0, true)]);
    }

    #[test]
    fn a_configuration_is_one_line() {
        let commands =
            ["clear vm config", "vm config memory 64", "vm config tags a b", "vm config tags c d", "vm launch kvm a"];
        assert_eq!(summed_up(commands.into_iter()), ["vm config memory, tags", "vm launch kvm a"]);
        assert_eq!(summed_up(["clear vm config"].into_iter()), ["clear vm config"]);
    }
}
