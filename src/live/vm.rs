//! Reading VMs from `vm info`: from `Data` where the target sends it, from the table otherwise.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::table::{Row, Table, list_cell, vlan_cell};
use crate::language::entry::Entry;
use crate::language::field::{FIELDS, FieldType};

/// The state of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VmState {
    /// Launched, never started.
    Building,
    /// Its guest runs.
    Running,
    /// Its guest is stopped.
    Paused,
    /// It ended, or was killed.
    Quit,
    /// It could not be launched, or it failed.
    Error,
}

impl VmState {
    /// By the number in `Data`.
    fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Building,
            2 => Self::Running,
            4 => Self::Paused,
            8 => Self::Quit,
            16 => Self::Error,
            _ => return None,
        })
    }

    /// By the word in the table.
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "BUILDING" => Self::Building,
            "RUNNING" => Self::Running,
            "PAUSED" => Self::Paused,
            "QUIT" => Self::Quit,
            "ERROR" => Self::Error,
            _ => return None,
        })
    }

    /// The word as megaform prints it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Quit => "quit",
            Self::Error => "error",
        }
    }
}

/// One NIC of a VM, as it is connected now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveNic {
    /// The alias of its VLAN, if that has one.
    pub alias: Option<String>,
    /// The tag of its VLAN, where the target shows it.
    pub vlan: Option<u16>,
    /// Its bridge; empty while disconnected.
    pub bridge: String,
    /// Its tap on the host.
    pub tap: String,
    /// Its address, as the target prints it.
    pub mac: String,
    /// Its model, where the target shows it.
    pub driver: Option<String>,
    /// The netspec that it was launched with, where the target shows it.
    pub launched_as: Option<String>,
    /// It is connected to a VLAN.
    pub connected: bool,
}

/// One VM.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveVm {
    /// Its name.
    pub name: String,
    /// Its id on its host.
    pub id: u64,
    /// The host that it runs on.
    pub host: String,
    /// Its UUID.
    pub uuid: String,
    /// Its type: kvm, container or android.
    pub kind: String,
    /// Its state; a state that megaform does not know counts as an error.
    pub state: VmState,
    /// Its process, 0 if it has none.
    pub pid: u64,
    /// Its NICs in order.
    pub nics: Vec<LiveNic>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Why it is in the state error, where the target says so (in its record, or in a tag `error`).
    pub error: Option<String>,
    /// Its record, for `Field::observe`; made from the columns where the target sends no `Data`.
    pub record: Value,
}

/// The VMs of one host's answer.
pub fn read(entry: Entry) -> Vec<LiveVm> {
    let rows: BTreeMap<&str, Row<'_>> =
        Table::new(&entry).rows().filter_map(|row| Some((row.get("name")?, row))).collect();
    let records = match &entry.data {
        Value::Array(records) if records.iter().all(|r| r.get("Name").is_some()) && !records.is_empty() => {
            records.clone()
        }
        _ => rows.values().map(|row| record_of(*row)).collect(),
    };
    records
        .into_iter()
        .filter_map(|record| {
            let name = record.get("Name")?.as_str()?.to_owned();
            let row = rows.get(name.as_str()).copied();
            Some(vm_of(name, record, row, &entry.host))
        })
        .collect()
}

fn vm_of(name: String, record: Value, row: Option<Row<'_>>, host: &str) -> LiveVm {
    let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| record.get(key).and_then(Value::as_u64).unwrap_or_default();
    let cell = |column: &str| row.and_then(|r| r.get(column));
    let tags: BTreeMap<String, String> = record
        .get("Tags")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
        .collect();
    let state = record
        .get("State")
        .and_then(|s| s.as_u64().and_then(VmState::from_number).or_else(|| s.as_str().and_then(VmState::from_word)))
        .or_else(|| cell("state").and_then(VmState::from_word))
        .unwrap_or(VmState::Error);
    let kind = cell("type").map(str::to_owned).unwrap_or_else(|| match number("Type") {
        1 => "kvm".to_owned(),
        2 => "container".to_owned(),
        3 => "android".to_owned(),
        other => other.to_string(),
    });
    let nics = match record.get("Networks").and_then(Value::as_array) {
        Some(networks) => networks.iter().map(nic_of).collect(),
        None => row.map(nics_of_row).unwrap_or_default(),
    };
    let said = || Some(text("Error")).filter(|error| !error.is_empty()).or_else(|| tags.get("error").cloned());
    let error = if state == VmState::Error { said() } else { None };
    LiveVm {
        id: number("ID"),
        host: Some(text("Host")).filter(|h| !h.is_empty()).unwrap_or_else(|| host.to_owned()),
        uuid: text("UUID"),
        pid: number("Pid"),
        name,
        kind,
        state,
        nics,
        tags,
        error,
        record,
    }
}

