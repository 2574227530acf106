//! What a dnsmasq is told: its arguments, and the files that it reads again on SIGHUP.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{DnsmasqError, EngineError, Record, TEXT_LIMIT, find_admin};

/// Its pid, which it writes once its sockets are open.
pub(super) const PID: &str = "pid";
const HOSTS: &str = "hosts";
const NAMES: &str = "names";
const OPTIONS: &str = "options";
const UPSTREAM: &str = "upstream";
/// What an option is tried in.
const TRIED: &str = "tried.conf";

/// `--NAME=FOLDER/FILE`.
pub(super) fn argument(folder: &Path, name: &str, file: &str) -> String {
    format!("--{name}={}", folder.join(file).display())
}

/// The argument vector, dnsmasq(8). Nothing of the host is read: not /etc/dnsmasq.conf, not /etc/resolv.conf, not
/// /etc/hosts.
pub(super) fn arguments(folder: &Path, record: &Record) -> Vec<String> {
    let config = record.config.as_deref().unwrap_or(Path::new("/dev/null"));
    let mut arguments = vec![
        argument(folder, "pid-file", PID),
        format!("--conf-file={}", config.display()),
        "--keep-in-foreground".to_owned(),
        "--log-facility=-".to_owned(),
        "--no-resolv".to_owned(),
        "--no-hosts".to_owned(),
        // Another user could not read the files in the folder again.
        "--user=root".to_owned(),
        "--group=root".to_owned(),
        argument(folder, "dhcp-leasefile", "leases"),
        argument(folder, "dhcp-hostsfile", HOSTS),
        argument(folder, "addn-hosts", NAMES),
        argument(folder, "dhcp-optsfile", OPTIONS),
        argument(folder, "servers-file", UPSTREAM),
    ];
    if let Some(listen) = &record.listen {
        arguments.extend([
            // The interface too: only so does dnsmasq bind its DHCP socket to it, and several servers do not take each
            // other's requests.
            format!("--interface={}", listen.tap),
            "--except-interface=lo".to_owned(),
            "--bind-interfaces".to_owned(),
            format!("--listen-address={}", listen.address),
            format!("--dhcp-range={},{},{}", listen.low, listen.high, listen.network.netmask()),
        ]);
    }
    arguments
}

/// Write the files anew, each whole.
pub(super) fn write(folder: &Path, record: &Record) -> Result<(), EngineError> {
    lines(folder, HOSTS, record.leases.iter().map(|(mac, ip)| format!("{mac},{ip}")))?;
    lines(folder, NAMES, record.names.iter().map(|(ip, name)| format!("{ip} {name}")))?;
    lines(folder, OPTIONS, record.options.iter().cloned())?;
    lines(folder, UPSTREAM, record.upstream.iter().map(|ip| format!("server={ip}")))
}

fn lines(folder: &Path, name: &str, lines: impl Iterator<Item = String>) -> Result<(), EngineError> {
    let path = folder.join(name);
    let error = |source| EngineError::File { action: "write", path: path.clone(), source };
    let new = folder.join(format!("{name}.new"));
    let text: String = lines.map(|line| line + "\n").collect();
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(error)?;
    file.write_all(text.as_bytes()).map_err(error)?;
    std::fs::rename(&new, &path).map_err(error)
}

/// Would dnsmasq take this option? It is asked (`--test`), because one that it does not take it leaves out without a word
/// to anybody but its log.
pub(super) async fn check_option(folder: &Path, option: &str) -> Result<(), EngineError> {
    let refused = |message: &str| -> EngineError {
        DnsmasqError::Option { text: option.to_owned(), message: message.to_owned() }.into()
    };
    if option.is_empty() || option.len() > TEXT_LIMIT || option.chars().any(|c| c.is_control() || c == '#') {
        return Err(refused("it is empty, longer than 255 bytes, or has a `#` or control characters"));
    }
    lines(folder, TRIED, std::iter::once(format!("dhcp-option={option}")))?;
    let program = find_admin("dnsmasq").ok_or(DnsmasqError::Missing)?;
    let output = tokio::process::Command::new(program)
        .args(["--test".to_owned(), argument(folder, "conf-file", TRIED)])
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|error| refused(&error.to_string()))?;
    // Best effort: it is in the server's folder and goes with it.
    let _ = std::fs::remove_file(folder.join(TRIED));
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it does not say why");
    let text = text.trim_start_matches("dnsmasq: ");
    Err(refused(text.split(" at line ").next().unwrap_or(text)))
}
