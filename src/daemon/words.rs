//! What stands for something else in a line: aliases and `$VARIABLE`.

use std::collections::BTreeMap;

use crate::language::alias::Aliases;
use crate::language::variable;

/// The aliases and variables that all connections share.
pub struct Words {
    /// Expansions by alias.
    pub aliases: Aliases,
    /// Values by variable; the daemon's environment at its start, as `.env` has changed it since.
    pub variables: BTreeMap<String, String>,
}

impl Words {
    /// No aliases, and the daemon's environment. What is not UTF-8 is left out.
    pub fn from_environment() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Self { aliases: Aliases::new(), variables }
    }

    /// A word with its variables expanded; one that is not set stands for nothing.
    pub fn expand(&self, word: &str) -> String {
        variable::expand(word, |name| self.variables.get(name).cloned().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        let variables = [("HOME", "/home/u"), ("a_1", "x")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Words { aliases: Aliases::new(), variables: variables.into() }
    }

    #[test]
    fn variables() {
        for (word, text) in [
            ("$HOME", "/home/u"),
            ("${HOME}/x", "/home/u/x"),
            ("$HOME.y", "/home/u.y"),
            ("a$a_1$a_1", "axx"),
            ("$nosuch-", "-"),
            ("5$", "5$"),
            ("$ x", "$ x"),
            ("${HOME", "${HOME"),
            ("file:$a_1", "file:x"),
            ("é$HOMEé", "é/home/ué"),
        ] {
            assert_eq!(words().expand(word), text, "{word}");
        }
    }
}
