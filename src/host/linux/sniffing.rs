//! Captures: which interfaces each one listens to, and the one thread that takes frames from all of them into their files.
//!
//! The sockets are opened by the thread that lives in the engine's network namespace, after everything that it does to
//! interfaces, so that a capture hears a new one before a guest can send. A capture of which nothing is there to be
//! heard has no socket and waits.
//!
//! Locks are taken in this order: `active`, `captures`, one capture's `work`, its `status`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::capture_file::{CaptureFile, Content};
use super::failure::kernel;
use super::filter::Filter;
use super::network::LinuxNetwork;
use super::packet_socket::{Batch, Frame, PacketSocket};
use super::ports::Ports;
use super::switch::Ear;
use crate::host::pcap::{Tag, dot1q, push_record, push_tagged, set_time};
use crate::host::{NetworkError, Sniff, SniffError, SniffStatus, SniffTarget, Sniffer, Sniffing};

/// The event of the end; captures count from 1.
const WAKE: u64 = 0;
/// How many calls for frames one interface gets before the others have their turn and the file is written.
const TURNS: usize = 16;
/// How much is collected before it is written, in bytes.
const COLLECTED: usize = 4 << 20;
/// A clock that goes back by this was set.
const CLOCK_SET: Duration = Duration::from_secs(1);
/// How many rounds the last frames of a capture may take to be fetched. An interface that is never silent would never let it end.
const LAST_ROUNDS: usize = 64;

/// All captures of one network.
pub(super) struct Sniffers {
    active: Mutex<Option<Active>>,
    /// Does the switch have something for captures of bridges? What an earlier process has left counts.
    bridges: AtomicBool,
}

impl Default for Sniffers {
    fn default() -> Self {
        Self { active: Mutex::default(), bridges: AtomicBool::new(true) }
    }
}

/// While there are captures.
struct Active {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    next: u64,
}

struct Shared {
    epoll: Epoll,
    wake: EventFd,
    captures: Mutex<BTreeMap<u64, Arc<Capture>>>,
}

struct Capture {
    id: u64,
    heard: SniffTarget,
    path: PathBuf,
    snaplen: u32,
    filter: Option<Filter>,
    work: Mutex<Work>,
    status: Mutex<SniffStatus>,
}

/// What only one thread at a time may touch.
struct Work {
    /// None once it has stopped.
    file: Option<CaptureFile>,
    sockets: Vec<(PacketSocket, Option<Tag>)>,
    /// When the last frame came.
    last: Duration,
}

/// Frames on their way to the file.
#[derive(Default)]
struct Collected {
    records: Vec<u8>,
    /// Time and end of each.
    ends: Vec<(Duration, usize)>,
    scratch: Vec<u8>,
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sniffers {
    /// Enter a capture; it hears nothing yet.
    fn enter(&self, sniff: &Sniff, file: CaptureFile, filter: Option<Filter>) -> Result<Arc<Capture>, NetworkError> {
        let mut active = lock(&self.active);
        if active.is_none() {
            *active = Some(Active::start()?);
        }
        let active = active.as_mut().expect("it was just made");
        active.next += 1;
        let capture = Arc::new(Capture {
            id: active.next,
            heard: sniff.heard.clone(),
            path: sniff.path.clone(),
            snaplen: sniff.snaplen,
            filter,
            work: Mutex::new(Work { file: Some(file), sockets: Vec::new(), last: Duration::ZERO }),
            status: Mutex::default(),
        });
        lock(&active.shared.captures).insert(capture.id, Arc::clone(&capture));
        Ok(capture)
    }

    /// Take a capture out; with the last one the thread ends. A second time is fine.
    fn leave(&self, capture: &Capture) {
        let mut slot = lock(&self.active);
        let Some(active) = slot.as_ref() else { return };
        let last = {
            let mut captures = lock(&active.shared.captures);
            if !captures.get(&capture.id).is_some_and(|there| std::ptr::eq(&**there, capture)) {
                return;
            }
            captures.remove(&capture.id);
            captures.is_empty()
        };
        capture.finish(&active.shared);
        if last && let Some(active) = slot.take() {
            // The counter of an eventfd that counts to 1 is never full.
            let _ = active.shared.wake.write(1);
            // A panic in there has nobody to be told to.
            let _ = active.thread.join();
        }
    }

    fn all(&self) -> Option<(Arc<Shared>, Vec<Arc<Capture>>)> {
        let active = lock(&self.active);
        let shared = Arc::clone(&active.as_ref()?.shared);
        let captures = lock(&shared.captures).values().cloned().collect();
        Some((shared, captures))
    }

    /// Listen to what there is to be heard now. What fails for the capture `asked` is an error; what fails for others is in
    /// the log, and they go on with the rest.
    pub(super) fn refresh(&self, ports: &mut Ports, asked: Option<u64>) -> Result<(), NetworkError> {
        let all = self.all();
        let captures = all.as_ref().map_or(&[][..], |(_, captures)| captures);
        let bridges = captures.iter().any(|capture| matches!(capture.heard, SniffTarget::Bridge(_)));
        // Once more after the last one, so that the switch can give up what it has for captures.
        let before = self.bridges.swap(bridges, Ordering::Relaxed);
        if captures.is_empty() && !before {
            return Ok(());
        }
        let heard: Vec<SniffTarget> = captures.iter().map(|capture| capture.heard.clone()).collect();
        let ears = ports.hear(&heard)?;
        let Some((shared, captures)) = all else { return Ok(()) };
        let mut result = Ok(());
        for (capture, ears) in captures.iter().zip(ears) {
            let listening = ears.and_then(|ears| {
                let what = format!("listen for {}", capture.path.display());
                capture.listen(&shared, &ears).map_err(kernel(what))
            });
            match listening {
                Err(error) if asked == Some(capture.id) => result = Err(error),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(path = %capture.path.display(), error, "a capture may miss something");
                }
                Ok(()) => {}
            }
        }
        result
    }

