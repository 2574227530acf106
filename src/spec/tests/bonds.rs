//! Bonds of NICs in a file.

use super::super::*;
use super::{codes, outline, yaml};
use crate::name::Kind;

fn web(keys: &str) -> Loaded {
    yaml(&format!(
        "experiment: lab\nvlans: {{ lan: {{}}, dmz: {{}} }}\nvms:\n  web: {{ networks: [lan, lan, dmz, {{ vlan: lan, connected: false }}, {{ vlan: lan, bridge: br1 }}], {keys} }}\n  db: {{ networks: [lan, dmz] }}\n"
    ))
}

#[test]
fn mistakes_are_found_where_they_stand() {
    for (bonds, code, at) in [
        ("{ nics: [0, 9], mode: active-backup }", "unknown-nic", "9"),
        ("{ nics: [0, -1], mode: active-backup }", "out-of-range", "-1"),
        ("{ nics: [0], mode: active-backup }", "bond-nics", "[0]"),
        ("{ nics: [0, 0], mode: active-backup }", "duplicate-item", "0"),
        ("{ nics: [0, 2], mode: active-backup }", "bond-nics", "2"),
        ("{ nics: [0, 4], mode: active-backup }", "bond-nics", "4"),
        ("{ nics: [0, 3], mode: active-backup }", "bond-nics", "3"),
        ("{ nics: [0, 1], mode: active-backup }, { nics: [1, 2], mode: active-backup }", "bond-nics", "1"),
        ("{ nics: [0, 1], mode: balanced }", "invalid-value", "balanced"),
        ("{ nics: [0, 1], mode: balance-tcp }", "bond-lacp", "balance-tcp"),
        ("{ nics: [0, 1], mode: balance-slb, fallback: false }", "bond-lacp", "false"),
        ("{ nics: [0, 1], mode: active-backup, lacp: on }", "invalid-value", "on"),
        (
            "{ nics: [0, 1], mode: active-backup, name: a-name-that-is-too-long }",
            "invalid-name",
            "a-name-that-is-too-long",
        ),
        ("{ nics: [0, 1] }", "missing-key", "{ nics: [0, 1] }"),
        ("{ nic: [0, 1], mode: active-backup }", "unknown-key", "nic"),
        ("{ nics: [0, 1], mode: active-backup, lifecycle: { ignore_changes: [nics, vlan] } }", "unknown-field", "vlan"),
    ] {
        let loaded = web(&format!("bonds: [{bonds}]"));
        assert!(codes(&loaded).contains(&(code, at.to_owned())), "{bonds}: {:?}", codes(&loaded));
        assert!(loaded.experiment.is_none(), "{bonds}");
    }
    let twice = yaml(
        "experiment: lab\nvlans: { lan: {} }\nprofiles: { p: { networks: [lan, lan], bonds: [{ nics: [0, 1], mode: active-backup, name: up }] } }\nvms: { a: { profile: p }, b: { profile: p } }\n",
    );
    assert_eq!(codes(&twice), [("duplicate-bond", "up".to_owned())]);
    let many = yaml(
        "experiment: lab\nvlans: { lan: {} }\nvms: { \"a[0-1]\": { networks: [lan, lan], bonds: [{ nics: [0, 1], mode: active-backup, name: up }] } }\n",
    );
    assert!(codes(&many).contains(&("fixed-for-many", "up".to_owned())), "{:?}", codes(&many));
}

#[test]
fn what_is_usual_need_not_be_said_and_full_text_means_the_same() {
    let short = web("bonds: [{ nics: [1, 0], mode: balance-slb }]");
    let long = web("bonds: [{ nics: [0, 1], mode: balance-slb, lacp: \"off\", fallback: true, qinq: false }]");
    assert_eq!(outline(&short), outline(&long));
    let full = web(
        "bonds: [{ for_each: [x], nics: [0, 1], mode: balance-tcp, lacp: active, fallback: false, qinq: true, name: \"up{{ each.key }}\", lifecycle: { prevent_destroy: true, ignore_changes: [mode, nics] } }, { when: false, nics: [2, 7], mode: active-backup }]",
    );
    let experiment = full.experiment.as_ref().unwrap_or_else(|| panic!("{}", super::shown(&full)));
    assert_eq!(experiment.of(Kind::Bond).map(|(name, _)| name).collect::<Vec<_>>().len(), 1);
    for loaded in [&short, &full] {
        let text = written(loaded.experiment.as_ref().unwrap(), &loaded.sources);
        assert_eq!(outline(&yaml(&text)), outline(loaded), "{text}");
    }
    // A VM without the bonds of its profile.
    let none = yaml(
        "experiment: lab\nvlans: { lan: {} }\nprofiles: { p: { networks: [lan, lan], bonds: [{ nics: [0, 1], mode: active-backup }] } }\nvms: { a: { profile: p }, b: { profile: p, bonds: [] } }\n",
    );
    let bonds: Vec<_> =
        none.experiment.as_ref().unwrap().of(Kind::Bond).filter_map(|(_, bond)| bond.one("vm")).collect();
    assert_eq!(bonds, ["a"]);
}
