//! Pipes, pipelines and background processes, through a real daemon, with real programs and real clients.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Answer, Lab, have, wait_for};

/// A client that has joined a pipe.
struct Pipe {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Pipe {
    fn join(lab: &Lab, name: &str) -> Self {
        let mut stream = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a timeout");
        let request = serde_json::json!({ "PlumbPipe": name }).to_string();
        stream.write_all(request.as_bytes()).expect("the daemon reads");
        let lines = BufReader::new(stream.try_clone().expect("a descriptor"));
        Self { stream, lines }
    }

    fn send(&mut self, message: &str) {
        let line = serde_json::to_string(message).expect("a string");
        self.stream.write_all(line.as_bytes()).expect("the daemon reads");
    }

    /// The next line as it came, with its newline; empty at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line or the end");
        line
    }

    /// The next message without its newline.
    #[track_caller]
    fn message(&mut self) -> String {
        let line = self.line();
        let message: String = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        message.strip_suffix('\n').expect("a newline").to_owned()
    }
}

/// A cell of the table of pipes.
fn cell(lab: &Lab, pipe: &str, column: &str) -> Option<String> {
    let rows = lab.rows(&format!(".columns name,{column} pipe"));
    rows.into_iter().find(|row| row[0] == pipe).map(|mut row| row.remove(1))
}

/// Wait until as many read a pipe.
#[track_caller]
fn readers(lab: &Lab, pipe: &str, count: usize) {
    wait_for(&format!("{count} readers of {pipe}"), || {
        cell(lab, pipe, "readers").as_deref().unwrap_or("0") == count.to_string()
    });
}

