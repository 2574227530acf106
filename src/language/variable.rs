//! `$NAME` and `${NAME}` in words. Must not know which variables there are.

/// A word with its variables replaced by what `value` gives for their names.
pub fn expand(word: &str, mut value: impl FnMut(&str) -> String) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, end) = match after.strip_prefix('{').and_then(|inner| inner.find('}').map(|end| (inner, end))) {
            Some((inner, end)) => (&inner[..end], end + 2),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                (&after[..end], end)
            }
        };
        if end == 0 {
            text.push('$');
        } else {
            text.push_str(&value(name));
        }
        rest = &after[end..];
    }
    text.push_str(rest);
    text
}
