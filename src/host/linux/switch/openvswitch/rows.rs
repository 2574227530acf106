//! The part of the Open_vSwitch database (ovs-vswitchd.conf.db(5)) that the engine looks at, and the operations that take
//! ports and bridges away.
//!
//! What is the engine's carries `external_ids:megaform`, whose value says what it is for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::qdiscs;
use crate::host::{BridgeInfo, Segment};
use crate::name::{BridgeName, VlanTag};
use crate::ovsdb::{Datum, Mutation, Operation, Outcome, Row, Uuid};

/// The key of the mark in `external_ids`.
pub(super) const MARK: &str = "megaform";
/// Begins the keys of what `bridge config` has set.
pub(super) const CONFIG: &str = "megaform-config:";

/// What a port is for.
pub(super) const PORT: &str = "port";
pub(super) const TRUNK: &str = "trunk";
pub(super) const TUNNEL: &str = "tunnel";
pub(super) const BOND: &str = "bond";
/// A mirror of Open vSwitch itself.
pub(super) const MIRROR: &str = "mirror";
/// Hears everything, for captures.
pub(super) const EAR: &str = "ear";

pub(super) type Ids = BTreeMap<String, String>;

#[derive(Debug)]
pub(super) struct BridgeRow {
    pub uuid: Uuid,
    pub name: String,
    pub ports: Vec<Uuid>,
    pub mirrors: Vec<Uuid>,
    pub netflow: Option<Uuid>,
    pub ids: Ids,
}

#[derive(Debug)]
pub(super) struct PortRow {
    pub uuid: Uuid,
    pub name: String,
    pub tag: Option<VlanTag>,
    pub interfaces: Vec<Uuid>,
    pub qos: Option<Uuid>,
    pub ids: Ids,
}

#[derive(Debug)]
pub(super) struct InterfaceRow {
    pub uuid: Uuid,
    pub name: String,
    /// The kernel's number of the interface that ovs-vswitchd has opened.
    pub index: Option<u32>,
}

#[derive(Debug)]
pub(super) struct MirrorRow {
    pub uuid: Uuid,
    pub sources: Vec<Uuid>,
    pub output: Option<Uuid>,
    pub ids: Ids,
}

/// All of it at one moment.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub bridges: Vec<BridgeRow>,
    pub ports: HashMap<Uuid, PortRow>,
    pub interfaces: HashMap<Uuid, InterfaceRow>,
    pub mirrors: Vec<MirrorRow>,
    /// See [`qdiscs`].
    pub noop: Option<Uuid>,
    pub next_cfg: i64,
    pub vlan_limit: Option<i64>,
}

