//! `vm launch`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm launch",
            &["vm launch", "vm launch <kvm,> <name or count> [config]"],
            "launch VMs",
            "Launches VMs with the namespace's `vm config`, or with a configuration that `vm config save` saved, and leaves \
             them paused in the state BUILDING; `vm start` starts them. The VMs are a name, a list with ranges, or a count \
             (then they are called vm-0, vm-1, …). All QEMUs start at once.\n\n\
             \x20   vm launch kvm web[0-9]\n    vm launch kvm 3\n\n\
             Names have letters, digits, `-` and `_`, at most 64; integers and `all` are refused, as are names and UUIDs in \
             use: then nothing is launched. A VM whose QEMU does not start is left in the state ERROR with QEMU's message, \
             which is also the answer.\n\n\
             NICs without an address get one that depends only on namespace, VM and NIC: a VM that is launched again keeps it.\n\n\
             Under `ns queueing true`, a launch with names only queues, with the configuration of that moment; `vm launch` \
             without arguments launches all that is queued, or nothing where one of it cannot be scheduled (`help ns`).",
        ),
        |call| async move {
            let engine = call.engine();
            if !call.args.flag("kvm") {
                engine.launch_queue(&call.namespace).await?;
                return Ok(Answer::done());
            }
            let config = match call.args.str("config") {
                Some(name) => engine.saved_config(&call.namespace, name)?,
                None => engine.config(&call.namespace),
            };
            engine.launch(&call.namespace, call.required("name or count"), config).await?;
            Ok(Answer::done())
        },
    )]
}
