//! Collecting flow records of bridges, as the engine sees it.

use std::net::UdpSocket;

use super::{Netflow, NetworkError};
use crate::name::BridgeName;

/// Flow records of the engine's network.
pub trait Collecting {
    /// A socket in the engine's network namespace on a port of its own of 127.0.0.1, which its switch can send to. Makes
    /// the namespace if there is none.
    fn flow_socket(&self) -> Result<UdpSocket, NetworkError>;
    /// Send flow records of a bridge as told, instead of what was told before, now and whenever the bridge comes back; None
    /// stops it. A bridge that is not there yet is waited for. On failure it is as before, but that a bridge may send
    /// nothing.
    fn export_flows(&self, bridge: &BridgeName, settings: Option<&Netflow>) -> Result<(), NetworkError>;
}
