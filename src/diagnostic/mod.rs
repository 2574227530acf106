//! Spans, the source map, and diagnostics that point at source text; exit codes.
//!
//! A [`Diagnostic`] is data; [`render`] turns a list of them into text once, at the edge. Must not know what an
//! experiment or a command is.

use std::fmt;

mod codes;
mod render;

pub use codes::{CODES, Code, code, document};
pub use render::render;

/// Identifies one source text in a [`SourceMap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// A range of bytes in one source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The source text.
    pub source: SourceId,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the source.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// Pair a value with its place.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// Change the value, keep the place.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), span: self.span }
    }
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something that works but is likely a mistake.
    Warning,
    /// Something that cannot be carried out.
    Error,
}

/// One finding about a source text: what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable identifier in kebab case, such as `unknown-key`.
    pub code: &'static str,
    /// One sentence without a final stop: what was found and what was expected.
    pub message: String,
    /// Where; None only where there is no text to point at.
    pub span: Option<Span>,
    /// Other places that matter, each with a few words.
    pub labels: Vec<(Span, String)>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: Some(span),
            labels: Vec::new(),
            hint: None,
        }
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// Add what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Add the place of the other one of two that clash. An entry that is repeated, and a file that is included twice, make
    /// both at one place; the message has their names.
    #[must_use]
    pub fn other(self, span: Span, text: impl Into<String>) -> Self {
        if self.span == Some(span) {
            return self.label(span, "both come from here");
        }
        self.label(span, text)
    }

    /// Add another place that matters.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }
}

/// The exit codes of every subcommand (design: 0 done or no change, 1 error, 2 changes, 3 stale plan, 4 partly applied).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Success = 0,
    /// An error; nothing or not everything was done as asked.
    Error = 1,
    /// There are changes (only with `--detailed-exitcode`).
    Changes = 2,
    /// What the plan was made against has changed.
    Stale = 3,
    /// Some steps were applied and some failed or were skipped.
    Partial = 4,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Source texts by id; finds the line and column of a byte.
#[derive(Debug, Default)]
pub struct SourceMap {
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    name: String,
    text: String,
    line_starts: Vec<usize>,
    /// Its lines are not shown.
    veiled: bool,
}

/// A place as people write it: 1-based line and column, the column counted in characters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl SourceMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Add a text under the name that the user knows it by.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> SourceId {
        let text = text.into();
        let mut line_starts = vec![0];
        line_starts.extend(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        let id = SourceId(u32::try_from(self.sources.len()).expect("fewer than 2^32 sources"));
        self.sources.push(Source { name: name.into(), text, line_starts, veiled: false });
        id
    }

    /// Show no line of a source, because something in it is not to be seen.
    pub fn veil(&mut self, id: SourceId) {
        self.sources[id.0 as usize].veiled = true;
    }

    /// The name of a source.
    pub fn name(&self, id: SourceId) -> &str {
        &self.sources[id.0 as usize].name
    }

    /// The text of a source.
    pub fn text(&self, id: SourceId) -> &str {
        &self.sources[id.0 as usize].text
    }

    /// File, line and column of the start of a span.
    pub fn place(&self, span: Span) -> Place {
        let source = &self.sources[span.source.0 as usize];
        let start = span.start.min(source.text.len());
        let line = source.line_starts.partition_point(|&s| s <= start);
        let line_start = source.line_starts[line - 1];
        let column = source.text.get(line_start..start).map_or(start - line_start, |t| t.chars().count()) + 1;
        Place { file: source.name.clone(), line, column }
    }
}
