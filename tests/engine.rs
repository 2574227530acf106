//! The engine over its socket, with real QEMUs that never start a guest.
#![allow(missing_docs)]

mod support;

use support::{Lab, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];

fn states(lab: &Lab) -> Vec<String> {
    let mut rows: Vec<String> = lab.rows(".columns name,state vm info").iter().map(|r| r.join(" ")).collect();
    rows.sort();
    rows
}

fn pid(lab: &Lab, name: &str) -> String {
    lab.rows(&format!(".columns pid .filter name={name} vm info"))[0][0].clone()
}

#[test]
fn a_vms_life() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN A,00:11:22:33:44:55,virtio-net-pci").ok();
    lab.e("vm launch kvm a[0-2]").ok();
    assert_eq!(states(&lab), ["a0 BUILDING", "a1 BUILDING", "a2 BUILDING"]);
    assert_eq!(lab.qemus().len(), 3);
    lab.e("vm start a0,a1").ok();
    lab.e("vm stop a0").ok();
    lab.e("vm stop a0").fails("VM state error: a0");
    assert_eq!(states(&lab), ["a0 PAUSED", "a1 RUNNING", "a2 BUILDING"]);
    let vlans = lab.e(".annotate false .headers false .columns name,vlan,bridge vm info").ok().out;
    assert!(
        vlans.contains("a1   | [LAN (101), A (102)] | [mega_bridge, mega_bridge]")
            || vlans.contains("a1 | [LAN (101), A (102)] | [mega_bridge, mega_bridge]"),
        "{vlans}"
    );
    let status = lab.e("vm qmp a1 '{ \"execute\": \"query-status\" }'").ok().out;
    assert!(status.contains("\"running\":true"), "{status}");
    lab.e("vm kill all").ok();
    assert_eq!(states(&lab), ["a0 QUIT", "a1 QUIT", "a2 QUIT"]);
    assert!(lab.qemus().is_empty());
    lab.e("vm start a1").ok();
    assert_eq!(states(&lab), ["a0 QUIT", "a1 RUNNING", "a2 QUIT"]);
    lab.e("vm flush a1").fails("vm a1 is RUNNING");
    lab.e("vm kill a1").ok();
    lab.e("vm flush").ok();
    assert!(states(&lab).is_empty());
    assert!(!lab.mounted(), "the network namespace goes with the last VM");
}

#[test]
fn qemus_own_words_reach_the_user() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config kernel /nonexistent/vmlinuz").ok();
    lab.e("vm launch kvm bad").fails("could not open kernel file '/nonexistent/vmlinuz'");
    assert_eq!(states(&lab), ["bad ERROR"]);
    lab.e("vm config qemu /nonexistent/qemu").ok();
    lab.e("vm launch kvm worse").fails("cannot start /nonexistent/qemu");
    lab.e("vm flush").ok();
    assert!(states(&lab).is_empty());
    assert!(!lab.mounted());
}

#[test]
fn refusals_make_nothing() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    let long = format!("vm launch kvm {}", "a".repeat(300));
    for (line, text) in [
        ("vm launch kvm all", "`all` is a reserved word"),
        ("vm launch kvm [0]", "`0` is an integer"),
        ("vm launch kvm 0", "invalid number of vms"),
        ("vm launch kvm \"a b\"", "must only include letters, numbers, hyphens and underscores: `a b`"),
        ("vm launch kvm 'x\"y'", "must only include"),
        ("vm launch kvm \"#c\"", "must only include"),
        ("vm launch kvm naïve", "must only include"),
        ("vm launch kvm \"a\\nb\"", "must only include"),
        (&long, "300 characters"),
        ("vm launch kvm a,a", "specified twice"),
        ("vm launch kvm a[1-3", "unterminated '['"),
        ("vm launch kvm a[3-1]", "no VMs to launch"),
        ("vm launch kvm a nosuch", "config nosuch does not exist"),
        ("namespace all vm launch kvm a", "reserved word"),
    ] {
        lab.e(line).fails(text);
    }
    assert!(states(&lab).is_empty());
    assert_eq!(lab.rows(".columns namespace namespace"), [["minimega"]]);
    lab.e("vm config uuid 2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11").ok();
    lab.e("vm launch kvm a[0-1]").fails("only one VM can have it");
    lab.e("vm launch kvm a").ok();
    lab.e("vm launch kvm b").fails("already exists with UUID");
    lab.e("clear vm config uuid").ok();
    lab.e("vm launch kvm b,a").fails("already exists with name `a`");
    assert_eq!(states(&lab), ["a BUILDING"], "b was not launched without a");
}

