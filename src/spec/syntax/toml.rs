//! TOML into the tree, by `toml_edit`.
//!
//! `toml_edit` stops at its first error and says only the second place of a duplicate key. So a duplicate key is replaced
//! by a name that occurs nowhere and the text is read again: its sibling of the same name is the first place, and
//! the errors behind it are found too. Offsets are mapped back to the file.

use std::sync::Arc;

use toml_edit::{Document, Item, TableLike, Value as TomlValue};

use super::{MAX_DEPTH, Node, SpannedKey, Value, duplicate_key, too_deep};
use crate::diagnostic::{Diagnostic, SourceId, Span};

/// How often a text is read again for further duplicate keys, and up to how many bytes in all.
const MAX_REREADS: usize = 20;
const MAX_REREAD_BYTES: usize = 32 << 20;

/// A replaced key.
struct Edit {
    start: usize,
    end: usize,
    name: String,
}

pub(super) fn read(text: &str, source: SourceId) -> (Option<Node>, Vec<Diagnostic>) {
    if let Err(refused) = super::tally::check(text, source) {
        return (None, vec![*refused]);
    }
    let mut edits: Vec<Edit> = Vec::new();
    let mut edited = text.to_owned();
    let mut diagnostics = Vec::new();
    loop {
        let error = match Document::parse(edited.as_str()) {
            Ok(document) => {
                let mut reader = Reader { text, source, edits: &edits, diagnostics: &mut diagnostics };
                let root = reader.table(document.as_table(), Span { source, start: 0, end: 0 }, 1);
                return (root, diagnostics);
            }
            Err(error) => error,
        };
        let found = error.span().unwrap_or(0..0);
        let start = original(&edits, found.start).min(text.len());
        let end = original(&edits, found.end).clamp(start, text.len());
        let span = Span { source, start, end };
        let again = error.message() == "duplicate key"
            && start < end
            && edits.iter().all(|e| e.end <= start)
            && edits.len() < MAX_REREADS
            && (edits.len() + 1) * text.len() <= MAX_REREAD_BYTES
            && text.is_char_boundary(start)
            && text.is_char_boundary(end);
        if !again {
            // A replaced key can be at fault for what follows it, but only the first error is certain then.
            if edits.is_empty() || error.message() != "duplicate key" {
                diagnostics.push(Diagnostic::error("syntax", span, format!("not valid TOML: {}", error.message())));
            }
            for edit in &edits {
                let span = Span { source, start: edit.start, end: edit.end };
                let key = &text[edit.start..edit.end];
                diagnostics.push(
                    Diagnostic::error(
                        "duplicate-key",
                        span,
                        format!("the key `{}` is given twice", crate::spec::shown(key)),
                    )
                    .hint("keep one of the two"),
                );
            }
            return (None, diagnostics);
        }
        let mut name = format!("duplicate-{}", edits.len());
        while text.contains(&name) {
            name.push('-');
        }
        edits.push(Edit { start, end, name });
        edited.clear();
        let mut at = 0;
        for edit in &edits {
            edited.push_str(&text[at..edit.start]);
            edited.push_str(&edit.name);
            at = edit.end;
        }
        edited.push_str(&text[at..]);
    }
}

/// The offset in the file of an offset in the edited text.
fn original(edits: &[Edit], offset: usize) -> usize {
    let mut before = 0usize;
    let mut after = 0usize;
    for edit in edits {
        let start = edit.start - before + after;
        if offset < start {
            break;
        }
        if offset < start + edit.name.len() {
            return edit.start;
        }
        before += edit.end - edit.start;
        after += edit.name.len();
        if offset == start + edit.name.len() {
            return edit.end;
        }
    }
    offset - after + before
}

struct Reader<'t> {
    text: &'t str,
    source: SourceId,
    edits: &'t [Edit],
    diagnostics: &'t mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn span(&self, range: Option<std::ops::Range<usize>>, fallback: Span) -> Span {
        range.map_or(fallback, |range| {
            let start = original(self.edits, range.start).min(self.text.len());
            let end = original(self.edits, range.end).clamp(start, self.text.len());
            Span { source: self.source, start, end }
        })
    }

    fn table(&mut self, table: &dyn TableLike, span: Span, depth: usize) -> Option<Node> {
        if depth > MAX_DEPTH {
            self.diagnostics.push(too_deep(span));
            return None;
        }
        let mut entries = Vec::with_capacity(table.len());
        for (text, item) in table.iter() {
            let key = table.key(text);
            let key_span = self.span(key.and_then(toml_edit::Key::span), span);
            if let Some(edit) = self.edits.iter().find(|e| e.name == text) {
                self.duplicate(edit, table, span);
                continue;
            }
            if let Some(node) = self.item(item, key_span, depth + 1) {
                entries.push((SpannedKey { text: Arc::from(text), span: key_span }, node));
            }
        }
        Some(Node { value: Value::Map(Arc::new(entries)), span })
    }

    fn duplicate(&mut self, edit: &Edit, table: &dyn TableLike, fallback: Span) {
        let span = Span { source: self.source, start: edit.start, end: edit.end };
        let written = &self.text[edit.start..edit.end];
        let name = written.parse::<toml_edit::Key>().map_or_else(|_| written.to_owned(), |key| key.get().to_owned());
        let first = self.span(table.key(&name).and_then(toml_edit::Key::span), fallback);
        self.diagnostics.push(duplicate_key(&name, span, first));
    }

    fn item(&mut self, item: &Item, key: Span, depth: usize) -> Option<Node> {
        match item {
            Item::None => None,
            Item::Value(value) => self.value(value, key, depth),
            // The span of a table with a header is the header; of one that only dotted keys make, nothing.
            Item::Table(table) => self.table(table, self.span(table.span(), key), depth),
            Item::ArrayOfTables(tables) => {
                let span = self.span(tables.span(), key);
                let mut items = Vec::with_capacity(tables.len());
                for table in tables {
                    let span = self.span(table.span(), key);
                    items.extend(self.table(table, span, depth + 1));
                }
                Some(Node { value: Value::List(Arc::new(items)), span })
            }
        }
    }

    fn value(&mut self, value: &TomlValue, key: Span, depth: usize) -> Option<Node> {
        let span = self.span(value.span(), key);
        let value = match value {
            TomlValue::String(text) => Value::String(Arc::from(text.value().as_str())),
            TomlValue::Integer(number) => Value::Int(i128::from(*number.value())),
            TomlValue::Float(number) => Value::Float(*number.value()),
            TomlValue::Boolean(truth) => Value::Bool(*truth.value()),
            TomlValue::Datetime(_) => Value::Date,
            TomlValue::Array(array) => {
                if depth > MAX_DEPTH {
                    self.diagnostics.push(too_deep(span));
                    return None;
                }
                let mut items = Vec::with_capacity(array.len());
                for item in array {
                    items.extend(self.value(item, span, depth + 1));
                }
                Value::List(Arc::new(items))
            }
            TomlValue::InlineTable(table) => return self.table(table, span, depth),
        };
        Some(Node { value, span })
    }
}
