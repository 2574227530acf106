//! What each diagnostic's code means: `megaform explain CODE` and `docs/diagnostics.md` come from this table.
//!
//! Must not find anything itself; a test checks that every code in the sources is here.

use super::Severity;

/// One code.
#[derive(Debug)]
pub struct Code {
    /// The code, as a diagnostic shows it in brackets.
    pub code: &'static str,
    /// What a diagnostic with it is.
    pub severity: Severity,
    /// One line.
    pub title: &'static str,
    /// Why it is so, what happens otherwise, and what to do. Plain text; lines that begin with four blanks are examples.
    pub text: &'static str,
}

macro_rules! codes {
    ($($code:literal $severity:ident $title:literal: $text:literal;)*) => {
        /// Every code, sorted.
        pub static CODES: &[Code] =
            &[$(Code { code: $code, severity: Severity::$severity, title: $title, text: $text }),*];
    };
}

codes! {
    "alias" Error "a YAML alias without its anchor":
        "An alias (`*name`) stands for the value that an anchor (`&name`) marks earlier in the same file. This one has no \
         anchor before it, or stands inside its own.\n\n    base: &base { memory: 256 }\n    other: *base";
    "alias-limit" Error "YAML aliases that expand too far":
        "Aliases of aliases grow exponentially, which is how a small file fills the memory of whoever reads it. The limit \
         on values after expansion is in docs/experiment.md. Write the repeated part as a profile.";
    "ambiguous-netspec" Error "a NIC that minimega would read differently":
        "minimega takes a NIC as one word, `bridge,vlan,mac,driver`, and guesses what each part is. A VLAN or bridge that is \
         called like a NIC model, like a MAC address or `qinq` would be taken for that. Rename it.";
    "bond-in-the-way" Error "a bond of somebody else that has NICs of the experiment":
        "A NIC is in one bond, and does not move while it is in it. A bond that was made by hand, under a name that the file does not have, \
         is not dissolved by a plan. Dissolve it by hand, or declare it.";
    "bond-lacp" Error "a setting of a bond that needs LACP":
        "balance-tcp spreads connections over links that both ends have agreed on, and `fallback` says what happens while the \
         guest does not negotiate. Both mean something with LACP only.\n\n    bonds: [{ nics: [0, 1], mode: balance-tcp, lacp: active }]";
    "bond-left-out" Error "a NIC that is to move while its bond is left out":
        "A NIC in a bond stays where the bond is. The plan is limited to objects without the bond, so that it could not be \
         dissolved and made again. Add the bond to them.";
    "bond-nics" Error "NICs that cannot be one port":
        "A bond makes one port of a switch of at least two NICs of one VM. They are plugged in, on one VLAN of one bridge, and \
         each NIC is in one bond.\n\n    networks: [lan, lan]\n    bonds: [{ nics: [0, 1], mode: active-backup }]";
    "cannot-quote" Error "a value that the command language cannot carry":
        "Commands are lines of words; a NUL, or a mix of quotes that no quoting carries, cannot be sent. Write the value \
         without it.";
    "cannot-replace" Error "an object that cannot be made anew":
        "`--replace` names a VLAN alias. What is on it would lose its network, and the new one would be the same: give the alias another \
         tag in the file.";
    "capture-left-out" Error "a capture that is left out and would be stopped along":
        "minimega stops all captures of a VM, or of a bridge, by one command. One of them is to change, and another one was left out by \
         `--exclude`: it would end, and its file begin anew. Leave both out, or neither.";
    "capture-shared" Error "a capture of somebody else that would be stopped along":
        "minimega stops all captures of a VM, or of a bridge, by one command. Captures of the experiment that are stopped along are started again; one that it does not know is not, so the plan is refused. Stop it by hand first.";
    "colocate-apart" Error "VMs that are to be together and apart":
        "`colocate` puts a VM on the host of another one, over any number of steps, and `schedule` names the host of each. These name different hosts. Take one of them away.";
    "colocate-order" Error "a VM beside one that is launched after it":
        "The scheduler puts a VM on the host of another one that is launched already, or together with it. Where VMs are launched one after the other, because one depends on the other or because launches are not queued, the later one names the earlier one. With `queueing: true` of `placement`, VMs that do not depend on each other are launched together, and may name each other.";
    "command-too-long" Error "a command that is longer than a line may be":
        "A line of the command language has at most 64 KiB. Shorten the value, or give the guest a file instead.";
    "coschedule-limit" Error "more VMs on one host than one of them allows":
        "`coschedule` is the number of other VMs that may be on the host of a VM. `schedule`, `colocate` or a single host put more there, so the launch would be refused. Raise the limit, or let VMs go elsewhere.";
    "cpu-topology" Error "virtual CPUs that do not fill their sockets, cores and threads":
        "QEMU starts only if vcpus equals sockets x cores x threads; parts that are not given are computed, so vcpus must be \
         a multiple of those that are.\n\n    vcpus: 4\n    sockets: 1\n    cores: 4    # threads is 1 then";
    "dependency-cycle" Error "things that need each other":
        "`depends_on` says what must be there first. Here a chain of it comes back to its beginning, so nothing could be \
         first. The message shows the whole chain; remove one link.";
    "dnsmasq-tap" Error "a DHCP and DNS server on an address that nothing has":
        "A dnsmasq server listens on an address of the engine on a VLAN, which a tap has.\n\n    taps: { gateway: { vlan: lan, ip: 10.0.0.1/24 } }\n    dnsmasq: { lan: { address: 10.0.0.1, range: [10.0.0.10, 10.0.0.99] } }";
    "duplicate-bond" Error "two interfaces of the host of one name":
        "The bonds and taps of a host share their names, whatever experiment they are of. Rename one, or leave `name` out: a \
         bond is then given one that no other experiment has.";
    "duplicate-file" Error "two captures into one file":
        "Each capture writes a file from its beginning, so two would destroy each other's. Give each its own.";
    "duplicate-ip" Error "an address given twice":
        "Two taps, or a tap and a gateway (`nat`) on its VLAN, would have the same address, and answers would go to either; or a DHCP server would give the address of a gateway or of a tap to a guest. Give each its own.";
    "duplicate-item" Error "an item given twice in a list":
        "The order of this list says nothing, and each item counts once. Remove one of the two.";
    "duplicate-key" Error "a key given twice in one map":
        "YAML and TOML both forbid it, because readers differ in which of the two counts. Remove one.";
    "duplicate-lease" Error "two leases of one NIC or one address":
        "A DHCP server gives a NIC one fixed address, and an address to one NIC. Keep one of the two.";
    "duplicate-mac" Error "a MAC address given twice":
        "Two NICs with one MAC address on a VLAN take each other's frames. Leave `mac` out to have a stable one assigned.";
    "duplicate-mirror" Error "two mirrors to one destination":
        "A mirror is known by its destination, which gets the frames of one source. Use another tap or NIC for the second.";
    "duplicate-name" Error "two entries of one name":
        "Names of VMs, VLANs, profiles and taps are given once, after `for_each`, `count` and `include` are expanded. The message shows both places, and for which elements. A repeated entry needs `{{ each.key }}` or `{{ count.index }}` in its name, a file that is included twice a `prefix`.";
    "duplicate-nat" Error "two ways out of one VLAN":
        "A way out is a gateway on a VLAN of a bridge, and is known by the VLAN. Give each VLAN one. Guests of two subnets on one VLAN need a router of their own.";
    "duplicate-pipeline" Error "a pipeline given twice":
        "A pipeline is known by its elements, and an engine refuses the same a second time. Remove one. In a file that is included twice, declare its pipes in `pipes`, so that each copy gets its own by the prefix.";
    "duplicate-tag" Error "a VLAN tag given twice":
        "Two aliases with the same tag are one broadcast domain under two names. Use one alias, or another tag.";
    "duplicate-trunk" Error "an interface that is a trunk of two bridges":
        "An interface is a port of one bridge. Keep one of the two.";
    "duplicate-uuid" Error "a UUID given twice":
        "minimega launches only one VM with a UUID; the second launch fails. Leave `uuid` out to have one assigned.";
    "duplicate-vm" Error "two VMs of one name":
        "Names are unique in a namespace. Ranges and counts are expanded first, so `web[0-2]` and `web1` clash.";
    "empty-command" Error "a line without a command":
        "A line of `commands` is empty or only a comment. Write a command, or remove the line; comments belong into YAML or TOML.";
    "exclusive-keys" Error "keys that exclude each other":
        "Only one of the keys can be given, or a key that means nothing for what the entry is. The message names them; docs/experiment.md says which keys go together.";
    "expansion-limit" Error "composition that makes too much":
        "The limits on values and copies are in docs/experiment.md. For many VMs with the same settings, `count` and ranges in names make one entry of them instead of thousands.";
    "expression" Error "an expression without a value":
        "The message says what could not be computed. `megaform eval FILE` tries expressions one after the other.";
    "file-kind" Error "not an experiment file by its name":
        "The name's end tells the format: .yaml, .yml or .toml. `-` reads YAML from standard input.";
    "file-too-large" Error "a file above the size limit":
        "The limit is in docs/experiment.md. Ranges, counts and profiles describe many VMs in few lines.";
    "fixed-for-many" Error "a MAC address or UUID for several VMs":
        "The entry stands for several VMs (a range or a count), and all would get the one value. Split the entry, or leave \
         the value out to have one assigned to each.";
    "for-each-count" Error "`for_each` and `count` together":
        "An entry is repeated by one of the two. `for_each: \"{{ range(5) }}\"` counts and has `each.key`.";
    "host-in-use" Error "a host with VMs that is to leave the namespace":
        "minimega observes a namespace on its hosts only: what is on a host that is taken out runs on, but no command shows or ends it. The message names what is there. Launch it elsewhere with `--replace`, remove it, or keep the host.";
    "include" Error "a key that an included file cannot have":
        "Keys of the whole experiment, such as `vlan_range`, stand in the experiment file alone.";
    "include-cycle" Error "files that include each other":
        "The message shows the chain; remove one of its includes.";
    "include-limit" Error "files that include each other too deep, or too often":
        "The limits are in docs/experiment.md.";
    "invalid-command" Error "a line that does not split into words":
        "Quotes are closed on the same line, and a backslash stands before n, r, t, a quote, `#` or another backslash only.";
    "invalid-name" Error "a name that is not allowed":
        "Names have to pass through the command language and into file and interface names; the message says which \
         characters and length this kind takes. Words of the language (`all`) and whole numbers are no VM names.";
    "invalid-range" Error "a range that does not expand":
        "Ranges are written `web[0-9,12]`, first number not above the last; several may stand in one name.";
    "invalid-value" Error "a value that is not allowed":
        "The key exists and the type is right, but the value is not one of those it takes. The message says which are.";
    "key-type" Error "a key that is no text":
        "Keys of maps are text. Quote a number or truth value that is meant as a name.";
    "link-conflict" Error "an interface that is shaped twice":
        "A link is a shape on the NICs at both of its ends, and an interface has one shape. This NIC has a `qos` of its own, or is the end of another link. Keep one of the two.";
    "link-ends" Error "a link whose ends are not connected":
        "A link shapes the traffic between two NICs, so they are two different ones, on one VLAN of one bridge. A VLAN with just these two is a point-to-point link.";
    "link-unshaped" Warning "a link that shapes nothing":
        "Two NICs on one VLAN reach each other without a link. Give it a rate, a delay or a loss, or remove it.";
    "lonely-vlan" Warning "a VLAN with one member":
        "Only one NIC or tap is on it, so its traffic reaches nobody. Often a misspelled alias; if it is on purpose, a tap \
         on the same VLAN (or the warning) tells the next reader.";
    "merge-key" Error "a merge key without a map":
        "`<<` copies the entries of a map, or of a list of maps, given by alias.\n\n    web: { <<: *base, memory: 512 }";
    "mirror-ends" Error "a mirror between ends that do not go together":
        "Both ends of a mirror are NICs of VMs, or both are taps: `tap mirror` has a form for each and none for a mix. The ends differ, and only taps name their bridge.";
    "mirror-shared" Error "a mirror of somebody else that would be ended along":
        "All mirrors to one destination are ended by one command. One of them is not the experiment's, so the plan is refused. End it by hand first.";
    "missing-file" Warning "a file that is not there":
        "The path is sent as it is written. A relative path that exists beside the experiment file is made absolute; \
         otherwise the engine looks in its files folder, and a launch fails if the file is not there by then.";
    "missing-key" Error "a key that must be given":
        "The message names it and what it is for.";
    "missing-nic" Error "a NIC that the running VM does not have":
        "A bond, mirror or capture is to be made of a NIC that the file gives the VM, and the VM runs without it, because its \
         `networks` are in `ignore_changes`. Replace the VM, or let changes of its NICs be planned.";
    "missing-variable" Error "a variable without a value":
        "A variable without a `default` is given with --var, --var-file or MEGAFORM_VAR_NAME; that of an included file in `with`.";
    "nat-router" Warning "guests that are told another router than the way out":
        "A DHCP server tells its guests to use the server itself as router, and the engine forwards nothing. A guest that is to use the way out of its VLAN needs the gateway's address.\n\n    options: option:router,10.0.0.254";
    "needs-kernel" Error "append or initrd without kernel":
        "QEMU passes both to a kernel that it boots directly (`-kernel`). With a disk, the guest's boot loader has its own.";
    "no-serial-port" Error "a text that is awaited on a serial port that the VM does not have":
        "Ports count from 0, so a wait on port 0 takes `serial_ports: 1`, of the VM or of its profile. The guest must be told to write \
         there: a Linux kernel with `console=ttyS0`.\n\n    db: { serial_ports: 1, append: console=ttyS0, wait_for: { serial: \"login:\" } }";
    "not-carried" Error "a value that the command language would change":
        "The target expands `$NAME`, and fetches words that begin with `file:`, `http:` or `tar:`, before a command sees them, \
         so this value would arrive as another. The message says which part it is.";
    "not-constant" Error "an expression where a fixed value must stand":
        "The declaration of a variable says what may be given from outside, so it cannot be computed. Compute it in `locals`.";
    "not-formatted" Error "a file that `megaform fmt` leaves as it is":
        "The normal form is read again and compared with the file. At this place it would mean something else, or nothing. The file is not changed.";
    "not-utf-8" Error "a file that is not UTF-8 text":
        "The message gives the first byte that is not. Save the file as UTF-8.";
    "out-of-range" Error "a number outside its range":
        "The message gives the range, both ends included.";
    "outside-subnet" Error "an address outside the subnet":
        "A DHCP server gives out addresses of the network that it is in: the subnet of the tap whose address it listens on. The router \
         that it tells its guests of (`option:router`), or that a `nat` is, lies in that subnet too: no guest reaches another one.";
    "pipe-loop" Error "pipes that feed themselves":
        "Pipelines lead from a pipe back to it with no program in between, so a message would go round for ever, and an engine refuses the pipeline that closes the round. Take one out, or put a program in between that drops messages. Names that `pipes` does not declare are not looked at: they may be programs.";
    "prevent-destroy" Error "an object that must not go":
        "The plan would remove an object, even if only to make it again, and its `lifecycle` has `prevent_destroy`. The message \
         names the field that asks for it: take that back, leave the object out with `--exclude`, or remove `prevent_destroy`.";
    "profile-cycle" Error "profiles that extend each other":
        "A profile takes what it does not say itself from the profile that it names. Here that comes back to itself.";
    "qos-combined" Warning "a rate together with delay, loss or jitter":
        "On one NIC, minimega has either a rate or delay and loss, and drops the other silently; it has no jitter. megaform's own engine \
         combines all of them. Give one of the two if the experiment is for a minimega: a plan for one refuses this.";
    "qos-jitter" Error "a jitter without a delay, or longer than it":
        "Jitter varies a delay either way, so there is a delay, and it is at least as long.\n\n    qos: { delay: 20 ms, jitter: 5 ms }";
    "qos-unsupported" Error "a shape that the target cannot give an interface":
        "minimega shapes an interface by a rate, or by a delay and a loss, and setting one of the two silently drops the other; it has no jitter. megaform's engine combines all of them (`qos set`). The target's `help qos` tells which of the two it is.";
    "queueing" Error "a queue that holds launches of others":
        "The queue of a namespace is launched or dropped as a whole (`vm launch`, `ns flush`), and a launch that is not queued may take it \
         along. So nothing is launched where VMs wait that are not the experiment's: launch them or flush the queue first; the \
         message has the commands.";
    "reference-cycle" Error "expressions that need each other":
        "The message shows the chain of locals and included files; take one reference away.";
    "refused-command" Error "a command that an experiment must not run":
        "Lines of `commands` run inside the experiment's namespace. `namespace` with a name would leave it, `clear namespace` and \
         `clear all` would remove more than the entry made, `quit` would end the daemon, and what `read` runs is not in the \
         plan. Write the commands of a script as lines of their own.";
    "renamed-count" Error "former names that do not fit the entry":
        "`renamed_from` gives one former name for each VM of its entry, in the same order, so ranges of both have the same \
         length.";
    "renamed-from-declared" Error "a former name that is still in the file":
        "A VM was renamed from a name that the file gives another VM. Remove `renamed_from`, or the VM of the old name.";
    "renamed-twice" Error "two VMs with one former name":
        "Only one VM can be what the former one was. Remove `renamed_from` from the other.";
    "reserved-tag" Error "a tag that megaform keeps for itself":
        "Tags that begin with `megaform.` say whose a VM is and what it was launched with. Choose another key.";
    "schedule-host" Error "a VM on a host that is none of the namespace":
        "`schedule` names one of the hosts of the namespace: those that `hosts` of `placement` lists, or those that `ns hosts` shows where the file lists none. The scheduler refuses others when the VM is launched, so the plan is refused before that.";
    "second-document" Error "a second YAML document":
        "A file is one experiment; `---` begins another document. Use two files.";
    "self-dependency" Error "a VM that depends on itself":
        "VMs of one entry share `depends_on`, so none of them can be named in it. Split the entry.";
    "shared-disk" Error "one disk image, several writers":
        "With `snapshot: false` a VM writes to the image itself. Two VMs on one image destroy each other's file system; QEMU \
         locks the image, so the second one does not even start. Keep `snapshot: true`, where each VM has its own overlay, \
         or give each VM its own copy.";
    "short-secret" Warning "a sensitive value that cannot be hidden":
        "Sensitive values are found in texts by what they are. One of fewer than 4 characters stands everywhere by chance, so it is shown.";
    "subnet-overlap" Warning "overlapping subnets":
        "The taps are interfaces of one network (the engine's). Where their subnets overlap, the kernel sends everything for the \
         common addresses through one of them, and the other VLAN is not reached. On one VLAN, two prefix lengths make neighbours \
         disagree about who is reached directly.";
    "syntax" Error "not valid YAML or TOML":
        "The message is that of the parser and points at where it could not go on; the mistake is there or just before.";
    "tag-held" Error "a tag that an alias holds which is not selected":
        "With `--target` or `--exclude`, an alias that is selected is to have a tag that another one has, and that one is left \
         out. Select both, or leave both out.";
    "target-lacks" Error "a command that the target does not have":
        "What the file asks for takes a command, or a form of one, that came after the release of minimega that runs there: its `help` \
         does not list it. Take it out of the file, or use a newer release or megaform's own engine. Where `vm flush` forgets every VM that \
         ended, as in 2018, start the VM that is to stay, or flush it by hand.";
    "template-limit" Error "an expression that takes too long or makes too much":
        "Steps, length and parts of expressions are limited; the limits are in docs/experiment.md.";
    "template-syntax" Error "text that is not a valid expression":
        "`{{` and `{%` begin an expression in every text. `{{ '{{' }}` gives the braces themselves. There are no assignments: name values in `locals`.";
    "too-deep" Error "lists and maps nested too deeply":
        "The limit is in docs/experiment.md; nothing in an experiment needs it.";
    "too-many-cpus" Warning "a VM with more CPUs than this machine":
        "More virtual CPUs than the machine has run slower than as many as it has: they wait for each other.";
    "too-many-values" Error "more keys and values, or words and signs, than a file may have":
        "The limits are in docs/experiment.md and bound the memory that reading a file takes. Ranges, counts and profiles describe many VMs in few lines; `include` reads further files.";
    "too-many-vms" Error "more VMs than the limit":
        "A range or a count may be mistyped. The limit is in docs/experiment.md.";
    "too-much-memory" Warning "more memory than this machine has":
        "QEMU takes memory as the guest touches it, so the VMs start, and the kernel ends some of them when there is none left. \
         The sum counts the VMs that are to run.";
    "tunnel-unknown" Error "a tunnel that cannot be told from others":
        "A target shows a tunnel as the name of an interface, not where it leads. Where there are more tunnels on a bridge than megaform made, it cannot tell which one is to go. Remove it by hand, then plan again.";
    "undefined-name" Error "a name that an expression does not know":
        "Names are `var.NAME`, `local.NAME`, `module.NAME.OUTPUT`, `experiment.name`, `prefix`, and in repeated entries `each` and `count`. `x | default(1)` stands in for what may be missing.";
    "unknown-address" Error "an address of nothing":
        "`--target`, `--exclude` and `--replace` take addresses of what is in the file or is live and the experiment's. `megaform plan -v FILE` lists them.";
    "unknown-bridge" Warning "a bridge that nothing is on":
        "Nothing of the file is on this bridge, so the name may be misspelt. A bridge of the host that is there all the same can be added to `bridges` without settings.";
    "unknown-colocate" Warning "a VM beside which another is to run, and which the file does not have":
        "`colocate` names a VM whose host is to be this one's too. A scheduler finds none for a VM that is not there.";
    "unknown-command" Warning "a line that is no command of megaform":
        "The line may still be a command of another minimega, which then decides. On megaform's own engine it fails. \
         `megaform -e help` lists the commands.";
    "unknown-field" Error "a path that is no field":
        "`ignore_changes` takes keys of the object, `networks[0]` and `tags.KEY`.";
    "unknown-function" Error "a function, filter or test that does not exist":
        "docs/experiment.md lists the functions; filters and tests are those of minijinja.";
    "unknown-host" Error "a host that the target does not reach":
        "The hosts of a namespace are hosts of the mesh of the target, as `mesh list` shows them. Correct the name, or connect the host first.";
    "unknown-key" Error "a key that does not exist here":
        "Nothing that is written is ignored. The message lists the keys of this place, or the nearest one.";
    "unknown-nic" Error "a NIC that its VM does not have":
        "NICs are named as VM and index, from 0: `web.0` is the first of `networks`.";
    "unknown-profile" Error "a profile that does not exist":
        "Profiles are entries of `profiles`.";
    "unknown-tap" Error "a tap that does not exist":
        "The entry names a tap that `taps` does not have.";
    "unknown-variable" Error "a variable that does not exist":
        "--var, --var-file and `with` can set only what the file declares in `variables`.";
    "unknown-vlan" Error "a VLAN alias that is not declared":
        "Every alias is an entry of `vlans`, so that a mistyped one is not silently another network, as it is in minimega. \
         `name: {}` declares one whose tag is given out.";
    "unknown-vm" Error "a VM that does not exist":
        "`depends_on` names VMs of this experiment; VMs of a range by their numbered names.";
    "unmanaged-address" Error "an address of what is not the experiment's":
        "`--target`, `--exclude` or `--replace` names an object that somebody else made. megaform touches nothing of others.";
    "unmanaged-vm" Error "a VM of that name that is not megaform's":
        "A VM in the namespace has the name, but not the tag that says it belongs to this experiment, so somebody else made it. \
         megaform touches nothing of others. The message has the command that removes it and the one that adopts it.";
    "unreadable" Error "a file that cannot be read":
        "The message is that of the operating system.";
    "unused-pipe" Warning "a pipe that no pipeline has, and one with almost its name":
        "`pipes` declares a pipe, no pipeline names it, and one names something that differs by a letter or two, which is another pipe then. A pipe that only clients (`megaform pipe`) and commands use needs no pipeline, and is not warned of.";
    "unused-profile" Warning "a profile that no VM uses":
        "Perhaps a misspelled name, or left over.";
    "unused-vlan" Warning "a VLAN that nothing is on":
        "No NIC and no tap of the experiment is on it.";
    "usb-controller" Error "USB disks without a USB controller":
        "`usb_disks` are on the VM's USB bus, which `usb_use_xhci: false` leaves out. Remove one of the two.";
    "variable-rule" Error "a value that a rule of its variable refuses":
        "`min`, `max`, `pattern`, `one_of` and `validation` of the declaration say what a value may be, whoever gives it.";
    "vlan-blacklist" Error "a fixed tag that is blacklisted":
        "`vlan_blacklist` has the tag that a VLAN is to have, and minimega binds no alias to such a tag.";
    "vlan-in-use" Error "a VLAN alias that cannot be bound anew":
        "The alias has another tag than the file gives, and something that is not megaform's is connected to it. Binding it anew \
         would cut that off. Disconnect it, or give the alias the tag that it has.";
    "vlan-prefix" Error "a VLAN alias that cannot be unbound alone":
        "minimega unbinds aliases by prefix: `clear vlans dmz` takes `dmz2` with it. Rename one of the two.";
    "vlan-range" Error "too few tags in the range":
        "`vlan_range` has fewer free tags than there are aliases without a fixed one. Tags of `vlan_blacklist` are not free.";
    "wait-for-paused" Error "a wait for a guest that does not run":
        "`wait_for` names what must be seen of a guest that runs. With `state: paused` nothing ever would be, and apply \
         would wait until its time is over. Remove one of the two.";
    "wrong-type" Error "a value of the wrong type":
        "The message says what was expected. In YAML `no`, `off`, `1e3` and `0x10` are no text unless quoted.";
    "yaml-tag" Error "a YAML tag":
        "Tags such as `!include` make a value mean something else to some readers; here they have no meaning.";
}