#[test]
fn a_restarted_daemon_adopts_its_vms() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    for line in [
        "namespace lab vlans add core 200",
        "namespace lab vm config memory 16",
        "namespace lab vm config net core LAN",
        "namespace lab vm config tags role server",
        "namespace lab vm launch kvm a,b,c",
        "namespace lab vm start a",
        "namespace lab vm net connect a 1 core",
        "namespace lab tap create core ip 10.0.0.254/24 mgmt",
    ] {
        lab.e(line).ok();
    }
    let columns = "namespace lab .columns name,state,uuid,pid,vlan,bridge,tap,mac,tags vm info";
    let before = lab.rows(columns);
    let killed = lab.rows("namespace lab .columns pid .filter name=b vm info")[0][0].parse().expect("a pid");
    lab.kill_daemon();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed), nix::sys::signal::Signal::SIGKILL).expect("our QEMU");
    wait_for("b's QEMU to end", || lab.qemus().len() == 2);
    lab.start_daemon();
    let after = lab.rows(columns);
    let pick =
        |rows: &Vec<Vec<String>>, name: &str| rows.iter().find(|r| r[0] == name).expect("the VM is there").join(",");
    assert_eq!(pick(&before, "a"), pick(&after, "a"));
    assert_eq!(pick(&before, "c"), pick(&after, "c"));
    assert!(pick(&after, "b").starts_with("b,QUIT"), "{after:?}");
    assert_eq!(lab.rows("namespace lab tap"), [["mega_bridge", "mgmt", "core (200)"]]);
    lab.e("namespace lab vm stop a").ok();
    lab.e("clear namespace lab").ok();
    assert!(lab.qemus().is_empty());
    assert!(!lab.mounted());
}

#[test]
fn a_launch_that_was_cut_off_leaves_no_orphan() {
    if !have(NEEDS) {
        return;
    }
    for delay in [0, 20, 60, 150, 400] {
        let mut lab = Lab::with_daemon();
        lab.e("vm config memory 16").ok();
        lab.e("vm config net LAN LAN2").ok();
        let mut client = lab
            .program()
            .args(["-e", "vm launch kvm a[0-5]"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        std::thread::sleep(std::time::Duration::from_millis(delay));
        lab.kill_daemon();
        let _ = client.wait();
        lab.start_daemon();
        let known: Vec<String> = lab
            .rows(".columns pid,state vm info")
            .iter()
            .filter(|r| r[1] != "QUIT" && r[1] != "ERROR")
            .map(|r| r[0].clone())
            .collect();
        let mut running: Vec<String> = lab.qemus().iter().map(ToString::to_string).collect();
        let mut known = known;
        known.sort();
        running.sort();
        assert_eq!(known, running, "after {delay} ms");
        lab.e("clear namespace all").ok();
        assert!(lab.qemus().is_empty() && !lab.mounted(), "after {delay} ms");
    }
}

#[test]
fn a_nic_moves_while_its_qemu_stays() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN").ok();
    lab.e("vm launch kvm a").ok();
    let before = pid(&lab, "a");
    lab.e("vm net connect a 0 other").ok();
    assert_eq!(lab.rows(".columns vlan vm info"), [["[other (102)]"]]);
    lab.e("vm net disconnect a 0").ok();
    assert_eq!(lab.rows(".columns vlan vm info"), [["[disconnected]"]]);
    lab.e("vm net connect a 7 LAN").fails("no network 7, VM only has 1 networks");
    // What is not there is not taken and ignored.
    lab.e("vm config networks LAN OTHER,qinq").fails("netspec `OTHER,qinq` asks for qinq");
    lab.e("vm net add a br0,OTHER,e1000,qinq").fails("asks for qinq");
    assert!(!lab.rows("vlans").concat().contains(&"OTHER".to_owned()), "{:?}", lab.rows("vlans"));
    lab.e("vm net connect a 0 4096").fails("invalid VLAN");
    lab.e("vm net connect a 0 LAN").ok();
    assert_eq!(pid(&lab, "a"), before);
}

#[test]
fn a_qemu_that_is_killed_is_noticed() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN").ok();
    lab.e("vm launch kvm a").ok();
    let qemu = pid(&lab, "a").parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(qemu), nix::sys::signal::Signal::SIGKILL).expect("our QEMU");
    wait_for("the VM to fail", || states(&lab) == ["a ERROR"]);
    lab.e("vm start a").ok();
    assert_eq!(states(&lab), ["a RUNNING"]);
}

