//! What stands in a picture beside VMs, taps and VLANs: bridges with their trunks and tunnels, bonds, servers, ways out, mirrors,
//! captures, pipelines and links. Each is told by the settings of an experiment file, which a live object has by the same names.

use std::collections::BTreeMap;

use super::pipes::PipelineView;
use super::topology::{Topology, vlan_key};
use crate::name::{BridgeName, Kind};

/// A bridge with more VLANs is not connected with each of them.
const CABLES: usize = 3;

/// Settings by key.
pub type Settings = BTreeMap<String, Vec<String>>;

/// A box of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// What ties name it by: `bridge.br1`. VMs, taps and VLANs are `vm.NAME`, `tap.NAME` and `vlan.KEY`.
    pub id: String,
    /// What it is.
    pub kind: PartKind,
    /// Its lines of text.
    pub lines: Vec<String>,
}

/// What a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// A bridge.
    Bridge,
    /// An interface that is a trunk of a bridge, or the other end of a tunnel.
    Uplink,
    /// A DHCP and DNS server.
    Server,
    /// A way out.
    Gateway,
    /// What the engine's host reaches.
    Outside,
    /// What a capture writes.
    Capture,
    /// What makes one port of several NICs.
    Bond,
    /// A pipe.
    Pipe,
    /// A program of a pipeline.
    Program,
}

/// A line between two boxes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tie {
    /// One end.
    pub from: String,
    /// The other end.
    pub to: String,
    /// What it is.
    pub kind: TieKind,
    /// Words beside it; may be none.
    pub lines: Vec<String>,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TieKind {
    /// They are connected.
    Cable,
    /// A link: what shapes the traffic between two VMs.
    Link,
    /// Copies go from one to the other.
    Copies,
    /// Lines of text go from one to the other.
    Flow,
}

fn one<'s>(settings: &'s Settings, key: &str) -> Option<&'s str> {
    settings.get(key)?.first().map(String::as_str)
}

fn all<'s>(settings: &'s Settings, key: &str) -> &'s [String] {
    settings.get(key).map(Vec::as_slice).unwrap_or_default()
}

/// The VM or tap that a mirror's end is: `web.0` is NIC 0 of `web`.
fn end(text: &str) -> (String, Option<usize>) {
    match crate::spec::model::nic_of_vm(text) {
        Some((vm, nic)) => (format!("vm.{vm}"), Some(nic)),
        None => (format!("tap.{text}"), None),
    }
}

impl Topology {
    pub(super) fn tie(&mut self, kind: TieKind, from: &str, to: &str, lines: Vec<String>) {
        self.ties.push(Tie { from: from.to_owned(), to: to.to_owned(), kind, lines });
    }

    pub(super) fn part(&mut self, kind: PartKind, id: &str, lines: Vec<String>) {
        if !self.parts.iter().any(|part| part.id == id) {
            self.parts.push(Part { id: id.to_owned(), kind, lines });
        }
    }

    /// A bridge, which is drawn where something is said of it.
    fn bridge(&mut self, name: &str) -> String {
        let id = format!("bridge.{name}");
        self.part(PartKind::Bridge, &id, vec![format!("bridge {name}")]);
        id
    }

