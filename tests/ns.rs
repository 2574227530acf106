//! `ns`: launches that wait, and where they may go; `ns run` and `mesh` on the one host that there is.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use support::{Lab, have};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64"];
const UUID: &str = "2c8a3f50-6f38-4d0b-9d49-0d6f2a4b7c11";

/// A daemon with a namespace that queues launches of small VMs.
fn queueing() -> Lab {
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("ns queueing true").ok();
    lab
}

fn states(lab: &Lab) -> Vec<String> {
    let mut rows: Vec<String> = lab.rows(".columns name,state vm info").iter().map(|r| r.join(" ")).collect();
    rows.sort();
    rows
}

/// An answer of one host as text.
fn text(lab: &Lab, line: &str) -> String {
    lab.e(&format!(".annotate false {line}")).ok().out.trim_end().to_owned()
}

/// The names of each queued launch.
fn queued(lab: &Lab) -> Vec<String> {
    text(lab, "ns queue").lines().filter_map(|line| line.strip_prefix("Names: ").map(str::to_owned)).collect()
}

/// A response as it comes over the socket.
fn response(lab: &Lab, line: &str) -> Value {
    let mut stream = UnixStream::connect(lab.base.join("minimega")).expect("the daemon listens");
    stream.set_read_timeout(Some(Duration::from_secs(90))).expect("a timeout");
    writeln!(stream, "{}", serde_json::json!({"Command": line})).expect("the daemon reads");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    serde_json::from_str(&answer).expect("the daemon sends JSON")
}

fn host_name() -> String {
    nix::unistd::gethostname().expect("a name").into_string().expect("UTF-8")
}

#[test]
fn a_queue_holds_what_it_was_given_and_launches_it_together() {
    if !have(NEEDS) {
        return;
    }
    let lab = queueing();
    lab.e("vm launch").fails("namespace must contain at least one queued VM to launch VMs");
    lab.e("vm launch kvm web[0-2]").ok();
    lab.e("vm config memory 24").ok();
    lab.e("vm config net LAN").ok();
    lab.e("vm launch kvm 2").ok();
    assert!(states(&lab).is_empty() && lab.qemus().is_empty(), "queued is not launched");
    assert_eq!(queued(&lab), ["web[0-2]", "vm-[0-1]"]);
    let shown = text(&lab, "ns queue");
    let parts: Vec<&str> = shown.split("VMs: ").skip(1).collect();
    assert!(parts[0].starts_with("3\nNames: web[0-2]\nVM Type: kvm\n\nVM configuration:\n"), "{shown}");
    let memory = |part: &str| part.lines().find_map(|l| l.strip_prefix("Memory:")).map(|m| m.trim().to_owned());
    assert_eq!((memory(parts[0]), memory(parts[1])), (Some("16".into()), Some("24".into())));
    // What changes after a launch was queued does not reach it.
    lab.e("clear vm config").ok();
    lab.e("vm launch").ok();
    let mut rows = lab.rows(".columns name,state,memory vm info");
    rows.sort();
    let expected = ["vm-0", "vm-1", "web0", "web1", "web2"];
    assert_eq!(rows.iter().map(|r| r[0].as_str()).collect::<Vec<_>>(), expected);
    assert!(rows.iter().all(|r| r[1] == "BUILDING" && r[2] == if r[0].starts_with('w') { "16" } else { "24" }));
    assert_eq!(lab.qemus().len(), 5);
    assert!(queued(&lab).is_empty());
    lab.e("vm launch").fails("at least one queued VM");
    let status = lab.rows("ns schedule status");
    assert_eq!(status.len(), 1);
    assert_eq!(status[0][2..], ["completed", "5", "0", "5", "1"]);
    assert!(status[0][0] <= status[0][1] && status[0][1].ends_with('Z'), "{status:?}");
    assert_eq!(lab.rows("ns schedules"), status, "the form of 2018");
}

