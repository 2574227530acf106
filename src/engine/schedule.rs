//! Where VMs of a launch go: a host for each, by what their configurations ask for and by the load of the hosts.
//!
//! Pure: works on figures that the caller has taken. Must not know the queue, nor how a VM is launched.
//!
//! VMs that are colocated go together. What a configuration or a user has fixed is placed first, then what limits its
//! company most, then the rest in order, each on the least loaded host where no limit is exceeded. With one host this
//! finds a placement wherever there is one; with several it may miss one, because nothing placed is moved again.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::name::VmName;

/// The figure of a host that decides which one is the least loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Virtual CPUs of VMs by processors.
    #[default]
    CpuCommit,
    /// NICs of VMs.
    NetCommit,
    /// Memory of VMs by memory.
    MemCommit,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CpuCommit, Self::NetCommit, Self::MemCommit];

    /// The word in commands.
    pub fn word(self) -> &'static str {
        match self {
            Self::CpuCommit => "cpucommit",
            Self::NetCommit => "netcommit",
            Self::MemCommit => "memcommit",
        }
    }

    fn of(self, host: &HostLoad) -> f64 {
        // Counts of VMs and megabytes are far below 2^52.
        let share = |commit: u64, of: u64| commit as f64 / of.max(1) as f64;
        match self {
            Self::CpuCommit => share(host.vcpus, host.cpus),
            Self::NetCommit => host.nics as f64,
            Self::MemCommit => share(host.committed, host.memory),
        }
    }
}

/// A host, and what VMs that have a process are committed to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostLoad {
    /// Its name.
    pub name: String,
    /// Its processors.
    pub cpus: u64,
    /// Its memory, in MB.
    pub memory: u64,
    /// VMs on it.
    pub vms: u64,
    /// Their virtual CPUs.
    pub vcpus: u64,
    /// Their memory, in MB.
    pub committed: u64,
    /// Their NICs.
    pub nics: u64,
    /// The VM on it that allows the fewest others, in words, and how many it allows.
    pub limit: Option<(String, u64)>,
}

/// A VM that is to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: VmName,
    /// The host that it is to be on, from its configuration or by the user's hand.
    pub host: Option<String>,
    /// The VM whose host is to be its own.
    pub colocate: Option<String>,
    /// How many other VMs it allows on its host; None for any number.
    pub limit: Option<u64>,
    /// Its virtual CPUs.
    pub vcpus: u64,
    /// Its memory, in MB.
    pub memory: u64,
    /// Its NICs.
    pub nics: u64,
}

/// Why there is no placement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The namespace has no hosts.
    #[error("the namespace has no host to launch VMs on, `ns add-hosts` gives it one")]
    NoHosts,
    /// A host that is none of the namespace.
    #[error("VM `{vm}` is to be scheduled on `{host}`, which is no host of the namespace; its hosts: {known}")]
    UnknownHost {
        /// The VM.
        vm: VmName,
        /// As given.
        host: String,
        /// The hosts of the namespace.
        known: String,
    },
    /// A VM to be colocated with that is not there.
    #[error("VM `{vm}` is to be colocated with `{other}`, which is neither launched nor among the VMs to launch")]
    NotThere {
        /// The VM.
        vm: VmName,
        /// As given.
        other: String,
    },
    /// VMs that are colocated and are to be on different hosts.
    #[error("VM `{vm}` is to be on `{host}` and colocated with VMs that are to be on `{other}`")]
    Apart {
        /// The VM.
        vm: VmName,
        /// Its host.
        host: String,
        /// The host of those before it.
        other: String,
    },
    /// A limit would be exceeded on the only host there is to choose.
    #[error(
        "VM {vm} has a coschedule limit of {limit}, but `{host}` would have {others} besides it: {there} launched before, \
         {coming} of this launch"
    )]
    Limit {
        /// The VM whose limit it is, in words.
        vm: String,
        /// How many others it allows.
        limit: u64,
        /// The host.
        host: String,
        /// How many others it would have.
        others: u64,
        /// Of them, those that are there already.
        there: u64,
        /// Of them, those that are to be launched.
        coming: u64,
    },
    /// A limit would be exceeded on each of several hosts.
    #[error("VM `{vm}` fits on no host: {}", reasons.join("; "))]
    NoRoom {
        /// The VM, or the first of those that go together.
        vm: VmName,
        /// Why not, for each host.
        reasons: Vec<String>,
    },
}

