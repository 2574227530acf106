//! Every kind of the experiment file against releases of minimega, 3.1.0 and one of 2018: either there is a plan that works, from
//! nothing through a change to nothing, or an error that names the place in the file before anything is sent.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use megaform::name::Kind;

#[path = "support/minimega.rs"]
mod peer;

use peer::Minimega;

/// What the rows below stand on.
const BASE: &str = "experiment: lab\nvlans: { lan: {} }\nvms: { web: { memory: 64, networks: [lan, lan] }, db: { networks: [lan] } }\n";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Works {
    Everywhere,
    /// From 3.1.0 on.
    Newer,
    /// With megaform's engine alone.
    Megaform,
}

use Works::{Everywhere, Megaform, Newer};

/// A kind, what is put for a text of the base (or added at the end, for the empty text), where it works, and an edit.
type Row = (Kind, &'static str, &'static str, Works, (&'static str, &'static str));

const NONE: (&str, &str) = ("", "");

const ROWS: &[Row] = &[
    (Kind::Placement, "", "placement: { load: memcommit }", Everywhere, ("memcommit", "netcommit")),
    (Kind::Placement, "", "placement: { queueing: true }", Everywhere, ("memory: 64", "memory: 65")),
    (Kind::Placement, "", "placement: { hosts: localhost }", Newer, NONE),
    (Kind::Vlan, "lan: {}", "lan: { tag: 300 }, z: {}", Everywhere, ("tag: 300", "tag: 301")),
    (Kind::Vlan, "", "vlan_range: 300-400", Everywhere, ("300-400", "300-500")),
    (Kind::Vlan, "", "vlan_blacklist: [200, 300-302]", Everywhere, ("200", "201")),
    (Kind::Bridge, "", "bridges: { br1: { trunks: eth1 } }", Everywhere, ("eth1", "eth2")),
    (Kind::Bridge, "", "bridges: { br1: { tunnels: [vxlan 10.9.0.2] } }", Everywhere, ("10.9.0.2", "10.9.0.3")),
    (Kind::Bridge, "", "bridges: { br1: { tunnels: [gre 10.9.0.2 7] } }", Newer, ("10.9.0.2", "10.9.0.3")),
    (Kind::Bridge, "", "bridges: { br1: { config: { stp_enable: \"true\" } } }", Newer, ("\"true\"", "\"false\"")),
    (Kind::Tap, "", "taps: { gw: { vlan: lan, ip: 10.0.0.1/24 } }", Everywhere, ("10.0.0.1", "10.0.0.2")),
    (Kind::Tap, "", "taps: { gw: { vlan: lan, bridge: br1 } }", Everywhere, ("br1", "br2")),
    (Kind::Nat, "", "nat: { out: { vlan: lan, ip: 10.0.0.254/24 } }", Megaform, NONE),
    (Kind::Vm, "memory: 64", "memory: 64", Everywhere, ("memory: 64", "memory: 96")),
    (Kind::Vm, "memory: 64", "memory: 64", Everywhere, ("[lan, lan]", "[lan, lan, lan]")),
    (Kind::Vm, "memory: 64", "memory: 64", Everywhere, (", db: { networks: [lan] }", "")),
    (Kind::Vm, "memory: 64", "tags: { role: \"a b\" }", Everywhere, ("a b", "c")),
    (Kind::Vm, "memory: 64", "state: paused", Everywhere, ("paused", "running")),
    (Kind::Vm, "[lan, lan]", "[lan, { vlan: lan, connected: false }]", Everywhere, ("false", "true")),
    (Kind::Vm, "[lan, lan]", "[lan, { vlan: lan, qos: { rate: 10 mbit } }]", Everywhere, ("10 mbit", "20 mbit")),
    (Kind::Vm, "[lan, lan]", "[lan, { vlan: lan, qos: { delay: 10ms, loss: 1 } }]", Everywhere, ("10ms", "20ms")),
    // The code of this one is its own.
    (Kind::Vm, "[lan, lan]", "[lan, { vlan: lan, qos: { rate: 1 mbit, delay: 10ms } }]", Megaform, NONE),
    (Kind::Vm, "", "links: { l: { ends: [web.0, db.0], rate: 10 mbit } }", Everywhere, ("10 mbit", "20 mbit")),
    (Kind::Vm, "memory: 64", "depends_on: db", Everywhere, ("networks: [lan] }", "memory: 32, networks: [lan] }")),
    (
        Kind::Vm,
        "memory: 64",
        "disks: [/a.qcow2], cdrom: /c.iso, cores: 2, vcpus: 2",
        Everywhere,
        ("a.qcow2", "b.qcow2"),
    ),
    (Kind::Vm, "memory: 64", "disks: [/a.qcow2], cdrom: /c.iso", Everywhere, ("/c.iso", "/d.iso")),
    (
        Kind::Vm,
        "memory: 64",
        "usb_disks: [/a.img, { path: /b.img, version: \"1.1\" }]",
        Everywhere,
        ("/a.img", "/c.img"),
    ),
    (Kind::Vm, "memory: 64", "kernel: /k, initrd: /i, append: [quiet, console=ttyS0]", Everywhere, ("quiet", "loud")),
    (Kind::Vm, "memory: 64", "snapshot: false, uuid: 11111111-2222-4333-8444-555555555555", Everywhere, NONE),
    (Kind::Vm, "memory: 64", "schedule: vm, coschedule: 3", Everywhere, ("coschedule: 3", "coschedule: 4")),
    (Kind::Vm, "memory: 64", "colocate: db", Newer, NONE),
    (Kind::Vm, "memory: 64", "vcpus: 2, threads: 2", Newer, ("threads: 2", "threads: 1")),
    (Kind::Vm, "memory: 64", "vcpus: 2, sockets: 2", Newer, NONE),
    (Kind::Vm, "memory: 64", "vga: qxl", Newer, NONE),
    (Kind::Vm, "memory: 64", "usb_use_xhci: false", Newer, NONE),
    (Kind::Vm, "memory: 64", "bidirectional_copy_paste: true", Newer, NONE),
    (Kind::Vm, "memory: 64", "tpm_socket: /run/tpm", Newer, NONE),
    (Kind::Vm, "memory: 64", "wait_for: { ping: 10.0.0.2 }, depends_on: db", Everywhere, NONE),
    (Kind::Vm, "db: {", "db: { wait_for: { port: \"10.0.0.2:80\" },", Everywhere, NONE),
    (Kind::Vm, "db: {", "db: { tags: { agent: yes }, wait_for: { cc: true },", Everywhere, NONE),
    (Kind::Vm, "db: {", "db: { wait_for: { command: vm info },", Everywhere, NONE),
    (Kind::Vm, "memory: 64", "serial_ports: 1, wait_for: { serial: login }", Megaform, NONE),
    (
        Kind::Bond,
        "[lan, lan]",
        "[lan, lan], bonds: [{ nics: [0, 1], mode: active-backup }]",
        Newer,
        ("active-backup", "balance-slb"),
    ),
    (
        Kind::Dnsmasq,
        "",
        "taps: { gw: { vlan: lan, ip: 10.0.0.1/24 } }\n\
         dnsmasq: { d: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99], leases: [web.0 10.0.0.10], dns: 10.0.0.10 a.lab, options: \"option:router,10.0.0.254\" } }",
        Everywhere,
        ("10.0.0.254", "10.0.0.253"),
    ),
    (
        Kind::Dnsmasq,
        "",
        "taps: { gw: { vlan: lan, ip: 10.0.0.1/24 } }\n\
         dnsmasq: { d: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99], upstream: 10.0.0.53 } }",
        Newer,
        ("10.0.0.53", "10.0.0.54"),
    ),
    (
        Kind::Mirror,
        "",
        "taps: { gw: { vlan: lan }, mon: { vlan: lan } }\nmirrors: { m: { from: gw, to: mon } }",
        Everywhere,
        ("from: gw, to: mon", "from: mon, to: gw"),
    ),
    (Kind::Mirror, "", "mirrors: { m: { from: web.0, to: db.0 } }", Newer, ("web.0", "web.1")),
    (
        Kind::Capture,
        "",
        "captures: { c: { vm: web, file: /a.pcap, snaplen: 96, filter: udp } }",
        Everywhere,
        ("96", "97"),
    ),
    (Kind::Capture, "", "captures: { c: { bridge: mega_bridge, file: /a.pcap } }", Everywhere, ("/a.pcap", "/b.pcap")),
    (
        Kind::Capture,
        "",
        "captures: { c: { type: netflow, bridge: mega_bridge, file: /a.flow, format: raw, gzip: true } }",
        Everywhere,
        ("gzip: true", "gzip: false"),
    ),
    (
        Kind::Capture,
        "",
        "captures: { c: { type: netflow, bridge: mega_bridge, to: \"udp://10.0.0.9:9995\", timeout: 20 } }",
        Everywhere,
        (":9995", ":9996"),
    ),
    (Kind::Pipe, "", "pipes: { p: { mode: round-robin, log: true, via: cat } }", Everywhere, ("round-robin", "random")),
    (Kind::Plumbing, "", "plumbing: { p: { pipeline: [a, cat, b] } }", Everywhere, ("[a, cat, b]", "[a, cat, cat, b]")),
    (
        Kind::Command,
        "",
        "commands: { c: { create: vm tag web mark x, destroy: clear vm tag web mark, depends_on: web } }",
        Everywhere,
        ("mark x", "mark y"),
    ),
];

