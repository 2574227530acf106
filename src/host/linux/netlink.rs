//! One rtnetlink socket: requests that are acknowledged, lookups and dumps of links and addresses (rtnetlink(7)).
//!
//! Must not know what interfaces are for. Every call blocks until the kernel has answered; the kernel always answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, BridgePortState, BridgeStpState, GreIOFlags, In6AddrGenMode, InfoBridge, InfoBridgePort,
    InfoData, InfoGre, InfoGre6, InfoKind, InfoPortData, InfoVeth, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;

/// More than the largest datagram that the kernel builds for a dump (32 KiB).
const BUFFER: usize = 64 * 1024;
/// How often a dump is repeated when interfaces change while it runs.
const DUMP_ATTEMPTS: usize = 16;

/// The UDP port of VXLAN (RFC 7348).
const VXLAN_PORT: u16 = 4789;
/// The hop limit of tunnels over IPv6, which otherwise copy that of the packet inside.
const TUNNEL_TTL: u8 = 64;

/// The interface group of what is about to be deleted ("mf" and nothing). Interfaces are in group 0 unless somebody puts
/// them elsewhere, so nobody else's are in this one.
const DOOMED: u32 = 0x6d66_0000;

/// What the engine needs to know of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    pub alias: String,
    pub kind: Option<InfoKind>,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The other end of a veth pair.
    pub peer: Option<u32>,
    /// Something is attached to the other side.
    pub carrier: bool,
    /// As a port of a bridge, it passes frames.
    pub forwarding: bool,
    /// What its frames wait in on their way out (tc(8)), such as `tbf`.
    pub qdisc: String,
    /// It was set up, whether or not anything is attached.
    pub up: bool,
    /// It hears every frame because somebody asked for that.
    pub promiscuous: bool,
}

impl Link {
    /// Is it an end of a veth pair?
    pub(super) fn is_pair(&self) -> bool {
        self.kind == Some(InfoKind::Veth)
    }

    /// Is it a bridge?
    pub(super) fn is_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge)
    }
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub index: u32,
    pub address: IpAddr,
    pub prefix: u8,
    /// Set by somebody, as opposed to learnt from a router or made up by the kernel.
    pub permanent: bool,
}

/// What a dump of links is limited to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Links {
    All,
    Bridges,
}

