//! What `check` tries: the things that every VM needs, done for real and undone.

use crate::host::{NewTap, Segment, TapKind};
use crate::name::{BridgeName, TapName, VlanTag};

use super::detached::find_admin;
use super::{Engine, EngineError};

/// A VLAN that no alias is ever given (IEEE 802.1Q reserves it).
const VLAN: u64 = 4095;

/// What [`Engine::check`] has found, one sentence each.
#[derive(Debug, Default)]
pub struct Checked {
    /// What every VM needs and this host lacks.
    pub missing: Vec<String>,
    /// What only some commands need and this host lacks.
    pub limits: Vec<String>,
}

impl Engine {
    /// Try what this host can do.
    pub async fn check(&self) -> Checked {
        let mut missing = Vec::new();
        let qemu = &self.options.qemu;
        match tokio::process::Command::new(qemu).arg("--version").output().await {
            Ok(output) if output.status.success() => {}
            Ok(output) => missing.push(format!("`{qemu} --version` ended with {}", output.status)),
            Err(error) => missing.push(format!("cannot run {qemu} (Debian package qemu-system-x86): {error}")),
        }
        let mut limits = Vec::new();
        if let Err(error) = self.try_network(&mut limits).await {
            missing.push(error.chain());
        }
        let services = [("dnsmasq", "dnsmasq-base", "dnsmasq")]
            .into_iter()
            .chain(super::nat::PROGRAMS.map(|(program, package)| (program, package, "nat")));
        for (program, package, command) in services {
            if find_admin(program).is_none() {
                limits.push(format!("{command}: no {program} in PATH (Debian package {package})"));
            }
        }
        Checked { missing, limits }
    }

    /// Make a tap of each kind on a segment of its own, try what can be done with it, and delete them.
    async fn try_network(&self, limits: &mut Vec<String>) -> Result<(), EngineError> {
        // One at a time, because they use the same names.
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _turn = TURN.lock().await;
        let segment =
            Segment { bridge: BridgeName::default_bridge(), vlan: VlanTag::new(VLAN).expect("a tag below 4096") };
        let number = std::process::id() % 100_000;
        let taps: Vec<NewTap> = [("v", TapKind::Vm), ("h", TapKind::Host)]
            .into_iter()
            .map(|(letter, kind)| NewTap {
                tap: TapName::new(&format!("mfcheck{letter}{number}")).expect("a short name"),
                kind,
                segment: Some(segment.clone()),
                addresses: Vec::new(),
                owner: self.owned("check"),
            })
            .collect();
        let names: Vec<TapName> = taps.iter().map(|tap| tap.tap.clone()).collect();
        let made = {
            let taps = taps.clone();
            self.network(move |network| network.create_all(&taps)).await
        };
        if made.is_ok() {
            limits.extend(self.try_qos(&taps[0]).await.into_iter().map(|error| format!("qos: {error}")));
        }
        let deleted = self.network(move |network| network.delete_all(&names)).await;
        let released = self.release_network().await;
        made.and(deleted).and(released)
    }
}
