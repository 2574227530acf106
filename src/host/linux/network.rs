//! `host::Network` by rtnetlink: one thread lives in the engine's network namespace and does what the callers ask for.
//!
//! The calling threads stay in the namespace they are in. In a namespace of its own the engine never touches the host's
//! interfaces; in the host's namespace it changes and deletes only what carries its marks.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::namespace;
use super::ports::Ports;
use super::sniffing::Sniffers;
use crate::host::{Network, NetworkError, NetworkPlace, NewTap, Port, Segment};
use crate::name::TapName;

/// The engine's network on this host.
pub struct LinuxNetwork {
    place: NetworkPlace,
    worker: Mutex<Option<Worker>>,
    sniffers: Arc<Sniffers>,
}

type Job = Box<dyn FnOnce(&mut Ports) + Send>;

/// The thread inside. It ends when this is dropped.
#[derive(Debug)]
struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the namespace too; None in the host's.
    namespace: Option<OwnedFd>,
}

impl LinuxNetwork {
    /// The network at a place. Does nothing yet; what an earlier process has left there is found when it is needed.
    pub fn new(place: NetworkPlace) -> Self {
        Self { place, worker: Mutex::new(None), sniffers: Arc::default() }
    }

    /// The worker if there is something to work on: in a namespace of its own only if that exists or `make` is set.
    fn worker(&self, make: bool) -> Result<MutexGuard<'_, Option<Worker>>, NetworkError> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_none() {
            *worker = Worker::start(&self.place, make)?;
        }
        Ok(worker)
    }

    /// Do something inside; None if there is no namespace and `make` is not set.
    fn inside<R: Send + 'static>(
        &self,
        make: bool,
        f: impl FnOnce(&mut Ports) -> Result<R, NetworkError> + Send + 'static,
    ) -> Result<Option<R>, NetworkError> {
        let mut worker = self.worker(make)?;
        run(&mut worker, f)
    }
}

impl LinuxNetwork {
    /// The captures.
    pub(super) fn sniffers(&self) -> &Arc<Sniffers> {
        &self.sniffers
    }

    /// Do something with the captures inside; None if there is nothing inside yet.
    pub(super) fn look<R: Send + 'static>(
        &self,
        f: impl FnOnce(&Sniffers, &mut Ports) -> Result<R, NetworkError> + Send + 'static,
    ) -> Result<Option<R>, NetworkError> {
        let sniffers = Arc::clone(&self.sniffers);
        self.inside(false, move |ports| f(&sniffers, ports))
    }

    /// Change what is inside, and let captures hear what has come before anybody can use it.
    fn change<R: Send + 'static>(
        &self,
        make: bool,
        f: impl FnOnce(&mut Ports) -> Result<R, NetworkError> + Send + 'static,
    ) -> Result<Option<R>, NetworkError> {
        let sniffers = Arc::clone(&self.sniffers);
        self.inside(make, move |ports| {
            let result = f(ports);
            if let Err(error) = sniffers.refresh(ports, None) {
                tracing::warn!(%error, "captures do not hear what has changed");
            }
            result
        })
    }
}

impl Network for LinuxNetwork {
    fn enter(&self) -> Result<Option<OwnedFd>, NetworkError> {
        let worker = self.worker(true)?;
        let namespace = worker.as_ref().and_then(|worker| worker.namespace.as_ref());
        namespace
            .map(|namespace| namespace.try_clone())
            .transpose()
            .map_err(|source| NetworkError::Kernel { what: "open the network namespace".to_owned(), source })
    }

    fn create(&self, tap: &NewTap) -> Result<(), NetworkError> {
        self.create_all(std::slice::from_ref(tap))
    }

    fn create_all(&self, taps: &[NewTap]) -> Result<(), NetworkError> {
        let taps = taps.to_vec();
        self.change(true, move |ports| ports.create_all(&taps))?.ok_or_else(lost)
    }

    fn connect(&self, tap: &TapName, segment: Option<&Segment>) -> Result<(), NetworkError> {
        let (name, segment) = (tap.clone(), segment.cloned());
        self.change(false, move |ports| ports.connect(&name, segment.as_ref()))?
            .ok_or_else(|| NetworkError::NotFound { tap: tap.to_string() })
    }

    fn delete(&self, tap: &TapName) -> Result<(), NetworkError> {
        let name = tap.clone();
        self.change(false, move |ports| ports.delete(&name))?
            .ok_or_else(|| NetworkError::NotFound { tap: tap.to_string() })
    }

