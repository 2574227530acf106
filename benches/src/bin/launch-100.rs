//! Launch, kill and flush 100 paused VMs with two NICs each, beside the same 100 QEMU command lines started bare.
//!
//! The bare ones are the engine's own command lines, read from /proc, each in a folder of its own and all in a fresh
//! network namespace, where QEMU makes their taps itself. Both sides count from the start of the first until the last
//! QEMU answers on QMP, and take turns. Starting all at once is not the fastest on few cores, so the bare ones are started
//! in two ways, all at once and a few at a time, and the faster one is the baseline.

use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::{Connection, Daemon, PATIENCE, median, verdict};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

const VMS: usize = 100;
const ROUNDS: usize = 3;

/// What minimega 3.1.0 takes for the same on a machine with two cores, with KVM: the launch, and kill and flush together,
/// because it deletes taps at the flush and megaform as soon as a QEMU is gone.
const LIMITS: [Duration; 2] = [Duration::from_millis(23_600), Duration::from_millis(5_400)];

/// The number of the state BUILDING in records: launched, never started.
const BUILDING: u64 = 1;

/// One QEMU's command line.
type Line = Vec<String>;

fn main() -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(io::Error::other("launch-100 needs root, for taps and network namespaces"));
    }
    let daemon = Daemon::start()?;
    let mut connection = Connection::open(&daemon.socket())?;
    for command in ["vm config memory 16", "vm config networks a b"] {
        connection.command(&format!("namespace bench {command}"))?;
    }
    let idle = resident(daemon.pid())?;
    // The first QEMU of all reads its program from the disk.
    engine(&mut connection, daemon.pid(), 1)?;
    // From here on children of this process start in a network namespace of their own.
    unshare(CloneFlags::CLONE_NEWNET)?;

    let few = 2 * std::thread::available_parallelism()?.get();
    let mut times: [Vec<Duration>; 5] = Default::default();
    let mut full: f64 = 0.0;
    for _ in 0..ROUNDS {
        let round = engine(&mut connection, daemon.pid(), VMS)?;
        full = full.max(round.resident);
        for (list, time) in times.iter_mut().zip(round.times) {
            list.push(time);
        }
        times[3].push(bare(&round.lines, VMS, daemon.folder())?);
        times[4].push(bare(&round.lines, few, daemon.folder())?);
    }
    let [launch, kill, flush, at_once, few_at_a_time] = times.map(median);
    let baseline = at_once.min(few_at_a_time);
    println!("VMs: {VMS}, paused, 16 MB, 2 NICs each, under TCG; medians of {ROUNDS} rounds");
    for (what, time, limit) in [("launch", launch, LIMITS[0]), ("kill and flush", kill + flush, LIMITS[1])] {
        let verdict = verdict(time, limit);
        println!("{what}: {:.2} s ({verdict} the limit of {:.1} s)", time.as_secs_f64(), limit.as_secs_f64());
    }
    println!("kill: {:.2} s, flush: {:.2} s", kill.as_secs_f64(), flush.as_secs_f64());
    println!("daemon: {:.1} MB idle, {:.1} MB with {VMS} VMs", idle, full);
    println!(
        "baseline: {:.2} s, the same QEMU command lines started bare ({:.2} s all at once, {:.2} s {few} at a time)",
        baseline.as_secs_f64(),
        at_once.as_secs_f64(),
        few_at_a_time.as_secs_f64()
    );
    println!("ratio: {:.2}", launch.as_secs_f64() / baseline.as_secs_f64());
    Ok(())
}

/// The resident memory of a process in MB.
fn resident(pid: u32) -> io::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes: f64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default();
    Ok(kilobytes / 1024.0)
}

/// What one round of the engine took.
struct Round {
    /// Launch, kill, flush.
    times: [Duration; 3],
    /// The command lines that ran.
    lines: Vec<Line>,
    /// The daemon's memory with all VMs, in MB.
    resident: f64,
}

/// Launch, kill and flush with the engine.
fn engine(connection: &mut Connection, daemon: u32, count: usize) -> io::Result<Round> {
    let launch = timed(connection, &format!("vm launch kvm b[0-{}]", count - 1))?;
    let info = connection.command("namespace bench vm info")?;
    let vms: Vec<&Value> = info["Data"].as_array().into_iter().flatten().collect();
    if vms.len() != count || vms.iter().any(|vm| vm["State"] != BUILDING) {
        return Err(io::Error::other("not every VM is in the state BUILDING"));
    }
    let pids = vms.iter().map(|vm| vm["Pid"].as_u64().unwrap_or_default());
    let lines: Vec<Line> = pids.map(command_line).collect::<io::Result<_>>()?;
    let resident = resident(daemon)?;
    let times = [launch, timed(connection, "vm kill all")?, timed(connection, "vm flush all")?];
    Ok(Round { times, lines, resident })
}

fn timed(connection: &mut Connection, command: &str) -> io::Result<Duration> {
    let start = Instant::now();
    connection.command(&format!("namespace bench {command}"))?;
    Ok(start.elapsed())
}

fn command_line(pid: u64) -> io::Result<Line> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

/// A QEMU that ends with its value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        if self.0.kill().and_then(|()| self.0.wait()).is_err() {
            eprintln!("cannot end QEMU, pid {}", self.0.id());
        }
    }
}

/// Start the command lines, so many at a time, and wait until each QEMU greets on QMP.
fn bare(lines: &[Line], at_a_time: usize, folder: &Path) -> io::Result<Duration> {
    let folder = tempfile::tempdir_in(folder)?;
    let folders: Vec<PathBuf> = (0..lines.len()).map(|index| folder.path().join(index.to_string())).collect();
    folders.iter().try_for_each(std::fs::create_dir)?;
    let start = Instant::now();
    let mut running = Vec::new();
    for (index, (line, folder)) in lines.iter().zip(&folders).enumerate() {
        if index >= at_a_time {
            greeted(&folders[index - at_a_time].join("qmp"), start)?;
        }
        // In a session of its own, as the engine's: the kernel may share the processors out by session.
        let mut command = Command::new("setsid");
        command.args(line).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        running.push(Qemu(command.spawn()?));
    }
    for folder in &folders[lines.len().saturating_sub(at_a_time)..] {
        greeted(&folder.join("qmp"), start)?;
    }
    Ok(start.elapsed())
}

fn greeted(socket: &Path, start: Instant) -> io::Result<()> {
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("no QMP at {}", socket.display())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
