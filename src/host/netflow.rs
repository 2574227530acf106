//! NetFlow version 5: datagrams of flow records, as Open vSwitch exports them (Cisco, "NetFlow Export Datagram Format").
//!
//! Must not know where datagrams come from or go: bytes only.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

/// The length of a datagram's header.
pub const HEADER: usize = 24;
/// The length of a record.
pub const RECORD: usize = 48;
/// How many records a datagram has at most.
pub const MAX_RECORDS: usize = 30;
/// The longest datagram.
pub const MAX_DATAGRAM: usize = HEADER + MAX_RECORDS * RECORD;
const VERSION: u16 = 5;

/// Why a datagram is none of NetFlow version 5.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another version, or something else.
    #[error("it is of version {found}, expected 5")]
    Version {
        /// The first two bytes.
        found: u16,
    },
    /// None, or more than there may be.
    #[error("it has {count} records, expected 1 to {MAX_RECORDS}")]
    Count {
        /// How many.
        count: u16,
    },
    /// Cut, or with something behind.
    #[error("it is {found} bytes long, expected {expected}")]
    Length {
        /// What it has.
        found: usize,
        /// What its header says.
        expected: usize,
    },
}

/// One flow, in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// When its first packet came.
    pub first: SystemTime,
    /// When its last packet came.
    pub last: SystemTime,
    /// The number of the protocol above IP.
    pub protocol: u8,
    /// From where, with the port (0 where the protocol has none).
    pub source: (Ipv4Addr, u16),
    /// To where, with the port; of ICMP type and code stand in its place.
    pub destination: (Ipv4Addr, u16),
    /// How many packets.
    pub packets: u32,
    /// How many bytes of IP.
    pub bytes: u32,
    /// The TCP flags of all packets together.
    pub flags: u8,
    /// The type of service.
    pub tos: u8,
    /// The switch's numbers of the ports in and out.
    pub ports: (u16, u16),
}

/// The length that a header says its datagram has.
fn announced(header: &[u8]) -> Result<usize, Malformed> {
    let found = half(header, 0);
    if found != VERSION {
        return Err(Malformed::Version { found });
    }
    let count = half(header, 2);
    if !(1..=MAX_RECORDS).contains(&usize::from(count)) {
        return Err(Malformed::Count { count });
    }
    Ok(HEADER + usize::from(count) * RECORD)
}

/// Read a datagram; everything about it must be right.
pub fn parse(datagram: &[u8]) -> Result<Vec<Flow>, Malformed> {
    if datagram.len() < HEADER {
        return Err(Malformed::Length { found: datagram.len(), expected: HEADER });
    }
    let expected = announced(datagram)?;
    if datagram.len() != expected {
        return Err(Malformed::Length { found: datagram.len(), expected });
    }
    let uptime = word(datagram, 4);
    let exported = SystemTime::UNIX_EPOCH
        + Duration::from_secs(u64::from(word(datagram, 8)))
        + Duration::from_nanos(u64::from(word(datagram, 12)));
    // Times of records count from the start of the switch, in milliseconds that wrap after 49 days.
    // Before 1970 there was no flow: an exporter whose clock is not set says so.
    let at = |millis: u32| {
        let ago = Duration::from_millis(u64::from(uptime.wrapping_sub(millis)));
        exported.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH)
    };
    let flow = |record: &[u8]| {
        let address = |at: usize| Ipv4Addr::from(word(record, at));
        Flow {
            first: at(word(record, 24)),
            last: at(word(record, 28)),
            protocol: record[38],
            source: (address(0), half(record, 32)),
            destination: (address(4), half(record, 34)),
            packets: word(record, 16),
            bytes: word(record, 20),
            flags: record[37],
            tos: record[39],
            ports: (half(record, 12), half(record, 14)),
        }
    };
    Ok(datagram[HEADER..].chunks_exact(RECORD).map(flow).collect())
}

/// Append a flow as a line: when it began and ended (UTC), protocol, source, destination, packets, bytes, TCP flags, type of
/// service, ports in and out, separated by single spaces.
pub fn push_line(out: &mut String, flow: &Flow) {
    let protocol = match flow.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        number => number.to_string(),
    };
    let time = humantime::format_rfc3339_millis;
    let Flow { first, last, source, destination, packets, bytes, flags, tos, ports, .. } = flow;
    writeln!(
        out,
        "{} {} {protocol} {}:{} {}:{} {packets} {bytes} 0x{flags:02x} 0x{tos:02x} {} {}",
        time(*first),
        time(*last),
        source.0,
        source.1,
        destination.0,
        destination.1,
        ports.0,
        ports.1
    )
    .expect("a text takes everything");
}

