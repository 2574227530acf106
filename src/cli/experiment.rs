//! What the subcommands for experiments share: reading the file, reaching the target, and how they fail.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use clap::Args;

use super::ahead::Ahead;
use super::daemon;
use super::lines;
use super::target::Target;
use crate::apply::{ReplanError, journal, lock, plan_on};
use crate::diagnostic::{Diagnostic, Exit, Severity, SourceMap, Span, Spanned, render};
use crate::graph::{Graph, RenderError};
use crate::host::linux::memory;
use crate::live::{self, Live, LiveError};
use crate::name::Namespace;
use crate::plan::display::{self, Style};
use crate::plan::saved::SavedError;
use crate::plan::{self, Advice, Options, Plan, PlanError};
use crate::spec::compose::HIDDEN;
use crate::spec::{self, Inputs, Output, Secrets, model::Experiment};
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
    /// Variables for what has no variables any more.
    #[error("a saved plan is carried out as it is: give --var and --var-file to `megaform plan --out`")]
    SavedVariables,
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
    /// There is no such output.
    #[error("the file has no output `{name}`; its outputs: {known}")]
    NoOutput {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that `init` cannot write.
    #[error("`{file}` is no name for a YAML file, expected one that ends with .yaml or .yml")]
    InitName {
        /// The name.
        file: String,
    },
    /// A line could not be read.
    #[error("cannot read an expression")]
    Prompt(#[source] Box<dyn std::error::Error + Send + Sync>),
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
    #[error("cannot write JSON")]
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
    /// Its texts.
    pub sources: SourceMap,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// What no text may show.
    pub secrets: Secrets,
}

/// Where help shows the options for variables.
const VARIABLES: &str = "Variables of the file";

/// The environment variables that set variables of the file begin so.
const ENVIRONMENT: &str = "MEGAFORM_VAR_";

/// Values for the variables of an experiment file.
#[derive(Debug, Default, Args)]
pub struct VarArgs {
    /// Set a variable of the file, as in --var web_count=3; may be given several times, and the last counts. Lists and maps are
    /// written as YAML: --var 'sites=[a, b]'. The environment sets one with MEGAFORM_VAR_NAME.
    #[arg(long = "var", value_name = "NAME=VALUE", help_heading = VARIABLES)]
    var: Vec<String>,
    /// Read variables from a YAML or TOML file; may be given several times. --var wins over it, and it wins over the environment.
    #[arg(long = "var-file", value_name = "FILE", help_heading = VARIABLES)]
    var_file: Vec<PathBuf>,
}

impl VarArgs {
    /// Nothing was given on the command line.
    pub fn is_empty(&self) -> bool {
        self.var.is_empty() && self.var_file.is_empty()
    }

    /// With what the environment gives.
    pub fn inputs(&self) -> Inputs {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.to_str()?.strip_prefix(ENVIRONMENT)?.to_owned();
                Some((name, value.to_str()?.to_owned()))
            })
            .collect();
        Inputs { vars: self.var.clone(), files: self.var_file.clone(), environment }
    }
}

/// Print diagnostics to standard error.
pub fn report(diagnostics: &[Diagnostic], sources: &SourceMap, secrets: &Secrets) {
    if !diagnostics.is_empty() {
        eprint!("{}", secrets.mask(&render(diagnostics, sources, colours(&io::stderr()))));
    }
}

/// Whether a stream gets colours: a terminal, unless `NO_COLOR` is set.
pub fn colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// This machine, if the engine is on it.
fn machine(target: &Target) -> Option<spec::Machine> {
    let text = target.own.then(|| std::fs::read_to_string("/proc/meminfo").ok()).flatten()?;
    let kilobytes: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())?;
    let cpus = std::thread::available_parallelism().ok()?.get() as u64;
    Some(spec::Machine { cpus, memory: kilobytes / 1024, files: target.base.join("files") })
}

/// Read an experiment and its graph, printing what there is to say about it and about this machine if `here` is an
/// engine on it. None if it has errors.
pub fn load(path: &Path, vars: &VarArgs, here: Option<&Target>) -> Option<Loaded> {
    memory::large_steps();
    understand(spec::load(path, &vars.inputs()), here)
}

/// The same for a file that is to be planned for what is live: the target is looked at in the meantime.
pub fn load_ahead(path: &Path, vars: &VarArgs, target: &Target) -> Option<(Loaded, Option<Ahead>)> {
    memory::large_steps();
    let file = match spec::read(path) {
        Ok(file) => file,
        Err(refused) => return Some((understand(*refused, Some(target))?, None)),
    };
    let ahead = Ahead::begin(&target.socket, &file);
    Some((understand(file.load(&vars.inputs()), Some(target))?, ahead))
}

