//! `wait_for`: gates between VMs and what depends on them.

use super::*;

const LAB: &str = r#"
experiment: lab
vlans: { lan: {} }
vms:
  "web[0-2]": { memory: 64, networks: [lan], depends_on: [db, queue] }
  db: { memory: 64, networks: [lan], wait_for: { ping: 10.0.0.5, port: "10.0.0.5:5432", timeout: 5m } }
  queue: { memory: 64, networks: [lan], wait_for: { cc: true } }
  "node[0-3]": { memory: 64, networks: [lan], wait_for: { cc: true, command: "shell test -d ready", timeout: 30 } }
taps:
  mgmt: { vlan: lan, ip: 10.0.0.254/24 }
"#;

/// The same with a raw command.
fn with_command() -> File {
    file(&format!("{LAB}commands:\n  seed: {{ create: shell mkdir seed, depends_on: db }}\n"))
}

const PING: &str = "shell ping -n -c 1 -W 1 10.0.0.5";
const PORT: &str = "shell timeout 2 bash -c \"exec 3<>/dev/tcp/10.0.0.5/5432\"";

fn step<'p>(plan: &'p Plan, command: &str) -> &'p Step {
    let wanted = format!("namespace lab {command}");
    let found = plan.steps.iter().find(|step| step.command == wanted);
    found.unwrap_or_else(|| panic!("no step `{wanted}`:\n{}", text(plan)))
}

/// Whether a step comes after another, however many are between.
fn follows(plan: &Plan, step: &Step, other: &Step) -> bool {
    step.needs.iter().any(|id| *id == other.id || follows(plan, &plan.steps[id - 1], other))
}

#[test]
fn what_depends_on_a_vm_needs_its_gates() {
    let (mm, lab) = (Minimega::default(), with_command());
    let plan = planned(&mm, &lab);
    let (ping, port) = (step(&plan, PING), step(&plan, PORT));
    assert_eq!(ping.expect, Expect::Until { holds: Holds::Success, timeout: 300 });
    let launch = step(&plan, "vm launch kvm web[0-2]");
    let seed = step(&plan, "shell mkdir seed");
    for gate in [ping, port] {
        assert!(follows(&plan, gate, step(&plan, "vm start db,node[0-3],queue")), "{}", text(&plan));
        assert!(follows(&plan, launch, gate) && follows(&plan, seed, gate), "{}", text(&plan));
        assert_eq!(gate.undo, Undo::Nothing);
    }
    let asks: Vec<&Step> = plan.steps.iter().filter(|s| s.command == "namespace lab vm info").collect();
    let nodes = Holds::Connected((0..4).map(|i| format!("node{i}")).collect());
    let queue = Holds::Connected(vec!["queue".to_owned()]);
    let wanted = [(queue, 120), (nodes, 30)];
    for (holds, timeout) in wanted {
        let expect = Expect::Until { holds, timeout };
        assert_eq!(asks.iter().filter(|step| step.expect == expect).count(), 1, "VMs that wait alike share a gate");
    }
    assert_eq!(asks.len(), 2);
    let own = step(&plan, "shell test -d ready");
    assert_eq!((own.serves.len(), &own.expect), (4, &Expect::Until { holds: Holds::Success, timeout: 30 }));
    let shown = text(&plan);
    assert!(
        shown.contains(&format!("# asked until there is no error, for at most 5m\nnamespace lab {PING}")),
        "{shown}"
    );
    assert!(shown.contains("# asked until cc is connected to node[0-3], for at most 30s"), "{shown}");
}

