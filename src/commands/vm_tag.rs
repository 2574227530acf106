//! `vm tag` and `clear vm tag`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

const COLUMNS: &[&str] = &["name", "tag", "value"];

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("vm tag", &["vm tag <vm target> [key or all]", "vm tag <vm target> <key> <value>"],
                "show or set tags of VMs",
                "Without a key or with `all`, lists every tag; with a key, that one; with a key and a value, sets it. Tags \
                 are free text. `megaform.experiment` and `megaform.digest` are megaform's own: a VM that carries them \
                 belongs to an experiment.\n\n    vm tag web[0-2] role server")
                .columns(COLUMNS),
            |call| async move {
                let target = call.required("vm target");
                if let (Some(key), Some(value)) = (call.args.str("key"), call.args.str("value")) {
                    call.engine().set_tag(&call.namespace, target, key, value)?;
                    return Ok(Answer::done());
                }
                let wanted = call.args.str("key or all").filter(|key| *key != "all");
                let mut rows = Vec::new();
                for (name, tags) in call.engine().tags(&call.namespace, target)? {
                    for (key, value) in tags {
                        if wanted.is_none_or(|wanted| wanted == key) {
                            rows.push(vec![name.to_string(), key, value]);
                        }
                    }
                }
                Ok(Answer::table(COLUMNS, rows))
            },
        ),
        Command::new(
            Declaration::new("clear vm tag", &["clear vm tag", "clear vm tag <vm target> [tag]"],
                "remove tags from VMs",
                "Removes one tag of the VMs, or all their tags; without arguments, every tag of every VM of the namespace."),
            |call| async move {
                let target = call.args.str("vm target").unwrap_or("all");
                call.engine().clear_tag(&call.namespace, target, call.args.str("tag"))?;
                Ok(Answer::done())
            },
        ),
    ]
}