#[test]
fn names_and_uuids_are_checked_against_what_is_launched_and_what_is_queued() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm old").ok();
    lab.e("ns queueing true").ok();
    for (line, text) in [
        ("vm launch kvm old", "vm already exists with name `old`"),
        ("vm launch kvm all", "`all` is a reserved word"),
        ("vm launch kvm 0", "invalid number of vms"),
        ("vm launch kvm a,a", "specified twice"),
        ("vm launch kvm a nosuch", "config nosuch does not exist"),
    ] {
        lab.e(line).fails(text);
    }
    lab.e("vm config net 0123456789abcdef,LAN").ok();
    lab.e("vm launch kvm a").fails("limit is 15");
    lab.e("clear vm config net").ok();
    assert!(queued(&lab).is_empty(), "what is refused is not queued");
    lab.e("vm launch kvm a").ok();
    lab.e("vm launch kvm b,a").fails("vm already queued with name `a`");
    lab.e(&format!("vm config uuid {UUID}")).ok();
    lab.e("vm launch kvm u").ok();
    lab.e("vm launch kvm v").fails(&format!("vm already queued with UUID `{UUID}`: u of namespace minimega"));
    lab.e("namespace other vm config memory 16").ok();
    lab.e(&format!("namespace other vm config uuid {UUID}")).ok();
    lab.e("namespace other vm launch kvm x").fails("vm already queued with UUID");
    lab.e("vm launch kvm v[0-1]").fails("only one VM can have it");
    lab.e("clear vm config uuid").ok();
    assert_eq!(queued(&lab), ["a", "u"]);
    // Without queueing too: the name is promised.
    lab.e("ns queueing false").ok();
    lab.e("vm launch kvm a").fails("vm already queued with name `a`, `ns queue` shows it and `ns flush` drops");
    lab.e("vm launch kvm b").ok();
    assert_eq!((states(&lab).len(), queued(&lab).len()), (2, 2), "a launch with names leaves the queue alone");
    lab.e("ns flush").ok();
    assert!(queued(&lab).is_empty());
    lab.e("vm launch kvm a").ok();
    assert_eq!(states(&lab), ["a BUILDING", "b BUILDING", "old BUILDING"]);
}

#[test]
fn what_cannot_be_scheduled_launches_nothing_and_stays_queued() {
    if !have(NEEDS) {
        return;
    }
    let lab = queueing();
    let host = host_name();
    let refused = |what: &str| {
        for line in ["ns schedule dry-run", "vm launch", "ns schedule"] {
            lab.e(line).fails(what);
            assert!(lab.qemus().is_empty() && !queued(&lab).is_empty(), "{line}");
        }
        lab.e("ns flush").ok();
        lab.e("clear vm config").ok();
        lab.e("vm config memory 16").ok();
    };
    lab.e("vm launch kvm good").ok();
    lab.e("vm config schedule elsewhere").ok();
    lab.e("vm launch kvm a").ok();
    refused(&format!("VM `a` is to be scheduled on `elsewhere`, which is no host of the namespace; its hosts: {host}"));

    lab.e("vm config colocate nosuch").ok();
    lab.e("vm launch kvm good,b").ok();
    refused("VM `good` is to be colocated with `nosuch`, which is neither launched nor among the VMs to launch");

    lab.e("vm launch kvm good[0-1]").ok();
    lab.e("vm config coschedule 1").ok();
    lab.e("vm launch kvm lone").ok();
    refused(&format!(
        "VM `lone` has a coschedule limit of 1, but `{host}` would have 2 besides it: 0 launched before, 2"
    ));

    // A launch without queueing asks the same.
    lab.e("ns queueing false").ok();
    lab.e("vm config schedule elsewhere").ok();
    lab.e("vm launch kvm a").fails("is to be scheduled on `elsewhere`");
    lab.e("vm config schedule localhost").ok();
    lab.e("vm config coschedule 1").ok();
    lab.e("vm launch kvm pair").ok();
    assert_eq!(text(&lab, "host vmlimit"), "1");
    lab.e("clear vm config coschedule").ok();
    lab.e("vm config colocate pair").ok();
    lab.e("namespace other vm config memory 16").ok();
    lab.e("vm launch kvm friend").ok();
    let full = "VM `pair` of namespace minimega has a coschedule limit of 1, but";
    lab.e("vm launch kvm third").fails(full);
    lab.e("namespace other vm launch kvm third").fails(full);
    lab.e("vm kill pair").ok();
    assert_eq!(text(&lab, "host vmlimit"), "-1", "one that has ended limits nobody");
    lab.e("vm launch kvm third").ok();
    assert_eq!(states(&lab), ["friend BUILDING", "pair QUIT", "third BUILDING"]);
}

