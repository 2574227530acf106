//! Raw commands from a script, a pipe and the shell's own completion.
#![allow(missing_docs)]

mod support;

use std::io::Write;
use std::process::Stdio;

use support::{Answer, Lab, have, wait_for};

fn piped(lab: &Lab, args: &[&str], input: &str) -> Answer {
    let mut child = lab
        .program()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("our own child").into()
}

#[test]
fn a_console_in_a_pipe_answers_line_by_line_and_tells_of_failures() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let answer = piped(&lab, &["console"], "vm config memory 64\n# nothing\n\nvm config memory\n");
    assert_eq!((answer.code, answer.out.trim().rsplit(' ').next()), (0, Some("64")));
    let answer = piped(&lab, &["console"], "vm start nosuch\nvm config memory\ndisconnect\nvm config memory 1\n");
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains("vm not found: nosuch"), "{}", answer.err);
    assert!(answer.out.contains("64"), "it goes on after an error");
    assert!(lab.e("vm config memory").ok().out.contains("64"), "nothing was run after `disconnect`");
}

#[test]
fn what_a_failing_program_wrote_is_shown() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let line = "shell sh -c \"echo out; echo err >&2; exit 3\"";
    let answer = lab.e(line).fails(": exit status 3");
    assert_eq!(answer.out, "out\nerr\n");
    let answer = piped(&lab, &["console"], &format!("{line}\n")).fails(": exit status 3");
    assert_eq!(answer.out, "out\nerr\n");
    let json = lab.e(&format!(".json true {line}")).fails(": exit status 3").out;
    assert_eq!(json.lines().count(), 1, "{json}");
}

#[test]
fn a_program_that_runs_ends_with_the_daemon() {
    if !have(&["root"]) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let pids = lab.folder.path().join("pids");
    let client = lab
        .background(&format!("shell sh -c \"sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait\"", pids.display()));
    wait_for("the program runs", || pids.exists());
    let pid = std::fs::read_to_string(&pids).expect("it was written");
    lab.e("quit").ok();
    lab.wait_daemon();
    let answer: Answer = client.wait_with_output().expect("our own child").into();
    assert_ne!(answer.code, 0);
    // Without arguments: it is gone, or nobody has asked for its status yet.
    let arguments = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
    assert!(arguments.is_empty(), "what it started ends, too");
    assert!(!lab.mounted(), "and the network namespace with it");
}

#[test]
fn a_script_stops_where_a_command_fails() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.file("s.mm", "vm config memory 64 # comment\n\n# comment\nvm start nosuch\nvm config memory 65\n");
    lab.run(&["run", "s.mm"]).fails("s.mm:4: ");
    assert!(lab.e("vm config memory").ok().out.contains("64"));
    lab.run(&["run", "--keep-going", "s.mm"]).fails("s.mm:4: ");
    assert!(lab.e("vm config memory").ok().out.contains("65"));
    assert_eq!(piped(&lab, &["run", "-"], "version\n").code, 0);
}

#[test]
fn a_check_names_every_bad_line_and_needs_no_daemon() {
    let lab = Lab::new();
    lab.file("good.mm", "# a script\n.columns name vm inf\nvm launch kvm web[0-2]\n");
    lab.file("bad.mm", "vm confg memory\nvm info\nvlans add a\nvm launch kvm \"x\n");
    assert_eq!(lab.run(&["check", "good.mm"]).code, 0);
    let answer = lab.run(&["check", "good.mm", "bad.mm"]).fails("bad.mm:1:4: invalid command: `vm confg memory`");
    for text in [
        "did you mean `vm config memory`",
        "bad.mm:3:12: ",
        "expected `<vlan>`",
        "bad.mm:4:15: missing terminal \"",
        "3 lines",
    ] {
        assert!(answer.err.contains(text), "no {text:?} in\n{}", answer.err);
    }
    lab.file("alias.mm", ".alias vmr=.columns name vm info\nvmr summary\nvmr bogus\n");
    let answer = lab.run(&["check", "alias.mm"]).fails("alias.mm:3:1: invalid command: `.columns name vm info bogus`");
    assert!(answer.err.contains("1 line is not a command"), "{}", answer.err);
    lab.run(&["check", "nosuch.mm"]).fails("cannot read nosuch.mm");
}

