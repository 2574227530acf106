//! Single values: numbers, memory, truth, text, tags, addresses, paths.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::name::VlanTag;
use crate::spec::syntax::{Node, Value};
use crate::spec::{beside, shown};

impl Decoder<'_> {
    fn invalid(&mut self, span: Span, message: String, hint: &str) {
        self.push(Diagnostic::error("invalid-value", span, message).hint(hint));
    }

    /// A whole number within a range that has no negative ones.
    pub(super) fn uint(&mut self, node: &Node, at: At<'_>, min: u64, max: u64) -> Option<u64> {
        self.int(node, at, min, max)
    }

    /// A whole number within a range.
    pub(super) fn int<N>(&mut self, node: &Node, at: At<'_>, min: N, max: N) -> Option<N>
    where
        N: TryFrom<i128> + PartialOrd + std::fmt::Display + Copy,
    {
        let written = self.written(node).into_owned();
        match &node.value {
            Value::Int(_) if ambiguous_octal(&written) => {
                self.invalid(
                    node.span,
                    format!(
                        "{at} is `{}`, which reads as octal in YAML 1.1 and as decimal in YAML 1.2",
                        shown(&written)
                    ),
                    "write the number without a leading zero",
                );
                None
            }
            Value::Int(number) => {
                let fits = N::try_from(*number).ok().filter(|n| (min..=max).contains(n));
                if fits.is_none() {
                    let message = format!("{at} is {number}, expected a whole number from {min} to {max}");
                    self.push(Diagnostic::error("out-of-range", node.span, message).hint(RANGE_HINT));
                }
                fits
            }
            Value::Float(_) => {
                let message = format!("{at} is `{}`, expected a whole number from {min} to {max}", shown(&written));
                self.push(Diagnostic::error("out-of-range", node.span, message).hint(RANGE_HINT));
                None
            }
            Value::String(text) if text.trim().parse::<i128>().is_ok() => {
                self.invalid(
                    node.span,
                    format!("{at} is the text `{}`, expected a whole number", shown(text)),
                    "write the number without quotes",
                );
                None
            }
            Value::String(text) => {
                let message = format!("{at} is `{}`, expected a whole number from {min} to {max}", shown(text));
                self.push(Diagnostic::error("invalid-value", node.span, message).hint("write the number in digits"));
                None
            }
            _ => {
                self.wrong_type(node, at, &format!("a whole number from {min} to {max}"), false);
                None
            }
        }
    }

    /// Memory in megabytes of 2^20 bytes, as minimega counts them.
    pub(super) fn memory(&mut self, node: &Node, at: At<'_>, min: u64, max: u64) -> Option<u64> {
        let Value::String(text) = &node.value else { return self.uint(node, at, min, max) };
        let hint = "write megabytes as a number, or a unit: 512, \"512MB\", \"2GiB\"";
        match megabytes(text) {
            Ok(number) if (u128::from(min)..=u128::from(max)).contains(&number) => u64::try_from(number).ok(),
            Ok(number) => {
                let message = format!("{at} is `{}`, that is {number} MB, expected {min} to {max} MB", shown(text));
                self.push(Diagnostic::error("out-of-range", node.span, message).hint(RANGE_HINT));
                None
            }
            Err(MemoryError::Fraction) => {
                self.invalid(
                    node.span,
                    format!("{at} is `{}`, which is not a whole number of megabytes (2^20 bytes)", shown(text)),
                    hint,
                );
                None
            }
            Err(MemoryError::Form) => {
                self.invalid(node.span, format!("{at} is `{}`, expected an amount of memory", shown(text)), hint);
                None
            }
        }
    }

    pub(super) fn bool(&mut self, node: &Node, at: At<'_>) -> Option<bool> {
        match &node.value {
            Value::Bool(truth) => Some(*truth),
            Value::String(text) => {
                let hint = match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "y" => "write true, without quotes",
                    "false" | "no" | "off" | "n" => "write false, without quotes",
                    _ => "write true or false",
                };
                self.invalid(node.span, format!("{at} is `{}`, expected true or false", shown(text)), hint);
                None
            }
            _ => {
                self.wrong_type(node, at, "true or false", false);
                None
            }
        }
    }

    /// A scalar as the text that stands for it: what a word of a command line or the value of a tag may be.
    pub(super) fn word(&mut self, node: &Node, at: At<'_>) -> Option<String> {
        let text = match &node.value {
            Value::String(text) => text.to_string(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Date => self.written(node).into_owned(),
            _ => {
                self.wrong_type(node, at, "text", false);
                return None;
            }
        };
        self.carried(&text, node.span, at).then_some(text)
    }

    /// Text. A number is taken where its spelling is the only one (486), and otherwise to be quoted (1e3, 0x10).
    pub(super) fn text(&mut self, node: &Node, at: At<'_>) -> Option<String> {
        let text = match &node.value {
            Value::String(text) => text.to_string(),
            Value::Int(number) if number.to_string() == self.written(node) => number.to_string(),
            _ => {
                self.wrong_type(node, at, "text", true);
                return None;
            }
        };
        self.carried(&text, node.span, at).then_some(text)
    }

    /// Can the command language carry the text as one argument? Reports it if not.
    pub(super) fn carried(&mut self, text: &str, span: Span, at: At<'_>) -> bool {
        let (reason, hint) = if let Some(character) = text.chars().find(|c| c.is_control()) {
            (format!("the control character {character:?}, which a command cannot carry"), "remove it")
        } else if text.contains('$') {
            (
                "`$`, which minimega expands as a variable of the daemon's environment, even inside quotes".to_owned(),
                "write the value itself instead of a variable",
            )
        } else if let Some(prefix) = ["file:", "http:", "https:", "tar:"].iter().find(|p| text.starts_with(**p)) {
            (
                format!("`{prefix}` at its beginning, which minimega takes as something to fetch"),
                "give the path of the file itself",
            )
        } else {
            return true;
        };
        self.push_once(Diagnostic::error("not-carried", span, format!("{at} has {reason}")).hint(hint));
        false
    }

    /// A path: made absolute if it names a file beside the experiment file, otherwise as it is written.
    pub(super) fn path(&mut self, text: String, span: Span, at: At<'_>) -> Option<String> {
        if text.starts_with('/') {
            return Some(text);
        }
        let relative = beside(self.folders.get(&span.source).map_or("", String::as_str), &text);
        let resolved = match self.resolved.get(&relative) {
            Some(resolved) => resolved.clone(),
            None => {
                let resolved = self.files.resolve(&relative);
                self.resolved.insert(relative, resolved.clone());
                resolved
            }
        };
        match resolved {
            Some(path) => self.carried(&path, span, at).then_some(path),
            None => {
                if text.starts_with("./") || text.starts_with("../") {
                    self.push_once(
                        Diagnostic::warning(
                            "missing-file",
                            span,
                            format!("{at} is `{}`, and there is no such file beside the experiment file", shown(&text)),
                        )
                        .hint("the path is sent as it is written, and the engine looks for it in its files folder"),
                    );
                }
                Some(text)
            }
        }
    }

    /// A fixed tag, 1 to 4094 (IEEE 802.1Q: 0 and 4095 are reserved).
    pub(super) fn tag(&mut self, node: &Node, at: At<'_>) -> Option<Spanned<VlanTag>> {
        let tag = self.uint(node, at, 1, 4094)?;
        VlanTag::new(tag).map(|tag| Spanned::new(tag, node.span))
    }

    pub(super) fn vlan_range(&mut self, node: &Node, at: At<'_>) -> Option<Spanned<(VlanTag, VlanTag)>> {
        let hint = "write `\"300-400\"` or `[300, 400]`, both from 1 to 4094";
        let (low, high) = match &node.value {
            Value::List(list) => {
                let [low, high] = list.as_slice() else {
                    self.invalid(node.span, format!("{at} has {} elements, expected two tags", list.len()), hint);
                    return None;
                };
                let (low, high) = (self.tag(low, at), self.tag(high, at));
                (low?.value, high?.value)
            }
            Value::String(text) => {
                let tag =
                    |text: &str| text.trim().parse().ok().filter(|n| (1..=4094).contains(n)).and_then(VlanTag::new);
                let Some((low, high)) = text.split_once('-').and_then(|(l, h)| tag(l).zip(tag(h))) else {
                    self.invalid(node.span, format!("{at} is `{}`, expected a range of tags", shown(text)), hint);
                    return None;
                };
                (low, high)
            }
            _ => {
                self.wrong_type(node, at, "a range of tags such as \"300-400\"", false);
                return None;
            }
        };
        if low > high {
            self.invalid(node.span, format!("{at} begins at {low} and ends at {high}"), "put the smaller tag first");
            return None;
        }
        Some(Spanned::new((low, high), node.span))
    }

    /// Tags and ranges of tags, each tag with the place that first says it.
    pub(super) fn vlan_blacklist(&mut self, node: &Node, at: At<'_>) -> BTreeMap<VlanTag, Span> {
        let items = match &node.value {
            Value::List(list) => list.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut tags = BTreeMap::new();
        for item in items {
            let range = match &item.value {
                Value::String(_) => self.vlan_range(item, at).map(|range| range.value),
                _ => self.tag(item, at).map(|tag| (tag.value, tag.value)),
            };
            let Some((low, high)) = range else { continue };
            for tag in (low.get()..=high.get()).filter_map(|tag| VlanTag::new(u64::from(tag))) {
                tags.entry(tag).or_insert(item.span);
            }
        }
        tags
    }

    /// An interface's address with its prefix length.
    pub(super) fn ip(&mut self, node: &Node, at: At<'_>) -> Option<Spanned<(IpAddr, u8)>> {
        let Value::String(text) = &node.value else {
            self.wrong_type(node, at, "an address with prefix length such as 10.0.0.254/24", true);
            return None;
        };
        let form = "write address and prefix length, as in 10.0.0.254/24 or fd00::1/64";
        let Some((address, prefix)) = text.split_once('/') else {
            let length = if text.contains(':') { 64 } else { 24 };
            let (message, hint) = if text.parse::<IpAddr>().is_ok() {
                (
                    format!("{at} is `{}`, without a prefix length", shown(text)),
                    format!("write {}/{length}", shown(text)),
                )
            } else {
                (format!("{at} is `{}`, expected an address with prefix length", shown(text)), form.to_owned())
            };
            self.invalid(node.span, message, &hint);
            return None;
        };
        let parsed = address.parse::<IpAddr>().ok().zip(prefix.parse::<u8>().ok().filter(|_| !prefix.starts_with('+')));
        let Some((address, prefix)) = parsed else {
            self.invalid(node.span, format!("{at} is `{}`, expected an address with prefix length", shown(text)), form);
            return None;
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > bits {
            let message = format!("{at} has the prefix length {prefix}, expected 1 to {bits}");
            self.push(Diagnostic::error("out-of-range", node.span, message).hint(RANGE_HINT));
            return None;
        }
        let network = ipnet::IpNet::new(address, prefix).expect("the prefix length was checked");
        let unusable = if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            Some("which no interface on a VLAN can have")
        } else if prefix < bits - 1 && address == network.network() {
            Some("the address of the network itself")
        } else if address.is_ipv4() && prefix < bits - 1 && address == network.broadcast() {
            Some("the broadcast address of the network")
        } else {
            None
        };
        if let Some(why) = unusable {
            self.invalid(node.span, format!("{at} is `{}`, {why}", shown(text)), "choose the address of a host");
            return None;
        }
        Some(Spanned::new((address, prefix), node.span))
    }
}

const RANGE_HINT: &str = "choose a value within the range";

/// A decimal number with a leading zero.
fn ambiguous_octal(written: &str) -> bool {
    let digits = written.strip_prefix(['-', '+']).unwrap_or(written);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

#[derive(Debug, PartialEq, Eq)]
enum MemoryError {
    Form,
    Fraction,
}

/// An amount of memory in megabytes. KB, MB, GB and TB mean powers of 1024 here, like KiB, MiB, GiB and TiB, because
/// minimega's megabyte is 2^20 bytes.
fn megabytes(text: &str) -> Result<u128, MemoryError> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim().to_ascii_lowercase());
    let kilobytes: u128 = match unit.as_str() {
        "k" | "kb" | "kib" => 1,
        "" | "m" | "mb" | "mib" => 1 << 10,
        "g" | "gb" | "gib" => 1 << 20,
        "t" | "tb" | "tib" => 1 << 30,
        _ => return Err(MemoryError::Form),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |t: &str| !t.is_empty() && t.len() <= 12 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(MemoryError::Form);
    }
    let parse = |t: &str| t.parse::<u128>().map_err(|_| MemoryError::Form);
    let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| MemoryError::Form)?);
    // At most 12 + 12 digits times 2^30: fits.
    let scaled = (parse(whole)? * scale + parse(fraction)?) * kilobytes;
    if !scaled.is_multiple_of(scale << 10) {
        return Err(MemoryError::Fraction);
    }
    Ok(scaled / (scale << 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_units() {
        for (text, expected) in [
            ("256", 256),
            ("256MB", 256),
            ("1GB", 1024),
            ("1GiB", 1024),
            ("512 MiB", 512),
            ("512M", 512),
            ("2G", 2048),
            ("1.5g", 1536),
            ("2048K", 2),
            ("1T", 1 << 20),
        ] {
            assert_eq!(megabytes(text), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("", MemoryError::Form),
            ("G", MemoryError::Form),
            ("1.G", MemoryError::Form),
            ("-1G", MemoryError::Form),
            ("1 PB", MemoryError::Form),
            ("1e3", MemoryError::Form),
            ("1000K", MemoryError::Fraction),
            ("0.3M", MemoryError::Fraction),
        ] {
            assert_eq!(megabytes(text), Err(expected), "{text}");
        }
        assert!(megabytes("999999999999999999.999999999999999999T").is_err());
    }
}
