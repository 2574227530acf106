//! The queue of a namespace: launches that wait for the one that carries all of them out, and where they are to go.
//!
//! What is queued has its names, and the configuration of the moment when it was queued. Names and UUIDs are checked
//! when a launch is queued, hosts and limits when the queue is scheduled. Queue, mode and hosts are stored; the result of
//! a dry-run and the list of past schedules end with the daemon.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::language::field::VmConfig;
use crate::language::range;
use crate::name::{BridgeName, Namespace, VmName};

use super::schedule::{self, HostLoad, Load, Wanted};
use super::{Engine, EngineError, State, Vlans, hoststats};

/// How many past schedules of a namespace are kept.
const HISTORY: usize = 1000;

/// Another name for the engine's own host in commands.
const LOCALHOST: &str = "localhost";

/// VMs that are to be launched together, with one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Their names.
    pub names: Vec<VmName>,
    /// What they are launched with.
    pub config: VmConfig,
}

/// How a namespace launches.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Scheduling {
    /// `vm launch` with names only queues.
    queueing: bool,
    pub(super) queue: Vec<Queued>,
    load: Load,
    /// The engine's host was taken out of the namespace.
    without_host: bool,
    /// What the last dry-run found, as changed by hand: hosts by VM. None where the queue or the hosts changed since.
    #[serde(skip)]
    dry_run: Option<BTreeMap<VmName, String>>,
    #[serde(skip)]
    past: VecDeque<Arc<Mutex<Schedule>>>,
}

/// One schedule: a launch that was carried out, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// When its first VM was about to start.
    pub start: SystemTime,
    /// When the last one had started or failed; None while it runs.
    pub end: Option<SystemTime>,
    /// VMs that are up.
    pub launched: usize,
    /// VMs that failed.
    pub failures: usize,
    /// All its VMs.
    pub total: usize,
    /// The hosts that they go to.
    pub hosts: usize,
}

/// Why a queue or the hosts of a namespace cannot be changed or used so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Nothing is queued.
    #[error("namespace must contain at least one queued VM to launch VMs")]
    Empty,
    /// The name is that of a queued VM.
    #[error("vm already queued with name `{name}`, `ns queue` shows it and `ns flush` drops the queue")]
    NameQueued {
        /// The name.
        name: VmName,
    },
    /// The UUID is that of a queued VM.
    #[error("vm already queued with UUID `{uuid}`: {name} of namespace {namespace}")]
    UuidQueued {
        /// The UUID.
        uuid: String,
        /// The VM that has it.
        name: VmName,
        /// Its namespace.
        namespace: Namespace,
    },
    /// There is no dry-run of the queue as it is.
    #[error("the queue was not scheduled as it is now, `ns schedule dry-run` does that")]
    NoDryRun,
    /// A VM is to go to a host that is none of the namespace.
    #[error("new dst host is not in namespace: `{host}`, expected {}", known.as_deref().unwrap_or("none, because it has no hosts"))]
    Destination {
        /// As given.
        host: String,
        /// The hosts of the namespace.
        known: Option<String>,
    },
    /// A host that this engine does not know.
    #[error("unknown host `{host}`, expected `{own}`: this engine knows no other host")]
    UnknownHost {
        /// As given.
        host: String,
        /// The engine's own host.
        own: String,
    },
    /// A host that has VMs of the namespace.
    #[error("host `{host}` has {count} VMs of namespace {namespace}, `vm kill` and `vm flush` them first")]
    HostInUse {
        /// The host.
        host: String,
        /// The namespace.
        namespace: Namespace,
        /// How many.
        count: usize,
    },
}

fn locked(schedule: &Mutex<Schedule>) -> MutexGuard<'_, Schedule> {
    schedule.lock().expect("no code panics while it holds a schedule")
}

/// A launch whose VMs are starting; its end is noted when this goes, in whatever way.
pub(super) struct Running(Arc<Mutex<Schedule>>);

