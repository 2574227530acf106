//! Bridges, ways out, dnsmasq servers, mirrors, captures, pipes and pipelines, from the commands that make them.

use super::super::object::{called, name, usual_of_pipe};
use super::Space;
use crate::language::grammar::Args;
use crate::language::{program, range};
use crate::live::{Facts, gateway_key};
use crate::name::{BridgeName, Kind, Namespace, ObjectName};

fn set(facts: &mut Facts, key: &str, value: &str) {
    facts.insert(key.to_owned(), vec![value.to_owned()]);
}

impl Space {
    fn insert(&mut self, kind: Kind, key: &str, facts: Facts) {
        let of = self.objects.entry(kind).or_default();
        let name = name(kind, called(kind, key, &facts, &self.taps), of);
        self.made.push((kind, name.clone()));
        of.insert(name, facts);
    }

    fn forget(&mut self, kind: Kind, which: impl Fn(&Facts) -> bool) {
        if let Some(objects) = self.objects.get_mut(&kind) {
            objects.retain(|_, facts| !which(facts));
        }
    }

    /// `nat`, whose gateways are known by their VLANs.
    pub(super) fn nat(&mut self, args: &Args) {
        let bridge = args.str("bridge").and_then(super::bridge);
        if let (Some(vlan), Some(ip)) = (args.str("vlan"), args.str("ip")) {
            let mut facts = Facts::new();
            set(&mut facts, "vlan", vlan);
            set(&mut facts, "ip", ip);
            if let Some(bridge) = &bridge {
                set(&mut facts, "bridge", bridge);
            }
            self.insert(Kind::Nat, &gateway_key(vlan, bridge.as_deref()), facts);
        } else if let Some(vlan) = args.str("vlan or all") {
            let on = args.str("bridge");
            let usual = BridgeName::default_bridge();
            self.forget(Kind::Nat, |facts| {
                let bridge = facts.get("bridge").map_or(usual.as_str(), |bridge| bridge[0].as_str());
                (vlan == "all" || facts["vlan"][0] == vlan) && on.is_none_or(|on| on == bridge)
            });
        }
    }

    /// `ns`; false where it only shows something.
    pub(in super::super) fn placement(&mut self, args: &Args) -> Result<bool, String> {
        let list = args.str("hostname or range or all");
        let set = |key: &str, values: Vec<String>| Facts::from([(key.to_owned(), values)]);
        if let Some(list) = list {
            let names = range::expand(list).map_err(|error| error.to_string())?;
            let named = self.objects.entry(Kind::Placement).or_default();
            let mut hosts = named.get("hosts").map(|facts| facts["hosts"].clone()).unwrap_or_default();
            match (args.flag("add-hosts"), list) {
                (true, "all") => return Err("which hosts these are is not known".to_owned()),
                (false, "all") => {
                    hosts.clear();
                    self.hosts_known = true;
                }
                (true, _) => {
                    hosts.extend(
                        names.into_iter().filter(|name| !named.get("hosts").is_some_and(|f| f["hosts"].contains(name))),
                    );
                }
                (false, _) if hosts.is_empty() => return Err("which hosts are left is not known".to_owned()),
                (false, _) => hosts.retain(|host| !names.contains(host)),
            }
            if !std::mem::replace(&mut self.hosts_known, true) {
                self.remarks.push(
                    "`hosts` are those that the script adds: which ones a new namespace has already is not known"
                        .to_owned(),
                );
            }
            match hosts.is_empty() {
                true => drop(named.remove("hosts")),
                false => drop(named.insert("hosts".to_owned(), set("hosts", hosts))),
            }
        } else if let Some(load) = ["cpucommit", "netcommit", "memcommit"].into_iter().find(|load| args.flag(load)) {
            let named = self.objects.entry(Kind::Placement).or_default();
            named.insert("load".to_owned(), set("load", vec![load.to_owned()]));
        } else if let Some(on) = args.choice("true,false") {
            self.queueing = on == "true";
        } else if args.flag("flush") {
            self.queue.clear();
        } else if args.flag("schedule") && !["dry-run", "dump", "mv", "status"].iter().any(|word| args.flag(word)) {
            self.vms.append(&mut self.queue);
        } else {
            return Ok(false);
        }
        self.objects.retain(|_, named| !named.is_empty());
        Ok(true)
    }

