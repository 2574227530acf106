//! What is running in one namespace, observed over the wire with a few commands that change nothing.
//!
//! Reads `Header`, `Tabular` and `Data` of the answers, never `Rendered`, so that output flags of the daemon do not
//! matter. Must not know what is wanted, nor whose the objects are: `plan` decides that.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::language::entry::Entry;
use crate::name::{Kind, Namespace};
use crate::wire::{Transport, WireError};

mod bond;
mod loose;
mod object;
mod placement;
mod plumbing;
mod qos;
mod record;
mod table;
mod usb;
mod vm;

#[cfg(test)]
pub use object::COMPARED;
pub use object::{
    Facts, INSIDE, INTERFACES, LiveObject, Objects, STOPPED, TAG, find, gateway_key, mirrors_to, named, same_file,
};
pub use placement::{HOSTS, HostSize, LOCALHOST, Placement, Queued, USUAL_LOAD, observe_queue, queue};
pub use plumbing::{ELEMENTS, OTHERS, is_unset_pipe, is_unused_pipe, same_program};
pub use table::Table;
pub use usb::{LiveUsb, same_image};
pub use vm::{LiveNic, LiveVm, Observed, Tags, VmState};

/// The command that shows ways out, whose help tells whether the target has them.
pub const NAT: &str = "nat";

/// Everything observed in one namespace. Names are text, because what others made need not follow megaform's rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// The namespace exists on the target.
    pub present: bool,
    /// The tags that new aliases are given, both ends as the target prints them; None where no range is set.
    pub vlan_range: Option<(u16, u16)>,
    /// VMs by name.
    pub vms: BTreeMap<String, LiveVm>,
    /// VLAN tags by alias.
    pub vlans: BTreeMap<String, u16>,
    /// Host taps by name.
    pub taps: BTreeMap<String, LiveTap>,
    /// Bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines by kind. A kind that the target does not list is not there.
    pub objects: BTreeMap<Kind, Objects>,
    /// Launches are queued instead of carried out.
    pub queueing: bool,
    /// Where VMs go, and which wait to be launched.
    pub placement: Placement,
    /// The hosts of the mesh, as far as they were asked for ([`learn`] of [`HOSTS`]).
    pub sizes: Option<BTreeMap<String, HostSize>>,
    /// What the target's help says of commands, by their first words, as far as it was asked ([`learn`]).
    pub help: BTreeMap<&'static str, String>,
    /// How the checks of raw commands were answered, by their lines: None without an error. As far as they were asked
    /// ([`check`]).
    pub checks: BTreeMap<String, Option<String>>,
}

/// A host tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveTap {
    /// The host that it is on.
    pub host: String,
    /// Its bridge.
    pub bridge: String,
    /// The alias of its VLAN, if that has one.
    pub alias: Option<String>,
    /// The tag of its VLAN, where the target shows it.
    pub vlan: Option<u16>,
    /// Its addresses as `10.0.0.254/24`; None where the target cannot tell.
    pub addresses: Option<Vec<String>>,
    /// An address is lent to it: it came by DHCP, and the kernel lets it go in time.
    pub leased: bool,
}

/// Why observing failed.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The connection failed.
    #[error("cannot observe with `{command}`")]
    Wire {
        /// The command.
        command: String,
        /// What the connection said.
        #[source]
        source: WireError,
    },
    /// The target refused a command.
    #[error("`{command}` failed on {host}: {error}")]
    Refused {
        /// The command.
        command: String,
        /// The host that answered.
        host: String,
        /// Its error text.
        error: String,
    },
    /// The answer lacks what every release has.
    #[error("`{command}` answered without a column `{column}`; is the target a minimega?")]
    Column {
        /// The command.
        command: String,
        /// The column.
        column: &'static str,
    },
}

impl Live {
    /// A namespace that does not exist.
    pub fn absent() -> Self {
        Self {
            present: false,
            vlan_range: None,
            vms: BTreeMap::new(),
            vlans: BTreeMap::new(),
            taps: BTreeMap::new(),
            objects: BTreeMap::new(),
            queueing: false,
            placement: Placement::default(),
            sizes: None,
            help: BTreeMap::new(),
            checks: BTreeMap::new(),
        }
    }
}

