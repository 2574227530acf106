//! Profiles: the settings that several entries have in common, and what some of these have in common beside. Must not know what
//! the settings mean, but for the names.

use std::collections::{BTreeMap, BTreeSet};

use super::{Settings, settings};
use crate::language::field::VmConfig;
use crate::name::ProfileName;

/// So many settings in common are worth a profile.
const WORTH: usize = 2;
/// So many lines must be saved.
const SAVED: usize = 3;
/// So many different entries are compared with each other; of more, the most frequent ones.
const MOST: usize = 150;
/// So many profiles there are of entries that have the same one, or none.
const PROFILES: usize = 50;
/// So deep profiles extend each other.
const DEEP: usize = 3;

/// A profile.
pub(super) struct Profile {
    pub name: String,
    /// The one that it extends.
    pub parent: Option<usize>,
    /// Its own settings.
    pub own: Settings,
}

/// The profiles of a file, each behind the one that it extends.
#[derive(Default)]
pub(super) struct Shared {
    pub profiles: Vec<Profile>,
    /// For each entry the profile that it has, and what is left of its settings.
    pub of: Vec<(Option<usize>, Settings)>,
}

fn common(a: &Settings, b: &Settings) -> Settings {
    a.iter().filter(|setting| b.contains(setting)).cloned().collect()
}

fn has(all: &Settings, some: &Settings) -> bool {
    some.iter().all(|setting| all.contains(setting))
}

/// The settings that save the most lines where entries share them.
fn best(entries: &[&Settings]) -> Option<Settings> {
    let mut counts: BTreeMap<&Settings, usize> = BTreeMap::new();
    for own in entries.iter().filter(|own| own.len() >= WORTH) {
        *counts.entry(own).or_default() += 1;
    }
    let mut counts: Vec<(&Settings, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(MOST);
    let equal = counts.iter().filter(|(_, count)| *count > 1).map(|(own, _)| (*own).clone());
    let mut candidates: BTreeSet<Settings> = equal.collect();
    for (at, (a, _)) in counts.iter().enumerate() {
        candidates.extend(counts[at + 1..].iter().map(|(b, _)| common(a, b)));
    }
    let saves = |candidate: &Settings| {
        let users = counts.iter().filter(|(own, _)| has(own, candidate)).map(|(_, count)| count);
        candidate.len() * users.sum::<usize>().saturating_sub(1)
    };
    let worth = candidates.into_iter().filter(|candidate| candidate.len() >= WORTH);
    let worth = worth.map(|candidate| (saves(&candidate), candidate)).filter(|(saved, _)| *saved >= SAVED);
    let order = |a: &(usize, Settings), b: &(usize, Settings)| {
        (a.0, a.1.len()).cmp(&(b.0, b.1.len())).then_with(|| b.1.cmp(&a.1))
    };
    worth.max_by(order).map(|(_, best)| best)
}

/// Find them. `named` are configurations that have a name already.
pub(super) fn shared(entries: &[(&str, Settings)], named: &BTreeMap<String, VmConfig>) -> Shared {
    let of = entries.iter().map(|(_, own)| (None, own.clone())).collect();
    let mut shared = Shared { profiles: Vec::new(), of };
    share(&mut shared, None, 0);
    let named: Vec<(&String, Settings)> = named.iter().map(|(name, config)| (name, settings(config))).collect();
    let mut taken = BTreeSet::new();
    for at in 0..shared.profiles.len() {
        let below = |of: Option<usize>| {
            std::iter::successors(of, |at| shared.profiles[*at].parent).any(|profile| profile == at)
        };
        let members = entries.iter().zip(&shared.of).filter(|(_, (of, _))| below(*of)).map(|((key, _), _)| *key);
        let whole = std::iter::successors(Some(at), |at| shared.profiles[*at].parent);
        let whole: Settings = whole.flat_map(|at| shared.profiles[at].own.clone()).collect();
        let name = name(&shared.profiles[at].own, &whole, members, &named, &taken);
        taken.insert(name.clone());
        shared.profiles[at].name = name;
    }
    shared
}

/// The profiles of what has one already, or none.
fn share(shared: &mut Shared, parent: Option<usize>, depth: usize) {
    let mut found = Vec::new();
    while depth < DEEP && found.len() < PROFILES {
        let free: Vec<&Settings> = shared.of.iter().filter(|(of, _)| *of == parent).map(|(_, rest)| rest).collect();
        let Some(best) = best(&free) else { break };
        let at = shared.profiles.len();
        for (of, rest) in shared.of.iter_mut().filter(|(of, rest)| *of == parent && has(rest, &best)) {
            *of = Some(at);
            rest.retain(|setting| !best.contains(setting));
        }
        shared.profiles.push(Profile { name: String::new(), parent, own: best });
        found.push(at);
    }
    for at in found {
        share(shared, Some(at), depth + 1);
    }
}

/// The setting of a key.
fn value<'s>(settings: &'s Settings, key: &str) -> Option<&'s str> {
    settings.iter().find(|(of, _)| of == key).map(|(_, value)| value.as_str())
}

/// The first word of a value that is a list or a map.
fn first(value: &str) -> Option<&str> {
    let value = value.trim_start_matches(['[', '{', ' ', '"']);
    let value = value.strip_prefix("path: ").or(value.strip_prefix("vlan: ")).unwrap_or(value);
    value.split([',', ']', '}', '"']).next().map(str::trim)
}

/// A name that tells what it is: the one that the configuration was saved by, what the names of its VMs have in common, a role
/// among its tags, the image that they boot, or the VLAN that they are on.
fn name<'k>(
    own: &Settings,
    whole: &Settings,
    members: impl Iterator<Item = &'k str>,
    named: &[(&String, Settings)],
    taken: &BTreeSet<String>,
) -> String {
    let launched = |settings: &Settings| -> BTreeSet<(String, String)> {
        let not = ["networks", "tags", "state", "bonds", "usb_disks", "lifecycle"];
        settings.iter().filter(|(key, _)| !not.contains(&key.as_str())).cloned().collect()
    };
    let saved =
        named.iter().find(|(_, settings)| launched(settings) == launched(whole)).map(|(name, _)| (*name).clone());
    let mut members = members.map(|key| key.split('[').next().unwrap_or_default());
    let mut prefix = members.next().unwrap_or_default();
    for key in members {
        let same = prefix.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
        prefix = &prefix[..same];
    }
    let prefix = prefix.trim_end_matches(|c: char| !c.is_ascii_alphabetic());
    let role = || {
        let tags = value(own, "tags")?;
        let part = ["role: ", "type: ", "kind: ", "os: "].iter().find_map(|key| tags.split_once(key))?;
        first(part.1).map(str::to_owned)
    };
    let stem = |key: &str| {
        let file = first(value(own, key)?)?.rsplit(['/', ':']).next()?.split('.').next()?;
        // Every Linux kernel is called so.
        let usual = ["vmlinuz", "bzImage", "kernel", "initrd", "initramfs", "disk", "root", "rootfs"];
        (!usual.contains(&file)).then(|| file.to_owned())
    };
    let candidates = [
        saved,
        (prefix.len() > 1).then(|| prefix.to_owned()),
        role(),
        stem("disks"),
        stem("cdrom"),
        stem("initrd"),
        stem("kernel"),
        value(own, "networks").and_then(first).map(str::to_owned),
    ];
    let base = candidates.into_iter().flatten().find(|name| ProfileName::new(name).is_ok());
    let base = base.unwrap_or_else(|| "base".to_owned());
    let numbered = (2..).map(|n| format!("{base}-{n}"));
    std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name)).expect("one is free")
}
