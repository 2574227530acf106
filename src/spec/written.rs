//! An experiment written out in full: nothing left to compute, no profiles, and behind each value the place that it comes
//! from, and where what it won over stands.

use std::fmt::Write as _;

use super::model::{Experiment, Lifecycle, Nic, VlanRef, VmBody};
use crate::diagnostic::{SourceMap, Span};
use crate::language::field::FieldValue;
use crate::language::qos::Qos;
use crate::name::Kind;

/// The experiment as YAML that means the same. A value without a comment is a default that another value brought with it.
pub fn written(experiment: &Experiment, sources: &SourceMap) -> String {
    let mut text = Writer { sources, text: String::new() };
    text.line(0, "experiment", &scalar(experiment.name.as_str()), Some(experiment.name.span));
    if let Some(range) = &experiment.vlan_range {
        text.line(0, "vlan_range", &format!("[{}, {}]", range.0, range.1), Some(range.span));
    }
    if let Some(place) = experiment.vlan_blacklist.values().next() {
        let tags: Vec<String> = experiment.blacklisted().iter().map(|(low, high)| format!("{low}-{high}")).collect();
        text.line(0, "vlan_blacklist", &format!("[{}]", tags.join(", ")), Some(*place));
    }
    if experiment.of(Kind::Placement).next().is_some() {
        text.open(0, "placement", None);
    }
    for (key, object) in experiment.of(Kind::Placement) {
        let values: Vec<String> = object.all(key).iter().map(|value| value.value.clone()).collect();
        text.line(1, key, &placement(key, &values), Some(object.place(key)));
    }
    if !experiment.vlans.is_empty() {
        text.open(0, "vlans", None);
        for (alias, vlan) in &experiment.vlans {
            let value = vlan.tag.as_ref().map_or("{}".to_owned(), |tag| format!("{{ tag: {} }}", tag.value));
            text.line(1, &scalar(alias.as_str()), &value, Some(vlan.tag.as_ref().map_or(vlan.span, |tag| tag.span)));
        }
    }
    if !experiment.vms.is_empty() {
        text.open(0, "vms", None);
    }
    for (name, vm) in &experiment.vms {
        let body = &vm.body;
        text.open(1, &scalar(name.as_str()), Some(vm.span));
        text.line(2, "type", body.kind.word(), None);
        for (field, value) in body.config.changed() {
            let span = body.spans.get(field.name).copied();
            text.line(2, &field.key(), &field_value(value), span);
            text.beneath(body, field.name);
        }
        if !body.networks.is_empty() {
            text.open(2, "networks", body.spans.get("networks").copied());
            text.beneath(body, "networks");
            for nic in &body.networks {
                text.item(3, &self::nic(nic), nic.span);
            }
        }
        let bonds: Vec<_> =
            experiment.of(Kind::Bond).filter(|(_, bond)| bond.one("vm") == Some(name.as_str())).collect();
        if !bonds.is_empty() {
            text.open(2, "bonds", None);
        }
        for (_, bond) in bonds {
            let given = bond.settings.iter().filter(|(key, _)| **key != "vm");
            let value = |values: &[crate::diagnostic::Spanned<String>]| {
                values.iter().map(|v| v.value.clone()).collect::<Vec<_>>()
            };
            let given = given.map(|(key, values)| format!("{key}: {}", setting(key, &value(values))));
            let given: Vec<String> = given.chain(inline(&bond.lifecycle)).collect();
            text.item(3, &format!("{{ {} }}", given.join(", ")), bond.span);
        }
        if !body.usb_disks.is_empty() {
            text.open(2, "usb_disks", body.spans.get("usb_disks").copied());
            for disk in &body.usb_disks {
                text.item(3, &usb_disk(&disk.path, disk.version.as_deref(), disk.serial.as_deref()), disk.span);
            }
        }
        text.line(2, "state", body.state.word(), body.spans.get("state").copied());
        text.beneath(body, "state");
        if !body.depends_on.is_empty() {
            text.open(2, "depends_on", None);
            for other in &body.depends_on {
                text.item(3, &scalar(other.as_str()), other.span);
            }
        }
        if let Some(wait) = &body.wait_for {
            text.open(2, "wait_for", Some(wait.span));
            text.beneath(body, "wait_for");
            if wait.cc {
                text.line(3, "cc", "true", None);
            }
            if let Some(ping) = &wait.ping {
                text.line(3, "ping", &quoted(&ping.value.to_string()), Some(ping.span));
            }
            if let Some(port) = &wait.port {
                text.line(3, "port", &quoted(&port.value.to_string()), Some(port.span));
            }
            if let Some(command) = &wait.command {
                text.line(3, "command", &quoted(command), Some(command.span));
            }
            if !wait.serial.is_empty() {
                text.open(3, "serial", None);
            }
            for serial in &wait.serial {
                let key = if serial.sought.is_pattern() { "pattern" } else { "text" };
                let value = quoted(serial.sought.text());
                text.item(4, &format!("{{ port: {}, {key}: {value} }}", serial.port), serial.span);
            }
            text.line(3, "timeout", &wait.timeout.to_string(), None);
        }
        text.lifecycle(&body.lifecycle, vm.renamed_from.as_ref().map(|old| (old.as_str(), old.span)));
    }
    if !experiment.taps.is_empty() {
        text.open(0, "taps", None);
    }
    for (name, tap) in &experiment.taps {
        text.open(1, &scalar(name.as_str()), Some(tap.span));
        text.line(2, "vlan", &vlan(&tap.vlan), Some(tap.vlan.span));
        if let Some(ip) = &tap.ip {
            text.line(2, "ip", &scalar(&format!("{}/{}", ip.0, ip.1)), Some(ip.span));
        }
        if let Some(span) = tap.dhcp {
            text.line(2, "dhcp", "true", Some(span));
        }
        if let Some(bridge) = &tap.bridge {
            text.line(2, "bridge", &scalar(bridge.as_str()), Some(bridge.span));
        }
        text.lifecycle(&tap.lifecycle, None);
    }
    for (section, kind) in SECTIONS {
        if experiment.of(*kind).next().is_some() {
            text.open(0, section, None);
        }
        for (name, object) in experiment.of(*kind) {
            text.open(1, &scalar(name), Some(object.span));
            for (key, values) in &object.settings {
                let items = values.iter().map(|value| value.value.clone());
                text.line(2, key, &setting(key, &items.collect::<Vec<_>>()), Some(object.place(key)));
            }
            text.lifecycle(&object.lifecycle, None);
        }
    }
    if !experiment.commands.is_empty() {
        text.open(0, "commands", None);
    }
    for (name, entry) in &experiment.commands {
        text.open(1, &scalar(name.as_str()), Some(entry.span));
        for (key, lines) in [("create", &entry.create), ("destroy", &entry.destroy)] {
            if !lines.is_empty() {
                text.open(2, key, None);
            }
            for line in lines {
                text.item(3, &quoted(line), line.span);
            }
        }
        if let Some(check) = &entry.check {
            text.line(2, "check", &quoted(check), Some(check.span));
        }
        if !entry.depends_on.is_empty() {
            text.open(2, "depends_on", None);
            for other in &entry.depends_on {
                text.item(3, &scalar(other.as_str()), other.span);
            }
        }
    }
    text.text
}

