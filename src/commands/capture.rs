//! `capture` and `clear capture`

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::engine::{CaptureInfo, CaptureRequest, CaptureTarget, EngineError, FlowInfo, FlowMode, FlowSink};
use crate::language::declaration::{Completion, Declaration};
use crate::name::BridgeName;

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["bridge", "type", "interface", "mode", "compress", "path"];
const ALL: &str = "all";

async fn pcap(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    if call.args.flag("snaplen") {
        return match call.args.str("size") {
            None => Ok(Answer::text(engine.pcap_settings(namespace).snaplen.to_string())),
            Some(size) => engine.set_snaplen(namespace, size).map(|()| Answer::done()),
        };
    }
    if call.args.flag("filter") {
        return match call.args.str("bpf") {
            None => Ok(Answer::text(engine.pcap_settings(namespace).filter)),
            Some(filter) => engine.set_pcap_filter(namespace, filter).await.map(|()| Answer::done()),
        };
    }
    if call.args.flag("delete") {
        let target = match (call.args.str("vm name"), call.args.str("bridge")) {
            (Some(ALL), _) => CaptureTarget::Vms,
            (Some(vm), _) => CaptureTarget::Vm(vm.to_owned()),
            (None, None | Some(ALL)) => CaptureTarget::Bridges,
            (None, Some(bridge)) => CaptureTarget::Bridge(BridgeName::new(bridge)?),
        };
        engine.delete_pcap(namespace, &target).await?;
        return Ok(Answer::done());
    }
    let request = match call.args.str("vm name") {
        Some(vm) => CaptureRequest::Nic { vm: vm.to_owned(), index: call.required("interface index").to_owned() },
        None => CaptureRequest::Bridge(BridgeName::new(call.required("bridge"))?),
    };
    engine.start_pcap(namespace, &request, call.required("filename")).await?;
    Ok(Answer::done())
}

async fn list(call: Call) -> Result<Answer, EngineError> {
    let captures = call.engine().captures(&call.namespace).await;
    let flows = call.engine().flow_captures(&call.namespace);
    let root = call.engine().files().root();
    let data = captures.iter().map(data).chain(flows.iter().map(flow_data));
    let data = data.map(|record| with_name(record, root)).collect();
    let flows = flows.into_iter().map(|flow| {
        let FlowInfo { bridge, sink, settings, status } = flow;
        let mode =
            status.stopped.map_or_else(|| settings.mode.word().to_owned(), |reason| format!("stopped: {reason}"));
        let row = [
            bridge.to_string(),
            "netflow".to_owned(),
            String::new(),
            mode,
            settings.gzip.to_string(),
            sink.to_string(),
        ];
        row.to_vec()
    });
    let rows = captures
        .into_iter()
        .map(|capture| {
            let mode = match (capture.status.stopped, capture.status.dropped) {
                (Some(reason), _) => format!("stopped: {reason}"),
                (None, 0) => String::new(),
                (None, dropped) => format!("{dropped} frames lost"),
            };
            let path = capture.path.display().to_string();
            vec![capture.bridge, "pcap".to_owned(), capture.interface, mode, String::new(), path]
        })
        .chain(flows)
        .collect();
    Ok(Answer { empty_list: true, data, ..Answer::table(COLUMNS, rows) })
}

/// A record with the name of its file in the files folder, by which commands may name it.
fn with_name(mut record: serde_json::Value, root: &Path) -> serde_json::Value {
    let path = record["path"].as_str().unwrap_or_default();
    let name = Path::new(path).strip_prefix(root).ok().map(|name| name.display().to_string());
    record["inside"] = name.into();
    record
}

fn data(capture: &CaptureInfo) -> serde_json::Value {
    let CaptureInfo { bridge, interface, path, settings, status } = capture;
    json!({
        "bridge": bridge, "type": "pcap", "interface": interface, "path": path,
        "snaplen": settings.snaplen, "filter": settings.filter,
        "frames": status.frames, "bytes": status.bytes, "dropped": status.dropped,
        "interfaces": status.interfaces, "stopped": status.stopped,
    })
}

fn flow_data(flow: &FlowInfo) -> serde_json::Value {
    let FlowInfo { bridge, sink, settings, status } = flow;
    json!({
        "bridge": bridge.as_str(), "type": "netflow", "path": sink.to_string(),
        "mode": settings.mode.word(), "gzip": settings.gzip,
        "flows": status.frames, "bytes": status.bytes, "malformed": status.dropped, "stopped": status.stopped,
    })
}

