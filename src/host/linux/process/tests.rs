//! Real processes, all of them ended by the tests that started them.

use super::*;
use crate::host::linux::testing::root;
use crate::host::linux::{LinuxNetwork, run_in};
use crate::host::{Network, NetworkPlace};

/// A folder to start processes in.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn shell(&self, script: &str) -> ProcessId {
        spawn(&self.job("sh", &["-c", script])).unwrap()
    }

    fn job(&self, program: &str, args: &[&str]) -> Spawn {
        Spawn {
            program: program.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            folder: self.0.path().to_owned(),
            output: self.0.path().join("output"),
            environment: Vec::new(),
            network: None,
        }
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.0.path().join("output")).unwrap()
    }

    /// The output once it holds a whole line.
    async fn line(&self) -> String {
        loop {
            let output = self.output();
            if output.ends_with('\n') {
                return output;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn end(id: ProcessId) -> Option<ExitStatus> {
    signal(id, Signal::SIGKILL).unwrap();
    wait_exit(id).await.unwrap()
}

#[tokio::test]
async fn output_and_status_are_kept() {
    let lab = Lab::new();
    std::fs::write(lab.0.path().join("output"), "from before").unwrap();
    let id = lab.shell("echo out; echo err >&2; exit 7");
    assert_eq!(wait_exit(id).await.unwrap().unwrap().code(), Some(7));
    assert_eq!(lab.output(), "out\nerr\n");
    let mode = std::fs::metadata(lab.0.path().join("output")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // It is gone now, and that is no error.
    assert!(!is_alive(id));
    assert!(wait_exit(id).await.unwrap().is_none());
    signal(id, Signal::SIGTERM).unwrap();
    assert!(matches!(ProcessId::of(id.pid), Err(ProcessError::Absent { .. })));
}

#[tokio::test]
async fn a_signal_is_a_status() {
    let lab = Lab::new();
    let id = lab.shell("exec sleep 1000");
    assert!(is_alive(id));
    assert_eq!(ProcessId::of(id.pid).unwrap(), id);
    let status = end(id).await.unwrap();
    assert_eq!((status.code(), status.signal()), (None, Some(9)));
}

#[tokio::test]
async fn another_process_with_the_same_pid_is_left_alone() {
    let lab = Lab::new();
    let id = lab.shell("exec sleep 1000");
    let earlier = ProcessId { started: id.started - 1, ..id };
    assert!(!is_alive(earlier));
    signal(earlier, Signal::SIGKILL).unwrap();
    assert!(wait_exit(earlier).await.unwrap().is_none());
    assert!(is_alive(id));
    end(id).await;
}

#[tokio::test]
async fn a_zombie_is_dead_but_its_status_is_not_lost() {
    let lab = Lab::new();
    let id = lab.shell("exit 3");
    while is_alive(id) {
        tokio::task::yield_now().await;
    }
    assert_eq!(ProcessId::of(id.pid).unwrap(), id);
    assert!(processes_under(lab.0.path()).is_empty());
    assert_eq!(wait_exit(id).await.unwrap().unwrap().code(), Some(3));
}

#[tokio::test]
async fn the_end_of_a_process_that_is_no_child_is_seen() {
    let lab = Lab::new();
    let parent = lab.shell("sleep 1000 & echo $!; wait");
    let pid = lab.line().await.trim().parse().unwrap();
    let grandchild = ProcessId::of(pid).unwrap();
    let waiting = tokio::spawn(wait_exit(grandchild));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    signal(grandchild, Signal::SIGKILL).unwrap();
    assert!(waiting.await.unwrap().unwrap().is_none());
    wait_exit(parent).await.unwrap();
}

#[tokio::test]
async fn processes_are_found_by_their_folder() {
    let lab = Lab::new();
    let inner = lab.0.path().join("vm 1");
    std::fs::create_dir(&inner).unwrap();
    let at_top = lab.shell("exec sleep 1000");
    let below = spawn(&Spawn { folder: inner.clone(), ..lab.job("sleep", &["1001"]) }).unwrap();
    let top = lab.0.path().canonicalize().unwrap();
    let words = |seconds: &str| vec!["sleep".to_owned(), seconds.to_owned()];
    let inner_real = top.join("vm 1");
    // The shell becomes `sleep` a moment later, and a program that has just begun has no command line for a moment.
    let expected = [(at_top, top.clone(), words("1000")), (below, inner_real.clone(), words("1001"))];
    let mut found = processes_under(lab.0.path());
    while found.iter().any(|(.., line)| line.first().is_none_or(|word| word != "sleep")) {
        found = processes_under(lab.0.path());
    }
    found.sort_by_key(|(id, ..)| id.pid != at_top.pid);
    assert_eq!(found, expected);
    assert_eq!(processes_under(&inner), expected[1..]);

    // A folder that is a prefix of the name only, a symbolic link to the folder, and the folder deleted.
    assert!(processes_under(&top.join("vm")).is_empty());
    let link = top.join("link");
    std::os::unix::fs::symlink(&inner, &link).unwrap();
    assert_eq!(processes_under(&link), expected[1..]);
    std::fs::remove_dir(&inner).unwrap();
    assert_eq!(processes_under(&inner), expected[1..]);
    end(at_top).await;
    end(below).await;
    assert!(processes_under(lab.0.path()).is_empty());
}

#[tokio::test]
async fn nothing_of_the_daemon_is_inherited() {
    let lab = Lab::new();
    // A descriptor without the mark to be closed on exec, and a blocked signal.
    let leaked = nix::unistd::dup(std::io::stdin()).unwrap();
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGUSR1);
    blocked.thread_block().unwrap();
    // The shell itself becomes the `cat`: while it starts another program it blocks all signals for a moment.
    let job = lab.job("sh", &["-c", "ls -l /proc/$$/fd; exec cat /proc/self/status /proc/self/stat"]);
    let id = spawn(&job).unwrap();
    blocked.thread_unblock().unwrap();
    drop(leaked);
    assert!(wait_exit(id).await.unwrap().unwrap().success());
    let output = lab.output();
    let descriptors: Vec<_> = output.lines().filter_map(|line| line.split_once(" -> ")).map(|(_, to)| to).collect();
    let file = lab.0.path().join("output").canonicalize().unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(descriptors, ["/dev/null", file, file], "{output}");
    let blocked = output.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    assert_eq!(blocked.trim(), "0000000000000000");
    let ignored = output.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    // But for the two signals that the C library keeps to itself (nptl(7)): 32 and 33.
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & !(0b11 << 31), 0);
    let session = output.lines().last().unwrap().rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap();
    assert_eq!(session, id.pid.to_string());
}

#[tokio::test]
async fn a_child_enters_the_network() {
    if !root() {
        return;
    }
    let lab = Lab::new();
    let pin = lab.0.path().join("netns");
    let network = LinuxNetwork::new(NetworkPlace::Own { pin: pin.clone() });
    let job = Spawn { network: network.enter().unwrap(), ..lab.job("readlink", &["/proc/self/ns/net"]) };
    let id = spawn(&job).unwrap();
    assert!(wait_exit(id).await.unwrap().unwrap().success());
    let inside = run_in(&pin, || std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    drop(job);
    network.release(false).unwrap();
    assert_eq!(lab.output().trim(), inside.to_str().unwrap());
}

#[test]
fn what_is_missing_is_named() {
    let lab = Lab::new();
    let error = spawn(&lab.job("no-such-program", &[])).unwrap_err();
    assert_eq!(error.to_string(), "cannot run no-such-program");
    let folder = lab.0.path().join("absent");
    let error = spawn(&Spawn { folder: folder.clone(), ..lab.job("true", &[]) }).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot use {}", folder.display()));
    let output = lab.0.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &output).unwrap();
    let error = spawn(&Spawn { output: output.clone(), ..lab.job("true", &[]) }).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot use {}", output.display()));
}

#[test]
fn a_name_with_parentheses_does_not_hide_the_fields() {
    let text = b"7 (a) (b) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n";
    assert_eq!(parse_stat(text), Some(('S', 4711)));
    assert_eq!(parse_stat(b"7 (a S 1"), None);
    assert_eq!(parse_stat(b"7 (a) S 1"), None);
}
