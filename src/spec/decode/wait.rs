//! `wait_for`: what must be seen of a VM before what depends on it goes on.

use std::net::{IpAddr, SocketAddr};

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::spec::model::WaitFor;
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
        let mut wait =
            WaitFor { span: node.span, timeout: DEFAULT_TIMEOUT, cc: false, ping: None, port: None, command: None };
        let mut conditions = 0;
        for (key, _, node) in entries {
            let at = At { key, owner: &what };
            conditions += usize::from(key != "timeout");
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
            self.push(diagnostic.hint("give one of `ping`, `port`, `cc` and `command`, or leave `wait_for` out"));
            return None;
        }
        Some(wait)
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
