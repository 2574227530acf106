//! The files of `examples/`, each with some damage: whatever stands in a file, reading it ends with an experiment or with
//! errors that have their places, within the limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::spec::compose::tests::orders::toml;
use crate::spec::compose::tests::{Memory, files};

/// Every file of `examples/` by its path there, and the same in TOML.
static EXAMPLES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap();
            if let Some(stem) = name.strip_suffix(".yaml") {
                let tree = crate::plan::tests::properties::tree(&text);
                // A line for each value, so that lines can be damaged.
                found.insert(format!("{stem}.toml"), toml(&tree, 0).replace(", ", ",\n").replace("{ ", "{\n"));
            }
            found.insert(name, text);
        }
    }
    found
});

/// What values and names are replaced by.
const VALUES: &[&str] = &[
    "[]",
    "{}",
    "null",
    "-1",
    "99999999999999999999999999",
    "1e400",
    "true",
    "\"\"",
    "\"{{ 1 / 0 }}\"",
    "\"{{ range(200000) }}\"",
    "\"{{ each.value ~ count.index }}\"",
    "\"{% for i in range(9) %}x{% endfor %}\"",
    "[[[[]]]]",
    "{ a: { b: [1, { c: d }] } }",
    "&a [*a]",
    "*nothing",
    "\"web[0-99999]\"",
    "\"web[5-1]\"",
    "2001-01-01",
    "10.0.0.0/33",
    "\"$x file:y\"",
    "\"\\u0000\\u202e日本\"",
    "!!binary x",
    "web.99999999999",
];

