//! Cold plans of experiments of 1,000, 10,000 and 100,000 VMs against a target on a real socket: the first plan, and the plan
//! that finds nothing to do.
//!
//! The target is a thread here that answers what minimega 3.1.0 answers (all columns of `vm info`, whole records) from bytes
//! made beforehand, so that megaform alone is measured. What the first plan would launch is what it tells of afterwards: the
//! commands of the plan are interpreted. The baseline reads the same file and the same answers and makes values of the JSON,
//! one after the other, as a plain client does; megaform reads the file and the answers at the same time, and only what
//! matters of the answers.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bench::{median, request, verdict};
use serde_json::{Value, json};

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const CONFIGS: usize = 10;
const RUNS: usize = 5;

/// What 10,000 VMs may take.
const FIRST: Duration = Duration::from_millis(300);
const AGAIN: Duration = Duration::from_millis(250);
const MEGABYTES: i64 = 200;
const COMMANDS: usize = 200;

/// The columns of `vm info` before the tags.
const COLUMNS: &str = "id name state uptime type uuid cc_active pid vlan bridge tap mac ip ip6 qos qinq bond memory vcpus disks \
    snapshot initrd kernel cdrom save append serial-ports virtio-ports vnc_port usb-use-xhci tpm-socket bidirectional-copy-paste \
    android_avd android_console_port android_adb_port android_serial filesystem hostname init preinit fifo volume console_port tags";

/// Answers by command, each a whole line. They are written from where they lie: a copy of one of 16 MB would count as time
/// of the client.
type Answers = Arc<Mutex<BTreeMap<String, Arc<[u8]>>>>;

fn main() -> io::Result<()> {
    let megaform =
        std::env::var_os("MEGAFORM").ok_or_else(|| io::Error::other("MEGAFORM is not set: use scripts/bench"))?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("minimega");
    let listener = UnixListener::bind(&socket)?;
    let answers = Answers::default();
    let served = Arc::clone(&answers);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let served = Arc::clone(&served);
            // A client that leaves in the middle is no failure of the measure.
            std::thread::spawn(move || drop(serve(stream, &served)));
        }
    });
    let mut ratio = 0.0;
    for size in SIZES {
        let file = folder.path().join(format!("{size}.yaml"));
        std::fs::write(&file, experiment(size))?;
        let run = |arguments: &[&str]| -> io::Result<(Duration, Vec<u8>)> {
            let start = Instant::now();
            let output = Command::new(&megaform)
                .arg("--socket")
                .arg(&socket)
                .arg("plan")
                .args(arguments)
                .arg(&file)
                .stdin(Stdio::null())
                .stderr(Stdio::inherit())
                .output()?;
            let time = start.elapsed();
            if !output.status.success() {
                return Err(io::Error::other(format!("megaform plan: {}", output.status)));
            }
            Ok((time, output.stdout))
        };
        absent(&answers);
        let plan: Value = serde_json::from_slice(&run(&["--json"])?.1)?;
        let times = (0..RUNS).map(|_| Ok(run(&[])?.0)).collect::<io::Result<Vec<_>>>()?;
        let first = median(times);
        let commands = plan["steps"].as_array().map_or(0, Vec::len);
        let bytes = carried_out(&plan, &answers)?;
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let (time, out) = run(&[])?;
            if !String::from_utf8_lossy(&out).contains("No changes") {
                return Err(io::Error::other(format!(
                    "there is something left to do: {}",
                    String::from_utf8_lossy(&out)
                )));
            }
            times.push(time);
        }
        let again = median(times);
        let baseline = median((0..RUNS).map(|_| baseline(&socket, &file)).collect::<io::Result<Vec<_>>>()?);
        let megabytes = peak(&megaform, &socket, &file)?;
        let judged = size == 10_000;
        let within = |text: &str| if judged { format!(" ({text})") } else { String::new() };
        println!("{size} VMs of {CONFIGS} configurations, {} MB of answers", bytes >> 20);
        println!(
            "  first plan: {:.3} s{}, {commands} commands{}",
            first.as_secs_f64(),
            within(&format!("{} the limit of {} s", verdict(first, FIRST), FIRST.as_secs_f64())),
            within(&format!("{} the limit of {COMMANDS}", if commands <= COMMANDS { "within" } else { "OVER" })),
        );
        println!(
            "  nothing to do: {:.3} s{}, {:.2} us per VM",
            again.as_secs_f64(),
            within(&format!("{} the limit of {} s", verdict(again, AGAIN), AGAIN.as_secs_f64())),
            again.as_secs_f64() * 1e6 / size as f64,
        );
        println!(
            "  peak memory: {megabytes} MB{}",
            within(&format!("{} the limit of {MEGABYTES} MB", if megabytes <= MEGABYTES { "within" } else { "OVER" })),
        );
        println!("  baseline: {:.3} s, reading the file and the answers and parsing the JSON", baseline.as_secs_f64());
        if judged {
            ratio = again.as_secs_f64() / baseline.as_secs_f64();
        }
    }
    println!("ratio: {ratio:.2}");
    Ok(())
}

