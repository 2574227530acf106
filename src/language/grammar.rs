//! The grammar: finds the command that a line means, and its arguments.
//!
//! Matching. All patterns stand in one trie, so that compiling takes time by the line, not by the number of patterns.
//! Words may be shortened. Among the patterns that accept the *whole* line, the words are decided from left to right:
//!
//! 1. a fixed word (literal, keyword or choice) spelled in full beats
//! 2. fixed words that the word is a prefix of, which beat
//! 3. a placeholder, which beats
//! 4. a nested command, which beats
//! 5. a list.
//!
//! If at some word several fixed words of step 2 lead to patterns that accept the line, the line is ambiguous: `host n`
//! may be `name` or `netcommit`. `.c name vm info` is not: of the builtins only `.columns` accepts it. Of two patterns
//! of one command that accept the same words, the first declared counts. An empty word is a prefix of nothing. Quoted
//! and bare words match alike. Case matters.
//!
//! Patterns that are megaform's own give way: what leads only to them counts in step 2 only where no pattern of
//! minimega accepts the line. `na` is `namespace` as it is there, and `nat` has to be spelled in full.
//!
//! Must not know how a command is carried out.

use std::sync::Arc;

pub use super::compiled::{Args, CompileError, Compiled, Invalid};
use super::correction;
use super::declaration::Declaration;
use super::pattern::{Item, Pattern, PatternError};
use super::token::{Word, tokenize};

/// The longest line, in bytes.
pub const MAX_LINE: usize = 64 << 10;

/// The most commands that may stand in one another, such as `.csv true .columns name vm info` (three).
pub const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) command: u32,
    pattern: u32,
    /// Minimega does not have the pattern.
    own: bool,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    /// Fixed words, sorted.
    pub(super) words: Vec<(Arc<str>, usize)>,
    /// Where any one word leads.
    pub(super) free: Option<usize>,
    /// The names of the placeholders that share `free` or are lists, with their commands.
    pub(super) names: Vec<(u32, Arc<str>)>,
    /// Patterns that may end here.
    ends: Vec<End>,
    /// Patterns that take all remaining words as a list.
    pub(super) lists: Vec<End>,
    /// Patterns that take all remaining words as a command.
    pub(super) nested: Vec<End>,
    /// Some pattern of minimega leads through it.
    pub(super) common: bool,
}

impl Node {
    /// The fixed words that `word` stands for at first sight: itself if it is spelled in full, else those that it
    /// begins.
    pub(super) fn candidates(&self, word: &str) -> &[(Arc<str>, usize)] {
        if word.is_empty() {
            return &[];
        }
        let exact = self.words.partition_point(|(w, _)| &**w < word);
        match self.words.get(exact) {
            Some((w, _)) if &**w == word => &self.words[exact..=exact],
            _ => self.beginning(word),
        }
    }

    /// The fixed words that begin with `prefix`.
    pub(super) fn beginning(&self, prefix: &str) -> &[(Arc<str>, usize)] {
        let low = self.words.partition_point(|(w, _)| &**w < prefix);
        let len = self.words[low..].iter().take_while(|(w, _)| w.starts_with(prefix)).count();
        &self.words[low..low + len]
    }
}

/// The patterns of all commands, ready to compile lines.
#[derive(Debug)]
pub struct Grammar {
    declarations: Vec<Declaration>,
    patterns: Vec<Vec<Pattern>>,
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
enum Found {
    Nothing,
    One(End),
    Ambiguous(Arc<Ambiguity>),
}

/// Several fixed words, or several commands, that a line may mean.
#[derive(Debug)]
struct Ambiguity {
    at: usize,
    candidates: Vec<String>,
    /// None of them is minimega's.
    own: bool,
}

impl Found {
    /// It is megaform's own in all that it may mean.
    fn own(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::One(end) => end.own,
            Self::Ambiguous(ambiguity) => ambiguity.own,
        }
    }
}

/// The fixed words that a shortened word may stand for, because what they lead to accepts the rest of the line.
#[derive(Default)]
struct Accepted<'a> {
    /// What the first of them leads to, which is the shortest of those that begin alike.
    first: Option<Found>,
    words: Vec<&'a Arc<str>>,
    /// The commands that they lead to.
    commands: Vec<Option<u32>>,
}