async fn netflow(call: Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    let text = |text: String| Ok(Answer::text(text));
    if call.args.flag("mode") {
        let mode = match call.args.choice("raw,ascii") {
            None => return text(engine.flow_settings(namespace).mode.word().to_owned()),
            Some("ascii") => FlowMode::Ascii,
            Some(_) => FlowMode::Raw,
        };
        engine.change_flow_settings(namespace, |settings| settings.mode = mode)?;
    } else if call.args.flag("gzip") {
        let Some(gzip) = call.args.choice("true,false") else {
            return text(engine.flow_settings(namespace).gzip.to_string());
        };
        engine.change_flow_settings(namespace, |settings| settings.gzip = gzip == "true")?;
    } else if call.args.flag("timeout") {
        match call.args.str("timeout in seconds") {
            None => return text(engine.flow_timeout().to_string()),
            Some(seconds) => engine.set_flow_timeout(seconds).await?,
        }
    } else if call.args.flag("delete") {
        let bridge = call.required("bridge");
        let bridge = if bridge == ALL { None } else { Some(BridgeName::new(bridge)?) };
        engine.delete_flows(namespace, bridge.as_ref()).await?;
    } else {
        let sink = match call.args.str("filename") {
            Some(file) => FlowSink::File(PathBuf::from(file)),
            None => {
                let to = call.required("hostname:port").to_owned();
                if call.args.flag("tcp") { FlowSink::Tcp(to) } else { FlowSink::Udp(to) }
            }
        };
        engine.start_flows(namespace, &BridgeName::new(call.required("bridge"))?, sink).await?;
    }
    Ok(Answer::done())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("capture", &["capture"], "show captures",
                "Lists the captures of the namespace. One that has stopped by itself, for example because the disk is full, says why \
                 under mode, and stays in the list until it is deleted; its file has all frames up to then. How many frames a capture \
                 has lost because they came too fast is under mode too. The `Data` of the answer has the frames and bytes \
                 written, and the frames lost.")
                .columns(COLUMNS),
            list,
        ),
        Command::new(
            Declaration::new("capture pcap",
                &[
                    "capture <pcap,> <snaplen,> [size]",
                    "capture <pcap,> <filter,> [bpf]",
                    "capture <pcap,> vm <vm name> <interface index> <filename>",
                    "capture <pcap,> <delete,> vm <vm name>",
                    "capture <pcap,> bridge <bridge> <filename>",
                    "capture <pcap,> <delete,> bridge <bridge>",
                ],
                "capture frames into pcap files",
                "vm: captures what a NIC of a VM (counted from 0) sends and receives, also while the VM is paused, before it is \
                 started and after it is started anew, until the capture is deleted or the VM flushed. A NIC that moves to another \
                 VLAN keeps it.\n\
                 bridge: captures every frame that crosses a bridge, once, with an 802.1Q tag that says on which VLAN. A bridge \
                 that is not there yet is waited for. Other namespaces may use the same bridge: their frames are captured too.\n\
                 delete: ends the captures of a VM or of a bridge, or with `all` those of all VMs or all bridges of the namespace.\n\
                 snaplen: shows or sets how many bytes of each frame new captures keep (default 1600).\n\
                 filter: shows or sets the filter of new captures, in the language of pcap-filter(7); quote it, `\"\"` is none. In a \
                 capture of a bridge, a filter with the word `vlan` looks at frames with their tag, any other without.\n\n\
                 A file that exists is overwritten. A relative name is one in the files folder. Captures outlive the daemon; \
                 frames that come while there is none are not in the file.\n\n    \
                     capture pcap filter \"tcp port 80\"\n    \
                     capture pcap vm web0 0 web0.pcap\n    \
                     capture pcap bridge mega_bridge all.pcap\n    \
                     capture pcap delete vm all")
                .complete("filename", Completion::Path),
            pcap,
        ),
        Command::new(
            Declaration::new("capture netflow",
                &[
                    "capture <netflow,> <mode,> [raw,ascii]",
                    "capture <netflow,> <gzip,> [true,false]",
                    "capture <netflow,> <timeout,> [timeout in seconds]",
                    "capture <netflow,> <bridge,> <bridge> <filename>",
                    "capture <netflow,> <bridge,> <bridge> <tcp,udp> <hostname:port>",
                    "capture <netflow,> <delete,> bridge <bridge>",
                ],
                "capture flow records",
                "bridge: collects the flow records (NetFlow version 5) of a bridge in a file, or sends them on by TCP or UDP to a program \
                 that the daemon's host can reach. Needs Open vSwitch. A bridge can have several; one that is not there yet is \
                 waited for.\n\
                 delete: ends the netflow captures of a bridge of this namespace, or with `all` those of all bridges.\n\
                 mode: shows or sets whether new captures write datagrams as they come (raw, the default) or a line for each flow \
                 (ascii): begin, end, protocol, source, destination, packets, bytes, TCP flags, type of service, ports in and out.\n\
                 gzip: shows or sets whether new captures pack their files (default false).\n\
                 timeout: shows or sets after how many seconds a flow that goes on is reported (default 10), for all bridges.\n\n    \
                     capture netflow mode ascii\n    \
                     capture netflow bridge mega_bridge flows.txt\n    \
                     capture netflow bridge mega_bridge udp collector.example:9995")
                .complete("filename", Completion::Path),
            netflow,
        ),
        Command::new(
            Declaration::new("clear capture", &["clear capture [netflow,pcap]"], "end captures",
                "Ends all captures of the namespace, or those of one kind, and sets what new ones are like back."),
            |call| async move {
                let kind = call.args.choice("netflow,pcap");
                if kind != Some("netflow") {
                    call.engine().clear_pcap(&call.namespace).await?;
                }
                if kind != Some("pcap") {
                    call.engine().clear_flows(&call.namespace).await?;
                }
                Ok(Answer::done())
            },
        ),
    ]
}
