//! One VM: what it was launched with, its live state, and the record of it on disk.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::host::{ProcessId, Segment};
use crate::language::field::VmConfig;
use crate::name::{BridgeName, Mac, Namespace, Shape, TapName, VlanTag, VmName};
use crate::qmp::Qmp;

use super::EngineError;
use super::usb::UsbDisk;

/// The states of minimega's VMs; the numbers are those of `Data` records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmState {
    /// Launched, its guest never ran.
    Building = 1,
    /// Its guest runs.
    Running = 2,
    /// Its guest is stopped.
    Paused = 4,
    /// It ended.
    Quit = 8,
    /// It did not start, or QEMU failed.
    Error = 16,
}

impl VmState {
    /// As `vm info` prints it.
    pub fn word(self) -> &'static str {
        match self {
            VmState::Building => "BUILDING",
            VmState::Running => "RUNNING",
            VmState::Paused => "PAUSED",
            VmState::Quit => "QUIT",
            VmState::Error => "ERROR",
        }
    }

    /// Does it have a QEMU?
    pub fn has_process(self) -> bool {
        matches!(self, VmState::Building | VmState::Running | VmState::Paused)
    }
}

/// How far the end of a QEMU is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// It lives.
    No,
    /// The process is gone.
    Process,
    /// Its taps are gone too and the VM's state says so.
    Done,
}

/// One NIC of a launched VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its tap; the name stays while the VM is not running, the device does not.
    pub tap: TapName,
    /// Its address.
    pub mac: Mac,
    /// Its model.
    pub driver: String,
    /// Its bridge.
    pub bridge: BridgeName,
    /// Its VLAN; None while it is disconnected.
    pub vlan: Option<VlanTag>,
    /// The netspec that it was launched with.
    pub raw: String,
    /// The IPv4 address that its guest was last heard to use.
    #[serde(default)]
    pub ip4: Option<Ipv4Addr>,
    /// The IPv6 address that its guest was last heard to use; a link-local one only while there is no other.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// What happens to frames toward it.
    #[serde(default, skip_serializing_if = "Shape::is_none")]
    pub shape: Shape,
}

impl Nic {
    /// Where its tap is connected.
    pub fn segment(&self) -> Option<Segment> {
        self.vlan.map(|vlan| Segment { bridge: self.bridge.clone(), vlan })
    }
}

/// What is in a CD-ROM drive; while there is no QEMU, what will be in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// The image, as it was given; empty for none.
    pub image: String,
    /// What QEMU was told to put there, and has not said yet that it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What changes during a VM's life.
pub struct Live {
    /// Its state.
    pub state: VmState,
    /// Its QEMU, the last one where it has ended.
    pub process: Option<ProcessId>,
    /// Its NICs in order.
    pub nics: Vec<Nic>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What is in its CD-ROM drive.
    pub cdrom: Medium,
    /// Its USB disks, by number; while there is no QEMU, those that it will have.
    pub usb: Vec<UsbDisk>,
    /// How many USB disks it was ever given.
    pub usb_made: u32,
    /// Why it is in [`VmState::Error`].
    pub error: Option<String>,
    /// The connection to its QEMU.
    pub qmp: Option<Qmp>,
    /// The TCP port of its display on the loopback address.
    pub vnc: Option<super::vnc::Shim>,
    /// It is being ended on purpose, so that its exit is no failure.
    pub ending: bool,
    /// It was flushed: whoever still holds it holds no VM.
    pub removed: bool,
}

/// One VM. Held by its namespace and by the task that watches its QEMU.
pub struct Vm {
    /// Its number on this host.
    pub id: u32,
    /// Its name.
    pub name: VmName,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its UUID.
    pub uuid: uuid::Uuid,
    /// What it was launched with.
    pub config: VmConfig,
    /// When it was launched.
    pub launched: SystemTime,
    /// Its folder.
    pub folder: PathBuf,
    live: Mutex<Live>,
    /// Serializes launch, start, stop, kill, flush and NIC changes of this VM. A launch holds it from the moment the VM can
    /// be seen.
    operation: Arc<tokio::sync::Mutex<()>>,
    /// How far the end of its QEMU is dealt with.
    pub ended: tokio::sync::watch::Sender<Ended>,
    /// How many kills wait for their turn or have it. A start gives up for them.
    kills: tokio::sync::watch::Sender<u32>,
    /// Held while the record is written, so that an older one never replaces a newer one.
    writing: Mutex<()>,
}

/// The turn to change a VM.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

/// A kill that is wanted, until this is dropped.
pub struct KillWanted<'a>(&'a Vm);

impl Drop for KillWanted<'_> {
    fn drop(&mut self) {
        self.0.kills.send_modify(|kills| *kills -= 1);
    }
}

/// A VM as its folder remembers it (`vm.json`).
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its number, also the name of its folder.
    pub id: u32,
    name: VmName,
    namespace: Namespace,
    uuid: uuid::Uuid,
    config: VmConfig,
    launched: SystemTime,
    nics: Vec<Nic>,
    tags: BTreeMap<String, String>,
    /// None for what it was launched with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cdrom: Option<Medium>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    usb: Vec<UsbDisk>,
    #[serde(default)]
    usb_made: u32,
    /// None until QEMU was started for the first time.
    pub process: Option<ProcessId>,
    /// Was it alive or ended when the record was written?
    pub alive: bool,
    error: Option<String>,
}

