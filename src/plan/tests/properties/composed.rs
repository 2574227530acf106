//! Composition says nothing new: what is composed means what it meant, and so does what `expand` makes of it. A module that
//! is used twice is two experiments whose names differ.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::composition::{Dice, compose, dice};
use super::experiments::with_raw_commands;
use super::ignored::{ignored, ignoring};
use super::keys::tree;
use super::*;
use crate::spec::compose::tests::files;
use crate::spec::compose::tests::orders::{shuffled, toml};
use crate::spec::{Inputs, Loaded, parse_with};

/// A loaded experiment that is expected to be right.
fn right(loaded: Loaded, what: &dyn std::fmt::Debug) -> File {
    let shown = || crate::diagnostic::render(&loaded.diagnostics, &loaded.sources, false);
    let experiment = loaded.experiment.unwrap_or_else(|| panic!("{}\n{what:#?}", shown()));
    let graph = Graph::new(&experiment).unwrap();
    File { experiment, graph, sources: loaded.sources }
}

/// What a plan does, without the places of what asks for it.
fn done(mm: &Minimega, file: &File, advice: &Advice) -> Option<Json> {
    fn without_places(json: Json) -> Json {
        match json {
            Json::Object(map) => {
                let kept =
                    map.into_iter().filter(|(key, _)| !["place", "file", "line", "column"].contains(&key.as_str()));
                Json::Object(kept.map(|(key, value)| (key, without_places(value))).collect())
            }
            Json::Array(items) => items.into_iter().map(without_places).collect(),
            other => other,
        }
    }
    // What only another file has may be in the way.
    let plan = networks::learned(mm, file, advice, false).ok()?;
    Some(without_places(serde_json::to_value(&plan).unwrap()))
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn an_experiment_that_is_composed_means_what_it_meant(plain in with_raw_commands(), ignored in ignored(), rolls in dice()) {
        let plain = ignoring(&plain, &ignored);
        let composed = compose(&plain, &mut Dice::new(rolls));
        let plain = file(&plain.to_string());
        let made = right(composed.load(), &composed);
        prop_assert_eq!(made.experiment.outline(), plain.experiment.outline(), "{:#?}", composed);
        let expanded = crate::spec::written(&made.experiment, &made.sources);
        let again = file(&expanded);
        prop_assert_eq!(again.experiment.outline(), plain.experiment.outline(), "{}", expanded);
        let mm = networks::megaform();
        let mut advice = Advice::default();
        let expected = done(&mm, &plain, &advice);
        prop_assert!(expected.is_some());
        prop_assert_eq!(&done(&mm, &made, &advice), &expected);
        prop_assert_eq!(&done(&mm, &again, &advice), &expected);
        go(&mm, &made, &mut advice, Selection::default()).unwrap();
        let left = networks::learned(&mm, &again, &advice, false).unwrap();
        prop_assert!(left.is_empty(), "left to do:\n{}\n{}", text(&left), expanded);
    }

    /// Whatever runs already, and in whatever order and language the next file says it.
    #[test]
    fn neither_order_nor_language_changes_a_plan(a in with_raw_commands(), b in with_raw_commands(), mut seed in any::<u64>()) {
        let (mm, a) = (networks::megaform(), file(&a));
        let mut advice = Advice::default();
        go(&mm, &a, &mut advice, Selection::default()).unwrap();
        let (tree, plain) = (tree(&b), file(&b));
        let planned = |file: &File| networks::learned(&mm, file, &advice, false).map(|plan| text(&plan)).ok();
        prop_assert_eq!(planned(&plain), planned(&file(&b)));
        let done = |file: &File| done(&mm, file, &advice);
        let expected = done(&plain);
        let other = file(&shuffled(&tree, &mut seed).to_string());
        prop_assert_eq!(&done(&other), &expected);
        let text = toml(&shuffled(&tree, &mut seed), 0);
        let loaded = crate::spec::parse("lab.toml", &text, Format::Toml, &crate::spec::NoFiles);
        prop_assert_eq!(&done(&right(loaded, &text)), &expected);
    }
}

