//! Bridges and mirrors. The switch is the only record of them.

use std::net::IpAddr;

use crate::host::{BridgeInfo, Mirror, NetworkError, Tunnel, TunnelKind};
use crate::name::{BridgeName, Namespace, TapName};

use super::nics::nic_index;
use super::{Engine, EngineError};

/// A VXLAN's key has 24 bits (RFC 7348).
const VXLAN_KEYS: u32 = 1 << 24;

/// Which mirrors `clear tap mirror` ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorsTo {
    /// All of the namespace.
    All,
    /// Those to a tap.
    Tap(TapName),
    /// Those to a VM's NIC, by its index, or to all of its NICs.
    Nic(String, String),
}

impl Engine {
    /// What the switch is.
    pub async fn switch(&self) -> Result<String, EngineError> {
        self.network(|network| network.switch()).await
    }

    /// Every bridge, by name.
    pub async fn bridges(&self) -> Result<Vec<BridgeInfo>, EngineError> {
        self.network(|network| network.bridges()).await
    }

    /// Configure a bridge.
    pub async fn configure_bridge(&self, bridge: &str, config: &str) -> Result<(), EngineError> {
        let (bridge, config) = (BridgeName::new(bridge)?, config.to_owned());
        self.change(move |network| network.configure(&bridge, &config)).await
    }

    /// Add a trunk to a bridge.
    pub async fn add_trunk(&self, bridge: &str, interface: &str) -> Result<(), EngineError> {
        let (bridge, interface) = (BridgeName::new(bridge)?, interface_name(interface)?);
        self.change(move |network| network.trunk(&bridge, &interface)).await
    }

    /// Take a trunk off a bridge.
    pub async fn remove_trunk(&self, bridge: &str, interface: &str) -> Result<(), EngineError> {
        let (bridge, interface) = (BridgeName::new(bridge)?, interface_name(interface)?);
        self.change(move |network| network.untrunk(&bridge, &interface)).await
    }

    /// Make a tunnel, and answer with its interface.
    pub async fn add_tunnel(
        &self,
        kind: TunnelKind,
        bridge: &str,
        remote: &str,
        key: Option<&str>,
    ) -> Result<String, EngineError> {
        let bridge = BridgeName::new(bridge)?;
        let tunnel =
            Tunnel { kind, remote: remote_address(remote)?, key: key.map(|key| parse_key(kind, key)).transpose()? };
        self.change(move |network| network.tunnel(&bridge, &tunnel)).await
    }

    /// Delete a tunnel by its interface.
    pub async fn remove_tunnel(&self, bridge: &str, interface: &str) -> Result<(), EngineError> {
        let (bridge, interface) = (BridgeName::new(bridge)?, interface_name(interface)?);
        self.change(move |network| network.untunnel(&bridge, &interface)).await
    }

    /// Delete a bridge that has no taps.
    pub async fn destroy_bridge(&self, bridge: &str) -> Result<(), EngineError> {
        let bridge = BridgeName::new(bridge)?;
        self.change(move |network| network.destroy(&bridge)).await
    }

    /// The bridges of the engine's own network. In the host's they may as well be another engine's.
    pub(super) async fn own_bridges(&self) -> Result<Vec<BridgeInfo>, EngineError> {
        let bridges = self.bridges().await?;
        // Where there is a bridge there is a network, so that entering it makes none.
        let own = bridges.is_empty() || self.network(|network| network.enter()).await?.is_some();
        Ok(if own { bridges } else { Vec::new() })
    }

    /// Delete every bridge of the engine's own network that it made and that has no taps.
    pub async fn clear_bridges(&self) -> Result<(), EngineError> {
        let mut errors = Vec::new();
        for info in self.own_bridges().await?.into_iter().filter(|info| !info.preexisting && info.vlans.is_empty()) {
            errors.extend(self.network(move |network| network.destroy(&info.bridge)).await.err());
        }
        errors.extend(self.release_network().await.err());
        EngineError::collect(errors)
    }

