//! The daemon itself over its socket: its log, its files, what it fetches, how it reports progress, and how it ends.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use support::{Lab, have, wait_for};

/// A text answer without its host.
fn text(lab: &Lab, line: &str) -> String {
    lab.e(&format!(".annotate false {line}")).ok().out.trim_end().to_owned()
}

/// A connection that sees every frame.
struct Raw(BufReader<UnixStream>);

impl Raw {
    fn open(lab: &Lab) -> Self {
        let stream = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a timeout");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, command: &str) {
        let request = serde_json::json!({ "Command": command });
        writeln!(self.0.get_mut(), "{request}").expect("the daemon reads");
    }

    fn frame(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).expect("JSON")
    }

    /// All frames of a command.
    fn frames(&mut self, command: &str) -> Vec<Value> {
        self.send(command);
        let mut frames = vec![self.frame()];
        while frames.last().is_some_and(|frame| frame["More"] == true || frame["Status"] == true) {
            frames.push(self.frame());
        }
        frames
    }
}

#[test]
fn the_log_goes_where_it_is_told() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let mut lab = Lab::new();
    let errors = lab.file("stderr", "");
    // Its standard error is a file, as `apply` starts one.
    let program = lab.program();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" daemon 2>>stderr"]).arg(program.get_program()).env_clear();
    command.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(lab.folder.path());
    lab.start_daemon_by(command);
    let written = || std::fs::read_to_string(&errors).expect("our own file");
    assert_eq!(text(&lab, "log level"), "info");
    lab.e("echo unheard").ok();
    lab.e("log ring").fails("the log ring is off");
    for size in ["-1", "many", "1000001"] {
        lab.e(&format!("log ring {size}")).fails(&format!("invalid size `{size}`"));
    }
    lab.e("log ring 3").ok();
    lab.e("log level debug").ok();
    assert_eq!(text(&lab, "log level"), "debug");
    for word in ["one", "two", "three", "four"] {
        lab.e(&format!("echo {word}")).ok();
    }
    let ring = text(&lab, "log ring");
    assert_eq!(ring.lines().count(), 3, "{ring}");
    assert!(ring.contains("echo two") && ring.contains("echo four") && ring.contains("duration="), "{ring}");
    assert!(!written().contains("unheard") && written().contains("echo one"), "{}", written());

    // Filters drop what contains their text, from everywhere.
    lab.e("log filter three").ok();
    lab.e("log filter \"four\"").ok();
    assert_eq!(text(&lab, "log filter"), "three\nfour");
    lab.e("log filter \"\"").fails("empty filter");
    lab.e("echo three again").ok();
    lab.e("echo five").ok();
    assert!(!text(&lab, "log ring").contains("three again") && text(&lab, "log ring").contains("echo five"));
    lab.e("clear log filter").ok();
    lab.e("echo three more").ok();
    assert!(text(&lab, "log ring").contains("three more"));

    // A file gets what standard error no longer gets.
    lab.e("log file daemon.txt").ok();
    assert_eq!(text(&lab, "log file"), lab.base.join("files/daemon.txt").display().to_string());
    lab.e("log stderr false").ok();
    assert_eq!(text(&lab, "log stderr"), "false");
    lab.e("echo into the file").ok();
    let file = lab.base.join("files/daemon.txt");
    let content = || std::fs::read_to_string(&file).expect("the log file");
    assert!(content().contains("echo into the file") && !written().contains("into the file"));
    assert_eq!(std::fs::metadata(&file).expect("the log file").mode() & 0o777, 0o600);
    lab.e("log file /nonexistent/log").fails("cannot open the log file /nonexistent/log: No such file");
    assert_eq!(text(&lab, "log file"), file.display().to_string(), "a file that cannot be opened changes nothing");

    // What happens to VMs, and what fails, is there without being asked for.
    lab.e("log level info").ok();
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    lab.e("vm start a").ok();
    lab.e("vm start nosuch").fails("vm not found");
    lab.e(".record false vm start asked-often").fails("vm not found");
    lab.e("vm kill a").ok();
    for expected in ["vm=a state=BUILDING", "vm=a state=RUNNING", "vm=a state=QUIT", "WARN command failed"] {
        assert!(content().contains(expected), "{expected} is not in\n{}", content());
    }
    assert!(!content().contains("asked-often"), "{}", content());
    lab.e("log level error").ok();
    lab.e("vm start nosuch").fails("vm not found");
    assert_eq!(content().matches("command failed").count(), 2, "that of the log file, and the first start");
    lab.e("vm config qemu /nonexistent/qemu").ok();
    lab.e("vm launch kvm b").fails("cannot start");
    assert!(content().contains("ERROR VM state"), "{}", content());
    lab.e("log level fatal").ok();
    lab.e("vm launch kvm c").fails("cannot start");
    assert!(!content().contains("vm=c"), "{}", content());

    lab.e("clear log").ok();
    assert_eq!(text(&lab, "log level"), "info");
    assert_eq!(text(&lab, "log stderr"), "true");
    assert_eq!(text(&lab, "log file"), "");
    lab.e("log ring").fails("the log ring is off");
    lab.e("vm start nosuch2").fails("vm not found");
    assert!(written().contains("nosuch2") && !content().contains("nosuch2"));
    lab.e("log mesh").fails("invalid command");
}

