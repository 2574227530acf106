//! Variables, outputs, `expand`, `eval`, `fmt` and `init` as a user runs them, where no engine runs.
#![allow(missing_docs)]

mod support;

use std::path::Path;
use std::process::Stdio;

use support::folder::{Folder, ended};

const LAB: &str = "experiment: lab
variables:
  n: { type: integer }
  token: { type: string, sensitive: true, default: hunter2-hunter2 }
vlans: { lan: {} }
vms:
  \"w{{ count.index }}\": { count: \"{{ var.n }}\", kernel: k, append: \"t={{ var.token }}\", networks: [lan] }
outputs:
  n: { value: \"{{ var.n }}\", description: how many }
  token: \"{{ sha256(var.token) }}\"
";

#[test]
fn variables_of_the_command_line_the_environment_and_files() {
    let folder = Folder::new(&[("lab.yaml", LAB), ("v.yaml", "n: 3\n"), ("k", "")]);
    let (code, _, err) = folder.run(&["validate", "lab.yaml"]);
    assert_eq!(code, 1);
    assert!(err.contains("lab.yaml:3:3") && err.contains("--var n=VALUE"), "{err}");
    let vms = |out: &str| out.split(": ").nth(2).and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    let (code, out, err) = folder.run(&["validate", "lab.yaml", "--var-file", "v.yaml"]);
    assert_eq!((code, err.as_str(), vms(&out).as_deref()), (0, "", Some("3")), "{out}");
    let (_, out, _) = folder.run(&["validate", "lab.yaml", "--var", "n=5", "--var-file", "v.yaml"]);
    assert_eq!(vms(&out).as_deref(), Some("5"), "{out}");
    let output = folder.command(&["validate", "lab.yaml"]).env("MEGAFORM_VAR_n", "2").output().expect("it starts");
    assert_eq!(vms(&ended(output).1).as_deref(), Some("2"));
    let (code, _, err) = folder.run(&["plan", "lab.yaml", "--var", "m=5"]);
    assert_eq!(code, 1);
    assert!(err.contains("--var:1:1") && err.contains("there is no variable `m`"), "{err}");
}

#[test]
fn one_run_shows_what_is_wrong_and_what_is_alike_once() {
    let lab = "experiment: lab
vms:
  \"w{{ count.index }}\": { count: 200, memroy: 64 }
  a: { depends_on: b, memory: 0 }
  b: { depends_on: a }
locals: { x: \"{{ cidrhost('10.0.0.0/24') }}\", y: \"{{ 'a' | sha256 }}\" }
";
    let folder = Folder::new(&[("lab.yaml", lab)]);
    let (code, _, err) = folder.run(&["validate", "lab.yaml"]);
    assert_eq!(code, 1);
    assert_eq!(err.matches("error[unknown-key]").count(), 1, "{err}");
    assert!(err.contains("and 199 more like this at the same place\nhint: did you mean `memory`?"), "{err}");
    for more in [
        "error[out-of-range]",
        "error[dependency-cycle]: these need each other: vm.a → vm.b → vm.a",
        "hint: `cidrhost(net, n)` gives: Address `n` of the network",
        "hint: `sha256` is a function: write `sha256(…)`",
        "204 errors in lab.yaml",
    ] {
        assert!(err.contains(more), "{more}\n{err}");
    }
}

#[test]
fn an_expanded_file_tells_which_profile_won() {
    let lab = "experiment: lab
profiles:
  base: { memory: 64, tags: { os: linux } }
  big: { profile: base, memory: 128 }
  web: { profile: base, tags: { role: web }, vcpus: 2 }
vms:
  a: { profile: [web, big], vcpus: 4 }
  b: { profile: [big, web] }
";
    let folder = Folder::new(&[("lab.yaml", lab)]);
    let (code, out, _) = folder.run(&["expand", "lab.yaml"]);
    assert_eq!(code, 0);
    let (a, b) = out.split_once("\n  b:").expect("there are two");
    assert!(a.contains("memory: 128  # lab.yaml:4, over lab.yaml:3\n"), "{a}");
    assert!(a.contains("vcpus: 4  # lab.yaml:7, over lab.yaml:5\n"), "{a}");
    assert!(a.contains("tags: { os: linux, role: web }  # lab.yaml:3, and lab.yaml:5\n"), "{a}");
    assert!(b.contains("memory: 64  # lab.yaml:3, over lab.yaml:4\n"), "{b}");
    assert!(b.contains("vcpus: 2  # lab.yaml:5\n"), "{b}");
}

#[test]
fn nothing_sensitive_is_printed() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    for args in [
        &["plan", "lab.yaml", "--var", "n=1"][..],
        &["plan", "-v", "lab.yaml", "--var", "n=1"],
        &["plan", "--json", "lab.yaml", "--var", "n=1"],
        &["expand", "lab.yaml", "--var", "n=1"],
        &["output", "lab.yaml", "--var", "n=1"],
        &["output", "--json", "lab.yaml", "--var", "n=1"],
        &["output", "lab.yaml", "token", "--var", "n=1"],
        &["eval", "lab.yaml", "var.token", "--var", "n=1"],
        &["validate", "lab.yaml", "--var", "n=x"],
    ] {
        let (_, out, err) = folder.run(args);
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{args:?}\n{out}{err}");
        assert!(!out.contains("token\": \"") && !out.contains("= \"4"), "{out}");
    }
    let (_, plan, _) = folder.run(&["plan", "lab.yaml", "--var", "n=1"]);
    assert!(plan.contains("vm config append (sensitive)\n"), "{plan}");
    assert!(plan.contains("# note: sensitive values are shown as (sensitive)"), "{plan}");
    // A saved plan holds what its commands hold, says so, and nothing else that is sensitive.
    let lab = format!("{LAB}  other: \"{{{{ var.other }}}}\"\n")
        .replace("vlans:", "  other: { type: string, sensitive: true, default: swordfish }\nvlans:");
    std::fs::write(folder.path().join("lab.yaml"), lab).expect("a file");
    let (_, out, err) = folder.run(&["plan", "lab.yaml", "--out", "saved.plan", "--var", "n=1"]);
    assert!(!out.contains("hunter2") && err.contains("saved.plan holds sensitive values"), "{out}{err}");
    let saved = std::fs::read_to_string(folder.path().join("saved.plan")).expect("it was written");
    assert!(saved.contains("hunter2") && !saved.contains("swordfish"), "{saved}");
    let (_, out, _) = folder.run(&["eval", "--reveal", "lab.yaml", "var.token", "--var", "n=1"]);
    assert_eq!(out, "hunter2-hunter2\n");
}

#[test]
fn outputs_and_expressions() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    let with = |args: &[&str]| folder.run(&[args, &["--var", "n=2"]].concat());
    assert_eq!(with(&["output", "lab.yaml"]).1, "n = 2\ntoken = (sensitive)\n");
    assert_eq!(with(&["output", "lab.yaml", "n"]).1, "2\n");
    let json: serde_json::Value = serde_json::from_str(&with(&["output", "--json", "lab.yaml"]).1).expect("JSON");
    assert_eq!(json["n"], serde_json::json!({ "value": 2, "sensitive": false, "description": "how many" }));
    assert_eq!(json["token"], serde_json::json!({ "value": null, "sensitive": true }));
    let (code, _, err) = with(&["output", "lab.yaml", "m"]);
    assert_eq!((code, err.as_str()), (1, "error: the file has no output `m`; its outputs: n, token\n"));
    assert_eq!(with(&["eval", "lab.yaml", "[var.n + 1, 'x']"]).1, "[\n  3,\n  \"x\"\n]\n");
    let (code, _, err) = with(&["eval", "lab.yaml", "var.m"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no variable `m`"), "{err}");
    // One after the other, from a pipe; a mistake does not end it.
    let mut child = folder
        .command(&["eval", "lab.yaml", "--var", "n=2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("it was asked for");
    std::io::Write::write_all(&mut stdin, b"var.n\n\nvar.\nvar.n * 2\n").expect("it reads");
    drop(stdin);
    let (code, out, err) = ended(child.wait_with_output().expect("our own child"));
    assert_eq!((code, out.as_str()), (0, "2\n4\n"));
    assert!(err.contains("template-syntax"), "{err}");
}

#[test]
fn an_expanded_file_plans_the_same() {
    let folder = Folder::new(&[("lab.yaml", LAB)]);
    let (code, full, _) = folder.run(&["expand", "--reveal", "lab.yaml", "--var", "n=2"]);
    assert_eq!(code, 0);
    assert!(
        full.contains("  w1:  # lab.yaml:7\n") && full.contains("append: [t=hunter2-hunter2]  # lab.yaml:7\n"),
        "{full}"
    );
    std::fs::write(folder.path().join("full.yaml"), &full).expect("the folder is writable");
    let commands = |args: &[&str]| -> Vec<String> {
        folder.run(args).1.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let full = commands(&["plan", "full.yaml"]);
    let composed = commands(&["plan", "lab.yaml", "--var", "n=2"]);
    assert_eq!(full.len(), composed.len());
    for (full, composed) in full.iter().zip(&composed) {
        assert!(full == composed || composed.contains("(sensitive)"), "{full}\n{composed}");
    }
}

#[test]
fn a_first_file() {
    let folder = Folder::new(&[]);
    let (code, out, err) = folder.run(&["init", "--name", "mine"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("Wrote experiment.yaml."), "{out}");
    let (code, out, err) = folder.run(&["validate", "experiment.yaml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "experiment.yaml: experiment mine is valid: 2 VMs, 1 VLAN alias, 1 tap\n");
    assert_eq!(folder.run(&["fmt", "--check", "experiment.yaml"]), (0, String::new(), String::new()));
    std::fs::write(folder.path().join("experiment.yaml"), "mine").expect("the folder is writable");
    let (code, _, err) = folder.run(&["init"]);
    assert_eq!((code, err.as_str()), (1, "error: cannot write experiment.yaml: File exists (os error 17)\n"));
    assert_eq!(std::fs::read_to_string(folder.path().join("experiment.yaml")).expect("it is there"), "mine");
    assert_eq!(folder.run(&["init", "lab.toml"]).0, 1);
}

#[test]
fn files_in_normal_form() {
    let folder = Folder::new(&[
        ("a.yaml", "experiment:   lab\nvms:\n    a:   {}   \n\n\n# end\n"),
        ("b.toml", "experiment=\"lab\"\n"),
        ("bad.yaml", "a: [\n"),
    ]);
    let (code, out, _) = folder.run(&["fmt", "--check", "a.yaml", "b.toml"]);
    assert_eq!((code, out.as_str()), (1, "a.yaml\nb.toml\n"));
    let (code, out, err) = folder.run(&["fmt", "a.yaml", "bad.yaml", "b.toml"]);
    assert_eq!((code, out.as_str()), (1, "a.yaml\nb.toml\n"));
    assert!(err.contains("bad.yaml:1"), "{err}");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("it is there");
    assert_eq!(read("a.yaml"), "experiment: lab\nvms:\n  a: {}\n\n# end\n");
    assert_eq!(read("b.toml"), "experiment = \"lab\"\n");
    assert_eq!(read("bad.yaml"), "a: [\n");
    assert_eq!(folder.run(&["fmt", "--check", "a.yaml", "b.toml"]).0, 0);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("it is there").collect();
    assert_eq!(left.len(), 3, "nothing else is left: {left:?}");
}

#[test]
fn the_composed_example() {
    let folder = Folder::new(&[]);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/branches.yaml");
    let example = example.to_str().expect("a path in UTF-8");
    let (code, out, _) = folder.run(&["validate", example]);
    assert_eq!(code, 0);
    assert!(out.ends_with("experiment branches is valid: 5 VMs, 3 VLAN aliases, 1 tap\n"), "{out}");
    let (_, out, _) = folder.run(&["output", example]);
    assert_eq!(out, "clients = 3\nrouters = [\"10.64.0.1\",\"10.65.0.1\"]\n");
    let (_, out, _) = folder.run(&["plan", example, "--var", "branches={x: 40, y: 0}", "--var", "audit=true"]);
    assert!(out.contains("Plan: 44 to create"), "{out}");
    assert!(out.contains("ip.0=10.64.0.49/16"), "{out}");
}

/// The one example with everything in it: every kind is planned, and its size depends on its variables.
#[test]
fn the_example_of_a_company_plans_every_kind() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/company.yaml");
    let folder = Folder::new(&[]);
    let example = example.to_str().expect("a path in UTF-8");
    assert_eq!(folder.run(&["validate", example]).0, 0);
    let kinds = |arguments: &[&str]| -> (std::collections::BTreeSet<String>, usize) {
        let (code, out, err) = folder.run(&[&["plan", "--json", example], arguments].concat());
        assert_eq!(code, 0, "{err}");
        let plan: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let changes = plan["changes"].as_array().expect("a plan has changes");
        let kind = |change: &serde_json::Value| {
            let address = change["address"].as_str().expect("text");
            address.split('.').next().expect("never empty").to_owned()
        };
        let kinds: Vec<String> = changes.iter().map(kind).collect();
        let vms = kinds.iter().filter(|kind| *kind == "vm").count();
        (kinds.into_iter().collect(), vms)
    };
    let all: std::collections::BTreeSet<String> =
        megaform::name::Kind::ALL.iter().map(|kind| kind.word().to_owned()).collect();
    let (planned, vms) = kinds(&["--var", "uplink=eth1", "--var", "branches={rome: 4}", "--var", "audit=true"]);
    assert_eq!((planned, vms), (all, 3 + 4 + 5 + 1));
    assert_eq!(kinds(&[]).1, 3 + 4 + 3 + 2);
}
