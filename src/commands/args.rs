//! `args`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "args",
            &["args"],
            "show the daemon's command line",
            "Shows the program and the arguments that the daemon was started with, joined by blanks.",
        )
        .local(),
        |_| async {
            let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
            Ok(Answer::text(words.join(" ")))
        },
    )]
}