impl Running {
    /// Note how the start of one VM ended.
    pub(super) fn ended(&self, well: bool) {
        let mut schedule = locked(&self.0);
        if well {
            schedule.launched += 1;
        } else {
            schedule.failures += 1;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut schedule = locked(&self.0);
        schedule.failures = schedule.total - schedule.launched;
        schedule.end = Some(SystemTime::now());
    }
}

impl Scheduling {
    /// The queue or the hosts have changed: what was planned for them holds no longer.
    fn changed(&mut self) {
        self.dry_run = None;
    }

    /// Add VMs that are to be launched together.
    pub(super) fn push(&mut self, queued: Queued) {
        self.queue.push(queued);
        self.changed();
    }

    /// Take one launch out again. Names are queued once, so that it is no other one's.
    pub(super) fn remove(&mut self, queued: &Queued) {
        self.queue.retain(|other| other != queued);
        self.changed();
    }

    /// Take the whole queue.
    pub(super) fn take(&mut self) -> Vec<Queued> {
        self.changed();
        std::mem::take(&mut self.queue)
    }

    /// Put a queue back in front of what was queued since.
    pub(super) fn restore(&mut self, mut queue: Vec<Queued>) {
        queue.append(&mut self.queue);
        self.queue = queue;
        self.changed();
    }

    pub(super) fn queueing(&self) -> bool {
        self.queueing
    }

    /// The names that are queued.
    pub(super) fn names(&self) -> impl Iterator<Item = &VmName> {
        self.queue.iter().flat_map(|queued| &queued.names)
    }

    /// What the last dry-run of this queue found, as changed by hand since.
    pub(super) fn planned(&self) -> Option<BTreeMap<VmName, String>> {
        self.dry_run.clone()
    }

    /// The part that outlives the daemon.
    pub(super) fn stored(&self) -> Self {
        let Self { queueing, load, without_host, .. } = *self;
        Self { queueing, queue: self.queue.clone(), load, without_host, ..Self::default() }
    }

    /// Enter a launch that is about to be carried out.
    pub(super) fn begin(&mut self, total: usize, hosts: usize) -> Running {
        let schedule = Schedule { start: SystemTime::now(), end: None, launched: 0, failures: 0, total, hosts };
        let schedule = Arc::new(Mutex::new(schedule));
        if self.past.len() >= HISTORY {
            self.past.pop_front();
        }
        self.past.push_back(Arc::clone(&schedule));
        Running(schedule)
    }
}

impl State {
    fn scheduling(&mut self, namespace: &Namespace) -> &mut Scheduling {
        &mut self.namespaces.entry(namespace.clone()).or_default().scheduling
    }

    /// Is the UUID that of a queued VM?
    pub(super) fn uuid_queued(&self, uuid: &str) -> Result<(), QueueError> {
        for (namespace, entry) in &self.namespaces {
            let found = entry.scheduling.queue.iter().find(|queued| queued.config.text("uuid") == uuid);
            if let Some(name) = found.and_then(|queued| queued.names.first()) {
                let (name, namespace) = (name.clone(), namespace.clone());
                return Err(QueueError::UuidQueued { uuid: uuid.to_owned(), name, namespace });
            }
        }
        Ok(())
    }

    /// The VMs of this host as they count for placing others, by the figures that `host` shows.
    fn host_load(&self, name: &str) -> HostLoad {
        let (cpus, memory) = hoststats::capacity();
        let mut host = HostLoad { name: name.to_owned(), cpus, memory, ..HostLoad::default() };
        for (namespace, entry) in &self.namespaces {
            for vm in entry.vms.values() {
                let live = vm.live();
                if !live.state.has_process() {
                    continue;
                }
                host.vms += 1;
                host.vcpus += vm.config.uint("vcpus");
                host.committed += vm.config.uint("memory");
                host.nics += live.nics.len() as u64;
                if let Some(limit) = limit(&vm.config)
                    && host.limit.as_ref().is_none_or(|(_, least)| limit < *least)
                {
                    host.limit = Some((format!("`{}` of namespace {namespace}", vm.name), limit));
                }
            }
        }
        host
    }

