//! `mirrors`.

use super::{At, Decoder, Values};
use crate::diagnostic::Diagnostic;
use crate::name::{BridgeName, TapName};
use crate::spec::model::{Object, nic_of_vm};
use crate::spec::syntax::{Node, Value};

pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    let value = match at.key {
        "bridge" => decoder.name(node, at, BridgeName::new).map(|name| name.to_string()),
        "from" | "to" => match &node.value {
            Value::String(text) if nic_of_vm(text).is_some() => {
                decoder.nic_of_vm(node, at).map(|end| format!("{}.{}", end.value.0, end.value.1))
            }
            _ => decoder.name(node, at, TapName::new).map(|name| name.to_string()),
        },
        other => unreachable!("`{other}` is not in the table of mirror keys"),
    };
    Decoder::one(value, node)
}

pub(super) fn complete(decoder: &mut Decoder<'_>, owner: &str, object: &mut Object) {
    let (Some(from), Some(to)) = (object.one("from"), object.one("to")) else { return };
    let (nic, tap) = (nic_of_vm(from).is_some(), nic_of_vm(to).is_none());
    let (message, hint) = if from == to {
        (format!("{owner} goes from `{from}` to itself"), "give another destination")
    } else if nic == tap {
        // The tap behind a NIC has no name before its VM is launched.
        (
            format!(
                "{owner} goes from {} to {}",
                if nic { "a NIC" } else { "a tap" },
                if tap { "a tap" } else { "a NIC" }
            ),
            "both are NICs of VMs such as `web.0`, or both are taps: `tap mirror` takes no mix",
        )
    } else if nic && object.settings.contains_key("bridge") {
        (format!("{owner} names a bridge, which NICs know"), "remove `bridge`")
    } else {
        return;
    };
    decoder.push(Diagnostic::error("mirror-ends", object.place("to"), message).hint(hint));
}
