//! What is tried with each input, and what must hold then.

use megaform::commands;
use megaform::language::complete::Candidates;
use megaform::language::declaration::{Completion, Declaration};
use megaform::language::diskspec::DiskSpec;
use megaform::language::entry::Entry;
use megaform::language::field::FIELDS;
use megaform::language::netspec::NetSpec;
use megaform::language::{CompileError, Grammar, OutputMode, output, quote, range, token};
use megaform::spec::{self, Format, NoFiles};
use megaform::wire::codec::{RequestDecoder, encode_request, encode_response};
use megaform::wire::{Request, Response};

use crate::corpus::{Kind, Random};

/// Ok(true) if the input was accepted, an error if an invariant broke.
type Outcome = Result<bool, String>;

/// Something that reads inputs.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What its inputs begin as.
    pub kind: Kind,
    /// Of a hundred inputs, those before this one that no earlier target takes.
    pub until: u64,
    /// Try one.
    pub run: fn(&Context, &[u8], &mut Random) -> Outcome,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "token", kind: Kind::Line, until: 15, run: tokens },
    Target { name: "grammar", kind: Kind::Line, until: 45, run: grammar },
    Target { name: "suggest", kind: Kind::Line, until: 60, run: suggest },
    Target { name: "words", kind: Kind::Word, until: 75, run: words },
    Target { name: "output", kind: Kind::Word, until: 83, run: rendering },
    Target { name: "codec", kind: Kind::Request, until: 97, run: codec },
    Target { name: "spec", kind: Kind::Experiment, until: 100, run: experiment },
];

/// What all inputs share.
pub struct Context {
    /// Minimega's whole grammar, and the engine's own.
    grammars: [Grammar; 2],
}

impl Context {
    /// Both grammars.
    pub fn new() -> Self {
        let patterns = include_str!("../../../../tests/data/minimega-3.1.0-patterns.txt");
        let declarations: Vec<Declaration> = patterns
            .split("\n\n")
            .enumerate()
            .map(|(index, block)| Declaration {
                patterns: block
                    .lines()
                    .filter(|l| !l.is_empty() && !l.starts_with('#'))
                    .map(|l| l.to_owned().into())
                    .collect(),
                ..Declaration::new(format!("{index}"), &[], "", "")
            })
            .filter(|d| !d.patterns.is_empty())
            .collect();
        let all = Grammar::new(&declarations).expect("minimega's patterns parse");
        Self { grammars: [all, commands::grammar(&commands::all())] }
    }
}

fn hold(condition: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(text()) }
}

fn tokens(_: &Context, input: &[u8], _: &mut Random) -> Outcome {
    let line = String::from_utf8_lossy(input);
    let quoted = quote(&line);
    if let Ok(quoted) = &quoted {
        let words = token::tokenize(quoted).map_err(|e| format!("{quoted:?} is quoted, but: {e}"))?;
        hold(words.len() == 1 && words[0].text == *line, || format!("{quoted:?} is {words:?}"))?;
    }
    match token::tokenize(&line) {
        Err(error) => {
            hold(line.get(error.at()..).is_some(), || format!("{error:?} is outside"))?;
            Ok(false)
        }
        Ok(words) => {
            let mut end = 0;
            for word in &words {
                hold(word.span.start >= end && line.get(word.span.clone()).is_some(), || {
                    format!("{word:?} is outside")
                })?;
                end = word.span.end;
            }
            if let Ok(joined) = token::join(&words.iter().map(|w| &*w.text).collect::<Vec<_>>()) {
                let again = token::tokenize(&joined).map_err(|e| format!("{joined:?}: {e}"))?;
                hold(again.iter().map(|w| &w.text).eq(words.iter().map(|w| &w.text)), || {
                    format!("{joined:?} differs")
                })?;
            }
            Ok(true)
        }
    }
}