    /// A host for each VM of a launch, by name. `fixed` goes before what configurations say.
    pub(super) fn place(
        &self,
        namespace: &Namespace,
        launch: &[Queued],
        fixed: Option<&BTreeMap<VmName, String>>,
        own: &str,
    ) -> Result<Vec<(VmName, String)>, EngineError> {
        let empty = super::NamespaceState::default();
        let entry = self.namespaces.get(namespace).unwrap_or(&empty);
        let hosts = if entry.scheduling.without_host { Vec::new() } else { vec![self.host_load(own)] };
        let present: HashMap<VmName, String> = entry.names.keys().map(|name| (name.clone(), own.to_owned())).collect();
        let wanted: Vec<Wanted> = launch
            .iter()
            .flat_map(|queued| queued.names.iter().map(|name| wanted(name, &queued.config, fixed, own)))
            .collect();
        let places = schedule::place(&wanted, &hosts, &present, entry.scheduling.load)?;
        Ok(wanted.into_iter().zip(places).map(|(vm, host)| (vm.name, hosts[host].name.clone())).collect())
    }
}

/// How many other VMs a configuration allows on the VM's host; None for any number.
pub(super) fn limit(config: &VmConfig) -> Option<u64> {
    u64::try_from(config.int("coschedule")).ok()
}

fn wanted(name: &VmName, config: &VmConfig, fixed: Option<&BTreeMap<VmName, String>>, own: &str) -> Wanted {
    let text = |field| Some(config.text(field)).filter(|text| !text.is_empty());
    let by_hand = fixed.and_then(|hosts| hosts.get(name).cloned());
    let host = by_hand.or_else(|| text("schedule")).map(|host| if host == LOCALHOST { own.to_owned() } else { host });
    Wanted {
        name: name.clone(),
        host,
        colocate: text("colocate"),
        limit: limit(config),
        vcpus: config.uint("vcpus"),
        memory: config.uint("memory"),
        nics: config.networks().len() as u64,
    }
}

/// Check what a launch of this configuration can be told without making anything.
pub(super) fn check(namespace: &Namespace, config: &VmConfig) -> Result<(), EngineError> {
    for nic in config.networks() {
        Vlans::parse(namespace, &nic.vlan)?;
        if let Some(bridge) = &nic.bridge {
            BridgeName::new(bridge)?;
        }
    }
    Ok(())
}

impl Engine {
    fn scheduling<T>(&self, namespace: &Namespace, read: impl FnOnce(&Scheduling) -> T) -> T {
        match self.state().namespaces.get(namespace) {
            Some(entry) => read(&entry.scheduling),
            None => read(&Scheduling::default()),
        }
    }

    /// The hosts of a namespace.
    pub fn hosts(&self, namespace: &Namespace) -> Vec<String> {
        if self.scheduling(namespace, |s| s.without_host) { Vec::new() } else { vec![self.host().to_owned()] }
    }

    /// Is every name of a list of hosts this one's, or `all`?
    fn only_own_host(&self, text: &str) -> Result<(), EngineError> {
        match range::expand(text)?.into_iter().find(|host| host != self.host() && host != LOCALHOST && host != "all") {
            None => Ok(()),
            Some(host) => Err(QueueError::UnknownHost { host, own: self.host().to_owned() }.into()),
        }
    }

    /// Put hosts into a namespace: names, ranges or `all`. This engine knows its own host only.
    pub fn add_hosts(&self, namespace: &Namespace, text: &str) -> Result<(), EngineError> {
        self.only_own_host(text)?;
        self.set_without_host(namespace, false)
    }

    /// Take hosts out of a namespace. One that has VMs of it is refused.
    pub fn del_hosts(&self, namespace: &Namespace, text: &str) -> Result<(), EngineError> {
        self.only_own_host(text)?;
        let count = self.vms(namespace).len();
        if count > 0 {
            let (host, namespace) = (self.host().to_owned(), namespace.clone());
            return Err(QueueError::HostInUse { host, namespace, count }.into());
        }
        self.set_without_host(namespace, true)
    }

