//! The options that choose objects of an experiment, as `plan`, `apply` and `destroy` share them.

use clap::Args;

use crate::plan::{Selection, Selector};

/// Where help shows them.
const WHAT: &str = "Which objects";

/// Choose objects by address.
#[derive(Debug, Clone, Args)]
pub struct SelectArgs {
    /// Only this object and what it needs (for a destroy: what needs it); may be repeated. Addresses are those that plans
    /// show, such as vm.web3, tap.mgmt, capture.wire or command.edge, with ranges as in vm.web[0-9].
    #[arg(long = "target", value_name = "ADDRESS", help_heading = WHAT)]
    targets: Vec<Selector>,
    /// Not this object, nor what needs it (for a destroy: what it needs); may be repeated.
    #[arg(long = "exclude", value_name = "ADDRESS", help_heading = WHAT)]
    excludes: Vec<Selector>,
}

/// Choose objects to be made anew.
#[derive(Debug, Clone, Args)]
pub struct ReplaceArgs {
    /// Remove this object and make it again, or take these raw commands back and run them again, even if that is as it is to
    /// be; may be repeated. Anything but a VLAN alias.
    #[arg(long = "replace", value_name = "ADDRESS", help_heading = WHAT)]
    replaces: Vec<Selector>,
}

impl SelectArgs {
    /// The choice, with what is to be replaced.
    pub fn selection(&self, replace: Option<&ReplaceArgs>) -> Selection {
        Selection {
            targets: self.targets.clone(),
            excludes: self.excludes.clone(),
            replaces: replace.map(|r| r.replaces.clone()).unwrap_or_default(),
        }
    }
}
