//! `host`

use serde_json::json;

use crate::engine::{HostStats, go_duration};
use crate::language::declaration::Declaration;

use super::{Answer, Command};

const COLUMNS: &[&str] = &[
    "cpus",
    "load",
    "memused",
    "memtotal",
    "rx",
    "tx",
    "vms",
    "vmlimit",
    "androidvms",
    "cpucommit",
    "memcommit",
    "netcommit",
    "uptime",
];

/// The number of other VMs that a VM of this host allows, at most; minimega writes -1 where none sets a limit.
fn limit(stats: &HostStats) -> i64 {
    stats.vm_limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(-1)
}

fn cell(stats: &HostStats, host: &str, column: &str) -> String {
    let megabytes = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    match column {
        "cpus" => stats.cpus.to_string(),
        "load" => stats.load.clone(),
        "memused" => stats.memory_used.to_string(),
        "memtotal" => stats.memory.to_string(),
        "rx" => megabytes(stats.received),
        "tx" => megabytes(stats.sent),
        "vms" => stats.vms.to_string(),
        "vmlimit" => limit(stats).to_string(),
        // There are no Android VMs in this engine.
        "androidvms" => "0".to_owned(),
        "cpucommit" => stats.cpu_commit.to_string(),
        "memcommit" => stats.memory_commit.to_string(),
        "netcommit" => stats.network_commit.to_string(),
        "uptime" => go_duration(stats.uptime),
        _ => host.to_owned(),
    }
}

pub(super) fn commands() -> Vec<Command> {
    let mut declaration = Declaration::new(
        "host",
        &["host"],
        "show the host's load and what VMs are committed to it",
        "Without an argument, a table; with one, that figure alone: cpus, load (averages of 1, 5 and 15 minutes), memused and \
         memtotal (MB), rx and tx (MB/s over a quarter of a second, all interfaces that the daemon sees), vms, vmlimit (how many \
         others the VM with the smallest `vm config coschedule` allows, -1 where none has a limit), cpucommit \
         (virtual CPUs of VMs that run), memcommit (their memory, MB), netcommit (their NICs), uptime, name. VMs of all \
         namespaces count.",
    )
    .columns(COLUMNS);
    let words = COLUMNS.iter().chain(&["name"]);
    declaration.patterns.extend(words.clone().map(|word| format!("host <{word},>").into()));
    vec![Command::new(declaration, move |call| async move {
        let engine = call.engine();
        let stats = engine.host_stats().await;
        let data = json!({
            "Name": engine.host(),
            "RxBps": stats.received,
            "TxBps": stats.sent,
            "CPUs": stats.cpus,
            "MemTotal": stats.memory,
            "MemUsed": stats.memory_used,
            "VMs": stats.vms,
            "AndroidVMs": 0,
            "Limit": limit(&stats),
            "CPUCommit": stats.cpu_commit,
            "MemCommit": stats.memory_commit,
            "NetworkCommit": stats.network_commit,
            "Load": stats.load,
            "Uptime": u64::try_from(stats.uptime.as_nanos()).unwrap_or(u64::MAX),
        });
        let answer = match COLUMNS.iter().chain(&["name"]).find(|word| call.args.flag(word)) {
            Some(word) => Answer::text(cell(&stats, engine.host(), word)),
            None => {
                let row = COLUMNS.iter().map(|column| cell(&stats, engine.host(), column)).collect();
                Answer::table(COLUMNS, vec![row])
            }
        };
        Ok(Answer { data, ..answer })
    })]
}
