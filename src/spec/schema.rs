//! The JSON schema of the experiment file (draft 2020-12), from the tables of `keys` and `FIELDS`.
//!
//! Built by hand from those tables and not by `schemars`: that derives a schema from Rust types, and there are none here
//! whose shape is the file's. The schema says what a single value may be; references, duplicates and ranges in names
//! remain with `megaform validate`.

use serde_json::{Map, Value as Json, json};

use super::keys::{self, Key, VM, VmKey};
use crate::language::field::{Field, FieldType, Initial};

/// The schema.
pub fn schema() -> Json {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "megaform experiment",
        "description": "An experiment file of megaform, in YAML or TOML.",
    });
    let mut definitions = json!({
        "vlan": repeated(object(keys::VLAN), &["when", "for_each", "count"]),
        "profile": repeated(vm(true), &["when", "for_each"]),
        "vm": repeated(vm(false), &["when", "for_each"]),
        "nic": repeated(object(keys::NIC), &["when", "for_each"]),
        "disk": repeated(object(keys::DISK), &["when", "for_each"]),
        "usb_disk": repeated(object(keys::USB_DISK), &["when", "for_each"]),
        "override": repeated(object(keys::OVERRIDE), &["when", "for_each"]),
        "bond": repeated(object(keys::BOND), &["when", "for_each"]),
        "qos": object(keys::QOS),
        "placement": object(keys::PLACEMENT),
        "link": repeated(object(keys::LINK), &["when", "for_each", "count"]),
        "tap": repeated(object(keys::TAP), &["when", "for_each", "count"]),
        "bridge": repeated(object(keys::BRIDGE), &["when", "for_each", "count"]),
        "nat": repeated(object(keys::NAT), &["when", "for_each", "count"]),
        "dnsmasq": repeated(object(keys::DNSMASQ), &["when", "for_each", "count"]),
        "mirror": repeated(object(keys::MIRROR), &["when", "for_each", "count"]),
        "capture": repeated(object(keys::CAPTURE), &["when", "for_each", "count"]),
        "pipe": repeated(object(keys::PIPE), &["when", "for_each", "count"]),
        "plumbing": repeated(object(keys::PLUMBING), &["when", "for_each", "count"]),
        "tunnel": repeated(object(keys::TUNNEL), &["when", "for_each"]),
        "lease": repeated(object(keys::LEASE), &["when", "for_each"]),
        "dns": repeated(object(keys::DNS), &["when", "for_each"]),
        "object_lifecycle": object(keys::OBJECT_LIFECYCLE),
        "lifecycle": object(keys::LIFECYCLE),
        "wait_for": object(keys::WAIT_FOR),
        "serial": repeated(object(keys::SERIAL), &["when", "for_each"]),
        "command": repeated(object(keys::COMMAND), &["when", "for_each", "count"]),
        "profile_lifecycle": profile_lifecycle(),
        "tap_lifecycle": object(keys::TAP_LIFECYCLE),
    });
    let mut root = object(keys::EXPERIMENT);
    allow_expressions(&mut root);
    allow_expressions(&mut definitions);
    for (name, table) in [
        ("variable", keys::VARIABLE),
        ("validation", keys::VALIDATION),
        ("output", keys::OUTPUT),
        ("include", keys::INCLUDE),
    ] {
        definitions[name] = object(table);
    }
    definitions["variable"]["type"] = json!(["object", "null"]);
    definitions["expression"] = json!({
        "type": "string",
        "pattern": EXPRESSION,
        "description": "Text with an expression, as in `{{ var.size * 2 }}`.",
    });
    // A file for others to include has variables rather than a name.
    if let Some(required) = root.as_object_mut().and_then(|root| root.remove("required")) {
        root["anyOf"] = json!([{ "required": required }, { "required": ["variables"] }]);
    }
    let body = schema.as_object_mut().expect("an object was written above");
    if let Json::Object(root) = root {
        body.extend(root);
    }
    body.insert("$defs".to_owned(), definitions);
    schema
}

/// Where an expression stands in a text.
const EXPRESSION: &str = r"\{[{%]";

/// The keys that compose an entry.
fn repeated(mut object: Json, keys: &[&str]) -> Json {
    let properties = object["properties"].as_object_mut().expect("a map with fixed keys has properties");
    for key in keys::ENTRY.iter().filter(|key| keys.contains(&key.name)) {
        insert(properties, key.name, described((key.shape)(), key.help));
    }
    object
}

