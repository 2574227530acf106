//! `echo`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "echo",
            &["echo [args]..."],
            "answer with words",
            "Answers with its words, joined by blanks: to mark places in a script's output.",
        )
        .local(),
        |call| async move { Ok(Answer::text(call.args.list("args").join(" "))) },
    )]
}
