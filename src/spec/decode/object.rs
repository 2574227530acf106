//! Objects that are sets of settings: one table of kinds, and what is common to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::lifecycle::Holder;
use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::name::{BridgeName, Kind, NameError, ObjectName};
use crate::spec::keys::{self, Key};
use crate::spec::model::{Lifecycle, Object};
use crate::spec::shown;
use crate::spec::syntax::{Node, Value};

mod bridge;
mod capture;
mod dnsmasq;
mod mirror;
mod nat;
mod pipe;
mod plumbing;

pub use dnsmasq::assigned_mac;

/// The values of one setting; None where they were refused.
pub(super) type Values = Option<Vec<Spanned<String>>>;

/// What the decoder must know of a kind.
pub(super) struct ObjectKind {
    pub kind: Kind,
    /// The section of the file.
    pub section: &'static str,
    pub keys: &'static [Key],
    name: fn(&str) -> Result<String, NameError>,
    /// Read the value of a key.
    read: fn(&mut Decoder<'_>, &Node, At<'_>) -> Values,
    /// Check what the keys come to together.
    complete: fn(&mut Decoder<'_>, &str, &mut Object),
}

fn object_name(text: &str) -> Result<String, NameError> {
    ObjectName::new(text).map(|name| name.to_string())
}

/// Every kind that is a set of settings.
pub(super) static KINDS: &[ObjectKind] = &[
    ObjectKind {
        kind: Kind::Bridge,
        section: "bridges",
        keys: keys::BRIDGE,
        name: |text| BridgeName::new(text).map(|name| name.to_string()),
        read: bridge::read,
        complete: |_, _, _| {},
    },
    ObjectKind {
        kind: Kind::Nat,
        section: "nat",
        keys: keys::NAT,
        name: object_name,
        read: nat::read,
        complete: |_, _, _| {},
    },
    ObjectKind {
        kind: Kind::Dnsmasq,
        section: "dnsmasq",
        keys: keys::DNSMASQ,
        name: object_name,
        read: dnsmasq::read,
        complete: |_, _, _| {},
    },
    ObjectKind {
        kind: Kind::Mirror,
        section: "mirrors",
        keys: keys::MIRROR,
        name: object_name,
        read: mirror::read,
        complete: mirror::complete,
    },
    ObjectKind {
        kind: Kind::Capture,
        section: "captures",
        keys: keys::CAPTURE,
        name: object_name,
        read: capture::read,
        complete: capture::complete,
    },
    ObjectKind {
        kind: Kind::Pipe,
        section: "pipes",
        keys: keys::PIPE,
        name: object_name,
        read: pipe::read,
        complete: |_, _, _| {},
    },
    ObjectKind {
        kind: Kind::Plumbing,
        section: "plumbing",
        keys: keys::PLUMBING,
        name: object_name,
        read: plumbing::read,
        complete: |_, _, _| {},
    },
];

impl Decoder<'_> {
    pub(super) fn objects(&mut self, node: &Node, kind: &ObjectKind) -> BTreeMap<String, Object> {
        let mut objects = BTreeMap::new();
        for (key, value) in self.named(node, &format!("`{}`", kind.section)) {
            let owner = format!("{} `{}`", kind.kind, shown(&key.text));
            let name = (kind.name)(&key.text).map_err(|error| self.bad_name(key.span, &error)).ok();
            // A bridge without settings is still a bridge, and a pipe is one.
            let entries = match value.value {
                Value::Null if matches!(kind.kind, Kind::Bridge | Kind::Pipe) => Vec::new(),
                _ => match self.section(value, &owner, &keys::names(kind.keys)) {
                    Some(entries) => entries,
                    None => continue,
                },
            };
            self.require(&entries, kind.keys, key.span, &owner);
            let before = self.errors;
            let mut object = Object { span: key.span, settings: BTreeMap::new(), lifecycle: Lifecycle::default() };
            for (key, _, node) in entries {
                let at = At { key, owner: &owner };
                if key == "lifecycle" {
                    object.lifecycle = self.lifecycle(node, at, Holder::Object(kind.keys)).lifecycle;
                } else if let Some(values) = (kind.read)(self, node, at).filter(|values| !values.is_empty()) {
                    object.settings.insert(key, values);
                }
            }
            if self.errors == before {
                (kind.complete)(self, &owner, &mut object);
            }
            if let Some(name) = name {
                objects.insert(name, object);
            }
        }
        objects
    }

