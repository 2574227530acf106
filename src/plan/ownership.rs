//! The tags by which a VM tells whose it is and what it was launched from. They are set at launch, so that a VM has
//! them from its first moment, and are equal for VMs of equal configuration, so that those launch as one group.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::language::field::{Change, FIELDS, Field, FieldType};
use crate::language::netspec::DEFAULT_DRIVER;
use crate::live::{LiveVm, Queued};
use crate::name::Namespace;
use crate::spec::model::VmBody;

/// The experiment that a VM belongs to.
pub const OWNER: &str = "megaform.experiment";
/// The digest of what it was launched from.
pub const DIGEST: &str = "megaform.digest";
/// The keys of the tags that the file gave it, so that a key that leaves the file leaves the VM, each with a digest of its
/// value, so that a tag which somebody changed since is told from one that the file has otherwise.
pub const KEYS: &str = "megaform.tags";
/// A digest of the USB disks that the file gave it; behind a `+` one of their serial numbers, if any is given.
pub const USB: &str = "megaform.usb";
/// What a tag of a user must not begin with.
pub const RESERVED: &str = "megaform.";

const VERSION: &str = "v1:";

/// Whether a VM belongs to an experiment.
pub fn owns(experiment: &Namespace, vm: &LiveVm) -> bool {
    vm.tags.get(OWNER).is_some_and(|owner| owner == experiment.as_str())
}

/// Whether a launch that waits in the queue is an experiment's, by the tags that its VMs are to have, in whatever way a release
/// writes them.
pub fn queued_by(experiment: &Namespace, queued: &Queued) -> bool {
    let Some((_, rest)) = queued.tags.split_once(OWNER) else { return false };
    let value = rest.trim_start_matches(['"', ':', '=', ' ']);
    let end = value.find(|c: char| !(c.is_ascii_alphanumeric() || "_-".contains(c))).unwrap_or(value.len());
    value[..end] == *experiment.as_str()
}

/// Names of VMs as ranges.
pub fn compressed<N: AsRef<str>>(names: &[N]) -> String {
    crate::language::range::compress(names)
}

/// The names of VMs that wait in a queue: those of an experiment, and all others.
pub fn waiting<'q>(experiment: &Namespace, queue: &'q [Queued]) -> (Vec<&'q str>, Vec<&'q str>) {
    let names = |ours: bool| {
        let of = queue.iter().filter(|queued| queued_by(experiment, queued) == ours);
        of.flat_map(|queued| queued.names.iter().map(String::as_str)).collect()
    };
    (names(true), names(false))
}

/// The first bytes of a SHA-256 in hexadecimal.
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(10).fold(String::with_capacity(20), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string takes everything");
        out
    })
}

/// The digest of what only a launch can set and a target may not show: the fields that need a replacement, and the
/// models of the NICs. UUID and MACs are always shown; VLANs, bridges, tags and the state change live.
///
/// Fields whose changes are ignored are left out, and named behind the digest, so that it can be told later what it is of.
pub fn digest(body: &VmBody) -> String {
    digest_leaving_out(body, &ignored(body))
}

/// The digest without a field, which is named behind it as the ignored ones are: it is about to change live.
pub fn digest_without(body: &VmBody, field: &str) -> String {
    let mut left_out = ignored(body);
    if !left_out.contains(&field) {
        left_out.push(field);
    }
    digest_leaving_out(body, &left_out)
}

fn digest_leaving_out(body: &VmBody, left_out: &[&str]) -> String {
    let mut digest = format!("{VERSION}{}", hash(body, left_out));
    if !left_out.is_empty() {
        digest.push('!');
        digest.push_str(&left_out.join(","));
    }
    digest
}

/// Whether the digest of a VM leaves a field out.
pub fn leaves_out(vm: &LiveVm, field: &str) -> bool {
    let left_out = digest_of(vm).and_then(|digest| digest.split_once('!'));
    left_out.is_some_and(|(_, fields)| fields.split(',').any(|name| name == field))
}

/// The ignored fields that a digest would cover.
fn ignored(body: &VmBody) -> Vec<&str> {
    let covered = |path: &&str| {
        let head = path.split('[').next().unwrap_or(path);
        // The bonds of a file are made after the launch.
        let other = |f: &Field| matches!(f.ty, FieldType::Uuid | FieldType::Bonds);
        let launch = |f: &Field| f.change == Change::Replace && !other(f) && f.key() == head;
        head == "networks" || FIELDS.iter().any(launch)
    };
    body.lifecycle.ignore_changes.iter().map(|path| path.as_str()).filter(covered).collect()
}

