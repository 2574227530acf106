use proptest::prelude::*;

use super::*;
use crate::diagnostic::render;

mod random;

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
    becomes(
        "a:\n    b: |\n     x\n       \n     \n\n    c: >-\n      y\n\n\n",
        Format::Yaml,
        "a:\n  b: |\n   x\n     \n\n  c: >-\n    y\n",
    );
    becomes(
        "a:\n  -   &x   # c\n   - 1\n  - !!map\n     k: 1\n",
        Format::Yaml,
        "a:\n  - &x   # c\n    - 1\n  - !!map\n    k: 1\n",
    );
    becomes("", Format::Yaml, "");
    becomes(
        "a:\n    b: |   # why\n\n      # no comment\n      -   no item\n    c: 1\n",
        Format::Yaml,
        "a:\n  b: |   # why\n\n    # no comment\n    -   no item\n  c: 1\n",
    );
    becomes("a:\n   b: |+\n      x\n\n\n\n", Format::Yaml, "a:\n  b: |+\n     x\n\n\n\n");
    becomes("a:  >+   # kept\n  x\n\n\n\n\nb: 1\n\n\n", Format::Yaml, "a: >+   # kept\n  x\n\n\n\n\nb: 1\n");
    becomes("a: |\n  x  \n\n\n  y\n\n\nb: 1\n", Format::Yaml, "a: |\n  x  \n\n\n  y\n\nb: 1\n");
}

#[test]
fn toml_is_laid_out_anew() {
    becomes(
        "# first\n\n\nexperiment=\"lab\"   # name\n   vlan_range   = [300,400]\n[vms.a]\n  # about memory\n  memory   =   64\n  append = \"\"\"\na  \n\n\nb\"\"\"\n[vms.b]\nmemory=1\n\n\n# last\n",
        Format::Toml,
        "# first\n\nexperiment = \"lab\"  # name\nvlan_range = [300, 400]\n\n[vms.a]\n# about memory\nmemory = 64\nappend = \"\"\"\na  \n\n\nb\"\"\"\n\n[vms.b]\nmemory = 1\n\n# last\n",
    );
}

#[test]
fn toml_collections_have_one_form() {
    for (text, expected) in [
        ("{a=1,b  =2}", "{ a = 1, b = 2 }"),
        ("[ 1,2 ,3, ]", "[1, 2, 3,]"),
        ("{ }", "{}"),
        ("[  ]", "[]"),
        ("[{a=[1,{b.c= 2}]},[]]", "[{ a = [1, { b.c = 2 }] }, []]"),
        ("{\"a b\"='x, {'}", "{ \"a b\" = 'x, {' }"),
        ("[\n  1,  # one,two\n  {a=1} , 3,\n]", "[\n  1,  # one,two\n  { a = 1 }, 3,\n]"),
    ] {
        becomes(&format!("k={text}   # c\n"), Format::Toml, &format!("k = {expected}  # c\n"));
    }
    becomes(
        "a.b=1\n[t]\nk=[1,2]\n[[l]]\nx={a=1}\n",
        Format::Toml,
        "a.b = 1\n\n[t]\nk = [1, 2]\n\n[[l]]\nx = { a = 1 }\n",
    );
}

/// A random value on one line or several, with comments.
fn toml_value() -> impl Strategy<Value = String> {
    let leaf =
        proptest::sample::select(vec!["1", "-2.5", "true", "\"a,  b\"", "'[x ,'", "\"\"\"p\n  q \"\"\"", "1979-05-27"]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 16, 4, |inner| {
        let blanks = || proptest::sample::select(vec!["", " ", "   ", "\t"]);
        let gap = proptest::sample::select(vec!["", " ", "  ", "\n", "\n\n   ", " # c, ]\n  ", "\n# d   \n"]);
        let item = (gap.clone(), inner.clone(), gap.clone());
        let array = (proptest::collection::vec(item, 0..4), any::<bool>(), gap).prop_map(|(items, comma, end)| {
            let many = !items.is_empty();
            let items: Vec<String> =
                items.into_iter().map(|(before, item, after)| format!("{before}{item}{after}")).collect();
            format!("[{}{}{end}]", items.join(","), if comma && many { "," } else { "" })
        });
        let pair =
            (blanks(), blanks(), blanks(), inner.prop_filter("one line", |value| !value.contains('\n')), blanks());
        let table = proptest::collection::vec(pair, 0..4).prop_map(|pairs| {
            let pair = |(index, (a, b, c, value, d)): (usize, (&str, &str, &str, String, &str))| {
                format!("{a}k{index}{b}={c}{value}{d}")
            };
            format!("{{{}}}", pairs.into_iter().enumerate().map(pair).collect::<Vec<_>>().join(","))
        });
        prop_oneof![array, table]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn toml_keeps_what_it_says(values in proptest::collection::vec(toml_value(), 1..5)) {
        let text: String = values.iter().enumerate().map(|(i, value)| format!("# l{i}\n  k{i}={value}  # e{i}\n\n\n")).collect();
        let once = fmt(&text, Format::Toml).map_err(TestCaseError::fail)?;
        let solid = |text: &str| -> String { text.split_whitespace().collect() };
        prop_assert_eq!(solid(&once), solid(&text));
        prop_assert_eq!(fmt(&once, Format::Toml).map_err(TestCaseError::fail)?, once);
    }
}

#[test]
fn flow_collections_have_one_form() {
    for (text, expected) in [
        ("{a: 1,b: 2}", "{ a: 1, b: 2 }"),
        ("[ 1,2 ,3 ]", "[1, 2, 3]"),
        ("{ }", "{}"),
        ("[  ]", "[]"),
        ("{\"a\":1,'b' :2 , c : 3,?x: 4, d :3}", "{ \"a\": 1, 'b': 2, c: 3, ?x: 4, d :3 }"),
        ("[{a: [1,{b:  2}]},[]]", "[{ a: [1, { b: 2 }] }, []]"),
        ("{a,b: , c:}", "{ a, b:, c: }"),
        ("[a: 1,b :  2,]", "[a: 1, b: 2,]"),
        ("{k: [&x  a,*x ,'  b, c '] ,*x : \"{a,b}\"}", "{ k: [&x a, *x, '  b, c '], *x : \"{a,b}\" }"),
        ("{a: !!str  1,url: http://x,n: a  b}", "{ a: !!str 1, url: http://x, n: a  b }"),
        ("{a: 1,   # {x,y}   \n     b: [1,2],  \n\n  c: 3}", "{ a: 1,   # {x,y}\n     b: [1, 2],\n\n  c: 3 }"),
    ] {
        becomes(&format!("k: {text}\n"), Format::Yaml, &format!("k: {expected}\n"));
        becomes(&format!("k:\n  -   {text}\n"), Format::Yaml, &format!("k:\n  - {expected}\n"));
    }
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
