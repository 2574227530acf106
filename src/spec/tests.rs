use std::fs;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::render;

mod addresses;
mod bonds;
mod documents;
mod mutations;
mod pipes;
mod placement;
mod usb;
mod waits;

use documents::{read, tree};

fn yaml(text: &str) -> Loaded {
    parse("lab.yaml", text, Format::Yaml, &NoFiles)
}

fn toml(text: &str) -> Loaded {
    parse("lab.toml", text, Format::Toml, &NoFiles)
}

fn shown(loaded: &Loaded) -> String {
    render(&loaded.diagnostics, &loaded.sources, false)
}

fn outline(loaded: &Loaded) -> String {
    loaded.experiment.as_ref().unwrap_or_else(|| panic!("{}", shown(loaded))).outline()
}

/// The codes of all diagnostics, sorted, each with the text that it points at.
fn codes(loaded: &Loaded) -> Vec<(&'static str, String)> {
    let mut codes: Vec<_> = loaded
        .diagnostics
        .iter()
        .map(|d| {
            let span = d.span.unwrap();
            (d.code, loaded.sources.text(span.source).get(span.start..span.end).unwrap().to_owned())
        })
        .collect();
    codes.sort();
    codes
}

/// One VM with these settings.
fn vm(settings: &str) -> Loaded {
    yaml(&format!("experiment: lab\nvlans: {{ dmz: }}\nvms:\n  a: {{ networks: [dmz] }}\n  web: {{ {settings} }}\n"))
}

/// The code and the text at the only error.
fn refused(loaded: Loaded) -> (&'static str, String) {
    assert!(loaded.experiment.is_none());
    let mut codes = codes(&loaded);
    assert_eq!(codes.len(), 1, "{}", shown(&loaded));
    let diagnostic = &loaded.diagnostics[0];
    assert!(diagnostic.hint.is_some(), "no hint: {}", shown(&loaded));
    codes.remove(0)
}

const SAMPLE: &str = r#"
experiment: dmz-lab
vlans: { dmz: {}, core: { tag: 200 } }
profiles:
  linux: { type: kvm, memory: 256, kernel: vmlinuz, initrd: tiny.cpio.gz }
vms:
  "web[0-2]": { profile: linux, networks: [dmz] }
  fw: { profile: linux, networks: [dmz, { vlan: core, mac: "52:54:00:00:00:01", driver: virtio-net-pci }] }
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }
"#;

const SAMPLE_TOML: &str = r#"
taps.mgmt = { ip = "10.0.0.254/24", vlan = "dmz" }
experiment = "dmz-lab"
vlans = { core = 200, dmz = {} }

[[vms.fw.networks]]
vlan = "dmz"
[[vms.fw.networks]]
vlan = "core"
driver = "virtio-net-pci"
mac = "52:54:00:00:00:01"

[vms]
fw.profile = "linux"

[vms."web[0-2]"]
networks = ["dmz"]
profile = "linux"

[profiles.linux]
initrd = "tiny.cpio.gz"
kernel = "vmlinuz"
memory = "256MB"
"#;

#[test]
fn the_sample_is_an_experiment() {
    // A monitor is alone on its VLAN on purpose.
    let watched = "experiment: lab\nvlans: { a: {}, m: {} }\nvms: { x: { networks: [a] }, y: { networks: [a, m] } }\n";
    assert_eq!(codes(&yaml(watched)), [("lonely-vlan", "m".to_owned())]);
    assert!(codes(&yaml(&format!("{watched}mirrors: {{ see: {{ from: x.0, to: y.1 }} }}\n"))).is_empty());
    let loaded = yaml(SAMPLE);
    // Nothing but the firewall is on `core`.
    assert_eq!(codes(&loaded), [("lonely-vlan", "core".to_owned())]);
    insta::assert_snapshot!(outline(&loaded));
}

#[test]
fn the_language_and_the_order_of_keys_mean_nothing() {
    let reordered = r#"
taps: { mgmt: { ip: 10.0.0.254/24, vlan: dmz } }
vms:
  fw: { networks: [{ vlan: dmz }, { driver: virtio-net-pci, mac: "52:54:00:00:00:01", vlan: core }], profile: [linux] }
  web: { count: 3, networks: dmz, profile: linux, state: running }
vlans: { core: 200, dmz: }
profiles: { linux: { initrd: tiny.cpio.gz, kernel: vmlinuz, memory: 0x100 } }
experiment: dmz-lab
"#;
    assert_eq!(outline(&yaml(reordered)), outline(&yaml(SAMPLE)));
    assert_eq!(outline(&toml(SAMPLE_TOML)), outline(&yaml(SAMPLE)));
    assert_eq!(outline(&yaml(&SAMPLE.replace('\n', "\r\n"))), outline(&yaml(SAMPLE)));
    assert_eq!(outline(&yaml(&format!("\u{feff}{SAMPLE}"))), outline(&yaml(SAMPLE)));
    assert_ne!(outline(&yaml(&SAMPLE.replace("200", "201"))), outline(&yaml(SAMPLE)));
}

