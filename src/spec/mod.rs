//! The experiment file: YAML and TOML into one spanned tree, then the model, with every error at its place.
//!
//! Must not know how an experiment is carried out, nor what is running. Dependency cycles are found by `graph`, which
//! stands on this module.

use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Severity, SourceMap, Span};
use crate::name::Namespace;

pub mod compose;
mod decode;
pub mod fmt;
mod keys;
pub mod model;
mod names;
mod outline;
mod schema;
mod section;
pub(crate) mod suggest;
pub mod syntax;
mod validate;
mod written;

pub use compose::{Console, Inputs, Output, Secrets};
pub use decode::{assigned_mac, usual_bond, why_refused};
pub use keys::reference;
pub use model::Experiment;
pub use names::MAX_VMS;
pub use schema::schema;
pub use syntax::Format;
pub use validate::machine::{Machine, machine, minimega};
pub use written::{SECTIONS, field_value, list, placement, qos, scalar, setting, usb_disk, written};

/// What became of an experiment file.
#[derive(Debug)]
pub struct Loaded {
    /// The text, for showing diagnostics.
    pub sources: SourceMap,
    /// The experiment; None if there is any error.
    pub experiment: Option<Experiment>,
    /// What could be read of one with errors, in which more of them may be found.
    pub rest: Option<Experiment>,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// What no text may show.
    pub secrets: Secrets,
    /// Everything that was found, in no particular order; warnings may come with an experiment.
    pub diagnostics: Vec<Diagnostic>,
}

/// Finds files that the experiment names, so that decoding itself touches no file system.
pub trait Files: Send + Sync {
    /// The absolute, lexically normalised path of an existing file, given relative to the experiment file's folder; None
    /// where there is none.
    fn resolve(&self, relative: &str) -> Option<String>;

    /// The bytes of a file, given in the same way; of a larger one than `limit` one byte more than that.
    fn read(&self, relative: &str, limit: u64) -> io::Result<Vec<u8>>;

    /// The path of a file as the user would name it, given in the same way.
    fn display(&self, relative: &str) -> String;

    /// The same files for a longer life.
    fn share(&self) -> Arc<dyn Files>;
}

/// The files beside an experiment file.
#[derive(Debug, Clone)]
pub struct Folder {
    folder: PathBuf,
    /// The folder as the user named it.
    named: PathBuf,
}

impl Folder {
    /// The files of a folder; a relative one is made absolute once, here.
    pub fn new(folder: &Path) -> Self {
        let named = folder.to_owned();
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        Self { folder: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()), named }
    }
}

impl Files for Folder {
    fn resolve(&self, relative: &str) -> Option<String> {
        let path = normalise(&self.folder.join(relative));
        path.exists().then(|| path.to_str().map(str::to_owned)).flatten()
    }

    fn read(&self, relative: &str, limit: u64) -> io::Result<Vec<u8>> {
        read_bytes(&mut std::fs::File::open(normalise(&self.folder.join(relative)))?, limit)
    }

    fn display(&self, relative: &str) -> String {
        self.named.join(relative).display().to_string()
    }

    fn share(&self) -> Arc<dyn Files> {
        Arc::new(self.clone())
    }
}

/// No files at all: every path stays as it is written.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles;

impl Files for NoFiles {
    fn resolve(&self, _relative: &str) -> Option<String> {
        None
    }

    fn read(&self, _relative: &str, _limit: u64) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn display(&self, relative: &str) -> String {
        relative.to_owned()
    }

    fn share(&self) -> Arc<dyn Files> {
        Arc::new(*self)
    }
}

