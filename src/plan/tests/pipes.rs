//! Settings of named pipes: made before the pipelines, changed in place, set back, and cleared where nobody uses the pipe.

use super::networks::{apply, learned};
use super::*;
use crate::name::Kind;

fn lab(rest: &str) -> File {
    file(&format!("experiment: lab\nvms: {{}}\n{rest}"))
}

fn target(megaform: bool) -> Minimega {
    let mm = Minimega::default();
    mm.0.lock().unwrap().network.megaform = megaform;
    mm
}

/// The mode of a pipe, whether it is logged, and its via; None where it is not there.
fn pipe(mm: &Minimega, name: &str) -> Option<(String, bool, String)> {
    let state = mm.0.lock().unwrap();
    let pipe = state.network.pipes.get(name)?;
    Some((pipe.mode.clone(), pipe.log, pipe.via.join(" ")))
}

fn is(mode: &str, log: bool, via: &str) -> Option<(String, bool, String)> {
    Some((mode.to_owned(), log, via.to_owned()))
}

const PLUMBED: &str = "plumbing: { p: { pipeline: [alerts, \"grep x\", cat] } }\n";

fn both(pipes: &str) -> File {
    lab(&format!("pipes: {pipes}\n{PLUMBED}"))
}

#[test]
fn pipes_are_set_before_pipelines_and_change_while_they_stay() {
    for megaform in [true, false] {
        let (mm, mut known) = (target(megaform), Advice::default());
        let first = both("{ alerts: { mode: random, log: true, via: \"sh -c 'tr a b'\" }, cat: {} }");
        let plan = learned(&mm, &first, &known, false).unwrap();
        assert_eq!(actions(&plan), ["+ pipe.alerts", "+ pipe.cat", "+ plumbing.p"]);
        assert!(text(&plan).contains("log: true; mode: random; via: sh -c 'tr a b'"), "{}", text(&plan));
        let [.., last] = plan.steps.as_slice() else { panic!("no steps") };
        assert_eq!(last.needs.len(), 2, "{last:?}");
        assert_eq!(
            apply(&mm, &first, &mut known),
            [
                "pipe alerts mode random",
                "pipe alerts via sh -c \"tr a b\"",
                "pipe alerts log true",
                "pipe cat mode all",
                // A program is called so too; what is declared is the pipe.
                "plumb lab//alerts \"grep x\" lab//cat",
            ]
        );
        assert_eq!(pipe(&mm, "lab//alerts"), is("random", true, "sh -c tr a b"));
        // Without the journal everything is the same, but for what the target does not tell.
        let elsewhere = learned(&mm, &first, &Advice::default(), false).unwrap();
        if megaform {
            assert!(elsewhere.is_empty(), "{}", text(&elsewhere));
        } else {
            assert!(text(&elsewhere).contains("log: not known -> true"), "{}", text(&elsewhere));
            assert_eq!(actions(&elsewhere), ["~ pipe.alerts"]);
        }
        let second = both("{ alerts: { mode: round-robin }, cat: {} }");
        assert_eq!(
            apply(&mm, &second, &mut known),
            ["pipe alerts mode round-robin", "clear pipe alerts via", "pipe alerts log false"]
        );
        assert_eq!(pipe(&mm, "lab//alerts"), is("round-robin", false, ""));
        // Changed by hand, and gone with the pipelines that used it.
        mm.by_hand("namespace lab pipe alerts via cat");
        let plan = learned(&mm, &second, &known, false).unwrap();
        assert_eq!(actions(&plan), ["≠ pipe.alerts"]);
        assert_eq!(apply(&mm, &second, &mut known), ["clear pipe alerts via"]);
        mm.by_hand("namespace lab clear pipe alerts");
        let plan = learned(&mm, &second, &known, false).unwrap();
        assert_eq!(actions(&plan), ["≠ pipe.alerts", "≠ plumbing.p"]);
        apply(&mm, &second, &mut known);
        mm.by_hand("namespace lab pipe alerts log true");
        let plan = learned(&mm, &second, &known, false).unwrap();
        assert_eq!(actions(&plan), if megaform { vec!["≠ pipe.alerts"] } else { Vec::new() });
    }
}