#[test]
fn a_dry_run_is_shown_changed_and_followed() {
    if !have(NEEDS) {
        return;
    }
    let lab = queueing();
    let host = host_name();
    lab.e("ns schedule dump").fails("`ns schedule dry-run` does that");
    lab.e("ns schedule dry-run").fails("at least one queued VM");
    lab.e("vm launch kvm b[0-1]").ok();
    lab.e("vm launch kvm a").ok();
    let places = [["b0", host.as_str()], ["b1", &host], ["a", &host]];
    assert_eq!(lab.rows(".sort false ns schedule dry-run"), places);
    assert_eq!(lab.rows(".sort false ns schedule dump"), places);
    assert!(lab.qemus().is_empty());
    lab.e(&format!("ns schedule mv b[0-1] {host}")).ok();
    lab.e("ns schedule mv all localhost").ok();
    lab.e("ns schedule mv a elsewhere")
        .fails(&format!("new dst host is not in namespace: `elsewhere`, expected {host}"));
    lab.e(&format!("ns schedule mv nosuch {host}")).fails("vm not found: nosuch");
    assert_eq!(lab.rows(".sort false ns schedule dump"), places);
    lab.e("vm launch kvm c").ok();
    lab.e("ns schedule dump").fails("was not scheduled as it is now");
    lab.e("ns sch").ok();
    assert_eq!(states(&lab).len(), 4);
    for (set, shown) in [("ns load", "cpucommit"), ("ns load memcommit", ""), ("ns load", "memcommit")] {
        assert_eq!(text(&lab, set), shown);
    }
}

#[test]
fn a_vm_that_fails_is_counted_and_the_others_are_up() {
    if !have(NEEDS) {
        return;
    }
    let lab = queueing();
    lab.e("vm launch kvm good").ok();
    lab.e("vm config kernel /nonexistent/vmlinuz").ok();
    lab.e("vm launch kvm bad[0-1]").ok();
    let answer = lab.e("vm launch").fails("could not open kernel file '/nonexistent/vmlinuz'");
    assert!(answer.err.contains("bad0: ") && answer.err.contains("bad1: "), "{}", answer.err);
    assert_eq!(states(&lab), ["bad0 ERROR", "bad1 ERROR", "good BUILDING"]);
    assert!(queued(&lab).is_empty());
    assert_eq!(lab.rows("ns schedule status")[0][2..], ["completed", "1", "2", "3", "1"]);
}

#[test]
fn clients_that_queue_and_launch_at_once_lose_nothing_and_launch_nothing_twice() {
    if !have(NEEDS) {
        return;
    }
    let lab = queueing();
    let queue = |client: u32| lab.background(&format!("vm launch kvm c{client}-[0-1]"));
    let clients: Vec<_> = (0..6).flat_map(|n| [queue(n), lab.background("vm launch")]).collect();
    for client in clients {
        let answer = support::Answer::from(client.wait_with_output().expect("it ends"));
        assert!(answer.code == 0 || answer.err.contains("at least one queued VM"), "{}", answer.err);
    }
    let rest = queued(&lab).len();
    assert_eq!(lab.e("vm launch").code != 0, rest == 0, "it fails only where nothing is queued");
    assert_eq!((states(&lab).len(), lab.qemus().len()), (12, 12));
    assert!(queued(&lab).is_empty());
    let launched: u32 = lab.rows("ns schedule status").iter().map(|r| r[3].parse::<u32>().expect("a number")).sum();
    assert_eq!(launched, 12);
}

