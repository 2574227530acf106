//! `shell`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new("shell", &["shell <command>..."], "run a program on the engine's host",
            "Runs a program with the daemon's rights, in the engine's network namespace, and answers with what it wrote. \
             The words are its arguments as they are: there is no shell in between, so no pipes and no wildcards. Waits \
             until the program ends. A status other than 0 is an error.\n\n    shell ip address show dev mega_tap0")
            .local(),
        |call| async move {
            let output = call.engine().run_program(call.args.list("command")).await?;
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&output.stderr));
            let error = if output.status.success() { String::new() } else { output.status.to_string() };
            Ok(Answer { text, error, ..Answer::default() })
        },
    )]
}