#[test]
fn many_mistakes_in_one_run() {
    let text = r#"experiment: all
vlan: { dmz: {} }
vlans:
  dmz: { tag: 4095 }
  core: { tag: 200, mtu: 1500 }
  back: { tag: 200 }
  spare:
profiles:
  linux: { memory: 1.5, kernel: vmlinuz, memroy: 3 }
  old: { profile: linus }
  a: { profile: b }
  b: { profile: a }
vms:
  "web[0-2]":
    profile: linux
    memory: 1000 KB
    networks: [dmz, "core,52:54:00:00:00:01,e1000", { vlan: cora, driver: virtio }, 7777]
    uuid: 2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11
    snapshot: yes
  web1: { type: container, state: stopped, vcpus: "2", serial-ports: 010 }
  7: {}
  "db": { append: "a=$HOME", depends_on: [web9, db], tags: { megaform.owner: me, "a b": x, ok: 1e3 } }
  fw:
    networks:
      - { vlan: dmz, mac: 52:54:00:00:00:01 }
      - { vlan: core, mac: "52:54:00:00:00:01", bridge: a-very-long-bridge }
      - { mac: "01:00:5e:00:00:01" }
    disks: ["a.qcow2,bogus", { path: 5, cache: none }]
    kernel: "vm\tlinuz"
    cpu: 0x10
    count:
  fw: {}
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.254 }
  mgmt-of-the-engine: { ip: 10.0.0.0/24 }
"#;
    let loaded = yaml(text);
    assert!(loaded.experiment.is_none());
    insta::assert_snapshot!(shown(&loaded));
}

#[test]
fn mistakes_in_toml_have_their_places_too() {
    let text = "experiment = \"lab\"\nmemory = 5\n[vms.a]\nmemory = 1\nvcpus = 1\nmemory = 2\n[vms.b]\nstate = 1979-05-27\n[vms.a]\nkernl = \"x\"\n";
    insta::assert_snapshot!(shown(&toml(text)));
}

#[test]
fn hostile_names_are_refused_wherever_a_name_stands() {
    let long = "a".repeat(300);
    for name in ["all", "7", "a b", "x\"y", "#c", &long, "a\nb", "naïve", "", "-1", "../x", "a;b", "$x", "a\u{202e}b"]
    {
        let quoted = serde_json::to_string(name).unwrap();
        for text in [
            format!("experiment: {quoted}\n"),
            format!("experiment: lab\nvlans: {{ {quoted}: {{}} }}\n"),
            format!("experiment: lab\nvms: {{ {quoted}: {{}} }}\n"),
            format!("experiment: lab\nvms: {{ a: {{ networks: [{quoted}] }} }}\n"),
            format!("experiment: lab\nvms: {{ a: {{ tags: {{ {quoted}: x }} }} }}\n"),
            format!("experiment: lab\nvms: {{ a: {{ depends_on: {quoted} }} }}\n"),
            format!("experiment: lab\nvms: {{ a: {{ profile: {quoted} }} }}\n"),
            format!("experiment: lab\nprofiles: {{ {quoted}: {{}} }}\n"),
            format!("experiment: lab\nvlans: {{ v: {{}} }}\ntaps: {{ {quoted}: {{ vlan: v }} }}\n"),
            format!("experiment: lab\nvlans: {{ v: {{}} }}\ntaps: {{ t: {{ vlan: v, bridge: {quoted} }} }}\n"),
        ] {
            let loaded = yaml(&text);
            assert!(loaded.experiment.is_none(), "{text} was accepted");
            let error = loaded.diagnostics.iter().find(|d| d.severity == Severity::Error).unwrap();
            assert!(
                ["invalid-name", "invalid-value", "invalid-range"].contains(&error.code),
                "{text}: {}",
                shown(&loaded)
            );
            assert!(error.hint.is_some());
            assert!(!shown(&loaded).contains('\u{202e}') && shown(&loaded).len() < 6000);
        }
    }
}

