//! From a line to its answer: compile, walk the builtins, run the handler, select and render.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::commands::{Answer, Builtin, CLEAR_HISTORY, Call, Command, HISTORY_LIMIT, Parts, Run, Shared, namespaces};
use crate::engine::{Engine, Progress};
use crate::language::alias;
use crate::language::complete::Candidates;
use crate::language::declaration::Completion;
use crate::language::entry::Entry;
use crate::language::grammar::{Args, CompileError, Compiled, Grammar, MAX_DEPTH};
use crate::language::output::{self, OutputMode};
use crate::language::range;
use crate::language::token::tokenize;
use crate::logging::Log;
use crate::name::Namespace;
use crate::wire::{Handler, PipeInput, PipeOutput, Reply, Response};

use super::words::Words;

/// The switches that all connections share.
pub(super) struct Switches {
    mode: OutputMode,
    record: bool,
    preprocess: bool,
    pub(super) words: Words,
}

/// Carries out the commands of all connections.
pub struct Dispatcher {
    pub(super) commands: Vec<Command>,
    pub(super) shared: Arc<Shared>,
    switches: Mutex<Switches>,
    /// Connections that have sent a command and are still open.
    connections: Mutex<HashSet<u64>>,
}

/// A step of selection; the innermost is applied first.
enum Selection {
    Columns(String),
    Filter(String),
}

impl Dispatcher {
    /// A dispatcher of these commands.
    pub fn new(commands: Vec<Command>, grammar: Grammar, engine: Arc<Engine>, log: Arc<Log>) -> Self {
        Self {
            commands,
            shared: Arc::new(Shared {
                engine,
                grammar,
                history: Mutex::new(Vec::new()),
                log,
                status_updates: Mutex::new(None),
                quit: watch::Sender::new(None),
            }),
            switches: Mutex::new(Switches {
                mode: OutputMode::default(),
                record: true,
                preprocess: true,
                words: Words::from_environment(),
            }),
            connections: Mutex::new(HashSet::new()),
        }
    }

    /// How many clients are connected.
    pub fn connections(&self) -> usize {
        self.open().len()
    }

    /// Tells when the daemon is to end.
    pub fn quit(&self) -> watch::Receiver<Option<tokio::time::Instant>> {
        self.shared.quit.subscribe()
    }

    fn open(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.connections.lock().expect("no code panics while it holds the set of connections")
    }

    pub(super) fn host(&self) -> &str {
        self.shared.engine.host()
    }

