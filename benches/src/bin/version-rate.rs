//! Round trips of `version` over one connection, beside those of a bare echo server on the same kind of socket.
//!
//! Both servers are processes of their own, and the client is the same code for both. They take turns, so that what else
//! the machine does meets both.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench::{Connection, Daemon, request, verdict};

const ROUNDS: u32 = 10;
const PER_ROUND: u32 = 10_000;

/// What a trivial command of minimega 3.1.0 takes on a machine with two cores.
const LIMIT: Duration = Duration::from_micros(100);

fn main() -> io::Result<()> {
    if let Some(socket) = std::env::args().nth(1) {
        return echo(Path::new(&socket));
    }
    let daemon = Daemon::start()?;
    let mut version = Connection::open(&daemon.socket())?;
    let socket = daemon.folder().join("echo");
    let mut server = Command::new(std::env::current_exe()?).arg(&socket).stdin(Stdio::null()).spawn()?;
    let mut bare = Connection::open(&socket)?;
    let answer = version.command("version")?;
    println!("answer: {}", answer["Response"].as_str().unwrap_or_default());

    let request = request("version");
    let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        ours += time(&mut version, &request)?;
        theirs += time(&mut bare, &request)?;
    }
    drop(bare);
    server.wait()?;

    let count = ROUNDS * PER_ROUND;
    let (each, bare) = (ours / count, theirs / count);
    let rate = |time: Duration| f64::from(count) / time.as_secs_f64();
    println!("round trips: {count} of each, over one connection, in turns of {PER_ROUND}");
    println!(
        "version: {:.0} per second, {:.1} us each ({} the limit of {} us)",
        rate(ours),
        micros(each),
        verdict(each, LIMIT),
        LIMIT.as_micros()
    );
    println!(
        "baseline: {:.0} per second, {:.1} us each, a server that sends back what it gets",
        rate(theirs),
        micros(bare)
    );
    println!("ratio: {:.2}", ours.as_secs_f64() / theirs.as_secs_f64());
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn time(connection: &mut Connection, request: &[u8]) -> io::Result<Duration> {
    let start = Instant::now();
    for _ in 0..PER_ROUND {
        connection.round_trip(request)?;
    }
    Ok(start.elapsed())
}

/// Send every line back, until the first client leaves.
fn echo(socket: &Path) -> io::Result<()> {
    let (stream, _) = UnixListener::bind(socket)?.accept()?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut writer, mut line) = (stream, Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        writer.write_all(&line)?;
        line.clear();
    }
    Ok(())
}
