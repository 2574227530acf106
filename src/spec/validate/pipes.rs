//! Pipes and pipelines: what is given twice, what goes round for ever, and names that are perhaps mistyped.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;

use super::Checks;
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::name::{Namespace, pipeline_key};
use crate::spec::model::Object;
use crate::spec::shown;

/// Names of no more bytes are all alike.
const MAX_SHORT: usize = 2;

/// The pipe that an element of a pipeline is for sure, by its whole name: one that is declared, or that is named with its
/// namespace. Any other may be a program of the host.
fn pipe(namespace: &Namespace, declared: &BTreeSet<&str>, element: &str) -> Option<String> {
    let whole = element.split_once("//").is_some_and(|(of, _)| Namespace::new(of).is_ok());
    match whole && !element.contains(char::is_whitespace) {
        true => Some(element.to_owned()),
        false => declared.contains(element).then(|| format!("{namespace}//{element}")),
    }
}

impl<'d> Checks<'d> {
    pub(super) fn pipelines(&mut self, pipes: &[(&'d str, &'d Object)], pipelines: &[(&'d str, &'d Object)]) {
        let Some(namespace) = &self.draft.name else { return };
        let lines = pipelines.iter().map(|(name, object)| {
            let elements: Vec<&str> = object.all("pipeline").iter().map(|element| element.value.as_str()).collect();
            (pipeline_key(&namespace.value, &elements.join(" ")), *name, object.place("pipeline"))
        });
        let lines = lines.filter(|(line, ..)| !line.is_empty());
        self.once(
            "duplicate-pipeline",
            "are both the pipeline",
            "the same is not made twice: keep one of the two",
            lines,
        );
        let declared: BTreeSet<&str> = pipes.iter().map(|(name, _)| *name).collect();
        self.rounds(&namespace.value, &declared, pipelines);
        if !self.draft.partial {
            self.mistyped(&namespace.value, &declared, pipes, pipelines);
        }
    }

    /// Pipes that feed themselves without a program in between, which a target refuses.
    fn rounds(&mut self, namespace: &Namespace, declared: &BTreeSet<&str>, pipelines: &[(&'d str, &'d Object)]) {
        let mut edges: BTreeMap<(String, String), Span> = BTreeMap::new();
        for (_, object) in pipelines {
            for pair in object.all("pipeline").windows(2) {
                let [from, to] = [0, 1].map(|at| pipe(namespace, declared, &pair[at].value));
                if let (Some(from), Some(to)) = (from, to) {
                    edges.entry((from, to)).or_insert(pair[1].span);
                }
            }
        }
        let graph: DiGraphMap<&str, ()> =
            DiGraphMap::from_edges(edges.keys().map(|(from, to)| (from.as_str(), to.as_str())));
        let mut rounds: Vec<(Span, String)> = Vec::new();
        // Most are pipes by themselves.
        let goes_round = |round: &Vec<&str>| round.len() > 1 || graph.contains_edge(round[0], round[0]);
        for round in tarjan_scc(&graph).into_iter().filter(goes_round) {
            let inside =
                |(from, to): &&(String, String)| round.contains(&from.as_str()) && round.contains(&to.as_str());
            let Some(span) = edges.keys().filter(inside).map(|edge| edges[edge]).max() else { continue };
            let mut names: Vec<String> = round.iter().map(|name| format!("`{}`", shown(name))).collect();
            names.sort();
            rounds.push((span, names.join(", ")));
        }
        rounds.sort();
        for (span, names) in rounds {
            let message = format!("a message would go round for ever: {names} feed themselves");
            let hint = "take out one of the pipelines between them, or put a program in between that drops messages";
            self.push(Diagnostic::error("pipe-loop", span, message).hint(hint));
        }
    }

    /// Clients and raw commands may well use a pipe that no pipeline has. Where a pipeline has almost its name, that was
    /// perhaps meant.
    fn mistyped(
        &mut self,
        namespace: &Namespace,
        declared: &BTreeSet<&str>,
        pipes: &[(&'d str, &'d Object)],
        pipelines: &[(&'d str, &'d Object)],
    ) {
        let own = format!("{namespace}//");
        let elements = || pipelines.iter().flat_map(|(_, object)| object.all("pipeline"));
        let short = |element: &'d Spanned<String>| element.value.strip_prefix(&own).unwrap_or(&element.value);
        let used: BTreeSet<&str> = elements().map(short).collect();
        let others: Vec<&str> = used.iter().copied().filter(|name| !declared.contains(name)).collect();
        for (name, object) in pipes.iter().filter(|(name, _)| !used.contains(name) && name.len() > MAX_SHORT) {
            let Some(near) = self.suggester.nearest(name, others.iter().copied()) else { continue };
            let at = elements().find(|element| short(element) == near).map(|element| element.span);
            let message = format!("no pipeline has the pipe `{name}`, and one has `{}`", shown(near));
            let mut diagnostic =
                Diagnostic::warning("unused-pipe", object.span, message).hint(format!("did you mean `{name}` there?"));
            if let Some(at) = at {
                diagnostic = diagnostic.label(at, "here");
            }
            self.push(diagnostic);
        }
    }
}