#[test]
fn nothing_to_do_asks_nothing_and_what_is_added_waits_for_what_runs() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    converge(&mm, &lab);
    assert!(planned(&mm, &lab).is_empty());
    // The wait itself is no part of the VM.
    assert!(planned(&mm, &file(&LAB.replace("timeout: 5m", "timeout: 6m"))).is_empty());
    mm.by_hand("namespace lab vm kill web1");
    mm.by_hand("namespace lab vm flush web1");
    let plan = planned(&mm, &lab);
    let launch = step(&plan, "vm launch kvm web1");
    assert!(follows(&plan, launch, step(&plan, PING)) && follows(&plan, launch, step(&plan, PORT)), "{}", text(&plan));
    carry_out(&mm, &plan);
    // A VM that does not run cannot be asked; starting it again asks.
    mm.by_hand("namespace lab vm kill db");
    let plan = planned(&mm, &lab);
    assert!(follows(&plan, step(&plan, PING), step(&plan, "vm start db")), "{}", text(&plan));
}

#[test]
fn raw_commands_wait_for_what_runs() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    converge(&mm, &lab);
    let plan = planned(&mm, &with_command());
    assert!(follows(&plan, step(&plan, "shell mkdir seed"), step(&plan, PING)), "{}", text(&plan));
}

#[test]
fn a_saved_plan_keeps_its_gates() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let plan = planned(&mm, &lab);
    let text = saved::write(&plan, std::path::Path::new("/run/megaform/minimega"), &[]);
    let read = saved::read(&text).unwrap();
    let expects = |plan: &Plan| plan.steps.iter().map(|step| step.expect.clone()).collect::<Vec<_>>();
    assert_eq!(expects(&read.plan), expects(&plan));
}

const TEXTS: &str = r#"
experiment: lab
profiles:
  linux: { memory: 64, serial_ports: 2, wait_for: { serial: "login:", timeout: 5m } }
vms:
  "web[0-2]": { profile: linux }
  db:
    profile: linux
    wait_for: { serial: ["login:", { port: 1, pattern: "^ready \\$HOME \"x\"$" }], timeout: 5m }
  app: { memory: 64, depends_on: ["web[0-2]", db] }
"#;

fn megaform() -> Minimega {
    let mm = Minimega::default();
    mm.0.lock().unwrap().network.megaform = true;
    mm
}