#[test]
fn a_syslog_daemon_gets_the_log() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    udp.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    lab.e(&format!("log syslog remote udp {}", udp.local_addr().expect("bound"))).ok();
    lab.e("log level debug").ok();
    lab.e("echo \"by udp\"").ok();
    let mut buffer = [0; 4096];
    let mut next = || {
        let length = udp.recv(&mut buffer).expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let message = std::iter::repeat_with(&mut next).find(|message| message.contains("by udp")).expect("it comes");
    // <daemon.debug>1 TIME HOST APP PID
    let words: Vec<&str> = message.split(' ').collect();
    assert_eq!((words[0], words[3], words[4]), ("<31>1", "megaform", &*lab.started_pid().to_string()), "{message}");
    assert!(words[1].ends_with('Z') && words[1].contains('T'), "{message}");

    // The second replaces the first.
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    lab.e(&format!("log syslog remote tcp {}", tcp.local_addr().expect("bound"))).ok();
    lab.e("vm start nosuch").fails("vm not found");
    let stream = tcp.accept().expect("the daemon has connected").0;
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("nosuch")).expect("it comes");
    assert!(line.starts_with("<28>1 "), "daemon.warning: {line}");

    let free = tcp.local_addr().expect("bound");
    drop(lines);
    drop(tcp);
    lab.e(&format!("log syslog remote tcp {free}")).fails("Connection refused");
    lab.e("log syslog remote udp nowhere").fails("cannot reach a syslog daemon at `nowhere` (udp)");
    if !std::path::Path::new("/dev/log").exists() {
        lab.e("log syslog local").fails("cannot reach a syslog daemon at `/dev/log` (local): No such file");
    }
    // A daemon that is gone holds up nobody.
    for _ in 0..20 {
        lab.e("version").ok();
    }
    lab.e("clear log syslog").ok();
}

#[test]
fn files_are_listed_found_and_deleted() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let files = lab.base.join("files");
    assert!(lab.e("file list").ok().out.is_empty());
    std::fs::create_dir_all(files.join("d/e")).expect("ours");
    for (name, content) in [("a.img", "a"), ("b.img", "bb"), ("d/e/c", "ccc")] {
        std::fs::write(files.join(name), content).expect("ours");
    }
    symlink("/etc", files.join("etc")).expect("ours");
    let names = |line: &str| lab.rows(&format!(".sort false .columns dir,name {line}")).concat().join(" ");
    assert_eq!(names("file list"), " a.img  b.img <dir> d  etc");
    assert_eq!(names("file list /"), names("file list"));
    assert_eq!(names("file list d recursive"), "<dir> d/e  d/e/c");
    assert_eq!(names("file list *.img"), " a.img  b.img");
    assert_eq!(lab.rows(".columns size file list b.img"), [["2"]]);
    let time = lab.rows(".columns modified file list b.img").concat().concat();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");

    lab.e("file get *.img").ok();
    lab.e("file get d").ok();
    lab.e("file get nosuchfile").fails("get nosuchfile: file not found");
    for path in ["../state.json", "/../state.json", "d/../../state.json", "etc", "etc/passwd", "/etc/passwd"] {
        lab.e(&format!("file list {path}")).fails(&format!("list {path}: "));
        lab.e(&format!("file get {path}")).fails(&format!("get {path}: "));
        lab.e(&format!("file stream {path}")).fails(&format!("stream {path}: "));
    }
    lab.e("file delete etc/passwd").fails("leads out of the files folder");
    lab.e("file delete ../state.json").fails("leads out of the files folder");
    lab.e("file delete /").fails("the whole files folder");
    lab.e("echo file:../state.json").fails("leads out of the files folder");
    assert_eq!(text(&lab, "echo file:nosuch"), files.join("nosuch").display().to_string());
    lab.e("file delete file:a.img").ok();
    lab.e("file delete *").ok();
    assert!(lab.e("file list").ok().out.is_empty());
    assert!(std::path::Path::new("/etc/passwd").exists());
    lab.e("version").ok();
    lab.e("file delete *").fails("delete *: file not found");
}