/// The entry of a code.
pub fn code(name: &str) -> Option<&'static Code> {
    CODES.binary_search_by(|code| code.code.cmp(name)).ok().map(|index| &CODES[index])
}

/// Every code as Markdown (`docs/diagnostics.md`).
pub fn document() -> String {
    let mut text = String::from(
        "# Errors and warnings of experiments\n\nGenerated; `MEGAFORM_UPDATE=1 cargo test --lib diagnostic::` rewrites it. \
         `megaform explain CODE` prints one.\n",
    );
    for code in CODES {
        text.push_str(&format!("\n## {}\n\n{}: {}.\n\n{}\n", code.code, code.severity, code.title, code.text));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn sources(folder: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                sources(&path, out);
            } else if name.ends_with(".rs") && !name.contains("tests") && !name.contains("src/diagnostic/") {
                out.push(std::fs::read_to_string(&path).unwrap());
            }
        }
    }

    /// The codes that the sources report with.
    fn reported() -> BTreeSet<String> {
        let mut texts = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
        let mut codes = BTreeSet::new();
        for text in &texts {
            for start in ["Diagnostic::error(", "Diagnostic::warning(", "problem(", ".once(", "code: "] {
                for part in text.split(start).skip(1) {
                    let Some(rest) = part.trim_start().strip_prefix('"') else { continue };
                    let code = rest.split('"').next().unwrap();
                    if code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                        codes.insert(code.to_owned());
                    }
                }
            }
        }
        codes
    }

    #[test]
    fn sorted_and_short() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(CODES.iter().all(|code| code.title.len() <= 80 && !code.text.is_empty()));
        assert!(code("duplicate-mac").is_some() && code("nosuch").is_none());
    }

    #[test]
    fn every_code_in_the_sources_is_explained_and_no_other() {
        let reported = reported();
        assert!(reported.len() > 40, "{reported:?}");
        let known: BTreeSet<String> = CODES.iter().map(|code| code.code.to_owned()).collect();
        let missing: Vec<_> = reported.difference(&known).collect();
        assert!(missing.is_empty(), "codes without an explanation: {missing:?}");
        // Some are given to a function that reports them.
        let indirect = [
            "duplicate-file",
            "duplicate-mirror",
            "duplicate-trunk",
            "duplicate-mac",
            "duplicate-uuid",
            "unknown-function",
        ];
        let unused: Vec<_> = known.difference(&reported).filter(|code| !indirect.contains(&code.as_str())).collect();
        assert!(unused.is_empty(), "codes that nothing reports: {unused:?}");
    }

    #[test]
    fn the_document_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/diagnostics.md");
        let text = document();
        if std::env::var_os("MEGAFORM_UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "run with MEGAFORM_UPDATE=1");
    }
}
