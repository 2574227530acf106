//! What a file's expressions may refer to: variables, locals, included files and their outputs, each computed when it is
//! first needed, so that their order in the file means nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use minijinja::value::{Value as Computed, ValueKind};

use super::engine::{self, Compiled, Failure, is_template};
use super::unit::{Local, State, Unit};
use super::variables::{Reader, bad_identifier, is_identifier};
use super::{Composer, Extra, Known, value};
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::section::wrong_type;
use crate::spec::syntax::{Node, SpannedKey, Value};

impl Composer<'_> {
    /// Read what a file declares.
    pub(super) fn declare(&mut self, unit: &mut Unit) {
        let root = unit.document.root.clone();
        let Value::Map(map) = &root.value else { return };
        for (key, node) in map.iter() {
            match key.text.replace('-', "_").as_str() {
                "variables" => {
                    let mut found = Vec::new();
                    let sources = &*self.sources;
                    let written =
                        |span: Span| sources.text(span.source).get(span.start..span.end).unwrap_or("").to_owned();
                    let mut reader = Reader {
                        suggester: &mut self.suggester,
                        push: &mut |diagnostic| found.push(diagnostic),
                        written: &written,
                    };
                    unit.declarations = reader.declarations(node);
                    found.into_iter().for_each(|diagnostic| self.push(diagnostic));
                }
                "locals" => {
                    for (key, node) in self.names(node, "`locals`") {
                        let local = Local { node, span: key.span, state: State::New };
                        unit.locals.insert(key.text, local);
                    }
                }
                "include" => self.read_includes(unit, node),
                "experiment" => unit.name_node = Some(node.clone()),
                _ => {}
            }
        }
    }

    /// A map from names that expressions can say.
    pub(super) fn names(&mut self, node: &Node, what: &str) -> Vec<(SpannedKey, Node)> {
        let map = match &node.value {
            Value::Map(map) => map,
            Value::Null => return Vec::new(),
            _ => {
                self.push(wrong_type(node, what, "a map from names to values", None));
                return Vec::new();
            }
        };
        let mut entries = Vec::with_capacity(map.len());
        for (key, node) in map.iter() {
            if is_identifier(&key.text) {
                entries.push((key.clone(), node.clone()));
            } else {
                self.push(bad_identifier(&key.text, key.span));
            }
        }
        entries
    }

    /// Compute all that a file declares, so that every error in it is found.
    pub(super) fn settle(&mut self, unit: &mut Unit) {
        let names: Vec<Arc<str>> = unit.locals.keys().cloned().collect();
        for name in names {
            self.local(unit, &name);
        }
        let names: Vec<Arc<str>> = unit.includes.keys().cloned().collect();
        for name in names {
            self.module(unit, &name);
        }
        let locals = unit.locals.iter().filter_map(|(name, local)| Some((name.clone(), done(&local.state)?.value)));
        let modules =
            unit.includes.iter().filter_map(|(name, module)| Some((name.clone(), done(&module.state)?.value)));
        unit.settled = Some((value::of_map(locals), value::of_map(modules)));
        self.own_outputs(unit);
    }

    /// The experiment's name, with expressions computed; None if it is wrong or has a cycle, which is reported.
    pub(super) fn name(&mut self, unit: &mut Unit) -> Option<Node> {
        let node = unit.name_node.clone()?;
        let extra = Extra::default();
        match std::mem::replace(&mut unit.name, State::Busy) {
            State::Busy => {
                self.cycle(unit, "experiment.name", node.span);
                None
            }
            state => {
                unit.stack.push(("experiment.name".to_owned(), node.span));
                let body = match state {
                    State::Failed => None,
                    _ => self.body(unit, &node, &extra),
                };
                unit.stack.pop();
                unit.name = match &body {
                    Some(node) => {
                        let written = self.written(node.span);
                        let value = value::of_node(node, &|_| written.clone());
                        State::Done(Known { value, tainted: false })
                    }
                    None => State::Failed,
                };
                body
            }
        }
    }

    /// Compute a local. False if it has no value, which is reported or will be.
    fn local(&mut self, unit: &mut Unit, name: &str) -> bool {
        let Some(local) = unit.locals.get_mut(name) else { return true };
        let (node, span) = (local.node.clone(), local.span);
        match std::mem::replace(&mut local.state, State::Busy) {
            State::Busy => {
                self.cycle(unit, &format!("local.{name}"), span);
                return false;
            }
            State::New => {}
            state => {
                let known = matches!(state, State::Done(_));
                local.state = state;
                return known;
            }
        }
        unit.stack.push((format!("local.{name}"), span));
        let extra = unit.extra.clone();
        let known = self.value(unit, &node, &extra);
        unit.stack.pop();
        let found = known.is_some();
        if let Some(local) = unit.locals.get_mut(name) {
            local.state = known.map_or(State::Failed, State::Done);
        }
        found
    }

    /// Report that something needs itself.
    pub(super) fn cycle(&mut self, unit: &Unit, name: &str, span: Span) {
        let from = unit.stack.iter().position(|(label, _)| label == name).unwrap_or(0);
        let path = &unit.stack[from..];
        let mut names: Vec<&str> = path.iter().map(|(label, _)| label.as_str()).collect();
        names.push(name);
        let mut diagnostic =
            Diagnostic::error("reference-cycle", span, format!("these refer to each other: {}", names.join(" → ")))
                .hint("take one of these references away");
        for (label, place) in path.iter().filter(|(_, place)| *place != span) {
            diagnostic = diagnostic.label(*place, format!("`{label}`"));
        }
        self.push(diagnostic);
    }

    /// The value of a text with an expression; None if there is none, which is reported.
    pub(super) fn eval(&mut self, unit: &mut Unit, text: &Arc<str>, span: Span, extra: &Extra) -> Option<Known> {
        if self.stopped {
            return None;
        }
        let compiled = self.engine.compile(text);
        let compiled = match &*compiled {
            Ok(compiled) => compiled,
            Err(failure) => {
                self.failure(failure, span, text);
                return None;
            }
        };
        let mut known = true;
        for path in &compiled.refs {
            match (path[0].as_str(), path.get(1).map(String::as_str)) {
                ("var", Some(name)) => known &= !unit.broken.contains(name),
                ("local", Some(name)) => known &= self.local(unit, name),
                ("local", None) => {
                    let names: Vec<Arc<str>> = unit.locals.keys().cloned().collect();
                    for name in names {
                        known &= self.local(unit, &name);
                    }
                }
                ("module", name) => {
                    let names: Vec<Arc<str>> = unit.includes.keys().cloned().collect();
                    for other in names.iter().filter(|other| name.is_none_or(|name| ***other == *name)) {
                        known &= self.module(unit, other);
                    }
                }
                ("experiment", _) => known &= self.ensure_name(unit),
                _ => {}
            }
        }
        if !known {
            return None;
        }
        let context = context(unit, extra);
        let result = self.engine.eval(compiled, context, &unit.folder);
        if let Some(message) = self.engine.exhausted() {
            self.stopped = true;
            self.push(Diagnostic::error("template-limit", span, message).hint("make fewer or simpler expressions"));
            return None;
        }
        let value = match result {
            Ok(Some(value)) => value,
            Ok(None) => {
                let failure = Failure {
                    code: "undefined-name",
                    message: "the expression is undefined".to_owned(),
                    hint: Some("give it a value with `| default(…)`".to_owned()),
                    range: None,
                };
                let missing = engine::missing(self.engine, compiled, &full_context(unit, extra), text);
                self.failure(&missing.unwrap_or(failure), span, text);
                return None;
            }
            Err(failure) => {
                let by_name = matches!(failure.code, "undefined-name" | "unknown-function");
                let missing = match by_name || failure.message.contains("undefined") {
                    true => engine::missing(self.engine, compiled, &full_context(unit, extra), text),
                    false => None,
                };
                self.failure(&missing.unwrap_or(failure), span, text);
                return None;
            }
        };
        let tainted = tainted(unit, compiled, extra);
        if tainted {
            let mut leaves = Vec::new();
            value::leaves(&value, &mut leaves);
            for leaf in leaves {
                if compiled.lone {
                    self.secrets.add_words(&leaf)
                } else {
                    self.secrets.add(&leaf)
                };
            }
            if !compiled.lone {
                self.hide_pieces(unit, compiled, extra);
            }
        }
        Some(Known { value, tainted })
    }

    /// Hide what the sensitive expressions of a text gave, which may come to stand apart from the rest of it.
    fn hide_pieces(&mut self, unit: &mut Unit, compiled: &Compiled, extra: &Extra) {
        let mut shown = HashMap::new();
        for (own, piece) in self.engine.pieces(compiled, context(unit, extra)) {
            let sensitive = own.as_ref().is_none_or(|own| match &*self.engine.compile(own) {
                Ok(compiled) => *shown.entry(own.clone()).or_insert_with(|| tainted(unit, compiled, extra)),
                Err(_) => true,
            });
            if sensitive {
                self.secrets.add_words(&piece);
            }
        }
    }

    /// Report a failure, once for all copies of an entry; it names the first that has it.
    fn failure(&mut self, failure: &Failure, span: Span, text: &str) {
        let written = self.written(span);
        let mut diagnostic = failure.diagnostic(span, &written, text);
        if let Some(copy) = &self.copy
            && self.said.insert((diagnostic.code, diagnostic.span, diagnostic.message.clone()))
        {
            diagnostic.message.push_str(&format!(" (for {copy})"));
            if self.diagnostics.len() < super::MAX_DIAGNOSTICS {
                self.diagnostics.push(diagnostic);
            }
        } else if self.copy.is_none() {
            self.push(diagnostic);
        }
    }

    fn ensure_name(&mut self, unit: &mut Unit) -> bool {
        match unit.name {
            State::Done(_) => true,
            State::Failed => false,
            _ if unit.name_node.is_none() || !unit.chain.is_empty() => true,
            _ => self.name(unit).is_some(),
        }
    }

    /// The value of a node in which expressions may stand.
    pub(super) fn value(&mut self, unit: &mut Unit, node: &Node, extra: &Extra) -> Option<Known> {
        match &node.value {
            Value::String(text) if is_template(text) => self.eval(unit, text, node.span, extra),
            Value::List(list) => {
                let (mut items, mut tainted, mut complete) = (Vec::with_capacity(list.len()), false, true);
                for item in list.iter() {
                    match self.value(unit, item, extra) {
                        Some(known) => {
                            tainted |= known.tainted;
                            items.push(known.value);
                        }
                        None => complete = false,
                    }
                }
                complete.then(|| Known { value: Computed::from(items), tainted })
            }
            Value::Map(map) => {
                let (mut entries, mut tainted, mut complete) = (BTreeMap::new(), false, true);
                for (key, item) in map.iter() {
                    let name = self.key(unit, key, extra);
                    let known = self.value(unit, item, extra);
                    match name.zip(known) {
                        Some((name, known)) => {
                            tainted |= known.tainted;
                            entries.insert(name, known.value);
                        }
                        None => complete = false,
                    }
                }
                complete.then(|| Known { value: Computed::from(entries), tainted })
            }
            _ => {
                let written = |span: Span| self.written(span);
                Some(Known { value: value::of_node(node, &written), tainted: false })
            }
        }
    }

    /// A key in which expressions may stand.
    pub(super) fn key(&mut self, unit: &mut Unit, key: &SpannedKey, extra: &Extra) -> Option<Arc<str>> {
        if !is_template(&key.text) {
            return Some(key.text.clone());
        }
        let known = self.eval(unit, &key.text, key.span, extra)?;
        match known.value.kind() {
            ValueKind::String | ValueKind::Number => Some(Arc::from(known.value.to_string())),
            _ => {
                let message = format!("the name is {}, expected text", value::kind(&known.value));
                self.push(
                    Diagnostic::error("wrong-type", key.span, message).hint("write an expression that gives text"),
                );
                None
            }
        }
    }
}

