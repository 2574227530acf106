//! A random experiment that is written anew with variables, conditions, repetition, profiles and an included file, and
//! means the same.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::spec::compose::tests::orders::toml;
use crate::spec::compose::tests::{Memory, files};
use crate::spec::{Inputs, Loaded, parse_with};

/// The sections whose entries are composed.
const ENTRIES: &[&str] = &[
    "vlans", "vms", "links", "taps", "nat", "bridges", "dnsmasq", "mirrors", "captures", "pipes", "plumbing",
    "commands",
];

/// The lists whose items are composed.
const ITEMS: &[&str] =
    &["networks", "disks", "usb_disks", "qemu_override", "bonds", "tunnels", "leases", "dns", "serial"];

/// Decisions. Zeros leave everything as it is, so that what fails becomes simple.
pub struct Dice {
    rolls: Vec<u8>,
    at: usize,
}

impl Dice {
    pub fn new(rolls: Vec<u8>) -> Self {
        Self { rolls, at: 0 }
    }

    /// 0 to `sides` - 1.
    fn roll(&mut self, sides: u8) -> u8 {
        self.at += 1;
        // What comes round again is another number, unless all are zero.
        let round = self.at / self.rolls.len();
        let roll = usize::from(self.rolls[self.at % self.rolls.len()]);
        u8::try_from((roll * (round + 1) + roll / usize::from(sides)) % usize::from(sides)).unwrap()
    }
}

pub fn dice() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 16..80)
}

/// One file that is written anew.
struct Writer<'d> {
    dice: &'d mut Dice,
    /// What its own names begin with.
    own: &'static str,
    variables: Map<String, Json>,
    locals: Map<String, Json>,
    profiles: Map<String, Json>,
    outputs: Map<String, Json>,
    /// Values of variables that have none in the file.
    given: Vec<(String, Json)>,
    count: usize,
}

impl<'d> Writer<'d> {
    fn new(dice: &'d mut Dice, own: &'static str) -> Self {
        let (variables, locals, profiles, outputs) = Default::default();
        Self { dice, own, variables, locals, profiles, outputs, given: Vec::new(), count: 0 }
    }

    fn name(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{}{what}{}", self.own, self.count)
    }

    /// A variable with this value, as an expression.
    fn variable(&mut self, value: &Json) -> Json {
        let name = self.name("v");
        let mut variable = json!({ "default": value });
        let typed = match value {
            Json::Number(number) if number.is_i64() => {
                json!({ "type": "integer", "min": number, "max": number, "description": "a number" })
            }
            Json::String(text) => json!({ "type": "string", "pattern": regex::escape(text), "one_of": [text, "-"] }),
            Json::Bool(_) => json!({ "type": "bool", "sensitive": self.dice.roll(2) == 1 }),
            Json::Array(_) => json!({ "type": "list" }),
            Json::Object(_) => json!({ "type": "map(any)" }),
            _ => json!({}),
        };
        match self.dice.roll(4) {
            0 => {}
            1 => variable.as_object_mut().unwrap().extend(typed.as_object().unwrap().clone()),
            2 => {
                let condition = format!("{{{{ var.{name} == var.{name} }}}}");
                variable["validation"] = json!([{ "condition": condition, "error_message": "it is not itself" }]);
            }
            _ => {
                let no_default = variable.as_object_mut().unwrap().remove("default").unwrap();
                variable["type"] = typed["type"].clone();
                if variable["type"].is_null() {
                    variable["type"] = json!("any");
                }
                self.given.push((name.clone(), no_default));
            }
        }
        self.variables.insert(name.clone(), variable);
        if self.dice.roll(6) == 1 {
            let out = json!({ "value": format!("{{{{ var.{name} }}}}"), "description": "it", "sensitive": true });
            self.outputs.insert(format!("o{name}"), out);
        }
        Json::from(format!("{{{{ var.{name} }}}}"))
    }

