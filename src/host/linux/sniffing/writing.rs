//! The file of a capture and what is on its way into it, so that frames are taken from the kernel while the disk is slow.
//!
//! Must not know where records come from, nor who writes them: a thread asks for the [`next`](Writing::next) and says
//! when it is [`done`](Writing::done).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::collected::Collected;
use crate::host::linux::capture_file::CaptureFile;

/// What may wait for one file, in bytes.
const WAITING: usize = 64 << 20;
/// What may wait for all files together. One for which nothing waits may always have some.
const ALL_WAITING: usize = 256 << 20;
/// What is written at once in any case, in bytes.
const ENOUGH: usize = 256 << 10;
/// How long less than that waits for more.
const TOGETHER: Duration = Duration::from_millis(10);

/// A file and what waits for it.
#[derive(Debug)]
pub(super) struct Writing {
    state: Mutex<State>,
    changed: Condvar,
    /// What waits for all files.
    all: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct State {
    /// None while something is written into it, and once it is closed.
    file: Option<CaptureFile>,
    closed: bool,
    records: VecDeque<Collected>,
    /// The bytes of them, and of what is being written.
    waiting: usize,
    /// Somebody waits until everything is written.
    hurry: bool,
    /// Nobody takes frames until there is room again.
    parked: bool,
    thread: Option<JoinHandle<()>>,
}

impl Writing {
    pub(super) fn new(file: CaptureFile, all: Arc<AtomicUsize>) -> Self {
        let state = State { file: Some(file), ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new(), all }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State) -> bool {
        state.waiting == 0 || state.waiting < WAITING && self.all.load(Ordering::Relaxed) < ALL_WAITING
    }

    /// Let records wait, whether there is room or not. `start` starts the thread that writes them, once.
    pub(super) fn push(
        &self,
        records: Collected,
        start: impl FnOnce() -> std::io::Result<JoinHandle<()>>,
    ) -> std::io::Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Ok(());
        }
        if state.thread.is_none() {
            state.thread = Some(start()?);
        }
        let before = state.waiting;
        state.waiting += records.records.len();
        self.all.fetch_add(records.records.len(), Ordering::Relaxed);
        match state.records.back_mut() {
            Some(last) if last.records.len() + records.records.len() <= ENOUGH => last.append(&records),
            _ => state.records.push_back(records),
        }
        if before == 0 || (before < ENOUGH && state.waiting >= ENOUGH) {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Must whoever takes frames wait? Then [`done`](Writing::done) says when not any more.
    pub(super) fn park(&self) -> bool {
        let mut state = self.lock();
        state.parked = !state.closed && !self.has_room(&state);
        state.parked
    }

    /// Wait for records; None once it is closed. The file comes along and goes back with [`done`](Writing::done).
    pub(super) fn next(&self) -> Option<(CaptureFile, Collected)> {
        let mut state = self.lock();
        let mut deadline = None;
        loop {
            if state.closed {
                return None;
            }
            if state.records.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left =
                deadline.get_or_insert_with(|| Instant::now() + TOGETHER).saturating_duration_since(Instant::now());
            if state.hurry || state.waiting >= ENOUGH || left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.file.take().zip(state.records.pop_front())
    }

    /// Records were written. True if somebody was parked and has room now.
    pub(super) fn done(&self, file: CaptureFile, records: &Collected) -> bool {
        let mut state = self.lock();
        self.let_go(&mut state, records.records.len());
        if !state.closed {
            state.file = Some(file);
        }
        self.changed.notify_all();
        let resumes = state.parked && self.has_room(&state);
        state.parked &= !resumes;
        resumes
    }

    fn let_go(&self, state: &mut State, bytes: usize) {
        state.waiting -= bytes;
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Wait until everything is written.
    pub(super) fn drain(&self) {
        let mut state = self.lock();
        state.hurry = true;
        self.changed.notify_all();
        while !state.closed && state.waiting > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.hurry = false;
    }

    /// What somebody else has done to the file. Nothing while it is being written: then the writer finds out.
    pub(super) fn touched(&self) -> Option<std::io::Error> {
        self.lock().file.as_ref().and_then(|file| file.untouched().err())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Close the file; what waits for it is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.file = None;
        let waiting: usize = state.records.drain(..).map(|records| records.records.len()).sum();
        self.let_go(&mut state, waiting);
        self.changed.notify_all();
    }

    /// Close it and wait for the thread that writes. Not for that thread itself.
    pub(super) fn end(&self) {
        self.close();
        let thread = self.lock().thread.take();
        if let Some(thread) = thread {
            // A panic in there has nobody to be told to.
            let _ = thread.join();
        }
    }
}
