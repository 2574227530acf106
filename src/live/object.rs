//! Objects that are sets of settings, as tables show them: bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines. Their settings
//! are named as the keys of the experiment file are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use super::plumbing::{pipelines, pipes};
use super::table::{Table, list_cell, vlan_cell};
use super::{LiveError, LiveVm, NAT, entries};
use serde_json::Value;

use crate::language::entry::Entry;
use crate::name::{BridgeName, Kind, Namespace};
use crate::wire::Transport;

/// Settings by key; a key that takes one value has one.
pub type Facts = BTreeMap<String, Vec<String>>;

/// One object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveObject {
    /// The host that it is on.
    pub host: String,
    /// What commands call it, where that is not the key by which it is known.
    pub id: Option<String>,
    /// Its settings, as far as the target shows them.
    pub facts: Facts,
}

impl LiveObject {
    fn new(entry: &Entry) -> Self {
        Self { host: entry.host.clone(), ..Self::default() }
    }

    fn set(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.facts.insert(key.to_owned(), vec![value.to_owned()]);
        }
    }
}

/// Objects by what tells them apart: the name of a bridge, the VLAN of a way out, the address of a dnsmasq server, the destination of a mirror (and its source, where several have it),
/// the file or collector of a capture, the name of a pipe, the line of a pipeline.
#[derive(Debug, Default)]
pub struct Objects {
    all: BTreeMap<String, LiveObject>,
    /// Made when a path is first looked for, so that many are found in the time of one walk over all.
    files: OnceLock<Files>,
}

/// What captures' files end with.
#[derive(Debug, Default)]
struct Files {
    /// Keys by the name in the files folder, where the target tells it.
    inside: HashMap<String, String>,
    /// Keys by everything behind a slash, where it does not.
    behind: HashMap<String, Vec<String>>,
}

impl Files {
    fn of(all: &BTreeMap<String, LiveObject>) -> Self {
        let mut files = Self::default();
        for (path, object) in all.iter().filter(|(_, object)| object.facts.contains_key("file")) {
            match object.facts.get(INSIDE) {
                Some(name) => {
                    let name = name.first().cloned();
                    files
                        .inside
                        .extend(name.filter(|name| !files.inside.contains_key(name)).map(|n| (n, path.clone())));
                }
                None => {
                    for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
                        if folder(&path[at + 1..], path).is_some() {
                            files.behind.entry(path[at + 1..].to_owned()).or_default().push(path.clone());
                        }
                    }
                }
            }
        }
        files
    }
}

impl Objects {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Deref for Objects {
    type Target = BTreeMap<String, LiveObject>;
    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl DerefMut for Objects {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.files.take();
        &mut self.all
    }
}

impl Clone for Objects {
    fn clone(&self) -> Self {
        self.all.clone().into()
    }
}

impl PartialEq for Objects {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Eq for Objects {}

impl From<BTreeMap<String, LiveObject>> for Objects {
    fn from(all: BTreeMap<String, LiveObject>) -> Self {
        Self { all, files: OnceLock::new() }
    }
}

impl<const N: usize> From<[(String, LiveObject); N]> for Objects {
    fn from(all: [(String, LiveObject); N]) -> Self {
        BTreeMap::from(all).into()
    }
}

impl FromIterator<(String, LiveObject)> for Objects {
    fn from_iter<I: IntoIterator<Item = (String, LiveObject)>>(all: I) -> Self {
        BTreeMap::from_iter(all).into()
    }
}

impl<'o> IntoIterator for &'o Objects {
    type Item = (&'o String, &'o LiveObject);
    type IntoIter = std::collections::btree_map::Iter<'o, String, LiveObject>;
    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl<'o> IntoIterator for &'o mut Objects {
    type Item = (&'o String, &'o mut LiveObject);
    type IntoIter = std::collections::btree_map::IterMut<'o, String, LiveObject>;
    fn into_iter(self) -> Self::IntoIter {
        (**self).iter_mut()
    }
}

/// The fact with the name of a capture's file in the engine's files folder, where the target tells it; no value for a file that is
/// elsewhere.
pub const INSIDE: &str = "name in the files folder";

#[cfg(test)]
thread_local! {
    /// How often two paths were compared by this thread.
    pub static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The folder, with its slash, in which a relative path would be the absolute one; never that of all folders, which no engine
/// keeps its files in.
fn folder<'p>(relative: &str, absolute: &'p str) -> Option<&'p str> {
    #[cfg(test)]
    COMPARED.set(COMPARED.get() + 1);
    let folder = absolute.strip_suffix(relative).filter(|_| !relative.starts_with('/'))?;
    (folder.len() > 1 && folder.starts_with('/') && folder.ends_with('/')).then_some(folder)
}

/// Whether two paths may be of one file: a relative path is one in the engine's files folder, which is not known here.
pub fn same_file(a: &str, b: &str) -> bool {
    a == b || folder(a, b).is_some() || folder(b, a).is_some()
}

/// The mirrors to a destination.
pub fn mirrors_to<'o>(objects: &'o Objects, to: &str) -> impl Iterator<Item = (&'o String, &'o LiveObject)> {
    objects.iter().filter(move |(_, mirror)| mirror.facts.get("to").is_some_and(|of| of[0] == to))
}

/// An object by what tells it from others. A capture may be named by a relative path, which is one in the engine's files folder.
/// Where the target does not tell which files are in there, it is the one in a folder called `files`, as that of minimega is;
/// otherwise the only one that ends with the path and is of the VM or bridge that the settings have.
pub fn find<'o>(objects: &'o Objects, key: &str, settings: Option<&Facts>) -> Option<(&'o String, &'o LiveObject)> {
    if let Some(found) = objects.get_key_value(key) {
        return Some(found);
    }
    let files = objects.files.get_or_init(|| Files::of(&objects.all));
    if let Some(path) = files.inside.get(key) {
        return objects.get_key_value(path);
    }
    let files: Vec<_> =
        files.behind.get(key).into_iter().flatten().filter_map(|path| objects.get_key_value(path)).collect();
    let only = |mut found: Vec<_>| if found.len() == 1 { found.pop() } else { None };
    let usual = |path: &str| path.strip_suffix(key).is_some_and(|folder| folder.ends_with("/files/"));
    let usual = files.iter().copied().filter(|(path, _)| usual(path)).collect();
    let alike = |object: &LiveObject| {
        let same = |fact: &str| settings.and_then(|facts| facts.get(fact)) == object.facts.get(fact);
        same("vm") && (object.facts.contains_key("vm") || same("bridge"))
    };
    only(usual).or_else(|| only(files.into_iter().filter(|(_, object)| alike(object)).collect()))
}

