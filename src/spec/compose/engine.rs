//! Evaluating one expression or template: compiled once, bounded, and every error at its place in the file.
//!
//! Must not know what an experiment is, nor which names are in scope.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::functions;
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::suggest::Suggester;
use crate::spec::syntax::MAX_DEPTH;
use crate::spec::{Files, shown};

/// How many steps one expression may take; making 64 bytes of text is a step too.
pub const MAX_FUEL: u64 = 200_000;

/// How many steps all expressions of an experiment may take together.
pub const MAX_TOTAL_FUEL: u64 = 200_000_000;

/// How much text all expressions of an experiment may make together, in bytes: as much as a file may have.
pub const MAX_MADE: u64 = 64 << 20;

/// How many parts the value of one expression may have: elements, entries, and all inside them.
pub const MAX_PARTS: u64 = 200_000;

/// The longest expression or template, in bytes.
pub const MAX_TEMPLATE: usize = 64 << 10;

/// How many words and signs may stand in one expression, those behind a comma at the same depth counted anew. It bounds the
/// depth of the tree that the parser makes of them, and so its stack: `not not …` and `1 + 1 + …` nest without brackets.
pub const MAX_WORDS: usize = 500;

/// What stands before an expression that is alone in its scalar, so that its value is kept and not made text.
const SET: &str = "{% set __value = ";

/// Does a text hold an expression?
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// A compiled scalar.
#[derive(Debug)]
pub struct Compiled {
    /// The name under which the environment keeps it, which is its source.
    name: String,
    /// It is one expression, whose value is kept.
    pub lone: bool,
    /// How many bytes `name` has before the user's text begins, and where in the user's text that is.
    before: usize,
    at: usize,
    /// The names that it refers to, each as its path: `var.web.size` is `[var, web, size]`.
    pub refs: Vec<Vec<String>>,
}

/// Why a scalar has no value, with the bytes of its text that are at fault.
#[derive(Debug)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    pub hint: Option<String>,
    pub range: Option<std::ops::Range<usize>>,
}

/// What became of a text, for all that hold the same.
type Tried = Rc<Result<Compiled, Failure>>;

/// The environment of all expressions, with what was compiled already.
pub struct Engine {
    env: Environment<'static>,
    cache: RefCell<HashMap<Arc<str>, Tried>>,
    /// What each expression of a text gave, while that is to be known.
    pieces: Arc<Mutex<Option<Vec<String>>>>,
    /// The folder of the file whose expression is evaluated, from which `file` and others go out.
    folder: Arc<Mutex<String>>,
    used: Cell<u64>,
    /// How much text was made, in bytes.
    made: Cell<u64>,
    names: Vec<String>,
}

