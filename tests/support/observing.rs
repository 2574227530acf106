//! The commands with which a target is only looked at.

/// How they end, behind their namespace.
const ENDS: &[&str] = &[
    " vm info",
    " vm hotplug",
    " vlans",
    " tap",
    " bridge",
    " nat",
    " capture",
    " dnsmasq",
    " plumb",
    " pipe",
    " ns queueing",
    " ns hosts",
    " ns load",
    " ns queue",
];

/// Whether a command only shows something.
pub fn observes(command: &str) -> bool {
    // What a dnsmasq server knows.
    let is_a_list = command.contains(" dnsmasq configure ")
        && [" ip", " dns", " upstream", " options"].iter().any(|end| command.ends_with(end));
    command == "namespace"
        || command.starts_with("shell ")
        || command.starts_with("help ")
        || command.ends_with("host")
        || ENDS.iter().any(|end| command.ends_with(end))
        || is_a_list
}