#[test]
fn what_is_generated_for_shells_is_complete() {
    let lab = Lab::new();
    for shell in ["bash", "fish", "zsh"] {
        let text = lab.run(&["generate", shell]).ok().out;
        for word in ["validate", "exec-net", "console"] {
            assert!(text.contains(word), "{shell} completion lacks {word}");
        }
    }
    let bash = lab.run(&["generate", "bash"]).ok().out;
    lab.file("completion", &bash);
    let checked = std::process::Command::new("bash").arg("-n").arg(lab.folder.path().join("completion")).status();
    assert!(checked.expect("bash").success());
    let man = lab.run(&["generate", "man"]).ok().out;
    assert!(man.starts_with(".ie") && man.contains(".SS vm launch"), "{}", &man[..200]);
    assert!(man.contains(".SS megaform apply") && !man.contains("\\-apply(1)"), "one page describes every subcommand");
}

#[test]
fn commands_about_the_host() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    assert_eq!(lab.e(".annotate false echo a \"b c\" d").ok().out.trim(), "a b c d");
    assert!(lab.e("check").ok().out.contains("switch: Linux bridges"), "it says what connects taps");
    assert!(!lab.mounted(), "a check leaves nothing");
    assert_eq!(lab.e("tap create LAN").ok().out.trim().rsplit(' ').next(), Some("mega_tap0"), "a check uses no number");
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN LAN").ok();
    lab.e("vm launch kvm a,b").ok();
    assert_eq!(lab.rows(".columns vms,vmlimit,cpucommit,memcommit,netcommit host"), [["2", "-1", "2", "32", "4"]]);
    assert_eq!(lab.rows("host vms"), [["2"]]);
    let name = nix::unistd::gethostname().expect("a host has a name").into_string().expect("in ASCII");
    assert_eq!(lab.rows("host name"), [[name]]);
    lab.e("clear history").ok();
    lab.e("echo one").ok();
    lab.e("vm start nosuch").fails("vm not found");
    let script = lab.folder.path().join("history.mm");
    lab.e(&format!("write {}", script.display())).ok();
    assert_eq!(std::fs::read_to_string(&script).expect("it was written"), "echo one\nvm start nosuch\n");
    lab.e("write /nonexistent/x").fails("cannot write /nonexistent/x");
}

#[test]
fn a_check_names_what_is_missing() {
    if !have(&["root"]) {
        return;
    }
    let mut lab = Lab::new();
    lab.qemu = Some("/nonexistent/qemu".to_owned());
    lab.start_daemon();
    lab.e("check").fails("cannot run /nonexistent/qemu (Debian package qemu-system-x86)");
}

