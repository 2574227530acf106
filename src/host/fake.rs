//! A network without a kernel: records effects as lines of text and keeps its state in memory, for tests of what is
//! built on `host`.
//!
//! It refuses what the real one refuses: a name that is taken, a tap that is not there, addresses on a VM's tap.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    Gateways, Heard, Learning, Leasing, Listener, Network, NetworkError, NewGateway, NewTap, Port, Reshape, Segment,
    Shaping, TapKind, held,
};
use crate::name::{Shape, TapName};

mod sniffing;
mod switching;

/// A network in memory. Each instance is a host of its own; it forgets everything when it is dropped.
#[derive(Default)]
pub struct FakeNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    taps: BTreeMap<TapName, NewTap>,
    shapes: BTreeMap<TapName, Shape>,
    switch: switching::Switch,
    /// Whether the namespace exists.
    namespace: bool,
    effects: Vec<String>,
    failures: Vec<String>,
    listener: Option<Listener>,
}

impl FakeNetwork {
    /// A network with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The effects so far, in order, each one of:
    ///
    /// ```text
    /// namespace make
    /// create vm web0 on mega_bridge.101 for OWNER
    /// create host mgmt on mega_bridge.101 with 10.0.0.254/24 for OWNER
    /// create host mgmt on nothing for OWNER
    /// connect web0 to mega_bridge.102
    /// connect web0 to nothing
    /// lease mgmt
    /// gateway 10.0.0.254/24 on mega_bridge.101 for OWNER
    /// close gateway PIN
    /// shape web0 rate=1mbit     (or `nothing`)
    /// delete web0
    /// sniff tap OWNER into /x/a.pcap          (the file is not made)
    /// sniff bridge mega_bridge into /x/b.pcap
    /// sniffed /x/a.pcap
    /// trunk eth1 on mega_bridge
    /// no trunk eth1 on mega_bridge
    /// tunnel vxlan to 192.0.2.7 key 5 on mega_bridge
    /// no tunnel mega_vxlan0 on mega_bridge
    /// configure mega_bridge key=value
    /// destroy mega_bridge
    /// mirror web0 to mgmt
    /// no mirror to mgmt
    /// namespace remove
    /// failed: …          (one of the above that failed on request)
    /// ```
    pub fn effects(&self) -> Vec<String> {
        self.state().effects.clone()
    }

    /// The effects since the last call.
    pub fn take_effects(&self) -> Vec<String> {
        std::mem::take(&mut self.state().effects)
    }

    /// Let the next effect whose line contains `text` fail, once. Several can be waiting.
    pub fn fail_on(&self, text: &str) {
        self.state().failures.push(text.to_owned());
    }

    /// Let the listener hear of an address. False if it does not want to know it, or there is no listener.
    pub fn hear(&self, heard: Heard) -> bool {
        let listener = self.state().listener.clone();
        listener.is_some_and(|listener| listener(heard))
    }

    /// Whether the namespace exists.
    pub fn has_namespace(&self) -> bool {
        self.state().namespace
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Record an effect, or fail if that was asked for.
    fn effect(&mut self, line: String) -> Result<(), NetworkError> {
        match self.failures.iter().position(|text| line.contains(text.as_str())) {
            Some(at) => {
                self.failures.remove(at);
                self.effects.push(format!("failed: {line}"));
                Err(NetworkError::Kernel { what: line, source: io::Error::other("it was asked to fail") })
            }
            None => {
                self.effects.push(line);
                Ok(())
            }
        }
    }

    fn make_namespace(&mut self) -> Result<(), NetworkError> {
        if !self.namespace {
            self.effect("namespace make".to_owned())?;
            self.namespace = true;
        }
        Ok(())
    }

    fn known(&self, tap: &TapName) -> Result<(), NetworkError> {
        if self.taps.contains_key(tap) { Ok(()) } else { Err(NetworkError::NotFound { tap: tap.to_string() }) }
    }
}

impl Shaping for FakeNetwork {
    fn shape(&self, changes: &[Reshape]) -> Result<(), NetworkError> {
        let mut state = self.state();
        for (done, change) in changes.iter().enumerate() {
            let shaped = state.known(&change.tap).and_then(|()| state.effect(shape(&change.tap, &change.to)));
            if shaped.is_err() {
                for change in changes[..done].iter().rev() {
                    state.effect(shape(&change.tap, &change.from))?;
                }
                return shaped;
            }
        }
        state.shapes.extend(changes.iter().map(|change| (change.tap.clone(), change.to)));
        Ok(())
    }
}

fn shape(tap: &TapName, shape: &Shape) -> String {
    if shape.is_none() { format!("shape {tap} nothing") } else { format!("shape {tap} {shape}") }
}

impl Learning for FakeNetwork {
    fn learn(&self, listener: Listener) {
        self.state().listener = Some(listener);
    }

