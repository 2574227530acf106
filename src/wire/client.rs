//! The blocking client of the command socket.
//!
//! Must not know what a command means. It speaks to megaform's daemon and to minimega alike.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::ShortPath;
use super::codec::encode_request;
use super::pipe::{PipeReceiver, PipeSender};
use super::{LineReader, Request, Response, Transport};

/// The longest response that a client takes, in bytes.
pub const MAX_RESPONSE: u64 = 256 << 20;

/// What is read at once.
const BUFFER: usize = 64 << 10;

/// Why a command got no answer. An answer that says that a command failed is not such an error: see
/// [`Response::errors`].
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// There is no socket.
    #[error("no daemon at {}: the socket does not exist; start one with `megaform daemon` or name another socket with --socket", path.display())]
    Missing {
        /// The socket.
        path: PathBuf,
    },
    /// There is a socket that nobody listens on.
    #[error("no daemon at {}: nothing listens on the socket, the daemon that made it has ended; start it again", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
    },
    /// Something listens on the socket already.
    #[error("a daemon listens on {} already; stop it first or choose another base folder", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The path is taken by something that is no socket.
    #[error("{} is not a socket; remove it or choose another base folder", path.display())]
    NotSocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused to open the socket.
    #[error("cannot open the socket {}", path.display())]
    Open {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection failed in the middle.
    #[error("the connection to {} failed while `{command}` ran, it may have been carried out", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The command, cut to a readable length.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon closed the connection before the last answer.
    #[error("the daemon at {} hung up while `{command}` ran, it may have been carried out; look at the daemon's log", path.display())]
    HungUp {
        /// The socket.
        path: PathBuf,
        /// The command, cut to a readable length.
        command: String,
    },
    /// No answer in time.
    #[error("no answer from {} to `{command}` within {} s, it may still run", path.display(), timeout.as_secs_f32())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The command, cut to a readable length.
        command: String,
        /// How long the client waited.
        timeout: Duration,
    },
    /// Something else than minimega's protocol came back.
    #[error("{} answered `{command}` with something that is no response", path.display())]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// The command, cut to a readable length.
        command: String,
        /// Where the text is wrong.
        source: serde_json::Error,
    },
    /// A response beyond [`MAX_RESPONSE`].
    #[error("{} answered `{command}` with more than {} MiB", path.display(), MAX_RESPONSE >> 20)]
    TooLarge {
        /// The socket.
        path: PathBuf,
        /// The command, cut to a readable length.
        command: String,
    },
    /// A pipe's connection failed or was refused.
    #[error("the pipe on {} failed", path.display())]
    Pipe {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else than a message came over a pipe.
    #[error("{} answered with something that is no message of a pipe: {found}", path.display())]
    NoMessage {
        /// The socket.
        path: PathBuf,
        /// What came, cut to a readable length; an error that the server sent instead.
        found: String,
    },
    /// An earlier call failed in the middle, so answers could be taken for those of another command.
    #[error("the connection to {} broke earlier; connect again", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
    },
}

pub(super) fn open_error(path: &Path, source: io::Error) -> WireError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => WireError::Missing { path },
        io::ErrorKind::ConnectionRefused => WireError::Refused { path },
        _ => WireError::Open { path, source },
    }
}

/// Takes progress text.
type StatusSink = Box<dyn FnMut(&str) + Send>;

