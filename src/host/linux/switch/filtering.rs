//! The switch of a kernel with VLAN filtering: one Linux bridge for each bridge of the user.
//!
//! A bridge is told by its alias (IFLA_IFALIAS), `megaform bridge=mega_bridge`. It comes with its first port or uplink and goes
//! with the last. A port has its VLAN as the only one, without a tag; an uplink has all of them with their tags.
//!
//! The kernel has the VLANs 1 to 4094 and none for what has no tag. Here VLAN 4094 of the bridge device is the user's VLAN 0,
//! which crosses uplinks without a tag. The user's VLANs 4094 and 4095 (which IEEE 802.1Q reserves) have bridges of their own as
//! in [`PerVlan`], and cross no uplink.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::per_vlan::{Bridges, PerVlan, bridge_info, bridge_name, segments};
use super::uplinks::{self, Uplink};
use super::{Ear, Switch, SwitchPort};
use crate::host::linux::failure::kernel;
use crate::host::linux::netlink::{Link, Netlink, has_port};
use crate::host::linux::vlan_filter::VlanPort;
use crate::host::{BridgeInfo, NetworkError, Segment, Tunnel};
use crate::name::{BridgeName, TapName, VlanTag};

/// The VLAN of the kernel's that is the user's VLAN 0.
const UNTAGGED: u16 = 4094;
/// The last VLAN that is the same for the kernel and the user.
const LAST: u16 = 4093;

/// The kernel's VLAN for one of the user's, if it has one.
fn vid(tag: VlanTag) -> Option<u16> {
    match tag.get() {
        0 => Some(UNTAGGED),
        tag if tag <= LAST => Some(tag),
        _ => None,
    }
}

/// The user's VLAN for one of the kernel's.
fn tag(vid: u16) -> Option<VlanTag> {
    VlanTag::new(if vid == UNTAGGED { 0 } else { u64::from(vid) })
}

pub(super) struct Filtering {
    /// Does for the last two VLANs what this does for the others, and everything that does not depend on VLANs.
    plain: PerVlan,
}

/// Where a port was, with all that is needed to put it back there.
struct Before {
    port: SwitchPort,
    vlans: Vec<u16>,
}

impl Filtering {
    pub(super) fn new(netlink: Netlink) -> Self {
        Self { plain: PerVlan::without_uplinks(netlink) }
    }

    fn netlink(&mut self) -> &mut Netlink {
        &mut self.plain.netlink
    }

    /// The device of a bridge, made if there is none.
    fn device(&mut self, bridge: &BridgeName) -> Result<u32, NetworkError> {
        let alias = marker(bridge);
        if let Some(link) = self.plain.find(bridge.as_str())?.filter(|link| link.is_bridge() && link.alias == alias) {
            return Ok(link.index);
        }
        let all = self.plain.links()?;
        match all.iter().find(|link| link.is_bridge() && link.alias == alias) {
            Some(link) => Ok(link.index),
            None => self.plain.create_bridge(&|attempt| bridge_name(bridge.as_str(), attempt), &alias, true),
        }
    }

    fn vlans(&mut self) -> Result<HashMap<u32, VlanPort>, NetworkError> {
        let found = self.netlink().vlan_ports().map_err(kernel("list the VLANs of ports"))?;
        Ok(found.into_iter().map(|port| (port.index, port)).collect())
    }

    fn plug_into(
        &mut self,
        ports: &[(SwitchPort, Segment, u16)],
        made: &mut BTreeSet<u32>,
    ) -> Result<(), NetworkError> {
        let mut devices: BTreeMap<&BridgeName, u32> = BTreeMap::new();
        for (port, segment, vid) in ports {
            let device = match devices.get(&segment.bridge) {
                Some(&device) => device,
                None => {
                    let device = self.device(&segment.bridge)?;
                    devices.insert(&segment.bridge, device);
                    made.insert(device);
                    device
                }
            };
            let what = || kernel(format!("connect {} to VLAN {}", port.tap, segment.vlan));
            if port.master == Some(device) {
                self.netlink().forget_vlans(port.index, 1, UNTAGGED).map_err(what())?;
            }
            self.plain.join_bridge(port.index, device, &port.tap)?;
            self.netlink().set_vlan(port.index, *vid).map_err(what())?;
            self.plain.set_up(port.index, &port.tap)?;
        }
        ports.iter().try_for_each(|(port, _, _)| self.plain.settle(port.index, &port.tap))
    }

