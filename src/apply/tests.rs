use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::journal::Journal;
use super::*;
use crate::plan::Advice;
use crate::plan::tests::minimega::Minimega;
use crate::plan::tests::{File, file, live, options, planned, planned_destroy};

mod lost;

const LAB: &str = r#"
experiment: lab
vlans: { lan: {} }
vms:
  "web[0-3]": { memory: 64, networks: [lan] }
  db: { memory: 128, networks: [lan] }
  app: { memory: 256, depends_on: [db] }
taps:
  t0: { vlan: lan, ip: 10.0.0.1/24 }
"#;

fn run(mm: &Minimega, plan: &Plan) -> (Outcome, Vec<Event>) {
    let mut events = Vec::new();
    let outcome = apply(plan, &|| Ok(Box::new(mm.clone())), None, &Interrupt::default(), &mut |e| events.push(e));
    (outcome, events)
}

fn check_again(mm: &Minimega, lab: &File) -> Plan {
    let advice = Advice::default();
    verify(&lab.experiment, &lab.graph, &options(lab, &advice), &|| Ok(Box::new(mm.clone())), Duration::from_secs(30))
        .unwrap()
}

#[test]
fn up_and_down() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let plan = planned(&mm, &lab);
    let (outcome, events) = run(&mm, &plan);
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(events.len(), 2 * plan.steps.len());
    assert!(check_again(&mm, &lab).is_empty());
    // Every command was sent once, and after what it needs.
    let log = mm.take_log();
    assert_eq!(log.len(), plan.steps.len());
    let position = |id: usize| log.iter().position(|c| *c == plan.steps[id - 1].command).unwrap();
    for step in plan.steps.iter().filter(|s| s.command.contains("start") || s.command.contains("launch")) {
        assert!(step.needs.iter().all(|n| position(*n) < position(step.id)), "{log:#?}");
    }
    let (outcome, _) = run(&mm, &planned_destroy(&mm, &lab, Advice::default()));
    assert!(outcome.is_complete());
    assert!(mm.0.lock().unwrap().namespaces.is_empty());
}

#[test]
fn a_failure_stops_what_needs_it_and_nothing_else() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    mm.0.lock().unwrap().broken.insert("db".into(), "qemu: no such kernel".into());
    let plan = planned(&mm, &lab);
    let (outcome, _) = run(&mm, &plan);
    assert_eq!(outcome.failed(), 1);
    let error = outcome.ends.iter().find_map(|e| if let End::Failed { error } = e { Some(error) } else { None });
    assert_eq!(error.unwrap(), "db is error: qemu: no such kernel");
    assert!(outcome.skipped() > 0 && outcome.done() > 0);
    let vms = live(&mm, &lab).vms;
    assert!(!vms.contains_key("app"), "it depends on db");
    assert!((0..4).all(|i| vms[&format!("web{i}")].state == crate::live::VmState::Running));
    // The cause removed, the next apply converges.
    mm.0.lock().unwrap().broken.clear();
    assert!(run(&mm, &planned(&mm, &lab)).0.is_complete());
    assert!(check_again(&mm, &lab).is_empty());
}

#[test]
fn a_namespace_that_begins_to_queue_meanwhile_is_no_success() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let plan = planned(&mm, &lab);
    mm.by_hand("namespace lab ns queueing true");
    let (outcome, _) = run(&mm, &plan);
    assert!(!outcome.is_complete());
    let error = outcome.ends.iter().find_map(|e| if let End::Failed { error } = e { Some(error) } else { None });
    let error = error.unwrap();
    assert!(error.contains("is missing; namespace lab queues launches: `namespace lab ns flush`"), "{error}");
    assert!(live(&mm, &lab).vms.is_empty());
}

/// Configures slowly, so that whatever may run beside it does.
struct Slow(Minimega);