    fn forget(&self, _tap: &TapName) {}
}

/// The address that its DHCP server gives to every tap.
pub const LEASED: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 99, 0, 2), 24);

impl Leasing for FakeNetwork {
    fn lease(&self, tap: &TapName, _limit: Duration) -> Result<(Ipv4Addr, u8), NetworkError> {
        self.keep_lease(tap)?;
        Ok(LEASED)
    }

    fn keep_lease(&self, tap: &TapName) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.known(tap)?;
        state.effect(format!("lease {tap}"))?;
        if let Some(tap) = state.taps.get_mut(tap) {
            tap.addresses = vec![(LEASED.0.into(), LEASED.1)];
        }
        Ok(())
    }
}

impl Gateways for FakeNetwork {
    fn open_gateway(&self, gateway: &NewGateway) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.make_namespace()?;
        let ((address, prefix), place) = (gateway.address, place(Some(&gateway.segment)));
        state.effect(format!("gateway {address}/{prefix} on {place} for {}", gateway.owner))
    }

    fn gateway_is_ready(&self, _pin: &Path) -> bool {
        true
    }

    fn lost_gateways(&self) -> Result<Vec<TapName>, NetworkError> {
        Ok(Vec::new())
    }

    fn close_gateway(&self, pin: &Path, _tap: &TapName) -> Result<(), NetworkError> {
        self.state().effect(format!("close gateway {}", pin.display()))
    }
}

impl Network for FakeNetwork {
    /// Makes the namespace, but has none to give: children run where the test runs.
    fn enter(&self) -> Result<Option<OwnedFd>, NetworkError> {
        self.state().make_namespace()?;
        Ok(None)
    }

    fn create(&self, tap: &NewTap) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.make_namespace()?;
        if state.taps.contains_key(&tap.tap) {
            return Err(NetworkError::Exists { tap: tap.tap.to_string() });
        }
        let kind = match tap.kind {
            TapKind::Vm => "vm",
            TapKind::Host => "host",
        };
        let mut line = format!("create {kind} {} on {}", tap.tap, place(tap.segment.as_ref()));
        if !tap.addresses.is_empty() {
            if tap.kind == TapKind::Vm {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "a VM's tap takes no addresses");
                return Err(NetworkError::Kernel { what: format!("create tap {}", tap.tap), source });
            }
            let addresses: Vec<_> =
                tap.addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect();
            line += &format!(" with {}", addresses.join(" "));
        }
        state.effect(format!("{line} for {}", tap.owner))?;
        state.taps.insert(tap.tap.clone(), tap.clone());
        Ok(())
    }

    fn connect(&self, tap: &TapName, segment: Option<&Segment>) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.known(tap)?;
        state.effect(format!("connect {tap} to {}", place(segment)))?;
        if let Some(tap) = state.taps.get_mut(tap) {
            tap.segment = segment.cloned();
        }
        Ok(())
    }

    fn delete(&self, tap: &TapName) -> Result<(), NetworkError> {
        let mut state = self.state();
        state.known(tap)?;
        state.effect(format!("delete {tap}"))?;
        state.taps.remove(tap);
        state.shapes.remove(tap);
        state.switch.deleted(tap);
        Ok(())
    }

    fn owner(&self, tap: &TapName) -> Result<Option<String>, NetworkError> {
        Ok(self.state().taps.get(tap).map(|tap| tap.owner.clone()))
    }

    fn list(&self) -> Result<Vec<Port>, NetworkError> {
        let state = self.state();
        let port = |tap: &NewTap| {
            let mut addresses = tap.addresses.clone();
            addresses.sort_unstable();
            let shape = state.shapes.get(&tap.tap).copied().unwrap_or_default();
            let (segment, owner) = (tap.segment.clone(), tap.owner.clone());
            Port { tap: tap.tap.clone(), segment, addresses, owner, shape: held(shape) }
        };
        Ok(state.taps.values().map(port).collect())
    }

    fn release(&self, in_use: bool) -> Result<(), NetworkError> {
        let mut state = self.state();
        if state.namespace && state.taps.is_empty() && state.switch.is_empty() && !in_use {
            state.effect("namespace remove".to_owned())?;
            state.namespace = false;
        }
        Ok(())
    }
}

