//! `vm info`

use serde_json::Value;

use crate::engine::{INFO_COLUMNS, SUMMARY_COLUMNS};
use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new("vm info", &["vm info [summary,]"], "show VMs",
            "Lists the namespace's VMs, one row each; `summary` limits the columns to id, name, state, type, uuid, cc_active \
             and vlan. States are BUILDING (launched, never started), RUNNING, PAUSED, QUIT and ERROR. Lists have one element \
             per NIC; VLANs are shown as `alias (tag)`. Columns that a VM's type does not have are N/A. uptime counts from \
             the launch. Data holds the complete record of each VM, with why it failed in Error.\n\n\
             \x20   .columns name,state,vlan vm info\n    .filter state=error vm info")
            .columns(INFO_COLUMNS),
        |call| async move {
            let columns = if call.args.flag("summary") { SUMMARY_COLUMNS } else { INFO_COLUMNS };
            let rows = call.engine().info(&call.namespace, columns).await?;
            let (cells, records): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| (row.cells, row.record)).unzip();
            let mut answer = Answer::table(columns, cells);
            answer.data = Value::Array(records);
            Ok(answer)
        },
    )]
}
