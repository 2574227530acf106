//! The hosts of a namespace, and the figure by which one is chosen.

use super::minimega::Minimega;
use super::properties::remember;
use super::*;

/// A mesh of a head and three others, with the experiment's namespace there or not.
fn mesh() -> Minimega {
    let mm = Minimega::default();
    let hosts = ["node1", "node2", "node3"].map(|host| (host.to_owned(), (8, 4096)));
    mm.0.lock().unwrap().mesh.extend(hosts);
    mm
}

fn lab(placement: &str, vms: &str) -> File {
    file(&format!("experiment: lab\n{placement}\nvms: {{ {vms} }}\n"))
}

/// Plan with what is remembered, having learned what the plan asks for.
fn plan_with(mm: &Minimega, file: &File, options: &Options<'_>) -> Result<Plan, Vec<Diagnostic>> {
    let mut seen = live(mm, file);
    crate::apply::plan_on(&mut mm.clone(), &file.experiment, &file.graph, &mut seen, options).map_err(|error| {
        let crate::apply::ReplanError::Plan(PlanError::Blocked { problems }) = error else { panic!("{error}") };
        problems
    })
}

/// Carry a file out and remember it; the commands.
fn go(mm: &Minimega, file: &File, advice: &mut Advice) -> Vec<String> {
    let plan = plan_with(mm, file, &options(file, advice)).unwrap();
    carry_out(mm, &plan);
    remember(advice, &plan);
    let again = plan_with(mm, file, &options(file, advice)).unwrap();
    assert!(again.is_empty(), "left to do:\n{}", text(&again));
    let prefix = "namespace lab ";
    plan.steps.iter().map(|s| s.command.strip_prefix(prefix).unwrap_or(&s.command).to_owned()).collect()
}

fn hosts(mm: &Minimega, space: &str) -> Option<Vec<String>> {
    mm.0.lock().unwrap().namespaces[space].hosts.clone()
}

