//! Open vSwitch as the engine's switch, by its database; no program is run for an operation.
//!
//! A user's bridge is a bridge of Open vSwitch of the same name, a segment's VLAN the tag of its ports. In a network
//! namespace of the engine's own, an ovsdb-server and an ovs-vswitchd of its own run there ([`daemons`]); in the host's, or
//! by its socket, a running Open vSwitch is used. Rows of the database that the engine made carry a mark ([`rows`]);
//! nothing else is changed or deleted.
//!
//! The userspace datapath reads ports by packet sockets, so the kernel's own IP stack sees the frames of a port too. It is
//! kept off: no ARP, no IPv6, and no IPv4 but by a route (strict reverse path filter).

mod bonds;
mod config;
mod daemons;
mod datapath;
mod hearing;
mod own_mirrors;
mod placing;
mod qdiscs;
mod rows;
mod trunks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_packet_route::link::{InfoKind, LinkFlags};

use super::{Ear, Switch, SwitchPort, mirrors};
use crate::host::linux::failure::kernel;
use crate::host::linux::namespace::sysctl;
use crate::host::linux::netlink::{Link, Links, Netlink};
use crate::host::{Bond, BridgeInfo, Netflow, NetworkError, Segment, Tunnel};
use crate::name::{BridgeName, TapName};
use crate::ovsdb::{Client, Datum, Mutation, Operation, Outcome, OvsdbError, Row, Uuid};

use daemons::Daemons;
use datapath::Datapath;
use placing::place;
use rows::{BOND, MARK, PORT, Picture, TRUNK, TUNNEL, mark};

/// Where a running Open vSwitch listens, on Debian and by default.
pub(super) const HOST_SOCKET: &str = "/var/run/openvswitch/db.sock";
const DATABASE: &str = "Open_vSwitch";
/// How long one call of the database may take.
const CALL: Duration = Duration::from_secs(30);
/// How long ovs-vswitchd may take to carry out a change; two thousand ports take it seconds, and it looks for a new
/// ovsdb-server only every eight.
const APPLY: Duration = Duration::from_secs(90);
/// How often it is looked whether it still runs meanwhile.
const SLICE: Duration = Duration::from_secs(1);
/// How long an Open vSwitch that was restarted by somebody may take to come back.
const COMEBACK: Duration = Duration::from_secs(15);
/// How many files ovs-vswitchd needs besides those of its ports and those that it has open while nobody asks for anything.
const SPARE_FILES: usize = 32;
/// How often a change is tried again when others have changed the same.
const ATTEMPTS: u32 = 5;

pub(super) struct OpenVswitch {
    netlink: Netlink,
    client: Client,
    /// Those of the engine's own; None where a running Open vSwitch is used.
    daemons: Option<Daemons>,
    datapath: Datapath,
    /// The last change that ovs-vswitchd was not waited for. Adding an interface of the same name needs to.
    unsettled: Option<i64>,
    /// Whether the database was looked at since it was last (re)started.
    prepared: bool,
    /// Whether a database that somebody else runs has ever answered.
    seen: bool,
    /// One of its programs was started again, and nobody was told yet.
    returned: bool,
    /// Whether any of the kernel's mirrors is there; None until it is known.
    has_mirrors: Option<bool>,
}

impl OpenVswitch {
    /// With daemons of its own, which write into `folder`.
    pub(super) fn own(folder: &Path) -> Result<Self, NetworkError> {
        let daemons = Daemons::new(folder);
        let socket = daemons.socket();
        Self::new(&socket, Some(daemons))
    }

    /// With the one that listens on this socket, or on the usual one.
    pub(super) fn running(socket: Option<&Path>) -> Result<Self, NetworkError> {
        Self::new(socket.unwrap_or(Path::new(HOST_SOCKET)), None)
    }

    fn new(socket: &Path, daemons: Option<Daemons>) -> Result<Self, NetworkError> {
        Ok(Self {
            netlink: Netlink::open().map_err(kernel("open a netlink socket"))?,
            client: Client::new(socket, DATABASE),
            daemons,
            datapath: Datapath::probe().map_err(kernel("ask the kernel for Open vSwitch"))?,
            unsettled: None,
            prepared: false,
            seen: false,
            returned: false,
            has_mirrors: None,
        })
    }

