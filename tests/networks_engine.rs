//! The networks of an experiment with the real engine: every kind is applied, restored when it was changed by hand, taken
//! out and destroyed, on both switches, with VMs whose guests never run.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::{Lab, have, wait_for};

const NEEDS: &[&str] = &["root", "qemu-system-x86_64", "ip", "dnsmasq", "slirp4netns", "nft"];
const OVS_NEEDS: &[&str] =
    &["root", "qemu-system-x86_64", "ip", "dnsmasq", "slirp4netns", "nft", "ovsdb-server", "ovs-vswitchd"];

/// All kinds; rates alone, because not every kernel has netem.
const LAB: &str = r#"
experiment: lab
vlans: { lan: {}, dmz: {}, watch: {} }
vms:
  "web[0-1]": { memory: 16, state: paused, networks: [{ vlan: lan, qos: { rate: 10 mbit } }, dmz] }
  ids: { memory: 16, state: paused, networks: [dmz, watch] }
links:
  slow: { ends: [web0.1, ids.0], rate: 1500 kbit }
pipes:
  alerts: { mode: random, log: true, via: "sed -u s/eth0/uplink/" }
plumbing:
  found: { pipeline: [alerts, "grep --line-buffered down", urgent] }
  kept: { pipeline: [urgent, stored] }
bridges:
  br1: { trunks: eth1, tunnels: [vxlan 10.9.0.2 7, vxlan 10.9.0.3 8] }
taps:
  gw: { vlan: lan, ip: 10.0.0.1/24 }
  mon: { vlan: watch }
  guest: { vlan: lan, dhcp: true }
  far: { vlan: dmz, bridge: br1 }
dnsmasq:
  lan:
    address: 10.0.0.1
    range: [10.0.0.10, 10.0.0.99]
    leases: [web0.0 10.0.0.10, "52:54:00:00:00:09 10.0.0.11"]
    dns: 10.0.0.10 web.lab
    options: option:router,10.0.0.254
nat:
  out: { vlan: lan, ip: 10.0.0.254/24 }
  far: { vlan: dmz, bridge: br1, ip: 10.5.0.254/24 }
mirrors:
  nics: { from: web1.0, to: ids.1 }
  taps: { from: gw, to: mon }
captures:
  http: { vm: web0, file: http.pcap, snaplen: 96, filter: tcp port 80 }
  plain: { vm: web1, interface: 1, file: plain.pcap }
  whole: { bridge: mega_bridge, file: whole.pcap }
"#;

/// What only Open vSwitch has, besides.
const FLOWS: &str = r#"
  flows: { type: netflow, bridge: mega_bridge, file: flows.nf, format: ascii, gzip: true, timeout: 5 }
  sent: { type: netflow, bridge: mega_bridge, to: "udp://127.0.0.1:9995" }
"#;

/// Stand for the host: the calling thread, and the daemons that it starts, are in a network of their own with one cable.
fn leave_the_host() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    for args in ["link set lo up", "link add eth1 type veth peer name wire"] {
        assert!(ip(args), "ip {args}");
    }
}

fn ip(args: &str) -> bool {
    Command::new("ip").args(args.split(' ')).stdout(Stdio::null()).status().expect("ip is there").success()
}

/// The only cell of a table with one row.
fn cell(lab: &Lab, line: &str) -> String {
    lab.e(&format!(".annotate false .headers false {line}")).ok().out.trim().to_owned()
}

/// The interface of the tunnel to 10.9.0.2: tunnels are made at the same time.
fn tunnel(lab: &Lab) -> String {
    let bridges: serde_json::Value = serde_json::from_str(&lab.e(".json true bridge").ok().out).expect("JSON");
    let all = bridges[0]["Data"].as_array().into_iter().flatten().flat_map(|b| b["Tunnels"].as_array()).flatten();
    let mut found =
        all.filter(|tunnel| tunnel["Remote"] == "10.9.0.2").filter_map(|tunnel| tunnel["Interface"].as_str());
    found.next().unwrap_or("gone").to_owned()
}

/// What is changed by hand, and what brings it back.
#[track_caller]
fn drifts(lab: &Lab, text: &str, cases: &[(&str, &[&str])]) {
    for (by_hand, expected) in cases {
        let by_hand = by_hand.replace("TUNNEL", &tunnel(lab));
        lab.e(&format!("namespace lab {by_hand}")).ok();
        assert_eq!(lab.commands(text), *expected, "after {by_hand}");
        lab.apply(text);
        assert!(lab.commands(text).is_empty(), "after {by_hand}: {:?}", lab.commands(text));
    }
}

