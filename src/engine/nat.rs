//! Ways out: a gateway on a VLAN that lets guests reach what this host reaches, and nobody reach them.
//!
//! Each is a network namespace of its own with a foot on the VLAN, in which the kernel translates addresses (nftables) and
//! hands packets to a slirp4netns(1) process. That one makes ordinary connections from the network that the daemon was
//! started in. So nothing there is changed: no interface, address, route, rule or setting; and gateways cannot reach
//! each other, nor the engine's other VLANs. They belong to a namespace and outlive the daemon.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::host::linux::process;
use crate::host::{GATEWAY_INSIDE, GATEWAY_OUTSIDE, NewGateway, ProcessId, Segment, Spawn};
use crate::name::{BridgeName, Mac, Namespace, TapName, VlanTag};

use super::detached::{Detached, LOG, end_all_with, find_admin, last_words, make_folder, numbered, remove_folder};
use super::{Engine, EngineError, Vlans, store};

/// What the folders are called, before the number.
const PREFIX: &str = "nat_";

/// The record in a folder.
const RECORD: &str = "nat.json";

/// The pin of the gateway's network namespace in a folder.
const PIN: &str = "netns";

/// How long the programs may take to be ready.
const START: Duration = Duration::from_secs(10);

/// The networks between a gateway and slirp4netns, of which the first is taken that the VLAN does not have: they are for
/// documentation (RFC 5737), so that nothing outside is hidden by them.
const BETWEEN: [&str; 2] = ["192.0.2.0/24", "198.51.100.0/24"];

/// Why a gateway was refused.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// Not an address for a gateway.
    #[error("invalid gateway `{text}`, expected an IPv4 host's address with its prefix length such as 10.0.0.254/24")]
    Address {
        /// As given.
        text: String,
    },
    /// There is one on that VLAN.
    #[error("VLAN {vlan} has the gateway {gateway} already")]
    Exists {
        /// The VLAN.
        vlan: String,
        /// Its address.
        gateway: Ipv4Net,
    },
    /// A tap on the VLAN has the address.
    #[error("{address} is already the address of tap {tap} on VLAN {vlan}")]
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// The tap.
        tap: TapName,
        /// The VLAN.
        vlan: String,
    },
    /// None on that VLAN in the namespace.
    #[error("no gateway on VLAN {vlan} in this namespace")]
    Absent {
        /// As given.
        vlan: String,
    },
    /// A program is missing.
    #[error("cannot run {program}: it is not installed (Debian package {package})")]
    Missing {
        /// The program.
        program: &'static str,
        /// What has it.
        package: &'static str,
    },
    /// It did not start.
    #[error("{program} did not start: {message}")]
    Start {
        /// Which program.
        program: &'static str,
        /// Its own words, or how it ended.
        message: String,
    },
}

/// The programs that gateways need, and Debian's packages with them.
pub(super) const PROGRAMS: [(&str, &str); 2] = [("slirp4netns", "slirp4netns"), ("nft", "nftables")];

/// A gateway as its folder remembers it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    namespace: Namespace,
    bridge: BridgeName,
    vlan: VlanTag,
    gateway: Ipv4Net,
    tap: TapName,
    /// None until it was started.
    process: Option<ProcessId>,
}

struct Gateway {
    id: u32,
    folder: PathBuf,
    record: Record,
    process: Detached,
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    next: u32,
    gateways: BTreeMap<u32, Arc<Gateway>>,
}

/// All gateways of an engine.
#[derive(Default)]
pub(super) struct Nat {
    known: Mutex<Known>,
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
}

impl Nat {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no code panics while it holds the gateways")
    }

    /// Is there any, running or ended?
    pub(super) fn any(&self) -> bool {
        !self.lock().gateways.is_empty()
    }

    fn all(&self) -> Vec<Arc<Gateway>> {
        self.lock().gateways.values().cloned().collect()
    }

    /// The tags that gateways are on.
    pub(super) fn tags(&self) -> Vec<VlanTag> {
        self.all().iter().map(|gateway| gateway.record.vlan).collect()
    }
}

/// One row of `nat`.
#[derive(Debug, Clone)]
pub struct NatInfo {
    /// Its bridge.
    pub bridge: BridgeName,
    /// Its VLAN.
    pub vlan: VlanTag,
    /// Its address with the network.
    pub gateway: Ipv4Net,
    /// The pid of its slirp4netns, also when it has ended.
    pub pid: i32,
    /// How that ended; None while it runs.
    pub ended: Option<String>,
    /// Its bridge was deleted by hand.
    pub disconnected: bool,
}

