//! What is generated from the tables, what the documents and examples say, and experiments written out in full.

use std::fs;

use super::super::*;
use super::{SAMPLE, SAMPLE_TOML, outline, shown, toml, yaml};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `MEGAFORM_UPDATE=1 cargo test` writes generated files instead of comparing them.
fn up_to_date(path: &str, expected: &str) {
    let full = Path::new(ROOT).join(path);
    if std::env::var_os("MEGAFORM_UPDATE").is_some() {
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(&full, expected).unwrap();
    }
    assert!(read(path) == expected, "{path} is stale, run `MEGAFORM_UPDATE=1 cargo test --lib spec::`");
}

#[test]
fn the_schema_is_up_to_date() {
    let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    up_to_date("schemas/experiment.schema.json", &text);
}

#[test]
fn the_reference_is_up_to_date_and_complete() {
    let text = read("docs/experiment.md");
    let (before, rest) = text.split_once("<!-- keys: begin -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- keys: end -->\n").unwrap();
    let expected = format!("{before}<!-- keys: begin -->\n\n{}\n<!-- keys: end -->\n{after}", reference());
    up_to_date("docs/experiment.md", &expected);
}

fn json(node: &syntax::Node) -> serde_json::Value {
    use syntax::Value;
    match &node.value {
        Value::Null | Value::Date => serde_json::Value::Null,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => i64::try_from(*number).unwrap().into(),
        Value::Float(number) => (*number).into(),
        Value::String(text) => (**text).into(),
        Value::List(list) => list.iter().map(json).collect(),
        Value::Map(map) => {
            map.iter().map(|(k, v)| (k.text.to_string(), json(v))).collect::<serde_json::Map<_, _>>().into()
        }
    }
}

pub fn tree(text: &str, format: Format) -> serde_json::Value {
    let mut sources = SourceMap::new();
    let source = sources.add("x", text);
    let (node, diagnostics) = syntax::read(text, source, format);
    assert_eq!(diagnostics, []);
    json(&node.unwrap())
}

/// The fenced blocks of a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str()).skip(1).map(|part| part.split("```").next().unwrap()).collect()
}

/// A block that stands in a list, without the indentation of the list.
fn outdented(block: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let filled = block.lines().filter(|line| !line.trim().is_empty());
    let depth = filled.map(indent).min().unwrap_or_default();
    block.lines().map(|line| format!("{}\n", line.get(depth..).unwrap_or_default())).collect()
}

#[test]
fn examples_decode_and_fit_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let docs = read("docs/experiment.md");
    let (yamls, tomls) = (blocks(&docs, "yaml"), blocks(&docs, "toml"));
    // The first of both languages say the same, the second places VMs, the third composes.
    assert_eq!((yamls.len(), tomls.len()), (3, 1));
    for text in &yamls[1..] {
        assert!(yaml(text).diagnostics.is_empty(), "{}", shown(&yaml(text)));
    }
    assert_eq!(outline(&yaml(yamls[0])), outline(&toml(tomls[0])));
    let mut texts = vec![
        (yamls[0].to_owned(), Format::Yaml),
        (yamls[1].to_owned(), Format::Yaml),
        (yamls[2].to_owned(), Format::Yaml),
        (tomls[0].to_owned(), Format::Toml),
        (include_str!("../../cli/init.yaml").replace("NAME", "lab"), Format::Yaml),
        (SAMPLE.to_owned(), Format::Yaml),
        (SAMPLE_TOML.to_owned(), Format::Toml),
    ];
    for entry in fs::read_dir(Path::new(ROOT).join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let format = match path.extension().and_then(|e| e.to_str()) {
            Some("yaml") => Format::Yaml,
            Some("toml") => Format::Toml,
            _ => continue,
        };
        let loaded = load(&path, &Inputs::default());
        if let Some(experiment) = &loaded.experiment {
            // Written out in full it is the same experiment.
            let full = written(experiment, &loaded.sources);
            let again = parse("full.yaml", &full, Format::Yaml, &NoFiles);
            assert_eq!(outline(&again), experiment.outline(), "{full}");
        }
        let errors = loaded.diagnostics.iter().filter(|d| d.code != "missing-file").count();
        assert_eq!(errors, 0, "{}", shown(&loaded));
        texts.push((fs::read_to_string(&path).unwrap(), format));
    }
    assert!(texts.len() > 4, "there are no examples");
    for (text, format) in texts {
        if let Err(error) = validator.validate(&tree(&text, format)) {
            panic!("{error} at {}\n{text}", error.instance_path());
        }
    }
}

