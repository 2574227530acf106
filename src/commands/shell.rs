//! `shell`

use crate::engine::exit_text;
use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new("shell", &["shell <command>..."], "run a program on the engine's host",
            "Runs a program with the daemon's rights, in the engine's network namespace, and answers with what it wrote: \
             standard output, then standard error. The words are its arguments as they are: there is no shell in between, so \
             no pipes and no wildcards. Waits until the program has ended and closed its outputs. A status other than 0 is \
             an error beside what it wrote. It goes on when its client leaves, and ends with the daemon. Of each output the \
             answer holds the first 8 MiB; if there was more, a line after them says how much is left out.\n\n    shell ip address show dev mega_tap0")
            .local(),
        |call| async move {
            let finished = call.engine().run_program(call.args.list("command")).await?;
            let mut text = String::new();
            for (output, name) in [(&finished.output, "standard output"), (&finished.errors, "standard error")] {
                text.push_str(&String::from_utf8_lossy(&output.kept));
                if output.left_out > 0 {
                    let line = if output.kept.ends_with(b"\n") { "" } else { "\n" };
                    text.push_str(&format!("{line}[{} bytes more of {name} are left out]\n", output.left_out));
                }
            }
            let error = exit_text(finished.status);
            Ok(Answer { text, error, ..Answer::default() })
        },
    )]
}
