//! `megaform show`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use unicode_width::UnicodeWidthStr;

use super::experiment::{CommandError, VarArgs, advice, file_or_name, observe, print};
use super::output;
use super::target::Target;
use crate::diagnostic::{Exit, Spanned};
use crate::language::range::{self, natural_cmp};
use crate::live::{ELEMENTS, Facts, INSIDE, Live, LiveNic, Objects, TAG, gateway_key, named};
use crate::name::{Kind, Namespace, pipeline_key};
use crate::plan::Made;
use crate::plan::advice::{Advice, CommandAdvice};
use crate::plan::ownership::{owns, waiting};
use crate::spec::model::{Experiment, Object};

/// Show what is live in an experiment's namespace: VMs with their states and USB disks, VLANs, taps, bridges, ways out, mirrors, captures, pipes,
/// pipelines, dnsmasq servers and raw commands, where VMs go and what waits to be launched, what is managed, and the outputs of the file.
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
    let experiment = &loaded.experiment;
    let ours: BTreeMap<Kind, BTreeSet<&str>> =
        live.objects.iter().map(|(kind, all)| (*kind, ours(*kind, all, experiment, &known))).collect();
    let object_managed = |kind: Kind, key: &str| {
        // Of several mirrors to one destination, that from the source that is known is the experiment's.
        let mirror = live.objects.get(&kind).and_then(|objects| objects.get(key)).filter(|_| kind == Kind::Mirror);
        if let Some(mirror) = mirror {
            let end = |end: &str| mirror.facts.get(end).and_then(|values| values.first()).map(String::as_str);
            let made = |made: &Made| {
                ["from", "to"].iter().all(|e| made.facts.get(*e).is_some_and(|v| Some(v[0].as_str()) == end(e)))
            };
            let declared =
                experiment.of(kind).any(|(_, object)| ["from", "to"].iter().all(|e| object.one(e) == end(e)));
            return declared || known.objects.iter().any(|((of, _), known)| *of == kind && made(known));
        }
        let declares = |object: &Object| {
            if kind == Kind::Nat {
                return object.one("vlan").is_some_and(|vlan| gateway_key(vlan, object.one("bridge")) == key);
            }
            if kind == Kind::Plumbing {
                let elements: Vec<&str> = object.all("pipeline").iter().map(|element| element.value.as_str()).collect();
                return pipeline_key(name, &elements.join(" ")) == key;
            }
            false
        };
        // A pipe without an entry comes with the pipelines that have it.
        let plumbed = || {
            let written = experiment.of(Kind::Plumbing).flat_map(|(_, object)| object.all("pipeline"));
            let known = known.objects.iter().filter(|((of, _), _)| *of == Kind::Plumbing);
            let known = known.flat_map(|(_, made)| made.facts.get("pipeline").into_iter().flatten());
            written.map(|element| &element.value).chain(known).any(|element| pipeline_key(name, element) == key)
        };
        ours.get(&kind).is_some_and(|ours| ours.contains(key))
            || match kind {
                Kind::Bridge => experiment.declares(kind, key),
                Kind::Pipe => experiment.declares(kind, key) || plumbed(),
                kind => experiment.of(kind).any(|(_, object)| declares(object)),
            }
    };
    let mut shown = text(name, &live, &tap_managed, &object_managed);
    placement(&mut shown, name, &live, &|setting| {
        experiment.declares(Kind::Placement, setting)
            || known.objects.contains_key(&(Kind::Placement, setting.to_owned()))
    });
    raw_commands(&mut shown, &known);
    if shown.is_empty() {
        shown = format!("Namespace {name} is empty.\n");
    }
    print(&loaded.secrets.mask(&shown))?;
    print(&output::text(&loaded.outputs))?;
    Ok(Exit::Success)
}

/// The live objects of a kind that the file or the journal names.
fn ours<'o>(kind: Kind, all: &'o Objects, experiment: &Experiment, known: &Advice) -> BTreeSet<&'o str> {
    let made = known.objects.iter().filter(|((of, _), _)| *of == kind);
    let mut ours: BTreeSet<&str> =
        named(all, made.map(|(_, made)| (made.key.as_str(), &made.facts, ()))).into_keys().collect();
    let keys: &[&str] = match kind {
        Kind::Dnsmasq => &["address"],
        Kind::Bond => &["name"],
        Kind::Capture => &["file", "to"],
        _ => return ours,
    };
    let values = |values: &[Spanned<String>]| values.iter().map(|value| value.value.clone()).collect();
    for (_, object) in experiment.of(kind) {
        let settings: Facts = object.settings.iter().map(|(key, of)| ((*key).to_owned(), values(of))).collect();
        let named = named(all, keys.iter().filter_map(|key| Some((object.one(key)?, &settings, ()))));
        ours.extend(named.into_keys());
    }
    ours
}

