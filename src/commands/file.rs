//! `file`: the files folder.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::engine::{EngineError, FileRow, Files, FilesError, report};
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Call, Command, Parts};

/// How many bytes of a file one response carries.
const PART: usize = 64 << 10;

/// Work on the files folder off the async threads.
async fn blocking<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce(&Files, &str) -> Result<T, FilesError> + Send + 'static,
) -> Result<T, EngineError> {
    let engine = Arc::clone(call.engine());
    let path = call.args.str("path").or(call.args.str("file")).unwrap_or_default().to_owned();
    let done = tokio::task::spawn_blocking(move || work(engine.files(), &path)).await;
    Ok(done.expect("work on files does not panic")?)
}

/// A time in whole seconds, as RFC 3339 has it, in UTC.
fn time(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    // What stands beyond the year 9999 is shown as the last second before.
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
    humantime::format_rfc3339_seconds(time).to_string()
}

fn row(file: FileRow) -> Vec<String> {
    let folder = if file.folder { "<dir>" } else { "" };
    vec![folder.to_owned(), file.name, file.size.to_string(), time(file.modified)]
}

async fn stream(call: Call, parts: Parts) -> Result<Answer, EngineError> {
    let path = call.required("file").to_owned();
    let failed = |source| FilesError::Io { action: "stream", path: path.clone(), source };
    let mut file = blocking(&call, |files, path| files.open(path)).await?;
    let size = file.metadata().map_err(failed)?.len();
    let (mut sent, mut held) = (0, None);
    loop {
        let (read, part) = tokio::task::spawn_blocking(move || {
            let mut part = Vec::with_capacity(PART);
            let read = Read::by_ref(&mut file).take(PART as u64).read_to_end(&mut part);
            (read.map(|_| file), part)
        })
        .await
        .expect("reading does not panic");
        file = read.map_err(failed)?;
        // Held back until it is known whether another one follows: the last one is the answer.
        if !part.is_empty() || held.is_none() {
            sent += part.len();
            report(|| format!("{sent} of {size} bytes read"));
            let part = Answer { data: Value::String(BASE64_STANDARD.encode(&part)), ..Answer::default() };
            if let Some(before) = held.replace(part)
                && !parts.send(before).await
            {
                // The client is gone.
                return Ok(Answer::done());
            }
        } else {
            return Ok(held.unwrap_or_default());
        }
    }
}

pub(super) fn commands() -> Vec<Command> {
    const LIST: &[&str] = &["dir", "name", "size", "modified"];
    const STATUS: &[&str] = &["filename", "tempdir", "completed", "queued"];
    const PATHS: &str = "Paths are relative to the engine's files folder, BASE/files, with or without a `/` before them; none \
                         leads out of it, not by `..` nor by a symbolic link. `*`, `?` and `[a-z]` stand for what matches in \
                         one folder.";
    vec![
        Command::new(
            Declaration::new(
                "file list",
                &["file <list,>", "file <list,> <path> [recursive,]"],
                "list the files folder",
                format!(
                    "Lists what is in the files folder, or in a folder of it, or the files that match: `<dir>` for folders, the \
                     path in the files folder, the size in bytes and the time of the last change (UTC). With recursive, what \
                     is in folders too, those behind symbolic links excepted. {PATHS}\n\n    file list images recursive\n    \
                     file list *.qcow2"
                ),
            )
            .local()
            .columns(LIST)
            .complete("path", Completion::Path),
            |call| async move {
                let recursive = call.args.flag("recursive");
                let rows = blocking(&call, move |files, path| files.list(path, recursive)).await?;
                Ok(Answer::table(LIST, rows.into_iter().map(row).collect()))
            },
        ),
        Command::new(
            Declaration::new(
                "file get",
                &["file <get,> <file>"],
                "make sure that a file is in the files folder",
                format!(
                    "Answers with nothing if the file or folder is there, and with an error if not: this engine is one host, so \
                     there is nowhere else to get it from. {PATHS}\n\n    file get *.qcow2"
                ),
            )
            .local()
            .complete("file", Completion::Path),
            |call| async move { blocking(&call, Files::get).await.map(|()| Answer::done()) },
        ),
        Command::stream(
            Declaration::new(
                "file stream",
                &["file <stream,> <file>"],
                "send the content of a file to the client",
                format!(
                    "Answers with the content of one file: several responses, each with up to 64 KiB of it as base64 text in \
                     `Data`. Not limited in size. `megaform -e` writes the content itself. {PATHS}\n\n    \
                     megaform -e file stream lab.dot > lab.dot"
                ),
            )
            .local()
            .complete("file", Completion::Path),
            stream,
        ),
        Command::new(
            Declaration::new(
                "file delete",
                &["file <delete,> <file>"],
                "delete files",
                format!(
                    "Deletes a file, or a folder with all that is in it; of a symbolic link, the link. What does not exist is an \
                     error. {PATHS}\n\n    file delete *.qcow2"
                ),
            )
            .local()
            .complete("file", Completion::Path),
            |call| async move { blocking(&call, Files::delete).await.map(|()| Answer::done()) },
        ),
        Command::new(
            Declaration::new(
                "file status",
                &["file <status,>"],
                "show what is being fetched",
                "Lists downloads that are under way (`help .preprocess`): the file that it will be, where its content is \
                 meanwhile, how many bytes are there of how many (`?` where the server did not say), and whether it waits \
                 for another one.",
            )
            .local()
            .columns(STATUS),
            |call| async move {
                let rows = call.engine().files().transfers().into_iter().map(|fetch| {
                    let size = fetch.size.map_or_else(|| "?".to_owned(), |size| size.to_string());
                    let place = fetch.place.to_string_lossy().into_owned();
                    // Nothing waits: every download has a thread of its own.
                    vec![fetch.name, place, format!("{}/{size}", fetch.done), "false".to_owned()]
                });
                Ok(Answer { empty_list: true, ..Answer::table(STATUS, rows.collect()) })
            },
        ),
    ]
}
