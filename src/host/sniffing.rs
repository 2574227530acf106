//! Captures of frames into pcap files, as the engine sees them.
//!
//! Must not know VMs or commands: a NIC is a tap with its owner text, and a file is a path.

use std::path::PathBuf;

use crate::name::BridgeName;

use super::NetworkError;

/// What a capture listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SniffTarget {
    /// The tap that carries this owner text, whenever there is one: both directions, as its far end sees them.
    Tap {
        /// As in [`NewTap::owner`](super::NewTap::owner).
        owner: String,
    },
    /// Every frame that crosses a bridge, once, with an 802.1Q tag that says on which VLAN (none on VLAN 0). VLANs that
    /// come later are heard from their first frame on, and so is a bridge that is not there yet.
    Bridge(BridgeName),
}

/// A capture to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sniff {
    /// What it listens to.
    pub heard: SniffTarget,
    /// The file, absolute. It is made with mode 0600, or emptied.
    pub path: PathBuf,
    /// Go on with a file that an earlier process has left: what follows its last whole record is cut off. Without the
    /// file, it is made.
    pub resume: bool,
    /// How much of each frame is kept, in bytes, 1 to [`MAX_SNAPLEN`](super::pcap::MAX_SNAPLEN).
    pub snaplen: u32,
    /// A filter in the language of libpcap (pcap-filter(7)); empty for none. One that has the word `vlan` looks at frames as they
    /// are in the file; any other at frames without their outermost tag.
    pub filter: String,
}

/// How a capture is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SniffStatus {
    /// Frames in the file since it was started.
    pub frames: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Frames that came faster than they could be taken.
    pub dropped: u64,
    /// To how many interfaces it listens.
    pub interfaces: usize,
    /// Why it has stopped; None while it runs.
    pub stopped: Option<String>,
}

/// A capture. It ends when this is dropped.
pub trait Sniffer: Send + Sync {
    /// How it is doing. Never waits for the disk.
    fn status(&self) -> SniffStatus;
    /// End it. Every frame that was there before this call is in the file when it returns. A second time is fine.
    fn stop(&self) -> SniffStatus;
}

/// Why a capture was refused.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// The filter is none.
    #[error("invalid filter `{filter}`: {message}")]
    Filter {
        /// As given.
        filter: String,
        /// libpcap's words.
        message: String,
    },
    /// The file cannot be made or gone on with.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A folder, a device ….
    #[error("cannot capture into {}: not a regular file", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// Two captures would destroy each other's records.
    #[error("cannot capture into {}: another capture is writing it", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What an earlier process has left is not what this one writes.
    #[error("cannot go on with {}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: super::pcap::Foreign,
    },
    /// The network layer.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Captures of the engine's network.
pub trait Sniffing {
    /// Is this a filter? The empty one is.
    fn check_filter(&self, filter: &str) -> Result<(), SniffError>;
    /// Start a capture: every frame that comes after this has returned is in it. On failure nothing is left, and a file
    /// that was there before is as it was if it could not be opened.
    fn sniff(&self, sniff: &Sniff) -> Result<Box<dyn Sniffer>, SniffError>;
    /// Give up what the network had for captures that have ended.
    fn forget_sniffed(&self) -> Result<(), NetworkError>;
}
