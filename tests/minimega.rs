//! The program against a minimega that is not its own: a scripted 3.1.0 on a real socket. Plan and apply may use nothing
//! that minimega lacks, and must cope with how it answers.
#![allow(missing_docs)]

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use megaform::language::declaration::{Declaration, Text};
use megaform::language::grammar::Grammar;

#[path = "support/minimega.rs"]
mod peer;

use peer::Minimega;

const LAB: &str = r#"
experiment: lab
vlans: { dmz: {}, core: { tag: 200 } }
profiles:
  small: { memory: 64, kernel: /k/vmlinuz, initrd: /k/initrd, append: console=ttyS0 }
vms:
  "web[0-2]": { profile: small, networks: [dmz], tags: { role: "a \"web\" # server" } }
  fw: { profile: small, networks: [dmz, { vlan: core, mac: "52:54:00:00:00:01", driver: virtio-net-pci }] }
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }
"#;

/// The patterns of minimega 3.1.0, one declaration per handler.
fn grammar() -> Grammar {
    let mut declarations = Vec::new();
    for (i, block) in include_str!("data/minimega-3.1.0-patterns.txt").split("\n\n").enumerate() {
        let patterns: Vec<Text> =
            block.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|l| l.to_owned().into()).collect();
        if !patterns.is_empty() {
            let mut declaration = Declaration::new(format!("handler {i}"), &[], "a command", "");
            declaration.patterns = patterns;
            declarations.push(declaration);
        }
    }
    assert_eq!(declarations.len(), 166, "the list names 166 handlers");
    Grammar::new(&declarations).expect("minimega's patterns")
}

struct Lab {
    folder: tempfile::TempDir,
    minimega: Minimega,
    /// Every command that arrived since the start.
    sent: std::cell::RefCell<Vec<String>>,
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
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minimega = Minimega::start(folder.path());
        let lab = Self { folder, minimega, sent: Default::default() };
        lab.write(LAB);
        lab
    }

    /// A lab whose experiment is applied.
    fn applied() -> Self {
        Self::new().up()
    }

    /// On 3.1.0, or on a release of 2018.
    fn of(old: bool) -> Self {
        let lab = Self::new();
        lab.minimega.state().network.old = old;
        lab
    }

    fn up(self) -> Self {
        self.apply().ends(0);
        self.take_changes();
        self
    }

    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("lab.yaml"), text).expect("the temporary folder is writable");
    }

    #[track_caller]
    fn edit(&self, from: &str, to: &str) {
        assert!(LAB.contains(from), "{from}");
        self.write(&LAB.replace(from, to));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_megaform"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Never used: with --socket no engine of our own is started.
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
        assert!(!self.folder.path().join("base").exists(), "an engine of our own was started");
        Answer { code: status.code().expect("it ends by itself"), out: text(stdout), err: text(stderr) }
    }

    fn apply(&self) -> Answer {
        self.run(&["apply", "--yes", "lab.yaml"])
    }

    fn plan(&self) -> Answer {
        self.run(&["plan", "--detailed-exitcode", "lab.yaml"])
    }

    /// The commands since the last call that change something.
    fn take_changes(&self) -> Vec<String> {
        let log = self.minimega.take_log();
        self.sent.borrow_mut().extend(log.iter().cloned());
        peer::changes(log, "lab")
    }

    /// A second apply runs nothing.
    #[track_caller]
    fn is_settled(&self) {
        self.take_changes();
        let again = self.apply().ends(0);
        assert!(again.out.contains("No changes"), "{}", again.out);
        assert_eq!(self.take_changes(), [] as [&str; 0]);
        self.plan().ends(0);
    }

    fn states(&self) -> Vec<(String, u64)> {
        let state = self.minimega.state();
        state.namespaces["lab"].vms.iter().map(|(name, vm)| (name.clone(), vm.state)).collect()
    }
}

