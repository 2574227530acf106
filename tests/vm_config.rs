//! The `vm config` family over the socket: every field kept, shown and cleared, and what of it QEMU gets.
#![allow(missing_docs)]

mod support;

use std::os::unix::net::UnixStream;

use serde_json::Value;
use support::{Lab, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];

/// Each field with a value, as the command takes it and as the command shows it.
const VALUES: &[(&str, &str, &str)] = &[
    ("memory", "64", "64"),
    ("vcpus", "2", "2"),
    ("networks", "LAN br1,DMZ,virtio-net-pci", "[LAN br1,DMZ,virtio-net-pci]"),
    ("bonds", "0,1,active-backup", "[0,1,active-backup]"),
    ("snapshot", "false", "false"),
    ("uuid", "2C8A3F50-6F38-4D0B-9D49-0D6F2A4B7C11", "2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11"),
    ("schedule", "node1", "node1"),
    ("coschedule", "0", "0"),
    ("colocate", "web", "web"),
    ("backchannel", "false", "false"),
    ("state", "/s", "/s"),
    ("disks", "a.qcow2,virtio b.qcow2", "[a.qcow2,virtio b.qcow2]"),
    ("cdrom", "/c.iso", "/c.iso"),
    ("kernel", "/k", "/k"),
    ("initrd", "/i", "/i"),
    ("append", "a=b \"c d\"", "[a=b c d]"),
    ("qemu", "/q", "/q"),
    ("qemu-append", "-device x", "[-device x]"),
    ("serial-ports", "1", "1"),
    ("virtio-ports", "a,b", "a,b"),
    ("machine", "q35", "q35"),
    ("cpu", "qemu64", "qemu64"),
    ("cores", "2", "2"),
    ("threads", "2", "2"),
    ("sockets", "2", "2"),
    ("vga", "none", "none"),
    ("usb-use-xhci", "false", "false"),
    ("bidirectional-copy-paste", "true", "true"),
    ("tpm-socket", "/t", "/t"),
    ("filesystem", "/fs", "/fs"),
    ("hostname", "h", "h"),
    ("init", "/bin/sh -c x", "[/bin/sh -c x]"),
    ("preinit", "/p", "/p"),
    ("fifos", "3", "3"),
    ("android-sdk", "/sdk", "/sdk"),
    ("android-emulator", "/e", "/e"),
    ("android-adb", "/adb", "/adb"),
    ("android-avd", "phone", "phone"),
    ("android-avd-dir", "/avd", "/avd"),
    ("android-no-window", "false", "false"),
    ("android-console-base-port", "5554", "5554"),
    ("android-extra-args", "-no-audio -x", "[-no-audio -x]"),
    ("android-writable-system", "true", "true"),
];

fn shown(lab: &Lab, command: &str) -> String {
    lab.e(&format!(".annotate false {command}")).ok().out.trim_end_matches('\n').to_owned()
}

fn record(lab: &Lab, name: &str) -> Value {
    let answer: Value = serde_json::from_str(&lab.e(".json true vm info").ok().out).expect("JSON");
    let records = answer[0]["Data"].as_array().cloned().unwrap_or_default();
    records.into_iter().find(|record| record["Name"] == name).expect("the VM is listed")
}

