//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet (MAC-48) address, printed as six lower-case hexadecimal pairs joined by colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// Why a text is not a MAC address for an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six hexadecimal pairs joined by `:`.
    #[error("`{text}` is not a MAC address, expected six hexadecimal pairs such as 52:54:00:12:34:56")]
    Form {
        /// The text as given.
        text: String,
    },
    /// The group bit (IEEE 802: lowest bit of the first octet) is set, so it cannot be an interface's own address.
    #[error("`{text}` is a multicast MAC address, an interface needs a unicast one (even first octet)")]
    Multicast {
        /// The text as given.
        text: String,
    },
    /// All zero.
    #[error("`{text}` is the null MAC address")]
    Null {
        /// The text as given.
        text: String,
    },
}

impl Mac {
    /// An address from its octets, unchecked for the group bit.
    pub const fn from_octets(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six octets.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Does the text have the form of a MAC address (the test that tells a MAC from a driver or an alias in a netspec)?
    pub fn looks_like(text: &str) -> bool {
        parse(text).is_some()
    }
}

fn parse(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0u8; 6];
    let mut count = 0;
    for part in text.split(':') {
        if count == 6 || part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        octets[count] = u8::from_str_radix(part, 16).ok()?;
        count += 1;
    }
    (count == 6).then_some(octets)
}

impl FromStr for Mac {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Self, MacError> {
        let octets = parse(text).ok_or_else(|| MacError::Form { text: text.to_owned() })?;
        if octets == [0; 6] {
            return Err(MacError::Null { text: text.to_owned() });
        }
        if octets[0] & 1 == 1 {
            return Err(MacError::Multicast { text: text.to_owned() });
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;
    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_print() {
        assert_eq!("52:54:00:AB:cd:01".parse::<Mac>().unwrap().to_string(), "52:54:00:ab:cd:01");
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "52:54:00:ab:cd:1",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "g2:54:00:ab:cd:01",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
