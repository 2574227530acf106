//! The file that QEMU appends to what a guest writes on a serial port, and what is kept of it.
//!
//! The beginning and the end are kept: a guest says early that it is up, and late why it is not any more. QEMU has the file
//! open for appending, so what lies between is given back to the file system as a hole, and offsets stay as they are.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

const MIB: u64 = 1 << 20;
/// How much of the beginning is kept.
const HEAD: u64 = MIB;
/// How much of the end is kept, whatever comes while it is read.
const TAIL: u64 = 4 * MIB;
/// How much of the end is kept besides, for whoever reads while it is written.
const MARGIN: u64 = MIB;
/// A file that takes less than this is left as it is.
const ENOUGH: u64 = HEAD + TAIL + 2 * MARGIN;

/// The name of the file of a port, in the VM's folder.
pub fn name(port: u64) -> String {
    format!("serial{port}.log")
}

/// What is kept of what a guest wrote.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How much it wrote, in bytes.
    pub written: u64,
    /// Everything, or the beginning where something behind it is not kept.
    pub head: Vec<u8>,
    /// The end, where something before it is not kept.
    pub tail: Option<Vec<u8>>,
}

impl Kept {
    /// How many bytes in the middle are not kept.
    pub fn dropped(&self) -> u64 {
        self.tail.as_ref().map_or(0, |tail| self.written - (self.head.len() + tail.len()) as u64)
    }

    /// Read it; None if there is no such file.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some((file, written)) = open(path)? else { return Ok(None) };
        // Alike whether or not it was trimmed already.
        if written <= HEAD + TAIL {
            return Ok(Some(Self { written, head: part(&file, 0, written)?, tail: None }));
        }
        let tail = part(&file, written - TAIL, TAIL)?;
        Ok(Some(Self { written, head: part(&file, 0, HEAD)?, tail: Some(tail) }))
    }
}

/// How much a guest wrote in bytes, and the last of it, at most `most` bytes; None if there is no such file.
pub fn last(path: &Path, most: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    let Some((file, written)) = open(path)? else { return Ok(None) };
    let length = written.min(most).min(TAIL);
    Ok(Some((written, part(&file, written - length, length)?)))
}

fn open(path: &Path) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let length = file.metadata()?.len();
            Ok(Some((file, length)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn part(file: &File, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Give back what is not kept of a file that takes too much. One that is not there takes nothing.
pub fn trim(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => return Ok(()),
    };
    // Blocks of 512 bytes, whatever those of the file system are (stat(2)).
    if metadata.len() <= ENOUGH || metadata.blocks() * 512 <= ENOUGH {
        return Ok(());
    }
    let file = File::options().write(true).open(path)?;
    let length = metadata.len() - HEAD - TAIL - MARGIN;
    let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let offsets = i64::try_from(HEAD).and_then(|at| Ok((at, i64::try_from(length)?))).map_err(io::Error::other)?;
    match fallocate(&file, how, offsets.0, offsets.1) {
        Ok(()) => Ok(()),
        Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => empty(&file),
        Err(error) => Err(error.into()),
    }
}

/// What is left to a file system without holes in the middle (NFS before 4.2): everything goes, and the length stays.
fn empty(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.set_len(0)?;
    file.set_len(length)
}

/// Remove the files of all ports in a VM's folder, so that a new run begins without.
pub fn remove_all(folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    let entries = std::fs::read_dir(folder).map_err(|error| (folder.to_owned(), error))?;
    for entry in entries {
        let path = entry.map_err(|error| (folder.to_owned(), error))?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_log) {
            std::fs::remove_file(&path).map_err(|error| (path, error))?;
        }
    }
    Ok(())
}

/// Is it the name of such a file?
pub fn is_log(name: &str) -> bool {
    let port = name.strip_prefix("serial").and_then(|rest| rest.strip_suffix(".log"));
    port.and_then(|port| port.parse::<u64>().ok()).is_some_and(|port| name == self::name(port))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A file as QEMU has it open.
    fn appended(path: &Path) -> File {
        File::options().append(true).create(true).open(path).unwrap()
    }

    fn taken(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_middle_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial0.log");
        trim(&path).unwrap();
        assert_eq!(Kept::read(&path).unwrap(), None);
        let mut guest = appended(&path);
        guest.write_all(b"begin").unwrap();
        trim(&path).unwrap();
        assert_eq!(Kept::read(&path).unwrap().unwrap().head, b"begin");
        let block = vec![b'x'; MIB as usize];
        for round in 0..40 {
            guest.write_all(&block).unwrap();
            guest.sync_all().unwrap();
            if round % 4 == 3 {
                trim(&path).unwrap();
                assert!(taken(&path) <= ENOUGH, "{} MiB after {round}", taken(&path) / MIB);
            }
        }
        guest.write_all(b"end").unwrap();
        let kept = Kept::read(&path).unwrap().unwrap();
        assert_eq!(kept.written, 40 * MIB + 8);
        assert!(kept.head.starts_with(b"beginx") && kept.head.len() as u64 == HEAD);
        let tail = kept.tail.as_ref().unwrap();
        assert!(tail.starts_with(b"x") && tail.ends_with(b"xend") && tail.len() as u64 == TAIL);
        assert!(!tail.contains(&0), "what was dropped is not in what is read");
        assert_eq!(kept.dropped(), 40 * MIB + 8 - HEAD - TAIL);
        assert_eq!(last(&path, 5).unwrap(), Some((40 * MIB + 8, b"xxend".to_vec())));
        assert_eq!(last(&path, u64::MAX).unwrap().unwrap().1.len() as u64, TAIL);
    }

    #[test]
    fn without_holes_everything_goes_and_offsets_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial0.log");
        let mut guest = appended(&path);
        guest.write_all(&vec![b'x'; 9 * MIB as usize]).unwrap();
        empty(&File::options().write(true).open(&path).unwrap()).unwrap();
        guest.write_all(b"end").unwrap();
        assert!(taken(&path) < MIB);
        let kept = Kept::read(&path).unwrap().unwrap();
        assert_eq!(kept.written, 9 * MIB + 3);
        assert!(kept.tail.unwrap().ends_with(b"\0end"));
    }

    #[test]
    fn a_new_run_begins_without_the_files_of_the_last() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["serial0.log", "serial12.log", "serial0", "serial.log", "serial00.log", "qemu.log"] {
            std::fs::write(folder.path().join(name), "old").unwrap();
        }
        remove_all(folder.path()).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["qemu.log", "serial.log", "serial0", "serial00.log"]);
        assert!(remove_all(&folder.path().join("none")).is_err());
    }
}
