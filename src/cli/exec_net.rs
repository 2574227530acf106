//! `megaform exec-net`: a program inside the engine's network.

use std::path::Path;

use clap::Args;

use crate::daemon::NETWORK_PIN;
use crate::host::NetworkError;
use crate::host::linux::exec_in;

/// Run a program in the engine's network namespace.
///
/// The program sees the engine's taps and bridges instead of the host's network. Its exit status is this command's.
///
/// For example: megaform exec-net -- ping -c 1 10.0.0.1
#[derive(Debug, Args)]
pub struct ExecNetArgs {
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Why the program did not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecNetError {
    /// There is no namespace.
    #[error("the engine on {base} has no network now; it exists while the engine has a VM or a tap")]
    Absent {
        /// The base folder.
        base: String,
    },
    /// It cannot be entered, or the program cannot be run.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

/// Run the program; returns only if that fails.
pub fn run(args: &ExecNetArgs, base: &Path) -> Result<std::convert::Infallible, ExecNetError> {
    let pin = base.join(NETWORK_PIN);
    if !pin.exists() {
        return Err(ExecNetError::Absent { base: base.display().to_string() });
    }
    let (program, rest) = args.command.split_first().expect("clap requires a command");
    Ok(exec_in(&pin, program, rest)?)
}
