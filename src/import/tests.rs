use super::*;
use crate::language::grammar::Grammar;

fn grammar() -> Grammar {
    crate::commands::grammar(&crate::commands::all())
}

fn read(text: &str) -> Result<Found, ScriptError> {
    script("lab.mm", text, &grammar(), None, &mut |file| {
        (file == "other.mm").then(|| "vm launch kvm other\n".to_owned())
    })
}

#[test]
fn a_script_becomes_what_it_leaves_behind() {
    let text = r#"
namespace lab
vlans range 300 400
vlans add core 250
vm config memory 128   # for all
vm config append console=ttyS0 "quiet splash"
vm config disk a,b.qcow2
vm config disks a.qcow2,virtio,none
vm config networks dmz br1,core,00:11:22:33:44:55,virtio-net-pci 77
vm config tags role "a: b"
vm config save one
vm launch kvm web[0-3]
clear vm config
vm config net dmz
vm launch kvm 2
vm launch kvm late one
namespace other vm config memory 9
vm start web[0-1],late
vm stop late
vm kill web3
vm kill web2
vm flush web2
vm tag web0 extra yes
clear vm tag web1 role
vm net connect web0 0 core
tap create dmz bridge br1 ip 10.0.0.1/24 mgmt
tap create 7
vlans blacklist 7
vlans blacklist 8
vm config qemu-override
vm config qemu-override -nographic ""
vm config qemu-override a b
vm config state /old.state
clear vm config migrate
vm config migrate /odd.state
vm launch kvm odd
vm net disconnect web0 0
vm cdrom change web0,late a.iso
vm cdrom eject late force
vm hotplug add web0,late a.img
vm hotplug add late b.img serial S1 1.1
vm hotplug remove late 0
.columns name vm info
"#;
    let found = read(text).unwrap();
    insta::assert_snapshot!(write(&found, "Imported from lab.mm."));
}

#[test]
fn what_cannot_be_said_is_a_note_with_its_place() {
    let text = "shell rm -rf x\nread other.mm\nread gone.mm\nvm launch container c\nvm config memory lots\nbogus\nvm launch kvm other\n\
                vm start nosuch\nvm config networks a,qinq\nvm launch kvm q\nvm net connect q 3 b\n\
                vm launch kvm a[1-\nvm config restore nosuch\n";
    let found = read(text).unwrap();
    insta::assert_snapshot!(found.notes.join("\n"));
    assert_eq!(found.vms.len(), 2);
}

#[test]
fn one_namespace_is_an_experiment() {
    let two = "vm launch kvm a\nnamespace b vm launch kvm b\n";
    let several = ScriptError::Several { script: "lab.mm".into(), namespaces: vec!["b".into(), "minimega".into()] };
    assert_eq!(read(two), Err(several));
    let chosen = script("lab.mm", two, &grammar(), Some("b"), &mut |_| None).unwrap();
    assert_eq!((chosen.name.as_str(), chosen.vms.len()), ("b", 1));
    let empty = script("lab.mm", two, &grammar(), Some("c"), &mut |_| None);
    assert_eq!(empty, Err(ScriptError::Empty { script: "lab.mm".into(), namespace: "c".into() }));
    assert_eq!(read("version\nclear all\n"), Err(ScriptError::Nothing { script: "lab.mm".into(), note: None }));
    // What was not understood may be why.
    let why = read("vm lunch kvm a\n").unwrap_err().to_string();
    assert_eq!(
        why,
        "lab.mm makes no VM, VLAN or tap; lab.mm:1: `vm lunch kvm a` is not imported: no command that megaform knows"
    );
    assert_eq!(read("namespace b vm launch kvm b\nclear namespace b\n"), read("version\n"));
}

#[test]
fn a_script_that_reads_itself_ends() {
    let mut reads = 0;
    let found = script("a.mm", "read a.mm\nvm launch kvm x\n", &grammar(), None, &mut |_| {
        reads += 1;
        Some("read a.mm\n".to_owned())
    });
    assert_eq!((found.unwrap().vms.len(), reads), (1, 8));
}

