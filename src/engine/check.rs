//! What `check` tries: the things that every VM needs, done for real and undone.

use crate::host::{NewTap, Segment, TapKind};
use crate::name::{BridgeName, TapName, VlanTag};

use super::detached::find_admin;
use super::{Engine, EngineError};

/// A VLAN that no alias is ever given (IEEE 802.1Q reserves it).
const VLAN: u64 = 4095;

impl Engine {
    /// What this host lacks, one sentence each.
    pub async fn check(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let qemu = &self.options.qemu;
        match tokio::process::Command::new(qemu).arg("--version").output().await {
            Ok(output) if output.status.success() => {}
            Ok(output) => missing.push(format!("`{qemu} --version` ended with {}", output.status)),
            Err(error) => missing.push(format!("cannot run {qemu} (Debian package qemu-system-x86): {error}")),
        }
        if let Err(error) = self.try_network().await {
            missing.push(error.chain());
        }
        let services = [("dnsmasq", "dnsmasq-base", "dnsmasq")]
            .into_iter()
            .chain(super::nat::PROGRAMS.map(|(program, package)| (program, package, "nat")));
        for (program, package, command) in services {
            if find_admin(program).is_none() {
                missing.push(format!("no {program} in PATH (Debian package {package}), which `{command}` needs"));
            }
        }
        missing
    }

    /// Make a tap of each kind on a segment of its own, and delete them.
    async fn try_network(&self) -> Result<(), EngineError> {
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
        let made = self.network(move |network| network.create_all(&taps)).await;
        let deleted = self.network(move |network| network.delete_all(&names)).await;
        let released = self.release_network().await;
        made.and(deleted).and(released)
    }
}
