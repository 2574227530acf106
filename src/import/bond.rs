//! Bonds of VMs, and what a file cannot say of them.

use super::{Found, FoundVm};
use crate::live::Facts;

fn one<'f>(facts: &'f Facts, key: &str) -> &'f str {
    facts.get(key).and_then(|values| values.first()).map_or("", String::as_str)
}

/// Why a file cannot have this bond, of a VM whose NICs are on these VLANs and bridges; None for one that is not plugged in.
pub(super) fn refused(bond: &Facts, nics: &[Option<(String, String)>]) -> Option<String> {
    let indexes: Vec<usize> = bond.get("nics").into_iter().flatten().filter_map(|nic| nic.parse().ok()).collect();
    if indexes.len() < 2 {
        return Some("it has fewer than two NICs".to_owned());
    }
    let mut first = None;
    for index in &indexes {
        match nics.get(*index) {
            None => return Some(format!("the VM has no NIC {index}")),
            Some(None) => return Some(format!("its NIC {index} is not plugged in")),
            Some(Some(at)) if *first.get_or_insert(at) != at => {
                return Some("its NICs are on different VLANs or bridges".to_owned());
            }
            Some(Some(_)) => {}
        }
    }
    let spreads = one(bond, "mode") == "balance-tcp" && one(bond, "lacp").is_empty();
    spreads.then(|| "its mode is balance-tcp, without LACP".to_owned())
}

/// Enter a bond of a VM, which has so many NICs: what is known of it.
pub(super) fn live(key: &str, vm: &str, facts: Facts, nics: usize, found: &mut Found) {
    let note = |why: &str| format!("the bond {key} of the VM {vm} is left out: {why}");
    let Some(of) = found.vms.get_mut(vm) else {
        found.notes.push(note("so is the VM"));
        return;
    };
    let why = if !facts.contains_key("nics") {
        Some(
            "the target does not show which NICs it has, nor how they are used; add it to `bonds` of the VM".to_owned(),
        )
    } else if of.nics.len() != nics {
        Some("so are NICs of the VM, which are counted".to_owned())
    } else {
        let at =
            of.nics.iter().map(|nic| (!nic.cut).then(|| (nic.vlan.clone(), nic.bridge.clone().unwrap_or_default())));
        refused(&facts, &at.collect::<Vec<_>>())
    };
    match why {
        Some(why) => found.notes.push(note(&why)),
        None => {
            of.bonds.push(facts);
        }
    }
}

/// Leave out the names that bonds have without being given one, so that equal VMs stay equal. The place in the list is part
/// of such a name.
pub(super) fn settle(found: &mut Found) {
    for (vm, FoundVm { bonds, .. }) in found.vms.iter_mut().filter(|(_, vm)| !vm.bonds.is_empty()) {
        let mut rest = std::mem::take(bonds);
        for index in 0..rest.len() {
            let usual = crate::spec::usual_bond(&found.name, vm, index);
            match rest.iter().position(|bond| one(bond, "name") == usual) {
                Some(at) => {
                    let mut bond = rest.remove(at);
                    bond.remove("name");
                    bonds.push(bond);
                }
                // One with such a name further on keeps it as text.
                None => bonds.push(rest.remove(0)),
            }
        }
    }
}
