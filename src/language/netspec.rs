//! The netspec of `vm config networks`: `[bridge,]vlan[,mac][,driver][,qinq]`, parsed by minimega's rules and printed back.
//!
//! minimega tells the parts apart by their look: a MAC has the form of one, a driver is a NIC model that QEMU knows,
//! everything else is a bridge or a VLAN. So `LAN,bogus` is VLAN `bogus` on bridge `LAN` there, and here too; an
//! experiment file writes the parts as separate keys and cannot make that mistake.

use std::fmt;

use crate::name::Mac;

/// NIC models that QEMU 7.2 and 9 have for x86 (`qemu-system-x86_64 -device help`), plus `i82559c` of minimega's help.
pub const DRIVERS: &[&str] = &[
    "e1000",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82550",
    "i82551",
    "i82557a",
    "i82557b",
    "i82557c",
    "i82558a",
    "i82558b",
    "i82559a",
    "i82559b",
    "i82559c",
    "i82559er",
    "i82562",
    "i82801",
    "igb",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "tulip",
    "usb-net",
    "virtio-net-device",
    "virtio-net-pci",
    "virtio-net-pci-non-transitional",
    "virtio-net-pci-transitional",
    "vmxnet3",
];

/// The driver of a NIC whose netspec names none (minimega's default).
pub const DEFAULT_DRIVER: &str = "e1000";

/// One NIC as a netspec describes it. The VLAN is text: an alias or a tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetSpec {
    /// The bridge, None for the default one.
    pub bridge: Option<String>,
    /// A VLAN alias, or a tag from 0 to 4095.
    pub vlan: String,
    /// The address, None to have one assigned at launch.
    pub mac: Option<Mac>,
    /// The NIC model, None for the default one.
    pub driver: Option<String>,
    /// The port tunnels 802.1Q frames (802.1ad).
    pub qinq: bool,
    /// The text that it was parsed from.
    pub raw: String,
}

/// Why a text is not a netspec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetSpecError {
    /// No VLAN, or more parts than a netspec has.
    #[error("malformed netspec `{text}`, expected [bridge,]vlan[,mac][,driver][,qinq]")]
    Form {
        /// The text as given.
        text: String,
    },
    /// An integer outside 0..=4095 (minimega's wording).
    #[error("invalid VLAN (0 <= vlan < 4096)")]
    Tag {
        /// The text as given.
        text: String,
    },
    /// A MAC that no interface can have.
    #[error(transparent)]
    Mac(#[from] crate::name::MacError),
}

impl NetSpec {
    /// Parse one netspec.
    pub fn parse(text: &str) -> Result<Self, NetSpecError> {
        let form = || NetSpecError::Form { text: text.to_owned() };
        let mut parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let qinq = parts.len() > 1 && parts.last() == Some(&"qinq");
        if qinq {
            parts.pop();
        }
        let driver = match parts.last() {
            Some(last) if parts.len() > 1 && DRIVERS.contains(last) => {
                let driver = (*last).to_owned();
                parts.pop();
                Some(driver)
            }
            _ => None,
        };
        let mac = match parts.last() {
            Some(last) if parts.len() > 1 && Mac::looks_like(last) => {
                let mac = last.parse::<Mac>()?;
                parts.pop();
                Some(mac)
            }
            _ => None,
        };
        let (bridge, vlan) = match parts.as_slice() {
            [vlan] => (None, *vlan),
            [bridge, vlan] => (Some((*bridge).to_owned()), *vlan),
            _ => return Err(form()),
        };
        if vlan.is_empty() || bridge.as_deref() == Some("") {
            return Err(form());
        }
        if let Ok(tag) = vlan.parse::<i128>()
            && !(0..4096).contains(&tag)
        {
            return Err(NetSpecError::Tag { text: vlan.to_owned() });
        }
        Ok(Self { bridge, vlan: vlan.to_owned(), mac, driver, qinq, raw: text.to_owned() })
    }
}

impl fmt::Display for NetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(bridge) = &self.bridge {
            write!(f, "{bridge},")?;
        }
        f.write_str(&self.vlan)?;
        if let Some(mac) = self.mac {
            write!(f, ",{mac}")?;
        }
        if let Some(driver) = &self.driver {
            write!(f, ",{driver}")?;
        }
        if self.qinq {
            f.write_str(",qinq")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String, Option<String>, Option<String>, bool) {
        let spec = NetSpec::parse(text).unwrap();
        (spec.bridge, spec.vlan, spec.mac.map(|m| m.to_string()), spec.driver, spec.qinq)
    }

    #[test]
    fn minimegas_rules() {
        let s = |t: &str| Some(t.to_owned());
        assert_eq!(parts("100"), (None, "100".into(), None, None, false));
        assert_eq!(parts("A,00:11:22:33:44:55"), (None, "A".into(), s("00:11:22:33:44:55"), None, false));
        assert_eq!(
            parts("br0,A,00:11:22:33:44:55,virtio-net-pci,qinq"),
            (s("br0"), "A".into(), s("00:11:22:33:44:55"), s("virtio-net-pci"), true)
        );
        assert_eq!(parts("100,i82559c"), (None, "100".into(), None, s("i82559c"), false));
        assert_eq!(parts("LAN,bogus"), (s("LAN"), "bogus".into(), None, None, false));
        assert_eq!(parts("e1000"), (None, "e1000".into(), None, None, false));
    }

    #[test]
    fn refusals() {
        for bad in ["", ",", "a,", ",a", "a,b,c", "4096", "-1", "br0,99999", "A,01:00:5e:00:00:01"] {
            assert!(NetSpec::parse(bad).is_err(), "{bad}");
        }
    }
}
