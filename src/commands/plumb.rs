//! `plumb` and `clear plumb`

use serde_json::json;

use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Command};

const COLUMNS: &[&str] = &["pipeline"];

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("plumb", &["plumb <src> <dst>...", "plumb"], "connect pipes and programs, or list what is connected",
                "Makes a pipeline. Each word is an element: a program with its arguments if its first word is a program in $PATH \
                 (quotes keep blanks inside it; there is no shell in between), else the name of a pipe. `NAMESPACE//NAME` is \
                 always a pipe. What a program writes goes on line by line, each line a message.\n\n\
                 \x20   plumb foo \"sed -u s/foo/moo/\" bar\n\n\
                 Programs run in the engine's network namespace, the first with an empty standard input; what a last program \
                 writes is dropped, and standard error goes to the daemon's log. When a program ends, so does its pipeline: \
                 what was written before still reaches what stands to the right. Several pipelines with a pipe in common make a \
                 tree.\n\n\
                 \x20   plumb a b\n    plumb a c\n\n\
                 Without arguments, lists the namespace's pipelines.")
                .columns(COLUMNS)
                .complete("src", Completion::Pipe)
                .complete("dst", Completion::Pipe),
            |call| async move {
                let (engine, namespace) = (call.engine(), &call.namespace);
                let Some(source) = call.args.str("src") else {
                    let pipelines = engine.pipelines(namespace);
                    let data = json!(pipelines.iter().map(|pipeline| &pipeline.elements).collect::<Vec<_>>());
                    let rows = pipelines.into_iter().map(|pipeline| vec![pipeline.text]).collect();
                    return Ok(Answer { data, ..Answer::table(COLUMNS, rows) });
                };
                let mut words = vec![source.to_owned()];
                words.extend_from_slice(call.args.list("dst"));
                engine.plumb(namespace, &words).await?;
                Ok(Answer::done())
            },
        ),
        Command::new(
            Declaration::new("clear plumb", &["clear plumb [pipeline]..."], "end pipelines",
                "Ends a pipeline of the namespace, named by the elements that it was made with or by its line in the table, or all of them. Their programs \
                 get SIGTERM, and SIGKILL after 2 s; the answer comes when they have ended. Pipes stay.\n\n\
                 \x20   clear plumb foo \"sed -u s/foo/moo/\" bar"),
            |call| async move {
                call.engine().clear_pipelines(&call.namespace, call.args.list("pipeline")).await?;
                Ok(Answer::done())
            },
        ),
    ]
}
