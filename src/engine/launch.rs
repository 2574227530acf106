//! Launching: what is to be launched is queued, or entered and then every QEMU started at once.

use std::sync::Arc;
use std::time::Duration;

use crate::host::linux::accelerator;
use crate::host::linux::process;
use crate::host::{ProcessId, Spawn};
use crate::language::field::VmConfig;
use crate::language::netspec::DEFAULT_DRIVER;
use crate::name::Namespace;
use crate::qmp::Qmp;

use super::claim::Launch;
use super::kvm::{BACKCHANNEL, Card, Guest, state_file};
use super::progress::outcomes;
use super::queue::{self, QueueError, Queued};
use super::vm::{Ended, RECORD, Vm, VmState};
use super::{Accelerator, Engine, EngineError, overrides, vnc};

/// How long QEMU may take until it answers on QMP; it is far less on an idle machine.
const QMP_DEADLINE: Duration = Duration::from_secs(60);

/// How often QEMU is asked whether it has read a saved state.
const INCOMING_POLL: Duration = Duration::from_millis(20);

/// How long a QEMU that no longer answers may take to end.
const EXIT_GRACE: Duration = Duration::from_secs(5);

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
        self.check_launch(&config).await?;
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
        let errors = outcomes(tasks, "launched").await;
        EngineError::collect(errors.into_iter().map(|(_, error)| error).collect())
    }

    /// Refuse a configuration that no VM can be launched with.
    async fn check_launch(&self, config: &VmConfig) -> Result<(), EngineError> {
        if !config.words("bonds").is_empty() {
            return Err(EngineError::Bonds);
        }
        if let Some(path) = state_file(&self.options.base.join("files"), config) {
            std::fs::metadata(&path).map_err(|source| EngineError::File { action: "read", path, source })?;
        }
        self.check_overrides(config).await
    }

    /// Refuse overrides that leave no command line.
    pub async fn check_overrides(&self, config: &VmConfig) -> Result<(), EngineError> {
        let overrides = config.overrides();
        if !overrides.is_empty() {
            overrides::apply(self.preview(config).await, &overrides)?;
        }
        Ok(())
    }

    /// QEMU's command line for the configuration of a namespace, before and after its overrides. What only a launch knows
    /// is a word in capitals: NAME, UUID, TAP0, MAC0.
    pub async fn command_line(&self, config: &VmConfig) -> (String, String) {
        let before = overrides::line(&self.preview(config).await);
        let after = overrides::replace(before.clone(), &config.overrides());
        (before, after)
    }

    /// QEMU's arguments as far as they are known before a launch.
    async fn preview(&self, config: &VmConfig) -> Vec<String> {
        let (accelerator, _) = self.accelerator().await;
        let nics = config.networks().into_iter().enumerate().map(|(index, nic)| Card {
            tap: format!("TAP{index}"),
            mac: nic.mac.map_or_else(|| format!("MAC{index}"), |mac| mac.to_string()),
            driver: nic.driver.unwrap_or_else(|| DEFAULT_DRIVER.to_owned()),
            plain_frames: false,
        });
        let uuid = config.text("uuid");
        Guest {
            name: "NAME",
            uuid: if uuid.is_empty() { "UUID" } else { &uuid },
            accelerator: &accelerator,
            config,
            nics: nics.collect(),
            cdrom: &config.text("cdrom"),
            usb: &[],
            files: &self.options.base.join("files").to_string_lossy(),
        }
        .arguments()
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
            live.cdrom.next = None;
        }
        vm.ended.send_replace(Ended::No);
        match self.try_start_qemu(vm).await {
            Ok(()) => {
                vm.log_state(VmState::Building, None);
                Ok(())
            }
            Err(error) => {
                let (state, message) = match &error {
                    EngineError::Killed { .. } => (VmState::Quit, None),
                    EngineError::Qemu { message, .. } => (VmState::Error, Some(message.clone())),
                    other => (VmState::Error, Some(other.chain())),
                };
                vm.log_state(state, message.as_deref());
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
        // Whoever waits for a text must not find what an earlier run wrote.
        Self::forget_serial(vm)?;
        vm.save()?;
        let (accelerator, _) = self.accelerator().await;
        let killed = || EngineError::Killed { name: vm.name.to_string() };
        let _permit = tokio::select! {
            biased;
            () = vm.kill_wanted() => return Err(killed()),
            permit = self.starting.acquire() => permit.expect("the semaphore is never closed"),
        };
        self.create_vm_taps(vm).await?;
        self.shape_new_taps(vm).await?;
        let network = self.network(|network| network.enter()).await?;
        let plain_frames = self.network(|network| network.plain_frames()).await?;
        let program = match vm.config.text("qemu").as_str() {
            "" | "kvm" => self.options.qemu.clone(),
            other => other.to_owned(),
        };
        let nics = vm.live().nics.iter().map(|nic| Card::new(nic, plain_frames)).collect();
        let files = self.options.base.join("files");
        let (cdrom, usb) = {
            let live = vm.live();
            (live.cdrom.image.clone(), live.usb.clone())
        };
        let args = Guest {
            name: vm.name.as_str(),
            uuid: &vm.uuid.to_string(),
            accelerator: &accelerator,
            config: &vm.config,
            nics,
            cdrom: &cdrom,
            usb: &usb,
            files: &files.to_string_lossy(),
        }
        .arguments();
        let args = overrides::apply(args, &vm.config.overrides())?;
        for stale in ["qmp", "vnc", BACKCHANNEL, "qemu.pid"] {
            let _ = std::fs::remove_file(vm.folder.join(stale));
        }
        let spawn = Spawn {
            program: program.clone(),
            args,
            folder: vm.folder.clone(),
            output: vm.folder.join(LOG),
            environment: Vec::new(),
            network,
        };
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
        let ready = async {
            let Ok((qmp, events)) = tokio::time::timeout(QMP_DEADLINE, connect).await else {
                return Err(failed(format!("QEMU did not answer on QMP within {} s", QMP_DEADLINE.as_secs())));
            };
            if !vm.config.text("migrate").is_empty() {
                incoming(vm, &qmp).await?;
            }
            Ok((qmp, events))
        };
        let (qmp, events) = tokio::select! {
            ready = ready => ready?,
            exit = process::wait_exit(id) => {
                let exit = exit?;
                return Err(failed(failure(vm, exit.map(|status| status.to_string()))));
            }
            () = vm.kill_wanted() => return Err(EngineError::Killed { name: vm.name.to_string() }),
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

/// Wait until QEMU has read a saved state; that takes as long as the state is large. A QEMU that cannot use it ends.
async fn incoming(vm: &Vm, qmp: &Qmp) -> Result<(), EngineError> {
    let name = || vm.name.to_string();
    loop {
        match qmp.execute("query-migrate", serde_json::json!({})).await {
            Ok(answer) => match answer.get("status").and_then(|status| status.as_str()) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let reason = answer.get("error-desc").and_then(|text| text.as_str()).unwrap_or("no reason given");
                    let message = format!("QEMU could not read the saved state: {reason}");
                    return Err(EngineError::Qemu { name: name(), message });
                }
                _ => tokio::time::sleep(INCOMING_POLL).await,
            },
            Err(source) => {
                // It is about to end, and its exit tells more.
                tokio::time::sleep(EXIT_GRACE).await;
                return Err(EngineError::Qmp { name: name(), source });
            }
        }
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

/// What to do about a saved state that has the USB controller of builds before USB disks could be added.
const OTHER_USB: &str = "the saved state is of a VM with another USB controller; if an earlier build of megaform saved it, \
    `vm config qemu-override \",p2=15,p3=4\" \"\"` launches the VM with the controller of then";

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
        (false, _) if said.contains("load of migration failed") && said.contains("/xhci") => {
            format!("{said}; {OTHER_USB}")
        }
        (false, _) => said,
        (true, Some(status)) => format!("QEMU ended without a message ({status})"),
        (true, None) => "QEMU ended without a message".to_owned(),
    }
}
