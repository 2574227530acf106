//! `debug`

use crate::engine::EngineError;
use crate::engine::diagnosis;
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["version", "threads", "tasks", "memory", "descriptors"];

/// Write a report to a file that the user names.
async fn write(call: Call, report: String) -> Result<Answer, EngineError> {
    let path = call.engine().files().root().join(call.required("file"));
    tokio::fs::write(&path, report).await.map_err(|source| EngineError::File { action: "write", path, source })?;
    Ok(Answer::done())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "debug",
                &["debug"],
                "show what the daemon is made of at this moment",
                "Shows its version, its threads, the tasks that are alive on them, the memory that is resident (kB) and its open \
                 file descriptors.",
            )
            .local()
            .columns(COLUMNS),
            |_| async {
                let figures = diagnosis::figures();
                let row = [figures.threads, figures.tasks, figures.memory, figures.descriptors];
                let mut cells = vec![env!("CARGO_PKG_VERSION").to_owned()];
                cells.extend(row.map(|figure| figure.to_string()));
                Ok(Answer::table(COLUMNS, vec![cells]))
            },
        ),
        Command::new(
            Declaration::new(
                "debug memory",
                &["debug <memory,> <file>"],
                "write what the daemon's memory is used for",
                "Writes a text file: the process's figures (proc(5), status and smaps_rollup), and the C library's account of \
                 its heaps (malloc_info(3)). A relative path is relative to the engine's files folder.",
            )
            .local()
            .complete("file", Completion::Path),
            |call| async move {
                let report = diagnosis::memory();
                write(call, report).await
            },
        ),
        Command::new(
            Declaration::new(
                "debug goroutine",
                &["debug <goroutine,> <file>"],
                "write what the daemon's threads do",
                "Writes a text file: every thread of the daemon with its state, what it waits for in the kernel and its kernel \
                 stack where the kernel shows it, and figures of the tasks on them. A relative path is relative to the engine's \
                 files folder. For the functions of the program itself, attach a debugger to the pid.",
            )
            .local()
            .complete("file", Completion::Path),
            |call| async move {
                let report = diagnosis::threads();
                write(call, report).await
            },
        ),
    ]
}
