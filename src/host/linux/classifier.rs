//! Programs on the frames that an interface takes in and sends out: the `clsact` qdisc and `cls_bpf` filters (tc(8),
//! tc-bpf(8)).
//!
//! Must not know what the programs do. Other filters of an interface, with other priorities, are left alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use nix::libc;

use super::netlink::Netlink;

/// Which frames of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Direction {
    /// Those that come in.
    Ingress,
    /// Those that go out.
    Egress,
}

impl Direction {
    pub(super) const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    fn parent(self) -> TcHandle {
        let minor = match self {
            Direction::Ingress => TcHandle::MIN_INGRESS,
            Direction::Egress => TcHandle::MIN_EGRESS,
        };
        TcHandle { major: TcHandle::CLSACT.major, minor }
    }
}

/// A filter's place on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot {
    pub direction: Direction,
    pub priority: u16,
    /// Not zero.
    pub handle: u32,
}

const CLSACT: &str = "clsact";

impl Netlink {
    /// Let a program decide about frames; one in the same place is replaced without a gap.
    pub(super) fn set_filter(&mut self, index: u32, slot: Slot, program: impl AsFd, name: &str) -> io::Result<()> {
        let mut qdisc = message(index);
        qdisc.header.parent = TcHandle::CLSACT;
        qdisc.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        qdisc.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
        match self.request(Message::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        let mut filter = filter(index, slot);
        let descriptor = program.as_fd().as_raw_fd().cast_unsigned();
        filter.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        filter.attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(descriptor)),
            TcOption::Bpf(TcFilterBpfOption::ProgName(name.to_owned())),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
        self.request(Message::NewTrafficFilter(filter), NLM_F_CREATE)
    }

    /// Take a filter away. None is fine.
    pub(super) fn remove_filter(&mut self, index: u32, slot: Slot) -> io::Result<()> {
        let mut filter = filter(index, slot);
        filter.attributes.push(TcAttribute::Kind("bpf".to_owned()));
        absent_is_fine(self.request(Message::DelTrafficFilter(filter), 0))
    }

    /// Take the qdisc away if no filter is left, of anybody.
    pub(super) fn tidy_filters(&mut self, index: u32) -> io::Result<()> {
        for direction in Direction::BOTH {
            if !self.filters(index, direction)?.is_empty() {
                return Ok(());
            }
        }
        let mut qdisc = message(index);
        qdisc.header.parent = TcHandle::CLSACT;
        qdisc.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        absent_is_fine(self.request(Message::DelQueueDiscipline(qdisc), 0))
    }

    /// The filters of an interface in one direction.
    pub(super) fn filters(&mut self, index: u32, direction: Direction) -> io::Result<Vec<Slot>> {
        let mut filter = message(index);
        filter.header.parent = direction.parent();
        let found = self.dump(Message::GetTrafficFilter(filter), |answer| match answer {
            Message::NewTrafficFilter(filter) => {
                let priority = (filter.header.info >> 16) as u16;
                Some(Slot { direction, priority, handle: filter.header.handle.into() })
            }
            _ => None,
        });
        match found {
            // There is no qdisc.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(Vec::new()),
            // Each priority has an entry of its own beside its filters.
            found => found.map(|mut slots| {
                slots.retain(|slot| slot.handle != 0);
                slots
            }),
        }
    }

    /// The interfaces that have the qdisc.
    pub(super) fn filtered(&mut self) -> io::Result<Vec<u32>> {
        self.dump(Message::GetQueueDiscipline(TcMessage::default()), |answer| match answer {
            Message::NewQueueDiscipline(qdisc) => {
                let clsact = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == CLSACT);
                qdisc.attributes.iter().any(clsact).then_some(qdisc.header.index.cast_unsigned())
            }
            _ => None,
        })
    }
}

fn message(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = index.cast_signed();
    message
}

fn filter(index: u32, slot: Slot) -> TcMessage {
    let mut filter = message(index);
    filter.header.parent = slot.direction.parent();
    filter.header.handle = slot.handle.into();
    // The protocol stands in network byte order.
    filter.header.info = u32::from(slot.priority) << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    filter
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(()),
        result => result,
    }
}