#[test]
fn a_pipe_that_somebody_uses_is_set_back_and_stays() {
    for megaform in [true, false] {
        let (mm, mut known) = (target(megaform), Advice::default());
        let file = both("{ alerts: { mode: random, log: true }, cat: {}, free: { log: true } }");
        apply(&mm, &file, &mut known);
        // The pipeline of the file still has `alerts`.
        let fewer = both("{ cat: {} }");
        let plan = learned(&mm, &fewer, &known, false).unwrap();
        assert!(text(&plan).contains("pipe.alerts is set back"), "{}", text(&plan));
        assert_eq!(
            apply(&mm, &fewer, &mut known),
            ["clear pipe alerts log", "clear pipe alerts mode", "clear pipe free"]
        );
        assert_eq!(pipe(&mm, "lab//alerts"), is("all", false, ""));
        assert_eq!(pipe(&mm, "lab//free"), None);
        assert!(mm.0.lock().unwrap().network.plumbing["lab"].len() == 1);
        // A client, and the pipeline of another namespace.
        apply(&mm, &file, &mut known);
        mm.0.lock().unwrap().network.pipes.get_mut("lab//free").unwrap().clients = 1;
        mm.by_hand("namespace other plumb lab//cat theirs");
        let plan = learned(&mm, &file, &known, true).unwrap();
        let shown = text(&plan);
        for part in [
            "pipe.free is set back to what pipes are by themselves, and stays: others use it (1 reader, 1 writer)",
            "pipe.cat is set back to what pipes are by themselves, and stays: others use it (1 reader)",
            "namespace lab stays, because it holds what this experiment does not own: pipe.cat (1 reader), pipe.free (1 reader, 1 writer)",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        carry_out(&mm, &plan);
        properties::remember(&mut known, &plan);
        assert_eq!((pipe(&mm, "lab//free"), pipe(&mm, "lab//cat")), (is("all", false, ""), is("all", false, "")));
        assert_eq!(pipe(&mm, "lab//alerts"), None);
        assert_eq!(mm.0.lock().unwrap().network.plumbing["other"].len(), 1);
        // They left: nothing of it stays.
        mm.0.lock().unwrap().network.pipes.get_mut("lab//free").unwrap().clients = 0;
        mm.by_hand("namespace other clear plumb lab//cat theirs");
        carry_out(&mm, &learned(&mm, &file, &known, true).unwrap());
        let state = mm.0.lock().unwrap();
        assert!(!state.namespaces.contains_key("lab"));
        assert!(state.network.pipes.keys().all(|name| name.starts_with("other//")), "{:?}", state.network.pipes);
    }
}

#[test]
fn nothing_is_left_in_the_default_namespace() {
    for ended in [false, true] {
        let (mm, mut known) = (target(true), Advice::default());
        let file = file(&format!("experiment: minimega\nvms: {{}}\npipes: {{ alerts: {{ log: true }} }}\n{PLUMBED}"));
        mm.by_hand("namespace minimega pipe theirs log true");
        apply(&mm, &file, &mut known);
        if ended {
            // Its pipe, which has no entry, is as good as none.
            mm.by_hand("namespace minimega clear plumb");
            mm.by_hand("namespace minimega pipe kept mode all");
            let more = super::file("experiment: minimega\nvms: {}\nplumbing: { q: { pipeline: [a, b] } }\n");
            apply(&mm, &more, &mut known);
            mm.by_hand("namespace minimega clear plumb");
            carry_out(&mm, &learned(&mm, &more, &known, true).unwrap());
        } else {
            carry_out(&mm, &learned(&mm, &file, &known, true).unwrap());
        }
        let left: Vec<String> = mm.0.lock().unwrap().network.pipes.keys().cloned().collect();
        let expected: &[&str] = if ended { &["minimega//kept", "minimega//theirs"] } else { &["minimega//theirs"] };
        assert_eq!(left, expected);
    }
}

#[test]
fn what_the_target_does_not_show_is_known_no_sooner_than_it_is_answered() {
    use super::super::advice::Answer;
    let (mm, mut known) = (target(false), Advice::default());
    let file = lab("pipes: { a: { mode: random, log: true } }\n");
    let plan = learned(&mm, &file, &known, false).unwrap();
    let [mode, log] = plan.steps.as_slice() else { panic!("{:?}", plan.steps) };
    let sent = |known: &mut Advice, step: &Step, answer: Answer<'_>| {
        known.sent(&step.command, step.mark.as_ref());
        known.answered(step.mark.as_ref().unwrap(), answer);
    };
    mm.by_hand(&mode.command);
    // Killed before the second one, which failed, or of which nobody knows.
    sent(&mut known, mode, Answer::Done);
    let mut failed = known.clone();
    sent(&mut failed, log, Answer::Failed("no"));
    let mut lost = known.clone();
    sent(&mut lost, log, Answer::Lost);
    for (advice, reason) in
        [(known, "log: false -> true"), (failed, "log: false -> true"), (lost, "log: not known -> true")]
    {
        let plan = learned(&mm, &file, &advice, false).unwrap();
        assert!(text(&plan).contains(reason), "{}", text(&plan));
        assert_eq!(
            plan.steps.iter().map(|s| s.command.as_str()).collect::<Vec<_>>(),
            ["namespace lab pipe a log true"]
        );
    }
}

