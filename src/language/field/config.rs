//! A whole `vm config`: the fields that differ from their defaults, and how a record keeps them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use super::super::diskspec::DiskSpec;
use super::super::netspec::NetSpec;
use super::{FIELDS, Field, FieldValue, Override, field};

/// A whole configuration: the fields that differ from their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VmConfig {
    /// With the field's place in [`FIELDS`], by that place: most configurations set few fields.
    values: Vec<(u8, FieldValue)>,
}

/// The place of a field in [`FIELDS`].
fn place(name: &str) -> Option<u8> {
    static PLACES: LazyLock<HashMap<&'static str, u8>> =
        LazyLock::new(|| FIELDS.iter().zip(0..).map(|(field, place)| (field.name, place)).collect());
    PLACES.get(name).copied()
}

/// The place of a field that is in the table.
fn known(name: &str) -> u8 {
    place(name).expect("a field of the table")
}

impl VmConfig {
    /// A configuration where every field has its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of a field, its default where it is not set. Panics for a name that is not in the table.
    pub fn get(&self, name: &str) -> FieldValue {
        let place = known(name);
        match self.find(place) {
            Ok(at) => self.values[at].1.clone(),
            Err(_) => FIELDS[usize::from(place)].default_value(),
        }
    }

    /// Where the value of a field stands, or would stand.
    fn find(&self, place: u8) -> Result<usize, usize> {
        self.values.binary_search_by_key(&place, |(place, _)| *place)
    }

    /// Set a field. Panics for a name that is not in the table. Tags and volumes are merged, overrides are added, everything
    /// else is replaced.
    pub fn set(&mut self, name: &str, value: FieldValue) {
        let place = known(name);
        let found = self.find(place);
        match (found.ok().map(|at| &mut self.values[at].1), value) {
            (Some(FieldValue::Tags(old)), FieldValue::Tags(new))
            | (Some(FieldValue::Volumes(old)), FieldValue::Volumes(new)) => old.extend(new),
            (Some(FieldValue::Overrides(old)), FieldValue::Overrides(new)) => old.extend(new),
            (_, value) if value == FIELDS[usize::from(place)].default_value() => {
                found.into_iter().for_each(|at| drop(self.values.remove(at)));
            }
            (Some(old), value) => *old = value,
            (None, value) => self.values.insert(found.unwrap_or_else(|at| at), (place, value)),
        }
    }

    /// Whether a field differs from its default.
    pub fn is_set(&self, name: &str) -> bool {
        place(name).is_some_and(|place| self.find(place).is_ok())
    }

    /// Give a field its default again.
    pub fn clear(&mut self, name: &str) {
        if let Some(Ok(at)) = place(name).map(|place| self.find(place)) {
            self.values.remove(at);
        }
    }

    /// The fields that differ from their defaults, in the table's order.
    pub fn changed(&self) -> impl Iterator<Item = (&'static Field, &FieldValue)> {
        self.values.iter().map(|(place, value)| (&FIELDS[usize::from(*place)], value))
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

    /// The volumes.
    pub fn volumes(&self) -> BTreeMap<String, String> {
        match self.get("volume") {
            FieldValue::Volumes(v) => v,
            other => unreachable!("volume: {other:?}"),
        }
    }

    /// The overrides of QEMU's command line, in the order of their definition.
    pub fn overrides(&self) -> Vec<Override> {
        match self.get("qemu-override") {
            FieldValue::Overrides(o) => o,
            other => unreachable!("qemu-override: {other:?}"),
        }
    }

    /// Remove one tag.
    pub fn remove_tag(&mut self, key: &str) {
        if let Ok(at) = self.find(known("tags"))
            && let FieldValue::Tags(tags) = &mut self.values[at].1
        {
            tags.remove(key);
            if tags.is_empty() {
                self.values.remove(at);
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
