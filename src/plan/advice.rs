//! What the journal remembers and the target does not tell. Advice only: a plan without it is safe, but knows less.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use crate::language::qos::Qos;
use crate::language::{range, token};
use crate::live::Facts;
use crate::name::Kind;

/// What was done on this machine before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// The taps that megaform made for the experiment and did not remove, by name.
    pub taps: BTreeMap<String, TapAdvice>,
    /// The raw commands that were run and not taken back, by the names of their entries.
    pub commands: BTreeMap<String, CommandAdvice>,
    /// What megaform made of bridges, ways out, dnsmasq servers, mirrors and captures, by kind and name.
    pub objects: BTreeMap<(Kind, String), Made>,
    /// The taps and objects among these that are known to have been there: the command that made them was answered without
    /// an error, and none that removes them was sent since.
    pub there: BTreeSet<(Kind, String)>,
    /// Those of them of which it is not known whether the command that makes them was carried out.
    pub unsure: BTreeSet<(Kind, String)>,
    /// What NICs were last shaped by, by VM and index.
    pub qos: BTreeMap<(String, usize), Qos>,
}

/// What is remembered of an object that is a set of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// What tells it from others of its kind.
    pub key: String,
    /// The settings that it was made with.
    pub facts: Facts,
}

/// What is remembered of a tap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TapAdvice {
    /// The address that it was made with, as `10.0.0.254/24`; None for none.
    pub address: Option<String>,
    /// It was made to ask for its address by DHCP.
    pub dhcp: bool,
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
                ["name", name] => Some(TapEffect::Made((*name).to_owned(), TapAdvice::default())),
                ["dhcp", name] => Some(TapEffect::Made((*name).to_owned(), TapAdvice { address: None, dhcp: true })),
                ["ip", ip, name] => Some(TapEffect::Made(
                    (*name).to_owned(),
                    TapAdvice { address: Some((*ip).to_owned()), dhcp: false },
                )),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The lines of an entry of raw commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLines {
    /// What makes it.
    pub create: Vec<String>,
    /// What takes it back.
    pub destroy: Vec<String>,
    /// The VMs that it needs.
    pub depends_on: Vec<String>,
}

/// What is remembered of an entry of raw commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAdvice {
    /// Its lines when it was run.
    pub lines: CommandLines,
    /// How many lines of `create` were answered without an error.
    pub created: usize,
    /// The answer to the next line of `create` or `destroy` is not known, though it was sent.
    pub unknown: bool,
    /// Why the next line of `create` failed.
    pub error: Option<String>,
    /// How many lines of `destroy` were answered since it began to be taken back; None if it did not. All, where the last
    /// one failed.
    pub destroyed: Option<usize>,
    /// VMs that it needs and that were launched since.
    pub launched: Vec<String>,
}

/// Which line of an entry of raw commands a step sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// A line of `create`.
    Create {
        /// The entry.
        name: String,
        /// The line, from 0.
        line: usize,
        /// The whole entry, with the first line that a plan sends of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lines: Option<CommandLines>,
    },
    /// A line of `destroy`.
    Destroy {
        /// The entry.
        name: String,
        /// The line, from 0.
        line: usize,
        /// It is the last.
        last: bool,
    },
    /// The first command that makes an object, or that makes something else of it.
    Make {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What it is then.
        made: Made,
        /// It was not there right before.
        new: bool,
        /// What is remembered of it before that, where it was there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<Made>,
        /// What the same command makes besides, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        others: BTreeMap<String, Made>,
    },
    /// The last command that removes an object.
    Unmake {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// What it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        was: Option<Made>,
        /// What the same command removes besides, by name.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        others: BTreeMap<String, Made>,
    },
}

impl Mark {
    /// It is a line of the user's own.
    pub fn is_raw(&self) -> bool {
        matches!(self, Self::Create { .. } | Self::Destroy { .. })
    }