/// The sections of objects that are sets of settings.
pub const SECTIONS: &[(&str, Kind)] = &[
    ("bridges", Kind::Bridge),
    ("nat", Kind::Nat),
    ("dnsmasq", Kind::Dnsmasq),
    ("mirrors", Kind::Mirror),
    ("captures", Kind::Capture),
    ("pipes", Kind::Pipe),
    ("plumbing", Kind::Plumbing),
];

/// A USB disk as YAML: its path alone, if there is nothing else to say.
pub fn usb_disk(path: &str, version: Option<&str>, serial: Option<&str>) -> String {
    if version.is_none() && serial.is_none() {
        return scalar(path);
    }
    let mut text = format!("{{ path: {}", scalar(path));
    for (key, value) in [("version", version), ("serial", serial)] {
        text.extend(value.map(|value| format!(", {key}: {}", scalar(value))));
    }
    text + " }"
}

/// A setting of such an object as YAML.
pub fn setting(key: &str, values: &[String]) -> String {
    // These are numbers or truth values in the file.
    let plain = matches!(key, "interface" | "snaplen" | "timeout" | "gzip" | "log" | "nics" | "fallback" | "qinq");
    // A VLAN that is a number is a tag.
    let tag = |value: &String| key == "vlan" && value.parse::<u16>().is_ok();
    let text = |value: &String| if plain || tag(value) { value.clone() } else { scalar(value) };
    match values {
        [one] => text(one),
        several => list(several.iter().map(text)),
    }
}

/// A lifecycle in one line, with its key; None if it says nothing.
fn inline(lifecycle: &Lifecycle) -> Option<String> {
    let ignored = lifecycle.ignore_changes.iter().map(|path| quoted(path)).collect::<Vec<_>>();
    let parts = [
        lifecycle.prevent_destroy.map(|_| "prevent_destroy: true".to_owned()),
        (!ignored.is_empty()).then(|| format!("ignore_changes: [{}]", ignored.join(", "))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("lifecycle: {{ {} }}", parts.join(", ")))
}

/// A key of `placement` as YAML.
pub fn placement(key: &str, values: &[String]) -> String {
    match key {
        "hosts" => list(values.iter().map(|host| scalar(host))),
        // A truth value, or a word that YAML takes for nothing else.
        _ => values.join(", "),
    }
}

struct Writer<'a> {
    sources: &'a SourceMap,
    text: String,
}

