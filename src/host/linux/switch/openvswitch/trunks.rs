//! Trunks, tunnels, and the end of a bridge.

use std::collections::{BTreeMap, BTreeSet};

use super::datapath::Datapath;
use super::placing::join;
use super::rows::{MARK, PORT, TRUNK, TUNNEL, drop_bridge, is, mark};
use super::{OpenVswitch, failed, wrong};
use crate::host::linux::failure::kernel;
use crate::host::{NetworkError, Tunnel, TunnelKind};
use crate::name::{BridgeName, TapName};
use crate::ovsdb::{Datum, Mutation, Operation, Row, Uuid};

/// How many tunnels one engine has at most.
const TUNNELS: u32 = 10_000;

impl OpenVswitch {
    pub(super) fn add_trunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let what = format!("make {interface} a trunk of bridge {bridge}");
        let found = self.netlink.link_by_name(interface.as_str()).map_err(kernel(&what))?;
        let link = found.ok_or_else(|| wrong(&what, format!("there is no interface {interface}")))?;
        self.settle(&what)?;
        let row = Row::new([("name", interface.as_str())]);
        let number = self.add_port(&what, bridge, interface.as_str(), TRUNK, &row, &[])?;
        self.netlink.set_up(link.index, true).map_err(kernel(format!("set {interface} up")))?;
        self.port_applied(&what, bridge, interface.as_str(), number)
    }

    pub(super) fn add_tunnel(&mut self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        let kind = match tunnel.kind {
            TunnelKind::Vxlan => "vxlan",
            TunnelKind::Gre => "gre",
        };
        let what = format!("make a {kind} tunnel from bridge {bridge} to {}", tunnel.remote);
        if self.datapath == Datapath::Userspace {
            return self.add_kernel_tunnel(&what, bridge, tunnel);
        }
        self.settle(&what)?;
        let picture = self.picture(&what)?;
        let taken: BTreeSet<&str> = picture.ports.values().map(|port| port.name.as_str()).collect();
        let name = (0..TUNNELS).map(|number| format!("mega_{kind}{number}")).find(|name| !taken.contains(name.as_str()));
        let name = name.ok_or_else(|| wrong(&what, "there are too many"))?;
        let mut options = BTreeMap::from([("remote_ip".to_owned(), tunnel.remote.to_string())]);
        if let Some(key) = tunnel.key {
            options.insert("key".to_owned(), key.to_string());
        }
        let row = Row::new([("name", name.as_str()), ("type", kind)]).with("options", Datum::map(options));
        let ids = [("megaform-remote".to_owned(), tunnel.remote.to_string())];
        let number = self.add_port(&what, bridge, &name, TUNNEL, &row, &ids)?;
        self.port_applied(&what, bridge, &name, number)?;
        Ok(name)
    }

    /// The userspace datapath sends its tunnels through another bridge of its own. The kernel's tunnels use the kernel's
    /// routes, and are interfaces like any other.
    fn add_kernel_tunnel(&mut self, what: &str, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        let _ = (bridge, tunnel);
        Err(wrong(what, "not built"))
    }

    /// Add a port that carries all VLANs.
    fn add_port(
        &mut self,
        what: &str,
        bridge: &BridgeName,
        name: &str,
        kind: &str,
        interface: &Row,
        ids: &[(String, String)],
    ) -> Result<Option<i64>, NetworkError> {
        let datapath = self.datapath;
        self.change(what, |picture| {
            if let Some(there) = picture.ports.values().find(|port| port.name == name) {
                let where_ = picture.bridge_of(&there.uuid).map_or("none", |bridge| bridge.name.as_str());
                // A try before may have made it, or it is there already.
                return if mark(&there.ids) == Some(kind) && where_ == bridge.as_str() {
                    Ok(Vec::new())
                } else {
                    Err(wrong(what, format!("it is a port of bridge {where_} already")))
                };
            }
            let marks = ids.iter().cloned().chain([(MARK.to_owned(), kind.to_owned())]);
            let row = Row::new([("name", name)])
                .with("interfaces", Uuid::New("interface".to_owned()))
                .with("external_ids", Datum::map(marks));
            let mut operations = vec![
                Operation::insert("Interface", Some("interface"), interface),
                Operation::insert("Port", Some("port"), &row),
            ];
            let port = vec![Uuid::New("port".to_owned())];
            operations.extend(join(datapath, picture, bridge.as_str(), "bridge", "ports", port));
            Ok(operations)
        })
    }

    /// Wait for a new port; one that ovs-vswitchd cannot open goes again.
    fn port_applied(
        &mut self,
        what: &str,
        bridge: &BridgeName,
        name: &str,
        number: Option<i64>,
    ) -> Result<(), NetworkError> {
        let Some(number) = number else { return Ok(()) };
        let applied = self.applied(what, number);
        applied.and_then(|()| self.refused_interfaces(what, &[name].into())).inspect_err(|_| {
            // Best effort: the first error is what the caller needs to know.
            let _ = self.take_port(what, bridge, name);
        })
    }

    /// Take a trunk or tunnel off its bridge.
    pub(super) fn remove_port(
        &mut self,
        bridge: &BridgeName,
        interface: &TapName,
        kind: &str,
    ) -> Result<(), NetworkError> {
        let what = format!("remove {kind} {interface} from bridge {bridge}");
        let known = self.is_there() && {
            let picture = self.picture(&what)?;
            let ours = |port: &super::rows::PortRow| port.name == interface.as_str() && mark(&port.ids) == Some(kind);
            picture.bridge(bridge.as_str()).is_some_and(|bridge| picture.ports_of(bridge).any(ours))
        };
        if !known {
            return Err(wrong(&what, format!("bridge {bridge} has no such {kind}")));
        }
        self.take_port(&what, bridge, interface.as_str())?;
        Ok(())
    }

    fn take_port(&mut self, what: &str, bridge: &BridgeName, name: &str) -> Result<(), NetworkError> {
        let number = self.change(what, |picture| {
            let Some(bridge) = picture.bridge(bridge.as_str()) else { return Ok(Vec::new()) };
            let gone = picture.ports_of(bridge).filter(|port| port.name == name && mark(&port.ids).is_some());
            Ok(picture.remove(&gone.map(|port| &port.uuid).collect(), false))
        })?;
        self.unsettled = self.unsettled.max(number);
        Ok(())
    }

    pub(super) fn destroy_bridge(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let what = format!("destroy bridge {bridge}");
        let none = || wrong(&what, "there is no bridge of that name");
        if !self.is_there() {
            return Err(none());
        }
        let picture = self.picture(&what)?;
        let row = picture.bridge(bridge.as_str()).ok_or_else(none)?;
        if mark(&row.ids).is_none() {
            return Err(wrong(&what, "it was there before the engine used it; `ovs-vsctl del-br` deletes it"));
        }
        let links = self.links()?;
        for port in picture.ports_of(row).filter(|port| mark(&port.ids) == Some(PORT)) {
            if let Some(link) = links.iter().find(|link| link.name == port.name) {
                self.netlink.set_up(link.index, false).map_err(kernel(format!("set {} down", link.name)))?;
            }
        }
        let number = self.change(&what, |picture| {
            let row = picture.bridge(bridge.as_str());
            Ok(row.map(|row| drop_bridge(row).into()).unwrap_or_default())
        })?;
        self.unsettled = self.unsettled.max(number);
        Ok(())
    }
}

// Used by the other forms of a tunnel.
#[allow(unused)]
fn unused(uuid: &Uuid) {
    let _ = (is(uuid), Mutation::Add(0), failed::<std::io::Error>(""));
}
