//! Saved plans, rollbacks and JSON lines, against a scripted minimega on a real socket.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

#[path = "support/minimega.rs"]
mod peer;

use peer::Minimega;

const LAB: &str = r#"
experiment: lab
vlans: { dmz: {}, core: { tag: 200 } }
profiles:
  small: { memory: 64, kernel: /k/vmlinuz }
vms:
  "web[0-2]": { profile: small, networks: [dmz], tags: { role: web }, cdrom: /iso/a.iso, usb_disks: [/usb/a.img] }
  fw: { profile: small, networks: [dmz, core] }
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }
"#;

/// What can be taken back: a move, a tag, another image, a stop, a new VM, a tap with another address, another tag for an alias.
const EDITED: &str = r#"
experiment: lab
vlans: { dmz: {}, core: { tag: 201 } }
profiles:
  small: { memory: 64, kernel: /k/vmlinuz }
vms:
  "web[0-2]": { profile: small, networks: [core], tags: { role: front, tier: one }, cdrom: /iso/b.iso, usb_disks: [/usb/b.img] }
  fw: { profile: small, networks: [dmz, core], state: paused }
  "new[0-1]": { profile: small, networks: [dmz] }
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.253/24 }
"#;

struct Lab {
    folder: tempfile::TempDir,
    minimega: Minimega,
}

struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text} is not in\n{}", self.err);
        self
    }

    fn events(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
    }
}

impl Lab {
    fn applied() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minimega = Minimega::start(folder.path());
        let lab = Self { folder, minimega };
        lab.write("lab.yaml", LAB);
        lab.run(&["apply", "--yes", "lab.yaml"]).ends(0);
        lab.changes();
        lab
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("the temporary folder is writable");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect("the file is there")
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

    fn run(&self, args: &[&str]) -> Answer {
        let Output { status, stdout, stderr } = self.command(args).output().expect("the program starts");
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        Answer { code: status.code().expect("it ends by itself"), out: text(stdout), err: text(stderr) }
    }

    /// The commands since the last call that change something.
    fn changes(&self) -> Vec<String> {
        peer::changes(self.minimega.take_log(), "lab")
    }

    /// What an operator would see: of each VM its process, state, links and tags, of each tap its place and address.
    fn seen(&self) -> BTreeMap<String, String> {
        let state = self.minimega.state();
        let Some(ns) = state.namespaces.get("lab") else { return BTreeMap::new() };
        let link = |nic: &peer::Nic| format!("{} {} {}", nic.alias, nic.vlan, nic.bridge);
        let usb = |vm: &String| {
            let disks = state.network.usb.get(&("lab".to_owned(), vm.clone()));
            disks.map(|disks| disks.values().cloned().collect::<Vec<_>>()).unwrap_or_default()
        };
        let vms = ns.vms.iter().map(|(name, vm)| {
            let nics: Vec<String> = vm.nics.iter().map(link).collect();
            let cdrom = vm.config.get("cdrom");
            (format!("vm.{name}"), format!("{} {} {nics:?} {:?} {cdrom:?} {:?}", vm.pid, vm.state, vm.tags, usb(name)))
        });
        let taps = ns.taps.iter().map(|(name, tap)| (format!("tap.{name}"), format!("{tap:?}")));
        let vlans = ns.vlans.iter().map(|(alias, tag)| (format!("vlan.{alias}"), tag.to_string()));
        vms.chain(taps).chain(vlans).collect()
    }

    #[track_caller]
    fn settles(&self) {
        self.run(&["apply", "--yes", "lab.yaml"]).ends(0);
        self.changes();
        self.run(&["plan", "--detailed-exitcode", "lab.yaml"]).ends(0);
    }
}