#[test]
fn a_file_comes_in_parts() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let files = lab.base.join("files");
    let content: Vec<u8> = (0u32..300_000).flat_map(u32::to_le_bytes).collect();
    let part = 64 << 10;
    let mut raw = Raw::open(&lab);
    for (name, length) in [("empty", 0), ("one", 1), ("exact", 2 * part), ("large", content.len())] {
        std::fs::write(files.join(name), &content[..length]).expect("ours");
        for prefix in ["", ".annotate false ", "namespace lab "] {
            let frames = raw.frames(&format!("{prefix}file stream {name}"));
            assert_eq!(frames.len(), length.div_ceil(part).max(1), "{name}");
            let received: Vec<u8> = frames
                .iter()
                .flat_map(|frame| {
                    assert_eq!(frame["Resp"][0]["Error"], "");
                    BASE64_STANDARD.decode(frame["Resp"][0]["Data"].as_str().expect("base64")).expect("base64")
                })
                .collect();
            assert!(received == content[..length], "{name} is what came");
        }
    }
    // In a script, between other answers.
    let script = lab.file("s.mm", "echo before\nfile stream exact\necho after\n");
    let frames = raw.frames(&format!("read {}", script.display()));
    let texts: Vec<&str> = frames.iter().map(|f| f["Resp"][0]["Response"].as_str().expect("text")).collect();
    assert_eq!(texts, ["before", "", "", "after"]);
    // -e writes the content itself, and gives up with whoever reads it.
    let output = lab.program().args(["-e", "file", "stream", "large"]).output().expect("the program starts");
    assert!(output.status.success() && output.stdout == content);
    let mut cut = lab.program();
    cut.args(["-e", "file stream sparse"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    std::fs::File::create(files.join("sparse")).and_then(|file| file.set_len(64 << 30)).expect("a sparse file");
    let mut child = cut.spawn().expect("the program starts");
    child.stdout.take().expect("piped").read_exact(&mut [0; 1000]).expect("the beginning");
    let output = child.wait_with_output().expect("it ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*error), (Some(141), ""));
    lab.e("file stream .").fails("not a regular file");
}

#[test]
fn a_client_that_does_not_read_holds_up_its_own_stream_alone() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let file = std::fs::File::create(lab.base.join("files/sparse")).expect("ours");
    file.set_len(8 << 30).expect("a sparse file");
    lab.e("log ring 100").ok();
    lab.e("log level debug").ok();
    let mut slow = Raw::open(&lab);
    slow.send("file stream sparse");
    slow.frame();
    let memory = || lab.rows(".columns memory debug")[0][0].parse::<u64>().expect("kB");
    wait_for("the stream to wait for its client", || {
        let before = progress_of(&lab);
        std::thread::sleep(Duration::from_millis(200));
        before == progress_of(&lab)
    });
    let kilobytes = memory();
    assert!(kilobytes < 150_000, "the daemon holds {kilobytes} kB");
    assert!(!text(&lab, "log ring").contains("file stream sparse"), "it goes on");
    drop(slow);
    wait_for("the stream to end with its client", || text(&lab, "log ring").contains("file stream sparse"));
}

/// How far the daemon has read the file that it streams, from the kernel.
fn progress_of(lab: &Lab) -> String {
    let pid = lab.started_pid();
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("procfs").flatten();
    let open =
        fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.ends_with("files/sparse"))).map(|fd| {
            std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().display())).unwrap_or_default()
        });
    open.collect()
}

