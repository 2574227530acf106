//! qos: what happens to frames on their way to a NIC.
//!
//! A NIC's shape is in the VM's record. The tap gets it when it is made, at every change while the VM has a process, and
//! again from a restarted daemon.

use std::sync::Arc;

use crate::host::{NetworkError, NewTap, Reshape};
use crate::name::{Delay, Loss, Namespace, Rate, Shape};

use super::nics::nic_index;
use super::vm::{Nic, Turn, Vm};
use super::{Engine, EngineError};

/// A change of a NIC's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// A rate. As in minimega it takes the place of everything else.
    Rate(Rate),
    /// A delay. As in minimega it takes the place of a rate; loss stays.
    Delay(Delay),
    /// Loss. As in minimega it takes the place of a rate; a delay stays.
    Loss(Loss),
    /// All of it at once, in any combination.
    Set(Shape),
}

impl Qos {
    /// What becomes of a shape.
    fn apply(self, shape: Shape) -> Shape {
        match self {
            Qos::Rate(rate) => Shape { rate: Some(rate), ..Shape::default() },
            Qos::Delay(delay) => {
                let delay = Some(delay).filter(|delay| !delay.get().is_zero());
                Shape { rate: None, delay, jitter: None, loss: shape.loss }
            }
            Qos::Loss(loss) => Shape { rate: None, loss: Some(loss).filter(|loss| loss.share() > 0.0), ..shape },
            Qos::Set(shape) => shape,
        }
    }
}

/// A NIC whose shape is to change.
struct Change {
    vm: Arc<Vm>,
    index: usize,
    from: Shape,
    to: Shape,
    /// Does its tap exist?
    alive: bool,
}

impl Engine {
    /// Change the shape of NIC `index` of each VM: of all or of none, as far as the host can undo what it did.
    pub async fn add_qos(&self, namespace: &Namespace, target: &str, index: &str, qos: Qos) -> Result<(), EngineError> {
        self.change_qos(namespace, target, Some(index), |shape| qos.apply(shape)).await
    }

    /// Take the shape off NIC `index` of each VM; off all of its NICs without an index or with `all`.
    pub async fn clear_qos(&self, namespace: &Namespace, target: &str, index: Option<&str>) -> Result<(), EngineError> {
        let index = index.filter(|index| *index != "all");
        self.change_qos(namespace, target, index, |_| Shape::default()).await
    }

    async fn change_qos(
        &self,
        namespace: &Namespace,
        target: &str,
        index: Option<&str>,
        change: impl Fn(Shape) -> Shape,
    ) -> Result<(), EngineError> {
        let targets = self.targets(namespace, target)?;
        // In the order of their ids, as everybody who takes more than one.
        let mut turns: Vec<(Turn, Arc<Vm>)> = Vec::new();
        for vm in &targets.vms {
            match vm.turn().await {
                Ok(turn) => turns.push((turn, Arc::clone(vm))),
                Err(error) if targets.gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let mut changes = Vec::new();
        for (_, vm) in &turns {
            let indexes = match index {
                Some(index) => {
                    let index = nic_index(vm, index)?;
                    index..index + 1
                }
                None => 0..vm.live().nics.len(),
            };
            let live = vm.live();
            let alive = live.state.has_process();
            for index in indexes {
                let from = live.nics[index].shape;
                changes.push(Change { vm: Arc::clone(vm), index, from, to: change(from), alive });
            }
        }
        // The records first: a daemon that ends here shapes the taps by them when it starts again.
        record(&changes, |change| change.to)?;
        let reshapes = changes.iter().filter(|change| change.alive).map(Change::reshape).collect::<Vec<_>>();
        let shaped = self.network(move |network| network.shape(&reshapes)).await;
        if shaped.is_err() {
            record(&changes, |change| change.from)?;
        }
        shaped.map_err(|error| self.explain_tap(error))
    }

    /// Shape the taps of a VM that have just been made.
    pub(super) async fn shape_new_taps(&self, vm: &Vm) -> Result<(), EngineError> {
        self.shape_taps(vm, |nic| !nic.shape.is_none()).await
    }

    /// Shape the taps of a VM that were found again, as its record says: an earlier daemon may have ended in between.
    pub(super) async fn shape_found_taps(&self, vm: &Vm) -> Result<(), EngineError> {
        self.shape_taps(vm, |_| true).await
    }

    async fn shape_taps(&self, vm: &Vm, which: impl Fn(&Nic) -> bool) -> Result<(), EngineError> {
        let none = Shape::default();
        let shaped: Vec<Reshape> = vm
            .live()
            .nics
            .iter()
            .filter(|nic| which(nic))
            .map(|nic| Reshape { tap: nic.tap.clone(), from: none, to: nic.shape })
            .collect();
        self.network(move |network| network.shape(&shaped)).await
    }

    /// What of qos this host lacks, tried on a tap that exists.
    pub(super) async fn try_qos(&self, tap: &NewTap) -> Vec<NetworkError> {
        let mut missing = Vec::new();
        for settings in ["rate=1mbit", "delay=1ms"] {
            let change = Reshape {
                tap: tap.tap.clone(),
                from: Shape::default(),
                to: settings.parse().expect("settings of our own"),
            };
            let shaped = self.network(move |network| network.shape(&[change])).await;
            missing.extend(shaped.err().and_then(|error| match error {
                EngineError::Network(error) => Some(error),
                _ => None,
            }));
        }
        missing
    }
}

impl Change {
    fn reshape(&self) -> Reshape {
        Reshape { tap: self.vm.live().nics[self.index].tap.clone(), from: self.from, to: self.to }
    }
}

/// Put the shapes into the records of their VMs. On failure those that were written have the earlier ones again.
fn record(changes: &[Change], shape: impl Fn(&Change) -> Shape) -> Result<(), EngineError> {
    for change in changes {
        change.vm.live().nics[change.index].shape = shape(change);
    }
    for (done, change) in changes.iter().enumerate() {
        if let Err(error) = change.vm.save() {
            for change in changes {
                change.vm.live().nics[change.index].shape = change.from;
            }
            for change in &changes[..done] {
                // Best effort: the first error is what the caller needs to know.
                let _ = change.vm.save();
            }
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_the_others_replace_one_another() {
        let mut shape = Shape::default();
        let mut after = |qos: Qos| {
            shape = qos.apply(shape);
            shape.to_string()
        };
        let (rate, delay, loss) = ("1mbit".parse().unwrap(), "100ms".parse().unwrap(), "0.25".parse().unwrap());
        assert_eq!(after(Qos::Rate(rate)), "rate=1mbit");
        assert_eq!(after(Qos::Delay(delay)), "delay=100ms");
        assert_eq!(after(Qos::Loss(loss)), "delay=100ms loss=0.25");
        assert_eq!(after(Qos::Delay("20ms".parse().unwrap())), "delay=20ms loss=0.25");
        assert_eq!(after(Qos::Loss("0".parse().unwrap())), "delay=20ms");
        assert_eq!(after(Qos::Rate(rate)), "rate=1mbit");
        let all: Shape = "rate=1mbit delay=20ms jitter=5ms loss=1".parse().unwrap();
        assert_eq!(after(Qos::Set(all)), all.to_string());
        assert_eq!(after(Qos::Loss(loss)), "delay=20ms jitter=5ms loss=0.25");
        assert_eq!(after(Qos::Delay("1ms".parse().unwrap())), "delay=1ms loss=0.25");
    }
}
