//! Names that parse: once a value has one of these types, it is safe to put into a command, a path or a device name.
//!
//! Must not know where a name came from; the callers add file, line and column.
//!
//! The rules of a VM name are those that minimega 3.1.0 enforces at `vm launch` (letters, digits, `-`, `_`; not an
//! integer, not `all`), with a length limit. The other kinds are at least as strict as minimega, because minimega
//! silently gives some bad names another meaning (a VLAN called `7` is a tag, a namespace called `all` is the wildcard).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod mac;
mod pipeline;
mod shape;
pub use mac::{Mac, MacError};
pub use pipeline::{PipeOfLine, pipeline_elements, pipeline_key, pipeline_pipes, pipeline_words};
pub use shape::{Delay, Loss, Rate, Shape, ShapeError};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("invalid {kind} name, it is empty")]
    Empty {
        /// What the name was for, such as `vm`.
        kind: &'static str,
    },
    /// The name is longer than its kind allows.
    #[error("invalid {kind} name, it has {length} characters and the limit is {limit}")]
    TooLong {
        /// What the name was for.
        kind: &'static str,
        /// Length found, in bytes.
        length: usize,
        /// Longest length allowed, in bytes.
        limit: usize,
    },
    /// The name is a word of the command language.
    #[error("invalid {kind} name, `{word}` is a reserved word")]
    Reserved {
        /// What the name was for.
        kind: &'static str,
        /// The reserved word.
        word: String,
    },
    /// The name is an integer, which the command language reads as an id, a count or a tag.
    #[error("invalid {kind} name, `{word}` is an integer")]
    Integer {
        /// What the name was for.
        kind: &'static str,
        /// The integer as written.
        word: String,
    },
    /// The name has a character that its kind does not allow.
    #[error("invalid name; must only include {allowed}: `{shown}`")]
    Character {
        /// What the name was for.
        kind: &'static str,
        /// The characters that are allowed, in words.
        allowed: &'static str,
        /// The name with control characters escaped, cut to a readable length.
        shown: String,
    },
    /// The name starts with a character that would read as an option or a hidden file.
    #[error("invalid {kind} name, it must start with a letter or a digit: `{shown}`")]
    Start {
        /// What the name was for.
        kind: &'static str,
        /// The name with control characters escaped.
        shown: String,
    },
}

impl NameError {
    /// The same error of a name for something else that has the same rules.
    pub fn of(mut self, what: &'static str) -> Self {
        match &mut self {
            Self::Empty { kind }
            | Self::TooLong { kind, .. }
            | Self::Reserved { kind, .. }
            | Self::Integer { kind, .. }
            | Self::Character { kind, .. }
            | Self::Start { kind, .. } => *kind = what,
        }
        self
    }
}

/// The rules of one kind of name.
struct Rules {
    kind: &'static str,
    limit: usize,
    /// Characters besides ASCII letters and digits.
    extra: &'static [char],
    allowed: &'static str,
    /// Must start with a letter or digit.
    strict_start: bool,
}

fn shown(text: &str) -> String {
    let escaped: String = text.escape_debug().collect();
    if escaped.chars().count() > 40 { escaped.chars().take(37).chain("...".chars()).collect() } else { escaped }
}

fn check(text: &str, rules: &Rules) -> Result<(), NameError> {
    let kind = rules.kind;
    if text.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if text.len() > rules.limit {
        return Err(NameError::TooLong { kind, length: text.len(), limit: rules.limit });
    }
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || rules.extra.contains(&c)) {
        return Err(NameError::Character { kind, allowed: rules.allowed, shown: shown(text) });
    }
    if text.chars().all(|c| c.is_ascii_digit())
        || (text.starts_with('-') && text.len() > 1 && text[1..].chars().all(|c| c.is_ascii_digit()))
    {
        return Err(NameError::Integer { kind, word: text.to_owned() });
    }
    if text == "all" {
        return Err(NameError::Reserved { kind, word: text.to_owned() });
    }
    if rules.strict_start && !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(NameError::Start { kind, shown: shown(text) });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, limit $limit:literal, extra $extra:expr, $allowed:literal, strict $strict:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The longest name of this kind, in bytes.
            pub const LIMIT: usize = $limit;

            /// Parse a name, or say why it is not one.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text, &Rules { kind: $kind, limit: $limit, extra: &$extra, allowed: $allowed, strict_start: $strict })?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name! {
    /// The name of a VM: letters, digits, `-` and `_`, at most 64 bytes (Linux's HOST_NAME_MAX); not an integer, not `all`.
    VmName, "vm", limit 64, extra ['-', '_'], "letters, numbers, hyphens and underscores", strict false
}
name! {
    /// The name of an experiment or minimega namespace: as a VM name, with `.` too, starting with a letter or digit.
    Namespace, "namespace", limit 64, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// A VLAN alias: letters, digits, `-`, `_` and `.`, at most 64 bytes. No comma (it separates a netspec), no integer
    /// (that is a tag).
    VlanAlias, "vlan", limit 64, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// The name of a tap: a Linux interface name, at most 15 bytes (IFNAMSIZ - 1).
    TapName, "tap", limit 15, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// The name of a bridge: a Linux interface name, at most 15 bytes (IFNAMSIZ - 1).
    BridgeName, "bridge", limit 15, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// The name of a profile in an experiment file.
    ProfileName, "profile", limit 64, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// The name of an entry of `commands` in an experiment file.
    CommandName, "command", limit 64, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// The name of an entry of another section of an experiment file, such as a link or a capture.
    ObjectName, "entry", limit 64, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// The key of a VM tag in an experiment file.
    TagKey, "tag", limit 64, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}
