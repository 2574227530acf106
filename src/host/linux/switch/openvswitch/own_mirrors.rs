//! Mirrors of Open vSwitch itself, for kernels without those of [`mirrors`](super::super::mirrors): ovs-vswitchd copies what passes one port out of another one of the same bridge.

use std::collections::HashMap;

use super::rows::{BOND, MARK, MIRROR, Picture, is, mark, still_there};
use super::{OpenVswitch, wrong};
use crate::host::NetworkError;
use crate::host::linux::switch::SwitchPort;
use crate::ovsdb::{Datum, Mutation, Operation, Row, Uuid};

impl OpenVswitch {
    pub(super) fn add_mirror(&mut self, source: &SwitchPort, destination: &SwitchPort) -> Result<(), NetworkError> {
        let what = format!("mirror {} to {}", source.tap, destination.tap);
        self.settle(&what)?;
        let number = self.change(&what, |picture| {
            let by_interface = picture.by_interface();
            let find = |port: &SwitchPort| {
                let row = by_interface.get(port.interface.as_str()).copied();
                let bridge = row.and_then(|row| picture.bridge_of(&row.uuid));
                row.zip(bridge).ok_or_else(|| wrong(&what, format!("{} is disconnected", port.tap)))
            };
            let (from, bridge) = find(source)?;
            let (to, other) = find(destination)?;
            let whole = [(source, from), (destination, to)].into_iter().find(|(_, row)| mark(&row.ids) == Some(BOND));
            if let Some((port, bond)) = whole {
                let text = format!("{} is part of bond {}, which Open vSwitch mirrors as a whole", port.tap, bond.name);
                return Err(wrong(&what, format!("{text}; one NIC of it takes a kernel with CONFIG_NET_CLS_BPF")));
            }
            if bridge.uuid != other.uuid {
                let text =
                    format!("{} is on bridge {}, {} on {}", source.tap, bridge.name, destination.tap, other.name);
                return Err(wrong(&what, format!("{text}; Open vSwitch mirrors within one bridge")));
            }
            if from.uuid == to.uuid {
                return Err(wrong(&what, "the two are one port"));
            }
            let there = picture.mirrors.iter().find(|mirror| mirror.output.as_ref() == Some(&to.uuid));
            if let Some(there) = there {
                // A try before may have made it.
                return if there.sources == [from.uuid.clone()] && mark(&there.ids).is_some() {
                    Ok(Vec::new())
                } else {
                    Err(wrong(&what, format!("{} is the destination of a mirror already", destination.tap)))
                };
            }
            let row = Row::new([("name", destination.tap.as_str())])
                .with("select_src_port", from.uuid.clone())
                .with("select_dst_port", from.uuid.clone())
                .with("output_port", to.uuid.clone())
                .with("external_ids", Datum::map([(MARK, MIRROR)]));
            let add = [("mirrors", Mutation::Insert(Uuid::New("mirror".to_owned()).into()))];
            Ok(vec![
                still_there(bridge),
                Operation::insert("Mirror", Some("mirror"), &row),
                Operation::mutate("Bridge", &is(&bridge.uuid), &add),
            ])
        })?;
        number.map_or(Ok(()), |number| self.applied(&what, number))
    }

    pub(super) fn remove_mirror(&mut self, destination: &SwitchPort) -> Result<(), NetworkError> {
        if !self.is_there() {
            return Ok(());
        }
        let what = format!("end the mirror to {}", destination.tap);
        let number = self.change(&what, |picture| {
            let ours = picture.mirrors.iter().filter(|mirror| mark(&mirror.ids).is_some());
            let by_interface = picture.by_interface();
            let port = by_interface.get(destination.interface.as_str()).map(|port| &port.uuid);
            let delete = ours.filter(|mirror| port.is_some() && mirror.output.as_ref() == port).filter_map(|mirror| {
                let bridge = picture.bridges.iter().find(|bridge| bridge.mirrors.contains(&mirror.uuid))?;
                let delete = [("mirrors", Mutation::Delete(mirror.uuid.clone().into()))];
                Some(Operation::mutate("Bridge", &is(&bridge.uuid), &delete))
            });
            Ok(delete.collect())
        })?;
        number.map_or(Ok(()), |number| self.applied(&what, number))
    }

    pub(super) fn list_mirrors(&mut self) -> Result<Vec<(u32, u32)>, NetworkError> {
        if !self.is_there() {
            return Ok(Vec::new());
        }
        let picture = self.picture("list mirrors")?;
        if picture.mirrors.is_empty() {
            return Ok(Vec::new());
        }
        let links = self.links()?;
        let indexes: HashMap<&str, u32> = links.iter().map(|link| (link.name.as_str(), link.index)).collect();
        let index = |port: &Uuid| indexes.get(interface(&picture, port)?).copied();
        let ours = picture.mirrors.iter().filter(|mirror| mark(&mirror.ids).is_some());
        let pairs = ours.filter_map(|mirror| Some((index(mirror.sources.first()?)?, index(mirror.output.as_ref()?)?)));
        Ok(pairs.collect())
    }
}

/// The first interface of a port.
fn interface<'a>(picture: &'a Picture, port: &Uuid) -> Option<&'a str> {
    let interface = picture.ports.get(port)?.interfaces.first()?;
    Some(picture.interfaces.get(interface)?.name.as_str())
}
