//! `validate`, `plan`, `apply` and `viz` as a user runs them, where no engine runs.
#![allow(missing_docs)]

mod support;

use std::process::Stdio;

use support::folder::Folder;

const LAB: &str = "experiment: lab\nvlans: { lan: {} }\nvms:\n  \"web[0-1]\": { memory: 64, networks: [lan] }\n";

#[test]
fn every_error_of_every_file_in_one_run() {
    let folder = Folder::new(&[
        ("good.yaml", LAB),
        ("bad.yaml", "experiment: lab\nvms:\n  a: { memroy: 64 }\n  b: { networks: [nowhere] }\n"),
        ("all.yaml", "experiment: all\nvms: {}\n"),
    ]);
    let (code, out, err) = folder.run(&["validate", "good.yaml", "bad.yaml", "all.yaml"]);
    assert_eq!(code, 1);
    assert_eq!(out, "good.yaml: experiment lab is valid: 2 VMs, 1 VLAN alias, 0 taps\n");
    for part in ["bad.yaml:3", "memroy", "bad.yaml:4", "nowhere", "all.yaml:1"] {
        assert!(err.contains(part), "{part} is missing:\n{err}");
    }
    assert_eq!(folder.run(&["validate", "good.yaml"]).0, 0);
}

#[test]
fn codes_are_explained() {
    let folder = Folder::new(&[("lab.yaml", "experiment: lab\nvms: { a: { vcpus: 100000 } }\n")]);
    let (code, _, err) = folder.run(&["validate", "lab.yaml"]);
    let name = err.split(['[', ']']).nth(1).expect("a code in brackets");
    assert_eq!((code, name), (1, "out-of-range"), "{err}");
    let (code, out, _) = folder.run(&["explain", name]);
    assert!(code == 0 && out.starts_with("error[out-of-range]: "), "{out}");
    assert_eq!(folder.run(&["explain", "error[out-of-range]:"]).1, out);
    assert!(folder.run(&["explain"]).1.lines().count() > 40);
    let (code, _, err) = folder.run(&["explain", "out-of-rnage"]);
    assert!(code == 1 && err.contains("did you mean `out-of-range`?"), "{err}");
}

