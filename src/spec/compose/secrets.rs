//! Values that no text may show.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};

/// What is shown instead.
pub const HIDDEN: &str = "(sensitive)";

/// A shorter value stands by chance in every text, so it cannot be hidden there.
pub const SHORTEST: usize = 4;

/// The values of sensitive variables and of everything that was computed from them.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    values: BTreeSet<String>,
    /// Finds the values; made when it is first needed.
    matcher: OnceLock<Option<AhoCorasick>>,
}

impl Secrets {
    /// Hide a value from now on. False if it is too short for that.
    pub fn add(&mut self, value: &str) -> bool {
        let value = value.trim();
        if value.chars().count() < SHORTEST {
            return value.is_empty();
        }
        self.matcher = OnceLock::new();
        // As it stands in JSON and in a quoted argument of the command language.
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        // As a setting that is words has it, however they were parted.
        self.values.insert(value.split_whitespace().collect::<Vec<_>>().join(" "));
        let lines: Vec<&str> = value.lines().filter(|line| line.trim().chars().count() >= SHORTEST).collect();
        if lines.len() > 1 {
            self.values.extend(lines.iter().map(|line| line.trim().to_owned()));
        }
        self.values.insert(quoted);
        self.values.insert(value.to_owned());
        true
    }

    /// Hide a value, and each of its words, which may come to stand apart from each other. False if it is too short.
    pub fn add_words(&mut self, value: &str) -> bool {
        let mut words = value.split_whitespace();
        if words.by_ref().nth(1).is_some() {
            for word in value.split_whitespace() {
                self.add(word);
            }
        }
        self.add(value)
    }

    /// Everything that is hidden, sorted.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// There is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// A text without the values. Of two that begin at one place the longer is found.
    pub fn mask(&self, text: &str) -> String {
        let matcher = self.matcher.get_or_init(|| {
            // Values that are too much for a matcher are looked for one by one.
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.values).ok()
        });
        match matcher {
            _ if self.values.is_empty() => text.to_owned(),
            Some(matcher) => {
                let mut masked = String::with_capacity(text.len());
                matcher.replace_all_with(text, &mut masked, |_, _, into| {
                    into.push_str(HIDDEN);
                    true
                });
                masked
            }
            None => self.values.iter().rev().fold(text.to_owned(), |text, value| text.replace(value.as_str(), HIDDEN)),
        }
    }

    /// A JSON value without the values in its texts and keys.
    pub fn mask_json(&self, value: &mut serde_json::Value) {
        match value {
            serde_json::Value::String(text) => *text = self.mask(text),
            serde_json::Value::Number(number) if self.values.contains(&number.to_string()) => {
                *value = serde_json::Value::String(HIDDEN.to_owned());
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(|item| self.mask_json(item)),
            serde_json::Value::Object(map) => {
                let entries = std::mem::take(map);
                for (key, mut item) in entries {
                    self.mask_json(&mut item);
                    map.insert(self.mask(&key), item);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_longest_first_and_short_ones_cannot_be() {
        let mut secrets = Secrets::default();
        assert!(!secrets.add("abc"));
        assert!(secrets.add(""));
        assert!(secrets.add("hunter2"));
        assert!(secrets.add("pw=hunter2 x"));
        assert!(secrets.add("a\"b\\c"));
        assert_eq!(secrets.mask("vm config append pw=hunter2 x; hunter2"), "vm config append (sensitive); (sensitive)");
        assert_eq!(secrets.mask("vm config tag k \"a\\\"b\\\\c\""), "vm config tag k \"(sensitive)\"");
        let mut json = serde_json::json!({ "a": ["x hunter2"], "hunter2": 1 });
        secrets.mask_json(&mut json);
        assert_eq!(json, serde_json::json!({ "a": ["x (sensitive)"], "(sensitive)": 1 }));
    }
}
