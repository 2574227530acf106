//! Media of VMs that run, with real QEMUs: by hand and from an experiment file.
#![allow(missing_docs)]

mod support;

use support::{Lab, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];

/// What `vm info` shows, by VM.
fn cdroms(lab: &Lab) -> Vec<String> {
    let mut rows: Vec<String> = lab.rows(".columns name,cdrom vm info").iter().map(|row| row.join(" ")).collect();
    rows.sort();
    rows
}

/// The files of the media that QEMU has in a VM's drives.
fn media(lab: &Lab, vm: &str) -> Vec<String> {
    let text = lab.e(&format!("vm qmp {vm} '{{\"execute\": \"query-block\"}}'")).ok().out;
    let answer: serde_json::Value = serde_json::from_str(&text[text.find('{').expect("JSON")..]).expect("JSON");
    let drives = answer["return"].as_array().expect("a list").iter().filter(|drive| !drive["tray_open"].is_null());
    drives.filter_map(|drive| Some(drive["inserted"]["file"].as_str()?.to_owned())).collect()
}

fn image(lab: &Lab, name: &str) -> String {
    lab.file(name, &"x".repeat(4096)).to_string_lossy().into_owned()
}

#[test]
fn a_medium_is_changed_and_ejected() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let (a, b) = (image(&lab, "a.iso"), image(&lab, "b;c d.iso"));
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm empty").ok();
    lab.e("vm config machine q35").ok();
    lab.e(&format!("vm config cdrom {a}")).ok();
    lab.e("vm launch kvm full[0-1]").ok();
    assert_eq!(cdroms(&lab), ["empty ", &format!("full0 {a}"), &format!("full1 {a}")]);
    // What cannot be read changes nothing.
    lab.e("vm cdrom change full0 /nonexistent/a.iso").fails("cannot read the image /nonexistent/a.iso");
    lab.e(&format!("vm cdrom change full0 {}", lab.base.display())).fails("is a folder");
    lab.e("vm cdrom change full0 ''").fails("expected the path of an image");
    lab.e("vm cdrom eject nosuch").fails("vm not found: nosuch");
    assert_eq!(media(&lab, "full0"), [a.as_str()]);
    // Another one, in VMs that have never run, run, and are paused.
    lab.e("vm start full1").ok();
    lab.e("vm stop full1").ok();
    lab.e("vm start empty").ok();
    lab.e(&format!("vm cdrom change empty,full[0-1] '{b}'")).ok();
    assert_eq!(cdroms(&lab), [format!("empty {b}"), format!("full0 {b}"), format!("full1 {b}")]);
    for vm in ["empty", "full0", "full1"] {
        assert_eq!(media(&lab, vm), [b.as_str()], "{vm}");
    }
    lab.e("vm cdrom eject full0").ok();
    lab.e("vm cdrom eject full0").ok();
    assert!(media(&lab, "full0").is_empty());
    // A relative path is one in the files folder.
    std::fs::copy(&a, lab.base.join("files/in.iso")).expect("a copy");
    lab.e("vm cdrom change full1 in.iso").ok();
    assert!(media(&lab, "full1")[0].ends_with("/files/in.iso"));
    let shown = ["full0 ".to_owned(), "full1 in.iso".to_owned()];
    assert_eq!(cdroms(&lab)[1..], shown);
    let record = lab.e(".json true .filter name=full1 vm info").ok().out;
    assert!(record.contains("in.iso"), "{record}");
    // The next daemon knows it.
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(cdroms(&lab)[1..], shown);
    // What has ended has no drive, and gets back what was in it, with the boot order of its launch.
    lab.e("vm kill all").ok();
    lab.e("vm cdrom eject full0").fails("vm full0 is QUIT");
    lab.e(&format!("vm cdrom change full0,full1 {a}")).fails("vm full0 is QUIT");
    lab.e("vm cdrom eject all").ok();
    lab.e("vm start full[0-1],empty").ok();
    assert_eq!(media(&lab, "empty"), [b.as_str()]);
    assert_eq!(cdroms(&lab)[1..], shown);
    assert!(media(&lab, "full0").is_empty());
    assert!(media(&lab, "full1")[0].ends_with("/files/in.iso"));
    lab.e("vm cdrom eject all force").ok();
    assert!(media(&lab, "full1").is_empty());
}

