//! The switch of a kernel without VLAN filtering: a Linux bridge for each segment.
//!
//! A bridge is told by its alias (IFLA_IFALIAS), `megaform bridge=mega_bridge vlan=101`, never by its name. It comes with
//! the first port of its segment and goes with the last. The engine is on a segment through its host taps only: bridges
//! take no ARP, no IPv6, and no IPv4 but by a route (strict reverse path filter), and they have no address and no route.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use netlink_packet_route::link::LinkFlags;
use nix::libc;
use sha2::{Digest, Sha256};

use super::uplinks::{self, Uplink};
use super::{Ear, Switch, SwitchPort, mirrors};
use crate::host::linux::failure::{kernel, refused};
use crate::host::linux::namespace::sysctl;
use crate::host::linux::netlink::{Link, Links, Netlink, has_port};
use crate::host::{BridgeInfo, NetworkError, Segment, Tunnel};
use crate::name::{BridgeName, TapName, VlanTag};

mod legs;

/// The longest interface name.
const NAME_LIMIT: usize = TapName::LIMIT;
/// How many names of a bridge are tried; a second one is needed only where somebody else has the first.
const NAME_ATTEMPTS: u32 = 8;
/// Together twice the longest delay of the kernel's link watch.
const SETTLE_ATTEMPTS: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// The bridges that one call has used, so that each is looked up once.
pub(super) type Bridges = HashMap<Segment, u32>;

/// The most ports that a Linux bridge has (BR_MAX_PORTS).
const PORT_LIMIT: u32 = 1023;

pub(super) struct PerVlan {
    pub(super) netlink: Netlink,
    /// Whether there is any uplink, and any mirror; None until somebody has looked. Only this process makes them.
    has_uplinks: Option<bool>,
    has_mirrors: Option<bool>,
}

impl PerVlan {
    pub(super) fn new(netlink: Netlink) -> Self {
        Self { netlink, has_uplinks: None, has_mirrors: None }
    }

    /// A switch that leaves uplinks to somebody else.
    pub(super) fn without_uplinks(netlink: Netlink) -> Self {
        Self { netlink, has_uplinks: Some(false), has_mirrors: None }
    }

    pub(super) fn plug_all(
        &mut self,
        ports: &[(SwitchPort, Segment)],
        bridges: &mut Bridges,
    ) -> Result<(), NetworkError> {
        for (port, segment) in ports {
            let bridge = self.bridge(segment, bridges)?;
            // A port first, then up: a tap that is up and no port hands its frames to the engine's own IP stack.
            self.enslave(port.index, bridge, &port.tap)?;
        }
        if self.any_uplinks()? {
            let users: BTreeSet<&BridgeName> = ports.iter().map(|(_, segment)| &segment.bridge).collect();
            users.into_iter().try_for_each(|bridge| self.join(bridge))?;
        }
        ports.iter().try_for_each(|(port, _)| self.settle(port.index, &port.tap))
    }

    /// Make an interface a port, then set it up.
    fn enslave(&mut self, index: u32, bridge: u32, name: &str) -> Result<(), NetworkError> {
        self.join_bridge(index, bridge, name)?;
        self.set_up(index, name)
    }

    pub(super) fn set_up(&mut self, index: u32, name: &str) -> Result<(), NetworkError> {
        self.netlink.set_up(index, true).map_err(kernel(format!("set {name} up")))
    }

    pub(super) fn join_bridge(&mut self, index: u32, bridge: u32, name: &str) -> Result<(), NetworkError> {
        self.netlink.set_master(index, Some(bridge)).map_err(|error| match error.raw_os_error() {
            Some(libc::EXFULL) => NetworkError::Unsupported {
                what: format!("connect {name}"),
                missing: format!(
                    "a Linux bridge has at most {PORT_LIMIT} ports; `megaform daemon --switch openvswitch` has no such limit"
                ),
            },
            _ => kernel(format!("connect {name}"))(error),
        })
    }

    fn any_uplinks(&mut self) -> Result<bool, NetworkError> {
        if self.has_uplinks.is_none() {
            self.has_uplinks = Some(!uplinks::of(&self.links()?, None).is_empty());
        }
        Ok(self.has_uplinks == Some(true))
    }

