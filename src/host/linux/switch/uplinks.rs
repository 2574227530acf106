//! Uplinks: the interfaces that carry all VLANs of a bridge with their tags, which are trunks and tunnels.
//!
//! An uplink is told by its alias, `megaform trunk bridge=mega_bridge` or `megaform tunnel bridge=mega_bridge
//! to=vxlan,10.0.0.2,7`. A trunk that was fetched from the daemon's own network namespace has ` fetched` behind that, and goes
//! back there; behind ` had=` stands how it was set, and the alias that it had stands at the end behind ` was=`.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use netlink_packet_route::link::LinkFlags;
use nix::libc;

use crate::host::linux::failure::{kernel, refused};
use crate::host::linux::namespace::{self, sysctl};
use crate::host::linux::netlink::{Link, Links, Netlink};
use crate::host::{NetworkError, Tunnel, TunnelKind};
use crate::name::{BridgeName, TapName};

const TRUNK: &str = "megaform trunk bridge=";
const TUNNEL: &str = "megaform tunnel bridge=";
const TO: &str = " to=";
const FETCHED: &str = " fetched";
const HAD: &str = " had=";
const WAS: &str = " was=";
/// The longest alias that the kernel takes (IFALIASZ).
const ALIAS_LIMIT: usize = 255;
/// Where the daemon's own network namespace is found, whichever the calling thread is in.
const HOME: &str = "/proc/self/ns/net";

/// How an interface was set before it became a trunk, which it is again afterwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Had {
    up: bool,
    promiscuous: bool,
    /// Settings of the kernel by name, such as `accept_ra`, where it has them.
    settings: Vec<(String, String)>,
}

/// The settings that a trunk has otherwise, with their protocols.
const SETTINGS: [(&str, &str); 3] = [("ipv6", "accept_ra"), ("ipv6", "addr_gen_mode"), ("ipv4", "rp_filter")];

/// The name of a setting of an interface behind `/proc/sys/net`.
fn setting(name: &str, interface: &str) -> Option<String> {
    let (protocol, name) = SETTINGS.iter().find(|(_, known)| *known == name)?;
    Some(format!("{protocol}/conf/{interface}/{name}"))
}

impl Had {
    /// Of an interface in the calling thread's network namespace.
    fn of(link: &Link) -> Self {
        let value = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/{}", setting(name, &link.name)?)).ok();
        let settings = SETTINGS.iter().map(|(_, name)| name);
        let settings = settings.filter_map(|name| Some(((*name).to_owned(), value(name)?.trim().to_owned())));
        Self { up: link.up, promiscuous: link.promiscuous, settings: settings.collect() }
    }

    fn read(text: &str) -> Self {
        let mut had = Self::default();
        for word in text.split(',') {
            match word.split_once('=') {
                Some((name, value)) if setting(name, "").is_some() => {
                    had.settings.push((name.to_owned(), value.to_owned()));
                }
                None if word == "up" => had.up = true,
                None if word == "promisc" => had.promiscuous = true,
                _ => {}
            }
        }
        had
    }

    /// Set an interface so again, in the calling thread's network namespace.
    fn restore(&self, netlink: &mut Netlink, index: u32, name: &str) -> Result<(), NetworkError> {
        for (known, value) in &self.settings {
            // Best effort: a setting that the kernel does not take again keeps nothing else from going back.
            let _ = setting(known, name).map(|path| sysctl(&path, value));
        }
        let mut flags = LinkFlags::empty();
        flags.set(LinkFlags::Up, self.up);
        flags.set(LinkFlags::Promisc, self.promiscuous);
        netlink
            .set_flags(index, flags, LinkFlags::Up | LinkFlags::Promisc)
            .map_err(kernel(format!("set {name} as it was")))
    }
}

impl std::fmt::Display for Had {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [(self.up, "up"), (self.promiscuous, "promisc")].into_iter().filter(|(is, _)| *is);
        let words = words.map(|(_, word)| word.to_owned());
        let settings = self.settings.iter().map(|(name, value)| format!("{name}={value}"));
        f.write_str(&words.chain(settings).collect::<Vec<_>>().join(","))
    }
}

/// An interface that carries all VLANs of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uplink {
    pub index: u32,
    pub name: String,
    pub bridge: BridgeName,
    /// It was made for this and is deleted after.
    pub tunnel: bool,
    /// What a tunnel is, where its alias tells.
    pub to: Option<Tunnel>,
    /// It came from the daemon's own network namespace.
    pub fetched: bool,
    /// How it was set.
    pub had: Had,
    /// The alias that it had.
    pub was: String,
}

impl Uplink {
    fn trunk(bridge: &BridgeName, link: &Link, fetched: bool, was: &str) -> Self {
        let (index, name) = (link.index, link.name.clone());
        let (bridge, had) = (bridge.clone(), Had::of(link));
        Self { index, name, bridge, tunnel: false, to: None, fetched, had, was: was.to_owned() }
    }

