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
             a VLAN of their own and deleted again. Also looks for the programs that `dnsmasq` and `nat` need. Answers with nothing if all of it works, and with one line for each \
             thing that is missing and what would provide it.",
        )
        .local(),
        |call| async move {
            let missing = call.engine().check().await;
            Ok(Answer { error: missing.join("\n"), ..Answer::default() })
        },
    )]
}
