//! Where VMs of a namespace go: its hosts, the figure by which one is chosen, and the launches that wait in its queue.

use std::collections::BTreeMap;

use super::{LiveError, Transport, entries};
use crate::language::range;
use crate::name::Namespace;

/// What shows the hosts of the mesh with their sizes.
pub const HOSTS: &str = "host";

/// The name that a daemon takes for its own host.
pub const LOCALHOST: &str = "localhost";

/// The figure by which minimega chooses a host where nobody chose another.
pub const USUAL_LOAD: &str = "cpucommit";

/// What a namespace says of the placement of its VMs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// The target's own host; empty where nothing runs.
    pub own: String,
    /// The namespace's hosts, sorted; None for a target that does not tell, or a namespace that is not there.
    pub hosts: Option<Vec<String>>,
    /// The figure by which a host is chosen; None likewise.
    pub load: Option<String>,
    /// The launches that wait, in order.
    pub queue: Vec<Queued>,
}

/// A launch that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queued {
    /// How many VMs it is.
    pub count: usize,
    /// Their names.
    pub names: Vec<String>,
    /// The tags that they are to have, as the target writes them.
    pub tags: String,
}

/// What a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSize {
    /// CPUs.
    pub cpus: u64,
    /// Memory in megabytes (2^20 bytes).
    pub memory: u64,
}

impl Placement {
    /// The name of a host in the target's own words.
    pub fn named<'n>(&'n self, host: &'n str) -> &'n str {
        if host == LOCALHOST && !self.own.is_empty() { &self.own } else { host }
    }
}

/// The text of an answer; None where the target does not have the command.
fn text(transport: &mut dyn Transport, command: &str) -> Result<Option<String>, LiveError> {
    match entries(transport, command) {
        Ok(entries) => {
            let texts: Vec<String> = entries.into_iter().map(|e| e.response).filter(|text| !text.is_empty()).collect();
            Ok(Some(texts.join("\n")))
        }
        Err(LiveError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names as lists and ranges, in whatever way releases separate them.
fn names(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let mut names: Vec<String> = Vec::new();
    for part in parts {
        let part = part.trim_matches(',');
        // `[a b]` is a list too, while `a[1-3]` is a range.
        match range::expand(part) {
            Ok(expanded) => names.extend(expanded),
            Err(_) => names.push(part.trim_matches(['[', ']']).to_owned()),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What `ns queue` says: for each launch a line with the number of VMs, one with their names, and their configuration.
pub fn queue(text: &str) -> Vec<Queued> {
    let mut queue: Vec<Queued> = Vec::new();
    for line in text.lines() {
        if let Some(count) = line.strip_prefix("VMs:").and_then(|count| count.trim().parse().ok()) {
            queue.push(Queued { count, ..Queued::default() });
        }
        let Some(open) = queue.last_mut() else { continue };
        if let Some(list) = line.strip_prefix("Names:") {
            open.names = names(list);
        } else if let Some(tags) = line.strip_prefix("Tags:") {
            tags.trim().clone_into(&mut open.tags);
        }
    }
    queue
}

pub(super) fn observe(
    transport: &mut dyn Transport,
    namespace: &Namespace,
    own: String,
) -> Result<Placement, LiveError> {
    let hosts = text(transport, &format!("namespace {namespace} ns hosts"))?.map(|text| {
        let mut hosts = names(&text);
        hosts.sort_by(|a, b| range::natural_cmp(a, b));
        hosts
    });
    let load = text(transport, &format!("namespace {namespace} ns load"))?.map(|text| text.trim().to_owned());
    let queue = observe_queue(transport, namespace)?;
    Ok(Placement { own, hosts, load: load.filter(|load| !load.is_empty()), queue })
}

/// The launches that wait in a namespace that exists.
pub fn observe_queue(transport: &mut dyn Transport, namespace: &Namespace) -> Result<Vec<Queued>, LiveError> {
    Ok(text(transport, &format!("namespace {namespace} ns queue"))?.map(|text| queue(&text)).unwrap_or_default())
}

/// The hosts of the mesh: that of the target and those that it reaches. Nothing of those that do not tell.
pub(super) fn sizes(transport: &mut dyn Transport) -> Result<BTreeMap<String, HostSize>, LiveError> {
    let mut sizes = BTreeMap::new();
    for command in [HOSTS.to_owned(), format!("mesh send all {HOSTS}")] {
        let entries = match entries(transport, &command) {
            Ok(entries) => entries,
            Err(LiveError::Refused { .. }) => continue,
            Err(error) => return Err(error),
        };
        for entry in &entries {
            for row in super::Table::new(entry).rows() {
                let number = |column: &str| row.get(column).and_then(|cell| cell.trim().parse().ok());
                if let (Some(cpus), Some(memory)) = (number("cpus"), number("memtotal")) {
                    sizes.insert(entry.host.clone(), HostSize { cpus, memory });
                }
            }
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_read_as_it_was_recorded() {
        let row = include_str!("../../tests/data/exchanges.jsonl")
            .lines()
            .find(|row| row.contains("\"ns queue\\\"") || row.contains("ns queue\\\\\""));
        let row: serde_json::Value = serde_json::from_str(row.expect("the recording has `ns queue`")).unwrap();
        let answer: serde_json::Value = serde_json::from_str(row["responses"][0].as_str().unwrap()).unwrap();
        let found = queue(answer["Resp"][0]["Response"].as_str().unwrap());
        assert_eq!(found, [Queued { count: 1, names: vec!["q0".to_owned()], tags: "{}".to_owned() }]);
    }

    #[test]
    fn names_and_tags_of_queued_vms() {
        let text = "VMs: 3\nNames: a[0-1],b\nVM Type: kvm\n\nVM configuration:\nTags:             {\"megaform.digest\":\"v1:x\",\"megaform.experiment\":\"lab\"}\n\n\
                    VMs: 2\nNames: [x, y]\nVM Type: kvm\nTags: map[megaform.experiment:other-1 role:x]\n\nVMs: 1\nNames: z\nTags: {}\n";
        let found = queue(text);
        let names: Vec<_> = found.iter().map(|queued| queued.names.join(" ")).collect();
        assert_eq!(names, ["a0 a1 b", "x y", "z"]);
        let tags: Vec<_> = found.iter().map(|queued| queued.tags.as_str()).collect();
        assert_eq!(
            tags,
            [
                "{\"megaform.digest\":\"v1:x\",\"megaform.experiment\":\"lab\"}",
                "map[megaform.experiment:other-1 role:x]",
                "{}"
            ]
        );
        assert_eq!(found.iter().map(|queued| queued.count).sum::<usize>(), 6);
    }
}
