//! Random documents, written with blanks, lines and comments wherever they may be: formatting changes blanks alone, and
//! formatting again changes nothing.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::super::*;
use super::fmt;

/// Decisions; zeros make the simplest document.
struct Dice {
    rolls: Vec<u8>,
    at: usize,
    /// Anchors so far, and how many comments there are.
    anchors: usize,
    comments: usize,
}

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let roll = self.rolls.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(roll) % sides
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.roll(of.len())]
    }

    fn blanks(&mut self) -> &'static str {
        self.one(&["", " ", "  ", "   ", "", " \t"])
    }

    fn some_blanks(&mut self) -> &'static str {
        self.one(&[" ", "  ", "    "])
    }

    /// A comment at the end of a line, often none.
    fn comment(&mut self) -> String {
        self.comments += 1;
        match self.roll(4) {
            1 => format!("{}# c{} [x,  y]:  'z", self.some_blanks(), self.comments),
            2 => self.blanks().to_owned(),
            _ => String::new(),
        }
    }

    /// Lines of comments and empty ones between entries.
    fn lines(&mut self, column: usize, into: &mut String) {
        self.comments += 1;
        match self.roll(8) {
            1 => into.push_str(&format!("{}# l{}  x\n", " ".repeat(column), self.comments)),
            2 => into.push_str(&format!("{}# l{}\n\n\n", " ".repeat(self.roll(9)), self.comments)),
            3 => into.push_str(&format!("{}\n", self.one(&["", " ", "   "]))),
            _ => {}
        }
    }

    /// A scalar on one line; in a flow collection without its signs.
    fn scalar(&mut self, flow: bool) -> String {
        let mut words = vec![
            "x",
            "1",
            "-3",
            "a b",
            "true",
            "'q, [1,2]  {a:1}'",
            "\"d:  \\\" # {x ,y}\"",
            "0.5",
            "a:b",
            "x#y",
            "''",
            "\"{{ var.x  }}\"",
            "http://a/b?c",
            "'it''s'",
            "~",
            "*",
            "-x",
            "?x",
            "@",
            "日本  語",
        ];
        words.retain(|word| !["*", "@"].contains(word));
        if !flow {
            words.extend(["a, b", "x ]  y", "{{ var.x }}"].iter().filter(|word| !word.starts_with('{')));
        }
        self.one(&words).to_owned()
    }

    /// Blanks in a flow collection, perhaps with lines and comments.
    fn gap(&mut self, column: usize) -> String {
        match self.roll(9) {
            0 | 1 => String::new(),
            2 | 3 => " ".to_owned(),
            4 => "   ".to_owned(),
            5 => format!("{}\n{}", self.blanks(), " ".repeat(column + 1 + self.roll(5))),
            6 => {
                self.comments += 1;
                let (blanks, after, indent) = (self.blanks(), self.blanks(), column + 1 + self.roll(5));
                format!(" {blanks}# f{} {{ , ]{after}\n{}", self.comments, " ".repeat(indent))
            }
            7 => format!("\n\n{}\n{}", self.blanks(), " ".repeat(column + 1)),
            _ => "  ".to_owned(),
        }
    }

    /// An anchor before what it names.
    fn anchor(&mut self) -> String {
        if self.roll(8) != 1 {
            return String::new();
        }
        self.anchors += 1;
        let blanks = self.some_blanks();
        format!("&a{}{blanks}", self.anchors)
    }

    /// An alias of an anchor that stands before.
    fn alias(&mut self) -> Option<String> {
        (self.anchors > 0 && self.roll(8) == 1).then(|| format!("*a{}", 1 + self.roll(self.anchors)))
    }

    /// A flow collection or a scalar in one.
    fn flow(&mut self, column: usize, depth: usize) -> String {
        if let Some(alias) = self.alias() {
            return alias;
        }
        let kind = if depth == 0 { 0 } else { self.roll(4) };
        if kind < 2 && depth < 3 {
            let anchor = self.anchor();
            return anchor + &self.scalar(true);
        }
        let anchor = self.anchor();
        let count = self.roll(4);
        let mut text = anchor;
        text.push(if kind == 2 { '[' } else { '{' });
        for index in 0..count {
            text.push_str(&self.gap(column));
            if kind == 2 {
                if self.roll(6) == 1 {
                    text.push_str(&format!("k{}:{}", index, self.some_blanks()));
                }
                text.push_str(&self.flow(column, depth - 1));
            } else {
                let quoted = self.roll(3) == 1;
                text.push_str(&if quoted { format!("\"k  {index}\"") } else { format!("k{index}") });
                text.push_str(self.one(&["", "", " ", "  "]));
                text.push(':');
                let gap = self.gap(column);
                text.push_str(if gap.is_empty() && !quoted { " " } else { &gap });
                if self.roll(7) != 1 {
                    text.push_str(&self.flow(column, depth - 1));
                }
            }
            text.push_str(&self.gap(column));
            if index + 1 < count || self.roll(5) == 1 {
                text.push(',');
            }
        }
        text.push_str(&self.gap(column));
        text.push(if kind == 2 { ']' } else { '}' });
        text
    }

    /// What stands behind a key or a dash, up to and with the end of the line.
    fn value(&mut self, column: usize, depth: usize, into: &mut String) {
        let kind = self.roll(9);
        if let Some(alias) = self.alias() {
            into.push_str(&format!("{}{alias}{}\n", self.some_blanks(), self.comment()));
            return;
        }
        if kind > 5 && depth > 0 {
            let anchor = self.anchor();
            if !anchor.is_empty() {
                into.push_str(&format!(" {}", anchor.trim_end()));
            }
            into.push_str(&format!("{}\n", self.comment()));
            let inner = column + 1 + self.roll(5);
            self.block(inner, depth - 1, into);
            return;
        }
        into.push_str(self.some_blanks());
        let anchor = self.anchor();
        into.push_str(&anchor);
        let inner = " ".repeat(column + 1 + self.roll(4));
        match kind {
            3 => {
                let style = self.one(&["|", ">", "|-", ">+", "|+", ">-"]);
                into.push_str(&format!("{style}{}\n", self.comment()));
                for line in 0..=self.roll(4) {
                    let lead = if line == 0 { "" } else { self.blanks() };
                    let text = self.one(&["text", "- no  item", "# no comment", "k:  {a:1}", "x   ", "", "\ttab"]);
                    let text = if line == 0 && text.trim().is_empty() { "first" } else { text };
                    into.push_str(&if text.is_empty() { "\n".to_owned() } else { format!("{inner}{lead}{text}\n") });
                }
            }
            4 => into.push_str(&format!("\"a  b \\\n{inner}  c\n\n{inner}d:  {{e}}\"{}\n", self.comment())),
            5 => into.push_str(&format!("plain  words\n{inner}  go on\n{inner}and  on{}\n", self.comment())),
            1 | 2 => into.push_str(&format!("{}{}\n", self.flow(column, 3), self.comment())),
            _ => into.push_str(&format!("{}{}\n", self.scalar(false), self.comment())),
        }
    }

    /// Entries of a list or a map.
    fn block(&mut self, column: usize, depth: usize, into: &mut String) {
        let list = self.roll(2) == 1;
        for index in 0..=self.roll(4) {
            self.lines(column, into);
            into.push_str(&" ".repeat(column));
            if list && self.roll(3) == 1 && depth > 0 {
                // A map that begins behind the dash.
                let blanks = self.some_blanks();
                into.push_str(&format!("-{blanks}k:"));
                let inner = column + 1 + blanks.len();
                self.value(inner, depth - 1, into);
                into.push_str(&format!("{}j:", " ".repeat(inner)));
                self.value(inner, depth - 1, into);
                continue;
            }
            into.push_str(&if list { "-".to_owned() } else { self.one(&["k", "'k  ", "\"k: "]).to_owned() });
            if !list {
                let quote = into.chars().rev().find(|c| matches!(c, '\'' | '"')).filter(|_| !into.ends_with('k'));
                into.push_str(&format!("{index}"));
                into.extend(quote);
                into.push(':');
            }
            self.value(column, depth, into);
        }
    }
}

