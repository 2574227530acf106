//! Named pipes, and what pipelines do with them.

use super::*;

#[test]
fn pipes_are_checked() {
    for (rest, expected) in [
        ("pipes: { a: { mode: random, log: true, via: \"sed -u 's/a b/c/'\" }, b: {}, c: }", &[][..]),
        ("pipes: { a: { mode: roundrobin } }", &[("invalid-value", "roundrobin")]),
        ("pipes: { a: { log: 7 } }", &[("wrong-type", "7")]),
        ("pipes: { a: { via: \"sh -c 'x\" } }", &[("invalid-value", "\"sh -c 'x\"")]),
        ("pipes: { a: { via: \" \" } }", &[("invalid-value", "\" \"")]),
        ("pipes: { a: { via: \"'' x\" } }", &[("invalid-value", "\"'' x\"")]),
        ("pipes: { a: { via: sed file:x } }", &[("not-carried", "sed file:x")]),
        ("pipes: { a: { modus: all } }", &[("unknown-key", "modus")]),
        ("pipes: { lab//a: {} }", &[("invalid-name", "lab//a")]),
        ("pipes: { \"a b\": {} }", &[("invalid-name", "\"a b\"")]),
        // A name that a pipeline has by its whole name is used; one that no pipeline has may be a client's.
        ("pipes: { a: {}, b: {} }\nplumbing: { p: { pipeline: [lab//a, x] } }", &[]),
        ("pipes: { alerts: {} }\nplumbing: { p: { pipeline: [alert, x] } }", &[("unused-pipe", "alerts")]),
        ("pipes: { alerts: {} }\nplumbing: { p: { pipeline: [alert, alerts] } }", &[]),
        // What is not declared may be a program.
        ("plumbing: { p: { pipeline: [a, b] }, q: { pipeline: [b, a] } }", &[]),
        ("pipes: { a: }\nplumbing: { p: { pipeline: [a, b] }, q: { pipeline: [b, a] } }", &[]),
        ("pipes: { a: , b: }\nplumbing: { p: { pipeline: [a, cat -u, b] }, q: { pipeline: [b, a] } }", &[]),
        (
            "pipes: { a: , b: }\nplumbing: { p: { pipeline: [a, b] }, q: { pipeline: [b, lab//a] } }",
            &[("pipe-loop", "lab//a")],
        ),
        ("plumbing: { p: { pipeline: [x//a, x//b, x//a] } }", &[("pipe-loop", "x//a")]),
        ("pipes: { a: }\nplumbing: { p: { pipeline: [a, a] } }", &[("pipe-loop", "a")]),
    ] {
        let document = yaml(&format!("experiment: lab\nvms: {{}}\n{rest}\n"));
        let found = codes(&document);
        let found: Vec<(&str, &str)> = found.iter().map(|(code, at)| (*code, at.as_str())).collect();
        assert_eq!(found, expected, "{rest}\n{}", shown(&document));
    }
    let typo = shown(&yaml("experiment: lab\nvms: {}\npipes: { a: { mode: roundrobin } }\n"));
    assert!(typo.contains("did you mean `round-robin`?"), "{typo}");
}
