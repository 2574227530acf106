use std::collections::BTreeMap;
use std::io;

use super::*;
use crate::diagnostic::{Severity, render};
use crate::spec::{Loaded, parse_with};

/// Files in memory.
#[derive(Debug, Clone, Default)]
struct Memory(BTreeMap<String, String>);

impl Files for Memory {
    fn resolve(&self, relative: &str) -> Option<String> {
        self.0.contains_key(relative).then(|| format!("/lab/{relative}"))
    }
    fn read(&self, relative: &str, limit: u64) -> io::Result<Vec<u8>> {
        let text = self.0.get(relative).ok_or(io::ErrorKind::NotFound)?;
        Ok(text.bytes().take(usize::try_from(limit).unwrap() + 1).collect())
    }
    fn display(&self, relative: &str) -> String {
        relative.to_owned()
    }
    fn share(&self) -> Arc<dyn Files> {
        Arc::new(self.clone())
    }
}

fn files(files: &[(&str, &str)]) -> Memory {
    Memory(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
}

fn load_with(text: &str, inputs: &Inputs, files: &Memory) -> Loaded {
    parse_with("lab.yaml", text, Format::Yaml, inputs, files)
}

fn load(text: &str) -> Loaded {
    load_with(text, &Inputs::default(), &Memory::default())
}

fn vars(vars: &[&str]) -> Inputs {
    Inputs { vars: vars.iter().map(|v| (*v).to_owned()).collect(), ..Inputs::default() }
}

fn shown(loaded: &Loaded) -> String {
    loaded.secrets.mask(&render(&loaded.diagnostics, &loaded.sources, false))
}

fn outline(loaded: &Loaded) -> String {
    loaded.experiment.as_ref().unwrap_or_else(|| panic!("{}", shown(loaded))).outline()
}

/// The two texts mean the same experiment.
#[track_caller]
fn same(composed: &str, plain: &str) {
    assert_eq!(outline(&load(composed)), outline(&load(plain)));
}

/// The value of an expression, as JSON.
fn eval(expression: &str) -> String {
    let escaped = serde_json::to_string(&format!("{{{{ {expression} }}}}")).unwrap();
    let loaded = load_with(
        &format!("experiment: lab\noutputs: {{ x: {escaped} }}\n"),
        &Inputs::default(),
        &files(&[("a.txt", "hello\n"), ("sub/b.yaml", "n: 3\n")]),
    );
    match loaded.outputs.first() {
        Some(output) if loaded.experiment.is_some() => output.value.to_string(),
        _ => format!("error: {}", loaded.diagnostics[0].message),
    }
}

#[test]
fn functions_of_expressions() {
    for (expression, expected) in [
        ("1 + 2 * 3", "7"),
        ("'a' ~ 1", "\"a1\""),
        ("[1, 'x', {'k': true}]", "[1,\"x\",{\"k\":true}]"),
        ("range(2, 8, 2)", "[2,4,6]"),
        ("cidrhost('10.0.0.0/24', 5)", "\"10.0.0.5\""),
        ("cidrsubnet('10.0.0.0/8', 8, 2)", "\"10.2.0.0/16\""),
        ("cidrnetmask('10.0.0.0/20')", "\"255.255.240.0\""),
        ("cidrprefix('10.0.0.0/20')", "20"),
        ("cidrnetwork('10.0.9.7/16')", "\"10.0.0.0\""),
        ("cidrbroadcast('10.0.9.7/16')", "\"10.0.255.255\""),
        ("cidrcontains('10.0.0.0/8', '10.9.0.0/16')", "true"),
        ("cidrcontains('10.0.0.0/8', '11.0.0.1')", "false"),
        ("ipadd('10.0.0.255/16', 1)", "\"10.0.1.0/16\""),
        ("ipadd('fd00::1', -1)", "\"fd00::\""),
        ("file('a.txt')", "\"hello\\n\""),
        ("fileexists('none')", "false"),
        ("abspath('a.txt')", "\"/lab/a.txt\""),
        ("yamldecode(file('sub/b.yaml')).n", "3"),
        ("jsondecode('[1, null]')", "[1,null]"),
        ("2 ** 70", "1.1805916207174113e+21"),
        ("jsonencode({'a': [1]})", "\"{\\\"a\\\":[1]}\""),
        ("base64decode(base64encode('é'))", "\"é\""),
        ("sha256('')", "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\""),
        ("filesha256('a.txt') == sha256(file('a.txt'))", "true"),
        ("format('%03d-%s', 7, 'x')", "\"007-x\""),
        ("format('%d%%', 7)", "\"7%\""),
        ("format('%(a)s', {'a': 1, 'b': 2})", "\"1\""),
        ("format('none')", "\"none\""),
        ("zip([1, 2], ['a', 'b'])", "[[1,\"a\"],[2,\"b\"]]"),
        ("flatten([1, [2, [3]], []])", "[1,2,3]"),
        ("concat([1], [2])", "[1,2]"),
        ("merge({'a': 1, 'b': 1}, {'b': 2})", "{\"a\":1,\"b\":2}"),
        ("zipmap(['a', 'b'], [1, 2])", "{\"a\":1,\"b\":2}"),
        ("keys({'b': 1, 'a': 2})", "[\"a\",\"b\"]"),
        ("values({'b': 1, 'a': 2})", "[2,1]"),
        ("lookup({'a': 1}, 'b', 9)", "9"),
        ("setproduct([1, 2], ['x'])", "[[1,\"x\"],[2,\"x\"]]"),
        ("[3, 1] | sort | join('-')", "\"1-3\""),
        ("mac('web', 1) == mac('web', 1) and mac('web', 1) != mac('we', 'b1')", "true"),
        ("uuid('a') != uuid('b')", "true"),
        ("experiment.name", "\"lab\""),
        (
            "'%s of 100%%' | format(1, 2)",
            "error: the expression has no value: the text of `format` has 1 place for a value, but 2 are given",
        ),
        (
            "format('%d%s', 3, 'x', 'y')",
            "error: the expression has no value: the text of `format` has 2 places for a value, but 3 are given",
        ),
        ("file('none')", "error: the expression has no value: cannot read `none`: entity not found"),
        (
            "cidrhost('10.0.0.0/24', 256)",
            "error: the expression has no value: 10.0.0.0/24 has 256 addresses, there is no number 256",
        ),
        (
            "1 / 'a'",
            "error: the expression has no value: tried to use / operator on unsupported types number and string",
        ),
    ] {
        assert_eq!(eval(expression), expected, "{expression}");
    }
    // What `mac` makes is an address that the file takes.
    let mac: String = serde_json::from_str(&eval("mac('x')")).unwrap();
    assert!(mac.parse::<crate::name::Mac>().is_ok(), "{mac}");
    assert!(eval("uuid('a')").trim_matches('"').parse::<uuid::Uuid>().is_ok());
    // Every function that is documented exists, and every one that exists is documented.
    let engine = Engine::new(Arc::new(Memory::default()));
    let mut documented: Vec<&str> = REFERENCE.iter().map(|(name, _)| name.split('(').next().unwrap()).collect();
    let mut there: Vec<&str> = engine.names().iter().map(String::as_str).collect();
    documented.sort_unstable();
    there.sort_unstable();
    assert_eq!(documented, there);
}

#[test]
fn expressions_keep_their_types() {
    same(
        r#"
experiment: "lab-{{ 1 + 1 }}"
variables: { size: { default: 64 }, words: { default: [quiet, ro] }, off: { default: false } }
vlans: { "net{{ 1 }}": { tag: "{{ 100 + 1 }}" }, b: "{{ 102 }}" }
vlan_range: "{{ [300, 310] }}"
profiles: { p: { kernel: k, snapshot: "{{ var.off }}", memory: "{{ var.size }}MB", append: "{{ var.words }}" } }
vms:
  a: { profile: p, networks: "{{ ['net1', 102] }}", tags: "{{ {'k': 1.5, 'on': true} }}", uuid: "{{ none }}" }
  "{{ 'b' }}": { profile: ["{{ 'p' }}"], networks: [b, "{{ none }}"], tags: { "{{ 'x' }}": "{{ 7 }}" } }
"#,
        r#"
experiment: lab-2
vlans: { net1: 101, b: 102 }
vlan_range: [300, 310]
profiles: { p: { kernel: k, snapshot: false, memory: 64, append: quiet ro } }
vms:
  a: { profile: p, networks: [net1, 102], tags: { k: "1.5", on: true } }
  b: { profile: p, networks: [b], tags: { x: 7 } }
"#,
    );
    // What only looks like an expression alone is text.
    same(
        "experiment: lab\nvms: { a: { machine: \"{{ 'p' }}{{ 'c' }}\", cpu: \"{% if true %}max{% endif %}\", vga: \"{{ '{{' }}\" } }\n",
        "experiment: lab\nvms: { a: { machine: pc, cpu: max, vga: \"{% raw %}{{{% endraw %}\" } }\n",
    );
}

#[test]
fn repetition_and_conditions() {
    same(
        r#"
experiment: lab
variables: { sites: { default: { a: { n: 1, x: true }, b: { n: 2, x: false } } }, three: { default: 3 } }
vlans:
  "{{ each.key }}": { for_each: "{{ var.sites }}", tag: "{{ 100 + each.value.n }}" }
  off: { when: false }
  t: { count: 2 }
profiles:
  p-{{ each.value }}: { for_each: [x, y], memory: "{{ 64 * (each.index + 1) }}" }
vms:
  "web-{{ each.key }}-{{ each.value.n }}":
    for_each: var.sites
    when: each.value.x
    profile: p-x
    networks:
      - { for_each: "{{ keys(var.sites) }}", vlan: "{{ each.value }}", mac: "52:54:00:00:00:0{{ each.index }}" }
      - { when: "{{ each.value.n > 1 }}", vlan: t1 }
      - t0
  n: { count: "{{ var.three }}", profile: p-y, networks: t1 }
  none: { count: 0 }
  i: { count: 2, memory: "{{ 65 + count.index }}", networks: t0 }
  "j{{ 9 - count.index }}": { count: 2, networks: t0 }
  gone: { when: "{{ var.three > 3 }}", networks: nowhere }
  "r[0-{{ var.three }}]": { networks: [a, b] }
taps:
  "m{{ each.key }}": { for_each: [a, b], vlan: "{{ each.value }}", ip: "10.0.{{ each.index }}.1/24" }
"#,
        r#"
experiment: lab
vlans: { a: 101, b: 102, t0: , t1: }
vms:
  web-a-1:
    memory: 64
    networks: [{ vlan: a, mac: "52:54:00:00:00:00" }, { vlan: b, mac: "52:54:00:00:00:01" }, t0]
  "n[0-2]": { memory: 128, networks: t1 }
  i0: { memory: 65, networks: t0 }
  i1: { memory: 66, networks: t0 }
  "j[8-9]": { networks: t0 }
  "r[0-3]": { networks: [a, b] }
taps:
  ma: { vlan: a, ip: 10.0.0.1/24 }
  mb: { vlan: b, ip: 10.0.1.1/24 }
"#,
    );
}

#[test]
fn variables_come_from_four_places() {
    let text = "experiment: lab\nvariables: { a: { type: integer, default: 1 }, b: { type: string, default: x }, c: { type: \"list(integer)\", default: [] } }\noutputs: { a: \"{{ var.a }}\", b: \"{{ var.b }}\", c: \"{{ var.c }}\" }\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.toml");
    std::fs::write(&path, "a = 3\nb = \"file\"\n").unwrap();
    let outputs = |inputs: &Inputs| {
        let loaded = load_with(text, inputs, &Memory::default());
        assert!(loaded.experiment.is_some(), "{}", shown(&loaded));
        loaded.outputs.iter().map(|o| o.value.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(outputs(&Inputs::default()), "1 \"x\" []");
    let environment =
        [("a", "2"), ("B", "5"), ("c", "[1]"), ("unknown", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let mut inputs = Inputs { environment, ..Inputs::default() };
    assert_eq!(outputs(&inputs), "2 \"5\" [1]");
    inputs.files.push(path);
    assert_eq!(outputs(&inputs), "3 \"file\" [1]");
    inputs.vars = vec!["a=4".to_owned(), "c=[1, 2]".to_owned(), "a=0x10".to_owned(), "b= a=b".to_owned()];
    assert_eq!(outputs(&inputs), "16 \" a=b\" [1,2]");
}

#[test]
fn every_mistake_about_variables_in_one_run() {
    let text = r#"
experiment: lab
variables:
  size: { type: integer, min: 1, max: 8 }
  site: { type: string, pattern: "[a-z]{3}" }
  kind: { one_of: [small, large], default: tiny }
  net: { type: cidr, default: 10.0.0.0 }
  even:
    type: integer
    default: 3
    validation: { condition: "{{ var.even % 2 == 0 }}", error_message: "{{ var.even }} is not even" }
  need: {}
  also: { type: strng, defalt: 3 }
  2x: {}
  late: { default: "{{ var.size }}" }
  list: { type: list(ip), default: [10.0.0.1, x] }
vms: { a: { memory: "{{ var.size * 64 + var.need }}" } }
"#;
    let loaded = load_with(text, &vars(&["size=9", "site=Rome", "sice=3", "kind", "also=1"]), &Memory::default());
    assert!(loaded.experiment.is_none());
    insta::assert_snapshot!(shown(&loaded));
}

#[test]
fn every_mistake_in_expressions_in_one_run() {
    let text = r#"
experiment: lab
variables: { webs: { default: { a: { memory: 64 } } } }
locals: { x: "{{ local.y }}", y: "{{ local.z + 1 }}", z: "{{ local.x }}", ok: 3 }
vlans: { lan: }
vms:
  a: { memory: "{{ var.wbs }}", networks: [lan] }
  b: { memory: "{{ vra.webs }}", networks: [lan] }
  c: { memory: "{{ local.okay }}" , networks: ["{{ module.x }}"] }
  d: { memory: "{{ each.key }}", vcpus: "{{ count.index }}" }
  e: { memory: "{{ 1 + }}", vcpus: "{{ 1 | lenght }}", cores: "{{ cidrhst('x') }}" }
  f: { memory: "{{ var.webs.a.memroy + 1 }}", vcpus: "{{ 1 + 'a' }}", cores: "{{ [1] }}" }
  g: { when: 3, for_each: [1] }
  "g-{{ each.key }}": { when: 3, for_each: [1] }
  h: { for_each: 3 }
  i: { for_each: [1], count: 3 }
  j: { for_each: [x, y], networks: [lan] }
  k-x: {}
  "k-{{ each.value }}": { for_each: [x] }
  l: { count: "{{ 'many' }}", memory: "{{ count.index }}" }
  "{{ [1] }}": {}
  m: { memory: "a {{ 'b' }}", tags: { "{{ 'a' }}": 1, a: 2 } }
  n: { memory: {{ var.webs }} }
  "o-{{ each.key }}": { for_each: { x: 1, y: two, z: too }, memory: "{{ 64 + each.value }}" }
outputs: { bad: { value: 1, sensitve: true }, "a b": 1 }
"#;
    // An expression that is not quoted is a YAML map.
    let loaded = load(text);
    insta::assert_snapshot!(shown(&loaded));
    assert!(loaded.experiment.is_none());
}

const MODULE: &str = r#"
variables: { memory: { type: integer }, net: { default: backup } }
outputs: { server: "{{ prefix }}server", nets: ["{{ var.net }}"] }
vlans: { backup: {} }
profiles: { p: { memory: "{{ var.memory }}", depends_on: outside } }
vms:
  server: { profile: p, networks: ["{{ var.net }}", { vlan: backup }, core], depends_on: "agent[0-1]" }
  agent: { profile: p, count: 2, networks: backup, depends_on: [] }
  last: { profile: [base, p], networks: core, depends_on: ["agent[0-2]", server, outside] }
taps: { t: { vlan: backup } }
"#;

#[test]
fn a_module_used_twice_makes_two_copies() {
    let text = r#"
experiment: lab
include:
  - { file: sub/module.yaml, prefix: x-, with: { memory: 64 } }
  - file: sub/module.yaml
    as: many
    for_each: { one: 1, two: 2 }
    prefix: "{{ each.key }}-"
    with: { memory: "{{ 64 * each.value }}", net: core }
    when: each.value > 1
  - { file: sub/module.yaml, as: never, when: false, with: { memory: none } }
  - other.toml
outputs: { server: "{{ module.x.server }}", nets: "{{ module.many.two.nets }}", other: "{{ module.other.x }}" }
vlans: { core: {} }
profiles: { base: { vcpus: 2 } }
vms: { outside: { networks: core }, "agent2": { networks: core } }
"#;
    let files = files(&[("sub/module.yaml", MODULE), ("other.toml", "outputs = { x = \"{{ 1 + 1 }}\" }\n")]);
    let loaded = load_with(text, &Inputs::default(), &files);
    let one = |prefix: &str, memory: u32, net: &str| {
        format!(
            r#"
  {prefix}server: {{ memory: {memory}, networks: [{net}, {prefix}backup, core], depends_on: "{prefix}agent[0-1]" }}
  "{prefix}agent[0-1]": {{ memory: {memory}, networks: {prefix}backup }}
  {prefix}last: {{ vcpus: 2, memory: {memory}, networks: core, depends_on: ["{prefix}agent[0-1]", agent2, {prefix}server, outside] }}
"#
        )
    };
    let plain = format!(
        "experiment: lab\nvlans: {{ core: , x-backup: , two-backup: }}\nvms:\n  outside: {{ networks: core }}\n  agent2: {{ networks: core }}\n{}{}taps: {{ x-t: {{ vlan: x-backup }}, two-t: {{ vlan: two-backup }} }}\n",
        one("x-", 64, "x-backup"),
        one("two-", 128, "core"),
    );
    assert_eq!(outline(&loaded), outline(&load(&plain)));
    let outputs: Vec<String> = loaded.outputs.iter().map(|o| format!("{}={}", o.name, o.value)).collect();
    assert_eq!(outputs, ["nets=[\"core\"]", "other=2", "server=\"x-server\""]);
    // The place of what comes from an included file is there.
    let experiment = loaded.experiment.unwrap();
    let place = loaded.sources.place(experiment.vms["x-server"].span);
    assert_eq!((place.file.as_str(), place.line), ("sub/module.yaml", 7));
}

#[test]
fn every_name_of_a_copy_is_its_own() {
    let module = r#"
variables: { n: { type: integer } }
vlans: { lan: {} }
bridges: { br: {} }
profiles: { beside: { colocate: a } }
vms:
  a: { networks: [{ vlan: lan, bridge: br }] }
  b: { profile: beside, networks: [{ vlan: lan, bridge: br }], depends_on: a }
links: { l: { ends: [a.0, b.0], delay: 5 ms } }
taps: { gw: { vlan: lan, ip: "10.{{ var.n }}.0.1/24", bridge: br } }
dnsmasq:
  d:
    address: "10.{{ var.n }}.0.1"
    range: ["10.{{ var.n }}.0.10", "10.{{ var.n }}.0.20"]
    leases: [{ vm: a, ip: "10.{{ var.n }}.0.30" }, "b.0 10.{{ var.n }}.0.31"]
mirrors: { m: { from: a.0, to: b.0 } }
captures: { c: { vm: a, file: "{{ prefix }}c.pcap" }, e: { bridge: br, file: "{{ prefix }}e.pcap" } }
commands: { x: { create: "echo {{ prefix }}", depends_on: [a, b] } }
"#;
    let one = "experiment: lab\ninclude: [{ file: module.yaml, with: { n: 1 } }]\n";
    let two = "experiment: lab\ninclude:\n  - { file: module.yaml, prefix: x-, with: { n: 1 } }\n  - { file: module.yaml, prefix: y-, with: { n: 2 } }\n";
    let read = |text: &str| {
        let loaded = load_with(text, &Inputs::default(), &files(&[("module.yaml", module)]));
        let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "{}", shown(&loaded));
        outline(&loaded)
    };
    // Every fact of the module stands twice, and no name of it is left as it was.
    let (one, two) = (read(one), read(two));
    assert_eq!(two.lines().count() - 1, 2 * (one.lines().count() - 1), "{two}");
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let left = ["a", "b", "lan", "br", "gw"]
        .into_iter()
        .find(|name| two.lines().any(|line| line.split(word).any(|part| part == *name) && !line.contains("dns")));
    assert_eq!(left, None, "{two}");
}

#[test]
fn a_module_that_declares_its_pipes_gets_its_own_in_each_copy() {
    let module = "pipes: { alerts: { mode: random }, cat: }\n\
                  plumbing: { p: { pipeline: [alerts, \"cat -u\", cat, alert, site, lab//alerts, far//alerts] } }\n";
    let files = files(&[("m.yaml", module)]);
    let loaded = load_with(
        "experiment: lab\ninclude: [{ file: m.yaml, prefix: a- }, { file: m.yaml, prefix: b- }]\npipes: { site: }\n",
        &Inputs::default(),
        &files,
    );
    // Programs, what is not declared and whole names stay.
    let pipeline = |prefix: &str| {
        format!(
            "{prefix}p: {{ pipeline: [{prefix}alerts, \"cat -u\", {prefix}cat, alert, site, lab//alerts, far//alerts] }}"
        )
    };
    let pipes = |prefix: &str| format!("{prefix}alerts: {{ mode: random }}, {prefix}cat: ");
    let plain = format!(
        "experiment: lab\npipes: {{ site: , {}, {} }}\nplumbing: {{ {}, {} }}\n",
        pipes("a-"),
        pipes("b-"),
        pipeline("a-"),
        pipeline("b-")
    );
    assert_eq!(outline(&loaded), outline(&load(&plain)));
}

#[test]
fn modules_within_modules() {
    let files = files(&[
        (
            "a/mid.yaml",
            "variables: { n: {} }\ninclude: { file: ../b/leaf.yaml, prefix: leaf-, with: { n: \"{{ var.n }}\" } }\nvms: { m: { networks: lan, depends_on: [leaf-v, top] } }\nvlans: { lan: }\noutputs: { o: \"{{ module.leaf.o }}/{{ prefix }}\" }\n",
        ),
        (
            "b/leaf.yaml",
            "variables: { n: { type: integer } }\nvms: { v: { vcpus: \"{{ var.n }}\", networks: [lan, far], depends_on: top, kernel: k } }\nvlans: { far: }\noutputs: { o: \"{{ prefix }}\" }\n",
        ),
        ("b/k", ""),
    ]);
    let loaded = load_with(
        "experiment: lab\ninclude: { file: a/mid.yaml, prefix: mid-, with: { n: 3 } }\nvms: { top: {} }\noutputs: { o: \"{{ module.mid.o }}\" }\n",
        &Inputs::default(),
        &files,
    );
    let plain = "experiment: lab\nvlans: { mid-lan: , mid-leaf-far: }\nvms: { top: {}, mid-m: { networks: mid-lan, depends_on: [mid-leaf-v, top] }, mid-leaf-v: { vcpus: 3, networks: [mid-lan, mid-leaf-far], depends_on: top, kernel: /lab/b/k } }\n";
    assert_eq!(outline(&loaded), outline(&load(plain)));
    assert_eq!(loaded.outputs[0].value, "mid-leaf-/mid-");
}

#[test]
fn every_mistake_about_included_files_in_one_run() {
    let files = files(&[
        (
            "m.yaml",
            "variables: { memory: { type: integer }, net: {} }\nvms: { a: { memory: \"{{ var.memory }}\" } }\nvlan_range: 300-400\n",
        ),
        ("twice.yaml", "vms: { a: {} }\n"),
        ("bad.yaml", "vms: { c: { memroy: 3 } }\nvlan: {}\n"),
        ("cycle.yaml", "include: other/../cycle2.yaml\n"),
        ("cycle2.yaml", "include: cycle.yaml\n"),
        ("syntax.yaml", "vms: [\n"),
        ("list.yaml", "[1]\n"),
        ("text.txt", ""),
    ]);
    let text = r#"
experiment: lab
include:
  - { file: m.yaml, with: { memory: lots, nte: 3 } }
  - { file: m.yaml, as: m2 }
  - { file: m.yaml, as: m3, with: { memory: 64, net: x } }
  - twice.yaml
  - { file: twice.yaml, as: again }
  - bad.yaml
  - cycle.yaml
  - none.yaml
  - syntax.yaml
  - list.yaml
  - text.txt
  - { file: bad.yaml, prefix: b-, fille: x }
  - 3
  - { as: x }
outputs: { x: "{{ module.bad.nothing }}", y: "{{ module.bda }}" }
"#;
    let loaded = load_with(text, &Inputs::default(), &files);
    assert!(loaded.experiment.is_none());
    insta::assert_snapshot!(shown(&loaded));
}

#[test]
fn sensitive_values_are_hidden_wherever_they_come_to_stand() {
    let text = r#"
experiment: lab
variables:
  token: { type: string, sensitive: true }
  pin: { type: integer, sensitive: true, max: 10 }
  word: { sensitive: true, one_of: [alpha, beta] }
  short: { sensitive: true, default: abc }
locals: { hash: "{{ sha256(var.token) }}", copy: "{{ var.token }}", harmless: "{{ 1 + 1 }}" }
outputs: { hash: "{{ local.hash }}", harmless: "{{ local.harmless }}", marked: { value: abcdef, sensitive: true } }
vms: { a: { kernel: k, append: "t={{ local.copy }}", networks: ["{{ var.token }}"], machine: "{{ local.hash }}" } }
"#;
    let loaded = load_with(text, &vars(&["token=hunter2", "pin=123456", "word=gamma"]), &Memory::default());
    let text = shown(&loaded);
    for secret in ["hunter2", "123456", "gamma"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
        assert!(loaded.diagnostics.iter().all(|d| !format!("{d:?}").contains(secret)), "{secret}");
    }
    assert!(text.contains("short-secret"), "{text}");
    let sensitive: Vec<(&str, bool)> = loaded.outputs.iter().map(|o| (o.name.as_str(), o.sensitive)).collect();
    assert_eq!(sensitive, [("harmless", false), ("hash", true), ("marked", true)]);
    let hash = loaded.outputs[1].value.as_str().unwrap().to_owned();
    assert_eq!(
        loaded.secrets.mask(&format!("append t=hunter2 {hash} abcdef")),
        "append (sensitive) (sensitive) (sensitive)"
    );
}

#[test]
fn no_part_of_what_is_sensitive_is_left_when_a_text_is_taken_apart() {
    let text = r#"
experiment: lab
variables:
  token: { type: string, sensitive: true }
  phrase: { type: string, sensitive: true, default: correct horse }
  site: { default: paris }
  on: { default: true }
vms:
  a:
    kernel: k
    append: "quiet   site={{ var.site }}  hash={{ base64encode(var.token) }}"
    tags:
      one: "{% if var.on %}{{ sha256(var.token) }}{% endif %} splash"
      two: "{{ var.phrase }}"
"#;
    let loaded = load_with(text, &vars(&["token=hunter2"]), &Memory::default());
    assert!(loaded.experiment.is_some(), "{}", shown(&loaded));
    let hash = "f52fbd32b2b3b86ff88ef6c490628285f482af15ddcb29541f94bcf526a3f6c7";
    let text =
        format!("[quiet, site=paris, hash=aHVudGVyMg==], append quiet site=paris hash=aHVudGVyMg==, {hash}, horse");
    let masked = loaded.secrets.mask(&text);
    for secret in ["aHVudGVyMg", hash, "horse"] {
        assert!(!masked.contains(secret), "{masked}");
    }
    assert!(masked.starts_with("[quiet, site=paris, hash=(sensitive)]"), "{masked}");
}

#[test]
fn the_texts_that_give_a_secret_are_not_shown() {
    let text = r#"
experiment: lab
variables:
  pin: { type: integer, sensitive: true }
  keys: { type: map(string), sensitive: true, default: {} }
  word: { type: string, sensitive: true, pattern: "[a-z]{2}", default: ab }
"#;
    for (given, code) in [
        ("pin=x9", "wrong-type"),
        ("keys={a: hunter2", "syntax"),
        ("word=A7", "variable-rule"),
        ("wrod=hunter2", "unknown-variable"),
    ] {
        let loaded = load_with(text, &vars(&["pin=1234", given]), &Memory::default());
        let text = shown(&loaded);
        assert!(text.contains(code), "{text}");
        let (_, value) = given.split_once('=').unwrap();
        assert!(!text.contains(value), "{given}:\n{text}");
    }
}

#[test]
fn what_would_not_end_is_refused() {
    let codes = |text: &str| {
        let loaded = load(text);
        assert!(loaded.experiment.is_none());
        assert!(shown(&loaded).len() < 20_000);
        loaded.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>()
    };
    let one = |value: &str| {
        format!("experiment: lab\nvms: {{ a: {{ machine: {} }} }}\n", serde_json::to_string(value).unwrap())
    };
    assert_eq!(
        codes(&one("{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}")),
        ["template-limit"]
    );
    assert_eq!(codes(&one("{{ 'x' * 999999999 }}")), ["template-limit"]);
    assert_eq!(codes(&one(&format!("{{{{ '{}' }}}}", "x".repeat(MAX_TEMPLATE)))), ["template-limit"]);
    assert_eq!(codes(&one(&format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)))), ["template-limit"]);
    assert_eq!(codes(&one(&format!("{{{{ {}1{} }}}}", "(".repeat(200), ")".repeat(200)))), ["template-syntax"]);
    let limited = |text: &str| load(text).diagnostics.iter().any(|d| d.code == "template-limit");
    // What nests without brackets, and would take a stack of its length; the longest that is allowed is computed.
    for (left, right) in [
        ("not ", ""),
        ("-", ""),
        ("", "|abs"),
        ("", " + 1"),
        ("2 ** ", ""),
        ("", ".a"),
        ("", "[0]"),
        ("", "()"),
        ("", " ~ ''"),
        ("", " if 1 else 1"),
        ("", " is defined"),
        ("", " + [2, 1][0]"),
    ] {
        let chain = |n: usize| format!("{{{{ {}1{} }}}}", left.repeat(n), right.repeat(n));
        assert_eq!(codes(&one(&chain(4000))), ["template-limit"], "{left}1{right}");
        assert!(!limited(&one(&chain(60))), "{left}1{right}");
    }
    for branch in ["{% if 1 %}", "{% if 1 %}{% elif 1 %}"] {
        let text = format!("{}{}", branch.repeat(2000), "{% endif %}".repeat(2000));
        assert_eq!(codes(&one(&text)), ["template-limit"]);
    }
    let list = format!("{{{{ [{}] | length }}}}", "{'a': -1, 'b': 'c, }}'}, ".repeat(2000));
    assert!(!limited(&one(&list)));
    // Each doubles the one before.
    let mut text = "experiment: lab\nlocals:\n  l0: [1, 2, 3, 4, 5, 6, 7, 8]\n".to_owned();
    for i in 1..40 {
        text.push_str(&format!("  l{i}: \"{{{{ local.l{} + local.l{} }}}}\"\n", i - 1, i - 1));
    }
    assert_eq!(codes(&text), ["template-limit"]);
    for word in ["set a = 1", "- with a = 1"] {
        assert_eq!(codes(&one(&format!("{{%{word} %}}{{{{ a }}}}"))), ["template-syntax"]);
    }
    assert_eq!(codes(&one("{{ range(10000) | list | tojson(indent=99999999) }}")), ["expression"]);
    // Texts that are no work to make, and far too much to keep.
    let loaded =
        load("experiment: lab\nvms: { \"v{{ count.index }}\": { count: 5000, machine: \"{{ 'abc' * 10000 }}\" } }\n");
    assert!(shown(&loaded).contains("make more than 64 MiB of text together"), "{}", shown(&loaded));
    // A million values.
    let nested = "experiment: lab\nvms:\n  \"v{{ each.key }}\":\n    for_each: \"{{ range(10000) }}\"\n    networks: [{ for_each: \"{{ range(200) }}\", vlan: \"{{ each.value + 1 }}\" }]\n";
    assert_eq!(codes(nested), ["expansion-limit"]);
    let loaded = load("experiment: lab\nvms: { v: { count: 100001, memory: \"{{ count.index }}\" } }\n");
    assert_eq!(loaded.diagnostics[0].code, "out-of-range");
}

#[test]
fn files_that_include_files_without_end_are_refused() {
    let mut all = BTreeMap::new();
    for i in 0..40 {
        all.insert(
            format!("f{i}.yaml"),
            format!(
                "include: [{{ file: f{}.yaml, as: a, prefix: a }}, {{ file: f{}.yaml, as: b, prefix: b }}]\n",
                i + 1,
                i + 1
            ),
        );
    }
    let loaded = load_with("experiment: lab\ninclude: f0.yaml\n", &Inputs::default(), &Memory(all));
    assert!(loaded.experiment.is_none());
    assert!(loaded.diagnostics.iter().any(|d| d.code == "include-limit"), "{}", shown(&loaded));
}

#[test]
fn the_order_of_keys_and_the_language_mean_nothing() {
    let yaml = r#"
experiment: "{{ local.name }}"
variables: { n: { type: integer, default: 2 }, nets: { default: { b: 2, a: 1 } } }
locals: { name: "lab{{ local.later }}", later: "{{ var.n }}" }
vlans: { "{{ each.key }}": { for_each: "{{ var.nets }}", tag: "{{ each.value }}" } }
vms:
  "w{{ each.value }}": { for_each: "{{ range(var.n) }}", networks: [{ when: true, vlan: a }, b] }
outputs: { n: "{{ var.n }}" }
"#;
    let reordered = r#"
outputs: { n: "{{ var.n }}" }
vms:
  "w{{ each.value }}": { networks: [{ vlan: a, when: true }, b], for-each: "{{ range(var.n) }}" }
vlans: { "{{ each.key }}": { tag: "{{ each.value }}", for_each: "{{ var.nets }}" } }
locals: { later: "{{ var.n }}", name: "lab{{ local.later }}" }
variables: { nets: { default: { a: 1, b: 2 } }, n: { default: 2, type: integer } }
experiment: "{{ local.name }}"
"#;
    let toml = r#"
experiment = "{{ local.name }}"
variables.n = { type = "integer", default = 2 }
variables.nets.default = { a = 1, b = 2 }
outputs.n = "{{ var.n }}"
[locals]
later = "{{ var.n }}"
name = "lab{{ local.later }}"
[vlans."{{ each.key }}"]
for_each = "{{ var.nets }}"
tag = "{{ each.value }}"
[vms."w{{ each.value }}"]
for_each = "{{ range(var.n) }}"
networks = [{ when = true, vlan = "a" }, "b"]
"#;
    let first = load(yaml);
    assert_eq!(outline(&load(reordered)), outline(&first));
    let toml = parse_with("lab.toml", toml, Format::Toml, &Inputs::default(), &Memory::default());
    assert_eq!(outline(&toml), outline(&first));
    assert_eq!(toml.outputs, first.outputs);
}

mod orders;

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// A file without composition means the same whether it goes past the expansion or through it, and its tree is
        /// shared and not copied.
        #[test]
        fn without_composition_the_model_is_the_same(vms in proptest::collection::btree_map("[a-m][a-z]{0,5}", (1..9u32, any::<bool>()), 0..8)) {
            let mut text = "experiment: lab\nvlans: { lan: , wan: 7 }\nvms:\n".to_owned();
            for (name, (memory, paused)) in &vms {
                let state = if *paused { "paused" } else { "running" };
                text.push_str(&format!("  {name}: {{ memory: {}, state: {state}, networks: [lan, {{ vlan: wan }}] }}\n", memory * 64));
            }
            let plain = load(&text);
            let through = load(&format!("{text}  \"zz{{{{ 1 }}}}\": {{}}\n"));
            prop_assert_eq!(format!("{}vm.zz1.type = kvm\nvm.zz1.state = running\n", outline(&plain)), outline(&through));
            let mut sources = SourceMap::new();
            let source = sources.add("x", text.as_str());
            let root = crate::spec::syntax::read(&text, source, Format::Yaml).0.unwrap();
            let composed = compose(root.clone(), &mut sources, &Inputs::default(), &Memory::default());
            let same = match (&root.value, &composed.root.unwrap().value) {
                (Value::Map(a), Value::Map(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            prop_assert!(same);
        }

        #[test]
        fn no_expression_makes_the_loader_panic(text in "[{}% a-z0-9.|'\"()+*/,\\[\\]-]{0,40}") {
            let value = serde_json::to_string(&format!("{{{{ {text} }}}}")).unwrap();
            let loaded = load(&format!("experiment: lab\nvariables: {{ a: {{ default: {{ b: 1 }} }} }}\nvms: {{ a: {{ machine: {value} }} }}\n"));
            prop_assert!(loaded.experiment.is_some() || loaded.diagnostics.iter().any(|d| d.severity == Severity::Error));
            shown(&loaded);
        }
    }
}
