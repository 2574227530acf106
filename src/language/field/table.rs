//! The rows of the `vm config` field table. Must not know how values are parsed or printed.

use super::FieldType::*;
use super::Initial::{Bool as DBool, Empty, Int as DInt, Text as DText, Uint as DUint, Words as DWords};
use super::{Change, Field, Group};

macro_rules! fields {
    ($($name:literal $ty:expr, default $default:expr, title $title:literal, data $data:literal, column $column:expr,
       $group:ident, $change:ident, unit $unit:expr, $help:literal;)*) => {
        /// The table, in the order of minimega's `vm config`.
        pub static FIELDS: &[Field] = &[$(Field {
            name: $name, ty: $ty, default: $default, title: $title, data_key: $data, column: $column,
            group: Group::$group, change: Change::$change, unit: $unit, help: $help,
        }),*];
    };
}

fields! {
    "memory" Uint { min: 1, max: 16_777_216 }, default DUint(2048), title "Memory", data "Memory", column Some("memory"),
        Base, Replace, unit Some("MB"), "Physical memory of the VM in megabytes (2^20 bytes).";
    "vcpus" Uint { min: 1, max: 1024 }, default DUint(1), title "VCPUs", data "VCPUs", column Some("vcpus"),
        Base, Replace, unit None, "Number of virtual CPUs.";
    "networks" Networks, default Empty, title "Networks", data "Networks", column None,
        Base, Live, unit None, "The VM's NICs in order, each as a netspec: [bridge,]vlan[,mac][,driver][,qinq]. A VLAN is an alias or a tag; the default bridge is mega_bridge, the default driver e1000.";
    "bonds" Bonds, default Empty, title "Bonds", data "Bonds", column None,
        Base, Replace, unit None, "NICs that are bonded on the host, each bond as a bondspec, which is kept as it is. A launch makes no bonds and is refused with them: `vm net bond` makes them of running VMs.";
    "snapshot" Bool, default DBool(true), title "Snapshot", data "Snapshot", column Some("snapshot"),
        Base, Replace, unit None, "Discard what the guest writes to its disks when it ends, so that one image serves many VMs.";
    "uuid" Uuid, default Empty, title "UUID", data "UUID", column Some("uuid"),
        Base, Replace, unit None, "The VM's UUID; assigned at launch when not set. Only one VM can be launched with a given UUID.";
    "schedule" Text, default Empty, title "Schedule host", data "Schedule", column None,
        Base, Replace, unit None, "The host that the VM is to be scheduled on; not set leaves the choice to the scheduler.";
    "coschedule" Int { min: -1, max: 1_000_000 }, default DInt(-1), title "Coschedule limit", data "Coschedule", column None,
        Base, Replace, unit None, "The largest number of other VMs on the host that the VM is scheduled on; -1 sets no limit.";
    "colocate" Text, default Empty, title "Colocate", data "Colocate", column None,
        Base, Replace, unit None, "The name of a VM, launched or to be launched with this one, whose host is to be this one's too.";
    "backchannel" Bool, default DBool(true), title "Backchannel", data "Backchannel", column None,
        Base, Replace, unit None, "Give the VM a virtio-serial port called cc, which is the socket cc in the VM's folder, for an agent in the guest. The engine itself does not talk through it.";
    "tags" Tags, default Empty, title "Tags", data "Tags", column Some("tags"),
        Base, Live, unit None, "Key and value pairs that every VM launched with this configuration gets.";
    "migrate" Path, default Empty, title "State Path", data "MigratePath", column None,
        Kvm, Replace, unit None, "A state that QEMU saved by a migration to a file. A VM launched with it goes on from there, paused until `vm start`. The rest of the configuration must be that of the VM it was saved from.";
    "disks" Disks, default Empty, title "Disks", data "Disks", column Some("disks"),
        Kvm, Replace, unit None, "Disk images in order, each as a diskspec: path[,interface][,cache]. Any image that QEMU reads.";
    "cdrom" Path, default Empty, title "CDROM Path", data "CdromPath", column Some("cdrom"),
        Kvm, Replace, unit None, "An ISO image in the CD-ROM drive; a VM that is launched with one boots from it. `vm cdrom` changes it while the VM runs.";
    "kernel" Path, default Empty, title "Kernel Path", data "KernelPath", column Some("kernel"),
        Kvm, Replace, unit None, "A Linux kernel that QEMU boots directly.";
    "initrd" Path, default Empty, title "Initrd Path", data "InitrdPath", column Some("initrd"),
        Kvm, Replace, unit None, "The initial RAM disk that is passed to the kernel.";
    "append" Words, default Empty, title "Kernel Append", data "Append", column Some("append"),
        Kvm, Replace, unit None, "The kernel command line; needs a kernel.";
    "qemu" Path, default DText("kvm"), title "QEMU Path", data "QemuPath", column None,
        Kvm, Replace, unit None, "The QEMU program. The default, kvm, is the qemu-system program for this host with the accelerator that the engine chose.";
    "qemu-append" Words, default Empty, title "QEMU Append", data "QemuAppend", column None,
        Kvm, Replace, unit None, "Further arguments for QEMU, passed as they are at the end.";
    "qemu-override" Overrides, default Empty, title "QEMU Override", data "QemuOverride", column None,
        Kvm, Replace, unit None, "Replacements in QEMU's command line, each everywhere its text stands and in order, after everything else that makes the line.";
    "serial-ports" Uint { min: 0, max: 256 }, default DUint(0), title "Serial Ports", data "SerialPorts", column Some("serial-ports"),
        Kvm, Replace, unit None, "Number of serial ports; port N is the socket serialN in the VM's folder, and `vm serial` shows what the guest wrote there. More than 4 take a virtual PCI card.";
    "virtio-ports" Text, default Empty, title "Virtio-Serial Ports", data "VirtioPorts", column Some("virtio-ports"),
        Kvm, Replace, unit None, "virtio-serial ports: a number, or names joined by commas; port N is the socket virtio-serialN in the VM's folder.";
    "machine" Text, default Empty, title "Machine", data "Machine", column None,
        Kvm, Replace, unit None, "The machine type, as qemu -machine help lists them.";
    "cpu" Text, default DText("host"), title "CPU", data "CPU", column None,
        Kvm, Replace, unit None, "The CPU model, as qemu -cpu help lists them. host means the host's CPU under KVM and the model max under TCG.";
    "cores" Uint { min: 0, max: 1024 }, default DUint(0), title "Cores", data "Cores", column None,
        Kvm, Replace, unit None, "CPU cores per socket; 0 leaves it to QEMU.";
    "threads" Uint { min: 0, max: 1024 }, default DUint(0), title "Threads", data "Threads", column None,
        Kvm, Replace, unit None, "CPU threads per core; 0 leaves it to QEMU.";
    "sockets" Uint { min: 0, max: 1024 }, default DUint(0), title "Sockets", data "Sockets", column None,
        Kvm, Replace, unit None, "CPU sockets; 0 leaves it to QEMU.";
    "vga" Text, default DText("std"), title "VGA", data "Vga", column None,
        Kvm, Replace, unit None, "The display adapter, as qemu -vga help lists them.";
    "usb-use-xhci" Bool, default DBool(true), title "Usb Use XHCI", data "UsbUseXHCI", column Some("usb-use-xhci"),
        Kvm, Replace, unit None, "Add a USB 3 (xHCI) controller.";
    "bidirectional-copy-paste" Bool, default DBool(false), title "Bidirectional Copy Paste", data "BidirectionalCopyPaste", column Some("bidirectional-copy-paste"),
        Kvm, Replace, unit None, "Share the clipboard with VNC clients through a SPICE agent in the guest.";
    "tpm-socket" Path, default Empty, title "TPM Socket", data "TpmSocketPath", column Some("tpm-socket"),
        Kvm, Replace, unit None, "The control socket of a running TPM emulator (swtpm).";
    "filesystem" Path, default Empty, title "Filesystem Path", data "FilesystemPath", column Some("filesystem"),
        Container, Replace, unit None, "The folder that is the container's root filesystem.";
    "hostname" Text, default Empty, title "Hostname", data "Hostname", column Some("hostname"),
        Container, Replace, unit None, "The container's host name; the VM's name where none is set.";
    "init" Words, default DWords(&["/init"]), title "Init", data "Init", column Some("init"),
        Container, Replace, unit None, "The program that the container starts with, a path in its filesystem, and its arguments.";
    "preinit" Path, default Empty, title "Pre-init", data "Preinit", column Some("preinit"),
        Container, Replace, unit None, "A program that runs with full privileges before init.";
    "fifos" Uint { min: 0, max: 256 }, default DUint(0), title "FIFOs", data "Fifos", column Some("fifo"),
        Container, Replace, unit None, "Number of named pipes between the host and the container.";
    "volume" Volumes, default Empty, title "Volumes", data "VolumePaths", column Some("volume"),
        Container, Replace, unit None, "Folders of the host that the container mounts: the key is the place in the container, the value the folder.";
    "android-sdk" Path, default Empty, title "SDK Path", data "AndroidSDK", column None,
        Android, Replace, unit None, "The folder of the Android SDK.";
    "android-emulator" Path, default Empty, title "Emulator Path", data "AndroidEmulator", column None,
        Android, Replace, unit None, "The Android emulator, where it is not the SDK's own.";
    "android-adb" Path, default Empty, title "ADB Path", data "AndroidADB", column None,
        Android, Replace, unit None, "The program adb, where it is not the SDK's own.";
    "android-avd" Text, default Empty, title "AVD Name", data "AndroidAVD", column Some("android_avd"),
        Android, Replace, unit None, "The name of the Android virtual device.";
    "android-avd-dir" Path, default Empty, title "AVD Dir", data "AndroidAVDDir", column None,
        Android, Replace, unit None, "The folder of Android virtual devices.";
    "android-no-window" Bool, default DBool(true), title "No Window", data "AndroidNoWindow", column None,
        Android, Replace, unit None, "Run the emulator without a window.";
    "android-console-base-port" Uint { min: 0, max: 65_535 }, default DUint(0), title "Console Base Port", data "AndroidConsoleBasePort", column None,
        Android, Replace, unit None, "The first TCP port for emulator consoles; 0 leaves it to the emulator.";
    "android-extra-args" Words, default Empty, title "Extra Args", data "AndroidExtraArgs", column None,
        Android, Replace, unit None, "Further arguments for the emulator.";
    "android-writable-system" Bool, default DBool(false), title "Writable System", data "AndroidWritableSystem", column None,
        Android, Replace, unit None, "Let the emulator write to the system image.";
}
