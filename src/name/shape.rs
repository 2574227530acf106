//! What a link does to frames: limits their rate, delays them, loses some.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text describes no shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No rate.
    #[error("invalid rate `{text}`, expected a number with kbit, mbit or gbit such as 10mbit, from 1kbit to 1000gbit")]
    Rate {
        /// As given.
        text: String,
    },
    /// No loss.
    #[error("invalid loss `{text}`, expected a percentage from 0 to 99.9 such as 0.25")]
    Loss {
        /// As given.
        text: String,
    },
    /// No delay or jitter.
    #[error("invalid {what} `{text}`, expected a duration such as 100ms or 1.5s, at most {}s", Delay::LIMIT.as_secs())]
    Delay {
        /// `delay` or `jitter`.
        what: &'static str,
        /// As given.
        text: String,
    },
    /// Jitter of nothing.
    #[error("jitter {jitter} needs a delay of at least that, which it is added to and taken from")]
    Jitter {
        /// The jitter.
        jitter: Delay,
    },
    /// A word that is no setting.
    #[error("invalid setting `{text}`, expected rate=10mbit, delay=20ms, jitter=5ms or loss=0.1")]
    Setting {
        /// As given.
        text: String,
    },
    /// A setting twice.
    #[error("{key} is set twice")]
    Twice {
        /// The setting.
        key: &'static str,
    },
}

/// Bits per second, from 1 kbit to 1000 gbit. A kbit is 1000 bits. Prints in the largest unit that needs no fraction,
/// such as `1500kbit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

impl Rate {
    const UNITS: [(&str, u64); 3] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000)];
    const LIMIT: u64 = 1000 * Self::UNITS[0].1;

    /// In bits per second.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// So many bytes per second, or the nearest rate that there is.
    pub fn of_bytes(bytes: u64) -> Self {
        Self(bytes.saturating_mul(8).clamp(1_000, Self::LIMIT))
    }
}

impl FromStr for Rate {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let parse = || {
            let (number, unit) = Self::UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)))?;
            let bits = u64::try_from(decimal(number, u128::from(unit))?).ok()?;
            (1_000..=Self::LIMIT).contains(&bits).then_some(Self(bits))
        };
        parse().ok_or_else(|| ShapeError::Rate { text: text.to_owned() })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = Self::UNITS.iter().find(|(_, bits)| self.0.is_multiple_of(*bits));
        match whole {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 / bits),
            None => write!(f, "{}kbit", fraction(u128::from(self.0), 3)),
        }
    }
}

/// The share of frames that is lost at random, in percent with at most six decimals, at most 99.9. Prints as `0.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Loss(u32);

impl Loss {
    const UNIT: u32 = 1_000_000;
    const LIMIT: u32 = 99 * Self::UNIT + 900_000;

    /// As a share of 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(100 * Self::UNIT)
    }

    /// A share of 1, or the nearest loss that there is.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most LIMIT")]
    pub fn of_share(share: f64) -> Self {
        Self((share * f64::from(100 * Self::UNIT)).round().clamp(0.0, f64::from(Self::LIMIT)) as u32)
    }
}

impl FromStr for Loss {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        decimal(text.strip_suffix('%').unwrap_or(text), u128::from(Self::UNIT))
            .and_then(|loss| u32::try_from(loss).ok())
            .filter(|loss| *loss <= Self::LIMIT)
            .map(Self)
            .ok_or_else(|| ShapeError::Loss { text: text.to_owned() })
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&fraction(u128::from(self.0), 6))
    }
}

/// How long frames are held up, in whole nanoseconds. Parses and prints in Go's form, such as `1.5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Delay(Duration);

