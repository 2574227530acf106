//! Diagnostics as text for a terminal or a pipe.
//!
//! Not by miette's graphical handler: that hides the place inside its frame, so that no line begins with what an editor
//! or `grep` takes (`--> FILE:LINE:COLUMN`), and it scans a file from its beginning for every snippet.

use std::collections::HashMap;
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

use super::{Diagnostic, Severity, Source, SourceMap, Span};

/// No more diagnostics than this are printed; the closing line counts all.
const MAX_PRINTED: usize = 50;
/// As many diagnostics of one kind at one place are printed as one.
const MIN_ALIKE: usize = 3;
/// No more other places than this are shown for one diagnostic.
const MAX_LABELS: usize = 8;
/// The widest piece of a source line that is shown, in columns.
const MAX_WIDTH: usize = 120;
/// The columns of a tab in a snippet.
const TAB: usize = 4;

struct Style {
    error: &'static str,
    warning: &'static str,
    frame: &'static str,
    bold: &'static str,
    end: &'static str,
}

const PLAIN: Style = Style { error: "", warning: "", frame: "", bold: "", end: "" };
const COLOR: Style =
    Style { error: "\x1b[1;31m", warning: "\x1b[1;33m", frame: "\x1b[34m", bold: "\x1b[1m", end: "\x1b[0m" };

/// Print diagnostics by place, each with its source line, and a closing line that counts them. Of very many the errors are
/// printed first, and of several of one kind at one place, as copies of an entry have them, only one. Empty for no diagnostics. `color` adds ANSI colours.
pub fn render(diagnostics: &[Diagnostic], sources: &SourceMap, color: bool) -> String {
    let style = if color { &COLOR } else { &PLAIN };
    let mut shown: Vec<&Diagnostic> = diagnostics.iter().collect();
    shown.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
    let all = shown.len();
    let mut alike: HashMap<(&str, Span), usize> = HashMap::new();
    for diagnostic in &shown {
        if let Some(span) = diagnostic.span {
            *alike.entry((diagnostic.code, span)).or_default() += 1;
        }
    }
    let more = |diagnostic: &Diagnostic| {
        let alike = diagnostic.span.and_then(|span| alike.get(&(diagnostic.code, span)).copied());
        alike.filter(|alike| *alike >= MIN_ALIKE).map_or(0, |alike| alike - 1)
    };
    shown.dedup_by(|a, b| a.span.is_some() && (a.code, a.span) == (b.code, b.span) && more(b) > 0);
    let folded = all - shown.len();
    if shown.len() > MAX_PRINTED {
        shown.sort_by_key(|d| (std::cmp::Reverse(d.severity), d.span, d.code));
        shown.truncate(MAX_PRINTED);
    }
    shown.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
    let mut text = String::new();
    for diagnostic in &shown {
        one(&mut text, diagnostic, more(diagnostic), sources, style);
        text.push('\n');
    }
    closing(&mut text, diagnostics, shown.len() + folded, sources);
    text
}

fn closing(text: &mut String, diagnostics: &[Diagnostic], shown: usize, sources: &SourceMap) {
    let count = |severity, word: &str| {
        let n = diagnostics.iter().filter(|d| d.severity == severity).count();
        (n > 0).then(|| format!("{n} {word}{}", if n == 1 { "" } else { "s" }))
    };
    let counts: Vec<String> =
        [count(Severity::Error, "error"), count(Severity::Warning, "warning")].into_iter().flatten().collect();
    if counts.is_empty() {
        return;
    }
    if diagnostics.len() > shown {
        writeln!(text, "... and {} more", diagnostics.len() - shown).expect("a String takes every text");
    }
    text.push_str(&counts.join(", "));
    let mut files: Vec<&str> = diagnostics.iter().filter_map(|d| Some(sources.name(d.span?.source))).collect();
    files.sort_unstable();
    files.dedup();
    if !files.is_empty() {
        text.push_str(" in ");
        text.push_str(&files.join(", "));
    }
    text.push('\n');
}

/// A place to underline.
struct Mark<'d> {
    span: Span,
    line: usize,
    text: &'d str,
    primary: bool,
}

