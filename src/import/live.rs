//! From a live namespace.

use super::{Found, FoundNic, FoundTap, FoundVm, bridge, usb_version};
use crate::language::field::{Change, FIELDS, FieldType, FieldValue, VmConfig};
use crate::language::netspec::{DEFAULT_DRIVER, NetSpec};
use crate::live::{Facts, Live, LiveNic, LiveUsb, LiveVm, USUAL_LOAD, VmState};
use crate::name::{Kind, Namespace};
use crate::plan::ownership;
use crate::spec::model::UsbDisk;

/// The tags that minimega gives aliases when no range was set (its `vlans range`).
const USUAL_RANGE: (u16, u16) = (101, 4096);

/// What a namespace holds, as an experiment would say it. Addresses and tags that were given out, not asked for, are left
/// out, so that equal VMs stay equal.
pub fn live(name: &Namespace, live: &Live) -> Found {
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
        let read = read(vm, &mut found.notes);
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
        let addresses = seen.addresses.clone().unwrap_or_else(|| {
            found.notes.push(format!("the addresses of the tap {tap} are not known"));
            Vec::new()
        });
        for address in addresses.iter().skip(1) {
            found.notes.push(format!("the tap {tap} also has the address {address}; a tap of an experiment has one"));
        }
        let ip = addresses.first().cloned().filter(|_| !seen.leased);
        let tap_of = FoundTap { vlan, ip, dhcp: seen.leased, bridge: bridge(&seen.bridge) };
        found.taps.insert(tap.clone(), tap_of);
    }
    super::object::live(live, &mut found);
    placement(live, &mut found);
    super::bond::settle(&mut found);
    found
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

fn read(vm: &LiveVm, notes: &mut Vec<String>) -> FoundVm {
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
            Some(FieldValue::Disks(mut disks)) => {
                // A record shows the usual interface even where the launch left it open.
                for disk in &mut disks {
                    disk.interface = disk
                        .interface
                        .take()
                        .filter(|interface| interface != crate::language::diskspec::DEFAULT_INTERFACE);
                }
                config.set(field.name, FieldValue::Disks(disks));
            }
            Some(value) => config.set(field.name, value),
            None => notes.push(format!("the target does not show `{}` of the VM {}", field.name, vm.name)),
        }
    }
    let own = |key: &String| key.starts_with(ownership::RESERVED);
    let tags = vm.tags.iter().filter(|(key, _)| !own(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    match vm.state {
        VmState::Quit | VmState::Error => notes.push(format!(
            "the VM {} is in the state {}; the file says running, and an apply brings it there",
            vm.name,
            vm.state.word()
        )),
        VmState::Building | VmState::Paused | VmState::Running => {}
    }
    let nics = vm.nics.iter().enumerate().filter_map(|(index, nic)| nic_of(vm, index, nic, notes)).collect();
    let disk = |disk: &LiveUsb| UsbDisk { path: disk.file.clone(), version: usb_version(&disk.version), serial: None };
    if vm.tags.get(ownership::USB).is_some_and(|tag| tag.contains('+')) {
        notes.push(format!("the target does not show the serial numbers of the USB disks of the VM {}", vm.name));
    }
    let usb = vm.usb.iter().flatten().map(disk).collect();
    let paused = matches!(vm.state, VmState::Building | VmState::Paused);
    FoundVm { config, nics, usb, tags, paused, bonds: Vec::new() }
}

fn nic_of(vm: &LiveVm, index: usize, nic: &LiveNic, notes: &mut Vec<String>) -> Option<FoundNic> {
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
        qos: nic.qos.filter(|qos| !qos.is_none()),
    })
}