impl Drop for Lab {
    /// Whatever the test did: only commands of minimega 3.1.0 were sent, none of which it refuses as unknown, and the
    /// active namespace stayed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.take_changes();
        let grammar = grammar();
        for line in self.sent.borrow().iter() {
            assert!(matches!(grammar.compile(line), Ok(Some(_))), "minimega 3.1.0 does not know `{line}`");
        }
        assert!(!self.sent.borrow().is_empty() || self.minimega.state().deaf, "the test sent nothing");
        assert_eq!(self.minimega.state().active, "minimega", "the active namespace changed");
    }
}

#[test]
fn create_then_nothing_then_destroy() {
    for old in [false, true] {
        let lab = Lab::of(old);
        let planned = lab.plan().ends(2);
        assert!(planned.out.contains("namespace lab vm launch kvm web[0-2]\n"), "{}", planned.out);
        assert_eq!(lab.take_changes(), [] as [&str; 0], "a plan changes nothing");
        assert!(!lab.minimega.state().namespaces.contains_key("lab"), "looking creates no namespace");

        lab.apply().ends(0);
        let sent = lab.take_changes();
        for expected in
            ["vlans add core 200", "vm launch kvm web[0-2]", "vm launch kvm fw", "tap create dmz ip 10.0.0.254/24 mgmt"]
        {
            assert_eq!(sent.iter().filter(|c| *c == expected).count(), 1, "{expected} in {sent:#?}");
        }
        let running = |name: &str| (name.to_owned(), 2);
        assert_eq!(lab.states(), [running("fw"), running("web0"), running("web1"), running("web2")]);
        {
            let state = lab.minimega.state();
            let ns = &state.namespaces["lab"];
            assert_eq!(ns.vms["web1"].tags["role"], "a \"web\" # server");
            assert_eq!((ns.vms["fw"].nics[1].mac.as_str(), ns.vms["fw"].nics[1].vlan), ("52:54:00:00:00:01", 200));
            assert_eq!(ns.taps["mgmt"].ip.as_deref(), Some("10.0.0.254/24"));
            assert!(ns.config.is_empty() && ns.config_tags.is_empty(), "the configuration is left clean");
        }
        lab.is_settled();

        let shown = lab.run(&["show", "lab.yaml"]).ends(0).out;
        for part in ["web2", "running", "dmz (101)", "core (200)", "10.0.0.254/24", "managed"] {
            assert!(shown.contains(part), "{part} is missing:\n{shown}");
        }

        lab.run(&["destroy", "--yes", "lab.yaml"]).ends(0);
        assert!(!lab.minimega.state().namespaces.contains_key("lab"), "the namespace is left");
        let left: Vec<_> = std::fs::read_dir(lab.folder.path())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .filter(|name| name != "lab.yaml" && name != "minimega")
            .collect();
        assert_eq!(left, [] as [&str; 0], "files are left beside the socket");
        let again = lab.run(&["destroy", "--yes", "lab.yaml"]).ends(0);
        assert!(again.out.contains("No changes"), "{}", again.out);
    }
}

#[test]
fn a_nic_that_moves_is_one_command() {
    for old in [false, true] {
        let lab = Lab::of(old).up();
        let before = lab.minimega.state().namespaces["lab"].vms["fw"].pid;
        lab.edit("networks: [dmz, {", "networks: [core, {");
        lab.plan().ends(2);
        lab.apply().ends(0);
        assert_eq!(lab.take_changes(), ["vm net connect fw 0 core"]);
        assert_eq!(lab.minimega.state().namespaces["lab"].vms["fw"].pid, before);
        lab.is_settled();
    }
}

#[test]
fn memory_replaces_one_vm() {
    for old in [false, true] {
        let lab = Lab::of(old).up();
        let pids = || -> Vec<(String, u64)> {
            lab.minimega.state().namespaces["lab"].vms.iter().map(|(name, vm)| (name.clone(), vm.pid)).collect()
        };
        let before = pids();
        lab.edit("fw: { profile: small,", "fw: { profile: small, memory: 96,");
        lab.apply().ends(0);
        let sent = lab.take_changes();
        assert_eq!(sent[..2], ["vm kill fw", if old { "vm flush" } else { "vm flush fw" }]);
        assert!(sent.contains(&"vm launch kvm fw".to_owned()) && sent.contains(&"vm start fw".to_owned()), "{sent:#?}");
        assert!(!sent.iter().any(|c| c.contains("web")), "{sent:#?}");
        for ((name, old), (_, new)) in before.iter().zip(&pids()) {
            assert_eq!(old != new, name == "fw", "{name}");
        }
        lab.is_settled();
    }
}

