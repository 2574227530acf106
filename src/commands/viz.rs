//! `viz`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::engine::{Engine, EngineError, VmState};
use crate::language::declaration::{Completion, Declaration};
use crate::name::{Namespace, VlanTag};

use super::{Answer, Command};

/// Text inside a double-quoted string of the dot language.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('&', "&amp;")
}

/// The colour of a VM by its state.
fn colour(state: VmState) -> &'static str {
    match state {
        VmState::Building => "#e4edf9",
        VmState::Running => "#e3f4e1",
        VmState::Paused => "#fff4d6",
        VmState::Quit => "#eeeeee",
        VmState::Error => "#fbe3e1",
    }
}

/// A namespace in the dot language: a box for each VM and host tap in the frame of the host, an ellipse for each VLAN, a
/// line for each NIC that is connected.
async fn dot(engine: &Engine, namespace: &Namespace) -> Result<String, EngineError> {
    let mut vlans: BTreeMap<VlanTag, String> = BTreeMap::new();
    let mut edges = String::new();
    let mut boxes = String::new();
    let mut connect = |node: &str, vlan: Option<VlanTag>, label: &str| {
        let Some(tag) = vlan else { return };
        vlans.entry(tag).or_insert_with(|| engine.show_vlan(namespace, tag));
        writeln!(edges, "  \"{node}\" -- \"vlan {tag}\" [label=\"{}\"]", quoted(label))
            .expect("a String takes every text");
    };
    for vm in engine.vms(namespace) {
        let live = vm.live();
        let node = format!("vm {}", vm.name);
        writeln!(
            boxes,
            "    \"{node}\" [label=\"{}\\n{}\", shape=box, fillcolor=\"{}\"]",
            vm.name,
            live.state.word(),
            colour(live.state)
        )
        .expect("a String takes every text");
        for (index, nic) in live.nics.iter().enumerate() {
            connect(&node, nic.vlan, &format!("{index}: {}", nic.mac));
        }
    }
    for tap in engine.taps(namespace).await? {
        let node = format!("tap {}", tap.tap);
        writeln!(boxes, "    \"{node}\" [shape=box, fillcolor=\"#f0e6f6\"]").expect("a String takes every text");
        connect(&node, tap.vlan, "");
    }
    let mut text = format!(
        "graph \"{namespace}\" {{\n  graph [label=\"{namespace}\", labelloc=t, rankdir=LR]\n  node [style=filled]\n\
         \x20 subgraph \"cluster host\" {{\n    label=\"{}\"\n{boxes}  }}\n",
        quoted(engine.host())
    );
    for (tag, name) in &vlans {
        writeln!(text, "  \"vlan {tag}\" [label=\"{}\", shape=ellipse, fillcolor=\"#dce9f7\"]", quoted(name))
            .expect("a String takes every text");
    }
    text.push_str(&edges);
    text.push_str("}\n");
    Ok(text)
}

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "viz",
            &["viz <filename>"],
            "draw the namespace",
            "Writes the namespace's VMs, host taps and VLANs, and what is connected to what, to a file in the dot language of \
             graphviz. A relative path is relative to the engine's files folder. A file that exists is replaced.\n\n    \
             viz /tmp/lab.dot",
        )
        .complete("filename", Completion::Path),
        |call| async move {
            let text = dot(call.engine(), &call.namespace).await?;
            let path = call.engine().files().root().join(call.required("filename"));
            tokio::fs::write(&path, text)
                .await
                .map_err(|source| EngineError::File { action: "write", path, source })?;
            Ok(Answer::done())
        },
    )]
}
