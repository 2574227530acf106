//! The QEMU command line of a VM. Pure: the same VM gives the same arguments.
//!
//! Sources: QEMU's documentation of its invocation (qemu-system-x86_64(1)); minimega's layout of sockets in the VM's
//! folder (`qmp`, `vnc`, `serialN`, `virtio-serialN`).

use std::path::{Path, PathBuf};

use crate::language::diskspec::{DEFAULT_INTERFACE, DiskSpec};
use crate::language::field::VmConfig;

use super::serial::log_name;
use super::usb::{HUB, HUB_PORT, PORTS, UsbDisk, UsbVersion};
use super::vm::Nic;

/// Where the agent in the guest finds its port, and the name of the port's socket in the VM's folder.
pub(super) const BACKCHANNEL: &str = "cc";

/// NICs per PCI bridge: a bridge has 32 slots and slot 0 is its own.
const NICS_PER_BRIDGE: usize = 31;

/// The PCI bridge of a NIC, counted from 1, and its slot there.
pub(super) fn nic_slot(index: usize) -> (usize, usize) {
    (index / NICS_PER_BRIDGE + 1, index % NICS_PER_BRIDGE + 1)
}

/// The argument that makes QEMU listen on QMP; every QEMU of an engine has it.
pub(super) const QMP_ARGUMENT: &str = "unix:qmp,server=on,wait=off";

/// Everything the command line depends on.
pub struct Guest<'a> {
    /// The VM's name.
    pub name: &'a str,
    /// The VM's UUID.
    pub uuid: &'a str,
    /// `kvm` or `tcg`.
    pub accelerator: &'a str,
    /// What it was launched with; relative paths are relative to `files`.
    pub config: &'a VmConfig,
    /// Its NICs.
    pub nics: Vec<Card>,
    /// What is in its CD-ROM drive, which may have changed since; empty for nothing.
    pub cdrom: &'a str,
    /// The USB disks that it was given since.
    pub usb: &'a [UsbDisk],
    /// The engine's files folder.
    pub files: &'a str,
}

/// What QEMU needs to know of a NIC.
pub struct Card {
    /// Its tap.
    pub tap: String,
    /// Its address.
    pub mac: String,
    /// Its model.
    pub driver: String,
    /// Whether its guest must compute all checksums, see [`Bonding::plain_frames`](crate::host::Bonding::plain_frames).
    pub plain_frames: bool,
}

impl Card {
    /// The card of a NIC.
    pub fn new(nic: &Nic, plain_frames: bool) -> Self {
        Self { tap: nic.tap.to_string(), mac: nic.mac.to_string(), driver: nic.driver.clone(), plain_frames }
    }
}

/// A saved state as an absolute path.
pub(super) fn state_file(files: &Path, config: &VmConfig) -> Option<PathBuf> {
    let path = config.text("migrate");
    (!path.is_empty()).then(|| files.join(path))
}

/// A value inside a comma-separated QEMU option: commas are doubled.
pub(super) fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

