//! `captures`.

use super::{At, Decoder, Values};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::name::{BridgeName, VmName};
use crate::spec::model::Object;
use crate::spec::shown;
use crate::spec::syntax::Node;

pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    let value = match at.key {
        "type" => decoder.one_of(node, at, &["pcap", "netflow"]),
        "vm" => decoder.name(node, at, VmName::new).map(|name| name.to_string()),
        "bridge" => decoder.name(node, at, BridgeName::new).map(|name| name.to_string()),
        "interface" => decoder.uint(node, at, 0, 255).map(|n| n.to_string()),
        "snaplen" => decoder.uint(node, at, 1, 262_144).map(|n| n.to_string()),
        "timeout" => decoder.uint(node, at, 1, 3600).map(|n| n.to_string()),
        "gzip" => decoder.bool(node, at).map(|truth| truth.to_string()),
        "format" => decoder.one_of(node, at, &["raw", "ascii"]),
        "file" | "filter" => decoder.nonempty(node, at),
        "to" => collector(decoder, node, at),
        other => unreachable!("`{other}` is not in the table of capture keys"),
    };
    Decoder::one(value, node)
}

/// `udp://host:port`.
fn collector(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Option<String> {
    let text = decoder.nonempty(node, at)?;
    let parts = text.split_once("://").filter(|(scheme, _)| ["udp", "tcp"].contains(scheme));
    let port = parts.and_then(|(_, rest)| rest.rsplit_once(':')).filter(|(host, _)| !host.is_empty());
    if port.is_none_or(|(_, port)| port.parse::<u16>().is_err() || port == "0") {
        let message = format!("{at} is `{}`, expected a collector", shown(&text));
        decoder.push(
            Diagnostic::error("invalid-value", node.span, message).hint("write `udp://HOST:PORT` or `tcp://HOST:PORT`"),
        );
        return None;
    }
    Some(text)
}

pub(super) fn complete(decoder: &mut Decoder<'_>, owner: &str, object: &mut Object) {
    let has = |object: &Object, key: &str| object.settings.contains_key(key);
    decoder.exclusive(owner, object, "vm", "bridge");
    decoder.exclusive(owner, object, "file", "to");
    if !has(object, "vm") && !has(object, "bridge") {
        let message = format!("{owner} does not say what is captured");
        decoder
            .push(Diagnostic::error("missing-key", object.span, message).hint("add `vm` and `interface`, or `bridge`"));
    }
    let netflow = object.one("type") == Some("netflow");
    if !has(object, "file") && !has(object, "to") {
        let hint = if netflow { "add `file`, or `to: udp://HOST:PORT`" } else { "add `file`" };
        let message = format!("{owner} does not say where it is written");
        decoder.push(Diagnostic::error("missing-key", object.span, message).hint(hint));
    }
    if netflow {
        decoder.only_for(owner, object, &["vm", "interface", "snaplen", "filter"], "captures of frames (`type: pcap`)");
        if has(object, "to") {
            decoder.only_for(owner, object, &["gzip"], "flow records in a file");
        }
    } else {
        decoder.only_for(owner, object, &["to", "format", "gzip", "timeout"], "flow records (`type: netflow`)");
    }
    if has(object, "bridge") {
        decoder.only_for(owner, object, &["interface"], "captures of a VM");
    }
    // What is left out is written out, so that equal captures have equal settings.
    let span = object.span;
    if has(object, "vm") && !has(object, "interface") {
        object.settings.insert("interface", vec![Spanned::new("0".to_owned(), span)]);
    }
    object.settings.entry("type").or_insert_with(|| vec![Spanned::new("pcap".to_owned(), span)]);
}
