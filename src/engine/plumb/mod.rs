//! Plumbing: named pipes that carry messages (lines of text), and pipelines of pipes and programs. See
//! `docs/plumbing.md`.
//!
//! Must not know the socket: a client of it is one more reader and writer of a pipe.

mod element;
mod name;
mod pipe;
mod pipeline;
mod via;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::name::Namespace;

use super::{Engine, EngineError, programs};

use element::{Element, Invocation};
use pipe::Pipe;
use pipeline::{Pipeline, Stage};
use via::Via;

pub use name::PipeName;
pub use pipe::{Kind, Mode, PipeInfo, Reader, Writer};
pub use pipeline::PipelineInfo;

/// Why a pipe or pipeline was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlumbError {
    /// Not a name.
    #[error("invalid pipe name `{}`, expected 1 to {} bytes without control characters", name.escape_debug(), name::MAX_NAME)]
    Name {
        /// As given, cut.
        name: String,
    },
    /// No such pipe.
    #[error("pipe not found: {name}")]
    NoPipe {
        /// Its whole name.
        name: String,
    },
    /// The pipe went while it was in use.
    #[error("pipe {name} was cleared")]
    Cleared {
        /// Its whole name.
        name: String,
    },
    /// No such pipeline.
    #[error("pipeline not found: {text}")]
    NoPipeline {
        /// As given.
        text: String,
    },
    /// The same again.
    #[error("pipeline exists already: {text}")]
    Exists {
        /// As tables show it.
        text: String,
    },
    /// Pipes that would feed themselves.
    #[error("a message would go round for ever: {path}")]
    Loop {
        /// The pipes, from one back to it.
        path: String,
    },
    /// Neither a program nor a pipe.
    #[error(
        "`{program}` is not a program in $PATH, and there is no pipe named `{element}`; a new pipe needs a name without blanks that does not begin with `/` or `.`"
    )]
    Neither {
        /// As given.
        element: String,
        /// Its first word.
        program: String,
    },
    /// A quote that nothing closes.
    #[error("`{element}`: missing terminal {quote}")]
    Quote {
        /// As given.
        element: String,
        /// Which quote.
        quote: char,
    },
    /// No program.
    #[error("expected a program")]
    NoProgram,
}

/// A word as a command takes it: quoted where it needs it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let special = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '#');
        if !self.0.is_empty() && !self.0.contains(special) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
    }
}

/// All pipes and pipelines of an engine.
#[derive(Default)]
pub(super) struct Plumbing(Mutex<Plumbed>);

#[derive(Default)]
struct Plumbed {
    pipes: BTreeMap<PipeName, Arc<Pipe>>,
    pipelines: Vec<Arc<Pipeline>>,
}

impl Plumbing {
    fn lock(&self) -> MutexGuard<'_, Plumbed> {
        self.0.lock().expect("no code panics while it holds the plumbing")
    }

    pub(super) fn has_pipelines(&self) -> bool {
        !self.lock().pipelines.is_empty()
    }
}

impl Plumbed {
    /// The pipe of that name, made if it is not there.
    fn pipe(&mut self, name: &PipeName) -> Arc<Pipe> {
        let pipe = self.pipes.entry(name.clone()).or_insert_with_key(|name| Arc::new(Pipe::new(name.clone())));
        Arc::clone(pipe)
    }

