//! `vm info`: the columns of minimega 3.1.0 and the complete record behind them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use crate::host::{Port, ProcessId, Segment, held};
use crate::language::field::{FIELDS, Field, FieldValue, Group};
use crate::name::{Namespace, Shape, TapName};

use super::bonds::Bonded;
use super::vm::{Live, Nic, Vm};
use super::{Engine, EngineError, State};

/// What the host has of NICs, by tap.
struct Seen {
    bonds: HashMap<TapName, Bonded>,
    /// Somebody may have deleted the bridge of a tap, or its shape.
    taps: HashMap<TapName, Port>,
    /// The taps of the NICs of VMs whose QEMU ran before that was looked at, with the process.
    before: HashMap<TapName, ProcessId>,
}

impl Seen {
    /// Where a NIC is; while its VM has no taps, where it will be. One whose tap somebody deleted is nowhere.
    fn place(&self, live: &Live, nic: &Nic) -> Option<Segment> {
        match self.taps.get(&nic.tap) {
            Some(port) => port.segment.clone(),
            None if live.state.has_process() && live.process.is_some_and(|id| self.had(id, nic)) => None,
            None => nic.segment(),
        }
    }

    /// Whether a NIC had its tap before it was looked at which there are.
    fn had(&self, process: ProcessId, nic: &Nic) -> bool {
        self.before.get(&nic.tap) == Some(&process)
    }

    /// What shapes a NIC; while it has no tap, what will.
    fn shape(&self, nic: &Nic) -> Shape {
        match self.taps.get(&nic.tap) {
            Some(port) if port.shape != held(nic.shape) => port.shape,
            _ => nic.shape,
        }
    }
}

/// All columns, in order.
pub const INFO_COLUMNS: &[&str] = &[
    "id",
    "name",
    "state",
    "uptime",
    "type",
    "uuid",
    "cc_active",
    "pid",
    "vlan",
    "bridge",
    "tap",
    "mac",
    "ip",
    "ip6",
    "qos",
    "qinq",
    "bond",
    "memory",
    "vcpus",
    "disks",
    "snapshot",
    "initrd",
    "kernel",
    "cdrom",
    "save",
    "append",
    "serial-ports",
    "virtio-ports",
    "vnc_port",
    "usb-use-xhci",
    "tpm-socket",
    "bidirectional-copy-paste",
    "android_avd",
    "android_console_port",
    "android_adb_port",
    "android_serial",
    "filesystem",
    "hostname",
    "init",
    "preinit",
    "fifo",
    "volume",
    "console_port",
    "tags",
];

/// The columns of `vm info summary`.
pub const SUMMARY_COLUMNS: &[&str] = &["id", "name", "state", "type", "uuid", "cc_active", "vlan"];

/// One VM as `vm info` shows it.
pub struct InfoRow {
    /// A value for each column.
    pub cells: Vec<String>,
    /// The `Data` record.
    pub record: Value,
}

impl Engine {
    /// The VMs of a namespace, by id.
    pub async fn info(&self, namespace: &Namespace, columns: &[&str]) -> Result<Vec<InfoRow>, EngineError> {
        let mut before = HashMap::new();
        for vm in self.vms(namespace) {
            let live = vm.live();
            // QEMU answers once it has opened its taps.
            let process = live.process.filter(|_| live.state.has_process() && live.qmp.is_some());
            before.extend(process.into_iter().flat_map(|id| live.nics.iter().map(move |nic| (nic.tap.clone(), id))));
        }
        let taps = self.ports().await?.into_iter().map(|port| (port.tap.clone(), port)).collect();
        let seen = Seen { bonds: self.bonded().await?, taps, before };
        let vms = self.vms(namespace);
        let state = self.state();
        let row = |vm: &Arc<Vm>| InfoRow {
            cells: columns.iter().map(|column| cell(&state, &seen, vm, column)).collect(),
            record: record(&state, &seen, vm, &self.options.host),
        };
        Ok(vms.iter().map(row).collect())
    }
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", "))
}

fn nic_vlan(state: &State, seen: &Seen, vm: &Vm, live: &Live, nic: &Nic) -> String {
    let place = seen.place(live, nic);
    place.map_or_else(|| "disconnected".to_owned(), |segment| state.vlans.show(&vm.namespace, segment.vlan))
}

