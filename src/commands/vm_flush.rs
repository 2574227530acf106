//! `vm flush`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm flush",
            &["vm <flush,>", "vm <flush,> <vm target>"],
            "discard VMs that have ended",
            "Discards VMs that have quit or failed, with their folders; their names may be used again. Without a target or \
             with `all`, every such VM. A named VM that is alive is an error. See `help vm start` for targets.",
        ),
        |call| async move {
            call.engine().flush(&call.namespace, call.args.str("vm target")).await?;
            Ok(Answer::done())
        },
    )]
}
