//! `megaform fmt`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::experiment::{CommandError, report, tell};
use crate::diagnostic::Exit;
use crate::spec::{self, Format, Secrets};

/// Bring experiment files into their normal form: indentation and blanks. Comments, order and meaning stay.
///
/// A file that has errors of syntax, or whose normal form would mean anything else, is left as it is.
#[derive(Debug, Args)]
pub struct FmtArgs {
    /// Files (.yaml, .yml, .toml); `-` reads YAML from standard input and writes to standard output.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing; name the files that are not in normal form and exit with 1 if there are any.
    #[arg(long)]
    check: bool,
}

/// Run it.
pub fn run(args: &FmtArgs) -> Result<Exit, CommandError> {
    let mut exit = Exit::Success;
    for path in &args.files {
        let file = match spec::read(path) {
            Ok(file) => file,
            Err(refused) => {
                report(&refused.diagnostics, &refused.sources, &Secrets::default());
                exit = Exit::Error;
                continue;
            }
        };
        let formatted = match spec::fmt::normal(&file.name, &file.text, file.format) {
            Ok(formatted) => formatted,
            Err((sources, diagnostics)) => {
                report(&diagnostics, &sources, &Secrets::default());
                exit = Exit::Error;
                continue;
            }
        };
        let same = formatted == file.text;
        if args.check {
            if !same {
                tell(&format!("{}\n", file.name))?;
                exit = Exit::Error;
            }
        } else if path == Path::new("-") {
            debug_assert!(file.format == Format::Yaml, "standard input is YAML");
            tell(&formatted)?;
        } else if !same {
            replace(path, &formatted)?;
            tell(&format!("{}\n", file.name))?;
        }
    }
    Ok(exit)
}

/// Replace a file as a whole, so that a crash leaves the old one or the new one. Its mode stays; a link is followed.
fn replace(path: &Path, text: &str) -> Result<(), CommandError> {
    let failed = |source| CommandError::Write { what: path.display().to_string(), source };
    let real = path.canonicalize().map_err(failed)?;
    let mode = std::fs::metadata(&real).map_err(failed)?.permissions();
    let mut name = real.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = real.with_file_name(name);
    let written = std::fs::write(&new, text)
        .and_then(|()| std::fs::set_permissions(&new, mode))
        .and_then(|()| std::fs::rename(&new, &real));
    written.map_err(|source| {
        let _gone = std::fs::remove_file(&new);
        failed(source)
    })
}
