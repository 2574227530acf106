//! Captures of flow records: one socket and one task for each, which writes what the switch sends to a file or sends it on.
//!
//! Must not know how a switch is told to export; `host` does that. Flow records are counted from the datagrams that were
//! whole and of version 5; anything else is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;

use crate::host::linux::{CaptureFile, Content};
use crate::host::{Netflow, SniffStatus, netflow};
use crate::name::{BridgeName, Namespace};

use super::captures::CaptureError;
use super::{Engine, EngineError};

/// How long a flow may go on before it is reported, in seconds, unless something else is set.
const TIMEOUT: u32 = 10;
/// How long records wait to be written together.
const TOGETHER: Duration = Duration::from_millis(500);
/// How much is written together, in bytes.
const ENOUGH: usize = 64 << 10;
/// How long another program may take to take records.
const PATIENCE: Duration = Duration::from_secs(5);

/// How flow records are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowMode {
    /// The datagrams as they came.
    #[default]
    Raw,
    /// A line for each flow.
    Ascii,
}

impl FlowMode {
    /// As commands spell it.
    pub fn word(self) -> &'static str {
        match self {
            FlowMode::Raw => "raw",
            FlowMode::Ascii => "ascii",
        }
    }
}

/// What new captures of a namespace are like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSettings {
    /// How records are written.
    pub mode: FlowMode,
    /// Are files packed?
    pub gzip: bool,
}

/// Where flow records go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowSink {
    /// A file.
    File(PathBuf),
    /// A listening program, `HOST:PORT`, reached from where the daemon is.
    Tcp(String),
    /// The same by datagrams.
    Udp(String),
}

impl std::fmt::Display for FlowSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FlowSink::File(path) => write!(f, "{}", path.display()),
            FlowSink::Tcp(to) => write!(f, "tcp:{to}"),
            FlowSink::Udp(to) => write!(f, "udp:{to}"),
        }
    }
}

/// A capture as the state file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    namespace: Namespace,
    bridge: BridgeName,
    sink: FlowSink,
    settings: FlowSettings,
}

/// What is remembered of these captures, by their number.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Flows {
    next: u64,
    records: BTreeMap<u64, Record>,
    settings: BTreeMap<Namespace, FlowSettings>,
    timeout: Option<u32>,
}

impl Flows {
    pub(super) fn any(&self) -> bool {
        !self.records.is_empty()
    }
}

/// A capture under way; in place of one that could not be gone on with, why not.
type Under = Result<Arc<Collector>, String>;

/// The captures that are under way.
#[derive(Default)]
pub(super) struct Running {
    collectors: Mutex<BTreeMap<u64, Under>>,
    /// The turn to start or end some.
    turn: tokio::sync::Mutex<()>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Under>> {
        self.collectors.lock().expect("no code panics while it holds the collectors")
    }
}

/// One row of `capture`.
#[derive(Debug, Clone)]
pub struct FlowInfo {
    /// The bridge.
    pub bridge: BridgeName,
    /// Where records go.
    pub sink: FlowSink,
    /// What it was started with.
    pub settings: FlowSettings,
    /// How it is doing; of flows instead of frames.
    pub status: SniffStatus,
}

impl Engine {
    /// What new captures of a namespace are like.
    pub fn flow_settings(&self, namespace: &Namespace) -> FlowSettings {
        self.state().flows.settings.get(namespace).copied().unwrap_or_default()
    }

    /// Change what new captures of a namespace are like.
    pub fn change_flow_settings(
        &self,
        namespace: &Namespace,
        change: impl FnOnce(&mut FlowSettings),
    ) -> Result<(), EngineError> {
        change(self.state().flows.settings.entry(namespace.clone()).or_default());
        self.save()
    }

    /// After how many seconds a flow that goes on is reported.
    pub fn flow_timeout(&self) -> u32 {
        self.state().flows.timeout.unwrap_or(TIMEOUT)
    }

    /// Set it for all bridges, also those that export already.
    pub async fn set_flow_timeout(&self, text: &str) -> Result<(), EngineError> {
        let seconds = text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
        let seconds = seconds.ok_or_else(|| CaptureError::Timeout { text: text.to_owned() })?;
        let _turn = self.flows.turn.lock().await;
        let bridges: BTreeSet<BridgeName> = {
            let mut state = self.state();
            state.flows.timeout = Some(seconds);
            state.flows.records.values().map(|record| record.bridge.clone()).collect()
        };
        let mut errors = Vec::new();
        for bridge in &bridges {
            errors.extend(self.export(bridge).await.err());
        }
        errors.extend(self.save().err());
        EngineError::collect(errors)
    }

