//! Packet sockets that hear one interface: frames in both directions, with the time and the VLAN tag that the kernel has
//! taken out of them (packet(7)).
//!
//! Must not know files or filters. A socket holds memory only while frames wait in it, so that hundreds of them cost little.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

use crate::host::pcap::{Tag, dot1q};

/// How many frames one call takes.
const BATCH: usize = 64;
/// The longest frame: 64 KiB that a guest hands over to be cut up (TSO), with its headers.
const FRAME: usize = 66 * 1024;
/// What may wait in a socket, in bytes as the kernel counts them: about 40,000 small frames or 14,000 large ones.
const WAITING: usize = 32 << 20;

/// A socket that is bound to an interface of the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: OwnedFd,
    index: u32,
    /// How long a frame can come out, in bytes.
    longest: usize,
}

/// Room for what one call takes.
pub(super) struct Batch {
    frames: Vec<u8>,
    controls: Vec<[u64; 16]>,
    heard: Vec<Header>,
    /// How far apart the frames are.
    stride: usize,
}

/// A frame without its bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    kept: usize,
    length: usize,
    time: Duration,
    tag: Option<Tag>,
}

/// A frame as the kernel gives it.
pub(super) struct Frame<'a> {
    /// From destination to payload, without the tag.
    pub bytes: &'a [u8],
    /// How long it was on its way, without the tag.
    pub length: usize,
    /// When, from 1970.
    pub time: Duration,
    /// Its outermost tag, which the kernel has taken out.
    pub tag: Option<Tag>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let (frames, controls) = (vec![0; BATCH * FRAME], vec![[0; 16]; BATCH]);
        Self { frames, controls, heard: Vec::with_capacity(BATCH), stride: FRAME }
    }

    /// What the last [`PacketSocket::receive`] has taken.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.heard.iter().zip(self.frames.chunks_exact(self.stride)).map(|(header, bytes)| Frame {
            bytes: &bytes[..header.kept],
            length: header.length,
            time: header.time,
            tag: header.tag,
        })
    }
}

impl PacketSocket {
    /// Listen to an interface from now on; with `promiscuous` to what is not for itself too. With `cut` the kernel gives no
    /// more than so many bytes of a frame.
    pub(super) fn open(index: u32, promiscuous: bool, cut: Option<u32>) -> io::Result<Self> {
        // Without a protocol it hears nothing until it is bound.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let longest = cut.map_or(FRAME, |cut| (cut as usize).min(FRAME));
        let socket = Self { socket: socket(AddressFamily::Packet, SockType::Raw, flags, None)?, index, longest };
        setsockopt(&socket.socket, sockopt::ReceiveTimestampns, &true)?;
        // Beyond the limit for everybody (net.core.rmem_max), which is made for small sockets.
        setsockopt(&socket.socket, sockopt::RcvBufForce, &WAITING)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        if let Some(k) = cut {
            let take = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k };
            // The kernel only reads it, during the call.
            let filter = libc::sock_fprog { len: 1, filter: (&raw const take).cast_mut() };
            socket.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)?;
        }
        let number = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        if promiscuous {
            let member = libc::packet_mreq {
                mr_ifindex: number,
                mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &member)?;
        }
        // SAFETY: `sockaddr_ll` is plain data for which all zeroes is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = number;
        // SAFETY: the descriptor is open, and the address lives for the call and has the length that is given.
        let bound = unsafe {
            libc::bind(socket.socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
        };
        if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the value lives for the call and has the length that is given; the callers
        // pass the type that packet(7) and socket(7) have for the option, and what it points to lives as long.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The interface that it was opened for.
    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Is the interface gone for good? One that is merely down is not.
    pub(super) fn deserted(&self) -> bool {
        // SAFETY: as in `open`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the descriptor is open; the kernel writes at most `length` bytes to the address and the new length to
        // `length`, both of which live for the call.
        let got = unsafe { libc::getsockname(self.socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
        got == 0 && u32::try_from(address.sll_ifindex) != Ok(self.index)
    }

    /// How many frames were lost since the last call because nobody took them in time.
    pub(super) fn take_dropped(&self) -> u64 {
        // SAFETY: `tpacket_stats` is plain data for which all zeroes is a valid value.
        let mut stats: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: as in `deserted`.
        let got = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        };
        if got == 0 { u64::from(stats.tp_drops) } else { 0 }
    }

    /// Take waiting frames, as many as fit; false if there was none. That the interface went down is no error.
    pub(super) fn receive(&self, batch: &mut Batch) -> io::Result<bool> {
        batch.heard.clear();
        batch.stride = self.longest;
        // SAFETY: `iovec` and `mmsghdr` are plain data for which all zeroes (null pointers, lengths of 0) are valid values.
        let (mut places, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) = unsafe { std::mem::zeroed() };
        let rooms = batch.frames.chunks_exact_mut(batch.stride).zip(&mut batch.controls);
        for ((place, message), (frame, control)) in places.iter_mut().zip(&mut messages).zip(rooms) {
            *place = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: self.longest };
            message.msg_hdr.msg_iov = place;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = size_of_val(control) as _;
        }
        let count = loop {
            // SAFETY: every header points to one buffer of `stride` bytes and one control buffer of the length that it
            // says. They are disjoint parts of `batch`, which is borrowed exclusively, and outlive the call.
            let count = unsafe {
                libc::recvmmsg(
                    self.socket.as_raw_fd(),
                    messages.as_mut_ptr(),
                    BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            match usize::try_from(count) {
                Ok(count) => break count,
                Err(_) => match io::Error::last_os_error() {
                    // Told once; what waits behind it is still to be had.
                    error if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    error => return Err(error),
                },
            }
        };
        for message in &messages[..count] {
            let kept = (message.msg_len as usize).min(self.longest);
            let mut header = Header { kept, length: kept, ..Header::default() };
            // SAFETY: the kernel has filled this header and its control buffer.
            unsafe { read_control(&message.msg_hdr, &mut header) };
            batch.heard.push(header);
        }
        Ok(count > 0)
    }
}

/// Read time, length and tag.
///
/// # Safety
/// The header was filled by the kernel, and its control buffer is alive.
unsafe fn read_control(message: &libc::msghdr, header: &mut Header) {
    // SAFETY: by the contract the control buffer is valid for the length in the header; the macros stay inside it, and
    // the data of a message is read unaligned.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(message);
        while !control.is_null() {
            let data = libc::CMSG_DATA(control);
            match ((*control).cmsg_level, (*control).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time: libc::timespec = data.cast::<libc::timespec>().read_unaligned();
                    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
                    header.time = Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0).min(999_999_999));
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    let auxiliary = data.cast::<libc::tpacket_auxdata>().read_unaligned();
                    header.length = auxiliary.tp_len as usize;
                    if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        let mut tag = dot1q(auxiliary.tp_vlan_tci);
                        if auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                            tag[..2].copy_from_slice(&auxiliary.tp_vlan_tpid.to_be_bytes());
                        }
                        header.tag = Some(tag);
                    }
                }
                _ => {}
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
