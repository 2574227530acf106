//! Capture filters, compiled and run by libpcap (pcap-filter(7)).
//!
//! libpcap is loaded when the first filter is used, not linked: a host without it runs everything but filters, and a static
//! build needs none of what libpcap itself is linked with. Frames are filtered here and not in the kernel, because the
//! kernel never sees the VLAN tags that a bridge capture has.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::Library;
use nix::libc;

use crate::host::pcap::MAX_SNAPLEN;
use crate::host::{NetworkError, SniffError};

/// The names of the library: Debian's, then everybody else's.
const NAMES: &[&str] = &["libpcap.so.0.8", "libpcap.so.1", "libpcap.so"];
const DLT_EN10MB: c_int = 1;
const PCAP_NETMASK_UNKNOWN: c_uint = 0xffff_ffff;

/// `struct bpf_program`.
#[repr(C)]
struct Program {
    length: c_uint,
    instructions: *mut c_void,
}

/// `struct pcap_pkthdr`.
#[repr(C)]
struct PacketHeader {
    time: libc::timeval,
    kept: c_uint,
    length: c_uint,
}

/// What is used of libpcap.
struct Pcap {
    open_dead: unsafe extern "C" fn(c_int, c_int) -> *mut c_void,
    compile: unsafe extern "C" fn(*mut c_void, *mut Program, *const c_char, c_int, c_uint) -> c_int,
    error: unsafe extern "C" fn(*mut c_void) -> *mut c_char,
    close: unsafe extern "C" fn(*mut c_void),
    free: unsafe extern "C" fn(*mut Program),
    run: unsafe extern "C" fn(*const Program, *const PacketHeader, *const u8) -> c_int,
    /// Keeps the functions where they are.
    _library: Library,
}

impl Pcap {
    fn load() -> Result<Self, libloading::Error> {
        // SAFETY: libpcap has no initializers that ask for anything.
        let open = |name: &str| unsafe { Library::new(name) };
        let first = open(NAMES[0]);
        let library = first.or_else(|error| NAMES[1..].iter().find_map(|name| open(name).ok()).ok_or(error))?;
        // SAFETY: the types are those of pcap.h (pcap_open_dead(3PCAP) and the pages of the others), which have not changed
        // since libpcap 1.0; the library stays loaded as long as the functions can be called.
        unsafe {
            Ok(Self {
                open_dead: *library.get(b"pcap_open_dead\0")?,
                compile: *library.get(b"pcap_compile\0")?,
                error: *library.get(b"pcap_geterr\0")?,
                close: *library.get(b"pcap_close\0")?,
                free: *library.get(b"pcap_freecode\0")?,
                run: *library.get(b"pcap_offline_filter\0")?,
                _library: library,
            })
        }
    }

    /// The library, loaded once. That it could not be loaded is not remembered, so that it can be installed meanwhile.
    fn get() -> Result<&'static Self, SniffError> {
        static LOADED: OnceLock<Pcap> = OnceLock::new();
        if let Some(pcap) = LOADED.get() {
            return Ok(pcap);
        }
        match Self::load() {
            Ok(pcap) => Ok(LOADED.get_or_init(|| pcap)),
            Err(error) => Err(SniffError::Network(NetworkError::Unsupported {
                what: "filter captures".to_owned(),
                missing: format!("the library libpcap (Debian package libpcap0.8): {error}"),
            })),
        }
    }
}

/// A compiled filter.
pub(super) struct Filter {
    pcap: &'static Pcap,
    program: Program,
    tagged: bool,
}

// SAFETY: a compiled program is not changed until it is freed, and belongs to no thread.
unsafe impl Send for Filter {}
// SAFETY: as above; running it only reads it.
unsafe impl Sync for Filter {}