    /// Make sure that the database answers.
    fn prepare(&mut self) -> Result<(), NetworkError> {
        let Some(daemons) = &mut self.daemons else {
            if self.prepared {
                return Ok(());
            }
            // One that was there may come back, one that was never there will not.
            let limit = if self.seen { COMEBACK } else { Duration::ZERO };
            self.client.wait_for_server(limit).map_err(|error| match error {
                OvsdbError::Connect { .. } => NetworkError::Unsupported {
                    what: "use a running Open vSwitch".to_owned(),
                    missing: format!(
                        "one that answers on {} (Debian package openvswitch-switch; `megaform daemon --ovsdb SOCKET` names \
                         another): {}",
                        self.client.path().display(),
                        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
                    ),
                },
                error => failed("use Open vSwitch")(error),
            })?;
            (self.prepared, self.seen) = (true, true);
            return Ok(());
        };
        let end = Instant::now() + COMEBACK;
        loop {
            let started = daemons.ensure()?;
            self.returned |= !started.is_empty() && self.prepared;
            for program in &started {
                tracing::info!("started {program} in the engine's network namespace");
            }
            if started.is_empty() && self.prepared {
                return Ok(());
            }
            match self.client.wait_for_server(SLICE).and_then(|()| initialize(&mut self.client)) {
                Ok(unsettled) => {
                    (self.prepared, self.unsettled) = (true, unsettled);
                    return Ok(());
                }
                // Perhaps it was killed as soon as it was there.
                Err(error) if error.is_lost() && Instant::now() < end => self.prepared = false,
                Err(error) => {
                    let what = format!("start ovsdb-server{}", daemons.last_words());
                    return Err(failed(&what)(error));
                }
            }
        }
    }

    /// Whether there is anything to look at. Looking starts nothing.
    fn is_there(&self) -> bool {
        self.daemons.as_ref().is_none_or(Daemons::exist)
    }

    /// Call the database; if it was restarted meanwhile, once more. Only for what may be done twice.
    fn ask(&mut self, what: &str, operations: &[Operation]) -> Result<Vec<Outcome>, NetworkError> {
        let end = Instant::now() + COMEBACK;
        loop {
            self.prepare()?;
            match self.client.transact(operations, CALL) {
                Err(error) if error.is_lost() && Instant::now() < end => {
                    self.prepared = false;
                    std::thread::sleep(Duration::from_millis(50));
                }
                result => return result.map_err(failed(what)),
            }
        }
    }

    fn picture(&mut self, what: &str) -> Result<Picture, NetworkError> {
        self.ask(what, &Picture::questions()).map(Picture::read)
    }

    /// Change the database in one transaction, built from what is in it. `build` is called again when somebody else has
    /// changed the same, or when it is not known whether the change was made; it must then find out. No operation is no
    /// change. Gives the number of the change, see [`OpenVswitch::applied`].
    fn change(
        &mut self,
        what: &str,
        build: impl FnMut(&Picture) -> Result<Vec<Operation>, NetworkError>,
    ) -> Result<Option<i64>, NetworkError> {
        let picture = self.picture(what)?;
        self.change_from(what, picture, build)
    }

