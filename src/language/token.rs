//! Words and quoting: how a line of the command language splits into words, and how a text is written as one word.
//!
//! Blanks (space, tab, newline) separate words. `"…"` and `'…'` quote, and a word may mix quoted and bare pieces. `\`
//! escapes `r n t \ " ' #`, inside quotes too. `#` outside quotes starts a comment that runs to the end of the text.
//! Must not know what any word means.

use std::ops::Range;

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word with quotes and escapes resolved.
    pub text: String,
    /// The bytes of the line that it was written in, quotes included.
    pub span: Range<usize>,
    /// Some piece of it was quoted.
    pub quoted: bool,
}

/// Why a line does not split into words. The wording is minimega's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A backslash before a character that it does not escape.
    #[error("unexpected escaped character: {found}")]
    Escape {
        /// The character.
        found: char,
        /// The byte where the backslash stands.
        at: usize,
    },
    /// The line ends in a backslash.
    #[error("unexpected end of line after \\")]
    EscapeEnd {
        /// The byte where the backslash stands.
        at: usize,
    },
    /// A quote that nothing closes.
    #[error("missing terminal {quote}")]
    Quote {
        /// Which quote.
        quote: char,
        /// The byte where it opens.
        at: usize,
    },
}

impl TokenError {
    /// The byte of the line where the error is.
    pub fn at(&self) -> usize {
        match self {
            Self::Escape { at, .. } | Self::EscapeEnd { at } | Self::Quote { at, .. } => *at,
        }
    }
}

/// Why a text cannot be carried in a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// `$` begins a variable; minimega expands those inside quotes too.
    #[error("`{found}` would be expanded as a variable, and no quoting prevents that")]
    Variable {
        /// The `$` and what follows it, at most a few characters.
        found: String,
    },
    /// A control character that no escape stands for.
    #[error("the control character U+{:04X} cannot be written in a command", *found as u32)]
    Control {
        /// The character.
        found: char,
    },
}

/// Whether a character separates words.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n')
}

/// Split a line into words. A comment is left out. Takes time linear in the line's length.
pub fn tokenize(line: &str) -> Result<Vec<Word>, TokenError> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, usize)> = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if is_blank(c) || c == '#' => {
                if let Some(mut done) = word.take() {
                    done.span.end = at;
                    words.push(done);
                }
                if c == '#' {
                    return Ok(words);
                }
                continue;
            }
            Some((open, _)) if c == open => {
                quote = None;
                continue;
            }
            _ => {}
        }
        let word = word.get_or_insert_with(|| Word { text: String::new(), span: at..at, quoted: false });
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => word.text.push('\n'),
                Some((_, 'r')) => word.text.push('\r'),
                Some((_, 't')) => word.text.push('\t'),
                Some((_, c @ ('\\' | '"' | '\'' | '#'))) => word.text.push(c),
                Some((_, found)) => return Err(TokenError::Escape { found, at }),
                None => return Err(TokenError::EscapeEnd { at }),
            },
            '"' | '\'' if quote.is_none() => {
                quote = Some((c, at));
                word.quoted = true;
            }
            _ => word.text.push(c),
        }
    }
    if let Some((quote, at)) = quote {
        return Err(TokenError::Quote { quote, at });
    }
    if let Some(mut done) = word {
        done.span.end = line.len();
        words.push(done);
    }
    Ok(words)
}

/// Arguments that begin so are fetched by minimega's preprocessor, quoted or not.
const FETCHED: &[&str] = &["file:", "http:", "https:", "tar:"];

/// Whether a receiver fetches what a word names, unless preprocessing is off.
pub fn is_fetched(word: &str) -> bool {
    FETCHED.iter().any(|prefix| word.starts_with(prefix))
}

/// Write a text as one word: [`tokenize`] of the result gives exactly the text back.
///
/// A text that needs no quotes stays bare. A text with a variable (`$` before a letter, `_`, `{`, a digit or one of
/// `* # $ @ ! ? -`, all of which expand) or with a control character other than CR, LF and TAB is refused, because a
/// receiving minimega would not see what was meant. A text that begins with `file:`, `http:`, `https:` or `tar:` is
/// carried, but the receiver fetches what it names unless preprocessing is off.
pub fn quote(text: &str) -> Result<String, QuoteError> {
    let mut bare = !text.is_empty() && !is_fetched(text);
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '$' => {
                bare = false;
                if let Some((_, next)) = chars.peek()
                    && (next.is_ascii_alphanumeric() || "_{*#$@!?-".contains(*next))
                {
                    let found: String = text[at..].chars().take(16).collect();
                    return Err(QuoteError::Variable { found });
                }
            }
            '\r' | '\n' | '\t' => bare = false,
            c if c.is_control() => return Err(QuoteError::Control { found: c }),
            '"' | '\'' | '#' | '\\' => bare = false,
            c if c.is_whitespace() => bare = false,
            _ => {}
        }
    }
    if bare {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(out)
}

