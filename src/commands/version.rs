//! `version`

use crate::language::declaration::Declaration;

use super::{Answer, Command};

/// What `version` answers.
pub const VERSION: &str = concat!("megaform ", env!("CARGO_PKG_VERSION"), ", speaks minimega 3.1.0");

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new("version", &["version"], "show the version", "Shows the version of the daemon that answers.")
            .local(),
        |_| async { Ok(Answer::text(VERSION)) },
    )]
}