#[test]
fn drift_is_put_right() {
    for old in [false, true] {
        let lab = Lab::of(old).up();
        lab.minimega.by_hand("namespace lab vm kill web1");
        lab.minimega.by_hand("namespace lab vm net disconnect web0 0");
        lab.minimega.by_hand("namespace lab vm tag web2 role other");
        lab.minimega.by_hand("namespace lab tap delete mgmt");
        let planned = lab.plan().ends(2);
        for part in ["vm.web0", "vm.web1", "vm.web2", "tap.mgmt"] {
            assert!(planned.out.contains(part), "{part} is missing:\n{}", planned.out);
        }
        lab.apply().ends(0);
        let mut sent = lab.take_changes();
        sent.sort();
        assert_eq!(
            sent,
            [
                "tap create dmz ip 10.0.0.254/24 mgmt",
                "vm net connect web0 0 dmz",
                "vm start web1",
                r##"vm tag web2 role "a \"web\" # server""##
            ]
        );
        lab.is_settled();
        // Killed and flushed: launched again.
        lab.minimega.by_hand("namespace lab vm kill web1");
        lab.minimega.by_hand(if old { "namespace lab vm flush" } else { "namespace lab vm flush web1" });
        lab.apply().ends(0);
        assert!(lab.take_changes().contains(&"vm launch kvm web1".to_owned()));
        lab.is_settled();
    }
}

#[test]
fn an_address_changed_by_hand_is_seen_where_the_host_shows_it() {
    let lab = Lab::applied();
    let change = || {
        let mut state = lab.minimega.state();
        let lab = state.namespaces.get_mut("lab").expect("applied");
        lab.taps.get_mut("mgmt").expect("applied").ip = Some("10.0.0.9/24".to_owned());
    };
    change();
    lab.apply().ends(0);
    assert_eq!(lab.take_changes(), ["tap delete mgmt", "tap create dmz ip 10.0.0.254/24 mgmt"]);
    lab.is_settled();
    // Without `ip` on the host nothing can be known about it, and that is said.
    lab.minimega.state().without_ip = true;
    change();
    let planned = lab.plan().ends(0);
    assert!(planned.out.contains("the target does not show the addresses of taps"), "{}", planned.out);
}

#[test]
fn what_others_made_stays() {
    for old in [false, true] {
        let lab = Lab::of(old);
        lab.minimega.by_hand("namespace lab vm launch kvm other");
        lab.minimega.by_hand("namespace lab tap create 9 name theirs");
        lab.minimega.by_hand("namespace elsewhere vm launch kvm web0");
        lab.apply().ends(0);
        lab.is_settled();
        let shown = lab.run(&["show", "lab.yaml"]).ends(0).out;
        assert!(shown.contains("unmanaged"), "{shown}");
        lab.run(&["destroy", "--yes", "lab.yaml"]).ends(0);
        let sent = lab.take_changes();
        assert!(
            !sent.iter().any(|c| c.contains("other") || c.contains("theirs") || c.contains("elsewhere")),
            "{sent:#?}"
        );
        let state = lab.minimega.state();
        assert_eq!(state.namespaces["lab"].vms.keys().collect::<Vec<_>>(), ["other"]);
        assert_eq!(state.namespaces["lab"].taps.keys().collect::<Vec<_>>(), ["theirs"]);
        assert_eq!(state.namespaces["elsewhere"].vms.len(), 1);
    }
}

#[test]
fn a_foreign_vm_of_the_same_name_is_not_taken() {
    let lab = Lab::new();
    lab.minimega.by_hand("namespace lab vm launch kvm web1");
    let refused = lab.apply().ends(1);
    assert!(refused.err.contains("web1") && refused.err.contains("lab.yaml:"), "{}", refused.err);
    assert_eq!(lab.take_changes(), [] as [&str; 0]);
}

