//! What connects ports: the trait that each kind of switch carries out, in terms of interfaces of the engine's network
//! namespace. [`Ports`](super::ports::Ports) makes and deletes the interfaces, a switch only connects them.
//!
//! Must not know who is behind a port. Nothing is kept in memory: a switch finds what it needs in the kernel, or in its
//! own database, so that a restarted daemon goes on where the last one ended.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::failure::kernel;
use super::netlink::{Link, Netlink};
use super::vlan_filter;
use crate::host::{Bond, BridgeInfo, Netflow, NetworkError, Segment, SwitchChoice, Tunnel};
use crate::name::{BridgeName, TapName, VlanTag};

mod filtering;
mod mirrors;
mod openvswitch;
mod per_vlan;
mod uplinks;

use openvswitch::OpenVswitch;

/// An interface of the engine that is, or is to be, a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SwitchPort {
    pub index: u32,
    /// Its name: for a VM that of the tap, for a host tap that of the other end of its pair.
    pub interface: String,
    /// The tap that it belongs to, for messages.
    pub tap: String,
    /// The interface that it was a port of when it was looked up.
    pub master: Option<u32>,
    /// It was just made, so that what a switch knows of its name is of an earlier one.
    pub fresh: bool,
}

/// An interface to listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ear {
    pub index: u32,
    /// The VLAN of everything that is heard there; None if there is none, or if the frames carry their tags.
    pub vlan: Option<VlanTag>,
    /// It must be asked for frames that are not for itself.
    pub promiscuous: bool,
}

