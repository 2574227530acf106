//! The rules of the source tree that the compiler does not know: which layer may use which, where `unsafe` may stand,
//! how long a file may be.
//!
//! It reads tokens, not text, so that comments and strings do not count. Code that only tests see (`#[cfg(test)]`,
//! `#[test]`) is free to use any layer and to unwrap.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Which modules each module of the crate may use, beside itself. A module may only use modules that stand before it,
/// so the table cannot have a cycle. `main` is the program's own crate.
const EDGES: &[(&str, &[&str])] = &[
    ("name", &[]),
    ("diagnostic", &[]),
    ("language", &["name", "diagnostic"]),
    ("wire", &["name", "diagnostic", "language"]),
    ("spec", &["name", "diagnostic", "language"]),
    ("graph", &["name", "diagnostic", "spec"]),
    ("live", &["name", "diagnostic", "wire", "language"]),
    ("plan", &["name", "diagnostic", "graph", "live", "spec", "language"]),
    ("apply", &["name", "diagnostic", "plan", "live", "wire", "graph", "spec"]),
    ("ovsdb", &[]),
    ("host", &["name", "ovsdb"]),
    ("qmp", &["name"]),
    ("engine", &["name", "diagnostic", "host", "qmp", "language"]),
    ("logging", &[]),
    ("commands", &["name", "diagnostic", "engine", "language", "logging"]),
    ("daemon", &["name", "diagnostic", "commands", "engine", "wire", "language", "host", "logging"]),
    ("generate", &["name", "diagnostic", "language", "spec", "commands"]),
    ("import", &["name", "language", "live", "plan", "spec"]),
    ("cli", &[ANY]),
    ("main", &["cli", "diagnostic"]),
];

/// In the table: every module that stands before.
const ANY: &str = "*";

/// Where `unsafe` may stand, under `src/`.
const UNSAFE: &str = "host/linux";

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

const MAX_LINES: usize = 800;

/// What one file says, each with its line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    /// Top-level modules that are named by a path from the root of the crate; `*` is all at once.
    uses: Vec<(usize, String)>,
    unwraps: Vec<usize>,
    unsafes: Vec<usize>,
    /// Modules that only tests see, declared here, in files of their own.
    test_files: Vec<TestFile>,
}

/// Where a module that only tests see stands.
#[derive(Debug, PartialEq, Eq)]
enum TestFile {
    /// Where its name says.
    Named(String),
    /// Where `#[path = ".."]` says, from the folder of the file that declares it.
    At(String),
}

/// Reads one file.
struct Scanner {
    /// The word that starts a path at the root: `crate`, or the crate's name in a program.
    root: &'static str,
    findings: Findings,
}

impl Scanner {
    /// Read `source`, whose module is `depth` modules below the root.
    fn scan(source: &str, root: &'static str, depth: usize) -> Findings {
        let tokens: TokenStream = source.parse().expect("the compiler accepts the file");
        let mut scanner = Self { root, findings: Findings::default() };
        scanner.stream(tokens, depth);
        scanner.findings
    }

