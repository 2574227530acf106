//! The `vm config` field table: one row per field. From it come the `vm config X` and `clear vm config X` commands, the
//! stored configuration, the VM keys of the experiment file with their schema, what the planner sends, and its diff.
//!
//! Source of names, units and defaults: minimega's `help vm config …` and its `vm config` table (3.1.0).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::diskspec::DiskSpec;
use super::netspec::NetSpec;

/// What values a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A whole number within a range, both ends included.
    Uint {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A whole number within a range that has negative numbers, both ends included.
    Int {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// `true` or `false`.
    Bool,
    /// Text in one word.
    Text,
    /// A path on the engine's host; a relative one is relative to its files folder.
    Path,
    /// Words, kept apart.
    Words,
    /// Netspecs.
    Networks,
    /// Diskspecs.
    Disks,
    /// Key and value pairs.
    Tags,
    /// A UUID (RFC 9562), lower case with hyphens.
    Uuid,
}

/// How a field of a launched VM may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// By a command, while the VM runs.
    Live,
    /// Only by flushing and launching the VM again.
    Replace,
}

/// The part of minimega's `vm config` table that a field stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Every VM type.
    Base,
    /// KVM only.
    Kvm,
}

/// A field's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// Empty text, or an empty list.
    Empty,
    /// A number.
    Uint(u64),
    /// A number of a field that takes negative ones.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(&'static str),
}

