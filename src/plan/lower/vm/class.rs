//! VMs that launch with one configuration.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::super::super::draft::Draft;
use super::super::super::{Goal, Reason, ownership};
use super::super::Scene;
use crate::diagnostic::Span;
use crate::language::field::{FIELDS, FieldType, FieldValue, VmConfig};
use crate::language::netspec::NetSpec;
use crate::language::range;
use crate::live::{LiveVm, Observed, Tags};
use crate::name::BridgeName;
use crate::spec::model::{Nic, RunState, UsbDisk, Vm, VmBody, VmKind};

/// What VMs that launch together have in common.
pub(super) struct Class<'a> {
    /// The word of `vm launch`.
    pub kind: &'static str,
    /// The `vm config` commands, as words.
    pub config: Vec<Vec<String>>,
    /// Every tag that the VMs are to have.
    pub tags: BTreeMap<String, String>,
    /// The digest among them.
    pub digest: String,
    /// The state that they are to be in.
    pub state: RunState,
    /// The VMs that must be ready before them.
    pub depends_on: Vec<&'a str>,
    /// What they are made from.
    pub body: &'a VmBody,
    /// What of live VMs was found to be as the class wants it, with the fields that the target does not show.
    matched: RefCell<HashMap<*const Observed, Vec<&'static str>>>,
    /// Tags of live VMs that were found to be as the class wants them.
    tagged: RefCell<HashSet<*const Tags>>,
    /// Something is wrong with it, which every body of it is to be told.
    bad: bool,
}

impl Class<'_> {
    /// The fields that the target does not show, if everything else is known to be as it is to be.
    pub fn matched(&self, live: &LiveVm) -> Option<Vec<&'static str>> {
        self.matched.borrow().get(&Arc::as_ptr(&live.observed)).cloned()
    }

    /// Remember that nothing differs but perhaps what the target does not show.
    pub fn remember(&self, live: &LiveVm, hidden: &[&'static str]) {
        self.matched.borrow_mut().insert(Arc::as_ptr(&live.observed), hidden.to_vec());
    }

    /// Whether the tags are known to be as they are to be.
    pub fn has_tags(&self, live: &LiveVm) -> bool {
        self.tagged.borrow().contains(&Arc::as_ptr(&live.tags))
    }

    /// Remember that nothing differs.
    pub fn remember_tags(&self, live: &LiveVm) {
        self.tagged.borrow_mut().insert(Arc::as_ptr(&live.tags));
    }
}

/// What bodies of one class have in common, to be compared without making their commands.
#[derive(PartialEq, Eq)]
struct Content<'a> {
    kind: VmKind,
    state: RunState,
    config: &'a VmConfig,
    networks: Vec<&'a Nic>,
    depends_on: BTreeSet<&'a str>,
    ignored: Vec<&'a str>,
    usb_disks: Vec<&'a UsbDisk>,
}

impl Hash for Content<'_> {
    /// Of what tells most classes apart.
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kind, self.state, self.config, self.networks.len()).hash(state);
    }
}

impl<'a> Content<'a> {
    fn of(body: &'a VmBody) -> Self {
        Self {
            kind: body.kind,
            state: body.state,
            config: &body.config,
            networks: body.networks.iter().map(|nic| &nic.value).collect(),
            depends_on: body.depends_on.iter().map(|d| d.value.as_str()).collect(),
            ignored: body.lifecycle.ignore_changes.iter().map(|path| path.as_str()).collect(),
            usb_disks: body.usb_disks.iter().map(|disk| &disk.value).collect(),
        }
    }
}

/// All classes; bodies of equal content share one.
#[derive(Default)]
pub(super) struct Classes<'a> {
    classes: Vec<Class<'a>>,
    by_body: HashMap<*const VmBody, usize>,
    by_content: HashMap<Content<'a>, usize>,
    parts: HashMap<usize, Vec<Part>>,
    /// With and without media that change in place.
    goals: HashMap<(usize, InPlace), Arc<Goal>>,
}

/// The media that change while a VM stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct InPlace {
    /// The one in the CD-ROM drive.
    pub cdrom: bool,
    /// USB disks.
    pub usb: bool,
}

/// Other VMs come from the same entry; what is found out about the body of one counts for all.
fn is_shared(vm: &Vm) -> bool {
    Arc::strong_count(&vm.body) > 1
}

/// Something that a new VM will be.
struct Part {
    field: String,
    value: String,
    written: Written,
}

