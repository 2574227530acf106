//! `vm hotplug`

use crate::engine::{EngineError, UsbRequest, UsbVersion};
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["name", "id", "file", "version"];

async fn hotplug(call: Call) -> Result<Answer, EngineError> {
    let engine = call.engine();
    if call.args.flag("add") {
        let version = call.args.str("version").map_or(Ok(UsbVersion::High), str::parse)?;
        let file = call.required("filename").to_owned();
        let serial = call.args.str("serial").unwrap_or_default().to_owned();
        let request = UsbRequest { file, version, serial };
        engine.add_usb_disk(&call.namespace, call.required("vm target"), request).await?;
        return Ok(Answer::done());
    }
    if call.args.flag("remove") {
        let id = call.required("disk id or all");
        engine.remove_usb_disk(&call.namespace, call.required("vm target"), id).await?;
        return Ok(Answer::done());
    }
    let disks = engine.usb_disks(&call.namespace).into_iter();
    let row = disks.map(|(vm, disk)| vec![vm.to_string(), disk.id.to_string(), disk.file, disk.version.text().into()]);
    Ok(Answer::table(COLUMNS, row.collect()))
}

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm hotplug",
            &[
                "vm hotplug",
                "vm hotplug <add,> <vm target> <filename> [version]",
                "vm hotplug <add,> <vm target> <filename> serial <serial> [version]",
                "vm hotplug <remove,> <vm target> <disk id or all>",
            ],
            "add and remove USB disks",
            "Adds USB disks to running, paused or building VMs, removes them, or lists them. A disk gets the lowest free number \
             of its VM as its id. The version is that of the USB bus, 1.1 or 2.0 (the default); there is room for 8 disks on \
             the first and 11 on the second. A relative path is relative to the files folder; the image can have any format that \
             QEMU reads. What guests write is discarded where `vm config snapshot` is true, as with their other disks.\n\n\
             The VM needs a USB controller (`vm config usb-use-xhci`, on by default). Disks stay with a VM that ends and is \
             started again. VMs that have ended are an error where they are named; `all` leaves them out.\n\n\
             \x20   vm hotplug add web0 data.img\n    vm hotplug add web0 data.img serial S1 1.1\n    vm hotplug remove web0 0",
        )
        .columns(COLUMNS)
        .complete("filename", Completion::Path),
        hotplug,
    )]
}
