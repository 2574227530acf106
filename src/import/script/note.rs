//! What a script has that is not imported, with its places. Lines that stand together and
//! have one command are one note, unless something is wrong with them.

use crate::language::token;
use crate::spec::why_refused;

/// How many notes are kept; one more says how many lines are not.
const MAX_NOTES: usize = 1000;
/// How many lines are kept as raw commands.
const MAX_RAW: usize = 200;

/// Why a line is not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// It is a command that no key of the file stands for.
    NoKey,
    /// Its first word is none that megaform knows: minimega may.
    Foreign,
    /// What is wrong with it.
    Wrong(String),
}

/// Lines one after the other.
#[derive(Debug)]
struct Note {
    file: String,
    /// The first and last line, from 1.
    lines: (usize, usize),
    /// The last command of them, counted over all that is read.
    last: usize,
    commands: Vec<String>,
    count: usize,
    why: Why,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub file: &'a str,
    /// From 1.
    pub line: usize,
    /// Counted over all commands that are read.
    pub command: usize,
}

#[derive(Debug, Default)]
pub(super) struct Notes {
    notes: Vec<Note>,
    raw: usize,
    dropped: usize,
}

fn head(command: &str) -> &str {
    command.split_whitespace().next().unwrap_or_default()
}

impl Notes {
    pub fn add(&mut self, at: At<'_>, command: &str, why: Why) {
        let raw = !matches!(why, Why::Wrong(_)) && self.raw < MAX_RAW;
        self.raw += usize::from(raw);
        if let Some(note) = self.notes.last_mut()
            && note.file == at.file
            && note.last + 1 == at.command
            && note.why == why
            && !matches!(why, Why::Wrong(_))
            && head(&note.commands[0]) == head(command)
        {
            (note.lines.1, note.last) = (at.line, at.command);
            note.count += 1;
            note.commands.extend(raw.then(|| command.to_owned()));
        } else if self.notes.len() < MAX_NOTES {
            let file = at.file.to_owned();
            let lines = (at.line, at.line);
            self.notes.push(Note { file, lines, last: at.command, commands: vec![command.to_owned()], count: 1, why });
        } else {
            self.dropped += 1;
        }
    }

    /// The first, as text.
    pub fn first(&self) -> Option<String> {
        self.notes.first().map(Note::text)
    }

    pub fn texts(&self) -> Vec<String> {
        let more = (self.dropped > 0).then(|| format!("{} more lines are not imported", self.dropped));
        self.notes.iter().map(Note::text).chain(more).collect()
    }

    /// Those that raw commands of the file could say: a name, and the lines.
    pub fn raw(&self) -> Vec<(String, Vec<String>)> {
        let raw = self.notes.iter().filter(|note| !matches!(note.why, Why::Wrong(_)));
        let may = |line: &&String| {
            let words = token::tokenize(line).unwrap_or_default();
            let words: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
            !words.is_empty() && why_refused(&words).is_none()
        };
        let lines = |note: &Note| note.commands.iter().filter(may).cloned().collect::<Vec<_>>();
        let named = raw.map(|note| (format!("{}-{}", head(&note.commands[0]), note.lines.0), lines(note)));
        named.filter(|(_, lines)| !lines.is_empty()).collect()
    }
}

impl Note {
    fn text(&self) -> String {
        let (first, last) = self.lines;
        let place = if first == last { format!("{first}") } else { format!("{first}-{last}") };
        let first = &self.commands[0];
        let what = match self.count {
            1 => format!("`{first}` is"),
            2 => format!("`{first}` and 1 more `{}` line are", head(first)),
            more => format!("`{first}` and {} more `{}` lines are", more - 1, head(first)),
        };
        let why = match &self.why {
            Why::NoKey => "no key of the file says it",
            Why::Foreign => "no command that megaform knows",
            Why::Wrong(why) => why.as_str(),
        };
        format!("{}:{place}: {what} not imported: {why}", self.file)
    }
}