/// How much of a file of datagrams are whole ones; None if there is something else in it.
pub fn intact(file: &mut impl Read, size: u64) -> io::Result<Option<u64>> {
    let mut at = 0;
    let mut header = [0; HEADER];
    while size - at >= HEADER as u64 {
        file.read_exact(&mut header)?;
        let Ok(length) = announced(&header) else { return Ok(None) };
        let end = at + length as u64;
        if end > size {
            break;
        }
        io::copy(&mut file.by_ref().take((length - HEADER) as u64), &mut io::sink())?;
        at = end;
    }
    Ok(Some(at))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A datagram of flows to 10.0.0.2, port 80, the first of them from port 1000.
    fn datagram(count: u16) -> Vec<u8> {
        let mut bytes = vec![0, 5];
        bytes.extend(count.to_be_bytes());
        // Up for 60 s; exported at 1,000,000 s and 500 ms; sequence, engine, sampling.
        bytes.extend(60_000_u32.to_be_bytes());
        bytes.extend(1_000_000_u32.to_be_bytes());
        bytes.extend(500_000_000_u32.to_be_bytes());
        bytes.extend([0; 8]);
        for number in 0..count {
            bytes.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0, 2]);
            bytes.extend(12_u32.to_be_bytes());
            bytes.extend(3400_u32.to_be_bytes());
            bytes.extend(50_000_u32.to_be_bytes());
            bytes.extend(59_000_u32.to_be_bytes());
            bytes.extend((1000 + number).to_be_bytes());
            bytes.extend(80_u16.to_be_bytes());
            bytes.extend([0, 0x1b, 6, 0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes
    }

    #[test]
    fn a_datagram_is_read_and_shown() {
        let flows = parse(&datagram(2)).unwrap();
        assert_eq!(flows.len(), 2);
        assert_eq!(flows[1].source, ("10.0.0.1".parse().unwrap(), 1001));
        let mut line = String::new();
        push_line(&mut line, &flows[0]);
        assert_eq!(
            line,
            "1970-01-12T13:46:30.500Z 1970-01-12T13:46:39.500Z tcp 10.0.0.1:1000 10.0.0.2:80 12 3400 0x1b 0x10 1 2\n"
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        let whole = datagram(2);
        assert_eq!(parse(&whole[..23]), Err(Malformed::Length { found: 23, expected: 24 }));
        assert_eq!(parse(&whole[..119]), Err(Malformed::Length { found: 119, expected: 120 }));
        assert_eq!(parse(&[&whole[..], &[0]].concat()), Err(Malformed::Length { found: 121, expected: 120 }));
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            parse(&bytes)
        };
        assert_eq!(with(1, 9), Err(Malformed::Version { found: 9 }));
        assert_eq!(with(3, 0), Err(Malformed::Count { count: 0 }));
        assert_eq!(with(3, 31), Err(Malformed::Count { count: 31 }));
        assert!(parse(&datagram(30)).is_ok_and(|flows| flows.len() == 30));
    }

    #[test]
    fn a_torn_file_keeps_its_whole_datagrams() {
        let bytes = [datagram(1), datagram(3)].concat();
        let (first, all) = (datagram(1).len() as u64, bytes.len() as u64);
        for cut in 0..=all {
            let expected = if cut == all {
                all
            } else if cut >= first {
                first
            } else {
                0
            };
            assert_eq!(intact(&mut &bytes[..cut as usize], cut).unwrap(), Some(expected), "{cut}");
        }
        assert_eq!(intact(&mut &[7; 100][..], 100).unwrap(), None);
    }

    proptest! {
        /// Whatever comes over the network is read or refused.
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flows in 0u16..40) {
            let _ = parse(&bytes);
            let mut header = datagram(flows);
            header.truncate(HEADER + bytes.len());
            header.extend(bytes);
            if let Ok(flows) = parse(&header) {
                flows.iter().for_each(|flow| push_line(&mut String::new(), flow));
            }
        }
    }
}