fn runs(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn told(child: &mut Child, text: &str) {
    child.stdin.as_mut().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
}

fn piped(lab: &Lab, args: &[&str]) -> Child {
    let mut command = lab.program();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

fn ended(child: Child) -> Answer {
    child.wait_with_output().expect("our own child").into()
}

#[test]
fn the_recorded_conversation_over_a_pipe() {
    let recorded: Vec<Value> =
        include_str!("data/exchanges.jsonl").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // The rows of connections that are pipes have no place in the order; what they have to do with the others has.
    let of = |conn: &str| recorded.iter().find(|row| row["n"] == 0 && row["conn"] == conn).expect("a row");
    let lab = Lab::with_daemon();
    let mut commands = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
    let mut answers = BufReader::new(commands.try_clone().expect("a descriptor"));
    let mut ask = |n: u64| {
        let row = recorded.iter().find(|row| row["n"] == n).expect("a row");
        commands.write_all(row["request"].as_str().expect("bytes").as_bytes()).expect("the daemon reads");
        let mut line = String::new();
        answers.read_line(&mut line).expect("an answer");
        let parts = |line: &str| {
            let answer: Value = serde_json::from_str(line).expect("JSON");
            ["Response", "Header", "Tabular", "Error"].map(|field| answer["Resp"][0][field].clone())
        };
        assert_eq!(parts(&line), parts(row["responses"][0].as_str().expect("bytes")), "row {n}");
    };
    let raw = |text: &Value| -> UnixStream {
        let mut stream = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
        stream.write_all(text.as_str().expect("bytes").as_bytes()).expect("the daemon reads");
        stream
    };
    let line = |stream: &UnixStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a message");
        line
    };
    let p = raw(&of("p")["request"]);
    readers(&lab, "minimega//pp", 1);
    ask(338);
    ask(339);
    assert_eq!(line(&p), of("p")["responses"][0].as_str().expect("bytes"));
    let mut q = raw(&of("p")["request"]);
    readers(&lab, "minimega//pp", 2);
    q.write_all(of("q")["request"].as_str().expect("bytes").as_bytes()).expect("the daemon reads");
    assert_eq!(line(&p), of("q")["responses"][0].as_str().expect("bytes"));
    assert_eq!(line(&q), of("q")["responses"][1].as_str().expect("bytes"));
    ask(340);
    drop((p, q));
    readers(&lab, "minimega//pp", 0);
    wait_for("no writers", || cell(&lab, "minimega//pp", "writers").as_deref() == Some("0"));
    ask(341);
    ask(342);
    assert!(lab.rows("pipe").is_empty());
}

#[test]
fn ten_thousand_messages_reach_every_reader_in_order() {
    let lab = Lab::with_daemon();
    let mut clients = [Pipe::join(&lab, "minimega//out"), Pipe::join(&lab, "minimega//out")];
    readers(&lab, "minimega//out", 2);
    // Through a pipe, a program, a pipe into a pipe, and to two clients. The source ends first.
    lab.e("plumb numbers \"sed -u s/^/n/\" middle out").ok();
    lab.e("plumb \"seq 10000\" \"cat\" numbers").ok();
    for client in &mut clients {
        for number in 1..=10_000 {
            assert_eq!(client.message(), format!("n{number}"));
        }
    }
    wait_for("the pipeline of the source to end", || lab.rows("plumb").len() == 1);
    assert_eq!(cell(&lab, "minimega//out", "count").as_deref(), Some("10000"));
    assert_eq!(cell(&lab, "minimega//out", "previous").as_deref(), Some("n10000"));
    // And from a client.
    let [mut first, mut second] = clients;
    let writer = std::thread::spawn(move || {
        (1..=10_000).for_each(|number| first.send(&number.to_string()));
        (1..=10_000).for_each(|number| assert_eq!(first.message(), number.to_string()));
    });
    (1..=10_000).for_each(|number| assert_eq!(second.message(), number.to_string()));
    writer.join().expect("it got its own");
}

#[test]
fn what_a_source_wrote_reaches_the_end_of_its_pipeline() {
    let lab = Lab::with_daemon();
    let file = lab.folder.path().join("out");
    // The last program only sees its end of input when all before it have ended.
    let last = format!("plumb \"seq 5000\" a \"sort -n -r\" b \"sh -c 'sleep 0.2; cat > {}'\"", file.display());
    lab.e(&last).ok();
    wait_for("the pipeline to end", || lab.rows("plumb").is_empty());
    let text = std::fs::read_to_string(&file).expect("the file");
    assert!(
        text.starts_with("5000\n4999\n") && text.ends_with("\n2\n1\n") && text.lines().count() == 5000,
        "{text:.40}"
    );
    // And the other way: what takes nothing more ends what stands before it.
    lab.e("plumb \"sh -c 'echo 1; exec sleep 1000'\" c \"head -n 1\" d").ok();
    wait_for("the pipeline to end", || lab.rows("plumb").is_empty());
    assert_eq!(cell(&lab, "minimega//d", "previous").as_deref(), Some("1"));
}

#[test]
fn modes_deal_messages_out() {
    let lab = Lab::with_daemon();
    let mut clients = Vec::new();
    for count in 1..=2 {
        clients.push(Pipe::join(&lab, "minimega//m"));
        readers(&lab, "minimega//m", count);
    }
    lab.e("pipe m mode round").ok();
    assert_eq!(cell(&lab, "minimega//m", "mode").as_deref(), Some("round-robin"));
    lab.e("pipe m \"1\n2\n3\n4\"").ok();
    assert_eq!([clients[0].message(), clients[0].message()], ["1", "3"]);
    assert_eq!([clients[1].message(), clients[1].message()], ["2", "4"]);
    lab.e("pipe m mode random").ok();
    lab.e("pipe m chance").ok();
    lab.e("clear pipe m mode").ok();
    lab.e("pipe m end").ok();
    let got = clients.iter_mut().map(|client| {
        let first = client.message();
        if first == "end" { 0 } else { usize::from(client.message() == "end") }
    });
    assert_eq!(got.sum::<usize>(), 1, "one client got the message of mode random, both the last");
    lab.e("pipe m mode sometimes").fails("invalid command");
    lab.e("clear pipe nosuch mode").fails("pipe not found: minimega//nosuch");
}

#[test]
fn a_via_changes_what_each_reader_gets() {
    let lab = Lab::with_daemon();
    let mut clients: Vec<Pipe> = (0..2).map(|_| Pipe::join(&lab, "minimega//v")).collect();
    readers(&lab, "minimega//v", 2);
    // Each reader gets the number of another process.
    lab.e(".preprocess false pipe v via sh -c \"read text; echo $$ $text\"").ok();
    lab.e("pipe v hello").ok();
    let got: Vec<String> = clients.iter_mut().map(Pipe::message).collect();
    assert!(got.iter().all(|text| text.ends_with(" hello")) && got[0] != got[1], "{got:?}");
    assert_eq!(cell(&lab, "minimega//v", "previous").as_deref(), Some("hello"), "as it was written");
    // Several lines, none, and back to nothing in between; in order.
    lab.e("pipe v via \"sed -n 's/^x //; T; p; p'\"").ok();
    lab.e("pipe v \"x twice\nnever\nx again\"").ok();
    lab.e("clear pipe v via").ok();
    lab.e("pipe v plain").ok();
    for client in &mut clients {
        let got: Vec<String> = (0..5).map(|_| client.message()).collect();
        assert_eq!(got, ["twice", "twice", "again", "again", "plain"]);
    }
    lab.e("pipe v via nosuch -x").fails("`nosuch`: executable file not found");
    lab.e("pipe new via nosuch").fails("nosuch");
    assert_eq!(cell(&lab, "minimega//new", "via"), None, "nothing is half-made");
}

#[test]
fn messages_and_failures_are_in_the_log() {
    let mut lab = Lab::new();
    let log = lab.folder.path().join("log");
    let mut command = lab.program();
    let program = command.get_program().to_owned();
    command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --base \"$1\" daemon 2>\"$2\""]).arg(program).arg(&lab.base).arg(&log);
    lab.start_daemon_by(command);
    let logged = |text: &str| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    lab.e("pipe p before").ok();
    lab.e("pipe p log true").ok();
    lab.e("pipe p \"to be\u{7} seen\"").ok();
    lab.e("clear pipe p log").ok();
    lab.e("pipe p after").ok();
    lab.e("plumb \"sh -c 'echo a problem >&2; exit 7'\" q").ok();
    for text in ["to be\\u{7} seen", "minimega//p", "a problem", "exit status 7"] {
        wait_for(text, || logged(text));
    }
    assert!(!logged("before") && !logged("after"));
}

