//! The order of keys, the division into files, and the language never matter: random composed experiments, written in
//! several ways.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;

/// Parts of a composed experiment. Each is right by itself, whatever the others are.
#[derive(Debug, Clone)]
struct Parts {
    size: u64,
    profiles: Vec<Profile>,
    entries: Vec<Entry>,
    taps: u64,
}

#[derive(Debug, Clone)]
struct Profile {
    memory: Option<u64>,
    vcpus: Option<u64>,
    role: Option<String>,
    /// The profile before it is extended.
    extends: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    /// 0 a plain one, 1 `count`, 2 `for_each` over a map, 3 `for_each` over a list, 4 a range.
    form: u8,
    profiles: Vec<prop::sample::Index>,
    memory: Option<u64>,
    when: Option<bool>,
    needs_first: bool,
    nics: u64,
}

fn profile() -> impl Strategy<Value = Profile> {
    (prop::option::of(1..9u64), prop::option::of(1..5u64), prop::option::of("[a-f]{1,4}"), any::<bool>())
        .prop_map(|(memory, vcpus, role, extends)| Profile { memory, vcpus, role, extends })
}

fn entry() -> impl Strategy<Value = Entry> {
    let profiles = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let when = prop::option::of(any::<bool>());
    (0..5u8, profiles, prop::option::of(1..9u64), when, any::<bool>(), 0..4u64).prop_map(
        |(form, profiles, memory, when, needs_first, nics)| Entry { form, profiles, memory, when, needs_first, nics },
    )
}

fn parts() -> impl Strategy<Value = Parts> {
    (1..4u64, prop::collection::vec(profile(), 1..4), prop::collection::vec(entry(), 1..6), 0..3u64)
        .prop_map(|(size, profiles, entries, taps)| Parts { size, profiles, entries, taps })
}

/// The sections of the file.
fn sections(parts: &Parts) -> Map<String, Json> {
    let mut profiles = Map::new();
    for (index, profile) in parts.profiles.iter().enumerate() {
        let mut map = Map::new();
        if let Some(memory) = profile.memory {
            map.insert("memory".into(), json!(format!("{{{{ {memory} * local.unit }}}}")));
        }
        if let Some(vcpus) = profile.vcpus {
            map.insert("vcpus".into(), json!(vcpus));
        }
        if let Some(role) = &profile.role {
            map.insert("tags".into(), json!({ "role": role, (format!("p{index}")): "yes" }));
        }
        if profile.extends && index > 0 {
            map.insert("profile".into(), json!(format!("p{}", index - 1)));
        }
        profiles.insert(format!("p{index}"), Json::Object(map));
    }
    let mut vms = Map::new();
    vms.insert("first".into(), json!({ "networks": ["lan"] }));
    for (index, entry) in parts.entries.iter().enumerate() {
        let mut map = Map::new();
        let name = match entry.form {
            0 => format!("e{index}"),
            1 => {
                map.insert("count".into(), json!("{{ var.size }}"));
                format!("e{index}-")
            }
            2 => {
                map.insert("for_each".into(), json!({ "a": 64, "b": 128, "c": "{{ 2 * local.unit }}" }));
                map.insert("tags".into(), json!({ "each": "{{ each.key }}{{ each.index }}" }));
                format!("e{index}-{{{{ each.key }}}}")
            }
            3 => {
                map.insert("for_each".into(), json!("{{ range(var.size) }}"));
                map.insert("tags".into(), json!({ "each": "{{ each.value }}" }));
                format!("e{index}-{{{{ each.index }}}}")
            }
            _ => format!("e{index}-[0-{}]", parts.size),
        };
        let of: Vec<String> = entry.profiles.iter().map(|i| format!("p{}", i.index(parts.profiles.len()))).collect();
        if !of.is_empty() {
            map.insert("profile".into(), json!(of));
        }
        if let Some(memory) = entry.memory {
            map.insert("memory".into(), json!(memory * 64));
        }
        if let Some(when) = entry.when {
            map.insert("when".into(), if when { json!("{{ var.size > 0 }}") } else { json!(false) });
        }
        if entry.needs_first {
            map.insert("depends_on".into(), json!(["first"]));
        }
        let nics = ["lan", "{{ local.wan }}", "lan", "wan"];
        let nic = |i: usize| if i == 2 { json!({ "vlan": "lan", "driver": "virtio-net-pci" }) } else { json!(nics[i]) };
        let nics: Vec<Json> = (0..usize::try_from(entry.nics).unwrap()).map(nic).collect();
        map.insert("networks".into(), json!(nics));
        vms.insert(name, Json::Object(map));
    }
    let mut taps = Map::new();
    for tap in 0..parts.taps {
        let ip = format!("{{{{ ipadd('10.0.0.1', {tap}) }}}}/24");
        taps.insert(format!("t{tap}"), json!({ "vlan": if tap == 0 { "lan" } else { "wan" }, "ip": ip }));
    }
    let mut all = Map::new();
    all.insert("variables".into(), json!({ "size": { "type": "integer", "default": parts.size } }));
    all.insert("locals".into(), json!({ "unit": "{{ 32 * var.size }}", "wan": "wan" }));
    all.insert("vlans".into(), json!({ "lan": {}, "wan": { "tag": 77 } }));
    all.insert("profiles".into(), Json::Object(profiles));
    all.insert("vms".into(), Json::Object(vms));
    all.insert("taps".into(), Json::Object(taps));
    all
}

