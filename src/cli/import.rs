//! `megaform import`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::experiment::{CommandError, observe, print};
use super::target::Target;
use crate::apply::{journal, plan_on};
use crate::commands;
use crate::diagnostic::{Exit, Severity, render};
use crate::graph::Graph;
use crate::import::{self, Found};
use crate::language::range;
use crate::live::{Live, LiveVm};
use crate::name::Namespace;
use crate::plan::{Advice, Options, Reason, display, ownership};
use crate::spec::{self, Experiment, Format, NoFiles};
use crate::wire::Client;

/// VMs in one `vm tag` command.
const TAGGED: usize = 200;
/// So many changes that a plan would make are named.
const MOST: usize = 20;

/// Write the experiment file of what runs, or of a minimega script.
///
/// From a namespace: the file describes all that is in it, and a plan of it has no changes. VMs that were launched by hand are
/// nobody's; with --adopt they get the tags that say that they belong to the experiment. Guests go on running. What the journal
/// remembers of an apply and the target does not show, such as raw commands, is imported too.
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
    let (mut live, nobody) = observe(target, &name)?;
    if let Some(nobody) = nobody {
        return Err(CommandError::Import { message: nobody });
    }
    if !live.present {
        return Err(CommandError::Import {
            message: format!("there is no namespace {name} at {}", target.socket.display()),
        });
    }
    let advice = journal::advice(&target.socket, &name).map_err(|source| CommandError::Journal {
        action: "read",
        path: journal::path(&target.socket, &name),
        source,
    })?;
    let mut found = import::live(&name, &live, &advice);
    let loaded = spec::parse("imported", &import::write(&found, ""), Format::Yaml, &NoFiles);
    if let Some(experiment) = &loaded.experiment {
        let mut client = Client::connect(&target.socket, None)?;
        let tags = Tags::of(experiment, &live, &name);
        if args.adopt {
            tags.set(&name, &mut client)?;
        } else if live.vms.values().any(|vm| !ownership::owns(&name, vm)) {
            let sentence = format!("`megaform import {name} --adopt` makes them the experiment's");
            found.notes.push(format!("its VMs are nobody's yet; {sentence}"));
        } else if !tags.is_empty() {
            let sentence = "differ from what they were launched from; `--adopt` notes on them that the file is theirs";
            found.notes.push(format!("VMs {sentence}: {}", range::compress(&tags.vms())));
        }
        let owned = live.vms.values().any(|vm| ownership::owns(&name, vm));
        if owned && !journal::path(&target.socket, &name).exists() {
            let sentence = "there is no journal of the experiment here, so raw commands that were run are not known";
            found.notes.push(sentence.to_owned());
        }
        tags.pretend(&mut live);
        found.notes.extend(differences(&loaded, experiment, &mut live, advice, &mut client));
    } else if args.adopt {
        notes(&found);
        check(&import::write(&found, ""));
        return Err(CommandError::Import {
            message: "the file would not be valid, so nothing is adopted; import without --adopt and correct it"
                .to_owned(),
        });
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

/// What a plan of the file would change all the same.
fn differences(
    loaded: &spec::Loaded,
    experiment: &Experiment,
    live: &mut Live,
    advice: Advice,
    client: &mut Client,
) -> Vec<String> {
    let Ok(graph) = Graph::new(experiment) else { return Vec::new() };
    let options = Options::new(&loaded.sources, advice);
    let plan = match plan_on(client, experiment, &graph, live, &options) {
        Ok(plan) => plan,
        Err(error) => return vec![format!("whether a plan of it has no changes is not known: {error}")],
    };
    let mut said = Vec::new();
    for change in &plan.changes {
        if change.reasons.is_empty() {
            said.push(format!("a plan would {} {}", change.action.word(), change.address));
        }
        said.extend(change.reasons.iter().map(|reason| {
            // Where it stands in the file is not settled yet.
            let reason = display::reason_text(&Reason { place: None, ..reason.clone() }, change.action);
            format!("a plan would {} {}: {reason}", change.action.word(), change.address)
        }));
    }
    if said.len() > MOST {
        let more = format!("a plan would make {} more changes", said.len() - MOST);
        said.truncate(MOST);
        said.push(more);
    }
    said
}

/// The tags that a launch by megaform gives, as far as VMs do not have them.
#[derive(Debug, Default)]
struct Tags {
    /// VMs by key and value; equal ones are set by one command. Without a value the tag goes.
    vms: BTreeMap<(String, Option<String>), Vec<String>>,
}

impl Tags {
    fn of(experiment: &Experiment, live: &Live, name: &Namespace) -> Self {
        let mut tags = Self::default();
        for (vm, wanted) in &experiment.vms {
            let Some(there): Option<&LiveVm> = live.vms.get(vm.as_str()) else { continue };
            let mut all = ownership::tags(name, &wanted.body, &ownership::digest(&wanted.body));
            all.extend(ownership::usb_tag(&wanted.body).map(|tag| (ownership::USB.to_owned(), tag)));
            let gone = [ownership::KEYS, ownership::USB].into_iter();
            let gone = gone.filter(|key| there.tags.contains_key(*key) && !all.contains_key(*key)).map(str::to_owned);
            let gone: Vec<_> = gone.map(|key| (key, None)).collect();
            let differ = all.into_iter().filter(|(key, value)| there.tags.get(key) != Some(value));
            for tag in differ.map(|(key, value)| (key, Some(value))).chain(gone) {
                tags.vms.entry(tag).or_default().push(vm.to_string());
            }
        }
        tags
    }

    fn is_empty(&self) -> bool {
        self.vms.is_empty()
    }

    fn vms(&self) -> Vec<&String> {
        self.vms.values().flatten().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Live VMs as if they had them.
    fn pretend(&self, live: &mut Live) {
        for ((key, value), vms) in &self.vms {
            for vm in vms {
                let Some(vm) = live.vms.get_mut(vm.as_str()) else { continue };
                match (Arc::make_mut(&mut vm.tags), value) {
                    (tags, Some(value)) => drop(tags.insert(key.clone(), value.clone())),
                    (tags, None) => drop(tags.remove(key)),
                }
            }
        }
    }

    fn set(&self, name: &Namespace, client: &mut Client) -> Result<(), CommandError> {
        for ((key, value), vms) in &self.vms {
            for names in vms.chunks(TAGGED) {
                let target = range::compress(names);
                let mut words = vec!["namespace", name.as_str()];
                match value {
                    Some(value) => words.extend(["vm", "tag", &target, key, value]),
                    None => words.extend(["clear", "vm", "tag", &target, key]),
                }
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
}
