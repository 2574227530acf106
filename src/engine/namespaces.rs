//! Namespaces, the active one, and each one's VM configuration.

use crate::language::field::VmConfig;
use crate::name::{Namespace, VlanTag};

use super::{Engine, EngineError, VlanRow, Vlans};

/// One row of `namespace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: Namespace,
    /// Its VLAN range, empty where it has none of its own.
    pub vlans: String,
    /// Is it the active one?
    pub active: bool,
}

impl Engine {
    /// The active namespace.
    pub fn active(&self) -> Namespace {
        self.state().active.clone()
    }

    /// Make a namespace active, and make it if it is not there.
    pub fn activate(&self, namespace: &Namespace) -> Result<(), EngineError> {
        {
            let mut state = self.state();
            state.namespaces.entry(namespace.clone()).or_default();
            state.active = namespace.clone();
        }
        self.save()
    }

    /// Make a namespace if it is not there.
    pub fn ensure_namespace(&self, namespace: &Namespace) -> Result<(), EngineError> {
        {
            let mut state = self.state();
            if state.namespaces.contains_key(namespace) {
                return Ok(());
            }
            state.namespaces.insert(namespace.clone(), Default::default());
        }
        self.save()
    }

    /// All namespaces, by name.
    pub fn namespaces(&self) -> Vec<NamespaceInfo> {
        let state = self.state();
        state
            .namespaces
            .keys()
            .map(|name| NamespaceInfo {
                name: name.clone(),
                vlans: state.vlans.range_text(name),
                active: *name == state.active,
            })
            .collect()
    }

    /// Destroy a namespace: drop its queue, kill and flush its VMs, end its captures, DHCP servers and gateways, delete its
    /// taps, end its pipelines and pipes, forget its VLANs and configuration. One that does not exist is fine. Goes on past
    /// errors and reports all.
    pub async fn destroy_namespace(&self, namespace: &Namespace) -> Result<(), EngineError> {
        let mut errors = Vec::new();
        self.clear_plumbing_of(namespace).await;
        let vms: Vec<_> = match self.state().namespaces.get_mut(namespace) {
            Some(entry) => {
                entry.scheduling.take();
                entry.vms.values().cloned().collect()
            }
            None => Vec::new(),
        };
        errors.extend(self.kill_all(&vms).await.err());
        errors.extend(self.flush_all(&vms).await.err());
        errors.extend(self.clear_pcap(namespace).await.err());
        errors.extend(self.clear_flows(namespace).await.err());
        errors.extend(self.kill_dnsmasq(namespace, None).await.err());
        errors.extend(self.delete_nat(namespace, None, None).await.err());
        errors.extend(self.delete_taps(namespace, None).await.err());
        {
            let mut state = self.state();
            let empty = state.namespaces.get(namespace).is_none_or(|n| n.vms.is_empty());
            if empty {
                state.namespaces.remove(namespace);
                state.vlans.remove_namespace(namespace);
            }
            if state.active == *namespace {
                state.active = Namespace::default_namespace();
            }
            let active = state.active.clone();
            state.namespaces.entry(active).or_default();
        }
        errors.extend(self.save().err());
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors)
    }

    /// Destroy every namespace.
    pub async fn destroy_all_namespaces(&self) -> Result<(), EngineError> {
        let names: Vec<_> = self.state().namespaces.keys().cloned().collect();
        let mut errors = Vec::new();
        for name in names {
            errors.extend(self.destroy_namespace(&name).await.err());
        }
        EngineError::collect(errors)
    }

    /// The configuration that the next launch of a namespace uses.
    pub fn config(&self, namespace: &Namespace) -> VmConfig {
        self.state().namespaces.get(namespace).map(|n| n.config.clone()).unwrap_or_default()
    }

    /// Change the configuration of a namespace.
    pub fn change_config(&self, namespace: &Namespace, change: impl FnOnce(&mut VmConfig)) -> Result<(), EngineError> {
        change(&mut self.state().namespaces.entry(namespace.clone()).or_default().config);
        self.save()
    }

    /// Save the configuration under a name.
    pub fn save_config(&self, namespace: &Namespace, name: &str) -> Result<(), EngineError> {
        {
            let mut state = self.state();
            let entry = state.namespaces.entry(namespace.clone()).or_default();
            entry.saved.insert(name.to_owned(), entry.config.clone());
        }
        self.save()
    }

    /// The names of saved configurations.
    pub fn saved_configs(&self, namespace: &Namespace) -> Vec<String> {
        self.state().namespaces.get(namespace).map(|n| n.saved.keys().cloned().collect()).unwrap_or_default()
    }

    /// A saved configuration.
    pub fn saved_config(&self, namespace: &Namespace, name: &str) -> Result<VmConfig, EngineError> {
        self.state()
            .namespaces
            .get(namespace)
            .and_then(|n| n.saved.get(name).cloned())
            .ok_or_else(|| EngineError::NoConfig { name: name.to_owned() })
    }

    /// Read the VLANs.
    pub fn read_vlans<T>(&self, read: impl FnOnce(&Vlans) -> T) -> T {
        read(&self.state().vlans)
    }

    /// Change the VLANs.
    pub fn vlans<T>(&self, change: impl FnOnce(&mut Vlans) -> Result<T, super::VlanError>) -> Result<T, EngineError> {
        let result = change(&mut self.state().vlans)?;
        self.save()?;
        Ok(result)
    }

    /// The VLAN aliases of a namespace.
    pub fn vlan_rows(&self, namespace: &Namespace) -> Vec<VlanRow> {
        self.state().vlans.rows(namespace)
    }

    /// A tag as tables of a namespace show it.
    pub fn show_vlan(&self, namespace: &Namespace, tag: VlanTag) -> String {
        self.state().vlans.show(namespace, tag)
    }
}