    /// Listen to nothing: the network namespace goes, or is no longer known.
    pub(super) fn deafen(&self) {
        let Some((shared, captures)) = self.all() else { return };
        for capture in captures {
            // Closing sockets does not fail.
            let _ = capture.listen(&shared, &[]);
        }
    }
}

impl Active {
    fn start() -> Result<Self, NetworkError> {
        let open = || -> io::Result<Shared> {
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
            epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
            Ok(Shared { epoll, wake, captures: Mutex::default() })
        };
        let shared = Arc::new(open().map_err(kernel("prepare captures"))?);
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(kernel("start the capture thread"))?;
        Ok(Self { shared, thread, next: WAKE })
    }
}

impl Shared {
    /// Take frames until the last capture has gone.
    fn run(&self) {
        let mut batch = Batch::new();
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "captures have ended");
                    return;
                }
            };
            for event in &events[..count] {
                let capture = match event.data() {
                    WAKE => return,
                    id => lock(&self.captures).get(&id).cloned(),
                };
                if let Some(capture) = capture {
                    capture.take(self, &mut lock(&capture.work), &mut batch);
                }
            }
        }
    }
}

impl Capture {
    /// Listen to exactly these interfaces.
    fn listen(&self, shared: &Shared, ears: &[Ear]) -> io::Result<()> {
        let mut work = lock(&self.work);
        if work.file.is_none() {
            return Ok(());
        }
        let mut wanted: HashMap<u32, Ear> = ears.iter().map(|ear| (ear.index, *ear)).collect();
        let tag = |ear: &Ear| ear.vlan.map(|vlan| dot1q(vlan.get()));
        let stays = |(socket, old): &(PacketSocket, Option<Tag>)| {
            !socket.deserted() && wanted.get(&socket.index()).is_some_and(|ear| tag(ear) == *old)
        };
        let stay: Vec<bool> = work.sockets.iter().map(stays).collect();
        if stay.contains(&false) {
            // What was heard before the interface went.
            self.take(shared, &mut work, &mut Batch::new());
            let mut stay = stay.into_iter();
            let gone: Vec<_> = work.sockets.extract_if(.., |_| !stay.next().unwrap_or(true)).collect();
            gone.iter().for_each(|(socket, _)| self.close(shared, socket));
        }
        for (socket, _) in &work.sockets {
            wanted.remove(&socket.index());
        }
        let mut result = Ok(());
        for ear in wanted.values() {
            match PacketSocket::open(ear.index, ear.promiscuous) {
                Ok(socket) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, self.id);
                    match shared.epoll.add(&socket, event) {
                        Ok(()) => work.sockets.push((socket, tag(ear))),
                        Err(errno) => result = Err(errno.into()),
                    }
                }
                // It has gone since it was listed.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENODEV) => {}
                Err(error) => result = Err(error),
            }
        }
        lock(&self.status).interfaces = work.sockets.len();
        result
    }

    /// Give up a socket.
    fn close(&self, shared: &Shared, socket: &PacketSocket) {
        lock(&self.status).dropped += socket.take_dropped();
        // It goes from there by itself when it is closed.
        let _ = shared.epoll.delete(socket.as_fd());
    }

    /// Take what waits, but no more than a few thousand frames, and write it. True if nothing is left waiting.
    fn take(&self, shared: &Shared, work: &mut Work, batch: &mut Batch) -> bool {
        let mut collected = Collected::default();
        let mut silent = true;
        let mut failed = Vec::new();
        for (at, (socket, tag)) in work.sockets.iter().enumerate() {
            let mut turns = 0;
            loop {
                match socket.receive(batch) {
                    Ok(true) => batch.frames().for_each(|frame| self.collect(&mut collected, &frame, *tag)),
                    Ok(false) => {
                        if socket.deserted() {
                            failed.push(at);
                        }
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(path = %self.path.display(), %error, "a capture has lost an interface");
                        failed.push(at);
                        break;
                    }
                }
                turns += 1;
                if turns == TURNS || collected.records.len() > COLLECTED {
                    silent = false;
                    break;
                }
            }
        }
        for at in failed.into_iter().rev() {
            let (socket, _) = work.sockets.remove(at);
            self.close(shared, &socket);
            lock(&self.status).interfaces = work.sockets.len();
        }
        if !collected.ends.is_empty() {
            collected.sort();
            collected.straighten(&mut work.last);
            self.write(shared, work, &collected);
        }
        silent
    }

    /// Put a frame behind the others, if the filter lets it through.
    fn collect(&self, collected: &mut Collected, frame: &Frame<'_>, vlan: Option<Tag>) {
        let tags: Vec<Tag> = vlan.into_iter().chain(frame.tag).collect();
        let Collected { records, ends, scratch } = collected;
        let tagged = |scratch: &mut Vec<u8>, tags: &[Tag]| {
            scratch.clear();
            push_tagged(scratch, frame.bytes, tags);
        };
        if let Some(filter) = &self.filter {
            let accepted = match &*tags {
                [] => filter.accepts(frame.bytes),
                [_] if !filter.tagged() => filter.accepts(frame.bytes),
                [_, inner @ ..] => {
                    tagged(scratch, if filter.tagged() { &tags } else { inner });
                    filter.accepts(scratch)
                }
            };
            if !accepted {
                return;
            }
        }
        let length = frame.length + tags.len() * size_of::<Tag>();
        if tags.is_empty() {
            push_record(records, frame.time, frame.bytes, length, self.snaplen);
        } else {
            tagged(scratch, &tags);
            push_record(records, frame.time, scratch, length, self.snaplen);
        }
        ends.push((frame.time, records.len()));
    }

    fn write(&self, shared: &Shared, work: &mut Work, collected: &Collected) {
        let Some(file) = work.file.as_mut() else { return };
        let ends: Vec<usize> = collected.ends.iter().map(|(_, end)| *end).collect();
        let result = file.append(&collected.records, &ends);
        let whole = result.as_ref().map_or_else(|(whole, _)| *whole, |()| ends.len());
        {
            let mut status = lock(&self.status);
            status.frames += whole as u64;
            status.bytes += whole.checked_sub(1).map_or(0, |last| ends[last] as u64);
        }
        if let Err((_, error)) = result {
            self.fail(shared, work, &error);
        }
    }

    /// Stop for something that has happened to the file.
    fn fail(&self, shared: &Shared, work: &mut Work, error: &io::Error) {
        tracing::error!(path = %self.path.display(), %error, "a capture has stopped");
        self.give_up(shared, work, Some(error.to_string()));
    }

    /// Close everything.
    fn give_up(&self, shared: &Shared, work: &mut Work, why: Option<String>) {
        for (socket, _) in work.sockets.drain(..) {
            self.close(shared, &socket);
        }
        work.file = None;
        let mut status = lock(&self.status);
        status.interfaces = 0;
        if status.stopped.is_none() {
            status.stopped = why;
        }
    }

    /// The last frames, and the end.
    fn finish(&self, shared: &Shared) {
        let mut work = lock(&self.work);
        if work.file.is_none() {
            return;
        }
        let mut batch = Batch::new();
        for _ in 0..LAST_ROUNDS {
            if self.take(shared, &mut work, &mut batch) {
                break;
            }
        }
        self.give_up(shared, &mut work, None);
    }

    fn status(&self, shared: Option<&Shared>) -> SniffStatus {
        // Whoever works with it may be waiting for the disk.
        if let Ok(mut work) = self.work.try_lock() {
            let dropped: u64 = work.sockets.iter().map(|(socket, _)| socket.take_dropped()).sum();
            lock(&self.status).dropped += dropped;
            let touched = work.file.as_ref().and_then(|file| file.untouched().err());
            if let Some(shared) = shared {
                // The kernel tells of an interface that goes when it is set down, which may be before it is gone.
                let gone: Vec<_> = work.sockets.extract_if(.., |(socket, _)| socket.deserted()).collect();
                gone.iter().for_each(|(socket, _)| self.close(shared, socket));
                lock(&self.status).interfaces = work.sockets.len();
                if let Some(error) = touched {
                    self.fail(shared, &mut work, &error);
                }
            }
        }
        lock(&self.status).clone()
    }
}

