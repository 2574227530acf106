//! The host engine: namespaces, VMs, VLANs, taps, and what survives a restart of the daemon.
//!
//! Must not know the command language's text, the socket or how an answer is rendered; `commands` calls it with parsed
//! values and gets values back.
//!
//! Locking: `State` sits behind one mutex that is never held across an await; every VM has a lock of its own for
//! operations that take time, so that a slow VM delays nobody else.

mod background;
mod bonds;
mod captures;
mod cdrom;
mod check;
mod claim;
mod detached;
pub mod diagnosis;
mod dnsmasq;
mod error;
mod fetch;
mod files;
mod hoststats;
mod hotplug;
mod info;
mod kvm;
mod launch;
mod learning;
mod lifecycle;
mod macs;
mod media;
mod mesh;
mod namespaces;
mod nat;
mod netflow;
mod nics;
mod overrides;
pub mod plumb;
mod programs;
mod progress;
mod qos;
mod queue;
mod recovery;
mod schedule;
mod serial;
mod shell;
mod store;
mod switching;
mod tags;
mod taps;
mod target;
mod usb;
mod vlans;
mod vm;
mod vnc;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use crate::host::{Bond, BondMode, Lacp, Tunnel, TunnelKind};
use crate::host::{Network, Port};
use crate::language::field::VmConfig;
use crate::name::{Namespace, TapName, VmName};

pub use background::{BackgroundError, BackgroundInfo, BackgroundOutput};
pub use bonds::BondRequest;
pub use captures::{CaptureError, CaptureInfo, CaptureRequest, CaptureTarget, PcapSettings};
pub use cdrom::CdromError;
pub use check::Checked;
pub use dnsmasq::{DnsmasqChange, DnsmasqError, DnsmasqInfo, DnsmasqList};
pub use error::EngineError;
pub use fetch::{FetchError, FetchRow};
pub use files::{FileRow, Files, FilesError};
pub use hoststats::HostStats;
pub use info::{INFO_COLUMNS, InfoRow, SUMMARY_COLUMNS, go_duration};
pub use media::MediaError;
pub use mesh::{Mesh, MeshError};
pub use namespaces::NamespaceInfo;
pub use nat::{NatError, NatInfo};
pub use netflow::{FlowInfo, FlowMode, FlowSettings, FlowSink};
pub use overrides::OverrideError;
pub use programs::exit_text;
pub use progress::{Progress, report};
pub use qos::Qos;
pub use queue::{QueueError, Queued, Schedule};
pub use schedule::{Load, ScheduleError};
pub use serial::{SerialError, SerialRow};
pub use store::STATE as STATE_FILE;
pub use switching::MirrorsTo;
pub use taps::{TapAddress, TapInfo, TapRequest};
pub use usb::{UsbDisk, UsbError, UsbRequest, UsbVersion};
pub use vlans::{Range, VlanError, VlanRow, VlanText, Vlans};
pub use vm::{Vm, VmState};

/// How long [`Engine::close`] waits for programs: twice what they have between SIGTERM and SIGKILL, and some more.
const CLOSE_LIMIT: Duration = Duration::from_secs(6);

/// Which accelerator VMs run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accelerator {
    /// KVM where ordinary guests run under it, else TCG.
    Auto,
    /// KVM, without asking.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

/// How an engine is set up.
pub struct Options {
    /// The folder of the socket, the VMs and the state; it exists and belongs to this engine alone.
    pub base: PathBuf,
    /// The name of this host in answers.
    pub host: String,
    /// Which accelerator VMs run under.
    pub accelerator: Accelerator,
    /// The QEMU program that `vm config qemu kvm` stands for.
    pub qemu: String,
    /// The network that taps are made in.
    pub network: Arc<dyn Network>,
}

/// One namespace's VMs and configuration.
#[derive(Default)]
struct NamespaceState {
    config: VmConfig,
    saved: BTreeMap<String, VmConfig>,
    vms: BTreeMap<u32, Arc<Vm>>,
    names: HashMap<VmName, u32>,
    scheduling: queue::Scheduling,
}

/// Everything that commands share. Never held across an await.
struct State {
    active: Namespace,
    namespaces: BTreeMap<Namespace, NamespaceState>,
    vlans: Vlans,
    next_vm: u32,
    next_tap: u32,
    captures: captures::Captures,
    flows: netflow::Flows,
}

/// The engine of one host.
pub struct Engine {
    options: Options,
    /// Begins the owner text of every tap of this engine, so that engines that share a network tell theirs apart.
    identity: String,
    state: Mutex<State>,
    /// The accelerator that `auto` stands for, found at the first launch.
    probed: tokio::sync::OnceCell<(String, String)>,
    /// How many QEMUs start at once.
    starting: tokio::sync::Semaphore,
    /// Taps of VMs that have ended, to be deleted together.
    doomed: Mutex<Vec<TapName>>,
    /// The turn to delete them.
    deleting: tokio::sync::Mutex<()>,
    tap_requests: taps::Together<taps::TapRequested>,
    tap_deletions: taps::Together<taps::Deletion>,
    mesh: Mutex<Mesh>,
    network_users: programs::NetworkUsers,
    plumbing: plumb::Plumbing,
    background: background::Background,
    dnsmasq: dnsmasq::Dnsmasq,
    learned: learning::Learned,
    nat: nat::Nat,
    shells: shell::Shells,
    files: Files,
    captures: captures::Running,
    flows: netflow::Running,
}