#[test]
fn what_cannot_be_stored_changes_nothing() {
    if !have(NEEDS) {
        return;
    }
    let lab = queueing();
    lab.e("vm launch kvm a").ok();
    // The state is written to this file first.
    let blocked = lab.base.join("state.new");
    std::fs::create_dir(&blocked).expect("our own folder");
    lab.e("vm launch kvm b").fails("cannot write");
    lab.e("vm launch").fails("cannot write");
    assert!(states(&lab).is_empty() && lab.qemus().is_empty());
    assert_eq!(queued(&lab), ["a"]);
    std::fs::remove_dir(&blocked).expect("our own folder");
    lab.e("vm launch kvm b").ok();
    lab.e("vm launch").ok();
    assert_eq!(states(&lab), ["a BUILDING", "b BUILDING"]);
}

#[test]
fn the_queue_outlives_the_daemon_and_ends_with_its_namespace() {
    if !have(NEEDS) {
        return;
    }
    let mut lab = Lab::with_daemon();
    for line in ["vm config memory 16", "ns queueing true", "vm launch kvm a,b", "ns load netcommit"] {
        lab.e(&format!("namespace lab {line}")).ok();
    }
    lab.e("namespace empty ns del-hosts all").ok();
    lab.kill_daemon();
    lab.start_daemon();
    lab.e("namespace lab").ok();
    assert_eq!((text(&lab, "ns queueing"), text(&lab, "ns load")), ("true".to_owned(), "netcommit".to_owned()));
    assert_eq!(queued(&lab), ["a,b"]);
    assert_eq!(text(&lab, "namespace empty ns hosts"), "");
    lab.e("vm launch kvm a").fails("vm already queued with name `a`");
    lab.e("vm launch").ok();
    assert_eq!(states(&lab), ["a BUILDING", "b BUILDING"]);
    lab.kill_daemon();
    lab.start_daemon();
    assert!(queued(&lab).is_empty(), "what was launched is not queued again");
    assert_eq!(states(&lab), ["a BUILDING", "b BUILDING"]);
    lab.e("vm launch kvm c").ok();
    lab.e("clear namespace lab").ok();
    lab.e("namespace lab").ok();
    assert!(queued(&lab).is_empty());
    assert_eq!(text(&lab, "ns queueing"), "false");
}

#[test]
fn a_namespace_without_a_host_runs_nothing() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let host = host_name();
    assert_eq!(text(&lab, "ns hosts"), host);
    lab.e("ns add-hosts nosuch").fails(&format!("unknown host `nosuch`, expected `{host}`"));
    lab.e("ns del-hosts nosuch").fails("unknown host `nosuch`");
    lab.e("vm config memory 16").ok();
    lab.e("vm launch kvm a").ok();
    lab.e(&format!("ns del-hosts {host}")).fails("has 1 VMs of namespace minimega");
    lab.e("vm kill a").ok();
    lab.e("vm flush").ok();
    lab.e("ns del-hosts localhost").ok();
    assert_eq!(text(&lab, "ns hosts"), "");
    lab.e("vm launch kvm a").fails("the namespace has no host to launch VMs on, `ns add-hosts` gives it one");
    assert_eq!(response(&lab, "ns run version")["Resp"], serde_json::json!([]));
    lab.e(&format!("ns add-hosts {host}")).ok();
    lab.e("vm launch kvm a").ok();
    assert!(text(&lab, "ns run version").contains("minimega 3.1.0"));
}

#[test]
fn apply_is_not_fooled_by_a_namespace_that_queues() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let file = lab.file("lab.yaml", "experiment: lab\nvms: { a: { memory: 16, state: paused } }\n");
    let file = file.to_string_lossy();
    lab.e("namespace lab ns queueing true").ok();
    lab.run(&["apply", "--yes", &file]).ok();
    assert_eq!(lab.qemus().len(), 1, "launched and not queued");
    assert_eq!(text(&lab, "namespace lab ns queue"), "", "nothing was queued");
    assert_eq!(text(&lab, "namespace lab ns queueing"), "true", "the setting is its user's");
    assert!(lab.run(&["apply", "--yes", &file]).ok().out.contains("No changes"), "what is up needs no launch");
    lab.run(&["destroy", "--yes", &file]).ok();
}