    /// Best effort: whoever calls this has an error to tell.
    fn put_back(&mut self, before: &[Before]) {
        self.plain.put_back(before.iter().map(|before| &before.port));
        for Before { port, vlans } in before {
            let _ = self.netlink().forget_vlans(port.index, 1, UNTAGGED);
            for vid in vlans {
                let _ = self.netlink().set_vlan(port.index, *vid);
            }
        }
    }

    fn drop_empty(&mut self, devices: &BTreeSet<u32>) -> Result<(), NetworkError> {
        let links = if devices.is_empty() { Vec::new() } else { self.plain.links()? };
        for link in links.iter().filter(|link| devices.contains(&link.index) && read_marker(&link.alias).is_some()) {
            let used = has_port(link.index, |_| true).map_err(kernel(format!("list the ports of {}", link.name)))?;
            if !used {
                let what = format!("delete bridge {}", link.name);
                self.netlink().delete_link(link.index).map_err(kernel(what))?;
            }
        }
        Ok(())
    }

    /// The uplinks that are connected nowhere: somebody has deleted their bridge, or a process was killed that was about to
    /// connect one.
    fn lost(links: &[Link]) -> Vec<Uplink> {
        let mut lost = uplinks::of(links, None);
        lost.retain(|uplink| {
            let link = links.iter().find(|link| link.index == uplink.index);
            let master = link.and_then(|link| links.iter().find(|device| Some(device.index) == link.master));
            master.and_then(|device| read_marker(&device.alias)).as_ref() != Some(&uplink.bridge)
        });
        lost
    }

    fn take_up(&mut self, uplink: &Uplink) -> Result<(), NetworkError> {
        let join = |this: &mut Self| {
            let device = this.device(&uplink.bridge)?;
            this.plain.join_bridge(uplink.index, device, &uplink.name)?;
            let what = || kernel(format!("give {} all VLANs", uplink.name));
            this.netlink().set_tagged_vlans(uplink.index, 1, LAST).map_err(what())?;
            this.netlink().set_vlan(uplink.index, UNTAGGED).map_err(what())?;
            this.plain.settle(uplink.index, &uplink.name)
        };
        join(self).inspect_err(|_| {
            // Best effort: the first error is what the caller needs to know.
            let _ = self.part(uplink);
        })
    }

    fn part(&mut self, uplink: &Uplink) -> Result<(), NetworkError> {
        let what = || kernel(format!("take {} off bridge {}", uplink.name, uplink.bridge));
        let link = self.netlink().link_by_index(uplink.index).map_err(what())?;
        self.netlink().set_master(uplink.index, None).map_err(what())?;
        uplinks::give_back(self.netlink(), uplink)?;
        self.drop_empty(&link.and_then(|link| link.master).into_iter().collect())
    }
}

