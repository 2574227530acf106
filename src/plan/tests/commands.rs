//! Raw commands: once for each content, again where what they made went, and taken back.

use super::super::advice::Answer;
use super::*;
use crate::wire::Transport;

const RAW: &str = r#"
experiment: lab
vlans: { lan: {} }
vms:
  fw: { memory: 64, networks: [lan] }
  web: { memory: 64, state: paused }
commands:
  edge:
    create: [shell mkdir /edge, "vm tag fw role edge"]
    destroy: ["clear vm tag fw role", shell rmdir /edge]
    depends_on: fw
  probe: { create: shell mkdir /probe, destroy: shell rmdir /probe, check: shell test -d /probe }
"#;

/// A target with what the journal beside it remembers.
#[derive(Default)]
struct Target {
    mm: Minimega,
    advice: Advice,
}

/// What happens to a command.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Carried,
    /// Megaform is killed before, or after, it is carried out; nobody notes how it ended.
    Killed {
        after: bool,
    },
}

impl Target {
    fn plan(&self, file: &File, destroy: bool) -> Plan {
        self.selected(file, destroy, Selection::default())
    }

    fn selected(&self, file: &File, destroy: bool, selection: Selection) -> Plan {
        let options = Options { destroy, selection, ..options(file, &self.advice) };
        let mut live = live(&self.mm, file);
        crate::apply::plan_on(&mut self.mm.clone(), &file.experiment, &file.graph, &mut live, &options).unwrap()
    }

    /// Send the steps as the executor does, one after the other. Returns the commands that failed.
    fn carry_out(&mut self, plan: &Plan, fate: impl Fn(usize) -> Fate) -> Vec<String> {
        let (mut bad, mut failed) = (std::collections::HashSet::new(), Vec::new());
        for step in &plan.steps {
            if step.needs.iter().any(|id| bad.contains(id)) {
                bad.insert(step.id);
                continue;
            }
            let fate = fate(step.id);
            self.advice.sent(&step.command, step.mark.as_ref());
            if fate == (Fate::Killed { after: false }) {
                return failed;
            }
            let answers = self.mm.clone().call(&step.command).unwrap();
            if fate != Fate::Carried {
                return failed;
            }
            let error = answers.iter().flat_map(|r| r.errors()).map(|(_, error)| error.to_owned()).next();
            if let Some(mark) = &step.mark {
                self.advice.answered(mark, error.as_deref().map_or(Answer::Done, Answer::Failed));
            }
            if error.is_some() {
                bad.insert(step.id);
                failed.push(short(&step.command));
            }
        }
        failed
    }

    /// Apply; nothing may fail, and nothing may be left to do. Returns the raw commands.
    fn apply(&mut self, text: &str) -> Vec<String> {
        let lab = file(text);
        let plan = self.plan(&lab, false);
        assert_eq!(self.carry_out(&plan, |_| Fate::Carried), [] as [&str; 0]);
        let left = self.plan(&lab, false);
        assert!(left.is_empty(), "left to do:\n{}", super::text(&left));
        raw(&plan)
    }

    fn folders(&self) -> Vec<String> {
        self.mm.0.lock().unwrap().folders.iter().cloned().collect()
    }
}

fn short(command: &str) -> String {
    command.strip_prefix("namespace lab ").unwrap_or(command).to_owned()
}

fn raw(plan: &Plan) -> Vec<String> {
    plan.steps.iter().filter(|step| step.mark.is_some()).map(|step| short(&step.command)).collect()
}

const CREATE: [&str; 3] = ["shell mkdir /edge", "vm tag fw role edge", "shell mkdir /probe"];

#[test]
fn run_once_for_each_content_and_taken_back() {
    let mut target = Target::default();
    insta::assert_snapshot!(text(&target.plan(&file(RAW), false)));
    assert_eq!(target.apply(RAW), CREATE);
    let other = RAW.replace("role edge", "role core").replace("\"clear vm tag fw role\", ", "");
    let plan = target.plan(&file(&other), false);
    insta::assert_snapshot!(text(&plan));
    assert_eq!(
        target.apply(&other),
        ["clear vm tag fw role", "shell rmdir /edge", "shell mkdir /edge", "vm tag fw role core"],
        "by the lines that it was made with"
    );
    assert_eq!(
        target.apply(&other.replace("check: shell test -d /probe", "check: shell test -d /edge")),
        [] as [&str; 0]
    );
    let gone = RAW.split("commands:").next().unwrap();
    assert_eq!(target.apply(gone), ["shell rmdir /probe", "shell rmdir /edge"]);
    assert!(target.advice.commands.is_empty() && target.folders().is_empty());
}