/// An entry of the file by its key.
pub fn root_entry(unit: &Unit, name: &str) -> Option<(SpannedKey, Node)> {
    let Value::Map(map) = &unit.document.root.value else { return None };
    map.iter().find(|(key, _)| &*key.text == name).cloned()
}

/// What is known of something, if it is computed.
pub fn done(state: &State<Known>) -> Option<Known> {
    match state {
        State::Done(known) => Some(known.clone()),
        _ => None,
    }
}

/// The names that an expression sees.
/// Whether something sensitive is among what a text refers to, all of which is computed.
fn tainted(unit: &Unit, compiled: &Compiled, extra: &Extra) -> bool {
    let local = |local: &Local| done(&local.state).is_some_and(|known| known.tainted);
    compiled.refs.iter().any(|path| match (path[0].as_str(), path.get(1).map(String::as_str)) {
        ("var", Some(name)) => unit.variables.get(name).is_some_and(|known| known.tainted),
        ("var", None) => unit.variables.values().any(|known| known.tainted),
        ("local", Some(name)) => unit.locals.get(name).is_some_and(local),
        ("local", None) => unit.locals.values().any(local),
        ("module", name) => unit
            .includes
            .iter()
            .filter(|(other, _)| name.is_none_or(|name| ***other == *name))
            .any(|(_, module)| done(&module.state).is_some_and(|known| known.tainted)),
        ("each" | "count", _) => extra.tainted,
        _ => false,
    })
}