impl Collected {
    /// Bring records that were taken from several interfaces into the order of their times.
    fn sort(&mut self) {
        if self.ends.is_sorted_by_key(|(time, _)| *time) {
            return;
        }
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let mut places: Vec<_> =
            self.ends.iter().zip(begins).map(|((time, end), begin)| (*time, begin..*end)).collect();
        places.sort_by_key(|(time, _)| *time);
        let mut records = Vec::with_capacity(self.records.len());
        self.ends.clear();
        for (time, place) in places {
            records.extend_from_slice(&self.records[place]);
            self.ends.push((time, records.len()));
        }
        self.records = records;
    }

    /// Let no record be older than the one before it. The kernel gives the first frames after a while without any capture
    /// the time at which they are taken, not that at which they came. A clock that was set back stays so.
    fn straighten(&mut self, last: &mut Duration) {
        let mut begin = 0;
        for (time, end) in &mut self.ends {
            if *time < *last && *last - *time < CLOCK_SET {
                *time = *last;
                set_time(&mut self.records[begin..*end], *time);
            }
            *last = *time;
            begin = *end;
        }
    }
}

/// A capture as its owner holds it.
struct Held {
    sniffers: Arc<Sniffers>,
    capture: Arc<Capture>,
}

impl Sniffer for Held {
    fn status(&self) -> SniffStatus {
        let shared = self.sniffers.all().map(|(shared, _)| shared);
        self.capture.status(shared.as_deref())
    }