#[test]
fn a_saved_plan_is_a_script_that_does_what_the_plan_says() {
    let lab = Lab::applied();
    lab.write("lab.yaml", EDITED);
    let shown = lab.run(&["plan", "lab.yaml"]).ends(0);
    lab.run(&["plan", "--out", "edit.plan", "lab.yaml"]).ends(0);
    lab.run(&["check", "edit.plan"]).ends(0);
    let commands = |text: &str| -> Vec<String> {
        text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(str::to_owned).collect()
    };
    let saved = lab.read("edit.plan");
    assert_eq!(commands(&saved), commands(&shown.out), "the same commands");
    assert!(saved.starts_with("# megaform saved plan 1 sha256:"), "{saved}");
    assert!(saved.contains("tags.role: web -> front  (lab.yaml:7)"), "the reasons can be read:\n{saved}");
    // The file is gone by then, and what the plan does not touch may change.
    std::fs::remove_file(lab.folder.path().join("lab.yaml")).expect("it is there");
    lab.minimega.by_hand("namespace lab vm launch kvm other");
    lab.minimega.by_hand("namespace lab vm tag web1 guest said-so");
    lab.changes();
    let answer = lab.run(&["apply", "--yes", "edit.plan"]).ends(0);
    assert!(!answer.out.contains("#@"), "records are for the program: {}", answer.out);
    assert!(answer.out.contains("\nApplied the plan of lab: "), "{}", answer.out);
    let mut sent: Vec<String> = lab.changes().iter().map(|c| format!("namespace lab {c}")).collect();
    let mut planned = commands(&saved);
    sent.sort();
    planned.sort();
    assert_eq!(sent, planned);
    // What it makes is there already: nothing to do, twice.
    let again = lab.run(&["apply", "--yes", "edit.plan"]).ends(0);
    assert!(again.out.ends_with("No changes. Everything is as this plan makes it.\n"), "{}", again.out);
    assert_eq!(lab.changes(), [] as [&str; 0]);
    lab.write("lab.yaml", EDITED);
    lab.run(&["plan", "--detailed-exitcode", "--out", "edit.plan", "lab.yaml"]).ends(0);
    // A plan without commands is a script too, and is carried out.
    lab.run(&["check", "edit.plan"]).ends(0);
    let nothing = lab.run(&["apply", "--yes", "edit.plan"]).ends(0);
    assert!(nothing.out.ends_with("# No changes. lab matches its file.\n"), "{}", nothing.out);
}

#[test]
fn a_saved_replacement_is_carried_out_once() {
    let lab = Lab::applied();
    lab.run(&["plan", "--replace", "vm.fw", "--out", "p", "lab.yaml"]).ends(0);
    lab.changes();
    // Everything is as the plan makes it, and it is made anew all the same.
    let done = lab.run(&["apply", "--yes", "p"]).ends(0);
    assert!(done.out.contains("Applied the plan of lab"), "{}", done.out);
    let sent = lab.changes();
    for command in ["vm kill fw", "vm flush fw", "vm launch kvm fw"] {
        assert!(sent.iter().any(|c| c == command), "{command}: {sent:#?}");
    }
    let again = lab.run(&["apply", "--yes", "p"]).ends(0);
    assert!(again.out.contains("Everything is as this plan makes it"), "{}", again.out);
    assert_eq!(lab.changes(), [] as [&str; 0]);
}