#[test]
fn a_machine_without_a_drive_is_told() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let a = image(&lab, "a.iso");
    lab.e("vm config memory 16").ok();
    lab.e("vm config qemu-append -nodefaults").ok();
    lab.e("vm launch kvm bare").ok();
    lab.e("clear vm config qemu-append").ok();
    lab.e("vm launch kvm usual").ok();
    lab.e(&format!("vm cdrom change bare {a}")).fails("bare has no CD-ROM drive");
    lab.e("vm cdrom eject bare").fails("bare has no CD-ROM drive");
    lab.e("vm cdrom eject all").ok();
    // The others get it.
    lab.e(&format!("vm cdrom change all {a}")).fails("bare has no CD-ROM drive");
    assert_eq!(cdroms(&lab), ["bare ", &format!("usual {a}")]);
}

/// A boot sector that locks the tray of the second IDE channel's first drive (ATAPI PREVENT MEDIUM REMOVAL) and halts.
#[rustfmt::skip]
const LOCK: &[u8] = &[
    0xfa, 0xfc, 0x31, 0xc0, 0x8e, 0xd8, // cli; cld; ds = 0
    0xba, 0x76, 0x01, 0xb0, 0xa0, 0xee, // select the drive
    0xba, 0x71, 0x01, 0xb0, 0x00, 0xee, // no features
    0xba, 0x74, 0x01, 0xb0, 0x08, 0xee, // at most 8 bytes at once
    0xba, 0x75, 0x01, 0xb0, 0x00, 0xee,
    0xba, 0x77, 0x01, 0xb0, 0xa0, 0xee, // PACKET
    0xec, 0xa8, 0x80, 0x75, 0xfb,       // until it is not busy
    0xa8, 0x08, 0x74, 0xf7,             // and takes data
    0xba, 0x70, 0x01, 0xbe, 0x3b, 0x7c, // from the packet below
    0xb9, 0x06, 0x00, 0xf3, 0x6f,       // six words
    0xf4, 0xeb, 0xfd,                   // halt
    0x1e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn a_locked_tray_opens_by_force_alone() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let (a, b) = (image(&lab, "a.iso"), image(&lab, "b.iso"));
    let mut disk = LOCK.to_vec();
    disk.resize(1 << 20, 0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let path = lab.base.join("files/lock.img");
    std::fs::write(&path, disk).expect("an image");
    lab.e("vm config memory 16").ok();
    lab.e("vm config disks lock.img").ok();
    lab.e("vm launch kvm guest").ok();
    lab.e(&format!("vm cdrom change guest {a}")).ok();
    lab.e("vm start guest").ok();
    let query = "vm qmp guest '{\"execute\": \"query-block\"}'";
    wait_for("the guest to lock its drive", || lab.e(query).ok().out.contains("\"locked\":true"));
    lab.e("vm cdrom eject guest").fails("has locked the CD-ROM drive");
    lab.e(&format!("vm cdrom change guest {b}")).fails("add `force`");
    assert_eq!((media(&lab, "guest"), cdroms(&lab)), (vec![a.clone()], vec![format!("guest {a}")]));
    lab.e(&format!("vm cdrom change guest {b} force")).ok();
    assert_eq!((media(&lab, "guest"), cdroms(&lab)), (vec![b.clone()], vec![format!("guest {b}")]));
    lab.e("vm cdrom eject guest force").ok();
    assert_eq!((media(&lab, "guest"), cdroms(&lab)), (vec![], vec!["guest ".to_owned()]));
}

#[test]
fn a_daemon_that_was_killed_in_a_change_asks_the_drive() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let (a, b) = (image(&lab, "a.iso"), image(&lab, "b.iso"));
    lab.e("vm config memory 16").ok();
    lab.e(&format!("vm config cdrom {a}")).ok();
    lab.e("vm launch kvm done,undone,ejected").ok();
    lab.e(&format!("vm cdrom change done {b}")).ok();
    lab.e("vm cdrom eject ejected").ok();
    lab.kill_daemon();
    // As it is between the record and QEMU's answer.
    for (vm, next) in [(0, &b), (1, &b), (2, &String::new())] {
        let path = lab.base.join(format!("{vm}/vm.json"));
        let mut record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("a record")).expect("JSON");
        record["cdrom"] = serde_json::json!({ "image": a, "next": next });
        std::fs::write(&path, record.to_string()).expect("a record");
    }
    lab.start_daemon();
    assert_eq!(cdroms(&lab), [format!("done {b}"), "ejected ".to_owned(), format!("undone {a}")]);
    // And the change that was not made can be.
    lab.e(&format!("vm cdrom change all {b}")).ok();
    assert_eq!(cdroms(&lab), [format!("done {b}"), format!("ejected {b}"), format!("undone {b}")]);
}