fn command_line(lab: &Lab, name: &str) -> Vec<String> {
    let pid = record(lab, name)["Pid"].to_string();
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).expect("its QEMU runs");
    String::from_utf8_lossy(&bytes).split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn every_field_is_kept_saved_restored_and_cleared() {
    if !have(&["root"]) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let initial = shown(&lab, "vm config");
    let defaults: Vec<String> = VALUES.iter().map(|(name, ..)| shown(&lab, &format!("vm config {name}"))).collect();
    let set = |lab: &Lab| {
        for (name, value, _) in VALUES {
            lab.e(&format!("vm config {name} {value}")).ok();
        }
        lab.e("vm config volume /data /srv/data").ok();
        lab.e("vm config volume /home /srv/home").ok();
        lab.e("vm config tags role web").ok();
        lab.e("vm config qemu-override \"-vga none\" \"-vga std\"").ok();
    };
    set(&lab);
    let check = |lab: &Lab| {
        for (name, _, value) in VALUES {
            assert_eq!(shown(lab, &format!("vm config {name}")), *value, "{name}");
        }
        assert_eq!(shown(lab, "vm config migrate"), "/s");
        assert_eq!(shown(lab, "vm config volume"), "/data -> /srv/data\n/home -> /srv/home");
        assert_eq!(shown(lab, "vm config volume /home"), "/srv/home");
        assert!(shown(lab, "vm config qemu-override").contains("0\t-vga none\t-vga std\n"));
    };
    check(&lab);
    let full = shown(&lab, "vm config");
    lab.e("vm config save all-of-it").ok();
    lab.e("clear vm config").ok();
    assert_eq!(shown(&lab, "vm config"), initial);
    lab.kill_daemon();
    lab.start_daemon();
    lab.e("vm config restore all-of-it").ok();
    check(&lab);
    assert_eq!(shown(&lab, "vm config"), full);
    for ((name, ..), default) in VALUES.iter().zip(&defaults) {
        lab.e(&format!("clear vm config {name}")).ok();
        assert_eq!(shown(&lab, &format!("vm config {name}")), *default, "{name}");
    }
    for name in ["tags", "volume", "qemu-override"] {
        lab.e(&format!("clear vm config {name}")).ok();
    }
    assert_eq!(shown(&lab, "vm config"), initial);
    assert!(shown(&lab, "vm config qemu-override").starts_with("id\tmatch\treplacement\n\nBefore"));
    // One field, two words.
    lab.e("vm config migrate /m").ok();
    assert_eq!(shown(&lab, "vm config state"), "/m");
    lab.e("clear vm config migrate").ok();
    assert_eq!(shown(&lab, "vm config state"), "");
    for (line, error) in [
        ("vm config coschedule -2", "invalid coschedule `-2`, expected a whole number from -1 to"),
        ("vm config coschedule x", "invalid coschedule `x`"),
        ("vm config fifos -1", "invalid fifos `-1`"),
        ("vm config android-console-base-port 65536", "from 0 to 65535"),
        ("vm config backchannel maybe", "vm config backchannel"),
        ("vm config qemu-override \"\" x", "needs a text to match"),
    ] {
        lab.e(line).fails(error);
    }
    assert_eq!(shown(&lab, "vm config"), initial);
}

/// The names that minimega 3.1.0 gave up are prefixes of today's.
#[test]
fn forms_of_2018() {
    if !have(&["root"]) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config disk a.qcow2 b.qcow2,virtio").ok();
    assert_eq!(shown(&lab, "vm config disk"), "[a.qcow2 b.qcow2,virtio]");
    assert_eq!(shown(&lab, "vm config disks"), "[a.qcow2 b.qcow2,virtio]");
    lab.e("clear vm config disk").ok();
    assert_eq!(shown(&lab, "vm config disk"), "[]");
    lab.e("vm config net LAN").ok();
    assert_eq!(shown(&lab, "vm config net"), "[LAN]");
    assert!(shown(&lab, "help vm config disk").contains("vm config disks [diskspec]..."));
}

#[test]
fn aliases_have_tags_from_the_configuration_on() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let vlans = |namespace: &str| {
        let mut rows = lab.rows(&format!("namespace {namespace} vlans"));
        rows.sort();
        rows
    };
    lab.e("namespace a vm config net LAN br1,DMZ 7 b//CORE").ok();
    assert_eq!(vlans("a"), [["DMZ", "102"], ["LAN", "101"]]);
    assert_eq!(vlans("b"), [["CORE", "103"]]);
    // What is refused leaves no alias, and the configuration as it was.
    lab.e("namespace a vlans range 300 301").ok();
    lab.e("namespace a vm config net X Y").fails("no free vlan in 300-301 for `Y`");
    lab.e("namespace a vm config net Z 4096").fails("invalid VLAN");
    lab.e("namespace a vm config net Z \"a b\"").fails("a b");
    assert_eq!(vlans("a"), [["DMZ", "102"], ["LAN", "101"]]);
    assert_eq!(shown(&lab, "namespace a vm config net"), "[LAN br1,DMZ 7 b//CORE]");
    // A launch gives a tag again to an alias that was cleared.
    lab.e("namespace a clear vlans LAN").ok();
    lab.e("namespace a vm config memory 16").ok();
    lab.e("namespace a vm launch kvm vm1").ok();
    assert_eq!(vlans("a"), [["DMZ", "102"], ["LAN", "300"]]);
    lab.e("clear namespace a").ok();
    assert!(vlans("a").is_empty());
}

