//! Aliases: a first word that stands for a command, or for the beginning of one.
//!
//! Must not know who defines them.

use std::collections::BTreeMap;

use super::grammar::Compiled;

/// Expansions by alias.
pub type Aliases = BTreeMap<String, String>;

/// Why a text defines no alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// No `=`, or nothing on one side of it.
    #[error("expected an alias as NAME=COMMAND")]
    Form,
    /// A name that the first word of a line cannot be.
    #[error("invalid alias `{name}`, expected one word without quotes or `#`")]
    Name {
        /// The name as given.
        name: String,
    },
}

/// Define an alias by `NAME=EXPANSION`; the text up to the first `=` is its name.
pub fn define(aliases: &mut Aliases, text: &str) -> Result<(), AliasError> {
    let (name, expansion) = text.split_once('=').ok_or(AliasError::Form)?;
    let (name, expansion) = (name.trim(), expansion.trim());
    if name.is_empty() || expansion.is_empty() {
        return Err(AliasError::Form);
    }
    if name.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '#' | '\\')) {
        return Err(AliasError::Name { name: name.to_owned() });
    }
    aliases.insert(name.to_owned(), expansion.to_owned());
    Ok(())
}

/// What an `.alias` defines: its one word without the quotes (`"vmr=vm info"`), else the text as written, because it is to
/// be a line again.
pub fn definition(compiled: &Compiled) -> &str {
    match compiled.args.list("alias") {
        [word] => word,
        _ => compiled.list_as_written(),
    }
}

/// The line with its first word expanded if that is an alias. Only once, so aliases cannot loop.
pub fn expand(aliases: &Aliases, line: &str) -> Option<String> {
    let line = line.trim_start();
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    let expansion = aliases.get(&line[..end])?;
    Some(format!("{expansion}{}", &line[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_the_first_word_and_expanded_once() {
        let mut aliases = Aliases::new();
        assert_eq!(define(&mut aliases, "vmr=.columns name vm info"), Ok(()));
        assert_eq!(define(&mut aliases, "loop=loop x"), Ok(()));
        for text in ["nothing", "=x", "x=", " = "] {
            assert_eq!(define(&mut aliases, text), Err(AliasError::Form), "{text}");
        }
        // No first word of a line could ever be these.
        for name in ["a b", "\"q", "a#", "a\\"] {
            let expected = AliasError::Name { name: name.to_owned() };
            assert_eq!(define(&mut aliases, &format!("{name}=x")), Err(expected));
        }
        assert_eq!(expand(&aliases, " vmr summary").as_deref(), Some(".columns name vm info summary"));
        assert_eq!(expand(&aliases, "loop").as_deref(), Some("loop x"));
        assert_eq!(expand(&aliases, "vmrx"), None);
        assert_eq!(expand(&aliases, "echo vmr"), None);
    }
}
