//! Bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines, from what is live. What a target does not show
//! of them, the journal may know.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Found, FoundTap};
use crate::live::{
    ELEMENTS, Facts, INSIDE, INTERFACES, Live, LiveObject, LiveVm, Objects, is_unset_pipe, same_file, same_program,
};
use crate::name::{Kind, ObjectName};
use crate::plan::{Advice, Made};
use crate::spec::assigned_mac;

/// The keys of the file of each kind that a target shows or the journal knows, in the order in which they are written.
pub(super) fn keys(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Bridge => &["trunks", "tunnels", "config"],
        Kind::Nat => &["vlan", "ip", "bridge"],
        Kind::Dnsmasq => &["address", "range", "leases", "dns", "upstream", "options", "config"],
        Kind::Mirror => &["from", "to", "bridge"],
        Kind::Pipe => &["mode", "log", "via"],
        Kind::Plumbing => &["pipeline"],
        Kind::Bond => &["nics", "mode", "lacp", "fallback", "qinq", "name"],
        Kind::Placement => &["hosts", "load", "queueing"],
        Kind::Capture => {
            &["type", "vm", "interface", "bridge", "file", "to", "snaplen", "filter", "format", "gzip", "timeout"]
        }
        Kind::Vlan | Kind::Tap | Kind::Vm | Kind::Command => &[],
    }
}

/// The keys of a kind that the file may leave open, because the namespace or the host has a value of its own.
fn open(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Capture => &["snaplen", "filter", "format", "gzip", "timeout"],
        Kind::Mirror => &["bridge"],
        _ => &[],
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
    let last = last.split_once('.').map_or(last, |(stem, rest)| {
        if kind == Kind::Capture && stem.parse::<u8>().is_err() && !rest.contains(':') { stem } else { last }
    });
    let plain: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    let plain = plain.trim_matches('-');
    let free = |name: &String| !taken.contains_key(name) && ObjectName::new(name).is_ok();
    let plainly = |name: &String| name.starts_with(|c: char| c.is_ascii_alphabetic()) && free(name);
    let base = Some(plain.to_owned()).filter(plainly).unwrap_or_else(|| format!("{kind}-{plain}"));
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    std::iter::once(base.clone()).chain(numbered).find(free).expect("one is free")
}

/// What an object without a name is called after: of a server the VLAN that it serves, of a pipeline what it begins with.
pub(super) fn called<'k>(kind: Kind, key: &'k str, facts: &'k Facts, taps: &'k BTreeMap<String, FoundTap>) -> &'k str {
    let address = one(facts, "address").filter(|_| kind == Kind::Dnsmasq);
    let on = |tap: &&FoundTap| address.is_some() && tap.ip.as_deref().and_then(|ip| ip.split('/').next()) == address;
    let served = taps.values().find(on).map(|tap| tap.vlan.as_str());
    let begin = || one(facts, "pipeline").and_then(|element| element.split(' ').next());
    served.or_else(begin).unwrap_or(key)
}

/// What is there of a kind: as the target lists it; where it lists none of the kind, as the journal remembers it.
fn seen<'l>(live: &'l Live, advice: &Advice, kind: Kind) -> Cow<'l, Objects> {
    if let Some(objects) = live.objects.get(&kind) {
        return Cow::Borrowed(objects);
    }
    let made = advice.objects.iter().filter(|((of, _), _)| *of == kind).map(|(_, made)| made);
    Cow::Owned(
        made.map(|made| (made.key.clone(), LiveObject { facts: made.facts.clone(), ..LiveObject::default() }))
            .collect(),
    )
}

/// What the journal remembers of what is there, by the key that it has there: name and settings.
fn remembered<'o>(objects: &'o Objects, advice: &'o Advice, kind: Kind) -> BTreeMap<&'o str, (&'o str, &'o Made)> {
    let of = advice.objects.iter().filter(|((of, _), _)| *of == kind);
    let named: Vec<_> = of.map(|((_, name), made)| (made.key.as_str(), &made.facts, (name.as_str(), made))).collect();
    let mut found = crate::live::named(objects, named.iter().copied());
    if kind == Kind::Mirror {
        // Several may go to one destination, and are known by both ends then.
        for (_, facts, value) in named {
            let is = |mirror: &LiveObject| ["from", "to"].iter().all(|end| mirror.facts.get(*end) == facts.get(*end));
            if let Some((key, _)) = objects.iter().find(|(_, mirror)| is(mirror)) {
                found.retain(|_, other| *other != value);
                found.insert(key, value);
            }
        }
    }
    found
}