#[test]
fn a_launch_that_fails_silently_is_a_failed_step() {
    for old in [false, true] {
        let lab = Lab::of(old);
        lab.minimega.state().broken.insert("web1".into(), "qemu-system-x86_64: cannot set up guest memory".into());
        let failed = lab.apply().ends(4);
        assert!(failed.err.contains("`namespace lab vm launch kvm web[0-2]` failed"), "{}", failed.err);
        assert!(failed.err.contains("web1 is error: qemu-system-x86_64: cannot set up guest memory"), "{}", failed.err);
        let states: Vec<u64> = lab.states().into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, [2, 2, 16, 2], "one bad VM does not keep the others down");
        // The text of an error stands by itself, and leaves the table as narrow as it is.
        let shown = lab.run(&["show", "lab.yaml"]).ends(0).out;
        let row = shown.lines().find(|line| line.starts_with("web1 ")).unwrap_or_default();
        assert!(row.contains("error ") && row.len() < 60 && !row.contains("memory"), "{shown}");
        assert!(shown.contains("\nweb1  qemu-system-x86_64: cannot set up guest memory\n"), "{shown}");
        // Once its cause is gone, the next apply goes on from there.
        lab.minimega.state().broken.clear();
        lab.take_changes();
        lab.apply().ends(0);
        let sent = lab.take_changes();
        assert!(sent.contains(&"vm launch kvm web1".to_owned()), "{sent:#?}");
        assert!(!sent.iter().any(|c| c.contains("web0") || c.contains("fw")), "{sent:#?}");
        lab.is_settled();
    }
}

#[test]
fn a_connection_lost_anywhere_is_recovered_by_the_next_apply() {
    // Every command that an apply sends, before and after it is carried out.
    let reference = Lab::new();
    reference.apply().ends(0);
    let mut commands = reference.take_changes();
    commands.sort();
    commands.dedup();
    assert!(commands.len() > 10, "{commands:#?}");
    for command in &commands {
        for after in [false, true] {
            let lab = Lab::new();
            lab.minimega.state().hang_up_at = Some((command.clone(), after));
            let cut = lab.apply();
            assert!([0, 1, 4].contains(&cut.code), "{command}: {}", cut.err);
            if cut.code != 0 {
                assert!(cut.err.contains("hung up"), "{command}: {}", cut.err);
            }
            assert!(lab.minimega.state().hang_up_at.is_none(), "{command} was not sent");
            lab.apply().ends(0);
            lab.is_settled();
            let state = lab.minimega.state();
            assert_eq!(state.namespaces["lab"].vms.len(), 4, "{command}");
            assert_eq!(state.namespaces["lab"].taps.len(), 1, "{command}");
        }
    }
}

#[test]
fn a_destroy_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let destroy = |lab: &Lab| lab.run(&["destroy", "--yes", "lab.yaml"]);
    let reference = Lab::applied();
    destroy(&reference).ends(0);
    let commands = reference.take_changes();
    assert!(commands.contains(&"clear namespace lab".to_owned()), "{commands:#?}");
    for command in &commands {
        for after in [false, true] {
            let lab = Lab::applied();
            lab.minimega.state().hang_up_at = Some((command.clone(), after));
            let cut = destroy(&lab);
            assert!([0, 1, 4].contains(&cut.code), "{command}: {}", cut.err);
            assert!(lab.minimega.state().hang_up_at.is_none(), "{command} was not sent");
            destroy(&lab).ends(0);
            assert!(!lab.minimega.state().namespaces.contains_key("lab"), "{command}: the namespace is left");
        }
    }
}