    /// The mark of what takes the command with this mark back; None where nothing is to be remembered of that.
    pub fn reversed(&self) -> Option<Self> {
        match self.clone() {
            Self::Make { kind, name, made, new: true, others, .. } => {
                Some(Self::Unmake { kind, name, was: Some(made), others })
            }
            Self::Make { kind, name, made, was: Some(was), others, .. } => {
                Some(Self::Make { kind, name, made: was, new: false, was: Some(made), others })
            }
            Self::Unmake { kind, name, was: Some(made), others } => {
                Some(Self::Make { kind, name, made, new: true, was: None, others })
            }
            _ => None,
        }
    }
}

/// How the command of a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Without an error.
    Done,
    /// With an error.
    Failed(&'a str),
    /// It is not known.
    Lost,
}

impl CommandAdvice {
    /// Nothing is left to do to take it back.
    pub fn is_taken_back(&self) -> bool {
        self.destroyed.is_some_and(|lines| lines >= self.lines.destroy.len())
    }
}

impl Advice {
    /// Note that a command is about to be sent: it may be carried out, even if nobody lives to note it.
    pub fn sent(&mut self, command: &str, mark: Option<&Mark>) {
        self.shaped(command);
        match mark {
            Some(Mark::Create { name, line, lines }) => {
                if let Some(lines) = lines {
                    let new = CommandAdvice { lines: lines.clone(), created: *line, ..CommandAdvice::default() };
                    self.commands.insert(name.clone(), new);
                }
                if let Some(entry) = self.commands.get_mut(name) {
                    (entry.unknown, entry.error) = (true, None);
                }
            }
            Some(Mark::Destroy { name, line, .. }) => {
                if let Some(entry) = self.commands.get_mut(name) {
                    (entry.unknown, entry.destroyed) = (true, Some(*line));
                }
            }
            Some(Mark::Make { kind, name, made, others, .. }) => {
                for (name, made) in std::iter::once((name, made)).chain(others) {
                    self.there.remove(&(*kind, name.clone()));
                    self.unsure.insert((*kind, name.clone()));
                    self.objects.insert((*kind, name.clone()), made.clone());
                }
            }
            Some(Mark::Unmake { kind, name, others, .. }) => {
                for name in std::iter::once(name).chain(others.keys()) {
                    self.there.remove(&(*kind, name.clone()));
                }
            }
            None if self.commands.is_empty() => {}
            None => {
                for vm in launched(command) {
                    for entry in self.commands.values_mut() {
                        if entry.lines.depends_on.contains(&vm) && !entry.launched.contains(&vm) {
                            entry.launched.push(vm.clone());
                        }
                    }
                }
            }
        }
    }

    /// Note that a command that makes or removes a tap is about to be sent. What was known of the tap that it makes.
    pub fn tap_sent(&mut self, command: &str) -> Option<(String, Option<TapAdvice>)> {
        let effect = tap_effect(command)?;
        let (TapEffect::Made(name, _) | TapEffect::Removed(name)) = &effect;
        self.there.remove(&(Kind::Tap, name.clone()));
        let TapEffect::Made(name, tap) = effect else { return None };
        let before = self.taps.insert(name.clone(), tap);
        Some((name, before))
    }

    /// Note that a command was answered without an error, if it makes or removes a tap.
    pub fn tap_done(&mut self, command: &str) {
        match tap_effect(command) {
            Some(TapEffect::Made(name, _)) => drop(self.there.insert((Kind::Tap, name))),
            Some(TapEffect::Removed(name)) => drop(self.taps.remove(&name)),
            None => {}
        }
    }

