//! `vm net add`, `vm net connect` and `vm net disconnect`

use crate::language::declaration::{Completion, Declaration};
use crate::language::netspec::NetSpec;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("vm net add", &["vm net <add,> <vm target> [netspec]..."],
                "add NICs to VMs",
                "Adds NICs to VMs, one for each netspec, behind those that they have (the forms of a netspec are those of `vm config \
                 networks`). A VM that runs gets them at once; its guest needs PCI hotplug (acpiphp). One that has quit gets \
                 them with its next start.\n\n    vm net add web0 dmz,virtio-net-pci"),
            |call| async move {
                let specs = call.args.list("netspec").iter().map(|spec| NetSpec::parse(spec)).collect::<Result<Vec<_>, _>>();
                call.engine().add_nics(&call.namespace, call.required("vm target"), specs?).await?;
                Ok(Answer::done())
            },
        ),
        Command::new(
            Declaration::new("vm net connect", &["vm net <connect,> <vm target> <tap position> <vlan> [bridge]"],
                "move a NIC to another VLAN",
                "Moves a NIC of running VMs to a VLAN (an alias or a tag from 0 to 4095). NICs are counted from 0, in the \
                 order of `vm info`. Without a bridge, the NIC stays on the one that it is on.\n\n    vm net connect web0 0 core")
                .complete("vlan", Completion::Vlan),
            |call| async move {
                call.engine()
                    .connect_nic(
                        &call.namespace,
                        call.required("vm target"),
                        call.required("tap position"),
                        call.required("vlan"),
                        call.args.str("bridge"),
                    )
                    .await?;
                Ok(Answer::done())
            },
        ),
        Command::new(
            Declaration::new("vm net disconnect", &["vm net <disconnect,> <vm target> <tap position>"],
                "unplug a NIC",
                "Takes a NIC of running VMs off its VLAN. `vm net connect` puts it on one again.\n\n    vm net disconnect web0 0"),
            |call| async move {
                call.engine()
                    .disconnect_nic(&call.namespace, call.required("vm target"), call.required("tap position"))
                    .await?;
                Ok(Answer::done())
            },
        ),
    ]
}
