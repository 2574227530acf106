//! Texts that are awaited on serial ports, in a file.

use super::super::*;
use super::{codes, outline, shown, yaml};

fn db(keys: &str) -> Loaded {
    yaml(&format!("experiment: lab\nvms:\n  web: {{ depends_on: db }}\n  db: {{ {keys} }}\n"))
}

#[test]
fn one_text_or_several_with_their_ports() {
    for (serial, expected) in [
        ("\"login:\"", &["0 = \"login:\""][..]),
        ("{ text: \"~$ \" }", &["0 = \"~$ \""]),
        ("{ port: 1, pattern: \"^db login: $\" }", &["1 = a text that matches \"^db login: $\""]),
        ("[ready, { port: 1, text: ready }, ready]", &["0 = \"ready\"", "1 = \"ready\""]),
        ("[{ for_each: [a, b], text: \"{{ each.value }}!\" }]", &["0 = \"a!\"", "0 = \"b!\""]),
        ("[ready, { when: false, text: never }]", &["0 = \"ready\""]),
    ] {
        let loaded = db(&format!("serial_ports: 2, wait_for: {{ serial: {serial} }}"));
        assert!(loaded.diagnostics.is_empty(), "{serial}: {}", shown(&loaded));
        let text = outline(&loaded);
        let found: Vec<&str> =
            text.lines().filter_map(|line| Some(line.split_once("vm.db.wait_for.serial.")?.1)).collect();
        assert_eq!(found, expected, "{serial}");
    }
}

#[test]
fn mistakes_are_found_where_they_stand() {
    for (wait, code, at) in [
        ("serial: \"\"", "invalid-value", "\"\""),
        ("serial: 7", "wrong-type", "7"),
        ("serial: { port: 1 }", "missing-key", "{ port: 1 }"),
        ("serial: { port: 256, text: x }", "out-of-range", "256"),
        ("serial: { text: x, pattern: y }", "exclusive-keys", "pattern"),
        ("serial: { txt: x }", "unknown-key", "txt"),
        ("serial: { pattern: \"a(b\" }", "invalid-value", "("),
        ("serial: { pattern: '[z-a]' }", "invalid-value", "z"),
        ("serial: { pattern: a* }", "invalid-value", "a*"),
        ("serial: { pattern: \"x$HOME\" }", "not-carried", "\"x$HOME\""),
        ("serial: \"a\\rb\"", "invalid-value", "\"a\\rb\""),
        ("serial: [], timeout: 5", "missing-key", "{ serial: [], timeout: 5 }"),
        ("serial: { port: 2, text: x }", "no-serial-port", "{ port: 2, text: x }"),
        ("serial: [x, { port: 3, text: x }]", "no-serial-port", "{ port: 3, text: x }"),
    ] {
        let loaded = db(&format!("serial_ports: 2, wait_for: {{ {wait} }}"));
        assert_eq!(codes(&loaded), [(code, at.to_owned())], "{wait}: {}", shown(&loaded));
        assert!(loaded.diagnostics[0].hint.is_some(), "{wait}");
    }
    let none = db("wait_for: { serial: x }");
    assert_eq!(codes(&none), [("no-serial-port", "x".to_owned())]);
    let text = shown(&none);
    assert!(text.contains("serial port 0 of `db`, which has none") && text.contains("`serial_ports: 1`"), "{text}");
}

#[test]
fn ports_are_those_of_the_vm_with_its_profiles() {
    let file = |profile: &str, db: &str| {
        yaml(&format!(
            "experiment: lab\nprofiles:\n  p: {{ {profile} }}\nvms:\n  web: {{ depends_on: db }}\n  db: {{ profile: p, {db} }}\n"
        ))
    };
    assert_eq!(codes(&file("serial_ports: 1", "wait_for: { serial: x }")), []);
    assert_eq!(codes(&file("wait_for: { serial: x }", "serial_ports: 1")), []);
    assert_eq!(
        codes(&file("serial_ports: 1, wait_for: { serial: x }", "serial_ports: 0")),
        [("no-serial-port", "x".to_owned())]
    );
}

#[test]
fn what_is_written_out_means_the_same() {
    let before = db(
        "serial_ports: 3, wait_for: { serial: [{ port: 2, text: \"a \\\"b\\\" {{ '{{' }} $HOME\" }, { pattern: \"^\\\\S+ login: $\" }] }",
    );
    let written = crate::spec::written(before.experiment.as_ref().unwrap(), &before.sources);
    assert_eq!(outline(&yaml(&written)), outline(&before), "{written}");
}