impl Engine {
    pub fn new(files: Arc<dyn Files>) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_debug(true);
        env.set_fuel(Some(MAX_FUEL));
        env.set_recursion_limit(100);
        env.set_loader(|name| Ok(Some(name.to_owned())));
        // What would depend on the engine's own insides.
        env.remove_global("debug");
        // Of use only with assignments, which there are none of.
        env.remove_global("namespace");
        let folder = Arc::new(Mutex::new(String::new()));
        functions::add(&mut env, &files, &folder);
        let pieces = Arc::new(Mutex::new(None::<Vec<String>>));
        let watched = pieces.clone();
        env.set_formatter(move |output, state, value| {
            if let Some(pieces) = watched.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                pieces.push(value.to_string());
            }
            minijinja::escape_formatter(output, state, value)
        });
        let names = env.globals().map(|(name, _)| name.to_owned()).collect();
        Self { env, cache: RefCell::default(), pieces, folder, used: Cell::new(0), made: Cell::new(0), names }
    }

    /// What the expressions have used up of what they may use together.
    pub fn exhausted(&self) -> Option<String> {
        if self.used.get() >= MAX_TOTAL_FUEL {
            return Some(format!("the expressions take more than {MAX_TOTAL_FUEL} steps together"));
        }
        let limit = MAX_MADE >> 20;
        (self.made.get() > MAX_MADE).then(|| format!("the expressions make more than {limit} MiB of text together"))
    }

    /// The names of the functions.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Compile a text, once.
    pub fn compile(&self, text: &Arc<str>) -> Tried {
        if let Some(known) = self.cache.borrow().get(text) {
            return known.clone();
        }
        let compiled = Rc::new(self.compile_new(text));
        self.cache.borrow_mut().insert(text.clone(), compiled.clone());
        compiled
    }

    fn compile_new(&self, text: &str) -> Result<Compiled, Failure> {
        if text.len() > MAX_TEMPLATE {
            let message = format!("the text with an expression has {} bytes, the limit is {MAX_TEMPLATE}", text.len());
            return Err(Failure { code: "template-limit", message, hint: None, range: None });
        }
        if let Some(range) = too_many_words(text) {
            let message = format!("the expression has more than {MAX_WORDS} words and signs in a row without a comma");
            let hint = Some("give parts of it names in `locals`".to_owned());
            return Err(Failure { code: "template-limit", message, hint, range: Some(range) });
        }
        if let Some((range, word)) = assignment(text) {
            let message = format!("not a valid expression: there is no statement `{word}` here");
            let hint = Some("give the value a name in `locals`".to_owned());
            return Err(Failure { code: "template-syntax", message, hint, range: Some(range) });
        }
        let mut first = None;
        if let Some((inner, at)) = lone(text) {
            let name = format!("{SET}{inner} %}}");
            match self.env.get_template(&name) {
                Ok(template) => {
                    let refs = refs(template.undeclared_variables(true), inner);
                    return Ok(Compiled { name, lone: true, before: SET.len(), at, refs });
                }
                Err(error) if !inner.contains("}}") => {
                    first = Some(self.explain(&error, SET.len(), at));
                }
                Err(_) => {}
            }
        }
        match self.env.get_template(text) {
            Ok(template) => {
                let refs = refs(template.undeclared_variables(true), text);
                Ok(Compiled { name: text.to_owned(), lone: false, before: 0, at: 0, refs })
            }
            Err(error) => Err(first.unwrap_or_else(|| self.explain(&error, 0, 0))),
        }
    }

    /// The value of a compiled text: an expression's own, or the text that a template makes. None where the expression is
    /// undefined.
    pub fn eval(&self, compiled: &Compiled, context: Value, folder: &str) -> Result<Option<Value>, Failure> {
        {
            let mut current = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
            if *current != folder {
                folder.clone_into(&mut current);
            }
        }
        let failed = |error: Error| {
            let failure = self.explain(&error, compiled.before, compiled.at);
            self.used.set(self.used.get().saturating_add(if failure.code == "template-limit" {
                MAX_FUEL
            } else {
                1_000
            }));
            failure
        };
        let template = self.env.get_template(&compiled.name).map_err(failed)?;
        let captured = template.render_captured(context).map_err(failed)?;
        let fuel = captured.state().fuel_levels().map_or(0, |(used, _)| used);
        self.used.set(self.used.get().saturating_add(fuel));
        if !compiled.lone {
            let output = captured.into_output();
            self.make(output.len());
            return Ok(Some(Value::from(output)));
        }
        let value = captured.state().lookup("__value").unwrap_or_default();
        if value.is_undefined() {
            return Ok(None);
        }
        let mut parts = 0;
        let value = materialised(&value, 0, &mut parts).map_err(|error| match error {
            Some(error) => failed(error),
            None => {
                self.used.set(self.used.get().saturating_add(MAX_FUEL));
                let message = format!("the value has more than {MAX_PARTS} parts, or nests too deep");
                let hint = Some("make a shorter list; lists of entries are made by `for_each`".to_owned());
                Failure { code: "template-limit", message, hint, range: None }
            }
        })?;
        self.used.set(self.used.get().saturating_add(parts));
        self.make(text_length(&value));
        Ok(Some(value))
    }

    /// What the expressions of a text that was computed gave, in order, each with its own text where the two can be told to
    /// belong together.
    pub fn pieces(&self, compiled: &Compiled, context: Value) -> Vec<(Option<Arc<str>>, String)> {
        let recorder = || self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        *recorder() = Some(Vec::new());
        // It was computed before, so that there is nothing new to say of an error.
        let _ = self.env.get_template(&compiled.name).and_then(|template| template.render(context));
        let pieces = recorder().take().unwrap_or_default();
        let own = expressions(&compiled.name).filter(|own| own.len() == pieces.len()).unwrap_or_default();
        let own = own.into_iter().map(Some).chain(std::iter::repeat(None));
        own.zip(pieces).collect()
    }

    fn make(&self, bytes: usize) {
        self.made.set(self.made.get().saturating_add(bytes as u64));
    }

    fn explain(&self, error: &Error, before: usize, at: usize) -> Failure {
        let range = error
            .range()
            .filter(|r| r.start >= before && r.end >= r.start)
            .map(|r| r.start - before + at..r.end - before + at);
        let detail = error.detail().unwrap_or_default().trim().to_owned();
        let word = error
            .range()
            .zip(error.template_source())
            .and_then(|(range, source)| source.get(range))
            .map(|text| text.trim().trim_start_matches('|').trim())
            .map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned())
            .filter(|word| !word.is_empty());
        let mut hint = None;
        let (code, message) = match error.kind() {
            ErrorKind::OutOfFuel => {
                hint = Some("make the loop shorter; lists of entries are made by `for_each`".to_owned());
                ("template-limit", format!("the expression takes more than {MAX_FUEL} steps"))
            }
            ErrorKind::SyntaxError | ErrorKind::BadEscape => {
                hint = Some("an expression stands between `{{` and `}}`; docs/experiment.md describes it".to_owned());
                ("template-syntax", format!("not a valid expression: {detail}"))
            }
            ErrorKind::UnknownFunction | ErrorKind::UnknownFilter | ErrorKind::UnknownTest => {
                let what = match error.kind() {
                    ErrorKind::UnknownFunction => "function",
                    ErrorKind::UnknownFilter => "filter",
                    _ => "test",
                };
                let name =
                    detail.split_whitespace().find(|w| !matches!(*w, "function" | "filter" | "test" | "unknown"));
                let name = word.as_deref().or(name).unwrap_or_default().to_owned();
                let known = functions::FILTERS.iter().copied().chain(self.names.iter().map(String::as_str));
                hint = Some(match Suggester::default().nearest(&name, known) {
                    _ if what == "filter" && self.names.contains(&name) => {
                        format!("`{name}` is a function: write `{name}(…)`")
                    }
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "docs/experiment.md lists the functions".to_owned(),
                });
                ("unknown-function", format!("there is no {what} `{}`", shown(&name)))
            }
            ErrorKind::UndefinedError => ("undefined-name", "a value is undefined".to_owned()),
            kind => {
                let message = if detail.is_empty() { kind.to_string() } else { detail };
                hint = word.as_deref().and_then(functions::usage);
                ("expression", format!("the expression has no value: {message}"))
            }
        };
        Failure { code, message, hint, range }
    }
}