/// Read `10.0.0.254/24`.
fn gateway(text: &str) -> Result<Ipv4Net, NatError> {
    let error = || NatError::Address { text: text.to_owned() };
    let network: Ipv4Net = text.parse().map_err(|_| error())?;
    let address = network.addr();
    let usable = network.prefix_len() <= 30
        && address != network.network()
        && address != network.broadcast()
        && !address.is_loopback()
        && !address.is_multicast()
        && !address.is_unspecified();
    usable.then_some(network).ok_or_else(error)
}

/// What the gateway's kernel is told: forward from the VLAN to the outside and answers back, nothing else.
fn rules() -> String {
    format!(
        "add table ip megaform; \
         add chain ip megaform forward {{ type filter hook forward priority 0; policy drop; }}; \
         add rule ip megaform forward iifname {GATEWAY_INSIDE} oifname {GATEWAY_OUTSIDE} accept; \
         add rule ip megaform forward iifname {GATEWAY_OUTSIDE} ct state established,related accept; \
         add chain ip megaform translate {{ type nat hook postrouting priority 100; }}; \
         add rule ip megaform translate oifname {GATEWAY_OUTSIDE} masquerade"
    )
}

fn require(which: usize) -> Result<PathBuf, NatError> {
    let (program, package) = PROGRAMS[which];
    find_admin(program).ok_or(NatError::Missing { program, package })
}

