//! How many keys, values and tokens a TOML text has, counted before it is parsed, because the parser makes all of them first.
//!
//! The tokens are those of the parser, so that no text means one thing here and another there. The count need not be exact:
//! of a text that is not valid TOML the parser says what is wrong with it.

use toml_parser::lexer::{Lexer, Token, TokenKind};

use super::{MAX_TOKENS, MAX_VALUES, TABLE, too_many};
use crate::diagnostic::{Diagnostic, SourceId, Span};

/// Refuse a text with too many of them, at the first one over the limit.
pub(super) fn check(text: &str, source: SourceId) -> Result<(), Box<Diagnostic>> {
    // No byte counts more than a table and its key.
    if text.len() < MAX_VALUES / (TABLE + 2) {
        return Ok(());
    }
    let (mut tokens, mut values) = (0, 0);
    // The brackets that are open, the dots since a key may have begun, and whether nothing stood on the line yet.
    let (mut open, mut dots, mut blank) = (Vec::new(), 0, true);
    let mut header = "";
    let mut lexer = toml_parser::Source::new(text).lex();
    while let Some(token) = lexer.next() {
        tokens += 1;
        match token.kind() {
            TokenKind::LeftSquareBracket if open.is_empty() && blank => {
                let read = read_header(text, &mut lexer, header);
                header = read.name;
                tokens += read.tokens;
                values += read.tables * (TABLE + 2);
                if read.end == Some(TokenKind::Newline) {
                    continue;
                }
            }
            kind @ TokenKind::LeftSquareBracket => {
                open.push(kind);
                values += 1;
            }
            kind @ TokenKind::LeftCurlyBracket => {
                open.push(kind);
                values += TABLE;
                dots = 0;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => drop(open.pop()),
            TokenKind::Comma => {
                values += usize::from(open.last() == Some(&TokenKind::LeftSquareBracket));
                dots = 0;
            }
            TokenKind::Dot => dots += 1,
            TokenKind::Equals => {
                values += 2 + dots * (TABLE + 2);
                dots = 0;
            }
            TokenKind::Newline => dots = 0,
            _ => {}
        }
        blank = match token.kind() {
            TokenKind::Newline => true,
            TokenKind::Whitespace => blank,
            _ => false,
        };
        let over = match () {
            () if values > MAX_VALUES => Some((MAX_VALUES, "keys and values")),
            () if tokens > MAX_TOKENS => Some((MAX_TOKENS, "words, signs, blanks and line ends")),
            () => None,
        };
        if let Some((limit, what)) = over {
            let span = Span { source, start: token.span().start(), end: token.span().start() };
            return Err(Box::new(too_many(span, limit, what)));
        }
    }
    Ok(())
}

/// A header.
struct Header<'t> {
    name: &'t str,
    /// How many tables it makes that the header before it did not.
    tables: usize,
    /// How many tokens were read.
    tokens: usize,
    /// What ends its name.
    end: Option<TokenKind>,
}

/// Read a header behind its first bracket, up to the end of its name.
fn read_header<'t>(text: &'t str, lexer: &mut Lexer<'_>, before: &str) -> Header<'t> {
    let ends = |token: &Token| {
        matches!(token.kind(), TokenKind::RightSquareBracket | TokenKind::Newline | TokenKind::Comment | TokenKind::Eof)
    };
    let (mut start, mut dots, mut tokens) = (None, Vec::new(), 0);
    let mut end = None;
    for token in lexer.by_ref() {
        tokens += 1;
        let at = token.span().start();
        if ends(&token) {
            end = Some(token);
            break;
        }
        if token.kind() == TokenKind::LeftSquareBracket {
            continue;
        }
        start.get_or_insert(at);
        if token.kind() == TokenKind::Dot {
            dots.push(at);
        }
    }
    let last = end.as_ref().map_or(text.len(), |token| token.span().start());
    let start = start.unwrap_or(last);
    let name = &text[start..last];
    let same = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let shared = |dot: &&usize| **dot - start < same || (**dot - start == same && before.len() == same);
    let tables = dots.len() + 1 - dots.iter().filter(shared).count();
    Header { name, tables, tokens, end: end.map(|token| token.kind()) }
}
