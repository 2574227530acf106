//! `pipe` and `clear pipe`

use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::engine::plumb::{Mode, PipeInfo};
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["name", "mode", "readers", "writers", "count", "via", "previous"];

/// What the table does not say: whether messages are logged, and which words of `via` are one.
fn record(info: &PipeInfo) -> Value {
    json!({ "name": info.name.as_str(), "log": info.log, "via": info.via_words })
}

fn row(info: PipeInfo) -> Vec<String> {
    vec![
        info.name.to_string(),
        info.mode.as_str().to_owned(),
        info.readers.to_string(),
        info.writers.to_string(),
        info.count.to_string(),
        info.via,
        info.previous,
    ]
}

async fn pipe(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    let Some(name) = call.args.str("pipe") else {
        let pipes = engine.pipes(namespace);
        let data = pipes.iter().map(record).collect();
        return Ok(Answer { data, ..Answer::table(COLUMNS, pipes.into_iter().map(row).collect()) });
    };
    if call.args.flag("mode") {
        let mode = call.args.choice("all,round-robin,random").and_then(Mode::parse);
        engine.set_pipe_mode(namespace, name, Some(mode.expect("the choice has the modes")))?;
    } else if call.args.flag("log") {
        engine.set_pipe_log(namespace, name, Some(call.args.choice("true,false") == Some("true")))?;
    } else if call.args.flag("via") {
        engine.set_pipe_via(namespace, name, call.args.list("command")).await?;
    } else {
        engine.write_pipe(namespace, name, call.required("data")).await?;
    }
    Ok(Answer::done())
}

async fn clear(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    match call.args.str("pipe") {
        Some(name) if call.args.flag("mode") => engine.set_pipe_mode(namespace, name, None)?,
        Some(name) if call.args.flag("log") => engine.set_pipe_log(namespace, name, None)?,
        Some(name) if call.args.flag("via") => engine.clear_pipe_via(namespace, name)?,
        name => engine.clear_pipes(namespace, name).await?,
    }
    Ok(Answer::done())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("pipe",
                &[
                    "pipe",
                    "pipe <pipe> <mode,> <all,round-robin,random>",
                    "pipe <pipe> <log,> <true,false>",
                    "pipe <pipe> <data>",
                    "pipe <pipe> <via,> <command>...",
                ],
                "show pipes, write to one, or change how one delivers",
                "A pipe carries messages, lines of text, from its writers to its readers: pipelines (`plumb`) and clients of the \
                 socket (`megaform pipe`). It is made when it is first named. Without arguments, lists the namespace's pipes: \
                 how many read and write each, how many messages it took, and the last one. `.json` tells which are logged.\n\n\
                 With data, writes a message; of a text with several lines, each is one. A message that nobody reads is gone.\n\
                 mode: every message goes to all readers, or to one: round-robin, each in its turn, or random. Default: all.\n\
                 log: with true, messages are also written to the daemon's log. Default: false.\n\
                 via: every message passes a program for each reader; it gets the message on standard input and the reader gets \
                 the lines that it writes within 10 s, none for none.\n\n\
                 \x20   pipe foo \"Hello pipes!\"\n    pipe foo via sed s/Hello/Bye/\n\n\
                 A name with `//` after a namespace is another namespace's pipe. A slow reader is waited for, but not for ever: \
                 see docs/plumbing.md.")
                .columns(COLUMNS)
                .complete("pipe", Completion::Pipe),
            pipe,
        ),
        Command::new(
            Declaration::new("clear pipe",
                &["clear pipe [pipe]", "clear pipe <pipe> <mode,>", "clear pipe <pipe> <log,>", "clear pipe <pipe> <via,>"],
                "remove pipes, or set one back",
                "Removes a pipe of the namespace, or all of them; the pipelines that use it end, and clients that are connected to \
                 it are hung up. With mode, log or via, sets that back to its default and nothing else. A pipe that does not \
                 exist is an error.")
                .complete("pipe", Completion::Pipe),
            clear,
        ),
    ]
}
