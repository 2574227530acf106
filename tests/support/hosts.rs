//! The hosts and the queue of a namespace: what waits is launched as a whole, or not at all.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::network::names;
use super::{BUILDING, ERROR, Namespace, State, Vm, entry, fail, invalid, nic, ok, text};

/// A launch that waits, with the configuration of the moment when it was queued.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub names: Vec<String>,
    pub config: BTreeMap<String, Vec<String>>,
    pub tags: BTreeMap<String, String>,
}

/// The answer to `ns queue` as it was recorded, of one launch.
fn recorded_queue() -> String {
    let row = include_str!("../data/exchanges.jsonl")
        .lines()
        .map(|row| serde_json::from_str::<Value>(row).expect("the recording is JSON"))
        .find(|row| row["request"].as_str().is_some_and(|request| request.contains("\"ns queue\"")))
        .expect("`ns queue` was recorded");
    let answer: Value = serde_json::from_str(row["responses"][0].as_str().expect("text")).expect("a response");
    answer["Resp"][0]["Response"].as_str().expect("text").to_owned()
}

impl State {
    pub(super) fn hosts(&self, ns: &Namespace) -> Vec<String> {
        let usual = || match self.mesh.is_empty() {
            true => ["vm".to_owned()].into_iter().chain(self.second_host.clone()).collect(),
            false => self.mesh.keys().cloned().collect(),
        };
        ns.hosts.clone().unwrap_or_else(usual)
    }

    pub(super) fn placement(&self, namespace: &str, ns: &mut Namespace, words: &[&str]) -> Vec<Value> {
        match words {
            ["hosts"] => text(&self.hosts(ns).join(",")),
            ["add-hosts", list] => {
                let mut hosts = self.hosts(ns);
                hosts.extend(names(list));
                hosts.sort();
                hosts.dedup();
                ns.hosts = Some(hosts);
                ok()
            }
            ["del-hosts", list] => {
                let gone = names(list);
                let left = self.hosts(ns).into_iter().filter(|host| *list != "all" && !gone.contains(host)).collect();
                ns.hosts = Some(left);
                ok()
            }
            ["load"] => text(ns.load.as_deref().unwrap_or("cpucommit")),
            ["load", load @ ("cpucommit" | "netcommit" | "memcommit")] => {
                ns.load = Some((*load).to_owned());
                ok()
            }
            ["queue"] => {
                let model = recorded_queue();
                let part = |waiting: &Waiting| {
                    let line = |line: &str| {
                        let filled = match line.split(':').next() {
                            Some("VMs") => format!("VMs: {}", waiting.names.len()),
                            Some("Names") => format!("Names: {}", waiting.names.join(",")),
                            Some("Tags") => format!("Tags:             {}", json!(waiting.tags)),
                            _ => line.to_owned(),
                        };
                        filled + "\n"
                    };
                    model.lines().map(line).collect::<String>()
                };
                text(&ns.queue.iter().map(part).collect::<String>())
            }
            ["flush"] => {
                ns.queue.clear();
                ok()
            }
            _ => invalid(namespace, &[&["ns"], words].concat()),
        }
    }

    /// Launch everything that is queued, or nothing.
    pub(super) fn schedule(&mut self, ns: &mut Namespace) -> Vec<Value> {
        let hosts = self.hosts(ns);
        if hosts.is_empty() {
            return fail("no hosts in namespace");
        }
        let queued: Vec<String> = ns.queue.iter().flat_map(|waiting| waiting.names.clone()).collect();
        let value =
            |config: &BTreeMap<String, Vec<String>>, field: &str| config.get(field).map(|value| value[0].clone());
        for waiting in &ns.queue {
            if let Some(host) = value(&waiting.config, "schedule").filter(|host| !hosts.contains(host)) {
                return fail(&format!("VM scheduled on unknown host: `{host}`"));
            }
            let beside = value(&waiting.config, "colocate");
            if let Some(other) = beside.filter(|other| !queued.contains(other) && !ns.vms.contains_key(other)) {
                return fail(&format!("VM colocated with unknown VM: `{other}`"));
            }
        }
        let mut places: BTreeMap<String, String> = ns.vms.iter().map(|(n, vm)| (n.clone(), vm.host.clone())).collect();
        for waiting in &ns.queue {
            let host = value(&waiting.config, "schedule");
            places.extend(waiting.names.iter().filter_map(|name| Some((name.clone(), host.clone()?))));
        }
        let mut free = 0;
        for Waiting { names, config, tags } in std::mem::take(&mut ns.queue) {
            for name in names {
                let beside = value(&config, "colocate").and_then(|other| places.get(&other).cloned());
                let host = places.get(&name).cloned().or(beside).unwrap_or_else(|| hosts[free % hosts.len()].clone());
                free += 1;
                places.insert(name.clone(), host.clone());
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