/// The text without its blanks.
fn solid(text: &str) -> String {
    text.split_whitespace().collect()
}

fn root(text: &str) -> Option<Node> {
    let mut sources = SourceMap::new();
    let source = sources.add("lab", text);
    let (root, diagnostics) = syntax::read(text, source, Format::Yaml);
    root.filter(|_| diagnostics.is_empty())
}

fn document(rolls: Vec<u8>) -> String {
    let mut dice = Dice { rolls, at: 0, anchors: 0, comments: 0 };
    let mut text = String::new();
    dice.block(0, 3, &mut text);
    dice.lines(0, &mut text);
    text
}

fn rolls() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 4..250)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn only_blanks_change_and_only_once(rolls in rolls()) {
        let text = document(rolls);
        // Some are not YAML: a text that begins with more blanks than what follows it has.
        let Some(before) = root(&text) else { return Ok(()) };
        let once = fmt(&text, Format::Yaml).map_err(|said| TestCaseError::fail(format!("{said}\n{text}")))?;
        prop_assert_eq!(solid(&once), solid(&text), "{}\n---\n{}", text, once);
        prop_assert!(difference(&before, &root(&once).unwrap()).is_none(), "{}\n---\n{}", text, once);
        let twice = fmt(&once, Format::Yaml).map_err(|said| TestCaseError::fail(format!("{said}\n{once}")))?;
        prop_assert_eq!(&twice, &once, "of\n{}", text);
    }
}

#[test]
fn most_random_documents_are_yaml() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let documents = std::iter::repeat_with(|| document(rolls().new_tree(&mut runner).unwrap().current()));
    let read = documents.take(200).filter(|text| root(text).is_some()).count();
    assert!(read > 150, "{read} of 200");
}
