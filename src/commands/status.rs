//! `status updates`

use std::time::Duration;

use crate::engine::{EngineError, go_duration};
use crate::language::declaration::Declaration;

use super::{Answer, Command};

/// The shortest time between two updates.
const SHORTEST: Duration = Duration::from_millis(10);

/// A duration as `5s`, `500ms` or `1m30s`, or a number of seconds; None for 0.
fn frequency(text: &str) -> Result<Option<Duration>, EngineError> {
    let wrong = || EngineError::Frequency { text: text.to_owned() };
    let duration = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(u64::from(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|_| wrong())?,
    };
    match duration {
        Duration::ZERO => Ok(None),
        duration if duration < SHORTEST => Err(wrong()),
        duration => Ok(Some(duration)),
    }
}

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "status updates",
            &["status updates [frequency]"],
            "show or set how often a long command tells how far it is",
            "With a duration (`5s`, `500ms`, or a number of seconds), every command that runs that long sends progress to its \
             client at that pace, before its answer: for how long it runs, how many VMs of a launch, a start or a kill are \
             done, how much of a download is here. With 0, none. Without an argument, shows the value. Default: 0s. For \
             every client of this daemon; those that do not know such frames skip them.\n\n    status updates 5s",
        )
        .local(),
        |call| async move {
            let mut held = call.shared.status_updates.lock().expect("no code panics while it holds the frequency");
            match call.args.str("frequency") {
                None => Ok(Answer::text(go_duration(held.unwrap_or_default()))),
                Some(text) => {
                    *held = frequency(text)?;
                    Ok(Answer::done())
                }
            }
        },
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies() {
        assert_eq!(frequency("0").unwrap(), None);
        assert_eq!(frequency("0s").unwrap(), None);
        assert_eq!(frequency("5").unwrap(), Some(Duration::from_secs(5)));
        assert_eq!(frequency("1m30s").unwrap(), Some(Duration::from_secs(90)));
        assert_eq!(frequency("250ms").unwrap(), Some(Duration::from_millis(250)));
        for text in ["", "-1", "often", "1ns", "5 parsecs"] {
            let error = frequency(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