/// Send one command and return the entries of its answer; an entry with an error fails the whole.
fn entries(transport: &mut dyn Transport, command: &str) -> Result<Vec<Entry>, LiveError> {
    let responses =
        transport.call(command).map_err(|source| LiveError::Wire { command: command.to_owned(), source })?;
    let entries: Vec<Entry> = responses.into_iter().filter_map(|r| r.resp).flatten().collect();
    match entries.iter().find(|e| !e.error.is_empty()) {
        None => Ok(entries),
        Some(entry) => Err(LiveError::Refused {
            command: command.to_owned(),
            host: entry.host.clone(),
            error: entry.error.clone(),
        }),
    }
}

/// The VMs of a namespace that exists. (`namespace NAME …` creates a namespace that does not.)
pub fn observe_vms(
    transport: &mut dyn Transport,
    namespace: &Namespace,
) -> Result<BTreeMap<String, LiveVm>, LiveError> {
    let command = format!("namespace {namespace} vm info");
    let (mut vms, mut refused) = (Vec::new(), None);
    // The answer for many VMs is large, and little of it matters: it is read without being made into values first.
    let read = transport.lines(&command, &mut |line| {
        let frame = vm::Frame::read(line)?;
        let last = frame.is_last();
        for entry in frame.into_entries() {
            if entry.error.is_empty() {
                vms.extend(entry.vms()?.into_iter().map(|vm| (vm.name.clone(), vm)));
            } else {
                refused.get_or_insert((entry.host.to_string(), entry.error.to_string()));
            }
        }
        Ok(last)
    });
    read.map_err(|source| LiveError::Wire { command: command.clone(), source })?;
    match refused {
        // A map that is made of all at once is sorted once.
        None => Ok(vms.into_iter().collect()),
        Some((host, error)) => Err(LiveError::Refused { command, host, error }),
    }
}

/// The VMs of a namespace and nothing else, without their USB disks; None where it does not exist.
pub fn vms(
    transport: &mut dyn Transport,
    namespace: &Namespace,
) -> Result<Option<BTreeMap<String, LiveVm>>, LiveError> {
    let (_, found) = find_namespace(transport, namespace)?;
    found.map(|_| observe_vms(transport, namespace)).transpose()
}

/// The VLAN aliases of a namespace and their tags; None where it does not exist.
pub fn aliases(
    transport: &mut dyn Transport,
    namespace: &Namespace,
) -> Result<Option<BTreeMap<String, u16>>, LiveError> {
    let (_, found) = find_namespace(transport, namespace)?;
    found.map(|_| observe_vlans(transport, namespace)).transpose()
}

/// The names of the namespaces that exist.
pub fn namespaces(transport: &mut dyn Transport) -> Result<Vec<String>, LiveError> {
    let mut names = Vec::new();
    for entry in entries(transport, "namespace")? {
        for row in Table::new(&entry).rows() {
            let column = LiveError::Column { command: "namespace".into(), column: "namespace" };
            names.push(row.get("namespace").ok_or(column)?.to_owned());
        }
    }
    Ok(names)
}

/// The tags that new aliases are given, if a range is set.
type Range = Option<(u16, u16)>;

/// The row of a namespace in the list of namespaces: None if there is no such namespace. The host that answers goes along.
fn find_namespace(transport: &mut dyn Transport, namespace: &Namespace) -> Result<(String, Option<Range>), LiveError> {
    let mut own = String::new();
    for entry in entries(transport, "namespace")? {
        if own.is_empty() {
            own.clone_from(&entry.host);
        }
        let table = Table::new(&entry);
        for row in table.rows() {
            let name =
                row.get("namespace").ok_or(LiveError::Column { command: "namespace".into(), column: "namespace" })?;
            if name == namespace.as_str() {
                let range = row.get("vlans").and_then(|text| {
                    let (min, max) = text.split_once('-')?;
                    Some((min.trim().parse().ok()?, max.trim().parse().ok()?))
                });
                return Ok((own, Some(range)));
            }
        }
    }
    Ok((own, None))
}

