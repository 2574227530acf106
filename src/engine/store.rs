//! The engine's files: written whole and renamed into place, so that a reader sees the old or the new one.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::language::field::VmConfig;
use crate::name::Namespace;

use super::captures::Captures;
use super::netflow::Flows;
use super::queue::Scheduling;
use super::{Engine, EngineError, NamespaceState, State, Vlans};

/// The name of the file in the base folder.
pub const STATE: &str = "state.json";

#[derive(Serialize, Deserialize)]
struct StoredNamespace {
    config: VmConfig,
    saved: BTreeMap<String, VmConfig>,
    #[serde(default)]
    scheduling: Scheduling,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    active: Namespace,
    namespaces: BTreeMap<Namespace, StoredNamespace>,
    vlans: Vlans,
    next_vm: u32,
    next_tap: u32,
    #[serde(default)]
    captures: Captures,
    #[serde(default)]
    flows: Flows,
}

/// Write a value as JSON, mode 0600.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), EngineError> {
    let error = |source| EngineError::File { action: "write", path: path.to_owned(), source };
    let new = path.with_extension("new");
    let text = serde_json::to_vec(value).expect("the engine's own types are JSON");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(error)?;
    file.write_all(&text).map_err(error)?;
    std::fs::rename(&new, path).map_err(error)
}

/// Read a JSON file; None where there is none.
pub fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, EngineError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| EngineError::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(EngineError::File { action: "read", path: path.to_owned(), source }),
    }
}

/// The state that an earlier daemon left, or a fresh one.
pub(super) fn load(base: &Path) -> Result<State, EngineError> {
    let stored: Option<Stored> = read(&base.join(STATE))?;
    let mut state = match stored {
        Some(stored) => {
            let mut vlans = stored.vlans;
            vlans.index();
            State {
                active: stored.active,
                namespaces: stored
                    .namespaces
                    .into_iter()
                    .map(|(name, n)| {
                        let StoredNamespace { config, saved, scheduling } = n;
                        (name, NamespaceState { config, saved, scheduling, ..Default::default() })
                    })
                    .collect(),
                vlans,
                next_vm: stored.next_vm,
                next_tap: stored.next_tap,
                captures: stored.captures,
                flows: stored.flows,
            }
        }
        None => State {
            active: Namespace::default_namespace(),
            namespaces: BTreeMap::new(),
            vlans: Vlans::default(),
            next_vm: 0,
            next_tap: 0,
            captures: Captures::default(),
            flows: Flows::default(),
        },
    };
    state.namespaces.entry(state.active.clone()).or_default();
    Ok(state)
}

impl Engine {
    /// Write what a restarted daemon must know besides the VMs.
    pub(super) fn save(&self) -> Result<(), EngineError> {
        let state = self.state();
        let stored = Stored {
            active: state.active.clone(),
            namespaces: state
                .namespaces
                .iter()
                .map(|(name, n)| {
                    let (config, saved) = (n.config.clone(), n.saved.clone());
                    (name.clone(), StoredNamespace { config, saved, scheduling: n.scheduling.stored() })
                })
                .collect(),
            vlans: state.vlans.clone(),
            next_vm: state.next_vm,
            next_tap: state.next_tap,
            captures: state.captures.clone(),
            flows: state.flows.clone(),
        };
        // Under the lock, so that an older state never replaces a newer one.
        write(&self.options.base.join(STATE), &stored)
    }
}
