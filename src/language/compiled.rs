//! What compiling a line gives: the command with its arguments, or why it is none and what could be meant.
//!
//! Must not know how patterns are matched.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use super::grammar::{MAX_DEPTH, MAX_LINE};
use super::token::TokenError;

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It does not split into words.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No pattern accepts it, or more than one does.
    #[error("invalid command: `{}`{}", .0.line, .0.hint())]
    Invalid(Box<Invalid>),
    /// It is longer than [`MAX_LINE`].
    #[error("the command is {length} bytes long and the limit is {MAX_LINE}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Its commands are nested deeper than [`MAX_DEPTH`].
    #[error("commands are nested more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// Where a line stops being a command, and what could stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The line without blanks around it.
    pub line: String,
    /// The bytes of the given line that hold the first word that no pattern accepts; empty at the end of an
    /// incomplete line.
    pub span: Range<usize>,
    /// That word; None if words are missing at the end.
    pub found: Option<String>,
    /// What patterns accept there, sorted: fixed words, placeholders as `<name>`, `end of line`. If the word is
    /// ambiguous, the words that it may stand for.
    pub expected: Vec<String>,
    /// The fixed word that was likely meant.
    pub similar: Option<String>,
    /// The word is a prefix of several.
    pub ambiguous: bool,
    /// The whole line that was likely meant: a command.
    pub correction: Option<String>,
}

impl Invalid {
    /// The error as minimega words it, without what was likely meant.
    pub fn plain(&self) -> String {
        format!("invalid command: `{}`", self.line)
    }

    /// Does the line begin with a word that is nothing here, nor like anything?
    pub fn is_unknown(&self) -> bool {
        self.at_start() && !self.ambiguous && self.correction.is_none() && self.similar.is_none()
    }

    /// One line that says what is wrong and what to write instead.
    pub fn advice(&self) -> String {
        let list = self.list();
        match (&self.found, &self.correction, &self.similar) {
            (Some(found), ..) if self.ambiguous => format!("`{}` may be {list}", shown(found)),
            (None, ..) if self.ambiguous => format!("the line may be {list}"),
            (Some(found), Some(line), _) => format!("unexpected `{}`, did you mean `{}`?", shown(found), shown(line)),
            (Some(found), None, Some(word)) => format!("unexpected `{}`, did you mean `{word}`?", shown(found)),
            (Some(found), ..) if self.expected.contains(&found.to_lowercase()) => {
                format!("unexpected `{found}`, words are in lower case: `{}`", found.to_lowercase())
            }
            (Some(found), ..) if self.at_start() => {
                format!("no command begins with `{}`; `help` lists the commands", shown(found))
            }
            (Some(found), ..) => format!("unexpected `{}`, expected {list}", shown(found)),
            (None, ..) => format!("the command is not complete, expected {list}"),
        }
    }

    /// What goes behind minimega's wording: only what was likely meant, because scripts may compare the rest.
    fn hint(&self) -> String {
        match self.correction.as_ref().or(self.similar.as_ref()) {
            Some(meant) => format!(", did you mean `{}`?", shown(meant)),
            None => String::new(),
        }
    }

    /// The first word is no command at all.
    fn at_start(&self) -> bool {
        self.found.as_ref().is_some_and(|_| self.expected.len() > SHOWN && self.expected.iter().any(|e| e == "help"))
    }

    fn list(&self) -> String {
        let mut list = self.expected.iter().take(SHOWN).map(|e| format!("`{e}`")).collect::<Vec<_>>().join(", ");
        if self.expected.len() > SHOWN {
            let _ = write!(list, " and {} more", self.expected.len() - SHOWN);
        }
        list
    }
}

/// How many expected words an advice names.
const SHOWN: usize = 12;

/// A text cut to a readable length.
fn shown(text: &str) -> String {
    if text.chars().count() > 100 { text.chars().take(97).chain("...".chars()).collect() } else { text.to_owned() }
}

/// The arguments of a compiled command, by the text of their placeholder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    pub(super) texts: Vec<(Arc<str>, String)>,
    pub(super) lists: Vec<(Arc<str>, Vec<String>)>,
    pub(super) choices: Vec<(Arc<str>, Arc<str>)>,
}

impl Args {
    /// The word in the place of `<name>` or `[name]`, if it was given.
    pub fn str(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(n, _)| &**n == name).map(|(_, t)| t.as_str())
    }

    /// The words in the place of `<name>...` or `[name]...`; empty if none were given.
    pub fn list(&self, name: &str) -> &[String] {
        self.lists.iter().find(|(n, _)| &**n == name).map_or(&[], |(_, l)| l)
    }

    /// Whether a keyword or a choice was made: `flag("summary")` for `[summary,]`, `flag("create")` for `<create,>`.
    /// `word` is the full spelling, however the line abbreviated it.
    pub fn flag(&self, word: &str) -> bool {
        self.choices.iter().any(|(_, w)| &**w == word)
    }

    /// What was chosen, in full spelling, at the choice written `notation` in the pattern (`true,false`).
    pub fn choice(&self, notation: &str) -> Option<&str> {
        self.choices.iter().find(|(n, _)| &**n == notation).map(|(_, w)| &**w)
    }

    /// What was chosen at the `index`th keyword or choice of the pattern, in full spelling. Of
    /// `vm <start,> <vm target>`, index 0 is `start`.
    pub fn chosen(&self, index: usize) -> Option<&str> {
        self.choices.get(index).map(|(_, w)| &**w)
    }

    /// Rewrite every word that the user chose freely (not keywords and choices), as preprocessing does.
    pub fn try_map<E>(&mut self, mut f: impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
        let lists = self.lists.iter_mut().flat_map(|(_, l)| l.iter_mut());
        for text in self.texts.iter_mut().map(|(_, t)| t).chain(lists) {
            *text = f(text)?;
        }
        Ok(())
    }
}

/// A line that is a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The index of its declaration.
    pub command: usize,
    /// The index of the pattern in that declaration.
    pub pattern: usize,
    /// Its arguments.
    pub args: Args,
    /// The command in the place of `(command)`.
    pub nested: Option<Box<Compiled>>,
    /// The line as written, without blanks around it, with its comment: what `history` shows. Of a nested command,
    /// the part of the line that begins with its first word.
    pub original: String,
}

impl Compiled {
    /// What stands behind the first word, as it was written: quotes, escapes and comment are still there.
    pub fn list_as_written(&self) -> &str {
        self.original.split_once(char::is_whitespace).map_or("", |(_, text)| text)
    }

    /// The innermost nested command; the command itself if it nests none.
    pub fn innermost(&self) -> &Self {
        let mut at = self;
        while let Some(nested) = &at.nested {
            at = nested;
        }
        at
    }
}