#[test]
fn a_launched_vm_is_followed() {
    let mut target = Target::default();
    target.apply(RAW);
    target.mm.by_hand("namespace lab shell rmdir /edge");
    // A line is not run where the VM could not be launched.
    let more = RAW.replace("fw: { memory: 64", "fw: { memory: 128");
    let plan = target.plan(&file(&more), false);
    let [tag, launch] = ["vm tag fw role", "vm start fw"]
        .map(|c| plan.steps.iter().find(|step| short(&step.command).starts_with(c)).unwrap());
    assert!(plan.steps[tag.needs[0] - 1].needs.contains(&launch.id), "{tag:?}");
    assert_eq!(target.apply(&more), CREATE[..2]);
    assert_eq!(target.apply(&more.replace("paused", "running")), [] as [&str; 0], "only the VMs that it needs count");
}

#[test]
fn a_kill_between_the_launch_and_the_line_is_remembered() {
    let mut target = Target::default();
    target.apply(RAW);
    target.mm.by_hand("namespace lab shell rmdir /edge");
    let more = file(&RAW.replace("fw: { memory: 64", "fw: { memory: 128"));
    let plan = target.plan(&more, false);
    let line = plan.steps.iter().find(|step| step.mark.is_some()).unwrap().id;
    let before = |id| if id == line - 1 { Fate::Killed { after: true } } else { Fate::Carried };
    target.carry_out(&plan, before);
    let left = target.plan(&more, false);
    assert!(text(&left).contains("depends_on: ran before vm.fw is launched -> run again"), "{}", text(&left));
    assert_eq!(raw(&left), CREATE[..2]);
}

#[test]
fn a_check_decides() {
    let mut target = Target::default();
    target.apply(RAW);
    target.mm.by_hand("namespace lab shell rmdir /probe");
    let plan = target.plan(&file(RAW), false);
    assert_eq!(actions(&plan), ["≠ command.probe"]);
    assert_eq!(target.apply(RAW), ["shell mkdir /probe"]);
    // Without a journal the check is what is known; an entry without one is run again, and may fail.
    target.advice = Advice::default();
    let plan = target.plan(&file(RAW), false);
    assert_eq!(actions(&plan), ["+ command.edge"]);
    assert!(text(&plan).contains("journal: not known to have run"), "{}", text(&plan));
    assert_eq!(target.carry_out(&plan, |_| Fate::Carried), ["shell mkdir /edge"]);
    target.advice = Advice::default();
    let plan = target.plan(&file(RAW), true);
    assert_eq!(raw(&plan), ["shell rmdir /probe"]);
    assert!(plan.notes.iter().any(|n| n.starts_with("command.edge is not known to have run")), "{:?}", plan.notes);
}

#[test]
fn a_line_that_failed_is_where_it_goes_on() {
    let mut target = Target::default();
    let bad = RAW.replace("[shell mkdir /edge,", "[shell mkdir /edge, shell mkdir /bad,");
    target.mm.0.lock().unwrap().folders.insert("/bad".into());
    let lab = file(&bad);
    assert_eq!(target.carry_out(&target.plan(&lab, false), |_| Fate::Carried), ["shell mkdir /bad"]);
    let plan = target.plan(&lab, false);
    assert!(
        text(&plan).contains("create[1]: failed: exit status: 1 -> shell mkdir /bad  (lab.yaml:"),
        "{}",
        text(&plan)
    );
    target.mm.by_hand("namespace lab shell rmdir /bad");
    assert_eq!(target.apply(&bad), ["shell mkdir /bad", "vm tag fw role edge"]);
}

#[test]
fn destroy_begins_with_the_lines_and_no_failure_holds_it_up() {
    let mut target = Target::default();
    target.apply(RAW);
    target.mm.by_hand("namespace lab shell rmdir /edge");
    let lab = file(RAW);
    let plan = target.plan(&lab, true);
    assert_eq!(actions(&plan)[..2], ["- command.edge", "- command.probe"]);
    let commands: Vec<String> = plan.steps.iter().map(|step| short(&step.command)).collect();
    assert_eq!(commands[..3], ["shell rmdir /probe", "clear vm tag fw role", "shell rmdir /edge"]);
    assert_eq!(target.carry_out(&plan, |_| Fate::Carried), ["shell rmdir /edge"]);
    assert!(target.mm.0.lock().unwrap().namespaces.is_empty(), "the namespace went all the same");
    assert!(target.plan(&lab, true).is_empty(), "what failed is not tried again");
}

#[test]
fn a_failure_to_take_back_delays_the_change_by_one_apply() {
    let mut target = Target::default();
    let text = RAW.replace("destroy: shell rmdir /probe", "destroy: shell rmdir /nosuch");
    target.apply(&text);
    let edited = text.replace("create: shell mkdir /probe", "create: [shell mkdir /more]");
    let plan = target.plan(&file(&edited), false);
    assert_eq!(raw(&plan), ["shell rmdir /nosuch", "shell mkdir /more"]);
    assert_eq!(target.carry_out(&plan, |_| Fate::Carried), ["shell rmdir /nosuch"]);
    assert!(!target.folders().contains(&"/more".to_owned()));
    // The check says that it is there, but not from which lines.
    assert_eq!(target.apply(&edited), ["shell mkdir /more"]);
    let gone = target.plan(&file(RAW.split("commands:").next().unwrap()), false);
    target.carry_out(&gone, |_| Fate::Carried);
    assert!(target.plan(&file(RAW.split("commands:").next().unwrap()), false).is_empty(), "it is tried once");
}

