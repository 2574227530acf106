//! What the scheduler would refuse: hosts that are none, VMs that are to be together and apart, limits that cannot hold.

use std::collections::BTreeMap;

use super::Checks;
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::language::range;
use crate::name::{Kind, VmName};
use crate::spec::model::{Object, Vm};
use crate::spec::shown;

/// The name that a daemon takes for its own host, which the file does not know.
const LOCALHOST: &str = "localhost";

/// VMs that are to be on one host.
#[derive(Default)]
struct Together<'d> {
    /// The host, with the VM that names it.
    host: Option<(String, Span)>,
    count: u64,
    /// The smallest limit, with the VM that has it.
    limit: Option<(u64, &'d VmName, Span)>,
}

impl<'d> Together<'d> {
    fn add(&mut self, name: &'d VmName, vm: &'d Vm) {
        self.count += 1;
        let limit = u64::try_from(vm.body.config.int("coschedule")).ok();
        let place = vm.body.spans.get("coschedule").copied().unwrap_or(vm.span);
        if let Some(limit) = limit.filter(|limit| self.limit.as_ref().is_none_or(|(least, ..)| limit < least)) {
            self.limit = Some((limit, name, place));
        }
    }

    fn join(&mut self, other: Self) {
        self.count += other.count;
        if let Some(limit) = other.limit
            && self.limit.as_ref().is_none_or(|(least, ..)| limit.0 < *least)
        {
            self.limit = Some(limit);
        }
    }
}

fn schedule(vm: &Vm) -> Option<Spanned<String>> {
    let host = Some(vm.body.config.text("schedule")).filter(|host| !host.is_empty())?;
    Some(Spanned::new(host, vm.body.spans.get("schedule").copied().unwrap_or(vm.span)))
}

/// The root of a VM's set.
fn root(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

impl<'d> Checks<'d> {
    pub(super) fn placement(&mut self) {
        let draft = self.draft;
        let hosts = draft.objects.get(&Kind::Placement).and_then(|objects| objects.get("hosts"));
        let set = |vm: &Vm| ["schedule", "colocate", "coschedule"].iter().any(|field| vm.body.config.is_set(field));
        if !draft.vms.values().any(set) {
            return;
        }
        if let Some(hosts) = hosts {
            self.schedules(hosts);
        }
        // What cannot be read yet could be what holds VMs together.
        if draft.partial {
            return;
        }
        let vms: Vec<(&VmName, &Vm)> = draft.vms.iter().collect();
        let index: BTreeMap<&str, usize> = vms.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
        let mut parents: Vec<usize> = (0..vms.len()).collect();
        for (at, (_, vm)) in vms.iter().enumerate() {
            if let Some(&other) = index.get(vm.body.config.text("colocate").as_str()) {
                let (a, b) = (root(&mut parents, at), root(&mut parents, other));
                parents[a.max(b)] = a.min(b);
            }
        }
        let mut sets: BTreeMap<usize, Together<'d>> = BTreeMap::new();
        for (at, (name, vm)) in vms.iter().enumerate() {
            let set = sets.entry(root(&mut parents, at)).or_default();
            set.add(name, vm);
            let Some(host) = schedule(vm) else { continue };
            match &set.host {
                None => set.host = Some((host.value, host.span)),
                // One of them may be the other's real name.
                Some((other, first))
                    if *other != host.value && ![other, &host.value].iter().any(|h| *h == LOCALHOST) =>
                {
                    let message = format!(
                        "`{name}` is to be on `{}` and colocated with VMs that are to be on `{}`",
                        shown(&host.value),
                        shown(other)
                    );
                    let diagnostic = Diagnostic::error("colocate-apart", host.span, message)
                        .other(*first, "the other host")
                        .hint("take one `schedule` away, or `colocate`");
                    self.push(diagnostic);
                }
                Some(_) => {}
            }
        }
        // A single host has them all; otherwise those that name it.
        let only = hosts.map(|hosts| hosts.all("hosts")).filter(|hosts| hosts.len() == 1).map(|hosts| hosts[0].clone());
        let mut by_host: BTreeMap<String, Together<'d>> = BTreeMap::new();
        let mut apart = Vec::new();
        for set in sets.into_values() {
            match only
                .as_ref()
                .map(|host| host.value.clone())
                .or_else(|| set.host.as_ref().map(|(host, _)| host.clone()))
            {
                Some(host) => by_host.entry(host).or_default().join(set),
                None => apart.push((None, set)),
            }
        }
        let pinned = by_host.into_iter().map(|(host, set)| (Some(host), set));
        for (host, set) in pinned.chain(apart) {
            let Some((limit, name, span)) = set.limit else { continue };
            let others = set.count - 1;
            if others <= limit {
                continue;
            }
            let which = host.map_or("its host".to_owned(), |host| format!("`{}`", shown(&host)));
            let others = if others == 1 { "another VM is".to_owned() } else { format!("{others} other VMs are") };
            let message = format!("`{name}` has a coschedule limit of {limit}, and {others} to be on {which}");
            self.push(
                Diagnostic::error("coschedule-limit", span, message)
                    .hint("raise the limit, or take `colocate`, `schedule` or a VM away"),
            );
        }
    }

    /// Hosts that VMs name and the file does not list.
    fn schedules(&mut self, hosts: &'d Object) {
        let listed: Vec<&str> = hosts.all("hosts").iter().map(|host| host.value.as_str()).collect();
        // Its real name may be any other.
        if listed.contains(&LOCALHOST) {
            return;
        }
        let bodies = self.bodies();
        for (name, span, body) in bodies {
            let host = body.config.text("schedule");
            if host.is_empty() || host == LOCALHOST || listed.contains(&host.as_str()) {
                continue;
            }
            let place = body.spans.get("schedule").copied().unwrap_or(span);
            let hint = match self.suggester.nearest(&host, listed.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("name one of {}, or add it to `hosts`", range::compress(&listed)),
            };
            let message = format!("`{name}` is to be on `{}`, which is none of the hosts", shown(&host));
            self.push(
                Diagnostic::error("schedule-host", place, message)
                    .label(hosts.place("hosts"), "the hosts of the namespace")
                    .hint(hint),
            );
        }
    }
}
