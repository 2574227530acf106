//! USB disks that VMs get and lose while they run.
//!
//! A VM's record has a disk before QEMU is told of it and until QEMU has let go of it, so that after the daemon was killed
//! nothing is in QEMU that the record does not have; what only the record has is dropped then.
//!
//! Disks of USB 2.0 are on ports of the xHCI controller that have no SuperSpeed, those of 1.1 behind a full-speed hub.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::name::{Namespace, VmName};

use super::kvm::{escape, image_path};
use super::lifecycle::execute_with;
use super::media::{check_image, ended};
use super::vm::Vm;
use super::{Engine, EngineError};

/// QEMU's name of the hub.
pub(super) const HUB: &str = "usbhub";
/// The port of the hub.
pub(super) const HUB_PORT: &str = "4";
/// How many ports of USB 2.0 the controller has; the first four of them are SuperSpeed ports too.
pub(super) const PORTS: u32 = 15;
/// The ports of a hub of QEMU's.
const HUB_PORTS: u32 = 8;

/// How long QEMU may take to let go of a disk.
const UNPLUG: Duration = Duration::from_secs(10);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(20);

/// A version of USB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UsbVersion {
    /// 12 Mbit/s.
    #[serde(rename = "1.1")]
    Full,
    /// 480 Mbit/s.
    #[serde(rename = "2.0")]
    High,
}

impl UsbVersion {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Full => "1.1",
            Self::High => "2.0",
        }
    }

    /// The ports for its disks.
    fn ports(self) -> Vec<String> {
        match self {
            Self::Full => (1..=HUB_PORTS).map(|port| format!("{HUB_PORT}.{port}")).collect(),
            Self::High => (5..=PORTS).map(|port| port.to_string()).collect(),
        }
    }
}

/// A USB disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsbDisk {
    /// Its number in its VM.
    pub id: u32,
    /// The image, as it was given.
    pub file: String,
    /// The bus that it is on.
    pub version: UsbVersion,
    /// Its serial number; empty for QEMU's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// The port that it is on.
    pub port: String,
    /// Counts the disks that the VM was ever given: QEMU keeps the name of one that is gone for a while.
    pub made: u32,
}

impl UsbDisk {
    /// QEMU's name of the disk and of its device.
    pub fn name(&self) -> String {
        format!("usb{}", self.made)
    }

    /// What QEMU opens, as one of its options.
    pub fn drive(&self, files: &str, snapshot: bool) -> String {
        let (name, snapshot) = (self.name(), if snapshot { ",snapshot=on" } else { "" });
        format!("if=none,id={name},media=disk{snapshot},file={}", escape(&image_path(files, &self.file)))
    }
}

/// A disk that is wanted.
#[derive(Debug, Clone)]
pub struct UsbRequest {
    /// The image.
    pub file: String,
    /// The bus.
    pub version: UsbVersion,
    /// The serial number; empty for QEMU's.
    pub serial: String,
}

/// Why a USB disk could not be added or removed.
#[derive(Debug, thiserror::Error)]
pub enum UsbError {
    /// A version of USB that is none.
    #[error("invalid USB version `{text}`, expected 1.1 or 2.0")]
    Version {
        /// As given.
        text: String,
    },
    /// A VM without a controller.
    #[error("{vm} has no USB controller: it was launched with `vm config usb-use-xhci false`")]
    NoController {
        /// The VM.
        vm: String,
    },
    /// No port is free.
    #[error("{vm} has {count} disks on USB {version}, and no port for more")]
    Full {
        /// The VM.
        vm: String,
        /// How many there are.
        count: usize,
        /// The bus.
        version: &'static str,
    },
    /// No such disk.
    #[error("no USB disk {id} of {vm}: `vm hotplug` lists them")]
    NoDisk {
        /// The VM.
        vm: String,
        /// As given.
        id: String,
    },
    /// QEMU has not opened the image.
    #[error("{vm}: {message}")]
    Open {
        /// The VM.
        vm: String,
        /// QEMU's words.
        message: String,
    },
    /// QEMU has not let go.
    #[error("QEMU has not let go of USB disk {id} of {vm} within {} s; it is still there", UNPLUG.as_secs())]
    Busy {
        /// The VM.
        vm: String,
        /// The disk.
        id: u32,
    },
}

impl std::str::FromStr for UsbVersion {
    type Err = UsbError;

    fn from_str(text: &str) -> Result<Self, UsbError> {
        match text {
            "1.1" => Ok(Self::Full),
            "2.0" => Ok(Self::High),
            other => Err(UsbError::Version { text: other.to_owned() }),
        }
    }
}

