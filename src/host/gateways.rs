//! Gateways: small routers of a network namespace each, with one foot on a segment. What is on their other side comes
//! later, as an interface that a program makes.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::{NetworkError, Segment};
use crate::name::{Mac, TapName};

/// A gateway to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGateway {
    /// Where its network namespace is pinned.
    pub pin: PathBuf,
    /// The host tap that becomes its foot on the segment; not in [`super::Network::list`] meanwhile.
    pub tap: TapName,
    /// The segment.
    pub segment: Segment,
    /// Its address there, with the prefix length.
    pub address: (Ipv4Addr, u8),
    /// Its Ethernet address there.
    pub mac: Mac,
    /// The owner's text of the tap.
    pub owner: String,
}

/// The interface of a gateway on its segment, inside its network namespace.
pub const GATEWAY_INSIDE: &str = "inside";

/// The interface of a gateway on its other side.
pub const GATEWAY_OUTSIDE: &str = "outside";

/// Makes and removes gateways. They outlive the process. The engine's network namespace neither forwards nor has a route
/// because of them, so that gateways reach each other through nothing here.
pub trait Gateways: Send + Sync {
    /// Make a gateway. On failure nothing is left.
    fn open_gateway(&self, gateway: &NewGateway) -> Result<(), NetworkError>;
    /// Has the other side of a gateway an IPv4 address?
    fn gateway_is_ready(&self, pin: &Path) -> bool;
    /// The feet of gateways that are connected nowhere, because their bridge was deleted by hand. One that an older release
    /// has made is never among them.
    fn lost_gateways(&self) -> Result<Vec<TapName>, NetworkError>;
    /// Remove a gateway, or what is left of one. None is fine. Programs in its namespace must have ended.
    fn close_gateway(&self, pin: &Path, tap: &TapName) -> Result<(), NetworkError>;
}
