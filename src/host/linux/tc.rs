//! `host::Shaping` by queueing disciplines on a tap, over rtnetlink (tc(8), tc-tbf(8), tc-netem(8)).
//!
//! A rate alone is a token bucket filter, because every kernel has that. Anything else is one netem, which has a rate of its
//! own: netem over a filter would take two steps, of which the second could fail.
//!
//! A qdisc is put in place of another one in one step. Its handle says that it is the engine's.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, Nla};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use nix::libc;

use super::failure::kernel;
use super::netlink::Link;
use super::network::LinuxNetwork;
use super::ports::Ports;
use crate::host::{NetworkError, Reshape, Shaping};
use crate::name::{Delay, Loss, Rate, Shape};

/// The disciplines that a shape is made of.
const KINDS: [&str; 2] = ["tbf", "netem"];
/// The major number of a filter's handle: "mr".
const RATE: u16 = 0x6d72;
/// The major number of a netem's handle: "mn".
const NETEM: u16 = 0x6d6e;

/// linux/rtnetlink.h
const TCA_OPTIONS: u16 = 2;
/// linux/pkt_sched.h
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_NETEM_RATE: u16 = 6;
const TCA_NETEM_RATE64: u16 = 8;
const TCA_NETEM_LATENCY64: u16 = 10;
const TCA_NETEM_JITTER64: u16 = 11;
/// The unit of the kernel's scheduler clock in nanoseconds (`PSCHED_SHIFT`).
const TICK: u64 = 64;
/// `TC_LINKLAYER_ETHERNET`: no table of transmission times is sent.
const ETHERNET: u8 = 1;

/// The longest frame without a VLAN tag, in bytes.
const FRAME: u64 = 1514;
/// How long frames wait at most for their turn at a rate. More than a TCP flow across a continent needs, less than what
/// makes a line useless.
const QUEUE: Duration = Duration::from_millis(100);
/// How many frames netem holds where no rate limits them: 100 ms at 2.4 Gbit/s.
const NETEM_LIMIT: u32 = 20_000;

impl Shaping for LinuxNetwork {
    fn shape(&self, changes: &[Reshape]) -> Result<(), NetworkError> {
        let Some(first) = changes.first() else { return Ok(()) };
        let lost = NetworkError::NotFound { tap: first.tap.to_string() };
        let changes = changes.to_vec();
        self.inside(false, move |ports| ports.reshape(&changes))?.ok_or(lost)
    }
}

impl Ports {
    fn reshape(&mut self, changes: &[Reshape]) -> Result<(), NetworkError> {
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = self.set_shape(change, &change.to) {
                for change in changes[..done].iter().rev() {
                    // Best effort: the first error is what the caller needs to know.
                    let _ = self.set_shape(change, &change.from);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn set_shape(&mut self, change: &Reshape, shape: &Shape) -> Result<(), NetworkError> {
        let name = &change.tap;
        let tap = self.ours(name)?;
        let port = self.port_of(&tap)?.index;
        let Some((kind, handle, options)) = discipline(shape) else {
            return self.clear_shape(port).map_err(kernel(format!("take the shape off {name}")));
        };
        let mut message = qdisc(port);
        message.header.handle = TcHandle { major: handle, minor: 0 };
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        message.attributes.push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)));
        let sent = self.netlink.request(Message::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_REPLACE);
        sent.map_err(|error| match error.raw_os_error() {
            // That is how the kernel says that it has no such discipline.
            Some(libc::ENOENT) => missing(kind),
            _ => kernel(format!("shape {name}"))(error),
        })
    }

    /// The shapes of interfaces, by index, whoever has given them; those without are left out. Where the links show that
    /// there are none, nothing is asked.
    pub(super) fn shapes(&mut self, links: &[Link]) -> Result<HashMap<u32, Shape>, NetworkError> {
        if !links.iter().any(|link| KINDS.contains(&link.qdisc.as_str())) {
            return Ok(HashMap::new());
        }
        let found = self.netlink.dump(Message::GetQueueDiscipline(TcMessage::default()), |answer| match answer {
            Message::NewQueueDiscipline(qdisc) if qdisc.header.parent == TcHandle::ROOT => {
                Some((qdisc.header.index.cast_unsigned(), read(&qdisc.attributes)?))
            }
            _ => None,
        });
        Ok(found.map_err(kernel("list queueing disciplines"))?.into_iter().collect())
    }

    fn clear_shape(&mut self, port: u32) -> io::Result<()> {
        match self.netlink.request(Message::DelQueueDiscipline(qdisc(port)), 0) {
            // There is none but the kernel's own.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => Ok(()),
            result => result,
        }
    }
}

