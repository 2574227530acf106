//! `write`

use crate::engine::EngineError;
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "write",
            &["write <file>"],
            "write the history to a file",
            "Writes the lines of `history` to a file on the engine's host, one a line: a script for `megaform run`. A relative \
             path is relative to the engine's files folder. A file that exists is replaced.",
        )
        .local()
        .complete("file", Completion::Path),
        |call| async move {
            let path = call.engine().base().join("files").join(call.required("file"));
            let mut text = call.shared.history.lock().expect("history is not poisoned").join("\n");
            if !text.is_empty() {
                text.push('\n');
            }
            std::fs::write(&path, text).map_err(|source| EngineError::File { action: "write", path, source })?;
            Ok(Answer::done())
        },
    )]
}