#[test]
fn overrides_change_what_qemu_gets() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN,52:54:00:00:00:07").ok();
    lab.e("vm config qemu-append -global \"isa-fdc.fallback=a b\"").ok();
    lab.e("vm config qemu-override \"-vga std\" \"-vga cirrus\"").ok();
    lab.e("vm config qemu-override cirrus none").ok();
    lab.e("vm config qemu-override \" -global \\\"isa-fdc.fallback=a b\\\"\" \"\"").ok();
    let table = shown(&lab, "vm config qemu-override");
    let parts: Vec<&str> = table.split("\n\n").collect();
    assert_eq!(
        parts[0],
        "id\tmatch\treplacement\n0\t-vga std\t-vga cirrus\n1\tcirrus\tnone\n2\t -global \"isa-fdc.fallback=a b\"\t"
    );
    let before = parts[1].strip_prefix("Before overrides:\n").expect("the line before");
    let after = parts[2].strip_prefix("After overrides:\n").expect("the line after");
    assert!(before.contains("-vga std") && before.contains("\"isa-fdc.fallback=a b\""), "{before}");
    lab.e("vm launch kvm a").ok();
    let started = command_line(&lab, "a")[1..].join(" ");
    let uuid = record(&lab, "a")["UUID"].as_str().expect("a UUID").to_owned();
    let expected = after.replace("NAME", "a").replace("UUID", &uuid).replace("TAP0", "mega_tap0");
    assert_eq!(started, expected);
    assert!(started.contains("-vga none") && !started.contains("isa-fdc"), "{started}");
    assert_eq!(record(&lab, "a")["QemuOverride"][1]["Replacement"], "none");
    // Overrides that leave no command line are refused when they are made, and at a launch with a saved configuration.
    lab.e("vm config qemu-override server=on server=off").fails("must leave `-qmp unix:qmp");
    lab.e("vm config qemu-override \"-k en-us\" \"\\\"\"").fails("a double quote without its pair");
    assert!(shown(&lab, "vm config qemu-override").starts_with(parts[0]));
    // A clone has them too.
    lab.e("clear vm config").ok();
    lab.e("vm config clone a").ok();
    assert!(shown(&lab, "vm config qemu-override").starts_with(parts[0]));
    assert_eq!(shown(&lab, "vm config net"), "[LAN]");
}

#[test]
fn bonds_are_refused_before_anything_is_made() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN LAN").ok();
    lab.e("vm config bonds 0,1,active-backup").ok();
    lab.e("vm launch kvm a").fails("bonds are not made by a launch");
    assert!(lab.rows("vm info").is_empty() && lab.qemus().is_empty());
    lab.e("clear vm config bonds").ok();
    lab.e("vm launch kvm a").ok();
}

#[test]
fn the_backchannel_is_a_port_of_the_vm() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    UnixStream::connect(lab.base.join("0/cc")).expect("QEMU listens");
    let ports = shown(&lab, "vm qmp a '{\"execute\": \"query-chardev\"}'");
    assert!(ports.contains("charvserialCC"), "{ports}");
    lab.e("vm config backchannel false").ok();
    lab.e("vm launch kvm b").ok();
    assert!(!lab.base.join("1/cc").exists());
    assert!(!command_line(&lab, "b").iter().any(|word| word.contains("virtio-serial")));
}