    fn stream(&mut self, tokens: TokenStream, depth: usize) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if punct(&tokens, at, '#') && only_tests_see(tokens.get(at + 1)) {
                at = self.skip_item(&tokens, at + 2, depth);
                continue;
            }
            match &tokens[at] {
                TokenTree::Ident(word) if word == "unsafe" => self.findings.unsafes.push(line(&tokens[at])),
                TokenTree::Ident(word) if word == self.root && path_separator(&tokens, at + 1) => {
                    self.path(&tokens, at + 3);
                }
                TokenTree::Ident(word) if word == "super" && !path_before(&tokens, at) => {
                    let mut levels = 1;
                    while path_separator(&tokens, at + 1 + 3 * (levels - 1))
                        && ident(&tokens, at + 3 * levels).is_some_and(|word| word == "super")
                    {
                        levels += 1;
                    }
                    if levels == depth {
                        self.path(&tokens, at + 3 * levels);
                    }
                }
                TokenTree::Ident(word) if word == "unwrap" && at > 0 && punct(&tokens, at - 1, '.') => {
                    self.findings.unwraps.push(line(&tokens[at]));
                }
                TokenTree::Group(group) => {
                    let module = group.delimiter() == Delimiter::Brace
                        && at >= 2
                        && ident(&tokens, at - 2).is_some_and(|word| word == "mod");
                    self.stream(group.stream(), depth + usize::from(module));
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Note what follows the root and its `::`: a name, a group of paths, or everything.
    fn path(&mut self, tokens: &[TokenTree], at: usize) {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => self.findings.uses.push((line(&tokens[at]), word.to_string())),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for part in inner.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',')) {
                    self.path(part, 0);
                }
            }
            Some(TokenTree::Punct(mark)) if mark.as_char() == '*' => {
                self.findings.uses.push((line(&tokens[at]), ANY.to_owned()));
            }
            _ => {}
        }
    }

    /// The place after the item (or field, or statement) at `at`, which only tests see. `unsafe` counts there too.
    fn skip_item(&mut self, tokens: &[TokenTree], mut at: usize, depth: usize) -> usize {
        const ITEMS: &[&str] =
            &["async", "const", "enum", "fn", "impl", "mod", "static", "struct", "trait", "type", "unsafe", "use"];
        let start = at;
        let mut is_item = false;
        let mut path = None;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) if at > 0 && punct(tokens, at - 1, '#') => {
                    path = path.or_else(|| path_attribute(group.stream()));
                }
                TokenTree::Ident(word) if ITEMS.contains(&word.to_string().as_str()) => {
                    is_item = true;
                    if word == "mod" && punct(tokens, at + 2, ';') {
                        let named = ident(tokens, at + 1).map(|name| TestFile::Named(name.to_string()));
                        self.findings.test_files.extend(path.take().map(TestFile::At).or(named));
                    }
                }
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => break,
                TokenTree::Punct(mark) if mark.as_char() == ';' || (mark.as_char() == ',' && !is_item) => break,
                _ => {}
            }
            at += 1;
        }
        let end = tokens.len().min(at + 1);
        let mut inside = Self { root: self.root, findings: Findings::default() };
        inside.stream(tokens[start.min(end)..end].iter().cloned().collect(), depth);
        self.findings.unsafes.extend(inside.findings.unsafes);
        end
    }
}

fn line(token: &TokenTree) -> usize {
    token.span().start().line
}

fn ident(tokens: &[TokenTree], at: usize) -> Option<&proc_macro2::Ident> {
    match tokens.get(at) {
        Some(TokenTree::Ident(word)) => Some(word),
        _ => None,
    }
}

fn punct(tokens: &[TokenTree], at: usize, mark: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(found)) if found.as_char() == mark)
}

fn path_separator(tokens: &[TokenTree], at: usize) -> bool {
    punct(tokens, at, ':') && punct(tokens, at + 1, ':')
}

/// Whether the word at `at` continues a path of `super`s.
fn path_before(tokens: &[TokenTree], at: usize) -> bool {
    at >= 3 && path_separator(tokens, at - 2) && ident(tokens, at - 3).is_some_and(|word| word == "super")
}

/// Whether what follows `#` is `[test]`, `[cfg(test)]`, `[cfg(all(test, ..))]` or `[tokio::test]`.
fn only_tests_see(attribute: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = attribute else { return false };
    let text: String = group.stream().to_string().chars().filter(|c| !c.is_whitespace()).collect();
    text == "test" || text == "cfg(test)" || text.starts_with("cfg(all(test,") || text.starts_with("tokio::test")
}

/// The file that `path = ".."` names.
fn path_attribute(attribute: TokenStream) -> Option<String> {
    let tokens: Vec<TokenTree> = attribute.into_iter().collect();
    match &tokens[..] {
        [TokenTree::Ident(word), TokenTree::Punct(_), TokenTree::Literal(file)] if word == "path" => {
            Some(file.to_string().trim_matches('"').to_owned())
        }
        _ => None,
    }
}

/// The rules of the table: what `module` uses and may not.
fn leaks(module: &str, findings: &Findings) -> Vec<String> {
    let Some(place) = EDGES.iter().position(|(name, _)| *name == module) else {
        return vec![format!("module `{module}` is not in the table of allowed edges")];
    };
    let allowed = EDGES[place].1;
    findings
        .uses
        .iter()
        .filter(|(_, used)| {
            let before = EDGES[..place].iter().any(|(name, _)| name == used);
            let may = allowed.contains(&used.as_str()) || (allowed.contains(&ANY) && before);
            used != module && !may
        })
        .map(|(line, used)| format!("line {line}: `{module}` may not use `{used}`"))
        .collect()
}