#[test]
fn host_taps() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    assert_eq!(lab.e(".annotate false tap create LAN").ok().out.trim(), "mega_tap0");
    lab.e("tap create LAN name mytap").ok();
    lab.e("tap create LAN name mytap").fails("tap already on bridge");
    lab.e("tap create 10 bridge minitest ip 10.9.8.1/24 t9").ok();
    lab.e("tap create 10 ip 10.9.8.1 t10").fails("with its prefix length");
    lab.e("tap create 10 name 0123456789abcdef").fails("limit is 15");
    lab.e("namespace other tap create LAN name mytap").fails("tap already on bridge");
    let mut rows = lab.rows("tap");
    rows.sort();
    assert_eq!(
        rows,
        [["mega_bridge", "mega_tap0", "LAN (101)"], ["mega_bridge", "mytap", "LAN (101)"], ["minitest", "t9", "10"]]
    );
    let shown = lab.e(".annotate false shell ip -o -4 address show dev t9").ok().out;
    assert!(shown.contains("10.9.8.1/24"), "{shown}");
    assert!(lab.rows("namespace other tap").is_empty());
    lab.e("tap delete nosuch").fails("unknown tap");
    lab.e("tap delete mytap").ok();
    lab.e("clear tap").ok();
    assert!(lab.rows("tap").is_empty());
    assert!(!lab.mounted());
}

#[test]
fn every_column_of_3_1_0() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    let header = lab.e(".annotate false .csv true vm info").ok().out.lines().next().unwrap_or_default().to_owned();
    assert_eq!(
        header,
        "id,name,state,uptime,type,uuid,cc_active,pid,vlan,bridge,tap,mac,ip,ip6,qos,qinq,bond,memory,vcpus,disks,snapshot,\
         initrd,kernel,cdrom,save,append,serial-ports,virtio-ports,vnc_port,usb-use-xhci,tpm-socket,\
         bidirectional-copy-paste,android_avd,android_console_port,android_adb_port,android_serial,filesystem,hostname,\
         init,preinit,fifo,volume,console_port,tags"
    );
    let data: serde_json::Value = serde_json::from_str(&lab.e(".json true vm info").ok().out).expect("JSON");
    let record = &data[0]["Data"][0];
    for key in [
        "UUID",
        "VCPUs",
        "Memory",
        "Snapshot",
        "Networks",
        "Tags",
        "ID",
        "Name",
        "Namespace",
        "Host",
        "State",
        "LaunchTime",
        "Type",
        "ActiveCC",
        "Pid",
        "QemuPath",
        "KernelPath",
        "InitrdPath",
        "CdromPath",
        "CPU",
        "Sockets",
        "Cores",
        "Threads",
        "Machine",
        "SerialPorts",
        "VirtioPorts",
        "Vga",
        "Append",
        "Disks",
        "UsbUseXHCI",
        "TpmSocketPath",
        "BidirectionalCopyPaste",
        "QemuAppend",
        "VNCPort",
    ] {
        assert!(record.get(key).is_some(), "Data lacks {key}");
    }
}