fn problem(result: Result<Plan, Vec<Diagnostic>>) -> Diagnostic {
    let mut problems = result.map(|plan| text(&plan)).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn hosts_and_load_are_set_before_anything_is_launched() {
    let (mm, mut advice) = (mesh(), Advice::default());
    let one = lab("placement: { hosts: [node1, node2], load: memcommit }", "a: { schedule: node2 }, b: {}");
    let sent = go(&mm, &one, &mut advice);
    assert_eq!(sent[..3], ["ns del-hosts all", "ns add-hosts node[1-2]", "ns load memcommit"]);
    assert_eq!(hosts(&mm, "lab").unwrap(), ["node1", "node2"]);
    assert_eq!(mm.0.lock().unwrap().namespaces["lab"].vms["a"].host, "node2");
    // What the file does not say is left alone, and an edit changes what differs.
    let sent = go(&mm, &lab("placement: { hosts: [\"node[1-3]\"] }", "a: { schedule: node2 }, b: {}"), &mut advice);
    assert_eq!(sent, ["ns add-hosts node3", "ns load cpucommit"], "what leaves the file is what it was");
    let sent = go(&mm, &lab("", "a: { schedule: node2 }, b: {}"), &mut advice);
    assert_eq!(sent, [] as [&str; 0], "which hosts the new namespace had is not known");
    mm.by_hand("namespace lab ns load netcommit");
    assert_eq!(go(&mm, &lab("", "a: { schedule: node2 }, b: {}"), &mut advice), [] as [&str; 0]);
    // Everything goes with the namespace.
    let destroy = planned_destroy(&mm, &one, advice);
    assert!(!text(&destroy).contains("ns "), "{}", text(&destroy));
    carry_out(&mm, &destroy);
    assert!(mm.0.lock().unwrap().namespaces.is_empty());
}

#[test]
fn what_was_set_by_hand_is_drift_and_comes_back() {
    let (mm, mut advice) = (mesh(), Advice::default());
    mm.by_hand("namespace lab ns load netcommit");
    let one = lab("placement: { load: memcommit, hosts: [node1] }", "a: {}");
    go(&mm, &one, &mut advice);
    mm.by_hand("namespace lab ns load cpucommit");
    mm.by_hand("namespace lab ns add-hosts node3");
    let plan = plan_with(&mm, &one, &options(&one, &advice)).unwrap();
    assert_eq!(actions(&plan), ["≠ placement.hosts", "≠ placement.load"]);
    assert!(plan.changes.iter().all(|change| change.reasons.iter().all(|reason| reason.drift)));
    assert_eq!(go(&mm, &one, &mut advice), ["ns del-hosts node3", "ns load memcommit"]);
    // What it was before the first apply is what it becomes.
    let sent = go(&mm, &lab("", "a: {}"), &mut advice);
    assert_eq!(sent, ["ns add-hosts node[2-3]", "ns load netcommit"]);
    assert_eq!(go(&mm, &lab("", "a: {}"), &mut advice), [] as [&str; 0], "nothing is remembered any more");
}

#[test]
fn the_default_namespace_stays_and_gets_its_own_back() {
    let (mm, mut advice) = (mesh(), Advice::default());
    let file = file("experiment: minimega\nplacement: { hosts: [node2], load: memcommit }\nvms: { a: {} }\n");
    mm.by_hand("namespace minimega ns add-hosts node1");
    let plan = plan_with(&mm, &file, &options(&file, &advice)).unwrap();
    carry_out(&mm, &plan);
    remember(&mut advice, &plan);
    // A host with VMs of others is kept, because nobody would see them any more.
    let (other, mut known) = (mesh(), Advice::default());
    other.by_hand("namespace minimega ns del-hosts all");
    other.by_hand("namespace minimega ns add-hosts node1");
    let plan = plan_with(&other, &file, &options(&file, &known)).unwrap();
    carry_out(&other, &plan);
    remember(&mut known, &plan);
    other.by_hand("namespace minimega vm launch kvm theirs");
    let destroy = planned_destroy(&other, &file, known);
    let kept = |note: &String| note.contains("node2 stays a host of namespace minimega");
    assert!(destroy.notes.iter().any(kept), "{:?}", destroy.notes);
    carry_out(&other, &destroy);
    assert_eq!(hosts(&other, "minimega").unwrap(), ["node1", "node2"]);
    let destroy = planned_destroy(&mm, &file, advice);
    carry_out(&mm, &destroy);
    assert_eq!(hosts(&mm, "minimega").unwrap(), ["node1", "node2", "node3"]);
    assert_eq!(mm.0.lock().unwrap().namespaces["minimega"].load.as_deref(), Some("cpucommit"));
}

#[test]
fn a_host_with_vms_is_not_taken_out_under_them() {
    let (mm, mut advice) = (mesh(), Advice::default());
    let vms = "a: { schedule: node1 }, b: { schedule: node2 }";
    go(&mm, &lab("placement: { hosts: [node1, node2] }", vms), &mut advice);
    // The VM moves, because the file says so: it is flushed before its host goes.
    let moved = lab("placement: { hosts: [node1] }", "a: { schedule: node1 }, b: { schedule: node1 }");
    let sent = go(&mm, &moved, &mut advice);
    let at = |part: &str| sent.iter().position(|command| command.contains(part)).unwrap();
    assert!(
        at("vm flush b") < at("ns del-hosts node2") && at("ns del-hosts node2") < at("vm launch kvm b"),
        "{sent:?}"
    );
    // One that stays is in the way.
    let anywhere = lab("placement: { hosts: [node2] }", "a: {}, b: { schedule: node2 }");
    let go_on = lab("placement: { hosts: [node1, node2] }", "a: {}, b: { schedule: node2 }");
    go(&mm, &go_on, &mut advice);
    let found = problem(plan_with(&mm, &anywhere, &options(&anywhere, &advice)));
    assert_eq!(found.code, "host-in-use");
    assert!(found.message.contains("`node1` is to leave the hosts of namespace lab, and vm.a is on it"), "{found:?}");
    assert!(found.hint.as_ref().unwrap().contains("`--replace vm.a`"), "{found:?}");
    assert!(found.span.is_some());
    let replaced = Selection { replaces: super::selection::selectors(&["vm.a"]), ..Selection::default() };
    let plan = plan_with(&mm, &anywhere, &Options { selection: replaced, ..options(&anywhere, &advice) }).unwrap();
    carry_out(&mm, &plan);
    assert_eq!(mm.0.lock().unwrap().namespaces["lab"].vms["a"].host, "node2");
}

#[test]
fn hosts_that_nobody_reaches_are_refused_and_sizes_are_told() {
    let (mm, advice) = (mesh(), Advice::default());
    let unknown = lab("placement: { hosts: [node1, nodes2] }", "a: {}");
    let found = problem(plan_with(&mm, &unknown, &options(&unknown, &advice)));
    assert_eq!((found.code, found.message.as_str()), ("unknown-host", "the target reaches no host `nodes2`"));
    assert!(found.hint.as_ref().unwrap().starts_with("did you mean `node2`?"), "{found:?}");
    // Without hosts in the file, those of the namespace count.
    mm.by_hand("namespace lab ns del-hosts node3");
    let nowhere = lab("", "a: { schedule: node3 }");
    let found = problem(plan_with(&mm, &nowhere, &options(&nowhere, &advice)));
    assert_eq!(found.code, "schedule-host");
    assert_eq!(found.message, "vm.a is to be on `node3`, and the hosts of namespace lab are: node[1-2]");
    let large = lab(
        "placement: { hosts: [node1, node2] }",
        "a: { schedule: node1, memory: 5000 }, \"b[0-1]\": { memory: 3000, vcpus: 9 }",
    );
    let plan = plan_with(&mm, &large, &options(&large, &advice)).unwrap();
    assert_eq!(
        plan.notes,
        [
            "too-much-memory: the running VM that is to be on node1 has 5000 MB, and node1 has 4096 MB",
            "too-much-memory: the 3 running VMs have 11000 MB together, and node[1-2] have 8192 MB together",
            "too-many-cpus: 9 vcpus for vm.b[0-1], and no host that it can be on has more than 8 CPUs",
        ]
    );
}

#[test]
fn localhost_is_the_host_that_answers() {
    let (mm, mut advice) = (mesh(), Advice::default());
    let one = lab("placement: { hosts: [localhost, node1] }", "a: { schedule: vm }");
    assert_eq!(go(&mm, &one, &mut advice)[..2], ["ns del-hosts all", "ns add-hosts node1,vm"]);
    assert_eq!(hosts(&mm, "lab").unwrap(), ["node1", "vm"]);
}

#[test]
fn a_release_of_2018_takes_hosts_where_the_namespace_is_there() {
    let (mm, advice) = (mesh(), Advice::default());
    mm.0.lock().unwrap().network.old = true;
    let one = lab("placement: { hosts: [node1] }", "a: {}");
    let found = problem(plan_with(&mm, &one, &options(&one, &advice)));
    assert_eq!(found.code, "target-lacks");
    assert!(found.message.contains("placement.hosts takes `ns del-hosts all`"), "{found:?}");
    assert!(found.span.is_some());
    mm.by_hand("namespace lab ns queueing false");
    assert_eq!(go(&mm, &one, &mut Advice::default())[..1], ["ns del-hosts node[2-3]"]);
    let beside = lab("", "a: {}, b: { colocate: a }");
    let found = problem(plan_with(&mm, &beside, &options(&beside, &advice)));
    assert_eq!(found.code, "target-lacks");
    assert!(found.message.contains("vm.b takes `vm config colocate`"), "{found:?}");
}

#[test]
fn placement_is_chosen_like_other_objects_and_goes_with_the_vms_that_need_it() {
    let (mm, advice) = (mesh(), Advice::default());
    let one = lab("placement: { hosts: [node1], load: memcommit }", "a: {}, b: {}");
    let part = |targets: &[&str], excludes: &[&str]| {
        let selectors = super::selection::selectors;
        let selection =
            Selection { targets: selectors(targets), excludes: selectors(excludes), ..Selection::default() };
        actions(&plan_with(&mm, &one, &Options { selection, ..options(&one, &advice) }).unwrap())
    };
    assert_eq!(part(&["placement.load"], &[]), ["+ placement.load"]);
    assert_eq!(part(&["vm.a"], &[]), ["+ placement.hosts", "+ placement.load", "+ vm.a"]);
    assert_eq!(part(&[], &["placement.hosts"]), ["+ placement.load", "+ vm.a", "+ vm.b"]);
    assert_eq!(part(&["vm.a"], &["placement.load"]), ["+ placement.hosts", "+ vm.a"]);
}

const QUEUED: &str = "placement: { queueing: true }";

/// Two entries that launch together, and one that depends on a VM of them.
const VMS: &str =
    "\"a[0-1]\": { memory: 64 }, b: { memory: 96, colocate: a1, state: paused }, c: { memory: 64, depends_on: a0 }";

fn space(mm: &Minimega) -> super::minimega::Namespace {
    mm.0.lock().unwrap().namespaces.get("lab").cloned().unwrap_or_default()
}

/// Only what fills, launches or leaves the queue.
fn of_the_queue(sent: &[String]) -> Vec<&str> {
    let of = |command: &&str| {
        command.starts_with("ns ") || command.starts_with("vm launch") || command.starts_with("vm start")
    };
    sent.iter().map(String::as_str).filter(of).collect()
}

#[test]
fn launches_go_through_the_queue_once_for_each_level_of_dependencies() {
    let (mm, mut advice) = (Minimega::default(), Advice::default());
    let one = lab(QUEUED, VMS);
    let sent = go(&mm, &one, &mut advice);
    let round = ["ns queueing true", "vm launch kvm a[0-1]", "vm launch kvm b", "ns queue", "vm launch", "ns flush"];
    let second = ["ns queueing true", "vm launch kvm c", "ns queue", "vm launch", "ns flush", "ns queueing false"];
    let expected = [&round[..], &["ns queueing false", "vm start a[0-1]"], &second, &["vm start c"]].concat();
    assert_eq!(of_the_queue(&sent), expected);
    assert!(!space(&mm).queueing && space(&mm).queue.is_empty());
    assert_eq!(space(&mm).vms.len(), 4);
    assert!(advice.objects.is_empty(), "the setting is as it was: {:?}", advice.objects);
    // Whoever queues by himself goes on doing so.
    mm.by_hand("namespace lab ns queueing true");
    let more = lab(QUEUED, &format!("{VMS}, d: {{}}"));
    assert_eq!(
        of_the_queue(&go(&mm, &more, &mut advice)),
        ["vm launch kvm d", "ns queue", "vm launch", "ns flush", "vm start d"]
    );
    assert!(space(&mm).queueing);
    // Where the file says nothing, launches are not queued, and the setting comes back.
    let direct = lab("", &format!("{VMS}, d: {{}}, e: {{}}"));
    let plan = plan_with(&mm, &direct, &options(&direct, &advice)).unwrap();
    assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
    assert!(
        plan.notes[0].contains("namespace lab queues launches (`ns queueing`): that is turned off"),
        "{:?}",
        plan.notes
    );
    let sent = go(&mm, &direct, &mut advice);
    assert_eq!(of_the_queue(&sent), ["ns queueing false", "vm launch kvm e", "vm start e", "ns queueing true"]);
    assert!(space(&mm).queueing && advice.objects.is_empty());
    assert!(plan_with(&mm, &direct, &options(&direct, &advice)).unwrap().is_empty());
}

#[test]
fn what_others_queued_is_neither_launched_nor_dropped() {
    let (mm, advice) = (Minimega::default(), Advice::default());
    for command in ["ns queueing true", "vm launch kvm theirs[0-2]", "ns queueing false"] {
        mm.by_hand(&format!("namespace lab {command}"));
    }
    for placement in [QUEUED, "", "placement: { queueing: false }"] {
        let one = lab(placement, VMS);
        let found = problem(plan_with(&mm, &one, &options(&one, &advice)));
        assert_eq!(found.code, "queueing");
        let text = "launches that are not this experiment's wait in the queue of namespace lab: vm.theirs[0-2]";
        assert_eq!(found.message, text);
        assert!(found.hint.as_ref().unwrap().contains("`namespace lab ns flush` drops it"), "{found:?}");
    }
    // A plan that launches nothing has nothing to do with it.
    mm.by_hand("namespace lab ns flush");
    let one = lab(QUEUED, "a: {}");
    go(&mm, &one, &mut Advice::default());
    for command in ["ns queueing true", "vm launch kvm theirs", "ns queueing false"] {
        mm.by_hand(&format!("namespace lab {command}"));
    }
    assert!(plan_with(&mm, &one, &options(&one, &advice)).unwrap().is_empty());
    // Nor does a destroy drop it with the namespace.
    let destroy = planned_destroy(&mm, &one, advice);
    let kept = "namespace lab stays, because it holds what this experiment does not own: vm.theirs (queued)";
    assert!(destroy.notes.iter().any(|note| note == kept), "{:?}", destroy.notes);
    carry_out(&mm, &destroy);
    assert!(space(&mm).vms.is_empty());
    assert_eq!(space(&mm).queue.len(), 1);
}

/// A plan that is cut off after any step, with what the journal knows then and without it, and the plan after it.
#[test]
fn a_plan_that_is_cut_off_anywhere_in_the_queue_converges() {
    use crate::wire::Transport as _;
    for (placement, queueing) in [(QUEUED, false), (QUEUED, true), ("", true)] {
        let one = lab(placement, VMS);
        let start = || {
            let mm = Minimega::default();
            if queueing {
                mm.by_hand("namespace lab ns queueing true");
            }
            mm
        };
        let plan = plan_with(&start(), &one, &options(&one, &Advice::default())).unwrap();
        assert!(plan.steps.len() > 10);
        for (cut, journal) in (0..=plan.steps.len()).flat_map(|cut| [(cut, true), (cut, false)]) {
            let (mm, mut advice) = (start(), Advice::default());
            for step in &plan.steps[..cut] {
                mm.clone().call(&step.command).unwrap();
                advice.sent(&step.command, step.mark.as_ref());
                if let Some(mark) = step.mark.as_ref().filter(|_| step.id < cut) {
                    advice.answered(mark, super::super::advice::Answer::Done);
                }
            }
            if !journal {
                advice = Advice::default();
            }
            let next = plan_with(&mm, &one, &options(&one, &advice)).unwrap();
            carry_out(&mm, &next);
            remember(&mut advice, &next);
            let left = plan_with(&mm, &one, &options(&one, &advice)).unwrap();
            assert!(left.is_empty(), "after {cut}: {}", text(&left));
            let space = space(&mm);
            assert_eq!(space.vms.len(), 4, "after {cut}");
            assert!(space.queue.is_empty(), "after {cut}");
            if journal {
                assert_eq!(space.queueing, queueing, "after {cut}");
                assert!(advice.objects.is_empty(), "after {cut}: {:?}", advice.objects);
            }
        }
    }
}

/// Carry a plan out as `apply` does; whether everything was done.
fn applied(mm: &Minimega, plan: &Plan) -> (bool, crate::apply::Outcome) {
    let connect = || Ok(Box::new(mm.clone()) as Box<dyn crate::wire::Transport + Send>);
    let outcome = crate::apply::apply(plan, &connect, None, &crate::apply::Interrupt::default(), &mut |_| {});
    (outcome.is_complete(), outcome)
}

#[test]
fn an_answer_that_is_lost_in_the_queue_is_looked_for_and_nothing_is_sent_twice() {
    let one = lab(QUEUED, VMS);
    let plan = planned(&Minimega::default(), &one);
    let lossy = |part: &str| ["ns queueing", "vm launch", "ns flush", "ns queue"].iter().any(|p| part.contains(p));
    for step in plan.steps.iter().filter(|step| lossy(&step.command)) {
        for after in [false, true] {
            let mm = Minimega::default();
            mm.0.lock().unwrap().drop_at = Some((step.command.clone(), after));
            let (_, outcome) = applied(&mm, &plan);
            let log = mm.0.lock().unwrap().log.clone();
            // The setting and the launch of a round stand once for each round, and a question is asked again.
            let times = plan.steps.iter().filter(|other| other.command == step.command).count();
            let sent = log.iter().filter(|command| **command == step.command).count();
            assert!(sent <= times || step.command.ends_with("ns queue"), "{} was sent {sent} times", step.command);
            let next = plan_with(&mm, &one, &options(&one, &Advice::default())).unwrap();
            assert!(applied(&mm, &next).0, "{} {after}: {outcome:?}", step.command);
            let space = space(&mm);
            assert!(space.vms.len() == 4 && space.queue.is_empty(), "{} {after}", step.command);
        }
    }
}

#[test]
fn what_cannot_be_queued_or_placed_launches_nothing_of_its_round() {
    let one = lab(QUEUED, "a: {}, b: { memory: 64 }, c: { depends_on: a }");
    let mm = Minimega::default();
    let plan = planned(&mm, &one);
    mm.0.lock().unwrap().fail_at = Some("namespace lab vm launch kvm b".to_owned());
    let (_, outcome) = applied(&mm, &plan);
    assert_eq!(outcome.failed(), 1, "{outcome:?}");
    assert!(space(&mm).vms.is_empty() && space(&mm).queue.is_empty() && !space(&mm).queueing, "{:?}", space(&mm));
    mm.0.lock().unwrap().fail_at = None;
    assert!(applied(&mm, &planned(&mm, &one)).0);
    // The scheduler refuses: what was queued is dropped.
    let mm = Minimega::default();
    let beside = lab(QUEUED, "a: { colocate: theirs }, b: {}");
    let (_, outcome) = applied(&mm, &planned(&mm, &beside));
    let failed = outcome.ends.iter().find_map(|end| match end {
        crate::apply::End::Failed { error } => Some(error.clone()),
        _ => None,
    });
    assert_eq!(failed.unwrap(), "vm: VM colocated with unknown VM: `theirs`");
    assert!(space(&mm).vms.is_empty() && space(&mm).queue.is_empty() && !space(&mm).queueing);
}

#[test]
fn what_others_queue_meanwhile_stops_the_launch_and_stays() {
    let one = lab(QUEUED, "a: {}, b: { memory: 64 }");
    let mm = Minimega::default();
    let plan = planned(&mm, &one);
    for command in ["ns queueing true", "vm launch kvm theirs", "ns queueing false"] {
        mm.by_hand(&format!("namespace lab {command}"));
    }
    let (_, outcome) = applied(&mm, &plan);
    let errors: Vec<&String> = outcome
        .ends
        .iter()
        .filter_map(|end| match end {
            crate::apply::End::Failed { error } => Some(error),
            _ => None,
        })
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("not this experiment's and would be launched too: theirs"), "{errors:?}");
    assert!(
        errors[1].contains("a,b of this experiment and theirs of others are queued, and it drops all"),
        "{errors:?}"
    );
    assert!(space(&mm).vms.is_empty() && !space(&mm).queueing);
    assert_eq!(space(&mm).queue.len(), 3);
    let found = problem(plan_with(&mm, &one, &options(&one, &Advice::default())));
    assert!(found.message.ends_with("vm.theirs (and vm.a,b of this experiment)"), "{found:?}");
}

