//! Every key of the experiment file, once: its name, what it takes, its default and what it means. The decoder's list of
//! valid keys, the JSON schema and the tables of `docs/experiment.md` come from here; the keys of a VM that set a
//! `vm config` field come from `language::field::FIELDS`.

use std::sync::LazyLock;

use serde_json::Value as Json;

use super::schema::shape;
use crate::language::field::{FIELDS, Field, FieldType, FieldValue, Initial};

/// One key of a map.
pub struct Key {
    /// The key as it is written; `-` may stand for `_`.
    pub name: &'static str,
    /// What it takes, in words.
    pub takes: &'static str,
    /// Its default, in words; empty where it is required.
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
    /// The JSON schema of its value, without the description.
    pub shape: fn() -> Json,
}

impl Key {
    /// Must it be given?
    pub fn required(&self) -> bool {
        self.default.is_empty()
    }
}

macro_rules! keys {
    ($(#[$doc:meta])* $table:ident: $($name:literal takes $takes:literal, default $default:literal, $shape:expr, $help:literal;)*) => {
        $(#[$doc])*
        pub static $table: &[Key] =
            &[$(Key { name: $name, takes: $takes, default: $default, help: $help, shape: $shape }),*];
    };
}

keys! {
    /// The file itself.
    EXPERIMENT:
    "experiment" takes "a name", default "", shape::experiment_name,
        "The experiment's name; it is the minimega namespace that everything is made in.";
    "variables" takes "a map of variables", default "none", shape::variables,
        "The variables of the file, which `--var`, `--var-file` and the environment set, or the `with` of an including file.";
    "locals" takes "a map of values", default "none", shape::anything_map,
        "Values by name for use in expressions as `local.NAME`. They may refer to variables, to each other and to included files, in any order.";
    "outputs" takes "a map of values", default "none", shape::outputs,
        "What `megaform output` shows, and what an including file reads as `module.NAME.OUTPUT`. An output with a `value` key is in its long form.";
    "include" takes "a file, or a list of files", default "none", shape::includes,
        "Other files of the same language whose entries belong to this one too.";
    "vlans" takes "a map of aliases", default "none", shape::vlans,
        "The VLANs of the experiment by alias. An alias without a tag is given a free one.";
    "vlan_range" takes "`\"300-400\"` or `[300, 400]`", default "minimega's own range", shape::vlan_range,
        "The tags, both ends included, from which aliases without a fixed tag are given one.";
    "vlan_blacklist" takes "a tag, a range such as `\"300-400\"`, or a list of them", default "none", shape::vlan_blacklist,
        "Tags that no alias without a fixed one is given, because somebody else uses them. They hold for every namespace of the target, and stay blacklisted when the experiment goes.";
    "placement" takes "a map", default "as the target has it", shape::placement,
        "Where VMs go, with the keys of a placement. What it does not say is left alone.";
    "profiles" takes "a map of profiles", default "none", shape::profiles,
        "Settings that VMs share. A profile takes every key of a VM but `count`, and may extend other profiles.";
    "vms" takes "a map of VMs", default "none", shape::vms,
        "The VMs by name. A name may have ranges: `web[0-2]` is web0, web1 and web2, `a[0-1,5]` is a0, a1 and a5.";
    "links" takes "a map of links", default "none", shape::links,
        "Links by name: two NICs on one VLAN, and what shapes the traffic between them in both directions.";
    "taps" takes "a map of taps", default "none", shape::taps,
        "Host taps by name: interfaces of the engine on a VLAN, for reaching guests from outside.";
    "nat" takes "a map of gateways", default "none: no VLAN has a way out", shape::nat,
        "Ways out by name: gateways through which the guests of a VLAN reach what the engine's host reaches, and nobody reaches them. megaform's engine only.";
    "bridges" takes "a map of bridges", default "none", shape::bridges,
        "Bridges by name: settings, trunks and tunnels. A bridge that is only named by NICs and taps needs no entry.";
    "dnsmasq" takes "a map of servers", default "none", shape::dnsmasq, "DHCP and DNS servers (dnsmasq) by name.";
    "mirrors" takes "a map of mirrors", default "none", shape::mirrors, "Mirrors by name: copies of what passes one interface go to another.";
    "captures" takes "a map of captures", default "none", shape::captures, "Captures by name: frames into pcap files, flow records into files or to collectors.";
    "pipes" takes "a map of pipes", default "none: pipes are as they are made", shape::pipes,
        "Named pipes: how each delivers its messages. What a pipeline calls by the name of one is that pipe.";
    "plumbing" takes "a map of pipelines", default "none", shape::plumbing,
        "Pipelines by name: pipes and programs of the engine that pass messages, lines of text, on to one another.";
    "commands" takes "a map of raw commands", default "none", shape::commands,
        "Raw commands by name, for what the other keys cannot say: lines that make something, and lines that take it back.";
}

keys! {
    /// One variable.
    VARIABLE:
    "type" takes "a type", default "`any`", shape::variable_type,
        "`string`, `number`, `integer`, `bool`, `ip`, `cidr`, `mac`, `list`, `map` or `any`; `list(TYPE)` and `map(TYPE)` say what is inside.";
    "default" takes "a fixed value", default "none: a value must be given", shape::anything,
        "The value where none is given.";
    "description" takes "text", default "none", shape::text, "What the variable is for.";
    "sensitive" takes "`true` or `false`", default "`false`", shape::truth,
        "Show `(sensitive)` in plans, messages and outputs wherever the value stands.";
    "min" takes "a number", default "no limit", shape::number, "The least value of a number.";
    "max" takes "a number", default "no limit", shape::number, "The greatest value of a number.";
    "pattern" takes "a regular expression, at most 1024 bytes", default "none", shape::text,
        "What the whole text must match; of a list or a map, each text in it.";
    "one_of" takes "a list of values", default "none", shape::anything_list, "The values that are allowed.";
    "validation" takes "a rule, or a list of rules", default "none", shape::validation, "Rules that are expressions.";
}

keys! {
    /// One rule of a variable.
    VALIDATION:
    "condition" takes "an expression", default "", shape::text, "What must be true, as in `\"{{ var.web_count % 2 == 0 }}\"`.";
    "error_message" takes "text", default "", shape::text, "What is said where it is not.";
}

keys! {
    /// One output in its long form.
    OUTPUT:
    "value" takes "a value", default "", shape::anything, "The value, usually an expression.";
    "description" takes "text", default "none", shape::text, "What it is.";
    "sensitive" takes "`true` or `false`", default "`true` if something sensitive went into it", shape::truth,
        "Hide the value unless `--reveal` is given.";
}

keys! {
    /// One included file in its long form.
    INCLUDE:
    "file" takes "a path", default "", shape::text, "The file, relative to the one that includes it.";
    "as" takes "a name", default "`prefix`, else the file's name", shape::text,
        "What expressions call its outputs: `module.NAME.OUTPUT`. `-` and `.` in the default are `_`.";
    "prefix" takes "text", default "none", shape::text,
        "What is put before every name that the file declares, and before its own references to them.";
    "with" takes "a map of values", default "none", shape::anything_map, "The values of the file's variables.";
    "when" takes "an expression or a truth value", default "`true`", shape::condition, "Include the file only if this is true.";
    "for_each" takes "a list, a map or an expression", default "once", shape::for_each,
        "Include it once for each element; `prefix` needs `{{ each.key }}` then, and `module.NAME` is a map of the copies by key.";
}

keys! {
    /// What every entry of a section takes beside its own keys.
    ENTRY:
    "when" takes "an expression or a truth value", default "`true`", shape::condition,
        "Leave the entry out unless this is true. Items of lists that are maps, such as NICs, take it too.";
    "for_each" takes "a list, a map or an expression", default "once", shape::for_each,
        "Repeat the entry, with `each.key`, `each.value` and `each.index`. Items of lists that are maps, such as NICs, take it too.";
    "count" takes "0 to 100000", default "once", shape::count,
        "Repeat the entry that many times, with `count.index`. A name without an expression gets the index behind it.";
}

keys! {
    /// One VLAN.
    VLAN:
    "tag" takes "1 to 4094", default "a free tag", shape::vlan_tag, "The 802.1Q tag of the VLAN.";
}

keys! {
    /// What a VM takes besides the `vm config` fields.
    VM_OWN:
    "profile" takes "a name or a list of names", default "none", shape::profile_names,
        "The profiles that this extends. Of several the later wins, key by key, and own keys win over all; `tags` are merged, every other key is replaced.";
    "type" takes "`kvm`", default "`kvm`", shape::vm_type, "The type of the VM.";
    "state" takes "`running` or `paused`", default "`running`", shape::state,
        "The state to bring the VM into: its guest runs, or it is launched and its guest does not run.";
    "depends_on" takes "a name, a name with ranges, or a list of them", default "none", shape::depends_on,
        "VMs that must be launched (and running, if they are to run) before this one.";
    "wait_for" takes "a map", default "running is enough", shape::wait_for,
        "What must be seen of the VM, once it runs, before what depends on it goes on, with the keys of a wait. It replaces that of a profile as a whole.";
    "lifecycle" takes "a map", default "nothing special", shape::lifecycle,
        "What a plan may do with the VM, with the keys of a lifecycle. It replaces that of a profile as a whole.";
    "bonds" takes "a list of bonds", default "none", shape::bonds,
        "What makes one port of several of its NICs. Open vSwitch only. They replace those of a profile as a whole.";
    "usb_disks" takes "a list of USB disks", default "none", shape::usb_disks,
        "Disks on its USB bus, added before its guest starts, and added and removed while it runs. Each is a path, or a map with the keys of a USB disk. They replace those of a profile as a whole.";
    "count" takes "0 to 100000", default "one VM with the name as it is", shape::count,
        "How many VMs the entry stands for: NAME0, NAME1 and so on up to NAME(count - 1). Not together with a range in the name, and not in a profile.";
}

keys! {
    /// One NIC in its long form.
    NIC:
    "vlan" takes "an alias or a tag", default "", shape::vlan_ref, "The NIC's VLAN: an alias of `vlans`, a tag from 1 to 4094, or 0 for what has no tag.";
    "mac" takes "six hexadecimal pairs", default "assigned at launch", shape::mac,
        "The NIC's address, unicast, as in `\"52:54:00:00:00:01\"`. Only for an entry that stands for one VM.";
    "driver" takes "a NIC model of QEMU", default "`e1000`", shape::driver, "The NIC's model, such as `virtio-net-pci`.";
    "bridge" takes "a name", default "`mega_bridge`", shape::bridge_name, "The bridge that the NIC is on, at most 15 characters.";
    "connected" takes "`true` or `false`", default "`true`", shape::truth,
        "Whether it is plugged in. A NIC with `false` is disconnected before the guest starts.";
    "qos" takes "a map", default "not shaped", shape::qos,
        "What shapes the NIC's traffic toward the VM, with the keys of a qos.";
}

keys! {
    /// One bond.
    BOND:
    "nics" takes "a list of indexes", default "", shape::bond_nics,
        "The NICs, at least two, as they stand in `networks`, counted from 0. They are plugged in, on one VLAN of one bridge.";
    "mode" takes "`active-backup`, `balance-slb` or `balance-tcp`", default "", shape::bond_mode,
        "One NIC at a time, traffic spread by source address and VLAN, or by connection, which needs `lacp`.";
    "lacp" takes "`active`, `passive` or `off`", default "`off`", shape::bond_lacp,
        "The switch's part in LACP: it begins, answers only, or takes no part.";
    "fallback" takes "`true` or `false`", default "`true`", shape::truth,
        "With LACP: work as active-backup while the guest does not negotiate. With `false` the bond carries nothing then.";
    "qinq" takes "`true` or `false`", default "`false`", shape::truth,
        "Keep the guest's own VLAN tags, and add the NICs' VLAN as the outer one (802.1ad).";
    "name" takes "a name", default "made from the experiment, the VM and the place in the list", shape::bond_name,
        "The bond's name on the switch, at most 15 characters, which no other of the host has. Only for an entry that stands for one VM.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// What shapes the traffic of a NIC, or of a link.
    QOS:
    "rate" takes "a rate, as in `10 mbit`", default "not limited", shape::rate,
        "The highest rate, 1 kbit to 1000 gbit per second, in units of 1000 bits: kbit, mbit, gbit.";
    "delay" takes "a time, as in `20 ms`", default "none", shape::time, "How long each packet is held, 1 us to 60 s.";
    "jitter" takes "a time, as in `5 ms`", default "none", shape::time,
        "By how much the delay varies either way, at most the delay. megaform's engine only; minimega has no jitter.";
    "loss" takes "a percentage, 0.001 to 99.9", default "none", shape::loss, "How many packets are dropped at random, in percent.";
}

keys! {
    /// One link.
    LINK:
    "ends" takes "a list of two NICs", default "", shape::link_ends,
        "The NICs at both ends as VM and index, such as `[web.0, db.1]`. Both are on one VLAN.";
    "rate" takes "a rate, as in `10 mbit`", default "not limited", shape::rate, "The highest rate in each direction.";
    "delay" takes "a time, as in `20 ms`", default "none", shape::time,
        "How long each packet is held, in each direction: a round trip takes twice as long.";
    "jitter" takes "a time, as in `5 ms`", default "none", shape::time, "By how much the delay varies either way, in each direction.";
    "loss" takes "a percentage, 0.001 to 99.9", default "none", shape::loss, "How many packets are dropped in each direction, in percent.";
    "up" takes "a map", default "as the link", shape::qos,
        "What differs from the first end to the second, with the keys of a qos.";
    "down" takes "a map", default "as the link", shape::qos,
        "What differs from the second end to the first, with the keys of a qos.";
}

keys! {
    /// One USB disk in its long form.
    USB_DISK:
    "path" takes "a path", default "", shape::path, "The image, which a VM has once.";
    "version" takes "`1.1` or `2.0`", default "the target's choice; `2.0` with megaform's engine", shape::usb_version,
        "The USB bus that it is on.";
    "serial" takes "text", default "the target's choice", shape::serial, "Its serial number, by which a guest can tell it.";
}

keys! {
    /// One disk in its long form.
    DISK:
    "path" takes "a path", default "", shape::path, "The image.";
    "interface" takes "a disk interface", default "`ide`", shape::disk_interface, "How the guest sees the disk.";
    "cache" takes "a cache mode", default "QEMU's own choice", shape::disk_cache, "QEMU's cache mode.";
}

keys! {
    /// One replacement in QEMU's command line.
    OVERRIDE:
    "match" takes "text", default "", shape::nonempty, "What is replaced.";
    "replacement" takes "text", default "", shape::text, "What stands there instead; empty text takes it out.";
}

keys! {
    /// One host tap.
    TAP:
    "vlan" takes "an alias or a tag", default "", shape::vlan_ref, "The tap's VLAN: an alias of `vlans`, a tag from 1 to 4094, or 0 for what has no tag.";
    "ip" takes "an address with prefix length", default "no address", shape::ip,
        "The address of the engine on the VLAN, IPv4 or IPv6, as in `10.0.0.254/24`.";
    "dhcp" takes "`true` or `false`", default "`false`", shape::truth,
        "Ask for the address by DHCP on the VLAN, instead of `ip`.";
    "bridge" takes "a name", default "`mega_bridge`", shape::bridge_name, "The bridge that the tap is on, at most 15 characters.";
    "lifecycle" takes "a map", default "nothing special", shape::tap_lifecycle,
        "What a plan may do with the tap: `prevent_destroy` and `ignore_changes` of a lifecycle, for the fields `vlan`, `ip` and `bridge`.";
}

keys! {
    /// One way out.
    NAT:
    "vlan" takes "an alias or a tag", default "", shape::vlan_ref, "The VLAN that gets a way out: an alias of `vlans`, a tag from 1 to 4094, or 0 for what has no tag.";
    "ip" takes "an IPv4 address with prefix length", default "", shape::ip,
        "The gateway's address on the VLAN, as in `10.0.0.254/24`. Guests use it as their router; nothing else on the VLAN has it.";
    "bridge" takes "a name", default "`mega_bridge`", shape::bridge_name, "The bridge that the VLAN is on, at most 15 characters.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// One named pipe.
    PIPE:
    "mode" takes "`all`, `round-robin` or `random`", default "`all`", shape::pipe_mode,
        "Who gets a message: every reader, one reader, each in its turn, or one by chance.";
    "log" takes "`true` or `false`", default "`false`", shape::truth, "Write each message to the log of the engine's daemon too.";
    "via" takes "a program with its arguments", default "none", shape::nonempty,
        "A program of the engine's host that every message passes, started anew for each message and each reader. Blanks separate its words, and quotes keep them together.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// One pipeline.
    PLUMBING:
    "pipeline" takes "a list of pipes and programs", default "", shape::elements,
        "Two or more elements, from the source on. One whose first word is a program of the engine's host is that program with its arguments; any other is the name of a pipe. What `pipes` declares is always that pipe, and so is `NAMESPACE//NAME`.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// Where VMs go.
    PLACEMENT:
    "hosts" takes "a host, a range such as `node[1-4]`, or a list of them", default "left alone", shape::hosts,
        "The hosts of the namespace, all of them: VMs go to these. `localhost` is the host of the daemon that is told.";
    "load" takes "`cpucommit`, `netcommit` or `memcommit`", default "left alone", shape::load,
        "The figure by which the least loaded host is found: virtual CPUs by CPUs, NICs, or memory of VMs by memory.";
    "queueing" takes "`true` or `false`", default "`false`", shape::truth,
        "Launch through the queue of the namespace: the scheduler sees all VMs that launch at a time before it places any, and launches all of them or none.";
}

keys! {
    /// One bridge.
    BRIDGE:
    "config" takes "a map", default "none", shape::bridge_config,
        "Settings of the switch, as `bridge config` takes them: `{ fail_mode: secure }`. What leaves the file stays set.";
    "trunks" takes "an interface or a list of them", default "none", shape::words,
        "Interfaces that carry every VLAN of the bridge, tagged: those of the engine's network, and physical ones of the host, which are moved into the engine's network and given back as they were.";
    "tunnels" takes "a tunnel or a list of them", default "none", shape::tunnels,
        "Tunnels to other bridges that carry every VLAN: maps with the keys of a tunnel, or text such as `vxlan 10.0.0.2 7`.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// One tunnel.
    TUNNEL:
    "type" takes "`vxlan` or `gre`", default "", shape::tunnel_type, "The protocol.";
    "remote" takes "an address", default "", shape::address, "The address of the other end.";
    "key" takes "0 to 16777215, of gre to 4294967295", default "none", shape::tunnel_key,
        "The VXLAN network identifier or GRE key, which tells tunnels between the same ends apart.";
}

keys! {
    /// One dnsmasq server.
    DNSMASQ:
    "address" takes "an address", default "", shape::address,
        "The IPv4 address that it listens on: that of a tap of the file.";
    "range" takes "a list of two addresses", default "", shape::address_pair,
        "The first and the last address that it gives out, in the subnet of the tap.";
    "leases" takes "a lease or a list of them", default "none", shape::leases,
        "Fixed addresses: maps with the keys of a lease, or text such as `web.0 10.0.0.10`.";
    "dns" takes "a name or a list of them", default "none", shape::dns,
        "Names that it answers: maps with `ip` and `name`, or text such as `10.0.0.10 web.lab`.";
    "upstream" takes "an address or a list of them", default "none", shape::words, "The servers that are asked for other names.";
    "options" takes "text or a list of it", default "none", shape::words,
        "DHCP options as dnsmasq's `--dhcp-option` takes them, such as `option:router,10.0.0.254`.";
    "config" takes "a path", default "none", shape::path, "The full path of a further configuration file for dnsmasq on the engine's host.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// One lease.
    LEASE:
    "mac" takes "six hexadecimal pairs", default "that of the VM's NIC", shape::mac, "The address of the NIC that gets it.";
    "vm" takes "a name", default "none", shape::vm_names,
        "Instead of `mac`: the VM that gets it. A NIC without a fixed address is then launched with one that depends on its name.";
    "interface" takes "0 to 255", default "`0`", shape::nic_index, "The index of the VM's NIC.";
    "ip" takes "an address", default "", shape::address, "The address that it gets.";
}

keys! {
    /// One name of a DNS server.
    DNS:
    "ip" takes "an address", default "", shape::address, "The address.";
    "name" takes "a host name", default "", shape::text, "The name.";
}

keys! {
    /// One mirror.
    MIRROR:
    "from" takes "a NIC or a tap", default "", shape::mirror_end, "What is watched: a NIC of a VM such as `web.0`, or a tap.";
    "to" takes "a NIC or a tap", default "", shape::mirror_end,
        "What gets a copy of each frame: a NIC of a VM or a tap, as `from` is one. It takes part in nothing else then.";
    "bridge" takes "a name", default "`mega_bridge`", shape::bridge_name, "The bridge of two taps.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// One capture.
    CAPTURE:
    "type" takes "`pcap` or `netflow`", default "`pcap`", shape::capture_type,
        "Frames in a pcap file, or flow records of a bridge (netflow).";
    "vm" takes "a name", default "none", shape::vm_names,
        "The VM whose NIC is captured, from before its guest's first frame. One of `vm` and `bridge` is given.";
    "interface" takes "0 to 255", default "`0`", shape::nic_index, "The index of the VM's NIC.";
    "bridge" takes "a name", default "none", shape::bridge_name,
        "The bridge that is captured, with the traffic of all namespaces on it.";
    "file" takes "a path", default "none", shape::path,
        "The file on the engine's host; a relative path is in the engine's files folder. It is written anew whenever the capture starts.";
    "to" takes "`udp://HOST:PORT` or `tcp://HOST:PORT`", default "none", shape::capture_to,
        "Instead of `file`: where flow records are sent.";
    "snaplen" takes "1 to 262144", default "the namespace's setting", shape::snaplen, "How many bytes of each frame are kept (pcap).";
    "filter" takes "text", default "the namespace's setting", shape::text, "Which frames are kept, in the language of pcap-filter(7).";
    "format" takes "`raw` or `ascii`", default "the namespace's setting", shape::capture_format, "How flow records are written.";
    "gzip" takes "`true` or `false`", default "the namespace's setting", shape::truth, "Compress a file of flow records.";
    "timeout" takes "1 to 3600", default "the namespace's setting", shape::flow_timeout,
        "After how many seconds an active flow is recorded. One for all bridges.";
    "lifecycle" takes "a map", default "nothing special", shape::object_lifecycle,
        "What a plan may do with it: `prevent_destroy` and `ignore_changes` of a lifecycle, for the keys here.";
}

keys! {
    /// What a plan may do with an object that is a set of settings.
    OBJECT_LIFECYCLE:
    "prevent_destroy" takes "`true` or `false`", default "`false`", shape::truth,
        "Refuse every plan that removes the object, even to make it again.";
    "ignore_changes" takes "a key or a list of keys", default "none", shape::words,
        "Keys whose differences are left alone. A new object is made as the file says.";
}

keys! {
    /// One entry of raw commands.
    COMMAND:
    "create" takes "a line or a list of lines", default "", shape::lines,
        "The commands that make it, run in order in the experiment's namespace, once for each content of `create` and `destroy`.";
    "destroy" takes "a line or a list of lines", default "nothing is taken back", shape::lines,
        "The commands that take it back, in order: when the entry leaves the file, when its content changes, and when the experiment is destroyed.";
    "check" takes "a line", default "not checked", shape::line,
        "A command that changes nothing. Where it answers with an error, what `create` made is gone, and `create` is run again.";
    "depends_on" takes "a name, a name with ranges, or a list of them", default "none", shape::depends_on,
        "VMs that must be launched (and running, if they are to run) before. When one of them is launched anew, `create` is run again.";
}

keys! {
    /// What must be seen of a VM.
    WAIT_FOR:
    "ping" takes "an address", default "not pinged", shape::address,
        "This address answers a ping, sent by the target's `shell` (megaform's engine: in the engine's network, so it takes a tap on that VLAN).";
    "port" takes "`ADDRESS:PORT`", default "no port", shape::socket_address,
        "This TCP port accepts a connection, asked in the same way.";
    "cc" takes "`true` or `false`", default "`false`", shape::truth,
        "The agent in the guest is connected (`cc_active` of `vm info`).";
    "command" takes "a line", default "none", shape::line,
        "A command that changes nothing, run in the experiment's namespace, answers without an error: whatever else tells that the guest is ready.";
    "serial" takes "text, a map, or a list of them", default "none", shape::serial_texts,
        "The guest has written this text on a serial port since its VM was launched, or started after it had ended: text for port 0, or maps with the keys of a text on a serial port. Of a list, all. The VM needs `serial_ports`, and the target megaform's engine.";
    "timeout" takes "seconds, or text with units", default "`2m`", shape::wait_timeout,
        "How long each of these may take, from 1 second to 1 day, as in `90`, `\"90s\"` or `\"5m\"`. What depends on the VM is skipped then, and apply ends with 4.";
}

keys! {
    /// What a guest writes on a serial port.
    SERIAL:
    "port" takes "0 to 255", default "`0`", shape::serial_port, "The port; 0 is ttyS0 of a Linux guest.";
    "text" takes "text, at most 1024 bytes", default "none", shape::nonempty,
        "The text, anywhere in what was written; upper and lower case differ. One of `text` and `pattern` is given.";
    "pattern" takes "a regular expression, at most 1024 bytes", default "none", shape::nonempty,
        "Instead of `text`: what is to match, in the syntax of the Rust crate regex. `^` and `$` are the ends of a line, `(?i)` at the beginning ignores case.";
}

keys! {
    /// What a plan may do with a VM.
    LIFECYCLE:
    "prevent_destroy" takes "`true` or `false`", default "`false`", shape::truth,
        "Refuse every plan that removes the object, even to make it again. A VM in the state error may be launched again.";
    "ignore_changes" takes "a field or a list of fields", default "none", shape::fields,
        "Fields whose differences are left alone: a key such as `memory`, `networks[0]`, or `tags.KEY`. A new VM is made as the file says.";
    "renamed_from" takes "a name, with ranges as the entry's own", default "not renamed", shape::vm_names,
        "The name that the VM had before. minimega cannot rename a VM, so the old one is removed and the new one made, as one change. Not in a profile.";
}

keys! {
    /// What a plan may do with a tap.
    TAP_LIFECYCLE:
    "prevent_destroy" takes "`true` or `false`", default "`false`", shape::truth,
        "Refuse every plan that removes the tap, even to make it again.";
    "ignore_changes" takes "`vlan`, `ip`, `bridge` or a list of them", default "none", shape::tap_fields,
        "Fields whose differences are left alone. A new tap is made as the file says.";
}

/// What a key of a VM or profile is.
pub enum VmKey {
    /// One of [`VM_OWN`].
    Own(&'static Key),
    /// A `vm config` field.
    Field(&'static Field),
}

/// Every key of a VM, own keys first, with the name it has in the file.
pub static VM: LazyLock<Vec<(&'static str, VmKey)>> = LazyLock::new(|| {
    let own = VM_OWN.iter().map(|key| (key.name, VmKey::Own(key)));
    // The table is made once and lives as long as the program.
    let fields = FIELDS.iter().filter(|field| field.in_file()).map(|field| (&*field.key().leak(), VmKey::Field(field)));
    own.chain(fields).collect()
});

/// The names of a table's keys.
pub fn names(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().map(|key| key.name).collect()
}

/// What a field takes, in words.
pub fn takes(field: &Field) -> String {
    match field.ty {
        // The long forms of these stand in the file only.
        _ if field.name == "memory" => "megabytes, or text with a unit: 256, \"512 MiB\", \"2G\"".to_owned(),
        FieldType::Uint { min, max } => format!("{min} to {max}"),
        FieldType::Int { min, max } => format!("{min} to {max}"),
        FieldType::Bool => "`true` or `false`".to_owned(),
        FieldType::Text => "text".to_owned(),
        FieldType::Path => "a path".to_owned(),
        FieldType::Words => "a list of words, or text that is split at blanks".to_owned(),
        FieldType::Networks => "a list of NICs".to_owned(),
        FieldType::Overrides => "a list of overrides".to_owned(),
        FieldType::Volumes | FieldType::Bonds => unreachable!("`{}` is no key of the file", field.name),
        FieldType::Disks => "a list of disks".to_owned(),
        FieldType::Tags => "a map".to_owned(),
        FieldType::Uuid => "a UUID".to_owned(),
    }
}

/// A field's default, in words.
pub fn default(field: &Field) -> String {
    match (field.default, field.default_value()) {
        (Initial::Empty, FieldValue::Text(_)) => "not set".to_owned(),
        (Initial::Empty, _) => "none".to_owned(),
        (_, value) => match field.unit {
            Some(unit) => format!("`{value}` {unit}"),
            None => format!("`{value}`"),
        },
    }
}

/// The tables of all keys in Markdown, as `docs/experiment.md` holds them.
pub fn reference() -> String {
    let mut text = String::new();
    let mut table = |title: &str, rows: Vec<[String; 4]>| {
        text.push_str(&format!("### {title}\n\n| Key | Takes | Default | Meaning |\n|---|---|---|---|\n"));
        for [name, takes, default, help] in rows {
            text.push_str(&format!("| `{name}` | {takes} | {default} | {help} |\n"));
        }
        text.push('\n');
    };
    let row = |key: &Key| {
        let default = if key.required() { "required" } else { key.default };
        [key.name, key.takes, default, key.help].map(str::to_owned)
    };
    let rows = |keys: &[Key]| keys.iter().map(row).collect::<Vec<_>>();
    table("The file", rows(EXPERIMENT));
    table("Any entry of a section such as `vms`", rows(ENTRY));
    table("A VLAN (`vlans`)", rows(VLAN));
    table("A placement (`placement`)", rows(PLACEMENT));
    table(
        "A VM (`vms`) or profile (`profiles`)",
        VM.iter()
            .map(|(name, key)| match key {
                VmKey::Own(key) => row(key),
                VmKey::Field(field) => [(*name).to_owned(), takes(field), default(field), help(field)],
            })
            .collect(),
    );
    table("A NIC (`networks`)", rows(NIC));
    table("A bond (`bonds`)", rows(BOND));
    table("A qos (`qos` of a NIC)", rows(QOS));
    table("A link (`links`)", rows(LINK));
    table("A disk (`disks`)", rows(DISK));
    table("A USB disk (`usb_disks`)", rows(USB_DISK));
    table("An override (`qemu_override`)", rows(OVERRIDE));
    table("A tap (`taps`)", rows(TAP));
    table("A way out (`nat`)", rows(NAT));
    table("A bridge (`bridges`)", rows(BRIDGE));
    table("A tunnel (`tunnels` of a bridge)", rows(TUNNEL));
    table("A DHCP and DNS server (`dnsmasq`)", rows(DNSMASQ));
    table("A lease (`leases` of a server)", rows(LEASE));
    table("A name (`dns` of a server)", rows(DNS));
    table("A mirror (`mirrors`)", rows(MIRROR));
    table("A capture (`captures`)", rows(CAPTURE));
    table("A pipe (`pipes`)", rows(PIPE));
    table("A pipeline (`plumbing`)", rows(PLUMBING));
    table("A wait (`wait_for`)", rows(WAIT_FOR));
    table("A text on a serial port (`serial` of a wait)", rows(SERIAL));
    table("A lifecycle (`lifecycle`)", rows(LIFECYCLE));
    table("Raw commands (`commands`)", rows(COMMAND));
    table("A variable (`variables`)", rows(VARIABLE));
    table("A rule of a variable (`validation`)", rows(VALIDATION));
    table("An output in its long form (`outputs`)", rows(OUTPUT));
    table("An included file in its long form (`include`)", rows(INCLUDE));
    text.push_str("### Functions of expressions\n\n| Function | Gives |\n|---|---|\n");
    for (function, help) in super::compose::REFERENCE {
        text.push_str(&format!("| `{function}` | {help} |\n"));
    }
    text
}

/// What a field means in the file. The help of `vm config` speaks of netspecs and diskspecs, which have a longer form here.
pub fn help(field: &Field) -> String {
    match field.ty {
        FieldType::Networks => {
            "The VM's NICs in order. Each is a VLAN alias, a VLAN tag, or a map with the keys of a NIC.".to_owned()
        }
        FieldType::Disks => format!("{} In the long form each is a map with the keys of a disk.", field.help),
        FieldType::Overrides => format!("{} Each is a map with the keys of an override.", field.help),
        FieldType::Tags => {
            "Key and value pairs that the VM is launched with. Keys that begin with `megaform.` are megaform's own."
                .to_owned()
        }
        _ => field.help.to_owned(),
    }
}