#[test]
fn every_field_reaches_qemu() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    for name in ["a.img", "b,c.img"] {
        let image = std::fs::File::create(lab.base.join("files").join(name)).expect("the files folder");
        image.set_len(16 << 20).expect("a sparse file");
    }
    let cdrom = lab.file("cd.iso", &"x".repeat(4096));
    for line in [
        "vm config memory 24",
        "vm config vcpus 4",
        "vm config sockets 1",
        "vm config cores 2",
        "vm config threads 2",
        "vm config machine q35",
        "vm config cpu qemu64",
        "vm config vga cirrus",
        "vm config uuid 2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11",
        "vm config disks a.img,virtio,unsafe",
        &format!("vm config cdrom {}", cdrom.display()),
        "vm config serial-ports 5",
        "vm config virtio-ports org.one,two",
        "vm config bidirectional-copy-paste true",
        "vm config usb-use-xhci true",
        "vm config append console=ttyS0 \"a b\"",
        "vm config qemu-append -device pci-testdev",
        "vm config net LAN,52:54:00:00:00:07,virtio-net-pci",
        "vm config tags role server",
    ] {
        lab.e(line).ok();
    }
    // The kernel's command line needs a kernel, which QEMU loads before the guest runs.
    lab.e("vm config append").ok();
    lab.e("clear vm config append").ok();
    lab.e("vm launch kvm a").ok();
    let ask = |command: &str| -> serde_json::Value {
        let text = lab.e(&format!(".annotate false vm qmp a '{{\"execute\": {command}}}'")).ok().out;
        let answer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        answer["return"].clone()
    };
    assert_eq!(ask("\"query-memory-size-summary\"")["base-memory"], 24 << 20);
    assert_eq!(ask("\"query-cpus-fast\"").as_array().map(Vec::len), Some(4));
    let last = ask("\"query-cpus-fast\"")[3].clone();
    assert_eq!((&last["props"]["core-id"], &last["props"]["thread-id"]), (&1.into(), &1.into()), "{last}");
    assert!(last["qom-path"].as_str().is_some());
    let machine = ask("\"qom-get\", \"arguments\": {\"path\": \"/machine\", \"property\": \"type\"}");
    assert!(machine.as_str().is_some_and(|m| m.contains("q35")), "{machine}");
    assert_eq!(ask("\"query-uuid\"")["UUID"], "2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11");
    assert_eq!(ask("\"query-name\"")["name"], "a");
    let blocks = ask("\"query-block\"").to_string();
    assert!(blocks.contains("a.img") && blocks.contains("cd.iso"), "{blocks}");
    let chardevs = ask("\"query-chardev\"").to_string();
    for label in ["charserial4", "charvserial1", "vdagent"] {
        assert!(chardevs.contains(label), "{label} is not in {chardevs}");
    }
    let devices = ask("\"qom-list\", \"arguments\": {\"path\": \"/machine/peripheral\"}").to_string();
    for device in ["xhci", "nic0", "virtio-serial0"] {
        assert!(devices.contains(&format!("\"name\":\"{device}\"")), "{device} is not in {devices}");
    }
    let pci = ask("\"query-pci\"").to_string();
    // Cirrus Logic, and the device of qemu-append (Red Hat's 0x0005).
    assert!(pci.contains("\"vendor\":4115") && pci.contains("\"device\":5,"), "{pci}");
    assert!(ask("\"query-rx-filter\"").to_string().contains("52:54:00:00:00:07"));
    let columns =
        "memory,vcpus,disks,snapshot,cdrom,serial-ports,virtio-ports,usb-use-xhci,bidirectional-copy-paste,tags";
    let shown = lab.e(&format!(".annotate false .headers false .columns {columns} vm info")).ok().out;
    for value in ["24", "4", "a.img,virtio,unsafe", "true", "cd.iso", "5", "org.one,two", "{\"role\":\"server\"}"] {
        assert!(shown.contains(value), "{value} is not in {shown}");
    }
    lab.e("vm kill a").ok();
    // An image whose name has a comma, a disk on AHCI, and no USB.
    lab.e("clear vm config").ok();
    lab.e("vm config memory 16").ok();
    lab.e("vm config usb-use-xhci false").ok();
    lab.e("vm config snapshot false").ok();
    lab.e("vm config virtio-ports 2").ok();
    lab.e("vm config disks a.img,ahci").ok();
    lab.e("vm config cdrom b,c.img").ok();
    lab.e("vm launch kvm b").ok();
    assert!(lab.e("vm qmp b '{\"execute\": \"query-block\"}'").ok().out.contains("/b,c.img"));
    assert!(lab.base.join("1/virtio-serial1").exists());
    lab.e("vm kill b").ok();
    // What is missing is said.
    lab.e("vm config tpm-socket /nonexistent/tpm").ok();
    lab.e("vm launch kvm c").fails("/nonexistent/tpm");
    lab.e("clear vm config tpm-socket").ok();
    lab.e("vm config disks nosuch.img").ok();
    lab.e("vm launch kvm d").fails("nosuch.img': No such file or directory");
}
