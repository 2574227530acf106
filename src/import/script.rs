//! From a script of minimega commands, by interpreting what each would leave behind.
//!
//! Only what shapes the experiment counts: configurations, launches, starts, tags, NICs, VLANs and taps. A command that only
//! shows something is passed over; any other is a note with its place.

use std::collections::{BTreeMap, BTreeSet};

mod bonds;
mod lines;
mod note;
mod objects;

use lines::Interpreter;

use super::object;
use super::{Found, FoundNic, FoundTap, FoundVm, bridge};
use crate::language::field::{FieldType, FieldValue, VmConfig, field_called};
use crate::language::grammar::{Args, Grammar};
use crate::language::netspec::NetSpec;
use crate::language::qos::Qos;
use crate::language::range;
use crate::live::Facts;
use crate::name::Kind;
use crate::plan::ownership;
use crate::spec::model::UsbDisk;

/// The longest script, in bytes, as the daemon reads one.
pub const MAX_BYTES: u64 = 64 << 20;
/// How many lines a script and those that it reads may have together.
const MAX_LINES: usize = 1_000_000;
/// Why a script became no experiment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScriptError {
    /// It makes nothing.
    #[error("{script} makes no VM, VLAN or tap{}", first_note(note))]
    Nothing {
        /// The script.
        script: String,
        /// The first line that was not understood.
        note: Option<String>,
    },
    /// It fills several namespaces.
    #[error("{script} fills the namespaces {}, and an experiment is one: choose with --namespace", namespaces.join(", "))]
    Several {
        /// The script.
        script: String,
        /// The namespaces.
        namespaces: Vec<String>,
    },
    /// It is too long.
    #[error("{script} has more than {MAX_LINES} lines or {MAX_BYTES} bytes, with the scripts that it reads")]
    Long {
        /// The script.
        script: String,
    },
    /// The namespace that was asked for stays empty.
    #[error("{script} makes nothing in the namespace {namespace}")]
    Empty {
        /// The script.
        script: String,
        /// The namespace.
        namespace: String,
    },
}

fn first_note(note: &Option<String>) -> String {
    note.as_ref().map(|note| format!("; {note}")).unwrap_or_default()
}

/// How a VM stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Building,
    Running,
    Paused,
    Quit,
}

#[derive(Debug, Clone)]
struct Vm {
    /// NICs and tags too, as they are by now.
    config: VmConfig,
    state: State,
    /// NICs that are disconnected.
    cut: Vec<usize>,
    /// What shapes NICs, by index.
    qos: BTreeMap<usize, Qos>,
    bonds: Vec<bonds::Bond>,
    /// USB disks, by number.
    usb: BTreeMap<u32, UsbDisk>,
}

impl Vm {
    fn new(config: VmConfig) -> Self {
        Self {
            config,
            state: State::Building,
            cut: Vec::new(),
            qos: BTreeMap::new(),
            bonds: Vec::new(),
            usb: BTreeMap::new(),
        }
    }

    /// Give it a USB disk, or take some away.
    fn hotplug(&mut self, args: &Args) {
        if args.flag("remove") {
            let id = args.str("disk id or all").unwrap_or_default();
            self.usb.retain(|number, _| id != "all" && number.to_string() != id);
        } else if args.flag("add") {
            let number = (0..).find(|number| !self.usb.contains_key(number)).unwrap_or_default();
            let version = super::usb_version(args.str("version").unwrap_or_default());
            let (path, serial) = (args.str("filename").unwrap_or_default(), args.str("serial"));
            self.usb.insert(number, UsbDisk { path: path.to_owned(), version, serial: serial.map(str::to_owned) });
        }
    }
}

#[derive(Debug, Default)]
struct Space {
    /// The namespace.
    name: String,
    config: VmConfig,
    saved: BTreeMap<String, VmConfig>,
    vms: BTreeMap<String, Vm>,
    vlans: BTreeMap<String, u16>,
    range: Option<(u16, u16)>,
    blacklist: BTreeSet<u16>,
    taps: BTreeMap<String, FoundTap>,
    objects: BTreeMap<Kind, BTreeMap<String, Facts>>,
    /// Which hosts the namespace has is known, or said not to be.
    hosts_known: bool,
    /// Launches only queue.
    queueing: bool,
    /// What is queued.
    queue: BTreeMap<String, Vm>,
    /// Settings of captures that start from now on.
    capturing: Facts,
    /// How many dnsmasq servers were started.
    servers: usize,
    /// Lines that are not imported.
    notes: note::Notes,
    /// What else is to be said.
    remarks: Vec<String>,
    /// VMs in the order of their launches.
    order: BTreeMap<String, usize>,
    /// What the last command made.
    made: Vec<(Kind, String)>,
    /// Comments on what was made.
    comments: BTreeMap<(Kind, String), Vec<String>>,
}