name! {
    /// The name of a host, as a mesh knows it.
    HostName, "host", limit 255, extra ['-', '_', '.'], "letters, numbers, hyphens, underscores and dots", strict true
}

impl Namespace {
    /// The namespace that minimega starts with.
    pub fn default_namespace() -> Self {
        Self("minimega".to_owned())
    }
}

impl BridgeName {
    /// The bridge that minimega uses when none is named.
    pub const DEFAULT: &str = "mega_bridge";

    /// The same as a name.
    pub fn default_bridge() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

/// An 802.1Q VLAN tag. minimega accepts 0 to 4095 (0 is its own broadcast domain); an experiment file accepts 0 to 4094, and gives aliases those from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VlanTag(u16);

impl VlanTag {
    /// A tag from 0 to 4095, or None.
    pub fn new(tag: u64) -> Option<Self> {
        (tag < 4096).then_some(Self(tag as u16))
    }

    /// The tag as a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for VlanTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The kind of an object that an experiment declares; it orders addresses in output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Where VMs go: the hosts of the namespace, and how one is chosen.
    Placement,
    /// A VLAN alias.
    Vlan,
    /// A bridge.
    Bridge,
    /// A host tap.
    Tap,
    /// A way from a VLAN to the outside.
    Nat,
    /// A virtual machine.
    Vm,
    /// A bond of a VM's NICs.
    Bond,
    /// A dnsmasq server.
    Dnsmasq,
    /// A mirror.
    Mirror,
    /// A capture.
    Capture,
    /// A named pipe and its settings.
    Pipe,
    /// A pipeline of pipes and programs.
    Plumbing,
    /// Raw commands.
    Command,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 13] = [
        Self::Placement,
        Self::Vlan,
        Self::Bridge,
        Self::Tap,
        Self::Nat,
        Self::Vm,
        Self::Bond,
        Self::Dnsmasq,
        Self::Mirror,
        Self::Capture,
        Self::Pipe,
        Self::Plumbing,
        Self::Command,
    ];

    /// The word before the dot of an address.
    pub fn word(self) -> &'static str {
        match self {
            Self::Placement => "placement",
            Self::Vlan => "vlan",
            Self::Bridge => "bridge",
            Self::Tap => "tap",
            Self::Nat => "nat",
            Self::Vm => "vm",
            Self::Bond => "bond",
            Self::Dnsmasq => "dnsmasq",
            Self::Mirror => "mirror",
            Self::Capture => "capture",
            Self::Pipe => "pipe",
            Self::Plumbing => "plumbing",
            Self::Command => "command",
        }
    }

    /// Whether an object of this kind is a set of settings, which the target has no mark of its owner on: whose it is, the
    /// file and the journal tell.
    pub fn is_object(self) -> bool {
        match self {
            Self::Vlan | Self::Tap | Self::Vm | Self::Command => false,
            Self::Placement
            | Self::Bridge
            | Self::Nat
            | Self::Bond
            | Self::Dnsmasq
            | Self::Mirror
            | Self::Capture
            | Self::Pipe
            | Self::Plumbing => true,
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The address of an object in an experiment: `vm.web3`, `vlan.dmz`, `tap.mgmt`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Address {
    /// The address of a name of a kind.
    pub fn new(kind: Kind, name: &str) -> Self {
        Self { kind, name: name.to_owned() }
    }
    /// The address of a VM.
    pub fn vm(name: &VmName) -> Self {
        Self { kind: Kind::Vm, name: name.to_string() }
    }
    /// The address of a VLAN alias.
    pub fn vlan(name: &VlanAlias) -> Self {
        Self { kind: Kind::Vlan, name: name.to_string() }
    }
    /// The address of an entry of `commands`.
    pub fn command(name: &CommandName) -> Self {
        Self { kind: Kind::Command, name: name.to_string() }
    }
    /// The address of a tap.
    pub fn tap(name: &TapName) -> Self {
        Self { kind: Kind::Tap, name: name.to_string() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.kind, self.name))
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_vm_names_are_refused() {
        let long = "a".repeat(300);
        for text in
            ["", "all", "7", "-1", "a b", "x\"y", "#c", &long, "a\nb", "naïve", "a,b", "a[0]", "a/b", "..", "a.b"]
        {
            assert!(VmName::new(text).is_err(), "{text:?} was accepted");
        }
        for text in ["web0", "a-b_c", "A", "7a", &"a".repeat(64)] {
            assert!(VmName::new(text).is_ok(), "{text:?} was refused");
        }
    }

    #[test]
    fn wording_that_scripts_match() {
        assert_eq!(VmName::new("all").unwrap_err().to_string(), "invalid vm name, `all` is a reserved word");
        assert_eq!(VmName::new("0").unwrap_err().to_string(), "invalid vm name, `0` is an integer");
    }

    #[test]
    fn hostile_interface_names_are_refused() {
        for text in [".", "..", "-x", "a/b", "0123456789abcdef", "a b", "all", "12"] {
            assert!(TapName::new(text).is_err(), "{text:?} was accepted");
        }
        assert!(TapName::new("mega_tap0").is_ok());
    }
}