impl Transport for Slow {
    fn call(&mut self, command: &str) -> Result<Vec<crate::wire::Response>, WireError> {
        if command.contains(" vm config") {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.call(command)
    }
}

#[test]
fn what_is_skipped_does_not_let_others_into_a_configuration_that_is_being_made() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    // `app` is skipped at once, while `web` is still to be configured; only then may the configuration be cleared.
    mm.0.lock().unwrap().broken.insert("db".into(), "no memory".into());
    let plan = planned(&mm, &lab);
    apply(&plan, &|| Ok(Box::new(Slow(mm.clone()))), None, &Interrupt::default(), &mut |_| {});
    let log = mm.take_log();
    let vm: Vec<&str> = log
        .iter()
        .filter_map(|c| c.strip_prefix("namespace lab "))
        .filter(|c| c.contains("vm config") || c.starts_with("vm launch"))
        .collect();
    let (first, last) = (vm.iter().position(|c| c.ends_with("web[0-3]")).unwrap(), vm.len() - 1);
    assert_eq!(vm[last], "clear vm config");
    assert_eq!(vm.iter().filter(|c| **c == "clear vm config").count(), 3, "{vm:#?}");
    assert_eq!(first, last - 1, "{vm:#?}");
    assert!(live(&mm, &lab).vms.values().all(|vm| vm.tags.contains_key("megaform.experiment")));
}

#[test]
fn one_bad_vm_of_a_group_does_not_keep_the_others_down() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    mm.0.lock().unwrap().broken.insert("web1".into(), "no memory".into());
    let (outcome, _) = run(&mm, &planned(&mm, &lab));
    assert!(!outcome.is_complete());
    assert_eq!(outcome.skipped(), 0, "{outcome:?}");
    let vms = live(&mm, &lab).vms;
    for (name, vm) in &vms {
        let state = if name == "web1" { crate::live::VmState::Error } else { crate::live::VmState::Running };
        assert_eq!(vm.state, state, "{name}");
    }
    assert_eq!(vms.len(), 6);
}

#[test]
fn a_lost_answer_is_looked_up_and_never_sent_again() {
    for (text, carried_out) in [("vm launch", true), ("vm launch", false), ("tap create", true), ("vm start", false)] {
        let (mm, lab) = (Minimega::default(), file(LAB));
        mm.0.lock().unwrap().drop_at = Some((text.to_owned(), carried_out));
        let plan = planned(&mm, &lab);
        let (outcome, _) = run(&mm, &plan);
        let log = mm.take_log();
        for step in plan.steps.iter().filter(|s| s.command.contains(text)) {
            assert!(log.iter().filter(|c| **c == step.command).count() <= 1, "{text}: {log:#?}");
        }
        if text == "vm launch" && carried_out {
            assert!(outcome.is_complete(), "what was launched is seen: {outcome:?}");
        } else {
            assert_eq!(outcome.ends.iter().filter(|e| matches!(e, End::Unknown { .. })).count(), 1, "{text}");
        }
        run(&mm, &planned(&mm, &lab));
        assert!(check_again(&mm, &lab).is_empty(), "{text} {carried_out}");
    }
}

#[test]
fn killed_between_any_two_steps_the_next_apply_converges() {
    let lab = file(LAB);
    let steps = planned(&Minimega::default(), &lab).steps.len();
    for after in 0..steps {
        let mm = Minimega::default();
        // A process that dies after some steps: nothing is sent any more, in whatever order they ran.
        let left = Mutex::new(after);
        let connect = || -> Result<Box<dyn Transport + Send>, WireError> {
            let mut left = left.lock().unwrap();
            if *left == 0 {
                return Err(crate::plan::tests::minimega::lost_connection());
            }
            *left -= 1;
            Ok(Box::new(Once(mm.clone(), false)))
        };
        let plan = planned(&mm, &lab);
        apply(&plan, &connect, None, &Interrupt::default(), &mut |_| {});
        let (outcome, _) = run(&mm, &planned(&mm, &lab));
        assert!(outcome.is_complete(), "killed after {after}: {outcome:?}");
        assert!(check_again(&mm, &lab).is_empty());
        assert_eq!(live(&mm, &lab).vms.len(), 6);
    }
}