/// Every example of the documents, whole files and parts of one.
#[test]
fn the_documents_say_what_is_valid() {
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let (mut whole, mut parts) = (0, 0);
    for path in docs.chain(["README.md", "python/README.md"].map(|path| Path::new(ROOT).join(path))) {
        let text = fs::read_to_string(&path).unwrap();
        let blocks =
            ["yaml", "yml", "toml"].map(|language| blocks(&text, language).into_iter().map(move |b| (language, b)));
        for (language, block) in blocks.into_iter().flatten() {
            let block = outdented(block);
            let is_whole = language == "toml" || block.contains("experiment:");
            let (source, format) = match language {
                "toml" => (block, Format::Toml),
                _ if is_whole => (block, Format::Yaml),
                _ => (format!("experiment: part\n{block}"), Format::Yaml),
            };
            let loaded = parse("x", &source, format, &NoFiles);
            // A part names what stands elsewhere.
            let elsewhere = ["unknown-vlan", "unknown-vm", "unknown-profile", "needs-kernel"];
            let errors = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error);
            let bad = errors.filter(|d| is_whole || !elsewhere.contains(&d.code)).count();
            assert_eq!(bad, 0, "{}:\n{source}\n{}", path.display(), shown(&loaded));
            *(if is_whole { &mut whole } else { &mut parts }) += 1;
        }
    }
    assert!(whole >= 5 && parts >= 10, "{whole} files and {parts} parts");
}

#[test]
fn the_modules_of_the_examples_fit_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut modules = 0;
    for entry in fs::read_dir(Path::new(ROOT).join("examples/modules")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        if let Err(error) = validator.validate(&tree(&text, Format::Yaml)) {
            panic!("{error} at {}\n{text}", error.instance_path());
        }
        modules += 1;
    }
    assert!(modules > 0);
}

#[test]
fn what_is_written_in_full_means_the_same() {
    let text = r##"
experiment: lab
vlan_range: 300-400
vlan_blacklist: [5, 310-312, 6]
vlans: { dmz: , core: 200, on: , "1e": }
profiles: { p: { kernel: "k 1", append: ["a b", "#c", "-", "x: y"], tags: { true: "no", k: 1.50 } } }
vms:
  "a[0-1]": { profile: p, networks: [dmz, { vlan: core, driver: virtio-net-pci, bridge: b1 }, 7], state: paused, snapshot: false }
  "c[0-1]": { lifecycle: { prevent_destroy: true, ignore_changes: [memory, "networks[0]"], renamed_from: "old[1-2]" } }
  d: { networks: { vlan: dmz, connected: false }, qemu_override: [{ match: "-a,b", replacement: "" }, { match: b, replacement: "c #d" }] }
  b: { disks: ["x.qcow2,virtio,none", { path: y z }], depends_on: a1, coschedule: 3, colocate: a0, machine: "{{ '{{' }} {{ '{%' }}", cpu: "null", uuid: 2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11 }
taps: { t: { vlan: on, ip: fd00::1/64, bridge: b1, lifecycle: { ignore_changes: ip } }, u: { vlan: 1e } }
"##;
    let loaded = yaml(text);
    let experiment = loaded.experiment.as_ref().unwrap_or_else(|| panic!("{}", shown(&loaded)));
    let full = written(experiment, &loaded.sources);
    assert_eq!(outline(&yaml(&full)), experiment.outline(), "{full}");
    // Each value has the place that it comes from.
    assert!(full.contains("    kernel: \"k 1\"  # lab.yaml:6\n"), "{full}");
    assert!(full.contains("      - { vlan: dmz }  # lab.yaml:8\n"), "{full}");
}

