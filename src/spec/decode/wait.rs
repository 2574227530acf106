//! `wait_for`: what must be seen of a VM before what depends on it goes on.

use std::net::{IpAddr, SocketAddr};

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::language::serial::{Sought, SoughtError};
use crate::spec::model::{SerialText, WaitFor};
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

/// How long a condition may take if the file does not say, in seconds.
const DEFAULT_TIMEOUT: u32 = 120;
/// The longest time that can be given, in seconds.
const MAX_TIMEOUT: u64 = 86_400;

impl Decoder<'_> {
    pub(super) fn wait_for(&mut self, node: &Node, at: At<'_>) -> Option<WaitFor> {
        let what = at.to_string();
        let before = self.errors;
        let entries = self.section(node, &what, &keys::names(keys::WAIT_FOR))?;
        // A key that was refused may be the condition that is meant.
        let refused = self.errors > before;
        let mut wait = WaitFor {
            span: node.span,
            timeout: DEFAULT_TIMEOUT,
            cc: false,
            ping: None,
            port: None,
            command: None,
            serial: Vec::new(),
        };
        let mut conditions = 0;
        for (key, _, node) in entries {
            let at = At { key, owner: &what };
            // A list may have lost all its items to a `when`.
            let empty = matches!(&node.value, Value::List(list) if list.is_empty());
            conditions += usize::from(key != "timeout" && !empty);
            match key {
                "ping" => {
                    wait.ping =
                        self.parsed::<IpAddr>(node, at, "an address such as 10.0.0.5", "no IPv4 or IPv6 address");
                }
                "port" => {
                    let expected = "an address and a port such as 10.0.0.5:22";
                    wait.port = self.parsed::<SocketAddr>(node, at, expected, "no address and port");
                    if let Some(port) = wait.port.take_if(|port| port.value.port() == 0) {
                        let diagnostic = Diagnostic::error("invalid-value", port.span, format!("{at} has port 0"));
                        self.push(diagnostic.hint("a TCP port is a number from 1 to 65535"));
                    }
                }
                "command" => wait.command = self.line(node, at),
                "serial" => wait.serial = self.serial_texts(node, at),
                "cc" => wait.cc = self.bool(node, at).unwrap_or_default(),
                "timeout" => wait.timeout = self.seconds(node, at).unwrap_or(DEFAULT_TIMEOUT),
                other => unreachable!("`{other}` is not in the table of a wait's keys"),
            }
        }
        if conditions == 0 && refused {
            return None;
        }
        if conditions == 0 {
            let diagnostic = Diagnostic::error("missing-key", node.span, format!("{what} waits for nothing"));
            self.push(
                diagnostic.hint("give one of `ping`, `port`, `cc`, `command` and `serial`, or leave `wait_for` out"),
            );
            return None;
        }
        Some(wait)
    }

    /// What the guest is to write: one, or a list of them that has one.
    fn serial_texts(&mut self, node: &Node, at: At<'_>) -> Vec<SerialText> {
        let Value::List(list) = &node.value else { return self.serial_text(node, at).into_iter().collect() };
        let mut texts: Vec<SerialText> = Vec::new();
        for text in list.iter().filter_map(|item| self.serial_text(item, at)) {
            // Asking for the same twice says nothing more.
            if !texts.iter().any(|other| (other.port, &other.sought) == (text.port, &text.sought)) {
                texts.push(text);
            }
        }
        texts
    }

    fn serial_text(&mut self, node: &Node, at: At<'_>) -> Option<SerialText> {
        if !matches!(node.value, Value::Map(_)) {
            let sought = self.sought(node, at, false)?;
            return Some(SerialText { span: node.span, port: 0, sought });
        }
        let owner = format!("a serial text of {}", at.owner);
        let before = self.errors;
        let entries = self.section(node, &owner, &keys::names(keys::SERIAL))?;
        let (mut port, mut found) = (0, None::<(Sought, Span)>);
        for (key, span, node) in entries {
            let at = At { key, owner: &owner };
            match key {
                "port" => port = self.uint(node, at, 0, 255).unwrap_or_default(),
                "text" | "pattern" => {
                    let Some(sought) = self.sought(node, at, key == "pattern") else { continue };
                    if let Some((_, other)) = &found {
                        let message = format!("{owner} has a `text` and a `pattern`");
                        let diagnostic = Diagnostic::error("exclusive-keys", span, message);
                        self.push(diagnostic.label(*other, "the other one").hint("write a list of two texts"));
                    }
                    found = Some((sought, span));
                }
                other => unreachable!("`{other}` is not in the table of a serial text's keys"),
            }
        }
        if found.is_none() && self.errors == before {
            let diagnostic = Diagnostic::error("missing-key", node.span, format!("{owner} has no text"));
            self.push(diagnostic.hint("add `text` or `pattern`: what the guest is to write"));
        }
        found.map(|(sought, _)| SerialText { span: node.span, port, sought })
    }

    fn sought(&mut self, node: &Node, at: At<'_>, pattern: bool) -> Option<Sought> {
        let Value::String(text) = &node.value else {
            self.wrong_type(node, at, "text that the guest writes", true);
            return None;
        };
        let error = match if pattern { Sought::matches(text) } else { Sought::contains(text) } {
            Ok(sought) => return Some(sought),
            Err(error) => error,
        };
        let hint = match &error {
            SoughtError::Empty => "give the text that the guest is to write",
            SoughtError::TooLong { .. } => "give the part of it that tells",
            SoughtError::Control { found: '\r' } => "remove it: a line ends with `\\n` in what is kept",
            SoughtError::Control { .. } => "remove it",
            SoughtError::Pattern { .. } => "the syntax is that of the Rust crate regex; `text` is taken literally",
            SoughtError::Anything => "give a pattern that only the wanted text matches",
            SoughtError::Variable { .. } => {
                "as the end of a line, `$` cannot stand before a letter, a digit, `{` or one of `_*#$@!?-`"
            }
        };
        let span = match error {
            SoughtError::Pattern { at, .. } => self.inside(node, text, at),
            _ => node.span,
        };
        let text = shown(text);
        let message = match &error {
            SoughtError::Empty | SoughtError::TooLong { .. } => format!("{at}: {error}"),
            SoughtError::Pattern { .. } => format!("{at} is `{text}`, which is no regular expression: {error}"),
            _ => format!("{at} is `{text}`: {error}"),
        };
        let code = if matches!(error, SoughtError::Variable { .. }) { "not-carried" } else { "invalid-value" };
        self.push_once(Diagnostic::error(code, span, message).hint(hint));
        None
    }

    /// The place of a byte of a text, where it stands in the file as it is; that of the whole text otherwise.
    fn inside(&self, node: &Node, text: &str, at: usize) -> Span {
        let Span { source, start, end } = node.span;
        let written = self.sources.text(source).get(start..end).unwrap_or_default();
        let quotes = written.len().saturating_sub(text.len()) / 2;
        if written.get(quotes..quotes + text.len()) != Some(text) {
            return node.span;
        }
        let start = start + quotes + at;
        Span { source, start, end: start + text[at..].chars().next().map_or(0, char::len_utf8) }
    }

    /// Text that is read as a whole.
    fn parsed<T: std::str::FromStr>(
        &mut self,
        node: &Node,
        at: At<'_>,
        expected: &str,
        problem: &str,
    ) -> Option<Spanned<T>> {
        let Value::String(text) = &node.value else {
            self.wrong_type(node, at, expected, true);
            return None;
        };
        let Ok(value) = text.parse() else {
            let message = format!("{at} is `{}`, which is {problem}", shown(text));
            self.push(Diagnostic::error("invalid-value", node.span, message).hint(format!("write {expected}")));
            return None;
        };
        Some(Spanned::new(value, node.span))
    }

    /// A number of seconds, or text with units, as in `90`, `90s` and `1h 30m`.
    fn seconds(&mut self, node: &Node, at: At<'_>) -> Option<u32> {
        let seconds = match &node.value {
            Value::String(text) => match humantime::parse_duration(text) {
                Ok(duration) if duration.subsec_nanos() == 0 => duration.as_secs(),
                _ => {
                    let message = format!("{at} is `{}`, which is no time in whole seconds", shown(text));
                    let hint = "write seconds such as 90, or text with units such as \"90s\", \"5m\" or \"1h 30m\"";
                    self.push(Diagnostic::error("invalid-value", node.span, message).hint(hint));
                    return None;
                }
            },
            _ => return self.uint(node, at, 1, MAX_TIMEOUT).and_then(|seconds| seconds.try_into().ok()),
        };
        if !(1..=MAX_TIMEOUT).contains(&seconds) {
            let message = format!("{at} is {seconds} seconds, expected 1 second to 1 day");
            self.push(Diagnostic::error("out-of-range", node.span, message));
            return None;
        }
        u32::try_from(seconds).ok()
    }
}