#[test]
fn what_would_not_end_is_refused() {
    // Each reads the next level a thousand times.
    let text = "read a.mm\n".repeat(1000);
    let read = |text: &str| script("a.mm", text, &grammar(), None, &mut |_| Some(text.to_owned()));
    assert_eq!(read(&text), Err(ScriptError::Long { script: "a.mm".into() }));
    let wide = format!("vm launch kvm x\n{}#{}\n", "read a.mm\n".repeat(3), "x".repeat(1 << 20));
    assert_eq!(read(&wide), Err(ScriptError::Long { script: "a.mm".into() }));
    let found = read(&format!("vm launch kvm x\n{}", "bogus\nvm bogus\n".repeat(2500))).unwrap();
    assert_eq!(found.notes.len(), 1001);
    assert_eq!(found.notes[1000], "4000 more lines are not imported");
    let found = read(&format!("vm launch kvm x\n{}", "bogus x\n".repeat(5000))).unwrap();
    assert_eq!(
        found.notes,
        ["a.mm:2-5001: `bogus x` and 4999 more `bogus` lines are not imported: no command that megaform knows"]
    );
    assert!(found.raw[0].1.len() < 1000);
}

#[test]
fn every_text_is_written_so_that_it_is_read_again() {
    let odd = [
        "yes", "1e3", "0x10", "a: b", "- a", "#x", "'", "\"", "*a", "&a", "[a]", "{a}", "a, b", " a ", "é", "1.5", "~",
        "null", "{{ x }}", "a{%b", "{{{",
    ];
    let mut found = Found { name: "lab".into(), ..Found::default() };
    let mut vm = FoundVm::default();
    for (index, text) in odd.iter().enumerate() {
        vm.tags.insert(format!("k{index}"), (*text).to_owned());
    }
    let words = odd.iter().filter(|word| **word != " a ").map(|word| (*word).to_owned()).collect();
    vm.config.set("append", crate::language::field::FieldValue::Words(words));
    vm.config.set("kernel", crate::language::field::FieldValue::Text("/a b/c,d".into()));
    found.vms.insert("vm".into(), vm.clone());
    let text = write(&found, "x");
    let loaded = crate::spec::parse("x.yaml", &text, crate::spec::Format::Yaml, &crate::spec::NoFiles);
    let experiment = loaded.experiment.unwrap_or_else(|| panic!("{:#?}\n{text}", loaded.diagnostics));
    let body = &experiment.vms.values().next().unwrap().body;
    assert_eq!(body.config.tags(), vm.tags);
    assert_eq!(body.config.get("append"), vm.config.get("append"));
    assert_eq!(body.config.get("kernel"), vm.config.get("kernel"));
}

#[test]
fn pipelines_of_a_script() {
    let text = "namespace lab\nplumb alerts \"grep -v it's\" urgent\nplumb urgent \"cat -u\" kept\nplumb a b\nplumb c d\n\
                clear plumb urgent \"cat -u\" kept\nclear plumb a b\nplumb\nvm launch kvm a\n";
    let found = read(text).unwrap();
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let written = write(&found, "x");
    assert!(written.contains("{ pipeline: [alerts, \"grep -v it's\", urgent] }"), "{written}");
    assert!(written.contains("  c: { pipeline: [c, d] }"), "{written}");
    assert_eq!(found.objects[&crate::name::Kind::Plumbing].len(), 2);
    let cleared = read(&format!("{text}clear plumb\n")).unwrap();
    assert!(cleared.objects.values().all(|all| all.is_empty()), "{:?}", cleared.objects);
}

#[test]
fn pipes_of_a_script() {
    let text = "namespace lab\npipe alerts mode random\npipe alerts log true\npipe lab//alerts via sh -c \"tr a b\"\n\
                pipe kept via \"sed -u 's/a b/c/'\"\npipe kept log false\npipe gone mode random\nplumb gone x\nclear pipe gone\n\
                pipe back mode random\nclear pipe back mode\npipe\n";
    let found = read(text).unwrap();
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let written = write(&found, "x");
    for line in [
        "  alerts: { mode: random, log: true, via: \"sh -c 'tr a b'\" }\n",
        "  kept: { via: \"sed -u 's/a b/c/'\" }\n",
        "  back: {}\n",
    ] {
        assert!(written.contains(line), "{line}\n{written}");
    }
    assert!(!written.contains("gone") && !written.contains("plumbing:"), "{written}");
    let cleared = read(&format!("{text}vm launch kvm a\nplumb a \"cat -u\"\nclear pipe\n")).unwrap();
    assert!(cleared.objects.values().all(|all| all.is_empty()), "{:?}", cleared.objects);
    // What is no setting, or not of this namespace, is said.
    let notes =
        read(&format!("{text}pipe alerts hello\npipe far//a mode random\npipe kept via \"sh -c 'x\"\n")).unwrap().notes;
    assert_eq!(notes.len(), 3, "{notes:?}");
}

