//! `dnsmasq`.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{At, Decoder, Values};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::name::{Kind, Mac, Namespace, VmName};
use crate::spec::model::{Object, Vm, nic_of_vm};
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    match at.key {
        "address" => Decoder::one(decoder.address(node, at, true), node),
        "range" => {
            let values = decoder.items(node, at, |decoder, node, at| decoder.address(node, at, true))?;
            if values.len() != 2 {
                let message = format!("{at} has {} addresses, expected the first and the last", values.len());
                decoder.push(
                    Diagnostic::error("invalid-value", node.span, message).hint("write `[10.0.0.10, 10.0.0.99]`"),
                );
                return None;
            }
            Some(values)
        }
        "leases" => decoder.set_of(node, at, lease),
        "dns" => decoder.set_of(node, at, name),
        "upstream" => decoder.set_of(node, at, |decoder, node, at| decoder.address(node, at, false)),
        "options" => decoder.set_of(node, at, Decoder::nonempty),
        "config" => Decoder::one(decoder.nonempty(node, at), node),
        other => unreachable!("`{other}` is not in the table of dnsmasq keys"),
    }
}

/// A lease as `52:54:00:00:00:01 10.0.0.10` or `web.0 10.0.0.10`.
fn lease(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Option<String> {
    let hint =
        "write `{ vm: web, ip: 10.0.0.10 }`, `{ mac: \"52:54:00:00:00:01\", ip: 10.0.0.10 }`, or `web.0 10.0.0.10`";
    match &node.value {
        Value::String(text) => {
            let parts = text.split_once(' ').map(|(who, ip)| (who.trim(), ip.trim()));
            let who = parts.and_then(|(who, _)| match who.parse::<Mac>() {
                Ok(mac) => Some(mac.to_string()),
                Err(_) => nic_of_vm(who).filter(|(vm, _)| VmName::new(vm).is_ok()).map(|_| who.to_owned()),
            });
            let ip = parts.and_then(|(_, ip)| ip.parse::<std::net::Ipv4Addr>().ok());
            if who.is_none() || ip.is_none() {
                let message = format!("{at} has `{}`, which is no lease", shown(text));
                decoder.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
            }
            Some(format!("{} {}", who?, ip?))
        }
        Value::Map(_) => {
            let owner = format!("a lease of {}", at.owner);
            let entries = decoder.section(node, &owner, &keys::names(keys::LEASE))?;
            decoder.require(&entries, keys::LEASE, node.span, &owner);
            let (mut mac, mut vm, mut nic, mut ip) = (None, None, None, None);
            for (key, _, node) in entries {
                let at = At { key, owner: &owner };
                match key {
                    "mac" => mac = Some(decoder.mac(node, at)?.to_string()),
                    "vm" => vm = Some(decoder.name(node, at, VmName::new)?.to_string()),
                    "interface" => nic = Some(decoder.uint(node, at, 0, 255)?),
                    "ip" => ip = decoder.address(node, at, true),
                    other => unreachable!("`{other}` is not in the table of lease keys"),
                }
            }
            let who = match (mac, vm) {
                (Some(mac), None) if nic.is_none() => mac,
                (None, Some(vm)) => format!("{vm}.{}", nic.unwrap_or(0)),
                _ => {
                    let message = format!("{owner} is for one NIC: give `mac`, or `vm` and perhaps `interface`");
                    decoder.push(Diagnostic::error("exclusive-keys", node.span, message).hint(hint));
                    return None;
                }
            };
            Some(format!("{who} {}", ip?))
        }
        _ => {
            decoder.wrong_type(node, at, "a lease such as { vm: web, ip: 10.0.0.10 }", false);
            None
        }
    }
}

/// A name as `10.0.0.10 web.lab`.
fn name(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Option<String> {
    let (ip, name) = match &node.value {
        Value::String(text) => {
            let parts = text.split_once(' ').map(|(ip, name)| (ip.parse::<std::net::IpAddr>().ok(), name.trim()));
            let Some((Some(ip), name)) = parts else {
                let message = format!("{at} has `{}`, expected an address and a name", shown(text));
                let hint = "write `{ ip: 10.0.0.10, name: web.lab }`, or `10.0.0.10 web.lab`";
                decoder.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
                return None;
            };
            (ip.to_string(), name.to_owned())
        }
        _ => {
            let owner = format!("a name of {}", at.owner);
            let entries = decoder.section(node, &owner, &keys::names(keys::DNS))?;
            decoder.require(&entries, keys::DNS, node.span, &owner);
            let (mut ip, mut name) = (None, None);
            for (key, _, node) in entries {
                let at = At { key, owner: &owner };
                match key {
                    "ip" => ip = decoder.address(node, at, false),
                    "name" => name = decoder.nonempty(node, at),
                    other => unreachable!("`{other}` is not in the table of DNS keys"),
                }
            }
            (ip?, name?)
        }
    };
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !name.split('.').all(label) {
        let message = format!("{at} has the name `{}`, expected labels of letters, digits and hyphens", shown(&name));
        decoder.push(Diagnostic::error("invalid-value", node.span, message).hint("write a host name such as web.lab"));
        return None;
    }
    Some(format!("{ip} {name}"))
}

/// The address that a NIC is given which a lease names.
pub fn assigned_mac(experiment: &str, vm: &str, index: usize) -> Option<Mac> {
    let digest = Sha256::digest(format!("{experiment} {vm} {index}"));
    format!("52:54:{:02x}:{:02x}:{:02x}:{:02x}", digest[0], digest[1], digest[2], digest[3]).parse().ok()
}

impl Decoder<'_> {
    /// Give NICs that leases name an address of their own, which depends on nothing but their names. Only a new VM is
    /// launched with it.
    pub(in super::super) fn assign_macs(
        &mut self,
        experiment: Option<&Spanned<Namespace>>,
        objects: &BTreeMap<Kind, BTreeMap<String, Object>>,
        vms: &mut BTreeMap<VmName, Vm>,
    ) {
        let servers = objects.get(&Kind::Dnsmasq).into_iter().flat_map(BTreeMap::values);
        for lease in servers.flat_map(|server| server.all("leases")) {
            let Some((vm, index)) = lease.split_once(' ').and_then(|(who, _)| nic_of_vm(who)) else { continue };
            let Ok(name) = VmName::new(vm) else { continue };
            let end = Spanned::new((name, index), lease.span);
            if !self.nic_exists(&end, vms, "a lease") {
                continue;
            }
            let vm = vms.get_mut(&end.value.0).expect("it was looked up");
            if vm.body.networks[index].mac.is_none() {
                let experiment = experiment.map_or("", |name| name.as_str());
                let mac = assigned_mac(experiment, end.value.0.as_str(), index);
                Arc::make_mut(&mut vm.body).networks[index].value.assigned = mac;
            }
        }
    }
}
