//! One host's answer to a command, as data. `language::output` renders lists of them; `wire` carries them.

use serde::{Deserialize, Serialize};

/// An entry of a response's `Resp` list. Field names and order are the wire's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Entry {
    /// The host that answers.
    pub host: String,
    /// The answer as text.
    pub response: String,
    /// Column names of a table, or None where the answer is not a table.
    pub header: Option<Vec<String>>,
    /// Rows of a table; None as well as empty mean no rows (minimega sends either).
    pub tabular: Option<Vec<Vec<String>>>,
    /// Error text; empty means success.
    pub error: String,
    /// Command-specific data.
    pub data: serde_json::Value,
}

impl Entry {
    /// An answer of text.
    pub fn text(host: &str, response: impl Into<String>) -> Self {
        Self { host: host.to_owned(), response: response.into(), ..Self::default() }
    }

    /// A failure.
    pub fn failure(host: &str, error: impl Into<String>) -> Self {
        Self { host: host.to_owned(), error: error.into(), ..Self::default() }
    }
}
