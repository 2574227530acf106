//! Requests and responses as bytes.
//!
//! Requests arrive as a stream of JSON values, with or without newlines between them; [`RequestDecoder`] finds each
//! value as soon as its last byte is there, looks at every byte once, and refuses malformed text at the first byte that
//! is wrong. Responses are written one per line.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Request, Response};
use crate::language::entry::Entry;
use crate::language::json::to_json;

/// The largest request, in bytes.
pub const MAX_REQUEST: usize = 1 << 20;

/// The deepest nesting of objects and arrays in a request.
pub const MAX_DEPTH: usize = 64;

/// A response as the line that carries it, newline included. Fields stand in minimega's order; `Suggest` is left out
/// when empty.
pub fn encode_response(response: &Response) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line<'a> {
        resp: Option<&'a [Entry]>,
        rendered: &'a str,
        more: bool,
        status: bool,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        suggest: &'a [String],
    }
    let mut line = to_json(&Line {
        resp: response.resp.as_deref(),
        rendered: &response.rendered,
        more: response.more,
        status: response.status,
        suggest: response.suggest.as_deref().unwrap_or_default(),
    });
    line.push('\n');
    line
}

/// A request as the line that carries it, newline included. Empty fields are left out.
pub fn encode_request(request: &Request) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Line<'a> {
        #[serde(skip_serializing_if = "str::is_empty")]
        command: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        suggest: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        plumb_pipe: &'a str,
    }
    let mut line =
        to_json(&Line { command: &request.command, suggest: &request.suggest, plumb_pipe: &request.plumb_pipe });
    line.push('\n');
    line
}

/// Why a stream of requests cannot go on. The connection is closed without an answer, as minimega does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not an object or `null`.
    #[error("malformed request: unexpected byte {found:#04x}")]
    Malformed {
        /// The first byte that is wrong.
        found: u8,
    },
    /// JSON of another shape than a request.
    #[error("malformed request: {problem}")]
    Shape {
        /// What is wrong.
        problem: String,
    },
    /// Larger than [`MAX_REQUEST`].
    #[error("a request is larger than {MAX_REQUEST} bytes")]
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("a request is nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Request;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with Command or Suggest")
            }
            fn visit_unit<E>(self) -> Result<Request, E> {
                Ok(Request::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Request, A::Error> {
                let mut request = Request::default();
                while let Some(key) = map.next_key::<String>()? {
                    let field = if key.eq_ignore_ascii_case("command") {
                        &mut request.command
                    } else if key.eq_ignore_ascii_case("suggest") {
                        &mut request.suggest
                    } else if key.eq_ignore_ascii_case("plumbpipe") {
                        &mut request.plumb_pipe
                    } else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    // null leaves a field as it is.
                    if let Some(text) = map.next_value::<Option<String>>()? {
                        *field = text;
                    }
                }
                Ok(request)
            }
        }
        deserializer.deserialize_any(Fields)
    }
}

/// Where the scanner stands inside a value.
#[derive(Debug, Clone, Copy)]
enum State {
    /// A value must follow.
    Value,
    /// After `[`: a value or `]`.
    FirstValue,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After `,` in an object.
    Key,
    /// After a key.
    Colon,
    /// After a value inside a container.
    After,
    /// Inside a string; `hex` digits of an escape are still due, or a backslash was just read.
    Text { key: bool, escape: bool, hex: u8 },
    /// Inside `true`, `false` or `null`: what is left of it.
    Literal(&'static [u8]),
    /// Inside a number.
    Number,
}

/// Finds the end of one JSON value, byte by byte.
#[derive(Debug)]
struct Scanner {
    /// The open containers; true for an object.
    open: Vec<bool>,
    state: State,
}

impl Scanner {
    fn new() -> Self {
        Self { open: Vec::new(), state: State::Value }
    }

