//! Captures: which interfaces each one listens to, and the threads that take frames from all of them.
//!
//! A few threads take frames for all captures, and each capture has one that writes its file ([`writing`]), so that neither a
//! slow disk nor a busy interface costs frames elsewhere. What neither keeps up with waits in the kernel, up to the room
//! that a socket has; what does not fit there is counted as dropped.
//!
//! The sockets are opened by the thread that lives in the engine's network namespace, after everything that it does to
//! interfaces, so that a capture hears a new one before a guest can send. A capture of which nothing is there to be
//! heard has no socket and waits.
//!
//! Locks are taken in this order: `active`, `captures`, one capture's `work`, what it writes, its `status`.

mod collected;
mod writing;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::capture_file::{CaptureFile, Content};
use super::failure::kernel;
use super::filter::Filter;
use super::network::LinuxNetwork;
use super::packet_socket::{Batch, PacketSocket};
use super::ports::Ports;
use super::switch::Ear;
use crate::host::pcap::{Tag, dot1q};
use crate::host::{NetworkError, Sniff, SniffError, SniffStatus, SniffTarget, Sniffer, Sniffing};

use collected::Collected;
use writing::Writing;

/// The event of the end; captures count from 1.
const WAKE: u64 = 0;
/// How many threads take frames at most.
const READERS: usize = 4;
/// How many captures one thread takes on at once.
const TAKEN_ON: usize = 4;
/// How many calls for frames one interface gets before the others have their turn.
const TURNS: usize = 16;
/// How much is collected before it goes to be written, in bytes.
const COLLECTED: usize = 4 << 20;
/// How long a thread that has left nothing waiting lets more come: frames one by one would cost more than together.
const NAP: Duration = Duration::from_millis(1);
/// How often the kernel is asked how many frames it has dropped, while there are frames.
const ASKED: Duration = Duration::from_secs(1);
/// How often a capture says in the log that it loses frames.
const TOLD: Duration = Duration::from_secs(10);
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
    readers: Vec<JoinHandle<()>>,
    next: u64,
}

struct Shared {
    /// Has the [`Capture::epoll`] of each capture, for one event at a time.
    epoll: Epoll,
    wake: EventFd,
    captures: Mutex<BTreeMap<u64, Arc<Capture>>>,
    /// How much waits to be written.
    waiting: Arc<AtomicUsize>,
}

struct Capture {
    id: u64,
    heard: SniffTarget,
    path: PathBuf,
    snaplen: u32,
    filter: Option<Filter>,
    /// Has its sockets.
    epoll: Epoll,
    work: Mutex<Work>,
    writing: Writing,
    status: Mutex<SniffStatus>,
}

/// What only one thread at a time may touch.
#[derive(Default)]
struct Work {
    stopped: bool,
    sockets: Vec<(PacketSocket, Option<Tag>)>,
    /// When the last frame came.
    last: Duration,
    /// When the kernel was asked last how many frames it has dropped.
    asked: Option<Instant>,
    /// When it was in the log last that there are some.
    told: Option<Instant>,
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
        let prepared = kernel("prepare a capture");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|errno| prepared(errno.into()))?;
        let mut slot = lock(&self.active);
        if slot.is_none() {
            *slot = Some(Active::start()?);
        }
        let active = slot.as_mut().expect("it was just made");
        active.next += 1;
        let capture = Arc::new(Capture {
            id: active.next,
            heard: sniff.heard.clone(),
            path: sniff.path.clone(),
            snaplen: sniff.snaplen,
            filter,
            epoll,
            work: Mutex::default(),
            writing: Writing::new(file, Arc::clone(&active.shared.waiting)),
            status: Mutex::default(),
        });
        lock(&active.shared.captures).insert(capture.id, Arc::clone(&capture));
        if let Err(errno) = active.shared.epoll.add(&capture.epoll.0, once(capture.id)) {
            drop(slot);
            self.leave(&capture);
            return Err(kernel("wait for frames")(errno.into()));
        }
        Ok(capture)
    }

    /// Take a capture out; with the last one the threads end. A second time is fine.
    fn leave(&self, capture: &Arc<Capture>) {
        let mut slot = lock(&self.active);
        let Some(active) = slot.as_ref() else { return };
        let last = {
            let mut captures = lock(&active.shared.captures);
            if !captures.get(&capture.id).is_some_and(|there| Arc::ptr_eq(there, capture)) {
                return;
            }
            captures.remove(&capture.id);
            captures.is_empty()
        };
        capture.finish(&active.shared);
        if last && let Some(active) = slot.take() {
            // The counter of an eventfd that counts to 1 is never full.
            let _ = active.shared.wake.write(1);
            for reader in active.readers {
                // A panic in there has nobody to be told to.
                let _ = reader.join();
            }
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
            Ok(Shared { epoll, wake, captures: Mutex::default(), waiting: Arc::default() })
        };
        let shared = Arc::new(open().map_err(kernel("prepare captures"))?);
        let mut active = Self { shared, readers: Vec::new(), next: WAKE };
        let readers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(READERS));
        for _ in 0..readers {
            let shared = Arc::clone(&active.shared);
            match named("capture").spawn(move || shared.run()) {
                Ok(reader) => active.readers.push(reader),
                // One is enough.
                Err(_) if !active.readers.is_empty() => break,
                Err(error) => return Err(kernel("start the capture thread")(error)),
            }
        }
        Ok(active)
    }
}