/// A message about the discipline that everything goes through which leaves an interface.
fn qdisc(port: u32) -> TcMessage {
    let mut message = TcMessage::with_index(i32::try_from(port).expect("an interface index is a positive int"));
    message.header.parent = TcHandle::ROOT;
    message
}

fn missing(kind: &str) -> NetworkError {
    let (what, option) = match kind {
        "netem" => ("delay or drop frames", "CONFIG_NET_SCH_NETEM (module sch_netem)"),
        _ => ("limit a rate", "CONFIG_NET_SCH_TBF (module sch_tbf)"),
    };
    NetworkError::Unsupported { what: what.to_owned(), missing: format!("the kernel option {option}") }
}

/// The kind, the major number and the options of the discipline for a shape; None for no shape.
fn discipline(shape: &Shape) -> Option<(&'static str, u16, Vec<u8>)> {
    match shape {
        Shape { rate: None, delay: None, jitter: None, loss: None } => None,
        Shape { rate: Some(rate), delay: None, jitter: None, loss: None } => Some(("tbf", RATE, filter(*rate))),
        shape => Some(("netem", NETEM, netem(shape))),
    }
}

/// The shape that a discipline gives; None for one of another kind.
fn read(attributes: &[TcAttribute]) -> Option<Shape> {
    let kind = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })?;
    let options = attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Other(all) if all.kind() == TCA_OPTIONS => Some(value(all)),
            _ => None,
        }),
        _ => None,
    })?;
    match kind {
        "tbf" => Some(read_filter(&options)),
        "netem" => Some(read_netem(&options)),
        _ => None,
    }
}

fn value(attribute: &DefaultNla) -> Vec<u8> {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value
}

