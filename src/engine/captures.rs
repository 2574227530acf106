//! Captures: what is captured into which file, for whom, and what a restarted daemon goes on with.
//!
//! Must not know how frames are heard or written; `host` does that. A capture of a NIC belongs to its VM and ends when that
//! is flushed; a capture of a bridge belongs to a namespace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::host::pcap::MAX_SNAPLEN;
use crate::host::{Network, Sniff, SniffError, SniffStatus, SniffTarget, Sniffer};
use crate::name::{BridgeName, Namespace};

use super::nics::nic_index;
use super::{Engine, EngineError, Vm};

/// How much of a frame is kept unless something else is set, in bytes: a whole one of an ordinary network.
const SNAPLEN: u32 = 1600;

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The network layer.
    #[error(transparent)]
    Sniff(#[from] SniffError),
    /// How much of a frame is no number, or too much.
    #[error("invalid snaplen `{text}`, expected a number of bytes from 1 to {MAX_SNAPLEN}")]
    Snaplen {
        /// As given.
        text: String,
    },
    /// A timeout that is none.
    #[error("invalid timeout `{text}`, expected whole seconds from 1 to 86400")]
    Timeout {
        /// As given.
        text: String,
    },
    /// No host with a port.
    #[error(
        "invalid hostname:port `{text}`, expected a host and a port from 1 to 65535 such as collector.example:9995 or \
         [fd00::1]:9995"
    )]
    HostPort {
        /// As given.
        text: String,
    },
    /// A socket of a netflow capture.
    #[error("cannot {what}")]
    Socket {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There is nothing to delete.
    #[error("no netflow capture of bridge {bridge}")]
    NoFlows {
        /// The bridge.
        bridge: BridgeName,
    },
    /// There is nothing to delete.
    #[error("no pcap capture of {what}")]
    None {
        /// `vm web0` or `bridge mega_bridge`.
        what: String,
    },
}

/// What new captures of a namespace are like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcapSettings {
    /// How much of each frame is kept, in bytes.
    pub snaplen: u32,
    /// A filter in libpcap's language; empty for none.
    pub filter: String,
}

impl Default for PcapSettings {
    fn default() -> Self {
        Self { snaplen: SNAPLEN, filter: String::new() }
    }
}

/// What is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Subject {
    /// A NIC of a VM.
    Nic { vm: uuid::Uuid, index: usize },
    /// A bridge.
    Bridge(BridgeName),
}

/// A capture as the state file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    namespace: Namespace,
    subject: Subject,
    path: PathBuf,
    #[serde(flatten)]
    settings: PcapSettings,
}

/// What is remembered of captures, by their number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Captures {
    next: u64,
    records: BTreeMap<u64, Record>,
    settings: BTreeMap<Namespace, PcapSettings>,
}

impl Captures {
    pub(super) fn any(&self) -> bool {
        !self.records.is_empty()
    }
}

/// A capture under way; in place of one that could not be gone on with, why not.
type Under = Result<Arc<dyn Sniffer>, String>;

/// The captures that are under way.
#[derive(Default)]
pub(super) struct Running {
    /// By their number.
    sniffers: Mutex<BTreeMap<u64, Under>>,
    /// The turn to start or end some.
    turn: tokio::sync::Mutex<()>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Under>> {
        self.sniffers.lock().expect("no code panics while it holds the captures")
    }
}

/// What `capture pcap` starts.
#[derive(Debug, Clone)]
pub enum CaptureRequest {
    /// A NIC of a VM: both as given.
    Nic {
        /// Name or id.
        vm: String,
        /// The number of the NIC, from 0.
        index: String,
    },
    /// A bridge.
    Bridge(BridgeName),
}

/// Which captures end.
#[derive(Debug, Clone)]
pub enum CaptureTarget {
    /// Those of all VMs.
    Vms,
    /// Those of a VM, by name or id.
    Vm(String),
    /// Those of all bridges.
    Bridges,
    /// Those of a bridge.
    Bridge(BridgeName),
}

/// One row of `capture`.
#[derive(Debug, Clone)]
pub struct CaptureInfo {
    /// The bridge, or that of the NIC.
    pub bridge: String,
    /// `web0:1`; empty for a bridge.
    pub interface: String,
    /// The file.
    pub path: PathBuf,
    /// What it was started with.
    pub settings: PcapSettings,
    /// How it is doing.
    pub status: SniffStatus,
}

impl Engine {
    /// What new captures of a namespace are like.
    pub fn pcap_settings(&self, namespace: &Namespace) -> PcapSettings {
        self.state().captures.settings.get(namespace).cloned().unwrap_or_default()
    }

    /// Set how much of each frame new captures keep.
    pub fn set_snaplen(&self, namespace: &Namespace, text: &str) -> Result<(), EngineError> {
        let snaplen = text.parse().ok().filter(|snaplen| (1..=MAX_SNAPLEN).contains(snaplen));
        let snaplen = snaplen.ok_or_else(|| CaptureError::Snaplen { text: text.to_owned() })?;
        self.state().captures.settings.entry(namespace.clone()).or_default().snaplen = snaplen;
        self.save()
    }

