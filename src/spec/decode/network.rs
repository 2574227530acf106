//! NICs.

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::language::netspec::{DRIVERS, NetSpec};
use crate::name::{BridgeName, Mac, MacError};
use crate::spec::model::{Nic, Places};
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

impl Decoder<'_> {
    /// NICs in order; one alone may stand without the list.
    pub(super) fn networks(&mut self, node: &Node, at: At<'_>) -> Option<Vec<Spanned<Nic>>> {
        match &node.value {
            // Those that were refused are reported; the others can still be checked.
            Value::List(list) => Some(list.iter().filter_map(|item| self.nic(item, at)).collect()),
            Value::String(_) | Value::Int(_) | Value::Map(_) => Some(vec![self.nic(node, at)?]),
            _ => {
                self.wrong_type(node, at, "a list of NICs", false);
                None
            }
        }
    }

    fn nic(&mut self, node: &Node, at: At<'_>) -> Option<Spanned<Nic>> {
        let nic = match &node.value {
            Value::Map(_) => self.long_nic(node, at)?,
            Value::String(text) if text.contains(',') => {
                let hint = match NetSpec::parse(text) {
                    Ok(spec) => format!("write the parts as keys: `{}`", long_form(&spec)),
                    Err(_) => "write the parts as keys: `{ vlan: NAME, mac: \"…\", driver: … }`".to_owned(),
                };
                self.push(
                    Diagnostic::error(
                        "invalid-value",
                        node.span,
                        format!("{at} has `{}`, expected one VLAN alias", shown(text)),
                    )
                    .hint(hint),
                );
                return None;
            }
            _ => Nic {
                vlan: self.vlan_ref(node, at)?.value,
                mac: None,
                driver: None,
                bridge: None,
                connected: true,
                qos: None,
                assigned: None,
                places: Places::default(),
            },
        };
        Some(Spanned::new(nic, node.span))
    }

    fn long_nic(&mut self, node: &Node, at: At<'_>) -> Option<Nic> {
        let owner = format!("a NIC of {}", at.owner);
        let entries = self.section(node, &owner, &keys::names(keys::NIC))?;
        self.require(&entries, keys::NIC, node.span, &owner);
        let (mut vlan, mut mac, mut driver, mut bridge, mut qos) = (None, None, None, None, None);
        let (mut connected, mut places) = (true, Places::default());
        for (key, _, node) in entries {
            places.0.insert(key, node.span);
            let at = At { key, owner: &owner };
            match key {
                "vlan" => vlan = self.vlan_ref(node, at),
                "mac" => mac = self.mac(node, at),
                "driver" => driver = self.one_of(node, at, DRIVERS),
                "bridge" => bridge = self.name(node, at, BridgeName::new).map(|name| name.value),
                "connected" => connected = self.bool(node, at).unwrap_or(true),
                "qos" => qos = self.qos(node, at),
                other => unreachable!("`{other}` is not in the table of NIC keys"),
            }
        }
        Some(Nic { vlan: vlan?.value, mac, driver, bridge, connected, qos, assigned: None, places })
    }

    pub(super) fn mac(&mut self, node: &Node, at: At<'_>) -> Option<Mac> {
        let Value::String(text) = &node.value else {
            self.wrong_type(node, at, "a MAC address such as \"52:54:00:00:00:01\"", true);
            return None;
        };
        match text.parse::<Mac>() {
            Ok(mac) => Some(mac),
            Err(error) => {
                let (message, hint) = match &error {
                    MacError::Form { text } => (
                        format!("{at} is `{}`, which is no MAC address", shown(text)),
                        "write six hexadecimal pairs, as in \"52:54:00:00:00:01\"",
                    ),
                    MacError::Multicast { .. } => {
                        (format!("{at}: {error}"), "make the first pair even, as in \"52:54:00:00:00:01\"")
                    }
                    MacError::Null { .. } => (format!("{at}: {error}"), "leave `mac` out to have one assigned"),
                };
                self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
                None
            }
        }
    }
}

/// A netspec as the map that means the same.
fn long_form(spec: &NetSpec) -> String {
    let mut text = format!("{{ vlan: {}", spec.vlan);
    if let Some(mac) = spec.mac {
        text.push_str(&format!(", mac: \"{mac}\""));
    }
    for (key, value) in [("driver", &spec.driver), ("bridge", &spec.bridge)] {
        if let Some(value) = value {
            text.push_str(&format!(", {key}: {value}"));
        }
    }
    text.push_str(" }");
    text
}
