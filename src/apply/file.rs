//! Opening megaform's own files beside a socket, whose folder may be one that others can write.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// Open a file for reading and writing, made with mode 0600 if it is not there. A link is not followed, and a file that
/// somebody else made is refused.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    check_owner(&file)?;
    Ok(file)
}

/// Open a file for reading, by the same rules; None if it is not there.
pub(super) fn open_existing(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    check_owner(&file)?;
    Ok(Some(file))
}

fn check_owner(file: &File) -> io::Result<()> {
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if data.uid() != geteuid().as_raw() && !geteuid().is_root() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("it belongs to user {}, not to you", data.uid()),
        ));
    }
    Ok(())
}
