//! The variables of a file: their declarations, their types, and the rules for their values.

use std::sync::Arc;

use ipnet::IpNet;
use minijinja::value::Value as Computed;

use super::engine::is_template;
use super::value;
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::name::Mac;
use crate::spec::section::{section, wrong_type};
use crate::spec::suggest::Suggester;
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

/// The type of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Any,
    String,
    Number,
    Integer,
    Bool,
    List(Box<Type>),
    Map(Box<Type>),
    Ip,
    Cidr,
    Mac,
}

/// The words of types.
pub const TYPES: &[&str] = &["any", "string", "number", "integer", "bool", "list", "map", "ip", "cidr", "mac"];

impl Type {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(inner) = text.strip_suffix(')') {
            let (outer, inner) = inner.split_once('(')?;
            let inner = Box::new(Self::parse(inner)?);
            return match outer.trim() {
                "list" => Some(Type::List(inner)),
                "map" => Some(Type::Map(inner)),
                _ => None,
            };
        }
        Some(match text {
            "any" => Type::Any,
            "string" => Type::String,
            "number" => Type::Number,
            "integer" => Type::Integer,
            "bool" => Type::Bool,
            "list" => Type::List(Box::new(Type::Any)),
            "map" => Type::Map(Box::new(Type::Any)),
            "ip" => Type::Ip,
            "cidr" => Type::Cidr,
            "mac" => Type::Mac,
            _ => return None,
        })
    }

    /// A value on the command line or in the environment is this text itself, not YAML.
    pub fn is_text(&self) -> bool {
        matches!(self, Type::String | Type::Ip | Type::Cidr | Type::Mac)
    }

    fn expected(&self) -> &'static str {
        match self {
            Type::Any => "any value",
            Type::String => "text",
            Type::Number => "a number",
            Type::Integer => "a whole number",
            Type::Bool => "true or false",
            Type::List(_) => "a list",
            Type::Map(_) => "a map",
            Type::Ip => "an IP address such as 10.0.0.1",
            Type::Cidr => "a network such as 10.0.0.0/24",
            Type::Mac => "a MAC address such as \"52:54:00:00:00:01\"",
        }
    }

    /// The value of a node of this type; `path` is what messages call it.
    fn value(&self, node: &Node, path: &str, written: &dyn Fn(Span) -> String) -> Result<Computed, Box<Diagnostic>> {
        let what = format!("the variable `{path}`");
        let refuse = |why: &str| {
            let message = format!("{what} is `{}`, {why}", shown(&written(node.span)));
            Box::new(Diagnostic::error("invalid-value", node.span, message).hint(format!("write {}", self.expected())))
        };
        let fits = || Ok(value::of_node(node, written));
        match (self, &node.value) {
            (Type::Any, _) => fits(),
            (Type::String, Value::String(_)) => fits(),
            (Type::String, Value::Int(_) | Value::Float(_) | Value::Date | Value::Bool(_)) => {
                Ok(Computed::from(written(node.span)))
            }
            (Type::Number, Value::Int(_)) | (Type::Integer, Value::Int(_)) | (Type::Bool, Value::Bool(_)) => fits(),
            (Type::Number, Value::Float(number)) if number.is_finite() => fits(),
            (Type::List(inner), Value::List(list)) => {
                let items = list
                    .iter()
                    .enumerate()
                    .map(|(index, item)| inner.value(item, &format!("{path}[{index}]"), written))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Computed::from(items))
            }
            (Type::Map(inner), Value::Map(map)) => {
                let entries = map
                    .iter()
                    .map(|(key, item)| {
                        let path = format!("{path}.{}", shown(&key.text));
                        Ok((key.text.clone(), inner.value(item, &path, written)?))
                    })
                    .collect::<Result<Vec<_>, Box<Diagnostic>>>()?;
                Ok(value::of_map(entries))
            }
            (Type::Ip, Value::String(text)) if text.parse::<std::net::IpAddr>().is_ok() => fits(),
            (Type::Cidr, Value::String(text)) if text.parse::<IpNet>().is_ok() => fits(),
            (Type::Mac, Value::String(text)) if text.parse::<Mac>().is_ok() => fits(),
            (Type::Ip, Value::String(_)) => Err(refuse("which is no IP address")),
            (Type::Cidr, Value::String(_)) => Err(refuse("which is no network with a prefix length")),
            (Type::Mac, Value::String(_)) => Err(refuse("which is no MAC address")),
            _ => Err(Box::new(wrong_type(node, what, self.expected(), None))),
        }
    }
}

/// A rule of a variable, in the file's own words.
#[derive(Debug)]
pub struct Validation {
    pub condition: Arc<str>,
    pub span: Span,
    pub message: Node,
}