impl Delay {
    /// More than any link, and less than what netem counts in.
    const LIMIT: Duration = Duration::from_secs(240);
    /// In nanoseconds; the longer names of a unit first where one ends with another.
    const UNITS: [(&str, u128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];

    /// As a duration.
    pub fn get(self) -> Duration {
        self.0
    }

    /// A duration, or the longest delay that there is.
    pub fn of(duration: Duration) -> Self {
        Self(duration.min(Self::LIMIT))
    }

    /// `what` is named in the error: `delay` or `jitter`.
    fn parse(what: &'static str, text: &str) -> Result<Self, ShapeError> {
        let parse = || {
            let mut rest = text;
            let mut nanos = 0;
            while !rest.is_empty() {
                let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
                let unit =
                    rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |n| digits + n);
                let (_, factor) = Self::UNITS.iter().find(|(name, _)| *name == &rest[digits..unit])?;
                nanos += decimal(&rest[..digits], *factor)?;
                rest = &rest[unit..];
            }
            let delay = Duration::from_nanos(u64::try_from(nanos).ok()?);
            (!text.is_empty() && delay <= Self::LIMIT).then_some(Self(delay))
        };
        // Go takes a zero without a unit, and nothing else without one.
        if text == "0" { Some(Self(Duration::ZERO)) } else { parse() }
            .ok_or_else(|| ShapeError::Delay { what, text: text.to_owned() })
    }
}

impl FromStr for Delay {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        Self::parse("delay", text)
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let minutes = nanos / 60_000_000_000;
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", fraction(nanos, 3)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", fraction(nanos, 6)),
            _ if minutes == 0 => write!(f, "{}s", fraction(nanos, 9)),
            _ => write!(f, "{minutes}m{}s", fraction(nanos % 60_000_000_000, 9)),
        }
    }
}

/// What happens to the frames of one direction. Parses from settings and prints as settings:
/// `rate=10mbit delay=20ms jitter=5ms loss=0.1`, each of them at most once and in any order; none for no shape. A delay, jitter
/// or loss of zero is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shape {
    /// The most that passes.
    pub rate: Option<Rate>,
    /// How long each frame is held up.
    pub delay: Option<Delay>,
    /// By how much at most a frame is held up longer or shorter than `delay`; never more than that.
    pub jitter: Option<Delay>,
    /// The share that is lost.
    pub loss: Option<Loss>,
}

impl Shape {
    /// A shape from settings.
    pub fn parse<T: AsRef<str>>(settings: &[T]) -> Result<Self, ShapeError> {
        let mut shape = Self::default();
        for setting in settings.iter().map(AsRef::as_ref) {
            let wrong = || ShapeError::Setting { text: setting.to_owned() };
            let (key, value) = setting.split_once('=').ok_or_else(wrong)?;
            match key {
                "rate" => once("rate", &mut shape.rate, value.parse()?)?,
                "delay" => once("delay", &mut shape.delay, value.parse()?)?,
                "jitter" => once("jitter", &mut shape.jitter, Delay::parse("jitter", value)?)?,
                "loss" => once("loss", &mut shape.loss, value.parse()?)?,
                _ => return Err(wrong()),
            }
        }
        // Zero is the same as nothing.
        shape.delay = shape.delay.filter(|delay| !delay.get().is_zero());
        shape.jitter = shape.jitter.filter(|jitter| !jitter.get().is_zero());
        shape.loss = shape.loss.filter(|loss| loss.share() > 0.0);
        match shape.jitter {
            Some(jitter) if shape.delay.is_none_or(|delay| delay < jitter) => Err(ShapeError::Jitter { jitter }),
            _ => Ok(shape),
        }
    }

