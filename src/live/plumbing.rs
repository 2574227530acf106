//! Pipes and pipelines, as the tables of `pipe` and `plumb` show them. Must not know what is wanted.

use std::collections::HashMap;

use super::Live;
use super::object::{Facts, LiveObject, Objects};
use super::table::Table;
use crate::language::entry::Entry;
use crate::language::program;
use crate::name::{Kind, Namespace, pipeline_elements, pipeline_key, pipeline_pipes};

/// The fact with the elements of a pipeline as the target shows them, where it leaves no doubt about them.
pub const ELEMENTS: &str = "elements";

/// The fact that says who else uses a pipe than the pipelines of its namespace: clients, and pipelines of other namespaces.
pub const OTHERS: &str = "others";

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

/// The pipes of a namespace, by the names that its commands may give them. Others are none of its own, nor is one without a
/// namespace, which no command reaches.
pub(super) fn pipes(namespace: &Namespace, entries: &[Entry], pipelines: &Objects) -> Objects {
    let prefix = format!("{namespace}//");
    // How many pipelines of the namespace read and write each.
    let mut own: HashMap<String, (usize, usize)> = HashMap::new();
    for pipe in pipelines.values().filter_map(|pipeline| pipeline.id.as_deref()).flat_map(pipeline_pipes) {
        let (read, written) = own.entry(pipe.name).or_default();
        *read += usize::from(pipe.read);
        *written += usize::from(pipe.written);
    }
    let mut objects = Objects::new();
    for entry in entries {
        let records = entry.data.as_array().map(Vec::as_slice).unwrap_or_default();
        for (at, row) in Table::new(entry).rows().enumerate() {
            let Some(whole) = row.get("name") else { continue };
            let Some(name) = whole.strip_prefix(&prefix) else { continue };
            let mut object = LiveObject { host: entry.host.clone(), ..LiveObject::default() };
            let mut set = |key: &str, values: Vec<String>| drop(object.facts.insert(key.to_owned(), values));
            set("mode", vec![row.get("mode").unwrap_or_default().to_owned()]);
            set("via", row.get("via").filter(|via| !via.is_empty()).map(str::to_owned).into_iter().collect());
            // What the table does not tell: whether messages are logged, and which words of the program are one.
            if let Some(record) = records.get(at).filter(|record| record["name"] == whole) {
                if let Some(log) = record["log"].as_bool() {
                    set("log", vec![log.to_string()]);
                }
                let words = record["via"].as_array().map(|words| words.iter().filter_map(|word| word.as_str()));
                let words: Vec<String> = words.into_iter().flatten().map(str::to_owned).collect();
                if !words.is_empty() {
                    set("via", vec![program::join(&words)]);
                }
            }
            let count = |column: &str| row.get(column).and_then(|cell| cell.parse::<usize>().ok());
            let (read, written) = own.get(whole).copied().unwrap_or_default();
            let readers = count("readers").map(|count| count.saturating_sub(read));
            let writers = count("writers").map(|count| count.saturating_sub(written));
            let others: Vec<String> = [("reader", readers), ("writer", writers)]
                .into_iter()
                .filter_map(|(what, count)| match count {
                    Some(0) => None,
                    Some(1) => Some(format!("1 {what}")),
                    Some(count) => Some(format!("{count} {what}s")),
                    None => Some(format!("{what}s that are not counted")),
                })
                .collect();
            if !others.is_empty() {
                set(OTHERS, others);
            }
            objects.insert(name.to_owned(), object);
        }
    }
    objects
}

/// Whether two programs with their arguments are the same, as far as a target tells: not every one shows which words are one.
pub fn same_program(wanted: &str, seen: &str) -> bool {
    wanted == seen || program::split(wanted).is_ok_and(|words| words.join(" ") == seen)
}

/// Whether a pipe is as it is when it is first named, as far as the target tells.
pub fn is_unset_pipe(facts: &Facts) -> bool {
    let is = |key: &str, usual: Option<&str>| {
        facts.get(key).is_none_or(|values| values.is_empty() || values.first().map(String::as_str) == usual)
    };
    is("mode", Some("all")) && is("log", Some("false")) && is("via", None)
}

/// Whether a pipe of a namespace is there, without settings, and nobody uses it.
pub fn is_unused_pipe(live: &Live, namespace: &Namespace, name: &str) -> bool {
    let whole = format!("{namespace}//{name}");
    let pipe = live.objects.get(&Kind::Pipe).and_then(|pipes| pipes.get(name));
    let mut lines = live.objects.get(&Kind::Plumbing).into_iter().flatten().filter_map(|(_, of)| of.id.as_deref());
    pipe.is_some_and(|pipe| is_unset_pipe(&pipe.facts) && !pipe.facts.contains_key(OTHERS))
        && !lines.any(|line| pipeline_pipes(line).iter().any(|pipe| pipe.name == whole))
}
