//! `include`: other files of the same language, each use with its own parameters and prefix.

use std::rc::Rc;
use std::sync::Arc;

use minijinja::value::{Value as Computed, ValueKind};

use super::inputs::Given;
use super::resolve::done;
use super::unit::{Include, State, Unit};
use super::variables::{bad_identifier, is_identifier};
use super::{Composer, Document, Extra, Known, MAX_INCLUDE_DEPTH, MAX_INCLUDES, format, value};
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::section::{section, wrong_type};
use crate::spec::syntax::{self, Node, Value};
use crate::spec::{beside, keys, shown};

impl Composer<'_> {
    /// Read the entries of `include`.
    pub(super) fn read_includes(&mut self, unit: &mut Unit, node: &Node) {
        let one;
        let items: &[Node] = match &node.value {
            Value::List(list) => list,
            Value::Null => &[],
            _ => {
                one = [node.clone()];
                &one
            }
        };
        for item in items {
            let mut include = Include {
                span: item.span,
                file: item.clone(),
                prefix: None,
                with: None,
                when: None,
                for_each: None,
                state: State::New,
                instances: Vec::new(),
            };
            let mut name = None;
            match &item.value {
                Value::String(_) => {}
                Value::Map(_) => {
                    let what = "an entry of `include`";
                    let mut found = Vec::new();
                    let entries =
                        section(item, what, &keys::names(keys::INCLUDE), &mut self.suggester, &mut |diagnostic| {
                            found.push(diagnostic);
                        });
                    let mut file = None;
                    for (key, _, node) in entries.unwrap_or_default() {
                        match key {
                            "file" => file = Some(node.clone()),
                            "as" => name = Some(node.clone()),
                            "prefix" => include.prefix = Some(node.clone()),
                            "with" => include.with = Some(node.clone()),
                            "when" => include.when = Some(node.clone()),
                            "for_each" => include.for_each = Some(node.clone()),
                            other => unreachable!("`{other}` is not in the table of the keys of an include"),
                        }
                    }
                    if file.is_none() {
                        found.push(
                            Diagnostic::error("missing-key", item.span, format!("{what} has no `file`"))
                                .hint("add `file`: the path of the included file"),
                        );
                    }
                    found.into_iter().for_each(|diagnostic| self.push(diagnostic));
                    let Some(file) = file else { continue };
                    include.file = file;
                }
                _ => {
                    self.push(wrong_type(item, "an entry of `include`", "a path, or a map with `file`", None));
                    continue;
                }
            }
            let Some(name) = self.include_name(&include, name.as_ref()) else { continue };
            if let Some(other) = unit.includes.get(&name) {
                self.push(
                    Diagnostic::error("duplicate-name", item.span, format!("two included files are called `{name}`"))
                        .label(other.span, "the other")
                        .hint("give one of them another name with `as`"),
                );
                continue;
            }
            unit.includes.insert(name, include);
        }
    }

    /// What expressions call the outputs of an included file.
    fn include_name(&mut self, include: &Include, given: Option<&Node>) -> Option<Arc<str>> {
        if let Some(node) = given {
            return match &node.value {
                Value::String(text) if is_identifier(text) => Some(text.clone()),
                Value::String(text) => {
                    self.push(bad_identifier(text, node.span));
                    None
                }
                _ => {
                    self.push(wrong_type(node, "`as`", "a name", None));
                    None
                }
            };
        }
        let identifier = |text: &str| {
            let text = text.trim_matches(['-', '_', '.']).replace(['-', '.'], "_");
            is_identifier(&text).then(|| Arc::from(text))
        };
        let text = |node: &Node| match &node.value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        let prefix = include.prefix.as_ref().and_then(text).and_then(|prefix| identifier(&prefix));
        prefix.or_else(|| {
            let file = text(&include.file)?;
            let stem = file.rsplit('/').next()?.split('.').next()?.to_owned();
            // A file whose name no expression can say has outputs that nobody can read.
            Some(identifier(&stem).unwrap_or_else(|| Arc::from(format!("{stem}#{}", include.span.start))))
        })
    }

    /// Resolve an included file. False if something is wrong with it, which is reported.
    pub(super) fn module(&mut self, unit: &mut Unit, name: &str) -> bool {
        let Some(include) = unit.includes.get_mut(name) else { return true };
        let span = include.span;
        match std::mem::replace(&mut include.state, State::Busy) {
            State::Busy => {
                self.cycle(unit, &format!("module.{name}"), span);
                return false;
            }
            State::New => {}
            state => {
                let known = matches!(state, State::Done(_));
                include.state = state;
                return known;
            }
        }
        let (for_each, when) = (include.for_each.clone(), include.when.clone());
        unit.stack.push((format!("module.{name}"), span));
        let outer = unit.extra.clone();
        let mut instances = Vec::new();
        let known = match for_each {
            None => self.instance(unit, name, when.as_ref(), &outer).map(|(known, instance)| {
                instances.extend(instance);
                known
            }),
            Some(node) => self.repeat(unit, &node, &outer).and_then(|items| {
                let (mut outputs, mut tainted, mut complete) = (Vec::new(), false, true);
                for (key, extra) in items {
                    match self.instance(unit, name, when.as_ref(), &extra) {
                        Some((known, Some(instance))) => {
                            tainted |= known.tainted;
                            outputs.push((key, known.value));
                            instances.push(instance);
                        }
                        Some((_, None)) => {}
                        None => complete = false,
                    }
                }
                complete.then(|| Known { value: value::of_map(outputs), tainted })
            }),
        };
        unit.stack.pop();
        let found = known.is_some();
        if let Some(include) = unit.includes.get_mut(name) {
            include.state = known.map_or(State::Failed, State::Done);
            include.instances = instances;
        }
        found
    }

    /// One use of an included file: what `module.NAME` is, and the use itself unless its condition is false.
    #[allow(clippy::type_complexity)]
    fn instance(
        &mut self,
        unit: &mut Unit,
        name: &str,
        when: Option<&Node>,
        extra: &Extra,
    ) -> Option<(Known, Option<(String, Unit)>)> {
        if let Some(when) = when
            && !self.condition(unit, when, extra)?
        {
            return Some((Known { value: Computed::from(()), tainted: false }, None));
        }
        let include = &unit.includes[name];
        let (file, prefix, with, span) =
            (include.file.clone(), include.prefix.clone(), include.with.clone(), include.span);
        let path = self.text(unit, &file, "`file`", extra)?;
        let prefix = match prefix {
            Some(node) => self.text(unit, &node, "`prefix`", extra)?,
            None => Arc::from(""),
        };
        let full = beside(&unit.folder, &path);
        if unit.chain.contains(&full) {
            let from = unit.chain.iter().position(|other| *other == full).unwrap_or(0);
            let mut names: Vec<&str> = unit.chain[from..].iter().map(String::as_str).collect();
            names.push(&full);
            let message = format!("files include each other: {}", shown(&names.join(" → ")));
            self.push(Diagnostic::error("include-cycle", file.span, message).hint("remove one of these includes"));
            return None;
        }
        let mut chain = unit.chain.clone();
        chain.push(full.clone());
        self.includes += 1;
        if chain.len() > MAX_INCLUDE_DEPTH || self.includes > MAX_INCLUDES {
            let message = match self.includes > MAX_INCLUDES {
                true => format!("files are included more than {MAX_INCLUDES} times"),
                false => format!("files include each other more than {MAX_INCLUDE_DEPTH} levels deep"),
            };
            self.push(Diagnostic::error("include-limit", file.span, message).hint("include fewer files"));
            return None;
        }
        let document = self.document(&full, &path, file.span)?;
        let folder = full.rsplit_once('/').map_or("", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        let mut child = Unit::new(document, folder.to_owned(), chain);
        child.prefix = format!("{}{prefix}", unit.prefix);
        // A name that depends on this very file cannot be known here.
        if !matches!(unit.name, State::Busy) {
            let _reported = unit.chain.is_empty() && self.name(unit).is_none();
        }
        child.name = done(&unit.name).map_or(State::Failed, State::Done);
        self.declare(&mut child);
        let given = self.parameters(unit, &child, with.as_ref(), extra)?;
        self.assign(&mut child, given, span);
        self.settle(&mut child);
        let tainted = child.outputs.values().any(|known| known.tainted);
        let outputs = child.outputs.iter().map(|(name, known)| (name.clone(), known.value.clone()));
        let known = Known { value: value::of_map(outputs), tainted };
        Some((known, Some((prefix.to_string(), child))))
    }

    /// What `with` gives.
    fn parameters(&mut self, unit: &mut Unit, child: &Unit, with: Option<&Node>, extra: &Extra) -> Option<Given> {
        let mut given = Given::new();
        let Some(with) = with else { return Some(given) };
        let map = match &with.value {
            Value::Map(map) => map.clone(),
            Value::String(_) => {
                let known = self.value(unit, with, extra)?;
                let node = self.node_of(&known.value, with.span)?;
                match node.value {
                    Value::Map(map) => map,
                    _ => {
                        self.push(wrong_type(&node, "`with`", "a map from variables to values", None));
                        return None;
                    }
                }
            }
            _ => {
                self.push(wrong_type(with, "`with`", "a map from variables to values", None));
                return None;
            }
        };
        let mut complete = true;
        for (key, node) in map.iter() {
            let Some(declaration) = child.declarations.iter().find(|d| d.name == key.text) else {
                self.unknown(child, &key.text, key.span);
                continue;
            };
            let name = declaration.name.clone();
            let Some(known) = self.value(unit, node, extra) else {
                complete = false;
                continue;
            };
            if known.value.is_none() {
                // As if it were not given.
                continue;
            }
            match self.node_of(&known.value, node.span) {
                Some(node) => {
                    given.insert(name, (node, known.tainted));
                }
                None => complete = false,
            }
        }
        complete.then_some(given)
    }

    /// A computed text.
    fn text(&mut self, unit: &mut Unit, node: &Node, what: &str, extra: &Extra) -> Option<Arc<str>> {
        let known = self.value(unit, node, extra)?;
        match known.value.kind() {
            ValueKind::String => known.value.to_str(),
            _ => {
                let message = format!("{what} is {}, expected text", value::kind(&known.value));
                self.push(Diagnostic::error("wrong-type", node.span, message).hint("write text"));
                None
            }
        }
    }

    /// The tree of a file, read once.
    fn document(&mut self, full: &str, path: &str, at: Span) -> Option<Rc<Document>> {
        if let Some(known) = self.documents.get(full) {
            return known.clone();
        }
        let document = self.read(full, path, at).map(|root| Rc::new(Document { root }));
        self.documents.insert(full.to_owned(), document.clone());
        document
    }

    fn read(&mut self, full: &str, path: &str, at: Span) -> Option<Node> {
        let Some(format) = format(full) else {
            let message = format!("`{}` is not an experiment file by its name", shown(path));
            self.push(Diagnostic::error("file-kind", at, message).hint("its name must end with .yaml, .yml or .toml"));
            return None;
        };
        let limit = syntax::MAX_BYTES as u64;
        let text =
            self.files.read(full, limit).map_err(|error| error.to_string()).and_then(|bytes| match bytes.len() {
                n if n as u64 > limit => Err(format!("it has more than {limit} bytes")),
                _ => String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()),
            });
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read the included file `{}`: {error}", shown(path));
                self.push(
                    Diagnostic::error("unreadable", at, message)
                        .hint("the path is relative to the file that includes it"),
                );
                return None;
            }
        };
        let name = self.files.display(full);
        let source = self.sources.add(name, text.as_str());
        let folder = full.rsplit_once('/').map_or("", |(folder, _)| if folder.is_empty() { "/" } else { folder });
        self.folders.insert(source, folder.to_owned());
        let (root, diagnostics) = syntax::read(&text, source, format);
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
        let root = root?;
        match root.value {
            Value::Map(_) => Some(root),
            Value::Null => Some(Node { value: Value::Map(Arc::new(Vec::new())), span: root.span }),
            _ => {
                self.push(wrong_type(&root, "the included file", "a map", None));
                None
            }
        }
    }
}
