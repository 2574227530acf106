//! The machine-readable form of a plan. Its shape is versioned: a change that a reader could stumble over counts up
//! `format`.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{Action, Change, Expect, Holds, Plan, Step};
use crate::name::{Address, Namespace};

/// The version of the form.
const FORMAT: u32 = 2;

#[derive(serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum ExpectView<'a> {
    Answer,
    Vms { names: &'a [String], states: &'a [crate::live::VmState] },
    Gone { names: &'a [String] },
    Queued { names: &'a [String] },
    Drained,
    Named { kind: crate::name::Kind, key: &'a str, id: &'a str },
    Until { holds: &'a Holds, timeout: u32 },
}

#[derive(serde::Serialize)]
struct StepView<'a> {
    id: usize,
    command: &'a str,
    addresses: Vec<&'a Address>,
    needs: &'a [usize],
    after: &'a [usize],
    undo: Option<Vec<String>>,
    guard: Option<&'a str>,
    expect: ExpectView<'a>,
}

#[derive(serde::Serialize)]
struct Summary {
    create: usize,
    update: usize,
    replace: usize,
    restore: usize,
    destroy: usize,
    commands: usize,
}

fn view<'a>(experiment: &Namespace, changes: &'a [Change], step: &'a Step) -> StepView<'a> {
    StepView {
        id: step.id,
        command: &step.command,
        addresses: step.serves.iter().map(|i| &changes[*i].address).collect(),
        needs: &step.needs,
        after: &step.after,
        undo: step.undo.commands(experiment),
        guard: step.guard.as_deref(),
        expect: match &step.expect {
            Expect::Answer => ExpectView::Answer,
            Expect::Vms { names, states } => ExpectView::Vms { names, states },
            Expect::Gone { names } => ExpectView::Gone { names },
            Expect::Queued { names } => ExpectView::Queued { names },
            Expect::Drained => ExpectView::Drained,
            Expect::Named { kind, key, id } => ExpectView::Named { kind: *kind, key, id },
            Expect::Until { holds, timeout } => ExpectView::Until { holds, timeout: *timeout },
        },
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut plan = serializer.serialize_struct("Plan", 11)?;
        plan.serialize_field("format", &FORMAT)?;
        plan.serialize_field("experiment", &self.experiment)?;
        plan.serialize_field("destroy", &self.destroy)?;
        plan.serialize_field("partial", &self.partial)?;
        plan.serialize_field("drift_only", &self.drift_only)?;
        let summary = Summary {
            create: self.count(Action::Create),
            update: self.count(Action::Update),
            replace: self.count(Action::Replace),
            restore: self.count(Action::Restore),
            destroy: self.count(Action::Destroy),
            commands: self.steps.len(),
        };
        plan.serialize_field("summary", &summary)?;
        plan.serialize_field("changes", &self.changes)?;
        let steps: Vec<StepView<'_>> = self.steps.iter().map(|s| view(&self.experiment, &self.changes, s)).collect();
        plan.serialize_field("steps", &steps)?;
        plan.serialize_field("unchanged", &self.unchanged)?;
        plan.serialize_field("unmanaged", &self.unmanaged)?;
        plan.serialize_field("notes", &self.notes)?;
        plan.end()
    }
}