struct Lab {
    folder: tempfile::TempDir,
    minimega: Minimega,
    /// What failed is told with it.
    of: String,
}

impl Lab {
    fn new(old: bool, of: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let minimega = Minimega::start(folder.path());
        minimega.state().network.old = old;
        let of = format!("{of}\non {}", if old { "a release of 2018" } else { "3.1.0" });
        Self { folder, minimega, of }
    }

    fn program(&self) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_megaform"));
        program
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("MEGAFORM_BASE", self.folder.path().join("base"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(["--socket", "minimega"]);
        program
    }

    /// Run a subcommand on the file and kill it once it reported that so many commands ended. False if it ended before that.
    fn killed_after(&self, subcommand: &str, ended: usize) -> bool {
        let mut child = self
            .program()
            .args([subcommand, "--yes", "lab.yaml"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let reached = lines.by_ref().filter(|line| line.starts_with('[')).nth(ended).is_some();
        child.kill().expect("our own child");
        child.wait().expect("our own child");
        reached
    }

    fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.program().args(args).output().expect("the program starts");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8")).concat();
        (output.status.code().expect("it ends by itself"), text)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("lab.yaml"), text).expect("the temporary folder is writable");
    }

    /// What was sent since the last call that changes something. The release has all of it, but what only asks.
    fn changes(&self) -> Vec<String> {
        let mut changes = peer::changes(self.minimega.take_log(), "lab");
        let asks = [
            "vlans blacklist",
            "capture pcap filter",
            "capture pcap snaplen",
            "capture netflow gzip",
            "capture netflow mode",
        ];
        changes.retain(|line| !asks.contains(&line.as_str()) && !line.starts_with("shell "));
        let unknown = std::mem::take(&mut self.minimega.state().unknown);
        let unknown: Vec<&String> = unknown.iter().filter(|line| !peer::observing::observes(line)).collect();
        assert!(unknown.is_empty(), "it does not have {unknown:?}:\n{}", self.of);
        changes
    }

    /// Apply, and find nothing to do afterwards.
    fn converges(&self) -> Vec<String> {
        let (code, text) = self.run(&["apply", "--yes", "lab.yaml"]);
        assert_eq!(code, 0, "{}:\n{text}", self.of);
        let changes = self.changes();
        let (code, text) = self.run(&["apply", "--yes", "lab.yaml"]);
        assert!(code == 0 && text.contains("No changes"), "{}:\n{text}", self.of);
        assert_eq!(self.changes(), [] as [&str; 0], "{}", self.of);
        changes
    }

    fn is_refused(&self, marker: &str) {
        let (code, text) = self.run(&["apply", "--yes", "lab.yaml"]);
        assert_eq!(code, 1, "{}:\n{text}", self.of);
        assert!(text.contains(marker) && text.contains("lab.yaml:"), "{}:\n{text}", self.of);
        assert_eq!(self.changes(), [] as [&str; 0], "{}", self.of);
    }

    fn destroy(&self) {
        let (code, text) = self.run(&["destroy", "--yes", "lab.yaml"]);
        assert_eq!(code, 0, "{}:\n{text}", self.of);
        self.changes();
        let state = self.minimega.state();
        assert!(!state.namespaces.contains_key("lab"), "the namespace is left: {}", self.of);
        let network = &state.network;
        assert!(network.captures.is_empty() && network.mirrors.is_empty() && network.dnsmasq.is_empty(), "{}", self.of);
        assert!(network.pipes.is_empty() && network.bonds.is_empty() && network.qos.is_empty(), "{}", self.of);
        assert!(network.plumbing.values().all(Vec::is_empty) && network.nat.is_empty(), "{}", self.of);
        // Releases of 2018 cannot remove a bridge.
        let left = |bridge: &peer::network::Bridge| !bridge.trunks.is_empty() || !bridge.tunnels.is_empty();
        assert!(
            !network.bridges.values().any(|bridge| !state.network.old || left(bridge)),
            "{}:\n{network:?}",
            self.of
        );
        drop(state);
        let (code, text) = self.run(&["destroy", "--yes", "lab.yaml"]);
        assert!(code == 0 && text.contains("No changes"), "{}:\n{text}", self.of);
    }
}

fn text(row: &Row) -> String {
    let (_, place, put, ..) = row;
    assert!(BASE.contains(place), "{place}");
    if place.is_empty() { format!("{BASE}{put}\n") } else { BASE.replacen(place, put, 1) }
}

#[test]
fn every_kind_works_or_is_refused_before_anything_is_sent() {
    let all: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.word()).collect();
    let had: BTreeSet<&str> = ROWS.iter().map(|row| row.0.word()).collect();
    assert_eq!(had, all, "a row for each kind");
    let rows = || ROWS.iter().flat_map(|row| [false, true].map(|old| (row, old)));
    let failed = rows().filter(|(row, old)| std::panic::catch_unwind(|| holds(row, *old)).is_err());
    let failed: Vec<String> = failed.map(|(row, old)| format!("{}, 2018: {old}", text(row))).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What a row says of a release.
fn holds(row: &Row, old: bool) {
    let text = text(row);
    let lab = Lab::new(old, &text);
    lab.write(&text);
    if row.3 == Megaform || (row.3 == Newer && old) {
        lab.is_refused(if text.contains("rate: 1 mbit, delay") { "qos-unsupported" } else { "target-lacks" });
        assert!(!lab.minimega.state().namespaces.contains_key("lab"), "{text}");
        return;
    }
    assert!(!lab.converges().is_empty(), "{text}");
    let (from, to) = row.4;
    if !from.is_empty() {
        assert!(text.contains(from), "{from} in {text}");
        lab.write(&text.replacen(from, to, 1));
        assert!(!lab.converges().is_empty(), "{from} -> {to}: {text}");
    }
    lab.destroy();
}

#[test]
fn a_release_that_forgets_all_that_ended_forgets_nothing_that_is_to_stay() {
    let lab = Lab::new(true, BASE);
    lab.write(BASE);
    lab.converges();
    lab.minimega.by_hand("namespace lab vm launch kvm theirs");
    lab.minimega.by_hand("namespace lab vm kill theirs");
    lab.write(&BASE.replace("memory: 64", "memory: 96"));
    lab.is_refused(
        "vm.web can only be forgotten by `vm flush`, which on the target forgets every VM that ended, also vm.theirs",
    );
    lab.minimega.by_hand("namespace lab vm start theirs");
    let sent = lab.converges();
    assert_eq!(sent[..2], ["vm kill web", "vm flush"]);
    assert!(lab.minimega.state().namespaces["lab"].vms.contains_key("theirs"));
}

/// What is replaced, changed, taken away and made, and what hangs on that.
const LAB: &str = r#"
experiment: lab
vlans: { lan: {} }
vms:
  "web[0-1]": { memory: 64, networks: [lan, { vlan: lan, qos: { rate: 10 mbit } }], usb_disks: [/a.img] }
  db: { networks: [lan], depends_on: web0 }
  gone: { networks: [lan] }
taps: { gw: { vlan: lan, ip: 10.0.0.1/24 }, mon: { vlan: lan } }
bridges: { br1: { trunks: eth1 } }
dnsmasq: { d: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99], leases: [web0.0 10.0.0.10] } }
mirrors: { m: { from: gw, to: mon } }
captures: { c: { vm: web0, file: /a.pcap } }
"#;