fn observe_vlans(transport: &mut dyn Transport, namespace: &Namespace) -> Result<BTreeMap<String, u16>, LiveError> {
    let command = format!("namespace {namespace} vlans");
    let mut vlans = BTreeMap::new();
    for entry in entries(transport, &command)? {
        for row in Table::new(&entry).rows() {
            let column = |name| row.get(name).ok_or(LiveError::Column { command: command.clone(), column: name });
            let (alias, tag) = (column("alias")?, column("vlan")?);
            // Without an active namespace minimega prints `namespace//alias`.
            let alias = match alias.split_once("//") {
                Some((scope, alias)) if scope == namespace.as_str() => alias,
                Some(_) => continue,
                None => alias,
            };
            if let Ok(tag) = tag.parse() {
                vlans.insert(alias.to_owned(), tag);
            }
        }
    }
    Ok(vlans)
}

/// The taps, and the mirrors between taps where the target lists them.
fn observe_taps(
    transport: &mut dyn Transport,
    namespace: &Namespace,
) -> Result<(BTreeMap<String, LiveTap>, Option<object::Ends>), LiveError> {
    let command = format!("namespace {namespace} tap");
    let mut taps = BTreeMap::new();
    let entries = entries(transport, &command)?;
    for entry in &entries {
        for row in Table::new(entry).rows() {
            let column = |name| row.get(name).ok_or(LiveError::Column { command: command.clone(), column: name });
            let (alias, vlan) = table::vlan_cell(column("vlan")?);
            let tap = LiveTap {
                host: entry.host.clone(),
                bridge: column("bridge")?.to_owned(),
                alias,
                vlan,
                addresses: None,
                leased: false,
            };
            taps.insert(column("tap")?.to_owned(), tap);
        }
    }
    Ok((taps, object::mirrors(&entries)))
}

/// The command that shows the addresses of interfaces: `tap` does not, on any release.
const ADDRESSES: &str = "shell ip -json address show";

/// Enter the addresses of taps. Where the target cannot tell (no `shell`, no `ip` on its host, a tap of another host of
/// the mesh), they stay unknown.
fn observe_addresses(transport: &mut dyn Transport, taps: &mut BTreeMap<String, LiveTap>) -> Result<(), LiveError> {
    if taps.is_empty() {
        return Ok(());
    }
    let responses =
        transport.call(ADDRESSES).map_err(|source| LiveError::Wire { command: ADDRESSES.to_owned(), source })?;
    for entry in responses.into_iter().filter_map(|r| r.resp).flatten().filter(|e| e.error.is_empty()) {
        let Ok(Value::Array(interfaces)) = serde_json::from_str(&entry.response) else { continue };
        for interface in interfaces {
            let name = interface["ifname"].as_str().unwrap_or_default();
            if let Some(tap) = taps.get_mut(name).filter(|tap| tap.host == entry.host) {
                tap.addresses = Some(addresses(&interface));
                let list = interface["addr_info"].as_array().into_iter().flatten();
                tap.leased = list.filter(|a| a["family"] == "inet").any(|address| address["dynamic"] == true);
            }
        }
    }
    Ok(())
}

/// The addresses of one interface of `ip -json address show`, as `10.0.0.254/24`; the link-local one of IPv6, which the
/// kernel gives by itself, is left out.
fn addresses(interface: &Value) -> Vec<String> {
    let list = interface["addr_info"].as_array().into_iter().flatten();
    let mut found: Vec<String> = list
        .filter(|address| address["family"] != "inet6" || address["scope"] != "link")
        .filter_map(|address| Some(format!("{}/{}", address["local"].as_str()?, address["prefixlen"].as_u64()?)))
        .collect();
    found.sort();
    found
}

