//! A file of a capture that is being written: whole records only, whatever happens.
//!
//! The file is locked (flock(2)), so that no second capture writes it, of this engine or another. Its length is known: what
//! somebody else has done to it is found before the next record goes in.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use crate::host::pcap::{Foreign, file_header, intact};
use crate::host::{SniffError, netflow};

/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Frames ([`pcap`](crate::host::pcap)) of at most so many bytes.
    Frames {
        /// How many.
        snaplen: u32,
    },
    /// Datagrams of flow records ([`netflow`]), one behind the other.
    Datagrams,
    /// Lines of text.
    Lines,
    /// Members of a gzip file.
    Members,
}

impl Content {
    fn header(self) -> Vec<u8> {
        match self {
            Content::Frames { snaplen } => file_header(snaplen).to_vec(),
            // An empty file is none for gzip.
            Content::Members => EMPTY_MEMBER.to_vec(),
            Content::Datagrams | Content::Lines => Vec::new(),
        }
    }

    /// How much of a file are whole records.
    fn intact(self, file: &File, size: u64) -> io::Result<Result<u64, Foreign>> {
        let mut reader = BufReader::with_capacity(1 << 18, file);
        match self {
            Content::Frames { snaplen } => intact(&mut reader, size, snaplen),
            Content::Datagrams => Ok(netflow::intact(&mut reader, size)?.ok_or(Foreign::Header)),
            Content::Lines => {
                let mut last = [0; MAX_LINE];
                let begin = size.saturating_sub(MAX_LINE as u64);
                let last = &mut last[..(size - begin) as usize];
                file.read_exact_at(last, begin)?;
                let end = last.iter().rposition(|byte| *byte == b'\n');
                Ok(match end {
                    Some(end) => Ok(begin + end as u64 + 1),
                    None if size < MAX_LINE as u64 => Ok(0),
                    None => Err(Foreign::Header),
                })
            }
            Content::Members => members(&mut reader),
        }
    }
}

/// How much of a gzip file are whole members. Only unpacking them tells.
fn members(file: &mut (impl BufRead + Seek)) -> io::Result<Result<u64, Foreign>> {
    let mut at = 0;
    loop {
        let head = file.fill_buf()?;
        let begun = head.len().min(MEMBER.len());
        if begun == 0 {
            return Ok(Ok(at));
        }
        if head[..begun] != MEMBER[..begun] {
            return Ok(Err(if at == 0 { Foreign::Header } else { Foreign::Record { at } }));
        }
        match io::copy(&mut flate2::bufread::GzDecoder::new(&mut *file), &mut io::sink()) {
            Ok(_) => at = file.stream_position()?,
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::UnexpectedEof => Ok(Ok(at)),
                    io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Ok(Err(Foreign::Record { at })),
                    _ => Err(error),
                };
            }
        }
    }
}

/// How each member begins (RFC 1952): two bytes of magic and the method, deflate.
const MEMBER: [u8; 3] = [0x1f, 0x8b, 8];

/// A member of nothing: no flags, no time, no system, an empty block, a sum and a length of 0.
const EMPTY_MEMBER: [u8; 20] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// No line of flow records is as long.
const MAX_LINE: usize = 512;

/// A file that ends with a whole record. The lock goes with it.
#[derive(Debug)]
pub struct CaptureFile {
    file: Flock<File>,
    length: u64,
}

