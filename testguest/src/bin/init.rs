//! Process 1 of the test guest: loads drivers, configures the NICs from the kernel command line, says so, and stays.
//!
//! It never exits (the kernel would panic): what fails is reported on the console, and the rest goes on.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use testguest::archive::{MODULE_LIST, MODULES};
use testguest::netlink::Netlink;
use testguest::nic;
use testguest::options::Options;

fn main() {
    if getpid() != Pid::from_raw(1) {
        eprintln!("this is the init of megaform's test guest; it runs as process 1 of a virtual machine only");
        std::process::exit(2);
    }
    let started = Instant::now();
    let mut console = Console { serial: None };
    for (source, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let mounted = mount(Some(source), target, Some(source), MsFlags::empty(), None::<&str>);
        console.check(&format!("mount {target}"), mounted.map_err(io::Error::from));
    }
    console.open_serial();
    load_modules(&mut console);
    let options = match fs::read_to_string("/proc/cmdline") {
        Ok(text) => Options::parse(&text),
        Err(error) => {
            console.say(&format!("read /proc/cmdline: {error}"));
            Options::default()
        }
    };
    for problem in &options.problems {
        console.say(problem);
    }
    let configured = configure(&mut console, &options);
    console.check("configure the network", configured);
    console.say("ready");
    serve(&mut console, options.poweroff.map(|after| started + after));
}

/// Where the guest's lines go: `/dev/console`, and the first serial port where that is not the console.
struct Console {
    serial: Option<File>,
}

impl Console {
    /// Find out whether the serial port needs lines of its own; needs `/sys` and `/dev`.
    fn open_serial(&mut self) {
        let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        if !active.split_ascii_whitespace().any(|name| name == "ttyS0") {
            // A machine without a serial port is fine.
            self.serial = OpenOptions::new().write(true).open("/dev/ttyS0").ok();
        }
    }

    /// Print one line. Nowhere to print to is no reason to stop.
    fn say(&mut self, text: &str) {
        let line = format!("megaform-guest: {text}\n");
        let _ = io::stdout().write_all(line.as_bytes());
        if let Some(serial) = &mut self.serial {
            let _ = serial.write_all(line.as_bytes());
        }
    }

    fn check(&mut self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            self.say(&format!("{what}: {error}"));
        }
    }
}

/// Load the modules that the list names, in its order.
fn load_modules(console: &mut Console) {
    let list = match fs::read_to_string(MODULE_LIST) {
        Ok(list) => list,
        Err(error) => return console.say(&format!("read {MODULE_LIST}: {error}")),
    };
    for name in list.lines() {
        let loaded = File::open(Path::new(MODULES).join(name))
            .and_then(|file| Ok(finit_module(file, c"", ModuleInitFlags::empty())?));
        console.check(&format!("load {name}"), loaded);
    }
}

/// Set every interface up and give the NICs their addresses.
fn configure(console: &mut Console, options: &Options) -> io::Result<()> {
    // Answer ARP on an interface for the addresses of that interface only; Linux answers for all by default, and then
    // two NICs of a guest on one broadcast domain are one.
    let strict = fs::write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1");
    console.check("set arp_ignore", strict);
    let netlink = Netlink::open()?;
    let loopback = fs::read_to_string("/sys/class/net/lo/ifindex")?;
    netlink.set_up(loopback.trim().parse().map_err(io::Error::other)?)?;
    let nics = nic::list(Path::new("/sys/class/net"))?;
    for (number, nic) in nics.iter().enumerate() {
        let mut line = format!("{} {}", nic.name, nic.mac);
        for (address, prefix) in options.addresses.get(&number).into_iter().flatten() {
            match netlink.add_address(nic.index, *address, *prefix) {
                Ok(()) => line.push_str(&format!(" {address}/{prefix}")),
                Err(error) => console.say(&format!("add {address}/{prefix} to {}: {error}", nic.name)),
            }
        }
        console.check(&format!("set {} up", nic.name), netlink.set_up(nic.index));
        console.say(&line);
    }
    for number in options.addresses.keys().filter(|number| **number >= nics.len()) {
        console.say(&format!("ip.{number}: there are {} NICs", nics.len()));
    }
    Ok(())
}

/// Reap orphans, and power off when it is time. Sleeps in between, so that an idle guest costs its host nothing.
fn serve(console: &mut Console, mut poweroff: Option<Instant>) -> ! {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let signals = children.thread_block().and_then(|()| SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK)).ok();
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        let left = poweroff.map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            poweroff = None;
            let error = power_off();
            console.say(&format!("power off: {error}"));
            continue;
        }
        match &signals {
            Some(signals) => {
                let timeout = left.map_or(PollTimeout::NONE, |left| {
                    // Rounded up, so that the last wait does not turn into a busy loop.
                    PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
                });
                let _ = poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], timeout);
                while let Ok(Some(_)) = signals.read_signal() {}
            }
            // Without the descriptor, look once a second.
            None => thread::sleep(left.map_or(Duration::from_secs(1), |left| left.min(Duration::from_secs(1)))),
        }
    }
}

/// Power the machine off; returns only with an error. Nothing is mounted that would have to be written first.
fn power_off() -> Errno {
    let result: Result<Infallible, Errno> = reboot(RebootMode::RB_POWER_OFF);
    match result {
        Err(error) => error,
    }
}
