//! USB disks of VMs, as `vm hotplug` lists them.

use std::collections::BTreeMap;

use super::table::Table;
use super::{LiveError, LiveVm, entries};
use crate::name::Namespace;
use crate::wire::Transport;

/// A USB disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LiveUsb {
    /// Its number in its VM.
    pub id: String,
    /// Its image, as the target prints it.
    pub file: String,
    /// The version of the bus that it is on.
    pub version: String,
}

/// Whether an image of the file is the one that a target shows: a relative path stands for one in the engine's files
/// folder, which a target may show in full.
pub fn same_image(wanted: &str, found: &str) -> bool {
    let wanted = wanted.strip_prefix("file:").unwrap_or(wanted);
    let before = found.strip_suffix(wanted);
    wanted == found
        || (!wanted.starts_with('/') && before.is_some_and(|before| before.ends_with('/') && !wanted.is_empty()))
}

/// Enter the disks of VMs. A target that does not list them tells nothing of them.
pub(super) fn observe(
    transport: &mut dyn Transport,
    namespace: &Namespace,
    vms: &mut BTreeMap<String, LiveVm>,
) -> Result<(), LiveError> {
    if vms.is_empty() {
        return Ok(());
    }
    let command = format!("namespace {namespace} vm hotplug");
    let entries = match entries(transport, &command) {
        Ok(entries) => entries,
        Err(LiveError::Refused { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    for vm in vms.values_mut() {
        vm.usb = Some(Vec::new());
    }
    for entry in &entries {
        for row in Table::new(entry).rows() {
            let cell = |column| row.get(column).unwrap_or_default().to_owned();
            let Some(vm) = row.get("name").and_then(|name| vms.get_mut(name)) else { continue };
            let disk = LiveUsb { id: cell("id"), file: cell("file"), version: cell("version") };
            vm.usb.get_or_insert_default().push(disk);
        }
    }
    Ok(())
}