#[test]
fn protected_ignored_chosen_and_replaced_pipes() {
    let (mm, mut known) = (target(true), Advice::default());
    let text_of = |lifecycle: &str| {
        format!("pipes: {{ alerts: {{ mode: random, lifecycle: {lifecycle} }}, cat: {{}} }}\n{PLUMBED}")
    };
    let file = lab(&text_of("{ ignore_changes: [mode, log] }"));
    // What a pipeline needs comes along.
    let selection = Selection { targets: super::selection::selectors(&["plumbing.p"]), ..Selection::default() };
    let seen = live(&mm, &file);
    let plan =
        super::super::plan(&file.experiment, &file.graph, &seen, &Options { selection, ..options(&file, &known) })
            .unwrap();
    assert_eq!(actions(&plan), ["+ pipe.alerts", "+ pipe.cat", "+ plumbing.p"]);
    apply(&mm, &file, &mut known);
    mm.by_hand("namespace lab pipe alerts mode round-robin");
    mm.by_hand("namespace lab pipe alerts via cat");
    assert_eq!(apply(&mm, &file, &mut known), ["clear pipe alerts via"]);
    assert_eq!(pipe(&mm, "lab//alerts"), is("round-robin", false, ""));
    // Made anew, it is set once more and hangs up nobody.
    let replaces = super::selection::selectors(&["pipe.cat"]);
    let seen = live(&mm, &file);
    let plan = super::super::plan(
        &file.experiment,
        &file.graph,
        &seen,
        &Options { selection: Selection { replaces, ..Selection::default() }, ..options(&file, &known) },
    )
    .unwrap();
    let commands: Vec<&str> = plan.steps.iter().map(|step| step.command.as_str()).collect();
    assert_eq!(commands, ["namespace lab pipe cat mode all", "namespace lab pipe cat log false"]);
    let file = lab(&text_of("{ prevent_destroy: true }"));
    let Err(PlanError::Blocked { problems }) = learned(&mm, &file, &known, true) else { panic!("it was planned") };
    assert_eq!(problems[0].code, "prevent-destroy");
}

#[test]
fn a_saved_plan_that_clears_a_pipe_does_not_fit_once_somebody_uses_it() {
    let (mm, mut known) = (target(true), Advice::default());
    let file = lab("pipes: { a: { log: true }, b: { log: true } }\n");
    apply(&mm, &file, &mut known);
    let saved = |file: &File, destroy: bool| {
        let plan = learned(&mm, file, &known, destroy).unwrap();
        saved::read(&saved::write(&plan, std::path::Path::new("/run/megaform/minimega"), &[])).unwrap()
    };
    let (changes, goes) =
        (saved(&lab("pipes: { a: { mode: random }, b: { log: true } }\n"), false), saved(&file, true));
    assert_eq!(goes.moved(&live(&mm, &file)), [] as [&str; 0]);
    mm.by_hand("namespace lab pipe theirs mode random");
    assert_eq!(goes.moved(&live(&mm, &file)), ["pipe.theirs was not there and would go with the namespace"]);
    mm.by_hand("namespace lab clear pipe theirs");
    mm.0.lock().unwrap().network.pipes.get_mut("lab//a").unwrap().clients = 1;
    assert_eq!(changes.moved(&live(&mm, &file)), [] as [&str; 0]);
    assert!(!goes.moved(&live(&mm, &file)).is_empty());
    mm.by_hand("namespace lab pipe a mode round-robin");
    assert!(!changes.moved(&live(&mm, &file)).is_empty());
}

#[test]
fn pipes_need_a_target_that_has_them() {
    let mm = Minimega::default();
    mm.0.lock().unwrap().network.absent = true;
    for there in [false, true] {
        if there {
            mm.by_hand("namespace lab vlans add lan 101");
        }
        let Err(PlanError::Blocked { problems }) = learned(&mm, &lab("pipes: { a: {} }\n"), &Advice::default(), false)
        else {
            panic!("it was planned")
        };
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].code, "target-lacks");
        assert!(problems[0].message.starts_with("pipe.a takes `pipe`"), "{}", problems[0].message);
    }
    assert!(learned(&mm, &lab("pipes: { a: {} }\n"), &Advice::default(), true).is_ok());
    let unmanaged = target(true);
    unmanaged.by_hand("namespace lab pipe theirs mode random");
    let plan = learned(&unmanaged, &lab("pipes: { a: {} }\n"), &Advice::default(), false).unwrap();
    assert!(plan.unmanaged.contains(&crate::name::Address::new(Kind::Pipe, "theirs")));
    let plan = learned(&unmanaged, &lab("pipes: { a: {} }\n"), &Advice::default(), true).unwrap();
    assert!(text(&plan).contains("namespace lab stays") && plan.steps.is_empty(), "{}", text(&plan));
}