    /// The uplink of that name and kind on a bridge.
    pub(super) fn uplink(&mut self, bridge: &BridgeName, name: &TapName, tunnel: bool) -> Result<Uplink, NetworkError> {
        let found = self.find(name.as_str())?.and_then(|link| uplinks::read(&link));
        found.filter(|uplink| uplink.bridge == *bridge && uplink.tunnel == tunnel).ok_or_else(|| {
            NetworkError::NoUplink {
                bridge: bridge.to_string(),
                kind: if tunnel { "tunnel" } else { "trunk" },
                interface: name.to_string(),
            }
        })
    }

    /// Join a new uplink to its bridge; on failure it is gone.
    fn take_up(&mut self, uplink: &Uplink) -> Result<(), NetworkError> {
        self.join(&uplink.bridge).inspect_err(|_| {
            // Best effort: the first error is what the caller needs to know.
            let _ = self.part(uplink);
        })
    }

    pub(super) fn unplug_one(&mut self, port: &SwitchPort) -> Result<(), NetworkError> {
        // Down first: a tap that is up and no port hands its frames to the engine's own IP stack.
        self.netlink.set_up(port.index, false).map_err(kernel(format!("set {} down", port.tap)))?;
        self.netlink.set_master(port.index, None).map_err(kernel(format!("disconnect {}", port.tap)))
    }

