//! The engine's view of the switch: bridges with their trunks, tunnels and bonds, and mirrors.
//!
//! A bridge is what a user calls one. How many interfaces or database rows stand for it is the switch's own matter.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use super::NetworkError;
use crate::name::{BridgeName, TapName, VlanTag};

/// Which switch connects the taps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchChoice {
    /// The kernel's bridges.
    Linux,
    /// Open vSwitch: in a network namespace of the engine's own one that it starts itself, otherwise one that runs.
    OpenVswitch {
        /// The socket of a running one's database; None for the usual place.
        socket: Option<PathBuf>,
    },
}

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

impl TunnelKind {
    /// The word of commands.
    pub fn word(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Gre => "gre",
        }
    }

    /// The kind by its word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Vxlan, Self::Gre].into_iter().find(|kind| kind.word() == word)
    }
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

impl BondMode {
    /// As commands and Open vSwitch name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::ActiveBackup => "active-backup",
            Self::BalanceSlb => "balance-slb",
            Self::BalanceTcp => "balance-tcp",
        }
    }
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

impl Lacp {
    /// As commands and Open vSwitch name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::Off => "off",
        }
    }
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
    /// What the tunnels are, by the same names. One that an older release made tells nothing.
    pub ends: BTreeMap<String, Tunnel>,
    /// The bonds.
    pub bonds: Vec<String>,
    /// What `bridge config` has set.
    pub config: BTreeMap<String, String>,
}

impl BridgeInfo {
    /// A bridge with nothing on it.
    pub fn new(bridge: BridgeName) -> Self {
        Self {
            bridge,
            preexisting: false,
            vlans: BTreeSet::new(),
            trunks: Vec::new(),
            tunnels: Vec::new(),
            ends: BTreeMap::new(),
            bonds: Vec::new(),
            config: BTreeMap::new(),
        }
    }
}

/// A copy of everything that passes one tap, sent out of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mirror {
    /// The tap that is watched, in both directions.
    pub source: TapName,
    /// The tap that gets the copies. It identifies the mirror: several can have one source.
    pub destination: TapName,
}

/// What the engine does with the switch beyond connecting taps.
pub trait Switching {
    /// What the switch is, for `check`, such as `Linux bridges, one for each VLAN`. Makes no namespace.
    fn switch(&self) -> Result<String, NetworkError>;
    /// Every bridge of the engine, by name. One is there as long as a tap, a trunk or a tunnel is on it.
    fn bridges(&self) -> Result<Vec<BridgeInfo>, NetworkError>;
    /// Set `key=value` settings of a bridge, separated by spaces.
    fn configure(&self, bridge: &BridgeName, config: &str) -> Result<(), NetworkError>;
    /// Let an interface carry all VLANs of a bridge with their tags. It is taken from the engine's network namespace or,
    /// if it is not there, from the host's; one that has addresses or a default route is refused.
    fn trunk(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError>;
    /// Take a trunk off its bridge; it goes back where it came from.
    fn untrunk(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError>;
    /// Make a tunnel that carries all VLANs of a bridge, and answer with the name of its interface.
    fn tunnel(&self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError>;
    /// Delete a tunnel by the name of its interface.
    fn untunnel(&self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError>;
    /// Delete a bridge with its trunks and tunnels. One that has taps is refused.
    fn destroy(&self, bridge: &BridgeName) -> Result<(), NetworkError>;
    /// Send a copy of everything that passes one tap out of another. Both exist. The mirror stays when they are moved
    /// and ends with either of them.
    fn mirror(&self, mirror: &Mirror) -> Result<(), NetworkError>;
    /// End the mirrors to a tap. None is fine.
    fn unmirror(&self, destination: &TapName) -> Result<(), NetworkError>;
    /// Every mirror, sorted.
    fn mirrors(&self) -> Result<Vec<Mirror>, NetworkError>;
}