/// Let expressions stand for values and in names, wherever there is a value or a name.
fn allow_expressions(shape: &mut Json) {
    let Some(object) = shape.as_object_mut() else { return };
    for (key, inner) in object {
        match key.as_str() {
            "properties" | "anyOf" | "$defs" => match inner {
                Json::Object(map) => map.values_mut().for_each(allowed),
                Json::Array(list) => list.iter_mut().for_each(allow_expressions),
                _ => {}
            },
            "items" | "additionalProperties" if inner.is_object() => allowed(inner),
            "propertyNames" => {
                let names = inner.take();
                *inner = json!({ "anyOf": [names, { "pattern": EXPRESSION }] });
            }
            _ => allow_expressions(inner),
        }
    }
}

/// A value, or an expression in its place.
fn allowed(shape: &mut Json) {
    allow_expressions(shape);
    let any_text = shape.get("pattern").is_none()
        && shape.get("enum").is_none()
        && shape.get("maxLength").is_none()
        && match shape.get("type") {
            Some(Json::String(ty)) => ty == "string",
            Some(Json::Array(types)) => types.contains(&json!("string")),
            Some(_) => false,
            None => shape.as_object().is_some_and(serde_json::Map::is_empty),
        };
    if any_text {
        return;
    }
    let mut inner = shape.take();
    let mut outer = json!({});
    if let Some(object) = inner.as_object_mut() {
        for key in ["description", "default"] {
            if let Some(value) = object.remove(key) {
                outer[key] = value;
            }
        }
    }
    outer["anyOf"] = json!([inner, { "$ref": "#/$defs/expression" }]);
    *shape = outer;
}

fn described(mut shape: Json, help: &str) -> Json {
    if let Some(object) = shape.as_object_mut() {
        object.insert("description".to_owned(), json!(help));
    }
    shape
}

/// A map with fixed keys.
fn object(table: &[Key]) -> Json {
    let mut properties = Map::new();
    for key in table {
        insert(&mut properties, key.name, described((key.shape)(), key.help));
    }
    let required: Vec<&str> = table.iter().filter(|k| k.required()).map(|k| k.name).collect();
    let mut object = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// A property under its name, and under its form with hyphens.
fn insert(properties: &mut Map<String, Json>, name: &str, shape: Json) {
    if name.contains('_') {
        properties.insert(name.replace('_', "-"), shape.clone());
    }
    properties.insert(name.to_owned(), shape);
}

fn vm(profile: bool) -> Json {
    let mut properties = Map::new();
    for (name, key) in VM.iter().filter(|(name, _)| !(profile && *name == "count")) {
        let shape = match key {
            VmKey::Own(key) if profile && key.name == "lifecycle" => described(shape::profile_lifecycle(), key.help),
            VmKey::Own(key) => described((key.shape)(), key.help),
            VmKey::Field(field) => {
                let mut shape = described(field_shape(field), &keys::help(field));
                if let Some(default) = default(field) {
                    shape["default"] = default;
                }
                shape
            }
        };
        insert(&mut properties, name, shape);
    }
    json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
}

/// A profile stands for no VM that could have had a name.
fn profile_lifecycle() -> Json {
    let mut object = object(keys::LIFECYCLE);
    if let Some(properties) = object["properties"].as_object_mut() {
        properties.retain(|key, _| key.replace('-', "_") != "renamed_from");
    }
    object
}

fn default(field: &Field) -> Option<Json> {
    match field.default {
        Initial::Empty => None,
        Initial::Uint(number) => Some(json!(number)),
        Initial::Int(number) => Some(json!(number)),
        Initial::Bool(truth) => Some(json!(truth)),
        Initial::Text(text) => Some(json!(text)),
        Initial::Words(words) => Some(json!(words)),
    }
}

fn field_shape(field: &Field) -> Json {
    let scalar = json!({ "type": ["string", "number", "boolean"] });
    match field.ty {
        FieldType::Uint { min, max } => {
            let number = json!({ "type": "integer", "minimum": min, "maximum": max });
            if field.unit == Some("MB") {
                let text =
                    json!({ "type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([KkMmGgTt]([Ii]?[Bb])?)?\s*$" });
                json!({ "anyOf": [number, text] })
            } else {
                number
            }
        }
        FieldType::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        FieldType::Bool => json!({ "type": "boolean" }),
        FieldType::Text => json!({ "type": ["string", "integer"] }),
        FieldType::Path => shape::path(),
        FieldType::Words => json!({ "anyOf": [scalar.clone(), { "type": "array", "items": scalar }] }),
        FieldType::Networks => one_or_list(json!([shape::vlan_ref(), { "$ref": "#/$defs/nic" }])),
        FieldType::Disks => one_or_list(json!([shape::path(), { "$ref": "#/$defs/disk" }])),
        FieldType::Tags => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME, "maxLength": 64, "not": { "pattern": r"^(all|[0-9]+|megaform\..*)$" } },
            "additionalProperties": scalar,
        }),
        FieldType::Overrides => one_or_list(json!([{ "$ref": "#/$defs/override" }])),
        FieldType::Volumes | FieldType::Bonds => unreachable!("`{}` is no key of the file", field.name),
        FieldType::Uuid => json!({ "type": "string", "pattern": r"^[0-9A-Fa-f{}:urnid-]*$" }),
    }
}