/// A connection that carries one command that changes something, and then is lost.
struct Once(Minimega, bool);

impl Transport for Once {
    fn call(&mut self, command: &str) -> Result<Vec<crate::wire::Response>, WireError> {
        let looks = command == "namespace" || [" vm info", " vlans", " tap"].iter().any(|e| command.ends_with(e));
        if !looks && std::mem::replace(&mut self.1, true) {
            return Err(crate::plan::tests::minimega::lost_connection());
        }
        self.0.call(command)
    }
}

/// Somebody interrupts while the first launch runs.
struct Interrupting {
    mm: Minimega,
    interrupt: Interrupt,
}

impl Transport for Interrupting {
    fn call(&mut self, command: &str) -> Result<Vec<crate::wire::Response>, WireError> {
        if command.contains("vm launch") {
            self.interrupt.0.store(true, Ordering::SeqCst);
        }
        self.mm.call(command)
    }
}

#[test]
fn an_interruption_ends_what_runs_and_starts_nothing_new() {
    let (mm, lab) = (Minimega::default(), file(LAB));
    let plan = planned(&mm, &lab);
    let interrupt = Interrupt::default();
    let mut events = Vec::new();
    let connect = || -> Result<Box<dyn Transport + Send>, WireError> {
        Ok(Box::new(Interrupting { mm: mm.clone(), interrupt: interrupt.clone() }))
    };
    let outcome = apply(&plan, &connect, None, &interrupt, &mut |event| events.push(event));
    assert!(events.contains(&Event::Draining));
    assert_eq!(outcome.failed(), 0);
    let log = mm.take_log();
    assert_eq!(log.iter().filter(|c| c.contains("vm launch")).count(), 1, "{log:#?}");
    assert!(!log.iter().any(|c| c.contains("vm start")), "{log:#?}");
    // Nothing is left in the configuration for the next VM that somebody launches by hand.
    assert_eq!(log.last().map(String::as_str), Some("namespace lab clear vm config"));
    assert!(run(&mm, &planned(&mm, &lab)).0.is_complete());
    assert!(check_again(&mm, &lab).is_empty());
}

#[test]
fn the_journal_has_every_step_before_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("minimega");
    let (mm, lab) = (Minimega::default(), file(LAB));
    let name = &lab.experiment.name.value;
    let journal = Journal::open(&socket, name).unwrap();
    let plan = planned(&mm, &lab);
    apply(&plan, &|| Ok(Box::new(mm.clone())), Some(&journal), &Interrupt::default(), &mut |_| {});
    let text = std::fs::read_to_string(journal::path(&socket, name)).unwrap();
    assert_eq!(text.matches("\"event\":\"started\"").count(), plan.steps.len());
    assert_eq!(text.matches("\"event\":\"done\"").count(), plan.steps.len());
    let advice = journal::advice(&socket, name).unwrap();
    assert_eq!(advice.taps["t0"].address.as_deref(), Some("10.0.0.1/24"));
}

