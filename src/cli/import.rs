//! `megaform import`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::experiment::{CommandError, observe, print};
use super::target::Target;
use crate::commands;
use crate::diagnostic::{Exit, Severity, render};
use crate::graph::Graph;
use crate::import::{self, Found};
use crate::language::range;
use crate::live::{Live, LiveVm};
use crate::name::Namespace;
use crate::plan::{self, Advice, Options, ownership};
use crate::spec::{self, Format, NoFiles};
use crate::wire::Client;

/// VMs in one `vm tag` command.
const TAGGED: usize = 200;

/// Write the experiment file of what runs, or of a minimega script.
///
/// From a namespace: the file describes its VMs, VLANs and taps as they are. With --adopt its VMs get the tag that says that
/// they belong to the experiment, and a plan of the file has no changes then; guests go on running.
///
/// From a script: its commands are interpreted, none is run. What the file cannot say is named in notes at its
/// beginning, with the place in the script.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A namespace, or the file of a script (with a dot or a slash in its name, such as lab.mm).
    #[arg(value_name = "NAMESPACE|SCRIPT")]
    source: String,
    /// Write to this file instead of standard output. It must not exist.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Which namespace of a script, if it fills several.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// Tag the VMs of the live namespace as the experiment's.
    #[arg(long)]
    adopt: bool,
}

/// Run it.
pub fn run(args: &ImportArgs, target: &Target) -> Result<Exit, CommandError> {
    let script = args.source.contains(['.', '/']) || Path::new(&args.source).is_file();
    if script && args.adopt {
        return Err(CommandError::Import { message: "--adopt is for a live namespace, not for a script".to_owned() });
    }
    if !script && args.namespace.is_some() {
        return Err(CommandError::Import { message: "--namespace chooses within a script".to_owned() });
    }
    let text = if script { from_script(args)? } else { from_live(args, target)? };
    match &args.out {
        None => print(&text)?,
        Some(path) => {
            let write = std::fs::File::create_new(path).and_then(|mut file| file.write_all(text.as_bytes()));
            write.map_err(|source| CommandError::Write { what: path.display().to_string(), source })?;
        }
    }
    Ok(Exit::Success)
}

fn from_script(args: &ImportArgs) -> Result<String, CommandError> {
    let path = Path::new(&args.source);
    let text = read_script(path).map_err(|source| CommandError::Read { path: path.to_owned(), source })?;
    let grammar = commands::grammar(&commands::all());
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut read = |file: &str| read_script(&folder.join(file)).ok();
    let found = import::script(&args.source, &text, &grammar, args.namespace.as_deref(), &mut read)
        .map_err(|error| CommandError::Import { message: error.to_string() })?;
    let text = import::write(&found, &format!("Imported from {}.", args.source));
    notes(&found);
    check(&text);
    Ok(text)
}

/// The text of a script that is not too long.
fn read_script(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(import::MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > import::MAX_BYTES {
        let message = format!("it is longer than {} bytes", import::MAX_BYTES);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

fn from_live(args: &ImportArgs, target: &Target) -> Result<String, CommandError> {
    let name = Namespace::new(&args.source).map_err(|error| CommandError::Import {
        message: format!("`{}` is neither a script nor a namespace: {error}", args.source),
    })?;
    let (live, nobody) = observe(target, &name)?;
    if let Some(nobody) = nobody {
        return Err(CommandError::Import { message: nobody });
    }
    if !live.present {
        return Err(CommandError::Import {
            message: format!("there is no namespace {name} at {}", target.socket.display()),
        });
    }
    let mut found = import::live(&name, &live);
    let text = import::write(&found, "");
    found.notes.extend(differences(&text, &live, &name));
    if args.adopt {
        adopt(&found, &live, &name, target)?;
    } else if live.vms.values().any(|vm| !ownership::owns(&name, vm)) {
        found
            .notes
            .push(format!("its VMs are nobody's yet; `megaform import {name} --adopt` makes them the experiment's"));
    }
    let text = import::write(&found, &format!("Imported from the namespace {name}."));
    notes(&found);
    check(&text);
    Ok(text)
}

/// Say on standard error what stands in the file's notes too.
fn notes(found: &Found) {
    for note in &found.notes {
        eprintln!("note: {note}");
    }
}

/// Say what the file would be refused for: a value that a live VM has may be one that an experiment cannot carry.
fn check(text: &str) {
    let loaded = spec::parse("imported", text, Format::Yaml, &NoFiles);
    let errors: Vec<_> = loaded.diagnostics.into_iter().filter(|d| d.severity == Severity::Error).collect();
    if !errors.is_empty() {
        eprint!("{}", render(&errors, &loaded.sources, false));
        eprintln!("note: the file is written all the same; correct these before it is applied");
    }
}

/// What a plan of the file would change if its VMs were the experiment's.
fn differences(text: &str, live: &Live, name: &Namespace) -> Vec<String> {
    let loaded = spec::parse("imported", text, Format::Yaml, &NoFiles);
    let Some(experiment) = loaded.experiment else { return Vec::new() };
    let Ok(graph) = Graph::new(&experiment) else { return Vec::new() };
    let mut owned = live.clone();
    for vm in owned.vms.values_mut() {
        Arc::make_mut(&mut vm.tags).insert(ownership::OWNER.to_owned(), name.to_string());
    }
    let options = Options::new(&loaded.sources, Advice::default());
    let Ok(plan) = plan::plan(&experiment, &graph, &owned, &options) else { return Vec::new() };
    // What makes a change of a tag is the digest, which adopted VMs do not have.
    let reasons = plan.changes.iter().flat_map(|change| {
        let of_tags = |field: &str| field.starts_with("tags.");
        change.reasons.iter().filter(move |reason| !of_tags(&reason.field)).map(|reason| {
            let part = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
            format!(
                "a plan would change {} of {}: {} -> {}",
                reason.field,
                change.address,
                part(&reason.old),
                part(&reason.new)
            )
        })
    });
    reasons.collect()
}

/// Give the VMs the tags that a launch by megaform gives.
fn adopt(found: &Found, live: &Live, name: &Namespace, target: &Target) -> Result<(), CommandError> {
    let loaded = spec::parse("imported", &import::write(found, ""), Format::Yaml, &NoFiles);
    let Some(experiment) = loaded.experiment else {
        return Err(CommandError::Import {
            message: "the file would not be valid, so nothing is adopted; import without --adopt and see why"
                .to_owned(),
        });
    };
    // Equal tags in one command.
    let mut tags: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for (vm, wanted) in &experiment.vms {
        let Some(there): Option<&LiveVm> = live.vms.get(vm.as_str()) else { continue };
        let digest = ownership::digest(&wanted.body);
        for (key, value) in ownership::tags(name, &wanted.body, &digest) {
            if there.tags.get(&key) != Some(&value) {
                tags.entry((key, value)).or_default().push(vm.as_str());
            }
        }
    }
    let mut client = Client::connect(&target.socket, None)?;
    for ((key, value), names) in tags {
        for names in names.chunks(TAGGED) {
            let words =
                ["namespace", name.as_str(), "vm", "tag", &range::compress(names), &key, &value].map(str::to_owned);
            let command = crate::language::token::join(&words).map_err(|error| CommandError::Import {
                message: format!("cannot tag {}: {error}", names.join(", ")),
            })?;
            let answers = client.call(&command)?;
            if let Some((host, error)) = answers.iter().flat_map(crate::wire::Response::errors).next() {
                return Err(CommandError::Import { message: format!("`{command}` failed on {host}: {error}") });
            }
        }
    }
    Ok(())
}
