//! From a live namespace.

use std::collections::BTreeMap;

use super::{Found, FoundNic, FoundTap, FoundVm, bridge, usb_version};
use crate::language::diskspec::DEFAULT_INTERFACE;
use crate::language::field::{Change, FIELDS, FieldType, FieldValue, VmConfig};
use crate::language::netspec::{DEFAULT_DRIVER, NetSpec};
use crate::live::{Facts, Live, LiveNic, LiveUsb, LiveVm, USUAL_LOAD, VmState};
use crate::name::{Kind, Namespace};
use crate::plan::{Advice, ownership};
use crate::spec::model::UsbDisk;

/// The tags that minimega gives aliases when no range was set (its `vlans range`).
const USUAL_RANGE: (u16, u16) = (101, 4096);

/// What a namespace holds, as an experiment would say it, with what the journal remembers and the target does not show. Addresses
/// and tags that were given out, not asked for, are left out, so that equal VMs stay equal.
pub fn live(name: &Namespace, live: &Live, advice: &Advice) -> Found {
    let mut found = Found { name: name.to_string(), ..Found::default() };
    let range = live.vlan_range.unwrap_or(USUAL_RANGE);
    found.vlan_range = live.vlan_range.filter(|range| *range != USUAL_RANGE);
    let count = u16::try_from(live.vlans.len()).unwrap_or(u16::MAX);
    for (alias, tag) in &live.vlans {
        // Given tags are the first ones of the range. One of them may be fixed all the same; then it is given again.
        let given = (range.0..range.0.saturating_add(count)).contains(tag);
        found.vlans.insert(alias.clone(), (!given).then_some(*tag));
    }
    for vm in live.vms.values() {
        if vm.kind != "kvm" {
            found.notes.push(format!("the VM {} is a {}, which experiments cannot have yet", vm.name, vm.kind));
            continue;
        }
        let read = read(name, vm, advice, &mut found.notes);
        found.vms.insert(vm.name.clone(), read);
    }
    // A NIC that is disconnected may name an alias that is not bound any more.
    let unplugged: Vec<String> = found.vms.values().flat_map(|vm| &vm.nics).map(|nic| nic.vlan.clone()).collect();
    for vlan in unplugged.into_iter().filter(|vlan| vlan.parse::<u16>().is_err()) {
        found.vlans.entry(vlan).or_default();
    }
    for (tap, seen) in &live.taps {
        let Some(vlan) = seen.alias.clone().or_else(|| seen.vlan.map(|tag| tag.to_string())) else {
            found.notes.push(format!("the tap {tap} is on no VLAN and is left out"));
            continue;
        };
        let known = advice.taps.get(tap);
        let remembered = known.map(|tap| tap.address.iter().cloned().collect());
        let addresses = seen.addresses.clone().or(remembered).unwrap_or_else(|| {
            found.notes.push(format!("the addresses of the tap {tap} are not known"));
            Vec::new()
        });
        for address in addresses.iter().skip(1) {
            found.notes.push(format!("the tap {tap} also has the address {address}; a tap of an experiment has one"));
        }
        // Not every target shows that an address is asked for.
        let leased = seen.leased || known.is_some_and(|tap| tap.dhcp);
        let ip = addresses.first().cloned().filter(|_| !leased);
        let tap_of = FoundTap { vlan, ip, dhcp: leased, bridge: bridge(&seen.bridge) };
        found.taps.insert(tap.clone(), tap_of);
    }
    super::object::live(live, advice, &mut found);
    placement(live, &mut found);
    super::bond::settle(&mut found);
    commands(advice, &mut found);
    found
}

/// The raw commands that were run and not taken back: nothing but the journal tells of them.
fn commands(advice: &Advice, found: &mut Found) {
    for (name, entry) in &advice.commands {
        if entry.destroyed.is_some() || (entry.created == 0 && !entry.unknown) {
            // What is left to do about them, a plan of any file says.
            continue;
        }
        let mut lines = entry.lines.clone();
        let there = |vm: &String| found.vms.contains_key(vm);
        if let Some(gone) = lines.depends_on.iter().find(|vm| !there(vm)) {
            found.notes.push(format!("the raw commands {name} needed the VM {gone}, which is not there"));
        }
        // A VM that was launched since without the lines being run again is one that the file did not name any more.
        lines.depends_on.retain(|vm| there(vm) && !entry.launched.contains(vm));
        found.commands.insert(name.clone(), lines);
    }
}