impl Filter {
    /// Compile a filter; None for the empty one. Host names in it are looked up, which may take a while.
    pub(super) fn compile(text: &str) -> Result<Option<Self>, SniffError> {
        let refused =
            |message: &str| SniffError::Filter { filter: text.to_owned(), message: message.trim().to_owned() };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let pcap = Pcap::get()?;
        let words = CString::new(text).map_err(|_| refused("it has a NUL byte"))?;
        // Before libpcap 1.8 the compiler has global state.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: takes numbers, gives a handle or null.
        let handle = unsafe { (pcap.open_dead)(DLT_EN10MB, MAX_SNAPLEN as c_int) };
        if handle.is_null() {
            return Err(refused("libpcap is out of memory"));
        }
        let mut program = Program { length: 0, instructions: ptr::null_mut() };
        // SAFETY: the handle is open, `program` and the text live for the call. On success `program` owns what it points to.
        let compiled = unsafe { (pcap.compile)(handle, &mut program, words.as_ptr(), 1, PCAP_NETMASK_UNKNOWN) };
        let result = if compiled == 0 {
            Ok(Some(Self { pcap, program, tagged: knows_vlans(text) }))
        } else {
            // SAFETY: the handle is open; its error is a text that ends in NUL, and is copied before the handle is closed.
            let message = unsafe { CStr::from_ptr((pcap.error)(handle)) }.to_string_lossy().into_owned();
            Err(refused(&message))
        };
        // SAFETY: the handle is open and not used after this. A program does not need the handle that compiled it.
        unsafe { (pcap.close)(handle) };
        result
    }

    /// Does it look at frames as they are in the file, or at those without their outermost tag?
    pub(super) fn tagged(&self) -> bool {
        self.tagged
    }

    /// Does it let this frame through?
    pub(super) fn accepts(&self, frame: &[u8]) -> bool {
        let length = c_uint::try_from(frame.len()).unwrap_or(c_uint::MAX);
        let header = PacketHeader { time: libc::timeval { tv_sec: 0, tv_usec: 0 }, kept: length, length };
        // SAFETY: the program is compiled, and header and frame live for the call; it reads `kept` bytes of the frame.
        unsafe { (self.pcap.run)(&self.program, &header, frame.as_ptr()) != 0 }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // SAFETY: the program was compiled by `compile` and is freed once.
        unsafe { (self.pcap.free)(&mut self.program) };
    }
}

/// Does a filter speak of VLAN tags?
fn knows_vlans(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && !matches!(c, '.' | '-' | '_')).any(|word| word == "vlan")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 frame with a protocol, and perhaps a tag.
    fn frame(protocol: u8, vlan: Option<u16>) -> Vec<u8> {
        let mut bare = vec![0xff; 12];
        bare.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bare.extend([0; 26]);
        let tags: Vec<_> = vlan.into_iter().map(crate::host::pcap::dot1q).collect();
        let mut out = Vec::new();
        crate::host::pcap::push_tagged(&mut out, &bare, &tags);
        out
    }

    #[test]
    fn filters_are_those_of_libpcap() {
        let udp = Filter::compile("udp").unwrap().unwrap();
        assert!(!udp.tagged() && udp.accepts(&frame(17, None)) && !udp.accepts(&frame(6, None)));
        assert!(!udp.accepts(&[]), "what is too short matches nothing");
        let vlan = Filter::compile("vlan 101 and udp").unwrap().unwrap();
        assert!(vlan.tagged() && vlan.accepts(&frame(17, Some(101))));
        assert!(!vlan.accepts(&frame(17, Some(102))) && !vlan.accepts(&frame(17, None)));
        assert!(Filter::compile(" ").unwrap().is_none());
        assert!(!knows_vlans("host my-vlan or host vlan.example"));
    }

    #[test]
    fn a_wrong_filter_is_told_in_libpcaps_words() {
        let error = Filter::compile("udp prot 53").err().unwrap().to_string();
        assert!(error.starts_with("invalid filter `udp prot 53`: ") && error.contains("syntax error"), "{error}");
        let error = Filter::compile("ip host 300.1.1.1").err().unwrap().to_string();
        assert!(error.starts_with("invalid filter `ip host 300.1.1.1`: "), "{error}");
    }
}