fn one<'f>(facts: &'f Facts, key: &str) -> Option<&'f str> {
    facts.get(key).and_then(|values| values.first()).map(String::as_str)
}

/// The settings of an object for the file: what the target shows, and of what it does not show what is remembered.
fn settings(kind: Kind, live: &LiveObject, made: Option<&Made>) -> Facts {
    let mut facts = made.map(|made| made.facts.clone()).unwrap_or_default();
    for (key, values) in &live.facts {
        let was = made.and_then(|made| one(&made.facts, key));
        let is = values.first().map(String::as_str).unwrap_or_default();
        // The same, as somebody wrote it.
        let as_written = match key.as_str() {
            "file" => was.is_some_and(|was| same_file(was, is)),
            "via" => was.is_some_and(|was| same_program(was, is)),
            _ => false,
        };
        if !as_written {
            facts.insert(key.clone(), values.clone());
        }
    }
    if let Some(inside) = live.facts.get(INSIDE).and_then(|name| name.first()) {
        facts.insert("file".to_owned(), vec![inside.clone()]);
    }
    let left_open = |key: &str| made.is_some_and(|made| one(&made.facts, key).is_none()) && open(kind).contains(&key);
    facts.retain(|key, values| keys(kind).contains(&key.as_str()) && !values.is_empty() && !left_open(key));
    facts
}

/// Enter everything that the file can say.
pub(super) fn live(live: &Live, advice: &Advice, found: &mut Found) {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_object() && *kind != Kind::Placement) {
        let objects = seen(live, advice, kind);
        let remembered = remembered(&objects, advice, kind);
        // The names that are remembered are taken first.
        let order = objects.iter().map(|(key, object)| (!remembered.contains_key(key.as_str()), key, object));
        let mut order: Vec<_> = order.collect();
        order.sort_by_key(|(unknown, key, _)| (*unknown, *key));
        for (_, key, object) in order {
            let known = remembered.get(key.as_str()).copied();
            let made = known.map(|(_, made)| made);
            let Some(facts) = entry(live, kind, (key, object), made, found) else { continue };
            let of = found.objects.entry(kind).or_default();
            let name = match known {
                Some((name, _)) => name.to_owned(),
                None => name(kind, called(kind, key, &facts, &found.taps), of),
            };
            of.insert(name, facts);
        }
    }
    let whole = |vm: &&LiveVm| found.vms.get(&vm.name).is_some_and(|of| of.nics.len() == vm.nics.len());
    let nics = live.vms.values().filter(whole).flat_map(|vm| vm.nics.iter().enumerate().map(|nic| (&vm.name, nic)));
    let nics = nics.filter(|(_, (_, nic))| !nic.mac.is_empty());
    let nics: Vec<_> = nics.map(|(vm, (index, nic))| (nic.mac.clone(), vm.clone(), index)).collect();
    leases(nics.into_iter(), found);
}

