use std::fmt::Write as _;

use super::*;
use crate::spec::{Format, NoFiles, parse};

fn experiment(text: &str) -> Experiment {
    let loaded = parse("lab.yaml", text, Format::Yaml, &NoFiles);
    let shown = crate::diagnostic::render(&loaded.diagnostics, &loaded.sources, false);
    loaded.experiment.unwrap_or_else(|| panic!("{shown}"))
}

const LAB: &str = r#"
experiment: lab
vlans: { dmz: {}, core: { tag: 200 } }
vms:
  "web[0-1]": { networks: [dmz], depends_on: "db[0-1]" }
  "db[0-1]": { networks: [core], state: paused }
  fw: { networks: [dmz, { vlan: core, mac: "52:54:00:00:00:01" }, 300], depends_on: [web0] }
taps:
  mgmt: { vlan: dmz, ip: 10.0.0.254/24 }
"#;

#[test]
fn order_and_levels() {
    let graph = Graph::new(&experiment(LAB)).unwrap();
    let listed: Vec<String> = graph.order().iter().map(|a| format!("{} {a}", graph.level(a).unwrap())).collect();
    assert_eq!(
        listed,
        ["0 vlan.core", "0 vlan.dmz", "1 tap.mgmt", "1 vm.db0", "1 vm.db1", "2 vm.web0", "2 vm.web1", "3 vm.fw"]
    );
    let needs = |name: &str| -> Vec<String> {
        let address = Address { kind: crate::name::Kind::Vm, name: name.to_owned() };
        graph.needs(&address).iter().map(|(a, _)| a.to_string()).collect()
    };
    assert_eq!(needs("web1"), ["vlan.dmz", "vm.db0", "vm.db1"]);
    assert_eq!(needs("fw"), ["vlan.core", "vlan.dmz", "vm.web0"]);
    let db = Address { kind: crate::name::Kind::Vm, name: "db0".to_owned() };
    let by: Vec<String> = graph.needed_by(&db).iter().map(|(a, _)| a.to_string()).collect();
    assert_eq!(by, ["vm.web0", "vm.web1"]);
}

#[test]
fn cycles_have_their_full_path_and_every_place() {
    let text = r#"
experiment: lab
vms:
  a: { depends_on: b }
  b: { depends_on: ["c[0-1]"] }
  "c[0-1]": { depends_on: a }
  x: { depends_on: y }
  y: { depends_on: x }
"#;
    let loaded = parse("lab.yaml", text, Format::Yaml, &NoFiles);
    let cycles = Graph::new(&loaded.experiment.unwrap()).unwrap_err();
    insta::assert_snapshot!(crate::diagnostic::render(&cycles, &loaded.sources, false));
}

#[test]
fn two_entries_that_need_each_other_stay_linear() {
    // 20,000 VMs and as many dependencies of each would be 4 * 10^8 edges.
    let text = "experiment: lab\nvlans: { v: {} }\nvms:\n  \"a[0-19999]\": { networks: [v], depends_on: \"b[0-19999]\" }\n  \"b[0-19999]\": { networks: [v] }\n";
    let graph = Graph::new(&experiment(text)).unwrap();
    assert_eq!(graph.order().len(), 40_001);
    assert!(graph.graph.edge_count() < 100_000, "{}", graph.graph.edge_count());
    // A chain of as many.
    let mut text = "experiment: lab\nvms:\n  a0: {}\n".to_owned();
    for i in 1..20_000 {
        writeln!(text, "  a{i}: {{ depends_on: a{} }}", i - 1).unwrap();
    }
    let graph = Graph::new(&experiment(&text)).unwrap();
    assert_eq!(graph.level(graph.order().last().unwrap()), Some(19_999));
    // And a ring.
    let ring = text.replace("  a0: {}\n", "  a0: { depends_on: a19999 }\n");
    let cycles = Graph::new(&experiment(&ring)).unwrap_err();
    assert_eq!(cycles.len(), 1);
    assert!(cycles[0].message.contains("vm.a0 → vm.a19999 → vm.a19998"), "{}", cycles[0].message);
    assert!(cycles[0].message.ends_with("vm.a1 → vm.a0"), "{}", cycles[0].message);
}

