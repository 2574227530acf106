//! An Open vSwitch of the engine's own: ovsdb-server and ovs-vswitchd in the calling thread's network namespace, with
//! everything that they write in one folder.
//!
//! They outlive the daemon. The next one finds them as it finds QEMUs: by their working folder, and from then on by pid
//! and start time. Must not know what is in the database.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::host::linux::process;
use crate::host::{NetworkError, ProcessId, Spawn};

const SERVER: &str = "ovsdb-server";
const SWITCH: &str = "ovs-vswitchd";
const DATABASE: &str = "conf.db";
const SOCKET: &str = "db.sock";
/// How long one has to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Where Debian, and a build from source, install what is not in every user's PATH.
const FOLDERS: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
const SCHEMAS: &[&str] =
    &["/usr/share/openvswitch/vswitch.ovsschema", "/usr/local/share/openvswitch/vswitch.ovsschema"];

pub(super) struct Daemons {
    folder: PathBuf,
    server: Option<ProcessId>,
    switch: Option<ProcessId>,
    /// Whether those that an earlier daemon has started were looked for.
    looked: bool,
}

impl Daemons {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), server: None, switch: None, looked: false }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// The control socket of ovs-vswitchd.
    pub(super) fn control(&self) -> PathBuf {
        self.folder.join(format!("{SWITCH}.ctl"))
    }

    /// Whether they were ever started here.
    pub(super) fn exist(&self) -> bool {
        self.folder.join(DATABASE).exists()
    }

    /// Start those that do not run. Gives what was started.
    pub(super) fn ensure(&mut self) -> Result<Vec<&'static str>, NetworkError> {
        self.look()?;
        let mut started = Vec::new();
        if !self.server.is_some_and(alive) {
            let program = find(SERVER)?;
            self.make_database()?;
            let remote = format!("--remote=punix:{SOCKET}");
            self.server = Some(self.start(SERVER, &program, &[DATABASE, &remote])?);
            started.push(SERVER);
        }
        if !self.switch.is_some_and(alive) {
            let program = find(SWITCH)?;
            // It would read all routes and addresses again whenever one of them changes, for tunnels of its own in the
            // userspace datapath. The engine's tunnels are the kernel's.
            let args = [&format!("unix:{SOCKET}"), "--disable-system-route"];
            self.switch = Some(self.start(SWITCH, &program, &args)?);
            started.push(SWITCH);
        }
        Ok(started)
    }

    /// Whether one that was started does not run any more.
    pub(super) fn is_one_dead(&self) -> bool {
        [self.server, self.switch].into_iter().flatten().any(|id| !alive(id))
    }

    /// What a program said last, for an error.
    pub(super) fn last_words(&self) -> String {
        [SERVER, SWITCH]
            .into_iter()
            .filter_map(|name| {
                let text = std::fs::read_to_string(self.log(name)).ok()?;
                let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
                Some(format!("; {name} said last: {line}"))
            })
            .collect()
    }

    /// End both and remove everything that they wrote. Without any of it nothing happens.
    pub(super) fn end(&mut self) -> Result<(), NetworkError> {
        if !self.folder.exists() {
            return Ok(());
        }
        self.look()?;
        for (name, id) in [(SWITCH, self.switch.take()), (SERVER, self.server.take())] {
            if let Some(id) = id {
                process::end(id, GRACE).map_err(refused(format!("end {name}")))?;
            }
        }
        self.looked = false;
        std::fs::remove_dir_all(&self.folder).map_err(refused(format!("remove {}", self.folder.display())))
    }

    /// Find what an earlier daemon has started; end what is of no use: a second one, or one in another namespace.
    fn look(&mut self) -> Result<(), NetworkError> {
        if self.looked || !self.folder.exists() {
            self.looked = true;
            return Ok(());
        }
        let here = namespace_of("thread-self");
        for (id, _, words) in process::processes_under(&self.folder) {
            let program = words.first().and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or_default();
            let place = match program {
                SERVER => &mut self.server,
                SWITCH => &mut self.switch,
                _ => continue,
            };
            if place.is_none() && here.is_some() && namespace_of(&id.pid.to_string()) == here {
                *place = Some(id);
            } else {
                process::end(id, GRACE).map_err(refused(format!("end a second {program}")))?;
            }
        }
        self.looked = true;
        Ok(())
    }

    /// Make an empty database if there is none.
    fn make_database(&self) -> Result<(), NetworkError> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refused(format!("create {}", self.folder.display()))(error));
            }
            _ => {}
        }
        let database = self.folder.join(DATABASE);
        if database.exists() {
            return Ok(());
        }
        let schema = SCHEMAS.iter().find(|path| Path::new(path).exists()).ok_or_else(|| missing("its schema file"))?;
        let tool = find("ovsdb-tool")?;
        // Under another name until it is whole.
        let new = self.folder.join("conf.db.new");
        let _none = std::fs::remove_file(&new);
        // The tool keeps the mode of a file that is there, but wants to make it itself; the folder is closed to others.
        let made = Command::new(tool)
            .arg("create")
            .arg(&new)
            .arg(schema)
            .env("OVS_RUNDIR", &self.folder)
            .stdin(Stdio::null())
            .output()
            .map_err(refused("run ovsdb-tool".to_owned()))?;
        if !made.status.success() {
            let text = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            return Err(refused("create the Open vSwitch database".to_owned())(io::Error::other(text)));
        }
        let keep = || {
            std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            std::fs::rename(&new, &database)
        };
        keep().map_err(refused(format!("create {}", database.display())))
    }

    fn start(&self, name: &'static str, program: &Path, args: &[&str]) -> Result<ProcessId, NetworkError> {
        let mut words: Vec<String> = args.iter().map(|&word| word.to_owned()).collect();
        // A pid file makes a second one refuse to start, and lets `ovs-appctl` find this one.
        words.extend([format!("--pidfile={name}.pid"), format!("--unixctl={name}.ctl")]);
        words.extend(["-vsyslog:off", "-vfile:off", "-vconsole:warn"].map(str::to_owned));
        // What a predecessor that was killed has left.
        for stale in [format!("{name}.pid"), format!("{name}.ctl")] {
            let _none = std::fs::remove_file(self.folder.join(stale));
        }
        let folder = self.folder.to_string_lossy().into_owned();
        let spawn = Spawn {
            program: program.to_string_lossy().into_owned(),
            args: words,
            folder: self.folder.clone(),
            output: self.log(name),
            environment: ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"].map(|key| (key.to_owned(), folder.clone())).into(),
            // That of the calling thread.
            network: None,
        };
        process::spawn(&spawn).map_err(refused(format!("start {name}")))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

/// Is it alive? One that is dead is waited for, if it is our child.
fn alive(id: ProcessId) -> bool {
    let alive = process::is_alive(id);
    if !alive {
        process::reap(id);
    }
    alive
}

/// The network namespace of a process.
fn namespace_of(process: &str) -> Option<u64> {
    Some(std::fs::metadata(format!("/proc/{process}/ns/net")).ok()?.ino())
}

fn find(name: &str) -> Result<PathBuf, NetworkError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| OpenOptions::new().read(true).custom_flags(nix::libc::O_PATH).open(file).is_ok())
        .ok_or_else(|| missing(&format!("the program {name}")))
}

fn missing(what: &str) -> NetworkError {
    NetworkError::Unsupported {
        what: "use Open vSwitch".to_owned(),
        missing: format!("{what} (Debian package openvswitch-switch)"),
    }
}

fn refused<E: std::error::Error + Send + Sync + 'static>(what: String) -> impl FnOnce(E) -> NetworkError {
    move |source| NetworkError::Switch { what, source: Box::new(source) }
}
