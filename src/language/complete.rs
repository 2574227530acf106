//! Completion: what may stand at the end of a line that is being typed.
//!
//! Suggestions are whole lines: the input up to its last word, the completion, and a blank unless it is a folder. Must
//! not know where names come from; [`Candidates`] does.

use super::declaration::Completion;
use super::grammar::{Grammar, MAX_LINE};
use super::token::{is_blank, quote, tokenize};

/// Knows the names that exist.
pub trait Candidates {
    /// Names of a kind that begin with `prefix`. For [`Completion::Path`], paths (a folder ends in `/`), where a
    /// relative prefix is relative to what the engine decides.
    fn names(&self, kind: Completion, prefix: &str) -> Vec<String>;

    /// Names of environment variables that begin with `prefix`, without `$`.
    fn variables(&self, _prefix: &str) -> Vec<String> {
        Vec::new()
    }
}

impl Grammar {
    /// The lines that `line` may become by completing its last word, sorted. None if the words before the last one are no
    /// beginning of a command, or if the last word is quoted.
    ///
    /// A placeholder is completed by the kind that its command declares for it, otherwise by paths. A word that
    /// begins with `$` is completed by variables.
    pub fn suggest(&self, line: &str, source: &dyn Candidates) -> Vec<String> {
        let start = line.rfind(is_blank).map_or(0, |at| at + 1);
        let (head, prefix) = line.split_at(start);
        if line.len() > MAX_LINE || prefix.contains(['"', '\'', '\\', '#']) {
            return Vec::new();
        }
        let Ok(words) = tokenize(head) else { return Vec::new() };
        // In a comment nothing completes: a blank after `#` leaves fewer words than the line with one more has.
        if tokenize(&format!("{head}x")).map_or(0, |w| w.len()) != words.len() + 1 {
            return Vec::new();
        }
        let words: Vec<&str> = words.iter().map(|w| w.text.as_str()).collect();
        let mut found =
            Found { words: Vec::new(), kinds: Vec::new(), begun: vec![false; words.len() + 1], reached: false };
        self.collect(&mut found, &words, prefix, 0, 0);
        if !found.reached {
            return Vec::new();
        }
        if let Some(variable) = prefix.strip_prefix('$') {
            found.words.extend(source.variables(variable).into_iter().map(|v| format!("${v}")));
        } else {
            found.kinds.sort_by_key(|k| *k as u8);
            found.kinds.dedup();
            for kind in found.kinds {
                let names = source.names(kind, prefix).into_iter().filter(|n| n.starts_with(prefix));
                // A name that needs quotes is offered quoted, one that no quotes can carry is not offered.
                found.words.extend(names.filter_map(|n| quote(&n).ok()));
            }
        }
        let mut lines: Vec<String> = found
            .words
            .into_iter()
            .map(|word| if word.ends_with('/') { format!("{head}{word}") } else { format!("{head}{word} ") })
            .collect();
        lines.sort();
        lines.dedup();
        lines
    }

    /// Gather what may follow `words[at..]` in a node.
    fn collect(&self, found: &mut Found, words: &[&str], prefix: &str, node: usize, at: usize) {
        let node = &self.nodes[node];
        if !node.nested.is_empty() && !found.begun[at] {
            // A command begins here; each place is tried once.
            found.begun[at] = true;
            self.collect(found, words, prefix, 0, at);
        }
        let Some(word) = words.get(at) else {
            found.reached = true;
            found.words.extend(node.beginning(prefix).iter().map(|(w, _)| w.to_string()));
            let kinds = node.names.iter().map(|(command, name)| self.kind(*command, name));
            self.note(found, kinds, words, prefix, at);
            return;
        };
        let candidates = node.candidates(word);
        // A shortened word does not stand for megaform's own words where it stands for one of minimega.
        let common = candidates.iter().any(|(fixed, next)| **fixed != **word && self.nodes[*next].common);
        for (_, next) in candidates.iter().filter(|(_, next)| !common || self.nodes[*next].common) {
            self.collect(found, words, prefix, *next, at + 1);
        }
        if let Some(next) = node.free {
            self.collect(found, words, prefix, next, at + 1);
        }
        for list in &node.lists {
            found.reached = true;
            let names = node.names.iter().filter(|(c, _)| *c == list.command);
            let kinds = names.map(|(command, name)| self.kind(*command, name));
            self.note(found, kinds, words, prefix, at);
        }
    }

    /// Note what kinds of names may stand at the end; the words of commands, which begin at `words[at]`, at once.
    fn note(
        &self,
        found: &mut Found,
        kinds: impl Iterator<Item = Completion>,
        words: &[&str],
        prefix: &str,
        at: usize,
    ) {
        for kind in kinds {
            if kind != Completion::Command {
                found.kinds.push(kind);
            } else if !found.begun[at] {
                found.begun[at] = true;
                // Only words: what the command would take is not asked for.
                let before = found.kinds.len();
                self.collect(found, words, prefix, 0, at);
                found.kinds.truncate(before);
            }
        }
    }

    fn kind(&self, command: u32, name: &str) -> Completion {
        let completions = &self.declarations()[command as usize].completions;
        // Later entries are more specific: they were added to the defaults.
        completions.iter().rev().find(|(n, _)| n == name).map_or(Completion::Path, |(_, kind)| *kind)
    }
}

