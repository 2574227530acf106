//! NICs that a running QEMU gets (QMP `netdev_add`, `device_add`). They have the ids and places that the command line gives
//! them at the next start.

use serde_json::json;

use super::kvm::nic_slot;
use super::vm::Nic;
use crate::qmp::{Qmp, QmpError};

/// Give QEMU a NIC, whose tap exists. On failure it has none. With `plain_frames` its guest computes all checksums.
pub(super) async fn add(qmp: &Qmp, index: usize, nic: &Nic, plain_frames: bool) -> Result<(), QmpError> {
    let netdev = format!("net{index}");
    let mut backend = json!({
        "type": "tap", "id": netdev, "ifname": nic.tap.as_str(), "script": "no", "downscript": "no",
    });
    if plain_frames {
        backend["vnet_hdr"] = json!(false);
    }
    qmp.execute("netdev_add", backend).await?;
    let (bridge, slot) = nic_slot(index);
    let mut device = json!({
        "driver": nic.driver, "id": format!("nic{index}"), "netdev": netdev, "mac": nic.mac.to_string(),
        "bus": format!("pci.{bridge}"), "addr": format!("{slot:#x}"),
    });
    let mut added = qmp.execute("device_add", device.clone()).await;
    if let (Err(error), Some(fields)) = (&added, device.as_object_mut())
        && error.to_string().contains("not found")
    {
        // The bridge comes with the first NIC of the next start; until then QEMU finds a place.
        fields.remove("bus");
        fields.remove("addr");
        added = qmp.execute("device_add", device).await;
    }
    if added.is_err() {
        // Best effort: the first error is what the caller needs to know.
        let _ = qmp.execute("netdev_del", json!({ "id": netdev })).await;
    }
    added.map(drop)
}