#[test]
fn a_mesh_of_one_node() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let host = host_name();
    assert_eq!(lab.rows("mesh status"), [["1", "0", "0", "", ""]]);
    lab.e("mesh degree 3").ok();
    assert_eq!((text(&lab, "mesh degree"), lab.rows("mesh status")[0][1].as_str()), ("3".to_owned(), "3"));
    lab.e("mesh degree many").fails("invalid degree `many`, expected a whole number of peers");
    for (set, shown) in [("90", "1m30s"), ("0", "unlimited")] {
        lab.e(&format!("mesh timeout {set}")).ok();
        assert_eq!(text(&lab, "mesh timeout"), shown);
    }
    lab.e("mesh timeout soon").fails("invalid timeout `soon`, expected a whole number of seconds");
    for line in ["mesh send all version", &format!("mesh send {host} version"), "mesh send all read nosuch"] {
        assert_eq!(response(&lab, line)["Resp"], serde_json::json!([]), "{line}");
    }
    lab.e("mesh send a[ version").fails("unterminated '['");
    lab.e("mesh send all bogus").fails("invalid command: `mesh send all bogus`");
    lab.e("mesh dot mesh.dot").ok();
    let dot = std::fs::read_to_string(lab.base.join("files/mesh.dot")).expect("the file was written");
    assert_eq!(dot, format!("graph mesh {{\n    \"{host}\";\n}}\n"));
    lab.e("mesh dot /nonexistent/mesh.dot").fails("cannot write /nonexistent/mesh.dot: No such file");
    // There is nobody to dial, so that there is no such command.
    lab.e("mesh dial elsewhere").fails("invalid command: `mesh dial elsewhere`");
    for line in ["read nosuch", "ns run version", "mesh send all version", ".csv true read nosuch"] {
        lab.e(&format!("ns run {line}")).fails(&format!("cannot run `{line}` via meshage"));
    }
    assert_eq!(text(&lab, ".headers false .columns vms ns run host"), "0");
    assert_eq!(text(&lab, "ns run .headers false .columns vms host"), "0");
}

/// Rows of the recorded mesh that a single node cannot answer alike.
const OTHERWISE: &[(u64, u64, &str)] = &[
    (1, 1, "the context, the port and the degree are options of the recorded daemons"),
    (5, 5, "as 1"),
    (7, 9, "what a peer answers"),
    (12, 15, "what a peer answers"),
    (18, 18, "the version is megaform's"),
    (20, 24, "as 18, and figures of another machine"),
    (31, 37, "files of that machine, and what a peer answers"),
    (44, 44, "the host is one of the namespace here"),
    (46, 49, "two hosts answer, a path of that machine, and peers"),
];

/// What the hosts mm1 and mm2 answered, asked of a host that is both.
#[test]
fn one_host_answers_as_the_recorded_mesh() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let own = |text: &str| text.replace("mm1", &host_name()).replace("mm2", &host_name());
    let mut compared = 0;
    for line in include_str!("data/exchanges-mesh.jsonl").lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let n = row["n"].as_u64().expect("a number");
        if OTHERWISE.iter().any(|(first, last, _)| (*first..=*last).contains(&n)) {
            continue;
        }
        let request: Value = serde_json::from_str(&own(row["request"].as_str().expect("bytes"))).expect("JSON");
        let expected: Value = serde_json::from_str(&own(row["responses"][0].as_str().expect("bytes"))).expect("JSON");
        let found = response(&lab, request["Command"].as_str().expect("a command"));
        // minimega sends `[]` as the data of VMs that are not there from its own host, and null from another.
        if n == 29 {
            assert_eq!(found["Resp"][0]["Header"], expected["Resp"][0]["Header"]);
        } else {
            assert_eq!(found["Resp"], expected["Resp"], "{n}: {request}");
            // The width of a table's first column is that of the host's name.
            if expected["Resp"][0]["Header"].is_null() {
                assert_eq!(found["Rendered"], expected["Rendered"], "{n}: {request}");
            }
        }
        compared += 1;
    }
    assert!(compared > 15, "only {compared} answers were compared");
}

