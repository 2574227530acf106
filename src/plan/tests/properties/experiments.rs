//! Random experiments, as text.

use std::fmt::Write as _;

use proptest::prelude::*;

/// One VM of a random experiment, as YAML flow.
fn vm() -> impl Strategy<Value = String> {
    let nic = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("{ vlan: c, driver: virtio-net-pci }".to_owned()),
        Just("{ vlan: a, bridge: br1 }".to_owned()),
        Just("{ vlan: a, qos: { rate: 10 mbit } }".to_owned()),
        Just("{ vlan: b, qos: { delay: 20 ms, loss: 0.1 } }".to_owned()),
        Just("{ vlan: b, qos: { delay: 20 ms } }".to_owned()),
        Just("{ vlan: 77 }".to_owned()),
        Just("{ vlan: a, bridge: br1, connected: false }".to_owned()),
        Just("{ vlan: c, connected: false, qos: { rate: 10 mbit } }".to_owned()),
    ];
    (
        prop_oneof![Just(64), Just(128)],
        proptest::collection::vec(nic, 0..3),
        any::<bool>(),
        prop_oneof![Just(""), Just(", tags: { role: x }"), Just(", tags: { role: y, tier: z }")],
        prop_oneof![
            Just(""),
            Just(", disks: [disk.qcow2]"),
            Just(", disks: [\"disk.qcow2,virtio\"]"),
            Just(", snapshot: false"),
            Just(", cdrom: /iso/a.iso"),
            Just(", cdrom: \"/iso/b c.iso\""),
            Just(", cdrom: a.iso, disks: [disk.qcow2]"),
            Just(", cdrom: b.iso, disks: [disk.qcow2]"),
            Just(", cdrom: b.iso, disks: [other.qcow2]"),
            Just(", usb_disks: [a.img]"),
            Just(", usb_disks: [\"/usb/b c.img\", { path: a.img, version: \"1.1\" }], cdrom: a.iso"),
            Just(", usb_disks: [{ path: a.img, version: \"2.0\", serial: S1 }, \"/usb/c.img\"]"),
            Just(", usb_disks: [{ path: a.img, version: \"2.0\", serial: S2 }]"),
            Just(", qemu_override: [{ match: a, replacement: b }, { match: b, replacement: \"\" }]"),
            Just(", disks: [{ path: disk.qcow2, interface: virtio, cache: none }, other.qcow2]"),
            Just(", disks: [{ path: disk.qcow2 }], usb_use_xhci: false"),
        ],
        fields(),
    )
        .prop_map(|(memory, nics, paused, tags, disks, fields)| {
            let state = if paused { "paused" } else { "running" };
            format!("{{ memory: {memory}, networks: [{}], state: {state}{tags}{disks}{fields} }}", nics.join(", "))
        })
}

/// Fields that only launching sets, most often none.
fn fields() -> impl Strategy<Value = &'static str> {
    let some = proptest::sample::select(vec![
        ", vcpus: 4, sockets: 1, cores: 2, threads: 2",
        ", vcpus: 2, cpu: qemu64, machine: q35, type: kvm",
        ", kernel: /k/vmlinuz, initrd: k/initrd, append: console=ttyS0 quiet",
        ", kernel: /k/vmlinuz, append: [\"a b\", c]",
        ", virtio_ports: \"a,b\", vga: none",
        ", virtio_ports: 2, backchannel: false",
        ", qemu: /usr/bin/qemu, qemu_append: [-S, \"-d x\"]",
        ", bidirectional_copy_paste: true, tpm_socket: /run/tpm",
        ", schedule: vm, coschedule: 30",
        ", migrate: /m.state",
    ]);
    prop_oneof![3 => Just(""), 2 => some]
}