#[test]
fn a_saved_state_goes_on() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    lab.e("vm start a").ok();
    lab.e("vm stop a").ok();
    // The name must reach the shell that QEMU starts as it is.
    let file = lab.base.join("files/it's; $(false).state");
    let path = lab.folder.path().join("state");
    let migrate =
        format!("{{\"execute\": \"migrate\", \"arguments\": {{\"uri\": \"exec:cat > {}\"}}}}", path.display());
    lab.e(&format!("vm qmp a '{migrate}'")).ok();
    wait_for("the state to be written", || {
        shown(&lab, "vm qmp a '{\"execute\": \"query-migrate\"}'").contains("\"status\":\"completed\"")
    });
    std::fs::rename(&path, &file).expect("the same file system");
    lab.e("vm config state \"it's; $(false).state\"").ok();
    lab.e("vm launch kvm b").ok();
    let status = |name: &str| shown(&lab, &format!("vm qmp {name} '{{\"execute\": \"query-status\"}}'"));
    assert!(status("b").contains("\"status\":\"paused\""), "{}", status("b"));
    lab.e("vm start b").ok();
    assert!(status("b").contains("\"status\":\"running\""), "{}", status("b"));
    assert!(record(&lab, "b")["MigratePath"].as_str().is_some_and(|path| path.contains("$(false)")));
    // One that does not fit, one that is none, one that is not there.
    lab.e("vm config memory 32").ok();
    lab.e("vm launch kvm c").fails("Size mismatch");
    std::fs::write(lab.base.join("files/none"), "no state").expect("the files folder");
    lab.e("vm config state none").ok();
    lab.e("vm launch kvm d").fails("Not a migration stream");
    lab.e("vm config migrate nosuch").ok();
    lab.e("vm launch kvm e").fails("No such file");
    let mut states = lab.rows(".columns name,state vm info");
    states.sort();
    assert_eq!(states, [["a", "PAUSED"], ["b", "RUNNING"], ["c", "ERROR"], ["d", "ERROR"]]);
    assert_eq!(lab.qemus().len(), 2);
}

/// VMs of builds before USB disks could be added had another controller, which their saved states have too.
#[test]
fn a_saved_state_with_another_usb_controller_says_how_it_is_launched() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let then = "vm config qemu-override \",p2=15,p3=4\" \"\"";
    lab.e("vm config memory 16").ok();
    lab.e(then).ok();
    lab.e("vm launch kvm old").ok();
    lab.e("vm start old").ok();
    lab.e("vm stop old").ok();
    let path = lab.folder.path().join("state");
    let migrate =
        format!("{{\"execute\": \"migrate\", \"arguments\": {{\"uri\": \"exec:cat > {}\"}}}}", path.display());
    lab.e(&format!("vm qmp old '{migrate}'")).ok();
    wait_for("the state to be written", || {
        shown(&lab, "vm qmp old '{\"execute\": \"query-migrate\"}'").contains("\"status\":\"completed\"")
    });
    lab.e("clear vm config qemu-override").ok();
    lab.e(&format!("vm config migrate {}", path.display())).ok();
    lab.e("vm launch kvm new").fails(&format!("if an earlier build of megaform saved it, `{then}`"));
    // What the message says is the way.
    lab.e(then).ok();
    lab.e("vm launch kvm again").ok();
    assert!(shown(&lab, "vm qmp again '{\"execute\": \"query-status\"}'").contains("\"status\":\"paused\""));
}

/// The record of a VM has the keys of the recorded one, in its order, and says in `Error` why a VM failed.
#[test]
fn records_are_those_of_minimega() {
    if !have(NEEDS) {
        return;
    }
    let recorded = include_str!("data/exchanges.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .find(|row| row["n"] == 54)
        .expect("`vm info`");
    let response: Value = serde_json::from_str(recorded["responses"][0].as_str().expect("text")).expect("JSON");
    let keys = |record: &Value| -> Vec<String> {
        record.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let recorded = &response["Resp"][0]["Data"][0];
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm config net LAN A,00:11:22:33:44:55,virtio-net-pci").ok();
    lab.e("vm launch kvm a0").ok();
    let found = record(&lab, "a0");
    let mut expected = keys(recorded);
    expected.push("Error".to_owned());
    assert_eq!(keys(&found), expected);
    let own = ["UUID", "Networks", "Host", "LaunchTime", "Pid", "VNCPort", "Error"];
    for key in keys(recorded).iter().filter(|key| !own.contains(&key.as_str())) {
        assert_eq!(found[key], recorded[key], "{key}");
    }
    for (found, recorded) in [0, 1].map(|nic| (&found["Networks"][nic], &recorded["Networks"][nic])) {
        // What is set of a NIC comes behind what minimega has.
        let mut expected = keys(recorded);
        expected.push("Qos".to_owned());
        assert_eq!(keys(found), expected);
        for key in keys(recorded).iter().filter(|key| *key != "MAC") {
            assert_eq!(found[key], recorded[key], "{key}");
        }
    }
}
