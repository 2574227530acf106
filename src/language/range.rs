//! Ranges of names: `web[0-2,5]`, `fw,web[0-2]`, `a[08-11]`; expanding them and writing names as the shortest list.
//!
//! Must not know what is named; the word `all` is an ordinary name here.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The most names that one text may expand to.
pub const MAX_NAMES: usize = 100_000;

/// The most bytes that all names of one text may have together.
pub const MAX_BYTES: usize = 16 << 20;

/// Why a text is not a list of names and ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// minimega's wording.
    #[error("unterminated '['")]
    Unterminated,
    /// A bracket closes that was not opened, or opens inside another.
    #[error("unexpected '{found}' in `{text}`, a range is written name[0-2,5]")]
    Bracket {
        /// The bracket.
        found: char,
        /// The text, cut to a readable length.
        text: String,
    },
    /// Something in brackets that is no number and no range.
    #[error("invalid range `{found}`, expected a number or low-high")]
    Number {
        /// What stands there.
        found: String,
    },
    /// Nothing before, between or after commas.
    #[error("empty name in `{text}`, expected names separated by single commas")]
    Empty {
        /// The text, cut to a readable length.
        text: String,
    },
    /// More than the limit.
    #[error("the range stands for more than {MAX_NAMES} names or {} MiB of text", MAX_BYTES >> 20)]
    TooMany,
}

fn shown(text: &str) -> String {
    if text.chars().count() > 40 { text.chars().take(37).chain("...".chars()).collect() } else { text.to_owned() }
}

/// A run of numbers as written in brackets.
struct Span {
    low: u64,
    high: u64,
    width: usize,
}

impl Span {
    fn parse(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError::Number { found: shown(text) };
        let number = |t: &str| match t {
            t if !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()) => t.parse::<u64>().map_err(|_| error()),
            _ => Err(error()),
        };
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let width = if low.len() > 1 && low.starts_with('0') { low.len() } else { 0 };
        Ok(Self { low: number(low)?, high: number(high)?, width })
    }

    fn count(&self) -> u64 {
        if self.high < self.low { 0 } else { (self.high - self.low).saturating_add(1) }
    }
}

/// One comma-separated element: fixed text and brackets in turn.
enum Part<'a> {
    Text(&'a str),
    Numbers(Vec<Span>),
}

fn parts(element: &str) -> Result<Vec<Part<'_>>, RangeError> {
    let bracket = |found| RangeError::Bracket { found, text: shown(element) };
    let mut out = Vec::new();
    let mut rest = element;
    while let Some(at) = rest.find(['[', ']']) {
        if rest[at..].starts_with(']') {
            return Err(bracket(']'));
        }
        out.push(Part::Text(&rest[..at]));
        let inside = &rest[at + 1..];
        let end = inside.find(['[', ']']).ok_or(RangeError::Unterminated)?;
        if inside[end..].starts_with('[') {
            return Err(bracket('['));
        }
        out.push(Part::Numbers(inside[..end].split(',').map(Span::parse).collect::<Result<_, _>>()?));
        rest = &inside[end + 1..];
    }
    out.push(Part::Text(rest));
    Ok(out)
}

/// The names that a text stands for, in the order written; duplicates stay. A range whose high end lies below its low
/// end stands for nothing. A low end with leading zeros pads the whole range to its width. Several brackets in one
/// name multiply. At most [`MAX_NAMES`] names and [`MAX_BYTES`] bytes.
pub fn expand(text: &str) -> Result<Vec<String>, RangeError> {
    let mut elements = Vec::new();
    let (mut depth, mut start) = (0usize, 0usize);
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                elements.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    elements.push(&text[start..]);
    let mut names = Vec::new();
    let mut bytes = 0usize;
    for element in elements {
        if element.is_empty() {
            return Err(RangeError::Empty { text: shown(text) });
        }
        let parts = parts(element)?;
        let count = parts.iter().fold(1u64, |n, p| match p {
            Part::Text(_) => n,
            Part::Numbers(spans) => n.saturating_mul(spans.iter().fold(0, |n, s| n.saturating_add(s.count()))),
        });
        // Every number is at most as long as its bracket, or 20 digits.
        let total = usize::try_from(count).unwrap_or(usize::MAX);
        bytes = bytes.saturating_add(total.saturating_mul(element.len() + 20));
        if names.len().saturating_add(total) > MAX_NAMES || (bytes > MAX_BYTES && total > 1) {
            return Err(RangeError::TooMany);
        }
        if total == 0 {
            continue;
        }
        let mut grown = vec![String::new()];
        for part in &parts {
            match part {
                Part::Text(t) => grown.iter_mut().for_each(|n| n.push_str(t)),
                Part::Numbers(spans) => {
                    let mut next = Vec::new();
                    for name in &grown {
                        for s in spans {
                            // `low..=high` is empty when high < low, as documented.
                            next.extend((s.low..=s.high).map(|n| format!("{name}{n:0w$}", w = s.width)));
                        }
                    }
                    grown = next;
                }
            }
        }
        names.append(&mut grown);
    }
    Ok(names)
}

