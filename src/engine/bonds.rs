//! Bonds of a VM's NICs. The switch is the only record of them.

use std::collections::{BTreeSet, HashMap};

use crate::host::{Bond, BondMode, Lacp};
use crate::name::{Namespace, TapName};

use super::nics::nic_index;
use super::vm::Vm;
use super::{Engine, EngineError};

/// What `vm net bond` asks for.
#[derive(Debug, Clone)]
pub struct BondRequest {
    /// The NICs, by index: `0,1` or `0-3`.
    pub interfaces: String,
    /// How traffic is spread.
    pub mode: BondMode,
    /// Link aggregation.
    pub lacp: Lacp,
    /// Whether it works as active-backup while the guest does not negotiate.
    pub fallback: bool,
    /// The name; None for the next free `mega_bondN`.
    pub name: Option<TapName>,
    /// Whether the VLAN is the outer one of two tags.
    pub qinq: bool,
}

/// A NIC's bond.
pub(super) struct Bonded {
    /// Its name.
    pub name: TapName,
    /// Whether the VLAN is the outer one of two tags.
    pub qinq: bool,
}

impl Engine {
    /// Bond NICs of each VM. They are connected, and to one VLAN.
    pub async fn bond_nics(
        &self,
        namespace: &Namespace,
        target: &str,
        request: &BondRequest,
    ) -> Result<(), EngineError> {
        let targets = self.targets(namespace, target)?;
        if request.name.is_some() && targets.vms.len() > 1 {
            return Err(EngineError::BondShared { count: targets.vms.len() });
        }
        for vm in &targets.vms {
            indexes(vm, &request.interfaces)?;
        }
        let mut errors = Vec::new();
        for vm in &targets.vms {
            errors.extend(self.bond_one(vm, request).await.err());
        }
        errors.retain(|error| !targets.gone(error));
        EngineError::collect(errors)
    }

    async fn bond_one(&self, vm: &Vm, request: &BondRequest) -> Result<(), EngineError> {
        let _turn = vm.turn().await?;
        if !vm.live().state.has_process() {
            return Err(EngineError::BondStopped { name: vm.name.to_string() });
        }
        let indexes = indexes(vm, &request.interfaces)?;
        let taps: Vec<TapName> = {
            let live = vm.live();
            indexes.iter().map(|index| live.nics[*index].tap.clone()).collect()
        };
        let name = match &request.name {
            Some(name) => name.clone(),
            None => {
                let taken: BTreeSet<TapName> = self.bonds().await?.into_iter().map(|bond| bond.name).collect();
                let names = (0..).filter_map(|number| TapName::new(&format!("mega_bond{number}")).ok());
                names.into_iter().find(|name| !taken.contains(name)).expect("there are more names than bonds")
            }
        };
        let &BondRequest { mode, lacp, fallback, qinq, .. } = request;
        let bond = Bond { name, taps, mode, lacp, fallback, qinq };
        self.network(move |network| network.bond(&bond)).await.map_err(|error| self.explain_tap(error))
    }

    /// Dissolve the bonds of each VM, or the one of this name.
    pub async fn clear_bonds(
        &self,
        namespace: &Namespace,
        target: &str,
        name: Option<&str>,
    ) -> Result<(), EngineError> {
        let targets = self.targets(namespace, target)?;
        let taps: BTreeSet<TapName> = targets
            .vms
            .iter()
            .flat_map(|vm| vm.live().nics.iter().map(|nic| nic.tap.clone()).collect::<Vec<_>>())
            .collect();
        let mut bonds = self.bonds().await?;
        bonds.retain(|bond| bond.taps.iter().any(|tap| taps.contains(tap)));
        if let Some(name) = name {
            bonds.retain(|bond| bond.name.as_str() == name);
            if bonds.is_empty() {
                return Err(EngineError::NoBond { name: name.to_owned() });
            }
        }
        let mut errors = Vec::new();
        for bond in bonds {
            errors.extend(self.network(move |network| network.unbond(&bond.name)).await.err());
        }
        EngineError::collect(errors)
    }

    /// The bonds on all bridges, of every namespace, by name.
    pub async fn bonds(&self) -> Result<Vec<Bond>, EngineError> {
        self.network(|network| network.bonds()).await
    }

    /// The bonds of all NICs, by tap.
    pub(super) async fn bonded(&self) -> Result<HashMap<TapName, Bonded>, EngineError> {
        let bonds = self.bonds().await?;
        let each = |bond: Bond| {
            let Bond { name, qinq, taps, .. } = bond;
            taps.into_iter().map(move |tap| (tap, Bonded { name: name.clone(), qinq }))
        };
        Ok(bonds.into_iter().flat_map(each).collect())
    }
}

/// The NICs of a VM that `0,1` or `0-3` means, each once, in order; at least two.
fn indexes(vm: &Vm, text: &str) -> Result<Vec<usize>, EngineError> {
    let mut found = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (nic_index(vm, first)?, nic_index(vm, last)?);
        found.extend(first..=last);
    }
    if found.len() < 2 {
        return Err(EngineError::BondOfOne { text: text.to_owned() });
    }
    Ok(found.into_iter().collect())
}
