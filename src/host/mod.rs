//! Narrow traits over the operating system. `linux` carries them out and is the only place with `unsafe`; `fake`
//! records effects as text for tests.
//!
//! Must not know VMs, namespaces of minimega or commands: only processes, interfaces, bridges and network namespaces.
//! Every call here may block; callers in async code go through `spawn_blocking`.

mod bonding;
mod collecting;
pub mod fake;
mod gateways;
mod learning;
mod leasing;
pub mod linux;
pub mod netflow;
pub mod pcap;
mod shaping;
mod sniffing;
mod switching;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::name::{BridgeName, Shape, TapName, VlanTag};

pub use bonding::Bonding;
pub use collecting::Collecting;
pub use gateways::{GATEWAY_INSIDE, GATEWAY_OUTSIDE, Gateways, NewGateway};
pub use learning::{Heard, Learning, Listener};
pub use leasing::Leasing;
pub use shaping::{Reshape, Shaping, held};
pub use sniffing::{Sniff, SniffError, SniffStatus, SniffTarget, Sniffer, Sniffing};
pub use switching::{Bond, BondMode, BridgeInfo, Lacp, Mirror, Netflow, SwitchChoice, Switching, Tunnel, TunnelKind};

/// The place of a port: a user's bridge and a VLAN on it. Each is one broadcast domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The bridge as the user knows it.
    pub bridge: BridgeName,
    /// The VLAN.
    pub vlan: VlanTag,
}

/// A tap as the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The tap.
    pub tap: TapName,
    /// Where it is connected; None while disconnected.
    pub segment: Option<Segment>,
    /// Its addresses with prefix lengths (link-local IPv6 left out).
    pub addresses: Vec<(IpAddr, u8)>,
    /// The text that was given as its owner when it was created, kept by the kernel (IFLA_IFALIAS).
    pub owner: String,
    /// What happens to frames toward its far end, as [`held`] has it. Only what a shape can say of what is there.
    pub shape: Shape,
}

/// Who is at the far end of a tap. Users see both as a tap with its name; the host builds them differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TapKind {
    /// A VM: a persistent tap device that QEMU opens by its name. Takes no addresses, because a port of a bridge hands
    /// every frame to the bridge and none to the host's own IP stack.
    Vm,
    /// The engine itself: an interface of that name on the segment, with or without addresses.
    Host,
}

/// What to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTap {
    /// The tap's name.
    pub tap: TapName,
    /// Who is at its far end.
    pub kind: TapKind,
    /// Where it is connected from the start; None for not at all.
    pub segment: Option<Segment>,
    /// Addresses of the engine on the segment, with prefix lengths. Only for [`TapKind::Host`].
    pub addresses: Vec<(IpAddr, u8)>,
    /// At most 200 bytes without control characters; tells whom the tap belongs to after a restart.
    pub owner: String,
}

