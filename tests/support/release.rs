//! Which commands releases have, by the lists of their patterns. Words count in full here, other than for a minimega, but for
//! the `disk` of 2018 that later ones take as an abbreviation.

use std::sync::OnceLock;

/// A part of a pattern.
#[derive(Debug)]
enum Part {
    /// One of these words.
    Word(Vec<&'static str>),
    /// Any word.
    Any,
    /// One of these words, any where there are none, or nothing.
    Maybe(Vec<&'static str>),
    /// Any words, at least so many.
    List(usize),
    /// A command.
    Command,
}

#[derive(Debug)]
struct Pattern {
    text: &'static str,
    parts: Vec<Part>,
}

impl Pattern {
    /// The words that it begins with.
    fn fixed(&self) -> Vec<&'static str> {
        let word = |part: &Part| match part {
            Part::Word(of) if of.len() == 1 => Some(of[0]),
            _ => None,
        };
        self.parts.iter().map_while(word).collect()
    }
}

/// The patterns, those of one command together.
type Blocks = Vec<Vec<Pattern>>;

fn parse(text: &'static str) -> Pattern {
    let (mut parts, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (inner, end) = match rest.as_bytes()[0] {
            b'<' => (&rest[1..], '>'),
            b'[' => (&rest[1..], ']'),
            _ => (rest, ' '),
        };
        let (inside, after) = inner.split_once(end).unwrap_or((inner, ""));
        let repeats = after.starts_with("...");
        let words = || inside.split(',').filter(|word| !word.is_empty()).collect::<Vec<_>>();
        parts.push(match end {
            '>' if repeats => Part::List(1),
            ']' if repeats => Part::List(0),
            '>' if inside.contains(',') => Part::Word(words()),
            '>' => Part::Any,
            ']' if inside.contains(',') => Part::Maybe(words()),
            ']' => Part::Maybe(Vec::new()),
            _ if inside == "(command)" => Part::Command,
            _ => Part::Word(vec![inside]),
        });
        rest = after.trim_start_matches('.').trim_start();
    }
    Pattern { text, parts }
}

fn blocks(list: &'static str) -> Blocks {
    let lines = |block: &'static str| block.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let blocks = list.split("\n\n").map(|block| lines(block).map(parse).collect::<Vec<_>>());
    blocks.filter(|block| !block.is_empty()).collect()
}

/// A release, and what it has besides or lacks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Release {
    /// One of 2018; otherwise 3.1.0.
    pub old: bool,
    /// What is megaform's own is there too.
    pub megaform: bool,
    /// No command begins with these words.
    pub without: &'static [&'static str],
    /// Nor with these.
    pub lacks: Option<&'static str>,
}

impl Release {
    fn lists(self) -> impl Iterator<Item = &'static Vec<Pattern>> {
        static LISTS: [OnceLock<Blocks>; 3] = [const { OnceLock::new() }; 3];
        let list = |index: usize, text| LISTS[index].get_or_init(|| blocks(text)).iter();
        let release = if self.old {
            list(0, include_str!("../data/minimega-2018-api.txt"))
        } else {
            list(1, include_str!("../data/minimega-3.1.0-patterns.txt"))
        };
        let own = list(2, include_str!("../data/megaform-patterns.txt"));
        release.chain(own.filter(move |_| self.megaform))
    }

    fn lacks(self, words: &[&str]) -> bool {
        let line = format!("{} ", words.join(" "));
        self.without.iter().chain(&self.lacks).any(|start| line.starts_with(&format!("{start} ")))
    }

    /// Whether the release has a command.
    pub fn knows(self, words: &[&str]) -> bool {
        !self.lacks(words) && self.lists().flatten().any(|pattern| self.fits(&pattern.parts, words))
    }

    fn fits(self, parts: &[Part], words: &[&str]) -> bool {
        match (parts, words) {
            ([], words) => words.is_empty(),
            ([Part::List(least), ..], words) => words.len() >= *least,
            ([Part::Command, ..], words) => self.knows(words),
            ([Part::Maybe(_), rest @ ..], []) => self.fits(rest, &[]),
            (_, []) => false,
            ([part, rest @ ..], [word, words @ ..]) => {
                let fits = match part {
                    Part::Word(of) => of.contains(word) || (*word == "disk" && of.contains(&"disks")),
                    Part::Maybe(of) => of.is_empty() || of.contains(word),
                    _ => true,
                };
                fits && self.fits(rest, words)
            }
        }
    }

    /// The words that the patterns of a command begin with.
    pub fn begin(self, words: &[&str]) -> Option<Vec<&'static str>> {
        let pattern = self.lists().flatten().find(|pattern| self.fits(&pattern.parts, words))?;
        Some(pattern.fixed())
    }

    /// What `help` says of the commands that begin with these words; None if none does.
    pub fn help(self, words: &[&str]) -> Option<String> {
        let has = |pattern: &&Pattern| !self.lacks(&pattern.fixed());
        let of =
            self.lists().filter(|block| block.iter().filter(has).any(|pattern| pattern.fixed().starts_with(words)));
        let lines: Vec<&str> = of.flatten().filter(has).map(|pattern| pattern.text).collect();
        (!lines.is_empty()).then(|| format!("{}\n", lines.join("\n")))
    }
}
