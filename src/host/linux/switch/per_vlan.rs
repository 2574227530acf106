//! The switch of a kernel without VLAN filtering: a Linux bridge for each segment.
//!
//! A bridge is told by its alias (IFLA_IFALIAS), `megaform bridge=mega_bridge vlan=101`, never by its name. It comes with
//! the first port of its segment and goes with the last. The engine is on a segment through its host taps only: bridges
//! take no ARP, no IPv6, and no IPv4 but by a route (strict reverse path filter), and they have no address and no route.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use netlink_packet_route::link::LinkFlags;
use nix::libc;
use sha2::{Digest, Sha256};

use super::{Ear, Switch, SwitchPort};
use crate::host::linux::failure::{kernel, refused};
use crate::host::linux::namespace::sysctl;
use crate::host::linux::netlink::{Link, Links, Netlink, has_ports};
use crate::host::{NetworkError, Segment};
use crate::name::{BridgeName, TapName, VlanTag};

/// The longest interface name.
const NAME_LIMIT: usize = TapName::LIMIT;
/// How many names of a bridge are tried; a second one is needed only where somebody else has the first.
const NAME_ATTEMPTS: u32 = 8;
/// Together twice the longest delay of the kernel's link watch.
const SETTLE_ATTEMPTS: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// The bridges that one call has used, so that each is looked up once.
type Bridges = HashMap<Segment, u32>;

pub(super) struct PerVlan {
    netlink: Netlink,
}

impl PerVlan {
    pub(super) fn new(netlink: Netlink) -> Self {
        Self { netlink }
    }

    fn plug_all(&mut self, ports: &[(SwitchPort, Segment)], bridges: &mut Bridges) -> Result<(), NetworkError> {
        for (port, segment) in ports {
            let bridge = self.bridge(segment, bridges)?;
            // A port first, then up: a tap that is up and no port hands its frames to the engine's own IP stack.
            self.netlink.set_master(port.index, Some(bridge)).map_err(kernel(format!("connect {}", port.tap)))?;
            self.netlink.set_up(port.index, true).map_err(kernel(format!("set {} up", port.tap)))?;
        }
        ports.iter().try_for_each(|(port, _)| self.settle(port.index, &port.tap))
    }

    fn unplug_one(&mut self, port: &SwitchPort) -> Result<(), NetworkError> {
        // Down first: a tap that is up and no port hands its frames to the engine's own IP stack.
        self.netlink.set_up(port.index, false).map_err(kernel(format!("set {} down", port.tap)))?;
        self.netlink.set_master(port.index, None).map_err(kernel(format!("disconnect {}", port.tap)))
    }