fn one(text: &mut String, diagnostic: &Diagnostic, more: usize, sources: &SourceMap, style: &Style) {
    let color = match diagnostic.severity {
        Severity::Error => style.error,
        Severity::Warning => style.warning,
    };
    let Style { frame, bold, end, .. } = style;
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // A blank gutter must not leave blanks at the end of a line.
        let start = text.len();
        text.write_fmt(arguments).expect("a String takes every text");
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    };
    line(format_args!("{color}{}[{}]{end}: {bold}{}{end}", diagnostic.severity, diagnostic.code, diagnostic.message));
    if let Some(span) = diagnostic.span {
        let mark =
            |span: Span, text, primary| Mark { span, line: sources.source(span).line(span.start), text, primary };
        // A label of the place itself stands beside its carets.
        let own = diagnostic.labels.iter().position(|(place, _)| *place == span);
        let mut marks = vec![mark(span, own.map_or("", |own| diagnostic.labels[own].1.as_str()), true)];
        let others = diagnostic.labels.iter().enumerate().filter(|(index, _)| Some(*index) != own);
        marks.extend(others.take(MAX_LABELS).map(|(_, (place, text))| mark(*place, text.as_str(), false)));
        let hidden = (diagnostic.labels.len() + 1).saturating_sub(marks.len() + usize::from(own.is_some()));
        marks.sort_by_key(|m| (m.span.source != span.source, m.span.source, m.line, m.span.start, !m.primary));
        let width = marks.iter().map(|m| m.line.to_string().len()).max().unwrap_or(1);
        line(format_args!("{:width$}{frame}-->{end} {}", "", sources.place(span)));
        let mut previous: Option<(Span, usize)> = None;
        for mark in &marks {
            let source = sources.source(mark.span);
            if source.text.is_empty() || source.veiled {
                continue;
            }
            let same_line = previous.is_some_and(|(s, l)| s.source == mark.span.source && l == mark.line);
            let (snippet, underline, offset) = snippet(source, mark);
            if !same_line {
                match previous {
                    None => line(format_args!("{:width$} {frame}|{end}", "")),
                    Some((other, _)) if other.source != mark.span.source => {
                        line(format_args!("{:width$}{frame}:::{end} {}", "", sources.place(mark.span)));
                    }
                    Some((_, l)) if l + 1 < mark.line => line(format_args!("{frame}...{end}")),
                    Some(_) => {}
                }
                line(format_args!("{frame}{:width$} |{end} {snippet}", mark.line));
            }
            let (sign, color) = if mark.primary { ("^", color) } else { ("-", *frame) };
            let signs = sign.repeat(underline);
            line(format_args!("{:width$} {frame}|{end} {:offset$}{color}{signs} {}{end}", "", "", mark.text));
            previous = Some((mark.span, mark.line));
        }
        if hidden > 0 {
            line(format_args!("{:width$} {frame}={end} and {hidden} more places", ""));
        }
    }
    if more > 0 {
        line(format_args!("and {more} more like this at the same place"));
    }
    if let Some(hint) = &diagnostic.hint {
        line(format_args!("{bold}hint:{end} {hint}"));
    }
}

impl SourceMap {
    fn source(&self, span: Span) -> &Source {
        &self.sources[span.source.0 as usize]
    }
}

impl Source {
    /// The line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= at.min(self.text.len()))
    }
}

/// The piece of a line around a mark, the columns to underline and the column where they begin.
fn snippet(source: &Source, mark: &Mark<'_>) -> (String, usize, usize) {
    let start = source.line_starts[mark.line - 1];
    let end = source.line_starts.get(mark.line).map_or(source.text.len(), |next| next - 1);
    let line = source.text.get(start..end).unwrap_or("").trim_end_matches(['\r', '\n']);
    let from = floor(line, mark.span.start.saturating_sub(start));
    let to = floor(line, mark.span.end.saturating_sub(start)).max(from);
    // A long line is cut at both sides of the mark, by bytes first so that a huge line costs nothing.
    let left = if from > MAX_WIDTH / 2 { floor(line, from - MAX_WIDTH / 2) } else { 0 };
    let left = if line.len() <= MAX_WIDTH { 0 } else { left };
    let mut shown = String::new();
    let mut columns = 0;
    if left > 0 {
        shown.push_str("...");
        columns = 3;
    }
    let (mut offset, mut stop) = (None, None);
    for (index, character) in line[left..].char_indices().map(|(i, c)| (i + left, c)) {
        if index >= from && offset.is_none() {
            offset = Some(columns);
        }
        if index >= to && stop.is_none() {
            stop = Some(columns);
        }
        if columns >= MAX_WIDTH {
            shown.push_str("...");
            break;
        }
        match character {
            '\t' => {
                shown.push_str(&" ".repeat(TAB));
                columns += TAB;
            }
            // What would move the cursor or turn the text around is shown as one sign.
            c if c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
            {
                shown.push('\u{fffd}');
                columns += 1;
            }
            c => {
                shown.push(c);
                columns += c.width().unwrap_or(1);
            }
        }
    }
    let offset = offset.unwrap_or(columns);
    let stop = stop.unwrap_or(columns);
    (shown, stop.saturating_sub(offset).max(1), offset)
}

