//! A program with its arguments as one text, as pipelines and vias take it. Must not know which programs there are.

/// The words of a program with its arguments: blanks separate, `"…"` and `'…'` keep them together, and nothing else has a
/// meaning. The error is the quote that nothing closes.
pub fn split(text: &str) -> Result<Vec<String>, char> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c.is_whitespace() => words.extend(word.take()),
            None if matches!(c, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let Some(quote) = quote {
        return Err(quote);
    }
    words.extend(word);
    Ok(words)
}

/// The text of a program's words: [`split`] gives them again.
pub fn join(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let special = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    if !word.is_empty() && !word.contains(special) {
        return word.to_owned();
    }
    if !word.contains('\'') {
        return format!("'{word}'");
    }
    // What is in single quotes cannot have one.
    let parts: Vec<String> =
        word.split('\'').map(|part| if part.is_empty() { String::new() } else { format!("'{part}'") }).collect();
    parts.join("\"'\"")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_split_at_blanks_and_kept_together_by_quotes() {
        let words = |text: &str| split(text).unwrap();
        assert_eq!(words("sed -u s/a/b/"), ["sed", "-u", "s/a/b/"]);
        assert_eq!(words(" sh -c 'echo \"a  b\"' \"\" x'y z'"), ["sh", "-c", "echo \"a  b\"", "", "xy z"]);
        assert_eq!(words(r"sed s#\.#x#"), ["sed", r"s#\.#x#"]);
        assert_eq!(split("sed 's/a"), Err('\''));
    }

    proptest! {
        #[test]
        fn what_is_joined_splits_again(words in proptest::collection::vec("[a \"'\\\\#é]{0,6}", 0..5)) {
            prop_assert_eq!(split(&join(&words)), Ok(words));
        }
    }
}
