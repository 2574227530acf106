//! `check`

use serde_json::{Value, json};

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
             `nat`, is tried too, and answered where it is missing. The first line of the answer, and Switch of Data, say what connects taps.",
        )
        .local(),
        |call| async move {
            let checked = call.engine().check().await;
            // Without a network it is among what is missing.
            let switch = call.engine().switch().await.ok();
            let mut lines: Vec<String> = switch.iter().map(|switch| format!("switch: {switch}")).collect();
            lines.extend(checked.limits);
            let data = switch.map_or(Value::Null, |switch| json!({ "Switch": switch }));
            Ok(Answer { error: checked.missing.join("\n"), data, ..Answer::text(lines.join("\n")) })
        },
    )]
}
