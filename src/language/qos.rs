//! What shapes the traffic of an interface toward its VM: rate, delay, jitter and loss, as commands and tables write them.
//!
//! Must not know who sets it, nor how it is brought about.

use std::fmt;

/// The settings of one interface; without any, its traffic is not shaped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Qos {
    /// The highest rate, in kbit/s (1000 bits per second).
    pub rate: Option<u64>,
    /// How long each packet is held, in microseconds.
    pub delay: Option<u64>,
    /// By how much the delay varies, in microseconds either way.
    pub jitter: Option<u64>,
    /// How many packets are dropped at random, in thousandths of a percent.
    pub loss: Option<u32>,
}

/// The settings by name, in the order in which they are written.
pub const SETTINGS: &[&str] = &["rate", "delay", "jitter", "loss"];
/// The highest loss, in thousandths of a percent: minimega takes no more than 99.9.
pub const MAX_LOSS: u32 = 99_900;
/// The longest delay, in microseconds. netem counts in signed 32-bit ticks of 64 ns at least.
pub const MAX_DELAY: u64 = 60_000_000;
/// The highest rate, in kbit/s.
pub const MAX_RATE: u64 = 1_000_000_000;

/// Why a setting cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QosError {
    /// There is no such setting.
    #[error("`{setting}` is no setting, expected rate, delay, jitter or loss")]
    Unknown {
        /// The word.
        setting: String,
    },
    /// The value has another form.
    #[error("{setting} is `{value}`, expected {expected}")]
    Form {
        /// The setting.
        setting: &'static str,
        /// The value.
        value: String,
        /// What a value looks like.
        expected: &'static str,
    },
    /// The value is too small or too large.
    #[error("{setting} is `{value}`, expected {limits}")]
    Range {
        /// The setting.
        setting: &'static str,
        /// The value.
        value: String,
        /// The smallest and the largest value, in words.
        limits: &'static str,
    },
}

/// Number and unit of a text such as `1.5 mbit`, the number in thousandths.
fn parts(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (whole, fraction) = text[..split].split_once('.').unwrap_or((&text[..split], "0"));
    let digits = |t: &str| !t.is_empty() && t.len() <= 12 && t.bytes().all(|b| b.is_ascii_digit());
    let fraction = if fraction.len() > 3 { fraction.trim_end_matches('0') } else { fraction };
    if !digits(whole) || fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) || fraction.is_empty() {
        return None;
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().ok()?;
    Some((whole.parse::<u64>().ok()? * 1000 + thousandths, text[split..].trim().to_ascii_lowercase()))
}

/// A rate such as `10mbit` or `1.5 gbit`, in kbit/s.
pub fn rate(value: &str) -> Result<u64, QosError> {
    let expected = "a rate with its unit, as in 500kbit, 10mbit or 1gbit";
    let form = || QosError::Form { setting: "rate", value: value.to_owned(), expected };
    let (number, unit) = parts(value).ok_or_else(form)?;
    let kbit = match unit.as_str() {
        "kbit" => 1,
        "mbit" => 1000,
        "gbit" => 1_000_000,
        _ => return Err(form()),
    };
    let kbit = number.checked_mul(kbit).filter(|n| n % 1000 == 0).ok_or_else(form)? / 1000;
    match kbit {
        1..=MAX_RATE => Ok(kbit),
        _ => Err(QosError::Range { setting: "rate", value: value.to_owned(), limits: "1kbit to 1000gbit" }),
    }
}

/// A time such as `20ms`, in microseconds.
fn time(setting: &'static str, value: &str) -> Result<u64, QosError> {
    let expected = "a time with its unit, as in 100us, 20ms or 1s";
    let form = || QosError::Form { setting, value: value.to_owned(), expected };
    let (number, unit) = parts(value).ok_or_else(form)?;
    let micros = match unit.as_str() {
        "us" | "µs" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        _ => return Err(form()),
    };
    let micros = number.checked_mul(micros).filter(|n| n % 1000 == 0).ok_or_else(form)? / 1000;
    match micros {
        1..=MAX_DELAY => Ok(micros),
        _ => Err(QosError::Range { setting, value: value.to_owned(), limits: "1us to 60s" }),
    }
}

/// A delay, in microseconds.
pub fn delay(value: &str) -> Result<u64, QosError> {
    time("delay", value)
}

/// A jitter, in microseconds.
pub fn jitter(value: &str) -> Result<u64, QosError> {
    time("jitter", value)
}

/// A loss such as `0.25` or `0.25%`, in thousandths of a percent.
pub fn loss(value: &str) -> Result<u32, QosError> {
    let form =
        || QosError::Form { setting: "loss", value: value.to_owned(), expected: "a percentage, as in 0.25 or 10" };
    let (number, unit) = parts(value).filter(|(_, unit)| unit.is_empty() || unit == "%").ok_or_else(form)?;
    let _percent = unit;
    match u32::try_from(number) {
        Ok(number @ 1..=MAX_LOSS) => Ok(number),
        _ => Err(QosError::Range { setting: "loss", value: value.to_owned(), limits: "0.001 to 99.9 percent" }),
    }
}

fn rate_text(kbit: u64) -> String {
    match kbit {
        n if n % 1_000_000 == 0 => format!("{}gbit", n / 1_000_000),
        n if n % 1000 == 0 => format!("{}mbit", n / 1000),
        n => format!("{n}kbit"),
    }
}

