//! References of raw commands.

use super::Checks;
use crate::diagnostic::Diagnostic;
use crate::name::VmName;

impl Checks<'_> {
    pub(super) fn commands(&mut self) {
        let draft = self.draft;
        for (name, entry) in &draft.commands {
            for other in entry.depends_on.iter().filter(|other| !draft.vms.contains_key(&other.value)) {
                let hint = match self.suggester.nearest(other.as_str(), draft.vms.keys().map(VmName::as_str)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!("add `{}` to `vms`, or remove it here", other.value),
                };
                let message = format!("command `{name}` depends on the VM `{}`, which does not exist", other.value);
                self.push(Diagnostic::error("unknown-vm", other.span, message).hint(hint));
            }
        }
    }
}
