//! `ignore_changes` over random experiments: what is ignored stays as it is while its object lives, everything else is as the
//! file says, a second plan is empty, and once nothing is ignored any more the file holds as a whole.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::experiments::{megaform_only, with_objects};
use super::keys::tree;
use super::*;

/// Fields of VMs.
const VM: &[&str] = &[
    "memory",
    "networks",
    "networks[0]",
    "tags",
    "tags.role",
    "state",
    "disks",
    "cdrom",
    "usb_disks",
    "kernel",
    "append",
    "snapshot",
    "qemu_override",
    "vcpus",
    "bonds",
];

/// Keys of the other entries, by section.
const OTHERS: &[(&str, &[&str])] = &[
    ("taps", &["vlan", "ip", "bridge"]),
    ("nat", &["vlan", "ip", "bridge"]),
    ("bridges", &["trunks", "tunnels"]),
    ("dnsmasq", &["range", "leases", "dns", "options"]),
    ("mirrors", &["from", "to"]),
    ("captures", &["snaplen", "filter", "file", "interface"]),
    ("pipes", &["mode", "log", "via"]),
    ("plumbing", &["pipeline"]),
];

/// What entries ignore.
#[derive(Debug, Clone)]
pub struct Ignored {
    vms: Vec<&'static str>,
    others: BTreeMap<&'static str, Vec<&'static str>>,
}

pub fn ignored() -> impl Strategy<Value = Ignored> {
    let vms = proptest::sample::subsequence(VM.to_vec(), 0..5);
    let of = |(section, keys): &(&'static str, &[&'static str])| {
        let section = *section;
        proptest::sample::subsequence(keys.to_vec(), 0..=keys.len()).prop_map(move |keys| (section, keys))
    };
    let others: Vec<_> = OTHERS.iter().map(of).collect();
    (vms, others).prop_map(|(vms, others)| Ignored { vms, others: others.into_iter().collect() })
}

/// The same experiment with these fields ignored in every entry.
pub fn ignoring(text: &str, ignored: &Ignored) -> Json {
    let mut tree = tree(text);
    let with = |entry: &mut Json, keys: &[&str]| {
        if !keys.is_empty() && entry["lifecycle"].is_object() {
            entry["lifecycle"]["ignore_changes"] = json!(keys);
        } else if !keys.is_empty() {
            entry["lifecycle"] = json!({ "ignore_changes": keys });
        }
    };
    for (section, entries) in tree.as_object_mut().unwrap() {
        let keys = if section == "vms" { Some(&ignored.vms) } else { ignored.others.get(section.as_str()) };
        let (Some(keys), Json::Object(entries)) = (keys, entries) else { continue };
        for entry in entries.values_mut() {
            with(entry, keys);
            // Bonds have a lifecycle of their own.
            for bond in entry["bonds"].as_array_mut().into_iter().flatten().filter(|_| ignored.vms.contains(&"bonds")) {
                with(bond, &["mode", "qinq"]);
            }
            if entry["bonds"].is_null() {
                entry.as_object_mut().unwrap().remove("bonds");
            }
        }
    }
    tree
}

/// The fields of a VM as they are seen, by their paths, and its process.
fn vm(mm: &Minimega, file: &File, name: &str) -> Option<(u64, BTreeMap<String, String>)> {
    let state = mm.0.lock().unwrap();
    let vm = state.namespaces.get("random")?.vms.get(name)?;
    let mut seen = BTreeMap::from([("state".to_owned(), (vm.state == 2).to_string())]);
    for (index, nic) in vm.nics.iter().enumerate() {
        let fixed = nic.alias.is_empty().then_some(nic.vlan);
        seen.insert(format!("networks[{index}]"), format!("{} {fixed:?} {} {}", nic.alias, nic.bridge, nic.driver));
        let qos = state.network.qos.get(&("random".to_owned(), name.to_owned(), index));
        seen.extend(
            qos.filter(|qos| !qos.is_empty()).map(|qos| (format!("networks[{index}].qos"), format!("{qos:?}"))),
        );
    }
    // What is given out is no field, and bonds are judged with their NICs.
    let config = vm.config.iter().filter(|(field, _)| !["networks", "uuid"].contains(&field.as_str()));
    seen.extend(config.map(|(field, value)| (field.replace('-', "_"), format!("{value:?}"))));
    let own = |key: &str| key.starts_with("megaform.");
    seen.extend(vm.tags.iter().filter(|(key, _)| !own(key)).map(|(key, value)| (format!("tags.{key}"), value.clone())));
    let usb = state.network.usb.get(&("random".to_owned(), name.to_owned()));
    let usb = usb.map(|disks| super::usb(disks, file, name)).unwrap_or_default();
    if !usb.is_empty() {
        seen.insert("usb_disks".to_owned(), format!("{usb:?}"));
    }
    Some((vm.pid, seen))
}

