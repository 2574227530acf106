//! The licences and sources of all crates that go into megaform, held against the lists in `deny.toml`. It asks cargo
//! alone, without the network, so it runs wherever the tests do; cargo-deny checks more where it is installed.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use toml_edit::DocumentMut;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A list of texts in `deny.toml`.
fn allowed(table: &str, key: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let document: DocumentMut = text.parse().expect("deny.toml is TOML");
    let list = document[table][key].as_array().expect("a list");
    list.iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let used: Vec<&Value> =
        metadata["resolve"]["nodes"].as_array().expect("a list").iter().map(|node| &node["id"]).collect();
    let packages: Vec<Value> = metadata["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|package| used.contains(&&package["id"]))
        .cloned()
        .collect();
    assert!(packages.len() > 50, "found only {} packages", packages.len());
    packages
}

/// Whether a licence expression (SPDX, or the older form with `/`) can be met with the allowed licences.
fn permits(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let met = either(&words, &mut at, allowed);
    assert_eq!(at, words.len(), "`{expression}` is no licence expression");
    met
}

fn either(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, allowed);
    }
    met
}

fn both(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut licence = (*words.get(*at).expect("a licence")).to_owned();
    *at += 1;
    if licence == "(" {
        let met = either(words, at, allowed);
        assert_eq!(words.get(*at), Some(&")"), "a parenthesis that is closed");
        *at += 1;
        return met;
    }
    if words.get(*at) == Some(&"WITH") {
        licence = format!("{licence} WITH {}", words.get(*at + 1).expect("an exception"));
        *at += 2;
    }
    allowed.contains(&licence)
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let allowed = allowed("licenses", "allow");
    let refused: Vec<String> = packages()
        .iter()
        .filter(|package| !permits(package["license"].as_str().unwrap_or("none"), &allowed))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "not in the list of deny.toml:\n{}", refused.join("\n"));
}

#[test]
fn every_crate_comes_from_an_allowed_registry_or_from_here() {
    let allowed: Vec<String> =
        allowed("sources", "allow-registry").into_iter().map(|registry| format!("registry+{registry}")).collect();
    for package in packages() {
        let source = package["source"].as_str().map(str::to_owned);
        assert!(
            source.as_ref().is_none_or(|source| allowed.contains(source)),
            "{} comes from {source:?}",
            package["name"]
        );
        if source.is_none() {
            let manifest = package["manifest_path"].as_str().expect("a path");
            assert!(Path::new(manifest).starts_with(root()), "{} lies outside: {manifest}", package["name"]);
        }
    }
}

#[test]
fn licence_expressions() {
    let allowed: Vec<String> = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for met in ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(GPL-3.0 OR MIT) AND Zlib", "Apache-2.0 WITH LLVM-exception"] {
        assert!(permits(met, &allowed), "{met}");
    }
    for refused in ["GPL-3.0", "MIT AND GPL-3.0", "none", "GPL-3.0 OR MIT AND GPL-2.0", "Apache-2.0"] {
        assert!(!permits(refused, &allowed), "{refused}");
    }
}
