//! The network commands of a minimega 3.1.0 as a model in memory: qos, bridges, mirrors, captures and dnsmasq servers, in the
//! tables that were recorded. Two scripted peers include it; it shares no code with the program.
#![allow(dead_code, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

#[path = "release.rs"]
pub mod release;

use release::Release;

/// What a command answers.
#[derive(Debug)]
pub enum Answer {
    Ok,
    Text(String),
    Table(&'static [&'static str], Vec<Vec<String>>),
    /// A table with `Data`.
    Told(&'static [&'static str], Vec<Vec<String>>, serde_json::Value),
    Fail(String),
}

/// What the peer holds besides, as the network commands see it.
#[derive(Debug, Default)]
pub struct View {
    /// The bridges of the NICs of each VM.
    pub vms: BTreeMap<String, Vec<String>>,
    /// The taps of the NICs of each VM.
    pub nics: BTreeMap<String, Vec<String>>,
    /// The bridge and the cell of the VLAN of each host tap.
    pub taps: BTreeMap<String, (String, String)>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bridge {
    pub config: BTreeMap<String, String>,
    pub trunks: Vec<String>,
    /// The name of the interface, and what it is.
    pub tunnels: Vec<(String, String)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    pub namespace: String,
    /// `vm`, `bridge` or `netflow`.
    pub kind: &'static str,
    /// The VM, and the index of its NIC.
    pub nic: Option<(String, usize)>,
    pub bridge: String,
    pub path: String,
    pub mode: String,
    pub gzip: bool,
    /// What held when it was started.
    pub snaplen: u64,
    pub filter: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dnsmasq {
    pub start: Vec<String>,
    pub leases: BTreeMap<String, String>,
    pub names: Vec<(String, String)>,
    pub upstream: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Pipe {
    pub mode: String,
    pub log: bool,
    pub via: Vec<String>,
    /// Clients that read it and write it.
    pub clients: usize,
}

impl Default for Pipe {
    fn default() -> Self {
        Self { mode: "all".to_owned(), log: false, via: Vec::new(), clients: 0 }
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub snaplen: u64,
    pub filter: String,
    pub mode: String,
    pub gzip: bool,
    pub timeout: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { snaplen: 1600, filter: String::new(), mode: "ascii".to_owned(), gzip: false, timeout: 10 }
    }
}

#[derive(Debug, Default)]
pub struct Network {
    /// `qos set` and `nat` are there, delay and rate can be combined, and `bridge` tells what bonds are made of.
    pub megaform: bool,
    /// A release of 2018: tunnels without keys, no settings of bridges, mirrors between taps only.
    pub old: bool,
    /// By namespace and VM: USB disks by number, each its file, version and serial number.
    pub usb: BTreeMap<(String, String), BTreeMap<u32, [String; 3]>>,
    /// Media of VMs that run cannot be changed.
    pub fixed_media: bool,
    /// None of these commands is there.
    pub absent: bool,
    /// Nor those that begin with these words.
    pub lacks: Option<&'static str>,
    /// By namespace, VM and NIC: settings by name.
    pub qos: BTreeMap<(String, String, usize), BTreeMap<String, String>>,
    /// Bridges are of the host, not of a namespace.
    pub bridges: BTreeMap<String, Bridge>,
    /// By namespace and destination: the source.
    pub mirrors: BTreeMap<(String, String), String>,
    pub captures: Vec<Capture>,
    pub settings: BTreeMap<String, Settings>,
    pub dnsmasq: BTreeMap<u64, Dnsmasq>,
    pub next_dnsmasq: u64,
    pub next_tunnel: u64,
    /// By namespace, bridge and tag: the address of the gateway.
    pub nat: BTreeMap<(String, String, u64), String>,
    /// By name: namespace, VM, NICs, and how they are used.
    pub bonds: BTreeMap<String, (String, String, Vec<usize>, String)>,
    /// By namespace: the elements of each pipeline, as the table shows them.
    pub plumbing: BTreeMap<String, Vec<Vec<String>>>,
    /// By whole name.
    pub pipes: BTreeMap<String, Pipe>,
    /// VLANs that are given to no alias.
    pub blacklist: BTreeSet<u64>,
}

/// What begins the commands of this model.
const ABSENT: &[&str] = &[
    "vm net add",
    "qos",
    "bridge",
    "tap mirror",
    "capture",
    "dnsmasq",
    "plumb",
    "pipe",
    "nat",
    "vm hotplug",
    "vm net bond",
];
const BRIDGES: &[&str] = &["bridge", "preexisting", "vlans", "trunks", "tunnels", "bonds", "config"];
const CAPTURES: &[&str] = &["bridge", "type", "interface", "mode", "compress", "path"];

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A pipe by its whole name, or a program as it is.
fn whole(namespace: &str, element: &str) -> String {
    let program = matches!(element.split(' ').next(), Some("cat" | "sed" | "grep"));
    if program || element.contains("//") { element.to_owned() } else { format!("{namespace}//{element}") }
}

fn fail(text: &str) -> Answer {
    Answer::Fail(text.to_owned())
}

impl Network {
    /// What the target has. NICs of VMs that run are only added where somebody models that.
    pub fn release(&self, adds_nics: bool) -> Release {
        let without: &[&str] = match (self.absent, self.fixed_media) {
            (true, _) => ABSENT,
            (false, true) => &["vm net add", "vm hotplug", "vm cdrom"],
            (false, false) => &["vm net add"],
        };
        let from = usize::from(adds_nics);
        Release { old: self.old, megaform: self.megaform, without: &without[from..], lacks: self.lacks }
    }

    /// A VM is gone, or its process is.
    pub fn forget(&mut self, namespace: &str, vm: &str) {
        self.qos.retain(|(ns, name, _), _| ns != namespace || name != vm);
        self.bonds.retain(|_, (ns, name, ..)| ns != namespace || name != vm);
        self.captures.retain(|c| c.namespace != namespace || c.nic.as_ref().is_none_or(|(name, _)| name != vm));
        let end = format!("{vm} ");
        self.mirrors.retain(|(ns, to), from| ns != namespace || (!to.starts_with(&end) && !from.starts_with(&end)));
    }

    /// A VM is gone.
    pub fn unplug(&mut self, namespace: &str, vm: &str) {
        self.usb.remove(&(namespace.to_owned(), vm.to_owned()));
    }

    /// A NIC is in a bond.
    pub fn is_bonded(&self, namespace: &str, vm: &str, nic: usize) -> bool {
        self.bonds.values().any(|(ns, of, nics, _)| ns == namespace && of == vm && nics.contains(&nic))
    }

    /// The bonds of a VM, as the column `bond` has them.
    pub fn bond_cell(&self, namespace: &str, vm: &str) -> String {
        list(self.bonds.iter().filter(|(_, (ns, of, ..))| ns == namespace && of == vm).map(|(name, _)| name.clone()))
    }

    /// `clear namespace`, which leaves bridges and dnsmasq servers behind.
    pub fn clear_namespace(&mut self, namespace: &str) {
        self.qos.retain(|(ns, _, _), _| ns != namespace);
        self.bonds.retain(|_, (ns, ..)| ns != namespace);
        self.usb.retain(|(ns, _), _| ns != namespace);
        self.captures.retain(|c| c.namespace != namespace);
        self.mirrors.retain(|(ns, _), _| ns != namespace);
        self.settings.remove(namespace);
        self.plumbing.remove(namespace);
        let names: Vec<String> =
            self.pipes.keys().filter(|name| name.starts_with(&format!("{namespace}//"))).cloned().collect();
        names.iter().for_each(|name| drop(self.remove_pipe(name)));
        self.nat.retain(|(ns, _, _), _| ns != namespace);
    }

    /// `nat`, which is megaform's own. `tag` gives the tag of an alias or a number; `known` are the aliases by tag.
    pub fn nat(
        &mut self,
        namespace: &str,
        words: &[&str],
        tag: &mut dyn FnMut(&str) -> u64,
        known: &BTreeMap<u64, String>,
    ) -> Answer {
        let cell = |tag: u64| known.get(&tag).map_or_else(|| tag.to_string(), |alias| format!("{alias} ({tag})"));
        let namespace = namespace.to_owned();
        match words {
            [] => {
                let mine = self.nat.iter().filter(|((ns, _, _), _)| *ns == namespace);
                let rows = mine.map(|((_, on, tag), ip)| vec![on.clone(), cell(*tag), ip.clone(), "14000".to_owned()]);
                Answer::Table(&["bridge", "vlan", "gateway", "pid"], rows.collect())
            }
            ["add", vlan, ip, bridge @ ..] => {
                let bridge = (*bridge.first().unwrap_or(&"mega_bridge")).to_owned();
                match self.nat.entry((namespace, bridge, tag(vlan))) {
                    std::collections::btree_map::Entry::Occupied(_) => fail("the VLAN has a gateway already"),
                    std::collections::btree_map::Entry::Vacant(free) => {
                        free.insert((*ip).to_owned());
                        Answer::Ok
                    }
                }
            }
            ["delete", vlan, bridge @ ..] => {
                let (tag, before) = (tag(vlan), self.nat.len());
                self.nat.retain(|(ns, on, at), _| {
                    *ns != namespace || *at != tag || bridge.first().is_some_and(|bridge| on != bridge)
                });
                if self.nat.len() == before { fail("no gateway on this VLAN") } else { Answer::Ok }
            }
            other => panic!("no such form of nat: {other:?}"),
        }
    }

    /// The cell of `vm info` that tells what shapes the NICs of a VM.
    pub fn qos_cell(&self, namespace: &str, vm: &str) -> String {
        let mine = self.qos.iter().filter(|((ns, name, _), _)| ns == namespace && name == vm);
        list(mine.map(|((_, _, index), settings)| {
            let settings: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{index}: {}", settings.join(" "))
        }))
    }

    /// Carry out a command of this model; None if it is none. `names` are those of a VM target.
    pub fn run(
        &mut self,
        namespace: &str,
        words: &[&str],
        view: &View,
        names: &dyn Fn(&str) -> Vec<String>,
    ) -> Option<Answer> {
        Some(match words {
            ["vm", "hotplug"] => {
                let mine = self.usb.iter().filter(|((ns, _), _)| ns == namespace);
                let rows = mine.flat_map(|((_, vm), disks)| {
                    disks.iter().map(move |(id, [file, version, _])| {
                        vec![vm.clone(), id.to_string(), file.clone(), version.clone()]
                    })
                });
                Answer::Table(&["name", "id", "file", "version"], rows.collect())
            }
            ["vm", "hotplug", "add", target, file, rest @ ..] => {
                let (serial, version) = match rest {
                    ["serial", serial, version @ ..] => (*serial, version),
                    version => ("", version),
                };
                let version = version.first().copied().unwrap_or("2.0");
                let of = names(target);
                if let Some(gone) = of.iter().find(|vm| !view.vms.contains_key(*vm)) {
                    return Some(Answer::Fail(format!("vm not found: {gone}")));
                }
                // A relative path is one in the files folder.
                let file = if file.starts_with('/') { (*file).to_owned() } else { format!("/base/files/{file}") };
                for vm in of {
                    let disks = self.usb.entry((namespace.to_owned(), vm)).or_default();
                    let id = (0..).find(|id| !disks.contains_key(id)).expect("a number");
                    disks.insert(id, [file.clone(), version.to_owned(), serial.to_owned()]);
                }
                Answer::Ok
            }
            ["vm", "hotplug", "remove", target, id] => {
                for vm in names(target) {
                    let disks = self.usb.entry((namespace.to_owned(), vm.clone())).or_default();
                    let before = disks.len();
                    disks.retain(|number, _| *id != "all" && number.to_string() != *id);
                    if *id != "all" && before == disks.len() {
                        return Some(Answer::Fail(format!("no such disk {id} of {vm}")));
                    }
                }
                Answer::Ok
            }
            ["vm", "net", "bond", vm, nics, rest @ ..] => {
                let Some(at) = rest.iter().position(|word| *word == "name") else { panic!("a bond without a name") };
                let nics: Vec<usize> = nics.split(',').map(|nic| nic.parse().expect("an index")).collect();
                if view.vms.get(*vm).is_none_or(|all| nics.iter().any(|nic| all.get(*nic).is_none_or(String::is_empty)))
                {
                    return Some(fail("interface is not connected"));
                }
                if let Some(nic) = nics.iter().find(|nic| self.is_bonded(namespace, vm, **nic)) {
                    return Some(Answer::Fail(format!("interface {nic} is in a bond")));
                }
                let made =
                    (namespace.to_owned(), (*vm).to_owned(), nics, [&rest[..at], &rest[at + 2..]].concat().join(" "));
                match self.bonds.insert(rest[at + 1].to_owned(), made) {
                    None => Answer::Ok,
                    Some(_) => fail("bond already exists"),
                }
            }
            ["clear", "vm", "net", "bond", vm, name] => match self.bonds.remove(*name) {
                Some((ns, of, ..)) if ns == namespace && of == *vm => Answer::Ok,
                _ => fail("no such bond"),
            },
            ["qos", verb @ ("add" | "set"), target, index, rest @ ..] => {
                self.shape(namespace, verb, &names(target), index, rest, view)
            }
            // Without the index minimega answers `invalid tap index `.
            ["clear", "qos", _] => fail("invalid tap index "),
            ["clear", "qos", target, index] => {
                let names = names(target);
                self.qos.retain(|(ns, vm, nic), _| {
                    ns != namespace || !names.contains(vm) || (*index != "all" && nic.to_string() != *index)
                });
                Answer::Ok
            }
            ["bridge"] => self.bridge_table(namespace, view),
            ["bridge", verb, rest @ ..] => return self.bridge(verb, rest),
            ["tap", "mirror", from, from_nic, to, to_nic] => {
                self.mirrors.insert((namespace.to_owned(), format!("{to} {to_nic}")), format!("{from} {from_nic}"));
                Answer::Ok
            }
            ["tap", "mirror", from, to, ..] => {
                self.mirrors.insert((namespace.to_owned(), (*to).to_owned()), (*from).to_owned());
                Answer::Ok
            }
            ["clear", "tap", "mirror", to @ ..] => {
                self.mirrors.remove(&(namespace.to_owned(), to.join(" ")));
                Answer::Ok
            }
            ["vlans", "blacklist"] => {
                Answer::Table(&["vlan"], self.blacklist.iter().map(|tag| vec![tag.to_string()]).collect())
            }
            ["vlans", "blacklist", tag] => {
                self.blacklist.insert(tag.parse().expect("a tag"));
                Answer::Ok
            }
            ["pipe", rest @ ..] => self.pipe(namespace, rest),
            ["clear", "pipe", rest @ ..] => self.clear_pipe(namespace, rest),
            ["plumb", elements @ ..] => self.plumb(namespace, elements),
            ["clear", "plumb", elements @ ..] => self.clear_plumb(namespace, elements),
            ["capture", rest @ ..] => self.capture(namespace, rest, view),
            ["dnsmasq", rest @ ..] => self.dnsmasq(rest, view),
            _ => return None,
        })
    }

    /// What is no program of this host is a pipe.
    fn plumb(&mut self, namespace: &str, elements: &[&str]) -> Answer {
        let pipelines = self.plumbing.entry(namespace.to_owned()).or_default();
        if elements.is_empty() {
            return Answer::Table(&["pipeline"], pipelines.iter().map(|elements| vec![elements.join(" ")]).collect());
        }
        let made: Vec<String> = elements.iter().map(|element| whole(namespace, element)).collect();
        if pipelines.contains(&made) {
            return fail("pipeline exists already");
        }
        let pipes = made.iter().filter(|element| element.contains("//") && !element.contains(' '));
        for name in pipes {
            self.pipes.entry(name.clone()).or_default();
        }
        pipelines.push(made);
        Answer::Ok
    }

    /// How many pipelines read a pipe, and how many write it.
    fn uses(&self, name: &str) -> (usize, usize) {
        let all = || self.plumbing.values().flatten();
        let at = |pipeline: &[String]| pipeline.iter().any(|element| element == name);
        let (mut reads, mut writes) = (0, 0);
        for pipeline in all() {
            reads += usize::from(at(&pipeline[..pipeline.len() - 1]));
            writes += usize::from(at(&pipeline[1..]));
        }
        (reads, writes)
    }

    fn pipe(&mut self, namespace: &str, words: &[&str]) -> Answer {
        let full = |name: &str| if name.contains("//") { name.to_owned() } else { format!("{namespace}//{name}") };
        match words {
            [] => {
                let prefix = format!("{namespace}//");
                let mine = || self.pipes.iter().filter(|(name, _)| name.starts_with(&prefix));
                let rows = mine().map(|(name, pipe)| {
                    let (reads, writes) = self.uses(name);
                    let counts = [reads + pipe.clients, writes + pipe.clients, 0].map(|count| count.to_string());
                    let [reads, writes, count] = counts;
                    vec![name.clone(), pipe.mode.clone(), reads, writes, count, pipe.via.join(" "), String::new()]
                });
                let columns = &["name", "mode", "readers", "writers", "count", "via", "previous"];
                if !self.megaform {
                    return Answer::Table(columns, rows.collect());
                }
                let record = |(name, pipe): (&String, &Pipe)| serde_json::json!({ "name": name, "log": pipe.log, "via": pipe.via });
                Answer::Told(columns, rows.collect(), mine().map(record).collect())
            }
            [name, key, rest @ ..] => {
                if rest.first().is_some_and(|program| program.starts_with("no-such")) {
                    return fail("no such program");
                }
                let pipe = self.pipes.entry(full(name)).or_default();
                match (*key, rest) {
                    ("mode", [mode @ ("all" | "round-robin" | "random")]) => pipe.mode = (*mode).to_owned(),
                    ("log", [log]) => pipe.log = *log == "true",
                    ("via", words @ [_, ..]) => pipe.via = words.iter().map(|word| (*word).to_owned()).collect(),
                    other => panic!("no such form of pipe: {other:?}"),
                }
                Answer::Ok
            }
            other => panic!("no such form of pipe: {other:?}"),
        }
    }

    /// A pipe goes, and takes the pipelines along that use it.
    fn remove_pipe(&mut self, name: &str) -> Answer {
        if self.pipes.remove(name).is_none() {
            return Answer::Fail(format!("pipe not found: {name}"));
        }
        for pipelines in self.plumbing.values_mut() {
            pipelines.retain(|pipeline| pipeline.iter().all(|element| element != name));
        }
        Answer::Ok
    }

    fn clear_pipe(&mut self, namespace: &str, words: &[&str]) -> Answer {
        let full = |name: &str| if name.contains("//") { name.to_owned() } else { format!("{namespace}//{name}") };
        let [name, key @ ..] = words else { panic!("all pipes are cleared") };
        let Some(pipe) = self.pipes.get_mut(&full(name)) else { return fail("pipe not found") };
        match key {
            ["mode"] => pipe.mode = Pipe::default().mode,
            ["log"] => pipe.log = false,
            ["via"] => pipe.via.clear(),
            [] => return self.remove_pipe(&full(name)),
            other => panic!("no such form of clear pipe: {other:?}"),
        }
        Answer::Ok
    }

    fn clear_plumb(&mut self, namespace: &str, elements: &[&str]) -> Answer {
        let pipelines = self.plumbing.entry(namespace.to_owned()).or_default();
        let line = elements.iter().map(|element| whole(namespace, element)).collect::<Vec<_>>().join(" ");
        let before = pipelines.len();
        pipelines.retain(|pipeline| !elements.is_empty() && pipeline.join(" ") != line);
        if pipelines.len() == before && !elements.is_empty() { fail("pipeline not found") } else { Answer::Ok }
    }

    fn shape(
        &mut self,
        namespace: &str,
        verb: &str,
        names: &[String],
        index: &str,
        rest: &[&str],
        view: &View,
    ) -> Answer {
        let nic: usize = index.parse().expect("an index");
        if let [name] = names
            && !view.vms.contains_key(name)
        {
            return Answer::Fail(format!("vm not found: {name}"));
        }
        for name in names {
            let Some(nics) = view.vms.get(name) else { continue };
            assert!(nic < nics.len(), "{name} has no NIC {nic}");
            let settings = self.qos.entry((namespace.to_owned(), name.clone(), nic)).or_default();
            if verb == "set" {
                let pairs = rest.iter().map(|pair| pair.split_once('=').expect("a setting"));
                *settings = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                continue;
            }
            let (setting, value) = match rest {
                ["rate", number, unit] => ("rate", format!("{number}{unit}")),
                [setting @ ("delay" | "loss"), value] => (*setting, (*value).to_owned()),
                other => panic!("no such form of qos add: {other:?}"),
            };
            // A rate and the others replace one another, silently.
            settings.retain(|name, _| (name == "rate") == (setting == "rate"));
            settings.insert(setting.to_owned(), value);
        }
        Answer::Ok
    }

    fn bridge_table(&self, namespace: &str, view: &View) -> Answer {
        let mut used: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (bridge, vlan) in view.taps.values() {
            used.entry(bridge).or_default().push(vlan.clone());
        }
        for bridge in view.vms.values().flatten().filter(|bridge| !bridge.is_empty()) {
            used.entry(bridge).or_default();
        }
        for name in self.bridges.keys() {
            used.entry(name).or_default();
        }
        let row = |(name, mut vlans): (&str, Vec<String>)| {
            vlans.sort();
            vlans.dedup();
            let bridge = self.bridges.get(name).cloned().unwrap_or_default();
            let config: Vec<String> = bridge.config.iter().map(|(k, v)| format!("\"{k}\":\"{v}\"")).collect();
            vec![
                name.to_owned(),
                "false".to_owned(),
                list(vlans.into_iter()),
                list(bridge.trunks.into_iter()),
                list(bridge.tunnels.into_iter().map(|(interface, _)| interface)),
                list(self.bonds.keys().filter(|_| name == "mega_bridge").cloned()),
                format!("{{{}}}", config.join(",")),
            ]
        };
        let rows = used.into_iter().map(row).collect();
        if !self.megaform {
            return Answer::Table(BRIDGES, rows);
        }
        let bond = |(name, (of, vm, nics, how)): (&String, &(String, String, Vec<usize>, String))| {
            let taps = nics.iter().map(|nic| match view.nics.get(vm).filter(|_| of == namespace) {
                Some(taps) => taps[*nic].clone(),
                None => format!("elsewhere{nic}"),
            });
            let words: Vec<&str> = how.split(' ').collect();
            serde_json::json!({
                "Name": name, "Taps": taps.collect::<Vec<_>>(), "Mode": words[0], "LACP": words[1],
                "Fallback": words[1] != "off" && !words.contains(&"no-lacp-fallback"), "QinQ": words.contains(&"qinq"),
            })
        };
        let bonds: Vec<_> = self.bonds.iter().map(bond).collect();
        let data =
            if bonds.is_empty() { vec![] } else { vec![serde_json::json!({"Bridge": "mega_bridge", "Bonds": bonds})] };
        Answer::Told(BRIDGES, rows, serde_json::Value::Array(data))
    }

    fn bridge(&mut self, verb: &str, rest: &[&str]) -> Option<Answer> {
        match (verb, rest) {
            ("config", [bridge, setting]) => {
                let (key, value) = setting.split_once('=').expect("key=value");
                let bridge = self.bridges.entry((*bridge).to_owned()).or_default();
                bridge.config.insert(key.to_owned(), value.to_owned());
            }
            ("trunk", [bridge, interface]) => {
                let bridge = self.bridges.entry((*bridge).to_owned()).or_default();
                if bridge.trunks.iter().any(|trunk| trunk == interface) {
                    return Some(fail("interface is a trunk already"));
                }
                bridge.trunks.push((*interface).to_owned());
            }
            ("notrunk", [bridge, interface]) => {
                let trunks = self.bridges.get_mut(*bridge).map(|bridge| &mut bridge.trunks);
                match trunks.and_then(|t| t.iter().position(|trunk| trunk == interface).map(|at| t.remove(at))) {
                    Some(_) => {}
                    None => return Some(fail("bridge does not have this trunk")),
                }
            }
            ("tunnel", [kind, bridge, remote, key @ ..]) => {
                let interface = format!("mega_tunnel{}", self.next_tunnel);
                self.next_tunnel += 1;
                let what = [&[*kind, *remote], key].concat().join(" ");
                self.bridges.entry((*bridge).to_owned()).or_default().tunnels.push((interface, what));
            }
            ("notunnel", [bridge, interface]) => {
                let tunnels = self.bridges.get_mut(*bridge).map(|bridge| &mut bridge.tunnels);
                match tunnels.and_then(|t| t.iter().position(|(name, _)| name == interface).map(|at| t.remove(at))) {
                    Some(_) => {}
                    None => return Some(fail("bridge does not have this tunnel")),
                }
            }
            ("destroy", [bridge]) => match self.bridges.remove(*bridge) {
                Some(_) => {}
                None => return Some(fail("bridge not found")),
            },
            _ => return None,
        }
        Some(Answer::Ok)
    }

    fn capture(&mut self, namespace: &str, words: &[&str], view: &View) -> Answer {
        let settings = self.settings.entry(namespace.to_owned()).or_default();
        let (snaplen, filter) = (settings.snaplen, settings.filter.clone());
        let (mode, gzip) = (settings.mode.clone(), settings.gzip);
        let new = |kind, bridge: &str, path: &str| Capture {
            namespace: namespace.to_owned(),
            kind,
            nic: None,
            bridge: bridge.to_owned(),
            // A relative path is one in the files folder.
            path: if path.starts_with('/') || path.contains(':') {
                path.to_owned()
            } else {
                format!("/base/files/{path}")
            },
            mode: String::new(),
            gzip: false,
            snaplen,
            filter: filter.clone(),
        };
        match words {
            [] => {
                let rows = self.captures.iter().filter(|c| c.namespace == namespace).map(|c| {
                    let interface = c.nic.as_ref().map(|(vm, nic)| format!("{vm}:{nic}")).unwrap_or_default();
                    let kind = if c.kind == "netflow" { "netflow" } else { "pcap" };
                    let gzip = if c.kind == "netflow" { c.gzip.to_string() } else { String::new() };
                    vec![c.bridge.clone(), kind.to_owned(), interface, c.mode.clone(), gzip, c.path.clone()]
                });
                return Answer::Table(CAPTURES, rows.collect());
            }
            ["pcap", "snaplen"] => return Answer::Text(settings.snaplen.to_string()),
            ["pcap", "snaplen", size] => settings.snaplen = size.parse().expect("a size"),
            ["pcap", "filter"] => return Answer::Text(settings.filter.clone()),
            ["pcap", "filter", filter] => settings.filter = (*filter).to_owned(),
            ["netflow", "mode"] => return Answer::Text(settings.mode.clone()),
            ["netflow", "mode", mode] => settings.mode = (*mode).to_owned(),
            ["netflow", "gzip"] => return Answer::Text(settings.gzip.to_string()),
            ["netflow", "gzip", on] => settings.gzip = *on == "true",
            ["netflow", "timeout"] => return Answer::Text(settings.timeout.to_string()),
            ["netflow", "timeout", seconds] => settings.timeout = seconds.parse().expect("seconds"),
            ["pcap", "delete", "vm", name] => {
                let before = self.captures.len();
                let mine = |c: &Capture| c.namespace == namespace && c.nic.as_ref().is_some_and(|(vm, _)| vm == name);
                self.captures.retain(|c| !mine(c));
                if self.captures.len() == before {
                    return Answer::Fail(format!("no captures for vm {name}"));
                }
            }
            [kind @ ("pcap" | "netflow"), "delete", "bridge", bridge] => {
                let kind = if *kind == "pcap" { "bridge" } else { "netflow" };
                let before = self.captures.len();
                self.captures.retain(|c| c.namespace != namespace || c.kind != kind || c.bridge != *bridge);
                if self.captures.len() == before {
                    return Answer::Fail(format!("no captures for bridge {bridge}"));
                }
            }
            ["pcap", "vm", name, nic, path] => {
                let index: usize = nic.parse().expect("an index");
                let Some(bridge) = view.vms.get(*name).and_then(|nics| nics.get(index)) else {
                    return Answer::Fail(format!("vm not found: {name}"));
                };
                let nic = Some(((*name).to_owned(), index));
                self.captures.push(Capture { nic, ..new("vm", bridge, path) });
            }
            ["pcap", "bridge", bridge, path] => self.captures.push(new("bridge", bridge, path)),
            ["netflow", "bridge", bridge, transport @ ("tcp" | "udp"), host] => {
                let path = format!("{transport}:{host}");
                self.captures.push(Capture { mode, gzip: false, ..new("netflow", bridge, &path) });
            }
            ["netflow", "bridge", bridge, path] => {
                self.captures.push(Capture { mode, gzip, ..new("netflow", bridge, path) });
            }
            other => panic!("no such form of capture: {other:?}"),
        }
        Answer::Ok
    }

    fn dnsmasq(&mut self, words: &[&str], view: &View) -> Answer {
        let _taps = view;
        match words {
            [] => {
                let row = |(id, server): (&u64, &Dnsmasq)| {
                    let mut row = vec![id.to_string()];
                    row.extend(
                        (0..3).map(|at| if server.start.len() < 3 { String::new() } else { server.start[at].clone() }),
                    );
                    row.extend([format!("/base/dnsmasq_{id}"), (13000 + id).to_string()]);
                    row
                };
                Answer::Table(&["id", "address", "min", "max", "path", "pid"], self.dnsmasq.iter().map(row).collect())
            }
            ["start", arguments @ ..] => {
                let start = arguments.iter().map(|word| (*word).to_owned()).collect();
                self.dnsmasq.insert(self.next_dnsmasq, Dnsmasq { start, ..Dnsmasq::default() });
                self.next_dnsmasq += 1;
                Answer::Ok
            }
            ["kill", id] => match id.parse().ok().and_then(|id| self.dnsmasq.remove(&id)) {
                Some(_) => Answer::Ok,
                None => fail("invalid id"),
            },
            ["configure", id, rest @ ..] => {
                let Some(server) = id.parse().ok().and_then(|id: u64| self.dnsmasq.get_mut(&id)) else {
                    return fail("invalid id");
                };
                let row = |cells: &[&String]| {
                    let mut row = vec![(*id).to_owned()];
                    row.extend(cells.iter().map(|cell| (*cell).clone()));
                    row
                };
                match rest {
                    ["ip"] => {
                        let rows = server.leases.iter().map(|(mac, ip)| row(&[mac, ip])).collect();
                        return Answer::Table(&["id", "mac", "ip"], rows);
                    }
                    ["dns"] => {
                        let rows = server.names.iter().map(|(ip, name)| row(&[ip, name])).collect();
                        return Answer::Table(&["id", "ip", "hostname"], rows);
                    }
                    ["dns", "upstream"] => {
                        return Answer::Table(&["id", "server"], server.upstream.iter().map(|ip| row(&[ip])).collect());
                    }
                    ["options"] => {
                        return Answer::Table(&["id", "option"], server.options.iter().map(|o| row(&[o])).collect());
                    }
                    ["ip", mac, ip] => drop(server.leases.insert((*mac).to_owned(), (*ip).to_owned())),
                    ["dns", "upstream", "server", ip] => server.upstream.push((*ip).to_owned()),
                    ["dns", ip, name] => server.names.push(((*ip).to_owned(), (*name).to_owned())),
                    ["options", option] => server.options.push((*option).to_owned()),
                    other => panic!("no such form of dnsmasq configure: {other:?}"),
                }
                Answer::Ok
            }
            other => panic!("no such form of dnsmasq: {other:?}"),
        }
    }
}

/// The names of a target such as `web[0-2,5],fw`.
pub fn names(target: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in target.chars() {
        match c {
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        parts.last_mut().expect("never empty").push(c);
    }
    let mut names = Vec::new();
    for part in parts {
        let Some((prefix, rest)) = part.split_once('[') else {
            names.push(part);
            continue;
        };
        let (list, suffix) = rest.split_once(']').expect("a closed range");
        for item in list.split(',') {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            let number = |text: &str| text.parse::<u64>().expect("a number");
            names.extend((number(low)..=number(high)).map(|n| format!("{prefix}{n}{suffix}")));
        }
    }
    names
}
