//! Bridges, dnsmasq servers, mirrors and captures: what they name, and what two of them cannot both have.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::Checks;
use super::gateways::place_of_tap;
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::name::{Kind, TapName};
use crate::spec::model::{Object, Tap, nic_of_vm};
use crate::spec::shown;

impl<'d> Checks<'d> {
    pub(super) fn objects(&mut self) {
        let draft = self.draft;
        let of = |kind: Kind| {
            let mut objects: Vec<(&'d str, &'d Object)> =
                draft.objects.get(&kind).into_iter().flatten().map(|(name, object)| (name.as_str(), object)).collect();
            objects.sort_by_key(|(_, object)| object.span);
            objects
        };
        self.trunks(&of(Kind::Bridge));
        self.gateways(&of(Kind::Nat), &of(Kind::Dnsmasq));
        self.servers(&of(Kind::Dnsmasq));
        self.mirrors(&of(Kind::Mirror));
        self.captures(&of(Kind::Capture));
        self.bonds(&of(Kind::Bond));
        self.pipelines(&of(Kind::Pipe), &of(Kind::Plumbing));
    }

    /// A value that only one object can have.
    pub(super) fn once<'o>(
        &mut self,
        code: &'static str,
        what: &str,
        hint: &str,
        values: impl Iterator<Item = (String, &'o str, Span)>,
    ) {
        let mut first: BTreeMap<String, (&str, Span)> = BTreeMap::new();
        for (value, name, span) in values {
            match first.get(&value) {
                Some((other, place)) => {
                    let message = format!("`{other}` and `{name}` {what} {}", shown(&value));
                    self.push(Diagnostic::error(code, span, message).other(*place, "first given here").hint(hint));
                }
                None => {
                    first.insert(value, (name, span));
                }
            }
        }
    }

    fn trunks(&mut self, bridges: &[(&'d str, &'d Object)]) {
        let trunks = bridges.iter().flat_map(|(name, object)| {
            object.all("trunks").iter().map(move |trunk| (trunk.value.clone(), *name, trunk.span))
        });
        self.once(
            "duplicate-trunk",
            "both have the trunk",
            "an interface is on one bridge: keep one of the two",
            trunks,
        );
    }

