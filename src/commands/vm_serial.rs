//! `vm serial`

use crate::engine::{EngineError, SerialRow};
use crate::language::declaration::Declaration;
use crate::language::range;

use super::{Answer, Call, Command};

const COLUMNS: &[&str] = &["name", "state", "port", "written", "line"];

fn table(rows: Vec<SerialRow>) -> Answer {
    let cells = |row: SerialRow| {
        let written = row.written.map(|bytes| bytes.to_string()).unwrap_or_default();
        vec![row.name, row.state.to_owned(), row.port.to_string(), written, row.line]
    };
    Answer::table(COLUMNS, rows.into_iter().map(cells).collect())
}

async fn serial(call: Call) -> Result<Answer, EngineError> {
    let (engine, target) = (call.engine(), call.required("vm target"));
    if let Some(text) = call.args.str("text") {
        let kind = if call.args.flag("matches") { "matches" } else { "contains" };
        let rows = engine.serial_written(&call.namespace, target, call.required("port"), (kind, text)).await?;
        return Ok(table(rows));
    }
    let port = call.args.str("port").unwrap_or("0");
    let lines = call.args.str("lines");
    let names = range::expand(target)?;
    match names.as_slice() {
        [name] if name != "all" => Ok(Answer::text(engine.serial_lines(&call.namespace, name, port, lines).await?)),
        _ => Ok(table(engine.serial_last(&call.namespace, target, port).await?)),
    }
}

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm serial",
            &["vm serial <vm target> [port] [lines]", "vm serial <vm target> <port> <contains,matches> <text>"],
            "show what VMs wrote on a serial port, or ask whether they wrote a text",
            "A command of megaform's own. What a guest writes on its serial ports (`vm config serial-ports`, ttyS0 of a Linux \
             guest is port 0) is kept in the file serialN.log of the VM's folder, whether or not anybody is connected to the \
             socket serialN: the first 1 MiB and the last 4 MiB since the VM was last launched, or started after it had ended. A \
             guest that reboots by itself writes on. After the end it can still be read, until the VM is started again or \
             flushed. Control codes and escape sequences are left out, and bytes that are no UTF-8 are replaced.\n\n\
             For one VM, shows its last lines on a port, 20 unless told. For several, shows the state of each, how many bytes \
             it wrote, and its last line. The default port is 0.\n\n\
             contains: answers with the line of each VM that has the text, and with an error that names the VMs that have not \
             written it. Upper and lower case differ.\n\
             matches: the same for a regular expression (syntax of the Rust crate regex; `^` and `$` are the ends of a line, \
             `(?i)` at its beginning ignores case).\n\n\
             With `all`, VMs that do not have the port are left out.\n\n\
             \x20   vm serial db\n    vm serial db 1 200\n    vm serial all\n    vm serial web[0-9] 0 contains login:\n    \
             vm serial all 0 matches \"(?i)kernel panic|oops\"",
        )
        .own()
        .columns(COLUMNS),
        serial,
    )]
}