#[test]
fn a_saved_plan_that_does_not_fit_is_refused() {
    let lab = Lab::applied();
    lab.write("lab.yaml", &LAB.replace("networks: [dmz, core]", "networks: [core, core]"));
    lab.run(&["plan", "--out", "p", "lab.yaml"]).ends(0);
    let saved = lab.read("p");
    let before = lab.seen();
    for (from, to, says) in [
        ("net connect fw 0 core", "net connect fw 0 other", "checksum does not match"),
        ("# Plan:", "# plan:", "checksum does not match"),
        ("saved plan 1 ", "saved plan 9 ", "the plan is of form 9, and this megaform reads form 1"),
        ("sha256:", "sha256:0", "checksum does not match"),
    ] {
        assert!(saved.contains(from), "{from} in {saved}");
        lab.write("edited", &saved.replacen(from, to, 1));
        lab.run(&["apply", "--yes", "edited"]).ends(1).says("error: cannot use edited: ").says(says);
    }
    lab.run(&["apply", "--yes", "--target", "vm.fw", "p"]).ends(1).says("a saved plan is carried out as it is");
    lab.run(&["apply", "p"]).ends(1).says("needs a confirmation");
    let other = Command::new(env!("CARGO_BIN_EXE_megaform"))
        .current_dir(lab.folder.path())
        .args(["--socket", "elsewhere", "apply", "--yes", "p"])
        .output()
        .expect("the program starts");
    assert!(String::from_utf8_lossy(&other.stderr).contains("the plan was made for the target "), "{other:?}");
    // What it touches moved: each is named.
    lab.minimega.by_hand("namespace lab vm net disconnect fw 1");
    let stale = lab.run(&["apply", "--yes", "p"]).ends(3).says("\n  vm.fw changed\n");
    assert!(!stale.err.contains("web"), "{}", stale.err);
    lab.minimega.by_hand("namespace lab vm kill fw");
    lab.minimega.by_hand("namespace lab vm flush fw");
    lab.changes();
    lab.run(&["apply", "--yes", "p"]).ends(3).says("\n  vm.fw was there and is gone\n");
    assert_eq!(lab.changes(), [] as [&str; 0], "nothing was sent");
    assert_eq!(lab.seen().len(), before.len() - 1);
    // What it makes is there.
    lab.run(&["plan", "--out", "p", "lab.yaml"]).ends(0);
    lab.minimega.by_hand("namespace lab vm launch kvm fw");
    lab.run(&["apply", "--yes", "p"]).ends(3).says("\n  vm.fw was not there and is now\n");
}

#[test]
fn a_saved_destroy_takes_nothing_that_came_since() {
    let lab = Lab::applied();
    lab.run(&["plan", "--destroy", "--out", "end.plan", "lab.yaml"]).ends(0);
    lab.minimega.by_hand("namespace lab vm launch kvm other");
    lab.run(&["apply", "--yes", "end.plan"])
        .ends(3)
        .says("\n  vm.other was not there and would go with the namespace\n");
    lab.minimega.by_hand("namespace lab vm kill other");
    lab.minimega.by_hand("namespace lab vm flush other");
    let answer = lab.run(&["apply", "--yes", "end.plan"]).ends(0);
    assert!(answer.out.contains("Destroyed the plan of lab: "), "{}", answer.out);
    assert!(!lab.minimega.state().namespaces.contains_key("lab"));
    lab.run(&["apply", "--yes", "end.plan"]).ends(0);
    assert!(!lab.minimega.state().namespaces.contains_key("lab"), "looking creates nothing");
    let left = std::fs::read_dir(lab.folder.path()).expect("the folder").count();
    assert_eq!(left, 3, "the socket, the file and the plan, no journal and no lock");
}

#[test]
fn a_rollback_after_any_step_leaves_everything_as_it_was() {
    let reference = Lab::applied();
    reference.write("lab.yaml", EDITED);
    let plan = reference.run(&["plan", "lab.yaml"]).ends(0).out;
    let commands: Vec<&str> = plan.lines().filter(|l| l.starts_with("namespace")).collect();
    assert!(commands.len() > 12, "{plan}");
    for command in &commands {
        let lab = Lab::applied();
        let before = lab.seen();
        lab.write("lab.yaml", EDITED);
        lab.minimega.state().fail_at = Some((*command).to_owned());
        let answer = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]);
        lab.minimega.state().fail_at = None;
        // The alias that a new VM would use is there already, so nothing at all remains.
        let left = lab.seen();
        assert_eq!(left, before, "{command}:\n{}", answer.err);
        assert!(answer.err.contains("rolled back: everything is as it was"), "{command}:\n{}", answer.err);
        assert_eq!(answer.code, 1, "{command}: {}", answer.err);
        // The same by way of a saved plan.
        lab.run(&["plan", "--out", "p", "lab.yaml"]).ends(0);
        lab.minimega.state().fail_at = Some((*command).to_owned());
        lab.run(&["apply", "--yes", "--rollback", "p"]).ends(1).says("rolled back: everything is as it was");
        lab.minimega.state().fail_at = None;
        assert_eq!(lab.seen(), before, "{command}");
        lab.run(&["apply", "--yes", "p"]).ends(0);
        lab.settles();
    }
}

