//! Where in the engine's network namespace a capture hears what it is to hear.
//!
//! Must not know sockets or files.

use netlink_packet_route::link::InfoKind;

use super::netlink::Link;
use super::ports::{TAP, read_marker};
use crate::host::Heard;
use crate::name::VlanTag;

/// An interface to listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ear {
    pub index: u32,
    /// The VLAN of everything that is heard there; None if there is none, or if the frames carry their tags.
    pub vlan: Option<VlanTag>,
    /// It must be asked for frames that are not for itself.
    pub promiscuous: bool,
}

/// The interfaces to listen to, among all interfaces of the namespace.
///
/// A Linux bridge in promiscuous mode hands every frame that it forwards to its own interface, once (`br_pass_frame_up`);
/// there is one for each VLAN of a user's bridge.
pub(super) fn ears(heard: &Heard, links: &[Link]) -> Vec<Ear> {
    match heard {
        Heard::Tap { owner } => links
            .iter()
            .filter(|link| link.alias.strip_prefix(TAP) == Some(owner))
            .map(|link| Ear { index: link.index, vlan: None, promiscuous: false })
            .collect(),
        Heard::Bridge(bridge) => links
            .iter()
            .filter(|link| link.kind == Some(InfoKind::Bridge))
            .filter_map(|link| Some((link, read_marker(&link.alias)?)))
            .filter(|(_, segment)| segment.bridge == *bridge)
            .map(|(link, segment)| Ear {
                index: link.index,
                vlan: Some(segment.vlan).filter(|vlan| vlan.get() != 0),
                promiscuous: true,
            })
            .collect(),
    }
}
