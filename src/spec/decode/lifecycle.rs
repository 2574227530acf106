//! `lifecycle`: what a plan may do with an object.

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::language::field::FIELDS;
use crate::name::VmName;
use crate::spec::model::Lifecycle;
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

/// What a `lifecycle` may hold.
#[derive(Clone, Copy)]
pub(super) enum Holder {
    Vm,
    Profile,
    Tap,
    /// An object that is a set of settings, with these keys.
    Object(&'static [keys::Key]),
}

/// A `lifecycle` as it is written.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    pub lifecycle: Lifecycle,
    /// The names that the VMs of the entry had, in their order.
    pub renamed_from: Option<Spanned<Vec<VmName>>>,
}

impl Decoder<'_> {
    pub(super) fn lifecycle(&mut self, node: &Node, at: At<'_>, holder: Holder) -> Written {
        let mut written = Written::default();
        let what = at.to_string();
        let mut keys = keys::names(match holder {
            Holder::Tap => keys::TAP_LIFECYCLE,
            Holder::Object(_) => keys::OBJECT_LIFECYCLE,
            Holder::Vm | Holder::Profile => keys::LIFECYCLE,
        });
        keys.retain(|key| !matches!(holder, Holder::Profile) || *key != "renamed_from");
        for (key, _, node) in self.section(node, &what, &keys).unwrap_or_default() {
            let at = At { key, owner: &what };
            match key {
                "prevent_destroy" => {
                    written.lifecycle.prevent_destroy = self.bool(node, at).filter(|yes| *yes).map(|_| node.span);
                }
                "ignore_changes" => written.lifecycle.ignore_changes = self.ignored(node, at, holder),
                "renamed_from" => {
                    let Value::String(text) = &node.value else {
                        self.wrong_type(node, at, "the name that the VM had", true);
                        continue;
                    };
                    written.renamed_from = Some(Spanned::new(self.expand(text, node.span), node.span));
                }
                other => unreachable!("`{other}` is not in the table of lifecycle keys"),
            }
        }
        written
    }

    /// Paths of fields: keys, `networks[0]` and `tags.KEY`.
    fn ignored(&mut self, node: &Node, at: At<'_>, holder: Holder) -> Vec<Spanned<String>> {
        let one;
        let items: &[Node] = match &node.value {
            Value::List(list) => list,
            _ => {
                one = [node.clone()];
                &one
            }
        };
        let mut paths = Vec::new();
        for item in items {
            let Value::String(text) = &item.value else {
                self.wrong_type(item, at, "a key such as memory, or a list of keys", false);
                continue;
            };
            paths.extend(self.field_path(text, item.span, at, holder).map(|path| Spanned::new(path, item.span)));
        }
        paths.sort_by(|a, b| a.value.cmp(&b.value).then(a.span.cmp(&b.span)));
        paths.dedup_by(|a, b| a.value == b.value);
        paths
    }

    fn field_path(&mut self, text: &str, span: Span, at: At<'_>, holder: Holder) -> Option<String> {
        let end = text.find(['.', '[']).unwrap_or(text.len());
        let (head, rest) = (text[..end].replace('-', "_"), &text[end..]);
        let keys: Vec<String> = match holder {
            Holder::Tap => ["vlan", "ip", "bridge"].map(str::to_owned).to_vec(),
            Holder::Object(keys) => {
                keys.iter().filter(|key| key.name != "lifecycle").map(|key| key.name.to_owned()).collect()
            }
            _ => FIELDS
                .iter()
                .map(|field| field.key())
                .chain(["state", "bonds", "usb_disks"].map(str::to_owned))
                .collect(),
        };
        if !keys.contains(&head) {
            let message = format!("{at}: `{}` is no field that can be ignored", shown(text));
            let hint = match self.suggester.nearest(&head, keys.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None if matches!(holder, Holder::Tap) => "the fields of a tap are vlan, ip and bridge".to_owned(),
                None if matches!(holder, Holder::Object(_)) => format!("the keys are {}", keys.join(", ")),
                None => "write a key of the VM, `networks[0]` or `tags.KEY`".to_owned(),
            };
            self.push(Diagnostic::error("unknown-field", span, message).hint(hint));
            return None;
        }
        let index = rest.strip_prefix('[').and_then(|r| r.strip_suffix(']')).and_then(|n| n.parse::<u8>().ok());
        let fits = match head.as_str() {
            _ if rest.is_empty() => true,
            "networks" => index.is_some_and(|index| rest == format!("[{index}]")),
            "tags" => rest.len() > 1 && rest.starts_with('.'),
            _ => false,
        };
        if !fits {
            let message = format!("{at}: `{}` is no path of a field", shown(text));
            let hint = "write a key of the VM, `networks[0]` or `tags.KEY`";
            self.push(Diagnostic::error("unknown-field", span, message).hint(hint));
            return None;
        }
        Some(format!("{head}{rest}"))
    }

    /// The former name of each VM of an entry; None where there is none, or where the numbers differ.
    pub(super) fn former_names(
        &mut self,
        renamed: Option<Spanned<Vec<VmName>>>,
        names: &[VmName],
        key: Span,
    ) -> Vec<Option<Spanned<VmName>>> {
        let Some(renamed) = renamed.filter(|r| !r.value.is_empty() && !names.is_empty()) else {
            return vec![None; names.len()];
        };
        if renamed.value.len() != names.len() {
            let (old, new) = (renamed.value.len(), names.len());
            let message = format!("`renamed_from` and the entry have different numbers of names, {old} and {new}");
            let diagnostic = Diagnostic::error("renamed-count", renamed.span, message)
                .label(key, format!("stands for {new}"))
                .hint("give one former name for each VM, in the same order, as in `www[0-2]` for `web[0-2]`");
            self.push(diagnostic);
            return vec![None; names.len()];
        }
        renamed.value.into_iter().map(|name| Some(Spanned::new(name, renamed.span))).collect()
    }
}
