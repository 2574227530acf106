//! `mesh`, as a node answers that has no peers. Dialling others is not in the grammar: this engine has no such protocol.

use serde_json::json;

use crate::engine::{EngineError, go_duration};
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Builtin, Command, Run};

/// The columns of `mesh status`.
const STATUS: &[&str] = &["size", "degree", "peers", "context", "port"];

/// The topology in Graphviz's language: one node.
fn dot(host: &str) -> String {
    let quoted = host.replace('\\', "\\\\").replace('"', "\\\"");
    format!("graph mesh {{\n    \"{quoted}\";\n}}\n")
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "mesh degree",
                &["mesh degree [degree]"],
                "show or set how many peers are looked for",
                "Default: 0. This engine has no peers and looks for none: the number is kept and shown, until the daemon ends.",
            )
            .local(),
            |call| async move {
                let mut mesh = call.engine().mesh();
                match call.args.str("degree") {
                    Some(text) => mesh.set_degree(text)?,
                    None => return Ok(Answer::text(mesh.degree.to_string())),
                }
                Ok(Answer::done())
            },
        ),
        Command::new(
            Declaration::new(
                "mesh dot",
                &["mesh dot <filename>"],
                "write the topology of the mesh as a Graphviz file",
                "Writes a graph of this one node to a file on the engine's host, which is replaced if it exists. A relative \
                 path is relative to the engine's files folder.",
            )
            .local()
            .complete("filename", Completion::Path),
            |call| async move {
                let path = call.engine().base().join("files").join(call.required("filename"));
                std::fs::write(&path, dot(call.engine().host()))
                    .map_err(|source| EngineError::File { action: "write", path, source })?;
                Ok(Answer::done())
            },
        ),
        Command::new(
            Declaration::new(
                "mesh list",
                &["mesh list [all,peers]"],
                "list the hosts of the mesh",
                "Without an argument, each host with its peers; with all, every host; with peers, every host but this one. \
                 This engine is its only host.",
            )
            .local(),
            |call| async move {
                let host = call.engine().host();
                Ok(match call.args.choice("all,peers") {
                    Some("all") => Answer { data: json!([host]), ..Answer::text(host) },
                    Some(_) => Answer { data: json!([]), ..Answer::done() },
                    None => Answer::text(format!("{host}\n")),
                })
            },
        ),
        Command::new(
            Declaration::new(
                "mesh status",
                &["mesh status"],
                "show the size of the mesh",
                "One node without peers. context and port are empty, because no mesh is joined and no port is listened on.",
            )
            .local()
            .columns(STATUS),
            |call| async move {
                let degree = call.engine().mesh().degree.to_string();
                let row = ["1", &degree, "0", "", ""].map(str::to_owned).to_vec();
                Ok(Answer::table(STATUS, vec![row]))
            },
        ),
        Command::new(
            Declaration::new(
                "mesh timeout",
                &["mesh timeout [timeout]"],
                "show or set how long answers of other hosts are waited for",
                "In seconds; 0, the default, is shown as `unlimited`. There are no other hosts: the number is kept and shown, \
                 until the daemon ends.",
            )
            .local(),
            |call| async move {
                let mut mesh = call.engine().mesh();
                match call.args.str("timeout") {
                    Some(text) => mesh.set_timeout(text)?,
                    None => {
                        return Ok(Answer::text(mesh.timeout.map_or_else(|| "unlimited".to_owned(), go_duration)));
                    }
                }
                Ok(Answer::done())
            },
        ),
        Command {
            declaration: Declaration::new(
                "mesh send",
                &["mesh send <hostname or range or all> (command)"],
                "run a command on other hosts of the mesh",
                "A command is sent to the peers that are named; a host is none of its own peers. This engine has none, so that \
                 no host runs it and no host answers. `ns run` runs a command here.",
            )
            .local(),
            run: Run::Builtin(Builtin::MeshSend),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_graphviz_whatever_the_host_is_called() {
        assert_eq!(dot("node-1"), "graph mesh {\n    \"node-1\";\n}\n");
        assert_eq!(dot("a\"b\\"), "graph mesh {\n    \"a\\\"b\\\\\";\n}\n");
    }
}
