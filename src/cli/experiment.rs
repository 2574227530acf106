//! What the subcommands for experiments share: reading the file, reaching the target, and how they fail.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::daemon;
use super::lines;
use super::target::Target;
use crate::apply::{ReplanError, journal, lock, plan_on};
use crate::diagnostic::{Diagnostic, Exit, Severity, SourceMap, Span, Spanned, render};
use crate::graph::{Graph, RenderError};
use crate::live::{self, Live, LiveError};
use crate::name::Namespace;
use crate::plan::saved::SavedError;
use crate::plan::{self, Advice, Options, Plan, PlanError};
use crate::spec::{self, model::Experiment};
use crate::wire::{Client, WireError};

/// Why a subcommand could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Diagnostics were printed already; nothing is to be added.
    #[error("see above")]
    Reported,
    /// No connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Observing failed.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// Observing or planning failed.
    #[error(transparent)]
    Replan(#[from] ReplanError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] lock::LockError),
    /// The daemon.
    #[error("cannot start the engine")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The journal.
    #[error("cannot {action} the journal {}", path.display())]
    Journal {
        /// What was tried.
        action: &'static str,
        /// The journal.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A saved plan.
    #[error("cannot use {}", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SavedError,
    },
    /// A file that could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Options that change what a plan is of.
    #[error("a saved plan is carried out as it is: give --target, --exclude and --replace to `megaform plan --out`")]
    SavedSelection,
    /// A saved plan of something else.
    #[error("the plan was made for the target {}, not for {}", made_for.display(), given.display())]
    OtherTarget {
        /// The target that it was made for.
        made_for: PathBuf,
        /// The target that was given.
        given: PathBuf,
    },
    /// A question could not be asked.
    #[error("this changes what runs and needs a confirmation: use a terminal, or give --yes")]
    NoTerminal,
    /// Standard output, or a file that was asked for.
    #[error("cannot write {what}")]
    Write {
        /// What.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Drawing.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// What is there cannot become an experiment file.
    #[error("cannot import: {message}")]
    Import {
        /// Why not.
        message: String,
    },
    /// A code that no diagnostic has.
    #[error("there is no error or warning with the code `{code}`: {hint}")]
    UnknownCode {
        /// What was given.
        code: String,
        /// What may be meant.
        hint: String,
    },
    /// JSON.
    #[error("cannot write the plan as JSON")]
    Json(#[source] serde_json::Error),
}

/// The result of a subcommand as the program reports it: what was printed already is not printed again.
pub fn settled(result: Result<Exit, CommandError>) -> Result<Exit, Box<dyn std::error::Error>> {
    match result {
        Err(CommandError::Reported) => Ok(Exit::Error),
        other => other.map_err(Into::into),
    }
}

/// An experiment with everything that planning it needs.
#[derive(Debug)]
pub struct Loaded {
    /// The experiment.
    pub experiment: Experiment,
    /// Its graph.
    pub graph: Graph,
    /// Its text.
    pub sources: SourceMap,
}

/// Print diagnostics to standard error.
pub fn report(diagnostics: &[Diagnostic], sources: &SourceMap) {
    if !diagnostics.is_empty() {
        eprint!("{}", render(diagnostics, sources, colours(&io::stderr())));
    }
}

/// Whether a stream gets colours: a terminal, unless `NO_COLOR` is set.
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// This machine, if the engine is on it.
fn machine(target: &Target) -> Option<spec::Machine> {
    let text = std::fs::read_to_string("/proc/meminfo").ok().filter(|_| target.own)?;
    let kilobytes: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())?;
    let cpus = std::thread::available_parallelism().ok()?.get() as u64;
    Some(spec::Machine { cpus, memory: kilobytes / 1024, files: target.base.join("files") })
}

/// Read an experiment and its graph, printing what there is to say about it and about this machine if `here` is an
/// engine on it. None if it has errors.
pub fn load(path: &Path, here: Option<&Target>) -> Option<Loaded> {
    let spec::Loaded { sources, experiment, mut diagnostics } = spec::load(path);
    if let (Some(experiment), Some(machine)) = (&experiment, here.and_then(machine)) {
        diagnostics.extend(spec::machine(experiment, &machine));
    }
    diagnostics.extend(experiment.iter().flat_map(lines::check));
    let graph = experiment.as_ref().map(Graph::new);
    let graph = match graph {
        Some(Ok(graph)) => Some(graph),
        Some(Err(cycles)) => {
            diagnostics.extend(cycles);
            None
        }
        None => None,
    };
    report(&diagnostics, &sources);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) && io::stderr().is_terminal() {
        eprintln!("`megaform explain CODE` tells more about a code in brackets");
    }
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    Some(Loaded { experiment: experiment.filter(|_| !failed)?, graph: graph?, sources })
}

