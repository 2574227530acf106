//! A pipeline that runs: programs, and what carries messages between them and pipes.
//!
//! The parts are *stages*, in order from the source on. A program ends, or is told to; what carries messages ends when its
//! source ends or its target refuses. Then two rules end the rest: the end of a source is passed on to the right, so that
//! nothing that was written is lost; and what stands left of something that takes nothing more is stopped.

use std::sync::Arc;

use tokio::io::{AsyncWriteExt, BufReader, BufWriter};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::engine::EngineError;
use crate::engine::programs::{self, InNetwork};
use crate::host::linux::program::{self, Program, Stream};
use crate::name::Namespace;

use super::element::Element;
use super::name::PipeName;
use super::pipe::{Kind, MAX_MESSAGE, Pipe, Reader, ReaderEnd, Writer};

/// A pipeline as the engine lists it.
pub(super) struct Pipeline {
    pub(super) namespace: Namespace,
    pub(super) elements: Vec<Element>,
    pub(super) text: String,
    stop: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

/// What is told of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineInfo {
    /// Its elements as words of a command.
    pub text: String,
    /// Each of them: the whole name of a pipe, or a program with its arguments as it was given.
    pub elements: Vec<String>,
}

/// The pipeline's elements as the table of pipelines has them.
pub(super) fn text(elements: &[Element]) -> String {
    elements.iter().map(Element::shown).collect::<Vec<_>>().join(" ")
}

impl Pipeline {
    pub(super) fn new(namespace: Namespace, elements: Vec<Element>, text: String) -> (Arc<Self>, Control) {
        let (stop, stopped) = watch::channel(false);
        let pipeline = Self { namespace, elements, text, stop, ended: watch::Sender::new(false) };
        (Arc::new(pipeline), Control { stopped })
    }

    /// Do the words of a command mean this one? They are its elements, or the line of the table, as one word or several.
    pub(super) fn is(&self, words: &[String]) -> bool {
        let line = words.join(" ");
        let plain = || self.elements.iter().map(Element::plain).collect::<Vec<_>>().join(" ");
        let one = line == self.text || line == plain();
        let matching = |(element, word): (&Element, &String)| element.is(&self.namespace, word);
        one || (words.len() == self.elements.len() && self.elements.iter().zip(words).all(matching))
    }

    pub(super) fn info(&self) -> PipelineInfo {
        PipelineInfo { text: self.text.clone(), elements: self.elements.iter().map(Element::given).collect() }
    }

    pub(super) fn uses(&self, name: &PipeName) -> bool {
        self.elements.iter().any(|element| matches!(element, Element::Pipe(used) if used == name))
    }

    /// Everything of it has ended.
    pub(super) fn ended(&self) {
        self.ended.send_replace(true);
    }
}

/// End pipelines and wait until everything of them has ended.
pub(super) async fn stop(pipelines: &[Arc<Pipeline>]) {
    for pipeline in pipelines {
        pipeline.stop.send_replace(true);
    }
    for pipeline in pipelines {
        // The sender is in the pipeline itself, which is held here.
        let _ = pipeline.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

/// A program of a pipeline.
pub(super) struct Running {
    program: Program,
    text: String,
}

/// One part of a pipeline.
pub(super) enum Stage {
    /// From a pipe to a pipe.
    Link { from: Reader, to: Writer },
    /// From a pipe to a program.
    Feed { from: Reader, to: Sender },
    /// A program.
    Program(Running),
    /// From a program to a pipe.
    Drain { from: Receiver, to: Writer },
}

/// Start the programs of a pipeline. If one cannot be started, those before it are ended.
pub(super) async fn start_programs(elements: &[Element], network: &InNetwork) -> Result<Vec<Running>, EngineError> {
    let mut programs = Vec::new();
    let mut between = None;
    for (index, element) in elements.iter().enumerate() {
        let Element::Program(asked) = element else { continue };
        let failed =
            |error: std::io::Error| EngineError::Program { program: asked.text.clone(), message: error.to_string() };
        let input = match (between.take(), index) {
            (Some(fd), _) => Stream::Fd(fd),
            (None, 0) => Stream::Null,
            (None, _) => Stream::Piped,
        };
        let output = match elements.get(index + 1) {
            None => Stream::Null,
            Some(Element::Pipe(_)) => Stream::Piped,
            Some(Element::Program(_)) => {
                let (read, write) = program::pipe_between().map_err(failed)?;
                between = Some(read);
                Stream::Fd(write)
            }
        };
        let program = programs::start(&asked.path, &asked.words, input, output, network).await?;
        programs.push(Running { program, text: asked.text.clone() });
    }
    Ok(programs)
}

/// The stages of a pipeline whose programs run.
pub(super) fn stages(
    elements: &[Element],
    programs: Vec<Running>,
    mut pipe: impl FnMut(&PipeName) -> Arc<Pipe>,
) -> Vec<Stage> {
    let mut programs = programs.into_iter();
    let mut stages: Vec<Stage> = Vec::new();
    // The pipe, or the standard output, that the next stage takes messages from.
    let mut from_pipe: Option<Arc<Pipe>> = None;
    let mut from_program: Option<Receiver> = None;
    for element in elements {
        match element {
            Element::Pipe(name) => {
                let to = pipe(name);
                if let Some(from) = from_pipe.take() {
                    stages.push(Stage::Link { from: from.reader(Kind::Pipeline), to: to.writer() });
                }
                if let Some(from) = from_program.take() {
                    stages.push(Stage::Drain { from, to: to.writer() });
                }
                from_pipe = Some(to);
            }
            Element::Program(_) => {
                let mut running = programs.next().expect("there is a program for every element that is one");
                if let (Some(from), Some(to)) = (from_pipe.take(), running.program.input.take()) {
                    stages.push(Stage::Feed { from: from.reader(Kind::Pipeline), to });
                }
                from_program = running.program.output.take();
                stages.push(Stage::Program(running));
            }
        }
    }
    // A pipe alone is a pipeline that does nothing, but it is there.
    from_pipe.take();
    stages
}

/// What a stage is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Run,
    /// Nothing new comes; pass on what is there and end.
    Close,
    /// End.
    Stop,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing more comes from the left.
    Source,
    /// Nothing more is taken from the left.
    Target,
}

/// Runs a pipeline.
pub(super) struct Control {
    stopped: watch::Receiver<bool>,
}

impl Control {
    /// Run until every stage has ended.
    pub(super) async fn run(mut self, stages: Vec<Stage>, text: &str) {
        let mut tasks = JoinSet::new();
        let mut signals = Vec::new();
        for (index, stage) in stages.into_iter().enumerate() {
            let (signal, told) = watch::channel(Signal::Run);
            signals.push(signal);
            tasks.spawn(async move { (index, stage.run(told).await) });
        }
        let mut stopping = false;
        loop {
            let ended = tokio::select! {
                biased;
                _ = self.stopped.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    stop_all(&signals);
                    continue;
                }
                ended = tasks.join_next() => ended,
            };
            let (index, end) = match ended {
                None => break,
                Some(Ok(ended)) => ended,
                Some(Err(error)) => {
                    // A defect of ours: nothing of the pipeline may stay without it.
                    tracing::error!(pipeline = %text, %error, "a pipeline broke");
                    stop_all(&signals);
                    continue;
                }
            };
            if end == End::Target {
                stop_all(&signals[..index]);
            }
            if let Some(next) = signals.get(index + 1) {
                next.send_if_modified(|signal| {
                    let run = *signal == Signal::Run;
                    if run {
                        *signal = Signal::Close;
                    }
                    run
                });
            }
        }
        match stopping {
            true => tracing::debug!(pipeline = %text, "ended"),
            false => tracing::info!(pipeline = %text, "ended by itself"),
        }
    }
}

