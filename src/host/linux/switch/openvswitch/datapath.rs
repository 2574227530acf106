//! What the kernel has for Open vSwitch, and what the userspace datapath needs of interfaces.

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Who moves the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datapath {
    /// The kernel's module `openvswitch`.
    Kernel,
    /// ovs-vswitchd itself, with packet sockets on the ports (datapath_type=netdev).
    Userspace,
}

impl Datapath {
    /// The one to use here.
    pub(super) fn probe() -> io::Result<Self> {
        Ok(if has_family("ovs_datapath")? { Datapath::Kernel } else { Datapath::Userspace })
    }

    /// The bridge's column `datapath_type`.
    pub(super) fn column(self) -> &'static str {
        match self {
            Datapath::Kernel => "system",
            Datapath::Userspace => "netdev",
        }
    }
}

/// Whether the kernel has a generic netlink family; asking loads its module (include/uapi/linux/genetlink.h).
fn has_family(name: &str) -> io::Result<bool> {
    const GENL_ID_CTRL: u16 = 16;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    const NLM_F_REQUEST: u16 = 1;
    const NLMSG_ERROR: u16 = 2;
    let attribute_length = u16::try_from(4 + name.len() + 1).map_err(io::Error::other)?;
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    body.extend(attribute_length.to_ne_bytes());
    body.extend(CTRL_ATTR_FAMILY_NAME.to_ne_bytes());
    body.extend(name.bytes());
    body.push(0);
    body.resize(body.len().next_multiple_of(4), 0);
    let mut message = Vec::new();
    message.extend(u32::try_from(16 + body.len()).map_err(io::Error::other)?.to_ne_bytes());
    message.extend(GENL_ID_CTRL.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&message, 0)?;
    let mut answer = vec![0; 16 << 10];
    let length = loop {
        match socket.recv(&mut &mut answer[..], 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            length => break length?,
        }
    };
    let answer = &answer[..length];
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    Ok(kind.is_some_and(|kind| kind != NLMSG_ERROR))
}

/// Let the kernel compute the checksums of what is sent on an interface at once, instead of leaving them to hardware that
/// a packet socket at the far end has not (ethtool's `tx off`).
pub(super) fn complete_checksums(interface: &str) -> io::Result<()> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    /// include/uapi/linux/ethtool.h
    const ETHTOOL_STXCSUM: u32 = 0x17;
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command: ETHTOOL_STXCSUM, data: 0 };
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL takes a `struct ifreq` whose data points to the value of the command, here a `struct
    // ethtool_value`; both live for the whole call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    nix::errno::Errno::result(done)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_there_or_not() {
        assert!(has_family("nlctrl").unwrap());
        assert!(!has_family("no-such-family").unwrap());
    }
}
