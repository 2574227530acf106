//! megaform: a declarative engine for VM and container testbeds, and a minimega-compatible host engine.
//!
//! One binary, two halves, one wire between them:
//!
//! ```text
//!  experiment file ─ spec ─ graph ─┐                                ┌─ engine ─ host, qmp, ovsdb
//!                                  ├─ plan ─ apply ─ wire ═ socket ═ daemon
//!                  live (observed)─┘          ▲                     └─ commands
//!                                             │
//!          -e, run, any minimega client ──────┘
//! ```
//!
//! The declarative half (`spec`, `graph`, `live`, `plan`, `apply`) knows only the command language and the wire, so it
//! works the same against megaform's own engine and against a minimega. The engine half (`daemon`, `commands`,
//! `engine`, `host`, `qmp`, `ovsdb`) is a minimega-compatible host engine. They share `name`, `diagnostic`, `language` and
//! `wire`, nothing else; `logging` is the daemon's log. `tests/architecture.rs` holds the table of allowed edges.

pub mod apply;
pub mod cli;
pub mod commands;
pub mod daemon;
pub mod diagnostic;
pub mod engine;
pub mod generate;
pub mod graph;
pub mod host;
pub mod import;
pub mod language;
pub mod live;
pub mod logging;
pub mod name;
pub mod ovsdb;
pub mod plan;
pub mod qmp;
pub mod spec;
pub mod wire;
