//! Shapes, bridges, mirrors, captures and dnsmasq servers.

use super::*;
use crate::wire::Transport;

/// Plan with what the target's help says and what a journal would remember, carry it out, and check that nothing is left.
pub fn apply(mm: &Minimega, file: &File, advice: &mut Advice) -> Vec<String> {
    let made = learned(mm, file, advice, false).unwrap();
    carry_out(mm, &made);
    super::properties::remember(advice, &made);
    let again = learned(mm, file, advice, false).unwrap();
    assert!(again.is_empty(), "left to do:\n{}", text(&again));
    let prefix = format!("namespace {} ", made.experiment);
    made.steps.iter().map(|s| s.command.strip_prefix(&prefix).unwrap_or(&s.command).to_owned()).collect()
}

/// Plan as `megaform plan` does: with what the target's help tells.
pub fn learned(mm: &Minimega, file: &File, advice: &Advice, destroy: bool) -> Result<Plan, PlanError> {
    let mut seen = live(mm, file);
    let options = Options { destroy, ..options(file, advice) };
    let made = plan(&file.experiment, &file.graph, &seen, &options)?;
    for command in made.learn {
        crate::live::learn(&mut mm.clone(), &mut seen, &file.experiment.name.value, command).unwrap();
    }
    plan(&file.experiment, &file.graph, &seen, &options)
}

fn without_config(commands: Vec<String>) -> Vec<String> {
    commands.into_iter().filter(|c| !c.contains("vm config")).collect()
}

fn megaform() -> Minimega {
    let mm = Minimega::default();
    mm.0.lock().unwrap().network.megaform = true;
    mm
}

fn refused(result: Result<Plan, PlanError>) -> Vec<(&'static str, String)> {
    let Err(PlanError::Blocked { problems }) = result else { panic!("it was planned") };
    problems.into_iter().map(|p| (p.code, p.message)).collect()
}

#[test]
fn many_vms_are_shaped_by_one_command_before_they_start() {
    let lab = |qos: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms:\n  web[0-2]: {{ networks: [{{ vlan: lan{qos} }}] }}\n"
        ))
    };
    let mm = megaform();
    let mut known = Advice::default();
    let made = apply(&mm, &lab(", qos: { rate: 10 mbit, delay: 20 ms, jitter: 5 ms, loss: 0.1 }"), &mut known);
    assert_eq!(
        without_config(made),
        [
            "vm launch kvm web[0-2]",
            "qos set web[0-2] 0 rate=10mbit delay=20ms jitter=5ms loss=0.1",
            "vm start web[0-2]",
        ]
    );
    let commands = apply(&mm, &lab(", qos: { rate: 10 mbit }"), &mut known);
    assert_eq!(commands, ["qos set web[0-2] 0 rate=10mbit"]);
    // By hand it is drift, and an edit is none.
    mm.by_hand("namespace lab clear qos web1 0");
    let plan = learned(&mm, &lab(", qos: { rate: 10 mbit }"), &known, false).unwrap();
    assert_eq!(actions(&plan), ["≠ vm.web1"]);
    assert_eq!(apply(&mm, &lab(", qos: { rate: 10 mbit }"), &mut known), ["qos set web1 0 rate=10mbit"]);
    let plan = learned(&mm, &lab(""), &known, false).unwrap();
    assert_eq!(actions(&plan), ["~ vm.web0", "~ vm.web1", "~ vm.web2"]);
    assert_eq!(apply(&mm, &lab(""), &mut known), ["clear qos web[0-2] 0"]);
}

#[test]
fn minimega_sets_one_thing_at_a_time_and_is_asked_no_more() {
    let lab = |qos: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms:\n  fw: {{ networks: [{{ vlan: lan, qos: {{ {qos} }} }}] }}\n"
        ))
    };
    let mm = Minimega::default();
    let mut known = Advice::default();
    for (qos, expected) in [
        (
            "delay: 20 ms, loss: 0.25",
            &["vm launch kvm fw", "qos add fw 0 delay 20ms", "qos add fw 0 loss 0.25", "vm start fw"][..],
        ),
        ("delay: 30 ms, loss: 0.25", &["qos add fw 0 delay 30ms"]),
        ("delay: 30 ms", &["clear qos fw 0", "qos add fw 0 delay 30ms"]),
        ("rate: 1.5 mbit", &["qos add fw 0 rate 1500 kbit"]),
        ("loss: 10", &["qos add fw 0 loss 10"]),
    ] {
        assert_eq!(without_config(apply(&mm, &lab(qos), &mut known)), expected, "{qos}");
    }
    for qos in ["rate: 1 mbit, loss: 1", "delay: 20 ms, jitter: 1 ms"] {
        let problems = refused(learned(&mm, &lab(qos), &known, false));
        assert_eq!(problems[0].0, "qos-unsupported", "{problems:?}");
    }
    // A target that launches it anew shapes it anew.
    let plan = {
        let replace = super::selection::selectors(&["vm.fw"]);
        let (file, seen) = (lab("loss: 10"), live(&mm, &lab("loss: 10")));
        let options =
            Options { selection: Selection { replaces: replace, ..Selection::default() }, ..options(&file, &known) };
        plan(&file.experiment, &file.graph, &seen, &options).unwrap()
    };
    carry_out(&mm, &plan);
    assert!(learned(&mm, &lab("loss: 10"), &known, false).unwrap().is_empty());
}

#[test]
fn a_link_shapes_both_of_its_ends() {
    let lab = file(
        "experiment: lab\nvlans: { lan: {} }\nvms:\n  web[0-1]: { networks: [lan] }\n  db: { networks: [lan] }\n\
         links:\n  a: { ends: [web0.0, db.0], delay: 20 ms, up: { rate: 1 mbit }, down: { rate: 10 mbit } }\n",
    );
    let commands = apply(&megaform(), &lab, &mut Advice::default());
    let shapes: Vec<_> = commands.iter().filter(|c| c.starts_with("qos")).collect();
    assert_eq!(shapes, ["qos set db 0 rate=1mbit delay=20ms", "qos set web0 0 rate=10mbit delay=20ms"]);
    assert!(commands.contains(&"vm launch kvm web1".to_owned()), "{commands:?}");
}

#[test]
fn a_shape_is_taken_back() {
    let lab = |qos: &str| {
        file(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms:\n  fw: {{ networks: [{{ vlan: lan, qos: {{ {qos} }} }}] }}\n"
        ))
    };
    for mm in [megaform(), Minimega::default()] {
        let mut known = Advice::default();
        apply(&mm, &lab("delay: 20 ms, loss: 1"), &mut known);
        let plan = learned(&mm, &lab("rate: 1 mbit"), &known, false).unwrap();
        carry_out(&mm, &plan);
        for step in plan.steps.iter().rev() {
            for command in step.undo.commands(&plan.experiment).unwrap() {
                mm.clone()
                    .call(&command)
                    .unwrap()
                    .iter()
                    .for_each(|r| assert_eq!(r.errors().next(), None, "{command}"));
            }
        }
        assert!(learned(&mm, &lab("delay: 20 ms, loss: 1"), &known, false).unwrap().is_empty());
    }
}
