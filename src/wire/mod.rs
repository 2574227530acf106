//! minimega's command socket: framing, the client and the listener. See the wire facts in `docs/wire.md`.
//!
//! Must not know what any command means.

use serde::{Deserialize, Serialize};

use crate::language::entry::Entry;

mod address;
pub mod client;
pub mod codec;
pub mod listener;
mod pipe;

pub use client::{Client, WireError};
pub use listener::{Handler, Reply, bind, serve};
pub use pipe::{PipeInput, PipeOutput, PipeReceiver, PipeSender};

/// Something that answers commands: a [`Client`], or a scripted peer in a test.
pub trait Transport {
    /// Run a command and collect its responses, progress left out; all but the last have `more` set. A command that
    /// fails is an `Ok` with [`Response::errors`].
    fn call(&mut self, command: &str) -> Result<Vec<Response>, WireError>;

    /// Run a command and hand over the line of each response as it came, progress too, for a reader who wants parts of a
    /// large one only. The function tells whether the line was the last, or that it is no response.
    fn lines(&mut self, command: &str, read: LineReader<'_>) -> Result<(), WireError> {
        let malformed = |source| WireError::Malformed { path: Default::default(), command: command.to_owned(), source };
        for response in self.call(command)? {
            read(codec::encode_response(&response).as_bytes()).map_err(malformed)?;
        }
        Ok(())
    }
}

/// Reads the line of a response and tells whether it was the last one of its command.
pub type LineReader<'a> = &'a mut dyn FnMut(&[u8]) -> Result<bool, serde_json::Error>;

/// A request: exactly one of the first two fields is set, or `plumb_pipe`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// A command line.
    pub command: String,
    /// A prefix of a line to complete.
    pub suggest: String,
    /// The name of a pipe that the connection becomes.
    pub plumb_pipe: String,
}

/// A response, one line on the wire.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Response {
    /// One entry per answering host; None for a comment or a blank line.
    pub resp: Option<Vec<Entry>>,
    /// The answer as a person reads it, errors excluded.
    pub rendered: String,
    /// More responses to the same command follow.
    pub more: bool,
    /// This is progress text and ends nothing.
    pub status: bool,
    /// Completions of a `Suggest` request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggest: Option<Vec<String>>,
}

impl Response {
    /// The errors of all entries, each with its host.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.resp.iter().flatten().filter(|e| !e.error.is_empty()).map(|e| (e.host.as_str(), e.error.as_str()))
    }
}
