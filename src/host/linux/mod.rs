//! The traits of `host` on Linux: rtnetlink, network namespaces, tap devices, processes by pidfd, captures
//! by packet sockets. The only place with
//! `unsafe`.
//!
//! Must not know VMs or commands.

pub mod accelerator;
mod bpf;
mod capture_file;
mod classifier;
mod collecting;
mod dhcp;
mod failure;
mod filter;
mod gateways;
mod learning;
pub mod memory;
mod namespace;
mod netlink;
mod network;
mod packet;
mod packet_socket;
mod ports;
pub mod process;
pub mod program;
mod sniffing;
mod switch;
mod tc;
mod tun;
mod vlan_filter;

pub use capture_file::{CaptureFile, Content};
pub use namespace::{exec_in, run_in};
pub use network::LinuxNetwork;

#[cfg(test)]
mod testing {
    //! What the tests of this folder share.

    /// Whether the test may make namespaces and interfaces. A test without the right to is skipped, but not in CI.
    pub(super) fn root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs root");
            eprintln!("skipped: this test needs root");
        }
        root
    }
}