#[test]
fn a_rollback_where_an_answer_was_lost_takes_back_what_is_known_and_names_the_rest() {
    let reference = Lab::applied();
    reference.write("lab.yaml", EDITED);
    let plan = reference.run(&["plan", "lab.yaml"]).ends(0).out;
    let commands: Vec<&str> = plan.lines().filter(|l| l.starts_with("namespace") && !l.contains("config")).collect();
    for command in commands.iter().step_by(2) {
        for after in [false, true] {
            let lab = Lab::applied();
            let before = lab.seen();
            lab.write("lab.yaml", EDITED);
            lab.minimega.state().hang_up_at = Some(((*command).to_owned(), after));
            let answer = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]);
            match answer.code {
                // What could be looked at was found done.
                0 => lab.settles(),
                1 => assert_eq!(lab.seen(), before, "{command} {after}:\n{}", answer.err),
                4 => assert!(answer.err.contains("rolled back, but not as it was: "), "{command}:\n{}", answer.err),
                other => panic!("{other}: {}", answer.err),
            }
            assert!(!lab.seen().contains_key("vm.new0") || answer.code == 0, "{command} {after}:\n{}", answer.err);
            lab.settles();
        }
    }
}

#[test]
fn a_rollback_says_what_first_uses_leave() {
    let lab = Lab::applied();
    lab.write(
        "lab.yaml",
        &LAB.replace("web[0-2]", "web[0-3]")
            .replace("\nvms:\n", "\nvms:\n  new: { memory: 64, networks: [fresh, other] }\n")
            .replace("\nvlans: {", "\nvlans: { fresh: {}, other: {},"),
    );
    lab.minimega.state().broken.insert("web3".into(), "qemu: no memory".into());
    lab.run(&["apply", "--yes", "--rollback", "lab.yaml"])
        .ends(1)
        .says("rolled back: everything is as it was, but VLAN aliases that were used for the first time stay bound: fresh, other\n");
    lab.minimega.by_hand("clear namespace lab");
    let events = lab.run(&["apply", "--yes", "--json", "--rollback", "lab.yaml"]).ends(1);
    let rollback = events.events().into_iter().find(|e| e["event"] == "rollback").expect("it is told");
    let stays: Vec<&str> = rollback["stays"].as_array().expect("a list").iter().filter_map(|s| s.as_str()).collect();
    assert!(stays.contains(&"vlan.fresh") && stays.contains(&"vlan.other"), "{rollback}");
    events.says("rolled back: everything is as it was, but the namespace lab stays, with the VLAN aliases ");
}

#[test]
fn a_rollback_says_what_it_cannot_take_back() {
    let lab = Lab::applied();
    let edited =
        LAB.replace("fw: { profile: small,", "fw: { profile: small, memory: 96,").replace("web[0-2]", "web[0-3]");
    lab.write("lab.yaml", &edited);
    lab.minimega.state().broken.insert("web3".into(), "qemu: no memory".into());
    let answer = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]).ends(4);
    assert!(answer.out.contains("# note: --rollback cannot take back what is done to vm.fw\n"), "{}", answer.out);
    let answer = answer.says("web3 is error: qemu: no memory").says("rolled back, but not as it was: vm.fw\n");
    assert!(answer.out.contains("Not complete: ") && !answer.out.contains("go on from here"), "{}", answer.out);
    assert!(!lab.seen().contains_key("vm.web3"), "a VM that failed is removed");
    assert!(!lab.seen().contains_key("vm.fw"), "so is the one that stood for another, which is gone");
    lab.minimega.state().broken.clear();
    lab.settles();
}

#[test]
fn killed_anywhere_in_a_saved_plan_or_its_rollback_the_next_apply_converges() {
    let killed_after = |lab: &Lab, args: &[&str], lines: usize| -> bool {
        let mut child =
            lab.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut err = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let reached = lines == 0 || err.by_ref().filter(|line| line.starts_with('[')).nth(lines - 1).is_some();
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        reached
    };
    for failing in [None, Some("vm tag web[0-2] tier one")] {
        let mut lines = 0;
        loop {
            let lab = Lab::applied();
            lab.write("lab.yaml", EDITED);
            lab.run(&["plan", "--out", "p", "lab.yaml"]).ends(0);
            lab.minimega.state().fail_at = failing.map(str::to_owned);
            let reached = killed_after(&lab, &["apply", "--yes", "--rollback", "p"], lines);
            lab.minimega.state().fail_at = None;
            // Half done it fits no more, and says so; what is live leads on from the file.
            let again = lab.run(&["apply", "--yes", "p"]);
            assert!([0, 3].contains(&again.code), "{}", again.err);
            lab.settles();
            assert_eq!(lab.seen().keys().filter(|k| k.starts_with("vm.")).count(), 6, "after {lines}");
            if !reached {
                break;
            }
            lines += 1;
        }
        assert!(lines > 12, "{failing:?} has more lines than {lines}");
    }
}