/// Write words as one line: each quoted, joined by a space.
pub fn join<S: AsRef<str>>(words: &[S]) -> Result<String, QuoteError> {
    let quoted: Result<Vec<_>, _> = words.iter().map(|w| quote(w.as_ref())).collect();
    Ok(quoted?.join(" "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(line: &str) -> Vec<String> {
        tokenize(line).unwrap().into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn recorded_forms() {
        assert_eq!(texts(r#"echo a "b c" d"#), ["echo", "a", "b c", "d"]);
        assert_eq!(texts("echo a#b"), ["echo", "a"]);
        assert_eq!(texts(r#"echo "a#b""#), ["echo", "a#b"]);
        assert_eq!(texts(r"echo a\#b"), ["echo", "a#b"]);
        assert_eq!(texts(r#"echo "a\nb""#), ["echo", "a\nb"]);
        assert_eq!(texts(r#"echo 'single "q"'"#), ["echo", "single \"q\""]);
        assert_eq!(texts(r#"echo """#), ["echo", ""]);
        assert_eq!(texts("echo a\necho b"), ["echo", "a", "echo", "b"]);
        assert_eq!(texts(" \t# x"), Vec::<String>::new());
        assert_eq!(tokenize(r"echo a\ b").unwrap_err().to_string(), "unexpected escaped character:  ");
        assert_eq!(tokenize("vm launch kvm \"unclosed").unwrap_err().to_string(), "missing terminal \"");
        assert_eq!(tokenize("a 'b").unwrap_err(), TokenError::Quote { quote: '\'', at: 2 });
        assert_eq!(tokenize("a\\").unwrap_err().at(), 1);
    }

    #[test]
    fn spans_and_mixed_pieces() {
        let words = tokenize("  a\"b c\"d  é").unwrap();
        assert_eq!(words[0], Word { text: "ab cd".into(), span: 2..9, quoted: true });
        assert_eq!(words[1], Word { text: "é".into(), span: 11..13, quoted: false });
    }

    #[test]
    fn quote_is_bare_where_it_can_be() {
        assert_eq!(quote("web0,mega-br,00:11:22:33:44:55").unwrap(), "web0,mega-br,00:11:22:33:44:55");
        assert_eq!(quote("").unwrap(), "\"\"");
        assert_eq!(quote("a b\"c").unwrap(), r#""a b\"c""#);
        assert_eq!(quote("a$").unwrap(), "\"a$\"");
        assert_eq!(quote("file:x").unwrap(), "\"file:x\"");
        assert_eq!(quote("a${B}").unwrap_err(), QuoteError::Variable { found: "${B}".into() });
        assert!(quote("a$B").is_err() && quote("$1").is_err() && quote("\0").is_err() && quote("\u{85}").is_err());
        assert_eq!(join(&["echo", "a b"]).unwrap(), "echo \"a b\"");
    }

    proptest! {
        #[test]
        fn quoted_text_comes_back(texts in proptest::collection::vec("(?s).{0,20}", 1..5)) {
            let carried: Vec<String> = texts.into_iter().filter(|t| quote(t).is_ok()).collect();
            let words = tokenize(&join(&carried).unwrap()).unwrap();
            prop_assert_eq!(words.into_iter().map(|w| w.text).collect::<Vec<_>>(), carried);
        }

        #[test]
        fn special_characters_come_back(text in "[ab \\\\\"'#\\t\\r\\n,.:\\[\\]]{0,30}") {
            let words = tokenize(&quote(&text).unwrap()).unwrap();
            prop_assert_eq!(words.len(), 1);
            prop_assert_eq!(&words[0].text, &text);
        }

        #[test]
        fn any_line_splits_or_fails_with_a_place(line in "(?s).{0,60}") {
            match tokenize(&line) {
                Ok(words) => for w in words {
                    prop_assert!(line.get(w.span).is_some());
                },
                Err(e) => prop_assert!(line.get(e.at()..).is_some()),
            }
        }
    }
}
