//! What the measuring programs share: a daemon of their own, a bare connection to it, and figures.
//!
//! Must not use megaform's own code: what is measured is the program, from outside.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long something that is started may take until it answers.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A connection to a command socket.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Connection {
    /// Connect, as soon as somebody listens.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let start = Instant::now();
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return Ok(Self { stream: BufReader::new(stream), line: Vec::new() }),
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Send bytes and wait for one line; the line with its end.
    pub fn round_trip(&mut self, request: &[u8]) -> io::Result<&[u8]> {
        self.stream.get_mut().write_all(request)?;
        self.line.clear();
        if self.stream.read_until(b'\n', &mut self.line)? == 0 {
            return Err(io::Error::other("the other side hung up"));
        }
        Ok(&self.line)
    }

    /// Run a command. An error in the answer is an error.
    pub fn command(&mut self, command: &str) -> io::Result<Value> {
        let line = self.round_trip(&request(command))?;
        let answer: Value = serde_json::from_slice(line)?;
        let entry = answer["Resp"][0].clone();
        match entry["Error"].as_str() {
            Some("") => Ok(entry),
            error => Err(io::Error::other(format!("`{command}` failed: {}", error.unwrap_or("no entry")))),
        }
    }
}

/// A command as a client sends it.
pub fn request(command: &str) -> Vec<u8> {
    format!("{}\n", serde_json::json!({ "Command": command })).into_bytes()
}

/// A daemon with a base folder of its own. It ends with its value, and its VMs with it.
#[derive(Debug)]
pub struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// Start the program that the environment variable MEGAFORM names. VMs run under TCG.
    pub fn start() -> io::Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more options of `megaform daemon`.
    pub fn start_with(options: &[&str]) -> io::Result<Self> {
        let program = std::env::var_os("MEGAFORM")
            .ok_or_else(|| io::Error::other("MEGAFORM is not set: run this with scripts/bench"))?;
        let folder = tempfile::tempdir()?;
        let child = Command::new(program)
            .arg("--base")
            .arg(folder.path().join("base"))
            .args(["daemon", "--accel", "tcg"])
            .args(options)
            .env("MEGAFORM_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { folder, child })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A folder that goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("base/minimega")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        if let Ok(mut connection) = Connection::open(&self.socket())
            && let Err(error) = connection.command("clear namespace all")
        {
            eprintln!("cannot end the VMs: {error}");
        }
        let ended = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).is_ok() && self.child.wait().is_ok();
        if !ended {
            eprintln!("cannot end the daemon, pid {pid}");
        }
    }
}

/// The middle of some durations.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Whether a duration is within a limit, in words.
pub fn verdict(time: Duration, limit: Duration) -> &'static str {
    if time <= limit { "within" } else { "OVER" }
}
