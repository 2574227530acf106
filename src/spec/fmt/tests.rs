use proptest::prelude::*;

use super::*;
use crate::diagnostic::render;

fn fmt(text: &str, format: Format) -> Result<String, String> {
    normal("lab", text, format).map_err(|(sources, diagnostics)| render(&diagnostics, &sources, false))
}

/// Formatting gives this, and formatting that again changes nothing.
#[track_caller]
fn becomes(text: &str, format: Format, expected: &str) {
    assert_eq!(fmt(text, format).unwrap(), expected);
    assert_eq!(fmt(expected, format).unwrap(), expected);
}

#[test]
fn yaml_is_laid_out_anew() {
    becomes(
        "\u{feff}# first\r\n\r\n\r\nexperiment:   lab   \r\nvms:\r\n    # about a\r\n    a:\r\n        networks:\r\n        -   lan\r\n        # the other\r\n        -   vlan:  b   # here\r\n            mac: \"52:54:00:00:00:01\"\r\n        append: >-\r\n            one\r\n              two\r\n\r\n            three\r\n\r\n\r\n    b: { memory:   64,\r\n         vcpus: 2 }\r\n  # of the section\r\n# last\r\n\r\n",
        Format::Yaml,
        "# first\n\nexperiment: lab\nvms:\n  # about a\n  a:\n    networks:\n      - lan\n      # the other\n      - vlan: b   # here\n        mac: \"52:54:00:00:00:01\"\n    append: >-\n        one\n          two\n\n        three\n\n  b: { memory: 64,\n       vcpus: 2 }\n# of the section\n# last\n",
    );
    becomes("---\na:\n- - 1\n  -  2\n-\n  b: 1\n", Format::Yaml, "---\na:\n  - - 1\n    - 2\n  -\n    b: 1\n");
    becomes("", Format::Yaml, "");
    becomes(
        "a:\n    b: |   # why\n\n      # no comment\n      -   no item\n    c: 1\n",
        Format::Yaml,
        "a:\n  b: |   # why\n\n    # no comment\n    -   no item\n  c: 1\n",
    );
    becomes("a: |\n  x  \n\n\n  y\n\n\nb: 1\n", Format::Yaml, "a: |\n  x  \n\n\n  y\n\nb: 1\n");
}

#[test]
fn toml_is_laid_out_anew() {
    becomes(
        "# first\n\n\nexperiment=\"lab\"   # name\n   vlan_range   = [300,400]\n[vms.a]\n  # about memory\n  memory   =   64\n  append = \"\"\"\na  \n\n\nb\"\"\"\n[vms.b]\nmemory=1\n\n\n# last\n",
        Format::Toml,
        "# first\n\nexperiment = \"lab\"  # name\nvlan_range = [300,400]\n\n[vms.a]\n# about memory\nmemory = 64\nappend = \"\"\"\na  \n\n\nb\"\"\"\n\n[vms.b]\nmemory = 1\n\n# last\n",
    );
}

#[test]
fn what_is_wrong_is_not_formatted() {
    assert!(fmt("a: [\n", Format::Yaml).unwrap_err().contains("not valid YAML"));
    assert!(fmt("a: 1\na: 2\n", Format::Yaml).unwrap_err().contains("given twice"));
    assert!(fmt("a = \n", Format::Toml).unwrap_err().contains("not valid TOML"));
}

#[test]
fn the_examples_are_in_normal_form() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files = 0;
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(format) = crate::spec::compose::format(&path.display().to_string()) else { continue };
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(fmt(&text, format).unwrap() == text, "{} is not in normal form", path.display());
            files += 1;
        }
    }
    assert!(files > 1);
}

/// A tree as YAML with odd indentation.
fn yaml(tree: &Tree, column: usize, steps: &mut dyn Iterator<Item = usize>, into: &mut String) {
    let pad = |into: &mut String| into.push_str(&" ".repeat(column));
    match tree {
        Tree::Leaf(text) => {
            pad(into);
            into.push_str(text);
            into.push('\n');
        }
        Tree::List(items) => {
            for item in items {
                pad(into);
                into.push_str("-\n");
                yaml(item, column + steps.next().unwrap(), steps, into);
            }
        }
        Tree::Map(items) => {
            for (index, item) in items.iter().enumerate() {
                pad(into);
                into.push_str(&format!("k{index}:   # c\n"));
                yaml(item, column + steps.next().unwrap(), steps, into);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Tree {
    Leaf(&'static str),
    List(Vec<Tree>),
    Map(Vec<Tree>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = proptest::sample::select(vec!["x", "1", "\"a b\"", "[1,  2]", "{ a:  1 }", "'q'"]).prop_map(Tree::Leaf);
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Tree::List),
            proptest::collection::vec(inner, 1..4).prop_map(Tree::Map),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_is_formatted_and_then_stays(tree in trees(), steps in proptest::collection::vec(1..6usize, 1..12)) {
        let mut text = String::new();
        yaml(&tree, 0, &mut steps.iter().copied().cycle(), &mut text);
        let once = fmt(&text, Format::Yaml).map_err(TestCaseError::fail)?;
        prop_assert_eq!(fmt(&once, Format::Yaml).map_err(TestCaseError::fail)?, once);
    }
}
