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