    /// Start to collect the flow records of a bridge.
    pub async fn start_flows(
        &self,
        namespace: &Namespace,
        bridge: &BridgeName,
        sink: FlowSink,
    ) -> Result<(), EngineError> {
        let sink = match sink {
            FlowSink::File(path) if path.is_relative() => FlowSink::File(self.files.place(&path.to_string_lossy())?),
            FlowSink::File(_) => sink,
            FlowSink::Tcp(ref to) | FlowSink::Udp(ref to) if has_port(to) => sink,
            FlowSink::Tcp(text) | FlowSink::Udp(text) => return Err(CaptureError::HostPort { text }.into()),
        };
        self.ensure_namespace(namespace)?;
        let _turn = self.flows.turn.lock().await;
        let mut settings = self.flow_settings(namespace);
        settings.gzip &= matches!(sink, FlowSink::File(_));
        let record = Record { namespace: namespace.clone(), bridge: bridge.clone(), sink, settings };
        let id = {
            let mut state = self.state();
            let id = state.flows.next;
            state.flows.next += 1;
            state.flows.records.insert(id, record.clone());
            id
        };
        let started = match self.open_collector(id, &record, false).await {
            Ok(()) => self.save(),
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            self.state().flows.records.remove(&id);
            let collector = self.flows.lock().remove(&id);
            if let Some(Ok(collector)) = collector {
                collector.stop().await;
            }
            // Best effort: the first error is what the caller needs to know.
            let _ = self.export(bridge).await;
            let _ = self.release_network().await;
            return Err(error);
        }
        tracing::info!(%namespace, %bridge, to = %record.sink, "netflow capture started");
        Ok(())
    }

    /// Open what a record asks for. Where records go comes last: a switch that cannot export empties no
    /// file.
    async fn open_collector(&self, id: u64, record: &Record, resume: bool) -> Result<(), EngineError> {
        let socket = self.network(|network| network.flow_socket()).await?;
        let failed = |source| CaptureError::Socket { what: "open a socket for flow records".to_owned(), source };
        socket.set_nonblocking(true).map_err(failed)?;
        let port = socket.local_addr().map_err(failed)?.port();
        let socket = UdpSocket::from_std(socket).map_err(failed)?;
        let mut targets = self.flow_targets(&record.bridge, Some(id));
        targets.push(target(port));
        self.export_to(&record.bridge, targets).await?;
        let output = Output::open(&record.sink, record.settings, resume).await?;
        let collector = Collector::start(port, socket, output, record);
        self.flows.lock().insert(id, Ok(Arc::new(collector)));
        Ok(())
    }

    /// The collectors of a bridge, but for one.
    fn flow_targets(&self, bridge: &BridgeName, without: Option<u64>) -> Vec<String> {
        let state = self.state();
        let running = self.flows.lock();
        let of_bridge =
            state.flows.records.iter().filter(|(id, record)| record.bridge == *bridge && Some(**id) != without);
        let ports = of_bridge.filter_map(|(id, _)| running.get(id)?.as_ref().ok().map(|collector| collector.port));
        ports.map(target).collect()
    }

    /// Let a bridge export to its collectors.
    async fn export(&self, bridge: &BridgeName) -> Result<(), EngineError> {
        self.export_to(bridge, self.flow_targets(bridge, None)).await
    }

    async fn export_to(&self, bridge: &BridgeName, targets: Vec<String>) -> Result<(), EngineError> {
        let (bridge, active_timeout) = (bridge.clone(), self.flow_timeout());
        let settings = (!targets.is_empty()).then_some(Netflow { targets, active_timeout });
        self.network(move |network| network.export_flows(&bridge, settings.as_ref())).await
    }

    /// The netflow captures of a namespace, in the order in which they were started.
    pub fn flow_captures(&self, namespace: &Namespace) -> Vec<FlowInfo> {
        let state = self.state();
        let running = self.flows.lock();
        let records = state.flows.records.iter().filter(|(_, record)| record.namespace == *namespace);
        let info = |(id, record): (&u64, &Record)| {
            let Record { bridge, sink, settings, .. } = record.clone();
            let status = match running.get(id)? {
                Ok(collector) => collector.status(),
                Err(reason) => SniffStatus { stopped: Some(reason.clone()), ..SniffStatus::default() },
            };
            Some(FlowInfo { bridge, sink, settings, status })
        };
        records.filter_map(info).collect()
    }

    /// End the captures of a bridge, or of all. A bridge of which there is none is an error.
    pub async fn delete_flows(&self, namespace: &Namespace, bridge: Option<&BridgeName>) -> Result<(), EngineError> {
        let ended = self
            .end_flows(|record| record.namespace == *namespace && bridge.is_none_or(|bridge| record.bridge == *bridge))
            .await?;
        match bridge {
            Some(bridge) if ended == 0 => Err(CaptureError::NoFlows { bridge: bridge.clone() }.into()),
            _ => Ok(()),
        }
    }

