//! What no entry shows alone: references to what is not there, and what two entries cannot both have.

mod bonds;
mod commands;
mod conflicts;
mod gateways;
pub mod machine;
mod objects;
mod pipes;
mod placement;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};

use super::decode::Draft;
use super::model::{RunState, VlanRef, VmBody};
use super::suggest::Suggester;
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::name::{VlanAlias, VmName};

/// Check a draft; it may lack what was refused before.
pub fn validate(draft: &Draft) -> Vec<Diagnostic> {
    let mut checks = Checks {
        draft,
        suggester: Suggester::default(),
        said: HashSet::new(),
        used_vlans: HashSet::new(),
        diagnostics: Vec::new(),
    };
    let bodies = checks.bodies();
    checks.vlans();
    for (name, _, body) in &bodies {
        checks.networks(body);
        checks.dependencies(name, body);
        checks.kernel(body);
        checks.usb(body);
    }
    for body in &bodies {
        checks.topology(body.0, body);
    }
    checks.addresses(&bodies);
    checks.disks(&bodies);
    checks.placement();
    checks.renames();
    checks.taps();
    checks.objects();
    checks.commands();
    checks.subnets();
    checks.unused();
    checks.diagnostics
}

/// One entry's VMs: the first name, the place of the key, what they share.
type Body<'d> = (&'d VmName, Span, &'d VmBody);

struct Checks<'d> {
    draft: &'d Draft,
    suggester: Suggester,
    /// Places about which something was said, so that a profile's mistake is said once.
    said: HashSet<(&'static str, Span)>,
    used_vlans: HashSet<&'d VlanAlias>,
    diagnostics: Vec<Diagnostic>,
}

