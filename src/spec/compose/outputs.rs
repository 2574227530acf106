//! The outputs of a file.

use super::resolve::root_entry;
use super::unit::Unit;
use super::{Composer, Known, Output, functions};
use crate::diagnostic::Diagnostic;
use crate::spec::keys;
use crate::spec::section::{section, wrong_type};
use crate::spec::syntax::Value;

impl Composer<'_> {
    /// Compute the outputs.
    pub(super) fn own_outputs(&mut self, unit: &mut Unit) {
        let Some((_, node)) = root_entry(unit, "outputs") else { return };
        for (key, node) in self.names(&node, "`outputs`") {
            let (node, sensitive) = match &node.value {
                Value::Map(map) if map.iter().any(|(key, _)| &*key.text == "value") => {
                    let what = format!("output `{}`", key.text);
                    let mut found = Vec::new();
                    let entries =
                        section(&node, &what, &keys::names(keys::OUTPUT), &mut self.suggester, &mut |diagnostic| {
                            found.push(diagnostic);
                        });
                    let (mut inner, mut sensitive) = (node.clone(), false);
                    for (name, _, node) in entries.unwrap_or_default() {
                        match (name, &node.value) {
                            ("value", _) => inner = node.clone(),
                            ("sensitive", Value::Bool(truth)) => sensitive = *truth,
                            ("description", Value::String(_)) => {}
                            ("sensitive", _) => found.push(wrong_type(node, "`sensitive`", "true or false", None)),
                            (name, _) => found.push(wrong_type(node, format!("`{name}`"), "text", None)),
                        }
                    }
                    found.into_iter().for_each(|diagnostic| self.push(diagnostic));
                    (inner, sensitive)
                }
                _ => (node, false),
            };
            let extra = unit.extra.clone();
            if let Some(known) = self.value(unit, &node, &extra) {
                if sensitive && !known.tainted {
                    self.hide(&known.value, node.span);
                }
                unit.outputs.insert(key.text, Known { tainted: known.tainted || sensitive, ..known });
            }
        }
    }

    /// The outputs of the experiment file as they are shown.
    pub(super) fn outputs(&mut self, unit: &Unit) -> Vec<Output> {
        let described = root_entry(unit, "outputs").map(|(_, node)| node);
        let description = |name: &str| {
            let Value::Map(map) = &described.as_ref()?.value else { return None };
            let Value::Map(entry) = &map.iter().find(|(key, _)| &*key.text == name)?.1.value else { return None };
            entry.iter().find(|(key, _)| &*key.text == "value")?;
            match &entry.iter().find(|(key, _)| &*key.text == "description")?.1.value {
                Value::String(text) => Some(text.to_string()),
                _ => None,
            }
        };
        let mut outputs = Vec::new();
        for (name, known) in &unit.outputs {
            match functions::to_json(&known.value) {
                Ok(value) => outputs.push(Output {
                    name: name.to_string(),
                    description: description(name),
                    sensitive: known.tainted,
                    value,
                }),
                Err(error) => {
                    let span = described.as_ref().map_or(unit.start(), |node| node.span);
                    let detail = error.detail().unwrap_or_default().to_owned();
                    let message = format!("the output `{name}` cannot be shown: {detail}");
                    self.push(Diagnostic::error("expression", span, message));
                }
            }
        }
        outputs
    }
}