    fn delete_all(&self, taps: &[TapName]) -> Result<(), NetworkError> {
        let taps = taps.to_vec();
        // Without a namespace there is no tap either.
        self.change(false, move |ports| ports.delete_all(&taps))?;
        Ok(())
    }

    fn list(&self) -> Result<Vec<Port>, NetworkError> {
        Ok(self.inside(false, Ports::list)?.unwrap_or_default())
    }

    fn release(&self, in_use: bool) -> Result<(), NetworkError> {
        // Locked until the end, so that nobody creates a tap in a namespace that is about to go.
        let mut worker = self.worker(false)?;
        let left = run(&mut worker, |ports| {
            ports.sweep()?;
            Ok(!ports.list()?.is_empty())
        })?;
        let NetworkPlace::Own { pin } = &self.place else { return Ok(()) };
        if left == Some(true) || (in_use && left.is_some()) {
            return Ok(());
        }
        // A socket would keep the namespace.
        self.sniffers.deafen();
        *worker = None;
        namespace::remove(pin)
    }
}

/// Give a job to the worker; None if there is no worker.
fn run<R: Send + 'static>(
    worker: &mut Option<Worker>,
    f: impl FnOnce(&mut Ports) -> Result<R, NetworkError> + Send + 'static,
) -> Result<Option<R>, NetworkError> {
    let Some(running) = worker.as_ref() else { return Ok(None) };
    match running.call(f) {
        Some(result) => result.map(Some),
        None => {
            // The job has panicked and its thread with it; the next call starts another.
            *worker = None;
            Err(lost())
        }
    }
}

impl Worker {
    fn start(place: &NetworkPlace, make: bool) -> Result<Option<Self>, NetworkError> {
        let existing = match place {
            NetworkPlace::Own { pin } => namespace::open(pin)?,
            NetworkPlace::Host => None,
        };
        if matches!(place, NetworkPlace::Own { .. }) && existing.is_none() && !make {
            return Ok(None);
        }
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let place = place.clone();
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || match settle(&place, existing) {
                Ok((mut ports, namespace)) => {
                    // Nobody to tell means nobody to work for.
                    if ready.send(Ok(namespace)).is_ok() {
                        for job in inbox {
                            job(&mut ports);
                        }
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(|source| NetworkError::Kernel { what: "start the network thread".to_owned(), source })?;
        let mut worker = Self { jobs: Some(jobs), thread: Some(thread), namespace: None };
        worker.namespace = started.recv().unwrap_or_else(|_| Err(lost()))?;
        Ok(Some(worker))
    }

    /// Run a job and wait for it; None if the thread is gone.
    fn call<R: Send + 'static>(&self, f: impl FnOnce(&mut Ports) -> R + Send + 'static) -> Option<R> {
        let (answer, answered) = mpsc::channel();
        // A caller always waits, so there is somebody to take the answer.
        let job: Job = Box::new(move |ports| drop(answer.send(f(ports))));
        self.jobs.as_ref()?.send(job).ok()?;
        answered.recv().ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported to the one whose job it was.
            let _ = thread.join();
        }
    }
}

/// Bring the calling thread to its place. On failure a namespace that was made for it is gone again.
fn settle(place: &NetworkPlace, existing: Option<OwnedFd>) -> Result<(Ports, Option<OwnedFd>), NetworkError> {
    let NetworkPlace::Own { pin } = place else { return Ok((Ports::open()?, None)) };
    let (namespace, new) = match existing {
        Some(namespace) => {
            namespace::enter(&namespace)?;
            (namespace, false)
        }
        None => (namespace::create(pin)?, true),
    };
    let open = || {
        let mut ports = Ports::open()?;
        ports.configure_namespace()?;
        if !new {
            ports.sweep_half_made()?;
        }
        Ok(ports)
    };
    match open() {
        Ok(ports) => Ok((ports, Some(namespace))),
        Err(error) => {
            if new {
                // Best effort: the first error is what the caller needs to know.
                let _ = namespace::remove(pin);
            }
            Err(error)
        }
    }
}

fn lost() -> NetworkError {
    NetworkError::Kernel {
        what: "work in the network namespace".to_owned(),
        source: std::io::Error::other("the thread in it has ended"),
    }
}

#[cfg(test)]
mod tests;