/// The name of the record in a VM's folder.
pub const RECORD: &str = "vm.json";

impl Vm {
    /// Say in the log that it has entered a state.
    pub fn log_state(&self, state: VmState, error: Option<&str>) {
        let (namespace, vm, state) = (&self.namespace, &self.name, state.word());
        match error {
            None => tracing::info!(%namespace, %vm, state, "VM state"),
            Some(error) => tracing::error!(%namespace, %vm, state, error, "VM state"),
        }
    }

    /// A VM that is about to be launched.
    pub fn new(
        id: u32,
        name: VmName,
        namespace: Namespace,
        uuid: uuid::Uuid,
        config: VmConfig,
        nics: Vec<Nic>,
        base: &Path,
    ) -> Self {
        let tags = config.tags();
        let cdrom = launched_cdrom(&config);
        Self {
            id,
            name,
            namespace,
            uuid,
            config,
            launched: SystemTime::now(),
            folder: base.join(id.to_string()),
            live: Mutex::new(Live {
                state: VmState::Building,
                process: None,
                nics,
                tags,
                cdrom,
                usb: Vec::new(),
                usb_made: 0,
                error: None,
                qmp: None,
                vnc: None,
                ending: false,
                removed: false,
            }),
            operation: Arc::default(),
            ended: tokio::sync::watch::Sender::new(Ended::Done),
            kills: tokio::sync::watch::Sender::new(0),
            writing: Mutex::default(),
        }
    }

    /// The first turn, for whoever has just made the VM.
    pub fn first_turn(&self) -> Turn {
        Arc::clone(&self.operation).try_lock_owned().expect("nobody else knows a new VM")
    }

    /// Wait for the turn to change this VM. An error if it was flushed meanwhile.
    pub async fn turn(&self) -> Result<Turn, EngineError> {
        let turn = Arc::clone(&self.operation).lock_owned().await;
        if self.live().removed {
            return Err(EngineError::VmNotFound { target: self.name.to_string() });
        }
        Ok(turn)
    }

    /// Let whoever starts this VM give up.
    pub fn want_kill(&self) -> KillWanted<'_> {
        self.kills.send_modify(|kills| *kills += 1);
        KillWanted(self)
    }

    /// Returns as soon as a kill is wanted.
    pub async fn kill_wanted(&self) {
        // The sender is this VM's own, so that it is there as long as this waits.
        let _ = self.kills.subscribe().wait_for(|kills| *kills > 0).await;
    }

    /// Wait until the end of an earlier QEMU is dealt with; returns at once while there is none.
    pub async fn settled(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended == Ended::Done).await;
    }

    /// A VM from its record; it has no QEMU until recovery says so.
    pub fn from_record(record: Record, base: &Path) -> Self {
        let mut vm = Self::new(record.id, record.name, record.namespace, record.uuid, record.config, record.nics, base);
        vm.launched = record.launched;
        let live = vm.live.get_mut().expect("a new mutex is not poisoned");
        live.tags = record.tags;
        live.cdrom = record.cdrom.unwrap_or_else(|| launched_cdrom(&vm.config));
        live.usb = record.usb;
        live.usb_made = record.usb_made;
        live.process = record.process;
        live.state = if record.error.is_some() { VmState::Error } else { VmState::Quit };
        live.error = record.error;
        vm
    }

    /// Its live state. Never held across an await.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().expect("no code panics while it holds a VM's state")
    }

    /// Remove its folder for good. A VM that is removed is never written again.
    pub fn remove(&self) -> Result<(), EngineError> {
        let _writing = self.writing();
        match std::fs::remove_dir_all(&self.folder) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(EngineError::File { action: "remove", path: self.folder.clone(), source })
            }
            _ => {
                self.live().removed = true;
                Ok(())
            }
        }
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().expect("no code panics while it writes a record")
    }

    /// Write its record, so that a restarted daemon knows it. A VM that was flushed has none.
    pub fn save(&self) -> Result<(), EngineError> {
        let _writing = self.writing();
        let record = {
            let live = self.live();
            if live.removed {
                return Ok(());
            }
            Record {
                id: self.id,
                name: self.name.clone(),
                namespace: self.namespace.clone(),
                uuid: self.uuid,
                config: self.config.clone(),
                launched: self.launched,
                nics: live.nics.clone(),
                tags: live.tags.clone(),
                cdrom: Some(live.cdrom.clone()).filter(|cdrom| *cdrom != launched_cdrom(&self.config)),
                usb: live.usb.clone(),
                usb_made: live.usb_made,
                process: live.process,
                alive: live.state.has_process(),
                error: live.error.clone(),
            }
        };
        super::store::write(&self.folder.join(RECORD), &record)
    }

    /// The text that the kernel keeps with a NIC's tap.
    pub fn tap_owner(&self, index: usize) -> String {
        Self::nic_owner(self.uuid, index)
    }

    /// That text for a VM by its UUID.
    pub fn nic_owner(uuid: uuid::Uuid, index: usize) -> String {
        format!("vm {uuid} {index}")
    }
}

/// What is in the CD-ROM drive of a VM that was just launched.
fn launched_cdrom(config: &VmConfig) -> Medium {
    Medium { image: config.text("cdrom"), next: None }
}
