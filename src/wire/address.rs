//! Socket paths longer than a socket address holds.
//!
//! `sun_path` takes 107 bytes and a NUL (unix(7)). A longer path is reached through `/proc/self/fd/N/name`, where N is
//! an open handle to the folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest path that an address holds.
const SUN_PATH: usize = 107;

/// A path that fits into a socket address, and the handle that it needs to stay valid.
#[derive(Debug)]
pub(super) struct ShortPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl ShortPath {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= SUN_PATH {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
        let name = path.file_name().ok_or_else(|| invalid("the path names no file"))?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = nix::libc::O_PATH | nix::libc::O_DIRECTORY;
        let folder = OpenOptions::new().read(true).custom_flags(flags).open(parent)?;
        let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        if short.as_os_str().as_bytes().len() > SUN_PATH {
            return Err(invalid("the socket's file name is too long, at most 80 bytes work"));
        }
        Ok(Self { path: short, _folder: Some(folder) })
    }

    pub(super) fn as_path(&self) -> &Path {
        &self.path
    }
}
