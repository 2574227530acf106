//! DHCP and DNS servers on host taps: dnsmasq(8) processes in the engine's network namespace.
//!
//! Must not know how they are shown. Each has a folder `dnsmasq_ID` in the base folder with its record and the files that
//! dnsmasq reads again on SIGHUP (dnsmasq(8): `--dhcp-hostsfile`, `--addn-hosts`, `--dhcp-optsfile`, `--servers-file`), so
//! that every change is live and no lease is lost. They belong to the namespace that started them and outlive the daemon.

mod files;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::host::linux::process;
use crate::host::{ProcessId, Spawn};
use crate::name::{Mac, Namespace, TapName};

use super::detached::{Detached, LOG, end_all_with, find_admin, last_words, make_folder, numbered, remove_folder};
use super::{Engine, EngineError, store};

/// What the folders are called, before the number.
const PREFIX: &str = "dnsmasq_";

/// The record in a folder.
const RECORD: &str = "dnsmasq.json";

/// How long a server may take until it serves.
const START: Duration = Duration::from_secs(10);

/// The longest option or host name that is taken.
const TEXT_LIMIT: usize = 255;

/// Why a server was refused.
#[derive(Debug, thiserror::Error)]
pub enum DnsmasqError {
    /// No server of that id in the namespace; minimega's words.
    #[error("invalid id")]
    Id,
    /// The program is missing.
    #[error("cannot run dnsmasq: it is not installed (Debian package dnsmasq-base)")]
    Missing,
    /// Not an IPv4 address.
    #[error("invalid {what} `{text}`, expected an IPv4 address such as 10.0.0.1")]
    Ipv4 {
        /// Which argument.
        what: &'static str,
        /// As given.
        text: String,
    },
    /// Not an address.
    #[error("invalid {what} `{text}`, expected an IP address")]
    Address {
        /// Which argument.
        what: &'static str,
        /// As given.
        text: String,
    },
    /// No tap has the address to listen on.
    #[error(
        "no tap of this namespace has the address {address}: make one first, such as `tap create VLAN ip {address}/24`"
    )]
    NoTap {
        /// The address.
        address: Ipv4Addr,
    },
    /// Several have it.
    #[error("the taps {taps} have the same address {address}, a server listens on one")]
    ManyTaps {
        /// The address.
        address: Ipv4Addr,
        /// Their names.
        taps: String,
    },
    /// An address that the server's tap does not reach.
    #[error("{address} is not a host's address in {network}, the network of tap {tap}")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The network.
        network: ipnet::Ipv4Net,
        /// The tap.
        tap: TapName,
    },
    /// Low and high are the wrong way round.
    #[error("the range {low} to {high} is empty, the low address comes first")]
    Range {
        /// As given.
        low: Ipv4Addr,
        /// As given.
        high: Ipv4Addr,
    },
    /// The configuration file.
    #[error("cannot read the configuration {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not a MAC address.
    #[error(transparent)]
    Mac(#[from] crate::name::MacError),
    /// The address is given to another MAC.
    #[error("{address} is already the address of {mac}")]
    Given {
        /// The address.
        address: Ipv4Addr,
        /// Whose it is.
        mac: Mac,
    },
    /// Not a host name.
    #[error("invalid host name `{text}`, expected labels of letters, digits and hyphens joined by dots")]
    HostName {
        /// As given.
        text: String,
    },
    /// Not an option.
    #[error("dnsmasq does not take the option `{text}`: {message}")]
    Option {
        /// As given.
        text: String,
        /// dnsmasq's words.
        message: String,
    },
    /// It has ended, so it cannot be configured.
    #[error("dnsmasq {id} has ended ({how}); `dnsmasq kill {id}` and start another one")]
    Ended {
        /// The server.
        id: u32,
        /// How.
        how: String,
    },
    /// It did not start.
    #[error("dnsmasq did not start: {message}")]
    Start {
        /// Its own words, or how it ended.
        message: String,
    },
}

/// Where a server listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listen {
    pub address: Ipv4Addr,
    pub network: ipnet::Ipv4Net,
    pub low: Ipv4Addr,
    pub high: Ipv4Addr,
    pub tap: TapName,
}

/// A server as its folder remembers it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    namespace: Namespace,
    pub listen: Option<Listen>,
    pub config: Option<PathBuf>,
    /// None until it was started.
    process: Option<ProcessId>,
    /// Fixed leases, in the order in which they were given.
    pub leases: Vec<(Mac, Ipv4Addr)>,
    /// Names, in the order in which they were given.
    pub names: Vec<(IpAddr, String)>,
    /// Servers that other names are asked of.
    pub upstream: Vec<IpAddr>,
    /// DHCP options, as `--dhcp-option` takes them.
    pub options: Vec<String>,
}

