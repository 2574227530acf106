//! Clients that send garbage, too much, or nothing, and clients in great number: the real daemon refuses or serves them, and
//! another client's `version` is answered all the while.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Lab, have, wait_for};

/// Nothing here takes so long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(90);

struct Client {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Client {
    fn open(lab: &Lab) -> Self {
        let stream = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let answers = BufReader::new(stream.try_clone().expect("a descriptor"));
        Self { stream, answers }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the daemon reads");
    }

    /// The next response; None at the end of the connection.
    fn response(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("a response is JSON")),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    fn command(&mut self, line: &str) -> Value {
        self.send(json!({ "Command": line }).to_string().as_bytes());
        self.response().expect("an answer")
    }

    fn error(&mut self, line: &str) -> String {
        self.command(line)["Resp"][0]["Error"].as_str().expect("an entry").to_owned()
    }
}

/// A client that asks for the version, again and again, on one connection.
struct Witness {
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    fn new(lab: &Lab) -> Self {
        let (answered, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end, mut client) = (answered.clone(), stop.clone(), Client::open(lab));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let answer = client.command("version");
                let text = answer["Resp"][0]["Response"].as_str().expect("a version");
                assert!(text.starts_with("megaform"), "{answer}");
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { answered, stop, thread: Some(thread) }
    }

    /// It is answered still: twice, because one answer may be on its way already.
    #[track_caller]
    fn is_served(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let thread = self.thread.as_ref().expect("it runs");
        wait_for("another client's `version`", || {
            assert!(!thread.is_finished(), "the other client got no answer");
            self.answered.load(Ordering::Relaxed) >= before + 2
        });
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("every `version` was answered");
    }
}

#[test]
fn garbage_closes_its_connection_and_no_other() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let (pid, witness) = (lab.started_pid(), Witness::new(&lab));
    let deep = vec![b'['; 1 << 20];
    let objects = b"{\"a\":".repeat(200_000);
    let noise: Vec<u8> = (0..1u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let large = format!("{{\"Command\":\"{}", "x".repeat(2 << 20));
    let garbage: [&[u8]; 14] = [
        b"garbage\n",
        b"\0\0\0\0",
        b"\xff\xfe{\"Command\":\"version\"}",
        b"{\"Command\":\"\xff\xfe\"}",
        b"{\"Command\":\"a\0b\"}",
        b"[1,2]",
        b"42",
        b"\"version\"",
        b"{\"Command\":7}",
        b"{\"Command\" \"version\"}",
        &deep,
        &objects,
        &noise,
        large.as_bytes(),
    ];
    for bytes in garbage {
        let mut client = Client::open(&lab);
        // The daemon may hang up before it has read everything.
        let sent = client.stream.write_all(bytes);
        assert!(
            sent.as_ref().is_ok()
                || matches!(
                    sent.as_ref().map_err(std::io::Error::kind),
                    Err(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
                ),
            "{sent:?}"
        );
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(30)]);
        assert_eq!(client.response(), None, "the connection goes on after {shown:?}");
        witness.is_served();
    }
    // An escaped NUL is JSON, and no reason to hang up.
    let mut client = Client::open(&lab);
    client.send(b"{\"Command\":\"echo a\\u0000b\"}");
    assert_eq!(client.response().expect("an answer")["Resp"][0]["Response"], "a\0b");
    witness.end();
    assert_eq!(lab.daemon_pid(), Some(pid));
}

#[test]
fn a_long_line_is_refused_and_its_connection_goes_on() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let witness = Witness::new(&lab);
    let mut client = Client::open(&lab);
    // With its frame the request stays below a mebibyte.
    let almost = (1 << 20) - 100;
    for line in [
        "x".repeat(almost),
        format!("echo {}", "a ".repeat(almost / 2 - 10)),
        ".columns a ".repeat(almost / 11),
        format!("vm config append \\\"{}", "\\\\n".repeat(almost / 10)),
    ] {
        let error = client.error(&line);
        assert!(error.contains("the limit is 65536"), "{error}");
        witness.is_served();
    }
    let error = client.error(&".c true ".repeat(8_000));
    assert!(error.contains("nested more than 64 deep"), "{error}");
    let error = client.error(&"[".repeat(60_000));
    assert!(error.starts_with("invalid command: `[[["), "{}", &error[..60]);
    client.send(json!({ "Suggest": "vm ".repeat(300_000) }).to_string().as_bytes());
    assert_eq!(client.response().expect("an answer")["Suggest"], Value::Null);
    assert_eq!(client.error("version"), "");
    witness.end();
}

