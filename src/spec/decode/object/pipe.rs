//! `pipes`.

use super::{At, Decoder, Values};
use crate::diagnostic::Diagnostic;
use crate::language::program;
use crate::spec::shown;
use crate::spec::syntax::Node;

pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    let value = match at.key {
        "mode" => decoder.one_of(node, at, &["all", "round-robin", "random"]),
        "log" => decoder.bool(node, at).map(|truth| truth.to_string()),
        "via" => via(decoder, node, at),
        other => unreachable!("`{other}` is not in the table of pipe keys"),
    };
    Decoder::one(value, node)
}

/// A program with its arguments, in its only spelling.
fn via(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Option<String> {
    let text = decoder.nonempty(node, at)?;
    let (message, hint) = match program::split(&text) {
        Ok(words) if words[0].is_empty() => {
            (format!("{at} is `{}`, which begins with no program", shown(&text)), "begin with the name of a program")
        }
        Ok(words) => {
            // Each is a word of the command.
            let carried = words.iter().all(|word| decoder.carried(word, node.span, at));
            return carried.then(|| program::join(&words));
        }
        Err(quote) => (
            format!("{at} is `{}`, in which nothing closes the {quote}", shown(&text)),
            "blanks separate words, and quotes keep them together: close the quote",
        ),
    };
    decoder.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
    None
}