/// Where VMs go, as far as the experiment says so, and what waits to be launched.
fn placement(out: &mut String, name: &Namespace, live: &Live, ours: &dyn Fn(&str) -> bool) {
    let live_placement = &live.placement;
    let hosts = live_placement.hosts.as_deref().map(range::compress);
    let settings = [("hosts", hosts), ("load", live_placement.load.clone())];
    let settings = settings.into_iter().filter(|(setting, _)| ours(setting));
    let mut rows: Vec<Vec<String>> =
        settings.filter_map(|(setting, value)| Some(vec![setting.to_owned(), value?, managed(true)])).collect();
    if live.queueing {
        rows.push(vec!["queueing".to_owned(), "true".to_owned(), managed(ours("queueing"))]);
    }
    for (waiting, owned) in <[_; 2]>::from(waiting(name, &live_placement.queue)).iter().zip([true, false]) {
        if !waiting.is_empty() {
            rows.push(vec!["queued".to_owned(), format!("vm.{}", range::compress(waiting)), managed(owned)]);
        }
    }
    table(out, &["placement", "setting", "owner"], rows);
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

/// The NICs whose traffic is shaped.
fn shapes(out: &mut String, live: &Live, vms: &[&str]) {
    let rows = vms.iter().flat_map(|vm| {
        let nics = live.vms[*vm].nics.iter().enumerate();
        let shaped = nics.filter_map(|(index, nic)| Some((index, nic.qos.filter(|qos| !qos.is_none())?)));
        shaped.map(move |(index, qos)| vec![format!("{vm}.{index}"), qos.to_string()])
    });
    table(out, &["nic", "qos"], rows.collect());
}

/// The USB disks of VMs by their numbers, which `vm hotplug remove` takes.
fn usb_disks(out: &mut String, live: &Live, vms: &[&str]) {
    let rows = vms.iter().flat_map(|vm| {
        let disks = live.vms[*vm].usb.iter().flatten();
        disks.map(move |disk| vec![format!("{vm}.{}", disk.id), disk.file.clone(), disk.version.clone()])
    });
    table(out, &["usb disk", "image", "version"], rows.collect());
}

fn text(
    name: &Namespace,
    live: &Live,
    tap_managed: &dyn Fn(&str) -> bool,
    object_managed: &dyn Fn(Kind, &str) -> bool,
) -> String {
    let mut out = String::new();
    let mut names: Vec<&str> = live.vms.keys().map(String::as_str).collect();
    names.sort_by(|a, b| natural_cmp(a, b));
    let vms: Vec<Vec<String>> = names
        .iter()
        .map(|vm| {
            let vm = &live.vms[*vm];
            let nics: Vec<String> = vm.nics.iter().map(place).collect();
            let state = vm.state.word().to_owned();
            vec![vm.name.clone(), state, vm.host.clone(), nics.join(", "), managed(owns(name, vm))]
        })
        .collect();
    table(&mut out, &["vm", "state", "host", "networks", "owner"], vms);
    // Errors are long, and would push the other columns out of sight.
    let errors =
        names.iter().filter_map(|vm| Some(vec![(*vm).to_owned(), live.vms[*vm].error.as_ref()?.trim().to_owned()]));
    table(&mut out, &["vm", "error"], errors.collect());
    let vlans = live.vlans.iter().map(|(alias, tag)| vec![alias.clone(), tag.to_string()]).collect();
    table(&mut out, &["vlan", "tag"], vlans);
    let taps = live.taps.iter().map(|(tap, t)| {
        let addresses = t.addresses.as_ref().map_or_else(|| "not shown".to_owned(), |a| a.join(", "));
        let at = vlan(t.alias.as_deref(), t.vlan);
        vec![tap.clone(), at, t.bridge.clone(), addresses, managed(tap_managed(tap))]
    });
    table(&mut out, &["tap", "vlan", "bridge", "addresses", "owner"], taps.collect());
    shapes(&mut out, live, &names);
    usb_disks(&mut out, live, &names);
    for (kind, objects) in &live.objects {
        let rows = objects.iter().map(|(key, object)| {
            let facts = object.facts.iter().filter(|(fact, values)| {
                // What is there for planning alone is left out.
                !values.iter().all(String::is_empty)
                    && values.as_slice() != std::slice::from_ref(key)
                    && !["preexisting", INSIDE, ELEMENTS, TAG].contains(&fact.as_str())
            });
            let facts: Vec<String> = facts.map(|(fact, values)| format!("{fact}: {}", values.join(", "))).collect();
            let owner = match object_managed(*kind, key) {
                // Those that no file declares belong to no namespace.
                false if *kind == Kind::Bridge => "shared".to_owned(),
                ours => managed(ours),
            };
            vec![key.clone(), facts.join("; "), owner]
        });
        let mut rows: Vec<Vec<String>> = rows.collect();
        if rows.iter().all(|row| row[1].is_empty()) {
            rows.iter_mut().for_each(|row| drop(row.remove(1)));
            table(&mut out, &[kind.word(), "owner"], rows);
        } else {
            table(&mut out, &[kind.word(), "settings", "owner"], rows);
        }
    }
    out
}

/// The entries of raw commands that were run and not taken back, as the journal of this machine knows them: nothing of them
/// can be observed.
fn raw_commands(out: &mut String, known: &Advice) {
    let state = |entry: &CommandAdvice| {
        let (create, destroy) = (entry.lines.create.len(), entry.lines.destroy.len());
        match (entry.destroyed, &entry.error, entry.created) {
            (Some(line), ..) if entry.unknown => format!("line {} of {destroy} of destroy was sent", line + 1),
            (Some(lines), ..) => format!("{lines} of {destroy} lines of destroy run"),
            (None, Some(error), line) => format!("line {} of {create} failed: {}", line + 1, error.trim()),
            (None, None, line) if entry.unknown => format!("line {} of {create} was sent", line + 1),
            (None, None, lines) if lines == create => "run".to_owned(),
            (None, None, lines) => format!("{lines} of {create} lines run"),
        }
    };
    let there = known.commands.iter().filter(|(_, entry)| !entry.is_taken_back());
    let rows = there.map(|(name, entry)| vec![name.clone(), state(entry), managed(true)]);
    table(out, &["command", "state", "owner"], rows.collect());
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
