//! Tags of VMs.

use std::collections::BTreeMap;

use crate::name::{Namespace, VmName};

use super::{Engine, EngineError};

/// A VM's name and its tags.
pub type VmTags = (VmName, BTreeMap<String, String>);

impl Engine {
    /// The tags of the VMs that a target names.
    pub fn tags(&self, namespace: &Namespace, target: &str) -> Result<Vec<VmTags>, EngineError> {
        Ok(self.targets(namespace, target)?.vms.iter().map(|vm| (vm.name.clone(), vm.live().tags.clone())).collect())
    }

    /// Set a tag on VMs.
    pub fn set_tag(&self, namespace: &Namespace, target: &str, key: &str, value: &str) -> Result<(), EngineError> {
        self.change_tags(namespace, target, |tags| {
            tags.insert(key.to_owned(), value.to_owned());
        })
    }

    /// Remove a tag from VMs, or all their tags.
    pub fn clear_tag(&self, namespace: &Namespace, target: &str, key: Option<&str>) -> Result<(), EngineError> {
        self.change_tags(namespace, target, |tags| match key {
            Some(key) => {
                tags.remove(key);
            }
            None => tags.clear(),
        })
    }

    fn change_tags(
        &self,
        namespace: &Namespace,
        target: &str,
        change: impl Fn(&mut BTreeMap<String, String>),
    ) -> Result<(), EngineError> {
        for vm in self.targets(namespace, target)?.vms {
            change(&mut vm.live().tags);
            vm.save()?;
        }
        Ok(())
    }
}
