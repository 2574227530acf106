//! The records of VMs in the `Data` of `vm info`: read in one pass, with text borrowed from the answer.
//!
//! An answer for many VMs is megabytes of which little matters and much is said of every VM alike. So what VMs share is
//! compared as it is written, and made into values once.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use foldhash::HashMap;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::loose::{Form, Loose, Number, Text};
use super::qos::qos_of_record;
use super::vm::{LiveNic, Observed, Tags, VmState};
use crate::language::field::{FIELDS, FieldValue};

/// A record of `Data`. What is not of the expected form counts as not shown.
#[derive(Debug, Default)]
pub(super) struct Record<'a> {
    pub name: Cow<'a, str>,
    pub id: u64,
    pub host: Cow<'a, str>,
    pub uuid: Cow<'a, str>,
    pub kind: Option<Cow<'static, str>>,
    pub state: Option<VmState>,
    pub pid: u64,
    pub nics: Option<Vec<LiveNic>>,
    pub tags: Option<Arc<Tags>>,
    pub error: Cow<'a, str>,
    pub observed: Option<Arc<Observed>>,
}

/// All records of one host's answer; none where it has something else, which is no error: not every release sends them.
#[derive(Debug, Default)]
pub(super) struct Records<'a>(pub Vec<Record<'a>>);

/// What a key of a record is for.
#[derive(Debug, Clone, Copy)]
enum Key {
    Name,
    Id,
    Host,
    Uuid,
    Kind,
    State,
    Pid,
    Networks,
    Tags,
    Error,
    /// The field at this place in the table.
    Field(usize),
    Other,
}

impl Key {
    fn of(name: &str) -> Self {
        static FIELDS_BY_KEY: LazyLock<HashMap<&str, usize>> =
            LazyLock::new(|| FIELDS.iter().enumerate().map(|(index, field)| (field.data_key, index)).collect());
        match name {
            "Name" => Self::Name,
            "ID" => Self::Id,
            "Host" => Self::Host,
            "UUID" => Self::Uuid,
            "Type" => Self::Kind,
            "State" => Self::State,
            "Pid" => Self::Pid,
            "Networks" => Self::Networks,
            "Tags" => Self::Tags,
            "Error" => Self::Error,
            name => FIELDS_BY_KEY.get(name).map_or(Self::Other, |index| Self::Field(*index)),
        }
    }
}

/// The fields of a record as they are written, by their places in the table.
type Written<'a> = Vec<(usize, &'a str)>;

/// What was read of the records before.
#[derive(Default)]
struct Before<'a> {
    /// The keys of the record before, in order: records of one target have them in the same.
    keys: Vec<(&'a str, Key)>,
    tags: HashMap<&'a str, Arc<Tags>>,
    observed: HashMap<Written<'a>, Arc<Observed>>,
    /// The fields of this record.
    written: Written<'a>,
}

impl<'a> Before<'a> {
    /// What the fields of this record tell.
    fn observed(&mut self) -> Arc<Observed> {
        if let Some(observed) = self.observed.get(&self.written) {
            return Arc::clone(observed);
        }
        let mut values: Vec<Option<FieldValue>> = vec![None; FIELDS.len()];
        for (index, text) in &self.written {
            values[*index] = serde_json::from_str(text).ok().and_then(|value| FIELDS[*index].observe_value(&value));
        }
        let observed = Arc::new(Observed::new(values));
        self.observed.insert(self.written.clone(), Arc::clone(&observed));
        observed
    }

    fn tags(&mut self, text: &'a str) -> Arc<Tags> {
        let read = || match serde_json::from_str(text) {
            Ok(Value::Object(tags)) => {
                let texts = tags.into_iter().filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())));
                Arc::new(texts.collect())
            }
            _ => Arc::default(),
        };
        Arc::clone(self.tags.entry(text).or_insert_with(read))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Records<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Loose(RecordList).deserialize(deserializer).map(Self)
    }
}

struct RecordList;

impl<'de> Form<'de> for RecordList {
    type Value = Vec<Record<'de>>;
    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut records, mut before) = (Vec::new(), Before::default());
        while let Some(record) = list.next_element_seed(Loose(OneRecord(&mut before)))? {
            let Some(record) = record else {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Vec::new());
            };
            records.push(record);
        }
        Ok(records)
    }
}

impl<'a> Record<'a> {
    /// One record by itself; an empty one of what is none.
    pub fn read(text: &'a str) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Loose(OneRecord(&mut Before::default())).deserialize(&mut deserializer).map(Option::unwrap_or_default)
    }
}

struct OneRecord<'b, 'de>(&'b mut Before<'de>);