struct Found {
    words: Vec<String>,
    kinds: Vec<Completion>,
    /// Where a nested command was begun.
    begun: Vec<bool>,
    /// Some pattern accepts all words before the last one.
    reached: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::declaration::Declaration;
    use crate::language::grammar::tests::minimega;

    /// What the recorded daemon had: no VMs, one namespace, an empty files folder, a folder `/peer`, one variable.
    struct Recorded;

    impl Candidates for Recorded {
        fn names(&self, kind: Completion, prefix: &str) -> Vec<String> {
            let names: &[&str] = match kind {
                Completion::VmTarget => &["all"],
                Completion::Namespace => &["minimega"],
                Completion::Path if prefix.is_empty() => &["/base/files/"],
                Completion::Path => &["/peer/"],
                Completion::Vlan | Completion::Tap | Completion::Pipe | Completion::Command => &[],
            };
            names.iter().filter(|n| n.starts_with(prefix)).map(|n| n.to_string()).collect()
        }

        fn variables(&self, prefix: &str) -> Vec<String> {
            ["images"].iter().filter(|n| n.starts_with(prefix)).map(|n| n.to_string()).collect()
        }
    }

    #[test]
    fn recorded_suggestions() {
        let mut declarations = minimega().declarations().to_vec();
        for declaration in &mut declarations {
            if declaration.name.starts_with("namespace") {
                declaration.completions.push(("name".into(), Completion::Namespace));
            }
        }
        let grammar = Grammar::new(&declarations).unwrap();
        let mut count = 0;
        for row in include_str!("../../tests/data/exchanges.jsonl").lines() {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            let Ok(request) = serde_json::from_str::<serde_json::Value>(row["request"].as_str().unwrap()) else {
                continue;
            };
            let (Some(line), None) = (request["Suggest"].as_str(), request.get("Command")) else { continue };
            let response = row["responses"][0].as_str().unwrap();
            let response: serde_json::Value = serde_json::from_str(response).unwrap();
            let suggested = response["Suggest"].as_array().cloned().unwrap_or_default();
            assert_eq!(grammar.suggest(line, &Recorded), suggested, "`{line}`");
            count += 1;
        }
        assert_eq!(count, 15);
    }

    #[test]
    fn nested_lists_and_quotes() {
        let grammar = minimega();
        let suggest = |line: &str| grammar.suggest(line, &Recorded);
        assert_eq!(suggest(".csv true .col"), [".csv true .columns "]);
        assert_eq!(suggest(".columns name vm la"), [".columns name vm launch "]);
        assert_eq!(suggest("vm config disks a b /p"), ["vm config disks a b /peer/"]);
        assert_eq!(suggest("v st"), ["v start ", "v step ", "v stop "]);
        assert_eq!(suggest("vm st"), ["vm start ", "vm stop "]);
        assert_eq!(suggest("bogus "), Vec::<String>::new());
        assert_eq!(suggest("echo # v"), Vec::<String>::new());
        assert_eq!(suggest("echo \"a"), Vec::<String>::new());
        assert_eq!(suggest("vm config qemu "), ["vm config qemu /base/files/"]);
        assert_eq!(suggest("vm start nosuch "), Vec::<String>::new());
    }

    #[test]
    fn the_words_of_commands_are_completed_as_arguments() {
        let mut declarations = minimega().declarations().to_vec();
        for declaration in declarations.iter_mut().filter(|declaration| declaration.name.starts_with("help")) {
            declaration.completions.push(("command".into(), Completion::Command));
        }
        let grammar = Grammar::new(&declarations).unwrap();
        let suggest = |line: &str| grammar.suggest(line, &Recorded);
        assert_eq!(suggest("help vm la"), ["help vm launch "]);
        assert_eq!(suggest("help .col"), ["help .columns "]);
        assert!(suggest("help ").contains(&"help vm ".to_owned()));
        assert_eq!(suggest("help vm start "), Vec::<String>::new(), "words, not VMs");
    }

    #[test]
    fn what_own_words_take_is_not_offered_for_a_shortened_word_of_minimega() {
        let declarations = [
            Declaration::new("namespace", &["namespace [name]"], "", "").complete("name", Completion::Namespace),
            Declaration::new("nat", &["nat <add,>"], "", "").own(),
        ];
        let grammar = Grammar::new(&declarations).unwrap();
        assert_eq!(grammar.suggest("na", &Recorded), ["namespace ", "nat "]);
        assert_eq!(grammar.suggest("na ", &Recorded), ["na minimega "]);
        assert_eq!(grammar.suggest("nat ", &Recorded), ["nat add "]);
    }

    #[test]
    fn names_that_need_quotes_are_quoted() {
        struct Odd;
        impl Candidates for Odd {
            fn names(&self, _: Completion, _: &str) -> Vec<String> {
                vec!["a b".into(), "a$X".into(), "ab".into()]
            }
        }
        let grammar = Grammar::new(&[Declaration::new("viz", &["viz <filename>"], "draw", "")]).unwrap();
        assert_eq!(grammar.suggest("viz a", &Odd), ["viz \"a b\" ", "viz ab "]);
    }
}
