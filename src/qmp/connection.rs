//! The connection: one task that reads, one that writes, and the calls that wait for their answers.
//!
//! A caller that gives up never leaves half a command on the wire, because the writing task alone writes. Reading never
//! waits for whoever takes the events, so a call made while an event is handled is answered.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::QmpError;
use super::message::{Event, Message, unexpected};

/// The longest line that QEMU may send, in bytes. Its longest answers (`query-qmp-schema`) are below 1 MiB.
const LINE_LIMIT: u64 = 64 << 20;
/// Events that are handed over without the help of the queue behind.
const EVENTS: usize = 64;

type Answer = Map<String, Value>;

/// An open connection; dropping it closes the socket.
#[derive(Debug)]
pub(super) struct Connection {
    waiting: Arc<Mutex<Waiting>>,
    next_id: AtomicU64,
    lines: mpsc::UnboundedSender<Vec<u8>>,
    tasks: [JoinHandle<()>; 2],
}

/// Calls that have no answer yet, by id; the oldest one is first.
#[derive(Debug, Default)]
struct Waiting {
    calls: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Why there will be no more answers.
    ended: Option<QmpError>,
}

impl Connection {
    /// Wait for the greeting and start the tasks. Capabilities are left to the caller.
    pub(super) async fn open(stream: UnixStream) -> Result<(Self, mpsc::Receiver<Event>), QmpError> {
        let (reader, writer) = stream.into_split();
        let mut lines = Lines::new(reader);
        let greeting = lines.next().await?.ok_or(QmpError::Closed)?;
        if !matches!(Message::parse(&greeting), Some(Message::Greeting)) {
            return Err(unexpected("the greeting of QMP", &greeting));
        }
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let (queue, queued) = mpsc::unbounded_channel();
        let (events, receiver) = mpsc::channel(EVENTS);
        // Ends when the reading task has gone or nobody wants events.
        tokio::spawn(forward(queued, events));
        let reading = tokio::spawn(read(lines, Arc::clone(&waiting), queue));
        let (lines, outbox) = mpsc::unbounded_channel();
        let writing = tokio::spawn(write(writer, outbox));
        let connection = Self { waiting, next_id: AtomicU64::new(1), lines, tasks: [reading, writing] };
        Ok((connection, receiver))
    }

    /// Send a request under an id of its own and wait for the answer, which comes without it.
    pub(super) async fn call(&self, mut request: Answer, what: &str, timeout: Duration) -> Result<Answer, QmpError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request.insert("id".to_owned(), Value::from(id));
        let mut line = Value::Object(request).to_string().into_bytes();
        line.push(b'\n');
        let (sender, answer) = oneshot::channel();
        {
            // Registered and sent under one lock, so that ids go out in order.
            let mut waiting = lock(&self.waiting);
            if let Some(ended) = &waiting.ended {
                return Err(ended.clone());
            }
            waiting.calls.insert(id, sender);
            // A writer that has ended has met an error on the socket, and then the reader tells why.
            let _ = self.lines.send(line);
        }
        let _forget = Forget { waiting: &self.waiting, id };
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(lock(&self.waiting).ended.clone().unwrap_or(QmpError::Closed)),
            Err(_) => Err(QmpError::Timeout { what: what.to_owned(), after: timeout }),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Each task owns a half of the socket.
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Takes a call out of the list when its caller stops waiting, for whatever reason.
struct Forget<'a> {
    waiting: &'a Mutex<Waiting>,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.waiting).calls.remove(&self.id);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(mut lines: Lines, waiting: Arc<Mutex<Waiting>>, events: mpsc::UnboundedSender<Event>) {
    let ended = loop {
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break QmpError::Closed,
            Err(error) => break error,
        };
        match Message::parse(&line) {
            Some(Message::Event(event)) => {
                // Nobody may want them.
                let _ = events.send(event);
            }
            Some(Message::Answer { id, answer }) => {
                let mut waiting = lock(&waiting);
                // QEMU answers in order, so a command that it could not read is the oldest one.
                let id = id.or_else(|| waiting.calls.keys().next().copied());
                if let Some(call) = id.and_then(|id| waiting.calls.remove(&id)) {
                    // Whoever asked may have given up.
                    let _ = call.send(answer);
                }
            }
            Some(Message::Greeting) | None => break unexpected("an answer or an event", &line),
        }
    };
    let mut waiting = lock(&waiting);
    waiting.ended = Some(ended);
    // Those who wait are woken by this.
    waiting.calls.clear();
}

async fn write(mut writer: OwnedWriteHalf, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if writer.write_all(&line).await.is_err() {
            // The reader meets the same end.
            break;
        }
    }
}

async fn forward(mut queued: mpsc::UnboundedReceiver<Event>, events: mpsc::Sender<Event>) {
    while let Some(event) = queued.recv().await {
        if events.send(event).await.is_err() {
            break;
        }
    }
}

/// Lines that are not empty.
struct Lines {
    reader: BufReader<OwnedReadHalf>,
}

impl Lines {
    fn new(reader: OwnedReadHalf) -> Self {
        Self { reader: BufReader::new(reader) }
    }

    /// The next line; None at the end of the connection, also in the middle of a line.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, QmpError> {
        loop {
            let mut line = Vec::new();
            let read: io::Result<usize> = (&mut self.reader).take(LINE_LIMIT).read_until(b'\n', &mut line).await;
            match read {
                // QEMU that was killed resets the connection.
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) if !line.ends_with(b"\n") => {
                    let long = line.len() as u64 >= LINE_LIMIT;
                    return if long { Err(unexpected("a line below 64 MiB", &line)) } else { Ok(None) };
                }
                Ok(_) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(_) => return Ok(Some(line)),
            }
        }
    }
}