/// A NIC from its record. Disconnected is an empty bridge, or a VLAN that is no tag.
fn nic_of(record: &Value) -> LiveNic {
    let text = |key: &str| record.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let vlan = record.get("VLAN").and_then(Value::as_u64).and_then(|v| u16::try_from(v).ok()).filter(|v| *v < 4096);
    let bridge = text("Bridge").unwrap_or_default();
    let connected = vlan.is_some() && !bridge.is_empty();
    LiveNic {
        alias: text("Alias").filter(|_| connected),
        vlan: vlan.filter(|_| connected),
        bridge,
        tap: text("Tap").unwrap_or_default(),
        mac: text("MAC").unwrap_or_default(),
        driver: text("Driver"),
        launched_as: text("Raw"),
        connected,
    }
}

fn nics_of_row(row: Row<'_>) -> Vec<LiveNic> {
    let column = |name: &str| row.get(name).map(list_cell).unwrap_or_default();
    let (vlans, bridges, taps, macs) = (column("vlan"), column("bridge"), column("tap"), column("mac"));
    let at = |list: &[&str], i: usize| list.get(i).map(|t| (*t).to_owned()).unwrap_or_default();
    vlans
        .iter()
        .enumerate()
        .map(|(i, cell)| {
            let (alias, vlan) = vlan_cell(cell);
            let bridge = at(&bridges, i);
            let connected = vlan.is_some() && (!bridge.is_empty() || row.get("bridge").is_none());
            LiveNic {
                alias: alias.filter(|_| connected),
                vlan: vlan.filter(|_| connected),
                bridge,
                tap: at(&taps, i),
                mac: at(&macs, i),
                driver: None,
                launched_as: None,
                connected,
            }
        })
        .collect()
}

/// A record with what a row tells for certain. Lists of words and disks are left out unless they are empty, because a
/// cell does not tell where an item ends.
fn record_of(row: Row<'_>) -> Value {
    let mut record = Map::new();
    let cell = |column: &str| row.get(column).filter(|c| *c != "N/A");
    for (key, column) in [("ID", "id"), ("Pid", "pid")] {
        if let Some(number) = cell(column).and_then(|c| c.parse::<u64>().ok()) {
            record.insert(key.to_owned(), json!(number));
        }
    }
    for (key, column) in [("Name", "name"), ("State", "state"), ("UUID", "uuid")] {
        if let Some(text) = cell(column) {
            record.insert(key.to_owned(), json!(text));
        }
    }
    for field in FIELDS {
        let Some(cell) = field.column.and_then(cell) else { continue };
        let value = match field.ty {
            FieldType::Uint { .. } => cell.parse::<u64>().ok().map(Value::from),
            FieldType::Int { .. } => cell.parse::<i64>().ok().map(Value::from),
            FieldType::Bool => cell.parse::<bool>().ok().map(Value::from),
            FieldType::Text | FieldType::Path | FieldType::Uuid => Some(json!(cell)),
            FieldType::Words | FieldType::Bonds | FieldType::Disks => list_cell(cell).is_empty().then(|| json!([])),
            FieldType::Tags => serde_json::from_str(cell).ok(),
            FieldType::Networks | FieldType::Volumes | FieldType::Overrides => None,
        };
        if let Some(value) = value {
            record.insert(field.data_key.to_owned(), value);
        }
    }
    Value::Object(record)
}
