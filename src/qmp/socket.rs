//! Connecting to a unix socket of QEMU's whose path may be too long for a socket address (unix(7): 108 bytes with the NUL).

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use tokio::net::UnixStream;

const ADDRESS_LIMIT: usize = 107;

/// Connect to a socket that QEMU listens on, QMP or another. The path may be longer than a socket address holds.
pub async fn connect(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().as_bytes().len() <= ADDRESS_LIMIT {
        return UnixStream::connect(path).await;
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    };
    let folder = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    // `folder` stays open until the connection is made.
    UnixStream::connect(short).await
}
