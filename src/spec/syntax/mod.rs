//! YAML and TOML into one tree whose every node knows its bytes in the file.
//!
//! Must not know what an experiment is. Everything that may make a small file expensive is bounded here: size, nesting,
//! and what YAML aliases expand to.
//!
//! YAML is read from the events of `granit-parser`, the parser beneath `serde-saphyr`. The serde layer itself cannot give
//! this tree: it stops at the first error, does not tell the first place of a duplicate key, and hides whether a scalar
//! was quoted and how a number was written, which the decoder needs to say "quote it".

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, SourceId, Span};

mod scalar;
mod tally;
mod toml;
mod yaml;

/// The largest file that is read, in bytes.
pub const MAX_BYTES: usize = 64 << 20;

/// The deepest nesting of lists and maps, aliases expanded.
pub const MAX_DEPTH: usize = 64;

/// How many nodes all YAML aliases and merge keys of a file may stand for, together.
pub const MAX_ALIAS_NODES: u64 = 1_000_000;

/// How many keys and values a file may have, together. Of all shapes that were measured, the dearest took 340 bytes for each
/// while it was read, so reading a file takes less than 1.5 GB.
pub const MAX_VALUES: usize = 4_000_000;

/// What a table of a TOML file counts besides its key and its value, because that is what it takes.
const TABLE: usize = 3;

/// What an anchor of a YAML file counts besides its value.
const ANCHOR: usize = 2;

/// How many tokens a TOML file may have: words, signs, blanks and line ends. The parser keeps all of them, at nearly 60 bytes
/// each.
const MAX_TOKENS: usize = 12_000_000;

/// How many errors of syntax (duplicate keys, unknown aliases …) are collected before reading stops.
const MAX_ERRORS: usize = 1_000;

/// The language of an experiment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2 (core schema) with merge keys.
    Yaml,
    /// TOML 1.0.
    Toml,
}

/// One value and its place. An aliased value has the place where it was written, not where the alias stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its bytes in the file.
    pub span: Span,
}

/// A value. Lists, maps and text are shared, so that an alias costs nothing however large its target is.
#[derive(Debug, Clone)]
pub enum Value {
    /// No value (YAML only).
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// Any other number; its text stands in the file.
    Float(f64),
    /// A date or time (TOML only).
    Date,
    /// Text.
    String(Arc<str>),
    /// A list.
    List(Arc<Vec<Node>>),
    /// A map in file order, every key once, YAML merge keys resolved.
    Map(Arc<Vec<(SpannedKey, Node)>>),
}

/// A key of a map and its place.
#[derive(Debug, Clone)]
pub struct SpannedKey {
    /// The key as text; a number keeps its spelling.
    pub text: Arc<str>,
    /// Its bytes in the file.
    pub span: Span,
}

impl Value {
    /// What it is, in words, with an article.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "empty",
            Value::Bool(_) => "a truth value",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Date => "a date",
            Value::String(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Read a text. None where its structure could not be found; the diagnostics say why. A tree that comes with errors lacks
/// what they are about.
pub fn read(text: &str, source: SourceId, format: Format) -> (Option<Node>, Vec<Diagnostic>) {
    if text.len() > MAX_BYTES {
        return (None, vec![too_large(source, text.len() as u64)]);
    }
    match format {
        Format::Yaml => yaml::read(text, source),
        Format::Toml => toml::read(text, source),
    }
}

/// The refusal of a file of that many bytes.
pub fn too_large(source: SourceId, bytes: u64) -> Diagnostic {
    Diagnostic::error(
        "file-too-large",
        Span { source, start: 0, end: 0 },
        format!("the file has {bytes} bytes, the limit is {MAX_BYTES}"),
    )
    .hint("use ranges such as `web[0-999]` and profiles instead of one entry per VM")
}

/// The refusal of a file with too many of something.
fn too_many(span: Span, limit: usize, what: &str) -> Diagnostic {
    Diagnostic::error("too-many-values", span, format!("the file has more than {limit} {what}")).hint(
        "use ranges such as `web[0-999]` and profiles instead of one entry per VM, or split the file with `include`",
    )
}

fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::error("too-deep", span, format!("lists and maps are nested more than {MAX_DEPTH} levels deep"))
}

fn duplicate_key(key: &str, span: Span, first: Span) -> Diagnostic {
    Diagnostic::error("duplicate-key", span, format!("the key `{}` is given twice", crate::spec::shown(key)))
        .label(first, "first given here")
        .hint("keep one of the two")
}

#[cfg(test)]
mod tests;
