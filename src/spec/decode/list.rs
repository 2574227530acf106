//! Lists and maps of one VM: words, disks, tags, names of other VMs and profiles.

use std::collections::BTreeMap;

use super::{At, Decoder};
use crate::diagnostic::{Diagnostic, Spanned};
use crate::language::diskspec::{CACHES, DiskSpec, INTERFACES};
use crate::language::field::Override;
use crate::name::{NameError, ProfileName, TagKey, VmName};
use crate::spec::names::expand_names;
use crate::spec::syntax::{Node, Value};
use crate::spec::{keys, shown};

/// Tag keys with this beginning are megaform's own.
const RESERVED_TAGS: &str = "megaform.";

impl Decoder<'_> {
    /// Words: a list of scalars, or one text that is split at blanks.
    pub(super) fn words(&mut self, node: &Node, at: At<'_>) -> Option<Vec<String>> {
        let list = match &node.value {
            Value::List(list) => list,
            // Split first: line ends of a YAML block are blanks here, not characters to carry.
            Value::String(text) => {
                let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                let carried = words.iter().all(|word| self.carried(word, node.span, at));
                return carried.then_some(words);
            }
            Value::Map(_) | Value::Null => {
                self.wrong_type(node, at, "a list of words, or text that is split at blanks", false);
                return None;
            }
            _ => return self.word(node, at).map(|word| vec![word]),
        };
        let words: Vec<Option<String>> = list
            .iter()
            .map(|item| {
                let word = self.word(item, at)?;
                if word.is_empty() {
                    self.push(
                        Diagnostic::error("invalid-value", item.span, format!("{at} has an empty word"))
                            .hint("remove it"),
                    );
                    return None;
                }
                Some(word)
            })
            .collect();
        words.into_iter().collect()
    }

    /// Disks: a list; one alone may stand without the list.
    pub(super) fn disks(&mut self, node: &Node, at: At<'_>) -> Option<Vec<DiskSpec>> {
        match &node.value {
            Value::List(list) => {
                let disks: Vec<Option<DiskSpec>> = list.iter().map(|item| self.disk(item, at)).collect();
                disks.into_iter().collect()
            }
            Value::String(_) | Value::Map(_) => Some(vec![self.disk(node, at)?]),
            _ => {
                self.wrong_type(node, at, "a list of disks", false);
                None
            }
        }
    }

    fn disk(&mut self, node: &Node, at: At<'_>) -> Option<DiskSpec> {
        let mut disk = match &node.value {
            Value::String(text) => {
                if !self.carried(text, node.span, at) {
                    return None;
                }
                match DiskSpec::parse(text) {
                    Ok(disk) => disk,
                    Err(error) => {
                        self.push(
                            Diagnostic::error("invalid-value", node.span, format!("{at}: {error}"))
                                .hint("write the map form, as in `{ path: disk.qcow2, interface: virtio }`"),
                        );
                        return None;
                    }
                }
            }
            Value::Map(_) => {
                let owner = format!("a disk of {}", at.owner);
                let entries = self.section(node, &owner, &keys::names(keys::DISK))?;
                self.require(&entries, keys::DISK, node.span, &owner);
                let mut disk = DiskSpec { path: String::new(), interface: None, cache: None };
                let mut complete = entries.iter().any(|(key, _, _)| *key == "path");
                for (key, _, node) in entries {
                    let at = At { key, owner: &owner };
                    match key {
                        "path" => match self.text(node, at) {
                            Some(path) => disk.path = path,
                            None => complete = false,
                        },
                        "interface" => disk.interface = self.one_of(node, at, INTERFACES),
                        "cache" => disk.cache = self.one_of(node, at, CACHES),
                        other => unreachable!("`{other}` is not in the table of disk keys"),
                    }
                }
                if !complete {
                    return None;
                }
                if disk.cache.as_deref().is_some_and(|cache| INTERFACES.contains(&cache)) && disk.interface.is_none() {
                    // In a diskspec the word alone would be taken for the interface.
                    disk.interface = Some(crate::language::diskspec::DEFAULT_INTERFACE.to_owned());
                }
                disk
            }
            _ => {
                self.wrong_type(node, at, "a path, or a map such as `{ path: disk.qcow2, interface: virtio }`", true);
                return None;
            }
        };
        if disk.path.is_empty() {
            self.push(
                Diagnostic::error("invalid-value", node.span, format!("{at} has a disk with an empty path"))
                    .hint("give the path of the image, or remove the disk"),
            );
            return None;
        }
        disk.path = self.path(disk.path, node.span, at)?;
        if disk.path.contains(',') {
            self.push(
                Diagnostic::error(
                    "not-carried",
                    node.span,
                    format!("{at} has the path `{}`, and a comma ends a path in a diskspec", shown(&disk.path)),
                )
                .hint("rename the file or its folder"),
            );
            return None;
        }
        Some(disk)
    }

    /// Replacements in QEMU's command line: a list; one alone may stand without the list.
    pub(super) fn overrides(&mut self, node: &Node, at: At<'_>) -> Option<Vec<Override>> {
        let items = match &node.value {
            Value::List(list) => list.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let owner = format!("an override of {}", at.owner);
        let mut overrides = Vec::new();
        for item in items {
            let before = self.errors;
            let entries = self.section(item, &owner, &keys::names(keys::OVERRIDE))?;
            self.require(&entries, keys::OVERRIDE, item.span, &owner);
            let (mut matched, mut replacement) = (None, None);
            for (key, _, node) in entries {
                let at = At { key, owner: &owner };
                let text = self.text(node, at);
                if key == "match" && text.as_deref() == Some("") {
                    let diagnostic = Diagnostic::error("invalid-value", node.span, format!("{at} is empty"));
                    self.push(diagnostic.hint("give the text to replace, or remove the override"));
                }
                *(if key == "match" { &mut matched } else { &mut replacement }) = text;
            }
            if self.errors == before {
                overrides.push(Override { matched: matched?, replacement: replacement? });
            }
        }
        Some(overrides)
    }

    /// One word of a fixed list.
    pub(super) fn one_of(&mut self, node: &Node, at: At<'_>, words: &[&str]) -> Option<String> {
        let Value::String(text) = &node.value else {
            self.wrong_type(node, at, &format!("one of {}", few(words)), false);
            return None;
        };
        if words.contains(&&**text) {
            return Some(text.to_string());
        }
        let hint = match self.suggester.nearest(text, words.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("the choices are {}", few(words)),
        };
        self.push(
            Diagnostic::error(
                "invalid-value",
                node.span,
                format!("{at} is `{}`, which is none of its choices", shown(text)),
            )
            .hint(hint),
        );
        None
    }

    pub(super) fn tags(&mut self, node: &Node, at: At<'_>) -> Option<BTreeMap<String, String>> {
        let Value::Map(map) = &node.value else {
            self.wrong_type(node, at, "a map of keys and values", false);
            return None;
        };
        let mut tags = BTreeMap::new();
        for (key, value) in map.iter() {
            let value_at = At { key: &format!("tags.{}", shown(&key.text)), owner: at.owner };
            let text = self.word(value, value_at);
            if text.as_deref() == Some("") {
                self.push(
                    Diagnostic::error("invalid-value", value.span, format!("{value_at} is empty"))
                        .hint("give the tag a value, or remove it"),
                );
            }
            if key.text.starts_with(RESERVED_TAGS) {
                self.push(
                    Diagnostic::error(
                        "reserved-tag",
                        key.span,
                        format!("the tag `{}` begins with `{RESERVED_TAGS}`", shown(&key.text)),
                    )
                    .hint("megaform marks its VMs with such tags; choose another beginning"),
                );
                continue;
            }
            match (TagKey::new(&key.text), text) {
                (Ok(key), Some(text)) => {
                    tags.insert(key.to_string(), text);
                }
                (Ok(_), None) => {}
                (Err(error), _) => self.bad_name(key.span, &error),
            }
        }
        Some(tags)
    }

    /// Names of profiles: one, or a list.
    pub(super) fn profile_names(&mut self, node: &Node, at: At<'_>) -> Vec<Spanned<ProfileName>> {
        match &node.value {
            Value::List(list) => list.iter().filter_map(|item| self.name(item, at, ProfileName::new)).collect(),
            _ => self.name(node, at, ProfileName::new).into_iter().collect(),
        }
    }

    /// Names of VMs: one, possibly with ranges, or a list of such. Sorted, each once.
    pub(super) fn vm_names(&mut self, node: &Node, at: At<'_>) -> Option<Vec<Spanned<VmName>>> {
        let one;
        let items: &[Node] = match &node.value {
            Value::List(list) => list,
            _ => {
                one = [node.clone()];
                &one
            }
        };
        let mut names: Vec<Spanned<VmName>> = Vec::new();
        for item in items {
            let text = match &item.value {
                Value::String(text) => text.to_string(),
                Value::Int(_) => self.written(item).into_owned(),
                _ => {
                    self.wrong_type(item, at, "the name of a VM, or a list of names", true);
                    continue;
                }
            };
            let expanded = self.expand(&text, item.span);
            names.extend(expanded.into_iter().map(|name| Spanned::new(name, item.span)));
        }
        names.sort_by(|a, b| a.value.cmp(&b.value).then(a.span.cmp(&b.span)));
        names.dedup_by(|a, b| a.value == b.value);
        Some(names)
    }

    /// The VM names that a name with ranges stands for; none if any is refused, which is reported once.
    pub(super) fn expand(&mut self, text: &str, span: crate::diagnostic::Span) -> Vec<VmName> {
        // Without this, a range behind a very long name would take memory before the name is looked at.
        const LONGEST: usize = 1024;
        if text.len() > LONGEST {
            let error = NameError::TooLong { kind: "vm", length: text.len(), limit: VmName::LIMIT };
            self.bad_name(span, &error);
            return Vec::new();
        }
        if !text.contains(['[', ']', ','])
            && let Ok(name) = VmName::new(text)
        {
            return vec![name];
        }
        let names = match expand_names(text) {
            Ok(names) if !names.is_empty() => names,
            Ok(_) => {
                self.push(
                    Diagnostic::error("invalid-range", span, format!("`{}` stands for no VM", shown(text)))
                        .hint("put the smaller number first, as in `web[0-2]`"),
                );
                return Vec::new();
            }
            Err(error) => {
                self.push(
                    Diagnostic::error("invalid-range", span, format!("`{}`: {error}", shown(text)))
                        .hint("write numbers and ranges in brackets, as in `web[0-2]` or `a[0-1,5]`"),
                );
                return Vec::new();
            }
        };
        match names.iter().map(|name| VmName::new(name)).collect() {
            Ok(names) => names,
            Err(error) => {
                self.bad_name(span, &error);
                Vec::new()
            }
        }
    }
}

/// A list of words that stays readable.
pub(super) fn few(words: &[&str]) -> String {
    const FEW: usize = 12;
    match words.len() {
        0..=FEW => words.join(", "),
        n => format!("{} and {} more", words[..FEW].join(", "), n - FEW),
    }
}