    /// Take one byte; true if it ends the outermost value.
    fn step(&mut self, b: u8) -> Result<bool, DecodeError> {
        let wrong = DecodeError::Malformed { found: b };
        let blank = matches!(b, b' ' | b'\t' | b'\r' | b'\n');
        match self.state {
            State::Text { key, escape: false, hex: 0 } => match b {
                b'"' => self.state = if key { State::Colon } else { State::After },
                b'\\' => self.state = State::Text { key, escape: true, hex: 0 },
                0..0x20 => return Err(wrong),
                _ => {}
            },
            State::Text { key, escape: true, .. } => {
                let hex = match b {
                    b'u' => 4,
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 0,
                    _ => return Err(wrong),
                };
                self.state = State::Text { key, escape: false, hex };
            }
            State::Text { key, hex, .. } => {
                if !b.is_ascii_hexdigit() {
                    return Err(wrong);
                }
                self.state = State::Text { key, escape: false, hex: hex - 1 };
            }
            State::Literal(rest) => {
                if rest.first() != Some(&b) {
                    return Err(wrong);
                }
                self.state = if rest.len() > 1 { State::Literal(&rest[1..]) } else { State::After };
            }
            State::Number if matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') => {}
            State::Number => {
                self.state = State::After;
                return self.step(b);
            }
            _ if blank => {}
            State::FirstValue if b == b']' => self.close(false, b)?,
            State::FirstKey if b == b'}' => self.close(true, b)?,
            State::FirstKey | State::Key if b == b'"' => {
                self.state = State::Text { key: true, escape: false, hex: 0 };
            }
            State::Colon if b == b':' => self.state = State::Value,
            State::After => match b {
                b',' => self.state = if self.open.last() == Some(&true) { State::Key } else { State::Value },
                b'}' => self.close(true, b)?,
                b']' => self.close(false, b)?,
                _ => return Err(wrong),
            },
            State::Value | State::FirstValue => match b {
                b'{' | b'[' => {
                    if self.open.len() == MAX_DEPTH {
                        return Err(DecodeError::TooDeep);
                    }
                    self.open.push(b == b'{');
                    self.state = if b == b'{' { State::FirstKey } else { State::FirstValue };
                }
                b'"' => self.state = State::Text { key: false, escape: false, hex: 0 },
                b't' => self.state = State::Literal(b"rue"),
                b'f' => self.state = State::Literal(b"alse"),
                b'n' => self.state = State::Literal(b"ull"),
                b'-' | b'0'..=b'9' => self.state = State::Number,
                _ => return Err(wrong),
            },
            _ => return Err(wrong),
        }
        Ok(self.open.is_empty() && matches!(self.state, State::After))
    }

    fn close(&mut self, object: bool, found: u8) -> Result<(), DecodeError> {
        if self.open.pop() != Some(object) {
            return Err(DecodeError::Malformed { found });
        }
        self.state = State::After;
        Ok(())
    }
}

/// Finds JSON values in a stream of bytes.
#[derive(Debug)]
struct Values {
    /// The first bytes that a value may have.
    starts: &'static [u8],
    buffer: Vec<u8>,
    /// Where the value that is being scanned begins.
    start: usize,
    /// Up to where it was scanned.
    scanned: usize,
    scanner: Scanner,
    failed: Option<DecodeError>,
}

impl Values {
    fn new(starts: &'static [u8]) -> Self {
        Self { starts, buffer: Vec::new(), start: 0, scanned: 0, scanner: Scanner::new(), failed: None }
    }

    fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.scan();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
        }
        result
    }

    fn scan<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, DecodeError> {
        while let Some(&b) = self.buffer.get(self.scanned) {
            if self.scanned == self.start {
                match b {
                    b' ' | b'\t' | b'\r' | b'\n' => {
                        self.start += 1;
                        self.scanned += 1;
                        continue;
                    }
                    b if self.starts.contains(&b) => {}
                    found => return Err(DecodeError::Malformed { found }),
                }
            }
            if self.scanned - self.start >= MAX_REQUEST {
                return Err(DecodeError::TooLarge);
            }
            self.scanned += 1;
            if self.scanner.step(b)? {
                let value = &self.buffer[self.start..self.scanned];
                let found = serde_json::from_slice(value).map_err(|e| DecodeError::Shape { problem: e.to_string() })?;
                self.start = self.scanned;
                self.scanner = Scanner::new();
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Finds requests in a stream of bytes.
#[derive(Debug)]
pub struct RequestDecoder(Values);

impl Default for RequestDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self(Values::new(b"{n"))
    }

    /// Add bytes that arrived. Callers take all requests out with [`RequestDecoder::next_request`] before they add
    /// more, so the buffer holds at most one incomplete request and what one read brought.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    /// The next request, None if more bytes are needed. After an error the stream is over: the same error again.
    pub fn next_request(&mut self) -> Result<Option<Request>, DecodeError> {
        self.0.next()
    }

    /// The connection becomes a pipe: what follows are messages.
    pub fn into_messages(self) -> MessageDecoder {
        let mut messages = MessageDecoder::default();
        messages.feed(&self.0.buffer[self.0.start..]);
        messages
    }
}

/// Finds the messages of a pipe, JSON strings, in a stream of bytes. The limits are those of requests.
#[derive(Debug)]
pub struct MessageDecoder(Values);

impl Default for MessageDecoder {
    fn default() -> Self {
        Self(Values::new(b"\""))
    }
}

impl MessageDecoder {
    /// Add bytes that arrived, once all messages that were complete before are taken out.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    /// The next message, None if more bytes are needed. After an error the stream is over: the same error again.
    pub fn next_message(&mut self) -> Result<Option<String>, DecodeError> {
        self.0.next()
    }
}

/// A message of a pipe as the line that carries it, newline included.
pub fn encode_message(message: &str) -> String {
    let mut line = to_json(&message);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests;
