//! The functions that expressions have beside minijinja's own: files, hashes, encodings, lists and maps.
//!
//! Each gives the same for the same arguments and files: no clock, no chance, no environment.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};
use sha2::{Digest, Sha256};

use super::{addresses, value};
use crate::diagnostic::{SourceId, Span};
use crate::spec::syntax::{self, Format};
use crate::spec::{Files, beside};

/// The largest file that an expression may read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// The filters that files are likely to use, for "did you mean".
pub const FILTERS: &[&str] = &[
    "abs",
    "batch",
    "capitalize",
    "default",
    "dictsort",
    "first",
    "float",
    "format",
    "groupby",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
    "zip",
];

/// One function: its name, its arguments, and what it gives.
pub const REFERENCE: &[(&str, &str)] = &[
    ("abspath(path)", "The absolute path of what is named beside this file."),
    ("base64decode(text)", "The text that was encoded."),
    ("base64encode(text)", "The text in Base64."),
    ("cidrbroadcast(net)", "The broadcast address of an IPv4 network."),
    ("cidrcontains(net, ip)", "Whether the address (or the whole network) lies in the network."),
    ("cidrhost(net, n)", "Address `n` of the network, without prefix length; a negative `n` counts from the end."),
    ("cidrnetmask(net)", "The netmask of an IPv4 network: `255.255.255.0`."),
    ("cidrnetwork(net)", "The network's own address."),
    ("cidrprefix(net)", "The prefix length, a number."),
    (
        "cidrsubnet(net, bits, n)",
        "Subnet `n` of those that are `bits` bits longer: `cidrsubnet('10.0.0.0/8', 8, 2)` is `10.2.0.0/16`.",
    ),
    ("concat(list, …)", "One list of all the elements."),
    ("dict(…)", "A map: `dict(a=1)`."),
    ("file(path)", "The text of a file, relative to the file that says it; at most 1 MiB of UTF-8."),
    ("fileexists(path)", "Whether there is such a file."),
    ("filesha256(path)", "The SHA-256 of a file's bytes."),
    ("flatten(list)", "The elements of the lists in a list, of any depth, as one list."),
    ("format(text, …)", "printf: `format('%03d', 7)` is `007`. A value that the text has no place for is an error."),
    ("ipadd(ip, n)", "The address `n` further; a prefix length stays."),
    ("jsondecode(text)", "The value of a JSON text."),
    ("jsonencode(value)", "The value as JSON."),
    ("keys(map)", "The keys, sorted."),
    ("lookup(map, key, default)", "The value under the key, or the default."),
    (
        "mac(part, …)",
        "A MAC address that the parts decide: the same parts, the same address (locally administered, 52:54 and 32 bits of a hash).",
    ),
    ("merge(map, …)", "One map; the later wins."),
    ("range(end), range(start, end, step)", "Whole numbers; the end is not among them."),
    ("setproduct(list, list)", "Every pair of an element of the one with one of the other."),
    ("sha256(text)", "The SHA-256 of a text in hexadecimal digits."),
    ("uuid(part, …)", "A UUID that the parts decide (version 8)."),
    ("values(map)", "The values, in the order of the keys."),
    ("yamldecode(text)", "The value of a YAML text."),
    ("yamlencode(value)", "The value as YAML (its JSON form)."),
    ("zipmap(keys, values)", "A map from the elements of the one list to those at the same places of the other."),
    ("zip(list, list)", "Pairs of the elements at the same places, as long as the shorter list."),
];

/// How a function is called, and what it gives; None if there is no such function.
pub fn usage(name: &str) -> Option<String> {
    let (call, gives) = REFERENCE.iter().find(|(call, _)| call.split('(').next() == Some(name))?;
    Some(format!("`{call}` gives: {gives}"))
}

