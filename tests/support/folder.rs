//! A folder with files in which the program is run where no engine runs.

use std::path::Path;
use std::process::{Command, Output, Stdio};

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("the temporary folder is writable");
        }
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_megaform"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MEGAFORM_BASE", self.path().join("base"))
            .current_dir(self.path())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    /// The exit code, what was printed, and what was said on the standard error.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        ended(self.command(args).output().expect("the program starts"))
    }
}

/// The exit code and the texts of a program that has ended.
pub fn ended(Output { status, stdout, stderr }: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    (status.code().expect("it ends by itself"), text(stdout), text(stderr))
}