#[test]
fn values_that_a_command_cannot_carry_are_refused() {
    for (settings, at) in [
        ("machine: \"$HOME\"", "\"$HOME\""),
        ("kernel: \"a${x}\"", "\"a${x}\""),
        ("cdrom: \"http://x/y.iso\"", "\"http://x/y.iso\""),
        ("disks: [\"file:a.qcow2\"]", "\"file:a.qcow2\""),
        ("disks: [{ path: \"a,b\" }]", "{ path: \"a,b\" }"),
        ("qemu_append: [\"a\\nb\"]", "\"a\\nb\""),
        ("kernel: k, append: \"a $b\"", "\"a $b\""),
        ("tags: { k: \"a\\u0007\" }", "\"a\\u0007\""),
    ] {
        assert_eq!(refused(vm(settings)), ("not-carried", at.to_owned()), "{settings}");
    }
    // Everything else can be quoted.
    let loaded = vm(r##"kernel: k, append: ["a b", "\"", "\\", "#c", "it's", "ü"], tags: { k: "x \" y" }"##);
    assert!(loaded.experiment.is_some(), "{}", shown(&loaded));
}

#[test]
fn scalars_that_yaml_reads_in_surprising_ways() {
    for (settings, code, at) in [
        ("snapshot: on", "invalid-value", "on"),
        ("snapshot: \"true\"", "invalid-value", "\"true\""),
        ("vcpus: 1e3", "out-of-range", "1e3"),
        ("vcpus: 010", "invalid-value", "010"),
        ("vcpus: \"2\"", "invalid-value", "\"2\""),
        ("vcpus: 0", "out-of-range", "0"),
        (
            "vcpus: 99999999999999999999999999999999999999999999",
            "out-of-range",
            "99999999999999999999999999999999999999999999",
        ),
        ("machine: 1e3", "wrong-type", "1e3"),
        ("cpu: 0x10", "wrong-type", "0x10"),
        ("kernel: true", "wrong-type", "true"),
        ("kernel: ~", "wrong-type", "~"),
        ("kernel:", "wrong-type", "kernel"),
        ("cpu: \"\"", "invalid-value", "\"\""),
        ("append: { a: b }", "wrong-type", "{ a: b }"),
        ("memory: -1", "out-of-range", "-1"),
        ("memory: 20TB", "out-of-range", "20TB"),
        ("memory: 1 parsec", "invalid-value", "1 parsec"),
        ("uuid: 12", "invalid-value", "12"),
        ("type: container", "invalid-value", "container"),
        ("networks: [\"200\"]", "invalid-value", "\"200\""),
        ("networks: [4095]", "out-of-range", "4095"),
        ("count: -1", "out-of-range", "-1"),
    ] {
        assert_eq!(refused(vm(settings)), (code, at.to_owned()), "{settings}");
    }
    let quote = vm("machine: 1e3").diagnostics.remove(0).hint;
    assert_eq!(quote.as_deref(), Some("quote it: \"1e3\""));
    let loaded = vm(
        "cpu: 486, memory: 0x10, kernel: k, append: [1e3, true, 007, no], tags: { a: 1e3, b: 0x10, c: off }, networks: [{ vlan: dmz, mac: 52:54:00:00:00:01 }]",
    );
    let outline = outline(&loaded);
    for line in [
        "vm.web.cpu = [[\"486\"]]",
        "vm.web.memory = [[\"16\"]]",
        "vm.web.append = [[\"1e3\", \"true\", \"007\", \"no\"]]",
        "vm.web.tags = [[\"a\", \"1e3\"], [\"b\", \"0x10\"], [\"c\", \"off\"]]",
        "vm.web.networks.0 = dmz 52:54:00:00:00:01 any any",
    ] {
        assert!(outline.lines().any(|l| l == line), "{line}\n{outline}");
    }
}

#[test]
fn profiles_are_merged_in_order() {
    let text = r#"
experiment: lab
vlans: { a: , b: }
profiles:
  base: { memory: 1, vcpus: 2, networks: [a], kernel: k, tags: { x: base, y: base }, state: paused, depends_on: db }
  more: { profile: base, memory: 2, tags: { y: more, z: more } }
  other: { vcpus: 3, tags: { z: other } }
vms:
  db: { networks: [b] }
  web: { profile: [more, other], networks: [a, b], tags: { w: own }, kernel: "" }
"#;
    let loaded = yaml(text);
    let outline = outline(&loaded);
    let web: Vec<&str> = outline.lines().filter_map(|l| l.strip_prefix("vm.web.")).collect();
    assert_eq!(
        web,
        [
            "type = kvm",
            "memory = [[\"2\"]]",
            "vcpus = [[\"3\"]]",
            "tags = [[\"w\", \"own\"], [\"x\", \"base\"], [\"y\", \"more\"], [\"z\", \"other\"]]",
            "networks.0 = a any any any",
            "networks.1 = b any any any",
            "state = paused",
            "depends_on = db",
        ]
    );
    let span = loaded.experiment.as_ref().unwrap().vms["web"].body.spans["memory"];
    assert_eq!(loaded.sources.place(span).to_string(), "lab.yaml:6:34");
}

#[test]
fn anchors_and_merge_keys() {
    let text = r#"
experiment: lab
vlans: { v: }
vms:
  a: &a { memory: 5, vcpus: 2, networks: &n [v] }
  b: { <<: *a, vcpus: 3 }
  c: { <<: [{ memory: 7 }, *a], networks: *n }
"#;
    let outline = outline(&yaml(text));
    for line in [
        "vm.b.memory = [[\"5\"]]",
        "vm.b.vcpus = [[\"3\"]]",
        "vm.c.memory = [[\"7\"]]",
        "vm.c.networks.0 = v any any any",
    ] {
        assert!(outline.lines().any(|l| l == line), "{line}\n{outline}");
    }
}

#[test]
fn two_entries_cannot_have_the_same() {
    let text = r#"
experiment: lab
vlans: { v: 5, w: 5 }
vms:
  "a[0-2]": { networks: [{ vlan: v }] }
  a1: { networks: [{ vlan: w, mac: "52:54:00:00:00:01" }] }
  "c[0-1,1]": {}
  d: { uuid: 2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11, networks: [{ vlan: v, mac: "52:54:00:00:00:01" }] }
  e: { uuid: 2C8A3F50-6F38-4D0B-9D49-0D6F2A4B7C11, networks: [{ vlan: v, mac: "52:54:00:00:00:01" }] }
  f: { count: 2, networks: [{ vlan: v, mac: "52:54:00:00:00:07" }] }
taps:
  s: { vlan: v, ip: fd00::1/64 }
  t: { vlan: w, ip: fd00:0::1/64 }
"#;
    let found: Vec<&str> = codes(&yaml(text)).into_iter().map(|(code, _)| code).collect();
    assert_eq!(
        found,
        [
            "duplicate-ip",
            "duplicate-mac",
            "duplicate-tag",
            "duplicate-uuid",
            "duplicate-vm",
            "duplicate-vm",
            "fixed-for-many"
        ]
    );
}

#[test]
fn references_and_needs() {
    let text = r#"
experiment: lab
vlans: { dmz: , unused: }
vlan_range: [5, 5]
profiles: { never: {} }
vms:
  a: { networks: [dzm], append: x, depends_on: web }
  web: { count: 2, depends_on: web0, initrd: y }
  ring: { profile: nevr }
"#;
    let loaded = yaml(text);
    assert_eq!(
        codes(&loaded).iter().map(|(code, at)| (*code, at.as_str())).collect::<Vec<_>>(),
        [
            ("needs-kernel", "x"),
            ("needs-kernel", "y"),
            ("self-dependency", "web0"),
            ("unknown-profile", "nevr"),
            ("unknown-vlan", "dzm"),
            ("unknown-vm", "web"),
            ("unused-profile", "never"),
            ("vlan-range", "[5, 5]"),
        ]
    );
    let text = shown(&loaded);
    for hint in ["did you mean `dmz`?", "did you mean `never`?", "`web[0-1]`"] {
        assert!(text.contains(hint), "{hint}\n{text}");
    }
    // Nothing is wrong otherwise, so what is not used can be told.
    let loaded = yaml("experiment: lab\nvlans: { dmz: }\nprofiles: { p: }\n");
    assert_eq!(codes(&loaded), [("unused-profile", "p".to_owned()), ("unused-vlan", "dmz".to_owned())]);
    assert!(loaded.experiment.is_some(), "warnings do not stop");
}

#[test]
fn addresses_of_taps() {
    for (ip, hint) in [
        ("10.0.0.254", "write 10.0.0.254/24"),
        ("fd00::1", "write fd00::1/64"),
        ("10.0.0.0/24", "choose the address of a host"),
        ("10.0.0.255/24", "choose the address of a host"),
        ("224.0.0.1/24", "choose the address of a host"),
        ("10.0.0.256/24", "write address and prefix length, as in 10.0.0.254/24 or fd00::1/64"),
        ("web", "write address and prefix length, as in 10.0.0.254/24 or fd00::1/64"),
    ] {
        let loaded = yaml(&format!("experiment: lab\nvlans: {{ v: }}\ntaps: {{ t: {{ vlan: v, ip: \"{ip}\" }} }}\n"));
        assert_eq!(loaded.diagnostics[0].hint.as_deref(), Some(hint), "{ip}");
    }
    for ip in ["10.0.0.1/33", "10.0.0.1/0", "fd00::1/129"] {
        let loaded = yaml(&format!("experiment: lab\nvlans: {{ v: }}\ntaps: {{ t: {{ vlan: v, ip: \"{ip}\" }} }}\n"));
        assert_eq!(codes(&loaded), [("out-of-range", format!("\"{ip}\""))]);
    }
    for ip in ["10.0.0.0/31", "10.0.0.7/32", "fd00::1/64"] {
        let loaded = yaml(&format!("experiment: lab\nvlans: {{ v: }}\ntaps: {{ t: {{ vlan: v, ip: \"{ip}\" }} }}\n"));
        assert_eq!(codes(&loaded), [("lonely-vlan", "v".to_owned())], "{ip}");
    }
}

#[test]
fn what_would_break_when_it_runs() {
    let text = r#"
experiment: lab
vlans: { dmz: {}, dzm: {}, core: {} }
profiles:
  rw: { disks: [shared.qcow2], snapshot: false }
vms:
  "web[0-1]": { vcpus: 3, cores: 2, networks: [dmz, core] }
  db: { vcpus: 4, sockets: 1, cores: 2, threads: 2, networks: [dzm, core] }
  big: { vcpus: 8, sockets: 1, cores: 2, threads: 2 }
  a: { profile: rw }
  b: { profile: rw }
  "c[0-1]": { disks: [c.qcow2], snapshot: false }
  d: { disks: [d.qcow2] }
  e: { disks: [d.qcow2] }
taps:
  t0: { vlan: dmz, ip: 10.0.0.1/24 }
  t1: { vlan: core, ip: 10.0.0.129/25 }
  t2: { vlan: dmz, ip: 10.0.0.2/24 }
  t3: { vlan: core, ip: fd00::1/64 }
"#;
    let place = |text: &str| text.to_owned();
    assert_eq!(
        codes(&yaml(text)),
        [
            ("cpu-topology", place("3")),
            ("cpu-topology", place("8")),
            ("lonely-vlan", place("dzm")),
            ("shared-disk", place("[c.qcow2]")),
            ("shared-disk", place("[shared.qcow2]")),
            ("subnet-overlap", place("10.0.0.129/25")),
        ]
    );
    // What only looks like it: the same values where they do no harm.
    let fine = text
        .replace("vcpus: 3", "vcpus: 6")
        .replace("vcpus: 8", "vcpus: 4")
        .replace("snapshot: false", "snapshot: true")
        .replace("[dzm, core]", "[dmz, core]")
        .replace("dzm: {}, ", "")
        .replace("10.0.0.129/25", "10.0.1.129/25");
    assert_eq!(yaml(&fine).diagnostics, []);
}

#[test]
fn what_this_machine_lacks() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("there.qcow2"), "").unwrap();
    let text = r#"
