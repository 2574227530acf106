//! The guest's words on the kernel command line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// What the command line asks for. Words of the kernel and of others are passed over.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Addresses with prefix lengths, by the number of the NIC.
    pub addresses: BTreeMap<usize, Vec<(IpAddr, u8)>>,
    /// When to power off, counted from the start of init.
    pub poweroff: Option<Duration>,
    /// One line for each word that is the guest's but cannot be read.
    pub problems: Vec<String>,
}

impl Options {
    /// Read the text of `/proc/cmdline`.
    pub fn parse(command_line: &str) -> Self {
        let mut options = Self::default();
        for word in command_line.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else { continue };
            if let Some(number) = key.strip_prefix("ip.") {
                match (number.parse(), address(value)) {
                    (Ok(nic), Some(address)) => options.addresses.entry(nic).or_default().push(address),
                    _ => options.problems.push(format!("{word}: expected ip.N=ADDRESS/PREFIX")),
                }
            } else if key == "poweroff" {
                match value.parse() {
                    Ok(seconds) => options.poweroff = Some(Duration::from_secs(seconds)),
                    Err(_) => options.problems.push(format!("{word}: expected poweroff=SECONDS")),
                }
            }
        }
        options
    }
}

/// Read `ADDRESS/PREFIX`.
fn address(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_guest_are_read_and_others_passed_over() {
        let options = Options::parse(
            "console=ttyS0 quiet ip=dhcp ip.0=10.0.0.1/24 ip.2=fd00::1/64 ip.2=10.2.0.1/16 poweroff=3 -- x.y=z\n",
        );
        let expected = BTreeMap::from([
            (0, vec![("10.0.0.1".parse().unwrap(), 24)]),
            (2, vec![("fd00::1".parse().unwrap(), 64), ("10.2.0.1".parse().unwrap(), 16)]),
        ]);
        assert_eq!(options, Options { addresses: expected, poweroff: Some(Duration::from_secs(3)), problems: vec![] });
    }

    #[test]
    fn words_that_cannot_be_read_are_named() {
        for word in ["ip.0=10.0.0.1", "ip.x=10.0.0.1/24", "ip.0=10.0.0.1/33", "ip.0=fd00::1/129", "poweroff=soon"] {
            let options = Options::parse(word);
            assert_eq!(options.problems.len(), 1, "{word}");
            assert!(options.problems[0].starts_with(word));
            assert!(options.addresses.is_empty() && options.poweroff.is_none());
        }
    }
}
