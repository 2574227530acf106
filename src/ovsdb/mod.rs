//! Client of the Open vSwitch Database protocol (RFC 7047: JSON-RPC 1.0 over a UNIX socket): transactions, and the
//! values that they are made of.
//!
//! Must not know what is in the database: tables, columns and their meaning are the caller's. Every call blocks, at most
//! for the time that the client was given.

mod frame;
mod operation;
mod socket;
mod value;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use operation::{Mutation, Operation, Row};
use socket::Socket;
pub use value::{Datum, Uuid};

/// The longest message that is taken from the server.
pub const MESSAGE_LIMIT: usize = 64 << 20;

/// How long a client that has lost its server waits between two attempts to reach it.
const RETRY: Duration = Duration::from_millis(20);

/// Why the database could not be reached or refused.
#[derive(Debug, thiserror::Error)]
pub enum OvsdbError {
    /// Nobody listens there.
    #[error("cannot connect to the Open vSwitch database at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The connection broke. A transaction that was under way may have been carried out.
    #[error("the connection to the Open vSwitch database at {} broke", path.display())]
    Lost {
        /// The socket.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// No answer in time. The transaction may still be carried out.
    #[error("the Open vSwitch database at {} does not answer within {} s", path.display(), after.as_secs_f32())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The time that was given.
        after: Duration,
    },
    /// The server does not speak OVSDB, or not as it should. The connection is given up.
    #[error("expected {expected} from the Open vSwitch database, found `{found}`")]
    Protocol {
        /// What should have come.
        expected: &'static str,
        /// The start of what came.
        found: String,
    },
    /// The server refused an operation; nothing of its transaction was carried out.
    #[error("the Open vSwitch database refused to {operation}: {error}{}{details}", if details.is_empty() { "" } else { ": " })]
    Refused {
        /// The operation, with its table and columns: `insert into Port (name, tag)`.
        operation: String,
        /// The server's word for the kind of error (RFC 7047, section 5): `constraint violation`.
        error: String,
        /// The server's own words; empty if it gave none.
        details: String,
    },
}

impl OvsdbError {
    /// Whether the same call may succeed once the server is back.
    pub fn is_lost(&self) -> bool {
        matches!(self, OvsdbError::Connect { .. } | OvsdbError::Lost { .. })
    }
}

/// A connection to one database of an OVSDB server. It reconnects by itself before a call, never during one: a call whose
/// connection breaks fails, and what it asked for may have been done.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    database: String,
    socket: Option<Socket>,
    id: u64,
}

impl Client {
    /// A client of the database at this socket. Connects at the first call. The path may be longer than the 107 bytes
    /// that a socket address holds.
    pub fn new(path: &Path, database: &str) -> Self {
        Self { path: path.to_owned(), database: database.to_owned(), socket: None, id: 0 }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Wait until the server answers. Meant for one that was just started.
    pub fn wait_for_server(&mut self, limit: Duration) -> Result<(), OvsdbError> {
        let end = Instant::now() + limit;
        loop {
            match self.call("echo", json!([]), limit.max(Duration::from_secs(1))) {
                Err(error) if error.is_lost() && Instant::now() < end => std::thread::sleep(RETRY),
                result => return result.map(drop),
            }
        }
    }

    /// Carry out all operations or none of them. Gives the result of each: rows for a `select`, the row's name for an
    /// `insert`, the number of rows for the others.
    pub fn transact(&mut self, operations: &[Operation], limit: Duration) -> Result<Vec<Outcome>, OvsdbError> {
        let mut params = vec![Value::String(self.database.clone())];
        params.extend(operations.iter().map(Operation::json));
        let results = self.call("transact", Value::Array(params), limit)?;
        let Value::Array(results) = results else {
            return Err(self.broken("an array of results", &results));
        };
        for (at, result) in results.iter().enumerate() {
            let Some(error) = result.get("error") else { continue };
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            return Err(OvsdbError::Refused {
                // One result more than operations: the transaction as a whole.
                operation: operations.get(at).map_or_else(|| "commit".to_owned(), Operation::describe),
                error: text(Some(error)),
                details: text(result.get("details")),
            });
        }
        if results.len() < operations.len() {
            return Err(self.broken("one result for each operation", &Value::Array(results)));
        }
        results.into_iter().take(operations.len()).map(Outcome::read).collect::<Result<_, _>>().inspect_err(|_| {
            self.socket = None;
        })
    }

    /// One remote procedure call. Answers the server's own calls (`echo`) while it waits.
    fn call(&mut self, method: &str, params: Value, limit: Duration) -> Result<Value, OvsdbError> {
        let end = Instant::now() + limit;
        let result = self.exchange(method, params, end);
        let path = self.path.clone();
        result.map_err(|error| {
            // What arrives later must not be taken for the answer to another call.
            let refused = matches!(error, CallError::Refused(_));
            if !refused {
                self.socket = None;
            }
            match error {
                CallError::Refused(error) => error,
                CallError::Io(source) if source.kind() == io::ErrorKind::TimedOut => {
                    OvsdbError::Timeout { path, after: limit }
                }
                CallError::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                    OvsdbError::Protocol { expected: "a JSON-RPC message", found: source.to_string() }
                }
                CallError::Io(source) => OvsdbError::Lost { path, source },
            }
        })
    }

