//! `vm kill`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm kill",
            &["vm <kill,> <vm target>"],
            "end VMs",
            "Ends VMs at once, as if their power were cut. They stay in `vm info` as QUIT and keep their names until `vm \
             flush`. See `help vm start` for targets.",
        ),
        |call| async move {
            call.engine().kill(&call.namespace, call.required("vm target")).await?;
            Ok(Answer::done())
        },
    )]
}
