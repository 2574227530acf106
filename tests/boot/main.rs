//! Tests that boot real guests with QEMU, each in a network namespace of its own.
//!
//! They need root, `/dev/net/tun`, QEMU and the test guest (`scripts/guest`). What is missing is named: the test then skips
//! itself, or fails under CI=true. Waits have bounds far above what a boot takes, only so that nothing hangs.

mod bare;
mod host;