fn ids(row: &Row) -> Ids {
    row.pairs("external_ids").into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// What the mark says; None for what is not the engine's.
pub(super) fn mark(ids: &Ids) -> Option<&str> {
    ids.get(MARK).map(String::as_str)
}

impl Picture {
    pub(super) fn questions() -> Vec<Operation> {
        vec![
            Operation::select("Bridge", &[], &["_uuid", "name", "ports", "mirrors", "netflow", "external_ids"]),
            Operation::select("Port", &[], &["_uuid", "name", "tag", "interfaces", "qos", "external_ids"]),
            Operation::select("Interface", &[], &["_uuid", "name", "ifindex"]),
            Operation::select("Mirror", &[], &["_uuid", "select_src_port", "output_port", "external_ids"]),
            qdiscs::question(),
            Operation::select("Open_vSwitch", &[], &["next_cfg", "other_config"]),
        ]
    }

    /// From the answers to [`Picture::questions`].
    pub(super) fn read(answers: Vec<Outcome>) -> Self {
        let mut answers = answers.into_iter().map(Outcome::rows);
        let mut picture = Self::default();
        for row in answers.next().unwrap_or_default() {
            let Some(uuid) = row.uuid() else { continue };
            picture.bridges.push(BridgeRow {
                uuid,
                name: row.text("name").to_owned(),
                ports: row.uuids("ports"),
                mirrors: row.uuids("mirrors"),
                netflow: row.uuids("netflow").pop(),
                ids: ids(&row),
            });
        }
        picture.bridges.sort_by(|a, b| a.name.cmp(&b.name));
        for row in answers.next().unwrap_or_default() {
            let Some(uuid) = row.uuid() else { continue };
            let tag = row.integer("tag").and_then(|tag| VlanTag::new(u64::try_from(tag).ok()?));
            let port = PortRow {
                uuid: uuid.clone(),
                name: row.text("name").to_owned(),
                tag,
                interfaces: row.uuids("interfaces"),
                qos: row.uuids("qos").pop(),
                ids: ids(&row),
            };
            picture.ports.insert(uuid, port);
        }
        for row in answers.next().unwrap_or_default() {
            let Some(uuid) = row.uuid() else { continue };
            let interface = InterfaceRow {
                uuid: uuid.clone(),
                name: row.text("name").to_owned(),
                index: row.integer("ifindex").and_then(|index| u32::try_from(index).ok()),
            };
            picture.interfaces.insert(uuid, interface);
        }
        for row in answers.next().unwrap_or_default() {
            let Some(uuid) = row.uuid() else { continue };
            picture.mirrors.push(MirrorRow {
                uuid,
                sources: row.uuids("select_src_port"),
                output: row.uuids("output_port").pop(),
                ids: ids(&row),
            });
        }
        picture.noop = qdiscs::read(answers.next());
        for row in answers.next().unwrap_or_default() {
            picture.next_cfg = row.integer("next_cfg").unwrap_or(0);
            picture.vlan_limit = row.pairs("other_config").get("vlan-limit").and_then(|limit| limit.parse().ok());
        }
        picture
    }

    pub(super) fn bridge(&self, name: &str) -> Option<&BridgeRow> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    pub(super) fn bridge_of(&self, port: &Uuid) -> Option<&BridgeRow> {
        self.bridges.iter().find(|bridge| bridge.ports.contains(port))
    }

    /// Each port by the names of its interfaces.
    pub(super) fn by_interface(&self) -> HashMap<&str, &PortRow> {
        let names = |port: &PortRow| {
            let names = port.interfaces.iter().filter_map(|uuid| self.interfaces.get(uuid));
            names.map(|interface| interface.name.as_str()).collect::<Vec<_>>()
        };
        self.ports.values().flat_map(|port| names(port).into_iter().map(move |name| (name, port))).collect()
    }

    /// The ports of a bridge that the engine or somebody else has put there: all but the bridge's own.
    pub(super) fn ports_of<'a>(&'a self, bridge: &'a BridgeRow) -> impl Iterator<Item = &'a PortRow> {
        bridge.ports.iter().filter_map(|uuid| self.ports.get(uuid)).filter(|port| port.name != bridge.name)
    }

    /// Whether a bridge is the engine's and nothing but these ports keeps it.
    fn is_empty_without(&self, bridge: &BridgeRow, gone: &BTreeSet<&Uuid>) -> bool {
        mark(&bridge.ids).is_some()
            && bridge.netflow.is_none()
            && !bridge.ids.keys().any(|key| key.starts_with(CONFIG))
            && self.ports_of(bridge).all(|port| gone.contains(&port.uuid) || mark(&port.ids) == Some(EAR))
    }

    /// The segments of the engine's ports, by the names of their interfaces.
    pub(super) fn segments(&self) -> HashMap<String, Segment> {
        let mut segments = HashMap::new();
        for bridge in &self.bridges {
            let Ok(name) = BridgeName::new(&bridge.name) else { continue };
            for port in self.ports_of(bridge).filter(|port| matches!(mark(&port.ids), Some(PORT | BOND))) {
                let Some(vlan) = port.tag else { continue };
                for interface in port.interfaces.iter().filter_map(|uuid| self.interfaces.get(uuid)) {
                    segments.insert(interface.name.clone(), Segment { bridge: name.clone(), vlan });
                }
            }
        }
        segments
    }

    /// The bridges that are the engine's or have anything of it.
    pub(super) fn bridges_info(&self) -> Vec<BridgeInfo> {
        let info = |bridge: &BridgeRow| {
            let of = |kind: &str| -> Vec<&PortRow> {
                let mut ports: Vec<_> = self.ports_of(bridge).filter(|port| mark(&port.ids) == Some(kind)).collect();
                ports.sort_by(|a, b| a.name.cmp(&b.name));
                ports
            };
            let names = |kind: &str| of(kind).into_iter().map(|port| port.name.clone()).collect::<Vec<_>>();
            let config = bridge.ids.iter().filter_map(|(key, value)| Some((key.strip_prefix(CONFIG)?, value)));
            let config: BTreeMap<String, String> = config.map(|(key, value)| (key.to_owned(), value.clone())).collect();
            let known = mark(&bridge.ids).is_some()
                || !config.is_empty()
                || self.ports_of(bridge).any(|port| mark(&port.ids).is_some());
            known.then_some(())?;
            Some(BridgeInfo {
                bridge: BridgeName::new(&bridge.name).ok()?,
                preexisting: mark(&bridge.ids).is_none(),
                vlans: [PORT, BOND].into_iter().flat_map(of).filter_map(|port| port.tag).collect(),
                trunks: names(TRUNK),
                tunnels: names(TUNNEL),
                ends: BTreeMap::new(),
                bonds: names(BOND),
                config,
            })
        };
        self.bridges.iter().filter_map(info).collect()
    }

    /// Take ports off their bridges, with the mirrors that need them, and delete the bridges that nobody needs any more;
    /// with `all_bridges` also those that had no port before.
    pub(super) fn remove(&self, gone: &BTreeSet<&Uuid>, all_bridges: bool) -> Vec<Operation> {
        let mut operations = Vec::new();
        for bridge in &self.bridges {
            let here: Vec<&Uuid> = bridge.ports.iter().filter(|port| gone.contains(port)).collect();
            if here.is_empty() && !all_bridges {
                continue;
            }
            if self.is_empty_without(bridge, gone) {
                operations.extend(drop_bridge(bridge));
                continue;
            }
            let mirrors: Vec<&Uuid> = self.dead_mirrors(bridge, gone).collect();
            let mut mutations = Vec::new();
            if !here.is_empty() {
                mutations.push(("ports", Mutation::Delete(Datum::references(here.into_iter().cloned()))));
            }
            if !mirrors.is_empty() {
                mutations.push(("mirrors", Mutation::Delete(Datum::references(mirrors.into_iter().cloned()))));
            }
            if !mutations.is_empty() {
                operations.push(Operation::mutate("Bridge", &is(&bridge.uuid), &mutations));
            }
        }
        operations
    }

    /// The engine's mirrors of a bridge that lack a source or a destination once some ports are gone.
    fn dead_mirrors<'a>(&'a self, bridge: &'a BridgeRow, gone: &'a BTreeSet<&Uuid>) -> impl Iterator<Item = &'a Uuid> {
        let lost = |port: &Uuid| gone.contains(port) || !self.ports.contains_key(port);
        let of_a_port = |mirror: &&MirrorRow| mark(&mirror.ids).is_some_and(|mark| mark != EAR);
        self.mirrors
            .iter()
            .filter(of_a_port)
            .filter(move |mirror| bridge.mirrors.contains(&mirror.uuid))
            .filter(move |mirror| mirror.sources.iter().all(lost) || mirror.output.as_ref().is_none_or(lost))
            .map(|mirror| &mirror.uuid)
    }
}

/// The row of this name.
pub(super) fn is(uuid: &Uuid) -> [(&'static str, &'static str, Datum); 1] {
    [("_uuid", "==", uuid.clone().into())]
}

/// Refuse the transaction if the bridge has changed its ports or is gone, and delete it.
pub(super) fn drop_bridge(bridge: &BridgeRow) -> [Operation; 2] {
    let seen = Row::new([("ports", Datum::references(bridge.ports.iter().cloned()))]);
    [
        Operation::assert_rows("Bridge", &is(&bridge.uuid), &[seen]),
        Operation::mutate("Open_vSwitch", &[], &[("bridges", Mutation::Delete(bridge.uuid.clone().into()))]),
    ]
}

/// Refuse the transaction if a bridge is gone.
pub(super) fn still_there(bridge: &BridgeRow) -> Operation {
    Operation::assert_rows("Bridge", &is(&bridge.uuid), &[Row::new([("name", bridge.name.as_str())])])
}
