use super::*;
use crate::language::grammar::{Compiled, Grammar};

/// What of a recorded response is looked at here.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Recorded {
    resp: Option<Vec<Entry>>,
    rendered: String,
}

fn entry(host: &str, header: &[&str], rows: &[&[&str]]) -> Entry {
    let own = |r: &[&str]| r.iter().map(|c| c.to_string()).collect::<Vec<_>>();
    Entry {
        host: host.into(),
        header: Some(own(header)),
        tabular: Some(rows.iter().map(|r| own(r)).collect()),
        ..Entry::default()
    }
}

/// The mode that the builtins of a line ask for.
fn mode_of(grammar: &Grammar, mut command: &Compiled) -> OutputMode {
    let mut mode = OutputMode::default();
    while let Some(nested) = &command.nested {
        if let Some(on) = command.args.choice("true,false") {
            let name = grammar.patterns(command.command)[command.pattern].items[0].to_string();
            mode.set(&name, on == "true");
        }
        command = nested;
    }
    mode
}

/// Rows of the recording whose tables were padded for a longer path, which was then replaced by a neutral one: their
/// column widths no longer follow from their cells. Everything but the padding is compared.
const NEUTRAL_PATHS: &[u64] = &[175, 178, 187];

#[test]
fn every_recorded_answer_renders_as_recorded() {
    let grammar = super::super::grammar::tests::minimega();
    let mut checked = 0;
    let mut failures = Vec::new();
    for rows in
        [include_str!("../../../tests/data/exchanges.jsonl"), include_str!("../../../tests/data/exchanges-mesh.jsonl")]
    {
        let mut standing = OutputMode::default();
        for row in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            let command = serde_json::from_str::<serde_json::Value>(row["request"].as_str().unwrap())
                .ok()
                .and_then(|r| r["Command"].as_str().map(str::to_owned))
                .unwrap_or_default();
            let mut mode = standing;
            if let Ok(Some(compiled)) = grammar.compile(&command) {
                if compiled.nested.is_some() {
                    mode = mode_of(&grammar, &compiled);
                } else if let Some(on) = compiled.args.choice("true,false") {
                    let name = grammar.patterns(compiled.command)[compiled.pattern].items[0].to_string();
                    standing.set(&name, on == "true");
                }
            }
            for line in row["responses"].as_array().unwrap() {
                let Ok(response) = serde_json::from_str::<Recorded>(line.as_str().unwrap()) else { continue };
                let rendered = render(response.resp.as_deref().unwrap_or_default(), &mode);
                if NEUTRAL_PATHS.contains(&row["n"].as_u64().unwrap()) {
                    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                    assert_ne!(rendered, response.rendered, "row {} matches, take it off the list", row["n"]);
                    assert_eq!(words(&rendered), words(&response.rendered), "row {}", row["n"]);
                } else if rendered != response.rendered {
                    failures
                        .push(format!("{} {command}\n  want {:?}\n  have {rendered:?}", row["n"], response.rendered));
                }
                checked += 1;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {checked}:\n{}", failures.len(), failures.join("\n"));
    assert!(checked > 400, "{checked}");
}

#[test]
fn hosts_are_compressed() {
    let mut entries: Vec<Entry> = (0..10).map(|i| Entry::text(&format!("node{i}"), "minimega 3\n")).collect();
    entries[5] = Entry::text("node5", "other");
    entries[8] = Entry::failure("node8", "broken");
    let mode = OutputMode::default();
    assert_eq!(render(&entries, &mode), "node[0-4,6-7,9]: minimega 3\nnode5: other");
    let plain = OutputMode { compress: false, ..mode };
    assert_eq!(render(&entries[..2], &plain), "node0: minimega 3\nnode1: minimega 3");
    let bare = OutputMode { annotate: false, ..mode };
    assert_eq!(render(&entries[..2], &bare), "minimega 3");
}

#[test]
fn tables_of_several_hosts_are_one() {
    let entries = [entry("b", &["id", "x"], &[&["10", "é"], &["9", ""]]), entry("a", &["id", "x"], &[&["1", "日本"]])];
    let text = render(&entries, &OutputMode::default());
    assert_eq!(text, "host | id | x\na    | 1  | 日本\nb    | 9  | \nb    | 10 | é");
    let unsorted = OutputMode { sort: false, annotate: false, headers: false, ..OutputMode::default() };
    assert_eq!(render(&entries, &unsorted), "10 | é\n9  | \n1  | 日本");
}

#[test]
fn csv_quotes() {
    let mode = OutputMode { csv: true, ..OutputMode::default() };
    let entries = [entry("h", &["a", "b"], &[&["x,y", "q\"q"], &[" z", ""]])];
    assert_eq!(render(&entries, &mode), "host,a,b\nh,\" z\",\nh,\"x,y\",\"q\"\"q\"");
}

#[test]
fn csv_and_json_exclude_each_other() {
    let mut mode = OutputMode::default();
    assert!(mode.set(".csv", true) && mode.set(".json", true));
    assert_eq!((mode.get(".csv"), mode.get(".json"), mode.get(".record")), (Some(false), Some(true), None));
    assert!(!mode.set(".record", true));
}

#[test]
fn columns_and_filters() {
    let table = entry(
        "h",
        &["name", "state", "vlan", "tags"],
        &[&["a", "RUNNING", "[LAN (101), DMZ (7)]", "{\"k\":\"v\"}"], &["b", "QUIT", "[]", "{}"]],
    );
    let names = |text: &str| {
        let mut e = table.clone();
        filter(&mut e, text).map(|()| e.tabular.unwrap().iter().map(|r| r[0].clone()).collect::<String>())
    };
    for (text, expected) in [
        ("state=running", "a"),
        ("state!=running", "b"),
        ("state~U", "ab"),
        ("state!~run", "b"),
        ("STATE=quit", "b"),
        ("vlan=lan", "a"),
        ("vlan=dmz (7)", "a"),
        ("vlan!=dmz", "b"),
        ("tags=\"k\":\"v\"", "a"),
        ("name=", ""),
        ("name=a=b", ""),
    ] {
        assert_eq!(names(text).unwrap(), expected, "{text}");
    }
    assert_eq!(names("nonsense").unwrap_err().to_string(), "invalid filter, see help");
    assert_eq!(names("=x").unwrap_err(), OutputError::Filter);
    assert_eq!(names("!=x").unwrap_err(), OutputError::Filter);
    assert_eq!(names("bogus=1").unwrap_err().to_string(), "no such column `bogus`");
    let mut e = table.clone();
    select_columns(&mut e, "state,name").unwrap();
    assert_eq!(e.header.as_ref().unwrap().join(","), "state,name");
    assert_eq!(e.tabular.as_ref().unwrap()[1].join(","), "QUIT,b");
    assert_eq!(select_columns(&mut e, "name,bogus").unwrap_err().to_string(), "no such column `bogus`");
    let mut text = Entry::text("h", "x");
    assert!(
        select_columns(&mut text, "a").is_ok() && filter(&mut text, "a=b").is_ok() && filter(&mut text, "a").is_err()
    );
}

#[test]
fn a_table_has_at_most_256_columns() {
    let mut table = entry("vm", &["name"], &[&["a"]]);
    select_columns(&mut table, &vec!["name"; 256].join(",")).expect("the limit itself");
    assert_eq!(table.header.as_ref().map(Vec::len), Some(256));
    let error = select_columns(&mut table, &vec!["name"; 257].join(",")).expect_err("one more");
    assert_eq!(error.to_string(), "257 columns, the limit is 256");
    assert_eq!(table.header.map(|header| header.len()), Some(256), "it stays as it was");
}
