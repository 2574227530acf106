//! Maps with fixed keys: which entries they have, and the errors about keys and types that all readers of a tree share.

use std::borrow::Cow;

use super::shown;
use super::suggest::Suggester;
use super::syntax::{Node, SpannedKey, Value};
use crate::diagnostic::{Diagnostic, Span};

/// A map's entries under their canonical names: name, place of the key, value.
pub type Entries<'n> = Vec<(&'static str, Span, &'n Node)>;

/// The entries of a map whose keys are fixed. Unknown keys are reported; None if it is no map.
pub fn section<'n>(
    node: &'n Node,
    what: &str,
    keys: &[&'static str],
    suggester: &mut Suggester,
    push: &mut dyn FnMut(Diagnostic),
) -> Option<Entries<'n>> {
    let Value::Map(map) = &node.value else {
        push(wrong_type(node, what, "a map", None));
        return None;
    };
    let mut entries: Entries<'n> = Vec::with_capacity(map.len());
    for (key, value) in map.iter() {
        let canonical = match key.text.contains('-') {
            true => Cow::Owned(key.text.replace('-', "_")),
            false => Cow::Borrowed(&*key.text),
        };
        let Some(&name) = keys.iter().find(|name| ***name == *canonical) else {
            push(unknown_key(key, what, keys, &canonical, suggester));
            continue;
        };
        if let Some((_, first, _)) = entries.iter().find(|(n, _, _)| *n == name) {
            push(
                Diagnostic::error("duplicate-key", key.span, format!("the key `{name}` is given twice"))
                    .label(*first, "first given here")
                    .hint("keep one of the two; `-` and `_` mean the same in a key"),
            );
            continue;
        }
        entries.push((name, key.span, value));
    }
    Some(entries)
}

fn unknown_key(
    key: &SpannedKey,
    what: &str,
    keys: &[&'static str],
    canonical: &str,
    suggester: &mut Suggester,
) -> Diagnostic {
    let message = format!("unknown key `{}` in {what}", shown(&key.text));
    let hint = match suggester.nearest(canonical, keys.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if keys.len() > 12 => "docs/experiment.md lists the keys".to_owned(),
        None => format!("the keys here are {}", keys.join(", ")),
    };
    Diagnostic::error("unknown-key", key.span, message).hint(hint)
}

/// The refusal of a value's type. `quoted` is the scalar as it is written, where it would be right as text.
pub fn wrong_type(node: &Node, what: impl std::fmt::Display, expected: &str, quoted: Option<&str>) -> Diagnostic {
    let message = match node.value {
        Value::Null => format!("{what} has no value, expected {expected}"),
        _ => format!("{what} is {}, expected {expected}", node.value.kind()),
    };
    let scalar = matches!(node.value, Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Date);
    let hint = match (&node.value, quoted) {
        (Value::Null, _) => "give it a value, or remove the key".to_owned(),
        (_, Some(written)) if scalar => format!("quote it: \"{}\"", shown(written)),
        _ => format!("write {expected}"),
    };
    Diagnostic::error("wrong-type", node.span, message).hint(hint)
}
