//! Addresses, gateways and NICs: what is found, and at which place.

use super::*;

#[test]
fn a_warning_hides_no_error() {
    let text = r#"
experiment: lab
vlans: { lan: {}, spare: {} }
vms: { a: { kernel: ./missing, networks: [lan] }, b: { networks: [lan] } }
dnsmasq: { d: { address: 10.0.0.1, range: [10.0.0.2, 10.0.0.9] } }
"#;
    let codes: Vec<&str> = codes(&yaml(text)).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["dnsmasq-tap", "missing-file", "unused-vlan"]);
}

/// What is wrong with these entries of the file.
fn with(entries: &str) -> Vec<(&'static str, String)> {
    let vms =
        "vms: { \"a[0-1]\": { networks: [lan] }, b: { networks: [lan, { vlan: lan, mac: \"52:54:00:00:00:01\" }] } }";
    codes(&yaml(&format!("experiment: lab\nvlans: {{ lan: {{}} }}\n{vms}\n{entries}\n")))
}

#[test]
fn addresses_and_gateways_lie_in_their_subnet_and_are_given_once() {
    let taps = "taps: { t: { vlan: lan, ip: 10.0.0.1/24 }, u: { vlan: lan, ip: 10.0.0.5/24 } }";
    let served = |settings: &str| with(&format!("{taps}\ndnsmasq: {{ d: {{ address: 10.0.0.1, {settings} }} }}"));
    assert_eq!(served("range: [10.0.0.10, 10.0.0.20]"), []);
    // Its own address is kept from guests by the server.
    assert_eq!(served("range: [10.0.0.1, 10.0.0.4]"), []);
    assert_eq!(served("range: [10.0.0.2, 10.0.0.9]"), [("duplicate-ip", "10.0.0.2".to_owned())]);
    for lease in ["b.1 10.0.0.1", "b.1 10.0.0.5"] {
        let found = served(&format!("range: [10.0.0.10, 10.0.0.20], leases: {lease}"));
        assert_eq!(found, [("duplicate-ip", lease.to_owned())]);
    }
    for option in ["option:router,10.0.1.1", "3,10.0.1.1", "tag:x,option:router,10.0.0.1,10.0.1.1"] {
        let found = served(&format!("range: [10.0.0.10, 10.0.0.20], options: [\"{option}\"]"));
        assert_eq!(found, [("outside-subnet", format!("\"{option}\""))]);
    }
    for option in ["option:router", "3,10.0.0.1", "option:router,0.0.0.0", "option:ntp-server,10.9.9.9", "42,10.9.9.9"]
    {
        assert_eq!(served(&format!("range: [10.0.0.10, 10.0.0.20], options: [\"{option}\"]")), [], "{option}");
    }
    let outside = "range: [10.0.0.10, 10.0.0.20] } }\nnat: { n: { vlan: lan, ip: 10.0.1.1/24 ";
    assert_eq!(served(outside), [("outside-subnet", "10.0.1.1/24".to_owned())]);
    let unlike = with("taps: { t: { vlan: lan, ip: 10.0.0.1/24 }, u: { vlan: lan, ip: 10.0.0.5/16 } }");
    assert_eq!(unlike, [("subnet-overlap", "10.0.0.5/16".to_owned())]);
    assert_eq!(with("taps: { t: { vlan: lan, ip: 10.0.0.1/24 }, u: { vlan: lan, ip: 10.0.1.1/24 } }"), []);
}

#[test]
fn what_is_wrong_with_a_nic_has_the_place_of_its_setting() {
    let nic = |nic: &str| vm(&format!("networks: [dmz, {{ {nic} }}], count: 2"));
    assert_eq!(refused(nic("vlan: dmx")), ("unknown-vlan", "dmx".to_owned()));
    assert_eq!(
        refused(nic("vlan: dmz, mac: \"52:54:00:00:00:01\"")),
        ("fixed-for-many", "\"52:54:00:00:00:01\"".to_owned())
    );
    let twice = vm("networks: [{ mac: \"52:54:00:00:00:01\", vlan: dmz }, { vlan: dmz, mac: \"52:54:00:00:00:01\" }]");
    assert_eq!(refused(twice), ("duplicate-mac", "\"52:54:00:00:00:01\"".to_owned()));
}
