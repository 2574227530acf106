//! The pcap file format (draft-ietf-opsawg-pcap): little endian, microseconds, Ethernet frames.
//!
//! Must not know where frames come from, nor files: bytes only.

use std::io::{self, Read};
use std::time::Duration;

/// The length of the file's header.
pub const FILE_HEADER: usize = 24;
/// The length of a record's header.
pub const RECORD_HEADER: usize = 16;
/// The largest snaplen: what libpcap takes at most.
pub const MAX_SNAPLEN: u32 = 262_144;

const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const LINKTYPE_ETHERNET: u32 = 1;
/// Destination and source, before the type of an Ethernet frame.
const ADDRESSES: usize = 12;

/// A VLAN tag as it stands in a frame: the protocol (0x8100) and the tag control information.
pub type Tag = [u8; 4];

/// The tag of a VLAN, priority 0.
pub fn dot1q(vlan: u16) -> Tag {
    let [high, low] = vlan.to_be_bytes();
    [0x81, 0x00, high, low]
}

/// The header of a file whose records hold at most `snaplen` bytes.
pub fn file_header(snaplen: u32) -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..6].copy_from_slice(&VERSION[0].to_le_bytes());
    header[6..8].copy_from_slice(&VERSION[1].to_le_bytes());
    // Time zone and accuracy are 0 in every file.
    header[16..20].copy_from_slice(&snaplen.to_le_bytes());
    header[20..].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    header
}

/// Append a frame with tags put in behind its addresses, outermost first.
pub fn push_tagged(out: &mut Vec<u8>, frame: &[u8], tags: &[Tag]) {
    let (addresses, rest) = frame.split_at(frame.len().min(ADDRESSES));
    out.extend_from_slice(addresses);
    if addresses.len() == ADDRESSES {
        tags.iter().for_each(|tag| out.extend_from_slice(tag));
    }
    out.extend_from_slice(rest);
}

/// Append a record: of `frame`, which was `length` bytes long on its way, at most `snaplen` bytes. `time` counts from 1970.
pub fn push_record(out: &mut Vec<u8>, time: Duration, frame: &[u8], length: usize, snaplen: u32) {
    let kept = frame.len().min(snaplen as usize);
    let begin = out.len();
    out.extend_from_slice(&[0; 8]);
    // No frame has 4 GiB.
    for number in [kept, length.max(kept)] {
        out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }
    out.extend_from_slice(&frame[..kept]);
    set_time(&mut out[begin..], time);
}

/// Set the time of a record.
pub fn set_time(record: &mut [u8], time: Duration) {
    // The format's seconds end in 2106.
    record[..4].copy_from_slice(&u32::try_from(time.as_secs()).unwrap_or(u32::MAX).to_le_bytes());
    record[4..8].copy_from_slice(&time.subsec_micros().to_le_bytes());
}

/// Why a file cannot be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// Not what this writes.
    #[error("it is no file of such a capture")]
    Header,
    /// Made with another snaplen.
    #[error("its snaplen is {found}, that of the capture is {wanted}")]
    Snaplen {
        /// That of the file.
        found: u32,
        /// That of the capture.
        wanted: u32,
    },
    /// Something between whole records.
    #[error("there is no record at byte {at}")]
    Record {
        /// The place.
        at: u64,
    },
}

