//! Addresses of host taps that come from a DHCP server on their VLAN.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::NetworkError;
use crate::name::TapName;

/// Gets addresses by DHCP (RFC 2131) and keeps them: renewed in time, given back never, gone with the tap. Only the
/// address is taken; routes, name servers and everything else that a server offers is left.
pub trait Leasing: Send + Sync {
    /// Get an address for a host tap, with its prefix length, and keep it. [`NetworkError::NoLease`] if there is none
    /// within `limit`; then nobody asks any longer.
    fn lease(&self, tap: &TapName, limit: Duration) -> Result<(Ipv4Addr, u8), NetworkError>;
    /// Keep the address of a tap after the process that got it has ended, or get another one, in the background.
    fn keep_lease(&self, tap: &TapName) -> Result<(), NetworkError>;
}
