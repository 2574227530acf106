//! What an experiment needs of the machine that it is to run on.
//!
//! Only for an engine on this machine: of another one the files and sizes are not known here. All of it is warnings, because
//! files may come later and memory is taken as guests touch it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span};
use crate::language::field::{FIELDS, FieldType, FieldValue};
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

/// What this machine lacks.
pub fn machine(experiment: &Experiment, machine: &Machine) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
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
        files(&vm.body, vm.span, machine, &mut found);
    }
    if memory > machine.memory
        && let Some((_, span)) = largest
    {
        let message =
            format!("the {running} running VMs have {memory} MB together, and this machine has {} MB", machine.memory);
        found.push(
            Diagnostic::warning("too-much-memory", span, message)
                .hint("if guests touch all of it, the kernel ends some of them; this entry asks for the most"),
        );
    }
    found
}

fn files(body: &VmBody, entry: Span, machine: &Machine, found: &mut Vec<Diagnostic>) {
    let mut missing = |field: &'static str, path: &str| {
        // A protocol (`nbd://…`, `json:{…}`) is QEMU's own to read.
        let protocol =
            path.split_once(':').is_some_and(|(p, _)| p.len() > 1 && p.bytes().all(|b| b.is_ascii_alphanumeric()));
        // Beside the experiment file, decoding found that one missing already.
        if path.is_empty() || protocol || path.starts_with("./") || path.starts_with("../") {
            return;
        }
        let at = if path.starts_with('/') { PathBuf::from(path) } else { machine.files.join(path) };
        if exists(&at) {
            return;
        }
        let span = body.spans.get(field).copied().unwrap_or(entry);
        let message = format!("`{field}`: there is no file {}", crate::spec::shown(&at.to_string_lossy()));
        let hint = if path.starts_with('/') {
            "put it there before VMs are launched"
        } else {
            "a relative path is one beside the experiment file, or else in the engine's files folder; it is in neither"
        };
        found.push(Diagnostic::warning("missing-file", span, message).hint(hint));
    };
    for field in FIELDS.iter().filter(|field| field.name != "qemu") {
        match (field.ty, body.config.get(field.name)) {
            (FieldType::Path, FieldValue::Text(path)) => missing(field.name, &path),
            (FieldType::Disks, FieldValue::Disks(disks)) => {
                disks.iter().for_each(|disk| missing(field.name, &disk.path))
            }
            _ => {}
        }
    }
}

/// One that cannot be looked at may be there: only what is surely missing is reported.
fn exists(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}
