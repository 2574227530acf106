//! `clear all`; the dispatcher carries it out, because it has the other commands.

use crate::language::declaration::Declaration;

use super::{Builtin, Command, Run};

/// Its name.
pub const CLEAR_ALL: &str = "clear all";

pub(super) fn commands() -> Vec<Command> {
    vec![Command {
        declaration: Declaration::new(
            CLEAR_ALL,
            &["clear all"],
            "clear everything",
            "Runs `clear namespace all` and then every other `clear` command that needs no argument: all VMs of all namespaces \
             are killed and flushed, captures ended, taps and then all bridges with their trunks and tunnels deleted, \
             VLAN aliases, configurations and the history forgotten, the log \
             set back. Background processes that run, files, aliases, variables and output switches stay. Goes on past \
             what fails and answers with all errors.",
        )
        .local(),
        run: Run::Builtin(Builtin::ClearAll),
    }]
}