#[test]
fn a_connection_lost_while_looking_is_an_error_and_changes_nothing() {
    for command in ["vm info", "vlans", "namespace lab tap", "shell ip"] {
        let lab = Lab::applied();
        lab.minimega.state().hang_up_at = Some((command.to_owned(), false));
        let cut = lab.plan().ends(1);
        assert!(cut.err.contains("hung up"), "{command}: {}", cut.err);
        // One line, after the warning about a VLAN with one member.
        assert_eq!(cut.err.lines().filter(|line| line.starts_with("error")).count(), 1, "{}", cut.err);
        assert_eq!(lab.take_changes(), [] as [&str; 0]);
    }
}

#[test]
fn a_peer_that_never_answers_is_an_error() {
    let lab = Lab::new();
    lab.minimega.state().deaf = true;
    for args in [&["plan", "lab.yaml"][..], &["apply", "--yes", "lab.yaml"], &["show", "lab.yaml"], &["-e", "version"]]
    {
        let cut = lab.run(args).ends(1);
        assert!(cut.err.contains("hung up"), "{args:?}: {}", cut.err);
    }
}

#[test]
fn nobody_there_is_an_error_that_names_the_socket() {
    let lab = Lab::new();
    std::fs::rename(lab.folder.path().join("minimega"), lab.folder.path().join("away")).expect("the socket");
    for args in [
        &["plan", "lab.yaml"][..],
        &["apply", "--yes", "lab.yaml"],
        &["destroy", "--yes", "lab.yaml"],
        &["show", "lab.yaml"],
        &["-e", "version"],
        &["run", "lab.yaml"],
    ] {
        let absent = lab.run(args).ends(1);
        assert!(absent.err.contains("minimega"), "{args:?}: {}", absent.err);
        assert!(absent.err.contains("does not exist"), "{args:?}: {}", absent.err);
    }
    lab.minimega.state().deaf = true;
}

#[test]
fn progress_and_slowness_change_nothing() {
    let lab = Lab::new();
    {
        let mut state = lab.minimega.state();
        state.progress = true;
        state.delay = Duration::from_millis(50);
    }
    lab.apply().ends(0);
    lab.is_settled();
    assert_eq!(lab.run(&["-e", "version"]).ends(0).out, "minimega 3.1.0 x 2026-11-22\n");
}

#[test]
fn a_mesh_answers_with_several_hosts() {
    let lab = Lab::new();
    lab.minimega.state().second_host = Some("mm2".to_owned());
    lab.apply().ends(0);
    let hosts: Vec<String> = lab.minimega.state().namespaces["lab"].vms.values().map(|vm| vm.host.clone()).collect();
    assert!(hosts.contains(&"mm2".to_owned()) && hosts.contains(&"vm".to_owned()), "{hosts:?}");
    lab.is_settled();
    let shown = lab.run(&["show", "lab.yaml"]).ends(0).out;
    assert!(shown.contains("mm2") && shown.contains("fw"), "{shown}");
    // An error of any host fails the step, and says whose it is.
    lab.edit("fw: { profile: small,", "fw: { profile: small, state: paused,");
    lab.minimega.state().second_host_error = Some(("vm stop".into(), "no route to mm2".into()));
    let failed = lab.apply().ends(1);
    assert!(failed.err.contains("mm2: no route to mm2"), "{}", failed.err);
    lab.minimega.state().second_host_error = None;
    lab.apply().ends(0);
    lab.is_settled();
    lab.run(&["destroy", "--yes", "lab.yaml"]).ends(0);
    assert!(!lab.minimega.state().namespaces.contains_key("lab"));
}

#[test]
fn vms_are_read_from_the_table_where_there_are_no_records() {
    let lab = Lab::new();
    lab.minimega.state().without_data = true;
    lab.apply().ends(0);
    lab.is_settled();
    lab.edit("fw: { profile: small,", "fw: { profile: small, memory: 96,");
    lab.apply().ends(0);
    assert!(lab.take_changes().contains(&"vm launch kvm fw".to_owned()));
    lab.is_settled();
}

