//! The `megaform` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    megaform::cli::main()
}