const EDITS: &[(&str, &str)] =
    &[("memory: 64", "memory: 96"), ("  gone: { networks: [lan] }", "  come: { networks: [lan] }"), ("eth1", "eth2")];

fn edited() -> String {
    EDITS.iter().fold(LAB.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1)
    })
}

#[test]
fn killed_after_every_single_step_on_a_release_that_forgets_all_that_ended() {
    let lab = Lab::new(true, LAB);
    let edited = edited();
    let whole = |text: &str| {
        lab.write(text);
        lab.converges();
        let state = lab.minimega.state();
        let vms = &state.namespaces["lab"].vms;
        let wanted = ["web0", "web1", "db", if text == LAB { "gone" } else { "come" }];
        assert_eq!(vms.keys().map(String::as_str).collect::<BTreeSet<_>>(), wanted.into());
        assert!(vms.values().all(|vm| vm.state == peer::RUNNING), "{vms:?}");
    };
    whole(LAB);
    let mut point = 0;
    for text in [edited.as_str(), LAB].into_iter().cycle() {
        lab.write(text);
        if !lab.killed_after("apply", point) {
            break;
        }
        whole(text);
        point += 1;
    }
    assert!(point > 15, "a change has more commands than {point}");
    for point in 0.. {
        whole(LAB);
        if !lab.killed_after("destroy", point) {
            break;
        }
        lab.destroy();
    }
}