/// A socket in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Create a bridge that forwards at once (no spanning tree) and floods multicast (neighbour discovery needs it).
    ///
    /// With VLAN filtering its ports have no VLAN until they are given one. A kernel without it makes an ordinary bridge.
    pub(super) fn create_bridge(&mut self, name: &str, filtering: bool) -> io::Result<()> {
        let mut data = vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::ForwardDelay(0),
            InfoBridge::MulticastSnooping(false),
        ];
        if filtering {
            data.extend([InfoBridge::VlanDefaultPvid(0), InfoBridge::VlanFiltering(true)]);
        }
        self.create_link(name, vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(data))])
    }

    /// Create a veth pair. The kernel replaces `%d` in the name of the peer by a free number.
    pub(super) fn create_veth(&mut self, name: &str, peer: &str) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        let data = InfoData::Veth(InfoVeth::Peer(far));
        self.create_link(name, vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)])
    }

    /// Create one end of a VXLAN tunnel that learns nothing: every frame goes to the one other end.
    pub(super) fn create_vxlan(&mut self, name: &str, remote: IpAddr, id: u32) -> io::Result<()> {
        let mut data = vec![InfoVxlan::Id(id), InfoVxlan::Port(VXLAN_PORT), InfoVxlan::Learning(false)];
        match remote {
            IpAddr::V4(remote) => data.push(InfoVxlan::Group(remote)),
            // The kernel refuses IPv6 packets without a checksum unless told otherwise; this end sends one.
            IpAddr::V6(remote) => data.push(InfoVxlan::Group6(remote)),
        }
        self.create_link(name, vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))])
    }

    /// Create one end of an Ethernet over GRE tunnel.
    pub(super) fn create_gretap(&mut self, name: &str, remote: IpAddr, key: Option<u32>) -> io::Result<()> {
        let flags = if key.is_some() { GreIOFlags::Key } else { GreIOFlags::empty() };
        let (kind, data) = match remote {
            IpAddr::V4(remote) => {
                // Packets that are too long for the way are fragmented: guests know nothing of the tunnel.
                let mut data = vec![InfoGre::Remote(remote), InfoGre::PathMTUDiscovery(false), InfoGre::Ttl(0)];
                data.extend([InfoGre::IFlags(flags), InfoGre::OFlags(flags)]);
                data.extend(key.into_iter().flat_map(|key| [InfoGre::IKey(key), InfoGre::OKey(key)]));
                (InfoKind::GreTap, InfoData::GreTap(data))
            }
            IpAddr::V6(remote) => {
                let mut data = vec![InfoGre6::Remote(remote), InfoGre6::Ttl(TUNNEL_TTL)];
                data.extend([InfoGre6::IFlags(flags), InfoGre6::OFlags(flags)]);
                data.extend(key.into_iter().flat_map(|key| [InfoGre6::IKey(key), InfoGre6::OKey(key)]));
                (InfoKind::GreTap6, InfoData::GreTap6(data))
            }
        };
        self.create_link(name, vec![LinkInfo::Kind(kind), LinkInfo::Data(data)])
    }

    fn create_link(&mut self, name: &str, info: Vec<LinkInfo>) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link.attributes.push(LinkAttribute::LinkInfo(info));
        self.request(Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
    }

    pub(super) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.request(Message::DelLink(link), 0)
    }

    /// Let [`Netlink::delete_doomed`] delete this interface.
    pub(super) fn doom(&mut self, index: u32) -> io::Result<()> {
        self.set(index, vec![LinkAttribute::Group(DOOMED)])
    }

    /// Delete every doomed interface at once; the kernel waits for its readers once instead of once for each.
    pub(super) fn delete_doomed(&mut self) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes = vec![LinkAttribute::Group(DOOMED)];
        match self.request(Message::DelLink(link), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    pub(super) fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.set(index, vec![LinkAttribute::IfAlias(alias.to_owned())])
    }

    /// Give an interface another name.
    pub(super) fn rename(&mut self, index: u32, name: &str) -> io::Result<()> {
        self.set(index, vec![LinkAttribute::IfName(name.to_owned())])
    }

    /// Move an interface to another network namespace. It is down there, without addresses, and keeps its alias.
    pub(super) fn move_to(&mut self, index: u32, namespace: impl AsFd) -> io::Result<()> {
        self.set(index, vec![LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd())])
    }

    /// The interfaces that default routes lead to.
    pub(super) fn default_routes(&mut self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut route = RouteMessage::default();
            route.header.address_family = family;
            let indexes = self.dump(Message::GetRoute(route), |answer| match answer {
                Message::NewRoute(route) if route.header.destination_prefix_length == 0 => {
                    Some(route.attributes.iter().flat_map(route_interfaces).collect::<Vec<_>>())
                }
                _ => None,
            })?;
            found.extend(indexes.into_iter().flatten());
        }
        Ok(found)
    }

    /// Keep the kernel from giving the interface an IPv6 address of its own. A kernel without IPv6 gives none anyway.
    pub(super) fn no_link_local(&mut self, index: u32) -> io::Result<()> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        match self.set(index, vec![LinkAttribute::AfSpecUnspec(vec![inet6])]) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)) => Ok(()),
            result => result,
        }
    }

    /// Set the Ethernet address of an interface that is down.
    pub(super) fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.set(index, vec![LinkAttribute::Address(mac.to_vec())])
    }

    /// Move an interface into another network namespace, where it has this name, no address, and is down.
    pub(super) fn move_link(&mut self, index: u32, namespace: RawFd, name: &str) -> io::Result<()> {
        self.set(index, vec![LinkAttribute::NetNsFd(namespace), LinkAttribute::IfName(name.to_owned())])
    }

    /// Make the interface a port of a bridge, or of none.
    pub(super) fn set_master(&mut self, index: u32, bridge: Option<u32>) -> io::Result<()> {
        self.set(index, vec![LinkAttribute::Controller(bridge.unwrap_or(0))])
    }

    /// Set the flags in `mask` to their value in `flags`.
    pub(super) fn set_flags(&mut self, index: u32, flags: LinkFlags, mask: LinkFlags) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.header.change_mask = mask;
        self.request(Message::SetLink(link), 0)
    }

    pub(super) fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.set_flags(index, flags, LinkFlags::Up)
    }

    fn set(&mut self, index: u32, attributes: Vec<LinkAttribute>) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes = attributes;
        self.request(Message::SetLink(link), 0)
    }

    /// Add an address, usable at once (no duplicate address detection).
    pub(super) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        match address {
            // RFC 3021: no broadcast address in a network of two hosts or one.
            IpAddr::V4(address) if prefix < 31 => {
                let hosts = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                message.attributes.push(AddressAttribute::Broadcast((u32::from(address) | hosts).into()));
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        self.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Add an IPv4 address that the kernel drops after so many seconds (never: [`u32::MAX`]), or give one that is there
    /// this lifetime.
    pub(super) fn lease_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8, seconds: u32) -> io::Result<()> {
        let mut message = ipv4_address(index, address, prefix);
        let mut lifetime = CacheInfo::default();
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (seconds, seconds);
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        if prefix < 31 {
            let hosts = u32::MAX >> prefix;
            message.attributes.push(AddressAttribute::Broadcast((u32::from(address) | hosts).into()));
        }
        self.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    pub(super) fn delete_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.request(Message::DelAddress(ipv4_address(index, address, prefix)), 0)
    }

    pub(super) fn link_by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(link)
    }

    pub(super) fn link_by_index(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        self.link(link)
    }

    fn link(&mut self, mut link: LinkMessage) -> io::Result<Option<Link>> {
        link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut found = None;
        let done = self.exchange(Message::GetLink(link), NLM_F_ACK, |answer| {
            if let Message::NewLink(link) = answer {
                found = Some(read_link(&link));
            }
        });
        match done {
            Ok(_) => Ok(found),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn links(&mut self, which: Links) -> io::Result<Vec<Link>> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        if let Links::Bridges = which {
            link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        }
        self.dump(Message::GetLink(link), |answer| match answer {
            Message::NewLink(link) => Some(read_link(&link)),
            _ => None,
        })
    }

    pub(super) fn addresses(&mut self) -> io::Result<Vec<Address>> {
        self.dump(Message::GetAddress(AddressMessage::default()), |answer| match answer {
            Message::NewAddress(message) => read_address(&message),
            _ => None,
        })
    }

    pub(super) fn request(&mut self, message: Message, flags: u16) -> io::Result<()> {
        self.exchange(message, flags | NLM_F_ACK, |_| ()).map(|_| ())
    }

    /// A dump that no change has interrupted.
    pub(super) fn dump<T>(&mut self, message: Message, read: impl Fn(Message) -> Option<T>) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            if self.exchange(message.clone(), NLM_F_DUMP, |answer| found.extend(read(answer)))? {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "interfaces kept changing while they were listed"))
    }

    /// Send a request and take every answer up to its acknowledgement or the end of its dump. False if a change has
    /// interrupted the dump.
    fn exchange(&mut self, message: Message, flags: u16, mut take: impl FnMut(Message)) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut whole = true;
        loop {
            let length = match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                length => length?,
            };
            let mut rest = self.buffer.get(..length).ok_or_else(|| malformed("it is longer than 64 KiB"))?;
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Message>::deserialize(rest).map_err(malformed)?;
                // Messages are aligned to 4 bytes, the last one need not be.
                let used = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
                if used == 0 {
                    return Err(malformed("a message has no length"));
                }
                rest = &rest[used..];
                if answer.header.sequence_number != self.sequence {
                    // The end of an earlier exchange that was given up after an error.
                    continue;
                }
                whole &= answer.header.flags & NLM_F_DUMP_INTR == 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code != 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.abs()));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(whole),
                    _ => {}
                }
            }
        }
    }
}

