//! Keeps ovs-vswitchd off the queueing disciplines of ports, which it deletes unless it is told otherwise: taps have their
//! shape there, and an uplink what its owner has set.
//!
//! All ports of the engine share one row of type `linux-noop`. It is made with the first and deleted with the last.

use std::collections::BTreeSet;

use super::rows::{MARK, Picture, is};
use crate::ovsdb::{Datum, Operation, Row, Uuid};

/// What the mark of the row says.
const NOOP: &str = "noop";
/// Its name in the transaction that makes it.
const NEW: &str = "noop";
const TYPE: &str = "linux-noop";

/// The question of a [`Picture`] that [`read`] takes the answer to.
pub(super) fn question() -> Operation {
    Operation::select("QoS", &[("type", "==", TYPE.into())], &["_uuid", "external_ids"])
}

/// The row, if it is there.
pub(super) fn read(answer: Option<Vec<Row>>) -> Option<Uuid> {
    let ours = |row: &Row| row.pairs("external_ids").get(MARK) == Some(&NOOP);
    answer.unwrap_or_default().iter().find(|row| ours(row)).and_then(Row::uuid)
}

/// What the column `qos` of a new port refers to, with the operation that makes it, if there is none yet. One operation is
/// enough for a transaction.
pub(super) fn untouched(picture: &Picture) -> (Uuid, Option<Operation>) {
    match &picture.noop {
        Some(uuid) => (uuid.clone(), None),
        None => {
            let row = Row::new([("type", Datum::from(TYPE))]).with("external_ids", Datum::map([(MARK, NOOP)]));
            (Uuid::New(NEW.to_owned()), Some(Operation::insert("QoS", Some(NEW), &row)))
        }
    }
}

/// The operations that delete the row once these ports are gone; none while another one needs it.
pub(super) fn spare(picture: &Picture, gone: &BTreeSet<&Uuid>) -> Vec<Operation> {
    let Some(noop) = picture.noop.as_ref() else { return Vec::new() };
    let users: Vec<_> = picture.ports.values().filter(|port| port.qos.as_ref() == Some(noop)).collect();
    if users.iter().any(|port| !gone.contains(&port.uuid)) {
        return Vec::new();
    }
    // References are counted before ports that no bridge has are dropped, so those that go in the same transaction let go first.
    let none = Row::new([("qos", Datum::references([]))]);
    let released = users.iter().map(|port| Operation::update("Port", &is(&port.uuid), &none));
    released.chain([Operation::delete("QoS", &is(noop))]).collect()
}