#[test]
fn every_section_repeats_its_entries() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for (section, entry) in [
        ("vlans", "{}"),
        ("vms", "{ networks: [lan] }"),
        ("profiles", "{ memory: 64 }"),
        ("taps", "{ vlan: lan }"),
        ("links", "{ ends: [a.0, a.1], delay: 1 ms }"),
        ("bridges", "{ trunks: eth1 }"),
        ("dnsmasq", "{ address: 10.0.0.1, range: [10.0.0.2, 10.0.0.3] }"),
        ("mirrors", "{ from: a.0, to: a.1 }"),
        ("captures", "{ vm: a, file: x.pcap }"),
        ("commands", "{ create: vm info }"),
    ] {
        for repeat in ["when: \"{{ 1 == 1 }}\", for_each: [x]", "when: true, count: 1"] {
            if section == "profiles" && repeat.contains("count") {
                continue;
            }
            let key = if repeat.contains("count") { "e{{ count.index }}" } else { "e{{ each.key }}" };
            let body = entry.replacen('{', &format!("{{ {repeat}, "), 1).replace(", }", " }");
            let mut text = format!("experiment: lab\n{section}: {{ \"{key}\": {body} }}\n");
            if section != "vms" {
                text.push_str("vms: { a: { networks: [lan, lan] } }\n");
            }
            let vlans = if section == "vlans" { "" } else { "vlans: { lan: {} }\n" };
            text.push_str(vlans);
            assert!(validator.is_valid(&tree(&text, Format::Yaml)), "{text} does not fit the schema");
            let refused = yaml(&text).diagnostics.into_iter().find(|d| ["unknown-key", "wrong-type"].contains(&d.code));
            assert_eq!(refused, None, "{text}");
        }
    }
}

#[test]
fn the_schema_refuses_what_it_can() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for text in [
        "{}",
        "{ experiment: all }",
        "{ experiment: lab, nope: 1 }",
        "{ experiment: lab, vlans: { v: { tag: 4095 } } }",
        "{ experiment: lab, vms: { a: { memroy: 1 } } }",
        "{ experiment: lab, vms: { \"a b\": {} } }",
        "{ experiment: lab, vms: { a: { networks: [{ mac: \"52:54:00:00:00:01\" }] } } }",
        "{ experiment: lab, vms: { a: { networks: [\"a,b\"] } } }",
        "{ experiment: lab, vms: { a: { vcpus: 0 } } }",
        "{ experiment: lab, vms: { a: { qemu_override: [{ match: x }] } } }",
        "{ experiment: lab, vms: { a: { qemu_override: [{ match: \"\", replacement: x }] } } }",
        "{ experiment: lab, vms: { a: { bonds: [{ nics: [0], mode: active-backup }] } } }",
        "{ experiment: lab, vms: { a: { bonds: [{ nics: [0, 1], mode: fast }] } } }",
        "{ experiment: lab, vms: { a: { usb_disks: [{ version: \"2.0\" }] } } }",
        "{ experiment: lab, vms: { a: { usb_disks: [{ path: a.img, version: \"3.0\" }] } } }",
        "{ experiment: lab, vlan_blacklist: [0] }",
        "{ experiment: lab, vlan_blacklist: [[5, 6]] }",
        "{ experiment: lab, profiles: { a: { count: 2 } } }",
        "{ experiment: lab, vms: { a: { tags: { megaform.x: y } } } }",
    ] {
        assert!(!validator.is_valid(&tree(text, Format::Yaml)), "{text} fits the schema");
        let loaded = yaml(text);
        assert!(loaded.experiment.is_none(), "{text} was decoded");
    }
}
