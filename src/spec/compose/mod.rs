//! Composition: variables, locals, expressions, repetition, conditions and included files, expanded on the spanned tree.
//!
//! Stands between `syntax` and `decode`: takes the tree of the experiment file and gives one in which nothing is left to
//! compute, and whose every node still points at the place that it comes from. Must not know what VLANs or VMs mean,
//! beyond which keys hold names (`rename`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use minijinja::value::Value as Computed;

use super::Files;
use super::keys;
use super::suggest::Suggester;
use super::syntax::{Format, Node, SpannedKey, Value};
use crate::diagnostic::{Diagnostic, SourceId, SourceMap, Span};

mod addresses;
mod assign;
mod console;
mod engine;
mod expand;
mod functions;
mod include;
mod inputs;
mod outputs;
mod rename;
mod resolve;
mod secrets;
mod unit;
mod value;
mod variables;

pub use console::{Console, Evaluated};
pub use engine::{MAX_FUEL, MAX_PARTS, MAX_TEMPLATE, MAX_TOTAL_FUEL, MAX_WORDS, is_template};
pub use functions::{MAX_FILE, REFERENCE};
pub use inputs::Inputs;
pub use secrets::{HIDDEN, SHORTEST, Secrets};

use engine::Engine;
use unit::Unit;

/// How many values the expansion of an experiment may make.
pub const MAX_NODES: u64 = 1_000_000;

/// How many times one `for_each` or `count` may repeat an entry.
pub const MAX_REPEAT: usize = super::names::MAX_VMS;

/// How deep files may include each other.
pub const MAX_INCLUDE_DEPTH: usize = 16;

/// How many times files may be included, over all.
pub const MAX_INCLUDES: usize = 10_000;

/// No more errors than this are collected.
const MAX_DIAGNOSTICS: usize = 5_000;

/// One output of an experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// What it is, in the file's words.
    pub description: Option<String>,
    /// It is, or comes from, what is sensitive.
    pub sensitive: bool,
    /// Its value.
    pub value: serde_json::Value,
}

/// What became of a tree.
#[derive(Debug, Default)]
pub struct Composed {
    /// The expanded tree; None where nothing could be made of it.
    pub root: Option<Node>,
    /// What was found.
    pub diagnostics: Vec<Diagnostic>,
    /// The outputs.
    pub outputs: Vec<Output>,
    /// What no text may show.
    pub secrets: Secrets,
    /// The folders of included files, relative to that of the experiment file.
    pub folders: HashMap<SourceId, String>,
}

/// The tree of a file that was read once, however often it is included.
struct Document {
    root: Node,
}

/// A computed value, and whether something sensitive went into it.
#[derive(Debug, Clone)]
struct Known {
    value: Computed,
    tainted: bool,
}

/// The names that only a repeated entry has.
#[derive(Debug, Clone, Default)]
struct Extra {
    each: Option<Computed>,
    count: Option<Computed>,
    tainted: bool,
}

/// The entries of each section that maps names to settings.
type Sections = BTreeMap<&'static str, Vec<(SpannedKey, Node)>>;

/// Everything that one run needs.
struct Composer<'a> {
    engine: &'a Engine,
    files: Arc<dyn Files>,
    sources: &'a mut SourceMap,
    diagnostics: Vec<Diagnostic>,
    said: HashSet<(&'static str, Option<Span>, String)>,
    suggester: Suggester,
    documents: HashMap<String, Option<Rc<Document>>>,
    /// How many nodes may still be made.
    room: u64,
    includes: usize,
    stopped: bool,
    /// The copy of an entry that is being made, for messages.
    copy: Option<String>,
    secrets: Secrets,
    folders: HashMap<SourceId, String>,
    /// Whether a list or map has nothing to compute, by its address in a tree that outlives this.
    plain: HashMap<usize, bool>,
    /// Entries without the keys that compose them, by the address of the entry and the keys.
    without: HashMap<(usize, &'static [&'static str]), Node>,
    /// Computed trees whose addresses are in use.
    kept: Vec<Node>,
}

/// Keys of the file that say how it is composed, and do not reach the decoder.
const OWN: &[&str] = &["variables", "locals", "outputs", "include"];

/// Expand the tree of an experiment file.
pub fn compose(root: Node, sources: &mut SourceMap, inputs: &Inputs, files: &dyn Files) -> Composed {
    if inputs.is_empty() && !is_composed(&root) {
        return Composed { root: Some(root), ..Composed::default() };
    }
    let engine = Engine::new(files.share());
    let mut composer = Composer::new(&engine, files.share(), sources);
    let (root, outputs) = match composer.experiment(root, inputs) {
        Some((mut unit, outputs)) => (composer.finish(&mut unit), outputs),
        None => (None, Vec::new()),
    };
    composer.composed(root, outputs)
}

impl<'a> Composer<'a> {
    fn new(engine: &'a Engine, files: Arc<dyn Files>, sources: &'a mut SourceMap) -> Self {
        Self {
            engine,
            files,
            sources,
            diagnostics: Vec::new(),
            said: HashSet::new(),
            suggester: Suggester::default(),
            documents: HashMap::new(),
            room: MAX_NODES,
            includes: 0,
            stopped: false,
            copy: None,
            secrets: Secrets::default(),
            folders: HashMap::new(),
            plain: HashMap::new(),
            without: HashMap::new(),
            kept: Vec::new(),
        }
    }

