//! `vm start`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm start",
            &["vm <start,> <vm target>"],
            "start VMs",
            "Starts VMs that are building or paused. VMs that have quit or failed are started too, as new, where they are \
             named; `all` leaves them alone. A VM that runs stays as it is.\n\n\
             A target is a name, an id, a list with ranges, or `all`:\n\n\
             \x20   vm start web0\n    vm start web0,fw\n    vm start web[0-2,5]\n    vm start all\n\n\
             One name that does not exist is an error; of several, those that exist are meant.",
        ),
        |call| async move {
            call.engine().start(&call.namespace, call.required("vm target")).await?;
            Ok(Answer::done())
        },
    )]
}
