//! Taps and bridges in the network namespace of one thread.
//!
//! A segment is a Linux bridge of its own. What belongs to the engine is told by its alias (IFLA_IFALIAS), never by its
//! name:
//!
//! * a bridge: `megaform bridge=mega_bridge vlan=101`
//! * a tap: `megaform tap ` and the owner's text. For a VM it is a tap device and itself the port of the bridge. For the
//!   host it is one end of a veth pair, because an IP stack can only use an interface that is *not* a port.
//! * the other end of that pair, the port of the bridge: `megaform peer`
//!
//! Nothing else is changed or deleted. The engine is on a segment through its host taps only: bridges take no ARP, no
//! IPv6, and no IPv4 but by a route (strict reverse path filter), and they have no address and no route.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::link::{InfoKind, LinkFlags};
use nix::libc;
use sha2::{Digest, Sha256};

use super::namespace::{lacks_privilege, sysctl};
use super::netlink::{Link, Links, Netlink, has_ports};
use super::tun::{self, Tap};
use crate::host::{NetworkError, NewTap, Port, Segment, TapKind};
use crate::name::{BridgeName, TapName, VlanTag};

/// Begins the alias of every tap.
pub(super) const TAP: &str = "megaform tap ";
const PEER: &str = "megaform peer";
/// The kernel fills in the number.
const PEER_NAME: &str = "megaport%d";
/// The longest interface name.
const NAME_LIMIT: usize = TapName::LIMIT;
/// The longest owner's text.
const OWNER_LIMIT: usize = 200;
/// How many names of a bridge are tried; a second one is needed only where somebody else has the first.
const NAME_ATTEMPTS: u32 = 8;
/// Together twice the longest delay of the kernel's link watch.
const SETTLE_ATTEMPTS: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// The interface group of what is about to be deleted ("mf" and nothing). Interfaces are in group 0 unless somebody puts
/// them elsewhere, so nobody else's are in this one.
const DOOMED: u32 = 0x6d66_0000;

pub(super) struct Ports {
    netlink: Netlink,
}

/// The bridges that one batch has used, so that each is looked up once.
type Bridges = HashMap<Segment, u32>;

impl Ports {
    pub(super) fn open() -> Result<Self, NetworkError> {
        let netlink = Netlink::open().map_err(kernel("open a netlink socket"))?;
        Ok(Self { netlink })
    }

    /// Set up a namespace of the engine's own. Doing it twice is fine.
    pub(super) fn configure_namespace(&mut self) -> Result<(), NetworkError> {
        let lo = self.find("lo")?;
        if let Some(lo) = lo {
            self.netlink.set_up(lo.index, true).map_err(kernel("set lo up"))?;
        }
        // The kernel copies these from the host's namespace: forwarding would join the segments on which the engine
        // has addresses, and a firewall that sees bridged frames would drop the malformed ones that a test may be about.
        sysctl("ipv4/ip_forward", "0")?;
        for table in ["iptables", "ip6tables", "arptables"] {
            sysctl(&format!("bridge/bridge-nf-call-{table}"), "0")?;
        }
        Ok(())
    }

