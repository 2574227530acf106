//! What a boot test needs from the machine: the guest's files, a network namespace, QEMU.

use std::fs::{self, File};
use std::net::IpAddr;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

/// How long a guest may take to boot or to end before a test gives up; a boot takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The files of the test guest.
pub struct Guest {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

impl Guest {
    /// The guest, if this machine has all that a boot test needs. If not, says what is missing, and panics under CI=true.
    pub fn or_skip() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/guest");
        let guest = Self { kernel: folder.join("vmlinuz"), initrd: folder.join("guest.cpio.gz") };
        let missing = if !nix::unistd::geteuid().is_root() {
            "root"
        } else if !Path::new("/dev/net/tun").exists() {
            "/dev/net/tun (modprobe tun)"
        } else if !guest.kernel.exists() || !guest.initrd.exists() {
            "the test guest (scripts/guest makes it)"
        } else if ["qemu-system-x86_64", "ip", "ping", "setpriv"].iter().any(|program| !in_path(program)) {
            "QEMU, ip, ping or setpriv (scripts/setup installs them)"
        } else {
            return Some(guest);
        };
        assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "a boot test needs {missing}");
        eprintln!("skipped: a boot test needs {missing}");
        None
    }
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()))
}

/// A network namespace of the current thread. Programs started by the thread are in it; it goes with the last of them.
pub struct Network(());

impl Network {
    /// Run a test in a new network namespace, on a thread that ends with it.
    pub fn run<T: Send>(test: impl FnOnce(&Self) -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
                let network = Self(());
                network.ip(&["link", "set", "lo", "up"]);
                test(&network)
            });
            thread.join().unwrap_or_else(|reason| panic::resume_unwind(reason))
        })
    }

    /// Run `ip` in the namespace; it must succeed.
    pub fn ip(&self, args: &[&str]) {
        let output = Command::new("ip").args(args).output().expect("ip starts");
        assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    }

    /// Make a tap with these addresses, up.
    pub fn tap(&self, name: &str, addresses: &[&str]) {
        self.ip(&["tuntap", "add", name, "mode", "tap"]);
        self.ip(&["link", "set", name, "up"]);
        for address in addresses {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            self.ip(&[&["address", "add", address, "dev", name], nodad].concat());
        }
    }

    /// Whether one of a few pings is answered. `tap` sends them there whatever the routes say.
    pub fn ping(&self, address: IpAddr, tap: Option<&str>, count: u32) -> bool {
        let mut command = Command::new("ping");
        command.args(["-n", "-q", "-W", "1", "-c", &count.to_string()]);
        if let Some(tap) = tap {
            command.args(["-I", tap]);
        }
        command.arg(address.to_string()).output().expect("ping starts").status.success()
    }

    /// Ping until there is an answer, as long as patience lasts.
    pub fn answers(&self, address: IpAddr) -> bool {
        let give_up = Instant::now() + PATIENCE;
        while Instant::now() < give_up {
            if self.ping(address, None, 1) {
                return true;
            }
        }
        false
    }
}

/// A NIC of a machine.
pub struct Nic {
    pub tap: &'static str,
    pub driver: &'static str,
    pub mac: &'static str,
}

/// A QEMU that was started directly; it ends with this value, and with the thread that made it.
pub struct Machine {
    qemu: Child,
    console: PathBuf,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// Start one in the namespace. `append` goes to the kernel command line.
    pub fn start(_network: &Network, guest: &Guest, append: &str, nics: &[Nic]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let console = folder.path().join("console");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.args(["-accel", "tcg", "-cpu", "max", "-m", "128", "-serial", "stdio"]);
        command.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
        command.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 {append}"));
        for (number, nic) in nics.iter().enumerate() {
            command.arg("-netdev");
            command.arg(format!("tap,id=n{number},ifname={},script=no,downscript=no", nic.tap));
            command.arg("-device").arg(format!("{},netdev=n{number},mac={},romfile=", nic.driver, nic.mac));
        }
        let output = File::create(&console).expect("the folder is writable");
        let errors = output.try_clone().expect("descriptors are left");
        let qemu = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("setpriv starts");
        Self { qemu, console, _folder: folder }
    }

    /// What the serial console has printed so far, and QEMU's own messages.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).expect("the console file is there")).into_owned()
    }

    /// Wait for a line that ends with `text` on the console; fails with all of the console if QEMU ends first.
    pub fn wait_for(&mut self, text: &str) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let ended = self.qemu.try_wait().expect("QEMU is our child");
            if self.console().lines().any(|line| line.ends_with(text)) {
                return;
            }
            assert!(ended.is_none(), "QEMU ended ({ended:?}) before {text:?}:\n{}", self.console());
            assert!(Instant::now() < give_up, "{text:?} never came:\n{}", self.console());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Wait until QEMU ends by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.qemu.try_wait().expect("QEMU is our child") {
                return status;
            }
            assert!(Instant::now() < give_up, "QEMU does not end:\n{}", self.console());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails if it has ended already, which is as good.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
