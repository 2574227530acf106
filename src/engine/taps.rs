//! Host taps: interfaces of the engine on a VLAN. The kernel's own record of them (their owner text) is the only one.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

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
    /// One that a DHCP server on the VLAN gives.
    Dhcp,
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
fn owner(namespace: &Namespace, address: &TapAddress) -> String {
    match address {
        TapAddress::Dhcp => format!("tap {namespace}{DHCP}"),
        TapAddress::None | TapAddress::Fixed(..) => format!("tap {namespace}"),
    }
}

/// Ends the owner text of a tap whose address comes from a DHCP server.
const DHCP: &str = " dhcp";

/// How long a DHCP server may take.
const LEASE: Duration = Duration::from_secs(15);

/// The namespace of a host tap by its owner text, and whether its address comes from a DHCP server.
pub(super) fn read_owner(owner: &str) -> Option<(Namespace, bool)> {
    let text = owner.strip_prefix("tap ")?;
    let (name, dhcp) = text.strip_suffix(DHCP).map_or((text, false), |name| (name, true));
    Some((Namespace::new(name).ok()?, dhcp))
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
            addresses: match request.address.clone() {
                TapAddress::None | TapAddress::Dhcp => Vec::new(),
                TapAddress::Fixed(address, prefix) => vec![(address, prefix)],
            },
            owner: self.owned(&owner(namespace, &request.address)),
        };
        loop {
            match self.create_with_others(new.clone()).await {
                Ok(()) if request.address == TapAddress::Dhcp => return self.lease(new.tap).await,
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
            let mut turn = self.tap_requests.turn.lock().await;
            let batch = self.tap_requests.gather(&mut turn).await;
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

    /// Get an address for a new tap. Without one the tap goes again.
    async fn lease(&self, tap: TapName) -> Result<TapName, EngineError> {
        let name = tap.clone();
        match self.network(move |network| network.lease(&name, LEASE)).await {
            Ok(_) => Ok(tap),
            Err(error) => {
                // Best effort: the first error is what the caller needs to know.
                let _ = self.network(move |network| network.delete(&tap)).await;
                let _ = self.release_network().await;
                Err(error)
            }
        }
    }

    /// The host taps of a namespace as the host has them, by name.
    pub(super) async fn host_ports(&self, namespace: &Namespace) -> Result<Vec<Port>, EngineError> {
        let of = |port: &Port| read_owner(&port.owner).is_some_and(|(owner, _)| owner == *namespace);
        Ok(self.ports().await?.into_iter().filter(of).collect())
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

    /// Delete one host tap. Those that are asked for while others are being deleted are deleted together.
    async fn delete_tap(&self, namespace: &Namespace, name: &str) -> Result<(), EngineError> {
        let tap = TapName::new(name).map_err(|_| EngineError::NoTap)?;
        let owners = [TapAddress::None, TapAddress::Dhcp].map(|address| self.owned(&owner(namespace, &address)));
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.tap_deletions.waiting().push(Deletion { tap, owners, answer });
        {
            let mut turn = self.tap_deletions.turn.lock().await;
            let batch = self.tap_deletions.gather(&mut turn).await;
            if !batch.is_empty() {
                self.network(move |network| {
                    delete_batch(network, batch);
                    Ok(())
                })
                .await?;
                self.release_network().await?;
            }
        }
        // Whoever had the turn has answered.
        answered.await.expect("each request of a batch is answered")
    }
}

/// A host tap that is to go.
pub(super) struct Deletion {
    tap: TapName,
    /// One of these is its owner text, if it is the namespace's.
    owners: [String; 2],
    answer: tokio::sync::oneshot::Sender<Result<(), EngineError>>,
}

/// Delete all of these taps, and answer each request.
fn delete_batch(network: &dyn Network, batch: Vec<Deletion>) {
    let mut ours = Vec::with_capacity(batch.len());
    for deletion in batch {
        match is_there(network, &deletion) {
            Ok(true) => ours.push(deletion),
            // Whoever does not wait for the answer any more needs none.
            Ok(false) => drop(deletion.answer.send(Err(EngineError::NoTap))),
            Err(error) => drop(deletion.answer.send(Err(error.into()))),
        }
    }
    let taps: Vec<TapName> = ours.iter().map(|deletion| deletion.tap.clone()).collect();
    let together = network.delete_all(&taps);
    for deletion in ours {
        // If not together then each by itself, so that each has its own error.
        let result = match &together {
            Ok(()) => Ok(()),
            Err(_) => match network.delete(&deletion.tap) {
                Ok(()) | Err(NetworkError::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            },
        };
        drop(deletion.answer.send(result));
    }
}

/// Whether a tap is there and belongs to whom it should. One that somebody renamed is found among all.
fn is_there(network: &dyn Network, deletion: &Deletion) -> Result<bool, NetworkError> {
    if network.owner(&deletion.tap)?.is_some_and(|owner| deletion.owners.contains(&owner)) {
        return Ok(true);
    }
    Ok(network.list()?.iter().any(|port| port.tap == deletion.tap && deletion.owners.contains(&port.owner)))
}

/// How long others are waited for at most, and how long at most for the next one.
const GATHER: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(3);

/// What was asked for and is done together with what else was asked for meanwhile.
pub(super) struct Together<T> {
    waiting: Mutex<Vec<T>>,
    /// The turn to do it, with how many were done in the last one.
    turn: tokio::sync::Mutex<usize>,
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::new(1) }
    }
}

/// A host tap that is to be made.
pub(super) type TapRequested = (NewTap, tokio::sync::oneshot::Sender<Result<(), NetworkError>>);

impl<T> Together<T> {
    /// What waits now, for whoever has the turn. Clients whose commands were done together send their next ones in the
    /// same moment: as many are waited for, but only as long as they keep coming. One client alone is never held up.
    async fn gather(&self, last: &mut usize) -> Vec<T> {
        let start = tokio::time::Instant::now();
        let mut seen = self.waiting().len();
        // Nothing is left to do if another's turn has done it.
        while (1..*last).contains(&seen) && start.elapsed() < GATHER {
            tokio::time::sleep(PAUSE).await;
            let now = self.waiting().len();
            if now == seen {
                break;
            }
            seen = now;
        }
        let batch = std::mem::take(&mut *self.waiting());
        if !batch.is_empty() {
            *last = batch.len();
        }
        batch
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<T>> {
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