#[test]
fn ways_out_of_a_script() {
    let text = "namespace lab\nnat add dmz 10.0.0.254/24\nnat add dmz 10.0.0.254/24 br1\nnat add core 10.1.0.1/24\nnat add 77 10.2.0.1/24\n\
                nat delete core\nnat delete dmz br1\nnat\nvm launch kvm a\n";
    let found = read(text).unwrap();
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let written = write(&found, "x");
    assert!(
        written.contains(
            "nat:\n  dmz: { vlan: dmz, ip: \"10.0.0.254/24\" }\n  nat-77: { vlan: 77, ip: \"10.2.0.1/24\" }\n"
        ),
        "{written}"
    );
    assert_eq!(found.vlans.keys().collect::<Vec<_>>(), ["dmz"]);
    let cleared = read(&format!("{text}clear nat\n")).unwrap();
    assert!(cleared.objects.is_empty(), "{:?}", cleared.objects);
}

#[test]
fn bonds_of_a_script() {
    let text = "\
vm config networks lan lan lan dmz br1,lan
vm launch kvm web[0-1]
vm launch kvm db
vm net bond web[0-1] 0-1 balance-tcp passive no-lacp-fallback qinq
vm net bond db 1,0 active-backup off name up
vm net bond db 2,3 active-backup off
vm net bond db 2,4 active-backup off
vm net bond db 2,5 active-backup off
vm net bond db 1-2 active-backup off
vm net bond db 2 active-backup off
vm net bond web[0-1] 2,3 active-backup off name both
vm net bond db 2,4294967296 active-backup off
vm net connect db 0 dmz
clear vm net bond db down
clear vm net bond web1 mega_bond0
clear vm net bond web0 mega_bond0
";
    let found = read(text).unwrap();
    let notes: Vec<&str> =
        found.notes.iter().filter_map(|note| Some(note.split_once(" is not imported: ")?.1)).collect();
    assert_eq!(
        notes,
        [
            "its NICs are on different VLANs or bridges",
            "its NICs are on different VLANs or bridges",
            "the VM has no NIC 5",
            "NIC 1 is in a bond",
            "it has fewer than two NICs",
            "several VMs cannot have one bond",
            "`4294967296` is no index of a NIC",
            "NIC 0 is in a bond",
            "there is no bond down",
            "there is no bond mega_bond0",
        ]
    );
    let written = write(&found, "");
    let bonds: Vec<&str> = written.lines().filter(|line| line.contains("bonds:")).map(str::trim).collect();
    assert_eq!(
        bonds,
        [
            "bonds: [{ nics: [0, 1], mode: balance-tcp, lacp: passive, fallback: false, qinq: true }]",
            "db: { profile: lan, bonds: [{ nics: [0, 1], mode: active-backup, name: up }] }",
        ]
    );
    // A bond ends with the process, and with all but one of its NICs.
    let end = |command: &str| read(&format!("{text}{command}")).unwrap().vms["db"].bonds.len();
    assert_eq!([end(""), end("vm net disconnect db 1"), end("clear vm net bond db")], [1, 0, 0]);
    assert!(!read(&format!("{text}vm kill db")).unwrap().vms.contains_key("db"));
    let loaded = crate::spec::parse("lab.yaml", &written, crate::spec::Format::Yaml, &crate::spec::NoFiles);
    assert!(loaded.experiment.is_some(), "{:?}\n{written}", loaded.diagnostics);
}