/// A file of the crate.
struct Source {
    /// Its path under `src/`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The names of its modules from the root: `["host", "linux"]` for `host/linux/mod.rs`.
    fn modules(&self) -> Vec<String> {
        modules_at(&self.path)
    }

    /// Whether it belongs to a program, which is a crate of its own.
    fn is_program(&self) -> bool {
        self.path == Path::new("main.rs") || self.path.starts_with("bin")
    }

    fn findings(&self) -> Findings {
        if self.is_program() {
            Scanner::scan(&self.text, "megaform", 0)
        } else {
            Scanner::scan(&self.text, "crate", self.modules().len())
        }
    }
}

/// The names of the modules of a file under `src/`, from the root.
fn modules_at(path: &Path) -> Vec<String> {
    let mut modules: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if modules.last().is_some_and(|last| last == "mod") || modules == ["lib"] {
        modules.pop();
    }
    modules
}

fn rust_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root).unwrap_or_else(|error| panic!("{}: {error}", root.display())) {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let sources: Vec<_> = rust_files(&src)
        .into_iter()
        .map(|file| Source {
            text: fs::read_to_string(&file).expect("a source file is readable text"),
            path: file.strip_prefix(&src).expect("it is under src").to_owned(),
        })
        .collect();
    assert!(sources.len() >= EDGES.len(), "found only {} files under {}", sources.len(), src.display());
    sources
}

/// The module paths of files that only tests see, with everything below them.
fn test_files(sources: &[Source]) -> BTreeSet<Vec<String>> {
    let mut files = BTreeSet::new();
    for source in sources {
        for file in source.findings().test_files {
            files.insert(match file {
                TestFile::Named(name) => [source.modules(), vec![name]].concat(),
                TestFile::At(file) => modules_at(&source.path.with_file_name(file)),
            });
        }
    }
    files
}

