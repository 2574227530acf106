//! What a mistyped line was likely meant to be.
//!
//! Must not know how patterns are matched.

use super::compiled::{CompileError, Invalid};

/// A longer word is no typing mistake, and comparing it takes time.
const LONGEST: usize = 64;

/// Longer lines, in bytes, are written by programs.
const LONGEST_LINE: usize = 1 << 10;

/// The most mistakes that are corrected in one line.
const MISTAKES: usize = 4;

/// The fixed words among what is expected.
fn fixed(expected: &[String]) -> impl Iterator<Item = &String> {
    expected.iter().filter(|e| !e.starts_with('<') && !e.contains(' '))
}

/// The expected words that a word may have been meant to be, the nearest first. One letter in three may be wrong.
fn near(word: &str, expected: &[String]) -> Vec<String> {
    let length = word.chars().count();
    if length > LONGEST {
        return Vec::new();
    }
    let limit = (length / 3).max(1);
    // A single letter is near everything.
    let close = fixed(expected).map(|e| (strsim::damerau_levenshtein(e, word), e));
    let mut close: Vec<_> = close.filter(|(distance, e)| *distance <= limit && *distance < e.chars().count()).collect();
    close.sort();
    close.into_iter().map(|(_, e)| e.clone()).collect()
}

/// The expected word that a word was likely meant to be.
pub(super) fn similar(word: &str, expected: &[String]) -> Option<String> {
    near(word, expected).into_iter().next()
}

/// The line with its mistakes corrected, if that makes it a command. `attempt` compiles a line; None means that it is a
/// command.
pub(super) fn line(line: &str, invalid: &Invalid, attempt: &dyn Fn(&str) -> Option<CompileError>) -> Option<String> {
    if line.len() > LONGEST_LINE {
        return None;
    }
    let mut rest = 24;
    correct(line, invalid, attempt, MISTAKES, &mut rest)
        .map(|line| line.trim_matches(super::token::is_blank).to_owned())
}

/// `attempts` is how many lines may still be tried.
fn correct(
    line: &str,
    invalid: &Invalid,
    attempt: &dyn Fn(&str) -> Option<CompileError>,
    mistakes: usize,
    attempts: &mut usize,
) -> Option<String> {
    let word = invalid.found.as_deref().filter(|w| !invalid.ambiguous && !w.is_empty())?;
    let mut replacements = near(word, &invalid.expected);
    // A blank was left out: `vminfo`.
    let joined = fixed(&invalid.expected).filter(|e| word.len() > e.len() && word.starts_with(e.as_str()));
    replacements.extend(joined.map(|e| format!("{e} {}", &word[e.len()..])));
    for replacement in replacements {
        *attempts = attempts.checked_sub(1)?;
        let Invalid { span, .. } = invalid;
        let changed = format!("{}{replacement}{}", &line[..span.start], &line[span.end..]);
        match attempt(&changed) {
            None => return Some(changed),
            Some(CompileError::Invalid(next)) if mistakes > 1 && next.span.start > span.start => {
                if let Some(found) = correct(&changed, &next, attempt, mistakes - 1, attempts) {
                    return Some(found);
                }
            }
            Some(_) => {}
        }
    }
    None
}