    /// The same with what has just been looked at. The operations must not do what they should not if it has changed since.
    fn change_from(
        &mut self,
        what: &str,
        mut picture: Picture,
        mut build: impl FnMut(&Picture) -> Result<Vec<Operation>, NetworkError>,
    ) -> Result<Option<i64>, NetworkError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            if attempts > 1 {
                picture = self.picture(what)?;
            }
            let mut operations = build(&picture)?;
            if operations.is_empty() {
                // A try before may have done it all.
                return Ok((attempts > 1).then_some(picture.next_cfg));
            }
            operations.push(Operation::mutate("Open_vSwitch", &[], &[("next_cfg", Mutation::Add(1))]));
            operations.push(Operation::select("Open_vSwitch", &[], &["next_cfg"]));
            let result = self.client.transact(&operations, CALL);
            match result {
                Ok(outcomes) => {
                    let number =
                        outcomes.into_iter().last().and_then(|outcome| outcome.rows().first()?.integer("next_cfg"));
                    return Ok(number);
                }
                Err(OvsdbError::Refused { .. } | OvsdbError::Lost { .. } | OvsdbError::Connect { .. })
                    if attempts < ATTEMPTS => {}
                Err(error) => return Err(failed(what)(error)),
            }
        }
    }

    /// A change of nothing; its number as for [`OpenVswitch::change`].
    fn nudge(&mut self, what: &str) -> Result<Option<i64>, NetworkError> {
        let add = Operation::mutate("Open_vSwitch", &[], &[("next_cfg", Mutation::Add(1))]);
        let outcomes = self.ask(what, &[add, Operation::select("Open_vSwitch", &[], &["next_cfg"])])?;
        Ok(outcomes.into_iter().last().and_then(|outcome| outcome.rows().first()?.integer("next_cfg")))
    }

    /// Wait until ovs-vswitchd has carried out a change.
    fn applied(&mut self, what: &str, number: i64) -> Result<(), NetworkError> {
        let end = Instant::now() + APPLY;
        loop {
            self.prepare()?;
            let condition = [("cur_cfg", ">=", Datum::Integer(number))];
            let wait = Operation::wait_for_row("Open_vSwitch", &condition, SLICE);
            match self.client.transact(&[wait], SLICE + CALL) {
                Ok(_) => {
                    self.unsettled = self.unsettled.filter(|unsettled| *unsettled > number);
                    return Ok(());
                }
                Err(OvsdbError::Refused { error, .. }) if error == "timed out" => {}
                Err(error) if error.is_lost() => {
                    self.prepared = false;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(failed(what)(error)),
            }
            if Instant::now() > end {
                let hint = match &self.daemons {
                    Some(daemons) => daemons.last_words(),
                    None => "; does ovs-vswitchd run?".to_owned(),
                };
                let text = format!("ovs-vswitchd has not done it within {} s{hint}", APPLY.as_secs());
                return Err(failed(what)(io::Error::other(text)));
            }
        }
    }

    /// Let ovs-vswitchd decide anew about every frame. It has the new configuration, but what it knows of earlier frames
    /// would still take others the old way for some milliseconds.
    fn forget_flows(&mut self) {
        let Some(daemons) = &self.daemons else { return };
        // Best effort: it does so by itself.
        let _ = crate::ovsdb::control(&daemons.control(), "revalidator/purge", &[], CALL);
    }

    /// Wait for what was not waited for.
    fn settle(&mut self, what: &str) -> Result<(), NetworkError> {
        match self.unsettled {
            Some(number) => self.applied(what, number),
            None => Ok(()),
        }
    }

    /// An error if a bridge would have to be made and another interface has its name, which a bridge of Open vSwitch gives to
    /// an interface of its own.
    fn vacant(&mut self, what: &str, picture: &Picture, bridge: &BridgeName) -> Result<(), NetworkError> {
        if picture.bridge(bridge.as_str()).is_some() {
            return Ok(());
        }
        let link = self.netlink.link_by_name(bridge.as_str()).map_err(kernel(format!("look up interface {bridge}")))?;
        // One of Open vSwitch's own may be left of a bridge of that name, of which ovs-vswitchd has not let go yet.
        let own = |link: &Link| match &link.kind {
            Some(InfoKind::Tun) => link.alias.is_empty(),
            Some(InfoKind::Other(kind)) => kind == "openvswitch",
            _ => false,
        };
        match link {
            Some(link) if !own(&link) => Err(wrong(
                what,
                format!("bridge {bridge} would need an interface of its own name, and there is another of that name"),
            )),
            _ => Ok(()),
        }
    }

    /// An error if ovs-vswitchd may not open as many files as new ports need. One that runs out of them ends, and starts
    /// again with the same configuration.
    fn files_suffice(
        &self,
        what: &str,
        picture: &Picture,
        ports: &[(SwitchPort, Segment)],
    ) -> Result<(), NetworkError> {
        // The kernel's datapath needs none for a port.
        let Some(daemons) = self.daemons.as_ref().filter(|_| self.datapath == Datapath::Userspace) else {
            return Ok(());
        };
        let there = picture.by_interface();
        let new = ports.iter().filter(|(port, _)| !there.contains_key(port.interface.as_str())).count();
        match daemons.files_left() {
            Some(left) if new > 0 && left < new + SPARE_FILES => Err(wrong(
                what,
                format!(
                    "ovs-vswitchd needs an open file for each port and may have no more than {} more; start the daemon with a \
                     higher limit (`ulimit -Hn`)",
                    left.saturating_sub(SPARE_FILES)
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Rows of interfaces that were deleted and made again under the same name: ovs-vswitchd would keep what it has open.
    /// They go first. `ports` has the number of each interface by name, and None for one that was just made.
    /// Gives what is in the database then.
    fn drop_stale(
        &mut self,
        what: &str,
        picture: Picture,
        ports: &HashMap<&str, Option<u32>>,
    ) -> Result<Picture, NetworkError> {
        let stale = |picture: &Picture| {
            let stale = picture.interfaces.values().filter(|interface| {
                let now = ports.get(interface.name.as_str());
                now.is_some_and(|now| now.is_none() || interface.index != *now)
            });
            let names: HashSet<&Uuid> = stale.map(|interface| &interface.uuid).collect();
            let gone = picture.ports.values().filter(|port| mark(&port.ids) == Some(PORT));
            let gone = gone.filter(|port| port.interfaces.iter().any(|uuid| names.contains(uuid)));
            picture.remove(&gone.map(|port| &port.uuid).collect(), false)
        };
        if stale(&picture).is_empty() {
            return Ok(picture);
        }
        let number = self.change_from(what, picture, |picture| Ok(stale(picture)))?;
        number.map_or(Ok(()), |number| self.applied(what, number))?;
        self.picture(what)
    }

    /// Keep the engine's IP stack off an interface that is a port, and set it up.
    fn raise(&mut self, port: &SwitchPort) -> Result<(), NetworkError> {
        let name = &port.interface;
        sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
        sysctl(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
        if self.datapath == Datapath::Userspace && port.tap != *name {
            // A packet socket hands over frames as they are, without the checksums that hardware would fill in.
            datapath::complete_checksums(&port.tap)
                .map_err(kernel(format!("turn off transmit checksum offload on {}", port.tap)))?;
        }
        self.set_up(port)
    }

    fn set_up(&mut self, port: &SwitchPort) -> Result<(), NetworkError> {
        let flags = LinkFlags::Up | LinkFlags::Noarp;
        self.netlink.set_flags(port.index, flags, flags).map_err(kernel(format!("set {} up", port.tap)))
    }

    fn lower(&mut self, port: &SwitchPort) -> Result<(), NetworkError> {
        self.netlink.set_up(port.index, false).map_err(kernel(format!("set {} down", port.tap)))
    }

    fn plug_all(&mut self, what: &str, picture: Picture, ports: &[(SwitchPort, Segment)]) -> Result<(), NetworkError> {
        let picture = self.drop_stale(
            what,
            picture,
            &ports
                .iter()
                .map(|(port, _)| (port.interface.as_str(), Some(port.index).filter(|_| !port.fresh)))
                .collect(),
        )?;
        let datapath = self.datapath;
        // Before it is a port: ovs-vswitchd changes other flags of its ports, and would write back that it is down.
        ports.iter().try_for_each(|(port, _)| self.raise(port))?;
        let number = self.change_from(what, picture, |picture| place(datapath, picture, ports))?;
        let Some(number) = number else { return Ok(()) };
        self.applied(what, number)?;
        // Once more: for an earlier interface of the same name ovs-vswitchd writes back flags by name when it lets go.
        ports.iter().try_for_each(|(port, _)| self.set_up(port))?;
        self.forget_flows();
        self.refused_interfaces(what, &ports.iter().map(|(port, _)| port.interface.as_str()).collect())
    }

    /// An error if ovs-vswitchd could not open one of these interfaces.
    fn refused_interfaces(&mut self, what: &str, names: &HashSet<&str>) -> Result<(), NetworkError> {
        let select = Operation::select("Interface", &[("error", "!=", Datum::none())], &["name", "error"]);
        let rows = self.ask(what, &[select])?.into_iter().flat_map(Outcome::rows);
        for row in rows {
            let (name, error) = (row.text("name"), row.text("error"));
            if names.contains(name) && !error.is_empty() {
                return Err(failed(what)(io::Error::other(format!("ovs-vswitchd says of {name}: {error}"))));
            }
        }
        Ok(())
    }

    /// Put ports back to where they were. Best effort: whoever calls this has an error to tell.
    fn put_back(&mut self, before: &HashMap<String, Segment>, ports: &[(SwitchPort, Segment)]) {
        let mut back = Vec::new();
        let mut off = Vec::new();
        for (port, _) in ports {
            match before.get(&port.interface) {
                Some(segment) => back.push((port.clone(), segment.clone())),
                None => off.push(port.clone()),
            }
        }
        let _ = self.unplug(&off);
        let datapath = self.datapath;
        let _ = self.change("put ports back", |picture| place(datapath, picture, &back));
    }

    fn links(&mut self) -> Result<Vec<Link>, NetworkError> {
        self.netlink.links(Links::All).map_err(kernel("list interfaces"))
    }

    /// Remove ports from the database, and wait for nothing.
    fn forget(&mut self, what: &str, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        if ports.is_empty() || !self.is_there() {
            return Ok(());
        }
        let names: HashSet<&str> = ports.iter().map(|port| port.interface.as_str()).collect();
        let number = self.change(what, |picture| {
            let (whole, members) = bonds::without(picture, &names);
            Ok([members, picture.remove(&whole, false)].concat())
        })?;
        self.unsettled = self.unsettled.max(number);
        Ok(())
    }
}

impl Switch for OpenVswitch {
    fn kind(&self) -> &'static str {
        match (self.daemons.is_some(), self.datapath) {
            (true, Datapath::Kernel) => "Open vSwitch of the engine's own, kernel datapath",
            (true, Datapath::Userspace) => "Open vSwitch of the engine's own, userspace datapath",
            (false, Datapath::Kernel) => "a running Open vSwitch, kernel datapath",
            (false, Datapath::Userspace) => "a running Open vSwitch, userspace datapath",
        }
    }

    fn plug(&mut self, ports: &[(SwitchPort, Segment)]) -> Result<(), NetworkError> {
        let what = match ports {
            [] => return Ok(()),
            [(port, _)] => format!("connect {}", port.tap),
            [(first, _), rest @ ..] => format!("connect {} and {} more", first.tap, rest.len()),
        };
        self.settle(&what)?;
        let picture = self.picture(&what)?;
        for bridge in ports.iter().map(|(_, segment)| &segment.bridge).collect::<BTreeSet<_>>() {
            self.vacant(&what, &picture, bridge)?;
        }
        self.files_suffice(&what, &picture, ports)?;
        let before = picture.segments();
        self.plug_all(&what, picture, ports).inspect_err(|_| self.put_back(&before, ports))
    }

    fn unplug(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        ports.iter().try_for_each(|port| self.lower(port))?;
        self.forget("disconnect ports", ports)
    }

    fn deleting(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        self.forget("disconnect ports", ports)
    }

    fn deleted(&mut self, ports: &[SwitchPort]) -> Result<(), NetworkError> {
        // Their bridges went with them.
        let ports: BTreeSet<u32> = ports.iter().map(|port| port.index).collect();
        if self.has_mirrors != Some(false) {
            self.has_mirrors = Some(mirrors::remove_to(&mut self.netlink, &ports)?);
        }
        Ok(())
    }

    fn placed(&mut self, links: &[Link]) -> Result<HashMap<u32, Segment>, NetworkError> {
        if !self.is_there() {
            return Ok(HashMap::new());
        }
        let mut segments = self.picture("list ports")?.segments();
        Ok(links.iter().filter_map(|link| Some((link.index, segments.remove(&link.name)?))).collect())
    }

    fn sweep(&mut self) -> Result<(), NetworkError> {
        if !self.is_there() {
            return Ok(());
        }
        let links = self.links()?;
        let names: HashSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
        let number = self.change("delete what nobody needs", |picture| {
            let lost = |uuid: &Uuid| {
                picture.interfaces.get(uuid).is_none_or(|interface| !names.contains(interface.name.as_str()))
            };
            let ports =
                picture.ports.values().filter(|port| matches!(mark(&port.ids), Some(PORT | BOND | TRUNK | TUNNEL)));
            let gone = ports.filter(|port| port.interfaces.iter().all(lost)).map(|port| &port.uuid);
            let gone = gone.collect();
            Ok(picture.remove(&gone, true).into_iter().chain(qdiscs::spare(picture, &gone)).collect())
        })?;
        self.unsettled = self.unsettled.max(number);
        Ok(())
    }

    fn sweep_half_made(&mut self) -> Result<(), NetworkError> {
        // A transaction makes and marks at once.
        Ok(())
    }

    fn tend(&mut self) -> Result<bool, NetworkError> {
        if self.daemons.as_ref().is_some_and(Daemons::is_one_dead) {
            self.prepare()?;
        }
        if !self.returned {
            return Ok(false);
        }
        let what = "start Open vSwitch again";
        // Until it has done something, nobody knows whether it has made its interfaces.
        let number = self.nudge(what)?;
        number.map_or(Ok(()), |number| self.applied(what, number))?;
        self.returned = false;
        Ok(true)
    }

    fn end(&mut self) -> Result<(), NetworkError> {
        self.prepared = false;
        self.unsettled = None;
        self.daemons.as_mut().map_or(Ok(()), Daemons::end)
    }

    fn plain_frames(&self) -> bool {
        self.datapath == Datapath::Userspace
    }

    fn bridges(&mut self) -> Result<Vec<BridgeInfo>, NetworkError> {
        self.list_bridges()
    }

    fn configure(&mut self, bridge: &BridgeName, config: &str) -> Result<(), NetworkError> {
        self.set_config(bridge, config)
    }

    fn trunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        self.add_trunk(bridge, interface)
    }

    fn untrunk(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        self.remove_uplink(bridge, interface, false)
    }

    fn tunnel(&mut self, bridge: &BridgeName, tunnel: &Tunnel) -> Result<String, NetworkError> {
        self.add_tunnel(bridge, tunnel)
    }

    fn untunnel(&mut self, bridge: &BridgeName, interface: &TapName) -> Result<(), NetworkError> {
        self.remove_uplink(bridge, interface, true)
    }

    fn destroy(&mut self, bridge: &BridgeName) -> Result<(), NetworkError> {
        self.destroy_bridge(bridge)
    }

    fn mirror(&mut self, source: &SwitchPort, destination: &SwitchPort) -> Result<(), NetworkError> {
        self.has_mirrors = Some(true);
        match mirrors::add(&mut self.netlink, source, destination) {
            // Open vSwitch has mirrors of its own, which are within one bridge and end when either end moves.
            Err(NetworkError::Unsupported { .. }) => self.add_mirror(source, destination),
            result => result,
        }
    }

    fn unmirror(&mut self, destination: &SwitchPort) -> Result<(), NetworkError> {
        self.has_mirrors = Some(mirrors::remove_to(&mut self.netlink, &BTreeSet::from([destination.index]))?);
        self.remove_mirror(destination)
    }

    fn mirrors(&mut self) -> Result<Vec<(u32, u32)>, NetworkError> {
        Ok([mirrors::list(&mut self.netlink)?, self.list_mirrors()?].concat())
    }

    fn bond(&mut self, ports: &[SwitchPort], segment: &Segment, bond: &Bond) -> Result<(), NetworkError> {
        self.add_bond(ports, segment, bond)
    }

    fn unbond(&mut self, name: &TapName) -> Result<(), NetworkError> {
        self.remove_bond(name)
    }

    fn bonds(&mut self) -> Result<Vec<Bond>, NetworkError> {
        self.list_bonds()
    }

    fn hear(
        &mut self,
        bridges: &BTreeSet<BridgeName>,
        _links: &[Link],
    ) -> Result<Vec<(BridgeName, Ear)>, NetworkError> {
        self.listen(bridges)
    }

    fn exports_flows(&self) -> bool {
        true
    }

    fn exporting(&mut self) -> Result<BTreeMap<BridgeName, bool>, NetworkError> {
        self.list_exporting()
    }

    fn netflow(&mut self, bridge: &BridgeName, settings: Option<&Netflow>) -> Result<(), NetworkError> {
        self.set_netflow(bridge, settings)
    }
}

/// Give a new database the row of the table of which every database has exactly one. The number of the last change, which
/// a daemon before this one may not have waited for.
fn initialize(client: &mut Client) -> Result<Option<i64>, OvsdbError> {
    let rows = client.transact(&[Operation::select("Open_vSwitch", &[], &["next_cfg"])], CALL)?;
    if let Some(row) = rows.into_iter().flat_map(Outcome::rows).next() {
        return Ok(row.integer("next_cfg").filter(|number| *number > 0));
    }
    // Few threads: frames that take the slow path are few, and hosts have many cores.
    let threads = [("n-handler-threads", "1"), ("n-revalidator-threads", "1")];
    let row = Row::new([("other_config", Datum::map(threads))])
        .with("external_ids", Datum::map([(MARK, "own"), ("system-id", "megaform")]));
    client.transact(&[Operation::insert("Open_vSwitch", None, &row)], CALL)?;
    Ok(None)
}

fn failed<E: std::error::Error + Send + Sync + 'static>(what: &str) -> impl Fn(E) -> NetworkError {
    let what = what.to_owned();
    move |source| NetworkError::Switch { what: what.clone(), source: Box::new(source) }
}

/// What was asked for makes no sense as things are.
fn wrong(what: &str, reason: impl Into<String>) -> NetworkError {
    failed(what)(io::Error::other(reason.into()))
}
