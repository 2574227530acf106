//! What shapes NICs, as `vm info` tells it: in a record of `Data`, or in the column `qos`.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::Value;

use crate::language::qos::Qos;
use crate::name::Shape;

/// What the record of a NIC tells of its shape: text, or a map of texts.
pub(super) fn qos_of_record(shape: &Value) -> Option<Qos> {
    match shape {
        Value::Null => Some(Qos::default()),
        Value::String(text) => Qos::read(text),
        Value::Object(settings) => {
            let mut qos = Qos::default();
            for (name, value) in settings {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                // A setting that is not given may be there all the same.
                if !matches!(text.as_str(), "" | "0" | "null") {
                    let name = name.to_ascii_lowercase();
                    qos.set(&name, &text).ok().or_else(|| nearly(&mut qos, &name, &text))?;
                }
            }
            Some(qos)
        }
        _ => None,
    }
}

/// Enter a setting that the engine takes and a file cannot say, such as a delay of two minutes or of 1.5 us: by the nearest
/// value that is not none, so that it is seen to be there.
fn nearly(qos: &mut Qos, name: &str, value: &str) -> Option<()> {
    // A jitter is not taken alone.
    let text = if name == "jitter" { format!("delay={value}") } else { format!("{name}={value}") };
    let shape: Shape = text.parse().ok()?;
    let micros = |delay: crate::name::Delay| u64::try_from(delay.get().as_micros()).map_or(u64::MAX, |n| n.max(1));
    match name {
        "rate" => qos.rate = Some((shape.rate?.bits() / 1000).max(1)),
        "delay" => qos.delay = Some(micros(shape.delay?)),
        "jitter" => qos.jitter = Some(micros(shape.delay?)),
        // At most 99900.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        "loss" => qos.loss = Some((shape.loss?.share() * 100_000.0).round().max(1.0) as u32),
        _ => return None,
    }
    Some(())
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
    fn what_a_file_cannot_say_is_seen_all_the_same() {
        let read = |shape: Value| qos_of_record(&shape).map(|qos| qos.to_string());
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(read(json("{}")).as_deref(), Some(""));
        assert_eq!(read(json(r#"{"delay": "500µs", "jitter": "1.5s"}"#)).as_deref(), Some("delay 500us jitter 1500ms"));
        assert_eq!(
            read(json(r#"{"delay": "1m30s", "jitter": "1m1s"}"#)).as_deref(),
            Some("delay 90000ms jitter 61000ms")
        );
        assert_eq!(read(json(r#"{"delay": "100ns", "loss": "0.000001"}"#)).as_deref(), Some("delay 1us loss 0.001"));
        assert_eq!(read(json(r#"{"rate": "1.5kbit"}"#)).as_deref(), Some("rate 1kbit"));
    }

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
        assert_eq!(
            read("[0: rate 1mbit, 2: delay 100ms loss 0.25]", 3),
            some(&["rate 1mbit", "", "delay 100ms loss 0.25"])
        );
        assert_eq!(read("[7: rate 1mbit]", 2), None);
        assert_eq!(read("[fast]", 1), None);
        assert_eq!(read("N/A", 1), None);
    }
}