/// VMs that go together.
struct Group {
    /// Indices of `wanted`, in its order.
    members: Vec<usize>,
    host: Option<usize>,
    limit: Option<u64>,
}

/// Choose a host for each VM. `present` are the hosts of the VMs that are launched already, by name. Gives for each VM
/// the index of its host.
pub fn place(
    wanted: &[Wanted],
    hosts: &[HostLoad],
    present: &HashMap<VmName, String>,
    load: Load,
) -> Result<Vec<usize>, ScheduleError> {
    if hosts.is_empty() {
        return Err(ScheduleError::NoHosts);
    }
    let mut groups = groups(wanted, hosts, present)?;
    let mut board =
        Board { hosts, loads: hosts.to_vec(), coming: vec![0; hosts.len()], own: vec![0; hosts.len()], load };
    let mut places = vec![0; wanted.len()];
    // Stable, so that the order of the launch decides the rest.
    groups.sort_by_key(|group| (group.host.is_none(), group.limit.unwrap_or(u64::MAX)));
    let (fixed, free): (Vec<Group>, Vec<Group>) = groups.into_iter().partition(|group| group.host.is_some());
    for group in &fixed {
        board.put(wanted, group, group.host.expect("only those that are fixed"), &mut places);
    }
    // All at once, so that the error has all the numbers.
    (0..hosts.len()).try_for_each(|host| board.crowded(host).map_or(Ok(()), Err))?;
    for group in &free {
        let mut order: Vec<usize> = (0..hosts.len()).collect();
        order.sort_by(|a, b| board.load.of(&board.loads[*a]).total_cmp(&board.load.of(&board.loads[*b])));
        let mut reasons = Vec::new();
        let found = order.into_iter().find(|host| {
            let mut trial = board.clone();
            trial.put(wanted, group, *host, &mut places);
            reasons.extend(trial.crowded(*host).map(|error| error.to_string()));
            trial.crowded(*host).is_none()
        });
        match found {
            Some(host) => board.put(wanted, group, host, &mut places),
            None => return Err(ScheduleError::NoRoom { vm: wanted[group.members[0]].name.clone(), reasons }),
        }
    }
    Ok(places)
}