#[test]
fn the_picture_is_deterministic() {
    let mut topology = Topology::of(&experiment(LAB));
    let text = dot(&topology);
    topology.vms.reverse();
    topology.vlans.reverse();
    topology.taps.reverse();
    assert_eq!(dot(&topology), text);
    insta::assert_snapshot!(text);
}

#[test]
fn names_cannot_leave_their_quotes() {
    let evil = "a\"]; x [label=\"\\N&lt;\n\\";
    let topology = Topology {
        title: evil.to_owned(),
        vlans: vec![VlanView { alias: evil.to_owned(), tag: None }],
        vms: vec![VmView {
            name: evil.to_owned(),
            state: evil.to_owned(),
            details: vec![evil.to_owned()],
            depends_on: vec![evil.to_owned()],
            nics: vec![
                Endpoint { vlan: evil.to_owned(), label: evil.to_owned(), bond: String::new() },
                Endpoint { vlan: evil.to_owned(), label: evil.to_owned(), bond: evil.to_owned() },
                Endpoint::default(),
            ],
        }],
        taps: vec![TapView {
            name: evil.to_owned(),
            at: Endpoint { vlan: "7".to_owned(), label: evil.to_owned(), bond: String::new() },
        }],
        parts: vec![Part { id: evil.to_owned(), kind: PartKind::Capture, lines: vec![evil.to_owned()] }],
        ties: vec![Tie {
            from: evil.to_owned(),
            to: evil.to_owned(),
            kind: TieKind::Link,
            lines: vec![evil.to_owned()],
        }],
        pipelines: Vec::new(),
        named: vec![evil.to_owned()],
    };
    let text = dot(&topology);
    // Outside its quoted strings the text has only what this module writes.
    let mut outside = String::new();
    let (mut inside, mut escaped) = (false, false);
    for character in text.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            c if !inside => outside.push(c),
            _ => {}
        }
    }
    assert!(!inside && !outside.contains('x') | !outside.contains("x ["), "{outside}");
    assert!(!outside.contains("]; x"), "{outside}");
}

const PARTS: &str = r#"
experiment: lab
vlans: { dmz: {}, core: { tag: 200 }, watch: {} }
vms:
  web: { networks: [dmz, { vlan: dmz, bridge: br1, qos: { rate: 10 mbit } }] }
  db: { networks: [dmz, core] }
  nas: { networks: [core, core, { vlan: core, mac: "52:54:00:00:00:02" }], bonds: [{ nics: [0, 2], mode: balance-tcp, lacp: active, qinq: true, name: up }] }
  ids: { networks: [watch] }
links:
  slow: { ends: [web.0, db.0], delay: 20 ms, down: { rate: 1 mbit } }
bridges:
  br1: { trunks: eth1, tunnels: [vxlan 10.9.0.2 7, gre 10.9.0.3] }
taps:
  gw: { vlan: dmz, ip: 10.0.0.1/24 }
  guest: { vlan: dmz, dhcp: true }
dnsmasq:
  dmz: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99] }
nat:
  out: { vlan: dmz, ip: 10.0.0.254/24 }
  far: { vlan: 200, ip: 10.1.0.254/24 }
mirrors:
  see: { from: db.1, to: ids.0 }
captures:
  web: { vm: web, interface: 1, file: sub/web.pcap, filter: tcp port 80 }
  flows: { type: netflow, bridge: br1, to: "udp://127.0.0.1:9995" }
