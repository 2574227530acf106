//! The operations that put ports on bridges.

use std::collections::{BTreeMap, BTreeSet};

use super::datapath::Datapath;
use super::qdiscs;
use super::rows::{BOND, MARK, PORT, Picture, is, mark, still_there};
use super::wrong;
use crate::host::linux::switch::SwitchPort;
use crate::host::{NetworkError, Segment};
use crate::ovsdb::{Datum, Mutation, Operation, Row, Uuid};

/// The operations that put ports where they are wanted.
pub(super) fn place(
    datapath: Datapath,
    picture: &Picture,
    ports: &[(SwitchPort, Segment)],
) -> Result<Vec<Operation>, NetworkError> {
    let by_interface = picture.by_interface();
    let (noop, make_noop) = qdiscs::untouched(picture);
    let mut operations = Vec::new();
    let mut arriving: BTreeMap<&str, Vec<Uuid>> = BTreeMap::new();
    let mut leaving: BTreeSet<&Uuid> = BTreeSet::new();
    for (at, (port, segment)) in ports.iter().enumerate() {
        let bridge = segment.bridge.as_str();
        let tag = Row::new([("tag", segment.vlan.get())]);
        let Some(row) = by_interface.get(port.interface.as_str()) else {
            let (interface, name) = (format!("i{at}"), format!("p{at}"));
            operations.push(Operation::insert(
                "Interface",
                Some(&interface),
                &Row::new([("name", port.interface.as_str())]),
            ));
            let row = tag
                .with("name", port.interface.as_str())
                .with("interfaces", Uuid::New(interface))
                .with("qos", noop.clone())
                .with("external_ids", Datum::map([(MARK, PORT)]));
            operations.push(Operation::insert("Port", Some(&name), &row));
            arriving.entry(bridge).or_default().push(Uuid::New(name));
            continue;
        };
        let what = format!("connect {}", port.tap);
        match mark(&row.ids) {
            Some(PORT) => {}
            Some(BOND) => {
                let text = format!("it is part of bond {}; `clear vm net bond` makes it a single one again", row.name);
                return Err(wrong(&what, text));
            }
            Some(_) => return Err(wrong(&what, "it is a trunk")),
            None => {
                let text = "Open vSwitch has a port of that name which is not megaform's";
                return Err(wrong(&what, text));
            }
        }
        if row.qos.is_none() {
            operations.push(Operation::update("Port", &is(&row.uuid), &Row::new([("qos", noop.clone())])));
        }
        let now = picture.bridge_of(&row.uuid);
        if row.tag != Some(segment.vlan) {
            operations.push(Operation::update("Port", &is(&row.uuid), &tag));
        }
        if now.is_none_or(|now| now.name != bridge) {
            leaving.insert(&row.uuid);
            arriving.entry(bridge).or_default().push(row.uuid.clone());
        }
    }
    if !operations.is_empty() {
        operations.extend(make_noop);
    }
    operations.extend(picture.remove(&leaving, false));
    for (at, (name, ports)) in arriving.into_iter().enumerate() {
        operations.extend(join(datapath, picture, name, &format!("b{at}"), "ports", ports));
    }
    Ok(operations)
}

/// Add rows to a column of a bridge, which is made if there is none. `new` is its name in the transaction.
pub(super) fn join(
    datapath: Datapath,
    picture: &Picture,
    bridge: &str,
    new: &str,
    column: &str,
    rows: Vec<Uuid>,
) -> Vec<Operation> {
    match picture.bridge(bridge) {
        Some(bridge) => {
            let add = [(column, Mutation::Insert(Datum::references(rows)))];
            vec![still_there(bridge), Operation::mutate("Bridge", &is(&bridge.uuid), &add)]
        }
        None => {
            let (port, interface) = (format!("{new}p"), format!("{new}i"));
            let own = Uuid::New(port.clone());
            let ports = if column == "ports" { [vec![own], rows.clone()].concat() } else { vec![own] };
            let mut row = Row::new([("name", bridge)])
                .with("datapath_type", datapath.column())
                .with("ports", Datum::references(ports))
                .with("external_ids", Datum::map([(MARK, "bridge")]));
            if column != "ports" {
                row = row.with(column, Datum::references(rows));
            }
            let local = Row::new([("name", bridge), ("type", "internal")]);
            let local_port = Row::new([("name", bridge)]).with("interfaces", Uuid::New(interface.clone()));
            vec![
                Operation::insert("Interface", Some(&interface), &local),
                Operation::insert("Port", Some(&port), &local_port),
                Operation::insert("Bridge", Some(new), &row),
                Operation::mutate(
                    "Open_vSwitch",
                    &[],
                    &[("bridges", Mutation::Insert(Uuid::New(new.to_owned()).into()))],
                ),
            ]
        }
    }
}