pub fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Put the functions into an environment.
pub fn add(env: &mut Environment<'static>, files: &Arc<dyn Files>, folder: &Arc<Mutex<String>>) {
    add_files(env, files, folder);
    addresses::add(env);
    env.add_function("sha256", |state: &State, text: String| {
        charge(state, text.len())?;
        Ok::<_, Error>(hex(&Sha256::digest(text.as_bytes())))
    });
    env.add_function("base64encode", |text: String| STANDARD.encode(text));
    env.add_function("base64decode", |text: String| {
        let bytes = STANDARD.decode(text.trim()).map_err(|error| refuse(format!("not Base64: {error}")))?;
        String::from_utf8(bytes).map_err(|_| refuse("what was encoded in Base64 is not UTF-8 text"))
    });
    env.add_filter("tojson", |state: &State, value: Value| json(state, &value));
    env.add_function("jsonencode", |state: &State, value: Value| json(state, &value));
    env.add_function("yamlencode", |state: &State, value: Value| json(state, &value));
    env.add_function("jsondecode", |state: &State, text: String| {
        charge(state, text.len() * 8)?;
        // Every JSON text is YAML; this refuses what is YAML alone.
        serde_json::from_str::<serde::de::IgnoredAny>(&text).map_err(|error| refuse(format!("not JSON: {error}")))?;
        decode(&text)
    });
    env.add_function("yamldecode", |state: &State, text: String| {
        charge(state, text.len() * 8)?;
        decode(&text)
    });
    env.add_filter("format", printf);
    env.add_function("format", |state: &mut State, args: Rest<Value>| state.apply_filter("format", &args));
    env.add_function("zip", |state: &mut State, args: Rest<Value>| state.apply_filter("zip", &args));
    env.add_function("mac", |parts: Rest<Value>| {
        let hash = digest("mac", &parts)?;
        let [a, b, c, d, ..] = hash;
        Ok::<_, Error>(format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
    });
    env.add_function("uuid", |parts: Rest<Value>| {
        let hash = digest("uuid", &parts)?;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Ok::<_, Error>(uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string())
    });
    add_collections(env);
}

/// printf, which leaves no argument out.
fn printf(state: &mut State, text: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let given = args.iter().filter(|arg| !arg.is_kwargs()).count();
    let used = text.as_str().and_then(places);
    let result = minijinja::filters::format(state, text, args)?;
    match used.filter(|used| *used < given) {
        Some(used) => {
            let plural = if used == 1 { "" } else { "s" };
            Err(refuse(format!("the text of `format` has {used} place{plural} for a value, but {given} are given")))
        }
        None => Ok(result),
    }
}

/// How many values a printf text takes one by one; None if it takes them by name.
fn places(text: &str) -> Option<usize> {
    let mut count = 0;
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('%') {
        if behind.starts_with('(') {
            return None;
        }
        let end = behind.find(|c: char| c.is_ascii_alphabetic() || c == '%')?;
        let kind = &behind[end..];
        count += usize::from(!kind.starts_with('%'));
        rest = &kind[1..];
    }
    Some(count)
}

fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / 64) as u64)
}

fn add_files(env: &mut Environment<'static>, files: &Arc<dyn Files>, folder: &Arc<Mutex<String>>) {
    let with = |_: &str| (files.clone(), folder.clone());
    let path =
        |folder: &Mutex<String>, name: &str| beside(&folder.lock().unwrap_or_else(PoisonError::into_inner), name);
    let (files_, folder_) = with("file");
    env.add_function("file", move |state: &State, name: String| {
        let bytes = read(&*files_, &path(&folder_, &name), &name)?;
        charge(state, bytes.len())?;
        String::from_utf8(bytes).map_err(|_| refuse(format!("`{name}` is not UTF-8 text")))
    });
    let (files_, folder_) = with("filesha256");
    env.add_function("filesha256", move |state: &State, name: String| {
        let bytes = read(&*files_, &path(&folder_, &name), &name)?;
        charge(state, bytes.len())?;
        Ok::<_, Error>(hex(&Sha256::digest(&bytes)))
    });
    let (files_, folder_) = with("fileexists");
    env.add_function("fileexists", move |name: String| files_.resolve(&path(&folder_, &name)).is_some());
    let (files_, folder_) = with("abspath");
    env.add_function("abspath", move |name: String| {
        files_
            .resolve(&path(&folder_, &name))
            .ok_or_else(|| refuse(format!("there is no file `{name}` beside this file")))
    });
}

