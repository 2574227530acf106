//! The connection: bytes with deadlines.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::frame::Frames;

/// The longest path that a socket address holds.
const PATH_LIMIT: usize = 107;

#[derive(Debug)]
pub(super) struct Socket {
    stream: UnixStream,
    frames: Frames,
    buffer: Vec<u8>,
}

impl Socket {
    pub(super) fn connect(path: &Path, limit: usize) -> io::Result<Self> {
        let stream = if path.as_os_str().len() <= PATH_LIMIT {
            UnixStream::connect(path)?
        } else {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let folder = File::open(folder)?;
            UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))?
        };
        Ok(Self { stream, frames: Frames::new(limit), buffer: vec![0; 64 << 10] })
    }

    /// Answer what the server has asked while nobody listened. An error if it has closed the connection.
    pub(super) fn catch_up(&mut self) -> io::Result<()> {
        loop {
            self.stream.set_nonblocking(true)?;
            let read = self.stream.read(&mut self.buffer);
            self.stream.set_nonblocking(false)?;
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.frames.push(&self.buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while let Some(message) = self.frames.next()? {
            self.answer(&message, Instant::now() + Duration::from_secs(1))?;
        }
        Ok(())
    }

    pub(super) fn send(&mut self, message: &Value, end: Instant) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(end)?))?;
        self.stream.write_all(message.to_string().as_bytes()).map_err(timed_out)
    }

    pub(super) fn receive(&mut self, end: Instant) -> io::Result<Value> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(message);
            }
            self.stream.set_read_timeout(Some(left(end)?))?;
            match self.stream.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.frames.push(&self.buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
    }

    /// Answer a call of the server's, so that it keeps the connection (RFC 7047, section 4.1.11). What is no call, such
    /// as an answer that nobody waits for, is dropped.
    pub(super) fn answer(&mut self, message: &Value, end: Instant) -> io::Result<()> {
        let id = message.get("id").filter(|id| !id.is_null());
        let (Some(id), Some(method)) = (id, message.get("method")) else { return Ok(()) };
        let answer = if method == "echo" {
            json!({ "id": id, "result": message.get("params"), "error": null })
        } else {
            json!({ "id": id, "result": null, "error": "unknown method" })
        };
        self.send(&answer, end)
    }
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The kernel's error for a deadline on a socket is the one of a socket that never waits.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}