fn place(segment: Option<&Segment>) -> String {
    segment.map_or_else(|| "nothing".to_owned(), |segment| format!("{}.{}", segment.bridge, segment.vlan))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{BridgeName, VlanTag};

    fn tap(name: &str, kind: TapKind) -> NewTap {
        let segment = Segment { bridge: BridgeName::default_bridge(), vlan: VlanTag::new(101).unwrap() };
        NewTap { tap: TapName::new(name).unwrap(), kind, segment: Some(segment), addresses: vec![], owner: "me".into() }
    }

    #[test]
    fn effects_are_recorded_and_all_or_none_holds() {
        let network = FakeNetwork::new();
        let (a, mut b) = (tap("a", TapKind::Vm), tap("b", TapKind::Host));
        b.addresses = vec![("10.0.0.1".parse().unwrap(), 24)];
        network.fail_on("create host b");
        assert!(network.create_all(&[a.clone(), b.clone()]).is_err());
        assert_eq!(
            network.take_effects(),
            [
                "namespace make",
                "create vm a on mega_bridge.101 for me",
                "failed: create host b on mega_bridge.101 with 10.0.0.1/24 for me",
                "delete a",
            ]
        );
        network.create_all(&[b.clone(), a.clone()]).unwrap();
        network.connect(&b.tap, None).unwrap();
        let listed = network.list().unwrap();
        assert_eq!((&listed[0].tap, &listed[1].tap), (&a.tap, &b.tap));
        assert_eq!((&listed[1].segment, &listed[1].addresses), (&None, &b.addresses));
        network.release(false).unwrap();
        assert!(network.has_namespace());
        network.delete(&a.tap).unwrap();
        network.delete(&b.tap).unwrap();
        network.release(true).unwrap();
        assert!(network.has_namespace());
        network.release(false).unwrap();
        assert!(!network.has_namespace());
        assert_eq!(network.take_effects()[2..], ["connect b to nothing", "delete a", "delete b", "namespace remove"]);
    }

    #[test]
    fn it_refuses_what_the_kernel_refuses() {
        let network = FakeNetwork::new();
        let a = tap("a", TapKind::Vm);
        assert!(matches!(network.delete(&a.tap), Err(NetworkError::NotFound { .. })));
        assert!(matches!(network.connect(&a.tap, None), Err(NetworkError::NotFound { .. })));
        network.create(&a).unwrap();
        assert!(matches!(network.create(&a), Err(NetworkError::Exists { .. })));
        let addressed = NewTap { addresses: vec![("10.0.0.1".parse().unwrap(), 24)], ..tap("b", TapKind::Vm) };
        assert!(matches!(network.create(&addressed), Err(NetworkError::Kernel { .. })));
    }
}
