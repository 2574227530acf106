//! The switch of the network without a kernel.

use std::collections::BTreeMap;
use std::io;

use super::{FakeNetwork, State};
use crate::host::{Bond, Bonding, BridgeInfo, Mirror, Netflow, NetworkError, Switching, Tunnel, TunnelKind};
use crate::name::{BridgeName, TapName};

/// What is on the bridges beside taps.
#[derive(Debug, Default)]
pub(super) struct Switch {
    /// By interface: its bridge, and whether it is a tunnel.
    uplinks: BTreeMap<String, (BridgeName, bool)>,
    mirrors: Vec<Mirror>,
}

impl Switch {
    /// Does anything keep the namespace?
    pub(super) fn is_empty(&self) -> bool {
        self.uplinks.is_empty()
    }

    /// A tap has been deleted.
    pub(super) fn deleted(&mut self, tap: &TapName) {
        self.mirrors.retain(|mirror| mirror.source != *tap && mirror.destination != *tap);
    }
}

impl State {
    fn info(&self) -> BTreeMap<BridgeName, BridgeInfo> {
        let mut bridges: BTreeMap<BridgeName, BridgeInfo> = BTreeMap::new();
        let mut at = |bridge: &BridgeName, change: &dyn Fn(&mut BridgeInfo)| {
            change(bridges.entry(bridge.clone()).or_insert_with(|| BridgeInfo::new(bridge.clone())));
        };
        for segment in self.taps.values().filter_map(|tap| tap.segment.as_ref()) {
            at(&segment.bridge, &|info| info.vlans.extend([segment.vlan]));
        }
        for (name, (bridge, tunnel)) in &self.switch.uplinks {
            at(bridge, &|info| if *tunnel { &mut info.tunnels } else { &mut info.trunks }.push(name.clone()));
        }
        bridges
    }

    fn on_bridge(&self, bridge: &BridgeName) -> Result<(), NetworkError> {
        if self.info().contains_key(bridge) {
            return Ok(());
        }
        Err(NetworkError::NoBridge { bridge: bridge.to_string() })
    }

    fn take_off(&mut self, bridge: &BridgeName, interface: &TapName, tunnel: bool) -> Result<(), NetworkError> {
        self.on_bridge(bridge)?;
        let kind = if tunnel { "tunnel" } else { "trunk" };
        if self.switch.uplinks.get(interface.as_str()) != Some(&(bridge.clone(), tunnel)) {
            let interface = interface.to_string();
            return Err(NetworkError::NoUplink { bridge: bridge.to_string(), kind, interface });
        }
        self.effect(format!("no {kind} {interface} on {bridge}"))?;
        self.switch.uplinks.remove(interface.as_str());
        Ok(())
    }
}

impl Switching for FakeNetwork {
    fn switch(&self) -> Result<String, NetworkError> {
        Ok("a switch in memory".to_owned())
    }

    fn bridges(&self) -> Result<Vec<BridgeInfo>, NetworkError> {
        Ok(self.state().info().into_values().collect())
    }

    fn configure(&self, bridge: &BridgeName, config: &str) -> Result<(), NetworkError> {
        self.state().effect(format!("configure {bridge} {config}"))
    }

    fn trunk(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.make_namespace()?;
        if state.switch.uplinks.contains_key(interface.as_str()) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is one already");
            return Err(NetworkError::Kernel { what: format!("make {interface} a trunk"), source });
        }
        state.effect(format!("trunk {interface} on {bridge}"))?;
        state.switch.uplinks.insert(interface.to_string(), (bridge.clone(), false));
        Ok(())
    }

    fn untrunk(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        self.state().take_off(bridge, interface, false)
    }

    fn tunnel(&self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        let mut state = self.state();
        state.make_namespace()?;
        let (word, stem) = match tunnel.kind {
            TunnelKind::Vxlan => ("vxlan", "mega_vxlan"),
            TunnelKind::Gre => ("gre", "mega_gre"),
        };
        let key = tunnel.key.map(|key| format!(" key {key}")).unwrap_or_default();
        state.effect(format!("tunnel {word} to {}{key} on {bridge}", tunnel.remote))?;
        let free = (0..).map(|number| format!("{stem}{number}")).find(|name| !state.switch.uplinks.contains_key(name));
        let name = free.expect("there are more numbers than interfaces");
        state.switch.uplinks.insert(name.clone(), (bridge.clone(), true));
        Ok(name)
    }

    fn untunnel(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        self.state().take_off(bridge, interface, true)
    }

    fn destroy(&self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.on_bridge(bridge)?;
        let on_it = |tap: &&super::NewTap| tap.segment.as_ref().is_some_and(|segment| segment.bridge == *bridge);
        let taps: Vec<String> = state.taps.values().filter(on_it).map(|tap| tap.tap.to_string()).collect();
        if !taps.is_empty() {
            return Err(NetworkError::BridgeInUse { bridge: bridge.to_string(), taps: taps.join(", ") });
        }
        state.effect(format!("destroy {bridge}"))?;
        state.switch.uplinks.retain(|_, (own, _)| own != bridge);
        Ok(())
    }

    fn mirror(&self, mirror: &Mirror) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.known(&mirror.source)?;
        state.known(&mirror.destination)?;
        state.effect(format!("mirror {} to {}", mirror.source, mirror.destination))?;
        if !state.switch.mirrors.contains(mirror) {
            state.switch.mirrors.push(mirror.clone());
            state.switch.mirrors.sort();
        }
        Ok(())
    }

    fn unmirror(&self, destination: &TapName) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.known(destination)?;
        state.effect(format!("no mirror to {destination}"))?;
        state.switch.mirrors.retain(|mirror| mirror.destination != *destination);
        Ok(())
    }

    fn mirrors(&self) -> Result<Vec<Mirror>, NetworkError> {
        Ok(self.state().switch.mirrors.clone())
    }
}

impl Bonding for FakeNetwork {
    fn bond(&self, bond: &Bond) -> Result<(), NetworkError> {
        Err(without_bonds(&format!("make bond {}", bond.name)))
    }

    fn unbond(&self, name: &TapName) -> Result<(), NetworkError> {
        Err(without_bonds(&format!("dissolve bond {name}")))
    }

    fn bonds(&self) -> Result<Vec<Bond>, NetworkError> {
        Ok(Vec::new())
    }

    fn netflow(&self, bridge: &BridgeName, _settings: Option<&Netflow>) -> Result<(), NetworkError> {
        Err(without_bonds(&format!("export netflow of bridge {bridge}")))
    }

    fn plain_frames(&self) -> Result<bool, NetworkError> {
        Ok(false)
    }
}

fn without_bonds(what: &str) -> NetworkError {
    NetworkError::Unsupported { what: what.to_owned(), missing: "its switch is in memory".to_owned() }
}