impl<'a> Accepted<'a> {
    fn add(&mut self, word: &'a Arc<str>, found: Found) {
        self.words.push(word);
        self.commands.push(match &found {
            Found::One(end) => Some(end.command),
            _ => None,
        });
        self.first.get_or_insert(found);
    }

    /// What they mean together. None without any.
    fn found(self, at: usize, own: bool) -> Option<Found> {
        let first = self.first?;
        let one = self.commands[0].is_some() && self.commands.iter().all(|command| *command == self.commands[0]);
        if self.words.len() == 1 || one && self.words.iter().all(|word| word.starts_with(&**self.words[0])) {
            return Some(first);
        }
        let candidates = self.words.iter().map(|w| w.to_string()).collect();
        Some(Found::Ambiguous(Arc::new(Ambiguity { at, candidates, own })))
    }
}

/// One line being matched.
struct Run<'a> {
    words: &'a [Word],
    /// What the words from this one on mean as a command; None is not tried yet.
    commands: Vec<Option<Found>>,
    too_deep: bool,
}

impl Grammar {
    /// The grammar of these declarations. A pattern that does not parse is an error.
    pub fn new(declarations: &[Declaration]) -> Result<Self, PatternError> {
        let mut grammar =
            Self { declarations: declarations.to_vec(), patterns: Vec::new(), nodes: vec![Node::default()] };
        for (c, declaration) in declarations.iter().enumerate() {
            let parsed: Vec<Pattern> =
                declaration.patterns.iter().map(|p| Pattern::parse(p)).collect::<Result<_, _>>()?;
            for (p, pattern) in parsed.iter().enumerate() {
                let index = |n: usize| u32::try_from(n).expect("fewer than 2^32 patterns");
                let own = declaration.own.contains(&declaration.patterns[p]);
                grammar.insert(0, &pattern.items, End { command: index(c), pattern: index(p), own });
            }
            grammar.patterns.push(parsed);
        }
        Ok(grammar)
    }

    fn insert(&mut self, node: usize, items: &[Item], end: End) {
        self.nodes[node].common |= !end.own;
        let Some((item, rest)) = items.split_first() else {
            self.nodes[node].ends.push(end);
            return;
        };
        if item.is_optional() {
            self.nodes[node].ends.push(end);
        }
        match item {
            Item::Literal(word) => self.insert_word(node, word, rest, end),
            Item::Choice { words, .. } => words.iter().for_each(|w| self.insert_word(node, w, rest, end)),
            Item::Text { name, .. } => {
                let next = match self.nodes[node].free {
                    Some(next) => next,
                    None => {
                        let next = self.add();
                        self.nodes[node].free = Some(next);
                        next
                    }
                };
                self.nodes[node].names.push((end.command, name.clone()));
                self.insert(next, rest, end);
            }
            Item::List { name, .. } => {
                self.nodes[node].names.push((end.command, name.clone()));
                self.nodes[node].lists.push(end);
            }
            Item::Command => self.nodes[node].nested.push(end),
        }
    }

    fn insert_word(&mut self, node: usize, word: &Arc<str>, rest: &[Item], end: End) {
        let next = match self.nodes[node].words.binary_search_by(|(w, _)| (**w).cmp(word)) {
            Ok(i) => self.nodes[node].words[i].1,
            Err(i) => {
                let next = self.add();
                self.nodes[node].words.insert(i, (word.clone(), next));
                next
            }
        };
        self.insert(next, rest, end);
    }

