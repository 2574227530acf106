//! A scripted minimega 3.1.0 on a real UNIX socket: a model in memory that answers in the shapes of
//! `tests/data/exchanges.jsonl`. It shares no code with the program: it has its own words, ranges and JSON.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

#[path = "network.rs"]
pub mod network;

#[path = "hosts.rs"]
mod hosts;
#[path = "observing.rs"]
pub mod observing;
#[path = "queue.rs"]
mod queue;

use hosts::{host, words};
use network::{Answer, Network, View, names};
use queue::Waiting;

const BUILDING: u64 = 1;
pub const RUNNING: u64 = 2;
const PAUSED: u64 = 4;
const QUIT: u64 = 8;
const ERROR: u64 = 16;

/// The row of `exchanges.jsonl` that shows launched VMs: the model for every record and every row.
fn recorded_vms() -> Value {
    let row = include_str!("../data/exchanges.jsonl")
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).expect("the recording is JSON"))
        .find(|row| row["n"] == 54)
        .expect("row 54 is `vm info` after a launch");
    let answer: Value = serde_json::from_str(row["responses"][0].as_str().expect("text")).expect("a response");
    answer["Resp"][0].clone()
}

#[derive(Debug, Clone)]
pub struct Vm {
    pub id: u64,
    pub pid: u64,
    pub state: u64,
    pub host: String,
    pub tags: BTreeMap<String, String>,
    /// What `vm config` held at the launch.
    pub config: BTreeMap<String, Vec<String>>,
    pub uuid: String,
    /// VLAN alias, tag, bridge, MAC, driver, netspec.
    pub nics: Vec<Nic>,
}

#[derive(Debug, Clone)]
pub struct Nic {
    pub alias: String,
    pub vlan: u64,
    pub bridge: String,
    pub mac: String,
    pub driver: String,
    pub raw: String,
}

