//! The Python bindings: a fixed part that speaks the wire, and one method per command, from the declarations.
//!
//! A method is named by the command's literal words and keywords; its parameters are the first words of the
//! placeholders. Commands with the same words share a method. Builtins, `help` and the commands that change the active
//! namespace have none: the bindings do by themselves what those are for.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::language::declaration::Declaration;
use crate::language::pattern::{Item, Pattern};

/// The part that is the same whatever the commands are.
const RUNTIME: &str = include_str!("python_runtime/runtime.py");

/// Words that Python keeps for itself and that occur in patterns.
const KEYWORDS: &[&str] = &["in", "from", "with", "is", "or", "not", "and", "as", "if", "for", "class", "def"];

/// One element of a pattern as Python sees it.
struct Element {
    /// `word`, `text`, `choice`, `list`, `command`, with `?` if it may be missing.
    kind: String,
    /// The word itself, or the parameter.
    name: String,
    /// The words of a choice.
    words: Vec<String>,
}

struct Method<'a> {
    patterns: Vec<Vec<Element>>,
    notations: Vec<&'a str>,
    declaration: &'a Declaration,
}

fn identifier(text: &str) -> String {
    let name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if KEYWORDS.contains(&name.as_str()) { format!("{name}_") } else { name }
}

/// A parameter is named by the first word of its placeholder.
fn parameter(placeholder: &str) -> String {
    identifier(placeholder.split_whitespace().next().unwrap_or(placeholder).trim_end_matches(','))
}

fn element(item: &Item) -> Element {
    let optional = if item.is_optional() { "?" } else { "" };
    let plain = |kind: &str, name: String| Element { kind: format!("{kind}{optional}"), name, words: Vec::new() };
    match item {
        Item::Literal(word) => plain("word", word.to_string()),
        Item::Choice { words, optional: false, .. } if words.len() == 1 => plain("word", words[0].to_string()),
        Item::Choice { words, .. } => {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            Element { kind: format!("choice{optional}"), name: identifier(&words.join("_or_")), words }
        }
        Item::Text { name, .. } => plain("text", parameter(name)),
        Item::List { name, .. } => plain("list", parameter(name)),
        Item::Command => plain("command", "command".to_owned()),
    }
}

fn has_method(declaration: &Declaration) -> bool {
    !declaration.name.starts_with('.') && !["help", "namespace", "clear namespace"].contains(&declaration.name.as_ref())
}

fn methods(declarations: &[Declaration]) -> BTreeMap<String, Method<'_>> {
    let mut methods: BTreeMap<String, Method<'_>> = BTreeMap::new();
    for declaration in declarations.iter().filter(|d| has_method(d)) {
        for notation in &declaration.patterns {
            let pattern = Pattern::parse(notation).expect("a test checks that every pattern parses");
            let elements: Vec<Element> = pattern.items.iter().map(element).collect();
            let words: Vec<&str> = elements.iter().filter(|e| e.kind == "word").map(|e| e.name.as_str()).collect();
            let name = identifier(&words.join("_"));
            let method = methods.entry(name).or_insert_with(|| Method {
                patterns: Vec::new(),
                notations: Vec::new(),
                declaration,
            });
            method.patterns.push(elements);
            method.notations.push(notation);
        }
    }
    methods
}

/// The parameters with their types; those that every pattern requires come first.
fn parameters(method: &Method<'_>) -> Vec<(String, &'static str, bool)> {
    let mut names: Vec<(&str, &'static str)> = Vec::new();
    for element in method.patterns.iter().flatten().filter(|e| e.kind != "word") {
        if !names.iter().any(|(name, _)| *name == element.name) {
            let list = element.kind.starts_with("list");
            let boolean = element.words == ["true", "false"];
            names.push((
                &element.name,
                if list {
                    "Words"
                } else if boolean {
                    "Union[str, bool]"
                } else {
                    "Word"
                },
            ));
        }
    }
    let required = |name: &str| {
        method.patterns.iter().all(|p| p.iter().any(|e| e.name == name && e.kind != "word" && !e.kind.ends_with('?')))
    };
    let mut parameters: Vec<_> = names.into_iter().map(|(name, ty)| (name.to_owned(), ty, required(name))).collect();
    parameters.sort_by_key(|(_, _, required)| !required);
    parameters
}

/// Text inside a docstring.
fn docstring(text: &str) -> String {
    text.replace('\\', "\\\\").replace("\"\"\"", "\\\"\\\"\\\"")
}

fn write_method(out: &mut String, name: &str, method: &Method<'_>) {
    let parameters = parameters(method);
    let mut signature = String::from("self");
    for (parameter, ty, required) in &parameters {
        let written =
            if *required { format!(", {parameter}: {ty}") } else { format!(", {parameter}: Optional[{ty}] = None") };
        signature.push_str(&written);
    }
    let declaration = method.declaration;
    let mut text =
        format!("    def {name}({signature}) -> List[Resp]:\n        \"\"\"{}.\n\n", docstring(&declaration.short));
    for notation in &method.notations {
        let _ = writeln!(text, "            {}", docstring(notation));
    }
    text.push('\n');
    for line in declaration.long.lines() {
        let _ = writeln!(text, "{}", format!("        {}", docstring(line)).trim_end());
    }
    text.push_str("        \"\"\"\n        return self._run(\n            [\n");
    for pattern in &method.patterns {
        text.push_str("                [");
        for (index, element) in pattern.iter().enumerate() {
            let words = if element.words.is_empty() {
                "None".to_owned()
            } else {
                format!("({},)", element.words.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", "))
            };
            let comma = if index > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}({:?}, {:?}, {words})", element.kind, element.name);
        }
        text.push_str("],\n");
    }
    text.push_str("            ],\n            {");
    text.push_str(&parameters.iter().map(|(p, ..)| format!("{p:?}: {p}")).collect::<Vec<_>>().join(", "));
    text.push_str("},\n        )\n\n");
    out.push_str(&text);
}

/// The module.
pub fn module(declarations: &[Declaration]) -> String {
    let mut text = RUNTIME.replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    for (name, method) in methods(declarations) {
        write_method(&mut text, &name, &method);
    }
    text.push_str("\n#: The same class under this project's name.\nmegaform = minimega\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The methods that 3.1.0 generates, from its patterns alone.
    #[test]
    fn the_checked_in_module_is_up_to_date() {
        let text = module(&crate::generate::declarations());
        crate::generate::tests::up_to_date("python/megaform/__init__.py", &text);
    }

    #[test]
    fn names_and_parameters_are_those_of_3_1_0() {
        let patterns = include_str!("../../tests/data/minimega-3.1.0-patterns.txt");
        let declarations: Vec<Declaration> = patterns
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Declaration {
                patterns: vec![line.to_owned().into()],
                ..Declaration::new(line.to_owned(), &[], "", "")
            })
            .filter(|d| {
                !d.name.starts_with("help")
                    && !d.name.starts_with("namespace")
                    && !d.name.starts_with("clear namespace")
            })
            .collect();
        let methods = methods(&declarations);
        let signature = |name: &str| {
            let list: Vec<String> = parameters(&methods[name])
                .into_iter()
                .map(|(p, _, required)| if required { p } else { format!("{p}=None") })
                .collect();
            format!("{name}({})", list.join(", "))
        };
        let known = include_str!("../../tests/data/minimega-3.1.0-python.txt");
        for expected in known.lines() {
            let name = expected.split_once('(').unwrap().0;
            assert!(methods.contains_key(name), "no method {name}");
            assert_eq!(signature(name), expected);
        }
        assert_eq!(methods.len(), known.lines().count());
    }
}
