//! Trunks and tunnels, which are ports that carry all VLANs, and the end of a bridge.
//!
//! Tunnels are the kernel's own for both datapaths: they take the kernel's routes, where those of the userspace datapath
//! would need the underlay on a bridge of Open vSwitch with an address.

use std::collections::HashSet;

use netlink_packet_route::link::LinkFlags;

use super::placing::join;
use super::qdiscs;
use super::rows::{MARK, Picture, PortRow, TRUNK, TUNNEL, drop_bridge, mark};
use super::{OpenVswitch, wrong};
use crate::host::linux::failure::kernel;
use crate::host::linux::namespace::sysctl;
use crate::host::linux::switch::uplinks::{self, Uplink};
use crate::host::{BridgeInfo, NetworkError, Tunnel};
use crate::name::{BridgeName, TapName};
use crate::ovsdb::{Datum, Operation, Row, Uuid};

impl OpenVswitch {
    pub(super) fn add_trunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let what = format!("make {interface} a trunk of bridge {bridge}");
        self.settle(&what)?;
        let picture = self.picture(&what)?;
        self.vacant(&what, &picture, bridge)?;
        let uplink = match uplinks::lost_trunk(self.lost(&picture)?, bridge, interface) {
            Some(lost) => lost,
            None => uplinks::claim(&mut self.netlink, bridge, interface)?,
        };
        self.add_uplink(&what, &uplink)
    }

    pub(super) fn add_tunnel(&mut self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        let what = format!("make a tunnel from bridge {bridge} to {}", tunnel.remote);
        self.settle(&what)?;
        let picture = self.picture(&what)?;
        self.vacant(&what, &picture, bridge)?;
        let uplink = match uplinks::lost_tunnel(self.lost(&picture)?, bridge, tunnel) {
            Some(lost) => lost,
            None => uplinks::make_tunnel(&mut self.netlink, bridge, tunnel)?,
        };
        self.add_uplink(&what, &uplink)?;
        Ok(uplink.name)
    }

    /// The uplinks that are connected nowhere: somebody has deleted their bridge or their port, or a process was killed that
    /// was about to connect one.
    fn lost(&mut self, picture: &Picture) -> Result<Vec<Uplink>, NetworkError> {
        let mut lost = uplinks::of(&self.links()?, None);
        lost.retain(|uplink| {
            let ours = |port: &&PortRow| port.name == uplink.name && matches!(mark(&port.ids), Some(TRUNK | TUNNEL));
            let at = picture.ports.values().find(ours).and_then(|port| picture.bridge_of(&port.uuid));
            at.is_none_or(|bridge| bridge.name != uplink.bridge.as_str())
        });
        Ok(lost)
    }

    /// Every bridge. One of which there are only uplinks that have lost it is listed without them, so that it can be
    /// destroyed with what is left of it.
    pub(super) fn list_bridges(&mut self) -> Result<Vec<BridgeInfo>, NetworkError> {
        if !self.is_there() {
            return Ok(Vec::new());
        }
        let mut bridges = self.picture("list bridges")?.bridges_info();
        for uplink in uplinks::of(&self.links()?, None) {
            match bridges.iter_mut().find(|info| info.bridge == uplink.bridge) {
                Some(info) if info.tunnels.contains(&uplink.name) => {
                    info.ends.extend(uplink.to.map(|to| (uplink.name, to)));
                }
                Some(_) => {}
                None => bridges.push(BridgeInfo::new(uplink.bridge)),
            }
        }
        bridges.sort_by(|a, b| a.bridge.cmp(&b.bridge));
        Ok(bridges)
    }

    /// Make an interface that was claimed or made a port; on failure it is given back.
    fn add_uplink(&mut self, what: &str, uplink: &Uplink) -> Result<(), NetworkError> {
        let added = self.quieten(uplink).and_then(|()| self.add_port(what, uplink));
        added.inspect_err(|_| {
            // Best effort: the first error is what the caller needs to know.
            let _ = self.part(what, uplink);
        })
    }

    /// Keep the engine's own IP stack off an uplink; see [`super`].
    fn quieten(&mut self, uplink: &Uplink) -> Result<(), NetworkError> {
        sysctl(&format!("ipv4/conf/{}/rp_filter", uplink.name), "1")?;
        self.netlink
            .set_flags(uplink.index, LinkFlags::Noarp, LinkFlags::Noarp)
            .map_err(kernel(format!("turn off ARP on {}", uplink.name)))
    }

    fn add_port(&mut self, what: &str, uplink: &Uplink) -> Result<(), NetworkError> {
        let datapath = self.datapath;
        let kind = if uplink.tunnel { TUNNEL } else { TRUNK };
        let name = uplink.name.as_str();
        let ports = [(name, None)].into();
        let picture = self.picture(what)?;
        let picture = self.drop_stale(what, picture, &ports)?;
        let number = self.change_from(what, picture, |picture| {
            if let Some(there) = picture.ports.values().find(|port| port.name == name) {
                let place = picture.bridge_of(&there.uuid).map_or("none", |bridge| bridge.name.as_str());
                // A try before may have made it.
                return if mark(&there.ids) == Some(kind) && place == uplink.bridge.as_str() {
                    Ok(Vec::new())
                } else {
                    Err(wrong(what, format!("it is a port of bridge {place} already")))
                };
            }
            let (noop, make_noop) = qdiscs::untouched(picture);
            let row = Row::new([("name", name)])
                .with("interfaces", Uuid::New("interface".to_owned()))
                .with("qos", noop)
                .with("external_ids", Datum::map([(MARK, kind)]));
            let mut operations = vec![
                Operation::insert("Interface", Some("interface"), &Row::new([("name", name)])),
                Operation::insert("Port", Some("port"), &row),
            ];
            let port = vec![Uuid::New("port".to_owned())];
            operations.extend(make_noop);
            operations.extend(join(datapath, picture, uplink.bridge.as_str(), "bridge", "ports", port));
            Ok(operations)
        })?;
        let Some(number) = number else { return Ok(()) };
        self.applied(what, number)?;
        self.forget_flows();
        self.refused_interfaces(what, &HashSet::from([name]))
    }

    /// Take an uplink off its bridge and give it back.
    pub(super) fn part(&mut self, what: &str, uplink: &Uplink) -> Result<(), NetworkError> {
        let number = self.change(what, |picture| {
            let ours = |port: &&PortRow| port.name == uplink.name && matches!(mark(&port.ids), Some(TRUNK | TUNNEL));
            Ok(picture.remove(&picture.ports.values().filter(ours).map(|port| &port.uuid).collect(), false))
        })?;
        // ovs-vswitchd sets the flags of its ports, so it lets go first.
        number.map_or(Ok(()), |number| self.applied(what, number))?;
        self.netlink
            .set_flags(uplink.index, LinkFlags::empty(), LinkFlags::Noarp)
            .map_err(kernel(format!("turn on ARP on {}", uplink.name)))?;
        uplinks::give_back(&mut self.netlink, uplink)
    }

    /// Take a trunk or tunnel off its bridge by its name.
    pub(super) fn remove_uplink(
        &mut self,
        bridge: &BridgeName,
        interface: &TapName,
        tunnel: bool,
    ) -> Result<(), NetworkError> {
        let kind = if tunnel { TUNNEL } else { TRUNK };
        let links = self.links()?;
        let is_it = |uplink: &Uplink| uplink.name == interface.as_str() && uplink.tunnel == tunnel;
        let found = uplinks::of(&links, Some(bridge)).into_iter().find(is_it);
        let uplink = found.ok_or_else(|| NetworkError::NoUplink {
            bridge: bridge.to_string(),
            kind,
            interface: interface.to_string(),
        })?;
        self.part(&format!("remove {kind} {interface} from bridge {bridge}"), &uplink)
    }

    pub(super) fn destroy_bridge(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let what = format!("destroy bridge {bridge}");
        let none = || NetworkError::NoBridge { bridge: bridge.to_string() };
        if !self.is_there() {
            return Err(none());
        }
        let picture = self.picture(&what)?;
        let Some(row) = picture.bridge(bridge.as_str()) else {
            let mut lost = self.lost(&picture)?;
            lost.retain(|uplink| uplink.bridge == *bridge);
            return if lost.is_empty() {
                Err(none())
            } else {
                lost.iter().try_for_each(|uplink| self.part(&what, uplink))
            };
        };
        if mark(&row.ids).is_none() {
            return Err(wrong(&what, "it was there before the engine used it; `ovs-vsctl del-br` deletes it"));
        }
        if let Some(port) = picture.ports_of(row).find(|port| mark(&port.ids).is_none()) {
            return Err(wrong(&what, format!("somebody else's port {} is on it", port.name)));
        }
        let links = self.links()?;
        for uplink in uplinks::of(&links, Some(bridge)) {
            self.part(&what, &uplink)?;
        }
        let number = self.change(&what, |picture| {
            let row = picture.bridge(bridge.as_str());
            Ok(row.map(|row| drop_bridge(row).into()).unwrap_or_default())
        })?;
        self.unsettled = self.unsettled.max(number);
        Ok(())
    }
}
