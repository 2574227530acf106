//! `history` and `clear history`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

/// How many lines are kept at most.
pub const HISTORY_LIMIT: usize = 10_000;

/// The command that leaves no history, not even itself.
pub const CLEAR_HISTORY: &str = "clear history";

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("history", &["history"], "show the commands that were given",
                "Shows every line that was a command since the daemon started or the history was cleared, oldest first, \
                 those that failed included. Lines under `.record false` are not kept. Of very many, the last 9,000 to \
                 10,000 are.")
                .local(),
            |call| async move {
                Ok(Answer::text(call.shared.history.lock().expect("history is not poisoned").join("\n")))
            },
        ),
        Command::new(
            Declaration::new(CLEAR_HISTORY, &["clear history"], "forget the history", "Empties `history`.").local(),
            |call| async move {
                call.shared.history.lock().expect("history is not poisoned").clear();
                Ok(Answer::done())
            },
        ),
    ]
}
