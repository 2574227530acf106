//! The engine's view of the switch: bridges with their trunks, tunnels and bonds, and mirrors.
//!
//! A bridge is what a user calls one. How many interfaces or database rows stand for it is the switch's own matter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::name::{BridgeName, TapName, VlanTag};

/// The encapsulation of a tunnel. Each carries Ethernet frames with their VLAN tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// VXLAN (RFC 7348), UDP port 4789.
    Vxlan,
    /// Ethernet over GRE (RFC 2784, RFC 2890).
    Gre,
}

/// One end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// The address of the other end.
    pub remote: IpAddr,
    /// The VNI of a VXLAN (24 bits, default 0) or the key of a GRE tunnel (32 bits, default none).
    pub key: Option<u32>,
}

/// How a bond spreads its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BondMode {
    /// One port at a time.
    ActiveBackup,
    /// By source address and VLAN.
    BalanceSlb,
    /// By flow; needs LACP.
    BalanceTcp,
}

/// The part that a bond takes in the link aggregation protocol (IEEE 802.1AX).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lacp {
    /// Begins to negotiate.
    Active,
    /// Answers only.
    Passive,
    /// Takes no part.
    Off,
}

/// A bond of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// Its name, a port of the bridge.
    pub name: TapName,
    /// The taps that it is made of.
    pub taps: Vec<TapName>,
    /// How traffic is spread.
    pub mode: BondMode,
    /// Link aggregation.
    pub lacp: Lacp,
    /// Whether it works as active-backup while the far end does not negotiate.
    pub fallback: bool,
    /// Whether the VLAN is the outer one of two tags.
    pub qinq: bool,
}

/// Where the flow records of a bridge go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netflow {
    /// Collectors, `ADDRESS:PORT`.
    pub targets: Vec<String>,
    /// Seconds after which a flow that goes on is reported.
    pub active_timeout: u32,
}

/// A bridge as the switch has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeInfo {
    /// Its name.
    pub bridge: BridgeName,
    /// Whether it was there before the engine used it.
    pub preexisting: bool,
    /// The VLANs that its ports are on.
    pub vlans: BTreeSet<VlanTag>,
    /// The interfaces that carry all VLANs with their tags.
    pub trunks: Vec<String>,
    /// The tunnels, by the name of their interface.
    pub tunnels: Vec<String>,
    /// The bonds.
    pub bonds: Vec<String>,
    /// What `bridge config` has set.
    pub config: BTreeMap<String, String>,
}

/// A copy of everything that passes one tap, sent out of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mirror {
    /// The tap that is watched, in both directions.
    pub source: TapName,
    /// The tap that gets the copies. It identifies the mirror: several can have one source.
    pub destination: TapName,
}
