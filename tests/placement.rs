//! Hosts and launches through the queue against a scripted minimega of several hosts on a real socket: killed at any moment,
//! the next apply converges, and nothing is launched twice.
#![allow(missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use megaform::language::declaration::{Declaration, Text};
use megaform::language::grammar::Grammar;

#[path = "support/minimega.rs"]
mod peer;

use peer::Minimega;

const LAB: &str = r#"
experiment: lab
vlans: { dmz: {} }
placement: { hosts: "node[1-2]", load: memcommit, queueing: true }
vms:
  "web[0-2]": { memory: 64, networks: [dmz] }
  db: { memory: 96, networks: [dmz], schedule: node2, state: paused }
  cache: { memory: 48, colocate: db }
  app: { memory: 64, networks: [dmz], depends_on: cache }
"#;

struct Lab {
    folder: tempfile::TempDir,
    minimega: Minimega,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minimega = Minimega::start(folder.path());
        let nodes = ["node1", "node2", "node3"].map(|host| (host.to_owned(), (8, 4096)));
        minimega.state().mesh.extend(nodes);
        let lab = Self { folder, minimega };
        lab.write(LAB);
        lab
    }

    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("lab.yaml"), text).expect("the temporary folder is writable");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_megaform"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MEGAFORM_BASE", self.folder.path().join("base"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(["--socket", "minimega"])
            .args(args);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str], code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(args).output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        let (out, err) = (text(stdout), text(stderr));
        assert_eq!(status.code(), Some(code), "{args:?}\nstdout:\n{out}\nstderr:\n{err}");
        (out, err)
    }

    /// The namespace is as the file has it, and a second apply runs nothing.
    #[track_caller]
    fn is_up(&self, what: &str) {
        {
            let state = self.minimega.state();
            let space = &state.namespaces["lab"];
            let running: Vec<_> = space.vms.iter().map(|(name, vm)| (name.as_str(), vm.state)).collect();
            let expected = [("app", 2), ("cache", 2), ("db", 1), ("web0", 2), ("web1", 2), ("web2", 2)];
            assert_eq!(running, expected, "{what}");
            assert_eq!(space.vms["cache"].host, "node2", "{what}");
            assert!(space.queue.is_empty() && !space.queueing, "{what}: {space:?}");
            assert_eq!(space.hosts.as_deref(), Some(&["node1".to_owned(), "node2".to_owned()][..]), "{what}");
            assert_eq!(space.load.as_deref(), Some("memcommit"), "{what}");
        }
        self.minimega.take_log();
        let (out, _) = self.run(&["apply", "--yes", "lab.yaml"], 0);
        assert!(out.contains("No changes"), "{what}: {out}");
        assert_eq!(peer::changes(self.minimega.take_log(), "lab"), [] as [&str; 0], "{what}");
    }
}

/// The patterns of minimega 3.1.0.
fn grammar() -> Grammar {
    let block = |(index, block): (usize, &str)| {
        let lines = block.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let patterns: Vec<Text> = lines.map(|line| line.to_owned().into()).collect();
        let mut declaration = Declaration::new(format!("handler {index}"), &[], "a command", "");
        declaration.patterns = patterns;
        (!declaration.patterns.is_empty()).then_some(declaration)
    };
    let patterns = include_str!("data/minimega-3.1.0-patterns.txt");
    let declarations: Vec<Declaration> = patterns.split("\n\n").enumerate().filter_map(block).collect();
    Grammar::new(&declarations).expect("minimega's patterns")
}

#[test]
fn an_experiment_on_several_hosts_from_nothing_to_nothing() {
    let lab = Lab::new();
    let (out, _) = lab.run(&["plan", "lab.yaml"], 0);
    assert!(out.contains("+ placement.hosts"), "{out}");
    lab.run(&["apply", "--yes", "lab.yaml"], 0);
    let log = lab.minimega.take_log();
    let grammar = grammar();
    for line in &log {
        assert!(matches!(grammar.compile(line), Ok(Some(_))), "minimega 3.1.0 does not know `{line}`");
    }
    let launches = log.iter().filter(|line| *line == "namespace lab vm launch").count();
    assert_eq!(launches, 2, "one for each level of dependencies: {log:#?}");
    // The queue is as long as what it launches: it is read once before that, and not for each entry.
    let at = |part: &str| log.iter().position(|line| line == part).expect("there is a round");
    let round = &log[at("namespace lab ns queueing true")..at("namespace lab vm launch")];
    assert_eq!(round.iter().filter(|line| *line == "namespace lab ns queue").count(), 1, "{round:#?}");
    let (shown, _) = lab.run(&["show", "lab.yaml"], 0);
    assert!(
        shown.contains("placement  setting    owner\nhosts      node[1-2]  managed\nload       memcommit  managed\n"),
        "{shown}"
    );
    lab.is_up("at once");
    // It is the same experiment when it is imported.
    let (imported, _) = lab.run(&["import", "lab"], 0);
    assert!(imported.contains("placement:\n  hosts: [node1, node2]\n  load: memcommit\n"), "{imported}");
    // A host that is taken away has VMs.
    lab.write(&LAB.replace("node[1-2]", "node[1-1]").replace("schedule: node2, ", ""));
    let (_, err) = lab.run(&["plan", "lab.yaml"], 1);
    assert!(err.contains("host-in-use") && err.contains("`--replace vm."), "{err}");
    lab.write(LAB);
    lab.run(&["destroy", "--yes", "lab.yaml"], 0);
    assert!(!lab.minimega.state().namespaces.contains_key("lab"));
}