/// A path from the folder of one file, relative to the folder that that one is relative to.
fn beside(folder: &str, path: &str) -> String {
    if folder.is_empty() && !path.contains("./") && !path.contains("//") {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    let (folder, joined) = match path.starts_with('/') {
        true => ("/", path.to_owned()),
        false => (folder, format!("{folder}/{path}")),
    };
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let root = if folder.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
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
pub fn load(path: &Path, inputs: &Inputs) -> Loaded {
    match read(path) {
        Ok(file) => file.load(inputs),
        Err(refused) => *refused,
    }
}

/// Resolve the names of an experiment file, for evaluating expressions; None where it cannot be read.
pub fn console(path: &Path, inputs: &Inputs) -> (Option<Console>, Vec<Diagnostic>, SourceMap) {
    let file = match read(path) {
        Ok(file) => file,
        Err(refused) => return (None, refused.diagnostics, refused.sources),
    };
    let mut sources = SourceMap::new();
    let source = sources.add(&file.name, file.text.as_str());
    let (root, mut diagnostics) = syntax::read(&file.text, source, file.format);
    let Some(root) = root else { return (None, diagnostics, sources) };
    let (console, found, sources) = Console::new(root, sources, inputs, &file.folder);
    diagnostics.extend(found);
    (console, diagnostics, sources)
}

/// An experiment file as it was read.
pub struct File {
    /// The name that the user knows it by.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Its language.
    pub format: Format,
    /// What lies beside it.
    pub folder: Folder,
}

impl File {
    /// Decode it.
    pub fn load(&self, inputs: &Inputs) -> Loaded {
        parse_with(&self.name, &self.text, self.format, inputs, &self.folder)
    }

    /// The name of the experiment as far as the text alone tells it: what stands behind a key `experiment` at the beginning of
    /// a line. The experiment may turn out to have another.
    pub fn plain_name(&self) -> Option<Namespace> {
        let assign = if self.format == Format::Toml { '=' } else { ':' };
        let value =
            |line: &'_ str| Some(line.strip_prefix("experiment")?.trim_start().strip_prefix(assign)?.to_owned());
        let value = self.text.lines().find_map(value)?;
        let value = value.split(" #").next().unwrap_or_default().trim();
        let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
        Namespace::new(quoted('"').or_else(|| quoted('\'')).unwrap_or(value)).ok()
    }
}

/// Read an experiment file; `-` is standard input, as YAML. The error is what there is to say of a file that cannot be read.
pub fn read(path: &Path) -> Result<File, Box<Loaded>> {
    let standard_input = path == Path::new("-");
    let name = if standard_input { "<stdin>".to_owned() } else { path.display().to_string() };
    let format = match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        _ if standard_input => Format::Yaml,
        Some("yaml" | "yml") => Format::Yaml,
        Some("toml") => Format::Toml,
        _ => {
            return Err(refused(&name, |span| {
                Diagnostic::error(
                    "file-kind",
                    span,
                    format!("`{}` is not an experiment file by its name", shown(&name)),
                )
                .hint(
                    "the name of an experiment file ends with .yaml, .yml or .toml; `-` reads YAML from standard input",
                )
            }));
        }
    };
    let limit = syntax::MAX_BYTES as u64;
    let bytes = match standard_input {
        true => read_bytes(&mut std::io::stdin().lock(), limit),
        false => std::fs::File::open(path).and_then(|mut file| read_bytes(&mut file, limit)),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) => {
            return Err(refused(&name, |span| {
                Diagnostic::error("unreadable", span, format!("cannot read `{}`: {error}", shown(&name)))
            }));
        }
    };
    if bytes.len() > syntax::MAX_BYTES {
        return Err(refused(&name, |span| syntax::too_large(span.source, bytes.len() as u64)));
    }
    let folder = if standard_input { Path::new("") } else { path.parent().unwrap_or(Path::new("")) };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(File { name, text, format, folder: Folder::new(folder) }),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let mut sources = SourceMap::new();
            let source = sources.add(&name, String::from_utf8_lossy(error.as_bytes()));
            let span = Span { source, start: at, end: at + 1 };
            let diagnostic = Diagnostic::error("not-utf-8", span, format!("the file is not UTF-8 text, byte {at}"))
                .hint("save the file as UTF-8");
            Err(Box::new(Loaded::refused(sources, diagnostic)))
        }
    }
}

impl Loaded {
    fn refused(sources: SourceMap, diagnostic: Diagnostic) -> Self {
        let (outputs, secrets) = (Vec::new(), Secrets::default());
        Self { sources, experiment: None, rest: None, outputs, secrets, diagnostics: vec![diagnostic] }
    }
}

/// Read to the end, or one byte more than allowed, which tells a file that is too large from one that just fits.
fn read_bytes(reader: &mut dyn io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn refused(name: &str, diagnostic: impl FnOnce(Span) -> Diagnostic) -> Box<Loaded> {
    let mut sources = SourceMap::new();
    let source = sources.add(name, "");
    let diagnostic = diagnostic(Span { source, start: 0, end: 0 });
    Box::new(Loaded::refused(sources, diagnostic))
}

/// Decode a text that the user knows under a name, with nothing given from outside.
pub fn parse(name: &str, text: &str, format: Format, files: &dyn Files) -> Loaded {
    parse_with(name, text, format, &Inputs::default(), files)
}

/// Decode a text with values from outside.
pub fn parse_with(name: &str, text: &str, format: Format, inputs: &Inputs, files: &dyn Files) -> Loaded {
    let mut sources = SourceMap::new();
    let source = sources.add(name, text);
    let (root, mut diagnostics) = syntax::read(text, source, format);
    let mut experiment = None;
    let mut outputs = Vec::new();
    let mut secrets = Secrets::default();
    if let Some(root) = root {
        let composed = compose::compose(root, &mut sources, inputs, files);
        let broken = composed.diagnostics.iter().any(|d| d.severity == Severity::Error);
        diagnostics.extend(composed.diagnostics);
        (outputs, secrets) = (composed.outputs, composed.secrets);
        if let Some(root) = composed.root {
            let from = decode::From { sources: &sources, files, folders: &composed.folders };
            let (draft, mut found) = decode::decode(&root, &from);
            if let Some(mut draft) = draft {
                draft.partial |= broken;
                found.extend(validate::validate(&draft));
                experiment = draft.complete();
            }
            if broken {
                // What could not be computed is missing, which is no mistake of its own.
                found.retain(|d| !FOLLOW_UPS.contains(&d.code));
            }
            compose::hide(&mut found, &secrets);
            diagnostics.extend(found);
        }
    }
    let mut rest = None;
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        rest = experiment.take();
    }
    Loaded { sources, experiment, rest, outputs, secrets, diagnostics }
}

/// What an entry or a value that could not be computed makes others look like.
const FOLLOW_UPS: &[&str] = &[
    "missing-key",
    "unknown-vlan",
    "unknown-profile",
    "unknown-vm",
    "unused-profile",
    "unused-vlan",
    "lonely-vlan",
    "needs-kernel",
];

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
