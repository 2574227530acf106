//! Trunks on bridges that know no VLANs. Each VLAN that is in use has a leg for each uplink: an end of a veth pair that is
//! a port of the VLAN's bridge. Programs do what VLAN devices would:
//!
//! * what the bridge sends out of a leg gets the tag and goes out of the uplink;
//! * what comes in by the uplink loses the tag and comes in by the leg of that tag. A frame of a VLAN that nobody here is
//!   on goes to the other uplinks of the bridge as it is, so that two trunks are connected as they are by one switch.
//!
//! VLAN 0 is what has no tag. The uplink itself is no port of anything, and nothing of it reaches the engine's own IP stack.
//! A leg's mark names its uplink, `megaform leg uplink=7`; its bridge is the record of its VLAN.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use super::PerVlan;
use crate::host::linux::bpf::{DROP, Field, Helper, INGRESS, Label, Program, Reg};
use crate::host::linux::classifier::{Direction, Slot};
use crate::host::linux::failure::{kernel, refused};
use crate::host::linux::netlink::Link;
use crate::host::linux::switch::mirrors::missing;
use crate::host::linux::switch::uplinks::{self, Uplink};
use crate::host::{NetworkError, Segment};
use crate::name::BridgeName;

const LEG: &str = "megaform leg uplink=";
/// The other end, which only gives the leg its carrier. The kernel fills in the number.
const END_NAME: &str = "megaend%d";
const PRIORITY: u16 = 110;
const HANDLE: u32 = 1;
/// The EtherType of a tag (IEEE 802.1Q), in network byte order.
const TAG: i32 = 0x8100_u16.to_be() as i32;
const TAG_MASK: i32 = 0x0fff;

const TO_UPLINK: Slot = Slot { direction: Direction::Egress, priority: PRIORITY, handle: HANDLE };
const FROM_UPLINK: Slot = Slot { direction: Direction::Ingress, priority: PRIORITY, handle: HANDLE };

/// The name of a leg. At most 15 characters.
fn leg_name(uplink: u32, vlan: u16) -> String {
    format!("ml{uplink:x}.{vlan}")
}

/// The index of the uplink that a leg is for.
fn uplink_of(link: &Link) -> Option<u32> {
    link.alias.strip_prefix(LEG)?.parse().ok()
}

/// Is it a leg?
pub(super) fn is_leg(link: &Link) -> bool {
    uplink_of(link).is_some()
}

/// Did a process that was killed leave this between making a leg and marking it?
pub(super) fn is_half_made(link: &Link) -> bool {
    link.is_pair() && link.alias.is_empty() && link.name.starts_with("ml") && link.name.contains('.')
}

impl PerVlan {
    /// Let each uplink of a bridge have a leg on each of its segments and no other, and know them.
    pub(super) fn join(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        let links = self.links()?;
        let uplinks = uplinks::of(&links, Some(bridge));
        self.has_uplinks = Some(!uplinks::of(&links, None).is_empty());
        let segments: BTreeMap<u32, Segment> = super::segments(&links).filter(|(_, s)| s.bridge == *bridge).collect();
        let (mut legs, mut surplus) = (BTreeMap::new(), Vec::new());
        for link in &links {
            let Some(uplink) = uplink_of(link) else { continue };
            let segment = link.master.and_then(|master| segments.get(&master));
            match segment {
                Some(segment) if uplinks.iter().any(|known| known.index == uplink) => {
                    legs.insert((uplink, segment.vlan.get()), link.index);
                }
                Some(_) => surplus.push(link),
                // Of a bridge that is gone, or of another user's bridge.
                None if link.master.is_none() => surplus.push(link),
                None => {}
            }
        }
        for link in surplus {
            self.netlink.delete_link(link.index).map_err(kernel(format!("delete {}", link.name)))?;
        }
        let mut made = Vec::new();
        let result = self.join_all(&uplinks, &segments, &mut legs, &mut made);
        if result.is_err() {
            for index in made {
                // Best effort: the first error is what the caller needs to know.
                let _ = self.netlink.delete_link(index);
            }
        }
        result
    }