    /// The alias that a trunk gets.
    fn mark(&self) -> String {
        let fetched = if self.fetched { FETCHED } else { "" };
        let mark = format!("{TRUNK}{}{fetched}{HAD}{}", self.bridge, self.had);
        let with = format!("{mark}{WAS}{}", self.was);
        if self.was.is_empty() || with.len() > ALIAS_LIMIT { mark } else { with }
    }
}

/// The uplink that an interface is.
pub(super) fn read(link: &Link) -> Option<Uplink> {
    let (tunnel, rest) = match link.alias.strip_prefix(TRUNK) {
        Some(rest) => (false, rest),
        None => (true, link.alias.strip_prefix(TUNNEL)?),
    };
    let (rest, was) = rest.split_once(WAS).unwrap_or((rest, ""));
    let (rest, to) = rest.split_once(TO).map_or((rest, None), |(rest, to)| (rest, read_tunnel(to)));
    let (rest, had) = rest.split_once(HAD).map_or((rest, Had::default()), |(rest, had)| (rest, Had::read(had)));
    let (bridge, fetched) = match rest.strip_suffix(FETCHED) {
        Some(bridge) => (bridge, true),
        None => (rest, false),
    };
    let bridge = BridgeName::new(bridge).ok()?;
    let (index, name, was) = (link.index, link.name.clone(), was.to_owned());
    Some(Uplink { index, name, bridge, tunnel, to, fetched, had, was })
}

/// The alias that a tunnel gets.
fn mark_tunnel(bridge: &BridgeName, tunnel: &Tunnel) -> String {
    let key = tunnel.key.map(|key| format!(",{key}")).unwrap_or_default();
    format!("{TUNNEL}{bridge}{TO}{},{}{key}", tunnel.kind.word(), tunnel.remote)
}

/// What [`mark_tunnel`] says of a tunnel.
fn read_tunnel(text: &str) -> Option<Tunnel> {
    let mut parts = text.split(',');
    let (kind, remote) = (TunnelKind::from_word(parts.next()?)?, parts.next()?.parse().ok()?);
    let key = parts.next().map(str::parse).transpose().ok()?;
    Some(Tunnel { kind, remote, key })
}

/// The uplinks of a bridge, or of all.
pub(super) fn of(links: &[Link], bridge: Option<&BridgeName>) -> Vec<Uplink> {
    let mut found: Vec<Uplink> = links.iter().filter_map(read).collect();
    found.retain(|uplink| bridge.is_none_or(|bridge| uplink.bridge == *bridge));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Of uplinks that are connected nowhere, because their bridge was deleted by hand, the trunk of a bridge by its name.
pub(super) fn lost_trunk(lost: Vec<Uplink>, bridge: &BridgeName, name: &TapName) -> Option<Uplink> {
    lost.into_iter().find(|uplink| !uplink.tunnel && uplink.bridge == *bridge && uplink.name == name.as_str())
}

/// The same for a tunnel by its other end.
pub(super) fn lost_tunnel(lost: Vec<Uplink>, bridge: &BridgeName, tunnel: &Tunnel) -> Option<Uplink> {
    let is_it = |to: &Tunnel| to == tunnel;
    lost.into_iter().find(|uplink| uplink.bridge == *bridge && uplink.to.as_ref().is_some_and(is_it))
}

/// Claim an interface as a trunk: from this namespace or, if it is not here, from the daemon's own. It is up and has
/// given up what it had; on failure it is as it was.
pub(super) fn claim(netlink: &mut Netlink, bridge: &BridgeName, name: &TapName) -> Result<Uplink, NetworkError> {
    let name = name.as_str();
    let here = netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))?;
    let uplink = match here {
        Some(link) => {
            check(netlink, &link)?;
            let uplink = Uplink::trunk(bridge, &link, false, &link.alias);
            netlink.set_alias(link.index, &uplink.mark()).map_err(kernel(format!("mark {name}")))?;
            uplink
        }
        None => fetch(netlink, bridge, name)?,
    };
    raise(netlink, &uplink, true).inspect_err(|_| {
        // Best effort: the first error is what the caller needs to know.
        let _ = give_back(netlink, &uplink);
    })?;
    Ok(uplink)
}

