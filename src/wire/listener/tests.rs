use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::wire::Client;

/// Answers `echo X`; `many N` sends N responses with progress between them; `flood` sends until the client is gone;
/// `none` sends nothing; `panic` panics; `wait` waits for a permit before its answer, `begin` between two answers.
struct Echo {
    permit: tokio::sync::Semaphore,
    closed: std::sync::mpsc::SyncSender<u64>,
    flooded: tokio::sync::Notify,
}

impl Handler for Echo {
    async fn command(&self, _connection: u64, command: String, reply: Reply) {
        let text = |t: &str, more: bool| Response { rendered: t.to_owned(), more, ..Response::default() };
        match command.split_once(' ').unwrap_or((&command, "")) {
            ("echo", rest) => {
                reply.send(text(rest, false)).await;
            }
            ("many", n) => {
                let n: usize = n.parse().unwrap();
                for i in 1..=n {
                    reply.send(Response { status: true, ..text(&format!("{i} of {n}"), false) }).await;
                    reply.send(text(&i.to_string(), i < n)).await;
                }
            }
            ("flood", _) => {
                while reply.send(text(&"x".repeat(1 << 16), true)).await {}
                assert!(reply.is_gone());
                self.flooded.notify_one();
            }
            ("wait", _) => {
                self.permit.acquire().await.unwrap().forget();
                reply.send(text("waited", false)).await;
            }
            ("begin", _) => {
                reply.send(text("begun", true)).await;
                self.permit.acquire().await.unwrap().forget();
                reply.send(text("ended", false)).await;
            }
            ("panic", _) => panic!("as asked"),
            _ => {}
        }
    }

    async fn suggest(&self, line: String) -> Vec<String> {
        if line == "v" { vec!["version ".into(), "vm ".into()] } else { Vec::new() }
    }

    /// Sends messages back; `refused` is refused, and `deaf` neither sends nor ends.
    async fn pipe(&self, _connection: u64, name: String, mut input: PipeInput, mut output: PipeOutput) {
        match name.as_str() {
            "refused" => {
                let resp = Some(vec![Entry::failure("h", "no such thing")]);
                output.refuse(&Response { resp, ..Response::default() }).await;
            }
            "deaf" => std::future::pending().await,
            _ => {
                while let Some(message) = input.next().await {
                    if !output.send(&message).await {
                        return;
                    }
                }
            }
        }
    }

    fn closed(&self, connection: u64) {
        let _ = self.closed.try_send(connection);
    }
}

struct Server {
    runtime: tokio::runtime::Runtime,
    handler: Arc<Echo>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    path: PathBuf,
    closed: std::sync::mpsc::Receiver<u64>,
    _folder: tempfile::TempDir,
}

/// A server on a socket in a fresh folder; `deep` makes the path longer than a socket address holds.
fn server(deep: bool) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let mut path = folder.path().to_owned();
    if deep {
        path = path.join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&path).unwrap();
    }
    let path = path.join("minimega");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (closed_sender, closed) = std::sync::mpsc::sync_channel(100);
    let handler = Arc::new(Echo {
        permit: tokio::sync::Semaphore::new(0),
        closed: closed_sender,
        flooded: tokio::sync::Notify::new(),
    });
    let (stop, stopped) = watch::channel(false);
    let listener = {
        let _inside = runtime.enter();
        bind(&path).unwrap()
    };
    let task = runtime.spawn(serve(listener, handler.clone(), "h", stopped));
    Server { runtime, handler, stop, task, path, closed, _folder: folder }
}

fn client(server: &Server) -> Client {
    Client::connect(&server.path, Some(Duration::from_secs(60))).unwrap()
}

