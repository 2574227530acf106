//! Against a server that the test plays, and against a real ovsdb-server.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use proptest::prelude::*;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// A server that sends `talk` to whoever connects, after it has read something, and then closes.
fn server(folder: &Path, talk: Vec<Vec<u8>>) -> (PathBuf, JoinHandle<Vec<String>>) {
    let path = folder.join("db.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for words in talk {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap();
            stream.write_all(&words).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap_or_default();
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned() + &rest);
        }
        heard
    });
    (path, thread)
}

fn ask(path: &Path) -> Result<Vec<Outcome>, OvsdbError> {
    Client::new(path, "db").transact(&[Operation::select("T", &[], &["a"])], LIMIT)
}

#[test]
fn the_servers_own_calls_are_answered_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let talk = concat!(
        r#"{"id":"echo","method":"echo","params":["x"]}{"id":77,"result":[],"error":null}"#,
        r#"{"id":null,"method":"update","params":[]}{"id":1,"result":[{"rows":[{"a":["set",[]]}]}],"error":null}"#
    );
    let (path, heard) = server(folder.path(), vec![talk.into()]);
    let rows = ask(&path).unwrap().remove(0).rows();
    assert_eq!(rows, [Row::new([("a", Datum::none())])]);
    let heard = heard.join().unwrap().remove(0);
    assert!(heard.contains(r#"{"id":"echo","result":["x"],"error":null}"#), "{heard}");
}

#[test]
fn what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = ask(&folder.path().join("nobody")).unwrap_err();
    assert!(nobody.is_lost() && nobody.to_string().starts_with("cannot connect to the Open vSwitch database at"));
    let said = [
        ("", "broke"),
        ("{\"id\":1,", "broke"),
        ("hello", "expected a JSON-RPC message from the Open vSwitch database, found `hello`"),
        (
            r#"{"id":1,"result":7,"error":null}"#,
            "expected an array of results from the Open vSwitch database, found `7`",
        ),
        (r#"{"id":1,"result":[],"error":null}"#, "expected one result for each operation"),
        (r#"{"id":1,"result":[{"rows":7}],"error":null}"#, "expected an array of rows"),
        (r#"{"id":1,"result":[{"rows":[{"a":["odd",1]}]}],"error":null}"#, "expected a value of RFC 7047"),
        (r#"{"id":1,"result":null,"error":"unknown database"}"#, "refused to transact: unknown database"),
        (
            r#"{"id":1,"result":[{"error":"constraint violation","details":"no"}],"error":null}"#,
            "the Open vSwitch database refused to select from T (a): constraint violation: no",
        ),
        (
            r#"{"id":1,"result":[{},{"error":"referential integrity violation"}],"error":null}"#,
            "refused to commit: ref",
        ),
    ];
    for (talk, expected) in said {
        let folder = tempfile::tempdir().unwrap();
        let (path, heard) = server(folder.path(), vec![talk.into()]);
        let error = ask(&path).unwrap_err().to_string();
        assert!(error.contains(expected), "{talk}: {error}");
        heard.join().unwrap();
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let error = Client::new(&path, "db").transact(&[], Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, OvsdbError::Timeout { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    /// Whatever a server says, a call ends, with an answer or an error.
    #[test]
    fn any_answer_is_survived(talk in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", "\"id\":1", "\"result\":", "\"error\":", "null", ",", "{\"rows\":[]}", "\"uuid\"", "\\", "1e999", "\u{0}",
    ]), 0..30)) {
        let folder = tempfile::tempdir().unwrap();
        let (path, heard) = server(folder.path(), vec![talk.concat().into_bytes()]);
        let _answer = ask(&path);
        heard.join().unwrap();
    }

    #[test]
    fn values_come_back_as_they_were(numbers in prop::collection::vec(any::<i64>(), 0..4), texts in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..4)) {
        let datum = Datum::Set(numbers.into_iter().map(Datum::Integer).collect());
        prop_assert_eq!(&Datum::read(&datum.json()).unwrap(), &datum);
        let map = Datum::map(texts.clone());
        prop_assert_eq!(&Datum::read(&map.json()).unwrap(), &map);
        prop_assert_eq!(map.pairs().len(), texts.len());
    }
}

/// A real server with a small database.
struct Server {
    folder: tempfile::TempDir,
    child: Child,
}

const SCHEMA: &str = r#"{"name": "Test", "version": "1.0.0", "tables": {
    "Root": {"isRoot": true, "maxRows": 1, "columns": {
        "next": {"type": "integer"}, "done": {"type": "integer"},
        "things": {"type": {"key": {"type": "uuid", "refTable": "Thing"}, "min": 0, "max": "unlimited"}}}},
    "Thing": {"indexes": [["name"]], "columns": {
        "name": {"type": "string"},
        "tag": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 4095}, "min": 0, "max": 1}},
        "ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}}}}}}"#;

impl Server {
    fn start() -> Option<Self> {
        let program = ["/usr/sbin/ovsdb-server", "/usr/local/sbin/ovsdb-server", "/usr/bin/ovsdb-server"]
            .into_iter()
            .find(|path| Path::new(path).exists());
        if program.is_none() {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this test needs openvswitch-switch");
            eprintln!("skipped: this test needs openvswitch-switch");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("schema"), SCHEMA).unwrap();
        let made = Command::new("ovsdb-tool").args(["create", "db", "schema"]).current_dir(folder.path()).status();
        assert!(made.unwrap().success());
        let child = Self::spawn(folder.path());
        Some(Self { folder, child })
    }

    fn spawn(folder: &Path) -> Child {
        Command::new("ovsdb-server")
            .args(["db", "--remote=punix:sock", "--unixctl=ctl", "-vsyslog:off", "-vconsole:off"])
            .current_dir(folder)
            .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin")
            .env("OVS_RUNDIR", folder)
            .stdin(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.folder.path());
    }

    fn client(&self) -> Client {
        let mut client = Client::new(&self.folder.path().join("sock"), "Test");
        client.wait_for_server(LIMIT).unwrap();
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn thing(name: &str, tag: i64) -> Row {
    Row::new([("name", name)]).with("tag", tag).with("ids", Datum::map([("owner", "me")]))
}

#[test]
fn a_real_server_does_what_it_is_told() {
    let Some(mut server) = Server::start() else { return };
    let mut client = server.client();
    let root = Row::new([("things", Datum::references(["a", "b"].map(|name| Uuid::New(name.to_owned()))))]);
    let made = client
        .transact(
            &[
                Operation::insert("Thing", Some("a"), &thing("first", 1)),
                Operation::insert("Thing", Some("b"), &thing("second", 4095)),
                Operation::insert("Root", None, &root),
            ],
            LIMIT,
        )
        .unwrap();
    assert!(made.iter().all(|outcome| matches!(outcome, Outcome::Inserted(Uuid::Row(_)))), "{made:?}");

    // All or nothing, with the table, the column and the server's words.
    let wrong = [
        Operation::update(
            "Thing",
            &[("name", "==", "first".into())],
            &Row::new([("tag", 7)].map(|(c, n)| (c, Datum::Integer(n)))),
        ),
        Operation::insert("Thing", None, &thing("third", 4096)),
    ];
    let error = client.transact(&wrong, LIMIT).unwrap_err().to_string();
    assert!(error.contains("refused to insert into Thing (ids, name, tag): constraint violation: "), "{error}");
    assert!(error.contains("4096"), "{error}");
    let twice = [
        Operation::insert("Thing", Some("c"), &thing("first", 1)),
        Operation::mutate("Root", &[], &[("things", Mutation::Insert(Uuid::New("c".to_owned()).into()))]),
    ];
    let error = client.transact(&twice, LIMIT).unwrap_err().to_string();
    assert!(error.contains("refused to commit: constraint violation: ") && error.contains("first"), "{error}");
    let unknown = client.transact(&[Operation::select("Nowhere", &[], &["x"])], LIMIT).unwrap_err().to_string();
    assert!(unknown.contains("select from Nowhere (x)"), "{unknown}");

    let tags = |client: &mut Client| {
        let found = client.transact(&[Operation::select("Thing", &[], &["name", "tag", "ids"])], LIMIT).unwrap();
        let mut rows: Vec<_> = found
            .into_iter()
            .flat_map(Outcome::rows)
            .map(|row| {
                assert_eq!(row.pairs("ids").get("owner"), Some(&"me"));
                (row.text("name").to_owned(), row.integer("tag"))
            })
            .collect();
        rows.sort();
        rows
    };
    let expected = [("first".to_owned(), Some(1)), ("second".to_owned(), Some(4095))];
    assert_eq!(tags(&mut client), expected);

    // A condition of another transaction is waited for.
    let waiting = Operation::wait_for_row("Root", &[("done", ">=", Datum::Integer(2))], LIMIT);
    let error = client
        .transact(&[Operation::wait_for_row("Root", &[("done", ">=", Datum::Integer(2))], Duration::ZERO)], LIMIT)
        .unwrap_err();
    assert!(matches!(&error, OvsdbError::Refused { error, .. } if error == "timed out"), "{error}");
    let mut other = server.client();
    let waiter = std::thread::spawn(move || other.transact(&[waiting], LIMIT).map(drop));
    for _ in 0..3 {
        client.transact(&[Operation::mutate("Root", &[], &[("done", Mutation::Add(1))])], LIMIT).unwrap();
    }
    waiter.join().unwrap().unwrap();

    // The server is killed and comes back: the next call finds it, with everything in it.
    server.restart();
    client.wait_for_server(LIMIT).unwrap();
    assert_eq!(tags(&mut client), expected);
    let second = [("name", "==", Datum::from("second"))];
    let check = Operation::assert_rows("Thing", &second, &[Row::new([("tag", Datum::Integer(3))])]);
    assert!(matches!(client.transact(&[check], LIMIT), Err(OvsdbError::Refused { error, .. }) if error == "timed out"));
}