impl Engine {
    /// Open the engine on its base folder: read what an earlier daemon left, adopt its running VMs, end what it left
    /// half-made. The second value says in words what was found, for the log.
    pub async fn open(options: Options) -> Result<(Arc<Self>, Vec<String>), EngineError> {
        let parallel = std::thread::available_parallelism().map_or(2, usize::from);
        let stored = store::load(&options.base)?;
        let identity = Self::identity(&options.base);
        let files = Files::new(options.base.join("files"));
        let engine = Arc::new(Self {
            files,
            options,
            identity,
            state: Mutex::new(stored),
            probed: tokio::sync::OnceCell::new(),
            starting: tokio::sync::Semaphore::new((parallel * 4).max(8)),
            doomed: Mutex::default(),
            deleting: tokio::sync::Mutex::default(),
            tap_requests: Default::default(),
            tap_deletions: Default::default(),
            mesh: Mutex::default(),
            network_users: Default::default(),
            plumbing: Default::default(),
            background: Default::default(),
            dnsmasq: Default::default(),
            learned: Default::default(),
            nat: Default::default(),
            shells: Default::default(),
            captures: Default::default(),
            flows: Default::default(),
        });
        engine.start_learning();
        let notes = engine.recover().await?;
        engine.start_trimming();
        Ok((engine, notes))
    }

    /// What the owner text of every tap of the engine on a base folder begins with.
    pub fn identity(base: &Path) -> String {
        let digest = Sha256::digest(base.as_os_str().as_encoded_bytes());
        digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The name of this host in answers.
    pub fn host(&self) -> &str {
        &self.options.host
    }

    /// The base folder.
    pub fn base(&self) -> &Path {
        &self.options.base
    }

    /// The files folder.
    pub fn files(&self) -> &Files {
        &self.files
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the engine's state")
    }

    /// Run a blocking call of the network layer off the async threads.
    async fn network<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Network) -> Result<T, crate::host::NetworkError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let network = Arc::clone(&self.options.network);
        tokio::task::spawn_blocking(move || call(&*network))
            .await
            .expect("network calls do not panic")
            .map_err(EngineError::from)
    }

    /// The taps of this engine, each with what [`Engine::owned`] was given for it.
    async fn ports(&self) -> Result<Vec<Port>, EngineError> {
        let mut ports = self.network(|network| network.list()).await?;
        ports.retain_mut(|port| match port.owner.split_once(' ') {
            Some((identity, owner)) if identity == self.identity => {
                port.owner = owner.to_owned();
                true
            }
            _ => false,
        });
        Ok(ports)
    }

    /// The owner text of a tap of this engine.
    fn owned(&self, owner: &str) -> String {
        format!("{} {owner}", self.identity)
    }

    /// Let the network namespace go when nothing is left in it.
    async fn release_network(&self) -> Result<(), EngineError> {
        let _turn = self.network_users.turn.lock().await;
        let vms = self.state().namespaces.values().flat_map(|n| n.vms.values()).any(|vm| vm.live().state.has_process());
        let in_use =
            vms || self.network_users.any() || self.dnsmasq.any_runs() || self.nat.any() || self.state().flows.any();
        self.network(move |network| network.release(in_use)).await
    }

    /// Is there nothing here that a user made: no VM, launched or queued, no tap, no bridge, no namespace but the default
    /// one, no pipeline, no capture, no DHCP server, no gateway and no background process that runs?
    pub async fn is_empty(&self) -> Result<bool, EngineError> {
        if self.plumbing.has_pipelines() || self.background.any_runs() || self.dnsmasq.any() || self.nat.any() {
            return Ok(false);
        }
        {
            let state = self.state();
            let holds = |n: &NamespaceState| !n.vms.is_empty() || !n.scheduling.queue.is_empty();
            if state.captures.any() || state.flows.any() {
                return Ok(false);
            }
            if state.namespaces.iter().any(|(name, n)| *name != Namespace::default_namespace() || holds(n)) {
                return Ok(false);
            }
        }
        Ok(self.ports().await?.is_empty() && self.own_bridges().await?.is_empty())
    }

    /// End what does not outlive the daemon: pipelines, pipes, background processes and programs of `shell`. Captures end
    /// too, for a later daemon to go on with.
    pub async fn close(&self) -> Result<(), EngineError> {
        let end = async { tokio::join!(self.end_plumbing(), self.end_background(), self.shells.end()) };
        if tokio::time::timeout(CLOSE_LIMIT, end).await.is_err() {
            tracing::warn!("programs that do not end even by SIGKILL are left");
        }
        self.suspend_captures().await;
        self.suspend_flows().await;
        self.save_learned().await;
        self.release_network().await
    }
}
