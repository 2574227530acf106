//! Host taps: interfaces of the engine on a VLAN. The kernel's own record of them (their owner text) is the only one.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::host::{NetworkError, NewTap, Port, Segment, TapKind};
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
        let ports = self.network(|network| network.list()).await?;
        let mut names: HashSet<TapName> = ports.into_iter().map(|port| port.tap).collect();
        if request.name.as_ref().is_some_and(|name| names.contains(name)) {
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
            let asked = new.clone();
            match self.network(move |network| network.create(&asked)).await {
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
        let mut ports = self.host_ports(namespace).await?;
        if let Some(name) = name {
            ports.retain(|port| port.tap.as_str() == name);
            if ports.is_empty() {
                return Err(EngineError::NoTap);
            }
        }
        let taps: Vec<TapName> = ports.into_iter().map(|port| port.tap).collect();
        let mut errors = Vec::new();
        errors.extend(self.network(move |network| network.delete_all(&taps)).await.err());
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors)
    }
}