/// A declared variable.
#[derive(Debug)]
pub struct Declaration {
    pub name: Arc<str>,
    pub span: Span,
    pub ty: Type,
    pub default: Option<Node>,
    pub description: Option<String>,
    pub sensitive: bool,
    /// Its default was refused.
    pub broken: bool,
    min: Option<Spanned<f64>>,
    max: Option<Spanned<f64>>,
    pattern: Option<Spanned<regex::Regex>>,
    one_of: Option<Spanned<Vec<Computed>>>,
    pub validation: Vec<Validation>,
}

/// The longest pattern and the most memory that it may take when compiled, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// What reading declarations needs.
pub struct Reader<'a> {
    pub suggester: &'a mut Suggester,
    pub push: &'a mut dyn FnMut(Diagnostic),
    pub written: &'a dyn Fn(Span) -> String,
}

/// Is a name one that an expression can say?
pub fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The refusal of a name that no expression can say.
pub fn bad_identifier(name: &str, span: Span) -> Diagnostic {
    Diagnostic::error("invalid-name", span, format!("`{}` is no name that an expression can use", shown(name)))
        .hint("use letters, digits and `_`, and begin with a letter")
}

impl Reader<'_> {
    /// The declarations of `variables`.
    pub fn declarations(&mut self, node: &Node) -> Vec<Declaration> {
        let map = match &node.value {
            Value::Map(map) => map,
            Value::Null => return Vec::new(),
            _ => {
                (self.push)(wrong_type(node, "`variables`", "a map from names to declarations", None));
                return Vec::new();
            }
        };
        let mut declarations = Vec::with_capacity(map.len());
        for (key, value) in map.iter() {
            if !is_identifier(&key.text) {
                (self.push)(bad_identifier(&key.text, key.span));
                continue;
            }
            declarations.push(self.declaration(key.text.clone(), key.span, value));
        }
        declarations
    }

    fn declaration(&mut self, name: Arc<str>, span: Span, node: &Node) -> Declaration {
        let what = format!("variable `{name}`");
        let mut declaration = Declaration {
            name,
            span,
            ty: Type::Any,
            default: None,
            description: None,
            sensitive: false,
            broken: false,
            min: None,
            max: None,
            pattern: None,
            one_of: None,
            validation: Vec::new(),
        };
        if matches!(node.value, Value::Null) {
            return declaration;
        }
        let entries = section(node, &what, &keys::names(keys::VARIABLE), self.suggester, self.push);
        for (key, _, node) in entries.unwrap_or_default() {
            let at = format!("`{key}` of {what}");
            if key != "validation" && self.has_template(node) {
                (self.push)(
                    Diagnostic::error(
                        "not-constant",
                        node.span,
                        format!("{at} has an expression, expected a fixed value"),
                    )
                    .hint("use `locals` for what is computed"),
                );
                declaration.broken |= key == "default";
                continue;
            }
            match key {
                "type" => self.ty(node, &at, &mut declaration),
                "default" => declaration.default = Some(node.clone()),
                "description" => declaration.description = self.text(node, &at).map(|text| text.to_string()),
                "sensitive" => match node.value {
                    Value::Bool(truth) => declaration.sensitive = truth,
                    _ => (self.push)(wrong_type(node, &at, "true or false", None)),
                },
                "min" => declaration.min = self.number(node, &at),
                "max" => declaration.max = self.number(node, &at),
                "pattern" => declaration.pattern = self.pattern(node, &at),
                "one_of" => match &node.value {
                    Value::List(list) => {
                        let values = list.iter().map(|item| value::of_node(item, self.written)).collect();
                        declaration.one_of = Some(Spanned::new(values, node.span));
                    }
                    _ => (self.push)(wrong_type(node, &at, "a list of values", None)),
                },
                "validation" => self.validation(node, &at, &mut declaration),
                other => unreachable!("`{other}` is not in the table of a variable's keys"),
            }
        }
        declaration
    }

    fn has_template(&self, node: &Node) -> bool {
        match &node.value {
            Value::String(text) => is_template(text),
            Value::List(list) => list.iter().any(|item| self.has_template(item)),
            Value::Map(map) => map.iter().any(|(key, item)| is_template(&key.text) || self.has_template(item)),
            _ => false,
        }
    }

    fn ty(&mut self, node: &Node, at: &str, declaration: &mut Declaration) {
        let Value::String(text) = &node.value else {
            (self.push)(wrong_type(node, at, "a type such as string", None));
            return;
        };
        match Type::parse(text) {
            Some(ty) => declaration.ty = ty,
            None => {
                let hint = match self.suggester.nearest(text, TYPES.iter().copied()) {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => format!("the types are {}, list(TYPE) and map(TYPE)", TYPES.join(", ")),
                };
                let message = format!("{at} is `{}`, which is no type", shown(text));
                (self.push)(Diagnostic::error("invalid-value", node.span, message).hint(hint));
            }
        }
    }

    fn text(&mut self, node: &Node, at: &str) -> Option<Arc<str>> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            _ => {
                (self.push)(wrong_type(node, at, "text", Some(&(self.written)(node.span))));
                None
            }
        }
    }

    fn number(&mut self, node: &Node, at: &str) -> Option<Spanned<f64>> {
        match node.value {
            Value::Int(number) => Some(Spanned::new(number as f64, node.span)),
            Value::Float(number) if number.is_finite() => Some(Spanned::new(number, node.span)),
            _ => {
                (self.push)(wrong_type(node, at, "a number", None));
                None
            }
        }
    }

    fn pattern(&mut self, node: &Node, at: &str) -> Option<Spanned<regex::Regex>> {
        let text = self.text(node, at)?;
        let regex = regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(MAX_PATTERN).build();
        match regex {
            Ok(regex) => Some(Spanned::new(regex, node.span)),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                (self.push)(
                    Diagnostic::error("invalid-value", node.span, format!("{at} is no regular expression: {reason}"))
                        .hint("the whole value must match it; quote it with ' in YAML"),
                );
                None
            }
        }
    }

    fn validation(&mut self, node: &Node, at: &str, declaration: &mut Declaration) {
        let one;
        let items: &[Node] = match &node.value {
            Value::List(list) => list,
            _ => {
                one = [node.clone()];
                &one
            }
        };
        for item in items {
            let Some(entries) = section(item, at, &keys::names(keys::VALIDATION), self.suggester, self.push) else {
                continue;
            };
            let get = |name: &str| entries.iter().find(|(n, _, _)| *n == name).map(|(_, _, node)| *node);
            let (condition, message) = (get("condition"), get("error_message"));
            for (name, there) in [("condition", condition.is_some()), ("error_message", message.is_some())] {
                if !there {
                    (self.push)(
                        Diagnostic::error("missing-key", item.span, format!("{at} has no `{name}`"))
                            .hint(format!("add `{name}`")),
                    );
                }
            }
            let (Some(condition), Some(message)) = (condition, message) else { continue };
            let Some(text) = self.text(condition, &format!("`condition` of {at}")) else { continue };
            let text = if is_template(&text) { text } else { Arc::from(format!("{{{{ {text} }}}}")) };
            declaration.validation.push(Validation { condition: text, span: condition.span, message: message.clone() });
        }
    }
}