/// Why the network refused.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The host lacks something; `missing` says what and what would provide it.
    #[error("this host cannot {what}: {missing}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What is missing, such as `the kernel option CONFIG_BRIDGE`.
        missing: String,
    },
    /// A tap or interface of that name exists.
    #[error("interface {tap} exists already")]
    Exists {
        /// The name.
        tap: String,
    },
    /// There is no tap of that name.
    #[error("no tap {tap}")]
    NotFound {
        /// The name.
        tap: String,
    },
    /// No DHCP server gave an address.
    #[error("no DHCP server has given {tap} an address within {seconds} s")]
    NoLease {
        /// The tap.
        tap: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// There is no interface of that name, neither in the engine's network namespace nor in the host's.
    #[error("no interface {interface}, neither in the engine's network nor in the host's")]
    NoInterface {
        /// The name.
        interface: String,
    },
    /// There is no bridge of that name.
    #[error("no bridge {bridge}")]
    NoBridge {
        /// The name.
        bridge: String,
    },
    /// The bridge does not have that trunk or tunnel.
    #[error("bridge {bridge} has no {kind} {interface}")]
    NoUplink {
        /// The bridge.
        bridge: String,
        /// `trunk` or `tunnel`.
        kind: &'static str,
        /// The name that was given.
        interface: String,
    },
    /// The bridge still has taps.
    #[error("bridge {bridge} has taps ({taps}), disconnect or delete them first")]
    BridgeInUse {
        /// The bridge.
        bridge: String,
        /// Their names.
        taps: String,
    },
    /// The kernel refused an operation.
    #[error("cannot {what}")]
    Kernel {
        /// The operation, such as `create bridge mb0.101`.
        what: String,
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// The switch refused an operation.
    #[error("cannot {what}")]
    Switch {
        /// The operation, such as `connect tap mega_tap0`.
        what: String,
        /// Its error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where the engine's network lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkPlace {
    /// In a network namespace of its own, pinned by a bind mount at this path while it has anything in it.
    Own {
        /// The mount point.
        pin: PathBuf,
    },
    /// In the network namespace that the daemon was started in.
    Host,
}

/// The engine's network: taps on segments. One broadcast domain per segment, whatever the host's switch is.
///
/// The network namespace is made at the first need and goes when [`Network::release`] finds it empty; bridges likewise
/// come with the first port of a segment and go with the last. Everything survives the process and is found again.
pub trait Network:
    Bonding + Collecting + Gateways + Learning + Leasing + Shaping + Sniffing + Switching + Send + Sync
{
    /// A descriptor of the network namespace for a child process to enter; None when it is the daemon's own. Makes the
    /// namespace if there is none.
    fn enter(&self) -> Result<Option<OwnedFd>, NetworkError>;
    /// Create a persistent tap, connected and addressed as described; frames pass as soon as this returns. A tap that is
    /// connected nowhere has its link down. On failure nothing is left.
    fn create(&self, tap: &NewTap) -> Result<(), NetworkError>;
    /// Create many taps; all or none.
    fn create_all(&self, taps: &[NewTap]) -> Result<(), NetworkError> {
        for (done, tap) in taps.iter().enumerate() {
            if let Err(error) = self.create(tap) {
                for tap in &taps[..done] {
                    // Best effort: the first error is what the caller needs to know.
                    let _ = self.delete(&tap.tap);
                }
                return Err(error);
            }
        }
        Ok(())
    }
    /// Move a tap to a segment, or disconnect it.
    fn connect(&self, tap: &TapName, segment: Option<&Segment>) -> Result<(), NetworkError>;
    /// Delete a tap. One that is not there is an error.
    fn delete(&self, tap: &TapName) -> Result<(), NetworkError>;
    /// Delete taps; those that are not there are fine. Much faster than one by one.
    fn delete_all(&self, taps: &[TapName]) -> Result<(), NetworkError> {
        taps.iter().try_for_each(|tap| match self.delete(tap) {
            Err(NetworkError::NotFound { .. }) => Ok(()),
            result => result,
        })
    }
    /// The owner's text of a tap; None if there is no tap of that name. Finds none that was renamed by hand.
    fn owner(&self, tap: &TapName) -> Result<Option<String>, NetworkError>;
    /// Every tap that this engine made and that is still there, sorted by name.
    fn list(&self) -> Result<Vec<Port>, NetworkError>;
    /// Remove the namespace if `in_use` is false and nothing is left in it: no tap, no trunk and no tunnel. Bridges without
    /// any go in any case.
    fn release(&self, in_use: bool) -> Result<(), NetworkError>;
}

/// A program to start, detached from the daemon: own session, no inherited descriptors, standard input from /dev/null.
#[derive(Debug)]
pub struct Spawn {
    /// The program, a path or a name to find in PATH.
    pub program: String,
    /// Its arguments, passed as they are.
    pub args: Vec<String>,
    /// Its working folder.
    pub folder: PathBuf,
    /// The file that takes its standard output and standard error (created, mode 0600, truncated).
    pub output: PathBuf,
    /// Added to the daemon's environment.
    pub environment: Vec<(String, String)>,
    /// The network namespace to enter first.
    pub network: Option<OwnedFd>,
}

/// A process, safe against reuse of its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    /// The pid in the daemon's pid namespace.
    pub pid: i32,
    /// Its start time in clock ticks since boot (proc(5), /proc/PID/stat field 22).
    pub started: u64,
}
