//! `tap` and `clear tap`

use crate::engine::{EngineError, TapAddress, TapRequest};
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
    let rows = engine
        .taps(namespace)
        .await?
        .into_iter()
        .map(|tap| {
            let vlan = tap.vlan.map_or_else(|| "disconnected".to_owned(), |tag| engine.show_vlan(namespace, tag));
            vec![tap.bridge, tap.tap.to_string(), vlan]
        })
        .collect();
    Ok(Answer { empty_list: true, ..Answer::table(COLUMNS, rows) })
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
                    "tap <delete,> <tap name or all>",
                ],
                "show, create or delete host taps",
                "A host tap is an interface of the engine on a VLAN, in the engine's network namespace. Without arguments, \
                 lists the namespace's taps.\n\n\
                 create: makes a tap on a VLAN (an alias or a tag from 0 to 4095) and answers with its name. The name has at \
                 most 15 characters (default: the next free mega_tapN); ip is an address with its prefix length, IPv4 or \
                 IPv6; the default bridge is mega_bridge. With dhcp, a DHCP server on the VLAN gives the address, which is renewed \
                 as long as the tap is there; nothing else that it offers is taken, no route and no name server. Answers \
                 once there is a lease. Without one after 15 s it is an error and the tap is not made.\n\
                 delete: deletes a tap of this namespace, or all of them.\n\n\
                     \x20   tap create dmz ip 10.0.0.254/24 mgmt")
                .columns(COLUMNS)
                .complete("vlan", Completion::Vlan)
                .complete("tap name or all", Completion::Tap),
            tap,
        ),
        Command::new(
            Declaration::new("clear tap", &["clear tap"], "delete all host taps", "Deletes every host tap of the namespace."),
            |call| async move {
                call.engine().delete_taps(&call.namespace, None).await?;
                Ok(Answer::done())
            },
        ),
    ]
}
