//! Carrying a plan out: steps by readiness over a few connections, each checked by what can be observed afterwards.
//!
//! Must not know how a command came to be: what to run, what to wait for and what to check stands in the plan. A
//! command whose answer was lost is never sent again; the next plan tells whether it was carried out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::diagnostic::Diagnostic;
use crate::graph::Graph;
use crate::live::{Live, LiveError, check, learn, observe};
use crate::plan::{self, FLUSH_TARGET, Options, Plan, PlanError, StepId};
use crate::spec::model::Experiment;
use crate::wire::{Transport, WireError};

mod executor;
mod file;
mod gate;
pub mod journal;
pub mod lock;
mod rollback;

pub use executor::apply;
pub use rollback::{Rollback, Undone, rollback};

/// Opens a connection to the target.
pub type Connect<'a> = &'a (dyn Fn() -> Result<Box<dyn Transport + Send>, WireError> + Sync);

/// What happens while a plan is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A step was sent.
    Started {
        /// The step.
        step: StepId,
    },
    /// A step ended.
    Ended {
        /// The step.
        step: StepId,
        /// How.
        end: End,
    },
    /// No further steps are started; those that run are waited for.
    Draining,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was carried out, and what it was to bring about was observed.
    Done,
    /// It failed.
    Failed {
        /// Why.
        error: String,
    },
    /// It was sent, but whether it was carried out is not known.
    Unknown {
        /// What happened.
        error: String,
    },
    /// It was not sent, because a step that it needs did not succeed, or because of an interruption.
    Skipped,
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How each step ended, in the plan's order.
    pub ends: Vec<End>,
}

impl Outcome {
    /// How many steps were done.
    pub fn done(&self) -> usize {
        self.ends.iter().filter(|e| **e == End::Done).count()
    }

    /// How many steps failed, or may have failed.
    pub fn failed(&self) -> usize {
        self.ends.iter().filter(|e| matches!(e, End::Failed { .. } | End::Unknown { .. })).count()
    }

    /// How many steps were not sent.
    pub fn skipped(&self) -> usize {
        self.ends.iter().filter(|e| **e == End::Skipped).count()
    }

    /// Every step was done.
    pub fn is_complete(&self) -> bool {
        self.ends.iter().all(|e| *e == End::Done)
    }
}

/// Lets somebody else, such as a signal handler, stop the work after the steps that run.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(pub Arc<AtomicBool>);

impl Interrupt {
    /// It was asked to stop.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Why no plan could be made from what is live.
#[derive(Debug, thiserror::Error)]
pub enum ReplanError {
    /// No connection.
    #[error("cannot reach the target")]
    Connect(#[source] WireError),
    /// Observing failed.
    #[error("cannot observe the target")]
    Observe(#[source] LiveError),
    /// Something is in the way.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Observe the target and plan against that.
pub fn replan(
    experiment: &Experiment,
    graph: &Graph,
    options: &Options<'_>,
    connect: Connect<'_>,
) -> Result<Plan, ReplanError> {
    let mut connection = connect().map_err(ReplanError::Connect)?;
    let mut live = observe(connection.as_mut(), &experiment.name.value).map_err(ReplanError::Observe)?;
    plan_on(connection.as_mut(), experiment, graph, &mut live, options)
}

/// Plan against what was observed and what the checks of raw commands answer, and ask the target what it can do where the
/// plan could be better for knowing, and whether it has all commands of the plan.
pub fn plan_on(
    connection: &mut dyn Transport,
    experiment: &Experiment,
    graph: &Graph,
    live: &mut Live,
    options: &Options<'_>,
) -> Result<Plan, ReplanError> {
    let namespace = &experiment.name.value;
    for line in plan::checks(experiment, live, options) {
        check(connection, live, namespace, line).map_err(ReplanError::Observe)?;
    }
    let mut plan = plan::plan(experiment, graph, live, options)?;
    for command in &plan.learn {
        learn(connection, live, namespace, command).map_err(ReplanError::Observe)?;
    }
    // Until it is known, `vm flush` is taken for what it is since.
    let usual = |command: &&str| *command == FLUSH_TARGET.0 && live.help[command].contains(FLUSH_TARGET.1);
    if plan.learn.iter().all(usual) {
        plan.learn.clear();
    } else {
        plan = plan::plan(experiment, graph, live, options)?;
    }
    // Afterwards, nothing of what is left to do is sent.
    if !options.verifying {
        let problems = lacking(connection, &plan, Some(experiment), live).map_err(ReplanError::Observe)?;
        if !problems.is_empty() {
            return Err(PlanError::Blocked { problems }.into());
        }
    }
    Ok(plan)
}

/// The commands of a plan that the target does not have, by its help; see [`plan::lacking`].
pub fn lacking(
    connection: &mut dyn Transport,
    plan: &Plan,
    experiment: Option<&Experiment>,
    live: &mut Live,
) -> Result<Vec<Diagnostic>, LiveError> {
    for head in plan::heads(plan) {
        if !live.help.contains_key(head) {
            learn(connection, live, &plan.experiment, head)?;
        }
    }
    Ok(plan::lacking(plan, experiment, &live.help))
}

/// Plan again after the steps until nothing is left to do, or until the patience ends: states settle within moments
/// after the last command. Returns the last plan.
pub fn verify(
    experiment: &Experiment,
    graph: &Graph,
    options: &Options<'_>,
    connect: Connect<'_>,
    patience: Duration,
) -> Result<Plan, ReplanError> {
    let end = Instant::now() + patience;
    let mut pause = Duration::from_millis(20);
    loop {
        let plan = replan(experiment, graph, options, connect)?;
        if plan.is_empty() || Instant::now() >= end {
            return Ok(plan);
        }
        std::thread::sleep(pause.min(end.saturating_duration_since(Instant::now())));
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

#[cfg(test)]
mod tests;
