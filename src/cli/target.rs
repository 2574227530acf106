//! Which engine a subcommand talks to.

use std::path::PathBuf;

use super::TargetArgs;

/// An engine.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its socket.
    pub socket: PathBuf,
    /// The base folder of an engine of our own.
    pub base: PathBuf,
    /// The socket is that of the engine of our own, which is started on demand.
    pub own: bool,
}

/// From the options.
pub fn target(args: &TargetArgs) -> Target {
    // An empty variable is one that is not set.
    let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let base = given(&args.base).unwrap_or_else(|| match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) if !nix::unistd::geteuid().is_root() => PathBuf::from(runtime).join("megaform"),
        _ => PathBuf::from("/run/megaform"),
    });
    // A daemon on demand does not run in this working folder. Only a removed working folder has no path.
    let base = std::path::absolute(&base).unwrap_or(base);
    let socket = given(&args.socket);
    Target { own: socket.is_none(), socket: socket.unwrap_or_else(|| base.join(crate::daemon::SOCKET)), base }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_base_folder_means_the_working_folder_and_empty_options_mean_none() {
        let args = |base: &str, socket: &str| TargetArgs { base: Some(base.into()), socket: Some(socket.into()) };
        let relative = target(&args("lab", ""));
        assert_eq!(relative.base, std::env::current_dir().unwrap().join("lab"));
        assert_eq!((relative.socket, relative.own), (relative.base.join("minimega"), true));
        assert!(target(&args("", "")).base.ends_with("megaform"));
        let other = target(&args("", "s"));
        assert_eq!((other.socket, other.own), (PathBuf::from("s"), false));
    }
}
