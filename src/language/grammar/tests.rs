use proptest::prelude::*;

use super::*;
use crate::language::declaration::Text;

/// One declaration per handler of minimega 3.1.0, its patterns separated by blank lines in the list.
pub(crate) fn minimega() -> Grammar {
    let list = include_str!("../../../tests/data/minimega-3.1.0-patterns.txt");
    let mut declarations = Vec::new();
    for (i, block) in list.split("\n\n").enumerate() {
        let patterns: Vec<Text> =
            block.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|l| l.to_owned().into()).collect();
        if patterns.is_empty() {
            continue;
        }
        let name: String =
            patterns[0].split(' ').take_while(|w| !w.starts_with(['<', '[', '('])).collect::<Vec<_>>().join(" ");
        let mut declaration = Declaration::new(format!("{name}#{i}"), &[], "a command", "");
        declaration.patterns = patterns;
        declarations.push(declaration);
    }
    Grammar::new(&declarations).unwrap()
}

fn pattern(grammar: &Grammar, line: &str) -> String {
    match grammar.compile(line) {
        Ok(Some(c)) => grammar.patterns(c.command)[c.pattern].to_string(),
        Ok(None) => "blank".to_owned(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn of_one_commands_words_the_one_that_begins_the_others_is_meant() {
    let first = Declaration::new(
        "ns",
        &["ns <schedule,>", "ns <schedule,> <status,>", "ns <schedules,>", "ns <scan,>"],
        "",
        "",
    );
    let second = Declaration::new("nsx", &["ns <schedulers,>"], "", "");
    let both = Grammar::new(&[first.clone(), second]).unwrap();
    let grammar = Grammar::new(&[first]).unwrap();
    assert_eq!(pattern(&grammar, "ns sch"), "ns <schedule,>");
    assert_eq!(pattern(&grammar, "ns sch st"), "ns <schedule,> <status,>");
    assert_eq!(pattern(&grammar, "ns schedules"), "ns <schedules,>");
    assert!(pattern(&grammar, "ns sc").starts_with("invalid"), "`scan` does not begin with `schedule`");
    assert!(pattern(&both, "ns sch").starts_with("invalid"), "another command may be meant");
}

#[test]
fn own_patterns_give_way_to_those_of_minimega() {
    let common = Declaration::new(
        "namespace",
        &["namespace [name]", "naked <x>", "set <on,> <level>", "set <x>", "run (command)"],
        "",
        "",
    );
    let own =
        Declaration::new("nat", &["nat", "nat <add,> <x>", "naught", "set <only,>", "set <off,> <level>"], "", "")
            .own();
    let grammar = Grammar::new(&[common, own]).unwrap();
    for (line, expected) in [
        ("nat", "nat"),
        ("nat add 1", "nat <add,> <x>"),
        ("nat a 1", "nat <add,> <x>"),
        ("na add 1", "nat <add,> <x>"),
        ("nau", "naught"),
        ("na", "namespace [name]"),
        ("set o 1", "set <on,> <level>"),
        ("set of 1", "set <off,> <level>"),
        ("set onl", "set <x>"),
        ("set only", "set <only,>"),
        ("run na add 1", "run (command)"),
    ] {
        assert_eq!(pattern(&grammar, line), expected, "`{line}`");
    }
    assert!(pattern(&grammar, "na 1").starts_with("invalid"), "`namespace` or `naked`, never `nat`");
    let Err(CompileError::Invalid(invalid)) = grammar.compile("na 1") else { panic!("it is ambiguous") };
    assert_eq!(invalid.expected, ["naked", "namespace"]);
}

#[test]
fn every_recorded_line_compiles_or_fails_as_recorded() {
    let grammar = minimega();
    let mut checked = 0;
    for rows in
        [include_str!("../../../tests/data/exchanges.jsonl"), include_str!("../../../tests/data/exchanges-mesh.jsonl")]
    {
        for row in rows.lines() {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            let Ok(request) = serde_json::from_str::<serde_json::Value>(row["request"].as_str().unwrap()) else {
                continue;
            };
            let (Some(line), None) = (request["Command"].as_str(), request.get("Suggest")) else { continue };
            let last = row["responses"].as_array().unwrap().last().unwrap().as_str().unwrap();
            let Ok(response) = serde_json::from_str::<serde_json::Value>(last) else { continue };
            // `vmr` is an alias at that point; an empty command is refused before it is compiled.
            if line == "vmr" || line.is_empty() {
                continue;
            }
            let error = response["Resp"][0]["Error"].as_str().unwrap_or_default();
            let syntax =
                ["invalid command: ", "missing terminal", "unexpected escaped"].iter().any(|p| error.starts_with(p));
            match grammar.compile(line) {
                Ok(compiled) => {
                    assert!(!syntax, "row {}: `{line}` compiled but: {error}", row["n"]);
                    assert_eq!(compiled.is_none(), response["Resp"].is_null() && !line.starts_with("read"), "`{line}`");
                }
                Err(e) => assert_eq!(e.to_string(), error, "row {}: `{line}`: {e:?}", row["n"]),
            }
            checked += 1;
        }
    }
    assert!(checked > 400, "{checked}");
}

#[test]
fn decisive_lines() {
    let g = minimega();
    for (line, expected) in [
        ("v", "invalid command: `v`"),
        ("vm i", "vm info [summary,]"),
        ("vm c m", "invalid command: `vm c m`"),
        (".c name vm info", ".columns <columns as csv> (command)"),
        (".c true version", "invalid command: `.c true version`"),
        ("tap c", "invalid command: `tap c`"),
        ("mesh s", "mesh status"),
        ("clear v", "invalid command: `clear v`"),
        ("ns h", "ns <hosts,>"),
        ("vm config m", "invalid command: `vm config m`"),
        ("host n", "invalid command: `host n`"),
        ("vm config net A", "vm config networks [netspec]..."),
        ("vm config android-avd", "vm config android-avd [value]"),
        ("vm config android-avd-dir x", "vm config android-avd-dir [value]"),
        ("clear vm config android-avd", "clear vm config <android-avd,>"),
        ("vlans", "vlans"),
        ("vlans r", "vlans <range,>"),
        ("vlans nosuch", "invalid command: `vlans nosuch`"),
        ("tap create X name foo", "tap <create,> <vlan> name <tap name>"),
        ("tap create X bridge b d", "tap <create,> <vlan> bridge <bridge> <dhcp,> [tap name]"),
        ("pipe p mode all", "pipe <pipe> <mode,> <all,round-robin,random>"),
        ("pipe p mode", "pipe <pipe> <data>"),
        ("vm \"\" x", "invalid command: `vm \"\" x`"),
        ("\"vm\" 'info'", "vm info [summary,]"),
        ("vnc stop kb x", "vnc <stop,> <kb,fb> <vm name>"),
        ("vnc stop x", "vnc <stop,> <vm target>"),
    ] {
        assert_eq!(pattern(&g, line), expected, "{line}");
    }
}

#[test]
fn arguments() {
    let g = minimega();
    let c = |line: &str| g.compile(line).unwrap().unwrap();
    let launch = c("vm la k \"web[0-2]\" cfg");
    assert!(launch.args.flag("kvm") && !launch.args.flag("container"));
    assert_eq!(launch.args.chosen(0), Some("kvm"));
    assert_eq!((launch.args.str("name or count"), launch.args.str("config")), (Some("web[0-2]"), Some("cfg")));
    let snapshot = c("vm config snap t");
    assert_eq!(snapshot.args.choice("true,false"), Some("true"));
    assert_eq!(c("vm config snap").args.choice("true,false"), None);
    let mut append = c("vm config append a=b 'c d' e # note");
    assert_eq!(append.args.list("value"), ["a=b", "c d", "e"]);
    assert_eq!(append.original, "vm config append a=b 'c d' e # note");
    append.args.try_map(|t| Ok::<_, ()>(t.to_uppercase())).unwrap();
    assert_eq!(append.args.list("value"), ["A=B", "C D", "E"]);
    let nested = c("  .csv true .col name namespace \"foo\" vm   info  ");
    assert_eq!(nested.original, ".csv true .col name namespace \"foo\" vm   info");
    assert_eq!(nested.nested.as_ref().unwrap().args.str("columns as csv"), Some("name"));
    assert_eq!(nested.innermost().original, "vm   info");
    assert_eq!(c("mesh send all mesh send all version").nested.unwrap().original, "mesh send all version");
    assert!(g.compile(" # x").unwrap().is_none() && g.compile("").unwrap().is_none());
}

fn invalid(g: &Grammar, line: &str) -> Invalid {
    match g.compile(line).unwrap_err() {
        CompileError::Invalid(invalid) => *invalid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn advice() {
    let g = minimega();
    let e = invalid(&g, " vm confg memory 12 ");
    assert_eq!((e.line.as_str(), e.span.clone(), e.similar.as_deref()), ("vm confg memory 12", 4..9, Some("config")));
    assert_eq!(e.advice(), "unexpected `confg`, did you mean `vm config memory 12`?");
    assert_eq!(e.plain(), "invalid command: `vm confg memory 12`");
    let e = invalid(&g, "host n");
    assert!(e.ambiguous);
    assert_eq!(e.advice(), "`n` may be `name`, `netcommit`");
    let e = invalid(&g, "tap create ");
    assert_eq!((e.span.clone(), e.found.clone(), e.expected.clone()), (10..10, None, vec!["<vlan>".to_owned()]));
    assert_eq!(e.advice(), "the command is not complete, expected `<vlan>`");
    let e = invalid(&g, "vm info summary all");
    assert_eq!(e.advice(), "unexpected `all`, expected `end of line`");
    let e = invalid(&g, ".columns name vm inffo");
    assert_eq!(e.similar.as_deref(), Some("info"));
}

#[test]
fn typing_mistakes() {
    let g = minimega();
    for (line, meant) in [
        ("vm inof", "vm info"),
        ("vm lanuch kvm web[0-2]", "vm launch kvm web[0-2]"),
        ("vm satrt all", "vm start all"),
        ("vm stpo web0 # later", "vm stop web0 # later"),
        ("vmm info", "vm info"),
        ("vminfo", "vm info"),
        ("vm configmemory 5", "vm config memory 5"),
        ("namspace foo vm info", "namespace foo vm info"),
        ("histroy", "history"),
        ("verison", "version"),
        ("hots cpus", "host cpus"),
        ("vlasn", "vlans"),
        ("vm config netwroks LAN", "vm config networks LAN"),
        ("vm config memmory 1", "vm config memory 1"),
        ("vm confg memry 1", "vm config memory 1"),
        ("clear vm confg", "clear vm config"),
        ("taps create LAN", "tap create LAN"),
        ("tap delet all x", "-"),
        (".column name vm inof", ".column name vm info"),
        (".flter state=running vm info", ".filter state=running vm info"),
        (".csv treu vm info", ".csv true vm info"),
        ("vm config snapshot flase", "vm config snapshot false"),
        ("vm launch \"kmv\" a", "vm launch kvm a"),
        ("brigde", "bridge"),
        ("cc exce ls", "cc exec ls"),
        ("bogus", "-"),
        ("xyzzy plugh", "-"),
    ] {
        let found = match g.compile(line) {
            Err(CompileError::Invalid(e)) => e.correction.unwrap_or_else(|| "-".into()),
            Ok(_) => "it compiles".into(),
            Err(e) => e.to_string(),
        };
        assert_eq!(found, meant, "`{line}`");
    }
    let said = g.compile("vm inof").unwrap_err().to_string();
    assert_eq!(said, "invalid command: `vm inof`, did you mean `vm info`?");
    assert_eq!(invalid(&g, "VM INFO").advice(), "unexpected `VM`, words are in lower case: `vm`");
    assert_eq!(invalid(&g, "bogus").advice(), "no command begins with `bogus`; `help` lists the commands");
    // Neither a long word nor many mistakes cost more than a look.
    assert_eq!(invalid(&g, &format!("vm {}", "conf".repeat(16_000))).correction, None);
}

#[test]
fn limits() {
    let g = minimega();
    assert!(matches!(g.compile(&"x".repeat(1 << 20)), Err(CompileError::TooLong { .. })));
    let deep = |n: usize| format!("{}version", ".csv true ".repeat(n));
    assert!(g.compile(&deep(MAX_DEPTH - 1)).is_ok());
    assert_eq!(g.compile(&deep(MAX_DEPTH)).unwrap_err(), CompileError::TooDeep);
    assert_eq!(g.compile(&deep(6000)).unwrap_err(), CompileError::TooDeep);
    assert!(g.compile(&format!("echo {}", "a ".repeat(30_000))).is_ok());
    // Every prefix of a builtin leads to a nested command again: without memory this would be exponential.
    assert!(g.compile(&format!("{}bogus", ".c true ".repeat(60))).is_err());
}

proptest! {
    #[test]
    fn any_line_compiles_or_fails(line in "(?s).{0,40}") {
        let _ = minimega_once().compile(&line);
    }

    #[test]
    fn any_words_compile_or_fail_inside_the_line(words in proptest::collection::vec(
        "(vm|c|\\.c|\\.csv|true|t|tap|create|name|ns|run|config|mem|clear|all|router|x|\"\"|bridge|#|')", 0..12)) {
        let line = words.join(" ");
        if let Err(CompileError::Invalid(e)) = minimega_once().compile(&line) {
            prop_assert!(line.get(e.span.clone()).is_some());
            prop_assert!(!e.advice().is_empty());
            prop_assert!(!e.expected.is_empty(), "{}", line);
        }
    }
}

fn minimega_once() -> &'static Grammar {
    static GRAMMAR: std::sync::OnceLock<Grammar> = std::sync::OnceLock::new();
    GRAMMAR.get_or_init(minimega)
}
