//! `megaform explain`.

use clap::Args;

use super::experiment::{CommandError, print};
use crate::diagnostic::{CODES, Exit, code};

/// Explain the code of an error or warning, such as duplicate-mac.
///
/// Without a code, lists all of them.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The code, as it stands in brackets: error[duplicate-mac]
    code: Option<String>,
}

/// Run it.
pub fn run(args: &ExplainArgs) -> Result<Exit, CommandError> {
    let Some(name) = &args.code else {
        let width = CODES.iter().map(|code| code.code.len()).max().unwrap_or(0);
        let lines = CODES.iter().map(|c| format!("{:width$}  {:7}  {}\n", c.code, c.severity.to_string(), c.title));
        print(&lines.collect::<String>())?;
        return Ok(Exit::Success);
    };
    // As it is copied from a terminal.
    let name = name.trim_start_matches("error").trim_start_matches("warning").trim_matches(['[', ']', ':']);
    let Some(code) = code(name) else {
        let near = CODES.iter().map(|c| (strsim::damerau_levenshtein(c.code, name), c.code)).min();
        let hint = match near {
            Some((distance, near)) if distance <= name.len() / 3 + 1 => format!("did you mean `{near}`?"),
            _ => "`megaform explain` lists all".to_owned(),
        };
        return Err(CommandError::UnknownCode { code: name.to_owned(), hint });
    };
    let mut text = format!("{}[{}]: {}\n", code.severity, code.code, code.title);
    for line in code.text.lines() {
        text.push('\n');
        if line.starts_with("    ") {
            text.push_str(line);
        } else {
            text.push_str(&wrapped(line));
        }
    }
    text.push('\n');
    print(&text)?;
    Ok(Exit::Success)
}

/// A paragraph in lines of at most 80 characters.
fn wrapped(paragraph: &str) -> String {
    let (mut text, mut column) = (String::new(), 0);
    for word in paragraph.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > 80 {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}
