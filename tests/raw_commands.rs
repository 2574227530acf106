//! Raw commands of an experiment file, with real VMs that never boot.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use support::{Lab, have};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];

/// Lines that may be run twice, because whether one that was cut off was carried out, nobody knows.
fn text(folder: &str) -> String {
    format!(
        r#"
experiment: lab
vms:
  "web[0-1]": {{ memory: 16, state: paused }}
commands:
  mark:
    create: ["vm tag web[0-1] role edge", "shell touch {folder}/edge"]
    destroy: ["shell rm -f {folder}/edge", "clear vm tag web[0-1] role"]
    check: shell test -e {folder}/edge
    depends_on: "web[0-1]"
  late: {{ create: shell mkdir -p {folder}/late, destroy: shell rm -rf {folder}/late }}
"#
    )
}

fn roles(lab: &Lab) -> Vec<String> {
    let mut rows: Vec<String> = lab.rows("namespace lab vm tag all role").iter().map(|row| row.join(" ")).collect();
    rows.sort();
    rows
}

#[test]
fn they_are_run_once_restored_and_taken_back() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder.path().to_string_lossy().into_owned();
    let made = |name: &str| lab.folder.path().join(name).exists();
    lab.file("lab.yaml", &text(&folder));
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert!(made("edge") && made("late"));
    assert!(roles(&lab).iter().all(|row| row.contains("edge")), "{:?}", roles(&lab));
    let again = lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert!(again.out.contains("No changes"), "{}", again.out);
    std::fs::remove_file(lab.folder.path().join("edge")).expect("it was made");
    let plan = lab.run(&["plan", "lab.yaml"]).ok().out;
    assert!(plan.contains("≠ command.mark restore") && plan.contains("check: exit status"), "{plan}");
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert!(made("edge"));
    // One that fails is said, and everything else goes on.
    lab.file("lab.yaml", &text(&folder).replace("shell mkdir -p", "shell rmdir").replace("role edge", "role core"));
    let failed = lab.run(&["apply", "--yes", "lab.yaml"]).fails("rmdir: failed to remove");
    assert_eq!(failed.code, 4, "{}{}", failed.out, failed.err);
    assert!(roles(&lab).iter().all(|row| row.contains("core")), "{:?}", roles(&lab));
    assert!(!made("late"), "its old lines took it back before");
    lab.file("lab.yaml", &text(&folder));
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert!(made("late"));
    lab.file("lab.yaml", &text(&folder).replace("  late:", "  #"));
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert!(!made("late"), "by what the journal remembers");
    lab.run(&["destroy", "--yes", "--experiment", "lab"]).ok();
    assert!(!made("edge") && !lab.base.exists());
}

#[test]
fn a_run_is_taken_back_if_that_is_asked_for() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder.path().to_string_lossy().into_owned();
    lab.file("lab.yaml", &text(&folder).replace("touch", "mkdir"));
    lab.file("edge", "in the way");
    let failed = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]).fails("rolled back");
    assert!(!lab.folder.path().join("late").exists(), "{}{}", failed.out, failed.err);
    assert!(
        !lab.folder.path().join("edge").exists(),
        "the first line of the entry was done, so its lines take it back"
    );
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
}

#[test]
fn killed_between_any_two_steps_the_next_apply_converges() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::new();
    let folder = lab.folder.path().to_string_lossy().into_owned();
    let made = |name: &str| lab.folder.path().join(name).exists();
    let first = text(&folder);
    // Other lines, and a VM that is replaced under them.
    let second = first.replace("role edge", "role core").replace("memory: 16", "memory: 17");
    for subcommand in ["apply", "destroy"] {
        let mut point = 0;
        loop {
            lab.file("lab.yaml", if point % 2 == 0 { &second } else { &first });
            let reached = killed_after(&lab, subcommand, point);
            let applied = lab.run(&["apply", "--yes", "lab.yaml"]);
            assert_eq!(applied.code, 0, "{subcommand} {point}:\n{}{}", applied.out, applied.err);
            let role = if point % 2 == 0 { "core" } else { "edge" };
            assert!(made("edge") && made("late"), "{subcommand} killed after {point} commands");
            assert!(roles(&lab).iter().all(|row| row.contains(role)), "{subcommand} {point}: {:?}", roles(&lab));
            if !reached {
                break;
            }
            point += 1;
        }
        assert!(point > 5, "{subcommand} has more commands than {point}");
    }
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(!made("edge") && !made("late") && !lab.base.exists());
}

/// Run a subcommand and kill it as soon as it has reported that so many commands ended. False if it ended before that.
fn killed_after(lab: &Lab, subcommand: &str, ended: usize) -> bool {
    let args = [subcommand, "--yes", "lab.yaml"];
    let mut child = lab.program().args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let reached = ended == 0 || lines.by_ref().filter(|line| line.starts_with('[')).nth(ended - 1).is_some();
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    reached
}

#[test]
fn lines_are_held_against_the_language() {
    let lab = Lab::new();
    let entry = |line: &str| format!("experiment: lab\nvms: {{}}\ncommands:\n  a: {{ create: '{line}' }}\n");
    for (line, code, says) in [
        ("namespace other vm info", "refused-command", "leave the experiment's namespace"),
        ("namesp other", "refused-command", "leave the experiment's namespace"),
        ("clear namespace", "refused-command", "end a namespace"),
        ("clear al", "refused-command", "not the experiment's"),
        (".csv true qui", "refused-command", "end the daemon"),
        ("mesh send all quit", "refused-command", "end the daemon"),
        ("read lab.mm", "refused-command", "a plan cannot show"),
        ("# a comment", "empty-command", "only a comment"),
        ("echo \"open", "invalid-command", "missing terminal"),
        ("echo $HOME", "not-carried", "expands as a variable"),
        ("echo file:x", "not-carried", "something to fetch"),
    ] {
        lab.file("lab.yaml", &entry(line));
        let answer = lab.run(&["validate", "lab.yaml"]).fails(says);
        assert!(
            answer.err.contains(&format!("error[{code}]")) && answer.err.contains("lab.yaml:4:16"),
            "{}",
            answer.err
        );
    }
    lab.file("lab.yaml", &entry("vm tagg a b c"));
    let answer = lab.run(&["validate", "lab.yaml"]).ok();
    for part in ["warning[unknown-command]", "lab.yaml:4:16", "did you mean `"] {
        assert!(answer.err.contains(part), "{part} is missing:\n{}", answer.err);
    }
    assert!(answer.out.contains("1 entry of raw commands"), "{}", answer.out);
}