/// One row of the table.
#[derive(Debug)]
pub struct Field {
    /// The word after `vm config`; with `_` for `-` it is the key in an experiment file.
    pub name: &'static str,
    /// What values it takes.
    pub ty: FieldType,
    /// Its default.
    pub default: Initial,
    /// Its label in minimega's `vm config` table.
    pub title: &'static str,
    /// Its key in the `Data` records of `vm info`.
    pub data_key: &'static str,
    /// Its column in `vm info`, if it has one.
    pub column: Option<&'static str>,
    /// The part of the table.
    pub group: Group,
    /// How it may change on a launched VM.
    pub change: Change,
    /// The unit of its value, if it has one.
    pub unit: Option<&'static str>,
    /// What it is, with range and effect.
    pub help: &'static str,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldValue {
    /// For [`FieldType::Uint`].
    Uint(u64),
    /// For [`FieldType::Int`].
    Int(i64),
    /// For [`FieldType::Bool`].
    Bool(bool),
    /// For [`FieldType::Text`], [`FieldType::Path`] and [`FieldType::Uuid`].
    Text(String),
    /// For [`FieldType::Words`].
    Words(Vec<String>),
    /// For [`FieldType::Networks`].
    Networks(Vec<NetSpec>),
    /// For [`FieldType::Disks`].
    Disks(Vec<DiskSpec>),
    /// For [`FieldType::Tags`].
    Tags(BTreeMap<String, String>),
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Not a whole number, or outside the range.
    #[error("invalid {field} `{found}`, expected a whole number from {min} to {max}")]
    Number {
        /// The field.
        field: &'static str,
        /// What was given.
        found: String,
        /// Smallest value.
        min: i128,
        /// Largest value.
        max: i128,
    },
    /// Neither true nor false.
    #[error("invalid {field} `{found}`, expected true or false")]
    Bool {
        /// The field.
        field: &'static str,
        /// What was given.
        found: String,
    },
    /// Not one word.
    #[error("{field} takes {expected}, found {found} arguments")]
    Arity {
        /// The field.
        field: &'static str,
        /// What it takes.
        expected: &'static str,
        /// How many were given.
        found: usize,
    },
    /// Not a UUID.
    #[error("invalid {field} `{found}`, expected a UUID such as 2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11")]
    Uuid {
        /// The field.
        field: &'static str,
        /// What was given.
        found: String,
    },
    /// Not a netspec. Its text is minimega's.
    #[error(transparent)]
    Network(#[from] super::netspec::NetSpecError),
    /// Not a diskspec.
    #[error(transparent)]
    Disk(#[from] super::diskspec::DiskSpecError),
    /// A character that cannot be passed on.
    #[error("{field} must not contain the character {character:?}")]
    Character {
        /// The field.
        field: &'static str,
        /// The character.
        character: char,
    },
}

macro_rules! fields {
    ($($name:literal $ty:expr, default $default:expr, title $title:literal, data $data:literal, column $column:expr,
       $group:ident, $change:ident, unit $unit:expr, $help:literal;)*) => {
        /// The table, in the order of minimega's `vm config`.
        pub static FIELDS: &[Field] = &[$(Field {
            name: $name, ty: $ty, default: $default, title: $title, data_key: $data, column: $column,
            group: Group::$group, change: Change::$change, unit: $unit, help: $help,
        }),*];
    };
}

use FieldType::*;
use Initial::{Bool as DBool, Empty, Int as DInt, Text as DText, Uint as DUint};

fields! {
    "memory" Uint { min: 1, max: 16_777_216 }, default DUint(2048), title "Memory", data "Memory", column Some("memory"),
        Base, Replace, unit Some("MB"), "Physical memory of the VM in megabytes (2^20 bytes).";
    "vcpus" Uint { min: 1, max: 1024 }, default DUint(1), title "VCPUs", data "VCPUs", column Some("vcpus"),
        Base, Replace, unit None, "Number of virtual CPUs.";
    "networks" Networks, default Empty, title "Networks", data "Networks", column None,
        Base, Live, unit None, "The VM's NICs in order, each as a netspec: [bridge,]vlan[,mac][,driver][,qinq]. A VLAN is an alias or a tag; the default bridge is mega_bridge, the default driver e1000.";
    "snapshot" Bool, default DBool(true), title "Snapshot", data "Snapshot", column Some("snapshot"),
        Base, Replace, unit None, "Discard what the guest writes to its disks when it ends, so that one image serves many VMs.";
    "uuid" Uuid, default Empty, title "UUID", data "UUID", column Some("uuid"),
        Base, Replace, unit None, "The VM's UUID; assigned at launch when not set. Only one VM can be launched with a given UUID.";
    "schedule" Text, default Empty, title "Schedule host", data "Schedule", column None,
        Base, Replace, unit None, "The host that the VM is to be scheduled on; not set leaves the choice to the scheduler.";
    "coschedule" Int { min: -1, max: 1_000_000 }, default DInt(-1), title "Coschedule limit", data "Coschedule", column None,
        Base, Replace, unit None, "The largest number of other VMs on the host that the VM is scheduled on; -1 sets no limit.";
    "colocate" Text, default Empty, title "Colocate", data "Colocate", column None,
        Base, Replace, unit None, "The name of a queued VM whose host this VM is to be scheduled on, too.";
    "backchannel" Bool, default DBool(true), title "Backchannel", data "Backchannel", column None,
        Base, Replace, unit None, "Whether an agent in the guest may talk to its host. Recorded, without effect: this engine has no agent.";
    "tags" Tags, default Empty, title "Tags", data "Tags", column Some("tags"),
        Base, Live, unit None, "Key and value pairs that every VM launched with this configuration gets.";
    "disks" Disks, default Empty, title "Disks", data "Disks", column Some("disks"),
        Kvm, Replace, unit None, "Disk images in order, each as a diskspec: path[,interface][,cache]. Any image that QEMU reads.";
    "cdrom" Path, default Empty, title "CDROM Path", data "CdromPath", column Some("cdrom"),
        Kvm, Replace, unit None, "An ISO image in the CD-ROM drive; the VM boots from it.";
    "kernel" Path, default Empty, title "Kernel Path", data "KernelPath", column Some("kernel"),
        Kvm, Replace, unit None, "A Linux kernel that QEMU boots directly.";
    "initrd" Path, default Empty, title "Initrd Path", data "InitrdPath", column Some("initrd"),
        Kvm, Replace, unit None, "The initial RAM disk that is passed to the kernel.";
    "append" Words, default Empty, title "Kernel Append", data "Append", column Some("append"),
        Kvm, Replace, unit None, "The kernel command line; needs a kernel.";
    "qemu" Path, default DText("kvm"), title "QEMU Path", data "QemuPath", column None,
        Kvm, Replace, unit None, "The QEMU program. The default, kvm, is the qemu-system program for this host with the accelerator that the engine chose.";
    "qemu-append" Words, default Empty, title "QEMU Append", data "QemuAppend", column None,
        Kvm, Replace, unit None, "Further arguments for QEMU, passed as they are at the end.";
    "serial-ports" Uint { min: 0, max: 256 }, default DUint(0), title "Serial Ports", data "SerialPorts", column Some("serial-ports"),
        Kvm, Replace, unit None, "Number of serial ports; port N is the socket serialN in the VM's folder. More than 4 take a virtual PCI card.";
    "virtio-ports" Text, default Empty, title "Virtio-Serial Ports", data "VirtioPorts", column Some("virtio-ports"),
        Kvm, Replace, unit None, "virtio-serial ports: a number, or names joined by commas; port N is the socket virtio-serialN in the VM's folder.";
    "machine" Text, default Empty, title "Machine", data "Machine", column None,
        Kvm, Replace, unit None, "The machine type, as qemu -machine help lists them.";
    "cpu" Text, default DText("host"), title "CPU", data "CPU", column None,
        Kvm, Replace, unit None, "The CPU model, as qemu -cpu help lists them. host means the host's CPU under KVM and the model max under TCG.";
    "cores" Uint { min: 0, max: 1024 }, default DUint(0), title "Cores", data "Cores", column None,
        Kvm, Replace, unit None, "CPU cores per socket; 0 leaves it to QEMU.";
    "threads" Uint { min: 0, max: 1024 }, default DUint(0), title "Threads", data "Threads", column None,
        Kvm, Replace, unit None, "CPU threads per core; 0 leaves it to QEMU.";
    "sockets" Uint { min: 0, max: 1024 }, default DUint(0), title "Sockets", data "Sockets", column None,
        Kvm, Replace, unit None, "CPU sockets; 0 leaves it to QEMU.";
    "vga" Text, default DText("std"), title "VGA", data "Vga", column None,
        Kvm, Replace, unit None, "The display adapter, as qemu -vga help lists them.";
    "usb-use-xhci" Bool, default DBool(true), title "Usb Use XHCI", data "UsbUseXHCI", column Some("usb-use-xhci"),
        Kvm, Replace, unit None, "Add a USB 3 (xHCI) controller.";
    "bidirectional-copy-paste" Bool, default DBool(false), title "Bidirectional Copy Paste", data "BidirectionalCopyPaste", column Some("bidirectional-copy-paste"),
        Kvm, Replace, unit None, "Share the clipboard with VNC clients through a SPICE agent in the guest.";
    "tpm-socket" Path, default Empty, title "TPM Socket", data "TpmSocketPath", column Some("tpm-socket"),
        Kvm, Replace, unit None, "The control socket of a running TPM emulator (swtpm).";
}

/// The field of that name.
pub fn field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.name == name)
}

