//! Captures that hear nothing and write nothing. The filter `bad` is refused, every other is taken.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use super::{FakeNetwork, State};
use crate::host::Bonding as _;
use crate::host::{Collecting, Netflow, NetworkError, Sniff, SniffError, SniffStatus, SniffTarget, Sniffer, Sniffing};
use crate::name::BridgeName;

struct FakeSniffer {
    state: Arc<Mutex<State>>,
    path: String,
}

impl Sniffer for FakeSniffer {
    fn status(&self) -> SniffStatus {
        SniffStatus::default()
    }

    fn stop(&self) -> SniffStatus {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).effects.push(format!("sniffed {}", self.path));
        SniffStatus::default()
    }
}

impl Sniffing for FakeNetwork {
    fn check_filter(&self, filter: &str) -> Result<(), SniffError> {
        if filter == "bad" {
            return Err(SniffError::Filter { filter: filter.to_owned(), message: "syntax error".to_owned() });
        }
        Ok(())
    }

    fn sniff(&self, sniff: &Sniff) -> Result<Box<dyn Sniffer>, SniffError> {
        self.check_filter(&sniff.filter)?;
        let heard = match &sniff.heard {
            SniffTarget::Tap { owner } => format!("tap {owner}"),
            SniffTarget::Bridge(bridge) => format!("bridge {bridge}"),
        };
        let path = sniff.path.display().to_string();
        self.state().effect(format!("sniff {heard} into {path}"))?;
        Ok(Box::new(FakeSniffer { state: Arc::clone(&self.state), path }))
    }

    fn forget_sniffed(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}

impl Collecting for FakeNetwork {
    fn flow_socket(&self) -> Result<UdpSocket, NetworkError> {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .map_err(|source| NetworkError::Kernel { what: "open a socket for flow records".to_owned(), source })
    }

    fn export_flows(&self, bridge: &BridgeName, settings: Option<&Netflow>) -> Result<(), NetworkError> {
        self.netflow(bridge, settings)
    }
}