#[test]
fn what_this_machine_lacks_is_a_warning_unless_the_engine_is_elsewhere() {
    let text = "experiment: lab\nvms: { a: { memory: 16777216, kernel: nosuch } }\n";
    let folder = Folder::new(&[("lab.yaml", text)]);
    let (code, out, err) = folder.run(&["validate", "lab.yaml"]);
    assert!(code == 0 && out.contains("is valid"), "{out}{err}");
    assert!(err.contains("warning[too-much-memory]") && err.contains("warning[missing-file]"), "{err}");
    let (code, _, err) = folder.run(&["--socket", "elsewhere", "validate", "lab.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn what_minimega_would_drop_silently_is_a_warning() {
    let text = "experiment: lab\nvlans: { a: {} }\nvms:\n  x: { networks: [{ vlan: a, qos: { rate: 1 mbit, delay: 3 ms } }], colocate: z }\n  y: { networks: [a] }\n";
    let folder = Folder::new(&[("lab.yaml", text)]);
    let (code, _, err) = folder.run(&["validate", "lab.yaml"]);
    assert_eq!(code, 0);
    for says in ["warning[qos-combined]: NIC 0 of `x`", "lab.yaml:4:", "warning[unknown-colocate]: `x`"] {
        assert!(err.contains(says), "{says}: {err}");
    }
    // Megaform's engine does it, and what is planned is known better.
    let (code, _, err) = folder.run(&["plan", "lab.yaml"]);
    assert!(code == 0 && !err.contains("qos-combined"), "{err}");
}

#[test]
fn a_plan_without_an_engine() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    let (code, out, err) = folder.run(&["plan", "lab.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("# note: no daemon at "), "{out}");
    assert!(out.contains("\nnamespace lab vm launch kvm web[0-1]\n"), "{out}");
    assert!(!out.contains('\x1b'), "no colours in a pipe");
    assert_eq!(folder.run(&["plan", "lab.yaml"]).1, out, "same bytes");
    assert_eq!(folder.run(&["plan", "--detailed-exitcode", "lab.yaml"]).0, 2);
    assert_eq!(folder.run(&["plan", "--destroy", "--detailed-exitcode", "lab.yaml"]).0, 0);
    let (_, json, _) = folder.run(&["plan", "--json", "lab.yaml"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["format"], &json["summary"]["create"]), (&2.into(), &2.into()));
    let (_, verbose, _) = folder.run(&["plan", "-v", "lab.yaml"]);
    assert!(verbose.contains("; undo: namespace lab vm kill web[0-1]"), "{verbose}");
    assert!(!folder.path().join("base").exists(), "a plan starts nothing");
}

#[test]
fn every_line_of_a_plan_is_a_command_or_a_comment() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    for args in [&["plan", "lab.yaml"][..], &["plan", "-v", "lab.yaml"]] {
        for line in folder.run(args).1.lines() {
            assert!(line.starts_with('#') || line.starts_with("namespace lab "), "{line}");
        }
    }
}

#[test]
fn the_same_bytes_wherever_it_is_planned() {
    let folder = Folder::new(&[]);
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(&examples).expect("there are examples").map(|entry| entry.expect("an entry").path());
    let files: Vec<String> =
        files.filter(|path| path.is_file()).map(|path| path.to_str().expect("UTF-8").to_owned()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in &files {
        for args in [&["plan"][..], &["plan", "--json"], &["plan", "-v"], &["graph"], &["graph", "--plan"], &["expand"]]
        {
            let args = [args, &[file.as_str()]].concat();
            let here = folder.command(&args).output().expect("the program starts");
            assert_eq!(here.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&here.stderr));
            // Another user, country, time zone, terminal and working folder; each run has other seeds of its hash maps.
            let mut command = folder.command(&args);
            for (name, value) in [
                ("LC_ALL", "tr_TR.UTF-8"),
                ("LANG", "de_DE.UTF-8"),
                ("TZ", "Asia/Tokyo"),
                ("COLUMNS", "40"),
                ("TERM", "dumb"),
                ("HOME", "/nonexistent"),
                ("USER", "somebody"),
                ("HOSTNAME", "elsewhere"),
            ] {
                command.env(name, value);
            }
            let there = command.current_dir("/").output().expect("the program starts");
            assert!(here.stdout == there.stdout, "{args:?} differs:\n{}", String::from_utf8_lossy(&there.stdout));
        }
    }
}

#[test]
fn a_socket_that_was_asked_for_must_answer() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    for command in ["plan", "show"] {
        let (code, _, err) = folder.run(&[command, "--socket", "nowhere", "lab.yaml"]);
        assert_eq!(code, 1, "{command}");
        assert!(err.starts_with("error: no daemon at nowhere"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn changes_need_a_confirmation() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    let (code, _, err) = folder.run(&["apply", "lab.yaml"]);
    assert_eq!(code, 1);
    assert!(err.contains("--yes"), "{err}");
    assert!(!folder.path().join("base").exists(), "nothing was started");
}

#[test]
fn nothing_to_destroy_where_nothing_is() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    for args in [&["destroy", "--yes", "lab.yaml"][..], &["destroy", "--yes", "--experiment", "lab"]] {
        let (code, out, _) = folder.run(args);
        assert_eq!(code, 0);
        assert!(out.starts_with("No changes. Nothing of lab is there"), "{out}");
    }
    let (code, _, err) = folder.run(&["destroy", "--yes", "--experiment", "all"]);
    assert_eq!(code, 1, "a wrong argument is an error, not a change");
    assert!(err.contains("reserved word"), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let mut text = "experiment: lab\nvms:\n".to_owned();
    for i in 0..2000 {
        text.push_str(&format!("  v{i}: {{ memory: {}, state: paused }}\n", 64 + i));
    }
    let folder = Folder::new(&[("big.yaml", &text)]);
    let mut child = folder
        .command(&["plan", "big.yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("our own child");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141), "as a program that SIGPIPE ended is shown by a shell");
}

#[test]
fn pictures() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    let (code, out, _) = folder.run(&["viz", "lab.yaml"]);
    assert_eq!(code, 0);
    assert!(out.contains("web0") && out.contains("lan"), "{out}");
    assert_eq!(folder.run(&["viz", "--out", "lab.dot", "lab.yaml"]).0, 0);
    assert_eq!(std::fs::read_to_string(folder.path().join("lab.dot")).expect("it was written"), out);
    let (code, mermaid, _) = folder.run(&["graph", "--format", "mermaid", "lab.yaml"]);
    assert_eq!(code, 0);
    assert!(mermaid.contains("flowchart LR\n  v0([\"lan\"])\n"), "{mermaid}");
    let (code, plan, err) = folder.run(&["graph", "--plan", "lab.yaml"]);
    assert_eq!(code, 0);
    assert!(plan.starts_with("digraph \"plan of lab\"") && plan.contains("vm launch kvm web[0-1]"), "{plan}");
    assert!(err.contains("planning as if nothing runs"), "{err}");
    assert_eq!(folder.run(&["viz", "--plan", "--out", "plan.mmd", "lab.yaml"]).0, 0);
    let mermaid = std::fs::read_to_string(folder.path().join("plan.mmd")).expect("it was written");
    assert!(mermaid.contains("flowchart TB\n") && mermaid.contains("n0[\"create vm.web#91;0-1#93;"), "{mermaid}");
}

/// As every tool does whose reader has enough: no word, and what shells say of SIGPIPE.
#[test]
fn output_that_nobody_reads_ends_quietly() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    for args in [
        &["generate", "commands"][..],
        &["explain"],
        &["expand", "lab.yaml"],
        &["plan", "lab.yaml"],
        &["plan", "--json", "lab.yaml"],
        &["graph", "lab.yaml"],
        &["show", "lab.yaml"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = folder.command(args).stdout(writer).stderr(Stdio::piped()).output().expect("it starts");
        assert_eq!(ended.status.code(), Some(141), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr).replace("note: ", ""), "", "{args:?}");
    }
    // What checks or does something goes on.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = folder.command(&["validate", "lab.yaml", "nosuch.yaml"]).stdout(writer).output().expect("it starts");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("nosuch.yaml"));
}