    pub(super) fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().expect("no code panics while it holds the switches")
    }

    pub(super) fn run_of(&self, compiled: &Compiled) -> (&Run, &str) {
        let command = &self.commands[compiled.command];
        (&command.run, &command.declaration.name)
    }

    /// Is the line to be kept in the history?
    fn recorded(&self, compiled: &Compiled) -> bool {
        let mut record = self.switches().record;
        let mut at = Some(compiled);
        while let Some(compiled) = at {
            if let (Run::Builtin(Builtin::Record), _) = self.run_of(compiled) {
                record &= compiled.nested.is_some() && compiled.args.choice("true,false") == Some("true");
            }
            at = compiled.nested.as_deref();
        }
        record
    }

    /// Does the line itself say that it is not to be recorded? Programs that ask again and again say so.
    fn passes_unrecorded(&self, compiled: &Compiled) -> bool {
        let record = matches!(self.run_of(compiled), (Run::Builtin(Builtin::Record), _));
        (record && compiled.nested.is_some() && compiled.args.choice("true,false") == Some("false"))
            || compiled.nested.as_deref().is_some_and(|nested| self.passes_unrecorded(nested))
    }

    /// The command that a line means, after aliases.
    pub(super) fn compile(&self, line: &str) -> Result<Option<Compiled>, CompileError> {
        let expanded = alias::expand(&self.switches().words.aliases, line);
        self.shared.grammar.compile(expanded.as_deref().unwrap_or(line))
    }

    /// The aliases that are defined now.
    pub(super) fn aliases(&self) -> alias::Aliases {
        self.switches().words.aliases.clone()
    }

    /// An answer that is an error.
    pub(super) fn failure(&self, error: impl Into<String>) -> Response {
        Response { resp: Some(vec![Entry::failure(self.host(), error)]), ..Response::default() }
    }

    /// Carry out a line and send its answers.
    async fn respond(&self, line: &str, reply: &Reply) {
        let response = match self.compile(line) {
            Ok(None) => Response::default(),
            Err(error) => {
                tracing::debug!(command = shown(line), %error, "no command");
                self.failure(error.to_string())
            }
            Ok(Some(compiled)) if self.reads(&compiled) => return self.read(&compiled, reply).await,
            Ok(Some(compiled)) => self.answer(&compiled, None, reply).await,
        };
        // A client that left meanwhile does not want the answer.
        reply.send(response).await;
    }

    /// The last response to a command, which runs in `namespace` if it names none itself. Those before it, of a command
    /// that answers in parts, and progress are sent meanwhile.
    pub(super) async fn answer(&self, compiled: &Compiled, namespace: Option<&Namespace>, reply: &Reply) -> Response {
        let start = Instant::now();
        let progress = Progress::default();
        let updates = *self.shared.status_updates.lock().expect("no code panics while it holds the frequency");
        let work = progress.clone().of(self.carry_out(compiled, namespace, reply));
        let response = match updates {
            None => work.await,
            Some(every) => {
                tokio::pin!(work);
                loop {
                    if let Ok(response) = tokio::time::timeout(every, &mut work).await {
                        break response;
                    }
                    reply.progress(update(&compiled.original, start.elapsed(), &progress.text()));
                }
            }
        };
        let duration = start.elapsed();
        match response.errors().next() {
            None => tracing::debug!(command = shown(&compiled.original), ?duration, "command"),
            Some((_, error)) if self.passes_unrecorded(compiled) => {
                tracing::debug!(command = shown(&compiled.original), ?duration, error, "command failed");
            }
            Some((_, error)) => {
                tracing::warn!(command = shown(&compiled.original), ?duration, error, "command failed");
            }
        }
        response
    }

    async fn carry_out(&self, compiled: &Compiled, namespace: Option<&Namespace>, reply: &Reply) -> Response {
        let mut mode = self.switches().mode;
        let recorded = self.recorded(compiled);
        let entry = self.execute(compiled, &mut mode, namespace, reply).await;
        // Afterwards, so that `history` does not show itself; and a cleared history is empty.
        if recorded && self.commands[compiled.innermost().command].declaration.name != CLEAR_HISTORY {
            let mut history = self.shared.history.lock().expect("history is not poisoned");
            if history.len() >= HISTORY_LIMIT {
                // Some at once, because what stays has to be moved.
                history.drain(..HISTORY_LIMIT / 10);
            }
            history.push(compiled.original.clone());
        }
        rendered(entry, &mode)
    }

    /// The answer of the one host that there is; None where the command is for hosts that are not there.
    async fn execute(
        &self,
        compiled: &Compiled,
        mode: &mut OutputMode,
        within: Option<&Namespace>,
        reply: &Reply,
    ) -> Option<Entry> {
        let mut namespace = within.cloned();
        let mut preprocess = self.switches().preprocess;
        let mut selections = Vec::new();
        let mut at = compiled;
        let entry = loop {
            let (run, name) = self.run_of(at);
            let args = match preprocess {
                true => match self.preprocessed(at).await {
                    Ok(args) => args,
                    Err(error) => break Entry::failure(self.host(), error.chain()),
                },
                false => at.args.clone(),
            };
            let text = |key: &str| args.str(key).unwrap_or_default().to_owned();
            let value = args.choice("true,false").map(|v| v == "true");
            let nested = at.nested.as_deref();
            match run {
                Run::Builtin(Builtin::Columns) => selections.push(Selection::Columns(text("columns as csv"))),
                Run::Builtin(Builtin::Filter) => selections.push(Selection::Filter(text("filter"))),
                Run::Builtin(Builtin::Switch) => match (value, nested) {
                    (Some(on), Some(_)) => {
                        mode.set(name, on);
                    }
                    (Some(on), None) => {
                        self.switches().mode.set(name, on);
                        break Entry::text(self.host(), "");
                    }
                    (None, _) => {
                        let on = self.switches().mode.get(name).unwrap_or(false);
                        break Entry::text(self.host(), on.to_string());
                    }
                },
                Run::Builtin(Builtin::Record) => match (value, nested) {
                    (Some(_), Some(_)) => {}
                    (Some(on), None) => {
                        self.switches().record = on;
                        break Entry::text(self.host(), "");
                    }
                    (None, _) => break Entry::text(self.host(), self.switches().record.to_string()),
                },
                Run::Builtin(Builtin::Preprocess) => match (value, nested) {
                    (Some(on), Some(_)) => preprocess = on,
                    (Some(on), None) => {
                        self.switches().preprocess = on;
                        break Entry::text(self.host(), "");
                    }
                    (None, _) => break Entry::text(self.host(), preprocess.to_string()),
                },
                Run::Builtin(Builtin::Alias | Builtin::Unalias | Builtin::Env) => break self.define(run, at, &args),
                Run::Builtin(Builtin::Read) => {
                    break Entry::failure(self.host(), "`read` cannot stand behind a builtin other than `namespace`");
                }
                Run::Builtin(Builtin::NsRun) => {
                    let inner = nested.expect("its only pattern nests a command");
                    if self.stays(inner) {
                        break Entry::failure(self.host(), format!("cannot run `{}` via meshage", inner.original));
                    }
                    let engine = &self.shared.engine;
                    if engine.hosts(&namespace.clone().unwrap_or_else(|| engine.active())).is_empty() {
                        return None;
                    }
                }
                Run::Builtin(Builtin::MeshSend) => match range::expand(&text("hostname or range or all")) {
                    // No host is a peer of its own, and there is no other.
                    Ok(_) => return None,
                    Err(error) => break Entry::failure(self.host(), error.to_string()),
                },
                Run::Builtin(Builtin::ClearAll) => break self.entry(self.clear_all().await),
                Run::Builtin(Builtin::Namespace) => {
                    let engine = &self.shared.engine;
                    let Some(name) = args.str("name") else {
                        break self.entry(namespaces(engine));
                    };
                    let named = match Namespace::new(name) {
                        Ok(named) => named,
                        Err(error) => break Entry::failure(self.host(), error.to_string()),
                    };
                    let result =
                        if nested.is_some() { engine.ensure_namespace(&named) } else { engine.activate(&named) };
                    if let Err(error) = result {
                        break Entry::failure(self.host(), error.chain());
                    }
                    if nested.is_none() {
                        break Entry::text(self.host(), "");
                    }
                    namespace = Some(named);
                }
                Run::Handler(_) | Run::Stream(_) => {
                    let call = self.call(namespace.unwrap_or_else(|| self.shared.engine.active()), args);
                    let answer = match run {
                        Run::Handler(handler) => handler(call).await,
                        Run::Stream(handler) => {
                            let (parts, mut coming) = Parts::channel();
                            let forward = async {
                                while let Some(part) = coming.recv().await {
                                    let entry = self.select(self.entry(part), &selections);
                                    if !reply.send(Response { more: true, ..rendered([entry], mode) }).await {
                                        break;
                                    }
                                }
                                // The handler sees at once that nobody takes more.
                                coming.close();
                                while coming.try_recv().is_ok() {}
                            };
                            tokio::join!(handler(call, parts), forward).0
                        }
                        Run::Builtin(_) => unreachable!("matched above"),
                    };
                    break match answer {
                        Ok(answer) => self.entry(answer),
                        Err(error) => Entry::failure(self.host(), error.chain()),
                    };
                }
            }
            at = nested.expect("a builtin that goes on has a nested command");
        };
        Some(self.select(entry, &selections))
    }

    /// One command to carry out.
    pub(super) fn call(&self, namespace: Namespace, args: Args) -> Call {
        Call { shared: Arc::clone(&self.shared), namespace, args }
    }

    /// The part of an entry that was asked for.
    fn select(&self, mut entry: Entry, selections: &[Selection]) -> Entry {
        for selection in selections.iter().rev() {
            if !entry.error.is_empty() {
                break;
            }
            let result = match selection {
                Selection::Columns(columns) => output::select_columns(&mut entry, columns),
                Selection::Filter(filter) => output::filter(&mut entry, filter),
            };
            if let Err(error) = result {
                entry = Entry::failure(self.host(), error.to_string());
            }
        }
        entry
    }

    /// Is a command, or one nested in it, only for the host that it was given to?
    fn stays(&self, compiled: &Compiled) -> bool {
        let run = self.run_of(compiled).0;
        matches!(run, Run::Builtin(Builtin::Read | Builtin::NsRun | Builtin::MeshSend))
            || compiled.nested.as_deref().is_some_and(|nested| self.stays(nested))
    }

    /// The namespace that the beginning of a line names for the command that follows.
    fn namespace_in(&self, line: &str) -> Option<Namespace> {
        let words = tokenize(line.trim_end_matches(|c: char| !c.is_whitespace())).ok()?;
        let mut named = None;
        // With a command behind it, the beginning up to some word is one whose namespace can be asked.
        for word in words.iter().take(MAX_DEPTH) {
            let whole = format!("{} version", &line[..word.span.end]);
            let Ok(Some(compiled)) = self.shared.grammar.compile(&whole) else { continue };
            let mut at = Some(&compiled);
            while let Some(compiled) = at {
                if let (Run::Builtin(Builtin::Namespace), Some(_)) = (self.run_of(compiled).0, &compiled.nested) {
                    named = compiled.args.str("name").and_then(|name| Namespace::new(name).ok()).or(named);
                }
                at = compiled.nested.as_deref();
            }
        }
        named
    }

    /// `.alias`, `.unalias` and `.env`.
    fn define(&self, run: &Run, compiled: &Compiled, args: &Args) -> Entry {
        let words = &mut self.switches().words;
        let done = || Entry::text(self.host(), "");
        match run {
            Run::Builtin(Builtin::Alias) if compiled.args.list("alias").is_empty() => {
                let rows = words.aliases.iter().map(|(name, text)| vec![name.clone(), text.clone()]).collect();
                self.entry(Answer::table(&["alias", "expansion"], rows))
            }
            Run::Builtin(Builtin::Alias) => match alias::define(&mut words.aliases, alias::definition(compiled)) {
                Ok(()) => done(),
                Err(error) => Entry::failure(self.host(), error.to_string()),
            },
            Run::Builtin(Builtin::Unalias) => {
                let name = compiled.args.str("alias").unwrap_or_default();
                match words.aliases.remove(name) {
                    Some(_) => done(),
                    None => Entry::failure(self.host(), format!("no alias `{name}`")),
                }
            }
            _ => match (compiled.args.str("name"), args.str("value")) {
                (None, _) => {
                    let lines: Vec<String> = words.variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
                    Entry::text(self.host(), lines.join("\n"))
                }
                (Some(name), None) => Entry::text(self.host(), words.variables.get(name).cloned().unwrap_or_default()),
                (Some(name), Some("")) => {
                    words.variables.remove(name);
                    done()
                }
                (Some(name), Some(value)) => {
                    words.variables.insert(name.to_owned(), value.to_owned());
                    done()
                }
            },
        }
    }

    pub(super) fn entry(&self, answer: Answer) -> Entry {
        let (header, tabular) = match answer.table {
            Some((header, rows)) => (Some(header), (answer.empty_list || !rows.is_empty()).then_some(rows)),
            None => (None, None),
        };
        Entry {
            host: self.host().to_owned(),
            response: answer.text,
            header,
            tabular,
            error: answer.error,
            data: answer.data,
        }
    }
}

