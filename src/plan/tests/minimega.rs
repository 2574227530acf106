//! A minimega in memory, as an independent model: it interprets the commands that the planner emits and answers in the
//! shape that minimega 3.1.0 was recorded in. It shares nothing with megaform's own engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::language::entry::Entry;
use crate::language::{range, token};
use crate::wire::Response;
use crate::wire::{Transport, WireError};

#[path = "../../../tests/support/network.rs"]
pub mod network;
#[path = "../../../tests/support/observing.rs"]
mod observing;

use network::{Answer, Network, View};

#[derive(Debug, Clone, Default)]
pub struct Nic {
    pub alias: String,
    pub vlan: i64,
    pub bridge: String,
    pub mac: String,
    pub driver: String,
    pub raw: String,
}

#[derive(Debug, Clone)]
pub struct Vm {
    pub uuid: String,
    pub pid: u64,
    pub state: u64,
    pub nics: Vec<Nic>,
    pub tags: BTreeMap<String, String>,
    pub config: BTreeMap<String, Vec<String>>,
    /// It cannot run.
    pub broken: bool,
    /// Where it is.
    pub host: String,
}

/// A launch that waits: names, configuration, tags.
pub type Waiting = (Vec<String>, BTreeMap<String, Vec<String>>, BTreeMap<String, String>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    pub bridge: String,
    pub alias: String,
    pub vlan: i64,
    pub ip: String,
}

#[derive(Debug, Clone, Default)]
pub struct Namespace {
    pub config: BTreeMap<String, Vec<String>>,
    pub config_tags: BTreeMap<String, String>,
    pub vms: BTreeMap<String, Vm>,
    pub vlans: BTreeMap<String, i64>,
    pub range: Option<(i64, i64)>,
    pub taps: BTreeMap<String, Tap>,
    pub queueing: bool,
    /// None for those that a namespace has by itself.
    pub hosts: Option<Vec<String>>,
    pub load: Option<String>,
    pub queue: Vec<Waiting>,
}

#[derive(Debug, Default)]
pub struct State {
    pub namespaces: BTreeMap<String, Namespace>,
    /// Every command that was received, in order.
    pub log: Vec<String>,
    /// VMs whose launch ends in the state error, with the text.
    pub broken: BTreeMap<String, String>,
    /// The connection is lost when a command with this text comes: before it is carried out (false) or after (true).
    pub drop_at: Option<(String, bool)>,
    /// Answer this command with an error.
    pub fail_at: Option<String>,
    /// Show addresses of taps in `Data`, as megaform's own engine does.
    pub shows_addresses: bool,
    /// The network commands.
    pub network: Network,
    /// Other hosts of the mesh, with their CPUs and megabytes.
    pub mesh: BTreeMap<String, (u64, u64)>,
    /// Folders of the host, as `shell mkdir` makes them.
    pub folders: BTreeSet<String>,
    counter: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Minimega(pub Arc<Mutex<State>>);

impl Transport for Minimega {
    fn call(&mut self, command: &str) -> Result<Vec<Response>, WireError> {
        let mut state = self.0.lock().unwrap();
        state.log.push(command.to_owned());
        let drop = state.drop_at.clone().filter(|(text, _)| command.contains(text));
        if drop.is_some() {
            state.drop_at = None;
        }
        if drop.as_ref().is_some_and(|(_, after)| !after) {
            return Err(lost_connection());
        }
        let words: Vec<String> = token::tokenize(command).unwrap().into_iter().map(|w| w.text).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let failing = state.fail_at.as_deref() == Some(command);
        // Every other host of the mesh answers for itself.
        let entries = match words.as_slice() {
            ["mesh", "send", "all", "host"] => host_table(state.mesh.clone().into_iter().collect()),
            _ if failing => vec![fail("told to fail")],
            _ => vec![state.run(&words)],
        };
        if drop.is_some() {
            return Err(lost_connection());
        }
        Ok(vec![Response { resp: Some(entries), ..Response::default() }])
    }
}

pub fn lost_connection() -> WireError {
    WireError::HungUp { path: "/scripted".into(), command: String::new() }
}

impl Minimega {
    /// Run a command by hand, as a user would; a failure of it is a failure of the test.
    pub fn by_hand(&self, command: &str) {
        for response in self.clone().call(command).unwrap() {
            assert_eq!(response.errors().next(), None, "{command}");
        }
        self.0.lock().unwrap().log.pop();
    }