impl Engine {
    /// The USB disks of the VMs of a namespace, by VM and number.
    pub fn usb_disks(&self, namespace: &Namespace) -> Vec<(VmName, UsbDisk)> {
        let disks = |vm: &Arc<Vm>| vm.live().usb.iter().map(|disk| (vm.name.clone(), disk.clone())).collect::<Vec<_>>();
        self.vms(namespace).iter().flat_map(disks).collect()
    }

    /// Give VMs a USB disk. VMs that have ended are an error where they are named; the wildcard leaves them out.
    pub async fn add_usb_disk(
        self: &Arc<Self>,
        namespace: &Namespace,
        target: &str,
        request: UsbRequest,
    ) -> Result<(), EngineError> {
        let files = self.options.base.join("files").to_string_lossy().into_owned();
        check_image(&files, &request.file)?;
        self.change_usb(namespace, target, move |vm| {
            let (files, request) = (files.clone(), request.clone());
            async move { add(&vm, &files, request).await }
        })
        .await
    }

    /// Take a USB disk away from VMs, or all of them (`all`).
    pub async fn remove_usb_disk(
        self: &Arc<Self>,
        namespace: &Namespace,
        target: &str,
        id: &str,
    ) -> Result<(), EngineError> {
        let wildcard = self.targets(namespace, target)?.wildcard;
        let id = id.to_owned();
        self.change_usb(namespace, target, move |vm| {
            let id = id.clone();
            async move {
                let disks = vm.live().usb.clone();
                let wanted: Vec<_> =
                    disks.into_iter().filter(|disk| id == "all" || disk.id.to_string() == id).collect();
                if wanted.is_empty() && id != "all" && !wildcard {
                    return Err(UsbError::NoDisk { vm: vm.name.to_string(), id }.into());
                }
                for disk in wanted {
                    remove(&vm, &disk).await?;
                }
                Ok(())
            }
        })
        .await
    }

    async fn change_usb<F, T>(
        self: &Arc<Self>,
        namespace: &Namespace,
        target: &str,
        change: F,
    ) -> Result<(), EngineError>
    where
        F: Fn(Arc<Vm>) -> T,
        T: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let targets = self.targets(namespace, target)?;
        let wildcard = targets.wildcard;
        if !wildcard {
            for vm in &targets.vms {
                ended(vm).map_or(Ok(()), Err)?;
            }
        }
        self.each(targets, "changed", move |_, vm| {
            let change = change(Arc::clone(&vm));
            async move {
                let _turn = vm.turn().await?;
                match ended(&vm) {
                    Some(_) if wildcard => Ok(()),
                    Some(error) => Err(error.into()),
                    None => change.await,
                }
            }
        })
        .await
    }
}

/// Run a command of QEMU's human monitor; its answer.
async fn monitor(vm: &Vm, line: String) -> Result<String, EngineError> {
    let answer = execute_with(vm, "human-monitor-command", json!({ "command-line": line })).await?;
    Ok(answer.as_str().unwrap_or_default().trim().to_owned())
}

/// A word for the human monitor.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', "\\r"))
}

async fn add(vm: &Vm, files: &str, request: UsbRequest) -> Result<(), EngineError> {
    let name = || vm.name.to_string();
    if !vm.config.bool("usb-use-xhci") {
        return Err(UsbError::NoController { vm: name() }.into());
    }
    let disk = {
        let live = vm.live();
        let UsbRequest { file, version, serial } = request;
        let used: BTreeSet<&str> = live.usb.iter().map(|disk| disk.port.as_str()).collect();
        let Some(port) = version.ports().into_iter().find(|port| !used.contains(port.as_str())) else {
            let count = live.usb.iter().filter(|disk| disk.version == version).count();
            return Err(UsbError::Full { vm: name(), count, version: version.text() }.into());
        };
        let ids: BTreeSet<u32> = live.usb.iter().map(|disk| disk.id).collect();
        let id = (0..).find(|id| !ids.contains(id)).expect("there are more numbers than ports");
        UsbDisk { id, file, version, serial, port, made: live.usb_made }
    };
    {
        let mut live = vm.live();
        live.usb_made += 1;
        live.usb.push(disk.clone());
        live.usb.sort_by_key(|disk| disk.id);
    }
    let added = match vm.save() {
        Ok(()) => plug(vm, files, &disk).await,
        Err(error) => {
            forget(vm, &disk);
            return Err(error);
        }
    };
    if let Err(error) = added {
        // The first error is what the user needs to know; a QEMU that does not answer is looked at again later.
        if unplug(vm, &disk).await.is_ok() {
            forget(vm, &disk);
            vm.save()?;
        }
        return Err(error);
    }
    Ok(())
}

