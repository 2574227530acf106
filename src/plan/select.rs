//! Which objects a plan is about: `--target`, `--exclude`, `--replace`. What a target needs comes along, and what needs
//! an excluded object stays out with it; for a destroy it is the other way round.

use std::str::FromStr;

use foldhash::HashSet;

use super::ownership;
use crate::diagnostic::{Diagnostic, Severity};
use crate::graph::{Graph, Reach};
use crate::language::range::{self, RangeError};
use crate::live::Live;
use crate::name::{Address, Kind};
use crate::spec::model::Experiment;
use crate::spec::suggest::Suggester;

/// The name of the range of tags as an object: `vlan.*`.
pub const RANGE: &str = "*";

/// Addresses as a user gives them: `vm.web3`, `vm.web[0-9]`, `tap.mgmt`, `vlan.dmz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    text: String,
    kind: Kind,
    names: Vec<String>,
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error)]
pub enum SelectorError {
    /// It has no kind.
    #[error("`{text}` does not say of what kind it is, expected KIND.{text}, where KIND is {}", kinds())]
    Bare {
        /// The text.
        text: String,
    },
    /// There is no such kind.
    #[error("`{word}` is no kind of object, expected {}{}", kinds(), hint(nearest))]
    Kind {
        /// What stands for the kind.
        word: String,
        /// A kind that was perhaps meant.
        nearest: Option<String>,
    },
    /// The names are no names or ranges.
    #[error("`{text}` has no names that can be read")]
    Names {
        /// The text.
        text: String,
        /// Why not.
        #[source]
        source: RangeError,
    },
    /// The range stands for nothing.
    #[error("`{text}` stands for nothing; the low end of a range comes first, as in web[0-9]")]
    Empty {
        /// The text.
        text: String,
    },
}

/// The words of the kinds.
fn kinds() -> String {
    let [kinds @ .., last] = Kind::ALL.map(Kind::word);
    format!("{} or {last}", kinds.join(", "))
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default()
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let text = text.trim();
        let Some((word, names)) = text.split_once('.') else {
            return Err(SelectorError::Bare { text: text.to_owned() });
        };
        let Some(kind) = Kind::from_word(word) else {
            let kinds = Kind::ALL.map(Kind::word);
            let nearest = Suggester::default().nearest(word, kinds).map(|kind| format!("{kind}.{names}"));
            return Err(SelectorError::Kind { word: word.to_owned(), nearest });
        };
        let expanded = range::expand(names).map_err(|source| SelectorError::Names { text: text.to_owned(), source })?;
        if expanded.is_empty() {
            return Err(SelectorError::Empty { text: text.to_owned() });
        }
        Ok(Self { text: text.to_owned(), kind, names: expanded })
    }
}

/// What the user chose; everything, where nothing is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these, and what they need.
    pub targets: Vec<Selector>,
    /// Not these, nor what needs them.
    pub excludes: Vec<Selector>,
    /// These are made anew whatever they are like.
    pub replaces: Vec<Selector>,
}

impl Selection {
    /// The plan leaves something out.
    pub fn is_partial(&self) -> bool {
        !self.targets.is_empty() || !self.excludes.is_empty()
    }
}

/// Names by kind, for looking up without making an address.
#[derive(Debug, Default)]
struct Names([HashSet<String>; Kind::ALL.len()]);

impl Names {
    fn of(addresses: impl IntoIterator<Item = Address>) -> Self {
        let mut names = Self::default();
        for address in addresses {
            names.0[address.kind as usize].insert(address.name);
        }
        names
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.0[kind as usize].contains(name)
    }
}

/// A selection, held against what there is.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// None for everything.
    only: Option<Names>,
    without: Names,
    replace: Names,
    /// Sentences for the plan.
    pub notes: Vec<String>,
    /// Addresses that are none.
    pub problems: Vec<Diagnostic>,
}