    fn composed(self, root: Option<Node>, outputs: Vec<Output>) -> Composed {
        let Self { mut diagnostics, secrets, folders, stopped, .. } = self;
        // Of what was cut off nothing can be said.
        let root = root.filter(|_| !stopped);
        hide(&mut diagnostics, &secrets);
        Composed { root, diagnostics, outputs, secrets, folders }
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        let key = (diagnostic.code, diagnostic.span, diagnostic.message.clone());
        if self.diagnostics.len() < MAX_DIAGNOSTICS && self.said.insert(key) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// The bytes of a span as they stand in the file.
    fn written(&self, span: Span) -> String {
        self.sources.text(span.source).get(span.start..span.end).unwrap_or("").to_owned()
    }

    /// The experiment file itself with everything resolved, and its outputs.
    fn experiment(&mut self, root: Node, inputs: &Inputs) -> Option<(Unit, Vec<Output>)> {
        if !matches!(root.value, Value::Map(_)) {
            return Some((Unit::new(Rc::new(Document { root }), String::new(), Vec::new()), Vec::new()));
        }
        let mut unit = Unit::new(Rc::new(Document { root }), String::new(), Vec::new());
        self.declare(&mut unit);
        let given = self.given(&unit, inputs);
        let at = unit.start();
        self.assign(&mut unit, given, at);
        self.settle(&mut unit);
        let outputs = self.outputs(&unit);
        Some((unit, outputs))
    }

    /// The expanded tree of the experiment file.
    fn finish(&mut self, unit: &mut Unit) -> Option<Node> {
        let root = unit.document.root.clone();
        let Value::Map(map) = &root.value else { return Some(root) };
        let mut sections = self.expand(unit);
        let mut entries = Vec::with_capacity(map.len());
        let extra = Extra::default();
        for (key, node) in map.iter() {
            let canonical = key.text.replace('-', "_");
            if OWN.contains(&canonical.as_str()) {
                continue;
            }
            if let Some(name) = named_section(&canonical) {
                let Some(list) = sections.remove(name) else {
                    // It is no map, which the decoder says; an error in it was reported.
                    if !is_composed_value(node) {
                        entries.push((key.clone(), node.clone()));
                    }
                    continue;
                };
                entries.push((key.clone(), Node { value: Value::Map(Arc::new(list)), span: node.span }));
            } else if canonical == "experiment" {
                if let Some(name) = self.name(unit) {
                    entries.push((key.clone(), name));
                }
            } else if let Some(node) = self.body(unit, node, &extra) {
                entries.push((key.clone(), node));
            }
        }
        for (name, list) in sections {
            if let Some((key, _)) = list.first() {
                let (key, span) = (SpannedKey { text: Arc::from(name), span: key.span }, key.span);
                entries.push((key, Node { value: Value::Map(Arc::new(list)), span }));
            }
        }
        Some(Node { value: Value::Map(Arc::new(entries)), span: root.span })
    }
}

/// Take what is sensitive out of diagnostics.
pub fn hide(diagnostics: &mut [Diagnostic], secrets: &Secrets) {
    if secrets.is_empty() {
        return;
    }
    for diagnostic in diagnostics {
        diagnostic.message = secrets.mask(&diagnostic.message);
        diagnostic.hint = diagnostic.hint.take().map(|hint| secrets.mask(&hint));
        for (_, label) in &mut diagnostic.labels {
            *label = secrets.mask(label);
        }
    }
}

/// The section that maps names to settings under a key of the file.
fn named_section(key: &str) -> Option<&'static str> {
    keys::EXPERIMENT
        .iter()
        .filter(|k| k.takes.starts_with("a map of"))
        .map(|k| k.name)
        .find(|name| *name == key)
        .filter(|name| !OWN.contains(name))
}

/// Is there anything to expand in a file? Where not, its tree is used as it is.
fn is_composed(root: &Node) -> bool {
    let Value::Map(map) = &root.value else { return is_composed_value(root) };
    map.iter().any(|(key, node)| {
        let canonical = key.text.replace('-', "_");
        if OWN.contains(&canonical.as_str()) || is_template(&key.text) {
            return true;
        }
        let own = if canonical == "vms" { &expand::ENTRY[..2] } else { expand::ENTRY };
        match (named_section(&canonical), &node.value) {
            (Some(_), Value::Map(entries)) => entries.iter().any(|(name, entry)| {
                is_template(&name.text) || expand::has_any(entry, own) || is_composed_value(entry)
            }),
            _ => is_composed_value(node),
        }
    })
}

/// Is there anything to compute in a value?
fn is_composed_value(node: &Node) -> bool {
    match &node.value {
        Value::String(text) => is_template(text),
        Value::List(list) => list.iter().any(|item| expand::has_any(item, expand::ITEM) || is_composed_value(item)),
        Value::Map(map) => map.iter().any(|(key, value)| is_template(&key.text) || is_composed_value(value)),
        _ => false,
    }
}

/// The language of an included or variable file by its name; None for other names.
pub fn format(name: &str) -> Option<Format> {
    match name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).as_deref() {
        Some("yaml" | "yml") => Some(Format::Yaml),
        Some("toml") => Some(Format::Toml),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
