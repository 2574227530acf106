//! `dnsmasq` and `dnsmasq configure`

use crate::engine::{DnsmasqChange, DnsmasqList, EngineError};
use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["id", "address", "min", "max", "path", "pid"];

async fn dnsmasq(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    if let Some(id) = call.args.str("id or all") {
        engine.kill_dnsmasq(namespace, Some(id).filter(|id| *id != "all")).await?;
        return Ok(Answer::done());
    }
    let config = call.args.str("config");
    if let Some(listen) = call.args.str("listen address") {
        let range = [listen, call.required("low dhcp range"), call.required("high dhcp range")];
        engine.start_dnsmasq(namespace, Some(range), config).await?;
        return Ok(Answer::done());
    }
    if config.is_some() {
        engine.start_dnsmasq(namespace, None, config).await?;
        return Ok(Answer::done());
    }
    let rows = engine.dnsmasq(namespace).into_iter().map(|server| {
        let addresses = server.listen.map_or_else(Default::default, |listen| listen.map(|address| address.to_string()));
        let pid = match server.ended {
            None => server.pid.to_string(),
            Some(how) => format!("ended: {how}"),
        };
        let mut row = vec![server.id.to_string()];
        row.extend(addresses);
        row.extend([server.folder.display().to_string(), pid]);
        row
    });
    Ok(Answer { empty_list: true, ..Answer::table(COLUMNS, rows.collect()) })
}

async fn configure(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace, id) = (call.engine(), &call.namespace, call.required("ID"));
    let (list, columns): (_, &[&str]) = if call.args.flag("ip") {
        (DnsmasqList::Leases, &["id", "mac", "ip"])
    } else if call.args.flag("options") {
        (DnsmasqList::Options, &["id", "option"])
    } else if call.args.flag("upstream") {
        (DnsmasqList::Upstream, &["id", "server"])
    } else {
        (DnsmasqList::Names, &["id", "ip", "hostname"])
    };
    let change = match list {
        DnsmasqList::Leases => call.args.str("mac address").map(|mac| DnsmasqChange::Lease(mac, call.required("ip"))),
        DnsmasqList::Names => call.args.str("hostname").map(|name| DnsmasqChange::Name(call.required("ip"), name)),
        DnsmasqList::Upstream => call.args.str("ip").map(DnsmasqChange::Upstream),
        DnsmasqList::Options => call.args.str("optionstring").map(DnsmasqChange::Option),
    };
    if let Some(change) = change {
        engine.configure_dnsmasq(namespace, id, change).await?;
        return Ok(Answer::done());
    }
    let (id, rows) = engine.dnsmasq_list(namespace, id, list)?;
    let rows = rows.into_iter().map(|row| std::iter::once(id.to_string()).chain(row).collect()).collect();
    Ok(Answer { empty_list: true, ..Answer::table(columns, rows) })
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "dnsmasq",
                &[
                    "dnsmasq",
                    "dnsmasq start <listen address> <low dhcp range> <high dhcp range> [config]",
                    "dnsmasq start <config>",
                    "dnsmasq kill <id or all>",
                ],
                "show, start or end DHCP and DNS servers",
                "Servers are dnsmasq processes in the engine's network namespace. Without arguments, lists those of the \
                 namespace: where each listens, the range of its DHCP addresses, its folder and its pid; the pid of one that \
                 has ended says so. They outlive the daemon, and go with `dnsmasq kill` or their namespace.\n\n\
                 start: serves DHCP and DNS on a host tap of this namespace. The listen address must be that of a tap, and \
                 the range must lie in its network. Guests get the listen address as router and as DNS server unless \
                 `dnsmasq configure ID options` says otherwise. The full path of a configuration file for dnsmasq can \
                 follow, or stand alone. Nothing of the host is served: neither its DNS servers nor its hosts file.\n\
                 kill: ends a server, or all of the namespace, and forgets its leases.\n\n\
                 \x20   tap create dmz ip 10.0.0.1/24\n    dnsmasq start 10.0.0.1 10.0.0.100 10.0.0.200",
            )
            .columns(COLUMNS)
            .complete("config", Completion::Path),
            dnsmasq,
        ),
        Command::new(
            Declaration::new(
                "dnsmasq configure",
                &[
                    "dnsmasq configure <ID> <ip,>",
                    "dnsmasq configure <ID> <ip,> <mac address> <ip>",
                    "dnsmasq configure <ID> <dns,>",
                    "dnsmasq configure <ID> <dns,> <ip> <hostname>",
                    "dnsmasq configure <ID> <dns,> <upstream,>",
                    "dnsmasq configure <ID> <dns,> <upstream,> server <ip>",
                    "dnsmasq configure <ID> <options,>",
                    "dnsmasq configure <ID> <options,> <optionstring>",
                ],
                "show or extend what a DHCP and DNS server knows",
                "Changes a server while it serves; leases stay. Without values, lists. The ID is its number or its \
                 listen address.\n\n\
                 ip: the address that a MAC address gets. It need not be in the range. The same MAC address again gets the \
                 new one.\n\
                 dns: an address for a name; a name can have several.\n\
                 dns upstream: the servers that are asked for other names. At first there are none. They are asked from the \
                 engine's network namespace.\n\
                 options: DHCP options as dnsmasq's --dhcp-option takes them.\n\n\
                 \x20   dnsmasq configure 0 ip 52:54:00:12:34:56 10.0.0.10\n    dnsmasq configure 0 dns 10.0.0.10 web.lab\n\
                 \x20   dnsmasq configure 0 options option:router,10.0.0.254",
            ),
            configure,
        ),
    ]
}
