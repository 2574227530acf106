//! Captures of bridges: an internal port of each bridge that is heard, and a mirror of everything to it. Frames come there
//! with the tag of their VLAN.
//!
//! The port does not keep its bridge: the bridge goes with the last other port, and the mirror with it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use netlink_packet_route::link::LinkFlags;
use sha2::{Digest, Sha256};

use super::OpenVswitch;
use super::rows::{BridgeRow, EAR, MARK, Picture, PortRow, is, mark, still_there};
use crate::host::NetworkError;
use crate::host::linux::failure::kernel;
use crate::host::linux::namespace::sysctl;
use crate::host::linux::switch::Ear;
use crate::name::BridgeName;
use crate::ovsdb::{Datum, Mutation, Operation, Row, Uuid};

impl OpenVswitch {
    /// Let exactly these bridges be heard; see [`Switch::hear`](super::Switch::hear).
    pub(super) fn listen(&mut self, wanted: &BTreeSet<BridgeName>) -> Result<Vec<(BridgeName, Ear)>, NetworkError> {
        if !self.is_there() {
            return Ok(Vec::new());
        }
        let what = "listen to bridges";
        let mut heard: Vec<(BridgeName, String)> = Vec::new();
        let number = self.change(what, |picture| {
            heard.clear();
            let mut operations = Vec::new();
            for bridge in &picture.bridges {
                let ear = picture.ports_of(bridge).find(|port| mark(&port.ids) == Some(EAR));
                match (BridgeName::new(&bridge.name).ok().filter(|name| wanted.contains(name)), ear) {
                    (Some(name), Some(ear)) => heard.push((name, ear.name.clone())),
                    (Some(name), None) => {
                        let port = port_name(&bridge.name);
                        operations.extend(grow(bridge, &port, heard.len()));
                        heard.push((name, port));
                    }
                    (None, Some(ear)) => operations.push(lose(picture, bridge, ear)),
                    (None, None) => {}
                }
            }
            Ok(operations)
        })?;
        if let Some(number) = number {
            self.applied(what, number)?;
        }
        let mut ears = Vec::new();
        for (bridge, port) in heard {
            let found = self.netlink.link_by_name(&port).map_err(kernel(format!("look up interface {port}")))?;
            // Somebody has deleted it, and ovs-vswitchd does not mind.
            let Some(link) = found else { continue };
            // The engine's own IP stack takes no part in what it hears. Each time: a restarted ovs-vswitchd makes another one.
            sysctl(&format!("ipv6/conf/{port}/disable_ipv6"), "1")?;
            sysctl(&format!("ipv4/conf/{port}/rp_filter"), "1")?;
            let flags = LinkFlags::Up | LinkFlags::Noarp;
            self.netlink.set_flags(link.index, flags, flags).map_err(kernel(format!("set {port} up")))?;
            ears.push((bridge, Ear { index: link.index, vlan: None, promiscuous: true }));
        }
        if number.is_some() {
            self.forget_flows();
        }
        Ok(ears)
    }
}

/// The operations that give a bridge a port that hears everything. `at` makes their names in the transaction unique.
fn grow(bridge: &BridgeRow, name: &str, at: usize) -> Vec<Operation> {
    let [interface, port, mirror] = ["ei", "ep", "em"].map(|kind| format!("{kind}{at}"));
    let ours = || Datum::map([(MARK, EAR)]);
    let port_row =
        Row::new([("name", name)]).with("interfaces", Uuid::New(interface.clone())).with("external_ids", ours());
    let mirror_row = Row::new([("name", name)])
        .with("select_all", true)
        .with("output_port", Uuid::New(port.clone()))
        .with("external_ids", ours());
    let add = [
        ("ports", Mutation::Insert(Uuid::New(port.clone()).into())),
        ("mirrors", Mutation::Insert(Uuid::New(mirror.clone()).into())),
    ];
    vec![
        still_there(bridge),
        Operation::insert("Interface", Some(&interface), &Row::new([("name", name), ("type", "internal")])),
        Operation::insert("Port", Some(&port), &port_row),
        Operation::insert("Mirror", Some(&mirror), &mirror_row),
        Operation::mutate("Bridge", &is(&bridge.uuid), &add),
    ]
}

/// The operation that takes that port away again.
fn lose(picture: &Picture, bridge: &BridgeRow, ear: &PortRow) -> Operation {
    let mirrors = picture.mirrors.iter().filter(|mirror| mark(&mirror.ids) == Some(EAR));
    let mirrors = mirrors.filter(|mirror| bridge.mirrors.contains(&mirror.uuid)).map(|mirror| mirror.uuid.clone());
    let remove = [
        ("ports", Mutation::Delete(ear.uuid.clone().into())),
        ("mirrors", Mutation::Delete(Datum::references(mirrors))),
    ];
    Operation::mutate("Bridge", &is(&bridge.uuid), &remove)
}

/// The name of that port: 15 characters, always the same for a bridge.
fn port_name(bridge: &str) -> String {
    let hash = Sha256::digest(bridge);
    hash.iter().take(6).fold("mfe".to_owned(), |mut name, byte| {
        write!(name, "{byte:02x}").expect("a text takes everything");
        name
    })
}
