//! Mirrors: a filter on the watched port, in each direction, that sends a copy of every frame out of another port.
//!
//! The kernel's filters are the only record: their priority says what they are, their handle is the index of the
//! interface that gets the copies. They stay with the port wherever it is plugged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::SwitchPort;
use crate::host::NetworkError;
use crate::host::linux::bpf::{Helper, Program, Reg, UNSPEC};
use crate::host::linux::classifier::{Direction, Slot};
use crate::host::linux::failure::{kernel, refused};
use crate::host::linux::netlink::Netlink;

/// Mirrors see a frame before filters of a greater number do anything to it.
const PRIORITY: u16 = 109;

fn slots(destination: u32) -> [Slot; 2] {
    Direction::BOTH.map(|direction| Slot { direction, priority: PRIORITY, handle: destination })
}

/// Every mirror, source and destination.
pub(super) fn list(netlink: &mut Netlink) -> Result<Vec<(u32, u32)>, NetworkError> {
    let find = |netlink: &mut Netlink| -> io::Result<Vec<(u32, u32)>> {
        let mut found = Vec::new();
        for source in netlink.filtered()? {
            let slots = netlink.filters(source, Direction::Ingress)?;
            found.extend(slots.iter().filter(|slot| slot.priority == PRIORITY).map(|slot| (source, slot.handle)));
        }
        found.sort_unstable();
        Ok(found)
    };
    find(netlink).map_err(kernel("list mirrors"))
}

/// Begin a mirror. One that exists is fine.
pub(super) fn add(netlink: &mut Netlink, source: &SwitchPort, destination: &SwitchPort) -> Result<(), NetworkError> {
    let (from, to) = (source.index, destination.index);
    if circular(&list(netlink)?, from, to) {
        return Err(NetworkError::Kernel {
            what: format!("mirror {} to {}", source.tap, destination.tap),
            source: io::Error::new(io::ErrorKind::InvalidInput, "what the one sends would come back to it without end"),
        });
    }
    let program = copy_to(to).load_classifier().map_err(refused(
        format!("load the program that mirrors {}", source.tap),
        "mirror a tap",
        "CONFIG_BPF_SYSCALL",
    ))?;
    for slot in slots(to) {
        let set = netlink.set_filter(from, slot, &program, &format!("megaform mirror {}", destination.tap));
        if let Err(error) = set {
            // Best effort: the first error is what the caller needs to know.
            let _ = remove(netlink, from, to);
            let what = format!("mirror {} to {}", source.tap, destination.tap);
            return Err(missing(what, "mirror a tap")(error));
        }
    }
    Ok(())
}

/// Where the qdisc or the kind of filter is missing the kernel says ENOENT, not EOPNOTSUPP.
pub(super) fn missing(what: String, feature: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |error| match error.raw_os_error() {
        Some(nix::libc::ENOENT) => NetworkError::Unsupported {
            what: feature.to_owned(),
            missing:
                "the kernel options CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF (modules sch_ingress and cls_bpf)"
                    .to_owned(),
        },
        _ => kernel(what)(error),
    }
}

/// End a mirror. None is fine.
pub(super) fn remove(netlink: &mut Netlink, source: u32, destination: u32) -> Result<(), NetworkError> {
    for slot in slots(destination) {
        netlink.remove_filter(source, slot).map_err(kernel("end a mirror"))?;
    }
    netlink.tidy_filters(source).map_err(kernel("end a mirror"))
}

/// End every mirror to one of these interfaces; those from them end with them. False if no mirror is left at all.
pub(super) fn remove_to(netlink: &mut Netlink, destinations: &BTreeSet<u32>) -> Result<bool, NetworkError> {
    let mut left = false;
    for (source, destination) in list(netlink)? {
        if destinations.contains(&destination) {
            remove(netlink, source, destination)?;
        } else {
            left = true;
        }
    }
    Ok(left)
}

/// Would this mirror close a circle?
fn circular(mirrors: &[(u32, u32)], source: u32, destination: u32) -> bool {
    let mut onward: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for &(from, to) in mirrors {
        onward.entry(from).or_default().push(to);
    }
    let (mut seen, mut next) = (BTreeSet::new(), vec![destination]);
    while let Some(at) = next.pop() {
        if at == source {
            return true;
        }
        if seen.insert(at) {
            next.extend(onward.get(&at).into_iter().flatten());
        }
    }
    false
}

/// Send a copy of the frame out of an interface, and let it go on its way.
fn copy_to(interface: u32) -> Program {
    let mut program = Program::new();
    // The context is in R1 from the start.
    program.set(Reg::R2, interface.cast_signed());
    program.set(Reg::R3, 0);
    program.call(Helper::CloneRedirect);
    program.set(Reg::R0, UNSPEC);
    program.exit();
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found() {
        assert!(circular(&[], 1, 1));
        assert!(circular(&[(2, 3), (3, 1)], 1, 2));
        assert!(!circular(&[(2, 3), (2, 4), (4, 3)], 1, 2));
        assert!(!circular(&[(1, 2)], 1, 2), "the same again");
    }
}
