//! The daemon: one engine behind one socket.
//!
//! Owns the base folder, the lock that keeps a second daemon out of it, the pid file, and how the daemon ends. Must not
//! know how any command is carried out.
//!
//! A daemon that `apply` started on demand ends by itself when it has nothing left to hold: no VM, no tap, no namespace
//! and no client. It takes its files with it. Any daemon that ends, by `quit` too, leaves running VMs alone; the next one
//! adopts them.

mod base;
mod clear;
mod dispatch;
mod network;
mod pipe;
mod preprocess;
mod script;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::commands;
use crate::engine::{Accelerator, Engine, EngineError, Options};
use crate::host::linux::memory;
use crate::logging::Log;
use crate::wire::{self, WireError};

use base::Base;
pub use base::{BaseError, LOG, PID, SOCKET};
use dispatch::Dispatcher;
pub use network::{NETWORK_PIN, NetworkChoiceError, NetworkOptions};

/// How often a daemon on demand looks whether it is still needed.
const LOOK: Duration = Duration::from_millis(250);

/// For how many looks in a row it must have been without need.
const LOOKS: u32 = 4;

/// How a daemon is set up.
pub struct Settings {
    /// The base folder; made if it is not there.
    pub base: PathBuf,
    /// Where the taps are made and what connects them.
    pub network: NetworkOptions,
    /// Which accelerator VMs run under.
    pub accelerator: Accelerator,
    /// The QEMU program.
    pub qemu: String,
    /// End when there is nothing left to hold.
    pub on_demand: bool,
    /// The log.
    pub log: Arc<Log>,
}

/// Why the daemon did not start or failed.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The base folder.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// Options that do not go together.
    #[error("{reason}")]
    Options {
        /// Which, and what is needed instead.
        reason: &'static str,
    },
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkChoiceError),
    /// The engine.
    #[error("cannot open the engine")]
    Engine(#[from] EngineError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] WireError),
    /// The runtime.
    #[error("cannot start the daemon's threads")]
    Runtime(#[source] std::io::Error),
}

/// How long a daemon waits for one that was killed to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Run a daemon until it is told to end.
pub fn run(settings: &Settings) -> Result<(), DaemonError> {
    let base = Base::open(&settings.base, PATIENCE)?;
    raise_file_limit();
    memory::few_heaps();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).min(4))
        // Blocking work is netlink and starting processes; few threads keep the idle daemon small.
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let served = runtime.block_on(serve(settings, &base));
    // Tasks that watch QEMUs never end by themselves.
    runtime.shutdown_background();
    match &served {
        Ok(()) => base.close(settings.on_demand),
        Err(_) => base.abandon(),
    }
    served
}

/// Let this process have as many open files as it may: three for each VM. Programs that it starts have the same limit.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Without it, fewer VMs fit; there is nothing else to do about it.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// This host's name, as answers give it.
fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

async fn serve(settings: &Settings, base: &Base) -> Result<(), DaemonError> {
    let network = {
        let (folder, asked) = (base.folder().to_owned(), settings.network.clone());
        let chosen = tokio::task::spawn_blocking(move || network::choose(&folder, &asked));
        chosen.await.expect("network calls do not panic")?
    };
    let (engine, notes) = Engine::open(Options {
        base: base.folder().to_owned(),
        host: host_name(),
        accelerator: settings.accelerator,
        qemu: settings.qemu.clone(),
        network: Arc::new(network),
    })
    .await?;
    for note in notes {
        tracing::info!("{note}");
    }
    let commands = commands::all();
    let grammar = commands::grammar(&commands);
    let dispatcher = Arc::new(Dispatcher::new(commands, grammar, Arc::clone(&engine), Arc::clone(&settings.log)));
    let socket = base.socket();
    let listener = wire::bind(&socket)?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let server = tokio::spawn(wire::serve(listener, Arc::clone(&dispatcher), host_name(), stopped));
    tracing::info!(socket = %socket.display(), "listening");
    let unneeded = async {
        if !settings.on_demand {
            std::future::pending::<()>().await;
        }
        let mut looks = 0;
        while looks < LOOKS {
            tokio::time::sleep(LOOK).await;
            let idle = dispatcher.connections() == 0 && engine.is_empty().await.unwrap_or(false);
            looks = if idle { looks + 1 } else { 0 };
        }
        tracing::info!("nothing left to hold");
    };
    let mut asked = dispatcher.quit();
    let quit = async {
        loop {
            let at = *asked.borrow_and_update();
            let due = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => return,
                // Another delay; the dispatcher, which sends it, lives as long as this.
                _ = asked.changed() => {}
            }
        }
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
    tokio::select! {
        () = unneeded => {}
        () = quit => tracing::info!("told to quit; running VMs are left alone"),
        _ = terminate.recv() => tracing::info!("told to end; running VMs are left alone"),
        _ = interrupt.recv() => tracing::info!("interrupted; running VMs are left alone"),
    }
    stop.send_replace(true);
    // Clients get their last answers; one that does not read is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(2), server).await;
    if let Err(error) = engine.close().await {
        tracing::warn!(error = %error.chain(), "something is left");
    }
    Ok(())
}
