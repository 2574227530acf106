//! The network interfaces that have a device, in an order that does not depend on drivers or on names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A network interface with a device behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The kernel's name for it, such as `eth0`.
    pub name: String,
    /// The kernel's number for it.
    pub index: u32,
    /// Its MAC address as the kernel prints it.
    pub mac: String,
    /// The folder of its device under `/sys/devices`.
    pub device: PathBuf,
}

/// The NICs under a `class/net` folder of sysfs, in the order of [`order`]. Interfaces without a device (`lo`, bridges) are
/// left out.
pub fn list(class_net: &Path) -> io::Result<Vec<Nic>> {
    let mut nics = Vec::new();
    for entry in fs::read_dir(class_net)? {
        let folder = entry?.path();
        let Ok(device) = fs::canonicalize(folder.join("device")) else { continue };
        let read = |name: &str| fs::read_to_string(folder.join(name)).map(|text| text.trim().to_owned());
        let index = read("ifindex")?.parse().map_err(io::Error::other)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        nics.push(Nic { name, index, mac: read("address")?, device });
    }
    order(&mut nics);
    Ok(nics)
}

/// Sort NICs by the path of their device, component by component.
///
/// The path leads from the root of the PCI tree to the device: `/sys/devices/pci0000:00/0000:00:03.0` for an e1000,
/// `/sys/devices/pci0000:00/0000:00:04.0/virtio1` for a virtio NIC, `.../0000:00:05.0/0000:01:02.0` for one behind a
/// bridge. PCI addresses have a fixed width in hexadecimal, so the order of the text is the order of the addresses, and
/// what is behind a bridge comes at the place of the bridge.
pub fn order(nics: &mut [Nic]) {
    nics.sort_by(|a, b| a.device.cmp(&b.device));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_the_pci_addresses_not_of_names_or_drivers() {
        let nic = |name: &str, device: &str| Nic {
            name: name.to_owned(),
            index: 1,
            mac: String::new(),
            device: Path::new("/sys/devices/pci0000:00").join(device),
        };
        let mut nics = vec![
            nic("eth0", "0000:00:0a.0/virtio0"),
            nic("eth1", "0000:00:05.0/0000:01:02.0"),
            nic("eth2", "0000:00:03.0/virtio10"),
            nic("eth3", "0000:00:04.0"),
            nic("eth4", "0000:00:05.0/0000:01:01.0/virtio3"),
        ];
        order(&mut nics);
        let names: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).collect();
        assert_eq!(names, ["eth2", "eth3", "eth4", "eth1", "eth0"]);
    }

    #[test]
    fn interfaces_without_a_device_are_left_out() {
        // Every network namespace has `lo`, which has no device.
        let nics = list(Path::new("/sys/class/net")).unwrap();
        assert!(nics.iter().all(|nic| nic.name != "lo"));
    }
}
