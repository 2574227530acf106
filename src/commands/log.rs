//! `log` and `clear log`

use std::sync::Arc;

use crate::language::declaration::{Completion, Declaration};
use crate::logging::{LOCAL, Level, Log, LogError, Transport};

use super::{Answer, Command};

/// A command about the log.
fn command(
    declaration: Declaration,
    handler: impl Fn(&Log, &super::Call) -> Result<Answer, LogError> + Send + Sync + 'static,
) -> Command {
    let handler = Arc::new(handler);
    Command::new(declaration.local(), move |call| {
        let handler = Arc::clone(&handler);
        // Off the async threads: a syslog daemon may take seconds to answer, a file to open.
        async move {
            let done = tokio::task::spawn_blocking(move || handler(&call.shared.log, &call)).await;
            let done = done.expect("changing the log does not panic");
            Ok(done.unwrap_or_else(|error| Answer { error: chain(&error), ..Answer::default() }))
        }
    })
}

/// An error and why, in one line.
fn chain(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn clear(log: &Log, part: Option<&str>) -> Result<(), LogError> {
    let wanted = |name| part.is_none_or(|part| part == name);
    if wanted("level") {
        log.set_level(None);
    }
    if wanted("stderr") {
        log.set_stderr(true);
    }
    if wanted("file") {
        log.set_file(None)?;
    }
    if wanted("ring") {
        log.set_ring("0")?;
    }
    if wanted("filter") {
        log.clear_filters();
    }
    if wanted("syslog") {
        log.clear_syslog();
    }
    Ok(())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        command(
            Declaration::new(
                "log level",
                &["log level [debug,info,warn,error,fatal]"],
                "show or set how much is logged",
                "A level logs its own messages and those of the levels after it. debug: every command with its duration; info: \
                 VMs that change their state; warn: commands that fail, and what may need a look; error: VMs that fail; \
                 fatal: only what must never happen, a panic of the daemon. Default: info, or what MEGAFORM_LOG said when the \
                 daemon was started.",
            ),
            |log, call| {
                Ok(match call.args.choice("debug,info,warn,error,fatal").and_then(Level::of) {
                    None => Answer::text(log.level()),
                    Some(level) => {
                        log.set_level(Some(level));
                        Answer::done()
                    }
                })
            },
        ),
        command(
            Declaration::new(
                "log stderr",
                &["log stderr [true,false]"],
                "show or set whether the log goes to standard error",
                "With false, the daemon writes no messages to its standard error (`daemon.log` of one that was started on \
                 demand). Default: true.",
            ),
            |log, call| {
                Ok(match call.args.choice("true,false") {
                    None => Answer::text(log.stderr().to_string()),
                    Some(word) => {
                        log.set_stderr(word == "true");
                        Answer::done()
                    }
                })
            },
        ),
        command(
            Declaration::new(
                "log file",
                &["log file [file]"],
                "show or set the file that the log goes to",
                "Appends messages to a file on the engine's host, made with mode 0600, besides where they go already. A relative \
                 path is relative to the engine's files folder. A second file replaces the first. `clear log file` closes it.",
            )
            .complete("file", Completion::Path),
            |log, call| {
                let Some(file) = call.args.str("file") else {
                    let path = log.file().map(|path| path.to_string_lossy().into_owned());
                    return Ok(Answer::text(path.unwrap_or_default()));
                };
                log.set_file(Some(&call.engine().files().root().join(file)))?;
                Ok(Answer::done())
            },
        ),
        command(
            Declaration::new(
                "log ring",
                &["log ring [size]"],
                "show the last messages, or keep some in memory",
                "With a size, keeps that many of the last messages in memory, at most 1,000,000; those kept so far are \
                 forgotten. With 0, keeps none. Without an argument, shows what is kept, oldest first. Default: 0.",
            ),
            |log, call| match call.args.str("size") {
                None => Ok(Answer::text(log.ring()?.join("\n"))),
                Some(size) => log.set_ring(size).map(|()| Answer::done()),
            },
        ),
        command(
            Declaration::new(
                "log filter",
                &["log filter [filter]"],
                "show the filters of the log, or add one",
                "With a text, drops every message that contains it, wherever messages go; case matters. Several may be given, \
                 one at a time. Without an argument, shows them, one a line. `clear log filter` drops nothing again.\n\n    \
                 log filter \"vm info\"",
            ),
            |log, call| {
                Ok(match call.args.str("filter") {
                    None => Answer::text(log.filters().join("\n")),
                    // Every message contains it.
                    Some("") => Answer { error: "an empty filter would drop every message".to_owned(), ..Answer::done() },
                    Some(filter) => {
                        log.add_filter(filter);
                        Answer::done()
                    }
                })
            },
        ),
        command(
            Declaration::new(
                "log syslog",
                &["log syslog remote <tcp,udp> <address>", "log syslog <local,>"],
                "send the log to a syslog daemon",
                "Sends messages to a syslog daemon at HOST:PORT (RFC 5424; over TCP one line each), or to that of the engine's \
                 host by /dev/log, with the facility `daemon`. One at a time: the second replaces the first. A connection \
                 that breaks is tried again every five seconds; messages meanwhile are lost. `clear log syslog` ends it.\n\n    \
                 log syslog remote udp 10.0.0.1:514",
            ),
            |log, call| {
                let remote = match call.args.choice("tcp,udp") {
                    Some("tcp") => Some(Transport::Tcp),
                    Some(_) => Some(Transport::Udp),
                    None => None,
                };
                match remote {
                    Some(transport) => log.set_syslog(transport, call.required("address"))?,
                    None => log.set_syslog(Transport::Local, LOCAL)?,
                }
                Ok(Answer::done())
            },
        ),
        command(
            Declaration::new(
                "clear log",
                &[
                    "clear log",
                    "clear log <file,>",
                    "clear log <level,>",
                    "clear log <stderr,>",
                    "clear log <filter,>",
                    "clear log <syslog,>",
                    "clear log <ring,>",
                ],
                "set the log back",
                "Sets one part of the log back to how it was when the daemon started, or all of it: the level, standard error \
                 on, no file, no filters, no syslog daemon, no ring.",
            ),
            |log, call| clear(log, call.args.chosen(0)).map(|()| Answer::done()),
        ),
    ]
}
