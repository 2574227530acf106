//! USB disks in a file.

use super::super::*;
use super::{codes, outline, yaml};

fn web(keys: &str) -> Loaded {
    yaml(&format!("experiment: lab\nvms:\n  web: {{ {keys} }}\n  db: {{}}\n"))
}

#[test]
fn mistakes_are_found_where_they_stand() {
    for (disks, code, at) in [
        ("[7.5]", "wrong-type", "7.5"),
        ("[\"\"]", "invalid-value", "\"\""),
        ("[/a.img, /a.img]", "duplicate-item", "/a.img"),
        ("[{ version: 2.0 }]", "missing-key", "{ version: 2.0 }"),
        ("[{ path: /a.img, version: 3.0 }]", "wrong-type", "3.0"),
        ("[{ path: /a.img, version: \"3.0\" }]", "invalid-value", "\"3.0\""),
        ("[{ path: /a.img, bus: 2.0 }]", "unknown-key", "bus"),
        ("[\"http://x/a.img\"]", "not-carried", "\"http://x/a.img\""),
    ] {
        let loaded = web(&format!("usb_disks: {disks}"));
        assert!(codes(&loaded).contains(&(code, at.to_owned())), "{disks}: {:?}", codes(&loaded));
        assert!(loaded.experiment.is_none(), "{disks}");
    }
    let without = web("usb_disks: [/a.img], usb_use_xhci: false");
    assert_eq!(codes(&without), [("usb-controller", "/a.img".to_owned())]);
    let shared = yaml("experiment: lab\nvms: { \"a[0-1]\": { snapshot: false, usb_disks: [/a.img] } }\n");
    assert_eq!(codes(&shared), [("shared-disk", "/a.img".to_owned())]);
    let twice = web("snapshot: false, disks: [/a.img], usb_disks: [/a.img]");
    assert_eq!(codes(&twice), [("shared-disk", "/a.img".to_owned())]);
}

#[test]
fn short_and_long_forms_mean_the_same_and_come_back() {
    let short = web("usb_disks: /a.img");
    let long = web("usb_disks: [{ path: /a.img }]");
    assert_eq!(outline(&short), outline(&long));
    let full = web(
        "usb_disks: [{ path: \"/b c.img\", version: 1.1, serial: S1 }, { for_each: [x], path: \"{{ each.key }}.img\", version: \"2.0\" }, { when: false, path: no.img }]",
    );
    let experiment = full.experiment.as_ref().unwrap_or_else(|| panic!("{}", super::shown(&full)));
    assert_eq!(experiment.vms.values().map(|vm| vm.body.usb_disks.len()).collect::<Vec<_>>(), [0, 2]);
    for loaded in [&short, &full] {
        let text = written(loaded.experiment.as_ref().unwrap(), &loaded.sources);
        assert_eq!(outline(&yaml(&text)), outline(loaded), "{text}");
    }
    // A VM without the disks of its profile.
    let none = yaml(
        "experiment: lab\nprofiles: { p: { usb_disks: [/a.img] } }\nvms: { a: { profile: p }, b: { profile: p, usb_disks: [] } }\n",
    );
    let disks = none.experiment.as_ref().unwrap().vms.values().map(|vm| vm.body.usb_disks.len());
    assert_eq!(disks.collect::<Vec<_>>(), [1, 0]);
}
