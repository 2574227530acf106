//! `help`: the commands and what they do, from the declarations.
//!
//! Must not know how a command is carried out.

use super::declaration::Declaration;
use super::grammar::Grammar;

/// Why there is no help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelpError {
    /// No command begins with these words.
    #[error("no help entry for `{words}`{}", similar.as_ref().map(|s| format!(", did you mean `{s}`?")).unwrap_or_default())]
    Unknown {
        /// The words asked for.
        words: String,
        /// A command with a close name.
        similar: Option<String>,
    },
}

/// Whether each of `words` is a prefix of the word of `name` in its place; `exact` if all are equal and none is left.
fn matches(name: &str, words: &[&str]) -> Option<bool> {
    let mut exact = true;
    let mut names = name.split(' ');
    for word in words {
        let own = names.next()?;
        if !own.starts_with(word) || word.is_empty() {
            return None;
        }
        exact &= own == *word;
    }
    Some(exact && names.next().is_none())
}

fn list<'a>(commands: impl Iterator<Item = &'a Declaration>) -> String {
    let mut rows: Vec<(&str, &str)> = commands.map(|d| (&*d.name, &*d.short)).collect();
    rows.sort();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(n, s)| format!("{n:width$}  {s}").trim_end().to_owned()).collect();
    lines.join("\n")
}

fn entry(declaration: &Declaration) -> String {
    let mut out = format!("{} - {}\n\nUsage:\n", declaration.name, declaration.short);
    for pattern in &declaration.patterns {
        out.push_str("  ");
        out.push_str(pattern);
        out.push('\n');
    }
    if !declaration.long.trim().is_empty() {
        out.push('\n');
        out.push_str(declaration.long.trim());
        out.push('\n');
    }
    if !declaration.columns.is_empty() {
        out.push_str("\nColumns: ");
        out.push_str(&declaration.columns.join(", "));
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}

/// The help text for the beginning of a command. Without words: every command with its line. With words, each of which
/// may be shortened: the whole help of the command of that name, or of the only one that begins so; of several, the list.
/// Words beyond a command's name are left out, so that `help vm start web0` helps with `vm start`.
pub fn help<S: AsRef<str>>(grammar: &Grammar, words: &[S]) -> Result<String, HelpError> {
    let words: Vec<&str> = words.iter().flat_map(|w| w.as_ref().split_whitespace()).collect();
    let declarations = grammar.declarations();
    if words.is_empty() {
        let text = list(declarations.iter());
        return Ok(format!("{text}\n\n`help COMMAND` says more about one of them; words may be shortened."));
    }
    for length in (1..=words.len()).rev() {
        let found: Vec<(&Declaration, bool)> =
            declarations.iter().filter_map(|d| matches(&d.name, &words[..length]).map(|exact| (d, exact))).collect();
        let exact = found.iter().find(|(_, exact)| *exact).map(|(d, _)| *d);
        let others = found.iter().filter(|(_, e)| !*e).map(|(d, _)| *d);
        match (exact, found.as_slice()) {
            (_, []) => continue,
            (None, [(only, _)]) | (_, [(only, true)]) => return Ok(entry(only)),
            (Some(exact), _) if length == words.len() => {
                return Ok(format!("{}\n\nSee also:\n{}", entry(exact), list(others)));
            }
            (Some(exact), _) => return Ok(entry(exact)),
            (None, _) if length == words.len() => {
                // What the words mean as a command, where all others are megaform's own.
                let mut common = found.iter().map(|(d, _)| *d).filter(|d| d.own.len() < d.patterns.len());
                return Ok(match (common.next(), common.next()) {
                    (Some(one), None) => {
                        format!("{}\n\nSee also:\n{}", entry(one), list(others.filter(|d| d.name != one.name)))
                    }
                    _ => list(others),
                });
            }
            // `vm bogus` begins like many commands, but is none of them.
            (None, _) => break,
        }
    }
    let asked = words.join(" ");
    let close = declarations.iter().map(|d| (strsim::damerau_levenshtein(&d.name, &asked), d.name.to_string()));
    let limit = (asked.chars().count() / 3).max(1);
    let similar = close.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name);
    Err(HelpError::Unknown { words: asked, similar })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grammar() -> Grammar {
        let d = |name: &'static str, patterns: &[&'static str], short, long: &'static str| {
            Declaration::new(name, patterns, short, long)
        };
        Grammar::new(&[
            d(
                "vm launch",
                &["vm launch", "vm launch <kvm,> <name or count> [config]"],
                "launch VMs",
                "They are paused.\n",
            ),
            d("vm config", &["vm config"], "show the configuration", ""),
            d("vm config memory", &["vm config memory [value]"], "memory in MB", ""),
            d("tap", &["tap"], "list taps", "").columns(&["bridge", "tap", "vlan"]),
        ])
        .unwrap()
    }

    #[test]
    fn all_commands() {
        let text = help::<&str>(&grammar(), &[]).unwrap();
        assert!(text.starts_with("tap               list taps\nvm config         show the configuration\n"), "{text}");
    }

    #[test]
    fn one_command() {
        let text = help(&grammar(), &["vm", "la"]).unwrap();
        let usage = "  vm launch\n  vm launch <kvm,> <name or count> [config]";
        assert_eq!(text, format!("vm launch - launch VMs\n\nUsage:\n{usage}\n\nThey are paused."));
        assert_eq!(help(&grammar(), &["vm launch kvm web0"]).unwrap(), text);
        assert!(help(&grammar(), &["t"]).unwrap().ends_with("Columns: bridge, tap, vlan"));
    }

    #[test]
    fn several_commands() {
        assert_eq!(help(&grammar(), &["vm"]).unwrap().lines().count(), 3);
        let text = help(&grammar(), &["vm", "config"]).unwrap();
        assert!(
            text.starts_with("vm config - ") && text.ends_with("See also:\nvm config memory  memory in MB"),
            "{text}"
        );
    }

    #[test]
    fn words_of_our_own_do_not_hide_a_command_of_minimega() {
        let grammar = Grammar::new(&[
            Declaration::new("namespace", &["namespace [name]"], "choose one", ""),
            Declaration::new("nat", &["nat"], "ways out", "").own(),
        ])
        .unwrap();
        let text = help(&grammar, &["na"]).unwrap();
        assert!(text.starts_with("namespace - ") && text.ends_with("See also:\nnat  ways out"), "{text}");
        assert!(help(&grammar, &["nat"]).unwrap().starts_with("nat - "));
    }

    #[test]
    fn no_command() {
        let error = help(&grammar(), &["vm", "lanch"]).unwrap_err();
        assert_eq!(error.to_string(), "no help entry for `vm lanch`, did you mean `vm launch`?");
        assert_eq!(help(&grammar(), &["zzz"]).unwrap_err().to_string(), "no help entry for `zzz`");
    }
}
