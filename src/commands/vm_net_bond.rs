//! `vm net bond` and `clear vm net bond`

use crate::engine::{BondMode, BondRequest, EngineError, Lacp};
use crate::language::declaration::Declaration;
use crate::name::TapName;

use super::{Answer, Call, Command};

async fn bond(call: Call) -> Result<Answer, EngineError> {
    let modes = [
        ("active-backup", BondMode::ActiveBackup),
        ("balance-slb", BondMode::BalanceSlb),
        ("balance-tcp", BondMode::BalanceTcp),
    ];
    let lacp = [("active", Lacp::Active), ("passive", Lacp::Passive), ("off", Lacp::Off)];
    let request = BondRequest {
        interfaces: call.required("interface indexes").to_owned(),
        mode: modes.into_iter().find(|(word, _)| call.args.flag(word)).expect("the pattern has a mode").1,
        lacp: lacp.into_iter().find(|(word, _)| call.args.flag(word)).expect("the pattern has a part in LACP").1,
        fallback: !call.args.flag("no-lacp-fallback"),
        name: call.args.str("name").map(TapName::new).transpose().map_err(|error| error.of("bond"))?,
        qinq: call.args.flag("qinq"),
    };
    call.engine().bond_nics(&call.namespace, call.required("vm target"), &request).await?;
    Ok(Answer::done())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "vm net bond",
                &[
                    "vm net <bond,> <vm target> <interface indexes> <active-backup,balance-slb,balance-tcp> <active,passive,off> [qinq,]",
                    "vm net <bond,> <vm target> <interface indexes> <active-backup,balance-slb,balance-tcp> <active,passive,off> name <name> [qinq,]",
                    "vm net <bond,> <vm target> <interface indexes> <active-backup,balance-slb,balance-tcp> <active,passive> <no-lacp-fallback,> [qinq,]",
                    "vm net <bond,> <vm target> <interface indexes> <active-backup,balance-slb,balance-tcp> <active,passive> <no-lacp-fallback,> name <name> [qinq,]",
                ],
                "bond NICs",
                "Makes one port of several NICs of running VMs, which are on one VLAN. NICs are counted from 0, in the order of \
                 `vm info`: 0,1 or 0-3. Needs the switch openvswitch.\n\n\
                 active-backup uses one NIC at a time, balance-slb spreads by source address and VLAN, balance-tcp by connection. \
                 active and passive are the switch's part in LACP: it begins, or answers only. While the guest does not \
                 negotiate the bond works as active-backup, unless no-lacp-fallback says that it then carries nothing. off is \
                 no LACP, which balance-tcp cannot do without. The default name is the next free mega_bondN. With qinq, frames \
                 keep the guest's own VLAN tags and get the NICs' VLAN as the outer one (802.1ad).\n\n\
                 \x20   vm net bond web0 0,1 active-backup off\n    vm net bond web0 0-1 balance-tcp active name uplink",
            ),
            bond,
        ),
        Command::new(
            Declaration::new(
                "clear vm net bond",
                &["clear vm net bond <vm target> [name]"],
                "dissolve bonds",
                "Makes the NICs of a bond, or of all bonds of the VMs, single ports again.\n\n    clear vm net bond web0",
            ),
            |call| async move {
                call.engine().clear_bonds(&call.namespace, call.required("vm target"), call.args.str("name")).await?;
                Ok(Answer::done())
            },
        ),
    ]
}
