//! `host::Network` by rtnetlink: one thread lives in the engine's network namespace and does what the callers ask for.
//!
//! The calling threads stay in the namespace they are in. In a namespace of its own the engine never touches the host's
//! interfaces; in the host's namespace it changes and deletes only what carries its marks.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{FairMutex, FairMutexGuard};

use super::collecting::Exports;
use super::dhcp::{Client, Lease};
use super::learning::{Ears, Listening};
use super::namespace;
use super::ports::Ports;
use super::sniffing::Sniffers;
use super::switch::{self, Form};
use crate::host::{
    Bond, Bonding, BridgeInfo, GATEWAY_INSIDE, Learning, Leasing, Listener, Mirror, Netflow, Network, NetworkError,
    NetworkPlace, NewTap, Port, Segment, SwitchChoice, Switching, Tunnel,
};
use crate::name::{BridgeName, TapName};

/// Beside the namespace's pin: what a switch of the engine's own writes.
const SWITCH_FOLDER: &str = "openvswitch";
/// How often the programs of a switch are looked after.
const TEND: Duration = Duration::from_secs(1);

/// The engine's network on this host.
pub struct LinuxNetwork {
    place: NetworkPlace,
    switch: SwitchChoice,
    form: Form,
    /// Fair, so that who does one thing after the other lets others have their turn between: taps that are asked for
    /// together can then be made together.
    worker: FairMutex<Option<Worker>>,
    ears: Arc<Ears>,
    sniffers: Arc<Sniffers>,
    exports: Arc<Exports>,
}

/// Who has to know what has come and gone.
struct Audience {
    sniffers: Arc<Sniffers>,
    exports: Arc<Exports>,
}

impl Audience {
    fn tell(&self, ports: &mut Ports) {
        if let Err(error) = self.sniffers.refresh(ports, None).and_then(|()| self.exports.refresh(ports)) {
            tracing::warn!(%error, "captures do not hear what has changed");
        }
    }
}

type Job = Box<dyn FnOnce(&mut Ports) + Send>;

/// The thread inside. It ends when this is dropped.
#[derive(Debug)]
struct Worker {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Keeps the namespace too; None in the host's.
    namespace: Option<OwnedFd>,
    /// Learns addresses; None where the kernel does not let it.
    listening: Option<Listening>,
    /// The DHCP clients of host taps.
    clients: HashMap<TapName, Client>,
}

impl LinuxNetwork {
    /// The network at a place, on Linux bridges. Does nothing yet; what an earlier process has left there is found when it
    /// is needed.
    pub fn new(place: NetworkPlace) -> Self {
        Self::with_switch(place, SwitchChoice::Linux)
    }

    /// The same with another switch.
    pub fn with_switch(place: NetworkPlace, switch: SwitchChoice) -> Self {
        Self {
            place,
            switch,
            form: Form::Auto,
            worker: FairMutex::new(None),
            ears: Arc::default(),
            sniffers: Arc::default(),
            exports: Arc::default(),
        }
    }

    /// Whether the network namespace is there; the host's always is.
    pub fn is_there(&self) -> Result<bool, NetworkError> {
        match &self.place {
            NetworkPlace::Own { pin } => Ok(namespace::open(pin)?.is_some()),
            NetworkPlace::Host => Ok(true),
        }
    }

    /// The worker if there is something to work on: in a namespace of its own only if that exists or `make` is set.
    fn worker(&self, make: bool) -> Result<FairMutexGuard<'_, Option<Worker>>, NetworkError> {
        let mut worker = self.worker.lock();
        if worker.is_none() {
            *worker = Worker::start(&self.place, &self.switch, self.form, &self.ears, make, self.audience())?;
        }
        Ok(worker)
    }

    /// Do something inside; None if there is no namespace and `make` is not set.
    pub(super) fn inside<R: Send + 'static>(
        &self,
        make: bool,
        f: impl FnOnce(&mut Ports) -> Result<R, NetworkError> + Send + 'static,
    ) -> Result<Option<R>, NetworkError> {
        let mut worker = self.worker(make)?;
        run(&mut worker, f)
    }
}

impl Learning for LinuxNetwork {
    fn learn(&self, listener: Listener) {
        self.ears.set(listener);
    }

    fn forget(&self, tap: &TapName) {
        self.ears.forget(tap);
    }
}

