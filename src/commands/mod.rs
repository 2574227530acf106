//! The commands of the engine: one file per command, its declaration beside its handler.
//!
//! Must not know the socket, nor how an answer is rendered.

mod args;
mod background;
mod bridge;
mod builtin;
mod capture;
mod check;
mod clear_all;
mod debug;
mod dnsmasq;
mod echo;
mod file;
mod help;
mod history;
mod host;
mod log;
mod mesh;
mod namespace;
mod nat;
mod ns;
mod pipe;
mod plumb;
mod qos;
mod quit;
mod shell;
mod status;
mod tap;
mod version;
mod viz;
mod vlans;
mod vm_cdrom;
mod vm_config;
mod vm_flush;
mod vm_hotplug;
mod vm_info;
mod vm_kill;
mod vm_launch;
mod vm_net;
mod vm_net_bond;
mod vm_qmp;
mod vm_serial;
mod vm_start;
mod vm_stop;
mod vm_tag;
mod write;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::engine::{Engine, EngineError};
use crate::language::declaration::Declaration;
use crate::language::grammar::{Args, Grammar};
use crate::logging::Log;
use crate::name::Namespace;

pub use builtin::Builtin;
pub use history::{CLEAR_HISTORY, HISTORY_LIMIT};
pub use namespace::{CLEAR_NAMESPACE, table as namespaces};

/// What all connections share besides the engine.
pub struct Shared {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Every command.
    pub grammar: Grammar,
    /// The lines that compiled.
    pub history: Mutex<Vec<String>>,
    /// The daemon's log.
    pub log: Arc<Log>,
    /// How often a command that runs tells how far it is; None for never.
    pub status_updates: Mutex<Option<Duration>>,
    /// When the daemon is to end, once it was told to.
    pub quit: watch::Sender<Option<tokio::time::Instant>>,
}

/// One command to carry out.
pub struct Call {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// The namespace that it acts in.
    pub namespace: Namespace,
    /// Its arguments.
    pub args: Args,
}

impl Call {
    /// A required argument. The grammar guarantees it.
    fn required(&self, name: &str) -> &str {
        self.args.str(name).expect("the pattern has this argument")
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.shared.engine
    }
}

/// What a command answers with.
#[derive(Debug, Default)]
pub struct Answer {
    /// Text.
    pub text: String,
    /// Columns and rows.
    pub table: Option<(Vec<String>, Vec<Vec<String>>)>,
    /// A table without rows goes out as an empty list; minimega sends null for most tables and `[]` for some.
    pub empty_list: bool,
    /// Data.
    pub data: Value,
    /// An error beside the text (a program that ran and failed).
    pub error: String,
}

impl Answer {
    /// Nothing to say.
    pub fn done() -> Self {
        Self::default()
    }

    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A table.
    pub fn table(columns: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { table: Some((columns.iter().map(|c| (*c).to_owned()).collect(), rows)), ..Self::default() }
    }
}

/// The future of a handler.
pub type Handled = Pin<Box<dyn Future<Output = Result<Answer, EngineError>> + Send>>;

/// Takes the parts of an answer that comes in several responses; the last one is what the handler returns.
pub struct Parts(mpsc::Sender<Answer>);

impl Parts {
    /// A way for parts, at most one of which waits.
    pub fn channel() -> (Self, mpsc::Receiver<Answer>) {
        let (sender, parts) = mpsc::channel(1);
        (Self(sender), parts)
    }

    /// Send a part. Waits while the client has too many unread ones. False if the client is gone.
    pub async fn send(&self, part: Answer) -> bool {
        self.0.send(part).await.is_ok()
    }
}

/// What carries a command out.
pub enum Run {
    /// It changes how another command is carried out or shown.
    Builtin(Builtin),
    /// It does something.
    Handler(Box<dyn Fn(Call) -> Handled + Send + Sync>),
    /// It does something and answers in parts.
    Stream(Box<dyn Fn(Call, Parts) -> Handled + Send + Sync>),
}

/// One command.
pub struct Command {
    /// What is said about it.
    pub declaration: Declaration,
    /// What it does.
    pub run: Run,
}

impl Command {
    fn new<F, T>(declaration: Declaration, handler: F) -> Self
    where
        F: Fn(Call) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Answer, EngineError>> + Send + 'static,
    {
        Self { declaration, run: Run::Handler(Box::new(move |call| Box::pin(handler(call)))) }
    }
}

impl Command {
    fn stream<F, T>(declaration: Declaration, handler: F) -> Self
    where
        F: Fn(Call, Parts) -> T + Send + Sync + 'static,
        T: Future<Output = Result<Answer, EngineError>> + Send + 'static,
    {
        Self { declaration, run: Run::Stream(Box::new(move |call, parts| Box::pin(handler(call, parts)))) }
    }
}

