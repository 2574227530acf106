//! Bonds: one port of several interfaces, spread by ovs-vswitchd.

use std::collections::{BTreeSet, HashSet};

use super::qdiscs;
use super::rows::{BOND, MARK, MIRROR, MirrorRow, PORT, Picture, PortRow, is, mark, still_there};
use super::{OpenVswitch, wrong};
use crate::host::linux::switch::SwitchPort;
use crate::host::{Bond, BondMode, Lacp, NetworkError, Segment};
use crate::name::TapName;
use crate::ovsdb::{Datum, Mutation, Operation, Outcome, Row, Uuid};

/// What it takes to have these interfaces in no port: the ports that go as a whole, and what makes bonds smaller.
pub(super) fn without<'a>(picture: &'a Picture, names: &HashSet<&str>) -> (BTreeSet<&'a Uuid>, Vec<Operation>) {
    let mut whole = BTreeSet::new();
    let mut operations = Vec::new();
    for port in picture.ports.values().filter(|port| matches!(mark(&port.ids), Some(PORT | BOND))) {
        let is_named = |uuid: &&Uuid| picture.interfaces.get(uuid).is_some_and(|i| names.contains(i.name.as_str()));
        let members: Vec<&Uuid> = port.interfaces.iter().filter(is_named).collect();
        if members.is_empty() {
            continue;
        }
        if members.len() == port.interfaces.len() {
            whole.insert(&port.uuid);
        } else {
            let delete = Mutation::Delete(Datum::references(members.into_iter().cloned()));
            operations.push(Operation::mutate("Port", &is(&port.uuid), &[("interfaces", delete)]));
        }
    }
    (whole, operations)
}

impl OpenVswitch {
    pub(super) fn add_bond(
        &mut self,
        ports: &[SwitchPort],
        segment: &Segment,
        bond: &Bond,
    ) -> Result<(), NetworkError> {
        let what = format!("make bond {}", bond.name);
        if ports.len() < 2 {
            return Err(wrong(&what, "a bond has two interfaces or more"));
        }
        if bond.mode == BondMode::BalanceTcp && bond.lacp == Lacp::Off {
            return Err(wrong(&what, "balance-tcp needs LACP: expected active or passive, not off"));
        }
        if self.links()?.iter().any(|link| link.name == bond.name.as_str()) {
            return Err(NetworkError::Exists { tap: bond.name.to_string() });
        }
        self.settle(&what)?;
        let own = self.daemons.is_some();
        let number = self.change(&what, |picture| {
            if let Some(there) = picture.ports.values().find(|port| port.name == bond.name.as_str()) {
                let members: BTreeSet<&str> = members(picture, there).collect();
                let wanted: BTreeSet<&str> = ports.iter().map(|port| port.interface.as_str()).collect();
                // A try before may have made it.
                return if mark(&there.ids) == Some(BOND) && members == wanted {
                    Ok(Vec::new())
                } else {
                    Err(NetworkError::Exists { tap: bond.name.to_string() })
                };
            }
            let by_interface = picture.by_interface();
            let mut singles = Vec::new();
            for port in ports {
                match by_interface.get(port.interface.as_str()) {
                    Some(row) if mark(&row.ids) == Some(PORT) => singles.push(*row),
                    Some(row) if mark(&row.ids) == Some(BOND) => {
                        return Err(wrong(&what, format!("{} is part of bond {}", port.tap, row.name)));
                    }
                    _ => return Err(wrong(&what, format!("{} is disconnected", port.tap))),
                }
            }
            // Its mirrors are of ports, and these are none of their own any more.
            let mirrored = |port: &PortRow| {
                let ends = |mirror: &MirrorRow| {
                    mirror.sources.contains(&port.uuid) || mirror.output.as_ref() == Some(&port.uuid)
                };
                picture.mirrors.iter().any(|mirror| mark(&mirror.ids) == Some(MIRROR) && ends(mirror))
            };
            if let Some(port) = singles.iter().find(|port| mirrored(port)) {
                let text = format!("{} is an end of a mirror of Open vSwitch, which would end", port.name);
                return Err(wrong(&what, format!("{text}; `clear tap mirror` ends it")));
            }
            let bridge = picture.bridge(segment.bridge.as_str());
            let Some(bridge) = bridge.filter(|bridge| singles.iter().all(|port| bridge.ports.contains(&port.uuid)))
            else {
                return Err(wrong(&what, format!("its interfaces are not all on bridge {}", segment.bridge)));
            };
            let mut operations = vec![still_there(bridge)];
            if bond.qinq && picture.vlan_limit.is_none_or(|limit| limit == 1) {
                if !own {
                    let set = "`ovs-vsctl set Open_vSwitch . other_config:vlan-limit=2` lets it";
                    return Err(wrong(&what, format!("this Open vSwitch looks at one VLAN tag only; {set}")));
                }
                let limit = [("other_config", Mutation::Insert(Datum::map([("vlan-limit", "2")])))];
                operations.push(Operation::mutate("Open_vSwitch", &[], &limit));
            }
            let interfaces = singles.iter().flat_map(|port| port.interfaces.iter().cloned());
            let (noop, make_noop) = qdiscs::untouched(picture);
            operations.extend(make_noop);
            let mut row = Row::new([("name", bond.name.as_str())])
                .with("interfaces", Datum::references(interfaces))
                .with("qos", noop)
                .with("tag", segment.vlan.get())
                .with("bond_mode", bond.mode.word())
                .with("lacp", bond.lacp.word())
                .with("external_ids", Datum::map([(MARK, BOND)]));
            if bond.fallback && bond.lacp != Lacp::Off {
                row = row.with("other_config", Datum::map([("lacp-fallback-ab", "true")]));
            }
            if bond.qinq {
                row = row.with("vlan_mode", "dot1q-tunnel");
            }
            operations.push(Operation::insert("Port", Some("bond"), &row));
            let old = Datum::references(singles.iter().map(|port| port.uuid.clone()));
            let change =
                [("ports", Mutation::Delete(old)), ("ports", Mutation::Insert(Uuid::New("bond".to_owned()).into()))];
            operations.push(Operation::mutate("Bridge", &is(&bridge.uuid), &change));
            Ok(operations)
        })?;
        number.map_or(Ok(()), |number| self.applied(&what, number))
    }