    /// The commands since the last call that are not observations.
    pub fn take_log(&self) -> Vec<String> {
        let log = std::mem::take(&mut self.0.lock().unwrap().log);
        log.into_iter().filter(|c| !observing::observes(c)).collect()
    }
}

fn ok() -> Entry {
    Entry::text("vm", "")
}

fn fail(text: impl Into<String>) -> Entry {
    Entry::failure("vm", text)
}

fn table(header: &[&str], rows: Vec<Vec<String>>, data: Value) -> Entry {
    Entry {
        host: "vm".into(),
        header: Some(header.iter().map(|h| (*h).to_owned()).collect()),
        // minimega sends null as well as an empty list.
        tabular: (!rows.is_empty()).then_some(rows),
        data,
        ..Entry::default()
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

const BUILDING: u64 = 1;
const RUNNING: u64 = 2;
const PAUSED: u64 = 4;
const QUIT: u64 = 8;
const ERROR: u64 = 16;

impl State {
    fn run(&mut self, words: &[&str]) -> Entry {
        match words {
            // The host's `ip` as `shell` runs it.
            ["shell", "ip", "-json", "address", "show"] if self.shows_addresses => {
                let taps = self.namespaces.values().flat_map(|ns| &ns.taps);
                let interfaces = taps.map(|(tap, t)| {
                    let address = t.ip.split_once('/').map(|(local, prefix)| {
                        json!({"family": "inet", "local": local, "prefixlen": prefix.parse::<u8>().unwrap(), "scope": "global"})
                    });
                    json!({"ifname": tap, "addr_info": Vec::from_iter(address)})
                });
                Entry::text("vm", Value::from_iter(interfaces).to_string())
            }
            ["shell", ..] => fail("exec: \"ip\": executable file not found in $PATH"),
            ["host"] => host_table(vec![("vm".to_owned(), (4, 8192))]).remove(0),
            ["help", "ns"] => {
                let list = if self.network.old { "<hosts>" } else { "<hostname or range or all>" };
                Entry::text("vm", format!("ns <add-hosts,> {list}\nns <del-hosts,> {list}\n"))
            }
            ["help", "vm", "config", "colocate"] if self.network.old => fail("no help entry"),
            ["help", "vm", "config", "colocate"] => Entry::text("vm", "vm config colocate [value]\n"),
            ["help", ..] | ["vlans", "blacklist"] => self.network("", &Namespace::default(), words),
            ["namespace"] => {
                let rows = self.namespaces.iter().map(|(name, ns)| {
                    let range = ns.range.map(|(a, b)| format!("{a}-{b}")).unwrap_or_default();
                    vec![name.clone(), range, "false".to_owned()]
                });
                table(&["namespace", "vlans", "active"], rows.collect(), Value::Null)
            }
            ["clear", "namespace", name] => {
                self.namespaces.remove(*name);
                self.network.clear_namespace(name);
                ok()
            }
            ["namespace", name, rest @ ..] => {
                let mut ns = self.namespaces.remove(*name).unwrap_or_default();
                let entry = self.inside(name, &mut ns, rest);
                self.namespaces.insert((*name).to_owned(), ns);
                entry
            }
            other => fail(format!("invalid command: `{}`", other.join(" "))),
        }
    }

    fn inside(&mut self, name: &str, ns: &mut Namespace, words: &[&str]) -> Entry {
        match words {
            // What is on a host that is none of the namespace is not seen.
            ["vm", "info"] => {
                let hosts = self.hosts(ns);
                let mut seen = ns.clone();
                seen.vms.retain(|_, vm| hosts.contains(&vm.host));
                vm_info(name, &seen, &self.network)
            }
            [".columns", "name,bond", "vm", "info"] => {
                let rows = ns.vms.keys().map(|vm| vec![vm.clone(), self.network.bond_cell(name, vm)]);
                table(&["name", "bond"], rows.collect(), Value::Null)
            }
            ["vlans"] => {
                let rows = ns.vlans.iter().map(|(alias, tag)| vec![alias.clone(), tag.to_string()]);
                table(&["alias", "vlan"], rows.collect(), Value::Null)
            }
            ["vlans", "range", min, max] => {
                ns.range = Some((min.parse().unwrap(), max.parse().unwrap()));
                ok()
            }
            ["vlans", "add", alias, tag] => {
                let tag: i64 = tag.parse().unwrap();
                if ns.vlans.contains_key(*alias) {
                    return fail("alias already in use");
                }
                if ns.vlans.values().any(|t| *t == tag) {
                    return fail("VLAN already in use");
                }
                ns.vlans.insert((*alias).to_owned(), tag);
                ok()
            }
            ["clear", "vlans", prefix] => {
                ns.vlans.retain(|alias, _| !alias.starts_with(prefix));
                ok()
            }
            ["tap"] => {
                let rows =
                    ns.taps.iter().map(|(tap, t)| vec![t.bridge.clone(), tap.clone(), vlan_cell(&t.alias, t.vlan)]);
                table(&["bridge", "tap", "vlan"], rows.collect(), Value::Null)
            }
            ["tap", "create", vlan, rest @ ..] => {
                let (bridge, rest) = match rest {
                    ["bridge", bridge, rest @ ..] => (*bridge, rest),
                    rest => ("mega_bridge", rest),
                };
                let (ip, tap) = match rest {
                    ["ip", ip, tap] => (*ip, *tap),
                    ["name" | "dhcp", tap] => ("", *tap),
                    other => panic!("no such form of tap create: {other:?}"),
                };
                if self.namespaces.values().chain([&*ns]).any(|n| n.taps.contains_key(tap)) {
                    return fail("tap already on bridge");
                }
                let (alias, vlan) = resolve(ns, vlan);
                let made = Tap { bridge: bridge.into(), alias, vlan, ip: ip.into() };
                ns.taps.insert(tap.to_owned(), made);
                Entry::text("vm", tap)
            }
            ["tap", "delete", tap] => match ns.taps.remove(*tap) {
                Some(_) => ok(),
                None => fail("unknown tap"),
            },
            ["clear", "vm", "config"] => {
                ns.config.clear();
                ns.config_tags.clear();
                ok()
            }
            ["vm", "config", "tags", key, value] => {
                ns.config_tags.insert((*key).to_owned(), (*value).to_owned());
                ok()
            }
            ["vm", "config", "qemu-override", pair @ ..] => {
                ns.config.entry("qemu-override".to_owned()).or_default().extend(owned(pair));
                ok()
            }
            ["vm", "config", field, values @ ..] => {
                // The name of releases before 3, which 3.1.0 takes as an abbreviation.
                let field = if *field == "disk" { "disks" } else { field };
                assert!(crate::language::field::field(field).is_some(), "no field {field}");
                ns.config.insert(field.to_owned(), owned(values));
                ok()
            }
            ["shell", "mkdir", path] if self.folders.insert((*path).to_owned()) => ok(),
            ["shell", "rmdir", path] if self.folders.remove(*path) => ok(),
            ["shell", "test", "-d", path] if self.folders.contains(*path) => ok(),
            ["shell", ..] => fail("exit status: 1"),
            ["ns", "queueing"] => Entry::text("vm", ns.queueing.to_string()),
            ["ns", "queueing", on] => {
                ns.queueing = *on == "true";
                ok()
            }
            ["ns", "hosts"] => Entry::text("vm", self.hosts(ns).join(",")),
            ["ns", "add-hosts", list] => {
                let mut hosts = self.hosts(ns);
                for host in range::expand(list).unwrap() {
                    if host != "vm" && !self.mesh.contains_key(&host) {
                        return fail(format!("no such host: {host}"));
                    }
                    hosts.push(host);
                }
                hosts.sort();
                hosts.dedup();
                ns.hosts = Some(hosts);
                ok()
            }
            ["ns", "del-hosts", list] => {
                let gone = range::expand(list).unwrap();
                let hosts = self.hosts(ns).into_iter().filter(|host| *list != "all" && !gone.contains(host));
                ns.hosts = Some(hosts.collect());
                ok()
            }
            ["ns", "load"] => Entry::text("vm", ns.load.as_deref().unwrap_or("cpucommit")),
            ["ns", "load", load @ ("cpucommit" | "netcommit" | "memcommit")] => {
                ns.load = Some((*load).to_owned());
                ok()
            }
            ["ns", "queue"] => {
                let part = |(names, config, tags): &Waiting| {
                    let memory = config.get("memory").map_or("2048", |memory| memory[0].as_str());
                    format!(
                        "VMs: {}\nNames: {}\nVM Type: kvm\n\nVM configuration:\nMemory: {memory}\nTags: {}\n\n",
                        names.len(),
                        range::compress(names),
                        json!(tags)
                    )
                };
                Entry::text("vm", ns.queue.iter().map(part).collect::<String>())
            }
            ["ns", "flush"] => {
                ns.queue.clear();
                ok()
            }
            ["vm", "launch"] if ns.queue.is_empty() => {
                fail("namespace must contain at least one queued VM to launch VMs")
            }
            ["vm", "launch"] => self.schedule(ns),
            ["vm", "launch", "kvm", names] => {
                let names = range::expand(names).unwrap();
                if let Some(taken) = names.iter().find(|n| ns.vms.contains_key(*n)) {
                    return fail(format!("vm already exists with name `{taken}`"));
                }
                if let Some(taken) = names.iter().find(|n| ns.queue.iter().any(|(queued, ..)| queued.contains(n))) {
                    return fail(format!("vm already queued with name `{taken}`"));
                }
                ns.queue.push((names, ns.config.clone(), ns.config_tags.clone()));
                // Nothing says that a launch leaves what is queued alone.
                if ns.queueing { ok() } else { self.schedule(ns) }
            }
            ["vm", verb @ ("start" | "stop" | "kill" | "flush"), target] => {
                if matches!(*verb, "kill" | "flush") {
                    range::expand(target).unwrap().iter().for_each(|vm| self.network.forget(name, vm));
                }
                if *verb == "flush" {
                    range::expand(target).unwrap().iter().for_each(|vm| self.network.unplug(name, vm));
                }
                act(ns, verb, target)
            }
            ["vm", "tag", target, key, value] => each(ns, target, |vm| {
                vm.tags.insert((*key).to_owned(), (*value).to_owned());
                Ok(())
            }),
            ["clear", "vm", "tag", target, key] => each(ns, target, |vm| {
                vm.tags.remove(*key);
                Ok(())
            }),
            ["vm", "cdrom", verb @ ("change" | "eject"), target, image @ ..] if !self.network.fixed_media => {
                assert_eq!(image.len(), usize::from(*verb == "change"), "{words:?}");
                each(ns, target, |vm| {
                    if !matches!(vm.state, BUILDING | RUNNING | PAUSED) {
                        return Err("VM state error".to_owned());
                    }
                    vm.config.remove("cdrom");
                    vm.config.extend(image.first().map(|image| ("cdrom".to_owned(), owned(&[image]))));
                    Ok(())
                })
            }
            ["vm", "net", "connect", target, index, vlan, bridge @ ..] => {
                let index: usize = index.parse().unwrap();
                if range::expand(target).unwrap().iter().any(|vm| self.network.is_bonded(name, vm, index)) {
                    return fail("interface is in a bond");
                }
                let (alias, vlan) = resolve(ns, vlan);
                each(ns, target, |vm| {
                    let count = vm.nics.len();
                    let Some(nic) = vm.nics.get_mut(index) else {
                        return Err(format!("no network {index}, VM only has {count} networks"));
                    };
                    (nic.alias, nic.vlan) = (alias.clone(), vlan);
                    if let [bridge] = bridge {
                        nic.bridge = (*bridge).to_owned();
                    } else if nic.bridge.is_empty() {
                        nic.bridge = "mega_bridge".to_owned();
                    }
                    Ok(())
                })
            }
            ["vm", "net", "disconnect", target, index] => {
                let index: usize = index.parse().unwrap();
                each(ns, target, |vm| {
                    let nic = &mut vm.nics[index];
                    (nic.alias, nic.vlan, nic.bridge) = (String::new(), 0, String::new());
                    Ok(())
                })
            }
            ["nat", rest @ ..] if self.network.megaform => self.nat(name, ns, rest),
            other => self.network(name, ns, other),
        }
    }

    fn nat(&mut self, name: &str, ns: &mut Namespace, words: &[&str]) -> Entry {
        let tag_of = |tag: i64| u64::try_from(tag).unwrap();
        let known = ns.vlans.iter().map(|(alias, tag)| (tag_of(*tag), alias.clone())).collect();
        let mut tag = |vlan: &str| tag_of(resolve(ns, vlan).1);
        match self.network.nat(name, words, &mut tag, &known) {
            Answer::Table(header, rows) => table(header, rows, Value::Null),
            Answer::Told(header, rows, data) => table(header, rows, data),
            Answer::Fail(text) => fail(text),
            Answer::Ok | Answer::Text(_) => ok(),
        }
    }

    fn network(&mut self, name: &str, ns: &Namespace, words: &[&str]) -> Entry {
        let view = View {
            vms: ns.vms.iter().map(|(n, vm)| (n.clone(), vm.nics.iter().map(|n| n.bridge.clone()).collect())).collect(),
            nics: ns.vms.iter().map(|(n, vm)| (n.clone(), (0..vm.nics.len()).map(|i| tap(vm, i)).collect())).collect(),
            taps: ns.taps.iter().map(|(n, t)| (n.clone(), (t.bridge.clone(), vlan_cell(&t.alias, t.vlan)))).collect(),
        };
        match self.network.run(name, words, &view, &|target| range::expand(target).unwrap()) {
            Some(Answer::Ok) => ok(),
            Some(Answer::Text(text)) => Entry::text("vm", text),
            Some(Answer::Fail(text)) => fail(text),
            Some(Answer::Table(header, rows)) => table(header, rows, Value::Null),
            Some(Answer::Told(header, rows, data)) => table(header, rows, data),
            None => fail(format!("invalid command: `{}`", words.join(" "))),
        }
    }

    /// The hosts of a namespace; a new one has those that are not the head, if there are any.
    fn hosts(&self, ns: &Namespace) -> Vec<String> {
        let usual = || match self.mesh.is_empty() {
            true => vec!["vm".to_owned()],
            false => self.mesh.keys().cloned().collect(),
        };
        ns.hosts.clone().unwrap_or_else(usual)
    }

    /// Launch everything that is queued, or nothing.
    fn schedule(&mut self, ns: &mut Namespace) -> Entry {
        let hosts = self.hosts(ns);
        let mut places: BTreeMap<String, String> = ns.vms.iter().map(|(n, vm)| (n.clone(), vm.host.clone())).collect();
        if hosts.is_empty() {
            return fail("no hosts in namespace");
        }
        let all: Vec<String> = ns.queue.iter().flat_map(|(names, ..)| names.clone()).collect();
        for (names, config, _) in &ns.queue {
            let text = |field: &str| config.get(field).map(|value| value[0].clone()).filter(|text| !text.is_empty());
            if let Some(host) = text("schedule").filter(|host| !hosts.contains(host)) {
                return fail(format!("VM scheduled on unknown host: `{host}`"));
            }
            let beside = text("colocate");
            if let Some(other) = beside.as_ref().filter(|other| !all.contains(other) && !places.contains_key(*other)) {
                return fail(format!("VM colocated with unknown VM: `{other}`"));
            }
            for (index, name) in names.iter().enumerate() {
                let free = hosts[index % hosts.len()].clone();
                let host = text("schedule").or_else(|| places.get(beside.as_ref()?).cloned()).unwrap_or(free);
                places.insert(name.clone(), host);
            }
        }
        for (names, config, tags) in std::mem::take(&mut ns.queue) {
            self.launch(ns, names, &config, &tags, &places);
        }
        // Errors of the launch itself are not returned.
        ok()
    }

    fn launch(
        &mut self,
        ns: &mut Namespace,
        names: Vec<String>,
        config: &BTreeMap<String, Vec<String>>,
        tags: &BTreeMap<String, String>,
        places: &BTreeMap<String, String>,
    ) {
        let uuid = config.get("uuid").map(|u| u[0].clone());
        for name in names {
            self.counter += 1;
            let specs = config.get("networks").cloned().unwrap_or_default();
            let nics = specs.iter().enumerate().map(|(i, raw)| nic(ns, raw, self.counter, i)).collect();
            let mut tags = tags.clone();
            let broken = self.broken.get(&name);
            tags.extend(broken.map(|text| ("error".to_owned(), text.clone())));
            let uuid = uuid.clone().unwrap_or_else(|| format!("00000000-0000-4000-8000-{:012}", self.counter));
            let state = if broken.is_some() { ERROR } else { BUILDING };
            let vm = Vm {
                uuid,
                pid: 1000 + self.counter,
                state,
                nics,
                tags,
                config: config.clone(),
                broken: broken.is_some(),
                host: places[&name].clone(),
            };
            ns.vms.insert(name, vm);
        }
    }
}

/// `host` of each host, as it answers.
fn host_table(hosts: Vec<(String, (u64, u64))>) -> Vec<Entry> {
    let entry = |(host, (cpus, memory)): (String, (u64, u64))| Entry {
        host,
        ..table(&["cpus", "memtotal"], vec![vec![cpus.to_string(), memory.to_string()]], Value::Null)
    };
    hosts.into_iter().map(entry).collect()
}

fn nic(ns: &mut Namespace, raw: &str, vm: u64, index: usize) -> Nic {
    let spec = crate::language::netspec::NetSpec::parse(raw).unwrap();
    let (alias, vlan) = resolve(ns, &spec.vlan);
    Nic {
        alias,
        vlan,
        bridge: spec.bridge.unwrap_or_else(|| "mega_bridge".into()),
        mac: spec
            .mac
            .map_or_else(|| format!("00:26:fa:{:02x}:{:02x}:{index:02x}", vm / 256, vm % 256), |m| m.to_string()),
        driver: spec.driver.unwrap_or_else(|| "e1000".into()),
        raw: raw.to_owned(),
    }
}

/// The alias and tag of a VLAN; an alias that is not bound is given the next free tag.
fn resolve(ns: &mut Namespace, vlan: &str) -> (String, i64) {
    if let Ok(tag) = vlan.parse() {
        let alias = ns.vlans.iter().find(|(_, t)| **t == tag).map(|(a, _)| a.clone());
        return (alias.unwrap_or_default(), tag);
    }
    let (min, max) = ns.range.unwrap_or((101, 4096));
    let free = (min..max).find(|t| ns.vlans.values().all(|v| v != t)).unwrap();
    let tag = *ns.vlans.entry(vlan.to_owned()).or_insert(free);
    (vlan.to_owned(), tag)
}

/// A single name that is not there is an error; names of a list that are not there are skipped, as recorded.
fn each(ns: &mut Namespace, target: &str, mut f: impl FnMut(&mut Vm) -> Result<(), String>) -> Entry {
    let names = range::expand(target).unwrap();
    if names.len() == 1 && !ns.vms.contains_key(&names[0]) {
        return fail(format!("vm not found: {target}"));
    }
    let errors: Vec<String> = names.iter().filter_map(|n| f(ns.vms.get_mut(n)?).err()).collect();
    if errors.is_empty() { ok() } else { fail(errors.join("\n")) }
}

fn act(ns: &mut Namespace, verb: &str, target: &str) -> Entry {
    let mut flushed = Vec::new();
    let entry = each(ns, target, |vm| {
        let wrong = || Err("VM state error".to_owned());
        match (verb, vm.state) {
            ("start", ERROR) if vm.broken => {}
            ("start", BUILDING | PAUSED | QUIT | ERROR) => vm.state = RUNNING,
            ("stop", RUNNING) => vm.state = PAUSED,
            ("kill", BUILDING | PAUSED | RUNNING) => vm.state = QUIT,
            ("flush", QUIT | ERROR) => flushed.push(vm.uuid.clone()),
            _ => return wrong(),
        }
        Ok(())
    });
    ns.vms.retain(|_, vm| !flushed.contains(&vm.uuid));
    entry
}

/// The tap of a NIC.
fn tap(vm: &Vm, index: usize) -> String {
    format!("mega_tap{}", vm.pid * 8 + index as u64)
}

fn vlan_cell(alias: &str, tag: i64) -> String {
    if alias.is_empty() { tag.to_string() } else { format!("{alias} ({tag})") }
}

fn state_word(state: u64) -> &'static str {
    match state {
        BUILDING => "BUILDING",
        RUNNING => "RUNNING",
        PAUSED => "PAUSED",
        QUIT => "QUIT",
        _ => "ERROR",
    }
}

fn vm_info(namespace: &str, ns: &Namespace, network: &Network) -> Entry {
    let rows = ns.vms.iter().map(|(name, vm)| {
        let nics: Vec<String> = vm.nics.iter().map(|n| vlan_cell(&n.alias, n.vlan)).collect();
        vec![
            name.clone(),
            state_word(vm.state).to_owned(),
            "kvm".to_owned(),
            format!("[{}]", nics.join(", ")),
            network.qos_cell(namespace, name),
        ]
    });
    let records = ns.vms.iter().map(|(name, vm)| {
        let one = |field: &str, default: &str| {
            vm.config.get(field).map_or_else(|| default.to_owned(), |v| v.first().cloned().unwrap_or_default())
        };
        let number = |field: &str, default: &str| one(field, default).parse::<u64>().unwrap();
        let truth = |field: &str, default: &str| one(field, default).parse::<bool>().unwrap();
        let words = |field: &str| vm.config.get(field).cloned();
        // A relative path is one in the files folder.
        let path = |text: String| {
            if text.is_empty() || text.starts_with('/') { text } else { format!("/base/files/{text}") }
        };
        let disks: Vec<Value> = words("disks")
            .unwrap_or_default()
            .iter()
            .map(|d| {
                let d = crate::language::diskspec::DiskSpec::parse(d).unwrap();
                json!({"Path": path(d.path), "Interface": d.interface.unwrap_or_default(), "Cache": d.cache.unwrap_or("writeback".into())})
            })
            .collect();
        let overrides = words("qemu-override").unwrap_or_default();
        let overrides: Vec<Value> =
            overrides.chunks(2).map(|pair| json!({"Match": pair[0], "Replacement": pair[1]})).collect();
        let nics: Vec<Value> = vm
            .nics
            .iter()
            .enumerate()
            .map(|(index, n)| json!({"Alias": n.alias, "VLAN": n.vlan, "Bridge": n.bridge, "Tap": tap(vm, index), "MAC": n.mac, "Driver": n.driver, "Raw": n.raw}))
            .collect();
        json!({
            "UUID": vm.uuid, "VCPUs": number("vcpus", "1"), "Memory": number("memory", "2048"),
            "Snapshot": truth("snapshot", "true"), "Schedule": one("schedule", ""), "Colocate": one("colocate", ""),
            "Coschedule": one("coschedule", "-1").parse::<i64>().unwrap(), "Backchannel": truth("backchannel", "true"), "Networks": nics, "Bonds": [], "Tags": vm.tags, "ID": vm.pid - 1000,
            "Name": name, "Namespace": namespace, "Host": vm.host, "State": vm.state, "Type": 1, "Pid": vm.pid,
            "QemuPath": one("qemu", "kvm"), "KernelPath": path(one("kernel", "")), "InitrdPath": path(one("initrd", "")),
            "CdromPath": path(one("cdrom", "")), "MigratePath": path(one("migrate", "")), "CPU": one("cpu", "host"), "Sockets": number("sockets", "0"),
            "Cores": number("cores", "0"), "Threads": number("threads", "0"), "Machine": one("machine", ""),
            "SerialPorts": number("serial-ports", "0"), "VirtioPorts": one("virtio-ports", ""), "Vga": one("vga", "std"),
            "Append": words("append"), "Disks": disks, "UsbUseXHCI": truth("usb-use-xhci", "true"), "TpmSocketPath": path(one("tpm-socket", "")),
            "BidirectionalCopyPaste": truth("bidirectional-copy-paste", "false"), "QemuAppend": words("qemu-append").unwrap_or_default(), "QemuOverride": overrides,
        })
    });
    table(&["name", "state", "type", "vlan", "qos"], rows.collect(), Value::Array(records.collect()))
}