impl Declaration {
    /// The value that a node gives the variable, checked by its type and its own rules.
    pub fn check(&self, node: &Node, written: &dyn Fn(Span) -> String) -> Result<Computed, Box<Diagnostic>> {
        let what = format!("the variable `{}`", self.name);
        // What is sensitive is not repeated in a message.
        let said = |text: String| if self.sensitive { String::new() } else { text };
        let hidden = |span: Span| if self.sensitive { super::HIDDEN.to_owned() } else { written(span) };
        let checked = self.ty.value(node, &self.name, &hidden)?;
        let value = if self.sensitive { self.ty.value(node, &self.name, written)? } else { checked };
        let declared = |diagnostic: Diagnostic, rule: Span| Box::new(diagnostic.label(rule, "the rule"));
        let number = f64::try_from(value.clone()).ok();
        for (rule, word, wrong) in [
            (&self.min, "at least", number.zip(self.min.as_ref()).is_some_and(|(n, min)| n < **min)),
            (&self.max, "at most", number.zip(self.max.as_ref()).is_some_and(|(n, max)| n > **max)),
        ] {
            let Some(rule) = rule else { continue };
            if wrong {
                let message = format!("{what}{} must be {word} {}", said(format!(" is {value}, it")), rule.value);
                let diagnostic = Diagnostic::error("variable-rule", node.span, message).hint("give another value");
                return Err(declared(diagnostic, rule.span));
            }
        }
        if let Some(pattern) = &self.pattern {
            let texts = match value.as_str() {
                Some(text) => vec![text.to_owned()],
                None => {
                    let mut texts = Vec::new();
                    value::leaves(&value, &mut texts);
                    texts
                }
            };
            if let Some(text) = texts.iter().find(|text| !pattern.is_match(text)) {
                let shown = said(format!(" is `{}`, which", shown(text)));
                let message = format!("{what}{shown} does not match its pattern");
                let diagnostic = Diagnostic::error("variable-rule", node.span, message).hint("give another value");
                return Err(declared(diagnostic, pattern.span));
            }
        }
        if let Some(choices) = &self.one_of
            && !choices.contains(&value)
        {
            let message =
                format!("{what}{} is none of its choices", said(format!(" is `{}`, which", shown(&value.to_string()))));
            let choices_: Vec<String> = choices.iter().map(ToString::to_string).collect();
            let hint = match Suggester::default().nearest(&value.to_string(), choices_.iter().map(String::as_str)) {
                Some(choice) if !self.sensitive => format!("did you mean `{choice}`?"),
                _ => format!("the choices are {}", shown(&choices_.join(", "))),
            };
            let diagnostic = Diagnostic::error("variable-rule", node.span, message).hint(hint);
            return Err(declared(diagnostic, choices.span));
        }
        Ok(value)
    }
}