/// What is not as in a new namespace of a daemon without a mesh.
fn placement(live: &Live, found: &mut Found) {
    let seen = &live.placement;
    let mut set = |key: &str, values: Vec<String>| {
        found
            .objects
            .entry(Kind::Placement)
            .or_default()
            .insert(key.to_owned(), Facts::from([(key.to_owned(), values)]));
    };
    if let Some(hosts) = seen.hosts.as_ref().filter(|hosts| !hosts.is_empty() && **hosts != [seen.own.as_str()]) {
        set("hosts", hosts.clone());
    }
    if let Some(load) = seen.load.as_ref().filter(|load| *load != USUAL_LOAD) {
        set("load", vec![load.clone()]);
    }
    if live.queueing {
        set("queueing", vec!["true".to_owned()]);
    }
    if seen.hosts.as_ref().is_some_and(Vec::is_empty) {
        found.notes.push("the namespace has no hosts, so that nothing can be launched in it".to_owned());
    }
    let waiting: Vec<&String> = seen.queue.iter().flat_map(|queued| &queued.names).collect();
    if !waiting.is_empty() {
        let names = crate::language::range::compress(&waiting);
        found.notes.push(format!("VMs that are queued and not launched are left out: {names}"));
    }
}

fn read(experiment: &Namespace, vm: &LiveVm, advice: &Advice, notes: &mut Vec<String>) -> FoundVm {
    let mut config = VmConfig::new();
    let launched = |field: &&crate::language::field::Field| {
        field.change == Change::Replace && !matches!(field.ty, FieldType::Networks | FieldType::Tags | FieldType::Uuid)
    };
    for field in FIELDS.iter().filter(launched) {
        let seen = vm.observe(field).map(std::borrow::Cow::into_owned);
        if !field.in_file() {
            if let Some(value) = seen.filter(|value| *value != field.default_value()) {
                notes.push(format!("the VM {} has {} {value}, which experiments cannot say", vm.name, field.name));
            }
            continue;
        }
        match seen {
            Some(value) => config.set(field.name, value),
            None => notes.push(format!("the target does not show `{}` of the VM {}", field.name, vm.name)),
        }
    }
    // Of a VM of the experiment, other tags than those of its file are somebody else's.
    let keys = ownership::owns(experiment, vm).then(|| ownership::keys_of(vm));
    let ours = |key: &String| !key.starts_with(ownership::RESERVED) && keys.as_ref().is_none_or(|of| of.contains(key));
    let tags = vm.tags.iter().filter(|(key, _)| ours(key)).map(|(k, v)| (k.clone(), v.clone()));
    let mut tags: BTreeMap<String, String> = tags.collect();
    super::without_empty(&vm.name, &mut tags, notes);
    match vm.state {
        VmState::Quit | VmState::Error => notes.push(format!(
            "the VM {} is in the state {}; the file says running, and an apply brings it there",
            vm.name,
            vm.state.word()
        )),
        VmState::Building | VmState::Paused | VmState::Running => {}
    }
    let nics: Vec<FoundNic> =
        vm.nics.iter().enumerate().filter_map(|(index, nic)| nic_of(vm, index, nic, advice, notes)).collect();
    let config = as_written(vm, config, &nics);
    if vm.tags.get(ownership::USB).is_some_and(|tag| tag.contains('+')) {
        notes.push(format!("the target does not show the serial numbers of the USB disks of the VM {}", vm.name));
    }
    let usb = usb_as_written(vm);
    let paused = matches!(vm.state, VmState::Building | VmState::Paused);
    let ignored = ownership::left_out(vm).map(str::to_owned).collect();
    FoundVm { config, nics, usb, tags, paused, bonds: Vec::new(), ignored }
}

/// A configuration in the words that its VM was launched from, as far as its digest tells: with or without the interface and the
/// cache of disks, which a target shows even where they were left open, and with paths in a files folder as they are or relative
/// to it.
fn as_written(vm: &LiveVm, shown: VmConfig, nics: &[FoundNic]) -> VmConfig {
    let plugged: Vec<(Option<&str>, bool)> = nics.iter().map(|nic| (nic.driver.as_deref(), !nic.cut)).collect();
    let worded = |words: Words| {
        let mut config = VmConfig::new();
        for (field, value) in shown.changed() {
            config.set(field.name, words.of(field.ty, value.clone()));
        }
        config
    };
    let is_it = |config: &VmConfig| ownership::launched_as(vm, config, &plugged) == Some(true);
    let fits = Words::all().map(&worded).find(is_it);
    // What stands as it is shown is never taken for another.
    let digest = ownership::digest_of(vm);
    fits.unwrap_or_else(|| if digest.is_some() { shown.clone() } else { worded(Words::SHOWN) })
}

