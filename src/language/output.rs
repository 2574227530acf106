//! How answers become text: tables, text with hosts, CSV and JSON; `.columns` and `.filter`.
//!
//! `.columns` and `.filter` change the entries themselves (never their `Data`); everything in [`OutputMode`] changes
//! the rendered text only. Must not know which command answered, nor where the flags are kept.

use std::cmp::Ordering;

use unicode_width::UnicodeWidthStr;

use super::entry::Entry;
use super::json::to_json;
use super::range::{compress, natural_cmp};

/// The switches of the builtins `.csv`, `.json`, `.headers`, `.annotate`, `.sort` and `.compress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputMode {
    /// Tables as CSV.
    pub csv: bool,
    /// The list of entries as JSON.
    pub json: bool,
    /// Tables begin with the column names.
    pub headers: bool,
    /// Tables have a column of hosts, and text begins with the host.
    pub annotate: bool,
    /// Rows are sorted.
    pub sort: bool,
    /// Equal text of several hosts is written once.
    pub compress: bool,
}

impl Default for OutputMode {
    fn default() -> Self {
        Self { csv: false, json: false, headers: true, annotate: true, sort: true, compress: true }
    }
}

impl OutputMode {
    /// Flip the switch of a builtin (`.csv`). CSV and JSON exclude each other: turning one on turns the other off.
    /// False if no switch has that name.
    pub fn set(&mut self, builtin: &str, on: bool) -> bool {
        match builtin {
            ".csv" => {
                self.csv = on;
                self.json &= !on;
            }
            ".json" => {
                self.json = on;
                self.csv &= !on;
            }
            ".headers" => self.headers = on,
            ".annotate" => self.annotate = on,
            ".sort" => self.sort = on,
            ".compress" => self.compress = on,
            _ => return false,
        }
        true
    }

    /// The state of the switch of a builtin, None if no switch has that name.
    pub fn get(&self, builtin: &str) -> Option<bool> {
        Some(match builtin {
            ".csv" => self.csv,
            ".json" => self.json,
            ".headers" => self.headers,
            ".annotate" => self.annotate,
            ".sort" => self.sort,
            ".compress" => self.compress,
            _ => return None,
        })
    }
}

/// The most columns that `.columns` makes. Names may be repeated, so that a table has no limit of its own.
const MAX_COLUMNS: usize = 256;

/// Why `.columns` or `.filter` cannot be applied. The wording is minimega's where minimega has the error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// The table has no such column.
    #[error("no such column `{column}`")]
    Column {
        /// The column asked for.
        column: String,
    },
    /// More columns than a table may have.
    #[error("{count} columns, the limit is {MAX_COLUMNS}")]
    Columns {
        /// The number of columns asked for.
        count: usize,
    },
    /// Not of the form `column=value`, with `=`, `!=`, `~` or `!~`.
    #[error("invalid filter, see help")]
    Filter,
}

/// `.columns`: keep the named columns, at most 256, in the order named. An entry without a table stays as
/// it is.
pub fn select_columns(entry: &mut Entry, columns: &str) -> Result<(), OutputError> {
    let Some(header) = &entry.header else { return Ok(()) };
    let count = columns.split(',').count();
    if count > MAX_COLUMNS {
        return Err(OutputError::Columns { count });
    }
    let mut indexes = Vec::new();
    for column in columns.split(',') {
        let found = header.iter().position(|h| h == column);
        indexes.push(found.ok_or_else(|| OutputError::Column { column: column.to_owned() })?);
    }
    let pick = |row: &Vec<String>| indexes.iter().map(|&i| row.get(i).cloned().unwrap_or_default()).collect::<Vec<_>>();
    let header = pick(header);
    entry.tabular = entry.tabular.as_ref().map(|rows| rows.iter().map(pick).collect());
    entry.header = Some(header);
    Ok(())
}

/// A parsed filter.
struct Filter<'a> {
    column: &'a str,
    value: String,
    part: bool,
    invert: bool,
}

impl<'a> Filter<'a> {
    fn parse(text: &'a str) -> Result<Self, OutputError> {
        let at = text.find(['=', '~']).ok_or(OutputError::Filter)?;
        let (before, after) = (&text[..at], &text[at + 1..]);
        let (column, invert) = before.strip_suffix('!').map_or((before, false), |c| (c, true));
        if column.is_empty() {
            return Err(OutputError::Filter);
        }
        Ok(Self { column, value: after.to_lowercase(), part: text[at..].starts_with('~'), invert })
    }

    fn keeps(&self, value: &str) -> bool {
        let value = value.to_lowercase();
        let several =
            (value.starts_with('[') && value.ends_with(']')) || (value.starts_with('{') && value.ends_with('}'));
        let found = if self.part || several { value.contains(&self.value) } else { value == self.value };
        found != self.invert
    }
}

