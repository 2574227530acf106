//! DHCP messages in their UDP and IP headers (RFC 2131, RFC 2132), as far as a client needs them.

use std::net::Ipv4Addr;

use super::Lease;

/// The ports.
pub(super) const CLIENT: u16 = 68;
const SERVER: u16 = 67;

const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Before the options: the fixed fields, and the magic number.
const FIXED: usize = 240;
const IP: usize = 20;
const UDP: usize = 8;
/// "Answer by broadcast".
const BROADCAST: u16 = 0x8000;

const OPTION_MASK: u8 = 1;
const OPTION_ADDRESS: u8 = 50;
const OPTION_TIME: u8 = 51;
const OPTION_KIND: u8 = 53;
const OPTION_SERVER: u8 = 54;
const OPTION_WANTED: u8 = 55;
const OPTION_END: u8 = 255;

/// The message types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

/// A message. What a client sends has the addresses that it asks for, what it gets those that it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: Kind,
    pub xid: u32,
    /// The client's.
    pub mac: [u8; 6],
    /// The client's address, offered, given or wanted; unspecified for none.
    pub address: Ipv4Addr,
    pub server: Option<Ipv4Addr>,
    mask: Option<Ipv4Addr>,
    seconds: Option<u32>,
}

impl Message {
    fn new(kind: Kind, xid: u32) -> Self {
        let (mac, address) = ([0; 6], Ipv4Addr::UNSPECIFIED);
        Self { kind, xid, mac, address, server: None, mask: None, seconds: None }
    }

    pub(super) fn discover(xid: u32) -> Self {
        Self::new(Kind::Discover, xid)
    }

    pub(super) fn request(xid: u32, address: Ipv4Addr, server: Ipv4Addr) -> Self {
        Self { address, server: Some(server), ..Self::new(Kind::Request, xid) }
    }

    /// Ask for an address that was given before, as a machine does that has restarted (RFC 2131, 4.3.2): any server that
    /// knows the lease answers, by broadcast. A request from the address itself would not do: a server in the same network
    /// namespace would not hear it, or answer it by the loopback interface.
    pub(super) fn again(xid: u32, address: Ipv4Addr) -> Self {
        Self { address, ..Self::new(Kind::Request, xid) }
    }

    /// The lease in it; None if it is incomplete or makes no sense.
    pub(super) fn lease(&self) -> Option<Lease> {
        let mask = u32::from(self.mask?);
        let prefix = u8::try_from(mask.leading_ones()).ok()?;
        let whole = mask.count_ones() == u32::from(prefix) && prefix > 0;
        let usable = !self.address.is_unspecified()
            && !self.address.is_broadcast()
            && !self.address.is_multicast()
            && !self.address.is_loopback();
        let seconds = self.seconds.filter(|seconds| *seconds > 0)?;
        (whole && usable).then_some(Lease { address: self.address, prefix, seconds })
    }

    /// What a client with this Ethernet address sends: an IP packet to everybody.
    pub(super) fn packet(&self, mac: [u8; 6]) -> Vec<u8> {
        let mut body = vec![1, 1, 6, 0];
        body.extend(self.xid.to_be_bytes());
        body.extend([0, 0]);
        body.extend(BROADCAST.to_be_bytes());
        body.extend([0; 16]);
        body.extend(mac);
        body.resize(FIXED - MAGIC.len(), 0);
        body.extend(MAGIC);
        body.extend([OPTION_KIND, 1, self.kind as u8]);
        if !self.address.is_unspecified() {
            body.extend([OPTION_ADDRESS, 4]);
            body.extend(self.address.octets());
        }
        if let Some(server) = self.server {
            body.extend([OPTION_SERVER, 4]);
            body.extend(server.octets());
        }
        body.extend([OPTION_WANTED, 2, OPTION_MASK, OPTION_TIME, OPTION_END]);
        // Some servers drop what is shorter than a BOOTP message.
        body.resize(body.len().max(300), 0);
        datagram((Ipv4Addr::UNSPECIFIED, CLIENT), (Ipv4Addr::BROADCAST, SERVER), &body)
    }

