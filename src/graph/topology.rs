//! What a picture of a network shows, wherever it comes from: an experiment file or what is running.

use std::collections::BTreeMap;

use super::parts::{Part, Tie};
use super::pipes::PipelineView;
use crate::diagnostic::Span;
use crate::name::{BridgeName, Kind, VlanTag};
use crate::spec::SECTIONS;
use crate::spec::model::{Experiment, VlanRef, VmBody};

/// What stands between a VLAN and its bridge in the key of one on another bridge than the usual one.
pub(super) const ON: &str = " on ";

/// What endpoints name a VLAN by: its alias or its tag as text, with its bridge where that is not the usual one. The same VLAN
/// of two bridges is two networks.
pub fn vlan_key(vlan: &str, bridge: &str) -> String {
    if vlan.is_empty() || bridge.is_empty() || bridge == BridgeName::default_bridge().as_str() {
        vlan.to_owned()
    } else {
        format!("{vlan}{ON}{bridge}")
    }
}

/// A network to draw. The order of the lists does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// The title, such as the experiment's name.
    pub title: String,
    /// The VLANs.
    pub vlans: Vec<VlanView>,
    /// The VMs.
    pub vms: Vec<VmView>,
    /// The host taps.
    pub taps: Vec<TapView>,
    /// Boxes for everything else.
    pub parts: Vec<Part>,
    /// Lines that end at such boxes, and those between VMs.
    pub ties: Vec<Tie>,
    /// The pipelines.
    pub pipelines: Vec<PipelineView>,
    /// VLANs that neither a NIC nor a tap need be on, as [`vlan_key`] writes them.
    pub named: Vec<String>,
}

/// A VLAN, on whichever bridges endpoints say. They name it by its alias, or by its tag as text if it has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VlanView {
    /// The alias; empty for a VLAN that is known by its tag alone.
    pub alias: String,
    /// The tag, if it is known.
    pub tag: Option<u16>,
}

/// Where a NIC or tap is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The VLAN, as [`vlan_key`] writes it; empty for not connected.
    pub vlan: String,
    /// Words about it, such as its MAC address; may be empty.
    pub label: String,
    /// The id of the bond that it is part of; empty for none.
    pub bond: String,
}

/// The line of a VM's USB disks, which belong to it and are on no network; None for none. Of paths the last part is enough.
pub fn usb_line<'p>(images: impl Iterator<Item = &'p str>) -> Option<String> {
    let names: Vec<&str> = images.map(|path| path.rsplit('/').next().unwrap_or(path)).collect();
    (!names.is_empty()).then(|| format!("USB: {}", names.join(", ")))
}

/// A VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmView {
    /// Its name.
    pub name: String,
    /// Its state in minimega's words (`running`, `paused`, `quit` …) in either case; it chooses the colour.
    pub state: String,
    /// Further lines, such as its memory.
    pub details: Vec<String>,
    /// Its NICs in order.
    pub nics: Vec<Endpoint>,
    /// The VMs that come before it.
    pub depends_on: Vec<String>,
}

/// A host tap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapView {
    /// Its name.
    pub name: String,
    /// Where it is connected; its label is its address.
    pub at: Endpoint,
}

/// What a VM's box says of it.
fn details(body: &VmBody) -> Vec<String> {
    let config = &body.config;
    let size = format!("{} MB, {} CPU", config.uint("memory"), config.uint("vcpus"));
    let (host, other) = (config.text("schedule"), config.text("colocate"));
    let host = (!host.is_empty()).then(|| format!("on host {host}"));
    let other = (!other.is_empty()).then(|| format!("on the host of {other}"));
    [Some(size), host, other].into_iter().flatten().collect()
}