struct Server {
    id: u32,
    namespace: Namespace,
    folder: PathBuf,
    record: Mutex<Record>,
    process: Detached,
    /// Held while it is configured or ended.
    turn: tokio::sync::Mutex<()>,
}

impl Server {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no code panics while it holds a server's record")
    }
}

#[derive(Default)]
struct Known {
    next: u32,
    servers: BTreeMap<u32, Arc<Server>>,
}

/// All servers of an engine.
#[derive(Default)]
pub(super) struct Dnsmasq(Mutex<Known>);

impl Dnsmasq {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("no code panics while it holds the servers")
    }

    /// Is any process in the network namespace?
    pub(super) fn any_runs(&self) -> bool {
        self.lock().servers.values().any(|server| server.process.runs())
    }

    /// Is there any, running or ended?
    pub(super) fn any(&self) -> bool {
        !self.lock().servers.is_empty()
    }

    fn of(&self, namespace: &Namespace) -> Vec<Arc<Server>> {
        self.lock().servers.values().filter(|server| server.namespace == *namespace).cloned().collect()
    }

    /// A server of a namespace by its number or by the address that it listens on.
    fn find(&self, namespace: &Namespace, id: &str) -> Result<Arc<Server>, DnsmasqError> {
        if let Ok(address) = id.parse::<Ipv4Addr>() {
            let listens =
                |server: &Arc<Server>| server.record().listen.as_ref().is_some_and(|listen| listen.address == address);
            return self.of(namespace).into_iter().find(listens).ok_or(DnsmasqError::Id);
        }
        let id: u32 = id.parse().map_err(|_| DnsmasqError::Id)?;
        let server = self.lock().servers.get(&id).cloned();
        server.filter(|server| server.namespace == *namespace).ok_or(DnsmasqError::Id)
    }
}

/// One row of `dnsmasq`.
#[derive(Debug, Clone)]
pub struct DnsmasqInfo {
    /// Its number, which is not used again while the daemon runs.
    pub id: u32,
    /// Where it listens, and its range; None for one that was started from a configuration alone.
    pub listen: Option<[Ipv4Addr; 3]>,
    /// Its folder.
    pub folder: PathBuf,
    /// Its pid, also when it has ended.
    pub pid: i32,
    /// How it ended; None while it runs.
    pub ended: Option<String>,
}

/// A list of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsmasqList {
    /// MAC and IP address of each fixed lease.
    Leases,
    /// IP address and name.
    Names,
    /// Addresses of servers.
    Upstream,
    /// Options.
    Options,
}

