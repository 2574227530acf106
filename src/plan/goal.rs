//! What is to be observed of an object once its change was carried out, so that a plan can be verified without the
//! experiment that it was made from; and digests of what was observed before, which tell whether it moved since.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::ownership::{self, short_hash};
use super::select::RANGE;
use crate::live::{
    Facts, Live, LiveObject, LiveUsb, LiveVm, OTHERS, STOPPED, USUAL_LOAD, VmState, find, mirrors_to, same_file,
    same_image, same_program,
};
use crate::name::{Address, Kind};

/// The goal of one change. What the file leaves open, or ignores, is None.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// It is not there.
    Gone,
    /// A VM.
    Vm {
        /// `running` or `paused`.
        state: Option<String>,
        /// Its NICs in order: VLAN and bridge, both empty for one that is disconnected.
        networks: Vec<Option<(String, String)>>,
        /// What shapes its NICs, in order; empty where nothing does.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        qos: Vec<Option<String>>,
        /// What is in its CD-ROM drive, where it is changed; empty for nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cdrom: Option<String>,
        /// Its USB disks: image and version, empty where any will do. None where they are not looked at.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usb: Option<Vec<(String, String)>>,
        /// Tags that it has.
        tags: BTreeMap<String, String>,
    },
    /// A tap.
    Tap {
        /// Its VLAN.
        vlan: Option<String>,
        /// Its bridge.
        bridge: Option<String>,
        /// Its addresses: none or one.
        ip: Option<Vec<String>>,
    },
    /// An object that is a set of settings.
    Object {
        /// What tells it from others of its kind.
        key: String,
        /// Settings that it has, of a bridge besides others; None if it is not there.
        facts: Option<Facts>,
    },
    /// A VLAN alias that is bound to this tag.
    Bound(u16),
    /// A VLAN alias that is not bound to this tag.
    Unbound(u16),
    /// The range of tags.
    Range(u16, u16),
    /// Tags are blacklisted, which nothing observes.
    Blacklist,
    /// The hosts of the namespace.
    Hosts(Vec<String>),
    /// The figure by which a host is chosen.
    Load(String),
    /// Whether launches are queued, and none of the experiment's waits.
    Queueing(bool),
}

/// A sentence for each way in which an object is not what it is to be.
pub fn unmet(goal: &Goal, address: &Address, live: &Live) -> Vec<String> {
    let mut said = Vec::new();
    match goal {
        Goal::Gone if is_there(address, live) => said.push("is still there".to_owned()),
        Goal::Gone => {}
        Goal::Vm { state, networks, qos, cdrom, usb, tags } => match live.vms.get(&address.name) {
            Some(vm) => {
                let found = vm.cdrom();
                if let (Some(wanted), Some(found)) = (cdrom, &found)
                    && !same_image(wanted, found)
                {
                    let shown = if found.is_empty() { "nothing" } else { found };
                    said.push(format!("has {shown} in its CD-ROM drive"));
                }
                if let (Some(wanted), Some(found)) = (usb, &vm.usb) {
                    let mut left: Vec<_> = found.iter().collect();
                    for (path, version) in wanted {
                        let fits = |version: &str, disk: &LiveUsb| version.is_empty() || version == disk.version;
                        match left.iter().position(|disk| same_image(path, &disk.file) && fits(version, disk)) {
                            Some(at) => drop(left.remove(at)),
                            None => said.push(format!("lacks the USB disk {path}")),
                        }
                    }
                    said.extend(left.iter().map(|disk| format!("has the USB disk {}", disk.file)));
                }
                vm_unmet(vm, state.as_deref(), networks, tags, live, &mut said);
                for (index, (wanted, nic)) in qos.iter().zip(&vm.nics).enumerate() {
                    let found = nic.qos.map(|qos| qos.to_string());
                    if let (Some(wanted), Some(found)) = (wanted, found)
                        && *wanted != found
                    {
                        said.push(format!("NIC {index} has the qos [{found}]"));
                    }
                }
            }
            None => said.push("is missing".to_owned()),
        },
        Goal::Tap { vlan, bridge, ip } => match live.taps.get(&address.name) {
            Some(tap) => {
                if vlan.as_ref().is_some_and(|vlan| !on_vlan(vlan, tap.alias.as_deref(), tap.vlan, live)) {
                    said.push(format!("is not on VLAN {}", vlan.as_deref().unwrap_or_default()));
                }
                if bridge.as_ref().is_some_and(|bridge| *bridge != tap.bridge) {
                    said.push(format!("is on bridge {}", tap.bridge));
                }
                if let (Some(wanted), Some(found)) = (ip, &tap.addresses)
                    && found != wanted
                {
                    said.push(format!("has the addresses [{}]", found.join(", ")));
                }
            }
            None => said.push("is missing".to_owned()),
        },
        Goal::Object { key, facts } => object_unmet(address.kind, key, facts.as_ref(), live, &mut said),
        Goal::Bound(tag) => match live.vlans.get(&address.name) {
            Some(found) if found == tag => {}
            Some(found) => said.push(format!("is bound to tag {found}, not {tag}")),
            None => said.push("is not bound".to_owned()),
        },
        Goal::Unbound(tag) if live.vlans.get(&address.name) == Some(tag) => {
            said.push(format!("is still bound to tag {tag}"));
        }
        Goal::Unbound(_) | Goal::Blacklist => {}
        Goal::Hosts(wanted) => match &live.placement.hosts {
            Some(found) if found != wanted => said.push(format!("are [{}]", found.join(", "))),
            _ => {}
        },
        Goal::Load(wanted) => match &live.placement.load {
            Some(found) if found != wanted => said.push(format!("is {found}")),
            _ => {}
        },
        Goal::Queueing(wanted) => {
            if live.queueing != *wanted {
                said.push(format!("is {}", live.queueing));
            }
        }
        Goal::Range(low, high) if live.vlan_range == Some((*low, *high)) => {}
        Goal::Range(low, high) => said.push(format!("is not {low}-{high}")),
    }
    said
}