    /// Set the filter of new captures, once libpcap has said that it is one. The empty one lets everything through.
    pub async fn set_pcap_filter(&self, namespace: &Namespace, filter: &str) -> Result<(), EngineError> {
        let asked = filter.to_owned();
        self.sniffing(move |network| network.check_filter(&asked)).await?;
        self.state().captures.settings.entry(namespace.clone()).or_default().filter = filter.to_owned();
        self.save()
    }

    /// Run a blocking call of the network layer's captures off the async threads.
    async fn sniffing<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Network) -> Result<T, SniffError> + Send + 'static,
    ) -> Result<T, CaptureError> {
        let network = Arc::clone(&self.options.network);
        let result = tokio::task::spawn_blocking(move || call(&*network)).await;
        Ok(result.expect("captures do not panic")?)
    }

    /// Start to capture into a file: everything that comes from now on is in it. A relative path is one in the files folder.
    pub async fn start_pcap(
        &self,
        namespace: &Namespace,
        request: &CaptureRequest,
        file: &str,
    ) -> Result<(), EngineError> {
        let path = if Path::new(file).is_absolute() { PathBuf::from(file) } else { self.files.place(file)? };
        let _turn = self.captures.turn.lock().await;
        let subject = match request {
            CaptureRequest::Bridge(bridge) => Subject::Bridge(bridge.clone()),
            CaptureRequest::Nic { vm, index } => {
                let vm = self.vm(namespace, vm)?;
                Subject::Nic { vm: vm.uuid, index: nic_index(&vm, index)? }
            }
        };
        self.ensure_namespace(namespace)?;
        let record = Record { namespace: namespace.clone(), subject, path, settings: self.pcap_settings(namespace) };
        let sniff = self.sniff_of(&record, false);
        let sniffer = self.sniffing(move |network| network.sniff(&sniff)).await?;
        let id = {
            let mut state = self.state();
            let gone = match &record.subject {
                Subject::Nic { vm, .. } => !state.has_vm(*vm),
                Subject::Bridge(_) => false,
            };
            if gone {
                // Flushed meanwhile.
                return Err(EngineError::VmNotFound { target: request.vm().to_owned() });
            }
            let id = state.captures.next;
            state.captures.next += 1;
            tracing::info!(%namespace, path = %record.path.display(), "capture started");
            state.captures.records.insert(id, record);
            id
        };
        self.captures.lock().insert(id, Ok(Arc::from(sniffer)));
        self.save().inspect_err(|_| {
            // What a restarted daemon would not know does not start.
            self.state().captures.records.remove(&id);
            self.captures.lock().remove(&id);
        })
    }

    fn sniff_of(&self, record: &Record, resume: bool) -> Sniff {
        let heard = match &record.subject {
            Subject::Nic { vm, index } => SniffTarget::Tap { owner: self.owned(&Vm::nic_owner(*vm, *index)) },
            Subject::Bridge(bridge) => SniffTarget::Bridge(bridge.clone()),
        };
        let PcapSettings { snaplen, filter } = record.settings.clone();
        Sniff { heard, path: record.path.clone(), resume, snaplen, filter }
    }

    /// The captures of a namespace, in the order in which they were started.
    pub async fn captures(&self, namespace: &Namespace) -> Vec<CaptureInfo> {
        let found: Vec<(CaptureInfo, Under)> = {
            let state = self.state();
            let running = self.captures.lock();
            let records = state.captures.records.iter().filter(|(_, record)| record.namespace == *namespace);
            let info = |(id, record): (&u64, &Record)| {
                let (bridge, interface) = match &record.subject {
                    Subject::Bridge(bridge) => (bridge.to_string(), String::new()),
                    Subject::Nic { vm, index } => {
                        let vm = state.namespaces.get(namespace)?.vms.values().find(|there| there.uuid == *vm)?;
                        let bridge = vm.live().nics.get(*index)?.bridge.to_string();
                        (bridge, format!("{}:{index}", vm.name))
                    }
                };
                let Record { path, settings, .. } = record.clone();
                let status = SniffStatus::default();
                Some((CaptureInfo { bridge, interface, path, settings, status }, running.get(id)?.clone()))
            };
            records.filter_map(info).collect()
        };
        // Each looks at its file.
        let asked = tokio::task::spawn_blocking(move || {
            let ask = |(info, under): (CaptureInfo, Under)| {
                let status = match under {
                    Ok(sniffer) => sniffer.status(),
                    Err(reason) => SniffStatus { stopped: Some(reason), ..SniffStatus::default() },
                };
                CaptureInfo { status, ..info }
            };
            found.into_iter().map(ask).collect()
        });
        asked.await.expect("captures do not panic")
    }

    /// End captures of a namespace. A VM or bridge of which there is none is an error.
    pub async fn delete_pcap(&self, namespace: &Namespace, target: &CaptureTarget) -> Result<(), EngineError> {
        let uuid = match target {
            CaptureTarget::Vm(vm) => Some(self.vm(namespace, vm)?.uuid),
            _ => None,
        };
        let ended = self
            .end_captures(|record| {
                record.namespace == *namespace
                    && match (&record.subject, target) {
                        (Subject::Nic { .. }, CaptureTarget::Vms) | (Subject::Bridge(_), CaptureTarget::Bridges) => {
                            true
                        }
                        (Subject::Nic { vm, .. }, CaptureTarget::Vm(_)) => Some(*vm) == uuid,
                        (Subject::Bridge(bridge), CaptureTarget::Bridge(wanted)) => bridge == wanted,
                        _ => false,
                    }
            })
            .await?;
        let what = match target {
            CaptureTarget::Vm(vm) => format!("vm {vm}"),
            CaptureTarget::Bridge(bridge) => format!("bridge {bridge}"),
            CaptureTarget::Vms | CaptureTarget::Bridges => return Ok(()),
        };
        if ended == 0 { Err(CaptureError::None { what }.into()) } else { Ok(()) }
    }

    /// End all captures of a namespace, and let new ones be like they are by default.
    pub async fn clear_pcap(&self, namespace: &Namespace) -> Result<(), EngineError> {
        self.end_captures(|record| record.namespace == *namespace).await?;
        self.state().captures.settings.remove(namespace);
        self.save()
    }

    /// End the captures of VMs that are no more.
    pub(super) async fn end_captures_of_flushed(&self) -> Result<(), EngineError> {
        let uuids: Vec<_> = {
            let state = self.state();
            let uuids = state.captures.records.values().filter_map(|record| match record.subject {
                Subject::Nic { vm, .. } => Some(vm),
                Subject::Bridge(_) => None,
            });
            uuids.filter(|uuid| !state.has_vm(*uuid)).collect()
        };
        if uuids.is_empty() {
            return Ok(());
        }
        self.end_captures(|record| matches!(&record.subject, Subject::Nic { vm, .. } if uuids.contains(vm))).await?;
        Ok(())
    }

    /// End captures and forget them. Says how many there were.
    async fn end_captures(&self, which: impl Fn(&Record) -> bool) -> Result<usize, EngineError> {
        let _turn = self.captures.turn.lock().await;
        let records: BTreeMap<u64, Record> = {
            let records = &mut self.state().captures.records;
            let (ended, left) = std::mem::take(records).into_iter().partition(|(_, record)| which(record));
            *records = left;
            ended
        };
        if records.is_empty() {
            return Ok(0);
        }
        let sniffers: Vec<_> = {
            let mut running = self.captures.lock();
            records.keys().filter_map(|id| running.remove(id)?.ok()).collect()
        };
        // The last frames are written, and the disk may be slow.
        let statuses =
            tokio::task::spawn_blocking(move || sniffers.into_iter().map(|sniffer| sniffer.stop()).collect::<Vec<_>>());
        let statuses = statuses.await.expect("captures do not panic");
        for Record { namespace, path, .. } in records.values() {
            tracing::info!(%namespace, path = %path.display(), "capture ended");
        }
        let dropped: u64 = statuses.iter().map(|status| status.dropped).sum();
        if dropped > 0 {
            tracing::warn!(dropped, captures = statuses.len(), "captures that have ended lack frames");
        }
        self.save()?;
        self.network(|network| network.forget_sniffed()).await?;
        self.release_network().await?;
        Ok(records.len())
    }

    /// Go on with the captures of an earlier daemon. Says what it could not.
    pub(super) async fn restore_captures(&self) -> Vec<String> {
        let _turn = self.captures.turn.lock().await;
        let records: Vec<(u64, Record)> = {
            let mut state = self.state();
            let vms: Vec<_> = state.namespaces.values().flat_map(|n| n.vms.values().map(|vm| vm.uuid)).collect();
            let records = &mut state.captures.records;
            records.retain(|_, record| match &record.subject {
                Subject::Nic { vm, .. } => vms.contains(vm),
                Subject::Bridge(_) => true,
            });
            records.iter().map(|(id, record)| (*id, record.clone())).collect()
        };
        let mut notes = Vec::new();
        for (id, record) in records {
            let sniff = self.sniff_of(&record, true);
            let path = record.path.display();
            let sniffer = match self.sniffing(move |network| network.sniff(&sniff)).await {
                Ok(sniffer) => {
                    notes.push(format!("goes on capturing into {path}; what came meanwhile is not in it"));
                    Ok(Arc::from(sniffer))
                }
                Err(error) => {
                    let reason = EngineError::from(error).chain();
                    notes.push(format!("cannot go on capturing into {path}: {reason}"));
                    Err(reason)
                }
            };
            self.captures.lock().insert(id, sniffer);
        }
        notes
    }

    /// Write what is left of all captures and let go of their files; a later daemon goes on with them.
    pub(super) async fn suspend_captures(&self) {
        let _turn = self.captures.turn.lock().await;
        let sniffers = std::mem::take(&mut *self.captures.lock());
        let stopped = tokio::task::spawn_blocking(move || drop(sniffers));
        stopped.await.expect("captures do not panic");
    }
}

impl CaptureRequest {
    fn vm(&self) -> &str {
        match self {
            CaptureRequest::Nic { vm, .. } => vm,
            CaptureRequest::Bridge(_) => "",
        }
    }
}