const DRIFTS: &[(&str, &[&str])] = &[
    ("clear qos web0 0", &["qos set web0 0 rate=10mbit"]),
    ("qos set ids 0 rate=2mbit", &["qos set ids 0 rate=1500kbit"]),
    ("qos set web1 1 rate=1mbit", &["clear qos web1 1"]),
    (
        "capture pcap delete vm web0",
        &[
            "capture pcap snaplen 96",
            "capture pcap filter \"tcp port 80\"",
            "capture pcap vm web0 0 http.pcap",
            "capture pcap snaplen 1600",
            "capture pcap filter \"\"",
        ],
    ),
    ("capture pcap delete bridge mega_bridge", &["capture pcap bridge mega_bridge whole.pcap"]),
    ("clear tap mirror mon", &["tap mirror gw mon"]),
    ("clear tap mirror ids 1", &["tap mirror web1 0 ids 1"]),
    ("clear tap mirror", &["tap mirror web1 0 ids 1", "tap mirror gw mon"]),
    ("nat delete lan", &["nat add lan 10.0.0.254/24"]),
    ("nat delete dmz", &["nat add dmz 10.5.0.254/24 br1"]),
    ("bridge notrunk br1 eth1", &["bridge trunk br1 eth1"]),
    ("bridge notunnel br1 TUNNEL", &["bridge tunnel vxlan br1 10.9.0.2 7"]),
    ("pipe alerts mode all", &["pipe alerts mode random"]),
    ("pipe alerts log false", &["pipe alerts log true"]),
    ("clear pipe alerts via", &["pipe alerts via sed -u s/eth0/uplink/"]),
    (
        "clear pipe alerts",
        &[
            "pipe alerts mode random",
            "pipe alerts via sed -u s/eth0/uplink/",
            "pipe alerts log true",
            "plumb lab//alerts \"grep --line-buffered down\" urgent",
        ],
    ),
    ("clear pipe urgent", &["plumb urgent stored", "plumb lab//alerts \"grep --line-buffered down\" urgent"]),
    ("tap delete far", &["tap create dmz bridge br1 name far"]),
    ("tap delete mon", &["tap create watch name mon", "tap mirror gw mon"]),
];

/// What is taken out of the file, and what takes it away.
const REMOVALS: &[(&str, &str, &[&str])] = &[
    ("lan, qos: { rate: 10 mbit }", "lan", &["clear qos web[0-1] 0"]),
    ("links:\n  slow: { ends: [web0.1, ids.0], rate: 1500 kbit }", "", &["clear qos ids 0", "clear qos web0 1"]),
    ("vxlan 10.9.0.2 7, ", "", &["bridge notunnel br1 TUNNEL"]),
    ("trunks: eth1, ", "", &["bridge notrunk br1 eth1"]),
    ("  nics: { from: web1.0, to: ids.1 }\n", "", &["clear tap mirror ids 1"]),
    ("  plain: { vm: web1, interface: 1, file: plain.pcap }\n", "", &["capture pcap delete vm web1"]),
    ("  far: { vlan: dmz, bridge: br1 }\n", "", &["tap delete far"]),
    ("  far: { vlan: dmz, bridge: br1, ip: 10.5.0.254/24 }\n", "", &["nat delete dmz br1"]),
    ("log: true, via", "via", &["pipe alerts log false"]),
    (
        "  alerts: {",
        "  others: {",
        &[
            "clear pipe alerts via",
            "clear pipe alerts mode",
            "pipe others mode random",
            "pipe others via sed -u s/eth0/uplink/",
        ],
    ),
    ("  kept: { pipeline: [urgent, stored] }\n", "", &["clear plumb lab//urgent lab//stored", "clear pipe stored"]),
    ("10.0.0.254/24", "10.0.0.253/24", &["nat delete lan mega_bridge", "nat add lan 10.0.0.253/24"]),
];

fn dnsmasq_is_started_again(lab: &Lab, text: &str) {
    let pid = cell(lab, ".columns pid namespace lab dnsmasq").parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    wait_for("the server to be seen to have ended", || {
        cell(lab, ".columns pid namespace lab dnsmasq").contains("ended")
    });
    let planned = lab.commands(text);
    assert!(planned[0].starts_with("dnsmasq kill "), "{planned:?}");
    assert_eq!(planned[1], "dnsmasq start 10.0.0.1 10.0.0.10 10.0.0.99");
    assert!(planned[2..].iter().all(|command| command.starts_with("dnsmasq configure 10.0.0.1 ")), "{planned:?}");
    assert_eq!(planned.len(), 6, "{planned:?}");
    lab.apply(text);
    assert!(lab.commands(text).is_empty());
    let id = cell(lab, ".columns id namespace lab dnsmasq");
    assert_eq!(lab.rows(&format!(".columns mac,ip namespace lab dnsmasq configure {id} ip")).len(), 2);
}

