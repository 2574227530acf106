//! `vm config` and `clear vm config`: every command here comes from the field table.

use std::collections::BTreeMap;

use crate::engine::EngineError;
use crate::language::declaration::{Completion, Declaration, Text};
use crate::language::field::{FIELDS, Field, FieldType, FieldValue, Group, VmConfig};

use super::{Answer, Call, Command};

/// The table that `vm config` prints.
pub fn table(config: &VmConfig) -> String {
    let mut text = String::new();
    for (group, title) in [
        (Group::Base, "VM configuration:"),
        (Group::Kvm, "KVM configuration:"),
        (Group::Container, "Container configuration:"),
        (Group::Android, "Android configuration:"),
    ] {
        // minimega shows overrides by their own command alone.
        let fields = || FIELDS.iter().filter(|f| f.group == group && f.ty != FieldType::Overrides);
        let width = fields().map(|f| f.title.len()).max().unwrap_or(0) + 2;
        text.push_str(title);
        text.push('\n');
        for field in fields() {
            text.push_str(&format!("{:width$}{}\n", format!("{}:", field.title), config.get(field.name)));
        }
        text.push('\n');
    }
    text
}

/// The patterns of a field.
fn patterns(field: &Field) -> Vec<Text> {
    let arguments: &[&str] = match field.ty {
        FieldType::Bool => &["[true,false]"],
        FieldType::Words => &["[value]..."],
        FieldType::Networks => &["[netspec]..."],
        FieldType::Bonds => &["[bondspec]..."],
        FieldType::Disks => &["[diskspec]..."],
        FieldType::Tags | FieldType::Volumes => &["", "<key> [value]"],
        FieldType::Overrides => &["", "<match> <replacement>"],
        _ => &["[value]"],
    };
    let pattern = |word: &str, rest: &str| format!("vm config {word} {rest}").trim_end().to_owned().into();
    field.words().iter().flat_map(|word| arguments.iter().map(move |rest| pattern(word, rest))).collect()
}

/// What the help of some fields says beyond the field's own words.
fn more(field: &Field) -> &'static str {
    match (field.ty, field.group) {
        (FieldType::Networks, _) => {
            "\n\nA VLAN alias that has no tag yet gets the next free one now (`vlans` shows them). A last word that is neither \
             an address nor a driver is the VLAN, and the one before it the bridge: `LAN,virtio` is VLAN virtio on bridge LAN."
        }
        (FieldType::Overrides, _) => {
            " Each replaces a text, everywhere it stands, by another. They apply in the order of their definition, each to \
             what the ones before it left. In the text, words stand between single blanks; a word with a blank or a double \
             quote is in double quotes.\n\n\
             Without arguments, shows the overrides and the command line before and after them. NAME, UUID, TAP0 and MAC0 \
             stand for what only a launch knows. An override that leaves a double quote without its pair, or changes the \
             argument of -qmp, is refused.\n\n\
             \x20   vm config qemu-override \"-rtc clock=vm,base=utc\" \"-rtc base=localtime\""
        }
        (_, Group::Container | Group::Android) => {
            "\n\nThe value is kept, saved and restored, and has no effect: this engine launches VMs of type kvm only."
        }
        _ => "",
    }
}

fn declaration(field: &'static Field) -> Declaration {
    let mut long = field.help.to_owned();
    if let Some((min, max)) = field.range() {
        long.push_str(&format!(
            " A whole number from {min} to {max}{}.",
            field.unit.map(|u| format!(", in {u}")).unwrap_or_default()
        ));
    }
    long.push_str(more(field));
    let default = field.default_value().to_string();
    long.push_str(&match default.as_str() {
        "" | "[]" | "{}" => "\n\nNot set by default.".to_owned(),
        default => format!("\n\nDefault: {default}."),
    });
    let word = field.words()[0];
    if field.ty != FieldType::Overrides {
        long.push_str("\n\nWithout a value, shows the current one.");
    }
    long.push_str(&format!(" `clear vm config {word}` gives it its default again."));
    if let [_, others @ ..] = field.words() {
        for other in others {
            long.push_str(&format!("\n\n`vm config {other}` is the same."));
        }
    }
    let mut declaration = Declaration::new(format!("vm config {word}"), &[], "", long);
    declaration.short = format!("show or set: {}", field.title).into();
    declaration.patterns = patterns(field);
    if matches!(field.ty, FieldType::Path | FieldType::Volumes) {
        declaration = declaration.complete("value", Completion::Path);
    }
    if matches!(field.ty, FieldType::Disks) {
        declaration = declaration.complete("diskspec", Completion::Path);
    }
    declaration
}

/// The words that a user gave for a field.
fn words(call: &Call, field: &Field) -> Vec<String> {
    let one = |text: Option<&str>| text.map(|t| vec![t.to_owned()]).unwrap_or_default();
    match field.ty {
        FieldType::Bool => one(call.args.choice("true,false")),
        FieldType::Words => call.args.list("value").to_vec(),
        FieldType::Networks => call.args.list("netspec").to_vec(),
        FieldType::Bonds => call.args.list("bondspec").to_vec(),
        FieldType::Disks => call.args.list("diskspec").to_vec(),
        _ => one(call.args.str("value")),
    }
}

