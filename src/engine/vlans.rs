//! VLAN aliases and their tags, by namespace; ranges and the blacklist.
//!
//! A tag belongs to at most one alias on the host. `foo//DMZ` names the alias `DMZ` of namespace `foo` from anywhere
//! (minimega's way to join VLANs of different namespaces).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{NameError, Namespace, VlanAlias, VlanTag};

/// The lowest tag that is given out when a namespace has no range (minimega's).
pub const DEFAULT_MIN: u16 = 101;
/// One past the highest tag that is given out when a namespace has no range (minimega prints 4096).
pub const DEFAULT_MAX: u16 = 4096;

/// Tags that are given out: from `min` up to and without `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First tag.
    pub min: u16,
    /// One past the last tag.
    pub max: u16,
    /// Where the search for a free tag starts.
    pub next: u16,
}

/// One alias for a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanRow {
    /// The alias, without its namespace.
    pub alias: String,
    /// Its tag.
    pub tag: VlanTag,
}

/// A VLAN as a command names it: an alias, maybe of another namespace, or a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VlanText {
    /// An alias of a namespace.
    Alias(Namespace, String),
    /// A tag.
    Tag(VlanTag),
}

/// Why a VLAN was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VlanError {
    /// Outside 0..=4095.
    #[error("invalid VLAN (0 <= vlan < 4096)")]
    Tag {
        /// As given.
        text: String,
    },
    /// The alias has a tag already.
    #[error("alias already in use")]
    AliasInUse,
    /// The tag has an alias already.
    #[error("vlan {tag} already has the alias `{owner}`")]
    TagInUse {
        /// The tag.
        tag: VlanTag,
        /// The alias, with its namespace.
        owner: String,
    },
    /// The tag is blacklisted.
    #[error("vlan {tag} is blacklisted")]
    Blacklisted {
        /// The tag.
        tag: VlanTag,
    },
    /// No tag is left.
    #[error("no free vlan in {min}-{max} for `{alias}`")]
    Exhausted {
        /// First tag of the range.
        min: u16,
        /// One past the last.
        max: u16,
        /// The alias that needs one.
        alias: String,
    },
    /// A range that is none.
    #[error("invalid vlan range {min}-{max}, expected 0 <= min < max <= 4096")]
    Range {
        /// As given.
        min: String,
        /// As given.
        max: String,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// All VLANs of the host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Vlans {
    aliases: BTreeMap<Namespace, BTreeMap<String, VlanTag>>,
    ranges: BTreeMap<Namespace, Range>,
    default_range: Option<Range>,
    blacklist: BTreeSet<u16>,
    #[serde(skip)]
    by_tag: BTreeMap<VlanTag, (Namespace, String)>,
}

impl Vlans {
    /// Rebuild what is derived, after reading from a file.
    pub fn index(&mut self) {
        self.by_tag = self
            .aliases
            .iter()
            .flat_map(|(ns, map)| map.iter().map(move |(alias, tag)| (*tag, (ns.clone(), alias.clone()))))
            .collect();
    }

    /// Read a VLAN as a command gives it.
    pub fn parse(namespace: &Namespace, text: &str) -> Result<VlanText, VlanError> {
        if let Ok(number) = text.parse::<i128>() {
            let tag = u64::try_from(number).ok().and_then(VlanTag::new);
            return tag.map(VlanText::Tag).ok_or_else(|| VlanError::Tag { text: text.to_owned() });
        }
        match text.split_once("//") {
            Some((namespace, alias)) => Ok(VlanText::Alias(Namespace::new(namespace)?, alias_name(alias)?)),
            None => Ok(VlanText::Alias(namespace.clone(), alias_name(text)?)),
        }
    }

    /// The tag of a VLAN, given out now if the alias is new. `taken` are tags that are in use without an alias.
    pub fn resolve(&mut self, vlan: &VlanText, taken: &BTreeSet<VlanTag>) -> Result<VlanTag, VlanError> {
        match vlan {
            VlanText::Tag(tag) => Ok(*tag),
            VlanText::Alias(namespace, alias) => {
                if let Some(tag) = self.aliases.get(namespace).and_then(|map| map.get(alias)) {
                    return Ok(*tag);
                }
                let tag = self.free(namespace, alias, taken)?;
                self.insert(namespace, alias, tag);
                Ok(tag)
            }
        }
    }

    /// Does the VLAN have a tag already?
    pub fn knows(&self, vlan: &VlanText) -> bool {
        self.known_tag(vlan).is_some()
    }

