//! What a restarted daemon does: adopt the VMs that run, note those that ended, end what was left half-made.
//!
//! Three sources are compared: the VMs' records, the processes whose working folder is a VM's folder, and the taps that
//! the kernel has. Processes and taps are the truth; a record only says what they were meant to be.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::linux::process;
use crate::host::{Port, ProcessId};
use crate::name::TapName;
use crate::qmp::Qmp;

use super::kvm::{BACKCHANNEL, QMP_ARGUMENT};
use super::launch::LOG;
use super::serial::is_log;
use super::taps::read_owner;
use super::vm::{Ended, RECORD, Record, Vm, VmState};
use super::{Engine, EngineError, store};

/// How long an adopted QEMU may take to answer.
const ADOPT_DEADLINE: Duration = Duration::from_secs(10);

impl Engine {
    /// Compare records, processes and taps, and enter what is found. Says in words what it did.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<Vec<String>, EngineError> {
        let mut notes = Vec::new();
        let base = self.options.base.clone();
        let files = base.join("files");
        if !files.exists() {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().mode(0o700).create(&files).map_err(|source| EngineError::File {
                action: "create",
                path: files,
                source,
            })?;
        }
        let ports = self.ports().await?;
        let mut kept: BTreeSet<TapName> = BTreeSet::new();
        let found = vm_folders(&base)?;
        let mut processes: HashMap<PathBuf, Vec<ProcessId>> = HashMap::new();
        for (id, folder, arguments) in process::processes_under(&base) {
            // Somebody may have a shell or a pager open there. Those are not ours.
            if found.iter().any(|(_, path)| *path == folder) && is_qemu(&arguments) {
                processes.entry(folder).or_default().push(id);
            }
        }

        for (number, folder) in found {
            let record: Option<Record> = match store::read::<Record>(&folder.join(RECORD)) {
                Ok(Some(record)) if record.id != number => {
                    notes.push(format!("the record in {} is that of VM {}", folder.display(), record.id));
                    None
                }
                Ok(record) => record,
                Err(error) => {
                    notes.push(format!("{}; its VM is ended", error.chain()));
                    None
                }
            };
            let running = processes.remove(&folder).unwrap_or_default();
            let Some(record) = record else {
                notes.extend(end(&running, "a QEMU without a record").await);
                if holds_a_vm(&folder)? {
                    remove(&folder)?;
                } else {
                    notes.push(format!("{} is no VM's folder and stays", folder.display()));
                    let mut state = self.state();
                    state.next_vm = state.next_vm.max(number.saturating_add(1));
                }
                continue;
            };
            let never_started = record.process.is_none();
            let was_alive = record.alive;
            let vm = Arc::new(Vm::from_record(record, &base));
            let adopted = match running.as_slice() {
                [] => false,
                [id, rest @ ..] => {
                    notes.extend(end(rest, "a second QEMU of one VM").await);
                    let adopted = self.adopt(&vm, *id, &ports).await;
                    if !adopted {
                        notes.extend(end(&[*id], &format!("the QEMU of {}, which does not answer", vm.name)).await);
                    }
                    adopted
                }
            };
            if adopted {
                notes.push(format!("adopted {} of {} (pid {})", vm.name, vm.namespace, running[0].pid));
                if let Err(error) = self.shape_found_taps(&vm).await {
                    notes.push(format!("qos of {} of {}: {}", vm.name, vm.namespace, error.chain()));
                }
                kept.extend(vm.live().nics.iter().map(|nic| nic.tap.clone()));
            } else if never_started {
                notes.push(format!("{} of {} was not launched completely and is dropped", vm.name, vm.namespace));
                remove(&folder)?;
                continue;
            } else if was_alive {
                notes.push(format!("{} of {} ended meanwhile", vm.name, vm.namespace));
            }
            self.enter(&vm);
            vm.save()?;
        }
        let mut orphans = Vec::new();
        for port in ports {
            if port.owner.starts_with("nat ") || (port.owner.starts_with("vm ") && !kept.contains(&port.tap)) {
                // A gateway's foot is only here while it is half-made.
                orphans.push(port.tap);
            } else if let Some((namespace, dhcp)) = read_owner(&port.owner) {
                self.ensure_namespace(&namespace)?;
                if dhcp {
                    self.network(move |network| network.keep_lease(&port.tap)).await?;
                }
            }
        }
        self.network(move |network| network.delete_all(&orphans)).await?;
        self.recover_dnsmasq(&mut notes).await?;
        self.recover_nat(&mut notes).await?;
        notes.extend(self.restore_captures().await);
        notes.extend(self.restore_flows().await);
        self.save()?;
        self.release_network().await?;
        Ok(notes)
    }

    /// Connect to a QEMU that an earlier daemon started. False if it does not answer.
    async fn adopt(self: &Arc<Self>, vm: &Arc<Vm>, id: ProcessId, ports: &[Port]) -> bool {
        let Ok((qmp, events)) = Qmp::connect(&vm.folder.join("qmp"), ADOPT_DEADLINE).await else {
            return false;
        };
        let Ok(status) = qmp.execute("query-status", serde_json::json!({})).await else {
            return false;
        };
        {
            let mut live = vm.live();
            live.state = match status.get("status").and_then(|s| s.as_str()) {
                Some("running") => VmState::Running,
                Some("prelaunch") => VmState::Building,
                _ => VmState::Paused,
            };
            live.process = Some(id);
            live.error = None;
            live.qmp = Some(qmp);
            for (index, nic) in live.nics.iter_mut().enumerate() {
                let owner = vm.tap_owner(index);
                if let Some(port) = ports.iter().find(|port| port.tap == nic.tap && port.owner == owner) {
                    nic.vlan = port.segment.as_ref().map(|segment| segment.vlan);
                    if let Some(segment) = &port.segment {
                        nic.bridge = segment.bridge.clone();
                    }
                }
            }
        }
        super::cdrom::recover(vm, &self.options.base.join("files").to_string_lossy()).await;
        super::usb::recover(vm).await;
        vm.ended.send_replace(Ended::No);
        self.open_display(vm).await;
        self.watch(Arc::clone(vm), id, events);
        true
    }

    /// Put a VM into its namespace.
    fn enter(&self, vm: &Arc<Vm>) {
        let mut state = self.state();
        state.next_vm = state.next_vm.max(vm.id + 1);
        let last =
            vm.live().nics.iter().filter_map(|nic| nic.tap.as_str().strip_prefix("mega_tap")?.parse().ok()).max();
        if let Some(last) = last {
            let last: u32 = last;
            state.next_tap = state.next_tap.max(last + 1);
        }
        let entry = state.namespaces.entry(vm.namespace.clone()).or_default();
        entry.names.insert(vm.name.clone(), vm.id);
        entry.vms.insert(vm.id, Arc::clone(vm));
    }
}

