use super::*;
use crate::diagnostic::SourceMap;

fn read(text: &str, format: Format) -> (Option<Node>, Vec<Diagnostic>) {
    super::read(text, SourceMap::new().add("x", text), format)
}

fn yaml(text: &str) -> (Option<Node>, Vec<Diagnostic>) {
    read(text, Format::Yaml)
}

/// The codes, each with the text it points at.
fn found<'t>(text: &'t str, diagnostics: &[Diagnostic]) -> Vec<(&'static str, &'t str)> {
    diagnostics.iter().map(|d| (d.code, &text[d.span.unwrap().start..d.span.unwrap().end])).collect()
}

/// Every key and scalar with the bytes of its span.
fn pieces(node: &Node, text: &str, into: &mut Vec<String>) {
    match &node.value {
        Value::List(list) => list.iter().for_each(|n| pieces(n, text, into)),
        Value::Map(map) => {
            for (key, value) in map.iter() {
                into.push(format!("{}={}", key.text, &text[key.span.start..key.span.end]));
                pieces(value, text, into);
            }
        }
        _ => into.push(text[node.span.start..node.span.end].to_owned()),
    }
}

#[test]
fn spans_are_bytes_of_the_file() {
    for text in [
        "\u{feff}\"é\": [日本, 'x y', 3]\r\n# ü\r\nb:\r\n  - c: |\r\n      t\r\n    d: e f\r\n",
        "é: [日本, 'x y', 3]\nb:\n- c: t\n  d: \"e\"\n",
    ] {
        let (root, diagnostics) = yaml(text);
        assert_eq!(diagnostics, []);
        let mut all = Vec::new();
        pieces(&root.unwrap(), text, &mut all);
        assert!(all[0].ends_with(if text.starts_with('\u{feff}') { "=\"é\"" } else { "=é" }), "{all:?}");
        assert_eq!(all[1..4], ["日本", "'x y'", "3"], "{all:?}");
        assert_eq!(all[4], "b=b");
        assert!(all[7].starts_with("d=d"), "{all:?}");
    }
    let text = "\"é\" = [\"日本\", 'x y', 3]\r\n[b.c]\r\nd = { e = 1.5 }\r\n";
    let (root, diagnostics) = read(text, Format::Toml);
    assert_eq!(diagnostics, []);
    let mut all = Vec::new();
    pieces(&root.unwrap(), text, &mut all);
    assert_eq!(all, ["é=\"é\"", "\"日本\"", "'x y'", "3", "b=b", "c=c", "d=d", "e=e", "1.5"]);
}

#[test]
fn too_many_values_are_refused_where_they_are_too_many() {
    let refused = |text: String, format| {
        let (node, found) = read(&text, format);
        assert!(node.is_none());
        assert_eq!((found.len(), found[0].code), (1, "too-many-values"), "{found:?}");
        let what = if text.starts_with('\n') {
            "12000000 words, signs, blanks and line ends"
        } else {
            "4000000 keys and values"
        };
        assert!(found[0].message.contains(what), "{found:?}");
        text[..found[0].span.unwrap().start].bytes().filter(|byte| b",[{\n".contains(byte)).count()
    };
    let near = |seen: usize, wanted: usize| assert!(seen.abs_diff(wanted) < 10, "{seen} is not {wanted}");
    near(refused(format!("a: [{}1]", "1,".repeat(MAX_VALUES)), Format::Yaml), MAX_VALUES);
    let anchors: String = (0..MAX_VALUES / 3).map(|i| format!("&{i} 1,")).collect();
    near(refused(format!("a: [{anchors}1]"), Format::Yaml), MAX_VALUES / 3);
    near(refused(format!("a = [{}1]", "1,".repeat(MAX_VALUES)), Format::Toml), MAX_VALUES);
    // Each is a value and a table, a brace and a comma.
    near(refused(format!("a = [{}1]", "{},".repeat(MAX_VALUES / 4)), Format::Toml), MAX_VALUES / 2);
    let lines = |count: usize, of: fn(usize) -> String| (0..count).map(of).collect::<String>();
    near(refused(lines(MAX_VALUES / 5 + 2, |i| format!("[a.b{i}]\n")), Format::Toml), 2 * MAX_VALUES / 5);
    let deep = |i: usize| format!("a{i}{} = 1\n", ".b".repeat(20));
    near(refused(lines(MAX_VALUES / 102 + 1, deep), Format::Toml), MAX_VALUES / 102);
    near(refused("\n".repeat(MAX_TOKENS + 1), Format::Toml), MAX_TOKENS);
    // Where text begins and ends the parser alone knows.
    near(refused(format!("a = [\"\"\"\"x\"\"\"\"\",{}1]", "1,".repeat(MAX_VALUES)), Format::Toml), MAX_VALUES);
    near(refused(format!("a = [1\",{}1]", "1,".repeat(MAX_VALUES)), Format::Toml), MAX_VALUES);
    // What stands in text or a comment does not count, and what a table shares with the one before it is counted once.
    let (text, comment) = ("[,{=".repeat(MAX_VALUES / 5), "[x]".repeat(MAX_VALUES / 5));
    let quiet = format!("#{comment}\na = \"{text}\"\nb = \'\'\'\n{text}\n\'\'\'\n\"c.d\" = \"\"\"\\\"\"\"\"\n");
    assert_eq!(read(&quiet, Format::Toml).1.len(), 0);
    let nested = lines(150_000, |i| format!("[a.b.c{i}]\n[a.b.c{i}.d]\n[[a.b.c{i}.e]] # 1.2.3.4.5\n[[a.b.c{i}.e]]\n"));
    assert!(super::tally::check(&nested, SourceMap::new().add("x", "")).is_ok());
}

