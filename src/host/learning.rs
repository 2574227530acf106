//! Addresses that guests use, learned from what they send.

use std::net::IpAddr;
use std::sync::Arc;

use crate::name::{Mac, TapName};

/// A guest has shown that it uses an address: an ARP packet or an IPv6 neighbour message has come in from its tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The tap that it came from.
    pub tap: TapName,
    /// Whom the frame names as its sender, both in its header and, for ARP, in the packet.
    pub mac: Mac,
    /// The address; never an unspecified, loopback, broadcast or multicast one.
    pub address: IpAddr,
}

/// Takes what is heard. True: it is known now, and need not be told again. Must not call the network.
pub type Listener = Arc<dyn Fn(Heard) -> bool + Send + Sync>;

/// Learns the addresses of guests.
pub trait Learning: Send + Sync {
    /// Tell the listener from now on, on a thread of the network's own; it replaces an earlier one. What other traffic
    /// there is costs next to nothing: the kernel drops it.
    fn learn(&self, listener: Listener);
    /// Tell of the addresses on a tap again, although they are known.
    fn forget(&self, tap: &TapName);
}