#[test]
fn a_client_that_does_not_read_or_vanishes_harms_nobody() {
    let lab = Lab::with_daemon();
    let (mut good, rude) = (Pipe::join(&lab, "minimega//p"), Pipe::join(&lab, "minimega//p"));
    let mut half = Pipe::join(&lab, "minimega//p");
    readers(&lab, "minimega//p", 3);
    half.stream.write_all(b"\"half a mess").expect("the daemon reads");
    let mut wrong = Pipe::join(&lab, "minimega//p");
    wrong.stream.write_all(b"{}").expect("the daemon reads");
    assert_eq!(wrong.line(), "", "what is no message ends the connection");
    // 20 MB: more than the socket and the queue of a client hold.
    let text = "0123456789".repeat(40);
    lab.e(&format!("plumb \"sh -c 'yes {text} | head -n 50000'\" p")).ok();
    for _ in 0..50_000 {
        assert_eq!(good.message(), text);
    }
    drop((rude, half));
    readers(&lab, "minimega//p", 1);
    lab.e("pipe p still").ok();
    assert_eq!(good.message(), "still");
    lab.e("version").ok();
}

#[test]
fn clearing_ends_programs_and_their_children() {
    if !have(&["root"]) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let program = "sh -c 'trap : TERM; sleep 1000 & echo $$; echo $!; wait; wait'";
    // The pids of the program and its child, once both run.
    let start = |lab: &Lab, before: &str, pipe: &str| {
        let mut client = Pipe::join(lab, pipe);
        readers_of(lab, before, pipe);
        let name = pipe.split("//").nth(1).expect("a name");
        lab.e(&format!(".preprocess false {before} plumb \"{program}\" {name}")).ok();
        [client.message(), client.message()]
    };
    let all_end = |pids: &[String]| wait_for("programs to end", || !pids.iter().any(|pid| runs(pid)));

    let pids = start(&lab, "", "minimega//a");
    let other = start(&lab, "", "minimega//b");
    lab.e("clear plumb b a").fails("pipeline not found: b a");
    lab.e(&format!(".preprocess false clear plumb \"{program}\" a")).ok();
    assert!(!pids.iter().any(|pid| runs(pid)), "they have ended when the answer comes");
    assert!(other.iter().all(|pid| runs(pid)), "another pipeline goes on");
    lab.e("clear pipe b").ok();
    assert!(!other.iter().any(|pid| runs(pid)), "a pipeline ends with its pipe");

    let inside = start(&lab, "namespace lab", "lab//a");
    let outside = start(&lab, "", "minimega//a");
    assert_eq!(lab.rows("plumb").len(), 1);
    lab.e("clear namespace lab").ok();
    assert!(!inside.iter().any(|pid| runs(pid)) && outside.iter().all(|pid| runs(pid)));
    assert!(lab.rows("namespace lab pipe").is_empty());
    lab.e("clear plumb").ok();
    assert!(!outside.iter().any(|pid| runs(pid)));
    wait_for("the network namespace to go", || !lab.mounted());

    // The daemon ends as it should, and as it should not.
    let pids = start(&lab, "", "minimega//c");
    let background = lab.e("background sleep 1000").ok().out;
    assert!(background.contains("with id 1"), "{background}");
    let [background] = lab.rows(".columns PID background-status").concat().try_into().expect("one row");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(lab.started_pid()), nix::sys::signal::Signal::SIGTERM)
        .expect("our own child");
    all_end(&pids);
    all_end(&[background]);
    wait_for("the socket to go", || !lab.base.join("minimega").exists());
    lab.kill_daemon();
    lab.start_daemon();
    let [leader, child] = start(&lab, "", "minimega//c");
    lab.kill_daemon();
    all_end(&[leader]);
    // Nobody is there to end what the program had started itself.
    let child = nix::unistd::Pid::from_raw(child.parse().expect("a pid"));
    let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
    lab.start_daemon();
}