fn a_dead_way_out_is_made_again(lab: &Lab, text: &str) {
    let pid = cell(lab, ".columns pid .filter bridge=mega_bridge namespace lab nat").parse().expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("it runs");
    wait_for("the gateway to be seen to have ended", || {
        cell(lab, ".columns pid .filter bridge=mega_bridge namespace lab nat").contains("ended")
    });
    assert_eq!(lab.commands(text), ["nat delete lan mega_bridge", "nat add lan 10.0.0.254/24"]);
    let shown = lab.run(&["plan", "lab.yaml"]).ok().out;
    assert!(shown.contains("≠ nat.out restore") && shown.contains("stopped: ended"), "{shown}");
    lab.apply(text);
    assert!(lab.commands(text).is_empty());
}

/// The pipes of the experiment: name, mode, whether messages are logged, and via.
fn pipes(lab: &Lab) -> Vec<String> {
    let answer = lab.e(".json true namespace lab pipe").ok().out;
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let rows = answer[0]["Tabular"].as_array().expect("rows").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let line = |(row, record): (&serde_json::Value, &serde_json::Value)| {
        format!("{} {} {} {}", text(&row[0]).replace("lab//", ""), text(&row[1]), record["log"], text(&row[5]))
    };
    rows.zip(answer[0]["Data"].as_array().expect("a record for each")).map(line).collect()
}