/// The most memory that finding nothing to do takes, in MB.
fn peak(megaform: &OsStr, socket: &Path, file: &Path) -> io::Result<i64> {
    let mut child = Command::new(megaform)
        .arg("--socket")
        .arg(socket)
        .arg("plan")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // Its status goes with it, so it is looked at while it writes.
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait()?.is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kilobytes = line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
        most = most.max(kilobytes);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(most / 1024)
}

/// An entry for each VM.
fn experiment(size: usize) -> String {
    let mut text = "experiment: scale\nvlans: { lan: {}, core: { tag: 200 } }\nprofiles:\n".to_owned();
    for config in 0..CONFIGS {
        let memory = 128 + 32 * config;
        writeln!(text, "  c{config}: {{ memory: {memory}, kernel: vmlinuz, initrd: initrd, networks: [lan, core] }}")
            .expect("text");
    }
    text.push_str("vms:\n");
    for vm in 0..size {
        writeln!(text, "  vm{vm}: {{ profile: c{}, tags: {{ role: r{} }} }}", vm % CONFIGS, vm % CONFIGS)
            .expect("text");
    }
    text
}

fn answer(entry: Value) -> Arc<[u8]> {
    let mut line = json!({"Resp": [entry], "Rendered": "", "More": false, "Status": false}).to_string().into_bytes();
    line.push(b'\n');
    line.into()
}

fn table(header: &[&str], rows: Vec<Vec<String>>, data: Value) -> Value {
    json!({"Host": "vm", "Response": "", "Header": header, "Tabular": rows, "Error": "", "Data": data})
}

/// Nothing is there.
fn absent(answers: &Answers) {
    let mut answers = answers.lock().expect("no thread panics");
    answers.clear();
    answers.insert("namespace".into(), answer(table(&["namespace", "vlans", "active"], Vec::new(), Value::Null)));
}

/// Make what the target tells once the plan was carried out. Returns how much that is.
fn carried_out(plan: &Value, answers: &Answers) -> io::Result<usize> {
    let mut config: BTreeMap<String, String> = BTreeMap::new();
    let mut tags: BTreeMap<String, String> = BTreeMap::new();
    let (mut rows, mut records) = (Vec::new(), Vec::new());
    let columns: Vec<&str> = COLUMNS.split_whitespace().collect();
    for step in plan["steps"].as_array().into_iter().flatten() {
        let command = step["command"].as_str().unwrap_or_default();
        let words: Vec<&str> = command.split_whitespace().skip(2).collect();
        match words.as_slice() {
            ["clear", "vm", "config"] => {
                config.clear();
                tags.clear();
            }
            ["vm", "config", "tags", key, value] => drop(tags.insert((*key).to_owned(), (*value).to_owned())),
            ["vm", "config", field, values @ ..] => drop(config.insert((*field).to_owned(), values.join(" "))),
            ["vm", "launch", "kvm", names] => {
                for name in expand(names) {
                    let (row, record) = vm(records.len(), &name, &config, &tags, columns.len());
                    rows.push(row);
                    records.push(record);
                }
            }
            _ => {}
        }
    }
    let aliases = [["lan", "101"], ["core", "200"]];
    let aliases = aliases.map(|row| row.map(str::to_owned).to_vec()).to_vec();
    let namespaces = vec![["scale", "", "false"].map(str::to_owned).to_vec()];
    let lines = [
        ("namespace", table(&["namespace", "vlans", "active"], namespaces, Value::Null)),
        ("namespace scale vm info", table(&columns, rows, Value::Array(records))),
        ("namespace scale vlans", table(&["alias", "vlan"], aliases, Value::Null)),
        ("namespace scale tap", table(&["bridge", "tap", "vlan"], Vec::new(), Value::Null)),
    ];
    let mut answers = answers.lock().map_err(|_| io::Error::other("a thread panicked"))?;
    answers.clear();
    answers.extend(lines.map(|(command, entry)| (command.to_owned(), answer(entry))));
    Ok(answers.values().map(|line| line.len()).sum())
}