impl Leasing for LinuxNetwork {
    fn lease(&self, tap: &TapName, limit: Duration) -> Result<(Ipv4Addr, u8), NetworkError> {
        let leases = self.start_client(tap)?;
        leases.recv_timeout(limit).map(|lease| (lease.address, lease.prefix)).map_err(|_| {
            self.stop_client(tap);
            NetworkError::NoLease { tap: tap.to_string(), seconds: limit.as_secs() }
        })
    }

    fn keep_lease(&self, tap: &TapName) -> Result<(), NetworkError> {
        self.start_client(tap).map(drop)
    }
}

impl LinuxNetwork {
    /// A descriptor of the network namespace; the daemon's own where that is the engine's.
    pub(super) fn namespace(&self) -> Result<OwnedFd, NetworkError> {
        match self.enter()? {
            Some(namespace) => Ok(namespace),
            None => namespace::current(),
        }
    }

    /// Move a host tap into a gateway's namespace.
    pub(super) fn move_out(&self, tap: &TapName, namespace: OwnedFd) -> Result<(), NetworkError> {
        let name = tap.clone();
        self.change(false, move |ports| ports.move_out(&name, &namespace, GATEWAY_INSIDE))?
            .ok_or_else(|| NetworkError::NotFound { tap: tap.to_string() })
    }

    /// Start asking for an address; the receiver gets each new lease.
    fn start_client(&self, tap: &TapName) -> Result<mpsc::Receiver<Lease>, NetworkError> {
        self.stop_client(tap);
        let (sender, leases) = mpsc::channel();
        let name = tap.clone();
        let mut worker = self.worker(false)?;
        let client = run(&mut worker, move |_| {
            Client::start(&name, sender)
                .map_err(|source| NetworkError::Kernel { what: format!("start a DHCP client on {name}"), source })
        })?;
        let client = client.ok_or_else(|| NetworkError::NotFound { tap: tap.to_string() })?;
        if let Some(worker) = worker.as_mut() {
            worker.clients.retain(|_, client| client.runs());
            worker.clients.insert(tap.clone(), client);
        }
        Ok(leases)
    }

    fn stop_client(&self, tap: &TapName) {
        let mut worker = self.worker.lock();
        let client = worker.as_mut().and_then(|worker| worker.clients.remove(tap));
        // Its thread may take a moment to end.
        drop((worker, client));
    }
}

impl LinuxNetwork {
    /// What bridges are to export.
    pub(super) fn exports(&self) -> &Arc<Exports> {
        &self.exports
    }

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

    /// Change what is inside, and let captures and collectors hear what has come before anybody can use it.
    fn change<R: Send + 'static>(
        &self,
        make: bool,
        f: impl FnOnce(&mut Ports) -> Result<R, NetworkError> + Send + 'static,
    ) -> Result<Option<R>, NetworkError> {
        let audience = self.audience();
        self.inside(make, move |ports| {
            let result = f(ports);
            audience.tell(ports);
            result
        })
    }

    fn audience(&self) -> Audience {
        Audience { sniffers: Arc::clone(&self.sniffers), exports: Arc::clone(&self.exports) }
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

    fn owner(&self, tap: &TapName) -> Result<Option<String>, NetworkError> {
        let name = tap.clone();
        Ok(self.inside(false, move |ports| ports.owner(&name))?.flatten())
    }

    fn list(&self) -> Result<Vec<Port>, NetworkError> {
        Ok(self.inside(false, Ports::list)?.unwrap_or_default())
    }

    fn release(&self, in_use: bool) -> Result<(), NetworkError> {
        // Locked until the end, so that nobody creates a tap in a namespace that is about to go.
        let mut worker = self.worker(false)?;
        let audience = self.audience();
        let left = run(&mut worker, move |ports| {
            ports.sweep()?;
            audience.tell(ports);
            Ok(ports.has_tap()? || !ports.bridges()?.is_empty())
        })?;
        let NetworkPlace::Own { pin } = &self.place else { return Ok(()) };
        if left == Some(true) || (in_use && left.is_some()) {
            return Ok(());
        }
        // A socket would keep the namespace.
        self.sniffers.deafen();
        self.exports.forget();
        match run(&mut worker, |ports| ports.switch().end())? {
            Some(()) => {}
            // What a namespace that is gone, as after a restart of the host, has left.
            None if switch_folder(&self.place).is_some_and(|folder| folder.exists()) => self.chosen()?.end()?,
            None => {}
        }
        *worker = None;
        namespace::remove(pin)
    }
}