fn time_text(micros: u64) -> String {
    if micros.is_multiple_of(1000) { format!("{}ms", micros / 1000) } else { format!("{micros}us") }
}

fn loss_text(thousandths: u32) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Qos {
    /// Nothing is shaped.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Set one setting from its text.
    pub fn set(&mut self, setting: &str, value: &str) -> Result<(), QosError> {
        match setting {
            "rate" => self.rate = Some(rate(value)?),
            "delay" => self.delay = Some(delay(value)?),
            "jitter" => self.jitter = Some(jitter(value)?),
            "loss" => self.loss = Some(loss(value)?),
            other => return Err(QosError::Unknown { setting: other.to_owned() }),
        }
        Ok(())
    }

    /// The settings that are given, with their values as text: `("rate", "10mbit")`.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let values =
            [self.rate.map(rate_text), self.delay.map(time_text), self.jitter.map(time_text), self.loss.map(loss_text)];
        SETTINGS.iter().zip(values).filter_map(|(name, value)| Some((*name, value?))).collect()
    }

    /// The settings of this one win over those of another.
    pub fn over(self, other: Self) -> Self {
        Self {
            rate: self.rate.or(other.rate),
            delay: self.delay.or(other.delay),
            jitter: self.jitter.or(other.jitter),
            loss: self.loss.or(other.loss),
        }
    }

    /// The words of `qos add`, a command each: it knows no jitter, and a rate replaces delay and loss.
    pub fn additions(&self) -> Vec<Vec<String>> {
        let words = |(name, value): (&'static str, String)| match name {
            "rate" => {
                let split = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
                vec![name.to_owned(), value[..split].to_owned(), value[split..].to_owned()]
            }
            _ => vec![name.to_owned(), value],
        };
        self.settings().into_iter().filter(|(name, _)| *name != "jitter").map(words).collect()
    }

    /// It takes more than `qos add` can do on one interface.
    pub fn is_combined(&self) -> bool {
        self.jitter.is_some() || (self.rate.is_some() && (self.delay.is_some() || self.loss.is_some()))
    }

    /// The settings that a text has, as `rate 10 mbit`, `rate=10mbit delay=20ms` or with commas between; None where it is
    /// something else.
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split([' ', '=', ':', ',']).filter(|word| !word.is_empty()).peekable();
        let mut qos = Self::default();
        while let Some(setting) = words.next() {
            let mut value = words.next()?.to_owned();
            let unit = |word: &&str| word.bytes().all(|b| b.is_ascii_alphabetic()) && !SETTINGS.contains(word);
            if let Some(unit) = words.next_if(unit) {
                value.push_str(unit);
            }
            qos.set(setting, &value).ok()?;
        }
        Some(qos)
    }
}

impl fmt::Display for Qos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<String> = self.settings().iter().map(|(name, value)| format!("{name} {value}")).collect();
        f.pad(&settings.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units_and_limits() {
        for (text, expected) in [("10mbit", 10_000), ("1.5 Gbit", 1_500_000), ("500kbit", 500), ("0.001mbit", 1)] {
            assert_eq!(rate(text), Ok(expected), "{text}");
        }
        for (text, expected) in [("20ms", 20_000), ("100us", 100), ("1.5s", 1_500_000), ("0.5 ms", 500)] {
            assert_eq!(delay(text), Ok(expected), "{text}");
        }
        for (text, expected) in [("0.1", 100), ("99.9%", 99_900), ("10", 10_000), ("0.001", 1), ("0.5000", 500)] {
            assert_eq!(loss(text), Ok(expected), "{text}");
        }
        for text in ["10", "10mbps", "-1mbit", "1.0005kbit", "", "mbit", "0mbit", "2000gbit", "1e3mbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for text in ["20", "0ms", "61s", "20mss", "1.0001us"] {
            assert!(delay(text).is_err(), "{text}");
        }
        for text in ["100", "99.91", "0", "x", "0.0001", "10 %%"] {
            assert!(loss(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_are_written_as_they_are_read() {
        let qos = Qos { rate: Some(10_000), delay: Some(20_000), jitter: Some(1500), loss: Some(100) };
        assert_eq!(qos.to_string(), "rate 10mbit delay 20ms jitter 1500us loss 0.1");
        assert_eq!(Qos::read(&qos.to_string()), Some(qos));
        assert_eq!(Qos::read("rate=10mbit delay=20ms jitter=1500us loss=0.1%"), Some(qos));
        assert_eq!(
            Qos::read("rate: 10 mbit, delay: 20ms, loss: 0.1"),
            Some(Qos { jitter: None, loss: Some(100), ..qos }.over(Qos::default()))
        );
        assert_eq!(Qos::read(""), Some(Qos::default()));
        assert_eq!(Qos::read("N/A"), None);
        assert_eq!(Qos::read("rate 10mbit burst 5"), None);
        let words = |qos: Qos| qos.additions().iter().map(|words| words.join(" ")).collect::<Vec<_>>();
        assert_eq!(words(qos), ["rate 10 mbit", "delay 20ms", "loss 0.1"]);
        assert!(qos.is_combined());
        assert!(!Qos { rate: None, jitter: None, ..qos }.is_combined());
    }
}
