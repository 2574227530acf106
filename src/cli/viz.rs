//! `megaform graph`, which is `megaform viz` too.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::experiment::{CommandError, Loaded, VarArgs, advice, load, observe, planned, print};
use super::target::Target;
use crate::diagnostic::Exit;
use crate::graph::{
    Endpoint, PipelineView, TapView, Topology, VlanView, VmView, dot, mermaid, svg, usb_line, vlan_key,
};
use crate::live::{ELEMENTS, Live, LiveNic};
use crate::name::Kind;
use crate::plan::Options;
use crate::plan::picture::flow;

/// Draw an experiment's network (VMs, VLANs, taps, bridges, bonds, links, servers, ways out, mirrors, captures and pipelines), or its plan.
#[derive(Debug, Args)]
pub struct VizArgs {
    /// The experiment file (.yaml, .yml, .toml).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Draw what is live instead of what the file asks for.
    #[arg(long, conflicts_with = "plan")]
    live: bool,
    /// Draw the plan: what is done in which order. A dashed arrow waits for an end, another one for success.
    #[arg(long)]
    plan: bool,
    /// The form; svg needs graphviz's dot. Default: by the name of --out (.svg, .mmd), else dot.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to a file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    vars: VarArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The dot language of graphviz.
    Dot,
    /// A picture.
    Svg,
    /// The language of Mermaid, for Markdown on forges.
    Mermaid,
}

/// Run it.
pub fn run(args: &VizArgs, target: &Target) -> Result<Exit, CommandError> {
    let loaded = load(&args.file, &args.vars, None).ok_or(CommandError::Reported)?;
    let extension = args.out.as_ref().and_then(|out| out.extension()).and_then(|e| e.to_str());
    let format = args.format.unwrap_or(match extension {
        Some("svg") => Format::Svg,
        Some("mmd" | "mermaid") => Format::Mermaid,
        _ => Format::Dot,
    });
    let mut text = if args.plan {
        let name = &loaded.experiment.name.value;
        let options = Options::new(&loaded.sources, advice(target, name)?);
        let (plan, note) = planned(target, &loaded, &options, None)?;
        if let Some(note) = note {
            eprintln!("note: {note}: planning as if nothing runs");
        }
        let flow = flow(&plan);
        if format == Format::Mermaid { flow.mermaid() } else { flow.dot() }
    } else {
        let topology = topology(args, &loaded, target)?;
        if format == Format::Mermaid { mermaid(&topology) } else { dot(&topology) }
    };
    text = loaded.secrets.mask(&text);
    if format == Format::Svg {
        text = svg(&text)?;
    }
    match &args.out {
        None => print(&text)?,
        Some(path) => std::fs::write(path, text)
            .map_err(|source| CommandError::Write { what: path.display().to_string(), source })?,
    }
    Ok(Exit::Success)
}

fn topology(args: &VizArgs, loaded: &Loaded, target: &Target) -> Result<Topology, CommandError> {
    Ok(if args.live {
        let (live, note) = observe(target, &loaded.experiment.name.value)?;
        if let Some(note) = note {
            eprintln!("note: {note}: nothing is live");
        }
        live_topology(loaded.experiment.name.value.as_str(), &live)
    } else {
        Topology::of(&loaded.experiment)
    })
}

fn endpoint(alias: Option<&str>, tag: Option<u16>, bridge: &str, label: String) -> Endpoint {
    let vlan = alias.map(str::to_owned).or_else(|| tag.map(|t| t.to_string())).unwrap_or_default();
    Endpoint { vlan: vlan_key(&vlan, bridge), label, bond: String::new() }
}

fn nic(nic: &LiveNic) -> Endpoint {
    let qos = nic.qos.filter(|qos| !qos.is_none()).map(|qos| qos.to_string());
    let words = Some(nic.mac.clone()).filter(|mac| !mac.is_empty()).into_iter().chain(qos);
    endpoint(nic.alias.as_deref(), nic.vlan, &nic.bridge, words.collect::<Vec<_>>().join(", "))
}

/// What is live as a topology.
fn live_topology(title: &str, live: &Live) -> Topology {
    let mut topology = Topology {
        title: title.to_owned(),
        vlans: live.vlans.iter().map(|(alias, tag)| VlanView { alias: alias.clone(), tag: Some(*tag) }).collect(),
        vms: live
            .vms
            .values()
            .map(|vm| VmView {
                name: vm.name.clone(),
                state: vm.state.word().to_owned(),
                details: usb_line(vm.usb.iter().flatten().map(|disk| disk.file.as_str())).into_iter().collect(),
                depends_on: Vec::new(),
                nics: vm.nics.iter().map(nic).collect(),
            })
            .collect(),
        taps: live
            .taps
            .iter()
            .map(|(name, tap)| {
                let label = tap.addresses.as_ref().map(|a| a.join(", ")).unwrap_or_default();
                TapView { name: name.clone(), at: endpoint(tap.alias.as_deref(), tap.vlan, &tap.bridge, label) }
            })
            .collect(),
        ..Topology::default()
    };
    for (kind, objects) in &live.objects {
        for (name, object) in objects {
            if *kind == Kind::Plumbing {
                // Where it is not told which words are one program, the line is all there is to draw.
                let elements = object.facts.get(ELEMENTS).cloned().unwrap_or_else(|| vec![name.clone()]);
                topology.pipelines.push(PipelineView { name: name.clone(), elements, whole: true });
                continue;
            }
            topology.add(*kind, name, &object.facts);
        }
    }
    topology.finish();
    topology
}
