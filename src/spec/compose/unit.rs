//! One use of a file: its variables, locals and included files, each with what is known of it so far.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use minijinja::value::Value as Computed;

use super::variables::Declaration;
use super::{Document, Extra, Known};
use crate::diagnostic::Span;
use crate::spec::syntax::Node;

/// How far something that others may refer to is.
#[derive(Debug, Clone, Default)]
pub enum State<T> {
    #[default]
    New,
    Busy,
    Done(T),
    /// Reported; what refers to it says nothing more.
    Failed,
}

/// One entry of `locals`.
#[derive(Debug)]
pub struct Local {
    pub node: Node,
    pub span: Span,
    pub state: State<Known>,
}

/// One entry of `include`.
pub struct Include {
    /// Its entry, and the parts of it that are computed.
    pub span: Span,
    pub file: Node,
    pub prefix: Option<Node>,
    pub with: Option<Node>,
    pub when: Option<Node>,
    pub for_each: Option<Node>,
    /// What `module.NAME` is.
    pub state: State<Known>,
    /// The copies that it makes, each with its prefix.
    pub instances: Vec<(String, Unit)>,
}

/// One use of a file.
pub struct Unit {
    pub document: Rc<Document>,
    /// The folder of the file, relative to that of the experiment file.
    pub folder: String,
    /// The files that are being included, from the experiment file to this one.
    pub chain: Vec<String>,
    pub declarations: Vec<Declaration>,
    pub variables: BTreeMap<Arc<str>, Known>,
    /// All variables as `var`.
    pub var: Computed,
    /// Variables about which an error was reported.
    pub broken: HashSet<Arc<str>>,
    pub locals: BTreeMap<Arc<str>, Local>,
    pub includes: BTreeMap<Arc<str>, Include>,
    pub outputs: BTreeMap<Arc<str>, Known>,
    /// The experiment's name, and the place of a file's own.
    pub name: State<Known>,
    pub name_node: Option<Node>,
    /// The prefix of all its names.
    pub prefix: String,
    /// What is being computed, to say how a cycle closes.
    pub stack: Vec<(String, Span)>,
    /// `local` and `module`, once all are known.
    pub settled: Option<(Computed, Computed)>,
    /// The names of the includer's entry that this is a copy for.
    pub extra: Extra,
}

impl Unit {
    pub fn new(document: Rc<Document>, folder: String, chain: Vec<String>) -> Self {
        Self {
            document,
            folder,
            chain,
            declarations: Vec::new(),
            variables: BTreeMap::new(),
            var: Computed::from(BTreeMap::<&str, Computed>::new()),
            broken: HashSet::new(),
            locals: BTreeMap::new(),
            includes: BTreeMap::new(),
            outputs: BTreeMap::new(),
            name: State::New,
            name_node: None,
            prefix: String::new(),
            stack: Vec::new(),
            settled: None,
            extra: Extra::default(),
        }
    }

    /// The beginning of the file.
    pub fn start(&self) -> Span {
        Span { end: self.document.root.span.start, ..self.document.root.span }
    }
}
