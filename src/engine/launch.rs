//! Launching: names checked, hosts chosen and VMs entered together, then every QEMU started at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::host::linux::accelerator;
use crate::host::linux::process;
use crate::host::{ProcessId, Spawn};
use crate::language::field::VmConfig;
use crate::language::range;
use crate::name::{Namespace, VlanTag, VmName};
use crate::qmp::Qmp;

use super::kvm::Guest;
use super::queue::{self, QueueError, Queued, Running};
use super::vm::{Ended, RECORD, Turn, Vm, VmState};
use super::{Accelerator, Engine, EngineError, NamespaceState, State, vnc};

/// VMs in one launch.
const LAUNCH_LIMIT: u64 = 100_000;

/// How long QEMU may take until it answers on QMP; it is far less on an idle machine.
const QMP_DEADLINE: Duration = Duration::from_secs(60);

/// The file in a VM's folder that takes QEMU's output.
pub(super) const LOG: &str = "qemu.log";

impl Engine {
    /// Launch VMs: `names` is a name, a range or a count. Every name and UUID is checked before anything is made. A QEMU
    /// that fails leaves its VM in the error state; the others are launched, and the answer is the errors. Where the
    /// namespace queues launches, this one is queued and nothing is made.
    pub async fn launch(
        self: &Arc<Self>,
        namespace: &Namespace,
        names: &str,
        config: VmConfig,
    ) -> Result<(), EngineError> {
        if self.enqueue(namespace, names, &config)? {
            return Ok(());
        }
        let taps = self.tap_tags().await?;
        let launch = {
            let mut state = self.state();
            let names = state.claim(namespace, names, &config)?;
            state.enter_launch(self, namespace, &[Queued { names, config }], None, taps)?
        };
        self.carry_out(namespace, launch, Vec::new()).await
    }

    /// Queue a launch, if the namespace queues.
    fn enqueue(&self, namespace: &Namespace, names: &str, config: &VmConfig) -> Result<bool, EngineError> {
        let queued = {
            let mut state = self.state();
            if !state.namespaces.get(namespace).is_some_and(|entry| entry.scheduling.queueing()) {
                return Ok(false);
            }
            let names = state.claim(namespace, names, config)?;
            queue::check(namespace, config)?;
            let queued = Queued { names, config: config.clone() };
            state.namespaces.entry(namespace.clone()).or_default().scheduling.push(queued.clone());
            queued
        };
        if let Err(error) = self.save() {
            self.state().namespaces.entry(namespace.clone()).or_default().scheduling.remove(&queued);
            return Err(error);
        }
        Ok(true)
    }

    /// Launch everything that is queued, as the last dry-run placed it where there was one. Where a VM cannot be placed,
    /// has lost its name to another or cannot get its NICs, nothing is launched and the queue stays as it is.
    pub async fn launch_queue(self: &Arc<Self>, namespace: &Namespace) -> Result<(), EngineError> {
        let taps = self.tap_tags().await?;
        let (launch, queue) = {
            let mut state = self.state();
            let scheduling = &state.namespaces.entry(namespace.clone()).or_default().scheduling;
            let (queue, planned) = (scheduling.queue.clone(), scheduling.planned());
            if queue.is_empty() {
                return Err(QueueError::Empty.into());
            }
            let launch = state.enter_launch(self, namespace, &queue, planned.as_ref(), taps)?;
            state.namespaces.entry(namespace.clone()).or_default().scheduling.take();
            (launch, queue)
        };
        self.carry_out(namespace, launch, queue).await
    }