    /// What a server has sent, as an IP packet; None if it is something else.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        // The filter has looked at the version, the protocol and the port.
        let body = packet.get(IP + UDP..)?;
        if body.len() < FIXED || body[0] != 2 || body[FIXED - MAGIC.len()..FIXED] != MAGIC {
            return None;
        }
        let four = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok();
        let mut message = Self::new(Kind::Discover, u32::from_be_bytes(four(&body[4..8])?));
        message.address = Ipv4Addr::from(four(&body[16..20])?);
        message.mac.copy_from_slice(&body[28..34]);
        let mut kind = None;
        let mut rest = &body[FIXED..];
        while let [code, after @ ..] = rest {
            rest = match *code {
                0 => after,
                OPTION_END => break,
                code => {
                    let (length, after) = after.split_first()?;
                    let value = after.get(..usize::from(*length))?;
                    match code {
                        OPTION_KIND => {
                            kind = [Kind::Discover, Kind::Offer, Kind::Request, Kind::Ack, Kind::Nak]
                                .into_iter()
                                .find(|kind| value == [*kind as u8]);
                        }
                        OPTION_MASK => message.mask = four(value).map(Ipv4Addr::from),
                        OPTION_SERVER => message.server = four(value).map(Ipv4Addr::from),
                        OPTION_TIME => message.seconds = four(value).map(u32::from_be_bytes),
                        _ => {}
                    }
                    &after[value.len()..]
                }
            };
        }
        message.kind = kind?;
        Some(message)
    }
}

/// An IPv4 packet with a UDP datagram.
fn datagram((from, from_port): (Ipv4Addr, u16), (to, to_port): (Ipv4Addr, u16), body: &[u8]) -> Vec<u8> {
    let length = |header: usize| u16::try_from(header + body.len()).expect("DHCP messages are short");
    let mut ip = vec![0x45, 0];
    ip.extend(length(IP + UDP).to_be_bytes());
    // No fragments; 64 hops; UDP; the checksum comes last.
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut udp = [from_port.to_be_bytes(), to_port.to_be_bytes(), length(UDP).to_be_bytes(), [0, 0]].concat();
    udp.extend(body);
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 17], &length(UDP).to_be_bytes()].concat();
    let sum = match checksum(&[&pseudo, &udp]) {
        // Zero stands for "none".
        0 => u16::MAX,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    ip.extend(udp);
    ip
}

/// RFC 1071. All parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    /// What a server would make of a request, with options of its own.
    fn answer(request: &[u8], kind: Kind, options: &[u8]) -> Vec<u8> {
        let mut packet = request[..IP + UDP + FIXED].to_vec();
        packet[IP + UDP] = 2;
        packet[IP + UDP + 16..IP + UDP + 20].copy_from_slice(&[10, 0, 0, 5]);
        packet.extend([OPTION_KIND, 1, kind as u8]);
        packet.extend(options);
        packet.push(OPTION_END);
        packet
    }

    #[test]
    fn a_packet_has_right_checksums_and_an_answer_is_read() {
        let packet = Message::request(7, "10.0.0.5".parse().unwrap(), "10.0.0.1".parse().unwrap()).packet(MAC);
        assert_eq!(checksum(&[&packet[..IP]]), 0);
        let pseudo = [&packet[12..20], &[0, 17], &packet[24..26]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[IP..]]), 0);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        let options = [1, 4, 255, 255, 255, 0, 0, 51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 0, 1, 12, 0];
        let ack = Message::read(&answer(&packet, Kind::Ack, &options)).unwrap();
        assert_eq!((ack.kind, ack.xid, ack.mac, ack.server), (Kind::Ack, 7, MAC, Some([10, 0, 0, 1].into())));
        assert_eq!(ack.lease(), Some(Lease { address: [10, 0, 0, 5].into(), prefix: 24, seconds: 3600 }));
        assert_eq!(Message::read(&packet), None, "what a client sends");
    }

    #[test]
    fn no_lease_comes_of_nonsense() {
        let packet = Message::discover(7).packet(MAC);
        for options in [
            &[51, 4, 0, 0, 14, 16][..],
            &[1, 4, 255, 0, 255, 0, 51, 4, 0, 0, 14, 16],
            &[1, 4, 255, 255, 255, 0],
            &[1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 0, 0],
            &[1, 3, 255, 255, 255, 51, 4, 0, 0, 14, 16],
        ] {
            assert_eq!(Message::read(&answer(&packet, Kind::Ack, options)).and_then(|m| m.lease()), None);
        }
        let whole = answer(&packet, Kind::Offer, &[1, 4, 255, 255, 255, 0]);
        for length in 0..whole.len() - 10 {
            assert_eq!(Message::read(&whole[..length]), None, "{length}");
        }
        let mut cut = answer(&packet, Kind::Offer, &[1, 200]);
        cut.truncate(cut.len() - 1);
        assert_eq!(Message::read(&cut), None);
    }
}
