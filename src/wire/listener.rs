//! The server side of the command socket: accept, decode, hand over, write back.
//!
//! Every connection has its own task, so a slow or vanished client holds up nobody but itself. On one connection
//! requests are carried out one after another, and none is read while one runs. Must not know what a command means.

use std::future::Future;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_socket, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::address::ShortPath;
use super::client::{WireError, open_error};
use super::codec::{RequestDecoder, encode_response};
use super::pipe::{PipeInput, PipeOutput};
use super::{Request, Response};
use crate::language::entry::Entry;

/// A connection is closed if its client takes no byte of an answer for this long.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// At shutdown, commands that run have this long to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// The most connections at a time; further ones are told so and closed.
pub const MAX_CONNECTIONS: usize = 512;

/// How often a connection is looked at before its task sleeps until something comes.
const LOOKS: u32 = 16;

/// How many responses of one command may wait for a slow client before [`Reply::send`] waits too.
const WAITING_RESPONSES: usize = 16;

/// What carries out requests.
pub trait Handler: Send + Sync + 'static {
    /// Carry out a command and send its responses. The last one has `more` unset; if none like that was sent when this
    /// returns, the listener sends an empty one. It is never cancelled because a client left; only when a shutdown
    /// outlasts [`SHUTDOWN_GRACE`].
    fn command(&self, connection: u64, command: String, reply: Reply) -> impl Future<Output = ()> + Send;

    /// The completions of the beginning of a line, as whole lines, sorted.
    fn suggest(&self, line: String) -> impl Future<Output = Vec<String>> + Send;

    /// The connection becomes a reader and writer of a pipe, whose name is used as it is. It ends when this returns; at a
    /// shutdown, this is dropped.
    fn pipe(
        &self,
        connection: u64,
        name: String,
        input: PipeInput,
        output: PipeOutput,
    ) -> impl Future<Output = ()> + Send;

    /// A connection has ended. Numbers are never used twice. Called also while a panic unwinds, so it must not panic.
    fn closed(&self, _connection: u64) {}
}

/// Takes the responses to one command.
#[derive(Debug, Clone)]
pub struct Reply {
    sender: mpsc::Sender<Response>,
}

impl Reply {
    /// Send a response. Waits while the client has too many unread ones. False if the client is gone; a command may
    /// go on or stop then, as it sees fit.
    pub async fn send(&self, response: Response) -> bool {
        self.sender.send(response).await.is_ok()
    }

    /// Send progress text, which ends nothing. Dropped where the client has too many unread responses: the next one tells
    /// more.
    pub fn progress(&self, text: String) {
        // `more`, for clients that do not know `status`.
        let _ = self.sender.try_send(Response { rendered: text, status: true, more: true, ..Response::default() });
    }

    /// The client is gone.
    pub fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Make a socket that only its owner can use (mode 0600 from the start) and listen on it. A socket that nobody listens
/// on any more is replaced; one in use, or another kind of file, is an error. Must be called inside a tokio runtime.
pub fn bind(path: &Path) -> Result<UnixListener, WireError> {
    let open = |e: io::Error| WireError::Open { path: path.to_owned(), source: e };
    let short = ShortPath::new(path).map_err(open)?;
    let listener = match bind_private(short.as_path()) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let kind = std::fs::symlink_metadata(path).map_err(open)?.file_type();
            if !kind.is_socket() {
                return Err(WireError::NotSocket { path: path.to_owned() });
            }
            match StdStream::connect(short.as_path()) {
                Ok(_) => return Err(WireError::InUse { path: path.to_owned() }),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(open_error(path, e)),
            }
            std::fs::remove_file(path).map_err(open)?;
            bind_private(short.as_path()).map_err(open)?
        }
        other => other.map_err(open)?,
    };
    UnixListener::from_std(listener).map_err(open)
}

fn bind_private(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::fd::AsRawFd;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // bind(2) gives the file the mode of the socket, less the umask, so there is no moment with a wider one.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind_socket(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(fd.into())
}

/// Accept connections and serve them until `shutdown` becomes true (or its sender is dropped). Then nothing more is
/// accepted, idle connections are closed, and commands that run have [`SHUTDOWN_GRACE`] to end and be answered.
/// `host` is the name in errors that the listener answers by itself.
pub async fn serve<H: Handler>(
    listener: UnixListener,
    handler: Arc<H>,
    host: impl Into<String>,
    mut shutdown: watch::Receiver<bool>,
) {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let host: Arc<str> = host.into().into();
    let mut connections = JoinSet::new();
    let mut refused = 0u64;
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|down| *down) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                if refused > 0 {
                    tracing::warn!(refused, "connections were refused until now");
                    refused = 0;
                }
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let (handler, host, shutdown) = (handler.clone(), host.clone(), shutdown.clone());
                connections.spawn(async move {
                    let connection = Connection { number, handler, host };
                    connection.run(stream, shutdown).await;
                });
            }
            Ok((stream, _)) => {
                // Said once, so that who connects without end does not fill the log.
                if refused == 0 {
                    tracing::warn!(limit = MAX_CONNECTIONS, "too many connections, refusing further ones");
                }
                refused += 1;
                let error = format!("too many connections, the limit is {MAX_CONNECTIONS}; try again later");
                // A fresh socket has room for it.
                let _ = stream.try_write(encode_response(&failure(&host, &error)).as_bytes());
            }
            Err(error) => {
                // Out of file descriptors, most likely; connections that end free some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, all_done).await.is_err() {
        connections.shutdown().await;
    }
}