experiment: lab
vms:
  "web[0-3]": { memory: 300, vcpus: 5, disks: [there.qcow2, gone.qcow2], kernel: /gone/vmlinuz }
  off: { memory: 9000, state: paused, disks: ["nbd:unix:/x"], cdrom: "./beside.iso" }
"#;
    let loaded = yaml(text);
    let experiment = loaded.experiment.unwrap();
    let check = |memory| {
        let here = Machine { cpus: 4, memory, files: folder.path().to_owned() };
        machine(&experiment, &here).into_iter().map(|d| (d.code, d.message)).collect::<Vec<_>>()
    };
    let files = folder.path().display();
    let mut expected = vec![
        ("too-many-cpus", "5 vcpus for one VM, and this machine has 4 CPUs".to_owned()),
        ("missing-file", "`kernel`: there is no file /gone/vmlinuz".to_owned()),
        ("missing-file", format!("`disks`: there is no file {files}/gone.qcow2")),
    ];
    let key = |d: &(&'static str, String)| d.1.clone();
    expected.sort_by_key(key);
    let mut found = check(1200);
    found.sort_by_key(key);
    assert_eq!(found, expected);
    let message = "the 4 running VMs have 1200 MB together, and this machine has 1199 MB".to_owned();
    assert!(check(1199).contains(&("too-much-memory", message)));
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lab")).unwrap();
    fs::write(folder.path().join("vmlinuz"), "").unwrap();
    fs::write(folder.path().join("lab/disk.img"), "").unwrap();
    fs::write(folder.path().join("lab/kvm"), "").unwrap();
    let file = folder.path().join("lab/lab.yaml");
    let text = "experiment: lab\nvms: { a: { kernel: ../vmlinuz, initrd: not-here, disks: [\"disk.img,virtio\"], cdrom: ./nowhere, qemu: kvm } }\n";
    fs::write(&file, text).unwrap();
    let loaded = load(&file, &Inputs::default());
    assert_eq!(codes(&loaded), [("missing-file", "./nowhere".to_owned())]);
    let config = &loaded.experiment.as_ref().unwrap().vms["a"].body.config;
    let root = folder.path().display();
    assert_eq!(config.text("kernel"), format!("{root}/vmlinuz"));
    assert_eq!(config.disks()[0].to_string(), format!("{root}/lab/disk.img,virtio"));
    assert_eq!(config.text("initrd"), "not-here");
    assert_eq!(config.text("cdrom"), "./nowhere");
    assert_eq!(config.text("qemu"), "kvm");
}

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let code = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let loaded = load(&path, &Inputs::default());
        assert!(shown(&loaded).contains(":1:"), "{}", shown(&loaded));
        loaded.diagnostics[0].code
    };
    assert_eq!(code("lab.json", b"{}"), "file-kind");
    assert_eq!(code("lab", b""), "file-kind");
    assert_eq!(code("lab.yml", b""), "missing-key");
    assert_eq!(code("lab.toml", b""), "missing-key");
    assert_eq!(code("lab.yaml", b"experiment: \xff\n"), "not-utf-8");
    assert_eq!(load(&folder.path().join("none.yaml"), &Inputs::default()).diagnostics[0].code, "unreadable");
    assert_eq!(load(folder.path(), &Inputs::default()).diagnostics[0].code, "file-kind");
}