#[test]
fn half_a_request_waits_and_holds_up_nobody() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let witness = Witness::new(&lab);
    let mut slow = Client::open(&lab);
    for byte in b"{\"Command\":\"echo one by one\"" {
        slow.send(&[*byte]);
        std::thread::sleep(Duration::from_millis(2));
    }
    witness.is_served();
    slow.send(b"}");
    assert_eq!(slow.response().expect("an answer")["Resp"][0]["Response"], "one by one");
    // Gone in the middle of a request.
    for _ in 0..50 {
        Client::open(&lab).send(b"{\"Command\":\"vm config mem");
    }
    witness.end();
}

#[test]
fn who_leaves_during_a_command_or_never_reads_harms_nobody() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let witness = Witness::new(&lab);
    for _ in 0..20 {
        Client::open(&lab).send(b"{\"Command\":\"shell sleep 0.2\"}{\"Command\":\"version\"}");
    }
    witness.is_served();
    // Asks for more than the socket holds, and reads nothing; the daemon's answers wait, not the daemon.
    let text = "x".repeat(30_000);
    let request = json!({ "Command": format!("echo {text}") }).to_string();
    let mut deaf = Client::open(&lab);
    deaf.stream.set_nonblocking(true).expect("our own socket");
    let mut sent = 0;
    for _ in 0..2000 {
        match deaf.stream.write(request.as_bytes()) {
            Ok(n) if n == request.len() => sent += 1,
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent > 2, "the daemon reads until its answers do not go out");
    witness.is_served();
    // It reads at last: whole answers, in order.
    deaf.stream.set_nonblocking(false).expect("our own socket");
    for _ in 0..sent {
        let answer = deaf.response().expect("an answer");
        assert_eq!(answer["Resp"][0]["Response"].as_str().map(str::len), Some(text.len()));
    }
    drop(deaf);
    witness.end();
    assert_eq!(lab.e("version").code, 0);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_the_others_served() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let witness = Witness::new(&lab);
    let mut open: Vec<Client> = (0..600).map(|_| Client::open(&lab)).collect();
    witness.is_served();
    let (mut served, mut refused) = (0, 0);
    for client in &mut open {
        let sent = client.stream.write_all(b"{\"Command\":\"echo here\"}");
        match sent.ok().and_then(|()| client.response()) {
            Some(answer) if answer["Resp"][0]["Error"] == "" => {
                assert_eq!(answer["Resp"][0]["Response"], "here");
                served += 1;
            }
            told => {
                let told = told.unwrap_or_else(|| client.response().expect("a reason"));
                let error = told["Resp"][0]["Error"].as_str().expect("an error");
                assert!(error.contains("too many connections, the limit is 512"), "{error}");
                refused += 1;
            }
        }
    }
    // The witness is one of 512.
    assert_eq!((served, refused), (511, 89));
    witness.is_served();
    drop(open);
    // Their places are free again.
    wait_for("a free place", || {
        let mut client = Client::open(&lab);
        client.stream.write_all(b"{\"Command\":\"version\"}").is_ok()
            && client.response().is_some_and(|answer| answer["Resp"][0]["Error"] == "")
    });
    witness.end();
}

#[test]
fn a_client_that_closes_its_sending_side_gets_its_answers() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let mut client = Client::open(&lab);
    client.send(b"{\"Command\":\"echo 1\"} {\"Command\":\"echo 2\"}\nnull");
    client.stream.shutdown(std::net::Shutdown::Write).expect("our own socket");
    let mut all = String::new();
    client.answers.read_to_string(&mut all).expect("answers and an end");
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3, "{all}");
    assert_eq!((&lines[0]["Resp"][0]["Response"], &lines[1]["Resp"][0]["Response"]), (&json!("1"), &json!("2")));
    assert_eq!(lines[2]["Resp"][0]["Error"], "must specify either command or suggest");
}
