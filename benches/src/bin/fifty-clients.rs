//! Fifty clients that issue commands at once for a minute: answers that are lost, mixed or out of order, and the rate.
//!
//! Every client has a connection and a namespace of its own, and sends ten commands at a time, each with a text that only
//! its own answer can hold. `fifty-clients [SECONDS]`. Ends with status 1 if an answer is wrong.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bench::{Connection, Daemon};
use serde_json::{Value, json};

const CLIENTS: usize = 50;

/// What came of one client's commands.
#[derive(Default)]
struct Tally {
    sent: u64,
    right: u64,
    wrong: Vec<String>,
    slowest: Duration,
}

fn main() -> io::Result<ExitCode> {
    let seconds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(60);
    let daemon = Daemon::start()?;
    Connection::open(&daemon.socket())?.command("version")?;
    let socket = daemon.socket();
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let tallies: Vec<io::Result<Tally>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let socket = &socket;
                    move || client(socket, number, end)
                })
            })
            .collect();
        clients.into_iter().map(|c| c.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))).collect()
    });
    let elapsed = start.elapsed();
    let mut all = Tally::default();
    let mut broken = 0;
    for tally in tallies {
        match tally {
            Ok(tally) => {
                all.sent += tally.sent;
                all.right += tally.right;
                all.wrong.extend(tally.wrong);
                all.slowest = all.slowest.max(tally.slowest);
            }
            Err(error) => {
                println!("a client failed: {error}");
                broken += 1;
            }
        }
    }
    println!("clients: {CLIENTS}, each with a connection of its own, ten commands at a time, {seconds} s");
    println!("commands: {}, {:.0} per second", all.sent, all.sent as f64 / elapsed.as_secs_f64());
    println!("right answers: {}", all.right);
    println!(
        "lost: {}, mixed or out of order: {}, broken connections: {broken}",
        all.sent - all.right - all.wrong.len() as u64,
        all.wrong.len()
    );
    println!("slowest ten commands of a client: {:.1} ms", all.slowest.as_secs_f64() * 1e3);
    for wrong in all.wrong.iter().take(5) {
        println!("wrong: {wrong}");
    }
    let good = broken == 0 && all.sent == all.right;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn client(socket: &Path, number: usize, end: Instant) -> io::Result<Tally> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(bench::PATIENCE))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut tally = Tally::default();
    let mut line = String::new();
    while Instant::now() < end {
        let begin = Instant::now();
        let mut requests = Vec::new();
        for _ in 0..10 {
            requests.push(request(number, tally.sent + requests.len() as u64));
        }
        let bytes: String = requests.iter().map(|(request, ..)| format!("{request}\n")).collect();
        stream.write_all(bytes.as_bytes())?;
        tally.sent += requests.len() as u64;
        for (request, place, expected) in requests {
            line.clear();
            if answers.read_line(&mut line)? == 0 {
                return Ok(tally);
            }
            let answer: Value = serde_json::from_str(&line)?;
            if answer.pointer(place) == Some(&expected) && answer["More"] == false {
                tally.right += 1;
            } else {
                tally.wrong.push(format!("{request}: {}", line.trim_end()));
            }
        }
        tally.slowest = tally.slowest.max(begin.elapsed());
    }
    Ok(tally)
}

/// The `count`th request of a client, and what must stand where in its answer.
fn request(client: usize, count: u64) -> (Value, &'static str, Value) {
    let own = format!("{client}-{count}");
    let round = count / 10;
    match count % 10 {
        0 => (json!({ "Command": format!("namespace n{client} vm config append {own}") }), "/Resp/0/Error", json!("")),
        1 => (json!({ "Command": format!("vm stop {own}x") }), "/Resp/0/Error", json!(format!("vm not found: {own}x"))),
        2 => (
            json!({ "Suggest": format!(".filter {own} vers") }),
            "/Suggest/0",
            json!(format!(".filter {own} version ")),
        ),
        3 => (
            json!({ "Command": format!("bogus {own}") }),
            "/Resp/0/Error",
            json!(format!("invalid command: `bogus {own}`")),
        ),
        9 => {
            let expected = format!("[{client}-{}]", round * 10);
            (json!({ "Command": format!("namespace n{client} vm config append") }), "/Resp/0/Response", json!(expected))
        }
        _ => (json!({ "Command": format!("echo {own}") }), "/Resp/0/Response", json!(own)),
    }
}