impl Scope {
    /// Hold a selection against the experiment and what is live. A verification after the steps accepts addresses of
    /// what is gone by then, and replaces nothing again.
    pub fn new(
        selection: &Selection,
        experiment: &Experiment,
        graph: &Graph,
        live: &Live,
        owned: &dyn Fn(Kind, &str) -> bool,
        (destroy, verifying): (bool, bool),
    ) -> Self {
        let mut scope = Self::default();
        if *selection == Selection::default() {
            return scope;
        }
        if !verifying {
            for selector in [&selection.targets, &selection.excludes, &selection.replaces].into_iter().flatten() {
                scope.problems.extend(check(selector, experiment, live, owned));
            }
            for selector in &selection.replaces {
                let (what, instead) = match selector.kind {
                    Kind::Vlan => (
                        "a VLAN alias",
                        "everything else of the experiment can; give the alias another tag in the file",
                    ),
                    Kind::Placement => {
                        ("a setting of the namespace", "VMs, taps, raw commands and what is on a network can")
                    }
                    _ => continue,
                };
                let message = format!("`--replace {}`: {what} cannot be made anew", selector.text);
                let hint = instead.to_owned();
                scope.problems.push(problem("cannot-replace", message, hint));
            }
            scope.replace = Names::of(addresses(&selection.replaces));
        }
        // A VM is not removed under those that depend on it, and not made before what it depends on.
        let (along, out) = if destroy { (Reach::NeededBy, Reach::Needs) } else { (Reach::Needs, Reach::NeededBy) };
        let (mut along_too, mut out_too) = (Vec::new(), Vec::new());
        if !selection.excludes.is_empty() {
            let named = with_former(addresses(&selection.excludes), experiment, live);
            let all = graph.closure(&named, out);
            out_too = all.difference(&named).cloned().collect();
            scope.without = Names::of(with_former(all.into_iter().chain(named), experiment, live));
        }
        if !selection.targets.is_empty() {
            let named = with_former(addresses(&selection.targets), experiment, live);
            let all = graph.closure(&named, along);
            along_too = all.difference(&named).filter(|a| !scope.without.has(a.kind, &a.name)).cloned().collect();
            scope.only = Some(Names::of(with_former(all.into_iter().chain(named), experiment, live)));
        }
        scope.note(selection, destroy, &along_too, &out_too);
        scope
    }

    fn note(&mut self, selection: &Selection, destroy: bool, along: &[Address], out: &[Address]) {
        let given = |selectors: &[Selector]| selectors.iter().map(|s| s.text.clone()).collect::<Vec<_>>().join(", ");
        if !selection.targets.is_empty() {
            let mut note = format!("only a part is planned and verified: {}", given(&selection.targets));
            if !along.is_empty() {
                let why = if destroy { "what needs that" } else { "what that needs" };
                note.push_str(&format!("; and {why}: {}", list(along)));
            }
            self.notes.push(note);
        }
        if !selection.excludes.is_empty() {
            let mut note = format!("left out of plan and verification: {}", given(&selection.excludes));
            if !out.is_empty() {
                let why = if destroy { "what that needs" } else { "what needs that" };
                note.push_str(&format!("; and {why}: {}", list(out)));
            }
            self.notes.push(note);
        }
    }

    /// Whether the plan is about an object.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.has(kind, name)) && !self.without.has(kind, name)
    }

    /// Whether an object was left out by name, or went out with one that was.
    pub fn excludes(&self, kind: Kind, name: &str) -> bool {
        self.without.has(kind, name)
    }

    /// Whether an object was chosen by name, or came along with one that was.
    pub fn chosen(&self, kind: Kind, name: &str) -> bool {
        self.only.as_ref().is_some_and(|only| only.has(kind, name)) && !self.without.has(kind, name)
    }

    /// Whether an object is to be made anew whatever it is like.
    pub fn replaces(&self, kind: Kind, name: &str) -> bool {
        self.replace.has(kind, name)
    }
}

fn addresses(selectors: &[Selector]) -> impl Iterator<Item = Address> {
    selectors.iter().flat_map(|s| s.names.iter().map(|name| Address { kind: s.kind, name: name.clone() }))
}