/// What is added to a server.
#[derive(Debug, Clone, Copy)]
pub enum DnsmasqChange<'a> {
    /// A fixed lease; replaces the one of the same MAC.
    Lease(&'a str, &'a str),
    /// An address for a name.
    Name(&'a str, &'a str),
    /// A server for other names.
    Upstream(&'a str),
    /// A DHCP option, as `--dhcp-option` takes it.
    Option(&'a str),
}

fn ipv4(what: &'static str, text: &str) -> Result<Ipv4Addr, DnsmasqError> {
    text.parse().map_err(|_| DnsmasqError::Ipv4 { what, text: text.to_owned() })
}

fn address(what: &'static str, text: &str) -> Result<IpAddr, DnsmasqError> {
    text.parse().map_err(|_| DnsmasqError::Address { what, text: text.to_owned() })
}

impl Listen {
    /// A host's address in the network?
    fn reaches(&self, address: Ipv4Addr) -> Result<(), DnsmasqError> {
        let network = self.network.trunc();
        let own = network.prefix_len() < 31 && [network.network(), network.broadcast()].contains(&address);
        if network.contains(&address) && !own {
            return Ok(());
        }
        Err(DnsmasqError::Outside { address, network, tap: self.tap.clone() })
    }
}

impl Engine {
    /// Find the tap to listen on and check the range.
    async fn listen(&self, namespace: &Namespace, [listen, low, high]: [&str; 3]) -> Result<Listen, EngineError> {
        let address = ipv4("listen address", listen)?;
        let (low, high) = (ipv4("low address", low)?, ipv4("high address", high)?);
        let mut found = Vec::new();
        for port in self.host_ports(namespace).await? {
            for (ip, prefix) in port.addresses {
                if ip == IpAddr::V4(address) {
                    found.push((port.tap.clone(), prefix));
                }
            }
        }
        let (tap, prefix) = match found.as_slice() {
            [] => return Err(DnsmasqError::NoTap { address }.into()),
            [one] => one.clone(),
            many => {
                let taps = many.iter().map(|(tap, _)| tap.as_str()).collect::<Vec<_>>().join(", ");
                return Err(DnsmasqError::ManyTaps { address, taps }.into());
            }
        };
        let network = ipnet::Ipv4Net::new(address, prefix).expect("the kernel has no longer prefixes");
        let listen = Listen { address, network, low, high, tap };
        listen.reaches(low)?;
        listen.reaches(high)?;
        if low > high {
            return Err(DnsmasqError::Range { low, high }.into());
        }
        Ok(listen)
    }

    /// Start a server: on the tap with the first of `range`, for the addresses from the second to the third, or by a
    /// configuration file alone. Gives its number once it serves. On failure nothing is left.
    pub async fn start_dnsmasq(
        self: &Arc<Self>,
        namespace: &Namespace,
        range: Option<[&str; 3]>,
        config: Option<&str>,
    ) -> Result<u32, EngineError> {
        let listen = match range {
            Some(range) => Some(self.listen(namespace, range).await?),
            None => None,
        };
        let config = config.map(|path| configuration(Path::new(path))).transpose()?;
        let program = find_admin("dnsmasq").ok_or(DnsmasqError::Missing)?;
        self.ensure_namespace(namespace)?;
        let (id, folder) = loop {
            let id = {
                let mut known = self.dnsmasq.lock();
                known.next += 1;
                known.next - 1
            };
            let folder = self.options.base.join(format!("{PREFIX}{id}"));
            match make_folder(&folder) {
                Ok(()) => break (id, folder),
                Err(EngineError::File { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        let record = Record {
            namespace: namespace.clone(),
            listen,
            config,
            process: None,
            leases: Vec::new(),
            names: Vec::new(),
            upstream: Vec::new(),
            options: Vec::new(),
        };
        let result = self.run_dnsmasq(id, &folder, record, &program).await;
        if result.is_err() {
            // Best effort: the first error is what the caller needs to know.
            let _ = remove_folder(&folder);
            // Nobody has seen the number.
            let mut known = self.dnsmasq.lock();
            if known.next == id + 1 {
                known.next = id;
            }
        }
        result.map(|()| id)
    }

    async fn run_dnsmasq(
        self: &Arc<Self>,
        id: u32,
        folder: &Path,
        mut record: Record,
        program: &Path,
    ) -> Result<(), EngineError> {
        files::write(folder, &record)?;
        store::write(&folder.join(RECORD), &record)?;
        let network = self.in_network().await?;
        let failed = |message: String| EngineError::from(DnsmasqError::Start { message });
        let spawn = Spawn {
            program: program.display().to_string(),
            args: files::arguments(folder, &record),
            environment: Vec::new(),
            folder: folder.to_owned(),
            output: folder.join(LOG),
            network: network.fd().map_err(|error| failed(error.to_string()))?,
        };
        let process = tokio::task::spawn_blocking(move || process::spawn(&spawn)).await.expect("it does not panic")?;
        record.process = Some(process);
        let process = Detached::watch(process, format!("dnsmasq {id}"));
        let served = async {
            store::write(&folder.join(RECORD), &record)?;
            let pid_file = folder.join(files::PID);
            // dnsmasq writes it once its sockets are open.
            let ready = || std::fs::read_to_string(&pid_file).is_ok_and(|text| !text.trim().is_empty());
            process.ready(START, ready).await.map_err(|how| {
                let words = last_words(folder, 3, |line| line.starts_with("dnsmasq: "));
                failed(if words.is_empty() { how } else { words.replace("dnsmasq: ", "") })
            })
        };
        if let Err(error) = served.await {
            let _ = process.end().await;
            return Err(error);
        }
        let (namespace, record) = (record.namespace.clone(), Mutex::new(record));
        let folder = folder.to_owned();
        let server = Server { id, namespace, folder, record, process, turn: tokio::sync::Mutex::default() };
        self.dnsmasq.lock().servers.insert(id, Arc::new(server));
        // From here on it is what keeps the network namespace.
        drop(network);
        Ok(())
    }

    /// The servers of a namespace, by number.
    pub fn dnsmasq(&self, namespace: &Namespace) -> Vec<DnsmasqInfo> {
        let servers = self.dnsmasq.of(namespace);
        let info = servers.into_iter().map(|server| {
            let listen = server.record().listen.as_ref().map(|l| [l.address, l.low, l.high]);
            let (folder, pid) = (server.folder.clone(), server.process.pid());
            DnsmasqInfo { id: server.id, listen, folder, pid, ended: server.process.ended() }
        });
        info.collect()
    }

    /// End one server of a namespace, or all of them, and forget its leases.
    pub async fn kill_dnsmasq(&self, namespace: &Namespace, id: Option<&str>) -> Result<(), EngineError> {
        let servers = match id {
            Some(id) => vec![self.dnsmasq.find(namespace, id)?],
            None => self.dnsmasq.of(namespace),
        };
        let mut errors = Vec::new();
        for server in servers {
            let _turn = server.turn.lock().await;
            if !self.dnsmasq.lock().servers.contains_key(&server.id) {
                continue;
            }
            let ended = async {
                server.process.end().await?;
                remove_folder(&server.folder)
            };
            match ended.await {
                Ok(()) => drop(self.dnsmasq.lock().servers.remove(&server.id)),
                // It stays in the list, so that it can be tried again.
                Err(error) => errors.push(error),
            }
        }
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors)
    }

    /// A list of a server: its rows without the server's number.
    pub fn dnsmasq_list(
        &self,
        namespace: &Namespace,
        id: &str,
        list: DnsmasqList,
    ) -> Result<(u32, Vec<Vec<String>>), EngineError> {
        let server = self.dnsmasq.find(namespace, id)?;
        let record = server.record();
        let rows = match list {
            DnsmasqList::Leases => {
                record.leases.iter().map(|(mac, ip)| vec![mac.to_string(), ip.to_string()]).collect()
            }
            DnsmasqList::Names => record.names.iter().map(|(ip, name)| vec![ip.to_string(), name.clone()]).collect(),
            DnsmasqList::Upstream => record.upstream.iter().map(|ip| vec![ip.to_string()]).collect(),
            DnsmasqList::Options => record.options.iter().map(|option| vec![option.clone()]).collect(),
        };
        Ok((server.id, rows))
    }

    /// Change a server while it serves. On failure nothing has changed.
    pub async fn configure_dnsmasq(
        &self,
        namespace: &Namespace,
        id: &str,
        change: DnsmasqChange<'_>,
    ) -> Result<(), EngineError> {
        let server = self.dnsmasq.find(namespace, id)?;
        let _turn = server.turn.lock().await;
        if let Some(how) = server.process.ended() {
            return Err(DnsmasqError::Ended { id: server.id, how }.into());
        }
        let before = server.record().clone();
        let mut record = before.clone();
        match change {
            DnsmasqChange::Lease(mac, ip) => lease(&mut record, mac.parse().map_err(DnsmasqError::from)?, ip)?,
            DnsmasqChange::Name(ip, name) => {
                let entry = (address("address", ip)?, host_name(name)?.to_owned());
                if !record.names.contains(&entry) {
                    record.names.push(entry);
                }
            }
            DnsmasqChange::Upstream(ip) => {
                let ip = address("upstream server", ip)?;
                if !record.upstream.contains(&ip) {
                    record.upstream.push(ip);
                }
            }
            DnsmasqChange::Option(option) => {
                files::check_option(&server.folder, option).await?;
                if !record.options.iter().any(|known| known == option) {
                    record.options.push(option.to_owned());
                }
            }
        }
        let written = files::write(&server.folder, &record)
            .and_then(|()| store::write(&server.folder.join(RECORD), &record))
            .and_then(|()| server.process.signal(Signal::SIGHUP));
        if let Err(error) = written {
            // Best effort: the first error is what the caller needs to know.
            let _ = files::write(&server.folder, &before);
            let _ = store::write(&server.folder.join(RECORD), &before);
            return Err(error);
        }
        *server.record() = record;
        Ok(())
    }

    /// Adopt the servers that an earlier daemon has started; end what it left half-started.
    pub(super) async fn recover_dnsmasq(&self, notes: &mut Vec<String>) -> Result<(), EngineError> {
        for (id, folder) in numbered(&self.options.base, PREFIX)? {
            {
                let mut known = self.dnsmasq.lock();
                known.next = known.next.max(id.saturating_add(1));
            }
            let record: Option<Record> = store::read(&folder.join(RECORD)).unwrap_or_else(|error| {
                notes.push(format!("{}; its dnsmasq is ended", error.chain()));
                None
            });
            let Some((record, process)) = record.and_then(|record| record.process.map(|id| (record, id))) else {
                let ended = end_all_with(&files::argument(&folder, "pid-file", files::PID)).await;
                notes.push(format!("dnsmasq {id} was not started completely and is dropped ({ended} processes ended)"));
                remove_folder(&folder)?;
                continue;
            };
            let watched = if process::is_alive(process) {
                notes.push(format!("adopted dnsmasq {id} of {} (pid {})", record.namespace, process.pid));
                Detached::watch(process, format!("dnsmasq {id}"))
            } else {
                notes.push(format!("dnsmasq {id} of {} ended meanwhile", record.namespace));
                Detached::gone(process)
            };
            self.ensure_namespace(&record.namespace)?;
            let (namespace, record) = (record.namespace.clone(), Mutex::new(record));
            let turn = tokio::sync::Mutex::default();
            let server = Server { id, namespace, folder, record, process: watched, turn };
            self.dnsmasq.lock().servers.insert(id, Arc::new(server));
        }
        Ok(())
    }
}

fn lease(record: &mut Record, mac: Mac, ip: &str) -> Result<(), DnsmasqError> {
    let address = ipv4("address", ip)?;
    if let Some(listen) = &record.listen {
        listen.reaches(address)?;
    }
    if let Some((mac, _)) = record.leases.iter().find(|(other, given)| *given == address && *other != mac) {
        return Err(DnsmasqError::Given { address, mac: *mac });
    }
    match record.leases.iter_mut().find(|(other, _)| *other == mac) {
        Some((_, given)) => *given = address,
        None => record.leases.push((mac, address)),
    }
    Ok(())
}

/// RFC 1123, section 2.1; underscores are taken too, because names of VMs have them.
fn host_name(text: &str) -> Result<&str, DnsmasqError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    match text.len() <= TEXT_LIMIT && text.split('.').all(label) {
        true => Ok(text),
        false => Err(DnsmasqError::HostName { text: text.to_owned() }),
    }
}

/// A configuration file that can be read, by its full path.
fn configuration(path: &Path) -> Result<PathBuf, DnsmasqError> {
    let unreadable = |source| DnsmasqError::Config { path: path.to_owned(), source };
    if !path.is_absolute() {
        return Err(unreadable(std::io::Error::new(std::io::ErrorKind::InvalidInput, "its full path is needed")));
    }
    let file = std::fs::metadata(path).map_err(unreadable)?;
    if !file.is_file() {
        return Err(unreadable(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is no file")));
    }
    std::fs::File::open(path).map_err(unreadable)?;
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_labels() {
        for name in ["a", "web-1.lab", "a_b", "1", &"x".repeat(63)] {
            assert!(host_name(name).is_ok(), "{name}");
        }
        for name in ["", ".", "a.", "-a", "a-", "a b", "a\nb", "ä", "a#", &"x".repeat(64)] {
            assert!(host_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_lease_replaces_that_of_its_mac_and_takes_nobody_elses_address() {
        let listen = Listen {
            address: "10.0.0.1".parse().unwrap(),
            network: "10.0.0.1/24".parse().unwrap(),
            low: "10.0.0.10".parse().unwrap(),
            high: "10.0.0.20".parse().unwrap(),
            tap: TapName::new("t").unwrap(),
        };
        let mut record = Record {
            namespace: Namespace::default_namespace(),
            listen: Some(listen),
            config: None,
            process: None,
            leases: vec![],
            names: vec![],
            upstream: vec![],
            options: vec![],
        };
        let (a, b): (Mac, Mac) = ("52:54:00:00:00:01".parse().unwrap(), "52:54:00:00:00:02".parse().unwrap());
        lease(&mut record, a, "10.0.0.5").unwrap();
        assert!(matches!(lease(&mut record, b, "10.0.0.5"), Err(DnsmasqError::Given { mac, .. }) if mac == a));
        lease(&mut record, a, "10.0.0.6").unwrap();
        lease(&mut record, b, "10.0.0.5").unwrap();
        assert_eq!(record.leases, [(a, "10.0.0.6".parse().unwrap()), (b, "10.0.0.5".parse().unwrap())]);
        for outside in ["10.0.1.5", "10.0.0.0", "10.0.0.255"] {
            assert!(matches!(lease(&mut record, a, outside), Err(DnsmasqError::Outside { .. })), "{outside}");
        }
        assert!(matches!(lease(&mut record, a, "fd00::1"), Err(DnsmasqError::Ipv4 { .. })));
    }
}
