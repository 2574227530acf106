//! The experiment as the rest of megaform sees it: profiles merged, name ranges expanded, every name parsed.
//!
//! All maps are sorted, so that nothing downstream depends on the order in the file.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::diagnostic::{Span, Spanned};
use crate::language::field::VmConfig;
use crate::language::qos::Qos;
use crate::language::serial::Sought;
use crate::name::{Address, BridgeName, CommandName, Kind, Mac, Namespace, TapName, VlanAlias, VlanTag, VmName};

/// One experiment.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Its name, which is the minimega namespace.
    pub name: Spanned<Namespace>,
    /// The VLAN aliases that it declares.
    pub vlans: BTreeMap<VlanAlias, Vlan>,
    /// The tags from which aliases without a fixed tag are given one, both ends included.
    pub vlan_range: Option<Spanned<(VlanTag, VlanTag)>>,
    /// Tags that are given to no alias, each with the place that says so.
    pub vlan_blacklist: BTreeMap<VlanTag, Span>,
    /// Its VMs, each by its own name (ranges and counts are expanded).
    pub vms: BTreeMap<VmName, Vm>,
    /// Its host taps.
    pub taps: BTreeMap<TapName, Tap>,
    /// Its bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines, by kind and name, and what it says of
    /// placement: each key is an object. A kind without any is not there.
    pub objects: BTreeMap<Kind, BTreeMap<String, Object>>,
    /// Its raw commands.
    pub commands: BTreeMap<CommandName, CommandEntry>,
}

/// A VLAN alias.
#[derive(Debug, Clone)]
pub struct Vlan {
    /// Where the alias stands.
    pub span: Span,
    /// Its tag, 1 to 4094, None to have one given.
    pub tag: Option<Spanned<VlanTag>>,
}

/// A VLAN as a NIC or a tap names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VlanRef {
    /// An alias that the experiment declares.
    Alias(VlanAlias),
    /// A tag.
    Tag(VlanTag),
}

impl std::fmt::Display for VlanRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VlanRef::Alias(alias) => alias.fmt(f),
            VlanRef::Tag(tag) => tag.fmt(f),
        }
    }
}

/// The type of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VmKind {
    /// QEMU.
    Kvm,
}

impl VmKind {
    /// The word of `vm launch`.
    pub fn word(self) -> &'static str {
        match self {
            VmKind::Kvm => "kvm",
        }
    }
}

/// The state that a VM is to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RunState {
    /// Its guest runs.
    Running,
    /// Launched, its guest does not run.
    Paused,
}

impl RunState {
    /// The word of the file.
    pub fn word(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Paused => "paused",
        }
    }
}

/// What a plan may do with an object.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// It must not be removed, not even to be made again; where that is written.
    pub prevent_destroy: Option<Span>,
    /// Differences in these fields are left alone: `memory`, `networks`, `networks[0]`, `tags`, `tags.role`. Sorted.
    pub ignore_changes: Vec<Spanned<String>>,
}

