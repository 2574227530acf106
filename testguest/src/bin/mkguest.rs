//! Packs the test guest's initramfs: `mkguest INIT MODULES OUTPUT`.
//!
//! `INIT` is the static init program, `MODULES` a folder with kernel modules and a file `list` that names them in the
//! order in which to load them. `OUTPUT` is replaced in one step, so that nobody sees half a file.

#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use testguest::archive::{Module, initramfs};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [init, modules, output] = &arguments[..] else {
        eprintln!("usage: mkguest INIT MODULES OUTPUT");
        return ExitCode::from(2);
    };
    match pack(init, modules, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mkguest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pack(init: &Path, modules: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    let list = String::from_utf8(read(&modules.join("list"))?)?;
    let modules = list
        .lines()
        .map(|name| Ok(Module { name: name.to_owned(), bytes: read(&modules.join(name))? }))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let bytes = initramfs(&read(init)?, &modules)?;
    let written = |error| format!("cannot write {}: {error}", output.display());
    let partial = output.with_extension("partial");
    fs::write(&partial, bytes).map_err(written)?;
    fs::rename(&partial, output).map_err(written)?;
    Ok(())
}
