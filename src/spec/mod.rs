//! The experiment file: YAML and TOML into one spanned tree, then the model, with every error at its place.
//!
//! Must not know how an experiment is carried out, nor what is running. Dependency cycles are found by `graph`, which
//! stands on this module.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use crate::diagnostic::{Diagnostic, Severity, SourceMap, Span};

mod decode;
mod keys;
pub mod model;
mod names;
mod outline;
mod schema;
pub(crate) mod suggest;
pub mod syntax;
mod validate;

pub use decode::why_refused;
pub use keys::reference;
pub use model::Experiment;
pub use names::MAX_VMS;
pub use schema::schema;
pub use syntax::Format;
pub use validate::machine::{Machine, machine};

/// What became of an experiment file.
#[derive(Debug)]
pub struct Loaded {
    /// The text, for showing diagnostics.
    pub sources: SourceMap,
    /// The experiment; None if there is any error.
    pub experiment: Option<Experiment>,
    /// Everything that was found, in no particular order; warnings may come with an experiment.
    pub diagnostics: Vec<Diagnostic>,
}

/// Finds files that the experiment names, so that decoding itself touches no file system.
pub trait Files {
    /// The absolute, lexically normalised path of an existing file, given relative to the experiment file's folder; None
    /// where there is none.
    fn resolve(&self, relative: &str) -> Option<String>;
}

/// The files beside an experiment file.
#[derive(Debug, Clone)]
pub struct Folder {
    folder: PathBuf,
}

impl Folder {
    /// The files of a folder; a relative one is made absolute once, here.
    pub fn new(folder: &Path) -> Self {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Self { folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()) }
    }
}

impl Files for Folder {
    fn resolve(&self, relative: &str) -> Option<String> {
        let path = normalise(&self.folder.join(relative));
        path.exists().then(|| path.to_str().map(str::to_owned)).flatten()
    }
}

/// No files at all: every path stays as it is written.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles;

impl Files for NoFiles {
    fn resolve(&self, _relative: &str) -> Option<String> {
        None
    }
}

/// Remove `.` and `..` by their text, without asking the file system about links.
fn normalise(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}

/// Read and decode an experiment file; `-` is standard input, as YAML, relative to the working folder. Never fails:
/// what is wrong, even that the file cannot be read, is among the diagnostics.
pub fn load(path: &Path) -> Loaded {
    let standard_input = path == Path::new("-");
    let name = if standard_input { "<stdin>".to_owned() } else { path.display().to_string() };
    let format = match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        _ if standard_input => Format::Yaml,
        Some("yaml" | "yml") => Format::Yaml,
        Some("toml") => Format::Toml,
        _ => {
            return refused(&name, |span| {
                Diagnostic::error(
                    "file-kind",
                    span,
                    format!("`{}` is not an experiment file by its name", shown(&name)),
                )
                .hint(
                    "the name of an experiment file ends with .yaml, .yml or .toml; `-` reads YAML from standard input",
                )
            });
        }
    };
    let bytes = match read_bytes(path, standard_input) {
        Ok(bytes) => bytes,
        Err(error) => {
            return refused(&name, |span| {
                Diagnostic::error("unreadable", span, format!("cannot read `{}`: {error}", shown(&name)))
            });
        }
    };
    if bytes.len() > syntax::MAX_BYTES {
        return refused(&name, |span| syntax::too_large(span.source, bytes.len() as u64));
    }
    let folder = if standard_input { Path::new("") } else { path.parent().unwrap_or(Path::new("")) };
    match String::from_utf8(bytes) {
        Ok(text) => parse(&name, &text, format, &Folder::new(folder)),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let mut sources = SourceMap::new();
            let source = sources.add(&name, String::from_utf8_lossy(error.as_bytes()));
            let span = Span { source, start: at, end: at + 1 };
            let diagnostic = Diagnostic::error("not-utf-8", span, format!("the file is not UTF-8 text, byte {at}"))
                .hint("save the file as UTF-8");
            Loaded { sources, experiment: None, diagnostics: vec![diagnostic] }
        }
    }
}

fn read_bytes(path: &Path, standard_input: bool) -> std::io::Result<Vec<u8>> {
    let reader: Box<dyn std::io::Read> =
        if standard_input { Box::new(std::io::stdin().lock()) } else { Box::new(std::fs::File::open(path)?) };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    reader.take(syntax::MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn refused(name: &str, diagnostic: impl FnOnce(Span) -> Diagnostic) -> Loaded {
    let mut sources = SourceMap::new();
    let source = sources.add(name, "");
    let diagnostics = vec![diagnostic(Span { source, start: 0, end: 0 })];
    Loaded { sources, experiment: None, diagnostics }
}

/// Decode a text that the user knows under a name.
pub fn parse(name: &str, text: &str, format: Format, files: &dyn Files) -> Loaded {
    let mut sources = SourceMap::new();
    let source = sources.add(name, text);
    let (root, mut diagnostics) = syntax::read(text, source, format);
    let mut experiment = None;
    if let Some(root) = root {
        let (draft, found) = decode::decode(&root, text, files);
        diagnostics.extend(found);
        if let Some(draft) = draft {
            diagnostics.extend(validate::validate(&draft));
            experiment = draft.complete();
        }
    }
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        experiment = None;
    }
    Loaded { sources, experiment, diagnostics }
}

/// The error for a command that must not stand in an experiment; `at` names the key that has it.
pub fn refused_command(span: Span, at: &str, line: &str, why: &str) -> Diagnostic {
    Diagnostic::error("refused-command", span, format!("{at} has the line `{}`, which is refused: {why}", shown(line)))
        .hint("remove the line; `megaform explain refused-command` says more")
}

/// Text of a file for a message: control characters escaped, cut to a readable length.
pub(crate) fn shown(text: &str) -> String {
    const LIMIT: usize = 60;
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == LIMIT {
            shown.push_str("...");
            break;
        }
        if character.is_control() || character == '\u{feff}' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests;