    /// Put ports back to where they were when they were looked up. Best effort: whoever calls this has an error to tell.
    pub(super) fn put_back<'a>(&mut self, ports: impl Iterator<Item = &'a SwitchPort>) {
        for port in ports {
            if port.master.is_none() {
                let _ = self.netlink.set_up(port.index, false);
            }
            let _ = self.netlink.set_master(port.index, port.master);
            if port.master.is_some() {
                let _ = self.netlink.set_up(port.index, true);
            }
        }
    }

    pub(super) fn drop_empty(&mut self, bridges: &BTreeSet<u32>) -> Result<(), NetworkError> {
        let mut doomed = BTreeSet::new();
        let mut users = BTreeSet::new();
        for &index in bridges {
            if let Some((bridge, segment)) = self.empty_bridge(index)? {
                self.netlink.doom(index).map_err(kernel(format!("set the group of {}", bridge.name)))?;
                doomed.insert(index);
                users.insert(segment.bridge);
            }
        }
        if doomed.is_empty() {
            return Ok(());
        }
        let joined = self.any_uplinks()?;
        if joined {
            self.cut(&doomed)?;
        }
        self.netlink.delete_doomed().map_err(kernel("delete bridges"))?;
        if joined { users.iter().try_for_each(|bridge| self.join(bridge)) } else { Ok(()) }
    }

    /// Wait until a port passes frames. Without a carrier it never does: nobody has opened the tap yet. With one, the
    /// bridge hears of it from the kernel's link watch: at once if it is asked for (since Linux 6.8), otherwise within
    /// a second.
    pub(super) fn settle(&mut self, port: u32, name: &str) -> Result<(), NetworkError> {
        for _ in 0..SETTLE_ATTEMPTS {
            let link = self.netlink.link_by_index(port).map_err(kernel(format!("look up the port of {name}")))?;
            if link.is_none_or(|link| link.master.is_none() || !link.carrier || link.forwarding) {
                break;
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
        Ok(())
    }

    /// The bridge of a segment, made if there is none.
    fn bridge(&mut self, segment: &Segment, bridges: &mut Bridges) -> Result<u32, NetworkError> {
        if let Some(&index) = bridges.get(segment) {
            return Ok(index);
        }
        let alias = marker(segment);
        let natural =
            self.find(&bridge_name(&natural_name(segment), 0))?.filter(|link| link.is_bridge() && link.alias == alias);
        let index = match natural {
            Some(link) => link.index,
            None => {
                // The alias is the truth: it may have another name.
                let all = self.netlink.links(Links::Bridges).map_err(kernel("list bridges"))?;
                match all.iter().find(|link| link.is_bridge() && link.alias == alias) {
                    Some(link) => link.index,
                    None => {
                        self.create_bridge(&|attempt| bridge_name(&natural_name(segment), attempt), &alias, false)?
                    }
                }
            }
        };
        bridges.insert(segment.clone(), index);
        Ok(index)
    }

    /// Make a bridge under the first of its names that is free.
    pub(super) fn create_bridge(
        &mut self,
        name: &dyn Fn(u32) -> String,
        alias: &str,
        filtering: bool,
    ) -> Result<u32, NetworkError> {
        for name in (0..NAME_ATTEMPTS).map(name) {
            match self.netlink.create_bridge(&name, filtering) {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => continue,
                Err(error) => {
                    let missing = "CONFIG_BRIDGE (module bridge)";
                    return Err(refused(format!("create bridge {name}"), "create a bridge", missing)(error));
                }
                Ok(()) => {}
            }
            let link = self.find(&name)?.ok_or_else(|| NetworkError::NotFound { tap: name.clone() })?;
            return self.set_up_bridge(&link, alias).map(|()| link.index).inspect_err(|_| {
                // Best effort: the first error is what the caller needs to know.
                let _ = self.netlink.delete_link(link.index);
            });
        }
        Err(NetworkError::Exists { tap: name(NAME_ATTEMPTS - 1) })
    }

    fn set_up_bridge(&mut self, link: &Link, alias: &str) -> Result<(), NetworkError> {
        let name = &link.name;
        self.mark(link, alias)?;
        sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        sysctl(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
        let flags = LinkFlags::Up | LinkFlags::Noarp;
        self.netlink.set_flags(link.index, flags, flags).map_err(kernel(format!("set bridge {name} up")))
    }

    /// The bridge of this index and its segment, if it is the engine's and no port is left but legs.
    fn empty_bridge(&mut self, index: u32) -> Result<Option<(Link, Segment)>, NetworkError> {
        let found = self.netlink.link_by_index(index).map_err(kernel("look up a bridge"))?;
        let Some(bridge) = found else { return Ok(None) };
        let Some(segment) = read_marker(&bridge.alias) else { return Ok(None) };
        let what = format!("list the ports of bridge {}", bridge.name);
        let used = has_port(index, |port| !legs::is_leg(port)).map_err(kernel(what))?;
        Ok((!used).then_some((bridge, segment)))
    }

    pub(super) fn find(&mut self, name: &str) -> Result<Option<Link>, NetworkError> {
        self.netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))
    }

    /// Mark a bridge, and keep the engine's IP stack off it.
    fn mark(&mut self, link: &Link, alias: &str) -> Result<(), NetworkError> {
        self.netlink.set_alias(link.index, alias).map_err(kernel(format!("mark {}", link.name)))?;
        self.netlink.no_link_local(link.index).map_err(kernel(format!("turn off IPv6 on {}", link.name)))
    }

    pub(super) fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
        self.netlink.links(Links::All).map_err(kernel("list interfaces"))
    }
}