/// Whether a VM was launched from a body, as far as its digest covers it; None if it has no digest. The second value
/// tells whether the digest leaves out just what the body ignores now.
pub fn launched_from(vm: &LiveVm, body: &VmBody) -> Option<(bool, bool)> {
    let (digest, left_out) = match digest_of(vm)?.split_once('!') {
        Some((digest, left_out)) => (digest, left_out.split(',').collect()),
        None => (digest_of(vm)?, Vec::new()),
    };
    let same = digest.strip_prefix(VERSION) == Some(hash(body, &left_out).as_str());
    Some((same, left_out == ignored(body)))
}

/// The hash of what a launch sets, without some fields.
fn hash(body: &VmBody, left_out: &[&str]) -> String {
    let mut text = format!("{}\n", body.kind.word());
    for (field, value) in body.config.changed().filter(|(f, _)| f.change == Change::Replace && f.ty != FieldType::Uuid)
    {
        if left_out.iter().any(|path| *path == field.key()) {
            continue;
        }
        writeln!(text, "{} {:?}", field.name, field.arguments(value)).expect("a string takes everything");
    }
    let nics = if left_out.contains(&"networks") { &[] } else { &body.networks[..] };
    for (index, nic) in nics.iter().enumerate() {
        let ignored = left_out.iter().any(|path| *path == format!("networks[{index}]"));
        let driver = if ignored { "any" } else { nic.driver.as_deref().unwrap_or(DEFAULT_DRIVER) };
        let unplugged = if ignored || nic.connected { "" } else { " unplugged" };
        writeln!(text, "nic {driver}{unplugged}").expect("a string takes everything");
    }
    short_hash(&text)
}

/// The digest that a VM carries; None if it has none or one of another version.
pub fn digest_of(vm: &LiveVm) -> Option<&str> {
    vm.tags.get(DIGEST).map(String::as_str).filter(|d| d.starts_with(VERSION))
}

/// The longest list of keys that has digests of their values, in bytes: with the names of VMs, a command that sets it stays
/// far below the longest line.
const LIST: usize = 16 << 10;

/// A key in the list of keys: a comma, an equals sign and a percent sign are percent-encoded.
fn encoded(key: &str) -> String {
    key.replace('%', "%25").replace(',', "%2C").replace('=', "%3D")
}

/// The tag that lists what the file gives, each key with a digest of its value unless changes of it are ignored; None for no
/// keys.
fn keys_tag(body: &VmBody, tags: &BTreeMap<String, String>) -> Option<String> {
    let entry = |(key, value): (&String, &String)| match body.lifecycle.ignores(&format!("tags.{key}")) {
        true => encoded(key),
        false => format!("{}={}", encoded(key), value_digest(value)),
    };
    let list = tags.iter().map(entry).collect::<Vec<_>>().join(",");
    match list.len() {
        0 => None,
        1..=LIST => Some(list),
        _ => Some(tags.keys().map(|key| encoded(key)).collect::<Vec<_>>().join(",")),
    }
}

/// The digest of the value of a tag. Tags of a VM are few, so a short one does.
fn value_digest(value: &str) -> String {
    let mut digest = short_hash(value);
    digest.truncate(8);
    digest
}

/// A key of a list, as it is encoded, and the digest of its value.
type Entry<'l> = (&'l str, Option<&'l str>);

fn entries(list: &str) -> impl Iterator<Item = Entry<'_>> {
    list.split(',').filter(|entry| !entry.is_empty()).map(|entry| match entry.split_once('=') {
        Some((key, digest)) => (key, Some(digest)),
        None => (entry, None),
    })
}

/// Whether the file that was applied last gave a VM a tag with this value. False where the list does not tell.
pub fn gave(vm: &LiveVm, key: &str, value: &str) -> bool {
    let Some(list) = vm.tags.get(KEYS) else { return false };
    let (key, digest) = (encoded(key), value_digest(value));
    entries(list).any(|entry| entry == (&*key, Some(&*digest)))
}

