//! A topology as Mermaid text, which forges and wikis draw.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::parts::{PartKind, TieKind};
use super::render::{by_name, parts, ties, vlan_labels};
use super::{Endpoint, Topology};

/// A label between quotes. Everything but plain words is written as an entity, so that no name leaves its place.
pub fn label(lines: &[&str]) -> String {
    let escaped = lines.iter().filter(|line| !line.is_empty()).map(|line| {
        line.chars().fold(String::with_capacity(line.len()), |mut out, c| {
            if c.is_ascii_alphanumeric() || " ._-:/,()+~*".contains(c) {
                out.push(c);
            } else if c.is_control() {
                out.push(' ');
            } else {
                write!(out, "#{};", u32::from(c)).expect("a string takes everything");
            }
            out
        })
    });
    format!("\"{}\"", escaped.collect::<Vec<_>>().join("<br>"))
}

/// The Mermaid text. The same network gives the same bytes, in whatever order its lists are.
pub fn mermaid(topology: &Topology) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        writeln!(text, "{arguments}").expect("a String takes every text");
    };
    line(format_args!("---"));
    line(format_args!("title: {}", label(&[&topology.title])));
    line(format_args!("---"));
    line(format_args!("flowchart LR"));
    let mut vlans: BTreeMap<String, String> = BTreeMap::new();
    for (index, (key, lines)) in vlan_labels(topology).into_iter().enumerate() {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        line(format_args!("  v{index}([{}])", label(&lines)));
        vlans.insert(key, format!("v{index}"));
    }
    let mut taps: Vec<_> = topology.taps.iter().collect();
    taps.sort_by(|a, b| a.name.cmp(&b.name));
    let mut tap_ids: Vec<(String, String)> = Vec::new();
    for (index, tap) in taps.into_iter().enumerate() {
        tap_ids.push((format!("tap.{}", tap.name), format!("t{index}")));
        line(format_args!("  t{index}[/{}/]", label(&[&format!("tap {}", tap.name), &tap.at.label])));
        if let Some(vlan) = vlans.get(&tap.at.vlan) {
            line(format_args!("  t{index} -.- {vlan}"));
        }
    }
    let vms = by_name(topology);
    let numbers: BTreeMap<&str, usize> = vms.iter().enumerate().map(|(index, vm)| (vm.name.as_str(), index)).collect();
    for (index, vm) in vms.iter().enumerate() {
        let lines: Vec<&str> = [&vm.name, &vm.state].into_iter().chain(&vm.details).map(String::as_str).collect();
        line(format_args!("  m{index}[{}]", label(&lines)));
        for (nic, Endpoint { vlan, label: words, bond }) in vm.nics.iter().enumerate() {
            // That of a bond is drawn with the bond.
            if !bond.is_empty() {
                continue;
            }
            let words = label(&[&format!("nic {nic}"), words]);
            match vlans.get(vlan) {
                Some(vlan) => line(format_args!("  {vlan} ---|{words}| m{index}")),
                // A cable that ends nowhere.
                None => line(format_args!("  o{index}_{nic}(( )) -.-|{words}| m{index}")),
            }
        }
    }
    for (index, vm) in vms.iter().enumerate() {
        let others: std::collections::BTreeSet<&str> = vm.depends_on.iter().map(String::as_str).collect();
        for other in others.iter().filter_map(|other| numbers.get(other)) {
            line(format_args!("  m{index} -.->|needs| m{other}"));
        }
    }
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    ids.extend(vlans.into_iter().map(|(key, id)| (format!("vlan.{key}"), id)));
    ids.extend(tap_ids);
    ids.extend(numbers.into_iter().map(|(name, index)| (format!("vm.{name}"), format!("m{index}"))));
    for (index, part) in parts(topology).into_iter().enumerate() {
        let lines: Vec<&str> = part.lines.iter().map(String::as_str).collect();
        let (open, close) = match part.kind {
            PartKind::Bridge => ("{{", "}}"),
            PartKind::Uplink => ("[[", "]]"),
            PartKind::Server | PartKind::Capture => ("[(", ")]"),
            PartKind::Gateway => (">", "]"),
            PartKind::Outside => ("((", "))"),
            PartKind::Bond => ("[", "]"),
            PartKind::Pipe => ("(", ")"),
            PartKind::Program => ("[", "]"),
        };
        line(format_args!("  p{index}{open}{}{close}", label(&lines)));
        ids.insert(part.id.clone(), format!("p{index}"));
    }
    for vm in &vms {
        for (nic, Endpoint { label: words, bond, .. }) in vm.nics.iter().enumerate() {
            if let (Some(bond), Some(vm)) = (ids.get(bond), ids.get(&format!("vm.{}", vm.name))) {
                line(format_args!("  {bond} ---|{}| {vm}", label(&[&format!("nic {nic}"), words])));
            }
        }
    }
    for tie in ties(topology) {
        let (Some(from), Some(to)) = (ids.get(&tie.from), ids.get(&tie.to)) else { continue };
        let arrow = match tie.kind {
            TieKind::Cable => "---",
            TieKind::Link => "===",
            TieKind::Copies => "-.->",
            TieKind::Flow => "-->",
        };
        let lines: Vec<&str> = tie.lines.iter().map(String::as_str).collect();
        let words = if lines.is_empty() { String::new() } else { format!("|{}|", label(&lines)) };
        line(format_args!("  {from} {arrow}{words} {to}"));
    }
    text
}