impl Lifecycle {
    /// Whether a difference in a field, given by its path as in `networks[0].vlan`, is left alone.
    pub fn ignores(&self, field: &str) -> bool {
        self.ignore_changes.iter().any(|ignored| {
            field.strip_prefix(ignored.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}

/// One VM. VMs from one entry share their body.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Where its entry's key stands.
    pub span: Span,
    /// Everything but the name.
    pub body: Arc<VmBody>,
    /// The name that it had before, if it was renamed.
    pub renamed_from: Option<Spanned<VmName>>,
}

/// What VMs from one entry of the file have in common.
#[derive(Debug, Clone)]
pub struct VmBody {
    /// Its type.
    pub kind: VmKind,
    /// Every `vm config` field but `networks`, profile merged. Paths stand as they are to be sent.
    pub config: VmConfig,
    /// Where each set field stands (in the VM or in its profile), by field name; for `networks` and `state` too.
    pub spans: BTreeMap<&'static str, Span>,
    /// Its NICs in order.
    pub networks: Vec<Spanned<Nic>>,
    /// The state that it is to be in.
    pub state: RunState,
    /// VMs that must be launched (and running, if they are to run) before it, expanded.
    pub depends_on: Vec<Spanned<VmName>>,
    /// What must be seen of it once it runs.
    pub wait_for: Option<WaitFor>,
    /// What a plan may do with it.
    pub lifecycle: Lifecycle,
    /// What makes one port of several NICs, each without its VM, and without a name where none is given.
    pub bonds: Vec<Object>,
    /// USB disks, which it gets and loses while it runs; each image once.
    pub usb_disks: Vec<Spanned<UsbDisk>>,
    /// Where the links stand that shape NICs, by the NIC's index.
    pub links: BTreeMap<usize, Span>,
    /// Where values of profiles stand that others won over, or were merged with (`tags`), by key, the latest last.
    pub beneath: Vec<(&'static str, Span)>,
}

/// What must be seen of a VM that runs before what depends on it goes on.
#[derive(Debug, Clone)]
pub struct WaitFor {
    /// Where it stands.
    pub span: Span,
    /// How long each condition may take, in seconds.
    pub timeout: u32,
    /// The agent in the guest is connected (`cc`).
    pub cc: bool,
    /// The address answers an ICMP echo request.
    pub ping: Option<Spanned<IpAddr>>,
    /// The TCP port accepts a connection.
    pub port: Option<Spanned<SocketAddr>>,
    /// A command that changes nothing answers without an error.
    pub command: Option<Spanned<String>>,
    /// The guest has written all of these.
    pub serial: Vec<SerialText>,
}

/// What a guest is to write on a serial port.
#[derive(Debug, Clone)]
pub struct SerialText {
    /// Where it stands.
    pub span: Span,
    /// The port, counted from 0.
    pub port: u64,
    /// The text or pattern.
    pub sought: Sought,
}

/// One NIC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nic {
    /// Its VLAN.
    pub vlan: VlanRef,
    /// Its address; None to have one assigned at launch.
    pub mac: Option<Mac>,
    /// Its model, one of `netspec::DRIVERS`; None for e1000.
    pub driver: Option<String>,
    /// Its bridge; None for mega_bridge.
    pub bridge: Option<BridgeName>,
    /// It is plugged in.
    pub connected: bool,
    /// What shapes its traffic toward the VM, its own or that of a link.
    pub qos: Option<Qos>,
    /// The address that a new VM is given where the file gives none, because something in the file depends on it.
    pub assigned: Option<Mac>,
    /// Where its settings stand.
    pub places: Places,
}

impl Spanned<Nic> {
    /// Where a setting stands; the NIC itself where it is not given.
    pub fn place(&self, key: &str) -> Span {
        self.value.places.0.get(key).copied().unwrap_or(self.span)
    }
}

/// Where settings stand, by key. It is no part of what they say: all are equal.
#[derive(Debug, Clone, Default)]
pub struct Places(pub BTreeMap<&'static str, Span>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Places {}

impl PartialOrd for Places {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Places {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Hash for Places {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// A host tap: an interface of the engine on a VLAN.
#[derive(Debug, Clone)]
pub struct Tap {
    /// Where its key stands.
    pub span: Span,
    /// Its VLAN.
    pub vlan: Spanned<VlanRef>,
    /// Its address and prefix length, if it has one.
    pub ip: Option<Spanned<(IpAddr, u8)>>,
    /// Where it is said that it asks for its address by DHCP.
    pub dhcp: Option<Span>,
    /// Its bridge; None for mega_bridge.
    pub bridge: Option<Spanned<BridgeName>>,
    /// What a plan may do with it.
    pub lifecycle: Lifecycle,
}

/// A USB disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsbDisk {
    /// The image, as it is to be sent.
    pub path: String,
    /// `1.1` or `2.0`; None leaves it to the target.
    pub version: Option<String>,
    /// Its serial number; None leaves it to the target.
    pub serial: Option<String>,
}

/// An object that is a set of settings: a bridge, a way out, a bond, a dnsmasq server, a mirror, a capture, a pipe or a pipeline.
#[derive(Debug, Clone)]
pub struct Object {
    /// Where its key stands.
    pub span: Span,
    /// Its settings by key, each value in its only spelling; one value where the key takes one.
    pub settings: BTreeMap<&'static str, Vec<Spanned<String>>>,
    /// What a plan may do with it.
    pub lifecycle: Lifecycle,
}

impl Object {
    /// The value of a key that takes one.
    pub fn one(&self, key: &str) -> Option<&str> {
        self.settings.get(key)?.first().map(|value| value.as_str())
    }

    /// The values of a key.
    pub fn all(&self, key: &str) -> &[Spanned<String>] {
        self.settings.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Where a setting stands; the key of the object where it is not given.
    pub fn place(&self, key: &str) -> Span {
        self.all(key).first().map_or(self.span, |value| value.span)
    }

    /// What it names, which is there before it if the experiment declares it.
    pub fn references(&self, kind: Kind) -> Vec<(Address, Span)> {
        let mut found = Vec::new();
        let mut refer = |kind, key: &str| {
            found.extend(self.all(key).iter().map(|value| (Address::new(kind, value), value.span)));
        };
        refer(Kind::Vm, "vm");
        // A number is a tag, which needs no alias.
        refer(Kind::Vlan, "vlan");
        if kind != Kind::Bridge {
            refer(Kind::Bridge, "bridge");
        }
        for end in ["from", "to"].into_iter().filter(|_| kind == Kind::Mirror) {
            found.extend(self.all(end).iter().map(|value| match nic_of_vm(value) {
                Some((vm, _)) => (Address::new(Kind::Vm, vm), value.span),
                None => (Address::new(Kind::Tap, value), value.span),
            }));
        }
        found
    }
}

/// The VM and the index of `web.0`; None for the name of a tap.
pub fn nic_of_vm(text: &str) -> Option<(&str, usize)> {
    let (vm, index) = text.rsplit_once('.')?;
    Some((vm, usize::from(index.parse::<u8>().ok()?)))
}

impl Experiment {
    /// The objects of a kind that is a set of settings.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = (&str, &Object)> {
        self.objects.get(&kind).into_iter().flatten().map(|(name, object)| (name.as_str(), object))
    }

    /// The blacklisted tags as ranges, both ends included.
    pub fn blacklisted(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for tag in self.vlan_blacklist.keys().map(|tag| tag.get()) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == tag => *last = tag,
                _ => ranges.push((tag, tag)),
            }
        }
        ranges
    }

    /// Whether it declares something.
    pub fn declares(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Vlan => self.vlans.contains_key(name),
            Kind::Tap => self.taps.contains_key(name),
            Kind::Vm => self.vms.contains_key(name),
            Kind::Command => self.commands.contains_key(name),
            kind => self.objects.get(&kind).is_some_and(|objects| objects.contains_key(name)),
        }
    }

    /// The pipe among those that it declares which an element of a pipeline means, if it is one.
    pub fn pipe<'e>(&self, element: &'e str) -> Option<&'e str> {
        let own = element.split_once("//").filter(|(of, _)| *of == self.name.as_str());
        let name = own.map_or(element, |(_, name)| name);
        self.declares(Kind::Pipe, name).then_some(name)
    }

    /// The names that it declares of a kind.
    pub fn names(&self, kind: Kind) -> Vec<&str> {
        match kind {
            Kind::Vlan => self.vlans.keys().map(AsRef::as_ref).collect(),
            Kind::Tap => self.taps.keys().map(AsRef::as_ref).collect(),
            Kind::Vm => self.vms.keys().map(AsRef::as_ref).collect(),
            Kind::Command => self.commands.keys().map(AsRef::as_ref).collect(),
            kind => self.of(kind).map(|(name, _)| name).collect(),
        }
    }
}

/// Lines of the command language that are run as they are, in the experiment's namespace.
#[derive(Debug, Clone)]
pub struct CommandEntry {
    /// Where its key stands.
    pub span: Span,
    /// What makes it, in order; at least one line.
    pub create: Vec<Spanned<String>>,
    /// What takes it back, in order.
    pub destroy: Vec<Spanned<String>>,
    /// A harmless line whose answer tells whether it is there.
    pub check: Option<Spanned<String>>,
    /// VMs that must be launched (and running, if they are to run) before it. Sorted.
    pub depends_on: Vec<Spanned<VmName>>,
}