/// The entry of one object; None where the file cannot have it, or needs none.
fn entry(
    live: &Live,
    kind: Kind,
    (key, object): (&str, &LiveObject),
    made: Option<&Made>,
    found: &mut Found,
) -> Option<Facts> {
    let mut facts = settings(kind, object, made);
    match kind {
        Kind::Bond => {
            let vm = one(&object.facts, "vm").unwrap_or_default();
            let nics = live.vms.get(vm).map_or(0, |vm| vm.nics.len());
            super::bond::live(key, vm, facts, nics, found);
            return None;
        }
        // What is usual is left out: type, first NIC, length, no filter, and flow records that are not compressed.
        Kind::Capture => {
            if one(&facts, "vm").is_some_and(|vm| !found.vms.contains_key(vm)) {
                found.notes.push(format!("the capture into {key} is of a VM that is left out"));
                return None;
            }
            facts.retain(|fact, values| {
                !matches!(
                    (fact.as_str(), values[0].as_str()),
                    ("type", "pcap") | ("interface", "0") | ("gzip", "false") | ("snaplen", "1600") | ("filter", "")
                )
            });
        }
        Kind::Dnsmasq => {
            let address = one(&facts, "address").unwrap_or_default();
            let on = |tap: &FoundTap| tap.ip.as_deref().and_then(|ip| ip.split('/').next()) == Some(address);
            if address.is_empty() || !found.taps.values().any(on) {
                found.notes.push(format!("the dnsmasq server {key} listens on no tap that is known and is left out"));
                return None;
            }
            if made.is_none() {
                let sentence = "was told by a configuration file is not known";
                found.notes.push(format!("what the dnsmasq server {key} {sentence}"));
            }
        }
        Kind::Bridge => {
            let tunnels = object.facts.get(INTERFACES).map_or(0, Vec::len);
            if tunnels > 0 && !facts.contains_key("tunnels") {
                found
                    .notes
                    .push(format!("the bridge {key} has {tunnels} tunnels, whose ends the target does not show"));
            }
            match made {
                Some(made) => {
                    // The others of its settings are the host's.
                    let set = |setting: &String| setting.split('=').next().unwrap_or_default().to_owned();
                    let ours: Vec<String> = made.facts.get("config").into_iter().flatten().map(set).collect();
                    if let Some(config) = facts.get_mut("config") {
                        config.retain(|setting| ours.contains(&set(setting)));
                    }
                    facts.retain(|_, values| !values.is_empty());
                }
                None if facts.is_empty() => return None,
                None => found.notes.push(format!(
                    "the bridge {key} is the host's: remove it from the file unless its trunks and settings are the experiment's"
                )),
            }
        }
        Kind::Pipe => {
            // One without settings is made by its first use, and needs no entry.
            if made.is_none() && is_unset_pipe(&object.facts) {
                return None;
            }
            facts.retain(|fact, values| !usual_of_pipe(fact, &values[0]));
            if made.is_none() && !object.facts.contains_key("log") {
                found.notes.push(format!("the target does not show whether the messages of the pipe {key} are logged"));
            }
            if let Err(error) = ObjectName::new(key) {
                found.notes.push(format!("the pipe {key} is left out: {error}; set it with `commands`"));
                return None;
            }
        }
        Kind::Plumbing => {
            if made.is_none() {
                let Some(elements) = object.facts.get(ELEMENTS) else {
                    found.notes.push(format!(
                        "the pipeline {key} is left out: the target does not tell which of its words are one program"
                    ));
                    return None;
                };
                facts.insert("pipeline".to_owned(), elements.clone());
            }
            let declared = found.objects.get(&Kind::Pipe);
            let prefix = format!("{}//", found.name);
            for element in facts.get_mut("pipeline").into_iter().flatten() {
                // A name alone means the pipe where the file has an entry for it; otherwise it may be a program.
                let own =
                    element.strip_prefix(&prefix).filter(|name| declared.is_some_and(|of| of.contains_key(*name)));
                if let Some(name) = own {
                    *element = name.to_owned();
                }
            }
        }
        _ => {}
    }
    Some(facts)
}

/// Name the NICs that leases are for, and leave out the addresses that these are given then. The NICs are those whose addresses are
/// known: address, VM and index.
pub(super) fn leases(addresses: impl Iterator<Item = (String, String, usize)>, found: &mut Found) {
    let mut nics: BTreeMap<String, Option<(String, usize)>> = BTreeMap::new();
    for (mac, vm, index) in addresses {
        let at = nics.entry(mac.to_ascii_lowercase());
        at.and_modify(|at| *at = None).or_insert(Some((vm, index)));
    }
    for server in found.objects.get_mut(&Kind::Dnsmasq).into_iter().flat_map(BTreeMap::values_mut) {
        for lease in server.get_mut("leases").into_iter().flatten() {
            let Some((mac, ip)) = lease.split_once(' ') else { continue };
            let Some(Some((vm, index))) = nics.get(&mac.to_ascii_lowercase()) else { continue };
            let Some(nic) = found.vms.get_mut(vm).and_then(|vm| vm.nics.get_mut(*index)) else { continue };
            let given = assigned_mac(&found.name, vm, *index);
            let given = given.is_some_and(|given| given.to_string().eq_ignore_ascii_case(mac));
            nic.mac = nic.mac.take().filter(|_| !given);
            *lease = format!("{vm}.{index} {ip}");
        }
    }
}