#[test]
fn an_experiment_goes_through_the_queue_and_leaves_that_of_others_alone() {
    if !have(NEEDS) {
        return;
    }
    let lab = Lab::with_daemon();
    let file = |vms: &str| {
        let text = format!(
            "experiment: lab\nplacement: {{ hosts: localhost, load: memcommit, queueing: true }}\nvms: {{ {vms} }}\n"
        );
        lab.file("lab.yaml", &text);
    };
    let vms = "\"a[0-1]\": { memory: 16, state: paused, colocate: b }, b: { memory: 24, state: paused, colocate: a0 }";
    file(vms);
    // What a plan that was cut off left behind: its tags tell.
    for line in [
        "ns queueing true",
        "vm config memory 16",
        "vm config tags megaform.experiment lab",
        "vm launch kvm a[0-1]",
        "clear vm config",
        "ns queueing false",
    ] {
        lab.e(&format!("namespace lab {line}")).ok();
    }
    let applied = lab.run(&["apply", "--yes", "lab.yaml"]).ok().out;
    assert!(applied.contains("queue: a[0-1], from a plan that was cut off -> empty"), "{applied}");
    let names = |line: &str| -> Vec<String> {
        let mut names: Vec<String> = lab.rows(line).into_iter().map(|row| row[0].clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names("namespace lab .columns name vm info"), ["a0", "a1", "b"]);
    assert_eq!(lab.rows("namespace lab .columns launched ns schedule status"), [["3"]], "all at once");
    assert_eq!(text(&lab, "namespace lab ns queueing"), "false");
    assert_eq!(text(&lab, "namespace lab ns load"), "memcommit");
    assert!(lab.run(&["apply", "--yes", "lab.yaml"]).ok().out.contains("No changes"));
    // The scheduler refuses the whole round: nothing of it is there, nor in the queue.
    file(&format!("{vms}, c: {{ memory: 16, state: paused }}, d: {{ memory: 32, state: paused, colocate: nobody }}"));
    let refused = lab.run(&["apply", "--yes", "lab.yaml"]);
    assert!(refused.err.contains("colocated with `nobody`"), "{}", refused.err);
    assert!(queued_in(&lab, "lab").is_empty());
    assert_eq!(names("namespace lab .columns name vm info").len(), 3);
    // Launches of others are in the way, and stay.
    for line in ["ns queueing true", "vm launch kvm theirs"] {
        lab.e(&format!("namespace lab {line}")).ok();
    }
    file(&format!("{vms}, c: {{ memory: 16, state: paused }}"));
    let refused = lab.run(&["apply", "--yes", "lab.yaml"]);
    assert!(refused.err.contains("wait in the queue of namespace lab: vm.theirs"), "{}", refused.err);
    assert_eq!(queued_in(&lab, "lab"), ["theirs"]);
    lab.e("namespace lab ns flush").ok();
    lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert_eq!(text(&lab, "namespace lab ns queueing"), "true", "whoever queues by himself goes on doing so");
    let imported = lab.run(&["import", "lab"]).ok().out;
    assert!(imported.contains("placement:\n  load: memcommit\n  queueing: true\n"), "{imported}");
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.rows("namespace").iter().all(|row| row[0] != "lab" && row[1] != "lab"));
}

fn queued_in(lab: &Lab, namespace: &str) -> Vec<String> {
    let text = text(lab, &format!("namespace {namespace} ns queue"));
    text.lines().filter_map(|line| line.strip_prefix("Names: ").map(str::to_owned)).collect()
}