    /// Items of a list, each read alone; one may stand without the list. Sorted where the order says nothing.
    fn items(
        &mut self,
        node: &Node,
        at: At<'_>,
        mut read: impl FnMut(&mut Self, &Node, At<'_>) -> Option<String>,
    ) -> Values {
        let one;
        let items: &[Node] = match &node.value {
            Value::List(list) => list,
            _ => {
                one = [node.clone()];
                &one
            }
        };
        let values: Vec<Option<Spanned<String>>> =
            items.iter().map(|item| read(self, item, at).map(|text| Spanned::new(text, item.span))).collect();
        values.into_iter().collect()
    }

    /// Items whose order says nothing, each once.
    pub(super) fn set_of(
        &mut self,
        node: &Node,
        at: At<'_>,
        read: impl FnMut(&mut Self, &Node, At<'_>) -> Option<String>,
    ) -> Values {
        let mut values = self.items(node, at, read)?;
        values.sort_by(|a, b| a.value.cmp(&b.value).then(a.span.cmp(&b.span)));
        for pair in values.windows(2).filter(|pair| pair[0].value == pair[1].value) {
            let message = format!("{at} has `{}` twice", shown(&pair[1].value));
            self.push(
                Diagnostic::error("duplicate-item", pair[1].span, message)
                    .other(pair[0].span, "first given here")
                    .hint("remove one of the two"),
            );
        }
        values.dedup_by(|a, b| a.value == b.value);
        Some(values)
    }

    fn one(value: Option<String>, node: &Node) -> Values {
        value.map(|text| vec![Spanned::new(text, node.span)])
    }

    fn nonempty(&mut self, node: &Node, at: At<'_>) -> Option<String> {
        let text = self.text(node, at)?;
        if text.trim().is_empty() {
            self.push(
                Diagnostic::error("invalid-value", node.span, format!("{at} is empty"))
                    .hint("give a value, or remove it"),
            );
            return None;
        }
        Some(text)
    }

    /// An address without a prefix length.
    fn address(&mut self, node: &Node, at: At<'_>, only_ipv4: bool) -> Option<String> {
        let text = self.text(node, at)?;
        let expected = if only_ipv4 { "an IPv4 address such as 10.0.0.1" } else { "an address such as 10.0.0.1" };
        match text.parse::<IpAddr>() {
            Ok(address) if !only_ipv4 || address.is_ipv4() => Some(address.to_string()),
            _ => {
                let hint = match text.split_once('/') {
                    Some((address, _)) if address.parse::<IpAddr>().is_ok() => {
                        format!("write {address}, without a prefix length")
                    }
                    _ => format!("write {expected}"),
                };
                let message = format!("{at} is `{}`, expected {expected}", shown(&text));
                self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
                None
            }
        }
    }

    fn exclusive(&mut self, owner: &str, object: &Object, first: &str, second: &str) {
        if object.settings.contains_key(first) && object.settings.contains_key(second) {
            let message = format!("{owner} has both `{first}` and `{second}`");
            let diagnostic = Diagnostic::error("exclusive-keys", object.place(second), message)
                .label(object.place(first), format!("`{first}` is here"))
                .hint("keep one of the two");
            self.push(diagnostic);
        }
    }

    /// Refuse keys that mean nothing for what the object is.
    fn only_for(&mut self, owner: &str, object: &Object, keys: &[&str], what: &str) {
        for key in keys.iter().filter(|key| object.settings.contains_key(**key)) {
            let message = format!("`{key}` of {owner} is for {what} only");
            self.push(Diagnostic::error("exclusive-keys", object.place(key), message).hint("remove it"));
        }
    }
}