fn one_or_list(choices: Json) -> Json {
    let one = json!({ "anyOf": choices });
    json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
}

/// A name that may have dots, as `name` defines it.
const NAME: &str = r"^[A-Za-z0-9][A-Za-z0-9._-]*$";

/// The shapes of values; the tables of `keys` point here.
pub(super) mod shape {
    use super::{Json, NAME, json, one_or_list};
    use crate::language::diskspec::{CACHES, INTERFACES};
    use crate::language::netspec::DRIVERS;

    fn name(limit: usize) -> Json {
        json!({ "type": "string", "pattern": NAME, "maxLength": limit, "not": { "pattern": "^(all|[0-9]+)$" } })
    }
    fn named(item: &str, limit: usize) -> Json {
        let names = json!({ "pattern": NAME, "maxLength": limit, "not": { "pattern": "^(all|[0-9]+)$" } });
        json!({ "type": ["object", "null"], "propertyNames": names, "additionalProperties": { "$ref": format!("#/$defs/{item}") } })
    }
    pub fn anything() -> Json {
        json!({})
    }
    pub fn anything_list() -> Json {
        json!({ "type": "array" })
    }
    pub fn anything_map() -> Json {
        json!({ "type": ["object", "null", "string"] })
    }
    pub fn text() -> Json {
        json!({ "type": "string" })
    }
    pub fn nonempty() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
    pub fn truth() -> Json {
        json!({ "type": "boolean" })
    }
    pub fn number() -> Json {
        json!({ "type": "number" })
    }
    pub fn condition() -> Json {
        json!({ "type": ["boolean", "string"] })
    }
    pub fn for_each() -> Json {
        json!({ "type": ["array", "object", "string"] })
    }
    pub fn variable_type() -> Json {
        json!({ "type": "string", "pattern": r"^\s*(any|string|number|integer|bool|ip|cidr|mac|(list|map)(\(.*\))?)\s*$" })
    }
    pub fn variables() -> Json {
        json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "$ref": "#/$defs/variable" },
        })
    }
    pub fn validation() -> Json {
        one_or_list(json!([{ "$ref": "#/$defs/validation" }]))
    }
    pub fn outputs() -> Json {
        json!({
            "type": ["object", "null"],
            "propertyNames": { "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": {
                "if": { "type": "object", "required": ["value"] },
                "then": { "$ref": "#/$defs/output" },
            },
        })
    }
    pub fn includes() -> Json {
        one_or_list(json!([{ "type": "string" }, { "$ref": "#/$defs/include" }]))
    }
    pub fn experiment_name() -> Json {
        name(64)
    }
    pub fn bridge_name() -> Json {
        name(15)
    }
    pub fn vlan_tag() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": 4094 })
    }
    pub fn vlan_ref() -> Json {
        json!({ "anyOf": [name(64), { "type": "integer", "minimum": 0, "maximum": 4094 }] })
    }
    pub fn vlans() -> Json {
        let mut vlans = named("vlan", 64);
        vlans["additionalProperties"] =
            json!({ "anyOf": [{ "$ref": "#/$defs/vlan" }, { "type": "null" }, vlan_tag()] });
        vlans
    }
    pub fn vlan_range() -> Json {
        json!({ "anyOf": [
            { "type": "string", "pattern": r"^\s*[0-9]{1,4}\s*-\s*[0-9]{1,4}\s*$" },
            { "type": "array", "items": vlan_tag(), "minItems": 2, "maxItems": 2 },
        ] })
    }
    pub fn vlan_blacklist() -> Json {
        let range = json!({ "type": "string", "pattern": r"^\s*[0-9]{1,4}\s*-\s*[0-9]{1,4}\s*$" });
        one_or_list(json!([vlan_tag(), range]))
    }
    pub fn placement() -> Json {
        json!({ "$ref": "#/$defs/placement" })
    }
    pub fn hosts() -> Json {
        one_or_list(json!([{ "type": "string", "minLength": 1, "not": { "const": "all" } }]))
    }
    pub fn load() -> Json {
        json!({ "enum": ["cpucommit", "netcommit", "memcommit"] })
    }
    pub fn profiles() -> Json {
        named("profile", 64)
    }
    pub fn vms() -> Json {
        // A name, with ranges or without; the expanded names are checked by the decoder.
        let names = json!({ "pattern": r"^[A-Za-z0-9_-]*(\[[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*\][A-Za-z0-9_-]*)*$", "minLength": 1 });
        json!({ "type": ["object", "null"], "propertyNames": names, "additionalProperties": { "$ref": "#/$defs/vm" } })
    }
    pub fn taps() -> Json {
        let mut taps = named("tap", 15);
        taps["type"] = json!(["object", "null"]);
        taps
    }
    pub fn commands() -> Json {
        named("command", 64)
    }
    pub fn line() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
    pub fn lines() -> Json {
        json!({ "anyOf": [line(), { "type": "array", "items": line() }] })
    }
    pub fn profile_names() -> Json {
        json!({ "anyOf": [name(64), { "type": "array", "items": name(64) }] })
    }
    pub fn vm_type() -> Json {
        json!({ "enum": ["kvm"], "default": "kvm" })
    }
    pub fn state() -> Json {
        json!({ "enum": ["running", "paused"], "default": "running" })
    }
    pub fn depends_on() -> Json {
        let one = json!({ "type": "string", "minLength": 1 });
        json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
    }
    pub fn count() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": crate::spec::names::MAX_VMS })
    }
    pub fn wait_for() -> Json {
        json!({ "$ref": "#/$defs/wait_for" })
    }
    pub fn socket_address() -> Json {
        json!({ "type": "string", "pattern": r"^([0-9.]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$" })
    }
    pub fn serial_texts() -> Json {
        one_or_list(json!([nonempty(), { "$ref": "#/$defs/serial" }]))
    }
    pub fn serial_port() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": 255, "default": 0 })
    }
    pub fn wait_timeout() -> Json {
        json!({ "anyOf": [{ "type": "integer", "minimum": 1, "maximum": 86_400 }, { "type": "string" }] })
    }
    pub fn lifecycle() -> Json {
        json!({ "$ref": "#/$defs/lifecycle" })
    }
    pub fn profile_lifecycle() -> Json {
        json!({ "$ref": "#/$defs/profile_lifecycle" })
    }
    pub fn tap_lifecycle() -> Json {
        json!({ "$ref": "#/$defs/tap_lifecycle" })
    }
    pub fn fields() -> Json {
        let one = json!({ "type": "string", "pattern": r"^([A-Za-z_-]+|networks\[[0-9]+\]|tags\..+)$" });
        json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
    }
    pub fn tap_fields() -> Json {
        let one = json!({ "enum": ["vlan", "ip", "bridge"] });
        json!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
    }
    pub fn vm_names() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
    pub fn mac() -> Json {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$" })
    }
    pub fn driver() -> Json {
        json!({ "enum": DRIVERS, "default": crate::language::netspec::DEFAULT_DRIVER })
    }
    pub fn qos() -> Json {
        json!({ "$ref": "#/$defs/qos" })
    }
    pub fn rate() -> Json {
        json!({ "type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*[KkMmGg][Bb][Ii][Tt]\s*$" })
    }
    pub fn time() -> Json {
        json!({ "type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([MmUuµ]?[Ss])\s*$" })
    }
    pub fn loss() -> Json {
        let text = json!({ "type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*%?\s*$" });
        json!({ "anyOf": [{ "type": "number", "exclusiveMinimum": 0, "maximum": 99.9 }, text] })
    }
    pub fn links() -> Json {
        named("link", 64)
    }
    pub fn link_ends() -> Json {
        json!({ "type": "array", "items": nic_of_vm(), "minItems": 2, "maxItems": 2 })
    }
    pub fn nic_of_vm() -> Json {
        json!({ "type": "string", "pattern": r"^[A-Za-z0-9_-]+\.[0-9]+$" })
    }
    pub fn bridges() -> Json {
        named("bridge", 15)
    }
    pub fn nat() -> Json {
        named("nat", 64)
    }
    pub fn pipes() -> Json {
        let mut pipes = named("pipe", 64);
        pipes["additionalProperties"] = json!({ "anyOf": [{ "$ref": "#/$defs/pipe" }, { "type": "null" }] });
        pipes
    }
    pub fn pipe_mode() -> Json {
        json!({ "enum": ["all", "round-robin", "random"], "default": "all" })
    }
    pub fn plumbing() -> Json {
        named("plumbing", 64)
    }
    pub fn elements() -> Json {
        json!({ "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 2 })
    }
    pub fn dnsmasq() -> Json {
        named("dnsmasq", 64)
    }
    pub fn mirrors() -> Json {
        named("mirror", 64)
    }
    pub fn captures() -> Json {
        named("capture", 64)
    }
    pub fn object_lifecycle() -> Json {
        json!({ "$ref": "#/$defs/object_lifecycle" })
    }
    pub fn words() -> Json {
        one_or_list(json!([{ "type": "string", "minLength": 1 }]))
    }
    pub fn bridge_config() -> Json {
        let scalar = json!({ "type": ["string", "number", "boolean"] });
        json!({ "anyOf": [{ "type": "object", "additionalProperties": scalar }, words()] })
    }
    pub fn tunnels() -> Json {
        one_or_list(json!([{ "type": "string" }, { "$ref": "#/$defs/tunnel" }]))
    }
    pub fn tunnel_type() -> Json {
        json!({ "enum": ["vxlan", "gre"] })
    }
    pub fn tunnel_key() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
    }
    pub fn address() -> Json {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+$" })
    }
    pub fn address_pair() -> Json {
        json!({ "type": "array", "items": address(), "minItems": 2, "maxItems": 2 })
    }
    pub fn leases() -> Json {
        one_or_list(json!([{ "type": "string" }, { "$ref": "#/$defs/lease" }]))
    }
    pub fn dns() -> Json {
        one_or_list(json!([{ "type": "string" }, { "$ref": "#/$defs/dns" }]))
    }
    pub fn nic_index() -> Json {
        json!({ "type": "integer", "minimum": 0, "maximum": 255 })
    }
    pub fn bonds() -> Json {
        json!({ "type": "array", "items": { "$ref": "#/$defs/bond" } })
    }
    pub fn usb_disks() -> Json {
        one_or_list(json!([path(), { "$ref": "#/$defs/usb_disk" }]))
    }
    pub fn usb_version() -> Json {
        json!({ "enum": ["1.1", "2.0", 1.1, 2.0] })
    }
    pub fn serial() -> Json {
        json!({ "type": ["string", "integer"], "minLength": 1 })
    }
    pub fn bond_nics() -> Json {
        json!({ "type": "array", "items": nic_index(), "minItems": 2, "uniqueItems": true })
    }
    pub fn bond_mode() -> Json {
        json!({ "enum": ["active-backup", "balance-slb", "balance-tcp"] })
    }
    pub fn bond_lacp() -> Json {
        json!({ "enum": ["active", "passive", "off"], "default": "off" })
    }
    pub fn bond_name() -> Json {
        json!({ "type": "string", "pattern": NAME, "maxLength": 15 })
    }
    pub fn mirror_end() -> Json {
        json!({ "type": "string", "pattern": NAME })
    }
    pub fn capture_type() -> Json {
        json!({ "enum": ["pcap", "netflow"], "default": "pcap" })
    }
    pub fn capture_to() -> Json {
        json!({ "type": "string", "pattern": "^(udp|tcp)://.+:[0-9]+$" })
    }
    pub fn capture_format() -> Json {
        json!({ "enum": ["raw", "ascii"] })
    }
    pub fn snaplen() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": 262_144 })
    }
    pub fn flow_timeout() -> Json {
        json!({ "type": "integer", "minimum": 1, "maximum": 3600 })
    }
    pub fn path() -> Json {
        json!({ "type": "string" })
    }
    pub fn disk_interface() -> Json {
        json!({ "enum": INTERFACES, "default": crate::language::diskspec::DEFAULT_INTERFACE })
    }
    pub fn disk_cache() -> Json {
        json!({ "enum": CACHES })
    }
    pub fn ip() -> Json {
        json!({ "type": "string", "pattern": "^[0-9A-Fa-f:.]+/[0-9]{1,3}$" })
    }
}
