//! A topology as graphviz text, and as SVG where graphviz is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::parts::{Part, PartKind, Tie, TieKind};
use super::topology::{Endpoint, ON, Topology, VmView};

/// Why there is no SVG.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The `dot` program is not installed.
    #[error("the program `dot` is not installed; install the Debian package graphviz")]
    Missing,
    /// `dot` could not be started or spoken to.
    #[error("cannot run `dot`")]
    Run {
        /// Its error.
        #[source]
        source: std::io::Error,
    },
    /// `dot` refused the text.
    #[error("`dot` failed ({status}): {message}")]
    Failed {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it said.
        message: String,
    },
}

/// Text inside a double-quoted string of the dot language. `\` begins an escape there, so it is doubled; a line end is
/// written by the caller.
pub(super) fn quoted(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            // Entities are resolved in labels.
            '&' => escaped.push_str("&amp;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Fill and border of a VM by its state.
fn colours(state: &str) -> (&'static str, &'static str) {
    match state.to_ascii_lowercase().as_str() {
        "running" => ("#e3f4e1", "#3c8c40"),
        "paused" => ("#fff4d6", "#b8860b"),
        "building" => ("#e4edf9", "#3b6ea5"),
        "quit" => ("#eeeeee", "#888888"),
        "error" => ("#fbe3e1", "#b3261e"),
        _ => ("#ffffff", "#888888"),
    }
}

/// The topology in the dot language: VLANs as ellipses, VMs and taps as boxes, one edge per NIC and tap, and a
/// dotted arrow from a VM to each that it depends on. The same topology
/// gives the same text, whatever the order of its lists.
pub fn dot(topology: &Topology) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        writeln!(text, "{arguments}").expect("a String takes every text");
    };
    line(format_args!("graph \"{}\" {{", quoted(&topology.title)));
    line(format_args!(
        "  graph [label=\"{}\", labelloc=t, fontname=\"Helvetica\", fontsize=18, rankdir=LR, ranksep=1.2, nodesep=0.3, splines=true, pad=0.3]",
        quoted(&topology.title)
    ));
    line(format_args!("  node [fontname=\"Helvetica\", fontsize=12, style=filled]"));
    line(format_args!("  edge [fontname=\"Helvetica\", fontsize=9, color=\"#555555\", fontcolor=\"#555555\"]"));

    let vlans = vlan_labels(topology);
    if !vlans.is_empty() {
        line(format_args!(""));
    }
    for (key, lines) in &vlans {
        let label = lines.iter().map(|line| quoted(line)).collect::<Vec<_>>().join("\\n");
        line(format_args!(
            "  \"vlan.{}\" [label=\"{label}\", shape=ellipse, fillcolor=\"#dce9f7\", color=\"#3b6ea5\", fontsize=13]",
            quoted(key)
        ));
    }

    let mut taps: Vec<_> = topology.taps.iter().collect();
    taps.sort_by(|a, b| a.name.cmp(&b.name));
    if !taps.is_empty() {
        line(format_args!(""));
    }
    for tap in taps {
        let name = quoted(&tap.name);
        let address = if tap.at.label.is_empty() { String::new() } else { format!("\\n{}", quoted(&tap.at.label)) };
        line(format_args!(
            "  \"tap.{name}\" [label=\"tap {name}{address}\", shape=box, fillcolor=\"#f0e6f6\", color=\"#7b4a9e\"]"
        ));
        if !tap.at.vlan.is_empty() {
            line(format_args!("  \"tap.{name}\" -- \"vlan.{}\" [style=dashed]", quoted(&tap.at.vlan)));
        }
    }

    for vm in by_name(topology) {
        line(format_args!(""));
        let name = quoted(&vm.name);
        let (fill, border) = colours(&vm.state);
        let mut label = name.clone();
        for part in std::iter::once(&vm.state).chain(&vm.details).filter(|part| !part.is_empty()) {
            label.push_str("\\n");
            label.push_str(&quoted(part));
        }
        line(format_args!(
            "  \"vm.{name}\" [label=\"{label}\", shape=box, style=\"filled,rounded\", fillcolor=\"{fill}\", color=\"{border}\"]"
        ));
        for (index, nic) in vm.nics.iter().enumerate() {
            let Endpoint { vlan, label, bond } = nic;
            let label =
                if label.is_empty() { format!("nic {index}") } else { format!("nic {index}\\n{}", quoted(label)) };
            if vlan.is_empty() {
                // A cable that ends nowhere.
                line(format_args!("  \"open.{name}.{index}\" [label=\"\", shape=point, color=\"#999999\"]"));
                line(format_args!("  \"open.{name}.{index}\" -- \"vm.{name}\" [label=\"{label}\", style=dotted]"));
            } else if !bond.is_empty() {
                line(format_args!("  \"{}\" -- \"vm.{name}\" [label=\"{label}\"]", quoted(bond)));
            } else {
                line(format_args!("  \"vlan.{}\" -- \"vm.{name}\" [label=\"{label}\"]", quoted(vlan)));
            }
        }
        for other in vm.depends_on.iter().collect::<BTreeSet<_>>() {
            // Beside the cables, and without moving anything.
            line(format_args!(
                "  \"vm.{name}\" -- \"vm.{}\" [dir=forward, style=dotted, constraint=false, color=\"#999999\"]",
                quoted(other)
            ));
        }
    }
    let joined = |lines: &[String]| lines.iter().map(|line| quoted(line)).collect::<Vec<_>>().join("\\n");
    if !topology.parts.is_empty() || !topology.ties.is_empty() {
        line(format_args!(""));
    }
    for part in parts(topology) {
        line(format_args!("  \"{}\" [label=\"{}\", {}]", quoted(&part.id), joined(&part.lines), look(part.kind)));
    }
    for tie in ties(topology) {
        let (from, to) = (quoted(&tie.from), quoted(&tie.to));
        line(format_args!("  \"{from}\" -- \"{to}\" [label=\"{}\", {}]", joined(&tie.lines), line_of(tie.kind)));
    }
    line(format_args!("}}"));
    text
}

