//! Pipelines in a picture: each pipe once, however many pipelines it is in, and each program where it stands in its pipeline.

use std::collections::BTreeSet;

use super::parts::{PartKind, TieKind};
use super::topology::Topology;

/// The longest text of a program, in characters.
const PROGRAM: usize = 40;

/// A pipeline to draw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PipelineView {
    /// What tells it from others.
    pub name: String,
    /// Pipes and programs, from the source on.
    pub elements: Vec<String>,
    /// The pipes among them have their whole names, `NAMESPACE//NAME`. A file does not tell which words are programs of the
    /// engine's host.
    pub whole: bool,
}

/// A program as it fits into a box.
pub(super) fn shortened(program: &str) -> String {
    let mut text: String = program.chars().take(PROGRAM).collect();
    text.extend((program.chars().count() > PROGRAM).then_some('…'));
    text
}

impl Topology {
    /// Draw the pipelines.
    pub(super) fn pipe(&mut self) {
        let mut pipelines = std::mem::take(&mut self.pipelines);
        pipelines.sort_by(|a, b| a.name.cmp(&b.name));
        let own = format!("{}//", self.title);
        let short = |element: &String| element.strip_prefix(&own).unwrap_or(element).to_owned();
        // In a file, what begins or ends a pipeline in one word is taken for a pipe, wherever else it stands.
        let ends: BTreeSet<String> = pipelines
            .iter()
            .filter(|pipeline| !pipeline.whole)
            .flat_map(|pipeline| pipeline.elements.first().into_iter().chain(pipeline.elements.last()))
            .filter(|element| !element.contains(' '))
            .map(short)
            .collect();
        for pipeline in &pipelines {
            let mut before: Option<String> = None;
            for (index, element) in pipeline.elements.iter().enumerate() {
                let name = short(element);
                let word = element.split(' ').next().unwrap_or_default();
                let whole = word.contains("//") && !word.contains("://");
                let id = format!("pipe.{name}");
                let named = ends.contains(&name) || self.parts.iter().any(|part| part.id == id);
                let is_pipe = whole || (!pipeline.whole && named);
                let id = if is_pipe {
                    self.part(PartKind::Pipe, &id, vec![format!("pipe {name}")]);
                    id
                } else {
                    let id = format!("program.{}.{index}", pipeline.name);
                    self.part(PartKind::Program, &id, vec![shortened(element)]);
                    id
                };
                if let Some(before) = &before {
                    self.tie(TieKind::Flow, before, &id, Vec::new());
                }
                before = Some(id);
            }
        }
        self.pipelines = pipelines;
    }
}
