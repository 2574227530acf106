//! `host::Gateways` by network namespaces: a host tap is made in the engine's namespace and moved into the gateway's; to
//! remove it, it is moved back first, so that its switch learns of its end.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::failure::kernel;
use super::namespace::{self, sysctl};
use super::netlink::Netlink;
use super::network::LinuxNetwork;
use super::ports::Ports;
use super::run_in;
use crate::host::{GATEWAY_INSIDE, GATEWAY_OUTSIDE, Gateways, Network, NetworkError, NewGateway, NewTap, TapKind};
use crate::name::{Mac, TapName};

impl Gateways for LinuxNetwork {
    fn open_gateway(&self, gateway: &NewGateway) -> Result<(), NetworkError> {
        let opened = self.open(gateway);
        if opened.is_err() {
            // Best effort: the first error is what the caller needs to know.
            let _ = self.close_gateway(&gateway.pin, &gateway.tap);
        }
        opened
    }

    fn gateway_is_ready(&self, pin: &Path) -> bool {
        let has_address = || -> std::io::Result<bool> {
            let mut netlink = Netlink::open()?;
            let Some(link) = netlink.link_by_name(GATEWAY_OUTSIDE)? else { return Ok(false) };
            Ok(netlink.addresses()?.iter().any(|found| found.index == link.index && found.address.is_ipv4()))
        };
        run_in(pin, has_address).is_ok_and(|found| found.is_ok_and(|found| found))
    }

    fn lost_gateways(&self) -> Result<Vec<TapName>, NetworkError> {
        Ok(self.inside(false, Ports::lost_feet)?.unwrap_or_default())
    }

    fn close_gateway(&self, pin: &Path, tap: &TapName) -> Result<(), NetworkError> {
        if namespace::open(pin)?.is_some() {
            let home = self.namespace()?;
            run_in(pin, || give_back(&home, tap))??;
        }
        let deleted = match self.delete(tap) {
            Err(NetworkError::NotFound { .. }) => Ok(()),
            result => result,
        };
        deleted.and(namespace::remove(pin))
    }
}

impl LinuxNetwork {
    fn open(&self, gateway: &NewGateway) -> Result<(), NetworkError> {
        self.create(&NewTap {
            tap: gateway.tap.clone(),
            kind: TapKind::Host,
            segment: Some(gateway.segment.clone()),
            addresses: Vec::new(),
            owner: gateway.owner.clone(),
        })?;
        // On a thread of its own, which leaves its namespace for the new one.
        let new = std::thread::scope(|scope| scope.spawn(|| namespace::create(&gateway.pin)).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        self.move_out(&gateway.tap, new)?;
        let (address, mac) = (gateway.address, gateway.mac);
        run_in(&gateway.pin, move || set_up(address, mac))?
    }
}

/// In the gateway's namespace: make a router of it.
fn set_up((address, prefix): (Ipv4Addr, u8), mac: Mac) -> Result<(), NetworkError> {
    let mut netlink = Netlink::open().map_err(kernel("open a netlink socket"))?;
    // Nothing but IPv4 is forwarded.
    sysctl("ipv6/conf/all/disable_ipv6", "1")?;
    sysctl("ipv6/conf/default/disable_ipv6", "1")?;
    for name in ["lo", GATEWAY_INSIDE] {
        let link = netlink.link_by_name(name).map_err(kernel(format!("look up interface {name}")))?;
        let link = link.ok_or_else(|| NetworkError::NotFound { tap: name.to_owned() })?;
        if name == GATEWAY_INSIDE {
            netlink.set_mac(link.index, mac.octets()).map_err(kernel(format!("give {name} the address {mac}")))?;
            sysctl(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
            netlink
                .add_address(link.index, address.into(), prefix)
                .map_err(kernel(format!("add address {address}/{prefix}")))?;
        }
        netlink.set_up(link.index, true).map_err(kernel(format!("set {name} up")))?;
    }
    sysctl("ipv4/ip_forward", "1")
}

/// In the gateway's namespace: move the tap back to the engine's. None is fine.
fn give_back(home: &OwnedFd, tap: &TapName) -> Result<(), NetworkError> {
    let mut netlink = Netlink::open().map_err(kernel("open a netlink socket"))?;
    let Some(link) = netlink.link_by_name(GATEWAY_INSIDE).map_err(kernel("look up the gateway's interface"))? else {
        return Ok(());
    };
    netlink.move_link(link.index, home.as_raw_fd(), tap.as_str()).map_err(kernel(format!("move {tap} back")))
}
