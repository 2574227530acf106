//! `megaform import` of a running namespace and of scripts, and saved plans with secrets, with the real engine.
#![allow(missing_docs)]

mod support;

use support::{Lab, have};

const SCRIPT: &str = "namespace lab\nvlans add core 200\nvm config memory 64\nvm config networks dmz core,virtio-net-pci\n\
    vm config tags role web\nvm launch kvm web[0-1]\nclear vm config\nvm config memory 48\nvm config vcpus 2\n\
    vm config networks core,52:54:00:00:00:07\nvm launch kvm fw\nvm config networks core\nvm launch kvm db\nvm start web0\n\
    tap create dmz ip 10.0.0.254/24 mgmt\n";

#[test]
fn what_runs_becomes_a_file_that_plans_to_no_changes() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    let script = lab.file("lab.mm", SCRIPT);
    lab.run(&["run", script.to_str().expect("UTF-8")]).ok();
    let pids = || lab.rows("namespace lab .columns name,pid,state vm info");
    let before = pids();
    // Looking changes nothing: the VMs are nobody's, and a plan says so.
    lab.run(&["import", "lab", "--out", "a.yaml"]).ok();
    lab.run(&["plan", "a.yaml"]).fails("unmanaged-vm");
    lab.run(&["import", "lab", "--out", "a.yaml"]).fails("a.yaml");
    let adopted = lab.run(&["import", "lab", "--adopt"]).ok();
    lab.file("b.yaml", &adopted.out);
    let plan = lab.run(&["plan", "--detailed-exitcode", "b.yaml"]).ok();
    assert!(plan.out.contains("No changes"), "{}", plan.out);
    assert!(!adopted.err.contains("a plan would change"), "{}", adopted.err);
    for part in ["core: { tag: 200 }", "dmz: {}", "web1:", "mac: \"52:54:00:00:00:07\"", "10.0.0.254/24"] {
        assert!(adopted.out.contains(part), "{part}\n{}", adopted.out);
    }
    // From here on it is an experiment like any other; nothing was restarted on the way.
    assert_eq!(pids(), before);
    let edited = adopted.out.replace("role: web", "role: front");
    lab.file("b.yaml", &edited);
    lab.run(&["apply", "--yes", "b.yaml"]).ok();
    assert_eq!(pids(), before);
    lab.run(&["destroy", "--yes", "b.yaml"]).ok();
    assert!(lab.rows("namespace").iter().all(|row| row[0] != "lab"));
}

#[test]
fn a_script_becomes_a_file_that_makes_the_same() {
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.file("lab.mm", SCRIPT);
    lab.run(&["import", "lab.mm", "--out", "lab.yaml"]).ok();
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    let shown = |lab: &Lab| {
        let mut rows = lab.rows("namespace lab .columns name,state,memory,vcpus,vlan vm info");
        rows.sort();
        rows
    };
    let applied = shown(&lab);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    let by_hand = Lab::with_daemon();
    by_hand.file("lab.mm", SCRIPT);
    by_hand.run(&["run", "lab.mm"]).ok();
    assert_eq!(shown(&by_hand), applied);
    by_hand.e("clear namespace lab").ok();
}

/// What the scripts need beside QEMU: they have servers, ways out, tunnels and shaped NICs.
const SCRIPTS_NEED: &[&str] = &[
    "root",
    "guest",
    "qemu-system-x86_64",
    "ip",
    "tc",
    "dnsmasq",
    "slirp4netns",
    "nft",
    "ovsdb-server",
    "ovs-vswitchd",
];

/// Commands that our engine does not have.
const FOREIGN: &[&str] = &["router ", "cc "];

