//! The one declaration of a command. Grammar, help, completion, dispatch, schemas and documents come from it.

use std::borrow::Cow;

/// Static or generated text.
pub type Text = Cow<'static, str>;

/// Where a command has its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The daemon that it is sent to.
    Local,
    /// Every host of the active namespace.
    Namespace,
}

/// What a placeholder stands for, so that it can be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Completion {
    /// The names of the active namespace's VMs, and `all`.
    VmTarget,
    /// The names of namespaces.
    Namespace,
    /// VLAN aliases of the active namespace.
    Vlan,
    /// Names of taps.
    Tap,
    /// Names of pipes.
    Pipe,
    /// Paths on the engine's host.
    Path,
    /// The words of commands.
    Command,
}

/// Everything that is said about one command; the handler stands beside it in `commands`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Declaration {
    /// The literal words that name it, such as `vm launch`; unique. `help NAME` shows it.
    pub name: Text,
    /// Its patterns in minimega's notation: `<x>` required, `[x]` optional, `<a,b>` choice, `<a,>` a keyword that
    /// counts as an argument, `...` a list, `(command)` a nested command.
    pub patterns: Vec<Text>,
    /// Those of its patterns that minimega does not have. Their words are shortened only where no pattern of minimega
    /// is meant.
    pub own: Vec<Text>,
    /// One line, without a final stop.
    pub short: Text,
    /// The whole help: contract, units, ranges, errors, examples. Plain text, lines of at most 100 characters.
    pub long: Text,
    /// Where it has its effect.
    pub scope: Scope,
    /// The columns of its table, if it answers with one.
    pub columns: Vec<Text>,
    /// What its placeholders stand for, by the placeholder's whole text (`vm target`).
    pub completions: Vec<(Text, Completion)>,
}

impl Declaration {
    /// A declaration of a command without a table.
    pub fn new(name: impl Into<Text>, patterns: &[&'static str], short: &'static str, long: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            patterns: patterns.iter().map(|p| Text::Borrowed(*p)).collect(),
            own: Vec::new(),
            short: short.into(),
            long: long.into(),
            scope: Scope::Namespace,
            columns: Vec::new(),
            completions: vec![("vm target".into(), Completion::VmTarget), ("vm name".into(), Completion::VmTarget)],
        }
    }

    /// It acts on the daemon alone.
    #[must_use]
    pub fn local(mut self) -> Self {
        self.scope = Scope::Local;
        self
    }

    /// All its patterns are megaform's own.
    #[must_use]
    pub fn own(mut self) -> Self {
        self.own.clone_from(&self.patterns);
        self
    }

    /// One of its patterns is megaform's own.
    #[must_use]
    pub fn own_pattern(mut self, pattern: &'static str) -> Self {
        self.own.push(pattern.into());
        self
    }

    /// It answers with a table of these columns.
    #[must_use]
    pub fn columns(mut self, columns: &[&'static str]) -> Self {
        self.columns = columns.iter().map(|c| Text::Borrowed(*c)).collect();
        self
    }

    /// A placeholder stands for this.
    #[must_use]
    pub fn complete(mut self, placeholder: &'static str, completion: Completion) -> Self {
        self.completions.push((placeholder.into(), completion));
        self
    }
}