#[test]
fn vms_that_wait_for_the_same_text_share_a_gate() {
    let (mm, lab) = (megaform(), file(TEXTS));
    let plan = networks::learned(&mm, &lab, &Advice::default(), false).unwrap();
    // The wait is no part of what VMs are launched from, so that they start together.
    let all = step(&plan, "vm serial db,web[0-2] 0 contains login:");
    let ready = step(&plan, r#"vm serial db 1 matches "(?:)^ready \\x24HOME \"x\"$""#);
    for gate in [all, ready] {
        assert!(follows(&plan, gate, step(&plan, "vm start db,web[0-2]")), "{}", text(&plan));
        assert!(follows(&plan, step(&plan, "vm launch kvm app"), gate), "{}", text(&plan));
        assert_eq!(
            (&gate.expect, &gate.undo),
            (&Expect::Until { holds: Holds::Success, timeout: 300 }, &Undo::Nothing)
        );
    }
    assert_eq!((all.serves.len(), ready.serves.len()), (4, 1));
    let words: Vec<String> =
        crate::language::tokenize(&ready.command).unwrap().into_iter().map(|word| word.text).collect();
    let sought = crate::language::serial::Sought::parse(&words[6], &words[7]).unwrap();
    assert_eq!(sought.finder().find("x\nready $HOME \"x\"\n"), Some(2));
    carry_out(&mm, &plan);
    let again = networks::learned(&mm, &lab, &Advice::default(), false).unwrap();
    assert!(again.is_empty(), "{}", text(&again));
    assert!(again.learn.is_empty(), "nothing is asked, so that the target is not asked for its help");
}

#[test]
fn a_vm_that_is_never_ready_stops_only_what_depends_on_it() {
    let (mm, lab) = (
        megaform(),
        file(
            r#"
experiment: lab
vms:
  "db[0-4]": { memory: 64, serial_ports: 1, wait_for: { serial: ready } }
  "web[0-1]": { memory: 64, depends_on: ["db0", "db1", "db2"] }
  app: { memory: 64, depends_on: db2 }
commands:
  seed: { create: shell mkdir seed, depends_on: "db[3]" }
"#,
        ),
    );
    let plan = networks::learned(&mm, &lab, &Advice::default(), false).unwrap();
    let gate = |vms: &str| step(&plan, &format!("vm serial {vms} 0 contains ready"));
    let (both, two, three, four) = (gate("db[0-1]"), gate("db2"), gate("db3"), gate("db4"));
    for (dependent, gates) in
        [("vm launch kvm web[0-1]", &[both, two][..]), ("vm launch kvm app", &[two]), ("shell mkdir seed", &[three])]
    {
        for gate in [both, two, three, four] {
            let needs = follows(&plan, step(&plan, dependent), gate);
            assert_eq!(needs, gates.iter().any(|g| g.id == gate.id), "{dependent}: {}\n{}", gate.command, text(&plan));
        }
    }
}

#[test]
fn what_is_added_asks_those_that_run_together() {
    let (mm, lab) = (megaform(), file(TEXTS));
    carry_out(&mm, &networks::learned(&mm, &lab, &Advice::default(), false).unwrap());
    mm.by_hand("namespace lab vm kill app");
    mm.by_hand("namespace lab vm flush app");
    let plan = networks::learned(&mm, &lab, &Advice::default(), false).unwrap();
    let gate = step(&plan, "vm serial db,web[0-2] 0 contains login:");
    assert!(gate.needs.is_empty() && follows(&plan, step(&plan, "vm launch kvm app"), gate), "{}", text(&plan));
    assert_eq!(plan.steps.iter().filter(|step| step.command.contains("vm serial")).count(), 2, "{}", text(&plan));
    carry_out(&mm, &plan);
    // One that is launched anew is asked again, and only after its start.
    let larger = TEXTS.replace("    profile: linux\n", "    profile: linux\n    memory: 65\n");
    let plan = networks::learned(&mm, &file(&larger), &Advice::default(), false).unwrap();
    let gate = step(&plan, "vm serial db 0 contains login:");
    assert!(follows(&plan, gate, step(&plan, "vm start db")), "{}", text(&plan));
}

#[test]
fn a_target_that_cannot_be_asked_for_a_text_is_refused_at_its_place() {
    let lab = file(TEXTS);
    let Err(PlanError::Blocked { problems }) = networks::learned(&Minimega::default(), &lab, &Advice::default(), false)
    else {
        panic!("it was planned")
    };
    let at = |problem: &Diagnostic| {
        let span = problem.span.unwrap();
        lab.sources.text(span.source)[span.start..span.end].to_owned()
    };
    let found: Vec<(&str, String, &str)> = problems.iter().map(|p| (p.code, at(p), p.message.as_str())).collect();
    let lacks = |vm: &str| format!("vm.{vm} takes `vm serial … contains`, which the target does not have");
    let (db, web) = (lacks("db"), lacks("web0"));
    let pattern = r#"{ port: 1, pattern: "^ready \\$HOME \"x\"$" }"#;
    assert_eq!(
        found.iter().map(|(code, at, message)| (*code, at.as_str(), *message)).collect::<Vec<_>>(),
        [
            ("target-lacks", r#""login:""#, &*db),
            ("target-lacks", pattern, &*db),
            ("target-lacks", r#""login:""#, &*web),
        ]
    );
}

#[test]
fn a_destroy_asks_for_no_text() {
    let (mm, lab) = (megaform(), file(TEXTS));
    carry_out(&mm, &networks::learned(&mm, &lab, &Advice::default(), false).unwrap());
    let plan = planned_destroy(&mm, &lab, Advice::default());
    assert!(!plan.learn.contains("vm serial") && !text(&plan).contains("vm serial"), "{}", text(&plan));
}
