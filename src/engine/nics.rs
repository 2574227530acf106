//! NICs: from netspecs to taps, and moving them while the VM runs.

use std::collections::{BTreeSet, HashSet};

use crate::host::{NetworkError, NewTap, TapKind};
use crate::language::field::{FieldValue, VmConfig};
use crate::language::netspec::{DEFAULT_DRIVER, NetSpec};
use crate::name::{BridgeName, Mac, Namespace, Shape, TapName, VlanTag, VmName};

use super::vm::{Nic, Vm};
use super::{Engine, EngineError, State, VlanText, Vlans, hotplug, macs};

/// How often names of taps are changed in one launch before it fails. One time is enough unless others make taps at the
/// same moment.
const TAP_ATTEMPTS: u32 = 100;

impl State {
    /// Every address in use, with whose it is.
    pub(super) fn macs(&self) -> HashSet<Mac> {
        self.namespaces
            .values()
            .flat_map(|n| n.vms.values())
            .flat_map(|vm| vm.live().nics.iter().map(|nic| nic.mac).collect::<Vec<_>>())
            .collect()
    }

    /// Is there a VM with this UUID?
    pub(super) fn has_vm(&self, uuid: uuid::Uuid) -> bool {
        self.namespaces.values().flat_map(|n| n.vms.values()).any(|vm| vm.uuid == uuid)
    }

    /// The tags that NICs use.
    pub(super) fn tags_in_use(&self) -> BTreeSet<VlanTag> {
        self.namespaces
            .values()
            .flat_map(|n| n.vms.values())
            .flat_map(|vm| vm.live().nics.iter().filter_map(|nic| nic.vlan).collect::<Vec<_>>())
            .collect()
    }

    /// The NICs of a VM that is about to be launched. Gives out VLAN tags and addresses.
    pub(super) fn nics(
        &mut self,
        namespace: &Namespace,
        vm: &VmName,
        config: &VmConfig,
        taken: &BTreeSet<VlanTag>,
        macs: &mut HashSet<Mac>,
    ) -> Result<Vec<Nic>, EngineError> {
        let specs = config.networks().into_iter().enumerate();
        specs.map(|(index, spec)| self.nic(namespace, vm, index, spec, taken, macs)).collect()
    }

    /// One NIC of a VM.
    fn nic(
        &mut self,
        namespace: &Namespace,
        vm: &VmName,
        index: usize,
        spec: NetSpec,
        taken: &BTreeSet<VlanTag>,
        macs: &mut HashSet<Mac>,
    ) -> Result<Nic, EngineError> {
        let vlan = self.vlans.resolve(&Vlans::parse(namespace, &spec.vlan)?, taken)?;
        let bridge = match &spec.bridge {
            Some(bridge) => BridgeName::new(bridge)?,
            None => BridgeName::default_bridge(),
        };
        let mac = match spec.mac {
            // minimega launches VMs with equal addresses, and so does a range of one netspec here.
            Some(mac) => mac,
            None => (0..)
                .map(|attempt| macs::assign(namespace, vm, index, attempt))
                .find(|mac| !macs.contains(mac))
                .expect("2^40 addresses are never all taken"),
        };
        macs.insert(mac);
        Ok(Nic {
            tap: self.next_tap(),
            mac,
            driver: spec.driver.unwrap_or_else(|| DEFAULT_DRIVER.to_owned()),
            bridge,
            vlan: Some(vlan),
            raw: spec.raw,
            ip4: None,
            ip6: None,
            shape: Shape::default(),
        })
    }
}

/// Taken and ignored, `qinq` would put frames with tags of a guest's own on the wire as something else.
fn refuse_qinq(specs: &[NetSpec]) -> Result<(), EngineError> {
    match specs.iter().find(|spec| spec.qinq) {
        Some(spec) => Err(EngineError::NicQinq { text: spec.to_string() }),
        None => Ok(()),
    }
}

