//! `megaform show`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use unicode_width::UnicodeWidthStr;

use super::experiment::{CommandError, VarArgs, advice, file_or_name, observe, print};
use super::output;
use super::target::Target;
use crate::diagnostic::Exit;
use crate::language::range::natural_cmp;
use crate::live::{Live, LiveNic};
use crate::name::Namespace;
use crate::plan::ownership::owns;

/// Show what is live in an experiment's namespace: VMs with their states, VLANs and taps, what is managed, and the outputs of
/// the file.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The experiment file (.yaml, .yml, .toml).
    #[arg(value_name = "FILE", required_unless_present = "experiment", conflicts_with = "experiment")]
    file: Option<PathBuf>,
    /// The name of the experiment.
    #[arg(long, value_name = "NAME")]
    experiment: Option<Namespace>,
    #[command(flatten)]
    vars: VarArgs,
}

/// Run it.
pub fn run(args: &ShowArgs, target: &Target) -> Result<Exit, CommandError> {
    let loaded = file_or_name(args.file.as_deref(), args.experiment.as_ref(), &args.vars)?;
    let name = &loaded.experiment.name.value;
    let (live, note) = observe(target, name)?;
    if note.is_some() {
        print(&format!("No daemon runs at {}.\n", target.socket.display()))?;
        return Ok(Exit::Success);
    }
    if !live.present {
        print(&format!("Nothing of {name} is there.\n"))?;
        return Ok(Exit::Success);
    }
    let known = advice(target, name)?;
    let tap_managed = |tap: &str| loaded.experiment.taps.contains_key(tap) || known.taps.contains_key(tap);
    print(&loaded.secrets.mask(&text(name, &live, &tap_managed)))?;
    print(&output::text(&loaded.outputs))?;
    Ok(Exit::Success)
}

fn managed(yes: bool) -> String {
    if yes { "managed" } else { "unmanaged" }.to_owned()
}

fn place(nic: &LiveNic) -> String {
    vlan(nic.alias.as_deref(), nic.vlan)
}

fn vlan(alias: Option<&str>, tag: Option<u16>) -> String {
    match (alias, tag) {
        (Some(alias), Some(tag)) => format!("{alias} ({tag})"),
        (Some(alias), None) => alias.to_owned(),
        (None, Some(tag)) => tag.to_string(),
        (None, None) => "disconnected".to_owned(),
    }
}

fn text(name: &Namespace, live: &Live, tap_managed: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut names: Vec<&str> = live.vms.keys().map(String::as_str).collect();
    names.sort_by(|a, b| natural_cmp(a, b));
    let vms: Vec<Vec<String>> = names
        .iter()
        .map(|vm| {
            let vm = &live.vms[*vm];
            let nics: Vec<String> = vm.nics.iter().map(place).collect();
            let mut state = vm.state.word().to_owned();
            if let Some(error) = &vm.error {
                let _infallible = write!(state, ": {}", error.trim());
            }
            vec![vm.name.clone(), state, vm.host.clone(), nics.join(", "), managed(owns(name, vm))]
        })
        .collect();
    table(&mut out, &["vm", "state", "host", "networks", "owner"], vms);
    let vlans = live.vlans.iter().map(|(alias, tag)| vec![alias.clone(), tag.to_string()]).collect();
    table(&mut out, &["vlan", "tag"], vlans);
    let taps = live.taps.iter().map(|(tap, t)| {
        let addresses = t.addresses.as_ref().map_or_else(|| "not shown".to_owned(), |a| a.join(", "));
        let at = vlan(t.alias.as_deref(), t.vlan);
        vec![tap.clone(), at, t.bridge.clone(), addresses, managed(tap_managed(tap))]
    });
    table(&mut out, &["tap", "vlan", "bridge", "addresses", "owner"], taps.collect());
    if out.is_empty() {
        return format!("Namespace {name} is empty.\n");
    }
    out
}

/// A table with a header; nothing for no rows. Tables are parted by a blank line.
fn table(out: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let clean = |cell: &str| cell.replace(|c: char| c.is_control(), " ");
    let mut lines = vec![header.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.into_iter().map(|row| row.iter().map(|cell| clean(cell)).collect()));
    let widths: Vec<usize> =
        (0..header.len()).map(|i| lines.iter().map(|l| l[i].width()).max().unwrap_or_default()).collect();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(cell);
            text.push_str(&" ".repeat(width - cell.width() + 2));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}
