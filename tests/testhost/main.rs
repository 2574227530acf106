//! Tests that need a kernel which this machine may not have: all of them run in one boot of the full test host
//! (`scripts/testhost`; see `support::testhost` for how to add one).
#![allow(missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod inside;

use support::testhost;

#[test]
fn in_the_test_host() {
    testhost::run_tests("inside::", &["sch_netem", "sch_tbf", "openvswitch", "vxlan", "ip_gre", "nbd"]);
}
