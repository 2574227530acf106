//! `megaform daemon`, and starting one on demand.

use std::fs::OpenOptions;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use crate::daemon::{self, DaemonError, LOG, NetworkOptions, SOCKET, Settings};
use crate::engine::Accelerator;
use crate::host::SwitchChoice;
use crate::live;
use crate::logging::Log;
use crate::name::Namespace;
use crate::wire::{Client, WireError};

/// The option that makes a daemon end by itself.
const ON_DEMAND: &str = "--on-demand";

/// How long a daemon may take until it answers. Adopting hundreds of VMs takes seconds.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Run the engine in the foreground.
///
/// The socket is BASE/minimega. Running VMs outlive the daemon: the next one on the same base folder adopts them. The
/// engine lives in a network namespace of its own, which exists while it has a VM or a tap in it.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Where the engine makes its bridges and taps: a network namespace of its own, or the host's. Without the option
    /// where an earlier daemon's still are, otherwise own.
    #[arg(long, value_enum)]
    network: Option<NetworkArg>,
    /// What connects the taps: the kernel's bridges or Open vSwitch; auto is what an earlier daemon's taps are still on,
    /// otherwise linux. In a network namespace of its own the engine starts an Open vSwitch of its own there.
    #[arg(long, value_enum, default_value = "auto")]
    switch: SwitchArg,
    /// The socket of a running Open vSwitch's database, usually /var/run/openvswitch/db.sock; needs `--network host`.
    #[arg(long, value_name = "SOCKET")]
    ovsdb: Option<PathBuf>,
    /// What VMs run under; auto uses KVM only where ordinary guests run under it.
    #[arg(long, value_enum, default_value = "auto", env = "MEGAFORM_ACCEL")]
    accel: Accelerator,
    /// The QEMU program.
    #[arg(long, default_value = "qemu-system-x86_64", env = "MEGAFORM_QEMU")]
    qemu: String,
    /// End when there is nothing left to hold, and remove the base folder.
    #[arg(long, hide = true)]
    on_demand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum NetworkArg {
    /// A network namespace of the engine's own.
    Own,
    /// The network namespace that the daemon is started in.
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SwitchArg {
    /// What is in use, otherwise linux.
    Auto,
    /// The kernel's bridges.
    Linux,
    /// Open vSwitch.
    Openvswitch,
}

/// What the options ask for.
fn network(args: &DaemonArgs) -> Result<NetworkOptions, DaemonError> {
    let host = args.network.map(|network| network == NetworkArg::Host);
    let switch = match (args.switch, &args.ovsdb) {
        (SwitchArg::Auto, None) => None,
        (SwitchArg::Linux, None) => Some(SwitchChoice::Linux),
        (SwitchArg::Openvswitch, None) => Some(SwitchChoice::OpenVswitch { socket: None }),
        (SwitchArg::Linux, Some(_)) => {
            return Err(DaemonError::Options { reason: "--ovsdb needs --switch openvswitch, not linux" });
        }
        (_, Some(_)) if host != Some(true) => {
            let reason = "--ovsdb needs --network host: an Open vSwitch that runs already does not see the interfaces of a \
                          network namespace of the engine's own";
            return Err(DaemonError::Options { reason });
        }
        (_, Some(socket)) => Some(SwitchChoice::OpenVswitch { socket: Some(socket.clone()) }),
    };
    Ok(NetworkOptions { host, switch })
}

/// Why a daemon could not be started on demand.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The base folder.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It ended.
    #[error("the daemon did not start: {said}")]
    Ended {
        /// What it said.
        said: String,
    },
    /// It does not answer.
    #[error("the daemon does not answer after {} s; see {}", seconds, log.display())]
    Silent {
        /// How long it was waited for.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// What went wrong last.
        #[source]
        source: WireError,
    },
}

/// Run the daemon.
pub fn run(args: &DaemonArgs, base: &Path) -> Result<(), DaemonError> {
    let log = Log::install();
    daemon::run(&Settings {
        base: base.to_owned(),
        network: network(args)?,
        accelerator: args.accel,
        qemu: args.qemu.clone(),
        on_demand: args.on_demand,
        log,
    })
}

