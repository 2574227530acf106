//! YAML events into the tree: anchors, aliases, merge keys, duplicate keys, and the limits.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet};
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Tag};

use super::{
    ANCHOR, MAX_ALIAS_NODES, MAX_DEPTH, MAX_ERRORS, MAX_VALUES, Node, SpannedKey, Value, duplicate_key, scalar,
    too_deep, too_many,
};
use crate::diagnostic::{Diagnostic, SourceId, Span};

/// A finished node with what the limits need to know.
#[derive(Clone)]
struct Built {
    node: Node,
    /// Nodes in it, aliases expanded.
    nodes: u64,
    /// Levels of lists and maps in it, aliases expanded.
    height: usize,
    /// A plain `<<`.
    merge: bool,
}

enum Key {
    Text(SpannedKey),
    Merge(Span),
    /// Refused; its value is read and dropped.
    Refused,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<(SpannedKey, Node)>,
        /// Where each key stands; filled only for maps with more than a few keys.
        seen: HashMap<Arc<str>, Span>,
        key: Option<Key>,
        merges: Vec<(Span, Node)>,
    },
}

struct Frame {
    content: Content,
    anchor: usize,
    span: Span,
    nodes: u64,
    height: usize,
}

struct Builder<'t> {
    text: &'t str,
    source: SourceId,
    frames: Vec<Frame>,
    root: Option<Node>,
    anchors: HashMap<usize, Built>,
    expanded: u64,
    /// What counts for [`MAX_VALUES`] so far; what aliases stand for does not.
    values: usize,
    diagnostics: Vec<Diagnostic>,
}

/// Below this many keys a map is searched for duplicates one by one.
const FEW: usize = 8;

pub(super) fn read(text: &str, source: SourceId) -> (Option<Node>, Vec<Diagnostic>) {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        // Ours come first, with a message of our own; the parser's bound its own memory.
        flow_nesting_limit: MAX_DEPTH + 2,
        block_nesting_limit: MAX_DEPTH + 2,
    };
    let mut builder = Builder {
        text,
        source,
        frames: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        expanded: 0,
        values: 0,
        diagnostics: Vec::new(),
    };
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, place) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
                let span = builder.character(at);
                let diagnostic = match error.kind() {
                    ErrorKind::RecursionLimitExceeded => too_deep(span),
                    kind => explain(kind.to_string(), span, text),
                };
                builder.diagnostics.push(diagnostic);
                return (None, builder.diagnostics);
            }
        };
        let span = builder.span(&place);
        if let Event::DocumentStart(..) = event {
            documents += 1;
            if documents > 1 {
                builder.diagnostics.push(
                    Diagnostic::error("second-document", span, "a second YAML document begins here")
                        .hint("an experiment file holds one experiment; put the second into a file of its own"),
                );
                break;
            }
        }
        if let Err(diagnostic) = builder.event(event, span, place.tag_span().is_some()) {
            builder.diagnostics.push(*diagnostic);
            return (None, builder.diagnostics);
        }
        if builder.diagnostics.len() >= MAX_ERRORS {
            return (None, builder.diagnostics);
        }
    }
    let start = Span { source, start: 0, end: 0 };
    (Some(builder.root.unwrap_or(Node { value: Value::Null, span: start })), builder.diagnostics)
}