/// How much of a file are whole records: what follows is one that was being written when the writer was killed. A file
/// that ends in its header has 0 bytes of use. `size` is the file's.
pub fn intact(file: &mut impl Read, size: u64, snaplen: u32) -> io::Result<Result<u64, Foreign>> {
    let mut header = [0; FILE_HEADER];
    if size < FILE_HEADER as u64 {
        let head = &mut header[..size as usize];
        file.read_exact(head)?;
        let ours = file_header(snaplen).starts_with(head);
        return Ok(if ours { Ok(0) } else { Err(Foreign::Header) });
    }
    file.read_exact(&mut header)?;
    let found = word(&header, 16);
    if header != file_header(found) {
        return Ok(Err(Foreign::Header));
    }
    if found != snaplen {
        return Ok(Err(Foreign::Snaplen { found, wanted: snaplen }));
    }
    let mut at = FILE_HEADER as u64;
    let mut header = [0; RECORD_HEADER];
    while size - at >= RECORD_HEADER as u64 {
        file.read_exact(&mut header)?;
        let (micros, kept, length) = (word(&header, 4), word(&header, 8), word(&header, 12));
        if micros >= 1_000_000 || kept > snaplen || kept > length || length == 0 {
            return Ok(Err(Foreign::Record { at }));
        }
        let end = at + RECORD_HEADER as u64 + u64::from(kept);
        if end > size {
            break;
        }
        io::copy(&mut file.by_ref().take(u64::from(kept)), &mut io::sink())?;
        at = end;
    }
    Ok(Ok(at))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(snaplen: u32, frames: &[(u64, Vec<u8>)]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = file_header(snaplen).to_vec();
        let mut ends = vec![bytes.len()];
        for (micros, frame) in frames {
            push_record(&mut bytes, Duration::from_micros(*micros), frame, frame.len(), snaplen);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn the_layout_is_that_of_the_format() {
        let header = file_header(1600);
        assert_eq!(header[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
        assert_eq!(header[8..], [0, 0, 0, 0, 0, 0, 0, 0, 0x40, 6, 0, 0, 1, 0, 0, 0]);
        let mut record = Vec::new();
        push_record(&mut record, Duration::new(5, 7_999), &[1, 2, 3], 9, 2);
        assert_eq!(record, [5, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn tags_stand_behind_the_addresses() {
        let frame: Vec<u8> = (0..16).collect();
        let mut out = Vec::new();
        push_tagged(&mut out, &frame, &[dot1q(101), dot1q(5)]);
        assert_eq!(out[..12], frame[..12]);
        assert_eq!(out[12..20], [0x81, 0, 0, 101, 0x81, 0, 0, 5]);
        assert_eq!(out[20..], frame[12..]);
        out.clear();
        push_tagged(&mut out, &[1, 2], &[dot1q(1)]);
        assert_eq!(out, [1, 2], "what is no frame has no place for a tag");
    }

    #[test]
    fn what_is_no_capture_is_not_gone_on_with() {
        let (bytes, ends) = file(100, &[(1, vec![7; 60]), (2, vec![8; 60])]);
        let read = |bytes: &[u8], snaplen| intact(&mut &bytes[..], bytes.len() as u64, snaplen).unwrap();
        assert_eq!(read(&bytes, 100), Ok(ends[2] as u64));
        assert_eq!(read(&bytes, 99), Err(Foreign::Snaplen { found: 100, wanted: 99 }));
        assert_eq!(read(b"text that is long enough to be a header", 100), Err(Foreign::Header));
        assert_eq!(read(b"text", 100), Err(Foreign::Header));
        assert_eq!(read(b"", 100), Ok(0));
        let mut damaged = bytes.clone();
        damaged[ends[1] + 4..ends[1] + 8].fill(0xff);
        assert_eq!(read(&damaged, 100), Err(Foreign::Record { at: ends[1] as u64 }));
    }

    proptest! {
        /// Wherever a file is cut, everything before the last whole record's end is found intact, and nothing more.
        #[test]
        fn a_cut_file_keeps_its_whole_records(
            snaplen in 1u32..200,
            frames in prop::collection::vec((0u64..4_000_000_000, prop::collection::vec(any::<u8>(), 1..300)), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let (bytes, ends) = file(snaplen, &frames);
            let cut = cut.index(bytes.len() + 1);
            let whole = ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or(0);
            let found = intact(&mut &bytes[..cut], cut as u64, snaplen).unwrap();
            prop_assert_eq!(found, Ok(whole as u64));
        }

        /// A strict reader finds the frames, their times and lengths again.
        #[test]
        fn what_is_written_is_read(
            snaplen in 1u32..200,
            frames in prop::collection::vec((0u64..4_000_000_000_000, prop::collection::vec(any::<u8>(), 1..300)), 0..20),
        ) {
            let (bytes, _) = file(snaplen, &frames);
            let mut rest = &bytes[FILE_HEADER..];
            for (micros, frame) in &frames {
                let kept = word(rest, 8) as usize;
                prop_assert_eq!(u64::from(word(rest, 0)) * 1_000_000 + u64::from(word(rest, 4)), *micros);
                prop_assert_eq!(kept, frame.len().min(snaplen as usize));
                prop_assert_eq!(word(rest, 12) as usize, frame.len());
                prop_assert_eq!(&rest[RECORD_HEADER..RECORD_HEADER + kept], &frame[..kept]);
                rest = &rest[RECORD_HEADER + kept..];
            }
            prop_assert!(rest.is_empty());
        }
    }
}