/// Where the entry of a VM says something.
enum Written {
    Key(&'static str),
    /// A NIC.
    Nic(usize),
    /// The shape of a NIC.
    Shape(usize),
    /// A USB disk.
    Usb(usize),
    Dependencies,
}

/// What a new VM will be: what the file says, and the memory in any case.
fn parts(body: &VmBody) -> Vec<Part> {
    let part = |field: String, key, value| Part { field, value, written: Written::Key(key) };
    let mut parts = vec![part("state".into(), "state", body.state.word().to_owned())];
    for field in FIELDS.iter().filter(|f| !matches!(f.ty, FieldType::Tags | FieldType::Networks)) {
        if field.name == "memory" || body.config.is_set(field.name) {
            parts.push(part(field.key(), field.name, body.config.get(field.name).to_string()));
        }
    }
    if !body.networks.is_empty() {
        let nics: Vec<String> = body.networks.iter().map(|nic| netspec(nic).to_string()).collect();
        parts.push(part("networks".into(), "networks", nics.join(" ")));
        for (index, nic) in body.networks.iter().enumerate() {
            if !nic.connected {
                let (field, written) = (format!("networks[{index}].connected"), Written::Nic(index));
                parts.push(Part { field, value: "false".to_owned(), written });
            }
            let Some(qos) = nic.qos else { continue };
            let (field, written) = (format!("networks[{index}].qos"), Written::Shape(index));
            parts.push(Part { field, value: qos.to_string(), written });
        }
    }
    for (index, disk) in body.usb_disks.iter().enumerate() {
        let field = format!("{}[{index}]", super::usb::FIELD);
        parts.push(Part { field, value: disk.path.clone(), written: Written::Usb(index) });
    }
    let tags: Vec<String> = body.config.tags().iter().map(|(key, value)| format!("{key}={value}")).collect();
    if !tags.is_empty() {
        parts.push(part("tags".into(), "tags", tags.join(", ")));
    }
    if !body.depends_on.is_empty() {
        let names: Vec<&str> = body.depends_on.iter().map(|d| d.value.as_str()).collect();
        let (field, value) = ("depends_on".into(), range::compress(&names));
        parts.push(Part { field, value, written: Written::Dependencies });
    }
    parts
}

impl Written {
    fn span(&self, body: &VmBody) -> Option<Span> {
        match self {
            Self::Key(key) => body.spans.get(key).copied(),
            Self::Nic(index) => Some(body.networks.get(*index)?.span),
            Self::Shape(index) => body.links.get(index).copied().or_else(|| Some(body.networks.get(*index)?.span)),
            Self::Usb(index) => Some(body.usb_disks.get(*index)?.span),
            Self::Dependencies => body.depends_on.first().map(|first| first.span),
        }
    }
}

/// The netspec that launches a NIC.
pub(super) fn netspec(nic: &Nic) -> NetSpec {
    NetSpec {
        bridge: nic.bridge.as_ref().map(ToString::to_string),
        vlan: nic.vlan.to_string(),
        mac: nic.mac.or(nic.assigned),
        driver: nic.driver.clone(),
        qinq: false,
        raw: String::new(),
    }
}

/// The `vm config` commands of a body: every field that differs from its default, its NICs and tags.
fn config(body: &VmBody, tags: &BTreeMap<String, String>) -> Vec<Vec<String>> {
    let mut config = body.config.clone();
    config.clear("tags");
    config.set("tags", FieldValue::Tags(tags.clone()));
    config.set("networks", FieldValue::Networks(body.networks.iter().map(|n| netspec(n)).collect()));
    let lists = config.changed().flat_map(|(field, value)| {
        field.arguments(value).into_iter().map(move |arguments| {
            // What 3.1.0 calls `disks` was `disk` before, and 3.1.0 takes that as its abbreviation.
            let name = if field.name == "disks" { "disk" } else { field.name };
            let words = ["vm", "config", name].map(str::to_owned);
            words.into_iter().chain(arguments).collect()
        })
    });
    lists.collect()
}

impl<'a> Classes<'a> {
    /// A class by its number.
    pub fn get(&self, class: usize) -> &Class<'a> {
        &self.classes[class]
    }

