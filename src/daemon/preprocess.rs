//! What words stand for: `$VARIABLE`, `file:NAME`, `http://…`, `tar:…`.

use std::collections::HashMap;
use std::convert::Infallible;

use crate::engine::{EngineError, Files};
use crate::language::grammar::{Args, Compiled};

use super::dispatch::Dispatcher;

impl Dispatcher {
    /// The arguments with variables expanded.
    pub(super) fn expanded(&self, compiled: &Compiled) -> Args {
        let mut args = compiled.args.clone();
        let switches = self.switches();
        let Ok(()) = args.try_map(|word| Ok::<_, Infallible>(switches.words.expand(word)));
        args
    }

    /// The arguments with variables expanded, and what is to be fetched fetched.
    pub(super) async fn preprocessed(&self, compiled: &Compiled) -> Result<Args, EngineError> {
        let mut args = self.expanded(compiled);
        let mut paths = HashMap::new();
        let Ok(()) = args.try_map(|word| {
            if is_fetched(word) {
                paths.insert(word.to_owned(), String::new());
            }
            Ok::<_, Infallible>(word.to_owned())
        });
        for (word, path) in &mut paths {
            *path = fetch(self.shared.engine.files(), word).await?;
        }
        let Ok(()) = args.try_map(|word| {
            let path = paths.get(word).map_or(word, String::as_str);
            Ok::<_, Infallible>(path.to_owned())
        });
        Ok(args)
    }
}

/// Does a word stand for a file or folder?
fn is_fetched(word: &str) -> bool {
    ["file:", "tar:"].iter().any(|prefix| word.starts_with(prefix)) || is_address(word)
}

fn is_address(word: &str) -> bool {
    ["http://", "https://"].iter().any(|prefix| word.starts_with(prefix))
}

/// The path that a word stands for: `file:NAME` that of a file in the engine's files folder, there or not; an address that
/// of its download; `tar:NAME` and `tar:ADDRESS` that of the folder that the archive is unpacked to.
async fn fetch(files: &Files, word: &str) -> Result<String, EngineError> {
    let path = match word.strip_prefix("tar:") {
        Some(archive) if is_address(archive) => {
            let archive = files.download(archive).await?;
            files.unpack(&archive.to_string_lossy()).await?
        }
        Some(archive) => files.unpack(archive).await?,
        None => match word.strip_prefix("file:") {
            Some(name) => files.place(name)?,
            None => files.download(word).await?,
        },
    };
    Ok(path.to_string_lossy().into_owned())
}
