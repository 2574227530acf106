//! `bonds` of VMs. Each becomes an object of its own, which knows its VM.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::lifecycle::Holder;
use super::object::Values;
use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::name::{Namespace, TapName, VmName};
use crate::spec::keys;
use crate::spec::model::{Lifecycle, Object, Vm};
use crate::spec::syntax::{Node, Value};

/// The name of a bond for which the file gives none: the same in every plan, and another for each experiment, because
/// those of a host share their names.
pub fn usual_bond(experiment: &str, vm: &str, index: usize) -> String {
    let hash = Sha256::digest(format!("{experiment} {vm} {index}").as_bytes());
    hash.iter().take(5).fold("bond".to_owned(), |name, byte| name + &format!("{byte:02x}"))
}

impl Decoder<'_> {
    /// What a VM or a profile gives.
    pub(super) fn bonds(&mut self, node: &Node, at: At<'_>) -> Option<Vec<Object>> {
        let Value::List(list) = &node.value else {
            self.wrong_type(node, at, "a list of bonds such as `{ nics: [0, 1], mode: active-backup }`", false);
            return None;
        };
        // Those that were refused are reported; the others can still be checked.
        Some(list.iter().filter_map(|item| self.bond(item, at)).collect())
    }

    fn bond(&mut self, node: &Node, at: At<'_>) -> Option<Object> {
        let owner = format!("a bond of {}", at.owner);
        let entries = self.section(node, &owner, &keys::names(keys::BOND))?;
        let before = self.errors;
        self.require(&entries, keys::BOND, node.span, &owner);
        let mut bond = Object { span: node.span, settings: BTreeMap::new(), lifecycle: Lifecycle::default() };
        for (key, _, node) in entries {
            let at = At { key, owner: &owner };
            let value = match key {
                "nics" => {
                    if let Some(nics) = self.bonded(node, at) {
                        bond.settings.insert(key, nics);
                    }
                    continue;
                }
                "mode" => self.one_of(node, at, &["active-backup", "balance-slb", "balance-tcp"]),
                "lacp" => self.one_of(node, at, &["active", "passive", "off"]).filter(|word| word != "off"),
                // What is usual is left out, so that saying it changes nothing.
                "fallback" => self.bool(node, at).filter(|yes| !yes).map(|no| no.to_string()),
                "qinq" => self.bool(node, at).filter(|yes| *yes).map(|yes| yes.to_string()),
                "lifecycle" => {
                    bond.lifecycle = self.lifecycle(node, at, Holder::Object(keys::BOND)).lifecycle;
                    continue;
                }
                "name" => self.name(node, at, TapName::new).map(|name| name.to_string()),
                other => unreachable!("`{other}` is not in the table of bond keys"),
            };
            bond.settings.extend(value.map(|text| (key, vec![Spanned::new(text, node.span)])));
        }
        let without_lacp = [
            (bond.one("mode") == Some("balance-tcp"), "mode", "is balance-tcp, which spreads nothing"),
            (bond.one("fallback").is_some(), "fallback", "is `false`, which says nothing"),
        ];
        for (_, key, what) in without_lacp.into_iter().filter(|(wrong, ..)| *wrong && bond.one("lacp").is_none()) {
            let message = format!("`{key}` of {owner} {what} without LACP");
            let hint = "add `lacp: active` or `lacp: passive`, or take this out";
            self.push_once(Diagnostic::error("bond-lacp", bond.place(key), message).hint(hint));
        }
        (self.errors == before).then_some(bond)
    }

    /// Indexes of NICs, in their order.
    fn bonded(&mut self, node: &Node, at: At<'_>) -> Values {
        let mut nics =
            self.set_of(node, at, |decoder, item, at| decoder.uint(item, at, 0, 255).map(|n| n.to_string()))?;
        nics.sort_by_key(|nic| nic.value.parse::<u8>().unwrap_or_default());
        if nics.len() < 2 {
            let message = format!("{at} are not two");
            let hint = "a bond makes one port of at least two NICs, as in `nics: [0, 1]`";
            self.push(Diagnostic::error("bond-nics", node.span, message).hint(hint));
            return None;
        }
        Some(nics)
    }

    /// The bonds of all VMs by name, each with its VM and its own name.
    pub(super) fn bonds_of(&mut self, experiment: &Namespace, vms: &BTreeMap<VmName, Vm>) -> BTreeMap<String, Object> {
        let mut bonds: BTreeMap<String, Object> = BTreeMap::new();
        for (vm, body) in vms.iter().map(|(name, vm)| (name, &vm.body)) {
            for (index, bond) in body.bonds.iter().enumerate() {
                let mut bond = bond.clone();
                let said = |text: String| vec![Spanned::new(text, bond.span)];
                let name = bond
                    .settings
                    .get("name")
                    .cloned()
                    .unwrap_or_else(|| said(usual_bond(experiment.as_str(), vm.as_str(), index)));
                let vm = said(vm.to_string());
                let key = name[0].value.clone();
                bond.settings.extend([("name", name), ("vm", vm)]);
                if let Some(other) = bonds.get(&key) {
                    let (one, two) = (other.one("vm").unwrap_or_default(), bond.one("vm").unwrap_or_default());
                    let message = match one == two {
                        true => format!("`{one}` has two bonds called `{key}`"),
                        false => format!("the bonds of `{one}` and of `{two}` are both called `{key}`"),
                    };
                    let diagnostic = Diagnostic::error("duplicate-bond", bond.place("name"), message)
                        .other(other.place("name"), "first given here")
                        .hint("rename one of them, or leave `name` out");
                    self.push_once(diagnostic);
                    continue;
                }
                bonds.insert(key, bond);
            }
        }
        bonds
    }
}