plumbing:
  log: { pipeline: [sensors, "sed -u s/alarm/ALARM/ # all of them, wherever they stand", cat, log] }
  far: { pipeline: [log, "other//log"] }
  more: { pipeline: ["tail -F /x", cat, lab//log] }
"#;

#[test]
fn everything_of_a_network_is_in_the_picture() {
    let topology = Topology::of(&experiment(PARTS));
    let (dot, mermaid) = (dot(&topology), mermaid(&topology));
    let mut other = topology.clone();
    other.parts.reverse();
    other.ties.reverse();
    assert_eq!((super::dot(&other), super::mermaid(&other)), (dot.clone(), mermaid.clone()));
    insta::assert_snapshot!("parts_dot", dot);
    // The NICs of a bond are on it, and it is on their VLAN; a pipe is drawn once.
    for edge in [
        "\"bond.up\" -- \"vm.nas\" [label=\"nic 0\"]",
        "\"vlan.core\" -- \"vm.nas\" [label=\"nic 1\"]",
        "\"vlan.core\" -- \"bond.up\"",
    ] {
        assert_eq!(dot.matches(edge).count(), 1, "{edge}\n{dot}");
    }
    assert_eq!(dot.matches("[label=\"pipe log\"").count(), 1, "{dot}");
    assert_eq!(dot.matches("[label=\"cat\"").count(), 2, "{dot}");
    insta::assert_snapshot!("parts_mermaid", mermaid);
    // The VLAN of another bridge is another network, and a tag that an alias has is that alias.
    assert!(dot.contains("\"vlan.dmz on br1\" -- \"vm.web\"") && dot.contains("\"vlan.core\" -- \"nat.far\""), "{dot}");
}

#[test]
fn graphviz_takes_the_text() {
    let everything = svg(&dot(&Topology::of(&experiment(PARTS))));
    assert!(everything.is_ok() || matches!(everything, Err(RenderError::Missing)), "{everything:?}");
    match svg(&dot(&Topology::of(&experiment(LAB)))) {
        Ok(svg) => assert!(svg.contains("<svg") && svg.contains(">mgmt") | svg.contains("tap mgmt"), "{svg}"),
        Err(RenderError::Missing) if std::env::var("CI").is_err() => eprintln!("skip: graphviz is not installed"),
        Err(error) => panic!("{error}"),
    }
    if let Err(error) = svg("graph {") {
        assert!(matches!(error, RenderError::Failed { .. } | RenderError::Missing), "{error}");
    } else {
        panic!("an unfinished graph was taken");
    }
}

#[test]
fn the_mermaid_text_is_deterministic_and_keeps_names_in_their_quotes() {
    let mut topology = Topology::of(&experiment(LAB));
    let text = mermaid(&topology);
    topology.vms.reverse();
    topology.vlans.reverse();
    topology.taps.reverse();
    assert_eq!(mermaid(&topology), text);
    insta::assert_snapshot!(text);
    topology.vms[0].name = "a\"] --> x[\"<b>&#".to_owned();
    topology.vms[0].state = "two\nlines".to_owned();
    let line = mermaid(&topology).lines().find(|l| l.contains("two")).unwrap().to_owned();
    assert!(line.starts_with("  m0[\"a#34;#93; --#62; x#91;#34;#60;b#62;#38;#35;<br>two lines"), "{line}");
}

/// What is live is drawn as far as it is told.
#[test]
fn live_bonds_and_pipelines_are_drawn_as_far_as_they_are_told() {
    let nic = || Endpoint { vlan: "lan".to_owned(), ..Endpoint::default() };
    let vm = VmView { name: "web".to_owned(), nics: vec![nic(), nic()], ..VmView::default() };
    let mut topology = Topology { title: "lab".to_owned(), vms: vec![vm], ..Topology::default() };
    let settings = |given: &[(&str, &[&str])]| -> Settings {
        given.iter().map(|(key, of)| ((*key).to_owned(), of.iter().map(|v| (*v).to_owned()).collect())).collect()
    };
    topology.add(crate::name::Kind::Bond, "named", &settings(&[("name", &["named"]), ("vm", &["web"])]));
    let told = [("vm", &["web"][..]), ("nics", &["0", "1"]), ("mode", &["balance-slb"]), ("lacp", &[])];
    topology.add(crate::name::Kind::Bond, "told", &settings(&told));
    for (name, elements) in [("a cat b", &["lab//a", "cat", "other//b"][..]), ("a sed x b", &["a sed x b"])] {
        let elements = elements.iter().map(|element| (*element).to_owned()).collect();
        topology.pipelines.push(PipelineView { name: name.to_owned(), elements, whole: true });
    }
    topology.finish();
    let dot = dot(&topology);
    for line in [
        "\"bond.named\" -- \"vm.web\" [label=\"\"",
        "\"bond.told\" [label=\"bond told\\nbalance-slb\"",
        "\"bond.told\" -- \"vm.web\" [label=\"nic 1\"]",
        "\"vlan.lan\" -- \"bond.told\"",
        "[label=\"pipe a\"",
        "[label=\"cat\"",
        "[label=\"pipe other//b\"",
        "[label=\"a sed x b\"",
        "\"program.a cat b.1\" -- \"pipe.other//b\"",
    ] {
        assert_eq!(dot.matches(line).count(), 1, "{line}\n{dot}");
    }
}
