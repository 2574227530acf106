//! What a recorded minimega 3.1.0 answered, asked again of a real daemon: text, columns, rows, errors and suggestions are
//! the same.
//!
//! Not compared: what differs from run to run (uuid, pid, mac, uptime, ports), the order of rows, and the numbers of tags
//! in `alias (tag)`, because minimega gives tags out at `vm config networks` and megaform at the launch.
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
    (0, 0, "what came over a pipe"),
    (1, 1, "clear all"),
    (8, 13, "host, whose figures are another machine's, debug, mesh"),
    (15, 15, "a variable of the recorded daemon"),
    (42, 42, "vm config qemu-override"),
    (89, 91, "vm top, vm hotplug, vm cdrom"),
    (96, 105, "qos, vm screenshot, capture"),
    (123, 124, "bridge"),
    (131, 142, "ns, and a launch into its queue"),
    (151, 154, "background"),
    (156, 156, "as 15"),
    (
        169,
        299,
        "log, file, disk, viz, dnsmasq, plumb, optimize, vnc, router, cc, containers, vm save, files of that host",
    ),
    (301, 302, "suggestions of those commands"),
    (304, 304, "as 301"),
    (306, 306, "as 301"),
    (312, 312, "a folder of the recorded machine"),
    (313, 314, "as 15"),
    (325, 325, "two requests in one write, which tests of the wire cover"),
    (338, 342, "pipes"),
    (1000, 1000, "a defect of 3.1.0: background-status ends the daemon"),
    (1019, 1020, "ns, mesh"),
    (1046, 1046, "as 15"),
    (1048, 1049, "the recorded daemon's base folder"),
    (1052, 1052, "as 8"),
];

/// Rows that are answered differently on purpose. The test fails when one of them no longer differs.
const DIFFERENT: &[(u64, &str)] = &[
    (2, "the version is megaform's"),
    (14, "the history lacks the commands of later issues"),
    (24, "`vm config` lacks the fields of later issues, and its columns are narrower"),
    (26, "the error says what is expected, not which function of Go failed"),
    (74, "there is no queue to launch from"),
    (109, "aliases get tags at the launch, not at `vm config networks`, so that a mistyped netspec leaves none"),
    (112, "as 109"),
    (115, "as 109"),
    (150, "the error names the program, not Go's package"),
    (322, "as 2"),
    (323, "as 2"),
    (324, "as 2"),
    (336, "as 2"),
    (343, "as 2"),
    (344, "`namespace all` made a namespace that is named like the wildcard: a defect of 3.1.0"),
    (345, "as 344"),
    (348, "`namespace` shows the active namespace even where nothing has used it yet"),
    (1001, "as 2"),
    (1012, "as 2"),
    (1024, "`clear v` is ambiguous with `clear vnc`, a command of a later issue"),
    (1029, "`vm launch kvm ,` launched a VM without a name: a defect of 3.1.0"),
    (1032, "as 1029"),
    (1050, "as 2"),
    (1051, "as 14"),
    (1053, "as 2"),
    (1054, "as 2"),
    (1055, "as 2"),
];

const CHANGING: &[&str] = &["uptime", "uuid", "pid", "mac", "vnc_port"];

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
                    .map(|(index, cell)| if changing(index) { "*".to_owned() } else { without_tags(cell) })
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

/// `[LAN (101), 7]` as `[LAN (N), 7]`.
fn without_tags(cell: &str) -> String {
    let mut text = String::new();
    let mut rest = cell;
    while let Some((before, after)) = rest.split_once('(') {
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        text.push_str(before);
        text.push_str(if digits > 0 { "(N" } else { "(" });
        rest = &after[digits..];
    }
    text + rest
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
