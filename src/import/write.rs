//! An experiment file in YAML: VMs of equal settings share an entry, entries that have settings in common share a profile.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::object::keys as keys_of;
use super::{Found, FoundNic, FoundVm};
use crate::language::field::{FieldValue, VmConfig};
use crate::language::range;
use crate::live::Facts;
use crate::name::Kind;
use crate::plan::advice::CommandLines;
use crate::spec::{SECTIONS, field_value, list, placement, scalar, setting, usb_disk};

mod profile;

/// An entry that is no longer than this stands in one line.
const LINE: usize = 110;

/// Settings in the order in which they are written: key and value.
type Settings = Vec<(String, String)>;

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

/// The settings of an object that is a set of them.
fn facts(kind: Kind, facts: &Facts) -> Settings {
    let given = |key: &&&str| facts.contains_key(**key);
    keys_of(kind).iter().filter(given).map(|key| ((*key).to_owned(), setting(key, &facts[*key]))).collect()
}

/// Settings in braces.
fn flow(settings: &Settings) -> String {
    let parts: Vec<String> = settings.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    if parts.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", parts.join(", ")) }
}

/// An entry of a section: in one line where that is short.
fn entry(text: &mut String, name: &str, settings: &Settings) {
    let line = format!("  {}: {}", scalar(name), flow(settings));
    if line.len() <= LINE {
        text.push_str(&line);
        text.push('\n');
        return;
    }
    writeln!(text, "  {}:", scalar(name)).expect("a string takes everything");
    for (key, value) in settings {
        writeln!(text, "    {key}: {value}").expect("a string takes everything");
    }
}

/// The value of a field, words as one text where nothing in them has to be kept apart.
fn value(value: &FieldValue) -> String {
    let plain =
        |word: &String| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-+=@:,".contains(c));
    match value {
        FieldValue::Words(words) if !words.is_empty() && words.iter().all(plain) => scalar(&words.join(" ")),
        other => field_value(other),
    }
}

/// The settings of a configuration.
fn settings(config: &VmConfig) -> Settings {
    config.changed().map(|(field, v)| (field.key(), value(v))).collect()
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

/// A line that is a comment, whatever its text.
fn comment(text: &mut String, indent: &str, line: &str) {
    writeln!(text, "{indent}# {}", line.replace(['\n', '\r'], " ").trim()).expect("a string takes everything");
}

/// The settings of a VM but its configuration.
fn of_vm(vm: &FoundVm) -> Settings {
    let mut settings = Settings::new();
    let mut set = |key: &str, value: String| settings.push((key.to_owned(), value));
    if !vm.nics.is_empty() {
        set("networks", list(vm.nics.iter().map(nic)));
    }
    if !vm.bonds.is_empty() {
        set("bonds", list(vm.bonds.iter().map(|bond| flow(&facts(Kind::Bond, bond)))));
    }
    if !vm.usb.is_empty() {
        let disks = vm.usb.iter().map(|disk| usb_disk(&disk.path, disk.version.as_deref(), disk.serial.as_deref()));
        set("usb_disks", list(disks));
    }
    if !vm.tags.is_empty() {
        let tags: Vec<String> = vm.tags.iter().map(|(k, v)| format!("{}: {}", scalar(k), scalar(v))).collect();
        set("tags", format!("{{ {} }}", tags.join(", ")));
    }
    if vm.paused {
        set("state", "paused".to_owned());
    }
    if !vm.ignored.is_empty() {
        let ignored = list(vm.ignored.iter().map(|path| scalar(path)));
        set("lifecycle", format!("{{ ignore_changes: {ignored} }}"));
    }
    settings
}

fn vms(text: &mut String, found: &Found) {
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
    // In the order of a script; otherwise by name.
    let made = |key: &str| range::expand(key).ok()?.iter().filter_map(|name| found.order.get(name)).min().copied();
    entries.sort_by(|a, b| made(&a.0).cmp(&made(&b.0)).then_with(|| range::natural_cmp(&a.0, &b.0)));
    let all = |vm: &FoundVm| settings(&vm.config).into_iter().chain(of_vm(vm)).collect();
    let own: Vec<(&str, Settings)> = entries.iter().map(|(key, vm)| (key.as_str(), all(vm))).collect();
    let shared = profile::shared(&own, &found.configs);
    let extends = |profile: Option<usize>| profile.map(|at| ("profile".to_owned(), scalar(&shared.profiles[at].name)));
    if !shared.profiles.is_empty() {
        text.push_str("profiles:\n");
    }
    for profile in &shared.profiles {
        entry(text, &profile.name, &extends(profile.parent).into_iter().chain(profile.own.clone()).collect());
    }
    if !entries.is_empty() {
        text.push_str("vms:\n");
    }
    let mut said = BTreeSet::new();
    for ((key, _), (profile, rest)) in entries.iter().zip(&shared.of) {
        let names = range::expand(key).unwrap_or_default();
        remarks(text, found, Kind::Vm, &names, &mut said);
        entry(text, key, &extends(*profile).into_iter().chain(rest.clone()).collect());
    }
}

/// The comments on what an entry makes, each once.
fn remarks<'f>(
    text: &mut String,
    found: &'f Found,
    kind: Kind,
    names: &[impl AsRef<str>],
    said: &mut BTreeSet<&'f str>,
) {
    let of = |name: &str| found.comments.get(&(kind, name.to_owned()));
    for line in names.iter().filter_map(|name| of(name.as_ref())).flatten().filter(|line| said.insert(line.as_str())) {
        comment(text, "  ", line);
    }
}

