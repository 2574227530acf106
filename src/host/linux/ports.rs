//! Taps in the network namespace of one thread, and the interfaces that they are made of. A [`Switch`] connects them.
//!
//! What belongs to the engine is told by its alias (IFLA_IFALIAS), never by its name:
//!
//! * a tap: `megaform tap name=mega_tap0 ` and the owner's text. The name is that which it was made with, so that one that
//!   somebody renames by hand is still found; the next operation gives it its name back. For a VM it is a tap device and itself the port of the switch. For the
//!   host it is one end of a veth pair, because an IP stack can only use an interface that is *not* a port.
//! * the other end of that pair, the port: `megaform peer`; of a gateway's foot, whose other end is elsewhere: `megaform foot
//!   name=mn0`
//! * what a switch makes carries marks of its own
//!
//! Nothing else is changed or deleted.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::libc;

use super::failure::{kernel, refused};
use super::namespace::sysctl;
use super::netlink::{Link, Links, Netlink};
use super::switch::{self, Ear, Form, Switch, SwitchPort};
use super::tun::{self, Tap};
use crate::host::{Bond, BridgeInfo, Mirror, NetworkError, NewTap, Port, Segment, SniffTarget, SwitchChoice, TapKind};
use crate::name::{BridgeName, TapName};

const TAP: &str = "megaform tap name=";
const PEER: &str = "megaform peer";
const FOOT: &str = "megaform foot name=";
/// The kernel fills in the number.
const PEER_NAME: &str = "megaport%d";
/// The longest owner's text.
const OWNER_LIMIT: usize = 200;

pub(super) struct Ports {
    pub(super) netlink: Netlink,
    switch: Box<dyn Switch>,
}

impl Ports {
    /// In the calling thread's namespace; `folder` as for [`switch::open`].
    pub(super) fn open(switch: &SwitchChoice, form: Form, folder: Option<&Path>) -> Result<Self, NetworkError> {
        let netlink = Netlink::open().map_err(kernel("open a netlink socket"))?;
        Ok(Self { netlink, switch: switch::open(switch, form, folder)? })
    }

