//! Random experiments on a release of 2018: a plan works there, or is refused.

use proptest::prelude::*;

use super::properties::{remember, with_objects};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_for_2018_works_or_is_refused(a in with_objects(), b in with_objects()) {
        let mm = Minimega::default();
        mm.0.lock().unwrap().shows_addresses = true;
        mm.0.lock().unwrap().network.old = true;
        let mut advice = Advice::default();
        let (a, b) = (file(&a), file(&b));
        for (file, destroy) in [(&a, false), (&b, false), (&a, false), (&a, true)] {
            match networks::learned(&mm, file, &advice, destroy) {
                Err(PlanError::Blocked { problems }) => {
                    let codes: Vec<&str> = problems.iter().map(|problem| problem.code).collect();
                    let lacks = |code: &&str| ["target-lacks", "qos-unsupported"].contains(code);
                    prop_assert!(codes.iter().all(lacks) && !destroy, "{problems:#?}");
                }
                Ok(plan) => {
                    // None of its commands may fail, and the release refuses what it does not have.
                    carry_out(&mm, &plan);
                    remember(&mut advice, &plan);
                    let left = networks::learned(&mm, file, &advice, destroy).unwrap();
                    prop_assert!(left.is_empty(), "left to do:\n{}", text(&left));
                }
            }
        }
        prop_assert!(mm.0.lock().unwrap().namespaces.is_empty());
    }
}
