//! The values of columns (RFC 7047, section 5.1): atoms, sets and maps.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::OvsdbError;

/// The name of a row: one that the server gave, or one that stands for a row inserted in the same transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uuid {
    /// Given by the server.
    Row(String),
    /// Given by an `insert` of the same transaction. Letters, digits and underscores, not beginning with a digit.
    New(String),
}

/// A value. A set of one element and that element alone are the same on the wire and equal here.
#[derive(Debug, Clone)]
pub enum Datum {
    /// A number.
    Integer(i64),
    /// A number with a fraction.
    Real(f64),
    /// Yes or no.
    Boolean(bool),
    /// A text.
    Text(String),
    /// A reference to a row.
    Reference(Uuid),
    /// A set of atoms.
    Set(Vec<Datum>),
    /// A map of atoms.
    Map(Vec<(Datum, Datum)>),
}

impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Datum::Integer(a), Datum::Integer(b)) => a == b,
            (Datum::Real(a), Datum::Real(b)) => a == b,
            (Datum::Boolean(a), Datum::Boolean(b)) => a == b,
            (Datum::Text(a), Datum::Text(b)) => a == b,
            (Datum::Reference(a), Datum::Reference(b)) => a == b,
            (Datum::Set(a), Datum::Set(b)) => a == b,
            (Datum::Map(a), Datum::Map(b)) => a == b,
            (Datum::Set(set), atom) | (atom, Datum::Set(set)) => matches!(set.as_slice(), [one] if one == atom),
            _ => false,
        }
    }
}

impl Datum {
    /// A set of texts.
    pub fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Datum::Set(texts.into_iter().map(Datum::from).collect())
    }

    /// A map of texts.
    pub fn map<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Datum::Map(pairs.into_iter().map(|(key, value)| (Datum::Text(key.into()), Datum::Text(value.into()))).collect())
    }

    /// A set of references.
    pub fn references(rows: impl IntoIterator<Item = Uuid>) -> Self {
        Datum::Set(rows.into_iter().map(Datum::Reference).collect())
    }

    /// The empty set, which is also how an optional column is without a value.
    pub fn none() -> Self {
        Datum::Set(Vec::new())
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Datum::Integer(number) => json!(number),
            Datum::Real(number) => json!(number),
            Datum::Boolean(yes) => json!(yes),
            Datum::Text(text) => json!(text),
            Datum::Reference(Uuid::Row(uuid)) => json!(["uuid", uuid]),
            Datum::Reference(Uuid::New(name)) => json!(["named-uuid", name]),
            Datum::Set(set) => json!(["set", set.iter().map(Datum::json).collect::<Vec<_>>()]),
            Datum::Map(map) => {
                json!(["map", map.iter().map(|(key, value)| json!([key.json(), value.json()])).collect::<Vec<_>>()])
            }
        }
    }

    pub(super) fn read(value: &Value) -> Result<Self, OvsdbError> {
        let wrong = || super::protocol("a value of RFC 7047", value);
        Ok(match value {
            Value::Bool(yes) => Datum::Boolean(*yes),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Datum::Integer(number),
                (None, Some(number)) => Datum::Real(number),
                (None, None) => return Err(wrong()),
            },
            Value::String(text) => Datum::Text(text.clone()),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(kind), Value::String(uuid)] if kind == "uuid" => {
                    Datum::Reference(Uuid::Row(uuid.clone()))
                }
                [Value::String(kind), Value::String(name)] if kind == "named-uuid" => {
                    Datum::Reference(Uuid::New(name.clone()))
                }
                [Value::String(kind), Value::Array(set)] if kind == "set" => {
                    Datum::Set(set.iter().map(Datum::read).collect::<Result<_, _>>()?)
                }
                [Value::String(kind), Value::Array(map)] if kind == "map" => {
                    let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
                        Some([key, value]) => Ok((Datum::read(key)?, Datum::read(value)?)),
                        _ => Err(wrong()),
                    };
                    Datum::Map(map.iter().map(pair).collect::<Result<_, _>>()?)
                }
                _ => return Err(wrong()),
            },
            Value::Null | Value::Object(_) => return Err(wrong()),
        })
    }

    /// The elements of a set; an atom is a set of one.
    pub fn elements(&self) -> &[Datum] {
        match self {
            Datum::Set(set) => set,
            Datum::Map(_) => &[],
            atom => std::slice::from_ref(atom),
        }
    }

    /// The one number in it.
    pub fn integer(&self) -> Option<i64> {
        match self.elements() {
            [Datum::Integer(number)] => Some(*number),
            _ => None,
        }
    }

    /// The one text in it.
    pub fn text(&self) -> Option<&str> {
        match self.elements() {
            [Datum::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The one row that it refers to.
    pub fn uuid(&self) -> Option<Uuid> {
        match self.elements() {
            [Datum::Reference(uuid)] => Some(uuid.clone()),
            _ => None,
        }
    }

    /// The rows that it refers to.
    pub fn uuids(&self) -> Vec<Uuid> {
        let reference = |datum: &Datum| match datum {
            Datum::Reference(uuid) => Some(uuid.clone()),
            _ => None,
        };
        self.elements().iter().filter_map(reference).collect()
    }

    /// The map of texts; other keys and values are left out.
    pub fn pairs(&self) -> BTreeMap<&str, &str> {
        let Datum::Map(map) = self else { return BTreeMap::new() };
        map.iter().filter_map(|(key, value)| Some((key.text()?, value.text()?))).collect()
    }
}

impl From<&str> for Datum {
    fn from(text: &str) -> Self {
        Datum::Text(text.to_owned())
    }
}

impl From<String> for Datum {
    fn from(text: String) -> Self {
        Datum::Text(text)
    }
}

impl From<i64> for Datum {
    fn from(number: i64) -> Self {
        Datum::Integer(number)
    }
}

impl From<u16> for Datum {
    fn from(number: u16) -> Self {
        Datum::Integer(number.into())
    }
}

impl From<bool> for Datum {
    fn from(yes: bool) -> Self {
        Datum::Boolean(yes)
    }
}

impl From<Uuid> for Datum {
    fn from(uuid: Uuid) -> Self {
        Datum::Reference(uuid)
    }
}