impl Field {
    /// The key in an experiment file: the name with `_` for `-`.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The smallest and the largest value of a number field.
    pub fn range(&self) -> Option<(i128, i128)> {
        match self.ty {
            Uint { min, max } => Some((min.into(), max.into())),
            Int { min, max } => Some((min.into(), max.into())),
            _ => None,
        }
    }

    /// The value that a cleared field has.
    pub fn default_value(&self) -> FieldValue {
        match (self.ty, self.default) {
            (_, DUint(n)) => FieldValue::Uint(n),
            (_, DInt(n)) => FieldValue::Int(n),
            (_, DBool(b)) => FieldValue::Bool(b),
            (_, DText(t)) => FieldValue::Text(t.to_owned()),
            (Networks, Empty) => FieldValue::Networks(Vec::new()),
            (Disks, Empty) => FieldValue::Disks(Vec::new()),
            (Tags, Empty) => FieldValue::Tags(BTreeMap::new()),
            (Words, Empty) => FieldValue::Words(Vec::new()),
            (_, Empty) => FieldValue::Text(String::new()),
        }
    }

    /// Parse the arguments of `vm config NAME ARGS…`. For tags the arguments are one key and one value.
    pub fn parse(&self, args: &[String]) -> Result<FieldValue, FieldError> {
        let field = self.name;
        if let Some(character) = args.iter().flat_map(|a| a.chars()).find(|c| matches!(c, '\0' | '\n' | '\r')) {
            return Err(FieldError::Character { field, character });
        }
        let one = || match args {
            [one] => Ok(one.as_str()),
            _ => Err(FieldError::Arity { field, expected: "one value", found: args.len() }),
        };
        let number_error = |found: &str, min, max| FieldError::Number { field, found: found.to_owned(), min, max };
        Ok(match self.ty {
            Uint { min, max } => {
                let text = one()?;
                let number = text.parse::<u64>().ok().filter(|n| (min..=max).contains(n));
                FieldValue::Uint(number.ok_or_else(|| number_error(text, min.into(), max.into()))?)
            }
            Int { min, max } => {
                let text = one()?;
                let number = text.parse::<i64>().ok().filter(|n| (min..=max).contains(n));
                FieldValue::Int(number.ok_or_else(|| number_error(text, min.into(), max.into()))?)
            }
            Bool => match one()? {
                "true" => FieldValue::Bool(true),
                "false" => FieldValue::Bool(false),
                other => return Err(FieldError::Bool { field, found: other.to_owned() }),
            },
            Text | Path => FieldValue::Text(one()?.to_owned()),
            Uuid => {
                let text = one()?;
                match uuid::Uuid::try_parse(text) {
                    Ok(uuid) => FieldValue::Text(uuid.hyphenated().to_string()),
                    Err(_) if text.is_empty() => FieldValue::Text(String::new()),
                    Err(_) => return Err(FieldError::Uuid { field, found: text.to_owned() }),
                }
            }
            Words => FieldValue::Words(args.to_vec()),
            Networks => FieldValue::Networks(args.iter().map(|a| NetSpec::parse(a)).collect::<Result<_, _>>()?),
            Disks => FieldValue::Disks(args.iter().map(|a| DiskSpec::parse(a)).collect::<Result<_, _>>()?),
            Tags => match args {
                [key, value] => FieldValue::Tags(BTreeMap::from([(key.clone(), value.clone())])),
                _ => return Err(FieldError::Arity { field, expected: "a key and a value", found: args.len() }),
            },
        })
    }