    fn join_all(
        &mut self,
        uplinks: &[Uplink],
        segments: &BTreeMap<u32, Segment>,
        legs: &mut BTreeMap<(u32, u16), u32>,
        made: &mut Vec<u32>,
    ) -> Result<(), NetworkError> {
        for uplink in uplinks {
            for (&bridge, segment) in segments {
                let vlan = segment.vlan.get();
                if let std::collections::btree_map::Entry::Vacant(free) = legs.entry((uplink.index, vlan)) {
                    free.insert(self.make_leg(uplink, bridge, vlan, made)?);
                }
            }
        }
        for uplink in uplinks {
            let own = legs.iter().filter(|((index, _), _)| *index == uplink.index);
            let own: BTreeMap<u16, u32> = own.map(|((_, vlan), leg)| (*vlan, *leg)).collect();
            let others: Vec<u32> = uplinks.iter().map(|u| u.index).filter(|&index| index != uplink.index).collect();
            self.program(uplink.index, FROM_UPLINK, from_uplink(&own, &others), &uplink.name)?;
        }
        made.iter().try_for_each(|&leg| self.settle(leg, "a trunk"))
    }

    /// Take a bridge's uplink away with its legs: it is an interface like any other again.
    pub(super) fn part(&mut self, uplink: &Uplink) -> Result<(), NetworkError> {
        let what = || kernel(format!("take {} off bridge {}", uplink.name, uplink.bridge));
        self.netlink.remove_filter(uplink.index, FROM_UPLINK).map_err(what())?;
        self.netlink.tidy_filters(uplink.index).map_err(what())?;
        uplinks::give_back(&mut self.netlink, uplink)?;
        // The legs have lost their uplink.
        self.join(&uplink.bridge)
    }

    /// Delete the legs on these segments' bridges.
    pub(super) fn cut(&mut self, bridges: &BTreeSet<u32>) -> Result<(), NetworkError> {
        for link in self.links()? {
            if is_leg(&link) && link.master.is_some_and(|master| bridges.contains(&master)) {
                self.netlink.delete_link(link.index).map_err(kernel(format!("delete {}", link.name)))?;
            }
        }
        Ok(())
    }

    fn make_leg(&mut self, uplink: &Uplink, bridge: u32, vlan: u16, made: &mut Vec<u32>) -> Result<u32, NetworkError> {
        let what = || kernel(format!("join VLAN {vlan} to {}", uplink.name));
        let name = leg_name(uplink.index, vlan);
        self.netlink.create_veth(&name, END_NAME).map_err(what())?;
        let leg = self.find(&name)?.ok_or_else(|| NetworkError::NotFound { tap: name.clone() })?;
        made.push(leg.index);
        self.mark(&leg, &format!("{LEG}{}", uplink.index))?;
        let program = to_uplink(uplink.index, vlan);
        self.program(leg.index, TO_UPLINK, program, &uplink.name)?;
        if let Some(end) = leg.peer {
            self.netlink.no_link_local(end).map_err(what())?;
            self.netlink.set_up(end, true).map_err(what())?;
        }
        self.enslave(leg.index, bridge, &uplink.name)?;
        Ok(leg.index)
    }

    fn program(&mut self, index: u32, slot: Slot, program: Program, uplink: &str) -> Result<(), NetworkError> {
        let feature = "join VLANs to a trunk";
        let what = format!("load the program of {uplink}");
        let program: OwnedFd = program.load_classifier().map_err(refused(what, feature, "CONFIG_BPF_SYSCALL"))?;
        let set = self.netlink.set_filter(index, slot, &program, "megaform trunk");
        set.map_err(missing(format!("attach the program of {uplink}"), feature))
    }
}

