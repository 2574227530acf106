//! The hosts and the queue of a namespace as a model in memory: what waits is launched as a whole, or not at all. Two scripted
//! peers include it; it shares no code with the program.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::network::{Answer, names};

/// By field of `vm config`: its values.
pub type Config = BTreeMap<String, Vec<String>>;

/// A launch that waits, with the configuration of the moment when it was queued.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub names: Vec<String>,
    pub config: Config,
    pub tags: BTreeMap<String, String>,
}

impl Waiting {
    fn value(&self, field: &str) -> Option<&String> {
        self.config.get(field).map(|values| &values[0]).filter(|value| !value.is_empty())
    }
}

/// What a namespace has of it.
pub struct Queue<'n> {
    pub queueing: &'n mut bool,
    /// None for those that a namespace has by itself.
    pub hosts: &'n mut Option<Vec<String>>,
    pub load: &'n mut Option<String>,
    pub queue: &'n mut Vec<Waiting>,
    /// The hosts that a namespace has by itself.
    pub usual: Vec<String>,
}

/// The answer to `ns queue` as it was recorded, of one launch.
fn recorded() -> &'static str {
    static RECORDED: OnceLock<String> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let row = include_str!("../data/exchanges.jsonl")
            .lines()
            .map(|row| serde_json::from_str::<Value>(row).expect("the recording is JSON"))
            .find(|row| row["request"].as_str().is_some_and(|request| request.contains("\"ns queue\"")))
            .expect("`ns queue` was recorded");
        let answer: Value = serde_json::from_str(row["responses"][0].as_str().expect("text")).expect("a response");
        answer["Resp"][0]["Response"].as_str().expect("text").to_owned()
    })
}

/// A launch as `ns queue` shows it.
fn shown(waiting: &Waiting) -> String {
    let line = |line: &str| {
        let filled = match line.split(':').next() {
            Some("VMs") => format!("VMs: {}", waiting.names.len()),
            Some("Names") => format!("Names: {}", waiting.names.join(",")),
            Some("Tags") => format!("Tags:             {}", json!(waiting.tags)),
            _ => line.to_owned(),
        };
        filled + "\n"
    };
    recorded().lines().map(line).collect()
}

impl Queue<'_> {
    pub fn hosts(&self) -> Vec<String> {
        self.hosts.clone().unwrap_or_else(|| self.usual.clone())
    }

    /// `ns` with these words; `known` tells which hosts there are.
    pub fn run(&mut self, words: &[&str], known: &dyn Fn(&str) -> bool) -> Answer {
        match words {
            ["queueing"] => return Answer::Text(self.queueing.to_string()),
            ["queueing", on] => *self.queueing = *on == "true",
            ["hosts"] => return Answer::Text(self.hosts().join(",")),
            ["add-hosts", list] => {
                let mut hosts = self.hosts();
                hosts.extend(names(list));
                if let Some(host) = hosts.iter().find(|host| !known(host)) {
                    return Answer::Fail(format!("no such host: {host}"));
                }
                hosts.sort();
                hosts.dedup();
                *self.hosts = Some(hosts);
            }
            ["del-hosts", list] => {
                let gone = names(list);
                let left = self.hosts().into_iter().filter(|host| *list != "all" && !gone.contains(host));
                *self.hosts = Some(left.collect());
            }
            ["load"] => return Answer::Text(self.load.as_deref().unwrap_or("cpucommit").to_owned()),
            ["load", load] => *self.load = Some((*load).to_owned()),
            ["queue"] => return Answer::Text(self.queue.iter().map(shown).collect()),
            ["flush"] => self.queue.clear(),
            other => panic!("no such form of ns: {other:?}"),
        }
        Answer::Ok
    }

    /// Queue a launch.
    pub fn add(&mut self, launch: Waiting, there: &dyn Fn(&str) -> bool) -> Result<(), String> {
        if let Some(taken) = launch.names.iter().find(|name| there(name)) {
            return Err(format!("vm already exists with name `{taken}`"));
        }
        if let Some(taken) = launch.names.iter().find(|name| self.queue.iter().any(|other| other.names.contains(name)))
        {
            return Err(format!("vm already queued with name `{taken}`"));
        }
        self.queue.push(launch);
        Ok(())
    }

    /// Take everything out that is queued, with the host of each VM; or say why nothing is. `places` are the hosts of the VMs that
    /// are there.
    pub fn schedule(&mut self, mut places: BTreeMap<String, String>) -> Result<Vec<(Waiting, Vec<String>)>, String> {
        let hosts = self.hosts();
        if self.queue.is_empty() {
            return Err("namespace must contain at least one queued VM to launch VMs".to_owned());
        }
        if hosts.is_empty() {
            return Err("no hosts in namespace".to_owned());
        }
        let queued: Vec<&String> = self.queue.iter().flat_map(|waiting| &waiting.names).collect();
        for waiting in &*self.queue {
            if let Some(host) = waiting.value("schedule").filter(|host| !hosts.contains(host)) {
                return Err(format!("VM scheduled on unknown host: `{host}`"));
            }
            let beside = waiting.value("colocate");
            if let Some(other) = beside.filter(|other| !queued.contains(other) && !places.contains_key(*other)) {
                return Err(format!("VM colocated with unknown VM: `{other}`"));
            }
        }
        for waiting in &*self.queue {
            let host = waiting.value("schedule");
            places.extend(waiting.names.iter().filter_map(|name| Some((name.clone(), host?.clone()))));
        }
        let (mut free, mut placed) = (0, Vec::new());
        for waiting in std::mem::take(self.queue) {
            let mut on = Vec::new();
            for name in &waiting.names {
                let beside = waiting.value("colocate").and_then(|other| places.get(other).cloned());
                let host = places.get(name).cloned().or(beside).unwrap_or_else(|| hosts[free % hosts.len()].clone());
                free += 1;
                places.insert(name.clone(), host.clone());
                on.push(host);
            }
            placed.push((waiting, on));
        }
        Ok(placed)
    }
}