    /// Something that may have made the network namespace in vain, or taken the last thing out of it.
    async fn change<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn crate::host::Network) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let done = self.network(call).await;
        match self.release_network().await {
            Err(error) if done.is_ok() => Err(error),
            _ => done,
        }
    }

    /// Mirror one tap of a namespace to another. With a bridge, both have to be on it.
    pub async fn mirror_taps(
        &self,
        namespace: &Namespace,
        source: &str,
        destination: &str,
        bridge: Option<&str>,
    ) -> Result<(), EngineError> {
        let bridge = bridge.map(BridgeName::new).transpose()?;
        let ports = self.namespace_taps(namespace).await?;
        let find = |name: &str| {
            let (tap, on) = ports
                .iter()
                .find(|(tap, _)| tap.as_str() == name)
                .ok_or_else(|| EngineError::UnknownTap { tap: name.to_owned() })?;
            match &bridge {
                Some(bridge) if on.as_ref() != Some(bridge) => {
                    Err(EngineError::TapElsewhere { tap: tap.to_string(), bridge: bridge.to_string() })
                }
                _ => Ok(tap.clone()),
            }
        };
        let mirror = Mirror { source: find(source)?, destination: find(destination)? };
        self.network(move |network| network.mirror(&mirror)).await.map_err(|error| self.explain_tap(error))
    }

    /// Mirror a NIC of a VM to one of another.
    pub async fn mirror_nics(
        &self,
        namespace: &Namespace,
        source: (&str, &str),
        destination: (&str, &str),
    ) -> Result<(), EngineError> {
        let mirror = Mirror {
            source: self.nic_tap(namespace, source.0, source.1)?,
            destination: self.nic_tap(namespace, destination.0, destination.1)?,
        };
        self.network(move |network| network.mirror(&mirror)).await.map_err(|error| self.explain_tap(error))
    }

    fn nic_tap(&self, namespace: &Namespace, vm: &str, index: &str) -> Result<TapName, EngineError> {
        let vm = self.vm(namespace, vm)?;
        let index = nic_index(&vm, index)?;
        let live = vm.live();
        if !live.state.has_process() {
            return Err(EngineError::VmState { name: vm.name.to_string() });
        }
        Ok(live.nics[index].tap.clone())
    }

    /// The mirrors of a namespace: those to its taps.
    pub async fn mirrors(&self, namespace: &Namespace) -> Result<Vec<Mirror>, EngineError> {
        let all = self.network(|network| network.mirrors()).await?;
        if all.is_empty() {
            return Ok(all);
        }
        let taps = self.namespace_taps(namespace).await?;
        Ok(all.into_iter().filter(|mirror| taps.iter().any(|(tap, _)| *tap == mirror.destination)).collect())
    }

    /// End mirrors. A tap that gets none is an error, unless all were meant.
    pub async fn clear_mirrors(&self, namespace: &Namespace, which: MirrorsTo) -> Result<(), EngineError> {
        let mirrors = self.mirrors(namespace).await?;
        let mut taps: Vec<TapName> = match &which {
            MirrorsTo::All => mirrors.iter().map(|mirror| mirror.destination.clone()).collect(),
            MirrorsTo::Tap(tap) => vec![tap.clone()],
            MirrorsTo::Nic(vm, index) if index == "all" => {
                let vm = self.vm(namespace, vm)?;
                let taps: Vec<TapName> = vm.live().nics.iter().map(|nic| nic.tap.clone()).collect();
                taps.into_iter().filter(|tap| mirrors.iter().any(|mirror| mirror.destination == *tap)).collect()
            }
            MirrorsTo::Nic(vm, index) => vec![self.nic_tap(namespace, vm, index)?],
        };
        taps.sort();
        taps.dedup();
        if let Some(tap) = taps.iter().find(|tap| !mirrors.iter().any(|mirror| mirror.destination == **tap)) {
            return Err(EngineError::NoMirror { tap: tap.to_string() });
        }
        let mut errors = Vec::new();
        for tap in taps {
            match self.network(move |network| network.unmirror(&tap)).await {
                // It has gone meanwhile, and its mirrors with it.
                Err(EngineError::Network(NetworkError::NotFound { .. })) => {}
                result => errors.extend(result.err()),
            }
        }
        EngineError::collect(errors)
    }

    /// The taps of a namespace, its own and those of its VMs, with their bridges.
    async fn namespace_taps(&self, namespace: &Namespace) -> Result<Vec<(TapName, Option<BridgeName>)>, EngineError> {
        let bridge = |port: crate::host::Port| (port.tap, port.segment.map(|segment| segment.bridge));
        let mut taps: Vec<_> = self.host_ports(namespace).await?.into_iter().map(bridge).collect();
        let state = self.state();
        let vms = state.namespaces.get(namespace).into_iter().flat_map(|n| n.vms.values());
        for vm in vms {
            let live = vm.live();
            if live.state.has_process() {
                taps.extend(live.nics.iter().map(|nic| (nic.tap.clone(), nic.vlan.map(|_| nic.bridge.clone()))));
            }
        }
        Ok(taps)
    }
}

fn interface_name(text: &str) -> Result<TapName, EngineError> {
    Ok(TapName::new(text).map_err(|error| error.of("interface"))?)
}

fn remote_address(text: &str) -> Result<IpAddr, EngineError> {
    let address: Option<IpAddr> = text.parse().ok();
    let usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    address.filter(usable).ok_or_else(|| EngineError::TunnelRemote { text: text.to_owned() })
}

fn parse_key(kind: TunnelKind, text: &str) -> Result<u32, EngineError> {
    let (kind, limit) = match kind {
        TunnelKind::Vxlan => ("vxlan", VXLAN_KEYS - 1),
        TunnelKind::Gre => ("gre", u32::MAX),
    };
    let key = text.parse().ok().filter(|key| *key <= limit);
    key.ok_or_else(|| EngineError::TunnelKey { text: text.to_owned(), kind, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_ranges() {
        assert_eq!(parse_key(TunnelKind::Vxlan, "16777215").unwrap(), 16_777_215);
        assert_eq!(parse_key(TunnelKind::Gre, "4294967295").unwrap(), u32::MAX);
        let error = parse_key(TunnelKind::Vxlan, "16777216").unwrap_err();
        assert_eq!(error.to_string(), "invalid key `16777216` of a vxlan tunnel, expected a number from 0 to 16777215");
        assert!(parse_key(TunnelKind::Gre, "-1").is_err());
        for wrong in ["", "::", "0.0.0.0", "224.0.0.1", "host", "10.0.0.1/24"] {
            assert!(remote_address(wrong).is_err(), "{wrong}");
        }
        remote_address("fd00::1").unwrap();
    }
}