#[track_caller]
fn readers_of(lab: &Lab, before: &str, pipe: &str) {
    wait_for("the reader", || {
        lab.rows(&format!("{before} .columns name,readers pipe")).iter().any(|row| row[0] == pipe && row[1] == "1")
    });
}

#[test]
fn names_may_be_odd_and_mistakes_are_told() {
    let lab = Lab::with_daemon();
    for (name, word) in [("ünï cödé", "\"ünï cödé\""), ("it's", "\"it's\""), ("a/b", "a/b"), ("-x", "-x"), ("1", "1")]
    {
        let mut client = Pipe::join(&lab, &format!("minimega//{name}"));
        wait_for("the reader", || lab.e(&format!("pipe {word} hello")).ok().code == 0 && lab.rows("pipe")[0][2] == "1");
        lab.e(&format!("pipe {word} \"<last> & \\\"\"")).ok();
        while client.message() != "<last> & \"" {}
        // A name that exists can be an element, blanks or not, and the table's line ends the pipeline again.
        lab.e(&format!("plumb {word} sink")).ok();
        let line = lab.e(".annotate false .headers false plumb").ok().out;
        lab.e(&format!("clear plumb {}", line.trim())).ok();
        lab.e("clear pipe").ok();
        assert_eq!(client.line(), "", "a client is hung up with its pipe");
    }
    // Used as it is: a name without a namespace is not that of a command's pipe.
    let mut client = Pipe::join(&lab, "plain");
    wait_for("the pipe", || cell(&lab, "plain", "readers").as_deref() == Some("1"));
    lab.e("pipe plain other").ok();
    client.send("mine");
    assert_eq!(client.message(), "mine");
    let mut refused = Pipe::join(&lab, "two\nlines");
    assert!(refused.line().contains("invalid pipe name"));

    lab.e("plumb a \"sedd -u s/a/b/\" b").fails("`sedd` is not a program in $PATH");
    lab.e("plumb a \"sed 's/a\" b").fails("missing terminal '");
    lab.e("plumb a b c a").fails("round for ever");
    lab.e("plumb a /nosuch b").fails("`/nosuch` is not a program");
    assert!(lab.rows("plumb").is_empty());
    lab.e("plumb a b").ok();
    lab.e("plumb a b").fails("pipeline exists already: minimega//a minimega//b");
    lab.e("plumb a").fails("invalid command");
    // A name that is a program too is a pipe with its namespace.
    lab.e("plumb minimega//cat b").ok();
    assert_eq!(cell(&lab, "minimega//cat", "readers").as_deref(), Some("1"));
}