#[test]
fn killed_anywhere_the_next_apply_converges_and_launches_nothing_twice() {
    let mut lines = 0;
    loop {
        let lab = Lab::new();
        let mut command = lab.command(&["apply", "--yes", "lab.yaml"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut err = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let reached = lines == 0 || err.by_ref().filter(|line| line.starts_with('[')).nth(lines - 1).is_some();
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        lab.run(&["apply", "--yes", "lab.yaml"], 0);
        lab.is_up(&format!("after {lines}"));
        if !reached {
            break;
        }
        lines += 1;
    }
    assert!(lines > 30, "{lines} steps");
}

#[test]
fn a_saved_plan_does_not_touch_what_others_queued_since() {
    let lab = Lab::new();
    lab.run(&["plan", "--out", "p", "lab.yaml"], 0);
    lab.run(&["check", "p"], 0);
    lab.run(&["apply", "--yes", "p"], 0);
    lab.is_up("by a saved plan");
    lab.write(&LAB.replace("web[0-2]", "web[0-3]"));
    lab.run(&["plan", "--out", "q", "lab.yaml"], 0);
    lab.run(&["plan", "--destroy", "--out", "d", "lab.yaml"], 0);
    for command in ["ns queueing true", "vm launch kvm theirs", "ns queueing false"] {
        lab.minimega.by_hand(&format!("namespace lab {command}"));
    }
    let (_, err) = lab.run(&["apply", "--yes", "q"], 4);
    assert!(err.contains("not this experiment's and would be launched too: theirs"), "{err}");
    let (shown, _) = lab.run(&["show", "lab.yaml"], 0);
    let row = |setting: &str, owner: &str| {
        let is = |line: &str| line.split_whitespace().eq(["queued", setting, owner]);
        assert!(shown.lines().any(is), "{shown}");
    };
    row("vm.theirs", "unmanaged");
    row("vm.web3", "managed");
    // A destroy of before does not drop it with the namespace.
    let (_, err) = lab.run(&["apply", "--yes", "d"], 3);
    assert!(err.contains("vm.theirs waits in the queue and would go with the namespace"), "{err}");
    let state = lab.minimega.state();
    let space = &state.namespaces["lab"];
    assert!(!space.vms.contains_key("theirs") && !space.vms.contains_key("web3"));
    assert!(space.queue.iter().any(|waiting| waiting.names == ["theirs"]));
}

/// Raw lines that launch VMs of their own, through the namespace's queue if it were on.
const RAW: &str = "commands:\n  extra:\n    create: [vm config memory 32, vm launch kvm extra, clear vm config]\n    \
                   destroy: [vm kill extra, vm flush extra]\n    depends_on: web0\n";

#[test]
fn raw_lines_run_neither_in_a_round_nor_between_two() {
    let lab = Lab::new();
    let edit = RAW.replace("memory 32", "memory 33");
    let more = LAB.replace("web[0-2]", "web[0-3]").replace("app: { memory: 64", "app: { memory: 65");
    for (text, rounds) in [(format!("{LAB}{RAW}"), 2), (format!("{more}{edit}"), 2), (more, 0)] {
        lab.write(&text);
        lab.minimega.take_log();
        lab.run(&["apply", "--yes", "lab.yaml"], 0);
        let sent = peer::changes(lab.minimega.take_log(), "lab");
        let all = |line: &str| -> Vec<usize> { (0..sent.len()).filter(|at| sent[*at] == line).collect() };
        let (on, off) = (all("ns queueing true"), all("ns queueing false"));
        assert_eq!((on.len(), off.len()), (rounds, rounds), "{sent:#?}");
        for line in ["vm kill extra", "vm flush extra"] {
            assert!(all(line).iter().all(|at| on.iter().all(|on| at < on)), "{sent:#?}");
        }
        for line in ["vm config memory 32", "vm config memory 33", "vm launch kvm extra"] {
            assert!(all(line).iter().all(|at| off.iter().all(|off| at > off)), "{sent:#?}");
        }
        let there = lab.minimega.state().namespaces["lab"].vms.contains_key("extra");
        assert_eq!(there, rounds > 0, "{sent:#?}");
        let (out, _) = lab.run(&["apply", "--yes", "lab.yaml"], 0);
        assert!(out.contains("No changes"), "{out}");
    }
}

#[test]
fn a_rollback_leaves_neither_vms_nor_a_queue() {
    let lab = Lab::new();
    for failing in ["vm launch kvm db", "vm start app", "namespace lab vm launch kvm app"] {
        lab.minimega.state().fail_at = Some(failing.to_owned());
        lab.run(&["apply", "--yes", "--rollback", "lab.yaml"], 4);
        lab.minimega.state().fail_at = None;
        let state = lab.minimega.state();
        let space = &state.namespaces["lab"];
        assert!(space.vms.is_empty() && space.queue.is_empty() && !space.queueing, "{failing}: {space:?}");
        assert_eq!(space.load.as_deref(), Some("cpucommit"), "{failing}");
        drop(state);
        lab.run(&["destroy", "--yes", "lab.yaml"], 0);
    }
    lab.run(&["apply", "--yes", "lab.yaml"], 0);
    lab.is_up("at last");
}
