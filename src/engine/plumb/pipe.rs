//! A named pipe: who reads it, who gets a message, and what happens when a reader is slow.
//!
//! Every reader has a queue of at most [`QUEUE`] bytes. A write that finds a queue full waits, so that nothing is lost
//! between programs of different speed, but never for ever: see [`Kind`]. What a reader cannot take is dropped for that
//! reader alone, and the log says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::PlumbError;
use super::name::PipeName;
use super::via::Via;

/// One message, without the newline at its end.
pub type Message = Arc<[u8]>;

/// How much a reader's queue holds, in bytes; a message counts as its length and [`OVERHEAD`].
pub const QUEUE: usize = 4 << 20;

/// What a message takes in a queue beside its text.
const OVERHEAD: usize = 256;

/// The longest message, in bytes; what is longer comes as several.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What a client of the socket must take for writers to wait for it, in bytes per second, counted as in a queue: about a
/// thousand short messages.
pub const CLIENT_RATE: u32 = 256 << 10;

/// Which readers get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Every one.
    #[default]
    All,
    /// One, each in its turn.
    RoundRobin,
    /// One, by chance.
    Random,
}

impl Mode {
    /// Its word in commands and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
        }
    }

    /// The mode of that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::All, Self::RoundRobin, Self::Random].into_iter().find(|mode| mode.as_str() == word)
    }
}

/// What reads a pipe, which decides how long a write waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pipeline: up to 5 s without taking a message. As long as it takes some, writers go at its speed.
    Pipeline,
    /// A client on the socket: 1 s, which it earns back at 256 KiB per second. So writers go at the speed of one that takes at
    /// least that much, and one that is slower does not hold them up.
    Client,
}

impl Kind {
    fn patience(self) -> Duration {
        match self {
            Self::Pipeline => Duration::from_secs(5),
            Self::Client => Duration::from_secs(1),
        }
    }
}

struct Item {
    message: Message,
    via: Option<Arc<Via>>,
    /// Its place in the queue.
    _room: OwnedSemaphorePermit,
}

/// How long writes may still wait for a reader, and what it has missed.
struct Credit {
    left: Duration,
    dropped: u64,
    /// How much it had taken when that was last looked at.
    taken: u64,
}

/// The writers' side of a reader.
struct Inbox {
    id: u64,
    kind: Kind,
    queue: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
    /// How much the reader has taken, in bytes as the queue counts them.
    taken: Arc<AtomicU64>,
    credit: Mutex<Credit>,
}

