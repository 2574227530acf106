//! What only Open vSwitch does for the engine: bonds and the export of flow records.

use super::{Bond, Netflow, NetworkError};
use crate::name::{BridgeName, TapName};

/// The part of the engine's network that a plain bridge refuses with an error that says which switch can.
pub trait Bonding {
    /// Make one port of the taps of a bond. All of them are connected, to one segment; they stay taps, and are moved and
    /// deleted as before once the bond is gone.
    fn bond(&self, bond: &Bond) -> Result<(), NetworkError>;
    /// Make the taps of a bond single ports again.
    fn unbond(&self, name: &TapName) -> Result<(), NetworkError>;
    /// The bonds, by name; none on a switch that has no bonds.
    fn bonds(&self) -> Result<Vec<Bond>, NetworkError>;
    /// Send flow records of a bridge as told, instead of what was told before; None stops it.
    fn netflow(&self, bridge: &BridgeName, settings: Option<&Netflow>) -> Result<(), NetworkError>;
    /// Whether frames cross the switch as they are handed over, so that VMs must compute all checksums themselves.
    fn plain_frames(&self) -> Result<bool, NetworkError>;
}
