//! VMs and the profiles that they extend.

use std::collections::btree_map::Entry as MapEntry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use super::lifecycle::Holder;
use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::language::field::{Field, FieldType, FieldValue, Initial, VmConfig};
use crate::name::{ProfileName, VmName};
use crate::spec::keys::{VM, VmKey};
use crate::spec::model::{Lifecycle, Nic, Object, RunState, UsbDisk, Vm, VmBody, VmKind, WaitFor};
use crate::spec::names::MAX_VMS;
use crate::spec::shown;
use crate::spec::syntax::{Node, Value};

/// The longest chain of profiles that extend each other.
const MAX_PROFILE_CHAIN: usize = 64;

/// What an entry sets, or what an entry and its profiles set together.
#[derive(Debug, Clone, Default)]
struct Settings {
    kind: Option<VmKind>,
    /// Each field once; few are set.
    fields: Vec<(&'static Field, Spanned<FieldValue>)>,
    networks: Option<Spanned<Vec<Spanned<Nic>>>>,
    state: Option<Spanned<RunState>>,
    depends_on: Option<Vec<Spanned<VmName>>>,
    wait_for: Option<WaitFor>,
    lifecycle: Option<Lifecycle>,
    bonds: Option<Vec<Object>>,
    usb_disks: Option<Spanned<Vec<Spanned<UsbDisk>>>>,
    /// Where what others won over stands, by key, the latest last.
    beneath: Vec<(&'static str, Span)>,
}

impl Settings {
    /// Let another's settings win over these.
    fn apply(&mut self, other: &Settings) {
        let spans = self.spans();
        let won = spans
            .into_iter()
            .filter(|(key, span)| other.spans().into_iter().any(|(other, winner)| other == *key && winner != *span));
        let won: Vec<_> = won.chain(other.beneath.iter().copied()).collect();
        self.beneath.extend(won);
        self.kind = other.kind.or(self.kind);
        for (field, value) in &other.fields {
            let set = self.fields.iter_mut().find(|(set, _)| set.name == field.name).map(|(_, value)| value);
            match (set, &value.value) {
                (Some(Spanned { value: FieldValue::Tags(old), span }), FieldValue::Tags(new)) => {
                    old.extend(new.iter().map(|(k, v)| (k.clone(), v.clone())));
                    *span = value.span;
                }
                (Some(old), _) => old.clone_from(value),
                (None, _) => self.fields.push((field, value.clone())),
            }
        }
        if other.networks.is_some() {
            self.networks.clone_from(&other.networks);
        }
        self.state = other.state.clone().or(self.state.take());
        if other.depends_on.is_some() {
            self.depends_on.clone_from(&other.depends_on);
        }
        if other.wait_for.is_some() {
            self.wait_for.clone_from(&other.wait_for);
        }
        if other.lifecycle.is_some() {
            self.lifecycle.clone_from(&other.lifecycle);
        }
        if other.bonds.is_some() {
            self.bonds.clone_from(&other.bonds);
        }
        if other.usb_disks.is_some() {
            self.usb_disks.clone_from(&other.usb_disks);
        }
    }

    /// The keys that are set, each with the place of its value.
    fn spans(&self) -> Vec<(&'static str, Span)> {
        let fields = self.fields.iter().map(|(field, value)| (field.name, value.span));
        let networks = self.networks.iter().map(|networks| ("networks", networks.span));
        let state = self.state.iter().map(|state| ("state", state.span));
        let wait = self.wait_for.iter().map(|wait| ("wait_for", wait.span));
        fields.chain(networks).chain(state).chain(wait).collect()
    }

    fn body(self) -> VmBody {
        let mut config = VmConfig::new();
        let mut spans: BTreeMap<&'static str, Span> = BTreeMap::new();
        for (field, value) in self.fields {
            config.set(field.name, value.value);
            spans.insert(field.name, value.span);
        }
        let networks = self.networks.map(|networks| {
            spans.insert("networks", networks.span);
            networks.value
        });
        let state = self.state.map(|state| {
            spans.insert("state", state.span);
            state.value
        });
        let usb_disks = self.usb_disks.map(|disks| {
            spans.insert("usb_disks", disks.span);
            disks.value
        });
        VmBody {
            kind: self.kind.unwrap_or(VmKind::Kvm),
            config,
            spans,
            networks: networks.unwrap_or_default(),
            state: state.unwrap_or(RunState::Running),
            depends_on: self.depends_on.unwrap_or_default(),
            wait_for: self.wait_for,
            lifecycle: self.lifecycle.unwrap_or_default(),
            bonds: self.bonds.unwrap_or_default(),
            usb_disks: usb_disks.unwrap_or_default(),
            links: BTreeMap::new(),
            beneath: self.beneath,
        }
    }
}

/// One entry of `vms` or `profiles`.
#[derive(Debug, Default)]
pub(super) struct Entry {
    profiles: Vec<Spanned<ProfileName>>,
    settings: Settings,
    count: Option<Spanned<u64>>,
    renamed_from: Option<Spanned<Vec<VmName>>>,
}

/// The profiles of the file and what they come to.
pub(super) struct Profiles {
    entries: BTreeMap<ProfileName, (Span, Entry)>,
    merged: HashMap<ProfileName, Option<Arc<Settings>>>,
}

impl Profiles {
    pub(super) fn new(entries: BTreeMap<ProfileName, (Span, Entry)>) -> Self {
        Self { entries, merged: HashMap::new() }
    }
}

impl Decoder<'_> {
    pub(super) fn profiles(&mut self, node: &Node) -> BTreeMap<ProfileName, (Span, Entry)> {
        let mut profiles = BTreeMap::new();
        for (key, value) in self.named(node, "`profiles`") {
            let entry = self.entry(value, &format!("profile `{}`", shown(&key.text)), true);
            match ProfileName::new(&key.text) {
                Ok(name) => {
                    profiles.insert(name, (key.span, entry));
                }
                Err(error) => self.bad_name(key.span, &error),
            }
        }
        profiles
    }

    pub(super) fn vms(&mut self, node: &Node, profiles: &mut Profiles) -> BTreeMap<VmName, Vm> {
        let mut vms: BTreeMap<VmName, Vm> = BTreeMap::new();
        for (key, value) in self.named(node, "`vms`") {
            let mut entry = self.entry(value, &format!("vm `{}`", shown(&key.text)), false);
            let names = self.entry_names(&key.text, key.span, entry.count.take());
            let mut settings: Option<Settings> = None;
            for name in &entry.profiles {
                if let Some(profile) = self.merged(name, profiles, &mut Vec::new()) {
                    match &mut settings {
                        None => settings = Some((*profile).clone()),
                        Some(settings) => settings.apply(&profile),
                    }
                }
            }
            let mut settings = settings.unwrap_or_default();
            settings.apply(&entry.settings);
            if names.len() > 1 {
                self.refuse_fixed(&settings, key.span, names.len());
            }
            if vms.len() + names.len() > MAX_VMS {
                self.push(
                    Diagnostic::error("too-many-vms", key.span, format!("the experiment has more than {MAX_VMS} VMs"))
                        .hint("split it into several experiments"),
                );
                break;
            }
            let body = Arc::new(settings.body());
            let former = self.former_names(entry.renamed_from.take(), &names, key.span);
            for (name, renamed_from) in names.into_iter().zip(former) {
                match vms.entry(name) {
                    MapEntry::Vacant(vacant) => {
                        vacant.insert(Vm { span: key.span, body: body.clone(), renamed_from });
                    }
                    MapEntry::Occupied(other) => {
                        let (name, span) = (other.key(), other.get().span);
                        let diagnostic =
                            Diagnostic::error("duplicate-vm", key.span, format!("there are two VMs called `{name}`"))
                                .other(span, format!("`{name}` comes from here too"))
                                .hint("rename one of them, or change the range");
                        self.push_once(diagnostic);
                    }
                }
            }
        }
        vms
    }

    /// The names of an entry's VMs.
    fn entry_names(&mut self, text: &str, span: Span, count: Option<Spanned<u64>>) -> Vec<VmName> {
        let Some(count) = count else { return self.expand(text, span) };
        if text.contains(['[', ']']) {
            self.push(
                Diagnostic::error("invalid-range", count.span, format!("`{}` has a range and a `count`", shown(text)))
                    .label(span, "the range")
                    .hint("use one of the two"),
            );
            return Vec::new();
        }
        // `7` with a count of 2 would be 70 and 71.
        if let Err(error) = VmName::new(text) {
            self.bad_name(span, &error);
            return Vec::new();
        }
        match (0..count.value).map(|i| VmName::new(&format!("{text}{i}"))).collect() {
            Ok(names) => names,
            Err(error) => {
                self.bad_name(span, &error);
                Vec::new()
            }
        }
    }

    /// What only one VM can have, in an entry that stands for several.
    fn refuse_fixed(&mut self, settings: &Settings, key: Span, vms: usize) {
        let fixed = settings.networks.iter().flat_map(|networks| &networks.value);
        let macs = fixed.filter(|nic| nic.mac.is_some()).map(|nic| (nic.place("mac"), "MAC address"));
        let uuid = settings.fields.iter().find(|(field, _)| field.name == "uuid").map(|(_, uuid)| uuid);
        let uuid = uuid.filter(|uuid| uuid.value != FieldValue::Text(String::new()));
        let bonds = settings.bonds.iter().flatten().filter(|bond| bond.one("name").is_some());
        let bonds = bonds.map(|bond| (bond.place("name"), "name of a bond"));
        for (span, what) in macs.chain(uuid.map(|uuid| (uuid.span, "UUID"))).chain(bonds) {
            self.push_once(
                Diagnostic::error(
                    "fixed-for-many",
                    span,
                    format!("one {what} is given to {vms} VMs, each needs its own"),
                )
                .label(key, format!("this entry stands for {vms} VMs"))
                .hint("leave it out to have one assigned, or write one entry per VM"),
            );
        }
    }

    /// A profile with all that it extends. None if there is no such profile or it extends itself.
    fn merged(
        &mut self,
        name: &Spanned<ProfileName>,
        profiles: &mut Profiles,
        path: &mut Vec<Spanned<ProfileName>>,
    ) -> Option<Arc<Settings>> {
        if let Some(at) = path.iter().position(|p| p.value == name.value) {
            self.profile_cycle(&path[at..], name);
            return None;
        }
        if let Some(merged) = profiles.merged.get(&name.value) {
            return merged.clone();
        }
        let Some((_, entry)) = profiles.entries.get(&name.value) else {
            let hint = match self.suggester.nearest(name.as_str(), profiles.entries.keys().map(ProfileName::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("add `{}` to `profiles`", name.value),
            };
            let message = format!("there is no profile `{}`", name.value);
            self.push_once(Diagnostic::error("unknown-profile", name.span, message).hint(hint));
            return None;
        };
        if path.len() >= MAX_PROFILE_CHAIN {
            let message = format!("profiles extend each other over more than {MAX_PROFILE_CHAIN} levels");
            self.push_once(Diagnostic::error("too-deep", name.span, message));
            return None;
        }
        let extended = entry.profiles.clone();
        path.push(name.clone());
        let mut settings = Settings::default();
        for other in &extended {
            if let Some(other) = self.merged(other, profiles, path) {
                settings.apply(&other);
            }
        }
        path.pop();
        settings.apply(&profiles.entries[&name.value].1.settings);
        let merged = Some(Arc::new(settings));
        profiles.merged.insert(name.value.clone(), merged.clone());
        merged
    }

    fn profile_cycle(&mut self, path: &[Spanned<ProfileName>], closing: &Spanned<ProfileName>) {
        let names: Vec<&str> = path.iter().chain([closing]).map(|name| name.as_str()).collect();
        let mut diagnostic = Diagnostic::error(
            "profile-cycle",
            closing.span,
            format!("profiles extend each other: {}", names.join(" → ")),
        )
        .hint("remove one of these `profile` keys");
        // The first reference comes from outside; the closing one is the place itself.
        for name in &path[1..] {
            diagnostic = diagnostic.label(name.span, format!("`{}` is extended here", name.value));
        }
        self.push_once(diagnostic);
    }

    /// Check the profiles that no VM uses too, and name them.
    pub(super) fn finish_profiles(&mut self, profiles: &mut Profiles) -> Vec<Spanned<ProfileName>> {
        let used: HashSet<ProfileName> = profiles.merged.keys().cloned().collect();
        let unused: Vec<Spanned<ProfileName>> = profiles
            .entries
            .iter()
            .filter(|(name, _)| !used.contains(*name))
            .map(|(name, (span, _))| Spanned::new(name.clone(), *span))
            .collect();
        for name in &unused {
            self.merged(name, profiles, &mut Vec::new());
        }
        unused
    }

    fn entry(&mut self, node: &Node, owner: &str, profile: bool) -> Entry {
        let mut entry = Entry::default();
        if matches!(node.value, Value::Null) {
            return entry;
        }
        static KEYS: LazyLock<[Vec<&str>; 2]> = LazyLock::new(|| {
            let of = |profile: bool| move |name: &&str| !(profile && *name == "count");
            [false, true].map(|profile| VM.iter().map(|(name, _)| *name).filter(of(profile)).collect())
        });
        let Some(entries) = self.section(node, owner, &KEYS[usize::from(profile)]) else { return entry };
        for (name, _, node) in entries {
            let at = At { key: name, owner };
            let (_, key) = VM.iter().find(|(n, _)| *n == name).expect("section returns only the keys it was given");
            match key {
                VmKey::Field(field) => match field.ty {
                    FieldType::Networks => {
                        entry.settings.networks =
                            self.networks(node, at).map(|networks| Spanned::new(networks, node.span));
                    }
                    _ => {
                        if let Some(value) = self.field(field, node, at) {
                            entry.settings.fields.push((field, Spanned::new(value, node.span)));
                        }
                    }
                },
                VmKey::Own(key) => match key.name {
                    "profile" => entry.profiles = self.profile_names(node, at),
                    "type" => entry.settings.kind = self.kind(node, at),
                    "state" => {
                        let word = self.one_of(node, at, &["running", "paused"]);
                        entry.settings.state = word.map(|word| {
                            let state = if word == "paused" { RunState::Paused } else { RunState::Running };
                            Spanned::new(state, node.span)
                        });
                    }
                    "depends_on" => entry.settings.depends_on = self.vm_names(node, at),
                    "wait_for" => entry.settings.wait_for = self.wait_for(node, at),
                    "lifecycle" => {
                        let written = self.lifecycle(node, at, if profile { Holder::Profile } else { Holder::Vm });
                        entry.settings.lifecycle = Some(written.lifecycle);
                        entry.renamed_from = written.renamed_from;
                    }
                    "bonds" => entry.settings.bonds = self.bonds(node, at),
                    "usb_disks" => {
                        let disks = self.usb_disks(node, at);
                        entry.settings.usb_disks = disks.map(|disks| Spanned::new(disks, node.span));
                    }
                    "count" => {
                        entry.count = self.uint(node, at, 0, MAX_VMS as u64).map(|n| Spanned::new(n, node.span));
                    }
                    other => unreachable!("`{other}` is not in the table of VM keys"),
                },
            }
        }
        entry
    }

    fn kind(&mut self, node: &Node, at: At<'_>) -> Option<VmKind> {
        match &node.value {
            Value::String(text) if &**text == "kvm" => Some(VmKind::Kvm),
            Value::String(text) => {
                self.push(
                    Diagnostic::error(
                        "invalid-value",
                        node.span,
                        format!("{at} is `{}`, which does not exist", shown(text)),
                    )
                    .hint("the only type is kvm"),
                );
                None
            }
            _ => {
                self.wrong_type(node, at, "kvm", false);
                None
            }
        }
    }

    /// The value of a `vm config` field.
    fn field(&mut self, field: &'static Field, node: &Node, at: At<'_>) -> Option<FieldValue> {
        Some(match field.ty {
            FieldType::Uint { min, max } if field.unit == Some("MB") => {
                FieldValue::Uint(self.memory(node, at, min, max)?)
            }
            FieldType::Uint { min, max } => FieldValue::Uint(self.uint(node, at, min, max)?),
            FieldType::Int { min, max } => FieldValue::Int(self.int(node, at, min, max)?),
            FieldType::Bool => FieldValue::Bool(self.bool(node, at)?),
            FieldType::Words => FieldValue::Words(self.words(node, at)?),
            FieldType::Disks => FieldValue::Disks(self.disks(node, at)?),
            FieldType::Tags => FieldValue::Tags(self.tags(node, at)?),
            FieldType::Networks => unreachable!("NICs are kept apart from the other fields"),
            FieldType::Overrides => FieldValue::Overrides(self.overrides(node, at)?),
            FieldType::Volumes | FieldType::Bonds => unreachable!("`{}` is no key of the file", field.name),
            FieldType::Text | FieldType::Path | FieldType::Uuid => {
                let text = self.text(node, at)?;
                if text.is_empty() {
                    // Takes back what a profile set; a field with another default has no such value.
                    if field.default == Initial::Empty {
                        return Some(FieldValue::Text(text));
                    }
                    self.push(
                        Diagnostic::error("invalid-value", node.span, format!("{at} is empty"))
                            .hint(format!("leave it out for the default, {}", field.default_value())),
                    );
                    return None;
                }
                if field.ty == FieldType::Uuid {
                    match field.parse(&[text]) {
                        Ok(value) => return Some(value),
                        Err(error) => {
                            self.push(
                                Diagnostic::error("invalid-value", node.span, format!("{at}: {error}"))
                                    .hint("leave it out to have one assigned"),
                            );
                            return None;
                        }
                    }
                }
                // A field with a default text names a program; without a slash it is found in PATH.
                let program = field.default != Initial::Empty && !text.contains('/');
                let text = if field.ty == FieldType::Path && !program { self.path(text, node.span, at)? } else { text };
                FieldValue::Text(text)
            }
        })
    }
}