/// The response that an entry is.
fn rendered(entries: impl IntoIterator<Item = Entry>, mode: &OutputMode) -> Response {
    let entries = Vec::from_iter(entries);
    let rendered = output::render(&entries, mode);
    Response { resp: Some(entries), rendered, ..Response::default() }
}

/// A command as the log and progress show it: the beginning of a long one.
fn shown(command: &str) -> String {
    let mut text: String = command.chars().take(300).collect();
    if text.len() < command.len() {
        text.push('…');
    }
    text
}

/// The progress of a command in one line.
fn update(command: &str, elapsed: Duration, progress: &str) -> String {
    let comma = if progress.is_empty() { "" } else { ", " };
    format!("{}: {:.1} s{comma}{progress}", shown(command), elapsed.as_secs_f64())
}

impl Handler for Dispatcher {
    async fn command(&self, connection: u64, command: String, reply: Reply) {
        self.open().insert(connection);
        self.respond(&command, &reply).await;
    }

    async fn suggest(&self, line: String) -> Vec<String> {
        let engine = &self.shared.engine;
        let active = self.namespace_in(&line).unwrap_or_else(|| engine.active());
        let taps = engine.taps(&active).await.unwrap_or_default();
        let taps = taps.into_iter().map(|tap| tap.tap.to_string()).collect();
        let variables = self.switches().words.variables.keys().cloned().collect();
        self.shared.grammar.suggest(&line, &Names { engine, active, taps, variables })
    }

