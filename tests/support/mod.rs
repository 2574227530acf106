//! A laboratory for one test: a base folder of its own, the program, and an end that leaves nothing behind.
#![allow(dead_code, missing_docs)]

pub mod folder;
pub mod testhost;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Does the test have what it needs? Prints a skip locally and fails under CI=true.
pub fn have(what: &[&str]) -> bool {
    let missing: Vec<&str> = what
        .iter()
        .copied()
        .filter(|need| match *need {
            "root" => !nix::unistd::geteuid().is_root(),
            "guest" => !guest().0.exists() || !guest().1.exists(),
            "testhost" => !Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/testhost/stamp").exists(),
            program => !std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                .any(|folder| folder.join(program).exists()),
        })
        .collect();
    if missing.is_empty() {
        return true;
    }
    let text = format!("skipped: this test needs {}", missing.join(", "));
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
    println!("{text}");
    false
}

/// The kernel and the initrd of the test guest, as `scripts/guest` makes them.
pub fn guest() -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/guest");
    (folder.join("vmlinuz"), folder.join("guest.cpio.gz"))
}

pub struct Lab {
    pub folder: tempfile::TempDir,
    pub base: PathBuf,
    /// The QEMU program, if not the usual one.
    pub qemu: Option<String>,
    daemon: Option<Child>,
}

pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub fn fails(self, text: &str) -> Self {
        assert_ne!(self.code, 0, "it succeeded: {}", self.out);
        assert!(self.err.contains(text), "stderr does not contain {text:?}:\n{}\nstdout:\n{}", self.err, self.out);
        self
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Lab {
    /// A folder without a daemon.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("megaform-test-").tempdir().expect("a temporary folder");
        let base = folder.path().join("base");
        Self { folder, base, qemu: None, daemon: None }
    }

    /// A folder with a daemon that was started by hand.
    pub fn with_daemon() -> Self {
        let mut lab = Self::new();
        lab.start_daemon();
        lab
    }

    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_megaform"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MEGAFORM_BASE", &self.base)
            .env("MEGAFORM_ACCEL", if std::env::var_os("MEGAFORM_TESTHOST").is_some() { "kvm" } else { "tcg" })
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        if let Some(qemu) = &self.qemu {
            command.env("MEGAFORM_QEMU", qemu);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Answer {
        self.program().args(args).output().expect("the program starts").into()
    }

    /// One raw command.
    pub fn e(&self, line: &str) -> Answer {
        self.run(&["-e", line])
    }

    /// The rows of a table, without header and host.
    pub fn rows(&self, line: &str) -> Vec<Vec<String>> {
        let answer = self.e(&format!(".annotate false .headers false .csv true {line}")).ok();
        answer.out.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the temporary folder is writable");
        path
    }

    /// The commands of a plan of the experiment `lab`, without their namespace.
    #[track_caller]
    pub fn commands(&self, text: &str) -> Vec<String> {
        self.file("lab.yaml", text);
        let answer = self.run(&["plan", "--json", "lab.yaml"]).ok();
        let plan: serde_json::Value = serde_json::from_str(&answer.out).expect("JSON");
        let steps = plan["steps"].as_array().expect("a plan has steps");
        let words = |step: &serde_json::Value| step["command"].as_str().expect("a step has a command").to_owned();
        steps.iter().map(|step| words(step).replace("namespace lab ", "")).collect()
    }

    /// Apply the experiment `lab`.
    #[track_caller]
    pub fn apply(&self, text: &str) {
        self.file("lab.yaml", text);
        self.run(&["apply", "--yes", "lab.yaml"]).ok();
    }

    pub fn start_daemon(&mut self) {
        let mut command = self.program();
        command.arg("daemon");
        self.start_daemon_by(command);
    }

    /// Start a daemon by a command of the test's own.
    pub fn start_daemon_by(&mut self, mut command: Command) {
        let child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the program starts");
        self.daemon = Some(child);
        wait_for("the daemon to answer", || self.e("version").code == 0);
    }

    /// The pid of the daemon that was started by hand.
    pub fn started_pid(&self) -> i32 {
        i32::try_from(self.daemon.as_ref().expect("a daemon that was started by hand").id()).expect("a pid")
    }

    /// One raw command in the background.
    pub fn background(&self, line: &str) -> Child {
        self.program()
            .args(["-e", line])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts")
    }

    /// An executable script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.file(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        path
    }

    /// End the daemon without warning.
    pub fn kill_daemon(&mut self) {
        let mut child = self.daemon.take().expect("a daemon that was started by hand");
        child.kill().expect("our own child can be killed");
        child.wait().expect("our own child can be waited for");
    }

    /// Wait for the end of a daemon that was started by hand and told to quit.
    pub fn wait_daemon(&mut self) {
        let status = self.daemon.take().expect("a daemon that was started by hand").wait();
        assert!(status.is_ok_and(|status| status.success()), "the daemon ends without an error");
    }

    /// The pid of a daemon, from its pid file.
    pub fn daemon_pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.base.join("minimega.pid")).ok()?.trim().parse().ok()
    }

    /// The processes whose working folder is below the base folder: QEMUs.
    pub fn qemus(&self) -> Vec<i32> {
        processes_under(&self.base)
    }

    /// The names in the base folder.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.base)
            .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    /// Is anything mounted below the base folder (the pin of the network namespace)?
    pub fn mounted(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs");
        mounts.contains(&*self.base.to_string_lossy())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.daemon.is_some() || self.base.join("minimega").exists() {
            let _ = self.run(&["-e", "clear namespace all"]);
        }
        if let Some(mut child) = self.daemon.take() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid")),
                nix::sys::signal::Signal::SIGTERM,
            );
            let _ = child.wait();
        } else if let Some(pid) = self.daemon_pid()
            && std::fs::read_link(format!("/proc/{pid}/exe")).ok().as_deref()
                == Some(Path::new(env!("CARGO_BIN_EXE_megaform")))
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
            let start = Instant::now();
            while Path::new(&format!("/proc/{pid}")).exists() && start.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // What a failed test left.
        for pid in processes_under(&self.base) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let pin = self.base.join("netns");
        if pin.exists() {
            let _ = nix::mount::umount2(&pin, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Processes whose working folder is below a folder.
pub fn processes_under(folder: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = std::fs::read_dir("/proc")
        .expect("procfs")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder) && cwd != folder)
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// Wait until something holds, at most a minute and a half; a test must not depend on how long it takes.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(90), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
