//! Blanks inside the flow collections of YAML: `{ a: 1, b: [1, 2] }`. Lines stay as they are divided.

use std::collections::BTreeMap;
use std::ops::Range;

use granit_parser::{Scanner, StrInput, TokenType};

/// Blanks that change: where they begin, where they end, and what stands there instead. None has a line end in it.
pub type Edits = BTreeMap<usize, (usize, &'static str)>;

/// A token of a flow collection, as far as the blanks beside it depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    OpenMap,
    OpenList,
    CloseMap,
    CloseList,
    Comma,
    Colon,
    /// `?` before a key.
    Question,
    /// An anchor or a tag, which something follows; an alias, whose name could go on.
    Name,
    Scalar,
}

/// What stands between two tokens on one line; None where it stays as it is.
fn between(one: Piece, two: Piece) -> Option<&'static str> {
    use Piece::{CloseList, CloseMap, Colon, Comma, Name, OpenList, OpenMap, Question, Scalar};
    Some(match (one, two) {
        (OpenMap, CloseMap) | (OpenList, _) => "",
        (OpenMap, _) | (_, CloseMap) | (Colon, CloseList) => " ",
        (_, CloseList | Comma) => "",
        (Scalar | CloseMap | CloseList, Colon) => "",
        (_, Colon) => return None,
        (Comma | Colon, _) => " ",
        (Name | Question, _) => " ",
        _ => return None,
    })
}

/// The blanks to change, and where the outermost flow collections are. The text is YAML that was read without an error.
pub fn edits(text: &str) -> (Edits, Vec<Range<usize>>) {
    let (mut edits, mut ranges) = (Edits::new(), Vec::new());
    let mut depth = 0usize;
    let mut last: Option<(Piece, Range<usize>)> = None;
    for token in Scanner::new(StrInput::new(text)).map_while(Result::ok) {
        let Some(mut range) = token.span().byte_range() else { break };
        // The token of a colon or a question mark may reach further.
        if matches!(token.token_type(), TokenType::Value | TokenType::Key) {
            range.end = text.len().min(range.start + 1);
        }
        let Some(written) = text.get(range.clone()) else { break };
        let piece = match token.token_type() {
            // A pair in a list is a map without braces.
            TokenType::FlowMappingStart | TokenType::FlowMappingEnd if written.is_empty() => continue,
            TokenType::FlowMappingStart => Piece::OpenMap,
            TokenType::FlowSequenceStart => Piece::OpenList,
            TokenType::FlowMappingEnd => Piece::CloseMap,
            TokenType::FlowSequenceEnd => Piece::CloseList,
            TokenType::FlowEntry => Piece::Comma,
            TokenType::Value if written == ":" => Piece::Colon,
            // Most keys have no sign of their own, and their token stands where their text begins.
            TokenType::Key if written == "?" && text[range.end..].starts_with([' ', '\t', '\n']) => Piece::Question,
            TokenType::Anchor(_) | TokenType::Alias(_) | TokenType::Tag(..) => Piece::Name,
            TokenType::Scalar(..) => Piece::Scalar,
            // The others have no text in a flow collection.
            _ => continue,
        };
        let end = range.start + written.trim_end().len();
        if let Some((before, of)) = last.take().filter(|_| depth > 0) {
            gap(text, of.end..range.start, between(before, piece), &mut edits);
        }
        match piece {
            Piece::OpenMap | Piece::OpenList => {
                if depth == 0 {
                    ranges.push(range.start..text.len());
                }
                depth += 1;
            }
            Piece::CloseMap | Piece::CloseList => {
                depth = depth.saturating_sub(1);
                if let Some(whole) = ranges.last_mut().filter(|_| depth == 0) {
                    whole.end = end;
                }
            }
            _ => {}
        }
        last = Some((piece, range.start..end));
    }
    (edits, ranges)
}

/// Blanks between two tokens. Where a comment or another line is between them, only what stands at the ends of lines goes.
fn gap(text: &str, range: Range<usize>, wanted: Option<&'static str>, edits: &mut Edits) {
    let Some(found) = text.get(range.clone()) else { return };
    if found.bytes().all(|byte| matches!(byte, b' ' | b'\t')) {
        // What stands together stays together where nothing is to be between.
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            edits.insert(range.start, (range.end, wanted));
        }
        return;
    }
    let mut at = range.start;
    for line in found.split_inclusive('\n') {
        if let Some(content) = line.strip_suffix('\n') {
            let kept = content.trim_end_matches([' ', '\t']).len();
            if kept < content.len() {
                edits.insert(at + kept, (at + content.len(), ""));
            }
        }
        at += line.len();
    }
}
