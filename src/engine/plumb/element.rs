//! The elements of a pipeline: named pipes and programs.

use std::path::PathBuf;

use crate::engine::programs;
use crate::language::program;
use crate::name::Namespace;

use super::name::{PipeName, is_whole};
use super::{PlumbError, Quoted};

/// One element of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    /// A named pipe.
    Pipe(PipeName),
    /// A program.
    Program(Invocation),
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invocation {
    /// As the user wrote it.
    pub text: String,
    /// The file.
    pub path: PathBuf,
    /// The argument vector.
    pub words: Vec<String>,
}

/// The words of a program with its arguments.
pub(super) fn split(text: &str) -> Result<Vec<String>, PlumbError> {
    program::split(text).map_err(|quote| PlumbError::Quote { element: text.to_owned(), quote })
}

impl Element {
    /// Read an element: a program if its first word is one, else the name of a pipe. A name with blanks in it, or one
    /// that looks like a path, must be that of a pipe that `exists`, so that a mistyped program does not become a pipe.
    pub(super) fn parse(
        namespace: &Namespace,
        text: &str,
        exists: impl Fn(&PipeName) -> bool,
    ) -> Result<Self, PlumbError> {
        if is_whole(text) && !text.contains(char::is_whitespace) {
            return Ok(Self::Pipe(PipeName::whole(text)?));
        }
        let words = split(text);
        let program = words.as_ref().ok().and_then(|words| words.first()).cloned().unwrap_or_default();
        if let Some(path) = programs::find(&program) {
            return Ok(Self::Program(Invocation { text: text.to_owned(), path, words: words? }));
        }
        let name = PipeName::within(namespace, text)?;
        let doubtful = text.contains(char::is_whitespace) || text.starts_with(['/', '.']);
        if doubtful && !exists(&name) {
            words?;
            return Err(PlumbError::Neither { element: text.to_owned(), program });
        }
        Ok(Self::Pipe(name))
    }

    /// As the table of pipelines has it: a program as it was given, an odd name quoted.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Pipe(name) => Quoted(name.as_str()).to_string(),
            Self::Program(program) => program.text.clone(),
        }
    }

    /// The whole name of a pipe, or a program as it was given.
    pub(super) fn given(&self) -> String {
        match self {
            Self::Pipe(name) => name.as_str().to_owned(),
            Self::Program(program) => program.text.clone(),
        }
    }

    /// What is left of [`Element::shown`] when it was taken for words of a command and they are joined by blanks.
    pub(super) fn plain(&self) -> String {
        match self {
            Self::Pipe(name) => name.as_str().to_owned(),
            Self::Program(program) => program.words.join(" "),
        }
    }

    /// Does a word of `clear plumb` mean this element?
    pub(super) fn is(&self, namespace: &Namespace, word: &str) -> bool {
        match self {
            Self::Pipe(name) => PipeName::within(namespace, word).is_ok_and(|asked| asked == *name),
            Self::Program(program) => program.text == word,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Element, PlumbError> {
        Element::parse(&Namespace::default_namespace(), text, |name| name.short() == "known pipe")
    }

    #[test]
    fn what_is_no_program_is_a_pipe_and_a_mistyped_program_an_error() {
        let pipe = |text: &str| matches!(parse(text), Ok(Element::Pipe(_)));
        assert!(pipe("foo") && pipe("minimega//cat") && pipe("known pipe") && pipe("a/b"));
        for program in ["cat", "/bin/sh", "sh -c 'exit 1'"] {
            assert!(matches!(parse(program), Ok(Element::Program(_))), "{program}");
        }
        let error = parse("sedd -u s/a/b/").unwrap_err().to_string();
        assert!(error.contains("`sedd`") && error.contains("sedd -u"), "{error}");
        assert!(matches!(parse("/no/such"), Err(PlumbError::Neither { .. })));
        assert!(parse("").is_err());
    }
}