/// `.filter`: keep the rows whose column matches. `column=value` is equality and `column~value` containment, both
/// without regard to case; `!=` and `!~` invert. In a list `[a, b]` or an object `{..}` equality, too, means
/// containment, so that a value finds any element. An entry without a table stays as it is, but a malformed filter is
/// an error in any case.
pub fn filter(entry: &mut Entry, filter: &str) -> Result<(), OutputError> {
    let filter = Filter::parse(filter)?;
    let Some(header) = &entry.header else { return Ok(()) };
    let index = header
        .iter()
        .position(|h| h == filter.column)
        .or_else(|| header.iter().position(|h| h.eq_ignore_ascii_case(filter.column)))
        .ok_or_else(|| OutputError::Column { column: filter.column.to_owned() })?;
    if let Some(rows) = &mut entry.tabular {
        rows.retain(|row| filter.keeps(row.get(index).map_or("", String::as_str)));
    }
    Ok(())
}

/// The text of a list of answers. Errors are not in it. With JSON, the whole list; otherwise one block for each
/// different header of a table, in the order they come, and one for each text; text of only blanks is left out.
pub fn render(entries: &[Entry], mode: &OutputMode) -> String {
    if mode.json {
        return to_json(entries);
    }
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for entry in entries.iter().filter(|e| e.error.is_empty()) {
        let host = entry.host.as_str();
        let rows = entry.tabular.as_deref().unwrap_or_default();
        if !rows.is_empty() {
            let header = entry.header.as_deref().unwrap_or_default();
            let rows = rows.iter().map(|r| (host, r.as_slice()));
            match blocks.iter_mut().find_map(|b| match b {
                Block::Table { header: h, rows } if *h == header => Some(rows),
                _ => None,
            }) {
                Some(table) => table.extend(rows),
                None => blocks.push(Block::Table { header, rows: rows.collect() }),
            }
        }
        let text = entry.response.trim_end();
        if !text.is_empty() {
            match blocks.iter_mut().find_map(|b| match b {
                Block::Text { text: t, hosts } if mode.compress && *t == text => Some(hosts),
                _ => None,
            }) {
                Some(hosts) => hosts.push(host),
                None => blocks.push(Block::Text { text, hosts: vec![host] }),
            }
        }
    }
    let mut out = String::new();
    for block in blocks {
        if !out.is_empty() {
            out.push('\n');
        }
        match block {
            Block::Table { header, rows } => table(&mut out, header, rows, mode),
            Block::Text { text, hosts } => {
                if mode.annotate {
                    out.push_str(&compress(&hosts));
                    out.push_str(": ");
                }
                out.push_str(text);
            }
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// A part of the output that stands together.
enum Block<'a> {
    Table { header: &'a [String], rows: Vec<(&'a str, &'a [String])> },
    Text { text: &'a str, hosts: Vec<&'a str> },
}

/// Integers by value, everything else by bytes.
fn cell_cmp(a: &str, b: &str) -> Ordering {
    match (a.parse::<i64>(), b.parse::<i64>()) {
        (Ok(x), Ok(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        // Integers stand before everything else, so that the order is total.
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        _ => a.cmp(b),
    }
}

fn row_cmp(a: &[String], b: &[String]) -> Ordering {
    let by_cell = a.iter().zip(b).map(|(x, y)| cell_cmp(x, y)).find(|o| o.is_ne());
    by_cell.unwrap_or_else(|| a.len().cmp(&b.len()))
}

fn table(out: &mut String, header: &[String], mut rows: Vec<(&str, &[String])>, mode: &OutputMode) {
    if mode.sort {
        rows.sort_by(|a, b| {
            let host = if mode.annotate { natural_cmp(a.0, b.0) } else { Ordering::Equal };
            host.then_with(|| row_cmp(a.1, b.1))
        });
    }
    let mut lines: Vec<Vec<&str>> = Vec::with_capacity(rows.len() + 1);
    if mode.headers && !header.is_empty() {
        lines.push(header.iter().map(String::as_str).collect());
        if mode.annotate {
            lines[0].insert(0, "host");
        }
    }
    for (host, row) in rows {
        let cells = row.iter().map(String::as_str);
        lines.push(if mode.annotate { std::iter::once(host).chain(cells).collect() } else { cells.collect() });
    }
    if mode.csv {
        let lines: Vec<String> =
            lines.iter().map(|l| l.iter().map(|c| csv_cell(c)).collect::<Vec<_>>().join(",")).collect();
        out.push_str(&lines.join("\n"));
        return;
    }
    let mut widths = vec![0; lines.iter().map(Vec::len).max().unwrap_or(0)];
    // minimega leaves room for `host` even where it prints no header.
    if mode.annotate && !widths.is_empty() {
        widths[0] = "host".len();
    }
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.width());
        }
    }
    for (i, line) in lines.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        for (j, cell) in line.iter().enumerate() {
            if j > 0 {
                out.push_str(" | ");
            }
            out.push_str(cell);
            if j + 1 < line.len() {
                out.extend(std::iter::repeat_n(' ', widths[j] - cell.width()));
            }
        }
    }
}

/// A CSV field (RFC 4180), quoted where Go's encoder quotes.
fn csv_cell(cell: &str) -> String {
    let quote = cell == "\\." || cell.contains([',', '"', '\r', '\n']) || cell.starts_with(char::is_whitespace);
    if quote { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

#[cfg(test)]
mod tests;