    pub(super) fn create_all(&mut self, taps: &[NewTap]) -> Result<(), NetworkError> {
        taps.iter().try_for_each(check)?;
        let mut bridges = Bridges::new();
        for (done, tap) in taps.iter().enumerate() {
            if let Err(error) = self.create(tap, &mut bridges) {
                for tap in taps[..done].iter().rev() {
                    // Best effort: the first error is what the caller needs to know.
                    let _ = self.delete(&tap.tap);
                }
                for bridge in bridges.into_values() {
                    let _ = self.drop_bridge_if_empty(bridge);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn create(&mut self, new: &NewTap, bridges: &mut Bridges) -> Result<(), NetworkError> {
        match new.kind {
            TapKind::Vm => self.create_vm_tap(new, bridges),
            TapKind::Host => {
                let link = self.create_pair(&new.tap)?;
                self.set_up_pair(&link, new, bridges).inspect_err(|_| {
                    // Best effort: the first error is what the caller needs to know. The peer goes with it.
                    let _ = self.netlink.delete_link(link.index);
                })
            }
        }
    }

    fn create_vm_tap(&mut self, new: &NewTap, bridges: &mut Bridges) -> Result<(), NetworkError> {
        let name = new.tap.as_str();
        let device = Tap::open().map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => NetworkError::Unsupported {
                what: "create a tap".to_owned(),
                missing: format!("the device {} (kernel option CONFIG_TUN, module tun)", tun::DEVICE),
            },
            _ => kernel(format!("open {}", tun::DEVICE))(error),
        })?;
        // Until it is kept, the tap goes with this descriptor.
        let tap = Tap::create(device, name).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => NetworkError::Exists { tap: name.to_owned() },
            _ => refused(format!("create tap {name}"), "create a tap", "CONFIG_TUN (module tun)")(error),
        })?;
        let link = self.find(name)?.ok_or_else(|| NetworkError::NotFound { tap: name.to_owned() })?;
        self.mark(&link, &format!("{TAP}{}", new.owner))?;
        if let Some(segment) = &new.segment {
            let bridge = self.bridge(segment, bridges)?;
            self.plug(link.index, bridge, name)?;
        }
        tap.keep().map_err(kernel(format!("keep tap {name}")))
    }

    fn create_pair(&mut self, tap: &TapName) -> Result<Link, NetworkError> {
        let name = tap.as_str();
        self.netlink.create_veth(name, PEER_NAME).map_err(|error| match error.raw_os_error() {
            Some(libc::EEXIST) => NetworkError::Exists { tap: name.to_owned() },
            _ => refused(format!("create tap {name}"), "create a host tap", "CONFIG_VETH (module veth)")(error),
        })?;
        self.find(name)?.ok_or_else(|| NetworkError::NotFound { tap: name.to_owned() })
    }