/// What the file says is what the engine has, as the engine says it.
fn everything_is_there(lab: &Lab) {
    let text = cell(lab, ".columns name,qos namespace lab vm info");
    for part in ["[0: rate 10mbit, 1: rate 1500kbit]", "[0: rate 1500kbit]"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let row = |line: &str| cell(lab, line);
    assert!(row(".filter bridge=br1 bridge").contains("[eth1] | [mega_vxlan0, mega_vxlan1]"), "{}", row("bridge"));
    assert_eq!(pipes(lab), ["alerts random true sed -u s/eth0/uplink/", "stored all false ", "urgent all false "]);
    let captures = lab.e(".json true namespace lab capture").ok().out;
    let captures: serde_json::Value = serde_json::from_str(&captures).expect("JSON");
    let of = |file: &str| {
        let all = captures[0]["Data"].as_array().expect("records");
        let capture = all.iter().find(|c| c["path"].as_str().is_some_and(|path| path.ends_with(file))).expect(file);
        (capture["snaplen"].clone(), capture["filter"].clone())
    };
    assert_eq!(of("http.pcap"), (96.into(), "tcp port 80".into()));
    // The settings around another capture are not its own.
    assert_eq!(of("plain.pcap"), (1600.into(), "".into()));
}

#[test]
fn every_kind_is_restored_and_leaves_nothing() {
    if !have(NEEDS) {
        return;
    }
    leave_the_host();
    let lab = Lab::new();
    lab.apply(LAB);
    everything_is_there(&lab);
    assert!(lab.commands(LAB).is_empty(), "{:?}", lab.commands(LAB));
    let again = lab.run(&["apply", "--yes", "lab.yaml"]).ok();
    assert!(again.out.contains("No changes"), "{}", again.out);

    drifts(&lab, LAB, DRIFTS);
    dnsmasq_is_started_again(&lab, LAB);
    a_dead_way_out_is_made_again(&lab, LAB);

    // What runs, as a file, is the experiment.
    let imported = lab.run(&["import", "lab"]).ok().out;
    let planned = lab.commands(&imported);
    assert!(planned.is_empty(), "{planned:#?}\n{imported}");
    for part in
        ["vxlan 10.9.0.2 7", "snaplen: 96", "filter: \"tcp port 80\"", "rate: 1500kbit", "trunks: eth1", "vlan: lan"]
    {
        assert!(imported.contains(part), "{part}: {imported}");
    }

    // The address that a server gave is not one that the file asks for.
    let guest = lab.run(&["exec-net", "--", "ip", "-brief", "-4", "address", "show", "dev", "guest"]).ok().out;
    assert!(guest.contains("10.0.0."), "{guest}");

    // One thing after the other.
    let mut text = LAB.to_owned();
    for (old, new, expected) in REMOVALS {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
        let tunnel = tunnel(&lab);
        let expected: Vec<String> = expected.iter().map(|command| command.replace("TUNNEL", &tunnel)).collect();
        assert_eq!(lab.commands(&text), expected, "without {old}");
        lab.apply(&text);
        assert!(lab.commands(&text).is_empty(), "without {old}");
    }
    assert!(ip("link show eth1"), "the trunk is the host's again");
    lab.apply(LAB);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

/// Directly after a destroy: what was captured is there, and nothing else.
#[track_caller]
fn nothing_is_left(lab: &Lab) {
    assert!(lab.qemus().is_empty() && !lab.mounted(), "{:?}", lab.files());
    assert_eq!(lab.files(), ["files"]);
    let files = std::fs::read_dir(lab.base.join("files")).expect("it is there");
    assert!(files.flatten().all(|file| file.file_name().to_string_lossy().ends_with(".pcap")));
    assert!(ip("link show eth1"), "the trunk is the host's again");
}

#[test]
fn every_kind_on_open_vswitch() {
    if !have(OVS_NEEDS) {
        return;
    }
    leave_the_host();
    let mut lab = Lab::new();
    let mut daemon = lab.program();
    daemon.args(["daemon", "--switch", "openvswitch"]);
    lab.start_daemon_by(daemon);
    let text = LAB.replace("br1: {", "br1: { config: { stp_enable: \"true\" },") + FLOWS.trim_start_matches('\n');
    lab.apply(&text);
    everything_is_there(&lab);
    assert!(lab.commands(&text).is_empty(), "{:?}", lab.commands(&text));
    let flows = lab.rows(".columns mode,compress,path namespace lab capture").concat();
    assert!(flows.contains(&"ascii".to_owned()) && flows.contains(&"udp:127.0.0.1:9995".to_owned()), "{flows:?}");
    drifts(
        &lab,
        &text,
        &[
            ("bridge config br1 stp_enable=false", &["bridge config br1 stp_enable=true"]),
            ("bridge notrunk br1 eth1", &["bridge trunk br1 eth1"]),
            ("bridge notunnel br1 TUNNEL", &["bridge tunnel vxlan br1 10.9.0.2 7"]),
            ("clear tap mirror mon", &["tap mirror gw mon"]),
            ("nat delete dmz", &["nat add dmz 10.5.0.254/24 br1"]),
            ("clear qos web0 1", &["qos set web0 1 rate=1500kbit"]),
            ("tap delete far", &["tap create dmz bridge br1 name far"]),
        ],
    );
    lab.e("namespace lab capture netflow delete bridge mega_bridge").ok();
    let planned = lab.commands(&text);
    assert!(planned.contains(&"capture netflow bridge mega_bridge udp 127.0.0.1:9995".to_owned()), "{planned:?}");
    assert!(planned.iter().all(|command| command.starts_with("capture netflow ")), "{planned:?}");
    lab.apply(&text);
    let imported = lab.run(&["import", "lab"]).ok().out;
    let planned = lab.commands(&imported);
    assert!(planned.is_empty(), "{planned:#?}\n{imported}");
    lab.file("lab.yaml", &text);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.qemus().is_empty() && !lab.mounted(), "{:?} {:?}", lab.files(), lab.rows("bridge"));
    assert!(ip("link show eth1"), "the trunk is the host's again");
}

/// Delete every bridge as somebody at a shell would, and every shape with tc(8).
fn break_by_hand(lab: &Lab, openvswitch: bool) {
    let inside = |line: &str| lab.run(&[&["exec-net", "--"], &*line.split(' ').collect::<Vec<_>>()].concat()).ok().out;
    for line in inside("tc qdisc show").lines().filter(|line| line.contains(" 6d72: dev ")) {
        let device = line.split(" dev ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a device");
        inside(&format!("tc qdisc del dev {device} root"));
    }
    if openvswitch {
        let database = format!("--db=unix:{}", lab.base.join("openvswitch/db.sock").display());
        let vsctl = |words: &[&str]| {
            let output = Command::new("ovs-vsctl").arg(&database).args(words).output().expect("it starts");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        for bridge in vsctl(&["list-br"]).lines() {
            vsctl(&["del-br", bridge]);
        }
        return;
    }
    for line in inside("ip -o link show type bridge").lines() {
        let name = line.split([':', '@']).nth(1).expect("a name").trim().to_owned();
        inside(&format!("ip link del {name}"));
    }
}

#[test]
fn what_was_deleted_beneath_it_is_restored_by_the_next_apply() {
    if !have(OVS_NEEDS) || !have(&["tc", "ovs-vsctl"]) {
        return;
    }
    leave_the_host();
    for openvswitch in [false, true] {
        let mut lab = Lab::new();
        let mut daemon = lab.program();
        daemon.args(["daemon", "--switch", if openvswitch { "openvswitch" } else { "linux" }]);
        lab.start_daemon_by(daemon);
        lab.apply(LAB);
        everything_is_there(&lab);
        break_by_hand(&lab, openvswitch);
        assert_eq!(cell(&lab, ".columns qos .filter name=web0 namespace lab vm info"), "[]");
        let planned = lab.commands(LAB);
        for part in ["vm net connect", "qos set ids 0 rate=1500kbit", "qos set web0 1 rate=1500kbit"] {
            assert!(planned.iter().any(|command| command.starts_with(part)), "{part}: {planned:#?}");
        }
        let said = lab.run(&["apply", "--yes", "lab.yaml"]);
        assert_eq!(said.code, 0, "{}{}\n{planned:#?}", said.out, said.err);
        assert!(lab.commands(LAB).is_empty(), "{:?}", lab.commands(LAB));
        everything_is_there(&lab);
        lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
        assert!(lab.qemus().is_empty() && !lab.mounted(), "{:?} {:?}", lab.files(), lab.rows("bridge"));
        assert!(ip("link show eth1"), "the trunk is the host's again");
    }
}

/// The taps of a VM and a host tap, deleted by hand: nothing is shown as connected that is not, and all of it can be cleared.
#[test]
fn a_tap_that_was_deleted_by_hand_is_connected_nowhere() {
    if !have(OVS_NEEDS) {
        return;
    }
    for openvswitch in [false, true] {
        let mut lab = Lab::new();
        let mut daemon = lab.program();
        daemon.args(["daemon", "--switch", if openvswitch { "openvswitch" } else { "linux" }]);
        lab.start_daemon_by(daemon);
        for line in
            ["vm config memory 16", "vm config net lan dmz", "vm launch kvm a", "tap create lan ip 10.0.0.1/24 gw"]
        {
            lab.e(&format!("namespace lab {line}")).ok();
        }
        let vlans = || cell(&lab, ".columns vlan namespace lab vm info");
        let before = vlans();
        let taps = cell(&lab, ".columns tap namespace lab vm info");
        let first =
            taps.trim_matches(|c: char| !c.is_ascii_alphanumeric()).split(',').next().expect("a tap").to_owned();
        assert!(before.contains("lan") && before.contains("dmz"), "{before}");
        for tap in [first.as_str(), "gw"] {
            lab.run(&["exec-net", "--", "ip", "link", "del", tap]).ok();
        }
        let after = vlans();
        assert!(after.contains("disconnected") && !after.contains("lan") && after.contains("dmz"), "{after}");
        assert!(lab.rows("namespace lab tap").is_empty());
        // A new start makes it again.
        lab.e("namespace lab vm kill a").ok();
        assert_eq!(vlans(), before);
        lab.e("namespace lab vm start a").ok();
        assert_eq!(vlans(), before);
        lab.run(&["exec-net", "--", "ip", "link", "del", &first]).ok();
        lab.e("clear namespace lab").ok();
        assert!(lab.qemus().is_empty(), "{:?}", lab.files());
    }
}

/// Apply and kill the program as soon as it has reported that so many commands ended. False if it ended before that.
fn killed_after(lab: &Lab, ended: usize) -> bool {
    let mut child = lab
        .program()
        .args(["apply", "--yes", "lab.yaml"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let reached = ended == 0 || lines.by_ref().filter(|line| line.starts_with('[')).nth(ended - 1).is_some();
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    reached
}

/// The way from one to the other changes every kind and no VM.
fn edited() -> String {
    LAB.replace("10 mbit", "20 mbit")
        .replace("mode: random, log: true", "mode: round-robin")
        .replace("s/eth0/uplink/", "s/eth1/uplink/")
        .replace("[urgent, stored]", "[urgent, everything]")
        .replace("1500 kbit", "2 mbit")
        .replace("trunks: eth1, tunnels: [vxlan 10.9.0.2 7, ", "tunnels: [vxlan 10.9.0.2 9, vxlan 10.9.0.4 10, ")
        .replace("10.0.0.99", "10.0.0.98")
        .replace("from: web1.0, to: ids.1", "from: ids.1, to: web1.0")
        .replace("taps: { from", "probe: { from")
        .replace("10.0.0.254/24", "10.0.0.253/24")
        .replace("far: { vlan: dmz, bridge: br1, ip", "far: { vlan: lan, bridge: br1, ip")
        .replace("snaplen: 96", "snaplen: 128")
        .replace("whole.pcap", "all.pcap")
        .replace("  far: { vlan: dmz", "  far: { vlan: lan")
}

/// A command that fails when everything else is done.
const FAILS: &str = "commands:\n  bad: { create: tap delete nosuch }\n";

/// The actions of a plan, by address, and what is nobody's.
fn actions(lab: &Lab, text: &str) -> (Vec<(String, String)>, serde_json::Value) {
    lab.file("lab.yaml", text);
    let plan: serde_json::Value =
        serde_json::from_str(&lab.run(&["plan", "--json", "lab.yaml"]).ok().out).expect("JSON");
    let word = |change: &serde_json::Value, key: &str| change[key].as_str().expect("text").to_owned();
    let changes = plan["changes"].as_array().expect("a plan has changes");
    (changes.iter().map(|c| (word(c, "address"), word(c, "action"))).collect(), plan["unmanaged"].clone())
}

#[test]
fn what_a_failed_run_did_to_networks_is_taken_back() {
    if !have(NEEDS) {
        return;
    }
    leave_the_host();
    let lab = Lab::new();
    let fails = |text: &str| {
        lab.file("lab.yaml", &format!("{text}{FAILS}"));
        let answer = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]);
        assert_eq!(answer.code, 1, "{}{}", answer.out, answer.err);
        answer.out + &answer.err
    };
    let said = fails(LAB);
    // Nothing is there, and nothing is thought to have been.
    for list in ["vm info", "tap", "nat", "dnsmasq", "capture", "bridge"] {
        assert!(lab.rows(&format!("namespace lab {list}")).is_empty(), "{list}:\n{said}");
    }
    let (planned, unmanaged) = actions(&lab, LAB);
    assert!(planned.iter().all(|(_, action)| action == "create"), "{planned:?}");
    assert_eq!(unmanaged, serde_json::json!([]));
    // From one to the other and back.
    lab.apply(LAB);
    let said = fails(&edited());
    assert!(lab.commands(LAB).is_empty(), "{:#?}\n{said}", lab.commands(LAB));
    assert_eq!(actions(&lab, LAB).1, serde_json::json!([]));
    everything_is_there(&lab);
    // What was taken away and made again is the experiment's still: it goes when it leaves the file.
    let file = |section: &str| LAB.split_once(section).map_or("", |(before, _)| before).to_owned();
    let (planned, unmanaged) = actions(&lab, &file("nat:\n"));
    assert_eq!(unmanaged, serde_json::json!([]));
    for gone in ["nat.out", "nat.far", "mirror.nics", "mirror.taps", "capture.http", "capture.plain", "capture.whole"] {
        assert!(planned.contains(&(gone.to_owned(), "destroy".to_owned())), "{gone}: {planned:?}");
    }
    lab.file("lab.yaml", LAB);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

#[test]
fn killed_between_any_two_steps_the_networks_converge() {
    if !have(NEEDS) {
        return;
    }
    leave_the_host();
    let lab = Lab::new();
    let edited = edited();
    let converges = |text: &str, point: usize| {
        let answer = lab.run(&["apply", "--yes", "lab.yaml"]);
        assert_eq!(answer.code, 0, "killed after {point} commands:\n{}{}", answer.out, answer.err);
        let left = lab.commands(text);
        assert!(left.is_empty(), "killed after {point} commands: {left:#?}");
        let settings = ["snaplen", "filter"].map(|what| lab.e(&format!("namespace lab capture pcap {what}")).ok().out);
        assert_eq!(settings.concat().replace("vm: ", "").trim(), "1600", "killed after {point} commands");
    };
    for point in [2, 12, 33] {
        lab.file("lab.yaml", LAB);
        assert!(killed_after(&lab, point));
        converges(LAB, point);
        lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
        nothing_is_left(&lab);
    }
    lab.apply(LAB);
    let mut point = 1;
    for text in [edited.as_str(), LAB].into_iter().cycle() {
        lab.file("lab.yaml", text);
        let reached = killed_after(&lab, point);
        if !reached {
            break;
        }
        converges(text, point);
        point += 3;
    }
    assert!(point > 15, "a change has more commands than {point}");
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    nothing_is_left(&lab);
}

/// The example as it is, but with guests that do not run: the test guest is not needed, and no time.
#[test]
fn the_example_of_networks() {
    if !have(NEEDS) {
        return;
    }
    leave_the_host();
    let lab = Lab::new();
    let example = include_str!("../examples/networks.yaml");
    let text: String = example
        .lines()
        .filter(|line| !["kernel:", "initrd:", "append:"].iter().any(|key| line.trim().starts_with(key)))
        .fold(String::new(), |text, line| text + line + "\n");
    let text = text.replace("memory: 128", "memory: 16\n    state: paused");
    lab.apply(&text);
    assert!(lab.commands(&text).is_empty());
    let qos = cell(&lab, ".columns name,qos namespace networks vm info");
    for part in ["[0: rate 100mbit, 1: rate 10mbit]", "[0: rate 2mbit]"] {
        assert!(qos.contains(part), "{part}: {qos}");
    }
    let laptop = lab.run(&["exec-net", "--", "ip", "-brief", "-4", "address", "show", "dev", "laptop"]).ok().out;
    assert!(laptop.contains("10.0.0.1"), "{laptop}");
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.qemus().is_empty() && !lab.mounted());
    assert_eq!(lab.files(), ["files"]);
}

/// Everything that the host says of an interface, but its number: the kernel gives it another one where that is taken.
fn state_of(interface: &str) -> String {
    let json = |args: String| {
        let out = Command::new("ip").args(args.split(' ')).output().expect("ip is there").stdout;
        serde_json::from_slice::<serde_json::Value>(&out).unwrap_or_default()
    };
    let mut link = json(format!("-d -json link show {interface}"));
    let mut address = json(format!("-json address show dev {interface}"));
    for value in [&mut link, &mut address] {
        for interface in value.as_array_mut().into_iter().flatten().filter_map(|value| value.as_object_mut()) {
            interface.remove("ifindex");
            // One that has not been up since it came has no queue yet.
            interface.remove("qdisc");
            let life = interface.get_mut("addr_info").and_then(|list| list.as_array_mut());
            life.into_iter().flatten().filter_map(|a| a.as_object_mut()).for_each(|a| drop(a.remove("stable-privacy")));
        }
    }
    let routes = ["-4", "-6"].map(|family| json(format!("{family} -json route show table all dev {interface}")));
    let settings = ["ipv6", "ipv4"].map(|family| {
        let folder = std::fs::read_dir(format!("/proc/sys/net/{family}/conf/{interface}"));
        let files = folder.into_iter().flatten().flatten().map(|file| file.path());
        let mut values: Vec<(String, String)> = files
            .filter_map(|path| {
                Some((path.file_name()?.to_string_lossy().into_owned(), std::fs::read_to_string(path).ok()?))
            })
            .collect();
        values.sort();
        values
    });
    format!("{link:#}\n{address:#}\n{routes:#?}\n{settings:?}")
}

#[track_caller]
fn is_as_it_was(interface: &str, before: &str) {
    let start = std::time::Instant::now();
    // Addresses settle for a moment.
    while state_of(interface) != before && start.elapsed() < std::time::Duration::from_secs(20) {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(state_of(interface), before);
}

/// An experiment that names an interface of the host gets it, and the host gets it back as it was; one that does not name it
/// has nothing to do with it.
#[test]
fn an_interface_of_the_host_is_lent_and_given_back_as_it_was() {
    if !have(NEEDS) {
        return;
    }
    leave_the_host();
    for args in [
        "link set eth1 alias uplink mtu 1400 promisc on up",
        "address add 198.51.100.2/24 dev wire",
        "link set wire up",
    ] {
        assert!(ip(args), "ip {args}");
    }
    // Until its own address is usable.
    wait_for("the link-local address", || {
        let state = state_of("eth1");
        !state.contains("tentative") && (state.contains("fe80::") || !state.contains("inet6"))
    });
    let up = state_of("eth1");
    let with = "experiment: lab\nvlans: { lan: {} }\nvms: {}\nbridges: { br1: { trunks: eth1 } }\ntaps: { t: { vlan: lan, bridge: br1 }, u: { vlan: 0, bridge: br1, ip: 198.51.100.1/24 } }\nnat: { n: { vlan: lan, bridge: br1, ip: 10.0.0.254/24 } }\n";
    let without = with.replace("bridges: { br1: { trunks: eth1 } }\n", "");
    for options in [&["daemon"][..], &["daemon", "--switch", "openvswitch"]] {
        if options.len() > 1 && !have(OVS_NEEDS) {
            continue;
        }
        let mut lab = Lab::new();
        let daemon = |lab: &mut Lab| {
            let mut daemon = lab.program();
            daemon.args(options);
            lab.start_daemon_by(daemon);
        };
        daemon(&mut lab);
        lab.apply(&without);
        assert_eq!(state_of("eth1"), up, "nobody named it");
        assert_eq!(lab.commands(with), ["bridge trunk br1 eth1"]);
        lab.apply(with);
        assert!(!ip("link show eth1"), "it is still the host's");
        // What is on the network behind it is reached, without a tag.
        wait_for("an answer from behind the interface", || {
            lab.run(&["exec-net", "--", "ping", "-c", "1", "-W", "1", "198.51.100.2"]).code == 0
        });
        // What it was is not only in the daemon's memory.
        lab.kill_daemon();
        daemon(&mut lab);
        assert!(lab.commands(with).is_empty(), "{:?}", lab.commands(with));
        assert_eq!(lab.commands(&without), ["bridge notrunk br1 eth1"]);
        lab.apply(&without);
        is_as_it_was("eth1", &up);
        lab.apply(with);
        lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
        is_as_it_was("eth1", &up);
        assert!(!lab.mounted(), "{:?}", lab.files());
    }
    // One that was down stays down.
    assert!(ip("link set eth1 promisc off down"));
    let down = state_of("eth1");
    let lab = Lab::new();
    lab.apply(with);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    is_as_it_was("eth1", &down);
}

/// VMs on one switch port each, and one with two bonds.
const BONDS: &str = r#"
experiment: lab
vlans: { lan: {}, dmz: {} }
vms:
  web:
    memory: 16
    state: paused
    networks: [lan, lan, dmz, dmz]
    bonds:
      - { nics: [0, 1], mode: active-backup, name: uplink }
      - { nics: [2, 3], mode: balance-tcp, lacp: active, fallback: false, qinq: true, name: back }
"#;

#[test]
fn bonds_are_made_restored_and_dissolved_on_open_vswitch() {
    if !have(OVS_NEEDS) {
        return;
    }
    leave_the_host();
    let mut lab = Lab::new();
    let mut daemon = lab.program();
    daemon.args(["daemon", "--switch", "openvswitch"]);
    lab.start_daemon_by(daemon);
    lab.apply(BONDS);
    assert_eq!(cell(&lab, ".columns bond namespace lab vm info"), "[back, uplink]");
    assert_eq!(cell(&lab, ".columns qinq namespace lab vm info"), "[back]");
    assert!(lab.commands(BONDS).is_empty(), "{:?}", lab.commands(BONDS));
    let uplink = "vm net bond web 0,1 active-backup off name uplink";
    drifts(&lab, BONDS, &[("clear vm net bond web uplink", &[uplink])]);
    // Another under the same name is seen, and what differs is said.
    lab.e("namespace lab clear vm net bond web back").ok();
    lab.e("namespace lab vm net bond web 2,3 balance-tcp passive name back").ok();
    let plan = lab.run(&["plan", "lab.yaml"]).ok().out;
    for reason in ["fallback: ", "lacp: passive", "qinq: "] {
        assert!(plan.contains(reason), "{plan}");
    }
    assert!(!plan.contains("mode: ") && !plan.contains("nics: "), "{plan}");
    let back = "vm net bond web 2,3 balance-tcp active no-lacp-fallback name back qinq";
    assert_eq!(lab.commands(BONDS), ["clear vm net bond web back", back]);
    lab.apply(BONDS);
    assert!(lab.commands(BONDS).is_empty(), "{:?}", lab.commands(BONDS));
    // The NICs of a bond are moved together.
    let moved = BONDS.replace("[lan, lan,", "[dmz, dmz,");
    let [clear, one, two] = ["clear vm net bond web uplink", "vm net connect web 0 dmz", "vm net connect web 1 dmz"];
    assert_eq!(lab.commands(&moved), [clear, one, two, uplink]);
    lab.apply(&moved);
    assert!(lab.commands(&moved).is_empty(), "{:?}", lab.commands(&moved));
    // Another VM is another switch port.
    let bigger = moved.replace("memory: 16", "memory: 17");
    lab.apply(&bigger);
    assert_eq!(cell(&lab, ".columns bond namespace lab vm info"), "[back, uplink]");
    let one = bigger.lines().filter(|line| !line.contains("name: back")).collect::<Vec<_>>().join("\n");
    assert_eq!(lab.commands(&one), ["clear vm net bond web back"]);
    lab.apply(&one);
    assert_eq!(cell(&lab, ".columns bond namespace lab vm info"), "[uplink]");
    // What is imported is what is there.
    lab.apply(&bigger);
    let imported = lab.run(&["import", "lab"]).ok().out;
    assert!(imported.contains("name: uplink") && imported.contains("mode: balance-tcp"), "{imported}");
    let left = lab.commands(&imported).into_iter().filter(|command| !command.starts_with("vm tag"));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{imported}");
    lab.file("lab.yaml", &bigger);
    lab.run(&["destroy", "--yes", "lab.yaml"]).ok();
    assert!(lab.qemus().is_empty() && !lab.mounted(), "{:?} {:?}", lab.files(), lab.rows("bridge"));
}

#[test]
fn bonds_on_linux_bridges_are_refused_and_nothing_is_left() {
    if !have(NEEDS) {
        return;
    }
    leave_the_host();
    let lab = Lab::new();
    lab.file("lab.yaml", BONDS);
    let said = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]);
    assert!(said.code != 0 && said.err.contains("openvswitch"), "{}\n{}", said.out, said.err);
    assert!(lab.qemus().is_empty(), "{}", said.out);
}