#[test]
fn an_experiment_changes_the_image_of_a_vm_that_runs() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let (a, b) = (image(&lab, "a.iso"), image(&lab, "b.iso"));
    let file = |cdrom: &str| {
        let text = format!("experiment: lab\nvms:\n  \"web[0-1]\": {{ memory: 16, state: paused{cdrom} }}\n");
        lab.file("lab.yaml", &text).to_string_lossy().into_owned()
    };
    let with = |image: &str| file(&format!(", cdrom: {image}"));
    let apply = |path: &str| lab.run(&["apply", "--yes", path]).ok().out;
    let seen = || lab.rows("namespace lab .columns name,pid,cdrom vm info");
    apply(&with(&a));
    let before = seen();
    let plan = lab.run(&["plan", &with(&b)]).ok().out;
    assert!(plan.contains(&format!("cdrom: {a} -> {b}  (")) && plan.contains("lab.yaml:3)"), "{plan}");
    assert!(!plan.contains("reboots") && plan.contains(&format!("vm cdrom change web[0-1] {b}")), "{plan}");
    apply(&with(&b));
    let held = |image: &str| -> Vec<Vec<String>> {
        before.iter().map(|row| vec![row[0].clone(), row[1].clone(), image.to_owned()]).collect()
    };
    assert_eq!(seen(), held(&b));
    // By hand it is drift, and is put right in place.
    lab.e("namespace lab vm cdrom eject web1").ok();
    let plan = lab.run(&["plan", &with(&b)]).ok().out;
    assert!(plan.contains("≠ vm.web1 restore") && plan.contains(&format!("cdrom: (empty) -> {b}")), "{plan}");
    apply(&with(&b));
    assert_eq!(seen(), held(&b));
    // An image that is not there fails, and nothing has changed.
    let gone = lab.run(&["apply", "--yes", "--rollback", &with("/nonexistent/c.iso")]);
    assert!(gone.code != 0 && gone.err.contains("cannot read the image /nonexistent/c.iso"), "{}", gone.err);
    assert_eq!(seen(), held(&b));
    apply(&file(""));
    assert_eq!(seen(), held(""));
    // So is a NIC.
    apply(&file(", networks: [7]"));
    assert_eq!(seen(), held(""));
    lab.run(&["plan", "--detailed-exitcode", &file(", networks: [7]")]).ok();
    lab.run(&["destroy", "--yes", &file("")]).ok();
}

/// What `vm hotplug` lists.
fn disks(lab: &Lab) -> Vec<String> {
    lab.rows("vm hotplug").iter().map(|row| row.join(" ")).collect()
}

fn qmp(lab: &Lab, vm: &str, command: &str) -> String {
    lab.e(&format!("vm qmp {vm} '{command}'")).ok().out
}

/// The USB disks that QEMU has: port and speed.
fn plugged(lab: &Lab, vm: &str) -> Vec<String> {
    let info = "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"info usb\"}}";
    let answer = qmp(lab, vm, info);
    let devices = answer.split("Device ").filter(|device| device.contains("USB MSD"));
    let part = |device: &str, from: &str, to: &str| {
        let rest = &device[device.find(from).expect("as QEMU prints it") + from.len()..];
        rest[..rest.find(to).unwrap_or(rest.len())].trim().to_owned()
    };
    let mut found: Vec<String> =
        devices.map(|device| format!("{} {}", part(device, "Port ", ","), part(device, "Speed ", ","))).collect();
    found.sort();
    found
}

