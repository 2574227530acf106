//! The addresses that guests use, as `vm info` shows them: taken from what they send on their own taps.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use crate::host::Heard;
use crate::name::TapName;

use super::vm::{Nic, Vm};
use super::{Engine, State};

/// How long records of VMs may lag behind.
const SAVE: Duration = Duration::from_secs(1);

/// What the engine remembers to be quick.
#[derive(Default)]
pub(super) struct Learned {
    /// Whose tap it was when it was last heard of.
    taps: Mutex<HashMap<TapName, Weak<Vm>>>,
    /// VMs whose record is to be written.
    unsaved: Mutex<BTreeMap<u32, Weak<Vm>>>,
    wake: tokio::sync::Notify,
}

impl Learned {
    fn taps(&self) -> MutexGuard<'_, HashMap<TapName, Weak<Vm>>> {
        self.taps.lock().expect("no code panics while it holds the taps")
    }

    fn take_unsaved(&self) -> Vec<Arc<Vm>> {
        let unsaved = std::mem::take(&mut *self.unsaved.lock().expect("no code panics while it holds the list"));
        unsaved.values().filter_map(Weak::upgrade).collect()
    }
}

impl Nic {
    /// Its guest may have other addresses from now on.
    pub(super) fn forget_addresses(&mut self) {
        (self.ip4, self.ip6) = (None, None);
    }

    /// True if that is new.
    fn learn(&mut self, address: IpAddr) -> bool {
        let before = (self.ip4, self.ip6);
        match address {
            IpAddr::V4(address) => self.ip4 = Some(address),
            // One that is valid everywhere says more.
            IpAddr::V6(address) if address.is_unicast_link_local() => {
                self.ip6 = self.ip6.filter(|known| !known.is_unicast_link_local()).or(Some(address));
            }
            IpAddr::V6(address) => self.ip6 = Some(address),
        }
        before != (self.ip4, self.ip6)
    }
}

impl State {
    fn vm_of(&self, tap: &TapName) -> Option<Arc<Vm>> {
        let vms = self.namespaces.values().flat_map(|namespace| namespace.vms.values());
        vms.filter(|vm| vm.live().nics.iter().any(|nic| nic.tap == *tap))
            .find(|vm| vm.live().state.has_process())
            .cloned()
    }
}

impl Engine {
    /// Learn from now on.
    pub(super) fn start_learning(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.options.network.learn(Arc::new(move |heard| engine.upgrade().is_some_and(|engine| engine.heard(&heard))));
        let engine = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(engine) = engine.upgrade() {
                let woken = tokio::time::timeout(SAVE, engine.learned.wake.notified()).await.is_ok();
                if woken {
                    tokio::time::sleep(SAVE).await;
                    engine.save_learned().await;
                }
            }
        });
    }

    /// Write the records of VMs whose addresses have changed.
    pub(super) async fn save_learned(&self) {
        let vms = self.learned.take_unsaved();
        let save = move || {
            for vm in vms {
                if let Err(error) = vm.save() {
                    tracing::warn!(vm = %vm.name, error = %error.chain(), "the VM's record is stale");
                }
            }
        };
        tokio::task::spawn_blocking(save).await.expect("saving does not panic");
    }

    /// An address was heard on a tap. True if it is the guest's: the tap is that of a NIC and the sender is this NIC.
    fn heard(&self, heard: &Heard) -> bool {
        let known = self.learned.taps().get(&heard.tap).and_then(Weak::upgrade);
        let ours = known.filter(|vm| {
            let live = vm.live();
            live.state.has_process() && live.nics.iter().any(|nic| nic.tap == heard.tap)
        });
        let vm = match ours {
            Some(vm) => vm,
            None => {
                let Some(vm) = self.state().vm_of(&heard.tap) else { return false };
                let mut taps = self.learned.taps();
                taps.retain(|_, vm| vm.strong_count() > 0);
                taps.insert(heard.tap.clone(), Arc::downgrade(&vm));
                vm
            }
        };
        let changed = {
            let mut live = vm.live();
            let nic = live.nics.iter_mut().find(|nic| nic.tap == heard.tap && nic.mac == heard.mac);
            let Some(nic) = nic.filter(|nic| nic.vlan.is_some()) else { return false };
            nic.learn(heard.address)
        };
        if changed {
            let mut unsaved = self.learned.unsaved.lock().expect("no code panics while it holds the list");
            unsaved.insert(vm.id, Arc::downgrade(&vm));
            self.learned.wake.notify_one();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::{Accelerator, Options};
    use crate::host::fake::FakeNetwork;
    use crate::language::field::VmConfig;
    use crate::name::{BridgeName, Mac, Namespace, VlanTag, VmName};

    use super::*;

    fn nic(tap: &str, mac: u8) -> Nic {
        Nic {
            tap: TapName::new(tap).unwrap(),
            mac: Mac::from_octets([2, 0, 0, 0, 0, mac]),
            driver: "e1000".to_owned(),
            bridge: BridgeName::default_bridge(),
            vlan: VlanTag::new(101),
            raw: "dmz".to_owned(),
            ip4: None,
            ip6: None,
            shape: crate::name::Shape::default(),
        }
    }

    #[tokio::test]
    async fn a_guest_speaks_for_its_own_nic_alone() {
        let folder = tempfile::tempdir().unwrap();
        let network = Arc::new(FakeNetwork::new());
        let options = Options {
            base: folder.path().to_owned(),
            host: "host".to_owned(),
            accelerator: Accelerator::Tcg,
            qemu: "qemu-system-x86_64".to_owned(),
            network: network.clone(),
        };
        let (engine, _) = Engine::open(options).await.unwrap();
        let namespace = Namespace::default_namespace();
        let nics = vec![nic("t0", 1), nic("t1", 2)];
        let (name, uuid) = (VmName::new("a").unwrap(), uuid::Uuid::new_v4());
        let vm = Vm::new(0, name, namespace.clone(), uuid, VmConfig::new(), nics, folder.path());
        std::fs::create_dir(&vm.folder).unwrap();
        let vm = Arc::new(vm);
        engine.state().namespaces.entry(namespace).or_default().vms.insert(0, Arc::clone(&vm));
        let says = |tap: &str, mac: u8, address: &str| {
            let mac = Mac::from_octets([2, 0, 0, 0, 0, mac]);
            network.hear(Heard { tap: TapName::new(tap).unwrap(), mac, address: address.parse().unwrap() })
        };
        assert!(!says("t0", 2, "10.0.0.9"), "the name of its other NIC");
        assert!(!says("t9", 1, "10.0.0.9"), "nobody's tap");
        assert!(
            says("t0", 1, "10.0.0.1")
                && says("t1", 2, "fe80::2")
                && says("t1", 2, "fd00::2")
                && says("t1", 2, "fe80::3")
        );
        let known = || vm.live().nics.iter().map(|nic| (nic.ip4, nic.ip6)).collect::<Vec<_>>();
        let expected = [(Some([10, 0, 0, 1].into()), None), (None, Some("fd00::2".parse().unwrap()))];
        assert_eq!(known(), expected);
        engine.save_learned().await;
        let record = std::fs::read_to_string(vm.folder.join("vm.json")).unwrap();
        assert!(record.contains("10.0.0.1") && record.contains("fd00::2"), "{record}");
        vm.live().nics[0].vlan = None;
        assert!(!says("t0", 1, "10.0.0.2"), "a disconnected NIC");
        vm.live().state = crate::engine::VmState::Quit;
        assert!(!says("t1", 2, "10.0.0.2"), "a VM that has ended");
    }
}
