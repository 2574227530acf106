//! A connection that has become a pipe: JSON strings both ways, each one message with its newline. Both sides of it.
//!
//! Must not know what a pipe is.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use tokio::io::AsyncReadExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::Response;
use super::client::{MAX_RESPONSE, WireError, shown};
use super::codec::{MessageDecoder, encode_message, encode_response};
use super::listener::write_line;

/// What a client sends, on the server's side.
#[derive(Debug)]
pub struct PipeInput {
    input: OwnedReadHalf,
    decoder: MessageDecoder,
}

impl PipeInput {
    pub(super) fn new(input: OwnedReadHalf, decoder: MessageDecoder) -> Self {
        Self { input, decoder }
    }

    /// The next message. None at the end: the client has left, says nothing more, or sent something else than a message.
    pub async fn next(&mut self) -> Option<String> {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "closed a pipe");
                    return None;
                }
            }
            match self.input.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => self.decoder.feed(&buffer[..n]),
            }
        }
    }
}

/// What a client gets, on the server's side.
#[derive(Debug)]
pub struct PipeOutput {
    output: OwnedWriteHalf,
}

impl PipeOutput {
    pub(super) fn new(output: OwnedWriteHalf) -> Self {
        Self { output }
    }

    /// Send a message. False if the client has left or has taken nothing for [`super::listener::WRITE_TIMEOUT`].
    pub async fn send(&mut self, message: &str) -> bool {
        write_line(&mut self.output, &encode_message(message)).await.is_ok()
    }

    /// Answer that there will be no pipe.
    pub async fn refuse(&mut self, response: &Response) {
        // A client that has left does not want to know.
        let _ = write_line(&mut self.output, &encode_response(response)).await;
    }
}

/// Writes a pipe, on the client's side.
#[derive(Debug)]
pub struct PipeSender {
    path: PathBuf,
    stream: UnixStream,
}

impl PipeSender {
    pub(super) fn new(path: PathBuf, stream: UnixStream) -> Self {
        Self { path, stream }
    }

    /// Send a message; a newline is added where there is none at its end.
    pub fn send(&mut self, message: &str) -> Result<(), WireError> {
        let end = if message.ends_with('\n') { "" } else { "\n" };
        let sent = self.stream.write_all(encode_message(&format!("{message}{end}")).as_bytes());
        sent.map_err(|source| WireError::Pipe { path: self.path.clone(), source })
    }

    /// Send nothing more. megaform's daemon then sends what waits for this client and hangs up.
    pub fn finish(self) -> Result<(), WireError> {
        match self.stream.shutdown(Shutdown::Write) {
            // The server has hung up first.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                Err(WireError::Pipe { path: self.path, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// Reads a pipe, on the client's side.
#[derive(Debug)]
pub struct PipeReceiver {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl PipeReceiver {
    pub(super) fn new(path: PathBuf, stream: BufReader<UnixStream>) -> Self {
        Self { path, stream }
    }

    /// The next message, with its newline. None when the server has hung up.
    pub fn receive(&mut self) -> Result<Option<String>, WireError> {
        let mut line = Vec::new();
        match (&mut self.stream).take(MAX_RESPONSE).read_until(b'\n', &mut line) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(source) => return Err(WireError::Pipe { path: self.path.clone(), source }),
        }
        serde_json::from_slice(&line).map(Some).map_err(|_| {
            let refusal: Option<Response> = serde_json::from_slice(&line).ok();
            let said = refusal.and_then(|response| Some(response.errors().next()?.1.to_owned()));
            let found = said.unwrap_or_else(|| String::from_utf8_lossy(&line).trim_end().to_owned());
            WireError::NoMessage { path: self.path.clone(), found: shown(&found) }
        })
    }
}