fn understand(loaded: spec::Loaded, here: Option<&Target>) -> Option<Loaded> {
    let spec::Loaded { sources, experiment, rest, outputs, secrets, mut diagnostics } = loaded;
    if let (Some(experiment), Some(machine)) = (&experiment, here.and_then(machine)) {
        diagnostics.extend(spec::machine(experiment, &machine));
    }
    diagnostics.extend(experiment.iter().flat_map(lines::check));
    // Copies of one entry have the same to say.
    let mut said = HashSet::new();
    diagnostics.retain(|d| said.insert((d.code, d.span, d.message.clone())));
    // A VM that depends on itself is reported, and would be a cycle too.
    if let Some(Err(cycles)) =
        rest.filter(|_| diagnostics.iter().all(|d| d.code != "self-dependency")).map(|e| Graph::new(&e))
    {
        diagnostics.extend(cycles);
    }
    let graph = experiment.as_ref().map(Graph::new);
    let graph = match graph {
        Some(Ok(graph)) => Some(graph),
        Some(Err(cycles)) => {
            diagnostics.extend(cycles);
            None
        }
        None => None,
    };
    report(&diagnostics, &sources, &secrets);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) && io::stderr().is_terminal() {
        eprintln!("`megaform explain CODE` tells more about a code in brackets");
    }
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    Some(Loaded { experiment: experiment.filter(|_| !failed)?, graph: graph?, sources, outputs, secrets })
}

/// An experiment of which nothing but its name is known.
pub fn named(name: &Namespace) -> Loaded {
    let mut sources = SourceMap::new();
    let source = sources.add("(command line)", "");
    let experiment = Experiment {
        name: Spanned::new(name.clone(), Span { source, start: 0, end: 0 }),
        vlans: Default::default(),
        vlan_range: None,
        vlan_blacklist: Default::default(),
        vms: Default::default(),
        taps: Default::default(),
        objects: Default::default(),
        commands: Default::default(),
    };
    let graph = Graph::new(&experiment).expect("nothing needs nothing, so there is no cycle");
    Loaded { experiment, graph, sources, outputs: Vec::new(), secrets: Secrets::default() }
}

/// The file or the name that a subcommand was given.
pub fn file_or_name(file: Option<&Path>, name: Option<&Namespace>, vars: &VarArgs) -> Result<Loaded, CommandError> {
    match (file, name) {
        (Some(file), _) => load(file, vars, None).ok_or(CommandError::Reported),
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

/// The plan for what is live, or was seen ahead to be; the note is that of [`observe`].
pub fn planned(
    target: &Target,
    loaded: &Loaded,
    options: &Options<'_>,
    ahead: Option<Ahead>,
) -> Result<(Plan, Option<String>), CommandError> {
    let name = &loaded.experiment.name.value;
    let (live, note, client) = match ahead.and_then(|ahead| ahead.seen(name)) {
        Some(seen) => seen.map(|(live, client)| (live, None, Some(client)))?,
        None => look(target, name)?,
    };
    // The program ends soon, and to give back the many pieces one by one takes as long as a good part of planning.
    let mut live = ManuallyDrop::new(live);
    let (experiment, graph) = (&loaded.experiment, &loaded.graph);
    let plan = match client {
        Some(mut client) => plan_on(&mut client, experiment, graph, &mut live, options),
        None => plan::plan(experiment, graph, &live, options).map_err(Into::into),
    };
    Ok((plan.map_err(|error| replan_error(error, loaded))?, note))
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
pub fn blocked(error: PlanError, loaded: &Loaded) -> CommandError {
    let PlanError::Blocked { problems } = error;
    report(&problems, &loaded.sources, &loaded.secrets);
    CommandError::Reported
}

/// The same for an error that may be something else.
pub fn replan_error(error: ReplanError, loaded: &Loaded) -> CommandError {
    match error {
        ReplanError::Plan(error) => blocked(error, loaded),
        other => other.into(),
    }
}

/// A plan as text without what is sensitive. Where that took something away, a note says so.
pub fn shown_plan(plan: &Plan, style: Style<'_>, secrets: &Secrets) -> String {
    if secrets.is_empty() {
        return display::render(plan, style);
    }
    let (plan, secrets) = veiled(plan, secrets);
    let text = display::render(&plan, style);
    let hidden = secrets.mask(&text);
    if hidden == text {
        return text;
    }
    let mut plan = plan.into_owned();
    plan.notes.push(HIDDEN_NOTE.to_owned());
    secrets.mask(&display::render(&plan, style))
}

/// A plan as JSON text without what is sensitive. Where that took something away, a note says so.
pub fn plan_json(plan: &Plan, secrets: &Secrets) -> Result<String, CommandError> {
    if secrets.is_empty() {
        return serde_json::to_string_pretty(plan).map_err(CommandError::Json);
    }
    let (plan, secrets) = veiled(plan, secrets);
    let masked = |plan: &Plan| {
        let plain = serde_json::to_value(plan).map_err(CommandError::Json)?;
        let mut json = plain.clone();
        secrets.mask_json(&mut json);
        let text = serde_json::to_string_pretty(&json).map_err(CommandError::Json)?;
        Ok::<_, CommandError>((json != plain, text))
    };
    let (hidden, json) = masked(&plan)?;
    if !hidden {
        return Ok(json);
    }
    let mut plan = plan.into_owned();
    plan.notes.push(HIDDEN_NOTE.to_owned());
    masked(&plan).map(|(_, json)| json)
}

/// Hide what a field is now where what it is to be is sensitive: it is likely to be an older secret, which no variable holds
/// any more.
pub fn veiled<'a>(plan: &'a Plan, secrets: &Secrets) -> (Cow<'a, Plan>, Secrets) {
    let mut secrets = secrets.clone();
    if secrets.is_empty() {
        return (Cow::Borrowed(plan), secrets);
    }
    let mut veiled = plan.clone();
    let mut old = Vec::new();
    for reason in veiled.changes.iter_mut().flat_map(|change| &mut change.reasons) {
        if reason.new.as_ref().is_some_and(|new| secrets.mask(new) != *new) {
            old.extend(reason.old.as_mut().map(|old| std::mem::replace(old, HIDDEN.to_owned())));
        }
    }
    for old in old {
        // A list is shown in brackets, which its commands do not have.
        secrets.add(old.trim_start_matches('[').trim_end_matches(']'));
    }
    (Cow::Owned(veiled), secrets)
}

/// What a plan says that was made shorter.
pub const HIDDEN_NOTE: &str =
    "sensitive values are shown as (sensitive), so this text cannot be run as it is; apply sends the values themselves";

/// Write to standard output. A reader that has gone away is an error, with which `main` ends without a word.
pub fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| CommandError::Write { what: "standard output".to_owned(), source })
}

