//! `megaform viz`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::experiment::{CommandError, VarArgs, load, observe, print};
use super::target::Target;
use crate::diagnostic::Exit;
use crate::graph::{Endpoint, TapView, Topology, VlanView, VmView, dot, svg};
use crate::live::Live;

/// Draw an experiment's network: VMs, VLANs and taps.
#[derive(Debug, Args)]
pub struct VizArgs {
    /// The experiment file (.yaml, .yml, .toml).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Draw what is live instead of what the file asks for.
    #[arg(long)]
    live: bool,
    /// The form; svg needs graphviz's dot. Default: by the name of --out, else dot.
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
}

/// Run it.
pub fn run(args: &VizArgs, target: &Target) -> Result<Exit, CommandError> {
    let loaded = load(&args.file, &args.vars, None).ok_or(CommandError::Reported)?;
    let topology = if args.live {
        let (live, note) = observe(target, &loaded.experiment.name.value)?;
        if let Some(note) = note {
            eprintln!("note: {note}: nothing is live");
        }
        live_topology(loaded.experiment.name.value.as_str(), &live)
    } else {
        Topology::of(&loaded.experiment)
    };
    let by_name = args.out.as_ref().and_then(|out| out.extension()).is_some_and(|e| e == "svg");
    let format = args.format.unwrap_or(if by_name { Format::Svg } else { Format::Dot });
    let mut text = loaded.secrets.mask(&dot(&topology));
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

fn endpoint(alias: Option<&str>, tag: Option<u16>, label: String) -> Endpoint {
    let vlan = alias.map(str::to_owned).or_else(|| tag.map(|t| t.to_string())).unwrap_or_default();
    Endpoint { vlan, label }
}

/// What is live as a topology.
fn live_topology(title: &str, live: &Live) -> Topology {
    Topology {
        title: title.to_owned(),
        vlans: live.vlans.iter().map(|(alias, tag)| VlanView { alias: alias.clone(), tag: Some(*tag) }).collect(),
        vms: live
            .vms
            .values()
            .map(|vm| VmView {
                name: vm.name.clone(),
                state: vm.state.word().to_owned(),
                details: Vec::new(),
                depends_on: Vec::new(),
                nics: vm.nics.iter().map(|n| endpoint(n.alias.as_deref(), n.vlan, n.mac.clone())).collect(),
            })
            .collect(),
        taps: live
            .taps
            .iter()
            .map(|(name, tap)| {
                let label = tap.addresses.as_ref().map(|a| a.join(", ")).unwrap_or_default();
                TapView { name: name.clone(), at: endpoint(tap.alias.as_deref(), tap.vlan, label) }
            })
            .collect(),
    }
}