/// The byte, or the beginning of the character that it lies in.
fn floor(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::SourceId;

    fn at(text: &str, part: &str) -> Span {
        let start = text.find(part).unwrap();
        Span { source: SourceId(0), start, end: start + part.len() }
    }

    fn shown(text: &str, diagnostics: &[Diagnostic]) -> String {
        let mut sources = SourceMap::new();
        sources.add("lab.yaml", text);
        render(diagnostics, &sources, false)
    }

    #[test]
    fn places_labels_and_hints() {
        let text = "a: 1\nb: 2\nvms:\n  web: {}\n  wob: {}\n";
        let error = Diagnostic::error("duplicate-vm", at(text, "wob"), "there are two").label(at(text, "web"), "first");
        let warning = Diagnostic::warning("unused", at(text, "a: 1"), "not used").hint("remove it");
        insta::assert_snapshot!(shown(text, &[error, warning]), @r"
        warning[unused]: not used
         --> lab.yaml:1:1
          |
        1 | a: 1
          | ^^^^
        hint: remove it

        error[duplicate-vm]: there are two
         --> lab.yaml:5:3
          |
        4 |   web: {}
          |   --- first
        5 |   wob: {}
          |   ^^^

        1 error, 1 warning in lab.yaml
        ");
        assert_eq!(shown(text, &[]), "");
    }

    #[test]
    fn columns_of_wide_characters_tabs_and_line_ends() {
        let text = "x: 1\r\n\tname: \"日本\" bad\r\ny: 2\r\n";
        let shown = shown(text, &[Diagnostic::error("e", at(text, "bad"), "m")]);
        insta::assert_snapshot!(shown, @r#"
        error[e]: m
         --> lab.yaml:2:13
          |
        2 |     name: "日本" bad
          |                  ^^^

        1 error in lab.yaml
        "#);
        assert!(!shown.contains('\r') && !shown.contains('\t'));
    }

    #[test]
    fn odd_spans_do_not_panic() {
        let text = "é\u{1b}[31m\n";
        for (start, end) in [(0, 0), (1, 1), (1, 2), (0, 400), (400, 800), (text.len(), text.len()), (3, 1)] {
            let span = Span { source: SourceId(0), start, end };
            let shown = shown(text, &[Diagnostic::error("e", span, "m").label(span, "l")]);
            assert!(!shown.contains('\u{1b}'), "{shown}");
        }
        assert!(
            shown("", &[Diagnostic::error("e", Span { source: SourceId(0), start: 0, end: 0 }, "m")]).contains(":1:1")
        );
    }

    #[test]
    fn thousands_are_cut_and_errors_come_first() {
        let text = format!("{}bad{}\n", "x".repeat(100_000), "y".repeat(100_000));
        let span = at(&text, "bad");
        let mut all: Vec<_> =
            (0..5000).map(|i| Diagnostic::warning("w", Span { start: i, end: i + 1, ..span }, "m")).collect();
        all.push(Diagnostic::error("e", span, "the error"));
        let shown = shown(&text, &all);
        assert!(shown.contains("the error"));
        assert!(
            shown.ends_with("... and 4951 more\n1 error, 5000 warnings in lab.yaml\n"),
            "{}",
            &shown[shown.len() - 200..]
        );
        assert!(shown.lines().all(|line| line.chars().count() < 150));
        assert!(shown.contains(&format!("...{}bad{}", "x".repeat(60), "y".repeat(54))), "{shown}");
    }
}