#[test]
fn usb_disks_come_and_go() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let (a, b) = (image(&lab, "a.img"), image(&lab, "b c.img"));
    assert_eq!(lab.e(".annotate false .headers false vm hotplug").ok().out, "");
    lab.e("vm config memory 16").ok();
    lab.e("vm config machine q35").ok();
    lab.e("vm launch kvm building").ok();
    lab.e("clear vm config machine").ok();
    lab.e("vm launch kvm paused,running").ok();
    lab.e("vm start paused,running").ok();
    lab.e("vm stop paused").ok();
    lab.e(&format!("vm hotplug add all {a}")).ok();
    lab.e(&format!("vm hotplug add building,paused '{b}' serial S1 1.1")).ok();
    lab.e(&format!("vm hotplug add paused {a} 2.0")).ok();
    let all = [
        format!("building 0 {a} 2.0"),
        format!("building 1 {b} 1.1"),
        format!("paused 0 {a} 2.0"),
        format!("paused 1 {b} 1.1"),
        format!("paused 2 {a} 2.0"),
        format!("running 0 {a} 2.0"),
    ];
    assert_eq!(disks(&lab), all);
    assert_eq!(plugged(&lab, "building"), ["4.1 12 Mb/s", "5 480 Mb/s"]);
    assert_eq!(plugged(&lab, "paused"), ["4.1 12 Mb/s", "5 480 Mb/s", "6 480 Mb/s"]);
    // The next daemon knows them, and a VM that is started again has them.
    lab.kill_daemon();
    lab.start_daemon();
    assert_eq!(disks(&lab), all);
    lab.e("vm kill building").ok();
    lab.e(&format!("vm hotplug add building {a}")).fails("vm building is QUIT");
    lab.e("vm hotplug remove building 0").fails("vm building is QUIT");
    lab.e("vm start building").ok();
    assert_eq!(plugged(&lab, "building"), ["4.1 12 Mb/s", "5 480 Mb/s"]);
    // They go, and their numbers are free again; the hub goes with the last one that is on it.
    lab.e("vm hotplug remove paused 0").ok();
    lab.e("vm hotplug remove building,paused 1").ok();
    assert_eq!(disks(&lab), [all[0].clone(), all[4].clone(), all[5].clone()]);
    assert_eq!(plugged(&lab, "paused"), ["6 480 Mb/s"]);
    assert_eq!(qmp(&lab, "paused", "{\"execute\": \"query-block\"}").matches("\"device\":\"usb").count(), 1);
    let devices = "{\"execute\": \"qom-list\", \"arguments\": {\"path\": \"/machine/peripheral\"}}";
    assert!(!qmp(&lab, "paused", devices).contains("usb-hub"));
    lab.e(&format!("vm hotplug add paused {a}")).ok();
    assert_eq!(plugged(&lab, "paused"), ["5 480 Mb/s", "6 480 Mb/s"]);
    lab.e("vm hotplug remove all all").ok();
    assert!(disks(&lab).is_empty() && plugged(&lab, "running").is_empty());
}

#[test]
fn a_usb_disk_that_is_refused_leaves_nothing() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let a = image(&lab, "a.img");
    lab.e("vm config memory 16").ok();
    lab.e("vm config snapshot false").ok();
    lab.e("vm launch kvm one,two").ok();
    lab.e("vm config usb-use-xhci false").ok();
    lab.e("vm launch kvm none").ok();
    lab.e("vm hotplug add one /nonexistent/a.img").fails("cannot read the image /nonexistent/a.img");
    lab.e(&format!("vm hotplug add one {a} 3.0")).fails("invalid USB version `3.0`, expected 1.1 or 2.0");
    lab.e(&format!("vm hotplug add none {a}")).fails("none has no USB controller");
    lab.e("vm hotplug remove one 0").fails("no USB disk 0 of one");
    lab.e("vm hotplug remove one all").ok();
    lab.e(&format!("vm hotplug add one {a} 1.1")).ok();
    // One writer at a time.
    lab.e(&format!("vm hotplug add two {a} 1.1")).fails("lock");
    assert_eq!(disks(&lab), [format!("one 0 {a} 1.1")]);
    assert!(plugged(&lab, "two").is_empty());
    assert!(!qmp(&lab, "two", "{\"execute\": \"query-block\"}").contains("\"device\":\"usb"));
    let devices = "{\"execute\": \"qom-list\", \"arguments\": {\"path\": \"/machine/peripheral\"}}";
    assert!(!qmp(&lab, "two", devices).contains("usb-hub"));
    lab.e("vm hotplug remove one 0").ok();
    lab.e(&format!("vm hotplug add two {a} 1.1")).ok();
    // As many as there are ports.
    lab.e("vm hotplug remove two 0").ok();
    for version in [("1.1", 8), ("2.0", 11)] {
        for number in 0..version.1 {
            let name = image(&lab, &format!("{}-{number}.img", version.0));
            lab.e(&format!("vm hotplug add one {name} {}", version.0)).ok();
        }
        lab.e(&format!("vm hotplug add one {a} {}", version.0)).fails("and no port for more");
    }
    assert_eq!(plugged(&lab, "one").len(), 19);
    lab.e("vm hotplug remove one all").ok();
    assert!(disks(&lab).is_empty());
}