    async fn pipe(&self, connection: u64, name: String, input: PipeInput, output: PipeOutput) {
        self.open().insert(connection);
        self.join_pipe(&name, input, output).await;
    }

    fn closed(&self, connection: u64) {
        self.open().remove(&connection);
    }
}

/// The names that exist when a completion is asked for.
struct Names<'a> {
    engine: &'a Engine,
    active: Namespace,
    taps: Vec<String>,
    variables: Vec<String>,
}

impl Candidates for Names<'_> {
    fn variables(&self, prefix: &str) -> Vec<String> {
        self.variables.iter().filter(|name| name.starts_with(prefix)).cloned().collect()
    }

    fn names(&self, kind: Completion, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = match kind {
            Completion::VmTarget => {
                let mut names: Vec<String> =
                    self.engine.vms(&self.active).iter().map(|vm| vm.name.to_string()).collect();
                names.push("all".to_owned());
                names
            }
            Completion::Namespace => self.engine.namespaces().into_iter().map(|n| n.name.to_string()).collect(),
            Completion::Vlan => self.engine.vlan_rows(&self.active).into_iter().map(|row| row.alias).collect(),
            Completion::Tap => self.taps.clone(),
            Completion::Pipe => {
                self.engine.pipes(&self.active).iter().map(|pipe| pipe.name.short().to_owned()).collect()
            }
            Completion::Path => return paths(self.engine.files().root(), prefix),
            // The grammar knows them.
            Completion::Command => Vec::new(),
        };
        names.retain(|name| name.starts_with(prefix));
        names
    }
}

/// The paths that begin with a prefix; a relative one is relative to the engine's files folder, as is one that begins with
/// `file:`. Nothing at all begins with the files folder itself. A folder ends in `/`.
fn paths(files: &Path, prefix: &str) -> Vec<String> {
    if prefix.is_empty() {
        return vec![format!("{}/", files.display())];
    }
    if let Some(name) = prefix.strip_prefix("file:").filter(|name| !name.starts_with('/')) {
        let found = if name.is_empty() { within(files, "") } else { paths(files, name) };
        return found.into_iter().map(|path| format!("file:{path}")).collect();
    }
    within(files, prefix)
}

/// The same without the special prefixes.
fn within(files: &Path, prefix: &str) -> Vec<String> {
    let (folder, start) = prefix.rsplit_once('/').map_or(("", prefix), |(folder, start)| (folder, start));
    let shown = if prefix.contains('/') { format!("{folder}/") } else { String::new() };
    let folder = if prefix.starts_with('/') { PathBuf::from(format!("{folder}/")) } else { files.join(folder) };
    // A folder that cannot be read has nothing to offer.
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let slash = if entry.path().is_dir() { "/" } else { "" };
            name.starts_with(start).then(|| format!("{shown}{name}{slash}"))
        })
        .collect()
}