fn grammar(context: &Context, input: &[u8], _: &mut Random) -> Outcome {
    let line = String::from_utf8_lossy(input);
    let mut accepted = false;
    for grammar in &context.grammars {
        match grammar.compile(&line) {
            Ok(None) => {}
            Ok(Some(compiled)) => {
                accepted = true;
                // The words, quoted, are the same command with the same arguments.
                let words = token::tokenize(&line).map_err(|e| format!("it compiled, but: {e}"))?;
                if let Ok(joined) = token::join(&words.iter().map(|w| &*w.text).collect::<Vec<_>>()) {
                    match grammar.compile(&joined) {
                        Ok(Some(again)) => hold(
                            (again.command, again.pattern, &again.args)
                                == (compiled.command, compiled.pattern, &compiled.args),
                            || format!("{joined:?} is another command"),
                        )?,
                        // Quotes may take a line beyond the limit.
                        Err(CompileError::TooLong { .. }) => {}
                        other => return Err(format!("{joined:?} is {other:?}")),
                    }
                }
            }
            Err(CompileError::Invalid(invalid)) => {
                hold(line.get(invalid.span.clone()).is_some(), || format!("{:?} is outside", invalid.span))?;
                hold(!invalid.advice().is_empty() && !invalid.expected.is_empty(), || "no advice".to_owned())?;
                if let Some(similar) = &invalid.similar {
                    hold(invalid.expected.contains(similar), || format!("{similar} is not expected"))?;
                }
            }
            Err(error) => hold(!error.to_string().is_empty(), || "no text".to_owned())?,
        }
    }
    Ok(accepted)
}

/// Names with everything that names may have.
struct Names;

impl Candidates for Names {
    fn names(&self, _: Completion, prefix: &str) -> Vec<String> {
        let names = ["all", "web0", "a b", "/srv/", "a\"b", "c$D", "\u{e9}"];
        names.iter().filter(|n| n.starts_with(prefix)).map(|n| (*n).to_owned()).collect()
    }

    fn variables(&self, prefix: &str) -> Vec<String> {
        ["HOME"].iter().filter(|n| n.starts_with(prefix)).map(|n| (*n).to_owned()).collect()
    }
}

fn suggest(context: &Context, input: &[u8], _: &mut Random) -> Outcome {
    let line = String::from_utf8_lossy(input);
    let start = line.rfind([' ', '\t', '\n']).map_or(0, |at| at + 1);
    let mut any = false;
    for grammar in &context.grammars {
        for suggestion in grammar.suggest(&line, &Names) {
            any = true;
            hold(suggestion.starts_with(&line[..start]), || format!("{suggestion:?} does not begin like the line"))?;
            hold(suggestion.ends_with([' ', '/']), || format!("{suggestion:?} does not end"))?;
            // What is offered is a command, or the beginning of one.
            match grammar.compile(&suggestion) {
                Ok(Some(_)) | Err(CompileError::TooLong { .. } | CompileError::TooDeep) => {}
                Err(CompileError::Invalid(invalid)) => {
                    let variable = suggestion[start..].starts_with('$');
                    hold(invalid.found.is_none() || invalid.ambiguous || variable, || {
                        format!("{suggestion:?} is not the beginning of a command: {}", invalid.advice())
                    })?;
                }
                other => return Err(format!("{suggestion:?} is {other:?}")),
            }
        }
    }
    Ok(any)
}

fn words(_: &Context, input: &[u8], random: &mut Random) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let mut accepted = false;
    if let Ok(names) = range::expand(&text) {
        accepted = true;
        hold(names.len() <= range::MAX_NAMES, || format!("{} names", names.len()))?;
        if names.iter().all(|n| !n.is_empty() && !n.contains([',', '[', ']']))
            && !names.is_empty()
            && names.len() < 1000
        {
            let short = range::compress(&names);
            let mut again = range::expand(&short).map_err(|e| format!("{short:?}: {e}"))?;
            let mut names = names;
            names.sort();
            names.dedup();
            again.sort();
            hold(again == names, || format!("{short:?} is {again:?}, not {names:?}"))?;
        }
    }
    if let Ok(spec) = NetSpec::parse(&text) {
        accepted = true;
        let shown = spec.to_string();
        let again = NetSpec::parse(&shown).map_err(|e| format!("{shown:?}: {e}"))?;
        hold(
            (&again.bridge, &again.vlan, again.mac, &again.driver, again.qinq)
                == (&spec.bridge, &spec.vlan, spec.mac, &spec.driver, spec.qinq),
            || format!("{shown:?} is another netspec"),
        )?;
    }
    if let Ok(spec) = DiskSpec::parse(&text) {
        accepted = true;
        let again = DiskSpec::parse(&spec.to_string()).map_err(|e| format!("{spec}: {e}"))?;
        hold(again == spec, || format!("{spec} is another diskspec"))?;
    }
    let field = random.pick(FIELDS);
    let arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
    if let Ok(value) = field.parse(&arguments) {
        // What is sent to set the value is taken, and asks for the same commands again.
        for arguments in field.arguments(&value) {
            let again = field.parse(&arguments).map_err(|e| format!("{arguments:?} of {}: {e}", field.name))?;
            let same = field.arguments(&again).contains(&arguments);
            hold(same, || format!("{} {arguments:?} is another value: {again:?}", field.name))?;
        }
    }
    Ok(accepted)
}