fn context(unit: &Unit, extra: &Extra) -> Computed {
    let (local, module) = unit.settled.clone().unwrap_or_else(|| {
        let locals = unit.locals.iter().filter_map(|(name, local)| Some((name.clone(), done(&local.state)?.value)));
        let modules =
            unit.includes.iter().filter_map(|(name, module)| Some((name.clone(), done(&module.state)?.value)));
        (value::of_map(locals), value::of_map(modules))
    });
    names(unit, extra, local, module)
}

/// The same with every name that there is, computed or not, to say what is missing.
fn full_context(unit: &Unit, extra: &Extra) -> Computed {
    let known = |state: &State<Known>| done(state).map_or(Computed::from(()), |known| known.value);
    let local = value::of_map(unit.locals.iter().map(|(name, local)| (name.clone(), known(&local.state))));
    let module = value::of_map(unit.includes.iter().map(|(name, module)| (name.clone(), known(&module.state))));
    names(unit, extra, local, module)
}

fn names(unit: &Unit, extra: &Extra, local: Computed, module: Computed) -> Computed {
    let mut names: BTreeMap<&str, Computed> = BTreeMap::new();
    names.insert("var", unit.var.clone());
    names.insert("local", local);
    names.insert("module", module);
    names.insert("prefix", Computed::from(unit.prefix.as_str()));
    if let Some(name) = done(&unit.name) {
        names.insert("experiment", value::of_map([(Arc::from("name"), name.value)]));
    }
    for (name, value) in [("each", &extra.each), ("count", &extra.count)] {
        if let Some(value) = value {
            names.insert(name, value.clone());
        }
    }
    Computed::from(names)
}