#[test]
fn hosts_and_queued_launches_of_a_script() {
    let text = "namespace lab\nns del-hosts all\nns add-hosts node[1-3]\nns del-hosts node2\nns load memcommit\nns queueing true\n\
                vm launch kvm a,b\nvm launch kvm late\nns flush\nvm launch kvm c\nns schedule dry-run\nvm launch\nns queueing false\n\
                vm launch kvm d\nns hosts\nns queue\n";
    let found = read(text).unwrap();
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    assert_eq!(found.vms.keys().collect::<Vec<_>>(), ["c", "d"], "what is flushed is not launched");
    let written = write(&found, "x");
    let placement = "placement:\n  hosts: [node1, node3]\n  load: memcommit\n  queueing: true\n";
    assert!(written.contains(placement), "{written}");
    let again = crate::plan::tests::file(&written);
    assert!(again.experiment.declares(crate::name::Kind::Placement, "hosts"), "{written}");
    // Without a launch that is queued, queueing is somebody's passing setting.
    let direct =
        read("namespace lab\nns queueing true\nns queueing false\nvm launch kvm a\nns add-hosts node1\n").unwrap();
    assert_eq!(direct.objects[&crate::name::Kind::Placement].keys().collect::<Vec<_>>(), ["hosts"]);
    assert!(direct.notes[0].contains("which ones a new namespace has already is not known"), "{:?}", direct.notes);
    let waiting = read("namespace lab\nvm launch kvm a\nns queueing true\nvm launch kvm b,c\n").unwrap();
    assert_eq!(waiting.notes, ["VMs that are queued and never launched are left out: b,c"]);
}

/// The scripts that users of minimega write, and the files that they become.
#[test]
fn scripts_become_files_for_people() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/scripts");
    let text = |name: &str| std::fs::read_to_string(folder.join(name));
    for (name, namespace) in [
        ("aliases", "aliases"),
        ("changes", "changes"),
        ("clone", "clone"),
        ("generated", "generated"),
        ("impaired", "impaired"),
        ("range", "range"),
        ("services", "services"),
        ("sites", "branch"),
    ] {
        let file = format!("{name}.mm");
        let found = script(&file, &text(&file).unwrap(), &grammar(), Some(namespace), &mut |other| text(other).ok());
        let written = write(&found.unwrap(), &format!("Imported from {file}."));
        let loaded = crate::spec::parse("x.yaml", &written, crate::spec::Format::Yaml, &crate::spec::NoFiles);
        assert!(loaded.experiment.is_some(), "{:#?}\n{written}", loaded.diagnostics);
        insta::assert_snapshot!(format!("script_{name}"), written);
    }
}

#[test]
fn comments_aliases_and_variables_of_a_script() {
    let text = "#!/usr/bin/minimega\n# All of it.\n\n# ==== first ====\n.alias go=vm launch kvm\n.env n 32\n.env v $n\n\
                vm config memory $n\n# vm config vcpus 2\ngo a # it's \"one\"\nvm config append \"a # b\"\ngo b\n\
                .env n 33\nvm config memory ${n}\ngo c$x\n.unalias go\ngo d\n";
    let found = read(text).unwrap();
    let written = write(&found, "x");
    assert!(written.starts_with("# x\n# note: the variable $x is set nowhere"), "{written}");
    let entries = "vms:\n  # first\n  # it's \"one\"\n  a: { memory: 32, state: paused }\n  \
                   b: { memory: 32, append: [\"a # b\"], state: paused }\n  c: { memory: 33, append: [\"a # b\"], state: paused }\n";
    assert!(written.contains(entries), "{written}");
    assert!(written.contains("# All of it.\nexperiment: minimega\n"), "{written}");
    assert!(written.contains("lab.mm:17: `go d` is not imported"), "{written}");
}

/// Entries of which each differs in a setting share the others, and some of them more.
#[test]
fn what_entries_have_in_common_is_a_profile() {
    let mut text = "vm config kernel /k\nvm config initrd /guest.cpio\n".to_owned();
    for n in 0..20 {
        text += &format!(
            "vm config append ip=10.0.0.{n}\nvm config memory {}\nvm launch kvm n{n}\n",
            if n < 10 { 64 } else { 96 }
        );
    }
    let written = write(&read(&text).unwrap(), "x");
    let profile = "profiles:\n  guest: { kernel: /k, initrd: /guest.cpio, state: paused }\nvms:\n";
    assert!(written.contains(profile), "{written}");
    assert!(written.contains("  n13: { profile: guest, memory: 96, append: ip=10.0.0.13 }\n"), "{written}");
    // As many as there may be, all different: equal settings are found all the same, and it ends.
    let mut text = "vm config kernel /k\nvm config initrd /guest.cpio\n".to_owned();
    for n in 0..5000 {
        text += &format!("vm config append ip={n}\nvm launch kvm n{n}\n");
    }
    let written = write(&read(&text).unwrap(), "x");
    assert_eq!(written.matches("/guest.cpio").count(), 1, "{}", &written[..2000]);
}