impl Writer<'_> {
    fn line(&mut self, depth: usize, key: &str, value: &str, span: Option<Span>) {
        self.put(depth, &format!("{key}: {value}"), span);
    }

    fn open(&mut self, depth: usize, key: &str, span: Option<Span>) {
        self.put(depth, &format!("{key}:"), span);
    }

    fn item(&mut self, depth: usize, value: &str, span: Span) {
        self.put(depth, &format!("- {value}"), Some(span));
    }

    fn lifecycle(&mut self, lifecycle: &Lifecycle, renamed_from: Option<(&str, Span)>) {
        if lifecycle.prevent_destroy.is_none() && lifecycle.ignore_changes.is_empty() && renamed_from.is_none() {
            return;
        }
        self.open(2, "lifecycle", None);
        if let Some(span) = lifecycle.prevent_destroy {
            self.line(3, "prevent_destroy", "true", Some(span));
        }
        if !lifecycle.ignore_changes.is_empty() {
            self.open(3, "ignore_changes", None);
        }
        for path in &lifecycle.ignore_changes {
            self.item(4, &quoted(path), path.span);
        }
        if let Some((old, span)) = renamed_from {
            self.line(3, "renamed_from", &scalar(old), Some(span));
        }
    }

    /// Say in the comment of the last line what its value won over; the nearest first.
    fn beneath(&mut self, body: &VmBody, key: &str) {
        let mut said = body.spans.get(key).map(|span| self.place(*span)).into_iter().collect::<Vec<_>>();
        let how = if key == "tags" { "and" } else { "over" };
        for (_, span) in body.beneath.iter().rev().filter(|(of, _)| *of == key) {
            let place = self.place(*span);
            if !said.contains(&place) {
                let end = self.text.trim_end().len();
                self.text.truncate(end);
                let _infallible = writeln!(self.text, ", {how} {place}");
                said.push(place);
            }
        }
    }

    /// The file and the line, for a comment.
    fn place(&self, span: Span) -> String {
        let place = self.sources.place(span);
        format!("{}:{}", place.file.replace(|c: char| c.is_control(), "?"), place.line)
    }

    fn put(&mut self, depth: usize, line: &str, span: Option<Span>) {
        let comment = span.map_or(String::new(), |span| format!("  # {}", self.place(span)));
        let _infallible = writeln!(self.text, "{:width$}{line}{comment}", "", width = depth * 2);
    }
}

/// The words that YAML 1.1 or 1.2 take for something else than text.
const SPECIAL: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"];

/// Text as YAML: as it is where every reader takes it for text, quoted otherwise.
pub fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-+=@".contains(c))
        && !SPECIAL.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

/// Text as JSON, which YAML reads as the same. An expression's beginning is taken apart, so that it stays text.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace("{{", "{{ '{{' }}").replace("{%", "{{ '{%' }}")
}

/// A list as YAML.
pub fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// The value of a field as YAML.
pub fn field_value(value: &FieldValue) -> String {
    match value {
        FieldValue::Uint(number) => number.to_string(),
        FieldValue::Int(number) => number.to_string(),
        FieldValue::Bool(truth) => truth.to_string(),
        FieldValue::Text(text) => scalar(text),
        FieldValue::Words(words) => list(words.iter().map(|word| scalar(word))),
        FieldValue::Disks(disks) => list(disks.iter().map(|disk| {
            // In the short form a comma would begin another part.
            if disk.interface.is_none() && disk.cache.is_none() && !disk.path.contains(',') {
                return scalar(&disk.path);
            }
            let mut text = format!("{{ path: {}", scalar(&disk.path));
            for (key, value) in [("interface", &disk.interface), ("cache", &disk.cache)] {
                if let Some(value) = value {
                    let _infallible = write!(text, ", {key}: {}", scalar(value));
                }
            }
            text + " }"
        })),
        FieldValue::Tags(tags) => {
            let tags: Vec<String> =
                tags.iter().map(|(key, value)| format!("{}: {}", scalar(key), scalar(value))).collect();
            format!("{{ {} }}", tags.join(", "))
        }
        FieldValue::Overrides(overrides) => {
            list(overrides.iter().map(|pair| {
                format!("{{ match: {}, replacement: {} }}", scalar(&pair.matched), scalar(&pair.replacement))
            }))
        }
        // These are no keys of the file.
        FieldValue::Networks(_) | FieldValue::Volumes(_) => scalar(&value.to_string()),
    }
}

fn vlan(vlan: &VlanRef) -> String {
    match vlan {
        VlanRef::Alias(alias) => scalar(alias.as_str()),
        VlanRef::Tag(tag) => tag.to_string(),
    }
}

fn nic(nic: &Nic) -> String {
    let mut text = format!("{{ vlan: {}", vlan(&nic.vlan));
    let parts = [
        ("mac", nic.mac.map(|mac| quoted(&mac.to_string()))),
        ("driver", nic.driver.as_ref().map(|driver| scalar(driver))),
        ("bridge", nic.bridge.as_ref().map(|bridge| scalar(bridge.as_str()))),
    ];
    for (key, value) in parts {
        if let Some(value) = value {
            let _infallible = write!(text, ", {key}: {value}");
        }
    }
    if !nic.connected {
        text.push_str(", connected: false");
    }
    if let Some(qos) = &nic.qos {
        let _infallible = write!(text, ", qos: {}", self::qos(qos));
    }
    text + " }"
}

/// What shapes an interface, as YAML.
pub fn qos(qos: &Qos) -> String {
    let settings: Vec<String> = qos.settings().into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{ {} }}", settings.join(", "))
}
