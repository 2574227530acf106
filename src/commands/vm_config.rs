//! `vm config` and `clear vm config`: every command here comes from the field table.

use crate::engine::EngineError;
use crate::language::declaration::{Completion, Declaration};
use crate::language::field::{FIELDS, Field, FieldType, FieldValue, Group, VmConfig};

use super::{Answer, Call, Command};

/// The table that `vm config` prints.
pub fn table(config: &VmConfig) -> String {
    let mut text = String::new();
    for (group, title) in [(Group::Base, "VM configuration:"), (Group::Kvm, "KVM configuration:")] {
        let fields = || FIELDS.iter().filter(|f| f.group == group);
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

/// The pattern of a field, after its name.
fn pattern(field: &Field) -> String {
    match field.ty {
        FieldType::Bool => format!("vm config {} [true,false]", field.name),
        FieldType::Words => format!("vm config {} [value]...", field.name),
        FieldType::Networks => format!("vm config {} [netspec]...", field.name),
        FieldType::Disks => format!("vm config {} [diskspec]...", field.name),
        _ => format!("vm config {} [value]", field.name),
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
    let default = field.default_value().to_string();
    long.push_str(&match default.as_str() {
        "" | "[]" | "{}" => "\n\nNot set by default.".to_owned(),
        default => format!("\n\nDefault: {default}."),
    });
    long.push_str(&format!(
        "\n\nWithout a value, shows the current one; `clear vm config {}` gives it its default again.",
        field.name
    ));
    let mut declaration = Declaration::new(format!("vm config {}", field.name), &[], "", long);
    declaration.short = format!("show or set: {}", field.title).into();
    declaration.patterns = match field.ty {
        FieldType::Tags => vec!["vm config tags".into(), "vm config tags <key> [value]".into()],
        _ => vec![pattern(field).into()],
    };
    if matches!(field.ty, FieldType::Path) {
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
        FieldType::Disks => call.args.list("diskspec").to_vec(),
        _ => one(call.args.str("value")),
    }
}

async fn set_or_show(call: Call, field: &'static Field) -> Result<Answer, EngineError> {
    let engine = call.engine();
    let namespace = &call.namespace;
    if field.ty == FieldType::Tags {
        return tags(&call, field);
    }
    let words = words(&call, field);
    if words.is_empty() {
        return Ok(Answer::text(engine.config(namespace).get(field.name).to_string()));
    }
    let value = field.parse(&words)?;
    engine.change_config(namespace, |config| config.set(field.name, value))?;
    Ok(Answer::done())
}

fn tags(call: &Call, field: &'static Field) -> Result<Answer, EngineError> {
    let engine = call.engine();
    let tags = engine.config(&call.namespace).tags();
    match (call.args.str("key"), call.args.str("value")) {
        (Some(key), Some(value)) => {
            let value = field.parse(&[key.to_owned(), value.to_owned()])?;
            engine.change_config(&call.namespace, |config| config.set(field.name, value))?;
            Ok(Answer::done())
        }
        (Some(key), None) => Ok(Answer::text(tags.get(key).cloned().unwrap_or_default())),
        (None, _) => Ok(Answer::text(tags.iter().map(|(k, v)| format!("{k} -> {v}\n")).collect::<String>())),
    }
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
    clear.patterns.extend(FIELDS.iter().map(|field| format!("clear vm config <{},>", field.name).into()));
    commands.push(Command::new(clear, |call| async move {
        let named = FIELDS.iter().find(|field| call.args.flag(field.name));
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