    /// `plumb`.
    pub(super) fn plumb(&mut self, args: &Args) {
        let Some(source) = args.str("src") else { return };
        let elements = [&[source.to_owned()], args.list("dst")].concat();
        let key = elements.join(" ");
        self.insert(Kind::Plumbing, &key, Facts::from([("pipeline".to_owned(), elements)]));
    }

    /// `clear plumb`, which takes the elements, or the line that they make.
    pub(super) fn clear_plumb(&mut self, args: &Args) {
        let line = args.list("pipeline").join(" ");
        self.forget(Kind::Plumbing, |facts| line.is_empty() || facts["pipeline"].join(" ") == line);
    }

    /// A pipe of this namespace by the name that the file gives it.
    fn own_pipe(&self, name: &str) -> Result<String, String> {
        let short = match name.split_once("//") {
            Some((of, short)) if of == self.name => short,
            Some((of, _)) if Namespace::new(of).is_ok() => return Err(format!("the pipe is of the namespace {of}")),
            _ => name,
        };
        let name = ObjectName::new(short).map_err(|error| error.to_string())?;
        Ok(name.to_string())
    }

    /// `pipe`, whose settings are kept; a message is nothing that stays.
    pub(super) fn pipe(&mut self, args: &Args) -> Result<bool, String> {
        let Some(name) = args.str("pipe") else { return Ok(true) };
        let (key, value) = if args.flag("mode") {
            ("mode", args.choice("all,round-robin,random").unwrap_or_default().to_owned())
        } else if args.flag("log") {
            ("log", args.choice("true,false").unwrap_or_default().to_owned())
        } else if args.flag("via") {
            let words = match args.list("command") {
                [line] => program::split(line).map_err(|quote| format!("nothing closes the {quote} of `{line}`"))?,
                words => words.to_vec(),
            };
            ("via", program::join(&words))
        } else {
            return Err("a message is nothing that stays".to_owned());
        };
        let name = self.own_pipe(name)?;
        let of = self.objects.entry(Kind::Pipe).or_default();
        let facts = of.entry(name.to_owned()).or_default();
        if usual_of_pipe(key, &value) {
            facts.remove(key);
        } else {
            set(facts, key, &value);
        }
        Ok(true)
    }

    /// `clear pipe`, with which pipelines end too.
    pub(super) fn clear_pipe(&mut self, args: &Args) {
        let Some(name) = args.str("pipe") else {
            self.objects.remove(&Kind::Pipe);
            // One word is a pipe, but for programs without arguments.
            let may_be = |element: &String| !element.contains(char::is_whitespace);
            return self.forget(Kind::Plumbing, |facts| facts["pipeline"].iter().any(may_be));
        };
        let Ok(name) = self.own_pipe(name) else { return };
        let settings = ["mode", "log", "via"].into_iter().find(|key| args.flag(key));
        let of = self.objects.entry(Kind::Pipe).or_default();
        match settings {
            Some(key) => drop(of.get_mut(&name).map(|facts| facts.remove(key))),
            None => {
                of.remove(&name);
                let whole = format!("{}//{name}", self.name);
                self.forget(Kind::Plumbing, |facts| {
                    facts["pipeline"].iter().any(|element| *element == name || *element == whole)
                });
            }
        }
    }

