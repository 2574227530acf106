//! What a recorded minimega 3.1.0 answered, asked again of a real daemon: text, columns, rows, errors and suggestions are
//! the same.
//!
//! Not compared: what differs from run to run (uuid, pid, mac, uptime, ports), and the order of rows.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use support::{Lab, have};

/// Rows that are not asked: commands that this engine does not have yet, and what only makes sense after them.
const LATER: &[(u64, u64, &str)] = &[
    (0, 0, "what came over a pipe: tests/plumb.rs asks it, in the order in which it went"),
    (3, 3, "check, which tells what this machine lacks"),
    (8, 8, "host, whose figures are another machine's"),
    (15, 15, "a variable of the recorded daemon"),
    (89, 89, "vm top"),
    (100, 100, "vm screenshot"),
    (156, 156, "as 15"),
    (174, 181, "disk, and the files that it makes"),
    (182, 182, "a folder of that host"),
    (200, 293, "optimize, vnc, router, cc, containers, vm save, files of that host"),
    (296, 299, "as 200"),
    (301, 302, "suggestions of those commands"),
    (304, 304, "as 301"),
    (306, 306, "as 301"),
    (312, 312, "a folder of the recorded machine"),
    (313, 314, "as 15"),
    (325, 325, "two requests in one write, which tests of the wire cover"),
    (338, 342, "as 0"),
    (1046, 1046, "as 15"),
    (1048, 1049, "the recorded daemon's base folder"),
    (1052, 1052, "as 8"),
];

/// Rows that are answered differently on purpose. The test fails when one of them no longer differs.
const DIFFERENT: &[(u64, &str)] = &[
    (2, "the version is megaform's"),
    (9, "the figures are those of a program without Go's runtime, under names that say so"),
    (10, "there is no mesh port, and the context is an option of the recorded daemon"),
    (14, "the history lacks the commands of later issues"),
    (26, "the error says what is expected, not which function of Go failed"),
    (42, "QEMU's command line is this engine's"),
    (97, "the error names the kernel option that is missing; where it is there, nothing is"),
    (98, "a qos that fails leaves what was there before"),
    (99, "`clear qos` without an interface failed: a defect of 3.1.0"),
    (124, "a trunk that is no interface is an error, and makes no bridge"),
    (141, "as 2"),
    (150, "the error names the program, not Go's package"),
    (171, "minimega makes a folder for each namespace in its files folder"),
    (172, "as 171: the name is that of such a folder"),
    (187, "the folder of a server is called after its number, in this daemon's base folder"),
    (322, "as 2"),
    (323, "as 2"),
    (324, "as 2"),
    (336, "as 2"),
    (343, "as 2"),
    (344, "`namespace all` made a namespace that is named like the wildcard: a defect of 3.1.0"),
    (345, "as 344"),
    (348, "`namespace` shows the active namespace even where nothing has used it yet"),
    (1000, "`background-status` ended the daemon: a defect of 3.1.0"),
    (1001, "as 2"),
    (1012, "as 2"),
    (1020, "as 10"),
    (1024, "`clear v` is ambiguous with `clear vnc`, a command of a later issue"),
    (1029, "`vm launch kvm ,` launched a VM without a name: a defect of 3.1.0"),
    (1032, "as 1029"),
    (1050, "as 2"),
    (1051, "as 14"),
    (1053, "as 2"),
    (1054, "as 2"),
    (1055, "as 2"),
];

const CHANGING: &[&str] = &["uptime", "uuid", "pid", "mac", "vnc_port", "PID", "TIME_START", "TIME_END"];

/// A daemon began anew here while this was recorded.
const RESTART: u64 = 1001;

/// What is compared of one host's answer.
fn comparable(entry: &Value) -> Value {
    let columns: Vec<&str> = entry["Header"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rows = entry["Tabular"].as_array().map(|rows| {
        let mut rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| {
                let cells = row.as_array().into_iter().flatten().filter_map(Value::as_str);
                let changing = |index: usize| columns.get(index).is_some_and(|column| CHANGING.contains(column));
                cells
                    .enumerate()
                    .map(|(index, cell)| if changing(index) { "*".to_owned() } else { cell.to_owned() })
                    .collect()
            })
            .collect();
        rows.sort();
        rows
    });
    serde_json::json!({
        "Response": entry["Response"], "Header": entry["Header"], "Tabular": rows, "Error": entry["Error"],
    })
}

struct Connection {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Connection {
    fn open(lab: &Lab) -> Self {
        let stream = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a timeout");
        let answers = BufReader::new(stream.try_clone().expect("a descriptor"));
        Self { stream, answers }
    }

    /// The next line, without its end; None at the end of the connection.
    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.answers.read_line(&mut line).expect("an answer or an end") {
            0 => None,
            _ => Some(line.trim_end_matches('\n').to_owned()),
        }
    }
}

#[test]
fn answers_are_those_of_minimega() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let recorded = include_str!("data/exchanges.jsonl");
    let mut lab = Lab::with_daemon();
    // A file of the recorded machine.
    let captured = lab.file("a1.pcap", "");
    let recorded = recorded.replace("/scratch/a1.pcap", &captured.to_string_lossy());
    let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for line in recorded.lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let n = row["n"].as_u64().expect("a number");
        if n == RESTART {
            lab.e("clear namespace all").ok();
            lab = Lab::with_daemon();
            connections.clear();
        }
        if LATER.iter().any(|(first, last, _)| (*first..=*last).contains(&n)) {
            continue;
        }
        let name = row["conn"].as_str().expect("a name").to_owned();
        let request = row["request"].as_str().expect("bytes");
        let connection = connections.entry(name).or_insert_with(|| Connection::open(&lab));
        connection.stream.write_all(request.as_bytes()).expect("the daemon reads");
        let mut differs = None;
        for expected in row["responses"].as_array().expect("a list") {
            compared += 1;
            let expected = expected.as_str().expect("bytes");
            let found = connection.answer();
            let (Ok(expected), Some(found)) = (serde_json::from_str::<Value>(expected), found.as_deref()) else {
                // The recording says <eof> where the server hung up.
                if expected != "<eof>" || found.is_some() {
                    differs = Some(format!("expected {expected}\n  found {found:?}"));
                }
                continue;
            };
            let found: Value = serde_json::from_str(found).expect("the daemon sends JSON");
            let entries = |response: &Value| -> Option<Vec<Value>> {
                response["Resp"].as_array().map(|entries| entries.iter().map(comparable).collect())
            };
            let suggestions = |response: &Value| {
                let folder = lab.base.canonicalize().expect("the daemon made it");
                response["Suggest"].to_string().replace(&*folder.to_string_lossy(), "/base")
            };
            let (expected, found) =
                ((entries(&expected), suggestions(&expected)), (entries(&found), suggestions(&found)));
            if expected != found {
                differs = Some(format!("expected {expected:?}\n  found {found:?}"));
            }
        }
        match (differs, DIFFERENT.iter().find(|(number, _)| *number == n)) {
            (Some(how), None) => wrong.push(format!("{n}: {}\n  {how}", request.trim())),
            (None, Some((_, why))) => wrong.push(format!("{n}: no longer differs: {why}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 150, "only {compared} answers were compared");
}
