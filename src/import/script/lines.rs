//! The lines of a script: comments, aliases, variables and other scripts, and in which namespace each command is carried out.

use std::collections::{BTreeMap, BTreeSet};

use super::note::{At, Why};
use super::{MAX_BYTES, MAX_LINES, Space};
use crate::language::alias::{self, Aliases};
use crate::language::grammar::{Args, CompileError, Compiled, Grammar};
use crate::language::{token, variable};
use crate::name::Namespace;

/// How deep scripts may `read` others. minimega refuses the first nested one.
const MAX_READS: usize = 8;
/// How many lines of comment are kept for what comes next.
const MAX_COMMENT: usize = 6;

/// Commands that leave nothing behind.
const SHOWS: &[&str] = &[
    "args",
    "check",
    "echo",
    "help",
    "history",
    "host",
    "log",
    "mesh",
    "ns",
    "pipe",
    "plumb",
    "version",
    "vm info",
    "vm serial",
    "vm top",
    "write",
];

pub(super) struct Interpreter<'a> {
    grammar: &'a Grammar,
    read: &'a mut dyn FnMut(&str) -> Option<String>,
    active: String,
    spaces: BTreeMap<String, Space>,
    aliases: Aliases,
    variables: BTreeMap<String, String>,
    /// Variables without a value that were noted already.
    unset: BTreeSet<String>,
    /// How many lines there were, bytes and commands.
    lines: usize,
    bytes: u64,
    commands: usize,
    /// Comments on the whole, and on what comes next.
    heading: Vec<String>,
    comments: Vec<String>,
}

impl<'a> Interpreter<'a> {
    pub fn new(grammar: &'a Grammar, read: &'a mut dyn FnMut(&str) -> Option<String>) -> Self {
        Self {
            grammar,
            read,
            active: Namespace::default_namespace().to_string(),
            spaces: BTreeMap::new(),
            aliases: Aliases::new(),
            variables: BTreeMap::new(),
            unset: BTreeSet::new(),
            lines: 0,
            bytes: 0,
            commands: 0,
            heading: Vec::new(),
            comments: Vec::new(),
        }
    }

    pub fn is_too_long(&self) -> bool {
        self.lines > MAX_LINES || self.bytes > MAX_BYTES
    }

    /// What there is in the end: the namespaces, and the comment on the whole.
    pub fn end(self) -> (BTreeMap<String, Space>, Vec<String>) {
        (self.spaces, self.heading)
    }

    fn space(&mut self, name: &str) -> &mut Space {
        let new = || Space { name: name.to_owned(), ..Space::default() };
        self.spaces.entry(name.to_owned()).or_insert_with(new)
    }

    /// Carry out the lines of a script.
    pub fn lines(&mut self, file: &str, text: &str, depth: usize) {
        self.bytes += text.len() as u64;
        for (index, line) in text.lines().enumerate() {
            self.lines += 1;
            if self.is_too_long() {
                return;
            }
            self.comment(line.trim(), index == 0);
            let expanded = alias::expand(&self.aliases, line);
            let expanded = expanded.as_deref().unwrap_or(line).trim();
            let compiled = match self.grammar.compile(expanded) {
                Ok(None) => continue,
                compiled => compiled,
            };
            let names = matches!(&compiled, Ok(Some(line)) if self.is_namespace(line));
            if self.commands == 0 && names {
                self.heading.append(&mut self.comments);
            }
            self.commands += 1;
            let at = At { file, line: index + 1, command: self.commands };
            let at_first = self.active.clone();
            let why = match compiled {
                Ok(compiled) => compiled.and_then(|compiled| self.command(&compiled, None, (at, depth))),
                Err(error) => Some(self.unknown(expanded, &error)),
            };
            if let Some(why) = why {
                self.space(&at_first).notes.add(at, expanded, why);
            }
        }
    }

    /// It says in which namespace the others are carried out.
    fn is_namespace(&self, compiled: &Compiled) -> bool {
        compiled.nested.is_none() && &*self.grammar.declarations()[compiled.command].name == "namespace"
    }

    /// Why a line is no command.
    fn unknown(&self, line: &str, error: &CompileError) -> Why {
        let known = |word: &str| {
            let mut names = self.grammar.declarations().iter().filter_map(|of| of.name.split(' ').next());
            names.any(|name| name == word)
        };
        let words = token::tokenize(line).unwrap_or_default();
        match (error, words.first()) {
            (CompileError::Invalid(_), Some(first)) if known(&first.text) => {
                Why::Wrong("no command that megaform knows".to_owned())
            }
            (CompileError::Invalid(_), Some(_)) => Why::Foreign,
            _ => Why::Wrong(error.to_string()),
        }
    }