#[test]
fn a_file_is_read_line_by_line() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let path = |name: &str| lab.folder.path().join(name).display().to_string();
    lab.file("r.mm", "echo one\n# comment\n\nvm config memory 32\nvm config memory\nbogus cmd\necho never\n");
    let answer = lab.e(&format!("read {}", path("r.mm"))).fails("r.mm:6 invalid command: `bogus cmd`");
    let lines: Vec<&str> = answer.out.lines().map(|line| line.rsplit(' ').next().unwrap_or_default()).collect();
    assert_eq!(lines, ["one", "32"]);
    lab.e(&format!("read {} check", path("r.mm"))).fails("r.mm:6 invalid command");
    lab.file("three.mm", "vm confg memory 5\necho\n.alias e=echo a\ne b\nvm launch\nread x\ntap create\n'\n");
    let all =
        lab.e(&format!("read {} check", path("three.mm"))).fails("three.mm:1 invalid command: `vm confg memory 5`");
    for text in [
        "did you mean `vm config memory 5`?",
        "three.mm:6 cannot run nested `read` commands",
        "three.mm:7 invalid command: `tap create`",
        "expected `<vlan>`",
        "three.mm:8 missing terminal '",
    ] {
        assert!(all.err.contains(text), "no {text:?} in\n{}", all.err);
    }
    assert!(!all.err.contains("three.mm:4") && !all.err.contains("three.mm:2"), "{}", all.err);

    lab.file("ok.mm", "vm config memory bad\necho two\nnamespace bar\nvm config memory 33\n.columns name vm info\n");
    assert!(lab.e(&format!("read {}", path("ok.mm"))).fails("invalid memory").out.contains("two"), "it goes on");
    assert_eq!(lab.rows(".columns namespace .filter active=true namespace"), [["bar"]]);
    assert_eq!(lab.rows("namespace bar vm config memory"), [["33"]]);
    assert_eq!(lab.rows("namespace minimega vm config memory"), [["32"]]);
    lab.e("namespace minimega").ok();
    lab.e(&format!("read {} check", path("ok.mm"))).ok();
    lab.file("zed.mm", "vm config memory 34\n");
    lab.e(&format!("namespace zed read {}", path("zed.mm"))).ok();
    assert_eq!(lab.rows("namespace zed vm config memory"), [["34"]]);

    // A script that leaves its namespace, or destroys it, goes on in `minimega`.
    lab.file(
        "leave.mm",
        "namespace foo\nvm config memory 77\nclear namespace\nvm config memory\n\
         namespace foo\nvm config memory\nclear namespace foo\nvm config memory 36\n.csv true namespace bar\nvm config memory\n\
         namespace foo clear namespace\nvm config memory\nnamespace foo\nclear namespace bar\nvm config memory\nclear namespace all\nnamespace\n",
    );
    lab.e(".annotate false").ok();
    let out = lab.e(&format!("read {}", path("leave.mm"))).ok().out;
    lab.e(".annotate true").ok();
    assert_eq!(out, "32\n77\n33\n36\n2048\nnamespace | vlans    | active\nminimega  | 101-4096 | true\n");

    lab.file("nest.mm", &format!("read {}\n", path("ok.mm")));
    lab.e(&format!("read {}", path("nest.mm"))).fails("nest.mm:1 cannot run nested `read` commands");
    lab.e("namespace yan read /nonexistent.mm check").fails("no such file");
    assert!(!lab.e("namespace").ok().out.contains("yan"), "a check makes nothing");
    lab.file("yan.mm", "echo hi\n");
    lab.e(&format!("namespace yan read {}", path("yan.mm"))).ok();
    assert!(lab.e("namespace").ok().out.contains("yan"), "as for any command in a namespace");
    for endless in ["/dev/zero", "/dev/zero check"] {
        lab.e(&format!("read {endless}")).fails("open /dev/zero: not a regular file");
    }
    lab.e("read /nonexistent.mm").fails("open /nonexistent.mm: no such file or directory");
    let history = lab.e("history").ok().out;
    assert!(history.contains("echo two") && !history.contains("read "), "{history}");
}

#[test]
fn words_that_stand_for_others() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let text = |line: &str| lab.e(&format!(".annotate false {line}")).ok().out.trim().to_owned();
    lab.e(".env images /srv/images").ok();
    assert_eq!(text(".env images"), "/srv/images");
    assert_eq!(
        text("echo $images ${images} \"$images\" '$images' $nosuch."),
        "/srv/images /srv/images /srv/images /srv/images ."
    );
    assert_eq!(text(".preprocess false echo $images"), "$images");
    lab.e(".preprocess false").ok();
    assert_eq!((text("echo $images"), text(".preprocess")), ("$images".to_owned(), "false".to_owned()));
    lab.e(".preprocess true").ok();
    assert_eq!(text("echo file:a"), format!("{}/files/a", lab.base.canonicalize().expect("it exists").display()));
    lab.e(".env images \"\"").ok();
    assert_eq!(text(".env images"), "");

    lab.e(".alias vmr=.columns name vm info").ok();
    lab.e("vm config memory 16").ok();
    assert_eq!(lab.rows(".alias"), [["vmr", ".columns name vm info"]]);
    assert_eq!(lab.e("vmr").ok().out, "");
    lab.e(".alias nothing").fails("expected an alias as NAME=COMMAND");
    lab.e(".alias none=").fails("expected an alias as NAME=COMMAND");
    lab.e(".alias two words=echo").fails("invalid alias `two words`");
    lab.e(".alias \"quoted=echo 'a  b'\"").ok();
    lab.e(".alias also='echo \"c  d\"'").ok();
    lab.e(".alias written=echo 'e  f'").ok();
    for (alias, answer) in [("quoted", ": a  b\n"), ("also", ": c  d\n"), ("written", ": e  f\n")] {
        let out = lab.e(alias).ok().out;
        assert!(out.ends_with(answer), "{alias}: {out}");
        lab.e(&format!(".unalias {alias}")).ok();
    }
    lab.e(".unalias vmr").ok();
    lab.e("vmr").fails("invalid command: `vmr`");
    lab.e(".unalias vmr").fails("no alias `vmr`");
}

