//! Host taps: interfaces of the engine on a VLAN. The kernel's own record of them (their owner text) is the only one.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

use crate::host::{Network, NetworkError, NewTap, Port, Segment, TapKind};
use crate::name::{BridgeName, Namespace, TapName, VlanTag};

use super::{Engine, EngineError, State, Vlans};

/// The address of a new tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapAddress {
    /// None.
    None,
    /// A fixed one, with its prefix length.
    Fixed(IpAddr, u8),
}

impl TapAddress {
    /// Read `10.0.0.254/24` or `fd00::1/64`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let error = || EngineError::TapAddress { text: text.to_owned() };
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(error());
        }
        Ok(TapAddress::Fixed(address, prefix))
    }
}

/// What `tap create` asks for.
#[derive(Debug, Clone)]
pub struct TapRequest {
    /// The VLAN as given.
    pub vlan: String,
    /// The bridge; None for the default one.
    pub bridge: Option<BridgeName>,
    /// The name; None for the next free `mega_tapN`.
    pub name: Option<TapName>,
    /// Its address.
    pub address: TapAddress,
}

/// One row of `tap`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapInfo {
    /// Its bridge.
    pub bridge: String,
    /// Its name.
    pub tap: TapName,
    /// Its VLAN; None while it is disconnected.
    pub vlan: Option<VlanTag>,
}

/// The owner text of a namespace's tap.
fn owner(namespace: &Namespace) -> String {
    format!("tap {namespace}")
}

/// Numbers of taps start again here: more digits do not fit an interface name.
const TAP_NUMBERS: u32 = 10_000_000;

impl State {
    /// The next name of the form `mega_tapN`. It may be taken.
    pub(super) fn next_tap(&mut self) -> TapName {
        let number = self.next_tap % TAP_NUMBERS;
        self.next_tap = (number + 1) % TAP_NUMBERS;
        TapName::new(&format!("mega_tap{number}")).expect("mega_tap and seven digits fit an interface name")
    }
}

impl Engine {
    /// The next name of the form `mega_tapN` that is not among these.
    pub(super) fn free_tap(&self, names: &HashSet<TapName>) -> TapName {
        let mut state = self.state();
        loop {
            let name = state.next_tap();
            if !names.contains(&name) {
                return name;
            }
        }
    }

    /// Create a host tap and give its name.
    pub async fn create_tap(&self, namespace: &Namespace, request: TapRequest) -> Result<TapName, EngineError> {
        let vlan = Vlans::parse(namespace, &request.vlan)?;
        let mut names = HashSet::new();
        if let Some(name) = &request.name
            && self.tap_owner(name).await?.is_some()
        {
            return Err(EngineError::TapExists);
        }
        self.ensure_namespace(namespace)?;
        let tag = self.resolve(&vlan).await?;
        let bridge = request.bridge.unwrap_or_else(BridgeName::default_bridge);
        let mut new = NewTap {
            tap: request.name.clone().unwrap_or_else(|| self.free_tap(&names)),
            kind: TapKind::Host,
            segment: Some(Segment { bridge, vlan: tag }),
            addresses: match request.address {
                TapAddress::None => Vec::new(),
                TapAddress::Fixed(address, prefix) => vec![(address, prefix)],
            },
            owner: self.owned(&owner(namespace)),
        };
        loop {
            match self.create_with_others(new.clone()).await {
                Ok(()) => return Ok(new.tap),
                // An interface of somebody else's.
                Err(EngineError::Network(NetworkError::Exists { .. })) if request.name.is_none() => {
                    names.insert(new.tap);
                    new.tap = self.free_tap(&names);
                }
                Err(error) => {
                    // Nothing was made; a network namespace that was made for it goes again.
                    let _ = self.release_network().await;
                    return Err(error);
                }
            }
        }
    }

    /// Whose tap this is, as it was told to the network; None if there is none.
    async fn tap_owner(&self, tap: &TapName) -> Result<Option<String>, EngineError> {
        let tap = tap.clone();
        self.network(move |network| network.owner(&tap)).await
    }

