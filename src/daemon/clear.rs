//! `clear all`: every other `clear` command.

use crate::commands::{Answer, Run};
use crate::language::grammar::Args;

use super::dispatch::Dispatcher;

/// The command that takes most with it, with its argument; the first to run.
const NAMESPACES: &str = "clear namespace all";

impl Dispatcher {
    /// Run them all, past errors. Those that need an argument are not among them.
    pub(super) async fn clear_all(&self) -> Answer {
        let names = self.commands.iter().map(|command| &*command.declaration.name);
        let others = names.filter(|name| name.starts_with("clear ") && !NAMESPACES.starts_with(name));
        let mut errors = Vec::new();
        for line in std::iter::once(NAMESPACES).chain(others) {
            let Ok(Some(compiled)) = self.shared.grammar.compile(line) else { continue };
            // The others are builtins: this command itself.
            let Run::Handler(handler) = &self.commands[compiled.command].run else { continue };
            let args: Args = compiled.args;
            let answer = handler(self.call(self.shared.engine.active(), args)).await;
            let error = answer.map_or_else(|error| error.chain(), |answer| answer.error);
            if !error.is_empty() {
                errors.push(format!("{line}: {error}"));
            }
        }
        if let Err(error) = self.shared.engine.clear_bridges().await {
            errors.push(error.chain());
        }
        Answer { error: errors.join("\n"), ..Answer::default() }
    }
}
