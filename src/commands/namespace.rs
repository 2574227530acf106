//! `namespace` and `clear namespace`

use crate::engine::{Engine, EngineError};
use crate::language::declaration::{Completion, Declaration};
use crate::name::Namespace;

use super::{Answer, Builtin, Command, Run};

/// The columns of `namespace`.
const COLUMNS: &[&str] = &["namespace", "vlans", "active"];

/// The table of `namespace`.
pub fn table(engine: &Engine) -> Answer {
    let rows = engine
        .namespaces()
        .into_iter()
        .map(|info| vec![info.name.to_string(), info.vlans, info.active.to_string()])
        .collect();
    Answer::table(COLUMNS, rows)
}

/// The command that leaves the active namespace, or destroys one.
pub const CLEAR_NAMESPACE: &str = "clear namespace";

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command {
            declaration: Declaration::new("namespace", &["namespace [name]", "namespace <name> (command)"],
                "show or change the active namespace, or run a command in another",
                "Without arguments, lists the namespaces with their VLAN ranges and which one is active. With a name, \
                 makes that namespace the active one for every client of this daemon, creating it if needed. With a name \
                 and a command, runs the command there and changes nothing else.\n\n    namespace lab vm info\n\n\
                 Names have letters, digits, `-`, `_` and `.`, at most 64; `all` and integers are refused.")
                .local()
                .columns(COLUMNS)
                .complete("name", Completion::Namespace),
            run: Run::Builtin(Builtin::Namespace),
        },
        Command::new(
            Declaration::new(CLEAR_NAMESPACE, &["clear namespace [name]"],
                "destroy a namespace, or leave the active one",
                "Without a name, makes `minimega` the active namespace again. With a name, kills and flushes that \
                 namespace's VMs, ends its captures, deletes its taps, ends its pipelines and pipes, and forgets its VLAN aliases and \
                 configurations; one that does not exist is fine. With `all`, does so for every namespace.")
                .complete("name", Completion::Namespace),
            |call| async move {
                match call.args.str("name") {
                    None => call.engine().activate(&Namespace::default_namespace())?,
                    Some("all") => call.engine().destroy_all_namespaces().await?,
                    Some(name) => {
                        let name = Namespace::new(name).map_err(EngineError::from)?;
                        call.engine().destroy_namespace(&name).await?;
                    }
                }
                Ok(Answer::done())
            },
        ),
    ]
}
