//! `bridges`.

use super::{At, Decoder, Values};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::name::TapName;
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    match at.key {
        "config" => config(decoder, node, at),
        "trunks" => {
            decoder.set_of(node, at, |decoder, node, at| Some(decoder.name(node, at, TapName::new)?.to_string()))
        }
        "tunnels" => decoder.set_of(node, at, tunnel),
        other => unreachable!("`{other}` is not in the table of bridge keys"),
    }
}

/// A map, or a list of `key=value`.
fn config(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    let Value::Map(map) = &node.value else {
        return decoder.set_of(node, at, |decoder, node, at| {
            let text = decoder.nonempty(node, at)?;
            if !text.contains('=') {
                let message = format!("{at} has `{}`, expected key=value", shown(&text));
                decoder
                    .push(Diagnostic::error("invalid-value", node.span, message).hint("write a map: `{ KEY: VALUE }`"));
                return None;
            }
            Some(text)
        });
    };
    let mut values = Vec::new();
    for (key, value) in map.iter() {
        let of = At { key: &format!("config.{}", shown(&key.text)), owner: at.owner };
        let value_text = decoder.word(value, of)?;
        values.push(Spanned::new(format!("{}={value_text}", key.text), value.span));
    }
    values.sort_by(|a, b| a.value.cmp(&b.value));
    Some(values)
}

/// A tunnel as `vxlan 10.0.0.2 7`.
fn tunnel(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Option<String> {
    let refuse = |decoder: &mut Decoder<'_>, message: String| {
        let hint = "write `{ type: vxlan, remote: 10.0.0.2, key: 7 }`, or `vxlan 10.0.0.2 7`";
        decoder.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
        None
    };
    let (kind, remote, key) = match &node.value {
        Value::String(text) => {
            let words: Vec<&str> = text.split_whitespace().collect();
            let (kind, remote, key) = match words.as_slice() {
                [kind, remote] => (*kind, *remote, None),
                [kind, remote, key] => (*kind, *remote, Some(*key)),
                _ => return refuse(decoder, format!("{at} has `{}`, which is no tunnel", shown(text))),
            };
            let (Ok(remote), true) = (remote.parse::<std::net::IpAddr>(), ["vxlan", "gre"].contains(&kind)) else {
                return refuse(decoder, format!("{at} has `{}`, which is no tunnel", shown(text)));
            };
            let key = match key.map(str::parse::<u64>) {
                Some(Err(_)) => return refuse(decoder, format!("{at} has `{}`, whose key is no number", shown(text))),
                Some(Ok(key)) => Some(key),
                None => None,
            };
            (kind.to_owned(), remote.to_string(), key)
        }
        Value::Map(_) => {
            let owner = format!("a tunnel of {}", at.owner);
            let entries = decoder.section(node, &owner, &keys::names(keys::TUNNEL))?;
            decoder.require(&entries, keys::TUNNEL, node.span, &owner);
            let (mut kind, mut remote, mut key) = (None, None, None);
            for (name, _, node) in entries {
                let at = At { key: name, owner: &owner };
                match name {
                    "type" => kind = decoder.one_of(node, at, &["vxlan", "gre"]),
                    "remote" => remote = decoder.address(node, at, false),
                    "key" => key = Some(decoder.uint(node, at, 0, u64::from(u32::MAX))?),
                    other => unreachable!("`{other}` is not in the table of tunnel keys"),
                }
            }
            (kind?, remote?, key)
        }
        _ => {
            decoder.wrong_type(node, at, "a tunnel such as { type: vxlan, remote: 10.0.0.2, key: 7 }", false);
            return None;
        }
    };
    // A VXLAN network identifier has 24 bits (RFC 7348), a GRE key 32 (RFC 2890).
    let limit = if kind == "vxlan" { (1 << 24) - 1 } else { u64::from(u32::MAX) };
    if let Some(key) = key.filter(|key| *key > limit) {
        let message = format!("{at} has the key {key}, expected 0 to {limit} for {kind}");
        decoder.push(Diagnostic::error("out-of-range", node.span, message).hint("choose a value within the range"));
        return None;
    }
    Some([kind, remote].into_iter().chain(key.map(|key| key.to_string())).collect::<Vec<_>>().join(" "))
}