impl Engine {
    /// Configure the NICs of the next launch. As in minimega, their VLAN aliases have tags from now on; on failure nothing
    /// has changed.
    pub async fn configure_networks(&self, namespace: &Namespace, specs: Vec<NetSpec>) -> Result<(), EngineError> {
        refuse_qinq(&specs)?;
        let vlans: Vec<_> = specs.iter().map(|spec| Vlans::parse(namespace, &spec.vlan)).collect::<Result<_, _>>()?;
        let config = FieldValue::Networks(specs);
        loop {
            let known = self.read_vlans(|all| vlans.iter().all(|vlan| all.knows(vlan)));
            let mut taken = if known { BTreeSet::new() } else { self.tap_tags().await? };
            let mut state = self.state();
            if known && !vlans.iter().all(|vlan| state.vlans.knows(vlan)) {
                continue;
            }
            if !known {
                taken.extend(state.tags_in_use());
            }
            let before = state.vlans.clone();
            for vlan in &vlans {
                if let Err(error) = state.vlans.resolve(vlan, &taken) {
                    state.vlans = before;
                    return Err(error.into());
                }
            }
            state.namespaces.entry(namespace.clone()).or_default().config.set("networks", config);
            break;
        }
        self.save()
    }

    /// The tags that host taps and gateways use, with or without an alias.
    pub(super) async fn tap_tags(&self) -> Result<BTreeSet<VlanTag>, EngineError> {
        let ports = self.ports().await?;
        let taps = ports.into_iter().filter_map(|port| port.segment.map(|segment| segment.vlan));
        Ok(taps.chain(self.nat.tags()).collect())
    }

    /// The tag of a VLAN; a new alias gets one that nothing uses.
    pub(super) async fn resolve(&self, vlan: &VlanText) -> Result<VlanTag, EngineError> {
        if self.read_vlans(|vlans| vlans.knows(vlan)) {
            return Ok(self.state().vlans.resolve(vlan, &BTreeSet::new())?);
        }
        let mut taken = self.tap_tags().await?;
        let tag = {
            let mut state = self.state();
            taken.extend(state.tags_in_use());
            state.vlans.resolve(vlan, &taken)?
        };
        self.save()?;
        Ok(tag)
    }

    /// Create the taps of a VM. Where other engines or programs share the network, a name may be taken: then the NIC gets
    /// another one.
    pub(super) async fn create_vm_taps(&self, vm: &Vm) -> Result<(), EngineError> {
        let mut attempts = 0;
        loop {
            let taps = self.new_taps(vm);
            let created = self.network(move |network| network.create_all(&taps)).await;
            let Err(EngineError::Network(NetworkError::Exists { tap: taken })) = &created else { return created };
            attempts += 1;
            if attempts > TAP_ATTEMPTS {
                return created;
            }
            let there = self.network(|network| network.list()).await?;
            let own: Vec<String> = (0..vm.live().nics.len()).map(|index| self.owned(&vm.tap_owner(index))).collect();
            // What an earlier QEMU of this VM has left, if it could not be deleted then.
            let left: Vec<TapName> =
                there.iter().filter(|port| own.contains(&port.owner)).map(|port| port.tap.clone()).collect();
            let names: HashSet<TapName> =
                there.into_iter().map(|port| port.tap).filter(|t| !left.contains(t)).collect();
            if !left.is_empty() {
                self.network(move |network| network.delete_all(&left)).await?;
                continue;
            }
            for index in 0..own.len() {
                let old = vm.live().nics[index].tap.clone();
                if old.as_str() == taken || names.contains(&old) {
                    let new = self.free_tap(&names);
                    vm.live().nics[index].tap = new;
                }
            }
        }
    }

    /// The taps of a VM as the network layer creates them.
    fn new_taps(&self, vm: &Vm) -> Vec<NewTap> {
        vm.live()
            .nics
            .iter()
            .enumerate()
            .map(|(index, nic)| NewTap {
                tap: nic.tap.clone(),
                kind: TapKind::Vm,
                segment: nic.segment(),
                addresses: Vec::new(),
                owner: self.owned(&vm.tap_owner(index)),
            })
            .collect()
    }

