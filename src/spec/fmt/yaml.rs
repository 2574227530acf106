//! YAML in normal form, line by line: two blanks for each level, one behind `-` and `:`, and those of flow collections as
//! `flow` has them.
//!
//! Lines that belong to a text or a flow collection of several lines move with the line that it begins on. Those of a text
//! are not changed otherwise.

use std::ops::Range;

use super::flow::{self, Edits};
use crate::diagnostic::SourceMap;
use crate::spec::syntax::{self, Format, Node, Value};

/// How many blanks one level is.
const STEP: usize = 2;

/// A collection whose lines are being read: its column as it is, and as it is to be.
#[derive(Debug, Clone, Copy)]
struct Level {
    old: usize,
    new: usize,
    sequence: bool,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Content,
    /// Goes on with what began on another line, and moves with that.
    Follows {
        owner: usize,
    },
}

/// The normal form of a text that is YAML, with line feeds alone.
pub fn normal(text: &str) -> String {
    let mut sources = SourceMap::new();
    let source = sources.add("", text);
    let (Some(root), _) = syntax::read(text, source, Format::Yaml) else { return text.to_owned() };
    let (edits, flows) = flow::edits(text);
    let mut found = Found { text, starts: starts(text), kinds: Vec::new(), edits, flows };
    found.kinds = vec![Kind::Content; found.starts.len()];
    found.node(&root);
    let Found { starts, kinds, edits, .. } = found;
    let lines: Vec<String> = starts
        .iter()
        .enumerate()
        .map(|(index, &start)| {
            let end = starts.get(index + 1).map_or(text.len(), |next| next - 1);
            edited(text, start, end, &edits)
        })
        .collect();
    super::spaced(laid_out(&lines, &kinds).into_iter())
}

fn starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    starts.extend(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1));
    starts
}

/// A line with its blanks changed.
fn edited(text: &str, start: usize, end: usize, edits: &Edits) -> String {
    let mut line = String::new();
    let mut at = start;
    for (&from, &(to, blanks)) in edits.range(start..=end) {
        if from >= at && to <= end {
            line.push_str(&text[at..from]);
            line.push_str(blanks);
            at = to;
        }
    }
    line.push_str(&text[at..end]);
    line
}

struct Found<'t> {
    text: &'t str,
    starts: Vec<usize>,
    kinds: Vec<Kind>,
    /// Blanks that change.
    edits: Edits,
    /// Where flow collections are, in order.
    flows: Vec<Range<usize>>,
}

impl Found<'_> {
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|&start| start <= at) - 1
    }

    /// The line that announces the block text (`|`, `>`) which begins on a line, and whether the empty lines at its end are
    /// part of it (`+`).
    fn header(&self, first: usize) -> Option<(usize, bool)> {
        let line = |index: usize| {
            let end = self.starts.get(index + 1).map_or(self.text.len(), |next| next - 1);
            self.text[self.starts[index]..end].trim()
        };
        let above = (0..first).rev().find(|index| !line(*index).is_empty())?;
        let content = line(above);
        let content = content.split_once(" #").map_or(content, |(content, _)| content.trim_end());
        let word = content.rsplit([' ', ':']).next()?;
        let rest = word.strip_prefix(['|', '>'])?;
        rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-')).then_some((above, rest.contains('+')))
    }

    fn node(&mut self, node: &Node) {
        let written = self.text.get(node.span.start..node.span.end).unwrap_or("");
        let block = matches!(node.value, Value::List(_) | Value::Map(_)) && !written.starts_with(['[', '{']);
        if !block {
            let first = self.line(node.span.start);
            let header = self.header(first);
            let owner = header.map_or(first, |(line, _)| line);
            // The span of a block text reaches to whatever comes next, blanks before that included.
            let own = match header {
                Some((_, true)) => written.trim_end_matches(' ').strip_suffix('\n').unwrap_or(written),
                Some((_, false)) => own_lines(written, node.span.start - self.starts[first]),
                None => written.trim_end(),
            };
            let last = self.line(node.span.start + own.len());
            for line in owner + 1..=last.min(self.kinds.len() - 1) {
                if self.kinds[line] == Kind::Content {
                    self.kinds[line] = Kind::Follows { owner };
                }
            }
        }
        match &node.value {
            Value::List(list) => list.iter().for_each(|item| self.node(item)),
            Value::Map(map) => {
                for (key, value) in map.iter() {
                    // In a flow collection they are seen to.
                    let before = self.flows.partition_point(|flow| flow.start <= key.span.start);
                    if before > 0 && key.span.start < self.flows[before - 1].end {
                        self.node(value);
                        continue;
                    }
                    let rest = self.text.get(key.span.end..).unwrap_or("");
                    if let Some(behind) = rest.strip_prefix(':') {
                        let blanks = behind.len() - behind.trim_start_matches(' ').len();
                        let start = key.span.end + 1;
                        let next = behind[blanks..].chars().next();
                        if blanks > 1 && next.is_some_and(|c| c != '\n' && c != '#') {
                            self.edits.insert(start + 1, (start + blanks, ""));
                        }
                    }
                    self.node(value);
                }
            }
            _ => {}
        }
    }
}

