//! `plumbing`.

use super::{At, Decoder, Values};
use crate::diagnostic::Diagnostic;
use crate::spec::shown;
use crate::spec::syntax::Node;

pub(super) fn read(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    match at.key {
        "pipeline" => elements(decoder, node, at),
        other => unreachable!("`{other}` is not in the table of plumbing keys"),
    }
}

fn elements(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Values {
    let values = decoder.items(node, at, element)?;
    let message = match values.as_slice() {
        [] => format!("{at} has no elements"),
        [only] => format!("{at} has one element, `{}`, and connects nothing", shown(&only.value)),
        _ => return Some(values),
    };
    let hint = "give a list of two or more: pipes, and programs with their arguments";
    decoder.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
    None
}

/// A program with its arguments, or the name of a pipe. Blanks around it would not come back from a target.
fn element(decoder: &mut Decoder<'_>, node: &Node, at: At<'_>) -> Option<String> {
    let text = decoder.nonempty(node, at)?;
    if text.trim() == text {
        return Some(text);
    }
    let message = format!("{at} has `{}`, which begins or ends with a blank", shown(&text));
    decoder.push(Diagnostic::error("invalid-value", node.span, message).hint("remove the blank"));
    None
}
