//! The values that come from outside the file: `--var`, `--var-file` and the environment.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::unit::Unit;
use super::variables::Declaration;
use super::{Composer, format};
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::section::wrong_type;
use crate::spec::shown;
use crate::spec::syntax::{self, Format, Node, Value};

/// Values for the variables of an experiment file. Of several for one variable the last of this order counts: the
/// environment, the files in their order, the texts in their order.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// `NAME=VALUE`.
    pub vars: Vec<String>,
    /// Files of values, YAML or TOML.
    pub files: Vec<PathBuf>,
    /// Values by name, as `MEGAFORM_VAR_NAME` gives them. Names that the file does not declare are passed over.
    pub environment: BTreeMap<String, String>,
}

impl Inputs {
    /// Nothing is given that the file must know of.
    pub fn is_empty(&self) -> bool {
        self.vars.is_empty() && self.files.is_empty()
    }
}

/// Values by variable, each a node in a source of its own.
pub type Given = BTreeMap<Arc<str>, (Node, bool)>;

impl Composer<'_> {
    /// The values that were given from outside.
    pub(super) fn given(&mut self, unit: &Unit, inputs: &Inputs) -> Given {
        let mut given = Given::new();
        for declaration in &unit.declarations {
            let name = &declaration.name;
            let upper = name.to_ascii_uppercase();
            let found = [name.to_string(), upper].into_iter().find_map(|key| inputs.environment.get_key_value(&key));
            if let Some((key, text)) = found
                && let Some(node) = self.outside(&format!("MEGAFORM_VAR_{key}"), text, declaration)
            {
                given.insert(name.clone(), (node, false));
            }
        }
        for file in &inputs.files {
            self.file_of_values(unit, file, &mut given);
        }
        for text in &inputs.vars {
            let Some((name, value)) = text.split_once('=') else {
                let span = self.source("--var", text);
                self.push(
                    Diagnostic::error("unknown-variable", span, format!("`{}` has no `=`", shown(text)))
                        .hint("write --var NAME=VALUE"),
                );
                continue;
            };
            let name = name.trim();
            let Some(declaration) = unit.declarations.iter().find(|d| &*d.name == name) else {
                // A slip in the name of a secret must not show it.
                let span = self.source("--var", name);
                self.unknown(unit, name, span);
                continue;
            };
            let name = &declaration.name;
            if let Some(node) = self.outside(&format!("--var {name}"), value, declaration) {
                given.insert(name.clone(), (node, false));
            }
        }
        given
    }

    /// A text as a source of its own.
    fn source(&mut self, name: &str, text: &str) -> Span {
        let source = self.sources.add(name, text);
        Span { source, start: 0, end: text.len() }
    }

    /// A text from outside as a node: itself, or what it means as YAML.
    fn outside(&mut self, name: &str, text: &str, declaration: &Declaration) -> Option<Node> {
        let span = self.source(name, text);
        if declaration.sensitive {
            self.sources.veil(span.source);
        }
        if declaration.ty.is_text() {
            return Some(Node { value: Value::String(Arc::from(text)), span });
        }
        let (node, diagnostics) = syntax::read(text, span.source, Format::Yaml);
        let failed = !diagnostics.is_empty();
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
        node.filter(|_| !failed)
    }

    pub(super) fn unknown(&mut self, unit: &Unit, name: &str, span: Span) {
        let known: Vec<&str> = unit.declarations.iter().map(|d| &*d.name).collect();
        let hint = match self.suggester.nearest(name, known.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None if known.is_empty() => "the file declares no variables".to_owned(),
            None => format!("the variables are {}", shown(&known.join(", "))),
        };
        let message = format!("there is no variable `{}`", shown(name));
        self.push(Diagnostic::error("unknown-variable", span, message).hint(hint));
    }

    fn file_of_values(&mut self, unit: &Unit, path: &std::path::Path, given: &mut Given) {
        let name = path.display().to_string();
        let Some(format) = format(&name) else {
            let span = self.source(&name, "");
            self.push(
                Diagnostic::error("file-kind", span, format!("`{}` is no file of values by its name", shown(&name)))
                    .hint("the name of a file of values ends with .yaml, .yml or .toml"),
            );
            return;
        };
        let mut bytes = Vec::new();
        let read =
            std::fs::File::open(path).and_then(|file| file.take(syntax::MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
        let text = match read
            .map_err(|error| error.to_string())
            .and_then(|_| String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned()))
        {
            Ok(text) => text,
            Err(error) => {
                let span = self.source(&name, "");
                self.push(Diagnostic::error("unreadable", span, format!("cannot read `{}`: {error}", shown(&name))));
                return;
            }
        };
        let span = self.source(&name, &text);
        // Where a secret stands in a file that cannot be read is not known.
        if unit.declarations.iter().any(|declaration| declaration.sensitive) {
            self.sources.veil(span.source);
        }
        let (root, diagnostics) = syntax::read(&text, span.source, format);
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
        match root.map(|root| (root.value.clone(), root)) {
            Some((Value::Map(map), _)) => {
                for (key, node) in map.iter() {
                    match unit.declarations.iter().find(|d| d.name == key.text) {
                        Some(declaration) => {
                            given.insert(declaration.name.clone(), (node.clone(), false));
                        }
                        None => self.unknown(unit, &key.text, key.span),
                    }
                }
            }
            Some((Value::Null, _)) | None => {}
            Some((_, root)) => self.push(wrong_type(&root, "a file of values", "a map from variables to values", None)),
        }
    }
}
