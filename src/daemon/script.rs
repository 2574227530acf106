//! `read`: the commands of a file, each with an answer of its own.

use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;

use crate::commands::{Builtin, CLEAR_NAMESPACE, Run};
use crate::language::alias;
use crate::language::grammar::{CompileError, Compiled};
use crate::name::Namespace;
use crate::wire::{Reply, Response};

use super::dispatch::Dispatcher;

/// The largest script, in bytes.
const LIMIT: u64 = 64 << 20;

/// The most lines that a check reports.
const REPORTED: usize = 100;

/// A `read` that is to be carried out.
struct Script {
    path: PathBuf,
    check: bool,
    namespace: Namespace,
}

impl Dispatcher {
    /// Is it a `read`, alone or behind `namespace NAME`?
    pub(super) fn reads(&self, compiled: &Compiled) -> bool {
        match (self.run_of(compiled).0, &compiled.nested) {
            (Run::Builtin(Builtin::Read), _) => true,
            (Run::Builtin(Builtin::Namespace), Some(nested)) => self.reads(nested),
            _ => false,
        }
    }

    /// What a `read` reads.
    async fn script(&self, compiled: &Compiled) -> Result<Script, String> {
        let mut namespace = None;
        let mut at = compiled;
        while let Some(nested) = at.nested.as_deref() {
            let args = self.expanded(at);
            namespace = Some(Namespace::new(args.str("name").unwrap_or_default()).map_err(|error| error.to_string())?);
            at = nested;
        }
        let args = self.preprocessed(at).await.map_err(|error| error.chain())?;
        // An absolute path stays as it is.
        let path = self.shared.engine.files().root().join(args.str("file").unwrap_or_default());
        let engine = &self.shared.engine;
        let check = args.flag("check");
        if let Some(named) = namespace.as_ref().filter(|_| !check) {
            engine.ensure_namespace(named).map_err(|error| error.chain())?;
        }
        let namespace = namespace.unwrap_or_else(|| engine.active());
        Ok(Script { path, check, namespace })
    }

    /// Carry out a script and send its answers; all but the last say that more follow.
    pub(super) async fn read(&self, compiled: &Compiled, reply: &Reply) {
        let script = match self.script(compiled).await {
            Ok(script) => script,
            Err(error) => {
                reply.send(self.failure(error)).await;
                return;
            }
        };
        let mut namespace = script.namespace;
        let text = match read(&script.path).await {
            Ok(text) => text,
            Err(error) => {
                let text = format!("open {}: {}", script.path.display(), plain(&error));
                reply.send(self.failure(text)).await;
                return;
            }
        };
        let file = script.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if script.check {
            reply.send(self.check(&file, &text).await).await;
            return;
        }
        // Held back until it is known whether another one follows.
        let mut last: Option<Response> = None;
        for (index, line) in text.lines().enumerate() {
            let stop = |error: String| self.failure(format!("{file}:{} {error}", index + 1));
            let compiled = match self.compile(line) {
                Ok(None) => continue,
                Err(error) => Err(stop(error.to_string())),
                Ok(Some(compiled)) if self.reads(&compiled) => {
                    Err(stop("cannot run nested `read` commands".to_owned()))
                }
                Ok(Some(compiled)) => Ok(compiled),
            };
            if let Some(before) = last.take()
                && !reply.send(Response { more: true, ..before }).await
            {
                // The client is gone, and with it whoever wanted the rest.
                return;
            }
            match compiled {
                Ok(compiled) => {
                    let response = self.answer(&compiled, Some(&namespace), reply).await;
                    if let Some(changed) = self.goes_on_in(&compiled, &namespace, &response) {
                        namespace = changed;
                    }
                    last = Some(response);
                }
                Err(stopped) => {
                    last = Some(stopped);
                    break;
                }
            }
        }
        reply.send(last.unwrap_or_default()).await;
    }

    /// Every line that is no command, with what was expected there. Clean scripts are answered with nothing.
    async fn check(&self, file: &str, text: &str) -> Response {
        let mut aliases = self.aliases();
        let mut problems: Vec<String> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            // Others wait for this thread.
            if index % 256 == 255 {
                tokio::task::yield_now().await;
            }
            let place = format!("{file}:{}", index + 1);
            let expanded = alias::expand(&aliases, line);
            match self.shared.grammar.compile(expanded.as_deref().unwrap_or(line)) {
                Ok(None) => {}
                Ok(Some(compiled)) if self.reads(&compiled) => {
                    problems.push(format!("{place} cannot run nested `read` commands"));
                }
                Ok(Some(compiled)) => {
                    if let Run::Builtin(Builtin::Alias) = self.run_of(&compiled).0 {
                        // What defines nothing is no error of the line: its command will say so.
                        let _ = alias::define(&mut aliases, alias::definition(&compiled));
                    }
                }
                Err(CompileError::Invalid(invalid)) => {
                    problems.push(format!("{place} {}\n    {}", invalid.plain(), invalid.advice()));
                }
                Err(error) => problems.push(format!("{place} {error}")),
            }
            if problems.len() == REPORTED {
                problems.push(format!("{file}: the check ends after {REPORTED} such lines"));
                break;
            }
        }
        match problems.is_empty() {
            true => Response::default(),
            false => self.failure(problems.join("\n")),
        }
    }

    /// The namespace that a script goes on in after a command, where that command has changed it: `namespace NAME`,
    /// `clear namespace`, or the end of the namespace that it was in.
    fn goes_on_in(&self, compiled: &Compiled, now: &Namespace, response: &Response) -> Option<Namespace> {
        if response.errors().next().is_some() {
            return None;
        }
        let mut inner = compiled;
        while let Some(nested) = inner.nested.as_deref() {
            if matches!(self.run_of(inner).0, Run::Builtin(Builtin::MeshSend)) {
                return None;
            }
            inner = nested;
        }
        let args = self.expanded(inner);
        let name = args.str("name");
        match (self.run_of(inner), name) {
            ((Run::Builtin(Builtin::Namespace), _), Some(name)) => Namespace::new(name).ok(),
            ((Run::Builtin(Builtin::ClearAll), _), _) | ((_, CLEAR_NAMESPACE), None | Some("all")) => {
                Some(Namespace::default_namespace())
            }
            ((_, CLEAR_NAMESPACE), Some(name)) => (now.as_str() == name).then(Namespace::default_namespace),
            _ => None,
        }
    }
}

/// The text of a file. A device or a pipe is no script: it may have no end, or none that comes soon.
async fn read(path: &std::path::Path) -> std::io::Result<String> {
    let metadata = tokio::fs::metadata(path).await?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let size = metadata.len();
    if size > LIMIT {
        return Err(std::io::Error::other(format!("{size} bytes, the limit is {LIMIT}")));
    }
    // The file may grow meanwhile, and those of /proc are longer than they say.
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(LIMIT + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > LIMIT {
        return Err(std::io::Error::other(format!("longer than the limit of {LIMIT} bytes")));
    }
    Ok(text)
}

/// An error as minimega words it.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
