//! The prefix of an included file: on the names that it declares, and on its own references to them.

use std::collections::HashSet;
use std::sync::Arc;

use super::Sections;
use crate::spec::model::nic_of_vm;
use crate::spec::names::expand_names;
use crate::spec::syntax::{Node, SpannedKey, Value};

/// Which kind of names a key holds.
#[derive(Debug, Clone, Copy)]
enum Refers {
    /// One name, or a list of names, of a section.
    To(&'static str),
    /// VM names, which may have ranges.
    ToVms,
    /// NICs as VM and index, alone or before further words as in a lease, or names of taps.
    ToNics,
    /// NICs: names of VLANs, or maps in which `vlan` is one.
    Nics,
    /// A map in which `renamed_from` is a name that the file declared before.
    Lifecycle,
}

/// The keys of entries that hold names. A section with further such keys adds them here.
const REFERENCES: &[(&str, &str, Refers)] = &[
    ("vms", "profile", Refers::To("profiles")),
    ("vms", "depends_on", Refers::ToVms),
    ("vms", "networks", Refers::Nics),
    ("vms", "colocate", Refers::ToVms),
    ("vms", "lifecycle", Refers::Lifecycle),
    ("profiles", "profile", Refers::To("profiles")),
    ("profiles", "depends_on", Refers::ToVms),
    ("profiles", "networks", Refers::Nics),
    ("profiles", "colocate", Refers::ToVms),
    ("taps", "vlan", Refers::To("vlans")),
    ("nat", "vlan", Refers::To("vlans")),
    ("nat", "bridge", Refers::To("bridges")),
    ("links", "ends", Refers::ToNics),
    ("mirrors", "from", Refers::ToNics),
    ("mirrors", "to", Refers::ToNics),
    ("mirrors", "bridge", Refers::To("bridges")),
    ("captures", "vm", Refers::ToVms),
    ("captures", "bridge", Refers::To("bridges")),
    ("dnsmasq", "leases", Refers::ToNics),
    ("taps", "bridge", Refers::To("bridges")),
    // A name that is not declared may be a program, or a pipe of the includer.
    ("plumbing", "pipeline", Refers::To("pipes")),
    ("commands", "depends_on", Refers::ToVms),
];

/// The names that an included file declares.
struct Declared {
    sections: Vec<(&'static str, HashSet<Arc<str>>)>,
    /// VMs with ranges and counts expanded.
    vms: HashSet<String>,
}

impl Declared {
    fn has(&self, section: &str, name: &str) -> bool {
        self.sections.iter().any(|(other, names)| *other == section && names.contains(name))
    }
}

/// Put a prefix before every name that is declared, wherever it stands. Other names stay: they mean the includer's.
pub fn prefix(sections: &mut Sections, prefix: &str) {
    let names = |list: &[(SpannedKey, Node)]| list.iter().map(|(key, _)| key.text.clone()).collect();
    let mut declared = Declared {
        sections: sections.iter().map(|(section, list)| (*section, names(list))).collect(),
        vms: HashSet::new(),
    };
    for (key, node) in sections.get("vms").into_iter().flatten() {
        let count = match &node.value {
            Value::Map(map) => map.iter().find(|(key, _)| &*key.text == "count").map(|(_, node)| &node.value),
            _ => None,
        };
        match count {
            Some(Value::Int(count)) => {
                let count = usize::try_from(*count).unwrap_or(0).min(super::MAX_REPEAT);
                declared.vms.extend((0..count).map(|index| format!("{}{index}", key.text)));
            }
            _ => declared.vms.extend(expand_names(&key.text).unwrap_or_default()),
        }
    }
    for (section, list) in sections {
        let keys: Vec<(&str, Refers)> =
            REFERENCES.iter().filter(|(s, _, _)| s == section).map(|(_, key, refers)| (*key, *refers)).collect();
        for (key, node) in list {
            key.text = Arc::from(format!("{prefix}{}", key.text));
            let Value::Map(map) = &node.value else { continue };
            let refers = |key: &SpannedKey| {
                let name = key.text.replace('-', "_");
                keys.iter().find(|(key, _)| *key == name).map(|(_, refers)| *refers)
            };
            if !map.iter().any(|(key, _)| refers(key).is_some()) {
                continue;
            }
            let entries = map
                .iter()
                .map(|(key, value)| match refers(key) {
                    Some(refers) => (key.clone(), renamed(value, refers, &declared, prefix)),
                    None => (key.clone(), value.clone()),
                })
                .collect();
            node.value = Value::Map(Arc::new(entries));
        }
    }
}

fn renamed(node: &Node, refers: Refers, declared: &Declared, prefix: &str) -> Node {
    let value = match &node.value {
        Value::List(list) => {
            let items = list.iter().flat_map(|item| match refers {
                Refers::ToVms => vm_names(item, declared, prefix),
                _ => vec![renamed(item, refers, declared, prefix)],
            });
            Value::List(Arc::new(items.collect()))
        }
        Value::String(text) => match refers {
            Refers::To(section) if declared.has(section, text) => prefixed(text, prefix),
            Refers::Nics if declared.has("vlans", text) => prefixed(text, prefix),
            Refers::ToNics
                if nic_of_vm(text.split(' ').next().unwrap_or_default())
                    .is_some_and(|(vm, _)| declared.vms.contains(vm))
                    || declared.has("taps", text) =>
            {
                prefixed(text, prefix)
            }
            Refers::ToVms => match vm_names(node, declared, prefix).as_slice() {
                [one] => one.value.clone(),
                several => Value::List(Arc::new(several.to_vec())),
            },
            _ => return node.clone(),
        },
        Value::Map(map) if matches!(refers, Refers::ToNics) => {
            let entries = map
                .iter()
                .map(|(key, value)| match &*key.text {
                    "vm" => (key.clone(), renamed(value, Refers::ToVms, declared, prefix)),
                    _ => (key.clone(), value.clone()),
                })
                .collect();
            Value::Map(Arc::new(entries))
        }
        Value::Map(map) if matches!(refers, Refers::Lifecycle) => {
            let entries = map.iter().map(|(key, value)| match (key.text.replace('-', "_").as_str(), &value.value) {
                ("renamed_from", Value::String(old)) => {
                    (key.clone(), Node { value: prefixed(old, prefix), span: value.span })
                }
                _ => (key.clone(), value.clone()),
            });
            Value::Map(Arc::new(entries.collect()))
        }
        Value::Map(map) if matches!(refers, Refers::Nics) => {
            let entries = map
                .iter()
                .map(|(key, value)| match &*key.text {
                    "vlan" => (key.clone(), renamed(value, Refers::To("vlans"), declared, prefix)),
                    "bridge" => (key.clone(), renamed(value, Refers::To("bridges"), declared, prefix)),
                    _ => (key.clone(), value.clone()),
                })
                .collect();
            Value::Map(Arc::new(entries))
        }
        _ => return node.clone(),
    };
    Node { value, span: node.span }
}

fn prefixed(text: &str, prefix: &str) -> Value {
    Value::String(Arc::from(format!("{prefix}{text}")))
}

/// A name with ranges: prefixed if all of it is declared, as it is if nothing is, and otherwise name by name.
fn vm_names(node: &Node, declared: &Declared, prefix: &str) -> Vec<Node> {
    let Value::String(text) = &node.value else { return vec![node.clone()] };
    let names = expand_names(text).unwrap_or_default();
    let own = names.iter().filter(|name| declared.vms.contains(*name)).count();
    if own == 0 {
        return vec![node.clone()];
    }
    if own == names.len() {
        return vec![Node { value: prefixed(text, prefix), span: node.span }];
    }
    let one = |name: &String| {
        let value = match declared.vms.contains(name) {
            true => prefixed(name, prefix),
            false => Value::String(Arc::from(name.as_str())),
        };
        Node { value, span: node.span }
    };
    names.iter().map(one).collect()
}
