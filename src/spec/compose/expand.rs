//! Entries into what they stand for: conditions, repetition, computed values, and the entries of included files.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::value::{Value as Computed, ValueKind};

use super::engine::is_template;
use super::unit::Unit;
use super::{Composer, Extra, MAX_NODES, MAX_REPEAT, OWN, Sections, named_section, rename, value};
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::shown;
use crate::spec::syntax::{Node, SpannedKey, Value};

/// The keys of an entry that compose it.
pub const ENTRY: &[&str] = &["when", "for_each", "count"];

/// The keys of a list's item that compose it.
pub const ITEM: &[&str] = &["when", "for_each"];

/// Is a node a map with one of these keys?
pub fn has_any(node: &Node, keys: &[&str]) -> bool {
    matches!(&node.value, Value::Map(map) if map.iter().any(|(key, _)| keys.contains(&canonical(&key.text).as_str())))
}

fn canonical(key: &str) -> String {
    key.replace('-', "_")
}

fn get<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(map) => map.iter().find(|(key, _)| canonical(&key.text) == name).map(|(_, node)| node),
        _ => None,
    }
}

/// The entries of one section, with where each name was first given.
#[derive(Default)]
struct Entries {
    list: Vec<(SpannedKey, Node)>,
    first: HashMap<Arc<str>, (Span, Option<String>)>,
}

