//! Tap devices: /dev/net/tun (Linux `Documentation/networking/tuntap.rst`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

mod ioctl {
    // SAFETY of the wrappers is with their callers: TUNSETIFF takes a pointer to a `struct ifreq`, TUNSETPERSIST an int.
    nix::ioctl_write_ptr_bad!(
        tunsetiff,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        nix::libc::ifreq
    );
    nix::ioctl_write_int_bad!(tunsetpersist, nix::request_code_write!(b'T', 203, size_of::<nix::libc::c_int>()));
}

/// The device that makes taps.
pub(super) const DEVICE: &str = "/dev/net/tun";

/// A tap that vanishes when this is dropped, unless it was kept.
pub(super) struct Tap {
    file: File,
}

impl Tap {
    /// Open the device. Taps are made in the network namespace of the thread that opened it.
    pub(super) fn open() -> io::Result<File> {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(DEVICE)
    }

    /// Make a tap device of the shape that QEMU wants (frames without a protocol word, with a virtio header). An
    /// interface of that name is EBUSY.
    pub(super) fn create(device: File, name: &str) -> io::Result<Self> {
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
        set_interface(device.as_raw_fd(), name, flags)?;
        Ok(Self { file: device })
    }

    /// Let the device outlive this process.
    pub(super) fn keep(self) -> io::Result<()> {
        // SAFETY: the descriptor is open; the argument is a plain number.
        unsafe { ioctl::tunsetpersist(self.file.as_raw_fd(), 1) }?;
        Ok(())
    }
}

/// Attach the descriptor to a tap, as QEMU does.
pub(super) fn set_interface(device: RawFd, name: &str, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `request` is, and lives for the whole call. The
    // wrapper wants a const pointer; the kernel writes the name back, so give it one that was made from a mutable place.
    unsafe { ioctl::tunsetiff(device, &raw mut request) }?;
    Ok(())
}
