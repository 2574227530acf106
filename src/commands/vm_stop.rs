//! `vm stop`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm stop",
            &["vm <stop,> <vm target>"],
            "pause VMs",
            "Pauses VMs; `vm start` lets them go on. A named VM that does not run is an error. See `help vm start` for \
             targets.",
        ),
        |call| async move {
            call.engine().stop(&call.namespace, call.required("vm target")).await?;
            Ok(Answer::done())
        },
    )]
}
