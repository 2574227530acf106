//! `shell`

use crate::engine::{SHELL_OUTPUT, exit_text};
use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new("shell", &["shell <command>..."], "run a program on the engine's host",
            "Runs a program with the daemon's rights, in the engine's network namespace, and answers with what it wrote: \
             standard output, then standard error. The words are its arguments as they are: there is no shell in between, so \
             no pipes and no wildcards. Waits until the program has ended and closed its outputs. A status other than 0 is \
             an error. Of each output the answer holds the first 8 MiB; if there was more, the answer is an error that says \
             how much is missing.\n\n    shell ip address show dev mega_tap0")
            .local(),
        |call| async move {
            let finished = call.engine().run_program(call.args.list("command")).await?;
            let mut text = String::from_utf8_lossy(&finished.output.kept).into_owned();
            text.push_str(&String::from_utf8_lossy(&finished.errors.kept));
            let mut error = exit_text(Some(finished.status));
            for (output, name) in [(&finished.output, "standard output"), (&finished.errors, "standard error")] {
                if output.left_out > 0 {
                    let and = if error.is_empty() { "" } else { "; " };
                    error.push_str(&format!(
                        "{and}the answer holds the first {} MiB of its {name}, {} bytes more are left out",
                        SHELL_OUTPUT >> 20,
                        output.left_out
                    ));
                }
            }
            Ok(Answer { text, error, ..Answer::default() })
        },
    )]
}