/// The folders in the base folder that are named like those of VMs, by id.
fn vm_folders(base: &std::path::Path) -> Result<Vec<(u32, PathBuf)>, EngineError> {
    let error = |source| EngineError::File { action: "read", path: base.to_owned(), source };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(base).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        if let Some(id) = name.to_str().and_then(|n| n.parse::<u32>().ok())
            && name.to_str() == Some(&id.to_string())
            && entry.file_type().map_err(error)?.is_dir()
        {
            folders.push((id, entry.path()));
        }
    }
    folders.sort();
    Ok(folders)
}

/// Does a folder without a usable record hold only what a VM's folder holds? A base folder that was there before the
/// engine may have folders of its user with numbers for names.
fn holds_a_vm(folder: &std::path::Path) -> Result<bool, EngineError> {
    let error = |source| EngineError::File { action: "read", path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let name = entry.map_err(error)?.file_name();
        let name = name.to_string_lossy();
        let port = ["virtio-serial", "serial"].iter().find_map(|kind| name.strip_prefix(kind));
        let numbered = port.is_some_and(|number| number.parse::<u32>().is_ok());
        if !numbered
            && !is_log(&name)
            && ![RECORD, "vm.new", LOG, "qmp", "vnc", BACKCHANNEL, "qemu.pid"].contains(&&*name)
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Is it a QEMU of an engine, or the child of a daemon that is about to become one?
fn is_qemu(arguments: &[String]) -> bool {
    let child = || {
        let own = std::fs::read("/proc/self/cmdline").unwrap_or_default();
        let own = own.split(|byte| *byte == 0).next().map(String::from_utf8_lossy);
        // Both are `megaform … daemon …`.
        arguments.iter().any(|word| word == "daemon") && own.as_deref() == arguments.first().map(String::as_str)
    };
    arguments.iter().any(|word| word == QMP_ARGUMENT) || child()
}

fn remove(folder: &std::path::Path) -> Result<(), EngineError> {
    std::fs::remove_dir_all(folder).map_err(|source| EngineError::File {
        action: "remove",
        path: folder.to_owned(),
        source,
    })
}

/// End processes and say so.
async fn end(ids: &[ProcessId], what: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for id in ids {
        match process::signal(*id, Signal::SIGKILL) {
            Ok(()) => {
                let _ = process::wait_exit(*id).await;
                notes.push(format!("ended {what} (pid {})", id.pid));
            }
            Err(error) => notes.push(format!("cannot end {what} (pid {}): {error}", id.pid)),
        }
    }
    notes
}