/// Whether launches are queued, of a namespace that exists. A target that refuses to say has no queue.
pub fn observe_queueing(transport: &mut dyn Transport, namespace: &Namespace) -> Result<bool, LiveError> {
    let command = format!("namespace {namespace} ns queueing");
    match entries(transport, &command) {
        Ok(entries) => Ok(entries.iter().any(|entry| entry.response.trim() == "true")),
        Err(LiveError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Ask the target which forms of a command it has, given its first words. A target without help, or without the command,
/// is noted with an empty text. What begins with `capture ` is a setting of the namespace, which is asked for its value, and
/// `vlans blacklist` is asked for what it lists, which is the target's and needs no namespace. [`HOSTS`] is asked of every host
/// of the mesh.
pub fn learn(
    transport: &mut dyn Transport,
    live: &mut Live,
    namespace: &Namespace,
    command: &'static str,
) -> Result<(), LiveError> {
    if command == HOSTS {
        live.sizes = Some(placement::sizes(transport)?);
        return Ok(());
    }
    let line = if command.starts_with("capture ") {
        format!("namespace {namespace} {command}")
    } else if command == "vlans blacklist" {
        command.to_owned()
    } else {
        format!("help {command}")
    };
    live.help.insert(command, ask(transport, line)?);
    Ok(())
}

/// The text of an answer; nothing where it is an error.
fn ask(transport: &mut dyn Transport, line: String) -> Result<String, LiveError> {
    let responses = transport.call(&line).map_err(|source| LiveError::Wire { command: line, source })?;
    let entries = responses.into_iter().filter_map(|r| r.resp).flatten().filter(|e| e.error.is_empty());
    let cells = |entry: &Entry| entry.tabular.iter().flatten().flatten().cloned().collect::<Vec<_>>().join("\n");
    let text: Vec<String> = entries.map(|e| if e.response.is_empty() { cells(&e) } else { e.response }).collect();
    Ok(text.join("\n"))
}

/// Send a line that changes nothing, in a namespace that exists, and note whether it answers with an error. It is left out of
/// the target's history, and an engine of megaform's does not warn of the error.
pub fn check(
    transport: &mut dyn Transport,
    live: &mut Live,
    namespace: &Namespace,
    line: &str,
) -> Result<(), LiveError> {
    let command = format!(".record false namespace {namespace} {line}");
    let responses = transport.call(&command).map_err(|source| LiveError::Wire { command, source })?;
    let errors: Vec<String> =
        responses.iter().flat_map(|r| r.errors()).map(|(_, error)| error.trim().to_owned()).collect();
    live.checks.insert(line.to_owned(), (!errors.is_empty()).then(|| errors.join("; ")));
    Ok(())
}

/// Observe a namespace. Every command is prefixed with `namespace NAME`, so that the daemon's active namespace stays;
/// the first one lists namespaces, so that none is created by looking.
pub fn observe(transport: &mut dyn Transport, namespace: &Namespace) -> Result<Live, LiveError> {
    let (own, found) = find_namespace(transport, namespace)?;
    let Some(vlan_range) = found else {
        return Ok(Live { placement: Placement { own, ..Placement::default() }, ..Live::absent() });
    };
    let (mut vms, vlans) = (observe_vms(transport, namespace)?, observe_vlans(transport, namespace)?);
    usb::observe(transport, namespace, &mut vms)?;
    let (mut taps, mirrors) = observe_taps(transport, namespace)?;
    observe_addresses(transport, &mut taps)?;
    // It is megaform's own, so it is sent only where the help has it.
    let help = BTreeMap::from([(NAT, ask(transport, format!("help {NAT}"))?)]);
    let objects = object::observe(transport, namespace, &vms, mirrors, help[NAT].contains("add"))?;
    let queueing = observe_queueing(transport, namespace)?;
    let placement = placement::observe(transport, namespace, own)?;
    Ok(Live { present: true, vlan_range, vms, vlans, taps, objects, queueing, placement, help, ..Live::absent() })
}

#[cfg(test)]
mod tests;
