//! Frames as they come from the kernel, made records of a file and brought into order.

use std::time::Duration;

use crate::host::linux::filter::Filter;
use crate::host::linux::packet_socket::Frame;
use crate::host::pcap::{Tag, push_record, push_tagged, set_time};

/// A clock that goes back by this was set.
const CLOCK_SET: Duration = Duration::from_secs(1);

/// Records on their way to the file.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) records: Vec<u8>,
    /// Time and end of each.
    pub(super) ends: Vec<(Duration, usize)>,
    scratch: Vec<u8>,
}

impl Collected {
    /// Put a frame behind the others, if the filter lets it through. `vlan` is the tag that it gets besides its own.
    pub(super) fn push(&mut self, frame: &Frame<'_>, vlan: Option<Tag>, filter: Option<&Filter>, snaplen: u32) {
        let tags: Vec<Tag> = vlan.into_iter().chain(frame.tag).collect();
        let Collected { records, ends, scratch } = self;
        let tagged = |scratch: &mut Vec<u8>, tags: &[Tag]| {
            scratch.clear();
            push_tagged(scratch, frame.bytes, tags);
        };
        if let Some(filter) = filter {
            let accepted = match &*tags {
                [] => filter.accepts(frame.bytes),
                [_] if !filter.tagged() => filter.accepts(frame.bytes),
                [_, inner @ ..] => {
                    tagged(scratch, if filter.tagged() { &tags } else { inner });
                    filter.accepts(scratch)
                }
            };
            if !accepted {
                return;
            }
        }
        let length = frame.length + tags.len() * size_of::<Tag>();
        if tags.is_empty() {
            push_record(records, frame.time, frame.bytes, length, snaplen);
        } else {
            tagged(scratch, &tags);
            push_record(records, frame.time, scratch, length, snaplen);
        }
        ends.push((frame.time, records.len()));
    }

    /// Put others behind these.
    pub(super) fn append(&mut self, others: &Collected) {
        let begin = self.records.len();
        self.records.extend_from_slice(&others.records);
        self.ends.extend(others.ends.iter().map(|(time, end)| (*time, begin + end)));
    }

    /// Bring records that were taken from several interfaces into the order of their times.
    pub(super) fn sort(&mut self) {
        if self.ends.is_sorted_by_key(|(time, _)| *time) {
            return;
        }
        let begins = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let mut places: Vec<_> =
            self.ends.iter().zip(begins).map(|((time, end), begin)| (*time, begin..*end)).collect();
        places.sort_by_key(|(time, _)| *time);
        let mut records = Vec::with_capacity(self.records.len());
        self.ends.clear();
        for (time, place) in places {
            records.extend_from_slice(&self.records[place]);
            self.ends.push((time, records.len()));
        }
        self.records = records;
    }

    /// Let no record be older than the one before it. The kernel gives the first frames after a while without any capture
    /// the time at which they are taken, not that at which they came. A clock that was set back stays so.
    pub(super) fn straighten(&mut self, last: &mut Duration) {
        let mut begin = 0;
        for (time, end) in &mut self.ends {
            if *time < *last && *last - *time < CLOCK_SET {
                *time = *last;
                set_time(&mut self.records[begin..*end], *time);
            }
            *last = *time;
            begin = *end;
        }
    }
}