#[test]
fn a_daemon_that_was_killed_while_it_added_a_disk_drops_it() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    let a = image(&lab, "a.img");
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    lab.e(&format!("vm hotplug add a {a}")).ok();
    lab.kill_daemon();
    // As it is between the record and QEMU's answer.
    let path = lab.base.join("0/vm.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).expect("a record")).expect("JSON");
    let mut second = record["usb"][0].clone();
    (second["id"], second["port"], second["made"]) = (1.into(), "6".into(), 1.into());
    record["usb"].as_array_mut().expect("a list").push(second);
    record["usb_made"] = 2.into();
    std::fs::write(&path, record.to_string()).expect("a record");
    lab.start_daemon();
    assert_eq!(disks(&lab), [format!("a 0 {a} 2.0")]);
    lab.e(&format!("vm hotplug add a {a}")).ok();
    assert_eq!(plugged(&lab, "a"), ["5 480 Mb/s", "6 480 Mb/s"]);
}

#[test]
fn usb_disks_of_an_experiment_follow_the_file() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let (a, b) = (image(&lab, "a.img"), image(&lab, "b.img"));
    let file = |disks: &str| {
        let text = format!("experiment: lab\nvms:\n  \"web[0-1]\": {{ memory: 16{disks} }}\n");
        lab.file("lab.yaml", &text).to_string_lossy().into_owned()
    };
    let apply = |path: &str| lab.run(&["apply", "--yes", path]).ok().out;
    let seen = || lab.rows("namespace lab vm hotplug").iter().map(|row| row.join(" ")).collect::<Vec<_>>();
    let pids = || lab.rows("namespace lab .columns name,pid vm info");
    apply(&file(""));
    let before = pids();
    let both = |vm: &str| [format!("{vm} 0 {a} 2.0"), format!("{vm} 1 {b} 1.1")];
    let two = format!(", usb_disks: [{a}, {{ path: {b}, version: 1.1, serial: S1 }}]");
    apply(&file(&two));
    assert_eq!(seen(), [both("web0"), both("web1")].concat());
    // Drift: what is gone, and what is not in the file.
    lab.e("namespace lab vm hotplug remove web1 all").ok();
    lab.e(&format!("namespace lab vm hotplug add web0 {a}")).ok();
    let plan = lab.run(&["plan", &file(&two)]).ok().out;
    assert!(plan.contains("≠ vm.web0 restore") && plan.contains("≠ vm.web1 restore"), "{plan}");
    apply(&file(&two));
    assert_eq!(seen(), [both("web0"), both("web1")].concat());
    let shown = lab.run(&["show", "--experiment", "lab"]).ok().out;
    assert!(shown.contains(&format!("web0.1    {b}  1.1\n")), "{shown}");
    for picture in [&["graph", "lab.yaml"][..], &["graph", "--live", "lab.yaml"]] {
        assert!(lab.run(picture).ok().out.contains("\\nUSB: a.img, b.img\""), "{picture:?}");
    }
    // What runs is what the import says.
    let imported = lab.run(&["import", "lab"]).ok().out;
    assert!(imported.contains("usb_disks: [") && imported.contains("does not show the serial numbers"), "{imported}");
    // What was added is taken back where the rest fails, by the number that it has then.
    apply(&file(&format!(", usb_disks: [{a}]")));
    let gone = file(&format!(", usb_disks: [{a}, {b}, /nonexistent/c.img]"));
    let failed = lab.run(&["apply", "--yes", "--rollback", &gone]);
    assert!(failed.err.contains("cannot read the image /nonexistent/c.img"), "{}", failed.err);
    assert!(failed.err.contains("vm hotplug remove web[0-1] 1"), "{}", failed.err);
    assert_eq!(seen(), [format!("web0 0 {a} 2.0"), format!("web1 0 {a} 2.0")]);
    // Back to nothing, and to a launch with disks.
    apply(&file(""));
    assert!(seen().is_empty());
    assert_eq!(pids(), before);
    let launched = format!(", vcpus: 2, usb_disks: [{b}]");
    apply(&file(&launched));
    assert_eq!(seen(), [format!("web0 0 {b} 2.0"), format!("web1 0 {b} 2.0")]);
    lab.run(&["plan", "--detailed-exitcode", &file(&launched)]).ok();
    lab.run(&["destroy", "--yes", &file("")]).ok();
}
