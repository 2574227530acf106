//! Shaping: what happens to frames on their way out of a tap, toward whoever is at its far end.

use super::NetworkError;
use crate::name::{Rate, Shape, TapName};

/// A change of one tap's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape {
    /// The tap.
    pub tap: TapName,
    /// The shape that it has had; it gets that again if the change fails.
    pub from: Shape,
    /// The shape that it is to have.
    pub to: Shape,
}

/// A shape as a host that has it tells it back: a rate is in whole bytes per second.
pub fn held(shape: Shape) -> Shape {
    Shape { rate: shape.rate.map(|rate| Rate::of_bytes(rate.bits() / 8)), ..shape }
}

/// Shapes taps. Only frames toward the far end of a tap (the VM) are shaped, not those that come from there.
pub trait Shaping {
    /// Change the shapes of taps, all or none. A shape stays on its tap wherever that is connected, and goes with it.
    /// A tap keeps what it has while it gets its new shape, and where the host lacks what that needs.
    fn shape(&self, changes: &[Reshape]) -> Result<(), NetworkError>;
}