    pub(super) fn remove_bond(&mut self, name: &TapName) -> Result<(), NetworkError> {
        let what = format!("dissolve bond {name}");
        let mut found = false;
        let number = self.change(&what, |picture| {
            let bond = picture.ports.values().find(|port| port.name == name.as_str());
            let Some(bond) = bond.filter(|port| mark(&port.ids) == Some(BOND)) else {
                return if found { Ok(Vec::new()) } else { Err(wrong(&what, "there is no bond of that name")) };
            };
            found = true;
            let Some(bridge) = picture.bridge_of(&bond.uuid) else { return Ok(Vec::new()) };
            let (noop, make_noop) = qdiscs::untouched(picture);
            let mut operations = vec![still_there(bridge)];
            operations.extend(make_noop);
            let mut singles = Vec::new();
            for (at, interface) in bond.interfaces.iter().enumerate() {
                let Some(row) = picture.interfaces.get(interface) else { continue };
                let mut port = Row::new([("name", row.name.as_str())])
                    .with("interfaces", interface.clone())
                    .with("qos", noop.clone())
                    .with("external_ids", Datum::map([(MARK, PORT)]));
                if let Some(tag) = bond.tag {
                    port = port.with("tag", tag.get());
                }
                operations.push(Operation::insert("Port", Some(&format!("p{at}")), &port));
                singles.push(Uuid::New(format!("p{at}")));
            }
            let change = [
                ("ports", Mutation::Delete(bond.uuid.clone().into())),
                ("ports", Mutation::Insert(Datum::references(singles))),
            ];
            operations.push(Operation::mutate("Bridge", &is(&bridge.uuid), &change));
            Ok(operations)
        })?;
        number.map_or(Ok(()), |number| self.applied(&what, number))
    }

    pub(super) fn list_bonds(&mut self) -> Result<Vec<Bond>, NetworkError> {
        if !self.is_there() {
            return Ok(Vec::new());
        }
        let columns = ["name", "interfaces", "bond_mode", "lacp", "vlan_mode", "other_config"];
        let includes = [("external_ids", "includes", Datum::map([(MARK, BOND)]))];
        let questions =
            [Operation::select("Port", &includes, &columns), Operation::select("Interface", &[], &["_uuid", "name"])];
        let mut answers = self.ask("list bonds", &questions)?.into_iter().map(Outcome::rows);
        let rows = answers.next().unwrap_or_default();
        let names = answers.next().unwrap_or_default();
        let tap = |uuid: &Uuid| {
            let row = names.iter().find(|row| row.uuid().as_ref() == Some(uuid))?;
            TapName::new(row.text("name")).ok()
        };
        let mut bonds: Vec<Bond> = rows
            .iter()
            .filter_map(|row| {
                Some(Bond {
                    name: TapName::new(row.text("name")).ok()?,
                    taps: row.uuids("interfaces").iter().filter_map(tap).collect(),
                    mode: match row.text("bond_mode") {
                        "balance-slb" => BondMode::BalanceSlb,
                        "balance-tcp" => BondMode::BalanceTcp,
                        _ => BondMode::ActiveBackup,
                    },
                    lacp: match row.text("lacp") {
                        "active" => Lacp::Active,
                        "passive" => Lacp::Passive,
                        _ => Lacp::Off,
                    },
                    fallback: row.pairs("other_config").get("lacp-fallback-ab") == Some(&"true"),
                    qinq: row.text("vlan_mode") == "dot1q-tunnel",
                })
            })
            .collect();
        bonds.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(bonds)
    }
}

fn members<'a>(picture: &'a Picture, port: &'a PortRow) -> impl Iterator<Item = &'a str> {
    port.interfaces.iter().filter_map(|uuid| Some(picture.interfaces.get(uuid)?.name.as_str()))
}
