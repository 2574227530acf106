//! VM targets: a name, an id, a list with ranges, or `all`.

use std::sync::Arc;

use crate::language::range;
use crate::name::Namespace;

use super::{Engine, EngineError, Vm};

/// What a target stands for.
pub struct Targets {
    /// The VMs, by id.
    pub vms: Vec<Arc<Vm>>,
    /// Was it the wildcard?
    pub wildcard: bool,
}

impl Targets {
    /// Does the error only say that a VM was flushed meanwhile, where all were meant that there are?
    pub fn gone(&self, error: &EngineError) -> bool {
        self.wildcard && matches!(error, EngineError::VmNotFound { .. })
    }
}

impl Engine {
    /// The VMs of a namespace that a target names.
    ///
    /// As minimega 3.1.0 does: one name or id that is not there is an error; of several, those that are there are meant.
    pub fn targets(&self, namespace: &Namespace, target: &str) -> Result<Targets, EngineError> {
        let state = self.state();
        let Some(entry) = state.namespaces.get(namespace) else {
            return Err(EngineError::VmNotFound { target: target.to_owned() });
        };
        let names = range::expand(target)?;
        if names.iter().any(|n| n == "all") {
            return Ok(Targets { vms: entry.vms.values().cloned().collect(), wildcard: true });
        }
        let find = |name: &str| {
            let id = entry.names.get(name).copied().or_else(|| name.parse::<u32>().ok())?;
            entry.vms.get(&id).cloned()
        };
        let mut vms: Vec<Arc<Vm>> = names.iter().filter_map(|n| find(n)).collect();
        if vms.is_empty() && names.len() <= 1 {
            return Err(EngineError::VmNotFound { target: target.to_owned() });
        }
        vms.sort_by_key(|vm| vm.id);
        vms.dedup_by_key(|vm| vm.id);
        Ok(Targets { vms, wildcard: false })
    }

    /// One VM of a namespace, by name or id.
    pub fn vm(&self, namespace: &Namespace, name: &str) -> Result<Arc<Vm>, EngineError> {
        let state = self.state();
        state
            .namespaces
            .get(namespace)
            .and_then(|n| {
                let id = n.names.get(name).copied().or_else(|| name.parse::<u32>().ok())?;
                n.vms.get(&id).cloned()
            })
            .ok_or_else(|| EngineError::VmNotFound { target: name.to_owned() })
    }

    /// The VMs of all namespaces.
    pub fn all_vms(&self) -> Vec<Arc<Vm>> {
        self.state().namespaces.values().flat_map(|n| n.vms.values().cloned()).collect()
    }

    /// All VMs of a namespace, by id.
    pub fn vms(&self, namespace: &Namespace) -> Vec<Arc<Vm>> {
        self.state().namespaces.get(namespace).map(|n| n.vms.values().cloned().collect()).unwrap_or_default()
    }
}
