//! Bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines, from what is live.

use std::collections::BTreeMap;

use super::Found;
use crate::live::{ELEMENTS, Facts, INTERFACES, Live};
use crate::name::{Kind, ObjectName};

/// The keys of the file of each kind that a target shows.
fn keys(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Bridge => &["config", "trunks", "tunnels"],
        Kind::Nat => &["vlan", "ip", "bridge"],
        Kind::Dnsmasq => &["address", "range", "leases", "dns", "upstream", "options"],
        Kind::Mirror => &["from", "to", "bridge"],
        Kind::Pipe => &["mode", "log", "via"],
        Kind::Plumbing => &["pipeline"],
        _ => &["type", "vm", "interface", "bridge", "file", "to", "snaplen", "filter", "format", "gzip"],
    }
}

/// Whether a pipe has a setting by itself.
pub(super) fn usual_of_pipe(key: &str, value: &str) -> bool {
    matches!((key, value), ("mode", "all") | ("log", "false"))
}

/// A name for something that has none: the letters and digits of what tells it from others.
pub(super) fn name(kind: Kind, key: &str, taken: &BTreeMap<String, Facts>) -> String {
    if matches!(kind, Kind::Bridge | Kind::Pipe) {
        return key.to_owned();
    }
    let last = key.rsplit('/').next().unwrap_or(key);
    let plain: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let base = format!("{kind}-{}", plain.trim_matches('-'));
    let free = |name: &String| !taken.contains_key(name) && ObjectName::new(name).is_ok();
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    std::iter::once(base.clone()).chain(numbered).find(free).expect("one is free")
}

/// Enter everything that the file can say.
pub(super) fn live(live: &Live, found: &mut Found) {
    let mut unlogged = false;
    for (kind, objects) in &live.objects {
        for (key, object) in objects {
            if *kind == Kind::Bond {
                let vm = object.facts.get("vm").and_then(|vm| live.vms.get(&vm[0]));
                super::bond::live(key, &object.facts, vm.map_or(0, |vm| vm.nics.len()), found);
                continue;
            }
            let mut facts = object.facts.clone();
            let tunnels = facts.get(INTERFACES).map_or(0, Vec::len);
            facts.retain(|fact, values| keys(*kind).contains(&fact.as_str()) && !values.is_empty());
            let one = |fact: &str| facts.get(fact).and_then(|values| values.first()).cloned();
            match kind {
                // What is usual is left out: type, length, no filter, and flow records that are not compressed.
                Kind::Capture => {
                    if one("vm").is_some_and(|vm| !found.vms.contains_key(&vm)) {
                        found.notes.push(format!("the capture into {key} is of a VM that is left out"));
                        continue;
                    }
                    facts.retain(|fact, values| {
                        !matches!(
                            (fact.as_str(), values[0].as_str()),
                            ("type", "pcap") | ("gzip", "false") | ("snaplen", "1600") | ("filter", "")
                        )
                    });
                }
                Kind::Dnsmasq => {
                    let address = one("address").unwrap_or_default();
                    let on =
                        |tap: &super::FoundTap| tap.ip.as_deref().and_then(|ip| ip.split('/').next()) == Some(&address);
                    if address.is_empty() || !found.taps.values().any(on) {
                        found
                            .notes
                            .push(format!("the dnsmasq server {key} listens on no tap that is known and is left out"));
                        continue;
                    }
                    found
                        .notes
                        .push(format!("what the dnsmasq server {key} was told by a configuration file is not known"));
                }
                Kind::Bridge => {
                    if tunnels > 0 && !facts.contains_key("tunnels") {
                        found.notes.push(format!(
                            "the bridge {key} has {tunnels} tunnels, whose ends the target does not show"
                        ));
                    }
                    if facts.is_empty() {
                        continue;
                    }
                    found.notes.push(format!("the bridge {key} is the host's: remove it from the file unless its trunks and settings are the experiment's"));
                }
                Kind::Pipe => {
                    facts.retain(|fact, values| !usual_of_pipe(fact, &values[0]));
                    if !object.facts.contains_key("log") && !unlogged {
                        unlogged = true;
                        found.notes.push("the target does not show whether messages of pipes are logged".to_owned());
                    }
                    if let Err(error) = ObjectName::new(key) {
                        found.notes.push(format!("the pipe {key} is left out: {error}; set it with `commands`"));
                        continue;
                    }
                }
                Kind::Plumbing => {
                    let Some(elements) = object.facts.get(ELEMENTS) else {
                        found.notes.push(format!(
                            "the pipeline {key} is left out: the target does not tell which of its words are one program"
                        ));
                        continue;
                    };
                    facts.insert("pipeline".to_owned(), elements.clone());
                }
                _ => {}
            }
            let of = found.objects.entry(*kind).or_default();
            let name = name(*kind, key, of);
            of.insert(name, facts);
        }
    }
}