#[test]
fn chosen_by_address() {
    let mut target = Target::default();
    let of = |text: &str| super::selection::selectors(&[text]);
    let lab = file(RAW);
    let only = Selection { targets: of("command.edge"), ..Selection::default() };
    let plan = target.selected(&lab, false, only);
    assert_eq!(actions(&plan), ["+ vm.fw", "+ command.edge"]);
    target.apply(RAW);
    let again = Selection { replaces: of("command.probe"), ..Selection::default() };
    assert_eq!(raw(&target.selected(&lab, false, again)), ["shell rmdir /probe", "shell mkdir /probe"]);
    let without = Selection { excludes: of("vm.fw"), ..Selection::default() };
    let gone = file(RAW.split("vms:").next().unwrap());
    assert_eq!(raw(&target.selected(&gone, false, without)).len(), 3);
}

#[test]
fn a_namespace_that_went_took_them_along() {
    let mut target = Target::default();
    target.apply(RAW);
    target.mm.by_hand("clear namespace lab");
    let destroy = target.plan(&file(RAW), true);
    assert!(destroy.is_empty());
    assert_eq!(
        destroy.notes,
        [
            "command.edge ran in a namespace that is gone, so what takes it back is not run: `clear vm tag fw role`, `shell rmdir /edge`",
            "command.probe ran in a namespace that is gone, so what takes it back is not run: `shell rmdir /probe`"
        ]
    );
    target.mm.0.lock().unwrap().folders.clear();
    assert_eq!(target.apply(RAW), CREATE);
}

/// Killed at any command, before it is carried out or after: the next apply leads to the same, and so does the next destroy.
#[test]
fn killed_anywhere_it_converges() {
    // Lines that may be run twice: whether one that was cut off was carried out, nobody knows.
    let text =
        RAW.replace("shell mkdir /edge", "vm tag fw edge yes").replace("shell rmdir /edge", "clear vm tag fw edge");
    let edited = text.replace("role edge", "role core");
    for after in [false, true] {
        for at in 1.. {
            let mut target = Target::default();
            let (first, second) = (file(&text), file(&edited));
            let mut reached = false;
            let step = std::cell::Cell::new(0);
            let fate = |_| {
                step.set(step.get() + 1);
                if step.get() == at { Fate::Killed { after } } else { Fate::Carried }
            };
            for (lab, destroy) in [(&first, false), (&second, false), (&second, true)] {
                let plan = target.plan(lab, destroy);
                target.carry_out(&plan, fate);
                if step.get() >= at && !reached {
                    reached = true;
                    let plan = target.plan(lab, destroy);
                    let failed = target.carry_out(&plan, |_| Fate::Carried);
                    // What was carried out and is not known to be is tried again, and says so.
                    assert!(failed.iter().all(|line| line.contains("/probe") || destroy), "{failed:?} at {at}");
                }
                let left = target.plan(lab, destroy);
                assert!(left.is_empty(), "{at} {after} left:\n{}", super::text(&left));
                if !destroy {
                    let state = target.mm.0.lock().unwrap();
                    let tags = &state.namespaces["lab"].vms["fw"].tags;
                    let role = if std::ptr::eq(lab, &first) { "edge" } else { "core" };
                    assert_eq!((tags["edge"].as_str(), tags["role"].as_str()), ("yes", role), "{at} {after}");
                    assert!(state.folders.contains("/probe"));
                }
            }
            assert!(target.mm.0.lock().unwrap().namespaces.is_empty() && target.folders().is_empty(), "{at} {after}");
            if !reached {
                break;
            }
        }
    }
}

#[test]
fn a_saved_plan_goes_by_what_is_remembered() {
    let mut target = Target::default();
    let socket = std::path::Path::new("/run/megaform/minimega");
    let saved = |plan: &Plan| saved::read(&saved::write(plan, socket, &[])).unwrap();
    let create = saved(&target.plan(&file(RAW), false));
    assert!(!create.commands_met(&target.advice) && create.moved_commands(&target.advice).is_empty());
    assert_eq!(target.carry_out(&create.plan, |_| Fate::Carried), [] as [&str; 0]);
    assert!(create.commands_met(&target.advice));
    let edited = RAW.replace("role edge", "role core");
    let edit = saved(&target.plan(&file(&edited), false));
    assert!(edit.moved_commands(&target.advice).is_empty() && !edit.commands_met(&target.advice));
    target.apply(&RAW.replace("role edge", "role other"));
    assert_eq!(edit.moved_commands(&target.advice), ["command.edge was run or taken back since"]);
    let gone = saved(&target.plan(&file(RAW), true));
    assert!(!gone.commands_met(&target.advice));
    target.carry_out(&gone.plan, |_| Fate::Carried);
    assert!(gone.commands_met(&target.advice));
}
