//! The hosts and the queue of a namespace: what waits is launched as a whole, or not at all.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::queue::{Queue, Waiting};
use super::{BUILDING, ERROR, Namespace, State, Vm, answer, entry, fail, nic, ok};

impl State {
    /// The hosts that a namespace has by itself.
    pub(super) fn usual_hosts(&self) -> Vec<String> {
        match self.mesh.is_empty() {
            true => ["vm".to_owned()].into_iter().chain(self.second_host.clone()).collect(),
            false => self.mesh.keys().cloned().collect(),
        }
    }

    pub(super) fn queue<'n>(&self, ns: &'n mut Namespace) -> Queue<'n> {
        let Namespace { queueing, hosts, load, queue, .. } = ns;
        Queue { queueing, hosts, load, queue, usual: self.usual_hosts() }
    }

    pub(super) fn placement(&self, ns: &mut Namespace, words: &[&str]) -> Vec<Value> {
        let mut queue = self.queue(ns);
        let usual = queue.usual.clone();
        answer(queue.run(words, &|host| host == "vm" || usual.iter().any(|other| other == host)))
    }

    /// Launch everything that is queued, or nothing.
    pub(super) fn schedule(&mut self, ns: &mut Namespace) -> Vec<Value> {
        let places = ns.vms.iter().map(|(name, vm)| (name.clone(), vm.host.clone())).collect();
        let placed = match self.queue(ns).schedule(places) {
            Ok(placed) => placed,
            Err(error) => return fail(&error),
        };
        for (Waiting { names, config, tags }, hosts) in placed {
            for (name, host) in names.into_iter().zip(hosts) {
                let host = if self.mesh.is_empty() { None } else { Some(host) };
                self.launch(ns, name, &config, &tags, host);
            }
        }
        // Errors of the launch itself are not returned: they show in `vm info`.
        ok()
    }

    fn launch(
        &mut self,
        ns: &mut Namespace,
        name: String,
        config: &BTreeMap<String, Vec<String>>,
        tags: &BTreeMap<String, String>,
        host: Option<String>,
    ) {
        {
            let id = self.launched;
            self.launched += 1;
            let specs = config.get("networks").cloned().unwrap_or_default();
            let nics = specs.iter().enumerate().map(|(index, raw)| nic(ns, raw, id, index)).collect();
            let mut tags = tags.clone();
            let error = self.broken.get(&name);
            tags.extend(error.map(|error| ("error".to_owned(), error.clone())));
            let uuid = config.get("uuid").map(|uuid| uuid[0].clone());
            let second = self.second_host.clone().filter(|_| id % 2 == 1);
            let vm = Vm {
                id,
                pid: if error.is_some() { 0 } else { 12900 + id },
                state: if error.is_some() { ERROR } else { BUILDING },
                host: host.or(second).unwrap_or_else(|| "vm".to_owned()),
                tags,
                config: config.clone(),
                uuid: uuid.unwrap_or_else(|| format!("a513f1dd-6197-4e8f-8b87-{id:012}")),
                nics,
            };
            ns.vms.insert(name, vm);
        }
    }
}

/// `host` as a host answers it.
pub(super) fn host(name: &str, (cpus, memory): (u64, u64)) -> Value {
    let header = json!(["cpus", "load", "memused", "memtotal", "vms"]);
    let row = json!([[cpus.to_string(), "0.01 0.12 0.36", "333", memory.to_string(), "0"]]);
    entry(name, "", header, row, "", Value::Null)
}

/// The words of a line: blanks separate, both quotes quote, a backslash escapes, `#` begins a comment.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', _) => word.get_or_insert_default().push(match chars.next().expect("an escaped character") {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }),
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