impl Inbox {
    fn credit(&self) -> MutexGuard<'_, Credit> {
        self.credit.lock().expect("no code panics while it holds a reader's credit")
    }

    fn cost(message: &Message) -> u32 {
        u32::try_from((message.len() + OVERHEAD).min(QUEUE)).expect("the queue is smaller than 4 GiB")
    }

    fn put(&self, message: &Message, via: Option<&Arc<Via>>, room: OwnedSemaphorePermit) {
        // A reader that has just gone does not miss it.
        let _ = self.queue.send(Item { message: Arc::clone(message), via: via.cloned(), _room: room });
    }

    /// The credit, with what the reader has earned since it was looked at last.
    fn earned(&self, pipe: &PipeName) -> MutexGuard<'_, Credit> {
        let mut credit = self.credit();
        let taken = self.taken.load(Ordering::Relaxed);
        let since = u32::try_from(taken - credit.taken).unwrap_or(u32::MAX);
        credit.taken = taken;
        let patience = self.kind.patience();
        let again = match self.kind {
            Kind::Pipeline => since > 0,
            Kind::Client => self.room.available_permits() == QUEUE,
        };
        if again {
            credit.left = patience;
        } else {
            let earned = Duration::from_secs(1) * since / CLIENT_RATE;
            credit.left = credit.left.saturating_add(earned).min(patience);
        }
        if again && credit.dropped > 0 {
            tracing::warn!(%pipe, "a reader keeps up again, {} messages were dropped for it", credit.dropped);
            credit.dropped = 0;
        }
        credit
    }

    /// Put a message in if there is room.
    fn offer(&self, pipe: &PipeName, message: &Message, via: Option<&Arc<Via>>) -> bool {
        drop(self.earned(pipe));
        match Arc::clone(&self.room).try_acquire_many_owned(Self::cost(message)) {
            Ok(room) => {
                self.put(message, via, room);
                true
            }
            Err(_) => self.room.is_closed(),
        }
    }

    /// Wait for room as long as the credit at `start` lasts, then drop the message.
    async fn press(&self, pipe: &PipeName, message: &Message, via: Option<&Arc<Via>>, start: Instant) {
        let left = self.credit().left;
        // A timer that is due already would take a millisecond all the same, for every message that is dropped.
        if !left.is_zero() {
            let room = Arc::clone(&self.room).acquire_many_owned(Self::cost(message));
            let room = tokio::time::timeout_at(start + left, room).await;
            self.credit().left = left.saturating_sub(start.elapsed());
            match room {
                Ok(Ok(room)) => return self.put(message, via, room),
                // The reader has gone.
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
        let mut credit = self.earned(pipe);
        credit.dropped += 1;
        if credit.dropped == 1 {
            tracing::warn!(%pipe, "a reader is too slow, messages are dropped for it");
        }
    }
}

#[derive(Default)]
struct State {
    mode: Mode,
    log: bool,
    via: Option<Arc<Via>>,
    readers: Vec<Arc<Inbox>>,
    /// How many messages went to one reader.
    turns: usize,
    writers: usize,
    count: u64,
    previous: Option<Message>,
    closed: bool,
}

/// A named pipe.
pub struct Pipe {
    name: PipeName,
    state: Mutex<State>,
    /// Held while a message is delivered, so that all readers get all messages in the same order.
    turn: tokio::sync::Mutex<()>,
}

/// What the table of pipes says of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeInfo {
    /// Its whole name.
    pub name: PipeName,
    /// Who gets a message.
    pub mode: Mode,
    /// How many read it.
    pub readers: usize,
    /// How many may write it; `pipe NAME DATA` does not count.
    pub writers: usize,
    /// How many messages were written to it.
    pub count: u64,
    /// The program that every message passes for every reader, empty for none.
    pub via: String,
    /// Its argument vector.
    pub via_words: Vec<String>,
    /// Messages also go to the log.
    pub log: bool,
    /// The last message, as it was written.
    pub previous: String,
}

