//! The tree into the model. Goes through the whole file whatever it finds, so that one run shows every error.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::Files;
use super::compose::is_template;
use super::keys::{self, Key};
use super::model::{CommandEntry, Experiment, Lifecycle, Object, Tap, Vlan, VlanRef, Vm};
use super::section::{self, Entries};
use super::shown;
use super::suggest::Suggester;
use super::syntax::{Node, SpannedKey, Value};
use crate::diagnostic::{Diagnostic, Severity, SourceId, SourceMap, Span, Spanned};
use crate::name::{CommandName, Kind, NameError, Namespace, ProfileName, TapName, VlanAlias, VlanTag, VmName};

mod bond;
mod command;
mod lifecycle;
mod list;
mod network;
mod object;
mod placement;
mod qos;
mod scalar;
mod usb;
mod vm;
mod wait;

pub use bond::usual_bond;
pub use command::why_refused;
use lifecycle::Holder;
pub use object::assigned_mac;

/// No more errors than this are collected; the file is beyond reading then.
const MAX_DIAGNOSTICS: usize = 5_000;

/// What could be decoded; complete only if there is no error.
pub struct Draft {
    pub name: Option<Spanned<Namespace>>,
    pub vlans: BTreeMap<VlanAlias, Vlan>,
    pub vlan_range: Option<Spanned<(VlanTag, VlanTag)>>,
    pub vlan_blacklist: BTreeMap<VlanTag, Span>,
    pub vms: BTreeMap<VmName, Vm>,
    pub taps: BTreeMap<TapName, Tap>,
    pub objects: BTreeMap<Kind, BTreeMap<String, Object>>,
    pub commands: BTreeMap<CommandName, CommandEntry>,
    /// Profiles that no VM uses, even through another profile.
    pub unused_profiles: Vec<Spanned<ProfileName>>,
    /// Some VMs or their NICs are missing because of errors, so nothing can be said to be unused.
    pub partial: bool,
}

impl Draft {
    /// The experiment, if it has a name.
    pub fn complete(self) -> Option<Experiment> {
        let Draft { name, vlans, vlan_range, vlan_blacklist, vms, taps, objects, commands, .. } = self;
        Some(Experiment { name: name?, vlans, vlan_range, vlan_blacklist, vms, taps, objects, commands })
    }
}

/// Where a tree comes from.
pub struct From<'a> {
    /// The texts.
    pub sources: &'a SourceMap,
    /// The files that may be named.
    pub files: &'a dyn Files,
    /// The folders of included files, relative to that of the experiment file.
    pub folders: &'a HashMap<SourceId, String>,
}

/// Decode a tree.
pub fn decode(root: &Node, from: &From<'_>) -> (Option<Draft>, Vec<Diagnostic>) {
    let mut decoder = Decoder {
        sources: from.sources,
        files: from.files,
        folders: from.folders,
        diagnostics: Vec::new(),
        errors: 0,
        suggester: Suggester::default(),
        resolved: HashMap::new(),
        said: std::collections::HashSet::new(),
    };
    let draft = decoder.experiment(root);
    (draft, decoder.diagnostics)
}

struct Decoder<'a> {
    sources: &'a SourceMap,
    files: &'a dyn Files,
    folders: &'a HashMap<SourceId, String>,
    diagnostics: Vec<Diagnostic>,
    /// How many errors were found; what comes with a warning alone is whole.
    errors: usize,
    suggester: Suggester,
    /// Paths that were looked for, so that a thousand VMs with one kernel ask once.
    resolved: HashMap<String, Option<String>>,
    /// What was said about a place, so that a profile's mistake is not repeated for each VM.
    said: std::collections::HashSet<(&'static str, Span)>,
}

/// A key of a VM, as messages name it.
#[derive(Clone, Copy)]
struct At<'a> {
    key: &'a str,
    owner: &'a str,
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.owner.is_empty() { write!(f, "`{}`", self.key) } else { write!(f, "`{}` of {}", self.key, self.owner) }
    }
}

