//! The test guest alone, under a QEMU that the test starts itself: what the demo and the other boot tests rely on.

use crate::host::{Guest, Machine, Network, Nic};

#[test]
fn the_guest_configures_its_nics_in_pci_order_and_answers_on_each() {
    let Some(guest) = Guest::or_skip() else { return };
    Network::run(|network| {
        network.tap("left", &["10.0.0.254/24"]);
        network.tap("right", &["10.0.1.254/24", "fd00::254/64"]);
        // The driver of the second NIC is loaded first: the order must not come from that.
        let nics = [
            Nic { tap: "left", driver: "e1000", mac: "52:54:00:00:00:01" },
            Nic { tap: "right", driver: "virtio-net-pci", mac: "52:54:00:00:00:02" },
        ];
        let addresses = "ip.0=10.0.0.1/24 ip.1=10.0.1.1/24 ip.1=fd00::1/64 ip.2=10.0.2.1/24";
        let mut machine = Machine::start(network, &guest, addresses, &nics);
        machine.wait_for("megaform-guest: ready");
        let console = machine.console();
        for line in
            [" 52:54:00:00:00:01 10.0.0.1/24", " 52:54:00:00:00:02 10.0.1.1/24 fd00::1/64", " ip.2: there are 2 NICs"]
        {
            assert!(console.lines().any(|found| found.ends_with(line)), "no line {line:?} in:\n{console}");
        }
        for address in ["10.0.0.1", "10.0.1.1", "fd00::1"] {
            assert!(network.answers(address.parse().unwrap()), "{address} does not answer:\n{}", machine.console());
        }
        // An address of one NIC cannot be reached through another.
        assert!(network.ping("10.0.0.1".parse().unwrap(), Some("left"), 2), "left does not reach its own NIC");
        assert!(
            !network.ping("10.0.1.1".parse().unwrap(), Some("left"), 2),
            "left reaches the address of the other NIC"
        );
    });
}

#[test]
fn the_guest_powers_itself_off_when_told_to() {
    let Some(guest) = Guest::or_skip() else { return };
    Network::run(|network| {
        let mut machine = Machine::start(network, &guest, "poweroff=1", &[]);
        let status = machine.wait_for_end();
        let console = machine.console();
        assert!(status.success(), "QEMU ended with {status}:\n{console}");
        assert!(console.lines().any(|line| line.ends_with("megaform-guest: ready")), "{console}");
    });
}
