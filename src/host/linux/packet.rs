//! Packet sockets (packet(7)) with classic BPF filters: what the other modules of this folder need of them.
//!
//! Must not know what the packets are.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// One instruction of a filter.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(super) struct Statement(libc::sock_filter);

impl Statement {
    const fn new(code: u32, k: u32, yes: u8, no: u8) -> Self {
        Self(libc::sock_filter { code: code as u16, jt: yes, jf: no, k })
    }

    /// Load two bytes, big-endian, at an offset.
    pub(super) const fn load_half(at: u32) -> Self {
        Self::new(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, at, 0, 0)
    }

    /// Load the byte at an offset.
    pub(super) const fn load_byte(at: u32) -> Self {
        Self::new(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at, 0, 0)
    }

    /// Jump over so many instructions if what was loaded is equal, over so many others if not.
    pub(super) const fn jump_equal(to: u32, yes: u8, no: u8) -> Self {
        Self::new(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, to, yes, no)
    }

    /// Take the first bytes of the packet, or drop it (0).
    pub(super) const fn take(bytes: u32) -> Self {
        Self::new(libc::BPF_RET | libc::BPF_K, bytes, 0, 0)
    }
}

/// A socket in the network namespace of the calling thread that takes nothing until it is bound.
pub(super) fn open(kind: libc::c_int, filter: &'static [Statement]) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a system call on numbers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind | flags, 0) })?;
    // SAFETY: the kernel has just given this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("filters here are short"),
        // The kernel only reads it; a `Statement` has the layout of a `sock_filter`.
        filter: filter.as_ptr().cast_mut().cast(),
    };
    set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    Ok(socket)
}

/// Do not look at what goes out. A kernel before 4.20 cannot leave it out: the receiver sees it as such.
pub(super) fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    match set(socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &(1 as libc::c_int)) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        result => result,
    }
}

fn set<T>(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes at `value`, which is borrowed for the call; a filter's instructions live as
    // long as the program.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    Errno::result(done)?;
    Ok(())
}

fn address(interface: u32, protocol: u16, to: [u8; 6]) -> libc::sockaddr_ll {
    // SAFETY: `sockaddr_ll` is plain data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = interface.cast_signed();
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to);
    address
}

/// Take packets of a protocol (ETH_P_…) from now on, of one interface or of all (0).
pub(super) fn bind(socket: &OwnedFd, interface: u32, protocol: u16) -> io::Result<()> {
    let address = address(interface, protocol, [0; 6]);
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads one `sockaddr_ll`, which lives for the call.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(())
}

/// The Ethernet address of the interface that the socket is bound to.
pub(super) fn hardware_address(socket: &OwnedFd) -> io::Result<[u8; 6]> {
    let mut found = address(0, 0, [0; 6]);
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `found`, which is so long.
    Errno::result(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut found).cast(), &raw mut length) })?;
    let mut octets = [0; 6];
    octets.copy_from_slice(&found.sll_addr[..6]);
    Ok(octets)
}

/// A packet that was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// Its length; more than the buffer has where it was cut.
    pub length: usize,
    /// The index of the interface.
    pub interface: u32,
    /// PACKET_HOST, PACKET_OUTGOING, …
    pub kind: u8,
}

/// Take one packet; `WouldBlock` if there is none.
pub(super) fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut from = address(0, 0, [0; 6]);
    let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most the buffer's length to it, and one `sockaddr_ll` to `from`; both live for the call.
    let received = unsafe {
        libc::recvfrom(
            socket,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_TRUNC | libc::MSG_DONTWAIT,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    let received = Errno::result(received)?;
    Ok(Received {
        length: received.cast_unsigned(),
        interface: from.sll_ifindex.cast_unsigned(),
        kind: from.sll_pkttype,
    })
}

/// Send a packet without its Ethernet header (the socket is SOCK_DGRAM).
pub(super) fn send(socket: &OwnedFd, interface: u32, protocol: u16, to: [u8; 6], packet: &[u8]) -> io::Result<()> {
    let address = address(interface, protocol, to);
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads the packet and one `sockaddr_ll`, which both live for the call.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, (&raw const address).cast(), length)
    };
    Errno::result(sent)?;
    Ok(())
}
