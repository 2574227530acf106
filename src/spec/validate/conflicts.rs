//! What would break when it runs: VMs that QEMU would refuse, disks with several writers, taps whose subnets clash.

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use ipnet::IpNet;

use super::{Body, Checks};
use crate::diagnostic::{Diagnostic, Span};
use crate::name::{BridgeName, Kind, TapName, VlanAlias, VmName};
use crate::spec::model::{VlanRef, VmBody};

impl<'d> Checks<'d> {
    /// QEMU starts only if the parts of its CPU topology multiply to the number of CPUs. Source: qemu-system-x86_64(1), -smp.
    pub(super) fn topology(&mut self, name: &VmName, (_, span, body): &Body<'d>) {
        let config = &body.config;
        let parts: Vec<(&str, u64)> = ["sockets", "cores", "threads"]
            .into_iter()
            .filter(|part| config.is_set(part))
            .map(|part| (part, config.uint(part)))
            .filter(|(_, number)| *number > 0)
            .collect();
        let Some((last, _)) = parts.last() else { return };
        let vcpus = config.uint("vcpus");
        let product = parts.iter().fold(1u64, |product, (_, number)| product.saturating_mul(*number));
        let fits = if parts.len() == 3 { product == vcpus } else { vcpus % product == 0 };
        if fits {
            return;
        }
        let place = body.spans.get("vcpus").or_else(|| body.spans.get(last)).copied().unwrap_or(*span);
        let text: Vec<String> = parts.iter().map(|(part, number)| format!("{part} {number}")).collect();
        let expected = if parts.len() == 3 { format!("{product}") } else { format!("a multiple of {product}") };
        let mut diagnostic = Diagnostic::error(
            "cpu-topology",
            place,
            format!("the VM `{name}` has {vcpus} vcpus with {}, expected {expected}", text.join(", ")),
        )
        .hint(format!("set `vcpus` to {expected}, or leave sockets, cores and threads out"));
        for (part, _) in &parts {
            if let Some(span) = body.spans.get(part).filter(|span| **span != place) {
                diagnostic = diagnostic.label(*span, format!("{part} given here"));
            }
        }
        self.push(diagnostic);
    }

    /// USB disks of a VM without a bus for them.
    pub(super) fn usb(&mut self, body: &VmBody) {
        if let Some(first) = body.usb_disks.first()
            && !body.config.bool("usb-use-xhci")
        {
            let place = body.spans.get("usb-use-xhci").copied().unwrap_or(first.span);
            let message = "a VM with USB disks has no USB controller".to_owned();
            let diagnostic = Diagnostic::error("usb-controller", first.span, message)
                .label(place, "this leaves it out")
                .hint("remove `usb_use_xhci: false`, or the USB disks");
            self.push(diagnostic);
        }
    }