/// Apply a rule to every file that is not for tests only, and fail with all that it says.
fn check(rule: impl Fn(&Source, &Findings) -> Vec<String>) {
    let sources = sources();
    let test_files = test_files(&sources);
    let mut complaints = Vec::new();
    for source in &sources {
        let modules = source.modules();
        if (1..=modules.len()).any(|length| test_files.contains(&modules[..length])) {
            continue;
        }
        for complaint in rule(source, &source.findings()) {
            complaints.push(format!("src/{}: {complaint}", source.path.display()));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn no_layer_uses_one_that_it_must_not_know() {
    check(|source, findings| {
        let modules = source.modules();
        match modules.first() {
            _ if source.is_program() => leaks("main", findings),
            Some(module) => leaks(module, findings),
            None => Vec::new(), // lib.rs declares them all
        }
    });
}

#[test]
fn the_table_has_exactly_the_modules_there_are_and_no_cycle() {
    let found: BTreeSet<String> =
        sources().iter().filter(|s| !s.is_program()).filter_map(|s| s.modules().first().cloned()).collect();
    let listed: BTreeSet<String> =
        EDGES.iter().map(|(name, _)| (*name).to_owned()).filter(|name| name != "main").collect();
    assert_eq!(found, listed);
    for (place, (name, uses)) in EDGES.iter().enumerate() {
        for used in uses.iter().filter(|used| **used != ANY) {
            let before = EDGES[..place].iter().any(|(earlier, _)| earlier == used);
            assert!(before, "`{name}` may use `{used}`, which does not stand before it");
        }
    }
}

#[test]
fn unsafe_stands_only_where_the_operating_system_is() {
    // For tests too, so this does not go through `check`.
    for source in sources() {
        if !source.path.starts_with(UNSAFE) && source.path != Path::new(UNSAFE).with_extension("rs") {
            let lines = source.findings().unsafes;
            assert!(lines.is_empty(), "src/{}: unsafe in lines {lines:?}", source.path.display());
        }
    }
}

#[test]
fn nothing_unwraps_outside_tests() {
    check(|_, findings| findings.unwraps.iter().map(|line| format!("line {line}: unwrap")).collect());
}

#[test]
fn every_module_says_what_it_owns() {
    check(|source, _| {
        let opens = source.text.lines().next().is_some_and(|line| line.len() > 4 && line.starts_with("//! "));
        if opens { Vec::new() } else { vec!["does not open with `//!`".to_owned()] }
    });
}

#[test]
fn no_module_has_an_empty_name() {
    check(|source, _| {
        source
            .modules()
            .iter()
            .filter(|name| EMPTY_NAMES.contains(&name.as_str()))
            .map(|name| format!("a module called `{name}` says nothing about what is inside"))
            .collect()
    });
}

#[test]
fn no_file_is_too_long() {
    for folder in ["src", "tests", "testguest/src"] {
        for file in rust_files(&root().join(folder)) {
            let lines = fs::read_to_string(&file).expect("a source file is readable text").lines().count();
            assert!(lines <= MAX_LINES, "{} has {lines} lines, the limit is {MAX_LINES}", file.display());
        }
    }
}

/// Everything that the rules look for, and much that looks like it and is not.
const SAMPLE: &str = r##"//! crate::daemon in a comment
use crate::name::Mac;
use crate::{diagnostic::Span, wire::{self, Client},
    daemon};
use super::engine;
use super::super::not_from_here;
pub(crate) fn f() -> crate::live::State {
    let text = "crate::cli::x().unwrap()";
    let raw = r#"unsafe { crate::cli }"#; // unsafe .unwrap()
    let x = format!("{}", crate::apply::run().unwrap());
    unsafe { super::commands::g(x.unwrap_or_default(), 'u') }
}
mod inner {
    use super::own;
    use super::super::graph;
}
use crate::*;
#[cfg(test)]
use crate::{host, qmp};
#[test]
fn t<A, B>() { crate::cli::y().unwrap() }
#[cfg(test)]
mod scenarios;
#[cfg(test)]
#[path = "s_tests.rs"]
mod elsewhere;
struct S { #[cfg(test)] seen: crate::cli::Seen, kept: crate::plan::Plan }
#[cfg(test)]
mod tests {
    use super::*;
    fn u() { unsafe { crate::cli::z().unwrap() } }
}
fn last() { None.unwrap() }
"##;

#[test]
fn the_scanner_finds_what_is_there_and_nothing_else() {
    let found = Scanner::scan(SAMPLE, "crate", 1);
    let uses: Vec<(usize, &str)> = found.uses.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(
        uses,
        [
            (2, "name"),
            (3, "diagnostic"),
            (3, "wire"),
            (4, "daemon"),
            (5, "engine"),
            (7, "live"),
            (10, "apply"),
            (11, "commands"),
            (15, "graph"),
            (17, "*"),
            (27, "plan"),
        ]
    );
    assert_eq!(found.unwraps, [10, 33]);
    assert_eq!(found.unsafes, [11, 31]);
    assert_eq!(found.test_files, [TestFile::Named("scenarios".to_owned()), TestFile::At("s_tests.rs".to_owned())]);
    // One module deeper, a single `super` stays inside.
    let deeper = Scanner::scan("use super::engine; use super::super::live;", "crate", 2);
    assert_eq!(deeper.uses, [(1, "live".to_owned())]);
    // A program is a crate of its own.
    assert_eq!(Scanner::scan("use megaform::host; use crate::x;", "megaform", 0).uses, [(1, "host".to_owned())]);
}

#[test]
fn the_table_refuses_leaks() {
    let uses = |source: &str| Scanner::scan(source, "crate", 1);
    assert_eq!(leaks("spec", &uses("use crate::{name, spec::model, language};")), [] as [&str; 0]);
    assert_eq!(leaks("plan", &uses("use crate::spec;\nuse crate::engine;")), ["line 2: `plan` may not use `engine`"]);
    assert_eq!(leaks("engine", &uses("use crate::wire;")).len(), 1);
    assert_eq!(leaks("name", &uses("use crate::*;")).len(), 1);
    assert_eq!(leaks("cli", &uses("use crate::{daemon, apply, generate};")), [] as [&str; 0]);
    assert_eq!(leaks("cli", &uses("use crate::nosuch;")).len(), 1);
    assert_eq!(leaks("newcomer", &uses("")), ["module `newcomer` is not in the table of allowed edges"]);
}
