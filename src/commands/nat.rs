//! `nat` and `clear nat`

use crate::engine::EngineError;
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["bridge", "vlan", "gateway", "pid"];

async fn nat(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    if call.args.flag("add") {
        engine.add_nat(namespace, call.required("vlan"), call.required("ip"), call.args.str("bridge")).await?;
        return Ok(Answer::done());
    }
    if call.args.flag("delete") {
        let vlan = Some(call.required("vlan or all")).filter(|vlan| *vlan != "all");
        engine.delete_nat(namespace, vlan, call.args.str("bridge")).await?;
        return Ok(Answer::done());
    }
    let rows = engine.nat(namespace).await?.into_iter().map(|nat| {
        let pid = match nat.ended {
            None if nat.disconnected => "disconnected: its bridge was deleted".to_owned(),
            None => nat.pid.to_string(),
            Some(how) => format!("ended: {how}"),
        };
        vec![nat.bridge.to_string(), engine.show_vlan(namespace, nat.vlan), nat.gateway.to_string(), pid]
    });
    Ok(Answer { empty_list: true, ..Answer::table(COLUMNS, rows.collect()) })
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "nat",
                &["nat", "nat <add,> <vlan> <ip> [bridge]", "nat <delete,> <vlan or all> [bridge]"],
                "show, open or close ways from VLANs to the outside",
                "A command of megaform's own. A VLAN has no way out unless it is given one: a gateway through which its guests \
                 reach whatever this host reaches by IPv4, under this host's address. Nobody outside reaches them, and VLANs \
                 with a gateway do not reach each other. Nothing of the host's network is changed, and gateways outlive the \
                 daemon. Without arguments, lists the namespace's gateways; the pid of one that no longer works says so: delete it and add it again.\n\n\
                 add: makes a gateway with this address (with its prefix length) on a VLAN, for guests to use as their \
                 router. The default bridge is mega_bridge. Needs slirp4netns and nft.\n\
                 delete: closes the way out of a VLAN of this namespace, or of all of them; with a bridge only there.\n\n\
                 \x20   nat add dmz 10.0.0.254/24",
            )
            .own()
            .columns(COLUMNS)
            .complete("vlan", Completion::Vlan)
            .complete("vlan or all", Completion::Vlan),
            nat,
        ),
        Command::new(
            Declaration::new(
                "clear nat",
                &["clear nat"],
                "close all ways to the outside",
                "Closes the way out of every VLAN of the namespace. A command of megaform's own.",
            )
            .own(),
            |call| async move {
                call.engine().delete_nat(&call.namespace, None, None).await?;
                Ok(Answer::done())
            },
        ),
    ]
}
