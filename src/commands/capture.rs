//! `capture` and `clear capture`

use serde_json::json;

use crate::engine::{CaptureInfo, CaptureRequest, CaptureTarget, EngineError};
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
        Some(vm) => {
            CaptureRequest::Nic { vm: vm.to_owned(), index: call.required("interface index").to_owned() }
        }
        None => CaptureRequest::Bridge(BridgeName::new(call.required("bridge"))?),
    };
    engine.start_pcap(namespace, &request, call.required("filename")).await?;
    Ok(Answer::done())
}

async fn list(call: Call) -> Result<Answer, EngineError> {
    let captures = call.engine().captures(&call.namespace).await;
    let data = captures.iter().map(data).collect();
    let rows = captures
        .into_iter()
        .map(|capture| {
            let mode = capture.status.stopped.map(|reason| format!("stopped: {reason}")).unwrap_or_default();
            let path = capture.path.display().to_string();
            vec![capture.bridge, "pcap".to_owned(), capture.interface, mode, String::new(), path]
        })
        .collect();
    Ok(Answer { empty_list: true, data, ..Answer::table(COLUMNS, rows) })
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

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("capture", &["capture"], "show captures",
                "Lists the captures of the namespace. One that has stopped by itself, for example because the disk is full, says why \
                 under mode, and stays in the list until it is deleted; its file has all frames up to then. The `Data` of the \
                 answer has the frames and bytes written, and how many frames were lost because they came too fast.")
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
            Declaration::new("clear capture", &["clear capture [netflow,pcap]"], "end captures",
                "Ends all captures of the namespace, or those of one kind, and sets snaplen and filter back."),
            |call| async move {
                if !call.args.flag("netflow") {
                    call.engine().clear_pcap(&call.namespace).await?;
                }
                Ok(Answer::done())
            },
        ),
    ]
}
