//! `placement`: the hosts of the namespace and how one is chosen. Each key becomes an object of its own, so that each can be
//! planned, chosen and left out by itself.

use std::collections::BTreeMap;

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::language::range;
use crate::spec::model::{Lifecycle, Object};
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

/// The figures by which a host is chosen.
const LOADS: &[&str] = &["cpucommit", "netcommit", "memcommit"];
/// No list of hosts is longer.
const MAX_HOSTS: usize = 10_000;

impl Decoder<'_> {
    pub(super) fn placement(&mut self, node: &Node) -> BTreeMap<String, Object> {
        let owner = "`placement`";
        let mut objects = BTreeMap::new();
        for (key, key_span, node) in self.section(node, owner, &keys::names(keys::PLACEMENT)).unwrap_or_default() {
            let at = At { key, owner: "" };
            let values = match key {
                "hosts" => self.hosts(node, at),
                "load" => self.one_of(node, at, LOADS).map(|word| vec![Spanned::new(word, node.span)]),
                "queueing" => self.bool(node, at).map(|on| vec![Spanned::new(on.to_string(), node.span)]),
                other => unreachable!("`{other}` is not in the table of placement keys"),
            };
            let Some(values) = values else { continue };
            let settings = BTreeMap::from([(key, values)]);
            objects.insert(key.to_owned(), Object { span: key_span, settings, lifecycle: Lifecycle::default() });
        }
        objects
    }

    /// Hosts, ranges expanded, in natural order.
    fn hosts(&mut self, node: &Node, at: At<'_>) -> Option<Vec<Spanned<String>>> {
        let items = match &node.value {
            Value::List(list) => list.as_slice(),
            Value::String(_) => std::slice::from_ref(node),
            _ => {
                self.wrong_type(node, at, "a list of hosts such as `[node1, node2]`", false);
                return None;
            }
        };
        let before = self.diagnostics.len();
        let mut hosts: Vec<Spanned<String>> = Vec::new();
        for item in items {
            let Some(text) = self.text(item, at) else { continue };
            let names = match range::expand(&text) {
                Ok(names) if !names.is_empty() => names,
                Ok(_) => {
                    let message = format!("{at} has `{}`, which stands for no host", shown(&text));
                    let hint = "the low end of a range comes first, as in `node[1-4]`";
                    self.push(Diagnostic::error("invalid-range", item.span, message).hint(hint));
                    continue;
                }
                Err(error) => {
                    let message = format!("{at} has `{}`: {error}", shown(&text));
                    let hint = "write a host, or a range such as `node[1-4]`";
                    self.push(Diagnostic::error("invalid-range", item.span, message).hint(hint));
                    continue;
                }
            };
            for name in names {
                if let Some(why) = no_host(&name) {
                    let message = format!("{at} has `{}`, {why}", shown(&name));
                    let hint = "name the hosts as `mesh list` shows them";
                    self.push(Diagnostic::error("invalid-name", item.span, message).hint(hint));
                    break;
                }
                if let Some(first) = hosts.iter().find(|other| other.value == name) {
                    let message = format!("{at} has `{name}` twice");
                    let diagnostic = Diagnostic::error("duplicate-item", item.span, message);
                    let diagnostic =
                        if first.span == item.span { diagnostic } else { diagnostic.label(first.span, "first here") };
                    self.push(diagnostic.hint("remove one of the two"));
                    break;
                }
                hosts.push(Spanned::new(name, item.span));
            }
            if hosts.len() > MAX_HOSTS {
                let message = format!("{at} has more than {MAX_HOSTS} hosts");
                self.push(Diagnostic::error("invalid-range", item.span, message).hint("name fewer"));
                return None;
            }
        }
        if hosts.is_empty() && self.diagnostics.len() == before {
            let message = format!("{at} is empty: a namespace without a host launches nothing");
            self.push(Diagnostic::error("invalid-value", node.span, message).hint("name a host, or leave the key out"));
        }
        hosts.sort_by(|a, b| range::natural_cmp(&a.value, &b.value));
        (self.diagnostics.len() == before).then_some(hosts)
    }
}

/// Why a name is none of a host.
fn no_host(name: &str) -> Option<&'static str> {
    let part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match name {
        "all" => Some("which is a word of the command language and no host: name them"),
        name if name.len() > 253 => Some("which is longer than 253 characters"),
        name if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(part) => {
            Some("which is no name of a host: letters, digits, `-`, `_` and `.`")
        }
        _ => None,
    }
}
