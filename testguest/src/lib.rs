//! The tiny guest that megaform's demo and tests boot: a kernel from Debian, and an initramfs with nothing but a static
//! init and the network drivers.
//!
//! Two programs share this crate. `init` is process 1 of the guest; `mkguest` packs it into an initramfs. The crate
//! must not know megaform: it stands for any guest.
//!
//! # The kernel command line
//!
//! | Word | Meaning |
//! |---|---|
//! | `ip.N=ADDRESS/PREFIX` | Gives NIC `N`, counted from 0, an IPv4 or IPv6 address. May be repeated. |
//! | `poweroff=SECONDS` | Powers the guest off by itself so many seconds after init has started. |
//! | `console=ttyS0` | The kernel's own: sends its messages and init's lines to the first serial port. |
//!
//! NICs are counted in the order of their PCI addresses, bus by bus, whatever their drivers and whatever the kernel
//! calls them (see [`nic::order`]). That is the order of QEMU's `-device` arguments, and so of `networks` in an
//! experiment.
//!
//! # What it prints
//!
//! A line per NIC, then the ready line; each begins with `megaform-guest: `:
//!
//! ```text
//! megaform-guest: eth0 52:54:00:00:00:01 10.0.0.1/24
//! megaform-guest: eth1 52:54:00:00:00:02
//! megaform-guest: ready
//! ```
//!
//! From then on the kernel answers ping on each NIC for that NIC's own addresses, and ARP on no other.

#![forbid(unsafe_code)]

pub mod archive;
pub mod netlink;
pub mod nic;
pub mod options;