    /// Note what a command shapes, for telling later whether somebody changed it.
    fn shaped(&mut self, command: &str) {
        let fits = [" qos ", " vm flush "].iter().any(|part| command.contains(part));
        if !fits {
            return;
        }
        let words: Vec<String> = token::tokenize(command).unwrap_or_default().into_iter().map(|w| w.text).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (target, index, set) = match words.as_slice() {
            ["namespace", _, "vm", "flush", target] => {
                let gone = range::expand(target).unwrap_or_default();
                self.qos.retain(|(vm, _), _| !gone.contains(vm));
                return;
            }
            ["namespace", _, "clear", "qos", target, index] => (target, index, Some(Qos::default())),
            ["namespace", _, "qos", "set", target, index, settings @ ..] => {
                (target, index, Qos::read(&settings.join(" ")))
            }
            ["namespace", _, "qos", "add", target, index, ..] => (target, index, None),
            _ => return,
        };
        let Ok(index) = index.parse::<usize>() else { return };
        let added = if words[3] == "add" { Qos::read(&words[6..].join(" ")) } else { None };
        for vm in range::expand(target).unwrap_or_default() {
            let of = self.qos.entry((vm, index)).or_default();
            *of = match (set, added) {
                (Some(set), _) => set,
                // A rate and the others replace one another.
                (None, Some(added)) if added.rate.is_some() => added,
                (None, Some(added)) => added.over(Qos { rate: None, ..*of }),
                (None, None) => *of,
            };
        }
    }

    /// Note how it ended. A line of `destroy` that failed is not tried again.
    pub fn answered(&mut self, mark: &Mark, answer: Answer<'_>) {
        let named = match mark {
            Mark::Make { kind, name, others, .. } => Some((*kind, name, others.keys().collect::<Vec<_>>())),
            Mark::Unmake { kind, name, others, .. } => Some((*kind, name, others.keys().collect())),
            _ => None,
        };
        // What could not be removed may be there or not, as before.
        let settles = match answer {
            Answer::Done => true,
            Answer::Failed(_) => matches!(mark, Mark::Make { .. }),
            Answer::Lost => false,
        };
        if let Some((kind, name, others)) = named.filter(|_| settles) {
            for name in std::iter::once(name).chain(others) {
                self.unsure.remove(&(kind, name.clone()));
            }
        }
        match (mark, answer) {
            // Its commands are one setting each.
            (Mark::Make { kind: Kind::Pipe, name, new: false, was: Some(was), .. }, Answer::Failed(_)) => {
                self.objects.insert((Kind::Pipe, name.clone()), was.clone());
            }
            (Mark::Make { kind, name, new: true, others, .. }, Answer::Failed(_))
            | (Mark::Unmake { kind, name, others, .. }, Answer::Done) => {
                for name in std::iter::once(name).chain(others.keys()) {
                    self.objects.remove(&(*kind, name.clone()));
                }
            }
            (Mark::Make { kind, name, others, .. }, Answer::Done) => {
                self.there.extend(std::iter::once(name).chain(others.keys()).map(|name| (*kind, name.clone())));
            }
            _ => {}
        }
        let (Mark::Create { name, .. } | Mark::Destroy { name, .. }) = mark else { return };
        let Some(entry) = self.commands.get_mut(name) else { return };
        entry.unknown = answer == Answer::Lost;
        match (mark, answer) {
            (_, Answer::Lost) => {}
            (Mark::Create { line, .. }, Answer::Done) => entry.created = line + 1,
            (Mark::Create { .. }, Answer::Failed(error)) => entry.error = Some(error.to_owned()),
            (Mark::Destroy { last: true, .. }, Answer::Done) => {
                self.commands.remove(name);
            }
            (Mark::Destroy { line, .. }, _) => entry.destroyed = Some(line + 1),
            (Mark::Make { .. } | Mark::Unmake { .. }, _) => {}
        }
    }
}

/// The VMs that a command launches.
fn launched(command: &str) -> Vec<String> {
    if !command.contains(" vm launch ") {
        return Vec::new();
    }
    let words: Vec<String> = token::tokenize(command).unwrap_or_default().into_iter().map(|w| w.text).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["namespace", _, "vm", "launch", _, target] => range::expand(target).unwrap_or_default(),
        _ => Vec::new(),
    }
}