    /// What is to be observed of a VM of a class afterwards, with the media that change in place.
    pub fn goal(&mut self, class: usize, vm: &'a Vm, media: InPlace) -> Arc<Goal> {
        let (body, tags) = (&vm.body, &self.classes[class].tags);
        let goal = || {
            let ignores = |field: &str| body.lifecycle.ignores(field);
            let nic = |(index, nic): (usize, &crate::diagnostic::Spanned<Nic>)| {
                let bridge = nic.bridge.clone().unwrap_or_else(BridgeName::default_bridge);
                let place = if nic.connected { (nic.vlan.to_string(), bridge.to_string()) } else { Default::default() };
                (!ignores(&format!("networks[{index}]"))).then_some(place)
            };
            let user = |key: &str| key == ownership::KEYS || !key.starts_with(ownership::RESERVED);
            let kept = |key: &str| user(key) && (ignores("tags") || ignores(&format!("tags.{key}")));
            Arc::new(Goal::Vm {
                state: (!ignores("state")).then(|| body.state.word().to_owned()),
                networks: if ignores("networks") {
                    Vec::new()
                } else {
                    body.networks.iter().enumerate().map(nic).collect()
                },
                qos: if body.networks.iter().all(|nic| nic.qos.is_none()) {
                    Vec::new()
                } else {
                    let qos = |(index, nic): (usize, &crate::diagnostic::Spanned<Nic>)| {
                        let text = nic.qos.unwrap_or_default().to_string();
                        (!ignores(&format!("networks[{index}].qos"))).then_some(text)
                    };
                    body.networks.iter().enumerate().map(qos).collect()
                },
                cdrom: media.cdrom.then(|| body.config.text("cdrom")),
                usb: ((media.usb || !body.usb_disks.is_empty()) && !ignores(super::usb::FIELD)).then(|| {
                    let disks = body.usb_disks.iter();
                    disks.map(|disk| (disk.path.clone(), disk.version.clone().unwrap_or_default())).collect()
                }),
                tags: tags.iter().filter(|(key, _)| !kept(key)).map(|(k, v)| (k.clone(), v.clone())).collect(),
            })
        };
        self.goals.entry((class, media)).or_insert_with(goal).clone()
    }

    /// What a new VM of a class will be.
    pub fn parts(&mut self, scene: &Scene<'a>, class: usize, vm: &'a Vm) -> Vec<Reason> {
        // Bodies of one class say the same, each in its own place.
        let parts = self.parts.entry(class).or_insert_with(|| parts(&vm.body));
        let reason = |part: &Part| Reason {
            field: part.field.clone(),
            old: None,
            new: Some(part.value.clone()),
            place: part.written.span(&vm.body).and_then(|span| scene.place(span)),
            drift: false,
        };
        parts.iter().map(reason).collect()
    }

    /// The class of a VM.
    pub fn of(&mut self, scene: &Scene<'a>, draft: &mut Draft, vm: &'a Vm) -> usize {
        let body = Arc::as_ptr(&vm.body);
        let shared = is_shared(vm);
        if let Some(class) = self.by_body.get(&body).filter(|_| shared) {
            return *class;
        }
        let content = Content::of(&vm.body);
        if let Some(class) = self.by_content.get(&content).filter(|class| !self.classes[**class].bad) {
            let class = *class;
            if shared {
                self.by_body.insert(body, class);
            }
            return class;
        }
        let problems = draft.problems.len();
        let digest = ownership::digest(&vm.body);
        for key in vm.body.config.tags().into_keys().filter(|k| k.starts_with(ownership::RESERVED)) {
            let span = vm.body.spans.get("tags").copied().unwrap_or(vm.span);
            let message = format!("tag `{key}` begins with `{}`, which megaform keeps for itself", ownership::RESERVED);
            draft.problems.push(scene.problem("reserved-tag", Some(span), message, "choose another key".to_owned()));
        }
        let mut tags = ownership::tags(scene.name(), &vm.body, &digest);
        tags.extend(ownership::usb_tag(&vm.body).map(|tag| (ownership::USB.to_owned(), tag)));
        for nic in &vm.body.networks {
            let (wanted, read) = (netspec(nic), NetSpec::parse(&netspec(nic).to_string()));
            let parts = |s: &NetSpec| (s.bridge.clone(), s.vlan.clone(), s.mac, s.driver.clone(), s.qinq);
            if read.as_ref().map(parts).ok() != Some(parts(&wanted)) {
                let message = format!("netspec `{wanted}` would be read as something else by minimega");
                let hint = "rename the VLAN or bridge so that it is no NIC model, no MAC and not `qinq`".to_owned();
                draft.problems.push(scene.problem("ambiguous-netspec", Some(nic.span), message, hint));
            }
        }
        let config = config(&vm.body, &tags);
        let kind = vm.body.kind.word();
        let state = vm.body.state;
        let next = self.classes.len();
        let class = *self.by_content.entry(content).or_insert(next);
        if class == next {
            let depends_on = vm.body.depends_on.iter().map(|d| d.value.as_str()).collect::<BTreeSet<_>>();
            let depends_on = depends_on.into_iter().collect();
            let bad = draft.problems.len() > problems;
            self.classes.push(Class {
                kind,
                config,
                tags,
                digest,
                state,
                depends_on,
                body: &vm.body,
                matched: RefCell::default(),
                tagged: RefCell::default(),
                bad,
            });
        }
        self.by_body.insert(body, class);
        class
    }
}
