//! From what is there to an experiment file: a live namespace, or a script of minimega commands.
//!
//! Everything becomes one [`Found`], which is written as YAML. What the experiment file cannot say is never dropped in
//! silence: it is a note, with the place that it came from. Must not know the socket, nor plan anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::language::field::VmConfig;
use crate::live::Facts;
use crate::name::Kind;
use crate::plan::advice::CommandLines;
use crate::spec::model::UsbDisk;

mod bond;
mod live;
mod object;
mod script;
mod write;

pub use live::live;
pub use script::{MAX_BYTES, ScriptError, script};
pub use write::write;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The experiment's name: the namespace.
    pub name: String,
    /// VLAN aliases; a tag only where it is to be fixed.
    pub vlans: BTreeMap<String, Option<u16>>,
    /// The tags that aliases are given, if they are not the usual ones.
    pub vlan_range: Option<(u16, u16)>,
    /// Tags that aliases are not given.
    pub vlan_blacklist: BTreeSet<u16>,
    /// VMs by name.
    pub vms: BTreeMap<String, FoundVm>,
    /// Host taps by name.
    pub taps: BTreeMap<String, FoundTap>,
    /// Bridges, ways out, dnsmasq servers, mirrors and captures: their settings by kind and name.
    pub objects: BTreeMap<Kind, BTreeMap<String, Facts>>,
    /// Raw commands, of which the journal remembers that they were run.
    pub commands: BTreeMap<String, CommandLines>,
    /// Configurations that somebody gave a name.
    pub configs: BTreeMap<String, VmConfig>,
    /// The VMs in the order in which they are to stand; nothing for that of their names.
    pub order: BTreeMap<String, usize>,
    /// Comments on what there is, by kind and name.
    pub comments: BTreeMap<(Kind, String), Vec<String>>,
    /// Lines that no key says, which raw commands could: a name for them, and the lines.
    pub raw: Vec<(String, Vec<String>)>,
    /// Comments on the whole.
    pub heading: Vec<String>,
    /// What the file cannot say, one sentence each.
    pub notes: Vec<String>,
}

/// One VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundVm {
    /// Its configuration but NICs and tags.
    pub config: VmConfig,
    /// Its NICs.
    pub nics: Vec<FoundNic>,
    /// Its USB disks, with the version where it is not the usual one.
    pub usb: Vec<UsbDisk>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its guest is not to run.
    pub paused: bool,
    /// Its bonds in order: their settings, the name where it is not the usual one.
    pub bonds: Vec<Facts>,
    /// Fields whose changes are ignored.
    pub ignored: Vec<String>,
}

/// One NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundNic {
    /// An alias or a tag.
    pub vlan: String,
    /// Its address, where it is fixed.
    pub mac: Option<String>,
    /// Its model, where it is not the usual one.
    pub driver: Option<String>,
    /// Its bridge, where it is not the usual one.
    pub bridge: Option<String>,
    /// It is disconnected.
    pub cut: bool,
    /// What shapes its traffic.
    pub qos: Option<crate::language::qos::Qos>,
}

/// One tap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundTap {
    /// An alias or a tag.
    pub vlan: String,
    /// Its address and prefix length.
    pub ip: Option<String>,
    /// It asks for its address by DHCP.
    pub dhcp: bool,
    /// Its bridge, where it is not the usual one.
    pub bridge: Option<String>,
}

/// Take out tags without a value, which a file cannot have.
fn without_empty(vm: &str, tags: &mut BTreeMap<String, String>, notes: &mut Vec<String>) {
    let empty = tags.iter().filter(|(_, value)| value.is_empty()).map(|(key, _)| key);
    notes.extend(empty.map(|key| format!("the tag {key} of the VM {vm} has no value and is left out")));
    tags.retain(|_, value| !value.is_empty());
}

/// A version of USB, unless it is the usual one.
fn usb_version(version: &str) -> Option<String> {
    Some(version.to_owned()).filter(|version| !version.is_empty() && version != "2.0")
}

/// A bridge, unless it is the usual one.
fn bridge(name: &str) -> Option<String> {
    (!name.is_empty() && name != crate::name::BridgeName::default_bridge().as_str()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