impl Pipe {
    pub(super) fn new(name: PipeName) -> Self {
        Self { name, state: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Its name.
    pub fn name(&self) -> &PipeName {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds a pipe's state")
    }

    pub(super) fn info(&self) -> PipeInfo {
        let state = self.state();
        PipeInfo {
            name: self.name.clone(),
            mode: state.mode,
            readers: state.readers.len(),
            writers: state.writers,
            count: state.count,
            via: state.via.as_ref().map(|via| via.text().to_owned()).unwrap_or_default(),
            via_words: state.via.as_ref().map(|via| via.words().to_vec()).unwrap_or_default(),
            log: state.log,
            previous: state.previous.as_deref().map(|m| String::from_utf8_lossy(m).into_owned()).unwrap_or_default(),
        }
    }

    pub(super) fn set_mode(&self, mode: Mode) {
        self.state().mode = mode;
    }

    pub(super) fn set_log(&self, log: bool) {
        self.state().log = log;
    }

    pub(super) fn set_via(&self, via: Option<Arc<Via>>) {
        let before = std::mem::replace(&mut self.state().via, via);
        drop(before);
    }

    /// Nothing can be written to it or read from it any more; readers get what waits for them.
    pub(super) fn close(&self) {
        let (readers, via) = {
            let mut state = self.state();
            state.closed = true;
            (std::mem::take(&mut state.readers), state.via.take())
        };
        drop((readers, via));
    }

    /// Read it from now on.
    pub(super) fn reader(self: &Arc<Self>, kind: Kind) -> Reader {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let id = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (sender, queue) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(QUEUE));
        let taken = Arc::new(AtomicU64::new(0));
        let credit = Mutex::new(Credit { left: kind.patience(), dropped: 0, taken: 0 });
        let inbox = Inbox { id, kind, queue: sender, room: Arc::clone(&room), taken: Arc::clone(&taken), credit };
        let mut state = self.state();
        if !state.closed {
            state.readers.push(Arc::new(inbox));
        }
        drop(state);
        Reader { end: ReaderEnd { pipe: Arc::clone(self), id }, room, taken, queue, ready: Vec::new().into_iter() }
    }

    /// Write it from now on.
    pub(super) fn writer(self: &Arc<Self>) -> Writer {
        self.state().writers += 1;
        Writer { pipe: Arc::clone(self) }
    }

    /// Write a text: each of its lines is a message, and a newline at its end ends the last one.
    pub async fn write(&self, text: &[u8]) -> Result<(), PlumbError> {
        for line in text.strip_suffix(b"\n").unwrap_or(text).split(|byte| *byte == b'\n') {
            // An empty line is a message too, and `chunks` gives none for it.
            let mut pieces = line.chunks(MAX_MESSAGE);
            self.send(pieces.next().unwrap_or_default().into()).await?;
            for piece in pieces {
                self.send(piece.into()).await?;
            }
        }
        Ok(())
    }

    /// Write one message.
    async fn send(&self, message: Message) -> Result<(), PlumbError> {
        let _turn = self.turn.lock().await;
        let (mode, via, mut readers, log) = {
            let mut state = self.state();
            if state.closed {
                return Err(PlumbError::Cleared { name: self.name.to_string() });
            }
            state.count += 1;
            state.previous = Some(Arc::clone(&message));
            let mut readers = state.readers.clone();
            if state.mode != Mode::All && !readers.is_empty() {
                let first = match state.mode {
                    Mode::Random => (uuid::Uuid::new_v4().as_u64_pair().1 as usize) % readers.len(),
                    _ => state.turns % readers.len(),
                };
                state.turns = state.turns.wrapping_add(1);
                readers.rotate_left(first);
            }
            (state.mode, state.via.clone(), readers, state.log)
        };
        if log {
            tracing::info!(pipe = %self.name, "{}", String::from_utf8_lossy(&message).escape_debug());
        }
        let via = via.as_ref();
        if mode == Mode::All {
            readers.retain(|reader| !reader.offer(&self.name, &message, via));
        } else {
            // A reader that is full is passed over as long as another has room.
            if readers.iter().any(|reader| reader.offer(&self.name, &message, via)) {
                return Ok(());
            }
            let patient = readers.iter().position(|reader| !reader.credit().left.is_zero()).unwrap_or(0);
            readers = readers.split_off(patient.min(readers.len()));
            readers.truncate(1);
        }
        // They are waited for at the same time: each counts from here.
        let start = Instant::now();
        for reader in &readers {
            reader.press(&self.name, &message, via, start).await;
        }
        Ok(())
    }
}

/// Writes a pipe.
pub struct Writer {
    pipe: Arc<Pipe>,
}

impl Writer {
    /// Write a text: each of its lines is a message.
    pub async fn write(&self, text: &[u8]) -> Result<(), PlumbError> {
        self.pipe.write(text).await
    }

    /// Write one message of at most [`MAX_MESSAGE`] bytes.
    pub(super) async fn send(&self, message: Message) -> Result<(), PlumbError> {
        self.pipe.send(message).await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.pipe.state().writers -= 1;
    }
}

/// Ends a reader: it gets what waits for it and nothing new.
#[derive(Clone)]
pub struct ReaderEnd {
    pipe: Arc<Pipe>,
    id: u64,
}

impl ReaderEnd {
    /// Take no new messages.
    pub fn close(&self) {
        self.pipe.state().readers.retain(|reader| reader.id != self.id);
    }
}

/// Reads a pipe.
pub struct Reader {
    end: ReaderEnd,
    room: Arc<Semaphore>,
    taken: Arc<AtomicU64>,
    queue: mpsc::UnboundedReceiver<Item>,
    /// What a via made of the last message.
    ready: std::vec::IntoIter<Message>,
}

impl Reader {
    /// The next message; None at the end. To be awaited to its end: a message that a via is working on would be lost.
    pub async fn recv(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.ready.next() {
                return Some(message);
            }
            let item = self.queue.recv().await?;
            self.taken.fetch_add(Inbox::cost(&item.message).into(), Ordering::Relaxed);
            match item.via {
                None => return Some(item.message),
                Some(via) => self.ready = via.pass(self.end.pipe.name(), &item.message).await.into_iter(),
            }
        }
    }

    /// Does nothing wait to be read?
    pub(super) fn is_empty(&self) -> bool {
        self.ready.as_slice().is_empty() && self.queue.is_empty()
    }

    /// What ends it while somebody waits for its next message.
    pub fn end(&self) -> ReaderEnd {
        self.end.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end.close();
        // Writers that wait for room need not any more.
        self.room.close();
    }
}

#[cfg(test)]
mod tests;
