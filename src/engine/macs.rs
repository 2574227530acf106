//! Addresses for NICs that are not given one: a function of namespace, VM and NIC, so that a VM that is launched again
//! keeps them (and with them its leases and its neighbours' caches).

use sha2::{Digest, Sha256};

use crate::name::{Mac, Namespace, VmName};

/// The address of a NIC: locally administered, unicast (IEEE 802: the two low bits of the first octet are 10), its other
/// 40 bits from a hash. `attempt` counts up while the address is taken.
pub fn assign(namespace: &Namespace, vm: &VmName, index: usize, attempt: u32) -> Mac {
    let digest = Sha256::digest(format!("{namespace}/{vm}/{index}/{attempt}"));
    Mac::from_octets([0x02, digest[0], digest[1], digest[2], digest[3], digest[4]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_and_distinct() {
        let (ns, vm) = (Namespace::new("lab").unwrap(), VmName::new("web0").unwrap());
        assert_eq!(assign(&ns, &vm, 0, 0), assign(&ns, &vm, 0, 0));
        assert_ne!(assign(&ns, &vm, 0, 0), assign(&ns, &vm, 1, 0));
        assert_ne!(assign(&ns, &vm, 0, 0), assign(&ns, &vm, 0, 1));
        assert!(assign(&ns, &vm, 0, 0).to_string().parse::<Mac>().is_ok());
    }
}