    /// End all captures of a namespace, and let new ones be like they are by default.
    pub async fn clear_flows(&self, namespace: &Namespace) -> Result<(), EngineError> {
        let ended = self.end_flows(|record| record.namespace == *namespace).await;
        self.state().flows.settings.remove(namespace);
        ended?;
        self.save()
    }

    async fn end_flows(&self, which: impl Fn(&Record) -> bool) -> Result<usize, EngineError> {
        let turn = self.flows.turn.lock().await;
        let records: BTreeMap<u64, Record> = {
            let records = &mut self.state().flows.records;
            let (ended, left) = std::mem::take(records).into_iter().partition(|(_, record)| which(record));
            *records = left;
            ended
        };
        if records.is_empty() {
            return Ok(0);
        }
        let collectors: Vec<Arc<Collector>> = {
            let mut running = self.flows.lock();
            records.keys().filter_map(|id| running.remove(id)?.ok()).collect()
        };
        let mut errors = Vec::new();
        let bridges: BTreeSet<&BridgeName> = records.values().map(|record| &record.bridge).collect();
        for bridge in bridges {
            errors.extend(self.export(bridge).await.err());
        }
        for collector in collectors {
            collector.stop().await;
        }
        for Record { namespace, bridge, sink, .. } in records.values() {
            tracing::info!(%namespace, %bridge, to = %sink, "netflow capture ended");
        }
        drop(turn);
        errors.extend(self.save().err());
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors).map(|()| records.len())
    }

    /// Go on with the captures of an earlier daemon. Says what it could not.
    pub(super) async fn restore_flows(&self) -> Vec<String> {
        let _turn = self.flows.turn.lock().await;
        let records = self.state().flows.records.clone();
        let mut notes = Vec::new();
        for (id, record) in records {
            let Record { bridge, sink, .. } = &record;
            match self.open_collector(id, &record, true).await {
                Ok(()) => notes.push(format!("goes on collecting the flows of {bridge} into {sink}")),
                Err(error) => {
                    let reason = error.chain();
                    notes.push(format!("cannot go on collecting the flows of {bridge} into {sink}: {reason}"));
                    self.flows.lock().insert(id, Err(reason));
                }
            }
        }
        notes
    }

    /// Write what is left and let go of the files.
    pub(super) async fn suspend_flows(&self) {
        let _turn = self.flows.turn.lock().await;
        let collectors = std::mem::take(&mut *self.flows.lock());
        for collector in collectors.into_values().flatten() {
            collector.stop().await;
        }
    }
}

