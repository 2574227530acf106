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

/// The commands of a plan, without their namespace.
#[track_caller]
fn commands(lab: &Lab, text: &str) -> Vec<String> {
    lab.file("lab.yaml", text);
    let plan: serde_json::Value =
        serde_json::from_str(&lab.run(&["plan", "--json", "lab.yaml"]).ok().out).expect("JSON");
    let steps = plan["steps"].as_array().expect("a plan has steps");
    let words = |step: &serde_json::Value| step["command"].as_str().expect("a step has a command").to_owned();
    steps.iter().map(|step| words(step).replace("namespace lab ", "")).collect()
}

#[track_caller]
fn apply(lab: &Lab, text: &str) {
    lab.file("lab.yaml", text);
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert!(commands(lab, text).is_empty(), "left to do: {:?}", commands(lab, text));
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
    apply(&lab, &text);
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
    apply(&lab, &text);

    // Imported, it is the same experiment, each program with its arguments.
    let imported = lab.run(&["import", "lab"]).ok().out;
    assert!(imported.contains("sed -u s/eth0/uplink/") && !imported.contains("left out"), "{imported}");
    assert!(commands(&lab, &imported).is_empty(), "{imported}");

    // Another program, by the names that the table has.
    let other = text.replace("eth0 down", "eth2 down");
    let expected = [
        "clear plumb lab//alerts \"grep --line-buffered 'eth0 down'\" lab//urgent",
        "plumb alerts \"grep --line-buffered 'eth2 down'\" urgent",
    ];
    assert_eq!(commands(&lab, &other), expected);
    apply(&lab, &other);
    // The same line of other elements.
    let joined = other.replace("\"sed -u s/eth0/uplink/\", \"sh", "\"sed -u s/eth0/uplink/ sh");
    assert_eq!(commands(&lab, &joined).len(), 2);

    // A pipe that is called as a program is: it is not that program.
    let program = other.replace("kept: {", "both: { pipeline: [x, cat, y] }\n  kept: {");
    apply(&lab, &program);
    let pipe = program.replace("[x, cat, y]", "[x, lab//cat, y]");
    assert_eq!(commands(&lab, &pipe), ["clear plumb lab//x cat lab//y", "plumb x lab//cat y"]);
    apply(&lab, &pipe);
    assert!(pipelines(&lab).contains(&"lab//x lab//cat lab//y".to_owned()), "{:?}", pipelines(&lab));
    assert_eq!(commands(&lab, &other), ["clear plumb lab//x lab//cat lab//y"]);

    // What others made is left alone, and keeps the namespace.
    lab.e("namespace lab plumb mine \"cat -u\" alerts").ok();
    apply(&lab, &other);
    assert!(lab.run(&["show", "lab.yaml"]).ok().out.contains("unmanaged"));
    lab.file("lab.yaml", &other);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert_eq!(pipelines(&lab), ["lab//mine cat -u lab//alerts"]);
    lab.e("namespace lab clear plumb mine \"cat -u\" alerts").ok();

    // Nothing is left of an experiment that has the namespace alone.
    apply(&lab, &text);
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