#[test]
fn a_rollback_takes_launches_out_of_the_queue_and_vms_away() {
    let one = lab(QUEUED, VMS);
    let plan = planned(&Minimega::default(), &one);
    for step in plan.steps.iter().filter(|step| step.command.contains("vm launch") || step.command.contains("vm start"))
    {
        let mm = Minimega::default();
        mm.0.lock().unwrap().fail_at = Some(step.command.clone());
        let (done, outcome) = applied(&mm, &plan);
        assert!(!done);
        mm.0.lock().unwrap().fail_at = None;
        let connect = || Ok(Box::new(mm.clone()) as Box<dyn crate::wire::Transport + Send>);
        let back = crate::apply::rollback(&plan, &outcome, &connect, None, &mut |_| {});
        assert!(back.commands.iter().all(|undone| undone.error.is_none()), "{:?}", back.commands);
        let space = space(&mm);
        assert!(space.vms.is_empty() && space.queue.is_empty() && !space.queueing, "{}", step.command);
    }
}

#[test]
fn ten_thousand_vms_of_ten_configurations_are_queued_with_few_commands() {
    let vms: Vec<String> = (0..10).map(|i| format!("\"web{i}[0-999]\": {{ memory: {} }}", 64 + i)).collect();
    let one = lab("placement: { queueing: true, hosts: [localhost], load: memcommit }", &vms.join(", "));
    let plan = plan(&one.experiment, &one.graph, &Live::absent(), &options(&one, &Advice::default())).unwrap();
    assert!(plan.steps.len() < 100, "{} commands", plan.steps.len());
    let text = saved::write(&plan, std::path::Path::new("/run/megaform/minimega"), &[]);
    assert!(text.lines().all(|line| line.len() < 5000));
    assert_eq!(saved::read(&text).unwrap().plan.steps.len(), plan.steps.len());
}

