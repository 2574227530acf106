//! What the media of VMs have in common: images that must be readable before QEMU is told, and VMs that have no QEMU.

use std::path::PathBuf;

use super::kvm::{image_path, is_protocol};
use super::vm::Vm;

/// Why a medium was refused.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// An image that cannot be read.
    #[error("cannot read the image {}", path.display())]
    Image {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A folder.
    #[error("{} is a folder, expected an image", path.display())]
    Folder {
        /// Its path.
        path: PathBuf,
    },
    /// No path.
    #[error("expected the path of an image, found an empty word")]
    NoPath,
    /// A VM without a QEMU.
    #[error("vm {vm} is {state}, so its media cannot be changed: `vm start {vm}` first")]
    Ended {
        /// The VM.
        vm: String,
        /// Its state.
        state: &'static str,
    },
}

/// That a VM has no QEMU.
pub(super) fn ended(vm: &Vm) -> Option<MediaError> {
    let state = vm.live().state;
    (!state.has_process()).then(|| MediaError::Ended { vm: vm.name.to_string(), state: state.word() })
}

/// Refuse an image that QEMU could not open; what it reaches by a protocol is for QEMU to find out.
pub(super) fn check_image(files: &str, image: &str) -> Result<(), MediaError> {
    if image.is_empty() {
        return Err(MediaError::NoPath);
    }
    if is_protocol(image) {
        return Ok(());
    }
    let path = PathBuf::from(image_path(files, image));
    match std::fs::File::open(&path).and_then(|file| file.metadata()) {
        Ok(found) if found.is_dir() => Err(MediaError::Folder { path }),
        Ok(_) => Ok(()),
        Err(source) => Err(MediaError::Image { path, source }),
    }
}