fn named(name: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(name.to_owned())
}

/// Tell once that there is something for a capture, until it is armed again.
fn once(id: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, id)
}

impl Shared {
    /// Let the next frame of a capture be told.
    fn arm(&self, capture: &Capture) {
        // One that has ended is not in there any more.
        let _ = self.epoll.modify(&capture.epoll.0, &mut once(capture.id));
    }

    /// Take frames until the last capture has gone.
    fn run(self: &Arc<Self>) {
        let mut batch = Batch::new();
        let mut events = [EpollEvent::empty(); TAKEN_ON];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "captures have ended");
                    return;
                }
            };
            let mut silent = true;
            for event in &events[..count] {
                let capture = match event.data() {
                    WAKE => return,
                    id => lock(&self.captures).get(&id).cloned(),
                };
                let Some(capture) = capture else { continue };
                silent &= capture.take(self, &mut lock(&capture.work), &mut batch);
                if !capture.writing.park() {
                    self.arm(&capture);
                }
            }
            if silent {
                std::thread::sleep(NAP);
            }
        }
    }
}

impl Capture {
    /// Listen to exactly these interfaces.
    fn listen(self: &Arc<Self>, shared: &Arc<Shared>, ears: &[Ear]) -> io::Result<()> {
        let mut work = lock(&self.work);
        if work.stopped {
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
            gone.iter().for_each(|(socket, _)| self.close(socket));
        }
        for (socket, _) in &work.sockets {
            wanted.remove(&socket.index());
        }
        let mut result = Ok(());
        // A filter looks at whole frames.
        let cut = self.filter.is_none().then_some(self.snaplen);
        for ear in wanted.values() {
            match PacketSocket::open(ear.index, ear.promiscuous, cut) {
                Ok(socket) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, self.id);
                    match self.epoll.add(&socket, event) {
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
    fn close(&self, socket: &PacketSocket) {
        lock(&self.status).dropped += socket.take_dropped();
        // It goes from there by itself when it is closed.
        let _ = self.epoll.delete(socket.as_fd());
    }

    /// Take what waits, but no more than a few thousand frames, and let it be written. True if nothing is left waiting.
    fn take(self: &Arc<Self>, shared: &Arc<Shared>, work: &mut Work, batch: &mut Batch) -> bool {
        let mut collected = Collected::default();
        let mut silent = true;
        let mut failed = Vec::new();
        for (at, (socket, tag)) in work.sockets.iter().enumerate() {
            let mut turns = 0;
            loop {
                match socket.receive(batch) {
                    Ok(true) => batch.frames().for_each(|frame| {
                        collected.push(&frame, *tag, self.filter.as_ref(), self.snaplen);
                    }),
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
            self.close(&socket);
            lock(&self.status).interfaces = work.sockets.len();
        }
        if !collected.ends.is_empty() {
            collected.sort();
            collected.straighten(&mut work.last);
            let (capture, shared) = (Arc::clone(self), Arc::clone(shared));
            let start = || named("capture-file").spawn(move || capture.write_all(&shared));
            if let Err(error) = self.writing.push(collected, start) {
                self.fail(work, &error);
            }
        }
        self.look_for_drops(work);
        silent
    }

    /// See to it that a loss is known while it happens.
    fn look_for_drops(&self, work: &mut Work) {
        let now = Instant::now();
        if work.asked.is_some_and(|asked| now - asked < ASKED) {
            return;
        }
        work.asked = Some(now);
        self.count_drops(work);
    }

    fn count_drops(&self, work: &mut Work) {
        let new: u64 = work.sockets.iter().map(|(socket, _)| socket.take_dropped()).sum();
        if new == 0 {
            return;
        }
        let dropped = {
            let mut status = lock(&self.status);
            status.dropped += new;
            status.dropped
        };
        if work.told.is_none_or(|told| told.elapsed() >= TOLD) {
            work.told = Some(Instant::now());
            tracing::warn!(path = %self.path.display(), dropped, "a capture loses frames: they come too fast");
        }
    }

    /// Write what comes until the file is closed.
    fn write_all(self: &Arc<Self>, shared: &Shared) {
        while let Some((mut file, records)) = self.writing.next() {
            let ends: Vec<usize> = records.ends.iter().map(|(_, end)| *end).collect();
            let result = file.append(&records.records, &ends);
            let whole = result.as_ref().map_or_else(|(whole, _)| *whole, |()| ends.len());
            {
                let mut status = lock(&self.status);
                status.frames += whole as u64;
                status.bytes += whole.checked_sub(1).map_or(0, |last| ends[last] as u64);
            }
            let error = result.err().map(|(_, error)| error);
            if error.is_some() {
                // Before the lock: who has it may wait for this to be written.
                self.writing.close();
            }
            if self.writing.done(file, &records) {
                shared.arm(self);
            }
            if let Some(error) = error {
                self.fail(&mut lock(&self.work), &error);
            }
        }
    }

    /// Stop for something that has happened to the file.
    fn fail(&self, work: &mut Work, error: &io::Error) {
        tracing::error!(path = %self.path.display(), %error, "a capture has stopped");
        self.give_up(work, Some(error.to_string()));
    }

    /// Close everything.
    fn give_up(&self, work: &mut Work, why: Option<String>) {
        self.writing.close();
        work.stopped = true;
        for (socket, _) in work.sockets.drain(..) {
            self.close(&socket);
        }
        let mut status = lock(&self.status);
        status.interfaces = 0;
        if status.stopped.is_none() {
            status.stopped = why;
        }
    }

    /// The last frames, and the end.
    fn finish(self: &Arc<Self>, shared: &Arc<Shared>) {
        {
            let mut work = lock(&self.work);
            let mut batch = Batch::new();
            for _ in 0..LAST_ROUNDS {
                if work.stopped || self.take(shared, &mut work, &mut batch) {
                    break;
                }
                if self.writing.park() {
                    self.writing.drain();
                }
            }
            self.writing.drain();
            if !work.stopped && !self.writing.is_closed() {
                self.give_up(&mut work, None);
            }
        }
        // It may wait for the lock, to say why it could not write.
        self.writing.end();
        // It goes from there by itself when it is closed.
        let _ = shared.epoll.delete(&self.epoll.0);
    }

    /// How it is doing. What has happened to its file or interfaces is looked for while it runs.
    fn status(&self, runs: bool) -> SniffStatus {
        // Whoever works with it may be waiting for the disk.
        if let Ok(mut work) = self.work.try_lock() {
            self.count_drops(&mut work);
            if runs {
                // The kernel tells of an interface that goes when it is set down, which may be before it is gone.
                let gone: Vec<_> = work.sockets.extract_if(.., |(socket, _)| socket.deserted()).collect();
                gone.iter().for_each(|(socket, _)| self.close(socket));
                lock(&self.status).interfaces = work.sockets.len();
                if let Some(error) = self.writing.touched() {
                    self.fail(&mut work, &error);
                }
            }
        }
        lock(&self.status).clone()
    }
}

/// A capture as its owner holds it.
struct Held {
    sniffers: Arc<Sniffers>,
    capture: Arc<Capture>,
}

impl Sniffer for Held {
    fn status(&self) -> SniffStatus {
        self.capture.status(self.sniffers.all().is_some())
    }

    fn stop(&self) -> SniffStatus {
        self.sniffers.leave(&self.capture);
        self.capture.status(false)
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