/// A random experiment as a module whose copies do not clash: what is one of a kind depends on its variables or its prefix.
pub fn module(plain: &Json) -> Json {
    fn apart(json: &mut Json) {
        match json {
            Json::String(text) => {
                for net in ["10.7.", "10.8.", "10.0."] {
                    *text = text.replace(net, &format!("{{{{ var.net }}}}.{}.", &net[3..4]));
                }
                *text = text.replace("52:54:00:00:00:", "52:54:00:00:{{ var.net }}:");
                *text = text.replace("12345678-0000", "12345678-00{{ var.net }}");
                // Files and folders of the host.
                for name in ["disk.qcow2", "other.qcow2", "c.pcap", "d.pcap", "y.pcap", "/r", "/s", "/t"] {
                    let is_file =
                        text.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with(['/', ' ']));
                    if is_file {
                        let (slash, bare) = name.strip_prefix('/').map_or(("", name), |bare| ("/", bare));
                        let before = text.strip_suffix(name).unwrap();
                        *text = format!("{before}{slash}{{{{ prefix }}}}{bare}");
                        break;
                    }
                }
                if ["e0", "e1", "up"].contains(&text.as_str()) {
                    *text = format!("{text}{{{{ prefix }}}}");
                }
            }
            Json::Array(items) => items.iter_mut().for_each(apart),
            Json::Object(map) => map.values_mut().for_each(apart),
            _ => {}
        }
    }
    let mut module = plain.clone();
    let root = module.as_object_mut().unwrap();
    for key in ["experiment", "vlan_range", "vlan_blacklist", "placement"] {
        root.remove(key);
    }
    apart(&mut module);
    let root = module.as_object_mut().unwrap();
    root["vlans"].as_object_mut().unwrap().values_mut().for_each(|vlan| *vlan = json!({}));
    // The usual name of a bond depends on that of its VM.
    for (name, vm) in root["vms"].as_object_mut().unwrap() {
        for bond in vm.get_mut("bonds").and_then(Json::as_array_mut).into_iter().flatten() {
            bond["name"] = json!(format!("{name}{{{{ prefix }}}}"));
        }
    }
    // What is captured of a bridge that both are on is captured once.
    if let Some(captures) = root.get_mut("captures").and_then(Json::as_object_mut) {
        captures.retain(|_, capture| capture["bridge"].is_null());
    }
    // Two gateways on one tag would be two on one VLAN; and a pipe is the module's own where it is declared.
    for way in root.get_mut("nat").and_then(Json::as_object_mut).into_iter().flatten() {
        if way.1["vlan"] == json!(201) {
            way.1["vlan"] = json!("c");
        }
    }
    if root.contains_key("plumbing") {
        let pipes = root.entry("pipes").or_insert_with(|| json!({})).as_object_mut().unwrap();
        for pipe in ["a", "b", "c"] {
            pipes.entry(pipe).or_insert_with(|| json!({}));
        }
    }
    root.insert("variables".into(), json!({ "net": { "type": "integer", "min": 10, "max": 99 } }));
    module
}

proptest! {
    #![proptest_config(cases(30))]

    /// Each copy is the module alone with another prefix, and the expanded form is the same.
    #[test]
    fn a_module_that_is_used_twice_makes_two_copies(plain in with_raw_commands(), repeated in any::<bool>()) {
        let module = module(&tree(&plain));
        let files = files(&[("m.yaml", &module.to_string())]);
        let load = |include: Json| {
            let main = json!({ "experiment": "random", "include": include });
            let loaded = parse_with("lab.yaml", &main.to_string(), Format::Yaml, &Inputs::default(), &files);
            right(loaded, &module)
        };
        let one = |prefix: &str, net: u64| json!([{ "file": "m.yaml", "prefix": prefix, "with": { "net": net } }]);
        let sorted = |text: &str| -> Vec<String> {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let alone = load(one("", 10));
        let (q, z) = (load(one("q9-", 10)), load(one("z9-", 20)));
        prop_assert_eq!(sorted(&q.experiment.outline().replace("q9-", "")), sorted(&alone.experiment.outline()));
        let both = match repeated {
            true => json!([{ "file": "m.yaml", "for_each": { "q": 10, "z": 20 }, "prefix": "{{ each.key }}9-", "with": { "net": "{{ each.value }}" } }]),
            false => json!([one("q9-", 10)[0], one("z9-", 20)[0]]),
        };
        let both = load(both);
        let mut halves = sorted(&format!("{}{}", q.experiment.outline(), z.experiment.outline()));
        halves.dedup();
        prop_assert_eq!(sorted(&both.experiment.outline()), halves);
        let expanded = crate::spec::written(&both.experiment, &both.sources);
        let again = file(&expanded);
        prop_assert_eq!(again.experiment.outline(), both.experiment.outline(), "{}", expanded);
        let (mm, mut advice) = (networks::megaform(), Advice::default());
        mm.0.lock().unwrap().shows_addresses = true;
        let left = go(&mm, &both, &mut advice, Selection::default()).unwrap();
        prop_assert!(left.is_empty(), "left to do:\n{}", text(&left));
        let left = networks::learned(&mm, &again, &advice, false).unwrap();
        prop_assert!(left.is_empty(), "left to do:\n{}\n{}", text(&left), expanded);
    }
}