/// Make a tunnel.
pub(super) fn make_tunnel(netlink: &mut Netlink, bridge: &BridgeName, tunnel: &Tunnel) -> Result<Uplink, NetworkError> {
    let stem = match tunnel.kind {
        TunnelKind::Vxlan => "mega_vxlan",
        TunnelKind::Gre => "mega_gre",
    };
    let taken = netlink.links(Links::All).map_err(kernel("list interfaces"))?;
    let name = (0..)
        .map(|number| format!("{stem}{number}"))
        .find(|name| !taken.iter().any(|link| link.name == *name))
        .expect("there are more numbers than interfaces");
    match tunnel.kind {
        TunnelKind::Vxlan => netlink
            .create_vxlan(&name, tunnel.remote, tunnel.key.unwrap_or(0))
            .map_err(|error| vxlan_refused(error, tunnel))?,
        TunnelKind::Gre => {
            let option = match tunnel.remote {
                IpAddr::V4(_) => "CONFIG_NET_IPGRE (module ip_gre)",
                IpAddr::V6(_) => "CONFIG_IPV6_GRE (module ip6_gre)",
            };
            netlink.create_gretap(&name, tunnel.remote, tunnel.key).map_err(|error| match error.raw_os_error() {
                Some(libc::EEXIST) => exists("gre", "remote address and key", error),
                _ => refused(format!("create tunnel {name}"), "make a gre tunnel", option)(error),
            })?;
        }
    }
    let found = netlink.link_by_name(&name).map_err(kernel(format!("look up interface {name}")))?;
    let link = found.ok_or_else(|| NetworkError::NotFound { tap: name.clone() })?;
    let bridge = bridge.clone();
    let uplink = Uplink {
        index: link.index,
        name,
        bridge,
        tunnel: true,
        to: Some(tunnel.clone()),
        fetched: false,
        had: Had::default(),
        was: String::new(),
    };
    let done = netlink
        .set_alias(link.index, &mark_tunnel(&uplink.bridge, tunnel))
        .map_err(kernel(format!("mark {}", uplink.name)))
        .and_then(|()| raise(netlink, &uplink, false));
    if let Err(error) = done {
        // Best effort: the first error is what the caller needs to know.
        let _ = netlink.delete_link(link.index);
        return Err(error);
    }
    Ok(uplink)
}

fn vxlan_refused(error: io::Error, tunnel: &Tunnel) -> NetworkError {
    match error.raw_os_error() {
        Some(libc::EEXIST) => {
            let what = format!("key {}", tunnel.key.unwrap_or(0));
            exists("vxlan", &format!("{what} (each of an engine needs its own)"), error)
        }
        _ => refused("create a vxlan tunnel".to_owned(), "make a vxlan tunnel", "CONFIG_VXLAN (module vxlan)")(error),
    }
}

fn exists(kind: &str, what: &str, source: io::Error) -> NetworkError {
    NetworkError::Kernel { what: format!("make a second {kind} tunnel with the same {what}"), source }
}

/// Delete a tunnel, or let a trunk go where it came from, as it was.
pub(super) fn give_back(netlink: &mut Netlink, uplink: &Uplink) -> Result<(), NetworkError> {
    let name = &uplink.name;
    if uplink.tunnel {
        return netlink.delete_link(uplink.index).map_err(kernel(format!("delete tunnel {name}")));
    }
    if !uplink.fetched {
        uplink.had.restore(netlink, uplink.index, name)?;
        return netlink.set_alias(uplink.index, &uplink.was).map_err(kernel(format!("unmark {name}")));
    }
    // The kernel takes it down on its way.
    netlink
        .set_flags(uplink.index, LinkFlags::empty(), LinkFlags::Promisc)
        .map_err(kernel(format!("end the promiscuous mode of {name}")))?;
    let home = home()?;
    netlink.move_to(uplink.index, &home).map_err(kernel(format!("move {name} back to the host's network")))?;
    at_home(|netlink| {
        let found = netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))?;
        let Some(link) = found else { return Ok(()) };
        uplink.had.restore(netlink, link.index, name)?;
        netlink.set_alias(link.index, &uplink.was).map_err(kernel(format!("unmark {name}")))
    })
}