#[test]
fn raw_commands() {
    let lab = Lab::new();
    let said = |args: &[&str]| lab.run(args);
    assert_eq!(said(&["-e", "version"]).ends(0).out, "minimega 3.1.0 x 2026-11-22\n");
    assert_eq!(said(&["-e", "echo", "a b", "\"c\""]).ends(0).out, "a b \"c\"\n");
    let failed = said(&["-e", "vm", "start", "nosuch"]).ends(1);
    assert_eq!((failed.out.as_str(), failed.err.as_str()), ("", "error: vm: vm not found: nosuch\n"));
    // The environment names a socket as well as the option does.
    let output = Command::new(env!("CARGO_BIN_EXE_megaform"))
        .env_clear()
        .env("MEGAFORM_SOCKET", &lab.minimega.socket)
        .args(["-e", "version"])
        .output()
        .expect("the program starts");
    assert_eq!(output.stdout, b"minimega 3.1.0 x 2026-11-22\n");
    assert_eq!(lab.take_changes(), ["version", "echo \"a b\" \"\\\"c\\\"\"", "vm start nosuch", "version"]);
}

#[test]
fn an_unknown_raw_command_is_sent_and_refused_by_the_peer() {
    let lab = Lab::new();
    let failed = lab.run(&["-e", "bogus"]).ends(1);
    assert!(failed.err.starts_with("error: vm: invalid command: `bogus`\n"), "{}", failed.err);
    // Sent as it stood: that one is not for the check of what the planner sends.
    assert_eq!(lab.minimega.take_log(), ["bogus"]);
    lab.run(&["-e", "version"]).ends(0);
}

#[test]
fn scripts_stop_at_the_first_error_and_name_the_line() {
    let lab = Lab::new();
    let script = "# a script\necho one\n\nvm config memory bad\necho two\n";
    std::fs::write(lab.folder.path().join("s.mm"), script).expect("the temporary folder is writable");
    let error = "s.mm:4: vm: strconv.ParseUint: parsing \"bad\": invalid syntax\n";
    let stopped = lab.run(&["run", "s.mm"]).ends(1);
    assert_eq!((stopped.out.as_str(), stopped.err.as_str()), ("one\n", error));
    let whole = lab.run(&["run", "--keep-going", "s.mm"]).ends(1);
    assert_eq!((whole.out.as_str(), whole.err.as_str()), ("one\ntwo\n", error));
}

#[test]
fn a_plan_is_a_script_that_minimega_runs() {
    let lab = Lab::new();
    let plan = lab.run(&["plan", "lab.yaml"]).ends(0).out;
    std::fs::write(lab.folder.path().join("plan.mm"), plan).expect("the temporary folder is writable");
    lab.run(&["run", "plan.mm"]).ends(0);
    lab.is_settled();
}

#[test]
fn a_namespace_that_queues_launches_queues_again_afterwards() {
    let lab = Lab::new();
    lab.minimega.by_hand("namespace lab ns queueing true");
    let answer = lab.apply().ends(0);
    assert!(answer.out.contains("# note: namespace lab queues launches (`ns queueing`)"), "{}", answer.out);
    let sent = lab.take_changes();
    let at = |command: &str| sent.iter().position(|c| c == command).unwrap_or_else(|| panic!("{command} in {sent:?}"));
    assert!(at("ns queueing false") < at("vm launch kvm fw") && at("vm launch kvm fw") < at("ns queueing true"));
    assert!(lab.minimega.state().namespaces["lab"].queueing);
    lab.is_settled();
    // What others queued is in the way.
    lab.minimega.by_hand("namespace lab vm launch kvm theirs");
    lab.edit("web[0-2]", "web[0-3]");
    let answer = lab.apply().ends(1);
    assert!(answer.err.contains("wait in the queue of namespace lab: vm.theirs"), "{}", answer.err);
    assert!(answer.err.contains("`namespace lab ns flush` drops it"), "{}", answer.err);
    assert!(lab.take_changes().is_empty(), "nothing was sent");
}