impl Engine {
    /// Give a VLAN a way out by a gateway with this address. On failure nothing is left.
    pub async fn add_nat(
        self: &Arc<Self>,
        namespace: &Namespace,
        vlan: &str,
        address: &str,
        bridge: Option<&str>,
    ) -> Result<(), EngineError> {
        let parsed = Vlans::parse(namespace, vlan)?;
        let gateway = gateway(address)?;
        let bridge = bridge.map_or(Ok(BridgeName::default_bridge()), BridgeName::new)?;
        let programs = [require(0)?, require(1)?];
        let _making = self.nat.making.lock().await;
        self.ensure_namespace(namespace)?;
        let tag = self.resolve(&parsed).await?;
        let segment = Segment { bridge, vlan: tag };
        let there = self.nat.all();
        let same = |g: &&Arc<Gateway>| g.record.vlan == segment.vlan && g.record.bridge == segment.bridge;
        if let Some(there) = there.iter().find(same) {
            return Err(NatError::Exists { vlan: vlan.to_owned(), gateway: there.record.gateway }.into());
        }
        for port in self.network(|network| network.list()).await? {
            let taken = port.addresses.iter().any(|(address, _)| *address == IpAddr::V4(gateway.addr()));
            if taken && port.segment.as_ref() == Some(&segment) {
                let (address, tap) = (gateway.addr(), port.tap);
                return Err(NatError::Taken { address, tap, vlan: vlan.to_owned() }.into());
            }
        }
        let (id, folder) = loop {
            let id = {
                let mut known = self.nat.lock();
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
        let tap = self.nat_tap(id);
        let (bridge, namespace) = (segment.bridge, namespace.clone());
        let record = Record { namespace, bridge, vlan: tag, gateway, tap, process: None };
        self.run_nat(id, &folder, record, &programs).await
    }

    /// The name that a gateway's foot has while it is made; another one than that of every other engine's.
    fn nat_tap(&self, id: u32) -> TapName {
        let name = format!("mn{}{}", self.identity, id % 100_000);
        TapName::new(&name).expect("fifteen characters fit an interface name")
    }

    /// The Ethernet address of a gateway: always the same on a VLAN, because guests remember it for a while.
    fn nat_mac(&self, record: &Record) -> Mac {
        let digest = Sha256::digest(format!("{} {} {}", self.identity, record.bridge, record.vlan));
        // Locally administered, and of one machine.
        Mac::from_octets([0x02, 0x6d, digest[0], digest[1], digest[2], digest[3]])
    }

    async fn run_nat(
        self: &Arc<Self>,
        id: u32,
        folder: &Path,
        mut record: Record,
        [slirp, nft]: &[PathBuf; 2],
    ) -> Result<(), EngineError> {
        let network = self.in_network().await?;
        let pin = folder.join(PIN);
        let mut running = None;
        let started = async {
            store::write(&folder.join(RECORD), &record)?;
            let new = NewGateway {
                pin: pin.clone(),
                tap: record.tap.clone(),
                segment: Segment { bridge: record.bridge.clone(), vlan: record.vlan },
                address: (record.gateway.addr(), record.gateway.prefix_len()),
                mac: self.nat_mac(&record),
                owner: self.owned(&format!("nat {id}")),
            };
            self.network(move |network| network.open_gateway(&new)).await?;
            self.translate(folder, nft, &pin).await?;
            let spawn = Spawn {
                program: slirp.display().to_string(),
                args: arguments(&pin, record.gateway),
                environment: Vec::new(),
                folder: folder.to_owned(),
                output: folder.join(LOG),
                // It stays outside: there it connects from.
                network: None,
            };
            let spawned = tokio::task::spawn_blocking(move || process::spawn(&spawn)).await;
            let process = spawned.expect("it does not panic")?;
            record.process = Some(process);
            let process = running.insert(Detached::watch(process, format!("slirp4netns of nat {id}")));
            store::write(&folder.join(RECORD), &record)?;
            let host = Arc::clone(&self.options.network);
            let ready = || host.gateway_is_ready(&pin);
            process.ready(START, ready).await.map_err(|how| {
                let words = last_words(folder, 3, |line| !line.starts_with("WARNING") && !line.contains("tapfd="));
                let message = if words.is_empty() { how } else { words };
                EngineError::from(NatError::Start { program: PROGRAMS[0].0, message })
            })
        };
        if let Err(error) = started.await {
            if let Some(process) = &running {
                let _ = process.end().await;
            }
            // Best effort: the first error is what the caller needs to know.
            let tap = record.tap.clone();
            let _ = self.network(move |network| network.close_gateway(&pin, &tap)).await;
            let _ = remove_folder(folder);
            return Err(error);
        }
        let process = running.expect("it was started");
        let turn = tokio::sync::Mutex::default();
        let gateway = Gateway { id, folder: folder.to_owned(), record, process, turn };
        self.nat.lock().gateways.insert(id, Arc::new(gateway));
        // From here on it is what keeps the network namespace.
        drop(network);
        Ok(())
    }

    /// Load the rules into the gateway's namespace.
    async fn translate(&self, folder: &Path, nft: &Path, pin: &Path) -> Result<(), EngineError> {
        let failed = |message: String| EngineError::from(NatError::Start { program: PROGRAMS[1].0, message });
        let spawn = Spawn {
            program: nft.display().to_string(),
            args: vec![rules()],
            environment: Vec::new(),
            folder: folder.to_owned(),
            output: folder.join(LOG),
            network: Some(File::open(pin).map_err(|error| failed(error.to_string()))?.into()),
        };
        let id = tokio::task::spawn_blocking(move || process::spawn(&spawn)).await.expect("it does not panic")?;
        match process::wait_exit(id).await? {
            Some(status) if status.success() => Ok(()),
            status => {
                let words = last_words(folder, 3, |_| true);
                let how = super::exit_text(status);
                Err(failed(if words.is_empty() { how } else { words }))
            }
        }
    }

    /// The gateways of a namespace.
    pub async fn nat(&self, namespace: &Namespace) -> Result<Vec<NatInfo>, EngineError> {
        let mut gateways = self.nat.all();
        gateways.retain(|gateway| gateway.record.namespace == *namespace);
        if gateways.is_empty() {
            return Ok(Vec::new());
        }
        let lost = self.network(|network| network.lost_gateways()).await?;
        let info = gateways.into_iter().map(|gateway| NatInfo {
            disconnected: lost.contains(&gateway.record.tap),
            bridge: gateway.record.bridge.clone(),
            vlan: gateway.record.vlan,
            gateway: gateway.record.gateway,
            pid: gateway.process.pid(),
            ended: gateway.process.ended(),
        });
        Ok(info.collect())
    }

    /// Close the ways out of a VLAN of a namespace, or of all its VLANs, on a bridge or on all.
    pub async fn delete_nat(
        &self,
        namespace: &Namespace,
        vlan: Option<&str>,
        bridge: Option<&str>,
    ) -> Result<(), EngineError> {
        let bridge = bridge.map(BridgeName::new).transpose()?;
        let mut gateways = self.nat.all();
        gateways.retain(|gateway| {
            gateway.record.namespace == *namespace && bridge.as_ref().is_none_or(|on| gateway.record.bridge == *on)
        });
        if let Some(vlan) = vlan {
            let parsed = Vlans::parse(namespace, vlan)?;
            let tag = self.read_vlans(|vlans| vlans.known_tag(&parsed));
            gateways.retain(|gateway| Some(gateway.record.vlan) == tag);
            if gateways.is_empty() {
                return Err(NatError::Absent { vlan: vlan.to_owned() }.into());
            }
        }
        let mut errors = Vec::new();
        for gateway in gateways {
            let _turn = gateway.turn.lock().await;
            if !self.nat.lock().gateways.contains_key(&gateway.id) {
                continue;
            }
            let closed = async {
                gateway.process.end().await?;
                self.close_nat(&gateway.folder, &gateway.record.tap).await
            };
            match closed.await {
                Ok(()) => drop(self.nat.lock().gateways.remove(&gateway.id)),
                // It stays in the list, so that it can be tried again.
                Err(error) => errors.push(error),
            }
        }
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors)
    }

    async fn close_nat(&self, folder: &Path, tap: &TapName) -> Result<(), EngineError> {
        let (pin, tap) = (folder.join(PIN), tap.clone());
        self.network(move |network| network.close_gateway(&pin, &tap)).await?;
        remove_folder(folder)
    }

    /// Adopt the gateways that an earlier daemon has made; remove what it left half-made.
    pub(super) async fn recover_nat(&self, notes: &mut Vec<String>) -> Result<(), EngineError> {
        for (id, folder) in numbered(&self.options.base, PREFIX)? {
            {
                let mut known = self.nat.lock();
                known.next = known.next.max(id.saturating_add(1));
            }
            let record: Option<Record> = store::read(&folder.join(RECORD)).unwrap_or_else(|error| {
                notes.push(format!("{}; its gateway is removed", error.chain()));
                None
            });
            let (tap, started) = match record {
                Some(record) => (record.tap.clone(), record.process.map(|process| (record, process))),
                None => (self.nat_tap(id), None),
            };
            let Some((record, process)) = started else {
                end_all_with(&folder.join(PIN).display().to_string()).await;
                self.close_nat(&folder, &tap).await?;
                notes.push(format!("nat {id} was not made completely and is removed"));
                continue;
            };
            let watched = if process::is_alive(process) {
                notes.push(format!("adopted the gateway {} of {}", record.gateway, record.namespace));
                Detached::watch(process, format!("slirp4netns of nat {id}"))
            } else {
                notes.push(format!("the gateway {} of {} ended meanwhile", record.gateway, record.namespace));
                Detached::gone(process)
            };
            self.ensure_namespace(&record.namespace)?;
            let gateway = Gateway { id, folder, record, process: watched, turn: tokio::sync::Mutex::default() };
            self.nat.lock().gateways.insert(id, Arc::new(gateway));
        }
        Ok(())
    }
}

/// The argument vector, slirp4netns(1). Guests reach neither the host's loopback addresses nor its DNS servers by it.
fn arguments(pin: &Path, gateway: Ipv4Net) -> Vec<String> {
    let overlap = |text: &str| text.parse::<Ipv4Net>().is_ok_and(|n| n.contains(&gateway) || gateway.contains(&n));
    let between = BETWEEN.into_iter().find(|network| !overlap(network)).unwrap_or(BETWEEN[0]);
    vec![
        "--configure".to_owned(),
        "--mtu=1500".to_owned(),
        "--disable-host-loopback".to_owned(),
        "--disable-dns".to_owned(),
        "--enable-sandbox".to_owned(),
        "--enable-seccomp".to_owned(),
        format!("--cidr={between}"),
        "--netns-type=path".to_owned(),
        pin.display().to_string(),
        GATEWAY_OUTSIDE.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_a_hosts_address() {
        for text in ["10.0.0.254/24", "10.0.0.1/30", "192.0.2.1/24"] {
            assert!(gateway(text).is_ok(), "{text}");
        }
        for text in
            ["10.0.0.0/24", "10.0.0.255/24", "10.0.0.1", "10.0.0.1/31", "fd00::1/64", "127.0.0.1/8", "0.0.0.0/0"]
        {
            assert!(gateway(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_network_behind_a_gateway_is_not_that_of_its_vlan() {
        let between = |text: &str| {
            let words = arguments(Path::new("/pin"), text.parse().unwrap());
            words.into_iter().find_map(|word| word.strip_prefix("--cidr=").map(str::to_owned)).unwrap()
        };
        assert_eq!(between("10.0.0.1/24"), BETWEEN[0]);
        assert_eq!(between("192.0.2.129/25"), BETWEEN[1]);
        assert_eq!(between("192.0.0.1/16"), BETWEEN[1]);
    }
}