/// Every command, in the order of `help`.
pub fn all() -> Vec<Command> {
    let mut commands = builtin::commands();
    commands.extend(background::commands());
    commands.extend(bridge::commands());
    commands.extend(args::commands());
    commands.extend(capture::commands());
    commands.extend(check::commands());
    commands.extend(clear_all::commands());
    commands.extend(debug::commands());
    commands.extend(dnsmasq::commands());
    commands.extend(echo::commands());
    commands.extend(file::commands());
    commands.extend(help::commands());
    commands.extend(history::commands());
    commands.extend(host::commands());
    commands.extend(mesh::commands());
    commands.extend(nat::commands());
    commands.extend(ns::commands());
    commands.extend(pipe::commands());
    commands.extend(plumb::commands());
    commands.extend(log::commands());
    commands.extend(namespace::commands());
    commands.extend(qos::commands());
    commands.extend(quit::commands());
    commands.extend(shell::commands());
    commands.extend(status::commands());
    commands.extend(tap::commands());
    commands.extend(version::commands());
    commands.extend(viz::commands());
    commands.extend(vlans::commands());
    commands.extend(vm_cdrom::commands());
    commands.extend(vm_config::commands());
    commands.extend(vm_flush::commands());
    commands.extend(vm_hotplug::commands());
    commands.extend(vm_info::commands());
    commands.extend(vm_kill::commands());
    commands.extend(vm_launch::commands());
    commands.extend(vm_net::commands());
    commands.extend(vm_net_bond::commands());
    commands.extend(vm_qmp::commands());
    commands.extend(vm_serial::commands());
    commands.extend(vm_start::commands());
    commands.extend(vm_stop::commands());
    commands.extend(vm_tag::commands());
    commands.extend(write::commands());
    commands
}

/// The grammar of all commands.
pub fn grammar(commands: &[Command]) -> Grammar {
    let declarations: Vec<Declaration> = commands.iter().map(|c| c.declaration.clone()).collect();
    Grammar::new(&declarations).expect("a test checks that every pattern parses")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::pattern::Item;

    #[test]
    fn every_pattern_parses_and_every_name_is_unique() {
        let commands = all();
        grammar(&commands);
        let mut names: Vec<_> = commands.iter().map(|c| c.declaration.name.to_string()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_pattern_is_one_of_3_1_0_or_a_2018_form_or_listed_as_our_own() {
        let known = [
            include_str!("../../tests/data/minimega-3.1.0-patterns.txt"),
            include_str!("../../tests/data/minimega-2018-patterns.txt"),
            include_str!("../../tests/data/megaform-patterns.txt"),
        ];
        let known: std::collections::HashSet<&str> =
            known.iter().flat_map(|list| list.lines()).map(|l| l.split('#').next().unwrap_or("").trim()).collect();
        for command in all() {
            for pattern in &command.declaration.patterns {
                assert!(
                    known.contains(pattern.as_ref()),
                    "{pattern} is no pattern of minimega, nor in the list of our own"
                );
            }
        }
    }

    #[test]
    fn patterns_that_are_our_own_are_declared_so() {
        let listed = include_str!("../../tests/data/megaform-patterns.txt").lines();
        let listed: Vec<&str> = listed.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        let mut declared: Vec<String> =
            all().iter().flat_map(|c| &c.declaration.own).map(|pattern| pattern.to_string()).collect();
        declared.sort();
        let mut listed: Vec<String> = listed.into_iter().map(str::to_owned).collect();
        listed.sort();
        assert_eq!(declared, listed);
    }

    #[test]
    fn no_pattern_of_our_own_changes_what_a_shortened_line_means() {
        let ours = grammar(&all());
        let mut theirs: Vec<Declaration> = all().into_iter().map(|c| c.declaration).collect();
        for declaration in &mut theirs {
            declaration.patterns.retain(|pattern| !declaration.own.contains(pattern));
        }
        theirs.retain(|declaration| !declaration.patterns.is_empty());
        let theirs = Grammar::new(&theirs).unwrap();
        let meant = |grammar: &Grammar, line: &str| {
            let found = grammar.compile(line).ok()??;
            Some((grammar.declarations()[found.command].name.clone(), found))
        };
        let mut lines = 0;
        let words = |item: &Item| match item {
            Item::Literal(word) => vec![word.to_string()],
            Item::Choice { words, .. } => words.iter().map(|word| word.to_string()).collect(),
            Item::Text { .. } | Item::List { .. } => vec!["x".to_owned()],
            Item::Command => vec!["version".to_owned()],
        };
        for command in 0..theirs.declarations().len() {
            for pattern in theirs.patterns(command) {
                // Each of its words shortened in every way, the others in full.
                let full: Vec<String> = pattern.items.iter().map(|item| words(item)[0].clone()).collect();
                for (at, item) in pattern.items.iter().enumerate() {
                    for word in words(item) {
                        for length in 1..=word.len() {
                            let mut line = full.clone();
                            line[at] = word[..length].to_owned();
                            let line = line.join(" ");
                            let Some((name, expected)) = meant(&theirs, &line) else { continue };
                            let (found, args) = meant(&ours, &line).unwrap_or_else(|| panic!("`{line}` is {name}"));
                            assert_eq!((&found, &args.args), (&name, &expected.args), "`{line}`");
                            lines += 1;
                        }
                    }
                }
            }
        }
        assert!(lines > 2000, "{lines}");
        for (line, name) in
            [("na", "namespace"), ("na x", "namespace"), ("clear na", "clear namespace"), ("nat", "nat")]
        {
            assert_eq!(meant(&ours, line).unwrap().0, name, "`{line}`");
        }
        assert_eq!(meant(&ours, "na add a 10.0.0.1/24").unwrap().0, "nat", "minimega has no such line");
        assert_eq!(meant(&ours, "qos s x 0 rate=1mbit").unwrap().0, "qos");
    }

    #[test]
    fn forms_of_2018_mean_commands_of_today() {
        let commands = all();
        let grammar = grammar(&commands);
        for (line, name) in [
            ("vm config disk", "vm config disks"),
            ("vm config disk a.qcow2 b.qcow2", "vm config disks"),
            ("clear vm config disk", "clear vm config"),
            ("vm config net", "vm config networks"),
            ("clear vm config net", "clear vm config"),
            ("ns schedules", "ns"),
        ] {
            let compiled = grammar.compile(line).unwrap().unwrap();
            assert_eq!(commands[compiled.command].declaration.name, name, "{line}");
        }
    }
}