    /// The argument lists of the `vm config NAME …` commands that set this value, each without `vm config NAME`.
    pub fn arguments(&self, value: &FieldValue) -> Vec<Vec<String>> {
        match value {
            FieldValue::Uint(n) => vec![vec![n.to_string()]],
            FieldValue::Int(n) => vec![vec![n.to_string()]],
            FieldValue::Bool(b) => vec![vec![b.to_string()]],
            FieldValue::Text(t) => vec![vec![t.clone()]],
            FieldValue::Words(w) => vec![w.clone()],
            FieldValue::Networks(n) => vec![n.iter().map(NetSpec::to_string).collect()],
            FieldValue::Disks(d) => vec![d.iter().map(DiskSpec::to_string).collect()],
            FieldValue::Tags(t) => t.iter().map(|(k, v)| vec![k.clone(), v.clone()]).collect(),
        }
    }

    /// The value in a `Data` record of `vm info`; None where the record does not show the field. Networks are not read
    /// here, because a record shows their live state.
    pub fn observe(&self, record: &Value) -> Option<FieldValue> {
        let value = record.get(self.data_key)?;
        Some(match self.ty {
            Uint { .. } => FieldValue::Uint(value.as_u64()?),
            Int { .. } => FieldValue::Int(value.as_i64()?),
            Bool => FieldValue::Bool(value.as_bool()?),
            Text | Path | Uuid => FieldValue::Text(value.as_str()?.to_owned()),
            Words => FieldValue::Words(match value {
                Value::Null => Vec::new(),
                _ => value.as_array()?.iter().map(|w| w.as_str().map(str::to_owned)).collect::<Option<_>>()?,
            }),
            Disks => FieldValue::Disks(match value {
                Value::Null => Vec::new(),
                _ => value
                    .as_array()?
                    .iter()
                    .map(|disk| {
                        let part =
                            |key| disk.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
                        Some(DiskSpec { path: part("Path")?, interface: part("Interface"), cache: part("Cache") })
                    })
                    .collect::<Option<_>>()?,
            }),
            Tags => FieldValue::Tags(match value {
                Value::Null => BTreeMap::new(),
                _ => value
                    .as_object()?
                    .iter()
                    .map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
                    .collect::<Option<_>>()?,
            }),
            Networks => return None,
        })
    }
}

impl fmt::Display for FieldValue {
    /// As `vm config NAME` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
            f.write_str("[")?;
            for (i, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if i > 0 { " " } else { "" })?;
            }
            f.write_str("]")
        }
        match self {
            FieldValue::Uint(n) => n.fmt(f),
            FieldValue::Int(n) => n.fmt(f),
            FieldValue::Bool(b) => b.fmt(f),
            FieldValue::Text(t) => f.write_str(t),
            FieldValue::Words(w) => list(f, w),
            FieldValue::Networks(n) => list(f, n),
            FieldValue::Disks(d) => list(f, d),
            FieldValue::Tags(t) => f.write_str(&serde_json::to_string(t).expect("strings are JSON")),
        }
    }
}

/// A whole configuration: the fields that differ from their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VmConfig {
    values: BTreeMap<&'static str, FieldValue>,
}

impl VmConfig {
    /// A configuration where every field has its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a field, its default where it is not set. Panics for a name that is not in the table.
    pub fn get(&self, name: &str) -> FieldValue {
        self.values.get(name).cloned().unwrap_or_else(|| field(name).expect("a field of the table").default_value())
    }

    /// Set a field. Panics for a name that is not in the table. Tags are merged, everything else is replaced.
    pub fn set(&mut self, name: &str, value: FieldValue) {
        let field = field(name).expect("a field of the table");
        match (self.values.get_mut(field.name), value) {
            (Some(FieldValue::Tags(old)), FieldValue::Tags(new)) => old.extend(new),
            (_, value) if value == field.default_value() => {
                self.values.remove(field.name);
            }
            (_, value) => {
                self.values.insert(field.name, value);
            }
        }
    }