#[test]
fn a_thousand_mistakes_and_a_hundred_thousand_vms() {
    let mut text = "experiment: lab\nvms:\n".to_owned();
    for i in 0..5_000 {
        text.push_str(&format!("  vm{i}: {{ memroy: 5, networks: [lan{i}], depends_on: wm{i}, profile: p{i} }}\n"));
    }
    let loaded = yaml(&text);
    assert!(loaded.diagnostics.len() >= 5_000);
    assert!(shown(&loaded).len() < 20_000);
    let loaded = yaml("experiment: lab\nvms: { \"a[0-99999]\": {} }\n");
    assert_eq!(loaded.experiment.unwrap().vms.len(), MAX_VMS);
    let loaded = yaml("experiment: lab\nvms: { \"a[0-99999]\": {}, b: {} }\n");
    assert_eq!(codes(&loaded)[0].0, "too-many-vms");
    let loaded = yaml("experiment: lab\nvms: { \"a[0-99999999999]\": {} }\n");
    assert_eq!(codes(&loaded)[0].0, "invalid-range");
    // A chain of profiles that is longer than the stack would bear.
    let mut text = "experiment: lab\nvms: { a: { profile: p0 } }\nprofiles:\n".to_owned();
    for i in 0..20_000 {
        text.push_str(&format!("  p{i}: {{ profile: p{} }}\n", i + 1));
    }
    assert!(codes(&yaml(&text)).iter().any(|(code, _)| *code == "too-deep"));
}