#[test]
fn a_part_is_applied_and_destroyed_by_itself() {
    let lab = Lab::new();
    let run = |args: &[&str]| lab.run(args);
    let typo = run(&["plan", "--target", "vm.wbe0", "lab.yaml"]).ends(1);
    assert!(typo.err.contains("there is no `vm.wbe0`") && typo.err.contains("did you mean `vm.web0`?"), "{}", typo.err);
    let bare = run(&["plan", "--target", "web0", "lab.yaml"]).ends(1);
    assert!(bare.err.contains("expected KIND.web0, where KIND is placement, vlan, "), "{}", bare.err);
    let answer = run(&["apply", "--yes", "--target", "vm.web[0-1]", "lab.yaml"]).ends(0);
    assert!(answer.out.contains("# note: only a part is planned and verified: vm.web[0-1]"), "{}", answer.out);
    assert!(answer.out.contains("\nApplied what is selected of lab: "), "{}", answer.out);
    assert_eq!(lab.states().len(), 2);
    run(&["apply", "--yes", "--exclude", "tap.mgmt", "lab.yaml"]).ends(0);
    assert!(lab.minimega.state().namespaces["lab"].taps.is_empty());
    lab.apply().ends(0);
    lab.is_settled();
    let before = lab.minimega.state().namespaces["lab"].vms["web0"].pid;
    run(&["apply", "--yes", "--replace", "vm.web0", "lab.yaml"]).ends(0);
    assert_ne!(lab.minimega.state().namespaces["lab"].vms["web0"].pid, before);
    lab.minimega.by_hand("namespace lab vm kill web1");
    let drift = run(&["plan", "--refresh-only", "--detailed-exitcode", "lab.yaml"]).ends(2);
    assert!(drift.out.ends_with("# Drift: 1 object changed since it was applied\n"), "{}", drift.out);
    let gone = run(&["destroy", "--yes", "--target", "vm.web[0-2]", "lab.yaml"]).ends(0);
    assert!(gone.out.contains("Destroyed what is selected of lab"), "{}", gone.out);
    assert_eq!(lab.states().len(), 1);
    lab.apply().ends(0);
    lab.is_settled();
}

#[test]
fn nics_are_added_where_the_target_can_and_cost_a_restart_where_it_cannot() {
    for old in [false, true] {
        let lab = Lab::of(old).up();
        let pid = || lab.minimega.state().namespaces["lab"].vms["web1"].pid;
        let before = pid();
        lab.edit(
            "\"web[0-2]\": { profile: small, networks: [dmz]",
            "\"web[0-2]\": { profile: small, networks: [core, { vlan: core, driver: virtio-net-pci }]",
        );
        let planned = lab.plan().ends(2);
        assert_eq!(planned.out.contains("networks[1]: nothing -> core,virtio-net-pci"), !old, "{}", planned.out);
        assert_eq!(planned.out.contains("networks: 1 NIC -> 2 NICs"), old, "{}", planned.out);
        lab.apply().ends(0);
        let mut sent = lab.take_changes();
        if old {
            assert!(sent.contains(&"vm flush".to_owned()), "{sent:#?}");
        } else {
            sent.sort();
            assert!(sent[1].starts_with("vm net connect web[0-2] 0 core"), "{sent:#?}");
            assert_eq!(sent[0], "vm net add web[0-2] core,virtio-net-pci");
            assert!(sent[2].starts_with("vm tag web[0-2] megaform.digest v1:"), "{sent:#?}");
            assert_eq!(sent.len(), 3);
        }
        assert_eq!(pid() == before, !old);
        lab.is_settled();
        // Together with what only a launch can set it is a replacement, and nobody has to be asked.
        lab.minimega.take_log();
        lab.edit(
            "\"web[0-2]\": { profile: small, networks: [dmz]",
            "\"web[0-2]\": { profile: small, memory: 65, networks: [core, core, core]",
        );
        lab.plan().ends(2);
        assert!(!lab.minimega.take_log().contains(&"help vm net".to_owned()));
    }
}

#[test]
fn disks_are_named_as_every_release_does() {
    for old in [false, true] {
        let lab = Lab::of(old);
        lab.edit("fw: { profile: small,", "fw: { profile: small, disks: [a.qcow2],");
        lab.apply().ends(0);
        assert!(lab.take_changes().contains(&"vm config disk a.qcow2".to_owned()));
    }
}