    /// Make a bond of taps that are connected to one segment.
    pub(super) fn bond(&mut self, bond: &Bond) -> Result<(), NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        let placed = self.switch.placed(&links)?;
        let ports: Vec<SwitchPort> = bond.taps.iter().map(|tap| self.switch_port(tap)).collect::<Result<_, _>>()?;
        let wrong = |reason: String| NetworkError::Switch {
            what: format!("make bond {}", bond.name),
            source: Box::new(io::Error::new(io::ErrorKind::InvalidInput, reason)),
        };
        let mut segment = None;
        for port in &ports {
            let here = placed.get(&port.index).ok_or_else(|| wrong(format!("{} is disconnected", port.tap)))?;
            let first = segment.get_or_insert(here);
            if *first != here {
                let (a, b) =
                    (format!("{} of {}", first.vlan, first.bridge), format!("{} of {}", here.vlan, here.bridge));
                return Err(wrong(format!("its interfaces are on different VLANs: {a} and {b}")));
            }
        }
        let segment = segment.ok_or_else(|| wrong("it has no interface".to_owned()))?;
        self.switch.bond(&ports, segment, bond)
    }

    /// The bonds, with the taps that they are made of.
    pub(super) fn bonds(&mut self) -> Result<Vec<Bond>, NetworkError> {
        let mut bonds = self.switch.bonds()?;
        if bonds.is_empty() {
            return Ok(bonds);
        }
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        // A host tap's port has a name of its own.
        let port_names: HashMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
        for tap in bonds.iter_mut().flat_map(|bond| &mut bond.taps) {
            let Some(link) = port_names.get(tap.as_str()).filter(|link| link.alias == PEER) else { continue };
            let far = links.iter().find(|far| Some(far.index) == link.peer);
            if let Some(name) = far.and_then(|far| TapName::new(&far.name).ok()) {
                *tap = name;
            }
        }
        Ok(bonds)
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
        let mut made = Vec::new();
        let mut places = Vec::new();
        let created = taps.iter().try_for_each(|new| {
            let port = self.create(new)?;
            if let Some(segment) = &new.segment {
                places.push((port, segment.clone()));
            }
            made.push(new.tap.clone());
            Ok(())
        });
        created.and_then(|()| self.switch.plug(&places)).inspect_err(|_| {
            // Best effort: the first error is what the caller needs to know.
            let _ = self.delete_all(&made);
        })
    }

    /// Make a tap that is connected nowhere, and answer with what will be its port.
    fn create(&mut self, new: &NewTap) -> Result<SwitchPort, NetworkError> {
        match new.kind {
            TapKind::Vm => self.create_vm_tap(new),
            TapKind::Host => {
                let link = self.create_pair(&new.tap)?;
                self.set_up_pair(&link, new).inspect_err(|_| {
                    // Best effort: the first error is what the caller needs to know. The peer goes with it.
                    let _ = self.netlink.delete_link(link.index);
                })
            }
        }
    }

    fn create_vm_tap(&mut self, new: &NewTap) -> Result<SwitchPort, NetworkError> {
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
        self.mark(&link, &mark_of(new))?;
        tap.keep().map_err(kernel(format!("keep tap {name}")))?;
        Ok(SwitchPort { fresh: true, ..switch_port(&link, &new.tap) })
    }

    fn create_pair(&mut self, tap: &TapName) -> Result<Link, NetworkError> {
        let name = tap.as_str();
        self.netlink.create_veth(name, PEER_NAME).map_err(|error| match error.raw_os_error() {
            Some(libc::EEXIST) => NetworkError::Exists { tap: name.to_owned() },
            _ => refused(format!("create tap {name}"), "create a host tap", "CONFIG_VETH (module veth)")(error),
        })?;
        self.find(name)?.ok_or_else(|| NetworkError::NotFound { tap: name.to_owned() })
    }

    fn set_up_pair(&mut self, link: &Link, new: &NewTap) -> Result<SwitchPort, NetworkError> {
        let name = new.tap.as_str();
        let peer = self.port_of(link)?;
        self.netlink.set_alias(link.index, &mark_of(new)).map_err(kernel(format!("mark {name}")))?;
        self.mark(&peer, PEER)?;
        // A guest must not give the engine a default route, and learns the addresses of this segment only.
        sysctl(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        sysctl(&format!("ipv4/conf/{name}/arp_ignore"), "1")?;
        for &(address, prefix) in &new.addresses {
            self.netlink
                .add_address(link.index, address, prefix)
                .map_err(kernel(format!("add address {address}/{prefix} to {name}")))?;
        }
        self.netlink.set_up(link.index, true).map_err(kernel(format!("set {name} up")))?;
        Ok(SwitchPort { fresh: true, ..switch_port(&peer, &new.tap) })
    }

    /// Move a host tap into another network namespace under another name; its port stays where it is connected.
    pub(super) fn move_out(&mut self, tap: &TapName, namespace: &OwnedFd, name: &str) -> Result<(), NetworkError> {
        let link = self.ours(tap)?;
        let port = self.port_of(&link)?;
        self.netlink.move_link(link.index, namespace.as_raw_fd(), name).map_err(kernel(format!("move {tap}")))?;
        self.netlink.set_alias(port.index, &format!("{FOOT}{tap}")).map_err(kernel(format!("mark {}", port.name)))
    }

    /// The taps that were moved out and whose port is connected nowhere.
    pub(super) fn lost_feet(&mut self) -> Result<Vec<TapName>, NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        let placed = self.switch.placed(&links)?;
        let lost = links.iter().filter(|link| !placed.contains_key(&link.index));
        Ok(lost.filter_map(|link| TapName::new(link.alias.strip_prefix(FOOT)?).ok()).collect())
    }

    pub(super) fn connect(&mut self, tap: &TapName, segment: Option<&Segment>) -> Result<(), NetworkError> {
        let link = self.ours(tap)?;
        let port = switch_port(&self.port_of(&link)?, tap);
        match segment {
            Some(segment) => self.switch.plug(&[(port, segment.clone())]),
            None => self.switch.unplug(&[port]),
        }
    }

    pub(super) fn delete(&mut self, tap: &TapName) -> Result<(), NetworkError> {
        let link = self.ours(tap)?;
        let ports = [switch_port(&self.port_of(&link)?, tap)];
        // Even if the switch does not answer: it finds out itself, and the tap is not in the way.
        let told = self.switch.deleting(&ports);
        self.netlink.delete_link(link.index).map_err(kernel(format!("delete tap {tap}")))?;
        told.and(self.switch.deleted(&ports))
    }

    /// Delete many taps, each once the kernel has been told of all; those that are not there are fine.
    pub(super) fn delete_all(&mut self, taps: &[TapName]) -> Result<(), NetworkError> {
        let (mut links, mut absent, mut ports) = (Vec::new(), Vec::new(), Vec::new());
        for tap in taps {
            match self.find(tap.as_str())?.filter(|link| is_tap(link, tap)) {
                Some(link) => links.push((link, tap)),
                None => absent.push(tap),
            }
        }
        if !absent.is_empty() {
            // Gone, or renamed by hand.
            let all = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
            let renamed = |tap: &&'_ TapName| all.iter().find(|link| is_tap(link, tap)).cloned();
            links.extend(absent.into_iter().filter_map(|tap| Some((renamed(&tap)?, tap))));
        }
        for (link, tap) in &links {
            ports.push(switch_port(&self.port_of(link)?, tap));
        }
        // As in `delete`.
        let told = self.switch.deleting(&ports);
        for (link, _) in &links {
            self.netlink.doom(link.index).map_err(kernel(format!("set the group of {}", link.name)))?;
        }
        self.netlink.delete_doomed().map_err(kernel("delete taps"))?;
        told.and(self.switch.deleted(&ports))
    }

    pub(super) fn owner(&mut self, tap: &TapName) -> Result<Option<String>, NetworkError> {
        let link = self.find(tap.as_str())?;
        Ok(link.as_ref().and_then(read_mark).filter(|(name, _)| name == tap).map(|(_, owner)| owner.to_owned()))
    }

    /// Whether there is any tap.
    pub(super) fn has_tap(&mut self) -> Result<bool, NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        Ok(links.iter().any(|link| read_mark(link).is_some()))
    }

    pub(super) fn list(&mut self) -> Result<Vec<Port>, NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        let by_index: HashMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
        let mut addresses: HashMap<u32, Vec<(IpAddr, u8)>> = HashMap::new();
        for found in self.netlink.addresses().map_err(kernel("list addresses"))? {
            let link_local = matches!(found.address, IpAddr::V6(address) if address.is_unicast_link_local());
            // An IPv4 address with a lifetime is one that DHCP gave.
            if (found.permanent || found.address.is_ipv4()) && !link_local {
                addresses.entry(found.index).or_default().push((found.address, found.prefix));
            }
        }
        let mut placed = self.switch.placed(&links)?;
        let mut shapes = self.shapes(&links)?;
        let mut ports = Vec::new();
        for link in &links {
            let Some((tap, owner)) = read_mark(link) else { continue };
            let port =
                if link.is_pair() { link.peer.and_then(|peer| by_index.get(&peer).copied()) } else { Some(link) };
            let mut addresses = addresses.remove(&link.index).unwrap_or_default();
            addresses.sort_unstable();
            ports.push(Port {
                tap,
                segment: port.and_then(|port| placed.remove(&port.index)),
                shape: port.and_then(|port| shapes.remove(&port.index)).unwrap_or_default(),
                addresses,
                owner: owner.to_owned(),
            });
        }
        ports.sort_by(|a, b| a.tap.cmp(&b.tap));
        Ok(ports)
    }

    pub(super) fn switch(&mut self) -> &mut dyn Switch {
        &mut *self.switch
    }

    pub(super) fn bridges(&mut self) -> Result<Vec<BridgeInfo>, NetworkError> {
        self.switch.bridges()
    }

    pub(super) fn untrunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        self.known(bridge)?;
        self.switch.untrunk(bridge, interface)
    }

    pub(super) fn untunnel(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        self.known(bridge)?;
        self.switch.untunnel(bridge, interface)
    }

    pub(super) fn destroy(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        self.known(bridge)?;
        let on_it = |port: &Port| port.segment.as_ref().is_some_and(|segment| segment.bridge == *bridge);
        let taps: Vec<String> =
            self.list()?.iter().filter(|port| on_it(port)).map(|port| port.tap.to_string()).collect();
        if !taps.is_empty() {
            return Err(NetworkError::BridgeInUse { bridge: bridge.to_string(), taps: some_of(&taps) });
        }
        self.switch.destroy(bridge)
    }

    fn known(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let known = self.switch.bridges()?.iter().any(|info| info.bridge == *bridge);
        if known { Ok(()) } else { Err(NetworkError::NoBridge { bridge: bridge.to_string() }) }
    }

    pub(super) fn mirror(&mut self, mirror: &Mirror) -> Result<(), NetworkError> {
        let source = self.switch_port(&mirror.source)?;
        let destination = self.switch_port(&mirror.destination)?;
        self.switch.mirror(&source, &destination)
    }

    pub(super) fn unmirror(&mut self, destination: &TapName) -> Result<(), NetworkError> {
        let destination = self.switch_port(destination)?;
        self.switch.unmirror(&destination)
    }

    pub(super) fn mirrors(&mut self) -> Result<Vec<Mirror>, NetworkError> {
        let found = self.switch.mirrors()?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        let tap = |index: u32| {
            let is_it = |link: &&Link| link.index == index || (link.is_pair() && link.peer == Some(index));
            links.iter().filter(is_it).find_map(read_mark).map(|(tap, _)| tap)
        };
        let mirror = |(from, to)| Some(Mirror { source: tap(from)?, destination: tap(to)? });
        let mut mirrors: Vec<Mirror> = found.into_iter().filter_map(mirror).collect();
        mirrors.sort_unstable();
        Ok(mirrors)
    }

    fn switch_port(&mut self, tap: &TapName) -> Result<SwitchPort, NetworkError> {
        let link = self.ours(tap)?;
        Ok(switch_port(&self.port_of(&link)?, tap))
    }

    /// Delete what nobody needs.
    pub(super) fn sweep(&mut self) -> Result<(), NetworkError> {
        self.switch.sweep()
    }

    /// Delete what a process that was killed has left between making an interface and marking it. Only for a namespace of
    /// the engine's own: elsewhere it could be another engine's that is just being made.
    pub(super) fn sweep_half_made(&mut self) -> Result<(), NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        for link in links.iter().filter(|link| link.alias.is_empty()) {
            let far = link.peer.and_then(|peer| links.iter().find(|other| other.index == peer));
            // A host tap is marked before its peer, and the peer goes with it.
            let peer_of_none = link.is_pair()
                && link.name.starts_with(PEER_NAME.trim_end_matches("%d"))
                && far.is_none_or(|far| far.alias.is_empty() || far.alias.starts_with(TAP));
            if peer_of_none {
                self.netlink.delete_link(link.index).map_err(kernel(format!("delete {}", link.name)))?;
            }
        }
        self.switch.sweep_half_made()
    }

    /// Let exactly these be heard, and say for each of them to which interfaces to listen now.
    pub(super) fn hear(&mut self, heard: &[SniffTarget]) -> Result<Vec<Result<Vec<Ear>, NetworkError>>, NetworkError> {
        let links = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        let bridge = |heard: &SniffTarget| match heard {
            SniffTarget::Bridge(bridge) => Some(bridge.clone()),
            SniffTarget::Tap { .. } => None,
        };
        let bridges: BTreeSet<BridgeName> = heard.iter().filter_map(bridge).collect();
        let mut crossed = self.switch.hear(&bridges, &links);
        if let (true, Err(error)) = (bridges.is_empty(), &crossed) {
            tracing::warn!(%error, "the switch has not given up what it had for captures");
        }
        let mut ears = |heard: &SniffTarget| match (heard, &mut crossed) {
            (SniffTarget::Tap { owner }, _) => {
                let of_owner = |link: &&Link| read_mark(link).is_some_and(|(_, text)| text == owner);
                let ear = |link: &Link| Ear { index: link.index, vlan: None, promiscuous: false };
                Ok(links.iter().filter(of_owner).map(ear).collect())
            }
            (SniffTarget::Bridge(wanted), Ok(crossed)) => {
                Ok(crossed.iter().filter(|(bridge, _)| bridge == wanted).map(|(_, ear)| *ear).collect())
            }
            (SniffTarget::Bridge(wanted), Err(error)) => {
                let what = format!("capture what crosses {wanted}");
                // One error for all of them; the first takes it along.
                Err(std::mem::replace(error, NetworkError::Kernel { what, source: io::Error::other("as told before") }))
            }
        };
        Ok(heard.iter().map(&mut ears).collect())
    }

    fn find(&mut self, name: &str) -> Result<Option<Link>, NetworkError> {
        self.netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))
    }

    /// A tap of the engine. Somebody else's interface of that name is none.
    pub(super) fn ours(&mut self, tap: &TapName) -> Result<Link, NetworkError> {
        if let Some(link) = self.find(tap.as_str())?.filter(|link| is_tap(link, tap)) {
            return Ok(link);
        }
        let all = self.netlink.links(Links::All).map_err(kernel("list interfaces"))?;
        let found = all.into_iter().find(|link| is_tap(link, tap));
        let mut link = found.ok_or_else(|| NetworkError::NotFound { tap: tap.to_string() })?;
        let mut renamed = self.netlink.rename(link.index, tap.as_str());
        if renamed.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY)) {
            // A kernel before 6.2 renames nothing that is up.
            let down = self.netlink.set_up(link.index, false);
            renamed = down.and_then(|()| self.netlink.rename(link.index, tap.as_str()));
            self.netlink.set_up(link.index, true).map_err(kernel(format!("set {} up", link.name)))?;
        }
        match renamed {
            Ok(()) => {
                tracing::warn!(%tap, renamed = link.name, "a tap was renamed by hand and has its name back");
                link.name = tap.to_string();
            }
            // Everything here goes by its index.
            Err(error) => tracing::warn!(%tap, renamed = link.name, %error, "a tap was renamed by hand and stays so"),
        }
        Ok(link)
    }

    /// What is or would be the port of a bridge for this tap.
    pub(super) fn port_of(&mut self, link: &Link) -> Result<Link, NetworkError> {
        if !link.is_pair() {
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
}

/// The alias of a tap.
fn mark_of(new: &NewTap) -> String {
    format!("{TAP}{} {}", new.tap, new.owner)
}

/// The name that a tap was made with, and its owner's text.
pub(super) fn read_mark(link: &Link) -> Option<(TapName, &str)> {
    let (name, owner) = link.alias.strip_prefix(TAP)?.split_once(' ')?;
    Some((TapName::new(name).ok()?, owner))
}

fn is_tap(link: &Link, tap: &TapName) -> bool {
    read_mark(link).is_some_and(|(name, _)| name == *tap)
}

/// The first names of a list that may be long.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn switch_port(link: &Link, tap: &TapName) -> SwitchPort {
    SwitchPort {
        index: link.index,
        interface: link.name.clone(),
        tap: tap.to_string(),
        master: link.master,
        fresh: false,
    }
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
