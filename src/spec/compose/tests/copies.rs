//! Copies that clash: of a file that is included twice, and of an entry that is repeated. They come from one place, so the
//! message has the names of both.

use super::*;

/// What there can be one of only, in two copies whose names differ by what `{N}` stands for.
const CLASHES: &str = r#"
vlans: { "lan{N}": { tag: 300 }, common{N}: {} }
vms:
  web{N}:
    networks: [{ vlan: lan{N}, mac: "52:54:00:00:00:01" }, lan{N}]
    uuid: 12345678-0000-4000-8000-000000000001
    bonds: [{ nics: [0, 1], mode: active-backup, name: up }]
    disks: [a.img]
    usb_disks: [u.img]
    snapshot: false
    lifecycle: { renamed_from: old }
  db{N}: { networks: [common{N}, outside] }
taps: { "t{N}": { vlan: lan{N}, ip: 10.0.0.1/24 } }
nat: { "n{N}": { vlan: outside, ip: 10.1.0.254/24 } }
bridges: { "br{N}": { trunks: [eth1] } }
dnsmasq: { "s{N}": { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.20], options: "option:router,10.0.0.254" } }
mirrors: { "m{N}": { from: "db{N}.1", to: far.0 } }
captures: { "c{N}": { vm: db{N}, file: c.pcap }, "f{N}": { type: netflow, bridge: mega_bridge, file: f.flow } }
plumbing: { "p{N}": { pipeline: [cat, x] } }
links: { "l{N}": { ends: ["db{N}.1", far.0], delay: 1 ms } }
"#;

const OUTSIDE: &str = "experiment: lab\nvlans: { outside: {} }\nvms: { far: { networks: [outside] } }\n";

/// The codes of all errors; each names both copies and says that one place makes both.
fn clashes(loaded: &Loaded, copies: [&str; 2]) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for found in loaded.diagnostics.iter().filter(|found| found.severity == Severity::Error) {
        for copy in copies {
            assert!(found.message.contains(copy), "{}: {}\n{}", found.code, found.message, shown(loaded));
        }
        let labels: Vec<_> = found.labels.iter().map(|(span, text)| (Some(*span), text.as_str())).collect();
        if found.code != "link-conflict" {
            assert_eq!(labels, [(found.span, "both come from here")], "{}", shown(loaded));
        }
        codes.push(found.code);
    }
    codes.sort_unstable();
    codes.dedup();
    codes
}

const CODES: &[&str] = &[
    "duplicate-bond",
    "duplicate-file",
    "duplicate-ip",
    "duplicate-mac",
    "duplicate-mirror",
    "duplicate-nat",
    "duplicate-pipeline",
    "duplicate-tag",
    "duplicate-trunk",
    "duplicate-uuid",
    "link-conflict",
    "shared-disk",
];

#[test]
fn copies_of_a_module_that_clash_are_named() {
    let module = CLASHES.replace("{N}", "");
    let files = files(&[("m.yaml", &module)]);
    let text = format!("{OUTSIDE}include: [{{ file: m.yaml, prefix: one- }}, {{ file: m.yaml, prefix: two- }}]\n");
    let loaded = load_with(&text, &Inputs::default(), &files);
    assert_eq!(clashes(&loaded, ["one-", "two-"]), CODES, "{}", shown(&loaded));
}

#[test]
fn copies_of_a_repeated_file_that_clash_are_named() {
    let module = CLASHES.replace("{N}", "");
    let files = files(&[("m.yaml", &module)]);
    let text = format!(
        "{OUTSIDE}include: {{ file: m.yaml, for_each: [one, two], prefix: \"{{{{ each.value }}}}-\", as: m }}\n"
    );
    let loaded = load_with(&text, &Inputs::default(), &files);
    assert_eq!(clashes(&loaded, ["one-", "two-"]), CODES, "{}", shown(&loaded));
}
