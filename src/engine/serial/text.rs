//! What a terminal would show of the bytes that a guest wrote, as lines of text.
//!
//! Sources: ECMA-48 for control functions; what Linux, GRUB and SeaBIOS write on a serial console.

/// The text of some bytes: without control codes and escape sequences, with `\n` between lines. Bytes that are no UTF-8
/// become U+FFFD.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => {
                while chars.next_if_eq(&'\r').is_some() {}
                // Alone it goes back to the beginning of the line, over which something else is written then.
                if chars.peek() != Some(&'\n') {
                    end_line(&mut out);
                }
            }
            '\u{1b}' => match chars.find(|c| *c != '\u{1b}') {
                Some('[') => {
                    let end = chars.by_ref().find(|c| !(' '..='?').contains(c));
                    // The cursor goes to another place: what follows is apart from what was before.
                    if matches!(end, Some('H' | 'f')) {
                        end_line(&mut out);
                    }
                    if end == Some('\n') {
                        out.push('\n');
                    }
                }
                // A string ends with BEL or ESC \; one that never ends must not swallow everything.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next_if(|c| *c != '\n') {
                        if c == '\u{7}' {
                            break;
                        }
                        if c == '\u{1b}' {
                            chars.next_if_eq(&'\\');
                            break;
                        }
                    }
                }
                Some(' '..='/') => drop(chars.find(|c| !(' '..='/').contains(c))),
                Some('\n') => out.push('\n'),
                _ => {}
            },
            c if c.is_control() => {}
            // Would turn the text around it in the terminal of whoever reads it.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c => out.push(c),
        }
    }
    out
}

fn end_line(out: &mut String) {
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
}

/// A line that is not longer than so many characters.
pub fn cut(line: &str, longest: usize) -> String {
    match line.char_indices().nth(longest) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_show() {
        for (bytes, text) in [
            (&b"[\x1b[0;32m  OK  \x1b[0m] Reached target\r\n"[..], "[  OK  ] Reached target\n"),
            (b"\x1bc\x1b[?7l\x1b[2JSeaBIOS (version 1)\r\r\n", "SeaBIOS (version 1)\n"),
            (b"10%\r20%\rdone\r\n", "10%\n20%\ndone\n"),
            (b"\x1b[1;1HGRUB\x1b[5;2HEntry one\x1b[6;2HEntry two", "GRUB\nEntry one\nEntry two"),
            (b"\x1b]0;root@db: ~\x07root@db:~# \x1b[K", "root@db:~# "),
            (b"\x1b]0;never ended\nnext", "\nnext"),
            (b"\x1bP1$r\x1b\\x\x1b(By\x1b>z\x1b\x1b[1mw", "xyzw"),
            (b"a\x00b\x08c\x7fd\te", "abcd\te"),
            (b"caf\xc3\xa9 \xff\xfe end", "café \u{fffd}\u{fffd} end"),
            ("\u{9b}x\u{202e}y".as_bytes(), "xy"),
            (b"cut \x1b", "cut "),
            (b"cut \x1b[3", "cut "),
            (b"cut \x1b(", "cut "),
            (b"a\r\nb\r\n\r\nc", "a\nb\n\nc"),
        ] {
            assert_eq!(clean(bytes), text, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!((cut("aéb", 2), cut("aéb", 3)), ("aé…".to_owned(), "aéb".to_owned()));
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_is_left(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(clean(&bytes).chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }

        #[test]
        fn plain_lines_stay(lines in proptest::collection::vec("[ -~é]{0,20}", 0..5)) {
            prop_assert_eq!(clean(lines.join("\r\n").as_bytes()), lines.join("\n"));
        }
    }
}
