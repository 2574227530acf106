//! `read FILE check` of a script of 10,000 lines, in the daemon, beside reading the file and splitting it into words.
//!
//! The time is a client's: from the request to the whole answer. The lines are those of an ordinary script: settings,
//! launches, builtins, quotes, comments, some words shortened.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bench::{Connection, Daemon, median, request, verdict};

const LINES: usize = 10_000;
const RUNS: usize = 21;
const LIMIT: Duration = Duration::from_millis(50);

fn main() -> io::Result<()> {
    let daemon = Daemon::start()?;
    let script = daemon.folder().join("script.mm");
    std::fs::write(&script, text())?;
    let mut connection = Connection::open(&daemon.socket())?;
    let command = request(&format!("read {} check", script.display()));
    let (mut times, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let start = Instant::now();
        let answer = connection.round_trip(&command)?;
        times.push(start.elapsed());
        // A clean script is answered with nothing.
        if !answer.starts_with(b"{\"Resp\":null,") {
            return Err(io::Error::other(format!("the check found: {}", String::from_utf8_lossy(answer))));
        }
        let start = Instant::now();
        let words = split(&script)?;
        bare.push(start.elapsed());
        if words < LINES {
            return Err(io::Error::other("the script has too few words"));
        }
    }
    let (slowest, middle, baseline) = (times.iter().max().copied().unwrap_or_default(), median(times), median(bare));
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    println!("script: {LINES} lines, {} bytes", std::fs::metadata(&script)?.len());
    println!(
        "median of {RUNS}: {:.1} ms ({} the limit of {} ms), slowest {:.1} ms, {:.2} us a line",
        milliseconds(middle),
        verdict(middle, LIMIT),
        LIMIT.as_millis(),
        milliseconds(slowest),
        middle.as_secs_f64() * 1e6 / LINES as f64
    );
    println!("baseline: {:.1} ms, reading the file and splitting it into words", milliseconds(baseline));
    println!("ratio: {:.2}", middle.as_secs_f64() / baseline.as_secs_f64());
    Ok(())
}

/// The script.
fn text() -> String {
    let mut text = String::new();
    for line in 0..LINES {
        let _ = match line % 10 {
            0 => writeln!(text, "# VM {line}"),
            1 => writeln!(text, "vm config memory {}", 64 + line % 512),
            2 => writeln!(text, "vm conf vcpus 2"),
            3 => writeln!(
                text,
                "vm config networks LAN{} mega_bridge,DMZ,00:11:22:33:{:02x}:{:02x},e1000",
                line % 7,
                line / 256 % 256,
                line % 256
            ),
            4 => writeln!(text, "vm config append console=ttyS0 quiet ip.0=10.0.{}.{}/16", line / 250, line % 250),
            5 => writeln!(text, "vm config tags note \"number {line}, in quotes\""),
            6 => writeln!(text, "vm launch kvm web[{line}-{}]", line + 3),
            7 => writeln!(text, "namespace lab vm start web{line}"),
            8 => writeln!(text, ".columns name,state .filter state=running vm info # who runs"),
            _ => writeln!(text, "vlans add alias{line} {}", line % 4000),
        };
    }
    text
}

/// Read the file and count its words.
fn split(path: &Path) -> io::Result<usize> {
    let text = std::fs::read_to_string(path)?;
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    Ok(words.iter().map(Vec::len).sum())
}