#[test]
fn vms_that_are_to_be_together_are_launched_in_an_order_that_works() {
    let launches = |sent: &[String]| -> Vec<String> {
        let of = |command: &&String| command.starts_with("vm launch");
        sent.iter().filter(of).map(|command| command.trim_start_matches("vm launch").trim().to_owned()).collect()
    };
    // Directly, the one that is named comes first, whatever its name.
    let direct = lab("", "a: { colocate: z }, \"m[0-1]\": { colocate: a }, z: { memory: 64 }");
    let (mm, mut advice) = (Minimega::default(), Advice::default());
    assert_eq!(launches(&go(&mm, &direct, &mut advice)), ["kvm z", "kvm a", "kvm m[0-1]"]);
    // Through the queue they go at once, and may name each other.
    let circle =
        "a: { colocate: b }, b: { colocate: a, memory: 64 }, c: { colocate: d }, d: { depends_on: a, memory: 96 }";
    let queued = lab(QUEUED, circle);
    let (mm, mut advice) = (Minimega::default(), Advice::default());
    assert_eq!(launches(&go(&mm, &queued, &mut advice)), ["kvm a", "kvm b", "", "kvm c", "kvm d", ""]);
    let refused = lab("", circle);
    let found = problem(plan_with(&Minimega::default(), &refused, &options(&refused, &Advice::default())));
    assert_eq!(found.code, "colocate-order");
    assert!(found.span.is_some() && found.hint.unwrap().contains("`placement: { queueing: true }`"));
    let impossible = lab(QUEUED, "a: { colocate: b }, b: { depends_on: a }");
    let found = problem(plan_with(&Minimega::default(), &impossible, &options(&impossible, &Advice::default())));
    assert_eq!(found.message, "vm.a is to be on the host of vm.b, which is launched after it");
    // What is there already is in nobody's way.
    let (mm, mut advice) = (Minimega::default(), Advice::default());
    go(&mm, &lab("", "b: { memory: 64 }"), &mut advice);
    assert_eq!(launches(&go(&mm, &lab("", "b: { memory: 64 }, a: { colocate: b }"), &mut advice)), ["kvm a"]);
}

#[test]
fn an_interruption_leaves_the_queue_as_it_was() {
    use std::sync::atomic::Ordering;
    let one = lab(QUEUED, VMS);
    let plan = planned(&Minimega::default(), &one);
    for last in 1..=plan.steps.len() {
        let (mm, interrupt) = (Minimega::default(), crate::apply::Interrupt::default());
        let connect = || Ok(Box::new(mm.clone()) as Box<dyn crate::wire::Transport + Send>);
        let mut observe = |event: crate::apply::Event| {
            if event == (crate::apply::Event::Started { step: last }) {
                interrupt.0.store(true, Ordering::SeqCst);
            }
        };
        crate::apply::apply(&plan, &connect, None, &interrupt, &mut observe);
        let space = space(&mm);
        assert!(space.queue.is_empty() && !space.queueing, "after {last}: {space:?}");
        let next = plan_with(&mm, &one, &options(&one, &Advice::default())).unwrap();
        assert!(applied(&mm, &next).0, "after {last}");
        assert_eq!(self::space(&mm).vms.len(), 4, "after {last}");
    }
}
