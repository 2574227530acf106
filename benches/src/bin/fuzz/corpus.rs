//! Where inputs come from: recorded lines, patterns and experiment files, and what chance makes of them.

use serde_json::Value;

/// Numbers that look random and are the same for the same seed and input (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The numbers of one input.
    pub fn new(seed: u64, input: u64) -> Self {
        let mut random = Self(seed ^ input.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    /// One element.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// What an input begins as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A command line.
    Line,
    /// A word of a command line.
    Word,
    /// Bytes as a client sends them.
    Request,
    /// An experiment file.
    Experiment,
}

/// Valid inputs to begin with.
pub struct Corpus {
    lines: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    requests: Vec<Vec<u8>>,
    experiments: Vec<Vec<u8>>,
    tokens: Vec<Vec<u8>>,
}

const RECORDINGS: [&str; 2] = [
    include_str!("../../../../tests/data/exchanges.jsonl"),
    include_str!("../../../../tests/data/exchanges-mesh.jsonl"),
];

const PATTERNS: &str = include_str!("../../../../tests/data/minimega-3.1.0-patterns.txt");

const EXPERIMENTS: [&str; 3] = [
    include_str!("../../../../examples/quickstart.yaml"),
    "experiment: x\nvlans: {a: {tag: 5}, b: {}}\nprofiles:\n  p: &p {type: kvm, memory: 1GB}\nvms:\n  web[0-3]:\n    \
     profile: p\n    networks: [a, {vlan: b, mac: \"52:54:00:00:00:01\", qinq: true}]\n    tags: {k: v}\n",
    "experiment = \"x\"\n[vlans]\na = { tag = 5 }\n[profiles.p]\ntype = \"kvm\"\nmemory = 128\n[vms.\"web[0-2]\"]\nprofile \
     = \"p\"\nnetworks = [\"a\", { vlan = \"a\" }]\n[[vms.db.disks]]\npath = \"x.qcow2\"\n",
];

/// Pieces that mean something somewhere.
const PIECES: &[&str] = &[
    " ",
    "\t",
    "\n",
    "\"",
    "'",
    "\\",
    "\\n",
    "#",
    "$",
    "${",
    "}",
    ",",
    "[",
    "]",
    "[0-",
    "-",
    "..",
    "0",
    "1",
    "99999999999999999999",
    "18446744073709551615",
    "-1",
    "{",
    ":",
    "null",
    "true",
    "false",
    "all",
    "vm",
    "namespace",
    ".columns",
    ".csv true ",
    ".c ",
    "\0",
    "\u{e9}",
    "\u{1f600}",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\u{301}",
    "\\u0000",
    "\\ud800",
    "<",
    ">",
    "&",
    "*",
    "&a",
    "<<: *a",
    "!!",
    "|",
    ">",
    "---",
    "- ",
    "? ",
    "00:11:22:33:44:55",
    "ff:ff:ff:ff:ff:ff",
    "qinq",
    "e1000",
    "virtio",
    "writeback",
    "file:",
    "=",
    "!~",
    "%",
];

impl Corpus {
    /// Everything recorded.
    pub fn new() -> Self {
        let mut corpus = Self {
            lines: Vec::new(),
            words: Vec::new(),
            requests: Vec::new(),
            experiments: EXPERIMENTS.iter().map(|e| e.as_bytes().to_vec()).collect(),
            tokens: PIECES.iter().map(|p| p.as_bytes().to_vec()).collect(),
        };
        for row in RECORDINGS.iter().flat_map(|r| r.lines()) {
            let row: Value = serde_json::from_str(row).expect("the recording is JSON");
            let request = row["request"].as_str().unwrap_or_default();
            corpus.requests.push(request.as_bytes().to_vec());
            if let Ok(request) = serde_json::from_str::<Value>(request)
                && let Some(line) = request["Command"].as_str().or(request["Suggest"].as_str())
            {
                corpus.lines.push(line.as_bytes().to_vec());
                corpus.words.extend(line.split_whitespace().map(|w| w.as_bytes().to_vec()));
            }
        }
        for pattern in PATTERNS.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let bare: String =
                pattern.chars().filter(|c| !"<>[]()".contains(*c)).map(|c| if c == ',' { ' ' } else { c }).collect();
            corpus.lines.push(bare.into_bytes());
        }
        let more = [
            "LAN",
            "mega,LAN,00:11:22:33:44:55,e1000,qinq",
            "a.img,ide,none",
            "web[0-2,5],fw",
            "a[08-11]b[1,2]",
            "name~x",
            "1GB",
        ];
        corpus.words.extend(more.iter().map(|w| w.as_bytes().to_vec()));
        corpus
    }

    /// One input: valid, changed in a few places, joined from two, grown by repetition, or random bytes.
    pub fn input(&self, random: &mut Random, kind: Kind) -> Vec<u8> {
        let list = match kind {
            Kind::Line => &self.lines,
            Kind::Word => &self.words,
            Kind::Request => &self.requests,
            Kind::Experiment => &self.experiments,
        };
        if random.below(20) == 0 {
            return (0..random.below(200)).map(|_| random.next().to_le_bytes()[0]).collect();
        }
        let mut input = random.pick(list).clone();
        if random.below(8) == 0 {
            let at = random.below(input.len() + 1);
            let other = random.pick(list);
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        for _ in 0..random.below(6) {
            self.change(random, &mut input);
        }
        // Long inputs are dear, so they are rare.
        let largest = match kind {
            Kind::Line | Kind::Request => 80 << 10,
            Kind::Word => 8 << 10,
            Kind::Experiment => 16 << 10,
        };
        if random.below(2000) == 0 && !input.is_empty() {
            let (low, high) = (random.below(input.len()), random.below(input.len()));
            let piece = if random.below(2) == 0 {
                random.pick(&self.tokens).clone()
            } else {
                input[low.min(high)..=low.max(high)].to_vec()
            };
            let at = random.below(input.len() + 1);
            let count = random.below(largest) / piece.len().max(1);
            input.splice(at..at, piece.repeat(count));
        }
        input
    }

    fn change(&self, random: &mut Random, input: &mut Vec<u8>) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 if at < input.len() => {
                input.remove(at);
            }
            3 => input.truncate(at),
            4 => {
                let end = (at + random.below(12)).min(input.len());
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece.repeat(1 + random.below(4)));
            }
            5 => {
                let word = random.pick(&self.words).clone();
                input.splice(at..at, word);
            }
            6 => {
                let end = (at + random.below(20)).min(input.len());
                input.drain(at..end);
            }
            _ => {
                let piece = random.pick(&self.tokens).clone();
                input.splice(at..at, piece);
            }
        }
    }
}
