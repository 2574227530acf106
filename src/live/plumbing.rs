//! Pipelines, as the table of `plumb` shows them. Must not know what is wanted.

use super::object::{LiveObject, Objects};
use super::table::Table;
use crate::language::entry::Entry;
use crate::name::{Namespace, pipeline_elements, pipeline_key};

/// The fact with the elements of a pipeline as the target shows them, where it leaves no doubt about them.
pub const ELEMENTS: &str = "elements";

pub(super) fn pipelines(namespace: &Namespace, entries: &[Entry]) -> Objects {
    let mut objects = Objects::new();
    for entry in entries {
        // The records stand in the order of the rows.
        let records = entry.data.as_array().map(Vec::as_slice).unwrap_or_default();
        for (at, row) in Table::new(entry).rows().enumerate() {
            let Some(line) = row.get("pipeline").filter(|line| !line.is_empty()) else { continue };
            let mut object =
                LiveObject { host: entry.host.clone(), id: Some(line.to_owned()), ..LiveObject::default() };
            let told = records.get(at).and_then(|record| {
                let list = record.as_array()?.iter();
                list.map(|element| element.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
            });
            object.facts.extend(told.or_else(|| pipeline_elements(line)).map(|all| (ELEMENTS.to_owned(), all)));
            objects.insert(pipeline_key(namespace, line), object);
        }
    }
    objects
}
