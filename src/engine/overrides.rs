//! Overrides of QEMU's command line (`vm config qemu-override`): the line as text, replacements in it, and back to words.
//!
//! In the text, words stand between single blanks; a word that is empty or has a blank or a double quote is quoted, with
//! a backslash before each double quote and backslash in it. Must not know what the words mean to QEMU.

use crate::language::field::Override;

use super::kvm::QMP_ARGUMENT;

/// Why a command line is no longer one after its overrides.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// A quote without its pair.
    #[error("qemu-override leaves a double quote without its pair: {line}")]
    Quote {
        /// The line.
        line: String,
    },
    /// The control socket is gone.
    #[error("qemu-override must leave `-qmp {QMP_ARGUMENT}` as it is: the engine controls the VM through it")]
    Control,
}

/// The command line as text.
pub fn line(words: &[String]) -> String {
    let quoted = |word: &String| {
        if word.is_empty() || word.contains([' ', '\t', '"']) {
            format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
        } else {
            word.clone()
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The text after the overrides, each applied to what the ones before it left, everywhere it matches.
pub fn replace(line: String, overrides: &[Override]) -> String {
    overrides.iter().fold(line, |line, o| line.replace(&o.matched, &o.replacement))
}

/// The words of a text.
fn words(line: &str) -> Result<Vec<String>, OverrideError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => word.extend(chars.next()),
                        Some(c) => word.push(c),
                        None => return Err(OverrideError::Quote { line: line.to_owned() }),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The words of a command line after its overrides.
pub fn apply(arguments: Vec<String>, overrides: &[Override]) -> Result<Vec<String>, OverrideError> {
    if overrides.is_empty() {
        return Ok(arguments);
    }
    let arguments = words(&replace(line(&arguments), overrides))?;
    if !arguments.windows(2).any(|pair| pair[0] == "-qmp" && pair[1] == QMP_ARGUMENT) {
        return Err(OverrideError::Control);
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn overrides(list: &[(&str, &str)]) -> Vec<Override> {
        list.iter().map(|(m, r)| Override { matched: (*m).to_owned(), replacement: (*r).to_owned() }).collect()
    }

    proptest::proptest! {
        #[test]
        fn words_survive_their_text(list in proptest::collection::vec("[ -~]{0,12}", 0..8)) {
            proptest::prop_assert_eq!(words(&line(&list)), Ok(list));
        }
    }

    #[test]
    fn overrides_apply_in_order() {
        let line = words_of(&["-qmp", QMP_ARGUMENT, "-cpu", "max", "-append", "a b", "-vga", "std"]);
        let found = apply(line.clone(), &overrides(&[("-cpu max", "-cpu qemu64"), ("qemu64", "host"), ("a b", "c d")]));
        assert_eq!(found, Ok(words_of(&["-qmp", QMP_ARGUMENT, "-cpu", "host", "-append", "c d", "-vga", "std"])));
        let found = apply(line.clone(), &overrides(&[(" -vga std", ""), ("-append \"a b\" ", "")]));
        assert_eq!(found, Ok(words_of(&["-qmp", QMP_ARGUMENT, "-cpu", "max", "-append", "a b"])));
        let found = apply(line.clone(), &overrides(&[("\"a", "a")]));
        assert!(matches!(found, Err(OverrideError::Quote { .. })), "{found:?}");
        assert_eq!(apply(line, &overrides(&[("-qmp", "-chardev")])), Err(OverrideError::Control));
    }
}