fn target(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Is it `HOST:PORT`? An IPv6 address stands in brackets.
fn has_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = !host.is_empty() && !host.contains([':', '[', ']']);
    (bracketed || plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Where records go, open.
enum Output {
    File { file: CaptureFile, gzip: bool },
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Output {
    async fn open(sink: &FlowSink, settings: FlowSettings, resume: bool) -> Result<Self, CaptureError> {
        let failed = |what: String| move |source| CaptureError::Socket { what, source };
        match sink {
            FlowSink::File(path) => {
                let content = match (settings.gzip, settings.mode) {
                    (true, _) => Content::Members,
                    (false, FlowMode::Raw) => Content::Datagrams,
                    (false, FlowMode::Ascii) => Content::Lines,
                };
                let path = path.clone();
                let open = move || CaptureFile::open(&path, content, resume);
                let file = tokio::task::spawn_blocking(open).await.expect("opening a file does not panic")?;
                Ok(Output::File { file, gzip: settings.gzip })
            }
            FlowSink::Tcp(to) => {
                let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await;
                let late = || Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
                connected.unwrap_or_else(|_| late()).map(Output::Tcp).map_err(failed(format!("connect to {to} (tcp)")))
            }
            FlowSink::Udp(to) => {
                let what = || format!("send to {to} (udp)");
                let addresses: Vec<_> = tokio::net::lookup_host(to).await.map_err(failed(what()))?.collect();
                let any = if addresses.iter().any(std::net::SocketAddr::is_ipv4) { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).await.map_err(failed(what()))?;
                socket.connect(&*addresses).await.map_err(failed(what()))?;
                Ok(Output::Udp(socket))
            }
        }
    }

    /// Give records on. `ends` is where each of them ends.
    async fn put(self, records: Vec<u8>, ends: Vec<usize>) -> Result<Self, std::io::Error> {
        match self {
            Output::File { mut file, gzip } => {
                let put = move || {
                    if gzip {
                        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                        member.write_all(&records)?;
                        let member = member.finish()?;
                        file.append(&member, &[member.len()]).map_err(|(_, error)| error)?;
                    } else {
                        file.append(&records, &ends).map_err(|(_, error)| error)?;
                    }
                    Ok(Output::File { file, gzip })
                };
                tokio::task::spawn_blocking(put).await.expect("writing a file does not panic")
            }
            Output::Tcp(mut stream) => {
                let sent = tokio::time::timeout(PATIENCE, stream.write_all(&records)).await;
                sent.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
                Ok(Output::Tcp(stream))
            }
            Output::Udp(socket) => {
                let mut begin = 0;
                for end in ends {
                    // Nobody may be listening yet, or any more: datagrams are sent all the same.
                    let _ = socket.send(&records[begin..end]).await;
                    begin = end;
                }
                Ok(Output::Udp(socket))
            }
        }
    }
}

/// One capture.
struct Collector {
    port: u16,
    status: Arc<Mutex<SniffStatus>>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

impl Collector {
    fn start(port: u16, socket: UdpSocket, output: Output, record: &Record) -> Self {
        let status = Arc::new(Mutex::new(SniffStatus { interfaces: 1, ..SniffStatus::default() }));
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let mode = record.settings.mode;
        let (shown, shared) = (record.sink.to_string(), Arc::clone(&status));
        tokio::spawn(async move {
            if let Err(error) = collect(&socket, output, mode, stopped, &shared).await {
                tracing::error!(to = shown, %error, "a netflow capture has stopped");
                let mut status = lock(&shared);
                status.stopped = Some(error.to_string());
                status.interfaces = 0;
            }
            // Whoever waits sees that it is gone too.
            let _ = end.send(true);
        });
        Self { port, status, stop, ended }
    }

    fn status(&self) -> SniffStatus {
        lock(&self.status).clone()
    }

    /// End it. What had come before is written when this returns.
    async fn stop(&self) {
        self.stop.send_replace(true);
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

fn lock(status: &Mutex<SniffStatus>) -> MutexGuard<'_, SniffStatus> {
    status.lock().expect("no code panics while it holds a status")
}

/// Records that are to be written together.
#[derive(Default)]
struct Pending {
    records: Vec<u8>,
    ends: Vec<usize>,
    flows: u64,
}

impl Pending {
    /// Take a datagram; one that is none of flow records is dropped.
    fn take(&mut self, datagram: &[u8], mode: FlowMode, status: &Mutex<SniffStatus>) {
        let flows = match netflow::parse(datagram) {
            Ok(flows) => flows,
            Err(error) => {
                tracing::debug!(%error, "a datagram that is not of NetFlow version 5");
                lock(status).dropped += 1;
                return;
            }
        };
        self.flows += flows.len() as u64;
        match mode {
            FlowMode::Raw => {
                self.records.extend_from_slice(datagram);
                self.ends.push(self.records.len());
            }
            FlowMode::Ascii => {
                let mut line = String::new();
                for flow in &flows {
                    line.clear();
                    netflow::push_line(&mut line, flow);
                    self.records.extend_from_slice(line.as_bytes());
                    self.ends.push(self.records.len());
                }
            }
        }
    }

    async fn put(&mut self, output: Output, status: &Mutex<SniffStatus>) -> Result<Output, std::io::Error> {
        let Pending { records, ends, flows } = std::mem::take(self);
        let length = records.len() as u64;
        let output = output.put(records, ends).await?;
        let mut status = lock(status);
        status.frames += flows;
        status.bytes += length;
        Ok(output)
    }
}

/// Returns once it was told to stop.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // That nobody is left to tell it means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn collect(
    socket: &UdpSocket,
    mut output: Output,
    mode: FlowMode,
    mut stopped: watch::Receiver<bool>,
    status: &Mutex<SniffStatus>,
) -> Result<(), std::io::Error> {
    let mut pending = Pending::default();
    // One byte more, so that a datagram that is too long is seen to be.
    let mut buffer = [0; netflow::MAX_DATAGRAM + 1];
    let mut deadline = None;
    loop {
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told(&mut stopped) => break,
            () = due => {
                output = pending.put(output, status).await?;
                deadline = None;
            }
            received = socket.recv(&mut buffer) => {
                pending.take(&buffer[..received?], mode, status);
                if pending.records.len() >= ENOUGH {
                    output = pending.put(output, status).await?;
                    deadline = None;
                } else if deadline.is_none() && !pending.ends.is_empty() {
                    deadline = Some(tokio::time::Instant::now() + TOGETHER);
                }
            }
        }
    }
    while let Ok(length) = socket.try_recv(&mut buffer) {
        pending.take(&buffer[..length], mode, status);
    }
    if !pending.ends.is_empty() {
        pending.put(output, status).await?;
    }
    Ok(())
}
