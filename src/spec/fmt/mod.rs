//! The normal form of an experiment file: indentation, blanks and blank lines. Comments stay, and so does the order of
//! everything.
//!
//! The result is read again and compared with what was there: where it would mean anything else, the file is left as it is.

use super::syntax::{self, Format, Node, Value};
use crate::diagnostic::{Diagnostic, SourceMap, Span};

mod flow;
mod toml;
mod yaml;

/// The normal form of a text.
pub fn normal(name: &str, text: &str, format: Format) -> Result<String, (SourceMap, Vec<Diagnostic>)> {
    let mut sources = SourceMap::new();
    let source = sources.add(name, text);
    let (root, diagnostics) = syntax::read(text, source, format);
    let Some(root) = root.filter(|_| diagnostics.is_empty()) else { return Err((sources, diagnostics)) };
    let unix = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let formatted = match format {
        Format::Yaml => yaml::normal(&unix),
        Format::Toml => toml::normal(&unix),
    };
    let refuse = |span: Span, why: &str, sources: SourceMap| {
        let diagnostic = Diagnostic::error("not-formatted", span, format!("the file is left as it is: {why}"))
            .hint("write this part in a simpler way, then format again");
        Err((sources, vec![diagnostic]))
    };
    let again = sources.add("(formatted)", formatted.as_str());
    let (other, problems) = syntax::read(&formatted, again, format);
    let Some(other) = other.filter(|_| problems.is_empty()) else {
        return refuse(root.span, "its normal form could not be read", sources);
    };
    match difference(&root, &other) {
        None => Ok(formatted),
        Some(span) => refuse(span, "its normal form would mean something else here", sources),
    }
}

/// The first place where two trees differ.
fn difference(a: &Node, b: &Node) -> Option<Span> {
    let same = match (&a.value, &b.value) {
        (Value::Null, Value::Null) | (Value::Date, Value::Date) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::String(a), Value::String(b)) => a == b || a.replace("\r\n", "\n") == **b,
        (Value::List(one), Value::List(two)) if one.len() == two.len() => {
            return one.iter().zip(two.iter()).find_map(|(a, b)| difference(a, b));
        }
        (Value::Map(one), Value::Map(two)) if one.len() == two.len() => {
            return one.iter().zip(two.iter()).find_map(|((key, a), (other, b))| match key.text == other.text {
                true => difference(a, b),
                false => Some(key.span),
            });
        }
        _ => false,
    };
    (!same).then_some(a.span)
}

/// Lines with at most one blank line in a row, none at the beginning, and one line end at the end. Lines with `true` are
/// kept as they are.
fn spaced(lines: impl Iterator<Item = (String, bool)>) -> String {
    let mut text = String::new();
    let (mut blank, mut kept) = (true, 0);
    for (line, verbatim) in lines {
        if line.is_empty() && blank && !verbatim {
            continue;
        }
        blank = line.is_empty();
        text.push_str(&line);
        text.push('\n');
        if verbatim {
            kept = text.len();
        }
    }
    let end = text.trim_end_matches('\n').len().max(kept.saturating_sub(1));
    text.truncate(end);
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
