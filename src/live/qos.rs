//! What shapes NICs, as `vm info` tells it: in a record of `Data`, or in the column `qos`.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use crate::language::qos::Qos;

/// What a NIC's record tells of its shape: text, or a map of texts. Not every release has it.
pub(super) fn qos_of_record(record: &Value) -> Option<Qos> {
    match record.get("QoS").or_else(|| record.get("Qos"))? {
        Value::Null => Some(Qos::default()),
        Value::String(text) => Qos::read(text),
        Value::Object(settings) => {
            let mut qos = Qos::default();
            for (name, value) in settings {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                // A setting that is not given may be there all the same.
                if !matches!(text.as_str(), "" | "0" | "null") {
                    qos.set(&name.to_ascii_lowercase(), &text).ok()?;
                }
            }
            Some(qos)
        }
        _ => None,
    }
}

/// What shapes the NICs of a VM, from the cell of its row: `[]` where nothing does, else settings behind the index of
/// each NIC that has some, or an item for each NIC. None for what is neither.
pub(super) fn qos_cell(cell: &str, nics: usize) -> Option<Vec<Qos>> {
    let inner = cell.trim().strip_prefix('[')?.strip_suffix(']')?;
    let mut shapes = vec![Qos::default(); nics];
    let words: Vec<&str> = inner.split([' ', ',', ':', '=']).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return Some(shapes);
    }
    if words[0].parse::<usize>().is_err() {
        let items: Vec<&str> = inner.split(',').collect();
        return (items.len() == nics).then(|| items.into_iter().map(Qos::read).collect()).flatten();
    }
    let (mut at, mut rest) = (None, words.as_slice());
    while let [word, more @ ..] = rest {
        if let Ok(index) = word.parse::<usize>() {
            at = Some(index);
            rest = more;
            continue;
        }
        let [value, more @ ..] = more else { return None };
        let (value, more) = match more {
            [unit, more @ ..] if matches!(*unit, "kbit" | "mbit" | "gbit") => (format!("{value}{unit}"), more),
            more => ((*value).to_owned(), more),
        };
        shapes.get_mut(at?)?.set(word, &value).ok()?;
        rest = more;
    }
    Some(shapes)
}

/// Reads the rows of a table as far as they tell the shapes of NICs, passing over all other cells: the cell of `qos` by
/// the name of the VM, where there is one.
pub(super) struct Shapes {
    /// The column of names.
    pub name: usize,
    /// The column of shapes.
    pub qos: usize,
}

impl<'de> DeserializeSeed<'de> for &Shapes {
    type Value = HashMap<String, String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &Shapes {
    type Value = HashMap<String, String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<Self::Value, A::Error> {
        let mut found = HashMap::new();
        while let Some((name, cell)) = rows.next_element_seed(Cells(self))? {
            // Most VMs have none, and then the cell says nothing.
            if cell != "[]" {
                found.insert(name, cell);
            }
        }
        Ok(found)
    }
}

struct Cells<'s>(&'s Shapes);

impl<'de> DeserializeSeed<'de> for Cells<'_> {
    type Value = (String, String);
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Cells<'_> {
    type Value = (String, String);
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut cells: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut index) = ((String::new(), String::new()), 0);
        loop {
            if index == self.0.name || index == self.0.qos {
                let Some(cell) = cells.next_element::<String>()? else { return Ok(found) };
                *(if index == self.0.name { &mut found.0 } else { &mut found.1 }) = cell;
            } else if cells.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_both_forms() {
        let read = |cell: &str, nics| {
            qos_cell(cell, nics).map(|shapes| shapes.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let some = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(read("[]", 2), some(&["", ""]));
        assert_eq!(read("[, rate 1 mbit]", 2), some(&["", "rate 1mbit"]));
        assert_eq!(read("[1: rate=10mbit delay=20ms]", 2), some(&["", "rate 10mbit delay 20ms"]));
        assert_eq!(read("[0: delay 20ms, loss 0.1, 1: rate 1 mbit]", 2), some(&["delay 20ms loss 0.1", "rate 1mbit"]));
        assert_eq!(read("[7: rate 1mbit]", 2), None);
        assert_eq!(read("[fast]", 1), None);
        assert_eq!(read("N/A", 1), None);
    }
}