impl<'de> Form<'de> for OneRecord<'_, 'de> {
    type Value = Option<Record<'de>>;
    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let before = self.0;
        before.written.clear();
        let mut record = Record::default();
        let mut place = 0;
        while let Some(key) = map.next_key_seed(NextKey { keys: &mut before.keys, place })? {
            place += 1;
            match key {
                Key::Name => record.name = map.next_value_seed(Loose(Text))?,
                Key::Id => record.id = map.next_value_seed(Loose(Number))?.unwrap_or_default(),
                Key::Host => record.host = map.next_value_seed(Loose(Text))?,
                Key::Uuid => record.uuid = map.next_value_seed(Loose(Text))?,
                Key::Kind => record.kind = map.next_value_seed(Loose(VmType))?,
                Key::State => record.state = map.next_value_seed(Loose(State))?,
                Key::Pid => record.pid = map.next_value_seed(Loose(Number))?.unwrap_or_default(),
                Key::Networks => record.nics = map.next_value_seed(Loose(NicList))?,
                Key::Tags => record.tags = Some(before.tags(map.next_value::<&RawValue>()?.get())),
                Key::Error => record.error = map.next_value_seed(Loose(Text))?,
                Key::Field(index) => before.written.push((index, map.next_value::<&RawValue>()?.get())),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        record.observed = Some(before.observed());
        Ok(Some(record))
    }
}

/// Reads a key, which is most likely the one that stood at this place before.
struct NextKey<'b, 'de> {
    keys: &'b mut Vec<(&'de str, Key)>,
    place: usize,
}

impl<'de> DeserializeSeed<'de> for NextKey<'_, 'de> {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NextKey<'_, 'de> {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key, E> {
        if let Some((_, key)) = self.keys.get(self.place).filter(|(before, _)| *before == name) {
            return Ok(*key);
        }
        let key = Key::of(name);
        self.keys.truncate(self.place);
        self.keys.push((name, key));
        Ok(key)
    }
    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(Key::of(name))
    }
}

/// The type of a VM, a word or the number of one.
struct VmType;

impl<'de> Form<'de> for VmType {
    type Value = Option<Cow<'static, str>>;
    fn text(self, text: Cow<'de, str>) -> Self::Value {
        Some(Cow::Owned(text.into_owned()))
    }
    fn number(self, number: u64) -> Self::Value {
        Some(match number {
            1 => "kvm".into(),
            2 => "container".into(),
            3 => "android".into(),
            other => other.to_string().into(),
        })
    }
}

/// The state of a VM, a word or the number of one.
struct State;

impl<'de> Form<'de> for State {
    type Value = Option<VmState>;
    fn text(self, text: Cow<'de, str>) -> Self::Value {
        VmState::from_word(&text)
    }
    fn number(self, number: u64) -> Self::Value {
        VmState::from_number(number)
    }
}

struct NicList;

impl<'de> Form<'de> for NicList {
    type Value = Option<Vec<LiveNic>>;
    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut nics = Vec::new();
        while let Some(nic) = list.next_element_seed(Loose(OneNic))? {
            nics.push(nic);
        }
        Ok(Some(nics))
    }
}

/// A NIC. Disconnected is an empty bridge, or a VLAN that is no tag.
struct OneNic;

impl<'de> Form<'de> for OneNic {
    type Value = LiveNic;
    fn map<A: MapAccess<'de>>(self, mut map: A) -> Result<LiveNic, A::Error> {
        let mut nic = LiveNic::default();
        let some = |text: Cow<'_, str>| (!text.is_empty()).then(|| text.into_owned());
        let (mut qos, mut other_qos) = (None, None);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "Alias" => nic.alias = some(map.next_value_seed(Loose(Text))?),
                "VLAN" => {
                    let vlan = map.next_value_seed(Loose(Number))?;
                    nic.vlan = vlan.and_then(|tag| u16::try_from(tag).ok()).filter(|tag| *tag < 4096);
                }
                "Bridge" => nic.bridge = map.next_value_seed(Loose(Text))?.into_owned(),
                "Tap" => nic.tap = map.next_value_seed(Loose(Text))?.into_owned(),
                "MAC" => nic.mac = map.next_value_seed(Loose(Text))?.into_owned(),
                "Driver" => nic.driver = some(map.next_value_seed(Loose(Text))?),
                "Raw" => nic.launched_as = some(map.next_value_seed(Loose(Text))?),
                "QoS" => qos = Some(map.next_value::<Value>()?),
                "Qos" => other_qos = Some(map.next_value::<Value>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        nic.connected = nic.vlan.is_some() && !nic.bridge.is_empty();
        if !nic.connected {
            (nic.alias, nic.vlan) = (None, None);
        }
        nic.qos = qos.or(other_qos).and_then(|value| qos_of_record(&value));
        Ok(nic)
    }
}