    pub(super) fn mirror(&mut self, args: &Args) {
        let text = |key: &str| args.str(key).unwrap_or_default();
        let (from, to) = match args.str("vm2 name") {
            Some(vm2) => (
                format!("{}.{}", text("vm name"), text("interface index")),
                format!("{vm2}.{}", text("interface2 index")),
            ),
            None => (text("src name").to_owned(), text("dst name").to_owned()),
        };
        let mut facts = Facts::new();
        set(&mut facts, "from", &from);
        set(&mut facts, "to", &to);
        if let Some(bridge) = args.str("bridge") {
            set(&mut facts, "bridge", bridge);
        }
        self.insert(Kind::Mirror, &to, facts);
    }

    pub(super) fn clear_mirror(&mut self, args: &Args) {
        let to = match args.str("vm name") {
            Some(vm) => Some(format!("{vm}.{}", args.str("interface index or all").unwrap_or_default())),
            None => args.str("name").map(str::to_owned),
        };
        let nics = to.as_ref().and_then(|to| to.strip_suffix("all")).filter(|nics| nics.ends_with('.'));
        self.forget(Kind::Mirror, |facts| {
            let at = facts["to"][0].as_str();
            to.as_ref().is_none_or(|to| at == to) || nics.is_some_and(|nics| at.starts_with(nics))
        });
    }

    pub(super) fn clear_captures(&mut self, args: &Args) {
        let flows = |facts: &Facts| facts.get("type").is_some_and(|of| of[0] == "netflow");
        let (pcap, netflow): (&[&str], &[&str]) = (&["snaplen", "filter"], &["format", "gzip", "timeout"]);
        for (kind, settings) in [("pcap", pcap), ("netflow", netflow)] {
            if args.choice("netflow,pcap").is_none_or(|only| only == kind) {
                self.forget(Kind::Capture, |facts| flows(facts) == (kind == "netflow"));
                self.capturing.retain(|key, _| !settings.contains(&key.as_str()));
            }
        }
    }

    pub(super) fn capture(&mut self, args: &Args) {
        let text = |key: &str| args.str(key).map(str::to_owned);
        let kind = if args.flag("netflow") { "netflow" } else { "pcap" };
        for (key, argument) in [
            ("snaplen", "size"),
            ("filter", "bpf"),
            ("timeout", "timeout in seconds"),
            ("format", "raw,ascii"),
            ("gzip", "true,false"),
        ] {
            if let Some(value) = args.str(argument).or(args.choice(argument)) {
                self.capturing.insert(key.to_owned(), vec![value.to_owned()]);
            }
        }
        let (vm, bridge) = (text("vm name"), text("bridge"));
        if args.flag("delete") {
            self.forget(Kind::Capture, |facts| {
                let of = |key: &str| facts.get(key).map(|values| values[0].clone());
                match (&vm, &bridge) {
                    (Some(vm), _) => of("vm").is_some_and(|of| vm == "all" || of == *vm),
                    (None, Some(bridge)) => {
                        let netflow = of("type").as_deref() == Some("netflow");
                        netflow == (kind == "netflow")
                            && of("bridge").is_some_and(|of| bridge == "all" || of == *bridge)
                    }
                    (None, None) => false,
                }
            });
            return;
        }
        let to = text("hostname:port").map(|host| {
            format!(
                "{}://{host}",
                if args.flag("tcp") || args.choice("tcp,udp") == Some("tcp") { "tcp" } else { "udp" }
            )
        });
        let Some(key) = to.clone().or_else(|| text("filename")) else { return };
        let mut facts = Facts::new();
        if kind == "netflow" {
            set(&mut facts, "type", kind);
        }
        for (key, value) in [("vm", &vm), ("interface", &text("interface index")), ("bridge", &bridge), ("to", &to)] {
            if let Some(value) = value {
                set(&mut facts, key, value);
            }
        }
        if to.is_none() {
            set(&mut facts, "file", &key);
        }
        let settings: &[&str] = match (kind, &to) {
            ("pcap", _) => &["snaplen", "filter"],
            (_, Some(_)) => &["format", "timeout"],
            (_, None) => &["format", "gzip", "timeout"],
        };
        // What minimega begins with need not be said.
        let initial = [("snaplen", "1600"), ("filter", ""), ("gzip", "false")];
        let said = |(key, values): &(&String, &Vec<String>)| {
            settings.contains(&key.as_str()) && !initial.contains(&(key.as_str(), values[0].as_str()))
        };
        facts.extend(self.capturing.iter().filter(said).map(|(key, values)| (key.clone(), values.clone())));
        self.insert(Kind::Capture, &key, facts);
    }

