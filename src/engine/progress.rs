//! How far the command that runs in this task has come, for whoever wants to look on.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::JoinSet;

use super::EngineError;

tokio::task_local! {
    static PROGRESS: Progress;
}

/// The progress of one command, in words; empty while it has said nothing.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<String>>);

impl Progress {
    fn held(&self) -> MutexGuard<'_, String> {
        self.0.lock().expect("no code panics while it holds the text")
    }

    /// What was said last.
    pub fn text(&self) -> String {
        self.held().clone()
    }

    /// Carry out a command that may say here how far it is.
    pub async fn of<T>(self, command: impl Future<Output = T>) -> T {
        PROGRESS.scope(self, command).await
    }
}

/// Say how far the command is. Nothing happens where nobody looks on, as in a task that the command has started.
pub fn report(text: impl FnOnce() -> String) {
    let _ = PROGRESS.try_with(|progress| *progress.held() = text());
}

/// Wait for what was begun for many VMs at once, telling how many are `done`. The errors, by the VMs' numbers.
pub(super) async fn outcomes(
    mut tasks: JoinSet<Result<(), (u32, EngineError)>>,
    done: &'static str,
) -> Vec<(u32, EngineError)> {
    let (all, mut ended, mut errors) = (tasks.len(), 0, Vec::new());
    while let Some(outcome) = tasks.join_next().await {
        ended += 1;
        errors.extend(outcome.expect("what is done for a VM does not panic").err());
        report(|| format!("{ended} of {all} VMs {done}"));
    }
    errors.sort_by_key(|(id, _)| *id);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn progress_is_that_of_the_command_in_this_task() {
        let progress = Progress::default();
        report(|| unreachable!("nobody looks on"));
        let mut tasks = JoinSet::new();
        for id in [2, 1, 0] {
            tasks.spawn(async move { if id == 0 { Ok(()) } else { Err((id, EngineError::LaunchNothing)) } });
        }
        let errors = progress.clone().of(outcomes(tasks, "launched")).await;
        assert_eq!(errors.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(progress.text(), "3 of 3 VMs launched");
    }
}