/// An answer that is an error of the listener's own.
fn failure(host: &str, error: &str) -> Response {
    Response { resp: Some(vec![Entry::failure(host, error)]), ..Response::default() }
}

struct Connection<H: Handler> {
    number: u64,
    handler: Arc<H>,
    host: Arc<str>,
}

impl<H: Handler> Drop for Connection<H> {
    fn drop(&mut self) {
        self.handler.closed(self.number);
    }
}

impl<H: Handler> Connection<H> {
    async fn run(&self, stream: UnixStream, mut shutdown: watch::Receiver<bool>) {
        let (mut input, mut output) = stream.into_split();
        let mut decoder = RequestDecoder::new();
        // Made once: clearing it for every request would take longer than most requests.
        let mut buffer = vec![0; 16 << 10];
        loop {
            let request = tokio::select! {
                biased;
                _ = shutdown.wait_for(|down| *down) => return,
                request = next_request(&mut input, &mut decoder, &mut buffer) => request,
            };
            let Some(request) = request else { return };
            if !request.plumb_pipe.is_empty() {
                let (input, output) = (PipeInput::new(input, decoder.into_messages()), PipeOutput::new(output));
                tokio::select! {
                    () = self.handler.pipe(self.number, request.plumb_pipe, input, output) => {}
                    _ = shutdown.wait_for(|down| *down) => {}
                }
                return;
            }
            if !self.answer(request, &mut output).await {
                return;
            }
        }
    }

    /// Answer one request; false if the client is gone.
    async fn answer(&self, request: Request, output: &mut OwnedWriteHalf) -> bool {
        let refuse = |error: &str| failure(&self.host, error);
        let response = match (request.command.is_empty(), request.suggest.is_empty()) {
            (false, true) => return self.command(request.command, output).await,
            (true, false) => {
                let suggest = Some(self.handler.suggest(request.suggest).await);
                Response { suggest, ..Response::default() }
            }
            _ => refuse("must specify either command or suggest"),
        };
        write(output, &response).await.is_ok()
    }

    async fn command(&self, command: String, output: &mut OwnedWriteHalf) -> bool {
        let (sender, mut responses) = mpsc::channel(WAITING_RESPONSES);
        let work = self.handler.command(self.number, command, Reply { sender });
        // Owns the receiver: when the client is gone, the receiver goes and the handler's sends return false at once.
        let pump = async move {
            let mut finished = false;
            while let Some(response) = responses.recv().await {
                if finished {
                    tracing::warn!("a command answered after its last response, dropped");
                    continue;
                }
                finished = !response.more && !response.status;
                if write(output, &response).await.is_err() {
                    return false;
                }
            }
            finished || write(output, &Response::default()).await.is_ok()
        };
        tokio::join!(work, pump).1
    }
}

async fn next_request(input: &mut OwnedReadHalf, decoder: &mut RequestDecoder, buffer: &mut [u8]) -> Option<Request> {
    loop {
        match decoder.next_request() {
            Ok(Some(request)) => return Some(request),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "closed a connection");
                return None;
            }
        }
        match read_soon(input, buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => decoder.feed(&buffer[..n]),
        }
    }
}

/// Read, and look a few times before going to sleep: a client that waits for its answer sends the next request within
/// microseconds, and sleeping and waking takes longer than most commands. Others that are ready run in between.
async fn read_soon(input: &mut OwnedReadHalf, buffer: &mut [u8]) -> io::Result<usize> {
    for _ in 0..LOOKS {
        match input.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
            read => return read,
        }
    }
    input.read(buffer).await
}

async fn write(output: &mut OwnedWriteHalf, response: &Response) -> io::Result<()> {
    write_line(output, &encode_response(response)).await
}

/// Write a line; an error if the client takes no byte for [`WRITE_TIMEOUT`].
pub(super) async fn write_line(output: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        // Mostly there is room, and no need for a timer.
        let written = match output.try_write(rest) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::timeout(WRITE_TIMEOUT, output.write(rest)).await??
            }
            written => written?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = &rest[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests;
