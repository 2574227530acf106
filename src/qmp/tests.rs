//! Against a QEMU that runs no guest code, and against servers that misbehave.

use std::process::{Child, Command, Stdio};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// Long enough that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";

/// A QEMU without devices that waits to be started.
struct Qemu {
    child: Child,
    folder: tempfile::TempDir,
}

impl Qemu {
    /// None, with a word, where QEMU is not installed.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new("qemu-system-x86_64")
            .args(["-S", "-display", "none", "-nodefaults", "-machine", "pc,accel=tcg", "-m", "16"])
            .args(["-qmp", "unix:qmp,server=on,wait=off"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self { child, folder }),
            Err(error) => {
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs QEMU: {error}");
                eprintln!("skipped: this test needs qemu-system-x86_64");
                None
            }
        }
    }

    async fn connect(&self) -> (Qmp, mpsc::Receiver<Event>) {
        let socket = self.folder.path().join("qmp");
        loop {
            match Qmp::connect(&socket, PATIENCE).await {
                Ok(connected) => return connected,
                Err(QmpError::Connect { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_real_qemu() {
    let Some(qemu) = Qemu::start() else { return };
    let (qmp, mut events) = qemu.connect().await;
    let status = qmp.execute("query-status", Value::Null).await.unwrap();
    assert_eq!(status["status"], "prelaunch");

    // Many at a time, of different length.
    let calls = (0..50).map(|n| {
        let qmp = qmp.clone();
        tokio::spawn(async move {
            match n % 3 {
                0 => qmp.execute("query-version", json!({})).await.unwrap()["qemu"]["major"].is_u64(),
                1 => qmp.execute("query-qmp-schema", Value::Null).await.unwrap().as_array().unwrap().len() > 100,
                _ => matches!(qmp.execute("no-such", Value::Null).await, Err(QmpError::Command { .. })),
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap());
    }

    let error = qmp.execute("device_add", json!({ "driver": "no-such" })).await.unwrap_err();
    assert!(matches!(&error, QmpError::Command { class, .. } if class == "GenericError"), "{error:?}");
    assert_eq!(error.to_string(), "'no-such' is not a valid device model name");

    // Through and back.
    let answer = qmp.raw("{ \"execute\": \"query-status\", \"id\": [1, \"mine\"] }").await.unwrap();
    assert!(answer.starts_with("{\"id\":[1,\"mine\"],\"return\":{\"running\":"), "{answer}");
    let answer = qmp.raw("{\"execute\":\"stop\"}").await.unwrap();
    assert_eq!(answer, "{\"return\":{}}");
    let answer = qmp.raw("{\"execute\":\"no-such\"}").await.unwrap();
    assert!(answer.starts_with("{\"error\":{\"class\":\"CommandNotFound\",\"desc\":"), "{answer}");
    // What QEMU itself cannot read has an answer without an id.
    let answer = qmp.raw("{\"execute\":\"query-status\\u0000\"}").await.unwrap();
    assert!(answer.starts_with("{\"error\":"), "{answer}");
    for wrong in ["", "[]", "{", "{\"arguments\":{}}", "{\"execute\":7}", "{\"execute\":\"stop\"} x"] {
        assert!(matches!(qmp.raw(wrong).await, Err(QmpError::Request { .. })), "{wrong}");
    }

    // The socket is free for the next one when the last clone is gone.
    drop(qmp);
    while events.recv().await.is_some() {}
    let (qmp, mut events) = qemu.connect().await;
    assert_eq!(qmp.execute("quit", Value::Null).await.unwrap(), json!({}));
    let event = events.recv().await.unwrap();
    assert_eq!((event.name.as_str(), &event.data["reason"]), ("SHUTDOWN", &json!("host-qmp-quit")));
    assert!(event.timestamp.unwrap() > std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
    assert!(events.recv().await.is_none());
    assert!(matches!(qmp.execute("query-status", Value::Null).await, Err(QmpError::Closed)));
}

/// A server that does what the script says with its one connection.
async fn scripted<F: Future<Output = ()> + Send + 'static>(
    script: impl FnOnce(Server) -> F + Send + 'static,
) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(Server { stream: BufReader::new(stream) }).await;
    });
    (folder, path)
}

struct Server {
    stream: BufReader<UnixStream>,
}

impl Server {
    async fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// The next command.
    async fn command(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn answer(&mut self, command: &Value) {
        self.send(&format!("{}\r\n", json!({ "return": command["execute"], "id": command["id"] }))).await;
    }

    /// Greet and accept the capabilities.
    async fn greet(&mut self) {
        self.send(GREETING).await;
        let command = self.command().await;
        assert_eq!(command["execute"], "qmp_capabilities");
        self.answer(&command).await;
    }

    /// Wait for the client to go.
    async fn until_closed(&mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test]
async fn answers_find_their_callers_in_any_order_and_any_pieces() {
    let (_folder, path) = scripted(async |mut server: Server| {
        server.greet().await;
        let commands = [server.command().await, server.command().await, server.command().await];
        let mut text =
            String::from("{\"event\": \"STOP\", \"timestamp\": {\"seconds\": -1, \"microseconds\": -1}}\r\n\r\n");
        for command in commands.iter().rev() {
            text += &format!("{}\n", json!({ "id": command["id"], "return": command["execute"] }));
        }
        for byte in text.chars() {
            server.send(&byte.to_string()).await;
            tokio::task::yield_now().await;
        }
        server.until_closed().await;
    })
    .await;
    let (qmp, mut events) = Qmp::connect(&path, PATIENCE).await.unwrap();
    let (a, b, c) = tokio::join!(
        qmp.execute("a", Value::Null),
        qmp.execute("b", json!({})),
        qmp.raw("{\"id\":\"c\",\"execute\":\"c\"}")
    );
    assert_eq!(
        (a.unwrap(), b.unwrap(), c.unwrap()),
        (json!("a"), json!("b"), "{\"id\":\"c\",\"return\":\"c\"}".into())
    );
    assert_eq!(events.recv().await, Some(Event { name: "STOP".into(), data: Value::Null, timestamp: None }));
}

#[tokio::test]
async fn nobody_and_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("qmp");
    let error = Qmp::connect(&path, PATIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot connect to {}", path.display()));

    for (sent, shown) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", "expected the greeting of QMP from QEMU, found `SSH-2.0-OpenSSH_9.2`"),
        ("{\"return\": {}}\r\n", "expected the greeting of QMP from QEMU, found `{\"return\": {}}`"),
        ("\u{1b}[2J\n", "expected the greeting of QMP from QEMU, found `.[2J`"),
        ("{\"QMP\": {", "QEMU has closed the QMP connection"),
        ("", "QEMU has closed the QMP connection"),
    ] {
        let (_folder, path) = scripted(async move |mut server: Server| server.send(sent).await).await;
        let error = Qmp::connect(&path, PATIENCE).await.unwrap_err();
        assert_eq!(error.to_string(), shown);
    }
}

#[tokio::test]
async fn one_that_says_nothing() {
    let (_folder, path) = scripted(async |mut server: Server| server.until_closed().await).await;
    let error = Qmp::connect(&path, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no answer to the greeting on {} within 0.02 s", path.display()));
}

#[tokio::test]
async fn a_late_answer_is_nobody_elses() {
    let (_folder, path) = scripted(async |mut server: Server| {
        server.greet().await;
        let slow = server.command().await;
        let next = server.command().await;
        server.answer(&slow).await;
        server.answer(&next).await;
        server.until_closed().await;
    })
    .await;
    let (qmp, _events) = Qmp::connect(&path, PATIENCE).await.unwrap();
    let error = qmp.execute_within("slow", Value::Null, Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(&error, QmpError::Timeout { what, .. } if what == "slow"), "{error:?}");
    assert_eq!(qmp.execute("next", Value::Null).await.unwrap(), "next");
}

#[tokio::test]
async fn the_end_ends_every_call() {
    for (last, shown) in [
        ("", "QEMU has closed the QMP connection"),
        ("Segmentation fault\n", "expected an answer or an event from QEMU, found `Segmentation fault`"),
        ("{\"id\": 2}\n", "expected an answer or an event from QEMU, found `{\"id\": 2}`"),
    ] {
        let (_folder, path) = scripted(async move |mut server: Server| {
            server.greet().await;
            server.command().await;
            server.command().await;
            server.send("{\"event\": \"RESET\", \"data\": {\"guest\": true}}\n").await;
            server.send(last).await;
        })
        .await;
        let (qmp, mut events) = Qmp::connect(&path, PATIENCE).await.unwrap();
        let (a, b) = tokio::join!(qmp.execute("a", Value::Null), qmp.raw("{\"execute\":\"b\"}"));
        assert_eq!(a.unwrap_err().to_string(), shown);
        assert_eq!(b.unwrap_err().to_string(), shown);
        assert_eq!(qmp.execute("c", Value::Null).await.unwrap_err().to_string(), shown);
        assert_eq!(events.recv().await.unwrap().data, json!({ "guest": true }));
        assert!(events.recv().await.is_none());
    }
}

#[tokio::test]
async fn events_that_nobody_takes_hold_up_nothing() {
    const COUNT: usize = 10 * 64;
    let (_folder, path) = scripted(async |mut server: Server| {
        server.greet().await;
        for n in 0..COUNT {
            server.send(&format!("{{\"event\": \"E\", \"data\": {n}}}\n")).await;
        }
        let command = server.command().await;
        server.answer(&command).await;
        server.until_closed().await;
    })
    .await;
    let (qmp, mut events) = Qmp::connect(&path, PATIENCE).await.unwrap();
    assert_eq!(qmp.execute("a", Value::Null).await.unwrap(), "a");
    for n in 0..COUNT {
        assert_eq!(events.recv().await.unwrap().data, json!(n));
    }
    drop(events);
    drop(qmp);
}

#[tokio::test]
async fn a_path_of_any_length() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    // Bound by its short name, where a long one does not fit either.
    let short = folder.path().join("s");
    let listener = UnixListener::bind(&short).unwrap();
    std::fs::rename(&short, deep.join("qmp")).unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut server = Server { stream: BufReader::new(stream) };
        server.greet().await;
        server.until_closed().await;
    });
    let (qmp, _events) = Qmp::connect(&deep.join("qmp"), PATIENCE).await.unwrap();
    drop(qmp);
    serving.await.unwrap();
}