/// One connection to a command socket. Commands on it are answered one after another.
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    timeout: Option<Duration>,
    broken: bool,
    on_status: Option<StatusSink>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("path", &self.path).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Client {
    /// Connect to a socket. `timeout` limits every wait for the next response; None waits as long as a command runs.
    pub fn connect(path: &Path, timeout: Option<Duration>) -> Result<Self, WireError> {
        let open = |e| open_error(path, e);
        let timeout = timeout.filter(|t| !t.is_zero());
        let short = ShortPath::new(path).map_err(open)?;
        let stream = UnixStream::connect(short.as_path()).map_err(open)?;
        stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout)).map_err(open)?;
        Ok(Self {
            path: path.to_owned(),
            stream: BufReader::with_capacity(BUFFER, stream),
            timeout,
            broken: false,
            on_status: None,
        })
    }

    /// The socket that it is connected to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Hand the progress text of [`Client::call`] to a function.
    pub fn on_status(&mut self, f: impl FnMut(&str) + Send + 'static) {
        self.on_status = Some(Box::new(f));
    }

    /// Run a command and collect its responses; all but the last have `more` set. Progress goes to
    /// [`Client::on_status`].
    pub fn call(&mut self, command: &str) -> Result<Vec<Response>, WireError> {
        let mut responses = Vec::new();
        let mut status = self.on_status.take();
        let result = self.call_with(command, &mut |response| match &mut status {
            Some(f) if response.status => f(&response.rendered),
            None if response.status => {}
            _ => responses.push(response),
        });
        self.on_status = status;
        result.map(|()| responses)
    }

    /// Run a command and hand over each response when it comes, those with progress (`status`) too.
    pub fn call_with(&mut self, command: &str, f: &mut dyn FnMut(Response)) -> Result<(), WireError> {
        self.call_while(command, &mut |response| {
            f(response);
            true
        })
    }

    /// The same, until the function returns false; before the last response, that leaves the connection of no more use.
    pub fn call_while(&mut self, command: &str, f: &mut dyn FnMut(Response) -> bool) -> Result<(), WireError> {
        let request = Request { command: command.to_owned(), ..Request::default() };
        self.send(&request, command)?;
        loop {
            let response = self.receive(command)?;
            let last = !response.more && !response.status;
            self.broken = !last;
            if !f(response) || last {
                return Ok(());
            }
        }
    }

    /// The completions of the beginning of a line, as whole lines.
    pub fn suggest(&mut self, line: &str) -> Result<Vec<String>, WireError> {
        if line.is_empty() {
            // The protocol has no form for it: an empty field counts as absent.
            return Ok(Vec::new());
        }
        self.send(&Request { suggest: line.to_owned(), ..Request::default() }, line)?;
        let response = self.receive(line)?;
        self.broken = false;
        Ok(response.suggest.unwrap_or_default())
    }

    /// Become a reader and writer of a pipe. The name is used as it is: the pipe `foo` of a namespace's commands is
    /// `NAMESPACE//foo`. The server says nothing to it; one that has no pipes answers with something that is no message.
    /// There is no timeout any more.
    pub fn pipe(mut self, name: &str) -> Result<(PipeSender, PipeReceiver), WireError> {
        let request = Request { plumb_pipe: name.to_owned(), ..Request::default() };
        self.send(&request, name)?;
        let open = |e| open_error(&self.path, e);
        let stream = self.stream.get_ref();
        stream.set_read_timeout(None).and_then(|()| stream.set_write_timeout(None)).map_err(open)?;
        let sender = PipeSender::new(self.path.clone(), stream.try_clone().map_err(open)?);
        Ok((sender, PipeReceiver::new(self.path, self.stream)))
    }

    fn send(&mut self, request: &Request, command: &str) -> Result<(), WireError> {
        if self.broken {
            return Err(WireError::Broken { path: self.path.clone() });
        }
        self.broken = true;
        let line = encode_request(request);
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|e| self.io_error(command, e))
    }

    /// Run a command and hand over the line of each response: [`Transport::lines`].
    pub fn lines(&mut self, command: &str, read: LineReader<'_>) -> Result<(), WireError> {
        let request = Request { command: command.to_owned(), ..Request::default() };
        self.send(&request, command)?;
        let mut line = Vec::new();
        loop {
            self.line(command, &mut line)?;
            let malformed = |source| WireError::Malformed { path: self.path.clone(), command: shown(command), source };
            let last = read(&line).map_err(malformed)?;
            self.broken = !last;
            if last {
                return Ok(());
            }
        }
    }

    fn receive(&mut self, command: &str) -> Result<Response, WireError> {
        let mut line = Vec::new();
        self.line(command, &mut line)?;
        let (path, command) = (self.path.clone(), shown(command));
        serde_json::from_slice(&line).map_err(|source| WireError::Malformed { path, command, source })
    }

    /// Read the next line.
    fn line(&mut self, command: &str, line: &mut Vec<u8>) -> Result<(), WireError> {
        line.clear();
        let read = (&mut self.stream).take(MAX_RESPONSE).read_until(b'\n', line);
        read.map_err(|e| self.io_error(command, e))?;
        let (path, shown) = (self.path.clone(), shown(command));
        if line.last() != Some(&b'\n') {
            return Err(match line.len() as u64 >= MAX_RESPONSE {
                true => WireError::TooLarge { path, command: shown },
                false => WireError::HungUp { path, command: shown },
            });
        }
        Ok(())
    }

    fn io_error(&self, command: &str, source: io::Error) -> WireError {
        let (path, command) = (self.path.clone(), shown(command));
        match (source.kind(), self.timeout) {
            (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(timeout)) => {
                WireError::Timeout { path, command, timeout }
            }
            (io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset, _) => WireError::HungUp { path, command },
            _ => WireError::Io { path, command, source },
        }
    }
}

impl Transport for Client {
    fn call(&mut self, command: &str) -> Result<Vec<Response>, WireError> {
        Client::call(self, command)
    }

    fn lines(&mut self, command: &str, read: LineReader<'_>) -> Result<(), WireError> {
        Client::lines(self, command, read)
    }
}

pub(super) fn shown(command: &str) -> String {
    let text: String = command.chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect();
    if text.len() < command.len() { format!("{text}...") } else { text }
}