fn read(files: &dyn Files, path: &str, name: &str) -> Result<Vec<u8>, Error> {
    let bytes = files.read(path, MAX_FILE).map_err(|error| refuse(format!("cannot read `{name}`: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(refuse(format!("`{name}` has more than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

fn json(state: &State, value: &Value) -> Result<String, Error> {
    let text = serde_json::to_string(&to_json(value)?).map_err(|error| refuse(error.to_string()))?;
    charge(state, text.len() * 8)?;
    Ok(text)
}

/// A value as JSON.
pub fn to_json(value: &Value) -> Result<serde_json::Value, Error> {
    let span = Span { source: SourceId(0), start: 0, end: 0 };
    let node = value::to_node(value, span, &mut super::MAX_NODES.clone()).map_err(|error| refuse(error.to_string()))?;
    Ok(json_of(&node))
}

fn json_of(node: &syntax::Node) -> serde_json::Value {
    use syntax::Value as Node;
    match &node.value {
        Node::Null | Node::Date => serde_json::Value::Null,
        Node::Bool(truth) => (*truth).into(),
        Node::Int(number) => serde_json::Number::from_i128(*number).map_or_else(|| (*number as f64).into(), Into::into),
        Node::Float(number) => (*number).into(),
        Node::String(text) => (**text).into(),
        Node::List(list) => list.iter().map(json_of).collect(),
        Node::Map(map) => {
            map.iter().map(|(k, v)| (k.text.to_string(), json_of(v))).collect::<serde_json::Map<_, _>>().into()
        }
    }
}

/// The value of a YAML text.
pub fn decode(text: &str) -> Result<Value, Error> {
    let (root, diagnostics) = syntax::read(text, SourceId(0), Format::Yaml);
    match (root, diagnostics.first()) {
        (Some(root), None) => Ok(value::of_node(&root, &|span| text[span.start..span.end].to_owned())),
        (_, Some(diagnostic)) => Err(refuse(diagnostic.message.clone())),
        (None, None) => Err(refuse("not valid YAML")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash of parts that tells `a, b` from `ab`.
fn digest(domain: &str, parts: &[Value]) -> Result<[u8; 32], Error> {
    if parts.is_empty() {
        return Err(refuse(format!("{domain} needs at least one part, such as a name")));
    }
    let mut hash = Sha256::new();
    hash.update(domain);
    for part in parts {
        let text = part.to_string();
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    Ok(hash.finalize().into())
}

/// The elements of a list.
fn list(state: &State, value: &Value, what: &str) -> Result<Vec<Value>, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(refuse(format!("{what} takes lists, not {}", value::kind(value))));
    }
    let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    state.consume_fuel(items.len() as u64)?;
    Ok(items)
}

/// The entries of a map.
fn map(state: &State, value: &Value, what: &str) -> Result<Vec<(Value, Value)>, Error> {
    if value.kind() != ValueKind::Map {
        return Err(refuse(format!("{what} takes a map, not {}", value::kind(value))));
    }
    let keys: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    state.consume_fuel(keys.len() as u64)?;
    let mut entries =
        keys.into_iter().map(|key| Ok((key.clone(), value.get_item(&key)?))).collect::<Result<Vec<_>, Error>>()?;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

fn add_collections(env: &mut Environment<'static>) {
    env.add_function("keys", |state: &State, value: Value| {
        Ok::<_, Error>(map(state, &value, "keys")?.into_iter().map(|(key, _)| key).collect::<Vec<_>>())
    });
    env.add_function("values", |state: &State, value: Value| {
        Ok::<_, Error>(map(state, &value, "values")?.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
    });
    env.add_function("lookup", |state: &State, value: Value, key: Value, default: Value| {
        if value.kind() != ValueKind::Map {
            map(state, &value, "lookup")?;
        }
        let found = value.get_item(&key)?;
        Ok::<_, Error>(if found.is_undefined() { default } else { found })
    });
    env.add_function("merge", |state: &State, maps: Rest<Value>| {
        let mut merged = std::collections::BTreeMap::new();
        for value in maps.iter() {
            merged.extend(map(state, value, "merge")?);
        }
        Ok::<_, Error>(Value::from(merged))
    });
    env.add_function("concat", |state: &State, lists: Rest<Value>| {
        let mut all = Vec::new();
        for value in lists.iter() {
            all.extend(list(state, value, "concat")?);
        }
        Ok::<_, Error>(all)
    });
    env.add_function("flatten", |state: &State, value: Value| {
        let mut flat = Vec::new();
        let mut rest = list(state, &value, "flatten")?;
        rest.reverse();
        while let Some(item) = rest.pop() {
            if matches!(item.kind(), ValueKind::Seq | ValueKind::Iterable) {
                let mut items = list(state, &item, "flatten")?;
                items.reverse();
                rest.extend(items);
            } else {
                flat.push(item);
            }
        }
        Ok::<_, Error>(flat)
    });
    env.add_function("zipmap", |state: &State, names: Value, items: Value| {
        let (names, items) = (list(state, &names, "zipmap")?, list(state, &items, "zipmap")?);
        if names.len() != items.len() {
            return Err(refuse(format!(
                "zipmap takes lists of one length, not of {} and {}",
                names.len(),
                items.len()
            )));
        }
        Ok::<_, Error>(Value::from(names.into_iter().zip(items).collect::<std::collections::BTreeMap<_, _>>()))
    });
    env.add_function("setproduct", |state: &State, a: Value, b: Value| {
        let (a, b) = (list(state, &a, "setproduct")?, list(state, &b, "setproduct")?);
        state.consume_fuel((a.len() as u64).saturating_mul(b.len() as u64))?;
        let pairs = a.iter().flat_map(|x| b.iter().map(|y| Value::from(vec![x.clone(), y.clone()])));
        Ok::<_, Error>(pairs.collect::<Vec<_>>())
    });
}