/// USB disks in the words that they were given in, as far as their tag tells.
fn usb_as_written(vm: &LiveVm) -> Vec<UsbDisk> {
    let worded = |words: Words| -> Vec<UsbDisk> {
        let version = |version: &str| if words.open { usb_version(version) } else { Some(version.to_owned()) };
        let disk = |disk: &LiveUsb| UsbDisk {
            path: words.path(disk.file.clone()),
            version: version(&disk.version),
            serial: None,
        };
        vm.usb.iter().flatten().map(disk).collect()
    };
    let fits = Words::all().map(worded).find(|disks| ownership::usb_given(vm, disks) == Some(true));
    fits.unwrap_or_else(|| worded(Words::SHOWN))
}

/// How a configuration is worded.
#[derive(Debug, Clone, Copy)]
struct Words {
    /// Paths are relative to the files folder.
    relative: bool,
    /// The usual interface of disks is left open, and the usual version of USB.
    open: bool,
    /// So is their cache.
    uncached: bool,
}

impl Words {
    /// As a target shows it, without what it shows of every disk.
    const SHOWN: Self = Self { relative: false, open: true, uncached: false };

    fn all() -> impl Iterator<Item = Self> {
        let bit = |n: u8, of: u8| n & of == 0;
        (0..8).map(move |n| Self { relative: bit(n, 4), open: bit(n, 2), uncached: bit(n, 1) })
    }

    fn path(self, path: String) -> String {
        match path.rsplit_once("/files/") {
            Some((_, name)) if self.relative && !name.is_empty() => name.to_owned(),
            _ => path,
        }
    }

    fn of(self, ty: FieldType, value: FieldValue) -> FieldValue {
        match value {
            FieldValue::Disks(mut disks) => {
                for disk in &mut disks {
                    disk.path = self.path(std::mem::take(&mut disk.path));
                    disk.interface = disk.interface.take().filter(|of| !self.open || of != DEFAULT_INTERFACE);
                    disk.cache = disk.cache.take().filter(|_| !self.uncached);
                }
                FieldValue::Disks(disks)
            }
            FieldValue::Text(path) if ty == FieldType::Path => FieldValue::Text(self.path(path)),
            value => value,
        }
    }
}

fn nic_of(vm: &LiveVm, index: usize, nic: &LiveNic, advice: &Advice, notes: &mut Vec<String>) -> Option<FoundNic> {
    let asked = nic.launched_as.as_deref().and_then(|raw| NetSpec::parse(raw).ok());
    if asked.as_ref().is_some_and(|spec| spec.qinq) {
        notes.push(format!("NIC {index} of the VM {} tunnels VLANs (qinq), which experiments cannot say", vm.name));
    }
    let vlan = match nic.alias.clone().or_else(|| nic.vlan.map(|tag| tag.to_string())) {
        Some(vlan) => vlan,
        None => {
            let Some(spec) = asked.as_ref() else {
                notes.push(format!("NIC {index} of the VM {} is disconnected and is left out", vm.name));
                return None;
            };
            // What it was launched on is where it is plugged in again.
            spec.vlan.clone()
        }
    };
    // An address that the launch asked for is kept; one that was given out is not. Where the target does not show what
    // was asked for, all addresses are kept, because a guest may depend on them.
    let fixed = asked.as_ref().is_none_or(|spec| spec.mac.is_some());
    Some(FoundNic {
        vlan,
        mac: (fixed && !nic.mac.is_empty()).then(|| nic.mac.clone()),
        driver: nic.driver.clone().filter(|driver| driver != DEFAULT_DRIVER && !driver.is_empty()),
        bridge: match (nic.connected, asked) {
            (false, Some(asked)) => asked.bridge.as_deref().and_then(bridge),
            _ => bridge(&nic.bridge),
        },
        cut: !nic.connected,
        // Not every target shows what shapes NICs.
        qos: nic.qos.or_else(|| advice.qos.get(&(vm.name.clone(), index)).copied()).filter(|qos| !qos.is_none()),
    })
}
