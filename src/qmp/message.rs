//! What QEMU sends: the greeting, answers and events.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::QmpError;

/// Something that QEMU tells unasked, such as `STOP`, `RESUME` or `SHUTDOWN`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// QEMU's name for it.
    pub name: String,
    /// Its data; null if it has none.
    pub data: Value,
    /// When it happened; None if QEMU could not tell.
    pub timestamp: Option<SystemTime>,
}

/// One line from QEMU.
#[derive(Debug)]
pub(super) enum Message {
    Greeting,
    Event(Event),
    /// An answer, without its id. No id: QEMU could not read the command.
    Answer {
        id: Option<u64>,
        answer: Map<String, Value>,
    },
}

impl Message {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let Value::Object(mut object) = serde_json::from_slice(line).ok()? else { return None };
        if object.contains_key("QMP") {
            return Some(Message::Greeting);
        }
        if let Some(name) = object.get("event") {
            let name = name.as_str()?.to_owned();
            let timestamp = object.get("timestamp").and_then(read_timestamp);
            let data = object.remove("data").unwrap_or(Value::Null);
            return Some(Message::Event(Event { name, data, timestamp }));
        }
        if object.contains_key("return") == object.contains_key("error") {
            return None;
        }
        let id = object.remove("id").and_then(|id| id.as_u64());
        Some(Message::Answer { id, answer: object })
    }
}

fn read_timestamp(value: &Value) -> Option<SystemTime> {
    let part = |key: &str| value.get(key)?.as_u64();
    let since = Duration::from_secs(part("seconds")?) + Duration::from_micros(part("microseconds")?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// QEMU's refusal as an error.
pub(super) fn command_error(error: &Value) -> QmpError {
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
    QmpError::Command {
        class: text("class").unwrap_or_else(|| "GenericError".to_owned()),
        desc: text("desc").unwrap_or_else(|| error.to_string()),
    }
}

/// That something else came than should have.
pub(super) fn unexpected(expected: &'static str, found: &[u8]) -> QmpError {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(&found[..found.len().min(SHOWN)]);
    let mut found: String = text.trim_end().chars().map(|c| if c.is_control() { '.' } else { c }).collect();
    if text.len() >= SHOWN {
        found.push('…');
    }
    QmpError::Protocol { expected, found }
}