async fn plug(vm: &Vm, files: &str, disk: &UsbDisk) -> Result<(), EngineError> {
    let drive = disk.drive(files, vm.config.bool("snapshot"));
    let said = monitor(vm, format!("drive_add 0 {}", quoted(&drive))).await?;
    if said != "OK" {
        return Err(UsbError::Open { vm: vm.name.to_string(), message: said }.into());
    }
    if disk.version == UsbVersion::Full && !devices(vm).await?.contains(HUB) {
        let hub = json!({ "driver": "usb-hub", "id": HUB, "bus": "xhci.0", "port": HUB_PORT });
        execute_with(vm, "device_add", hub).await?;
    }
    let name = disk.name();
    let mut device = json!({ "driver": "usb-storage", "id": name, "drive": name, "bus": "xhci.0", "port": disk.port });
    if !disk.serial.is_empty() {
        device["serial"] = json!(disk.serial);
    }
    execute_with(vm, "device_add", device).await.map(drop)
}

/// Take a disk out of QEMU, as far as it is there. The hub goes with the last one on it.
async fn unplug(vm: &Vm, disk: &UsbDisk) -> Result<(), EngineError> {
    let name = disk.name();
    if devices(vm).await?.contains(&name) {
        execute_with(vm, "device_del", json!({ "id": name })).await?;
        let gone = async {
            while devices(vm).await?.contains(&name) {
                tokio::time::sleep(POLL).await;
            }
            Ok::<(), EngineError>(())
        };
        match tokio::time::timeout(UNPLUG, gone).await {
            Ok(gone) => gone?,
            Err(_) => return Err(UsbError::Busy { vm: vm.name.to_string(), id: disk.id }.into()),
        }
    }
    // Where there is none, QEMU says so, which is as good.
    monitor(vm, format!("drive_del {name}")).await?;
    let others = vm.live().usb.iter().any(|other| other.id != disk.id && other.version == UsbVersion::Full);
    if disk.version == UsbVersion::Full && !others && devices(vm).await?.contains(HUB) {
        execute_with(vm, "device_del", json!({ "id": HUB })).await?;
    }
    Ok(())
}

async fn remove(vm: &Vm, disk: &UsbDisk) -> Result<(), EngineError> {
    unplug(vm, disk).await?;
    forget(vm, disk);
    vm.save()
}

fn forget(vm: &Vm, disk: &UsbDisk) {
    vm.live().usb.retain(|other| other.id != disk.id);
}

/// The names of the devices of a QEMU that have one.
async fn devices(vm: &Vm) -> Result<BTreeSet<String>, EngineError> {
    let list = execute_with(vm, "qom-list", json!({ "path": "/machine/peripheral" })).await?;
    let names = list.as_array().into_iter().flatten().filter_map(|entry| entry.get("name").and_then(Value::as_str));
    Ok(names.map(str::to_owned).collect())
}

/// Drop what an adopted VM's record has and its QEMU has not.
pub(super) async fn recover(vm: &Vm) {
    let disks = vm.live().usb.clone();
    if disks.is_empty() {
        return;
    }
    let settled: Result<(), EngineError> = async {
        let there = devices(vm).await?;
        for disk in disks.iter().filter(|disk| !there.contains(&disk.name())) {
            unplug(vm, disk).await?;
            forget(vm, disk);
        }
        Ok(())
    }
    .await;
    if let Err(error) = settled {
        tracing::warn!(vm = %vm.name, error = %error.chain(), "which USB disks it has is unknown");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word_and_one_option() {
        let disk = |file: &str| UsbDisk {
            id: 0,
            file: file.to_owned(),
            version: UsbVersion::High,
            serial: String::new(),
            port: "5".to_owned(),
            made: 3,
        };
        let drive = disk("a\"b\\c,snapshot=off").drive("/files", true);
        assert_eq!(drive, "if=none,id=usb3,media=disk,snapshot=on,file=/files/a\"b\\c,,snapshot=off");
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\nd\"");
    }

    #[test]
    fn ports_of_one_version_are_none_of_the_other() {
        let (full, high) = (UsbVersion::Full.ports(), UsbVersion::High.ports());
        assert_eq!((full.len(), high.len()), (8, 11));
        assert!(full.iter().all(|port| !high.contains(port)) && !high.contains(&HUB_PORT.to_owned()));
    }
}