    /// The tag of a VLAN, if it has one already.
    pub fn known_tag(&self, vlan: &VlanText) -> Option<VlanTag> {
        match vlan {
            VlanText::Tag(tag) => Some(*tag),
            VlanText::Alias(namespace, alias) => self.aliases.get(namespace)?.get(alias).copied(),
        }
    }

    fn insert(&mut self, namespace: &Namespace, alias: &str, tag: VlanTag) {
        self.aliases.entry(namespace.clone()).or_default().insert(alias.to_owned(), tag);
        self.by_tag.insert(tag, (namespace.clone(), alias.to_owned()));
    }

    fn free(&mut self, namespace: &Namespace, alias: &str, taken: &BTreeSet<VlanTag>) -> Result<VlanTag, VlanError> {
        let range = self.range(namespace);
        let span = range.max - range.min;
        let found = (0..span)
            .map(|offset| range.min + (range.next.saturating_sub(range.min) + offset) % span)
            .filter_map(|tag| VlanTag::new(u64::from(tag)))
            .find(|tag| {
                tag.get() != 0
                    && tag.get() != 4095
                    && !self.by_tag.contains_key(tag)
                    && !self.blacklist.contains(&tag.get())
                    && !taken.contains(tag)
            });
        let Some(tag) = found else {
            return Err(VlanError::Exhausted { min: range.min, max: range.max, alias: alias.to_owned() });
        };
        // minimega shows the tag that was given out last.
        match self.ranges.get_mut(namespace) {
            Some(range) => range.next = tag.get(),
            None => self.default_range = Some(Range { next: tag.get(), ..range }),
        }
        Ok(tag)
    }

    /// Bind an alias to a tag.
    pub fn add(&mut self, vlan: &VlanText, tag: VlanTag) -> Result<(), VlanError> {
        let (namespace, alias) = match vlan {
            VlanText::Alias(namespace, alias) => (namespace, alias),
            VlanText::Tag(number) => {
                return Err(NameError::Integer { kind: "vlan", word: number.to_string() }.into());
            }
        };
        if self.aliases.get(namespace).is_some_and(|map| map.contains_key(alias)) {
            return Err(VlanError::AliasInUse);
        }
        if let Some((owner, other)) = self.by_tag.get(&tag) {
            return Err(VlanError::TagInUse { tag, owner: format!("{owner}//{other}") });
        }
        if self.blacklist.contains(&tag.get()) {
            return Err(VlanError::Blacklisted { tag });
        }
        self.insert(namespace, alias, tag);
        Ok(())
    }

    /// The range of a namespace: its own, or the one that all share.
    pub fn range(&self, namespace: &Namespace) -> Range {
        self.ranges.get(namespace).copied().unwrap_or_else(|| {
            self.default_range.unwrap_or(Range { min: DEFAULT_MIN, max: DEFAULT_MAX, next: DEFAULT_MIN })
        })
    }

    /// The range as `namespace` prints it: empty where the namespace has none of its own.
    pub fn range_text(&self, namespace: &Namespace) -> String {
        match self.ranges.get(namespace) {
            Some(range) => format!("{}-{}", range.min, range.max),
            None if *namespace == Namespace::default_namespace() => format!("{DEFAULT_MIN}-{DEFAULT_MAX}"),
            None => String::new(),
        }
    }

    /// Give a namespace its own range.
    pub fn set_range(&mut self, namespace: &Namespace, min: &str, max: &str) -> Result<(), VlanError> {
        let error = || VlanError::Range { min: min.to_owned(), max: max.to_owned() };
        let (low, high) = (min.parse::<u16>().map_err(|_| error())?, max.parse::<u16>().map_err(|_| error())?);
        if low >= high || high > 4096 {
            return Err(error());
        }
        self.ranges.insert(namespace.clone(), Range { min: low, max: high, next: low });
        Ok(())
    }

    /// Never give out a tag.
    pub fn blacklist(&mut self, tag: VlanTag) {
        self.blacklist.insert(tag.get());
    }

    /// The blacklisted tags.
    pub fn blacklisted(&self) -> impl Iterator<Item = u16> {
        self.blacklist.iter().copied()
    }

    /// The aliases of a namespace, sorted.
    pub fn rows(&self, namespace: &Namespace) -> Vec<VlanRow> {
        self.aliases
            .get(namespace)
            .into_iter()
            .flatten()
            .map(|(alias, tag)| VlanRow { alias: alias.clone(), tag: *tag })
            .collect()
    }