/// A switch. What it cannot do is [`NetworkError::Unsupported`], which names a switch that can.
pub(super) trait Switch {
    /// What `check` calls it, such as `Linux bridges, one for each VLAN`.
    fn kind(&self) -> &'static str;
    /// Connect ports, wherever they are now, in one transaction: on failure all of them are where they were. They are up
    /// and pass frames when this returns.
    fn plug(&mut self, ports: &[(SwitchPort, Segment)]) -> Result<(), NetworkError>;
    /// Disconnect ports, which stay, in one transaction; their links are down.
    fn unplug(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError>;
    /// The interfaces of these ports are about to be deleted.
    fn deleting(&mut self, _ports: &[SwitchPort]) -> Result<(), NetworkError> {
        Ok(())
    }
    /// The interfaces of these ports have been deleted: give up what only they needed.
    fn deleted(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError>;
    /// Where the engine's ports are, by the index of their interface; ports that are disconnected are left out. `links`
    /// are all interfaces of the namespace.
    fn placed(&mut self, links: &[Link]) -> Result<HashMap<u32, Segment>, NetworkError>;
    /// Give up what nobody needs.
    fn sweep(&mut self) -> Result<(), NetworkError>;
    /// Delete what a process that was killed has left between making something and marking it. Only called in a
    /// namespace of the engine's own.
    fn sweep_half_made(&mut self) -> Result<(), NetworkError>;
    /// Called every second: bring back what the switch runs and has found dead. True if anything was brought back since the
    /// last time, so that interfaces that the switch makes may be other ones.
    fn tend(&mut self) -> Result<bool, NetworkError> {
        Ok(false)
    }
    /// The namespace is about to go: end what the switch runs and remove what it wrote.
    fn end(&mut self) -> Result<(), NetworkError> {
        Ok(())
    }
    /// Whether frames cross the switch as they are, so that whoever sends them must compute all checksums.
    fn plain_frames(&self) -> bool {
        false
    }

    /// Every bridge, by name.
    fn bridges(&mut self) -> Result<Vec<BridgeInfo>, NetworkError> {
        Err(self.cannot("list bridges"))
    }
    /// Set `key=value` settings of a bridge, which is made if there is none.
    fn configure(&mut self, _bridge: &BridgeName, _config: &str) -> Result<(), NetworkError> {
        Err(self.cannot_but_openvswitch("configure a bridge"))
    }
    /// Let an interface carry all VLANs of a bridge with their tags. The bridge is made if there is none.
    fn trunk(&mut self, _bridge: &BridgeName, _interface: &TapName) -> Result<(), NetworkError> {
        Err(self.cannot("add a trunk"))
    }
    /// Take a trunk off its bridge.
    fn untrunk(&mut self, _bridge: &BridgeName, _interface: &TapName) -> Result<(), NetworkError> {
        Err(self.cannot("remove a trunk"))
    }
    /// Make a tunnel that is a trunk of a bridge, and answer with the name of its interface.
    fn tunnel(&mut self, _bridge: &BridgeName, _tunnel: &Tunnel) -> Result<String, NetworkError> {
        Err(self.cannot("make a tunnel"))
    }
    /// Delete a tunnel of a bridge by the name of its interface.
    fn untunnel(&mut self, _bridge: &BridgeName, _interface: &TapName) -> Result<(), NetworkError> {
        Err(self.cannot("delete a tunnel"))
    }
    /// Delete a bridge, which has no ports, with its trunks and tunnels.
    fn destroy(&mut self, _bridge: &BridgeName) -> Result<(), NetworkError> {
        Err(self.cannot("destroy a bridge"))
    }
    /// Copy what passes one port, in both directions, out of another.
    fn mirror(&mut self, _source: &SwitchPort, _destination: &SwitchPort) -> Result<(), NetworkError> {
        Err(self.cannot("mirror a port"))
    }
    /// End the mirror to a port. No mirror is fine.
    fn unmirror(&mut self, _destination: &SwitchPort) -> Result<(), NetworkError> {
        Err(self.cannot("mirror a port"))
    }
    /// The mirrors, source and destination by the index of their interface.
    fn mirrors(&mut self) -> Result<Vec<(u32, u32)>, NetworkError> {
        Ok(Vec::new())
    }
    /// Let exactly these bridges be heard, and say where: every frame that crosses one of them is heard once, at one of the
    /// interfaces given for it. A bridge that is not there yet has none. `links` as for `placed`.
    fn hear(
        &mut self,
        bridges: &BTreeSet<BridgeName>,
        _links: &[Link],
    ) -> Result<Vec<(BridgeName, Ear)>, NetworkError> {
        if bridges.is_empty() { Ok(Vec::new()) } else { Err(self.cannot("capture what crosses a bridge")) }
    }
    /// Make one port of several.
    fn bond(&mut self, _ports: &[SwitchPort], _segment: &Segment, _bond: &Bond) -> Result<(), NetworkError> {
        Err(self.cannot_but_openvswitch("make a bond"))
    }
    /// Make a bond's ports single ones again.
    fn unbond(&mut self, _name: &TapName) -> Result<(), NetworkError> {
        Err(self.cannot_but_openvswitch("make a bond"))
    }
    /// The bonds, by name.
    fn bonds(&mut self) -> Result<Vec<Bond>, NetworkError> {
        Ok(Vec::new())
    }
    /// Can it send flow records at all?
    fn exports_flows(&self) -> bool {
        false
    }
    /// Send flow records of a bridge, or stop it.
    fn netflow(&mut self, _bridge: &BridgeName, _settings: Option<&Netflow>) -> Result<(), NetworkError> {
        Err(self.cannot_but_openvswitch("export netflow"))
    }

    /// The error for what this switch does not do.
    fn cannot(&self, what: &str) -> NetworkError {
        NetworkError::Unsupported { what: what.to_owned(), missing: format!("its switch ({}) does not", self.kind()) }
    }
    /// The error for what only Open vSwitch does.
    fn cannot_but_openvswitch(&self, what: &str) -> NetworkError {
        let missing = format!("its switch is {}; `megaform daemon --switch openvswitch` can", self.kind());
        NetworkError::Unsupported { what: what.to_owned(), missing }
    }
}

/// A form of the Linux switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The one for this kernel.
    Auto,
    /// A bridge for each VLAN.
    #[cfg(test)]
    PerVlan,
    /// A bridge that filters VLANs.
    #[cfg(test)]
    Filtering,
}

/// The switch that was chosen, for the calling thread's network namespace. `folder` is where one that runs programs may
/// write; None in the host's namespace, where it uses those that run.
pub(super) fn open(choice: &SwitchChoice, form: Form, folder: Option<&Path>) -> Result<Box<dyn Switch>, NetworkError> {
    match choice {
        SwitchChoice::Linux => linux(form),
        SwitchChoice::OpenVswitch { socket } => Ok(Box::new(match (folder, socket) {
            (Some(folder), None) => OpenVswitch::own(folder)?,
            (_, socket) => OpenVswitch::running(socket.as_deref())?,
        })),
    }
}

/// The Linux switch in the calling thread's network namespace.
fn linux(form: Form) -> Result<Box<dyn Switch>, NetworkError> {
    let mut netlink = Netlink::open().map_err(kernel("open a netlink socket"))?;
    let filtering = match form {
        // Bridges of the other form, which an earlier release has left, are taken as they are.
        Form::Auto => vlan_filter::available() && !per_vlan::is_used(&mut netlink)?,
        #[cfg(test)]
        Form::PerVlan => false,
        #[cfg(test)]
        Form::Filtering => true,
    };
    Ok(if filtering { Box::new(filtering::Filtering::new(netlink)) } else { Box::new(per_vlan::PerVlan::new(netlink)) })
}