#[test]
fn duplicate_keys_have_both_places() {
    let many: String = (0..20).map(|i| format!("k{i}: 1\n")).collect();
    for (text, format) in [
        ("a: 1\nb: 2\na: 3\n".to_owned(), Format::Yaml),
        (format!("a: 1\n{many}\"a\": 3\n"), Format::Yaml),
        ("{a: 1, b: {}, a: 2}".to_owned(), Format::Yaml),
        ("a = 1\nb = 2\na = 3\n".to_owned(), Format::Toml),
        ("x = { a = 1, b = 2, 'a' = 3 }\n".to_owned(), Format::Toml),
        ("[a]\nb = 2\n[a]\nc = 1\n".to_owned(), Format::Toml),
        ("[x.a]\nb = 2\n[c]\n[x.a]\nc = 1\n".to_owned(), Format::Toml),
    ] {
        let (root, diagnostics) = read(&text, format);
        assert!(root.is_some());
        let [diagnostic] = &diagnostics[..] else { panic!("{text}: {diagnostics:?}") };
        assert_eq!(diagnostic.code, "duplicate-key");
        let (first, second) = (diagnostic.labels[0].0, diagnostic.span.unwrap());
        assert_eq!(text[first.start..first.end].trim_matches(['"', '\'']), "a", "{text}");
        assert_eq!(text[second.start..second.end].trim_matches(['"', '\'']), "a", "{text}");
        assert!(first.start < second.start, "{text}");
    }
    // Every one is found, and what follows keeps its place.
    let text = "a = 1\na = 2\na = 3\n[t]\nb = 1\nb = 2\nc = \"x\"\n";
    let (root, diagnostics) = read(text, Format::Toml);
    assert_eq!(diagnostics.len(), 3);
    let mut all = Vec::new();
    pieces(&root.unwrap(), text, &mut all);
    assert_eq!(all, ["a=a", "1", "t=t", "b=b", "1", "c=c", "\"x\""]);
    // Where a place cannot be found twice, the second one remains.
    let text = "a = 1\na = 2\nb = 1\nb.c = 2\n";
    let (root, diagnostics) = read(text, Format::Toml);
    assert!(root.is_none());
    assert_eq!(found(text, &diagnostics).len(), 2, "{diagnostics:?}");
    let text = "a = 1\na = 2\nb = ]\n";
    assert_eq!(found(text, &read(text, Format::Toml).1)[0].0, "syntax");
}

#[test]
fn syntax_errors_have_a_place() {
    for (text, format, line) in [
        ("a: 1\nb: [1, 2\nc: 3\n", Format::Yaml, 2..=4),
        ("a: 1\n\tb: 2\n", Format::Yaml, 2..=2),
        ("a: 'x\n", Format::Yaml, 1..=2),
        ("web[0-2]: {}\nb: *none\nc: *none2\n", Format::Yaml, 2..=2),
        ("a: 1\n--- \nb: 2\n", Format::Yaml, 2..=3),
        ("a: !foo x\n", Format::Yaml, 1..=1),
        ("a: &a [*a]\n", Format::Yaml, 1..=1),
        ("<<: 5\n", Format::Yaml, 1..=1),
        ("? [a]\n: b\n", Format::Yaml, 1..=1),
        ("a = 1\nb = \n", Format::Toml, 2..=3),
        ("a = 007\n", Format::Toml, 1..=1),
    ] {
        let mut sources = SourceMap::new();
        let source = sources.add("x", text);
        let (_, diagnostics) = super::read(text, source, format);
        assert!(!diagnostics.is_empty(), "{text}");
        let place = sources.place(diagnostics[0].span.unwrap());
        assert!(line.contains(&place.line), "{text}: {place} {}", diagnostics[0].message);
    }
    assert_eq!(yaml("b: *none\nc: *none2\n").1.len(), 2, "every unknown alias is reported");
}

