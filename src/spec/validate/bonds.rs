//! Bonds: the NICs that they are made of.

use std::collections::HashMap;

use super::Checks;
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::spec::model::{Nic, Object};

impl<'d> Checks<'d> {
    /// Their NICs are there, plugged in, on one VLAN of one bridge, and each is in one bond.
    pub(super) fn bonds(&mut self, bonds: &[(&'d str, &'d Object)]) {
        let draft = self.draft;
        let mut taken: HashMap<(&str, usize), Span> = HashMap::new();
        for (name, bond) in bonds {
            let Some(vm) = bond.one("vm") else { continue };
            if draft.taps.contains_key(*name) {
                let message = format!("`{name}` is a bond of vm `{vm}` and a tap");
                let hint = "both are interfaces of the host: rename one of the two";
                self.push(Diagnostic::error("duplicate-bond", bond.place("name"), message).hint(hint));
            }
            let mut first: Option<(usize, &Nic)> = None;
            for nic in bond.all("nics") {
                let Ok(index) = nic.value.parse::<usize>() else { continue };
                let who = format!("a bond of vm `{vm}`");
                if !self.nic(&who, vm, index, nic.span) {
                    continue;
                }
                if let Some(other) = taken.insert((vm, index), nic.span) {
                    let message = format!("NIC {index} of `{vm}` is in two bonds");
                    let hint = "a NIC is in one bond: take it out of the other";
                    self.push(Diagnostic::error("bond-nics", nic.span, message).label(other, "first here").hint(hint));
                    continue;
                }
                let Spanned { value: found, span } = &draft.vms[vm].body.networks[index];
                let wrong = match first {
                    _ if !found.connected => Some((
                        format!("{who} has NIC {index}, which is not plugged in"),
                        "remove its `connected: false`, or take it out of the bond",
                    )),
                    Some((other, nic)) if (&nic.vlan, &nic.bridge) != (&found.vlan, &found.bridge) => Some((
                        format!("{who} has the NICs {other} and {index}, which are on different VLANs or bridges"),
                        "a bond is one port: put its NICs on one VLAN of one bridge",
                    )),
                    _ => None,
                };
                first = first.or(Some((index, found)));
                if let Some((message, hint)) = wrong {
                    self.push(Diagnostic::error("bond-nics", nic.span, message).label(*span, "this NIC").hint(hint));
                }
            }
        }
    }
}
