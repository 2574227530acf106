//! `vm qmp`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm qmp",
            &["vm qmp <vm name> <qmp command>"],
            "send a QMP command to a VM's QEMU",
            "Sends one command of QEMU's machine protocol, as JSON, and answers with QEMU's reply in one line.\n\n\
             \x20   vm qmp web0 '{ \"execute\": \"query-status\" }'",
        ),
        |call| async move {
            let reply =
                call.engine().qmp(&call.namespace, call.required("vm name"), call.required("qmp command")).await?;
            Ok(Answer::text(format!("{}\n", reply.trim_end())))
        },
    )]
}
