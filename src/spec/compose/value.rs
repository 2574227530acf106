//! Between the nodes of a file and the values of expressions.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Value as Computed, ValueKind};

use crate::diagnostic::Span;
use crate::spec::syntax::{MAX_DEPTH, Node, SpannedKey, Value};

/// The value of a node, in which texts stand for themselves.
pub fn of_node(node: &Node, written: &dyn Fn(Span) -> String) -> Computed {
    match &node.value {
        Value::Null => Computed::from(()),
        Value::Bool(truth) => Computed::from(*truth),
        Value::Int(number) => of_int(*number),
        Value::Float(number) => Computed::from(*number),
        Value::Date => Computed::from(written(node.span)),
        Value::String(text) => Computed::from(text.clone()),
        Value::List(list) => Computed::from(list.iter().map(|item| of_node(item, written)).collect::<Vec<_>>()),
        Value::Map(map) => of_map(map.iter().map(|(key, value)| (key.text.clone(), of_node(value, written)))),
    }
}

/// A map.
pub fn of_map(entries: impl IntoIterator<Item = (Arc<str>, Computed)>) -> Computed {
    Computed::from(entries.into_iter().collect::<BTreeMap<Arc<str>, Computed>>())
}

/// A whole number.
pub fn of_int(number: i128) -> Computed {
    i64::try_from(number).map_or_else(|_| Computed::from(number), Computed::from)
}

/// Why a value cannot stand in a file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// Functions, bytes and the like.
    #[error("the value is {kind}, expected text, a number, a truth value, a list or a map")]
    Kind {
        /// What it is.
        kind: String,
    },
    /// Nested too deep.
    #[error("the value nests more than {MAX_DEPTH} levels deep")]
    Deep,
    /// Too many nodes.
    #[error("the value has more than {limit} parts")]
    Large {
        /// How many are allowed.
        limit: u64,
    },
    /// An error inside.
    #[error("the value cannot be computed: {detail}")]
    Inner {
        /// What it is.
        detail: String,
    },
}

/// A value as a node; all its parts have the place of the expression that it comes from. Takes from `room` what it needs.
pub fn to_node(value: &Computed, span: Span, room: &mut u64) -> Result<Node, ValueError> {
    let limit = *room;
    node(value, span, 0, room, limit)
}

fn node(value: &Computed, span: Span, depth: usize, room: &mut u64, limit: u64) -> Result<Node, ValueError> {
    if depth > MAX_DEPTH {
        return Err(ValueError::Deep);
    }
    *room = room.checked_sub(1).ok_or(ValueError::Large { limit })?;
    let inner = |error: minijinja::Error| ValueError::Inner { detail: error.to_string() };
    let value = match value.kind() {
        ValueKind::None => Value::Null,
        ValueKind::Bool => Value::Bool(value.is_true()),
        ValueKind::Number if value.is_integer() => match i128::try_from(value.clone()) {
            Ok(number) => Value::Int(number),
            Err(_) => Value::Float(f64::INFINITY),
        },
        ValueKind::Number => Value::Float(f64::try_from(value.clone()).map_err(inner)?),
        ValueKind::String => Value::String(value.to_str().unwrap_or_else(|| Arc::from(""))),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter().map_err(inner)?.checked() {
                items.push(node(&item.map_err(inner)?, span, depth + 1, room, limit)?);
            }
            Value::List(Arc::new(items))
        }
        ValueKind::Map => {
            let mut entries = Vec::new();
            for key in value.try_iter().map_err(inner)?.checked() {
                let key = key.map_err(inner)?;
                let item = value.get_item(&key).map_err(inner)?;
                let text = key.to_str().unwrap_or_else(|| Arc::from(key.to_string()));
                entries.push((SpannedKey { text, span }, node(&item, span, depth + 1, room, limit)?));
            }
            Value::Map(Arc::new(entries))
        }
        kind => return Err(ValueError::Kind { kind: kind.to_string() }),
    };
    Ok(Node { value, span })
}

/// What a value is, in words, with an article.
pub fn kind(value: &Computed) -> &'static str {
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => "empty",
        ValueKind::Bool => "a truth value",
        ValueKind::Number => "a number",
        ValueKind::String => "text",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a map",
        _ => "something else",
    }
}

/// The leaves of a value as text.
pub fn leaves(value: &Computed, into: &mut Vec<String>) {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            if let Ok(items) = value.try_iter() {
                items.for_each(|item| leaves(&item, into));
            }
        }
        ValueKind::Map => {
            if let Ok(keys) = value.try_iter() {
                keys.for_each(|key| leaves(&value.get_item(&key).unwrap_or_default(), into));
            }
        }
        ValueKind::String | ValueKind::Number => into.push(value.to_string()),
        _ => {}
    }
}