#[derive(Debug, Clone)]
pub struct Tap {
    pub bridge: String,
    pub alias: String,
    pub vlan: u64,
    pub ip: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Namespace {
    pub vms: BTreeMap<String, Vm>,
    pub vlans: BTreeMap<String, u64>,
    pub range: Option<(u64, u64)>,
    pub taps: BTreeMap<String, Tap>,
    pub config: BTreeMap<String, Vec<String>>,
    pub config_tags: BTreeMap<String, String>,
    pub queueing: bool,
    /// None for those that a namespace has by itself.
    pub hosts: Option<Vec<String>>,
    pub load: Option<String>,
    pub queue: Vec<Waiting>,
}

/// What the peer holds, and how it misbehaves.
#[derive(Debug, Default)]
pub struct State {
    pub namespaces: BTreeMap<String, Namespace>,
    pub active: String,
    /// Every command that arrived, in order.
    pub log: Vec<String>,
    /// Those that the release does not have.
    pub unknown: Vec<String>,
    /// VMs that cannot run, with what QEMU says.
    pub broken: BTreeMap<String, String>,
    /// Close the connection when a command that contains the text comes: before (false) or after (true) carrying it out.
    pub hang_up_at: Option<(String, bool)>,
    /// Answer every command that contains the text with an error.
    pub fail_at: Option<String>,
    /// Every connection that comes from now on is closed at once.
    pub deaf: bool,
    /// Progress before every answer.
    pub progress: bool,
    /// Time for every answer.
    pub delay: Duration,
    /// The host has no `ip` program.
    pub without_ip: bool,
    /// A second host of the mesh, where every second VM goes.
    pub second_host: Option<String>,
    /// Hosts of a mesh besides the one that is told, with CPUs and megabytes. A new namespace has these, as recorded.
    pub mesh: BTreeMap<String, (u64, u64)>,
    /// What the second host answers to commands with this text.
    pub second_host_error: Option<(String, String)>,
    /// `vm info` without `Data`, as an older release sends it.
    pub without_data: bool,
    launched: u64,
    /// The network commands.
    pub network: Network,
}

/// A running peer; it ends with its value.
pub struct Minimega {
    pub socket: PathBuf,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Minimega {
    pub fn start(folder: &Path) -> Self {
        let socket = folder.join("minimega");
        let listener = UnixListener::bind(&socket).expect("a socket in a temporary folder");
        let namespaces = BTreeMap::from([("minimega".to_owned(), Namespace::default())]);
        let state = State { namespaces, active: "minimega".to_owned(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.expect("a connection"), Arc::clone(&shared));
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { socket, state, stop }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no connection panics")
    }

    /// Run a command as another user of the daemon would; it must not fail, and is not recorded.
    #[track_caller]
    pub fn by_hand(&self, command: &str) {
        let entries = self.state().run(&words(command));
        for entry in entries {
            assert_eq!(entry["Error"], "", "{command}");
        }
    }

    /// The commands since the last call.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

/// The commands that change something, without their namespace.
pub fn changes(log: Vec<String>, namespace: &str) -> Vec<String> {
    let prefix = format!("namespace {namespace} ");
    let changes = log.into_iter().filter(|c| !observing::observes(c));
    changes.map(|c| c.strip_prefix(&prefix).unwrap_or(&c).to_owned()).collect()
}

impl Drop for Minimega {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _wakes_the_listener = UnixStream::connect(&self.socket);
    }
}

fn serve(mut stream: &UnixStream, state: &Mutex<State>) {
    let requests = serde_json::Deserializer::from_reader(stream).into_iter::<Value>();
    for request in requests {
        // Malformed requests close the connection silently.
        let Ok(Value::Object(request)) = request else { return };
        let Some(command) = request.get("Command").and_then(Value::as_str) else { return };
        let command = command.strip_prefix(".record false ").unwrap_or(command);
        let mut state = state.lock().expect("no connection panics");
        if state.deaf {
            return;
        }
        state.log.push(command.to_owned());
        let hang_up = state.hang_up_at.take_if(|(text, _)| command.contains(text.as_str()));
        if hang_up.as_ref().is_some_and(|(_, after)| !after) {
            return;
        }
        let failing = state.fail_at.as_ref().is_some_and(|text| command.contains(text.as_str()));
        let entries = if failing { fail("told to fail") } else { state.run(&words(command)) };
        if hang_up.is_some() {
            return;
        }
        let (progress, delay) = (state.progress, state.delay);
        drop(state);
        if progress {
            for step in 1..=2 {
                let frame =
                    json!({"Resp": null, "Rendered": format!("step {step} of 2"), "More": false, "Status": true});
                if send(&mut stream, &frame).is_err() {
                    return;
                }
            }
        }
        thread::sleep(delay);
        let rendered: Vec<&str> =
            entries.iter().filter_map(|e| e["Response"].as_str()).filter(|t| !t.is_empty()).collect();
        let frame = json!({"Resp": entries, "Rendered": rendered.join("\n"), "More": false, "Status": false});
        if send(&mut stream, &frame).is_err() {
            return;
        }
    }
}

/// One response on one line, with the characters that Go escapes.
fn send(stream: &mut &UnixStream, frame: &Value) -> std::io::Result<()> {
    let text = frame.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    stream.write_all(format!("{text}\n").as_bytes())
}

fn entry(host: &str, response: &str, header: Value, tabular: Value, error: &str, data: Value) -> Value {
    json!({
        "Host": host, "Response": response, "Header": header, "Tabular": tabular, "Error": error, "Data": data,
    })
}

fn text(response: &str) -> Vec<Value> {
    vec![entry("vm", response, Value::Null, Value::Null, "", Value::Null)]
}

fn ok() -> Vec<Value> {
    text("")
}

fn fail(error: &str) -> Vec<Value> {
    vec![entry("vm", "", Value::Null, Value::Null, error, Value::Null)]
}

/// A table; without rows minimega sends null or an empty list, depending on the command.
fn table(header: &[&str], rows: Vec<Vec<String>>, null: bool) -> Vec<Value> {
    let tabular = if rows.is_empty() && null { Value::Null } else { json!(rows) };
    vec![entry("vm", "", json!(header), tabular, "", Value::Null)]
}

/// The alias and the tag of a VLAN; an alias that is not bound gets the next free tag.
fn resolve(ns: &mut Namespace, vlan: &str) -> (String, u64) {
    if let Ok(tag) = vlan.parse::<u64>() {
        let alias = ns.vlans.iter().find(|(_, bound)| **bound == tag).map(|(alias, _)| alias.clone());
        return (alias.unwrap_or_default(), tag);
    }
    let (low, high) = ns.range.unwrap_or((101, 4096));
    let free = (low..high).find(|tag| ns.vlans.values().all(|bound| bound != tag)).expect("a free tag");
    (vlan.to_owned(), *ns.vlans.entry(vlan.to_owned()).or_insert(free))
}

fn vlan_cell(alias: &str, tag: u64) -> String {
    match (alias, tag) {
        ("", 0) => "disconnected".to_owned(),
        ("", tag) => tag.to_string(),
        (alias, tag) => format!("{alias} ({tag})"),
    }
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

impl State {
    fn run(&mut self, words: &[String]) -> Vec<Value> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let release = self.network.release(true);
        match &words[..] {
            ["help", of @ ..] => release.help(of).map_or_else(|| fail("no help entry"), |help| text(&help)),
            unknown if !release.knows(unknown) => {
                self.unknown.push(unknown.join(" "));
                fail(&format!("invalid command: `{}`", unknown.join(" ")))
            }
            ["version"] => text("minimega 3.1.0 x 2026-11-22"),
            ["host"] => vec![host("vm", (2, 24105))],
            ["mesh", "send", "all", "host"] => self.mesh.iter().map(|(name, size)| host(name, *size)).collect(),
            ["echo", rest @ ..] => text(&rest.join(" ")),
            ["namespace"] => {
                let rows = self.namespaces.iter().map(|(name, ns)| {
                    let range = ns.range.map(|(low, high)| format!("{low}-{high}")).unwrap_or_default();
                    vec![name.clone(), range, (*name == self.active).to_string()]
                });
                table(&["namespace", "vlans", "active"], rows.collect(), true)
            }
            ["namespace", name] => {
                self.namespaces.entry((*name).to_owned()).or_default();
                self.active = (*name).to_owned();
                ok()
            }
            ["clear", "namespace", name] => {
                self.namespaces.remove(*name);
                self.network.clear_namespace(name);
                self.everywhere(ok())
            }
            ["shell", "ip", "-json", "address", "show"] if !self.without_ip => text(&format!("{}\n", self.addresses())),
            ["shell", program, ..] => fail(&format!("exec: \"{program}\": executable file not found in $PATH")),
            ["namespace", name, rest @ ..] => {
                let mut ns = self.namespaces.remove(*name).unwrap_or_default();
                let entries = self.inside(name, &mut ns, rest);
                self.namespaces.insert((*name).to_owned(), ns);
                entries
            }
            other => {
                let active = self.active.clone();
                let mut ns = self.namespaces.remove(&active).unwrap_or_default();
                let entries = self.inside(&active, &mut ns, other);
                self.namespaces.insert(active, ns);
                entries
            }
        }
    }

    /// The answers of all hosts of the mesh: those of the second are the same, or what it is told to say.
    fn everywhere(&self, mut entries: Vec<Value>) -> Vec<Value> {
        if let (Some(host), Some(first)) = (&self.second_host, entries.first().cloned()) {
            let mut second = first;
            second["Host"] = json!(host);
            entries.push(second);
        }
        entries
    }

    /// `ip -json address show` as iproute2 prints it.
    fn addresses(&self) -> Value {
        let mut interfaces = vec![json!({
            "ifindex": 1, "ifname": "lo", "flags": ["LOOPBACK", "UP", "LOWER_UP"], "mtu": 65536, "qdisc": "noqueue",
            "operstate": "UNKNOWN", "group": "default", "txqlen": 1000, "link_type": "loopback",
            "address": "00:00:00:00:00:00", "broadcast": "00:00:00:00:00:00",
            "addr_info": [
                {"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host", "label": "lo"},
                {"family": "inet6", "local": "::1", "prefixlen": 128, "scope": "host"},
            ],
        })];
        for (index, (name, tap)) in self.namespaces.values().flat_map(|ns| &ns.taps).enumerate() {
            let mut addresses = vec![json!({
                "family": "inet6", "local": "fe80::5054:ff:fe00:1", "prefixlen": 64, "scope": "link",
            })];
            addresses.extend(tap.ip.as_ref().and_then(|ip| ip.split_once('/')).map(|(local, prefix)| {
                let prefix: u64 = prefix.parse().expect("a prefix length");
                json!({"family": "inet", "local": local, "prefixlen": prefix, "scope": "global", "label": name})
            }));
            interfaces.push(json!({
                "ifindex": 2 + index, "ifname": name, "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"], "mtu": 1500,
                "qdisc": "noqueue", "master": "ovs-system", "operstate": "UP", "link_type": "ether",
                "addr_info": addresses,
            }));
        }
        Value::Array(interfaces)
    }

    fn inside(&mut self, name: &str, ns: &mut Namespace, words: &[&str]) -> Vec<Value> {
        if let (["nat", rest @ ..], true) = (words, self.network.megaform) {
            let known = ns.vlans.iter().map(|(alias, tag)| (*tag, alias.clone())).collect();
            return answer(self.network.nat(name, rest, &mut |vlan| resolve(ns, vlan).1, &known));
        }
        if let Some(answer) = self.network(name, ns, words) {
            return answer;
        }
        match words {
            ["version"] => text("minimega 3.1.0 x 2026-11-22"),
            // Whoever is asked answers.
            ["shell", "ping" | "timeout", ..] => ok(),
            ["vm", "info"] => self.vm_info(name, ns),
            [".columns", "name,bond", "vm", "info"] => {
                let rows = ns.vms.keys().map(|vm| vec![vm.clone(), self.network.bond_cell(name, vm)]);
                table(&["name", "bond"], rows.collect(), false)
            }
            ["vlans"] => {
                let rows = ns.vlans.iter().map(|(alias, tag)| vec![alias.clone(), tag.to_string()]).collect();
                table(&["alias", "vlan"], rows, false)
            }
            ["vlans", "range", low, high] => {
                let number = |text: &str| text.parse::<u64>().expect("a tag");
                ns.range = Some((number(low), number(high)));
                ok()
            }
            ["vlans", "add", alias, tag] => {
                let tag = tag.parse().expect("a tag");
                if ns.vlans.contains_key(*alias) {
                    return fail("alias already in use");
                }
                ns.vlans.insert((*alias).to_owned(), tag);
                ok()
            }
            ["clear", "vlans", prefix] => {
                ns.vlans.retain(|alias, _| !alias.starts_with(prefix));
                ok()
            }
            ["tap"] => {
                let row = |(name, tap): (&String, &Tap)| {
                    vec![tap.bridge.clone(), name.clone(), vlan_cell(&tap.alias, tap.vlan)]
                };
                table(&["bridge", "tap", "vlan"], ns.taps.iter().map(row).collect(), false)
            }
            ["tap", "create", vlan, rest @ ..] => {
                let (bridge, rest) = match rest {
                    ["bridge", bridge, rest @ ..] => (*bridge, rest),
                    rest => ("mega_bridge", rest),
                };
                let (ip, tap) = match rest {
                    ["ip", ip, tap] => (Some((*ip).to_owned()), *tap),
                    ["name" | "dhcp", tap] => (None, *tap),
                    _ => return invalid(name, words),
                };
                if self.namespaces.values().chain([&*ns]).any(|ns| ns.taps.contains_key(tap)) {
                    return fail("tap already on bridge");
                }
                let (alias, vlan) = resolve(ns, vlan);
                ns.taps.insert(tap.to_owned(), Tap { bridge: bridge.to_owned(), alias, vlan, ip });
                text(tap)
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
            ["vm", "config", "memory" | "vcpus", value] if value.parse::<u64>().is_err() => {
                fail(&format!("strconv.ParseUint: parsing \"{value}\": invalid syntax"))
            }
            ["vm", "config", "memory"] => text(ns.config.get("memory").map_or("2048", |v| v[0].as_str())),
            ["vm", "config", field, values @ ..] if !values.is_empty() => {
                let field = if *field == "disk" { "disks" } else { field };
                ns.config.insert(field.to_owned(), values.iter().map(|v| (*v).to_owned()).collect());
                ok()
            }
            ["ns", rest @ ..] => self.placement(ns, rest),
            ["vm", "launch"] => self.schedule(ns),
            ["vm", "launch", "kvm", target] => {
                let launch = Waiting { names: names(target), config: ns.config.clone(), tags: ns.config_tags.clone() };
                let there: Vec<String> = ns.vms.keys().cloned().collect();
                let queued = self.queue(ns).add(launch, &|name| there.iter().any(|vm| vm == name));
                // Nothing says that a launch leaves alone what is queued.
                match queued {
                    Err(error) => fail(&error),
                    Ok(()) if ns.queueing => ok(),
                    Ok(()) => self.schedule(ns),
                }
            }
            ["vm", "flush"] => {
                let ended = ns.vms.iter().filter(|(_, vm)| matches!(vm.state, QUIT | ERROR));
                let ended: Vec<String> = ended.map(|(vm, _)| vm.clone()).collect();
                for vm in &ended {
                    self.network.forget(name, vm);
                    self.network.unplug(name, vm);
                }
                ns.vms.retain(|vm, _| !ended.contains(vm));
                self.everywhere(ok())
            }
            ["vm", verb @ ("start" | "stop" | "kill" | "flush"), target] => {
                let broken = self.broken.clone();
                let mut flushed = Vec::new();
                let entries = self.each(ns, target, words, |name, vm| {
                    match (*verb, vm.state) {
                        ("start", QUIT | ERROR) if broken.contains_key(name) => vm.state = ERROR,
                        ("start", BUILDING | PAUSED | QUIT | ERROR) => vm.state = RUNNING,
                        ("stop", RUNNING) => vm.state = PAUSED,
                        ("kill", BUILDING | RUNNING | PAUSED) => vm.state = QUIT,
                        ("flush", QUIT | ERROR) => flushed.push(name.to_owned()),
                        _ => return Err(format!("VM state error: {name}")),
                    }
                    Ok(())
                });
                if matches!(*verb, "kill" | "flush") {
                    names(target).iter().for_each(|vm| self.network.forget(name, vm));
                }
                if *verb == "flush" {
                    names(target).iter().for_each(|vm| self.network.unplug(name, vm));
                }
                ns.vms.retain(|name, _| !flushed.contains(name));
                entries
            }
            ["vm", "tag", target, key, value] => self.each(ns, target, words, |_, vm| {
                vm.tags.insert((*key).to_owned(), (*value).to_owned());
                Ok(())
            }),
            ["clear", "vm", "tag", target, key] => self.each(ns, target, words, |_, vm| {
                vm.tags.remove(*key);
                Ok(())
            }),
            ["vm", "net", "add", target, specs @ ..] => {
                let base = self.launched;
                let made: Vec<Vec<Nic>> = names(target)
                    .iter()
                    .enumerate()
                    .map(|(n, _)| {
                        let number = |i: usize| 10 + i;
                        specs.iter().enumerate().map(|(i, raw)| nic(ns, raw, base + n as u64, number(i))).collect()
                    })
                    .collect();
                let mut made = made.into_iter();
                self.each(ns, target, words, |_, vm| {
                    vm.nics.extend(made.next().unwrap_or_default());
                    Ok(())
                })
            }
            ["vm", "cdrom", _, target, image @ ..] => self.each(ns, target, words, |name, vm| {
                if matches!(vm.state, QUIT | ERROR) {
                    return Err(format!("VM state error: {name}"));
                }
                vm.config.remove("cdrom");
                vm.config.extend(image.first().map(|image| ("cdrom".to_owned(), vec![(*image).to_owned()])));
                Ok(())
            }),
            ["vm", "net", "connect", target, index, vlan, bridge @ ..] => {
                let index: usize = index.parse().expect("an index");
                let (alias, vlan) = resolve(ns, vlan);
                self.each(ns, target, words, |_, vm| {
                    let count = vm.nics.len();
                    let Some(nic) = vm.nics.get_mut(index) else {
                        return Err(format!("no network {index}, VM only has {count} networks"));
                    };
                    (nic.alias, nic.vlan) = (alias.clone(), vlan);
                    nic.bridge = bridge.first().map_or("mega_bridge", |b| *b).to_owned();
                    Ok(())
                })
            }
            ["vm", "net", "disconnect", target, index] => {
                let index: usize = index.parse().expect("an index");
                self.each(ns, target, words, |_, vm| {
                    let nic = &mut vm.nics[index];
                    (nic.alias, nic.vlan, nic.bridge) = (String::new(), 0, String::new());
                    Ok(())
                })
            }
            other => invalid(name, other),
        }
    }

    fn network(&mut self, name: &str, ns: &Namespace, words: &[&str]) -> Option<Vec<Value>> {
        let vm = |(n, vm): (&String, &Vm)| (n.clone(), vm.nics.iter().map(|nic| nic.bridge.clone()).collect());
        let tap = |(n, t): (&String, &Tap)| (n.clone(), (t.bridge.clone(), vlan_cell(&t.alias, t.vlan)));
        let view =
            View { vms: ns.vms.iter().map(vm).collect(), taps: ns.taps.iter().map(tap).collect(), ..View::default() };
        Some(answer(self.network.run(name, words, &view, &names)?))
    }

    /// Act on a target: one name that is not there is an error, those of a list are skipped.
    fn each(
        &self,
        ns: &mut Namespace,
        target: &str,
        words: &[&str],
        mut act: impl FnMut(&str, &mut Vm) -> Result<(), String>,
    ) -> Vec<Value> {
        let all = || ns.vms.keys().cloned().collect();
        let names: Vec<String> = if target == "all" { all() } else { names(target) };
        if let ([name], false) = (&names[..], names.iter().all(|name| ns.vms.contains_key(name))) {
            return fail(&format!("vm not found: {name}"));
        }
        if let (Some(host), Some((text, error))) = (&self.second_host, &self.second_host_error)
            && words.join(" ").contains(text)
        {
            let mut entries = ok();
            entries.push(entry(host, "", Value::Null, Value::Null, error, Value::Null));
            return entries;
        }
        let mut errors = Vec::new();
        for name in names {
            if let Some(vm) = ns.vms.get_mut(&name) {
                errors.extend(act(&name, vm).err());
            }
        }
        if errors.is_empty() { self.everywhere(ok()) } else { fail(&errors.join("\n")) }
    }

    fn vm_info(&self, namespace: &str, ns: &Namespace) -> Vec<Value> {
        let model = recorded_vms();
        // What is on a host that is none of the namespace is not seen.
        let hosts = ns.hosts.clone().unwrap_or_else(|| self.usual_hosts());
        let mut entries = Vec::new();
        for host in hosts {
            let (mut rows, mut records) = (Vec::new(), Vec::new());
            for (name, vm) in ns.vms.iter().filter(|(_, vm)| vm.host == host) {
                rows.push(row(&model, name, vm, &self.network.qos_cell(namespace, name)));
                records.push(record(&model, namespace, name, vm));
            }
            let tabular = if rows.is_empty() { Value::Null } else { Value::Array(rows) };
            let data = if self.without_data { Value::Null } else { Value::Array(records) };
            entries.push(entry(&host, "", model["Header"].clone(), tabular, "", data));
        }
        entries
    }
}

fn answer(answer: Answer) -> Vec<Value> {
    match answer {
        Answer::Ok => ok(),
        Answer::Text(answer) => text(&answer),
        Answer::Fail(error) => fail(&error),
        Answer::Table(header, rows) => table(header, rows, false),
        Answer::Told(header, rows, data) => {
            let mut entries = table(header, rows, false);
            entries.iter_mut().for_each(|entry| entry["Data"] = Value::clone(&data));
            entries
        }
    }
}

fn invalid(namespace: &str, words: &[&str]) -> Vec<Value> {
    let inner = words.join(" ");
    let line = if namespace == "minimega" { inner } else { format!("namespace {namespace} {inner}") };
    fail(&format!("invalid command: `{line}`"))
}

/// A NIC from `VLAN[,MAC][,DRIVER]` or with a bridge before the VLAN.
fn nic(ns: &mut Namespace, raw: &str, vm: u64, index: usize) -> Nic {
    let parts: Vec<&str> = raw.split(',').collect();
    let is_mac = |text: &str| text.len() == 17 && text.split(':').count() == 6;
    let is_driver = |text: &str| text == "e1000" || text.starts_with("virtio");
    let mac = parts.iter().find(|part| is_mac(part)).map(|mac| (*mac).to_owned());
    let driver = parts.iter().find(|part| is_driver(part)).map(|driver| (*driver).to_owned());
    let rest: Vec<&str> = parts.into_iter().filter(|part| !is_mac(part) && !is_driver(part)).collect();
    let (bridge, vlan) = match rest[..] {
        [vlan] => ("mega_bridge", vlan),
        [bridge, vlan] => (bridge, vlan),
        _ => panic!("no such netspec: {raw}"),
    };
    let (alias, vlan) = resolve(ns, vlan);
    Nic {
        alias,
        vlan,
        bridge: bridge.to_owned(),
        mac: mac.unwrap_or_else(|| format!("00:26:fa:68:{vm:02x}:{index:02x}")),
        driver: driver.unwrap_or_else(|| "e1000".to_owned()),
        raw: raw.to_owned(),
    }
}

/// A path of `vm config`: a relative one is in the folder of files.
fn path(vm: &Vm, field: &str) -> String {
    match vm.config.get(field).map(|v| v[0].as_str()) {
        None | Some("") => String::new(),
        Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
        Some(relative) => format!("/base/files/{relative}"),
    }
}

/// The record of a VM: the recorded one with what this one has of its own.
fn record(model: &Value, namespace: &str, name: &str, vm: &Vm) -> Value {
    let mut record = model["Data"][0].clone();
    let number = |field: &str, default: u64| {
        vm.config.get(field).map_or(default, |v| v[0].parse().expect("checked when it was set"))
    };
    let word = |field: &str| vm.config.get(field).map_or(String::new(), |v| v[0].clone());
    let networks: Vec<Value> = vm
        .nics
        .iter()
        .enumerate()
        .map(|(index, nic)| {
            json!({
                "Alias": nic.alias, "VLAN": nic.vlan, "Bridge": nic.bridge, "Tap": format!("mega_tap{}", vm.id * 8 + index as u64),
                "MAC": nic.mac, "Driver": nic.driver, "IP4": "", "IP6": "", "QinQ": false, "RxRate": 0, "TxRate": 0,
                "Raw": nic.raw,
            })
        })
        .collect();
    let disks: Vec<Value> = vm
        .config
        .get("disks")
        .into_iter()
        .flatten()
        .map(|disk| json!({"Path": disk.split(',').next(), "SnapshotPath": "", "Interface": "", "Cache": "writeback"}))
        .collect();
    for (key, value) in [
        ("UUID", json!(vm.uuid)),
        ("VCPUs", json!(number("vcpus", 1))),
        ("Memory", json!(number("memory", 2048))),
        ("Schedule", json!(word("schedule"))),
        ("Colocate", json!(word("colocate"))),
        ("Coschedule", json!(vm.config.get("coschedule").map_or(-1, |v| v[0].parse::<i64>().expect("a limit")))),
        ("Snapshot", json!(vm.config.get("snapshot").is_none_or(|v| v[0] == "true"))),
        ("Networks", json!(networks)),
        ("Tags", json!(vm.tags)),
        ("ID", json!(vm.id)),
        ("Name", json!(name)),
        ("Namespace", json!(namespace)),
        ("Host", json!(vm.host)),
        ("State", json!(vm.state)),
        ("Pid", json!(vm.pid)),
        ("KernelPath", json!(path(vm, "kernel"))),
        ("InitrdPath", json!(path(vm, "initrd"))),
        ("CdromPath", json!(path(vm, "cdrom"))),
        ("Append", json!(vm.config.get("append"))),
        ("Disks", json!(disks)),
        // A guest with this tag runs the agent.
        ("ActiveCC", json!(vm.tags.contains_key("agent"))),
        ("Sockets", json!(number("sockets", 0))),
        ("Cores", json!(number("cores", 0))),
        ("Threads", json!(number("threads", 0))),
        ("Vga", json!(vm.config.get("vga").map_or("std", |v| v[0].as_str()))),
        ("UsbUseXHCI", json!(vm.config.get("usb-use-xhci").is_none_or(|v| v[0] == "true"))),
        ("BidirectionalCopyPaste", json!(word("bidirectional-copy-paste") == "true")),
        ("TpmSocketPath", json!(word("tpm-socket"))),
    ] {
        assert!(record.get(key).is_some(), "the recorded VM has no {key}");
        record[key] = value;
    }
    record
}

/// The row of a VM: the recorded one with what this one has of its own.
fn row(model: &Value, name: &str, vm: &Vm, qos: &str) -> Value {
    let header = model["Header"].as_array().expect("a header");
    let mut row = model["Tabular"][0].clone();
    let list = |f: &dyn Fn(&Nic) -> String| format!("[{}]", vm.nics.iter().map(f).collect::<Vec<_>>().join(", "));
    let one = |field: &str, default: &str| vm.config.get(field).map_or_else(|| default.to_owned(), |v| v[0].clone());
    for (column, cell) in [
        ("id", vm.id.to_string()),
        ("name", name.to_owned()),
        ("state", state_word(vm.state).to_owned()),
        ("uuid", vm.uuid.clone()),
        ("pid", vm.pid.to_string()),
        ("vlan", list(&|nic| vlan_cell(&nic.alias, nic.vlan))),
        ("bridge", list(&|nic| nic.bridge.clone())),
        ("mac", list(&|nic| nic.mac.clone())),
        ("memory", one("memory", "2048")),
        ("vcpus", one("vcpus", "1")),
        ("kernel", path(vm, "kernel")),
        ("initrd", path(vm, "initrd")),
        ("append", format!("[{}]", vm.config.get("append").cloned().unwrap_or_default().join(" "))),
        ("tags", json!(vm.tags).to_string()),
        ("qos", qos.to_owned()),
        ("cc_active", vm.tags.contains_key("agent").to_string()),
    ] {
        let index = header.iter().position(|h| h == column).unwrap_or_else(|| panic!("no column {column}"));
        row[index] = json!(cell);
    }
    row
}