fn rendering(_: &Context, input: &[u8], random: &mut Random) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let cells: Vec<String> = text.split([',', ' ']).map(str::to_owned).collect();
    let width = 1 + random.below(4);
    let header: Vec<String> = (0..width).map(|n| cells.get(n).cloned().unwrap_or_else(|| format!("c{n}"))).collect();
    let rows: Vec<Vec<String>> = cells.chunks(width).take(20).map(<[String]>::to_vec).collect();
    let mut entries: Vec<Entry> = (0..1 + random.below(3))
        .map(|n| Entry {
            host: format!("n{n}"),
            response: text.clone().into_owned(),
            header: Some(header.clone()),
            tabular: (n < 2).then(|| rows.clone()),
            ..Entry::default()
        })
        .collect();
    let before = entries.clone();
    let mut good = true;
    for entry in &mut entries {
        // The input as it is, or what it may be part of.
        let (filter, columns) = match random.below(2) {
            0 => (text.clone().into_owned(), text.clone().into_owned()),
            _ => (format!("{}~{text}", header[0]), header.join(",")),
        };
        good &= output::filter(entry, &filter).is_ok();
        good &= output::select_columns(entry, &columns).is_ok();
    }
    let mut mode = OutputMode::default();
    for builtin in [".csv", ".json", ".headers", ".annotate", ".sort", ".compress"] {
        if random.below(3) == 0 {
            mode.set(builtin, random.below(2) == 0);
        }
    }
    for list in [before, entries] {
        let rendered = output::render(&list, &mode);
        let line = encode_response(&Response { resp: Some(list.clone()), rendered, ..Response::default() });
        hold(line.ends_with('\n') && line.matches('\n').count() == 1, || {
            "a response of more than one line".to_owned()
        })?;
        let again: Response = serde_json::from_str(&line).map_err(|e| format!("the response is no JSON: {e}"))?;
        hold(again.resp.as_ref() == Some(&list), || "the response comes back changed".to_owned())?;
    }
    Ok(good)
}

fn decode(input: &[u8], mut cut: impl FnMut() -> usize) -> (Vec<Request>, Option<String>) {
    let (mut decoder, mut found, mut rest) = (RequestDecoder::new(), Vec::new(), input);
    loop {
        loop {
            match decoder.next_request() {
                Ok(Some(request)) => found.push(request),
                Ok(None) => break,
                Err(error) => return (found, Some(error.to_string())),
            }
        }
        if rest.is_empty() {
            return (found, None);
        }
        let (piece, more) = rest.split_at(cut().clamp(1, rest.len()));
        decoder.feed(piece);
        rest = more;
    }
}

fn codec(_: &Context, input: &[u8], random: &mut Random) -> Outcome {
    let whole = decode(input, || usize::MAX);
    let pieces = decode(input, || 1 + random.below(40));
    hold(whole == pieces, || format!("whole: {whole:?}, in pieces: {pieces:?}"))?;
    for request in &whole.0 {
        let line = encode_request(request);
        let again = decode(line.as_bytes(), || usize::MAX);
        hold(again.0.first() == Some(request) && again.1.is_none(), || format!("{line:?} is {again:?}"))?;
    }
    Ok(!whole.0.is_empty())
}

fn experiment(_: &Context, input: &[u8], random: &mut Random) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let format = if random.below(3) == 0 { Format::Toml } else { Format::Yaml };
    let loaded = spec::parse("fuzz", &text, format, &NoFiles);
    hold(loaded.experiment.is_some() || !loaded.diagnostics.is_empty(), || "no experiment and no reason".to_owned())?;
    Ok(loaded.experiment.is_some())
}
