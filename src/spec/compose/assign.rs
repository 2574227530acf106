//! The values of a file's variables, and what their rules say of them.

use std::sync::Arc;

use minijinja::value::{Value as Computed, ValueKind};

use super::engine::is_template;
use super::inputs::Given;
use super::unit::Unit;
use super::{Composer, Extra, Known, value};
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::syntax::{Node, Value};

impl Composer<'_> {
    /// Give the variables their values. What is missing is one error at `at`.
    pub(super) fn assign(&mut self, unit: &mut Unit, mut given: Given, at: Span) {
        let mut missing = Vec::new();
        for declaration in &unit.declarations {
            let name = declaration.name.clone();
            if declaration.broken && !given.contains_key(&name) {
                unit.broken.insert(name);
                continue;
            }
            let (node, tainted) = match (given.remove(&name), &declaration.default) {
                (Some(given), _) => given,
                (None, Some(default)) => (default.clone(), false),
                (None, None) => {
                    missing.push((name.clone(), declaration.span));
                    unit.broken.insert(name);
                    continue;
                }
            };
            let sources = &*self.sources;
            let written = |span: Span| written_value(sources.text(span.source), span, &node);
            let checked = declaration.check(&node, &written);
            let tainted = tainted || declaration.sensitive;
            match checked {
                Ok(value) => {
                    if tainted {
                        self.hide(&value, node.span);
                    }
                    unit.variables.insert(name, Known { value, tainted });
                }
                Err(diagnostic) => {
                    if tainted {
                        let text = self.written(node.span);
                        self.secrets.add(text.trim_matches(['"', '\'']));
                    }
                    self.push(*diagnostic);
                    unit.broken.insert(name);
                }
            }
        }
        if let Some((_, first)) = missing.first() {
            let names: Vec<String> = missing.iter().map(|(name, _)| format!("`{name}`")).collect();
            let (what, first) = match names.len() {
                1 => ("the variable", *first),
                _ => ("the variables", *first),
            };
            let (span, hint) = if unit.chain.is_empty() {
                let name = names[0].trim_matches('`').to_owned();
                (first, format!("give --var {name}=VALUE, a --var-file, MEGAFORM_VAR_{name}, or a `default`"))
            } else {
                (at, "give it in `with`, or give it a `default`".to_owned())
            };
            let verb = if names.len() == 1 { "has" } else { "have" };
            let message = format!("{what} {} {verb} no value", names.join(", "));
            let mut diagnostic = Diagnostic::error("missing-variable", span, message).hint(hint);
            for (name, declared) in missing.iter().filter(|(_, declared)| *declared != span) {
                diagnostic = diagnostic.label(*declared, format!("`{name}` is declared here"));
            }
            self.push(diagnostic);
        }
        unit.var = value::of_map(unit.variables.iter().map(|(name, known)| (name.clone(), known.value.clone())));
        self.check_rules(unit);
    }

    /// Hide a sensitive value; says so where it is too short for that.
    pub(super) fn hide(&mut self, value: &Computed, span: Span) {
        let mut leaves = Vec::new();
        value::leaves(value, &mut leaves);
        for leaf in leaves {
            if !self.secrets.add_words(&leaf) {
                self.push(
                    Diagnostic::warning(
                        "short-secret",
                        span,
                        format!("a sensitive value of fewer than {} characters cannot be hidden", super::SHORTEST),
                    )
                    .hint("plans and messages will show it: choose a longer one"),
                );
            }
        }
    }

    /// The rules of variables that are expressions.
    fn check_rules(&mut self, unit: &mut Unit) {
        for index in 0..unit.declarations.len() {
            let declaration = &unit.declarations[index];
            let (name, sensitive) = (declaration.name.clone(), declaration.sensitive);
            if unit.broken.contains(&name) {
                continue;
            }
            let rules: Vec<(Arc<str>, Span, Node)> =
                declaration.validation.iter().map(|v| (v.condition.clone(), v.span, v.message.clone())).collect();
            let declared = declaration.span;
            for (condition, span, message) in rules {
                let Some(known) = self.eval(unit, &condition, span, &Extra::default()) else { continue };
                if known.value.kind() != ValueKind::Bool {
                    let message = format!("`condition` of variable `{name}` is {}", value::kind(&known.value));
                    self.push(
                        Diagnostic::error("wrong-type", span, format!("{message}, expected true or false"))
                            .hint("write a comparison, as in `var.n > 2`"),
                    );
                } else if !known.value.is_true() {
                    let said = self.value(unit, &message, &Extra::default());
                    let said = said.map(|known| known.value.to_string()).unwrap_or_default();
                    let said = if sensitive { self.secrets.mask(&said) } else { said };
                    let message = format!("the variable `{name}`: {}", shown_long(&said));
                    let diagnostic = Diagnostic::error("variable-rule", declared, message).label(span, "the rule");
                    self.push(diagnostic.hint("give another value"));
                }
            }
        }
    }
}

/// The bytes of a span, or what a computed value is as text.
fn written_value(text: &str, span: Span, node: &Node) -> String {
    let written = text.get(span.start..span.end).unwrap_or("");
    match (&node.value, is_template(written)) {
        (Value::Bool(truth), true) => truth.to_string(),
        (Value::Int(number), true) => number.to_string(),
        (Value::Float(number), true) => number.to_string(),
        (Value::String(text), _) => text.to_string(),
        _ => written.to_owned(),
    }
}

fn shown_long(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    text.trim().to_owned()
}
