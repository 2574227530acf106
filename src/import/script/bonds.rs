//! Bonds, from the commands that make and dissolve them.

use std::collections::BTreeSet;

use super::super::bond::refused;
use super::{Space, State, Vm};
use crate::language::grammar::Args;
use crate::language::range;
use crate::live::Facts;

/// A bond of a script.
#[derive(Debug, Clone)]
pub(super) struct Bond {
    /// Its settings, with its name if the script gives one.
    pub facts: Facts,
    /// What it is called.
    name: String,
}

/// The indexes that `0,1` or `0-3` means, each once, in order.
fn indexes(text: &str) -> Result<Vec<String>, String> {
    let number = |part: &str| part.parse::<u8>().map_err(|_| format!("`{part}` is no index of a NIC"));
    let mut found = BTreeSet::new();
    for part in text.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        found.extend(number(low)?..=number(high)?);
    }
    Ok(found.iter().map(u8::to_string).collect())
}

/// The settings that `vm net bond` gives.
fn settings(args: &Args) -> Result<Facts, String> {
    let word = |words: &[&'static str]| words.iter().copied().find(|word| args.flag(word)).map(str::to_owned);
    let given = [
        ("mode", Some(word(&["balance-slb", "balance-tcp"]).unwrap_or("active-backup".to_owned()))),
        ("lacp", word(&["active", "passive"])),
        ("fallback", args.flag("no-lacp-fallback").then(|| "false".to_owned())),
        ("qinq", args.flag("qinq").then(|| "true".to_owned())),
        ("name", args.str("name").map(str::to_owned)),
    ];
    let given = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), vec![value?])));
    let nics = ("nics".to_owned(), indexes(args.str("interface indexes").unwrap_or_default())?);
    Ok(given.chain([nics]).collect())
}

/// Whether one of the bonds has a NIC.
pub(super) fn is_bonded(bonds: &[Bond], nic: &str) -> bool {
    bonds.iter().any(|bond| bond.facts["nics"].iter().any(|other| other == nic))
}

/// A NIC is unplugged, and leaves its bond; false if that is none any more.
pub(super) fn unplug(bonds: &mut Vec<Bond>, nic: &str) -> bool {
    let before = bonds.len();
    for nics in bonds.iter_mut().filter_map(|bond| bond.facts.get_mut("nics")) {
        nics.retain(|other| other != nic);
    }
    bonds.retain(|bond| bond.facts["nics"].len() > 1);
    bonds.len() == before
}

/// Where the NICs of a VM are plugged in: VLAN and bridge.
fn plugged(vm: &Vm) -> Vec<Option<(String, String)>> {
    let nics = vm.config.networks().into_iter().enumerate();
    let at = |(index, nic): (usize, crate::language::netspec::NetSpec)| {
        let bridge = nic.bridge.as_deref().and_then(super::bridge).unwrap_or_default();
        (!vm.cut.contains(&index)).then_some((nic.vlan, bridge))
    };
    nics.map(at).collect()
}

impl Space {
    /// `vm net bond`.
    pub(super) fn bond(&mut self, target: &str, args: &Args) -> Result<(), String> {
        let facts = settings(args)?;
        let mut taken: BTreeSet<String> =
            self.vms.values().flat_map(|vm| &vm.bonds).map(|bond| bond.name.clone()).collect();
        let named = args.str("name");
        if let Some(name) = named.filter(|name| taken.contains(*name)) {
            return Err(format!("there is a bond {name} already"));
        }
        if named.is_some() && target == "all" && self.vms.len() > 1
            || range::expand(target).is_ok_and(|all| named.is_some() && all.len() > 1)
        {
            return Err("several VMs cannot have one bond".to_owned());
        }
        let mut wrong = None;
        self.each(target, |vm| {
            let shared = || facts["nics"].iter().find(|nic| is_bonded(&vm.bonds, nic));
            let why = match vm.state {
                State::Quit => Some("the VM is killed".to_owned()),
                _ => refused(&facts, &plugged(vm)).or_else(|| Some(format!("NIC {} is in a bond", shared()?))),
            };
            if let Some(why) = why {
                wrong.get_or_insert(why);
                return;
            }
            let mut free = (0..).map(|number| format!("mega_bond{number}"));
            let name = named.map(str::to_owned);
            let name = name.or_else(|| free.find(|name| !taken.contains(name))).expect("one is free");
            taken.insert(name.clone());
            vm.bonds.push(Bond { facts: facts.clone(), name });
        })?;
        wrong.map_or(Ok(()), Err)
    }

    /// `clear vm net bond`.
    pub(super) fn clear_bond(&mut self, target: &str, args: &Args) -> Result<(), String> {
        let name = args.str("name");
        let mut found = name.is_none();
        self.each(target, |vm| {
            vm.bonds.retain(|bond| {
                let goes = name.is_none_or(|name| bond.name == name);
                found |= goes;
                !goes
            });
        })?;
        if found { Ok(()) } else { Err(format!("there is no bond {}", name.unwrap_or_default())) }
    }
}
