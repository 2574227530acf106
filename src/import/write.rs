//! An experiment file in YAML: VMs of equal settings share an entry, entries of equal configuration share a profile.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Found, FoundNic, FoundVm};
use crate::language::field::VmConfig;
use crate::language::range;
use crate::live::Facts;
use crate::name::Kind;
use crate::spec::{SECTIONS, field_value, list, placement, scalar, setting, usb_disk};

/// A configuration of at least so many fields becomes a profile where several entries have it.
const PROFILE_FIELDS: usize = 2;

/// A number, or text that would be read as none.
fn vlan(text: &str) -> String {
    if text.parse::<u16>().is_ok_and(|tag| tag.to_string() == text) { text.to_owned() } else { scalar(text) }
}

fn nic(nic: &FoundNic) -> String {
    if nic.mac.is_none() && nic.driver.is_none() && nic.bridge.is_none() && nic.qos.is_none() && !nic.cut {
        return vlan(&nic.vlan);
    }
    let mut text = format!("{{ vlan: {}", vlan(&nic.vlan));
    for (key, part) in [("mac", &nic.mac), ("driver", &nic.driver), ("bridge", &nic.bridge)] {
        if let Some(part) = part {
            write!(text, ", {key}: {}", scalar(part)).expect("a string takes everything");
        }
    }
    if nic.cut {
        text.push_str(", connected: false");
    }
    if let Some(qos) = &nic.qos {
        write!(text, ", qos: {}", crate::spec::qos(qos)).expect("a string takes everything");
    }
    text + " }"
}

/// Settings in one line.
fn map(facts: &Facts) -> String {
    let parts: Vec<String> = facts.iter().map(|(key, values)| format!("{key}: {}", setting(key, values))).collect();
    if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) }
}

/// The settings of a configuration, a line each.
fn settings(config: &VmConfig) -> Vec<String> {
    config.changed().map(|(field, v)| format!("{}: {}", field.key(), field_value(v))).collect()
}

/// The keys of entries that stand for these names: ranges where they compress to one.
fn keys(names: &[&str]) -> Vec<String> {
    let compressed = range::compress(names);
    let (mut keys, mut depth, mut key) = (Vec::new(), 0, String::new());
    for character in compressed.chars() {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                keys.push(std::mem::take(&mut key));
                continue;
            }
            _ => {}
        }
        key.push(character);
    }
    keys.push(key);
    keys
}