    /// An image that more than one VM writes to.
    pub(super) fn disks(&mut self, bodies: &[Body<'d>]) {
        let mut members: HashMap<*const _, usize> = HashMap::new();
        for vm in self.draft.vms.values() {
            *members.entry(std::sync::Arc::as_ptr(&vm.body)).or_default() += 1;
        }
        let mut writers: HashMap<String, (&VmName, Span)> = HashMap::new();
        for (name, span, body) in bodies {
            if body.config.bool("snapshot") {
                continue;
            }
            let place = body.spans.get("disks").copied().unwrap_or(*span);
            let many = members.get(&std::ptr::from_ref(*body)).copied().unwrap_or(1);
            let disks = body.config.disks().into_iter().map(|disk| (disk.path, place));
            let usb = body.usb_disks.iter().map(|disk| (disk.path.clone(), disk.span));
            for (path, place) in disks.chain(usb) {
                let hint = "give each VM an image of its own, or set `snapshot: true`";
                if many > 1 {
                    let message = format!("{many} VMs would write to the image {}", crate::spec::shown(&path));
                    self.push(
                        Diagnostic::error("shared-disk", place, message)
                            .label(*span, format!("{many} VMs come from here"))
                            .hint(hint),
                    );
                    continue;
                }
                match writers.get(&path) {
                    Some((other, first)) => {
                        let who = if other == name {
                            format!("the VM `{name}` has the image {} twice", crate::spec::shown(&path))
                        } else {
                            format!("`{other}` and `{name}` would write to the image {}", crate::spec::shown(&path))
                        };
                        let diagnostic = Diagnostic::error("shared-disk", place, who);
                        self.push(diagnostic.other(*first, "first given here").hint(hint));
                    }
                    None => {
                        writers.insert(path, (name, place));
                    }
                }
            }
        }
    }

    /// Subnets of taps on two VLANs.
    pub(super) fn subnets(&mut self) {
        struct Seen<'d> {
            net: IpNet,
            vlan: &'d VlanRef,
            bridge: Option<&'d BridgeName>,
            name: &'d TapName,
            span: Span,
        }
        let draft = self.draft;
        let mut seen: Vec<Seen<'d>> = Vec::new();
        let mut said = HashSet::new();
        let mut taps: Vec<_> = draft.taps.iter().collect();
        taps.sort_by_key(|(_, tap)| tap.span);
        for (name, tap) in taps {
            let Some(ip) = &tap.ip else { continue };
            let (address, prefix) = ip.value;
            let net = IpNet::new(address, prefix).expect("the decoder checked the prefix length");
            let (vlan, bridge) = (&tap.vlan.value, tap.bridge.as_ref().map(|bridge| &bridge.value));
            let overlaps = |other: &Seen<'_>| other.net.contains(&net) || net.contains(&other.net);
            // The same address on both is said already.
            let clash =
                seen.iter().find(|other| *other.vlan != *vlan && other.net.addr() != address && overlaps(other));
            let unlike = seen.iter().find(|other| {
                let beside = *other.vlan == *vlan && other.bridge == bridge;
                beside && other.net.trunc() != net.trunc() && overlaps(other)
            });
            if let Some(other) = unlike {
                let message = format!(
                    "`{name}` and `{}` are both on {vlan}, and the subnets {} and {} that they say it has differ",
                    other.name,
                    net.trunc(),
                    other.net.trunc(),
                );
                let diagnostic = Diagnostic::warning("subnet-overlap", ip.span, message)
                    .other(other.span, "the other one")
                    .hint("give both one prefix length");
                self.push(diagnostic);
            }
            // Once for two VLANs, however many taps they have.
            let first = clash.is_some_and(|other| said.insert((vlan.min(other.vlan), vlan.max(other.vlan))));
            if let Some(other) = clash.filter(|_| first) {
                let message = format!(
                    "the subnet {} of `{name}` on {vlan} overlaps {} of `{}` on {}",
                    net.trunc(),
                    other.net.trunc(),
                    other.name,
                    other.vlan
                );
                self.push(
                    Diagnostic::warning("subnet-overlap", ip.span, message)
                        .other(other.span, "the other one")
                        .hint("give each VLAN a subnet of its own"),
                );
            }
            seen.push(Seen { net, vlan, bridge, name, span: ip.span });
        }
    }

    /// VLANs with a single NIC, tap or gateway.
    pub(super) fn lonely(&mut self) {
        let draft = self.draft;
        let mut members: HashMap<&VlanAlias, (u64, Span)> = HashMap::new();
        let mut member = |vlan: &'d VlanRef, span: Span| {
            if let VlanRef::Alias(alias) = vlan {
                members.entry(alias).or_insert((0, span)).0 += 1;
            }
        };
        // What gets the copies of a mirror is on a VLAN of its own for a reason.
        let mirrors = draft.objects.get(&Kind::Mirror).into_iter().flat_map(|mirrors| mirrors.values());
        let watching: HashSet<&str> = mirrors.filter_map(|mirror| mirror.one("to")).collect();
        for (name, vm) in &draft.vms {
            for (index, nic) in vm.body.networks.iter().enumerate() {
                if watching.is_empty() || !watching.contains(&*format!("{name}.{index}")) {
                    member(&nic.vlan, nic.place("vlan"));
                }
            }
        }
        for (name, tap) in &draft.taps {
            if !watching.contains(name.as_str()) {
                member(&tap.vlan.value, tap.vlan.span);
            }
        }
        for way in draft.objects.get(&Kind::Nat).into_iter().flat_map(|ways| ways.values()) {
            let known = way.one("vlan").and_then(|vlan| draft.vlans.get_key_value(vlan));
            if let Some((alias, _)) = known {
                members.entry(alias).or_insert((0, way.place("vlan"))).0 += 1;
            }
        }
        let mut lonely: Vec<_> = draft
            .vlans
            .iter()
            .filter_map(|(alias, vlan)| Some((alias, vlan, members.get(alias).filter(|(count, _)| *count == 1)?.1)))
            .collect();
        lonely.sort_by_key(|(_, vlan, _)| vlan.span);
        for (alias, vlan, span) in lonely {
            let mut hint = "put something else on it too, or correct the name".to_owned();
            let others = draft.vlans.keys().filter(|other| *other != alias).map(VlanAlias::as_str);
            if let Some(near) = self.suggester.nearest(alias.as_str(), others) {
                hint = format!("did you mean `{near}`?");
            }
            self.push(
                Diagnostic::warning("lonely-vlan", vlan.span, format!("only one NIC or tap is on the VLAN `{alias}`"))
                    .label(span, "this one")
                    .hint(hint),
            );
        }
    }
}