    /// Does it leave frames alone?
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Each setting with its value, in the order in which they print.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        [
            ("rate", self.rate.map(|rate| rate.to_string())),
            ("delay", self.delay.map(|delay| delay.to_string())),
            ("jitter", self.jitter.map(|jitter| jitter.to_string())),
            ("loss", self.loss.map(|loss| loss.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

fn once<T>(key: &'static str, place: &mut Option<T>, value: T) -> Result<(), ShapeError> {
    match place.replace(value) {
        Some(_) => Err(ShapeError::Twice { key }),
        None => Ok(()),
    }
}

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        Self::parse(&text.split_ascii_whitespace().collect::<Vec<_>>())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<String> = self.settings().iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&settings.join(" "))
    }
}

macro_rules! text_in_records {
    ($($type:ty),+) => {$(
        impl TryFrom<String> for $type {
            type Error = ShapeError;

            fn try_from(text: String) -> Result<Self, ShapeError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )+};
}

text_in_records!(Rate, Loss, Delay, Shape);

/// A decimal number such as `1`, `1.5` or `.5`, times `unit`, which has to give a whole number. No sign, no exponent.
fn decimal(text: &str, unit: u128) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    // Longer numbers are out of every range here, and would overflow.
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || whole.len() > 18 || part.len() > 12 {
        return None;
    }
    let number = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
    let part = number(part)? * unit;
    part.is_multiple_of(scale).then_some(number(whole)? * unit + part / scale)
}

/// A number of 10^-digits, without trailing zeros.
fn fraction(value: u128, digits: u32) -> String {
    let scale = 10u128.pow(digits);
    let rest = format!("{:0width$}", value % scale, width = digits as usize);
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { (value / scale).to_string() } else { format!("{}.{rest}", value / scale) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn prints<T: FromStr<Err = ShapeError> + fmt::Display>(cases: &[(&str, &str)]) {
        for (text, printed) in cases {
            let value = text.parse::<T>().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(value.to_string(), *printed, "{text}");
        }
    }

    #[track_caller]
    fn refuses<T: FromStr<Err = ShapeError> + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let error = text.parse::<T>().expect_err(text).to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn rates() {
        prints::<Rate>(&[
            ("1mbit", "1mbit"),
            ("1000mbit", "1gbit"),
            ("1.5mbit", "1500kbit"),
            ("1.5kbit", "1.5kbit"),
            ("1000gbit", "1000gbit"),
        ]);
        assert_eq!("2.5gbit".parse::<Rate>().unwrap().bits(), 2_500_000_000);
        refuses::<Rate>(&[
            "",
            "1",
            "mbit",
            "0mbit",
            "-1mbit",
            "0.999kbit",
            "1001gbit",
            "1 mbit",
            "1e3kbit",
            "1.00001kbit",
        ]);
    }

    #[test]
    fn losses() {
        prints::<Loss>(&[("0.25", "0.25"), ("99.9", "99.9"), ("0", "0"), (".5", "0.5"), ("10%", "10"), ("5.", "5")]);
        assert!(("25".parse::<Loss>().unwrap().share() - 0.25).abs() < 1e-12);
        refuses::<Loss>(&["", ".", "99.91", "100", "-1", "x", "0.0000001", "1e-3", "NaN", "%"]);
    }

    #[test]
    fn delays() {
        prints::<Delay>(&[
            ("100ms", "100ms"),
            ("1.5s", "1.5s"),
            ("1500ms", "1.5s"),
            ("0.5ms", "500µs"),
            ("10us", "10µs"),
            ("10µs", "10µs"),
            ("1m30s", "1m30s"),
            ("0", "0s"),
            ("1s500ms", "1.5s"),
        ]);
        refuses::<Delay>(&["", "100", "ms", "-1ms", "1 ms", "1d", "241s", "0.1ns", "1ms1", "1h", "1..5s"]);
    }

    #[test]
    fn shapes() {
        prints::<Shape>(&[
            ("", ""),
            ("delay=0 jitter=0ms loss=0.0", ""),
            ("loss=0.1 jitter=5ms delay=20ms rate=10mbit", "rate=10mbit delay=20ms jitter=5ms loss=0.1"),
        ]);
        for (text, error) in [
            ("rate=1mbit rate=2mbit", "rate is set twice"),
            ("speed=1mbit", "invalid setting `speed=1mbit`"),
            ("loss", "invalid setting `loss`"),
            ("jitter=5ms", "jitter 5ms needs a delay"),
            ("delay=4ms jitter=5ms", "jitter 5ms needs a delay"),
            ("delay=4ms jitter=x", "invalid jitter `x`"),
        ] {
            let found = text.parse::<Shape>().unwrap_err().to_string();
            assert!(found.starts_with(error), "{text}: {found}");
        }
    }

    proptest! {
        #[test]
        fn what_prints_parses(bits in 1_000..=Rate::LIMIT, loss in 1..=Loss::LIMIT, nanos in 100..240_000_000_000u64, part in 1..=100u64) {
            let delay = Delay(Duration::from_nanos(nanos));
            let jitter = Delay(Duration::from_nanos(nanos / 100 * part));
            let shape = Shape { rate: Some(Rate(bits)), delay: Some(delay), jitter: Some(jitter), loss: Some(Loss(loss)) };
            prop_assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<Shape>();
            let _ = (text.parse::<Rate>(), text.parse::<Loss>(), text.parse::<Delay>());
        }
    }
}
