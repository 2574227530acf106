//! What the journal remembers and the target does not tell. Advice only: a plan without it is safe, but knows less.

use std::collections::BTreeMap;

use crate::language::token;

/// What was done on this machine before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// The taps that megaform made for the experiment and did not remove, by name.
    pub taps: BTreeMap<String, TapAdvice>,
}

/// What is remembered of a tap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapAdvice {
    /// The address that it was made with, as `10.0.0.254/24`; None for none.
    pub address: Option<String>,
}

/// What a command does to a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TapEffect {
    /// It makes the tap of this name.
    Made(String, TapAdvice),
    /// It removes the tap of this name.
    Removed(String),
}

/// The effect of a command of a plan on a tap, if it has one.
pub fn tap_effect(command: &str) -> Option<TapEffect> {
    let words: Vec<String> = token::tokenize(command).ok()?.into_iter().map(|w| w.text).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["namespace", _, "tap", "delete", name] => Some(TapEffect::Removed((*name).to_owned())),
        ["namespace", _, "tap", "create", _, rest @ ..] => {
            let rest = if let ["bridge", _, rest @ ..] = rest { rest } else { rest };
            match rest {
                ["name", name] => Some(TapEffect::Made((*name).to_owned(), TapAdvice { address: None })),
                ["ip", ip, name] => {
                    Some(TapEffect::Made((*name).to_owned(), TapAdvice { address: Some((*ip).to_owned()) }))
                }
                _ => None,
            }
        }
        _ => None,
    }
}
