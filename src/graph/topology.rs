//! What a picture of a network shows, wherever it comes from: an experiment file or what is running.

use crate::name::VlanTag;
use crate::spec::model::{Experiment, VlanRef};

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
}

/// A VLAN. Endpoints name it by its alias, or by its tag as text if it has none.
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
    /// The VLAN's alias or its tag as text; empty for not connected.
    pub vlan: String,
    /// Words about it, such as its MAC address; may be empty.
    pub label: String,
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
        let vms = experiment.vms.iter().map(|(vm_name, vm)| VmView {
            name: vm_name.to_string(),
            state: vm.body.state.word().to_owned(),
            depends_on: vm.body.depends_on.iter().map(|d| d.value.to_string()).collect(),
            details: vec![format!("{} MB, {} CPU", vm.body.config.uint("memory"), vm.body.config.uint("vcpus"))],
            nics: vm
                .body
                .networks
                .iter()
                .map(|nic| Endpoint {
                    vlan: name(&nic.vlan),
                    label: nic.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                })
                .collect(),
        });
        let taps = experiment.taps.iter().map(|(tap_name, tap)| TapView {
            name: tap_name.to_string(),
            at: Endpoint {
                vlan: name(&tap.vlan),
                label: tap.ip.as_ref().map(|ip| format!("{}/{}", ip.0, ip.1)).unwrap_or_default(),
            },
        });
        Self { title: experiment.name.to_string(), vlans: vlans.collect(), vms: vms.collect(), taps: taps.collect() }
    }
}
