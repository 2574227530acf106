//! What shapes a NIC, and links, which shape two.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::language::qos::{Qos, QosError};
use crate::name::{ObjectName, VmName};
use crate::spec::model::Vm;
use crate::spec::section::Entries;
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

/// One end of a link: a VM and the index of its NIC.
pub(super) type End = Spanned<(VmName, usize)>;

/// A link as it is written.
pub(super) struct Link {
    span: Span,
    ends: [End; 2],
    /// From the first end to the second.
    up: Qos,
    /// From the second end to the first.
    down: Qos,
}

impl Decoder<'_> {
    /// What shapes a NIC; None for a map without settings too.
    pub(super) fn qos(&mut self, node: &Node, at: At<'_>) -> Option<Qos> {
        let owner = at.to_string();
        let entries = self.section(node, &owner, &keys::names(keys::QOS))?;
        let qos = self.qos_settings(&entries, &owner);
        self.jitter_needs_delay(&qos, node.span, &owner);
        Some(qos).filter(|qos| !qos.is_none())
    }

    fn qos_settings(&mut self, entries: &Entries<'_>, owner: &str) -> Qos {
        let mut qos = Qos::default();
        for (key, _, node) in entries.iter().filter(|(key, ..)| crate::language::qos::SETTINGS.contains(key)) {
            let at = At { key, owner };
            let text = match &node.value {
                Value::String(text) => text.to_string(),
                Value::Int(_) | Value::Float(_) => self.written(node).into_owned(),
                _ => {
                    let expected = if *key == "loss" {
                        "a percentage such as 0.1"
                    } else {
                        "text such as \"10 mbit\" or \"20 ms\""
                    };
                    self.wrong_type(node, at, expected, false);
                    continue;
                }
            };
            if let Err(error) = qos.set(key, &text) {
                let (code, hint) = match &error {
                    QosError::Range { .. } => ("out-of-range", "choose a value within the range".to_owned()),
                    QosError::Form { .. } | QosError::Unknown { .. } => match *key {
                        "rate" => ("invalid-value", "write a number and kbit, mbit or gbit".to_owned()),
                        "loss" => ("invalid-value", "write the percentage as a number".to_owned()),
                        _ => ("invalid-value", "write a number and us, ms or s".to_owned()),
                    },
                };
                self.push(Diagnostic::error(code, node.span, format!("{owner}: {error}")).hint(hint));
            }
        }
        qos
    }

    fn jitter_needs_delay(&mut self, qos: &Qos, span: Span, owner: &str) {
        let Some(jitter) = qos.jitter else { return };
        match qos.delay {
            None => self.push(
                Diagnostic::error("qos-jitter", span, format!("{owner} has a jitter and no delay"))
                    .hint("jitter varies a delay: add `delay`, or remove `jitter`"),
            ),
            Some(delay) if jitter > delay => self.push(
                Diagnostic::error("qos-jitter", span, format!("{owner} has a jitter that is longer than its delay"))
                    .hint("a packet cannot arrive before it was sent: make `jitter` at most `delay`"),
            ),
            Some(_) => {}
        }
    }

    /// A NIC as VM and index.
    pub(super) fn nic_of_vm(&mut self, node: &Node, at: At<'_>) -> Option<End> {
        let hint = "write the VM and the index of its NIC, from 0, as in `web.0`";
        let text = match &node.value {
            Value::String(text) => text.to_string(),
            _ => {
                self.wrong_type(node, at, "a VM and the index of its NIC, such as web.0", false);
                return None;
            }
        };
        let parts = text.rsplit_once('.');
        let Some((vm, index)) = parts.and_then(|(vm, index)| Some((vm, index.parse::<u8>().ok()?))) else {
            let message = format!("{at} is `{}`, expected a NIC of a VM", shown(&text));
            self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
            return None;
        };
        match VmName::new(vm) {
            Ok(vm) => Some(Spanned::new((vm, usize::from(index)), node.span)),
            Err(error) => {
                self.bad_name(node.span, &error);
                None
            }
        }
    }

    pub(super) fn links(&mut self, node: &Node) -> BTreeMap<ObjectName, Link> {
        let mut links = BTreeMap::new();
        for (key, value) in self.named(node, "`links`") {
            let owner = format!("link `{}`", shown(&key.text));
            let name = ObjectName::new(&key.text).map_err(|error| self.bad_name(key.span, &error)).ok();
            let Some(entries) = self.section(value, &owner, &keys::names(keys::LINK)) else { continue };
            self.require(&entries, keys::LINK, key.span, &owner);
            let both = self.qos_settings(&entries, &owner);
            let (mut ends, mut up, mut down) = (None, both, both);
            for (key, _, node) in &entries {
                let at = At { key, owner: &owner };
                match *key {
                    "ends" => ends = self.link_ends(node, at),
                    "up" => up = self.qos(node, at).unwrap_or_default().over(both),
                    "down" => down = self.qos(node, at).unwrap_or_default().over(both),
                    _ => {}
                }
            }
            self.jitter_needs_delay(&both, key.span, &owner);
            if up.is_none() && down.is_none() {
                self.push(
                    Diagnostic::warning("link-unshaped", key.span, format!("{owner} shapes nothing")).hint(
                        "give it a rate, delay or loss, or remove it: two NICs on one VLAN reach each other anyway",
                    ),
                );
            }
            if let (Some(name), Some(ends)) = (name, ends) {
                links.insert(name, Link { span: key.span, ends, up, down });
            }
        }
        links
    }

    fn link_ends(&mut self, node: &Node, at: At<'_>) -> Option<[End; 2]> {
        let Value::List(list) = &node.value else {
            self.wrong_type(node, at, "a list of two NICs such as [web.0, db.0]", false);
            return None;
        };
        let [first, second] = list.as_slice() else {
            let message = format!("{at} has {} NICs, expected two", list.len());
            let hint = "a link has two ends, as in [web.0, db.0]; write one link for each pair";
            self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
            return None;
        };
        let (first, second) = (self.nic_of_vm(first, at), self.nic_of_vm(second, at));
        Some([first?, second?])
    }

    /// Put what links shape on the NICs at their ends: each direction on the end that receives it.
    pub(super) fn apply_links(&mut self, links: &BTreeMap<ObjectName, Link>, vms: &mut BTreeMap<VmName, Vm>) {
        // In the order of the file, so that the second of two that clash is the one that is refused.
        let mut ordered: Vec<_> = links.iter().collect();
        ordered.sort_by_key(|(_, link)| link.span);
        let mut linked: BTreeMap<&(VmName, usize), &ObjectName> = BTreeMap::new();
        for (name, link) in ordered {
            let [first, second] = &link.ends;
            if first.value == second.value {
                let message = format!("link `{name}` has the same NIC at both ends");
                self.push(Diagnostic::error("link-ends", second.span, message).hint("give two NICs"));
                continue;
            }
            let known: Vec<bool> =
                link.ends.iter().map(|end| self.nic_exists(end, vms, &format!("link `{name}`"))).collect();
            if known.contains(&false) {
                continue;
            }
            let nic = |end: &End| vms[&end.value.0].body.networks[end.value.1].clone();
            let (a, b) = (nic(first), nic(second));
            if (&a.vlan, &a.bridge) != (&b.vlan, &b.bridge) {
                let at = |nic: &crate::spec::model::Nic| match &nic.bridge {
                    Some(bridge) => format!("{} of bridge {bridge}", nic.vlan),
                    None => nic.vlan.to_string(),
                };
                let message = format!("the ends of link `{name}` are on different VLANs: {} and {}", at(&a), at(&b));
                let diagnostic = Diagnostic::error("link-ends", second.span, message)
                    .label(a.span, "the first end's NIC")
                    .label(b.span, "the second end's NIC")
                    .hint("put both on one VLAN; a VLAN with these two NICs alone is a point-to-point link");
                self.push(diagnostic);
                continue;
            }
            for (end, qos) in [(second, link.up), (first, link.down)] {
                let (vm, index) = &end.value;
                let body = Arc::make_mut(&mut vms.get_mut(vm).expect("it was looked up").body);
                let by =
                    |other: &str| format!("NIC {index} of `{vm}` is shaped twice, by link `{name}` and by {other}");
                let other = match (linked.get(&end.value), body.networks[*index].qos) {
                    (Some(other), _) => {
                        Some((by(&format!("link `{other}`")), links[*other].span, "the other link".to_owned()))
                    }
                    (None, Some(_)) => Some((by("a qos of its own"), body.networks[*index].span, "the NIC".to_owned())),
                    (None, None) => None,
                };
                if let Some((message, span, what)) = other {
                    let diagnostic = Diagnostic::error("link-conflict", end.span, message)
                        .other(span, what)
                        .hint("an interface has one shape: keep one of the two, or use a NIC for each link");
                    self.push(diagnostic);
                    continue;
                }
                body.links.insert(*index, link.span);
                linked.insert(&end.value, name);
                body.networks[*index].value.qos = Some(qos).filter(|qos| !qos.is_none());
            }
        }
    }

    /// Whether there is such a VM with such a NIC; reports it if not.
    pub(super) fn nic_exists(&mut self, end: &End, vms: &BTreeMap<VmName, Vm>, who: &str) -> bool {
        let (name, index) = &end.value;
        let Some(vm) = vms.get(name) else {
            let hint = match self.suggester.nearest(name.as_str(), vms.keys().map(VmName::as_str)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("add `{name}` to `vms`, or remove it here"),
            };
            let message = format!("{who} names the VM `{name}`, which does not exist");
            self.push(Diagnostic::error("unknown-vm", end.span, message).hint(hint));
            return false;
        };
        let count = vm.body.networks.len();
        if *index >= count {
            let message = format!("{who} names NIC {index} of `{name}`, which has {count}");
            let hint = match count {
                0 => "give the VM NICs with `networks`".to_owned(),
                1 => "NICs are counted from 0; the VM has NIC 0 only".to_owned(),
                n => format!("NICs are counted from 0; the VM has NICs 0 to {}", n - 1),
            };
            self.push(Diagnostic::error("unknown-nic", end.span, message).label(vm.span, "the VM").hint(hint));
            return false;
        }
        true
    }
}