impl LinuxNetwork {
    /// The switch, in the calling thread's namespace. Only for what is the same in all.
    fn chosen(&self) -> Result<Box<dyn switch::Switch>, NetworkError> {
        switch::open(&self.switch, self.form, switch_folder(&self.place).as_deref())
    }

    /// Do something to a bridge that needs a namespace.
    fn at_bridge(
        &self,
        bridge: &BridgeName,
        f: impl FnOnce(&mut Ports) -> Result<(), NetworkError> + Send + 'static,
    ) -> Result<(), NetworkError> {
        self.change(false, f)?.ok_or_else(|| NetworkError::NoBridge { bridge: bridge.to_string() })
    }
}

impl Switching for LinuxNetwork {
    fn switch(&self) -> Result<String, NetworkError> {
        Ok(match self.inside(false, |ports| Ok(ports.switch().kind().to_owned()))? {
            Some(kind) => kind,
            None => self.chosen()?.kind().to_owned(),
        })
    }

    fn bridges(&self) -> Result<Vec<BridgeInfo>, NetworkError> {
        Ok(self.inside(false, Ports::bridges)?.unwrap_or_default())
    }

    fn configure(&self, bridge: &BridgeName, config: &str) -> Result<(), NetworkError> {
        let (bridge, config) = (bridge.clone(), config.to_owned());
        self.change(true, move |ports| ports.switch().configure(&bridge, &config))?.ok_or_else(lost)
    }

    fn trunk(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let (bridge, interface) = (bridge.clone(), interface.clone());
        self.change(true, move |ports| ports.switch().trunk(&bridge, &interface))?.ok_or_else(lost)
    }

    fn untrunk(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let (name, interface) = (bridge.clone(), interface.clone());
        self.at_bridge(bridge, move |ports| ports.untrunk(&name, &interface))
    }

    fn tunnel(&self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        let (bridge, tunnel) = (bridge.clone(), tunnel.clone());
        self.change(true, move |ports| ports.switch().tunnel(&bridge, &tunnel))?.ok_or_else(lost)
    }

    fn untunnel(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let (name, interface) = (bridge.clone(), interface.clone());
        self.at_bridge(bridge, move |ports| ports.untunnel(&name, &interface))
    }

    fn destroy(&self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let name = bridge.clone();
        self.at_bridge(bridge, move |ports| ports.destroy(&name))
    }

    fn mirror(&self, mirror: &Mirror) -> Result<(), NetworkError> {
        let asked = mirror.clone();
        self.inside(false, move |ports| ports.mirror(&asked))?
            .ok_or_else(|| NetworkError::NotFound { tap: mirror.source.to_string() })
    }

    fn unmirror(&self, destination: &TapName) -> Result<(), NetworkError> {
        let name = destination.clone();
        self.inside(false, move |ports| ports.unmirror(&name))?
            .ok_or_else(|| NetworkError::NotFound { tap: destination.to_string() })
    }

    fn mirrors(&self) -> Result<Vec<Mirror>, NetworkError> {
        Ok(self.inside(false, Ports::mirrors)?.unwrap_or_default())
    }
}

impl Bonding for LinuxNetwork {
    fn bond(&self, bond: &Bond) -> Result<(), NetworkError> {
        let asked = bond.clone();
        self.change(false, move |ports| ports.bond(&asked))?.ok_or_else(|| NetworkError::NotFound {
            tap: bond.taps.first().map(ToString::to_string).unwrap_or_default(),
        })
    }

    fn unbond(&self, name: &TapName) -> Result<(), NetworkError> {
        let asked = name.clone();
        self.change(false, move |ports| ports.switch().unbond(&asked))?
            .ok_or_else(|| NetworkError::NotFound { tap: name.to_string() })
    }

    fn bonds(&self) -> Result<Vec<Bond>, NetworkError> {
        if self.switch == SwitchChoice::Linux {
            return Ok(Vec::new());
        }
        Ok(self.inside(false, Ports::bonds)?.unwrap_or_default())
    }

