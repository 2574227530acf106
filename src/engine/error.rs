//! What the engine can refuse, in minimega's wording where scripts match on it.

use std::path::PathBuf;

use crate::host::NetworkError;
use crate::language::field::FieldError;
use crate::language::range::RangeError;
use crate::name::{NameError, ShapeError};

use super::mesh::MeshError;
use super::queue::QueueError;
use super::schedule::ScheduleError;
use super::vlans::VlanError;

/// Why the engine refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A shape of traffic.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A range that does not parse.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A field's value.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A netspec.
    #[error(transparent)]
    NetSpec(#[from] crate::language::netspec::NetSpecError),
    /// No NIC to add.
    #[error("no NIC to add, expected at least one netspec such as `dmz` or `mega_bridge,dmz,virtio-net-pci`")]
    NoNetSpec,
    /// A NIC that is to add an outer VLAN tag by itself.
    #[error(
        "the netspec `{text}` asks for qinq, which no single NIC here has: leave it out. A bond adds an outer VLAN tag \
         (`vm net bond … qinq`, on Open vSwitch)"
    )]
    NicQinq {
        /// The netspec.
        text: String,
    },
    /// A VLAN.
    #[error(transparent)]
    Vlan(#[from] VlanError),
    /// The queue, or the hosts of a namespace.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// No host for a VM.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A setting of the mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A pipe or pipeline.
    #[error(transparent)]
    Plumb(#[from] super::plumb::PlumbError),
    /// A background process.
    #[error(transparent)]
    Background(#[from] super::background::BackgroundError),
    /// A capture.
    #[error(transparent)]
    Capture(#[from] super::CaptureError),
    /// A medium.
    #[error(transparent)]
    Media(#[from] super::MediaError),
    /// A USB disk.
    #[error(transparent)]
    Usb(#[from] super::UsbError),
    /// A CD-ROM drive.
    #[error(transparent)]
    Cdrom(#[from] super::CdromError),
    /// A DHCP and DNS server.
    #[error(transparent)]
    Dnsmasq(#[from] super::dnsmasq::DnsmasqError),
    /// A gateway to the outside.
    #[error(transparent)]
    Nat(#[from] super::nat::NatError),
    /// What guests write on serial ports.
    #[error(transparent)]
    Serial(#[from] super::serial::SerialError),
    /// The network layer.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The files folder.
    #[error(transparent)]
    Files(#[from] super::FilesError),
    /// What was to be fetched.
    #[error(transparent)]
    Fetch(#[from] super::FetchError),
    /// A delay that is none.
    #[error("invalid delay `{text}`, expected whole seconds")]
    Delay {
        /// As given.
        text: String,
    },
    /// How often is no duration.
    #[error("invalid frequency `{text}`, expected a duration such as 5s or 500ms, at least 10ms, or 0 for none")]
    Frequency {
        /// As given.
        text: String,
    },
    /// No VM of that name or id.
    #[error("vm not found: {target}")]
    VmNotFound {
        /// As given.
        target: String,
    },
    /// A VM that is in the wrong state.
    #[error("VM state error: {name}")]
    VmState {
        /// The VM.
        name: VmNameText,
    },
    /// A VM that still runs.
    #[error("vm {name} is {state}, `vm kill {name}` first")]
    VmAlive {
        /// The VM.
        name: VmNameText,
        /// Its state.
        state: &'static str,
    },
    /// A VM that was killed before it was up.
    #[error("vm {name} was killed while it was starting")]
    Killed {
        /// The VM.
        name: VmNameText,
    },
    /// The name is taken.
    #[error("vm already exists with name `{name}`")]
    VmExists {
        /// The name.
        name: VmNameText,
    },
    /// The UUID is taken.
    #[error("vm already exists with UUID `{uuid}`")]
    UuidExists {
        /// The UUID.
        uuid: String,
    },
    /// One UUID for several VMs.
    #[error("uuid `{uuid}` is set and {count} VMs are to be launched, only one VM can have it")]
    UuidShared {
        /// The UUID.
        uuid: String,
        /// How many VMs.
        count: usize,
    },
    /// One MAC for several NICs.
    #[error("MAC {mac} is already that of {owner}")]
    MacExists {
        /// The address.
        mac: crate::name::Mac,
        /// Whose it is.
        owner: String,
    },
    /// A name twice in one launch.
    #[error("`{name}` is specified twice in VMs to launch")]
    LaunchTwice {
        /// The name.
        name: String,
    },
    /// A launch of nothing.
    #[error("no VMs to launch")]
    LaunchNothing,
    /// A count that is not positive.
    #[error("invalid number of vms (must be > 0)")]
    LaunchCount,
    /// Too many at once.
    #[error("{count} VMs in one launch, the limit is {limit}")]
    LaunchLimit {
        /// How many.
        count: u64,
        /// The limit.
        limit: u64,
    },
    /// Bonds of a launch, which nothing here makes.
    #[error(
        "bonds are not made by a launch: `clear vm config bonds`, and `vm net bond` once the VMs are there (it needs Open \
         vSwitch)"
    )]
    Bonds,
    /// One name for several bonds.
    #[error("a bond's name is set and {count} VMs are to be bonded, only one VM can have it")]
    BondShared {
        /// How many VMs.
        count: usize,
    },
    /// A bond of fewer than two NICs.
    #[error("a bond needs two interfaces or more, expected indexes such as 0,1 or 0-3, found `{text}`")]
    BondOfOne {
        /// What was given.
        text: String,
    },
    /// A VM whose taps are not there.
    #[error("{name} does not run, so its interfaces cannot be bonded; start it first")]
    BondStopped {
        /// The VM.
        name: String,
    },
    /// No bond of that name.
    #[error("no bond {name} on these VMs")]
    NoBond {
        /// The name.
        name: String,
    },
    /// An override that leaves no command line.
    #[error(transparent)]
    Override(#[from] super::overrides::OverrideError),
    /// No saved configuration of that name.
    #[error("config {name} does not exist")]
    NoConfig {
        /// The name.
        name: String,
    },
    /// A NIC index that the VM does not have.
    #[error("no network {index}, VM only has {count} networks")]
    NoNetwork {
        /// As given.
        index: String,
        /// How many NICs there are.
        count: usize,
    },
    /// The tap name is taken.
    #[error("tap already on bridge")]
    TapExists,
    /// No tap of that name in the namespace.
    #[error("unknown tap")]
    NoTap,
    /// The tap of a NIC is not there any more.
    #[error(
        "no tap {tap}, which NIC {index} of {vm} had: it was deleted by hand; `vm kill {vm}` and `vm start {vm}` make it again"
    )]
    NicTap {
        /// The tap.
        tap: String,
        /// The VM.
        vm: String,
        /// The number of the NIC.
        index: usize,
    },
    /// The same, where several are named.
    #[error("no tap {tap}, neither one of this namespace (`tap`) nor one of its VMs (`vm info`)")]
    UnknownTap {
        /// As given.
        tap: String,
    },
    /// A tap that is on another bridge than was said, or on none.
    #[error("tap {tap} is not on bridge {bridge}")]
    TapElsewhere {
        /// The tap.
        tap: String,
        /// The bridge.
        bridge: String,
    },
    /// A tap that gets no copies.
    #[error("no mirror to {tap}")]
    NoMirror {
        /// The tap.
        tap: String,
    },
    /// The far end of a tunnel that is none.
    #[error("invalid remote address `{text}`, expected an IPv4 or IPv6 address of one host")]
    TunnelRemote {
        /// As given.
        text: String,
    },
    /// A tunnel's key that is none.
    #[error("invalid key `{text}` of a {kind} tunnel, expected a number from 0 to {limit}")]
    TunnelKey {
        /// As given.
        text: String,
        /// The kind of tunnel.
        kind: &'static str,
        /// The largest one.
        limit: u32,
    },
    /// An address without a prefix length, or no address at all.
    #[error("invalid address `{text}`, expected an address with its prefix length such as 10.0.0.254/24")]
    TapAddress {
        /// As given.
        text: String,
    },
    /// Several VMs of one command failed; each line is one of them.
    #[error("{}", .0.join("\n"))]
    Several(Vec<String>),
    /// QEMU did not start, or ended.
    #[error("{name}: {message}")]
    Qemu {
        /// The VM.
        name: VmNameText,
        /// QEMU's own message.
        message: String,
    },
    /// QEMU refused a command.
    #[error("{name}: QEMU refused")]
    Qmp {
        /// The VM.
        name: VmNameText,
        /// Its answer.
        #[source]
        source: crate::qmp::QmpError,
    },
    /// A process could not be signalled or watched.
    #[error(transparent)]
    Process(#[from] crate::host::linux::process::ProcessError),
    /// A file of the engine.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A state file that does not parse.
    #[error("{} is damaged or of another version of megaform; move it away to start without it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// A program that could not be run.
    #[error("cannot run `{program}`: {message}")]
    Program {
        /// The program.
        program: String,
        /// Why not.
        message: String,
    },
}

/// A VM's name in a message.
pub type VmNameText = String;

impl EngineError {
    /// The error and its sources in one line, each said once.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            source = error.source();
        }
        text
    }

    /// One error of many: the only one itself, or all of them as lines.
    pub(super) fn collect(mut errors: Vec<EngineError>) -> Result<(), EngineError> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(EngineError::Several(errors.iter().map(EngineError::chain).collect())),
        }
    }
}
