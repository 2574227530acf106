//! Aliases: a first word that stands for a command, or for the beginning of one.
//!
//! Must not know who defines them.

use std::collections::BTreeMap;

/// Expansions by alias.
pub type Aliases = BTreeMap<String, String>;

/// Define an alias by `NAME=EXPANSION`; the text up to the first `=` is its name. False if there is no name.
pub fn define(aliases: &mut Aliases, text: &str) -> bool {
    match text.split_once('=') {
        Some((name, expansion)) if !name.trim().is_empty() => {
            aliases.insert(name.trim().to_owned(), expansion.trim().to_owned());
            true
        }
        _ => false,
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
        assert!(define(&mut aliases, "vmr=.columns name vm info"));
        assert!(define(&mut aliases, "loop=loop x"));
        assert!(!define(&mut aliases, "nothing"));
        assert!(!define(&mut aliases, "=x"));
        assert_eq!(expand(&aliases, " vmr summary").as_deref(), Some(".columns name vm info summary"));
        assert_eq!(expand(&aliases, "loop").as_deref(), Some("loop x"));
        assert_eq!(expand(&aliases, "vmrx"), None);
        assert_eq!(expand(&aliases, "echo vmr"), None);
    }
}