#[test]
fn long_commands_tell_how_far_they_are() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let mut raw = Raw::open(&lab);
    assert_eq!(text(&lab, "status updates"), "0s");
    assert!(raw.frames("shell sleep 0.3").iter().all(|frame| frame["Status"] == false), "off at first");
    lab.e("status updates often").fails("invalid frequency `often`");
    lab.e("status updates 50ms").ok();
    assert_eq!(text(&lab, "status updates"), "50ms");
    let frames = raw.frames("shell sleep 1");
    let (last, updates) = frames.split_last().expect("an answer");
    assert!(!updates.is_empty());
    for update in updates {
        assert_eq!((&update["Status"], &update["Resp"]), (&Value::Bool(true), &Value::Null));
        assert!(update["Rendered"].as_str().is_some_and(|text| text.starts_with("shell sleep 1: ")), "{update}");
    }
    assert_eq!((&last["Status"], &last["More"], &last["Resp"][0]["Error"]), (&false.into(), &false.into(), &"".into()));

    // Clients: progress is no answer.
    let answer = lab.e("shell sh -c 'sleep 0.5; echo done'").ok();
    assert!(answer.out.trim_end().ends_with("done") && answer.out.lines().count() == 1, "{}", answer.out);
    assert!(answer.err.contains("shell sh -c"), "{}", answer.err);
    let script = lab.file("s.mm", "shell sleep 0.5\necho end\n");
    let answer = lab.run(&["run", &script.to_string_lossy()]).ok();
    assert!(answer.out.lines().count() == 1 && answer.out.contains("end"), "{}", answer.out);
    let mut console = lab.program();
    console.arg("console").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut console = console.spawn().expect("the program starts");
    console.stdin.take().expect("piped").write_all(b"shell sleep 0.5\necho end\n").expect("it reads");
    let output = console.wait_with_output().expect("it ends");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.lines().count() == 1 && out.contains("end"), "{out}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("shell sleep 0.5: "));

    // A launch says how many VMs are there; each QEMU is slow here, one slower than the other.
    let slow = lab.script(
        "slow-qemu",
        "#!/bin/sh\ncase \"$*\" in *-version*) ;; *n1,*|*n1\\ *) sleep 1 ;; esac\nexec qemu-system-x86_64 \"$@\"\n",
    );
    lab.e(&format!("vm config qemu {}", slow.display())).ok();
    lab.e("vm config memory 16").ok();
    let frames = raw.frames("vm launch kvm n[0-2]");
    let said = frames
        .iter()
        .any(|f| f["Status"] == true && f["Rendered"].as_str().is_some_and(|t| t.contains(" of 3 VMs launched")));
    assert!(said, "{frames:?}");
    lab.e("status updates 0").ok();
    assert!(raw.frames("shell sleep 0.3").iter().all(|frame| frame["Status"] == false));
}

#[test]
fn what_the_daemon_says_of_itself() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    assert_eq!(text(&lab, "args"), format!("{} daemon", env!("CARGO_BIN_EXE_megaform")));
    let row = lab.rows("debug").remove(0);
    assert_eq!(row[0], env!("CARGO_PKG_VERSION"));
    assert!(row[1..].iter().all(|figure| figure.parse::<u64>().is_ok_and(|n| n > 0)), "{row:?}");
    lab.e("debug memory m.txt").ok();
    lab.e("debug goroutine t.txt").ok();
    let read = |name: &str| std::fs::read_to_string(lab.base.join("files").join(name)).expect("it was written");
    assert!(read("m.txt").contains("VmRSS:"));
    assert!(read("t.txt").contains("tokio-rt-worker"));
    lab.e("debug memory /nonexistent/m").fails("cannot write /nonexistent/m");
    lab.e("debug cpu start x").fails("invalid command");

    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN 7").ok();
    lab.e("vm launch kvm web").ok();
    lab.e("tap create LAN name mgmt").ok();
    lab.e("viz lab.dot").ok();
    let dot = read("lab.dot");
    for part in [
        "graph \"minimega\"",
        "web\\nBUILDING",
        "LAN (101)",
        "\"vm web\" -- \"vlan 7\"",
        "\"tap mgmt\" -- \"vlan 101\"",
    ] {
        assert!(dot.contains(part), "{part} is not in\n{dot}");
    }
    if have(&["dot"]) {
        let drawn = Command::new("dot").arg("-Tsvg").arg(lab.base.join("files/lab.dot")).output().expect("it starts");
        assert!(drawn.status.success() && drawn.stderr.is_empty(), "{}", String::from_utf8_lossy(&drawn.stderr));
    }
    lab.e("viz /nonexistent/x").fails("cannot write /nonexistent/x");
}

