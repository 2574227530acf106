//! Expressions that are asked for from outside the file.

use std::sync::Arc;

use super::engine::{Engine, is_template};
use super::unit::Unit;
use super::{Composer, Extra, Inputs, Secrets, functions, hide};
use crate::diagnostic::{Diagnostic, SourceMap, Span};
use crate::spec::Files;
use crate::spec::syntax::Node;

/// The names of an experiment file, for evaluating expressions.
pub struct Console {
    engine: Engine,
    files: Arc<dyn Files>,
    unit: Unit,
    sources: SourceMap,
    secrets: Secrets,
}

/// What an expression gives.
#[derive(Debug)]
pub struct Evaluated {
    /// Its value.
    pub value: serde_json::Value,
    /// Something sensitive went into it.
    pub sensitive: bool,
}

impl Console {
    /// Resolve a file. None where it is no map; the diagnostics are everything that was found.
    pub fn new(
        root: Node,
        mut sources: SourceMap,
        inputs: &Inputs,
        files: &dyn Files,
    ) -> (Option<Self>, Vec<Diagnostic>, SourceMap) {
        let engine = Engine::new(files.share());
        let mut composer = Composer::new(&engine, files.share(), &mut sources);
        let resolved = composer.experiment(root, inputs);
        let mut unit = resolved.map(|(unit, _)| unit);
        if let Some(unit) = &mut unit {
            let _reported = composer.name(unit);
        }
        let composed = composer.composed(None, Vec::new());
        let shared = files.share();
        match unit {
            Some(unit) => {
                let console = Self { engine, files: shared, unit, sources, secrets: composed.secrets };
                (Some(console), composed.diagnostics, SourceMap::new())
            }
            None => (None, composed.diagnostics, sources),
        }
    }

    /// The texts, for showing diagnostics.
    pub fn sources(&self) -> &SourceMap {
        &self.sources
    }

    /// What no text may show.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Evaluate an expression, with its braces or without.
    pub fn eval(&mut self, text: &str) -> Result<Evaluated, Vec<Diagnostic>> {
        let whole: Arc<str> = Arc::from(if is_template(text) { text.to_owned() } else { format!("{{{{ {text} }}}}") });
        let source = self.sources.add("<expression>", &*whole);
        let span = Span { source, start: 0, end: whole.len() };
        let mut composer = Composer::new(&self.engine, self.files.clone(), &mut self.sources);
        composer.secrets = std::mem::take(&mut self.secrets);
        let known = composer.eval(&mut self.unit, &whole, span, &Extra::default());
        let value = known.map(|known| (functions::to_json(&known.value), known.tainted));
        let mut diagnostics = std::mem::take(&mut composer.diagnostics);
        let secrets = std::mem::take(&mut composer.secrets);
        hide(&mut diagnostics, &secrets);
        self.secrets = secrets;
        match value {
            Some((Ok(value), sensitive)) => Ok(Evaluated { value, sensitive }),
            Some((Err(error), _)) => {
                let detail = error.detail().unwrap_or_default().to_owned();
                Err(vec![Diagnostic::error("expression", span, format!("the value cannot be shown: {detail}"))])
            }
            None => Err(diagnostics),
        }
    }

    /// The names that an expression may begin with, and the paths below them, for completion.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.engine.names().to_vec();
        names.extend(self.unit.variables.keys().map(|name| format!("var.{name}")));
        names.extend(self.unit.locals.keys().map(|name| format!("local.{name}")));
        names.extend(self.unit.includes.keys().map(|name| format!("module.{name}")));
        names.push("experiment.name".to_owned());
        names.sort();
        names
    }
}