/// A statement that binds a name. Without those, the work that a text asks for is bounded by its length: names that stand
/// for lists of each other would double it with every line.
fn assignment(text: &str) -> Option<(std::ops::Range<usize>, &str)> {
    text.match_indices("{%").find_map(|(at, _)| {
        let rest = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        let word = rest.split(|c: char| !c.is_ascii_alphanumeric()).next()?;
        let start = rest.as_ptr() as usize - text.as_ptr() as usize;
        matches!(word, "set" | "with" | "autoescape" | "filter").then_some((start..start + word.len(), word))
    })
}

/// Where an expression of the text goes over [`MAX_WORDS`]. What stands in quotes is one word, and a statement nests in
/// those before it of its text, so that the words of all statements count together.
fn too_many_words(text: &str) -> Option<std::ops::Range<usize>> {
    let bytes = text.as_bytes();
    let (mut at, mut statements) = (0, 0);
    while let Some(open) = text.get(at..).and_then(|rest| rest.find("{{").into_iter().chain(rest.find("{%")).min()) {
        let start = at + open;
        let statement = bytes[start + 1] == b'%';
        at = start + 2;
        // The words in each bracket that is open, and in all of them.
        let (mut levels, mut all) = (vec![0_usize], 0_usize);
        while let Some(&byte) = bytes.get(at) {
            let end = if statement { b"%}" } else { b"}}" };
            let length = match byte {
                _ if levels.len() == 1 && bytes[at..].starts_with(end) => break,
                b if b.is_ascii_whitespace() => {
                    at += 1;
                    continue;
                }
                b',' => {
                    let level = levels.last_mut().expect("the outermost level stays");
                    all -= std::mem::take(level);
                    at += 1;
                    continue;
                }
                b'"' | b'\'' => quoted(&bytes[at..]),
                b if word_byte(b) => bytes[at..].iter().take_while(|b| word_byte(**b)).count(),
                _ => 1,
            };
            match byte {
                b'(' | b'[' | b'{' => levels.push(0),
                b')' | b']' | b'}' if levels.len() > 1 => all -= levels.pop().expect("it is not the outermost"),
                _ => {}
            }
            *levels.last_mut().expect("the outermost level stays") += 1;
            all += 1;
            if all + statements > MAX_WORDS {
                return Some(at..at + length);
            }
            at += length;
        }
        if statement {
            statements += 1;
        }
        at = (at + 2).min(text.len());
    }
    None
}