impl Space {
    fn is_empty(&self) -> bool {
        let objects = self.objects.values().all(BTreeMap::is_empty);
        self.vms.is_empty() && self.vlans.is_empty() && self.taps.is_empty() && objects
    }
}

/// What a script leaves behind. `name` is for messages; `read` gives the text of another script; `namespace` chooses among
/// several.
pub fn script(
    name: &str,
    text: &str,
    grammar: &Grammar,
    namespace: Option<&str>,
    read: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<Found, ScriptError> {
    let mut interpreter = Interpreter::new(grammar, read);
    interpreter.lines(name, text, 0);
    let script = name.to_owned();
    if interpreter.is_too_long() {
        return Err(ScriptError::Long { script });
    }
    let (mut spaces, heading) = interpreter.end();
    let filled: Vec<String> = spaces.iter().filter(|(_, space)| !space.is_empty()).map(|(n, _)| n.clone()).collect();
    let chosen = match (namespace, filled.as_slice()) {
        (Some(namespace), _) if filled.iter().any(|name| name == namespace) => namespace.to_owned(),
        (Some(namespace), _) => return Err(ScriptError::Empty { script, namespace: namespace.to_owned() }),
        (None, [one]) => one.clone(),
        (None, []) => {
            let note = spaces.values().find_map(|space| space.notes.first());
            return Err(ScriptError::Nothing { script, note });
        }
        (None, _) => return Err(ScriptError::Several { script, namespaces: filled }),
    };
    let space = spaces.remove(&chosen).expect("it is filled");
    Ok(Found { heading, ..found(chosen, space) })
}

fn found(name: String, space: Space) -> Found {
    let mut found = Found {
        name,
        vlan_range: space.range,
        vlan_blacklist: space.blacklist,
        taps: space.taps,
        objects: space.objects,
        configs: space.saved,
        comments: space.comments,
        order: space.order,
        raw: space.notes.raw(),
        notes: space.remarks.into_iter().chain(space.notes.texts()).collect(),
        ..Found::default()
    };
    if !space.queue.is_empty() {
        let names = range::compress(&space.queue.keys().collect::<Vec<_>>());
        found.notes.push(format!("VMs that are queued and never launched are left out: {names}"));
    }
    found.vlans = space.vlans.into_iter().map(|(alias, tag)| (alias, Some(tag))).collect();
    let mut used: Vec<String> = found.taps.values().map(|tap| tap.vlan.clone()).collect();
    used.extend(
        found.objects.get(&Kind::Nat).into_iter().flat_map(|ways| ways.values()).map(|way| way["vlan"][0].clone()),
    );
    for (name, vm) in space.vms {
        if vm.state == State::Quit {
            found.notes.push(format!("the VM {name} is killed at the end and is left out"));
            continue;
        }
        let mut nics = Vec::new();
        for (index, spec) in vm.config.networks().into_iter().enumerate() {
            if spec.qinq {
                found
                    .notes
                    .push(format!("NIC {index} of the VM {name} tunnels VLANs (qinq), which experiments cannot say"));
            }
            used.push(spec.vlan.clone());
            nics.push(FoundNic {
                vlan: spec.vlan,
                mac: spec.mac.map(|mac| mac.to_string()),
                driver: spec.driver,
                bridge: spec.bridge.as_deref().and_then(bridge),
                cut: vm.cut.contains(&index),
                qos: vm.qos.get(&index).copied(),
            });
        }
        // A plan's script sets the tags that every apply sets.
        let mut tags = vm.config.tags();
        tags.retain(|key, _| !key.starts_with(ownership::RESERVED));
        super::without_empty(&name, &mut tags, &mut found.notes);
        let mut config = vm.config;
        config.clear("networks");
        config.clear("tags");
        let paused = matches!(vm.state, State::Building | State::Paused);
        let bonds = vm.bonds.into_iter().map(|bond| bond.facts).collect();
        found.vms.insert(
            name,
            FoundVm { config, nics, usb: vm.usb.into_values().collect(), tags, paused, bonds, ignored: Vec::new() },
        );
    }
    for vlan in used {
        // A number is a tag, which needs no alias.
        if vlan.parse::<u16>().is_err() {
            found.vlans.entry(vlan).or_default();
        }
    }
    super::bond::settle(&mut found);
    servers(&mut found);
    found
}

/// Call servers after what they serve, and the NICs of their leases by their VMs.
fn servers(found: &mut Found) {
    let Some(servers) = found.objects.remove(&Kind::Dnsmasq).filter(|servers| !servers.is_empty()) else { return };
    let named = found.objects.entry(Kind::Dnsmasq).or_default();
    for (old, facts) in servers {
        let new = object::name(Kind::Dnsmasq, object::called(Kind::Dnsmasq, &old, &facts, &found.taps), named);
        if let Some(comments) = found.comments.remove(&(Kind::Dnsmasq, old)) {
            found.comments.insert((Kind::Dnsmasq, new.clone()), comments);
        }
        named.insert(new, facts);
    }
    let nics = found.vms.iter().flat_map(|(name, vm)| vm.nics.iter().enumerate().map(move |nic| (name, nic)));
    let nics = nics.filter_map(|(name, (index, nic))| Some((nic.mac.clone()?, name.clone(), index)));
    let nics = nics.collect::<Vec<_>>();
    object::leases(nics.into_iter(), found);
}

/// The words of a `vm config FIELD` command.
fn words(args: &Args, ty: FieldType) -> Vec<String> {
    let one = |text: Option<&str>| text.map(|t| vec![t.to_owned()]).unwrap_or_default();
    match ty {
        FieldType::Bool => one(args.choice("true,false")),
        FieldType::Words => args.list("value").to_vec(),
        FieldType::Networks => args.list("netspec").to_vec(),
        FieldType::Disks => args.list("diskspec").to_vec(),
        FieldType::Overrides => {
            [args.str("match"), args.str("replacement")].into_iter().flatten().map(str::to_owned).collect()
        }
        FieldType::Tags => [args.str("key"), args.str("value")].into_iter().flatten().map(str::to_owned).collect(),
        _ => one(args.str("value")),
    }
}

impl Space {
    /// Carry out a command of this namespace; false if it is none that shapes an experiment.
    fn command(&mut self, name: &str, args: &Args) -> Result<bool, String> {
        let target = |args: &Args| args.str("vm target").or(args.str("vm name")).unwrap_or_default().to_owned();
        if let Some(field) = name.strip_prefix("vm config ").and_then(field_called) {
            if !field.in_file() {
                return Err("experiments cannot say it".to_owned());
            }
            let words = words(args, field.ty);
            // Without a value, or with the key of a tag alone, it shows one.
            let shows = matches!(field.ty, FieldType::Tags | FieldType::Overrides);
            if words.len() > usize::from(shows) {
                self.config.set(field.name, field.parse(&words).map_err(|error| error.to_string())?);
            }
            return Ok(true);
        }
        match name {
            "vm config" => self.config_command(args)?,
            "clear vm config" => {
                match crate::language::field::FIELDS.iter().find(|f| f.words().iter().any(|word| args.flag(word))) {
                    Some(field) => self.config.clear(field.name),
                    None => self.config = VmConfig::new(),
                };
            }
            "clear vm config tag" => match args.str("key") {
                Some("all") | None => self.config.clear("tags"),
                Some(key) => self.config.remove_tag(key),
            },
            "vm launch" => self.launch(args)?,
            "ns" => return self.placement(args),
            "vm start" => self.each(&target(args), |vm| vm.state = State::Running)?,
            "vm stop" => self.each(&target(args), |vm| {
                if vm.state == State::Running {
                    vm.state = State::Paused;
                }
            })?,
            "vm kill" => self.each(&target(args), |vm| {
                vm.state = State::Quit;
                vm.bonds.clear();
            })?,
            "vm flush" => self.vms.retain(|_, vm| vm.state != State::Quit),
            "vm tag" => {
                if let (Some(key), Some(value)) = (args.str("key"), args.str("value")) {
                    let tag = FieldValue::Tags(BTreeMap::from([(key.to_owned(), value.to_owned())]));
                    self.each(&target(args), |vm| vm.config.set("tags", tag.clone()))?;
                }
            }
            "clear vm tag" => {
                let key = args.str("tag").unwrap_or("all").to_owned();
                let all = target(args).is_empty();
                self.each(if all { "all" } else { args.str("vm target").unwrap_or("all") }, |vm| match key.as_str() {
                    "all" => vm.config.clear("tags"),
                    key => vm.config.remove_tag(key),
                })?;
            }
            "vm hotplug" => self.each(&target(args), |vm| vm.hotplug(args))?,
            "vm cdrom" => {
                let image = FieldValue::Text(args.str("path").unwrap_or_default().to_owned());
                self.each(&target(args), |vm| {
                    vm.config.clear("cdrom");
                    vm.config.set("cdrom", image.clone());
                })?;
            }
            "vm net connect" | "vm net disconnect" => self.nic(name.ends_with(" connect"), &target(args), args)?,
            "vm net bond" => self.bond(&target(args), args)?,
            "clear vm net bond" => self.clear_bond(&target(args), args)?,
            "qos" => self.qos(&target(args), args)?,
            "clear qos" => self.clear_qos(&target(args), args)?,
            "vlans" => self.vlans(args)?,
            "clear vlans" => match args.str("prefix") {
                Some(prefix) => self.vlans.retain(|alias, _| !alias.starts_with(prefix)),
                None => self.vlans.clear(),
            },
            "tap" if args.flag("mirror") => self.mirror(args),
            "clear tap" if args.flag("mirror") => self.clear_mirror(args),
            "capture" | "capture pcap" | "capture netflow" => self.capture(args),
            "clear capture" => self.clear_captures(args),
            "bridge" => self.bridge(args)?,
            "dnsmasq" | "dnsmasq configure" => self.server(args)?,
            "nat" => self.nat(args),
            "clear nat" => drop(self.objects.remove(&Kind::Nat)),
            "pipe" => return self.pipe(args),
            "clear pipe" => self.clear_pipe(args),
            "plumb" => self.plumb(args),
            "clear plumb" => self.clear_plumb(args),
            "tap" => self.tap(args),
            "clear tap" => self.taps.clear(),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn config_command(&mut self, args: &Args) -> Result<(), String> {
        let named = |name: &str| args.str(name).unwrap_or_default().to_owned();
        if args.flag("save") {
            self.saved.insert(named("name"), self.config.clone());
        } else if args.flag("clone") {
            let name = named("vm name");
            let vm = self.vms.get(&name).ok_or_else(|| format!("there is no VM {name}"))?;
            self.config = vm.config.clone();
            self.config.clear("uuid");
        } else if args.flag("restore")
            && let Some(name) = args.str("name")
        {
            self.config = self.saved.get(name).ok_or_else(|| format!("nothing is saved as {name}"))?.clone();
        }
        Ok(())
    }

    fn launch(&mut self, args: &Args) -> Result<(), String> {
        if args.str("name or count").is_none() {
            self.vms.append(&mut self.queue);
            return Ok(());
        }
        if !args.flag("kvm") {
            return Err("experiments have kvm VMs only so far".to_owned());
        }
        let config = match args.str("config") {
            Some(name) => self.saved.get(name).ok_or_else(|| format!("nothing is saved as {name}"))?.clone(),
            None => self.config.clone(),
        };
        let names = args.str("name or count").unwrap_or_default();
        let names: Vec<String> = match names.parse::<usize>() {
            Ok(count) => (0..)
                .map(|n| format!("vm-{n}"))
                .filter(|n| !self.vms.contains_key(n) && !self.queue.contains_key(n))
                .take(count.min(100_000))
                .collect(),
            Err(_) => range::expand(names).map_err(|error| error.to_string())?,
        };
        if let Some(name) = names.iter().find(|name| self.vms.contains_key(*name) || self.queue.contains_key(*name)) {
            return Err(format!("there is a VM {name} already"));
        }
        if self.queueing {
            let facts = Facts::from([("queueing".to_owned(), vec!["true".to_owned()])]);
            self.objects.entry(Kind::Placement).or_default().insert("queueing".to_owned(), facts);
        }
        let to = if self.queueing { &mut self.queue } else { &mut self.vms };
        for name in &names {
            let next = self.order.len();
            self.order.insert(name.clone(), next);
            self.made.push((Kind::Vm, name.clone()));
        }
        for name in names {
            to.insert(name, Vm::new(config.clone()));
        }
        Ok(())
    }

    /// Do something to each VM of a target. Names that are not there are an error, as minimega makes none of it.
    fn each(&mut self, target: &str, mut act: impl FnMut(&mut Vm)) -> Result<(), String> {
        if target == "all" {
            self.vms.values_mut().for_each(act);
            return Ok(());
        }
        let mut missing = Vec::new();
        for name in range::expand(target).map_err(|error| error.to_string())? {
            match self.vms.get_mut(&name) {
                Some(vm) => act(vm),
                None => missing.push(name),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(format!("there is no VM {}", range::compress(&missing))) }
    }

    fn nic(&mut self, connect: bool, target: &str, args: &Args) -> Result<(), String> {
        let position = args.str("tap position").unwrap_or_default();
        let index: usize = position.parse().map_err(|_| format!("`{position}` is no position of a NIC"))?;
        let vlan = args.str("vlan").unwrap_or_default().to_owned();
        let to = args.str("bridge").map(str::to_owned);
        let (mut outside, mut bonded, mut alone) = (false, false, false);
        self.each(target, |vm| {
            let mut nics: Vec<NetSpec> = vm.config.networks();
            let Some(nic) = nics.get_mut(index) else {
                outside = true;
                return;
            };
            if connect && bonds::is_bonded(&vm.bonds, &index.to_string()) {
                bonded = true;
                return;
            }
            vm.cut.retain(|cut| *cut != index);
            if connect {
                nic.vlan.clone_from(&vlan);
                nic.bridge = to.clone().or_else(|| nic.bridge.take());
                vm.config.set("networks", FieldValue::Networks(nics));
            } else {
                vm.cut.push(index);
                alone |= !bonds::unplug(&mut vm.bonds, &index.to_string());
            }
        })?;
        match () {
            () if outside => Err(format!("a VM has no NIC {index}")),
            () if bonded => Err(format!("NIC {index} is in a bond")),
            () if alone => Err("its bond has one NIC left, and is left out".to_owned()),
            () => Ok(()),
        }
    }

    fn qos(&mut self, target: &str, args: &Args) -> Result<(), String> {
        let position = args.str("interface").unwrap_or_default();
        let index: usize = position.parse().map_err(|_| format!("`{position}` is no position of a NIC"))?;
        // A rate and the others replace one another; `qos set` replaces everything.
        let mut set = Qos::default();
        let add = args.flag("add");
        if args.flag("set") {
            set = Qos::read(&args.list("setting").join(" ")).ok_or("its settings cannot be read")?;
        } else if add {
            let (setting, value) = match () {
                () if args.flag("rate") => {
                    let unit = args.choice("kbit,mbit,gbit").unwrap_or_default();
                    ("rate", format!("{}{unit}", args.str("bw").unwrap_or_default()))
                }
                () if args.flag("delay") => ("delay", args.str("duration").unwrap_or_default().to_owned()),
                () => ("loss", args.str("percent").unwrap_or_default().to_owned()),
            };
            set.set(setting, &value).map_err(|error| error.to_string())?;
        }
        self.each(target, |vm| {
            let old = vm.qos.remove(&index).unwrap_or_default();
            let stays = if add && set.rate.is_none() { Qos { rate: None, ..old } } else { Qos::default() };
            vm.qos.insert(index, set.over(stays));
        })
    }

    fn clear_qos(&mut self, target: &str, args: &Args) -> Result<(), String> {
        match args.str("tap index") {
            Some("all") | None => self.each(target, |vm| vm.qos.clear()),
            Some(position) => {
                let index: usize = position.parse().map_err(|_| format!("`{position}` is no position of a NIC"))?;
                self.each(target, |vm| vm.qos.retain(|other, _| *other != index))
            }
        }
    }

    fn vlans(&mut self, args: &Args) -> Result<(), String> {
        let tag = |name: &str| {
            let text = args.str(name)?;
            Some(text.parse::<u16>().map_err(|_| format!("`{text}` is no VLAN tag")))
        };
        if args.flag("add") {
            if let (Some(alias), Some(tag)) = (args.str("alias"), tag("vlan").transpose()?) {
                self.made.push((Kind::Vlan, alias.to_owned()));
                self.vlans.insert(alias.to_owned(), tag);
            }
        } else if args.flag("range") {
            if let (Some(min), Some(max)) = (tag("min").transpose()?, tag("max").transpose()?) {
                self.range = Some((min, max));
            }
        } else if args.flag("blacklist") && args.str("vlan").is_some() {
            self.blacklist.extend(tag("vlan").transpose()?);
        }
        Ok(())
    }

    fn tap(&mut self, args: &Args) {
        if args.flag("create") {
            let name = args.str("tap name").map_or_else(
                || (0..).map(|n| format!("tap{n}")).find(|n| !self.taps.contains_key(n)).expect("one is free"),
                str::to_owned,
            );
            let tap = FoundTap {
                vlan: args.str("vlan").unwrap_or_default().to_owned(),
                ip: args.str("ip").map(str::to_owned),
                dhcp: args.flag("dhcp"),
                bridge: args.str("bridge").and_then(bridge),
            };
            self.made.push((Kind::Tap, name.clone()));
            self.taps.insert(name, tap);
        } else if args.flag("delete") {
            match args.str("tap name or all") {
                Some("all") | None => self.taps.clear(),
                Some(name) => drop(self.taps.remove(name)),
            }
        }
    }
}
