//! `quit`

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::EngineError;
use crate::language::declaration::Declaration;

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "quit",
            &["quit [delay]"],
            "end the daemon",
            "Answers and ends the daemon, at once or after a delay in seconds; commands that run then have two seconds to end. \
             A second `quit` replaces the delay of the first.\n\n\
             VMs are left running, as when the daemon gets SIGTERM, and the next daemon on the same base folder adopts them; \
             the answer says how many. To end them too, give `clear all` before.\n\n    quit 10",
        )
        .local(),
        |call| async move {
            let delay = match call.args.str("delay") {
                None => 0,
                Some(text) => text.parse::<u32>().map_err(|_| EngineError::Delay { text: text.to_owned() })?,
            };
            let engine = call.engine();
            let vms: usize = engine
                .namespaces()
                .iter()
                .map(|namespace| engine.vms(&namespace.name).iter().filter(|vm| vm.live().state.has_process()).count())
                .sum();
            tracing::info!(delay, vms, "quit");
            let after = Duration::from_secs(u64::from(delay));
            call.shared.quit.send_replace(Some(Instant::now() + after));
            Ok(match vms {
                0 => Answer::done(),
                _ => Answer::text(format!(
                    "{vms} VMs are left running; the next daemon on {} adopts them",
                    engine.base().display()
                )),
            })
        },
    )]
}