    /// Keep a comment for what comes next; the one that a script begins with, before an empty line, is on the whole.
    fn comment(&mut self, line: &str, first: bool) {
        if line.is_empty() && self.commands == 0 {
            self.heading.append(&mut self.comments);
        }
        let text = match line.split_once('#') {
            Some(("", text)) => text,
            Some((before, _)) if token::tokenize(before) == token::tokenize(line) => {
                line.rsplit_once('#').unwrap_or_default().1
            }
            _ => return,
        };
        let text = text.trim_matches(|c: char| c.is_whitespace() || "#-=*~_".contains(c));
        // What begins with `#!` is for the shell, and a command behind a `#` is one that is not wanted.
        let interpreter = first && line.starts_with("#!");
        let unwanted = line.starts_with('#') && text.contains(' ') && self.grammar.compile(text).is_ok();
        if !text.is_empty() && !interpreter && !unwanted && self.comments.len() < MAX_COMMENT {
            self.comments.push(text.to_owned());
        }
    }

    /// The words of a command with variables expanded as far as the script gives them values.
    fn expanded(&mut self, args: &Args, at: &str) -> Args {
        let mut args = args.clone();
        let (variables, mut unset) = (&self.variables, BTreeSet::new());
        let Ok(()) = args.try_map(|word| {
            let value = |name: &str| {
                variables.get(name).cloned().unwrap_or_else(|| {
                    unset.insert(name.to_owned());
                    String::new()
                })
            };
            Ok::<_, std::convert::Infallible>(variable::expand(word, value))
        });
        for name in unset {
            if self.unset.insert(name.clone()) {
                let note = format!(
                    "the variable ${name} is set nowhere in the script: put `.env {name} VALUE` before its first use"
                );
                self.space(at).remarks.push(note);
            }
        }
        args
    }

    /// Carry out one command; None, or why it cannot be imported.
    fn command(&mut self, compiled: &Compiled, namespace: Option<&str>, place: (At<'_>, usize)) -> Option<Why> {
        let grammar = self.grammar;
        let name = &*grammar.declarations()[compiled.command].name;
        let nested = compiled.nested.as_deref();
        let at = namespace.unwrap_or(&self.active).to_owned();
        let args = &self.expanded(&compiled.args, &at);
        let (_, depth) = place;
        match (name, nested) {
            ("namespace", None) => {
                if let Some(name) = args.str("name") {
                    self.active = name.to_owned();
                }
                return None;
            }
            ("namespace", Some(inner)) => {
                let name = args.str("name").unwrap_or_default().to_owned();
                return self.command(inner, Some(&name), place);
            }
            ("clear namespace", _) => {
                let name = args.str("name").unwrap_or(&at).to_owned();
                match name.as_str() {
                    "all" => self.spaces.clear(),
                    name => drop(self.spaces.remove(name)),
                }
                self.active = Namespace::default_namespace().to_string();
                return None;
            }
            ("clear all", _) => {
                self.spaces.clear();
                return None;
            }
            ("read", _) => {
                let file = args.str("file").unwrap_or_default();
                if args.flag("check") {
                    return None;
                }
                return match (depth < MAX_READS).then(|| (self.read)(file)).flatten() {
                    Some(text) => {
                        // It goes on in the namespace that it is read in, and changes to another last.
                        self.lines(file, &text, depth + 1);
                        None
                    }
                    None => Some(Why::Wrong("the file cannot be read".to_owned())),
                };
            }
            (".alias", None) => {
                let definition = alias::definition(compiled);
                return match alias::define(&mut self.aliases, definition) {
                    Err(error) if !definition.is_empty() => Some(Why::Wrong(error.to_string())),
                    _ => None,
                };
            }
            (".unalias", None) => {
                args.str("alias").map(|name| self.aliases.remove(name));
                return None;
            }
            (".env", None) => {
                if let (Some(name), Some(value)) = (args.str("name"), args.str("value")) {
                    self.variables.insert(name.to_owned(), value.to_owned());
                }
                return None;
            }
            // The builtins change how an answer is shown.
            (builtin, Some(inner)) if builtin.starts_with('.') => return self.command(inner, namespace, place),
            (builtin, None) if builtin.starts_with('.') => return None,
            _ => {}
        }
        let space = self.space(&at);
        let outcome = space.command(name, args);
        let made = std::mem::take(&mut space.made);
        if !made.is_empty() {
            let comments = std::mem::take(&mut self.comments);
            let space = self.space(&at);
            for what in made.into_iter().filter(|_| !comments.is_empty()) {
                space.comments.entry(what).or_default().extend(comments.iter().cloned());
            }
        }
        match outcome {
            Ok(true) => None,
            Ok(false) if SHOWS.contains(&name) => None,
            Ok(false) => Some(Why::NoKey),
            Err(error) => Some(Why::Wrong(error)),
        }
    }
}
