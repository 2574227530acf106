//! The CD-ROM drive of a VM: another image in it, or none, while QEMU runs.
//!
//! A VM's record says what QEMU was told before it is told, so that a daemon that was killed meanwhile asks the drive.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::name::Namespace;
use crate::qmp::QmpError;

use super::kvm::{image_path, is_protocol};
use super::lifecycle::{execute, execute_with};
use super::media::{check_image, ended};
use super::vm::Vm;
use super::{Engine, EngineError};

/// Why the medium of a drive could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum CdromError {
    /// A machine without such a drive.
    #[error(
        "{vm} has no CD-ROM drive; its machine, `vm config qemu-append` or a third IDE disk left it out, and only a launch \
         can add one"
    )]
    NoDrive {
        /// The VM.
        vm: String,
    },
    /// The guest keeps the tray closed.
    #[error(
        "{vm}: its guest has locked the CD-ROM drive and was asked to open it: repeat the command when it has (a mounted disc \
         is unmounted there first), or add `force`"
    )]
    Locked {
        /// The VM.
        vm: String,
    },
}

/// A CD-ROM drive, as QEMU tells of it.
struct Drive {
    /// QEMU's path of the device.
    device: String,
    /// The file of the medium; None while it is empty.
    holds: Option<String>,
}

impl Engine {
    /// Put an image into the drives of VMs, or empty them. What is there goes first. With `force` also where the guest has
    /// locked the tray.
    ///
    /// VMs that have ended are an error where they are named; with the wildcard, and for an eject those without a drive,
    /// they are left out.
    pub async fn change_cdrom(
        self: &Arc<Self>,
        namespace: &Namespace,
        target: &str,
        image: Option<&str>,
        force: bool,
    ) -> Result<(), EngineError> {
        let targets = self.targets(namespace, target)?;
        let files = self.options.base.join("files").to_string_lossy().into_owned();
        if let Some(image) = image {
            check_image(&files, image)?;
        }
        let wildcard = targets.wildcard;
        if !wildcard {
            for vm in &targets.vms {
                ended(vm).map_or(Ok(()), Err)?;
            }
        }
        let (image, files) = (image.unwrap_or_default().to_owned(), Arc::new(files));
        self.each(targets, "changed", move |_, vm| {
            let (image, files) = (image.clone(), Arc::clone(&files));
            async move {
                let _turn = vm.turn().await?;
                match ended(&vm) {
                    Some(_) if wildcard => return Ok(()),
                    Some(error) => return Err(error.into()),
                    None => {}
                }
                match change(&vm, &files, &image, force).await {
                    Err(EngineError::Cdrom(CdromError::NoDrive { .. })) if wildcard && image.is_empty() => Ok(()),
                    other => other,
                }
            }
        })
        .await
    }
}

/// The drive of a VM: the one with the medium that it is known to hold, else the first.
async fn drive(vm: &Vm, files: &str) -> Result<Drive, EngineError> {
    let blocks = execute(vm, "query-block").await?;
    let medium = vm.live().cdrom.clone();
    let known: Vec<String> =
        [Some(medium.image), medium.next].into_iter().flatten().map(|image| image_path(files, &image)).collect();
    let mut drives = blocks.as_array().into_iter().flatten().filter_map(read_drive);
    let first = drives.next().ok_or_else(|| CdromError::NoDrive { vm: vm.name.to_string() })?;
    let holds_it = |drive: &Drive| drive.holds.as_ref().is_some_and(|file| known.contains(file));
    if holds_it(&first) {
        return Ok(first);
    }
    Ok(drives.find(holds_it).unwrap_or(first))
}

/// A drive, if it is one: of all that QEMU has, only these have a tray.
fn read_drive(block: &Value) -> Option<Drive> {
    block.get("tray_open")?;
    let holds = block.pointer("/inserted/file").and_then(Value::as_str).map(str::to_owned);
    Some(Drive { device: block.get("qdev")?.as_str()?.to_owned(), holds })
}

async fn change(vm: &Vm, files: &str, image: &str, force: bool) -> Result<(), EngineError> {
    let drive = drive(vm, files).await?;
    settle(vm, &drive, files);
    if image.is_empty() && drive.holds.is_none() {
        vm.live().cdrom.image.clear();
        return vm.save();
    }
    vm.live().cdrom.next = Some(image.to_owned());
    if let Err(error) = vm.save() {
        vm.live().cdrom.next = None;
        return Err(error);
    }
    let mut arguments = json!({ "id": drive.device });
    if force {
        arguments["force"] = json!(true);
    }
    let command = if image.is_empty() {
        "eject"
    } else {
        arguments["filename"] = json!(image_path(files, image));
        "blockdev-change-medium"
    };
    match execute_with(vm, command, arguments).await {
        Ok(_) => {
            {
                let mut live = vm.live();
                live.cdrom.image = image.to_owned();
                live.cdrom.next = None;
            }
            vm.save()
        }
        Err(EngineError::Qmp { source: QmpError::Command { class, desc }, name }) => {
            // QEMU refused, and has left the drive as it was.
            vm.live().cdrom.next = None;
            vm.save()?;
            if desc.contains("is locked") {
                return Err(CdromError::Locked { vm: name }.into());
            }
            Err(EngineError::Qmp { name, source: QmpError::Command { class, desc } })
        }
        // It may have been carried out: the next one who looks into the drive finds out.
        Err(error) => Err(error),
    }
}

/// Enter what a change of unknown outcome came to.
fn settle(vm: &Vm, drive: &Drive, files: &str) {
    let mut live = vm.live();
    let Some(next) = live.cdrom.next.take() else { return };
    let expected = (!next.is_empty()).then(|| image_path(files, &next));
    if drive.holds == expected || (drive.holds.is_some() && is_protocol(&next)) {
        live.cdrom.image = next;
    }
}

/// Ask the drive of an adopted VM, whose change was under way when the daemon ended. What it holds stays unknown if it
/// does not answer.
pub(super) async fn recover(vm: &Vm, files: &str) {
    if vm.live().cdrom.next.is_none() {
        return;
    }
    match drive(vm, files).await {
        Ok(drive) => settle(vm, &drive, files),
        Err(error) => tracing::warn!(vm = %vm.name, error = %error.chain(), "what its CD-ROM drive holds is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_tray_is_a_drive() {
        let floppy = json!({ "device": "floppy0", "removable": true, "qdev": "/machine/unattached/device[16]" });
        assert!(read_drive(&floppy).is_none());
        let empty = json!({ "device": "ide1-cd0", "tray_open": false, "qdev": "/machine/unattached/device[22]" });
        assert_eq!(read_drive(&empty).map(|drive| drive.holds), Some(None));
        let full = json!({ "tray_open": true, "qdev": "cd", "inserted": { "file": "/a.iso" } });
        let drive = read_drive(&full).expect("it has a tray");
        assert_eq!((drive.device.as_str(), drive.holds.as_deref()), ("cd", Some("/a.iso")));
    }
}
