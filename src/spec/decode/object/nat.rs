//! `nat`.

use std::net::IpAddr;

use super::{At, Decoder, Values};
use crate::diagnostic::Diagnostic;
use crate::name::BridgeName;
use crate::spec::syntax::Node;

pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    let value = match at.key {
        "vlan" => decoder.vlan_ref(node, at).map(|vlan| vlan.to_string()),
        "ip" => gateway(decoder, node, at),
        "bridge" => decoder.name(node, at, BridgeName::new).map(|name| name.to_string()),
        other => unreachable!("`{other}` is not in the table of nat keys"),
    };
    Decoder::one(value, node)
}

/// The address of a host in an IPv4 network that has room for guests.
fn gateway(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Option<String> {
    let (address, prefix) = decoder.ip(node, at)?.value;
    let (message, hint) = match address {
        IpAddr::V6(_) => {
            (format!("{at} is {address}/{prefix}, and a way out is for IPv4"), "write an address such as 10.0.0.254/24")
        }
        IpAddr::V4(_) if prefix > 30 => (
            format!("{at} is {address}/{prefix}, a network without an address for a guest"),
            "write a prefix length of at most 30",
        ),
        IpAddr::V4(_) => return Some(format!("{address}/{prefix}")),
    };
    decoder.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
    None
}
