//! Start, stop, kill and flush; and the watch over a running QEMU.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::host::ProcessId;
use crate::host::linux::{memory, process};
use crate::name::Namespace;
use crate::qmp::{Event, Qmp};

use super::launch::failure;
use super::progress::outcomes;
use super::target::Targets;
use super::vm::{Ended, Nic, Vm, VmState};
use super::{Engine, EngineError};

/// How long a QEMU may take to end by itself before it is made to.
const GRACE: Duration = Duration::from_secs(5);

/// How long the kernel may take to end a process that it was told to end.
const KERNEL: Duration = Duration::from_secs(60);

impl Engine {
    /// Start VMs: those that are building or paused, and, where they are named, those that have quit or failed too.
    pub async fn start(self: &Arc<Self>, namespace: &Namespace, target: &str) -> Result<(), EngineError> {
        let targets = self.targets(namespace, target)?;
        let wildcard = targets.wildcard;
        self.each(targets, "started", move |engine, vm| async move {
            let _turn = vm.turn().await?;
            let state = vm.live().state;
            match state {
                VmState::Running => return Ok(()),
                VmState::Building | VmState::Paused => {}
                VmState::Quit | VmState::Error if wildcard => return Ok(()),
                VmState::Quit | VmState::Error => engine.start_qemu(&vm).await?,
            }
            execute(&vm, "cont").await?;
            enter(&vm, VmState::Running);
            vm.save()
        })
        .await
    }

    /// Pause VMs. A named one that does not run is an error.
    pub async fn stop(self: &Arc<Self>, namespace: &Namespace, target: &str) -> Result<(), EngineError> {
        let targets = self.targets(namespace, target)?;
        let wildcard = targets.wildcard;
        self.each(targets, "stopped", move |_, vm| async move {
            let _turn = vm.turn().await?;
            let state = vm.live().state;
            if state != VmState::Running {
                return if wildcard { Ok(()) } else { Err(EngineError::VmState { name: vm.name.to_string() }) };
            }
            execute(&vm, "stop").await?;
            enter(&vm, VmState::Paused);
            vm.save()
        })
        .await
    }

    /// End VMs. Those that have ended already are fine.
    pub async fn kill(self: &Arc<Self>, namespace: &Namespace, target: &str) -> Result<(), EngineError> {
        let vms = self.targets(namespace, target)?.vms;
        let mut errors = Vec::new();
        errors.extend(self.kill_all(&vms).await.err());
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors)
    }

    /// Discard VMs that have quit or failed; with a target, a named one that is alive is an error.
    pub async fn flush(self: &Arc<Self>, namespace: &Namespace, target: Option<&str>) -> Result<(), EngineError> {
        let vms = match target {
            None => self.vms(namespace),
            Some(target) => {
                let targets = self.targets(namespace, target)?;
                if !targets.wildcard
                    && let Some(vm) = targets.vms.iter().find(|vm| vm.live().state.has_process())
                {
                    let state = vm.live().state.word();
                    return Err(EngineError::VmAlive { name: vm.name.to_string(), state });
                }
                targets.vms
            }
        };
        self.flush_all(&vms).await
    }

    /// Do the same to many VMs at once and collect the errors.
    pub(super) async fn each<F, T>(
        self: &Arc<Self>,
        targets: Targets,
        done: &'static str,
        action: F,
    ) -> Result<(), EngineError>
    where
        F: Fn(Arc<Self>, Arc<Vm>) -> T,
        T: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let mut tasks = tokio::task::JoinSet::new();
        for vm in &targets.vms {
            let id = vm.id;
            let vm = Arc::clone(vm);
            let task = action(Arc::clone(self), vm);
            tasks.spawn(async move { task.await.map_err(|error| (id, error)) });
        }
        let errors = outcomes(tasks, done).await;
        EngineError::collect(errors.into_iter().map(|(_, error)| error).filter(|error| !targets.gone(error)).collect())
    }

    /// End VMs, all at once.
    pub(super) async fn kill_all(&self, vms: &[Arc<Vm>]) -> Result<(), EngineError> {
        let mut tasks = tokio::task::JoinSet::new();
        for vm in vms {
            let vm = Arc::clone(vm);
            tasks.spawn(async move { kill_one(&vm).await.map_err(|error| (vm.id, error)) });
        }
        let errors = outcomes(tasks, "ended").await;
        EngineError::collect(errors.into_iter().map(|(_, error)| error).collect())
    }

    /// Discard those VMs that have ended, with their folders.
    pub(super) async fn flush_all(&self, vms: &[Arc<Vm>]) -> Result<(), EngineError> {
        let mut errors = Vec::new();
        for vm in vms {
            // Looked at first, so that a launch that takes long is not waited for.
            if vm.live().state.has_process() {
                continue;
            }
            // Flushed by somebody else meanwhile.
            let Ok(_turn) = vm.turn().await else { continue };
            if vm.live().state.has_process() {
                continue;
            }
            vm.settled().await;
            match vm.remove() {
                Ok(()) => self.forget(vm),
                // It stays in the list, so that it can be tried again.
                Err(error) => errors.push(error),
            }
        }
        errors.extend(self.end_captures_of_flushed().await.err());
        errors.extend(self.release_network().await.err());
        if !vms.is_empty() {
            // Hundreds of VMs leave many small holes; an idle daemon should be small.
            tokio::task::spawn_blocking(memory::give_back);
        }
        EngineError::collect(errors)
    }

    /// Take a VM out of its namespace.
    pub(super) fn forget(&self, vm: &Vm) {
        let mut state = self.state();
        if let Some(entry) = state.namespaces.get_mut(&vm.namespace) {
            entry.vms.remove(&vm.id);
            entry.names.remove(&vm.name);
        }
    }

    /// Follow a QEMU's events until it ends, then enter that.
    pub(super) fn watch(self: &Arc<Self>, vm: Arc<Vm>, id: ProcessId, mut events: mpsc::Receiver<Event>) {
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            let exit = end_of(&vm, id);
            tokio::pin!(exit);
            let status = loop {
                tokio::select! {
                    biased;
                    status = &mut exit => break status,
                    event = events.recv() => match event {
                        Some(event) => follow(&vm, &event),
                        // QEMU closes QMP on its way out.
                        None => break exit.await,
                    },
                }
            };
            vm.ended.send_replace(Ended::Process);
            if let Err(error) = engine.delete_vm_taps(&vm).await {
                tracing::warn!(vm = %vm.name, error = %error.chain(), "taps of an ended VM are left");
            }
            let clean = vm.live().ending || status.is_none_or(|status| status.success());
            let error = (!clean).then(|| failure(&vm, status.map(|status| status.to_string())));
            let state = if clean { VmState::Quit } else { VmState::Error };
            vm.log_state(state, error.as_deref());
            {
                let mut live = vm.live();
                live.state = state;
                live.error = error;
                live.nics.iter_mut().for_each(Nic::forget_addresses);
                live.qmp = None;
                live.vnc = None;
            }
            if let Err(error) = vm.save() {
                tracing::warn!(vm = %vm.name, error = %error.chain(), "the VM's record is stale");
            }
            vm.ended.send_replace(Ended::Done);
            if let Err(error) = engine.release_network().await {
                tracing::warn!(error = %error.chain(), "the network namespace is left");
            }
        });
    }

    /// Pass a QMP command through and give QEMU's answer as one line of JSON.
    pub async fn qmp(&self, namespace: &Namespace, name: &str, command: &str) -> Result<String, EngineError> {
        let vm = self.vm(namespace, name)?;
        let qmp = connection(&vm)?;
        qmp.raw(command).await.map_err(|source| EngineError::Qmp { name: vm.name.to_string(), source })
    }
}