/// Whether it was carried out or not: it is reported, and the next plan says why it sends the line again.
#[test]
fn a_raw_command_whose_answer_was_lost_is_not_sent_again_by_the_same_plan() {
    let text = LAB.replace(
        "taps:",
        "commands:\n  raw: { create: [vm tag web0 a b, vm tag web0 role x, vm tag web0 c d], destroy: clear vm tag web0 role }\ntaps:",
    );
    let lab = file(&text);
    let name = &lab.experiment.name.value;
    for carried_out in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("minimega");
        let mm = Minimega::default();
        let planned = || {
            let options = options(&lab, &journal::advice(&socket, name).unwrap());
            replan(&lab.experiment, &lab.graph, &options, &|| Ok(Box::new(mm.clone()))).unwrap()
        };
        let run = |plan: &Plan| {
            let journal = Journal::open(&socket, name).unwrap();
            apply(plan, &|| Ok(Box::new(mm.clone())), Some(&journal), &Interrupt::default(), &mut |_| {})
        };
        mm.0.lock().unwrap().drop_at = Some((" role x".into(), carried_out));
        let outcome = run(&planned());
        assert_eq!((outcome.failed(), outcome.skipped()), (1, 1), "{outcome:?}");
        assert!(outcome.ends.iter().any(|end| matches!(end, End::Unknown { .. })), "{outcome:?}");
        assert_eq!(mm.take_log().iter().filter(|c| c.contains("role x")).count(), 1);
        let next = planned();
        assert_eq!(next.changes[0].reasons[0].field, "create[1]");
        assert_eq!(next.changes[0].reasons[0].old.as_deref(), Some("sent, and how it ended is not known"));
        assert!(run(&next).is_complete());
        assert_eq!(mm.take_log(), ["namespace lab vm tag web0 role x", "namespace lab vm tag web0 c d"]);
        assert!(planned().is_empty());
    }
}

/// A plan that knows the tap of the random experiments to be ours.
fn ours(mm: &Minimega, file: &File) -> Plan {
    let taps = std::collections::BTreeMap::from([("t0".to_owned(), crate::plan::TapAdvice::default())]);
    let options = options(file, &Advice { taps, ..Advice::default() });
    plan_on(&mut mm.clone(), &file.experiment, &file.graph, &mut live(mm, file), &options).unwrap()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 120, ..Default::default() })]

    /// Whatever step of whatever plan fails: all that can be taken back is, and the rest is named.
    #[test]
    fn a_rollback_leaves_only_what_cannot_be_taken_back(
        a in crate::plan::tests::properties::experiment(),
        b in crate::plan::tests::properties::experiment(),
        at in 0usize..40,
    ) {
        let mm = Minimega::default();
        mm.0.lock().unwrap().shows_addresses = true;
        let (a, b) = (file(&a), file(&b));
        run(&mm, &ours(&mm, &a));
        let plan = ours(&mm, &b);
        if plan.steps.is_empty() {
            return Ok(());
        }
        let failing = &plan.steps[at % plan.steps.len()];
        mm.0.lock().unwrap().fail_at = Some(failing.command.clone());
        let (outcome, _) = run(&mm, &plan);
        mm.0.lock().unwrap().fail_at = None;
        let connect = || -> Result<Box<dyn Transport + Send>, WireError> { Ok(Box::new(mm.clone())) };
        let said = rollback(&plan, &outcome, &connect, None, &mut |_| {});
        let errors: Vec<_> = said.commands.iter().filter(|c| c.error.is_some()).collect();
        // An alias that a first use made stays bound, and may have taken the tag that another had. That is an error of the
        // rollback, and what hangs on it is named.
        let taken = |c: &&Undone| c.command.contains("vlans add") && c.error.as_deref() == Some("vm: VLAN already in use");
        if errors.iter().any(taken) {
            proptest::prop_assert!(!said.left.unwrap().is_empty());
            return Ok(());
        }
        proptest::prop_assert!(errors.is_empty(), "{errors:?}");
        let gone = |change: usize| {
            let steps = plan.steps.iter().zip(&outcome.ends);
            steps.filter(|(s, _)| s.serves.contains(&change)).any(|(s, end)| {
                *end == End::Done && s.undo == crate::plan::Undo::Impossible
            })
        };
        let left = said.left.unwrap();
        // A guest that never ran and was started has run, whatever is done then.
        let ran = |i: usize| plan.changes[i].reasons.iter().any(|r| r.old.as_deref() == Some("building"));
        let unexpected: Vec<_> = left.iter().filter(|i| !gone(**i) && !ran(**i)).map(|i| &plan.changes[*i]).collect();
        proptest::prop_assert!(unexpected.is_empty(), "{unexpected:?}\n{:?}\n{outcome:?}", said.commands);
        // And the way to the file is open.
        run(&mm, &ours(&mm, &b));
        proptest::prop_assert!(ours(&mm, &b).is_empty());
    }
}

