//! Reading JSON whose form nobody promised: a value of another form than the expected one is passed over.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What to make of a value, by its form. What is not written out gives the default.
pub(super) trait Form<'de>: Sized {
    /// What is made.
    type Value: Default;

    /// Of text.
    fn text(self, _text: Cow<'de, str>) -> Self::Value {
        Self::Value::default()
    }

    /// Of a whole number that is not negative.
    fn number(self, _number: u64) -> Self::Value {
        Self::Value::default()
    }

    /// Of a list.
    fn list<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(list)?;
        Ok(Self::Value::default())
    }

    /// Of a map.
    fn map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(map)?;
        Ok(Self::Value::default())
    }
}

/// Reads any value; only text that is no JSON is an error.
pub(super) struct Loose<F>(pub F);

impl<'de, F: Form<'de>> DeserializeSeed<'de> for Loose<F> {
    type Value = F::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<F::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Form<'de>> Visitor<'de> for Loose<F> {
    type Value = F::Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<F::Value, E> {
        Ok(self.0.text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<F::Value, E> {
        Ok(self.0.text(Cow::Owned(text.to_owned())))
    }
    fn visit_u64<E>(self, number: u64) -> Result<F::Value, E> {
        Ok(self.0.number(number))
    }
    fn visit_i64<E>(self, _: i64) -> Result<F::Value, E> {
        Ok(F::Value::default())
    }
    fn visit_f64<E>(self, _: f64) -> Result<F::Value, E> {
        Ok(F::Value::default())
    }
    fn visit_bool<E>(self, _: bool) -> Result<F::Value, E> {
        Ok(F::Value::default())
    }
    fn visit_unit<E>(self) -> Result<F::Value, E> {
        Ok(F::Value::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<F::Value, A::Error> {
        self.0.list(list)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<F::Value, A::Error> {
        self.0.map(map)
    }
}

/// Text; empty where there is something else.
pub(super) struct Text;

impl<'de> Form<'de> for Text {
    type Value = Cow<'de, str>;
    fn text(self, text: Cow<'de, str>) -> Cow<'de, str> {
        text
    }
}

/// A whole number; None where there is something else.
pub(super) struct Number;

impl<'de> Form<'de> for Number {
    type Value = Option<u64>;
    fn number(self, number: u64) -> Option<u64> {
        Some(number)
    }
}