#[test]
fn commands_suggestions_and_progress() {
    let server = server(false);
    assert_eq!(std::fs::metadata(&server.path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = client(&server);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    client.on_status(move |text| sink.lock().unwrap().push(text.to_owned()));
    assert_eq!(client.call("echo é <x>").unwrap()[0].rendered, "é <x>");
    let many: Vec<String> = client.call("many 3").unwrap().into_iter().map(|r| r.rendered).collect();
    assert_eq!(many, ["1", "2", "3"]);
    assert_eq!(*seen.lock().unwrap(), ["1 of 3", "2 of 3", "3 of 3"]);
    let mut frames = 0;
    client.call_with("many 2", &mut |_| frames += 1).unwrap();
    assert_eq!(frames, 4);
    assert_eq!(client.suggest("v").unwrap(), ["version ", "vm "]);
    assert_eq!(client.suggest("zzz").unwrap(), Vec::<String>::new());
    assert_eq!(client.suggest("").unwrap(), Vec::<String>::new());
    assert_eq!(client.call("none").unwrap(), [Response::default()], "the listener ends what a handler leaves open");
    let empty = client.call("").unwrap();
    assert_eq!(empty[0].errors().collect::<Vec<_>>(), [("h", "must specify either command or suggest")]);
    let transport: &mut dyn crate::wire::Transport = &mut client;
    assert_eq!(transport.call("echo 1").unwrap().len(), 1);
}

#[test]
fn several_requests_in_one_write_are_answered_in_order_and_malformed_ones_close() {
    let server = server(false);
    let mut stream = StdStream::connect(&server.path).unwrap();
    stream
        .write_all(br#"{"Command":"echo 1"}{"Command":"echo 2"}null{"PlumbPipe":"p"}"<m>\n"[]{"Command":"echo 3"}"#)
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (responses, messages) = text.split_at(text.match_indices('\n').nth(2).unwrap().0 + 1);
    let rendered: Vec<Response> = responses.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((rendered[0].rendered.as_str(), rendered[1].rendered.as_str()), ("1", "2"));
    assert_eq!(rendered[2].errors().next(), Some(("h", "must specify either command or suggest")));
    assert_eq!(messages, "\"\\u003cm\\u003e\\n\"\n", "what follows a request for a pipe is a message already");
}

#[test]
fn a_connection_becomes_a_pipe_and_stays_one() {
    let server = server(false);
    let (mut sender, mut receiver) = client(&server).pipe("ä //p").unwrap();
    for text in ["one", "two\n", "", "\"<&>\" \u{1F600}\t"] {
        sender.send(text).unwrap();
        assert_eq!(receiver.receive().unwrap().unwrap(), format!("{}\n", text.trim_end_matches('\n')));
    }
    sender.finish().unwrap();
    assert_eq!(receiver.receive().unwrap(), None);

    let (_sender, mut receiver) = client(&server).pipe("refused").unwrap();
    let error = receiver.receive().unwrap_err();
    assert!(matches!(&error, WireError::NoMessage { found, .. } if found == "no such thing"), "{error}");

    let (_sender, mut receiver) = client(&server).pipe("deaf").unwrap();
    server.stop.send(true).unwrap();
    server.runtime.block_on(server.task).unwrap();
    assert_eq!(receiver.receive().unwrap(), None, "a shutdown ends pipes");
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_is_noticed_when_it_leaves() {
    let server = server(false);
    let mut rude = StdStream::connect(&server.path).unwrap();
    rude.write_all(b"{\"Command\":\"flood\"}").unwrap();
    let mut first = [0; 1];
    rude.read_exact(&mut first).unwrap();
    let mut waiting = StdStream::connect(&server.path).unwrap();
    waiting.write_all(b"{\"Command\":\"wait\"}{\"Comm").unwrap();
    assert_eq!(client(&server).call("echo 1").unwrap()[0].rendered, "1");
    drop(rude);
    server.runtime.block_on(server.handler.flooded.notified());
    drop(waiting);
    server.handler.permit.add_permits(1);
    assert_eq!(client(&server).call("echo 2").unwrap()[0].rendered, "2");
}

#[test]
fn a_panicking_command_ends_its_own_connection_only() {
    let server = server(false);
    let mut other = client(&server);
    let mut unlucky = client(&server);
    let error = unlucky.call("panic").unwrap_err();
    assert!(matches!(error, WireError::HungUp { .. }), "{error}");
    assert!(error.to_string().contains("hung up while `panic` ran"), "{error}");
    assert!(matches!(unlucky.call("echo 1"), Err(WireError::Broken { .. })));
    assert_eq!(other.call("echo 1").unwrap()[0].rendered, "1");
    server.closed.recv().unwrap();
    assert!(server.closed.try_recv().is_err(), "only one connection has ended");
}

#[test]
fn shutdown_finishes_what_runs_and_closes_what_idles() {
    let server = server(false);
    let mut idle = StdStream::connect(&server.path).unwrap();
    idle.write_all(b"{\"Command\":\"echo 1\"}").unwrap();
    idle.read_exact(&mut [0; 10]).unwrap();
    let mut busy = StdStream::connect(&server.path).unwrap();
    busy.write_all(b"{\"Command\":\"begin\"}").unwrap();
    let mut begun = String::new();
    let mut busy = std::io::BufReader::new(busy);
    std::io::BufRead::read_line(&mut busy, &mut begun).unwrap();
    server.stop.send(true).unwrap();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert!(!server.task.is_finished(), "a command still runs");
    server.handler.permit.add_permits(1);
    server.runtime.block_on(server.task).unwrap();
    let mut end = String::new();
    busy.read_to_string(&mut end).unwrap();
    assert!(begun.contains("begun") && end.contains("ended"), "{begun}{end}");
    assert!(matches!(Client::connect(&server.path, None), Err(WireError::Refused { .. })));
}

#[test]
fn long_paths_work_on_both_sides() {
    let server = server(true);
    assert!(server.path.as_os_str().len() > 200);
    assert_eq!(client(&server).call("echo far").unwrap()[0].rendered, "far");
    assert_eq!(std::fs::metadata(&server.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn binding_replaces_only_what_is_stale() {
    let server = server(false);
    let _inside = server.runtime.enter();
    let error = bind(&server.path).unwrap_err();
    assert!(matches!(error, WireError::InUse { .. }), "{error}");
    server.stop.send(true).unwrap();
    server.runtime.block_on(server.task).unwrap();
    assert!(matches!(Client::connect(&server.path, None), Err(WireError::Refused { .. })));
    drop(bind(&server.path).unwrap());
    let file = server.path.with_file_name("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(bind(&file), Err(WireError::NotSocket { .. })));
    let missing = Client::connect(&server.path.with_file_name("nosuch"), None).unwrap_err();
    assert!(missing.to_string().contains("megaform daemon"), "{missing}");
}

#[test]
fn a_client_waits_no_longer_than_its_timeout() {
    let server = server(false);
    let mut client = Client::connect(&server.path, Some(Duration::from_millis(50))).unwrap();
    assert!(matches!(client.call("wait"), Err(WireError::Timeout { .. })));
    assert!(matches!(client.call("echo 1"), Err(WireError::Broken { .. })));
    server.handler.permit.add_permits(1);
}

#[test]
fn a_peer_that_speaks_something_else_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
        stream.write_all(b"HTTP/1.1 400\n").unwrap();
    });
    let error = Client::connect(&path, None).unwrap().call("version").unwrap_err();
    assert!(matches!(error, WireError::Malformed { .. }), "{error}");
    peer.join().unwrap();
}