/// The same of what is said besides the work, which goes on whoever reads.
pub fn tell(text: &str) -> Result<(), CommandError> {
    match print(text) {
        Err(CommandError::Write { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// How many there are of a thing.
pub fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Action, Change, Expect, Reason, Step, Undo};

    #[test]
    fn the_old_value_of_a_sensitive_field_is_hidden_too() {
        let reason = |field: &str, old: &str, new: &str| Reason {
            field: field.to_owned(),
            old: Some(old.to_owned()),
            new: Some(new.to_owned()),
            place: None,
            drift: false,
        };
        let plan = Plan {
            experiment: Namespace::new("lab").unwrap(),
            destroy: false,
            partial: false,
            drift_only: false,
            unchanged: Vec::new(),
            unmanaged: Vec::new(),
            learn: Default::default(),
            changes: vec![Change {
                address: crate::name::Address::vm(&crate::name::VmName::new("web").unwrap()),
                action: Action::Replace,
                place: None,
                reasons: vec![reason("append", "[t=old-secret]", "[t=new-secret]"), reason("memory", "64", "128")],
                costs: Vec::new(),
                steps: Vec::new(),
                renamed_from: None,
                goal: std::sync::Arc::new(crate::plan::goal::Goal::Gone),
                guard: None,
            }],
            steps: vec![Step {
                id: 1,
                command: "vm config append t=new-secret".to_owned(),
                serves: [0].into(),
                needs: Vec::new(),
                after: Vec::new(),
                undo: Undo::Command("vm config append t=old-secret".to_owned()),
                guard: None,
                expect: Expect::Answer,
                mark: None,
            }],
            notes: Vec::new(),
        };
        let mut secrets = Secrets::default();
        assert!(secrets.add("new-secret"));
        let style = Style { target: "x", colour: false, verbose: true };
        let text = shown_plan(&plan, style, &secrets);
        assert!(
            text.contains("append: (sensitive) -> [t=(sensitive)]") && text.contains("memory: 64 -> 128"),
            "{text}"
        );
        let json = plan_json(&plan, &secrets).unwrap();
        for text in [text, json] {
            assert!(!text.contains("-secret") && text.contains(HIDDEN_NOTE), "{text}");
        }
        assert_eq!(shown_plan(&plan, style, &Secrets::default()), display::render(&plan, style));
    }
}
