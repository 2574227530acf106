//! The `vm config` field table: one row per field. From it come the `vm config X` and `clear vm config X` commands, the
//! stored configuration, the VM keys of the experiment file with their schema, what the planner sends, and its diff.
//!
//! Source of names, units and defaults: minimega's `help vm config …` and its `vm config` table (3.1.0).

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::diskspec::DiskSpec;
use super::netspec::NetSpec;

mod config;
mod table;

use FieldType::*;
use Initial::{Bool as DBool, Empty, Int as DInt, Text as DText, Uint as DUint, Words as DWords};
pub use config::VmConfig;
pub use table::FIELDS;

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
    /// Bondspecs, kept as words.
    Bonds,
    /// Diskspecs.
    Disks,
    /// Key and value pairs.
    Tags,
    /// Key and value pairs of paths.
    Volumes,
    /// Texts of QEMU's command line with what replaces them.
    Overrides,
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
    /// Containers only.
    Container,
    /// Android emulators only.
    Android,
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
    /// Words.
    Words(&'static [&'static str]),
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
    /// For [`FieldType::Words`] and [`FieldType::Bonds`].
    Words(Vec<String>),
    /// For [`FieldType::Networks`].
    Networks(Vec<NetSpec>),
    /// For [`FieldType::Disks`].
    Disks(Vec<DiskSpec>),
    /// For [`FieldType::Tags`].
    Tags(BTreeMap<String, String>),
    /// For [`FieldType::Volumes`].
    Volumes(BTreeMap<String, String>),
    /// For [`FieldType::Overrides`], in the order of their definition.
    Overrides(Vec<Override>),
}

/// A text of QEMU's command line and what replaces it, everywhere it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Override {
    /// The text; not empty.
    pub matched: String,
    /// What replaces it.
    pub replacement: String,
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
    /// An override of nothing.
    #[error("{field} needs a text to match, found an empty one")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// A character that cannot be passed on.
    #[error("{field} must not contain the character {character:?}")]
    Character {
        /// The field.
        field: &'static str,
        /// The character.
        character: char,
    },
}

/// The field of that name.
pub fn field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.name == name)
}

/// The field that a word after `vm config` means.
pub fn field_called(word: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.words().contains(&word))
}

impl Field {
    /// The key in an experiment file: the name with `_` for `-`.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The words after `vm config` that mean this field.
    pub fn words(&self) -> &[&'static str] {
        match self.name {
            "migrate" => &["state", "migrate"],
            _ => std::slice::from_ref(&self.name),
        }
    }

    /// Is it a key of a VM in an experiment file? Those are the fields that a KVM VM can be launched with.
    pub fn in_file(&self) -> bool {
        matches!(self.group, Group::Base | Group::Kvm) && self.ty != Bonds
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
            (_, DWords(w)) => FieldValue::Words(w.iter().map(|word| (*word).to_owned()).collect()),
            (Networks, Empty) => FieldValue::Networks(Vec::new()),
            (Disks, Empty) => FieldValue::Disks(Vec::new()),
            (Tags, Empty) => FieldValue::Tags(BTreeMap::new()),
            (Volumes, Empty) => FieldValue::Volumes(BTreeMap::new()),
            (Overrides, Empty) => FieldValue::Overrides(Vec::new()),
            (Words | Bonds, Empty) => FieldValue::Words(Vec::new()),
            (_, Empty) => FieldValue::Text(String::new()),
        }
    }

    /// Parse the arguments of `vm config NAME ARGS…`. For tags and volumes the arguments are one key and one value, for
    /// overrides one text to match and its replacement.
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
            Words | Bonds => FieldValue::Words(args.to_vec()),
            Networks => FieldValue::Networks(args.iter().map(|a| NetSpec::parse(a)).collect::<Result<_, _>>()?),
            Disks => FieldValue::Disks(args.iter().map(|a| DiskSpec::parse(a)).collect::<Result<_, _>>()?),
            Tags | Volumes => match args {
                [key, value] => {
                    let map = BTreeMap::from([(key.clone(), value.clone())]);
                    if self.ty == Tags { FieldValue::Tags(map) } else { FieldValue::Volumes(map) }
                }
                _ => return Err(FieldError::Arity { field, expected: "a key and a value", found: args.len() }),
            },
            Overrides => match args {
                [matched, _] if matched.is_empty() => return Err(FieldError::Empty { field }),
                [matched, replacement] => {
                    FieldValue::Overrides(vec![Override { matched: matched.clone(), replacement: replacement.clone() }])
                }
                _ => return Err(FieldError::Arity { field, expected: "a match and a replacement", found: args.len() }),
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
            FieldValue::Tags(t) | FieldValue::Volumes(t) => t.iter().map(|(k, v)| vec![k.clone(), v.clone()]).collect(),
            FieldValue::Overrides(o) => o.iter().map(|o| vec![o.matched.clone(), o.replacement.clone()]).collect(),
        }
    }

    /// The value in a `Data` record of `vm info`; None where the record does not show the field. Networks are not read
    /// here, because a record shows their live state.
    pub fn observe(&self, record: &Value) -> Option<FieldValue> {
        self.observe_value(record.get(self.data_key)?)
    }

    /// The same from the value alone, which stands under [`Field::data_key`].
    pub fn observe_value(&self, value: &Value) -> Option<FieldValue> {
        Some(match self.ty {
            Uint { .. } => FieldValue::Uint(value.as_u64()?),
            Int { .. } => FieldValue::Int(value.as_i64()?),
            Bool => FieldValue::Bool(value.as_bool()?),
            Text | Path | Uuid => FieldValue::Text(value.as_str()?.to_owned()),
            Words | Bonds => FieldValue::Words(match value {
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
            Tags => FieldValue::Tags(pairs(value)?),
            Volumes => FieldValue::Volumes(pairs(value)?),
            Overrides => FieldValue::Overrides(match value {
                Value::Null => Vec::new(),
                _ => value
                    .as_array()?
                    .iter()
                    .map(|pair| {
                        let part = |key| pair.get(key).and_then(Value::as_str).map(str::to_owned);
                        Some(Override { matched: part("Match")?, replacement: part("Replacement")? })
                    })
                    .collect::<Option<_>>()?,
            }),
            Networks => return None,
        })
    }
}

/// A map of texts in a `Data` record.
fn pairs(value: &Value) -> Option<BTreeMap<String, String>> {
    match value {
        Value::Null => Some(BTreeMap::new()),
        _ => value.as_object()?.iter().map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect(),
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
            FieldValue::Volumes(v) => {
                let pairs: Vec<String> = v.iter().map(|(key, path)| format!("{key} -> {path}")).collect();
                f.write_str(&pairs.join(", "))
            }
            FieldValue::Overrides(o) => {
                let pairs: Vec<String> = o.iter().map(|o| format!("{} -> {}", o.matched, o.replacement)).collect();
                list(f, &pairs)
            }
        }
    }
}

#[cfg(test)]
mod tests;
