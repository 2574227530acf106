//! The VLANs of the ports of bridges with VLAN filtering (bridge(8), `vlan`).
//!
//! Must not know what the VLANs are for. Whether this kernel filters at all is tried in a namespace that nobody else sees.

use std::io;
use std::sync::OnceLock;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage,
};
use nix::sched::{CloneFlags, unshare};

use super::netlink::Netlink;

/// The VLANs of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VlanPort {
    pub index: u32,
    /// All of them.
    pub vlans: Vec<u16>,
    /// That of frames without a tag.
    pub untagged: Option<u16>,
}

impl Netlink {
    /// Let a port be on a VLAN, without a tag in both directions.
    pub(super) fn set_vlan(&mut self, index: u32, vid: u16) -> io::Result<()> {
        let flags = BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged;
        self.request(Message::SetLink(of_port(index, vec![BridgeVlanInfo { flags, vid }])), 0)
    }

    /// Let a port be on a range of VLANs, with their tags.
    pub(super) fn set_tagged_vlans(&mut self, index: u32, first: u16, last: u16) -> io::Result<()> {
        self.request(Message::SetLink(of_port(index, range(first, last))), 0)
    }

    /// Take a port off a range of VLANs, those of them that it is on.
    pub(super) fn forget_vlans(&mut self, index: u32, first: u16, last: u16) -> io::Result<()> {
        self.request(Message::DelLink(of_port(index, range(first, last))), 0)
    }

    /// Let the device of a bridge hear one of its VLANs without a tag, or no longer. It sends nothing into that VLAN.
    pub(super) fn set_own_vlan(&mut self, bridge: u32, vid: u16, on: bool) -> io::Result<()> {
        let mut message = of_port(bridge, vec![BridgeVlanInfo { flags: BridgeVlanInfoFlags::Untagged, vid }]);
        for attribute in &mut message.attributes {
            if let LinkAttribute::AfSpecBridge(specs) = attribute {
                specs.insert(0, AfSpecBridge::Flags(BridgeFlag::LowerDev));
            }
        }
        self.request(if on { Message::SetLink(message) } else { Message::DelLink(message) }, 0)
    }

    /// Every port, and every bridge for itself, that has VLANs.
    pub(super) fn vlan_ports(&mut self) -> io::Result<Vec<VlanPort>> {
        let mut link = LinkMessage::default();
        link.header.interface_family = AddressFamily::Bridge;
        link.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        self.dump(Message::GetLink(link), |answer| match answer {
            Message::NewLink(link) => Some(read(&link)),
            _ => None,
        })
    }
}

fn of_port(index: u32, vlans: Vec<BridgeVlanInfo>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.interface_family = AddressFamily::Bridge;
    link.header.index = index;
    link.attributes = vec![LinkAttribute::AfSpecBridge(vlans.into_iter().map(AfSpecBridge::VlanInfo).collect())];
    link
}

fn range(first: u16, last: u16) -> Vec<BridgeVlanInfo> {
    vec![
        BridgeVlanInfo { flags: BridgeVlanInfoFlags::RangeBegin, vid: first },
        BridgeVlanInfo { flags: BridgeVlanInfoFlags::RangeEnd, vid: last },
    ]
}

fn read(link: &LinkMessage) -> VlanPort {
    let mut port = VlanPort { index: link.header.index, vlans: Vec::new(), untagged: None };
    let mut begin = None;
    let specs = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(specs) => Some(specs),
        _ => None,
    });
    for spec in specs.flatten() {
        let AfSpecBridge::VlanInfo(info) = spec else { continue };
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begin = Some(info.vid);
            continue;
        }
        let first = begin.take().filter(|_| info.flags.contains(BridgeVlanInfoFlags::RangeEnd)).unwrap_or(info.vid);
        port.vlans.extend(first..=info.vid);
        if info.flags.contains(BridgeVlanInfoFlags::Pvid) {
            port.untagged = Some(info.vid);
        }
    }
    port
}

/// Does this kernel filter VLANs? Tried once in the life of the process.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let thread = std::thread::Builder::new().name("vlan-filter-probe".to_owned()).spawn(|| attempt().is_ok());
        thread.is_ok_and(|thread| thread.join().unwrap_or(false))
    })
}

/// Give a port of a bridge a VLAN, in a namespace that ends with the calling thread.
fn attempt() -> io::Result<()> {
    const BRIDGE: &str = "probe";
    const PORT: &str = "port";
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut netlink = Netlink::open()?;
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    netlink.create_bridge(BRIDGE, true)?;
    netlink.create_veth(PORT, "end")?;
    let bridge = netlink.link_by_name(BRIDGE)?.ok_or_else(missing)?;
    let port = netlink.link_by_name(PORT)?.ok_or_else(missing)?;
    netlink.set_master(port.index, Some(bridge.index))?;
    netlink.set_vlan(port.index, 2)?;
    // A kernel without it takes all of that and does nothing.
    let found = netlink.vlan_ports()?;
    if found.iter().any(|found| found.index == port.index && found.vlans == [2]) { Ok(()) } else { Err(missing()) }
}