    /// Delete the taps of a VM that has ended; those that are gone already are fine. VMs that end at the same time share
    /// one call, because deleting interfaces together takes hardly longer than deleting one.
    pub(super) async fn delete_vm_taps(&self, vm: &Vm) -> Result<(), EngineError> {
        let taps: Vec<TapName> = vm.live().nics.iter().map(|nic| nic.tap.clone()).collect();
        if taps.is_empty() {
            return Ok(());
        }
        self.doomed().extend(taps);
        let _turn = self.deleting.lock().await;
        let batch = std::mem::take(&mut *self.doomed());
        if batch.is_empty() {
            // Whoever had the turn before took these taps along.
            return Ok(());
        }
        self.network(move |network| network.delete_all(&batch)).await
    }

    pub(super) fn doomed(&self) -> std::sync::MutexGuard<'_, Vec<TapName>> {
        self.doomed.lock().expect("no code panics while it holds the list of taps")
    }

    /// Move NIC `index` of each VM to a VLAN, on `bridge` or the bridge that it is on.
    pub async fn connect_nic(
        &self,
        namespace: &Namespace,
        target: &str,
        index: &str,
        vlan: &str,
        bridge: Option<&str>,
    ) -> Result<(), EngineError> {
        let vlan = Vlans::parse(namespace, vlan)?;
        let bridge = bridge.map(BridgeName::new).transpose()?;
        let targets = self.targets(namespace, target)?;
        for vm in &targets.vms {
            nic_index(vm, index)?;
        }
        let tag = self.resolve(&vlan).await?;
        let mut errors = Vec::new();
        for vm in &targets.vms {
            errors.extend(self.place_nic(vm, nic_index(vm, index)?, Some(tag), bridge.clone()).await.err());
        }
        errors.retain(|error| !targets.gone(error));
        EngineError::collect(errors)
    }

    /// Disconnect NIC `index` of each VM.
    pub async fn disconnect_nic(&self, namespace: &Namespace, target: &str, index: &str) -> Result<(), EngineError> {
        let targets = self.targets(namespace, target)?;
        for vm in &targets.vms {
            nic_index(vm, index)?;
        }
        let mut errors = Vec::new();
        for vm in &targets.vms {
            errors.extend(self.place_nic(vm, nic_index(vm, index)?, None, None).await.err());
        }
        errors.retain(|error| !targets.gone(error));
        EngineError::collect(errors)
    }

    /// Add NICs to VMs. A VM that runs gets them at once (PCI hotplug), one that does not with its next start. All VMs get
    /// what they can; of one VM the NICs before one that fails stay.
    pub async fn add_nics(&self, namespace: &Namespace, target: &str, specs: Vec<NetSpec>) -> Result<(), EngineError> {
        if specs.is_empty() {
            return Err(EngineError::NoNetSpec);
        }
        refuse_qinq(&specs)?;
        for spec in &specs {
            Vlans::parse(namespace, &spec.vlan)?;
            spec.bridge.as_deref().map(BridgeName::new).transpose()?;
        }
        let targets = self.targets(namespace, target)?;
        let mut errors = Vec::new();
        for vm in &targets.vms {
            for spec in &specs {
                if let Err(error) = self.add_nic(namespace, vm, spec.clone()).await {
                    errors.push(error);
                    break;
                }
            }
        }
        self.save()?;
        errors.retain(|error| !targets.gone(error));
        EngineError::collect(errors)
    }

    async fn add_nic(&self, namespace: &Namespace, vm: &Vm, spec: NetSpec) -> Result<(), EngineError> {
        let mut taken = self.tap_tags().await?;
        let _turn = vm.turn().await?;
        let (index, qmp) = {
            let live = vm.live();
            let name = vm.name.to_string();
            let qmp = match (live.state.has_process(), live.qmp.clone()) {
                (true, None) => return Err(EngineError::VmState { name }),
                (_, qmp) => qmp,
            };
            (live.nics.len(), qmp)
        };
        let mut nic = {
            let mut state = self.state();
            taken.extend(state.tags_in_use());
            let mut macs = state.macs();
            state.nic(namespace, &vm.name, index, spec, &taken, &mut macs)?
        };
        if let Some(qmp) = qmp {
            let plain_frames = self.network(|network| network.plain_frames()).await?;
            nic.tap = self.create_added_tap(vm, index, &nic).await?;
            if let Err(source) = hotplug::add(&qmp, index, &nic, plain_frames).await {
                // Best effort: the first error is what the caller needs to know.
                let tap = nic.tap.clone();
                let _ = self.network(move |network| network.delete_all(&[tap])).await;
                return Err(EngineError::Qmp { name: vm.name.to_string(), source });
            }
        }
        vm.live().nics.push(nic);
        vm.save()
    }

    /// Create the tap of a NIC that is not yet the VM's. Where its name is taken it gets another one.
    async fn create_added_tap(&self, vm: &Vm, index: usize, nic: &Nic) -> Result<TapName, EngineError> {
        let mut tap = nic.tap.clone();
        for _ in 0..TAP_ATTEMPTS {
            let new = NewTap {
                tap: tap.clone(),
                kind: TapKind::Vm,
                segment: nic.segment(),
                addresses: Vec::new(),
                owner: self.owned(&vm.tap_owner(index)),
            };
            match self.network(move |network| network.create(&new)).await {
                Ok(()) => return Ok(tap),
                Err(EngineError::Network(NetworkError::Exists { .. })) => tap = self.state().next_tap(),
                Err(error) => return Err(error),
            }
        }
        Err(EngineError::Network(NetworkError::Exists { tap: tap.to_string() }))
    }

    /// An error that names a tap which is not there, with the NIC of a VM that it was of.
    pub(super) fn explain_tap(&self, error: EngineError) -> EngineError {
        let EngineError::Network(NetworkError::NotFound { tap }) = &error else { return error };
        let tap = tap.clone();
        let state = self.state();
        let vms = state.namespaces.values().flat_map(|n| n.vms.values());
        let of = |vm: &std::sync::Arc<Vm>| {
            let live = vm.live();
            let index =
                live.nics.iter().position(|nic| nic.tap.as_str() == tap).filter(|_| live.state.has_process())?;
            Some(EngineError::NicTap { tap: tap.clone(), vm: vm.name.to_string(), index })
        };
        let found = vms.filter_map(of).next();
        found.unwrap_or(error)
    }

    async fn place_nic(
        &self,
        vm: &Vm,
        index: usize,
        vlan: Option<VlanTag>,
        bridge: Option<BridgeName>,
    ) -> Result<(), EngineError> {
        let _turn = vm.turn().await?;
        let (mut nic, alive) = {
            let live = vm.live();
            let mut nic = live.nics[index].clone();
            nic.vlan = vlan;
            if let Some(bridge) = bridge {
                nic.bridge = bridge;
            }
            (nic, live.state.has_process())
        };
        if alive {
            let (tap, segment) = (nic.tap.clone(), nic.segment());
            let connected = self.network(move |network| network.connect(&tap, segment.as_ref())).await;
            connected.map_err(|error| self.explain_tap(error))?;
        }
        nic.forget_addresses();
        let tap = nic.tap.clone();
        vm.live().nics[index] = nic;
        self.options.network.forget(&tap);
        vm.save()
    }
}

/// The number of a NIC of a VM.
pub(super) fn nic_index(vm: &Vm, text: &str) -> Result<usize, EngineError> {
    let count = vm.live().nics.len();
    text.parse::<usize>()
        .ok()
        .filter(|index| *index < count)
        .ok_or_else(|| EngineError::NoNetwork { index: text.to_owned(), count })
}