    /// Give a field its default again.
    pub fn clear(&mut self, name: &str) {
        self.values.remove(name);
    }

    /// The fields that differ from their defaults, in the table's order.
    pub fn changed(&self) -> impl Iterator<Item = (&'static Field, &FieldValue)> {
        FIELDS.iter().filter_map(|f| self.values.get(f.name).map(|v| (f, v)))
    }

    /// A number field.
    pub fn uint(&self, name: &str) -> u64 {
        match self.get(name) {
            FieldValue::Uint(n) => n,
            other => unreachable!("{name} is not a number field: {other:?}"),
        }
    }

    /// A number field that takes negative numbers.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            FieldValue::Int(n) => n,
            other => unreachable!("{name} is not a signed number field: {other:?}"),
        }
    }

    /// A truth field.
    pub fn bool(&self, name: &str) -> bool {
        match self.get(name) {
            FieldValue::Bool(b) => b,
            other => unreachable!("{name} is not a truth field: {other:?}"),
        }
    }

    /// A text, path or UUID field.
    pub fn text(&self, name: &str) -> String {
        match self.get(name) {
            FieldValue::Text(t) => t,
            other => unreachable!("{name} is not a text field: {other:?}"),
        }
    }

    /// A words field.
    pub fn words(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            FieldValue::Words(w) => w,
            other => unreachable!("{name} is not a words field: {other:?}"),
        }
    }

    /// The NICs.
    pub fn networks(&self) -> Vec<NetSpec> {
        match self.get("networks") {
            FieldValue::Networks(n) => n,
            other => unreachable!("networks: {other:?}"),
        }
    }

    /// The disks.
    pub fn disks(&self) -> Vec<DiskSpec> {
        match self.get("disks") {
            FieldValue::Disks(d) => d,
            other => unreachable!("disks: {other:?}"),
        }
    }

    /// The tags.
    pub fn tags(&self) -> BTreeMap<String, String> {
        match self.get("tags") {
            FieldValue::Tags(t) => t,
            other => unreachable!("tags: {other:?}"),
        }
    }

    /// Remove one tag.
    pub fn remove_tag(&mut self, key: &str) {
        if let Some(FieldValue::Tags(tags)) = self.values.get_mut("tags") {
            tags.remove(key);
            if tags.is_empty() {
                self.values.remove("tags");
            }
        }
    }
}

impl Serialize for VmConfig {
    /// As the argument lists of the `vm config` commands that make it, so that a record outlives changes of this code.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.changed().map(|(f, v)| (f.name, f.arguments(v))))
    }
}

impl<'de> Deserialize<'de> for VmConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let map = BTreeMap::<String, Vec<Vec<String>>>::deserialize(deserializer)?;
        let mut config = Self::new();
        for (name, lists) in map {
            let field = field(&name).ok_or_else(|| D::Error::custom(format!("unknown vm config field `{name}`")))?;
            for list in lists {
                config.set(field.name, field.parse(&list).map_err(D::Error::custom)?);
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn a_configuration_survives_its_record() {
        let mut config = VmConfig::new();
        for (name, list) in [
            ("memory", &["16"][..]),
            ("networks", &["LAN", "br1,A,00:11:22:33:44:55,virtio-net-pci"]),
            ("append", &["a=b", "c d"]),
            ("tags", &["k", "v w"]),
            ("snapshot", &["false"]),
            ("disks", &["a.qcow2,virtio"]),
        ] {
            config.set(name, field(name).unwrap().parse(&args(list)).unwrap());
        }
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<VmConfig>(&text).unwrap(), config);
        assert_eq!(config.get("append").to_string(), "[a=b c d]");
        assert_eq!(config.get("vcpus").to_string(), "1");
    }

    #[test]
    fn refusals_name_the_field() {
        let error = field("memory").unwrap().parse(&args(&["foo"])).unwrap_err();
        assert_eq!(error.to_string(), "invalid memory `foo`, expected a whole number from 1 to 16777216");
        assert!(field("memory").unwrap().parse(&args(&["-1"])).is_err());
        let coschedule = field("coschedule").unwrap();
        assert_eq!(coschedule.parse(&args(&["-1"])).unwrap(), coschedule.default_value());
        let error = coschedule.parse(&args(&["-2"])).unwrap_err();
        assert_eq!(error.to_string(), "invalid coschedule `-2`, expected a whole number from -1 to 1000000");
        assert!(field("uuid").unwrap().parse(&args(&["nope"])).is_err());
        assert!(field("append").unwrap().parse(&args(&["a\nb"])).is_err());
    }
}