/// The file. `source` says in its first line where it comes from.
pub fn write(found: &Found, source: &str) -> String {
    let mut text = format!("# {source}\n");
    for note in &found.notes {
        writeln!(text, "# note: {}", note.replace(['\n', '\r'], " ")).expect("a string takes everything");
    }
    writeln!(text, "experiment: {}", scalar(&found.name)).expect("a string takes everything");
    if let Some((low, high)) = found.vlan_range {
        writeln!(text, "vlan_range: [{low}, {high}]").expect("a string takes everything");
    }
    if !found.vlan_blacklist.is_empty() {
        let tags: Vec<String> = found.vlan_blacklist.iter().map(u16::to_string).collect();
        writeln!(text, "vlan_blacklist: [{}]", tags.join(", ")).expect("a string takes everything");
    }
    let settings_of = found.objects.get(&Kind::Placement).into_iter().flatten();
    let settings_of: Vec<String> =
        settings_of.map(|(key, facts)| format!("  {key}: {}\n", placement(key, &facts[key]))).collect();
    if !settings_of.is_empty() {
        text.push_str("placement:\n");
        text.extend(settings_of);
    }
    if !found.vlans.is_empty() {
        text.push_str("vlans:\n");
        for (alias, tag) in &found.vlans {
            let body = tag.map_or_else(|| "{}".to_owned(), |tag| format!("{{ tag: {tag} }}"));
            writeln!(text, "  {}: {body}", scalar(alias)).expect("a string takes everything");
        }
    }
    // Equal VMs are one group; a fixed address, or the name of a bond, belongs to one VM and keeps it alone.
    let mut groups: BTreeMap<&FoundVm, Vec<&str>> = BTreeMap::new();
    for (name, vm) in &found.vms {
        groups.entry(vm).or_default().push(name);
    }
    let mut entries: Vec<(String, &FoundVm)> = Vec::new();
    for (vm, names) in groups {
        if vm.nics.iter().any(|nic| nic.mac.is_some()) || vm.bonds.iter().any(|bond| bond.contains_key("name")) {
            entries.extend(names.into_iter().map(|name| (name.to_owned(), vm)));
        } else {
            entries.extend(keys(&names).into_iter().map(|key| (key, vm)));
        }
    }
    entries.sort_by(|a, b| range::natural_cmp(&a.0, &b.0));
    let mut shared: Vec<(&VmConfig, usize)> = Vec::new();
    for (_, vm) in &entries {
        match shared.iter_mut().find(|(config, _)| *config == &vm.config) {
            Some((_, count)) => *count += 1,
            None => shared.push((&vm.config, 1)),
        }
    }
    shared.retain(|(config, count)| *count > 1 && config.changed().count() >= PROFILE_FIELDS);
    if !shared.is_empty() {
        text.push_str("profiles:\n");
        for (number, (config, _)) in shared.iter().enumerate() {
            writeln!(text, "  config-{}:", number + 1).expect("a string takes everything");
            for line in settings(config) {
                writeln!(text, "    {line}").expect("a string takes everything");
            }
        }
    }
    if !entries.is_empty() {
        text.push_str("vms:\n");
    }
    for (key, vm) in &entries {
        let mut lines = match shared.iter().position(|(config, _)| *config == &vm.config) {
            Some(number) => vec![format!("profile: config-{}", number + 1)],
            None => settings(&vm.config),
        };
        if !vm.nics.is_empty() {
            lines.push(format!("networks: {}", list(vm.nics.iter().map(nic))));
        }
        if !vm.bonds.is_empty() {
            lines.push(format!("bonds: {}", list(vm.bonds.iter().map(map))));
        }
        if !vm.usb.is_empty() {
            let disks = vm.usb.iter().map(|disk| usb_disk(&disk.path, disk.version.as_deref(), disk.serial.as_deref()));
            lines.push(format!("usb_disks: {}", list(disks)));
        }
        if !vm.tags.is_empty() {
            let tags: Vec<String> = vm.tags.iter().map(|(k, v)| format!("{}: {}", scalar(k), scalar(v))).collect();
            lines.push(format!("tags: {{ {} }}", tags.join(", ")));
        }
        if vm.paused {
            lines.push("state: paused".to_owned());
        }
        if lines.is_empty() {
            writeln!(text, "  {}: {{}}", scalar(key)).expect("a string takes everything");
            continue;
        }
        writeln!(text, "  {}:", scalar(key)).expect("a string takes everything");
        for line in lines {
            writeln!(text, "    {line}").expect("a string takes everything");
        }
    }
    if !found.taps.is_empty() {
        text.push_str("taps:\n");
        for (name, tap) in &found.taps {
            let mut parts = vec![format!("vlan: {}", vlan(&tap.vlan))];
            parts.extend(tap.ip.as_ref().map(|ip| format!("ip: {}", scalar(ip))));
            parts.extend(tap.dhcp.then(|| "dhcp: true".to_owned()));
            parts.extend(tap.bridge.as_ref().map(|bridge| format!("bridge: {}", scalar(bridge))));
            writeln!(text, "  {}: {{ {} }}", scalar(name), parts.join(", ")).expect("a string takes everything");
        }
    }
    for (section, kind) in SECTIONS {
        let Some(objects) = found.objects.get(kind).filter(|objects| !objects.is_empty()) else { continue };
        writeln!(text, "{section}:").expect("a string takes everything");
        for (name, facts) in objects {
            writeln!(text, "  {}: {}", scalar(name), map(facts)).expect("a string takes everything");
        }
    }
    text
}