    fn exchange(&mut self, method: &str, params: Value, end: Instant) -> Result<Value, CallError> {
        // Whatever came while nobody listened: calls of the server, or its end.
        if let Some(socket) = &mut self.socket
            && let Err(_gone) = socket.catch_up()
        {
            self.socket = None;
        }
        let socket = match &mut self.socket {
            Some(socket) => socket,
            None => {
                let connected = Socket::connect(&self.path, MESSAGE_LIMIT);
                let refused = |source| OvsdbError::Connect { path: self.path.clone(), source };
                self.socket.insert(connected.map_err(refused).map_err(CallError::Refused)?)
            }
        };
        self.id += 1;
        let request = json!({ "method": method, "params": params, "id": self.id });
        socket.send(&request, end)?;
        loop {
            let message = socket.receive(end)?;
            if message.get("id").and_then(Value::as_u64) != Some(self.id) || message.get("method").is_some() {
                socket.answer(&message, end)?;
                continue;
            }
            let Value::Object(mut message) = message else { continue };
            let error = message.remove("error").filter(|error| !error.is_null());
            if let Some(error) = error {
                let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
                let kind = error.as_str().map_or_else(|| text(error.get("error")), str::to_owned);
                return Err(CallError::Refused(OvsdbError::Refused {
                    operation: method.to_owned(),
                    error: if kind.is_empty() { error.to_string() } else { kind },
                    details: text(error.get("details")),
                }));
            }
            return Ok(message.remove("result").unwrap_or(Value::Null));
        }
    }

    fn broken(&mut self, expected: &'static str, found: &Value) -> OvsdbError {
        self.socket = None;
        protocol(expected, found)
    }
}

/// Give a running program of Open vSwitch a command by its control socket, as ovs-appctl(8) does, and take its answer.
pub fn control(socket: &Path, command: &str, arguments: &[&str], limit: Duration) -> Result<String, OvsdbError> {
    let answer = Client::new(socket, "").call(command, json!(arguments), limit)?;
    Ok(answer.as_str().unwrap_or_default().to_owned())
}

enum CallError {
    /// The connection is as good as before, or was never there.
    Refused(OvsdbError),
    Io(io::Error),
}

impl From<io::Error> for CallError {
    fn from(error: io::Error) -> Self {
        CallError::Io(error)
    }
}

fn protocol(expected: &'static str, found: &Value) -> OvsdbError {
    OvsdbError::Protocol { expected, found: found.to_string().chars().take(200).collect() }
}

/// What an operation gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The rows of a `select`.
    Rows(Vec<Row>),
    /// The new row of an `insert`.
    Inserted(Uuid),
    /// How many rows an `update`, `mutate` or `delete` has matched.
    Matched(u64),
    /// Nothing to tell: `wait`, `comment`.
    Done,
}

impl Outcome {
    fn read(result: Value) -> Result<Self, OvsdbError> {
        if let Some(rows) = result.get("rows") {
            let rows = rows.as_array().ok_or_else(|| protocol("an array of rows", rows))?;
            return rows.iter().map(Row::read).collect::<Result<_, _>>().map(Outcome::Rows);
        }
        if let Some(uuid) = result.get("uuid") {
            let uuid = Datum::read(uuid)?;
            return uuid.uuid().map(Outcome::Inserted).ok_or_else(|| protocol("the name of a row", &result));
        }
        match result.get("count") {
            Some(count) => count.as_u64().map(Outcome::Matched).ok_or_else(|| protocol("a number of rows", count)),
            None => Ok(Outcome::Done),
        }
    }

    /// The rows of a `select`; none for anything else.
    pub fn rows(self) -> Vec<Row> {
        match self {
            Outcome::Rows(rows) => rows,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