/// A file with some captures of two NICs and a bridge.
fn captures() -> impl proptest::prelude::Strategy<Value = String> {
    use proptest::prelude::*;
    const ALL: [&str; 7] = [
        "a: { vm: x, file: /a.pcap }",
        "b: { vm: x, interface: 1, file: /b.pcap, snaplen: 96 }",
        "c: { vm: x, file: /c.pcap, filter: icmp }",
        "d: { vm: y, file: /d.pcap, snaplen: 96 }",
        "e: { vm: y, file: /e.pcap }",
        "f: { bridge: mega_bridge, file: /f.pcap, snaplen: 128 }",
        "g: { bridge: mega_bridge, file: /g.pcap }",
    ];
    (proptest::sample::subsequence(ALL.to_vec(), 0..=7), any::<bool>()).prop_map(|(all, more)| {
        let memory = if more { ", memory: 96" } else { "" };
        let vms = format!("vms:\n  x: {{ networks: [v, v]{memory} }}\n  y: {{ networks: [v] }}\n");
        let captures = format!("captures: {{ {} }}\n", all.join(", "));
        format!("experiment: lab\nvlans: {{ v: {{}} }}\n{vms}{captures}")
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 120, ..Default::default() })]

    /// minimega stops all captures of a VM at once. Whichever step fails, those from before run again, with their settings.
    #[test]
    fn a_rollback_starts_captures_again_that_it_stops(a in captures(), b in captures(), at in 0usize..40) {
        let mm = Minimega::default();
        let (a, b) = (file(&a), file(&b));
        let mut advice = Advice::default();
        let first = crate::plan::tests::networks::learned(&mm, &a, &advice, false).unwrap();
        run(&mm, &first);
        crate::plan::tests::properties::remember(&mut advice, &first);
        let all = || {
            let state = mm.0.lock().unwrap();
            let mut captures: Vec<String> = state.network.captures.iter().map(|c| format!("{c:?}")).collect();
            captures.sort();
            (captures, format!("{:?}", state.network.settings.get("lab").map(|s| (s.snaplen, s.filter.clone()))))
        };
        let before = all();
        let plan = crate::plan::tests::networks::learned(&mm, &b, &advice, false).unwrap();
        if plan.steps.is_empty() {
            return Ok(());
        }
        // A VM that is gone is not made again, and its captures are not.
        let kept = |capture: &String| plan.steps.iter().all(|step| !step.command.contains("vm flush") || !capture.contains("\"x\""));
        let failing = &plan.steps[at % plan.steps.len()];
        mm.0.lock().unwrap().fail_at = Some(failing.command.clone());
        let (outcome, _) = run(&mm, &plan);
        mm.0.lock().unwrap().fail_at = None;
        let impossible = |step: &&crate::plan::Step| step.undo == crate::plan::Undo::Impossible && step.command.contains("capture");
        proptest::prop_assert!(!plan.steps.iter().any(|step| impossible(&step)), "{:#?}", plan.steps);
        // Steps run side by side: what stops all of a VM comes before each that is started there.
        for of in ["vm x", "vm y", "bridge mega_bridge"] {
            let stops = plan.steps.iter().filter(|s| s.command.ends_with(&format!(" capture pcap delete {of}")));
            for stop in stops {
                let start = format!(" capture pcap {of} ");
                let mut starts = plan.steps.iter().filter(|s| s.command.contains(&start));
                proptest::prop_assert!(starts.all(|s| s.needs.contains(&stop.id)), "{:#?}", plan.steps);
            }
        }
        let connect = || -> Result<Box<dyn Transport + Send>, WireError> { Ok(Box::new(mm.clone())) };
        let said = rollback(&plan, &outcome, &connect, None, &mut |_| {});
        let after = all();
        let [was, is] = [&before.0, &after.0].map(|all| all.iter().filter(|c| kept(c)).collect::<Vec<_>>());
        proptest::prop_assert_eq!(was, is, "{:#?}\n{:?}", said.commands, outcome);
        proptest::prop_assert!(after.1 == before.1 || before.1 == "None", "{:#?}", said.commands);
    }
}

