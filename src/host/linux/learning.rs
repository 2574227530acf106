//! `host::Learning`: one packet socket for the whole network namespace, whose filter lets ARP and IPv6 neighbour messages
//! through and drops everything else in the kernel (packet(7), Linux `Documentation/networking/filter.rst`).
//!
//! Frames are looked at where they come in, so that what a guest sends is seen once on its own tap, and frames on their
//! way to guests are not looked at at all (PACKET_IGNORE_OUTGOING).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use netlink_packet_route::link::InfoKind;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::netlink::Netlink;
use super::packet::{self, Statement};
use super::ports::read_mark;
use crate::host::{Heard, Listener};
use crate::name::{Mac, TapName};

/// How much of a frame is read: all headers of what passes the filter.
const SNAP: usize = 128;
/// How many frames are taken between two pauses, and how long those are: a guest that floods costs no more than that.
const BATCH: usize = 512;
const PAUSE: Duration = Duration::from_millis(20);
/// How many interfaces are remembered.
const MEMORY: usize = 1 << 14;

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// ARP, and ICMPv6 of the two types of neighbour discovery (RFC 4861) without extension headers, which it never has.
const FILTER: &[Statement] = &[
    Statement::load_half(12),
    Statement::jump_equal(ARP as u32, 5, 0),
    Statement::jump_equal(IPV6 as u32, 0, 5),
    Statement::load_byte(20),
    Statement::jump_equal(ICMPV6 as u32, 0, 3),
    Statement::load_byte(54),
    Statement::jump_equal(SOLICITATION as u32, 0, 2),
    Statement::take(SNAP as u32),
    Statement::take(0),
    Statement::jump_equal(ADVERTISEMENT as u32, 0, 1),
    Statement::take(SNAP as u32),
    Statement::take(0),
];

/// Who is told, and what was told; shared by the threads of one network, one after the other.
#[derive(Default)]
pub(super) struct Ears {
    listener: Mutex<Option<Listener>>,
    known: Mutex<HashMap<u32, Known>>,
}

impl std::fmt::Debug for Ears {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ears").finish_non_exhaustive()
    }
}

/// What is known of an interface.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The tap; None if it is no tap of a VM.
    tap: Option<TapName>,
    mac: Option<Mac>,
    ipv4: Option<Ipv4Addr>,
    link_local: Option<Ipv6Addr>,
    ipv6: Option<Ipv6Addr>,
}

impl Known {
    /// The place of an address of this kind.
    fn has(&self, mac: Mac, address: IpAddr) -> bool {
        self.mac == Some(mac)
            && match address {
                IpAddr::V4(address) => self.ipv4 == Some(address),
                IpAddr::V6(address) if address.is_unicast_link_local() => self.link_local == Some(address),
                IpAddr::V6(address) => self.ipv6 == Some(address),
            }
    }

    fn set(&mut self, mac: Mac, address: IpAddr) {
        self.mac = Some(mac);
        match address {
            IpAddr::V4(address) => self.ipv4 = Some(address),
            IpAddr::V6(address) if address.is_unicast_link_local() => self.link_local = Some(address),
            IpAddr::V6(address) => self.ipv6 = Some(address),
        }
    }
}