    fn netflow(&self, bridge: &BridgeName, settings: Option<&Netflow>) -> Result<(), NetworkError> {
        let (name, settings) = (bridge.clone(), settings.cloned());
        match self.inside(false, move |ports| ports.switch().netflow(&name, settings.as_ref()))? {
            Some(()) => Ok(()),
            // A switch that never does it says so all the same.
            None => {
                self.chosen()?.netflow(bridge, None).and(Err(NetworkError::NoBridge { bridge: bridge.to_string() }))
            }
        }
    }

    fn plain_frames(&self) -> Result<bool, NetworkError> {
        if self.switch == SwitchChoice::Linux {
            return Ok(false);
        }
        Ok(self.chosen()?.plain_frames())
    }
}

/// Where a switch of the engine's own may write.
fn switch_folder(place: &NetworkPlace) -> Option<PathBuf> {
    match place {
        NetworkPlace::Own { pin } => Some(pin.with_file_name(SWITCH_FOLDER)),
        NetworkPlace::Host => None,
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
    fn start(
        place: &NetworkPlace,
        switch: &SwitchChoice,
        form: Form,
        ears: &Arc<Ears>,
        make: bool,
        audience: Audience,
    ) -> Result<Option<Self>, NetworkError> {
        let existing = match place {
            NetworkPlace::Own { pin } => namespace::open(pin)?,
            NetworkPlace::Host => None,
        };
        if matches!(place, NetworkPlace::Own { .. }) && existing.is_none() && !make {
            return Ok(None);
        }
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let (place, switch, ears) = (place.clone(), switch.clone(), Arc::clone(ears));
        let thread = std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || match settle(&place, &switch, form, existing) {
                Ok((mut ports, namespace)) => {
                    let listening = Listening::start(ears).inspect_err(|error| {
                        tracing::warn!(%error, "the addresses of guests are not learned: packet sockets do not work");
                    });
                    // Nobody to tell means nobody to work for.
                    if ready.send(Ok((namespace, listening.ok()))).is_ok() {
                        work(&mut ports, &inbox, (switch != SwitchChoice::Linux).then_some(audience));
                    }
                }
                Err(error) => drop(ready.send(Err(error))),
            })
            .map_err(|source| NetworkError::Kernel { what: "start the network thread".to_owned(), source })?;
        let clients = HashMap::new();
        let mut worker = Self { jobs: Some(jobs), thread: Some(thread), namespace: None, listening: None, clients };
        (worker.namespace, worker.listening) = started.recv().unwrap_or_else(|_| Err(lost()))?;
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
        self.listening = None;
        self.clients.clear();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported to the one whose job it was.
            let _ = thread.join();
        }
    }
}

/// Do the jobs until nobody can give any more; between them, look after what the switch runs, if there is somebody to tell.
fn work(ports: &mut Ports, inbox: &Receiver<Job>, audience: Option<Audience>) {
    loop {
        let job =
            if audience.is_some() { inbox.recv_timeout(TEND) } else { inbox.recv().map_err(RecvTimeoutError::from) };
        match job {
            Ok(job) => job(ports),
            Err(RecvTimeoutError::Timeout) => match (ports.switch().tend(), &audience) {
                (Ok(true), Some(audience)) => audience.tell(ports),
                (Ok(_), _) => {}
                (Err(error), _) => {
                    tracing::warn!(error = %error, cause = ?std::error::Error::source(&error), "the switch is not well");
                }
            },
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}

/// Bring the calling thread to its place. On failure a namespace that was made for it is gone again.
fn settle(
    place: &NetworkPlace,
    switch: &SwitchChoice,
    form: Form,
    existing: Option<OwnedFd>,
) -> Result<(Ports, Option<OwnedFd>), NetworkError> {
    let folder = switch_folder(place);
    let NetworkPlace::Own { pin } = place else { return Ok((Ports::open(switch, form, None)?, None)) };
    let (namespace, new) = match existing {
        Some(namespace) => {
            namespace::enter(&namespace)?;
            (namespace, false)
        }
        None => (namespace::create(pin)?, true),
    };
    let open = || {
        let mut ports = Ports::open(switch, form, folder.as_deref())?;
        ports.configure_namespace()?;
        if new {
            // What is there was for a namespace that is gone.
            ports.switch().end()?;
        } else {
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

/// The error for a thread that has panicked.
pub(super) fn lost() -> NetworkError {
    NetworkError::Kernel {
        what: "work in the network namespace".to_owned(),
        source: std::io::Error::other("the thread in it has ended"),
    }
}

#[cfg(test)]
mod tests;