/// A block text without the empty lines behind it. More blanks than its indentation are text.
fn own_lines(written: &str, indent: usize) -> &str {
    let mut own = written;
    while let Some((before, line)) = own.rsplit_once('\n') {
        if !line.trim_start_matches(' ').is_empty() || line.len() > indent {
            break;
        }
        own = before;
    }
    own
}

/// The lines in their places; the second value is whether a line is part of a text and keeps its blanks.
fn laid_out(lines: &[String], kinds: &[Kind]) -> Vec<(String, bool)> {
    let mut levels: Vec<Level> = Vec::new();
    let mut out: Vec<(String, bool)> = Vec::with_capacity(lines.len());
    // How far each line has moved.
    let mut moved: Vec<isize> = vec![0; lines.len()];
    // Comments that wait for the line that they belong to: their places in `out`.
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if let Kind::Follows { owner } = kinds[index] {
            moved[index] = moved[owner];
            out.push((shifted(line, moved[owner]), true));
            continue;
        }
        let content = line.trim_end();
        let old = content.len() - content.trim_start_matches(' ').len();
        let content = &content[old..];
        if content.is_empty() {
            out.push((String::new(), false));
            continue;
        }
        if content.starts_with('#') {
            waiting.push((out.len(), old));
            out.push((content.to_owned(), false));
            continue;
        }
        let before = levels.clone();
        let new_line =
            if old == 0 && (content.starts_with("---") || content.starts_with("...") || content.starts_with('%')) {
                levels.clear();
                content.to_owned()
            } else {
                place(&mut levels, old, content)
            };
        let new = new_line.len() - new_line.trim_start_matches(' ').len();
        moved[index] = new as isize - old as isize;
        for (place, column) in waiting.drain(..) {
            let level = before.iter().rev().find(|level| level.old == column && column != old);
            let indent = if column == old { new } else { level.map_or(new, |level| level.new) };
            out[place].0.insert_str(0, &" ".repeat(indent));
        }
        out.push((new_line, false));
    }
    for (place, column) in waiting {
        let indent = levels.iter().rev().find(|level| level.old == column).map_or(0, |level| level.new);
        out[place].0.insert_str(0, &" ".repeat(indent));
    }
    out
}

/// A line of a text that moves.
fn shifted(line: &str, by: isize) -> String {
    let have = line.len() - line.trim_start_matches(' ').len();
    if line.is_empty() {
        return String::new();
    }
    if have == line.len() && by < 0 {
        return line.get(by.unsigned_abs().min(line.len())..).unwrap_or("").to_owned();
    }
    let indent = have.saturating_add_signed(by);
    format!("{}{}", " ".repeat(indent), &line[have..])
}

/// Put a line of a block collection where it belongs.
fn place(levels: &mut Vec<Level>, old: usize, content: &str) -> String {
    let mut column = old;
    let mut rest = content;
    let mut line = String::new();
    loop {
        let sequence = rest == "-" || rest.starts_with("- ");
        while levels.last().is_some_and(|level| level.old > column) {
            levels.pop();
        }
        // A sequence may stand in the column of the key that it belongs to.
        if !sequence && levels.last().is_some_and(|level| level.old == column && level.sequence) {
            levels.pop();
        }
        let known = levels.last().is_some_and(|level| level.old == column && level.sequence == sequence);
        if !known {
            let new = levels.last().map_or(0, |level| level.new + STEP);
            levels.push(Level { old: column, new, sequence });
        }
        let new = levels.last().map_or(0, |level| level.new);
        line.push_str(&" ".repeat(new.saturating_sub(line.len())));
        if !sequence {
            line.push_str(rest);
            return line;
        }
        line.push('-');
        let inner = rest[1..].trim_start_matches(' ');
        if inner.is_empty() {
            return line;
        }
        if inner.starts_with('#') {
            line.push_str(&rest[1..]);
            return line;
        }
        // An anchor or a tag of what stands on the next lines.
        let mut words = inner.split(' ').filter(|word| !word.is_empty()).take_while(|word| !word.starts_with('#'));
        if words.all(|word| word.starts_with(['&', '!'])) {
            line.push(' ');
            line.push_str(inner);
            return line;
        }
        column += rest.len() - inner.len();
        rest = inner;
    }
}