/// The VLANs by the name that endpoints use, with the lines of their labels; those that only endpoints name as well.
pub(super) fn vlan_labels(topology: &Topology) -> BTreeMap<String, Vec<String>> {
    let mut vlans: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let ends = topology.vms.iter().flat_map(|vm| &vm.nics).chain(topology.taps.iter().map(|tap| &tap.at));
    let named = ends.map(|end| end.vlan.as_str()).chain(topology.named.iter().map(String::as_str));
    let named: BTreeSet<&str> = named.filter(|vlan| !vlan.is_empty()).collect();
    for name in &named {
        vlans.insert((*name).to_owned(), vec![format!("VLAN {name}")]);
    }
    for vlan in &topology.vlans {
        let tag = vlan.tag.map(|tag| tag.to_string());
        let (key, label) = match (vlan.alias.as_str(), tag) {
            ("", None) => continue,
            ("", Some(tag)) => (tag.clone(), vec![format!("VLAN {tag}")]),
            (alias, None) => (alias.to_owned(), vec![alias.to_owned()]),
            (alias, Some(tag)) => (alias.to_owned(), vec![alias.to_owned(), format!("VLAN {tag}")]),
        };
        // Others of its name are those of other bridges.
        let elsewhere: Vec<String> = named
            .iter()
            .filter(|name| name.split_once(ON).is_some_and(|(vlan, _)| vlan == key))
            .map(|name| (*name).to_owned())
            .collect();
        for other in &elsewhere {
            let bridge = other.split_once(ON).map_or("", |(_, bridge)| bridge);
            let words = label.iter().cloned().chain([format!("on {bridge}")]);
            vlans.insert(other.clone(), words.collect());
        }
        if elsewhere.is_empty() || named.contains(key.as_str()) {
            vlans.insert(key, label);
        }
    }
    vlans
}

/// The parts in the order in which they are drawn.
pub(super) fn parts(topology: &Topology) -> Vec<&Part> {
    let mut parts: Vec<&Part> = topology.parts.iter().collect();
    parts.sort();
    parts
}

/// The ties in the order in which they are drawn, each once.
pub(super) fn ties(topology: &Topology) -> BTreeSet<&Tie> {
    topology.ties.iter().collect()
}

/// How a part looks: its shape, fill and border.
fn look(kind: PartKind) -> &'static str {
    match kind {
        PartKind::Bridge => "shape=hexagon, fillcolor=\"#dce9f7\", color=\"#3b6ea5\"",
        PartKind::Uplink => "shape=cds, margin=\"0.25,0.1\", fillcolor=\"#ffffff\", color=\"#3b6ea5\"",
        PartKind::Server => "shape=component, fillcolor=\"#f0e6f6\", color=\"#7b4a9e\"",
        PartKind::Gateway => "shape=house, orientation=270, fillcolor=\"#fdebd9\", color=\"#c26a1c\"",
        PartKind::Outside => "shape=doublecircle, fillcolor=\"#ffffff\", color=\"#c26a1c\"",
        PartKind::Bond => "shape=box, height=0.6, fillcolor=\"#dce9f7\", color=\"#3b6ea5\", peripheries=2",
        PartKind::Pipe => "shape=box, style=\"filled,rounded\", fillcolor=\"#e6f4f1\", color=\"#2f7d6b\"",
        PartKind::Program => "shape=box, fillcolor=\"#ffffff\", color=\"#2f7d6b\", fontname=\"Courier\"",
        PartKind::Capture => "shape=note, fillcolor=\"#fffbe0\", color=\"#a08a1c\"",
    }
}

/// How a tie looks.
fn line_of(kind: TieKind) -> &'static str {
    match kind {
        TieKind::Cable => "style=solid",
        TieKind::Link => "style=bold, color=\"#c26a1c\", fontcolor=\"#c26a1c\", constraint=false",
        TieKind::Flow => "dir=forward, color=\"#2f7d6b\", fontcolor=\"#2f7d6b\"",
        TieKind::Copies => "dir=forward, style=dashed, color=\"#a08a1c\", fontcolor=\"#a08a1c\"",
    }
}

/// The VMs in the order in which they are drawn.
pub(super) fn by_name(topology: &Topology) -> Vec<&VmView> {
    let mut vms: Vec<&VmView> = topology.vms.iter().collect();
    vms.sort_by(|a, b| natural(&a.name).cmp(&natural(&b.name)).then_with(|| a.name.cmp(&b.name)));
    vms
}

/// Orders `web2` before `web10`.
fn natural(name: &str) -> (&str, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(u64::MAX))
}

/// The dot text as SVG, by graphviz's `dot` program. Blocks while it runs.
pub fn svg(dot: &str) -> Result<String, RenderError> {
    let run = |source| RenderError::Run { source };
    let mut child = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(
            |error| if error.kind() == std::io::ErrorKind::NotFound { RenderError::Missing } else { run(error) },
        )?;
    let mut input = child.stdin.take().expect("its standard input is a pipe");
    let output = std::thread::scope(|scope| {
        // Written beside the reading, so that neither pipe fills while the other waits. A `dot` that ends early says why
        // on its own; the broken pipe does not.
        scope.spawn(move || drop(input.write_all(dot.as_bytes())));
        child.wait_with_output()
    })
    .map_err(run)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(RenderError::Failed { status: output.status, message });
    }
    String::from_utf8(output.stdout).map_err(|error| run(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))
}
