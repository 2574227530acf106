//! Client of the QEMU machine protocol (QEMU's `docs/interop/qmp-spec.rst`): one connection, many calls at a time, and
//! the events.
//!
//! Must not know VMs, processes or what a command means.

mod connection;
mod message;
mod socket;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use connection::Connection;
pub use message::Event;
pub use socket::connect as connect_socket;

/// How long a call may take unless it is told otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why QEMU could not be reached or a command did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QmpError {
    /// Nobody listens there.
    #[error("cannot connect to {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The other side does not speak QMP, or not as it should. The connection is given up.
    #[error("expected {expected} from QEMU, found `{found}`")]
    Protocol {
        /// What should have come.
        expected: &'static str,
        /// The start of what came.
        found: String,
    },
    /// No answer in time. The command may still be carried out.
    #[error("no answer to {what} within {} s", after.as_secs_f32())]
    Timeout {
        /// The command or step.
        what: String,
        /// The time that was given.
        after: Duration,
    },
    /// The connection is gone; a command that was under way may have been carried out.
    #[error("QEMU has closed the QMP connection")]
    Closed,
    /// QEMU refused the command.
    #[error("{desc}")]
    Command {
        /// QEMU's class, most often `GenericError`.
        class: String,
        /// QEMU's own words.
        desc: String,
    },
    /// The text is not a QMP command.
    #[error("not a QMP command: {reason}; expected {{\"execute\": NAME, \"arguments\": {{...}}}}")]
    Request {
        /// What is wrong with it.
        reason: String,
    },
}

/// A connection to QEMU. Clones share it; it is closed when the last clone is dropped, which also closes the events.
#[derive(Debug, Clone)]
pub struct Qmp {
    connection: Arc<Connection>,
}

impl Qmp {
    /// Connect to a socket and negotiate capabilities, all within `timeout`. The path may be longer than the 107 bytes
    /// that a socket address holds.
    ///
    /// Events are kept until they are taken, without limit; the channel closes with the connection.
    pub async fn connect(path: &Path, timeout: Duration) -> Result<(Self, mpsc::Receiver<Event>), QmpError> {
        let attempt = async {
            let stream = socket::connect(path)
                .await
                .map_err(|source| QmpError::Connect { path: path.to_owned(), source: Arc::new(source) })?;
            let (connection, events) = Connection::open(stream).await?;
            let qmp = Self { connection: Arc::new(connection) };
            // Bounded by the timeout around it.
            qmp.execute_within("qmp_capabilities", Value::Null, Duration::MAX).await?;
            Ok((qmp, events))
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(QmpError::Timeout { what: format!("the greeting on {}", path.display()), after: timeout }),
        }
    }

    /// Run a command and give what it returns. `arguments` is an object, or null for none. Waits [`CALL_TIMEOUT`].
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.execute_within(command, arguments, CALL_TIMEOUT).await
    }

    /// Run a command that may take as long as `timeout`.
    pub async fn execute_within(&self, command: &str, arguments: Value, timeout: Duration) -> Result<Value, QmpError> {
        let mut request = Map::new();
        request.insert("execute".to_owned(), Value::from(command));
        if !arguments.is_null() {
            request.insert("arguments".to_owned(), arguments);
        }
        let mut answer = self.connection.call(request, command, timeout).await?;
        match answer.remove("error") {
            Some(error) => Err(message::command_error(&error)),
            None => Ok(answer.remove("return").unwrap_or(Value::Null)),
        }
    }

    /// Pass a command through as it is and give QEMU's answer, `{"return":…}` or `{"error":…}`, as one line of compact
    /// JSON with its keys in alphabetical order. An `id` in the command is in the answer. Waits [`CALL_TIMEOUT`].
    pub async fn raw(&self, json_text: &str) -> Result<String, QmpError> {
        let wrong = |reason: String| QmpError::Request { reason };
        let request: Value = serde_json::from_str(json_text).map_err(|error| wrong(error.to_string()))?;
        let Value::Object(mut request) = request else { return Err(wrong("it is no JSON object".to_owned())) };
        let name = ["execute", "exec-oob"].iter().find_map(|key| request.get(*key));
        let Some(name) = name.and_then(Value::as_str).map(str::to_owned) else {
            return Err(wrong("it names no command".to_owned()));
        };
        let id = request.remove("id");
        let mut answer = self.connection.call(request, &name, CALL_TIMEOUT).await?;
        if let Some(id) = id {
            answer.insert("id".to_owned(), id);
        }
        let mut answer = Value::Object(answer);
        // As minimega answers.
        answer.sort_all_objects();
        Ok(answer.to_string())
    }
}

#[cfg(test)]
mod tests;