impl Switch for Filtering {
    fn kind(&self) -> &'static str {
        "Linux bridges with VLAN filtering"
    }

    fn plug(&mut self, ports: &[(SwitchPort, Segment)]) -> Result<(), NetworkError> {
        let mut known = HashMap::new();
        if ports.iter().any(|(port, _)| port.master.is_some()) {
            known = self.vlans()?;
        }
        let before = |port: &SwitchPort| Before {
            port: port.clone(),
            vlans: known.get(&port.index).map(|port| port.vlans.clone()).unwrap_or_default(),
        };
        let before: Vec<Before> = ports.iter().map(|(port, _)| before(port)).collect();
        let (mut filtered, mut plain) = (Vec::new(), Vec::new());
        for (port, segment) in ports {
            match vid(segment.vlan) {
                Some(vid) => filtered.push((port.clone(), segment.clone(), vid)),
                None => plain.push((port.clone(), segment.clone())),
            }
        }
        let mut used = BTreeSet::new();
        let mut bridges = Bridges::new();
        let plugged = self.plug_into(&filtered, &mut used).and_then(|()| self.plain.plug_all(&plain, &mut bridges));
        let now: BTreeSet<u32> = used.iter().copied().chain(bridges.into_values()).collect();
        if let Err(error) = plugged {
            self.put_back(&before);
            // Best effort: the first error is what the caller needs to know.
            let _ = self.plain.drop_empty(&now).and_then(|()| self.drop_empty(&now));
            return Err(error);
        }
        let left: BTreeSet<u32> =
            ports.iter().filter_map(|(port, _)| port.master).filter(|at| !now.contains(at)).collect();
        self.plain.drop_empty(&left)?;
        self.drop_empty(&left)
    }

    fn unplug(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        let known = self.vlans()?;
        if let Err(error) = ports.iter().try_for_each(|port| self.plain.unplug_one(port)) {
            let vlans = |port: &SwitchPort| known.get(&port.index).map(|port| port.vlans.clone()).unwrap_or_default();
            let before = |port: &SwitchPort| Before { port: port.clone(), vlans: vlans(port) };
            self.put_back(&ports.iter().map(before).collect::<Vec<_>>());
            return Err(error);
        }
        let left = ports.iter().filter_map(|port| port.master).collect();
        self.plain.drop_empty(&left)?;
        self.drop_empty(&left)
    }

    fn deleted(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        self.plain.deleted(ports)?;
        self.drop_empty(&ports.iter().filter_map(|port| port.master).collect())
    }

    fn placed(&mut self, links: &[Link]) -> Result<HashMap<u32, Segment>, NetworkError> {
        let mut placed = self.plain.placed(links)?;
        let devices: HashMap<u32, BridgeName> =
            links.iter().filter_map(|link| Some((link.index, read_marker(&link.alias)?))).collect();
        if devices.is_empty() {
            return Ok(placed);
        }
        let vlans = self.vlans()?;
        let uplinks: BTreeSet<u32> = uplinks::of(links, None).iter().map(|uplink| uplink.index).collect();
        for link in links.iter().filter(|link| !uplinks.contains(&link.index)) {
            let Some(bridge) = link.master.and_then(|master| devices.get(&master)) else { continue };
            let untagged = vlans.get(&link.index).and_then(|port| port.untagged);
            if let Some(vlan) = untagged.and_then(tag) {
                placed.insert(link.index, Segment { bridge: bridge.clone(), vlan });
            }
        }
        Ok(placed)
    }

    fn sweep(&mut self) -> Result<(), NetworkError> {
        self.plain.sweep()?;
        let links = self.plain.links()?;
        let own = links.iter().filter(|link| read_marker(&link.alias).is_some()).map(|link| link.index).collect();
        self.drop_empty(&own)
    }

    fn sweep_half_made(&mut self) -> Result<(), NetworkError> {
        self.plain.sweep_half_made()
    }

    fn bridges(&mut self) -> Result<Vec<BridgeInfo>, NetworkError> {
        let links = self.plain.links()?;
        let mut bridges = BTreeMap::new();
        for link in &links {
            if let Some(bridge) = read_marker(&link.alias) {
                bridge_info(&mut bridges, bridge);
            }
        }
        for (_, segment) in segments(&links) {
            bridge_info(&mut bridges, segment.bridge).vlans.insert(segment.vlan);
        }
        for segment in self.placed(&links)?.into_values() {
            bridge_info(&mut bridges, segment.bridge).vlans.insert(segment.vlan);
        }
        let lost = Self::lost(&links);
        for uplink in uplinks::of(&links, None) {
            let connected = !lost.contains(&uplink);
            let info = bridge_info(&mut bridges, uplink.bridge);
            if !connected {
                // The bridge is listed, so that it can be destroyed with what is left of it.
                continue;
            }
            info.ends.extend(uplink.to.map(|to| (uplink.name.clone(), to)));
            if uplink.tunnel { &mut info.tunnels } else { &mut info.trunks }.push(uplink.name);
        }
        Ok(bridges.into_values().collect())
    }

    fn trunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let lost = Self::lost(&self.plain.links()?);
        let uplink = match uplinks::lost_trunk(lost, bridge, interface) {
            Some(lost) => lost,
            None => uplinks::claim(self.netlink(), bridge, interface)?,
        };
        self.take_up(&uplink)
    }

    fn untrunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let uplink = self.plain.uplink(bridge, interface, false)?;
        self.part(&uplink)
    }

    fn tunnel(&mut self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        let lost = Self::lost(&self.plain.links()?);
        let uplink = match uplinks::lost_tunnel(lost, bridge, tunnel) {
            Some(lost) => lost,
            None => uplinks::make_tunnel(self.netlink(), bridge, tunnel)?,
        };
        self.take_up(&uplink)?;
        Ok(uplink.name)
    }

    fn untunnel(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let uplink = self.plain.uplink(bridge, interface, true)?;
        self.part(&uplink)
    }

    fn destroy(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let links = self.plain.links()?;
        for uplink in uplinks::of(&links, Some(bridge)) {
            self.part(&uplink)?;
        }
        self.sweep()
    }

    fn mirror(&mut self, source: &SwitchPort, destination: &SwitchPort) -> Result<(), NetworkError> {
        self.plain.mirror(source, destination)
    }

    fn unmirror(&mut self, destination: &SwitchPort) -> Result<(), NetworkError> {
        self.plain.unmirror(destination)
    }

    fn mirrors(&mut self) -> Result<Vec<(u32, u32)>, NetworkError> {
        self.plain.mirrors()
    }

    /// A bridge in promiscuous mode hands every frame that it forwards to its own interface, once, with the tag of its VLAN
    /// although it is on none. While it is heard it is on the one for what has no tag, so that this comes without.
    fn hear(&mut self, bridges: &BTreeSet<BridgeName>, links: &[Link]) -> Result<Vec<(BridgeName, Ear)>, NetworkError> {
        let mut ears = self.plain.hear(bridges, links)?;
        let own: Vec<(&Link, BridgeName)> =
            links.iter().filter_map(|link| Some((link, read_marker(&link.alias)?))).collect();
        if own.is_empty() {
            return Ok(ears);
        }
        let known = self.vlans()?;
        for (link, bridge) in own {
            let prepared = known.get(&link.index).is_some_and(|device| device.vlans.contains(&UNTAGGED));
            let wanted = bridges.contains(&bridge);
            if wanted != prepared {
                let what = kernel(format!("prepare {} for captures", link.name));
                self.netlink().set_own_vlan(link.index, UNTAGGED, wanted).map_err(what)?;
            }
            if wanted {
                ears.push((bridge, Ear { index: link.index, vlan: None, promiscuous: true }));
            }
        }
        Ok(ears)
    }
}

/// The alias of a bridge's device.
fn marker(bridge: &BridgeName) -> String {
    format!("megaform bridge={bridge}")
}

fn read_marker(alias: &str) -> Option<BridgeName> {
    let bridge = alias.strip_prefix("megaform bridge=")?;
    // With a VLAN it is one of the other kind: no name has a space.
    BridgeName::new(bridge).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vlan_of_the_kernel_is_one_of_the_users() {
        let all: BTreeSet<u16> = (0..4096).filter_map(|number| vid(VlanTag::new(number).unwrap())).collect();
        assert_eq!(all, (1..=4094).collect());
        for number in 0..4096 {
            let user = VlanTag::new(number).unwrap();
            assert!(vid(user).is_none_or(|vid| tag(vid) == Some(user)), "{user}");
        }
    }

    #[test]
    fn the_marker_is_not_that_of_a_segment() {
        let bridge = BridgeName::new("lab").unwrap();
        assert_eq!(read_marker(&marker(&bridge)), Some(bridge));
        for alias in ["megaform bridge=lab vlan=1", "megaform bridge=", "megaform trunk bridge=lab", ""] {
            assert_eq!(read_marker(alias), None, "{alias}");
        }
    }
}
