use super::*;
use crate::language::field;
use crate::wire::Response;

/// Answers with recorded text, by command.
struct Recorded(Vec<(&'static str, String)>);

impl Transport for Recorded {
    fn call(&mut self, command: &str) -> Result<Vec<Response>, WireError> {
        let newer = ["bridge", "capture", "dnsmasq", "plumb", "pipe", "ns hosts", "ns load", "ns queue", "vm hotplug"];
        let lacks = |words: &str| newer.contains(&words);
        if command == "help nat" || command.strip_prefix("namespace lab ").is_some_and(lacks) {
            // An older target: it has none of these.
            let refused = format!("invalid command: `{command}`");
            let entry = crate::language::entry::Entry::failure("vm", refused);
            return Ok(vec![Response { resp: Some(vec![entry]), ..Response::default() }]);
        }
        let (_, answer) =
            self.0.iter().find(|(c, _)| *c == command).unwrap_or_else(|| panic!("unexpected command `{command}`"));
        Ok(vec![serde_json::from_str(answer).unwrap()])
    }
}

const HEADER: &str = r#"["id","name","state","type","uuid","pid","vlan","bridge","tap","mac","memory","vcpus","disks","snapshot","append","kernel","tags"]"#;
const ROWS: &str = r#"[["0","a0","RUNNING","kvm","a513f1dd-6197-4e8f-8b87-dac15dcf7766","12918","[LAN (101), 7, disconnected]","[mega_bridge, br1, ]","[mega_tap0, mega_tap1, mega_tap2]","[00:26:fa:68:7b:24, 00:11:22:33:44:55, 00:11:22:33:44:56]","16","1","","true","[]","","{\"color\":\"red\"}"]]"#;
const DATA: &str = r#"[{"UUID":"a513f1dd-6197-4e8f-8b87-dac15dcf7766","VCPUs":1,"Memory":16,"Snapshot":true,"Networks":[{"Alias":"LAN","VLAN":101,"Bridge":"mega_bridge","Tap":"mega_tap0","MAC":"00:26:fa:68:7b:24","Driver":"e1000","Raw":"LAN"},{"Alias":"","VLAN":7,"Bridge":"br1","Tap":"mega_tap1","MAC":"00:11:22:33:44:55","Driver":"e1000","Raw":"br1,7"},{"Alias":"","VLAN":0,"Bridge":"","Tap":"mega_tap2","MAC":"00:11:22:33:44:56","Driver":"e1000","Raw":"LAN"}],"Tags":{"color":"red"},"ID":0,"Name":"a0","Host":"vm","State":2,"Type":1,"Pid":12918,"KernelPath":"","Append":null,"Disks":[]}]"#;

/// `interfaces` is what `ip -json address show` writes there.
fn target(data: &str, interfaces: &str) -> Recorded {
    let entry = |body: &str| {
        format!(
            r#"{{"Resp":[{{"Host":"vm","Response":"",{body},"Error":""}}],"Rendered":"","More":false,"Status":false}}"#
        )
    };
    Recorded(vec![
        (
            "namespace",
            entry(
                r#""Header":["vlans","namespace","active"],"Tabular":[["","minimega","true"],["300-400","lab","false"]],"Data":null"#,
            ),
        ),
        ("namespace lab vm info", entry(&format!(r#""Header":{HEADER},"Tabular":{ROWS},"Data":{data}"#))),
        (
            "namespace lab vlans",
            entry(
                r#""Header":["vlan","alias"],"Tabular":[["101","LAN"],["102","lab//B"],["103","other//C"]],"Data":null"#,
            ),
        ),
        (
            "namespace lab tap",
            entry(
                r#""Header":["bridge","tap","vlan"],"Tabular":[["mega_bridge","t0","LAN (101)"],["br1","t1","10"]],"Data":null"#,
            ),
        ),
        ("namespace lab ns queueing", r#"{"Resp":[{"Host":"vm","Response":"true","Error":""}]}"#.to_owned()),
        (
            ADDRESSES,
            format!(
                r#"{{"Resp":[{{"Host":"vm","Response":{},"Error":""}}]}}"#,
                serde_json::to_string(interfaces).unwrap()
            ),
        ),
    ])
}

fn lab() -> Namespace {
    Namespace::new("lab").unwrap()
}

#[test]
fn data_and_table_tell_the_same() {
    let with = observe(&mut target(DATA, ""), &lab()).unwrap();
    let without = observe(&mut target("null", ""), &lab()).unwrap();
    assert!(with.present && with.queueing);
    assert_eq!(with.vlan_range, Some((300, 400)));
    assert_eq!(with.vlans, BTreeMap::from([("LAN".to_owned(), 101), ("B".to_owned(), 102)]));
    for live in [&with, &without] {
        let vm = &live.vms["a0"];
        assert_eq!((vm.state, vm.pid, &*vm.kind), (VmState::Running, 12918, "kvm"));
        assert_eq!(vm.tags["color"], "red");
        let nics: Vec<_> = vm.nics.iter().map(|n| (n.alias.as_deref(), n.vlan, n.connected)).collect();
        assert_eq!(nics, [(Some("LAN"), Some(101), true), (None, Some(7), true), (None, None, false)]);
        for name in ["memory", "snapshot", "append", "disks", "uuid", "kernel"] {
            let field = field::field(name).unwrap();
            assert_eq!(vm.observe(field), with.vms["a0"].observe(field), "{name}");
            assert!(vm.observe(field).is_some(), "{name}");
        }
    }
    assert_eq!(without.vms["a0"].nics[0].driver, None);
    assert_eq!(with.vms["a0"].nics[0].launched_as.as_deref(), Some("LAN"));
}

#[test]
fn the_hosts_ip_program_tells_the_addresses_of_taps() {
    let live = observe(&mut target(DATA, ""), &lab()).unwrap();
    assert_eq!(live.taps["t0"].addresses, None, "an answer that is no JSON tells nothing");
    assert_eq!((live.taps["t0"].alias.as_deref(), live.taps["t1"].vlan), (Some("LAN"), Some(10)));
    let interfaces = r#"[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"scope":"host"}]},
        {"ifname":"t0","addr_info":[{"family":"inet","local":"10.0.0.254","prefixlen":24,"scope":"global"},
        {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link"}]}]"#;
    let live = observe(&mut target(DATA, interfaces), &lab()).unwrap();
    assert_eq!(live.taps["t0"].addresses, Some(vec!["10.0.0.254/24".to_owned()]));
    assert_eq!(live.taps["t1"].addresses, None);
}

#[test]
fn looking_for_a_namespace_never_creates_it() {
    // The peer knows no command with `namespace absent …`: sending one would panic.
    let live = observe(&mut target(DATA, ""), &Namespace::new("absent").unwrap()).unwrap();
    assert_eq!(live, Live { placement: live.placement.clone(), ..Live::absent() });
    assert_eq!(live.placement, Placement { own: "vm".to_owned(), ..Placement::default() });
}

#[test]
fn a_refusal_names_the_command() {
    let mut peer = Recorded(vec![("namespace", r#"{"Resp":[{"Host":"h1","Error":"no"}]}"#.to_owned())]);
    let error = observe(&mut peer, &lab()).unwrap_err();
    assert_eq!(error.to_string(), "`namespace` failed on h1: no");
}

#[test]
fn a_target_without_a_queue_queues_nothing() {
    let mut peer = target(DATA, "");
    let refusal = r#"{"Resp":[{"Host":"vm","Error":"invalid command: `ns queueing`"}]}"#;
    peer.0.iter_mut().find(|(command, _)| command.ends_with("queueing")).unwrap().1 = refusal.to_owned();
    assert!(!observe(&mut peer, &lab()).unwrap().queueing);
}

#[test]
fn mirrors_to_one_destination_are_told_apart() {
    let data = |pairs: &[(&str, &str)]| {
        let mirrors: Vec<_> =
            pairs.iter().map(|(from, to)| serde_json::json!({"Source": from, "Destination": to})).collect();
        vec![Entry { data: serde_json::json!({ "Mirrors": mirrors }), ..Entry::default() }]
    };
    let keys = |pairs: &[(&str, &str)]| -> Vec<String> {
        let ends = object::mirrors(&data(pairs)).unwrap();
        object::mirrored(&ends, &BTreeMap::new()).keys().cloned().collect()
    };
    assert_eq!(keys(&[("a", "x"), ("b", "y")]), ["x", "y"]);
    assert_eq!(keys(&[("a", "x"), ("b", "x"), ("b", "y")]), ["x from a", "x from b", "y"]);
}

/// The VMs of `lab` where the target sends these records.
fn vms(data: &str) -> BTreeMap<String, LiveVm> {
    observe_vms(&mut target(data, ""), &lab()).unwrap()
}

#[test]
fn what_records_say_alike_is_shared_and_what_differs_is_not() {
    let vm = |name: &str, memory: &str, tags: &str| {
        format!(r#"{{"Name":"{name}","State":2,"Type":1,"Memory":{memory},"Append":["a"],"Tags":{tags}}}"#)
    };
    let data = [
        vm("a", "16", r#"{"k":"v"}"#),
        vm("b", "16", r#"{"k":"v"}"#),
        vm("c", "17", r#"{"k":"w"}"#),
        // Another order of keys, and a key that is written twice: the last one counts.
        r#"{"Tags":{"k":"v"},"Memory":1,"Memory":16,"Type":"kvm","State":"RUNNING","Append":["a"],"Name":"d"}"#
            .to_owned(),
    ];
    let vms = vms(&format!("[{}]", data.join(",")));
    assert!(std::sync::Arc::ptr_eq(&vms["a"].observed, &vms["b"].observed));
    assert!(std::sync::Arc::ptr_eq(&vms["a"].tags, &vms["b"].tags));
    let told = |name: &str| {
        let vm = &vms[name];
        let text = |field: &str| vm.observe(field::field(field).unwrap()).map(|value| value.to_string());
        (vm.state, vm.kind.to_string(), text("memory"), text("append"), vm.tags["k"].clone())
    };
    let like = |memory: &str, tag: &str| {
        (VmState::Running, "kvm".to_owned(), Some(memory.to_owned()), Some("[a]".to_owned()), tag.to_owned())
    };
    assert_eq!((told("a"), told("b"), told("d")), (like("16", "v"), like("16", "v"), like("16", "v")));
    assert_eq!(told("c"), like("17", "w"));
}

#[test]
fn what_has_another_form_than_expected_counts_as_not_shown() {
    let odd = r#"[{"Name":"a0","State":2,"Type":1,"ID":-1,"Pid":"7","UUID":null,"Host":{"x":[1]},"Memory":"much","Vcpus":[2],
        "Tags":["x"],"Error":3,"Networks":[7,{"Bridge":5,"VLAN":"101","Tap":["t"]},{"Alias":"LÄN\n","Bridge":"b","VLAN":5000},
        {"Alias":"L\u0041N","Bridge":"b","VLAN":101,"MAC":null,"Raw":"","Qos":{"rate":"1mbit"},"More":{"x":[{}]}}]}]"#;
    let vm = &vms(odd)["a0"];
    assert_eq!((vm.id, vm.pid, vm.uuid.as_str(), vm.host.as_str(), vm.error.as_ref()), (0, 0, "", "vm", None));
    assert!(vm.tags.is_empty() && vm.observe(field::field("memory").unwrap()).is_none());
    let nics: Vec<_> = vm.nics.iter().map(|nic| (nic.alias.as_deref(), nic.vlan, nic.connected)).collect();
    assert_eq!(nics, [(None, None, false), (None, None, false), (None, None, false), (Some("LAN"), Some(101), true)]);
    assert_eq!(vm.nics[3].qos.map(|qos| qos.to_string()).as_deref(), Some("rate 1mbit"));
    // What is no list of records at all tells nothing, and the table does.
    for data in [r#"[7]"#, r#"{"Name":"a0"}"#, r#""a0""#, "true", "1.5", r#"[{"Name":"a0","State":2,"Type":1},null]"#] {
        assert_eq!(vms(data)["a0"].tags["color"], "red", "{data}");
    }
    // Text that is no JSON is an error wherever it stands.
    let mut broken = target("null", "");
    let error = crate::live::vm::Frame::read(br#"{"Resp":[{"Host":"vm","Data":[{"Name":"a0",}]}]}"#).unwrap_err();
    assert!(error.is_syntax(), "{error}");
    assert!(observe_vms(&mut broken, &lab()).is_ok());
}

/// A relative path is one in the files folder: exactly where the target tells, otherwise as far as it is beyond doubt.
#[test]
fn files_of_captures_are_told_apart() {
    let capture = |path: &str, inside: Option<Option<&str>>| {
        let mut object = LiveObject::default();
        object.facts.insert("file".to_owned(), vec![path.to_owned()]);
        let vm = if path.starts_with("/other/") { "db" } else { "web" };
        object.facts.insert("vm".to_owned(), vec![vm.to_owned()]);
        object.facts.extend(inside.map(|name| (INSIDE.to_owned(), name.map(str::to_owned).into_iter().collect())));
        (path.to_owned(), object)
    };
    let settings = Facts::from([("vm".to_owned(), vec!["web".to_owned()])]);
    let found = |objects: &[(String, LiveObject)], key: &str| {
        let objects: Objects = objects.iter().cloned().collect();
        find(&objects, key, Some(&settings)).map(|(key, _)| key.clone())
    };
    let told = [
        capture("/base/f/x.pcap", Some(Some("x.pcap"))),
        capture("/x.pcap", Some(None)),
        capture("/tmp/files/y.pcap", Some(None)),
    ];
    for (key, expected) in [
        ("x.pcap", Some("/base/f/x.pcap")),
        ("/x.pcap", Some("/x.pcap")),
        ("/base/f/x.pcap", Some("/base/f/x.pcap")),
        ("y.pcap", None),
        ("pcap", None),
    ] {
        assert_eq!(found(&told, key).as_deref(), expected, "{key}");
    }
    let untold = |paths: &[&str]| paths.iter().map(|path| capture(path, None)).collect::<Vec<_>>();
    for (paths, expected) in [
        (&["/x.pcap"][..], None),
        (&["/tmp/x.pcap"], Some("/tmp/x.pcap")),
        (&["/tmp/x.pcap", "/m/files/x.pcap"], Some("/m/files/x.pcap")),
        (&["/tmp/x.pcap", "/x.pcap"], Some("/tmp/x.pcap")),
        (&["/tmp/x.pcap", "/var/x.pcap"], None),
        (&["/tmp/x.pcap", "/other/x.pcap"], Some("/tmp/x.pcap")),
        (&["/other/x.pcap"], None),
        (&["/other/files/x.pcap"], Some("/other/files/x.pcap")),
        (&["/tmp/ax.pcap"], None),
    ] {
        assert_eq!(found(&untold(paths), "x.pcap").as_deref(), expected, "{paths:?}");
    }
    assert!(same_file("x.pcap", "/a/x.pcap") && same_file("/a/x.pcap", "x.pcap") && !same_file("x.pcap", "/x.pcap"));
}
