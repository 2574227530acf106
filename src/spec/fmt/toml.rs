//! TOML in normal form: one blank around `=`, keys at the beginning of the line, one blank line between tables, and
//! `{ a = 1 }` and `[1, 2]` with these blanks. Arrays of several lines keep their lines.

use toml_edit::{Array, DocumentMut, InlineTable, Item, RawString, Table, Value};

/// The normal form of a text that is TOML.
pub fn normal(text: &str) -> String {
    let Ok(mut document) = text.parse::<DocumentMut>() else { return text.to_owned() };
    table(document.as_table_mut());
    let text = document.to_string();
    let verbatim = verbatim_lines(&text);
    let lines = text.lines().enumerate().map(|(index, line)| {
        let inside = verbatim.contains(&index);
        (if inside { line.to_owned() } else { line.trim_end().to_owned() }, inside)
    });
    super::spaced(lines)
}

/// The lines whose end lies in a text of several lines.
fn verbatim_lines(text: &str) -> std::collections::HashSet<usize> {
    let mut lines = std::collections::HashSet::new();
    let Ok(document) = toml_edit::Document::parse(text) else { return lines };
    let mut spans = Vec::new();
    strings(document.as_item(), &mut spans);
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count();
    for span in spans {
        lines.extend(line(span.start)..line(span.end));
    }
    lines
}

fn strings(item: &Item, into: &mut Vec<std::ops::Range<usize>>) {
    match item {
        Item::Value(value) => value_strings(value, into),
        Item::Table(table) => table.iter().for_each(|(_, item)| strings(item, into)),
        Item::ArrayOfTables(tables) => {
            tables.iter().for_each(|table| table.iter().for_each(|(_, item)| strings(item, into)));
        }
        Item::None => {}
    }
}

fn value_strings(value: &Value, into: &mut Vec<std::ops::Range<usize>>) {
    match value {
        Value::String(_) => into.extend(value.span()),
        Value::Array(array) => array.iter().for_each(|value| value_strings(value, into)),
        Value::InlineTable(table) => table.iter().for_each(|(_, value)| value_strings(value, into)),
        _ => {}
    }
}

/// A text before a key or a header: its comments, each on its own line without indentation.
fn comments(prefix: &str) -> String {
    let mut text = String::new();
    let mut lines: Vec<&str> = prefix.split('\n').collect();
    // What stands before the key on its own line is indentation.
    lines.pop();
    for line in lines {
        text.push_str(line.trim());
        text.push('\n');
    }
    text
}

/// Is there nothing but blanks in it?
fn blank(raw: Option<&RawString>) -> bool {
    raw.is_none_or(|raw| raw.as_str().is_some_and(|text| text.bytes().all(|byte| matches!(byte, b' ' | b'\t'))))
}

/// What is inside of a value.
fn value(value: &mut Value) {
    match value {
        Value::Array(inner) => array(inner),
        Value::InlineTable(inner) => inline(inner),
        _ => {}
    }
}

/// Blanks between elements; where a line ends or a comment is, blanks stay.
fn array(array: &mut Array) {
    for (index, item) in array.iter_mut().enumerate() {
        value(item);
        let decor = item.decor_mut();
        if blank(decor.prefix()) {
            decor.set_prefix(if index == 0 { "" } else { " " });
        }
        if blank(decor.suffix()) {
            decor.set_suffix("");
        }
    }
    if blank(Some(array.trailing())) {
        array.set_trailing("");
    }
}

fn inline(table: &mut InlineTable) {
    let last = table.len().saturating_sub(1);
    for (index, (mut key, inner)) in table.iter_mut().enumerate() {
        value(inner);
        let decor = key.leaf_decor_mut();
        if blank(decor.prefix()) {
            decor.set_prefix(" ");
        }
        if blank(decor.suffix()) {
            decor.set_suffix(" ");
        }
        let decor = inner.decor_mut();
        if blank(decor.prefix()) {
            decor.set_prefix(" ");
        }
        if blank(decor.suffix()) {
            decor.set_suffix(if index == last { " " } else { "" });
        }
    }
    if blank(Some(table.trailing())) {
        table.set_trailing("");
    }
}

fn table(table: &mut Table) {
    if let Some(prefix) = table.decor().prefix().and_then(|prefix| prefix.as_str()) {
        let mut text = comments(prefix);
        if !text.starts_with('\n') {
            text.insert(0, '\n');
        }
        table.decor_mut().set_prefix(text);
    }
    for (mut key, item) in table.iter_mut() {
        match item {
            Item::Value(inner) => {
                let prefix = key.leaf_decor().prefix().and_then(|prefix| prefix.as_str()).map(comments);
                key.leaf_decor_mut().set_prefix(prefix.unwrap_or_default());
                key.leaf_decor_mut().set_suffix(" ");
                inner.decor_mut().set_prefix(" ");
                let suffix = inner.decor().suffix().and_then(|suffix| suffix.as_str()).unwrap_or_default().trim();
                let suffix = if suffix.is_empty() { String::new() } else { format!("  {suffix}") };
                inner.decor_mut().set_suffix(suffix);
                value(inner);
            }
            Item::Table(inner) => self::table(inner),
            Item::ArrayOfTables(tables) => tables.iter_mut().for_each(self::table),
            Item::None => {}
        }
    }
}