    /// Create a tap. Those that are asked for while others are being made are made together: a switch takes hardly longer
    /// for many than for one.
    async fn create_with_others(&self, new: NewTap) -> Result<(), EngineError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.tap_requests.waiting().push((new, answer));
        {
            let _turn = self.tap_requests.turn.lock().await;
            let batch = std::mem::take(&mut *self.tap_requests.waiting());
            if !batch.is_empty() {
                self.network(move |network| {
                    create_batch(network, batch);
                    Ok(())
                })
                .await?;
            }
        }
        // Whoever had the turn has answered.
        answered.await.expect("each request of a batch is answered").map_err(EngineError::from)
    }

    pub(super) async fn host_ports(&self, namespace: &Namespace) -> Result<Vec<Port>, EngineError> {
        let owner = owner(namespace);
        Ok(self.ports().await?.into_iter().filter(|port| port.owner == owner).collect())
    }

    /// The host taps of a namespace, by name.
    pub async fn taps(&self, namespace: &Namespace) -> Result<Vec<TapInfo>, EngineError> {
        Ok(self
            .host_ports(namespace)
            .await?
            .into_iter()
            .map(|port| TapInfo {
                bridge: port.segment.as_ref().map(|s| s.bridge.to_string()).unwrap_or_default(),
                vlan: port.segment.map(|s| s.vlan),
                tap: port.tap,
            })
            .collect())
    }

    /// Delete one host tap of a namespace, or all of them.
    pub async fn delete_taps(&self, namespace: &Namespace, name: Option<&str>) -> Result<(), EngineError> {
        if let Some(name) = name {
            return self.delete_tap(namespace, name).await;
        }
        let taps: Vec<TapName> = self.host_ports(namespace).await?.into_iter().map(|port| port.tap).collect();
        let mut errors = Vec::new();
        errors.extend(self.network(move |network| network.delete_all(&taps)).await.err());
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors)
    }

    /// Delete one host tap. Those that are deleted at the same time share one call, as those of VMs do.
    async fn delete_tap(&self, namespace: &Namespace, name: &str) -> Result<(), EngineError> {
        let tap = TapName::new(name).map_err(|_| EngineError::NoTap)?;
        let owner = self.owned(&owner(namespace));
        if self.tap_owner(&tap).await?.is_none_or(|found| found != owner)
            && !self.host_ports(namespace).await?.iter().any(|port| port.tap == tap)
        {
            return Err(EngineError::NoTap);
        }
        self.doomed().push(tap.clone());
        let _turn = self.deleting.lock().await;
        let mut batch = std::mem::take(&mut *self.doomed());
        if batch.is_empty() {
            // Whoever had the turn before took this tap along, and had the error if there was one.
            if self.tap_owner(&tap).await?.is_none_or(|found| found != owner) {
                return Ok(());
            }
            batch.push(tap);
        }
        let deleted = self.network(move |network| network.delete_all(&batch)).await;
        let released = self.release_network().await;
        EngineError::collect([deleted, released].into_iter().filter_map(Result::err).collect())
    }
}

/// Host taps that were asked for and not yet made.
#[derive(Default)]
pub(super) struct TapRequests {
    waiting: Mutex<Vec<TapRequested>>,
    /// The turn to make them.
    turn: tokio::sync::Mutex<()>,
}

type TapRequested = (NewTap, tokio::sync::oneshot::Sender<Result<(), NetworkError>>);

impl TapRequests {
    fn waiting(&self) -> MutexGuard<'_, Vec<TapRequested>> {
        self.waiting.lock().expect("no code panics while it holds the list of taps")
    }
}

/// Make all of these taps, and answer each request.
fn create_batch(network: &dyn Network, batch: Vec<TapRequested>) {
    let (taps, answers): (Vec<NewTap>, Vec<_>) = batch.into_iter().unzip();
    let together = if taps.len() > 1 { network.create_all(&taps).is_ok() } else { false };
    for (tap, answer) in taps.iter().zip(answers) {
        // If not together then each by itself, so that each has its own error.
        let result = if together { Ok(()) } else { network.create(tap) };
        if let Err(Ok(())) = answer.send(result) {
            // Nobody waits for it any more.
            let _ = network.delete(&tap.tap);
        }
    }
}