fn is_there(address: &Address, live: &Live) -> bool {
    match address.kind {
        Kind::Vm => live.vms.contains_key(&address.name),
        Kind::Tap => live.taps.contains_key(&address.name),
        Kind::Vlan => live.vlans.contains_key(&address.name),
        // Their goals say more than that they are gone.
        Kind::Placement
        | Kind::Command
        | Kind::Bridge
        | Kind::Nat
        | Kind::Bond
        | Kind::Dnsmasq
        | Kind::Mirror
        | Kind::Capture
        | Kind::Pipe
        | Kind::Plumbing => false,
    }
}

fn object_unmet(kind: Kind, key: &str, facts: Option<&Facts>, live: &Live, said: &mut Vec<String>) {
    // What the target does not list cannot be looked at.
    let Some(objects) = live.objects.get(&kind) else { return };
    let is_it = |object: &LiveObject| facts.is_none_or(|facts| facts.get("from") == object.facts.get("from"));
    let found = match kind {
        // There can be others to the same destination.
        Kind::Mirror => mirrors_to(objects, key).find(|(_, object)| is_it(object)).or(find(objects, key, facts)),
        _ => find(objects, key, facts),
    };
    match (facts, found.map(|(_, object)| object)) {
        (None, Some(_)) => said.push("is still there".to_owned()),
        (None, None) => {}
        (Some(facts), None)
            if !matches!(kind, Kind::Bridge | Kind::Pipe) || facts.values().any(|values| !values.is_empty()) =>
        {
            said.push("is missing".to_owned());
        }
        (Some(_), None) => {}
        (Some(facts), Some(object)) => {
            said.extend(object.facts.get(STOPPED).map(|why| format!("has stopped: {}", why.join(", "))));
            for (key, wanted) in facts {
                let Some(found) = object.facts.get(key) else { continue };
                let met = match (kind, wanted.as_slice(), found.as_slice()) {
                    (Kind::Bridge, ..) => wanted.iter().all(|w| found.contains(w)),
                    (Kind::Capture, [wanted], [found]) => same_file(wanted, found),
                    (Kind::Pipe, [wanted], [found]) if key == "via" => same_program(wanted, found),
                    _ => wanted == found,
                };
                if !met {
                    said.push(format!("has the {key} [{}]", found.join(", ")));
                }
            }
        }
    }
}

/// A digest of an object that is a set of settings, and of who else uses it where it `goes`.
pub fn object(kind: Kind, key: &str, live: &Live, goes: bool) -> Option<String> {
    let objects = live.objects.get(&kind)?;
    if kind == Kind::Mirror {
        let all: Vec<_> = mirrors_to(objects, key).map(|(_, mirror)| &mirror.facts).collect();
        return (!all.is_empty()).then(|| short_hash(&format!("{all:?}")));
    }
    let (_, object) = find(objects, key, None)?;
    // Which VLANs are on a bridge changes with what is on it.
    let counts = |key: &str| key != "vlans" && (goes || key != OTHERS);
    let facts: Vec<_> = object.facts.iter().filter(|(key, _)| counts(key)).collect();
    Some(short_hash(&format!("{} {facts:?}", object.host)))
}

