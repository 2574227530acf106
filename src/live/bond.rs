//! Bonds of NICs: from the `Data` of `bridge`, where the target tells there what they are made of; otherwise their names and VMs,
//! from `vm info`.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::object::{Facts, LiveObject, Objects, table};
use super::table::{Table, list_cell};
use super::{LiveError, LiveVm};
use crate::language::entry::Entry;
use crate::name::Namespace;
use crate::wire::Transport;

/// The tap of a NIC, as `host tap`, with its VM and index.
type Taps<'v> = HashMap<(&'v str, &'v str), (&'v str, usize)>;

fn taps(vms: &BTreeMap<String, LiveVm>) -> Taps<'_> {
    let nics = vms.values().flat_map(|vm| vm.nics.iter().enumerate().map(move |(index, nic)| (vm, index, nic)));
    let nics = nics.filter(|(.., nic)| !nic.tap.is_empty());
    nics.map(|(vm, index, nic)| ((vm.host.as_str(), nic.tap.as_str()), (vm.name.as_str(), index))).collect()
}

/// One bond as `Data` has it, by name: None for one of another namespace, and for one that cannot be read.
fn told(bond: &Value, host: &str, taps: &Taps<'_>) -> Option<(String, LiveObject)> {
    let text = |key: &str| bond.get(key)?.as_str();
    let name = text("Name")?.to_owned();
    let members = bond.get("Taps")?.as_array()?.iter().filter_map(|tap| taps.get(&(host, tap.as_str()?)));
    let members: Vec<(&str, usize)> = members.copied().collect();
    let vm = members.first()?.0;
    let mut nics: Vec<usize> = members.iter().filter(|(of, _)| *of == vm).map(|(_, index)| *index).collect();
    nics.sort_unstable();
    let lacp = text("LACP")?;
    // What is usual has no value, as in a file.
    let unless = |usual: bool, value: String| if usual { Vec::new() } else { vec![value] };
    let fallback = bond.get("Fallback")?.as_bool()? || lacp == "off";
    let facts: Facts = [
        ("name", vec![name.clone()]),
        ("vm", vec![vm.to_owned()]),
        ("nics", nics.iter().map(usize::to_string).collect()),
        ("mode", vec![text("Mode")?.to_owned()]),
        ("lacp", unless(lacp == "off", lacp.to_owned())),
        ("fallback", unless(fallback, false.to_string())),
        ("qinq", unless(!bond.get("QinQ")?.as_bool()?, true.to_string())),
    ]
    .into_iter()
    .map(|(key, values)| (key.to_owned(), values))
    .collect();
    Some((name, LiveObject { host: host.to_owned(), id: None, facts }))
}

/// The bonds of the namespace's VMs by name. None where neither the bridges, nor their VMs, tell which there are.
pub(super) fn bonds(
    transport: &mut dyn Transport,
    namespace: &Namespace,
    bridges: &[Entry],
    vms: &BTreeMap<String, LiveVm>,
) -> Result<Option<Objects>, LiveError> {
    let listed = |entry: &Entry| entry.header.iter().flatten().any(|column| column == "bonds");
    // Nothing tells that there is none where a target does not know of bonds.
    if !bridges.iter().any(listed) {
        return Ok(None);
    }
    let has = |row: super::table::Row<'_>| !row.get("bonds").map(list_cell).unwrap_or_default().is_empty();
    let with_bonds: Vec<&Entry> = bridges.iter().filter(|entry| Table::new(entry).rows().any(has)).collect();
    let mut bonds = Objects::new();
    let taps = taps(vms);
    let mut all_told = true;
    for entry in with_bonds {
        let lists = entry.data.as_array().into_iter().flatten().filter_map(|bridge| bridge.get("Bonds")?.as_array());
        let lists: Vec<&Vec<Value>> = lists.collect();
        all_told &= !lists.is_empty();
        bonds.extend(lists.into_iter().flatten().filter_map(|bond| told(bond, &entry.host, &taps)));
    }
    // So that the VMs are not asked for again.
    if all_told {
        return Ok(Some(bonds));
    }
    let Some(entries) = table(transport, namespace, ".columns name,bond vm info")? else { return Ok(None) };
    for entry in &entries {
        for row in Table::new(entry).rows() {
            let (Some(vm), Some(names)) = (row.get("name"), row.get("bond")) else { continue };
            for name in list_cell(names) {
                let facts = [("name", name), ("vm", vm)].map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
                let bond = LiveObject { host: entry.host.clone(), id: None, facts: Facts::from(facts) };
                bonds.entry(name.to_owned()).or_insert(bond);
            }
        }
    }
    Ok(Some(bonds))
}
