//! Reading tables by column name, and the cells that hold more than one value.

use crate::language::entry::Entry;

/// One host's table.
#[derive(Debug)]
pub struct Table<'a> {
    header: &'a [String],
    rows: &'a [Vec<String>],
}

/// One row, read by column name.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    header: &'a [String],
    cells: &'a [String],
}

impl<'a> Table<'a> {
    /// The table of an entry; one without header or rows is empty.
    pub fn new(entry: &'a Entry) -> Self {
        Self { header: entry.header.as_deref().unwrap_or_default(), rows: entry.tabular.as_deref().unwrap_or_default() }
    }

    /// Its rows.
    pub fn rows(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let header = self.header;
        self.rows.iter().map(move |cells| Row { header, cells })
    }
}

impl<'a> Row<'a> {
    /// The cell of a column; None if there is no such column.
    pub fn get(&self, column: &str) -> Option<&'a str> {
        let index = self.header.iter().position(|h| h == column)?;
        self.cells.get(index).map(String::as_str)
    }
}

/// The items of a cell `[a, b]`; a cell without brackets is one item, `[]` and an empty cell are none.
pub fn list_cell(cell: &str) -> Vec<&str> {
    let inner = cell.strip_prefix('[').and_then(|c| c.strip_suffix(']')).unwrap_or(cell);
    if inner.is_empty() { Vec::new() } else { inner.split(", ").map(str::trim).collect() }
}

/// The alias and tag of a cell `alias (tag)`, or of a bare tag. A cell that is neither, such as `disconnected`, has none.
pub fn vlan_cell(cell: &str) -> (Option<String>, Option<u16>) {
    if let Some((alias, tag)) = cell.strip_suffix(')').and_then(|c| c.rsplit_once(" ("))
        && let Ok(tag) = tag.parse()
    {
        return (Some(alias.to_owned()), Some(tag));
    }
    match cell.parse() {
        Ok(tag) => (None, Some(tag)),
        Err(_) => (None, None),
    }
}