#[test]
fn scalars_of_the_core_schema() {
    use Value::*;
    let value = |text: &str| scalar::resolve(text);
    for text in [
        "52:54:00:00:00:01",
        "on",
        "off",
        "yes",
        "no",
        "190:20:30",
        "1_000",
        "0b1",
        "12e",
        "-",
        ".",
        "+",
        "1.2.3",
        "0x",
        "0xg",
        "-0x1",
    ] {
        assert!(matches!(value(text), String(_)), "{text} is {:?}", value(text));
    }
    for text in ["~", "null", "Null", "NULL", ""] {
        assert!(matches!(value(text), Null), "{text}");
    }
    for (text, number) in [("0", 0), ("-7", -7), ("+7", 7), ("007", 7), ("0x1F", 31), ("0o17", 15)] {
        assert!(matches!(value(text), Int(n) if n == number), "{text} is {:?}", value(text));
    }
    for text in ["1e3", "1.", ".5", "-1.5E-3", ".inf", "-.INF", ".nan", &"9".repeat(60)] {
        assert!(matches!(value(text), Float(_)), "{text} is {:?}", value(text));
    }
    assert!(matches!(value("True"), Bool(true)));
}

#[test]
fn tags_and_styles() {
    let text = "a: !!str 5\nb: ! 5\nc: !!int 5\nd: \"5\"\ne: !!map {}\nf: !!seq []\n";
    let (root, diagnostics) = yaml(text);
    assert_eq!(diagnostics, []);
    let Value::Map(map) = root.unwrap().value else { panic!("not a map") };
    let kinds: Vec<_> = map.iter().map(|(_, node)| node.value.kind()).collect();
    assert_eq!(kinds, ["text", "text", "a number", "text", "a map", "a list"]);
    for text in ["a: !!int x\n", "a: !!binary x\n", "a: !x {}\n", "a: !!map []\n"] {
        assert_eq!(yaml(text).1[0].code, "yaml-tag", "{text}");
    }
}

#[test]
fn nesting_is_limited() {
    for depth in [MAX_DEPTH, MAX_DEPTH + 1, 100_000] {
        let flow = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let (root, diagnostics) = yaml(&flow);
        assert_eq!(root.is_some(), depth <= MAX_DEPTH);
        assert_eq!(diagnostics.first().map(|d| d.code), (depth > MAX_DEPTH).then_some("too-deep"));
    }
    let block: String = (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert_eq!(yaml(&block).1[0].code, "too-deep");
    // Through aliases.
    let aliases: String = (0..100)
        .map(|i| format!("a{i}: &a{i} [{}]\n", if i == 0 { "x".to_owned() } else { format!("*a{}", i - 1) }))
        .collect();
    assert_eq!(yaml(&aliases).1[0].code, "too-deep");
    for (depth, refused) in [(60, false), (70, true), (100_000, true)] {
        let toml = format!("a = {}{}\n", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(!read(&toml, Format::Toml).1.is_empty(), refused, "{depth}");
        let dotted = format!("{}a = 1\n", "a.".repeat(depth));
        assert_eq!(!read(&dotted, Format::Toml).1.is_empty(), refused, "{depth}");
    }
}

#[test]
fn aliases_are_limited() {
    let laughs: String = (0..30)
        .map(|i| {
            let item = if i == 0 { "x".to_owned() } else { format!("*a{}", i - 1) };
            format!("a{i}: &a{i} [{}]\n", [item.as_str(); 10].join(", "))
        })
        .collect();
    let (root, diagnostics) = yaml(&laughs);
    assert!(root.is_none());
    assert_eq!(diagnostics[0].code, "alias-limit");
    let merges: String = (0..40)
        .map(|i| {
            if i == 0 {
                "a0: &a0 { x: 1 }\n".to_owned()
            } else {
                format!("a{i}: &a{i} {{ <<: [*a{0}, *a{0}], k{i}: *a{0} }}\n", i - 1)
            }
        })
        .collect();
    assert_eq!(yaml(&merges).1[0].code, "alias-limit");
    let fine: String = std::iter::once("a: &a { x: 1, y: 2 }\n".to_owned())
        .chain((0..10_000).map(|i| format!("b{i}: {{ <<: *a, z: {i} }}\n")))
        .collect();
    let (root, diagnostics) = yaml(&fine);
    assert!(root.is_some() && diagnostics.is_empty());
}

#[test]
fn size_is_limited() {
    let text = " ".repeat(MAX_BYTES + 1);
    for format in [Format::Yaml, Format::Toml] {
        assert_eq!(read(&text, format).1[0].code, "file-too-large");
    }
}