/// The expressions of a text, each with its braces; None where statements decide which of them are computed.
fn expressions(text: &str) -> Option<Vec<Arc<str>>> {
    if text.contains("{%") || text.contains("{#") {
        return None;
    }
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(open) = text[at..].find("{{") {
        let start = at + open;
        let mut end = start + 2;
        while !text.as_bytes()[end..].starts_with(b"}}") {
            end += match text.as_bytes().get(end)? {
                b'"' | b'\'' => quoted(&text.as_bytes()[end..]),
                _ => 1,
            };
        }
        at = end + 2;
        found.push(Arc::from(text.get(start..at)?));
    }
    Some(found)
}

fn word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// How long the quoted text is that begins here.
fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != bytes[0] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// A value whose lists and maps are there and not computed again each time that they are looked at. None as the error if it
/// is too large.
fn materialised(value: &Value, depth: usize, parts: &mut u64) -> Result<Value, Option<Error>> {
    *parts += 1;
    if *parts > MAX_PARTS || depth > MAX_DEPTH {
        return Err(None);
    }
    Ok(match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                items.push(materialised(&item?, depth + 1, parts)?);
            }
            Value::from(items)
        }
        ValueKind::Map => {
            let mut entries = std::collections::BTreeMap::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                let item = materialised(&value.get_item(&key)?, depth + 1, parts)?;
                entries.insert(key, item);
            }
            Value::from(entries)
        }
        _ => value.clone(),
    })
}

/// How many bytes the texts of a materialised value have.
fn text_length(value: &Value) -> usize {
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len),
        ValueKind::Seq => items().map(|item| text_length(&item)).sum(),
        ValueKind::Map => {
            items().map(|key| text_length(&key) + value.get_item(&key).map_or(0, |item| text_length(&item))).sum()
        }
        _ => 0,
    }
}

/// The expression that is alone in a text, and where it begins.
fn lone(text: &str) -> Option<(&str, usize)> {
    let trimmed = text.trim();
    let inner = trimmed.strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    (!inner.trim().is_empty()).then(|| (inner, inner.as_ptr() as usize - text.as_ptr() as usize))
}

/// Paths in the order in which they stand in the text.
fn refs(names: impl IntoIterator<Item = String>, text: &str) -> Vec<Vec<String>> {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort_by(|a, b| text.find(a.as_str()).cmp(&text.find(b.as_str())).then_with(|| a.cmp(b)));
    names.iter().map(|name| name.split('.').map(str::to_owned).collect()).collect()
}

/// The place of a failure: the bytes of the expression where the text stands in the file as it is, otherwise the scalar.
pub fn place(span: Span, written: &str, text: &str, range: Option<std::ops::Range<usize>>) -> Span {
    let (Some(range), Some(at)) = (range, written.find(text)) else { return span };
    let (start, end) = (range.start.min(text.len()), range.end.min(text.len()));
    if start >= end || !text.is_char_boundary(start) || !text.is_char_boundary(end) {
        return span;
    }
    Span { start: span.start + at + start, end: span.start + at + end, ..span }
}

