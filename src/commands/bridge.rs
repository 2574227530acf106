//! `bridge`

use serde_json::{Map, Value, json};

use crate::engine::{Bond, EngineError, Tunnel, TunnelKind};
use crate::language::declaration::Declaration;

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["bridge", "preexisting", "vlans", "trunks", "tunnels", "bonds", "config"];

async fn bridge(call: Call) -> Result<Answer, EngineError> {
    let engine = call.engine();
    let changes = ["config", "trunk", "notrunk", "tunnel", "notunnel", "destroy"];
    let Some(change) = changes.into_iter().find(|change| call.args.flag(change)) else {
        return list(&call).await;
    };
    let bridge = call.required("bridge");
    match change {
        "config" => engine.configure_bridge(bridge, call.required("config")).await?,
        "trunk" => engine.add_trunk(bridge, call.required("interface")).await?,
        "notrunk" => engine.remove_trunk(bridge, call.required("interface")).await?,
        "tunnel" => {
            let kind = if call.args.flag("gre") { TunnelKind::Gre } else { TunnelKind::Vxlan };
            let made = engine.add_tunnel(kind, bridge, call.required("remote ip"), call.args.str("key")).await?;
            return Ok(Answer::text(made));
        }
        "notunnel" => engine.remove_tunnel(bridge, call.required("interface")).await?,
        _ => engine.destroy_bridge(bridge).await?,
    }
    Ok(Answer::done())
}

async fn list(call: &Call) -> Result<Answer, EngineError> {
    let engine = call.engine();
    let words = |words: &[String]| format!("[{}]", words.join(", "));
    let bridges = engine.bridges().await?;
    let bonds = if bridges.iter().all(|info| info.bonds.is_empty()) { Vec::new() } else { engine.bonds().await? };
    // What the tunnels and the bonds are has no column in minimega's table.
    let end = |(interface, to): (&String, &Tunnel)| {
        json!({
            "Interface": interface, "Type": to.kind.word(), "Remote": to.remote.to_string(),
            "Key": to.key.map(|key| key.to_string()).unwrap_or_default(),
        })
    };
    let bond = |bond: &Bond| {
        json!({
            "Name": bond.name, "Taps": bond.taps, "Mode": bond.mode.word(), "LACP": bond.lacp.word(),
            "Fallback": bond.fallback, "QinQ": bond.qinq,
        })
    };
    let data = bridges
        .iter()
        .map(|info| {
            let on_it = bonds.iter().filter(|bond| info.bonds.iter().any(|name| *name == bond.name.as_str()));
            json!({
                "Bridge": info.bridge.as_str(),
                "Tunnels": info.ends.iter().map(end).collect::<Vec<_>>(),
                "Bonds": on_it.map(bond).collect::<Vec<_>>(),
            })
        })
        .collect();
    let rows = bridges
        .into_iter()
        .map(|info| {
            let vlans: Vec<String> = info.vlans.iter().map(|tag| engine.show_vlan(&call.namespace, *tag)).collect();
            let config: Map<String, Value> =
                info.config.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
            vec![
                info.bridge.to_string(),
                info.preexisting.to_string(),
                words(&vlans),
                words(&info.trunks),
                words(&info.tunnels),
                words(&info.bonds),
                Value::Object(config).to_string(),
            ]
        })
        .collect();
    Ok(Answer { empty_list: true, data, ..Answer::table(COLUMNS, rows) })
}

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "bridge",
            &[
                "bridge",
                "bridge <config,> <bridge> <config>",
                "bridge <trunk,> <bridge> <interface>",
                "bridge <notrunk,> <bridge> <interface>",
                "bridge <tunnel,> <vxlan,gre> <bridge> <remote ip> [key]",
                "bridge <notunnel,> <bridge> <interface>",
                "bridge <destroy,> <bridge>",
            ],
            "show bridges, add trunks and tunnels to them",
            "A bridge connects the taps that are on one of its VLANs. It is there as long as a tap, a trunk or a tunnel is on \
             it. Without arguments, lists every bridge of this engine; bridges belong to no namespace. The `Data` of the \
             answer tells type, remote address and key of each tunnel, and taps, mode and use of LACP of each bond.\n\n\
             config: sets `key=value` settings of Open vSwitch. A Linux bridge has none.\n\
             trunk: lets an interface carry all VLANs of the bridge with their tags (IEEE 802.1Q); VLAN 0 is what has no tag. \
             The interface is one of the engine's network namespace or, if there is none of that name, one of the host, which \
             is moved there. One that has an address or a default route is refused.\n\
             notrunk: takes a trunk off the bridge; it goes back to where it was.\n\
             tunnel: connects the bridge to that of another host by a tunnel that carries all VLANs, and answers with the name of \
             the tunnel's interface. The engine needs an address of its own towards the remote one, of a host tap for \
             example. The key is the VNI of a vxlan tunnel (0 to 16777215, default 0; no two of an engine can have the same) \
             or the key of a gre tunnel (32 bits, default none). Both ends have the same.\n\
             notunnel: deletes a tunnel by the name of its interface.\n\
             destroy: deletes a bridge with its trunks and tunnels. One that has taps is refused.\n\n\
                 \x20   bridge trunk mega_bridge eth1\n    bridge tunnel vxlan mega_bridge 192.0.2.7 100",
        )
        .local()
        .columns(COLUMNS),
        bridge,
    )]
}
