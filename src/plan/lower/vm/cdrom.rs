//! Another image in the CD-ROM drive of a VM that runs, where nothing else differs that only a launch can set.
//!
//! The digest of a VM covers the image. It is replaced by one that leaves the image out before the image is changed, and by
//! the whole one afterwards, so that a plan which ends anywhere in between tells the next one what is known and what is not.

use std::sync::Arc;

use foldhash::HashMap;

use super::super::super::draft::{Draft, Extra, Members, targets};
use super::super::super::{Reason, StepId, Undo, ownership};
use super::super::Scene;
use super::class::Class;
use super::{guard, tag_undo};
use crate::language::field::FieldValue;
use crate::live::LiveVm;
use crate::spec::model::{Vm, VmBody};

/// The field.
const FIELD: &str = "cdrom";
/// The words whose help tells what can be done to the drive of a VM that runs.
pub(super) const HELP: &str = "vm cdrom";
/// The form that changes the image.
const CHANGE: &str = "vm cdrom <change,>";

/// Another medium for a drive; empty text is none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Medium {
    old: String,
    new: String,
    /// The digest that the VM has until the change, and the one that it has during it.
    digests: Option<(String, String)>,
}

/// How the medium of a VM differs.
pub(super) struct Differs {
    pub reason: Reason,
    /// Where the reason stood among those for a launch.
    at: usize,
    medium: Medium,
}

impl Differs {
    /// Let a launch bring it about.
    pub fn by_launch(self, reasons: &mut Vec<Reason>) {
        reasons.insert(self.at.min(reasons.len()), self.reason);
    }

    /// What is to be done in place.
    pub fn into_parts(self) -> (Reason, Medium) {
        (self.reason, self.medium)
    }
}

impl Medium {
    /// The digest during the change, if that is another one than before.
    pub fn between(&self) -> Option<&String> {
        self.digests.as_ref().map(|(_, between)| between)
    }
}

/// Whether the target can change it while the VM runs; None where it was not asked.
pub(super) fn can(scene: &Scene<'_>) -> Option<bool> {
    scene.live.help.get(HELP).map(|help| help.contains(CHANGE))
}

/// Take the difference of the medium out of what only a launch can set. `hidden` are fields of which the target does not
/// show all; a change that was cut off leaves unknown whether the medium is the one that is wanted.
pub(super) fn take(
    scene: &Scene<'_>,
    vm: &Vm,
    class: &Class<'_>,
    live: &LiveVm,
    reasons: &mut Vec<Reason>,
    hidden: &[&'static str],
) -> Option<Differs> {
    let cut_off = !vm.body.lifecycle.ignores(FIELD) && ownership::leaves_out(live, FIELD);
    let (at, reason) = match reasons.iter().position(|reason| reason.field == FIELD) {
        Some(at) => (at, reasons.remove(at)),
        None if cut_off && hidden.contains(&FIELD) => (
            0,
            Reason {
                field: FIELD.to_owned(),
                old: live.cdrom(),
                new: Some(vm.body.config.text(FIELD)),
                place: vm.body.spans.get(FIELD).and_then(|span| scene.place(*span)),
                drift: false,
            },
        ),
        None => return None,
    };
    let digest = ownership::digest_of(live).filter(|digest| *digest != class.digest);
    let between = ownership::digest_without(&vm.body, FIELD);
    let digests = digest.filter(|digest| *digest != between).map(|digest| (digest.to_owned(), between));
    let medium = Medium { old: live.cdrom().unwrap_or_default(), new: vm.body.config.text(FIELD), digests };
    Some(Differs { reason: Reason { drift: false, ..reason }, at, medium })
}

/// What the file may have had for the image that is shown: a target may show in full what the file gives relative to its
/// files folder.
pub(super) fn images(live: &LiveVm) -> Vec<String> {
    let Some(shown) = live.cdrom() else { return Vec::new() };
    let mut images = vec![shown.clone()];
    let relative: Vec<&str> = shown.match_indices('/').map(|(at, _)| &shown[at + 1..]).collect();
    images.extend(relative.iter().flat_map(|path| [(*path).to_owned(), format!("file:{path}")]));
    images
}

/// The same VM with another image.
pub(super) fn wanting(body: &mut VmBody, image: &str) {
    body.config.clear(FIELD);
    body.config.set(FIELD, FieldValue::Text(image.to_owned()));
}

fn words(target: &str, image: &str) -> Vec<String> {
    let words = match image {
        "" => vec!["vm", "cdrom", "eject", target],
        image => vec!["vm", "cdrom", "change", target, image],
    };
    words.into_iter().map(str::to_owned).collect()
}

/// Change the media of VMs; the last steps, by VM.
pub(super) fn steps<'a>(
    scene: &Scene<'_>,
    draft: &mut Draft,
    media: &std::collections::BTreeMap<Medium, Members<'a>>,
) -> HashMap<&'a str, Vec<StepId>> {
    let mut changed: HashMap<&str, Vec<StepId>> = HashMap::default();
    for (medium, members) in media {
        for part in targets(members.clone()) {
            let guard: Option<String> = guard(scene, &part.names);
            let mut needs = Vec::new();
            if let Some((old, between)) = &medium.digests {
                let undo = tag_undo(draft, &part.text, ownership::DIGEST, Some(old));
                let extra = Extra { undo, guard: guard.clone(), ..Extra::default() };
                let tag = ["vm", "tag", &part.text, ownership::DIGEST, between];
                needs.push(draft.step(&part.serves, &tag, extra));
            }
            let undo = Undo::Command(draft.command(&words(&part.text, &medium.old)));
            let extra = Extra { needs, undo, guard, ..Extra::default() };
            let step = draft.step(&Arc::clone(&part.serves), &words(&part.text, &medium.new), extra);
            for name in part.of {
                changed.entry(name).or_default().push(step);
            }
        }
    }
    changed
}
