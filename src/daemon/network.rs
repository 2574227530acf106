//! Which network and which switch the engine works with: what the options say or, as long as something of the engine lives
//! on another one, that.
//!
//! Owns the record of it in the base folder. A switch finds only its own ports, so that a daemon with another one would
//! take live taps for disconnected.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::host::linux::LinuxNetwork;
use crate::host::{Network, NetworkError, NetworkPlace, SwitchChoice};
use crate::name::TapName;

/// The name of the record in the base folder.
pub const NETWORK: &str = "network.json";
/// The name of the network namespace's pin in the base folder.
pub const NETWORK_PIN: &str = "netns";

/// What the options say of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Work in the host's network, or in a network namespace of its own; None for the one that is in use, or one of its
    /// own.
    pub host: Option<bool>,
    /// What connects the taps; None for what does so now, or Linux bridges.
    pub switch: Option<SwitchChoice>,
}

/// Why there is no network to work with.
#[derive(Debug, thiserror::Error)]
pub enum NetworkChoiceError {
    /// Something lives on another one.
    #[error(
        "{what} on {there}, where a daemon with `{asked}` would not find it; start the daemon with `{wanted}`, or first do so and \
         end everything there (`clear all`)"
    )]
    Elsewhere {
        /// `mega_tap0 and 2 more taps are`, `the engine's network is`.
        what: String,
        /// Where.
        there: String,
        /// The option that does not fit.
        asked: String,
        /// Those that do.
        wanted: String,
    },
    /// The network cannot be looked at.
    #[error("cannot look at the engine's network")]
    Network(#[from] NetworkError),
    /// The record.
    #[error("cannot {action} {}", path.display())]
    Record {
        /// `read` or `write`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A network with its switch, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    host: bool,
    openvswitch: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ovsdb: Option<PathBuf>,
}

impl Record {
    fn new(host: bool, switch: SwitchChoice) -> Self {
        let (openvswitch, ovsdb) = match switch {
            SwitchChoice::Linux => (false, None),
            SwitchChoice::OpenVswitch { socket } => (true, socket),
        };
        Self { host, openvswitch, ovsdb }
    }

    fn network(&self, base: &Path) -> LinuxNetwork {
        let place = if self.host { NetworkPlace::Host } else { NetworkPlace::Own { pin: base.join(NETWORK_PIN) } };
        let switch = if self.openvswitch {
            SwitchChoice::OpenVswitch { socket: self.ovsdb.clone() }
        } else {
            SwitchChoice::Linux
        };
        LinuxNetwork::with_switch(place, switch)
    }

    /// What an option would have to say.
    fn options(&self) -> String {
        let mut options = vec![if self.host { "--network host" } else { "--network own" }.to_owned()];
        options.push(format!("--switch {}", if self.openvswitch { "openvswitch" } else { "linux" }));
        options.extend(self.ovsdb.as_ref().map(|socket| format!("--ovsdb {}", socket.display())));
        options.join(" ")
    }

    /// The option that asks for something else than this.
    fn contradicts(&self, asked: &NetworkOptions) -> Option<String> {
        match asked.host {
            Some(true) if !self.host => return Some("--network host".to_owned()),
            Some(false) if self.host => return Some("--network own".to_owned()),
            _ => {}
        }
        match &asked.switch {
            Some(SwitchChoice::Linux) if self.openvswitch => Some("--switch linux".to_owned()),
            Some(SwitchChoice::OpenVswitch { .. }) if !self.openvswitch => Some("--switch openvswitch".to_owned()),
            Some(SwitchChoice::OpenVswitch { socket: Some(socket) }) if self.ovsdb.as_ref() != Some(socket) => {
                Some(format!("--ovsdb {}", socket.display()))
            }
            _ => None,
        }
    }

    /// Where it is, in words.
    fn place(&self) -> String {
        let switch = match (self.openvswitch, &self.ovsdb) {
            (false, _) => "Linux bridges".to_owned(),
            (true, None) => "Open vSwitch".to_owned(),
            (true, Some(socket)) => format!("the Open vSwitch at {}", socket.display()),
        };
        let network = if self.host { "the host's network" } else { "the engine's own network" };
        format!("{switch} in {network}")
    }

    /// What of the engine is there, in words; None if nothing is.
    fn in_use(&self, base: &Path) -> Result<Option<String>, NetworkError> {
        // Open vSwitch may be gone from the host; the kernel knows the taps.
        let network = if self.host { Self::new(true, SwitchChoice::Linux).network(base) } else { self.network(base) };
        if !network.is_there()? {
            return Ok(None);
        }
        let identity = Engine::identity(base);
        let ours = |port: crate::host::Port| port.owner.starts_with(&identity).then_some(port.tap);
        // In a namespace of the engine's own there may be bridges, or VMs without a tap; and its switch may be broken.
        let taps: Vec<TapName> = match network.list() {
            Ok(ports) => ports.into_iter().filter_map(ours).collect(),
            Err(_) if !self.host => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(match taps.as_slice() {
            [] => (!self.host).then(|| "the network of this engine is".to_owned()),
            [tap] => Some(format!("tap {tap} of this engine is")),
            [tap, rest @ ..] => Some(format!("tap {tap} of this engine and {} more are", rest.len())),
        })
    }
}

/// The network to work with, which is recorded. Refused, and nothing is changed, is one that leaves behind what lives on
/// another.
pub(super) fn choose(base: &Path, asked: &NetworkOptions) -> Result<LinuxNetwork, NetworkChoiceError> {
    let path = base.join(NETWORK);
    let io = |action| {
        let path = path.clone();
        move |source| NetworkChoiceError::Record { action, path, source }
    };
    let earlier: Option<Record> = match std::fs::read(&path) {
        Ok(text) => Some(serde_json::from_slice(&text).map_err(|error| io("read")(error.into()))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io("read")(error)),
    };
    let asked_for = Record::new(asked.host.unwrap_or(false), asked.switch.clone().unwrap_or(SwitchChoice::Linux));
    let record = match &earlier {
        Some(earlier) if *earlier != asked_for => match (earlier.in_use(base)?, earlier.contradicts(asked)) {
            (None, _) => asked_for,
            (Some(_), None) => {
                tracing::info!("goes on with {}, where this engine's taps are", earlier.place());
                earlier.clone()
            }
            (Some(what), Some(asked)) => {
                let (there, wanted) = (earlier.place(), earlier.options());
                return Err(NetworkChoiceError::Elsewhere { what, there, asked, wanted });
            }
        },
        _ => asked_for,
    };
    if earlier.as_ref() != Some(&record) {
        let text = serde_json::to_vec(&record).expect("the daemon's own types are JSON");
        let new = path.with_extension("new");
        let write = || {
            let mut open = std::fs::OpenOptions::new();
            open.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(&text)?;
            std::fs::rename(&new, &path)
        };
        write().map_err(io("write"))?;
    }
    Ok(record.network(base))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ovs(socket: Option<&str>) -> SwitchChoice {
        SwitchChoice::OpenVswitch { socket: socket.map(PathBuf::from) }
    }

    #[test]
    fn only_what_an_option_says_contradicts() {
        let linux = Record::new(false, SwitchChoice::Linux);
        let own = Record::new(false, ovs(None));
        let host = Record::new(true, ovs(Some("/run/db.sock")));
        let asked = |host, switch| NetworkOptions { host, switch };
        for record in [&linux, &own, &host] {
            assert_eq!(record.contradicts(&NetworkOptions::default()), None);
        }
        assert_eq!(linux.contradicts(&asked(None, Some(ovs(None)))).as_deref(), Some("--switch openvswitch"));
        assert_eq!(own.contradicts(&asked(Some(false), Some(SwitchChoice::Linux))).as_deref(), Some("--switch linux"));
        assert_eq!(own.contradicts(&asked(Some(true), None)).as_deref(), Some("--network host"));
        assert_eq!(host.contradicts(&asked(Some(false), None)).as_deref(), Some("--network own"));
        assert_eq!(host.contradicts(&asked(Some(true), Some(ovs(None)))), None);
        assert_eq!(host.contradicts(&asked(None, Some(ovs(Some("/run/db.sock"))))), None);
        assert_eq!(host.contradicts(&asked(None, Some(ovs(Some("/x"))))).as_deref(), Some("--ovsdb /x"));
        assert_eq!(host.options(), "--network host --switch openvswitch --ovsdb /run/db.sock");
    }
}