    /// A NIC of a VM of the file.
    pub(super) fn nic(&mut self, who: &str, vm: &str, index: usize, span: Span) -> bool {
        let draft = self.draft;
        let Some(found) = draft.vms.get(vm) else {
            let hint = match self.suggester.nearest(vm, draft.vms.keys().map(|name| name.as_str())) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("add `{}` to `vms`, or remove it here", shown(vm)),
            };
            let message = format!("{who} names the VM `{}`, which does not exist", shown(vm));
            self.push(Diagnostic::error("unknown-vm", span, message).hint(hint));
            return false;
        };
        let count = found.body.networks.len();
        if index >= count {
            let message = format!("{who} names NIC {index} of `{vm}`, which has {count}");
            let hint = "NICs are counted from 0; `networks` of the VM lists them";
            self.push(Diagnostic::error("unknown-nic", span, message).label(found.span, "the VM").hint(hint));
            return false;
        }
        true
    }

    fn captures(&mut self, captures: &[(&'d str, &'d Object)]) {
        let files = captures.iter().filter_map(|(name, o)| Some((o.one("file")?.to_owned(), *name, o.place("file"))));
        self.once("duplicate-file", "both capture into", "give each capture a file of its own", files);
        for (name, object) in captures {
            let who = format!("capture `{name}`");
            if let Some(vm) = object.one("vm") {
                let index = object.one("interface").and_then(|index| index.parse().ok()).unwrap_or(0);
                self.nic(&who, vm, index, object.place("vm"));
            } else if let Some(bridge) = object.one("bridge") {
                self.bridge(&who, bridge, object.place("bridge"));
            }
        }
    }

    /// A bridge that something of the file is on.
    pub(super) fn bridge(&mut self, who: &str, bridge: &str, span: Span) {
        let draft = self.draft;
        if draft.partial || bridge == "mega_bridge" {
            return;
        }
        let mut known: Vec<&str> = vec!["mega_bridge"];
        known.extend(draft.objects.get(&Kind::Bridge).into_iter().flatten().map(|(name, _)| name.as_str()));
        known.extend(draft.taps.values().filter_map(|tap| tap.bridge.as_ref()).map(|bridge| bridge.as_str()));
        known.extend(draft.objects.get(&Kind::Nat).into_iter().flatten().filter_map(|(_, way)| way.one("bridge")));
        let nics = draft.vms.values().flat_map(|vm| vm.body.networks.iter());
        known.extend(nics.filter_map(|nic| nic.bridge.as_ref()).map(|bridge| bridge.as_str()));
        if known.contains(&bridge) {
            return;
        }
        let hint = match self.suggester.nearest(bridge, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it to `bridges` if it is there all the same".to_owned(),
        };
        let message = format!("{who} names the bridge `{bridge}`, which nothing of the file is on");
        self.push(Diagnostic::warning("unknown-bridge", span, message).hint(hint));
    }

    fn mirrors(&mut self, mirrors: &[(&'d str, &'d Object)]) {
        let ends = mirrors.iter().filter_map(|(name, o)| Some((o.one("to")?.to_owned(), *name, o.place("to"))));
        let hint = "a destination gets one mirror: keep one of the two, or use another destination";
        self.once("duplicate-mirror", "both go to", hint, ends);
        let draft = self.draft;
        for (name, object) in mirrors {
            for key in ["from", "to"] {
                let Some(end) = object.one(key) else { continue };
                let (who, span) = (format!("mirror `{name}`"), object.place(key));
                match nic_of_vm(end) {
                    Some((vm, index)) => drop(self.nic(&who, vm, index, span)),
                    None if draft.taps.contains_key(end) => {}
                    None => {
                        let hint = match self.suggester.nearest(end, draft.taps.keys().map(|tap| tap.as_str())) {
                            Some(known) => format!("did you mean `{known}`?"),
                            None => "add it to `taps`, or write a NIC as in `web.0`".to_owned(),
                        };
                        let message = format!("{who} names the tap `{}`, which does not exist", shown(end));
                        self.push(Diagnostic::error("unknown-tap", span, message).hint(hint));
                    }
                }
            }
        }
    }

    fn servers(&mut self, servers: &[(&'d str, &'d Object)]) {
        let addresses =
            servers.iter().filter_map(|(name, o)| Some((o.one("address")?.to_owned(), *name, o.place("address"))));
        self.once("duplicate-ip", "both listen on", "give each server an address of its own", addresses);
        for (name, server) in servers {
            self.server(name, server);
        }
    }

    fn server(&mut self, name: &str, server: &'d Object) {
        let draft = self.draft;
        let who = format!("dnsmasq `{name}`");
        let address: Option<Ipv4Addr> = server.one("address").and_then(|address| address.parse().ok());
        let Some(address) = address else { return };
        let has = |tap: &Tap, address| tap.ip.as_ref().is_some_and(|ip| ip.value.0 == IpAddr::V4(address));
        let on = draft.taps.values().find(|tap| has(tap, address));
        let Some((on, ip)) = on.and_then(|tap| Some((tap, tap.ip.as_ref()?))) else {
            // Of a tap that was refused the address is not known.
            if !draft.partial {
                let message = format!("{who} listens on {address}, which no tap has");
                let hint = format!("add a tap: `taps: {{ NAME: {{ vlan: VLAN, ip: {address}/24 }} }}`");
                self.push(Diagnostic::error("dnsmasq-tap", server.place("address"), message).hint(hint));
            }
            return;
        };
        let net = IpNet::new(ip.value.0, ip.value.1).expect("the decoder checked the prefix length").trunc();
        let inside = |checks: &mut Self, what: &str, address: Ipv4Addr, span: Span| {
            if !net.contains(&IpAddr::V4(address)) {
                let message = format!("{what} of {who} is {address}, outside the subnet {net} of its tap");
                let diagnostic = Diagnostic::error("outside-subnet", span, message)
                    .label(ip.span, "the tap's address")
                    .hint("choose an address of the subnet");
                checks.push(diagnostic);
            }
        };
        let range: Vec<(Ipv4Addr, Span)> =
            server.all("range").iter().filter_map(|value| Some((value.parse().ok()?, value.span))).collect();
        for ((address, span), what) in range.iter().zip(["the first address", "the last address"]) {
            inside(self, what, *address, *span);
        }
        if let [(low, _), (high, span)] = range.as_slice()
            && low > high
        {
            let message = format!("the range of {who} begins at {low} and ends at {high}");
            self.push(Diagnostic::error("out-of-range", *span, message).hint("put the smaller address first"));
        }
        for option in server.all("options") {
            for router in routers(option).into_iter().flatten().filter(|router| !router.is_unspecified()) {
                inside(self, "the router", router, option.span);
            }
        }
        // The server keeps its own address from the range, and no other one.
        let there = |tap: &&(&TapName, &Tap)| place_of_tap(tap.1) == place_of_tap(on);
        let taps: Vec<_> = draft.taps.iter().collect();
        for (tap, settings) in taps.iter().filter(there) {
            let Some(Spanned { value: (IpAddr::V4(taken), _), span }) = settings.ip else { continue };
            let leases = server.all("leases").iter().filter(|lease| lease_address(lease) == Some(taken));
            let leases = leases.map(|lease| (lease.span, "a lease"));
            let ranged = matches!(range.as_slice(), [(low, _), (high, _)] if (*low..=*high).contains(&taken));
            let ranged = (ranged && taken != address).then(|| (server.place("range"), "the range"));
            for (place, what) in leases.chain(ranged) {
                let message = format!("{what} of {who} has {taken}, the address of the tap `{tap}`");
                let diagnostic = Diagnostic::error("duplicate-ip", place, message)
                    .label(span, "the tap's address")
                    .hint("choose another address for one of the two");
                self.push(diagnostic);
            }
        }
        let mut seen: HashMap<String, (String, Span)> = HashMap::new();
        for lease in server.all("leases") {
            let Some((nic, text)) = lease.split_once(' ') else { continue };
            if let Some(address) = lease_address(lease) {
                inside(self, "a lease", address, lease.span);
            }
            for (value, what) in [(nic, "NIC"), (text, "address")] {
                if let Some((_, first)) = seen.insert(value.to_owned(), (text.to_owned(), lease.span)) {
                    let message = format!("two leases of {who} have the {what} {value}");
                    let diagnostic = Diagnostic::error("duplicate-lease", lease.span, message)
                        .other(first, "first given here")
                        .hint("keep one of the two");
                    self.push(diagnostic);
                }
            }
        }
    }
}

/// The address that a lease gives.
fn lease_address(lease: &str) -> Option<Ipv4Addr> {
    lease.split_once(' ')?.1.parse().ok()
}

/// The routers that an option of dnsmasq names, by its word or by its number (RFC 2132); None for any other option.
pub(super) fn routers(option: &str) -> Option<impl Iterator<Item = Ipv4Addr>> {
    let ahead = |word: &str| ["tag:", "set:", "vendor:", "encap:"].iter().any(|ahead| word.starts_with(ahead));
    let mut words = option.split(',').map(str::trim).skip_while(move |word| ahead(word));
    words.next().filter(|word| ["option:router", "3"].contains(word))?;
    Some(words.filter_map(|word| word.parse().ok()))
}
