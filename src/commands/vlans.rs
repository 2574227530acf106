//! `vlans` and `clear vlans`

use crate::engine::{EngineError, VlanError, Vlans};
use crate::language::declaration::{Completion, Declaration};
use crate::name::VlanTag;

use super::{Answer, Command};

fn tag(text: &str) -> Result<VlanTag, EngineError> {
    text.parse().ok().and_then(VlanTag::new).ok_or_else(|| VlanError::Tag { text: text.to_owned() }.into())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "vlans",
                &[
                    "vlans",
                    "vlans <range,>",
                    "vlans <range,> <min> <max>",
                    "vlans <add,> <alias> <vlan>",
                    "vlans <blacklist,> [vlan]",
                ],
                "show VLAN aliases, bind one to a tag, set the range of tags",
                "Without arguments, lists the namespace's aliases with their tags.\n\n\
                 range: shows or sets the tags that new aliases of this namespace get, from min up to and without max \
                 (default: 101 to 4096).\n\
                 add: binds an alias to a tag from 0 to 4095. An alias or a tag that is in use is an error.\n\
                 blacklist: shows the tags that are never given out, or adds one.\n\n\
                 An alias that is named for the first time, by a NIC or a tap, gets the next free tag. `other//alias` \
                 names an alias of another namespace.\n\n    vlans add dmz 200",
            )
            .columns(&["alias", "vlan"])
            .complete("alias", Completion::Vlan),
            |call| async move {
                let namespace = call.namespace.clone();
                let engine = call.engine();
                if call.args.flag("range") {
                    if let (Some(min), Some(max)) = (call.args.str("min"), call.args.str("max")) {
                        engine.vlans(|vlans| vlans.set_range(&namespace, min, max))?;
                        return Ok(Answer::done());
                    }
                    let range = engine.read_vlans(|vlans| vlans.range(&namespace));
                    let row = vec![range.min.to_string(), range.max.to_string(), range.next.to_string()];
                    return Ok(Answer::table(&["min", "max", "next"], vec![row]));
                }
                if call.args.flag("add") {
                    let alias = Vlans::parse(&namespace, call.required("alias"))?;
                    let tag = tag(call.required("vlan"))?;
                    engine.vlans(|vlans| vlans.add(&alias, tag))?;
                    return Ok(Answer::done());
                }
                if call.args.flag("blacklist") {
                    if let Some(text) = call.args.str("vlan") {
                        let tag = tag(text)?;
                        engine.vlans(|vlans| {
                            vlans.blacklist(tag);
                            Ok(())
                        })?;
                        return Ok(Answer::done());
                    }
                    let rows =
                        engine.read_vlans(|vlans| vlans.blacklisted().map(|tag| vec![tag.to_string()]).collect());
                    return Ok(Answer::table(&["vlan"], rows));
                }
                let rows = engine.vlan_rows(&namespace).into_iter().map(|r| vec![r.alias, r.tag.to_string()]).collect();
                Ok(Answer { empty_list: true, ..Answer::table(&["alias", "vlan"], rows) })
            },
        ),
        Command::new(
            Declaration::new(
                "clear vlans",
                &["clear vlans [prefix]"],
                "forget VLAN aliases",
                "Without a prefix, forgets every alias of the namespace. With one, forgets the alias of exactly that name; \
                 where there is none, every alias that begins with it. With `all`, forgets the aliases, ranges and \
                 blacklist of every namespace. NICs and taps stay where they are.",
            )
            .complete("prefix", Completion::Vlan),
            |call| async move {
                let namespace = call.namespace.clone();
                let prefix = call.args.str("prefix").map(str::to_owned);
                call.engine().vlans(|vlans| {
                    match prefix.as_deref() {
                        Some("all") => vlans.clear_all(),
                        prefix => vlans.clear(&namespace, prefix),
                    }
                    Ok(())
                })?;
                Ok(Answer::done())
            },
        ),
    ]
}