#[test]
fn clear_all_leaves_nothing() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    for line in [
        "vm config memory 16",
        "vm config net LAN",
        "vm launch kvm a",
        "namespace other vm config memory 16",
        "namespace other vm launch kvm b",
        "namespace other tap create core",
        "namespace other",
        "vlans add x 300",
        "log level debug",
        "log ring 10",
        "log file kept.txt",
        ".alias keep=echo kept",
    ] {
        lab.e(line).ok();
    }
    lab.e("clear all").ok();
    assert!(lab.qemus().is_empty() && !lab.mounted());
    assert_eq!(lab.rows(".columns namespace,active namespace"), [["minimega", "true"]]);
    assert!(lab.rows("vm info").is_empty() && lab.rows("tap").is_empty() && lab.rows("vlans").is_empty());
    assert_ne!(text(&lab, "vm config memory"), "16");
    assert_eq!(text(&lab, "log level"), "info");
    assert_eq!(text(&lab, "log file"), "");
    lab.e("log ring").fails("off");
    let history = text(&lab, "history");
    assert!(history.starts_with("clear all\n"), "{history}");
    assert!(lab.e("keep").ok().out.trim_end().ends_with("kept"), "aliases stay");
    assert!(lab.base.join("files/kept.txt").exists(), "files stay");
}

#[test]
fn quit_answers_and_leaves_vms_to_the_next_daemon() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let mut lab = Lab::with_daemon();
    lab.e("quit soon").fails("invalid delay `soon`");
    lab.e("quit -1").fails("invalid delay `-1`");
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a,b").ok();
    let before = lab.rows(".columns name,pid vm info");
    lab.e("quit 1000").ok();
    lab.e("version").ok();
    let mut raw = Raw::open(&lab);
    let mut idle = Raw::open(&lab);
    let frames = raw.frames("quit");
    let said = frames[0]["Resp"][0]["Response"].as_str().expect("text").to_owned();
    assert!(said.starts_with("2 VMs are left running"), "{said}");
    // Both connections end, and the socket goes.
    for connection in [&mut raw, &mut idle] {
        assert_eq!(connection.0.read_to_end(&mut Vec::new()).expect("an end"), 0);
    }
    wait_for("the socket to go", || !lab.base.join("minimega").exists());
    assert_eq!(lab.qemus().len(), 2);
    lab.wait_daemon();
    lab.start_daemon();
    assert_eq!(lab.rows(".columns name,pid vm info"), before);
    lab.e("clear all").ok();
    assert!(lab.e("quit 0").ok().out.is_empty(), "nothing to tell");
    lab.wait_daemon();
    assert!(!lab.base.join("minimega").exists() && !lab.base.join("minimega.pid").exists());
}

/// A web server on the loopback address: serves one archive and its names, counts what it was asked for.
fn web(archive: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::SeqCst);
            let archive = archive.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).expect("a request");
                let mut header = String::new();
                while stream.read_line(&mut header).is_ok_and(|n| n > 2) {
                    header.clear();
                }
                let mut send = |status: &str, length: usize, body: &[u8]| {
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                    let _ = stream.get_mut().write_all(head.as_bytes());
                    let _ = stream.get_mut().write_all(body);
                };
                match line.split(' ').nth(1).unwrap_or_default() {
                    "/images/web.img" => send("200 OK", 7, b"an imag"),
                    "/cut.img" => send("200 OK", 100, b"only this"),
                    "/root.tar.gz" => send("200 OK", archive.len(), &archive),
                    "/slow.img" => {
                        std::thread::sleep(Duration::from_secs(1));
                        send("200 OK", 4, b"slow");
                    }
                    _ => send("404 Not Found", 0, b""),
                }
            });
        }
    });
    (address, asked)
}

