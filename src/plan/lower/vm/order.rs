//! In which order VMs are launched and started: after those that they depend on, and not before those that they are to be beside.

use foldhash::HashMap;

use super::super::super::draft::Draft;
use super::super::Scene;
use super::class::Classes;
use super::depths;
use super::round::Group;

/// Put groups in order. Through a queue, what is on one level is launched together.
pub(super) fn arrange<'a>(
    scene: &Scene<'a>,
    draft: &mut Draft,
    classes: &Classes<'a>,
    order: &mut [Group<'_, 'a>],
    queued: bool,
) {
    let beside = |group: &Group<'_, 'a>| {
        let body = classes.get(group.of.class).body;
        let set = group.launched && body.config.is_set("colocate");
        set.then(|| body.config.text("colocate")).filter(|other| !other.is_empty())
    };
    let colocated = order.iter().any(|group| beside(group).is_some());
    if queued || colocated {
        let depths = depths(scene);
        order.iter_mut().for_each(|group| group.level = depths.get(group.first).copied().unwrap_or_default());
    }
    if colocated {
        let of: HashMap<&str, usize> = order
            .iter()
            .enumerate()
            .flat_map(|(at, group)| group.of.members.iter().map(move |(name, _)| (*name, at)))
            .collect();
        // What a group stands behind.
        let mut behind: Vec<Option<usize>> = vec![None; order.len()];
        let mut unsettled = None;
        for _ in 0..=order.len() {
            unsettled = None;
            for at in 0..order.len() {
                let class = classes.get(order[at].of.class);
                let needed = class.depends_on.iter().filter_map(|name| of.get(name)).map(|other| (*other, 1));
                let other = beside(&order[at]).and_then(|name| of.get(name.as_str()).copied());
                let other = other.filter(|other| *other != at && order[*other].launched);
                let least = needed.chain(other.map(|other| (other, usize::from(!queued))));
                let least = least.map(|(other, step)| (order[other].level + step, other)).max();
                if let Some((level, other)) = least.filter(|(level, _)| *level > order[at].level) {
                    (order[at].level, behind[at], unsettled) = (level, Some(other), Some(at));
                }
            }
            if unsettled.is_none() {
                break;
            }
        }
        if let Some(mut at) = unsettled {
            // Far enough back it goes round in a circle, in which one names another as its neighbour.
            let back = |at: usize| behind[at].unwrap_or(at);
            (0..order.len()).for_each(|_| at = back(at));
            let circle = std::iter::successors(Some(at), |at| Some(back(*at))).take(order.len());
            let names =
                |at: &usize| beside(&order[*at]).is_some_and(|name| of.get(name.as_str()) == behind[*at].as_ref());
            let group = &order[circle.filter(names).min_by_key(|at| order[*at].first).unwrap_or(at)];
            let span = classes.get(group.of.class).body.spans.get("colocate").copied();
            let message = format!(
                "vm.{} is to be on the host of vm.{}, which is launched after it",
                group.first,
                beside(group).unwrap_or_default()
            );
            let hint = if queued {
                "one of them depends on the other: `colocate` of the later one names the earlier one"
            } else {
                "let the later one name the earlier one, or launch both at once with `placement: { queueing: true }`"
            };
            draft.problems.push(scene.problem("colocate-order", span, message, hint.to_owned()));
        }
    }
    order.sort_by_key(|group| (group.level, group.first, group.launched, group.ended));
}