/// Names such as `vm[0-3,7],x`.
fn expand(names: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut rest, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in names.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                rest.push(&names[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    rest.push(&names[start..]);
    for name in rest {
        let Some((stem, ranges)) = name.split_once('[') else {
            found.push(name.to_owned());
            continue;
        };
        for range in ranges.trim_end_matches(']').split(',') {
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse::<usize>().unwrap_or(0);
            found.extend((number(low)..=number(high)).map(|n| format!("{stem}{n}")));
        }
    }
    found
}

fn vm(
    id: usize,
    name: &str,
    config: &BTreeMap<String, String>,
    tags: &BTreeMap<String, String>,
    columns: usize,
) -> (Vec<String>, Value) {
    let text = |field: &str| config.get(field).cloned().unwrap_or_default();
    let uuid = format!("00000000-0000-4000-8000-{id:012}");
    let memory: u64 = text("memory").parse().unwrap_or(2048);
    let nics: Vec<Value> = [("lan", 101), ("core", 200)]
        .iter()
        .enumerate()
        .map(|(index, (alias, tag))| {
            json!({"Alias": alias, "VLAN": tag, "Bridge": "mega_bridge", "Tap": format!("mega_tap{}", 2 * id + index),
                "MAC": format!("00:26:{:02x}:{:02x}:{:02x}:{index:02x}", id >> 16 & 255, id >> 8 & 255, id & 255),
                "Driver": "e1000", "IP4": "", "IP6": "", "QinQ": false, "RxRate": 0, "TxRate": 0, "Raw": alias})
        })
        .collect();
    let record = json!({
        "UUID": uuid, "VCPUs": 1, "Memory": memory, "Snapshot": true, "Schedule": "", "Colocate": "", "Coschedule": -1,
        "Backchannel": true, "Networks": nics, "Bonds": [], "Tags": tags, "ID": id, "Name": name, "Namespace": "scale",
        "Host": "vm", "State": 2, "LaunchTime": "2026-11-22T14:02:20.806199841Z", "Type": 1, "ActiveCC": false, "Pid": 1000 + id,
        "QemuPath": "kvm", "KernelPath": text("kernel"), "InitrdPath": text("initrd"), "CdromPath": "", "MigratePath": "",
        "CPU": "host", "Sockets": 0, "Cores": 0, "Threads": 0, "Machine": "", "SerialPorts": 0, "VirtioPorts": "", "Vga": "std",
        "Append": null, "Disks": [], "UsbUseXHCI": true, "TpmSocketPath": "", "BidirectionalCopyPaste": false,
        "QemuAppend": [], "QemuOverride": [], "VNCPort": 40000,
    });
    let mut row =
        vec![id.to_string(), name.into(), "RUNNING".into(), "1m0s".into(), "kvm".into(), uuid, "false".into()];
    row.extend([(1000 + id).to_string(), "[lan (101), core (200)]".into(), "[mega_bridge, mega_bridge]".into()]);
    row.push(format!("[mega_tap{}, mega_tap{}]", 2 * id, 2 * id + 1));
    row.resize(columns - 1, "N/A".to_owned());
    row.push(json!(tags).to_string());
    (row, record)
}

fn serve(stream: UnixStream, answers: &Answers) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let command = request["Command"].as_str().unwrap_or_default();
        let line = answers.lock().map_err(|_| io::Error::other("a thread panicked"))?.get(command).cloned();
        let unknown = || {
            answer(json!({"Host": "vm", "Response": "", "Header": null, "Tabular": null,
            "Error": format!("invalid command: `{command}`"), "Data": null}))
        };
        writer.write_all(&line.unwrap_or_else(unknown))?;
    }
    Ok(())
}

/// What a plain client does before it can plan: read the file, ask, make values of the answers.
fn baseline(socket: &Path, file: &Path) -> io::Result<Duration> {
    let start = Instant::now();
    let text = std::fs::read_to_string(file)?;
    let mut words = text.split_whitespace().count();
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    for command in ["namespace", "namespace scale vm info", "namespace scale vlans", "namespace scale tap"] {
        stream.get_mut().write_all(&request(command))?;
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line)?;
        let answer: Value = serde_json::from_slice(&line)?;
        words += usize::from(answer["Resp"].is_array());
    }
    assert!(words > 4, "the file and the answers were read");
    Ok(start.elapsed())
}
