//! What the daemon can tell of itself: threads, tasks and memory, from procfs (proc(5)), the runtime and the allocator.

use std::fmt::Write as _;
use std::path::Path;

use tokio::runtime::Handle;

/// Figures of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Threads.
    pub threads: usize,
    /// Tasks of the runtime that are alive.
    pub tasks: usize,
    /// Resident memory in kB.
    pub memory: usize,
    /// Open file descriptors.
    pub descriptors: usize,
}

fn read(path: impl AsRef<Path>) -> String {
    // What the kernel does not show is left out.
    std::fs::read_to_string(path).unwrap_or_default()
}

fn entries(path: &str) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

/// The figures of this moment. Inside the runtime only.
pub fn figures() -> Figures {
    let status = read("/proc/self/status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    Figures {
        threads: entries("/proc/self/task"),
        tasks: Handle::current().metrics().num_alive_tasks(),
        memory: resident.unwrap_or(0),
        descriptors: entries("/proc/self/fd"),
    }
}

/// What the memory is used for.
pub fn memory() -> String {
    let mut text = String::new();
    for file in ["status", "smaps_rollup"] {
        let content = read(format!("/proc/self/{file}"));
        writeln!(text, "# /proc/self/{file}\n{content}").expect("a String takes every text");
    }
    match crate::host::linux::memory::account() {
        Some(account) => text.push_str(&format!("# malloc_info\n{account}")),
        None => text.push_str("# this C library has no malloc_info\n"),
    }
    text
}

/// What the threads do. Inside the runtime only.
pub fn threads() -> String {
    let metrics = Handle::current().metrics();
    let mut text = format!(
        "# tasks\nalive {}\nworker threads {}\nwaiting for a worker {}\n\n# threads\n",
        metrics.num_alive_tasks(),
        metrics.num_workers(),
        metrics.global_queue_depth()
    );
    let mut ids: Vec<u32> = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    for id in ids {
        let file = |name: &str| read(format!("/proc/self/task/{id}/{name}"));
        let status = file("status");
        let field = |key: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            found.map_or_else(|| "?".to_owned(), |value| value.trim().to_owned())
        };
        let waits = file("wchan");
        let waits = if waits.is_empty() || waits == "0" { "-" } else { waits.as_str() };
        writeln!(
            text,
            "{id} {:?} state {}, waits in {waits}, system call {}",
            field("Name"),
            field("State"),
            file("syscall").trim()
        )
        .expect("a String takes every text");
        for line in file("stack").lines() {
            writeln!(text, "    {line}").expect("a String takes every text");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_says_is_of_this_process() {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let before = figures();
        let task = tokio::spawn(stopped);
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let after = figures();
        // Other tests open and close files meanwhile, so only tasks, which are this runtime's, are counted exactly.
        assert_eq!(after.tasks, before.tasks + 1);
        assert!(after.threads >= 1 && after.memory > 100 && after.descriptors > 3, "{after:?}");
        drop((stop, file));
        let _ = task.await;
        assert!(memory().contains("VmRSS:"));
        #[cfg(target_env = "gnu")]
        assert!(memory().contains("<malloc version="), "{}", memory());
        assert!(threads().lines().any(|line| line.starts_with(&std::process::id().to_string())), "{}", threads());
    }
}