/// Whether two lists have the same keys, and no digests that differ. A list can be without digests: those that megaform wrote
/// at first are, and the entries of ignored tags.
pub fn lists_the_same(found: &str, wanted: &str) -> bool {
    let same = |(a, b): (Entry<'_>, Entry<'_>)| a.0 == b.0 && (a.1.is_none() || b.1.is_none() || a.1 == b.1);
    entries(found).count() == entries(wanted).count() && entries(found).zip(entries(wanted)).all(same)
}

fn decoded(key: &str) -> String {
    key.replace("%3D", "=").replace("%2C", ",").replace("%25", "%")
}

/// The keys that the tag of a VM lists.
pub fn keys_of(vm: &LiveVm) -> BTreeSet<String> {
    let list = vm.tags.get(KEYS).map(String::as_str).unwrap_or_default();
    entries(list).map(|(key, _)| decoded(key)).collect()
}

/// The tag of the USB disks of a body; None for none.
pub fn usb_tag(body: &VmBody) -> Option<String> {
    let disks = &body.usb_disks;
    let serials: Vec<_> = disks.iter().filter(|disk| disk.serial.is_some()).map(|d| (&d.path, &d.serial)).collect();
    let list: Vec<_> = disks.iter().map(|disk| (&disk.path, &disk.version)).collect();
    let behind = if serials.is_empty() { String::new() } else { format!("+{}", short_hash(&format!("{serials:?}"))) };
    (!disks.is_empty()).then(|| format!("{VERSION}{}{behind}", short_hash(&format!("{list:?}"))))
}

/// Every tag that a VM of this configuration is to have.
pub fn tags(experiment: &Namespace, body: &VmBody, digest: &str) -> BTreeMap<String, String> {
    let mut tags = body.config.tags();
    let keys = keys_tag(body, &tags);
    tags.insert(OWNER.to_owned(), experiment.to_string());
    tags.insert(DIGEST.to_owned(), digest.to_owned());
    tags.extend(keys.map(|k| (KEYS.to_owned(), k)));
    tags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::field::{FIELDS, VmConfig, field};
    use crate::spec::model::{RunState, VmKind};

    fn body(config: VmConfig) -> VmBody {
        VmBody {
            kind: VmKind::Kvm,
            config,
            spans: BTreeMap::new(),
            networks: Vec::new(),
            state: RunState::Running,
            depends_on: Vec::new(),
            wait_for: None,
            lifecycle: Default::default(),
            bonds: Vec::new(),
            usb_disks: Vec::new(),
            links: Default::default(),
            beneath: Vec::new(),
        }
    }

    /// The VMs of an experiment carry these digests. Another value for the same content relaunches all of them.
    #[test]
    fn digests_outlive_new_fields() {
        assert_eq!(digest(&body(VmConfig::new())), "v1:3b691b22d6a04e2c6306");
        let mut config = VmConfig::new();
        for (name, value) in [("memory", "64"), ("kernel", "/k"), ("snapshot", "false")] {
            config.set(name, field(name).unwrap().parse(&[value.to_owned()]).unwrap());
        }
        assert_eq!(digest(&body(config)), "v1:de18005ff7e1d573cad8");
        for field in FIELDS {
            let mut config = VmConfig::new();
            config.set(field.name, field.default_value());
            assert_eq!(digest(&body(config)), digest(&body(VmConfig::new())), "{}", field.name);
        }
    }

    #[test]
    fn lists_of_keys_are_compared_by_what_they_tell() {
        for (found, wanted, same) in [
            ("role", "role=4b5e57f6", true),
            ("role=4b5e57f6", "role", true),
            ("role=4b5e57f6,tier", "role=4b5e57f6,tier=2d8d6931", true),
            ("role=4b5e57f6", "role=2d8d6931", false),
            ("role", "role,tier", false),
            ("role,tier", "role", false),
            ("tier", "role", false),
            ("", "", true),
        ] {
            assert_eq!(lists_the_same(found, wanted), same, "{found} {wanted}");
        }
        // Signs of the list in keys do not part them.
        let tags = BTreeMap::from([("a=b,c%".to_owned(), "v".to_owned()), ("d".to_owned(), String::new())]);
        let list = keys_tag(&body(VmConfig::new()), &tags).unwrap();
        assert_eq!(entries(&list).map(|(key, _)| decoded(key)).collect::<Vec<_>>(), ["a=b,c%", "d"]);
    }
}