impl Decoder<'_> {
    fn push(&mut self, diagnostic: Diagnostic) {
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Report something about a place once, however often it is come across.
    fn push_once(&mut self, diagnostic: Diagnostic) {
        if diagnostic.span.is_none_or(|span| self.said.insert((diagnostic.code, span))) {
            self.push(diagnostic);
        }
    }

    /// A scalar as it is spelt: as it stands in the file, or in the only spelling that a computed value has.
    fn written(&self, node: &Node) -> Cow<'_, str> {
        let written = self.sources.text(node.span.source).get(node.span.start..node.span.end).unwrap_or("");
        if !is_template(written) {
            return Cow::Borrowed(written);
        }
        match &node.value {
            Value::Bool(truth) => truth.to_string().into(),
            Value::Int(number) => number.to_string().into(),
            Value::Float(number) => number.to_string().into(),
            Value::String(text) => text.to_string().into(),
            _ => "".into(),
        }
    }

    /// Refuse a value's type; says to quote what would be right as text.
    fn wrong_type(&mut self, node: &Node, what: impl std::fmt::Display, expected: &str, text_fits: bool) {
        let written = text_fits.then(|| self.written(node).into_owned());
        self.push(section::wrong_type(node, what, expected, written.as_deref()));
    }

    /// The entries of a map whose keys are fixed. Unknown keys are reported; None if it is no map.
    fn section<'n>(&mut self, node: &'n Node, what: &str, keys: &[&'static str]) -> Option<Entries<'n>> {
        let mut found = Vec::new();
        let entries = section::section(node, what, keys, &mut self.suggester, &mut |diagnostic| found.push(diagnostic));
        found.into_iter().for_each(|diagnostic| self.push(diagnostic));
        entries
    }

    /// The entries of a map from names to values; None if it is no map. Nothing at all is an empty map.
    fn named<'n>(&mut self, node: &'n Node, what: &str) -> &'n [(SpannedKey, Node)] {
        match &node.value {
            Value::Map(map) => map,
            Value::Null => &[],
            _ => {
                self.wrong_type(node, what, "a map from names to settings", false);
                &[]
            }
        }
    }

    fn require(&mut self, entries: &Entries<'_>, keys: &[Key], at: Span, what: &str) {
        for key in keys.iter().filter(|k| k.required()) {
            if !entries.iter().any(|(name, _, _)| *name == key.name) {
                self.push(Diagnostic::error("missing-key", at, format!("{what} has no `{}`", key.name)).hint(format!(
                    "add `{}`: {}",
                    key.name,
                    lower_first(key.help)
                )));
            }
        }
    }

    /// Report a name that was refused.
    fn bad_name(&mut self, span: Span, error: &NameError) {
        let hint = match error {
            NameError::Reserved { .. } => "choose a name that is no word of the command language",
            NameError::Integer { .. } => "add a letter: an integer would be taken for an id or a tag",
            NameError::TooLong { .. } => "choose a shorter name",
            NameError::Empty { .. } => "give it a name",
            NameError::Character { .. } => "replace the other characters, for instance by `-`",
            NameError::Start { .. } => "begin it with a letter or a digit",
        };
        self.push(Diagnostic::error("invalid-name", span, error.to_string()).hint(hint));
    }

    /// A name given as a value; a number is taken by its spelling, so that it is refused as a name and not as a number.
    fn name<T>(&mut self, node: &Node, at: At<'_>, parse: fn(&str) -> Result<T, NameError>) -> Option<Spanned<T>> {
        let text = match &node.value {
            Value::String(text) => text.to_string(),
            Value::Int(_) => self.written(node).into_owned(),
            _ => {
                self.wrong_type(node, at, "a name", true);
                return None;
            }
        };
        match parse(&text) {
            Ok(name) => Some(Spanned::new(name, node.span)),
            Err(error) => {
                self.bad_name(node.span, &error);
                None
            }
        }
    }

    fn experiment(&mut self, root: &Node) -> Option<Draft> {
        if matches!(root.value, Value::Null) {
            self.push(
                Diagnostic::error("missing-key", root.span, "the file is empty, it has no `experiment`")
                    .hint("begin with `experiment: NAME`"),
            );
            return None;
        }
        let entries = self.section(root, "the experiment file", &keys::names(keys::EXPERIMENT))?;
        let start = Span { end: root.span.start, ..root.span };
        self.require(&entries, keys::EXPERIMENT, start, "the experiment file");
        let get = |name: &str| entries.iter().find(|(n, _, _)| *n == name).map(|(_, _, node)| *node);
        let at = |key| At { key, owner: "" };

        let name = get("experiment").and_then(|node| self.name(node, at("experiment"), Namespace::new));
        let vlans = get("vlans").map(|node| self.vlans(node)).unwrap_or_default();
        let vlan_range = get("vlan_range").and_then(|node| self.vlan_range(node, at("vlan_range")));
        let vlan_blacklist = get("vlan_blacklist").map(|node| self.vlan_blacklist(node, at("vlan_blacklist")));
        let vlan_blacklist = vlan_blacklist.unwrap_or_default();
        let profiles = get("profiles").map(|node| self.profiles(node)).unwrap_or_default();
        let before = self.errors;
        let mut book = vm::Profiles::new(profiles);
        let mut vms = get("vms").map(|node| self.vms(node, &mut book)).unwrap_or_default();
        let links = get("links").map(|node| self.links(node)).unwrap_or_default();
        self.apply_links(&links, &mut vms);
        let taps = get("taps").map(|node| self.taps(node)).unwrap_or_default();
        let mut objects: BTreeMap<Kind, BTreeMap<String, Object>> = object::KINDS
            .iter()
            .filter_map(|kind| Some((kind.kind, self.objects(get(kind.section)?, kind))))
            .filter(|(_, objects)| !objects.is_empty())
            .collect();
        let placement = get("placement").map(|node| self.placement(node)).unwrap_or_default();
        objects.extend((!placement.is_empty()).then_some((Kind::Placement, placement)));
        if let Some(name) = &name {
            let bonds = self.bonds_of(name, &vms);
            objects.extend((!bonds.is_empty()).then_some((Kind::Bond, bonds)));
        }
        self.assign_macs(name.as_ref(), &objects, &mut vms);
        let commands = get("commands").map(|node| self.commands(node)).unwrap_or_default();
        let partial = self.errors > before;
        let unused_profiles = self.finish_profiles(&mut book);
        Some(Draft { name, vlans, vlan_range, vlan_blacklist, vms, taps, objects, commands, unused_profiles, partial })
    }

    fn vlans(&mut self, node: &Node) -> BTreeMap<VlanAlias, Vlan> {
        let mut vlans = BTreeMap::new();
        for (key, value) in self.named(node, "`vlans`") {
            let owner = format!("vlan `{}`", shown(&key.text));
            let tag = match &value.value {
                Value::Null => None,
                Value::Int(_) => self.tag(value, At { key: "tag", owner: &owner }),
                Value::Map(_) => {
                    let entries = self.section(value, &owner, &keys::names(keys::VLAN)).unwrap_or_default();
                    entries.iter().find_map(|(_, _, node)| self.tag(node, At { key: "tag", owner: &owner }))
                }
                _ => {
                    self.wrong_type(value, &owner, "nothing, a tag, or a map such as `{ tag: 200 }`", false);
                    None
                }
            };
            match VlanAlias::new(&key.text) {
                Ok(alias) => {
                    vlans.insert(alias, Vlan { span: key.span, tag });
                }
                Err(error) => self.bad_name(key.span, &error),
            }
        }
        vlans
    }

    fn taps(&mut self, node: &Node) -> BTreeMap<TapName, Tap> {
        let mut taps = BTreeMap::new();
        for (key, value) in self.named(node, "`taps`") {
            let owner = format!("tap `{}`", shown(&key.text));
            let name = TapName::new(&key.text).map_err(|error| self.bad_name(key.span, &error)).ok();
            let Some(entries) = self.section(value, &owner, &keys::names(keys::TAP)) else { continue };
            self.require(&entries, keys::TAP, key.span, &owner);
            let (mut vlan, mut ip, mut dhcp, mut bridge) = (None, None, None, None);
            let mut lifecycle = Lifecycle::default();
            for (key, _, node) in entries {
                let at = At { key, owner: &owner };
                match key {
                    "vlan" => vlan = self.vlan_ref(node, at),
                    "ip" => ip = self.ip(node, at),
                    "dhcp" => dhcp = self.bool(node, at).filter(|yes| *yes).map(|_| node.span),
                    "bridge" => bridge = self.name(node, at, crate::name::BridgeName::new),
                    "lifecycle" => lifecycle = self.lifecycle(node, at, Holder::Tap).lifecycle,
                    other => unreachable!("`{other}` is not in the table of tap keys"),
                }
            }
            if let (Some(ip), Some(dhcp)) = (&ip, dhcp) {
                let message = format!("{owner} has an `ip` and asks for one by `dhcp`");
                let diagnostic = Diagnostic::error("exclusive-keys", dhcp, message)
                    .label(ip.span, "the address")
                    .hint("keep one of the two");
                self.push(diagnostic);
            }
            if let (Some(name), Some(vlan)) = (name, vlan) {
                taps.insert(name, Tap { span: key.span, vlan, ip, dhcp, bridge, lifecycle });
            }
        }
        taps
    }

    /// An alias or a tag.
    pub(super) fn vlan_ref(&mut self, node: &Node, at: At<'_>) -> Option<Spanned<VlanRef>> {
        match &node.value {
            Value::Int(_) => {
                // 0 is what has no tag, on trunks too; 4095 is reserved (IEEE 802.1Q).
                let tag = VlanTag::new(self.uint(node, at, 0, 4094)?)?;
                Some(Spanned::new(VlanRef::Tag(tag), node.span))
            }
            Value::String(text) => match VlanAlias::new(text) {
                Ok(alias) => Some(Spanned::new(VlanRef::Alias(alias), node.span)),
                Err(NameError::Integer { .. }) => {
                    self.push(
                        Diagnostic::error(
                            "invalid-value",
                            node.span,
                            format!("{at} is the text `{}`, expected a VLAN alias or a tag", shown(text)),
                        )
                        .hint("write a tag without quotes"),
                    );
                    None
                }
                Err(error) => {
                    self.bad_name(node.span, &error);
                    None
                }
            },
            _ => {
                self.wrong_type(node, at, "a VLAN alias or a tag", false);
                None
            }
        }
    }
}

fn lower_first(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    match characters.next() {
        // An abbreviation such as NIC keeps its capitals.
        Some(first) if !characters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => text.to_owned(),
    }
}