#[test]
fn the_shells_end_of_a_pipe() {
    let lab = Lab::with_daemon();
    let mut child = piped(&lab, &["pipe", "p"]);
    told(&mut child, "one\ntwo <&>\nthree");
    drop(child.stdin.take());
    let answer = ended(child).ok();
    assert_eq!(answer.out, "one\ntwo <&>\nthree\n", "its own messages come back, all of them");
    assert_eq!(cell(&lab, "minimega//p", "count").as_deref(), Some("3"));

    let listener = piped(&lab, &["pipe", "--namespace", "lab", "p", "--no-input"]);
    wait_for("the listener", || !lab.rows("namespace lab pipe").is_empty());
    let mut writer = piped(&lab, &["pipe", "lab//p"]);
    told(&mut writer, "over\n");
    drop(writer.stdin.take());
    ended(writer).ok();
    lab.e("namespace lab clear pipe p").ok();
    let answer = ended(listener).fails("the pipe lab//p was cleared");
    assert_eq!(answer.out, "over\n");
    lab.run(&["--socket", "/nosuch", "pipe", "p"]).fails("no daemon at /nosuch");
    lab.run(&["pipe", "a\tb"]).fails("invalid pipe name");
}

#[test]
fn background_processes_are_looked_at_while_they_run_and_afterwards() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    assert!(lab.rows("background-status").is_empty());
    let started = lab.e("background sh -c \"echo out; echo err >&2; exec sleep 1000\"").ok();
    assert!(started.out.ends_with("Started background process with id 1\n"), "{}", started.out);
    lab.e("background false").ok();
    wait_for("the second to end", || lab.rows(".columns RUNNING background-status 2") == [["false"]]);
    let status = lab.rows(".columns ID,RUNNING,ERROR,TIME_END,COMMAND background-status");
    assert_eq!(status[0][..4], ["1", "true", "", ""]);
    assert!(status[0][4].ends_with("/sh -c echo out; echo err >&2; exec sleep 1000"), "{status:?}");
    assert_eq!(status[1][..3], ["2", "false", "exit status 1"]);
    assert!(status[1][3].ends_with(" UTC"));
    wait_for("the output", || lab.e("background-output 1").ok().out.ends_with(": out\n"));
    wait_for("the errors", || lab.e("background-error 1").ok().out.ends_with(": err\n"));
    // In the engine's network, which stays as long as it runs.
    let pid = lab.rows(".columns PID background-status 1").concat().concat();
    let own = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/net")).expect("it runs");
    assert_ne!(own(&pid), own("self"));
    let shell = lab.e("shell readlink /proc/self/ns/net").ok().out;
    assert!(shell.trim().ends_with(&*own(&pid).to_string_lossy()), "{shell}");

    lab.e("clear background-status").ok();
    assert_eq!(lab.rows(".columns ID background-status"), [["1"]], "what runs is not forgotten");
    lab.e("background-output 2").fails("no background process with id 2");
    lab.e("background-status two").fails("invalid id `two`");
    lab.e("background nosuch").fails("cannot run `nosuch`: executable file not found in $PATH");
    lab.e(&format!("shell kill {pid}")).ok();
    wait_for("it to end", || lab.rows(".columns ERROR background-status") == [["signal: terminated"]]);
    lab.e("clear background-status").ok();
    assert!(lab.rows("background-status").is_empty());
    wait_for("the network namespace to go", || !lab.mounted());
    assert!(lab.e("background true").ok().out.contains("id 3"), "numbers are not used again");
}

#[test]
fn outputs_have_limits_and_say_so() {
    let lab = Lab::with_daemon();
    let answer = lab.e(".annotate false shell sh -c \"yes | head -c 9000000; echo err >&2\"").ok();
    let (kept, note) = answer.out.split_at(8 << 20);
    assert!(kept.ends_with("y\ny\n"));
    assert_eq!(note, "[611392 bytes more of standard output are left out]\nerr\n");
    lab.e("background sh -c \"yes | head -c 2000000; echo end\"").ok();
    wait_for("it to end", || lab.rows(".columns RUNNING background-status") == [["false"]]);
    let answer = lab.e(".annotate false background-output 1").ok();
    let (first, rest) = answer.out.split_once('\n').expect("lines");
    assert_eq!(first, format!("[{} bytes before this are not kept]", 2_000_004 - (1 << 20)));
    assert!(rest.ends_with("y\nend\n"));
}