    pub(super) fn bridge(&mut self, args: &Args) -> Result<(), String> {
        let text = |key: &str| args.str(key).unwrap_or_default();
        let bridge = text("bridge").to_owned();
        if bridge.is_empty() {
            return Ok(());
        }
        if args.flag("notunnel") {
            return Err("which tunnel has that interface is not known".to_owned());
        }
        let bridges = self.objects.entry(Kind::Bridge).or_default();
        if args.flag("destroy") {
            bridges.remove(&bridge);
            return Ok(());
        }
        let facts = bridges.entry(bridge).or_default();
        let interface = text("interface");
        let mut add = |key: &str, value: String| {
            let values = facts.entry(key.to_owned()).or_default();
            values.push(value);
            values.sort();
            values.dedup();
        };
        if args.flag("config") {
            text("config").split(' ').for_each(|setting| add("config", setting.to_owned()));
        } else if args.flag("trunk") {
            add("trunks", interface.to_owned());
        } else if args.flag("tunnel") {
            let kind = args.choice("vxlan,gre").unwrap_or(if args.flag("gre") { "gre" } else { "vxlan" });
            let parts = [kind, text("remote ip"), text("key")];
            add("tunnels", parts.join(" ").trim().to_owned());
        } else if args.flag("notrunk")
            && let Some(trunks) = facts.get_mut("trunks")
        {
            trunks.retain(|trunk| trunk != interface);
        }
        facts.retain(|_, values| !values.is_empty());
        Ok(())
    }

    pub(super) fn server(&mut self, args: &Args) -> Result<(), String> {
        let text = |key: &str| args.str(key).map(str::to_owned);
        let servers = self.objects.entry(Kind::Dnsmasq).or_default();
        if let (Some(address), Some(low), Some(high)) =
            (text("listen address"), text("low dhcp range"), text("high dhcp range"))
        {
            let name = format!("dnsmasq-{}", self.servers);
            self.servers += 1;
            let mut facts = Facts::from([("address".to_owned(), vec![address]), ("range".to_owned(), vec![low, high])]);
            facts.extend(text("config").map(|config| ("config".to_owned(), vec![config])));
            self.made.push((Kind::Dnsmasq, name.clone()));
            servers.insert(name, facts);
            return Ok(());
        }
        // A script counts from the first that it starts; the address that it listens on will do too.
        let is = |name: &str, facts: &Facts, id: &str| name == format!("dnsmasq-{id}") || facts["address"][0] == id;
        if args.str("config").is_some() {
            return Err("experiments have no server without an address".to_owned());
        }
        if let Some(which) = args.str("id or all") {
            servers.retain(|name, facts| which != "all" && !is(name, facts, which));
            return Ok(());
        }
        let Some(id) = args.str("ID") else { return Ok(()) };
        let Some((_, facts)) = servers.iter_mut().find(|(name, facts)| is(name, facts, id)) else {
            return Err(format!("there is no dnsmasq server {id}"));
        };
        let (key, value) = match (text("mac address"), text("hostname"), text("ip"), text("optionstring")) {
            (Some(mac), _, Some(ip), _) => ("leases", format!("{mac} {ip}")),
            (_, Some(name), Some(ip), _) => ("dns", format!("{ip} {name}")),
            (None, None, Some(ip), _) => ("upstream", ip),
            (.., Some(option)) => ("options", option),
            _ => return Ok(()),
        };
        let values = facts.entry(key.to_owned()).or_default();
        values.push(value);
        values.sort();
        values.dedup();
        Ok(())
    }
}
