//! Before a launch: names and UUIDs claimed, and VMs with their NICs entered where they were placed.
//!
//! All of it under one lock of the state, so that nothing is half-made. Must not know how QEMU is started.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::language::field::VmConfig;
use crate::language::range;
use crate::name::{Namespace, VlanTag, VmName};

use super::queue::{QueueError, Queued, Running};
use super::vm::{Turn, Vm};
use super::{Engine, EngineError, NamespaceState, State};

/// VMs in one launch.
const LAUNCH_LIMIT: u64 = 100_000;

/// VMs that have been entered as building, each with its first turn.
pub(super) struct Launch {
    pub(super) vms: Vec<(Arc<Vm>, Turn)>,
    pub(super) running: Arc<Running>,
}

impl State {
    /// The names that a launch means, checked with its UUID against what is launched and what is queued.
    pub(super) fn claim(
        &self,
        namespace: &Namespace,
        names: &str,
        config: &VmConfig,
    ) -> Result<Vec<VmName>, EngineError> {
        let empty = NamespaceState::default();
        let entry = self.namespaces.get(namespace).unwrap_or(&empty);
        let queued: HashSet<&VmName> = entry.scheduling.names().collect();
        let names: Vec<VmName> = match names.parse::<i64>() {
            Ok(count) if count <= 0 => return Err(EngineError::LaunchCount),
            Ok(count) if count.unsigned_abs() > LAUNCH_LIMIT => {
                return Err(EngineError::LaunchLimit { count: count.unsigned_abs(), limit: LAUNCH_LIMIT });
            }
            Ok(count) => (0u64..)
                .map(|n| VmName::new(&format!("vm-{n}")).expect("vm-N is a VM name"))
                .filter(|name| !entry.names.contains_key(name) && !queued.contains(name))
                .take(usize::try_from(count).expect("below the limit"))
                .collect(),
            Err(_) => {
                let mut seen = HashSet::new();
                let mut list = Vec::new();
                for name in range::expand(names)? {
                    if !seen.insert(name.clone()) {
                        return Err(EngineError::LaunchTwice { name });
                    }
                    list.push(VmName::new(&name)?);
                }
                list
            }
        };
        if names.is_empty() {
            return Err(EngineError::LaunchNothing);
        }
        if let Some(name) = names.iter().find(|name| queued.contains(*name)) {
            return Err(QueueError::NameQueued { name: name.clone() }.into());
        }
        self.free(namespace, &names, config)?;
        let uuid = config.text("uuid");
        if !uuid.is_empty() {
            self.uuid_queued(&uuid)?;
        }
        Ok(names)
    }

    /// Are the names and the UUID of a launch free of launched VMs?
    fn free(&self, namespace: &Namespace, names: &[VmName], config: &VmConfig) -> Result<(), EngineError> {
        if let Some(entry) = self.namespaces.get(namespace)
            && let Some(name) = names.iter().find(|name| entry.names.contains_key(*name))
        {
            return Err(EngineError::VmExists { name: name.to_string() });
        }
        let uuid = config.text("uuid");
        if !uuid.is_empty() {
            if names.len() > 1 {
                return Err(EngineError::UuidShared { uuid, count: names.len() });
            }
            if self.namespaces.values().flat_map(|n| n.vms.values()).any(|vm| vm.uuid.to_string() == uuid) {
                return Err(EngineError::UuidExists { uuid });
            }
        }
        Ok(())
    }

    /// Place VMs and enter them as building. On failure nothing has changed.
    pub(super) fn enter_launch(
        &mut self,
        engine: &Engine,
        namespace: &Namespace,
        launch: &[Queued],
        planned: Option<&BTreeMap<VmName, String>>,
        mut taken: BTreeSet<VlanTag>,
    ) -> Result<Launch, EngineError> {
        for queued in launch {
            self.free(namespace, &queued.names, &queued.config)?;
        }
        let mut hosts: Vec<String> =
            self.place(namespace, launch, planned, engine.host())?.into_iter().map(|(_, host)| host).collect();
        let total = hosts.len();
        hosts.sort_unstable();
        hosts.dedup();
        taken.extend(self.tags_in_use());
        let mut macs = self.macs();
        let before = (self.vlans.clone(), self.next_vm, self.next_tap);
        let mut vms = Vec::new();
        for (name, config) in launch.iter().flat_map(|q| q.names.iter().map(move |name| (name, &q.config))) {
            let nics = match self.nics(namespace, name, config, &taken, &mut macs) {
                Ok(nics) => nics,
                Err(error) => {
                    (self.vlans, self.next_vm, self.next_tap) = before;
                    return Err(error);
                }
            };
            let id = self.next_vm;
            self.next_vm += 1;
            let uuid = uuid::Uuid::try_parse(&config.text("uuid")).unwrap_or_else(|_| uuid::Uuid::new_v4());
            let base = &engine.options.base;
            let vm = Vm::new(id, name.clone(), namespace.clone(), uuid, config.clone(), nics, base);
            let turn = vm.first_turn();
            vms.push((Arc::new(vm), turn));
        }
        let entry = self.namespaces.entry(namespace.clone()).or_default();
        for (vm, _) in &vms {
            entry.names.insert(vm.name.clone(), vm.id);
            entry.vms.insert(vm.id, Arc::clone(vm));
        }
        let running = Arc::new(entry.scheduling.begin(total, hosts.len()));
        Ok(Launch { vms, running })
    }
}