#[test]
fn words_are_fetched() {
    if !have(&["root", "tar"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let files = lab.base.join("files");
    let root = lab.folder.path().join("root");
    std::fs::create_dir_all(root.join("bin")).expect("ours");
    std::fs::write(root.join("bin/init"), "#!").expect("ours");
    let archive = lab.folder.path().join("root.tar.gz");
    let packed =
        Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&root).arg(".").status().expect("tar starts");
    assert!(packed.success());
    let (address, asked) = web(std::fs::read(&archive).expect("ours"));
    let host = address.replace(':', "-");

    let path = text(&lab, &format!("echo http://{address}/images/web.img"));
    assert_eq!(path, files.join(&host).join("images/web.img").display().to_string());
    assert_eq!(std::fs::read(&path).expect("it was fetched"), b"an imag");
    assert_eq!(text(&lab, &format!("shell cat http://{address}/images/web.img")), "an imag");
    assert_eq!(asked.load(Ordering::SeqCst), 1, "what is there is not fetched again");
    lab.e(&format!("file delete {host}/images")).ok();
    lab.e(&format!("echo http://{address}/images/web.img")).ok();
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    lab.e(&format!("echo http://u:secret@{address}/nosuch"))
        .fails(&format!("cannot fetch http://{address}/nosuch: the server answered 404 Not Found"));
    lab.e(&format!("echo http://{address}/cut.img")).fails("cannot fetch");
    lab.e(&format!("echo http://{address}/")).fails("it names a folder");
    lab.e("echo http://127.0.0.1:1/x").fails("cannot fetch http://127.0.0.1:1/x");
    assert_eq!(
        text(&lab, &format!(".preprocess false echo http://{address}/nosuch")),
        format!("http://{address}/nosuch")
    );
    assert_eq!(text(&lab, "echo http:x"), "http:x", "no address");
    let parts = |lab: &Lab| lab.e("file list").ok().out.contains("transfer_");
    assert!(!parts(&lab), "nothing half-fetched is left");

    // Two that want the same file get one.
    let before = asked.load(Ordering::SeqCst);
    let clients: Vec<_> = (0..2).map(|_| lab.background(&format!("shell cat http://{address}/slow.img"))).collect();
    wait_for("the download to be listed", || {
        lab.rows(".columns filename file status") == [[format!("{host}/slow.img")]]
    });
    for client in clients {
        let output = client.wait_with_output().expect("it ends");
        assert!(String::from_utf8_lossy(&output.stdout).contains("slow"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), before + 1);
    assert!(lab.rows("file status").is_empty());

    // Archives.
    std::fs::copy(&archive, files.join("mine.tar.gz")).expect("ours");
    let folder = text(&lab, "echo tar:mine.tar.gz");
    assert_eq!(folder, files.join("mine").display().to_string());
    assert_eq!(text(&lab, "shell cat file:mine/bin/init"), "#!");
    std::fs::write(files.join("mine/kept"), "").expect("ours");
    lab.e("echo tar:mine.tar.gz").ok();
    assert!(files.join("mine/kept").exists(), "a folder that is there is used as it is");
    let folder = text(&lab, &format!("echo tar:http://{address}/root.tar.gz"));
    assert_eq!(folder, files.join(&host).join("root").display().to_string());
    assert!(std::path::Path::new(&folder).join("bin/init").exists());
    std::fs::write(files.join("bad.tar"), "no archive at all").expect("ours");
    lab.e("echo tar:bad.tar").fails("cannot unpack bad.tar: tar: ");
    lab.e("echo tar:nosuch.tar").fails("tar: nosuch.tar: file not found");
    lab.e("echo tar:../mine.tar").fails("leads out of the files folder");
    std::fs::write(files.join("x.zip"), "").expect("ours");
    lab.e("echo tar:x.zip").fails("no archive by its name");
    assert!(!files.join("bad").exists() && !parts(&lab), "nothing half-made is left");

    // A script by its address, and a fetch that fails in one.
    let script = lab.file("s.mm", &format!("echo one\necho http://{address}/nosuch\necho two\n"));
    let answer = lab.e(&format!("read {}", script.display())).fails("404");
    assert!(answer.out.contains("one") && answer.out.contains("two"), "{}", answer.out);
    lab.e(&format!("read http://{address}/nosuch")).fails("404");
}