#[test]
fn quickstart_says_the_same_in_toml() {
    let twin = r#"
experiment = "quickstart"
vlans = { dmz = {}, core = 200 }

[profiles.tiny]
memory = 128
kernel = "../.cache/guest/vmlinuz"
initrd = "../.cache/guest/guest.cpio.gz"
serial-ports = 1

[vms.fw]
profile = "tiny"
append = ["console=ttyS0", "quiet", "ip.0=10.0.0.9/24", "ip.1=10.0.1.9/24"]
networks = ["dmz", { vlan = "core", mac = "52:54:00:00:00:01", driver = "virtio-net-pci" }]

[vms.db]
profile = "tiny"
append = "console=ttyS0 quiet ip.0=10.0.1.1/16"
networks = ["core"]

[vms.web1]
profile = "tiny"
append = "console=ttyS0 quiet ip.0=10.0.0.2/16"
networks = ["dmz"]
depends_on = ["db"]

[vms.web0]
profile = "tiny"
append = "console=ttyS0 quiet ip.0=10.0.0.1/16"
networks = ["dmz"]
depends_on = ["db"]

[taps.mgmt]
vlan = "dmz"
ip = "10.0.0.254/16"
"#;
    assert_eq!(outline(&toml(twin)), outline(&yaml(&read("examples/quickstart.yaml"))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_loaders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        for format in [Format::Yaml, Format::Toml] {
            let loaded = parse("x", &text, format, &NoFiles);
            prop_assert!(loaded.experiment.is_none() || loaded.diagnostics.iter().all(|d| d.severity == Severity::Warning));
            shown(&loaded);
        }
    }

    #[test]
    fn no_change_of_a_good_file_makes_the_loaders_panic(
        at in 0..SAMPLE.len(), length in 0..12usize,
        with in proptest::sample::select(vec!["", "\t", "[", "]", "{", "}", "\"", "'", "\n", ": ", "é", "&a ", "*a", "<<: ", "- ", "#", "|", ">", "!!x ", "=", "日本", "\u{0}", "---\n", "\r\n"]),
    ) {
        for (text, format) in [(SAMPLE, Format::Yaml), (SAMPLE_TOML, Format::Toml)] {
            let at = at.min(text.len());
            let changed = format!("{}{with}{}", &text[..at], &text[(at + length).min(text.len())..]);
            let loaded = parse("x", &changed, format, &NoFiles);
            for diagnostic in &loaded.diagnostics {
                let span = diagnostic.span.expect("everything has a place");
                prop_assert!(span.start <= span.end && changed.is_char_boundary(span.start), "{diagnostic:?}");
            }
            prop_assert!(loaded.experiment.is_some() || !loaded.diagnostics.is_empty());
            shown(&loaded);
        }
    }

    #[test]
    fn plain_scalars_mean_the_same_as_in_the_other_reader(number in any::<i64>(), word in "[a-z]{1,8}") {
        let yaml = tree(&format!("{{ a: {number}, b: {word}x, c: \"{number}\" }}"), Format::Yaml);
        let toml = tree(&format!("a = {number}\nb = \"{word}x\"\nc = \"{number}\"\n"), Format::Toml);
        prop_assert_eq!(yaml, toml);
    }
}

#[test]
fn lifecycles() {
    let text = r#"
experiment: lab
vlans: { lan: {} }
profiles:
  kept: { lifecycle: { prevent_destroy: true, ignore_changes: memory } }
vms:
  a: { profile: kept, networks: [lan] }
  "b[0-1]": { profile: kept, lifecycle: { ignore-changes: [serial-ports, "networks[0]", tags.owner], renamed_from: "x[1-2]" } }
taps:
  t: { vlan: lan, lifecycle: { ignore_changes: [ip] } }
"#;
    let loaded = yaml(text);
    let experiment = loaded.experiment.as_ref().unwrap_or_else(|| panic!("{}", shown(&loaded)));
    let a = &experiment.vms["a"];
    assert!(a.body.lifecycle.prevent_destroy.is_some() && a.renamed_from.is_none());
    assert!(a.body.lifecycle.ignores("memory") && !a.body.lifecycle.ignores("vcpus"));
    let b = &experiment.vms["b1"];
    assert!(b.body.lifecycle.prevent_destroy.is_none(), "an own lifecycle replaces that of the profile");
    assert_eq!(b.renamed_from.as_ref().unwrap().as_str(), "x2");
    for (field, ignored) in [
        ("serial_ports", true),
        ("networks[0].vlan", true),
        ("networks[1].vlan", false),
        ("networks", false),
        ("tags.owner", true),
        ("tags.owner2", false),
    ] {
        assert_eq!(b.body.lifecycle.ignores(field), ignored, "{field}");
    }
    assert!(jsonschema::validator_for(&schema()).unwrap().is_valid(&tree(text, Format::Yaml)));
    let wrong = yaml(
        r#"
experiment: lab
vlans: { lan: {} }
profiles:
  p: { lifecycle: { renamed_from: z } }
vms:
  a: { profile: p, networks: [lan], lifecycle: { prevent_destory: true, ignore_changes: [memroy, tags., "networks[x]", memory.x, depends_on] } }
  "b[0-1]": { lifecycle: { renamed_from: c } }
  d: { lifecycle: { renamed_from: a } }
  e: { lifecycle: { renamed_from: f, prevent_destroy: "yes" } }
  g: { lifecycle: { renamed_from: f } }
taps:
  t: { vlan: lan, lifecycle: { ignore_changes: memory } }
"#,
    );
    insta::assert_snapshot!(shown(&wrong));
}

#[test]
fn ways_out_of_vlans_are_checked() {
    let lab = |rest: &str| {
        yaml(&format!(
            "experiment: lab\nvlans: {{ lan: {{}} }}\nvms: {{ a: {{ networks: [lan] }} }}\ntaps: {{ gw: {{ vlan: lan, ip: 10.0.0.1/24 }} }}\n{rest}"
        ))
    };
    let server = |more: &str| {
        format!(
            "dnsmasq: {{ s: {{ address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99]{more} }} }}\nnat: {{ o: {{ vlan: lan, ip: 10.0.0.50/24 }} }}\n"
        )
    };
    let router = ", options: \"option:router,10.0.0.50\"";
    for (rest, expected) in [
        ("nat: { o: { vlan: lan, ip: 10.0.0.254/24 } }\n", &[][..]),
        ("nat: { o: { vlan: 7, ip: 10.1.0.254/24, bridge: mega_bridge } }\n", &[]),
        ("nat: { o: { vlan: lam, ip: 10.0.0.254/24 } }\n", &[("unknown-vlan", "lam")]),
        ("nat: { o: { vlan: lan } }\n", &[("missing-key", "o")]),
        ("nat: { o: { vlan: lan, ip: 10.0.0.254 } }\n", &[("invalid-value", "10.0.0.254")]),
        ("nat: { o: { vlan: lan, ip: 10.0.0.255/24 } }\n", &[("invalid-value", "10.0.0.255/24")]),
        ("nat: { o: { vlan: lan, ip: 10.0.0.1/31 } }\n", &[("invalid-value", "10.0.0.1/31")]),
        ("nat: { o: { vlan: lan, ip: \"fd00::1/64\" } }\n", &[("invalid-value", "\"fd00::1/64\"")]),
        ("nat: { o: { vlan: lan, ip: 10.0.0.1/24 } }\n", &[("duplicate-ip", "10.0.0.1/24")]),
        ("nat: { o: { vlan: lan, ip: 10.0.0.254/24, bridge: br9 } }\n", &[]),
        (
            "nat: { o: { vlan: lan, ip: 10.0.0.254/24 }, p: { vlan: lan, ip: 10.0.0.253/24 } }\n",
            &[("duplicate-nat", "lan")],
        ),
        (&server(router), &[("duplicate-ip", "10.0.0.50/24")]),
        (&server("").replace("0.50", "0.5"), &[("nat-router", "s")]),
        (
            &server(", leases: [a.0 10.0.0.5]").replace("0.50", "0.5"),
            &[("duplicate-ip", "a.0 10.0.0.5"), ("nat-router", "s")],
        ),
        (&server(router).replace("0.50", "0.5"), &[]),
    ] {
        let found = codes(&lab(rest));
        let found: Vec<(&str, &str)> = found.iter().map(|(code, at)| (*code, at.as_str())).collect();
        assert_eq!(found, expected, "{rest}\n{}", shown(&lab(rest)));
    }
    // A gateway is somebody on a VLAN.
    let alone = "experiment: lab\nvlans: { lan: {} }\nvms: { a: { networks: [lan] } }\n";
    assert_eq!(codes(&yaml(alone)), [("lonely-vlan", "lan".to_owned())]);
    assert!(codes(&yaml(&format!("{alone}nat: {{ o: {{ vlan: lan, ip: 10.0.0.254/24 }} }}\n"))).is_empty());
}

#[test]
fn pipelines_are_checked() {
    for (rest, expected) in [
        ("{ p: { pipeline: [a, \"sed -u s/a/b/\", lab//b, far//c, 7] } }", &[][..]),
        ("{ p: { pipeline: [a, b] }, q: { pipeline: [b, a] } }", &[]),
        ("{ p: {} }", &[("missing-key", "p")]),
        ("{ p: { pipeline: a } }", &[("invalid-value", "a")]),
        ("{ p: { pipeline: [a] } }", &[("invalid-value", "[a]")]),
        ("{ p: { pipeline: [] } }", &[("invalid-value", "[]")]),
        ("{ p: { pipeline: [a, \" \"] } }", &[("invalid-value", "\" \"")]),
        ("{ p: { pipeline: [a, \"cat \"] } }", &[("invalid-value", "\"cat \"")]),
        ("{ p: { pipeline: [a, \"b\\tc\"] } }", &[("not-carried", "\"b\\tc\"")]),
        ("{ p: { pipeline: [a, { program: cat }] } }", &[("wrong-type", "{ program: cat }")]),
        ("{ p: { pipeline: [a, b], mode: all } }", &[("unknown-key", "mode")]),
        // The same by another writing is the same.
        ("{ p: { pipeline: [a, b] }, q: { pipeline: [lab//a, b] } }", &[("duplicate-pipeline", "lab//a")]),
    ] {
        let document = yaml(&format!("experiment: lab\nvms: {{}}\nplumbing: {rest}\n"));
        let found = codes(&document);
        let found: Vec<(&str, &str)> = found.iter().map(|(code, at)| (*code, at.as_str())).collect();
        assert_eq!(found, expected, "{rest}\n{}", shown(&document));
    }
}

#[test]
fn a_mistyped_condition_is_one_mistake() {
    let wait = |keys: &str| {
        codes(&yaml(&format!("experiment: lab\nvms: {{ a: {{ wait_for: {{ {keys} }} }}, b: {{ depends_on: a }} }}\n")))
    };
    assert_eq!(wait("pong: 10.0.0.1"), [("unknown-key", "pong".to_owned())]);
    assert_eq!(wait("timeout: 5").len(), 1);
}

#[test]
fn a_plain_name_is_found_without_understanding_the_file() {
    let name = |format, text: &str| {
        let (name, folder) = ("lab".to_owned(), Folder::new(Path::new("")));
        File { name, text: text.to_owned(), format, folder }.plain_name().map(String::from)
    };
    let yaml = |text: &str| name(Format::Yaml, text);
    for text in ["experiment: lab", "# x\nvms: {}\nexperiment: \"lab\" # ours\n", "experiment : 'lab'\r\n"] {
        assert_eq!(yaml(text).as_deref(), Some("lab"), "{text}");
    }
    let none = [
        "",
        "  experiment: lab",
        "experiments: lab",
        "experiment:\n  lab",
        "experiment: '{{ var.x }}'",
        "{ experiment: lab }",
    ];
    for text in none {
        assert_eq!(yaml(text), None, "{text}");
    }
    assert_eq!(name(Format::Toml, "vms.a = {}\nexperiment = \"lab\"").as_deref(), Some("lab"));
    assert_eq!(name(Format::Toml, "experiment: lab"), None);
}
