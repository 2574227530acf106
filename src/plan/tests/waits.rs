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