/// A syntax error in the parser's words, with a hint where the usual cause is known.
fn explain(message: String, mut span: Span, text: &str) -> Diagnostic {
    // The parser's place is where it began to read what has the tab.
    if message.contains("tab")
        && let Some(tab) = text[span.start..].find('\t')
    {
        span = Span { start: span.start + tab, end: span.start + tab + 1, ..span };
    }
    let line_start = text[..span.start].rfind('\n').map_or(0, |i| i + 1);
    let line = text[line_start..].lines().next().unwrap_or("");
    let hint = if message.contains("tab") || line.starts_with('\t') {
        Some("YAML indents with blanks; replace the tab")
    } else if line.trim_start().starts_with(['[', '*', '&', '!', '@', '`', '%', '|', '>']) || line.contains("[") {
        Some("a name with `[` must be quoted, as in `\"web[0-2]\": …`; check also for an unclosed bracket or quote")
    } else {
        None
    };
    let diagnostic = Diagnostic::error("syntax", span, format!("not valid YAML: {message}"));
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

type Step = Result<(), Box<Diagnostic>>;

impl Builder<'_> {
    fn span(&self, place: &granit_parser::Span) -> Span {
        let start = place.start.byte_offset().unwrap_or(0).min(self.text.len());
        let end = place.end.byte_offset().unwrap_or(start).clamp(start, self.text.len());
        Span { source: self.source, start, end }
    }

    /// The character at a byte.
    fn character(&self, at: usize) -> Span {
        let start = (0..=at).rev().find(|&i| self.text.is_char_boundary(i)).unwrap_or(0);
        let length = self.text[start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        Span { source: self.source, start, end: start + length }
    }

    fn event(&mut self, event: Event<'_>, span: Span, tagged: bool) -> Step {
        self.values += match event {
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _) => {
                1 + if anchor == 0 { 0 } else { ANCHOR }
            }
            Event::Alias(_) => 1,
            _ => 0,
        };
        if self.values > MAX_VALUES {
            return Err(Box::new(too_many(span, MAX_VALUES, "keys and values")));
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), tagged, span);
                let merge = matches!(style, ScalarStyle::Plain) && text == "<<" && !tagged;
                let built = Built { node: Node { value, span }, nodes: 1, height: 0, merge };
                self.finish(built, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span);
                self.open(Content::List(Vec::new()), anchor, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span);
                let content = Content::Map { entries: Vec::new(), seen: HashMap::new(), key: None, merges: Vec::new() };
                self.open(content, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(id) => {
                let Some(built) = self.anchors.get(&id).cloned() else {
                    self.diagnostics.push(Diagnostic::error("alias", span, "this alias stands inside its own anchor"));
                    return self.finish(null(span), 0);
                };
                self.expand(built.nodes, span)?;
                self.finish(built, 0)
            }
            Event::UnresolvedAlias(name) => {
                self.diagnostics.push(
                    Diagnostic::error("alias", span, format!("there is no anchor `&{}`", crate::spec::shown(&name)))
                        .hint("an anchor must stand before the alias; quote text that begins with `*`"),
                );
                self.finish(null(span), 0)
            }
            _ => Ok(()),
        }
    }

    fn expand(&mut self, nodes: u64, span: Span) -> Step {
        self.expanded = self.expanded.saturating_add(nodes);
        if self.expanded > MAX_ALIAS_NODES {
            return Err(Box::new(
                Diagnostic::error(
                    "alias-limit",
                    span,
                    format!("the aliases of this file stand for more than {MAX_ALIAS_NODES} values"),
                )
                .hint("use profiles and ranges instead of aliases of aliases"),
            ));
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, tagged: bool, span: Span) -> Value {
        let plain = matches!(style, ScalarStyle::Plain);
        if !tagged {
            return if plain { scalar::resolve(text) } else { Value::String(Arc::from(text)) };
        }
        // `!` alone says "not a plain scalar".
        let suffix = tag.map_or("str", |tag| match tag.core_suffix() {
            Some(suffix) => suffix,
            None if tag.handle().is_empty() && tag.suffix() == "!"
                || tag.handle() == "!" && tag.suffix().is_empty() =>
            {
                "str"
            }
            None => "",
        });
        let value = if plain { scalar::resolve(text) } else { Value::String(Arc::from(text)) };
        match (suffix, &value) {
            ("str", _) => Value::String(Arc::from(text)),
            ("null", Value::Null)
            | ("bool", Value::Bool(_))
            | ("int", Value::Int(_))
            | ("float", Value::Int(_) | Value::Float(_)) => value,
            _ => {
                self.diagnostics.push(
                    Diagnostic::error("yaml-tag", span, "this YAML tag has no meaning here")
                        .hint("remove the tag; quote a value that is to be text"),
                );
                value
            }
        }
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, expected: &str, span: Span) {
        if tag.is_some_and(|tag| tag.core_suffix() != Some(expected) && tag.original() != "!") {
            self.diagnostics
                .push(Diagnostic::error("yaml-tag", span, "this YAML tag has no meaning here").hint("remove the tag"));
        }
    }

    fn open(&mut self, content: Content, anchor: usize, span: Span) -> Step {
        if self.frames.len() >= MAX_DEPTH {
            return Err(Box::new(too_deep(span)));
        }
        self.frames.push(Frame { content, anchor, span, nodes: 1, height: 1 });
        Ok(())
    }

    fn close(&mut self, end: Span) -> Step {
        let mut frame = self.frames.pop().expect("the parser ends only what it began");
        // A block collection ends with its last child; its end event stands at whatever comes next.
        let last = match &frame.content {
            Content::List(items) => items.last().map(|n| n.span.end),
            Content::Map { entries, .. } => entries.last().map(|(_, n)| n.span.end),
        };
        frame.span.end = if end.end > end.start { end.end } else { last.unwrap_or(frame.span.end) }.max(frame.span.end);
        let value = match frame.content {
            Content::List(items) => Value::List(Arc::new(items)),
            Content::Map { mut entries, merges, .. } => {
                if !merges.is_empty() {
                    self.merge(&mut entries, merges);
                }
                Value::Map(Arc::new(entries))
            }
        };
        let node = Node { value, span: frame.span };
        self.finish(Built { node, nodes: frame.nodes, height: frame.height, merge: false }, frame.anchor)
    }

    /// Put a finished node into its parent.
    fn finish(&mut self, built: Built, anchor: usize) -> Step {
        if anchor != 0 {
            self.anchors.insert(anchor, Built { merge: false, ..built.clone() });
        }
        let depth = self.frames.len();
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        if depth + built.height > MAX_DEPTH {
            return Err(Box::new(too_deep(built.node.span)));
        }
        frame.nodes = frame.nodes.saturating_add(built.nodes);
        frame.height = frame.height.max(built.height + 1);
        let Content::Map { entries, seen, key, merges } = &mut frame.content else {
            if let Content::List(items) = &mut frame.content {
                items.push(built.node);
            }
            return Ok(());
        };
        match key.take() {
            None => {
                let span = built.node.span;
                *key = Some(match built.node.value {
                    _ if built.merge => Key::Merge(span),
                    Value::String(text) => Key::Text(SpannedKey { text, span }),
                    Value::List(_) | Value::Map(_) => {
                        let expression = self.text.get(..=span.start).is_some_and(|text| text.ends_with("{{"));
                        let hint = match expression {
                            true => "quote an expression, as in `\"{{ var.size }}\"`",
                            false => "a name with `[` or `{` must be quoted, as in `\"web[0-2]\": …`",
                        };
                        self.diagnostics.push(Diagnostic::error("key-type", span, "a key must be text").hint(hint));
                        Key::Refused
                    }
                    _ => Key::Text(SpannedKey { text: Arc::from(&self.text[span.start..span.end]), span }),
                });
            }
            Some(Key::Refused) => {}
            Some(Key::Merge(span)) => {
                let nodes = built.nodes;
                if let Some((first, _)) = merges.first() {
                    let first = *first;
                    self.diagnostics.push(
                        Diagnostic::error("duplicate-key", span, "the merge key `<<` is given twice")
                            .label(first, "first given here")
                            .hint("write one list: `<<: [*a, *b]`"),
                    );
                    return Ok(());
                }
                merges.push((span, built.node));
                // What is merged is copied once more than the alias itself counts.
                self.expand(nodes, span)?;
            }
            Some(Key::Text(key)) => {
                let mut node = built.node;
                if node.span.start == node.span.end {
                    // An empty value stands nowhere; its key does.
                    node.span = key.span;
                }
                let first = if entries.len() < FEW {
                    entries.iter().find(|(k, _)| k.text == key.text).map(|(k, _)| k.span)
                } else {
                    if seen.is_empty() {
                        seen.extend(entries.iter().map(|(k, _)| (k.text.clone(), k.span)));
                    }
                    let first = seen.get(&key.text).copied();
                    seen.entry(key.text.clone()).or_insert(key.span);
                    first
                };
                match first {
                    Some(first) => self.diagnostics.push(duplicate_key(&key.text, key.span, first)),
                    None => entries.push((key, node)),
                }
            }
        }
        Ok(())
    }

    /// Resolve `<<`: own keys win, then the first map of the list that has the key.
    fn merge(&mut self, entries: &mut Vec<(SpannedKey, Node)>, merges: Vec<(Span, Node)>) {
        let mut have: HashSet<Arc<str>> = entries.iter().map(|(k, _)| k.text.clone()).collect();
        for (span, node) in merges {
            let one;
            let maps: &[Node] = match &node.value {
                Value::Map(_) => {
                    one = [node];
                    &one
                }
                Value::List(list) => list,
                _ => &[],
            };
            if maps.is_empty() || maps.iter().any(|n| !matches!(n.value, Value::Map(_))) {
                self.diagnostics.push(
                    Diagnostic::error("merge-key", span, "the merge key `<<` takes a map or a list of maps")
                        .hint("write `<<: *name` where `&name` marks a map"),
                );
            }
            for map in maps {
                let Value::Map(map) = &map.value else { continue };
                for (key, value) in map.iter() {
                    if have.insert(key.text.clone()) {
                        entries.push((key.clone(), value.clone()));
                    }
                }
            }
        }
    }
}

fn null(span: Span) -> Built {
    Built { node: Node { value: Value::Null, span }, nodes: 1, height: 0, merge: false }
}
