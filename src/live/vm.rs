//! Reading VMs from `vm info`: from `Data` where the target sends it, from the table otherwise.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::qos::{Shapes, qos_cell};
use super::record::{Record, Records};
use super::table::{Row, Table, list_cell, vlan_cell};
use crate::language::entry::Entry;
use crate::language::field::{FIELDS, Field, FieldType, FieldValue, field};
use crate::language::qos::Qos;

/// The state of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
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
    pub(super) fn from_number(number: u64) -> Option<Self> {
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
    pub(super) fn from_word(word: &str) -> Option<Self> {
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

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

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
    /// What shapes its traffic toward the VM; None where the target does not show it.
    pub qos: Option<Qos>,
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
    pub kind: Cow<'static, str>,
    /// Its state; a state that megaform does not know counts as an error.
    pub state: VmState,
    /// Its process, 0 if it has none.
    pub pid: u64,
    /// Its NICs in order.
    pub nics: Vec<LiveNic>,
    /// Its USB disks; None where the target does not list them, and where it was not asked.
    pub usb: Option<Vec<super::LiveUsb>>,
    /// Its tags; VMs with equal ones share them.
    pub tags: Arc<Tags>,
    /// Why it is in the state error, where the target says so (in its record, or in a tag `error`).
    pub error: Option<String>,
    /// What is known of its other fields, from its record or from the columns of the table: [`LiveVm::observe`].
    pub observed: Arc<Observed>,
}

/// What a record tells of the fields of `vm config`, without UUID, tags and NICs, which differ from VM to VM.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// By the field's place in the table.
    values: Vec<Option<FieldValue>>,
}

impl Observed {
    /// From the values by the fields' places in the table; None where a field is not shown.
    pub(super) fn new(values: Vec<Option<FieldValue>>) -> Self {
        Self { values }
    }
}

impl LiveVm {
    /// It has ended, and is there until it is flushed.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, VmState::Quit | VmState::Error)
    }

    /// What is in its CD-ROM drive, empty for nothing; None where the target does not show it.
    pub fn cdrom(&self) -> Option<String> {
        static FIELD: LazyLock<Option<&Field>> = LazyLock::new(|| field("cdrom"));
        match FIELD.and_then(|field| self.observe(field)).as_deref() {
            Some(FieldValue::Text(image)) => Some(image.clone()),
            _ => None,
        }
    }

    /// The value of a field; None where the target does not show it. NICs are not read here, because a record shows their
    /// live state.
    pub fn observe(&self, field: &Field) -> Option<Cow<'_, FieldValue>> {
        match field.ty {
            FieldType::Uuid if self.uuid.is_empty() => None,
            FieldType::Uuid => Some(Cow::Owned(FieldValue::Text(self.uuid.clone()))),
            FieldType::Tags => Some(Cow::Owned(FieldValue::Tags((*self.tags).clone()))),
            _ => {
                let index = FIELDS.iter().position(|other| std::ptr::eq(other, field))?;
                self.observed.values.get(index)?.as_ref().map(Cow::Borrowed)
            }
        }
    }
}

/// A response to `vm info`, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Frame<'a> {
    #[serde(borrow, default)]
    resp: Option<Vec<VmEntry<'a>>>,
    #[serde(default)]
    more: bool,
    #[serde(default)]
    status: bool,
}

/// One host's answer. The table is text that was not looked at yet: mostly the records tell everything.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct VmEntry<'a> {
    #[serde(borrow)]
    pub host: Cow<'a, str>,
    #[serde(borrow)]
    pub error: Cow<'a, str>,
    header: Option<Vec<String>>,
    #[serde(borrow)]
    tabular: &'a RawValue,
    #[serde(borrow)]
    data: Records<'a>,
}

impl Default for VmEntry<'_> {
    fn default() -> Self {
        Self { host: "".into(), error: "".into(), header: None, tabular: RawValue::NULL, data: Records::default() }
    }
}

impl<'a> Frame<'a> {
    pub fn read(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        // Checked as a whole, which is quicker than text by text; where it is no UTF-8, the reader tells the place.
        std::str::from_utf8(line).map_or_else(|_| serde_json::from_slice(line), serde_json::from_str)
    }

