//! Ways out (`nat`): what they are on, and what else has or gives out their addresses.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::Checks;
use super::objects::routers;
use crate::diagnostic::{Diagnostic, Span};
use crate::name::BridgeName;
use crate::spec::model::{Object, Tap};

/// A VLAN of a bridge, as the file names both.
type Place<'o> = (&'o str, &'o str);

fn usual() -> BridgeName {
    BridgeName::default_bridge()
}

/// The VLAN and the bridge of a tap.
pub(super) fn place_of_tap(tap: &Tap) -> (String, String) {
    let bridge = tap.bridge.as_ref().map_or_else(usual, |bridge| bridge.value.clone());
    (tap.vlan.value.to_string(), bridge.to_string())
}

impl<'d> Checks<'d> {
    pub(super) fn gateways(&mut self, ways: &[(&'d str, &'d Object)], servers: &[(&'d str, &'d Object)]) {
        let usual = usual();
        let place = |way: &'d Object| -> Option<Place<'_>> {
            Some((way.one("vlan")?, way.one("bridge").unwrap_or(usual.as_str())))
        };
        let places = ways.iter().filter_map(|(name, way)| {
            let (vlan, bridge) = place(way)?;
            let on = if bridge == usual.as_str() { vlan.to_owned() } else { format!("{vlan} of {bridge}") };
            Some((on, *name, way.place("vlan")))
        });
        let hint = "a VLAN has one gateway: keep one of the two";
        self.once("duplicate-nat", "are both a way out of the VLAN", hint, places);
        for (name, way) in ways {
            let Some((vlan, bridge)) = place(way) else { continue };
            if vlan.parse::<u16>().is_err() {
                self.alias(vlan, way.place("vlan"));
            }
            if way.one("bridge").is_some() {
                self.bridge(&format!("nat `{name}`"), bridge, way.place("bridge"));
            }
            let Some(net) = way.one("ip").and_then(|ip| ip.parse::<Ipv4Net>().ok()) else { continue };
            let gateway = (*name, net, way.place("ip"));
            self.taken(gateway, (vlan, bridge));
            for (server, object) in servers {
                self.served(gateway, (vlan, bridge), server, object);
            }
        }
    }

    /// A tap on the VLAN that has the address, or a network without the gateway.
    fn taken(&mut self, (name, net, span): (&str, Ipv4Net, Span), on: Place<'_>) {
        for (tap, settings) in &self.draft.taps {
            let (vlan, bridge) = place_of_tap(settings);
            let Some(ip) = settings.ip.as_ref().filter(|_| (vlan.as_str(), bridge.as_str()) == on) else { continue };
            if ip.value.0 == IpAddr::V4(net.addr()) {
                let message = format!("the gateway of nat `{name}` has the address {} of the tap `{tap}`", net.addr());
                let diagnostic = Diagnostic::error("duplicate-ip", span, message)
                    .label(ip.span, "the tap's address")
                    .hint("choose another address of the subnet for one of the two");
                self.push(diagnostic);
            }
        }
    }

    /// A server on the VLAN: it must not give the gateway's address away, and should tell guests of the gateway.
    fn served(&mut self, (name, net, span): (&str, Ipv4Net, Span), on: Place<'_>, server: &str, object: &Object) {
        let address = object.one("address").and_then(|address| address.parse::<IpAddr>().ok());
        let listens = |tap: &&Tap| tap.ip.as_ref().is_some_and(|ip| Some(ip.value.0) == address);
        let Some(tap) = self.draft.taps.values().find(listens) else { return };
        let (vlan, bridge) = place_of_tap(tap);
        if (vlan.as_str(), bridge.as_str()) != on {
            return;
        }
        let gateway = net.addr();
        if let Some(ip) = &tap.ip
            && let Ok(subnet) = IpNet::new(ip.value.0, ip.value.1)
            && !subnet.contains(&IpAddr::V4(gateway))
        {
            let subnet = subnet.trunc();
            let message = format!(
                "the gateway {gateway} of nat `{name}` is outside the subnet {subnet} that dnsmasq `{server}` gives out addresses of"
            );
            let diagnostic = Diagnostic::error("outside-subnet", span, message)
                .label(ip.span, "the address of the server's tap")
                .hint("choose an address of the subnet: no guest reaches a router outside its own");
            self.push(diagnostic);
            return;
        }
        let range: Vec<Ipv4Addr> = object.all("range").iter().filter_map(|value| value.parse().ok()).collect();
        if let [low, high] = range.as_slice()
            && (low..=high).contains(&&gateway)
        {
            let message = format!(
                "the gateway {gateway} of nat `{name}` is among the addresses that dnsmasq `{server}` gives out"
            );
            let diagnostic = Diagnostic::error("duplicate-ip", span, message)
                .label(object.place("range"), "the range")
                .hint("choose an address outside the range");
            self.push(diagnostic);
        }
        for lease in object.all("leases") {
            if lease.split_once(' ').and_then(|(_, ip)| ip.parse().ok()) == Some(gateway) {
                let message =
                    format!("dnsmasq `{server}` gives the address {gateway} of the gateway of nat `{name}` away");
                let diagnostic = Diagnostic::error("duplicate-ip", lease.span, message)
                    .label(span, "the gateway's address")
                    .hint("choose another address for one of the two");
                self.push(diagnostic);
            }
        }
        // A file may say anything.
        let told =
            object.all("options").iter().any(|option| routers(option).is_some()) || object.one("config").is_some();
        if let (false, Some(address)) = (told, address) {
            let message = format!(
                "dnsmasq `{server}` tells its guests to use {address} as their router, and the way out of VLAN {} is {gateway}",
                on.0
            );
            let diagnostic = Diagnostic::warning("nat-router", object.span, message)
                .label(span, "the gateway")
                .hint(format!("add `options: option:router,{gateway}` to the server"));
            self.push(diagnostic);
        }
    }
}
