//! What `host` reports of the machine, from procfs (proc(5)), and of the VMs on it.

use std::time::Duration;

use super::Engine;

/// How long traffic is watched to tell its rate.
const WATCH: Duration = Duration::from_millis(250);

/// Bytes per megabyte, as minimega counts.
const MEGABYTE: u64 = 1 << 20;

/// The machine and the VMs on it.
#[derive(Debug, Clone, PartialEq)]
pub struct HostStats {
    /// Processors.
    pub cpus: usize,
    /// The load averages of 1, 5 and 15 minutes.
    pub load: String,
    /// Memory in use, in MB.
    pub memory_used: u64,
    /// Memory, in MB.
    pub memory: u64,
    /// Received by all interfaces of the daemon's network namespace, in bytes per second.
    pub received: f64,
    /// Sent by them, in bytes per second.
    pub sent: f64,
    /// VMs that have a QEMU.
    pub vms: usize,
    /// How many other VMs the one that allows the fewest allows; None where none sets a limit.
    pub vm_limit: Option<u64>,
    /// Their virtual CPUs.
    pub cpu_commit: u64,
    /// Their memory, in MB.
    pub memory_commit: u64,
    /// Their NICs.
    pub network_commit: usize,
    /// How long the machine runs.
    pub uptime: Duration,
}

fn read(path: &str) -> String {
    // procfs is there wherever this engine runs; a part that is not leaves its figures at 0.
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A figure of /proc/meminfo, in kB.
fn memory(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Bytes received and sent by all interfaces but the loopback one, from /proc/net/dev.
fn traffic(text: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for (name, figures) in text.lines().filter_map(|line| line.split_once(':')) {
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        if name.trim() != "lo" && figures.len() >= 9 {
            sum = (sum.0 + figures[0], sum.1 + figures[8]);
        }
    }
    sum
}

/// Processors, and memory in MB.
pub(super) fn capacity() -> (u64, u64) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (cpus as u64, memory(&read("/proc/meminfo"), "MemTotal") * 1024 / MEGABYTE)
}

impl Engine {
    /// Look at the machine. Takes a quarter of a second, for the rates.
    pub async fn host_stats(&self) -> HostStats {
        let before = traffic(&read("/proc/net/dev"));
        tokio::time::sleep(WATCH).await;
        let after = traffic(&read("/proc/net/dev"));
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / WATCH.as_secs_f64();
        let meminfo = read("/proc/meminfo");
        let total = memory(&meminfo, "MemTotal") * 1024 / MEGABYTE;
        let free = memory(&meminfo, "MemAvailable") * 1024 / MEGABYTE;
        let uptime = read("/proc/uptime").split_whitespace().next().and_then(|t| t.parse().ok()).unwrap_or(0.0);
        let mut stats = HostStats {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: read("/proc/loadavg").split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            memory_used: total.saturating_sub(free),
            memory: total,
            received: rate(before.0, after.0),
            sent: rate(before.1, after.1),
            vms: 0,
            vm_limit: None,
            cpu_commit: 0,
            memory_commit: 0,
            network_commit: 0,
            uptime: Duration::from_secs_f64(uptime),
        };
        for vm in self.all_vms() {
            let live = vm.live();
            if live.state.has_process() {
                stats.vms += 1;
                stats.vm_limit = stats.vm_limit.into_iter().chain(super::queue::limit(&vm.config)).min();
                stats.cpu_commit += vm.config.uint("vcpus");
                stats.memory_commit += vm.config.uint("memory");
                stats.network_commit += live.nics.len();
            }
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procfs_is_read_by_its_own_words() {
        assert_eq!(memory("MemTotal:       24684236 kB\nMemFree: 1 kB\n", "MemTotal"), 24_684_236);
        let text = "Inter-|   Receive                                                |  Transmit\n face |bytes\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n  eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (101, 72));
    }
}