/// Compare as people do: runs of digits by value, everything else by character; `web2` before `web10`.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (x, y) = (a.as_bytes(), b.as_bytes());
    let common = x.iter().zip(y).take_while(|(p, q)| p == q).count();
    // The digits around the first difference are numbers, if both have some.
    let start = common - x[..common].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let digit = |text: &[u8], at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    if digit(x, start) && digit(y, start) {
        fn number(text: &[u8]) -> &[u8] {
            let digits = &text[..text.iter().take_while(|byte| byte.is_ascii_digit()).count()];
            &digits[digits.iter().take_while(|byte| **byte == b'0').count()..]
        }
        let (p, q) = (number(&x[start..]), number(&y[start..]));
        // Equal numbers may differ in leading zeros, and more may follow.
        return p.len().cmp(&q.len()).then_with(|| p.cmp(q)).then_with(|| by_runs(a, b));
    }
    match (x.get(common), y.get(common)) {
        (p, q) if p.is_none() || q.is_none() || common == 0 => p.cmp(&q),
        // A run that ends where the other goes on is the smaller one.
        (Some(p), _) if p.is_ascii_digit() => Ordering::Less,
        (_, Some(q)) if q.is_ascii_digit() => Ordering::Greater,
        (p, q) => p.cmp(&q),
    }
}

/// The same, run by run.
fn by_runs(a: &str, b: &str) -> Ordering {
    fn split(text: &str) -> (&str, &str) {
        let digit = text.starts_with(|c: char| c.is_ascii_digit());
        text.split_at(text.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(text.len()))
    }
    let (mut x, mut y) = (a, b);
    while !x.is_empty() && !y.is_empty() {
        let ((p, x_rest), (q, y_rest)) = (split(x), split(y));
        let digits = |t: &str| t.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(p) && digits(q) {
            let (p, q) = (p.trim_start_matches('0'), q.trim_start_matches('0'));
            p.len().cmp(&q.len()).then_with(|| p.cmp(q))
        } else {
            p.cmp(q)
        };
        if order != Ordering::Equal {
            return order;
        }
        (x, y) = (x_rest, y_rest);
    }
    x.len().cmp(&y.len()).then_with(|| a.len().cmp(&b.len())).then_with(|| a.cmp(b))
}

/// A run as it is written in brackets.
fn run_text(low: &str, high: &str) -> String {
    if low == high { low.to_owned() } else { format!("{low}-{high}") }
}

/// Consecutive numbers as runs of first and last.
fn runs(mut numbers: Vec<u64>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    numbers.sort_unstable();
    numbers.dedup();
    for n in numbers {
        match out.last_mut() {
            Some((_, high)) if *high + 1 == n => *high = n,
            _ => out.push((n, n)),
        }
    }
    out
}

