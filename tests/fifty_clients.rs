//! Fifty clients that issue commands at once: every answer comes, comes whole, and belongs to the request it follows.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Lab, have};

const CLIENTS: usize = 50;
const ROUNDS: usize = 60;

/// The commands of one round, in one write, each with what its answer must hold. `.annotate` and the rest stay as they are:
/// those are shared by all clients.
fn round(client: usize, round: usize) -> [(Value, &'static str, Value); 5] {
    let (own, memory) = (format!("{client}-{round}"), (client + 1) * 1000 + round);
    [
        (json!({ "Command": format!("echo {own}") }), "/Resp/0/Response", json!(own)),
        (json!({ "Command": format!("namespace c{client} vm config memory {memory}") }), "/Resp/0/Error", json!("")),
        (json!({ "Command": format!("vm start {own}x") }), "/Resp/0/Error", json!(format!("vm not found: {own}x"))),
        (json!({ "Suggest": format!(".filter {own} vers") }), "/Suggest/0", json!(format!(".filter {own} version "))),
        (
            json!({ "Command": format!("namespace c{client} vm config memory") }),
            "/Resp/0/Response",
            json!(memory.to_string()),
        ),
    ]
}

#[test]
fn no_answer_is_lost_mixed_or_reordered() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let answered: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let mut stream = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
                stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a timeout");
                let mut answers = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
                scope.spawn(move || {
                    let mut answered = 0;
                    for number in 0..ROUNDS {
                        let requests = round(client, number);
                        let bytes: String = requests.iter().map(|(request, ..)| request.to_string()).collect();
                        stream.write_all(bytes.as_bytes()).expect("the daemon reads");
                        for (request, place, expected) in requests {
                            let line = answers.next().expect("the daemon does not hang up").expect("an answer");
                            let answer: Value = serde_json::from_str(&line).expect("JSON");
                            assert_eq!(answer.pointer(place), Some(&expected), "{request}: {line}");
                            assert_eq!((&answer["More"], &answer["Status"]), (&json!(false), &json!(false)), "{line}");
                            answered += 1;
                        }
                    }
                    answered
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("its answers are right")).sum()
    });
    assert_eq!(answered, CLIENTS * ROUNDS * 5);
}
