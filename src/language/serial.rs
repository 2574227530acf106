//! What is looked for in the text that a guest wrote on a serial port, and how a command line carries it.
//!
//! Must not know where that text is kept.

use regex::{Regex, RegexBuilder};

use super::token;

/// The longest text or pattern, in bytes.
const LONGEST: usize = 1024;

/// A text or a pattern that a guest is to have written. Two are equal if they are written alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sought {
    kind: Kind,
    text: String,
}

/// What finds it.
#[derive(Debug)]
pub struct Finder(Regex);

impl Finder {
    /// Where it is first, in bytes.
    pub fn find(&self, text: &str) -> Option<usize> {
        self.0.find(text).map(|found| found.start())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Contains,
    Matches,
}

/// Why a text or pattern cannot be looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoughtError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is too long.
    #[error("it has {length} bytes, expected at most {LONGEST}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A text with a character that is not kept.
    #[error("it has the control character {found:?}, which is not kept of what a guest writes")]
    Control {
        /// The character.
        found: char,
    },
    /// A pattern that does not parse.
    #[error("{message}")]
    Pattern {
        /// What is wrong, in one line.
        message: String,
        /// The byte of the pattern where that is.
        at: usize,
    },
    /// A pattern that every text matches.
    #[error("it matches the empty text, so that every guest has written it")]
    Anything,
    /// A pattern with a `$` that a command line would expand.
    #[error("`{found}` would be expanded as a variable of the daemon's environment, write \\x24 for a dollar sign")]
    Variable {
        /// The `$` and what follows it.
        found: String,
    },
}

impl Sought {
    /// A text, to be found anywhere: in a line or, with line ends, across lines.
    pub fn contains(text: &str) -> Result<Self, SoughtError> {
        check_length(text)?;
        if let Some(found) = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            return Err(SoughtError::Control { found });
        }
        Ok(Self { kind: Kind::Contains, text: text.to_owned() })
    }

    /// A regular expression in the syntax of the `regex` crate. `^` and `$` are the ends of a line.
    pub fn matches(pattern: &str) -> Result<Self, SoughtError> {
        check_length(pattern)?;
        let regex = compiled(pattern).map_err(|error| broken(pattern, &error))?;
        if regex.is_match("") {
            return Err(SoughtError::Anything);
        }
        let sought = Self { kind: Kind::Matches, text: pattern.to_owned() };
        sought.carried()?;
        Ok(sought)
    }

    /// As the last words of a command say it: `contains` or `matches`, and the text.
    pub fn parse(kind: &str, text: &str) -> Result<Self, SoughtError> {
        if kind == "matches" { Self::matches(text) } else { Self::contains(text) }
    }

    /// What finds it.
    pub fn finder(&self) -> Finder {
        let regex = match self.kind {
            Kind::Contains => compiled(&regex::escape(&self.text)),
            Kind::Matches => compiled(&self.text),
        };
        Finder(regex.expect("a pattern was compiled before, and an escaped text of bounded length is one"))
    }

    /// The text or pattern as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Is it a pattern?
    pub fn is_pattern(&self) -> bool {
        self.kind == Kind::Matches
    }

    /// The words of a command that [`Sought::parse`] reads as something that finds the same. What a receiving daemon would
    /// expand or fetch is said by a pattern instead.
    pub fn words(&self) -> [String; 2] {
        let (kind, text) = self.carried().expect("a pattern that cannot be carried was refused, and every text can be");
        [kind.to_owned(), text]
    }

    fn carried(&self) -> Result<(&'static str, String), SoughtError> {
        let kind = if self.is_pattern() { "matches" } else { "contains" };
        if token::quote(&self.text).is_ok() && !token::is_fetched(&self.text) {
            return Ok((kind, self.text.clone()));
        }
        let pattern = if self.is_pattern() { self.text.clone() } else { regex::escape(&self.text) };
        // The group only keeps the beginning from being one of those that are fetched.
        let pattern = format!("(?:){}", dollars(&pattern));
        match token::quote(&pattern) {
            Ok(_) => Ok(("matches", pattern)),
            Err(token::QuoteError::Variable { found }) => Err(SoughtError::Variable { found }),
            Err(token::QuoteError::Control { found }) => Err(SoughtError::Control { found }),
        }
    }
}

fn compiled(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).multi_line(true).build()
}

fn check_length(text: &str) -> Result<(), SoughtError> {
    match text.len() {
        0 => Err(SoughtError::Empty),
        length if length > LONGEST => Err(SoughtError::TooLong { length }),
        _ => Ok(()),
    }
}

/// A pattern with `\x24` for each `\$`.
fn dollars(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('$') => out.push_str("\\x24"),
            next => {
                out.push('\\');
                out.extend(next);
            }
        }
    }
    out
}