impl Topology {
    /// The topology that an experiment asks for.
    pub fn of(experiment: &Experiment) -> Self {
        let name = |vlan: &VlanRef| match vlan {
            VlanRef::Alias(alias) => alias.to_string(),
            // A tag that an alias has by declaration is that VLAN.
            VlanRef::Tag(tag) => {
                let alias = experiment.vlans.iter().find(|(_, v)| v.tag.as_ref().is_some_and(|t| t.value == *tag));
                alias.map_or_else(|| tag.to_string(), |(alias, _)| alias.to_string())
            }
        };
        let vlans = experiment.vlans.iter().map(|(alias, vlan)| VlanView {
            alias: alias.to_string(),
            tag: vlan.tag.as_ref().map(|tag| VlanTag::get(tag.value)),
        });
        let usual = BridgeName::default_bridge();
        let on = |vlan: &VlanRef, bridge: Option<&BridgeName>| vlan_key(&name(vlan), bridge.unwrap_or(&usual).as_str());
        let vms = experiment.vms.iter().map(|(vm_name, vm)| VmView {
            name: vm_name.to_string(),
            state: vm.body.state.word().to_owned(),
            depends_on: vm.body.depends_on.iter().map(|d| d.value.to_string()).collect(),
            details: details(&vm.body)
                .into_iter()
                .chain(usb_line(vm.body.usb_disks.iter().map(|disk| disk.path.as_str())))
                .collect(),
            nics: vm
                .body
                .networks
                .iter()
                .enumerate()
                .map(|(index, nic)| {
                    // That of a link stands beside the link.
                    let qos = nic.qos.filter(|_| !vm.body.links.contains_key(&index)).map(|qos| qos.to_string());
                    let words = nic.mac.map(|mac| mac.to_string()).into_iter().chain(qos);
                    Endpoint {
                        vlan: on(&nic.vlan, nic.bridge.as_ref()),
                        label: words.collect::<Vec<_>>().join(", "),
                        bond: String::new(),
                    }
                })
                .collect(),
        });
        let taps = experiment.taps.iter().map(|(tap_name, tap)| TapView {
            name: tap_name.to_string(),
            at: Endpoint {
                vlan: on(&tap.vlan.value, tap.bridge.as_ref().map(|bridge| &bridge.value)),
                label: match &tap.ip {
                    Some(ip) => format!("{}/{}", ip.0, ip.1),
                    None => tap.dhcp.map(|_| "by DHCP".to_owned()).unwrap_or_default(),
                },
                bond: String::new(),
            },
        });
        let mut topology = Self {
            title: experiment.name.to_string(),
            vlans: vlans.collect(),
            vms: vms.collect(),
            taps: taps.collect(),
            ..Self::default()
        };
        // Bonds stand in no section of their own.
        for kind in SECTIONS.iter().map(|(_, kind)| kind).chain([&Kind::Bond]) {
            for (name, object) in experiment.of(*kind) {
                let settings = object.settings.iter().map(|(key, values)| {
                    ((*key).to_owned(), values.iter().map(|value| value.value.clone()).collect::<Vec<_>>())
                });
                topology.add(*kind, name, &settings.collect());
            }
        }
        topology.links(experiment);
        topology.finish();
        topology
    }

    /// The links: the NICs that are shaped by what stands at one place.
    fn links(&mut self, experiment: &Experiment) {
        let mut ends: BTreeMap<Span, Vec<(&str, usize, String)>> = BTreeMap::new();
        for (name, vm) in &experiment.vms {
            for (index, span) in &vm.body.links {
                let shape = vm.body.networks[*index].qos.map(|qos| qos.to_string()).unwrap_or_default();
                ends.entry(*span).or_default().push((name.as_str(), *index, shape));
            }
        }
        for pair in ends.into_values() {
            if let [(a, from, to_a), (b, to, to_b)] = pair.as_slice() {
                self.link([(a, *from), (b, *to)], [to_a.clone(), to_b.clone()]);
            }
        }
    }

    /// What endpoints call a VLAN: a tag that an alias has is that alias.
    pub(super) fn alias_of(&self, vlan: &str) -> String {
        let tag = vlan.parse::<u16>().ok();
        let named = self.vlans.iter().find(|view| tag.is_some() && view.tag == tag && !view.alias.is_empty());
        named.map_or_else(|| vlan.to_owned(), |view| view.alias.clone())
    }

    /// Draw a VLAN that no NIC and no tap is on.
    pub(super) fn name_vlan(&mut self, key: &str) {
        if !self.named.contains(&key.to_owned()) {
            self.named.push(key.to_owned());
        }
    }
}