/// Is it QEMU's own to read (`nbd://…`, `json:{…}`), and no file's path?
pub(super) fn is_protocol(path: &str) -> bool {
    path.split_once(':').is_some_and(|(p, _)| p.len() > 1 && p.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// A path as QEMU, which runs in the VM's folder, must see it.
pub(super) fn image_path(files: &str, path: &str) -> String {
    if path.starts_with('/') || is_protocol(path) { path.to_owned() } else { format!("{files}/{path}") }
}

impl Guest<'_> {
    fn path(&self, path: &str) -> String {
        image_path(self.files, path)
    }

    /// The arguments, without the program.
    pub fn arguments(&self) -> Vec<String> {
        let config = self.config;
        let mut args: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| {
            args.push(option.to_owned());
            args.push(value);
        };
        add("-name", escape(self.name));
        add("-uuid", self.uuid.to_owned());
        add("-accel", self.accelerator.to_owned());
        let machine = config.text("machine");
        if !machine.is_empty() {
            add("-machine", machine);
        }
        add(
            "-cpu",
            match config.text("cpu").as_str() {
                "" | "host" if self.accelerator == "tcg" => "max".to_owned(),
                "" => "host".to_owned(),
                cpu => cpu.to_owned(),
            },
        );
        add("-m", config.uint("memory").to_string());
        let mut smp = config.uint("vcpus").to_string();
        for part in ["sockets", "cores", "threads"] {
            if config.uint(part) > 0 {
                smp.push_str(&format!(",{part}={}", config.uint(part)));
            }
        }
        add("-smp", smp);
        add("-qmp", QMP_ARGUMENT.to_owned());
        add("-display", "none".to_owned());
        add("-vnc", "unix:vnc".to_owned());
        add("-vga", config.text("vga"));
        add("-monitor", "none".to_owned());
        add("-serial", "none".to_owned());
        add("-parallel", "none".to_owned());
        add("-net", "none".to_owned());
        add("-rtc", "clock=vm,base=utc".to_owned());
        add("-k", "en-us".to_owned());
        add("-pidfile", "qemu.pid".to_owned());
        if config.bool("usb-use-xhci") {
            add("-device", format!("qemu-xhci,id=xhci,p2={PORTS},p3=4"));
            add("-device", "usb-tablet,bus=xhci.0".to_owned());
        }
        for (option, field) in [("-kernel", "kernel"), ("-initrd", "initrd")] {
            let path = config.text(field);
            if !path.is_empty() {
                add(option, self.path(&path));
            }
        }
        let append = config.words("append");
        if !append.is_empty() {
            add("-append", append.join(" "));
        }
        for (index, disk) in config.disks().iter().enumerate() {
            for (option, value) in self.disk(index, disk) {
                add(option, value);
            }
        }
        // One that was launched with an image and has none now still has the drive, and boots from it.
        let boots_from_cdrom = !config.text("cdrom").is_empty();
        if !self.cdrom.is_empty() {
            // Where the machine's own drive is, if the image came to that one.
            let place = if boots_from_cdrom { "" } else { ",index=2" };
            add("-drive", format!("media=cdrom{place},file={}", escape(&self.path(self.cdrom))));
        } else if boots_from_cdrom {
            add("-drive", "media=cdrom".to_owned());
        }
        if boots_from_cdrom {
            add("-boot", "order=dc".to_owned());
        }
        if self.usb.iter().any(|disk| disk.version == UsbVersion::Full) {
            add("-device", format!("usb-hub,id={HUB},bus=xhci.0,port={HUB_PORT}"));
        }
        for disk in self.usb {
            add("-drive", disk.drive(self.files, config.bool("snapshot")));
            let (name, port) = (disk.name(), &disk.port);
            let serial =
                if disk.serial.is_empty() { String::new() } else { format!(",serial={}", escape(&disk.serial)) };
            add("-device", format!("usb-storage,id={name},drive={name},bus=xhci.0,port={port}{serial}"));
        }
        for port in 0..config.uint("serial-ports") {
            let device = if port < 4 { "isa-serial" } else { "pci-serial" };
            let log = format!("logfile={},logappend=on", log_name(port));
            add("-chardev", format!("socket,id=charserial{port},path=serial{port},server=on,wait=off,{log}"));
            add("-device", format!("{device},chardev=charserial{port},id=serial{port}"));
        }
        self.virtio_ports(&mut add);
        for (index, nic) in self.nics.iter().enumerate() {
            let (bridge, slot) = nic_slot(index);
            if slot == 1 {
                add("-device", format!("pci-bridge,id=pci.{bridge},chassis_nr={bridge}"));
            }
            let plain = if nic.plain_frames { ",vnet_hdr=off" } else { "" };
            add("-netdev", format!("tap,id=net{index},ifname={},script=no,downscript=no{plain}", nic.tap));
            add(
                "-device",
                format!(
                    "driver={},id=nic{index},netdev=net{index},mac={},bus=pci.{bridge},addr={slot:#x}",
                    escape(&nic.driver),
                    nic.mac
                ),
            );
        }
        let tpm = config.text("tpm-socket");
        if !tpm.is_empty() {
            add("-chardev", format!("socket,id=chartpm,path={}", escape(&self.path(&tpm))));
            add("-tpmdev", "emulator,id=tpm0,chardev=chartpm".to_owned());
            add("-device", "tpm-tis,tpmdev=tpm0".to_owned());
        }
        if let Some(state) = state_file(Path::new(self.files), config) {
            // QEMU gives the text after `exec:` to a shell.
            let quoted = state.to_string_lossy().replace('\'', r"'\''");
            add("-incoming", format!("exec:cat '{quoted}'"));
        }
        args.push("-S".to_owned());
        args.extend(config.words("qemu-append"));
        args
    }

    fn disk(&self, index: usize, disk: &DiskSpec) -> Vec<(&'static str, String)> {
        let interface = disk.interface.as_deref().unwrap_or(DEFAULT_INTERFACE);
        let mut drive = format!("file={},media=disk", escape(&self.path(&disk.path)));
        if self.config.bool("snapshot") {
            drive.push_str(",snapshot=on");
        }
        if let Some(cache) = &disk.cache {
            drive.push_str(&format!(",cache={cache}"));
        }
        match interface {
            // An AHCI controller is a device of its own, shared by all such disks.
            "ahci" => {
                let first =
                    self.config.disks().iter().position(|d| d.interface.as_deref() == Some("ahci")) == Some(index);
                let port =
                    self.config.disks()[..index].iter().filter(|d| d.interface.as_deref() == Some("ahci")).count();
                let mut out = Vec::new();
                if first {
                    out.push(("-device", "ahci,id=ahci".to_owned()));
                }
                out.push(("-drive", format!("{drive},if=none,id=disk{index}")));
                out.push(("-device", format!("ide-hd,drive=disk{index},bus=ahci.{port}")));
                out
            }
            other => vec![("-drive", format!("{drive},if={other},id=disk{index}"))],
        }
    }

    fn virtio_ports(&self, add: &mut impl FnMut(&str, String)) {
        let text = self.config.text("virtio-ports");
        let names: Vec<String> = match text.parse::<usize>() {
            Ok(count) => (0..count).map(|n| format!("virtio-serial{n}")).collect(),
            Err(_) => text.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect(),
        };
        let (clipboard, backchannel) = (self.config.bool("bidirectional-copy-paste"), self.config.bool("backchannel"));
        if names.is_empty() && !clipboard && !backchannel {
            return;
        }
        // Port 0 is a console's. Each port that there may be takes memory of the host, even where nothing uses it.
        let ports = 1 + names.len() + usize::from(backchannel) + usize::from(clipboard);
        add("-device", format!("virtio-serial-pci,id=virtio-serial0,max_ports={ports}"));
        for (port, name) in names.iter().enumerate() {
            add("-chardev", format!("socket,id=charvserial{port},path=virtio-serial{port},server=on,wait=off"));
            add(
                "-device",
                format!(
                    "virtserialport,bus=virtio-serial0.0,chardev=charvserial{port},id=vserial{port},name={}",
                    escape(name)
                ),
            );
        }
        if backchannel {
            add("-chardev", format!("socket,id=charvserialCC,path={BACKCHANNEL},server=on,wait=off"));
            let device = "virtserialport,bus=virtio-serial0.0,chardev=charvserialCC,id=vserialCC";
            add("-device", format!("{device},name={BACKCHANNEL}"));
        }
        if clipboard {
            add("-chardev", "qemu-vdagent,id=vdagent,name=vdagent,clipboard=on".to_owned());
            add("-device", "virtserialport,bus=virtio-serial0.0,chardev=vdagent,name=com.redhat.spice.0".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::field::field;

    fn config(fields: &[(&str, &[&str])]) -> VmConfig {
        let mut config = VmConfig::new();
        for (name, args) in fields {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            config.set(name, field(name).unwrap().parse(&args).unwrap());
        }
        config
    }

    fn line(config: &VmConfig, nics: &[Nic]) -> String {
        let nics = nics.iter().map(|nic| Card::new(nic, false)).collect();
        let cdrom = config.text("cdrom");
        holding(config, nics, &cdrom)
    }

    fn holding(config: &VmConfig, nics: Vec<Card>, cdrom: &str) -> String {
        let guest =
            Guest { name: "a,b", uuid: "u", accelerator: "tcg", config, nics, cdrom, usb: &[], files: "/base/files" };
        guest.arguments().join(" ")
    }

    #[test]
    fn values_cannot_become_other_options() {
        let text = line(&config(&[("disks", &["odd;name=x.qcow2"]), ("cdrom", &["/iso/a,snapshot=off.iso"])]), &[]);
        assert!(text.contains("-name a,,b "), "{text}");
        assert!(
            text.contains("-drive file=/base/files/odd;name=x.qcow2,media=disk,snapshot=on,if=ide,id=disk0"),
            "{text}"
        );
        assert!(text.contains("media=cdrom,file=/iso/a,,snapshot=off.iso"), "{text}");
    }

    #[test]
    fn another_cdrom_leaves_the_boot_order() {
        let (with, without) = (config(&[("cdrom", &["a.iso"])]), VmConfig::new());
        let ejected = holding(&with, Vec::new(), "");
        assert!(ejected.contains("-drive media=cdrom -boot order=dc"), "{ejected}");
        let changed = holding(&with, Vec::new(), "b.iso");
        assert!(changed.contains("-drive media=cdrom,file=/base/files/b.iso -boot order=dc"), "{changed}");
        let inserted = holding(&without, Vec::new(), "/b.iso");
        assert!(inserted.contains("media=cdrom,index=2,file=/b.iso") && !inserted.contains("-boot"), "{inserted}");
        assert!(!line(&without, &[]).contains("cdrom"));
    }

    #[test]
    fn a_state_is_quoted_for_the_shell() {
        let text = line(&config(&[("migrate", &["it's; here"])]), &[]);
        assert!(text.contains(r"-incoming exec:cat '/base/files/it'\''s; here' -S"), "{text}");
        assert!(line(&config(&[("migrate", &["/x"])]), &[]).contains("exec:cat '/x'"));
        assert!(!line(&VmConfig::new(), &[]).contains("-incoming"));
    }

    #[test]
    fn the_backchannel_is_a_port_of_its_own() {
        let text = line(&config(&[("virtio-ports", &["one"])]), &[]);
        assert!(text.contains("chardev=charvserial0,id=vserial0,name=one"), "{text}");
        assert!(text.contains("path=cc,server=on,wait=off") && text.contains("id=vserialCC,name=cc"), "{text}");
        assert!(!line(&config(&[("backchannel", &["false"])]), &[]).contains("virtio-serial"));
    }

    #[test]
    fn what_a_guest_writes_on_a_serial_port_is_appended_to_a_file() {
        let text = line(&config(&[("serial-ports", &["2"])]), &[]);
        let socket = "socket,id=charserial1,path=serial1,server=on,wait=off,logfile=serial1.log,logappend=on";
        assert!(text.contains(&format!("-chardev {socket} -device isa-serial,chardev=charserial1")), "{text}");
        assert!(!line(&VmConfig::new(), &[]).contains("logfile"));
    }

    #[test]
    fn thirty_two_nics_take_two_bridges() {
        let nic = |n: usize| Nic {
            tap: format!("mega_tap{n}").parse().unwrap(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            driver: "e1000".into(),
            bridge: crate::name::BridgeName::default_bridge(),
            vlan: None,
            raw: String::new(),
            ip4: None,
            ip6: None,
            shape: crate::name::Shape::default(),
        };
        let nics: Vec<Nic> = (0..32).map(nic).collect();
        let text = line(&VmConfig::new(), &nics);
        assert!(text.contains("id=pci.2,chassis_nr=2"));
        assert!(text.contains("netdev=net31,mac=52:54:00:00:00:01,bus=pci.2,addr=0x1"));
    }

    #[test]
    fn the_cpu_follows_the_accelerator() {
        assert!(line(&VmConfig::new(), &[]).contains("-cpu max"));
        assert!(line(&config(&[("cpu", &["qemu64"])]), &[]).contains("-cpu qemu64"));
        assert!(line(&config(&[("vcpus", &["4"]), ("cores", &["2"])]), &[]).contains("-smp 4,cores=2"));
    }
}
