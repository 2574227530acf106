//! Process 1 of the initramfs of the full test host (`scripts/testhost`): loads the drivers of its disk, mounts that as
//! root and hands over to its `/init`.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::unistd::{Pid, getpid};
use testguest::archive::{MODULE_LIST, MODULES};

/// The first virtio disk.
const DISK: &str = "/dev/vda";

fn main() {
    if getpid() != Pid::from_raw(1) {
        eprintln!("this is the init of an initramfs; it runs as process 1 of a virtual machine only");
        std::process::exit(2);
    }
    let Err(error) = hand_over();
    println!("switchroot: {error}");
    // The kernel would panic if process 1 ended, and say nothing of use.
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn hand_over() -> Result<Infallible, Box<dyn Error>> {
    mount(Some("dev"), "/dev", Some("devtmpfs"), MsFlags::empty(), None::<&str>)?;
    for name in fs::read_to_string(MODULE_LIST)?.lines() {
        let file = File::open(Path::new(MODULES).join(name))?;
        finit_module(file, c"", ModuleInitFlags::empty()).map_err(|error| format!("load {name}: {error}"))?;
    }
    for _ in 0..100 {
        if Path::new(DISK).exists() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    // /sys is a folder of the initramfs that nothing needs here.
    mount(Some(DISK), "/sys", Some("ext4"), MsFlags::MS_NOATIME, None::<&str>)
        .map_err(|error| format!("mount {DISK}: {error}"))?;
    mount(Some("/dev"), "/sys/dev", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    env::set_current_dir("/sys")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    env::set_current_dir("/")?;
    Err(format!("run /init: {}", Command::new("/init").exec()).into())
}