    /// Add an object that is a set of settings. Taps must be there already: a server is drawn at the tap that it listens on.
    pub fn add(&mut self, kind: Kind, name: &str, settings: &Settings) {
        let usual = BridgeName::default_bridge();
        let id = format!("{kind}.{name}");
        let on = one(settings, "bridge").unwrap_or(usual.as_str()).to_owned();
        match kind {
            Kind::Bridge => self.uplinks(name, settings),
            Kind::Nat => {
                let mut lines = vec![format!("nat {name}")];
                lines.extend(one(settings, "ip").map(str::to_owned));
                self.part(PartKind::Gateway, &id, lines);
                self.part(PartKind::Outside, "outside", vec!["outside".to_owned()]);
                let vlan = one(settings, "vlan").unwrap_or_default();
                let vlan = vlan_key(&self.alias_of(vlan), &on);
                self.name_vlan(&vlan);
                self.tie(TieKind::Cable, &format!("vlan.{vlan}"), &id, Vec::new());
                self.tie(TieKind::Cable, &id, "outside", Vec::new());
            }
            Kind::Dnsmasq => {
                let address = one(settings, "address").unwrap_or_default();
                let mut lines = vec![format!("dnsmasq {name}")];
                lines.extend((name != address && !address.is_empty()).then(|| address.to_owned()));
                if let [low, high] = all(settings, "range") {
                    lines.push(format!("{low} to {high}"));
                }
                self.part(PartKind::Server, &id, lines);
                let has = |label: &str| label.split(", ").any(|ip| ip.split('/').next() == Some(address));
                let tap = self.taps.iter().find(|tap| has(&tap.at.label)).map(|tap| format!("tap.{}", tap.name));
                if let Some(tap) = tap {
                    self.tie(TieKind::Cable, &tap, &id, Vec::new());
                }
            }
            Kind::Mirror => {
                let ends = [one(settings, "from"), one(settings, "to")].map(|text| end(text.unwrap_or_default()));
                let [(from, source), (to, destination)] = ends;
                let nics = source.zip(destination).map(|(from, to)| format!("nic {from} to nic {to}"));
                let lines = std::iter::once("mirror".to_owned()).chain(nics).collect();
                self.tie(TieKind::Copies, &from, &to, lines);
            }
            Kind::Capture => {
                let to = one(settings, "file").or(one(settings, "to")).unwrap_or_default();
                // Where a file is says less than its name.
                let short = to.rsplit('/').next().filter(|_| !to.contains("://")).unwrap_or(to);
                let netflow = one(settings, "type") == Some("netflow");
                let mut lines = vec![if netflow { "netflow" } else { "capture" }.to_owned(), short.to_owned()];
                lines.extend(one(settings, "filter").filter(|filter| !filter.is_empty()).map(str::to_owned));
                self.part(PartKind::Capture, &id, lines);
                match one(settings, "vm") {
                    Some(vm) => {
                        let nic = format!("nic {}", one(settings, "interface").unwrap_or("0"));
                        self.tie(TieKind::Copies, &format!("vm.{vm}"), &id, vec![nic]);
                    }
                    None => {
                        let bridge = self.bridge(&on);
                        self.tie(TieKind::Copies, &bridge, &id, Vec::new());
                    }
                }
            }
            Kind::Plumbing => {
                let elements = all(settings, "pipeline").to_vec();
                self.pipelines.push(PipelineView { name: name.to_owned(), elements, whole: false });
            }
            Kind::Pipe => {
                let mode = one(settings, "mode").filter(|mode| *mode != "all").map(str::to_owned);
                let log = one(settings, "log").filter(|log| *log == "true").map(|_| "logged".to_owned());
                let how: Vec<String> = mode.into_iter().chain(log).collect();
                let via = one(settings, "via").map(|via| format!("via {}", super::pipes::shortened(via)));
                let lines = (!how.is_empty()).then(|| how.join(", ")).into_iter().chain(via);
                let lines: Vec<String> = lines.collect();
                // One without settings is drawn where a pipeline has it.
                if !lines.is_empty() {
                    self.part(PartKind::Pipe, &id, [vec![format!("pipe {name}")], lines].concat());
                }
            }
            Kind::Bond => self.bond(&id, name, settings),
            Kind::Vlan | Kind::Tap | Kind::Vm | Kind::Placement | Kind::Command => {}
        }
    }

    /// A bond, between its NICs and their VLAN.
    fn bond(&mut self, id: &str, name: &str, settings: &Settings) {
        let mut lines = vec![format!("bond {name}")];
        lines.extend(one(settings, "mode").map(str::to_owned));
        let lacp = one(settings, "lacp").map(|lacp| format!("LACP {lacp}"));
        let qinq = one(settings, "qinq").map(|_| "qinq".to_owned());
        let more: Vec<String> = lacp.into_iter().chain(qinq).collect();
        lines.extend((!more.is_empty()).then(|| more.join(", ")));
        self.part(PartKind::Bond, id, lines);
        let vm = one(settings, "vm").unwrap_or_default();
        let mut vlans = Vec::new();
        for nic in all(settings, "nics").iter().filter_map(|nic| nic.parse::<usize>().ok()) {
            let nics = self.vms.iter_mut().find(|view| view.name == vm).map(|view| &mut view.nics);
            let Some(nic) = nics.and_then(|nics| nics.get_mut(nic)).filter(|nic| !nic.vlan.is_empty()) else {
                continue;
            };
            nic.bond = id.to_owned();
            vlans.push(nic.vlan.clone());
        }
        // A target may not tell which NICs it has.
        if vlans.is_empty() {
            self.tie(TieKind::Cable, id, &format!("vm.{vm}"), Vec::new());
        }
        for vlan in vlans {
            self.tie(TieKind::Cable, &format!("vlan.{vlan}"), id, Vec::new());
        }
    }

