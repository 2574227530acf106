//! The plumbing of an experiment with the real engine and real programs: made, restored after it ended, changed, imported and
//! taken away.
#![allow(missing_docs)]

mod support;

use std::path::Path;

use support::{Lab, have, wait_for};

const LAB: &str = r#"
experiment: lab
vms: {}
plumbing:
  found: { pipeline: [alerts, "grep --line-buffered 'eth0 down'", urgent] }
  kept: { pipeline: [urgent, "sed -u s/eth0/uplink/", "sh -c 'cat >> "KEPT"'"] }
"#;

/// The experiment, whose last program writes to a file.
fn text(kept: &Path) -> String {
    LAB.replace("\"sh -c 'cat >> \"KEPT\"'\"", &format!("\"sh -c 'cat >> {}'\"", kept.display()))
}

/// Apply, after which nothing is left to do.
#[track_caller]
fn converge(lab: &Lab, text: &str) {
    lab.apply(text);
    assert!(lab.commands(text).is_empty(), "left to do: {:?}", lab.commands(text));
}

fn pipelines(lab: &Lab) -> Vec<String> {
    let mut lines: Vec<String> = lab.rows("namespace lab plumb").into_iter().map(|row| row[0].clone()).collect();
    lines.sort();
    lines
}

#[test]
fn pipelines_of_an_experiment() {
    if !have(&["root", "ip", "pkill"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let kept = lab.base.join("kept");
    let text = text(&kept);
    let sh = format!("sh -c 'cat >> {}'", kept.display());
    converge(&lab, &text);
    // What is written goes all the way.
    lab.e("namespace lab pipe alerts 'eth1 down'").ok();
    lab.e("namespace lab pipe alerts 'eth0 down'").ok();
    wait_for("the message", || std::fs::read_to_string(&kept).is_ok_and(|text| text == "uplink down\n"));
    let shown = lab.run(&["show", "lab.yaml"]).ok().out;
    assert!(
        shown.contains("alerts grep --line-buffered 'eth0 down' urgent") && !shown.contains("unmanaged"),
        "{shown}"
    );

    // A pipeline that was cleared, and one whose program was killed: both are gone, and are drift.
    lab.e("namespace lab clear plumb alerts \"grep --line-buffered 'eth0 down'\" urgent").ok();
    let sed = format!("pkill -x -P {} sed", lab.daemon_pid().expect("the daemon runs"));
    lab.e(&format!("shell {sed}")).ok();
    wait_for("the end of the pipeline", || pipelines(&lab).is_empty());
    let plan = lab.run(&["plan", "lab.yaml"]).ok().out;
    assert_eq!(plan.matches("gone since it was applied -> made again").count(), 2, "{plan}");
    converge(&lab, &text);

    // Imported, it is the same experiment, each program with its arguments.
    let imported = lab.run(&["import", "lab"]).ok().out;
    assert!(imported.contains("sed -u s/eth0/uplink/") && !imported.contains("left out"), "{imported}");
    assert!(lab.commands(&imported).is_empty(), "{imported}");

    // Another program, by the names that the table has.
    let other = text.replace("eth0 down", "eth2 down");
    let expected = [
        "clear plumb lab//alerts \"grep --line-buffered 'eth0 down'\" lab//urgent",
        "plumb alerts \"grep --line-buffered 'eth2 down'\" urgent",
    ];
    assert_eq!(lab.commands(&other), expected);
    converge(&lab, &other);
    // The same line of other elements.
    let joined = other.replace("\"sed -u s/eth0/uplink/\", \"sh", "\"sed -u s/eth0/uplink/ sh");
    assert_eq!(lab.commands(&joined).len(), 2);

    // A pipe that is called as a program is: it is not that program.
    let program = other.replace("kept: {", "both: { pipeline: [x, cat, y] }\n  kept: {");
    converge(&lab, &program);
    let pipe = program.replace("[x, cat, y]", "[x, lab//cat, y]");
    assert_eq!(lab.commands(&pipe), ["clear plumb lab//x cat lab//y", "plumb x lab//cat y"]);
    converge(&lab, &pipe);
    assert!(pipelines(&lab).contains(&"lab//x lab//cat lab//y".to_owned()), "{:?}", pipelines(&lab));
    let expected = ["clear plumb lab//x lab//cat lab//y", "clear pipe cat", "clear pipe x", "clear pipe y"];
    assert_eq!(lab.commands(&other), expected);

    // What others made is left alone, and keeps the namespace.
    lab.e("namespace lab plumb mine \"cat -u\" alerts").ok();
    converge(&lab, &other);
    assert!(lab.run(&["show", "lab.yaml"]).ok().out.contains("unmanaged"));
    lab.file("lab.yaml", &other);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert_eq!(pipelines(&lab), ["lab//mine cat -u lab//alerts"]);
    lab.e("namespace lab clear plumb mine \"cat -u\" alerts").ok();

    // Nothing is left of an experiment that has the namespace alone.
    converge(&lab, &text);
    assert!(pipelines(&lab).iter().any(|line| line.ends_with(&sh)), "{:?}", pipelines(&lab));
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.rows("namespace").iter().all(|row| row[0] != "lab" && row[1] != "lab"));
    assert!(lab.rows("pipe").is_empty());
}

#[test]
fn a_program_that_is_not_there_leaves_nothing_half_made() {
    if !have(&["root", "ip"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let text = "experiment: lab\nvms: {}\nplumbing:\n  good: { pipeline: [b, \"cat -u\", c] }\n  bad: { pipeline: [a, no-such-program -x, b] }\n";
    lab.file("lab.yaml", text);
    let answer = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]);
    assert!(answer.err.contains("`no-such-program` is not a program"), "{}", answer.err);
    assert!(pipelines(&lab).is_empty(), "{:?}", pipelines(&lab));
}

/// The names of the pipes of a namespace.
fn pipes(lab: &Lab, namespace: &str) -> Vec<String> {
    let rows = lab.rows(&format!("namespace {namespace} pipe"));
    rows.into_iter().map(|row| row[0].replace(&format!("{namespace}//"), "")).collect()
}

const SET: &str = r#"
experiment: lab
vms: {}
pipes:
  alerts: { mode: round-robin, log: true, via: "sh -c 'sed \"s/eth0/the uplink/\"'" }
  cat: {}
plumbing:
  found: { pipeline: [alerts, "grep --line-buffered down", cat] }
"#;

#[test]
fn pipes_of_an_experiment() {
    if !have(&["root", "ip"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let expected = [
        "pipe alerts mode round-robin",
        "pipe alerts via sh -c \"sed \\\"s/eth0/the uplink/\\\"\"",
        "pipe alerts log true",
        "pipe cat mode all",
        "plumb lab//alerts \"grep --line-buffered down\" lab//cat",
    ];
    assert_eq!(lab.commands(SET), expected);
    converge(&lab, SET);
    // A message passes the program and the pipeline, and comes out of the pipe that is called as a program is.
    lab.e("namespace lab pipe alerts 'eth0 down'").ok();
    let last =
        || lab.e(".annotate false .headers false .columns previous .filter name=lab//cat namespace lab pipe").ok();
    wait_for("the message", || last().out.trim() == "the uplink down");
    let shown = lab.run(&["show", "lab.yaml"]).ok().out;
    assert!(shown.contains("log: true; mode: round-robin") && !shown.contains("unmanaged"), "{shown}");

    // Each setting is seen, whoever changed it, also by who has no journal of it.
    for (by_hand, expected) in [
        ("pipe alerts mode random", "pipe alerts mode round-robin"),
        ("clear pipe alerts log", expected[2]),
        ("clear pipe alerts via", expected[1]),
        ("pipe alerts via sh -c sed s/eth0/the uplink/", expected[1]),
        ("pipe cat log true", "pipe cat log false"),
        ("pipe cat via cat", "clear pipe cat via"),
    ] {
        lab.e(&format!("namespace lab {by_hand}")).ok();
        assert_eq!(lab.commands(SET), [expected], "after {by_hand}");
        let plan = lab.run(&["plan", "lab.yaml"]).ok().out;
        assert!(plan.contains("restore"), "{plan}");
        converge(&lab, SET);
    }
    let imported = lab.run(&["import", "lab"]).ok().out;
    assert!(lab.commands(&imported).is_empty(), "{:?}\n{imported}", lab.commands(&imported));
    assert!(imported.contains("mode: round-robin") && imported.contains("log: true"), "{imported}");

    // A client that reads keeps a pipe, and is not hung up.
    let mut client = lab.program();
    client.args(["pipe", "--namespace", "lab", "--no-input", "alerts"]);
    let mut client = client.stdout(std::process::Stdio::piped()).spawn().expect("the program starts");
    let readers =
        || lab.e(".annotate false .headers false .columns readers .filter name=lab//alerts namespace lab pipe").ok();
    wait_for("the client to read", || readers().out.trim() == "2");
    lab.file("lab.yaml", SET);
    let said = lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    let said = said.out + &said.err;
    assert!(said.contains("pipe.alerts is set back") && said.contains("namespace lab stays"), "{said}");
    assert_eq!(pipes(&lab, "lab"), ["alerts"]);
    assert!(lab.e(".json true namespace lab pipe").ok().out.contains("\"log\":false"));
    assert_eq!(client.try_wait().expect("our own child"), None, "the client reads on");
    client.kill().expect("our own child");
    client.wait().expect("our own child");
    wait_for("the end of the client", || readers().out.trim() == "0");
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.rows("namespace").iter().all(|row| row[0] != "lab"));

    // In the default namespace nothing is left but what others made.
    let default = SET.replace("experiment: lab", "experiment: minimega");
    lab.e("pipe theirs mode random").ok();
    lab.file("default.yaml", &default.replace("grep --line-buffered down\", ", "grep --line-buffered down\", extra, "));
    lab.run(&["apply", "--yes", "default.yaml"]).ok();
    assert_eq!(pipes(&lab, "minimega"), ["alerts", "cat", "extra", "theirs"]);
    lab.run(&["destroy", "--yes", "default.yaml"]).ok();
    assert_eq!(pipes(&lab, "minimega"), ["theirs"]);
}

#[test]
fn a_via_that_is_not_there_stops_what_needs_its_pipe() {
    if !have(&["root", "ip"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let text = SET.replace("via: \"sh", "via: \"no-such-program");
    lab.file("lab.yaml", &text);
    let answer = lab.run(&["apply", "--yes", "lab.yaml"]);
    assert_eq!(answer.code, 4, "{}{}", answer.out, answer.err);
    assert!(answer.err.contains("no-such-program"), "{}", answer.err);
    assert!(pipelines(&lab).is_empty() && pipes(&lab, "lab") == ["alerts", "cat"], "{:?}", pipes(&lab, "lab"));
    // What was done stays, and the rest follows.
    assert_eq!(lab.commands(SET).len(), 3, "{:?}", lab.commands(SET));
    converge(&lab, SET);
    // Taken back, everything is as before.
    lab.file("lab.yaml", &text.replace("round-robin", "random"));
    let answer = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]);
    assert!(answer.code != 0 && answer.err.contains("no-such-program"), "{}", answer.err);
    assert!(lab.commands(SET).is_empty(), "{:?}", lab.commands(SET));
}