    /// Would pipes feed themselves, with these elements as one more pipeline? Only where no program stands between: a
    /// program may well answer some messages and not others.
    fn looped(&self, elements: &[Element]) -> Result<(), PlumbError> {
        let all = self.pipelines.iter().map(|pipeline| pipeline.elements.as_slice()).chain([elements]);
        let mut edges: BTreeMap<&PipeName, Vec<&PipeName>> = BTreeMap::new();
        for pair in all.flat_map(|elements| elements.windows(2)) {
            if let [Element::Pipe(from), Element::Pipe(to)] = pair {
                edges.entry(from).or_default().push(to);
            }
        }
        // Whatever loop there is leads through the new pipeline.
        for pair in elements.windows(2) {
            let [Element::Pipe(start), Element::Pipe(next)] = pair else { continue };
            let mut seen = HashSet::new();
            let mut ways = vec![vec![start, next]];
            while let Some(way) = ways.pop() {
                let last = *way.last().expect("a way has a beginning");
                if last == start {
                    let path: Vec<&str> = way.iter().map(|name| name.as_str()).collect();
                    return Err(PlumbError::Loop { path: path.join(" ") });
                }
                if seen.insert(last) {
                    let onward = edges.get(last).into_iter().flatten();
                    ways.extend(onward.map(|next| way.iter().copied().chain([*next]).collect()));
                }
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Start a pipeline. Nothing of it is left if a part cannot be started.
    pub async fn plumb(self: &Arc<Self>, namespace: &Namespace, words: &[String]) -> Result<(), EngineError> {
        let elements = {
            let plumbed = self.plumbing.lock();
            let exists = |name: &PipeName| plumbed.pipes.contains_key(name);
            let elements: Result<Vec<_>, _> =
                words.iter().map(|word| Element::parse(namespace, word, exists)).collect();
            elements?
        };
        let text = pipeline::text(&elements);
        // Looked at before anything is started, and again when it is entered.
        self.plumbing.lock().admit(namespace, &elements, &text)?;
        let network = match elements.iter().any(|element| matches!(element, Element::Program(_))) {
            true => Some(self.in_network().await?),
            false => None,
        };
        let programs = match &network {
            Some(network) => pipeline::start_programs(&elements, network).await?,
            None => Vec::new(),
        };
        let (pipeline, stages, control) = {
            let mut plumbed = self.plumbing.lock();
            plumbed.admit(namespace, &elements, &text)?;
            let stages: Vec<Stage> = pipeline::stages(&elements, programs, |name| plumbed.pipe(name));
            let (pipeline, control) = Pipeline::new(namespace.clone(), elements, text);
            plumbed.pipelines.push(Arc::clone(&pipeline));
            (pipeline, stages, control)
        };
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            control.run(stages, &pipeline.text).await;
            engine.plumbing.lock().pipelines.retain(|other| !Arc::ptr_eq(other, &pipeline));
            drop(network);
            pipeline.ended();
        });
        Ok(())
    }

    /// The pipelines of a namespace, in the order in which they were made.
    pub fn pipelines(&self, namespace: &Namespace) -> Vec<PipelineInfo> {
        let plumbed = self.plumbing.lock();
        plumbed.pipelines.iter().filter(|p| p.namespace == *namespace).map(|p| p.info()).collect()
    }

    /// End a pipeline of a namespace, named by its elements, or all of them. Returns when their programs have ended.
    pub async fn clear_pipelines(&self, namespace: &Namespace, words: &[String]) -> Result<(), EngineError> {
        let asked: Vec<_> = {
            let plumbed = self.plumbing.lock();
            let of = plumbed.pipelines.iter().filter(|pipeline| pipeline.namespace == *namespace);
            of.filter(|pipeline| words.is_empty() || pipeline.is(words)).cloned().collect()
        };
        if asked.is_empty() && !words.is_empty() {
            let words: Vec<String> = words.iter().map(|word| Quoted(word).to_string()).collect();
            return Err(PlumbError::NoPipeline { text: words.join(" ") }.into());
        }
        pipeline::stop(&asked).await;
        Ok(())
    }

    /// The pipes of a namespace, by name.
    pub fn pipes(&self, namespace: &Namespace) -> Vec<PipeInfo> {
        let plumbed = self.plumbing.lock();
        plumbed.pipes.values().filter(|pipe| pipe.name().belongs_to(namespace)).map(|pipe| pipe.info()).collect()
    }

    /// The pipe of a name, made if it is not there.
    fn pipe(&self, namespace: &Namespace, name: &str) -> Result<Arc<Pipe>, EngineError> {
        let name = PipeName::within(namespace, name)?;
        Ok(self.plumbing.lock().pipe(&name))
    }

    /// The pipe of a name; one that is not there is an error.
    fn known_pipe(&self, namespace: &Namespace, name: &str) -> Result<Arc<Pipe>, EngineError> {
        let name = PipeName::within(namespace, name)?;
        let pipe = self.plumbing.lock().pipes.get(&name).cloned();
        pipe.ok_or_else(|| PlumbError::NoPipe { name: name.to_string() }.into())
    }

    /// Write a text to a pipe: a message per line.
    pub async fn write_pipe(&self, namespace: &Namespace, name: &str, text: &str) -> Result<(), EngineError> {
        let pipe = self.pipe(namespace, name)?;
        Ok(pipe.write(text.as_bytes()).await?)
    }

    /// Set which readers of a pipe get a message; None for the default, of a pipe that exists.
    pub fn set_pipe_mode(&self, namespace: &Namespace, name: &str, mode: Option<Mode>) -> Result<(), EngineError> {
        match mode {
            Some(mode) => self.pipe(namespace, name)?.set_mode(mode),
            None => self.known_pipe(namespace, name)?.set_mode(Mode::default()),
        }
        Ok(())
    }

    /// Set whether a pipe's messages go to the log; None for the default, of a pipe that exists.
    pub fn set_pipe_log(&self, namespace: &Namespace, name: &str, log: Option<bool>) -> Result<(), EngineError> {
        match log {
            Some(log) => self.pipe(namespace, name)?.set_log(log),
            None => self.known_pipe(namespace, name)?.set_log(false),
        }
        Ok(())
    }

    /// Set the program that a pipe's messages pass. One word with blanks is a program with its arguments.
    pub async fn set_pipe_via(
        self: &Arc<Self>,
        namespace: &Namespace,
        name: &str,
        words: &[String],
    ) -> Result<(), EngineError> {
        let name = PipeName::within(namespace, name)?;
        let text = words.join(" ");
        let words = match words {
            [line] => element::split(line)?,
            words => words.to_vec(),
        };
        let program = words.first().ok_or(PlumbError::NoProgram)?;
        let path = programs::require(program)?;
        let via = Via::new(Invocation { text, path, words }, self.in_network().await?);
        let pipe = self.plumbing.lock().pipe(&name);
        pipe.set_via(Some(via));
        Ok(())
    }

    /// Let a pipe's messages pass as they are. A pipe that is not there is an error.
    pub fn clear_pipe_via(&self, namespace: &Namespace, name: &str) -> Result<(), EngineError> {
        self.known_pipe(namespace, name)?.set_via(None);
        Ok(())
    }

    /// Remove a pipe of a namespace, or all of them: pipelines that use it end, and so do clients that are connected to it.
    pub async fn clear_pipes(&self, namespace: &Namespace, name: Option<&str>) -> Result<(), EngineError> {
        let name = name.map(|name| PipeName::within(namespace, name)).transpose()?;
        let found = self.remove_pipes(|pipe| match &name {
            Some(name) => pipe == name,
            None => pipe.belongs_to(namespace),
        });
        match (found.await, name) {
            (0, Some(name)) => Err(PlumbError::NoPipe { name: name.to_string() }.into()),
            _ => Ok(()),
        }
    }

    async fn remove_pipes(&self, asked: impl Fn(&PipeName) -> bool) -> usize {
        let (pipes, pipelines) = {
            let mut plumbed = self.plumbing.lock();
            let names: Vec<PipeName> = plumbed.pipes.keys().filter(|name| asked(name)).cloned().collect();
            let pipes: Vec<_> = names.iter().filter_map(|name| plumbed.pipes.remove(name)).collect();
            let users = plumbed.pipelines.iter().filter(|pipeline| names.iter().any(|name| pipeline.uses(name)));
            (pipes, users.cloned().collect::<Vec<_>>())
        };
        for pipe in &pipes {
            pipe.close();
        }
        pipeline::stop(&pipelines).await;
        pipes.len()
    }

    /// Become a reader and writer of a pipe, made if it is not there. The name is used as it is.
    pub fn open_pipe(&self, name: &str) -> Result<(Reader, Writer), EngineError> {
        let name = PipeName::whole(name)?;
        let mut plumbed = self.plumbing.lock();
        let pipe = plumbed.pipe(&name);
        Ok((pipe.reader(Kind::Client), pipe.writer()))
    }

    /// End everything that belongs to a namespace.
    pub(super) async fn clear_plumbing_of(&self, namespace: &Namespace) {
        let pipelines: Vec<_> = {
            let plumbed = self.plumbing.lock();
            plumbed.pipelines.iter().filter(|pipeline| pipeline.namespace == *namespace).cloned().collect()
        };
        pipeline::stop(&pipelines).await;
        self.remove_pipes(|pipe| pipe.belongs_to(namespace)).await;
    }

    /// End everything.
    pub(super) async fn end_plumbing(&self) {
        let pipelines = self.plumbing.lock().pipelines.clone();
        pipeline::stop(&pipelines).await;
        self.remove_pipes(|_| true).await;
    }
}

impl Plumbed {
    /// May this pipeline be added?
    fn admit(&self, namespace: &Namespace, elements: &[Element], text: &str) -> Result<(), PlumbError> {
        if self.pipelines.iter().any(|pipeline| pipeline.namespace == *namespace && pipeline.elements == elements) {
            return Err(PlumbError::Exists { text: text.to_owned() });
        }
        self.looped(elements)
    }
}

#[cfg(test)]
mod tests;