pub fn experiment() -> impl Strategy<Value = String> {
    let vms = proptest::collection::btree_map("(a|b|c|web|\"web\\[1-3\\]\"|\"n\\[0-4\\]\")", vm().boxed(), 0..4);
    let tag = || prop_oneof![Just("{}"), Just("{ tag: 200 }")];
    let other = || prop_oneof![Just("{}"), Just("{ tag: 201 }"), Just("{ tag: 202 }")];
    let tap = prop_oneof![
        Just(""),
        Just("taps: { t0: { vlan: a } }\n"),
        Just("taps: { t0: { vlan: b, ip: 10.0.0.1/24 } }\n"),
        Just("taps: { t0: { vlan: 9, bridge: br2 } }\n"),
    ];
    let renamed = proptest::option::of(vm().boxed());
    (vms, tag(), other(), other(), tap, any::<bool>(), renamed).prop_map(|(mut vms, a, b, c, tap, range, renamed)| {
        if let Some(body) = renamed.filter(|_| !vms.contains_key("c")) {
            let body = body.strip_suffix(" }").unwrap();
            vms.insert("late".to_owned(), format!("{body}, lifecycle: {{ renamed_from: c }} }}"));
        }
        // Two aliases cannot have one tag.
        let c = if b == c { "{}" } else { c };
        let mut text = format!("experiment: random\nvlans: {{ a: {a}, b: {b}, c: {c} }}\n{tap}");
        if range {
            text.push_str("vlan_range: [300, 400]\nvlan_blacklist: [350, 360-362]\n");
        }
        text.push_str("vms:");
        if vms.is_empty() {
            text.push_str(" {}");
        }
        text.push('\n');
        for (name, body) in vms {
            writeln!(text, "  {name}: {body}").unwrap();
        }
        text
    })
}