/// The groups of VMs that are colocated, with what fixes their hosts. Where there is one host, all are fixed to it.
fn groups(
    wanted: &[Wanted],
    hosts: &[HostLoad],
    present: &HashMap<VmName, String>,
) -> Result<Vec<Group>, ScheduleError> {
    let index: HashMap<&str, usize> = wanted.iter().enumerate().map(|(i, vm)| (vm.name.as_str(), i)).collect();
    // Each VM points to another one of its group; the one that points to itself stands for the group.
    let mut parents: Vec<usize> = (0..wanted.len()).collect();
    fn root(parents: &mut [usize], mut at: usize) -> usize {
        while parents[at] != at {
            parents[at] = parents[parents[at]];
            at = parents[at];
        }
        at
    }
    let known = || hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    let host_of = |vm: &VmName, host: &str| {
        hosts.iter().position(|h| h.name == host).ok_or_else(|| ScheduleError::UnknownHost {
            vm: vm.clone(),
            host: host.to_owned(),
            known: known(),
        })
    };
    let mut fixed: Vec<Vec<usize>> = vec![Vec::new(); wanted.len()];
    for (i, vm) in wanted.iter().enumerate() {
        if let Some(host) = &vm.host {
            fixed[i].push(host_of(&vm.name, host)?);
        }
        let Some(other) = &vm.colocate else { continue };
        if let Some(j) = index.get(other.as_str()) {
            let (a, b) = (root(&mut parents, i), root(&mut parents, *j));
            parents[a.max(b)] = a.min(b);
        } else if let Some(host) = present.get(other.as_str()) {
            fixed[i].push(host_of(&vm.name, host)?);
        } else {
            return Err(ScheduleError::NotThere { vm: vm.name.clone(), other: other.clone() });
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<usize, usize> = HashMap::new();
    for (i, vm) in wanted.iter().enumerate() {
        let root = root(&mut parents, i);
        let place = *places.entry(root).or_insert_with(|| {
            let host = (hosts.len() == 1).then_some(0);
            groups.push(Group { members: Vec::new(), host, limit: None });
            groups.len() - 1
        });
        let group = &mut groups[place];
        group.members.push(i);
        group.limit = group.limit.into_iter().chain(vm.limit).min();
        for host in fixed[i].iter().copied() {
            match group.host {
                Some(other) if other != host => {
                    return Err(ScheduleError::Apart {
                        vm: vm.name.clone(),
                        host: hosts[host].name.clone(),
                        other: hosts[other].name.clone(),
                    });
                }
                _ => group.host = Some(host),
            }
        }
    }
    Ok(groups)
}

/// The hosts while VMs are put on them.
#[derive(Clone)]
struct Board<'a> {
    /// As they were.
    hosts: &'a [HostLoad],
    /// As they become.
    loads: Vec<HostLoad>,
    /// VMs of the launch, by host.
    coming: Vec<u64>,
    /// 1 where the limit of a host is that of a VM of the launch.
    own: Vec<u64>,
    load: Load,
}

impl Board<'_> {
    fn put(&mut self, wanted: &[Wanted], group: &Group, host: usize, places: &mut [usize]) {
        let load = &mut self.loads[host];
        for member in &group.members {
            let vm = &wanted[*member];
            places[*member] = host;
            self.coming[host] += 1;
            load.vms += 1;
            load.vcpus += vm.vcpus;
            load.committed += vm.memory;
            load.nics += vm.nics;
            if let Some(limit) = vm.limit
                && load.limit.as_ref().is_none_or(|(_, least)| limit < *least)
            {
                load.limit = Some((format!("`{}`", vm.name), limit));
                self.own[host] = 1;
            }
        }
    }

    /// The limit that is exceeded on a host.
    fn crowded(&self, host: usize) -> Option<ScheduleError> {
        let load = &self.loads[host];
        let (vm, limit) = load.limit.clone()?;
        let others = load.vms.saturating_sub(1);
        // VMs that were there before may exceed a limit that came later; they are not this launch's fault.
        if others <= limit || self.coming[host] == 0 {
            return None;
        }
        let own = self.own[host];
        let (there, coming) = (self.hosts[host].vms.saturating_sub(1 - own), self.coming[host] - own);
        Some(ScheduleError::Limit { vm, limit, host: load.name.clone(), others, there, coming })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostLoad {
        HostLoad { name: name.to_owned(), cpus: 4, memory: 1000, ..HostLoad::default() }
    }

    fn vm(name: &str) -> Wanted {
        let name = VmName::new(name).unwrap();
        Wanted { name, host: None, colocate: None, limit: None, vcpus: 1, memory: 100, nics: 1 }
    }

    fn on(host: &str, vm: Wanted) -> Wanted {
        Wanted { host: Some(host.to_owned()), ..vm }
    }

    fn with(other: &str, vm: Wanted) -> Wanted {
        Wanted { colocate: Some(other.to_owned()), ..vm }
    }

    fn limited(limit: u64, vm: Wanted) -> Wanted {
        Wanted { limit: Some(limit), ..vm }
    }

    fn places(wanted: &[Wanted], hosts: &[HostLoad]) -> Result<String, String> {
        let present = HashMap::from([(VmName::new("old").unwrap(), "a".to_owned())]);
        let places = place(wanted, hosts, &present, Load::CpuCommit).map_err(|error| error.to_string())?;
        Ok(places.into_iter().map(|host| hosts[host].name.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn vms_spread_by_the_load_that_counts() {
        let hosts = [HostLoad { vcpus: 1, nics: 0, ..host("a") }, HostLoad { vcpus: 0, nics: 5, ..host("b") }];
        let wanted = [vm("x"), vm("y"), vm("z")];
        for (load, expected) in
            [(Load::CpuCommit, [1, 0, 1]), (Load::NetCommit, [0, 0, 0]), (Load::MemCommit, [0, 1, 0])]
        {
            assert_eq!(place(&wanted, &hosts, &HashMap::new(), load).unwrap(), expected, "{load:?}");
        }
        let small = [HostLoad { cpus: 1, vcpus: 1, ..host("a") }, HostLoad { cpus: 8, vcpus: 2, ..host("b") }];
        assert_eq!(places(&wanted[..1], &small).unwrap(), "b", "by processors, not by count");
    }

    #[test]
    fn a_fixed_host_must_be_one_of_the_namespaces() {
        let hosts = [host("a"), host("b")];
        assert_eq!(places(&[on("b", vm("x")), on("b", vm("y")), vm("z")], &hosts).unwrap(), "b b a");
        assert_eq!(
            places(&[on("c", vm("x"))], &hosts).unwrap_err(),
            "VM `x` is to be scheduled on `c`, which is no host of the namespace; its hosts: a, b"
        );
        assert_eq!(places(&[vm("x")], &[]).unwrap_err(), ScheduleError::NoHosts.to_string());
    }

    #[test]
    fn colocated_vms_go_together() {
        let hosts = [host("a"), host("b")];
        assert_eq!(places(&[with("y", vm("x")), vm("y"), with("x", vm("z")), vm("w")], &hosts).unwrap(), "a a a b");
        assert_eq!(places(&[with("old", vm("x")), vm("y")], &hosts).unwrap(), "a b");
        assert_eq!(places(&[with("x", vm("x"))], &hosts).unwrap(), "a", "a range may name one of itself");
        assert!(places(&[with("nosuch", vm("x"))], &hosts).unwrap_err().contains("colocated with `nosuch`, which is"));
        assert_eq!(
            places(&[on("a", vm("x")), on("b", with("x", vm("y")))], &hosts).unwrap_err(),
            "VM `y` is to be on `b` and colocated with VMs that are to be on `a`"
        );
        assert!(places(&[on("b", with("old", vm("x")))], &hosts).unwrap_err().contains("to be on `a`"));
    }

    #[test]
    fn one_host_holds_what_no_limit_forbids() {
        let there = |vms| [HostLoad { vms, ..host("a") }];
        assert_eq!(places(&[limited(0, vm("x"))], &there(0)).unwrap(), "a");
        assert_eq!(places(&[limited(2, vm("x")), vm("y")], &there(1)).unwrap(), "a a");
        assert_eq!(
            places(&[vm("w"), limited(2, vm("x")), vm("y")], &there(1)).unwrap_err(),
            "VM `x` has a coschedule limit of 2, but `a` would have 3 besides it: 1 launched before, 2 of this launch"
        );
        let lone = [HostLoad { vms: 1, limit: Some(("`lone` of namespace `n`".to_owned(), 0)), ..host("a") }];
        assert_eq!(
            places(&[vm("x"), limited(3, vm("y"))], &lone).unwrap_err(),
            "VM `lone` of namespace `n` has a coschedule limit of 0, but `a` would have 2 besides it: 0 launched before, \
             2 of this launch"
        );
    }

    #[test]
    fn several_hosts_keep_limited_vms_apart() {
        let hosts = [host("a"), host("b"), host("c")];
        let alone = |name| limited(0, vm(name));
        assert_eq!(places(&[vm("w"), alone("x"), alone("y"), vm("z")], &hosts).unwrap(), "c a b c");
        let error = places(&[alone("w"), alone("x"), alone("y"), alone("z")], &hosts).unwrap_err();
        assert!(error.starts_with("VM `z` fits on no host: VM `w` has a coschedule limit of 0"), "{error}");
        assert_eq!(error.matches("would have 1 besides it").count(), 3, "{error}");
        // One that was crowded before is no reason to refuse what goes elsewhere.
        let crowded = HostLoad { vms: 3, limit: Some(("`v`".to_owned(), 0)), ..host("a") };
        assert_eq!(places(&[vm("x")], &[crowded, host("b")]).unwrap(), "b");
    }
}