/// The program of a leg: put the tag on and send the frame out of the uplink.
fn to_uplink(uplink: u32, vlan: u16) -> Program {
    let mut program = Program::new();
    let drop = program.label();
    if vlan != 0 {
        // The context is in R1 from the start.
        program.set(Reg::R2, TAG);
        program.set(Reg::R3, i32::from(vlan));
        program.call(Helper::VlanPush);
        program.jump_if_not_equal(Reg::R0, 0, drop);
    }
    program.set(Reg::R1, uplink.cast_signed());
    program.set(Reg::R2, 0);
    program.call(Helper::Redirect);
    program.exit();
    if vlan != 0 {
        program.place(drop);
        program.set(Reg::R0, DROP);
        program.exit();
    }
    program
}

/// The program of an uplink: take the tag off and let the frame in by the leg of that VLAN; what has no leg goes to the other
/// uplinks.
fn from_uplink(legs: &BTreeMap<u16, u32>, others: &[u32]) -> Program {
    let mut program = Program::new();
    let [pass_on, drop] = std::array::from_fn(|_| program.label());
    program.copy(Reg::R6, Reg::R1);
    // The kernel refuses instructions that nothing leads to.
    if !legs.is_empty() {
        enter(&mut program, legs, pass_on, drop);
    }
    program.place(pass_on);
    for other in others {
        program.copy(Reg::R1, Reg::R6);
        program.set(Reg::R2, other.cast_signed());
        program.set(Reg::R3, 0);
        program.call(Helper::CloneRedirect);
    }
    program.place(drop);
    program.set(Reg::R0, DROP);
    program.exit();
    program
}

/// The part of [`from_uplink`] for the VLANs that have a leg, at least one.
fn enter(program: &mut Program, legs: &BTreeMap<u16, u32>, pass_on: Label, drop: Label) {
    let [untagged, pop, enter] = std::array::from_fn(|_| program.label());
    program.load(Reg::R2, Reg::R6, Field::VlanPresent);
    program.jump_if_equal(Reg::R2, 0, untagged);
    program.load(Reg::R2, Reg::R6, Field::VlanProtocol);
    program.jump_if_not_equal(Reg::R2, TAG, untagged);
    program.load(Reg::R7, Reg::R6, Field::VlanTci);
    program.and(Reg::R7, TAG_MASK);
    let legs_by_tag: Vec<(u16, u32)> = legs.iter().map(|(vlan, leg)| (*vlan, *leg)).collect();
    search(program, &legs_by_tag, pop, pass_on);

    program.place(pop);
    program.copy(Reg::R1, Reg::R6);
    program.call(Helper::VlanPop);
    program.jump_if_not_equal(Reg::R0, 0, drop);
    program.jump(enter);
    program.place(untagged);
    match legs.get(&0) {
        Some(leg) => program.set(Reg::R7, leg.cast_signed()),
        None => program.jump(pass_on),
    }
    program.place(enter);
    program.copy(Reg::R1, Reg::R7);
    program.set(Reg::R2, INGRESS);
    program.call(Helper::Redirect);
    program.exit();
}

/// Find the tag in R7 among `legs`, which are sorted: with the leg in R7 at `found`, or at `absent`.
fn search(program: &mut Program, legs: &[(u16, u32)], found: Label, absent: Label) {
    match legs {
        [] => program.jump(absent),
        [(vlan, leg)] => {
            program.jump_if_not_equal(Reg::R7, i32::from(*vlan), absent);
            program.set(Reg::R7, leg.cast_signed());
            program.jump(found);
        }
        legs => {
            let (lower, upper) = legs.split_at(legs.len() / 2);
            let above = program.label();
            program.jump_if_greater(Reg::R7, i32::from(lower[lower.len() - 1].0), above);
            search(program, lower, found, absent);
            program.place(above);
            search(program, upper, found, absent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::linux::testing::root;

    #[test]
    fn the_kernel_accepts_the_programs() {
        if !root() {
            return;
        }
        for count in [0, 1, 2, 7, 4096] {
            let legs: BTreeMap<u16, u32> = (0..count).map(|vlan| (vlan, u32::from(vlan) + 10)).collect();
            for others in [&[][..], &[1, 2]] {
                from_uplink(&legs, others).load_classifier().unwrap();
            }
        }
        to_uplink(3, 0).load_classifier().unwrap();
        to_uplink(3, 4095).load_classifier().unwrap();
    }
}