    /// A value, perhaps as an expression.
    fn value(&mut self, value: &Json) -> Json {
        match value {
            Json::Array(items) if self.dice.roll(10) != 1 => items.iter().map(|item| self.value(item)).collect(),
            Json::Object(map) if self.dice.roll(10) != 1 => self.map(map),
            Json::Array(_) | Json::Object(_) => self.variable(value),
            _ => match self.dice.roll(9) {
                1 | 2 => self.variable(value),
                3 => {
                    let name = self.name("l");
                    let inner = self.variable(value);
                    self.locals.insert(name.clone(), inner);
                    Json::from(format!("{{{{ local.{name} }}}}"))
                }
                4 => match value {
                    Json::Number(number) if number.is_i64() => {
                        Json::from(format!("{{{{ {} + 1 }}}}", number.as_i64().unwrap() - 1))
                    }
                    Json::String(text) if !text.contains(['"', '\\', '{']) => {
                        Json::from(format!("{{{{ \"{text}\" if true else 1 }}}}"))
                    }
                    other => other.clone(),
                },
                5 => match value {
                    // A part of the text.
                    Json::String(text) if !text.is_empty() && !text.contains('{') => {
                        let cut = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
                        let part = self.variable(&json!(text[..cut]));
                        Json::from(format!("{}{}", part.as_str().unwrap(), &text[cut..]))
                    }
                    other => other.clone(),
                },
                _ => value.clone(),
            },
        }
    }

    fn map(&mut self, map: &Map<String, Json>) -> Json {
        let mut new = Map::new();
        for (key, value) in map {
            let value = match (ITEMS.contains(&key.as_str()), value) {
                (true, Json::Array(items)) if self.dice.roll(2) == 1 => self.items(key, items),
                // A name of an entry is written anew as a whole only.
                _ => self.value(value),
            };
            new.insert(key.clone(), value);
        }
        Json::Object(new)
    }

    /// Items, some of which are repeated once, and some are left out.
    fn items(&mut self, key: &str, items: &[Json]) -> Json {
        let mut new = Vec::new();
        for item in items {
            let item = match (item, key) {
                (Json::String(vlan), "networks") => json!({ "vlan": vlan }),
                (Json::String(path), "usb_disks") => json!({ "path": path }),
                (Json::String(path), "disks") if !path.contains(',') => json!({ "path": path }),
                (Json::Number(_) | Json::String(_), _) => {
                    new.push(item.clone());
                    continue;
                }
                _ => item.clone(),
            };
            let Json::Object(item) = item else { unreachable!("an item is text or a map") };
            let mut written = self.map(&item);
            let map = match &mut written {
                Json::Object(map) => map,
                _ => {
                    new.push(written);
                    continue;
                }
            };
            match self.dice.roll(4) {
                1 => {
                    let mut absent = map.clone();
                    absent.insert("when".into(), if new.len() % 2 == 0 { json!(false) } else { json!("{{ 1 > 2 }}") });
                    new.push(Json::Object(absent));
                }
                2 => {
                    map.insert("when".into(), json!("{{ 2 > 1 }}"));
                }
                3 => {
                    let (key, value) = item.iter().next().unwrap();
                    map.insert(key.clone(), json!("{{ each.value }}"));
                    map.insert("for_each".into(), json!([value]));
                }
                _ => {}
            }
            new.push(written);
        }
        Json::Array(new)
    }