fn stop_all(signals: &[watch::Sender<Signal>]) {
    for signal in signals {
        signal.send_replace(Signal::Stop);
    }
}

/// Wait for a signal.
async fn until(told: &mut watch::Receiver<Signal>, asked: &[Signal]) {
    // The pipeline holds the sender while its stages run.
    let _ = told.wait_for(|signal| asked.contains(signal)).await;
}

impl Stage {
    async fn run(self, told: watch::Receiver<Signal>) -> End {
        match self {
            Stage::Program(running) => running.watch(told).await,
            Stage::Link { from, to } => link(from, to, told).await,
            Stage::Feed { from, to } => feed(from, to, told).await,
            Stage::Drain { from, to } => drain(from, to, told).await,
        }
    }
}

impl Running {
    async fn watch(self, mut told: watch::Receiver<Signal>) -> End {
        let Running { mut program, text } = self;
        if let Some(errors) = program.errors.take() {
            let text = text.clone();
            tokio::spawn(async move { programs::log_errors(errors, &text).await });
        }
        let stopped = tokio::select! {
            biased;
            () = program.ended() => false,
            () = until(&mut told, &[Signal::Stop]) => true,
        };
        if stopped {
            program.stop().await;
        }
        match programs::exit_text(program.finish()) {
            how if stopped => tracing::debug!(program = %text, "stopped: {how}"),
            how if how.is_empty() => tracing::info!(program = %text, "ended"),
            how => tracing::warn!(program = %text, "ended: {how}"),
        }
        End::Target
    }
}

/// Run what carries messages until it ends by itself or is told to; told to close, its source takes nothing new.
async fn carry(source: Option<ReaderEnd>, work: impl Future<Output = End>, mut told: watch::Receiver<Signal>) -> End {
    let mut asked = vec![Signal::Stop];
    asked.extend(source.is_some().then_some(Signal::Close));
    tokio::pin!(work);
    tokio::select! {
        end = &mut work => return end,
        () = until(&mut told, &asked) => {}
    }
    let signal = *told.borrow();
    if signal == Signal::Close {
        source.iter().for_each(ReaderEnd::close);
        tokio::select! {
            end = &mut work => return end,
            () = until(&mut told, &[Signal::Stop]) => {}
        }
    }
    End::Source
}

async fn link(mut from: Reader, to: Writer, told: watch::Receiver<Signal>) -> End {
    let end = from.end();
    let work = async {
        while let Some(message) = from.recv().await {
            if to.send(message).await.is_err() {
                return End::Target;
            }
        }
        End::Source
    };
    carry(Some(end), work, told).await
}

async fn feed(mut from: Reader, to: Sender, told: watch::Receiver<Signal>) -> End {
    let end = from.end();
    let work = async {
        let mut to = BufWriter::with_capacity(64 << 10, to);
        while let Some(message) = from.recv().await {
            let written = async {
                to.write_all(&message).await?;
                to.write_all(b"\n").await?;
                // Several that wait go in one piece.
                if from.is_empty() { to.flush().await } else { Ok(()) }
            };
            if written.await.is_err() {
                return End::Target;
            }
        }
        if to.flush().await.is_ok() { End::Source } else { End::Target }
    };
    carry(Some(end), work, told).await
}

async fn drain(from: Receiver, to: Writer, told: watch::Receiver<Signal>) -> End {
    let work = async {
        let mut from = BufReader::with_capacity(64 << 10, from);
        while let Ok(Some(line)) = programs::next_line(&mut from, MAX_MESSAGE).await {
            if to.send(line.into()).await.is_err() {
                return End::Target;
            }
        }
        End::Source
    };
    carry(None, work, told).await
}