    fn add(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// The declarations, in the order given to [`Grammar::new`]; [`Compiled::command`] is an index into them.
    pub fn declarations(&self) -> &[Declaration] {
        &self.declarations
    }

    /// The parsed patterns of a command.
    pub fn patterns(&self, command: usize) -> &[Pattern] {
        &self.patterns[command]
    }

    /// Find the command that a line means. None for a blank line or a comment.
    pub fn compile(&self, line: &str) -> Result<Option<Compiled>, CompileError> {
        if line.len() > MAX_LINE {
            return Err(CompileError::TooLong { length: line.len() });
        }
        let words = tokenize(line)?;
        if words.is_empty() {
            return Ok(None);
        }
        let mut run = Run { words: &words, commands: vec![None; words.len()], too_deep: false };
        match self.command(&mut run, 0, 1) {
            Found::One(end) => Ok(Some(self.build(line, &run, 0, end))),
            _ if run.too_deep => Err(CompileError::TooDeep),
            Found::Nothing => Err(self.corrected(line, self.explain(line, &words, None))),
            Found::Ambiguous(a) => Err(self.explain(line, &words, Some(&a))),
        }
    }

    /// What the words from `at` on mean as a command. Each place is tried once, so the time stays linear.
    fn command(&self, run: &mut Run<'_>, at: usize, depth: usize) -> Found {
        if let Some(found) = &run.commands[at] {
            return found.clone();
        }
        if depth > MAX_DEPTH {
            run.too_deep = true;
            return Found::Nothing;
        }
        let found = self.walk(run, 0, at, depth);
        run.commands[at] = Some(found.clone());
        found
    }

    /// What the words from `at` on mean in a node of the trie. It is at most as deep as the longest pattern.
    fn walk(&self, run: &mut Run<'_>, node: usize, at: usize, depth: usize) -> Found {
        let node = &self.nodes[node];
        let words = run.words;
        let Some(word) = words.get(at) else { return self.settle(at, &node.ends) };
        let (mut common, mut own) = (Accepted::default(), Accepted::default());
        if !word.text.is_empty() {
            // Sorted, so a word spelled in full comes first. If it leads nowhere it may still begin a longer one.
            for (fixed, next) in node.beginning(&word.text) {
                match self.walk(run, *next, at + 1, depth) {
                    Found::Nothing => {}
                    found if **fixed == *word.text => return found,
                    found if found.own() => own.add(fixed, found),
                    found => common.add(fixed, found),
                }
            }
        }
        if let Some(found) = common.found(at, false) {
            return found;
        }
        let own = own.found(at, true);
        match (self.walk_free(run, node, at, depth), own) {
            (found, Some(own)) if matches!(found, Found::Nothing) || found.own() => own,
            (found, _) => found,
        }
    }

    /// What the words from `at` on mean in a node whose fixed words do not count.
    fn walk_free(&self, run: &mut Run<'_>, node: &Node, at: usize, depth: usize) -> Found {
        if let Some(next) = node.free {
            match self.walk(run, next, at + 1, depth) {
                Found::Nothing => {}
                other => return other,
            }
        }
        if !node.nested.is_empty() {
            match self.command(run, at, depth + 1) {
                Found::Nothing => {}
                Found::One(_) => return self.settle(at, &node.nested),
                ambiguous => return ambiguous,
            }
        }
        self.settle(at, &node.lists)
    }

    /// Of patterns that accept the same words, the first one of the only command.
    fn settle(&self, at: usize, ends: &[End]) -> Found {
        match ends {
            [] => Found::Nothing,
            [first, rest @ ..] if rest.iter().all(|e| e.command == first.command) => Found::One(*first),
            _ => {
                let mut candidates: Vec<String> =
                    ends.iter().map(|e| self.declarations[e.command as usize].name.to_string()).collect();
                candidates.dedup();
                Found::Ambiguous(Arc::new(Ambiguity { at, candidates, own: ends.iter().all(|e| e.own) }))
            }
        }
    }

    fn build(&self, line: &str, run: &Run<'_>, start: usize, end: End) -> Compiled {
        let mut args = Args::default();
        let mut nested = None;
        let words = run.words;
        let items = &self.patterns[end.command as usize][end.pattern as usize].items;
        for ((at, word), item) in words.iter().enumerate().skip(start).zip(items) {
            match item {
                Item::Literal(_) => {}
                Item::Choice { notation, words, .. } => {
                    let full = words.iter().find(|w| ***w == *word.text);
                    let full = full.or_else(|| words.iter().find(|w| w.starts_with(&word.text)));
                    args.choices.push((notation.clone(), full.expect("the trie accepted the word").clone()));
                }
                Item::Text { name, .. } => args.texts.push((name.clone(), word.text.clone())),
                Item::List { name, .. } => {
                    args.lists.push((name.clone(), words[at..].iter().map(|w| w.text.clone()).collect()));
                    break;
                }
                Item::Command => {
                    let Some(Found::One(inner)) = run.commands[at] else {
                        unreachable!("the trie accepted a nested command here")
                    };
                    nested = Some(Box::new(self.build(line, run, at, inner)));
                    break;
                }
            }
        }
        let original = line[words[start].span.start..].trim_matches(super::token::is_blank).to_owned();
        Compiled { command: end.command as usize, pattern: end.pattern as usize, args, nested, original }
    }

    /// The error, with the whole line that was likely meant.
    fn corrected(&self, line: &str, error: CompileError) -> CompileError {
        let CompileError::Invalid(mut invalid) = error else { return error };
        invalid.correction = correction::line(line, &invalid, &|line| self.attempt(line));
        CompileError::Invalid(invalid)
    }

    /// Compile a line without looking for corrections. None if it is a command.
    fn attempt(&self, line: &str) -> Option<CompileError> {
        let words = match tokenize(line) {
            Ok(words) => words,
            Err(error) => return Some(error.into()),
        };
        let mut run = Run { words: &words, commands: vec![None; words.len()], too_deep: false };
        match self.command(&mut run, 0, 1) {
            Found::One(_) => None,
            Found::Nothing => Some(self.explain(line, &words, None)),
            Found::Ambiguous(a) => Some(self.explain(line, &words, Some(&a))),
        }
    }

    fn explain(&self, line: &str, words: &[Word], ambiguity: Option<&Ambiguity>) -> CompileError {
        let mut furthest = Furthest { at: 0, expected: Vec::new(), visited: vec![false; words.len()] };
        let (at, mut expected) = match ambiguity {
            Some(a) => (a.at, a.candidates.clone()),
            None => {
                self.search(&mut furthest, words, 0, 0, 1);
                (furthest.at, furthest.expected)
            }
        };
        expected.sort();
        expected.dedup();
        let word = words.get(at);
        let similar = word.filter(|_| ambiguity.is_none()).and_then(|w| correction::similar(&w.text, &expected));
        let end = line.trim_end_matches(super::token::is_blank).len();
        CompileError::Invalid(Box::new(Invalid {
            line: line.trim_matches(super::token::is_blank).to_owned(),
            span: word.map_or(end..end, |w| w.span.clone()),
            found: word.map(|w| w.text.clone()),
            expected,
            similar,
            ambiguous: ambiguity.is_some(),
            correction: None,
        }))
    }

    /// Visit every way to read the line, without preference, and keep what the furthest place expects.
    fn search(&self, furthest: &mut Furthest, words: &[Word], node: usize, at: usize, depth: usize) {
        let node = &self.nodes[node];
        if at > furthest.at {
            furthest.at = at;
            furthest.expected.clear();
        }
        if at == furthest.at {
            furthest.expected.extend(node.words.iter().map(|(w, _)| w.to_string()));
            furthest.expected.extend(node.names.iter().map(|(_, n)| format!("<{n}>")));
            if !node.nested.is_empty() {
                furthest.expected.push("<command>".to_owned());
            }
            if !node.ends.is_empty() && at < words.len() {
                furthest.expected.push("end of line".to_owned());
            }
        }
        let Some(word) = words.get(at) else { return };
        for (_, next) in node.candidates(&word.text) {
            self.search(furthest, words, *next, at + 1, depth);
        }
        if let Some(next) = node.free {
            self.search(furthest, words, next, at + 1, depth);
        }
        if !node.nested.is_empty() && depth < MAX_DEPTH && !furthest.visited[at] {
            furthest.visited[at] = true;
            self.search(furthest, words, 0, at, depth + 1);
        }
    }
}

/// The furthest word that some pattern reaches, and what may stand there.
struct Furthest {
    at: usize,
    expected: Vec<String>,
    visited: Vec<bool>,
}

#[cfg(test)]
pub(super) mod tests;