async fn set_or_show(call: Call, field: &'static Field) -> Result<Answer, EngineError> {
    let engine = call.engine();
    let namespace = &call.namespace;
    match field.ty {
        FieldType::Tags => return pairs(&call, field, engine.config(namespace).tags()),
        FieldType::Volumes => return pairs(&call, field, engine.config(namespace).volumes()),
        FieldType::Overrides => return overrides(&call, field).await,
        _ => {}
    }
    let words = words(&call, field);
    if words.is_empty() {
        return Ok(Answer::text(engine.config(namespace).get(field.name).to_string()));
    }
    match field.parse(&words)? {
        FieldValue::Networks(specs) => engine.configure_networks(namespace, specs).await?,
        value => engine.change_config(namespace, |config| config.set(field.name, value))?,
    }
    Ok(Answer::done())
}

fn pairs(call: &Call, field: &'static Field, pairs: BTreeMap<String, String>) -> Result<Answer, EngineError> {
    match (call.args.str("key"), call.args.str("value")) {
        (Some(key), Some(value)) => {
            let value = field.parse(&[key.to_owned(), value.to_owned()])?;
            call.engine().change_config(&call.namespace, |config| config.set(field.name, value))?;
            Ok(Answer::done())
        }
        (Some(key), None) => Ok(Answer::text(pairs.get(key).cloned().unwrap_or_default())),
        (None, _) => Ok(Answer::text(pairs.iter().map(|(k, v)| format!("{k} -> {v}\n")).collect::<String>())),
    }
}

async fn overrides(call: &Call, field: &'static Field) -> Result<Answer, EngineError> {
    let engine = call.engine();
    let mut config = engine.config(&call.namespace);
    if let (Some(matched), Some(replacement)) = (call.args.str("match"), call.args.str("replacement")) {
        let value = field.parse(&[matched.to_owned(), replacement.to_owned()])?;
        config.set(field.name, value.clone());
        engine.check_overrides(&config).await?;
        engine.change_config(&call.namespace, |config| config.set(field.name, value))?;
        return Ok(Answer::done());
    }
    let mut text = "id\tmatch\treplacement\n".to_owned();
    for (id, o) in config.overrides().iter().enumerate() {
        text.push_str(&format!("{id}\t{}\t{}\n", o.matched, o.replacement));
    }
    let (before, after) = engine.command_line(&config).await;
    text.push_str(&format!("\nBefore overrides:\n{before}\n\nAfter overrides:\n{after}\n"));
    Ok(Answer::text(text))
}

/// What `vm config clone` copies: what a VM was launched with, without what is its own.
fn clone_of(config: &VmConfig) -> VmConfig {
    let mut config = config.clone();
    config.clear("uuid");
    let mut networks = config.networks();
    for nic in &mut networks {
        nic.mac = None;
    }
    config.set("networks", FieldValue::Networks(networks));
    config
}

pub(super) fn commands() -> Vec<Command> {
    let mut commands = vec![Command::new(
        Declaration::new(
            "vm config",
            &["vm config", "vm config <save,> <name>", "vm config <restore,> [name]", "vm config <clone,> <vm name>"],
            "show, save, restore or clone the configuration of the next launch",
            "Without arguments, shows the configuration that the namespace's next `vm launch` uses. Launched VMs keep what \
             they were launched with.\n\n\
             save: saves it under a name, for `vm config restore` and `vm launch kvm VM NAME`.\n\
             restore: makes a saved one the current one; without a name, lists the saved ones.\n\
             clone: copies the configuration of a VM, without its UUID and MAC addresses.",
        ),
        |call| async move {
            let (engine, namespace) = (call.engine(), &call.namespace);
            if call.args.flag("save") {
                engine.save_config(namespace, call.required("name"))?;
            } else if call.args.flag("restore") {
                let Some(name) = call.args.str("name") else {
                    let names = engine.saved_configs(namespace);
                    return Ok(Answer::text(names.iter().map(|name| format!("{name}\n")).collect::<String>()));
                };
                let saved = engine.saved_config(namespace, name)?;
                engine.change_config(namespace, |config| *config = saved)?;
            } else if call.args.flag("clone") {
                let config = clone_of(&engine.vm(namespace, call.required("vm name"))?.config);
                engine.change_config(namespace, |current| *current = config)?;
            } else {
                return Ok(Answer::text(table(&engine.config(namespace))));
            }
            Ok(Answer::done())
        },
    )];
    for field in FIELDS {
        commands.push(Command::new(declaration(field), move |call| set_or_show(call, field)));
    }
    let mut clear = Declaration::new(
        "clear vm config",
        &["clear vm config"],
        "give configuration fields their defaults again",
        "Gives the named field of the namespace's configuration its default again, or every field.",
    );
    let words = FIELDS.iter().flat_map(Field::words);
    clear.patterns.extend(words.map(|word| format!("clear vm config <{word},>").into()));
    commands.push(Command::new(clear, |call| async move {
        let named = FIELDS.iter().find(|field| field.words().iter().any(|word| call.args.flag(word)));
        call.engine().change_config(&call.namespace, |config| match named {
            Some(field) => config.clear(field.name),
            None => *config = VmConfig::new(),
        })?;
        Ok(Answer::done())
    }));
    commands.push(Command::new(
        Declaration::new(
            "clear vm config tag",
            &["clear vm config tag <key>"],
            "remove a tag from the configuration",
            "Removes one tag from the namespace's configuration; `all` removes every tag.",
        ),
        |call| async move {
            let key = call.required("key");
            call.engine().change_config(&call.namespace, |config| match key {
                "all" => config.clear("tags"),
                key => config.remove_tag(key),
            })?;
            Ok(Answer::done())
        },
    ));
    commands
}
