//! `check`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "check",
            &["check"],
            "check that the host has what the engine needs",
            "Tries what the engine does for every VM: QEMU is asked for its version, a tap for a VM and a host tap are made on \
             a VLAN of their own and deleted again. What is missing for that is an error, one line each with what would \
             provide it. What only some commands need, such as netem for `qos` and the programs behind `dnsmasq` and \
             `nat`, is tried too, and answered where it is missing. Answers with nothing if all of it works.",
        )
        .local(),
        |call| async move {
            let checked = call.engine().check().await;
            Ok(Answer { error: checked.missing.join("\n"), ..Answer::text(checked.limits.join("\n")) })
        },
    )]
}