    fn set_up_pair(&mut self, link: &Link, new: &NewTap, bridges: &mut Bridges) -> Result<(), NetworkError> {
        let name = new.tap.as_str();
        let peer = self.port_of(link)?;
        self.netlink.set_alias(link.index, &format!("{TAP}{}", new.owner)).map_err(kernel(format!("mark {name}")))?;
        self.mark(&peer, PEER)?;
        // A guest must not give the engine a default route, and learns the addresses of this segment only.
        sysctl(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        sysctl(&format!("ipv4/conf/{name}/arp_ignore"), "1")?;
        for &(address, prefix) in &new.addresses {
            self.netlink
                .add_address(link.index, address, prefix)
                .map_err(kernel(format!("add address {address}/{prefix} to {name}")))?;
        }
        if let Some(segment) = &new.segment {
            let bridge = self.bridge(segment, bridges)?;
            self.plug(peer.index, bridge, name)?;
        }
        self.netlink.set_up(link.index, true).map_err(kernel(format!("set {name} up")))?;
        self.settle(peer.index, name)
    }

    pub(super) fn connect(&mut self, tap: &TapName, segment: Option<&Segment>) -> Result<(), NetworkError> {
        let name = tap.as_str();
        let link = self.ours(tap)?;
        let port = self.port_of(&link)?;
        let bridge = match segment {
            Some(segment) => {
                let bridge = self.bridge(segment, &mut Bridges::new())?;
                if let Err(error) = self.plug(port.index, bridge, name) {
                    // Best effort: back to where it was; the first error is what the caller needs to know.
                    let _ = self.netlink.set_master(port.index, port.master);
                    let _ = self.netlink.set_up(port.index, port.master.is_some());
                    let _ = self.drop_bridge_if_empty(bridge);
                    return Err(error);
                }
                self.settle(port.index, name)?;
                Some(bridge)
            }
            None => {
                // Down first: a tap that is up and no port hands its frames to the engine's own IP stack.
                self.netlink.set_up(port.index, false).map_err(kernel(format!("set {name} down")))?;
                self.netlink.set_master(port.index, None).map_err(kernel(format!("disconnect {name}")))?;
                None
            }
        };
        match port.master {
            Some(old) if Some(old) != bridge => self.drop_bridge_if_empty(old),
            _ => Ok(()),
        }
    }

    pub(super) fn delete(&mut self, tap: &TapName) -> Result<(), NetworkError> {
        let link = self.ours(tap)?;
        let port = self.port_of(&link)?;
        self.netlink.delete_link(link.index).map_err(kernel(format!("delete tap {tap}")))?;
        port.master.map_or(Ok(()), |bridge| self.drop_bridge_if_empty(bridge))
    }

    /// Delete many taps, each once the kernel has been told of all; those that are not there are fine.
    pub(super) fn delete_all(&mut self, taps: &[TapName]) -> Result<(), NetworkError> {
        let mut bridges = BTreeSet::new();
        for tap in taps {
            let Some(link) = self.find(tap.as_str())?.filter(|link| link.alias.starts_with(TAP)) else { continue };
            bridges.extend(self.port_of(&link)?.master);
            self.doom(&link)?;
        }
        self.netlink.delete_group(DOOMED).map_err(kernel("delete taps"))?;
        for index in bridges {
            if let Some(bridge) = self.empty_bridge(index)? {
                self.doom(&bridge)?;
            }
        }
        self.netlink.delete_group(DOOMED).map_err(kernel("delete bridges"))
    }

    fn doom(&mut self, link: &Link) -> Result<(), NetworkError> {
        self.netlink.set_group(link.index, DOOMED).map_err(kernel(format!("set the group of {}", link.name)))
    }

    pub(super) fn list(&mut self) -> Result<Vec<Port>, NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        let by_index: HashMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
        let mut addresses: HashMap<u32, Vec<(IpAddr, u8)>> = HashMap::new();
        for found in self.netlink.addresses().map_err(kernel("list addresses"))? {
            let link_local = matches!(found.address, IpAddr::V6(address) if address.is_unicast_link_local());
            if found.permanent && !link_local {
                addresses.entry(found.index).or_default().push((found.address, found.prefix));
            }
        }
        let mut ports = Vec::new();
        for link in &links {
            let (Some(owner), Ok(tap)) = (link.alias.strip_prefix(TAP), TapName::new(&link.name)) else { continue };
            let port = if is_pair(link) { link.peer.and_then(|peer| by_index.get(&peer).copied()) } else { Some(link) };
            let bridge = port.and_then(|port| port.master).and_then(|master| by_index.get(&master));
            let mut addresses = addresses.remove(&link.index).unwrap_or_default();
            addresses.sort_unstable();
            ports.push(Port {
                tap,
                segment: bridge.and_then(|bridge| read_marker(&bridge.alias)),
                addresses,
                owner: owner.to_owned(),
            });
        }
        ports.sort_by(|a, b| a.tap.cmp(&b.tap));
        Ok(ports)
    }