#[derive(Debug, Clone)]
enum Damage {
    /// Bytes are changed.
    Flip(Index, u8),
    Cut(Index, Index),
    /// A line, or several, stands twice, or moves.
    Again(Index, usize, Index),
    Drop(Index),
    /// What stands behind a colon or `=`, or between brackets, is something else.
    Value(Index, &'static str),
    /// A key is another one of the file.
    Key(Index, Index),
    Insert(Index, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    let pieces = vec![
        "\t",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "\n",
        ": ",
        "é",
        "&a ",
        "*a",
        "<<: ",
        "- ",
        "#",
        "|\n",
        ">",
        "=",
        "\u{0}",
        "---\n",
        "\r\n",
        "{{",
        "}}",
        "{%",
        "..",
        "\u{feff}",
        "\u{2028}",
        "for_each: [a, b], ",
        "when: false, ",
        "count: 3, ",
    ];
    prop_oneof![
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => (at(), at()).prop_map(|(from, to)| Damage::Cut(from, to)),
        2 => (at(), 1usize..12, at()).prop_map(|(line, count, to)| Damage::Again(line, count, to)),
        2 => at().prop_map(Damage::Drop),
        5 => (at(), proptest::sample::select(VALUES)).prop_map(|(at, value)| Damage::Value(at, value)),
        3 => (at(), at()).prop_map(|(one, two)| Damage::Key(one, two)),
        2 => (at(), proptest::sample::select(pieces)).prop_map(|(at, piece)| Damage::Insert(at, piece)),
    ]
}

fn damaged(text: &str, damage: &Damage) -> String {
    let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let place = |at: &Index| boundary(at.index(text.len() + 1));
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    let sites: Vec<usize> = text.match_indices([':', '=', '[', ',', '{']).map(|(at, sign)| at + sign.len()).collect();
    // Up to the next sign.
    let end = |from: usize| text[from..].find([',', ']', '}', '\n', '#']).map_or(text.len(), |length| from + length);
    match damage {
        Damage::Flip(at, byte) => {
            let mut bytes = text.as_bytes().to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Damage::Cut(one, two) => {
            let (from, to) = (place(one).min(place(two)), place(one).max(place(two)));
            // Most cuts are short.
            let to = if to - from > 200 { boundary(from + (to - from) % 200) } else { to };
            format!("{}{}", &text[..from], &text[to..])
        }
        Damage::Again(at, count, to) if !lines.is_empty() => {
            let from = at.index(lines.len());
            let some: Vec<&str> = lines[from..].iter().take(*count).copied().collect();
            let to = to.index(lines.len() + 1);
            lines.splice(to..to, some);
            lines.concat()
        }
        Damage::Drop(at) if !lines.is_empty() => {
            lines.remove(at.index(lines.len()));
            lines.concat()
        }
        Damage::Value(at, value) if !sites.is_empty() => {
            let from = sites[at.index(sites.len())];
            format!("{} {value}{}", &text[..from], &text[end(from).max(from)..])
        }
        Damage::Key(one, two) => {
            let keys: Vec<(usize, &str)> = text
                .match_indices(": ")
                .filter_map(|(at, _)| {
                    let from = text[..at].rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
                    text.is_char_boundary(from).then(|| text.get(from..at).map(|key| (from, key))).flatten()
                })
                .collect();
            if keys.is_empty() {
                return text.to_owned();
            }
            let ((at, old), (_, new)) = (keys[one.index(keys.len())], keys[two.index(keys.len())]);
            format!("{}{new}{}", &text[..at], &text[at + old.len()..])
        }
        Damage::Insert(at, piece) => {
            let at = place(at);
            format!("{}{piece}{}", &text[..at], &text[at..])
        }
        _ => text.to_owned(),
    }
}

/// A place is in the text that it names.
fn there(loaded: &Loaded, span: Span) -> bool {
    let text = loaded.sources.text(span.source);
    span.start <= span.end
        && span.end <= text.len()
        && text.is_char_boundary(span.start)
        && text.is_char_boundary(span.end)
}

fn format_of(name: &str) -> Format {
    if name.ends_with(".toml") { Format::Toml } else { Format::Yaml }
}

/// An example with its damage, its name and its text.
fn read_damaged(which: Index, damages: &[(bool, Damage)]) -> (Loaded, String, String) {
    let mut all = EXAMPLES.clone();
    let names: Vec<String> = all.keys().cloned().collect();
    let name = &names[which.index(names.len())];
    let module = names.iter().find(|name| *name == "modules/branch.yaml").expect("an example includes it");
    for (in_module, damage) in damages {
        // The file itself, or one that it includes.
        let at = if *in_module { module } else { name };
        let text = damaged(&all[at], damage);
        all.insert(at.clone(), text);
    }
    let pairs: Vec<(&str, &str)> = all.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let memory: Memory = files(&pairs);
    let loaded = parse_with(name, &all[name], format_of(name), &Inputs::default(), &memory);
    (loaded, name.clone(), all[name].clone())
}

fn damages() -> impl Strategy<Value = Vec<(bool, Damage)>> {
    proptest::collection::vec((any::<bool>(), damage()), 1..5)
}

#[test]
fn damage_leaves_some_experiments_and_breaks_others() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut codes = std::collections::BTreeSet::new();
    let mut right = 0;
    for _ in 0..200 {
        let (which, damages) = (any::<Index>(), damages()).new_tree(&mut runner).unwrap().current();
        let (loaded, ..) = read_damaged(which, &damages);
        right += usize::from(loaded.experiment.is_some());
        codes.extend(loaded.diagnostics.iter().map(|found| found.code));
    }
    assert!((20..180).contains(&right) && codes.len() > 20, "{right} of 200, {codes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_stands_in_a_file_has_an_experiment_or_errors_with_places(
        which in any::<Index>(), damages in damages()
    ) {
        let (loaded, name, text) = read_damaged(which, &damages);
        let (name, text) = (&name, &text);
        let format = format_of(name);
        for found in &loaded.diagnostics {
            prop_assert!(found.span.is_some_and(|span| there(&loaded, span)), "{found:?}\n{text}");
            prop_assert!(found.labels.iter().all(|(span, _)| there(&loaded, *span)), "{found:?}\n{text}");
            prop_assert!(found.message.len() < 2000 && !found.message.contains('\n'), "{found:?}\n{text}");
        }
        let errors = loaded.diagnostics.iter().any(|found| found.severity == Severity::Error);
        prop_assert!(loaded.experiment.is_some() != errors, "{}\n{text}", shown(&loaded));
        // An error is said a bounded number of times, and all of it is readable.
        prop_assert!(shown(&loaded).len() < 4 << 20);
        let _ = crate::spec::fmt::normal(name, text, format);
        if let Some(experiment) = &loaded.experiment {
            let written = written(experiment, &loaded.sources);
            let again = parse("again.yaml", &written, Format::Yaml, &NoFiles);
            let again = again.experiment.as_ref().map(Experiment::outline);
            prop_assert_eq!(again, Some(experiment.outline()), "{}\n{}", text, written);
            if let Ok(graph) = crate::graph::Graph::new(experiment) {
                let options = crate::plan::Options::new(&loaded.sources, crate::plan::Advice::default());
                let planned = crate::plan::plan(experiment, &graph, &crate::live::Live::absent(), &options);
                prop_assert!(planned.is_ok() || experiment.vms.len() < 100_000, "{planned:?}");
            }
        }
    }
}