/// The same with bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines.
pub fn with_objects() -> impl Strategy<Value = String> {
    let bridge = prop_oneof![
        Just(""),
        Just("bridges: { br1: { trunks: [e0] } }\n"),
        Just("bridges: { br1: { trunks: [e0, e1], config: { mode: fast } } }\n"),
        Just("bridges: { br1: { tunnels: [vxlan 10.9.0.2 7] }, br7: {} }\n"),
        Just("bridges: { br1: { tunnels: [vxlan 10.9.0.2 7, gre 10.9.0.3] } }\n"),
        Just("bridges: { br1: { tunnels: [{ type: gre, remote: 10.9.0.3, key: 5 }] } }\n"),
    ];
    let server = prop_oneof![
        Just(""),
        Just("{ s: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.20] } }"),
        Just(
            "{ s: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.20], leases: [x.0 10.7.0.30], dns: [10.7.0.30 x.lab] } }"
        ),
        Just("{ s: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.21], options: [\"option:router,10.7.0.1\"] } }"),
        Just("{ t: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.20], leases: [x.0 10.7.0.30, y.0 10.7.0.31] } }"),
        Just(
            "{ s: { address: 10.7.0.1, range: [10.7.0.10, 10.7.0.20], upstream: [10.7.0.2], config: /etc/lab.conf, \
             leases: [{ mac: \"52:54:00:00:00:09\", ip: 10.7.0.32 }, { vm: y, interface: 1, ip: 10.7.0.31 }], \
             dns: [{ ip: 10.7.0.31, name: y.lab }] } }"
        ),
    ];
    let mirror = prop_oneof![
        Just(""),
        Just("mirrors: { m: { from: x.0, to: y.0 } }\n"),
        Just("mirrors: { m: { from: y.0, to: x.0 }, n: { from: x.0, to: y.0 } }\n"),
        Just("mirrors: { t: { from: m0, to: m1, bridge: br1 } }\n"),
    ];
    let capture = prop_oneof![
        Just(""),
        Just("captures: { c: { vm: x, file: /c.pcap } }\n"),
        Just(
            "captures: { c: { vm: x, file: c.pcap, snaplen: 96 }, d: { vm: x, file: d.pcap, snaplen: 96, filter: icmp } }\n"
        ),
        Just(
            "captures: { d: { vm: x, file: d.pcap }, e: { bridge: mega_bridge, file: e.pcap }, f: { type: netflow, bridge: mega_bridge, to: \"udp://h:99\", format: raw } }\n"
        ),
        Just("captures: { c: { vm: y, interface: 1, file: c.pcap }, d: { type: pcap, vm: y, file: d.pcap } }\n"),
        Just(
            "captures: { f: { type: netflow, bridge: mega_bridge, file: f.flow, gzip: true, timeout: 5 }, x: { vm: y, file: /y.pcap } }\n"
        ),
    ];
    let nat = prop_oneof![
        Just(""),
        Just("nat: { out: { vlan: a, ip: 10.7.0.254/24 } }\n"),
        Just("nat: { out: { vlan: a, ip: 10.7.0.253/24 }, far: { vlan: b, bridge: br1, ip: 10.8.0.254/24 } }\n"),
        Just("nat: { way: { vlan: a, ip: 10.7.0.254/24 }, tag: { vlan: 201, ip: 10.8.0.254/24 } }\n"),
        Just("nat: { out: { vlan: c, ip: 10.7.0.254/24 }, both: { vlan: c, bridge: br1, ip: 10.8.0.254/24 } }\n"),
    ];
    let plumbing = prop_oneof![
        Just(""),
        Just("plumbing: { p: { pipeline: [a, b] } }\n"),
        Just("plumbing: { p: { pipeline: [a, sed -u s/x/y/, b] }, q: { pipeline: [b, c] } }\n"),
        Just("plumbing: { q: { pipeline: [a, b] }, r: { pipeline: [b, grep -v \"it's\", \"cat\", far//x] } }\n"),
    ];
    let pipes = prop_oneof![
        Just(""),
        Just("pipes: { a: { mode: random }, z: {} }\n"),
        Just("pipes: { a: { log: true }, b: { mode: round-robin, via: \"sed -u s/b/c/\" }, c: {} }\n"),
        Just("pipes: { a: { via: \"sh -c 'tr a b'\", log: true }, z: { mode: random } }\n"),
    ];
    let tap = prop_oneof![Just("10.7.0.1/24, bridge: br1"), Just("10.7.0.1/24")];
    let parts =
        (experiment().boxed(), bridge, server, (mirror, nat, pipes, plumbing).boxed(), (capture, link()).boxed());
    (parts.boxed(), x().boxed(), y().boxed(), tap).prop_map(
        |((text, bridge, server, (mirror, nat, pipes, plumbing), (capture, link)), x, y, tap)| {
            // A text on a serial port is awaited on one that is there.
            let ports = if x.contains("serial:") { ", serial_ports: 2" } else { "" };
            let vms = format!("x: {{ {x}{ports} }}\n  y: {{ {y} }}");
            let text = match text.contains("vms: {}") {
                true => text.replace("vms: {}", &format!("vms:\n  {vms}")),
                false => text.replace("vms:\n", &format!("vms:\n  {vms}\n")),
            };
            let gateway = (!server.is_empty()).then(|| format!("gw: {{ vlan: a, ip: {tap} }}"));
            let watched = mirror.contains("m0").then(|| {
                let [one, two] = ["m0", "m1"].map(|name| format!("{name}: {{ vlan: b, bridge: br1 }}"));
                format!("{one}, {two}")
            });
            let leased = text.contains("tag: 200").then(|| "t1: { vlan: c, dhcp: true }".to_owned());
            let taps: Vec<String> = gateway.into_iter().chain(watched).chain(leased).collect();
            let text = match (taps.join(", "), text.contains("taps: {")) {
                (taps, _) if taps.is_empty() => text,
                (taps, true) => text.replace("taps: { ", &format!("taps: {{ {taps}, ")),
                (taps, false) => text.replace("vms:", &format!("taps: {{ {taps} }}\nvms:")),
            };
            let server = if server.is_empty() { String::new() } else { format!("dnsmasq: {server}\n") };
            text.replacen("vms:", &format!("{bridge}{nat}{server}{mirror}{capture}{link}{pipes}{plumbing}vms:"), 1)
        },
    )
}