    /// The body of a VM with some of its keys in profiles.
    fn with_profiles(&mut self, body: &Map<String, Json>) -> Map<String, Json> {
        let mut own = body.clone();
        let count = self.dice.roll(4);
        let mut names = Vec::new();
        for index in 0..count {
            let mut profile = Map::new();
            for (key, value) in body {
                if value.get("renamed_from").is_some() {
                    continue;
                }
                match self.dice.roll(4) {
                    // The profile has it, and no later one nor the VM, which the tags of all would still add up to.
                    1 => {
                        own.remove(key);
                        let later = names
                            .iter()
                            .all(|name: &String| !self.profiles[name].as_object().unwrap().contains_key(key));
                        if later {
                            profile.insert(key.clone(), self.value(value));
                        } else {
                            profile.insert(key.clone(), value.clone());
                        }
                    }
                    // It has another one, over which the VM wins.
                    2 if own.contains_key(key) => {
                        let other = match (key.as_str(), value) {
                            ("memory" | "vcpus", _) => json!(33),
                            ("state", Json::String(state)) => {
                                json!(if state == "paused" { "running" } else { "paused" })
                            }
                            ("networks" | "disks" | "usb_disks" | "bonds", _) => json!([]),
                            ("tags", Json::Object(tags)) => {
                                tags.keys().map(|key| (key.clone(), json!("other"))).collect::<Map<_, _>>().into()
                            }
                            _ => value.clone(),
                        };
                        profile.insert(key.clone(), other);
                    }
                    _ => {}
                }
            }
            let name = self.name("p");
            match self.dice.roll(5) {
                1 => {
                    profile.insert("when".into(), json!(true));
                    self.profiles.insert(name.clone(), Json::Object(profile));
                }
                2 if index > 0 => {
                    profile.insert("profile".into(), json!(names.clone()));
                    names.clear();
                    self.profiles.insert(name.clone(), Json::Object(profile));
                }
                3 => {
                    profile.insert("for_each".into(), json!([name]));
                    // The look-up above is by the name.
                    self.profiles.insert(name.clone(), Json::Object(profile));
                }
                _ => {
                    self.profiles.insert(name.clone(), Json::Object(profile));
                }
            }
            names.push(name);
        }
        if !names.is_empty() {
            own.insert("profile".into(), if names.len() == 1 { json!(names[0]) } else { json!(names) });
        }
        own
    }

    /// An entry under its name, which may be an expression.
    fn entry(&mut self, section: &str, name: &str, body: &Json, into: &mut Map<String, Json>) {
        let Json::Object(body) = body else { unreachable!("an entry is a map") };
        let body = if section == "vms" { self.with_profiles(body) } else { body.clone() };
        let Json::Object(mut written) = self.map(&body) else { unreachable!("a map is written as one") };
        let number = into.len();
        let mut key = name.to_owned();
        match self.dice.roll(7) {
            1 => {
                let yes = self.variable(&json!(true));
                written.insert("when".into(), yes);
            }
            2 => {
                written.insert("for_each".into(), json!([name]));
                key = format!("{{{{ [each.value, {number}][0] }}}}");
            }
            3 => {
                let scalar = written.iter().find(|(_, value)| value.is_number() || value.is_boolean());
                let scalar = scalar.map(|(key, value)| (key.clone(), value.clone()));
                let each = scalar.as_ref().map_or(json!(0), |(_, value)| value.clone());
                if let Some((field, _)) = scalar {
                    written.insert(field, json!("{{ each.value }}"));
                }
                written.insert("for_each".into(), json!({ name: each }));
                key = format!("{{{{ [each.key, {number}][0] }}}}");
            }
            4 if !name.contains('[') => {
                written.insert("count".into(), json!(1));
                key = format!("{{{{ [\"{name}\", {number}][count.index] }}}}");
            }
            5 => {
                let mut absent = written.clone();
                match number % 3 {
                    0 => absent.insert("when".into(), json!("{{ false }}")),
                    1 => absent.insert("for_each".into(), json!([])),
                    _ => absent.insert("count".into(), json!(0)),
                };
                // A repeated entry has a name of its own each time.
                into.insert(format!("{}absent{number}-{{{{ 1 }}}}", self.own), Json::Object(absent));
            }
            _ => {}
        }
        into.insert(key, Json::Object(written));
    }