/// Make sure that a daemon answers on a base folder: start one if none does. The daemon ends by itself when it has
/// nothing left to hold. True if it was started now.
pub fn start_on_demand(base: &Path) -> Result<bool, StartError> {
    let socket = base.join(SOCKET);
    if answers(&socket).is_ok() {
        return Ok(false);
    }
    let start = Instant::now();
    let mut again = true;
    loop {
        let error = match start_one(base, &socket, start) {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        // Another one may have the folder at this moment: it is about to answer, or to end and take the folder with it.
        let other = daemon_of(base);
        while other.is_some() && daemon_of(base) == other && start.elapsed() < START_DEADLINE {
            if answers(&socket).is_ok() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if (other.is_none() && !again) || start.elapsed() > START_DEADLINE {
            return Err(error);
        }
        again = other.is_some();
    }
}

/// Start a daemon and wait until one answers, or until it ended.
fn start_one(base: &Path, socket: &Path, start: Instant) -> Result<(), StartError> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| StartError::Io { action, path, source }
    };
    if !base.exists() {
        if let Some(parent) = base.parent() {
            std::fs::create_dir_all(parent).map_err(io("create", parent))?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(base) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(io("create", base)(error)),
            _ => {}
        }
    }
    let path = base.join(LOG);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(io("open", &path))?;
    let begin = log.metadata().map_err(io("open", &path))?.len();
    let program = std::env::current_exe().map_err(io("find", Path::new("megaform")))?;
    let mut child = Command::new(&program)
        .arg("--base")
        .arg(base)
        .args(["daemon", ON_DEMAND])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(io("start", &program))?;
    loop {
        let error = match answers(socket) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if let Ok(Some(status)) = child.try_wait() {
            let text = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(text.get(usize::try_from(begin).unwrap_or(0)..).unwrap_or_default());
            let said = text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned);
            return Err(StartError::Ended { said: said.unwrap_or_else(|| status.to_string()) });
        }
        if start.elapsed() > START_DEADLINE {
            return Err(StartError::Silent { seconds: START_DEADLINE.as_secs(), log: path, source: error });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a base folder holds VMs. Without a daemon they may run all the same; the next one adopts them.
pub fn left_vms(base: &Path) -> bool {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()))
}

/// How long a daemon that was started on demand may take to end once it has nothing left to hold.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Wait until a daemon that was started on demand and has nothing left to hold has ended and taken the base folder with
/// it; not for one that was started by hand, or that still holds something.
pub fn wait_for_end(base: &Path) {
    if let Some(pid) = on_demand(base) {
        if holds_something(&base.join(SOCKET)) {
            return;
        }
        let start = Instant::now();
        while on_demand(base) == Some(pid) || has_argument(pid, ON_DEMAND) {
            if start.elapsed() > END_DEADLINE {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // It removed the folder, unless a file of ours was in it at that moment.
    let _gone_or_not_empty = std::fs::remove_dir(base);
}

/// The pid of the daemon on a base folder.
fn daemon_of(base: &Path) -> Option<u32> {
    let pid = std::fs::read_to_string(base.join(daemon::PID)).ok()?.trim().parse().ok()?;
    has_argument(pid, "daemon").then_some(pid)
}

/// The same, if it was started on demand.
fn on_demand(base: &Path) -> Option<u32> {
    daemon_of(base).filter(|pid| has_argument(*pid, ON_DEMAND))
}

/// Whether a process runs with an argument. One that ended has none, even while nobody has asked how it ended.
fn has_argument(pid: u32, argument: &str) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|b| *b == 0).any(|a| a == argument.as_bytes())
}

/// Whether anything lives on an engine. One that does not answer is about to end.
fn holds_something(socket: &Path) -> bool {
    let Ok(mut client) = Client::connect(socket, Some(Duration::from_secs(5))) else { return false };
    let default = Namespace::default_namespace();
    match live::namespaces(&mut client) {
        Ok(names) if names.iter().all(|name| name == default.as_str()) => {
            live::observe(&mut client, &default).is_ok_and(|live| !live.vms.is_empty() || !live.taps.is_empty())
        }
        Ok(_) => true,
        Err(_) => false,
    }
}

fn answers(socket: &Path) -> Result<(), WireError> {
    Client::connect(socket, Some(Duration::from_secs(5)))?.call("version").map(|_| ())
}
