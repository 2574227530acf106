//! The functions that count with IP addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;
use minijinja::{Environment, Error};

use super::functions::refuse;

pub fn add(env: &mut Environment<'static>) {
    env.add_function("cidrhost", |net: String, n: i64| host(network(&net)?, n).map(|ip| ip.to_string()));
    env.add_function("cidrsubnet", |net: String, bits: u8, n: u64| {
        subnet(network(&net)?, bits, n).map(|net| net.to_string())
    });
    env.add_function("cidrnetmask", |net: String| match network(&net)? {
        IpNet::V4(net) => Ok(net.netmask().to_string()),
        IpNet::V6(_) => Err(refuse(format!("`{net}` is IPv6, which has no netmask; use cidrprefix"))),
    });
    env.add_function("cidrbroadcast", |net: String| match network(&net)? {
        IpNet::V4(net) => Ok(net.broadcast().to_string()),
        IpNet::V6(_) => Err(refuse(format!("`{net}` is IPv6, which has no broadcast address"))),
    });
    env.add_function("cidrprefix", |net: String| Ok::<_, Error>(network(&net)?.prefix_len()));
    env.add_function("cidrnetwork", |net: String| Ok::<_, Error>(network(&net)?.network().to_string()));
    env.add_function("cidrcontains", |net: String, other: String| {
        let net = network(&net)?;
        if other.contains('/') {
            return Ok(net.contains(&network(&other)?));
        }
        Ok::<_, Error>(net.contains(&address(&other)?))
    });
    env.add_function("ipadd", |ip: String, n: i64| match ip.split_once('/') {
        Some((address_, prefix)) => {
            network(&ip)?;
            Ok::<_, Error>(format!("{}/{prefix}", plus(address(address_)?, n.into())?))
        }
        None => Ok(plus(address(&ip)?, n.into())?.to_string()),
    });
}

fn network(text: &str) -> Result<IpNet, Error> {
    text.parse().map_err(|_| refuse(format!("`{text}` is no network, expected one such as 10.0.0.0/24 or fd00::/64")))
}

fn address(text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| refuse(format!("`{text}` is no IP address")))
}

fn plus(ip: IpAddr, n: i128) -> Result<IpAddr, Error> {
    let beyond = || refuse(format!("{ip} plus {n} is beyond the addresses"));
    Ok(match ip {
        IpAddr::V4(ip) => {
            let sum = i128::from(u32::from(ip)).checked_add(n).and_then(|sum| u32::try_from(sum).ok());
            IpAddr::V4(sum.ok_or_else(beyond)?.into())
        }
        IpAddr::V6(ip) => {
            let start = u128::from(ip);
            let sum = if n < 0 { start.checked_sub(n.unsigned_abs()) } else { start.checked_add(n.unsigned_abs()) };
            IpAddr::V6(sum.ok_or_else(beyond)?.into())
        }
    })
}

/// How many bits an address of the network leaves to hosts.
fn host_bits(net: IpNet) -> u32 {
    u32::from(net.max_prefix_len() - net.prefix_len())
}

fn host(net: IpNet, n: i64) -> Result<IpAddr, Error> {
    let bits = host_bits(net);
    let size = if bits >= 127 { i128::MAX } else { 1i128 << bits };
    let index = i128::from(n);
    if index >= size || -index > size {
        return Err(refuse(format!("{net} has {size} addresses, there is no number {n}")));
    }
    if index >= 0 {
        return plus(net.network(), index);
    }
    // The last address is -1.
    plus(net.broadcast(), index + 1)
}

fn subnet(net: IpNet, bits: u8, n: u64) -> Result<IpNet, Error> {
    let prefix = net.prefix_len().checked_add(bits).filter(|prefix| *prefix <= net.max_prefix_len());
    let prefix = prefix.ok_or_else(|| refuse(format!("{net} cannot be divided by {bits} bits more")))?;
    if bits < 64 && n >> bits != 0 {
        return Err(refuse(format!("{net} has {} subnets of /{prefix}, there is no number {n}", 1u64 << bits)));
    }
    let shift = u32::from(net.max_prefix_len() - prefix);
    let start = match net.network() {
        IpAddr::V4(ip) => {
            let offset = u64::from(u32::from(ip)) + n.checked_shl(shift).unwrap_or(0);
            IpAddr::V4(u32::try_from(offset).map_err(|_| refuse("beyond the addresses"))?.into())
        }
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) | u128::from(n).checked_shl(shift).unwrap_or(0)).into()),
    };
    IpNet::new(start, prefix).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn hosts_and_subnets() {
        for (of, n, expected) in [
            ("10.0.0.0/24", 0, "10.0.0.0"),
            ("10.0.0.7/24", 5, "10.0.0.5"),
            ("10.0.0.0/24", -1, "10.0.0.255"),
            ("10.0.0.0/24", -256, "10.0.0.0"),
            ("fd00::/64", 257, "fd00::101"),
            ("fd00::/64", -2, "fd00::ffff:ffff:ffff:fffe"),
            ("0.0.0.0/0", 1, "0.0.0.1"),
            ("::/0", -1, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("10.0.0.9/32", 0, "10.0.0.9"),
        ] {
            assert_eq!(host(net(of), n).unwrap().to_string(), expected, "{of} {n}");
        }
        for (of, n) in [("10.0.0.0/24", 256), ("10.0.0.0/24", -257), ("10.0.0.9/32", 1)] {
            assert!(host(net(of), n).is_err(), "{of} {n}");
        }
        for (of, bits, n, expected) in [
            ("10.0.0.0/8", 8, 2, "10.2.0.0/16"),
            ("10.1.2.3/16", 4, 15, "10.1.240.0/20"),
            ("fd00::/48", 16, 0xabcd, "fd00:0:0:abcd::/64"),
            ("255.255.255.0/24", 8, 255, "255.255.255.255/32"),
            ("::/0", 128, 7, "::7/128"),
        ] {
            assert_eq!(subnet(net(of), bits, n).unwrap().to_string(), expected, "{of} {bits} {n}");
        }
        for (of, bits, n) in [("10.0.0.0/8", 25, 0), ("10.0.0.0/8", 2, 4), ("fd00::/64", 200, 0)] {
            assert!(subnet(net(of), bits, n).is_err(), "{of} {bits} {n}");
        }
        assert!(plus("255.255.255.255".parse().unwrap(), 1).is_err());
        assert_eq!(plus("fd00::1".parse().unwrap(), -1).unwrap().to_string(), "fd00::");
    }
}