    /// The answers; none in a frame with progress.
    pub fn into_entries(self) -> impl Iterator<Item = VmEntry<'a>> {
        self.resp.into_iter().flatten().filter(move |_| !self.status)
    }

    pub fn is_last(&self) -> bool {
        !self.more && !self.status
    }
}

impl<'a> VmEntry<'a> {
    /// The VMs: from the records where the target sends them, from the table otherwise.
    pub fn vms(mut self) -> Result<Vec<LiveVm>, serde_json::Error> {
        let records = std::mem::take(&mut self.data).0;
        let told = |record: &Record<'_>| !record.name.is_empty() && record.kind.is_some() && record.state.is_some();
        if !records.is_empty() && records.iter().all(told) {
            let mut vms: Vec<LiveVm> = records.into_iter().map(|record| self.vm(record, None)).collect();
            self.shape(&mut vms);
            return Ok(vms);
        }
        let tabular: Option<Vec<Vec<String>>> = serde_json::from_str(self.tabular.get())?;
        let entry = Entry { header: self.header.clone(), tabular, ..Entry::default() };
        let rows: BTreeMap<&str, Row<'_>> =
            Table::new(&entry).rows().filter_map(|row| Some((row.get("name")?, row))).collect();
        if records.is_empty() || records.iter().any(|record| record.name.is_empty()) {
            let vm = |row: &Row<'_>| Ok(self.vm(Record::read(&record_of(*row).to_string())?, Some(*row)));
            return rows.values().map(vm).collect();
        }
        let with_row = |record: Record<'_>| {
            let row = rows.get(&*record.name).copied();
            self.vm(record, row)
        };
        Ok(records.into_iter().map(with_row).collect())
    }

    /// Enter what shapes NICs from the table, where the records do not tell.
    fn shape(&self, vms: &mut [LiveVm]) {
        if vms.iter().all(|vm| vm.nics.iter().all(|nic| nic.qos.is_some())) {
            return;
        }
        let place = |column: &str| self.header.as_ref()?.iter().position(|header| header == column);
        let Some((name, qos)) = place("name").zip(place("qos")) else { return };
        let mut rows = serde_json::Deserializer::from_str(self.tabular.get());
        let seed = &Shapes { name, qos };
        let Ok(cells) = serde::de::DeserializeSeed::deserialize(seed, &mut rows) else { return };
        for vm in vms {
            let cell = cells.get(&vm.name).map_or("[]", String::as_str);
            let Some(shapes) = qos_cell(cell, vm.nics.len()) else { continue };
            for (nic, qos) in vm.nics.iter_mut().zip(shapes) {
                nic.qos.get_or_insert(qos);
            }
        }
    }

    fn vm(&self, record: Record<'_>, row: Option<Row<'_>>) -> LiveVm {
        let cell = |column: &str| row.and_then(|r| r.get(column));
        let state = record.state.or_else(|| cell("state").and_then(VmState::from_word)).unwrap_or(VmState::Error);
        let kind = record.kind.or_else(|| cell("type").map(|kind| kind.to_owned().into())).unwrap_or_default();
        let nics = record.nics.or_else(|| row.map(nics_of_row)).unwrap_or_default();
        let tags = record.tags.unwrap_or_default();
        let said = || Some(record.error.into_owned()).filter(|error| !error.is_empty());
        let error = match state {
            VmState::Error => said().or_else(|| tags.get("error").cloned()),
            _ => None,
        };
        LiveVm {
            id: record.id,
            host: if record.host.is_empty() { self.host.to_string() } else { record.host.into_owned() },
            uuid: record.uuid.into_owned(),
            pid: record.pid,
            name: record.name.into_owned(),
            kind,
            state,
            nics,
            usb: None,
            tags,
            error,
            observed: record.observed.unwrap_or_default(),
        }
    }
}

fn nics_of_row(row: Row<'_>) -> Vec<LiveNic> {
    let column = |name: &str| row.get(name).map(list_cell).unwrap_or_default();
    let (vlans, bridges, taps, macs) = (column("vlan"), column("bridge"), column("tap"), column("mac"));
    let at = |list: &[&str], i: usize| list.get(i).map(|t| (*t).to_owned()).unwrap_or_default();
    let shapes = row.get("qos").and_then(|cell| qos_cell(cell, vlans.len()));
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
                qos: shapes.as_ref().map(|shapes| shapes[i]),
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
