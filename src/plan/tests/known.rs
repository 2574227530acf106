//! The commands of plans against the help of targets.

use super::*;
use crate::language::help;
use crate::plan::known::lacking;

/// The target's help lists every command of a plan.
#[track_caller]
pub fn assert_known(mm: &Minimega, plan: &Plan) {
    let mut seen = Live::absent();
    for head in heads(plan) {
        crate::live::learn(&mut mm.clone(), &mut seen, &plan.experiment, head).unwrap();
    }
    let problems = lacking(plan, None, &seen.help);
    assert!(problems.is_empty(), "{problems:?}");
}

/// A plan of these commands.
fn of(commands: &[&str]) -> Plan {
    let mm = Minimega::default();
    let mut plan = planned(&mm, &file("experiment: lab\nvlans: { lan: { tag: 301 } }\n"));
    let step = plan.steps[0].clone();
    let line =
        |command: &&str| format!("namespace lab {command}").replace("namespace lab clear namespace", "clear namespace");
    plan.steps = commands.iter().map(|command| Step { command: line(command), ..step.clone() }).collect();
    plan
}

/// Which of these commands a target lacks that answers so to `help`.
fn refused<'c>(commands: &[&'c str], answer: &dyn Fn(&str) -> Option<String>) -> Vec<&'c str> {
    let lacks = |command: &&&str| {
        // Something that everybody has goes along.
        let plan = of(&["vm kill a", command]);
        let help = heads(&plan).into_iter().map(|head| (head, answer(head).unwrap_or_default())).collect();
        let problems = lacking(&plan, None, &help);
        assert!(problems.iter().all(|problem| problem.code == "target-lacks"));
        !problems.is_empty()
    };
    commands.iter().filter(lacks).copied().collect()
}

/// The forms of commands that plans have, by how far they reach: every release, 3.1.0, megaform.
const EVERYWHERE: &[&str] = &[
    "bridge trunk br1 eth1",
    "bridge notrunk br1 eth1",
    "bridge tunnel vxlan br1 10.0.0.2",
    "bridge notunnel br1 mega_tunnel0",
    "clear namespace lab",
    "clear qos web[0-1] 0",
    "clear vlans lan",
    "clear vm tag web role",
    "dnsmasq start 10.0.0.1 10.0.0.10 10.0.0.99",
    "dnsmasq start 10.0.0.1 10.0.0.10 10.0.0.99 /extra",
    "dnsmasq kill 0",
    "dnsmasq configure 0 ip 00:00:00:00:00:01 10.0.0.10",
    "dnsmasq configure 0 dns 10.0.0.10 web.lab",
    "dnsmasq configure 0 options option:router,10.0.0.254",
    "ns add-hosts n1,n2",
    "ns del-hosts n1",
    "ns load memcommit",
    "ns queue",
    "ns flush",
    "ns queueing true",
    "qos add web 0 rate 10 mbit",
    "qos add web 0 delay 10ms",
    "qos add web 0 loss 1",
    "tap create lan name gw",
    "tap create lan ip 10.0.0.1/24 gw",
    "tap create lan dhcp gw",
    "tap create lan bridge br1 name gw",
    "tap create lan bridge br1 ip 10.0.0.1/24 gw",
    "tap create lan bridge br1 dhcp gw",
    "tap delete gw",
    "vlans add lan 301",
    "vlans range 300 400",
    "vlans blacklist 310",
    "vm cdrom change web /a.iso",
    "vm cdrom eject web",
    "vm flush",
    "vm hotplug add web /a.img 1.1",
    "vm hotplug add web /a.img serial x 2.0",
    "vm hotplug remove web 0",
    "vm kill web[0-9]",
    "vm launch",
    "vm launch kvm web[0-9]",
    "vm net connect web 0 lan br1",
    "vm net disconnect web 0",
    "vm start web",
    "vm stop web",
    "vm tag web role \"a b\"",
];
const NEWER: &[&str] = &[
    "bridge tunnel vxlan br1 10.0.0.2 7",
    "bridge config br1 stp_enable=true",
    "bridge destroy br1",
    "clear vm net bond web uplink",
    "dnsmasq configure 0 dns upstream server 10.0.0.53",
    "vm flush web",
    "vm net add web lan,virtio-net-pci lan",
    "vm net bond web 0,1 active-backup off name uplink",
];
const OWN: &[&str] = &[
    "nat add lan 10.0.0.254/24",
    "nat delete lan br1",
    "qos set web 0 rate=10mbit delay=5ms",
    "vm serial web 0 contains login:",
];

#[test]
fn each_target_has_what_its_help_lists() {
    let release = |old: bool, megaform: bool| {
        let release = minimega::network::release::Release { old, megaform, ..Default::default() };
        move |head: &str| release.help(&head.split(' ').collect::<Vec<_>>())
    };
    let all = [EVERYWHERE, NEWER, OWN].concat();
    assert!(all.iter().all(|command| heads(&of(&[command])).len() == 1), "each is asked for");
    let none: [&str; 0] = [];
    assert_eq!(refused(&all, &release(true, false)), [NEWER, OWN].concat());
    assert_eq!(refused(&all, &release(false, false)), OWN);
    assert_eq!(refused(&all, &release(false, true)), none);
    let grammar = crate::commands::grammar(&crate::commands::all());
    assert_eq!(refused(&all, &|head| help::help(&grammar, &[head]).ok()), none);
}

#[test]
fn what_is_not_certain_is_not_refused() {
    let all = [EVERYWHERE, NEWER, OWN].concat();
    let none: [&str; 0] = [];
    // No help at all, or a list without forms, or of other commands.
    assert_eq!(refused(&all, &|_| None), none);
    assert_eq!(refused(&all, &|head| Some(format!("{head}    does something\nother <a> <b>\n"))), none);
    assert_eq!(refused(&all, &|_| Some("vm start  start VMs\nvm kill  end VMs\n".to_owned())), none);
    // Forms with what they do behind them.
    let listed = |forms: &'static str| move |_: &str| Some(forms.to_owned());
    assert_eq!(refused(&["vm kill a"], &listed("vm <kill,> <vm target>    ends VMs <at once>\n")), none);
    assert_eq!(refused(&["vm kill a"], &listed("vm <kill,> <vm target>\tends VMs\n")), none);
    assert_eq!(
        refused(&["vm kill a"], &listed("Usage: vm <kill,>\n\n  vm <kill,> <vm target> <reason>\n")),
        ["vm kill a"]
    );
}

#[test]
fn a_problem_names_the_object_the_form_and_what_to_do() {
    let plan = of(&[&format!("vm kill {}", "x".repeat(100))]);
    let help = [("vm kill", "vm <kill,> <vm target> <reason>\n".to_owned())].into();
    let problems = lacking(&plan, None, &help);
    let problem = problems.first().unwrap();
    let shown = format!("vm kill {}", "x".repeat(52));
    assert_eq!(problem.message, format!("vlan.lan takes `{shown} …`, which the target does not have"));
    assert!(
        problem.hint.as_ref().unwrap().starts_with("its `help vm kill` lists no such form: take this out of the file")
    );
}