/// The values of attributes (netlink(7)) by their kind, up to what is none.
fn attributes(mut bytes: &[u8]) -> HashMap<u16, &[u8]> {
    let mut found = HashMap::new();
    while let (Some(length), Some(kind)) = (number::<2>(bytes, 0), number::<2>(bytes, 2)) {
        let length = usize::from(u16::from_ne_bytes(length));
        let Some(value) = bytes.get(4..length) else { break };
        found.insert(u16::from_ne_bytes(kind), value);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The bytes of a number.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u64_of(found: &HashMap<u16, &[u8]>, kind: u16) -> Option<u64> {
    number(found.get(&kind)?, 0).map(u64::from_ne_bytes)
}

/// The rate in a `struct tc_ratespec` at the start of an attribute, or in the attribute that has what does not fit there.
fn rate_of(found: &HashMap<u16, &[u8]>, small: u16, large: u16, at: usize) -> Option<Rate> {
    let small = || number(found.get(&small)?, at).map(u32::from_ne_bytes).map(u64::from);
    u64_of(found, large).or_else(small).filter(|bytes| *bytes > 0).map(Rate::of_bytes)
}

fn read_filter(options: &[u8]) -> Shape {
    let found = attributes(options);
    Shape { rate: rate_of(&found, TCA_TBF_PARMS, TCA_TBF_RATE64, 8), ..Shape::default() }
}

fn read_netem(options: &[u8]) -> Shape {
    /// The length of `struct tc_netem_qopt`, which stands before the attributes.
    const QOPT: usize = 24;
    let word = |at| number(options, at).map(u32::from_ne_bytes).unwrap_or_default();
    let found = attributes(options.get(QOPT..).unwrap_or_default());
    // A kernel without the long ones counts in ticks.
    let delay = |kind, short| {
        let nanos = u64_of(&found, kind).unwrap_or_else(|| u64::from(word(short)) * TICK);
        (nanos > 0).then(|| Delay::of(Duration::from_nanos(nanos)))
    };
    let loss = Loss::of_share(f64::from(word(8)) / f64::from(u32::MAX));
    Shape {
        rate: rate_of(&found, TCA_NETEM_RATE, TCA_NETEM_RATE64, 0),
        delay: delay(TCA_NETEM_LATENCY64, 0),
        jitter: delay(TCA_NETEM_JITTER64, 20),
        loss: Some(loss).filter(|loss| loss.share() > 0.0),
    }
}

/// Bytes that pass at a rate in a time.
fn bytes(rate: Rate, time: Duration) -> u64 {
    let bytes = u128::from(rate.bits()) * time.as_nanos() / 8 / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn saturated(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The options of a token bucket filter. Bursts are 10 ms at the rate, and two frames at least.
fn filter(rate: Rate) -> Vec<u8> {
    let per_second = bytes(rate, Duration::from_secs(1));
    let burst = bytes(rate, Duration::from_millis(10)).max(2 * FRAME);
    let limit = burst + bytes(rate, QUEUE).max(10 * FRAME);
    let mut parameters = ratespec(per_second);
    parameters.extend(ratespec(0)); // no peak rate
    parameters.extend(saturated(limit).to_ne_bytes());
    parameters.extend(saturated(burst * 1_000_000_000 / per_second.max(1) / TICK).to_ne_bytes());
    parameters.extend(0u32.to_ne_bytes()); // the burst at the peak rate
    let mut options = Vec::new();
    put(&mut options, TCA_TBF_PARMS, &parameters);
    put(&mut options, TCA_TBF_RATE64, &per_second.to_ne_bytes());
    put(&mut options, TCA_TBF_BURST, &saturated(burst).to_ne_bytes());
    options
}

/// `struct tc_ratespec`: cell_log, linklayer, overhead, cell_align, mpu, rate.
fn ratespec(per_second: u64) -> Vec<u8> {
    let mut spec = vec![0, if per_second == 0 { 0 } else { ETHERNET }, 0, 0, 0, 0, 0, 0];
    spec.extend(saturated(per_second).to_ne_bytes());
    spec
}

/// The options of a netem: `struct tc_netem_qopt` (latency, limit, loss, gap, duplicate, jitter), then attributes.
fn netem(shape: &Shape) -> Vec<u8> {
    let nanos = |delay: Option<crate::name::Delay>| {
        i64::try_from(delay.map_or(0, |delay| delay.get().as_nanos())).expect("a delay is minutes at most")
    };
    let (delay, jitter) = (nanos(shape.delay), nanos(shape.jitter));
    let held = Duration::from_nanos((delay + jitter).unsigned_abs());
    let limit = shape.rate.map_or(NETEM_LIMIT, |rate| queue(rate, held));
    // The share as a part of the largest number, which would be every frame.
    let loss = shape.loss.map_or(0, |loss| (loss.share() * f64::from(u32::MAX)).round() as u32);
    let mut options = Vec::new();
    for value in [0, limit, loss, 0, 0, 0] {
        options.extend(value.to_ne_bytes());
    }
    put(&mut options, TCA_NETEM_LATENCY64, &delay.to_ne_bytes());
    put(&mut options, TCA_NETEM_JITTER64, &jitter.to_ne_bytes());
    // Zero is no rate, and has to be said where there has been one.
    let per_second = shape.rate.map_or(0, |rate| bytes(rate, Duration::from_secs(1)));
    let mut rate = saturated(per_second).to_ne_bytes().to_vec();
    rate.extend([0; 12]); // overhead of frames and cells
    put(&mut options, TCA_NETEM_RATE, &rate);
    if per_second > u64::from(u32::MAX) {
        put(&mut options, TCA_NETEM_RATE64, &per_second.to_ne_bytes());
    }
    options
}

/// How many frames netem holds that also limits a rate: those on their way, and [`QUEUE`] before the line. netem counts
/// frames, so this is a middle between long ones, of which fewer fit on the line, and short ones.
fn queue(rate: Rate, held: Duration) -> u32 {
    const MIDDLE: u64 = 500;
    saturated((bytes(rate, held + QUEUE) / MIDDLE).clamp(64, 1_000_000))
}

/// Append an attribute (netlink(7): length, type, value, padding to 4 bytes).
fn put(options: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("options are short");
    options.extend(length.to_ne_bytes());
    options.extend(kind.to_ne_bytes());
    options.extend(value);
    options.resize(options.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::held;

    #[test]
    fn what_is_set_is_read_back() {
        for text in [
            "rate=1kbit",
            "rate=1.5kbit",
            "rate=1000gbit",
            "delay=100ns",
            "loss=0.000001",
            "loss=99.9",
            "rate=10mbit delay=20ms jitter=5ms loss=0.1",
            "rate=40gbit delay=240s jitter=1.000000001s",
        ] {
            let shape: Shape = text.parse().unwrap();
            let (kind, _, options) = discipline(&shape).expect("a shape");
            let attributes = [
                TcAttribute::Kind(kind.to_owned()),
                TcAttribute::Options(vec![TcOption::Other(DefaultNla::new(TCA_OPTIONS, options))]),
            ];
            assert_eq!(read(&attributes), Some(held(shape)), "{text}");
        }
        assert_eq!(read(&[TcAttribute::Kind("fq_codel".to_owned()), TcAttribute::Options(Vec::new())]), None);
        assert_eq!((read_filter(&[]), read_netem(&[1, 2, 3])), (Shape::default(), Shape::default()));
    }
}