    /// Write the sections.
    fn sections(&mut self, sections: &Map<String, Json>) -> Map<String, Json> {
        let mut new = Map::new();
        for (name, section) in sections {
            let section = match section {
                Json::Object(entries) if ENTRIES.contains(&name.as_str()) => {
                    let mut all = Map::new();
                    for (key, body) in entries {
                        self.entry(name, key, body, &mut all);
                    }
                    Json::Object(all)
                }
                other if name == "experiment" => other.clone(),
                other => self.value(other),
            };
            new.insert(name.clone(), section);
        }
        new
    }

    /// The file with what it declares for itself.
    fn file(self, mut sections: Map<String, Json>) -> Map<String, Json> {
        let (variables, locals) = (self.variables, self.locals);
        for (name, map) in
            [("variables", variables), ("locals", locals), ("outputs", self.outputs), ("profiles", self.profiles)]
        {
            if !map.is_empty() {
                // A profile that is repeated is named by what it is repeated for.
                let map = map.into_iter().map(|(key, value)| match value["for_each"].is_array() {
                    true if name == "profiles" => (format!("{{{{ [each.value, \"{key}\"][0] }}}}"), value),
                    _ => (key, value),
                });
                sections.insert(name.to_owned(), Json::Object(map.collect()));
            }
        }
        sections
    }
}

/// A composed experiment: its file, the one that it includes, and the values that are given from outside.
#[derive(Debug)]
pub struct Composed {
    pub main: Json,
    pub module: Option<Json>,
    vars: Vec<String>,
}

impl Composed {
    pub fn load(&self) -> Loaded {
        let module = self.module.as_ref().map(|module| toml(module, 0)).unwrap_or_default();
        let files: Memory = files(&[("m.toml", module.as_str())]);
        let inputs = Inputs { vars: self.vars.clone(), ..Inputs::default() };
        parse_with("lab.yaml", &self.main.to_string(), Format::Yaml, &inputs, &files)
    }
}

/// Write an experiment anew.
pub fn compose(plain: &Json, dice: &mut Dice) -> Composed {
    let Json::Object(mut sections) = plain.clone() else { unreachable!("an experiment is a map") };
    let mut there = Map::new();
    if dice.roll(3) > 0 {
        for section in ENTRIES {
            let Some(Json::Object(entries)) = sections.get_mut(*section) else { continue };
            let names: Vec<String> = entries.keys().cloned().collect();
            let moved = names.into_iter().filter(|_| dice.roll(2) == 1).collect::<Vec<_>>();
            let moved: Map<String, Json> =
                moved.into_iter().map(|name| (name.clone(), entries[&name].clone())).collect();
            entries.retain(|name, _| !moved.contains_key(name));
            there.insert((*section).to_owned(), Json::Object(moved));
        }
    }
    let module = (!there.is_empty()).then(|| {
        let mut writer = Writer::new(dice, "m");
        let written = writer.sections(&there);
        let given = std::mem::take(&mut writer.given);
        (Json::Object(writer.file(written)), given)
    });
    let mut writer = Writer::new(dice, "");
    let mut written = writer.sections(&sections);
    let module = module.map(|(module, given)| {
        let with: Map<String, Json> = given.iter().map(|(name, value)| (name.clone(), writer.value(value))).collect();
        let include = match writer.dice.roll(3) {
            0 if with.is_empty() => json!("m.toml"),
            1 => json!([{ "file": "m.toml", "as": "module", "with": with, "when": true }]),
            _ => json!({ "file": "m.toml", "with": with }),
        };
        written.insert("include".into(), include);
        module
    });
    let text = |(name, value): &(String, Json)| match value {
        Json::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    };
    let mut given = std::mem::take(&mut writer.given);
    // Text for a variable of any type is read as YAML.
    let mut vars = Vec::new();
    for (name, value) in &given {
        match value {
            Json::String(_) => writer.variables[name]["type"] = json!("string"),
            Json::Bool(_) => writer.variables[name]["type"] = json!("bool"),
            _ => {}
        }
        vars.push(text(&(name.clone(), value.clone())));
    }
    given.clear();
    Composed { main: Json::Object(writer.file(written)), module, vars }
}