/// The same with the keys of every map in another order.
pub fn shuffled(value: &Json, seed: &mut u64) -> Json {
    match value {
        Json::Object(map) => {
            let mut entries: Vec<(String, Json)> = map.iter().map(|(k, v)| (k.clone(), shuffled(v, seed))).collect();
            for last in (1..entries.len()).rev() {
                // A linear congruential generator (Knuth's MMIX) is random enough to mix a few keys.
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                entries.swap(last, usize::try_from(*seed >> 33).unwrap() % (last + 1));
            }
            Json::Object(entries.into_iter().collect())
        }
        Json::Array(items) => Json::Array(items.iter().map(|item| shuffled(item, seed)).collect()),
        other => other.clone(),
    }
}

/// The value as TOML; a file at depth 0.
pub fn toml(value: &Json, depth: usize) -> String {
    match value {
        Json::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(k, v)| format!("{} = {}", Json::from(k.as_str()), toml(v, depth + 1))).collect();
            if depth == 0 { entries.join("\n") + "\n" } else { format!("{{ {} }}", entries.join(", ")) }
        }
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| toml(item, depth + 1)).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// What a file means: its outline, or the codes of what is wrong with it.
fn meaning(loaded: &Loaded) -> Result<String, Vec<&'static str>> {
    match &loaded.experiment {
        Some(experiment) => Ok(experiment.outline()),
        None => {
            let mut codes: Vec<_> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.code).collect();
            codes.sort_unstable();
            Err(codes)
        }
    }
}

fn load_as(text: &str, format: Format, files: &Memory) -> Loaded {
    let name = if format == Format::Toml { "lab.toml" } else { "lab.yaml" };
    parse_with(name, text, format, &Inputs::default(), files)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn neither_order_nor_language_nor_files_matter(parts in parts(), cut in any::<prop::sample::Index>(), mut seed in any::<u64>()) {
        let mut whole = sections(&parts);
        whole.insert("experiment".into(), json!("lab"));
        let whole = Json::Object(whole);
        let plain = load_as(&whole.to_string(), Format::Yaml, &Memory::default());
        let expected = meaning(&plain);
        prop_assert!(expected.is_ok(), "{}\n{whole:#}", shown(&plain));
        let again = shuffled(&whole, &mut seed);
        prop_assert_eq!(&meaning(&load_as(&again.to_string(), Format::Yaml, &Memory::default())), &expected);
        let text = toml(&shuffled(&whole, &mut seed), 0);
        let loaded = load_as(&text, Format::Toml, &Memory::default());
        prop_assert_eq!(&meaning(&loaded), &expected, "{}\n{}", shown(&loaded), text);
        // Some entries of the VMs in one included file, the others and the taps in another, included in either order.
        let Json::Object(mut root) = again else { unreachable!("a map was shuffled") };
        let Some(Json::Object(vms)) = root.remove("vms") else { unreachable!("there are VMs") };
        let taps = root.remove("taps").unwrap();
        let cut = cut.index(vms.len() + 1);
        let here: Map<String, Json> = vms.iter().take(cut).map(|(k, v)| (k.clone(), v.clone())).collect();
        let there: Map<String, Json> = vms.iter().skip(cut).map(|(k, v)| (k.clone(), v.clone())).collect();
        let shared = |more: Json| {
            let mut map = Map::new();
            for section in ["variables", "locals"] {
                map.insert(section.to_owned(), root[section].clone());
            }
            map.extend(more.as_object().unwrap().clone());
            Json::Object(map)
        };
        let files = files(&[
            ("a.yaml", &shared(json!({ "vms": here })).to_string()),
            ("b.toml", &toml(&shared(json!({ "vms": there, "taps": taps })), 0)),
        ]);
        for include in [["a.yaml", "b.toml"], ["b.toml", "a.yaml"]] {
            root.insert("include".into(), json!(include));
            let text = Json::Object(root.clone()).to_string();
            let loaded = load_as(&text, Format::Yaml, &files);
            prop_assert_eq!(&meaning(&loaded), &expected, "{}\n{}", shown(&loaded), text);
        }
    }
}