impl Composer<'_> {
    /// The entries of a file with those of the files that it includes.
    pub(super) fn expand(&mut self, unit: &mut Unit) -> Sections {
        let mut sections: std::collections::BTreeMap<&'static str, Entries> = Default::default();
        let root = unit.document.root.clone();
        let Value::Map(map) = &root.value else { return Sections::new() };
        for (key, node) in map.iter() {
            let name = canonical(&key.text);
            let Some(section) = named_section(&name) else {
                if !unit.chain.is_empty() && !OWN.contains(&name.as_str()) && name != "experiment" {
                    let message =
                        format!("`{}` can stand in the experiment file only, not in an included one", shown(&key.text));
                    self.push(Diagnostic::error("include", key.span, message).hint("move it to the experiment file"));
                }
                continue;
            };
            let mut entries = Entries::default();
            let computed = match &node.value {
                Value::String(text) if is_template(text) => {
                    let Some(node) = self.body(unit, node, &Extra::default()) else { continue };
                    self.kept.push(node.clone());
                    node
                }
                _ => node.clone(),
            };
            match &computed.value {
                Value::Map(map) => {
                    for (key, node) in map.iter() {
                        self.entry(unit, section, key, node, &mut entries);
                    }
                }
                Value::Null => {}
                _ => {
                    if !unit.chain.is_empty() || is_template(&self.written(node.span)) {
                        self.push(crate::spec::section::wrong_type(
                            &computed,
                            format!("`{section}`"),
                            "a map from names to settings",
                            None,
                        ));
                    }
                    continue;
                }
            }
            sections.insert(section, entries);
        }
        let names: Vec<Arc<str>> = unit.includes.keys().cloned().collect();
        for name in names {
            let Some(include) = unit.includes.get_mut(&name) else { continue };
            let span = include.span;
            for (prefix, mut child) in std::mem::take(&mut include.instances) {
                let mut from = self.expand(&mut child);
                if !prefix.is_empty() {
                    rename::prefix(&mut from, &prefix);
                }
                for (section, list) in from {
                    let entries = sections.entry(section).or_default();
                    for (key, node) in list {
                        self.add(section, entries, key, node, Some(span), None);
                    }
                }
            }
        }
        sections.into_iter().map(|(name, entries)| (name, entries.list)).collect()
    }

    /// The node without some of its keys; always the same node for the same one.
    fn without(&mut self, node: &Node, keys: &'static [&'static str]) -> Node {
        let Value::Map(map) = &node.value else { return node.clone() };
        let rest = self.without.entry((Arc::as_ptr(map) as usize, keys)).or_insert_with(|| {
            let rest = map.iter().filter(|(key, _)| !keys.contains(&canonical(&key.text).as_str())).cloned().collect();
            Node { value: Value::Map(Arc::new(rest)), span: node.span }
        });
        rest.clone()
    }

    /// Put an entry to the others, unless its name is taken.
    fn add(
        &mut self,
        section: &str,
        entries: &mut Entries,
        key: SpannedKey,
        node: Node,
        include: Option<Span>,
        what: Option<String>,
    ) {
        let Some((first, other)) = entries.first.get(&key.text) else {
            entries.first.insert(key.text.clone(), (key.span, what));
            entries.list.push((key, node));
            return;
        };
        let message = format!("`{section}` has two entries called `{}`", shown(&key.text));
        let mut diagnostic = Diagnostic::error("duplicate-name", key.span, message);
        if *first == key.span {
            let both = other.as_ref().zip(what.as_ref());
            diagnostic = diagnostic
                .label(*first, both.map_or("both come from here".to_owned(), |(a, b)| format!("for {a} and for {b}")));
            if let Some(include) = include {
                diagnostic = diagnostic.label(include, "included here");
            }
        } else {
            let label = other.as_ref().map_or("the other".to_owned(), |other| format!("the other, for {other}"));
            diagnostic = diagnostic.label(*first, label);
        }
        let hint = match include {
            Some(_) => "give the included file a `prefix`, or rename one of them",
            None => "rename one of them; a repeated entry needs a name with `{{ each.key }}` or `{{ count.index }}`",
        };
        self.push(diagnostic.hint(hint));
    }

    fn entry(&mut self, unit: &mut Unit, section: &'static str, key: &SpannedKey, node: &Node, entries: &mut Entries) {
        let (for_each, count) = (get(node, "for_each").cloned(), get(node, "count").cloned());
        let when = get(node, "when").cloned();
        if let (Some(for_each), Some(count)) = (&for_each, &count) {
            self.push(
                Diagnostic::error(
                    "for-each-count",
                    count.span,
                    format!("`{}` has `for_each` and `count`", shown(&key.text)),
                )
                .label(for_each.span, "the `for_each`")
                .hint("use one of the two"),
            );
            return;
        }
        let outer = Extra::default();
        if let Some(for_each) = for_each {
            let body = self.without(node, &["for_each", "when"]);
            for (name, extra) in self.repeat(unit, &for_each, &outer).unwrap_or_default() {
                let what = format!("each.key `{}`", shown(&name));
                self.one(unit, section, key, &body, when.as_ref(), &extra, Some(what), entries);
                if self.stopped {
                    return;
                }
            }
            return;
        }
        // What a profile would do with a `count` is for the decoder to refuse.
        let counted = section != "profiles" && count.is_some();
        let body = match when {
            Some(_) => self.without(node, &["when"]),
            None => node.clone(),
        };
        let Some(count) = count.filter(|_| counted) else {
            self.one(unit, section, key, &body, when.as_ref(), &outer, None, entries);
            return;
        };
        let by_index = self.refers_to_count(&key.text)
            || self.uses_count(&body)
            || when.as_ref().is_some_and(|w| self.uses_count(w));
        if section == "vms" && !by_index {
            // NAME0, NAME1 … of equal settings are made by the decoder.
            self.one(unit, section, key, &body, when.as_ref(), &outer, None, entries);
            return;
        }
        let Some(times) = self.times(unit, &count, &key.text) else { return };
        let body = self.without(&body, &["count"]);
        let named = is_template(&key.text);
        for index in 0..times {
            let extra =
                Extra { count: Some(value::of_map([(Arc::from("index"), Computed::from(index))])), ..outer.clone() };
            let key = match named {
                true => key.clone(),
                false => SpannedKey { text: Arc::from(format!("{}{index}", key.text)), span: key.span },
            };
            let what = format!("count.index {index}");
            self.one(unit, section, &key, &body, when.as_ref(), &extra, Some(what), entries);
            if self.stopped {
                return;
            }
        }
    }

    /// One entry, which may have a condition.
    #[allow(clippy::too_many_arguments)]
    fn one(
        &mut self,
        unit: &mut Unit,
        section: &'static str,
        key: &SpannedKey,
        body: &Node,
        when: Option<&Node>,
        extra: &Extra,
        what: Option<String>,
        entries: &mut Entries,
    ) {
        if !self.charge(1, key.span) {
            return;
        }
        self.copy.clone_from(&what);
        let made = self.made(unit, key, body, when, extra);
        self.copy = None;
        if let Some((text, body)) = made {
            self.add(section, entries, SpannedKey { text, span: key.span }, body, None, what);
        }
    }

    /// The name and settings of one entry; None where its condition is false, or for an error, which is reported.
    fn made(
        &mut self,
        unit: &mut Unit,
        key: &SpannedKey,
        body: &Node,
        when: Option<&Node>,
        extra: &Extra,
    ) -> Option<(Arc<str>, Node)> {
        if let Some(when) = when
            && !self.condition(unit, when, extra).unwrap_or(false)
        {
            return None;
        }
        let name = self.key(unit, key, extra);
        let body = match &body.value {
            Value::Map(_) => self.body(unit, body, extra),
            _ => self.body(unit, body, extra).or(Some(Node { value: Value::Null, span: body.span })),
        };
        name.zip(body)
    }

    /// Count what is made. False once it is too much, which is reported once.
    fn charge(&mut self, nodes: u64, span: Span) -> bool {
        if self.stopped {
            return false;
        }
        match self.room.checked_sub(nodes) {
            Some(room) => {
                self.room = room;
                true
            }
            None => {
                self.stopped = true;
                self.push(
                    Diagnostic::error(
                        "expansion-limit",
                        span,
                        format!("the experiment expands to more than {MAX_NODES} values"),
                    )
                    .hint("use `count` or ranges such as `web[0-999]` for VMs with the same settings"),
                );
                false
            }
        }
    }

    /// How often a `count` repeats an entry.
    fn times(&mut self, unit: &mut Unit, node: &Node, name: &str) -> Option<usize> {
        let known = self.value(unit, node, &Extra::default())?;
        let times = match known.value.kind() {
            ValueKind::Number => known.value.as_usize(),
            _ => None,
        };
        match times {
            Some(times) if times <= MAX_REPEAT => Some(times),
            _ => {
                let message = format!(
                    "`count` of `{}` is {}, expected a whole number from 0 to {MAX_REPEAT}",
                    shown(name),
                    shown(&known.value.to_string())
                );
                self.push(
                    Diagnostic::error("out-of-range", node.span, message).hint("choose a value within the range"),
                );
                None
            }
        }
    }

    /// The value of a `when`; None if it has none, which is reported.
    pub(super) fn condition(&mut self, unit: &mut Unit, node: &Node, extra: &Extra) -> Option<bool> {
        let known = match &node.value {
            Value::String(text) if !is_template(text) => {
                // What stands here is an expression with its braces or without.
                let text: Arc<str> = Arc::from(format!("{{{{ {text} }}}}"));
                self.eval(unit, &text, node.span, extra)?
            }
            _ => self.value(unit, node, extra)?,
        };
        if known.value.kind() == ValueKind::Bool {
            return Some(known.value.is_true());
        }
        let message = format!("`when` is {}, expected true or false", value::kind(&known.value));
        self.push(
            Diagnostic::error("wrong-type", node.span, message)
                .hint("write a comparison, as in `\"{{ var.size > 2 }}\"`"),
        );
        None
    }

    /// What a `for_each` goes over: each key with the names that its copy sees.
    pub(super) fn repeat(&mut self, unit: &mut Unit, node: &Node, outer: &Extra) -> Option<Vec<(Arc<str>, Extra)>> {
        let known = match &node.value {
            Value::String(text) if !is_template(text) => {
                let text: Arc<str> = Arc::from(format!("{{{{ {text} }}}}"));
                self.eval(unit, &text, node.span, outer)?
            }
            _ => self.value(unit, node, outer)?,
        };
        let pairs = match known.value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Result<Vec<Computed>, _> =
                    known.value.try_iter().and_then(|items| items.checked().collect());
                items.ok().map(|items| {
                    let simple = items
                        .iter()
                        .all(|item| matches!(item.kind(), ValueKind::String | ValueKind::Number | ValueKind::Bool));
                    let key = |index: usize, item: &Computed| if simple { item.clone() } else { Computed::from(index) };
                    items.into_iter().enumerate().map(|(index, item)| (key(index, &item), item)).collect::<Vec<_>>()
                })
            }
            ValueKind::Map => known.value.try_iter().ok().map(|keys| {
                keys.map(|key| {
                    let item = known.value.get_item(&key).unwrap_or_default();
                    (key, item)
                })
                .collect()
            }),
            _ => None,
        };
        let Some(pairs) = pairs else {
            let message = format!("`for_each` is {}, expected a list or a map", value::kind(&known.value));
            self.push(
                Diagnostic::error("wrong-type", node.span, message)
                    .hint("write a list, a map, or an expression that gives one"),
            );
            return None;
        };
        if pairs.len() > MAX_REPEAT {
            let message = format!("`for_each` goes over {} elements, the limit is {MAX_REPEAT}", pairs.len());
            self.push(Diagnostic::error("expansion-limit", node.span, message).hint("split the experiment"));
            return None;
        }
        let extra = |(index, (key, item)): (usize, (Computed, Computed))| {
            let name: Arc<str> = Arc::from(key.to_string());
            let mut names = vec![
                (Arc::from("key"), Computed::from(name.clone())),
                (Arc::from("value"), item),
                (Arc::from("index"), Computed::from(index)),
            ];
            names.extend(outer.each.clone().map(|each| (Arc::from("parent"), each)));
            let each = Some(value::of_map(names));
            (name, Extra { each, count: outer.count.clone(), tainted: outer.tainted || known.tainted })
        };
        Some(pairs.into_iter().enumerate().map(extra).collect())
    }

    /// A computed value as a node at the place of its expression.
    pub(super) fn node_of(&mut self, value: &Computed, span: Span) -> Option<Node> {
        let before = self.room;
        match value::to_node(value, span, &mut self.room) {
            Ok(node) => Some(node),
            Err(value::ValueError::Large { .. }) => {
                self.room = before.min(1);
                self.charge(2, span);
                None
            }
            Err(error) => {
                self.push(
                    Diagnostic::error("expression", span, error.to_string())
                        .hint("give text, a number, a list or a map"),
                );
                None
            }
        }
    }

    /// A value with everything in it computed. None where it has none: an error, which is reported, or the value none,
    /// which takes its key away.
    pub(super) fn body(&mut self, unit: &mut Unit, node: &Node, extra: &Extra) -> Option<Node> {
        match &node.value {
            Value::String(text) if is_template(text) => {
                let known = self.eval(unit, text, node.span, extra)?;
                if known.value.is_none() {
                    return None;
                }
                self.node_of(&known.value, node.span)
            }
            Value::List(list) if !self.is_plain(node) => {
                if !self.charge(list.len() as u64, node.span) {
                    return None;
                }
                let mut items = Vec::with_capacity(list.len());
                for item in list.iter() {
                    self.item(unit, item, extra, &mut items);
                }
                Some(Node { value: Value::List(Arc::new(items)), span: node.span })
            }
            Value::Map(map) if !self.is_plain(node) => {
                if !self.charge(map.len() as u64, node.span) {
                    return None;
                }
                let mut entries: Vec<(SpannedKey, Node)> = Vec::with_capacity(map.len());
                for (key, value) in map.iter() {
                    let text = self.key(unit, key, extra);
                    let value = self.body(unit, value, extra);
                    let (Some(text), Some(value)) = (text, value) else { continue };
                    if is_template(&key.text)
                        && let Some((other, _)) = entries.iter().find(|(other, _)| other.text == text)
                    {
                        let message = format!("the key `{}` is given twice", shown(&text));
                        let diagnostic =
                            Diagnostic::error("duplicate-key", key.span, message).label(other.span, "first given here");
                        self.push(diagnostic.hint("keep one of the two"));
                        continue;
                    }
                    entries.push((SpannedKey { text, span: key.span }, value));
                }
                Some(Node { value: Value::Map(Arc::new(entries)), span: node.span })
            }
            _ => Some(node.clone()),
        }
    }

    /// One item of a list: left out, repeated, or computed.
    fn item(&mut self, unit: &mut Unit, item: &Node, extra: &Extra, into: &mut Vec<Node>) {
        if !has_any(item, ITEM) {
            into.extend(self.body(unit, item, extra));
            return;
        }
        let (for_each, when) = (get(item, "for_each").cloned(), get(item, "when").cloned());
        let body = self.without(item, ITEM);
        let copies = match for_each {
            Some(node) => {
                self.repeat(unit, &node, extra).unwrap_or_default().into_iter().map(|(_, extra)| extra).collect()
            }
            None => vec![extra.clone()],
        };
        for extra in copies {
            if !self.charge(1, item.span) {
                return;
            }
            if let Some(when) = &when
                && !self.condition(unit, when, &extra).unwrap_or(false)
            {
                continue;
            }
            into.extend(self.body(unit, &body, &extra));
        }
    }

    /// Is there nothing to compute in a node? Asked once for each list and map of a file.
    fn is_plain(&mut self, node: &Node) -> bool {
        let address = match &node.value {
            Value::String(text) => return !is_template(text),
            Value::List(list) => Arc::as_ptr(list) as usize,
            Value::Map(map) => Arc::as_ptr(map) as usize,
            _ => return true,
        };
        if let Some(&plain) = self.plain.get(&address) {
            return plain;
        }
        let plain = match &node.value {
            Value::List(list) => list.iter().all(|item| !has_any(item, ITEM) && self.is_plain(item)),
            Value::Map(map) => map.iter().all(|(key, value)| !is_template(&key.text) && self.is_plain(value)),
            _ => true,
        };
        self.plain.insert(address, plain);
        plain
    }

    fn refers_to_count(&mut self, text: &Arc<str>) -> bool {
        if !is_template(text) {
            return false;
        }
        matches!(&*self.engine.compile(text), Ok(compiled) if compiled.refs.iter().any(|path| path[0] == "count"))
    }

    /// Does an expression in a node refer to `count`?
    fn uses_count(&mut self, node: &Node) -> bool {
        match &node.value {
            Value::String(text) => self.refers_to_count(text),
            Value::List(list) => list.iter().any(|item| self.uses_count(item)),
            Value::Map(map) => map.iter().any(|(key, value)| self.refers_to_count(&key.text) || self.uses_count(value)),
            _ => false,
        }
    }
}
