//! The two requests of rtnetlink(7) that the guest needs: set a link up, add an address.
//!
//! Messages are written by hand because the guest needs two, and is better off small.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg, socket};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
/// Request, acknowledge.
const ASK: u16 = 0x1 | 0x4;
/// Replace if it exists, create if not.
const REPLACE: u16 = 0x100 | 0x400;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Use an IPv6 address at once, without duplicate address detection.
const IFA_F_NODAD: u8 = 2;
const HEADER: usize = 16;

/// A connection to the kernel's routing tables.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Open one.
    pub fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        Ok(Self { socket })
    }

    /// Set an interface up.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        self.ask(&link_up(index))
    }

    /// Add an address to an interface. One that is there already is no error.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.ask(&new_address(index, address, prefix))
    }

    fn ask(&self, message: &[u8]) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        let descriptor = self.socket.as_raw_fd();
        sendmsg(descriptor, &[IoSlice::new(message)], &[], MsgFlags::empty(), Some(&kernel))?;
        let mut answer = [0; 4096];
        let length = recv(descriptor, &mut answer, MsgFlags::empty())?;
        acknowledged(&answer[..length])
    }
}

/// RTM_NEWLINK with `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags to change.
fn link_up(index: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0];
    for field in [index, IFF_UP, IFF_UP] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    message(RTM_NEWLINK, ASK, &body)
}

/// RTM_NEWADDR with `struct ifaddrmsg`: family, prefix length, flags, scope, index; then the address as two attributes.
fn new_address(index: u32, address: IpAddr, prefix: u8) -> Vec<u8> {
    let (family, flags, octets) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, 0, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::Inet6, IFA_F_NODAD, address.octets().to_vec()),
    };
    let mut body = vec![family as u8, prefix, flags, 0];
    body.extend_from_slice(&index.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        // Both address sizes are multiples of 4, so no attribute needs padding.
        body.extend_from_slice(&(4 + octets.len() as u16).to_ne_bytes());
        body.extend_from_slice(&kind.to_ne_bytes());
        body.extend_from_slice(&octets);
    }
    message(RTM_NEWADDR, ASK | REPLACE, &body)
}

/// A netlink message: length, type, flags, sequence number, port, body.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(body);
    bytes
}

/// Read the kernel's acknowledgement: a message of type NLMSG_ERROR whose error number is 0.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is not an acknowledgement");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(short)?;
    let error = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (NLMSG_ERROR, Some(0)) => Ok(()),
        (NLMSG_ERROR, Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Err(short()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_kernel_s_layout() {
        let up = [32, 0, 0, 0, 16, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(link_up(7), up);
        let v4 = new_address(7, "10.0.0.1".parse().unwrap(), 24);
        assert_eq!(v4[..4], 40u32.to_ne_bytes());
        assert_eq!(v4[16..], [2, 24, 0, 0, 7, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 1, 8, 0, 1, 0, 10, 0, 0, 1]);
        let v6 = new_address(7, "fd00::1".parse().unwrap(), 64);
        assert_eq!(v6.len(), 64);
        assert_eq!(v6[16..28], [10, 64, 2, 0, 7, 0, 0, 0, 20, 0, 2, 0]);
    }

    #[test]
    fn an_answer_is_success_only_with_error_number_zero() {
        let answer = |kind: u16, error: i32| message(kind, 0, &error.to_ne_bytes());
        assert!(acknowledged(&answer(NLMSG_ERROR, 0)).is_ok());
        assert_eq!(acknowledged(&answer(NLMSG_ERROR, -19)).unwrap_err().raw_os_error(), Some(19));
        assert!(acknowledged(&answer(RTM_NEWLINK, 0)).is_err());
        assert!(acknowledged(&[]).is_err());
    }

    #[test]
    fn the_kernel_answers_and_its_error_comes_through() {
        // No interface has this number, so nothing can change.
        let error = Netlink::open().unwrap().set_up(u32::MAX >> 1).unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
