//! Lines of pipelines, as tables show them: pipes by their whole names (`NAMESPACE//NAME`), and programs as they were given.
//! Must not know what is wanted, nor what is there.

use super::Namespace;

const SEPARATOR: &str = "//";

/// A part of a line.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'l> {
    /// A pipe, by its whole name, and how it is written.
    Pipe(String, &'l str),
    /// One program, or several.
    Programs(&'l str),
}

/// The whole name of the pipe that a text begins with, and how many bytes it takes. A name with blanks or quotes in it is in
/// quotes.
fn pipe(text: &str) -> Option<(String, usize)> {
    let (name, len) = match text.strip_prefix('"') {
        None => {
            let len = text.find(' ').unwrap_or(text.len());
            (text[..len].to_owned(), len)
        }
        Some(quoted) => {
            let (mut name, mut escaped, mut end) = (String::new(), false, None);
            for (at, c) in quoted.char_indices() {
                match c {
                    '"' if !escaped => {
                        end = Some(at);
                        break;
                    }
                    '\\' if !escaped => escaped = true,
                    c => {
                        name.push(c);
                        escaped = false;
                    }
                }
            }
            (name, end? + 2)
        }
    };
    let ends = text[len..].is_empty() || text[len..].starts_with(' ');
    let whole = name.split_once(SEPARATOR).is_some_and(|(of, _)| Namespace::new(of).is_ok());
    (ends && whole).then_some((name, len))
}

fn pieces(line: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    // Where the programs begin that are not entered yet.
    let (mut from, mut at) = (0, 0);
    while at < line.len() {
        if let Some((name, len)) = pipe(&line[at..]) {
            if from < at {
                pieces.push(Piece::Programs(&line[from..at - 1]));
            }
            pieces.push(Piece::Pipe(name, &line[at..at + len]));
            at = (at + len + 1).min(line.len());
            from = at;
        } else {
            at = line[at..].find(' ').map_or(line.len(), |blank| at + blank + 1);
        }
    }
    if from < line.len() {
        pieces.push(Piece::Programs(&line[from..]));
    }
    pieces
}

/// What tells a pipeline of a namespace from others: its line, with the names of the namespace's own pipes as its commands
/// may give them.
pub fn pipeline_key(namespace: &Namespace, line: &str) -> String {
    let short = |piece: Piece<'_>| match piece {
        Piece::Pipe(name, _) => {
            let own = name.split_once(SEPARATOR).filter(|(of, _)| *of == namespace.as_str());
            own.map_or_else(|| name.clone(), |(_, short)| short.to_owned())
        }
        Piece::Programs(text) => text.to_owned(),
    };
    pieces(line).into_iter().map(short).collect::<Vec<_>>().join(" ")
}

/// The words of a line for `clear plumb`: put together again, they are the line.
pub fn pipeline_words(line: &str) -> Vec<String> {
    let written = |piece: Piece<'_>| match piece {
        Piece::Pipe(_, written) => written.to_owned(),
        Piece::Programs(text) => text.to_owned(),
    };
    pieces(line).into_iter().map(written).collect()
}

/// The elements of a line; None where it does not tell whether some words are one program or several.
pub fn pipeline_elements(line: &str) -> Option<Vec<String>> {
    let element = |piece: Piece<'_>| match piece {
        Piece::Pipe(name, _) => Some(name),
        Piece::Programs(text) => (!text.contains(' ')).then(|| text.to_owned()),
    };
    pieces(line).into_iter().map(element).collect()
}

/// A pipe in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipeOfLine {
    /// Its whole name.
    pub name: String,
    /// The pipeline reads it: something stands behind it.
    pub read: bool,
    /// The pipeline writes it: something stands before it.
    pub written: bool,
}

/// The pipes of a line, and what the pipeline does with them.
pub fn pipeline_pipes(line: &str) -> Vec<PipeOfLine> {
    let pieces = pieces(line);
    let last = pieces.len().saturating_sub(1);
    let pipe = |(at, piece): (usize, Piece<'_>)| match piece {
        Piece::Pipe(name, _) => Some(PipeOfLine { name, read: at < last, written: at > 0 }),
        Piece::Programs(_) => None,
    };
    pieces.into_iter().enumerate().filter_map(pipe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_at_its_pipes() {
        let lab = Namespace::new("lab").unwrap();
        for (line, key, words, told) in [
            ("lab//a lab//b", "a b", &["lab//a", "lab//b"][..], Some(&["lab//a", "lab//b"][..])),
            ("lab//a sed -u s/x/y/ lab//b", "a sed -u s/x/y/ b", &["lab//a", "sed -u s/x/y/", "lab//b"], None),
            ("cat other//b", "cat other//b", &["cat", "other//b"], Some(&["cat", "other//b"])),
            // Blanks of a program stay, and a slash or an address makes no pipe.
            ("sh -c 'a  b' lab//x", "sh -c 'a  b' x", &["sh -c 'a  b'", "lab//x"], None),
            ("curl http://x/ lab//ü", "curl http://x/ ü", &["curl http://x/", "lab//ü"], None),
            (
                r#""lab//a \"b\" c#" cat"#,
                r#"a "b" c# cat"#,
                &[r#""lab//a \"b\" c#""#, "cat"],
                Some(&[r#"lab//a "b" c#"#, "cat"]),
            ),
            ("cat", "cat", &["cat"], Some(&["cat"])),
        ] {
            assert_eq!(pipeline_key(&lab, line), key);
            assert_eq!(pipeline_words(line), words);
            assert_eq!(pipeline_words(line).join(" "), line);
            assert_eq!(
                pipeline_elements(line).as_deref(),
                told.map(|t| t.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()).as_deref()
            );
            // What the file says reads the same.
            assert_eq!(pipeline_key(&lab, &pipeline_key(&lab, line)), key);
        }
    }

    #[test]
    fn a_line_tells_what_it_does_with_its_pipes() {
        for (line, expected) in [
            ("lab//a lab//b", "lab//a r, lab//b w"),
            ("lab//a sed -u s/x/y/ lab//b cat far//c", "lab//a r, lab//b rw, far//c w"),
            ("cat lab//b lab//c", "lab//b rw, lab//c w"),
            ("lab//a cat", "lab//a r"),
            ("cat", ""),
            ("", ""),
        ] {
            let does = |pipe: PipeOfLine| {
                let letter = |does: bool, letter: &'static str| if does { letter } else { "" };
                format!("{} {}{}", pipe.name, letter(pipe.read, "r"), letter(pipe.written, "w"))
            };
            assert_eq!(pipeline_pipes(line).into_iter().map(does).collect::<Vec<_>>().join(", "), expected);
        }
    }
}
