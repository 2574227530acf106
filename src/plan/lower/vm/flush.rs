//! Forgetting VMs that ended: those that are to go where the target can, else all of the namespace that ended.

use foldhash::{HashMap, HashSet};

use super::super::super::draft::{Draft, Extra, targets};
use super::super::super::{Expect, StepId};
use super::super::{FLUSH_TARGET, Scene};
use super::Vms;
use crate::language::range;

impl<'a> Vms<'a> {
    /// Flush what is to go, each after the step that kills it.
    pub(super) fn forget(&mut self, scene: &Scene<'a>, draft: &mut Draft, killed: &HashMap<&str, StepId>) {
        if self.flush.is_empty() {
            return;
        }
        let known = scene.knows(draft, &FLUSH_TARGET);
        if !known {
            self.keeps_what_ended(scene, draft);
        }
        let mut parts = targets(self.flush.clone());
        if !known {
            // One command for all, after every kill.
            let rest = parts.split_off(1);
            let names = rest.iter().flat_map(|part| part.names.iter().cloned());
            let serves = rest.iter().flat_map(|part| part.serves.iter().copied());
            parts[0].names = parts[0].names.iter().cloned().chain(names).collect();
            parts[0].serves = parts[0].serves.iter().copied().chain(serves).collect();
        }
        for part in parts {
            let mut needs: Vec<StepId> = part.names.iter().filter_map(|n| killed.get(n.as_str())).copied().collect();
            needs.sort_unstable();
            needs.dedup();
            let extra = Extra { needs, expect: Some(Expect::Gone { names: part.names.clone() }), ..Extra::default() };
            let words = ["vm", "flush", &part.text];
            let step = draft.step(&part.serves, &words[..if known { 3 } else { 2 }], extra);
            for name in part.names.iter() {
                if let Some((name, _)) = scene.live.vms.get_key_value(name) {
                    self.flushed.insert(name, step);
                }
            }
        }
    }

    /// Refuse to flush all where a VM has ended that is not to be forgotten.
    fn keeps_what_ended(&self, scene: &Scene<'a>, draft: &mut Draft) {
        let goes: HashSet<&str> = self.flush.iter().map(|(name, _)| *name).collect();
        let stays = scene.live.vms.values().filter(|vm| vm.has_ended() && !goes.contains(vm.name.as_str()));
        let stays: Vec<&str> = stays.map(|vm| vm.name.as_str()).collect();
        if stays.is_empty() {
            return;
        }
        let mut of: Vec<&str> = goes.into_iter().collect();
        of.sort_unstable();
        let message = format!(
            "vm.{} can only be forgotten by `vm flush`, which on the target forgets every VM that ended, also vm.{}",
            range::compress(&of),
            range::compress(&stays)
        );
        let hint = format!(
            "the target's release has no `vm flush` of one VM: start vm.{0} first (`--target vm.{0}` if the file has it), or flush it by hand",
            range::compress(&stays)
        );
        let span = of.iter().find_map(|name| Some(scene.experiment.vms.get(*name)?.span));
        draft.problems.push(scene.problem("target-lacks", span, message, hint));
    }
}