#[test]
fn a_lost_answer_of_the_command_that_forgets_all_is_looked_into() {
    for after in [false, true] {
        let lab = Lab::new(true, BASE);
        lab.write(BASE);
        lab.converges();
        lab.write(&BASE.replace("memory: 64", "memory: 96"));
        lab.minimega.state().hang_up_at = Some(("lab vm flush".to_owned(), after));
        let (code, text) = lab.run(&["apply", "--yes", "lab.yaml"]);
        assert_eq!(code, if after { 0 } else { 4 }, "{text}");
        let sent = lab.changes();
        assert_eq!(sent.iter().filter(|line| *line == "vm flush").count(), 1, "{sent:?}");
        if !after {
            assert!(!sent.iter().any(|line| line.contains("vm launch")), "{sent:?}");
            assert!(lab.converges().contains(&"vm launch kvm web".to_owned()));
        }
        lab.destroy();
    }
}

#[test]
fn a_saved_plan_forgets_nothing_that_ended_since() {
    let lab = Lab::new(true, BASE);
    lab.write(BASE);
    lab.converges();
    lab.minimega.by_hand("namespace lab vm launch kvm theirs");
    lab.write(&BASE.replace("memory: 64", "memory: 96"));
    let (code, text) = lab.run(&["plan", "--out", "saved.mm", "lab.yaml"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("# forgets every VM that ended: sent only where that is no other than web\n"), "{text}");
    lab.minimega.by_hand("namespace lab vm kill theirs");
    let (code, text) = lab.run(&["apply", "--yes", "saved.mm"]);
    assert_eq!(code, 4, "{text}");
    assert!(
        text.contains("not sent: theirs has ended too and would be forgotten; start it, or flush it by hand"),
        "{text}"
    );
    assert!(lab.minimega.state().namespaces["lab"].vms.contains_key("theirs"));
    assert_eq!(lab.changes(), ["vm kill web", "clear vm config"]);
    lab.minimega.by_hand("namespace lab vm start theirs");
    lab.converges();
    // Nothing in the way of it, it does what it says.
    lab.write(&BASE.replace("memory: 64", "memory: 97"));
    lab.run(&["plan", "--out", "saved.mm", "lab.yaml"]);
    let (code, text) = lab.run(&["apply", "--yes", "saved.mm"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(lab.changes()[..2], ["vm kill web", "vm flush"]);
    lab.write(&BASE.replace("memory: 64", "memory: 97"));
    let (code, text) = lab.run(&["plan", "--detailed-exitcode", "lab.yaml"]);
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_rollback_forgets_what_it_killed_and_no_other() {
    for (old, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
        let lab = Lab::new(old, BASE);
        if theirs {
            lab.minimega.by_hand("namespace lab vm launch kvm theirs");
            lab.minimega.by_hand("namespace lab vm kill theirs");
        }
        lab.write(&format!(
            "{BASE}taps: {{ gw: {{ vlan: lan }} }}\ncommands: {{ c: {{ create: vm tag web mark x }} }}\n"
        ));
        lab.minimega.state().fail_at = Some("mark x".to_owned());
        let (code, text) = lab.run(&["apply", "--yes", "--rollback", "lab.yaml"]);
        assert_eq!(code, if old && theirs { 4 } else { 1 }, "{text}");
        lab.changes();
        let state = lab.minimega.state();
        let left: Vec<&String> = state.namespaces.get("lab").map(|ns| ns.vms.keys().collect()).unwrap_or_default();
        match (old, theirs) {
            (true, true) => {
                assert_eq!(left, ["db", "theirs", "web"], "{}:\n{text}", lab.of);
                assert!(text.contains("not sent: theirs has ended too and would be forgotten"), "{text}");
            }
            (_, true) => assert_eq!(left, ["theirs"], "{}:\n{text}", lab.of),
            _ => assert_eq!(left, [] as [&str; 0], "{}:\n{text}", lab.of),
        }
    }
}

#[test]
fn a_saved_plan_is_refused_by_a_target_that_is_an_older_release_since() {
    let lab = Lab::new(false, BASE);
    lab.write(BASE);
    lab.converges();
    lab.write(&BASE.replace("memory: 64", "memory: 96"));
    lab.run(&["plan", "--out", "saved.mm", "lab.yaml"]);
    lab.minimega.state().network.old = true;
    let (code, text) = lab.run(&["apply", "--yes", "saved.mm"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("error[target-lacks]: vm.web takes `vm flush web`, which the target does not have"),
        "{text}"
    );
    assert_eq!(lab.changes(), [] as [&str; 0]);
    lab.converges();
}

/// Whatever else a release lacks: there is another way, or nothing is sent.
#[test]
fn a_release_that_nobody_foresaw_stops_no_plan_in_the_middle() {
    let lab = Lab::new(false, LAB);
    lab.write(LAB);
    let mut sent = lab.converges();
    lab.write(&edited());
    sent.extend(lab.converges());
    let release = lab.minimega.state().network.release(true);
    let begin = |line: &String| Some(release.begin(&line.split(' ').collect::<Vec<_>>())?.join(" "));
    let begins: BTreeSet<String> = sent.iter().filter_map(begin).collect();
    // What is described in several entries is not asked for: all releases have it.
    let unasked = ["vm config", "clear vm config", "capture", "tap mirror", "clear tap"];
    let asked = |begin: &&String| !unasked.iter().any(|start| begin.starts_with(start));
    let mut refused = BTreeSet::new();
    for begin in begins.iter().filter(asked) {
        let lab = Lab::new(false, begin);
        lab.write(LAB);
        lab.minimega.state().network.lacks = Some(begin.clone().leak());
        let apply = || lab.run(&["apply", "--yes", "lab.yaml"]);
        let (mut code, mut text) = apply();
        if code == 0 {
            lab.changes();
            lab.write(&edited());
            (code, text) = apply();
        }
        assert_eq!(code, 1, "{begin}:\n{text}");
        assert!(text.contains("target-lacks") && text.contains("lab.yaml:"), "{begin}:\n{text}");
        assert_eq!(lab.changes(), [] as [&str; 0], "{begin}");
        refused.insert(begin.as_str());
    }
    assert!(refused.len() > 10, "{refused:?}");
}