fn on_vlan(wanted: &str, alias: Option<&str>, tag: Option<u16>, live: &Live) -> bool {
    match wanted.parse::<u16>() {
        Ok(wanted) => tag == Some(wanted),
        Err(_) => alias == Some(wanted) && tag.is_none_or(|tag| live.vlans.get(wanted) == Some(&tag)),
    }
}

fn vm_unmet(
    vm: &LiveVm,
    state: Option<&str>,
    networks: &[Option<(String, String)>],
    tags: &BTreeMap<String, String>,
    live: &Live,
    said: &mut Vec<String>,
) {
    let as_wanted = match state {
        Some("running") => vm.state == VmState::Running,
        Some(_) => matches!(vm.state, VmState::Building | VmState::Paused),
        None => true,
    };
    if !as_wanted {
        said.push(format!("is {}", vm.state.word()));
    }
    if networks.len() > vm.nics.len() {
        said.push(format!("has {} NICs", vm.nics.len()));
    }
    for (index, (wanted, nic)) in networks.iter().zip(&vm.nics).enumerate() {
        let Some((vlan, bridge)) = wanted else { continue };
        if vlan.is_empty() {
            if nic.connected {
                said.push(format!("NIC {index} is connected"));
            }
            continue;
        }
        let there = nic.connected && on_vlan(vlan, nic.alias.as_deref(), nic.vlan, live);
        if !there || (!nic.bridge.is_empty() && nic.bridge != *bridge) {
            said.push(format!("NIC {index} is not on VLAN {vlan} of bridge {bridge}"));
        }
    }
    let is_it = |key: &str, wanted: &str| match vm.tags.get(key) {
        Some(found) if key == ownership::KEYS => ownership::lists_the_same(found, wanted),
        found => found.is_some_and(|found| found == wanted),
    };
    let differs = tags.iter().filter(|(key, value)| !is_it(key, value));
    said.extend(differs.map(|(key, _)| format!("tag {key} differs")));
}

/// A digest of an object as it was observed: everything that a plan looks at, and what the goal sets. None if it is not
/// there.
pub fn observed(address: &Address, goal: &Goal, live: &Live) -> Option<String> {
    let mut text = String::new();
    match address.kind {
        Kind::Vm => {
            let vm = live.vms.get(&address.name)?;
            // Tags that neither the file nor megaform set come and go with guests and tools.
            let keys = ownership::keys_of(vm);
            let set = |key: &str| matches!(goal, Goal::Vm { tags, .. } if tags.contains_key(key));
            let ours = |key: &str| key.starts_with(ownership::RESERVED) || keys.contains(key) || set(key);
            let tags: Vec<_> = vm.tags.iter().filter(|(key, _)| ours(key)).collect();
            let nics: Vec<_> =
                vm.nics.iter().map(|n| (&n.alias, n.vlan, &n.bridge, &n.mac, n.connected, n.qos)).collect();
            let medium = vm.cdrom().filter(|image| !image.is_empty()).map(|image| format!(" {image:?}"));
            write!(text, "{} {} {:?} {:?} {:?}{}", vm.uuid, vm.pid, vm.state, tags, nics, medium.unwrap_or_default())
                .expect("a string takes everything");
            let usb = vm.usb.iter().flatten().map(|disk| format!(" usb {disk:?}"));
            write!(text, "{}", usb.collect::<String>())
        }
        Kind::Tap => {
            let tap = live.taps.get(&address.name)?;
            write!(text, "{} {} {:?} {:?} {:?}", tap.host, tap.bridge, tap.alias, tap.vlan, tap.addresses)
        }
        // What a new namespace has is as good as nothing.
        Kind::Placement => match address.name.as_str() {
            "hosts" => {
                let hosts = live.placement.hosts.as_ref()?;
                if *hosts == [live.placement.own.as_str()] {
                    return None;
                }
                write!(text, "{hosts:?}")
            }
            "load" => {
                let load = live.placement.load.as_ref().filter(|load| *load != USUAL_LOAD)?;
                write!(text, "{load}")
            }
            _ => {
                if !live.queueing && live.placement.queue.is_empty() {
                    return None;
                }
                write!(text, "{} {:?}", live.queueing, live.placement.queue)
            }
        },
        // What raw commands make cannot be observed.
        Kind::Command => return None,
        Kind::Bridge
        | Kind::Nat
        | Kind::Bond
        | Kind::Dnsmasq
        | Kind::Mirror
        | Kind::Capture
        | Kind::Pipe
        | Kind::Plumbing => {
            return object(address.kind, &address.name, live, false);
        }
        Kind::Vlan if address.name == RANGE => write!(text, "{:?}", live.vlan_range?),
        Kind::Vlan => write!(text, "{}", live.vlans.get(&address.name)?),
    }
    .expect("a string takes everything");
    Some(short_hash(&text))
}
