//! The hosts of a namespace, and what the scheduler would refuse.

use super::super::*;

fn codes_of(text: &str) -> Vec<(&'static str, String)> {
    let loaded = parse("lab.yaml", text, Format::Yaml, &NoFiles);
    let at = |d: &Diagnostic| d.span.map(|span| loaded.sources.place(span)).map_or(0, |place| place.line);
    loaded.diagnostics.iter().map(|d| (d.code, format!("{}: {}", at(d), d.message))).collect()
}

#[test]
fn a_placement_is_read_in_whatever_way_it_is_written() {
    let one = "experiment: lab\nplacement: { hosts: [\"node[1-2]\", node10], load: netcommit, queueing: true }\n";
    let two = "experiment = \"lab\"\n[placement]\nqueueing = true\nload = \"netcommit\"\nhosts = [\"node10\", \"node2\", \"node1\"]\n";
    let load = |text, format| {
        let loaded = parse("lab", text, format, &NoFiles);
        let experiment = loaded.experiment.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
        (experiment, loaded.sources)
    };
    let ((one, sources), (two, _)) = (load(one, Format::Yaml), load(two, Format::Toml));
    assert_eq!(one.outline(), two.outline());
    assert!(one.outline().contains("placement.hosts.hosts = node10\n"), "{}", one.outline());
    let text = crate::spec::written(&one, &sources);
    assert_eq!(load(&text, Format::Yaml).0.outline(), one.outline(), "{text}");
}

#[test]
fn mistakes_of_a_placement() {
    for (body, code, part) in [
        ("{ hosts: [] }", "invalid-value", "`hosts` is empty: a namespace without a host launches nothing"),
        ("{ hosts: all }", "invalid-name", "`hosts` has `all`, which is a word of the command language"),
        ("{ hosts: [a, \"a b\"] }", "invalid-name", "`hosts` has `a b`, which is no name of a host"),
        ("{ hosts: [\"n[1-3]\", n2] }", "duplicate-item", "`hosts` has `n2` twice"),
        ("{ hosts: \"n[3-1]\" }", "invalid-range", "`hosts` has `n[3-1]`, which stands for no host"),
        ("{ hosts: \"n[1\" }", "invalid-range", "`hosts` has `n[1`"),
        ("{ hosts: 7 }", "wrong-type", "`hosts`"),
        ("{ load: cpu }", "invalid-value", "`load` is `cpu`"),
        ("{ queueing: \"yes\" }", "invalid-value", "`queueing` is `yes`, expected true or false"),
        ("{ queue: true }", "unknown-key", "queue"),
    ] {
        let found = codes_of(&format!("experiment: lab\nplacement: {body}\n"));
        assert_eq!(found.len(), 1, "{body}: {found:?}");
        assert_eq!(found[0].0, code, "{body}: {found:?}");
        assert!(found[0].1.starts_with("2: ") && found[0].1.contains(part), "{body}: {found:?}");
    }
}

#[test]
fn what_the_scheduler_would_refuse_is_found_before() {
    let check = |placement: &str, vms: &str| codes_of(&format!("experiment: lab\n{placement}\nvms:\n{vms}"));
    let hosts = "placement: { hosts: [node1, node2] }";
    assert_eq!(check(hosts, "  a: { schedule: node1 }\n  b: { schedule: localhost }\n"), []);
    let found = check(hosts, "  a: {}\n  \"b[0-3]\": { schedule: node3 }\n");
    assert_eq!(found, [("schedule-host", "5: `b0` is to be on `node3`, which is none of the hosts".to_owned())]);
    // The real name of the target's own host may be any.
    assert_eq!(check("placement: { hosts: localhost }", "  a: { schedule: node3 }\n"), []);
    let found = check("", "  a: { schedule: h1 }\n  b: { colocate: a }\n  c: { colocate: b, schedule: h2 }\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "colocate-apart");
    assert!(
        found[0].1.starts_with("6: `c` is to be on `h2` and colocated with VMs that are to be on `h1`"),
        "{found:?}"
    );
    let limit = |found: Vec<(&'static str, String)>| {
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "coschedule-limit");
        found[0].1.clone()
    };
    let together = limit(check("", "  a: { coschedule: 0 }\n  b: { colocate: a }\n"));
    assert_eq!(together, "4: `a` has a coschedule limit of 0, and another VM is to be on its host");
    let pinned = limit(check("", "  \"a[0-2]\": { schedule: h1 }\n  b: { schedule: h1, coschedule: 2 }\n  c: {}\n"));
    assert_eq!(pinned, "5: `b` has a coschedule limit of 2, and 3 other VMs are to be on `h1`");
    let single = limit(check("placement: { hosts: h1 }", "  a: { coschedule: 1 }\n  b: {}\n  c: {}\n"));
    assert!(single.starts_with("4: `a` has a coschedule limit of 1, and 2 other VMs are to be on `h1`"), "{single}");
    assert_eq!(check(hosts, "  a: { coschedule: 0 }\n  b: {}\n  c: { colocate: b, coschedule: 1 }\n"), []);
}