/// What is missing of the names that a text refers to: the failure to report, if one of them is.
pub fn missing(engine: &Engine, compiled: &Compiled, context: &Value, text: &str) -> Option<Failure> {
    for path in &compiled.refs {
        let mut value = match context.get_attr(&path[0]) {
            Ok(value) if !value.is_undefined() => value,
            _ if engine.names.contains(&path[0]) => continue,
            _ => return Some(root_missing(engine, path, context, text)),
        };
        for (index, step) in path.iter().enumerate().skip(1) {
            if value.kind() != ValueKind::Map {
                break;
            }
            match value.get_attr(step) {
                Ok(next) if !next.is_undefined() => value = next,
                _ => return Some(step_missing(path, index, &value, text)),
            }
        }
    }
    None
}

fn found(text: &str, path: &str) -> Option<std::ops::Range<usize>> {
    text.find(path).map(|at| at..at + path.len())
}

fn root_missing(engine: &Engine, path: &[String], context: &Value, text: &str) -> Failure {
    let name = &path[0];
    let mut known = keys(context);
    known.extend(engine.names.iter().cloned());
    let (message, hint) = match name.as_str() {
        "each" => ("`each` is known only in an entry with `for_each`".to_owned(), "add `for_each`".to_owned()),
        "count" => ("`count` is known only in an entry with `count`".to_owned(), "add `count`".to_owned()),
        _ => (
            format!("there is no name `{}`", shown(name)),
            match (declared(context, name), Suggester::default().nearest(name, known.iter().map(String::as_str))) {
                (Some(root), _) => format!("write `{root}.{name}`"),
                _ if functions::FILTERS.contains(&name.as_str()) => format!("`{name}` is a filter: write `… | {name}`"),
                (None, Some(known)) => format!("did you mean `{known}`?"),
                (None, None) => {
                    "names begin with var, local, each, count, module or experiment; quote text: 'text'".to_owned()
                }
            },
        ),
    };
    Failure { code: "undefined-name", message, hint: Some(hint), range: found(text, name) }
}

/// Under which root a name is known that was written without one.
fn declared(context: &Value, name: &str) -> Option<&'static str> {
    ["var", "local", "module", "each", "count"].into_iter().find(|root| {
        let under = context.get_attr(root).unwrap_or_default();
        under.kind() == ValueKind::Map && under.get_attr(name).is_ok_and(|value| !value.is_undefined())
    })
}

fn step_missing(path: &[String], index: usize, value: &Value, text: &str) -> Failure {
    let step = shown(&path[index]);
    let message = match (path[0].as_str(), index) {
        ("var", 1) => format!("there is no variable `{step}`"),
        ("local", 1) => format!("there is no local `{step}`"),
        ("module", 1) => format!("there is no included file called `{step}`"),
        ("module", 2) => format!("the included file `{}` has no output `{step}`", shown(&path[1])),
        _ => format!("`{}` has no `{step}`", shown(&path[..index].join("."))),
    };
    let known = keys(value);
    let hint = match Suggester::default().nearest(&path[index], known.iter().map(String::as_str)) {
        Some(known) => format!("did you mean `{known}`?"),
        None => match (path[0].as_str(), index) {
            ("var", 1) => "declare it in `variables`".to_owned(),
            ("local", 1) => "define it in `locals`".to_owned(),
            ("module", 1) => "the name is that of `as`, else of `prefix`, else the file's".to_owned(),
            _ if known.is_empty() => "it is empty".to_owned(),
            _ => format!("it has {}", shown(&known.join(", "))),
        },
    };
    Failure { code: "undefined-name", message, hint: Some(hint), range: found(text, &path[..=index].join(".")) }
}

/// The keys of a map, as text.
pub fn keys(value: &Value) -> Vec<String> {
    value.try_iter().map(|keys| keys.filter_map(|key| key.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

impl Failure {
    /// The diagnostic at its place.
    pub fn diagnostic(&self, span: Span, written: &str, text: &str) -> Diagnostic {
        let place = place(span, written, text, self.range.clone());
        let diagnostic = Diagnostic::error(self.code, place, self.message.clone());
        match &self.hint {
            Some(hint) => diagnostic.hint(hint.clone()),
            None => diagnostic,
        }
    }
}