/// The body of the VM `x`, which has a NIC on `a`.
fn x() -> impl Strategy<Value = String> {
    let base = prop_oneof![
        Just("networks: [a]"),
        Just("networks: [a], memory: 96"),
        Just("networks: [a], state: paused"),
        Just("networks: [{ vlan: a, mac: \"52:54:00:00:00:01\" }], uuid: 12345678-0000-4000-8000-000000000001"),
        Just("networks: [{ vlan: a, mac: \"52:54:00:00:00:02\" }, b]"),
        Just("networks: [a, a, b], bonds: [{ nics: [0, 1], mode: active-backup }]"),
        Just("networks: [a, a, a], memory: 96, bonds: [{ nics: [1, 2], mode: balance-tcp, lacp: active, name: up }]"),
        Just("networks: [a, a, a], bonds: [{ nics: [1, 2], mode: balance-slb, lacp: passive, fallback: false }]"),
        Just("networks: [a, b, b], bonds: [{ nics: [1, 2], mode: balance-slb, qinq: true, name: up }]"),
    ];
    // What does not run is not waited for.
    (base, wait())
        .prop_map(|(base, wait)| if base.contains("paused") { base.to_owned() } else { format!("{base}{wait}") })
}

/// What a VM waits for.
fn wait() -> impl Strategy<Value = &'static str> {
    let some = proptest::sample::select(vec![
        ", wait_for: { cc: true, timeout: 1m }",
        ", wait_for: { ping: 10.7.0.30 }",
        ", wait_for: { port: \"10.7.0.30:80\", command: shell test -d /r, timeout: 30 }",
        ", wait_for: { cc: true, ping: 10.7.0.30, port: \"10.7.0.31:80\" }",
        ", wait_for: { serial: \"login:\" }",
        ", wait_for: { serial: [{ port: 1, pattern: \"^ready \\\\d+$\" }, { text: up }], timeout: 5m }",
    ]);
    prop_oneof![1 => Just(""), 2 => some]
}

/// The body of the VM `y`, which has NICs on `b` and `a`.
fn y() -> impl Strategy<Value = String> {
    let rest = prop_oneof![Just(""), Just(", depends_on: x"), Just(", colocate: x"), Just(", memory: 80")];
    (rest, wait()).prop_map(|(rest, wait)| {
        // A text is awaited on a serial port that is there.
        let ports = if wait.contains("serial:") { ", serial_ports: 2" } else { "" };
        format!("networks: [b, a]{rest}{wait}{ports}")
    })
}

/// Links between `x` and `y`.
fn link() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        2 => Just(""),
        1 => Just("links: { l: { ends: [x.0, y.1], rate: 5 mbit } }\n"),
        1 => Just("links: { l: { ends: [x.0, y.1], delay: 10 ms, loss: 1 } }\n"),
        1 => Just("links: { l: { ends: [y.1, x.0], delay: 10 ms, up: { loss: 1 }, down: { delay: 20 ms } } }\n"),
        1 => Just("links: { l: { ends: [y.1, x.0], delay: 10 ms, jitter: 2 ms, up: { rate: 3 mbit } } }\n"),
        1 => Just("links: { l: { ends: [x.0, y.1], down: { delay: 9 ms, jitter: 1 ms, loss: 2, rate: 1 mbit } } }\n"),
    ]
}

/// Does it take what only megaform's engine has: ways out, texts of serial ports, jitter, a rate together with a delay?
pub fn megaform_only(text: &str) -> bool {
    ["nat:", "serial:", "jitter:"].iter().any(|key| text.contains(key))
}

/// The hosts of a mesh of one, how one is chosen, and launches through the queue or not.
pub fn placement() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("placement: { queueing: true }\n"),
        Just("placement: { load: memcommit, queueing: false }\n"),
        Just("placement: { hosts: localhost, load: netcommit, queueing: true }\n"),
        Just("placement: { hosts: [vm] }\n"),
    ]
}

/// The same with raw commands.
pub fn with_raw_commands() -> impl Strategy<Value = String> {
    let raw = prop_oneof![
        Just(""),
        Just("commands: { r: { create: [shell mkdir /r], destroy: [shell rmdir /r], check: shell test -d /r } }\n"),
        Just(
            "commands: { r: { create: [shell mkdir /r, shell mkdir /s], destroy: [shell rmdir /s, shell rmdir /r] } }\n"
        ),
        Just("commands: { s: { create: shell mkdir /t, destroy: shell rmdir /t }, t: { create: vlans } }\n"),
        Just("commands: { s: { create: vlans, depends_on: [x, y] } }\n"),
    ];
    (with_objects().boxed(), raw, placement())
        .prop_map(|(text, raw, placement)| text.replacen("vms:", &format!("{raw}{placement}vms:"), 1))
}