    /// Start the QEMUs of VMs that have been entered. If not even that they are there can be noted, they are forgotten and
    /// `queue` is put back.
    async fn carry_out(
        self: &Arc<Self>,
        namespace: &Namespace,
        launch: Launch,
        queue: Vec<Queued>,
    ) -> Result<(), EngineError> {
        if let Err(error) = self.save() {
            for (vm, _turn) in &launch.vms {
                vm.live().removed = true;
                self.forget(vm);
            }
            self.state().namespaces.entry(namespace.clone()).or_default().scheduling.restore(queue);
            return Err(error);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (vm, turn) in launch.vms {
            let (engine, running) = (Arc::clone(self), Arc::clone(&launch.running));
            tasks.spawn(async move {
                let _turn = turn;
                let started = engine.start_qemu(&vm).await;
                running.ended(started.is_ok());
                started.map_err(|error| (vm.id, error))
            });
        }
        let mut errors: Vec<_> = tasks.join_all().await.into_iter().filter_map(Result::err).collect();
        errors.sort_by_key(|(id, _)| *id);
        EngineError::collect(errors.into_iter().map(|(_, error)| error).collect())
    }

    /// The accelerator that VMs run under: `kvm` or `tcg`, and why.
    pub async fn accelerator(&self) -> (String, String) {
        match self.options.accelerator {
            Accelerator::Kvm => ("kvm".to_owned(), "asked for".to_owned()),
            Accelerator::Tcg => ("tcg".to_owned(), "asked for".to_owned()),
            Accelerator::Auto => self
                .probed
                .get_or_init(async || {
                    let qemu = self.options.qemu.clone();
                    let probe = tokio::task::spawn_blocking(move || accelerator::probe(&qemu))
                        .await
                        .expect("the probe does not panic");
                    tracing::info!(accelerator = %probe.accelerator, reason = %probe.reason, "accelerator");
                    (probe.accelerator.to_string(), probe.reason)
                })
                .await
                .clone(),
        }
    }

    /// Make a VM's taps and start its QEMU, paused. The caller has the VM's turn. On failure nothing is left but the VM,
    /// in the error state; one that was killed meanwhile has quit.
    pub(super) async fn start_qemu(self: &Arc<Self>, vm: &Arc<Vm>) -> Result<(), EngineError> {
        // The watch over an earlier QEMU may be about to say that it has ended.
        vm.settled().await;
        {
            let mut live = vm.live();
            live.state = VmState::Building;
            live.error = None;
            live.ending = false;
        }
        vm.ended.send_replace(Ended::No);
        match self.try_start_qemu(vm).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let (state, message) = match &error {
                    EngineError::Killed { .. } => (VmState::Quit, None),
                    EngineError::Qemu { message, .. } => (VmState::Error, Some(message.clone())),
                    other => (VmState::Error, Some(other.chain())),
                };
                // The first error is the one to report; what cannot be undone is found by recovery.
                let _ = self.delete_vm_taps(vm).await;
                {
                    let mut live = vm.live();
                    live.state = state;
                    live.error = message;
                    live.qmp = None;
                    live.vnc = None;
                }
                let _ = vm.save();
                vm.ended.send_replace(Ended::Done);
                let _ = self.release_network().await;
                Err(error)
            }
        }
    }

    async fn try_start_qemu(self: &Arc<Self>, vm: &Arc<Vm>) -> Result<(), EngineError> {
        make_folder(&vm.folder)?;
        vm.save()?;
        let (accelerator, _) = self.accelerator().await;
        let killed = || EngineError::Killed { name: vm.name.to_string() };
        let _permit = tokio::select! {
            biased;
            () = vm.kill_wanted() => return Err(killed()),
            permit = self.starting.acquire() => permit.expect("the semaphore is never closed"),
        };
        self.create_vm_taps(vm).await?;
        let network = self.network(|network| network.enter()).await?;
        let program = match vm.config.text("qemu").as_str() {
            "" | "kvm" => self.options.qemu.clone(),
            other => other.to_owned(),
        };
        let nics = vm.live().nics.clone();
        let files = self.options.base.join("files");
        let args = Guest {
            name: vm.name.as_str(),
            uuid: &vm.uuid.to_string(),
            accelerator: &accelerator,
            config: &vm.config,
            nics: &nics,
            files: &files.to_string_lossy(),
        }
        .arguments();
        for stale in ["qmp", "vnc", "qemu.pid"] {
            let _ = std::fs::remove_file(vm.folder.join(stale));
        }
        let spawn =
            Spawn { program: program.clone(), args, folder: vm.folder.clone(), output: vm.folder.join(LOG), network };
        let started = tokio::task::spawn_blocking(move || process::spawn(&spawn))
            .await
            .expect("starting a process does not panic");
        let id = match started {
            Ok(id) => id,
            Err(error) => {
                let hint = if program.starts_with("qemu-system") { " (Debian package qemu-system-x86)" } else { "" };
                let message = format!("cannot start {program}{hint}: {}", EngineError::from(error).chain());
                return Err(EngineError::Qemu { name: vm.name.to_string(), message });
            }
        };
        vm.live().process = Some(id);
        let attached = match vm.save() {
            Ok(()) => self.attach(vm, id).await,
            Err(error) => Err(error),
        };
        if attached.is_err() {
            // One that has ended already needs no signal. It never ran a guest, so that it has nothing to close.
            match process::signal(id, nix::sys::signal::Signal::SIGKILL) {
                Ok(()) => drop(process::wait_exit(id).await),
                Err(error) => tracing::warn!(vm = %vm.name, %error, "a QEMU that failed to start is left"),
            }
        }
        attached
    }

    /// Connect to a QEMU that was just started, and watch it. On failure it may still run.
    async fn attach(self: &Arc<Self>, vm: &Arc<Vm>, id: ProcessId) -> Result<(), EngineError> {
        let socket = vm.folder.join("qmp");
        let connect = async {
            loop {
                if socket.exists()
                    && let Ok(connected) = Qmp::connect(&socket, QMP_DEADLINE).await
                {
                    return connected;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let failed = |message: String| EngineError::Qemu { name: vm.name.to_string(), message };
        let (qmp, events) = tokio::select! {
            connected = connect => connected,
            exit = process::wait_exit(id) => {
                let exit = exit?;
                return Err(failed(failure(vm, exit.map(|status| status.to_string()))));
            }
            () = vm.kill_wanted() => return Err(EngineError::Killed { name: vm.name.to_string() }),
            () = tokio::time::sleep(QMP_DEADLINE) => {
                return Err(failed(format!("QEMU did not answer on QMP within {} s", QMP_DEADLINE.as_secs())));
            }
        };
        self.open_display(vm).await;
        vm.live().qmp = Some(qmp);
        self.watch(Arc::clone(vm), id, events);
        Ok(())
    }

    /// Open the TCP port of a VM's display. A VM without one is still a VM: the failure is logged.
    pub(super) async fn open_display(&self, vm: &Vm) {
        match vnc::Shim::open(vm.folder.join("vnc")).await {
            Ok(shim) => vm.live().vnc = Some(shim),
            Err(error) => tracing::warn!(vm = %vm.name, %error, "no port for the display"),
        }
    }
}

/// VMs that have been entered as building, each with its first turn.
struct Launch {
    vms: Vec<(Arc<Vm>, Turn)>,
    running: Arc<Running>,
}

impl State {
    /// The names that a launch means, checked with its UUID against what is launched and what is queued.
    fn claim(&self, namespace: &Namespace, names: &str, config: &VmConfig) -> Result<Vec<VmName>, EngineError> {
        let empty = NamespaceState::default();
        let entry = self.namespaces.get(namespace).unwrap_or(&empty);
        let queued: HashSet<&VmName> = entry.scheduling.names().collect();
        let names: Vec<VmName> = match names.parse::<i64>() {
            Ok(count) if count <= 0 => return Err(EngineError::LaunchCount),
            Ok(count) if count.unsigned_abs() > LAUNCH_LIMIT => {
                return Err(EngineError::LaunchLimit { count: count.unsigned_abs(), limit: LAUNCH_LIMIT });
            }
            Ok(count) => (0u64..)
                .map(|n| VmName::new(&format!("vm-{n}")).expect("vm-N is a VM name"))
                .filter(|name| !entry.names.contains_key(name) && !queued.contains(name))
                .take(usize::try_from(count).expect("below the limit"))
                .collect(),
            Err(_) => {
                let mut seen = HashSet::new();
                let mut list = Vec::new();
                for name in range::expand(names)? {
                    if !seen.insert(name.clone()) {
                        return Err(EngineError::LaunchTwice { name });
                    }
                    list.push(VmName::new(&name)?);
                }
                list
            }
        };
        if names.is_empty() {
            return Err(EngineError::LaunchNothing);
        }
        if let Some(name) = names.iter().find(|name| queued.contains(*name)) {
            return Err(QueueError::NameQueued { name: name.clone() }.into());
        }
        self.free(namespace, &names, config)?;
        let uuid = config.text("uuid");
        if !uuid.is_empty() {
            self.uuid_queued(&uuid)?;
        }
        Ok(names)
    }

    /// Are the names and the UUID of a launch free of launched VMs?
    fn free(&self, namespace: &Namespace, names: &[VmName], config: &VmConfig) -> Result<(), EngineError> {
        if let Some(entry) = self.namespaces.get(namespace)
            && let Some(name) = names.iter().find(|name| entry.names.contains_key(*name))
        {
            return Err(EngineError::VmExists { name: name.to_string() });
        }
        let uuid = config.text("uuid");
        if !uuid.is_empty() {
            if names.len() > 1 {
                return Err(EngineError::UuidShared { uuid, count: names.len() });
            }
            if self.namespaces.values().flat_map(|n| n.vms.values()).any(|vm| vm.uuid.to_string() == uuid) {
                return Err(EngineError::UuidExists { uuid });
            }
        }
        Ok(())
    }

    /// Place VMs and enter them as building. On failure nothing has changed.
    fn enter_launch(
        &mut self,
        engine: &Engine,
        namespace: &Namespace,
        launch: &[Queued],
        planned: Option<&BTreeMap<VmName, String>>,
        mut taken: BTreeSet<VlanTag>,
    ) -> Result<Launch, EngineError> {
        for queued in launch {
            self.free(namespace, &queued.names, &queued.config)?;
        }
        let mut hosts: Vec<String> =
            self.place(namespace, launch, planned, engine.host())?.into_iter().map(|(_, host)| host).collect();
        let total = hosts.len();
        hosts.sort_unstable();
        hosts.dedup();
        taken.extend(self.tags_in_use());
        let mut macs = self.macs();
        let before = (self.vlans.clone(), self.next_vm, self.next_tap);
        let mut vms = Vec::new();
        for (name, config) in launch.iter().flat_map(|q| q.names.iter().map(move |name| (name, &q.config))) {
            let nics = match self.nics(namespace, name, config, &taken, &mut macs) {
                Ok(nics) => nics,
                Err(error) => {
                    (self.vlans, self.next_vm, self.next_tap) = before;
                    return Err(error);
                }
            };
            let id = self.next_vm;
            self.next_vm += 1;
            let uuid = uuid::Uuid::try_parse(&config.text("uuid")).unwrap_or_else(|_| uuid::Uuid::new_v4());
            let base = &engine.options.base;
            let vm = Vm::new(id, name.clone(), namespace.clone(), uuid, config.clone(), nics, base);
            let turn = vm.first_turn();
            vms.push((Arc::new(vm), turn));
        }
        let entry = self.namespaces.entry(namespace.clone()).or_default();
        for (vm, _) in &vms {
            entry.names.insert(vm.name.clone(), vm.id);
            entry.vms.insert(vm.id, Arc::clone(vm));
        }
        let running = Arc::new(entry.scheduling.begin(total, hosts.len()));
        Ok(Launch { vms, running })
    }
}

/// Make a VM's folder, mode 0700.
fn make_folder(path: &std::path::Path) -> Result<(), EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.join(RECORD).exists() => Ok(()),
        Err(source) => Err(EngineError::File { action: "create", path: path.to_owned(), source }),
    }
}

/// What QEMU said before it ended: its own lines, without its program name, warnings only if there is nothing else.
pub(super) fn failure(vm: &Vm, status: Option<String>) -> String {
    let text = std::fs::read(vm.folder.join(LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| line.split_once(": ").filter(|(p, _)| p.contains("qemu-system")).map_or(line, |(_, rest)| rest))
        .collect();
    let grave: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with("warning:")).collect();
    let said = if grave.is_empty() { lines } else { grave }.join("; ");
    match (said.is_empty(), status) {
        (false, _) => said,
        (true, Some(status)) => format!("QEMU ended without a message ({status})"),
        (true, None) => "QEMU ended without a message".to_owned(),
    }
}