const WAITING: &str = r#"
experiment: lab
vlans: { lan: {} }
vms:
  db: { memory: 64, networks: [lan], wait_for: { ping: 10.0.0.5, timeout: 1 } }
  app: { memory: 64, networks: [lan], depends_on: [db] }
  other: { memory: 64, networks: [lan] }
"#;

/// Answers a ping with an error until it was asked so often.
struct Booting {
    mm: Minimega,
    asked: Arc<AtomicUsize>,
    answers: usize,
}

impl Transport for Booting {
    fn call(&mut self, command: &str) -> Result<Vec<crate::wire::Response>, WireError> {
        if !command.contains("ping") {
            return self.mm.call(command);
        }
        if self.asked.fetch_add(1, Ordering::SeqCst) + 1 < self.answers {
            return self.mm.call("namespace lab shell false");
        }
        self.mm.call("namespace lab vm info")
    }
}

fn wait_for_db(answers: usize, interrupt: &Interrupt) -> (Minimega, Outcome, usize, Vec<String>) {
    let (mm, lab) = (Minimega::default(), file(WAITING));
    let plan = planned(&mm, &lab);
    let asked = Arc::new(AtomicUsize::new(0));
    let connect = || -> Result<Box<dyn Transport + Send>, WireError> {
        Ok(Box::new(Booting { mm: mm.clone(), asked: asked.clone(), answers }))
    };
    let outcome = apply(&plan, &connect, None, interrupt, &mut |_| {});
    let errors =
        outcome.ends.iter().filter_map(|e| if let End::Failed { error } = e { Some(error.clone()) } else { None });
    let errors = errors.collect();
    (mm, outcome, asked.load(Ordering::SeqCst), errors)
}

#[test]
fn a_gate_asks_until_the_answer_is_right() {
    let (mm, outcome, asked, _) = wait_for_db(3, &Interrupt::default());
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(asked, 3);
    assert_eq!(live(&mm, &file(WAITING)).vms.len(), 3);
}

#[test]
fn a_gate_that_stays_shut_stops_what_depends_on_it_and_nothing_else() {
    let (mm, outcome, asked, errors) = wait_for_db(usize::MAX, &Interrupt::default());
    assert!(asked > 1);
    assert_eq!((outcome.failed(), errors.len()), (1, 1));
    assert!(errors[0].starts_with("not so within 1s; the last answer was: "), "{errors:?}");
    let vms = live(&mm, &file(WAITING)).vms;
    assert_eq!(vms.keys().collect::<Vec<_>>(), ["db", "other"]);
}

#[test]
fn an_interruption_does_not_wait_for_a_gate() {
    let interrupt = Interrupt::default();
    interrupt.0.store(true, Ordering::SeqCst);
    let (mm, lab) = (Minimega::default(), file(&WAITING.replace("timeout: 1", "timeout: 1d")));
    let plan = planned(&mm, &lab);
    let gate = plan.steps.iter().find(|step| step.command.contains("ping")).unwrap();
    let crate::plan::Expect::Until { holds, .. } = &gate.expect else { panic!("{gate:?}") };
    let connect = || -> Result<Box<dyn Transport + Send>, WireError> {
        Ok(Box::new(Booting { mm: mm.clone(), asked: Arc::default(), answers: usize::MAX }))
    };
    let end = super::gate::wait(&plan, gate, holds, Duration::from_secs(86_400), &mut None, &connect, &interrupt);
    assert!(matches!(end, End::Failed { error } if error.starts_with("interrupted; ")));
}