/// Whether a bridge has a port that counts. A socket of its own is closed after the first part of the answer, so that the
/// work does not grow with the number of ports.
pub(super) fn has_port(bridge: u32, counts: impl Fn(&Link) -> bool) -> io::Result<bool> {
    let counts = |link: &Link| link.master == Some(bridge) && counts(link);
    let netlink = Netlink::open()?;
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    link.attributes.push(LinkAttribute::Controller(bridge));
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(Message::GetLink(link)));
    packet.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    netlink.socket.send(&bytes, 0)?;
    let mut buffer = vec![0; BUFFER];
    let length = loop {
        match netlink.socket.recv(&mut &mut buffer[..], libc::MSG_TRUNC) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => break length?.min(BUFFER),
        }
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        let answer = NetlinkMessage::<Message>::deserialize(rest).map_err(malformed)?;
        let used = (answer.header.length as usize).next_multiple_of(4).min(rest.len());
        rest = &rest[used.max(1)..];
        match answer.payload {
            // A kernel that ignores the filter sends every link, so look at the master too.
            NetlinkPayload::InnerMessage(Message::NewLink(link)) if counts(&read_link(&link)) => {
                return Ok(true);
            }
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Done(_) => return Ok(false),
            _ => {}
        }
    }
    // The first part held no such port and was not the last one. Look at all of them.
    Ok(Netlink::open()?.links(Links::All)?.iter().any(counts))
}

fn route_interfaces(attribute: &RouteAttribute) -> Vec<u32> {
    match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    }
}

fn ipv4_address(index: u32, address: Ipv4Addr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address.into()));
    message.attributes.push(AddressAttribute::Address(address.into()));
    message
}

fn malformed(reason: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel's netlink answer cannot be read: {reason}"))
}

fn read_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        kind: None,
        master: None,
        peer: None,
        carrier: false,
        forwarding: false,
        qdisc: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        promiscuous: message.header.flags.contains(LinkFlags::Promisc),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Controller(index) => link.master = Some(*index).filter(|&index| index != 0),
            LinkAttribute::Qdisc(kind) => link.qdisc.clone_from(kind),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::Carrier(carrier) => link.carrier = *carrier != 0,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.clone()),
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                            link.forwarding = port.contains(&InfoBridgePort::State(BridgePortState::Forwarding));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn read_address(message: &AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut address = None;
    let mut flags = u32::from(message.header.flags.bits());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Address(found) => address = Some(*found),
            AddressAttribute::Flags(found) => flags = found.bits(),
            _ => {}
        }
    }
    Some(Address {
        index: message.header.index,
        address: local.or(address)?,
        prefix: message.header.prefix_len,
        permanent: flags & AddressFlags::Permanent.bits() != 0,
    })
}
