//! What an experiment needs of the machine that it is to run on.
//!
//! Only for an engine on this machine: of another one the files and sizes are not known here. All of it is warnings, because
//! files may come later and memory is taken as guests touch it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span};
use crate::language::field::{FieldType, FieldValue};
use crate::spec::model::{Experiment, RunState, VmBody};

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its CPUs.
    pub cpus: u64,
    /// Its memory in megabytes (2^20 bytes).
    pub memory: u64,
    /// The engine's files folder, which relative paths are relative to.
    pub files: PathBuf,
}

/// What a minimega would not do as the file says. Source: minimega's `help qos`.
pub fn minimega(experiment: &Experiment) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for (name, vm) in &experiment.vms {
        if !seen.insert(Arc::as_ptr(&vm.body)) {
            continue;
        }
        for (index, nic) in vm.body.networks.iter().enumerate() {
            let Some(qos) = nic.qos.filter(crate::language::qos::Qos::is_combined) else { continue };
            let span = vm.body.links.get(&index).copied().unwrap_or_else(|| nic.place("qos"));
            let message =
                format!("NIC {index} of `{name}` is to have `{qos}`, and minimega has a rate, or delay and loss");
            found.push(
                Diagnostic::warning("qos-combined", span, message)
                    .hint("megaform's engine combines them; a plan for a minimega refuses it"),
            );
        }
    }
    found
}

/// What this machine lacks.
pub fn machine(experiment: &Experiment, machine: &Machine) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut missing = BTreeMap::new();
    let (mut memory, mut running, mut largest) = (0u64, 0usize, None::<(u64, Span)>);
    for vm in experiment.vms.values() {
        let each = vm.body.config.uint("memory");
        if vm.body.state == RunState::Running {
            memory = memory.saturating_add(each);
            running += 1;
            let span = vm.body.spans.get("memory").copied().unwrap_or(vm.span);
            if largest.is_none_or(|(most, _)| each > most) {
                largest = Some((each, span));
            }
        }
        if !seen.insert(Arc::as_ptr(&vm.body)) {
            continue;
        }
        let vcpus = vm.body.config.uint("vcpus");
        if vcpus > machine.cpus {
            let span = vm.body.spans.get("vcpus").copied().unwrap_or(vm.span);
            let message = format!("{vcpus} vcpus for one VM, and this machine has {} CPUs", machine.cpus);
            found.push(Diagnostic::warning("too-many-cpus", span, message).hint("fewer run faster here"));
        }
        files(&vm.body, vm.span, machine, &mut missing);
    }
    for (path, Missing { field, span, places }) in missing {
        let others = places.saturating_sub(1);
        let more = match others {
            0 => String::new(),
            1 => ", for one other entry too".to_owned(),
            others => format!(", for {others} other entries too"),
        };
        let message = format!("`{field}`: there is no file {}{more}", crate::spec::shown(&path.to_string_lossy()));
        let hint = if path.starts_with(&machine.files) {
            "a relative path is one beside the experiment file, or else in the engine's files folder; it is in neither"
        } else {
            "put it there before VMs are launched"
        };
        found.push(Diagnostic::warning("missing-file", span, message).hint(hint));
    }
    if memory > machine.memory
        && let Some((_, span)) = largest
    {
        let vms = match running {
            1 => format!("the running VM has {memory} MB"),
            many => format!("the {many} running VMs have {memory} MB together"),
        };
        let message = format!("{vms}, and this machine has {} MB", machine.memory);
        found.push(
            Diagnostic::warning("too-much-memory", span, message)
                .hint("if guests touch all of it, the kernel ends some of them; this entry asks for the most"),
        );
    }
    found
}

/// A file that is not there.
struct Missing {
    field: &'static str,
    /// The first place that names it.
    span: Span,
    /// How many bodies name it.
    places: usize,
}

fn files(body: &VmBody, entry: Span, machine: &Machine, missing: &mut BTreeMap<PathBuf, Missing>) {
    let mut look = |field: &'static str, path: &str, at: Option<Span>| {
        // A protocol (`nbd://…`, `json:{…}`) is QEMU's own to read.
        let protocol =
            path.split_once(':').is_some_and(|(p, _)| p.len() > 1 && p.bytes().all(|b| b.is_ascii_alphanumeric()));
        // Beside the experiment file, decoding found that one missing already.
        if path.is_empty() || protocol || path.starts_with("./") || path.starts_with("../") {
            return;
        }
        let span = at.or_else(|| body.spans.get(field).copied()).unwrap_or(entry);
        let at = if path.starts_with('/') { PathBuf::from(path) } else { machine.files.join(path) };
        match missing.get_mut(&at) {
            Some(known) => {
                known.places += 1;
                known.span = known.span.min(span);
            }
            None if exists(&at) => {}
            None => drop(missing.insert(at, Missing { field, span, places: 1 })),
        }
    };
    body.usb_disks.iter().for_each(|disk| look("usb_disks", &disk.path, Some(disk.span)));
    for (field, value) in body.config.changed().filter(|(field, _)| field.name != "qemu") {
        match (field.ty, value) {
            (FieldType::Path, FieldValue::Text(path)) => look(field.name, path, None),
            (FieldType::Disks, FieldValue::Disks(disks)) => {
                disks.iter().for_each(|disk| look(field.name, &disk.path, None))
            }
            _ => {}
        }
    }
}

/// One that cannot be looked at may be there: only what is surely missing is reported.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
