//! How raw answers are shown: colours, and what to write instead of a line that is no command.

use std::io::IsTerminal;

use crate::commands;
use crate::language::CompileError;
use crate::wire::Response;

/// Escape sequences for one stream, or nothing where they would not be understood or are not wanted.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Before an error's label.
    pub red: &'static str,
    /// Before a table's header.
    pub bold: &'static str,
    /// After either.
    pub plain: &'static str,
}

impl Style {
    /// For a stream: colours if it is a terminal and NO_COLOR is not set (see no-color.org).
    pub fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if stream.is_terminal() && !refused {
            Self { red: "\x1b[31m", bold: "\x1b[1m", plain: "\x1b[0m" }
        } else {
            Self { red: "", bold: "", plain: "" }
        }
    }

    /// The text of a response, its first header in bold.
    pub fn answer(&self, response: &Response) -> String {
        let text = response.rendered.trim_end_matches('\n');
        match text.split_once('\n') {
            Some((first, rest)) if !self.bold.is_empty() && is_header(first, response) => {
                format!("{}{first}{}\n{rest}", self.bold, self.plain)
            }
            _ => text.to_owned(),
        }
    }
}

/// The texts of the entries that failed, such as what a program wrote that `shell` ran: `Rendered` is without them, unless
/// it is JSON.
pub fn beside_errors(response: &Response) -> impl Iterator<Item = &str> {
    let json = response.rendered.starts_with("[{\"Host\":");
    let failed = response.resp.iter().flatten().filter(move |entry| !json && !entry.error.is_empty());
    failed.map(|entry| entry.response.trim_end_matches('\n')).filter(|text| !text.is_empty())
}

/// Whether a line is the header of a table in the response.
pub fn is_header(line: &str, response: &Response) -> bool {
    let mut names: Vec<&str> = line.split('|').map(str::trim).collect();
    let tables = response.resp.iter().flatten().filter_map(|entry| entry.header.as_ref());
    let mut tables = tables.map(|header| header.iter().map(String::as_str).collect::<Vec<_>>());
    let bare = names.clone();
    if names.first() == Some(&"host") {
        names.remove(0);
    }
    tables.any(|header| header == names || header == bare)
}

/// What to write instead of a line that its target called invalid, as megaform's own grammar sees it. None if it is a
/// command for megaform, if the error is another one, if the error says it already, or if megaform does not know the first
/// word: the target may have commands that megaform's engine does not have.
pub fn advice(line: &str, error: &str) -> Option<String> {
    if !error.starts_with("invalid command: ") || error.ends_with('?') {
        return None;
    }
    match commands::grammar(&commands::all()).compile(line) {
        Err(CompileError::Invalid(invalid)) if !invalid.is_unknown() => Some(invalid.advice()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::entry::Entry;

    #[test]
    fn advice_is_for_invalid_commands_that_are_not_explained() {
        let said = advice("tap create", "invalid command: `tap create`");
        assert_eq!(said.as_deref(), Some("the command is not complete, expected `<vlan>`"));
        assert_eq!(advice("tap create", "vm not found: x"), None);
        assert_eq!(advice("vm inof", "invalid command: `vm inof`, did you mean `vm info`?"), None);
        assert_eq!(advice("vm info", "invalid command: `vm info`"), None);
        assert_eq!(advice("vnc bogus", "invalid command: `vnc bogus`"), None);
    }

    #[test]
    fn only_the_header_of_a_table_is_one() {
        let entry = Entry { header: Some(vec!["id".into(), "name".into()]), ..Entry::default() };
        let response = Response { resp: Some(vec![entry]), ..Response::default() };
        assert!(is_header("host | id | name", &response) && is_header("id | name", &response));
        assert!(!is_header("host | 0  | web0", &response) && !is_header("id,name", &response));
        let style = Style { red: "", bold: "<", plain: ">" };
        let table = Response { rendered: "id | name\n0  | a\n".into(), ..response };
        assert_eq!(style.answer(&table), "<id | name>\n0  | a");
    }
}
