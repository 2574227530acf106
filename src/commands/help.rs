//! `help`

use crate::language::declaration::{Completion, Declaration};
use crate::language::help;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "help",
            &["help [command]..."],
            "show help",
            "Without arguments, lists every command. With the first words of a command, shows its patterns and what it \
             does; with words that several commands begin with, lists those.\n\n    help vm config\n    help vm launch",
        )
        .local()
        .complete("command", Completion::Command),
        |call| async move {
            Ok(match help::help(&call.shared.grammar, call.args.list("command")) {
                Ok(text) => Answer::text(text),
                Err(error) => Answer { error: error.to_string(), ..Answer::default() },
            })
        },
    )]
}
