//! Flow records: what each bridge is to export, told to the switch whenever the bridge comes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::socket::{setsockopt, sockopt};

use super::failure::kernel;
use super::network::LinuxNetwork;
use super::ports::Ports;
use crate::host::{Collecting, Netflow, NetworkError};
use crate::name::BridgeName;

/// What may wait in a socket for flow records, in bytes as the kernel counts them: those of about 50,000 flows.
const WAITING: usize = 4 << 20;

/// What bridges are to export, and whether the switch was told.
#[derive(Default)]
pub(super) struct Exports(Mutex<BTreeMap<BridgeName, (Netflow, bool)>>);

impl Exports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<BridgeName, (Netflow, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tell the switch about bridges that have come.
    pub(super) fn refresh(&self, ports: &mut Ports) -> Result<(), NetworkError> {
        let mut exports = self.lock();
        if exports.is_empty() {
            return Ok(());
        }
        let there = ports.switch().exporting()?;
        for (bridge, (settings, told)) in &mut *exports {
            // One that does not export was deleted, perhaps by hand, and is another one now.
            *told &= there.get(bridge).is_some_and(|exporting| *exporting);
            if !*told && there.contains_key(bridge) {
                ports.switch().netflow(bridge, Some(settings))?;
                *told = true;
            }
        }
        Ok(())
    }

    /// The namespace is gone, and all bridges with it.
    pub(super) fn forget(&self) {
        self.lock().values_mut().for_each(|(_, told)| *told = false);
    }
}

impl Collecting for LinuxNetwork {
    fn flow_socket(&self) -> Result<UdpSocket, NetworkError> {
        let bind = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            // Open vSwitch sends the records of many flows at once. Beyond the limit for everybody (net.core.rmem_max).
            setsockopt(&socket, sockopt::RcvBufForce, &WAITING)?;
            Ok(socket)
        };
        let open = move |_: &mut Ports| bind().map_err(kernel("open a socket for flow records"));
        self.inside(true, open)?.ok_or_else(super::network::lost)
    }

    fn export_flows(&self, bridge: &BridgeName, settings: Option<&Netflow>) -> Result<(), NetworkError> {
        let (bridge, settings) = (bridge.clone(), settings.cloned());
        let exports = Arc::clone(self.exports());
        let told = self.inside(settings.is_some(), move |ports| {
            let before = match settings.clone() {
                Some(settings) => exports.lock().insert(bridge.clone(), (settings, false)),
                None => exports.lock().remove(&bridge),
            };
            // A switch that never does it says so, whether the bridge is there or not.
            let result = match &settings {
                None => ports.switch().netflow(&bridge, None),
                Some(_) if ports.switch().exports_flows() => exports.refresh(ports),
                Some(settings) => ports.switch().netflow(&bridge, Some(settings)),
            };
            if result.is_err() {
                let mut exports = exports.lock();
                match before {
                    Some((settings, _)) => exports.insert(bridge, (settings, false)),
                    None => exports.remove(&bridge),
                };
            }
            result
        });
        told.map(|_| ())
    }
}
