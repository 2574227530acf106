//! The command language: tokens and quoting, patterns, the grammar, ranges, completion, help, the declaration of a
//! command, the `vm config` field table, and how answers are rendered.
//!
//! Must not know how any command is carried out, nor how bytes reach it.

pub mod alias;
pub mod compiled;
pub mod complete;
mod correction;
pub mod declaration;
pub mod diskspec;
pub mod entry;
pub mod field;
pub mod grammar;
pub mod help;
pub mod json;
pub mod netspec;
pub mod output;
pub mod pattern;
pub mod program;
pub mod qos;
pub mod range;
pub mod serial;
pub mod token;
pub mod variable;

pub use compiled::{Args, CompileError, Compiled, Invalid};
pub use grammar::Grammar;
pub use output::{OutputMode, render};
pub use token::{join, quote, tokenize};
