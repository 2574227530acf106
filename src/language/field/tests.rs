//! Fields: parsing, printing, records.

use super::*;

fn args(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn a_configuration_survives_its_record() {
    let mut config = VmConfig::new();
    for (name, list) in [
        ("memory", &["16"][..]),
        ("networks", &["LAN", "br1,A,00:11:22:33:44:55,virtio-net-pci"]),
        ("append", &["a=b", "c d"]),
        ("tags", &["k", "v w"]),
        ("snapshot", &["false"]),
        ("disks", &["a.qcow2,virtio"]),
    ] {
        config.set(name, field(name).unwrap().parse(&args(list)).unwrap());
    }
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<VmConfig>(&text).unwrap(), config);
    assert_eq!(config.get("append").to_string(), "[a=b c d]");
    assert_eq!(config.get("vcpus").to_string(), "1");
}

#[test]
fn refusals_name_the_field() {
    let error = field("memory").unwrap().parse(&args(&["foo"])).unwrap_err();
    assert_eq!(error.to_string(), "invalid memory `foo`, expected a whole number from 1 to 16777216");
    assert!(field("memory").unwrap().parse(&args(&["-1"])).is_err());
    let coschedule = field("coschedule").unwrap();
    assert_eq!(coschedule.parse(&args(&["-1"])).unwrap(), coschedule.default_value());
    let error = coschedule.parse(&args(&["-2"])).unwrap_err();
    assert_eq!(error.to_string(), "invalid coschedule `-2`, expected a whole number from -1 to 1000000");
    assert!(field("uuid").unwrap().parse(&args(&["nope"])).is_err());
    assert!(field("append").unwrap().parse(&args(&["a\nb"])).is_err());
}