/// An experiment of which nothing but its name is known.
pub fn named(name: &Namespace) -> Loaded {
    let mut sources = SourceMap::new();
    let source = sources.add("(command line)", "");
    let experiment = Experiment {
        name: Spanned::new(name.clone(), Span { source, start: 0, end: 0 }),
        vlans: Default::default(),
        vlan_range: None,
        vms: Default::default(),
        taps: Default::default(),
        commands: Default::default(),
    };
    let graph = Graph::new(&experiment).expect("nothing needs nothing, so there is no cycle");
    Loaded { experiment, graph, sources }
}

/// The file or the name that a subcommand was given.
pub fn file_or_name(file: Option<&Path>, name: Option<&Namespace>) -> Result<Loaded, CommandError> {
    match (file, name) {
        (Some(file), _) => load(file, None).ok_or(CommandError::Reported),
        (None, Some(name)) => Ok(named(name)),
        (None, None) => unreachable!("clap asks for one of them"),
    }
}

/// Nobody listens: there is no socket, or no daemon behind it.
pub fn nobody(error: &WireError) -> bool {
    matches!(error, WireError::Missing { .. } | WireError::Refused { .. })
}

/// What is live. Where the engine of our own does not run, nothing is, and the second value says so. One that ended and
/// left VMs behind is started again, to tell of them.
pub fn observe(target: &Target, namespace: &Namespace) -> Result<(Live, Option<String>), CommandError> {
    let (live, note, _) = look(target, namespace)?;
    Ok((live, note))
}

/// The plan for what is live; the note is that of [`observe`].
pub fn planned(
    target: &Target,
    loaded: &Loaded,
    options: &Options<'_>,
) -> Result<(Plan, Option<String>), CommandError> {
    let (live, note, client) = look(target, &loaded.experiment.name.value)?;
    let (experiment, graph) = (&loaded.experiment, &loaded.graph);
    let plan = match client {
        Some(mut client) => plan_on(&mut client, experiment, graph, live, options),
        None => plan::plan(experiment, graph, &live, options).map_err(Into::into),
    };
    Ok((plan.map_err(|error| replan_error(error, &loaded.sources))?, note))
}

type Look = (Live, Option<String>, Option<Client>);

fn look(target: &Target, namespace: &Namespace) -> Result<Look, CommandError> {
    let mut client = match Client::connect(&target.socket, None) {
        Ok(client) => client,
        Err(error) if target.own && nobody(&error) => {
            if !daemon::left_vms(&target.base) {
                return Ok((Live::absent(), Some(format!("no daemon at {}", target.socket.display())), None));
            }
            daemon::start_on_demand(&target.base).map_err(|e| CommandError::Start(Box::new(e)))?;
            eprintln!("note: the daemon at {} had ended and left VMs; it was started again", target.socket.display());
            Client::connect(&target.socket, None)?
        }
        Err(error) => return Err(error.into()),
    };
    Ok((live::observe(&mut client, namespace)?, None, Some(client)))
}

/// What the journal of an experiment remembers.
pub fn advice(target: &Target, namespace: &Namespace) -> Result<Advice, CommandError> {
    journal::advice(&target.socket, namespace).map_err(|source| CommandError::Journal {
        action: "read",
        path: journal::path(&target.socket, namespace),
        source,
    })
}

/// Print what stops a plan.
pub fn blocked(error: PlanError, sources: &SourceMap) -> CommandError {
    let PlanError::Blocked { problems } = error;
    report(&problems, sources);
    CommandError::Reported
}

/// The same for an error that may be something else.
pub fn replan_error(error: ReplanError, sources: &SourceMap) -> CommandError {
    match error {
        ReplanError::Plan(error) => blocked(error, sources),
        other => other.into(),
    }
}

/// Write to standard output. A reader that has gone away, as in `plan | head`, is no failure.
pub fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|source| CommandError::Write { what: "standard output".to_owned(), source }),
    }
}

/// How many there are of a thing.
pub fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