/// The objects that keys with settings name, by their own keys; the first of several that name one has it.
pub fn named<'o, 'n, T>(
    objects: &'o Objects,
    names: impl IntoIterator<Item = (&'n str, &'n Facts, T)>,
) -> BTreeMap<&'o str, T> {
    let mut named = BTreeMap::new();
    for (key, settings, value) in names {
        if let Some((found, _)) = find(objects, key, Some(settings)) {
            named.entry(found.as_str()).or_insert(value);
        }
    }
    named
}

/// The table of a command; None where the target does not have it.
pub(super) fn table(
    transport: &mut dyn Transport,
    namespace: &Namespace,
    words: &str,
) -> Result<Option<Vec<Entry>>, LiveError> {
    match entries(transport, &format!("namespace {namespace} {words}")) {
        Ok(entries) => Ok(Some(entries)),
        Err(LiveError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn sorted(items: Vec<&str>) -> Vec<String> {
    let mut items: Vec<String> = items.into_iter().map(str::to_owned).collect();
    items.sort();
    items
}

/// Everything of these kinds that the target lists. A kind that it does not list is not there.
pub(super) fn observe(
    transport: &mut dyn Transport,
    namespace: &Namespace,
    vms: &BTreeMap<String, LiveVm>,
    mirrors: Option<Ends>,
    has_nat: bool,
) -> Result<BTreeMap<Kind, Objects>, LiveError> {
    let mut objects = BTreeMap::new();
    if let Some(entries) = table(transport, namespace, "bridge")? {
        if let Some(bonds) = super::bond::bonds(transport, namespace, &entries, vms)? {
            objects.insert(Kind::Bond, bonds);
        }
        objects.insert(Kind::Bridge, bridges(&entries));
    }
    if has_nat && let Some(entries) = table(transport, namespace, NAT)? {
        objects.insert(Kind::Nat, gateways(&entries));
    }
    if let Some(entries) = table(transport, namespace, "capture")? {
        objects.insert(Kind::Capture, captures(&entries));
    }
    if let Some(entries) = table(transport, namespace, "dnsmasq")? {
        objects.insert(Kind::Dnsmasq, servers(transport, namespace, &entries)?);
    }
    if let Some(entries) = table(transport, namespace, "plumb")? {
        let pipelines = pipelines(namespace, &entries);
        if let Some(entries) = table(transport, namespace, "pipe")? {
            objects.insert(Kind::Pipe, pipes(namespace, &entries, &pipelines));
        }
        objects.insert(Kind::Plumbing, pipelines);
    }
    if let Some(mirrors) = mirrors {
        objects.insert(Kind::Mirror, mirrored(&mirrors, vms));
    }
    Ok(objects)
}

/// The fact with the interfaces of a bridge's tunnels. Where the target also tells what the tunnels are, in the fact `tunnels`,
/// they stand in the same order there.
pub const INTERFACES: &str = "interfaces of tunnels";

/// The tunnels of a bridge as the file has them, each with its interface; None where the `Data` of the answer does not
/// tell.
fn tunnels(entry: &Entry, bridge: &str) -> Option<Vec<(String, String)>> {
    let data = entry.data.as_array()?.iter().find(|data| data["Bridge"] == bridge)?;
    let text = |tunnel: &Value, key: &str| tunnel.get(key)?.as_str().map(str::to_owned);
    let read = |tunnel: &Value| {
        let parts = [text(tunnel, "Type")?, text(tunnel, "Remote")?, text(tunnel, "Key")?];
        Some((parts.join(" ").trim_end().to_owned(), text(tunnel, "Interface")?))
    };
    data.get("Tunnels")?.as_array()?.iter().map(read).collect()
}

fn bridges(entries: &[Entry]) -> Objects {
    let mut objects = Objects::new();
    for entry in entries {
        for row in Table::new(entry).rows() {
            let Some(name) = row.get("bridge") else { continue };
            let mut object = LiveObject::new(entry);
            let list = |column: &str| sorted(row.get(column).map(list_cell).unwrap_or_default());
            for (key, column) in [("trunks", "trunks"), (INTERFACES, "tunnels"), ("vlans", "vlans")] {
                object.facts.insert(key.to_owned(), list(column));
            }
            object.set("preexisting", row.get("preexisting").unwrap_or_default());
            if let Some(mut tunnels) = tunnels(entry, name) {
                tunnels.sort();
                let (tunnels, interfaces): (Vec<_>, Vec<_>) = tunnels.into_iter().unzip();
                if interfaces.len() == object.facts[INTERFACES].len() {
                    object.facts.insert("tunnels".to_owned(), tunnels);
                    object.facts.insert(INTERFACES.to_owned(), interfaces);
                }
            }
            let config: BTreeMap<String, String> =
                row.get("config").and_then(|cell| serde_json::from_str(cell).ok()).unwrap_or_default();
            let config = config.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
            object.facts.insert("config".to_owned(), config);
            objects.insert(name.to_owned(), object);
        }
    }
    objects
}

/// The fact that says why something that is listed does nothing any more.
pub const STOPPED: &str = "stopped";

/// The fact with the tag of the VLAN that a way out is on.
pub const TAG: &str = "tag";

/// What tells a way out from others: its VLAN, and its bridge where that is not the usual one.
pub fn gateway_key(vlan: &str, bridge: Option<&str>) -> String {
    match bridge.filter(|bridge| *bridge != BridgeName::default_bridge().as_str()) {
        Some(bridge) => format!("{vlan} {bridge}"),
        None => vlan.to_owned(),
    }
}

fn gateways(entries: &[Entry]) -> Objects {
    let mut objects = Objects::new();
    for entry in entries {
        for row in Table::new(entry).rows() {
            let cell = |column: &str| row.get(column).unwrap_or_default();
            let (alias, Some(tag)) = vlan_cell(cell("vlan")) else { continue };
            let vlan = alias.unwrap_or_else(|| tag.to_string());
            let mut object = LiveObject { id: Some(vlan.clone()), ..LiveObject::new(entry) };
            object.set("vlan", &vlan);
            object.set(TAG, &tag.to_string());
            object.set("ip", cell("gateway"));
            let bridge = Some(cell("bridge")).filter(|bridge| *bridge != BridgeName::default_bridge().as_str());
            object.facts.insert("bridge".to_owned(), bridge.map(str::to_owned).into_iter().collect());
            // In place of the pid there may be why there is none.
            object.set(STOPPED, row.get("pid").filter(|pid| pid.parse::<u32>().is_err()).unwrap_or_default());
            objects.insert(gateway_key(&vlan, bridge), object);
        }
    }
    objects
}

/// A collector as the file has it, from `udp:host:port` or `udp://host:port`.
fn collector(path: &str) -> Option<String> {
    let (scheme, rest) = path.split_once(':').filter(|(scheme, _)| ["udp", "tcp"].contains(scheme))?;
    Some(format!("{scheme}://{}", rest.trim_start_matches('/')))
}

fn captures(entries: &[Entry]) -> Objects {
    let mut objects = Objects::new();
    for entry in entries {
        // The records stand in the order of the rows.
        let records = entry.data.as_array().map(Vec::as_slice).unwrap_or_default();
        for (at, row) in Table::new(entry).rows().enumerate() {
            let cell = |column: &str| row.get(column).unwrap_or_default();
            let mut object = LiveObject::new(entry);
            object.set("type", cell("type"));
            match cell("interface").rsplit_once(':') {
                Some((vm, index)) => {
                    object.set("vm", vm);
                    object.set("interface", index);
                }
                None => object.set("bridge", cell("bridge")),
            }
            let path = cell("path");
            let record = records.get(at).filter(|record| record["path"] == path);
            if let Some(record) = record {
                let mut tell = |key: &str, value: Option<String>| {
                    object.facts.extend(value.map(|value| (key.to_owned(), vec![value])));
                };
                tell("snaplen", record["snaplen"].as_u64().map(|size| size.to_string()));
                tell("filter", record["filter"].as_str().map(str::to_owned));
                let inside = record.get("inside").filter(|_| collector(path).is_none());
                object.facts.extend(
                    inside.map(|name| (INSIDE.to_owned(), name.as_str().map(str::to_owned).into_iter().collect())),
                );
                let mut tell = |key: &str, value: Option<String>| {
                    object.facts.extend(value.map(|value| (key.to_owned(), vec![value])));
                };
                tell("format", record["mode"].as_str().map(str::to_owned));
                tell(STOPPED, record["stopped"].as_str().map(str::to_owned));
            } else {
                object.set("format", cell("mode"));
            }
            let key = match collector(path) {
                Some(to) => {
                    object.set("to", &to);
                    to
                }
                None => {
                    object.set("file", path);
                    object.set("gzip", cell("compress"));
                    path.to_owned()
                }
            };
            objects.insert(key, object);
        }
    }
    objects
}

fn servers(transport: &mut dyn Transport, namespace: &Namespace, entries: &[Entry]) -> Result<Objects, LiveError> {
    let mut objects = Objects::new();
    for entry in entries {
        for row in Table::new(entry).rows() {
            let (Some(id), Some(address)) = (row.get("id"), row.get("address")) else { continue };
            let mut object = LiveObject { id: Some(id.to_owned()), ..LiveObject::new(entry) };
            object.set("address", address);
            // In place of the pid there may be why there is none.
            object.set(STOPPED, row.get("pid").filter(|pid| pid.parse::<u32>().is_err()).unwrap_or_default());
            let range = ["min", "max"].map(|column| row.get(column).unwrap_or_default().to_owned());
            object.facts.insert("range".to_owned(), range.to_vec());
            for (key, words) in [("leases", "ip"), ("dns", "dns"), ("upstream", "dns upstream"), ("options", "options")]
            {
                let Some(entries) = table(transport, namespace, &format!("dnsmasq configure {id} {words}"))? else {
                    continue;
                };
                let here = entries.iter().filter(|e| e.host == entry.host);
                // The first column is the id.
                let rows = here.flat_map(|e| e.tabular.iter().flatten()).filter(|row| row.len() > 1);
                let mut values: Vec<String> = rows.map(|row| row[1..].join(" ")).collect();
                values.sort();
                object.facts.insert(key.to_owned(), values);
            }
            // One that has no address was started from a file alone, and is told from others by its id.
            let key = if address.is_empty() { format!("id {id}") } else { address.to_owned() };
            objects.insert(key, object);
        }
    }
    Ok(objects)
}

/// What is said of the key of mirrors to one destination of which there are several: the destination, and the source behind this.
const FROM: &str = " from ";

/// Mirrors by destination, and by source too where several have one destination; taps of VMs are named by VM and index.
pub(super) fn mirrored(mirrors: &Ends, vms: &BTreeMap<String, LiveVm>) -> Objects {
    let mut nics: BTreeMap<&str, String> = BTreeMap::new();
    if !mirrors.is_empty() {
        for vm in vms.values() {
            let taps = vm.nics.iter().enumerate().filter(|(_, nic)| !nic.tap.is_empty());
            nics.extend(taps.map(|(index, nic)| (nic.tap.as_str(), format!("{}.{index}", vm.name))));
        }
    }
    let name = |tap: &String| nics.get(tap.as_str()).unwrap_or(tap).clone();
    let object = |(from, to): &(String, String)| {
        let mut object = LiveObject::default();
        object.set("from", &name(from));
        object.set("to", &name(to));
        let alone = mirrors.iter().filter(|(_, other)| other == to).count() == 1;
        let key = if alone { name(to) } else { format!("{}{FROM}{}", name(to), name(from)) };
        (key, object)
    };
    mirrors.iter().map(object).collect()
}

/// Source and destination of each mirror.
pub(super) type Ends = BTreeSet<(String, String)>;

/// The mirrors that the `Data` of `tap` lists; None where the target does not list any.
pub(super) fn mirrors(entries: &[Entry]) -> Option<Ends> {
    let mut found = None;
    for entry in entries {
        let Some(list) = entry.data.get("Mirrors").and_then(serde_json::Value::as_array) else { continue };
        let found = found.get_or_insert_with(Ends::new);
        let text = |mirror: &serde_json::Value, key: &str| Some(mirror.get(key)?.as_str()?.to_owned());
        found.extend(list.iter().filter_map(|m| Some((text(m, "Source")?, text(m, "Destination")?))));
    }
    found
}
