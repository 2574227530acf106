//! Which keys of the language the random experiments have: all but those of a list with reasons.

use std::collections::BTreeSet;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value as Json;

use super::*;
use crate::spec::syntax::{self, Node, Value};

/// Keys that no random experiment has, and why.
const WITHOUT: &[(&str, &str)] = &[
    ("include.for_each", "two copies have other names: a_module_that_is_used_twice_makes_two_copies"),
    ("include.prefix", "two copies have other names: a_module_that_is_used_twice_makes_two_copies"),
    ("lifecycle.prevent_destroy", "it refuses plans: plan::tests::lifecycle"),
    ("object_lifecycle.prevent_destroy", "it refuses plans: plan::tests::networks"),
    ("tap_lifecycle.prevent_destroy", "it refuses plans: plan::tests::lifecycle"),
    ("profile_lifecycle.prevent_destroy", "it refuses plans: plan::tests::lifecycle"),
];

/// A text as a tree.
pub fn tree(text: &str) -> Json {
    let mut sources = SourceMap::new();
    let source = sources.add("", text);
    let (root, diagnostics) = syntax::read(text, source, Format::Yaml);
    json(&root.unwrap_or_else(|| panic!("{diagnostics:?}\n{text}")))
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::from(*truth),
        Value::Int(number) => Json::from(i64::try_from(*number).unwrap()),
        Value::Float(number) => Json::from(*number),
        Value::Date => unreachable!("YAML has no dates"),
        Value::String(text) => Json::from(&**text),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(map) => Json::Object(map.iter().map(|(key, node)| (key.text.to_string(), json(node))).collect()),
    }
}

/// Note the keys that a value has, as `DEFINITION.KEY`, going through the schema beside it.
fn seen(schema: &Json, at: &str, shape: &Json, value: &Json, into: &mut BTreeSet<String>) {
    if let Some(name) = shape["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").unwrap();
        seen(schema, name, &schema["$defs"][name], value, into);
    }
    for one in shape["anyOf"].as_array().into_iter().flatten() {
        seen(schema, at, one, value, into);
    }
    let condition = &shape["if"]["required"];
    if shape["then"].is_object()
        && condition.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some())
    {
        seen(schema, at, &shape["then"], value, into);
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let property = &shape["properties"][key];
        if property.is_object() {
            into.insert(format!("{at}.{}", key.replace('-', "_")));
            seen(schema, &format!("{at}.{key}"), property, value, into);
        } else if shape["additionalProperties"].is_object() {
            seen(schema, at, &shape["additionalProperties"], value, into);
        }
    }
    for item in value.as_array().into_iter().flatten() {
        seen(schema, at, &shape["items"], item, into);
    }
}

/// Every key of the schema, in the same way.
fn all(schema: &Json) -> BTreeSet<String> {
    let of = |at: &str, shape: &Json| -> Vec<String> {
        let keys = shape["properties"].as_object().into_iter().flatten();
        keys.map(|(key, _)| format!("{at}.{}", key.replace('-', "_"))).collect()
    };
    let definitions = schema["$defs"].as_object().unwrap().iter().flat_map(|(name, shape)| of(name, shape));
    of("", schema).into_iter().chain(definitions).collect()
}

#[test]
fn random_experiments_have_every_key_of_the_language() {
    let schema = crate::spec::schema();
    // Always the same ones.
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut found = BTreeSet::new();
    let mut look = |tree: &Json| seen(&schema, "", &schema, tree, &mut found);
    for _ in 0..300 {
        let text = with_raw_commands().new_tree(&mut runner).unwrap().current();
        look(&tree(&text));
        let ignored = ignored::ignored().new_tree(&mut runner).unwrap().current();
        let rolls = composition::dice().new_tree(&mut runner).unwrap().current();
        let composed = composition::compose(&ignored::ignoring(&text, &ignored), &mut composition::Dice::new(rolls));
        look(&composed.main);
        composed.module.iter().for_each(&mut look);
    }
    let excused: BTreeSet<String> = WITHOUT.iter().map(|(key, _)| (*key).to_owned()).collect();
    let missing: Vec<_> =
        all(&schema).into_iter().filter(|key| !found.contains(key) && !excused.contains(key)).collect();
    assert!(missing.is_empty(), "no random experiment has {missing:#?}: make them, or say why not");
    let stale: Vec<_> = excused.iter().filter(|key| found.contains(*key)).collect();
    assert!(stale.is_empty(), "random experiments do have {stale:?}");
}