/// Write names as the shortest list of names and ranges: `web0 web1 web2 fw` becomes `fw,web[0-2]`. Duplicates are
/// dropped; the order is natural and does not depend on the input's. [`expand`] gives exactly the names back, as long
/// as none is empty or has a comma or a bracket (no VM, tap, VLAN or host name does).
pub fn compress<S: AsRef<str>>(names: &[S]) -> String {
    if let [name] = names {
        return name.as_ref().to_owned();
    }
    // Per prefix, numbers by width of zero padding; 0 stands for none.
    let mut groups: BTreeMap<&str, BTreeMap<usize, Vec<u64>>> = BTreeMap::new();
    let mut plain: BTreeSet<&str> = BTreeSet::new();
    for name in names {
        let name = name.as_ref();
        let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (prefix, number) = name.split_at(digits);
        // u64 has at most 20 digits; below 19 nothing can overflow.
        if number.is_empty() || number.len() > 18 {
            plain.insert(name);
            continue;
        }
        let width = if number.len() > 1 && number.starts_with('0') { number.len() } else { 0 };
        let value = number.parse().expect("at most 18 digits fit into 64 bits");
        groups.entry(prefix).or_default().entry(width).or_default().push(value);
    }
    let mut items: Vec<(String, String)> = plain.into_iter().map(|n| (n.to_owned(), n.to_owned())).collect();
    for (prefix, mut widths) in groups {
        let mut pieces: Vec<(String, String)> = Vec::new();
        let mut bare = widths.remove(&0).unwrap_or_default();
        bare.sort_unstable();
        bare.dedup();
        for (width, numbers) in widths {
            for (low, mut high) in runs(numbers) {
                // 09 is followed by 10, which has no leading zero of its own.
                if high + 1 == 10u64.pow(u32::try_from(width - 1).expect("at most 18"))
                    && let Ok(at) = bare.binary_search(&(high + 1))
                {
                    let follows = bare[at..].iter().zip(high + 1..).take_while(|(n, next)| *n == next).count();
                    bare.drain(at..at + follows);
                    high += follows as u64;
                }
                let (low, high) = (format!("{low:0width$}"), format!("{high:0width$}"));
                pieces.push((low.clone(), run_text(&low, &high)));
            }
        }
        for (low, high) in runs(bare) {
            pieces.push((low.to_string(), run_text(&low.to_string(), &high.to_string())));
        }
        pieces.sort_by(|a, b| natural_cmp(&a.0, &b.0));
        let first = format!("{prefix}{}", pieces[0].0);
        let list = pieces.iter().map(|p| p.1.as_str()).collect::<Vec<_>>().join(",");
        let single = pieces.len() == 1 && pieces[0].0 == pieces[0].1;
        items.push((first, if single { format!("{prefix}{list}") } else { format!("{prefix}[{list}]") }));
    }
    items.sort_by(|a, b| natural_cmp(&a.0, &b.0));
    items.into_iter().map(|i| i.1).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expansion() {
        let e = |t: &str| expand(t).unwrap().join(" ");
        assert_eq!(e("web[0-2,5]"), "web0 web1 web2 web5");
        assert_eq!(e("a,b[1-2],c"), "a b1 b2 c");
        assert_eq!(e("a[08-11]"), "a08 a09 a10 a11");
        assert_eq!(e("r[0-1]p[0-1]x"), "r0p0x r0p1x r1p0x r1p1x");
        assert_eq!(e("[0]"), "0");
        assert_eq!(e("all"), "all");
        assert_eq!(e("a[3-1]"), "");
        assert_eq!(e("a,a"), "a a");
    }

    #[test]
    fn refusals() {
        assert_eq!(expand("a[1-3").unwrap_err().to_string(), "unterminated '['");
        for text in
            ["", ",", "a,", "a]", "a[[1]]", "a[]", "a[x]", "a[1-]", "a[-1]", "a[1-2-3]", "a[99999999999999999999]"]
        {
            assert!(expand(text).is_err(), "{text}");
        }
        assert_eq!(expand("a[0-18446744073709551615]"), Err(RangeError::TooMany));
        assert_eq!(expand("a[0-99999]").unwrap().len(), MAX_NAMES);
        assert_eq!(expand("a[0-100000]"), Err(RangeError::TooMany));
        assert_eq!(expand("a[0-999]b[0-999]"), Err(RangeError::TooMany));
        assert_eq!(expand(&format!("{}[0-99999]", "x".repeat(5000))), Err(RangeError::TooMany));
        assert_eq!(expand("a[18446744073709551615]").unwrap(), ["a18446744073709551615"]);
    }

    #[test]
    fn compression() {
        assert_eq!(compress(&["web0", "web1", "web2", "fw"]), "fw,web[0-2]");
        assert_eq!(compress(&["node6", "node0", "node1", "node2", "node3", "node4"]), "node[0-4,6]");
        assert_eq!(compress(&["a08", "a09", "a10", "a11"]), "a[08-11]");
        assert_eq!(compress(&["a1", "a01", "a001"]), "a[1,01,001]");
        assert_eq!(compress(&["a", "a"]), "a");
        assert_eq!(compress(&["a1"]), "a1");
        assert_eq!(compress(&["a10", "a2", "b"]), "a[2,10],b");
        assert_eq!(compress::<&str>(&[]), "");
    }

    #[test]
    fn natural_order() {
        let mut names = ["web10", "web2", "web", "fw", "web02", "9", "web-1"];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(names, ["9", "fw", "web", "web2", "web02", "web10", "web-1"]);
    }

    proptest! {
        #[test]
        fn compressed_names_come_back(names in proptest::collection::vec("(a|b|web|x-y|)(0{0,2}[0-9]{1,3}|[a-c])", 1..40)) {
            let mut wanted: Vec<String> = names.clone();
            wanted.sort();
            wanted.dedup();
            let text = compress(&names);
            let mut found = expand(&text).unwrap();
            found.sort();
            prop_assert_eq!(found, wanted, "{}", text);
            let mut reversed = names;
            reversed.reverse();
            prop_assert_eq!(compress(&reversed), text);
        }

        #[test]
        fn any_text_expands_or_fails(text in "(?s)[a0-3\\[\\],\\-é]{0,20}") {
            let _ = expand(&text);
        }

        #[test]
        fn natural_order_is_total(a in "[a0-2é-]{0,5}", b in "[a0-2é-]{0,5}", c in "[a0-2é-]{0,5}") {
            let cmp = |x: &String, y: &String| natural_cmp(x, y);
            prop_assert_eq!(cmp(&a, &b), by_runs(&a, &b));
            prop_assert_eq!(cmp(&a, &b), cmp(&b, &a).reverse());
            if cmp(&a, &b).is_le() && cmp(&b, &c).is_le() {
                prop_assert!(cmp(&a, &c).is_le());
            }
        }
    }
}
