//! `usb_disks` of VMs.

use std::collections::HashMap;

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::spec::model::UsbDisk;
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

const VERSIONS: &[&str] = &["1.1", "2.0"];

impl Decoder<'_> {
    /// What a VM or a profile gives: a list; one alone may stand without the list.
    pub(super) fn usb_disks(&mut self, node: &Node, at: At<'_>) -> Option<Vec<Spanned<UsbDisk>>> {
        let disks: Vec<Option<Spanned<UsbDisk>>> = match &node.value {
            Value::List(list) => list.iter().map(|item| self.usb_disk(item, at)).collect(),
            Value::String(_) | Value::Map(_) => vec![self.usb_disk(node, at)],
            _ => {
                self.wrong_type(node, at, "a list of USB disks", false);
                return None;
            }
        };
        let disks: Vec<Spanned<UsbDisk>> = disks.into_iter().collect::<Option<_>>()?;
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for disk in &disks {
            if let Some(first) = seen.insert(&disk.path, disk.span) {
                let message = format!("{at} has the image `{}` twice", shown(&disk.path));
                let diagnostic = Diagnostic::error("duplicate-item", disk.span, message)
                    .other(first, "first given here")
                    .hint("a VM has an image once: remove one of the two, or make a copy of the image");
                self.push(diagnostic);
                return None;
            }
        }
        Some(disks)
    }

    fn usb_disk(&mut self, node: &Node, at: At<'_>) -> Option<Spanned<UsbDisk>> {
        let mut disk = UsbDisk { path: String::new(), version: None, serial: None };
        match &node.value {
            Value::String(_) => disk.path = self.text(node, at)?,
            Value::Map(_) => {
                let owner = format!("a USB disk of {}", at.owner);
                let entries = self.section(node, &owner, &keys::names(keys::USB_DISK))?;
                self.require(&entries, keys::USB_DISK, node.span, &owner);
                let mut complete = entries.iter().any(|(key, _, _)| *key == "path");
                for (key, _, node) in entries {
                    let at = At { key, owner: &owner };
                    let before = self.diagnostics.len();
                    match key {
                        "path" => disk.path = self.text(node, at).unwrap_or_default(),
                        "version" => disk.version = self.usb_version(node, at),
                        "serial" => disk.serial = self.text(node, at).filter(|serial| !serial.is_empty()),
                        other => unreachable!("`{other}` is not in the table of USB disk keys"),
                    }
                    complete &= before == self.diagnostics.len();
                }
                if !complete {
                    return None;
                }
            }
            _ => {
                self.wrong_type(node, at, "a path, or a map such as `{ path: data.img, version: \"1.1\" }`", true);
                return None;
            }
        }
        if disk.path.is_empty() {
            let message = format!("{at} has a USB disk with an empty path");
            let hint = "give the path of the image, or remove the disk";
            self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
            return None;
        }
        disk.path = self.path(disk.path, node.span, at)?;
        Some(Spanned::new(disk, node.span))
    }

    /// A version may stand as text or as the number that it looks like.
    fn usb_version(&mut self, node: &Node, at: At<'_>) -> Option<String> {
        let written = self.written(node).into_owned();
        match &node.value {
            Value::Float(_) if VERSIONS.contains(&&*written) => Some(written),
            _ => self.one_of(node, at, VERSIONS),
        }
    }
}