    /// Put ports back to where they were when they were looked up. Best effort: whoever calls this has an error to tell.
    fn put_back<'a>(&mut self, ports: impl Iterator<Item = &'a SwitchPort>) {
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

    fn drop_empty(&mut self, bridges: &BTreeSet<u32>) -> Result<(), NetworkError> {
        let mut doomed = false;
        for &index in bridges {
            if let Some(bridge) = self.empty_bridge(index)? {
                self.netlink.doom(index).map_err(kernel(format!("set the group of {}", bridge.name)))?;
                doomed = true;
            }
        }
        if doomed { self.netlink.delete_doomed().map_err(kernel("delete bridges")) } else { Ok(()) }
    }

    /// Wait until a port passes frames. Without a carrier it never does: nobody has opened the tap yet. With one, the
    /// bridge hears of it from the kernel's link watch: at once if it is asked for (since Linux 6.8), otherwise within
    /// a second.
    fn settle(&mut self, port: u32, name: &str) -> Result<(), NetworkError> {
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
        let natural = self.find(&bridge_name(segment, 0))?.filter(|link| link.is_bridge() && link.alias == alias);
        let index = match natural {
            Some(link) => link.index,
            None => {
                // The alias is the truth: it may have another name.
                let all = self.netlink.links(Links::Bridges).map_err(kernel("list bridges"))?;
                match all.iter().find(|link| link.is_bridge() && link.alias == alias) {
                    Some(link) => link.index,
                    None => self.create_bridge(segment, &alias)?,
                }
            }
        };
        bridges.insert(segment.clone(), index);
        Ok(index)
    }

    fn create_bridge(&mut self, segment: &Segment, alias: &str) -> Result<u32, NetworkError> {
        for attempt in 0..NAME_ATTEMPTS {
            let name = bridge_name(segment, attempt);
            match self.netlink.create_bridge(&name) {
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
        Err(NetworkError::Exists { tap: bridge_name(segment, NAME_ATTEMPTS - 1) })
    }

    fn set_up_bridge(&mut self, link: &Link, alias: &str) -> Result<(), NetworkError> {
        let name = &link.name;
        self.mark(link, alias)?;
        sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        sysctl(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
        let flags = LinkFlags::Up | LinkFlags::Noarp;
        self.netlink.set_flags(link.index, flags, flags).map_err(kernel(format!("set bridge {name} up")))
    }

    /// The bridge of this index if it is the engine's and has no port.
    fn empty_bridge(&mut self, index: u32) -> Result<Option<Link>, NetworkError> {
        let found = self.netlink.link_by_index(index).map_err(kernel("look up a bridge"))?;
        let Some(bridge) = found.filter(|link| read_marker(&link.alias).is_some()) else { return Ok(None) };
        let used = has_ports(index).map_err(kernel(format!("list the ports of bridge {}", bridge.name)))?;
        Ok((!used).then_some(bridge))
    }

    fn find(&mut self, name: &str) -> Result<Option<Link>, NetworkError> {
        self.netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))
    }

    /// Mark a bridge, and keep the engine's IP stack off it.
    fn mark(&mut self, link: &Link, alias: &str) -> Result<(), NetworkError> {
        self.netlink.set_alias(link.index, alias).map_err(kernel(format!("mark {}", link.name)))?;
        self.netlink.no_link_local(link.index).map_err(kernel(format!("turn off IPv6 on {}", link.name)))
    }

    fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
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
        self.drop_empty(&ports.iter().filter_map(|port| port.master).collect())
    }

    fn placed(&mut self, links: &[Link]) -> Result<HashMap<u32, Segment>, NetworkError> {
        let bridges: HashMap<u32, Segment> =
            links.iter().filter_map(|link| Some((link.index, read_marker(&link.alias)?))).collect();
        let at = |link: &Link| Some((link.index, bridges.get(&link.master?)?.clone()));
        Ok(links.iter().filter_map(at).collect())
    }

    fn sweep(&mut self) -> Result<(), NetworkError> {
        let links = self.links()?;
        for link in &links {
            if read_marker(&link.alias).is_some() && !links.iter().any(|port| port.master == Some(link.index)) {
                self.netlink.delete_link(link.index).map_err(kernel(format!("delete bridge {}", link.name)))?;
            }
        }
        Ok(())
    }

    fn sweep_half_made(&mut self) -> Result<(), NetworkError> {
        let links = self.links()?;
        for link in links.iter().filter(|link| link.alias.is_empty() && link.is_bridge()) {
            if looks_like_bridge(&link.name) && !links.iter().any(|port| port.master == Some(link.index)) {
                self.netlink.delete_link(link.index).map_err(kernel(format!("delete {}", link.name)))?;
            }
        }
        Ok(())
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

/// The alias of a segment's bridge.
fn marker(segment: &Segment) -> String {
    format!("megaform bridge={} vlan={}", segment.bridge, segment.vlan)
}

fn read_marker(alias: &str) -> Option<Segment> {
    let (bridge, vlan) = alias.strip_prefix("megaform bridge=")?.split_once(" vlan=")?;
    Some(Segment { bridge: BridgeName::new(bridge).ok()?, vlan: VlanTag::new(vlan.parse().ok()?)? })
}

/// The name of a segment's bridge: `mega_bridge.101` where that fits, otherwise made of a hash. Later attempts give
/// other names.
fn bridge_name(segment: &Segment, attempt: u32) -> String {
    let natural = format!("{}.{}", segment.bridge, segment.vlan);
    if attempt == 0 && natural.len() <= NAME_LIMIT {
        return natural;
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
        assert_eq!(bridge_name(&segment("mega_bridge", 101), 0), "mega_bridge.101");
        let long = bridge_name(&segment("mega_bridge", 4094), 0);
        assert_eq!(long, bridge_name(&segment("mega_bridge", 4094), 0));
        let names = [
            long,
            bridge_name(&segment("mega_bridge", 4095), 0),
            bridge_name(&segment("mega_bridge", 101), 0),
            bridge_name(&segment("mega_bridge", 101), 1),
            bridge_name(&segment("mega_bridge", 101), 2),
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