/// The error of the `regex` crate is several lines: the pattern, a caret under the place, and `error: …`.
fn broken(pattern: &str, error: &regex::Error) -> SoughtError {
    let text = error.to_string();
    let message = text.lines().filter_map(|line| line.trim().strip_prefix("error: ")).next_back();
    let message = message.unwrap_or(text.lines().next_back().unwrap_or_default()).trim().to_owned();
    let caret = text.lines().find(|line| line.contains('^') && line.trim_start().starts_with('^'));
    // The pattern stands four columns in.
    let column = caret.and_then(|line| line.find('^')).unwrap_or_default().saturating_sub(4);
    let at = pattern.char_indices().nth(column).map_or(pattern.len(), |(at, _)| at);
    SoughtError::Pattern { message, at: if pattern.contains('\n') { 0 } else { at } }
}

impl std::fmt::Display for Sought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Kind::Contains => write!(f, "{:?}", self.text),
            Kind::Matches => write!(f, "a text that matches {:?}", self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_has_ends_and_a_text_is_taken_literally() {
        let text = "Debian 13 db ttyS0\n\ndb login: root\n~$ uname\n";
        for (kind, sought, at) in [
            ("contains", "login:", Some(23)),
            ("contains", "login:$", None),
            ("contains", "d.*n", None),
            ("contains", "ttyS0\n\ndb", Some(13)),
            ("matches", "^db login: .*$", Some(20)),
            ("matches", "^login", None),
            ("matches", "(?i)DEBIAN [0-9]+", Some(0)),
            ("contains", "~$ uname", Some(35)),
        ] {
            assert_eq!(Sought::parse(kind, sought).unwrap().finder().find(text), at, "{sought:?}");
        }
    }

    #[test]
    fn what_cannot_be_looked_for_is_refused() {
        assert_eq!(Sought::contains("").unwrap_err(), SoughtError::Empty);
        assert_eq!(Sought::matches(&"a".repeat(1025)).unwrap_err(), SoughtError::TooLong { length: 1025 });
        assert_eq!(Sought::contains("a\rb").unwrap_err(), SoughtError::Control { found: '\r' });
        for pattern in ["a*", "^", "$", "^$|x", "(a|)"] {
            assert_eq!(Sought::matches(pattern).unwrap_err(), SoughtError::Anything, "{pattern}");
        }
        let SoughtError::Pattern { message, at } = Sought::matches("é(login").unwrap_err() else { panic!() };
        assert_eq!((message.as_str(), at), ("unclosed group", 2));
        let SoughtError::Pattern { message, at } = Sought::matches("ab[z-a]").unwrap_err() else { panic!() };
        assert!(message.contains("invalid character class range") && at == 3, "{message} {at}");
        let SoughtError::Pattern { message, .. } = Sought::matches("(?:a{1000}){1000}").unwrap_err() else { panic!() };
        assert!(message.contains("size"), "{message}");
        assert_eq!(Sought::matches("a$HOME").unwrap_err(), SoughtError::Variable { found: "$HOME".into() });
        Sought::matches("a\\$HOME$").unwrap();
        Sought::matches("(a$)|b").unwrap();
    }

    /// What the other side of the wire looks for.
    fn sent(sought: &Sought) -> Sought {
        let line = token::join(&sought.words()).unwrap();
        let words: Vec<String> = token::tokenize(&line).unwrap().into_iter().map(|word| word.text).collect();
        assert!(!token::is_fetched(&words[1]), "{line}");
        Sought::parse(&words[0], &words[1]).unwrap()
    }

    #[test]
    fn what_a_command_line_would_change_gets_through() {
        for text in ["a $HOME b", "$$", "http://10.0.0.5/ready", "file:x", "\"'\\#", "tab\tline\nend", "{\"a\": 1}"] {
            let there = sent(&Sought::contains(text).unwrap());
            assert_eq!(there.finder().find(&format!("--{text}--")), Some(2), "{text:?}");
            assert_eq!(there.finder().find(&text[1..]), None, "{text:?}");
        }
        let pattern = sent(&Sought::matches("tar:[a-z]+ \\$HOME$").unwrap());
        assert_eq!(pattern.finder().find("x\ntar:abc $HOME\ny"), Some(2));
        assert_eq!(pattern.finder().find("tar:abc $HOMES"), None);
    }

    proptest! {
        #[test]
        fn any_text_means_the_same_there(text in "[^\\p{Cc}]{1,30}", around in "[^\\p{Cc}]{0,30}") {
            let here = Sought::contains(&text).unwrap();
            let there = sent(&here);
            for guest in [format!("{around}{text}"), around.clone()] {
                prop_assert_eq!(here.finder().find(&guest), guest.find(&text));
                prop_assert_eq!(there.finder().find(&guest), guest.find(&text));
            }
        }
    }
}