impl Ears {
    pub(super) fn set(&self, listener: Listener) {
        *self.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    pub(super) fn forget(&self, tap: &TapName) {
        self.known().retain(|_, known| known.tap.as_ref() != Some(tap));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard(&self, netlink: &mut Netlink, interface: u32, mac: Mac, address: IpAddr) {
        let known = self.known().get(&interface).cloned();
        let known = known.unwrap_or_else(|| {
            let link = netlink.link_by_index(interface).ok().flatten();
            let device = link.filter(|link| link.kind == Some(InfoKind::Tun));
            let tap = device.and_then(|link| read_mark(&link).map(|(tap, _)| tap));
            let known = Known { tap, ..Known::default() };
            let mut all = self.known();
            if all.len() >= MEMORY {
                all.clear();
            }
            all.insert(interface, known.clone());
            known
        });
        let Some(tap) = known.tap.clone().filter(|_| !known.has(mac, address)) else { return };
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if listener.is_some_and(|listener| listener(Heard { tap, mac, address }))
            && let Some(known) = self.known().get_mut(&interface)
        {
            known.set(mac, address);
        }
    }
}

/// The thread that listens. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Listen in the network namespace of the calling thread.
    pub(super) fn start(ears: Arc<Ears>) -> io::Result<Self> {
        let socket = packet::open(libc::SOCK_RAW, FILTER)?;
        packet::ignore_outgoing(&socket)?;
        packet::bind(&socket, 0, libc::ETH_P_ALL as u16)?;
        let mut netlink = Netlink::open()?;
        let (stopped, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let thread = std::thread::Builder::new().name("learning".to_owned()).spawn(move || {
            let mut buffer = [0; SNAP];
            loop {
                let mut fds =
                    [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(_) => break,
                }
                if fds[1].revents().is_some_and(|events| !events.is_empty()) {
                    break;
                }
                for _ in 0..BATCH {
                    // The end of what there is, or an interface that has gone.
                    let Ok(frame) = packet::receive(socket.as_raw_fd(), &mut buffer) else { break };
                    if frame.kind == libc::PACKET_OUTGOING {
                        continue;
                    }
                    if let Some((mac, address)) = read(&buffer[..frame.length.min(SNAP)]) {
                        ears.heard(&mut netlink, frame.interface, mac, address);
                    }
                }
                std::thread::sleep(PAUSE);
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported on standard error.
            let _ = thread.join();
        }
    }
}

/// The sender of a frame and the address that it uses; None if the frame does not say, or contradicts itself.
fn read(frame: &[u8]) -> Option<(Mac, IpAddr)> {
    let sender = Mac::from_octets(frame.get(6..12)?.try_into().ok()?);
    let half = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    match half(12)? {
        ARP => {
            // Ethernet and IPv4 (RFC 826); requests, replies and announcements all name their sender.
            if (half(14)?, half(16)?, half(18)?) != (1, 0x0800, 0x0604) || frame.get(22..28)? != sender.octets() {
                return None;
            }
            let address = Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(28..32)?).ok()?);
            // A probe (RFC 5227) has no sender yet.
            let none =
                address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback();
            (!none).then_some((sender, address.into()))
        }
        IPV6 => {
            // RFC 4861, 7.1: what has crossed a router has another hop limit.
            if *frame.get(20)? != ICMPV6 || *frame.get(21)? != 255 {
                return None;
            }
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
            let (kind, source, target) = (*frame.get(54)?, address(22)?, address(62)?);
            let own = match kind {
                // Without a source it asks whether its new address is free (RFC 4862, 5.4).
                SOLICITATION if source.is_unspecified() => target,
                SOLICITATION => source,
                ADVERTISEMENT => target,
                _ => return None,
            };
            let none = own.is_unspecified() || own.is_multicast() || own.is_loopback();
            (!none).then_some((sender, own.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

    fn arp(sender: [u8; 6], address: [u8; 4]) -> Vec<u8> {
        let mut frame = [&[0xff; 6][..], &MAC, &ARP.to_be_bytes(), &[0, 1, 8, 0, 6, 4, 0, 1]].concat();
        frame.extend([&sender[..], &address, &[0; 6], &[10, 0, 0, 9]].concat());
        frame
    }

    fn neighbour(kind: u8, hops: u8, source: &str, target: &str) -> Vec<u8> {
        let [source, target] = [source, target].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        let mut frame = [&[0x33; 6][..], &MAC, &IPV6.to_be_bytes(), &[0x60, 0, 0, 0, 0, 24, ICMPV6, hops]].concat();
        frame.extend([&source[..], &[0xff; 16], &[kind, 0, 0, 0, 0, 0, 0, 0], &target].concat());
        frame
    }

    #[test]
    fn a_guest_tells_its_addresses() {
        let mac = Mac::from_octets(MAC);
        let told = |frame: &[u8]| read(frame).map(|(sender, address)| (sender == mac, address.to_string()));
        assert_eq!(told(&arp(MAC, [10, 0, 0, 1])), Some((true, "10.0.0.1".to_owned())));
        assert_eq!(told(&arp(MAC, [0, 0, 0, 0])), None, "a probe");
        assert_eq!(told(&arp([2, 0, 0, 0, 0, 9], [10, 0, 0, 1])), None, "somebody else's name");
        assert_eq!(told(&neighbour(SOLICITATION, 255, "fe80::1", "fe80::2")), Some((true, "fe80::1".to_owned())));
        assert_eq!(told(&neighbour(SOLICITATION, 255, "::", "fd00::7")), Some((true, "fd00::7".to_owned())));
        assert_eq!(told(&neighbour(ADVERTISEMENT, 255, "fe80::1", "fd00::1")), Some((true, "fd00::1".to_owned())));
        assert_eq!(told(&neighbour(ADVERTISEMENT, 64, "fe80::1", "fd00::1")), None, "it has crossed a router");
        assert_eq!(told(&neighbour(133, 255, "fe80::1", "fd00::1")), None);
        let whole = neighbour(ADVERTISEMENT, 255, "fe80::1", "fd00::1");
        for length in 0..whole.len() {
            assert_eq!(told(&whole[..length]), None, "{length}");
        }
    }
}