/// A console on a terminal of its own.
struct Terminal {
    child: std::process::Child,
    keys: std::process::ChildStdin,
    screen: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Terminal {
    fn open(lab: &Lab, colours: bool) -> Self {
        let mut console = lab.program();
        let program = format!("exec {} console", console.get_program().to_string_lossy());
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &program, "/dev/null"]).env("TERM", "xterm").env("XDG_STATE_HOME", lab.folder.path());
        for (name, value) in console.env("PAGER", "false").get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env_remove("NO_COLOR");
        if !colours {
            command.env("NO_COLOR", "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script starts");
        let (keys, mut output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let screen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let seen = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = std::io::Read::read(&mut output, &mut bytes) {
                seen.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { child, keys, screen }
    }

    fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
        self.keys.flush().expect("a pipe");
    }

    fn screen(&self) -> String {
        self.screen.lock().expect("no panic").clone()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        let start = std::time::Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed().as_secs() < 90, "no {text:?} in\n{}", self.screen());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Leave it with Ctrl-D; its exit code.
    fn leave(mut self) -> Option<i32> {
        // Before the prompt the terminal would take Ctrl-D for itself.
        let screen = self.screen.clone();
        wait_for("the prompt", || {
            let screen = screen.lock().expect("no panic");
            screen.ends_with("\x1b[?2026l") && screen.lines().last().is_some_and(|line| line.contains("$ "))
        });
        self.keys("\x04");
        let mut code = None;
        wait_for("the console to end", || {
            code = self.child.try_wait().expect("our own child");
            code.is_some()
        });
        code.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_console_on_a_terminal() {
    if !have(&["root", "script"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let mut terminal = Terminal::open(&lab, true);
    terminal.shows("megaform[minimega]$ ");
    terminal.keys("namespace foo\r");
    terminal.shows("megaform[foo]$ ");
    terminal.keys("vm config memory 77\r.annotate false vm conf mem\t\r");
    terminal.shows("vm conf memory");
    terminal.shows("77\r\n");
    terminal.keys("namespace\r");
    terminal.shows("\x1b[1mhost | namespace");
    // Ctrl-C leaves the command, and the console goes on.
    let begun = lab.folder.path().join("begun");
    terminal.keys(&format!("shell sh -c \"touch {}; sleep 5\"\r", begun.display()));
    wait_for("the command to begin", || begun.exists());
    terminal.keys("\x03");
    terminal.shows("the daemon goes on with this command");
    terminal.keys("echo still here\r");
    terminal.shows("still here\r\n");
    assert!(!terminal.screen().contains("\x1b[31m"), "{}", terminal.screen());
    // Pasted lines are one command each.
    terminal.keys("\x1b[200~echo pasted one\necho pasted two\x1b[201~\r");
    terminal.shows("pasted one\r\n");
    terminal.shows(": pasted two\r\n");
    terminal.keys("tap create\r");
    terminal.shows("\x1b[31merror\x1b[0m: ");
    terminal.shows("the command is not complete, expected `<vlan>`");
    assert_eq!(terminal.leave(), Some(1), "a command failed");

    // The history is there the next time, but for what began with a blank.
    let mut terminal = Terminal::open(&lab, false);
    terminal.shows("megaform[foo]$ ");
    terminal.keys(" echo secret\r");
    terminal.shows("secret\r\n");
    terminal.keys(&"\x1b[A".repeat(6));
    terminal.keys("\r");
    terminal.shows("host | namespace");
    assert!(!terminal.screen().contains("\x1b[1m"), "NO_COLOR is set");
    assert_eq!(terminal.leave(), Some(0));
    let history = std::fs::read_to_string(lab.folder.path().join("megaform/history")).expect("it was kept");
    assert!(history.contains("vm config memory 77") && !history.contains("secret"), "{history}");
}

#[test]
fn a_console_outlives_its_daemon() {
    if !have(&["root", "script"]) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let mut terminal = Terminal::open(&lab, false);
    terminal.shows("megaform[minimega]$ ");
    lab.kill_daemon();
    terminal.keys("version\r");
    terminal.shows("error: ");
    terminal.shows("megaform$ ");
    lab.start_daemon();
    terminal.keys("\r");
    terminal.keys("echo back again\r");
    terminal.shows("back again\r\n");
    assert_eq!(terminal.leave(), Some(1));
}