fn tap(mm: &Minimega, name: &str) -> Option<BTreeMap<String, String>> {
    let state = mm.0.lock().unwrap();
    let tap = state.namespaces.get("random")?.taps.get(name)?;
    let vlan = if tap.alias.is_empty() { tap.vlan.to_string() } else { tap.alias.clone() };
    let fields = [("vlan", &vlan), ("ip", &tap.ip), ("bridge", &tap.bridge)];
    Some(fields.map(|(key, value)| (key.to_owned(), value.clone())).into())
}

/// The fields in which two differ.
fn differing<'f>(a: &'f BTreeMap<String, String>, b: &'f BTreeMap<String, String>) -> Vec<&'f str> {
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter(|key| a.get(*key) != b.get(*key)).map(String::as_str).collect()
}

proptest! {
    #![proptest_config(cases(30))]

    #[test]
    fn what_is_ignored_stays_and_the_rest_is_as_the_file_says(a in with_objects(), b in with_objects(), ignored in ignored()) {
        // A bond of NICs that are not there, because NICs are ignored, cannot be made.
        let mut b = b;
        if ignored.vms.iter().any(|field| field.starts_with("networks")) && b.contains("bonds:") {
            b = a.clone();
        }
        let megaform = megaform_only(&a) || megaform_only(&b);
        let new = || {
            let mm = Minimega::default();
            mm.0.lock().unwrap().shows_addresses = true;
            mm.0.lock().unwrap().network.megaform = megaform;
            (mm, Advice::default())
        };
        // Ignored from the beginning: where it begins in the same edit, what the target does not tell cannot be compared.
        let (a, free) = (file(&ignoring(&a, &ignored).to_string()), file(&b));
        let text_of = ignoring(&b, &ignored).to_string();
        let b = file(&text_of);
        let (straight, mut nothing) = new();
        go(&straight, &b, &mut nothing, Selection::default()).unwrap();
        // What is made is made as the file says.
        let (plain, mut nothing) = new();
        go(&plain, &free, &mut nothing, Selection::default()).unwrap();
        let without = |tags: &[&str], mm: &Minimega| -> Vec<String> {
            let cut = |line: String, tag: &str| match line.split_once(&format!("\"{tag}\": \"")) {
                Some((before, rest)) => format!("{before}{}", rest.split_once('"').unwrap().1),
                None => line,
            };
            observable(mm, &free).into_iter().map(|line| tags.iter().fold(line, |line, tag| cut(line, tag))).collect()
        };
        // These tags say what was ignored.
        let tags = ["megaform.digest", "megaform.tags"];
        prop_assert_eq!(without(&tags, &straight), without(&tags, &plain));
        let (mm, mut advice) = new();
        go(&mm, &a, &mut advice, Selection::default()).unwrap();
        let names: Vec<String> = b.experiment.vms.keys().map(ToString::to_string).collect();
        let before: Vec<_> = names.iter().map(|name| vm(&mm, &b, name)).collect();
        let taps_before: BTreeMap<_, _> = b.experiment.taps.keys().map(|name| (name, tap(&mm, name.as_str()))).collect();
        let left = go(&mm, &b, &mut advice, Selection::default()).unwrap();
        prop_assert!(left.is_empty(), "left to do:\n{}", text(&left));
        for (name, before) in names.iter().zip(before) {
            let ((pid, after), (_, wanted)) = (vm(&mm, &b, name).unwrap(), vm(&straight, &b, name).unwrap());
            let lifecycle = &b.experiment.vms[name.as_str()].body.lifecycle;
            let kept = before.filter(|(process, _)| *process == pid);
            for field in differing(&after, &wanted) {
                prop_assert!(kept.is_some() && lifecycle.ignores(field), "{name}: {field} is {after:?}, and is to be {wanted:?}");
            }
            let Some((_, before)) = kept else { continue };
            for field in differing(&after, &before) {
                prop_assert!(!lifecycle.ignores(field), "{name}: {field} was {before:?} and is {after:?}");
            }
        }
        for (name, before) in taps_before {
            let (after, wanted) = (tap(&mm, name.as_str()).unwrap(), tap(&straight, name.as_str()).unwrap());
            let lifecycle = &b.experiment.taps[name.as_str()].lifecycle;
            for field in differing(&after, &wanted) {
                let was = before.as_ref().and_then(|before| before.get(field));
                prop_assert!(lifecycle.ignores(field) && was == after.get(field), "{name}: {field} is {after:?}");
            }
        }
        // No longer ignored: it is what the file says.
        go(&mm, &free, &mut advice, Selection::default()).unwrap();
        // A list of keys gets digests when a tag is next set, and a tag that left the file while it was ignored is nobody's.
        let left = ignored.vms.iter().filter_map(|field| field.strip_prefix("tags."));
        let tags: Vec<&str> = left.chain(["megaform.tags"]).collect();
        let plainly = |mm: &Minimega| -> Vec<String> {
            without(&tags, mm).iter().map(|line| line.replace(", ", "")).collect()
        };
        prop_assert_eq!(plainly(&mm), plainly(&plain));
    }
}