impl<'d> Checks<'d> {
    fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.span.is_none_or(|span| self.said.insert((diagnostic.code, span))) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// Every body once, however many VMs share it, in the order of the file.
    fn bodies(&self) -> Vec<Body<'d>> {
        let mut seen = HashSet::new();
        let vms = self.draft.vms.iter().filter(|(_, vm)| seen.insert(Arc::as_ptr(&vm.body)));
        let mut bodies: Vec<Body<'d>> = vms.map(|(name, vm)| (name, vm.span, &*vm.body)).collect();
        bodies.sort_by_key(|(_, span, _)| *span);
        bodies
    }

    fn vlans(&mut self) {
        let mut vlans: Vec<_> = self.draft.vlans.iter().collect();
        vlans.sort_by_key(|(_, vlan)| vlan.span);
        let mut tags: BTreeMap<_, (&VlanAlias, Span)> = BTreeMap::new();
        for (alias, vlan) in vlans {
            let Some(tag) = &vlan.tag else { continue };
            match tags.get(&tag.value) {
                Some((other, first)) => {
                    let diagnostic = Diagnostic::error(
                        "duplicate-tag",
                        tag.span,
                        format!("the VLANs `{other}` and `{alias}` have the same tag {}", tag.value),
                    )
                    .other(*first, "first given here")
                    .hint("change one, or leave it out to have a free tag given");
                    self.push(diagnostic);
                }
                None => {
                    tags.insert(tag.value, (alias, tag.span));
                }
            }
        }
        for (tag, (alias, span)) in &tags {
            let Some(blacklisted) = self.draft.vlan_blacklist.get(tag) else { continue };
            let message = format!("the VLAN `{alias}` has the tag {tag}, which is blacklisted");
            let diagnostic = Diagnostic::error("vlan-blacklist", *span, message)
                .label(*blacklisted, "blacklisted here")
                .hint("give the VLAN another tag, or take the tag off `vlan_blacklist`");
            self.push(diagnostic);
        }
        if let Some(range) = &self.draft.vlan_range {
            let (low, high) = range.value;
            let blacklisted = self.draft.vlan_blacklist.range(low..=high).map(|(tag, _)| tag);
            let taken = blacklisted.chain(tags.range(low..=high).map(|(tag, _)| tag)).collect::<BTreeSet<_>>().len();
            let room = usize::from(high.get() - low.get()) + 1 - taken;
            let needed = self.draft.vlans.values().filter(|vlan| vlan.tag.is_none()).count();
            if needed > room {
                let diagnostic = Diagnostic::error(
                    "vlan-range",
                    range.span,
                    format!("the range has {room} free tags, and {needed} VLANs need one"),
                )
                .hint("widen the range, or give VLANs fixed tags outside it");
                self.push(diagnostic);
            }
        }
    }

    fn vlan(&mut self, vlan: &'d VlanRef, span: Span) {
        if let VlanRef::Alias(alias) = vlan {
            self.alias(alias.as_str(), span);
        }
    }

    fn alias(&mut self, alias: &str, span: Span) {
        let draft = self.draft;
        if let Some((known, _)) = draft.vlans.get_key_value(alias) {
            self.used_vlans.insert(known);
            return;
        }
        let hint = match self.suggester.nearest(alias, draft.vlans.keys().map(VlanAlias::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("add it to `vlans`: `{alias}: {{}}`"),
        };
        self.push(Diagnostic::error("unknown-vlan", span, format!("there is no VLAN `{alias}`")).hint(hint));
    }

    fn networks(&mut self, body: &'d VmBody) {
        for nic in &body.networks {
            self.vlan(&nic.vlan, nic.place("vlan"));
        }
    }

    fn dependencies(&mut self, name: &VmName, body: &'d VmBody) {
        let draft = self.draft;
        if let Some(wait) = body.wait_for.as_ref().filter(|_| body.state == RunState::Paused) {
            let mut diagnostic =
                Diagnostic::error("wait-for-paused", wait.span, format!("`{name}` is to be paused and is waited for"))
                    .hint("nothing is seen of a guest that does not run: remove `wait_for`, or `state: paused`");
            if let Some(state) = body.spans.get("state") {
                diagnostic = diagnostic.label(*state, "paused here");
            }
            self.push(diagnostic);
        }
        let ports = body.config.uint("serial-ports");
        for serial in body.wait_for.iter().flat_map(|wait| &wait.serial).filter(|serial| serial.port >= ports) {
            let has = match ports {
                0 => "has none".to_owned(),
                1 => "has one, port 0".to_owned(),
                ports => format!("has {ports}, the last one is port {}", ports - 1),
            };
            let message = format!("a text is awaited on serial port {} of `{name}`, which {has}", serial.port);
            let mut diagnostic = Diagnostic::error("no-serial-port", serial.span, message)
                .hint(format!("give the VM `serial_ports: {}`", serial.port + 1));
            if let Some(given) = body.spans.get("serial-ports") {
                diagnostic = diagnostic.label(*given, "given here");
            }
            self.push(diagnostic);
        }
        let beside = body.config.text("colocate");
        if let Some(span) = body.spans.get("colocate")
            && !(draft.partial || beside.is_empty() || draft.vms.contains_key(beside.as_str()))
        {
            let hint = match self.suggester.nearest(&beside, draft.vms.keys().map(VmName::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "name a VM of the experiment, unless another one of the namespace is meant".to_owned(),
            };
            let message = format!(
                "`{name}` is to be on the host of `{}`, which the file does not have",
                crate::spec::shown(&beside)
            );
            self.push(Diagnostic::warning("unknown-colocate", *span, message).hint(hint));
        }
        for other in &body.depends_on {
            match draft.vms.get(&other.value) {
                Some(vm) if std::ptr::eq(&*vm.body, body) => {
                    let diagnostic = Diagnostic::error(
                        "self-dependency",
                        other.span,
                        format!("the VM `{}` depends on itself", other.value),
                    )
                    .label(vm.span, format!("`{}` comes from here", other.value))
                    .hint("remove it from `depends_on`; VMs of one entry cannot depend on each other");
                    self.push(diagnostic);
                }
                Some(_) => {}
                None => {
                    let numbered = VmName::new(&format!("{}0", other.value));
                    let hint = if numbered.is_ok_and(|n| draft.vms.contains_key(&n)) {
                        format!("write the numbered names, as in `{}[0-1]`", other.value)
                    } else {
                        match self.suggester.nearest(other.as_str(), draft.vms.keys().map(VmName::as_str)) {
                            Some(known) => format!("did you mean `{known}`?"),
                            None => format!("add `{}` to `vms`, or remove it here", other.value),
                        }
                    };
                    let message = format!("the VM `{name}` depends on `{}`, which does not exist", other.value);
                    self.push(Diagnostic::error("unknown-vm", other.span, message).hint(hint));
                }
            }
        }
    }

    /// A former name is nobody's name now, and was one VM's.
    fn renames(&mut self) {
        let draft = self.draft;
        let mut taken: HashMap<&VmName, &VmName> = HashMap::new();
        for (name, vm) in &draft.vms {
            let Some(old) = &vm.renamed_from else { continue };
            if let Some(other) = draft.vms.get(&old.value) {
                let message = format!("`{name}` is renamed from `{}`, which the file has too", old.value);
                let diagnostic = Diagnostic::error("renamed-from-declared", old.span, message)
                    .label(other.span, format!("`{}` comes from here", old.value))
                    .hint("remove `renamed_from`, or the VM of the old name");
                self.push(diagnostic);
            } else if let Some(other) = taken.insert(&old.value, name) {
                let message = format!("`{other}` and `{name}` are both renamed from `{}`", old.value);
                let first = draft.vms[other].renamed_from.as_ref().map_or(old.span, |first| first.span);
                let diagnostic = Diagnostic::error("renamed-twice", old.span, message);
                self.push(diagnostic.other(first, "the other").hint("only one of them can be"));
            }
        }
    }

    fn kernel(&mut self, body: &VmBody) {
        let set = |name: &str| body.config.is_set(name);
        if set("kernel") {
            return;
        }
        for name in ["append", "initrd"] {
            if let (true, Some(span)) = (set(name), body.spans.get(name)) {
                self.push(
                    Diagnostic::error("needs-kernel", *span, format!("`{name}` is given without a `kernel`"))
                        .hint("only a kernel that QEMU boots directly takes it: add `kernel`, or remove this"),
                );
            }
        }
    }

    fn addresses(&mut self, bodies: &[Body<'d>]) {
        let macs = bodies.iter().flat_map(|(name, _, body)| {
            body.networks.iter().filter_map(move |nic| Some((nic.mac?, *name, nic.place("mac"))))
        });
        self.unique(
            macs,
            "duplicate-mac",
            "MAC address",
            "give each NIC its own, or leave `mac` out to have one assigned",
        );
        let uuids = bodies.iter().filter_map(|(name, _, body)| {
            let set = body.config.is_set("uuid");
            set.then(|| Some((body.config.text("uuid"), *name, *body.spans.get("uuid")?))).flatten()
        });
        self.unique(uuids, "duplicate-uuid", "UUID", "give each VM its own, or leave `uuid` out to have one assigned");
    }

    /// Each value may be given once.
    fn unique<T: Hash + Eq + std::fmt::Display>(
        &mut self,
        values: impl Iterator<Item = (T, &'d VmName, Span)>,
        code: &'static str,
        what: &str,
        hint: &str,
    ) {
        let mut first: HashMap<T, (&VmName, Span)> = HashMap::new();
        for (value, name, span) in values {
            let Some((other, place)) = first.get(&value) else {
                first.insert(value, (name, span));
                continue;
            };
            let who =
                if *other == name { format!("twice to `{name}`") } else { format!("to `{other}` and to `{name}`") };
            let message = format!("the {what} {value} is given {who}");
            self.push(Diagnostic::error(code, span, message).other(*place, "first given here").hint(hint));
        }
    }

    fn taps(&mut self) {
        let mut taps: Vec<_> = self.draft.taps.iter().collect();
        taps.sort_by_key(|(_, tap)| tap.span);
        let mut addresses = HashMap::new();
        for (name, tap) in taps {
            self.vlan(&tap.vlan, tap.vlan.span);
            let Some(Spanned { value: (address, _), span }) = &tap.ip else { continue };
            match addresses.get(address) {
                Some((other, first)) => {
                    let message = format!("the taps `{other}` and `{name}` have the same address {address}");
                    self.push(
                        Diagnostic::error("duplicate-ip", *span, message)
                            .other(*first, "first given here")
                            .hint("give each tap its own"),
                    );
                }
                None => {
                    addresses.insert(address, (name, *span));
                }
            }
        }
    }

    fn unused(&mut self) {
        for profile in &self.draft.unused_profiles {
            self.push(
                Diagnostic::warning(
                    "unused-profile",
                    profile.span,
                    format!("no VM uses the profile `{}`", profile.value),
                )
                .hint("remove it, or name it in a `profile` key"),
            );
        }
        if self.draft.partial {
            return;
        }
        let draft = self.draft;
        for (alias, vlan) in
            draft.vlans.iter().filter(|(alias, _)| !self.used_vlans.contains(alias)).collect::<Vec<_>>()
        {
            self.push(
                Diagnostic::warning("unused-vlan", vlan.span, format!("no NIC and no tap is on the VLAN `{alias}`"))
                    .hint("remove it, or name it in `networks` or `taps`"),
            );
        }
        self.lonely();
    }
}
