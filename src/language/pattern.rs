//! The notation of command patterns: `vm <start,> <vm target>`, parsed.
//!
//! `word` literal · `<x>` required · `[x]` optional · `<a,b>` one of · `<a,>` a keyword that counts as an argument ·
//! `[a,b]`, `[a,]` optional choice and keyword · `<x>...`, `[x]...` the rest of the line · `(command)` a nested
//! command. A placeholder with a comma and no blank is a choice; `<vm name, uuid or all>` is a name.
//! Must not know how lines are matched.

use std::fmt;
use std::sync::Arc;

/// One element of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A word that is no argument.
    Literal(Arc<str>),
    /// One word of a fixed set. `<a,>` has a single word.
    Choice {
        /// The text between the brackets (`true,false`).
        notation: Arc<str>,
        /// The words, in the order written.
        words: Vec<Arc<str>>,
        /// The line may end before it.
        optional: bool,
    },
    /// Any one word.
    Text {
        /// The placeholder's text (`vm target`).
        name: Arc<str>,
        /// The line may end before it.
        optional: bool,
    },
    /// All remaining words; at least one unless optional.
    List {
        /// The placeholder's text.
        name: Arc<str>,
        /// There may be none.
        optional: bool,
    },
    /// A whole command.
    Command,
}

impl Item {
    /// The line may end before this item.
    pub fn is_optional(&self) -> bool {
        match self {
            Self::Literal(_) | Self::Command => false,
            Self::Choice { optional, .. } | Self::Text { optional, .. } | Self::List { optional, .. } => *optional,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, optional, tail) = match self {
            Self::Literal(word) => return f.write_str(word),
            Self::Command => return f.write_str("(command)"),
            Self::Choice { notation, optional, .. } => (notation, optional, ""),
            Self::Text { name, optional } => (name, optional, ""),
            Self::List { name, optional } => (name, optional, "..."),
        };
        if *optional { write!(f, "[{text}]{tail}") } else { write!(f, "<{text}>{tail}") }
    }
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern `{pattern}`: {problem}")]
pub struct PatternError {
    /// The pattern as declared.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Its elements, at least one. Optional ones stand at the end; a list or a command is last.
    pub items: Vec<Item>,
}

impl Pattern {
    /// Parse the notation.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let fail = |problem| PatternError { pattern: text.to_owned(), problem };
        let mut items: Vec<Item> = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (item, after) = Self::item(rest).map_err(fail)?;
            match items.last() {
                Some(Item::List { .. } | Item::Command) => return Err(fail("something follows a list or a command")),
                Some(last) if last.is_optional() && !item.is_optional() => {
                    return Err(fail("something required follows something optional"));
                }
                _ => items.push(item),
            }
            if !after.is_empty() && !after.starts_with(' ') {
                return Err(fail("elements must be separated by blanks"));
            }
            rest = after.trim_start();
        }
        match items.first() {
            Some(Item::Literal(_)) => Ok(Self { items }),
            _ => Err(fail("it must begin with a word")),
        }
    }

    fn item(text: &str) -> Result<(Item, &str), &'static str> {
        let (close, optional) = match text.as_bytes()[0] {
            b'<' => ('>', false),
            b'[' => (']', true),
            b'(' => {
                return text.strip_prefix("(command)").map(|r| (Item::Command, r)).ok_or("expected `(command)`");
            }
            _ => {
                let (word, after) = text.split_at(text.find(' ').unwrap_or(text.len()));
                return match word.contains(['<', '>', '[', ']', '(', ')']) {
                    true => Err("a word contains a bracket"),
                    false => Ok((Item::Literal(word.into()), after)),
                };
            }
        };
        let end = text.find(close).ok_or("a bracket is not closed")?;
        let (inside, after) = (&text[1..end], &text[end + 1..]);
        if inside.trim().is_empty() {
            return Err("a placeholder has no name");
        }
        if let Some(after) = after.strip_prefix("...") {
            return Ok((Item::List { name: inside.into(), optional }, after));
        }
        if inside.contains(',') && !inside.contains(' ') {
            let words: Vec<Arc<str>> = inside.split(',').filter(|w| !w.is_empty()).map(Arc::from).collect();
            if words.is_empty() {
                return Err("a choice has no words");
            }
            return Ok((Item::Choice { notation: inside.into(), words, optional }, after));
        }
        Ok((Item::Text { name: inside.into(), optional }, after))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.items.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_of_minimega_comes_back() {
        let patterns = include_str!("../../tests/data/minimega-3.1.0-patterns.txt");
        let mut count = 0;
        for line in patterns.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            assert_eq!(Pattern::parse(line).unwrap().to_string(), line);
            count += 1;
        }
        assert_eq!(count, 456);
    }

    #[test]
    fn kinds() {
        let items = Pattern::parse("cc <exec,> <tcp,udp> <vm name, uuid or all> [raw,] [file]...").unwrap().items;
        assert!(matches!(&items[1], Item::Choice { words, optional: false, .. } if words.len() == 1));
        assert!(matches!(&items[2], Item::Choice { words, .. } if words.len() == 2));
        assert!(matches!(&items[3], Item::Text { name, .. } if &**name == "vm name, uuid or all"));
        assert!(matches!(&items[4], Item::Choice { optional: true, .. }));
        assert!(matches!(&items[5], Item::List { optional: true, .. }));
    }

    #[test]
    fn refusals() {
        for text in ["", "<a>", "a <", "a <>", "a [x] <y>", "a <x>... b", "a (command) b", "a (x)", "a <,>", "a <b>c"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }
}
