//! The tests of the Linux switch on Open vSwitch, which the engine starts in the lab's namespace, and what only this one
//! does.

use super::*;

/// Whether Open vSwitch has made an interface. They come and go a moment after what they are for.
pub(super) fn is_made_by_it(name: &str) -> bool {
    SWITCH.with_borrow(|switch| *switch != SwitchChoice::Linux)
        && ["ovs-netdev", "ovs-system", "mega_bridge", "lab", "lab2", "other", "underlay"].contains(&name)
}

impl LinuxNetwork {
    pub(super) fn end_switch(&self) {
        let _ = self.inside(false, |ports| ports.switch().end());
    }
}

/// Is it installed? A test without it is skipped, but not in CI.
fn installed() -> bool {
    let there = std::path::Path::new("/usr/sbin/ovs-vswitchd").exists();
    if !there {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs openvswitch-switch");
        eprintln!("skipped: this test needs openvswitch-switch");
    }
    there && root()
}

fn on_openvswitch(test: fn()) {
    if installed() {
        SWITCH.set(SwitchChoice::OpenVswitch { socket: None });
        test();
    }
}

macro_rules! the_same_on_openvswitch {
    ($($(#[$meta:meta])* $test:ident in $module:path;)*) => {
        $(
            $(#[$meta])*
            #[test]
            fn $test() {
                use $module as tests;
                on_openvswitch(tests::$test);
            }
        )*
    };
}

the_same_on_openvswitch! {
    frames_stay_on_their_segment in super::super::tests;
    a_host_tap_puts_the_engine_on_its_segment_only in super::super::tests;
    a_restarted_daemon_finds_everything in super::super::tests;
    release_leaves_no_trace in super::super::tests;
    a_failure_leaves_nothing in super::super::tests;
    two_hundred_taps in super::super::tests;
    vlans_cross_a_trunk_each_for_itself in super::super::tests::uplinks;
    two_trunks_are_connected_as_by_one_switch in super::super::tests::uplinks;
    vlans_cross_a_vxlan_tunnel in super::super::tests::uplinks;
    tcp_with_offloads_crosses_trunks_and_tunnels in super::super::tests::uplinks;
    a_mirror_copies_both_directions_and_only_of_its_source in super::super::tests::uplinks;
}