/// The same with the other name of each VM that a plan would rename: the old VM and the new one are one object, so that
/// whoever leaves out one of them leaves out both.
fn with_former(addresses: impl Iterator<Item = Address>, experiment: &Experiment, live: &Live) -> HashSet<Address> {
    let mut all: HashSet<Address> = addresses.collect();
    for (name, vm) in &experiment.vms {
        let Some(old) = &vm.renamed_from else { continue };
        if live.vms.contains_key(name.as_str()) || !live.vms.contains_key(old.as_str()) {
            continue;
        }
        let names = [Address::vm(name), Address::vm(&old.value)];
        if names.iter().any(|address| all.contains(address)) {
            all.extend(names);
        }
    }
    all
}

/// Addresses on one line, sorted, with names as ranges.
pub fn list<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> String {
    let mut kinds: std::collections::BTreeMap<Kind, Vec<&str>> = std::collections::BTreeMap::new();
    for address in addresses {
        kinds.entry(address.kind).or_default().push(&address.name);
    }
    let kinds: Vec<String> =
        kinds.into_iter().map(|(kind, names)| format!("{kind}.{}", range::compress(&names))).collect();
    kinds.join(", ")
}

fn problem(code: &'static str, message: String, hint: String) -> Diagnostic {
    Diagnostic { severity: Severity::Error, code, message, span: None, labels: Vec::new(), hint: Some(hint) }
}

/// What is wrong with the names of one selector.
fn check(
    selector: &Selector,
    experiment: &Experiment,
    live: &Live,
    owned: &dyn Fn(Kind, &str) -> bool,
) -> Option<Diagnostic> {
    let owned_vm = |name: &str| live.vms.get(name).is_some_and(|vm| ownership::owns(&experiment.name.value, vm));
    let kind = selector.kind;
    let known = |name: &str| match kind {
        Kind::Vm => experiment.vms.contains_key(name) || owned_vm(name),
        Kind::Tap => experiment.taps.contains_key(name) || (live.taps.contains_key(name) && owned(Kind::Tap, name)),
        Kind::Vlan if name == RANGE => experiment.vlan_range.is_some() || !experiment.vlan_blacklist.is_empty(),
        Kind::Vlan => experiment.vlans.contains_key(name) || live.vlans.contains_key(name),
        kind => experiment.declares(kind, name) || owned(kind, name),
    };
    let unknown: Vec<&str> = selector.names.iter().map(String::as_str).filter(|name| !known(name)).collect();
    let first = *unknown.first()?;
    let address = format!("{kind}.{}", range::compress(&unknown));
    let foreign = match kind {
        Kind::Vm => live.vms.contains_key(first),
        Kind::Tap => live.taps.contains_key(first),
        _ => false,
    };
    if foreign {
        let message = format!("`{address}` is there but does not belong to experiment `{}`", experiment.name.value);
        return Some(problem("unmanaged-address", message, "megaform leaves what is not its own alone".to_owned()));
    }
    let near = nearest(kind, first, experiment, live);
    // The right name under another kind is as likely a slip as a wrong letter.
    let kinds = [Kind::Vm, Kind::Tap].into_iter().chain(Kind::ALL);
    let elsewhere = { kinds }.find(|kind| experiment.declares(*kind, first)).map(|kind| format!("{kind}.{first}"));
    let hint = match elsewhere.or_else(|| near.map(|name| format!("{kind}.{name}"))) {
        Some(other) => format!("did you mean `{other}`?"),
        None => "`megaform plan -v FILE` lists every address".to_owned(),
    };
    Some(problem("unknown-address", format!("there is no `{address}`, neither in the file nor live"), hint))
}

fn nearest(kind: Kind, name: &str, experiment: &Experiment, live: &Live) -> Option<String> {
    let mut names: Vec<&str> = match kind {
        Kind::Vm => live.vms.keys().map(String::as_str).collect(),
        Kind::Tap => live.taps.keys().map(String::as_str).collect(),
        Kind::Vlan => live.vlans.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    names.extend(experiment.names(kind));
    names.sort_unstable();
    names.dedup();
    Suggester::default().nearest(name, names).map(str::to_owned)
}