/// An address, empty while none is known.
fn shown(address: Option<impl ToString>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

/// The bridge of a NIC, empty while it is disconnected.
fn nic_bridge(seen: &Seen, live: &Live, nic: &Nic) -> String {
    seen.place(live, nic).map(|segment| segment.bridge.to_string()).unwrap_or_default()
}

/// What is set of each NIC for which something is, as `[0: rate 1mbit, 2: delay 100ms loss 0.25]`.
fn qos(seen: &Seen, nics: &[Nic]) -> String {
    let shapes = nics.iter().map(|nic| seen.shape(nic)).enumerate();
    let shaped: Vec<(usize, Shape)> = shapes.filter(|(_, shape)| !shape.is_none()).collect();
    list(&shaped, |(index, shape)| {
        let settings: Vec<String> = shape.settings().iter().map(|(key, value)| format!("{key} {value}")).collect();
        format!("{index}: {}", settings.join(" "))
    })
}

fn cell(state: &State, seen: &Seen, vm: &Vm, column: &str) -> String {
    let live = vm.live();
    let config = &vm.config;
    match column {
        "id" => vm.id.to_string(),
        "name" => vm.name.to_string(),
        "state" => live.state.word().to_owned(),
        "uptime" => go_duration(SystemTime::now().duration_since(vm.launched).unwrap_or_default()),
        "type" => "kvm".to_owned(),
        "uuid" => vm.uuid.to_string(),
        // No command-and-control channel exists in this engine, so no agent is ever connected.
        "cc_active" => "false".to_owned(),
        "pid" => live.process.map_or_else(|| "0".to_owned(), |id| id.pid.to_string()),
        "vlan" => list(&live.nics, |nic| nic_vlan(state, seen, vm, &live, nic)),
        "bridge" => list(&live.nics, |nic| nic_bridge(seen, &live, nic)),
        "tap" => list(&live.nics, |nic| nic.tap.to_string()),
        "mac" => list(&live.nics, |nic| nic.mac.to_string()),
        "ip" => list(&live.nics, |nic| shown(nic.ip4)),
        "ip6" => list(&live.nics, |nic| shown(nic.ip6)),
        "qos" => qos(seen, &live.nics),
        "bond" => list(&bonds(seen, &live.nics, false), ToString::to_string),
        "qinq" => list(&bonds(seen, &live.nics, true), ToString::to_string),
        "vnc_port" => live.vnc.as_ref().map_or(0, |shim| shim.port).to_string(),
        "cdrom" => live.cdrom.image.clone(),
        "tags" => serde_json::to_string(&live.tags).expect("strings are JSON"),
        column => match kvm_fields().find(|field| field.column == Some(column)) {
            Some(field) => match config.get(field.name) {
                // minimega prints no brackets around disks.
                FieldValue::Disks(disks) => disks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                other => other.to_string(),
            },
            None => "N/A".to_owned(),
        },
    }
}

/// The bonds of NICs, by name, each once; with `qinq` only those that add an outer VLAN tag.
fn bonds(seen: &Seen, nics: &[Nic], qinq: bool) -> Vec<TapName> {
    let found = nics.iter().filter_map(|nic| seen.bonds.get(&nic.tap)).filter(|bond| bond.qinq || !qinq);
    found.map(|bond| bond.name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The fields that a KVM VM has.
fn kvm_fields() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(|field| matches!(field.group, Group::Base | Group::Kvm))
}

/// The keys of a KVM VM's record in minimega's order.
const RECORD_KEYS: &[&str] = &[
    "UUID",
    "VCPUs",
    "Memory",
    "Snapshot",
    "Schedule",
    "Colocate",
    "Coschedule",
    "Backchannel",
    "Networks",
    "Bonds",
    "Tags",
    "ID",
    "Name",
    "Namespace",
    "Host",
    "State",
    "LaunchTime",
    "Type",
    "ActiveCC",
    "Pid",
    "QemuPath",
    "KernelPath",
    "InitrdPath",
    "CdromPath",
    "MigratePath",
    "CPU",
    "Sockets",
    "Cores",
    "Threads",
    "Machine",
    "SerialPorts",
    "VirtioPorts",
    "Vga",
    "Append",
    "Disks",
    "UsbUseXHCI",
    "TpmSocketPath",
    "BidirectionalCopyPaste",
    "QemuAppend",
    "QemuOverride",
    "VNCPort",
    "Error",
];

fn record(state: &State, seen: &Seen, vm: &Vm, host: &str) -> Value {
    let live = vm.live();
    RECORD_KEYS
        .iter()
        .map(|key| ((*key).to_owned(), part(state, seen, vm, &live, host, key)))
        .collect::<Map<_, _>>()
        .into()
}

/// One value of a VM's record.
fn part(state: &State, seen: &Seen, vm: &Vm, live: &Live, host: &str, key: &str) -> Value {
    match key {
        "UUID" => json!(vm.uuid.to_string()),
        "Networks" => live.nics.iter().map(|nic| network(state, seen, vm, live, nic)).collect(),
        "Tags" => json!(live.tags),
        "ID" => json!(vm.id),
        "Name" => json!(vm.name),
        "Namespace" => json!(vm.namespace),
        "Host" => json!(host),
        "State" => json!(live.state as u8),
        "LaunchTime" => json!(humantime::format_rfc3339_nanos(vm.launched).to_string()),
        "Type" => json!(1),
        "ActiveCC" => json!(false),
        "Pid" => json!(live.process.map_or(0, |id| id.pid)),
        "VNCPort" => json!(live.vnc.as_ref().map_or(0, |shim| shim.port)),
        "CdromPath" => json!(live.cdrom.image),
        "Error" => json!(live.error.clone().unwrap_or_default()),
        key => {
            let field = kvm_fields().find(|field| field.data_key == key).expect("every other key is a field's");
            field_value(field, vm.config.get(field.name))
        }
    }
}

/// The value of a field in a record.
fn field_value(field: &Field, value: FieldValue) -> Value {
    match value {
        FieldValue::Uint(n) => json!(n),
        FieldValue::Int(n) => json!(n),
        FieldValue::Bool(b) => json!(b),
        FieldValue::Text(t) => json!(t),
        // minimega sends null for a kernel command line without words, and empty lists for others.
        FieldValue::Words(w) if w.is_empty() && field.name == "append" => Value::Null,
        FieldValue::Words(w) => json!(w),
        FieldValue::Disks(disks) => disks
            .iter()
            .map(|disk| {
                json!({
                    "Path": disk.path,
                    "SnapshotPath": "",
                    "Interface": disk.interface.clone().unwrap_or_default(),
                    "Cache": disk.cache.clone().unwrap_or_default(),
                    "Raw": disk.to_string(),
                })
            })
            .collect(),
        FieldValue::Tags(t) | FieldValue::Volumes(t) => json!(t),
        FieldValue::Overrides(overrides) => {
            overrides.iter().map(|o| json!({ "Match": o.matched, "Replacement": o.replacement })).collect()
        }
        // A record shows where the NICs are now.
        FieldValue::Networks(n) => n.iter().map(ToString::to_string).collect(),
    }
}

fn network(state: &State, seen: &Seen, vm: &Vm, live: &Live, nic: &Nic) -> Value {
    let vlan = seen.place(live, nic).map(|segment| segment.vlan);
    json!({
        "Alias": vlan.and_then(|tag| state.vlans.alias(&vm.namespace, tag)).unwrap_or_default(),
        "VLAN": vlan.map_or(0, |tag| tag.get()),
        "Bridge": nic_bridge(seen, live, nic),
        "Tap": nic.tap,
        "MAC": nic.mac.to_string(),
        "Driver": nic.driver,
        "IP4": shown(nic.ip4),
        "IP6": shown(nic.ip6),
        "QinQ": seen.bonds.get(&nic.tap).is_some_and(|bond| bond.qinq),
        "RxRate": 0,
        "TxRate": 0,
        "Raw": nic.raw,
        // An addition to minimega's record, in the settings of `qos set`.
        "Qos": seen.shape(nic).settings().into_iter().collect::<BTreeMap<_, _>>(),
    })
}

/// A duration as minimega prints it: `1h2m3.5s`, `608.572188ms`, `12µs`, without trailing zeros.
pub fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |value: u128, digits: usize| {
        let scale = 10u128.pow(u32::try_from(digits).expect("at most nine digits"));
        let (whole, rest) = (value / scale, value % scale);
        let rest = format!("{rest:0digits$}");
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() { whole.to_string() } else { format!("{whole}.{rest}") }
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 6)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_every_field() {
        for field in kvm_fields() {
            assert!(RECORD_KEYS.contains(&field.data_key), "{}", field.name);
        }
    }

    #[test]
    fn durations_as_recorded() {
        for (nanos, text) in [
            (608_572_188, "608.572188ms"),
            (609_421_500, "609.4215ms"),
            (2_933_200_000_000, "48m53.2s"),
            (6_538_650_000_000, "1h48m58.65s"),
            (1_000_000_000, "1s"),
            (1_500, "1.5µs"),
            (0, "0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