    fn stop(&self) -> SniffStatus {
        self.sniffers.leave(&self.capture);
        self.capture.status(None)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sniffers.leave(&self.capture);
    }
}

impl Sniffing for LinuxNetwork {
    fn check_filter(&self, filter: &str) -> Result<(), SniffError> {
        Filter::compile(filter).map(drop)
    }

    fn forget_sniffed(&self) -> Result<(), NetworkError> {
        self.look(|sniffers, ports| sniffers.refresh(ports, None)).map(drop)
    }

    fn sniff(&self, sniff: &Sniff) -> Result<Box<dyn Sniffer>, SniffError> {
        let filter = Filter::compile(&sniff.filter)?;
        let existed = std::fs::symlink_metadata(&sniff.path).is_ok();
        let file = CaptureFile::open(&sniff.path, Content::Frames { snaplen: sniff.snaplen }, sniff.resume)?;
        let undo = || {
            if !existed {
                // Best effort: the first error is what the caller needs to know.
                let _ = std::fs::remove_file(&sniff.path);
            }
        };
        let sniffers = Arc::clone(self.sniffers());
        let capture = sniffers.enter(sniff, file, filter).inspect_err(|_| undo())?;
        let id = capture.id;
        let held = Held { sniffers, capture };
        let listening = self.look(move |sniffers, ports| sniffers.refresh(ports, Some(id)));
        match listening {
            Ok(_) => Ok(Box::new(held)),
            Err(error) => {
                drop(held);
                undo();
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
