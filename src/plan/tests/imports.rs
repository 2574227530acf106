//! What was applied and is imported plans to no changes.

use proptest::prelude::*;

use super::properties::experiments::megaform_only;
use super::properties::{go, with_raw_commands};
use super::*;
use crate::import;

/// The plan of what is imported, for what is there, with what the journal remembers.
fn plan_of_import(mm: &Minimega, of: &File, advice: &Advice) -> (Plan, String, Vec<String>) {
    let mut seen = live(mm, of);
    let found = import::live(&of.experiment.name.value, &seen, advice);
    let written = import::write(&found, "imported");
    let again = file(&written);
    let with = Options { verifying: true, ..options(&again, advice) };
    let checks: Vec<String> = checks(&again.experiment, &seen, &with).into_iter().map(str::to_owned).collect();
    for line in checks {
        crate::live::check(&mut mm.clone(), &mut seen, &of.experiment.name.value, &line).unwrap();
    }
    let first = plan(&again.experiment, &again.graph, &seen, &with).unwrap();
    for command in first.learn {
        crate::live::learn(&mut mm.clone(), &mut seen, &of.experiment.name.value, command).unwrap();
    }
    let plan = plan(&again.experiment, &again.graph, &seen, &with).unwrap();
    (plan, written, found.notes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_was_applied_is_imported_whole(
        a in with_raw_commands(), b in with_raw_commands(), shows in any::<bool>(), megaform in any::<bool>()
    ) {
        let mm = Minimega::default();
        mm.0.lock().unwrap().shows_addresses = shows;
        mm.0.lock().unwrap().network.megaform = megaform || megaform_only(&a) || megaform_only(&b);
        let (a, b) = (file(&a), file(&b));
        let mut advice = Advice::default();
        for file in [&a, &b] {
            go(&mm, file, &mut advice, Selection::default()).unwrap();
        }
        let (plan, written, notes) = plan_of_import(&mm, &b, &advice);
        // No target shows serial numbers, and a note says so.
        if notes.iter().any(|note| note.contains("serial numbers")) {
            return Ok(());
        }
        // Where one disk was given what another left open, the digest alone differs, which `--adopt` sets.
        let worded = |change: &Change| change.reasons.iter().all(|reason| reason.field == "tags.megaform.digest");
        prop_assert!(plan.changes.iter().all(|c| !c.reasons.is_empty() && worded(c)), "left to do:\n{}\nfor\n{written}", text(&plan));
    }
}