impl CaptureFile {
    /// Open a file and lock it. With `resume`, what is in it stays up to its last whole record; otherwise it is emptied.
    pub fn open(path: &Path, content: Content, resume: bool) -> Result<Self, SniffError> {
        let refused = |action| move |source| SniffError::File { action, path: path.to_owned(), source };
        // Whatever is at that place, opening it neither hangs nor follows a link.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let open = |new: bool| {
            OpenOptions::new().read(true).write(true).create_new(new).mode(0o600).custom_flags(flags).open(path)
        };
        let (file, new) = match open(true) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (open(false).map_err(refused("open"))?, false)
            }
            file => (file.map_err(refused("create"))?, true),
        };
        if !file.metadata().map_err(refused("look at"))?.is_file() {
            return Err(SniffError::NoFile { path: path.to_owned() });
        }
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => SniffError::InUse { path: path.to_owned() },
            errno => refused("lock")(errno.into()),
        })?;
        let mut opened = Self { file, length: 0 };
        let begun = opened.begin(path, content, resume && !new);
        if begun.is_err() && new {
            // Best effort: the first error is what the caller needs to know.
            let _ = std::fs::remove_file(path);
        }
        begun.map(|()| opened)
    }

    fn begin(&mut self, path: &Path, content: Content, resume: bool) -> Result<(), SniffError> {
        let refused = |action| move |source| SniffError::File { action, path: path.to_owned(), source };
        if resume {
            let size = self.file.metadata().map_err(refused("look at"))?.len();
            let whole = content
                .intact(&self.file, size)
                .map_err(refused("read"))?
                .map_err(|source| SniffError::Foreign { path: path.to_owned(), source })?;
            self.file.set_len(whole).map_err(refused("cut the torn end off"))?;
            self.length = whole;
        } else {
            self.file.set_len(0).map_err(refused("empty"))?;
        }
        self.file.rewind().map_err(refused("rewind"))?;
        let header = content.header();
        if self.length == 0 && !header.is_empty() {
            self.append(&header, &[header.len()]).map_err(|(_, source)| refused("write")(source))?;
        }
        Ok(())
    }

    /// Append records, all or as many as there is room for. `ends` is where each of them ends. On failure nothing of a
    /// record that is not whole is left, and the error comes with how many are in.
    pub fn append(&mut self, records: &[u8], ends: &[usize]) -> Result<(), (usize, io::Error)> {
        self.untouched().map_err(|error| (0, error))?;
        let mut written = 0;
        let error = loop {
            if written == records.len() {
                self.length += records.len() as u64;
                return Ok(());
            }
            match self.file.write_at(&records[written..], self.length + written as u64) {
                Ok(0) => break io::Error::from(io::ErrorKind::WriteZero),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        let whole = ends.partition_point(|end| *end <= written);
        self.length += whole.checked_sub(1).map_or(0, |last| ends[last] as u64);
        match self.file.set_len(self.length) {
            Ok(()) => Err((whole, error)),
            Err(cut) => Err((whole, io::Error::new(cut.kind(), format!("{error}; the torn end stays: {cut}")))),
        }
    }

    /// An error if the file was deleted, or is not as long as it was left.
    pub fn untouched(&self) -> io::Result<()> {
        let meta = self.file.metadata()?;
        if meta.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was deleted"));
        }
        if meta.len() != self.length {
            return Err(io::Error::other("somebody else has changed the file"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host::pcap::{FILE_HEADER, push_record};

    const FRAMES: Content = Content::Frames { snaplen: 100 };
    const OTHER: Content = Content::Frames { snaplen: 99 };

    fn records(count: usize) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for number in 0..count {
            push_record(&mut bytes, Duration::from_secs(number as u64), &[7; 60], 60, 100);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_torn_end_is_cut_off_and_the_file_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcap");
        let (bytes, ends) = records(3);
        let mut file = CaptureFile::open(&path, FRAMES, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        file.append(&bytes, &ends).unwrap();
        assert!(matches!(CaptureFile::open(&path, FRAMES, false), Err(SniffError::InUse { .. })));
        drop(file);
        let whole = FILE_HEADER + ends[1];
        File::options().write(true).open(&path).unwrap().set_len(whole as u64 + 20).unwrap();
        let mut file = CaptureFile::open(&path, FRAMES, true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), whole as u64);
        file.append(&bytes, &ends).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written[whole..], bytes);
        drop(file);
        assert!(matches!(CaptureFile::open(&path, OTHER, true), Err(SniffError::Foreign { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), written, "what cannot be gone on with stays as it is");
        drop(CaptureFile::open(&path, OTHER, false).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), file_header(99));
    }

    /// Wherever a packed file was cut, what was packed before is read again, and what comes then too.
    #[test]
    fn a_torn_member_is_cut_off() {
        use std::io::{Read, Write};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gz");
        let member = |text: &str| {
            let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            member.write_all(text.as_bytes()).unwrap();
            member.finish().unwrap()
        };
        let [first, second, third] = ["one ", "two ", "three"].map(member);
        drop(CaptureFile::open(&path, Content::Members, false).unwrap());
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "", "it is a packed file from the beginning");
        let whole = [&first[..], &second].concat();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut file = CaptureFile::open(&path, Content::Members, true).unwrap();
            file.append(&third, &[third.len()]).unwrap();
            let mut text = String::new();
            flate2::read::MultiGzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
            let expected = match cut {
                cut if cut == whole.len() => "one two three",
                cut if cut >= first.len() => "one three",
                _ => "three",
            };
            assert_eq!(text, expected, "cut at {cut}");
        }
        let damaged = [&first[..first.len() - 6], &[0; 20]].concat();
        for (bytes, place) in
            [(b"text".to_vec(), None), ([&first[..], b"text"].concat(), Some(first.len())), (damaged, Some(0))]
        {
            std::fs::write(&path, &bytes).unwrap();
            let error = CaptureFile::open(&path, Content::Members, true).unwrap_err();
            let expected = place.map_or(Foreign::Header, |at| Foreign::Record { at: at as u64 });
            assert!(matches!(&error, SniffError::Foreign { source, .. } if *source == expected), "{error:?}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "what cannot be gone on with stays as it is");
        }
    }

    #[test]
    fn a_file_that_somebody_touches_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcap");
        let (bytes, ends) = records(1);
        let mut file = CaptureFile::open(&path, FRAMES, false).unwrap();
        std::fs::write(&path, "").unwrap();
        let (whole, error) = file.append(&bytes, &ends).unwrap_err();
        assert_eq!((whole, error.to_string()), (0, "somebody else has changed the file".to_owned()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(file.append(&bytes, &ends).unwrap_err().1.to_string(), "the file was deleted");
    }

    #[test]
    fn only_regular_files_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &Path| CaptureFile::open(path, FRAMES, false).err().unwrap().to_string();
        assert!(open(folder.path()).starts_with("cannot open "));
        assert!(open(&folder.path().join("no/such")).starts_with("cannot create "));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(open(&link).starts_with("cannot open "));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&pipe).ends_with("not a regular file"));
    }
}
