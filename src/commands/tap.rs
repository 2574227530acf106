//! `tap` and `clear tap`

use serde_json::{Value, json};

use crate::engine::{EngineError, MirrorsTo, TapAddress, TapRequest};
use crate::language::declaration::{Completion, Declaration};
use crate::name::{BridgeName, TapName};

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["bridge", "tap", "vlan"];

async fn tap(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    if call.args.flag("create") {
        let request = TapRequest {
            vlan: call.required("vlan").to_owned(),
            bridge: call.args.str("bridge").map(BridgeName::new).transpose()?,
            name: call.args.str("tap name").map(TapName::new).transpose()?,
            address: match call.args.str("ip") {
                Some(ip) => TapAddress::parse(ip)?,
                None if call.args.flag("dhcp") => TapAddress::Dhcp,
                None => TapAddress::None,
            },
        };
        return Ok(Answer::text(engine.create_tap(namespace, request).await?.as_str()));
    }
    if call.args.flag("delete") {
        let name = Some(call.required("tap name or all")).filter(|name| *name != "all");
        engine.delete_taps(namespace, name).await?;
        return Ok(Answer::done());
    }
    if call.args.flag("mirror") {
        match (call.args.str("src name"), call.args.str("dst name")) {
            (Some(source), Some(destination)) => {
                engine.mirror_taps(namespace, source, destination, call.args.str("bridge")).await?;
            }
            _ => {
                let source = (call.required("vm name"), call.required("interface index"));
                let destination = (call.required("vm2 name"), call.required("interface2 index"));
                engine.mirror_nics(namespace, source, destination).await?;
            }
        }
        return Ok(Answer::done());
    }
    let mirrors: Vec<Value> = engine
        .mirrors(namespace)
        .await?
        .into_iter()
        .map(|mirror| json!({"Source": mirror.source.as_str(), "Destination": mirror.destination.as_str()}))
        .collect();
    let rows = engine
        .taps(namespace)
        .await?
        .into_iter()
        .map(|tap| {
            let vlan = tap.vlan.map_or_else(|| "disconnected".to_owned(), |tag| engine.show_vlan(namespace, tag));
            vec![tap.bridge, tap.tap.to_string(), vlan]
        })
        .collect();
    // Taps of VMs have mirrors too, so that they are not a column. An empty list says that there are none.
    let data = json!({ "Mirrors": mirrors });
    Ok(Answer { empty_list: true, data, ..Answer::table(COLUMNS, rows) })
}

async fn clear(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    if !call.args.flag("mirror") {
        engine.clear_mirrors(namespace, MirrorsTo::All).await?;
        engine.delete_taps(namespace, None).await?;
        return Ok(Answer::done());
    }
    let which = match (call.args.str("vm name"), call.args.str("interface index or all"), call.args.str("name")) {
        (Some(vm), Some(index), _) => MirrorsTo::Nic(vm.to_owned(), index.to_owned()),
        (_, _, Some(name)) => MirrorsTo::Tap(TapName::new(name)?),
        _ => MirrorsTo::All,
    };
    engine.clear_mirrors(namespace, which).await?;
    Ok(Answer::done())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("tap",
                &[
                    "tap",
                    "tap <create,> <vlan>",
                    "tap <create,> <vlan> name <tap name>",
                    "tap <create,> <vlan> <dhcp,> [tap name]",
                    "tap <create,> <vlan> ip <ip> [tap name]",
                    "tap <create,> <vlan> bridge <bridge>",
                    "tap <create,> <vlan> bridge <bridge> name [tap name]",
                    "tap <create,> <vlan> bridge <bridge> <dhcp,> [tap name]",
                    "tap <create,> <vlan> bridge <bridge> ip <ip> [tap name]",
                    "tap <mirror,> <src name> <dst name> [bridge]",
                    "tap <mirror,> <vm name> <interface index> <vm2 name> <interface2 index>",
                    "tap <delete,> <tap name or all>",
                ],
                "show, create or delete host taps, mirror taps",
                "A host tap is an interface of the engine on a VLAN, in the engine's network namespace. Without arguments, \
                 lists the namespace's taps.\n\n\
                 create: makes a tap on a VLAN (an alias or a tag from 0 to 4095) and answers with its name. The name has at \
                 most 15 characters (default: the next free mega_tapN); ip is an address with its prefix length, IPv4 or \
                 IPv6; the default bridge is mega_bridge. With dhcp, a DHCP server on the VLAN gives the address, which is renewed \
                 as long as the tap is there; nothing else that it offers is taken, no route and no name server. Answers \
                 once there is a lease. Without one after 15 s it is an error and the tap is not made. \
                 A tap of that name that is disconnected, because its bridge was deleted by hand, is connected again.\n\
                 mirror: sends a copy of every frame that passes one tap, in either direction, out of another. Taps are those of \
                 this namespace and of its VMs (`vm info`), or NICs of VMs, counted from 0. With a bridge, both have to be on it. A \
                 tap can be copied to several and get copies of several; it also stays on its own VLAN. The mirror stays when \
                 they move, ends with either of them, and is listed in the Data of `tap`.\n\
                 delete: deletes a tap of this namespace, or all of them.\n\n\
                     \x20   tap create dmz ip 10.0.0.254/24 mgmt")
                .columns(COLUMNS)
                .complete("vlan", Completion::Vlan)
                .complete("tap name or all", Completion::Tap),
            tap,
        ),
        Command::new(
            Declaration::new("clear tap",
                &[
                    "clear tap",
                    "clear tap <mirror,> [name]",
                    "clear tap <mirror,> <vm name> <interface index or all>",
                ],
                "delete all host taps, or end mirrors",
                "Deletes every host tap of the namespace and ends its mirrors.\n\n\
                 mirror: ends the mirrors to a tap, to a NIC of a VM or to all of its NICs, or all mirrors of the namespace. One \
                 that gets no copies is an error, unless all are meant.")
                .complete("name", Completion::Tap),
            clear,
        ),
    ]
}