#[test]
fn json_lines_tell_everything() {
    let lab = Lab::applied();
    let apply = |args: &[&str]| lab.run(&[&["apply", "--yes", "--json"], args].concat());
    let events = apply(&["lab.yaml"]).ends(0).events();
    let names: Vec<&str> = events.iter().map(|e| e["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["plan", "summary"]);
    assert_eq!((&events[0]["format"], &events[0]["plan"]["format"]), (&1.into(), &2.into()));
    lab.write("lab.yaml", &LAB.replace("networks: [dmz, core]", "networks: [core, core]"));
    let answer = apply(&["lab.yaml"]).ends(0);
    assert_eq!(answer.err, "");
    let events = answer.events();
    let names: Vec<&str> = events.iter().map(|e| e["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["plan", "started", "ended", "verified", "summary"]);
    assert_eq!(events[1]["command"], "namespace lab vm net connect fw 0 core");
    assert_eq!(events[2], serde_json::json!({"event": "ended", "step": 1, "result": "done"}));
    assert_eq!(events[3]["left"], serde_json::json!([]));
    let summary = serde_json::json!({"event": "summary", "exit": 0, "done": 1, "failed": [], "skipped": []});
    assert_eq!(events[4], summary);
    // A failure, and a rollback.
    lab.write("lab.yaml", EDITED);
    lab.minimega.state().fail_at = Some("vm start new".to_owned());
    let events = apply(&["--rollback", "lab.yaml"]).ends(1).events();
    lab.minimega.state().fail_at = None;
    let last = events.last().expect("a summary");
    assert_eq!((&last["event"], &last["exit"]), (&"summary".into(), &1.into()));
    assert_eq!(last["failed"].as_array().map(Vec::len), Some(1), "{last}");
    let failed = events.iter().find(|e| e["result"] == "failed").expect("a failed step");
    assert_eq!(failed["error"], "vm: told to fail");
    assert!(events.iter().any(|e| e["event"] == "undone" && e["command"] == "namespace lab vm flush new[0-1]"));
    assert!(events.iter().any(|e| e["event"] == "rollback" && e["left"] == serde_json::json!([])));
    // A saved plan that does not fit.
    lab.run(&["plan", "--out", "p", "lab.yaml"]).ends(0);
    lab.minimega.by_hand("namespace lab vm stop web0");
    let events = apply(&["p"]).ends(3).events();
    assert!(events.iter().any(|e| e["event"] == "stale" && e["moved"][0] == "vm.web0 changed"), "{events:?}");
    assert_eq!(events.last().expect("a summary")["exit"], 3);
    lab.run(&["apply", "--json", "lab.yaml"]).ends(1).says("--yes");
}

#[test]
fn a_saved_plan_that_replaces_what_could_stay_does_so_once() {
    let lab = Lab::applied();
    let before = lab.seen();
    lab.run(&["plan", "--replace", "vm.fw", "--out", "p", "lab.yaml"]).ends(0);
    let answer = lab.run(&["apply", "--yes", "p"]).ends(0);
    assert!(answer.out.contains("Applied the plan of lab: "), "{}", answer.out);
    assert_ne!(lab.seen()["vm.fw"], before["vm.fw"]);
    assert!(lab.changes().contains(&"vm kill fw".to_owned()));
    let again = lab.run(&["apply", "--yes", "p"]).ends(0);
    assert!(again.out.ends_with("No changes. Everything is as this plan makes it.\n"), "{}", again.out);
    assert_eq!(lab.changes(), [] as [&str; 0]);
}