/// The state that an event tells of. Building and ended VMs are none of its business.
fn follow(vm: &Vm, event: &Event) {
    let state = match (event.name.as_str(), vm.live().state) {
        ("STOP", VmState::Running) => VmState::Paused,
        ("RESUME", VmState::Paused | VmState::Building) => VmState::Running,
        _ => return,
    };
    enter(vm, state);
}

/// Enter a state that a command or an event brought about, unless QEMU ended meanwhile.
fn enter(vm: &Vm, state: VmState) {
    {
        let mut live = vm.live();
        if !live.state.has_process() || live.state == state {
            return;
        }
        live.state = state;
    }
    vm.log_state(state, None);
}

fn connection(vm: &Vm) -> Result<Qmp, EngineError> {
    vm.live().qmp.clone().ok_or_else(|| EngineError::VmState { name: vm.name.to_string() })
}

/// Run one QMP command without arguments.
pub(super) async fn execute(vm: &Vm, command: &str) -> Result<Value, EngineError> {
    execute_with(vm, command, json!({})).await
}

/// Run one QMP command. A kill does not wait for a QEMU that does not answer.
pub(super) async fn execute_with(vm: &Vm, command: &str, arguments: Value) -> Result<Value, EngineError> {
    let qmp = connection(vm)?;
    tokio::select! {
        answer = qmp.execute(command, arguments) => {
            answer.map_err(|source| EngineError::Qmp { name: vm.name.to_string(), source })
        }
        () = vm.kill_wanted() => Err(EngineError::Killed { name: vm.name.to_string() }),
    }
}

/// Wait for the end of a QEMU. That it cannot be watched (no descriptor is free) does not mean that it has ended.
async fn end_of(vm: &Vm, id: ProcessId) -> Option<std::process::ExitStatus> {
    loop {
        match process::wait_exit(id).await {
            Ok(status) => return status,
            Err(error) => tracing::warn!(vm = %vm.name, error = %EngineError::from(error).chain(), "cannot watch QEMU"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn kill_one(vm: &Vm) -> Result<(), EngineError> {
    // Before the turn, so that a launch or a start that has the turn gives it up.
    let _wanted = vm.want_kill();
    // Flushed meanwhile: it had ended.
    let Ok(_turn) = vm.turn().await else { return Ok(()) };
    let id = {
        let mut live = vm.live();
        if !live.state.has_process() {
            return Ok(());
        }
        live.ending = true;
        live.process
    };
    let Some(id) = id else { return Ok(()) };
    let mut ended = vm.ended.subscribe();
    process::signal(id, Signal::SIGTERM)?;
    if tokio::time::timeout(GRACE, ended.wait_for(|ended| *ended >= Ended::Process)).await.is_err() {
        process::signal(id, Signal::SIGKILL)?;
    }
    match tokio::time::timeout(KERNEL, ended.wait_for(|ended| *ended == Ended::Done)).await {
        Ok(_) => Ok(()),
        // A process in the middle of I/O goes when that ends; there is nothing more to send.
        Err(_) => Err(EngineError::Qemu {
            name: vm.name.to_string(),
            message: format!("QEMU (pid {}) has not ended {} s after SIGKILL", id.pid, KERNEL.as_secs()),
        }),
    }
}