impl Switch for PerVlan {
    fn kind(&self) -> &'static str {
        "Linux bridges, one for each VLAN"
    }

    fn plug(&mut self, ports: &[(SwitchPort, Segment)]) -> Result<(), NetworkError> {
        let mut bridges = Bridges::new();
        if let Err(error) = self.plug_all(ports, &mut bridges) {
            self.put_back(ports.iter().map(|(port, _)| port));
            // Best effort: the first error is what the caller needs to know.
            let _ = self.drop_empty(&bridges.into_values().collect());
            return Err(error);
        }
        let now: BTreeSet<u32> = bridges.into_values().collect();
        let before: BTreeSet<u32> = ports.iter().filter_map(|(port, _)| port.master).collect();
        self.drop_empty(&before.difference(&now).copied().collect())
    }

    fn unplug(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        for port in ports {
            if let Err(error) = self.unplug_one(port) {
                self.put_back(ports.iter());
                return Err(error);
            }
        }
        self.drop_empty(&ports.iter().filter_map(|port| port.master).collect())
    }

    fn deleted(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        if self.has_mirrors != Some(false) {
            self.has_mirrors =
                Some(mirrors::remove_to(&mut self.netlink, &ports.iter().map(|port| port.index).collect())?);
        }
        self.drop_empty(&ports.iter().filter_map(|port| port.master).collect())
    }

    fn placed(&mut self, links: &[Link]) -> Result<HashMap<u32, Segment>, NetworkError> {
        let bridges: HashMap<u32, Segment> = segments(links).collect();
        let at = |link: &Link| Some((link.index, bridges.get(&link.master?)?.clone()));
        Ok(links.iter().filter_map(at).collect())
    }

    fn sweep(&mut self) -> Result<(), NetworkError> {
        let links = self.links()?;
        let uplinks = uplinks::of(&links, None);
        let bridges: BTreeSet<u32> = segments(&links).map(|(index, _)| index).collect();
        self.drop_empty(&bridges)?;
        // Legs whose uplink somebody has deleted by hand, and those that a deleted bridge has left.
        let left = |link: &Link| legs::is_leg(link) && (uplinks.is_empty() || link.master.is_none());
        for link in links.iter().filter(|link| left(link)) {
            match self.netlink.delete_link(link.index) {
                Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                    return Err(kernel(format!("delete {}", link.name))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn sweep_half_made(&mut self) -> Result<(), NetworkError> {
        let links = self.links()?;
        for link in &links {
            let bridge = link.alias.is_empty()
                && link.is_bridge()
                && looks_like_bridge(&link.name)
                && !links.iter().any(|port| port.master == Some(link.index));
            if bridge || legs::is_half_made(link) {
                self.netlink.delete_link(link.index).map_err(kernel(format!("delete {}", link.name)))?;
            }
        }
        Ok(())
    }

    fn bridges(&mut self) -> Result<Vec<BridgeInfo>, NetworkError> {
        let links = self.links()?;
        let mut bridges = BTreeMap::new();
        for (_, segment) in segments(&links) {
            bridge_info(&mut bridges, segment.bridge).vlans.insert(segment.vlan);
        }
        for uplink in uplinks::of(&links, None) {
            let info = bridge_info(&mut bridges, uplink.bridge);
            info.ends.extend(uplink.to.map(|to| (uplink.name.clone(), to)));
            if uplink.tunnel { &mut info.tunnels } else { &mut info.trunks }.push(uplink.name);
        }
        Ok(bridges.into_values().collect())
    }

    fn trunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let uplink = uplinks::claim(&mut self.netlink, bridge, interface)?;
        self.take_up(&uplink)
    }

    fn untrunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let uplink = self.uplink(bridge, interface, false)?;
        self.part(&uplink)
    }

    fn tunnel(&mut self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        let uplink = uplinks::make_tunnel(&mut self.netlink, bridge, tunnel)?;
        self.take_up(&uplink)?;
        Ok(uplink.name)
    }

    fn untunnel(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let uplink = self.uplink(bridge, interface, true)?;
        self.part(&uplink)
    }

    fn destroy(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let links = self.links()?;
        for uplink in uplinks::of(&links, Some(bridge)) {
            self.part(&uplink)?;
        }
        let own: BTreeSet<u32> =
            segments(&links).filter(|(_, s)| s.bridge == *bridge).map(|(index, _)| index).collect();
        self.drop_empty(&own)
    }

    fn mirror(&mut self, source: &SwitchPort, destination: &SwitchPort) -> Result<(), NetworkError> {
        self.has_mirrors = Some(true);
        mirrors::add(&mut self.netlink, source, destination)
    }

    fn unmirror(&mut self, destination: &SwitchPort) -> Result<(), NetworkError> {
        self.has_mirrors = Some(mirrors::remove_to(&mut self.netlink, &BTreeSet::from([destination.index]))?);
        Ok(())
    }

    fn mirrors(&mut self) -> Result<Vec<(u32, u32)>, NetworkError> {
        mirrors::list(&mut self.netlink)
    }

    /// A bridge in promiscuous mode hands every frame that it forwards to its own interface, once.
    fn hear(&mut self, bridges: &BTreeSet<BridgeName>, links: &[Link]) -> Result<Vec<(BridgeName, Ear)>, NetworkError> {
        let ear = |link: &Link| {
            let Segment { bridge, vlan } = read_marker(&link.alias).filter(|_| link.is_bridge())?;
            let vlan = Some(vlan).filter(|vlan| vlan.get() != 0);
            bridges.contains(&bridge).then_some((bridge, Ear { index: link.index, vlan, promiscuous: true }))
        };
        Ok(links.iter().filter_map(ear).collect())
    }
}

pub(super) fn bridge_info(bridges: &mut BTreeMap<BridgeName, BridgeInfo>, bridge: BridgeName) -> &mut BridgeInfo {
    bridges.entry(bridge.clone()).or_insert_with(|| BridgeInfo::new(bridge))
}

/// Are there bridges of this form? Those of the last two VLANs belong to either form.
pub(super) fn is_used(netlink: &mut Netlink) -> Result<bool, NetworkError> {
    let bridges = netlink.links(Links::Bridges).map_err(kernel("list bridges"))?;
    Ok(segments(&bridges).any(|(_, segment)| segment.vlan.get() < 4094))
}

/// The bridges of segments.
pub(super) fn segments(links: &[Link]) -> impl Iterator<Item = (u32, Segment)> {
    links.iter().filter_map(|link| Some((link.index, read_marker(&link.alias)?)))
}

/// The alias of a segment's bridge.
fn marker(segment: &Segment) -> String {
    format!("megaform bridge={} vlan={}", segment.bridge, segment.vlan)
}

fn read_marker(alias: &str) -> Option<Segment> {
    let (bridge, vlan) = alias.strip_prefix("megaform bridge=")?.split_once(" vlan=")?;
    Some(Segment { bridge: BridgeName::new(bridge).ok()?, vlan: VlanTag::new(vlan.parse().ok()?)? })
}

fn natural_name(segment: &Segment) -> String {
    format!("{}.{}", segment.bridge, segment.vlan)
}

/// The name of a bridge: `mega_bridge.101` where that fits, otherwise made of a hash. Later attempts give other names.
pub(super) fn bridge_name(natural: &str, attempt: u32) -> String {
    if attempt == 0 && natural.len() <= NAME_LIMIT {
        return natural.to_owned();
    }
    let hash = Sha256::digest(format!("{natural} {attempt}"));
    hash.iter().take(6).fold("mb".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Could [`bridge_name`] have given this name?
fn looks_like_bridge(name: &str) -> bool {
    let natural = name.rsplit_once('.').is_some_and(|(_, vlan)| vlan.parse::<u16>().is_ok());
    let hashed =
        name.strip_prefix("mb").is_some_and(|hash| hash.len() == 12 && hash.bytes().all(|b| b.is_ascii_hexdigit()));
    natural || hashed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(bridge: &str, vlan: u64) -> Segment {
        Segment { bridge: BridgeName::new(bridge).unwrap(), vlan: VlanTag::new(vlan).unwrap() }
    }

    #[test]
    fn bridge_names_fit_and_differ() {
        assert_eq!(bridge_name(&natural_name(&segment("mega_bridge", 101)), 0), "mega_bridge.101");
        let long = bridge_name(&natural_name(&segment("mega_bridge", 4094)), 0);
        assert_eq!(long, bridge_name(&natural_name(&segment("mega_bridge", 4094)), 0));
        let names = [
            long,
            bridge_name(&natural_name(&segment("mega_bridge", 4095)), 0),
            bridge_name(&natural_name(&segment("mega_bridge", 101)), 0),
            bridge_name(&natural_name(&segment("mega_bridge", 101)), 1),
            bridge_name(&natural_name(&segment("mega_bridge", 101)), 2),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= NAME_LIMIT, "{name}");
            assert!(!names[..at].contains(name), "{name} twice");
        }
    }

    #[test]
    fn the_marker_names_the_segment() {
        for segment in [segment("mega_bridge", 0), segment("b.7", 4095)] {
            assert_eq!(read_marker(&marker(&segment)), Some(segment));
        }
        for alias in ["", "megaform", "megaform bridge= vlan=1", "megaform bridge=a vlan=4096", "megaform tap x"] {
            assert_eq!(read_marker(alias), None, "{alias}");
        }
    }
}