    fn uplinks(&mut self, name: &str, settings: &Settings) {
        let (trunks, tunnels) = (all(settings, "trunks"), all(settings, "tunnels"));
        if trunks.is_empty() && tunnels.is_empty() {
            return;
        }
        let bridge = self.bridge(name);
        for trunk in trunks {
            let id = format!("trunk.{trunk}");
            self.part(PartKind::Uplink, &id, vec![trunk.clone(), "trunk".to_owned()]);
            self.tie(TieKind::Cable, &bridge, &id, Vec::new());
        }
        for tunnel in tunnels {
            let mut words = tunnel.split(' ');
            let (kind, remote) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let id = format!("tunnel.{name}.{tunnel}");
            let key = words.next().map(|key| format!(", key {key}")).unwrap_or_default();
            self.part(PartKind::Uplink, &id, vec![remote.to_owned(), format!("{kind}{key}")]);
            self.tie(TieKind::Cable, &bridge, &id, Vec::new());
        }
    }

    /// A link between two NICs, and what shapes the traffic to each of them.
    pub(super) fn link(&mut self, ends: [(&str, usize); 2], shapes: [String; 2]) {
        let [(a, from), (b, to)] = ends;
        let mut lines = vec![format!("link {a}.{from} to {b}.{to}")];
        // What is done to a NIC is done to what goes to it.
        match shapes {
            [one, other] if one == other => lines.push(one),
            [to_a, to_b] => {
                let known = |text: String| if text.is_empty() { "as it is".to_owned() } else { text };
                lines.extend([format!("to {a}: {}", known(to_a)), format!("to {b}: {}", known(to_b))]);
            }
        }
        self.tie(TieKind::Link, &format!("vm.{a}"), &format!("vm.{b}"), lines);
    }

    /// Draw the pipelines, connect the bridges that are drawn with the VLANs on them, and leave out ties to what is not there.
    pub fn finish(&mut self) {
        self.pipe();
        let usual = BridgeName::default_bridge();
        let vlans = super::render::vlan_labels(self);
        let bridges: Vec<String> =
            self.parts.iter().filter_map(|part| Some(part.id.strip_prefix("bridge.")?.to_owned())).collect();
        for bridge in bridges {
            let on = |vlan: &&String| {
                vlan.rsplit_once(super::topology::ON).map_or(usual.as_str(), |(_, bridge)| bridge) == bridge
            };
            let on: Vec<&String> = vlans.keys().filter(on).collect();
            let id = format!("bridge.{bridge}");
            if on.len() <= CABLES {
                for vlan in on {
                    self.tie(TieKind::Cable, &format!("vlan.{vlan}"), &id, Vec::new());
                }
                continue;
            }
            // Lines to all of them would hide the others.
            let which = if on.len() == vlans.len() { "all VLANs" } else { "all VLANs of no other bridge" };
            let which = if bridge == usual.as_str() { which.to_owned() } else { format!("{} VLANs", on.len()) };
            let part = self.parts.iter_mut().find(|part| part.id == id).expect("it is one of them");
            part.lines.push(which);
        }
        let vms = self.vms.iter().map(|vm| format!("vm.{}", vm.name));
        let taps = self.taps.iter().map(|tap| format!("tap.{}", tap.name));
        let vlans = vlans.keys().map(|vlan| format!("vlan.{vlan}"));
        let parts = self.parts.iter().map(|part| part.id.clone());
        let known: std::collections::BTreeSet<String> = vms.chain(taps).chain(vlans).chain(parts).collect();
        self.ties.retain(|tie| known.contains(&tie.from) && known.contains(&tie.to));
    }
}