    /// Forget aliases of a namespace: all of them, the one of exactly this name, or, where there is none of that name,
    /// all that begin with it.
    pub fn clear(&mut self, namespace: &Namespace, prefix: Option<&str>) {
        if let Some(map) = self.aliases.get_mut(namespace) {
            match prefix {
                None => map.clear(),
                Some(exact) if map.contains_key(exact) => {
                    map.remove(exact);
                }
                Some(prefix) => map.retain(|alias, _| !alias.starts_with(prefix)),
            }
        }
        self.index();
    }

    /// Forget everything, the blacklist and all ranges included.
    pub fn clear_all(&mut self) {
        *self = Self::default();
    }

    /// Forget a namespace.
    pub fn remove_namespace(&mut self, namespace: &Namespace) {
        self.aliases.remove(namespace);
        self.ranges.remove(namespace);
        self.index();
    }

    /// A tag as tables show it from a namespace: `alias (tag)`, `other//alias (tag)`, or the bare tag.
    pub fn show(&self, namespace: &Namespace, tag: VlanTag) -> String {
        match self.alias(namespace, tag) {
            Some(alias) => format!("{alias} ({tag})"),
            None => tag.to_string(),
        }
    }

    /// The alias of a tag as seen from a namespace.
    pub fn alias(&self, namespace: &Namespace, tag: VlanTag) -> Option<String> {
        self.by_tag.get(&tag).map(
            |(owner, alias)| {
                if owner == namespace { alias.clone() } else { format!("{owner}//{alias}") }
            },
        )
    }
}

/// An alias in a raw command. Of what minimega takes, text that is almost a MAC address is let through too.
fn alias_name(text: &str) -> Result<String, VlanError> {
    match VlanAlias::new(text) {
        Err(error) if VlanAlias::new(&text.replace(':', "-")).is_err() => Err(error.into()),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(namespace: &str, name: &str) -> VlanText {
        Vlans::parse(&Namespace::new(namespace).unwrap(), name).unwrap()
    }

    #[test]
    fn aliases_are_the_namespaces_own() {
        let mut vlans = Vlans::default();
        let none = BTreeSet::new();
        let a = vlans.resolve(&alias("foo", "DMZ"), &none).unwrap();
        let b = vlans.resolve(&alias("bar", "DMZ"), &none).unwrap();
        assert_eq!((a.get(), b.get()), (101, 102));
        assert_eq!(vlans.resolve(&alias("bar", "foo//DMZ"), &none).unwrap(), a);
        let bar = Namespace::new("bar").unwrap();
        assert_eq!(vlans.show(&bar, b), "DMZ (102)");
        assert_eq!(vlans.show(&bar, a), "foo//DMZ (101)");
        assert_eq!(vlans.show(&bar, VlanTag::new(7).unwrap()), "7");
    }

    #[test]
    fn clearing_one_alias_spares_its_namesakes() {
        let mut vlans = Vlans::default();
        let ns = Namespace::new("foo").unwrap();
        for name in ["dmz", "dmz2", "core"] {
            vlans.resolve(&alias("foo", name), &BTreeSet::new()).unwrap();
        }
        vlans.clear(&ns, Some("dmz"));
        assert_eq!(vlans.rows(&ns).iter().map(|r| r.alias.as_str()).collect::<Vec<_>>(), ["core", "dmz2"]);
        vlans.clear(&ns, Some("dm"));
        assert_eq!(vlans.rows(&ns).len(), 1);
    }

    #[test]
    fn a_full_range_is_an_error_and_tags_are_never_shared() {
        let mut vlans = Vlans::default();
        let ns = Namespace::new("foo").unwrap();
        vlans.set_range(&ns, "300", "303").unwrap();
        vlans.blacklist(VlanTag::new(301).unwrap());
        let taken = BTreeSet::from([VlanTag::new(300).unwrap()]);
        assert_eq!(vlans.resolve(&alias("foo", "a"), &taken).unwrap().get(), 302);
        assert!(matches!(vlans.resolve(&alias("foo", "b"), &taken), Err(VlanError::Exhausted { .. })));
        assert_eq!(
            vlans.add(&alias("foo", "c"), VlanTag::new(302).unwrap()).unwrap_err().to_string(),
            "vlan 302 already has the alias `foo//a`"
        );
        assert_eq!(vlans.add(&alias("foo", "a"), VlanTag::new(310).unwrap()), Err(VlanError::AliasInUse));
        assert_eq!(
            vlans.add(&alias("foo", "5"), VlanTag::new(352).unwrap()).unwrap_err().to_string(),
            "invalid vlan name, `5` is an integer"
        );
        assert!(vlans.set_range(&ns, "5", "5").is_err());
        assert!(vlans.set_range(&ns, "5", "4097").is_err());
    }
}