    fn set_without_host(&self, namespace: &Namespace, without: bool) -> Result<(), EngineError> {
        {
            let mut state = self.state();
            let scheduling = state.scheduling(namespace);
            if scheduling.without_host != without {
                scheduling.changed();
            }
            scheduling.without_host = without;
        }
        self.save()
    }

    /// The figure that decides which host is the least loaded.
    pub fn load(&self, namespace: &Namespace) -> Load {
        self.scheduling(namespace, |s| s.load)
    }

    /// Choose it.
    pub fn set_load(&self, namespace: &Namespace, load: Load) -> Result<(), EngineError> {
        self.state().scheduling(namespace).load = load;
        self.save()
    }

    /// Does a launch with names only queue?
    pub fn queueing(&self, namespace: &Namespace) -> bool {
        self.scheduling(namespace, |s| s.queueing)
    }

    /// Choose whether it does. What is queued stays.
    pub fn set_queueing(&self, namespace: &Namespace, queueing: bool) -> Result<(), EngineError> {
        self.state().scheduling(namespace).queueing = queueing;
        self.save()
    }

    /// What is queued, in order.
    pub fn queue(&self, namespace: &Namespace) -> Vec<Queued> {
        self.scheduling(namespace, |s| s.queue.clone())
    }

    /// Drop what is queued.
    pub fn flush_queue(&self, namespace: &Namespace) -> Result<(), EngineError> {
        self.state().scheduling(namespace).take();
        self.save()
    }

    /// Choose a host for each queued VM, without launching any. The next launch of this queue follows it.
    pub fn dry_run(&self, namespace: &Namespace) -> Result<Vec<(VmName, String)>, EngineError> {
        let mut state = self.state();
        let queue = state.scheduling(namespace).queue.clone();
        if queue.is_empty() {
            return Err(QueueError::Empty.into());
        }
        let places = state.place(namespace, &queue, None, self.host())?;
        state.scheduling(namespace).dry_run = Some(places.iter().cloned().collect());
        Ok(places)
    }

    /// What the last dry-run found, as changed by hand since.
    pub fn dumped(&self, namespace: &Namespace) -> Result<Vec<(VmName, String)>, EngineError> {
        self.scheduling(namespace, |scheduling| {
            let places = scheduling.dry_run.as_ref().ok_or(QueueError::NoDryRun)?;
            Ok(scheduling.names().filter_map(|name| Some((name.clone(), places.get(name)?.clone()))).collect())
        })
    }

    /// Let queued VMs of the dry-run go to another host. What configurations ask for besides their host must still hold.
    pub fn move_queued(&self, namespace: &Namespace, target: &str, host: &str) -> Result<(), EngineError> {
        let known = self.hosts(namespace);
        let mut state = self.state();
        let mut places = state.scheduling(namespace).dry_run.clone().ok_or(QueueError::NoDryRun)?;
        let host = if host == LOCALHOST { self.host() } else { host };
        if !known.iter().any(|name| name == host) {
            let known = Some(known.join(", ")).filter(|names| !names.is_empty());
            return Err(QueueError::Destination { host: host.to_owned(), known }.into());
        }
        let names = range::expand(target)?;
        let all = names.iter().any(|name| name == "all");
        let mut moved = 0;
        for (name, place) in &mut places {
            if all || names.iter().any(|target| target == name.as_str()) {
                host.clone_into(place);
                moved += 1;
            }
        }
        if moved == 0 {
            return Err(EngineError::VmNotFound { target: target.to_owned() });
        }
        let queue = state.scheduling(namespace).queue.clone();
        state.place(namespace, &queue, Some(&places), self.host())?;
        state.scheduling(namespace).dry_run = Some(places);
        Ok(())
    }

    /// The launches of a namespace since the daemon started, oldest first; of very many, the last 1,000.
    pub fn schedules(&self, namespace: &Namespace) -> Vec<Schedule> {
        self.scheduling(namespace, |s| s.past.iter().map(|schedule| locked(schedule).clone()).collect())
    }
}
