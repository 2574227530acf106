//! Scenarios against a minimega in memory: plan, carry out, observe, plan again.

use super::display::{Style, render};
use super::*;
use crate::diagnostic::SourceMap;
use crate::live::{Live, observe};
use crate::spec::{Format, NoFiles};

mod bonds;
mod commands;
mod lifecycle;
mod media;
pub(crate) mod minimega;
pub(crate) mod networks;
mod pipes;
mod placement;
pub(crate) mod properties;
mod scenarios;
mod selection;
mod waits;

use minimega::Minimega;

/// An experiment file, decoded.
pub struct File {
    pub experiment: Experiment,
    pub graph: Graph,
    pub sources: SourceMap,
}

/// Decode YAML that is expected to be right.
pub fn file(text: &str) -> File {
    let loaded = crate::spec::parse("lab.yaml", text, Format::Yaml, &NoFiles);
    let shown = || crate::diagnostic::render(&loaded.diagnostics, &loaded.sources, false);
    let experiment = loaded.experiment.unwrap_or_else(|| panic!("{}\n{text}", shown()));
    let graph = Graph::new(&experiment).unwrap();
    File { experiment, graph, sources: loaded.sources }
}

pub fn live(mm: &Minimega, file: &File) -> Live {
    observe(&mut mm.clone(), &file.experiment.name.value).unwrap()
}

pub fn options<'a>(file: &'a File, advice: &Advice) -> Options<'a> {
    Options::new(&file.sources, advice.clone())
}

pub fn planned(mm: &Minimega, file: &File) -> Plan {
    plan(&file.experiment, &file.graph, &live(mm, file), &options(file, &Advice::default())).unwrap()
}

pub fn planned_destroy(mm: &Minimega, file: &File, advice: Advice) -> Plan {
    let options = Options { destroy: true, ..Options::new(&file.sources, advice) };
    plan(&file.experiment, &file.graph, &live(mm, file), &options).unwrap()
}

/// Send every command in order; none may fail, and what a step expects must then be so.
pub fn carry_out(mm: &Minimega, plan: &Plan) {
    use crate::wire::Transport;
    for step in &plan.steps {
        assert!(step.needs.iter().chain(&step.after).all(|n| *n < step.id), "{step:?}");
        let got = |id: StepId| {
            let Expect::Named { kind, key, .. } = &plan.steps[id - 1].expect else { return None };
            observe(&mut mm.clone(), &plan.experiment).unwrap().objects[kind][key].id.clone()
        };
        let command = plan.command_of(step, &got);
        let asks = matches!(step.expect, Expect::Until { .. });
        for response in mm.clone().call(&command).unwrap().into_iter().filter(|_| !asks) {
            assert_eq!(response.errors().next(), None, "{command}");
        }
        // Lists namespaces first, because asking inside one that is gone would make it again.
        let vms = observe(&mut mm.clone(), &plan.experiment).unwrap().vms;
        match &step.expect {
            Expect::Answer | Expect::Until { .. } => {}
            Expect::Vms { names, states } => {
                for name in names.iter() {
                    assert!(states.contains(&vms[name].state), "{name} after {}", step.command);
                }
            }
            Expect::Named { kind, key, .. } => {
                let live = observe(&mut mm.clone(), &plan.experiment).unwrap();
                assert!(live.objects[kind].contains_key(key), "{}", step.command);
            }
            Expect::Queued { names } => {
                let queue = crate::live::observe_queue(&mut mm.clone(), &plan.experiment).unwrap();
                let (ours, _) = ownership::waiting(&plan.experiment, &queue);
                assert!(names.iter().all(|name| ours.contains(&name.as_str())), "{}", step.command);
            }
            Expect::Drained => {}
            Expect::Gone { names } => assert!(names.iter().all(|n| !vms.contains_key(n)), "{}", step.command),
        }
    }
    let live = observe(&mut mm.clone(), &plan.experiment).unwrap();
    for change in &plan.changes {
        assert_eq!(goal::unmet(&change.goal, &change.address, &live), [] as [&str; 0], "{}", change.address);
    }
}

/// Plan, carry out, and check that nothing is left to do. Returns the commands without their namespace prefix.
pub fn converge(mm: &Minimega, file: &File) -> Vec<String> {
    let plan = planned(mm, file);
    carry_out(mm, &plan);
    let again = planned(mm, file);
    assert!(again.is_empty(), "left to do:\n{}", text(&again));
    let prefix = format!("namespace {} ", plan.experiment);
    plan.steps.iter().map(|s| s.command.strip_prefix(&prefix).unwrap_or(&s.command).to_owned()).collect()
}

pub fn text(plan: &Plan) -> String {
    render(plan, Style { target: "/run/megaform/minimega", colour: false, verbose: false })
}

/// Address and action of every change.
pub fn actions(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|c| format!("{} {}", c.action.sign(), c.address)).collect()
}
