//! One message as a line: `2026-11-22T18:00:00.000Z  INFO message key=value`.

use std::fmt::Write as _;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// One message.
pub(super) struct Line {
    time: SystemTime,
    level: Level,
    fatal: bool,
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Quoted where it would not be one word.
        if field.name() != "message" && (value.is_empty() || value.contains([' ', '"', '='])) {
            self.record_debug(field, &value);
        } else {
            self.record_debug(field, &format_args!("{value}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // One message is one line and does nothing to a terminal, whatever is in it.
        let mut text = String::new();
        for character in format!("{value:?}").chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        if field.name() == "message" {
            self.message = text;
        } else {
            write!(self.fields, " {}={text}", field.name()).expect("a String takes every text");
        }
    }
}

impl Line {
    pub(super) fn of(event: &Event<'_>, fatal: bool) -> Self {
        let level = *event.metadata().level();
        let mut line = Self { time: SystemTime::now(), level, fatal, message: String::new(), fields: String::new() };
        event.record(&mut line);
        line
    }

    fn word(&self) -> &'static str {
        match self.level {
            _ if self.fatal => "FATAL",
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            Level::INFO => "INFO",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "TRACE",
        }
    }

    /// The message with its fields, without time and level.
    pub(super) fn body(&self) -> String {
        format!("{}{}", self.message, self.fields)
    }

    /// The time, as RFC 3339 has it.
    pub(super) fn time(&self) -> String {
        humantime::format_rfc3339_millis(self.time).to_string()
    }

    /// The severity of RFC 5424.
    pub(super) fn severity(&self) -> u8 {
        match self.level {
            _ if self.fatal => 2,
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        }
    }

    /// The line, without its end.
    pub(super) fn text(&self) -> String {
        format!("{} {:>5} {}{}", self.time(), self.word(), self.message, self.fields)
    }

    /// The same for a terminal.
    pub(super) fn coloured(&self) -> String {
        let colour = match self.level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            Level::DEBUG | Level::TRACE => 34,
        };
        format!(
            "\x1b[2m{}\x1b[0m \x1b[{colour}m{:>5}\x1b[0m {}\x1b[2m{}\x1b[0m",
            self.time(),
            self.word(),
            self.message,
            self.fields
        )
    }
}