    /// Delete the engine's bridges that have no port.
    pub(super) fn sweep(&mut self) -> Result<(), NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        for link in &links {
            if read_marker(&link.alias).is_some() && !links.iter().any(|port| port.master == Some(link.index)) {
                self.netlink.delete_link(link.index).map_err(kernel(format!("delete bridge {}", link.name)))?;
            }
        }
        Ok(())
    }

    /// Delete what a process that was killed has left between making an interface and marking it. Only for a namespace of
    /// the engine's own: elsewhere it could be another engine's that is just being made.
    pub(super) fn sweep_half_made(&mut self) -> Result<(), NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        for link in links.iter().filter(|link| link.alias.is_empty()) {
            let far = link.peer.and_then(|peer| links.iter().find(|other| other.index == peer));
            // A host tap is marked before its peer, and the peer goes with it.
            let peer_of_none = is_pair(link)
                && link.name.starts_with(PEER_NAME.trim_end_matches("%d"))
                && far.is_none_or(|far| far.alias.is_empty() || far.alias.starts_with(TAP));
            let bridge = is_bridge(link)
                && looks_like_bridge(&link.name)
                && !links.iter().any(|port| port.master == Some(link.index));
            if peer_of_none || bridge {
                self.netlink.delete_link(link.index).map_err(kernel(format!("delete {}", link.name)))?;
            }
        }
        Ok(())
    }

    fn find(&mut self, name: &str) -> Result<Option<Link>, NetworkError> {
        self.netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))
    }

    /// A tap of the engine. Somebody else's interface of that name is none.
    fn ours(&mut self, tap: &TapName) -> Result<Link, NetworkError> {
        self.find(tap.as_str())?
            .filter(|link| link.alias.starts_with(TAP))
            .ok_or_else(|| NetworkError::NotFound { tap: tap.to_string() })
    }

    /// What is or would be the port of a bridge for this tap.
    fn port_of(&mut self, link: &Link) -> Result<Link, NetworkError> {
        if !is_pair(link) {
            return Ok(link.clone());
        }
        let peer = match link.peer {
            Some(peer) => {
                self.netlink.link_by_index(peer).map_err(kernel(format!("look up the peer of {}", link.name)))?
            }
            None => None,
        };
        peer.ok_or_else(|| NetworkError::NotFound { tap: format!("{} (its peer has left this namespace)", link.name) })
    }

    /// Mark an interface that is to be a port, and keep the engine's IP stack off it.
    fn mark(&mut self, link: &Link, alias: &str) -> Result<(), NetworkError> {
        self.netlink.set_alias(link.index, alias).map_err(kernel(format!("mark {}", link.name)))?;
        self.netlink.no_link_local(link.index).map_err(kernel(format!("turn off IPv6 on {}", link.name)))
    }

    /// Make an interface a port of a bridge and set it up, in this order.
    fn plug(&mut self, port: u32, bridge: u32, name: &str) -> Result<(), NetworkError> {
        self.netlink.set_master(port, Some(bridge)).map_err(kernel(format!("connect {name}")))?;
        self.netlink.set_up(port, true).map_err(kernel(format!("set {name} up")))
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
        let natural = self.find(&bridge_name(segment, 0))?.filter(|link| is_bridge(link) && link.alias == alias);
        let index = match natural {
            Some(link) => link.index,
            None => {
                // The alias is the truth: it may have another name.
                let all = self.netlink.links(Links::Bridges).map_err(kernel("list bridges"))?;
                match all.iter().find(|link| is_bridge(link) && link.alias == alias) {
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

    /// Delete a bridge if it is the engine's and has no port.
    fn drop_bridge_if_empty(&mut self, index: u32) -> Result<(), NetworkError> {
        match self.empty_bridge(index)? {
            Some(bridge) => self.netlink.delete_link(index).map_err(kernel(format!("delete bridge {}", bridge.name))),
            None => Ok(()),
        }
    }
}

fn is_pair(link: &Link) -> bool {
    link.kind == Some(InfoKind::Veth)
}

fn is_bridge(link: &Link) -> bool {
    link.kind == Some(InfoKind::Bridge)
}

/// The alias of a segment's bridge.
fn marker(segment: &Segment) -> String {
    format!("megaform bridge={} vlan={}", segment.bridge, segment.vlan)
}

/// The segment of a bridge, by its alias.
pub(super) fn read_marker(alias: &str) -> Option<Segment> {
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

fn check(new: &NewTap) -> Result<(), NetworkError> {
    let wrong = |reason: &str| NetworkError::Kernel {
        what: format!("create tap {}", new.tap),
        source: io::Error::new(io::ErrorKind::InvalidInput, reason.to_owned()),
    };
    if new.kind == TapKind::Vm && !new.addresses.is_empty() {
        return Err(wrong("a VM's tap takes no addresses"));
    }
    if new.owner.len() > OWNER_LIMIT || new.owner.chars().any(char::is_control) {
        return Err(wrong("the owner's text is longer than 200 bytes or has control characters"));
    }
    let too_long = |&(address, prefix): &(IpAddr, u8)| prefix > if address.is_ipv4() { 32 } else { 128 };
    if new.addresses.iter().any(too_long) {
        return Err(wrong("the prefix is longer than the address"));
    }
    Ok(())
}

fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let what = what.into();
    move |source| match source.raw_os_error() {
        Some(libc::EPERM) => lacks_privilege(&what),
        _ => NetworkError::Kernel { what, source },
    }
}

/// As `kernel`, where the kernel may have been built without the feature.
fn refused(what: String, feature: &'static str, option: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| match source.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENODEV) => {
            NetworkError::Unsupported { what: feature.to_owned(), missing: format!("the kernel option {option}") }
        }
        _ => kernel(what)(source),
    }
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