/// A script with what it reads in its place, and without such lines.
fn runnable(folder: &std::path::Path, name: &str, text: &mut String) {
    let script = std::fs::read_to_string(folder.join(name)).expect("it is there");
    for line in script.lines() {
        match line.strip_prefix("read ") {
            Some(other) => runnable(folder, other, text),
            None if FOREIGN.iter().any(|word| line.starts_with(word)) => {}
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
}

/// A script without what delays and drops frames, which not every kernel can.
fn without_netem(text: &str) -> String {
    let netem = |line: &str| line.starts_with("qos ") && [" delay ", " loss "].iter().any(|word| line.contains(word));
    text.lines().filter(|line| !netem(line)).flat_map(|line| [line, "\n"]).collect()
}

/// What can be observed of a namespace: what an import of it says, but where that is from, and what a table shows that no file
/// has.
fn seen(lab: &Lab, namespace: &str) -> (String, Vec<Vec<String>>) {
    // What is remembered of the apply beside that would say more than the target does.
    let _ = std::fs::remove_file(lab.base.join(format!("megaform-{namespace}.journal")));
    let imported = lab.run(&["import", namespace]).ok().out;
    let own = lab.base.to_string_lossy().into_owned();
    let plain = imported.lines().filter(|line| !line.starts_with('#')).map(|line| line.replace(&own, "BASE"));
    let columns =
        ".columns name,state,type,memory,vcpus,vlan,disks,kernel,initrd,append,cdrom,snapshot,serial-ports vm info";
    let mut rows = lab.rows(&format!("namespace {namespace} {columns}"));
    rows.extend(lab.rows(&format!("namespace {namespace} .columns bridge,vlan tap")));
    // Neither the file nor the script says which of the free tags an alias gets; and nobody is to run what was stopped.
    let alike = |cell: &str| {
        let cell = cell.replace(&own, "BASE").replace("PAUSED", "BUILDING");
        cell.split(" (").next().unwrap_or_default().to_owned()
    };
    rows.iter_mut().flatten().for_each(|cell| *cell = alike(cell));
    rows.sort();
    (plain.collect::<Vec<_>>().join("\n"), rows)
}

#[test]
fn scripts_and_what_is_imported_from_them_make_the_same() {
    if !have(SCRIPTS_NEED) {
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scripts");
    let guest = support::guest().0.parent().expect("it is in a folder").to_owned();
    let mut scripts: Vec<String> = std::fs::read_dir(&folder)
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("UTF-8"))
        .filter(|name| name != "common.mm")
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 8, "{scripts:?}");
    for name in &scripts {
        // The variable that they take from outside.
        let env = format!(".env guest {}\n", guest.display());
        let (mut by_hand, mut applied) = (Lab::new(), Lab::new());
        for lab in [&mut by_hand, &mut applied] {
            let mut daemon = lab.program();
            daemon.args(["daemon", "--switch", "openvswitch"]);
            lab.start_daemon_by(daemon);
            let files = lab.base.join("files");
            std::fs::create_dir_all(&files).expect("the base is ours");
            for image in ["base.qcow2", "data.qcow2", "live.iso"] {
                std::fs::write(files.join(image), vec![0; 1 << 20]).expect("the folder is ours");
            }
        }
        let mut text = env.clone();
        runnable(&folder, name, &mut text);
        let script = by_hand.file(name, &without_netem(&text));
        by_hand.run(&["run", "--keep-going", script.to_str().expect("UTF-8")]);
        // The import is of the whole script, as users have it.
        let whole = without_netem(&std::fs::read_to_string(folder.join(name)).expect("it is there"));
        applied.file(name, &format!("{env}{whole}"));
        applied.file("common.mm", &std::fs::read_to_string(folder.join("common.mm")).expect("it is there"));
        let namespaces: Vec<&str> = whole.lines().filter_map(|line| line.strip_prefix("namespace ")).collect();
        let mut namespaces: Vec<&str> = namespaces.into_iter().filter(|rest| !rest.contains(' ')).collect();
        namespaces.dedup();
        assert!(!namespaces.is_empty(), "{name}");
        for namespace in namespaces {
            let imported = applied.run(&["import", name, "--namespace", namespace]).ok();
            applied.file("imported.yaml", &imported.out);
            let valid = applied.run(&["validate", "imported.yaml"]).ok();
            assert!(!valid.err.contains("error"), "{name}: {}", valid.err);
            applied.run(&["apply", "--yes", "imported.yaml"]).ok();
            let (want, found) = (seen(&by_hand, namespace), seen(&applied, namespace));
            assert_eq!(found.0, want.0, "{name}:\n{}", imported.out);
            assert_eq!(found.1, want.1, "{name}:\n{}", imported.out);
            applied.run(&["destroy", "--yes", "imported.yaml"]).ok();
            by_hand.e(&format!("clear namespace {namespace}")).ok();
        }
    }
}

#[test]
fn refusals_say_why() {
    let lab = Lab::new();
    lab.file("two.mm", "vm launch kvm a\nnamespace b vm launch kvm b\n");
    lab.run(&["import", "two.mm"]).fails("choose with --namespace");
    let b = lab.run(&["import", "two.mm", "--namespace", "b"]).ok();
    assert!(b.out.contains("experiment: b\n"), "{}", b.out);
    lab.run(&["import", "two.mm", "--adopt"]).fails("--adopt");
    lab.run(&["import", "gone.mm"]).fails("gone.mm");
    lab.run(&["import", "lab"]).fails("no daemon at");
    lab.file("version.mm", "version\n");
    lab.run(&["import", "version.mm"]).fails("makes no VM, VLAN or tap");
}

#[test]
fn what_is_sensitive_is_in_a_saved_plan_for_its_owner_alone_and_not_shown() {
    use std::os::unix::fs::PermissionsExt as _;
    if !have(&["root", "qemu-system-x86_64"]) {
        return;
    }
    let lab = Lab::new();
    let text = "experiment: lab\nvariables: { pw: { type: string, sensitive: true } }\n\
        vms: { a: { memory: 32, state: paused, tags: { pw: \"{{ var.pw }}\" } } }\n";
    lab.file("lab.yaml", text);
    let planned = lab.run(&["plan", "lab.yaml", "--out", "lab.plan", "--var", "pw=hunter2-hunter2"]).ok();
    assert!(!planned.out.contains("hunter2"), "{}", planned.out);
    let saved = lab.folder.path().join("lab.plan");
    let mode = std::fs::metadata(&saved).expect("it was saved").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    lab.run(&["apply", "lab.plan", "--yes", "--var", "pw=x"]).fails("--var");
    for how in [&["apply", "--yes", "lab.plan"][..], &["apply", "--yes", "--json", "lab.plan"]] {
        let applied = lab.run(how).ok();
        assert!(!applied.out.contains("hunter2") && !applied.err.contains("hunter2"), "{}{}", applied.out, applied.err);
        assert_eq!(lab.rows("namespace lab .columns name vm info"), [["a"]]);
        assert!(lab.e("namespace lab vm tag a pw").ok().out.contains("hunter2-hunter2"));
        lab.run(&["destroy", "--yes", "--experiment", "lab"]).ok();
    }
}