/// An entry of raw commands.
fn commands(lines: &CommandLines) -> Settings {
    let several = |lines: &[String]| match lines {
        [one] => scalar(one),
        several => list(several.iter().map(|line| scalar(line))),
    };
    let mut settings = vec![("create".to_owned(), several(&lines.create))];
    if !lines.destroy.is_empty() {
        settings.push(("destroy".to_owned(), several(&lines.destroy)));
    }
    settings.extend(lines.check.as_ref().map(|line| ("check".to_owned(), scalar(line))));
    if !lines.depends_on.is_empty() {
        settings.push(("depends_on".to_owned(), several(&lines.depends_on)));
    }
    settings
}

/// The file. `source` says in its first line where it comes from.
pub fn write(found: &Found, source: &str) -> String {
    let mut text = format!("# {source}\n");
    for note in &found.notes {
        comment(&mut text, "", &format!("note: {note}"));
    }
    for line in &found.heading {
        comment(&mut text, "", line);
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
    }
    for (alias, tag) in &found.vlans {
        remarks(&mut text, found, Kind::Vlan, &[alias], &mut BTreeSet::new());
        entry(&mut text, alias, &tag.map(|tag| ("tag".to_owned(), tag.to_string())).into_iter().collect());
    }
    vms(&mut text, found);
    if !found.taps.is_empty() {
        text.push_str("taps:\n");
    }
    for (name, tap) in &found.taps {
        let parts = [
            Some(("vlan", vlan(&tap.vlan))),
            tap.ip.as_ref().map(|ip| ("ip", scalar(ip))),
            tap.dhcp.then(|| ("dhcp", "true".to_owned())),
            tap.bridge.as_ref().map(|bridge| ("bridge", scalar(bridge))),
        ];
        remarks(&mut text, found, Kind::Tap, &[name], &mut BTreeSet::new());
        entry(&mut text, name, &parts.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect());
    }
    for (section, kind) in SECTIONS {
        let Some(objects) = found.objects.get(kind).filter(|objects| !objects.is_empty()) else { continue };
        writeln!(text, "{section}:").expect("a string takes everything");
        for (name, of) in objects {
            remarks(&mut text, found, *kind, &[name], &mut BTreeSet::new());
            entry(&mut text, name, &facts(*kind, of));
        }
    }
    if !found.commands.is_empty() {
        text.push_str("commands:\n");
    }
    for (name, lines) in &found.commands {
        entry(&mut text, name, &commands(lines));
    }
    if !found.raw.is_empty() {
        comment(
            &mut text,
            "",
            "What no key says could be run as raw commands, once, behind everything else: uncomment what is wanted.",
        );
        comment(&mut text, "", "commands:");
        for (name, lines) in &found.raw {
            let mut entry_text = String::new();
            let lines = CommandLines { create: lines.clone(), ..CommandLines::default() };
            entry(&mut entry_text, name, &commands(&lines));
            entry_text.lines().for_each(|line| writeln!(text, "# {line}").expect("a string takes everything"));
        }
    }
    text
}