/// Up, hearing every frame, and with nothing for the engine's own IP stack.
fn raise(netlink: &mut Netlink, link: &Uplink, hear_all: bool) -> Result<(), NetworkError> {
    let name = &link.name;
    netlink.no_link_local(link.index).map_err(kernel(format!("turn off IPv6 on {name}")))?;
    sysctl(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    let flags = if hear_all { LinkFlags::Up | LinkFlags::Promisc } else { LinkFlags::Up };
    netlink.set_flags(link.index, flags, flags).map_err(kernel(format!("set {name} up")))
}

/// Would anything be cut off if this interface became a trunk?
fn check(netlink: &mut Netlink, link: &Link) -> Result<(), NetworkError> {
    let name = &link.name;
    let refuse = |reason: String| NetworkError::Kernel {
        what: format!("make {name} a trunk"),
        source: io::Error::new(io::ErrorKind::InvalidInput, reason),
    };
    if let Some(uplink) = read(link) {
        let kind = if uplink.tunnel { "tunnel" } else { "trunk" };
        return Err(refuse(format!("it is a {kind} of bridge {} already", uplink.bridge)));
    }
    if link.alias.starts_with("megaform ") {
        return Err(refuse("it is an interface of this program".to_owned()));
    }
    if name == "lo" || link.is_bridge() {
        return Err(refuse("expected an interface with a network behind it, not a bridge or lo".to_owned()));
    }
    if link.master.is_some() {
        return Err(refuse("it is a port of another bridge".to_owned()));
    }
    let addresses = netlink.addresses().map_err(kernel("list addresses"))?;
    let global = |address: IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    };
    if let Some(found) = addresses.iter().find(|found| found.index == link.index && global(found.address)) {
        let (address, prefix) = (found.address, found.prefix);
        return Err(refuse(format!(
            "it has the address {address}/{prefix}, through which somebody may be connected; \
             `ip address flush dev {name}` first if nobody is"
        )));
    }
    if netlink.default_routes().map_err(kernel("list routes"))?.contains(&link.index) {
        return Err(refuse("a default route leads through it; delete that first if nobody needs it".to_owned()));
    }
    Ok(())
}

/// Move an interface from the daemon's own network namespace to the calling thread's.
fn fetch(netlink: &mut Netlink, bridge: &BridgeName, name: &str) -> Result<Uplink, NetworkError> {
    let here = namespace::current()?;
    let absent = || NetworkError::NoInterface { interface: name.to_owned() };
    let claimed = at_home(|home| {
        let found = home.link_by_name(name).map_err(kernel(format!("look up interface {name}")))?;
        let link = found.ok_or_else(absent)?;
        check(home, &link)?;
        // Marked first: an interface that is here without a mark would be nobody's.
        let uplink = Uplink::trunk(bridge, &link, true, &link.alias);
        home.set_alias(link.index, &uplink.mark()).map_err(kernel(format!("mark {name}")))?;
        home.move_to(link.index, &here).map_err(|error| {
            // Best effort: the first error is what the caller needs to know.
            let _ = home.set_alias(link.index, &uplink.was);
            kernel(format!("move {name} to the engine's network"))(error)
        })?;
        Ok(uplink)
    })?;
    let found = netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))?;
    // Its index may be another one here.
    Ok(Uplink { index: found.ok_or_else(absent)?.index, ..claimed })
}

fn home() -> Result<OwnedFd, NetworkError> {
    let file = std::fs::File::open(HOME).map_err(kernel("open the host's network namespace"))?;
    Ok(file.into())
}

/// Do something in the daemon's own network namespace, on a thread of its own.
fn at_home<R: Send>(f: impl FnOnce(&mut Netlink) -> Result<R, NetworkError> + Send) -> Result<R, NetworkError> {
    let home = home()?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            namespace::enter(&home)?;
            f(&mut Netlink::open().map_err(kernel("open a netlink socket"))?)
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(alias: &str) -> Link {
        Link { index: 7, name: "eth1".to_owned(), alias: alias.to_owned(), ..Link::default() }
    }

    #[test]
    fn the_mark_says_what_an_uplink_is() {
        let trunk = read(&link("megaform trunk bridge=lab")).unwrap();
        assert_eq!((trunk.bridge.as_str(), trunk.tunnel, trunk.fetched), ("lab", false, false));
        assert!(read(&link("megaform trunk bridge=lab fetched")).unwrap().fetched);
        assert!(read(&link("megaform tunnel bridge=lab")).unwrap().tunnel);
        for (kind, remote, key) in [
            (TunnelKind::Vxlan, "10.0.0.2", Some(7)),
            (TunnelKind::Gre, "fd00::1", None),
            (TunnelKind::Gre, "10.0.0.2", Some(0)),
        ] {
            let tunnel = Tunnel { kind, remote: remote.parse().unwrap(), key };
            let found = read(&link(&mark_tunnel(&BridgeName::new("lab").unwrap(), &tunnel))).unwrap();
            assert_eq!((found.bridge.as_str(), found.tunnel, found.to), ("lab", true, Some(tunnel)));
        }
        for was in ["", "to the wall", "a was=b fetched", "b had=up"] {
            for had in ["", "up", "up,promisc,accept_ra=1,addr_gen_mode=0"] {
                let trunk = Uplink::trunk(&BridgeName::new("lab").unwrap(), &link(was), true, was);
                let uplink = Uplink { had: Had::read(had), ..trunk };
                assert_eq!(uplink.had.to_string(), had);
                assert_eq!(read(&link(&uplink.mark())).unwrap(), uplink);
            }
        }
        for alias in ["", "megaform tap x", "megaform trunk bridge=", "uplink to megaform trunk bridge=lab"] {
            assert_eq!(read(&link(alias)), None, "{alias}");
        }
    }
}
